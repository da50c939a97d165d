/* What does not differ between variants: working memory, the size of the cache, packing. */
#include "forward.h"

#include <stdlib.h>
#include <sys/mman.h>

#define HUGE_PAGE (2u << 20)

struct workspace {
    void *space;
    size_t size;
};

workspace_t *workspace_create(void) { return calloc(1, sizeof(workspace_t)); }

void workspace_destroy(workspace_t *workspace) {
    free(workspace->space);
    free(workspace);
}

void *workspace_reserve(workspace_t *workspace, size_t size) {
    if (size <= workspace->size) {
        return workspace->space;
    }
    free(workspace->space);
    workspace->size = 0;
    size = (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    workspace->space = aligned_alloc(HUGE_PAGE, size);
#ifdef MADV_HUGEPAGE /* neighbouring rows of an output are in different small pages */
    if (workspace->space) {
        madvise(workspace->space, size, MADV_HUGEPAGE);
    }
#endif
    if (workspace->space) {
        workspace->size = size;
    }
    return workspace->space;
}

size_t cache_size(const model_t *model) {
    size_t value_dim = ((size_t)model->head_dim + KEY_TILE - 1) / KEY_TILE * KEY_TILE;
    size_t slots = (size_t)model->num_blocks * model->block_size * model->num_kv_heads;
    return (size_t)model->num_layers * slots * (model->head_dim + value_dim) * sizeof(uint16_t);
}

typedef struct {
    const weight_t *weight;
    void *packed;
    const uint16_t *bf16;
} packing_t;

static void pack_tiles(void *context, int32_t thread, int32_t first, int32_t end) {
    packing_t *packing = context;
    (void)thread;
    weight_pack(packing->weight, packing->packed, packing->bf16, first, end);
}

void pack_weight(pool_t *pool, const weight_t *weight, void *packed, const uint16_t *bf16) {
    packing_t packing = {weight, packed, bf16};
    pool_share(pool, (weight->n + COLUMN_TILE - 1) / COLUMN_TILE, 4, pack_tiles, &packing);
}
