"""Writes bills of materials."""
