/* Linear layers with Arm's 128-bit vectors, compiled with and without integer dot products: the including
 * file defines INT8_QUARTER, which adds products of four signed bytes each to four sums.
 *
 * BFDOT and BFMMLA are not used: they round the sum of two products, where the law is two fmas.
 */
#include <stdint.h>
#include <string.h>

#define NAME "neon"
#define FLUSHES_IN_HARDWARE
enum { WIDE_ROWS = 1, NARROW_ROWS = 4, UNPACK_ABOVE = 12 };

typedef struct { float32x4_t of[4]; } floats_t; /* one fp32 an output */
typedef struct { int32x4_t of[4]; } ints_t;     /* one int32 an output */
typedef struct { uint8x16_t of[4]; } line_t;    /* a line of weights */
typedef struct { line_t steps, offsets; } codes_t;

#define EACH_QUARTER _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++)

static inline floats_t zero_floats(void) {
    floats_t value;
    EACH_QUARTER value.of[i] = vdupq_n_f32(0);
    return value;
}

static inline floats_t load_floats(const float *from) {
    floats_t value;
    EACH_QUARTER value.of[i] = vld1q_f32(from + 4 * i);
    return value;
}

static inline void store_floats(float *to, floats_t value, int count) {
    const float32x4_t nan = vreinterpretq_f32_u32(vdupq_n_u32(0x7fc00000));
    float part[16], *all = count < 16 ? part : to;
    EACH_QUARTER vst1q_f32(all + 4 * i, vbslq_f32(vceqq_f32(value.of[i], value.of[i]), value.of[i], nan));
    if (count > 0 && count < 16) memcpy(to, part, (size_t)count * sizeof *part);
}

/* Bytes are multiplied as signed ones here, so there is no + 128 to take back. */
static inline ints_t begin_sums(int32_t offset) {
    ints_t zero;
    (void)offset;
    EACH_QUARTER zero.of[i] = vdupq_n_s32(0);
    return zero;
}

static inline line_t load_line(const uint8_t *from) {
    line_t line;
    EACH_QUARTER line.of[i] = vld1q_u8(from + 16 * i);
    return line;
}

static inline float32x4_t upper_bf16(uint32x4_t pairs) {
    return vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff0000)));
}

static inline float32x4_t lower_bf16(uint32x4_t pairs) { return vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16)); }

/* Without denormals by the mode of linear_pack.h. */
static inline floats_t bf16_step(floats_t sum, line_t w, int32_t x) {
    float32x4_t first = upper_bf16(vdupq_n_u32((uint32_t)x)), second = lower_bf16(vdupq_n_u32((uint32_t)x));
    EACH_QUARTER {
        uint32x4_t pairs = vreinterpretq_u32_u8(w.of[i]);
        sum.of[i] = vfmaq_f32(sum.of[i], upper_bf16(pairs), first);
        sum.of[i] = vfmaq_f32(sum.of[i], lower_bf16(pairs), second);
    }
    return sum;
}

static inline ints_t int8_step(ints_t sum, line_t w, int32_t x) {
    int8x16_t all = vreinterpretq_s8_s32(vdupq_n_s32(x));
    EACH_QUARTER {
        int8x16_t weights = vreinterpretq_s8_u8(veorq_u8(w.of[i], vdupq_n_u8(0x80)));
        sum.of[i] = INT8_QUARTER(sum.of[i], weights, all);
    }
    return sum;
}

static inline floats_t group_step(floats_t sum, ints_t group, const uint16_t *w_scales, float x_scale) {
    EACH_QUARTER {
        float32x4_t scale = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(w_scales + 4 * i), 16));
        sum.of[i] = vfmaq_f32(sum.of[i], vcvtq_f32_s32(group.of[i]), vmulq_n_f32(scale, x_scale));
    }
    return sum;
}

/* Of a group's line of codes: steps, and offsets 128 - zero * step, both 16 outputs x 4 subgroups. */
static inline codes_t load_codes(const uint8_t *from) {
    codes_t codes;
    EACH_QUARTER {
        uint8x16_t both = vld1q_u8(from + 16 * i);
        codes.steps.of[i] = vandq_u8(both, vdupq_n_u8(15));
        codes.offsets.of[i] = vmlsq_u8(vdupq_n_u8(128), vshrq_n_u8(both, 4), codes.steps.of[i]);
    }
    return codes;
}

/* One subgroup's codes beside each of its bytes. */
static inline codes_t spread_codes(codes_t codes, int subgroup) {
    static const uint8_t firsts[16] = {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12};
    uint8x16_t pick = vaddq_u8(vld1q_u8(firsts), vdupq_n_u8((uint8_t)subgroup));
    codes_t spread;
    EACH_QUARTER {
        spread.steps.of[i] = vqtbl1q_u8(codes.steps.of[i], pick);
        spread.offsets.of[i] = vqtbl1q_u8(codes.offsets.of[i], pick);
    }
    return spread;
}

/* An int4 line as two int8 lines: nibble * step + offset stays within a byte. */
static inline void unpack_line(const uint8_t *from, codes_t codes, line_t lines[2]) {
    EACH_QUARTER {
        uint8x16_t both = vld1q_u8(from + 16 * i);
        lines[0].of[i] = vmlaq_u8(codes.offsets.of[i], vandq_u8(both, vdupq_n_u8(15)), codes.steps.of[i]);
        lines[1].of[i] = vmlaq_u8(codes.offsets.of[i], vshrq_n_u8(both, 4), codes.steps.of[i]);
    }
}

static inline void store_line(uint8_t *to, line_t line) {
    EACH_QUARTER vst1q_u8(to + 16 * i, line.of[i]);
}

#include "linear_tiles.h"
