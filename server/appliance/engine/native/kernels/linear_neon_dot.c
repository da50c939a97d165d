/* Linear layers on an Arm with integer dot products (Armv8.2 and later). */
#if defined(__aarch64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#include <arm_neon.h>

#define VARIANT neon_dot
#define INT8_QUARTER vdotq_s32
#include "linear_neon.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
