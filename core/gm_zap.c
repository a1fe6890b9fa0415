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
 *
 * Where there is no block (it was forgotten since the event was raised, or never was: GM_AS_WATCH), the space remembers
 * the range, and a block that comes into being there within the grace knows of it from the start. There is room for so
 * many; when it is full, the range joins the one that grows the least: pages that are taken for given up, and are not,
 * are found alive after the grace.
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

/* How much longer the range gets if [va, end) joins it; less than all others if its time is over. */
static uint64_t growth(const struct gm_zap_range *r, uint64_t va, uint64_t end, uint64_t now_ns)
{
	uint64_t lo = va < r->va ? va : r->va, hi = end > r->end ? end : r->end;

	if (va <= r->end && r->va <= end)
		return 0;
	return now_ns >= r->at_ns + GM_ZAP_GRACE_NS ? 1 : hi - lo;
}

void gm_zap_note_range(struct gm_zap_ranges *z, uint64_t va, uint64_t end, uint64_t now_ns)
{
	struct gm_zap_range *best = &z->range[0];
	uint64_t least = UINT64_MAX;

	for (unsigned i = 0; i < GM_ZAP_RANGES; i++) {
		uint64_t more = growth(&z->range[i], va, end, now_ns);

		if (more < least) {
			least = more;
			best = &z->range[i];
		}
	}
	if (now_ns >= best->at_ns + GM_ZAP_GRACE_NS)
		*best = (struct gm_zap_range){ .va = va, .end = end };
	best->va = va < best->va ? va : best->va;
	best->end = end > best->end ? end : best->end;
	best->at_ns = now_ns;
}

struct gm_mask gm_zap_recall(const struct gm_zap_ranges *z, uint64_t va, uint64_t now_ns)
{
	uint64_t end = va + GM_BLOCK_BYTES;
	struct gm_mask all = gm_mask_none();

	for (const struct gm_zap_range *r = z->range; r < z->range + GM_ZAP_RANGES; r++) {
		uint64_t lo = r->va > va ? r->va : va, hi = r->end < end ? r->end : end;
		struct gm_mask pages;

		if (lo >= hi || now_ns >= r->at_ns + GM_ZAP_GRACE_NS)
			continue;
		pages = gm_mask_span((unsigned)((lo - va) / GM_PAGE_BYTES), (unsigned)((hi - va) / GM_PAGE_BYTES));
		all = gm_mask_or(all, pages);
	}
	return all;
}
