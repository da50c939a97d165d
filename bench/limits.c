/* What this machine can do at most: reading memory in a loop, and multiplying in registers.
 *
 *   limits THREADS BYTES SECONDS
 *
 * prints the bytes a second that THREADS read together, over and over, from BYTES shared out among
 * them, and the operations a second of the best instruction there is for each type of number; a
 * product and its sum are two operations. Each figure is the best of SECONDS cut into windows
 * ("peak") and their median. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_THREADS 256
#define WINDOWS 15

#if defined(__x86_64__)
#include <immintrin.h>
#define TARGET(features) __attribute__((target(features)))
#endif

typedef struct {
    const char *name;
    int (*is_available)(void);
    void (*run)(long rounds); /* each round is OPERATIONS_PER_ROUND(lanes) */
    double operations;        /* a round */
} product_t;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

/* Eight sums at once hide the latency of an addition; the compiler makes vectors of them. */
typedef uint64_t wide_t __attribute__((vector_size(64)));

#if defined(__x86_64__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
static uint64_t read_all(const wide_t *data, size_t count) {
    wide_t sums[8] = {0};
    for (size_t i = 0; i + 8 <= count; i += 8) {
        for (int lane = 0; lane < 8; lane++) {
            sums[lane] ^= data[i + lane];
        }
    }
    for (int lane = 1; lane < 8; lane++) {
        sums[0] ^= sums[lane];
    }
    return sums[0][0] ^ sums[0][7];
}

#if defined(__x86_64__)
/* Twelve accumulators: more than latency times throughput of any of these instructions. Every loop over
 * them is unrolled: addressed by a variable they would lie in memory, and its latency be measured. */
#define ACCUMULATORS 12
#define LOOP(type, zero, step)                                                          \
    type sums[ACCUMULATORS];                                                            \
    _Pragma("GCC unroll 12") for (int i = 0; i < ACCUMULATORS; i++) { sums[i] = zero; } \
    for (long round = 0; round < rounds; round++) {                                     \
        _Pragma("GCC unroll 12") for (int i = 0; i < ACCUMULATORS; i++) {               \
            step;                                                                       \
            __asm__ volatile("" : "+x"(sums[i]));                                       \
        }                                                                               \
    }

static int has_avx512(void) { return __builtin_cpu_supports("avx512f"); }
static int has_vnni(void) { return __builtin_cpu_supports("avx512vnni"); }
static int has_bf16(void) { return __builtin_cpu_supports("avx512bf16"); }
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

TARGET("avx512f") static void fp32_avx512(long rounds) {
    __m512 a = _mm512_set1_ps(1e-9f);
    LOOP(__m512, _mm512_setzero_ps(), sums[i] = _mm512_fmadd_ps(a, a, sums[i]))
}
TARGET("avx512f,avx512bf16") static void bf16_avx512(long rounds) {
    __m512bh a = (__m512bh)_mm512_set1_epi32(0);
    LOOP(__m512, _mm512_setzero_ps(), sums[i] = _mm512_dpbf16_ps(sums[i], a, a))
}
TARGET("avx512f,avx512vnni") static void int8_avx512(long rounds) {
    __m512i a = _mm512_set1_epi32(0x01010101);
    LOOP(__m512i, _mm512_setzero_si512(), sums[i] = _mm512_dpbusd_epi32(sums[i], a, a))
}
TARGET("avx2,fma") static void fp32_avx2(long rounds) {
    __m256 a = _mm256_set1_ps(1e-9f);
    LOOP(__m256, _mm256_setzero_ps(), sums[i] = _mm256_fmadd_ps(a, a, sums[i]))
}

static const product_t PRODUCTS[] = {
    {"int8", has_vnni, int8_avx512, 2.0 * 64 * ACCUMULATORS},
    {"bf16", has_bf16, bf16_avx512, 2.0 * 32 * ACCUMULATORS},
    {"fp32", has_avx512, fp32_avx512, 2.0 * 16 * ACCUMULATORS},
    {"fp32", has_avx2, fp32_avx2, 2.0 * 8 * ACCUMULATORS},
    {NULL, NULL, NULL, 0},
};
#else
static const product_t PRODUCTS[] = {{NULL, NULL, NULL, 0}};
#endif

typedef struct {
    pthread_barrier_t *barrier;
    const product_t *product; /* NULL: read */
    const wide_t *data;
    size_t count;
    double window_s;
    double amounts[WINDOWS]; /* of this thread, a second */
    uint64_t result;
} task_t;

static double work(task_t *task, long rounds) {
    if (task->product) {
        task->product->run(rounds);
        return rounds * task->product->operations;
    }
    for (long round = 0; round < rounds; round++) {
        task->result += read_all(task->data, task->count);
    }
    return (double)rounds * task->count * sizeof(wide_t);
}

static void *run_task(void *argument) {
    task_t *task = argument;
    long rounds = 1; /* so many that looking at the clock costs nothing */
    for (;; rounds *= 2) {
        double began = now();
        work(task, rounds);
        if (now() - began > task->window_s / 20) {
            break;
        }
    }
    for (int window = 0; window < WINDOWS; window++) {
        pthread_barrier_wait(task->barrier);
        double began = now(), amount = 0;
        while (now() - began < task->window_s) {
            amount += work(task, rounds);
        }
        task->amounts[window] = amount / (now() - began);
    }
    return NULL;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const char *name, const product_t *product, const wide_t *data, size_t count, int num_threads,
                    double seconds) {
    pthread_t threads[MAX_THREADS];
    static task_t tasks[MAX_THREADS];
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, num_threads);
    size_t share = count / num_threads;
    for (int i = 0; i < num_threads; i++) {
        tasks[i] = (task_t){
            .barrier = &barrier,
            .product = product,
            .data = data + i * share,
            .count = share,
            .window_s = seconds / WINDOWS,
        };
        pthread_create(&threads[i], NULL, run_task, &tasks[i]);
    }
    double sums[WINDOWS] = {0};
    uint64_t used = 0;
    for (int i = 0; i < num_threads; i++) {
        pthread_join(threads[i], NULL);
        for (int window = 0; window < WINDOWS; window++) {
            sums[window] += tasks[i].amounts[window];
        }
        used += tasks[i].result;
    }
    qsort(sums, WINDOWS, sizeof(double), compare);
    printf("\"%s\": {\"median\": %.4g, \"peak\": %.4g}%s", name, sums[WINDOWS / 2], sums[WINDOWS - 1],
           used == 1 ? " " : "");
    pthread_barrier_destroy(&barrier);
}

int main(int argc, char **argv) {
    int num_threads = argc == 4 ? atoi(argv[1]) : 0;
    size_t size = argc == 4 ? strtoull(argv[2], NULL, 10) : 0;
    double seconds = argc == 4 ? atof(argv[3]) : 0;
    size_t count = size / sizeof(wide_t);
    if (num_threads < 1 || num_threads > MAX_THREADS || seconds <= 0 || count / num_threads < 8) {
        fprintf(stderr, "usage: limits THREADS BYTES SECONDS\n");
        return 2;
    }
    wide_t *data = aligned_alloc(1 << 21, (size + (1 << 21)) & ~(size_t)((1 << 21) - 1));
    if (!data) {
        fprintf(stderr, "limits: no memory for %zu bytes\n", size);
        return 1;
    }
    memset(data, 1, size);
    printf("{");
    measure("read_bytes_per_s", NULL, data, count, num_threads, seconds);
    const char *previous = "";
    for (const product_t *product = PRODUCTS; product->name; product++) {
        if (!strcmp(product->name, previous) || !product->is_available()) {
            continue;
        }
        printf(", ");
        measure(product->name, product, NULL, 0, num_threads, seconds);
        previous = product->name;
    }
    printf("}\n");
    return 0;
}
