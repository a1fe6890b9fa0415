/* SPDX-License-Identifier: MIT */
/* Plans: steps for one device, collected over the pages of one or many blocks; see gm_plan.c. */
#ifndef GM_CORE_PLAN_H
#define GM_CORE_PLAN_H

#include "core/gm_as.h"

#define GM_PLAN_STEPS 64

struct gm_plan {
	struct gm_hal_dev *hal;
	uint64_t deadline_ns, wait_ns;
	bool now;          /* no step may wait: one by one, never as a message */
	gm_ret_t ret;      /* first failure; nothing is run after it */
	size_t n;
	uint32_t barrier;  /* `after` of the next steps */
	struct gm_step step[GM_PLAN_STEPS];
};

/*
 * The device gets until the deadline, but the space's wait_ns at least: a caller
 * in a hurry says nothing about the device, which is lost once it is late.
 */
void gm_plan_init(struct gm_plan *p, const struct gm_as *as, struct gm_hal_dev *hal, uint64_t deadline_ns);
/* Steps added later depend on all added before. */
void gm_plan_barrier(struct gm_plan *p);
/* Run what is collected; the first failure so far. */
gm_ret_t gm_plan_run(struct gm_plan *p);

/* Steps over pages of a block, as few as the frames allow. */
void gm_plan_remove(struct gm_plan *p, const struct gm_ctx *ctx, const struct gm_block *b, const struct gm_mask *pages);
void gm_plan_invl(struct gm_plan *p, const struct gm_ctx *ctx, const struct gm_block *b, const struct gm_mask *pages);
/* Map frames of device memory; `frames` tells where each page is. */
void gm_plan_enter(struct gm_plan *p, const struct gm_ctx *ctx, const struct gm_block *b, const struct gm_mask *pages,
		   const struct gm_frame_map *frames, bool write);
/* Map host pages [first, end) in place; there may be none. */
void gm_plan_enter_host(struct gm_plan *p, const struct gm_ctx *ctx, const struct gm_block *b, unsigned first,
			unsigned end, bool write);
/* Copy between the frames and `base` + the page's offset in the block; base 0: zero-fill. */
void gm_plan_copy(struct gm_plan *p, enum gm_copy_kind kind, const struct gm_mask *pages,
		  const struct gm_frame_map *frames, uint64_t base);

/*
 * Revoke: remove every mapping that any context has of `pages` (which the
 * caller has busy), invalidate, drain, forget them. The law's step 2a.
 * `now`: in the fault handler, for devices whose invalidation does not wait.
 * SUCCESS (also for lost devices), NOMEM, TIMEDOUT: then nothing is forgotten.
 */
gm_ret_t gm_plan_revoke(struct gm_block *b, const struct gm_mask *pages, uint64_t deadline_ns, bool now);
/* The same for what one context has mapped; others, who may hold these pages in place, keep their mappings. */
gm_ret_t gm_plan_revoke_in(struct gm_block *b, struct gm_ctx *ctx, const struct gm_mask *pages, uint64_t deadline_ns,
			   bool now);

/* A change of mappings failed half way: they are as they were or as they should be; a fault maps anew. */
void gm_plan_doubt(struct gm_block *b, unsigned ctx, const struct gm_mask *pages);
/*
 * (block) Which of `pages`, whole granules that the caller has busy and records as mapped, are in doubt; they are so
 * no more. Where any are, gm_plan_settle() comes before what enters them; if that fails, or never runs, the caller
 * says gm_plan_doubt() again.
 */
struct gm_mask gm_plan_take_doubt(struct gm_block *b, unsigned ctx, const struct gm_mask *pages);
/* What a TLB may still have of pages in doubt ends before anything that is added later. */
void gm_plan_settle(struct gm_plan *p, const struct gm_ctx *ctx, const struct gm_block *b, const struct gm_mask *doubtful);

#endif
