/* SPDX-License-Identifier: MIT */
/*
 * Failure injection. Each scenario is an operation that is tried again and
 * again; the n-th call of one operation of the device, of the host, or of the
 * allocator fails, for n = 1, 2, 3... Whatever the operation then returns:
 *
 *  - the result is one of those a failure of this kind may have;
 *  - every invariant holds (gm_as_check());
 *  - no byte is lost;
 *  - the same operation, repeated, succeeds.
 *
 * Each n is tried twice: with the bytes looked at (by the CPU) right after the
 * failure, and with the operation repeated on whatever the failure left.
 */
#ifndef INJECT_H
#define INJECT_H

#include <limits.h>

#include "backends/mock/gm_mock_internal.h"
#include "core_fixture.h"

#define PAGES (2 * (uint64_t)GM_BLOCK_PAGES)
#define ROUNDS 10u

struct scene {
	struct world *w;
	uint64_t va;
	void *p;
	bool owned; /* p is allocated */
};

struct scenario {
	const char *name;
	void (*before)(struct scene *s);     /* from all on the host to where the operation begins */
	gm_ret_t (*act)(struct scene *s);
	void (*after)(struct scene *s);      /* what a success left */
	bool zeros;                          /* pages may have been discarded */
	bool always;                         /* must succeed in spite of one failure */
	bool dup;                            /* of duplicates, or exclusive: in tests of its own */
};

static bool dups;      /* which of them this test is about */
static bool any_order; /* the device's */

/* --------------------------------------------------------------- scenarios */

static void nothing(struct scene *s)
{
	(void)s;
}

/* Dirty on the device, as far as it fits. */
static void on_device(struct scene *s)
{
	dev_fill(s->w->ctx[0], s->va, PAGES, 1);
}

static gm_ret_t act_fault(struct scene *s)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	for (uint64_t i = 0; i < PAGES && !ret; i += 100)
		ret = gm_dev_fault(s->w->ctx[0], s->va + i * PAGE, i % 200 ? GM_WRITE : GM_READ);
	return ret;
}

static gm_ret_t act_kernel(struct scene *s)
{
	struct dev_job job = { .va = s->va, .pages = PAGES, .salt = 1, .write = true };

	return dev_run(s->w->ctx[0], &job);
}

static gm_ret_t act_migrate(struct scene *s)
{
	return gm_migrate(s->w->as, s->va + BLOCK - 2 * UNIT + PAGE, 4 * UNIT, s->w->dev[0], NULL);
}

static gm_ret_t act_home(struct scene *s)
{
	return gm_migrate(s->w->as, s->va, PAGES * PAGE, NULL, NULL);
}

static gm_ret_t act_cpu(struct scene *s)
{
	return app_wrong(s->w, s->va, PAGES, 1) ? GM_RET_FAULT : GM_RET_SUCCESS;
}

static gm_ret_t act_ws(struct scene *s)
{
	struct gm_ws_range range[] = {
		{ .va = s->va + 100, .bytes = 5 * PAGE, .access = GM_READ },
		{ .va = s->va + BLOCK - UNIT, .bytes = 2 * UNIT, .access = GM_WRITE },
	};
	struct dev_job job = { .va = s->va, .pages = 6, .salt = 1 };
	struct gm_ws *ws;
	gm_ret_t ret = gm_ws_acquire(s->w->ctx[0], range, 2, SECOND, &ws);

	if (ret)
		return ret;
	cr_assert_eq(page_info(s->w, s->va).flags & GM_PAGE_HELD, GM_PAGE_HELD);
	ret = dev_run(s->w->ctx[0], &job);
	cr_assert_eq(job.wrong, 0);
	OK(gm_ws_release(ws, NULL));
	return ret;
}

static gm_ret_t act_release(struct scene *s)
{
	return gm_release(s->w->as, ptr(s->va), PAGES * PAGE);
}

static gm_ret_t act_adopt(struct scene *s)
{
	return gm_adopt(s->w->as, ptr(s->va), PAGES * PAGE, 0);
}

static void adopt(struct scene *s)
{
	OK(act_adopt(s));
}

static void release(struct scene *s)
{
	OK(act_release(s));
}

static gm_ret_t act_edge(struct scene *s)
{
	return gm_dev_fault(s->w->ctx[0], GM_VA(s->p), GM_WRITE);
}

/* A buffer that begins in the middle of a page. */
static void adopt_edge(struct scene *s)
{
	s->p = ptr(app_map(s->w, 3 * PAGE) + 100);
	OK(gm_adopt(s->w->as, s->p, 2 * PAGE, 0));
}

static void release_edge(struct scene *s)
{
	OK(gm_release(s->w->as, s->p, 2 * PAGE));
}

static gm_ret_t act_alloc(struct scene *s)
{
	gm_ret_t ret = s->owned ? GM_RET_SUCCESS : gm_alloc(s->w->as, BLOCK, 0, &s->p);

	s->owned = !ret;
	if (!ret)
		ret = gm_dev_fault(s->w->ctx[0], GM_VA(s->p) + UNIT, GM_WRITE);
	return ret;
}

static void free_it(struct scene *s)
{
	OK(gm_free(s->w->as, s->p));
	s->owned = false;
}

static void alloc_on_device(struct scene *s)
{
	OK(gm_alloc(s->w->as, BLOCK, 0, &s->p));
	dev_fill(s->w->ctx[0], GM_VA(s->p), 40, 1);
	s->owned = true;
}

static gm_ret_t act_free(struct scene *s)
{
	gm_ret_t ret = gm_free(s->w->as, s->owned ? s->p : NULL);

	s->owned = ret != GM_RET_SUCCESS;
	return ret;
}

static gm_ret_t act_discard(struct scene *s)
{
	return gm_discard(s->w->as, s->va + UNIT, BLOCK);
}

static gm_ret_t act_duplicate(struct scene *s)
{
	return gm_duplicate(s->w->as, s->va + BLOCK - 2 * UNIT, 4 * UNIT, s->w->dev[0], NULL);
}

static void duplicated(struct scene *s)
{
	OK(act_duplicate(s));
}

/* Of duplicates the device writes some, and somebody else's memory is wanted. */
static gm_ret_t act_dup_store(struct scene *s)
{
	struct dev_job job = { .va = s->va, .pages = PAGES, .salt = 1, .write = true };

	return dev_run(s->w->ctx[0], &job);
}

/* The process stores to them: nobody sees that a call failed meanwhile. */
static gm_ret_t act_dup_cpu(struct scene *s)
{
	app_fill(s->w, s->va, PAGES, 1);
	return GM_RET_SUCCESS;
}

static gm_ret_t act_exclusive(struct scene *s)
{
	return gm_exclusive(s->w->ctx[0], s->va + BLOCK - 2 * UNIT, 4 * UNIT, NULL);
}

static gm_ret_t act_detach(struct scene *s)
{
	gm_ret_t ret = gm_as_detach(s->w->ctx[0]);

	if (!ret)
		s->w->ctx[0] = NULL;
	return ret;
}

static gm_ret_t act_attach(struct scene *s)
{
	return gm_as_attach(s->w->as, s->w->dev[0], GM_ATTACH_IDENTITY, NULL, &s->w->ctx[0]);
}

static void attach(struct scene *s)
{
	OK(act_attach(s));
}

static void detach(struct scene *s)
{
	OK(act_detach(s));
}

static const struct scenario scenarios[] = {
	{ "device fault", nothing, act_fault, nothing, false, false, false },
	{ "kernel", nothing, act_kernel, nothing, false, false, false },
	{ "migrate", nothing, act_migrate, nothing, false, false, false },
	{ "home", on_device, act_home, nothing, false, false, false },
	{ "CPU fault", on_device, act_cpu, nothing, false, true, false },
	{ "working set", nothing, act_ws, nothing, false, false, false },
	{ "working set from the device", on_device, act_ws, nothing, false, false, false },
	{ "release", on_device, act_release, adopt, false, false, false },
	{ "adopt", release, act_adopt, nothing, false, false, false },
	{ "edge", adopt_edge, act_edge, release_edge, false, false, false },
	{ "alloc", nothing, act_alloc, free_it, false, false, false },
	{ "free", alloc_on_device, act_free, nothing, false, false, false },
	{ "discard", on_device, act_discard, nothing, true, false, false },
	{ "duplicate", nothing, act_duplicate, nothing, false, false, true },
	{ "duplicate from the device", on_device, act_duplicate, nothing, false, false, true },
	{ "store to duplicates", duplicated, act_dup_cpu, nothing, false, true, true },
	{ "store of the device to duplicates", duplicated, act_dup_store, nothing, false, false, true },
	{ "duplicates home", duplicated, act_home, nothing, false, false, true },
	{ "discard duplicates", duplicated, act_discard, nothing, true, false, true },
	{ "release duplicates", duplicated, act_release, adopt, false, false, true },
	{ "detach from duplicates", duplicated, act_detach, attach, false, false, true },
	{ "exclusive", nothing, act_exclusive, nothing, false, false, true },
	{ "exclusive from duplicates", duplicated, act_exclusive, nothing, false, false, true },
	{ "detach", on_device, act_detach, attach, false, false, false },
	{ "attach", detach, act_attach, nothing, false, false, false },
};
#define SCENARIOS (sizeof(scenarios) / sizeof(scenarios[0]))

/* ------------------------------------------------------------ what fails */

enum what { MOCK, HOST, ALLOC };

struct injection {
	enum what what;
	int op;           /* MOCK */
	const char *name; /* HOST */
	uint64_t nth;
};

static void arm(struct world *w, const struct injection *f, bool on)
{
	if (f->what == MOCK)
		OK(gm_mock_fail(w->dev[0], (enum gm_mock_op)f->op, on ? f->nth : 0, on));
	else if (f->what == HOST)
		OK(gm_sim_fail(w->sim, f->name, on ? f->nth : 0, on));
	else
		failing_alloc_arm(&w->fa, on ? f->nth : 0);
}

/* Was there an n-th call, which failed? */
static bool fired(struct world *w, const struct injection *f)
{
	if (f->what == MOCK)
		return gm_mock_dev_fail_seen(gm_mock_of(__func__, w->dev[0]), (enum gm_mock_op)f->op) >= f->nth;
	if (f->what == HOST)
		return gm_sim_failed(w->sim, f->name);
	return failing_alloc_fired(&w->fa);
}

static void verify(struct scene *s, const struct scenario *c, const char *when, const struct injection *f)
{
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < PAGES; i++) {
		uint64_t value = app_get(s->w, word_va(s->va, i));

		wrong += value != word(i, 1) && !(c->zeros && value == 0);
	}
	cr_assert_eq(wrong, 0, "%s: %llu pages are wrong %s (%d/%d/%s, call %llu)", c->name, (unsigned long long)wrong,
		     when, (int)f->what, f->op, f->name ? f->name : "", (unsigned long long)f->nth);
}

/* False: nothing failed, as there was no n-th call. */
static bool try_once(struct scene *s, const struct scenario *c, const struct injection *f, bool look)
{
	struct world *w = s->w;
	bool failed;
	gm_ret_t ret;

	app_fill(w, s->va, PAGES, 1);
	c->before(s);
	arm(w, f, true);
	ret = c->act(s);
	failed = fired(w, f);
	arm(w, f, false);
	cr_assert(ret == GM_RET_SUCCESS || (!c->always && (ret == GM_RET_NOMEM || ret == GM_RET_IO)),
		  "%s: %s: %s (%d/%d/%s, call %llu)", c->name, gm_ret_name(ret), gm_last_error(), (int)f->what, f->op,
		  f->name ? f->name : "", (unsigned long long)f->nth);
	world_check(w);
	if (look && ret)
		verify(s, c, "after the failure", f);
	if (ret)
		IS(c->act(s), GM_RET_SUCCESS);
	verify(s, c, "at the end", f);
	c->after(s);
	world_check(w);
	return failed;
}

/*
 * Calls are counted until there is no n-th one. What the device and the host are asked for differs a little from one try
 * to the next: only two n in a row without a call are the end; none is, where the device does things in any order.
 */
static void inject(struct world *w, struct injection f, unsigned rounds)
{
	unsigned patience = f.what == ALLOC ? 1 : any_order ? UINT_MAX : 4;

	for (size_t i = 0; i < SCENARIOS; i++) {
		struct scene s = { .w = w };
		unsigned idle = 0; /* tries in a row in which nothing failed */

		if (scenarios[i].dup != dups)
			continue;
		s.va = app_map_blocks(w, 2);
		adopt(&s);
		for (f.nth = 1; f.nth <= rounds && idle < patience; f.nth++)
			for (unsigned look = 0; look < 2 && idle < patience; look++)
				idle = try_once(&s, &scenarios[i], &f, look) ? 0 : idle + 1;
		cr_assert(f.what != ALLOC || idle, "%s: more allocations than rounds", scenarios[i].name);
		release(&s);
	}
}

static void inject_mock(struct world *w)
{
	for (int op = 0; op <= GM_MOCK_SUBMIT; op++) /* those that can fail and that the core calls */
		inject(w, (struct injection){ .what = MOCK, .op = op }, ROUNDS);
}

static void inject_host(struct world *w)
{
	static const char *const op[] = { "steal", "restore", "fill", "zero", "watch", "watch_stores", "fill_protected",
					  "unprotect", "slot_alloc", "mem_map" };

	for (unsigned i = 0; i < sizeof(op) / sizeof(op[0]); i++)
		inject(w, (struct injection){ .what = HOST, .name = op[i] }, ROUNDS);
}

/* "Cannot tell now": the call fails and changes nothing, or does without. Never is it taken for "nothing there". */
static void inject_questions(struct world *w)
{
	static const char *const op[] = { "mem_probe", "mem_rights", "mem_kind", "mem_content", "mem_present", "bus_access" };

	for (unsigned i = 0; i < sizeof(op) / sizeof(op[0]); i++)
		inject(w, (struct injection){ .what = HOST, .name = op[i] }, ROUNDS);
}

#define ROOMY "mock:vram=8M"
#define TIGHT "mock:vram=512K"
#define BLIND "mock:vram=512K,visible=no,submit=no"
#define CHAOS "mock:vram=512K,visible=128K,engines=3,reorder=5"

#endif
