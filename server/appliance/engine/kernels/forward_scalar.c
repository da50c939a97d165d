/* The forward pass in portable C: slow, and the same bits. */
#define FORWARD forward_scalar
#include "forward_variant.h"
