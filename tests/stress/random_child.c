/* SPDX-License-Identifier: MIT */
/*
 * Forks, and children that live on: each child has the bytes as of its fork, of several pages that are compared at
 * once, and again and again later, while the parent and its devices go on writing; or none of a page at all.
 *
 *     a page: excluded, by kind (owned) or by gm_fork_policy()   the child must get FAULT
 *             else, and all could be brought home, or copied     it must have the bytes
 *             served, and failures are armed                     it has the bytes, or gets FAULT or SIGBUS
 *             else                                               it has the bytes, or gets FAULT
 *
 * While a fork is under way, and the child is served, everybody else goes on: devices write, pages move, are given up.
 *
 * What a child stores is its own: the parent's bytes are compared all the time.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "tests/stress/random_world.h"

#define RUN_PAGES 24u

/* ----------------------------------------------------------- what it gets */

enum inherits {
	MUST_NOT,
	MAY,
	MUST,
};

static enum inherits inherits(const struct rnd_child_page *cp)
{
	const struct rnd_page *p = cp->parent;

	switch (cp->fork) {
	case RND_FORK_DEFAULT:
		return p->region->owned && p->space->fork != RND_FORK_SERVE ? MUST_NOT : MUST;
	case RND_FORK_SERVE:
	case RND_FORK_HOME:
		return MUST;
	case RND_FORK_EXCLUDE:
		return MUST_NOT;
	case RND_FORK_PERHAPS:
		break;
	}
	return MAY;
}

/* ------------------------------------------------------------- its pages */

static void choose(struct rnd_world *w, struct rnd_child *c)
{
	struct rnd_region *r = rnd_region(w);
	struct rnd_page *p;
	unsigned n;

	for (unsigned i = 0; i < 3 && !r->space->serves; i++) /* rather of a space that serves */
		r = rnd_region(w);
	n = rnd_run(w, r, RND_CHILD_PAGES, NULL, &p);
	for (c->n = 0; c->n < n; c->n++)
		c->page[c->n] = (struct rnd_child_page){ .parent = &p[c->n], .va = p[c->n].va, .changes = p[c->n].changes };
}

/* At the moment of the fork: what nobody is changing is what the child must have, whatever happens to it afterwards. */
static void note(void *arg)
{
	struct rnd_child *c = arg;

	for (unsigned i = 0; i < c->n; i++) {
		struct rnd_child_page *cp = &c->page[i];
		const struct rnd_page *p = cp->parent;

		cp->gone = p->alone || p->region->lost;
		cp->va = p->va;
		cp->cells = (uint16_t)~p->writer;
		if (p->counter) /* changes by itself */
			cp->cells &= (uint16_t)~1u;
		cp->fork = p->fork;
		cp->odd = p->no_read || p->changing || cp->changes != p->changes;
		memcpy(cp->want, p->want, GM_PAGE_BYTES);
	}
}

static void compare(struct rnd_world *w, const struct rnd_child_page *cp, const uint8_t *got, const char *when)
{
	for (unsigned i = 0; i < RND_CELLS; i++)
		if ((cp->cells & (1u << i)) && memcmp(got + i * RND_CELL_BYTES, cp->want + i * RND_CELL_BYTES, RND_CELL_BYTES) != 0)
			rnd_fail(w, "wrong byte: a child sees others in cell %u of 0x%" PRIx64 ", %s, than at its fork", i,
				 cp->va, when);
}

static void look_at(struct rnd_world *w, const struct rnd_child *c, const struct rnd_child_page *cp, const char *when)
{
	uint8_t buf[GM_PAGE_BYTES];
	gm_ret_t ret;

	if (cp->gone)
		return;
	ret = gm_sim_child_load(c->child, cp->va, buf, sizeof(buf));
	if (ret != cp->ret)
		rnd_fail(w, "a child's load at 0x%" PRIx64 ", %s, answers %s, not %s", cp->va, when, gm_ret_name(ret),
			 gm_ret_name(cp->ret));
	if (!ret)
		compare(w, cp, buf, when);
}

uint32_t rnd_may_end_child(const struct rnd_world *w)
{
	bool serves = false;

	for (unsigned i = 0; i < w->spaces; i++)
		serves |= w->space[i].serves;
	return serves ? RND_RET(IO) : 0;
}

static void judge(struct rnd_world *w, struct rnd_child *c, struct rnd_child_page *cp, const struct rnd_watch *watch,
		  bool all_came)
{
	bool filled = gm_sim_child_was_filled(c->child, cp->va);
	uint8_t buf[GM_PAGE_BYTES];

	if (cp->gone)
		return;
	cp->ret = gm_sim_child_load(c->child, cp->va, buf, sizeof(buf));
	rnd_expect(w, watch, cp->ret, RND_RET(FAULT), rnd_may_end_child(w), "a child's load", cp->va);
	if (!cp->ret && inherits(cp) == MUST_NOT && !cp->odd)
		rnd_fail(w, "a child has inherited 0x%" PRIx64 ", which it must not", cp->va);
	if (cp->ret == GM_RET_FAULT && inherits(cp) == MUST && all_came && !cp->odd)
		rnd_fail(w, "a child has not inherited 0x%" PRIx64, cp->va);
	if (!cp->ret)
		compare(w, cp, buf, "just made");
	w->result->served += !cp->ret && filled;
}

/* A device that goes on writing to what is to be handed on. */
struct writer {
	struct rnd_world *w;
	struct rnd_child *c;
	struct rnd_dev *dev;
	bool stop;
};

static void write_cell(struct writer *wr)
{
	struct rnd_world *w = wr->w;
	struct rnd_page *p = wr->c->page[rnd(w, wr->c->n)].parent;
	struct rnd_ctx *ctx = &p->space->ctx[wr->dev - w->dev];
	unsigned cell = 1 + (unsigned)rnd(w, RND_CELLS - 1);
	uint8_t buf[RND_CELL_BYTES];
	uint32_t changes = p->changes;
	gm_ret_t ret;

	if (!rnd_ctx_use(ctx))
		return;
	if (!rnd_claim(p, cell, 1, true)) {
		rnd_ctx_unuse(ctx);
		return;
	}
	rnd_random_bytes(w, buf, sizeof(buf));
	ret = gm_hal_access(wr->dev->dev->hal, ctx->ctx->pmap, p->va + cell * RND_CELL_BYTES + ctx->ctx->to_dev, buf,
			    sizeof(buf), true);
	if (!ret)
		memcpy(p->want + (size_t)cell * RND_CELL_BYTES, buf, sizeof(buf));
	if (!ret)
		rnd_check_obeyed(w, p, changes, true);
	rnd_unclaim(p, cell, 1, true);
	rnd_ctx_unuse(ctx);
}

static void writer_main(void *arg)
{
	struct writer *wr = arg;

	while (!wr->stop) {
		write_cell(wr);
		gm_sim_sleep_ns(wr->w->sim, 50 + gm_sim_random(wr->w->sim, 500));
	}
}

/* Something of it is on a device, and mapped, to be brought home or served. */
static struct gm_thread *send_away(struct rnd_world *w, struct rnd_child *c, struct writer *wr)
{
	struct rnd_page *p = c->page->parent;
	struct gm_env *env = gm_sim_env(w->sim);
	struct rnd_ctx *ctx;
	struct gm_thread *t;

	*wr = (struct writer){ .w = w, .c = c, .dev = &w->dev[rnd(w, RND_DEVS)] };
	ctx = &p->space->ctx[wr->dev - w->dev];
	if (!rnd_ctx_use(ctx))
		return NULL;
	if (rnd_claim_all(p, c->n, false)) { /* its addresses stay */
		(void)gm_migrate(p->space->as, p->va, (uint64_t)c->n * GM_PAGE_BYTES, wr->dev->dev, NULL);
		for (unsigned i = 0; i < c->n; i++) {
			gm_ret_t ret = gm_dev_fault(ctx->ctx, p[i].va, GM_WRITE);

			(void)ret; /* whatever it says */
		}
		rnd_unclaim_all(p, c->n, false);
	}
	rnd_ctx_unuse(ctx);
	return env->ops->thread_start(env, "writer", 0, writer_main, wr, &t) ? NULL : t;
}

bool rnd_app_fork(struct rnd_world *w)
{
	struct rnd_child *c = w->child[0].child ? &w->child[1] : &w->child[0];
	uint64_t failures = w->fork_failures;
	struct gm_thread *writer = NULL;
	struct rnd_watch watch;
	struct writer wr;

	if (w->forking || c->child)
		return false;
	w->forking = true; /* others would choose the same child */
	c->judged = false;
	choose(w, c);
	if (!rnd_one_in(w, 4))
		writer = send_away(w, c, &wr);
	watch = rnd_watch(w);
	c->child = gm_sim_fork_at(w->sim, note, c);
	wr.stop = true;
	if (writer)
		gm_sim_env(w->sim)->ops->thread_join(gm_sim_env(w->sim), writer);
	w->forking = false;
	if (failures != w->fork_failures && !rnd_noisy(w, &watch) && !rnd_held(w, &watch, &w->dev[0]) &&
	    !rnd_held(w, &watch, &w->dev[1]))
		rnd_fail(w, "memory could not be brought home before a fork, for no reason");
	for (unsigned i = 0; i < c->n; i++)
		judge(w, c, &c->page[i], &watch, failures == w->fork_failures && !w->fork_forgot);
	c->judged = true;
	rnd_step(w, "fork", &watch);
	return true;
}

/* ----------------------------------------------------------------- later */

static void store(struct rnd_world *w, struct rnd_child *c, struct rnd_child_page *cp)
{
	unsigned cell = (unsigned)rnd(w, RND_CELLS);
	uint8_t buf[RND_CELL_BYTES];
	gm_ret_t ret;

	if (cp->gone)
		return;
	rnd_random_bytes(w, buf, sizeof(buf));
	ret = gm_sim_child_store(c->child, cp->va + (uint64_t)cell * RND_CELL_BYTES, buf, sizeof(buf));
	if (!ret) {
		memcpy(cp->want + (size_t)cell * RND_CELL_BYTES, buf, sizeof(buf));
		cp->cells |= (uint16_t)(1u << cell);
	} else if (ret != GM_RET_FAULT && ret != GM_RET_NOTSUP && ret != cp->ret) { /* read-only, never touched; lost */
		rnd_fail(w, "a child's store at 0x%" PRIx64 " answers %s", cp->va, gm_ret_name(ret));
	}
}

bool rnd_app_child(struct rnd_world *w)
{
	struct rnd_child *c = &w->child[rnd(w, RND_CHILDREN)];
	struct rnd_watch watch = rnd_watch(w);

	if (!c->child || !c->judged)
		return false;
	for (unsigned i = 0; i < c->n; i++)
		look_at(w, c, &c->page[i], "later");
	if (rnd_one_in(w, 4))
		store(w, c, &c->page[rnd(w, c->n)]);
	w->result->children++;
	if (rnd_one_in(w, 3)) {
		gm_sim_child_exit(c->child);
		c->child = NULL;
	}
	rnd_step(w, "child", &watch);
	return true;
}

void rnd_app_reap(struct rnd_world *w)
{
	for (unsigned i = 0; i < RND_CHILDREN; i++) {
		struct rnd_child *c = &w->child[i];

		for (unsigned k = 0; c->child && k < c->n; k++)
			look_at(w, c, &c->page[k], "at the end");
		if (c->child)
			gm_sim_child_exit(c->child);
		c->child = NULL;
	}
}

/* -------------------------------------------------------------- policies */

bool rnd_lib_fork_policy(struct rnd_world *w)
{
	static const enum gm_fork policies[] = { GM_FORK_DEFAULT, GM_FORK_EXCLUDE, GM_FORK_HOME, GM_FORK_SERVE, GM_FORK_SERVE };
	static const enum rnd_fork then[] = { RND_FORK_DEFAULT, RND_FORK_EXCLUDE, RND_FORK_HOME, RND_FORK_SERVE, RND_FORK_SERVE };
	unsigned which = (unsigned)rnd(w, 5), n;
	struct rnd_watch watch = rnd_watch(w);
	bool whole = true;
	struct rnd_page *p;
	gm_ret_t ret;

	n = rnd_run(w, rnd_region(w), RUN_PAGES, NULL, &p);
	if (w->forking || !n || !rnd_claim_all(p, n, true))
		return false;
	w->forking = true; /* none meanwhile */
	for (unsigned i = 0; i < n; i++)
		whole &= p[i].managed == RND_MANAGED && !p[i].edge;
	ret = gm_fork_policy(p->space->as, p->va, (uint64_t)n * GM_PAGE_BYTES, policies[which]);
	rnd_expect(w, &watch, ret, (whole ? 0 : RND_RET(FAULT)) | (p->space->serves ? 0 : RND_RET(NOTSUP)), RND_RET(NOMEM),
		   "gm_fork_policy", p->va);
	if (ret == GM_RET_NOTSUP && policies[which] != GM_FORK_SERVE)
		rnd_fail(w, "gm_fork_policy: NOTSUP");
	for (unsigned i = 0; !ret && i < n; i++)
		p[i].fork = whole ? then[which] : RND_FORK_PERHAPS;
	w->forking = false;
	rnd_unclaim_all(p, n, true);
	rnd_step(w, "fork policy", &watch);
	return true;
}
