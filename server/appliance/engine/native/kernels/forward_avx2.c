/* The forward pass with 256-bit vectors. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define LANES_256
#define FORWARD forward_avx2
#include "forward_variant.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
