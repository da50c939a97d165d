"""The native runner: own C kernels for the Llama family on CPUs, and weights in their layout."""
