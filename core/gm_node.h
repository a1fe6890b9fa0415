/* SPDX-License-Identifier: MIT */
/* The memory of one device: frames, who has them, in which order they were used; see gm_node.c. */
#ifndef GM_CORE_NODE_H
#define GM_CORE_NODE_H

#include <stdatomic.h>

#include <bsd/sys/queue.h>

#include <gmem/policy.h>

#include "core/gm_frames.h"

struct gm_as;
struct gm_block;
struct gm_hal_dev;

#define GM_UNIT_PAGES (GM_UNIT_BYTES / GM_PAGE_BYTES)
#define GM_BLOCK_UNITS (GM_BLOCK_BYTES / GM_UNIT_BYTES)
/* log2 of the units of a whole block */
#define GM_BLOCK_ORDER 5

enum gm_chunk_state {
	GM_CHUNK_FREE,     /* not allocated, or inner unit of a larger chunk */
	GM_CHUNK_BUSY,     /* allocated, belongs to a transaction */
	GM_CHUNK_RESIDENT, /* holds pages of `owner`, on the list */
};

/* A piece of device memory, of 2^order units; one of these exists per unit of the slab. */
struct gm_chunk {
	TAILQ_ENTRY(gm_chunk) lru;
	void *owner;            /* RESIDENT: whose pages: a block or a packed one (gm_pack.h) */
	uint64_t pa;
	uint64_t served_ns;     /* when the device last asked for it */
	uint16_t first;         /* RESIDENT: first page of the block it covers */
	uint8_t order;
	uint8_t state;          /* enum gm_chunk_state */
	uint32_t holds;         /* working sets that hold it: not a victim */
};

struct gm_slab_books {
	struct gm_frames frames;
	struct gm_chunk *chunk; /* [frames.units] */
};

struct gm_node {
	struct gm_env *env;
	struct gm_hal_dev *hal; /* is told what belongs to somebody; NULL: nobody is */
	struct gm_mutex lock;   /* GM_RANK_NODE: everything below */
	struct gm_waitq waitq;  /* woken when frames or reservations become free */
	struct gm_slab_books slab[GM_MAX_SLABS];
	unsigned slabs;
	uint8_t min_order;      /* smallest chunk: the device's granule */
	uint64_t total_units, free_units, reserved_units;
	TAILQ_HEAD(gm_chunk_list, gm_chunk) lru; /* least recently used first */
};

void gm_node_init(struct gm_node *node, struct gm_env *env, uint32_t granule_bytes);
void gm_node_fini(struct gm_node *node);
gm_ret_t gm_node_add_slab(struct gm_node *node, uint64_t begin, uint64_t end);

/* free -> BUSY. NULL when there is no free chunk of this order. */
struct gm_chunk *gm_node_take(struct gm_node *node, unsigned order);
/* chunk[u] for each bit u of `units`, a unit each: all of them, or none (false). */
bool gm_node_take_units(struct gm_node *node, uint32_t units, struct gm_chunk **chunk);
/* any -> free. Nobody reads or writes the frames any more. */
void gm_node_put(struct gm_node *node, struct gm_chunk *chunk);
/* BUSY -> RESIDENT, most recently used. */
void gm_node_settle(struct gm_node *node, struct gm_chunk *chunk, struct gm_block *block, unsigned first);
/*
 * The chunks of unit[], which are resident, belong to `owner` from now on. With `refs` only if that is 1, else nothing
 * is done (false), as whoever picks a victim takes a reference; NULL: in any case.
 */
bool gm_node_set_owner(struct gm_node *node, struct gm_chunk *const *unit, const atomic_uint *refs, void *owner);
/* Now the most recently used. */
void gm_node_touch(struct gm_node *node, struct gm_chunk *chunk);
/* Working sets: chunk[u] for each bit u of `units`. */
void gm_node_hold(struct gm_node *node, struct gm_chunk *const *chunk, uint32_t units);
void gm_node_unhold(struct gm_node *node, struct gm_chunk *const *chunk, uint32_t units);
/* RESIDENT of more than one unit -> RESIDENT chunks of one unit each, in place. */
void gm_node_split(struct gm_node *node, struct gm_chunk *chunk);

/* What to evict. */
struct gm_victim {
	struct gm_block *block; /* with a reference; NULL: it is packed, */
	struct gm_as *as;       /* in this space, which is kept until gm_as_put(), */
	uint64_t va;            /* here */
	unsigned first, end;    /* pages */
};
/* False: nothing can be evicted now. The chunk becomes the most recently used, so the next call picks another. */
bool gm_node_pick(struct gm_node *node, const struct gm_policy *policy, struct gm_victim *victim);

/* Wait until something became free; TIMEDOUT at the deadline. */
gm_ret_t gm_node_wait(struct gm_node *node, uint64_t deadline_ns);

/* Room for working sets: all or nothing. SUCCESS, TIMEDOUT (others hold too much), NOSPC (never fits). */
gm_ret_t gm_node_reserve(struct gm_node *node, uint64_t units, uint64_t deadline_ns);
void gm_node_unreserve(struct gm_node *node, uint64_t units);
void gm_node_room(struct gm_node *node, uint64_t *total_units, uint64_t *free_units, uint64_t *reserved_units);

const char *gm_node_check(struct gm_node *node);

#endif
