/* e^((logit - peak) / temperature) for a whole vocabulary, the same bits in every variant: additions,
 * multiplications and divisions of doubles alone, each rounded as IEEE 754 says. */
#include <stdint.h>
#include <string.h>

#include "linear.h"

#if !defined(__clang__)
#pragma GCC optimize("no-trapping-math") /* comparisons may be vectors; no value changes */
#endif

#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__)
#define FOR_CPU(features) __attribute__((target(features)))
#endif

#define ROUNDER 0x1.8p52 /* added and taken away again it leaves a whole number */

/* Relative error about 1e-16, for x of at most 0; 0 below -700: x = n ln 2 + r, Taylor's series for r. */
INLINE double exp_below(double x) {
    double bounded = x < -700.0 ? -700.0 : x;
    double shifted = bounded * 0x1.71547652b82fep0 + ROUNDER, n = shifted - ROUNDER;
    double r = bounded - n * 0x1.62e42fefap-1; /* ln 2 in two parts; the first times n is exact */
    r = r - n * 0x1.cf79abc9e3b39p-40;
    double e = 1.0 / 479001600;
    e = e * r + 1.0 / 39916800;
    e = e * r + 1.0 / 3628800;
    e = e * r + 1.0 / 362880;
    e = e * r + 1.0 / 40320;
    e = e * r + 1.0 / 5040;
    e = e * r + 1.0 / 720;
    e = e * r + 1.0 / 120;
    e = e * r + 1.0 / 24;
    e = e * r + 1.0 / 6;
    e = e * r + 0.5;
    e = e * r + 1.0;
    e = e * r + 1.0;
    uint64_t bits, scale_bits;
    memcpy(&bits, &shifted, sizeof bits);
    scale_bits = (bits + 1023) << 52; /* 2^n: the low bits of `shifted` are n */
    double scale;
    memcpy(&scale, &scale_bits, sizeof scale);
    return x < -700.0 ? 0.0 : e * scale;
}

INLINE void weigh_all(const float *logits, int32_t n, double peak, double temperature, double *weights) {
    for (int32_t i = 0; i < n; i++) {
        weights[i] = exp_below(((double)logits[i] - peak) / temperature);
    }
}

typedef void weigh_t(const float *logits, int32_t n, double peak, double temperature, double *weights);

#if defined(__x86_64__)
FOR_CPU("avx512f")
static void weigh_avx512(const float *logits, int32_t n, double peak, double temperature, double *weights) {
    weigh_all(logits, n, peak, temperature, weights);
}

FOR_CPU("avx2")
static void weigh_avx2(const float *logits, int32_t n, double peak, double temperature, double *weights) {
    weigh_all(logits, n, peak, temperature, weights);
}
#endif

static void weigh_scalar(const float *logits, int32_t n, double peak, double temperature, double *weights) {
    weigh_all(logits, n, peak, temperature, weights);
}

weigh_t weigh;

void weigh(const float *logits, int32_t n, double peak, double temperature, double *weights) {
    weigh_t *variant = weigh_scalar;
#if defined(__x86_64__)
    if (strcmp(linear_variant(), "avx512") == 0) {
        variant = weigh_avx512;
    }
    if (strcmp(linear_variant(), "avx2") == 0) {
        variant = weigh_avx2;
    }
#endif
    variant(logits, n, peak, temperature, weights);
}
