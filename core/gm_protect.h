/* SPDX-License-Identifier: MIT */
/* Rights of the process that change under devices; see gm_protect.c. */
#ifndef GM_CORE_PROTECT_H
#define GM_CORE_PROTECT_H

#include <stdatomic.h>
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

#endif
