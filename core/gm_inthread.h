/* SPDX-License-Identifier: MIT */
/* Faults that the thread which faulted serves itself; see gm_inthread.c. */
#ifndef GM_CORE_INTHREAD_H
#define GM_CORE_INTHREAD_H

#include <bsd/sys/queue.h>
#include <stdatomic.h>

#include "hal/gm_env.h"

struct gm_as;
struct gm_block;
struct gm_mask;

/* A fault that only the handler may serve; in the stack of who waits for it. */
struct gm_inthread_ask {
	STAILQ_ENTRY(gm_inthread_ask) link; /* (A), while it is queued */
	uint64_t va;
	enum { GM_ASK_QUEUED, GM_ASK_TAKEN, GM_ASK_DONE } state; /* (A) */
};

#define GM_INTHREAD_ENDED 32

struct gm_inthread_asks {
	STAILQ_HEAD(, gm_inthread_ask) queue; /* (A) */
	atomic_uint n;                        /* in it; changed under (A) */
	atomic_bool used;                     /* there was such memory; for ever */
	unsigned next;                        /* (A) of the following, in turn */
	struct {
		uint64_t va, end, until_ns;
	} ended[GM_INTHREAD_ENDED];           /* (A) it is no such memory any more, but a signal may come late */
};

void gm_inthread_init(struct gm_as *as);
/* The handler: what was asked of it. */
void gm_inthread_answer(struct gm_as *as);

/* Some of [va, end), which is to be managed by the library, is (not) such memory. As mem_inthread(). */
gm_ret_t gm_inthread_mark(struct gm_as *as, uint64_t va, uint64_t end, uint32_t mem_flags);

/* It is given back, or unmapped; said before anybody can see it. Nothing where there never was such memory. */
void gm_inthread_end(struct gm_as *as, uint64_t va, uint64_t end);

/* What is adopted unasked is not, whatever was there before. These pages are busy, and nobody watches them. */
void gm_inthread_forget(struct gm_block *b, const struct gm_mask *pages);

#endif
