/* Sixteen floats side by side: the virtual vector that every reduction is written over.
 *
 * Four spellings of one arithmetic, for LANES_512, LANES_256, LANES_NEON and none of them. Each operation
 * rounds once, as IEEE 754 says, so the variants give the same bits; sums over lanes are taken in one
 * fixed order, halves onto halves.
 *
 * pairs_t is sixteen pairs of bf16. pairs_fma adds the product of the second of each pair by fma, then
 * that of the first, and takes and leaves denormals as zero where set_arithmetic(true) is in force or the
 * instruction does so by itself. pairs_round stores finite floats that are not denormal.
 */
#pragma once
#include "floats.h"

#if defined(LANES_512) || defined(LANES_256)
#include <immintrin.h>
#elif defined(LANES_NEON)
#include <arm_neon.h>
#endif

#define LANES 16
#define LOG2_E 0x1.715476p+0f

#if defined(LANES_512) || defined(LANES_256)
INLINE float sum_of_eight(__m256 x) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
/* The maximum is the same in any order. */
INLINE float largest_of_eight(__m256 x) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
#endif

#if defined(LANES_512)

typedef __m512 lanes_t;

INLINE __m256 upper_eight(lanes_t a) {
    return _mm256_castsi256_ps(_mm512_extracti64x4_epi64(_mm512_castps_si512(a), 1));
}
INLINE lanes_t lanes_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void lanes_store(float *p, lanes_t a) { _mm512_storeu_ps(p, a); }
INLINE lanes_t lanes_set(float a) { return _mm512_set1_ps(a); }
INLINE lanes_t lanes_add(lanes_t a, lanes_t b) { return _mm512_add_ps(a, b); }
INLINE lanes_t lanes_sub(lanes_t a, lanes_t b) { return _mm512_sub_ps(a, b); }
INLINE lanes_t lanes_mul(lanes_t a, lanes_t b) { return _mm512_mul_ps(a, b); }
INLINE lanes_t lanes_div(lanes_t a, lanes_t b) { return _mm512_div_ps(a, b); }
INLINE lanes_t lanes_max(lanes_t a, lanes_t b) { return _mm512_max_ps(a, b); }
INLINE lanes_t lanes_min(lanes_t a, lanes_t b) { return _mm512_min_ps(a, b); }
INLINE lanes_t lanes_fma(lanes_t a, lanes_t b, lanes_t c) { return _mm512_fmadd_ps(a, b, c); }
/* a * 2^n, n being the low bits of `rounded`; 0 unless x >= lowest. */
INLINE lanes_t lanes_scale_from(lanes_t a, lanes_t rounded, lanes_t x, lanes_t lowest) {
    __m512i exponents = _mm512_slli_epi32(_mm512_castps_si512(rounded), 23);
    __mmask16 above = _mm512_cmp_ps_mask(x, lowest, _CMP_GE_OQ);
    return _mm512_castsi512_ps(_mm512_maskz_add_epi32(above, _mm512_castps_si512(a), exponents));
}
INLINE float lanes_sum(lanes_t a) {
    return sum_of_eight(_mm256_add_ps(_mm512_castps512_ps256(a), upper_eight(a)));
}
INLINE float lanes_largest(lanes_t a) {
    return largest_of_eight(_mm256_max_ps(_mm512_castps512_ps256(a), upper_eight(a)));
}

typedef __m512i pairs_t;

INLINE pairs_t pairs_load(const uint16_t *p) { return _mm512_loadu_si512(p); }
INLINE pairs_t pairs_set(const uint16_t *p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return _mm512_set1_epi32(pair);
}
INLINE lanes_t pairs_fma(pairs_t a, pairs_t b, lanes_t sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}
INLINE void pairs_round(uint16_t *p, lanes_t first, lanes_t second) {
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

#elif defined(LANES_256)

typedef struct {
    __m256 a, b;
} lanes_t;

#define EACH(expression_a, expression_b) \
    (lanes_t) { expression_a, expression_b }

INLINE lanes_t lanes_load(const float *p) { return EACH(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
INLINE void lanes_store(float *p, lanes_t x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
INLINE lanes_t lanes_set(float x) { return EACH(_mm256_set1_ps(x), _mm256_set1_ps(x)); }
INLINE lanes_t lanes_add(lanes_t x, lanes_t y) {
    return EACH(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b));
}
INLINE lanes_t lanes_sub(lanes_t x, lanes_t y) {
    return EACH(_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b));
}
INLINE lanes_t lanes_mul(lanes_t x, lanes_t y) {
    return EACH(_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b));
}
INLINE lanes_t lanes_div(lanes_t x, lanes_t y) {
    return EACH(_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b));
}
INLINE lanes_t lanes_max(lanes_t x, lanes_t y) {
    return EACH(_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b));
}
INLINE lanes_t lanes_min(lanes_t x, lanes_t y) {
    return EACH(_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b));
}
INLINE lanes_t lanes_fma(lanes_t x, lanes_t y, lanes_t z) {
    return EACH(_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b));
}
INLINE __m256 half_scale_from(__m256 x, __m256 rounded, __m256 from, __m256 lowest) {
    __m256i exponents = _mm256_slli_epi32(_mm256_castps_si256(rounded), 23);
    __m256 scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), exponents));
    return _mm256_and_ps(scaled, _mm256_cmp_ps(from, lowest, _CMP_GE_OQ));
}
INLINE lanes_t lanes_scale_from(lanes_t a, lanes_t rounded, lanes_t x, lanes_t lowest) {
    return EACH(half_scale_from(a.a, rounded.a, x.a, lowest.a), half_scale_from(a.b, rounded.b, x.b, lowest.b));
}
INLINE float lanes_sum(lanes_t x) { return sum_of_eight(_mm256_add_ps(x.a, x.b)); }
INLINE float lanes_largest(lanes_t x) { return largest_of_eight(_mm256_max_ps(x.a, x.b)); }

typedef struct {
    __m256i a, b;
} pairs_t;

INLINE pairs_t pairs_load(const uint16_t *p) {
    return (pairs_t){_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 16))};
}
INLINE pairs_t pairs_set(const uint16_t *p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (pairs_t){_mm256_set1_epi32(pair), _mm256_set1_epi32(pair)};
}
INLINE __m256 upper_halves(__m256i x) {
    return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32((int32_t)0xffff0000)));
}
INLINE __m256 lower_halves(__m256i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)); }
INLINE __m256 half_fma_pairs(__m256i x, __m256i y, __m256 sum) {
    sum = _mm256_fmadd_ps(upper_halves(x), upper_halves(y), sum);
    return _mm256_fmadd_ps(lower_halves(x), lower_halves(y), sum);
}
INLINE lanes_t pairs_fma(pairs_t x, pairs_t y, lanes_t sum) {
    return EACH(half_fma_pairs(x.a, y.a, sum.a), half_fma_pairs(x.b, y.b, sum.b));
}
INLINE __m256i half_round_bf16(__m256 x) {
    __m256i bits = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
}
INLINE void lanes_store_bf16(uint16_t *p, lanes_t x) {
    __m256i apart = _mm256_packus_epi32(half_round_bf16(x.a), half_round_bf16(x.b));
    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(apart, 0xd8));
}
INLINE void pairs_round(uint16_t *p, lanes_t first, lanes_t second) {
    lanes_store_bf16(p, first);
    lanes_store_bf16(p + LANES, second);
}

#elif defined(LANES_NEON)

typedef struct {
    float32x4_t of[4];
} lanes_t;

#define EACH(expression)                                   \
    lanes_t out;                                           \
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++)    \
        out.of[i] = (expression);                          \
    return out

INLINE lanes_t lanes_load(const float *p) { EACH(vld1q_f32(p + 4 * i)); }
INLINE void lanes_store(float *p, lanes_t x) {
    for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, x.of[i]);
}
INLINE lanes_t lanes_set(float x) { EACH(vdupq_n_f32(x)); }
INLINE lanes_t lanes_add(lanes_t x, lanes_t y) { EACH(vaddq_f32(x.of[i], y.of[i])); }
INLINE lanes_t lanes_sub(lanes_t x, lanes_t y) { EACH(vsubq_f32(x.of[i], y.of[i])); }
INLINE lanes_t lanes_mul(lanes_t x, lanes_t y) { EACH(vmulq_f32(x.of[i], y.of[i])); }
INLINE lanes_t lanes_div(lanes_t x, lanes_t y) { EACH(vdivq_f32(x.of[i], y.of[i])); }
/* As maxps and minps: the second operand where they do not compare. */
INLINE lanes_t lanes_max(lanes_t x, lanes_t y) {
    EACH(vbslq_f32(vcgtq_f32(x.of[i], y.of[i]), x.of[i], y.of[i]));
}
INLINE lanes_t lanes_min(lanes_t x, lanes_t y) {
    EACH(vbslq_f32(vcltq_f32(x.of[i], y.of[i]), x.of[i], y.of[i]));
}
INLINE lanes_t lanes_fma(lanes_t x, lanes_t y, lanes_t z) { EACH(vfmaq_f32(z.of[i], x.of[i], y.of[i])); }
INLINE lanes_t lanes_scale_from(lanes_t a, lanes_t rounded, lanes_t x, lanes_t lowest) {
    EACH(vreinterpretq_f32_u32(vandq_u32(
        vaddq_u32(vreinterpretq_u32_f32(a.of[i]), vshlq_n_u32(vreinterpretq_u32_f32(rounded.of[i]), 23)),
        vcgeq_f32(x.of[i], lowest.of[i]))));
}
INLINE float lanes_sum(lanes_t x) {
    float32x4_t four = vaddq_f32(vaddq_f32(x.of[0], x.of[2]), vaddq_f32(x.of[1], x.of[3]));
    float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
INLINE float lanes_largest(lanes_t x) {
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.of[0], x.of[1]), vmaxq_f32(x.of[2], x.of[3])));
}

typedef struct {
    uint32x4_t of[4];
} pairs_t;

INLINE pairs_t pairs_load(const uint16_t *p) {
    pairs_t out;
    for (int i = 0; i < 4; i++) out.of[i] = vreinterpretq_u32_u16(vld1q_u16(p + 8 * i));
    return out;
}
INLINE pairs_t pairs_set(const uint16_t *p) {
    uint32_t pair;
    memcpy(&pair, p, sizeof pair);
    pairs_t out;
    for (int i = 0; i < 4; i++) out.of[i] = vdupq_n_u32(pair);
    return out;
}
INLINE float32x4_t upper_halves(uint32x4_t x) { return vreinterpretq_f32_u32(vandq_u32(x, vdupq_n_u32(0xffff0000))); }
INLINE float32x4_t lower_halves(uint32x4_t x) { return vreinterpretq_f32_u32(vshlq_n_u32(x, 16)); }
INLINE lanes_t pairs_fma(pairs_t x, pairs_t y, lanes_t sum) {
    EACH(vfmaq_f32(vfmaq_f32(sum.of[i], upper_halves(x.of[i]), upper_halves(y.of[i])), lower_halves(x.of[i]),
                   lower_halves(y.of[i])));
}
INLINE uint16x4_t quarter_round_bf16(float32x4_t x) {
    uint32x4_t bits = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    return vshrn_n_u32(vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd), 16);
}
INLINE void pairs_round(uint16_t *p, lanes_t first, lanes_t second) {
    for (int i = 0; i < 4; i++) vst1_u16(p + 4 * i, quarter_round_bf16(first.of[i]));
    for (int i = 0; i < 4; i++) vst1_u16(p + LANES + 4 * i, quarter_round_bf16(second.of[i]));
}

#else

typedef struct {
    float f[LANES];
} lanes_t;

#define EACH(expression)                                     \
    lanes_t out;                                             \
    for (int i = 0; i < LANES; i++) out.f[i] = (expression); \
    return out

INLINE lanes_t lanes_load(const float *p) { EACH(p[i]); }
INLINE void lanes_store(float *p, lanes_t x) { memcpy(p, x.f, sizeof x.f); }
INLINE lanes_t lanes_set(float x) { EACH(x); }
INLINE lanes_t lanes_add(lanes_t x, lanes_t y) { EACH(x.f[i] + y.f[i]); }
INLINE lanes_t lanes_sub(lanes_t x, lanes_t y) { EACH(x.f[i] - y.f[i]); }
INLINE lanes_t lanes_mul(lanes_t x, lanes_t y) { EACH(x.f[i] * y.f[i]); }
INLINE lanes_t lanes_div(lanes_t x, lanes_t y) { EACH(x.f[i] / y.f[i]); }
/* As maxps and minps: the second operand where they do not compare. */
INLINE lanes_t lanes_max(lanes_t x, lanes_t y) { EACH(x.f[i] > y.f[i] ? x.f[i] : y.f[i]); }
INLINE lanes_t lanes_min(lanes_t x, lanes_t y) { EACH(x.f[i] < y.f[i] ? x.f[i] : y.f[i]); }
INLINE lanes_t lanes_fma(lanes_t x, lanes_t y, lanes_t z) {
    EACH(__builtin_fmaf(x.f[i], y.f[i], z.f[i]));
}
INLINE lanes_t lanes_scale_from(lanes_t a, lanes_t rounded, lanes_t x, lanes_t lowest) {
    EACH(x.f[i] >= lowest.f[i] ? bits_float(float_bits(a.f[i]) + (float_bits(rounded.f[i]) << 23)) : 0.0f);
}
INLINE float lanes_sum(lanes_t x) {
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) x.f[i] += x.f[i + width];
    return x.f[0];
}
INLINE float lanes_largest(lanes_t x) {
    for (int i = 1; i < LANES; i++) x.f[0] = x.f[0] > x.f[i] ? x.f[0] : x.f[i];
    return x.f[0];
}

typedef struct {
    uint32_t of[LANES];
} pairs_t;

INLINE pairs_t pairs_load(const uint16_t *p) {
    pairs_t out;
    memcpy(out.of, p, sizeof out.of);
    return out;
}
INLINE pairs_t pairs_set(const uint16_t *p) {
    pairs_t out;
    for (int i = 0; i < LANES; i++) memcpy(&out.of[i], p, sizeof *out.of);
    return out;
}
INLINE lanes_t pairs_fma(pairs_t x, pairs_t y, lanes_t sum) {
    EACH(fma_normal(normal_bf16(x.of[i] & 0xffff), normal_bf16(y.of[i] & 0xffff),
                    fma_normal(normal_bf16(x.of[i] >> 16), normal_bf16(y.of[i] >> 16), sum.f[i])));
}
INLINE void pairs_round(uint16_t *p, lanes_t first, lanes_t second) {
    for (int i = 0; i < LANES; i++) p[i] = (uint16_t)round_bf16(first.f[i]);
    for (int i = 0; i < LANES; i++) p[LANES + i] = (uint16_t)round_bf16(second.f[i]);
}

#endif

/* The first `count` floats, the other lanes zero; and the way back. */
INLINE lanes_t lanes_load_part(const float *p, int count) {
    float part[LANES] = {0};
    memcpy(part, p, (size_t)count * sizeof *p);
    return lanes_load(part);
}
INLINE void lanes_store_part(float *p, lanes_t x, int count) {
    float part[LANES];
    lanes_store(part, x);
    memcpy(p, part, (size_t)count * sizeof *p);
}

/* 2^x for x up to 126, relative error 3e-6, and 0 below -126 or where x is no number: 2^n by its bits
 * times a polynomial of the rest that is 1 at 0. A result is never denormal. */
INLINE lanes_t lanes_exp2(lanes_t x) {
    const lanes_t rounder = lanes_set(0x1.8p23f); /* added and taken away again it leaves a whole number */
    lanes_t rounded = lanes_add(x, rounder), r = lanes_sub(x, lanes_sub(rounded, rounder));
    lanes_t e = lanes_set(0x1.3a02ccp-7f);
    e = lanes_fma(e, r, lanes_set(0x1.c9fc46p-5f));
    e = lanes_fma(e, r, lanes_set(0x1.ec0378p-3f));
    e = lanes_fma(e, r, lanes_set(0x1.62e12cp-1f));
    e = lanes_fma(e, r, lanes_set(1.0f));
    return lanes_scale_from(e, rounded, x, lanes_set(-126.0f));
}
