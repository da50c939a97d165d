/* Prints digests of what the kernels compute, one line a variant and case: equal lines, equal bits. */
#include "forward.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;

static uint32_t random_bits(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

/* About normal, times 2^exponent; a bf16 has no bits beyond the first 16. */
static float random_float(int exponent) {
    int32_t sum = 0;
    for (int i = 0; i < 4; i++) {
        sum += (int32_t)(random_bits() >> 16) - 32768;
    }
    return __builtin_ldexpf((float)sum, exponent - 15);
}

static uint16_t random_bf16(int exponent) {
    float value = random_float(exponent);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static void *filled_bf16(size_t count, int exponent) {
    uint16_t *words = malloc(count * sizeof *words);
    for (size_t i = 0; i < count; i++) {
        words[i] = random_bf16(exponent);
    }
    return words;
}

static float *filled_floats(size_t count, int exponent) {
    float *floats = malloc(count * sizeof *floats);
    for (size_t i = 0; i < count; i++) {
        floats[i] = random_float(exponent);
    }
    return floats;
}

static void *aligned(size_t size) {
    void *memory = aligned_alloc(64, (size + 63) / 64 * 64);
    memset(memory, 0, size);
    return memory;
}

static uint64_t digest(const void *data, size_t size) {
    const uint8_t *bytes = data;
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ bytes[i]) * 1099511628211u;
    }
    return hash;
}

static void report(const char *what, int32_t kind, int32_t number, const void *data, size_t size) {
    printf("%s %s %d %d %016llx\n", linear_variant(), what, kind, number, (unsigned long long)digest(data, size));
}

static weight_t packed(pool_t *pool, int32_t kind, int32_t n, int32_t k, int exponent) {
    weight_t weight = {kind, n, k, NULL};
    uint16_t *rows = filled_bf16((size_t)n * k, exponent);
    void *data = aligned(weight_size(kind, n, k));
    pack_weight(pool, &weight, data, rows);
    weight.data = data;
    free(rows);
    return weight;
}

/* Products of the exponents' sum: ordinary numbers, and such that partial sums are denormal. */
static void multiply(pool_t *pool, int32_t kind, int32_t rows, int exponent) {
    enum { N = 100, K = 333 };
    state = 7;
    weight_t weight = packed(pool, kind, N, K, exponent);
    float *x = filled_floats((size_t)rows * K, exponent), *y = calloc((size_t)rows * N, sizeof *y);
    void *prepared = aligned((size_t)rows * activation_size(kind, K));
    linear_prepare(kind, K, x, prepared, 0, rows);
    linear_multiply(&weight, prepared, y, N, rows, 0, (N + COLUMN_TILE - 1) / COLUMN_TILE);
    report("weights", kind, exponent, weight.data, weight_size(kind, N, K));
    report("product", kind, rows * 1000 - exponent, y, (size_t)rows * N * sizeof *y);
    free((void *)weight.data), free(x), free(y), free(prepared);
}

/* A sum below the smallest normal number that is this number when it is rounded. */
static void multiply_at_border(void) {
    uint16_t rows[COLUMN_TILE * 2];
    for (int i = 0; i < COLUMN_TILE; i++) {
        rows[2 * i] = 64 << 7, rows[2 * i + 1] = 0x8000 | 51 << 7; /* 2^-63, -2^-76 */
    }
    float x[2] = {0x1p-63f, 0x1p-76f}, y[COLUMN_TILE];
    weight_t weight = {WEIGHT_BF16, COLUMN_TILE, 2, NULL};
    void *data = aligned(weight_size(WEIGHT_BF16, COLUMN_TILE, 2)),
         *prepared = aligned(activation_size(WEIGHT_BF16, 2));
    weight_pack(&weight, data, rows, 0, 1);
    weight.data = data;
    linear_prepare(WEIGHT_BF16, 2, x, prepared, 0, 1);
    linear_multiply(&weight, prepared, y, COLUMN_TILE, 1, 0, 1);
    printf("%s border %a\n", linear_variant(), y[0]);
    free(data), free(prepared);
}

enum { HIDDEN = 64, INNER = 152, LAYERS = 2, HEADS = 4, KV_HEADS = 2, DIM = 20, VOCAB = 90, TOKENS = 40 };

static layer_t random_layer(pool_t *pool, int32_t kind, int exponent) {
    int out_exponent = exponent < -100 ? -5 - exponent : exponent; /* so that it shows in the logits */
    int32_t qkv = (HEADS + 2 * KV_HEADS) * DIM;
    return (layer_t){
        .qkv = packed(pool, kind, qkv, HIDDEN, exponent),
        .out = packed(pool, kind, HIDDEN, HEADS * DIM, out_exponent),
        .gate_up = packed(pool, kind, 2 * INNER, HIDDEN, -3),
        .down = packed(pool, kind, HIDDEN, INNER, -3),
        .attention_norm = filled_floats(HIDDEN, 0),
        .mlp_norm = filled_floats(HIDDEN, 0),
        .qkv_bias = filled_floats(qkv, exponent),
        .q_norm = filled_floats(DIM, 0),
        .k_norm = filled_floats(DIM, 0),
        .window = 24,
    };
}

/* `exponent` of queries, keys and values: with a low one the sums over values are denormal. */
static void forward(pool_t *pool, int32_t kind, int exponent, forward_t *function) {
    state = 11;
    layer_t layers[LAYERS] = {random_layer(pool, kind, exponent), random_layer(pool, kind, exponent)};
    float frequencies[DIM / 2];
    for (int i = 0; i < DIM / 2; i++) {
        frequencies[i] = 1.0f / (float)(1 << i);
    }
    model_t model = {
        .vocab_size = VOCAB,
        .hidden_size = HIDDEN,
        .intermediate_size = INNER,
        .num_layers = LAYERS,
        .num_heads = HEADS,
        .num_kv_heads = KV_HEADS,
        .head_dim = DIM,
        .block_size = KEY_TILE,
        .num_blocks = 4,
        .rms_norm_eps = 1e-5f,
        .embedding = filled_bf16(VOCAB * HIDDEN, 0),
        .frequencies = frequencies,
        .final_norm = filled_floats(HIDDEN, 0),
        .head = packed(pool, kind, VOCAB, HIDDEN, -3),
        .layers = layers,
    };
    model.cache = aligned(cache_size(&model));
    int32_t batch[2 + CHUNK_FIELDS + TOKENS + 3] = {1, TOKENS, 0, TOKENS, TOKENS, 1, 3};
    for (int i = 0; i < TOKENS; i++) {
        batch[2 + CHUNK_FIELDS + i] = (int32_t)(random_bits() % VOCAB);
    }
    for (int i = 0; i < 3; i++) {
        batch[2 + CHUNK_FIELDS + TOKENS + i] = 2 - i;
    }
    float *logits = malloc(sizeof *logits * TOKENS * VOCAB);
    double sums[HIDDEN];
    workspace_t *workspace = workspace_create();
    int32_t error = function(&model, pool, workspace, batch, logits, sums);
    if (error) {
        printf("error %d\n", error);
    }
    report("logits", kind, exponent, logits, sizeof *logits * TOKENS * VOCAB);
    report("pooled", kind, exponent, sums, sizeof sums);
    report("cache", kind, exponent, model.cache, cache_size(&model));
    workspace_destroy(workspace);
}

static void report_all(const char *name, forward_t *function) {
    pool_t *pool = pool_create(2);
    if (!linear_choose(name)) {
        return;
    }
    for (int32_t kind = WEIGHT_BF16; kind <= WEIGHT_INT4; kind++) {
        for (int32_t rows = 1; rows <= 17; rows += 4) {
            for (int exponent = -66; exponent <= 0; exponent += 3) {
                multiply(pool, kind, rows, exponent);
            }
        }
        forward(pool, kind, -3, function);
        forward(pool, kind, -125, function);
    }
    multiply_at_border();
    pool_destroy(pool);
}

extern forward_t forward_scalar, forward_avx2, forward_avx512, forward_neon;

int main(void) {
    report_all("scalar", forward_scalar);
#if defined(__x86_64__)
    report_all("avx2", forward_avx2);
    report_all("avx512", forward_avx512);
#elif defined(__aarch64__)
    report_all("neon", forward_neon);
#endif
    return 0;
}
