/* SPDX-License-Identifier: MIT */
/*
 * Invariants of a whole space, the list of docs/design.md as code. Busy pages
 * are skipped where a transaction may have them between two states.
 */
#include "config.h"

#include <stdio.h>

#include "core/gm_as.h"
#include "core/gm_pin.h"
#include "hal/gm_handle.h"

/* (block) One rule: no page is in `bad`. */
static const char *forbid(const struct gm_mask *bad, const char *rule)
{
	return gm_mask_empty(bad) ? NULL : rule;
}

/* (block) Each page has one authoritative copy. */
static const char *check_residency(const struct gm_block *b)
{
	struct gm_mask seen = gm_mask_none(), bad = gm_mask_none(), idle = gm_mask_not(b->busy);
	const char *wrong;

	for (unsigned i = 0; i < GM_MAX_DEVS; i++) {
		if (!b->node[i])
			continue;
		bad = gm_mask_or(bad, gm_mask_and(seen, b->node[i]->resident));
		seen = gm_mask_or(seen, b->node[i]->resident);
	}
	wrong = forbid(&bad, "a page is resident in two devices");
	bad = gm_mask_and(gm_mask_and(seen, b->host), idle);
	if (!wrong)
		wrong = forbid(&bad, "a page is resident on the host and in a device");
	bad = gm_mask_and(gm_mask_and(seen, b->poisoned), idle);
	if (!wrong)
		wrong = forbid(&bad, "a poisoned page is resident in a device");
	bad = gm_mask_and(gm_mask_and(b->staged, b->host), idle);
	if (!wrong)
		wrong = forbid(&bad, "a page has a parked frame although it is at its address");
	bad = gm_mask_and(gm_mask_sub(b->host, b->managed), idle);
	bad = gm_mask_sub(bad, b->doomed); /* about to be taken apart */
	if (!wrong)
		wrong = forbid(&bad, "a page that is not managed counts as resident on the host");
	bad = gm_mask_and(gm_mask_sub(b->exclusive, seen), idle);
	if (!wrong)
		wrong = forbid(&bad, "a page is exclusive without being in a device");
	bad = gm_mask_and(b->leaving, b->managed);
	if (!wrong)
		wrong = forbid(&bad, "a page is managed while what was there before is still leaving");
	bad = gm_mask_or(gm_mask_sub(b->external, b->edge), gm_mask_sub(b->mirrored, b->managed));
	if (!wrong)
		wrong = forbid(&bad, "a page is external and no edge, or adopted on demand and not managed");
	bad = gm_mask_and(b->edge, b->managed);
	return wrong ? wrong : forbid(&bad, "an edge page is managed as well");
}

/* (block) Mapped implies resident where the context reaches it; write implies read. */
static const char *check_mappings(const struct gm_block *b)
{
	struct gm_mask idle = gm_mask_not(gm_mask_or(gm_mask_or(b->busy, b->doomed), b->leaving)), bad;
	const char *wrong = NULL;

	if (atomic_load(&b->as->releasing)) /* mappings in place go a moment after the region */
		idle = gm_mask_and(idle, gm_mask_or(b->managed, b->edge));
	for (unsigned i = 0; i < GM_MAX_CTXS && !wrong; i++) {
		struct gm_mask reach;

		if (!b->map[i])
			continue;
		bad = gm_mask_sub(b->map[i]->write, b->map[i]->read);
		wrong = forbid(&bad, "a page is mapped for writing but not for reading");
		bad = gm_mask_and(b->map[i]->read, idle);
		if (wrong || gm_mask_empty(&bad))
			continue;
		if (!b->as->ctx[i])
			return "a page is mapped by a context that is gone";
		reach = gm_mask_or(gm_block_on_dev(b, b->as->ctx[i]->dev->index), gm_mask_or(b->host, b->edge));
		bad = gm_mask_sub(bad, reach);
		wrong = forbid(&bad, "a page is mapped by a device that cannot reach it");
	}
	return wrong;
}

/* (block) What has duplicates is on the host, and nobody writes it but who waits for them to end. */
static const char *check_duplicates(const struct gm_block *b)
{
	struct gm_mask idle = gm_mask_not(gm_mask_or(gm_mask_or(b->busy, b->doomed), b->leaving)), some = gm_mask_none(), bad;
	const char *wrong = NULL;

	for (unsigned i = 0; i < GM_MAX_DEVS; i++)
		some = b->node[i] ? gm_mask_or(some, b->node[i]->copy) : some;
	if (!gm_mask_equal(&some, &b->dup) || b->any_dup == gm_mask_empty(&some) ||
	    b->any_exclusive == gm_mask_empty(&b->exclusive))
		return "the pages with duplicates are miscounted";
	if (gm_mask_empty(&some))
		return NULL;
	if (atomic_load(&b->as->releasing))
		idle = gm_mask_and(idle, b->managed);
	some = gm_mask_and(some, idle);
	bad = gm_mask_sub(some, b->host);
	wrong = forbid(&bad, "a page with duplicates is not on the host");
	bad = gm_mask_and(some, gm_block_on_devs(b));
	if (!wrong)
		wrong = forbid(&bad, "a page has duplicates and is resident in a device");
	for (unsigned i = 0; i < GM_MAX_CTXS && !wrong; i++) {
		if (!b->map[i] || !b->as->ctx[i])
			continue;
		bad = gm_mask_and(some, b->map[i]->write);
		wrong = forbid(&bad, "a page with duplicates is mapped for writing");
		bad = gm_mask_and(some, b->map[i]->read);
		bad = b->node[b->as->ctx[i]->dev->index] ? gm_mask_sub(bad, b->node[b->as->ctx[i]->dev->index]->copy) : bad;
		if (!wrong)
			wrong = forbid(&bad, "a page with duplicates is mapped where it is");
	}
	return wrong;
}

/* (block) Frames: every resident page has one, every chunk knows its block. */
static const char *check_frames(const struct gm_block *b)
{
	for (unsigned i = 0; i < GM_MAX_DEVS; i++) {
		const struct gm_bnode *n = b->node[i];

		for (unsigned u = 0; n && u < GM_BLOCK_UNITS; u++) {
			struct gm_mask unit = gm_mask_span(u * GM_UNIT_PAGES, (u + 1) * GM_UNIT_PAGES);
			const struct gm_chunk *c = n->unit[u];

			if (!c && (gm_mask_meets(&unit, &n->resident) || gm_mask_meets(&unit, &n->copy)))
				return "a resident page, or a duplicate, has no frame";
			if ((c != NULL) != (b->backed[i] >> u & 1))
				return "the units with frames are miscounted";
			if (c && (c->owner != b || c->state != GM_CHUNK_RESIDENT ||
				  u * GM_UNIT_PAGES < c->first || u * GM_UNIT_PAGES >= c->first + (GM_UNIT_PAGES << c->order)))
				return "a chunk does not know its block";
		}
		for (unsigned u = 0; n && u < GM_BLOCK_UNITS; u++) {
			struct gm_mask clean = gm_mask_sub(gm_mask_sub(n->resident, n->dirty), gm_mask_or(b->staged, b->busy));

			if (!gm_mask_empty(&clean))
				return "a page counts as clean but the host keeps no frame of it";
		}
	}
	return NULL;
}

/* (block) What is away must be watched, or an access would see zeros; what is held must be there. */
static const char *check_promises(const struct gm_block *b)
{
	struct gm_mask away = gm_mask_sub(gm_mask_or(gm_block_on_devs(b), b->staged), b->busy);
	struct gm_mask held = gm_mask_none(), bad;
	struct gm_hold *h;

	if (!gm_mask_empty(&away) && !b->has_slot)
		return "pages are away but there is no slot";
	SLIST_FOREACH(h, &b->holds, in_block)
		held = gm_mask_or(held, h->pages);
	if (!gm_mask_equal(&held, &b->held))
		return "the pages held are miscounted";
	bad = gm_mask_sub(gm_mask_sub(b->held, gm_mask_or(gm_block_on_devs(b), b->host)),
			  gm_mask_or(gm_mask_or(b->busy, b->doomed), b->edge));
	bad = gm_mask_and(bad, b->managed);
	return forbid(&bad, "a held page is nowhere");
}

static const char *check_block(struct gm_block *b)
{
	const char *wrong;

	gm_lock(b->as->env, &b->lock);
	wrong = check_residency(b);
	if (!wrong)
		wrong = check_mappings(b);
	if (!wrong)
		wrong = check_duplicates(b);
	if (!wrong)
		wrong = check_frames(b);
	if (!wrong)
		wrong = check_promises(b);
	gm_unlock(b->as->env, &b->lock);
	return wrong;
}

/* (A) */
static const char *check_index(struct gm_as *as)
{
	const char *wrong = gm_radix_check(&as->blocks);
	unsigned packed = 0;

	for (uint64_t key = 0; !wrong; key++) {
		void **slot = gm_radix_ceil(&as->blocks, &key);
		const struct gm_packed *p = slot ? gm_packed_of(*slot) : NULL;
		const struct gm_block *b = slot ? *slot : NULL;

		if (!b)
			break;
		if ((p ? p->as : b->as) != as || (p ? p->va : b->va) != key * GM_BLOCK_BYTES || (!p && !b->indexed))
			wrong = "a block stands in the wrong place of the index";
		else if (p)
			wrong = gm_pack_check(p);
		packed += p != NULL;
	}
	return !wrong && packed != atomic_load(&as->pack.count) ? "packed blocks are miscounted" : wrong;
}

gm_ret_t gm_as_check(struct gm_as *as, char *text, size_t bytes)
{
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);
	const char *wrong;
	uint64_t va = 0;

	if (ret)
		return ret;
	gm_lock(as->env, &as->lock);
	wrong = gm_regions_check(&as->regions);
	if (!wrong)
		wrong = check_index(as);
	if (!wrong)
		wrong = gm_pin_check(as);
	gm_unlock(as->env, &as->lock);
	for (struct gm_block *b; !wrong && (b = gm_block_next_live(as, va, UINT64_MAX)); gm_block_put(b)) {
		va = b->va + GM_BLOCK_BYTES;
		wrong = check_block(b);
	}
	for (unsigned i = 0; i < GM_MAX_DEVS && !wrong; i++)
		if (as->lib->devs[i])
			wrong = gm_node_check(&as->lib->devs[i]->node);
	if (!wrong)
		return GM_RET_SUCCESS;
	if (text && bytes)
		(void)snprintf(text, bytes, "%s (near 0x%llx)", wrong, (unsigned long long)(va ? va - GM_BLOCK_BYTES : 0));
	return gm_fail(GM_RET_IO, "invariant broken: %s", wrong);
}
