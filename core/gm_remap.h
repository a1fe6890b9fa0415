/* SPDX-License-Identifier: MIT */
/* Ranges that mremap() moved; see gm_remap.c, gm_remap_deliver.c. */
#ifndef GM_CORE_REMAP_H
#define GM_CORE_REMAP_H

#include <stdatomic.h>

#include <bsd/sys/queue.h>

#include "core/gm_region.h"
#include "hal/gm_host.h"

struct gm_as;

/* What was managed at [va, end) is at `to` now. */
struct gm_remap {
	TAILQ_ENTRY(gm_remap) link;
	uint64_t va, end, to;
	enum gm_region_kind kind;
	uint64_t noted_ns;
	uint64_t not_before_ns; /* its new place may not be managed earlier */
	bool delivered;         /* no byte of it is under way any more */
	bool doubted;           /* its new place may be gone */
	bool lost;              /* some of it was lost with a device, and has the mark at its new place */
	bool held;              /* a working set keeps some of it: may take as long as the set lives */
	bool failed;            /* accesses that wait for it were made to fail */
	bool tried;             /* in this round of the worker */
};

TAILQ_HEAD(gm_remap_list, gm_remap);

#define GM_REMAP_SPARES 8 /* usual stock */

/* All of one space: (A), nothing in here allocates but gm_remap_stock(). */
struct gm_remaps {
	struct gm_remap_list list, kept, spare; /* kept: what a child is not to inherit, see gm_fork.c */
	unsigned spares;
	atomic_uint count;      /* read without the lock too */
	atomic_uint gen;        /* how often an event changed them */
	bool noting;            /* the handler's: a REMAP that took more than the stock is half done */
	bool working;           /* somebody is in gm_remap_work(): one at a time */
	unsigned releases;      /* how often a working set let pages go */
};

/* One past where it goes. */
static inline uint64_t gm_remap_to_end(const struct gm_remap *e)
{
	return e->to + (e->end - e->va);
}

void gm_remap_init(struct gm_as *as);
void gm_remap_fini(struct gm_as *as);
/* Fill the stock. Allocates; if there is no memory, it stays smaller. */
bool gm_remap_stock(struct gm_as *as);

/* Handler: a REMAP. False: nothing is left of the stock; call again, what was done is not done twice. */
bool gm_remap_note(struct gm_as *as, const struct gm_host_msg *msg);
/* Handler: the content of [va, end) was given up; the range was unmapped, lately or before. False: as above. */
bool gm_remap_empty(struct gm_as *as, uint64_t va, uint64_t end);
bool gm_remap_doubt(struct gm_as *as, uint64_t va, uint64_t end);
/* Handler: bytes are under way to this page. */
bool gm_remap_awaits(struct gm_as *as, uint64_t va);

/* Where the bytes of page va belong now; *run: how many pages that follow go along, at most. False: nowhere any more. */
bool gm_remap_target(struct gm_as *as, uint64_t va, uint64_t *to, uint64_t *run);
/* (A) Is something under way from or to [va, end)? */
bool gm_remap_meets(struct gm_as *as, uint64_t va, uint64_t end);
/* Is something under way that is not kept by a working set? */
bool gm_remap_pending(struct gm_as *as);
/* A working set let pages go: what it kept back goes on, and is waited for again. */
void gm_remap_unheld(struct gm_as *as);
/* Call fn for each range to which bytes are under way; with `held` only where a working set keeps them. */
void gm_remap_each_target(struct gm_as *as, bool held, void (*fn)(struct gm_as *as, uint64_t va, uint64_t bytes));

/* Remember [va, end) wherever it is moved to; until it was taken out again. False: no memory. */
bool gm_remap_keep(struct gm_as *as, uint64_t va, uint64_t end);
/* Where the first of them is now, for gm_remap_forget(); false: there is none. Good while no event is handled. */
bool gm_remap_kept(struct gm_as *as, uint64_t *va, uint64_t *end);
void gm_remap_forget(struct gm_as *as);

/* (A) Out of the list. */
void gm_remap_remove(struct gm_remaps *rs, struct gm_remap *e);

/* Worker: bring along what can be brought now. */
void gm_remap_work(struct gm_as *as);

#endif
