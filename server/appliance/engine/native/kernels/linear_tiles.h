/* The linear layers of one variant, over the vector operations that the including file defines.
 *
 * Outputs lie side by side in the lanes, so an output never meets its neighbour and is one chain over
 * k. Rows and halves of a tile that share registers only share loads; a block of k that ends early
 * leaves its sums in memory as fp32, which is exact. Hence nothing but k orders a reduction.
 *
 * Of a variant: the rows whose sums fit its registers beside a tile's 32 outputs (WIDE_ROWS) and beside
 * half of them (NARROW_ROWS), and beyond how many rows int4 is unpacked once for all (UNPACK_ABOVE).
 */
#include "linear_pack.h"
#include "linear_rows.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

enum {
    MAX_ROWS = WIDE_ROWS > NARROW_ROWS ? WIDE_ROWS : NARROW_ROWS, /* in registers */
    ROWS_AT_ONCE = 256,    /* by every tile before the next ones; they stay in the second cache, */
    ROWS_SIZE = 384 << 10, /* so at most about so many bytes, */
    BLOCK = 8192,          /* beside the weights of so many inputs of a tile; of a quarter in bf16 */
    AHEAD = 8192           /* bytes; the hardware alone does not reach the memory's rate */
};

/* Some rows by a block of k of a tile, or of half of it. */
typedef struct {
    const uint8_t *weights;       /* from the block's first group on */
    int half;                     /* of the tile; 0 for both */
    int columns;                  /* of the tile that are there */
    const uint8_t *x;
    const group_t *x_groups;
    size_t x_stride;
    const float *from;            /* what was summed before, COLUMN_TILE apart; null at the beginning of k */
    float *to;
    int64_t to_stride;
    int32_t num_steps;
    const uint8_t *fetch;         /* weights needed later; how many bytes of them for a line used, and in all */
    size_t fetch_step, fetch_size;
} block_t;

INLINE int32_t load_word(const uint8_t *from) {
    int32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

INLINE int32_t lesser(int32_t a, int32_t b) { return a < b ? a : b; }

/* Weights that will be needed, while `count` lines are used. */
INLINE const uint8_t *fetch_weights(const uint8_t *fetch, const int count, const block_t *b) {
    UNROLL for (int i = 0; i < count; i++, fetch += b->fetch_step) __builtin_prefetch(fetch);
    return fetch;
}

INLINE void load_lines(line_t *w, const int width, const uint8_t *lines) {
    UNROLL for (int h = 0; h < width; h++) w[h] = load_line(lines + h * LINE);
}

INLINE void load_sums(floats_t *sums, const int rows, const int width, const block_t *b) {
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int h = 0; h < width; h++) {
            int column = (b->half + h) * HALF_TILE;
            __builtin_prefetch(b->to + r * b->to_stride + column, 1); /* by the end of the block it is here */
            sums[r * width + h] = b->from ? load_floats(b->from + r * COLUMN_TILE + column) : zero_floats();
        }
}

INLINE void store_sums(const floats_t *sums, const int rows, const int width, const block_t *b) {
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int h = 0; h < width; h++)
            store_floats(b->to + r * b->to_stride + (b->half + h) * HALF_TILE, sums[r * width + h],
                         b->columns - (b->half + h) * HALF_TILE);
}

INLINE void multiply_bf16(const int rows, const int width, const block_t *b) {
    floats_t sums[MAX_ROWS * 2];
    const uint8_t *lines = b->weights + b->half * LINE, *fetch = b->fetch;
    load_sums(sums, rows, width, b);
    for (int32_t i = 0; i < b->num_steps; i++, lines += PAIR) {
        line_t w[2];
        fetch = fetch_weights(fetch, 2, b);
        load_lines(w, width, lines);
        UNROLL for (int r = 0; r < rows; r++) {
            int32_t x = load_word(b->x + r * b->x_stride + (size_t)i * 4);
            UNROLL for (int h = 0; h < width; h++) sums[r * width + h] = bf16_step(sums[r * width + h], w[h], x);
        }
    }
    store_sums(sums, rows, width, b);
}

INLINE const group_t *group_of(const block_t *b, int row, int32_t g) {
    return (const group_t *)((const uint8_t *)(b->x_groups + g) + row * b->x_stride);
}

INLINE void begin_group(ints_t *group, const int rows, const int width, const block_t *b, int32_t g) {
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int h = 0; h < width; h++) group[r * width + h] = begin_sums(group_of(b, r, g)->offset);
}

INLINE void end_group(floats_t *sums, const ints_t *group, const int rows, const int width, const block_t *b, int32_t g,
                      const uint8_t *w_group) {
    const uint16_t *w_scales = (const uint16_t *)w_group + b->half * HALF_TILE;
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int h = 0; h < width; h++)
            sums[r * width + h] = group_step(sums[r * width + h], group[r * width + h], w_scales + h * HALF_TILE,
                                             group_of(b, r, g)->scale);
}

INLINE void multiply_quad(ints_t *group, const line_t *w, const int rows, const int width, const block_t *b,
                          int32_t i) {
    UNROLL for (int r = 0; r < rows; r++) {
        int32_t x = load_word(b->x + r * b->x_stride + (size_t)i * 4);
        UNROLL for (int h = 0; h < width; h++) group[r * width + h] = int8_step(group[r * width + h], w[h], x);
    }
}

INLINE void multiply_int8(const int rows, const int width, const block_t *b) {
    floats_t sums[MAX_ROWS * 2];
    const uint8_t *w_group = b->weights, *fetch = b->fetch;
    load_sums(sums, rows, width, b);
    for (int32_t g = 0, i = 0; i < b->num_steps; g++) {
        int32_t end = lesser(i + GROUP / 4, b->num_steps);
        const uint8_t *lines = w_group + (1 + b->half) * LINE;
        ints_t group[MAX_ROWS * 2];
        fetch = fetch_weights(fetch, 1, b);
        begin_group(group, rows, width, b, g);
        do {
            line_t w[2];
            fetch = fetch_weights(fetch, 2, b);
            load_lines(w, width, lines);
            multiply_quad(group, w, rows, width, b, i);
            lines += PAIR;
        } while (++i < end);
        end_group(sums, group, rows, width, b, g, w_group);
        w_group = lines - b->half * LINE;
    }
    store_sums(sums, rows, width, b);
}

/* For up to UNPACK_ABOVE rows int4 is unpacked in registers, again for each MAX_ROWS of them; for more,
 * once into memory and multiplied as int8. */
INLINE void multiply_int4(const int rows, const int width, const block_t *b) {
    floats_t sums[MAX_ROWS * 2];
    const uint8_t *w_group = b->weights, *fetch = b->fetch;
    load_sums(sums, rows, width, b);
    for (int32_t g = 0, i = 0; i < b->num_steps; g++) {
        int32_t end = lesser(i + GROUP / 4, b->num_steps);
        const uint8_t *lines = w_group + (1 + b->half) * LINE;
        ints_t group[MAX_ROWS * 2];
        codes_t codes[2], spread[2];
        fetch = fetch_weights(fetch, 3, b);
        begin_group(group, rows, width, b, g);
        UNROLL for (int h = 0; h < width; h++) codes[h] = load_codes(lines + h * LINE);
        lines += PAIR;
        for (int subgroup = 0; i < end; subgroup++) {
            int32_t subgroup_end = lesser(i + SUBGROUP / 4, end);
            UNROLL for (int h = 0; h < width; h++) spread[h] = spread_codes(codes[h], subgroup);
            do {
                line_t w[2][2], first[2], second[2];
                fetch = fetch_weights(fetch, 2, b);
                UNROLL for (int h = 0; h < width; h++) {
                    unpack_line(lines + h * LINE, spread[h], w[h]);
                    first[h] = w[h][0], second[h] = w[h][1];
                }
                multiply_quad(group, first, rows, width, b, i);
                multiply_quad(group, second, rows, width, b, i + 1);
                lines += PAIR;
            } while ((i += 2) < subgroup_end);
        }
        end_group(sums, group, rows, width, b, g, w_group);
        w_group = lines - b->half * LINE;
    }
    store_sums(sums, rows, width, b);
}

static void unpack_half_group(const uint8_t *lines, int32_t quads, uint8_t *to) {
    codes_t codes = load_codes(lines), spread = codes;
    for (int32_t i = 0; i < quads; i += 2) {
        line_t w[2];
        if (i % (SUBGROUP / 4) == 0) spread = spread_codes(codes, i / (SUBGROUP / 4));
        lines += PAIR;
        unpack_line(lines, spread, w);
        store_line(to + (size_t)i * PAIR, w[0]);
        store_line(to + (size_t)(i + 1) * PAIR, w[1]);
    }
}

/* A block of int4 as the same of int8. */
static void unpack_block(const uint8_t *from, int32_t quads, uint8_t *to) {
    for (; quads > 0; quads -= GROUP / 4) {
        int32_t some = lesser(quads, GROUP / 4);
        memcpy(to, from, LINE);
        for (int half = 0; half < 2; half++) unpack_half_group(from + (1 + half) * LINE, some, to + (1 + half) * LINE);
        from += tile_size(WEIGHT_INT4, GROUP), to += tile_size(WEIGHT_INT8, GROUP);
    }
}

/* One function a shape, so that its sums stay in registers; the shape never orders a reduction. */
#define SHAPE(KIND, R, WIDTH)                                                                          \
    static void KIND##_##R##_##WIDTH(const block_t *b) {                                               \
        if (R <= (WIDTH == 2 ? WIDE_ROWS : NARROW_ROWS)) multiply_##KIND(R, WIDTH, b);                 \
    }
#define SHAPES(KIND)                                                                    \
    SHAPE(KIND, 1, 1) SHAPE(KIND, 2, 1) SHAPE(KIND, 3, 1) SHAPE(KIND, 4, 1)             \
    SHAPE(KIND, 5, 1) SHAPE(KIND, 6, 1) SHAPE(KIND, 7, 1) SHAPE(KIND, 8, 1)             \
    SHAPE(KIND, 1, 2) SHAPE(KIND, 2, 2) SHAPE(KIND, 3, 2) SHAPE(KIND, 4, 2)             \
    SHAPE(KIND, 5, 2) SHAPE(KIND, 6, 2) SHAPE(KIND, 7, 2) SHAPE(KIND, 8, 2)
#define NAMES(KIND, WIDTH) {KIND##_1_##WIDTH, KIND##_2_##WIDTH, KIND##_3_##WIDTH, KIND##_4_##WIDTH, \
                            KIND##_5_##WIDTH, KIND##_6_##WIDTH, KIND##_7_##WIDTH, KIND##_8_##WIDTH}
SHAPES(bf16)
SHAPES(int8)
SHAPES(int4)
static void (*const shapes[3][2][8])(const block_t *) = {
    [WEIGHT_BF16] = {NAMES(bf16, 1), NAMES(bf16, 2)},
    [WEIGHT_INT8] = {NAMES(int8, 1), NAMES(int8, 2)},
    [WEIGHT_INT4] = {NAMES(int4, 1), NAMES(int4, 2)},
};

static int32_t num_passes(int32_t rows) { return rows > WIDE_ROWS ? 2 : 1; }

static void multiply_shape(int32_t kind, int32_t rows, block_t *b) {
    int32_t num = num_passes(rows);
    for (int32_t pass = 0; pass < num; pass++) {
        b->half = pass;
        if (b->columns > pass * HALF_TILE) shapes[kind][num == 1][rows - 1](b);
        b->fetch += b->fetch_size;
    }
}

/* Rows that are multiplied by all tiles before the next ones. */
typedef struct {
    const weight_t *w;
    const uint8_t *x;
    size_t x_stride;
    float *y;
    int64_t y_stride;
    int32_t num_rows;
    uint8_t *unpacked;        /* a block, or null */
    float (*sums)[COLUMN_TILE];
} rows_t;

/* The tile's inputs [first, end) by all rows. */
static void multiply_block(const rows_t *rows, int32_t tile, int32_t first, int32_t end) {
    const weight_t *w = rows->w;
    const uint8_t *data = (const uint8_t *)w->data + (size_t)tile * tile_size(w->kind, w->k);
    bool is_bf16 = w->kind == WEIGHT_BF16, is_last = end == w->k;
    int32_t kind = rows->unpacked ? WEIGHT_INT8 : w->kind;
    int32_t some = lesser(rows->num_rows, MAX_ROWS);
    int32_t num_turns = (rows->num_rows + MAX_ROWS - 1) / MAX_ROWS * num_passes(some);
    size_t begin = tile_size(w->kind, first), size = tile_size(w->kind, end) - begin;
    size_t num_lines = tile_size(kind, end - first) / LINE;
    block_t b = {.weights = data + begin, .columns = COLUMN_TILE, .x_stride = rows->x_stride};
    b.num_steps = is_bf16 ? num_pairs(end - first) : num_quads(end - first);
    b.fetch = b.weights + (num_turns == 1 ? AHEAD : size);
    b.fetch_step = size / num_lines / (size_t)num_turns;
    b.fetch_size = num_lines * b.fetch_step;
    if (rows->unpacked) unpack_block(b.weights, b.num_steps, rows->unpacked), b.weights = rows->unpacked;
    b.to_stride = COLUMN_TILE;
    if (is_last) b.to_stride = rows->y_stride, b.columns = lesser(COLUMN_TILE, w->n - tile * COLUMN_TILE);
    for (int32_t row = 0, count; row < rows->num_rows; row += count) {
        const uint8_t *x = rows->x + (size_t)row * b.x_stride;
        count = lesser(MAX_ROWS, rows->num_rows - row);
        b.x = x + (size_t)first * (is_bf16 ? 2 : 1);
        b.x_groups = is_bf16 ? NULL : row_groups(x, w->k) + first / GROUP;
        b.from = first ? rows->sums[row] : NULL;
        b.to = is_last ? rows->y + row * rows->y_stride + tile * COLUMN_TILE : rows->sums[row];
        multiply_shape(kind, count, &b);
    }
}

/* How many rows to multiply at once: parts of about the same size. */
static int32_t rows_at_once(int32_t num_rows, size_t x_stride) {
    int32_t fit = lesser(ROWS_AT_ONCE, (int32_t)(ROWS_SIZE / x_stride) + 1), num_parts = num_rows / fit + 1;
    return ((num_rows + num_parts - 1) / num_parts + MAX_ROWS - 1) / MAX_ROWS * MAX_ROWS;
}

static void multiply(const weight_t *w, const void *prepared, float *y, int64_t stride_y, int32_t num_rows,
                     int32_t first_tile, int32_t end_tile) {
    uint8_t unpacked[BLOCK / GROUP * (LINE + GROUP / 4 * PAIR)] __attribute__((aligned(LINE)));
    float sums[ROWS_AT_ONCE][COLUMN_TILE] __attribute__((aligned(LINE)));
    bool is_bf16 = w->kind == WEIGHT_BF16;
    uint32_t before = set_arithmetic(is_bf16);
    rows_t rows = {.w = w, .x_stride = row_size(w->kind, w->k), .y_stride = stride_y, .sums = sums};
    int32_t at_once = rows_at_once(num_rows, rows.x_stride), block = is_bf16 ? BLOCK / 4 : BLOCK;
    if (num_rows <= WIDE_ROWS) block = w->k;
    if (w->kind == WEIGHT_INT4 && num_rows > UNPACK_ABOVE) rows.unpacked = unpacked;
    for (int32_t row = 0; row < num_rows; row += at_once) {
        rows.x = (const uint8_t *)prepared + (size_t)row * rows.x_stride;
        rows.y = y + row * stride_y;
        rows.num_rows = lesser(at_once, num_rows - row);
        for (int32_t tile = first_tile; tile < end_tile; tile++)
            for (int32_t first = 0; first < w->k; first += block)
                multiply_block(&rows, tile, first, lesser(w->k, first + block));
    }
    if (restore_arithmetic(before) && is_bf16)
        linear_scalar.multiply(w, prepared, y, stride_y, num_rows, first_tile, end_tile);
}

const linear_variant_t JOIN(linear_, VARIANT) = {
    .name = NAME, .pack = pack, .prepare = prepare, .multiply = multiply,
};
