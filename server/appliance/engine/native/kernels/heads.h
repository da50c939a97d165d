/* Queries, keys and values of a batch: brought into shape, into the cache, and attended. */
#pragma once
#include "job.h"
#include "rows.h"

/* The keys and values of one kv head and 16 tokens, counted from the sequence's beginning. */
INLINE void locate_tile(const model_t *model, const layer_t *layer, const chunk_t *chunk, int32_t kv_head,
                        int32_t tile, uint16_t **keys, uint16_t **values) {
    int32_t D = model->head_dim, padded = padded_dim(model), tiles_per_block = model->block_size / KEY_TILE;
    int64_t tokens = (int64_t)model->num_blocks * model->num_kv_heads * model->block_size;
    uint16_t *layer_keys = model->cache + (layer - model->layers) * tokens * (D + padded);
    int64_t block = chunk->blocks[tile / tiles_per_block];
    int64_t at = ((block * model->num_kv_heads + kv_head) * tiles_per_block + tile % tiles_per_block) * KEY_TILE;
    *keys = layer_keys + at * D;
    *values = layer_keys + tokens * D + at * padded;
}

/* A token's keys and values to its place in a tile. */
static void store_token(uint16_t *restrict keys, uint16_t *restrict values, int32_t token,
                        const uint16_t *restrict k, const uint16_t *restrict v, int32_t head_dim) {
    for (int32_t d = 0; d < head_dim; d += 2) memcpy(keys + (d / 2 * KEY_TILE + token) * 2, k + d, 2 * sizeof *k);
    values += token / 2 * 2 * LANES + token % 2;
    for (int32_t d = 0; d < head_dim; d++) values[d / LANES * KEY_TILE * LANES + d % LANES * 2] = v[d];
}

/* Zeros for the token that shares pairs with the last one: another sequence may have left something there, of
 * which even zero times infinity would be seen. */
static void clear_next_token(uint16_t *values, int32_t token, int32_t head_dim) {
    values += token / 2 * 2 * LANES + 1;
    for (int32_t d = 0; token % 2 == 0 && d < head_dim; d++) values[d / LANES * KEY_TILE * LANES + d % LANES * 2] = 0;
}

/* Head `head` of a row of q, k and v, with its bias; may point into `space`. */
static const float *biased_head(const job_t *job, const layer_t *layer, int32_t row, int32_t head, float *space) {
    int32_t D = job->model->head_dim;
    const float *x = job->qkv + (int64_t)row * layer->qkv.n + head * D;
    if (!layer->qkv_bias) return x;
    for (int32_t d = 0; d < D; d++) space[d] = x[d] + layer->qkv_bias[head * D + d];
    return space;
}

/* A head of q or k: bias, norm, rotation and rounding. */
static void shape_head(const job_t *job, const layer_t *layer, int32_t row, int32_t head, const float *norm,
                       float *space, uint16_t *shaped) {
    int32_t D = job->model->head_dim, half = D / 2;
    const float *x = biased_head(job, layer, row, head, space);
    if (norm) norm_row(x, norm, space, D, job->model->rms_norm_eps), x = space;
    rotate(x, job->cosine + (int64_t)row * half, job->sine + (int64_t)row * half, half, shaped);
}

/* Key and value of one row and kv head, into the cache. */
static void shape_key(const job_t *job, const layer_t *layer, int32_t row, int32_t kv_head, const scratch_t *scratch) {
    const model_t *model = job->model;
    const chunk_t *chunk = &job->chunks[job->chunk_of_row[row]];
    int32_t D = model->head_dim, position = chunk->start + row - chunk->first_row;
    int32_t k_head = model->num_heads + kv_head, v_head = k_head + model->num_kv_heads;
    uint16_t *keys, *values;
    shape_head(job, layer, row, k_head, layer->k_norm, scratch->head, scratch->k);
    round_row(biased_head(job, layer, row, v_head, scratch->head), scratch->v, D);
    locate_tile(model, layer, chunk, kv_head, position / KEY_TILE, &keys, &values);
    store_token(keys, values, position % KEY_TILE, scratch->k, scratch->v, D);
    if (row == chunk->first_row + chunk->length - 1) clear_next_token(values, position % KEY_TILE, D);
}

static void shape_keys(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    for (int32_t row = first; row < end; row++)
        for (int32_t head = 0; head < loop->job->model->num_kv_heads; head++)
            shape_key(loop->job, loop->layer, row, head, &loop->job->scratch[thread]);
}

/* The first key that any query of the item sees, and the end of the last query's. */
INLINE int32_t first_key_of(const job_t *job, const layer_t *layer, const item_t *item) {
    return layer->window ? at_least(job->chunks[item->chunk].start + item->first - layer->window + 1, 0) : 0;
}
INLINE int32_t end_key_of(const job_t *job, const item_t *item) { return job->chunks[item->chunk].start + item->end; }

/* The tiles of an item, and the first keys of the next. */
static tiles_t find_tiles(const job_t *job, const layer_t *layer, const item_t *item, const item_t *next, scratch_t *scratch) {
    const chunk_t *chunk = &job->chunks[item->chunk];
    int32_t first = first_key_of(job, layer, item) / KEY_TILE;
    int32_t end = count_tiles(end_key_of(job, item), KEY_TILE);
    tiles_t tiles = {scratch->tiles - first, scratch->tiles + (end - first) - first};
    uint16_t *keys, *values;
    for (int32_t tile = first; tile < end; tile++) {
        locate_tile(job->model, layer, chunk, item->kv_head, tile, &keys, &values);
        tiles.keys[tile] = keys, tiles.values[tile] = values;
    }
    int32_t next_first = first_key_of(job, layer, next) / KEY_TILE;
    int32_t next_last = count_tiles(end_key_of(job, next), KEY_TILE) - 1;
    for (int32_t i = 0; i < TILES_AHEAD; i++) {
        int32_t tile = next_first + i < next_last ? next_first + i : next_last;
        locate_tile(job->model, layer, &job->chunks[next->chunk], next->kv_head, tile, &keys, &values);
        tiles.values[end + i] = keys;
    }
    return tiles;
}

/* A query row of an item: the heads of one kv head, token by token. */
typedef struct {
    int32_t row, head, position; /* of the batch, of the model, in the sequence */
} query_t;

INLINE query_t query_at(const job_t *job, const item_t *item, int32_t index) {
    const chunk_t *chunk = &job->chunks[item->chunk];
    int32_t per_head = job->model->num_heads / job->model->num_kv_heads, token = item->first + index / per_head;
    return (query_t){chunk->first_row + token, item->kv_head * per_head + index % per_head, chunk->start + token};
}

/* Queries lie far apart, where the hardware does not look ahead. */
INLINE void fetch_queries(const job_t *job, const layer_t *layer, const item_t *item, int32_t first, int32_t end) {
    for (int32_t index = first; index < end; index++) {
        query_t query = query_at(job, item, index);
        const float *q = job->qkv + (int64_t)query.row * layer->qkv.n + query.head * job->model->head_dim;
        for (int32_t d = 0; d < job->model->head_dim; d += LANES) __builtin_prefetch(q + d);
    }
}

static void attend_queries(const job_t *job, const layer_t *layer, const item_t *item, int32_t first, row_group_t *group,
                           const tiles_t *tiles, scratch_t *scratch) {
    int32_t D = job->model->head_dim;
    for (int32_t r = 0; r < padded_rows(group->num_rows); r++) {
        query_t query = query_at(job, item, first + (r < group->num_rows ? r : 0));
        shape_head(job, layer, query.row, query.head, layer->q_norm, scratch->head, scratch->q + r * D);
        group->first_key[r] = layer->window ? at_least(query.position - layer->window + 1, 0) : 0;
        group->end_key[r] = query.position + 1;
    }
    group->origin = group->first_key[0] / (2 * KEY_TILE) * (2 * KEY_TILE);
    attend_group(group, tiles);
    for (int32_t r = 0; r < group->num_rows; r++) {
        query_t query = query_at(job, item, first + r);
        share_row(scratch->out + (int64_t)r * padded_dim(job->model), 1.0f / group->sums[r],
                  job->attended + (int64_t)query.row * layer->out.k + query.head * D, D);
    }
}

static void attend_item(const job_t *job, const layer_t *layer, const item_t *item, const item_t *next_item,
                        scratch_t *scratch) {
    const model_t *model = job->model;
    int32_t num_rows = (item->end - item->first) * (model->num_heads / model->num_kv_heads);
    tiles_t tiles = find_tiles(job, layer, item, next_item, scratch);
    row_group_t group = {.q = scratch->q, .scale = LOG2_E / __builtin_sqrtf((float)model->head_dim),
                         .head_dim = model->head_dim, .num_columns = padded_dim(model) / LANES,
                         .scores = scratch->scores, .weights = scratch->weights, .stride = score_stride(job),
                         .out = scratch->out};
    for (int32_t first = 0; first < num_rows; first += group.num_rows) {
        group.num_rows = num_rows - first < ROW_GROUP ? num_rows - first : ROW_GROUP;
        int32_t next = first + group.num_rows, next_end = next + ROW_GROUP < num_rows ? next + ROW_GROUP : num_rows;
        fetch_queries(job, layer, item, next, next_end);
        attend_queries(job, layer, item, first, &group, &tiles, scratch);
    }
}

static void attend_items(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    const job_t *job = loop->job;
    for (int32_t i = first; i < end; i++) {
        const item_t *item = &job->items[i];
        scratch_t *scratch = &job->scratch[thread];
        if (job->is_decode) shape_key(job, loop->layer, job->chunks[item->chunk].first_row, item->kv_head, scratch);
        attend_item(job, loop->layer, item, i + 1 < job->num_items ? item + 1 : item, scratch);
    }
}
