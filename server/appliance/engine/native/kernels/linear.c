/* Chooses the variant of the linear layers that this CPU runs. */
#include "linear_layout.h"

#include <string.h>
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#if defined(__x86_64__)
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512bf16");
}
#elif defined(__aarch64__)
static const linear_variant_t *neon(void) {
#if defined(__linux__)
    return getauxval(AT_HWCAP) & 1 << 20 ? &linear_neon_dot : &linear_neon; /* asimddp: integer dot products */
#else
    return &linear_neon_dot; /* every Mac with such a CPU */
#endif
}
#endif

static const linear_variant_t *chosen;

int linear_choose(const char *name) {
    const linear_variant_t *variant = NULL;
#if defined(__x86_64__)
    if (strcmp(name, "avx512") == 0 && has_avx512()) {
        variant = &linear_avx512;
    }
    if (strcmp(name, "avx2") == 0 && has_avx2()) {
        variant = &linear_avx2;
    }
#elif defined(__aarch64__)
    if (strcmp(name, "neon") == 0) {
        variant = neon();
    }
#endif
    if (strcmp(name, "scalar") == 0) {
        variant = &linear_scalar;
    }
    if (variant) {
        chosen = variant;
    }
    return variant != NULL;
}

__attribute__((constructor)) static void choose_best(void) {
    if (!linear_choose("avx512") && !linear_choose("avx2") && !linear_choose("neon")) {
        linear_choose("scalar");
    }
}

const char *linear_variant(void) { return chosen->name; }

size_t weight_size(int32_t kind, int32_t n, int32_t k) { return (size_t)num_tiles(n) * tile_size(kind, k); }

size_t activation_size(int32_t kind, int32_t k) { return row_size(kind, k); }

void weight_pack(const weight_t *w, void *packed, const uint16_t *bf16, int32_t first_tile, int32_t end_tile) {
    chosen->pack(w, packed, bf16, first_tile, end_tile);
}

void linear_prepare(int32_t kind, int32_t k, const float *x, void *prepared, int32_t first, int32_t end) {
    linear_prepare_part(kind, k, x + (size_t)first * k, k, prepared, first, end, 0, k);
}

void linear_prepare_part(int32_t kind, int32_t k, const float *x, int64_t stride_x, void *prepared, int32_t first_row,
                         int32_t end_row, int32_t first, int32_t end) {
    uint8_t *rows = (uint8_t *)prepared + (size_t)first_row * row_size(kind, k);
    chosen->prepare(kind, k, x, stride_x, rows, end_row - first_row, first, end);
}

void linear_multiply(const weight_t *w, const void *prepared, float *y, int64_t stride_y, int32_t rows,
                     int32_t first_tile, int32_t end_tile) {
    chosen->multiply(w, prepared, y, stride_y, rows, first_tile, end_tile);
}
