/* SPDX-License-Identifier: MIT */
/*
 * Operations on mappings. Each: the caller's rules, the books before, the backend, the books after, a look.
 *
 * What the shim cannot pass on (a page table that is dead) fails with FAULT, and the report says why.
 */
#include "config.h"

#include "hal/gm_shim.h"

static struct gm_shim_at at_of(const char *op, struct gm_shim_pmap *p, uint64_t va, uint64_t pa, uint64_t bytes,
			       uint32_t pte)
{
	return (struct gm_shim_at){ .op = op, .step = GM_STEP_FREE, .pmap = p, .va = va, .pa = pa, .bytes = bytes,
				    .pte = pte };
}

static void report_found(struct gm_shim_dev *d, const struct gm_shim_found *found)
{
	if (found->rule != GM_RULES)
		gm_shim_report(d, found->rule, &found->at, "%s", "");
}

/* It failed: then it had no effect. After a result that it does not list, who knows? */
static void judge_failed(const struct gm_shim_call *c, gm_ret_t ret)
{
	struct gm_shim_pmap *p = c->at.pmap;

	if (ret == GM_RET_NODEV) /* it is asked nothing any more */
		return;
	if (gm_shim_listed(c->op, ret)) {
		gm_shim_probe_failed(p, &c->at);
		return;
	}
	gm_shim_lock(p->dev);
	gm_shim_doubt(p, &c->at, (c->at.pte & GM_PTE_HOST) != 0);
	gm_shim_unlock(p->dev);
}

gm_ret_t gm_shim_pmap_enter(void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	struct gm_shim_pmap *p = pmap;
	struct gm_shim_dev *d = p->dev;
	struct gm_shim_at at = at_of("pmap_enter", p, va, pa, bytes, pte);
	struct gm_shim_found found = { .rule = GM_RULES };
	struct gm_shim_call c;
	bool sound;
	gm_ret_t ret;

	if (!gm_shim_alive(p, &at))
		return GM_RET_FAULT;
	sound = gm_shim_range_ok(d, &at) && gm_shim_pte_ok(d, &at, GM_PTE_WRITE | GM_PTE_ATOMIC | GM_PTE_HOST);
	gm_shim_begin(d, &c, GM_SHIM_OP_PMAP_ENTER, &at);
	if (sound) {
		gm_shim_pin(d, 1);
		gm_shim_need(p, va, pa, bytes, pte & GM_PTE_HOST);
		gm_shim_lock(d);
		if (!atomic_load(&d->blind))
			gm_shim_check_enter(p, &at, &found);
		gm_shim_enter(p, &at);
		d->pins--;
		gm_shim_unlock(d);
		report_found(d, &found);
	}
	ret = d->mmu.pmap_enter(p->pmap, va, pa, bytes, pte);
	gm_shim_returned(&c);
	if (sound) {
		gm_shim_lock(d);
		gm_shim_entered(p, &at, ret != GM_RET_SUCCESS);
		if (found.rule != GM_RULES) /* what the device does with that is not written anywhere */
			gm_shim_doubt(p, &at, (pte & GM_PTE_HOST) != 0);
		gm_shim_unlock(d);
		if (ret)
			judge_failed(&c, ret);
		else
			gm_shim_probe_entered(p, &at);
	}
	gm_shim_end(&c, ret);
	return ret;
}

gm_ret_t gm_shim_pmap_remove(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_shim_pmap *p = pmap;
	struct gm_shim_dev *d = p->dev;
	struct gm_shim_at at = at_of("pmap_remove", p, va, 0, bytes, 0);
	struct gm_shim_call c;
	bool sound;
	gm_ret_t ret;

	if (!gm_shim_alive(p, &at))
		return GM_RET_FAULT;
	sound = gm_shim_range_ok(d, &at);
	gm_shim_begin(d, &c, GM_SHIM_OP_PMAP_REMOVE, &at);
	ret = d->mmu.pmap_remove(p->pmap, va, bytes);
	gm_shim_returned(&c);
	if (sound && ret == GM_RET_SUCCESS) {
		gm_shim_lock(d);
		gm_shim_removed(p, &at);
		gm_shim_unlock(d);
		gm_shim_probe_beside(p, &at);
	} else if (sound) {
		judge_failed(&c, ret);
	}
	gm_shim_end(&c, ret);
	return ret;
}

/* Where tlb_invl() sleeps for nothing its caller may not, as in the fault handler. */
static bool may_look(struct gm_shim_dev *d)
{
	return !gm_shim_has(d, GM_CAP_FAST_INVL) || !atomic_load(&d->access_waits);
}

gm_ret_t gm_shim_tlb_invl(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_shim_pmap *p = pmap;
	struct gm_shim_dev *d = p->dev;
	struct gm_shim_at at = at_of("tlb_invl", p, va, 0, bytes, 0);
	struct gm_shim_gone gone;
	struct gm_shim_call c;
	bool sound;
	gm_ret_t ret;

	if (!gm_shim_alive(p, &at))
		return GM_RET_FAULT;
	sound = gm_shim_range_ok(d, &at);
	gm_shim_begin(d, &c, GM_SHIM_OP_TLB_INVL, &at);
	ret = d->mmu.tlb_invl(p->pmap, va, bytes);
	gm_shim_returned(&c);
	if (sound && ret == GM_RET_SUCCESS) {
		gm_shim_lock(d);
		gm_shim_choose_gone(p, &at, &gone);
		gm_shim_invalidated(p, &at);
		gm_shim_unlock(d);
		if (may_look(d))
			gm_shim_probe_gone(p, &at, &gone);
		gm_shim_sweep(p, &at);
	}
	gm_shim_end(&c, ret);
	return ret;
}

gm_ret_t gm_shim_pmap_protect(void *pmap, uint64_t va, uint64_t bytes, uint32_t pte)
{
	struct gm_shim_pmap *p = pmap;
	struct gm_shim_dev *d = p->dev;
	struct gm_shim_at at = at_of("pmap_protect", p, va, 0, bytes, pte);
	struct gm_shim_call c;
	bool sound;
	gm_ret_t ret;

	if (!gm_shim_alive(p, &at))
		return GM_RET_FAULT;
	sound = gm_shim_cap_ok(d, GM_CAP_PROTECT, &at) && gm_shim_range_ok(d, &at) &&
		gm_shim_pte_ok(d, &at, GM_PTE_WRITE | GM_PTE_ATOMIC);
	if (!d->mmu.pmap_protect)
		return GM_RET_UNIMPLEMENTED;
	gm_shim_begin(d, &c, GM_SHIM_OP_PMAP_PROTECT, &at);
	ret = d->mmu.pmap_protect(p->pmap, va, bytes, pte);
	gm_shim_returned(&c);
	if (sound && ret == GM_RET_SUCCESS) {
		gm_shim_lock(d);
		gm_shim_protected(p, &at);
		gm_shim_unlock(d);
		gm_shim_probe_protected(p, &at);
		gm_shim_probe_beside(p, &at);
	} else if (sound) {
		judge_failed(&c, ret);
	}
	gm_shim_end(&c, ret);
	return ret;
}

/* What the caller has done to the pages, for pmap_harvest(). */
static void mark_uses(struct gm_shim_pmap *p, uint64_t va, uint64_t bytes, bool write, uint64_t harvests)
{
	uint64_t first = va & ~(uint64_t)(GM_PAGE_BYTES - 1);

	gm_shim_lock(p->dev);
	/* A harvest meanwhile may have taken the bits already. */
	for (uint64_t at = first; at < va + bytes && p->harvests == harvests; at += GM_PAGE_BYTES) {
		struct gm_shim_page *page = gm_shim_page(p, at);

		if (page)
			page->cur |= write ? GM_SHIM_DIRTY | GM_SHIM_TOUCHED : GM_SHIM_TOUCHED;
	}
	gm_shim_unlock(p->dev);
}

gm_ret_t gm_shim_access(void *pmap, uint64_t va, void *buf, size_t bytes, bool write)
{
	struct gm_shim_pmap *p = pmap;
	struct gm_shim_dev *d = p->dev;
	struct gm_shim_at at = at_of("access", p, va, 0, bytes, 0);
	struct gm_shim_call c;
	uint64_t harvests;
	gm_ret_t ret;

	if (!gm_shim_alive(p, &at))
		return GM_RET_FAULT;
	(void)gm_shim_cap_ok(d, GM_CAP_ACCESS, &at);
	if (!d->mmu.access)
		return GM_RET_UNIMPLEMENTED;
	if (!bytes || va + bytes < va)
		gm_shim_report(d, GM_RULE_RANGE, &at, "%s", "an access has bytes, and does not wrap");
	gm_shim_begin(d, &c, GM_SHIM_OP_ACCESS, &at);
	gm_shim_lock(d);
	harvests = p->harvests;
	gm_shim_unlock(d);
	ret = d->mmu.access(p->pmap, va, buf, bytes, write);
	if (ret == GM_RET_SUCCESS)
		mark_uses(p, va, bytes, write, harvests);
	gm_shim_end(&c, ret);
	return ret;
}

/* Before the backend looks: which pages may have bits, and which must be dirty. */
static void harvest_before(struct gm_shim_pmap *p, uint64_t va, size_t n, uint64_t *uses)
{
	struct gm_shim_dev *d = p->dev;
	size_t pages = (size_t)(d->granule_bytes / GM_PAGE_BYTES);

	gm_shim_lock(d);
	p->harvests++;
	for (size_t i = 0; i < n; i++) {
		uses[i] = 0;
		for (size_t k = 0; k < pages; k++) {
			struct gm_shim_page *page = gm_shim_page(p, va + (i * pages + k) * GM_PAGE_BYTES);

			if (page)
				uses[i] |= page->cur & (GM_SHIM_USES | GM_SHIM_M | GM_SHIM_UNSURE);
		}
	}
	gm_shim_unlock(d);
}

static void harvest_after(struct gm_shim_pmap *p, const struct gm_shim_at *at, uint8_t *bits, const uint64_t *uses)
{
	struct gm_shim_dev *d = p->dev;
	size_t n = (size_t)(at->bytes / d->granule_bytes);
	struct gm_shim_at here = *at;

	for (size_t i = 0; i < n; i++) {
		uint64_t used = uses[i];

		here.va = at->va + i * d->granule_bytes;
		here.bytes = d->granule_bytes;
		if (bits[i] & ~(GM_PAGE_ACCESSED | GM_PAGE_DIRTY))
			gm_shim_report(d, GM_RULE_HARVEST_BITS, &here, "it reported 0x%x", (unsigned)bits[i]);
		else if (bits[i] && !(used & (GM_SHIM_EVER | GM_SHIM_M | GM_SHIM_UNSURE)))
			gm_shim_report(d, GM_RULE_HARVEST_UNMAPPED, &here, "it reported 0x%x", (unsigned)bits[i]);
		else if ((used & GM_SHIM_DIRTY) && !(bits[i] & GM_PAGE_DIRTY))
			gm_shim_report(d, GM_RULE_HARVEST_LOST, &here, "it reported 0x%x after a store",
				       (unsigned)bits[i]);
		/* Accessed may be lost: better than one that the shim itself has made. */
		if ((used & GM_SHIM_PROBED) && !(used & GM_SHIM_TOUCHED) && !(bits[i] & GM_PAGE_DIRTY))
			bits[i] &= (uint8_t)~GM_PAGE_ACCESSED;
	}
	gm_shim_lock(d);
	p->harvests++;
	for (uint64_t off = 0; off < at->bytes; off += GM_PAGE_BYTES) {
		struct gm_shim_page *page = gm_shim_page(p, at->va + off);

		if (page)
			page->cur = (page->cur & ~GM_SHIM_USES) |
				    ((page->cur | page->old) & GM_SHIM_M ? GM_SHIM_EVER : 0);
	}
	gm_shim_unlock(d);
}

gm_ret_t gm_shim_harvest(void *pmap, uint64_t va, uint64_t bytes, uint8_t *bits)
{
	struct gm_shim_pmap *p = pmap;
	struct gm_shim_dev *d = p->dev;
	struct gm_shim_at at = at_of("pmap_harvest", p, va, 0, bytes, 0);
	struct gm_shim_call c;
	uint64_t *uses = NULL;
	size_t n = (size_t)(bytes / d->granule_bytes);
	gm_ret_t ret;

	if (!gm_shim_alive(p, &at))
		return GM_RET_FAULT;
	if (!gm_shim_cap_ok(d, GM_CAP_DIRTY, &at) || !d->mmu.pmap_harvest)
		return GM_RET_UNIMPLEMENTED;
	if (gm_shim_range_ok(d, &at) && !atomic_load(&d->blind)) {
		uses = d->out->alloc(d->out->self, n * sizeof(*uses));
		if (!uses)
			atomic_store(&d->blind, true);
	}
	gm_shim_begin(d, &c, GM_SHIM_OP_HARVEST, &at);
	if (uses)
		harvest_before(p, va, n, uses);
	ret = d->mmu.pmap_harvest(p->pmap, va, bytes, bits);
	if (uses && ret == GM_RET_SUCCESS)
		harvest_after(p, &at, bits, uses);
	gm_shim_end(&c, ret);
	if (uses)
		d->out->free(d->out->self, uses, n * sizeof(*uses));
	return ret;
}
