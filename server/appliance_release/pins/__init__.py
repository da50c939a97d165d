"""Pins: which generation an overlay runs, and the history of that."""
