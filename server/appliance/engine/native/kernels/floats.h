/* Floats as bits and as bf16, and the modes of their arithmetic. */
#pragma once
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#ifndef INLINE
#define INLINE static inline __attribute__((always_inline))
#endif

/* A loop that is written out: i from 0 to end. */
#define UNROLLED(i, end) _Pragma("GCC unroll 16") for (int i = 0; i < (end); i++)

/* Sets rounding to nearest, and denormals as they are or taken and left as zero, since another library may
 * have set this thread otherwise. Returns what was set. An Arm flushes in the variants that define
 * FLUSHES_IN_HARDWARE; plain C does without modes. */
static inline uint32_t set_arithmetic(bool denormals_are_zero) {
#if defined(__SSE2__)
    uint32_t before = _mm_getcsr();
    _mm_setcsr(denormals_are_zero ? 0x9fc0 : 0x1f80);
    __asm__ volatile("" ::: "memory"); /* no arithmetic before this */
    return before;
#elif defined(FLUSHES_IN_HARDWARE)
    uint64_t before, modes = (uint64_t)denormals_are_zero << 24;
    __asm__ volatile("mrs %0, fpcr\n\tmsr fpcr, %1\n\tmsr fpsr, xzr" : "=&r"(before) : "r"(modes) : "memory");
    return (uint32_t)before;
#else
    return denormals_are_zero;
#endif
}

/* Whether a result may have been taken for zero that is not: an Arm looks at it before it is rounded, and
 * what rounds up to the smallest normal number stays one on x86. */
static inline bool restore_arithmetic(uint32_t before) {
#if defined(__SSE2__)
    __asm__ volatile("" ::: "memory");
    _mm_setcsr(before);
    return false;
#elif defined(FLUSHES_IN_HARDWARE)
    uint64_t status;
    __asm__ volatile("mrs %0, fpsr\n\tmsr fpcr, %1" : "=&r"(status) : "r"((uint64_t)before) : "memory");
    return status & 1 << 3; /* underflow, which a flush sets */
#else
    (void)before;
    return false;
#endif
}

INLINE uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

INLINE float bits_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE float widen(uint16_t bf16) { return bits_float((uint32_t)bf16 << 16); }

INLINE uint32_t round_bf16(float value) {
    uint32_t bits = float_bits(value);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded;
}

/* A bf16 with a denormal taken for zero. */
INLINE float normal_bf16(uint32_t bits) { return bits_float(((bits & 0x7f80) == 0 ? bits & 0x8000 : bits) << 16); }

/* fma whose result is zero where rounding to 24 bits without a lowest exponent stays below FLT_MIN:
 * in double the sum is exact wherever that matters. */
INLINE float fma_normal(float a, float b, float c) {
    float sum = fmaf(a, b, c);
    if (fabsf(sum) > FLT_MIN || sum != sum) {
        return sum;
    }
    return fabs((double)a * b + c) < 0x1p-126 - 0x1p-151 ? copysignf(0, sum) : sum;
}

/* Adding 1.5 x 2^23 leaves no fraction: the nearest integer, ties to even, for |x| < 2^22. */
INLINE float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }
