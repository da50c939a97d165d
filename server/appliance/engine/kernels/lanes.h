/* Sixteen floats side by side: the virtual vector that every reduction is written over.
 *
 * Four spellings of one arithmetic, for LANES_512, LANES_256, LANES_NEON and none of them. Each operation
 * rounds once, as IEEE 754 says, so the variants give the same bits; sums over lanes are taken in one
 * fixed order, halves onto halves.
 */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(LANES_512) || defined(LANES_256)
#include <immintrin.h>
#elif defined(LANES_NEON)
#include <arm_neon.h>
#endif

#define LANES 16
#define INLINE static inline __attribute__((always_inline))

#if defined(LANES_512)

typedef __m512 lanes_t;

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
INLINE lanes_t lanes_round(lanes_t a) { return _mm512_roundscale_ps(a, 8); }
INLINE lanes_t lanes_where_below(lanes_t a, lanes_t limit, lanes_t yes, lanes_t no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, limit, _CMP_LT_OQ), no, yes);
}
/* 2^n for whole n from -126 to 127. */
INLINE lanes_t lanes_power_of_two(lanes_t n) {
    __m512i bits = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 23));
}
INLINE lanes_t lanes_load_bf16(const uint16_t *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
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
INLINE lanes_t lanes_round(lanes_t x) {
    return EACH(_mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8));
}
INLINE lanes_t lanes_where_below(lanes_t x, lanes_t limit, lanes_t yes, lanes_t no) {
    return EACH(_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, limit.a, _CMP_LT_OQ)),
                _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, limit.b, _CMP_LT_OQ)));
}
INLINE __m256 half_power_of_two(__m256 n) {
    __m256i bits = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23));
}
INLINE lanes_t lanes_power_of_two(lanes_t n) {
    return EACH(half_power_of_two(n.a), half_power_of_two(n.b));
}
INLINE __m256 half_load_bf16(const uint16_t *p) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
INLINE lanes_t lanes_load_bf16(const uint16_t *p) {
    return EACH(half_load_bf16(p), half_load_bf16(p + 8));
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
INLINE lanes_t lanes_round(lanes_t x) { EACH(vrndnq_f32(x.of[i])); }
INLINE lanes_t lanes_where_below(lanes_t x, lanes_t limit, lanes_t yes, lanes_t no) {
    EACH(vbslq_f32(vcltq_f32(x.of[i], limit.of[i]), yes.of[i], no.of[i]));
}
INLINE lanes_t lanes_power_of_two(lanes_t n) {
    EACH(vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.of[i]), vdupq_n_s32(127)), 23)));
}
INLINE lanes_t lanes_load_bf16(const uint16_t *p) {
    EACH(vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)));
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
INLINE lanes_t lanes_round(lanes_t x) { EACH(__builtin_rintf(x.f[i])); }
INLINE lanes_t lanes_where_below(lanes_t x, lanes_t limit, lanes_t yes, lanes_t no) {
    EACH(x.f[i] < limit.f[i] ? yes.f[i] : no.f[i]);
}
INLINE float float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
INLINE lanes_t lanes_power_of_two(lanes_t n) {
    EACH(float_from_bits((uint32_t)((int32_t)n.f[i] + 127) << 23));
}
INLINE lanes_t lanes_load_bf16(const uint16_t *p) { EACH(float_from_bits((uint32_t)p[i] << 16)); }

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

INLINE float lanes_sum(lanes_t x) {
    float f[LANES];
    lanes_store(f, x);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) f[i] += f[i + width];
    return f[0];
}
/* The maximum is the same in any order. */
INLINE float lanes_largest(lanes_t x) {
    float f[LANES];
    lanes_store(f, x);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) f[i] = f[i] > f[i + width] ? f[i] : f[i + width];
    return f[0];
}

/* e^x, relative error about 1e-7: x = n ln 2 + r, Taylor's series for r; 0 below -87. */
INLINE lanes_t lanes_exp(lanes_t x) {
    const lanes_t lowest = lanes_set(-87.0f);
    lanes_t bounded = lanes_max(lanes_min(x, lanes_set(88.0f)), lowest);
    lanes_t n = lanes_round(lanes_mul(bounded, lanes_set(0x1.715476p+0f)));
    lanes_t r = lanes_fma(n, lanes_set(-0x1.62e4p-1f), bounded); /* ln 2 in two parts, the first short */
    r = lanes_fma(n, lanes_set(-0x1.7f7d1cp-20f), r);
    lanes_t e = lanes_set(1.0f / 5040);
    e = lanes_fma(e, r, lanes_set(1.0f / 720));
    e = lanes_fma(e, r, lanes_set(1.0f / 120));
    e = lanes_fma(e, r, lanes_set(1.0f / 24));
    e = lanes_fma(e, r, lanes_set(1.0f / 6));
    e = lanes_fma(e, r, lanes_set(0.5f));
    e = lanes_fma(e, r, lanes_set(1.0f));
    e = lanes_fma(e, r, lanes_set(1.0f));
    return lanes_where_below(x, lowest, lanes_set(0.0f), lanes_mul(e, lanes_power_of_two(n)));
}
