"""Writes for people at a terminal: the banner, progress, and text that is safe to print."""
