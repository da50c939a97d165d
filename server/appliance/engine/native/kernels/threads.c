/* The thread pool: idle threads spin briefly, then sleep, and no thread waits for a sleeper. */
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#define MAX_THREADS 256
#define CACHE_LINE 64
#define CLOSED 0x7fffffff /* no loop has as many pieces */
#define SPIN_NS 20000     /* longer than a gap between two loops of one forward pass */
#define AWAKE_NS 100000   /* about the pause between two forward passes; letting others run meanwhile */

struct pool {
    /* Number of the loop << 32 | next piece. The thread that moves it on from one value has that piece,
     * and knows that the loop it read below is still the one. */
    _Alignas(CACHE_LINE) atomic_uint_fast64_t next;
    _Alignas(CACHE_LINE) atomic_int num_done;
    _Alignas(CACHE_LINE) _Atomic(work_t *) work;
    _Atomic(void *) context;
    atomic_int total, grain;
    _Alignas(CACHE_LINE) atomic_int num_sleepers;
    atomic_int is_stopping;
    unsigned wakeups; /* behind the mutex */
    pthread_mutex_t mutex;
    pthread_cond_t woken;
    int32_t num_threads;
    pthread_t threads[MAX_THREADS];
};

typedef struct {
    pool_t *pool;
    int32_t thread;
} worker_t;

static int64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int32_t piece_of(uint_fast64_t next) { return (int32_t)(next & 0x7fffffff); }

static int has_pieces(pool_t *pool) { return piece_of(atomic_load(&pool->next)) < atomic_load(&pool->total); }

/* Take pieces until none is left; returns whether there was one. */
static int work_on(pool_t *pool, int32_t thread) {
    int32_t num_done = 0;
    uint_fast64_t next = atomic_load(&pool->next);
    for (;;) {
        work_t *work = atomic_load_explicit(&pool->work, memory_order_acquire);
        void *context = atomic_load_explicit(&pool->context, memory_order_acquire);
        int32_t total = atomic_load_explicit(&pool->total, memory_order_acquire);
        int32_t grain = atomic_load_explicit(&pool->grain, memory_order_acquire);
        int32_t first = piece_of(next), end = grain < total - first ? first + grain : total;
        if (first >= total) {
            break;
        }
        if (!atomic_compare_exchange_weak(&pool->next, &next, next + (uint_fast64_t)(end - first))) {
            continue;
        }
        work(context, thread, first, end);
        num_done += end - first;
        next = atomic_load(&pool->next);
    }
    /* At once for all of them: the loop cannot be another before they are reported. */
    if (num_done) {
        atomic_fetch_add(&pool->num_done, num_done);
    }
    return num_done > 0;
}

static void sleep_until_woken(pool_t *pool) {
    pthread_mutex_lock(&pool->mutex);
    unsigned before = pool->wakeups;
    atomic_fetch_add(&pool->num_sleepers, 1);
    /* Either this sees the new loop or the caller sees the sleeper. */
    if (has_pieces(pool)) {
        atomic_fetch_sub(&pool->num_sleepers, 1);
    } else {
        while (pool->wakeups == before && !atomic_load(&pool->is_stopping)) {
            pthread_cond_wait(&pool->woken, &pool->mutex);
        }
    }
    pthread_mutex_unlock(&pool->mutex);
}

static void wake_sleepers(pool_t *pool) {
    pthread_mutex_lock(&pool->mutex);
    pool->wakeups++;
    atomic_store(&pool->num_sleepers, 0);
    pthread_cond_broadcast(&pool->woken);
    pthread_mutex_unlock(&pool->mutex);
}

static void wait_for_pieces(pool_t *pool) {
    int64_t since = now_ns();
    for (int turn = 1; !has_pieces(pool) && !atomic_load(&pool->is_stopping); turn++) {
        pause_briefly();
        if (turn % 32) {
            continue;
        }
        int64_t waited = now_ns() - since;
        if (waited > AWAKE_NS) {
            sleep_until_woken(pool);
            return;
        }
        if (waited > SPIN_NS) {
            sched_yield();
        }
    }
}

static void *work_until_stopped(void *argument) {
    worker_t worker = *(worker_t *)argument;
    free(argument);
    set_float_modes(DEFAULT_FLOAT_MODES);
    while (!atomic_load(&worker.pool->is_stopping)) {
        if (!work_on(worker.pool, worker.thread)) {
            wait_for_pieces(worker.pool);
        }
    }
    return NULL;
}

static int start_thread(pool_t *pool, int32_t thread) {
    worker_t *worker = malloc(sizeof *worker);
    if (!worker) {
        return 0;
    }
    *worker = (worker_t){pool, thread};
    if (!pthread_create(&pool->threads[thread], NULL, work_until_stopped, worker)) {
        return 1;
    }
    free(worker);
    return 0;
}

pool_t *pool_create(int32_t num_threads) {
    if (num_threads < 1 || num_threads > MAX_THREADS) {
        return NULL;
    }
    pool_t *pool = aligned_alloc(CACHE_LINE, sizeof *pool);
    if (!pool) {
        return NULL;
    }
    atomic_init(&pool->next, CLOSED);
    atomic_init(&pool->num_done, 0);
    atomic_init(&pool->work, NULL);
    atomic_init(&pool->context, NULL);
    atomic_init(&pool->total, 0);
    atomic_init(&pool->grain, 1);
    atomic_init(&pool->num_sleepers, 0);
    atomic_init(&pool->is_stopping, 0);
    pool->wakeups = 0;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->woken, NULL);
    for (pool->num_threads = 1; pool->num_threads < num_threads; pool->num_threads++) {
        if (!start_thread(pool, pool->num_threads)) {
            pool_destroy(pool);
            return NULL;
        }
    }
    return pool;
}

void pool_destroy(pool_t *pool) {
    atomic_store(&pool->is_stopping, 1);
    wake_sleepers(pool);
    for (int32_t i = 1; i < pool->num_threads; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    pthread_mutex_destroy(&pool->mutex);
    pthread_cond_destroy(&pool->woken);
    free(pool);
}

int32_t pool_num_threads(const pool_t *pool) { return pool->num_threads; }

void pool_share(pool_t *pool, int32_t total, int32_t grain, work_t *work, void *context) {
    if (total <= grain || pool->num_threads == 1) {
        for (int32_t first = 0; first < total; first += grain) {
            work(context, 0, first, grain < total - first ? first + grain : total);
        }
        return;
    }
    uint_fast64_t loop = ((atomic_load(&pool->next) >> 32) + 1) << 32;
    atomic_store(&pool->next, loop | CLOSED); /* before what it is about changes */
    atomic_store_explicit(&pool->work, work, memory_order_release);
    atomic_store_explicit(&pool->context, context, memory_order_release);
    atomic_store_explicit(&pool->total, total, memory_order_release);
    atomic_store_explicit(&pool->grain, grain, memory_order_release);
    atomic_store_explicit(&pool->num_done, 0, memory_order_release);
    atomic_store(&pool->next, loop);
    if (atomic_load(&pool->num_sleepers)) {
        wake_sleepers(pool);
    }
    work_on(pool, 0);
    for (int turn = 1; atomic_load(&pool->num_done) < total; turn++) {
        pause_briefly();
        if (turn % 1024 == 0) {
            sched_yield(); /* a thread has lost its core in the middle of a piece */
        }
    }
}
