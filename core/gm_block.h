/* SPDX-License-Identifier: MIT */
/* Page state of one 2 MiB-aligned piece of an address space; see gm_block.c. */
#ifndef GM_CORE_BLOCK_H
#define GM_CORE_BLOCK_H

#include <stdatomic.h>

#include <bsd/sys/queue.h>

#include "core/gm_node.h"
#include "core/gm_zap.h"
#include "hal/gm_mask.h"

struct gm_as;
struct gm_ctx;
struct gm_dev;

/* What a block has in one device's memory. */
struct gm_bnode {
	struct gm_mask resident;
	struct gm_mask dirty;                     /* the staged host frame, if any, is older */
	struct gm_mask copy;                      /* duplicates of pages that are on the host; never resident */
	struct gm_chunk *unit[GM_BLOCK_UNITS];    /* frames of each 64 KiB; a larger chunk stands in all its units */
};

/* What a context has mapped of it. write is a subset of read. */
struct gm_bmap {
	struct gm_mask read, write;
	struct gm_mask unsure; /* a change failed half way: revoked again, or invalidated and mapped anew (gm_plan.c) */
};

/* Pages just served to one side, by slice of time: protected during the slice and the next. */
struct gm_slice {
	uint64_t epoch[2];
	struct gm_mask page[2];
};

/* Since when an access waits for a page, and whose. */
struct gm_wait {
	uint64_t since_ns;
	uint32_t thread_id;
	uint32_t page;
};

/* Pages whose time is kept at once; who comes when all are taken is noted when one is free: late, never early. */
#define GM_BLOCK_WAITS 16

struct gm_block {
	/* What each fault looks at lies together, in few lines: a block is touched anew when its turn comes. */
	struct gm_as *as;
	uint64_t va;
	atomic_uint refs;                         /* without the lock */
	unsigned waits;                           /* how many of wait[] */
	atomic_bool has_node[GM_MAX_DEVS];        /* node[i] is there: read without the lock */
	uint64_t used_ns;                         /* last use, as far as packing and forgetting care: a transaction's end, or opened */
	bool is_doomed;                           /* something is: counted in the space's doomed_blocks */
	bool watched;                             /* the host reports faults and events of its managed pages */
	bool any_dup, any_exclusive;              /* dup, exclusive are not empty: looked at in their stead, as they mostly are */
	bool stores;                              /* ... and pages of it may be protected against stores */
	bool huge;                                /* staged came as one huge page and is still whole */
	bool has_slot;
	bool has_external;                        /* pages are external: counted in the space's mirror.blocks */
	bool relearn;                             /* what the process did while nothing was watched: see gm_lost.c */
	bool touched;                             /* mapped in place since a round of gm_pack_work.c looked last */
	unsigned watching;                        /* transactions that register its pages now */
	unsigned renewed;                         /* how often pages became managed */
	struct gm_mutex lock;                     /* GM_RANK_BLOCK: everything but what says otherwise */
	struct gm_waitq waitq;                    /* woken when pages stop being busy, doomed or held */
	struct gm_bnode *node[GM_MAX_DEVS];       /* by device index; NULL: nothing there */
	struct gm_bmap *map[GM_MAX_CTXS];         /* by context index; NULL: nothing mapped */
	uint32_t backed[GM_MAX_DEVS];             /* bit i: node[]->unit[i] is there; 0 without a node */

	struct gm_mask busy;                      /* in a transaction */
	struct gm_mask edge;                      /* pages only mapped in place */
	struct gm_mask registered;                /* pages that may be watched, managed (still) or not */
	struct gm_mask wanted;                    /* a CPU access waits for it: the worker's job */
	struct gm_mask managed;                   /* pages of a region */
	struct gm_mask host;                      /* resident on the host, at their VA (possibly a hole) */
	struct gm_mask dup;                       /* of those, some device has a duplicate (copy): stores wait (gm_dup.c) */
	struct gm_mask staged;                    /* the host frame is parked in the slot */
	struct gm_mask leaving;                   /* mremap() moved its address: what is here belongs there (gm_remap.c) */
	struct gm_mask doomed;                    /* content given up by the application: drop it */
	uint64_t doomed_ns;                       /* when something last became so */
	struct gm_mask poisoned;                  /* the only copy was lost */
	struct gm_mask failed;                    /* marked so that accesses fail: one waited too long; gone when it is home */
	struct gm_mask exclusive;                 /* somebody asked for it to be one device's alone, and it is (gm_coherence.c) */
	struct gm_mask held;                      /* union over `holds` */
	struct gm_mask kept;                      /* pinned to the host: goes to no device */
	struct gm_mask mirrored;                  /* of managed: adopted on demand, for as long as it is watched (gm_mirror.c) */
	struct gm_mask external;                  /* of edge: in no region, a device has been there */
	uint64_t slot;
	struct gm_slice slice_cpu, slice_dev;
	SLIST_HEAD(, gm_hold) holds;              /* working sets over this block */
	struct gm_zap zap;                        /* what the process gave up lately */

	/* Flags of other locks lie apart from the block's own, which a compiler may read several at once. */
	bool indexed;                             /* (A) */
	/* the worker's queue: (Q) the space's queue lock */
	TAILQ_ENTRY(gm_block) work_link;
	uint64_t not_before_ns;
	bool queued;                              /* see work_link */
	/* with the block's lock */
	struct gm_wait wait[GM_BLOCK_WAITS];
};

/* A bare one, in no index; NULL: no memory. */
struct gm_block *gm_block_new(struct gm_as *as, uint64_t va);

/* Index. What is packed is made a block again (gm_pack.c), for which gm_block_find() and gm_block_next() wait. */
struct gm_block *gm_block_get(struct gm_block *b);
void gm_block_put(struct gm_block *b);
/* With a reference; NULL if no state is kept there. */
struct gm_block *gm_block_find(struct gm_as *as, uint64_t va);
/* As gm_block_find(), for who does not wait for memory: SUCCESS, NOMEM. */
gm_ret_t gm_block_seek(struct gm_as *as, uint64_t va, struct gm_block **out);
/* As gm_block_find(), but NULL also if it is packed. */
struct gm_block *gm_block_find_live(struct gm_as *as, uint64_t va);
/*
 * With its lock in place of a reference; NULL also if it is packed, or the lock is not free at once. A block that is locked or has
 * busy pages stays in the index, so who makes a page busy needs no reference until it is not.
 */
struct gm_block *gm_block_find_locked(struct gm_as *as, uint64_t va);
/*
 * With a reference; opened if it is packed, made from the regions if there is none. SUCCESS, FAULT (no region, and the
 * space mirrors nothing), NOMEM.
 */
gm_ret_t gm_block_obtain(struct gm_as *as, uint64_t va, struct gm_block **out);
/* The next block at or above va and below end, with a reference; NULL at the end. */
struct gm_block *gm_block_next(struct gm_as *as, uint64_t va, uint64_t end);
/* The same for who may fail: one that is packed is opened by the deadline. SUCCESS, NOMEM. */
gm_ret_t gm_block_next_by(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns, struct gm_block **out);
/* Of those that are not packed: nothing waits in the others, is held, dropped, leaving, or lost. */
struct gm_block *gm_block_next_live(struct gm_as *as, uint64_t va, uint64_t end);
/* (A) The first block that meets [va, end) and is not packed, and the one after b; no reference. */
struct gm_block *gm_block_first(struct gm_as *as, uint64_t va, uint64_t end);
struct gm_block *gm_block_after(struct gm_block *b, uint64_t end);
/* The kernel may have yet to drop what the process gave up in it. (block) */
bool gm_block_is_zapped(const struct gm_block *b, uint64_t now_ns);
/* Drop it from the index if nothing distinguishes it from an untracked one; true: done. Takes the space's lock. */
bool gm_block_retire(struct gm_block *b);

/* Teardown: out of the index whatever its state. */
void gm_block_unindex(struct gm_block *b);

/* Made on demand: SUCCESS, NOMEM. No lock is held. */
gm_ret_t gm_block_need_node(struct gm_block *b, unsigned dev);
gm_ret_t gm_block_need_map(struct gm_block *b, unsigned ctx);

/* Below: the block's lock is held. */

/* The device that has the page, or NULL. */
struct gm_dev *gm_block_dev_of(struct gm_block *b, unsigned page);
/* Pages resident in any device, or in one. */
struct gm_mask gm_block_on_devs(const struct gm_block *b);
struct gm_mask gm_block_on_dev(const struct gm_block *b, unsigned dev);
/* Pages that any context, or one, may read. */
struct gm_mask gm_block_mapped(const struct gm_block *b);
struct gm_mask gm_block_mapped_by(const struct gm_block *b, unsigned ctx, uint32_t access);
/* Nothing of it is away, mapped, busy, awaited or held: may be forgotten. Pages without content become holes. */
bool gm_block_all_host(const struct gm_block *b);
/* Content of pages is given up: no copy or mapping of it survives. Those that have none are not concerned. */
void gm_block_doom(struct gm_block *b, const struct gm_mask *pages, uint64_t now_ns);
/* `doomed` has changed. */
void gm_block_count_doomed(struct gm_block *b);
/* The note of an access that waits for a page, made now if there is none. NULL: all notes are taken. */
struct gm_wait *gm_block_wait(struct gm_block *b, unsigned page, uint32_t thread_id, uint64_t now_ns);
/* Only those that are wanted still. */
void gm_block_trim_waits(struct gm_block *b);
/* They are nobody's alone any more. */
static inline void gm_block_share(struct gm_block *b, const struct gm_mask *pages)
{
	if (!b->any_exclusive)
		return;
	b->exclusive = gm_mask_sub(b->exclusive, *pages);
	b->any_exclusive = !gm_mask_empty(&b->exclusive);
}
/* Recompute `held` from `holds`. */
void gm_block_count_holds(struct gm_block *b);

/* Pages were served: protect them for a slice. */
void gm_slice_serve(struct gm_slice *s, uint64_t slice_ns, uint64_t now_ns, const struct gm_mask *pages);
/* Pages still protected. */
struct gm_mask gm_slice_pages(const struct gm_slice *s, uint64_t slice_ns, uint64_t now_ns);

/* Where the frames of a block are: a copy by value, good as long as the pages in question are busy. */
struct gm_frame_map {
	uint64_t unit_pa[GM_BLOCK_UNITS]; /* 0: no frames */
};

/* The frames a block has in a device. */
void gm_block_frames(const struct gm_block *b, unsigned dev, struct gm_frame_map *map);

static inline uint64_t gm_frame_pa(const struct gm_frame_map *map, unsigned page)
{
	return map->unit_pa[page / GM_UNIT_PAGES] + (uint64_t)(page % GM_UNIT_PAGES) * GM_PAGE_BYTES;
}

/* How far from `page` the frames stay side by side, at most to `end`. */
unsigned gm_frame_run(const struct gm_frame_map *map, unsigned page, unsigned end);

/* One working set's hold on pages of a block. */
struct gm_hold {
	SLIST_ENTRY(gm_hold) in_block;
	struct gm_block *block;   /* with a reference */
	struct gm_ws *ws;
	struct gm_mask pages;
	uint32_t units;           /* bit i: holds the chunk of unit i */
};

#endif
