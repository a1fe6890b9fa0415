/* SPDX-License-Identifier: MIT */
/* Working sets inside the core; see gm_ws.c. */
#ifndef GM_CORE_WS_H
#define GM_CORE_WS_H

#include "core/gm_txn.h"

/* One block's part of a set. */
struct gm_ws_piece {
	uint64_t va;                          /* of the block */
	struct gm_mask read, write, discard;  /* write and discard are part of read */
	struct gm_mask stays;                 /* of read: external memory, which needs no room on the device (gm_mirror_ws.c) */
	bool atomic;
};

struct gm_ws {
	struct gm_ctx *ctx;                   /* entered for as long as the set is held */
	bool pin;                             /* of gm_pin(): nobody has its handle */
	uint64_t units;                       /* reserved in the node */
	size_t pieces;
	struct gm_ws_piece *piece;            /* [pieces], ascending */
	struct gm_hold *hold;                 /* [pieces]; block NULL: not held (yet) */
};

/* gm_ws_hold.c. Pages of a block stay where they are from here on: called between to_dev and end. */
void gm_ws_hold(struct gm_hold *h, struct gm_block *b, const struct gm_mask *pages);
/*
 * Hold a piece where it is. False: not all of it is on the device, mapped as asked, with nothing in the way; or the
 * process's rights may have changed since gm_rights_seen() said `rights`.
 */
bool gm_ws_hold_resident(struct gm_ws *ws, size_t piece, uint64_t rights);
/* (block) The application dropped pages: no set holds them any more, nor frames that only they were in. */
void gm_ws_drop_pages(struct gm_block *b, const struct gm_mask *pages);
/* Let go what is held, if anything, and bring home by the deadline (0: do not wait) what could not be accessed; gm_remap_unheld()
 * is to follow. */
void gm_ws_unhold(struct gm_ws *ws, struct gm_hold *h, uint64_t deadline_ns);

/* (block) Does a set of gm_pin() hold it? */
bool gm_ws_is_pinned(const struct gm_block *b, unsigned page);

/* A set without a handle. `ctx` is entered, and is left when the call fails, or by gm_ws_unpin(). As gm_ws_acquire(). */
gm_ret_t gm_ws_pin(struct gm_ctx *ctx, const struct gm_ws_range *range, uint64_t timeout_ns, struct gm_ws **ws);
void gm_ws_unpin(struct gm_ws *ws);

/* gm_ws_pieces.c: from ranges to pieces. SUCCESS, INVAL, FAULT, NOMEM. */
gm_ret_t gm_ws_pieces(struct gm_ctx *ctx, const struct gm_ws_range *ranges, size_t n, struct gm_ws_piece **piece,
		      size_t *pieces);
void gm_ws_pieces_free(struct gm_ctx *ctx, struct gm_ws_piece *piece, size_t pieces);
/* Units of device memory that they occupy. */
uint64_t gm_ws_units(const struct gm_ctx *ctx, const struct gm_ws_piece *piece, size_t pieces);

#endif
