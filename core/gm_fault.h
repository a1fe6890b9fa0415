/* SPDX-License-Identifier: MIT */
/* Faults of both sides; see gm_fault_dev.c and gm_fault_cpu.c. */
#ifndef GM_CORE_FAULT_H
#define GM_CORE_FAULT_H

#include "core/gm_txn.h"

/*
 * Make a page accessible to a context that is entered (gm_ctx_enter()). As
 * gm_dev_fault(), with a deadline; TIMEDOUT also where the deadline was short.
 */
gm_ret_t gm_fault_dev(struct gm_ctx *ctx, uint64_t va, uint32_t access, uint64_t deadline_ns);

/* May the process itself access it so? *end: how far the answer holds. SUCCESS, FAULT, PERM. */
gm_ret_t gm_fault_rights(struct gm_as *as, uint64_t va, uint32_t access, uint64_t *begin, uint64_t *end);

/*
 * Map a page that stays on the host in place. The page is not busy. With `hold` it is held by that
 * set from before anybody else can have it. SUCCESS, NOTSUP, others.
 */
gm_ret_t gm_fault_in_place(struct gm_ctx *ctx, struct gm_block *b, unsigned page, uint32_t access, uint64_t deadline_ns,
			   struct gm_hold *hold);

/* A fault message: serve it if nothing has to be waited for, else leave it to the worker. Never allocates or blocks. */
void gm_fault_cpu(struct gm_as *as, uint64_t va, bool write, uint32_t thread_id);

/* Worker: what CPU accesses wait for in this block. True: something is left, try again at *again_ns. */
bool gm_fault_cpu_work(struct gm_block *b, uint64_t *again_ns);

#endif
