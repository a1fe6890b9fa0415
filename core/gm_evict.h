/* SPDX-License-Identifier: MIT */
/* Room in a device's memory; see gm_evict.c. */
#ifndef GM_CORE_EVICT_H
#define GM_CORE_EVICT_H

#include "core/gm_txn.h"

/*
 * Frames for every unit of the move that has pages to bring and none yet: one
 * chunk for a whole block where that is free, else unit by unit; others are evicted
 * until there are. Called with no page busy. What was reserved stays in m->fresh also
 * on failure. SUCCESS, NOSPC (all memory is held), TIMEDOUT, NODEV.
 */
gm_ret_t gm_evict_reserve(struct gm_dev *dev, struct gm_move *m, uint64_t deadline_ns);
/* Give back what is left in m->fresh. */
void gm_evict_unreserve(struct gm_dev *dev, struct gm_move *m);

#endif
