/* The forward pass with 512-bit vectors. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512bf16,fma")
#endif
#define LANES_512
#define FORWARD forward_avx512
#include "forward_variant.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
