/* SPDX-License-Identifier: MIT */
/* The queue of blocks that want the worker, and the worker; see gm_work.c. */
#ifndef GM_CORE_WORK_H
#define GM_CORE_WORK_H

#include "core/gm_as.h"

/* A block that nothing distinguishes any more stays watched this long, in case the device comes back. */
#define GM_WORK_IDLE_NS (UINT64_C(200) * 1000 * 1000)
/* A transaction that failed for a passing reason is tried again after this. */
#define GM_WORK_RETRY_NS (UINT64_C(1000) * 1000)

/* Look at the block, not before this time (0: now). If it is queued already, the earlier time counts. */
void gm_work_queue(struct gm_block *b, uint64_t not_before_ns);
/* Do one block whose time has come. False: there is none; *next_ns is when the next one is due. */
bool gm_work_once(struct gm_as *as, uint64_t *next_ns);
/* The worker thread: until as->stop. */
void gm_work_thread(void *as);
/* A range that was moved wants the worker. */
void gm_work_remap(struct gm_as *as);
/* What the handler takes from wants filling. */
void gm_work_refill(struct gm_as *as);
/* Wake the worker to look at its flags. */
void gm_work_kick(struct gm_as *as);

#endif
