/* SPDX-License-Identifier: MIT */
/*
 * Who has a page at the same time: duplicates, exclusive use; where all of it is, in sum; all of it home.
 *
 * None of these may change a byte, so they run without a claim. That no device reads older bytes once a store is
 * done is what every comparison with the byte array finds out; what is looked at here is what the calls say.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "tests/stress/random_world.h"

#define RUN_PAGES 48u
#define TROUBLE (RND_RET(IO) | RND_RET(NOMEM) | RND_RET(TIMEDOUT))
/* So often both are asked until nobody else ran between. */
#define LOOKS 6u

/* ---------------------------------------------------------------- in sum */

static void add_page(struct gm_residency *sum, const struct gm_page_info *info)
{
	switch (info->place) {
	case GM_PLACE_NONE:
		sum->none_bytes += GM_PAGE_BYTES;
		break;
	case GM_PLACE_HOST:
		sum->host_bytes += GM_PAGE_BYTES;
		break;
	case GM_PLACE_DEVICE:
		sum->dev_bytes[info->dev->index] += GM_PAGE_BYTES;
		break;
	case GM_PLACE_IN_PLACE:
		sum->in_place_bytes += GM_PAGE_BYTES;
		break;
	case GM_PLACE_POISONED:
		sum->poisoned_bytes += GM_PAGE_BYTES;
		break;
	case GM_PLACE_OUTSIDE:
		sum->outside_bytes += GM_PAGE_BYTES;
		break;
	}
	if (info->flags & GM_PAGE_BUSY)
		sum->busy_bytes += GM_PAGE_BYTES;
	if (info->flags & GM_PAGE_HELD)
		sum->held_bytes += GM_PAGE_BYTES;
}

static uint64_t all_places(const struct gm_residency *r)
{
	uint64_t bytes = r->outside_bytes + r->host_bytes + r->none_bytes + r->in_place_bytes + r->poisoned_bytes;

	for (unsigned i = 0; i < GM_MAX_DEVS; i++)
		bytes += r->dev_bytes[i];
	return bytes;
}

/* The places are all of the range; and if nobody else ran meanwhile, each is what gm_query() counts. */
bool rnd_lib_sum(struct rnd_world *w)
{
	struct gm_page_info info[RUN_PAGES];
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_range g;
	bool alone = false;

	if (!rnd_range_begin(w, &g, RUN_PAGES))
		return false;
	for (unsigned look = 0; look < LOOKS && !alone; look++) {
		uint64_t switches = gm_sim_switches(w->sim);
		struct gm_residency sum, each = { .outside_bytes = 0 };

		rnd_expect(w, &watch, gm_residency(g.p->space->as, g.va + rnd(w, GM_PAGE_BYTES), g.bytes - GM_PAGE_BYTES + 1, &sum),
			   0, 0, "gm_residency", g.va);
		rnd_expect(w, &watch, gm_query(g.p->space->as, g.va, g.n, info), 0, 0, "gm_query", g.va);
		alone = switches == gm_sim_switches(w->sim);
		if (all_places(&sum) != g.bytes)
			rnd_fail(w, "gm_residency: the places are %" PRIu64 " of %" PRIu64 " bytes", all_places(&sum), g.bytes);
		for (unsigned i = 0; i < g.n; i++)
			add_page(&each, &info[i]);
		if (alone && memcmp(&sum, &each, sizeof(sum)) != 0)
			rnd_fail(w, "gm_residency of 0x%" PRIx64 " and gm_query do not agree", g.va);
	}
	w->result->sums += alone;
	rnd_range_end(&g);
	rnd_step(w, "residency", &watch);
	return true;
}

/* What the kernel has of a page fits what the library says, and what the process has been given of rights. */
static void check_host(struct rnd_world *w, const struct rnd_page *p, const struct gm_page_info *info)
{
	bool read_only = p->read_only;

	if (info->access != (read_only ? GM_READ : GM_READ | GM_WRITE))
		rnd_fail(w, "gm_query_host: 0x%" PRIx64 " has the rights %u", p->va, info->access);
	if (info->flags & (GM_PAGE_BUSY | GM_PAGE_BACKED))
		return;
	if (info->place == GM_PLACE_DEVICE && (info->flags & GM_PAGE_ABSENT))
		rnd_fail(w, "gm_query_host: 0x%" PRIx64 " is in a device and nowhere", p->va);
}

bool rnd_lib_query_host(struct rnd_world *w)
{
	struct gm_page_info info[RUN_PAGES];
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_range g;
	gm_ret_t ret;

	if (!rnd_range_begin(w, &g, RUN_PAGES))
		return false;
	ret = gm_query_host(g.p->space->as, g.va, g.n, info);
	rnd_expect(w, &watch, ret, 0, RND_RET(NOMEM), "gm_query_host", g.va);
	for (unsigned i = 0; i < g.n && !ret; i++)
		if (watch.odd == w->odd && !g.p[i].alone && !g.p[i].changing)
			check_host(w, &g.p[i], &info[i]);
	rnd_range_end(&g);
	rnd_step(w, "query host", &watch);
	return true;
}

/* ------------------------------------------------------------- all home */

bool rnd_lib_home(struct rnd_world *w)
{
	struct rnd_space *s = &w->space[rnd(w, w->spaces)];
	struct rnd_watch watch = rnd_watch(w);
	uint64_t left = UINT64_MAX;
	gm_ret_t ret = gm_as_home(s->as, RND_WAIT_NS, &left);

	/* others bring pages to devices meanwhile */
	rnd_expect(w, &watch, ret, RND_RET(BUSY), TROUBLE, "gm_as_home", 0);
	if ((!ret && left) || (ret == GM_RET_BUSY && !left))
		rnd_fail(w, "gm_as_home says %s but counts %" PRIu64 " bytes", gm_ret_name(ret), left);
	rnd_step(w, "home", &watch);
	return true;
}

/* --------------------------------------------- duplicates, exclusive use */

/* What both may be answered with, but for the context and the rights. */
static uint32_t legal(struct rnd_world *w, const struct rnd_range *g, const struct rnd_watch *watch, const struct rnd_dev *d)
{
	uint32_t set = RND_RET(BUSY);

	if (!g->whole || watch->odd != w->odd)
		set |= RND_RET(FAULT);
	if (rnd_held(w, watch, d) || g->bytes > d->vram_bytes)
		set |= RND_RET(NOSPC) | RND_RET(TIMEDOUT);
	return set;
}

bool rnd_lib_duplicate(struct rnd_world *w)
{
	struct rnd_dev *d = &w->dev[rnd(w, RND_DEVS)];
	struct rnd_watch watch = rnd_watch(w);
	uint64_t done = UINT64_MAX;
	uint32_t changes, set;
	struct rnd_ctx *c;
	struct rnd_range g;
	gm_ret_t ret;

	if (!rnd_range_begin(w, &g, RUN_PAGES))
		return false;
	c = &g.p->space->ctx[d - w->dev];
	changes = c->changes;
	ret = gm_duplicate(g.p->space->as, g.va, g.bytes, d->dev, &done);
	set = legal(w, &g, &watch, d);
	if (!c->ctx || c->closing || changes != c->changes)
		set |= RND_RET(INVAL);
	rnd_expect(w, &watch, ret, set, TROUBLE | RND_RET(NOSPC), "gm_duplicate", g.va);
	if (!ret && done != g.bytes)
		rnd_fail(w, "gm_duplicate says that all is there but counts %" PRIu64 " bytes", done);
	w->result->dups += !ret;
	rnd_range_end(&g);
	rnd_step(w, "duplicate", &watch);
	return true;
}

bool rnd_lib_exclusive(struct rnd_world *w)
{
	struct rnd_dev *d = &w->dev[rnd(w, RND_DEVS)];
	struct rnd_watch watch = rnd_watch(w);
	uint64_t done = UINT64_MAX;
	struct rnd_range g;
	struct rnd_ctx *c;
	uint32_t set = 0;
	gm_ret_t ret;

	if (!rnd_range_begin(w, &g, RUN_PAGES / 4))
		return false;
	c = &g.p->space->ctx[d - w->dev];
	if (!rnd_ctx_use(c)) {
		rnd_range_end(&g);
		return false;
	}
	for (unsigned i = 0; i < g.n; i++)
		if (g.p[i].read_only)
			set |= RND_RET(PERM);
	ret = gm_exclusive(c->ctx, g.va, g.bytes, &done);
	rnd_ctx_unuse(c);
	set |= legal(w, &g, &watch, d);
	if (watch.odd != w->odd)
		set |= RND_RET(PERM);
	if (d->granule_bytes > GM_PAGE_BYTES) /* its neighbours count too */
		set |= RND_RET(PERM) | RND_RET(FAULT) | RND_RET(NOTSUP);
	rnd_expect(w, &watch, ret, set, TROUBLE | RND_RET(NOSPC), "gm_exclusive", g.va);
	if (!ret && done != g.bytes)
		rnd_fail(w, "gm_exclusive says that all is there but counts %" PRIu64 " bytes", done);
	w->result->exclusives += !ret;
	rnd_range_end(&g);
	rnd_step(w, "exclusive", &watch);
	return true;
}
