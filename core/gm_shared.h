/* SPDX-License-Identifier: MIT */
/* Shared memory; see gm_shared.c. */
#ifndef GM_CORE_SHARED_H
#define GM_CORE_SHARED_H

#include "core/gm_as.h"

/* (A) Until nobody exports shared memory. SUCCESS, TIMEDOUT. */
gm_ret_t gm_shared_wait(struct gm_as *as, uint64_t deadline_ns);
/* Is any of [va, end) shared memory that moves? A child must not inherit it. */
bool gm_shared_moves(struct gm_as *as, uint64_t va, uint64_t end);
/*
 * No block of this shared memory, if it moves, has a slot any more. It is new: a block may have one that served other
 * memory at this address, and what is shared waits in its alias. Or it is about to be unmapped, and the alias with it.
 * SUCCESS; NOMEM: in use still when the time was over, or by pages that go elsewhere; some blocks have theirs.
 */
gm_ret_t gm_shared_drop_slots(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns);
/* Its edges, on or off, in blocks that are there. What is on is nothing else. */
void gm_shared_set_edges(struct gm_as *as, uint64_t va, uint64_t end, bool on);
/* Its mappings in place are revoked. SUCCESS; BUSY (held), TIMEDOUT, NOMEM. */
gm_ret_t gm_shared_unmap_devices(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns);

#endif
