/* SPDX-License-Identifier: MIT */
/*
 * A working set that nobody releases: the CPU access that waits for one of its
 * pages fails at the bound, loudly, and costs nothing else: no byte is lost,
 * and when the set is released after all, the page comes home like any other.
 */
#include "config.h"

#include "core_fixture.h"

#define NO_FAULTS "mock:vram=512K,faults=no"

static struct gm_ws *acquire(struct world *w, uint64_t va, uint64_t bytes, uint32_t access)
{
	struct gm_ws_range range = { .va = va, .bytes = bytes, .access = access };
	struct gm_ws *ws = NULL;

	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
	cr_assert_not_null(ws);
	return ws;
}

struct waiting {
	struct world *w;
	uint64_t va, bytes;
	uint64_t done_ns;
	gm_ret_t ret;
	uint64_t value;
};

static void load_later(void *arg)
{
	struct waiting *a = arg;

	a->ret = gm_sim_load(a->w->sim, a->va, &a->value, sizeof(a->value));
	a->done_ns = gm_now_ns(a->w->env);
}

static struct gm_stuck stuck;
static unsigned stuck_calls;

static void note_stuck(void *arg, const struct gm_stuck *s)
{
	cr_assert_eq(arg, &stuck);
	stuck = *s;
	stuck_calls++;
}

/*
 * Nobody releases: the access fails loudly at the bound, and the bytes are not touched. When the set is
 * released after all, the page comes home by itself: nobody can fault on it any more to ask for it.
 */
CORE_TEST(ws_stuck, a_hold_without_end,
	  .dev = { NO_FAULTS }, .as = { .hold_ns = 300 * MS, .stuck = note_stuck, .stuck_arg = &stuck })
{
	uint64_t va = app_adopted(w, 1, 1), value;
	struct gm_ws *ws = acquire(w, va, UNIT, GM_WRITE);
	uint64_t start = gm_now_ns(w->env), waited;

	dev_fill(w->ctx[0], va, 16, 5);
	IS(gm_sim_load(w->sim, word_va(va, 3), &value, sizeof(value)), GM_RET_IO);
	waited = gm_now_ns(w->env) - start;
	cr_assert(waited >= 300 * MS && waited < 600 * MS, "%llu ns", (unsigned long long)waited);
	cr_assert_eq(stuck_calls, 1);
	cr_assert_eq(stuck.va, va + 3 * PAGE);
	cr_assert_eq(stuck.ws, ws);
	cr_assert_eq(stuck.thread_id, gm_sim_thread_id(w->sim));
	cr_assert_geq(stuck.held_ns, 300 * MS);
	cr_assert_gt(w->errors, 0);
	OK(gm_ws_release(ws, NULL));
	OK(gm_sim_load(w->sim, word_va(va, 3), &value, sizeof(value)));
	cr_assert_eq(value, word(3, 5));
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 16, "only what the device wrote differs");
	cr_assert_eq(app_wrong(w, va, 16, 5), 0);
}

/* The next set's accesses have a time of their own, also if it comes at once. */
CORE_TEST(ws_stuck, held_again_at_once, .dev = { NO_FAULTS }, .as = { .hold_ns = 300 * MS })
{
	uint64_t va = app_adopted(w, 1, 1), value, start;

	for (unsigned i = 0; i < 3; i++) {
		struct gm_ws *ws = acquire(w, va, UNIT, GM_WRITE);

		start = gm_now_ns(w->env);
		IS(gm_sim_load(w->sim, word_va(va, 3), &value, sizeof(value)), GM_RET_IO);
		cr_assert_geq(gm_now_ns(w->env) - start, 300 * MS);
		OK(gm_ws_release(ws, NULL));
	}
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
}

/* When it is a fence that ends the hold the page comes home by itself, a moment later: nobody can fault on it to ask. */
CORE_TEST(ws_stuck, a_hold_that_a_fence_ends, .dev = { NO_FAULTS }, .as = { .hold_ns = 300 * MS })
{
	uint64_t va = app_adopted(w, 1, 1), value, start;
	struct gm_ws *ws = acquire(w, va, UNIT, GM_WRITE);
	struct gm_fence *fence;
	gm_ret_t ret;

	OK(gm_fence_create(w->lib, &fence));
	OK(gm_ws_release(ws, fence));
	IS(gm_sim_load(w->sim, word_va(va, 3), &value, sizeof(value)), GM_RET_IO);
	start = gm_now_ns(w->env);
	OK(gm_fence_signal(fence, GM_RET_SUCCESS));
	while ((ret = gm_sim_load(w->sim, word_va(va, 3), &value, sizeof(value))) == GM_RET_IO) {
		cr_assert(gm_now_ns(w->env) - start < SECOND, "released, but accesses go on to fail");
		gm_sim_sleep_ns(w->sim, MS);
	}
	OK(ret);
	cr_assert_eq(value, word(3, 1));
	gm_fence_put(fence);
}

/* Each waiting access has a time of its own. */
CORE_TEST(ws_stuck, the_bound_is_per_access, .dev = { NO_FAULTS }, .as = { .hold_ns = 300 * MS })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws *ws = acquire(w, va, UNIT, GM_WRITE);
	struct waiting a = { .w = w, .va = word_va(va, 3) }, b = { .w = w, .va = word_va(va, 9) };
	struct gm_thread *ta = spawn(w, load_later, &a), *tb;

	gm_sim_sleep_ns(w->sim, 250 * MS);
	tb = spawn(w, load_later, &b);
	join(w, ta);
	IS(a.ret, GM_RET_IO);
	gm_sim_sleep_ns(w->sim, 50 * MS);
	cr_assert_eq(b.done_ns, 0, "it has waited for 100 ms only");
	OK(gm_ws_release(ws, NULL));
	join(w, tb);
	OK(b.ret);
	cr_assert_eq(b.value, word(9, 1));
}

/* No bound at all: whoever waits goes on waiting, and is served in the end. */
CORE_TEST(ws_stuck, a_bound_that_never_comes, .dev = { NO_FAULTS }, .as = { .hold_ns = GM_FOREVER_NS })
{
	uint64_t va = app_adopted(w, 1, 1), to;
	struct gm_ws *ws = acquire(w, va, UNIT, GM_WRITE);
	struct waiting a = { .w = w, .va = word_va(va, 3) }, b = { .w = w };
	struct gm_thread *ta = spawn(w, load_later, &a), *tb;

	gm_sim_sleep_ns(w->sim, 100 * SECOND);
	cr_assert_eq(a.done_ns, 0, "%s after %llu ns", gm_ret_name(a.ret), (unsigned long long)a.done_ns);
	OK(gm_ws_release(ws, NULL));
	join(w, ta);
	OK(a.ret);
	ws = acquire(w, va, UNIT, GM_WRITE);
	to = gm_sim_mremap(w->sim, va, BLOCK);
	b.va = word_va(va, 5) - va + to;
	tb = spawn(w, load_later, &b);
	gm_sim_sleep_ns(w->sim, 100 * SECOND);
	cr_assert_eq(b.done_ns, 0, "%s after %llu ns", gm_ret_name(b.ret), (unsigned long long)b.done_ns);
	OK(gm_ws_release(ws, NULL));
	join(w, tb);
	OK(b.ret);
	cr_assert_eq(app_wrong(w, to, GM_BLOCK_PAGES, 1), 0);
	cr_assert_eq(w->errors, 0);
}

struct unpinning {
	struct world *w;
	uint64_t va;
};

static void unpin_later(void *arg)
{
	struct unpinning *u = arg;

	gm_sim_sleep_ns(u->w->sim, 100 * SECOND);
	gm_sim_unpin(u->w->sim, u->va);
}

static void copy_later(void *arg)
{
	struct world *w = arg;

	gm_sim_sleep_ns(w->sim, 100 * SECOND);
	OK(gm_mock_fail(w->dev[0], GM_MOCK_COPY, 0, 0));
}

CORE_TEST(ws_stuck, a_wait_without_bound, .dev = { "mock:vram=512K,hostmap=no,visible=no,submit=no" },
	  .as = { .wait_ns = GM_FOREVER_NS })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct unpinning u = { .w = w, .va = va };
	struct gm_thread *t;

	OK(gm_sim_pin(w->sim, va));
	t = spawn(w, unpin_later, &u);
	dev_fill(w->ctx[0], va, 16, 2); /* a device that waits for a pinned page */
	cr_assert_geq(gm_now_ns(w->env), 100 * SECOND);
	join(w, t);
	OK(gm_mock_fail(w->dev[0], GM_MOCK_COPY, 1, UINT64_MAX));
	t = spawn(w, copy_later, w);
	cr_assert_eq(app_wrong(w, va, 16, 2), 0); /* a CPU that waits for a copy which fails */
	join(w, t);
}

/* The page's access failed at its bound while its device failed every copy: given up, it is a page like any other. */
CORE_TEST(ws_stuck, discarded_after_the_bound, .dev = { "mock:vram=512K,visible=no,submit=no" },
	  .as = { .wait_ns = 300 * MS })
{
	uint64_t va = app_adopted(w, 1, 1), value;

	dev_fill(w->ctx[0], va, 16, 2);
	OK(gm_mock_fail(w->dev[0], GM_MOCK_COPY, 1, UINT64_MAX));
	IS(gm_sim_load(w->sim, word_va(va, 3), &value, sizeof(value)), GM_RET_IO);
	cr_assert_eq(page_info(w, va + 3 * PAGE).place, GM_PLACE_DEVICE);
	OK(gm_discard(w->as, va, 16 * PAGE));
	for (unsigned k = 0; k < 16; k++)
		cr_assert_eq(app_get(w, word_va(va, k)), 0, "page %u", k);
	OK(gm_mock_fail(w->dev[0], GM_MOCK_COPY, 0, 0));
	dev_fill(w->ctx[0], va, 16, 3);
	cr_assert_eq(app_wrong(w, va, 16, 3), 0);
}
