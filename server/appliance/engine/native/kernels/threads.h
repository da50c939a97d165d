/* A few threads that share the pieces of one loop at a time. */
#pragma once
#include <stdint.h>
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

/* Sets rounding to nearest and denormals as they are, since another library may have set this thread
 * otherwise. Returns what was set. */
#if defined(__SSE2__)
#define DEFAULT_FLOAT_MODES 0x1f80
#else
#define DEFAULT_FLOAT_MODES 0
#endif
static inline uint32_t set_float_modes(uint32_t modes) {
#if defined(__SSE2__)
    uint32_t before = _mm_getcsr();
    _mm_setcsr(modes);
    return before;
#elif defined(__aarch64__)
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr\n\tmsr fpcr, %1" : "=&r"(before) : "r"((uint64_t)modes) : "memory");
    return (uint32_t)before;
#else
    return modes;
#endif
}

typedef struct pool pool_t;

/* Pieces [first, end) of a loop; `thread` is below the pool's number of threads. */
typedef void work_t(void *context, int32_t thread, int32_t first, int32_t end);

/* The thread that calls pool_share is one of `num_threads`. Null when they cannot be started. */
pool_t *pool_create(int32_t num_threads);
void pool_destroy(pool_t *pool);
int32_t pool_num_threads(const pool_t *pool);

/* Hand out `total` pieces, never more than `grain` at a time, to threads that are free; returns when all
 * are done. One caller at a time. A thread that sleeps or whose core is taken is not waited for, unless it is in
 * the middle of a piece: the caller goes on alone and the others join where it is. */
void pool_share(pool_t *pool, int32_t total, int32_t grain, work_t *work, void *context);
