/* The forward pass, compiled once for each variant of the lanes: the including file defines FORWARD,
 * the name of its function. */
#include "attention.h"
#include "forward.h"

#define FEW_ROWS 2         /* up to here the calling thread does norms and activations alone */
#define TOKENS_PER_ITEM 16 /* of a chunk, in one piece of attention */
#define PIECES_PER_THREAD 8
#define POOLING_STEPS 0x1p26

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
    const uint16_t **keys, **values;
    uint16_t *q, *k, *v, *weights, *last_values;
    float *head, *scores, *out;
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
    float *x, *normed, *qkv, *attended, *gate_up, *inner, *y;
    void *prepared;
    scratch_t *scratch; /* [threads] */
    float *logits;
    double *hidden_sums;
} job_t;

INLINE int32_t count_tiles(int32_t n, int32_t tile) { return (n + tile - 1) / tile; }
INLINE int32_t at_least(int32_t a, int32_t b) { return a > b ? a : b; }

/* Elementwise work on n floats, 16 at a time; the last lanes by parts. */
#define EACH_LANES(n, full, part)                        \
    do {                                                 \
        int32_t i = 0;                                   \
        for (; i + LANES <= (n); i += LANES) full;       \
        if (i < (n)) {                                   \
            const int count = (n) - i;                   \
            part;                                        \
        }                                                \
    } while (0)

static void norm_row(const float *x, const float *weight, float *out, int32_t n, float eps) {
    lanes_t sum = lanes_set(0.0f), v;
    EACH_LANES(n, (v = lanes_load(x + i), sum = lanes_fma(v, v, sum)),
               (v = lanes_load_part(x + i, count), sum = lanes_fma(v, v, sum)));
    lanes_t scale = lanes_set(1.0f / __builtin_sqrtf(lanes_sum(sum) / (float)n + eps));
    EACH_LANES(n,
               lanes_store(out + i, lanes_mul(lanes_mul(lanes_load(x + i), scale), lanes_load(weight + i))),
               lanes_store_part(out + i, lanes_mul(lanes_mul(lanes_load_part(x + i, count), scale),
                                                   lanes_load_part(weight + i, count)), count));
}

static void add_row(float *x, const float *y, const float *bias, int32_t n) {
    if (bias)
        for (int32_t i = 0; i < n; i++) x[i] += y[i] + bias[i];
    else
        for (int32_t i = 0; i < n; i++) x[i] += y[i];
}

static void round_row(const float *restrict x, uint16_t *restrict out, int32_t n) {
    for (int32_t i = 0; i < n; i++) out[i] = (uint16_t)round_bf16(x[i]);
}

static void share_row(const float *restrict x, float share, float *restrict out, int32_t n) {
    for (int32_t i = 0; i < n; i++) out[i] = __builtin_fmaf(x[i], share, 0.0f); /* never -0 */
}

INLINE lanes_t gated(lanes_t gate, lanes_t up) {
    lanes_t below = lanes_add(lanes_set(1.0f), lanes_exp(lanes_sub(lanes_set(0.0f), gate)));
    return lanes_mul(lanes_div(gate, below), up);
}

INLINE lanes_t load_biased(const float *x, const float *bias, int32_t i, int count) {
    lanes_t value = count < LANES ? lanes_load_part(x + i, count) : lanes_load(x + i);
    if (!bias) return value;
    return lanes_add(value, count < LANES ? lanes_load_part(bias + i, count) : lanes_load(bias + i));
}

/* out = silu(gate) * up, with `up` and its bias n behind the gate's. */
static void gate_row(const float *gate, const float *bias, float *out, int32_t n) {
    const float *up = gate + n, *up_bias = bias ? bias + n : NULL;
    EACH_LANES(n, lanes_store(out + i, gated(load_biased(gate, bias, i, LANES), load_biased(up, up_bias, i, LANES))),
               lanes_store_part(out + i, gated(load_biased(gate, bias, i, count), load_biased(up, up_bias, i, count)),
                                count));
}

/* Phases ------------------------------------------------------------------------------------- */

/* What a loop is about. */
typedef struct {
    const job_t *job;
    const layer_t *layer;
    const weight_t *weight;
    float *y;
    int32_t num_rows;
} loop_t;

/* Work on rows [first, end), each on its own. */
static void each_row(const job_t *job, const layer_t *layer, int32_t num_rows, work_t *work) {
    loop_t loop = {.job = job, .layer = layer};
    int32_t grain = at_least(num_rows / (PIECES_PER_THREAD * pool_num_threads(job->pool)), FEW_ROWS);
    pool_share(job->pool, num_rows, grain, work, &loop);
}

static void multiply_tiles(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    (void)thread;
    linear_multiply(loop->weight, loop->job->prepared, loop->y, loop->weight->n, loop->num_rows, first, end);
}

static void multiply(const job_t *job, const weight_t *weight, float *y, int32_t num_rows) {
    loop_t loop = {.job = job, .weight = weight, .y = y, .num_rows = num_rows};
    int32_t total = count_tiles(weight->n, COLUMN_TILE);
    int32_t grain = count_tiles(count_tiles(total, PIECES_PER_THREAD * pool_num_threads(job->pool)), 4) * 4;
    pool_share(job->pool, total, grain, multiply_tiles, &loop);
}

static void embed_row(const job_t *job, int32_t row) {
    int32_t hidden = job->model->hidden_size;
    const uint16_t *from = job->model->embedding + (int64_t)job->token_ids[row] * hidden;
    float *x = job->x + (int64_t)row * hidden;
    for (int32_t i = 0; i < hidden; i++) {
        uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(x + i, &bits, sizeof bits);
    }
}

/* Sines and cosines of a row's position. */
static void turn_row(const job_t *job, int32_t row) {
    int32_t half = job->model->head_dim / 2;
    const chunk_t *chunk = &job->chunks[job->chunk_of_row[row]];
    float position = (float)(chunk->start + row - chunk->first_row);
    float *cosine = job->cosine + (int64_t)row * half, *sine = job->sine + (int64_t)row * half;
    for (int32_t i = 0; i < half; i++)
        sine_cosine((double)(position * job->model->frequencies[i]), sine + i, cosine + i);
}

static void norm_and_prepare(const job_t *job, const float *weight, int32_t kind, int32_t first, int32_t end) {
    int32_t hidden = job->model->hidden_size;
    for (int32_t row = first; row < end; row++)
        norm_row(job->x + (int64_t)row * hidden, weight, job->normed + (int64_t)row * hidden, hidden,
                 job->model->rms_norm_eps);
    linear_prepare(kind, hidden, job->normed, job->prepared, first, end);
}

static void add_rows(const job_t *job, const float *bias, int32_t first, int32_t end) {
    int64_t hidden = job->model->hidden_size;
    for (int32_t row = first; row < end; row++)
        add_row(job->x + row * hidden, job->y + row * hidden, bias, (int32_t)hidden);
}

static void enter_first_layer(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    (void)thread;
    for (int32_t row = first; row < end; row++) embed_row(loop->job, row), turn_row(loop->job, row);
    norm_and_prepare(loop->job, loop->layer->attention_norm, loop->layer->qkv.kind, first, end);
}

/* What is added came from the layer before. */
static void enter_layer(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    (void)thread;
    add_rows(loop->job, loop->layer[-1].down_bias, first, end);
    norm_and_prepare(loop->job, loop->layer->attention_norm, loop->layer->qkv.kind, first, end);
}

static void enter_mlp(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    (void)thread;
    add_rows(loop->job, loop->layer->out_bias, first, end);
    norm_and_prepare(loop->job, loop->layer->mlp_norm, loop->layer->gate_up.kind, first, end);
}

static void prepare_out(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    (void)thread;
    linear_prepare(loop->layer->out.kind, loop->layer->out.k, loop->job->attended, loop->job->prepared, first, end);
}

static void prepare_down(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    const job_t *job = loop->job;
    int64_t n = job->model->intermediate_size;
    (void)thread;
    for (int32_t row = first; row < end; row++)
        gate_row(job->gate_up + row * 2 * n, loop->layer->gate_up_bias, job->inner + row * n, (int32_t)n);
    linear_prepare(loop->layer->down.kind, (int32_t)n, job->inner, job->prepared, first, end);
}

INLINE int32_t padded_dim(const model_t *model) { return count_tiles(model->head_dim, LANES) * LANES; }

/* Room for the scores of a row: two tiles are taken at a time, and a vector may end behind them. An odd
 * number of lines, so that neighbouring rows do not fall into the same cache set. */
INLINE int64_t score_stride(const job_t *job) { return (int64_t)((job->max_tiles + 2) | 1) * KEY_TILE; }

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
}

static void shape_keys(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    for (int32_t row = first; row < end; row++)
        for (int32_t head = 0; head < loop->job->model->num_kv_heads; head++)
            shape_key(loop->job, loop->layer, row, head, &loop->job->scratch[thread]);
}

/* Tiles [first, end) of a sequence's keys and values. Slots of the last from `end_key` on hold what another
 * sequence may have left, of which even zero times infinity would be seen: a copy has zeros there. */
static void find_tiles(const job_t *job, const layer_t *layer, const item_t *item, int32_t first, int32_t end_key,
                       scratch_t *scratch) {
    const chunk_t *chunk = &job->chunks[item->chunk];
    int32_t end = count_tiles(end_key, KEY_TILE), used = end_key % KEY_TILE;
    for (int32_t tile = first; tile < end; tile++) {
        uint16_t *keys, *values;
        locate_tile(job->model, layer, chunk, item->kv_head, tile, &keys, &values);
        scratch->keys[tile] = keys, scratch->values[tile] = values;
    }
    if (!used) return;
    const uint16_t *values = scratch->values[end - 1];
    scratch->values[end - 1] = scratch->last_values;
    memcpy(scratch->last_values, values, (size_t)padded_dim(job->model) * KEY_TILE * sizeof *values);
    for (int32_t column = 0; column < padded_dim(job->model) / LANES; column++) {
        uint16_t *unused = scratch->last_values + (column * KEY_TILE + used / 2 * 2) * LANES;
        if (used % 2) {
            for (int32_t d = 0; d < LANES; d++) unused[2 * d + 1] = 0;
            unused += 2 * LANES;
        }
        memset(unused, 0, (size_t)((KEY_TILE - used) / 2 * 2 * LANES) * sizeof *unused);
    }
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
                           scratch_t *scratch) {
    int32_t D = job->model->head_dim;
    for (int32_t r = 0; r < padded_rows(group->num_rows); r++) {
        query_t query = query_at(job, item, first + (r < group->num_rows ? r : 0));
        shape_head(job, layer, query.row, query.head, layer->q_norm, scratch->head, scratch->q + r * D);
        group->first_key[r] = layer->window ? at_least(query.position - layer->window + 1, 0) : 0;
        group->end_key[r] = query.position + 1;
    }
    tiles_t tiles = {scratch->keys, scratch->values};
    group->origin = group->first_key[0] / (2 * KEY_TILE) * (2 * KEY_TILE);
    attend_group(group, &tiles);
    for (int32_t r = 0; r < group->num_rows; r++) {
        query_t query = query_at(job, item, first + r);
        share_row(scratch->out + (int64_t)r * padded_dim(job->model), 1.0f / group->sums[r],
                  job->attended + (int64_t)query.row * layer->out.k + query.head * D, D);
    }
}

static void attend_item(const job_t *job, const layer_t *layer, const item_t *item, scratch_t *scratch) {
    const model_t *model = job->model;
    int32_t num_rows = (item->end - item->first) * (model->num_heads / model->num_kv_heads);
    int32_t start = job->chunks[item->chunk].start;
    int32_t first_key = layer->window ? at_least(start + item->first - layer->window + 1, 0) : 0;
    find_tiles(job, layer, item, first_key / KEY_TILE, start + item->end, scratch);
    row_group_t group = {.q = scratch->q, .scale = LOG2_E / __builtin_sqrtf((float)model->head_dim),
                         .head_dim = model->head_dim, .num_columns = padded_dim(model) / LANES,
                         .scores = scratch->scores, .weights = scratch->weights, .stride = score_stride(job),
                         .out = scratch->out};
    for (int32_t first = 0; first < num_rows; first += group.num_rows) {
        group.num_rows = num_rows - first < ROW_GROUP ? num_rows - first : ROW_GROUP;
        int32_t next = first + group.num_rows, next_end = next + ROW_GROUP < num_rows ? next + ROW_GROUP : num_rows;
        fetch_queries(job, layer, item, next, next_end);
        attend_queries(job, layer, item, first, &group, scratch);
    }
}

static void attend_items(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    const job_t *job = loop->job;
    for (int32_t i = first; i < end; i++) {
        const item_t *item = &job->items[i];
        scratch_t *scratch = &job->scratch[thread];
        if (job->is_decode) shape_key(job, loop->layer, job->chunks[item->chunk].first_row, item->kv_head, scratch);
        attend_item(job, loop->layer, item, scratch);
    }
}

static void attend(const job_t *job, const layer_t *layer) {
    loop_t loop = {.job = job, .layer = layer};
    if (!job->is_decode) each_row(job, layer, job->num_tokens, shape_keys);
    pool_share(job->pool, job->num_items, 1, attend_items, &loop);
}

/* The last layer's output added and normed, for one row. */
static void finish_row(const job_t *job, int32_t row, float *out) {
    const model_t *model = job->model;
    int64_t hidden = model->hidden_size;
    memcpy(out, job->x + row * hidden, (size_t)hidden * sizeof *out);
    add_row(out, job->y + row * hidden, model->layers[model->num_layers - 1].down_bias, (int32_t)hidden);
    norm_row(out, model->final_norm, out, (int32_t)hidden, model->rms_norm_eps);
}

/* Exact, so that it does not matter how a prompt was cut: multiples of 2^-26 below 2^27. */
static void pool_chunk(const job_t *job, const chunk_t *chunk, double *sums) {
    int32_t hidden = job->model->hidden_size;
    float *out = job->normed + (int64_t)chunk->first_row * hidden;
    memset(sums, 0, (size_t)hidden * sizeof *sums);
    for (int32_t row = 0; row < chunk->length; row++) {
        finish_row(job, chunk->first_row + row, out);
        for (int32_t i = 0; i < hidden; i++)
            sums[i] += __builtin_rint((double)out[i] * POOLING_STEPS) / POOLING_STEPS;
    }
}

static void pool_chunks(void *context, int32_t thread, int32_t first, int32_t end) {
    const job_t *job = ((const loop_t *)context)->job;
    (void)thread;
    for (int32_t i = first; i < end; i++) {
        const chunk_t *chunk = &job->chunks[i];
        if (chunk->is_pooled)
            pool_chunk(job, chunk, job->hidden_sums + (int64_t)chunk->pooled_before * job->model->hidden_size);
    }
}

static void prepare_logits(void *context, int32_t thread, int32_t first, int32_t end) {
    const job_t *job = ((const loop_t *)context)->job;
    int32_t hidden = job->model->hidden_size;
    (void)thread;
    for (int32_t i = first; i < end; i++) finish_row(job, job->logit_rows[i], job->normed + (int64_t)i * hidden);
    linear_prepare(job->model->head.kind, hidden, job->normed, job->prepared, first, end);
}

static void compute(const job_t *job) {
    const model_t *model = job->model;
    for (int32_t i = 0; i < model->num_layers; i++) {
        const layer_t *layer = &model->layers[i];
        each_row(job, layer, job->num_tokens, i ? enter_layer : enter_first_layer);
        multiply(job, &layer->qkv, job->qkv, job->num_tokens);
        attend(job, layer);
        each_row(job, layer, job->num_tokens, prepare_out);
        multiply(job, &layer->out, job->y, job->num_tokens);
        each_row(job, layer, job->num_tokens, enter_mlp);
        multiply(job, &layer->gate_up, job->gate_up, job->num_tokens);
        each_row(job, layer, job->num_tokens, prepare_down);
        multiply(job, &layer->down, job->y, job->num_tokens);
    }
    loop_t pooling = {.job = job};
    if (job->num_pooled) pool_share(job->pool, job->num_chunks, 1, pool_chunks, &pooling);
    if (!job->num_logit_rows) return;
    each_row(job, NULL, job->num_logit_rows, prepare_logits);
    multiply(job, &model->head, job->logits, job->num_logit_rows);
}

/* Setting up ---------------------------------------------------------------------------------- */

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

static size_t prepared_size(const model_t *model) {
    size_t largest = activation_size(model->head.kind, model->head.k);
    for (int32_t i = 0; i < model->num_layers; i++) {
        const layer_t *layer = &model->layers[i];
        const weight_t *weights[] = {&layer->qkv, &layer->out, &layer->gate_up, &layer->down};
        for (int32_t w = 0; w < 4; w++) {
            size_t size = activation_size(weights[w]->kind, weights[w]->k);
            largest = size > largest ? size : largest;
        }
    }
    return largest;
}

/* Pointers into `arena`; the sizes in `job` are known. */
static void lay_out(job_t *job, arena_t *arena, size_t prepared) {
    const model_t *model = job->model;
    const layer_t *layer = model->layers;
    size_t num_rows = (size_t)job->num_tokens, num_threads = (size_t)pool_num_threads(job->pool);
    size_t max_tiles = (size_t)job->max_tiles;
    job->chunks = take(arena, (size_t)job->num_chunks, sizeof *job->chunks);
    job->items = take(arena, (size_t)job->num_items, sizeof *job->items);
    job->chunk_of_row = take(arena, num_rows, sizeof(int32_t));
    job->logit_rows = take(arena, (size_t)job->num_logit_rows, sizeof(int32_t));
    job->cosine = take(arena, num_rows * (size_t)(model->head_dim / 2), sizeof(float));
    job->sine = take(arena, num_rows * (size_t)(model->head_dim / 2), sizeof(float));
    job->qkv = take(arena, num_rows * (size_t)layer->qkv.n, sizeof(float));
    job->attended = take(arena, num_rows * (size_t)layer->out.k, sizeof(float));
    job->gate_up = take(arena, num_rows * (size_t)layer->gate_up.n, sizeof(float));
    job->inner = take(arena, num_rows * (size_t)model->intermediate_size, sizeof(float));
    job->x = take(arena, num_rows * (size_t)model->hidden_size, sizeof(float));
    job->normed = take(arena, num_rows * (size_t)model->hidden_size, sizeof(float));
    job->y = take(arena, num_rows * (size_t)model->hidden_size, sizeof(float));
    job->prepared = take(arena, num_rows, prepared);
    job->scratch = take(arena, num_threads, sizeof *job->scratch);
    for (size_t thread = 0; thread < num_threads; thread++) {
        scratch_t scratch;
        scratch.keys = take(arena, max_tiles, sizeof *scratch.keys);
        scratch.values = take(arena, max_tiles, sizeof *scratch.values);
        scratch.q = take(arena, ROW_GROUP * (size_t)model->head_dim, sizeof(uint16_t));
        scratch.k = take(arena, (size_t)model->head_dim, sizeof(uint16_t));
        scratch.v = take(arena, (size_t)model->head_dim, sizeof(uint16_t));
        scratch.head = take(arena, (size_t)model->head_dim, sizeof(float));
        scratch.weights = take(arena, ROW_GROUP * (size_t)score_stride(job), sizeof(uint16_t));
        scratch.last_values = take(arena, (size_t)padded_dim(model) * KEY_TILE, sizeof(uint16_t));
        scratch.scores = take(arena, ROW_GROUP * (size_t)score_stride(job), sizeof(float));
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

int32_t FORWARD(const model_t *model, pool_t *pool, workspace_t *workspace, const int32_t *batch, float *logits,
                double *hidden_sums);

int32_t FORWARD(const model_t *model, pool_t *pool, workspace_t *workspace, const int32_t *batch, float *logits,
                double *hidden_sums) {
    job_t job = {.model = model, .pool = pool, .logits = logits, .hidden_sums = hidden_sums};
    int32_t error = measure(&job, batch);
    if (error) return error;
    size_t prepared = prepared_size(model);
    arena_t arena = {0};
    lay_out(&job, &arena, prepared);
    arena = (arena_t){workspace_reserve(workspace, arena.used), 0};
    if (!arena.begin) return OUT_OF_MEMORY;
    lay_out(&job, &arena, prepared);
    fill_in(&job, batch);
    uint32_t modes = set_float_modes(DEFAULT_FLOAT_MODES);
    compute(&job);
    set_float_modes(modes);
    return FORWARD_OK;
}
