/* SPDX-License-Identifier: MIT */
/* Spaces that mirror the process: memory adopted on demand, and external memory; see gm_mirror.c, gm_mirror_ws.c. */
#ifndef GM_CORE_MIRROR_H
#define GM_CORE_MIRROR_H

#include "core/gm_ws.h"

/* Blocks with external pages that are not worth a look. */
#define GM_MIRROR_BLOCKS 64u

static inline bool gm_as_mirrors(const struct gm_as *as)
{
	return as->cfg.flags & GM_AS_MIRROR;
}

/* (block) `external` has changed. */
void gm_mirror_count(struct gm_block *b);

enum gm_mirrored {
	GM_MIRRORED_AGAIN, /* it is adopted, or has changed: look at it again */
	GM_MIRRORED_PLACED,
	GM_MIRRORED_WAS, /* it was mapped, and is worth it */
};

/*
 * A device is at a page of no region, or at an external one: ask the host whose it is, adopt it or map it in place.
 * *did if SUCCESS. FAULT, PERM, NOTSUP, TIMEDOUT, others. The block's node and map are there.
 */
gm_ret_t gm_mirror_serve(struct gm_ctx *ctx, struct gm_block *b, unsigned page, uint32_t access, uint64_t deadline_ns,
			 enum gm_mirrored *did);

/* What is at va now, and how far in its block that is so. SUCCESS: the process may access it so. FAULT, PERM. */
gm_ret_t gm_mirror_look(struct gm_as *as, uint64_t va, uint32_t access, struct gm_host_vma *vma);
/* Adopt what vma, which is ANON, says around a page. SUCCESS: look again. NOTSUP: not after all. TIMEDOUT, NOMEM. */
gm_ret_t gm_mirror_adopt(struct gm_block *b, unsigned page, const struct gm_host_vma *vma, uint64_t deadline_ns);
/* These pages are external, those but for that are managed by now, or edges. SUCCESS, TIMEDOUT. */
gm_ret_t gm_mirror_mark(struct gm_block *b, const struct gm_mask *pages, uint64_t deadline_ns);
/* Pages that are external, and that no device has (any more), are not. */
void gm_mirror_tidy(struct gm_block *b);

/*
 * All pages of the block are busy and it is to be watched no more: what of it was adopted on demand is so no more.
 * False: there is no memory for that, nothing done.
 */
bool gm_mirror_let_go(struct gm_block *b);

/* Worker: external pages where nothing is mapped any more. */
void gm_mirror_sweep(struct gm_as *as);

/* Another space of the instance has it on a device. SUCCESS: no more; NOENT: none has it. TIMEDOUT, BUSY, others. */
gm_ret_t gm_mirror_fetch(struct gm_as *as, uint64_t va, uint64_t deadline_ns);

/* A working set of the space begins, or ends. */
void gm_mirror_count_set(struct gm_as *as, bool begins);
/*
 * What working sets of other spaces, which mirror the process, use where it is leaves the plan to move to a device. Until
 * such a set ends these pages are as pinned: it could not be served otherwise while devices of this space want them.
 */
void gm_mirror_leave_held(struct gm_move *m);

/* gm_mirror_ws.c */

/* Which pages of the pieces stay where they are. SUCCESS; FAULT, PERM: the process may not access all of it so. */
gm_ret_t gm_mirror_survey(struct gm_as *as, struct gm_ws_piece *piece, size_t pieces);
/* Every page of the piece becomes managed, or an edge, if it is neither. SUCCESS, FAULT, PERM, TIMEDOUT, NOMEM. */
gm_ret_t gm_mirror_fill(struct gm_block *b, const struct gm_ws_piece *p, uint64_t deadline_ns);
/*
 * The process's own access to a page where the bus is refused: somebody else may fill it, or let a store go on. Nothing is busy, reserved or held for it meanwhile. SUCCESS, FAULT, TIMEDOUT, NOMEM.
 */
gm_ret_t gm_mirror_bring(struct gm_as *as, uint64_t va, uint32_t access, uint64_t deadline_ns);
/* The same for what of a set is external and not there. What cannot be accessed at all is left to the device to find. */
gm_ret_t gm_mirror_bring_set(struct gm_as *as, const struct gm_ws_piece *piece, size_t pieces, uint64_t deadline_ns);
/* Devices let go of external pages of [va, end), which are about to be adopted, but for those that a set holds. */
void gm_mirror_yield(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns);
/* What of [va, end) may be adopted is. SUCCESS, NOMEM, TIMEDOUT. */
gm_ret_t gm_mirror_adopt_range(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns);
/* How many pages of [va, end) would be, and are in no region: they are on the host. SUCCESS, NOMEM (it cannot be told now). */
gm_ret_t gm_mirror_at_home(struct gm_as *as, uint64_t va, uint64_t end, uint64_t *pages);

#endif
