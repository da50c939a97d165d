"""Locks: what a build is made of, pinned by size and hash."""
