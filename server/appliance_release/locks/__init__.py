"""Pins what a build is made of by size and hash."""
