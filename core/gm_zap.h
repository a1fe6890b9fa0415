/* SPDX-License-Identifier: MIT */
/* Which pages the kernel may have yet to drop; see gm_zap.c. */
#ifndef GM_CORE_ZAP_H
#define GM_CORE_ZAP_H

#include "hal/gm_mask.h"

/*
 * After a REMOVE was read the kernel has yet to zap what is there, so for a while
 * what is present may be old.
 */
#define GM_ZAP_GRACE_NS (UINT64_C(100) * 1000 * 1000)

#define GM_ZAP_RANGES 16

/* Of a space: what had no block when it was given up. Under its lock. */
struct gm_zap_ranges {
	struct gm_zap_range {
		uint64_t va, end, at_ns;
	} range[GM_ZAP_RANGES];
};

/* [va, end) has no block, and its content is given up, by an event that was read now. */
void gm_zap_note_range(struct gm_zap_ranges *z, uint64_t va, uint64_t end, uint64_t now_ns);
/* Pages of the block at va that were. */
struct gm_mask gm_zap_recall(const struct gm_zap_ranges *z, uint64_t va, uint64_t now_ns);

/* Of one block. */
struct gm_zap {
	uint64_t since_ns;         /* when `now` began */
	struct gm_mask now, before;
};

/* Their content is given up, by an event that was read now. */
void gm_zap_note(struct gm_zap *z, const struct gm_mask *pages, uint64_t now_ns);
/* Pages of which what is present may be old. */
struct gm_mask gm_zap_pending(const struct gm_zap *z, uint64_t now_ns);

#endif
