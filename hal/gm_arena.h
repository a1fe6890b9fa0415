/* SPDX-License-Identifier: MIT */
/*
 * The library's own memory: what the fault handler and the workers touch must
 * not be malloc()'s, because buffers of malloc() may be managed memory, and
 * whoever waits for such a fault may hold malloc()'s lock.
 *
 * Pieces are zeroed and 16-byte aligned; freeing needs the size that was asked
 * for. Any thread may call; no lock of the library is taken. Not to be used
 * in a child after fork() unless nobody was inside at that moment.
 */
#ifndef GM_HAL_ARENA_H
#define GM_HAL_ARENA_H

#include <gmem/lib.h>

/* Larger pieces are mappings of their own. */
#define GM_ARENA_SMALL_MAX_BYTES 32768u

struct gm_arena;

/* NULL when there is no memory. */
struct gm_arena *gm_arena_create(void);

/* Give everything back to the system. Returns the bytes nobody had freed; NULL is allowed. */
size_t gm_arena_destroy(struct gm_arena *arena);

/* NULL when there is no memory. 0 bytes are served as 1. */
void *gm_arena_alloc(struct gm_arena *arena, size_t bytes);

/* `bytes` as given to alloc; NULL is allowed. */
void gm_arena_free(struct gm_arena *arena, void *ptr, size_t bytes);

/* What is allocated now, as asked for. */
size_t gm_arena_live_bytes(struct gm_arena *arena);

/* What is mapped from the system now for pieces, headers included. */
size_t gm_arena_mapped_bytes(struct gm_arena *arena);

/* Does it have va mapped? If not, [*begin, *end) around va is cut to where it has nothing. Looks at each mapping. */
bool gm_arena_has(struct gm_arena *arena, uint64_t va, uint64_t *begin, uint64_t *end);

/* The arena as an allocator table. */
struct gm_allocator gm_arena_allocator(struct gm_arena *arena);

#endif
