/* SPDX-License-Identifier: MIT */
/*
 * Exclusive use, in simulation: how a device gets it, who ends it, and that its atomic operations are atomic for
 * everybody meanwhile. As the HMM self-test has it: exclusive, exclusive_mprotect, exclusive_cow, double_map.
 */
#include "config.h"

#include "dup_fixture.h"

static uint64_t exclusives(struct world *w, uint64_t va, uint64_t pages)
{
	return pages_with(w, va, pages, GM_PAGE_EXCLUSIVE);
}

/* The process goes on as soon as its page is there: what is recorded of it comes a moment later. */
static void settle(struct world *w)
{
	gm_sim_sleep_ns(w->sim, 10 * MS);
}

static void make_exclusive(struct world *w, uint64_t va, uint64_t pages, unsigned dev)
{
	uint64_t bytes = 0;

	OK(gm_exclusive(w->ctx[dev], va, pages * PAGE, &bytes));
	cr_assert_eq(bytes, pages * PAGE);
	cr_assert_eq(exclusives(w, va, pages), pages);
	world_check(w);
}

/* An atomic operation of the device on the first word of each page. */
struct rmw {
	uint64_t va, pages, add, old, times;
	bool swap; /* by compare and swap, in a loop */
};

static gm_ret_t rmw_page(struct gm_mock_thread *t, const struct rmw *r, uint64_t va, uint64_t *old)
{
	gm_ret_t ret;
	uint64_t was;

	if (!r->swap)
		return gm_mock_fetch_add(t, va, r->add, old);
	ret = gm_mock_load(t, va, old, 8);
	while (!ret) {
		was = *old;
		ret = gm_mock_compare_swap(t, va, was, was + r->add, old);
		if (!ret && *old == was)
			break;
	}
	return ret;
}

static gm_ret_t rmw_kernel(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct rmw *r = arg;
	gm_ret_t ret = GM_RET_SUCCESS;

	(void)index;
	for (uint64_t n = 0; n < r->times; n++)
		for (uint64_t i = 0; i < r->pages && !ret; i++)
			ret = rmw_page(t, r, r->va + i * PAGE, &r->old);
	return ret;
}

static gm_ret_t dev_rmw(struct gm_ctx *ctx, struct rmw *r)
{
	struct gm_fence *fence;
	gm_ret_t ret;

	OK(gm_mock_launch(ctx, rmw_kernel, r, 1, &fence));
	ret = gm_fence_wait(fence, GM_FOREVER_NS);
	gm_fence_put(fence);
	return ret;
}

/* HMM: exclusive. Device atomics, then the process reads and writes, and the device's right is gone. */
CORE_TEST(exclusive, atomics_then_the_process, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 0);
	struct rmw r = { .va = va, .pages = 16, .add = 5, .times = 1 };
	struct gm_page_info info;

	for (unsigned i = 0; i < 16; i++)
		app_put(w, va + i * PAGE, 37);
	make_exclusive(w, va, 16, 0);
	info = page_info(w, va);
	cr_assert_eq(info.place, GM_PLACE_DEVICE);
	cr_assert_eq(info.dev, w->dev[0]);
	cr_assert_eq(info.mapped_write, 1);
	cr_assert_eq(info.mapped_read, 1);
	cr_assert(!is_at_home(w, va));
	cr_assert_eq(*(const uint64_t *)dev_bytes(w, 0, va, false), 37, "the device's own memory has it");
	OK(dev_rmw(w->ctx[0], &r));
	cr_assert_eq(r.old, 37);
	r.swap = true;
	OK(dev_rmw(w->ctx[0], &r));
	cr_assert_eq(r.old, 42);
	cr_assert_eq(dev_fault_count(w, 0), 0, "mapped with all rights at once");
	for (unsigned i = 0; i < 16; i++)
		cr_assert_eq(app_get(w, va + i * PAGE), 47);
	settle(w);
	cr_assert_eq(exclusives(w, va, 16), 0, "revoked by the first touch");
	cr_assert_eq(page_info(w, va).mapped_read, 0);
	cr_assert(is_at_home(w, va));
	make_exclusive(w, va, 16, 0);
	app_put(w, va, 1);
	settle(w);
	cr_assert(!(page_info(w, va).flags & GM_PAGE_EXCLUSIVE));
}

/* In the device's memory already: only the right and the mark are new. */
CORE_TEST(exclusive, what_the_device_has, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), copied;

	OK(gm_dev_fault(w->ctx[0], va, GM_READ));
	copied = stats_of(w).bytes_to_dev;
	cr_assert_eq(exclusives(w, va, 16), 0);
	make_exclusive(w, va, 16, 0);
	cr_assert_eq(stats_of(w).bytes_to_dev, copied);
	cr_assert_eq(page_info(w, va).mapped_write, 1);
	make_exclusive(w, va, 16, 0); /* again: nothing to do */
	cr_assert_eq(app_wrong(w, va, 16, 1), 0);
}

/* Another device ends it, or takes it. */
CORE_TEST(exclusive, another_device, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1);

	make_exclusive(w, va, 32, 0);
	dev_fill(w->ctx[0], va, 32, 2);
	cr_assert_eq(dev_wrong(w->ctx[1], va, 16, 2), 0);
	cr_assert_eq(exclusives(w, va, 32), 16);
	make_exclusive(w, va, 32, 1);
	cr_assert_eq(page_info(w, va + 20 * PAGE).dev, w->dev[1]);
	cr_assert_eq(dev_wrong(w->ctx[1], va, 32, 2), 0);
	duplicate(w, va, 32, 0);
	cr_assert_eq(exclusives(w, va, 32), 0);
	make_exclusive(w, va, 32, 1);
	cr_assert_eq(dups(w, va, 32), 0);
	cr_assert_eq(app_wrong(w, va, 32, 2), 0);
}

/* HMM: exclusive_mprotect. What the process may not write the device may not either. */
CORE_TEST(exclusive, mprotect, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), bytes = 7;
	struct rmw r = { .va = va, .pages = 1, .add = 1, .times = 1 };

	make_exclusive(w, va, 16, 0);
	OK(gm_sim_mprotect(w->sim, va, 16 * PAGE, GM_READ));
	cr_assert_eq(app_wrong(w, va, 16, 1), 0);
	IS(dev_rmw(w->ctx[0], &r), GM_RET_PERM);
	IS(dev_touch(w->ctx[0], va, true), GM_RET_PERM);
	IS(gm_exclusive(w->ctx[0], va, 16 * PAGE, &bytes), GM_RET_PERM);
	cr_assert_eq(bytes, 0);
	world_check(w);
	OK(gm_sim_mprotect(w->sim, va, 16 * PAGE, RW));
	make_exclusive(w, va, 16, 0);
}

/* HMM: exclusive_cow. Parent and child have each their own. */
CORE_TEST(exclusive, fork, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 0), child = 0;
	struct rmw r = { .va = va, .pages = 1, .add = 1, .times = 1 };

	app_put(w, va, 7);
	make_exclusive(w, va, 16, 0);
	OK(dev_rmw(w->ctx[0], &r));
	OK(gm_sim_fork_snapshot(w->sim, va, &child, 8));
	cr_assert_eq(child, 8, "what the device had done so far");
	OK(dev_rmw(w->ctx[0], &r));
	app_put(w, va, app_get(w, va) + 1);
	cr_assert_eq(app_get(w, va), 10);
	cr_assert_eq(child, 8);
}

CORE_TEST(exclusive, what_cannot_be, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), bytes = 0;
	struct gm_ws_range range = { .va = va + 16 * PAGE, .bytes = 16 * PAGE, .access = GM_READ };
	struct gm_ws *ws;

	OK(gm_sim_pin(w->sim, va + PAGE));
	IS(gm_exclusive(w->ctx[0], va, 16 * PAGE, &bytes), GM_RET_BUSY);
	cr_assert_eq(bytes, 15 * PAGE);
	gm_sim_unpin(w->sim, va + PAGE);
	OK(gm_ws_acquire(w->ctx[1], &range, 1, SECOND, &ws));
	IS(gm_exclusive(w->ctx[0], va, 32 * PAGE, &bytes), GM_RET_BUSY);
	cr_assert_eq(bytes, 16 * PAGE);
	OK(gm_ws_release(ws, NULL));
	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws)); /* its own set is no hindrance */
	make_exclusive(w, va, 32, 0);
	OK(gm_ws_release(ws, NULL));
	IS(gm_exclusive(w->ctx[0], va + BLOCK, PAGE, &bytes), GM_RET_FAULT);
	world_check(w);
}

CORE_TEST(exclusive, ends_with_what_takes_the_page, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), to;

	make_exclusive(w, va, 64, 0);
	OK(gm_sim_dontneed(w->sim, va, 16 * PAGE));
	OK(gm_dev_fault(w->ctx[1], va, GM_READ));
	OK(gm_discard(w->as, va + 16 * PAGE, 16 * PAGE));
	cr_assert_eq(exclusives(w, va, 64), 32);
	to = gm_sim_mremap(w->sim, va + 32 * PAGE, 16 * PAGE);
	cr_assert_neq(to, 0);
	app_put(w, to, 1);
	OK(gm_release(w->as, ptr(va + 48 * PAGE), 16 * PAGE));
	cr_assert_eq(exclusives(w, va, 64), 0);
	world_check(w);
	make_exclusive(w, to, 16, 0);
	OK(gm_mock_lose(w->dev[0]));
	OK(gm_as_detach(w->ctx[0]));
	w->ctx[0] = NULL;
	cr_assert_eq(exclusives(w, to, 16), 0);
	world_check(w);
}

CORE_TEST(exclusive, device_without_faults, .dev = { "mock:vram=1M,faults=no,hostmap=no,visible=no", NULL })
{
	uint64_t va = app_adopted(w, 1, 0);
	struct rmw r = { .va = va, .pages = 32, .add = 3, .times = 2 };

	app_put(w, va + 31 * PAGE, 1);
	make_exclusive(w, va, 32, 0);
	OK(dev_rmw(w->ctx[0], &r));
	cr_assert_eq(app_get(w, va + 31 * PAGE), 7);
	IS(dev_rmw(w->ctx[0], &r), GM_RET_FAULT);
}

/* ---------------------------------------------------------------- races */

struct counter {
	struct world *w;
	uint64_t va, times;
	atomic_bool stop;
};

static void cpu_adds(void *arg)
{
	struct counter *c = arg;

	for (uint64_t i = 0; i < c->times; i++) {
		uint64_t old;

		OK(gm_sim_fetch_add(c->w->sim, c->va + i % 4 * PAGE, 1, &old));
		if (i % 8 == 0)
			gm_sim_sleep_ns(c->w->sim, gm_sim_random(c->w->sim, MS / 2));
	}
}

static void asks(void *arg)
{
	struct counter *c = arg;

	for (unsigned i = 0; !atomic_load(&c->stop); i++) {
		uint64_t bytes;
		gm_ret_t ret = gm_exclusive(c->w->ctx[i % 2], c->va, 4 * PAGE, &bytes);

		cr_assert(ret == GM_RET_SUCCESS || ret == GM_RET_BUSY || ret == GM_RET_TIMEDOUT, "%s", gm_ret_name(ret));
		gm_sim_sleep_ns(c->w->sim, gm_sim_random(c->w->sim, MS));
	}
}

/* The process and both devices add to the same words, and nothing is lost. */
static void adds_body(struct world *w)
{
	struct counter c = { .w = w, .va = app_adopted(w, 1, 0), .times = 80 };
	struct rmw r[2] = { { .va = c.va, .pages = 4, .add = 1, .times = 20 },
			    { .va = c.va, .pages = 4, .add = 1, .times = 20, .swap = true } };
	struct gm_fence *f[2];
	struct gm_thread *t[2];

	for (unsigned i = 0; i < 4; i++)
		app_put(w, c.va + i * PAGE, 0);
	for (unsigned i = 0; i < 2; i++)
		OK(gm_mock_launch(w->ctx[i], rmw_kernel, &r[i], 1, &f[i]));
	t[0] = spawn(w, cpu_adds, &c);
	t[1] = spawn(w, asks, &c);
	join(w, t[0]);
	for (unsigned i = 0; i < 2; i++) {
		OK(gm_fence_wait(f[i], GM_FOREVER_NS));
		gm_fence_put(f[i]);
	}
	atomic_store(&c.stop, true);
	join(w, t[1]);
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(app_get(w, c.va + i * PAGE), 60);
}

Test(exclusive, adds_of_all)
{
	for (unsigned seed = 1; seed <= 10; seed++) {
		const struct world_config config = { .dev = { "mock:vram=1M", "mock:vram=1M,fastinvl=no" }, .seed = seed,
						     .spurious = true };

		world_run(&config, adds_body);
	}
}
