/* A whole forward pass of a decoder of the Llama family over a ragged batch, in one call.
 *
 * The law: what is computed for a token depends on its sequence's tokens up to it and on the weights
 * alone. Not on the batch, the place in it, how a prompt was cut into chunks, which cache blocks hold
 * it, the number of threads or the variant. So every output element is one reduction in one order:
 *
 * norm       lane i sums x[i]^2, x[i + 16]^2, ... by fma; then halves of the 16 lanes are added;
 * linear     as linear.h says; the residual stream is fp32, bias and residual are added after;
 * rotation   angle = fp32(position * frequency), its sine and cosine in double, rounded to fp32;
 * attention  queries, keys and values rounded to bf16; a score is fma over the dimensions, in pairs of
 *            which the second comes first, denormals taken and left as zero; a weight is 2 to the power
 *            of fma(score, scale, -scale * maximum), a denormal product taken as zero, rounded to bf16;
 *            their sum by lane, keys 2i + 1 and 2i of 32 in lane i; the output is fma over the keys, in
 *            pairs like the dimensions, then times one over the sum. Keys that a row does not see weigh
 *            zero, of which an infinity or NaN among the values makes NaN: it alone can reach rows before;
 * pooling    final hidden states rounded to multiples of 2^-26 and summed exactly.
 */
#pragma once
#include "linear.h"
#include "threads.h"

#define KEY_TILE 16 /* keys side by side in the cache; a cache block holds whole tiles */

typedef struct {
    weight_t qkv, out, gate_up, down; /* q, k and v below each other, and gate and up */
    const float *attention_norm, *mlp_norm;
    const float *qkv_bias, *out_bias, *gate_up_bias, *down_bias; /* null where there is none */
    const float *q_norm, *k_norm;                                /* [head_dim], or null */
    int32_t window;                                              /* tokens seen, itself one; 0: all */
} layer_t;

typedef struct {
    int32_t vocab_size, hidden_size, intermediate_size, num_layers;
    int32_t num_heads, num_kv_heads, head_dim;
    int32_t block_size, num_blocks;
    float rms_norm_eps;
    const uint16_t *embedding; /* [vocab][hidden] bf16 */
    const float *frequencies;  /* [head_dim / 2], radians a position */
    const float *final_norm;
    weight_t head;
    const layer_t *layers;
    /* cache_size bytes, zero at first. A layer holds its keys, then its values; within each, by block,
     * kv head and tile of 16 tokens: keys [dimension / 2][token][2], values [dimension / 16][token / 2][16][2]. */
    uint16_t *cache;
} model_t;

/* A batch in one array: num_chunks, num_tokens; for each chunk its CHUNK_FIELDS; all token ids; the
 * block tables, one after the other. */
enum chunk_field { START, LENGTH, NUM_LOGIT_ROWS, IS_POOLED, NUM_CHUNK_BLOCKS, CHUNK_FIELDS };

enum forward_error { FORWARD_OK = 0, OUT_OF_MEMORY = 1, BAD_TOKEN = 2, BAD_BLOCK = 3, BAD_CHUNK = 4 };

typedef struct workspace workspace_t;

workspace_t *workspace_create(void);
void workspace_destroy(workspace_t *workspace);
/* The space, kept until the next call; null when there is no more memory. */
void *workspace_reserve(workspace_t *workspace, size_t size);

size_t cache_size(const model_t *model);

/* Pack row-major bf16 weights [n][k] with all threads. */
void pack_weight(pool_t *pool, const weight_t *weight, void *packed, const uint16_t *bf16);

/* Logits [rows asked for][vocab] of the last rows of each chunk, and hidden sums [pooled][hidden].
 * One function for each variant: forward_scalar, forward_avx2, forward_avx512, forward_neon. */
typedef int32_t forward_t(const model_t *model, pool_t *pool, workspace_t *workspace, const int32_t *batch,
                          float *logits, double *hidden_sums);
