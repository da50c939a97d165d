/* Linear layers on any 64-bit Arm. */
#if defined(__aarch64__)
#include <arm_neon.h>

/* Two products of 128 x 127 fit 16 bits. */
static inline int32x4_t int8_quarter(int32x4_t sum, int8x16_t w, int8x16_t x) {
    int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)), high = vmull_high_s8(w, x);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
}

#define VARIANT neon
#define INT8_QUARTER int8_quarter
#include "linear_neon.inc"
#endif
