/* SPDX-License-Identifier: MIT */
/*
 * madvise() of the simulated process.
 *
 *     DONTNEED   zeros from there on, for everybody
 *     FREE       the page's old bytes or zeros, as a whole, whoever looks; zeros once they were seen; what it is
 *                at a store it stays
 *     POPULATE   changes no byte; with READ, rights are those of a load, with WRITE those of a store
 *     DONTFORK   a child does not get it; but where the library itself gave the right to it back, it may
 *     others     change no byte, whatever they do
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "tests/stress/random_world.h"

#define RUN_PAGES 24u
#define LAST (RND_CELLS - 1)

static const uint8_t zeros[GM_PAGE_BYTES];

static bool may_drop(const struct rnd_page *p)
{
	return !p->counter && !p->locked;
}

/* ------------------------------------------------------ giving content up */

/* Somebody who wants the pages on a device while their content is given up. */
struct rival {
	struct rnd_world *w;
	struct gm_as *as;
	struct rnd_dev *dev;
	uint64_t va, bytes;
};

static void rival_main(void *arg)
{
	struct rival *r = arg;

	gm_sim_sleep_ns(r->w->sim, gm_sim_random(r->w->sim, 2000));
	(void)gm_migrate(r->as, r->va, r->bytes, r->dev->dev, NULL); /* whatever it says */
}

static struct gm_thread *rival_start(struct rnd_world *w, struct rival *r, const struct rnd_page *p, unsigned n)
{
	struct gm_env *env = gm_sim_env(w->sim);
	struct gm_thread *t;

	*r = (struct rival){ .w = w, .as = p->space->as, .dev = &w->dev[rnd(w, RND_DEVS)], .va = p->va,
			     .bytes = (uint64_t)n * GM_PAGE_BYTES };
	return !rnd_one_in(w, 3) || env->ops->thread_start(env, "rival", 0, rival_main, r, &t) ? NULL : t;
}

static void rival_end(struct rnd_world *w, struct gm_thread *t)
{
	if (t)
		gm_sim_env(w->sim)->ops->thread_join(gm_sim_env(w->sim), t);
}

bool rnd_app_dontneed(struct rnd_world *w)
{
	struct gm_thread *rival;
	struct rival r;
	struct rnd_page *p;
	unsigned n = rnd_run(w, rnd_region(w), RUN_PAGES, may_drop, &p);
	struct rnd_watch watch = rnd_watch(w);
	gm_ret_t ret;

	if (!n || !rnd_claim_alone(p, n))
		return false;
	rnd_drop_begin(w);
	rival = rival_start(w, &r, p, n);
	ret = gm_sim_dontneed(w->sim, p->va, (uint64_t)n * GM_PAGE_BYTES);
	rnd_expect(w, &watch, ret, 0, 0, "madvise(DONTNEED)", p->va);
	for (unsigned i = 0; i < n; i++) {
		memset(p[i].want, 0, GM_PAGE_BYTES);
		p[i].pins = 0;
		rnd_changed(w, &p[i]);
	}
	if (rnd_one_in(w, 2))
		rnd_see_zeros(w, &watch, p, n, "the CPU, after madvise(DONTNEED),");
	rival_end(w, rival);
	rnd_lib_settle(w, p, n);
	rnd_drop_end(w);
	rnd_unclaim_alone(p, n);
	rnd_step(w, "dontneed", &watch);
	return true;
}

static bool may_free(const struct rnd_page *p)
{
	return may_drop(p) && !p->read_only && !p->edge;
}

/* Old bytes or zeros, as a whole, but for one cell, which is as it must be. */
static void see_old_or_zeros(struct rnd_world *w, struct rnd_page *p, const uint8_t *got, bool stored, const char *who)
{
	size_t bytes = stored ? (size_t)LAST * RND_CELL_BYTES : GM_PAGE_BYTES;

	if (memcmp(got, zeros, bytes) == 0)
		memset(p->want, 0, bytes);
	rnd_compare(w, p, 0, got, GM_PAGE_BYTES, who);
}

/* By a device that can. It is one of the two already, and zeros for good if it was so. */
static void device_looks(struct rnd_world *w, struct rnd_page *p, bool stored)
{
	struct rnd_dev *d = &w->dev[rnd(w, RND_DEVS)];
	struct rnd_ctx *c = &p->space->ctx[d - w->dev];
	uint8_t got[GM_PAGE_BYTES];
	gm_ret_t ret;

	if (!rnd_ctx_use(c))
		return;
	if (rnd_one_in(w, 2)) {
		ret = gm_dev_fault(c->ctx, p->va, GM_READ);
		(void)ret; /* whatever it says */
	}
	ret = gm_hal_access(d->dev->hal, c->ctx->pmap, p->va + c->ctx->to_dev, got, sizeof(got), false);
	rnd_ctx_unuse(c);
	if (!ret)
		see_old_or_zeros(w, p, got, stored, "a device, after madvise(FREE),");
}

/* A store makes the page what it is then, also for the library, which has heard of the event and of nothing else. */
static void settle_freed(struct rnd_world *w, const struct rnd_watch *watch, struct rnd_page *p)
{
	uint8_t *cell = p->want + (size_t)LAST * RND_CELL_BYTES, got[GM_PAGE_BYTES];
	gm_ret_t ret;

	rnd_random_bytes(w, cell, RND_CELL_BYTES);
	ret = gm_sim_store(w->sim, p->va + LAST * RND_CELL_BYTES, cell, RND_CELL_BYTES);
	rnd_expect(w, watch, ret, 0, 0, "a CPU store after madvise(FREE)", p->va);
	if (rnd_one_in(w, 2))
		device_looks(w, p, true);
	ret = gm_sim_load(w->sim, p->va, got, sizeof(got));
	rnd_expect(w, watch, ret, 0, 0, "a CPU load after madvise(FREE)", p->va);
	see_old_or_zeros(w, p, got, true, "the CPU, after madvise(FREE) and a store,");
}

bool rnd_app_free(struct rnd_world *w)
{
	struct rnd_page *p;
	unsigned n = rnd_run(w, rnd_region(w), RUN_PAGES, may_free, &p);
	struct rnd_watch watch = rnd_watch(w);
	gm_ret_t ret;

	if (!n || !rnd_claim_alone(p, n))
		return false;
	rnd_drop_begin(w);
	for (unsigned i = 0; i < n; i++)
		rnd_changed(w, &p[i]);
	ret = gm_sim_madvise(w->sim, p->va, (uint64_t)n * GM_PAGE_BYTES, GM_SIM_FREE);
	rnd_expect(w, &watch, ret, 0, 0, "madvise(FREE)", p->va);
	if (rnd_one_in(w, 2))
		rnd_lib_settle(w, p, n);
	for (unsigned i = 0; i < n; i++) {
		if (rnd_one_in(w, 4))
			device_looks(w, &p[i], false);
		settle_freed(w, &watch, &p[i]);
		rnd_changed(w, &p[i]);
	}
	rnd_lib_settle(w, p, n);
	w->result->frees++;
	rnd_drop_end(w);
	rnd_unclaim_alone(p, n);
	rnd_step(w, "free", &watch);
	return true;
}

/* -------------------------------------------------------- changes nothing */

static bool is_odd_for(const struct rnd_page *p, bool write)
{
	return p->no_read || (write && p->read_only);
}

/* Pages are brought in, one after the other, wherever they are, while all others go on. */
static gm_ret_t populate(struct rnd_world *w, struct rnd_range *g, const struct rnd_watch *watch, bool write)
{
	gm_ret_t ret = gm_sim_madvise(w->sim, g->va, g->bytes, write ? GM_SIM_POPULATE_WRITE : GM_SIM_POPULATE_READ);
	bool odd = watch->odd != w->odd;

	for (unsigned i = 0; i < g->n; i++)
		odd |= is_odd_for(&g->p[i], write) || g->p[i].alone;
	rnd_expect(w, watch, ret, odd ? RND_RET(FAULT) : 0, 0, "madvise(POPULATE)", g->va);
	return ret;
}

bool rnd_app_populate(struct rnd_world *w)
{
	static const enum gm_sim_advice quiet[] = { GM_SIM_HUGEPAGE, GM_SIM_NOHUGEPAGE };
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_range g;
	gm_ret_t ret;

	if (!rnd_range_begin(w, &g, RUN_PAGES))
		return false;
	if (rnd_one_in(w, 4)) {
		ret = gm_sim_madvise(w->sim, g.va, g.bytes, GM_SIM_REMOVE);
		if (ret != GM_RET_INVAL)
			rnd_fail(w, "madvise(REMOVE) of private memory answers %s", gm_ret_name(ret));
	}
	if (rnd_one_in(w, 3)) {
		ret = gm_sim_madvise(w->sim, g.va, g.bytes, quiet[rnd(w, 2)]);
		rnd_expect(w, &watch, ret, RND_RET(FAULT), 0, "madvise(HUGEPAGE)", g.va);
	}
	if (!populate(w, &g, &watch, rnd_one_in(w, 2)))
		w->result->populates++;
	rnd_range_end(&g);
	rnd_step(w, "populate", &watch);
	return true;
}

/* ---------------------------------------------------------------- forks */

bool rnd_app_dontfork(struct rnd_world *w)
{
	struct rnd_region *r = rnd_region(w);
	bool off = rnd_one_in(w, 2);
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_page *p;
	unsigned n = r->owned ? 0 : rnd_run(w, r, RUN_PAGES, NULL, &p);
	gm_ret_t ret;

	if (w->forking || !n || !rnd_claim_all(p, n, true))
		return false;
	w->forking = true; /* none meanwhile */
	ret = gm_sim_madvise(w->sim, p->va, (uint64_t)n * GM_PAGE_BYTES, off ? GM_SIM_DONTFORK : GM_SIM_DOFORK);
	rnd_expect(w, &watch, ret, 0, 0, "madvise(DONTFORK)", p->va);
	for (unsigned i = 0; i < n; i++) {
		if (p[i].managed == RND_UNMANAGED && !r->space->mirrors) /* the library has nothing to do with it */
			p[i].fork = off ? RND_FORK_EXCLUDE : RND_FORK_HOME;
		else
			p[i].fork = RND_FORK_PERHAPS;
	}
	w->forking = false;
	rnd_unclaim_all(p, n, true);
	rnd_step(w, "dontfork", &watch);
	return true;
}
