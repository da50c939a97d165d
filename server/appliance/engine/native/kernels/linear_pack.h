/* Weights packed: once for each model, and the same bytes from each variant, as every operation is rounded
 * on its own and no sum is reordered. */
#pragma once
#include "floats.h"
#include "linear_layout.h"

typedef float group_values_t[GROUP][HALF_TILE];

static void pack_bf16(const weight_t *w, const uint16_t *from, int columns, uint8_t *tile) {
    uint16_t *to = (uint16_t *)tile;
    memset(tile, 0, tile_size(WEIGHT_BF16, w->k));
    for (int c = 0; c < columns; c++)
        for (int32_t i = 0; i < w->k; i++) to[(i / 2 * COLUMN_TILE + c) * 2 + (i & 1 ? 0 : 1)] = from[(size_t)c * w->k + i];
}

/* Transpose a group of half a tile to fp32; returns in bad the outputs that hold an infinity or NaN. */
static void read_group(const weight_t *w, const uint16_t *from, int columns, int32_t g, group_values_t values,
                       bool bad[HALF_TILE]) {
    int32_t first = g * GROUP, count = w->k - first < GROUP ? w->k - first : GROUP;
    memset(values, 0, sizeof(group_values_t));
    for (int c = 0; c < HALF_TILE; c++) {
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

static void pack_int8_group(group_values_t values, int32_t quads, uint16_t scales[HALF_TILE], uint8_t *lines) {
    float inverse[HALF_TILE] = {0};
    for (int c = 0; c < HALF_TILE; c++) {
        float largest = 0;
        for (int32_t i = 0; i < GROUP; i++) {
            float size = values[i][c] < 0 ? -values[i][c] : values[i][c];
            largest = size > largest ? size : largest;
        }
        scales[c] = largest < 0x1p-100f ? 0 : round_up_bf16(largest / 127);
        if (scales[c]) inverse[c] = 1 / widen(scales[c]);
    }
    for (int32_t i = 0; i < 4 * quads; i++)
        for (int c = 0; c < HALF_TILE; c++)
            lines[i / 4 * PAIR + 4 * c + i % 4] = (uint8_t)(128 + (int32_t)nearest(values[i][c] * inverse[c]));
}

typedef struct { float scale[HALF_TILE], zero[HALF_TILE], error[HALF_TILE]; } subgroup_t;

INLINE float limit(float value, float low, float high) { return value < low ? low : value > high ? high : value; }

/* Squared error of 32 inputs a column, quantised with the given scale and zero. */
static void measure(float values[][HALF_TILE], subgroup_t *s) {
    float inverse[HALF_TILE];
    for (int c = 0; c < HALF_TILE; c++) inverse[c] = s->scale[c] > 0 ? 1 / s->scale[c] : 0, s->error[c] = 0;
    for (int i = 0; i < SUBGROUP; i++)
        for (int c = 0; c < HALF_TILE; c++) {
            float nibble = limit(nearest(values[i][c] * inverse[c]) + s->zero[c], 0, 15);
            float error = (nibble - s->zero[c]) * s->scale[c] - values[i][c];
            s->error[c] += error * error;
        }
}

/* The best of several narrowings of the range, each with the zero that centres it. */
static void search_scale(float values[][HALF_TILE], subgroup_t *best) {
    float low[HALF_TILE] = {0}, high[HALF_TILE] = {0};
    for (int i = 0; i < SUBGROUP; i++)
        for (int c = 0; c < HALF_TILE; c++) {
            low[c] = values[i][c] < low[c] ? values[i][c] : low[c];
            high[c] = values[i][c] > high[c] ? values[i][c] : high[c];
        }
    for (int c = 0; c < HALF_TILE; c++) best->scale[c] = 0, best->zero[c] = 8, best->error[c] = 3e38f;
    for (int step = 0; step < 10; step++) {
        subgroup_t s;
        for (int c = 0; c < HALF_TILE; c++) {
            s.scale[c] = (high[c] - low[c]) * (1.04f - 0.04f * (float)step) / 15;
            float centre = s.scale[c] > 0x1p-100f ? (high[c] + low[c]) / 2 / s.scale[c] : 0;
            s.zero[c] = limit(nearest(7.5f - centre), 0, 15);
        }
        measure(values, &s);
        for (int c = 0; c < HALF_TILE; c++)
            if (s.error[c] < best->error[c]) best->scale[c] = s.scale[c], best->zero[c] = s.zero[c], best->error[c] = s.error[c];
    }
}

/* The largest step whose products with 0 - zero and 15 - zero fit a byte. */
INLINE float largest_step(float zero) { return zero < 8 ? (float)(127 / (15 - (int)zero)) : limit((float)(128 / (int)zero), 0, 15); }

INLINE float step_of(float scale, float zero, float unit) {
    return unit > 0 ? limit(nearest(scale / unit), 0, largest_step(zero)) : 0;
}

static void pack_int4_group(group_values_t values, int32_t quads, uint16_t scales[HALF_TILE], uint8_t *lines) {
    enum { NUM = GROUP / SUBGROUP };
    subgroup_t wanted[NUM], s;
    float smallest_unit[HALF_TILE] = {0}, least[HALF_TILE], unit[HALF_TILE] = {0};
    for (int g = 0; g < NUM; g++) {
        search_scale(values + g * SUBGROUP, &wanted[g]);
        for (int c = 0; c < HALF_TILE; c++) {
            float needed = wanted[g].scale[c] / largest_step(wanted[g].zero[c]);
            if (needed > smallest_unit[c]) smallest_unit[c] = needed;
        }
    }
    for (int c = 0; c < HALF_TILE; c++) least[c] = 3e38f, scales[c] = 0;
    for (int step = 0; step < 8; step++) { /* the group's unit that suits its four subgroups best */
        float error[HALF_TILE] = {0};
        for (int c = 0; c < HALF_TILE; c++)
            unit[c] = smallest_unit[c] < 0x1p-100f ? 0 : widen(round_up_bf16(smallest_unit[c] * (0.96f + 0.04f * (float)step)));
        for (int g = 0; g < NUM; g++) {
            for (int c = 0; c < HALF_TILE; c++) {
                s.zero[c] = wanted[g].zero[c];
                s.scale[c] = unit[c] * step_of(wanted[g].scale[c], s.zero[c], unit[c]);
            }
            measure(values + g * SUBGROUP, &s);
            for (int c = 0; c < HALF_TILE; c++) error[c] += s.error[c];
        }
        for (int c = 0; c < HALF_TILE; c++)
            if (error[c] < least[c]) least[c] = error[c], scales[c] = (uint16_t)(float_bits(unit[c]) >> 16);
    }
    for (int32_t i = 0; i < 4 * quads; i++)
        for (int c = 0; c < HALF_TILE; c++) {
            const subgroup_t *sub = &wanted[i / SUBGROUP];
            float step = step_of(sub->scale[c], sub->zero[c], widen(scales[c])), zero = sub->zero[c];
            float inverse = step > 0 ? 1 / (step * widen(scales[c])) : 0;
            uint8_t nibble = (uint8_t)limit(nearest(values[i][c] * inverse) + zero, 0, 15);
            lines[4 * c + i / SUBGROUP] = (uint8_t)((int)zero << 4 | (int)step);
            lines[PAIR + i / 8 * PAIR + 4 * c + i % 4] |= (uint8_t)(i & 4 ? nibble << 4 : nibble);
        }
}

static void pack_half_group(const weight_t *w, const uint16_t *from, int columns, int32_t g, int half, uint8_t *group) {
    int32_t left = num_quads(w->k) - g * GROUP / 4, quads = left < GROUP / 4 ? left : GROUP / 4;
    uint16_t *scales = (uint16_t *)group + half * HALF_TILE;
    group_values_t values;
    bool bad[HALF_TILE];
    read_group(w, from, columns, g, values, bad);
    (w->kind == WEIGHT_INT8 ? pack_int8_group : pack_int4_group)(values, quads, scales, group + (1 + half) * LINE);
    for (int c = 0; c < HALF_TILE; c++)
        if (bad[c]) scales[c] = 0x7fc0;
}

static void pack_int(const weight_t *w, const uint16_t *from, int columns, uint8_t *tile) {
    memset(tile, 0, tile_size(w->kind, w->k));
    for (int32_t g = 0; g < num_groups(w->k); g++)
        for (int half = 0; half < 2; half++) {
            int left = columns - half * HALF_TILE, some = left < 0 ? 0 : left < HALF_TILE ? left : HALF_TILE;
            pack_half_group(w, from + (size_t)half * HALF_TILE * w->k, some, g, half,
                            tile + tile_size(w->kind, g * GROUP));
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
