/* SPDX-License-Identifier: MIT */
/* Read duplication; see gm_dup.c (how duplicates are made) and gm_dup_end.c (how they end). */
#ifndef GM_CORE_DUP_H
#define GM_CORE_DUP_H

#include "core/gm_fault.h"
#include "core/gm_txn.h"

/* --- gm_dup.c --- */

/* In place of a transaction's commit: the pages go back to the process, protected, and are the device's as well. */
void gm_dup_commit(struct gm_txn *t, struct gm_move *m);
/*
 * One transaction for `m->want` of one block, which may be mapped for the context; nobody else's business but that
 * of what is in the way. Frames are reserved here. AGAIN: look again. As gm_txn_run().
 */
gm_ret_t gm_dup_bring(struct gm_ctx *ctx, struct gm_move *m, uint32_t flags, uint64_t deadline_ns);
/*
 * A device reads a page of which some device has a duplicate: it gets one of its own, or a mapping of what it has.
 * SUCCESS: *served, or look again. Else as gm_fault_one().
 */
gm_ret_t gm_dup_fault(struct gm_ctx *ctx, struct gm_block *b, const struct gm_fault_ask *ask, uint64_t deadline_ns,
		      bool *served);

/* --- gm_dup_end.c --- */

/* (block) No device has a duplicate of them any more. Nobody maps one; stores wait as before. */
void gm_dup_forget(struct gm_block *b, const struct gm_mask *pages);
/* The same, unlocked: of pages the caller has busy, and has revoked. */
void gm_dup_give_up(struct gm_block *b, const struct gm_mask *pages);
/*
 * The host did not give these pages. Those that are protected cannot be un-shared: they are not so any more, and to be
 * tried again (returned). Each of them once: `tried`.
 */
struct gm_mask gm_dup_let_steal(struct gm_block *b, const struct gm_mask *refused, struct gm_mask *tried);
/* Stores to the page, which the caller has busy, wait no more, whatever made them. SUCCESS, TIMEDOUT. */
gm_ret_t gm_dup_let_store(struct gm_block *b, unsigned page, uint64_t deadline_ns);
/* The duplicates that `dev` (NULL: any device) has of these pages end; waits for what is in the way. As gm_plan_revoke(). */
gm_ret_t gm_dup_end(struct gm_block *b, const struct gm_mask *pages, const struct gm_dev *dev, uint64_t deadline_ns);
/* Memory of the device is wanted: as gm_dup_end(), for what has nothing in its way. True: there was some. */
bool gm_dup_evict(const struct gm_dev *dev, struct gm_block *b, const struct gm_mask *pages, uint64_t deadline_ns);
/*
 * The process stores to a page that devices have duplicates of: these end, with those of its unit, and the store goes
 * on. `inl`: in the fault handler, where nothing waits. SUCCESS, AGAIN (*until_ns, if not 0: not before), or as
 * gm_plan_revoke().
 */
gm_ret_t gm_dup_store(struct gm_block *b, unsigned page, bool inl, uint64_t now_ns, uint64_t *until_ns);

#endif
