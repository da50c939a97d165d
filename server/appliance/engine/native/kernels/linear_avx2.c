/* Linear layers with 256-bit vectors: the 512-bit instructions, spelled out. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#include <immintrin.h>
#include <stdint.h>

#define VARIANT avx2
#define NAME "avx2"
enum { WIDE_ROWS = 2, NARROW_ROWS = 4, UNPACK_ABOVE = 12 };

typedef struct {
    __m256 low, high;
} floats_t; /* one fp32 an output */
typedef struct {
    __m256i low, high;
} ints_t; /* one int32 an output */
typedef struct {
    __m256i low, high;
} line_t; /* a line of weights */
typedef struct {
    line_t steps, offsets;
} codes_t;

static inline __m256i first_columns(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline floats_t zero_floats(void) { return (floats_t){_mm256_setzero_ps(), _mm256_setzero_ps()}; }

static inline floats_t load_floats(const float *from) {
    return (floats_t){_mm256_load_ps(from), _mm256_load_ps(from + 8)};
}

static inline __m256 without_nan_bits(__m256 value) {
    __m256 nan = _mm256_cmp_ps(value, value, _CMP_UNORD_Q);
    return _mm256_blendv_ps(value, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)), nan);
}

static inline void store_floats(float *to, floats_t value, int count) {
    _mm256_maskstore_ps(to, first_columns(count), without_nan_bits(value.low));
    _mm256_maskstore_ps(to + 8, first_columns(count - 8), without_nan_bits(value.high));
}

static inline ints_t begin_sums(int32_t offset) {
    return (ints_t){_mm256_set1_epi32(offset), _mm256_set1_epi32(offset)};
}

static inline line_t load_line(const uint8_t *from) {
    const __m256i *half = (const __m256i *)from;
    return (line_t){_mm256_load_si256(half), _mm256_load_si256(half + 1)};
}

static inline __m256 upper_bf16(__m256i v) {
    return _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32((int32_t)0xffff0000)));
}

static inline __m256 lower_bf16(__m256i v) { return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)); }

static inline floats_t bf16_step(floats_t sum, line_t w, int32_t x) {
    __m256 first = upper_bf16(_mm256_set1_epi32(x)), second = lower_bf16(_mm256_set1_epi32(x));
    sum.low = _mm256_fmadd_ps(upper_bf16(w.low), first, sum.low);
    sum.high = _mm256_fmadd_ps(upper_bf16(w.high), first, sum.high);
    sum.low = _mm256_fmadd_ps(lower_bf16(w.low), second, sum.low);
    sum.high = _mm256_fmadd_ps(lower_bf16(w.high), second, sum.high);
    return sum;
}

/* Even and odd bytes apart, in 16 bits, where two products of 255 x 127 cannot saturate. */
static inline __m256i int8_half(__m256i sum, __m256i w, __m256i even_x, __m256i odd_x) {
    __m256i even = _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(0xff)), even_x);
    __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), odd_x);
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}

static inline ints_t int8_step(ints_t sum, line_t w, int32_t x) {
    __m256i all = _mm256_set1_epi32(x);
    __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(all, 8), 8), odd = _mm256_srai_epi16(all, 8);
    return (ints_t){int8_half(sum.low, w.low, even, odd), int8_half(sum.high, w.high, even, odd)};
}

static inline __m256 group_half(__m256 sum, __m256i group, const uint16_t *w_scales, float x_scale) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_load_si128((const __m128i *)w_scales));
    __m256 scale = _mm256_mul_ps(lower_bf16(wide), _mm256_set1_ps(x_scale));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(group), scale, sum);
}

static inline floats_t group_step(floats_t sum, ints_t group, const uint16_t *w_scales, float x_scale) {
    return (floats_t){group_half(sum.low, group.low, w_scales, x_scale),
                      group_half(sum.high, group.high, w_scales + 8, x_scale)};
}

/* Products of two nibbles a byte: no carry crosses bytes, as 15 * 15 < 256. */
static inline __m256i multiply_bytes(__m256i a, __m256i b) {
    const __m256i low = _mm256_set1_epi16(0xff);
    __m256i even = _mm256_mullo_epi16(_mm256_and_si256(a, low), _mm256_and_si256(b, low));
    return _mm256_or_si256(even, _mm256_mullo_epi16(_mm256_srli_epi16(a, 8), _mm256_andnot_si256(low, b)));
}

static inline void load_half_codes(const uint8_t *from, __m256i *steps, __m256i *offsets) {
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i codes = _mm256_load_si256((const __m256i *)from);
    __m256i zeros = _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble);
    *steps = _mm256_and_si256(codes, nibble);
    *offsets = _mm256_sub_epi8(_mm256_set1_epi8(-128), multiply_bytes(zeros, *steps));
}

/* Of a group's line of codes: steps, and offsets 128 - zero * step, both 16 outputs x 4 subgroups. */
static inline codes_t load_codes(const uint8_t *from) {
    codes_t codes;
    load_half_codes(from, &codes.steps.low, &codes.offsets.low);
    load_half_codes(from + 32, &codes.steps.high, &codes.offsets.high);
    return codes;
}

/* One subgroup's codes beside each of its bytes; every other byte of the steps is zero. */
static inline codes_t spread_codes(codes_t codes, int subgroup) {
    __m256i first = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
    __m256i pick = _mm256_add_epi8(first, _mm256_set1_epi8((char)subgroup)), low = _mm256_set1_epi16(0xff);
    return (codes_t){{_mm256_and_si256(_mm256_shuffle_epi8(codes.steps.low, pick), low),
                      _mm256_and_si256(_mm256_shuffle_epi8(codes.steps.high, pick), low)},
                     {_mm256_shuffle_epi8(codes.offsets.low, pick), _mm256_shuffle_epi8(codes.offsets.high, pick)}};
}

static inline __m256i scale_nibbles(__m256i nibbles, __m256i steps, __m256i offsets) {
    __m256i low = _mm256_and_si256(nibbles, _mm256_set1_epi8(15));
    return _mm256_add_epi8(_mm256_mullo_epi16(low, steps), offsets);
}

/* An int4 line as two int8 lines: nibble * step + offset stays within a byte. */
static inline void unpack_line(const uint8_t *from, codes_t codes, line_t lines[2]) {
    line_t both = load_line(from);
    lines[0].low = scale_nibbles(both.low, codes.steps.low, codes.offsets.low);
    lines[0].high = scale_nibbles(both.high, codes.steps.high, codes.offsets.high);
    lines[1].low = scale_nibbles(_mm256_srli_epi16(both.low, 4), codes.steps.low, codes.offsets.low);
    lines[1].high = scale_nibbles(_mm256_srli_epi16(both.high, 4), codes.steps.high, codes.offsets.high);
}

static inline void store_line(uint8_t *to, line_t line) {
    _mm256_store_si256((__m256i *)to, line.low);
    _mm256_store_si256((__m256i *)to + 1, line.high);
}

#include "linear_tiles.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
