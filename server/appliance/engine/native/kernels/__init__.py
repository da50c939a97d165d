"""Contains the native kernels in C, builds them, and calls the library."""
