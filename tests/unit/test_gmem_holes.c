/* SPDX-License-Identifier: MIT */
/*
 * The known errors of the GMEM kernel patches, one test each, numbered as in
 * the list they were collected in. Each test fails on a library that behaves
 * as the patches did. Where the error is one of kernel code, the behaviour of
 * ours that corresponds to it is tested. (10 is many tests of their own, see
 * test_events.c; 12 is a report without a cause.)
 */
#include "config.h"

#include "core_fixture.h"

#include "core/gm_plan.h"

/*
 * Hole 1: a fault on a page that is in the memory of another device was
 * answered with success although nothing had been mapped; the faulting device
 * faulted again for ever.
 */
CORE_TEST(gmem_holes, hole_01_page_on_another_device, .dev = { "mock:vram=1M,faults=no", "mock:vram=1M,faults=no" })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_page_info info;

	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	dev_fill(w->ctx[0], va, 1, 7);
	OK(gm_dev_fault(w->ctx[1], va, GM_READ));
	info = page_info(w, va);
	cr_assert_eq(info.place, GM_PLACE_DEVICE);
	cr_assert_eq(info.dev, w->dev[1]);
	cr_assert_eq(info.mapped_read, 2);
	world_check(w);
	cr_assert_eq(dev_wrong(w->ctx[1], va, 1, 7), 0, "what the other device had written");
	/* And back, for writing. */
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	cr_assert_eq(page_info(w, va).dev, w->dev[0]);
	dev_fill(w->ctx[0], va, 1, 8);
	cr_assert_eq(app_wrong(w, va, 1, 8), 0);
	cr_assert_eq(app_wrong(w, va + PAGE, 0, 1), 0);
}

/* The same with a device whose accesses wait until their fault is served: it must end. */
CORE_TEST(gmem_holes, hole_01_devices_that_fault, .dev = { "mock:vram=1M", "mock:vram=1M" })
{
	uint64_t va = app_adopted(w, 1, 1);

	for (uint64_t round = 0; round < 6; round++) {
		dev_fill(w->ctx[round % 2], va, 20, round);
		cr_assert_eq(dev_wrong(w->ctx[(round + 1) % 2], va, 20, round), 0);
	}
	cr_assert_eq(app_wrong(w, va, 20, 5), 0);
}

static void fail_once(struct world *w, enum gm_mock_op op, uint64_t va, gm_ret_t want)
{
	OK(gm_mock_fail(w->dev[0], op, 1, 1));
	IS(gm_dev_fault(w->ctx[0], va, GM_WRITE), want);
	cr_assert_eq(page_info(w, va).mapped_read, 0);
	world_check(w);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0, "operation %d failed, and bytes are lost", (int)op);
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	cr_assert_eq(page_info(w, va).mapped_write, 1);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 16, 1), 0);
	OK(gm_migrate(w->as, va, BLOCK, NULL, NULL));
}

/* Hole 2: when mapping a page of the CPU on a device failed, the page was marked as mapped nowhere: its bytes were
 * lost. */
CORE_TEST(gmem_holes, hole_02_failed_map_keeps_bytes, .dev = { "mock:vram=4M,submit=no" })
{
	uint64_t va = app_adopted(w, 1, 1);

	fail_once(w, GM_MOCK_PMAP_ENTER, va, GM_RET_NOMEM);
	fail_once(w, GM_MOCK_COPY, va, GM_RET_IO);
	fail_once(w, GM_MOCK_COPY_LATE, va, GM_RET_IO);
}

/*
 * The same for a revocation that fails half way: what it removed, and did not come to invalidate, is mapped anew
 * only when no TLB has it any more. The shim aborts where it is not so.
 */
CORE_TEST(gmem_holes, hole_02_revoked_half_way, .dev = { "mock:vram=4M,submit=no" }, .validate = GM_VALIDATE_ABORT)
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_mask pages = gm_mask_or(gm_mask_span(0, 8), gm_mask_span(9, 16));
	struct gm_block *b;

	dev_fill(w->ctx[0], va, 16, 7);
	b = gm_block_find(w->as, va);
	OK(gm_mock_fail(w->dev[0], GM_MOCK_PMAP_REMOVE, 2, 1));
	IS(gm_plan_revoke_in(b, w->ctx[0], &pages, gm_now_ns(w->env) + SECOND, false), GM_RET_NOMEM);
	gm_block_put(b);
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	dev_fill(w->ctx[0], va, 8, 8);
	world_check(w);
	cr_assert_eq(app_wrong(w, va, 8, 8), 0);
}

struct homing {
	struct world *w;
	uint64_t va;
};

static void home_again_and_again(void *arg)
{
	struct homing *h = arg;

	for (unsigned i = 0; i < 20; i++) {
		gm_ret_t ret = gm_migrate(h->w->as, h->va, 4 * UNIT, NULL, NULL);

		cr_assert(ret == GM_RET_SUCCESS || ret == GM_RET_BUSY, "%s", gm_last_error()); /* some left again */
	}
}

/*
 * Hole 3: a fault that met a page on its way home returned early and kept a
 * reference and a mapping for DMA for ever.
 */
CORE_TEST(gmem_holes, hole_03_meeting_a_migration_leaks_nothing,
	  .dev = { "mock:vram=1M,copy=async,copyns=20000" }, .as = { .slice_ns = 1000 })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct homing h = { .w = w, .va = va };
	struct gm_sim_stats sim;
	struct gm_thread *t;
	size_t live;

	/* The validation shim makes books of frames when they are first used. */
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	OK(gm_migrate(w->as, va, BLOCK, NULL, NULL));
	gm_sim_sleep_ns(w->sim, SECOND);
	live = atomic_load(&w->fa.live);
	t = spawn(w, home_again_and_again, &h);
	for (unsigned i = 0; i < 60; i++)
		OK(gm_dev_fault(w->ctx[0], va + (i % 4) * UNIT, GM_WRITE));
	join(w, t);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
	OK(gm_migrate(w->as, va, BLOCK, NULL, NULL));
	gm_sim_sleep_ns(w->sim, SECOND); /* what is idle is forgotten */
	cr_assert(dev_all_free(w->dev[0]), "device memory leaked");
	cr_assert_eq(atomic_load(&w->fa.live), live, "%zu allocations more than before",
		     atomic_load(&w->fa.live) - live);
	gm_sim_stats(w->sim, &sim);
	cr_assert_eq(sim.watched_pages, 0, "a page stayed registered");
}

/* Hole 4: when a host page could not be prepared for the device, that was only logged and the fault went on. */
CORE_TEST(gmem_holes, hole_04_failed_preparation_is_returned)
{
	const char *op[] = { "watch", "slot_alloc" };
	uint64_t va[2] = { app_adopted(w, 1, 1), app_adopted(w, 1, 1) };

	for (unsigned i = 0; i < 2; i++) {
		OK(gm_sim_fail(w->sim, op[i], 1, 1));
		IS(gm_dev_fault(w->ctx[0], va[i], GM_WRITE), GM_RET_NOMEM);
		cr_assert_eq(page_info(w, va[i]).place, GM_PLACE_HOST, "after %s failed", op[i]);
		cr_assert_eq(page_info(w, va[i]).mapped_read, 0);
		world_check(w);
		cr_assert_eq(app_wrong(w, va[i], GM_BLOCK_PAGES, 1), 0);
		OK(gm_dev_fault(w->ctx[0], va[i], GM_WRITE));
		cr_assert_eq(dev_wrong(w->ctx[0], va[i], 16, 1), 0);
	}
}

/*
 * Hole 5: the address of a fault was rounded with the mask that keeps the low
 * bits instead of the one that drops them: the wrong page was served.
 */
CORE_TEST(gmem_holes, hole_05_addresses_inside_a_block,
	  .as = { .dev_unit_bytes = 4096, .dev_around_bytes = 4096, .cpu_unit_bytes = 4096, .cpu_around_bytes = 4096,
		  .slice_ns = 1 })
{
	static const unsigned page[] = { 0, 1, 15, 16, 255, 510, 511 };
	uint64_t va = app_adopted(w, 2, 1);

	for (unsigned b = 0; b < 2; b++)
		for (unsigned i = 0; i < sizeof(page) / sizeof(page[0]); i++) {
			uint64_t at = va + b * BLOCK + page[i] * PAGE;
			uint64_t before = pages_in(w, va, 2 * GM_BLOCK_PAGES, GM_PLACE_DEVICE);

			OK(gm_dev_fault(w->ctx[0], at + (i % 2 ? PAGE - 1 : 3), GM_WRITE));
			cr_assert_eq(page_info(w, at).place, GM_PLACE_DEVICE, "page %u", page[i]);
			cr_assert_eq(pages_in(w, va, 2 * GM_BLOCK_PAGES, GM_PLACE_DEVICE), before + 1);
		}
	/* The other way: one byte touched by the CPU brings that page home and no other. */
	for (unsigned i = 0; i < sizeof(page) / sizeof(page[0]); i++) {
		uint64_t at = va + BLOCK + page[i] * PAGE,
			 before = pages_in(w, va, 2 * GM_BLOCK_PAGES, GM_PLACE_DEVICE);
		char byte;

		gm_sim_sleep_ns(w->sim, MS);
		OK(gm_sim_load(w->sim, at + PAGE - 1, &byte, 1));
		gm_sim_sleep_ns(w->sim, MS); /* the access may go on before the books are closed */
		cr_assert_eq(page_info(w, at).place, GM_PLACE_HOST, "page %u", page[i]);
		cr_assert_eq(pages_in(w, va, 2 * GM_BLOCK_PAGES, GM_PLACE_DEVICE), before - 1);
	}
	cr_assert_eq(app_wrong(w, va, 2 * GM_BLOCK_PAGES, 1), 0);
}

/* Hole 6: after an eviction had saved a page, the fault handler put a fresh one in its place: the bytes were lost. */
CORE_TEST(gmem_holes, hole_06_eviction_keeps_bytes, .dev = { "mock:vram=256K" })
{
	uint64_t va = app_adopted(w, 1, 1);

	cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, 1), 0);
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 2);
	cr_assert_gt(stats_of(w).pages_evicted, GM_BLOCK_PAGES, "the device's memory is too large for this test");
	for (uint64_t i = 0; i < GM_BLOCK_PAGES; i += 3) /* among what was evicted and what was not */
		app_put(w, word_va(va, i), word(i, 2) ^ 1);
	for (uint64_t i = 0; i < GM_BLOCK_PAGES; i += 3)
		app_put(w, word_va(va, i), word(i, 2));
	cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, 2), 0);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 2), 0);
}

/* Hole 7: the loop over the range of a munmap() never advanced, and took a lock it had already. */
CORE_TEST(gmem_holes, hole_07_munmap_of_many_blocks, .dev = { "mock:vram=16M" })
{
	uint64_t va = app_adopted(w, 4, 1);

	OK(gm_migrate(w->as, va, 4 * BLOCK, w->dev[0], NULL));
	OK(gm_sim_munmap(w->sim, va + PAGE, 4 * BLOCK - 2 * PAGE));
	gm_sim_sleep_ns(w->sim, SECOND);
	world_check(w);
	cr_assert_eq(pages_in(w, va + PAGE, 4 * GM_BLOCK_PAGES - 2, GM_PLACE_OUTSIDE), 4 * GM_BLOCK_PAGES - 2);
	cr_assert_eq(app_wrong(w, va, 1, 1), 0);
	cr_assert_eq(app_get(w, word_va(va, 4 * GM_BLOCK_PAGES - 1)), word(4 * GM_BLOCK_PAGES - 1, 1));
	gm_sim_sleep_ns(w->sim, SECOND);
	cr_assert(dev_all_free(w->dev[0]), "device memory of a range that is gone");
	for (uint64_t i = 1; i < 4 * GM_BLOCK_PAGES - 1; i += 100)
		IS(gm_dev_fault(w->ctx[0], va + i * PAGE, GM_READ), GM_RET_FAULT);
}

/* Hole 8: freeing returned early for exactly the memory that was shared with devices: nothing of it was ever freed. */
CORE_TEST(gmem_holes, hole_08_freeing_shared_memory, .dev = { "mock:vram=4M" })
{
	size_t live = 0;

	for (unsigned i = 0; i < 20; i++) {
		void *p;

		OK(gm_alloc(w->as, 3 * UNIT, 0, &p));
		dev_fill(w->ctx[0], GM_VA(p), 48, i);
		cr_assert_eq(app_wrong(w, GM_VA(p), 24, i), 0);
		cr_assert_eq(page_info(w, GM_VA(p) + 40 * PAGE).place, GM_PLACE_DEVICE);
		OK(gm_free(w->as, p));
		gm_sim_sleep_ns(w->sim, SECOND);
		cr_assert(dev_all_free(w->dev[0]));
		if (i == 1)
			live = atomic_load(&w->fa.live);
		if (i > 1)
			cr_assert_eq(atomic_load(&w->fa.live), live, "round %u leaked", i);
	}
}

/*
 * Hole 9: attaching a second device swapped the arguments of the list
 * insertion: the list lost what was in it. Every context must stay reachable,
 * whatever the order in which they come and go.
 */
CORE_TEST(gmem_holes, hole_09_many_contexts, .dev = { "mock:vram=4M", "mock:vram=4M" })
{
	struct gm_as *as[3];
	struct gm_ctx *ctx[3][2];
	uint64_t va[3];

	for (unsigned i = 0; i < 3; i++) {
		OK(gm_as_create(w->lib, 0, 0, NULL, &as[i]));
		for (unsigned d = 0; d < 2; d++)
			OK(gm_as_attach(as[i], w->dev[(d + i) % 2], GM_ATTACH_IDENTITY, NULL, &ctx[i][(d + i) % 2]));
		va[i] = app_map_blocks(w, 1);
		OK(gm_adopt(as[i], ptr(va[i]), BLOCK, 0));
	}
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 3; i++) /* faults find their way to every context that is left */
			for (unsigned d = 0; d < 2; d++)
				if (ctx[i][d])
					dev_fill(ctx[i][d], va[i], 4, 10 * i + d);
		OK(gm_as_detach(ctx[(round + 1) % 3][round % 2])); /* the middle, the last, the first */
		ctx[(round + 1) % 3][round % 2] = NULL;
	}
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(app_wrong(w, va[i], 4, 10 * i) && app_wrong(w, va[i], 4, 10 * i + 1), 0);
		OK(gm_as_destroy(as[i]));
	}
	dev_fill(w->ctx[0], app_adopted(w, 1, 1), 4, 1);
}

/* Hole 11: freeing at address -1 with length -1 stopped the kernel; arguments were not checked at all. */
CORE_TEST(gmem_holes, hole_11_absurd_arguments)
{
	static const uint64_t odd[] = { UINT64_MAX, UINT64_MAX - 1, UINT64_MAX - GM_PAGE_BYTES + 1,
					UINT64_MAX - GM_BLOCK_BYTES, UINT64_C(1) << 63 };
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_page_info info;

	for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		uint64_t bytes = UINT64_MAX;

		cr_assert_neq(gm_discard(w->as, odd[i], bytes), GM_RET_SUCCESS);
		cr_assert_neq(gm_migrate(w->as, odd[i], bytes, w->dev[0], NULL), GM_RET_SUCCESS);
		cr_assert_neq(gm_adopt(w->as, ptr(odd[i]), bytes, 0), GM_RET_SUCCESS);
		cr_assert_neq(gm_release(w->as, ptr(odd[i]), bytes), GM_RET_SUCCESS);
		IS(gm_free(w->as, ptr(odd[i])), GM_RET_NOENT);
		IS(gm_query(w->as, odd[i], SIZE_MAX, &info), GM_RET_INVAL);
		IS(gm_dev_fault(w->ctx[0], odd[i], GM_READ), GM_RET_FAULT);
		bytes = 2 * PAGE;
		cr_assert_neq(gm_discard(w->as, odd[i], bytes), GM_RET_SUCCESS);
		cr_assert_neq(gm_migrate(w->as, odd[i], bytes, w->dev[0], NULL), GM_RET_SUCCESS);
		cr_assert_neq(gm_adopt(w->as, ptr(odd[i]), bytes, 0), GM_RET_SUCCESS);
		cr_assert_neq(gm_release(w->as, ptr(odd[i]), bytes), GM_RET_SUCCESS);
	}
	world_check(w);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
	cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, 1), 0);
}

/* Hole 13: a failed transfer in the middle of a copy was logged, and the call returned success. */
CORE_TEST(gmem_holes, hole_13_errors_are_returned, .dev = { "mock:vram=4M,visible=no" })
{
	uint64_t va = app_adopted(w, 2, 1), moved = 1;
	struct gm_ws_range range = { .va = va, .bytes = 2 * BLOCK, .access = GM_WRITE };
	struct gm_ws *ws = NULL;

	OK(gm_mock_fail(w->dev[0], GM_MOCK_COPY_LATE, 2, 1)); /* the second block */
	IS(gm_migrate(w->as, va, 2 * BLOCK, w->dev[0], &moved), GM_RET_IO);
	cr_assert_eq(moved, BLOCK, "how far it came");
	OK(gm_mock_fail(w->dev[0], GM_MOCK_COPY, 1, 1));
	IS(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws), GM_RET_IO);
	cr_assert_null(ws);
	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
	OK(gm_ws_release(ws, NULL));
	dev_fill(w->ctx[0], va, 2 * GM_BLOCK_PAGES, 2);
	/* Home, a block that fails is tried again page by page: each of them fails too. */
	OK(gm_mock_fail(w->dev[0], GM_MOCK_COPY_LATE, 2, 1 + GM_BLOCK_PAGES));
	IS(gm_migrate(w->as, va, 2 * BLOCK, NULL, &moved), GM_RET_IO);
	cr_assert_eq(moved, BLOCK);
	/* One failure heals so. */
	OK(gm_mock_fail(w->dev[0], GM_MOCK_COPY_LATE, 1, 1));
	OK(gm_migrate(w->as, va + BLOCK, BLOCK - PAGE, NULL, &moved));
	cr_assert_eq(moved, BLOCK - PAGE);
	/* The last page alone: it stays, and the result says so. */
	OK(gm_mock_fail(w->dev[0], GM_MOCK_COPY_LATE, 1, 2));
	IS(gm_migrate(w->as, va, 2 * BLOCK, NULL, &moved), GM_RET_IO);
	cr_assert_eq(moved, 2 * BLOCK - PAGE);
	OK(gm_migrate(w->as, va, 2 * BLOCK, NULL, &moved));
	cr_assert_eq(moved, 2 * BLOCK);
	cr_assert_eq(app_wrong(w, va, 2 * GM_BLOCK_PAGES, 2), 0);
}

/*
 * Hole 14: the lookup of an address found the next mapping above it, and
 * nobody looked whether the address was inside: addresses below were served.
 */
CORE_TEST(gmem_holes, hole_14_addresses_beside_a_region)
{
	uint64_t va = app_map_blocks(w, 3), low = va + 10 * PAGE, high = va + BLOCK + 20 * PAGE;

	OK(gm_adopt(w->as, ptr(low), 10 * PAGE, 0));
	OK(gm_adopt(w->as, ptr(high), BLOCK, 0));
	for (unsigned tracked = 0; tracked < 2; tracked++) { /* before and after the blocks are known */
		IS(gm_dev_fault(w->ctx[0], low - 1, GM_READ), GM_RET_FAULT);
		IS(gm_dev_fault(w->ctx[0], va, GM_READ), GM_RET_FAULT);
		IS(gm_dev_fault(w->ctx[0], low + 10 * PAGE, GM_READ), GM_RET_FAULT);
		IS(gm_dev_fault(w->ctx[0], va + BLOCK, GM_READ), GM_RET_FAULT);
		IS(gm_dev_fault(w->ctx[0], high - PAGE, GM_READ), GM_RET_FAULT);
		IS(gm_dev_fault(w->ctx[0], high + BLOCK, GM_READ), GM_RET_FAULT);
		cr_assert_eq(page_info(w, low - PAGE).place, GM_PLACE_OUTSIDE);
		cr_assert_eq(page_info(w, high + BLOCK).place, GM_PLACE_OUTSIDE);
		OK(gm_dev_fault(w->ctx[0], low, GM_WRITE));
		OK(gm_dev_fault(w->ctx[0], high, GM_WRITE));
		OK(gm_dev_fault(w->ctx[0], high + BLOCK - 1, GM_WRITE));
	}
}
