/* SPDX-License-Identifier: MIT */
/*
 * mremap() in all its ways, and holes.
 *
 *     move       a run of pages to a place of the kernel's choice
 *     onto       ... over the pages of another run of the same space, whose bytes are gone: they have the first ones'
 *     unmap not  MREMAP_DONTUNMAP: the old place stays mapped, reads as zeros, and belongs to no region
 *     resize     longer, in place or elsewhere; used, adopted, brought to a device at its new end; short again
 *     hole       mapped over without any right: nobody may see a byte of it, nor of what was there
 *
 * The process has its bytes at the new place at once, and a device none of them at the old one. What was left
 * behind in the books at the old address is given up before a space that shares addresses with another goes on.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "tests/stress/random_world.h"

#define RUN_PAGES 24u
#define MORE_PAGES 12u
#define LAST (RND_CELLS - 1)
#define TROUBLE (RND_RET(IO) | RND_RET(NOMEM) | RND_RET(TIMEDOUT))

static bool may_move(const struct rnd_page *p)
{
	return !p->counter && !p->edge && !p->read_only && !p->locked;
}

static void set_changed(struct rnd_world *w, struct rnd_page *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		rnd_changed(w, &p[i]);
}

/* What was left behind at the old address: only a space that nobody else shares addresses with may keep it. */
static void leave_behind(struct rnd_world *w, struct rnd_space *s, const struct rnd_watch *watch, uint64_t va,
			 uint64_t bytes)
{
	gm_ret_t ret;

	if (w->spaces == 1)
		return;
	do {
		ret = gm_release(s->as, (void *)(uintptr_t)va, bytes);
		rnd_expect(w, watch, ret, RND_RET(NOENT) | RND_RET(BUSY),
			   RND_RET(NOMEM) | RND_RET(IO) | RND_RET(TIMEDOUT), "gm_release of what was moved", va);
		if (ret && ret != GM_RET_NOENT)
			rnd_quiet(w);
	} while (ret && ret != GM_RET_NOENT);
}

/* A run that may move, claimed alone; moves have begun. 0: none. */
static unsigned begin(struct rnd_world *w, struct rnd_region *r, struct rnd_page **p)
{
	unsigned n = r->owned ? 0 : rnd_run(w, r, RUN_PAGES, may_move, p);

	if (!n || !rnd_begin_move(w))
		return 0;
	if (rnd_claim_alone(*p, n))
		return n;
	rnd_end_move(w);
	return 0;
}

/* All its bytes are at `va` now. */
static void arrive(struct rnd_world *w, struct rnd_page *p, unsigned n, uint64_t va)
{
	for (unsigned i = 0; i < n; i++) {
		p[i].va = va + (uint64_t)i * GM_PAGE_BYTES;
		rnd_forget_fork(&p[i]);
		p[i].managed = rnd_elsewhere_now(w, p[i].managed);
		rnd_changed(w, &p[i]);
	}
}

/* One page of it, as the process sees it. */
static void compare_one(struct rnd_world *w, const struct rnd_watch *watch, const struct rnd_page *p, const char *who)
{
	uint8_t buf[GM_PAGE_BYTES];

	rnd_expect(w, watch, gm_sim_load(w->sim, p->va, buf, sizeof(buf)), 0, 0, "a CPU load after mremap", p->va);
	rnd_compare(w, p, 0, buf, sizeof(buf), who);
}

/* A device of the space has nothing at an address that is in no region (unless it mirrors), whatever is there. */
static void device_has_nothing(struct rnd_world *w, struct rnd_space *s, uint64_t va, const char *what)
{
	struct rnd_dev *d = &w->dev[rnd(w, RND_DEVS)];
	struct rnd_ctx *c = &s->ctx[d - w->dev];
	uint8_t buf[RND_CELL_BYTES];

	if (!rnd_ctx_use(c))
		return;
	if (!gm_hal_access(d->dev->hal, c->ctx->pmap, va + c->ctx->to_dev, buf, sizeof(buf), false))
		rnd_fail(w, "a device reads 0x%" PRIx64 ", %s", va, what);
	rnd_ctx_unuse(c);
}

bool rnd_app_move(struct rnd_world *w)
{
	struct rnd_region *r = rnd_region(w);
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_page *p;
	unsigned n = begin(w, r, &p);
	uint64_t va, old;

	if (!n)
		return false;
	old = p->va;
	set_changed(w, p, n); /* while it moves, both is legal */
	va = gm_sim_mremap(w->sim, old, (uint64_t)n * GM_PAGE_BYTES);
	if (va)
		arrive(w, p, n, va);
	compare_one(w, &watch, &p[rnd(w, n)], "the CPU, after mremap,");
	rnd_lib_settle(w, p, n);
	if (va) {
		leave_behind(w, r->space, &watch, old, (uint64_t)n * GM_PAGE_BYTES);
		if (p->managed == RND_PERHAPS)
			(void)rnd_lib_adopt_run(w, p, n);
	}
	rnd_unclaim_alone(p, n);
	rnd_end_move(w);
	rnd_step(w, "mremap", &watch);
	return true;
}

/* ------------------------------------------------------------------- onto */

/* As many pages, or fewer, that what is moved may cover. */
static bool may_cover(const struct rnd_page *p)
{
	return !p->counter && !p->edge && !p->locked;
}

static unsigned choose_target(struct rnd_world *w, const struct rnd_page *p, unsigned n, struct rnd_page **to)
{
	struct rnd_region *r = rnd_region(w);
	unsigned m = 0;

	if (r->owned || r->space != p->space)
		return 0;
	*to = &r->page[rnd(w, r->pages)];
	while (m < n && *to + m < r->page + r->pages && may_cover(*to + m) &&
	       (*to)[m].va == (*to)->va + (uint64_t)m * GM_PAGE_BYTES)
		m++;
	return m;
}

/* The pages `from` get new memory, as theirs is under the name of others now. `kept`: it is there already, empty. */
static void replace(struct rnd_world *w, const struct rnd_watch *watch, struct rnd_page *from, unsigned n, bool kept)
{
	uint64_t bytes = (uint64_t)n * GM_PAGE_BYTES, old = from->va;
	uint64_t va = kept ? old : gm_sim_mmap(w->sim, bytes, GM_READ | GM_WRITE);

	if (!va)
		rnd_fail(w, "no memory");
	arrive(w, from, n, va);
	for (unsigned i = 0; i < n; i++) {
		memset(from[i].want, 0, GM_PAGE_BYTES);
		from[i].pins = 0;
		from[i].obeyed = false;
	}
	compare_one(w, watch, &from[rnd(w, n)], kept ? "the CPU, after mremap(DONTUNMAP)," : "the CPU, in new memory,");
	rnd_lib_settle(w, from, n);
	leave_behind(w, from->space, watch, old, bytes);
}

/* The bytes, rights and pins of `from` are those of `to` now. */
static void inherit(struct rnd_world *w, const struct rnd_page *from, struct rnd_page *to, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		memcpy(to[i].want, from[i].want, GM_PAGE_BYTES);
		to[i].pins = from[i].pins;
		to[i].read_only = to[i].obeyed = false;
		to[i].managed = rnd_elsewhere_now(w, from[i].managed == to[i].managed ? from[i].managed : RND_PERHAPS);
		to[i].fork = RND_FORK_PERHAPS;
		rnd_changed(w, &to[i]);
	}
}

bool rnd_app_move_onto(struct rnd_world *w)
{
	uint32_t flags = GM_SIM_MAYMOVE | GM_SIM_FIXED | (rnd_one_in(w, 2) ? GM_SIM_DONTUNMAP : 0);
	struct rnd_region *r = rnd_region(w);
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_page *p, *to = NULL;
	unsigned n = begin(w, r, &p), m;
	uint64_t bytes, va;
	gm_ret_t ret;

	if (!n)
		return false;
	m = choose_target(w, p, n, &to);
	if (!m || !rnd_claim_alone(to, m)) {
		rnd_unclaim_alone(p, n);
		rnd_end_move(w);
		return false;
	}
	rnd_drop_begin(w);
	set_changed(w, p, m);
	set_changed(w, to, m);
	bytes = (uint64_t)m * GM_PAGE_BYTES;
	va = to->va;
	ret = gm_sim_mremap_to(w->sim, p->va, bytes, bytes, flags, &va);
	rnd_expect(w, &watch, ret, RND_RET(FAULT), 0, "mremap(FIXED)", p->va); /* FAULT: several mappings by now */
	if (!ret) {
		inherit(w, p, to, m);
		compare_one(w, &watch, &to[rnd(w, m)], "the CPU, after mremap onto it,");
		rnd_lib_settle(w, to, m);
		replace(w, &watch, p, m, flags & GM_SIM_DONTUNMAP);
		if (to->managed == RND_PERHAPS)
			(void)rnd_lib_adopt_run(w, to, m);
		w->result->remaps++;
	}
	rnd_drop_end(w);
	rnd_unclaim_alone(to, m);
	rnd_unclaim_alone(p, n);
	rnd_end_move(w);
	rnd_step(w, "mremap onto", &watch);
	return true;
}

/* ----------------------------------------------------------------- resize */

/* What was added: zeros, nobody's; written, perhaps adopted, brought to a device, and compared. */
static void use_more(struct rnd_world *w, struct rnd_space *s, uint64_t va, unsigned pages)
{
	uint64_t bytes = (uint64_t)pages * GM_PAGE_BYTES, at = va + rnd(w, pages) * GM_PAGE_BYTES;
	static const uint8_t zeros[GM_PAGE_BYTES];
	uint8_t put[GM_PAGE_BYTES], got[GM_PAGE_BYTES];
	struct rnd_watch watch = rnd_watch(w);
	gm_ret_t ret = gm_sim_load(w->sim, at, got, sizeof(got));

	rnd_expect(w, &watch, ret, 0, 0, "a CPU load behind what was longer", at);
	if (memcmp(got, zeros, sizeof(got)) != 0)
		rnd_fail(w, "wrong byte: 0x%" PRIx64 ", added by mremap(), is not zeros", at);
	rnd_random_bytes(w, put, sizeof(put));
	ret = gm_sim_store(w->sim, at, put, sizeof(put));
	rnd_expect(w, &watch, ret, 0, 0, "a CPU store behind what was longer", at);
	if (rnd_one_in(w, 2)) {
		/* a range may have been left behind there, if nobody shares addresses */
		ret = gm_adopt(s->as, (void *)(uintptr_t)va, bytes, 0);
		rnd_expect(w, &watch, ret, w->spaces == 1 || s->mirrors ? RND_RET(EXIST) : 0, TROUBLE, "gm_adopt of what was added", va);
		(void)gm_migrate(s->as, va, bytes, w->dev[rnd(w, RND_DEVS)].dev, NULL);
	}
	ret = gm_sim_load(w->sim, at, got, sizeof(got));
	rnd_expect(w, &watch, ret, 0, 0, "a CPU load behind what was longer", at);
	if (memcmp(got, put, sizeof(got)) != 0)
		rnd_fail(w, "wrong byte: 0x%" PRIx64 ", added by mremap(), loses what is written", at);
}

/* Longer for a while: how does not matter to who uses it. */
static void resize(struct rnd_world *w, struct rnd_page *p, unsigned n, unsigned more)
{
	uint64_t bytes = (uint64_t)n * GM_PAGE_BYTES, add = (uint64_t)more * GM_PAGE_BYTES, old = p->va, va = old;
	struct rnd_watch watch = rnd_watch(w);
	gm_ret_t ret = gm_sim_mremap_to(w->sim, old, bytes, bytes + add, rnd_one_in(w, 2) ? GM_SIM_MAYMOVE : 0, &va);

	rnd_expect(w, &watch, ret, RND_RET(FAULT) | RND_RET(NOMEM), 0, "mremap, longer", old);
	if (ret)
		return;
	if (va != old)
		arrive(w, p, n, va);
	compare_one(w, &watch, &p[rnd(w, n)], "the CPU, after mremap,");
	use_more(w, p->space, va + bytes, more);
	if (va != old) {
		rnd_lib_settle(w, p, n);
		leave_behind(w, p->space, &watch, old, bytes);
	}
	ret = gm_sim_mremap_to(w->sim, va, bytes + add, bytes, 0, &va);
	/* what was done to the first part may have made several mappings of it: then the end is unmapped by itself */
	rnd_expect(w, &watch, ret, RND_RET(FAULT), 0, "mremap, shorter", va);
	if (ret)
		rnd_expect(w, &watch, gm_sim_munmap(w->sim, p->va + bytes, add), 0, 0, "munmap", p->va + bytes);
	rnd_lib_settle(w, p, n);
	if (w->spaces > 1 && !p->space->mirrors) /* else somebody else may be there by now */
		device_has_nothing(w, p->space, p->va + bytes, "where mremap() has cut it off");
	leave_behind(w, p->space, &watch, p->va + bytes, add);
	compare_one(w, &watch, &p[rnd(w, n)], "the CPU, after mremap, shorter,");
	w->result->resizes++;
}

bool rnd_app_resize(struct rnd_world *w)
{
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_page *p;
	unsigned n = begin(w, rnd_region(w), &p);

	if (!n)
		return false;
	rnd_drop_begin(w);
	set_changed(w, p, n);
	resize(w, p, n, 1 + (unsigned)rnd(w, rnd_one_in(w, 2) ? 1 : MORE_PAGES));
	if (p->managed == RND_PERHAPS)
		(void)rnd_lib_adopt_run(w, p, n);
	set_changed(w, p, n);
	rnd_drop_end(w);
	rnd_unclaim_alone(p, n);
	rnd_end_move(w);
	rnd_step(w, "mremap, longer", &watch);
	return true;
}

/* ------------------------------------------------------------------- hole */

bool rnd_app_hole(struct rnd_world *w)
{
	struct rnd_region *r = rnd_region(w);
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_page *p, *one;
	unsigned n = begin(w, r, &p);
	uint64_t bytes = (uint64_t)n * GM_PAGE_BYTES;
	uint8_t byte;

	if (!n)
		return false;
	rnd_drop_begin(w);
	set_changed(w, p, n);
	if (gm_sim_mmap_at(w->sim, p->va, bytes, 0) != p->va)
		rnd_fail(w, "no memory at 0x%" PRIx64, p->va);
	rnd_lib_settle(w, p, n);
	one = &p[rnd(w, n)];
	if (gm_sim_load(w->sim, one->va, &byte, 1) != GM_RET_FAULT)
		rnd_fail(w, "the CPU reads 0x%" PRIx64 " without the right to", one->va);
	device_has_nothing(w, r->space, one->va, "where the process may not");
	if (gm_sim_mmap_at(w->sim, p->va, bytes, GM_READ | GM_WRITE) != p->va)
		rnd_fail(w, "no memory at 0x%" PRIx64, p->va);
	replace(w, &watch, p, n, true);
	for (unsigned i = 0; i < n; i++)
		p[i].managed = p[i].managed == RND_UNMANAGED ? RND_UNMANAGED : RND_PERHAPS;
	if (p->managed == RND_PERHAPS)
		(void)rnd_lib_adopt_run(w, p, n);
	rnd_drop_end(w);
	rnd_unclaim_alone(p, n);
	rnd_end_move(w);
	rnd_step(w, "hole", &watch);
	return true;
}
