/* Linear layers y = x W^T whose every output element is one reduction in one fixed order.
 *
 * The result for a row depends on that row and the weights alone: not on how many rows there are,
 * its place among them, how threads share the columns, or which of the compiled variants runs.
 *
 * A caller with several threads has each of them call prepare for its share of the rows, waits for
 * all, then has each call multiply for its share of the column tiles.
 *
 * bf16: x rounded to bf16; y = fma(x[k], w[k], y) for k = 0, 1, 2, ... in fp32, denormals taken and
 *       left as zero (what vdpbf16ps does, natural order restored by packing).
 * int8: groups of 128 along k with a bf16 scale; x quantised a row and group to 127 steps; exact
 *       integer sums; y = fma(sum, scale_x * scale_w, y) for the groups in order.
 * int4: as int8, the weight being (nibble - zero) * step in subgroups of 32, zero and step of 4 bits.
 * A NaN is always stored as 0x7fc00000; with int8 and int4 an x that is not finite makes its row NaN.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum weight_kind { WEIGHT_BF16 = 0, WEIGHT_INT8 = 1, WEIGHT_INT4 = 2 };

#define COLUMN_TILE 32 /* outputs side by side; packed weights are padded to whole tiles */

typedef struct {
    int32_t kind;     /* enum weight_kind */
    int32_t n, k;     /* outputs, inputs */
    const void *data; /* packed, 64-byte aligned */
} weight_t;

/* Bytes of packed weights; of prepared activations for one row (both multiples of 64). */
size_t weight_size(int32_t kind, int32_t n, int32_t k);
size_t activation_size(int32_t kind, int32_t k);

/* Pack row-major bf16 weights [n][k]; a range of tiles, so that threads can share the work. Reads
 * w->kind, n and k; w->data is the caller's to set. The bytes are the same from every variant. */
void weight_pack(const weight_t *w, void *packed, const uint16_t *bf16, int32_t first_tile, int32_t end_tile);

/* Bring rows [first, end) of x [rows][k] fp32 to the form that `kind` multiplies; prepared is 64-byte
 * aligned and holds row r at r * activation_size. */
void linear_prepare(int32_t kind, int32_t k, const float *x, void *prepared, int32_t first, int32_t end);

/* The same for inputs [first, end) alone, with rows apart by stride_x; `x` begins with the first of them and
 * row first_row. `first` is a multiple of 128, `end` too or k. */
void linear_prepare_part(int32_t kind, int32_t k, const float *x, int64_t stride_x, void *prepared, int32_t first_row,
                         int32_t end_row, int32_t first, int32_t end);

/* y [rows][stride_y] for the column tiles [first_tile, end_tile); padding columns are not written. */
void linear_multiply(const weight_t *w, const void *prepared, float *y, int64_t stride_y, int32_t rows,
                     int32_t first_tile, int32_t end_tile);

/* The variant in use: the best this CPU has until another is chosen by name ("avx512", "avx2", "neon",
 * "scalar"). Choosing returns 1, or 0 if the variant is not built in or the CPU lacks it; do it
 * before other threads run. */
int linear_choose(const char *name);
const char *linear_variant(void);
