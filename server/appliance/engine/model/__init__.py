"""Model architectures: configuration, weights and forward passes."""
