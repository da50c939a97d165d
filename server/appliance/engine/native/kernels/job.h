/* A batch taken apart, and the memory it is worked on in. */
#pragma once
#include "attention.h"
#include "forward.h"

#define TOKENS_PER_ITEM 16 /* of a chunk, in one piece of attention */
#define PIECE_TILES 8      /* of a linear layer, at most; gates and what they open may touch one more */
#define PIECE_STRIDE ((PIECE_TILES + 1) * COLUMN_TILE)

typedef struct {
    int32_t start, length, first_row;
    int32_t is_pooled, pooled_before; /* pooled chunks before this one */
    const int32_t *blocks;
} chunk_t;

/* A piece of attention: some tokens of a chunk, one kv head. */
typedef struct {
    int32_t chunk, kv_head, first, end;
} item_t;

typedef struct {
    const uint16_t **tiles; /* keys, values, and TILES_AHEAD of what follows */
    uint16_t *q, *k, *v, *weights;
    float *head, *scores, *out, *normed;
    float *piece; /* [rows][PIECE_STRIDE]: outputs of a linear layer that are used at once */
} scratch_t;

typedef struct {
    const model_t *model;
    pool_t *pool;
    chunk_t *chunks;
    item_t *items;
    int32_t num_chunks, num_tokens, num_items, num_logit_rows, num_pooled, max_tiles;
    int32_t is_decode; /* every chunk is one token */
    const int32_t *token_ids;
    int32_t *chunk_of_row, *logit_rows;
    float *cosine, *sine; /* [rows][head_dim / 2] */
    float *x, *qkv, *attended;
    void *prepared, *prepared_inner; /* what is multiplied next; by the last matrix of a layer */
    scratch_t *scratch; /* [threads] */
    float *logits;
    double *hidden_sums;
} job_t;

/* What a loop is about. */
typedef struct {
    const job_t *job;
    const layer_t *layer;
    const weight_t *weight;
    const void *prepared;
    const float *bias;
    float *y;
    int32_t num_rows;
} loop_t;

INLINE int32_t count_tiles(int32_t n, int32_t tile) { return (n + tile - 1) / tile; }
INLINE int32_t at_least(int32_t a, int32_t b) { return a > b ? a : b; }

INLINE int32_t padded_dim(const model_t *model) { return count_tiles(model->head_dim, LANES) * LANES; }

/* Room for the scores of a row: two tiles are taken at a time, and a vector may end behind them. An odd
 * number of lines, so that neighbouring rows do not fall into the same cache set. */
INLINE int64_t score_stride(const job_t *job) { return (int64_t)((job->max_tiles + 2) | 1) * KEY_TILE; }

/* Hands out pieces of one space; with `begin` null it only counts. */
typedef struct {
    char *begin;
    size_t used;
} arena_t;

static void *take(arena_t *arena, size_t count, size_t size) {
    void *piece = arena->begin ? arena->begin + arena->used : NULL;
    arena->used += (count * size + 63) / 64 * 64;
    return piece;
}

/* Of one row that any matrix multiplies; of one that the last of a layer does. */
typedef struct {
    size_t any, inner;
} prepared_size_t;

INLINE size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static prepared_size_t prepared_size(const model_t *model) {
    prepared_size_t size = {activation_size(model->head.kind, model->head.k), 0};
    for (int32_t i = 0; i < model->num_layers; i++) {
        const layer_t *layer = &model->layers[i];
        const weight_t *weights[] = {&layer->qkv, &layer->out, &layer->gate_up};
        for (int32_t w = 0; w < 3; w++) size.any = larger(size.any, activation_size(weights[w]->kind, weights[w]->k));
        size.inner = larger(size.inner, activation_size(layer->down.kind, layer->down.k));
    }
    return size;
}

/* Pointers into `arena`; the sizes in `job` are known. */
static void lay_out(job_t *job, arena_t *arena, prepared_size_t prepared) {
    const model_t *model = job->model;
    const layer_t *layer = model->layers;
    size_t num_rows = (size_t)job->num_tokens, num_threads = (size_t)pool_num_threads(job->pool);
    job->chunks = take(arena, (size_t)job->num_chunks, sizeof *job->chunks);
    job->items = take(arena, (size_t)job->num_items, sizeof *job->items);
    job->chunk_of_row = take(arena, num_rows, sizeof(int32_t));
    job->logit_rows = take(arena, (size_t)job->num_logit_rows, sizeof(int32_t));
    job->cosine = take(arena, num_rows * (size_t)(model->head_dim / 2), sizeof(float));
    job->sine = take(arena, num_rows * (size_t)(model->head_dim / 2), sizeof(float));
    job->qkv = take(arena, num_rows * (size_t)layer->qkv.n, sizeof(float));
    job->attended = take(arena, num_rows * (size_t)layer->out.k, sizeof(float));
    job->x = take(arena, num_rows * (size_t)model->hidden_size, sizeof(float));
    job->prepared = take(arena, num_rows, prepared.any);
    job->prepared_inner = take(arena, num_rows, prepared.inner);
    job->scratch = take(arena, num_threads, sizeof *job->scratch);
    for (size_t thread = 0; thread < num_threads; thread++) {
        scratch_t scratch;
        scratch.tiles = take(arena, 2 * (size_t)job->max_tiles + TILES_AHEAD, sizeof *scratch.tiles);
        scratch.q = take(arena, ROW_GROUP * (size_t)model->head_dim, sizeof(uint16_t));
        scratch.k = take(arena, (size_t)model->head_dim, sizeof(uint16_t));
        scratch.v = take(arena, (size_t)model->head_dim, sizeof(uint16_t));
        scratch.head = take(arena, (size_t)model->head_dim, sizeof(float));
        scratch.weights = take(arena, ROW_GROUP * (size_t)score_stride(job), sizeof(uint16_t));
        scratch.scores = take(arena, ROW_GROUP * (size_t)score_stride(job), sizeof(float));
        scratch.normed = take(arena, (size_t)model->hidden_size, sizeof(float));
        scratch.piece = take(arena, num_rows * PIECE_STRIDE, sizeof(float));
        scratch.out = take(arena, ROW_GROUP * (size_t)padded_dim(model), sizeof(float));
        if (arena->begin) job->scratch[thread] = scratch;
    }
}

/* Sizes of the job, and whether the batch is whole: an index out of range would write anywhere. */
static int32_t measure(job_t *job, const int32_t *batch) {
    const model_t *model = job->model;
    job->num_chunks = batch[0], job->num_tokens = batch[1], job->is_decode = 1;
    const int32_t *fields = batch + 2, *tokens = fields + (int64_t)job->num_chunks * CHUNK_FIELDS;
    const int32_t *blocks = tokens + job->num_tokens;
    int64_t num_tokens = 0;
    for (int32_t i = 0; i < job->num_chunks; i++, fields += CHUNK_FIELDS) {
        int64_t end = (int64_t)fields[START] + fields[LENGTH];
        if (fields[START] < 0 || fields[LENGTH] < 1 || end > (int64_t)fields[NUM_CHUNK_BLOCKS] * model->block_size ||
            fields[NUM_LOGIT_ROWS] < 0 || fields[NUM_LOGIT_ROWS] > fields[LENGTH])
            return BAD_CHUNK;
        for (int32_t block = 0; block < fields[NUM_CHUNK_BLOCKS]; block++)
            if (blocks[block] < 0 || blocks[block] >= model->num_blocks) return BAD_BLOCK;
        blocks += fields[NUM_CHUNK_BLOCKS];
        num_tokens += fields[LENGTH];
        job->num_logit_rows += fields[NUM_LOGIT_ROWS];
        job->num_pooled += fields[IS_POOLED];
        job->num_items += count_tiles(fields[LENGTH], TOKENS_PER_ITEM) * model->num_kv_heads;
        job->max_tiles = at_least(job->max_tiles, count_tiles((int32_t)end, KEY_TILE));
        if (fields[LENGTH] > 1) job->is_decode = 0;
    }
    if (num_tokens != job->num_tokens) return BAD_CHUNK;
    for (int32_t i = 0; i < job->num_tokens; i++)
        if (tokens[i] < 0 || tokens[i] >= model->vocab_size) return BAD_TOKEN;
    job->token_ids = tokens;
    return FORWARD_OK;
}

static void fill_in(job_t *job, const int32_t *batch) {
    const int32_t *fields = batch + 2, *blocks = job->token_ids + job->num_tokens;
    int32_t row = 0, num_items = 0, num_logit_rows = 0, num_pooled = 0;
    for (int32_t i = 0; i < job->num_chunks; i++, fields += CHUNK_FIELDS) {
        int32_t length = fields[LENGTH], end = row + length;
        job->chunks[i] = (chunk_t){fields[START], length, row, fields[IS_POOLED], num_pooled, blocks};
        num_pooled += fields[IS_POOLED];
        blocks += fields[NUM_CHUNK_BLOCKS];
        for (int32_t head = 0; head < job->model->num_kv_heads; head++)
            for (int32_t first = 0; first < length; first += TOKENS_PER_ITEM) {
                int32_t item_end = length - first < TOKENS_PER_ITEM ? length : first + TOKENS_PER_ITEM;
                job->items[num_items++] = (item_t){i, head, first, item_end};
            }
        for (int32_t j = end - fields[NUM_LOGIT_ROWS]; j < end; j++) job->logit_rows[num_logit_rows++] = j;
        for (; row < end; row++) job->chunk_of_row[row] = i;
    }
}
