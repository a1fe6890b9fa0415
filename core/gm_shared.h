/* SPDX-License-Identifier: MIT */
/* Shared memory; see gm_shared.c. */
#ifndef GM_CORE_SHARED_H
#define GM_CORE_SHARED_H

#include "core/gm_as.h"

/* (A) Until nobody exports shared memory. SUCCESS, TIMEDOUT. */
gm_ret_t gm_shared_wait(struct gm_as *as, uint64_t deadline_ns);
/* Is any of [va, end) shared memory that moves? A child must not inherit it. */
bool gm_shared_moves(struct gm_as *as, uint64_t va, uint64_t end);
/* It is about to be unmapped, and the slots of its blocks, which are a part of it, go along. They are empty. */
void gm_shared_forget(struct gm_as *as, uint64_t va, uint64_t end);
/* End what is in place, [va, end). SUCCESS; BUSY (held), TIMEDOUT, NOMEM: nothing changed. */
gm_ret_t gm_shared_free_placed(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns);

#endif
