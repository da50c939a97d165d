/* The forward pass, compiled once for each variant of the lanes: the including file defines FORWARD,
 * the name of its function. */
#include "heads.h"

#define FEW_ROWS 2 /* up to here the calling thread does the norms alone */
#define PIECES_PER_THREAD 8
#define LEAST_INPUTS 2048 /* of a piece, times its tiles of outputs: about a microsecond's work */
#define GATE_COLUMNS 128 /* of a piece: whole groups of what is quantised */
#define ROWS_AT_ONCE 16  /* while they are in the first cache */
#define POOLING_STEPS 0x1p26

/* So many that threads can still share them fairly. */
INLINE int32_t pieces_at_once(const job_t *job, int32_t num_pieces) {
    return at_least(num_pieces / (PIECES_PER_THREAD * pool_num_threads(job->pool)), 1);
}

/* Work on rows [first, end), each on its own. */
static void each_row(const job_t *job, const layer_t *layer, int32_t num_rows, work_t *work) {
    loop_t loop = {.job = job, .layer = layer};
    pool_share(job->pool, num_rows, at_least(pieces_at_once(job, num_rows), FEW_ROWS), work, &loop);
}

/* Tiles of a matrix in pieces that all threads have as many of, neither so small that sharing them costs
 * more than it gains nor so large that a thread that is interrupted is long waited for. */
static void share_tiles(const job_t *job, work_t *work, const loop_t *loop) {
    int32_t total = count_tiles(loop->weight->n, COLUMN_TILE), num_threads = pool_num_threads(job->pool);
    int64_t inputs = (int64_t)loop->weight->k * total * loop->num_rows;
    int64_t worthwhile = inputs / (LEAST_INPUTS * num_threads) + 1;
    int32_t per_thread = worthwhile < PIECES_PER_THREAD ? (int32_t)worthwhile : PIECES_PER_THREAD;
    int32_t whole = loop->num_rows > FEW_ROWS ? 2 : 1;
    int32_t grain = count_tiles(count_tiles(total, per_thread * num_threads), whole) * whole;
    pool_share(job->pool, total, grain < PIECE_TILES ? grain : PIECE_TILES, work, (void *)loop);
}

static void multiply_tiles(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    (void)thread;
    linear_multiply(loop->weight, loop->prepared, loop->y, loop->weight->n, loop->num_rows, first, end);
}

static void multiply(const job_t *job, const weight_t *weight, float *y, int32_t num_rows) {
    loop_t loop = {.job = job, .weight = weight, .prepared = job->prepared, .y = y, .num_rows = num_rows};
    share_tiles(job, multiply_tiles, &loop);
}

/* Columns of a product to the residual stream, while they are in the cache. */
static void add_tiles(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    int32_t n = loop->weight->n, from = first * COLUMN_TILE, columns = (end * COLUMN_TILE < n ? end * COLUMN_TILE : n) - from;
    float *piece = loop->job->scratch[thread].piece;
    linear_multiply(loop->weight, loop->prepared, piece - from, PIECE_STRIDE, loop->num_rows, first, end);
    for (int64_t row = 0; row < loop->num_rows; row++)
        add_row(loop->y + row * n + from, piece + row * PIECE_STRIDE, loop->bias ? loop->bias + from : NULL, columns);
}

static void add_product(const job_t *job, const weight_t *weight, const void *prepared, const float *bias) {
    loop_t loop = {.job = job, .weight = weight, .prepared = prepared, .bias = bias, .y = job->x, .num_rows = job->num_tokens};
    share_tiles(job, add_tiles, &loop);
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

/* Hidden state `from`, normed, to row `to` of what is multiplied. */
static void norm_and_prepare(const job_t *job, int32_t thread, const float *norm, int32_t kind, int32_t from, int32_t to) {
    int32_t hidden = job->model->hidden_size;
    float *normed = job->scratch[thread].normed;
    norm_row(job->x + (int64_t)from * hidden, norm, normed, hidden, job->model->rms_norm_eps);
    linear_prepare_part(kind, hidden, normed, hidden, job->prepared, to, to + 1, 0, hidden);
}

static void enter_attention(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    for (int32_t row = first; row < end; row++) {
        if (loop->layer == loop->job->model->layers) embed_row(loop->job, row), turn_row(loop->job, row);
        norm_and_prepare(loop->job, thread, loop->layer->attention_norm, loop->layer->qkv.kind, row, row);
    }
}

static void enter_mlp(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    for (int32_t row = first; row < end; row++)
        norm_and_prepare(loop->job, thread, loop->layer->mlp_norm, loop->layer->gate_up.kind, row, row);
}

static void prepare_out(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    (void)thread;
    linear_prepare(loop->layer->out.kind, loop->layer->out.k, loop->job->attended, loop->job->prepared, first, end);
}

/* Gates [first, end) with what they open, which stands n below and may begin inside a tile: both
 * multiplied, put together and prepared for the last matrix, while they are in the cache. */
static void open_gates(const loop_t *loop, float *piece, int32_t first, int32_t end) {
    const job_t *job = loop->job;
    const layer_t *layer = loop->layer;
    int32_t n = job->model->intermediate_size, up_tile = (n + first) / COLUMN_TILE;
    const float *bias = layer->gate_up_bias ? layer->gate_up_bias + first : NULL, *up_bias = bias ? bias + n : NULL;
    float *ups = piece + GATE_COLUMNS, *up = ups + (n + first) % COLUMN_TILE;
    linear_multiply(&layer->gate_up, job->prepared, piece - first, PIECE_STRIDE, job->num_tokens, first / COLUMN_TILE,
                    count_tiles(end, COLUMN_TILE));
    linear_multiply(&layer->gate_up, job->prepared, ups - up_tile * COLUMN_TILE, PIECE_STRIDE, job->num_tokens, up_tile,
                    count_tiles(n + end, COLUMN_TILE));
    for (int32_t row = 0, row_end; row < job->num_tokens; row = row_end) {
        row_end = row + ROWS_AT_ONCE < job->num_tokens ? row + ROWS_AT_ONCE : job->num_tokens;
        for (int64_t r = row; r < row_end; r++)
            gate_row(piece + r * PIECE_STRIDE, bias, up + r * PIECE_STRIDE, up_bias, end - first);
        linear_prepare_part(layer->down.kind, n, piece + (int64_t)row * PIECE_STRIDE, PIECE_STRIDE, job->prepared_inner,
                            row, row_end, first, end);
    }
}

static void open_pieces(void *context, int32_t thread, int32_t first, int32_t end) {
    const loop_t *loop = context;
    int32_t n = loop->job->model->intermediate_size;
    for (int32_t piece = first; piece < end; piece++) {
        int32_t column = piece * GATE_COLUMNS, left = n - column;
        open_gates(loop, loop->job->scratch[thread].piece, column, column + (left < GATE_COLUMNS ? left : GATE_COLUMNS));
    }
}

/* Exact, so that it does not matter how a prompt was cut: multiples of 2^-26 below 2^27. */
static void pool_chunk(const job_t *job, const chunk_t *chunk, float *normed, double *sums) {
    const model_t *model = job->model;
    int32_t hidden = model->hidden_size;
    memset(sums, 0, (size_t)hidden * sizeof *sums);
    for (int32_t row = chunk->first_row; row < chunk->first_row + chunk->length; row++) {
        norm_row(job->x + (int64_t)row * hidden, model->final_norm, normed, hidden, model->rms_norm_eps);
        for (int32_t i = 0; i < hidden; i++)
            sums[i] += __builtin_rint((double)normed[i] * POOLING_STEPS) / POOLING_STEPS;
    }
}

static void pool_chunks(void *context, int32_t thread, int32_t first, int32_t end) {
    const job_t *job = ((const loop_t *)context)->job;
    for (int32_t i = first; i < end; i++) {
        const chunk_t *chunk = &job->chunks[i];
        if (chunk->is_pooled)
            pool_chunk(job, chunk, job->scratch[thread].normed,
                       job->hidden_sums + (int64_t)chunk->pooled_before * job->model->hidden_size);
    }
}

static void prepare_logits(void *context, int32_t thread, int32_t first, int32_t end) {
    const job_t *job = ((const loop_t *)context)->job;
    for (int32_t i = first; i < end; i++)
        norm_and_prepare(job, thread, job->model->final_norm, job->model->head.kind, job->logit_rows[i], i);
}

static void compute_layer(const job_t *job, const layer_t *layer) {
    loop_t loop = {.job = job, .layer = layer};
    each_row(job, layer, job->num_tokens, enter_attention);
    multiply(job, &layer->qkv, job->qkv, job->num_tokens);
    if (!job->is_decode) each_row(job, layer, job->num_tokens, shape_keys);
    pool_share(job->pool, job->num_items, pieces_at_once(job, job->num_items), attend_items, &loop);
    each_row(job, layer, job->num_tokens, prepare_out);
    add_product(job, &layer->out, job->prepared, layer->out_bias);
    each_row(job, layer, job->num_tokens, enter_mlp);
    pool_share(job->pool, count_tiles(job->model->intermediate_size, GATE_COLUMNS), 1, open_pieces, &loop);
    add_product(job, &layer->down, job->prepared_inner, layer->down_bias);
}

static void compute(const job_t *job) {
    const model_t *model = job->model;
    for (int32_t i = 0; i < model->num_layers; i++) compute_layer(job, &model->layers[i]);
    loop_t pooling = {.job = job};
    if (job->num_pooled) pool_share(job->pool, job->num_chunks, 1, pool_chunks, &pooling);
    if (!job->num_logit_rows) return;
    each_row(job, NULL, job->num_logit_rows, prepare_logits);
    multiply(job, &model->head, job->logits, job->num_logit_rows);
}

int32_t FORWARD(const model_t *model, pool_t *pool, workspace_t *workspace, const int32_t *batch, float *logits,
                double *hidden_sums);

int32_t FORWARD(const model_t *model, pool_t *pool, workspace_t *workspace, const int32_t *batch, float *logits,
                double *hidden_sums) {
    job_t job = {.model = model, .pool = pool, .logits = logits, .hidden_sums = hidden_sums};
    int32_t error = measure(&job, batch);
    if (error) return error;
    prepared_size_t prepared = prepared_size(model);
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
