/* SPDX-License-Identifier: MIT */
/*
 * Pages whose content was given up (madvise), and that the kernel may not have dropped yet: it does so after its event
 * was read. MADV_FREE raises the same event, and a page that is written again afterwards stays; so what is present long
 * after is alive. Each page has a time of its own, roughly: whoever gives up one of them all the time keeps no other waiting.
 *
 *     noted --> now --a later event, a grace after the first one of `now`--> before --the same, or a grace later--> over
 *                '--two graces after the first one, whatever comes--> over
 *
 * So it takes a grace at least, three at most. All under the block's lock.
 */
#include "config.h"

#include "core/gm_zap.h"

void gm_zap_note(struct gm_zap *z, const struct gm_mask *pages, uint64_t now_ns)
{
	if (now_ns >= z->since_ns + GM_ZAP_GRACE_NS) {
		z->before = now_ns >= z->since_ns + 2 * GM_ZAP_GRACE_NS ? gm_mask_none() : z->now;
		z->now = gm_mask_none();
		z->since_ns = now_ns;
	}
	z->now = gm_mask_or(z->now, *pages);
}

struct gm_mask gm_zap_pending(const struct gm_zap *z, uint64_t now_ns)
{
	if (now_ns >= z->since_ns + 2 * GM_ZAP_GRACE_NS)
		return gm_mask_none();
	return now_ns >= z->since_ns + GM_ZAP_GRACE_NS ? z->now : gm_mask_or(z->now, z->before);
}
