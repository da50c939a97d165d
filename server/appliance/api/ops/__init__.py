"""For operators: health, version and metrics."""
