/* SPDX-License-Identifier: MIT */
/*
 * The boundary: every public function refuses bad input with the value its
 * header promises, says why, and leaves its out-parameters alone.
 */
#include "config.h"

#include "core_fixture.h"
#include "fake_backend.h"

/* A pointer that no function may follow, for out-parameters. */
#define UNTOUCHED(type) ((type *)(uintptr_t)16)

/* A call that must fail: with this result, with a reason, and `out` as it was. */
#define REFUSED(call, want, out)                                             \
	do {                                                                 \
		(out) = (void *)(uintptr_t)16;                               \
		IS(call, want);                                              \
		cr_assert_eq((uintptr_t)(out), 16, "%s touched its result", #call); \
		cr_assert_gt(strlen(gm_last_error()), 5, "%s gives no reason", #call); \
	} while (0)

/* ------------------------------------------------------------- instances */

Test(api, lib_create)
{
	struct gm_lib_config config = { .size = sizeof(config) - 1 };
	struct gm_lib *lib;

	IS(gm_lib_create(NULL, NULL), GM_RET_INVAL);
	REFUSED(gm_lib_create(&config, &lib), GM_RET_INVAL, lib);
	config.size = 0;
	REFUSED(gm_lib_create(&config, &lib), GM_RET_INVAL, lib);
	OK(gm_lib_destroy(NULL));
}

CORE_TEST(api, lib_destroy_with_things_left)
{
	IS(gm_lib_destroy(w->lib), GM_RET_BUSY);
	OK(gm_as_destroy(w->as));
	w->as = NULL;
	IS(gm_lib_destroy(w->lib), GM_RET_BUSY);
	OK(gm_dev_destroy(w->dev[0]));
	w->dev[0] = NULL;
}

/* --------------------------------------------------------------- devices */

CORE_TEST(api, dev_create_checks_the_table, .bare = true)
{
	struct gm_mmu m = fake_mmu();
	struct gm_dev *dev;

	REFUSED(gm_dev_create(NULL, &m, &fake, &dev), GM_RET_INVAL, dev);
	REFUSED(gm_dev_create(w->lib, NULL, &fake, &dev), GM_RET_INVAL, dev);
	IS(gm_dev_create(w->lib, &m, &fake, NULL), GM_RET_INVAL);
#define SPOILT(change)                                                              \
	do {                                                                        \
		m = fake_mmu();                                                     \
		change;                                                             \
		REFUSED(gm_dev_create(w->lib, &m, &fake, &dev), GM_RET_INVAL, dev); \
	} while (0)
	SPOILT(m.abi++);
	SPOILT(m.size = 20);
	SPOILT(m.size = offsetof(struct gm_mmu, copy));
	SPOILT(m.name = NULL);
	SPOILT(m.dev_init = NULL);
	SPOILT(m.dev_fini = NULL);
	SPOILT(m.pmap_create = NULL);
	SPOILT(m.pmap_destroy = NULL);
	SPOILT(m.pmap_enter = NULL);
	SPOILT(m.pmap_remove = NULL);
	SPOILT(m.tlb_invl = NULL);
	SPOILT(m.copy = NULL);
	SPOILT(fake.caps = GM_CAP_FAULTS);
	SPOILT(fake.caps = GM_CAP_CPU_VISIBLE);
	SPOILT(fake.caps = GM_CAP_SUBMIT);
	SPOILT(fake.caps = GM_CAP_ACCESS);
	SPOILT(fake.caps = GM_CAP_PROTECT);
	SPOILT(fake.caps = GM_CAP_HOST);
	SPOILT(m.host = (const void *)&fake);
	cr_assert_not_null(strstr(gm_last_error(), "slot host"), "%s", gm_last_error());
	SPOILT((fake.caps = GM_CAP_HOST, m.host = (const void *)&fake));
	SPOILT(fake.page_sizes = 0);
	SPOILT(fake.page_sizes = 1 << 11);
	SPOILT(fake.page_sizes = 1 << 22);
	SPOILT(fake.va_bits = 65);
	SPOILT(fake.max_contexts = 0);
	SPOILT(fake.slabs = GM_MAX_SLABS + 1);
	SPOILT((fake.slabs = 1, fake.slab[0] = (struct gm_slab){ 0, UNIT / 2 }));
	SPOILT((fake.slabs = 1, fake.slab[0] = (struct gm_slab){ UNIT, UNIT }));
	m = fake_mmu();
	m.size = offsetof(struct gm_mmu, pmap_protect); /* an older backend */
	OK(gm_dev_create(w->lib, &m, &fake, &dev));
	OK(gm_dev_destroy(dev));
}

CORE_TEST(api, dev_open, .bare = true)
{
	static const char *const bad[] = { "mock:vram=", "mock:vram=x", "mock:nonsense=1", "mock:vram=1K",
					   "mock:pages=3K" };
	struct gm_dev *dev;

	REFUSED(gm_dev_open(NULL, "mock", &dev), GM_RET_INVAL, dev);
	REFUSED(gm_dev_open(w->lib, NULL, &dev), GM_RET_INVAL, dev);
	IS(gm_dev_open(w->lib, "mock", NULL), GM_RET_INVAL);
	REFUSED(gm_dev_open(w->lib, "no-such-backend", &dev), GM_RET_NOENT, dev);
	cr_assert_not_null(strstr(gm_last_error(), "mock"), "lists what there is: %s", gm_last_error());
	REFUSED(gm_dev_open(w->lib, "", &dev), GM_RET_NOENT, dev);
	REFUSED(gm_dev_open(w->lib, "mockx", &dev), GM_RET_NOENT, dev);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		REFUSED(gm_dev_open(w->lib, bad[i], &dev), GM_RET_INVAL, dev);
}

CORE_TEST(api, as_many_devices_as_there_may_be, .bare = true)
{
	struct gm_dev *dev[GM_MAX_DEVS], *more;
	struct gm_ctx *ctx;
	struct gm_as *as;

	OK(gm_as_create(w->lib, 0, 0, NULL, &as));
	for (unsigned i = 0; i < GM_MAX_DEVS; i++) {
		OK(gm_dev_open(w->lib, "mock:vram=64K", &dev[i]));
		OK(gm_as_attach(as, dev[i], GM_ATTACH_IDENTITY, NULL, &ctx));
	}
	REFUSED(gm_dev_open(w->lib, "mock:vram=64K", &more), GM_RET_NOSPC, more);
	OK(gm_as_detach(ctx));
	OK(gm_dev_destroy(dev[GM_MAX_DEVS - 1]));
	OK(gm_dev_open(w->lib, "mock:vram=64K", &dev[GM_MAX_DEVS - 1]));
	OK(gm_as_destroy(as));
	for (unsigned i = 0; i < GM_MAX_DEVS; i++)
		OK(gm_dev_destroy(dev[i]));
}

CORE_TEST(api, register_physmem, .bare = true)
{
	struct gm_mmu m = fake_mmu();
	struct gm_dev_info info;
	struct gm_dev *dev;

	OK(gm_dev_create(w->lib, &m, &fake, &dev));
	IS(gm_dev_register_physmem(NULL, 0, UNIT), GM_RET_INVAL);
	IS(gm_dev_register_physmem(dev, 0, 0), GM_RET_INVAL);
	IS(gm_dev_register_physmem(dev, UNIT, UNIT), GM_RET_INVAL);
	IS(gm_dev_register_physmem(dev, 2 * UNIT, UNIT), GM_RET_INVAL);
	IS(gm_dev_register_physmem(dev, PAGE, UNIT), GM_RET_INVAL);
	IS(gm_dev_register_physmem(dev, 0, UNIT + PAGE), GM_RET_INVAL);
	IS(gm_dev_register_physmem(dev, UINT64_C(1) << 48, (UINT64_C(1) << 48) + UNIT), GM_RET_INVAL);
	IS(gm_dev_register_physmem(dev, 0, (UINT64_C(1) << 48) + UNIT), GM_RET_INVAL);
	IS(gm_dev_register_physmem(dev, 0, UINT64_MAX), GM_RET_INVAL);
	OK(gm_dev_register_physmem(dev, 4 * UNIT, 8 * UNIT));
	IS(gm_dev_register_physmem(dev, 7 * UNIT, 9 * UNIT), GM_RET_EXIST);
	IS(gm_dev_register_physmem(dev, 0, 5 * UNIT), GM_RET_EXIST);
	IS(gm_dev_register_physmem(dev, 0, 20 * UNIT), GM_RET_EXIST);
	IS(gm_dev_register_physmem(dev, 5 * UNIT, 6 * UNIT), GM_RET_EXIST);
	for (unsigned i = 1; i < GM_MAX_SLABS; i++)
		OK(gm_dev_register_physmem(dev, (4 + 4 * i) * UNIT, (8 + 4 * i) * UNIT));
	IS(gm_dev_register_physmem(dev, 100 * UNIT, 101 * UNIT), GM_RET_NOSPC);
	OK(gm_dev_query(dev, &info));
	cr_assert_eq(info.mem_bytes, GM_MAX_SLABS * 4 * UNIT, "what was refused does not count");
	OK(gm_dev_destroy(dev));
}

CORE_TEST(api, dev_small_calls)
{
	struct gm_dev_info info = { .va_bits = 77 };

	IS(gm_dev_query(NULL, &info), GM_RET_INVAL);
	cr_assert_eq(info.va_bits, 77);
	IS(gm_dev_query(w->dev[0], NULL), GM_RET_INVAL);
	OK(gm_dev_query(w->dev[0], &info));
	cr_assert_eq(info.va_bits, 48);
	cr_assert_eq(info.mem_bytes, 4 << 20);
	cr_assert_null(gm_dev_backend(NULL));
	cr_assert_not_null(gm_dev_backend(w->dev[0]));
	IS(gm_dev_destroy(w->dev[0]), GM_RET_BUSY);
	OK(gm_dev_destroy(NULL));
	cr_assert_null(gm_ctx_pmap(NULL));
	cr_assert_null(gm_ctx_dev(NULL));
	cr_assert_eq(gm_ctx_dev(w->ctx[0]), w->dev[0]);
	cr_assert_not_null(gm_ctx_pmap(w->ctx[0]));
}

/* -------------------------------------------------------- address spaces */

CORE_TEST(api, as_create, .bare = true)
{
	struct gm_policy policy = { .size = 1 };
	struct gm_as_config c;
	struct gm_as *as;

	REFUSED(gm_as_create(NULL, 0, 0, NULL, &as), GM_RET_INVAL, as);
	IS(gm_as_create(w->lib, 0, 0, NULL, NULL), GM_RET_INVAL);
	REFUSED(gm_as_create(w->lib, PAGE, PAGE, NULL, &as), GM_RET_INVAL, as);
	REFUSED(gm_as_create(w->lib, 2 * PAGE, PAGE, NULL, &as), GM_RET_INVAL, as);
	REFUSED(gm_as_create(w->lib, 0, PAGE + 1, NULL, &as), GM_RET_INVAL, as);
	REFUSED(gm_as_create(w->lib, 1, PAGE, NULL, &as), GM_RET_INVAL, as);
	REFUSED(gm_as_create(w->lib, PAGE, 0, NULL, &as), GM_RET_INVAL, as);
#define SPOILT_AS(...)                                                               \
	do {                                                                         \
		c = (struct gm_as_config){ .size = sizeof(c) };                      \
		__VA_ARGS__;                                                         \
		REFUSED(gm_as_create(w->lib, 0, 0, &c, &as), GM_RET_INVAL, as);      \
	} while (0)
	SPOILT_AS(c.size = 0);
	SPOILT_AS(c.size = sizeof(c) + 8);
	SPOILT_AS(c.flags = 0x10000);
	SPOILT_AS(c.flags = 0x80000000u);
	SPOILT_AS(c.cpu_unit_bytes = 2048);
	SPOILT_AS(c.cpu_unit_bytes = 12288);
	SPOILT_AS(c.cpu_unit_bytes = 4 << 20);
	SPOILT_AS(c.dev_unit_bytes = 5000);
	SPOILT_AS(c.dev_around_bytes = 4 << 20);
	SPOILT_AS((c.cpu_unit_bytes = 128 << 10, c.cpu_around_bytes = 64 << 10));
	SPOILT_AS((c.dev_unit_bytes = 128 << 10, c.dev_around_bytes = 64 << 10));
	SPOILT_AS(c.policy = &policy);
	OK(gm_as_destroy(NULL));
}

CORE_TEST(api, attach)
{
	struct gm_window good = { .va = BLOCK, .bytes = BLOCK, .dev_va = 4 * BLOCK }, win;
	struct gm_lib *other;
	struct gm_dev *foreign;
	struct gm_ctx *ctx;
	struct gm_as *as;

	OK(gm_as_create(w->lib, 0, 0, NULL, &as));
	REFUSED(gm_as_attach(NULL, w->dev[0], GM_ATTACH_IDENTITY, NULL, &ctx), GM_RET_INVAL, ctx);
	REFUSED(gm_as_attach(as, NULL, GM_ATTACH_IDENTITY, NULL, &ctx), GM_RET_INVAL, ctx);
	IS(gm_as_attach(as, w->dev[0], GM_ATTACH_IDENTITY, NULL, NULL), GM_RET_INVAL);
	REFUSED(gm_as_attach(as, w->dev[0], (enum gm_attach_mode)7, NULL, &ctx), GM_RET_INVAL, ctx);
	REFUSED(gm_as_attach(as, w->dev[0], GM_ATTACH_IDENTITY, &good, &ctx), GM_RET_INVAL, ctx);
	REFUSED(gm_as_attach(as, w->dev[0], GM_ATTACH_WINDOW, NULL, &ctx), GM_RET_INVAL, ctx);
#define SPOILT_WIN(change)                                                                              \
	do {                                                                                            \
		win = good;                                                                             \
		change;                                                                                 \
		REFUSED(gm_as_attach(as, w->dev[0], GM_ATTACH_WINDOW, &win, &ctx), GM_RET_INVAL, ctx);  \
	} while (0)
	SPOILT_WIN(win.bytes = 0);
	SPOILT_WIN(win.bytes = PAGE);
	SPOILT_WIN(win.va += PAGE);
	SPOILT_WIN(win.dev_va += PAGE);
	SPOILT_WIN(win.va = UINT64_MAX - BLOCK + 1);
	SPOILT_WIN((win.va = UINT64_MAX - BLOCK + 1, win.bytes = 2 * BLOCK));
	SPOILT_WIN((win.dev_va = UINT64_MAX - BLOCK + 1, win.bytes = 2 * BLOCK));
	SPOILT_WIN(win.dev_va = UINT64_C(1) << 48);
	SPOILT_WIN((win.dev_va = (UINT64_C(1) << 48) - BLOCK, win.bytes = 2 * BLOCK));
	REFUSED(gm_as_attach(w->as, w->dev[0], GM_ATTACH_IDENTITY, NULL, &ctx), GM_RET_EXIST, ctx);
	OK(gm_lib_create_on(w->env, gm_sim_host_mmu(), gm_sim_host_data(w->sim), &other));
	OK(gm_dev_open(other, "mock:vram=64K", &foreign));
	REFUSED(gm_as_attach(as, foreign, GM_ATTACH_IDENTITY, NULL, &ctx), GM_RET_INVAL, ctx);
	IS(gm_migrate(w->as, 0, PAGE, foreign, NULL), GM_RET_INVAL);
	OK(gm_as_detach(NULL));
	OK(gm_as_destroy(as));
	OK(gm_as_destroy(w->as)); /* the simulated host closes with the first of the two instances */
	w->as = NULL;
	OK(gm_dev_destroy(foreign));
	OK(gm_lib_destroy(other));
}

/* A device with room for one context: what is in the way is named rightly. */
CORE_TEST(api, attach_to_the_limit, .dev = { "mock:vram=64K,contexts=1" })
{
	struct gm_ctx *ctx;
	struct gm_as *as;

	REFUSED(gm_as_attach(w->as, w->dev[0], GM_ATTACH_IDENTITY, NULL, &ctx), GM_RET_EXIST, ctx);
	OK(gm_as_create(w->lib, 0, 0, NULL, &as));
	REFUSED(gm_as_attach(as, w->dev[0], GM_ATTACH_IDENTITY, NULL, &ctx), GM_RET_NOSPC, ctx);
	OK(gm_as_detach(w->ctx[0]));
	OK(gm_as_attach(as, w->dev[0], GM_ATTACH_IDENTITY, NULL, &ctx));
	OK(gm_as_destroy(as));
}

CORE_TEST(api, as_small_calls)
{
	struct gm_stats stats = { .cpu_faults = 99 };
	char text[8];

	cr_assert_eq(gm_as_fd(NULL), -1);
	cr_assert_eq(gm_as_fd(w->as), -1);
	IS(gm_as_serve(NULL, 0), GM_RET_INVAL);
	IS(gm_as_serve(w->as, 0), GM_RET_INVAL);
	IS(gm_as_stats(NULL, &stats), GM_RET_INVAL);
	cr_assert_eq(stats.cpu_faults, 99);
	IS(gm_as_stats(w->as, NULL), GM_RET_INVAL);
	IS(gm_as_check(NULL, text, sizeof(text)), GM_RET_INVAL);
	OK(gm_as_check(w->as, NULL, 0));
}

/* ---------------------------------------------------------------- memory */

CORE_TEST(api, memory)
{
	uint64_t va = app_adopted(w, 1, 1), moved = 7;
	struct gm_page_info info = { .mapped_read = 77 };
	void *p;

	REFUSED(gm_alloc(NULL, PAGE, 0, &p), GM_RET_INVAL, p);
	IS(gm_alloc(w->as, PAGE, 0, NULL), GM_RET_INVAL);
	REFUSED(gm_alloc(w->as, 0, 0, &p), GM_RET_INVAL, p);
	REFUSED(gm_alloc(w->as, UINT64_MAX, 0, &p), GM_RET_INVAL, p);
	REFUSED(gm_alloc(w->as, UINT64_MAX - PAGE, 0, &p), GM_RET_INVAL, p);
	REFUSED(gm_alloc(w->as, PAGE, GM_MEM_OUTWARD, &p), GM_RET_INVAL, p);
	REFUSED(gm_alloc(w->as, PAGE, 0x100, &p), GM_RET_INVAL, p);
	IS(gm_free(NULL, p), GM_RET_INVAL);
	IS(gm_adopt(NULL, ptr(va), PAGE, 0), GM_RET_INVAL);
	IS(gm_adopt(w->as, NULL, PAGE, 0), GM_RET_INVAL);
	IS(gm_adopt(w->as, ptr(va), 0, 0), GM_RET_INVAL);
	IS(gm_adopt(w->as, ptr(va), UINT64_MAX, 0), GM_RET_INVAL);
	IS(gm_adopt(w->as, ptr(va), PAGE, GM_MEM_NO_HUGE), GM_RET_INVAL);
	IS(gm_release(NULL, ptr(va), PAGE), GM_RET_INVAL);
	IS(gm_release(w->as, NULL, PAGE), GM_RET_INVAL);
	IS(gm_release(w->as, ptr(va), 0), GM_RET_INVAL);
	IS(gm_release(w->as, ptr(va), UINT64_MAX), GM_RET_INVAL);
	IS(gm_migrate(NULL, va, PAGE, NULL, &moved), GM_RET_INVAL);
	IS(gm_migrate(w->as, va, 0, NULL, &moved), GM_RET_INVAL);
	IS(gm_migrate(w->as, va, UINT64_MAX, NULL, &moved), GM_RET_INVAL);
	cr_assert_eq(moved, 7);
	IS(gm_discard(NULL, va, PAGE), GM_RET_INVAL);
	IS(gm_discard(w->as, va, 0), GM_RET_INVAL);
	IS(gm_discard(w->as, va, UINT64_MAX), GM_RET_INVAL);
	IS(gm_query(NULL, va, 1, &info), GM_RET_INVAL);
	IS(gm_query(w->as, va, 1, NULL), GM_RET_INVAL);
	IS(gm_query(w->as, va + 1, 1, &info), GM_RET_INVAL);
	IS(gm_query(w->as, va, 0, &info), GM_RET_INVAL);
	IS(gm_query(w->as, va, SIZE_MAX, &info), GM_RET_INVAL);
	IS(gm_query(w->as, UINT64_MAX - PAGE + 1, 2, &info), GM_RET_INVAL);
	cr_assert_eq(info.mapped_read, 77);
	IS(gm_dev_fault(NULL, va, GM_READ), GM_RET_INVAL);
	IS(gm_dev_fault(w->ctx[0], va, 0), GM_RET_INVAL);
	IS(gm_dev_fault(w->ctx[0], va, GM_READ | 8), GM_RET_INVAL);
	IS(gm_dev_fault(w->ctx[0], va, GM_WS_DISCARD), GM_RET_INVAL);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_HOST), GM_BLOCK_PAGES);
}

CORE_TEST(api, working_sets)
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws_range good = { .va = va, .bytes = PAGE, .access = GM_READ }, r = good;
	struct gm_ws_room room = { .need_bytes = 77 };
	struct gm_ws *ws;

	REFUSED(gm_ws_acquire(NULL, &r, 1, SECOND, &ws), GM_RET_INVAL, ws);
	REFUSED(gm_ws_acquire(w->ctx[0], NULL, 1, SECOND, &ws), GM_RET_INVAL, ws);
	REFUSED(gm_ws_acquire(w->ctx[0], &r, 0, SECOND, &ws), GM_RET_INVAL, ws);
	REFUSED(gm_ws_acquire(w->ctx[0], &r, GM_MAX_WS_RANGES + 1, SECOND, &ws), GM_RET_INVAL, ws);
	IS(gm_ws_acquire(w->ctx[0], &r, 1, SECOND, NULL), GM_RET_INVAL);
	IS(gm_ws_room(w->ctx[0], &r, 1, NULL), GM_RET_INVAL);
	IS(gm_ws_room(NULL, &r, 1, &room), GM_RET_INVAL);
	IS(gm_ws_room(w->ctx[0], NULL, 1, &room), GM_RET_INVAL);
	IS(gm_ws_room(w->ctx[0], &r, 0, &room), GM_RET_INVAL);
#define SPOILT_RANGE(change, want)                                                      \
	do {                                                                            \
		r = good;                                                               \
		change;                                                                 \
		REFUSED(gm_ws_acquire(w->ctx[0], &r, 1, SECOND, &ws), want, ws);        \
		IS(gm_ws_room(w->ctx[0], &r, 1, &room), want);                          \
		cr_assert_eq(room.need_bytes, 77);                                      \
	} while (0)
	SPOILT_RANGE(r.bytes = 0, GM_RET_INVAL);
	SPOILT_RANGE(r.bytes = UINT64_MAX, GM_RET_INVAL);
	SPOILT_RANGE(r.access = 0, GM_RET_INVAL);
	SPOILT_RANGE(r.access = GM_READ | 8, GM_RET_INVAL);
	SPOILT_RANGE(r.access = GM_WS_DISCARD, GM_RET_INVAL);
	SPOILT_RANGE(r.access = GM_READ | GM_WS_DISCARD, GM_RET_INVAL);
	SPOILT_RANGE(r.va = va + BLOCK, GM_RET_FAULT);
	SPOILT_RANGE(r.bytes = BLOCK + 1, GM_RET_FAULT);
	SPOILT_RANGE(r.va = 0, GM_RET_FAULT);
	OK(gm_ws_release(NULL, NULL));
}

CORE_TEST(api, fences)
{
	struct gm_fence *fence;

	REFUSED(gm_fence_create(NULL, &fence), GM_RET_INVAL, fence);
	IS(gm_fence_create(w->lib, NULL), GM_RET_INVAL);
	cr_assert_null(gm_fence_get(NULL));
	gm_fence_put(NULL);
	IS(gm_fence_signal(NULL, GM_RET_SUCCESS), GM_RET_INVAL);
	IS(gm_fence_wait(NULL, 0), GM_RET_INVAL);
	IS(gm_fence_cancel(NULL), GM_RET_INVAL);
	OK(gm_fence_create(w->lib, &fence));
	IS(gm_fence_wait(fence, 0), GM_RET_TIMEDOUT);
	OK(gm_fence_signal(fence, GM_RET_IO));
	IS(gm_fence_signal(fence, GM_RET_SUCCESS), GM_RET_EXIST);
	IS(gm_fence_cancel(fence), GM_RET_EXIST);
	IS(gm_fence_wait(fence, GM_FOREVER_NS), GM_RET_IO);
	gm_fence_put(fence);
}

/* -------------------------------------------------------------- the mock */

static gm_ret_t no_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	(void)thread, (void)index, (void)arg;
	return GM_RET_SUCCESS;
}

CORE_TEST(api, mock)
{
	struct gm_mock_stats stats = { .faults = 77 };
	struct gm_mock_config config;
	struct gm_mmu m = fake_mmu();
	struct gm_fence *fence = UNTOUCHED(struct gm_fence);
	struct gm_dev *fake_dev;
	struct gm_ctx *fake_ctx;

	OK(gm_dev_create(w->lib, &m, &fake, &fake_dev));
	OK(gm_as_attach(w->as, fake_dev, GM_ATTACH_IDENTITY, NULL, &fake_ctx));
	IS(gm_mock_parse(NULL, NULL), GM_RET_INVAL);
	IS(gm_mock_parse("what=ever", &config), GM_RET_INVAL);
	IS(gm_mock_launch(NULL, no_kernel, NULL, 1, &fence), GM_RET_INVAL);
	IS(gm_mock_launch(w->ctx[0], NULL, NULL, 1, &fence), GM_RET_INVAL);
	IS(gm_mock_launch(w->ctx[0], no_kernel, NULL, 0, &fence), GM_RET_INVAL);
	IS(gm_mock_launch(w->ctx[0], no_kernel, NULL, 65, &fence), GM_RET_INVAL);
	IS(gm_mock_launch(w->ctx[0], no_kernel, NULL, 1, NULL), GM_RET_INVAL);
	IS(gm_mock_launch(fake_ctx, no_kernel, NULL, 1, &fence), GM_RET_INVAL);
	cr_assert_eq(fence, UNTOUCHED(struct gm_fence));
	IS(gm_mock_fail(NULL, GM_MOCK_COPY, 1, 1), GM_RET_INVAL);
	IS(gm_mock_fail(w->dev[0], GM_MOCK_OPS, 1, 1), GM_RET_INVAL);
	IS(gm_mock_fail(fake_dev, GM_MOCK_COPY, 1, 1), GM_RET_INVAL);
	IS(gm_mock_plant(NULL, GM_MOCK_BUG_NONE), GM_RET_INVAL);
	IS(gm_mock_plant(w->dev[0], (enum gm_mock_bug)99), GM_RET_INVAL);
	IS(gm_mock_plant(fake_dev, GM_MOCK_BUG_NONE), GM_RET_INVAL);
	IS(gm_mock_stats(NULL, &stats), GM_RET_INVAL);
	IS(gm_mock_stats(w->dev[0], NULL), GM_RET_INVAL);
	IS(gm_mock_stats(fake_dev, &stats), GM_RET_INVAL);
	cr_assert_eq(stats.faults, 77);
	OK(gm_as_detach(fake_ctx));
	OK(gm_dev_destroy(fake_dev));
}
