/* The linear layers of one variant, over the vector operations that the including file defines.
 *
 * Outputs lie side by side in the lanes, so an output never meets its neighbour and is one chain over
 * k. Rows and column tiles that share registers only share loads; a block of k that ends early leaves
 * its sums in y as fp32, which is exact. Hence nothing but k orders a reduction.
 */
#include "linear_pack.h"
#include "linear_rows.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

enum {
    BLOCK = 4 * GROUP, /* inputs at a time for many rows: the weights of two tiles stay in the first cache */
    AHEAD = 4096       /* bytes; the hardware alone does not reach the memory's rate when rows are computed */
};

/* A block of k for MAX_TILES column tiles: where its lines, scales, rows and sums begin. */
typedef struct {
    const uint8_t *lines, *scales;
    const uint8_t *turn;                 /* AHEAD of the end of the first tile */
    size_t lines_stride, scales_stride;  /* from one tile to the next */
    const uint8_t *x;
    const group_t *x_groups;
    size_t x_stride;
    float *y;
    int64_t y_stride;
    int32_t num_lines;
    int columns;                         /* of the last tile */
    bool is_first;                       /* of its k: sums begin at zero */
} block_t;

INLINE int32_t load_word(const uint8_t *from) {
    int32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

/* Tiles are read side by side, so what follows the end of each is what follows the last of them. */
INLINE void fetch_ahead(const uint8_t *line, const int tiles, const block_t *b) {
    const uint8_t *next = line + AHEAD + (line < b->turn ? 0 : (size_t)(tiles - 1) * b->lines_stride);
    UNROLL for (int t = 0; t < tiles; t++) __builtin_prefetch(next + t * b->lines_stride);
}

INLINE void load_lines(line_t *w, const int tiles, const block_t *b, int32_t i) {
    const uint8_t *line = b->lines + (size_t)i * LINE;
    fetch_ahead(line, tiles, b);
    UNROLL for (int t = 0; t < tiles; t++) w[t] = load_line(line + t * b->lines_stride);
}

INLINE void load_sums(floats_t *sums, const int rows, const int tiles, const block_t *b) {
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int t = 0; t < tiles; t++)
            sums[r * tiles + t] = b->is_first ? zero_floats()
                                              : load_floats(b->y + r * b->y_stride + t * COLUMN_TILE,
                                                            t == tiles - 1 ? b->columns : COLUMN_TILE);
}

INLINE void store_sums(const floats_t *sums, const int rows, const int tiles, const block_t *b) {
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int t = 0; t < tiles; t++)
            store_floats(b->y + r * b->y_stride + t * COLUMN_TILE, sums[r * tiles + t],
                         t == tiles - 1 ? b->columns : COLUMN_TILE);
}

INLINE void multiply_bf16(const int rows, const int tiles, const block_t *b) {
    floats_t sums[MAX_ROWS * MAX_TILES];
    load_sums(sums, rows, tiles, b);
    for (int32_t i = 0; i < b->num_lines; i++) {
        line_t w[MAX_TILES];
        load_lines(w, tiles, b, i);
        UNROLL for (int r = 0; r < rows; r++) {
            int32_t x = load_word(b->x + r * b->x_stride + (size_t)i * 4);
            UNROLL for (int t = 0; t < tiles; t++) sums[r * tiles + t] = bf16_step(sums[r * tiles + t], w[t], x);
        }
    }
    store_sums(sums, rows, tiles, b);
}

INLINE const group_t *group_of(const block_t *b, int row, int32_t g) {
    return (const group_t *)((const uint8_t *)(b->x_groups + g) + row * b->x_stride);
}

INLINE void begin_group(ints_t *group, const int rows, const int tiles, const block_t *b, int32_t g) {
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int t = 0; t < tiles; t++) group[r * tiles + t] = begin_sums(group_of(b, r, g)->offset);
}

INLINE void end_group(floats_t *sums, const ints_t *group, const int rows, const int tiles, const block_t *b, int32_t g) {
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int t = 0; t < tiles; t++) {
            const uint16_t *w_scales = (const uint16_t *)(b->scales + t * b->scales_stride) + g * COLUMN_TILE;
            sums[r * tiles + t] = group_step(sums[r * tiles + t], group[r * tiles + t], w_scales, group_of(b, r, g)->scale);
        }
}

INLINE void multiply_quad(ints_t *group, const line_t *w, const int rows, const int tiles, const block_t *b, int32_t i) {
    UNROLL for (int r = 0; r < rows; r++) {
        int32_t x = load_word(b->x + r * b->x_stride + (size_t)i * 4);
        UNROLL for (int t = 0; t < tiles; t++) group[r * tiles + t] = int8_step(group[r * tiles + t], w[t], x);
    }
}

INLINE void multiply_int8(const int rows, const int tiles, const block_t *b) {
    floats_t sums[MAX_ROWS * MAX_TILES];
    load_sums(sums, rows, tiles, b);
    for (int32_t g = 0, i = 0; i < b->num_lines; g++) {
        int32_t end = i + GROUP / 4 < b->num_lines ? i + GROUP / 4 : b->num_lines;
        ints_t group[MAX_ROWS * MAX_TILES];
        begin_group(group, rows, tiles, b, g);
        do {
            line_t w[MAX_TILES];
            load_lines(w, tiles, b, i);
            multiply_quad(group, w, rows, tiles, b, i);
        } while (++i < end);
        end_group(sums, group, rows, tiles, b, g);
    }
    store_sums(sums, rows, tiles, b);
}

enum { GROUP_LINES = 1 + GROUP / 8 }; /* of int4: codes, then nibbles */

/* For up to UNPACK_ABOVE rows int4 is unpacked in registers, again for each MAX_ROWS of them; for more,
 * once into memory and multiplied as int8. */
INLINE void multiply_int4(const int rows, const int tiles, const block_t *b) {
    floats_t sums[MAX_ROWS * MAX_TILES];
    load_sums(sums, rows, tiles, b);
    for (int32_t g = 0, i = 0; i < b->num_lines; g++) {
        int32_t end = i + GROUP / 4 < b->num_lines ? i + GROUP / 4 : b->num_lines;
        const uint8_t *lines = b->lines + (size_t)g * GROUP_LINES * LINE;
        ints_t group[MAX_ROWS * MAX_TILES];
        codes_t codes[MAX_TILES], spread[MAX_TILES];
        begin_group(group, rows, tiles, b, g);
        UNROLL for (int t = 0; t < tiles; t++) codes[t] = load_codes(lines + t * b->lines_stride);
        lines += LINE;
        for (int subgroup = 0; i < end; subgroup++) {
            UNROLL for (int t = 0; t < tiles; t++) spread[t] = spread_codes(codes[t], subgroup);
            int32_t subgroup_end = i + SUBGROUP / 4 < end ? i + SUBGROUP / 4 : end;
            do {
                line_t w[MAX_TILES][2], first[MAX_TILES], second[MAX_TILES];
                fetch_ahead(lines, tiles, b);
                UNROLL for (int t = 0; t < tiles; t++) {
                    unpack_line(lines + t * b->lines_stride, spread[t], w[t]);
                    first[t] = w[t][0], second[t] = w[t][1];
                }
                multiply_quad(group, first, rows, tiles, b, i);
                multiply_quad(group, second, rows, tiles, b, i + 1);
                lines += LINE;
            } while ((i += 2) < subgroup_end);
        }
        end_group(sums, group, rows, tiles, b, g);
    }
    store_sums(sums, rows, tiles, b);
}

static void unpack_group(const uint8_t *lines, int32_t quads, uint8_t *to) {
    codes_t codes = load_codes(lines), spread = codes;
    for (int32_t i = 0; i < quads; i += 2) {
        line_t w[2];
        if (i % (SUBGROUP / 4) == 0) spread = spread_codes(codes, i / (SUBGROUP / 4));
        lines += LINE;
        unpack_line(lines, spread, w);
        store_line(to + (size_t)i * LINE, w[0]);
        store_line(to + (size_t)(i + 1) * LINE, w[1]);
    }
}

/* One function a shape, so that its sums stay in registers; the shape never orders a reduction. */
#define SHAPE(KIND, R, T)                                              \
    static void KIND##_##R##_##T(const block_t *b) {                   \
        if (R <= MAX_ROWS && T <= MAX_TILES) multiply_##KIND(R, T, b); \
    }
#define SHAPES(KIND)                                                                    \
    SHAPE(KIND, 1, 1) SHAPE(KIND, 2, 1) SHAPE(KIND, 3, 1) SHAPE(KIND, 4, 1)             \
    SHAPE(KIND, 5, 1) SHAPE(KIND, 6, 1) SHAPE(KIND, 7, 1) SHAPE(KIND, 8, 1)             \
    SHAPE(KIND, 1, 2) SHAPE(KIND, 2, 2) SHAPE(KIND, 3, 2) SHAPE(KIND, 4, 2)             \
    SHAPE(KIND, 5, 2) SHAPE(KIND, 6, 2) SHAPE(KIND, 7, 2) SHAPE(KIND, 8, 2)
#define NAMES(KIND, T) {KIND##_1_##T, KIND##_2_##T, KIND##_3_##T, KIND##_4_##T, \
                        KIND##_5_##T, KIND##_6_##T, KIND##_7_##T, KIND##_8_##T}
SHAPES(bf16)
SHAPES(int8)
SHAPES(int4)
static void (*const shapes[3][2][8])(const block_t *) = {
    [WEIGHT_BF16] = {NAMES(bf16, 1), NAMES(bf16, 2)},
    [WEIGHT_INT8] = {NAMES(int8, 1), NAMES(int8, 2)},
    [WEIGHT_INT4] = {NAMES(int4, 1), NAMES(int4, 2)},
};

/* Point the block at its weights, from input first of the given tiles on. */
static void find_weights(block_t *b, const weight_t *w, int32_t tile, int tiles, int32_t first, int32_t inputs,
                         uint8_t *unpacked) {
    size_t size = tile_size(w->kind, w->k), lines_from = w->kind == WEIGHT_BF16 ? 0 : scales_size(w->k);
    const uint8_t *data = (const uint8_t *)w->data + (size_t)tile * size;
    int32_t per_line = w->kind == WEIGHT_BF16 ? 2 : 4, total = w->kind == WEIGHT_BF16 ? num_pairs(w->k) : num_quads(w->k);
    int32_t left = total - first / per_line;
    b->num_lines = left < inputs / per_line ? left : inputs / per_line;
    b->lines = data + lines_from + (size_t)(first / per_line) * LINE;
    b->scales = data + (size_t)(first / GROUP) * COLUMN_TILE * 2;
    b->turn = data + size - AHEAD;
    b->lines_stride = b->scales_stride = size;
    if (w->kind != WEIGHT_INT4) return;
    b->lines = data + lines_from + (size_t)(first / GROUP) * GROUP_LINES * LINE;
    if (!unpacked) return;
    for (int t = 0; t < tiles; t++)
        for (int32_t q = 0; q < b->num_lines; q += GROUP / 4)
            unpack_group(b->lines + t * size + (size_t)(q / (GROUP / 4)) * GROUP_LINES * LINE,
                         b->num_lines - q < GROUP / 4 ? b->num_lines - q : GROUP / 4,
                         unpacked + ((size_t)t * BLOCK / 4 + q) * LINE);
    b->lines = unpacked;
    b->lines_stride = BLOCK / 4 * LINE;
}

static void multiply(const weight_t *w, const void *prepared, float *y, int64_t stride_y, int32_t rows,
                     int32_t first_tile, int32_t end_tile) {
    uint8_t unpacked[MAX_TILES * BLOCK / 4 * LINE] __attribute__((aligned(LINE)));
    bool is_bf16 = w->kind == WEIGHT_BF16, unpack = w->kind == WEIGHT_INT4 && rows > UNPACK_ABOVE;
    int32_t inputs = rows > MAX_ROWS ? BLOCK : num_groups(w->k) * GROUP; /* a block is for rows that follow */
    uint32_t before = set_arithmetic(is_bf16);
    block_t b = {.x_stride = row_size(w->kind, w->k), .y_stride = stride_y};
    for (int32_t tile = first_tile, tiles; tile < end_tile; tile += tiles) {
        tiles = end_tile - tile < MAX_TILES ? 1 : MAX_TILES;
        int32_t left = w->n - (tile + tiles - 1) * COLUMN_TILE;
        b.columns = left < COLUMN_TILE ? left : COLUMN_TILE;
        for (int32_t first = 0; first < w->k; first += inputs) {
            find_weights(&b, w, tile, tiles, first, inputs, unpack ? unpacked : NULL);
            b.is_first = first == 0;
            for (int32_t row = 0, count; row < rows; row += count) {
                count = rows - row < MAX_ROWS ? rows - row : MAX_ROWS;
                const uint8_t *x = (const uint8_t *)prepared + (size_t)row * b.x_stride;
                b.x = x + (size_t)first * (is_bf16 ? 2 : 1);
                b.x_groups = is_bf16 ? NULL : row_groups(x, w->k) + first / GROUP;
                b.y = y + row * stride_y + tile * COLUMN_TILE;
                shapes[unpack ? WEIGHT_INT8 : w->kind][tiles - 1][count - 1](&b);
            }
        }
    }
    if (restore_arithmetic(before) && is_bf16)
        linear_scalar.multiply(w, prepared, y, stride_y, rows, first_tile, end_tile);
}

const linear_variant_t JOIN(linear_, VARIANT) = {
    .name = NAME, .pack = pack, .prepare = prepare, .multiply = multiply,
};
