/* SPDX-License-Identifier: MIT */
/*
 * What the simulated process does by itself: loads, stores, system calls (madvise() is in random_madvise.c, mremap() in
 * random_remap.c).
 *
 * dontneed, munmap and mremap are over for the process before a device has
 * learnt of them; so each is followed by a call of the library that waits for
 * the events before anybody else may look (rnd_lib_settle()).
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "tests/stress/random_world.h"

#define RUN_PAGES 24u

/* ------------------------------------------------------- loads and stores */

/* Cells of a page that are not a counter's. */
static void choose_cells(struct rnd_world *w, const struct rnd_page *p, unsigned *cell, unsigned *cells)
{
	*cell = (unsigned)rnd(w, RND_CELLS);
	if (p->counter && *cell == 0)
		*cell = 1;
	*cells = 1 + (unsigned)rnd(w, RND_CELLS - *cell);
}

bool rnd_cpu_load(struct rnd_world *w)
{
	struct rnd_page *p = rnd_page(w);
	uint32_t changes = p->changes;
	uint8_t buf[GM_PAGE_BYTES];
	struct rnd_watch watch;
	unsigned cell, cells;
	gm_ret_t ret;

	choose_cells(w, p, &cell, &cells);
	if (!rnd_claim(p, cell, cells, false))
		return false;
	watch = rnd_watch(w);
	ret = gm_sim_load(w->sim, p->va + cell * RND_CELL_BYTES, buf, (size_t)cells * RND_CELL_BYTES);
	rnd_expect(w, &watch, ret, p->no_read || p->changes != changes ? RND_RET(FAULT) : 0, 0, "a CPU load", p->va);
	if (!ret)
		rnd_compare(w, p, cell * RND_CELL_BYTES, buf, (size_t)cells * RND_CELL_BYTES, "the CPU");
	if (!ret)
		rnd_check_touched(w, p, false);
	rnd_unclaim(p, cell, cells, false);
	rnd_step(w, "cpu load", &watch);
	return true;
}

bool rnd_cpu_store(struct rnd_world *w)
{
	struct rnd_page *p = rnd_page(w);
	uint32_t changes = p->changes;
	uint8_t buf[GM_PAGE_BYTES];
	struct rnd_watch watch;
	unsigned cell, cells;
	bool odd;
	gm_ret_t ret;

	choose_cells(w, p, &cell, &cells);
	if (!rnd_claim(p, cell, cells, true))
		return false;
	watch = rnd_watch(w);
	rnd_random_bytes(w, buf, (size_t)cells * RND_CELL_BYTES);
	ret = gm_sim_store(w->sim, p->va + cell * RND_CELL_BYTES, buf, (size_t)cells * RND_CELL_BYTES);
	odd = p->read_only || p->changes != changes;
	rnd_expect(w, &watch, ret, odd ? RND_RET(FAULT) : 0, 0, "a CPU store", p->va);
	if (!ret)
		memcpy(p->want + cell * RND_CELL_BYTES, buf, (size_t)cells * RND_CELL_BYTES);
	if (!ret)
		rnd_check_touched(w, p, true);
	rnd_unclaim(p, cell, cells, true);
	rnd_step(w, "cpu store", &watch);
	return true;
}

/* Whatever is there, whoever changes it: the access ends, that is all. */
bool rnd_cpu_touch(struct rnd_world *w)
{
	struct rnd_page *p = rnd_page(w);
	struct rnd_watch watch = rnd_watch(w);
	uint8_t byte;
	gm_ret_t ret = gm_sim_load(w->sim, p->va + rnd(w, GM_PAGE_BYTES), &byte, 1);

	rnd_expect(w, &watch, ret, watch.odd != w->odd || p->alone || p->no_read ? RND_RET(FAULT) : 0, 0,
		   "a CPU touch", p->va);
	rnd_step(w, "cpu touch", &watch);
	return true;
}

bool rnd_cpu_add(struct rnd_world *w)
{
	struct rnd_counter *c = &w->counter[rnd(w, 2)];
	struct rnd_watch watch = rnd_watch(w);
	uint64_t add = 1 + rnd(w, 5), old = 0, before = c->done;
	uint32_t changes = c->page->changes;
	bool odd;
	gm_ret_t ret;

	c->started += add;
	ret = gm_sim_fetch_add(w->sim, c->page->va + c->offset, add, &old);
	odd = c->page->read_only || c->page->changes != changes;
	rnd_expect(w, &watch, ret, odd ? RND_RET(FAULT) : 0, 0, "a CPU addition", c->page->va);
	if (ret)
		c->started -= add;
	else
		c->done += add;
	if (!ret && (old < before || old + add > c->started))
		rnd_fail(w, "a counter has %" PRIu64 ", not %" PRIu64 " to %" PRIu64, old, before, c->started - add);
	rnd_step(w, "cpu add", &watch);
	return true;
}

/* ------------------------------------------------------------- new memory */

void rnd_see_zeros(struct rnd_world *w, const struct rnd_watch *watch, struct rnd_page *p, unsigned n, const char *why)
{
	struct rnd_page *one = &p[rnd(w, n)];
	uint8_t buf[GM_PAGE_BYTES];
	gm_ret_t ret;

	ret = gm_sim_load(w->sim, one->va, buf, sizeof(buf));
	rnd_expect(w, watch, ret, 0, 0, "a CPU load", one->va);
	rnd_compare(w, one, 0, buf, sizeof(buf), why);
}

static bool may_unmap(const struct rnd_page *p)
{
	return !p->counter && !p->edge && p->managed != RND_UNMANAGED;
}

static bool may_unmap_unmanaged(const struct rnd_page *p)
{
	return !p->counter && !p->edge && p->managed == RND_UNMANAGED;
}

/* New memory, at the same address or, between two calls, perhaps at another. 0: none. */
static uint64_t map_anew(struct rnd_world *w, const struct rnd_watch *watch, uint64_t va, uint64_t bytes, bool elsewhere)
{
	if (!elsewhere)
		return gm_sim_mmap_at(w->sim, va, bytes, GM_READ | GM_WRITE);
	rnd_expect(w, watch, gm_sim_munmap(w->sim, va, bytes), 0, 0, "munmap", va);
	return gm_sim_mmap(w->sim, bytes, GM_READ | GM_WRITE);
}

enum rnd_managed rnd_elsewhere_now(struct rnd_world *w, enum rnd_managed before)
{
	return before == RND_UNMANAGED && w->spaces > 1 ? RND_UNMANAGED : RND_PERHAPS;
}

/* Pages that are gone, and others in their place. */
static void forget(struct rnd_world *w, struct rnd_page *p, unsigned n, uint64_t va)
{
	uint64_t old = p->va;

	for (unsigned i = 0; i < n; i++) {
		memset(p[i].want, 0, GM_PAGE_BYTES);
		p[i].va = va + (uint64_t)i * GM_PAGE_BYTES;
		p[i].pins = 0;
		p[i].read_only = p[i].obeyed = p[i].locked = false;
		rnd_forget_fork(&p[i]);
		if (p[i].managed == RND_MANAGED || va != old)
			p[i].managed = rnd_elsewhere_now(w, p[i].managed);
		rnd_changed(w, &p[i]);
	}
}

bool rnd_app_replace(struct rnd_world *w)
{
	bool unmanaged = rnd_one_in(w, 3);
	/* A range left behind in one space must not come to belong to another: that would be the test's error. */
	bool elsewhere = rnd_one_in(w, 2) && (unmanaged || w->spaces == 1);
	struct rnd_region *r = rnd_region(w);
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_page *p;
	unsigned n;
	uint64_t va;

	if (r->owned)
		return false;
	n = rnd_run(w, r, RUN_PAGES, unmanaged ? may_unmap_unmanaged : may_unmap, &p);
	if (!n || (elsewhere && !rnd_begin_move(w)))
		return false;
	if (!rnd_claim_alone(p, n)) {
		if (elsewhere)
			rnd_end_move(w);
		return false;
	}
	rnd_drop_begin(w);
	for (unsigned i = 0; i < n; i++)
		rnd_changed(w, &p[i]);
	va = map_anew(w, &watch, p->va, (uint64_t)n * GM_PAGE_BYTES, elsewhere);
	if (!va)
		rnd_fail(w, "no memory at 0x%" PRIx64, p->va);
	forget(w, p, n, va);
	rnd_see_zeros(w, &watch, p, n, "the CPU, in new memory,");
	if (!unmanaged && rnd_one_in(w, 2))
		(void)rnd_lib_adopt_run(w, p, n);
	rnd_lib_settle(w, p, n);
	rnd_drop_end(w);
	rnd_unclaim_alone(p, n);
	if (elsewhere)
		rnd_end_move(w);
	rnd_step(w, "munmap, mmap", &watch);
	return true;
}

/* -------------------------------------------------- rights, locks and pins */

/* One cell of each page, so that their addresses stay. */
static bool claim_addresses(struct rnd_page *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (rnd_claim(&p[i], RND_CELLS - 1, 1, false))
			continue;
		while (i--)
			rnd_unclaim(&p[i], RND_CELLS - 1, 1, false);
		return false;
	}
	return true;
}

static void unclaim_addresses(struct rnd_world *w, struct rnd_page *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		rnd_changed(w, &p[i]);
		rnd_unclaim(&p[i], RND_CELLS - 1, 1, false);
	}
}

static bool is_read_only(const struct rnd_page *p)
{
	return p->read_only;
}

static bool is_locked(const struct rnd_page *p)
{
	return p->locked;
}

bool rnd_app_protect(struct rnd_world *w)
{
	bool on = rnd_one_in(w, 3);
	struct rnd_page *p;
	unsigned n = rnd_run(w, rnd_region(w), RUN_PAGES / 2, on ? NULL : is_read_only, &p);
	struct rnd_watch watch = rnd_watch(w);
	gm_ret_t ret;

	if (!n || !claim_addresses(p, n))
		return false;
	for (unsigned i = 0; i < n; i++) {
		p[i].read_only = p[i].changing = true; /* while it changes, both is legal */
		rnd_changed(w, &p[i]);
	}
	ret = gm_sim_mprotect(w->sim, p->va, (uint64_t)n * GM_PAGE_BYTES, on ? GM_READ : GM_READ | GM_WRITE);
	rnd_expect(w, &watch, ret, 0, 0, "mprotect", p->va);
	for (unsigned i = 0; i < n; i++) {
		p[i].read_only = on;
		p[i].changing = p[i].obeyed = false;
	}
	unclaim_addresses(w, p, n);
	rnd_step(w, "mprotect", &watch);
	return true;
}

bool rnd_app_lock(struct rnd_world *w)
{
	bool on = rnd_one_in(w, 4);
	struct rnd_page *p;
	unsigned n = rnd_run(w, rnd_region(w), RUN_PAGES / 4, on ? NULL : is_locked, &p);
	struct rnd_watch watch = rnd_watch(w);
	gm_ret_t ret;

	if (!n || !claim_addresses(p, n))
		return false;
	for (unsigned i = 0; i < n; i++) {
		p[i].locked = true;
		rnd_changed(w, &p[i]);
	}
	ret = gm_sim_mlock(w->sim, p->va, (uint64_t)n * GM_PAGE_BYTES, on);
	rnd_expect(w, &watch, ret, 0, 0, "mlock", p->va);
	for (unsigned i = 0; i < n; i++)
		p[i].locked = on;
	unclaim_addresses(w, p, n);
	rnd_step(w, "mlock", &watch);
	return true;
}

static bool is_pinned(const struct rnd_page *p)
{
	return p->pins > 0;
}

bool rnd_app_pin(struct rnd_world *w)
{
	bool on = rnd_one_in(w, 3);
	struct rnd_page *p;
	unsigned n = rnd_run(w, rnd_region(w), 1, on ? NULL : is_pinned, &p);
	struct rnd_watch watch = rnd_watch(w);
	gm_ret_t ret = GM_RET_SUCCESS;

	if (!n || !claim_addresses(p, 1))
		return false;
	rnd_changed(w, p);
	if (on)
		ret = gm_sim_pin(w->sim, p->va);
	else
		gm_sim_unpin(w->sim, p->va);
	rnd_expect(w, &watch, ret, p->read_only || watch.odd != w->odd ? RND_RET(FAULT) : 0, 0, "a pin", p->va);
	if (on)
		p->pins += !ret;
	else
		p->pins -= p->pins > 0;
	unclaim_addresses(w, p, 1);
	rnd_step(w, "pin", &watch);
	return true;
}

/* At the end nothing is odd any more. */
void rnd_app_restore(struct rnd_world *w)
{
	for (unsigned i = 0; i < w->regions; i++) {
		struct rnd_region *r = &w->region[i];

		for (unsigned k = 0; !r->lost && k < r->pages; k++) {
			struct rnd_page *p = &r->page[k];

			if (p->read_only && gm_sim_mprotect(w->sim, p->va, GM_PAGE_BYTES, GM_READ | GM_WRITE))
				rnd_fail(w, "mprotect of 0x%" PRIx64 " back", p->va);
			if (p->locked && gm_sim_mlock(w->sim, p->va, GM_PAGE_BYTES, false))
				rnd_fail(w, "munlock of 0x%" PRIx64, p->va);
			for (; p->pins > 0; p->pins--)
				gm_sim_unpin(w->sim, p->va);
			p->read_only = p->obeyed = p->locked = false;
		}
	}
}
