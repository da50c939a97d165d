/* Attention of one group of query rows over the paged cache, and the rotary encoding before it. */
#pragma once
#include "forward.h"
#include "lanes.h"

#define ROW_GROUP 8   /* query rows that share a read of the keys */
#define TILES_AHEAD 4 /* fetched: they lie apart from each other, where the hardware does not look ahead */

/* Sine and cosine by reduction to a quarter turn and Taylor's series: the same bits everywhere. */
INLINE void sine_cosine(double angle, float *sine, float *cosine) {
    double quarter = __builtin_rint(angle * 0x1.45f306dc9c883p-1);
    /* Half of pi in two parts; the first is short, so that its product with `quarter` is exact. */
    double x = (angle - quarter * 0x1.921fb544p+0) - quarter * 0x1.0b4611a626331p-34;
    double square = x * x;
    double s = 0, c = 0;
    static const double odd[] = {-1.0 / 1307674368000, 1.0 / 6227020800, -1.0 / 39916800, 1.0 / 362880,
                                 -1.0 / 5040, 1.0 / 120, -1.0 / 6, 1.0};
    static const double even[] = {1.0 / 20922789888000, -1.0 / 87178291200, 1.0 / 479001600,
                                  -1.0 / 3628800, 1.0 / 40320, -1.0 / 720, 1.0 / 24, -0.5, 1.0};
    for (int i = 0; i < 8; i++) s = s * square + odd[i];
    for (int i = 0; i < 9; i++) c = c * square + even[i];
    s *= x;
    switch ((int64_t)quarter & 3) {
    case 0: *sine = (float)s, *cosine = (float)c; break;
    case 1: *sine = (float)c, *cosine = (float)-s; break;
    case 2: *sine = (float)-s, *cosine = (float)-c; break;
    default: *sine = (float)-c, *cosine = (float)s;
    }
}

/* Turned by its position and rounded; dimension i pairs with i + half. */
static void rotate(const float *restrict x, const float *restrict cosine, const float *restrict sine, int32_t half,
                   uint16_t *restrict out) {
    for (int32_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        out[i] = (uint16_t)round_bf16(__builtin_fmaf(a, cosine[i], -(b * sine[i])));
        out[i + half] = (uint16_t)round_bf16(__builtin_fmaf(b, cosine[i], a * sine[i]));
    }
}

/* Where a sequence's keys and values of one kv head lie: a pointer for each tile of 16 tokens. What is read
 * after the last of them stands behind: after the keys the values, after these TILES_AHEAD more. */
typedef struct {
    const uint16_t **keys, **values;
} tiles_t;

/* A group of rows: bf16 queries [R][head_dim], which keys each may see, and what comes out [R][columns].
 * Tiles are taken two at a time from an even one on; `scores` and `weights` [ROW_GROUP][stride] begin
 * with the key `origin`. */
typedef struct {
    const uint16_t *q;
    float scale;
    int32_t num_rows, head_dim, num_columns;
    int32_t first_key[ROW_GROUP], end_key[ROW_GROUP]; /* neither decreases from row to row */
    float *scores;
    uint16_t *weights;
    int64_t stride;
    int32_t origin;
    float *out;
    float sums[ROW_GROUP];
} row_group_t;

/* Scores of `R` rows from `row` on against `T` tiles at a time, for the tiles [first, end). */
INLINE int32_t score_tiles(const int R, const int T, const row_group_t *group, int32_t row, const uint16_t **keys,
                           int32_t first, int32_t end) {
    const uint16_t *q = group->q + (int64_t)row * group->head_dim;
    for (; first + T <= end; first += T) {
        float *scores = group->scores + row * group->stride + (int64_t)first * KEY_TILE - group->origin;
        lanes_t sums[ROW_GROUP][4];
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int t = 0; t < T; t++) sums[r][t] = lanes_set(0.0f);
        for (int32_t d = 0; d < group->head_dim; d += 2) {
            pairs_t k[4];
            UNROLL for (int t = 0; t < T; t++) __builtin_prefetch(keys[first + t + TILES_AHEAD] + d * KEY_TILE);
            UNROLL for (int t = 0; t < T; t++) k[t] = pairs_load(keys[first + t] + d * KEY_TILE);
            UNROLL for (int r = 0; r < R; r++) {
                pairs_t pair = pairs_set(q + r * group->head_dim + d);
                UNROLL for (int t = 0; t < T; t++) sums[r][t] = pairs_fma(pair, k[t], sums[r][t]);
            }
        }
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int t = 0; t < T; t++) lanes_store(scores + r * group->stride + t * KEY_TILE, sums[r][t]);
    }
    return first;
}

/* Outputs of `R` rows from `row` on for `C` times 16 dimensions: weights times values of the keys up to
 * `end_key`, in whole pairs. */
INLINE void mix_values(const int R, const int C, const row_group_t *group, int32_t row, const uint16_t **values,
                       int32_t first, int32_t end_key, int32_t column) {
    lanes_t sums[ROW_GROUP][4];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int c = 0; c < C; c++) sums[r][c] = lanes_set(0.0f);
    int64_t from = (int64_t)column * KEY_TILE * LANES;
    for (int32_t tile = first; tile * KEY_TILE < end_key; tile++) {
        const uint16_t *weights = group->weights + row * group->stride + (int64_t)tile * KEY_TILE - group->origin;
        const uint16_t *v = values[tile] + from, *ahead = values[tile + TILES_AHEAD] + from;
        int32_t left = end_key - tile * KEY_TILE;
        for (int32_t key = 0; key < (left < KEY_TILE ? left : KEY_TILE); key += 2) {
            pairs_t pairs[4];
            UNROLL for (int c = 0; c < C; c++) __builtin_prefetch(ahead + (c * KEY_TILE + key) * LANES);
            UNROLL for (int c = 0; c < C; c++) pairs[c] = pairs_load(v + (c * KEY_TILE + key) * LANES);
            UNROLL for (int r = 0; r < R; r++) {
                pairs_t pair = pairs_set(weights + r * group->stride + key);
                UNROLL for (int c = 0; c < C; c++) sums[r][c] = pairs_fma(pair, pairs[c], sums[r][c]);
            }
        }
    }
    float *out = group->out + (int64_t)row * group->num_columns * LANES + column * LANES;
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int c = 0; c < C; c++) lanes_store(out + (r * group->num_columns + c) * LANES, sums[r][c]);
}

/* From scores to weights: 2^((score - maximum) * scale) for the row's keys, and zero for the others of the
 * tiles [first, end), both even. Returns the sum of the rounded weights. */
static float weigh_keys(const row_group_t *group, int32_t row, int32_t first, int32_t end) {
    const lanes_t none = lanes_set(-INFINITY);
    const uint16_t ones[2] = {0x3f80, 0x3f80};
    float *scores = group->scores + row * group->stride - group->origin;
    uint16_t *weights = group->weights + row * group->stride - group->origin;
    for (int32_t key = first * KEY_TILE; key < group->first_key[row]; key++) scores[key] = -INFINITY;
    for (int32_t key = group->end_key[row]; key < end * KEY_TILE; key += LANES) lanes_store(scores + key, none);
    lanes_t largest = none, second = none;
    for (int32_t tile = first; tile < end; tile += 2) {
        largest = lanes_max(lanes_load(scores + (int64_t)tile * KEY_TILE), largest);
        second = lanes_max(lanes_load(scores + (int64_t)(tile + 1) * KEY_TILE), second);
    }
    /* Never denormal, which some variants would take for zero here. */
    float below_all = fma_normal(-group->scale, lanes_largest(lanes_max(largest, second)), 0.0f);
    lanes_t scale = lanes_set(group->scale), below = lanes_set(below_all), sum = lanes_set(0.0f);
    for (int32_t tile = first; tile < end; tile += 2) {
        const float *at = scores + (int64_t)tile * KEY_TILE;
        lanes_t early = lanes_exp2(lanes_fma(lanes_load(at), scale, below));
        lanes_t late = lanes_exp2(lanes_fma(lanes_load(at + KEY_TILE), scale, below));
        pairs_round(weights + (int64_t)tile * KEY_TILE, early, late);
        sum = pairs_fma(pairs_load(weights + (int64_t)tile * KEY_TILE), pairs_set(ones), sum);
    }
    return lanes_sum(sum);
}

/* As many tiles at a time as there are, up to T. */
INLINE void score_rows(const int R, const int T, const row_group_t *group, int32_t row, const uint16_t **keys,
                       int32_t first, int32_t end) {
    first = score_tiles(R, T, group, row, keys, first, end);
    if (T > 2) first = score_tiles(R, 2, group, row, keys, first, end);
    if (T > 1) score_tiles(R, 1, group, row, keys, first, end);
}

INLINE void mix_rows(const int R, const int C, const row_group_t *group, int32_t row, const uint16_t **values,
                     int32_t first, int32_t end_key) {
    int32_t column = 0;
    for (; column + C <= group->num_columns; column += C) mix_values(R, C, group, row, values, first, end_key, column);
    int32_t left = group->num_columns - column;
    if (C > 3 && left == 3) mix_values(R, 3, group, row, values, first, end_key, column);
    if (C > 2 && left == 2) mix_values(R, 2, group, row, values, first, end_key, column);
    if (C > 1 && left == 1) mix_values(R, 1, group, row, values, first, end_key, column);
}

INLINE void attend_rows(const int R, const int T, const int C, row_group_t *group, int32_t row, const tiles_t *tiles) {
    int32_t first_key = group->first_key[0], end_key = group->end_key[group->num_rows - 1];
    int32_t first = first_key / KEY_TILE, end = (end_key + KEY_TILE - 1) / KEY_TILE;
    score_rows(R, T, group, row, tiles->keys, first, end);
    for (int32_t r = row; r < row + R; r++) group->sums[r] = weigh_keys(group, r, first & ~1, (end + 1) & ~1);
    mix_rows(R, C, group, row, tiles->values, first, end_key);
}

/* How many rows are computed for `num_rows`: the next power of two. */
INLINE int32_t padded_rows(int32_t num_rows) {
    return num_rows > 4 ? 8 : num_rows > 2 ? 4 : num_rows;
}

/* Rows, tiles of keys and columns at a time, so that the sums stay in registers. */
#if defined(LANES_512)
static void attend_1(row_group_t *group, const tiles_t *tiles) { attend_rows(1, 4, 4, group, 0, tiles); }
static void attend_2(row_group_t *group, const tiles_t *tiles) { attend_rows(2, 4, 4, group, 0, tiles); }
static void attend_4(row_group_t *group, const tiles_t *tiles) { attend_rows(4, 4, 4, group, 0, tiles); }
static void attend_8(row_group_t *group, const tiles_t *tiles) { attend_rows(8, 2, 2, group, 0, tiles); }
#else
static void attend_1(row_group_t *group, const tiles_t *tiles) { attend_rows(1, 4, 4, group, 0, tiles); }
static void attend_2(row_group_t *group, const tiles_t *tiles) { attend_rows(2, 2, 2, group, 0, tiles); }
static void attend_4(row_group_t *group, const tiles_t *tiles) { attend_rows(4, 1, 1, group, 0, tiles); }
static void attend_8(row_group_t *group, const tiles_t *tiles) {
    attend_rows(4, 1, 1, group, 0, tiles);
    attend_rows(4, 1, 1, group, 4, tiles);
}
#endif

static void attend_padded(row_group_t *group, const tiles_t *tiles) {
    switch (padded_rows(group->num_rows)) {
    case 1: attend_1(group, tiles); break;
    case 2: attend_2(group, tiles); break;
    case 4: attend_4(group, tiles); break;
    default: attend_8(group, tiles);
    }
}

/* The group in plain C, for where the hardware cannot tell what it flushed. */
void attend_group_scalar(row_group_t *group, const tiles_t *tiles);

static void attend_group(row_group_t *group, const tiles_t *tiles) {
#if defined(LANES_512)
    attend_padded(group, tiles); /* the instruction for pairs knows no modes, and weights are alike in all */
#else
    uint32_t before = set_arithmetic(true);
    attend_padded(group, tiles);
    if (restore_arithmetic(before)) attend_group_scalar(group, tiles);
#endif
}
