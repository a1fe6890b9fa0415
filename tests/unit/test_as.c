/* SPDX-License-Identifier: MIT */
/*
 * Address spaces: they come and go with whatever is in them, devices see them
 * at other addresses, many of them share a device, and one without threads of
 * its own is served by its caller.
 */
#include "config.h"

#include <poll.h>
#include <pthread.h>
#include <time.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core_fixture.h"

CORE_TEST(as, comes_and_goes, .bare = true)
{
	size_t live = 0;

	for (unsigned i = 0; i < 10; i++) {
		struct gm_as *as;
		struct gm_as_config c = { .size = sizeof(c), .flags = i % 2 ? GM_AS_EXCLUSIVE : 0 };

		OK(gm_as_create(w->lib, 0, 0, i % 3 ? &c : NULL, &as));
		OK(gm_as_check(as, NULL, 0));
		OK(gm_as_destroy(as));
		if (i == 0)
			live = atomic_load(&w->fa.live);
		cr_assert_eq(atomic_load(&w->fa.live), live);
	}
}

/* Nothing was released, freed or detached: owned memory goes, adopted memory stays, complete. */
CORE_TEST(as, destroyed_with_things_left, .dev = { "mock:vram=4M", "mock:vram=4M,visible=no" })
{
	uint64_t va = app_adopted(w, 2, 1), byte;
	void *p;

	OK(gm_alloc(w->as, BLOCK, 0, &p));
	OK(gm_adopt(w->as, ptr(app_map(w, 3 * PAGE) + 100), PAGE, 0));
	dev_fill(w->ctx[0], GM_VA(p), 40, 3);
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 2);
	dev_fill(w->ctx[1], va + BLOCK, GM_BLOCK_PAGES, 3);
	OK(gm_as_destroy(w->as));
	w->as = NULL;
	cr_assert(dev_all_free(w->dev[0]) && dev_all_free(w->dev[1]));
	IS(gm_sim_load(w->sim, GM_VA(p), &byte, 1), GM_RET_FAULT);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 2), 0);
	cr_assert_eq(app_wrong(w, va + BLOCK, GM_BLOCK_PAGES, 3), 0);
}

/* ... with all its contexts, also those of devices that have given everything back. */
CORE_TEST(as, not_destroyed_in_part, .dev = { "mock:vram=4M", "mock:visible=no,submit=no" }, .as = { .wait_ns = 20 * MS })
{
	uint64_t va = app_adopted(w, 2, 1);
	struct gm_ctx *ctx;

	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 2);
	dev_fill(w->ctx[1], va + BLOCK, GM_BLOCK_PAGES, 3);
	OK(gm_mock_fail(w->dev[1], GM_MOCK_COPY, 1, UINT64_MAX));
	cr_assert_neq(gm_as_destroy(w->as), GM_RET_SUCCESS);
	OK(gm_mock_fail(w->dev[1], GM_MOCK_COPY, 0, 0));
	for (unsigned i = 0; i < 2; i++) {
		ctx = gm_as_ctx_of(w->as, w->dev[i]);
		cr_assert_eq(ctx, w->ctx[i], "the context of device %u is gone", i);
		gm_ctx_leave(ctx);
		dev_fill(ctx, va + BLOCK / 2, GM_BLOCK_PAGES, 4 + i);
	}
	cr_assert_eq(app_wrong(w, va + BLOCK / 2, GM_BLOCK_PAGES, 5), 0);
	world_check(w);
}

/* As long as a byte cannot come home the space stays, usable. */
CORE_TEST(as, not_destroyed_while_bytes_are_away, .dev = { "mock:visible=no,submit=no" }, .as = { .wait_ns = 20 * MS })
{
	uint64_t va = app_adopted(w, 1, 1);

	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 2);
	OK(gm_mock_fail(w->dev[0], GM_MOCK_COPY, 1, UINT64_MAX));
	cr_assert_neq(gm_as_detach(w->ctx[0]), GM_RET_SUCCESS);
	IS(gm_as_destroy(w->as), GM_RET_IO);
	cr_assert_not_null(strstr(gm_last_error(), "copied from a device"), "%s", gm_last_error());
	IS(gm_release(w->as, ptr(va), BLOCK), GM_RET_IO);
	cr_assert_not_null(strstr(gm_last_error(), "copied from a device"), "%s", gm_last_error());
	world_check(w);
	OK(gm_mock_fail(w->dev[0], GM_MOCK_COPY, 0, 0));
	cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, 2), 0, "it is still attached");
	OK(gm_as_destroy(w->as));
	w->as = NULL;
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 2), 0);
}

CORE_TEST(as, detached_devices_leave_nothing, .dev = { "mock", "mock" })
{
	uint64_t va = app_adopted(w, 1, 1);

	dev_fill(w->ctx[0], va, 100, 2);
	OK(gm_as_detach(w->ctx[0]));
	cr_assert(dev_all_free(w->dev[0]));
	cr_assert_eq(app_wrong(w, va, 100, 2), 0);
	dev_fill(w->ctx[1], va, 100, 3);
	OK(gm_as_attach(w->as, w->dev[0], GM_ATTACH_IDENTITY, NULL, &w->ctx[0]));
	cr_assert_eq(dev_wrong(w->ctx[0], va, 100, 3), 0);
	world_check(w);
}

/* ---------------------------------------------------------------- windows */

CORE_TEST(as, a_window, .dev = { "mock:vram=4M" })
{
	uint64_t va = app_map_blocks(w, 4);
	struct gm_window win = { .va = va + BLOCK, .bytes = 2 * BLOCK, .dev_va = 77 * BLOCK };
	struct gm_ws_range range = { .va = va + BLOCK, .bytes = UNIT, .access = GM_READ };
	struct gm_ctx *ctx;
	struct gm_as *as;
	struct gm_ws *ws;

	OK(gm_as_create(w->lib, 0, 0, NULL, &as));
	OK(gm_as_attach(as, w->dev[0], GM_ATTACH_WINDOW, &win, &ctx));
	app_fill(w, va, 4 * GM_BLOCK_PAGES, 1);
	OK(gm_adopt(as, ptr(va), 4 * BLOCK, 0));
	/* Device addresses begin at 77 blocks; the bytes are those of the host's second block. */
	dev_fill(ctx, win.dev_va, 2 * GM_BLOCK_PAGES, 5);
	cr_assert_eq(app_wrong(w, va + BLOCK, 2 * GM_BLOCK_PAGES, 5), 0);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
	cr_assert_eq(dev_wrong(ctx, win.dev_va + BLOCK + 3 * PAGE, 0, 0), 0);
	/* Host addresses elsewhere. */
	OK(gm_dev_fault(ctx, va + BLOCK, GM_WRITE));
	OK(gm_dev_fault(ctx, va + 3 * BLOCK - 1, GM_WRITE));
	IS(gm_dev_fault(ctx, va + BLOCK - 1, GM_READ), GM_RET_FAULT);
	IS(gm_dev_fault(ctx, va + 3 * BLOCK, GM_READ), GM_RET_FAULT);
	IS(dev_touch(ctx, win.dev_va - PAGE, false), GM_RET_FAULT);
	IS(dev_touch(ctx, win.dev_va + 2 * BLOCK, false), GM_RET_FAULT);
	IS(dev_touch(ctx, va + BLOCK, false), GM_RET_FAULT);
	OK(gm_ws_acquire(ctx, &range, 1, SECOND, &ws));
	cr_assert_eq(dev_wrong(ctx, win.dev_va, 16, 5), 0);
	OK(gm_ws_release(ws, NULL));
	range.va = va + BLOCK - PAGE;
	IS(gm_ws_acquire(ctx, &range, 1, SECOND, &ws), GM_RET_FAULT);
	OK(gm_as_check(as, NULL, 0));
	OK(gm_as_destroy(as));
	cr_assert_eq(app_wrong(w, va + BLOCK, 2 * GM_BLOCK_PAGES, 5), 0);
}

/* A window below its host addresses: the distance is negative. */
CORE_TEST(as, a_window_downward, .dev = { "mock:vram=4M" })
{
	uint64_t va = app_map_blocks(w, 1);
	struct gm_window win = { .va = va, .bytes = BLOCK, .dev_va = 0 };
	struct gm_ctx *ctx;
	struct gm_as *as;

	OK(gm_as_create(w->lib, 0, 0, NULL, &as));
	OK(gm_as_attach(as, w->dev[0], GM_ATTACH_WINDOW, &win, &ctx));
	OK(gm_adopt(as, ptr(va), BLOCK, 0));
	dev_fill(ctx, 0, GM_BLOCK_PAGES, 5);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 5), 0);
	cr_assert_eq(dev_wrong(ctx, 0, GM_BLOCK_PAGES, 5), 0);
	OK(gm_as_destroy(as));
}

/* ------------------------------------------------------------ many spaces */

#define SPACES 6u

/* One device, little memory, many spaces: each evicts the others' pages and none mixes them up. */
CORE_TEST(as, many_spaces_on_one_device, .dev = { "mock:vram=512K" })
{
	struct gm_as *as[SPACES];
	struct gm_ctx *ctx[SPACES];
	uint64_t va[SPACES];

	for (unsigned i = 0; i < SPACES; i++) {
		OK(gm_as_create(w->lib, 0, 0, NULL, &as[i]));
		OK(gm_as_attach(as[i], w->dev[0], GM_ATTACH_IDENTITY, NULL, &ctx[i]));
		va[i] = app_map_blocks(w, 1);
		OK(gm_adopt(as[i], ptr(va[i]), BLOCK, 0));
	}
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = 0; i < SPACES; i++) {
			if (round)
				cr_assert_eq(dev_wrong(ctx[i], va[i], 64, 10 * i + round - 1), 0);
			dev_fill(ctx[i], va[i], 64, 10 * i + round);
			OK(gm_as_check(as[i], NULL, 0));
		}
	IS(dev_touch(ctx[0], va[1], false), GM_RET_FAULT);
	for (unsigned i = 0; i < SPACES; i++) {
		cr_assert_eq(app_wrong(w, va[i], 64, 10 * i + 2), 0);
		OK(gm_as_destroy(as[i]));
	}
	cr_assert(dev_all_free(w->dev[0]));
}

/* -------------------------------------------------- served by the caller */

struct caller {
	struct world *w;
	uint64_t va, wrong;
	bool done;
};

static void application(void *arg)
{
	struct caller *c = arg;
	struct world *w = c->w;

	for (unsigned round = 0; round < 3; round++) {
		dev_fill(w->ctx[0], c->va, GM_BLOCK_PAGES, round);
		c->wrong += app_wrong(w, c->va, GM_BLOCK_PAGES, round);
		app_fill(w, c->va, GM_BLOCK_PAGES, round + 10);
		c->wrong += dev_wrong(w->ctx[0], c->va, GM_BLOCK_PAGES, round + 10);
	}
	OK(gm_sim_dontneed(w->sim, c->va, 16 * PAGE));
	c->wrong += app_get(w, word_va(c->va, 3)) != 0;
	c->va = gm_sim_mremap(w->sim, c->va, BLOCK);
	c->wrong += app_get(w, word_va(c->va, 20)) != word(20, 12);
	c->wrong += dev_touch(w->ctx[0], c->va + 30 * PAGE, false) != GM_RET_SUCCESS;
	c->done = true;
}

CORE_TEST(as, served_by_the_caller, .dev = { "mock:vram=512K" }, .as = { .flags = GM_AS_NO_THREADS })
{
	struct caller c = { .w = w };
	struct gm_thread *t;
	unsigned served = 0;
	uint64_t start;

	c.va = app_map_blocks(w, 1);
	OK(gm_adopt(w->as, ptr(c.va), BLOCK, 0));
	while (!gm_as_serve(w->as, 0))
		;
	start = gm_now_ns(w->env);
	IS(gm_as_serve(w->as, 5 * MS), GM_RET_TIMEDOUT);
	cr_assert_geq(gm_now_ns(w->env) - start, 5 * MS, "it did not wait");
	t = spawn(w, application, &c);
	while (!c.done)
		served += gm_as_serve(w->as, 10 * MS) == GM_RET_SUCCESS;
	join(w, t);
	cr_assert_eq(c.wrong, 0);
	cr_assert_gt(served, 10);
	world_check(w);
}

/* The same on this machine's host. */
struct real_caller {
	struct gm_as *as;
	struct gm_ctx *ctx;
	char *at;
	uint64_t wrong;
	atomic_bool done;
};

static void *real_application(void *arg)
{
	struct real_caller *c = arg;

	for (uint64_t round = 0; round < 3; round++) {
		dev_fill(c->ctx, GM_VA(c->at), GM_BLOCK_PAGES, round);
		for (uint64_t i = 0; i < GM_BLOCK_PAGES; i++)
			c->wrong += *(volatile uint64_t *)ptr(word_va(GM_VA(c->at), i)) != word(i, round);
	}
	dev_fill(c->ctx, GM_VA(c->at), 32, 9);
	c->wrong += madvise(c->at, 16 * PAGE, MADV_DONTNEED) != 0;
	c->wrong += *(volatile uint64_t *)ptr(word_va(GM_VA(c->at), 3)) != 0;
	c->wrong += *(volatile uint64_t *)ptr(word_va(GM_VA(c->at), 20)) != word(20, 9);
	atomic_store(&c->done, true);
	return NULL;
}

Test(as, served_by_the_caller_on_the_real_host)
{
	struct gm_as_config config = { .size = sizeof(config), .flags = GM_AS_NO_THREADS };
	struct real_caller c = { .wrong = 0 };
	struct gm_lib *lib;
	struct gm_dev *dev;
	pthread_t thread;
	gm_ret_t ret = gm_lib_create(NULL, &lib);
	struct pollfd pfd = { .events = POLLIN };
	unsigned woken = 0;

	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	OK(ret);
	alarm(200); /* an access that nobody serves waits for ever */
	OK(gm_dev_open(lib, "mock:vram=512K", &dev));
	OK(gm_as_create(lib, 0, 0, &config, &c.as));
	OK(gm_as_attach(c.as, dev, GM_ATTACH_IDENTITY, NULL, &c.ctx));
	c.at = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(c.at, MAP_FAILED);
	OK(gm_adopt(c.as, c.at, BLOCK, 0));
	pfd.fd = gm_as_fd(c.as);
	cr_assert_geq(pfd.fd, 0);
	while (!gm_as_serve(c.as, 0))
		;
	cr_assert_eq(poll(&pfd, 1, 0), 0, "readable without a reason");
	cr_assert_eq(pthread_create(&thread, NULL, real_application, &c), 0);
	/* bounded by time: the descriptor may stay readable while there is nothing to serve yet */
	for (time_t end = time(NULL) + 20; time(NULL) < end && !atomic_load(&c.done);) {
		woken += poll(&pfd, 1, 1) > 0;
		while (!gm_as_serve(c.as, 0))
			;
	}
	cr_assert(atomic_load(&c.done), "the application still waits");
	pthread_join(thread, NULL);
	cr_assert_eq(c.wrong, 0);
	cr_assert_gt(woken, 10, "the descriptor never said that there is work");
	OK(gm_as_destroy(c.as));
	OK(gm_dev_destroy(dev));
	OK(gm_lib_destroy(lib));
	munmap(c.at, BLOCK);
}

/* A thread that brings pages home, and pauses before one of its locks. */
static struct {
	struct world *w;
	const struct gm_env_ops *ops;
	uint64_t va;
	uint32_t thread;
	unsigned at; /* the lock; 0: it has paused */
	bool done;
} bringer;

static void pausing_lock(struct gm_env *env, struct gm_mutex *m)
{
	if (gm_sim_thread_id(bringer.w->sim) == bringer.thread && bringer.at && !--bringer.at)
		gm_sim_sleep_ns(bringer.w->sim, MS);
	bringer.ops->lock(env, m);
}

static void bring_home(void *arg)
{
	(void)arg;
	bringer.thread = gm_sim_thread_id(bringer.w->sim);
	(void)gm_migrate(bringer.w->as, bringer.va, 64 * PAGE, NULL, NULL);
	bringer.done = true;
}

/* Others bring the last pages home while the device is ended: their frames are given back before it is gone. */
CORE_TEST(as, device_ended_while_pages_leave)
{
	uint64_t va = app_adopted(w, 1, 1);

	for (unsigned at = 1;; at++) {
		struct gm_env_ops ops = *w->env->ops;
		struct gm_thread *t;

		dev_fill(w->ctx[0], va, 64, at);
		memset(&bringer, 0, sizeof(bringer));
		bringer.w = w;
		bringer.va = va;
		bringer.at = at;
		bringer.ops = w->env->ops;
		ops.lock = pausing_lock;
		w->env->ops = &ops;
		t = spawn(w, bring_home, NULL);
		while (bringer.at && !bringer.done)
			gm_yield(w->env);
		OK(gm_as_detach(w->ctx[0]));
		OK(gm_dev_destroy(w->dev[0]));
		OK(gm_dev_open(w->lib, "mock:vram=4M", &w->dev[0])); /* in the place of the other */
		world_check(w);
		join(w, t);
		w->env->ops = bringer.ops;
		OK(gm_as_attach(w->as, w->dev[0], GM_ATTACH_IDENTITY, NULL, &w->ctx[0]));
		cr_assert_eq(app_wrong(w, va, 64, at), 0);
		world_check(w);
		if (bringer.at)
			break;
	}
}
