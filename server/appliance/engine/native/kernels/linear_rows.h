/* What comes before the multiplication of each row: activations brought to bf16 or int8.
 *
 * Compiled once a variant for speed; the bytes are the same from each, as every operation is rounded on
 * its own and no sum is reordered.
 */
#pragma once
#include "floats.h"
#include "linear_layout.h"

/* Inputs [first, end) of a row; `x` begins with the first of them. */
static void prepare_bf16(const float *restrict x, int32_t first, int32_t end, uint8_t *row) {
    uint32_t *restrict pairs = (uint32_t *)row + first / 2;
    int32_t count = end - first, whole = count / 2;
    for (int32_t p = 0; p < whole; p++) pairs[p] = round_bf16(x[2 * p]) << 16 | round_bf16(x[2 * p + 1]);
    if (count & 1) pairs[whole] = round_bf16(x[count - 1]) << 16;
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

static void prepare_int8(const float *x, int32_t k, int32_t first, int32_t end, uint8_t *row) {
    group_t *groups = (group_t *)row_groups(row, k);
    for (int32_t i = first; i < end; i += GROUP)
        groups[i / GROUP] = prepare_group(x + i - first, end - i < GROUP ? end - i : GROUP, (int8_t *)row + i);
    if (end == k) memset(row + k, 0, (size_t)(4 * num_quads(k) - k));
}

/* Inputs [first, end) of some rows. */
static void prepare(int32_t kind, int32_t k, const float *x, int64_t stride_x, uint8_t *rows, int32_t num_rows,
                    int32_t first, int32_t end) {
    uint32_t before = set_arithmetic(false);
    for (int32_t r = 0; r < num_rows; r++, x += stride_x, rows += row_size(kind, k)) {
        if (kind == WEIGHT_BF16) prepare_bf16(x, first, end, rows);
        else prepare_int8(x, k, first, end, rows);
    }
    restore_arithmetic(before);
}
