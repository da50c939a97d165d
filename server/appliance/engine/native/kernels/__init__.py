"""The native kernels in C, how they are built, and the library as Python sees it."""
