/* SPDX-License-Identifier: MIT */
/*
 * Promises: rights that devices obey (gm_protect()), pages that stay where they are (gm_pin()).
 *
 * Whoever changes rights, or pins, keeps the addresses and looks at once whether it is so, in the library's books and by
 * accesses of devices, while all others go on. Rights other than reading and writing are lent only, and every pin is
 * undone by who made it; so what others may be told in between follows from the page's own marks.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "tests/stress/random_world.h"

#define RUN_PAGES 16u
#define LAST (RND_CELLS - 1)
#define TROUBLE (RND_RET(IO) | RND_RET(NOMEM) | RND_RET(TIMEDOUT))

static bool any_held(struct rnd_world *w, const struct rnd_watch *watch)
{
	return rnd_held(w, watch, &w->dev[0]) || rnd_held(w, watch, &w->dev[1]);
}

static void set_changed(struct rnd_world *w, struct rnd_page *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		rnd_changed(w, &p[i]);
}

/* ---------------------------------------------------------------- rights */

static uint32_t rights_of(struct rnd_world *w, const struct rnd_page *p)
{
	return gm_sim_vma_find(w->sim, p->va)->access;
}

/* One cell that is claimed for writing: each device of the space tries it. */
static void try_access(struct rnd_world *w, struct rnd_page *p, uint32_t access)
{
	uint8_t buf[RND_CELL_BYTES];

	for (unsigned i = 0; i < RND_DEVS; i++) {
		struct rnd_ctx *c = &p->space->ctx[i];
		uint64_t va = p->va + LAST * RND_CELL_BYTES;

		if (!rnd_ctx_use(c))
			continue;
		memcpy(buf, p->want + (size_t)LAST * RND_CELL_BYTES, sizeof(buf));
		if (!gm_dev_fault(c->ctx, va, GM_WRITE) || (!access && !gm_dev_fault(c->ctx, va, GM_READ)))
			rnd_fail(w, "a device is given 0x%" PRIx64 " against the rights of gm_protect()", p->va);
		if (!gm_hal_access(w->dev[i].dev->hal, c->ctx->pmap, va + c->ctx->to_dev, buf, sizeof(buf), true) ||
		    (!access && !gm_hal_access(w->dev[i].dev->hal, c->ctx->pmap, va + c->ctx->to_dev, buf, sizeof(buf), false)))
			rnd_fail(w, "a device accesses 0x%" PRIx64 " against the rights of gm_protect()", p->va);
		rnd_ctx_unuse(c);
	}
}

static void check_mappings(struct rnd_world *w, struct rnd_page *p, unsigned n, uint32_t access)
{
	struct gm_page_info info[RUN_PAGES];

	if (gm_query(p->space->as, p->va, n, info))
		rnd_fail(w, "gm_query: %s", gm_last_error());
	for (unsigned i = 0; i < n; i++)
		if (access ? info[i].mapped_write : info[i].mapped_read)
			rnd_fail(w, "0x%" PRIx64 " is mapped by a device against the rights of gm_protect()", p[i].va);
}

/* One call; what the process may do afterwards is as the kernel has it. */
static gm_ret_t protect_once(struct rnd_world *w, struct rnd_page *p, unsigned n, uint32_t access)
{
	struct rnd_watch watch = rnd_watch(w);
	uint32_t before[RUN_PAGES];
	gm_ret_t ret;

	for (unsigned i = 0; i < n; i++) {
		before[i] = rights_of(w, &p[i]);
		p[i].read_only = p[i].no_read = p[i].changing = true; /* while it changes, both is legal */
		p[i].obeyed = false;
	}
	set_changed(w, p, n);
	ret = gm_protect(p->space->as, p->va, (uint64_t)n * GM_PAGE_BYTES, access);
	rnd_expect(w, &watch, ret, !(access & GM_WRITE) && any_held(w, &watch) ? RND_RET(BUSY) | RND_RET(TIMEDOUT) : 0, TROUBLE,
		   "gm_protect", p->va);
	for (unsigned i = 0; i < n; i++) {
		uint32_t now = rights_of(w, &p[i]);

		p[i].read_only = !(now & GM_WRITE);
		p[i].no_read = !now;
		p[i].obeyed = !ret && !(access & GM_WRITE);
		if (!ret && now != access)
			rnd_fail(w, "gm_protect: 0x%" PRIx64 " has the rights %u, not %u", p[i].va, now, access);
		if (ret == GM_RET_BUSY && now != before[i])
			rnd_fail(w, "gm_protect says that it is busy but changes 0x%" PRIx64, p[i].va);
	}
	set_changed(w, p, n);
	return ret;
}

bool rnd_lib_protect(struct rnd_world *w)
{
	static const uint32_t kinds[] = { 0, GM_READ, GM_READ | GM_WRITE, GM_READ | GM_WRITE };
	uint32_t access = kinds[rnd(w, 4)];
	struct rnd_page *p;
	unsigned n = rnd_run(w, rnd_region(w), RUN_PAGES, NULL, &p);
	struct rnd_watch watch = rnd_watch(w);
	gm_ret_t ret;

	if (!n || !rnd_claim_all(p, n, true))
		return false;
	ret = protect_once(w, p, n, access);
	if (!ret && !(access & GM_WRITE)) {
		check_mappings(w, p, n, access);
		if (rnd_one_in(w, 2))
			gm_sim_sleep_ns(w->sim, rnd(w, 200000));
		try_access(w, &p[rnd(w, n)], access);
		check_mappings(w, p, n, access);
		w->result->protects++;
	}
	for (unsigned i = 0; i < n; i++)
		while (p[i].no_read && protect_once(w, &p[i], 1, rnd_one_in(w, 4) ? GM_READ : GM_READ | GM_WRITE))
			rnd_quiet(w);
	for (unsigned i = 0; i < n; i++)
		p[i].changing = false;
	set_changed(w, p, n);
	rnd_unclaim_all(p, n, true);
	rnd_step(w, "protect", &watch);
	return true;
}

/* ------------------------------------------------------------------ pins */

static void check_pinned(struct rnd_world *w, const struct rnd_page *p, unsigned n, const struct gm_dev *dev)
{
	struct gm_page_info info[RUN_PAGES];

	if (gm_query(p->space->as, p->va, n, info))
		rnd_fail(w, "gm_query: %s", gm_last_error());
	for (unsigned i = 0; i < n; i++) {
		bool there = dev ? info[i].dev == dev || info[i].place == GM_PLACE_IN_PLACE : !info[i].dev;

		if (!there)
			rnd_fail(w, "0x%" PRIx64 " is pinned but not where it should be (place %d)", p[i].va, (int)info[i].place);
		if (!(info[i].flags & GM_PAGE_PINNED) && info[i].place != GM_PLACE_IN_PLACE &&
		    !(p->space->mirrors && info[i].place == GM_PLACE_OUTSIDE))
			rnd_fail(w, "gm_query: 0x%" PRIx64 " is pinned, but it does not say so", p[i].va);
	}
}

/* Somebody wants them elsewhere. Not by an access of another device than `dev`: it waits for the end of the pin. */
static void pull(struct rnd_world *w, const struct rnd_page *p, unsigned n, const struct gm_dev *dev)
{
	struct rnd_dev *d = &w->dev[rnd(w, RND_DEVS)];
	struct rnd_ctx *c = &p->space->ctx[d - w->dev];
	uint64_t bytes = (uint64_t)n * GM_PAGE_BYTES;

	if (rnd_one_in(w, 3))
		(void)gm_migrate(p->space->as, p->va, bytes, NULL, NULL);
	else if (rnd_one_in(w, 2) && (!dev || d->dev == dev) && rnd_ctx_use(c)) {
		gm_ret_t ret = gm_dev_fault(c->ctx, p->va + rnd(w, bytes), rnd_one_in(w, 2) ? GM_READ : GM_WRITE);

		(void)ret; /* whatever it says */
		rnd_ctx_unuse(c);
	} else
		(void)gm_migrate(p->space->as, p->va, bytes, d->dev, NULL);
}

/* By others than the caller, who asks for a pin to `mine`. */
static bool held_beside(struct rnd_world *w, const struct rnd_watch *watch, struct rnd_dev *mine)
{
	bool held = false;

	for (unsigned i = 0; i < RND_DEVS; i++) {
		struct rnd_dev *d = &w->dev[i];

		held |= watch->held[i] || watch->holds[i] != d->holds || d->dev->node.reserved_units > 0;
		held |= d->asking > (d == mine);
	}
	return held;
}

static uint32_t pin_legal(struct rnd_world *w, const struct rnd_range *g, const struct rnd_watch *watch, struct rnd_dev *d)
{
	bool odd = watch->odd != w->odd;
	uint32_t set = !g->whole || odd ? RND_RET(FAULT) : 0;

	for (unsigned i = 0; i < g->n; i++) {
		const struct rnd_page *p = &g->p[i];

		odd |= p->pins || p->kept > 1 || p->locked || p->read_only || p->edge;
	}
	if (held_beside(w, watch, d))
		set |= RND_RET(BUSY) | RND_RET(TIMEDOUT);
	if (!d)
		return set;
	if (odd)
		set |= RND_RET(BUSY) | RND_RET(NOTSUP) | RND_RET(FAULT);
	if (!g->whole) /* a space that mirrors the process has it in place */
		set |= RND_RET(BUSY) | RND_RET(NOTSUP);
	if (d->granule_bytes > GM_PAGE_BYTES)
		set |= RND_RET(BUSY) | RND_RET(NOTSUP) | RND_RET(FAULT) | RND_RET(NOSPC) | RND_RET(TIMEDOUT);
	if (held_beside(w, watch, d) || g->bytes > d->vram_bytes)
		set |= RND_RET(NOSPC);
	return set;
}

static void mark(struct rnd_world *w, const struct rnd_range *g, struct rnd_dev *d, bool on)
{
	for (unsigned i = 0; i < g->n; i++)
		g->p[i].kept += on ? 1 : -1u;
	set_changed(w, g->p, g->n);
	if (d) /* who was asked meanwhile may find its memory held */
		d->holds++;
}

static void unpin(struct rnd_world *w, const struct rnd_range *g)
{
	struct rnd_watch watch = rnd_watch(w);

	rnd_expect(w, &watch, gm_unpin(g->p->space->as, g->va, g->bytes), 0, 0, "gm_unpin", g->va);
}

/* A child gets nothing of what a device keeps, or the bytes. */
static void fork_meanwhile(struct rnd_world *w, const struct rnd_range *g)
{
	const struct rnd_page *p = &g->p[rnd(w, g->n)];
	struct rnd_watch watch = rnd_watch(w);
	uint8_t buf[RND_CELL_BYTES];
	gm_ret_t ret;

	if (w->forking)
		return;
	w->forking = true;
	ret = gm_sim_fork_snapshot(w->sim, p->va + LAST * RND_CELL_BYTES, buf, sizeof(buf));
	w->forking = false;
	rnd_expect(w, &watch, ret, RND_RET(FAULT), rnd_may_end_child(w), "a child's load of what is pinned", p->va);
	if (!ret)
		rnd_compare(w, p, LAST * RND_CELL_BYTES, buf, sizeof(buf), "a child, of what is pinned,");
}

/* While it is pinned. */
static void use_pin(struct rnd_world *w, const struct rnd_range *g, struct gm_dev *dev)
{
	check_pinned(w, g->p, g->n, dev);
	if (rnd_one_in(w, 3)) { /* a second one, of the same */
		if (!gm_pin(g->p->space->as, g->va, g->bytes, dev))
			unpin(w, g);
		check_pinned(w, g->p, g->n, dev);
	}
	if (rnd_one_in(w, 2)) {
		pull(w, g->p, g->n, dev);
		check_pinned(w, g->p, g->n, dev);
	}
	if (rnd_one_in(w, 3))
		fork_meanwhile(w, g);
	if (rnd_one_in(w, 2))
		gm_sim_sleep_ns(w->sim, rnd(w, 300000));
	check_pinned(w, g->p, g->n, dev);
	w->result->keeps++;
}

bool rnd_lib_pin(struct rnd_world *w)
{
	struct rnd_dev *d = rnd_one_in(w, 2) ? &w->dev[rnd(w, RND_DEVS)] : NULL;
	struct rnd_watch watch;
	struct rnd_range g = { .claimed = true };
	uint32_t set, changes = 0;
	struct rnd_ctx *c;
	gm_ret_t ret;

	g.n = rnd_run(w, rnd_region(w), RUN_PAGES, NULL, &g.p);
	if (!rnd_claim_all(g.p, g.n, false))
		return false;
	g.va = g.p->va;
	g.bytes = (uint64_t)g.n * GM_PAGE_BYTES;
	g.whole = true;
	for (unsigned i = 0; i < g.n; i++)
		g.whole &= g.p[i].managed == RND_MANAGED;
	c = d ? &g.p->space->ctx[d - w->dev] : NULL;
	changes = c ? c->changes : 0;
	mark(w, &g, d, true);
	watch = rnd_watch(w);
	if (d) /* a set, as far as others can tell, also if it is of edges alone and takes no memory */
		d->asking++;
	ret = gm_pin(g.p->space->as, g.va, g.bytes, d ? d->dev : NULL);
	set = pin_legal(w, &g, &watch, d);
	if (c && (!c->ctx || c->closing || changes != c->changes))
		set |= RND_RET(INVAL);
	rnd_expect(w, &watch, ret, set, TROUBLE | RND_RET(NOSPC), d ? "gm_pin to a device" : "gm_pin to the host", g.va);
	if (!ret) {
		use_pin(w, &g, d ? d->dev : NULL);
		unpin(w, &g);
	}
	if (d)
		d->asking--;
	mark(w, &g, d, false);
	rnd_unclaim_all(g.p, g.n, false);
	rnd_step(w, "pin", &watch);
	return true;
}
