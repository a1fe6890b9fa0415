/* SPDX-License-Identifier: MIT */
/* Content that is lost, and descriptors that are; see gm_lost.c. */
#ifndef GM_CORE_LOST_H
#define GM_CORE_LOST_H

#include "core/gm_as.h"

/* The content of these pages is gone: the hook learns of it. `moved`: they are leaving, to where mremap() moved them. */
void gm_lost_tell(struct gm_block *b, const struct gm_mask *pages, bool moved, gm_ret_t why);

/*
 * The host says NODEV: the program closed the descriptors and nobody kept them. SUCCESS: everything is watched again, but
 * what is left to the worker. NOMEM, AGAIN: not now. Deadline 0: nothing is waited for.
 */
gm_ret_t gm_lost_recover(struct gm_as *as, uint64_t deadline_ns);
/* The worker's part. */
void gm_lost_work(struct gm_block *b);

#endif
