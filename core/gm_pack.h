/* SPDX-License-Identifier: MIT */
/* Blocks that nothing happens to, in few bytes; see gm_pack.c. */
#ifndef GM_CORE_PACK_H
#define GM_CORE_PACK_H

#include "core/gm_block.h"

/* A block that is not used for so long is packed. */
#define GM_PACK_IDLE_NS (UINT64_C(1000) * 1000 * 1000)

/* The masks of a block, its node and its map that may be other than none. */
enum gm_pack_mask {
	GM_PACK_MANAGED,
	GM_PACK_HOST,
	GM_PACK_STAGED,
	GM_PACK_REGISTERED,
	GM_PACK_EDGE,
	GM_PACK_MIRRORED,
	GM_PACK_RESIDENT,
	GM_PACK_DIRTY,
	GM_PACK_READ,
	GM_PACK_WRITE,
	GM_PACK_MASKS,
};

/* What a mask is: a code of 3 bits; that of mask i is at bit 3 * i of `codes`. */
#define GM_PACK_NONE 0u
#define GM_PACK_FULL 1u
#define GM_PACK_FIRST_OTHER 2u /* mask[0], and so on */
#define GM_PACK_CODE_BITS 3
#define GM_PACK_MAX_OTHERS ((1u << GM_PACK_CODE_BITS) - GM_PACK_FIRST_OTHER)

#define GM_PACK_WATCHED 0x01u
#define GM_PACK_HUGE 0x02u
#define GM_PACK_HAS_SLOT 0x04u
#define GM_PACK_NODE 0x08u  /* frames are in device `dev`: one chunk for all, */
#define GM_PACK_UNITS 0x10u /* or some for units */
#define GM_PACK_MAP 0x20u   /* context `ctx` maps some */

struct gm_packed {
	struct gm_as *as;
	uint64_t va;
	uint64_t slot;
	struct gm_chunk *chunk;
	uint32_t codes;
	uint8_t dev, ctx;
	uint8_t flags;
	uint8_t masks;         /* so many in: */
	struct gm_mask mask[]; /* and behind them, with UNITS: struct gm_chunk *[GM_BLOCK_UNITS] */
};

/* What the index and a chunk point to: a block, or, with bit 0 set, a packed one. */
static inline struct gm_packed *gm_packed_of(const void *entry)
{
	return (uintptr_t)entry & 1 ? (struct gm_packed *)((uintptr_t)entry - 1) : NULL;
}

static inline void *gm_packed_entry(const struct gm_packed *p)
{
	return (void *)((uintptr_t)p + 1);
}

/* NULL: it has none. */
static inline struct gm_chunk **gm_packed_units(const struct gm_packed *p)
{
	return p->flags & GM_PACK_UNITS ? (struct gm_chunk **)(uintptr_t)&p->mask[p->masks] : NULL;
}

/* A space's own. */
struct gm_pack {
	atomic_uint count;            /* (A), read without it: packed blocks */
	atomic_bool stirred;          /* something became, or may become, fit to be packed */
	/* the worker's own */
	uint64_t due_ns;              /* when the next round begins, or goes on; 0: none is under way */
	uint64_t next_va;             /* where it goes on */
	bool again;                   /* it saw blocks whose time will come */
	uint64_t idle_ns;             /* GM_PACK_IDLE_NS; tests have less patience */
};

/*
 * The block of va, with a reference, made from its packed form if it is packed. *out NULL: there is none. SUCCESS,
 * NOMEM. No lock is held.
 */
gm_ret_t gm_pack_open(struct gm_as *as, uint64_t va, struct gm_block **out);
/* The same, and it waits for memory until the deadline. */
gm_ret_t gm_pack_open_by(struct gm_as *as, uint64_t va, uint64_t deadline_ns, struct gm_block **out);
/* ... without end. */
struct gm_block *gm_pack_open_sure(struct gm_as *as, uint64_t va);
/* Nothing of [va, end) is packed afterwards, for a while: what comes next need not wait. SUCCESS, NOMEM. */
gm_ret_t gm_pack_open_range(struct gm_as *as, uint64_t va, uint64_t end);
/* What it says, written into three that are fresh. To look only: they may be on the stack, and nobody else may see them. */
void gm_pack_unpack(const struct gm_packed *p, struct gm_block *b, struct gm_bnode *n, struct gm_bmap *m);
/* (A) Every invariant of a packed block; NULL or what is wrong. */
const char *gm_pack_check(const struct gm_packed *p);

/* Of block, node and map, each may be NULL where the mask lies in another; NULL then. */
struct gm_mask *gm_pack_mask(struct gm_block *b, struct gm_bnode *n, struct gm_bmap *m, enum gm_pack_mask which);
/* How large it is, or would be. */
size_t gm_pack_bytes(const struct gm_packed *p);

/* (node) The space of a packed victim does not go until gm_as_put(). */
void gm_as_get(struct gm_as *as);
void gm_as_put(struct gm_as *as);

/* The worker's: pack what is fit, some of it. Returns when there will be more to do, UINT64_MAX: not by itself. */
uint64_t gm_pack_work(struct gm_as *as);
/* The worker must not go to sleep for ever. */
bool gm_pack_wants(const struct gm_as *as);
/* A block was used: in a while it may be fit. */
void gm_pack_stirred(struct gm_as *as);

#endif
