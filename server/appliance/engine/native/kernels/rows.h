/* Work on one row of floats. */
#pragma once
#include "lanes.h"

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
    lanes_t power = lanes_min(lanes_mul(gate, lanes_set(-LOG2_E)), lanes_set(126.0f));
    lanes_t below = lanes_add(lanes_set(1.0f), lanes_exp2(power));
    return lanes_mul(lanes_div(gate, below), up);
}

INLINE lanes_t load_biased(const float *x, const float *bias, int32_t i, int count) {
    lanes_t value = count < LANES ? lanes_load_part(x + i, count) : lanes_load(x + i);
    if (!bias) return value;
    return lanes_add(value, count < LANES ? lanes_load_part(bias + i, count) : lanes_load(bias + i));
}

/* silu(gate) * up in place of the gate. */
static void gate_row(float *gate, const float *bias, const float *up, const float *up_bias, int32_t n) {
    EACH_LANES(n, lanes_store(gate + i, gated(load_biased(gate, bias, i, LANES), load_biased(up, up_bias, i, LANES))),
               lanes_store_part(gate + i, gated(load_biased(gate, bias, i, count), load_biased(up, up_bias, i, count)),
                                count));
}
