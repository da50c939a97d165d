/* How packed weights and prepared activations lie in memory, the same for every variant.
 *
 * A tile is 32 outputs over the whole of k, and is read from its first byte to its last. It is made of
 * 64-byte lines, two side by side for the two halves of its outputs: for bf16 16 outputs x 2 inputs, the
 * earlier input in the upper half; for int8 16 outputs x 4 inputs, stored + 128; for int4 16 outputs x 8
 * inputs, the low nibbles being the first four. The integer kinds begin each group with a line of bf16
 * scales, one an output; in int4 two lines of zero << 4 | step follow, 16 outputs x 4 subgroups each.
 */
#pragma once
#include "linear.h"

enum { GROUP = 128, SUBGROUP = 32, LINE = 64, HALF_TILE = COLUMN_TILE / 2, PAIR = 2 * LINE };

static inline size_t whole_lines(size_t bytes) { return (bytes + LINE - 1) / LINE * LINE; }
static inline int32_t num_tiles(int32_t n) { return (n + COLUMN_TILE - 1) / COLUMN_TILE; }
static inline int32_t num_pairs(int32_t k) { return (k + 1) / 2; }
static inline int32_t num_quads(int32_t k) { return (k + 7) / 8 * 2; } /* even, so that int4 lines are whole */
static inline int32_t num_groups(int32_t k) { return (k + GROUP - 1) / GROUP; }

/* Of k inputs of a tile; a multiple of GROUP gives the place of what follows them. */
static inline size_t tile_size(int32_t kind, int32_t k) {
    if (kind == WEIGHT_BF16) {
        return (size_t)num_pairs(k) * PAIR;
    }
    if (kind == WEIGHT_INT8) {
        return (size_t)num_groups(k) * LINE + (size_t)num_quads(k) * PAIR;
    }
    return (size_t)num_groups(k) * (LINE + PAIR) + (size_t)num_quads(k) / 2 * PAIR;
}

/* An odd number of lines, so that neighbouring rows do not fall into the same cache set. */
static inline size_t row_size(int32_t kind, int32_t k) {
    size_t size = kind == WEIGHT_BF16 ? whole_lines((size_t)num_pairs(k) * 4)
                                      : whole_lines((size_t)num_quads(k) * 4) + whole_lines((size_t)num_groups(k) * 8);
    return size | LINE;
}

/* What a variant brings to the dispatcher. */
typedef struct {
    const char *name;
    void (*pack)(const weight_t *, void *, const uint16_t *, int32_t, int32_t);
    void (*prepare)(int32_t, int32_t, const float *, int64_t, uint8_t *, int32_t, int32_t, int32_t);
    void (*multiply)(const weight_t *, const void *, float *, int64_t, int32_t, int32_t, int32_t);
} linear_variant_t;

extern const linear_variant_t linear_scalar, linear_avx2, linear_avx512, linear_neon, linear_neon_dot;
