"""Contains the reference runner on torch: the Llama family on CPUs and CUDA devices."""
