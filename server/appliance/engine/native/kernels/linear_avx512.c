/* Linear layers with 512-bit vectors, bf16 and integer dot products (Zen 4, Sapphire Rapids and later). */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16,fma"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16,fma")
#endif
#include <immintrin.h>
#include <stdint.h>

#define VARIANT avx512
#define NAME "avx512"
enum { WIDE_ROWS = 8, NARROW_ROWS = 0, UNPACK_ABOVE = 32 };

typedef __m512 floats_t; /* one fp32 an output */
typedef __m512i ints_t;  /* one int32 an output */
typedef __m512i line_t;  /* a line of weights */
typedef struct {
    __m512i steps, offsets;
} codes_t;

static inline __mmask16 first_columns(int count) {
    return (__mmask16)(count >= 16 ? 0xffff : count > 0 ? (1u << count) - 1 : 0);
}

static inline floats_t zero_floats(void) { return _mm512_setzero_ps(); }

static inline floats_t load_floats(const float *from) { return _mm512_load_ps(from); }

static inline void store_floats(float *to, floats_t value, int count) {
    __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    value = _mm512_mask_mov_ps(value, nan, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000)));
    _mm512_mask_storeu_ps(to, first_columns(count), value);
}

static inline ints_t begin_sums(int32_t offset) { return _mm512_set1_epi32(offset); }

static inline line_t load_line(const uint8_t *from) { return _mm512_load_si512(from); }

/* fma(upper halves), then fma(lower halves), without denormals at any MXCSR. */
static inline floats_t bf16_step(floats_t sum, line_t w, int32_t x) {
    return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)_mm512_set1_epi32(x));
}

static inline ints_t int8_step(ints_t sum, line_t w, int32_t x) {
    __m512i all = _mm512_set1_epi32(x);
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(all));
    return sum;
}

static inline floats_t group_step(floats_t sum, ints_t group, const uint16_t *w_scales, float x_scale) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_load_si256((const __m256i *)w_scales));
    __m512 scale = _mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16)), _mm512_set1_ps(x_scale));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(group), scale, sum);
}

/* Products of two nibbles a byte: no carry crosses bytes, as 15 * 15 < 256. */
static inline __m512i multiply_bytes(__m512i a, __m512i b) {
    const __m512i low = _mm512_set1_epi16(0xff);
    __m512i even = _mm512_mullo_epi16(_mm512_and_si512(a, low), _mm512_and_si512(b, low));
    return _mm512_or_si512(even, _mm512_mullo_epi16(_mm512_srli_epi16(a, 8), _mm512_andnot_si512(low, b)));
}

/* Of a group's line of codes: steps, and offsets 128 - zero * step, both 16 outputs x 4 subgroups. */
static inline codes_t load_codes(const uint8_t *from) {
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i codes = _mm512_load_si512(from), steps = _mm512_and_si512(codes, nibble);
    __m512i zeros = _mm512_and_si512(_mm512_srli_epi16(codes, 4), nibble);
    return (codes_t){steps, _mm512_sub_epi8(_mm512_set1_epi8(-128), multiply_bytes(zeros, steps))};
}

/* One subgroup's codes beside each of its bytes; every other byte of the steps is zero. */
static inline codes_t spread_codes(codes_t codes, int subgroup) {
    __m512i first = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
    __m512i pick = _mm512_add_epi8(first, _mm512_set1_epi8((char)subgroup));
    return (codes_t){_mm512_maskz_shuffle_epi8(0x5555555555555555, codes.steps, pick),
                     _mm512_shuffle_epi8(codes.offsets, pick)};
}

/* An int4 line as two int8 lines: nibble * step + offset stays within a byte. */
static inline void unpack_line(const uint8_t *from, codes_t codes, line_t lines[2]) {
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i both = _mm512_load_si512(from);
    __m512i second = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
    lines[0] = _mm512_add_epi8(_mm512_mullo_epi16(_mm512_and_si512(both, nibble), codes.steps), codes.offsets);
    lines[1] = _mm512_add_epi8(_mm512_mullo_epi16(second, codes.steps), codes.offsets);
}

static inline void store_line(uint8_t *to, line_t line) { _mm512_store_si512(to, line); }

#include "linear_tiles.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
