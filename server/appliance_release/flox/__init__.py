"""Checks Flox environments and packages without Flox."""
