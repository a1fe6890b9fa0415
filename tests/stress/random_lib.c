/* SPDX-License-Identifier: MIT */
/*
 * Calls of the library on ranges. Most must not change a byte, so they run
 * without a claim, whatever others do to the pages meanwhile; in worlds with two
 * spaces only the addresses are kept, because an address that is unmapped and
 * comes to belong to another space in the middle of a call is the caller's
 * error, not the library's.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "tests/stress/random_world.h"

#define RUN_PAGES 48u
#define LAST (RND_CELLS - 1)
#define TROUBLE (RND_RET(IO) | RND_RET(NOMEM) | RND_RET(TIMEDOUT))

bool rnd_ctx_use(struct rnd_ctx *c)
{
	if (!c->ctx || c->closing)
		return false;
	c->users++;
	return true;
}

void rnd_ctx_unuse(struct rnd_ctx *c)
{
	c->users--;
}

bool rnd_claim_all(struct rnd_page *p, unsigned n, bool write)
{
	for (unsigned i = 0; i < n; i++) {
		if (rnd_claim(&p[i], LAST, 1, write))
			continue;
		while (i--)
			rnd_unclaim(&p[i], LAST, 1, write);
		return false;
	}
	return true;
}

void rnd_unclaim_all(struct rnd_page *p, unsigned n, bool write)
{
	for (unsigned i = 0; i < n; i++)
		rnd_unclaim(&p[i], LAST, 1, write);
}

static bool all_managed(const struct rnd_page *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (p[i].managed != RND_MANAGED || p[i].alone || p[i].no_read)
			return false;
	return true;
}

bool rnd_range_begin(struct rnd_world *w, struct rnd_range *g, unsigned max)
{
	g->n = rnd_run(w, rnd_region(w), max, NULL, &g->p);
	g->claimed = w->spaces > 1;
	if (g->claimed && !rnd_claim_all(g->p, g->n, false))
		return false;
	g->va = g->p->va;
	g->bytes = (uint64_t)g->n * GM_PAGE_BYTES;
	g->whole = all_managed(g->p, g->n);
	return true;
}

void rnd_range_end(struct rnd_range *g)
{
	if (g->claimed)
		rnd_unclaim_all(g->p, g->n, false);
}

/* ------------------------------------------------------------- migrations */

bool rnd_lib_to_dev(struct rnd_world *w)
{
	struct rnd_dev *d = &w->dev[rnd(w, RND_DEVS)];
	struct rnd_watch watch = rnd_watch(w);
	uint32_t changes, legal = RND_RET(BUSY);
	uint64_t moved = UINT64_MAX;
	struct rnd_ctx *c;
	struct rnd_range g;
	gm_ret_t ret;

	if (!rnd_range_begin(w, &g, RUN_PAGES))
		return false;
	c = &g.p->space->ctx[d - w->dev];
	changes = c->changes;
	ret = gm_migrate(g.p->space->as, g.va, g.bytes, d->dev, &moved);
	if (!g.whole || watch.odd != w->odd)
		legal |= RND_RET(FAULT);
	if (!c->ctx || c->closing || changes != c->changes)
		legal |= RND_RET(INVAL);
	if (rnd_held(w, &watch, d) || g.bytes > d->vram_bytes)
		legal |= RND_RET(NOSPC) | RND_RET(TIMEDOUT);
	rnd_expect(w, &watch, ret, legal, TROUBLE | RND_RET(NOSPC), "gm_migrate to a device", g.va);
	if (!ret && moved != g.bytes)
		rnd_fail(w, "gm_migrate says that all is there but counts %" PRIu64 " bytes", moved);
	rnd_range_end(&g);
	rnd_step(w, "migrate to dev", &watch);
	return true;
}

bool rnd_lib_to_host(struct rnd_world *w)
{
	struct rnd_watch watch = rnd_watch(w);
	uint64_t moved = UINT64_MAX;
	struct rnd_range g;
	gm_ret_t ret;

	if (!rnd_range_begin(w, &g, RUN_PAGES))
		return false;
	ret = gm_migrate(g.p->space->as, g.va, g.bytes, NULL, &moved);
	rnd_expect(w, &watch, ret, RND_RET(BUSY) | (g.whole && watch.odd == w->odd ? 0 : RND_RET(FAULT)), TROUBLE,
		   "gm_migrate to the host", g.va);
	if (!ret && moved != g.bytes)
		rnd_fail(w, "gm_migrate says that all is home but counts %" PRIu64 " bytes", moved);
	rnd_range_end(&g);
	rnd_step(w, "migrate to host", &watch);
	return true;
}

bool rnd_lib_fault(struct rnd_world *w)
{
	static const uint32_t kinds[] = { GM_READ, GM_WRITE, GM_READ | GM_WRITE, GM_ATOMIC };
	struct rnd_dev *d = &w->dev[rnd(w, RND_DEVS)];
	uint32_t access = kinds[rnd(w, 4)], legal = 0;
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_ctx *c;
	struct rnd_range g;
	gm_ret_t ret;

	if (!rnd_range_begin(w, &g, 1))
		return false;
	c = &g.p->space->ctx[d - w->dev];
	if (!rnd_ctx_use(c)) {
		rnd_range_end(&g);
		return false;
	}
	if (g.p->pins || g.p->kept || g.p->locked || g.p->read_only || g.p->edge)
		legal |= RND_RET(BUSY) | RND_RET(NOTSUP) | RND_RET(PERM);
	ret = gm_dev_fault(c->ctx, g.va + rnd(w, GM_PAGE_BYTES), access);
	if (!g.whole || watch.odd != w->odd)
		legal |= RND_RET(FAULT) | RND_RET(PERM) | RND_RET(BUSY) | RND_RET(NOTSUP);
	if (d->granule_bytes > GM_PAGE_BYTES) /* its neighbours count too */
		legal |= RND_RET(NOTSUP) | RND_RET(BUSY) | RND_RET(FAULT);
	if (rnd_held(w, &watch, d))
		legal |= RND_RET(NOSPC) | RND_RET(TIMEDOUT);
	rnd_ctx_unuse(c);
	rnd_expect(w, &watch, ret, legal, TROUBLE | RND_RET(NOSPC), "gm_dev_fault", g.va);
	rnd_range_end(&g);
	rnd_step(w, "dev fault", &watch);
	return true;
}

static bool ret_is_trouble(gm_ret_t ret)
{
	return ret == GM_RET_IO || ret == GM_RET_NOMEM || ret == GM_RET_TIMEDOUT;
}

/* True while the library still has to drop what was given up. */
static bool is_doomed(struct gm_as *as, uint64_t va, uint64_t end)
{
	bool doomed = false;

	for (struct gm_block *b; !doomed && va < end && (b = gm_block_next_live(as, va, end)); gm_block_put(b)) {
		struct gm_mask range = gm_block_clip(b, va, end);

		doomed = gm_mask_meets(&b->doomed, &range);
		va = b->va + GM_BLOCK_BYTES;
	}
	return doomed;
}

void rnd_lib_settle(struct rnd_world *w, struct rnd_page *p, unsigned n)
{
	struct gm_as *as = p->space->as;
	uint64_t bytes = (uint64_t)n * GM_PAGE_BYTES;

	for (;;) {
		struct rnd_watch watch = rnd_watch(w);
		gm_ret_t ret = gm_migrate(as, p->va, bytes, NULL, NULL);

		rnd_expect(w, &watch, ret, RND_RET(BUSY) | RND_RET(FAULT), TROUBLE, "gm_migrate to the host", p->va);
		if (!ret_is_trouble(ret) && !is_doomed(as, p->va, p->va + bytes))
			return;
		if (ret_is_trouble(ret))
			rnd_quiet(w);
		if (gm_now_ns(gm_sim_env(w->sim)) > watch.start_ns + RND_STALL_NS)
			rnd_fail(w, "stall: 0x%" PRIx64 " stays doomed", p->va);
		gm_sim_sleep_ns(w->sim, 10000);
	}
}

/* ---------------------------------------------------------------- discard */

static bool may_discard(const struct rnd_page *p)
{
	return !p->counter && !p->edge && !p->read_only && p->managed == RND_MANAGED;
}

/* A call that failed may have dropped some of the pages, each as a whole. */
static void resolve(struct rnd_world *w, struct rnd_page *p, unsigned n)
{
	static const uint8_t zeros[GM_PAGE_BYTES];
	uint8_t buf[GM_PAGE_BYTES];

	for (unsigned i = 0; i < n; i++) {
		gm_ret_t ret = gm_sim_load(w->sim, p[i].va, buf, sizeof(buf));

		if (ret)
			rnd_fail(w, "a CPU load of 0x%" PRIx64 " answers %s", p[i].va, gm_ret_name(ret));
		if (memcmp(buf, zeros, sizeof(zeros)) == 0)
			memset(p[i].want, 0, sizeof(zeros));
		rnd_compare(w, &p[i], 0, buf, sizeof(buf), "the CPU, after a call that failed,");
	}
}

bool rnd_lib_discard(struct rnd_world *w)
{
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_page *p;
	unsigned n = rnd_run(w, rnd_region(w), RUN_PAGES, may_discard, &p);
	uint32_t legal = 0;
	gm_ret_t ret;

	if (!n || !rnd_claim_alone(p, n))
		return false;
	rnd_drop_begin(w);
	ret = gm_discard(p->space->as, p->va, (uint64_t)n * GM_PAGE_BYTES);
	/* Sets hold whole granules, so neighbours of theirs. */
	for (unsigned i = 0; i < RND_DEVS; i++)
		if (w->dev[i].granule_bytes > GM_PAGE_BYTES && rnd_held(w, &watch, &w->dev[i]))
			legal = RND_RET(BUSY);
	/* Or another space had taken it on demand before it was adopted here, and watches it still. */
	for (unsigned i = 0; i < w->spaces; i++)
		if (&w->space[i] != p->space && w->space[i].mirrors)
			legal |= RND_RET(BUSY);
	rnd_expect(w, &watch, ret, legal, TROUBLE, "gm_discard", p->va);
	for (unsigned i = 0; !ret && i < n; i++)
		memset(p[i].want, 0, GM_PAGE_BYTES);
	if (ret && ret != GM_RET_BUSY)
		resolve(w, p, n);
	rnd_drop_end(w);
	rnd_unclaim_alone(p, n);
	rnd_step(w, "discard", &watch);
	return true;
}

/* ---------------------------------------------------- adopting, releasing */

static bool may_release(const struct rnd_page *p)
{
	return p->managed == RND_MANAGED && !p->edge;
}

static bool may_adopt(const struct rnd_page *p)
{
	return p->managed != RND_MANAGED && !p->edge && !p->locked;
}

static void set_managed(struct rnd_world *w, struct rnd_page *p, unsigned n, enum rnd_managed managed)
{
	for (unsigned i = 0; i < n; i++) {
		p[i].managed = managed;
		rnd_forget_fork(&p[i]);
		rnd_changed(w, &p[i]);
	}
}

/* What was released is nobody's, and no device has anything of it. */
static void check_outside(struct rnd_world *w, const struct rnd_page *p, unsigned n)
{
	struct gm_page_info info[RUN_PAGES];

	if (gm_query(p->space->as, p->va, n, info))
		rnd_fail(w, "gm_query: %s", gm_last_error());
	for (unsigned i = 0; i < n; i++)
		if (info[i].place != GM_PLACE_OUTSIDE || info[i].mapped_read || info[i].dev)
			rnd_fail(w, "0x%" PRIx64 " was released but is still in use", p[i].va);
}

bool rnd_lib_release(struct rnd_world *w)
{
	struct rnd_region *r = rnd_region(w);
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_page *p;
	unsigned n;
	gm_ret_t ret;

	if (r->owned)
		return false;
	n = rnd_run(w, r, RUN_PAGES, may_release, &p);
	if (!n || !rnd_claim_all(p, n, true))
		return false;
	set_managed(w, p, n, RND_PERHAPS);
	ret = gm_release(p->space->as, (void *)(uintptr_t)p->va, (uint64_t)n * GM_PAGE_BYTES);
	rnd_expect(w, &watch, ret, rnd_held(w, &watch, &w->dev[0]) || rnd_held(w, &watch, &w->dev[1]) ? RND_RET(BUSY) : 0,
		   TROUBLE, "gm_release", p->va);
	if (!ret && !r->space->mirrors)
		check_outside(w, p, n);
	set_managed(w, p, n, ret ? RND_MANAGED : RND_UNMANAGED);
	rnd_unclaim_all(p, n, true);
	rnd_step(w, "release", &watch);
	return true;
}

gm_ret_t rnd_lib_adopt_run(struct rnd_world *w, struct rnd_page *p, unsigned n)
{
	enum rnd_managed before[RUN_PAGES];
	gm_ret_t ret;
	bool clean = true, locked = false;

	for (unsigned i = 0; i < n; i++) {
		before[i] = p[i].managed;
		clean &= p[i].managed == RND_UNMANAGED;
		locked |= p[i].locked;
	}
	set_managed(w, p, n, RND_PERHAPS); /* while it is done */
	for (unsigned tries = 0; tries < 20; tries++) {
		struct rnd_watch watch = rnd_watch(w);

		ret = gm_adopt(p->space->as, (void *)(uintptr_t)p->va, (uint64_t)n * GM_PAGE_BYTES, 0);
		/* Left behind, and perhaps in use: then it is as good as adopted until it is settled. */
		rnd_expect(w, &watch, ret, (clean && !p->space->mirrors ? 0 : RND_RET(EXIST)) | (locked ? RND_RET(NOTSUP) : 0),
			   RND_RET(NOMEM) | RND_RET(TIMEDOUT), "gm_adopt", p->va);
		if (ret != GM_RET_EXIST)
			break;
		gm_sim_sleep_ns(w->sim, 20000);
	}
	for (unsigned i = 0; i < n; i++)
		set_managed(w, &p[i], 1, ret ? before[i] : RND_MANAGED);
	return ret;
}

bool rnd_lib_adopt(struct rnd_world *w)
{
	struct rnd_region *r = rnd_region(w);
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_page *p;
	unsigned n;

	if (r->owned)
		return false;
	n = rnd_run(w, r, RUN_PAGES, may_adopt, &p);
	if (!n || !rnd_claim_all(p, n, true))
		return false;
	(void)rnd_lib_adopt_run(w, p, n);
	rnd_unclaim_all(p, n, true);
	rnd_step(w, "adopt", &watch);
	return true;
}

/* A page at the end of an unaligned buffer. */
bool rnd_lib_edge(struct rnd_world *w)
{
	struct rnd_region *r = rnd_region(w);
	struct rnd_page *p = &r->page[rnd_one_in(w, 2) ? 0 : r->pages - 1];
	struct rnd_watch watch = rnd_watch(w);
	bool release = p->managed == RND_MANAGED;
	void *ptr = (void *)(uintptr_t)(p->va + p->edge_head);
	gm_ret_t ret;

	if (!p->edge || !rnd_claim(p, LAST, 1, true))
		return false;
	set_managed(w, p, 1, RND_PERHAPS);
	if (release)
		ret = gm_release(p->space->as, ptr, p->edge_bytes);
	else
		ret = gm_adopt(p->space->as, ptr, p->edge_bytes, 0);
	rnd_expect(w, &watch, ret, release ? RND_RET(BUSY) : p->locked || watch.odd != w->odd ? RND_RET(NOTSUP) : 0,
		   TROUBLE, "adopting or releasing an edge", p->va);
	set_managed(w, p, 1, release == !ret ? RND_UNMANAGED : RND_MANAGED);
	rnd_unclaim(p, LAST, 1, true);
	rnd_step(w, "edge", &watch);
	return true;
}

/* --------------------------------------------------------- owned memory */

static void fresh(struct rnd_world *w, struct rnd_region *r, void *ptr)
{
	memset(r->bytes, 0, (size_t)r->pages * GM_PAGE_BYTES);
	for (unsigned i = 0; i < r->pages; i++) {
		struct rnd_page *p = &r->page[i];

		p->va = GM_VA(ptr) + (uint64_t)i * GM_PAGE_BYTES;
		p->pins = 0;
		p->read_only = p->obeyed = p->locked = false;
		p->fork = RND_FORK_DEFAULT;
		rnd_changed(w, p);
	}
	r->lost = false;
}

bool rnd_lib_renew(struct rnd_world *w)
{
	struct rnd_region *r = &w->region[rnd(w, w->regions)];
	struct rnd_watch watch = rnd_watch(w);
	void *ptr;
	gm_ret_t ret;

	if (!r->owned || !rnd_begin_move(w))
		return false;
	if (!rnd_claim_alone(r->page, r->pages)) {
		rnd_end_move(w);
		return false;
	}
	rnd_drop_begin(w);
	for (unsigned i = 0; i < r->pages; i++)
		rnd_changed(w, &r->page[i]);
	if (!r->lost) {
		ret = gm_free(r->space->as, (void *)(uintptr_t)r->page->va);
		rnd_expect(w, &watch, ret, rnd_held(w, &watch, &w->dev[0]) || rnd_held(w, &watch, &w->dev[1]) ? RND_RET(BUSY)
													      : 0,
			   TROUBLE, "gm_free", r->page->va);
		r->lost = !ret;
		if (ret && ret != GM_RET_BUSY)
			resolve(w, r->page, r->pages);
	}
	if (r->lost) {
		ret = gm_alloc(r->space->as, (uint64_t)r->pages * GM_PAGE_BYTES - rnd(w, GM_PAGE_BYTES),
			       rnd_one_in(w, 2) ? GM_MEM_NO_HUGE : 0, &ptr);
		rnd_expect(w, &watch, ret, 0, RND_RET(NOMEM) | RND_RET(TIMEDOUT), "gm_alloc", 0);
		if (!ret)
			fresh(w, r, ptr);
	}
	for (unsigned i = 0; i < r->pages; i++)
		rnd_changed(w, &r->page[i]);
	rnd_drop_end(w);
	rnd_unclaim_alone(r->page, r->pages);
	rnd_end_move(w);
	rnd_step(w, "free, alloc", &watch);
	return true;
}

/* ---------------------------------------------------------------- devices */

/* Nothing of a device is left in a space. */
static void check_empty(struct rnd_world *w, struct gm_as *as, const struct rnd_dev *d)
{
	struct gm_block *b;
	uint64_t va = 0;

	for (; (b = gm_block_next(as, va, UINT64_MAX)); gm_block_put(b)) {
		struct gm_mask pages = gm_block_on_dev(b, d->dev->index);

		if (!gm_mask_empty(&pages))
			rnd_fail(w, "a page near 0x%" PRIx64 " is still in a device that was detached", b->va);
		va = b->va + GM_BLOCK_BYTES;
	}
}

bool rnd_lib_detach(struct rnd_world *w)
{
	struct rnd_space *s = &w->space[rnd(w, w->spaces)];
	unsigned i = (unsigned)rnd(w, RND_DEVS);
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_ctx *c = &s->ctx[i];
	gm_ret_t ret;

	if (!c->ctx || c->closing || c->users)
		return false;
	c->closing = true;
	c->changes++;
	ret = gm_as_detach(c->ctx);
	rnd_expect(w, &watch, ret, rnd_held(w, &watch, &w->dev[i]) ? RND_RET(BUSY) | RND_RET(TIMEDOUT) : 0, TROUBLE,
		   "gm_as_detach", i);
	if (!ret) {
		c->ctx = NULL;
		check_empty(w, s->as, &w->dev[i]);
	}
	c->changes++;
	c->closing = false;
	rnd_step(w, "detach", &watch);
	return true;
}

bool rnd_lib_attach(struct rnd_world *w)
{
	static const struct gm_window window = { UINT64_C(1) << 32, UINT64_C(1) << 33, UINT64_C(5) << 40 };
	struct rnd_space *s = &w->space[rnd(w, w->spaces)];
	unsigned i = (unsigned)rnd(w, RND_DEVS);
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_ctx *c = &s->ctx[i];
	bool in_window = rnd_one_in(w, 3);
	gm_ret_t ret;

	if (c->ctx || c->closing)
		return false;
	c->closing = true;
	ret = gm_as_attach(s->as, w->dev[i].dev, in_window ? GM_ATTACH_WINDOW : GM_ATTACH_IDENTITY,
			   in_window ? &window : NULL, &c->ctx);
	rnd_expect(w, &watch, ret, 0, RND_RET(NOMEM) | RND_RET(AGAIN), "gm_as_attach", i);
	c->changes++;
	c->closing = false;
	rnd_step(w, "attach", &watch);
	return true;
}
