"""Who asks: principals, keys, limits and the audit log."""
