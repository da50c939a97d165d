"""Measurements of this machine; each module is one bench, `python -m bench NAME` runs it."""
