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
