/* SPDX-License-Identifier: MIT */
/*
 * What gm_query() says of pages against what is so: the byte array's books, the frames of the simulated process, the page
 * tables of the devices. None of these is what the library looks at.
 *
 *     it says        it is so, if nobody ran meanwhile
 *     host           no device has it, but for duplicates; on a device: the process has no frame there
 *     duplicated     the process has a frame, and stores to it wait; no device may write to it
 *     exclusive      on a device, and no other one maps it
 *     mapped         who has a translation is said to have one, and to write only who may
 *
 * And whatever was the case before: after an access of the CPU the page is on the host, after a store of nobody else's.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "tests/stress/random_world.h"

#define RUN_PAGES 48u
/* So often it is asked until nobody else ran between. */
#define LOOKS 4u

/* By the books. */
static void check_info(struct rnd_world *w, const struct rnd_page *p, const struct gm_page_info *info, bool stable)
{
	if (info->mapped_write & ~info->mapped_read)
		rnd_fail(w, "gm_query: 0x%" PRIx64 " is mapped for writing but not for reading", p->va);
	if ((info->place == GM_PLACE_DEVICE) != (info->dev != NULL))
		rnd_fail(w, "gm_query: 0x%" PRIx64 " is in a device or not?", p->va);
	if (info->place == GM_PLACE_POISONED)
		rnd_fail(w, "gm_query: 0x%" PRIx64 " is poisoned although no device was lost", p->va);
	if (!stable || p->managed == RND_PERHAPS || (p->space->mirrors && p->managed == RND_UNMANAGED))
		return;
	if ((p->managed == RND_MANAGED) == (info->place == GM_PLACE_OUTSIDE))
		rnd_fail(w, "gm_query: 0x%" PRIx64 " is managed or not?", p->va);
	if (p->managed == RND_MANAGED && p->edge != (info->place == GM_PLACE_IN_PLACE))
		rnd_fail(w, "gm_query: 0x%" PRIx64 " is an edge or not?", p->va);
}

/* What the devices of the space have in their page tables. */
static void check_tables(struct rnd_world *w, const struct rnd_page *p, const struct gm_page_info *info)
{
	for (unsigned i = 0; i < RND_DEVS; i++) {
		const struct rnd_ctx *c = &p->space->ctx[i];
		struct gm_mock_pmap *pmap;
		struct gm_mock_xlate x;
		uint32_t bit;

		if (!c->ctx || c->closing)
			continue;
		bit = UINT32_C(1) << c->ctx->index;
		pmap = gm_hal_backend_pmap(c->ctx->dev->hal, c->ctx->pmap);
		if (!gm_mock_pt_walk(pmap->dev, &pmap->pt, p->va + c->ctx->to_dev, &x))
			continue;
		if (!(info->mapped_read & bit) || ((x.pte & GM_PTE_WRITE) && !(info->mapped_write & bit)))
			rnd_fail(w, "gm_query: device %u maps 0x%" PRIx64 ", or writes to it, but it does not say so", i, p->va);
		if ((info->flags & GM_PAGE_EXCLUSIVE) && c->ctx->dev != info->dev)
			rnd_fail(w, "0x%" PRIx64 " is exclusive, but another device maps it", p->va);
	}
}

/* Nobody ran since it was asked. */
static void check_so(struct rnd_world *w, const struct rnd_page *p, const struct gm_page_info *info)
{
	const struct gm_sim_page *page = gm_sim_page_get(w->sim, p->va, false);
	bool frame = page && page->frame;

	if (info->flags & GM_PAGE_BUSY)
		return;
	if (info->place == GM_PLACE_DEVICE && frame)
		rnd_fail(w, "gm_query: 0x%" PRIx64 " is in a device, but the process has it too", p->va);
	if (info->place == GM_PLACE_OUTSIDE) /* of its former life, perhaps: gm_release() takes it out first, then ends the rest */
		return;
	if ((info->flags & GM_PAGE_DUPLICATED) && (info->place != GM_PLACE_HOST || !frame || !page->protected || info->mapped_write))
		rnd_fail(w, "gm_query: 0x%" PRIx64 " is duplicated, but stores to it do not wait", p->va);
	if ((info->flags & GM_PAGE_EXCLUSIVE) && info->place != GM_PLACE_DEVICE)
		rnd_fail(w, "gm_query: 0x%" PRIx64 " is exclusive, but on no device", p->va);
	check_tables(w, p, info);
}

void rnd_check_touched(struct rnd_world *w, const struct rnd_page *p, bool write)
{
	uint64_t switches = gm_sim_switches(w->sim);
	struct gm_page_info info;

	if (gm_query(p->space->as, p->va, 1, &info))
		rnd_fail(w, "gm_query: %s", gm_last_error());
	if (switches != gm_sim_switches(w->sim) || (info.flags & GM_PAGE_BUSY))
		return;
	if (info.place == GM_PLACE_DEVICE)
		rnd_fail(w, "the CPU has touched 0x%" PRIx64 ", but it is on a device%s", p->va,
			 info.flags & GM_PAGE_EXCLUSIVE ? ", as its alone" : "");
	if (write && (info.flags & GM_PAGE_DUPLICATED))
		rnd_fail(w, "the CPU has written to 0x%" PRIx64 ", but it is duplicated", p->va);
	check_so(w, p, &info);
}

bool rnd_lib_query(struct rnd_world *w)
{
	struct gm_page_info info[RUN_PAGES];
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_range g;
	bool alone = false;

	if (!rnd_range_begin(w, &g, RUN_PAGES))
		return false;
	for (unsigned look = 0; look < LOOKS && !alone; look++) {
		uint64_t switches = gm_sim_switches(w->sim);

		rnd_expect(w, &watch, gm_query(g.p->space->as, g.va, g.n, info), 0, 0, "gm_query", g.va);
		alone = switches == gm_sim_switches(w->sim);
	}
	for (unsigned i = 0; i < g.n; i++) {
		check_info(w, &g.p[i], &info[i], watch.odd == w->odd && !g.p[i].alone);
		if (alone && watch.odd == w->odd && !g.p[i].alone)
			check_so(w, &g.p[i], &info[i]);
	}
	w->result->queries += alone;
	rnd_range_end(&g);
	rnd_step(w, "query", &watch);
	return true;
}
