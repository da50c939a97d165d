"""Carries a whole release to places without a network."""
