/* SPDX-License-Identifier: MIT */
/* What the host tells: faults and events; the handler; see gm_events.c. */
#ifndef GM_CORE_EVENTS_H
#define GM_CORE_EVENTS_H

#include "core/gm_as.h"

/* Read and serve what is there, without blocking. True if there was something. */
bool gm_events_once(struct gm_as *as);
/* The handler thread: until as->stop. */
void gm_events_thread(void *as);

/*
 * The kernel refused because an event is unread: let the handler read it. Runs
 * the handler itself where there is none (GM_AS_NO_THREADS), else waits for it,
 * a millisecond at most. False: stopping.
 */
bool gm_events_let_run(struct gm_as *as);

/*
 * Around a call that takes pages from their VA, puts them there, or changes how they are watched. It may touch
 * only what is known to belong to the mapping that is watched: no event is
 * unread (the host's check), none is read but not yet handled (this one), and
 * nothing that an event doomed is among the pages (the caller looks in between).
 * False: let the handler run first.
 */
bool gm_events_hold_reader(struct gm_as *as);
void gm_events_release_reader(struct gm_as *as);

/* Every event of what happened before this call is through, and nothing that one gave up waits to be taken apart. */
bool gm_events_settled(struct gm_as *as);
/* Wait for it. SUCCESS, TIMEDOUT. */
gm_ret_t gm_events_settle(struct gm_as *as, uint64_t deadline_ns);

/*
 * Content of [va, end) is given up: no copy of it survives. `unmapped`: nor
 * do its regions. False: no spare region, nothing done; try again later.
 */
bool gm_events_doom(struct gm_as *as, uint64_t va, uint64_t end, bool unmapped);

/*
 * Pages of [va, end), within one block, under which nothing that could be
 * managed is mapped any more: the application unmapped them while nobody
 * watched, so no event told. Their regions go. SUCCESS: there were some, look
 * anew. AGAIN: an event may yet tell otherwise; let it be handled first. FAULT:
 * there are none. NOMEM.
 */
gm_ret_t gm_events_forget_gone(struct gm_as *as, struct gm_block *b, uint64_t va, uint64_t end);

/* Fill what the handler takes from. False: there was nothing to fill, or no memory for it. */
bool gm_events_refill(struct gm_as *as);

#endif
