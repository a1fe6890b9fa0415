/* SPDX-License-Identifier: MIT */
/*
 * Rights of the process that change under devices: how who maps a page knows that what he was told holds still.
 * The change itself is in gm_protect.c.
 *
 * Who maps a page asks first what the process itself may do. His answer may be from before the mprotect(), and his
 * mapping recorded when all were revoked:
 *
 *     fault      seen, rights asked ------------------------------------> recorded? (block)
 *     protect               begun, mprotect(), revoked (block), ended
 *
 * Two ways lead out of it:
 *  - the page is busy before rights are asked for (gm_fault_edge.c, map_edges() in gm_fault_block.c): revoking waits
 *    for it, and finds what was recorded;
 *  - else a counter is read before (gm_rights_seen()), and again under the block's lock where the mapping, or a set's
 *    hold, is recorded (gm_rights_same()). It changed when a gm_protect() of this block (or one that shares the
 *    counter) began or ended since, and nothing is recorded while one is under way. If the recording comes first, the
 *    block's lock shows it to the revocation, as the counter is changed before that lock is taken; else the counter
 *    tells. The fault looks anew then, and the page stays where it is meanwhile, unmapped.
 *    Who reads it before: gm_fault_dev.c (choose_all(), serve_in_place()), gm_mirror_serve(), gm_coherence.c,
 *    gm_dup_fault(), gm_ws.c. Who compares: gm_fault_in_place(), map() in gm_txn_to_dev.c, gm_ws_hold_resident().
 */
#ifndef GM_CORE_PROTECT_H
#define GM_CORE_PROTECT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <gmem/types.h>

/*
 * Changes of rights, told apart by the block they are in, several blocks to one counter: who meets another's looks once
 * more for nothing. The lower half of each: changes under way; the upper: begun and ended ones.
 */
#define GM_RIGHTS_COUNTERS 64u
#define GM_RIGHTS_BEGUN ((UINT64_C(1) << 32) + 1)
#define GM_RIGHTS_ENDED ((UINT64_C(1) << 32) - 1)

struct gm_rights {
	_Atomic uint64_t changes; /* of all of the space */
	_Atomic uint64_t of[GM_RIGHTS_COUNTERS];
};

static inline _Atomic uint64_t *gm_rights_of(struct gm_rights *r, uint64_t va)
{
	return &r->of[va / GM_BLOCK_BYTES % GM_RIGHTS_COUNTERS];
}

/* To be taken before rights are asked for of the block of va, and handed to gm_rights_same(). */
static inline uint64_t gm_rights_seen(struct gm_rights *r, uint64_t va)
{
	return atomic_load(gm_rights_of(r, va));
}

/* (block) Where a mapping made by such rights, or a hold, is recorded: do they hold still? */
static inline bool gm_rights_same(struct gm_rights *r, uint64_t va, uint64_t seen)
{
	return seen == gm_rights_seen(r, va) && !(uint32_t)seen;
}

/* Of the whole space: an answer kept from before the last change may be wrong. Asked after gm_rights_seen(). */
static inline uint64_t gm_rights_changes(struct gm_rights *r)
{
	return atomic_load(&r->changes);
}

#endif
