/* SPDX-License-Identifier: MIT */
/* Buddy allocator over one slab of device-physical memory; see gm_frames.c. */
#ifndef GM_CORE_FRAMES_H
#define GM_CORE_FRAMES_H

#include "hal/gm_env.h"

#define GM_FRAMES_ORDERS 20
#define GM_FRAMES_LEVELS 6 /* of 64 each: more units than a slab can have */
#define GM_FRAMES_RECENT 16

/* A set of chunks of one order, chunk k at unit k << order: a bit per chunk, and a bit per word that is not 0. */
struct gm_frames_set {
	uint64_t *level[GM_FRAMES_LEVELS]; /* [0] the chunks; [l + 1] the words of [l]; [top] is one word */
	uint32_t near;                     /* word of [0] that a chunk was last put in: looked at first */
	uint32_t top;
};

/* Chunks given back last, not merged: units, the last one is taken first. */
struct gm_frames_recent {
	uint32_t n;
	uint32_t unit[GM_FRAMES_RECENT];
};

struct gm_frames {
	struct gm_env *env;
	uint64_t begin;       /* device-physical address of unit 0 */
	uint32_t shift;       /* log2 of the unit */
	uint32_t units;       /* size of the slab */
	uint32_t free_units;
	uint32_t nonempty;    /* bit o: set[o] is not empty */
	struct gm_frames_set set[GM_FRAMES_ORDERS]; /* the free chunks, but for */
	struct gm_frames_recent recent[GM_FRAMES_ORDERS];
	uint64_t *words;      /* what all levels lie in */
	size_t word_count;
};

/* Manage [begin, end) in units of 2^shift bytes; both are multiples of it. SUCCESS, NOMEM, INVAL. */
gm_ret_t gm_frames_init(struct gm_frames *f, struct gm_env *env, uint64_t begin, uint64_t end, uint32_t shift);
void gm_frames_fini(struct gm_frames *f);

/* A chunk of 2^order units, aligned to its size relative to the slab. SUCCESS, NOSPC. */
gm_ret_t gm_frames_alloc(struct gm_frames *f, unsigned order, uint64_t *pa);
/* Give a chunk back, or an aligned part of it: 2^order units that are allocated. */
void gm_frames_free(struct gm_frames *f, uint64_t pa, unsigned order);
/* Merge what was given back last as well: the free chunks are the largest possible. gm_frames_alloc() does it when needed. */
void gm_frames_merge(struct gm_frames *f);

/* Every invariant; NULL or what is wrong. */
const char *gm_frames_check(const struct gm_frames *f);

#endif
