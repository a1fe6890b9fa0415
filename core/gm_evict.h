/* SPDX-License-Identifier: MIT */
/* Room in a device's memory; see gm_evict.c. */
#ifndef GM_CORE_EVICT_H
#define GM_CORE_EVICT_H

#include "core/gm_txn.h"

/*
 * A free chunk for pages of `as`, evicting others until there is one. Called
 * with no page busy. SUCCESS, NOSPC (all memory is held), TIMEDOUT.
 */
gm_ret_t gm_evict_take(struct gm_as *as, struct gm_dev *dev, unsigned order, uint64_t deadline_ns,
		       struct gm_chunk **chunk);

/*
 * Frames for every unit of the move that has pages to bring and none yet: one
 * chunk for a whole block where that is free, else unit by unit. As above; what
 * was reserved stays in m->fresh also on failure.
 */
gm_ret_t gm_evict_reserve(struct gm_dev *dev, struct gm_move *m, uint64_t deadline_ns);
/* Give back what is left in m->fresh. */
void gm_evict_unreserve(struct gm_dev *dev, struct gm_move *m);

#endif
