/* SPDX-License-Identifier: MIT */
/* Rows of shared.h: see api_rows.h. */

/* --- shared.h --- */
HANDLE(gm_alloc_shared, as, AS, gm_alloc_shared(H, BLOCK, 0, OUT(void *)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_alloc_shared, null, "ptr", gm_alloc_shared(e->as, BLOCK, 0, NULL), GM_RET_INVAL)
ROW(gm_alloc_shared, empty, "nothing", gm_alloc_shared(e->as, 0, 0, OUT(void *)), GM_RET_INVAL)
ROW(gm_alloc_shared, overflow, "all there is", gm_alloc_shared(e->as, UINT64_MAX, 0, OUT(void *)), GM_RET_INVAL)
ROW(gm_alloc_shared, overflow, "when rounded", gm_alloc_shared(e->as, UINT64_MAX - BLOCK + 2, 0, OUT(void *)), GM_RET_INVAL)
ROW(gm_alloc_shared, flag, "one of gm_alloc()", gm_alloc_shared(e->as, BLOCK, GM_MEM_NO_HUGE, OUT(void *)), GM_RET_INVAL)
HANDLE(gm_shared_fd, as, AS, gm_shared_fd(H, (void *)(uintptr_t)e->va, OUT(int)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_shared_fd, null, "ptr", gm_shared_fd(e->as, NULL, OUT(int)), GM_RET_INVAL)
ROW(gm_shared_fd, null, "fd", gm_shared_fd(e->as, (void *)(uintptr_t)e->va, NULL), GM_RET_INVAL)
ROW(gm_shared_fd, state, "private memory", gm_shared_fd(e->as, (void *)(uintptr_t)e->va, OUT(int)), GM_RET_NOENT)
ROW(gm_shared_fd, state, "not managed", gm_shared_fd(e->as, (void *)(uintptr_t)e->fresh, OUT(int)), GM_RET_NOENT)
HANDLE(gm_map_shared, as, AS, gm_map_shared(H, 0, 0, PAGE, 0, OUT(void *)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_map_shared, null, "ptr", gm_map_shared(e->as, 0, 0, PAGE, 0, NULL), GM_RET_INVAL)
ROW(gm_map_shared, value, "no descriptor", gm_map_shared(e->as, -1, 0, PAGE, 0, OUT(void *)), GM_RET_INVAL)
ROW(gm_map_shared, unaligned, "offset", gm_map_shared(e->as, 0, 1, PAGE, 0, OUT(void *)), GM_RET_INVAL)
ROW(gm_map_shared, empty, "nothing", gm_map_shared(e->as, 0, 0, 0, 0, OUT(void *)), GM_RET_INVAL)
ROW(gm_map_shared, overflow, "all there is", gm_map_shared(e->as, 0, 0, UINT64_MAX, 0, OUT(void *)), GM_RET_INVAL)
ROW(gm_map_shared, overflow, "offset", gm_map_shared(e->as, 0, UINT64_MAX & ~(PAGE - 1), PAGE, 0, OUT(void *)), GM_RET_INVAL)
ROW(gm_map_shared, flag, "unknown", gm_map_shared(e->as, 0, 0, PAGE, 1, OUT(void *)), GM_RET_INVAL)
