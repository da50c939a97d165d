/* The forward pass in portable C: slow, and the same bits. */
#define FORWARD forward_scalar
#include "forward_variant.inc"

void attend_group_scalar(row_group_t *group, const tiles_t *tiles) { attend_padded(group, tiles); }
