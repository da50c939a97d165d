"""Fields that several faces share, each with its limits and its meaning."""
