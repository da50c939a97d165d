/* Linear layers in portable C: slow, the definition in plain words, and the same bits. */
#include "floats.h"

#define VARIANT scalar
#define NAME "scalar"
enum { WIDE_ROWS = 0, NARROW_ROWS = 1, UNPACK_ABOVE = 1 };

typedef struct {
    float of[16];
} floats_t; /* one fp32 an output */
typedef struct {
    int32_t of[16];
} ints_t; /* one int32 an output */
typedef struct {
    uint8_t bytes[64];
} line_t;
typedef struct {
    line_t steps, offsets;
} codes_t;

static inline floats_t zero_floats(void) { return (floats_t){{0}}; }

static inline floats_t load_floats(const float *from) {
    floats_t value;
    memcpy(value.of, from, sizeof value.of);
    return value;
}

static inline void store_floats(float *to, floats_t value, int count) {
    const uint32_t nan = 0x7fc00000;
    for (int c = 0; c < 16 && c < count; c++) {
        memcpy(to + c, value.of[c] == value.of[c] ? (const void *)&value.of[c] : &nan, sizeof *to);
    }
}

static inline ints_t begin_sums(int32_t offset) {
    ints_t all;
    for (int c = 0; c < 16; c++) {
        all.of[c] = offset;
    }
    return all;
}

static inline line_t load_line(const uint8_t *from) {
    line_t line;
    memcpy(line.bytes, from, sizeof line.bytes);
    return line;
}

static inline floats_t bf16_step(floats_t sum, line_t w, int32_t x) {
    for (int c = 0; c < 16; c++) {
        uint32_t pair;
        memcpy(&pair, w.bytes + 4 * c, sizeof pair);
        sum.of[c] = fma_normal(normal_bf16(pair >> 16), normal_bf16((uint32_t)x >> 16), sum.of[c]);
        sum.of[c] = fma_normal(normal_bf16(pair & 0xffff), normal_bf16((uint32_t)x & 0xffff), sum.of[c]);
    }
    return sum;
}

static inline ints_t int8_step(ints_t sum, line_t w, int32_t x) {
    int8_t quad[4];
    memcpy(quad, &x, sizeof quad);
    for (int c = 0; c < 16; c++) {
        for (int i = 0; i < 4; i++) {
            sum.of[c] += w.bytes[4 * c + i] * quad[i];
        }
    }
    return sum;
}

static inline floats_t group_step(floats_t sum, ints_t group, const uint16_t *w_scales, float x_scale) {
    for (int c = 0; c < 16; c++) {
        uint32_t bits = (uint32_t)w_scales[c] << 16;
        float scale;
        memcpy(&scale, &bits, sizeof scale);
        sum.of[c] = fmaf((float)group.of[c], scale * x_scale, sum.of[c]);
    }
    return sum;
}

/* Of a group's line of codes: steps, and offsets 128 - zero * step, both 16 outputs x 4 subgroups. */
static inline codes_t load_codes(const uint8_t *from) {
    codes_t codes;
    for (int i = 0; i < 64; i++) {
        codes.steps.bytes[i] = from[i] & 15;
        codes.offsets.bytes[i] = (uint8_t)(128 - (from[i] >> 4) * (from[i] & 15));
    }
    return codes;
}

/* One subgroup's codes beside each of its bytes. */
static inline codes_t spread_codes(codes_t codes, int subgroup) {
    codes_t spread;
    for (int i = 0; i < 64; i++) {
        spread.steps.bytes[i] = codes.steps.bytes[i / 4 * 4 + subgroup];
        spread.offsets.bytes[i] = codes.offsets.bytes[i / 4 * 4 + subgroup];
    }
    return spread;
}

/* An int4 line as two int8 lines: nibble * step + offset stays within a byte. */
static inline void unpack_line(const uint8_t *from, codes_t codes, line_t lines[2]) {
    for (int i = 0; i < 64; i++) {
        lines[0].bytes[i] = (uint8_t)((from[i] & 15) * codes.steps.bytes[i] + codes.offsets.bytes[i]);
        lines[1].bytes[i] = (uint8_t)((from[i] >> 4) * codes.steps.bytes[i] + codes.offsets.bytes[i]);
    }
}

static inline void store_line(uint8_t *to, line_t line) { memcpy(to, line.bytes, sizeof line.bytes); }

#include "linear_tiles.inc"
