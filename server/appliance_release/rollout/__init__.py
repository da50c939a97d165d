"""Compares what a cluster runs with what is pinned."""
