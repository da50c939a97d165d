/* What comes before the multiplication: activations brought to bf16 or int8, weights packed.
 *
 * Compiled once a variant for speed; the bytes are the same from each, as every operation is rounded on
 * its own and no sum is reordered.
 */
#pragma once
#include "linear_layout.h"

#include <stdbool.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* Arithmetic is IEEE for the integer kinds; bf16 takes denormals for zero, as vdpbf16ps does. */
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

/* Adding 1.5 x 2^23 leaves no fraction: the nearest integer, ties to even, for |x| < 2^22. */
INLINE float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }

/* ---- activations ---- */

INLINE uint32_t round_bf16(float value) {
    uint32_t bits = float_bits(value);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded;
}

static void prepare_bf16(const float *restrict x, int32_t k, uint8_t *row) {
    uint32_t *restrict pairs = (uint32_t *)row;
    int32_t whole = k / 2;
    for (int32_t p = 0; p < whole; p++) pairs[p] = round_bf16(x[2 * p]) << 16 | round_bf16(x[2 * p + 1]);
    if (k & 1) pairs[whole] = round_bf16(x[k - 1]) << 16;
}

typedef struct { float scale; int32_t offset; } group_t; /* of a row: offset takes back the weights' + 128 */

INLINE const group_t *row_groups(const uint8_t *row, int32_t k) {
    return (const group_t *)(row + whole_lines((size_t)num_quads(k) * 4));
}

static group_t prepare_group(const float *restrict x, int32_t count, int8_t *restrict values) {
    uint32_t largest = 0; /* as bits, which order like the values, with infinity and NaN above all */
    for (int32_t i = 0; i < count; i++) {
        uint32_t size = float_bits(x[i]) & 0x7fffffff;
        largest = size > largest ? size : largest;
    }
    float scale = bits_float(largest) / 127, inverse = 127 / bits_float(largest);
    if (largest >= 0x7f800000) scale = bits_float(0x7fc00000), inverse = 0;
    if (largest < float_bits(0x1p-100f)) scale = inverse = 0; /* the inverse would overflow */
    int32_t sum = 0;
    for (int32_t i = 0; i < count; i++) {
        float finite = inverse == 0 ? 0 : x[i];
        int32_t value = (int32_t)nearest(finite * inverse);
        values[i] = (int8_t)value;
        sum += value;
    }
    return (group_t){scale, -128 * sum};
}

static void prepare_int8(const float *x, int32_t k, uint8_t *row) {
    memset(row + k, 0, (size_t)(4 * num_quads(k) - k));
    group_t *groups = (group_t *)row_groups(row, k);
    for (int32_t g = 0; g * GROUP < k; g++) {
        int32_t count = k - g * GROUP < GROUP ? k - g * GROUP : GROUP;
        groups[g] = prepare_group(x + g * GROUP, count, (int8_t *)row + g * GROUP);
    }
}

static void prepare(int32_t kind, int32_t k, const float *x, void *prepared, int32_t first, int32_t end) {
    uint32_t before = set_arithmetic(false);
    for (int32_t r = first; r < end; r++) {
        uint8_t *row = (uint8_t *)prepared + (size_t)r * row_size(kind, k);
        if (kind == WEIGHT_BF16) prepare_bf16(x + (size_t)r * k, k, row);
        else prepare_int8(x + (size_t)r * k, k, row);
    }
    restore_arithmetic(before);
}

/* ---- packing ---- */

typedef float group_values_t[GROUP][COLUMN_TILE];

static void pack_bf16(const weight_t *w, const uint16_t *from, int columns, uint8_t *tile) {
    uint16_t *to = (uint16_t *)tile;
    memset(tile, 0, tile_size(WEIGHT_BF16, w->k));
    for (int c = 0; c < columns; c++)
        for (int32_t i = 0; i < w->k; i++) to[(i / 2 * COLUMN_TILE + c) * 2 + (i & 1 ? 0 : 1)] = from[(size_t)c * w->k + i];
}

/* Transpose a group of 16 outputs to fp32; returns in bad the outputs that hold an infinity or NaN. */
static void read_group(const weight_t *w, const uint16_t *from, int columns, int32_t g, group_values_t values,
                       bool bad[COLUMN_TILE]) {
    int32_t first = g * GROUP, count = w->k - first < GROUP ? w->k - first : GROUP;
    memset(values, 0, sizeof(group_values_t));
    for (int c = 0; c < COLUMN_TILE; c++) {
        bad[c] = false;
        for (int32_t i = 0; c < columns && i < count; i++) {
            uint16_t bits = from[(size_t)c * w->k + first + i];
            bad[c] |= (bits & 0x7f80) == 0x7f80;
            values[i][c] = bad[c] ? 0 : widen(bits);
        }
    }
}

/* The bf16 not below a positive value. */
INLINE uint16_t round_up_bf16(float value) { return (uint16_t)((float_bits(value) + 0xffff) >> 16); }

static void pack_int8_group(group_values_t values, int32_t quads, uint16_t scales[COLUMN_TILE], uint8_t *lines) {
    float inverse[COLUMN_TILE] = {0};
    for (int c = 0; c < COLUMN_TILE; c++) {
        float largest = 0;
        for (int32_t i = 0; i < GROUP; i++) {
            float size = values[i][c] < 0 ? -values[i][c] : values[i][c];
            largest = size > largest ? size : largest;
        }
        scales[c] = largest < 0x1p-100f ? 0 : round_up_bf16(largest / 127);
        if (scales[c]) inverse[c] = 1 / widen(scales[c]);
    }
    for (int32_t i = 0; i < 4 * quads; i++)
        for (int c = 0; c < COLUMN_TILE; c++)
            lines[i / 4 * LINE + 4 * c + i % 4] = (uint8_t)(128 + (int32_t)nearest(values[i][c] * inverse[c]));
}

typedef struct { float scale[COLUMN_TILE], zero[COLUMN_TILE], error[COLUMN_TILE]; } subgroup_t;

INLINE float limit(float value, float low, float high) { return value < low ? low : value > high ? high : value; }

/* Squared error of 32 inputs a column, quantised with the given scale and zero. */
static void measure(float values[][COLUMN_TILE], subgroup_t *s) {
    float inverse[COLUMN_TILE];
    for (int c = 0; c < COLUMN_TILE; c++) inverse[c] = s->scale[c] > 0 ? 1 / s->scale[c] : 0, s->error[c] = 0;
    for (int i = 0; i < SUBGROUP; i++)
        for (int c = 0; c < COLUMN_TILE; c++) {
            float nibble = limit(nearest(values[i][c] * inverse[c]) + s->zero[c], 0, 15);
            float error = (nibble - s->zero[c]) * s->scale[c] - values[i][c];
            s->error[c] += error * error;
        }
}

/* The best of several narrowings of the range, each with the zero that centres it. */
static void search_scale(float values[][COLUMN_TILE], subgroup_t *best) {
    float low[COLUMN_TILE] = {0}, high[COLUMN_TILE] = {0};
    for (int i = 0; i < SUBGROUP; i++)
        for (int c = 0; c < COLUMN_TILE; c++) {
            low[c] = values[i][c] < low[c] ? values[i][c] : low[c];
            high[c] = values[i][c] > high[c] ? values[i][c] : high[c];
        }
    for (int c = 0; c < COLUMN_TILE; c++) best->scale[c] = 0, best->zero[c] = 8, best->error[c] = 3e38f;
    for (int step = 0; step < 10; step++) {
        subgroup_t s;
        for (int c = 0; c < COLUMN_TILE; c++) {
            s.scale[c] = (high[c] - low[c]) * (1.04f - 0.04f * (float)step) / 15;
            float centre = s.scale[c] > 0x1p-100f ? (high[c] + low[c]) / 2 / s.scale[c] : 0;
            s.zero[c] = limit(nearest(7.5f - centre), 0, 15);
        }
        measure(values, &s);
        for (int c = 0; c < COLUMN_TILE; c++)
            if (s.error[c] < best->error[c]) best->scale[c] = s.scale[c], best->zero[c] = s.zero[c], best->error[c] = s.error[c];
    }
}

/* The largest step whose products with 0 - zero and 15 - zero fit a byte. */
INLINE float largest_step(float zero) { return zero < 8 ? (float)(127 / (15 - (int)zero)) : limit((float)(128 / (int)zero), 0, 15); }

INLINE float step_of(float scale, float zero, float unit) {
    return unit > 0 ? limit(nearest(scale / unit), 0, largest_step(zero)) : 0;
}

static void pack_int4_group(group_values_t values, int32_t quads, uint16_t scales[COLUMN_TILE], uint8_t *lines) {
    enum { NUM = GROUP / SUBGROUP };
    subgroup_t wanted[NUM], s;
    float smallest_unit[COLUMN_TILE] = {0}, least[COLUMN_TILE], unit[COLUMN_TILE] = {0};
    for (int g = 0; g < NUM; g++) {
        search_scale(values + g * SUBGROUP, &wanted[g]);
        for (int c = 0; c < COLUMN_TILE; c++) {
            float needed = wanted[g].scale[c] / largest_step(wanted[g].zero[c]);
            if (needed > smallest_unit[c]) smallest_unit[c] = needed;
        }
    }
    for (int c = 0; c < COLUMN_TILE; c++) least[c] = 3e38f, scales[c] = 0;
    for (int step = 0; step < 8; step++) { /* the group's unit that suits its four subgroups best */
        float error[COLUMN_TILE] = {0};
        for (int c = 0; c < COLUMN_TILE; c++)
            unit[c] = smallest_unit[c] < 0x1p-100f ? 0 : widen(round_up_bf16(smallest_unit[c] * (0.96f + 0.04f * (float)step)));
        for (int g = 0; g < NUM; g++) {
            for (int c = 0; c < COLUMN_TILE; c++) {
                s.zero[c] = wanted[g].zero[c];
                s.scale[c] = unit[c] * step_of(wanted[g].scale[c], s.zero[c], unit[c]);
            }
            measure(values + g * SUBGROUP, &s);
            for (int c = 0; c < COLUMN_TILE; c++) error[c] += s.error[c];
        }
        for (int c = 0; c < COLUMN_TILE; c++)
            if (error[c] < least[c]) least[c] = error[c], scales[c] = (uint16_t)(float_bits(unit[c]) >> 16);
    }
    memset(lines, 0, LINE + (size_t)quads / 2 * LINE);
    for (int32_t i = 0; i < 4 * quads; i++)
        for (int c = 0; c < COLUMN_TILE; c++) {
            const subgroup_t *sub = &wanted[i / SUBGROUP];
            float step = step_of(sub->scale[c], sub->zero[c], widen(scales[c])), zero = sub->zero[c];
            float inverse = step > 0 ? 1 / (step * widen(scales[c])) : 0;
            uint8_t nibble = (uint8_t)limit(nearest(values[i][c] * inverse) + zero, 0, 15);
            lines[4 * c + i / SUBGROUP] = (uint8_t)((int)zero << 4 | (int)step);
            lines[LINE + i / 8 * LINE + 4 * c + i % 4] |= (uint8_t)(i & 4 ? nibble << 4 : nibble);
        }
}

static void pack_int(const weight_t *w, const uint16_t *from, int columns, uint8_t *tile) {
    uint8_t *lines = tile + scales_size(w->k);
    uint16_t *scales = (uint16_t *)tile;
    memset(tile, 0, scales_size(w->k));
    for (int32_t g = 0; g < num_groups(w->k); g++, scales += COLUMN_TILE) {
        int32_t left = num_quads(w->k) - g * GROUP / 4, quads = left < GROUP / 4 ? left : GROUP / 4;
        group_values_t values;
        bool bad[COLUMN_TILE];
        read_group(w, from, columns, g, values, bad);
        if (w->kind == WEIGHT_INT8) pack_int8_group(values, quads, scales, lines), lines += quads * LINE;
        else pack_int4_group(values, quads, scales, lines), lines += LINE + quads / 2 * LINE;
        for (int c = 0; c < COLUMN_TILE; c++)
            if (bad[c]) scales[c] = 0x7fc0;
    }
}

static void pack(const weight_t *w, void *packed, const uint16_t *bf16, int32_t first_tile, int32_t end_tile) {
    uint32_t before = set_arithmetic(false);
    for (int32_t t = first_tile; t < end_tile; t++) {
        int32_t first = t * COLUMN_TILE, columns = w->n - first < COLUMN_TILE ? w->n - first : COLUMN_TILE;
        uint8_t *tile = (uint8_t *)packed + (size_t)t * tile_size(w->kind, w->k);
        (w->kind == WEIGHT_BF16 ? pack_bf16 : pack_int)(w, bf16 + (size_t)first * w->k, columns, tile);
    }
    restore_arithmetic(before);
}
