/* Attention of one group of query rows over the paged cache, and the rotary encoding before it. */
#pragma once
#include "forward.h"
#include "lanes.h"

#define ROW_GROUP 8   /* query rows that share a read of the keys */
#define TILES_AHEAD 4 /* tiles lie apart from each other, where the hardware does not look ahead */

INLINE uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

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

/* Dimension i pairs with i + half. */
INLINE void rotate(float *restrict x, const float *restrict cosine, const float *restrict sine, int half) {
    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = __builtin_fmaf(a, cosine[i], -(b * sine[i]));
        x[i + half] = __builtin_fmaf(b, cosine[i], a * sine[i]);
    }
}

/* Where a sequence's keys and values of one kv head lie: a pointer for each tile of 16 tokens. */
typedef struct {
    const uint16_t **keys, **values;
} tiles_t;

/* Scores of `R` rows against `T` tiles at a time, for the tiles [first, end). */
INLINE int32_t score_tiles(const int R, const int T, const float *q, int32_t head_dim,
                           const uint16_t *const *keys, float *scores, int64_t stride, int32_t first,
                           int32_t end) {
    for (; first + T <= end; first += T) {
        lanes_t sums[ROW_GROUP][8];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) sums[r][t] = lanes_set(0.0f);
        const uint16_t *ahead[8];
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) ahead[t] = keys[first + t + TILES_AHEAD < end ? first + t + TILES_AHEAD : first + t];
        for (int32_t d = 0; d < head_dim; d++) {
            lanes_t k[8];
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) __builtin_prefetch(ahead[t] + (int64_t)d * KEY_TILE);
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) k[t] = lanes_load_bf16(keys[first + t] + (int64_t)d * KEY_TILE);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                lanes_t value = lanes_set(q[r * head_dim + d]);
#pragma GCC unroll 8
                for (int t = 0; t < T; t++) sums[r][t] = lanes_fma(value, k[t], sums[r][t]);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int t = 0; t < T; t++)
                lanes_store(scores + r * stride + (int64_t)(first + t) * KEY_TILE, sums[r][t]);
    }
    return first;
}

/* Outputs of `R` rows for `C` times 16 dimensions: weights times values over keys [first, end). */
INLINE void mix_values(const int R, const int C, const float *weights, int64_t stride,
                       const uint16_t *const *values, int32_t first, int32_t end, int32_t column,
                       float *out, int64_t out_stride) {
    lanes_t sums[ROW_GROUP][4];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) sums[r][c] = lanes_set(0.0f);
    for (int32_t key = first; key < end;) {
        const uint16_t *tile = values[key / KEY_TILE] + (int64_t)column * KEY_TILE * LANES, *ahead = tile;
        if (key + TILES_AHEAD * KEY_TILE < end)
            ahead = values[key / KEY_TILE + TILES_AHEAD] + (int64_t)column * KEY_TILE * LANES;
        int32_t tile_end = key / KEY_TILE * KEY_TILE + KEY_TILE;
        for (tile_end = tile_end < end ? tile_end : end; key < tile_end; key++) {
            lanes_t v[4];
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) __builtin_prefetch(ahead + (c * KEY_TILE + key % KEY_TILE) * LANES);
#pragma GCC unroll 4
            for (int c = 0; c < C; c++)
                v[c] = lanes_load_bf16(tile + (c * KEY_TILE + key % KEY_TILE) * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                lanes_t weight = lanes_set(weights[r * stride + key]);
#pragma GCC unroll 4
                for (int c = 0; c < C; c++) sums[r][c] = lanes_fma(weight, v[c], sums[r][c]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) lanes_store(out + r * out_stride + (column + c) * LANES, sums[r][c]);
}

INLINE void mix_all_values(const int R, const int C, const float *weights, int64_t stride,
                           const uint16_t *const *values, int32_t first, int32_t end,
                           int32_t num_columns, float *out) {
    int32_t column = 0;
    for (; column + C <= num_columns; column += C)
        mix_values(R, C, weights, stride, values, first, end, column, out, num_columns * LANES);
    for (; column < num_columns; column++)
        mix_values(R, 1, weights, stride, values, first, end, column, out, num_columns * LANES);
}

/* Scores of one row to weights: e^(score - maximum) for keys [first, end), zero for the other keys
 * of the tiles [first_tile, end_tile). Returns their sum. */
static float weigh_keys(float *scores, int32_t first, int32_t end, int32_t first_tile, int32_t end_tile) {
    int32_t row_first = first / KEY_TILE, row_end = (end + KEY_TILE - 1) / KEY_TILE;
    for (int32_t key = row_first * KEY_TILE; key < first; key++) scores[key] = -INFINITY;
    for (int32_t key = end; key < row_end * KEY_TILE; key++) scores[key] = -INFINITY;
    lanes_t largest = lanes_set(-INFINITY), sum = lanes_set(0.0f);
    for (int32_t tile = row_first; tile < row_end; tile++)
        largest = lanes_max(lanes_load(scores + (int64_t)tile * KEY_TILE), largest);
    largest = lanes_set(lanes_largest(largest));
    for (int32_t tile = row_first; tile < row_end; tile++) {
        float *at = scores + (int64_t)tile * KEY_TILE;
        lanes_t weight = lanes_exp(lanes_sub(lanes_load(at), largest));
        sum = lanes_add(sum, weight);
        lanes_store(at, weight);
    }
    memset(scores + (int64_t)first_tile * KEY_TILE, 0,
           (size_t)(row_first - first_tile) * KEY_TILE * sizeof *scores);
    memset(scores + (int64_t)row_end * KEY_TILE, 0, (size_t)(end_tile - row_end) * KEY_TILE * sizeof *scores);
    return lanes_sum(sum);
}

/* A group of rows: q [R][head_dim] scaled, which keys each may see, and what comes out [R][columns]. */
typedef struct {
    const float *q;
    int32_t num_rows, head_dim, num_columns;
    int32_t first_key[ROW_GROUP], end_key[ROW_GROUP]; /* neither decreases from row to row */
    float *scores;                                    /* [ROW_GROUP][stride] */
    int64_t stride;
    float *out;
    float sums[ROW_GROUP];
} row_group_t;

INLINE void attend_rows(const int R, const int T, const int C, row_group_t *group, const tiles_t *tiles) {
    int32_t last = group->num_rows - 1;
    int32_t first_key = group->first_key[0], end_key = group->end_key[last];
    int32_t first = first_key / KEY_TILE, end = (end_key + KEY_TILE - 1) / KEY_TILE;
    /* Scores are addressed by key: the buffer begins with the group's first tile. */
    float *scores = group->scores - (int64_t)first * KEY_TILE;
    int32_t next = score_tiles(R, T, group->q, group->head_dim, tiles->keys, scores, group->stride, first, end);
    score_tiles(R, 1, group->q, group->head_dim, tiles->keys, scores, group->stride, next, end);
    for (int32_t r = 0; r < group->num_rows; r++)
        group->sums[r] = weigh_keys(scores + r * group->stride, group->first_key[r], group->end_key[r], first, end);
    mix_all_values(R, C, scores, group->stride, tiles->values, first_key, end_key, group->num_columns, group->out);
}

static void attend_1(row_group_t *group, const tiles_t *tiles) { attend_rows(1, 8, 4, group, tiles); }
static void attend_2(row_group_t *group, const tiles_t *tiles) { attend_rows(2, 4, 2, group, tiles); }
static void attend_4(row_group_t *group, const tiles_t *tiles) { attend_rows(4, 4, 2, group, tiles); }
static void attend_8(row_group_t *group, const tiles_t *tiles) { attend_rows(8, 2, 2, group, tiles); }

/* How many rows are computed for `num_rows`: the next power of two. */
INLINE int32_t padded_rows(int32_t num_rows) {
    return num_rows > 4 ? 8 : num_rows > 2 ? 4 : num_rows;
}

static void attend_group(row_group_t *group, const tiles_t *tiles) {
    switch (padded_rows(group->num_rows)) {
    case 1: attend_1(group, tiles); break;
    case 2: attend_2(group, tiles); break;
    case 4: attend_4(group, tiles); break;
    default: attend_8(group, tiles);
    }
}
