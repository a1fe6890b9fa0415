/* SPDX-License-Identifier: MIT */
/* Transactions: moving pages of one or several blocks; see gm_txn.c. */
#ifndef GM_CORE_TXN_H
#define GM_CORE_TXN_H

#include "core/gm_plan.h"

/* The pages of one block in a transaction. */
struct gm_move {
	struct gm_block *block;      /* the caller holds a reference */
	struct gm_mask want;         /* in: pages to bring */
	struct gm_mask map, write;   /* in: to a device: of these, to be mapped; to be mapped writable */
	struct gm_mask discard;      /* in: to a device: of these, the old content does not matter */
	struct gm_ws *ws;            /* in: to a device: pages that arrive are held by it; NULL */
	uint64_t rights;             /* in: to a device that gets mappings: gm_rights_seen() before the rights were read */
	struct gm_mask waiters;      /* in: pages an access at the destination waits for, which then keeps them a slice */
	struct gm_chunk *fresh[GM_BLOCK_UNITS]; /* in: to a device: frames for units that have none; what is
						   left over afterwards is the caller's again */
	/* classes, by gm_txn_begin(); disjoint but for `same`, together `busy` */
	struct gm_mask busy;
	struct gm_mask stay;         /* at the destination already */
	struct gm_mask host;         /* on the host, to be stolen */
	struct gm_mask parked;       /* in the slot only */
	struct gm_mask none;         /* no content: zero-fill */
	struct gm_mask devs;         /* on some device (to the host) */
	struct gm_mask same;         /* of host: the device has a duplicate, so there is nothing to copy */
	struct gm_mask shared;       /* duplicating: others have duplicates, this device has none */
	/* results */
	struct gm_mask hole;         /* of host: never had content */
	struct gm_mask pinned, fixed; /* of host: refused */
	struct gm_mask mapped;       /* by the context before */
	struct gm_mask arrived;      /* at the destination now, stay not counted */
};

/* Why a transaction could not begin. */
enum gm_blocked {
	GM_BLOCKED_NOT,       /* by nothing */
	GM_BLOCKED_BUSY,      /* another transaction, or a drop that is pending */
	GM_BLOCKED_SLICE,     /* somebody was just served */
	GM_BLOCKED_HELD,      /* a working set */
	GM_BLOCKED_ELSEWHERE, /* to a device: another device has it; bring it home first */
	GM_BLOCKED_STALE,     /* to a device: the frames reserved do not fit what is there now; reserve again */
	GM_BLOCKED_FROZEN,    /* a fork */
	GM_BLOCKED_ZAP,       /* to a device, and nothing else was: what was given up may be there still; gm_txn_end() waits */
};

#define GM_TXN_INLINE 1u   /* in the fault handler: nothing that waits */
#define GM_TXN_FORCE 2u    /* asked for by the caller: slices do not protect */
#define GM_TXN_EVICT 4u    /* counted as eviction */
#define GM_TXN_DUPLICATE 8u /* to a device: the pages stay on the host as well (gm_dup.c) */
#define GM_TXN_EXCLUSIVE 16u /* to a device: what it is to write is marked as its alone (gm_coherence.c) */

struct gm_txn {
	struct gm_as *as;
	struct gm_dev *dev;          /* destination; NULL: the host */
	struct gm_ctx *ctx;          /* to a device: who gets mappings; NULL: nobody */
	uint32_t flags;              /* GM_TXN_* */
	uint64_t deadline_ns;
	bool moved;                  /* to the host: what is leaving, to where mremap() moved it (gm_remap.c) */
	struct gm_move *move;
	size_t moves;
	uint64_t now_ns;             /* what time it is at the end, where the last step knows; 0 */
	/* out */
	gm_ret_t ret;                /* first failure of a page or step */
	enum gm_blocked why;
	struct gm_block *where;      /* which block blocked (no reference) */
	struct gm_mask what;         /* ... and which of its pages */
	uint64_t until_ns;           /* SLICE: when it ends; ZAP: when to look again */
	struct gm_mask refused;      /* to the host, one block: nothing is mapped where it belongs, or something is there */
};

/*
 * All pages wanted become busy, or none. AGAIN: `why`, `where`, `what`, `until_ns`
 * say what is in the way; pages that ceased to be managed are left out silently.
 */
gm_ret_t gm_txn_begin(struct gm_txn *t);
/* The same for a caller that knows what time it is. */
gm_ret_t gm_txn_begin_at(struct gm_txn *t, uint64_t now_ns);
/* Nothing moves to a device, nor is anything held there anew, while a fork is under way: then false. As begin and end do. */
bool gm_txn_enter_moving(struct gm_as *as);
void gm_txn_leave_moving(struct gm_as *as);
/* Wait for what gm_txn_begin() named, at most until the deadline: SUCCESS (try again), TIMEDOUT. */
gm_ret_t gm_txn_wait(struct gm_txn *t);

/* Between begin and end. The first failure; pages are at one side or the other, none is lost. */
gm_ret_t gm_txn_to_dev(struct gm_txn *t);
gm_ret_t gm_txn_to_host(struct gm_txn *t);

/* Busy no more; drops what was doomed meanwhile; wakes. After ZAP it pauses, longer the more often it was looked. */
void gm_txn_end(struct gm_txn *t);

/* End for pages marked busy by other means: the fault handler, mappings in place. */
void gm_txn_release(struct gm_block *b, const struct gm_mask *pages);
/* The same where nothing moved: no slice begins, and it is no use. There may be no pages: it wakes, and frees frames. */
void gm_txn_release_unmoved(struct gm_block *b, const struct gm_mask *pages);
/* Commit and end in one: of `busy`, `back` are on the host now; `page`, if among them, was given to a CPU access. */
void gm_txn_end_home(struct gm_block *b, const struct gm_mask *busy, const struct gm_mask *back, unsigned page,
		     uint64_t now_ns);

/* Begin (waiting as long as the deadline allows), move, end. As the parts; AGAIN: ELSEWHERE or STALE. */
gm_ret_t gm_txn_run(struct gm_txn *t);

/* Bring pages of one block home with a transaction of its own. */
gm_ret_t gm_move_home(struct gm_block *b, const struct gm_mask *pages, uint32_t flags, uint64_t deadline_ns);

/* Drop every copy and mapping of pages the caller has busy: they become NONE. SUCCESS, or what a device said. */
gm_ret_t gm_take_apart(struct gm_block *b, const struct gm_mask *pages, uint64_t deadline_ns);
/* Drop what is doomed and not busy. */
void gm_drop_doomed(struct gm_block *b);

/*
 * gm_hal_steal() behind gm_events_hold_reader(): AGAIN also when a message waits to be handled.
 * Pages that were doomed meanwhile leave `want`: what is at their VA now is not what was meant.
 */
gm_ret_t gm_txn_steal(struct gm_block *b, struct gm_mask *want, struct gm_host_steal *out);
/*
 * Zeros at a page the caller has busy, behind the same guard, if it is the host's still. As gm_hal_zero();
 * AGAIN also when a message waits to be handled, FAULT when the page was dropped or moved away.
 */
gm_ret_t gm_txn_zero(struct gm_block *b, unsigned page);
/* The same as gm_hal_unmark(). */
gm_ret_t gm_txn_unmark(struct gm_block *b, unsigned page);
/*
 * The host can be stolen from: the block is watched (duplicating: so that stores can wait) and has a slot. SUCCESS, or
 * what the host says.
 */
gm_ret_t gm_txn_need_host(struct gm_txn *t, struct gm_block *b);

/* Parts shared by both directions. */
void gm_txn_fail(struct gm_txn *t, gm_ret_t ret);
/* Let the reader of host messages run; false at the deadline, or inline. */
bool gm_txn_let_reader_run(struct gm_txn *t);
/* Staged pages [of m] back to the host, where they belong. Adds to `*back` what is there now; keeps `*now_ns` true. */
void gm_txn_restore(struct gm_txn *t, struct gm_block *b, const struct gm_mask *pages, struct gm_mask *back,
		    uint64_t *now_ns);
/*
 * New pages at their VA, against whose stores the process is protected: `pages` have their bytes at base + offset in
 * the block; base 0: zeros. Adds to `*back` what is there now.
 */
void gm_txn_give_protected(struct gm_txn *t, struct gm_block *b, const struct gm_mask *pages, uint64_t base,
			   struct gm_mask *back);
/* The frames the pages will have: those of the block, completed by the reserved ones. */
void gm_txn_future_frames(const struct gm_txn *t, const struct gm_move *m, struct gm_frame_map *map);
/* (block) Reserved chunks under pages that arrived become the block's. */
void gm_txn_settle_frames(struct gm_txn *t, struct gm_move *m);
/* Residency moves to the host: pages `back` are there. Frees device frames that became empty. */
void gm_commit_host(struct gm_block *b, const struct gm_mask *back);

#endif
