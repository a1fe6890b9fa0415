/* SPDX-License-Identifier: MIT */
/* Faults of both sides; see gm_fault_block.c, gm_fault_dev.c and gm_fault_cpu.c. */
#ifndef GM_CORE_FAULT_H
#define GM_CORE_FAULT_H

#include "core/gm_txn.h"

/* An access of a device that found no mapping. */
struct gm_fault_ask {
	uint64_t va;     /* host VA of its page */
	uint32_t access; /* GM_READ, GM_WRITE, GM_ATOMIC */
	gm_ret_t ret;    /* out */
};

/*
 * Make pages of one block accessible to a context that is entered (gm_ctx_enter()), each of them named once.
 * Each gets the result that gm_dev_fault() has, and TIMEDOUT also where attempt_ns, which each has for itself, was short.
 */
void gm_fault_block(struct gm_ctx *ctx, struct gm_fault_ask *ask, size_t n, uint64_t attempt_ns);
#define GM_FAULT_ASKS 64 /* at most */

/*
 * A page that stays on the host, is not mapped yet, and has nothing in the way: serve it as gm_fault_block() would.
 * False: it is none of these, or somebody is at its block; nothing was done.
 */
bool gm_fault_edge(struct gm_ctx *ctx, struct gm_fault_ask *ask);

/* What a look at a page tells. */
enum gm_seen {
	GM_SEEN_MAPPED,    /* as asked for */
	GM_SEEN_PLACED,    /* the same, where it is on the host: the device was refused, or others asked for it */
	GM_SEEN_EDGE,      /* stays where it is */
	GM_SEEN_EXTERNAL,  /* the same, of no region (gm_mirror.c) */
	GM_SEEN_ELSEWHERE, /* on another device */
	GM_SEEN_DUP,       /* to be read; some device has a duplicate */
	GM_SEEN_POISONED,
	GM_SEEN_UNMANAGED,
	GM_SEEN_MOVABLE,
};
/* (block) */
enum gm_seen gm_fault_look(const struct gm_ctx *ctx, struct gm_block *b, unsigned page, uint32_t access);
/* (block) Of a page that no device has: at its address, or without content, and not in the slot. */
bool gm_fault_is_home(const struct gm_block *b, unsigned page);
/* One page, whatever is in the way, by itself. *spurious: it was mapped already. */
gm_ret_t gm_fault_one(struct gm_ctx *ctx, struct gm_block *b, const struct gm_fault_ask *ask, uint64_t deadline_ns,
		      bool *spurious);
/*
 * A transaction for the units around the first of these pages, as many as fit (*n); all were movable when looked at.
 * What arrived, or stays there, is mapped as asked.
 */
gm_ret_t gm_fault_bring(struct gm_ctx *ctx, struct gm_block *b, const struct gm_fault_ask *const *ask, size_t *n,
			uint64_t deadline_ns, struct gm_move *m);

/* May the process itself access it so? `vma` is good for all it covers: asked again only beyond it. SUCCESS, FAULT, PERM. */
gm_ret_t gm_fault_rights(struct gm_as *as, uint64_t va, uint32_t access, struct gm_host_vma *vma);

/* The same for all of the granule around it: the device gets what is asked for of all of it. */
gm_ret_t gm_fault_granule_rights(struct gm_ctx *ctx, uint64_t va, uint32_t access, struct gm_host_vma *vma);

/*
 * Map a page that stays on the host in place. The page is not busy. `rights` is what gm_rights_seen() said before they
 * were asked for: AGAIN if they may be others by now. With `hold` it is held by that
 * set from before anybody else can have it. SUCCESS, NOTSUP, others.
 */
gm_ret_t gm_fault_in_place(struct gm_ctx *ctx, struct gm_block *b, unsigned page, uint32_t access, uint64_t rights,
			   uint64_t deadline_ns, struct gm_hold *hold);

/*
 * A fault message: serve it if nothing has to be waited for, else leave it to the worker. Never blocks. False: there is no
 * memory to open the block that is packed, nothing was done.
 */
bool gm_fault_cpu(struct gm_as *as, uint64_t va, bool write, uint32_t thread_id);

/*
 * The same for the thread that faulted, which holds the reader (gm_inthread.c). SUCCESS: the page is there, or was; NODEV: its
 * content is lost; TIMEDOUT: an access to it waited too long; AGAIN: it is in somebody's hands, maybe the worker's, who
 * wakes the block; EXIST: the page is nobody's, or is not what its block says: see what is there.
 */
gm_ret_t gm_fault_cpu_own(struct gm_block *b, unsigned page, uint64_t now_ns);

/*
 * The handler: a page and its unit come home, if they are a few of one device with nothing in the way. True: the page is
 * there; giving it has woken its waiters. False: nothing has changed, or not this page.
 */
bool gm_fault_few(struct gm_block *b, unsigned page, uint32_t bytes, uint64_t now_ns);

/* Worker: what CPU accesses wait for in this block. True: something is left, try again at *again_ns. */
bool gm_fault_cpu_work(struct gm_block *b, uint64_t *again_ns);

#endif
