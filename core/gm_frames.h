/* SPDX-License-Identifier: MIT */
/* Buddy allocator over one slab of device-physical memory; see gm_frames.c. */
#ifndef GM_CORE_FRAMES_H
#define GM_CORE_FRAMES_H

#include "hal/gm_env.h"

#define GM_FRAMES_ORDERS 20

struct gm_frames {
	struct gm_env *env;
	uint64_t begin;       /* device-physical address of unit 0 */
	uint32_t shift;       /* log2 of the unit */
	uint32_t units;       /* size of the slab */
	uint32_t free_units;
	uint32_t nonempty;    /* bit o: free list of order o is not empty */
	uint32_t head[GM_FRAMES_ORDERS];
	uint32_t *next, *prev; /* [units]: free list links of the first unit of a free chunk */
	uint8_t *state;        /* [units]: see gm_frames.c */
};

/* Manage [begin, end) in units of 2^shift bytes; both are multiples of it. SUCCESS, NOMEM, INVAL. */
gm_ret_t gm_frames_init(struct gm_frames *f, struct gm_env *env, uint64_t begin, uint64_t end, uint32_t shift);
void gm_frames_fini(struct gm_frames *f);

/* A chunk of 2^order units, aligned to its size relative to the slab. SUCCESS, NOSPC. */
gm_ret_t gm_frames_alloc(struct gm_frames *f, unsigned order, uint64_t *pa);
/* Give a chunk back, with the order it was allocated (or split to). */
void gm_frames_free(struct gm_frames *f, uint64_t pa, unsigned order);
/* Turn an allocated chunk into allocated chunks of a smaller order. */
void gm_frames_split(struct gm_frames *f, uint64_t pa, unsigned order, unsigned to_order);

/* Every invariant; NULL or what is wrong. */
const char *gm_frames_check(const struct gm_frames *f);

#endif
