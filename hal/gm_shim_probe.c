/* SPDX-License-Identifier: MIT */
/*
 * Looks through the device's own translation, where it has GM_CAP_ACCESS: at the first, the last and a random page of
 * the range of an operation, before the operation returns. Until then nobody else changes the range, so what the
 * books say of it is what the device must show:
 *
 *     mapped                       a load passes, and shows what cpu_ptr() shows
 *     mapped without write, and no old translation with it waits for tlb_invl()
 *                                  a store of what the load showed is refused
 *     not mapped, nothing waits    a load is refused
 *
 * Jobs of the application may store to mapped pages meanwhile: a difference counts when the CPU sees the same before
 * and after the load, three times in a row. Host memory that is mapped in place is never looked at: an access may wait
 * for the very thread that looks.
 *
 * A look is an access(), which may wait, for a small job of the device say. So it is not judged as a part of the
 * operation, neither its time nor its services (gm_shim_look_begin()). And tlb_invl() of a device with
 * GM_CAP_FAST_INVL, which is called where nobody may sleep, is looked at only as long as access() has never been seen
 * to wait: that is by a service, because a backend has no other way. What was entered was looked at before, so the
 * first invalidation knows already. On such a device a stale translation is seen after plans, and where
 * pmap_remove() and pmap_enter() look.
 *
 * Pages beside the range may be changed by others: what is seen there counts only if no operation began meanwhile.
 */
#include "config.h"

#include <string.h>

#include "hal/gm_shim.h"

/* Words of a page that are looked at: the first, and one anywhere. Each is one access that nothing can tear. */
#define WORDS 2u
#define TRIES 3u

uint64_t gm_shim_random(struct gm_shim_dev *d, uint64_t n)
{
	gm_shim_lock(d);
	d->random ^= d->random << 13;
	d->random ^= d->random >> 7;
	d->random ^= d->random << 17;
	n = d->random % n;
	gm_shim_unlock(d);
	return n;
}

static bool can_look(struct gm_shim_dev *d)
{
	bool ok;

	if (!gm_shim_has(d, GM_CAP_ACCESS) || !d->mmu.access || atomic_load(&d->blind))
		return false;
	gm_shim_lock(d);
	ok = !d->lost && !d->given_up && !gm_shim_held(d); /* a lock that was kept would stop us */
	gm_shim_unlock(d);
	return ok;
}

/* What the books say of a page; false: nothing that could be compared. */
static bool look_up(struct gm_shim_pmap *p, uint64_t va, struct gm_shim_page *out)
{
	struct gm_shim_dev *d = p->dev;
	const struct gm_shim_page *page;
	bool ok;

	gm_shim_lock(d);
	page = gm_shim_page(p, va);
	*out = page ? *page : (struct gm_shim_page){ 0 };
	ok = page && !p->dead && !(page->cur & (GM_SHIM_UNSURE | GM_SHIM_H)) && !(page->old & GM_SHIM_H);
	gm_shim_unlock(d);
	return ok;
}

/* Where in its page a word is. */
struct look {
	uint64_t off[WORDS];
};

static struct look choose(struct gm_shim_dev *d)
{
	return (struct look){ { 0, gm_shim_random(d, GM_PAGE_BYTES / sizeof(uint64_t)) * sizeof(uint64_t) } };
}

static gm_ret_t device_access(struct gm_shim_pmap *p, uint64_t va, void *buf, size_t bytes, bool write)
{
	struct gm_shim_call c;
	gm_ret_t ret;

	gm_shim_look_begin(p->dev, &c);
	ret = p->dev->mmu.access(p->pmap, va, buf, bytes, write);
	gm_shim_look_end(&c);
	return ret;
}

static gm_ret_t device_load(struct gm_shim_pmap *p, uint64_t va, const struct look *look, uint64_t *words)
{
	struct gm_shim_page *page;
	gm_ret_t ret = GM_RET_SUCCESS;

	for (unsigned i = 0; i < WORDS && !ret; i++)
		ret = device_access(p, va + look->off[i], &words[i], sizeof(words[i]), false);
	gm_shim_lock(p->dev);
	p->dev->lost |= ret == GM_RET_NODEV;
	page = gm_shim_page(p, va);
	if (page)
		page->cur |= GM_SHIM_PROBED;
	gm_shim_unlock(p->dev);
	return ret;
}

/* Jobs may store at the same time, which is the point of looking three times: no race to report. */
__attribute__((no_sanitize("thread"))) static void cpu_load(const char *page, const struct look *look, uint64_t *words)
{
	for (unsigned i = 0; i < WORDS; i++)
		words[i] = __atomic_load_n((const uint64_t *)(const void *)(page + look->off[i]), __ATOMIC_RELAXED);
}

/* The bytes differ from what the CPU sees, for good. */
static bool differs(struct gm_shim_pmap *p, uint64_t va, uint64_t pa, const struct look *look, uint64_t *seen)
{
	struct gm_shim_dev *d = p->dev;
	uint64_t before[WORDS], after[WORDS];
	const char *cpu = NULL;

	if (gm_shim_has(d, GM_CAP_CPU_VISIBLE) && d->mmu.cpu_ptr)
		cpu = d->mmu.cpu_ptr(d->dev, pa, GM_PAGE_BYTES);
	if (!cpu)
		return false;
	for (unsigned i = 0; i < TRIES; i++) {
		cpu_load(cpu, look, before);
		if (device_load(p, va, look, seen))
			return false;
		cpu_load(cpu, look, after);
		if (memcmp(before, after, sizeof(before)) != 0 || memcmp(before, seen, sizeof(before)) == 0)
			return false;
	}
	return true;
}

/* What the books say of the range is wrong: one report is enough. */
static void doubt(struct gm_shim_pmap *p, const struct gm_shim_at *at)
{
	gm_shim_lock(p->dev);
	gm_shim_doubt(p, at, false);
	gm_shim_unlock(p->dev);
}

/* The rules that are broken where a page is not there, is another, or takes a store that it must not. */
struct proof {
	enum gm_rule lost, elsewhere, store;
};

/* One page of the range. */
static void look_at(struct gm_shim_pmap *p, const struct gm_shim_at *at, uint64_t va, struct proof proof)
{
	struct gm_shim_dev *d = p->dev;
	struct gm_shim_at here = *at;
	const struct look look = choose(d);
	uint64_t words[WORDS] = { 0 };
	struct gm_shim_page page;
	gm_ret_t ret;

	if (!look_up(p, va, &page) || !(page.cur & GM_SHIM_M))
		return;
	if (page.old && (page.old ^ page.cur) & ~GM_SHIM_FLAGS) /* either is legal */
		return;
	here.va = va;
	here.pa = page.cur & ~GM_SHIM_FLAGS;
	here.bytes -= va - at->va;
	ret = device_load(p, va, &look, words);
	if (ret == GM_RET_NODEV)
		return;
	if (ret) {
		gm_shim_report(d, proof.lost, &here, "a load says %s", gm_ret_name(ret));
		doubt(p, at);
		return;
	}
	if (differs(p, va, here.pa, &look, words)) {
		gm_shim_report(d, proof.elsewhere, &here, "a load shows other bytes than the CPU sees");
		doubt(p, at);
		return;
	}
	if (!((page.cur | page.old) & GM_SHIM_RIGHTS) && device_access(p, va, words, 1, true) == GM_RET_SUCCESS)
		gm_shim_report(d, proof.store, &here, "a store passed");
}

static uint64_t last_page(const struct gm_shim_at *at)
{
	return at->va + at->bytes - GM_PAGE_BYTES;
}

static uint64_t some_page(struct gm_shim_dev *d, const struct gm_shim_at *at)
{
	return at->va + gm_shim_random(d, at->bytes / GM_PAGE_BYTES) * GM_PAGE_BYTES;
}

static void look_at_three(struct gm_shim_pmap *p, const struct gm_shim_at *at, struct proof proof)
{
	look_at(p, at, at->va, proof);
	if (at->bytes > GM_PAGE_BYTES)
		look_at(p, at, last_page(at), proof);
	if (at->bytes > 2 * (uint64_t)GM_PAGE_BYTES)
		look_at(p, at, some_page(p->dev, at), proof);
}

/* A page that is not mapped must not be there. */
static void look_for_none(struct gm_shim_pmap *p, const struct gm_shim_at *at, uint64_t va, enum gm_rule rule)
{
	struct gm_shim_at here = *at;
	struct gm_shim_page page;
	uint64_t word;

	if (!look_up(p, va, &page) || page.old || page.cur & GM_SHIM_M)
		return;
	here.va = va;
	here.bytes -= va - at->va;
	if (device_access(p, va, &word, sizeof(word), false) == GM_RET_SUCCESS)
		gm_shim_report(p->dev, rule, &here, "a load passed");
}

void gm_shim_probe_entered(struct gm_shim_pmap *p, const struct gm_shim_at *at)
{
	const struct proof proof = { GM_RULE_ENTER_LOST, GM_RULE_ENTER_ELSEWHERE, GM_RULE_WRITE_ALLOWED };

	if (can_look(p->dev))
		look_at_three(p, at, proof);
}

void gm_shim_probe_failed(struct gm_shim_pmap *p, const struct gm_shim_at *at)
{
	const struct proof proof = { GM_RULE_FAILED_EFFECT, GM_RULE_FAILED_EFFECT, GM_RULE_FAILED_EFFECT };

	if (!can_look(p->dev) || at->pte & GM_PTE_HOST)
		return;
	look_for_none(p, at, at->va, GM_RULE_FAILED_EFFECT);
	if (at->bytes > GM_PAGE_BYTES)
		look_for_none(p, at, last_page(at), GM_RULE_FAILED_EFFECT);
	look_at_three(p, at, proof);
}

/* A page outside of the range is mapped, and no operation has begun since: then it must be there. */
static void look_beside(struct gm_shim_pmap *p, const struct gm_shim_at *at, uint64_t va)
{
	struct gm_shim_dev *d = p->dev;
	struct gm_shim_at here = *at;
	struct gm_shim_page page, after;
	struct gm_shim_fence *f;
	const struct look look = choose(d);
	uint64_t words[WORDS], ops;
	bool calm;
	gm_ret_t ret;

	gm_shim_lock(d);
	ops = d->ops;
	calm = LIST_FIRST(&d->calls) && !LIST_NEXT(LIST_FIRST(&d->calls), link); /* ours, and no look of another */
	TAILQ_FOREACH(f, &d->fences, link)
		calm = calm && f->kind != GM_SHIM_FENCE_PLAN;
	gm_shim_unlock(d);
	if (!calm || !look_up(p, va, &page) || page.old || !(page.cur & GM_SHIM_M))
		return;
	ret = device_load(p, va, &look, words);
	if (ret != GM_RET_FAULT || !look_up(p, va, &after) || after.old || !(after.cur & GM_SHIM_M))
		return;
	gm_shim_lock(d);
	calm = ops == d->ops;
	gm_shim_unlock(d);
	here.va = va;
	here.pa = page.cur & ~GM_SHIM_FLAGS;
	here.bytes = GM_PAGE_BYTES;
	if (calm)
		gm_shim_report(d, GM_RULE_CUT, &here, "the operation was on va 0x%llx, 0x%llx bytes",
			       (unsigned long long)at->va, (unsigned long long)at->bytes);
}

void gm_shim_probe_beside(struct gm_shim_pmap *p, const struct gm_shim_at *at)
{
	if (!can_look(p->dev))
		return;
	if (at->va)
		look_beside(p, at, at->va - GM_PAGE_BYTES);
	look_beside(p, at, at->va + at->bytes);
}

void gm_shim_probe_protected(struct gm_shim_pmap *p, const struct gm_shim_at *at)
{
	const struct proof proof = { GM_RULE_PROTECT_HOLE, GM_RULE_PROTECT_HOLE, GM_RULE_WRITE_ALLOWED };

	if (!can_look(p->dev))
		return;
	look_at_three(p, at, proof);
	look_for_none(p, at, at->va, GM_RULE_PROTECT_FILLED);
	if (at->bytes > GM_PAGE_BYTES)
		look_for_none(p, at, last_page(at), GM_RULE_PROTECT_FILLED);
}

/* (S) A page of device memory whose old translation is about to end. */
static bool is_going(struct gm_shim_pmap *p, uint64_t va)
{
	const struct gm_shim_page *page = gm_shim_page(p, va);

	return page && page->old & GM_SHIM_M && !((page->old | page->cur) & GM_SHIM_H);
}

void gm_shim_choose_gone(struct gm_shim_pmap *p, const struct gm_shim_at *at, struct gm_shim_gone *gone)
{
	struct gm_shim_chunk *chunk = gm_shim_chunk_at(p, at->va);
	/* Where books begin: ranges may be the whole of the address space. */
	uint64_t first = !chunk || chunk->va < at->va ? at->va : chunk->va;
	uint64_t candidate[3] = { first, last_page(at), 0 };

	gone->n = 0;
	for (uint64_t off = 0; chunk && off < GM_BLOCK_BYTES && off < at->bytes; off += GM_PAGE_BYTES)
		if (is_going(p, first + off) && (!candidate[2] || gm_shim_page(p, first + off)->cur & GM_SHIM_PROBED))
			candidate[2] = first + off; /* one that the device's own buffers may have kept */
	for (unsigned i = 0; i < 3; i++)
		if (candidate[i] && is_going(p, candidate[i]))
			gone->va[gone->n++] = candidate[i];
}

void gm_shim_probe_gone(struct gm_shim_pmap *p, const struct gm_shim_at *at, const struct gm_shim_gone *gone)
{
	const struct proof proof = { GM_RULE_CUT, GM_RULE_ENTER_ELSEWHERE, GM_RULE_WRITE_ALLOWED };

	if (!can_look(p->dev))
		return;
	for (unsigned i = 0; i < gone->n; i++) {
		look_for_none(p, at, gone->va[i], GM_RULE_STALE);
		look_at(p, at, gone->va[i], proof);
	}
}
