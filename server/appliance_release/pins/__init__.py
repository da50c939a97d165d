"""Pins the generation that an overlay runs, and keeps the history."""
