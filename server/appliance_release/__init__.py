"""Locks, builds, carries, pins and checks releases; serves no HTTP."""
