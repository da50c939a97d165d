"""Contains the native runner: C kernels for the Llama family on CPUs, and their weights."""
