/* The forward pass with Arm's 128-bit vectors. */
#if defined(__aarch64__)
#define LANES_NEON
#define FLUSHES_IN_HARDWARE
#define FORWARD forward_neon
#include "forward_variant.inc"
#endif
