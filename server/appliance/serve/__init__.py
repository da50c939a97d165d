"""This process: constructs everything, listens, and lives until it is stopped."""
