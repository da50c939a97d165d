"""Generations: locks, pins and manifests of what is released; never HTTP."""
