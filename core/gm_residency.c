/* SPDX-License-Identifier: MIT */
/*
 * gm_residency(): bytes per place, cheap enough to poll.
 *
 *     the index, leaf node by leaf node: --nothing there--> the regions say: one step per region
 *                                        --packed--> its masks, mostly none or full: no bit is counted
 *                                        --block--> its masks, under its lock
 *
 * The index and the regions are read under the space's lock, which is given up every so many blocks. A block's lock is
 * taken behind it, uncontended but for those who are at that block. Nothing is opened, nothing allocated.
 *
 * The order in which places are asked is that of gm_query().
 */
#include "config.h"

#include "core/gm_as.h"
#include "hal/gm_handle.h"

/* Blocks looked at under one lock. */
#define AT_ONCE 1024u

/* Masks of a block are none or all bits most of the time. */
static uint64_t bytes_of(const struct gm_mask *a)
{
	if (gm_mask_empty(a))
		return 0;
	return gm_mask_full(a) ? GM_BLOCK_BYTES : (uint64_t)gm_mask_count(a) * GM_PAGE_BYTES;
}

/* Those of `where` leave `rest`. */
static uint64_t take(struct gm_mask *rest, const struct gm_mask *where)
{
	struct gm_mask here = gm_mask_and(*rest, *where);

	*rest = gm_mask_sub(*rest, here);
	return bytes_of(&here);
}

/* (block) */
static void add_block(struct gm_residency *out, const struct gm_block *b, struct gm_mask rest)
{
	struct gm_mask host = gm_mask_or(b->host, b->staged), busy = gm_mask_or(b->busy, b->doomed);

	busy = gm_mask_and(gm_mask_sub(busy, b->leaving), rest);
	out->busy_bytes += bytes_of(&busy);
	busy = gm_mask_and(gm_mask_sub(b->held, b->leaving), rest);
	out->held_bytes += bytes_of(&busy);
	out->outside_bytes += take(&rest, &b->leaving);
	for (unsigned i = 0; i < GM_MAX_DEVS; i++)
		if (b->backed[i])
			out->dev_bytes[i] += take(&rest, &b->node[i]->resident);
	out->poisoned_bytes += take(&rest, &b->poisoned);
	out->in_place_bytes += take(&rest, &b->edge);
	out->host_bytes += take(&rest, &host);
	out->none_bytes += take(&rest, &b->managed);
	out->outside_bytes += bytes_of(&rest);
}

static unsigned code_of(const struct gm_packed *p, enum gm_pack_mask which)
{
	return p->codes >> (which * GM_PACK_CODE_BITS) & ((1u << GM_PACK_CODE_BITS) - 1);
}

/* All of a block in one place: from the codes alone. */
static bool add_uniform(struct gm_residency *out, const struct gm_packed *p)
{
	if (code_of(p, GM_PACK_RESIDENT) == GM_PACK_FULL && p->flags & GM_PACK_NODE)
		out->dev_bytes[p->dev] += GM_BLOCK_BYTES;
	else if (code_of(p, GM_PACK_HOST) == GM_PACK_FULL && code_of(p, GM_PACK_EDGE) == GM_PACK_NONE)
		out->host_bytes += GM_BLOCK_BYTES;
	else
		return false;
	return true;
}

static void add_packed(struct gm_residency *out, const struct gm_packed *p, const struct gm_mask *pages)
{
	struct gm_block view = { .va = 0 };
	struct gm_bnode node = { .unit = { NULL } };
	struct gm_bmap map = { .read = gm_mask_none() };

	gm_pack_unpack(p, &view, &node, &map);
	add_block(out, &view, *pages);
}

/* (A) No state is kept: host, untracked, where a region says so. */
static void add_untracked(struct gm_as *as, struct gm_residency *out, uint64_t va, uint64_t end)
{
	uint64_t managed = 0;
	struct gm_region buf, *r;

	for (r = gm_regions_first(&as->regions, va, end, &buf); r; r = gm_regions_next(&as->regions, r, end)) {
		uint64_t bytes = (r->end < end ? r->end : end) - (r->va > va ? r->va : va);

		managed += bytes;
		if (gm_region_stays(r))
			out->in_place_bytes += bytes;
		else
			out->host_bytes += bytes;
	}
	out->outside_bytes += end - va - managed;
}

/* (A) Of [va, end), what the entry of the index has. */
static void add_entry(struct gm_as *as, struct gm_residency *out, void *entry, uint64_t va, uint64_t end)
{
	unsigned first = (unsigned)(va % GM_BLOCK_BYTES / GM_PAGE_BYTES);
	struct gm_mask pages = gm_mask_span(first, first + (unsigned)((end - va) / GM_PAGE_BYTES));
	const struct gm_packed *p = gm_packed_of(entry);
	struct gm_block *b = entry;

	if (p) {
		add_packed(out, p, &pages);
		return;
	}
	gm_lock(as->env, &b->lock);
	add_block(out, b, pages);
	gm_unlock(as->env, &b->lock);
}

/* Of that one, soon. A prefetch of nothing does no harm. */
#define AHEAD 8u
static void prefetch(void *const *slot, unsigned rest)
{
	if (rest > AHEAD)
		__builtin_prefetch((const void *)((uintptr_t)slot[AHEAD] & ~(uintptr_t)1));
}

/* (A) From va on, at most so many blocks. Returns where it ended. */
static uint64_t add_some(struct gm_as *as, struct gm_residency *out, uint64_t va, uint64_t end)
{
	for (unsigned seen = 0; va < end && seen < AT_ONCE;) {
		uint64_t key = va / GM_BLOCK_BYTES, next = va;
		void **slot = gm_radix_ceil(&as->blocks, &key);
		unsigned n = slot ? gm_radix_rest(key) : 0;

		next = slot && key * GM_BLOCK_BYTES < end ? key * GM_BLOCK_BYTES : end;
		if (next > va) {
			add_untracked(as, out, va, next);
			va = next;
		}
		for (; n && va < end && *slot; n--, slot++, seen++, va = next) {
			const struct gm_packed *p = gm_packed_of(*slot);

			prefetch(slot, n);
			next = gm_block_base(va) + GM_BLOCK_BYTES;
			next = next < end ? next : end;
			if (!p || next - va < GM_BLOCK_BYTES || !add_uniform(out, p))
				add_entry(as, out, *slot, va, next);
		}
	}
	return va;
}

gm_ret_t gm_residency(struct gm_as *as, uint64_t va, uint64_t bytes, struct gm_residency *out)
{
	struct gm_residency sum = { .outside_bytes = 0 };
	uint64_t end = va + bytes;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (ret)
		return ret;
	if (!out)
		return gm_fail(GM_RET_INVAL, "gm_residency: out must not be NULL");
	if (!bytes || end < va || end > UINT64_MAX - GM_PAGE_BYTES)
		return gm_fail(GM_RET_INVAL, "gm_residency: 0x%llx + 0x%llx is empty or overflows", (unsigned long long)va,
			       (unsigned long long)bytes);
	va &= ~(uint64_t)(GM_PAGE_BYTES - 1);
	end = (end + GM_PAGE_BYTES - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1);
	while (va < end) {
		gm_lock(as->env, &as->lock);
		va = add_some(as, &sum, va, end);
		gm_unlock(as->env, &as->lock);
	}
	*out = sum;
	return GM_RET_SUCCESS;
}
