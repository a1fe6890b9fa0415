/* SPDX-License-Identifier: MIT */
/*
 * Working sets: what acquire promises (all resident, mapped, held, or nothing
 * held), admission, what a held page means for everybody else, and how it ends.
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

static gm_ret_t try_acquire(struct world *w, uint64_t va, uint64_t bytes, uint32_t access)
{
	struct gm_ws_range range = { .va = va, .bytes = bytes, .access = access };
	struct gm_ws *ws = (struct gm_ws *)w;
	gm_ret_t ret = gm_ws_acquire(w->ctx[0], &range, 1, 20 * MS, &ws);

	if (!ret)
		OK(gm_ws_release(ws, NULL));
	else
		cr_assert_eq(ws, (struct gm_ws *)w, "out-parameter of a failure");
	return ret;
}

static uint64_t held_bytes(struct world *w)
{
	struct gm_ws_range range = { .va = app_map(w, PAGE), .bytes = PAGE, .access = GM_READ };
	struct gm_ws_room room;

	OK(gm_adopt(w->as, ptr(range.va), PAGE, 0));
	(void)gm_ws_room(w->ctx[0], &range, 1, &room);
	OK(gm_release(w->as, ptr(range.va), PAGE));
	return room.held_bytes;
}

CORE_TEST(ws, kernel_of_a_device_without_faults, .dev = { NO_FAULTS })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws *ws;

	IS(dev_touch(w->ctx[0], va, false), GM_RET_FAULT);
	ws = acquire(w, va + 100, 20 * PAGE, GM_READ);
	cr_assert_eq(page_info(w, va).flags & GM_PAGE_HELD, GM_PAGE_HELD);
	cr_assert_eq(page_info(w, va + 20 * PAGE).flags & GM_PAGE_HELD, GM_PAGE_HELD, "the last byte's page");
	cr_assert_eq(page_info(w, va + 21 * PAGE).flags & GM_PAGE_HELD, 0);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 21, 1), 0);
	IS(dev_touch(w->ctx[0], va, true), GM_RET_PERM);
	OK(gm_ws_release(ws, NULL));
	ws = acquire(w, va, 32 * PAGE, GM_WRITE);
	dev_fill(w->ctx[0], va, 32, 2);
	world_check(w);
	OK(gm_ws_release(ws, NULL));
	cr_assert_eq(page_info(w, va).flags & GM_PAGE_HELD, 0);
	cr_assert_eq(app_wrong(w, va, 32, 2), 0);
	cr_assert_eq(held_bytes(w), 0);
}

/* Overlapping, unsorted, touching ranges: the strongest right wins. */
CORE_TEST(ws, ranges_may_overlap, .dev = { NO_FAULTS })
{
	uint64_t va = app_adopted(w, 2, 1), at = va + BLOCK - 8 * PAGE;
	struct gm_ws_range range[] = {
		{ .va = at + 10 * PAGE, .bytes = 6 * PAGE, .access = GM_READ },
		{ .va = at, .bytes = 16 * PAGE, .access = GM_READ },
		{ .va = at + 4 * PAGE + 5, .bytes = 1, .access = GM_WRITE },
		{ .va = at + 6 * PAGE, .bytes = 4 * PAGE, .access = GM_ATOMIC },
	};
	struct gm_ws_room room;
	struct gm_ws *ws;

	OK(gm_ws_room(w->ctx[0], range, 4, &room));
	cr_assert_eq(room.need_bytes, 2 * UNIT);
	cr_assert_eq(room.total_bytes, 512 << 10);
	OK(gm_ws_acquire(w->ctx[0], range, 4, SECOND, &ws));
	OK(gm_ws_room(w->ctx[0], range, 4, &room));
	cr_assert_eq(room.held_bytes, 2 * UNIT);
	for (unsigned i = 0; i < 16; i++) {
		bool write = i == 4 || (i >= 6 && i < 10);

		cr_assert_eq(page_info(w, at + i * PAGE).mapped_read, 1, "page %u", i);
		cr_assert_eq(page_info(w, at + i * PAGE).mapped_write, write, "page %u", i);
	}
	OK(gm_ws_release(ws, NULL));
}

CORE_TEST(ws, many_small_ranges, .dev = { NO_FAULTS })
{
	static struct gm_ws_range range[128];
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws *ws;

	for (unsigned i = 0; i < 128; i++)
		range[i] = (struct gm_ws_range){ .va = va + (127 - i) * PAGE + i, .bytes = 8, .access = GM_WRITE };
	OK(gm_ws_acquire(w->ctx[0], range, 128, SECOND, &ws));
	cr_assert_eq(dev_wrong(w->ctx[0], va, 128, 1), 0);
	world_check(w);
	OK(gm_ws_release(ws, NULL));
}

/* ------------------------------------------------------------- admission */

CORE_TEST(ws, too_large_says_what_is_missing, .dev = { NO_FAULTS })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws_range range = { .va = va, .bytes = BLOCK, .access = GM_READ };
	struct gm_ws_room room;

	IS(try_acquire(w, va, BLOCK, GM_READ), GM_RET_NOSPC);
	cr_assert_not_null(strstr(gm_last_error(), "2048 KiB"), "%s", gm_last_error());
	cr_assert_not_null(strstr(gm_last_error(), "512 KiB"), "%s", gm_last_error());
	IS(gm_ws_room(w->ctx[0], &range, 1, &room), GM_RET_NOSPC);
	cr_assert_eq(room.need_bytes, BLOCK);
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_HOST), GM_BLOCK_PAGES, "nothing moved");
}

struct waiting {
	struct world *w;
	uint64_t va, bytes;
	uint64_t done_ns;
	gm_ret_t ret;
	uint64_t value;
};

static void acquire_later(void *arg)
{
	struct waiting *a = arg;
	struct gm_ws_range range = { .va = a->va, .bytes = a->bytes, .access = GM_WRITE };
	struct gm_ws *ws;

	a->ret = gm_ws_acquire(a->w->ctx[0], &range, 1, SECOND, &ws);
	a->done_ns = gm_now_ns(a->w->env);
	if (!a->ret)
		OK(gm_ws_release(ws, NULL));
}

CORE_TEST(ws, waits_for_room, .dev = { NO_FAULTS })
{
	uint64_t va = app_adopted(w, 1, 1), released_ns;
	struct gm_ws *ws = acquire(w, va, 6 * UNIT, GM_WRITE);
	struct gm_ws_range range = { .va = va + 8 * UNIT, .bytes = 4 * UNIT, .access = GM_READ };
	struct waiting a = { .w = w, .va = va + 8 * UNIT, .bytes = 4 * UNIT };
	struct gm_ws_room room;
	struct gm_thread *t;

	IS(gm_ws_room(w->ctx[0], &range, 1, &room), GM_RET_BUSY);
	cr_assert_eq(room.held_bytes, 6 * UNIT);
	IS(try_acquire(w, va + 8 * UNIT, 4 * UNIT, GM_READ), GM_RET_TIMEDOUT);
	cr_assert_not_null(strstr(gm_last_error(), "384 KiB"), "%s", gm_last_error());
	OK(try_acquire(w, va + 8 * UNIT, 2 * UNIT, GM_READ)); /* this much is free */
	t = spawn(w, acquire_later, &a);
	gm_sim_sleep_ns(w->sim, 100 * MS);
	cr_assert_eq(a.done_ns, 0, "admitted although it does not fit");
	released_ns = gm_now_ns(w->env);
	OK(gm_ws_release(ws, NULL));
	join(w, t);
	OK(a.ret);
	cr_assert_geq(a.done_ns, released_ns);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
}

static void acquire_often(void *arg)
{
	struct waiting *a = arg;

	for (unsigned i = 0; i < 10 && !a->ret; i++)
		acquire_later(a);
}

/* Two sets that do not fit together never wait for each other. */
CORE_TEST(ws, no_hold_and_wait, .dev = { NO_FAULTS })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct waiting a = { .w = w, .va = va, .bytes = 6 * UNIT },
		       b = { .w = w, .va = va + 4 * UNIT, .bytes = 6 * UNIT };
	struct gm_thread *t[2] = { spawn(w, acquire_often, &a), spawn(w, acquire_often, &b) };

	join(w, t[0]);
	join(w, t[1]);
	OK(a.ret);
	OK(b.ret);
	cr_assert_eq(held_bytes(w), 0);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
}

/* What others left in the device's memory makes room. */
CORE_TEST(ws, evicts_what_is_not_held, .dev = { "mock:vram=512K" })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws *ws = acquire(w, va, 2 * UNIT, GM_WRITE);

	dev_fill(w->ctx[0], va + 2 * UNIT, 6 * 16, 2);
	OK(try_acquire(w, va + 16 * UNIT, 6 * UNIT, GM_WRITE));
	cr_assert_eq(pages_in(w, va, 32, GM_PLACE_DEVICE), 32, "held pages are no victims");
	OK(gm_ws_release(ws, NULL));
	cr_assert_eq(app_wrong(w, va + 2 * UNIT, 6 * 16, 2), 0);
	cr_assert_eq(app_wrong(w, va, 32, 1), 0);
}

/* --------------------------------------------------------------- discard */

CORE_TEST(ws, discard_reads_as_zeros, .dev = { NO_FAULTS })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws_range range[] = {
		{ .va = va + 100, .bytes = 8 * PAGE, .access = GM_WRITE | GM_WS_DISCARD },
		{ .va = va + 4 * PAGE, .bytes = 1, .access = GM_READ }, /* wanted after all */
	};
	uint64_t bytes = stats_of(w).bytes_to_dev;
	struct gm_ws *ws;

	OK(gm_ws_acquire(w->ctx[0], range, 2, SECOND, &ws));
	cr_assert_eq(stats_of(w).bytes_to_dev - bytes, 3 * PAGE, "only what is wanted is copied");
	OK(gm_ws_release(ws, NULL));
	for (unsigned i = 0; i < 9; i++) {
		bool kept = i == 0 || i == 4 || i == 8; /* partial pages, and the one */

		cr_assert_eq(app_get(w, word_va(va, i)), kept ? word(i, 1) : 0, "page %u", i);
	}
}

/* ------------------------------------------------------- the CPU and others */

static void load_later(void *arg)
{
	struct waiting *a = arg;

	a->ret = gm_sim_load(a->w->sim, a->va, &a->value, sizeof(a->value));
	a->done_ns = gm_now_ns(a->w->env);
}

CORE_TEST(ws, cpu_access_waits_for_the_release, .dev = { NO_FAULTS })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws *ws = acquire(w, va, UNIT, GM_WRITE);
	struct waiting a = { .w = w, .va = word_va(va, 3), .ret = GM_RET_AGAIN };
	struct gm_thread *t = spawn(w, load_later, &a);

	gm_sim_sleep_ns(w->sim, 200 * MS);
	cr_assert_eq(a.done_ns, 0, "the access did not wait");
	cr_assert_eq(app_get(w, word_va(va, 20)), word(20, 1), "a page beside it is not held");
	dev_fill(w->ctx[0], va, 16, 5);
	OK(gm_ws_release(ws, NULL));
	join(w, t);
	OK(a.ret);
	cr_assert_eq(a.value, word(3, 5));
	cr_assert_lt(a.done_ns, gm_now_ns(w->env) + SECOND);
}

CORE_TEST(ws, the_fence_ends_the_hold, .dev = { NO_FAULTS })
{
	uint64_t va = app_adopted(w, 1, 1);
	gm_ret_t result[] = { GM_RET_SUCCESS, GM_RET_IO };

	for (unsigned i = 0; i < 2; i++) {
		struct gm_ws *ws = acquire(w, va, UNIT, GM_WRITE);
		struct waiting a = { .w = w, .va = word_va(va, 3) };
		struct gm_fence *fence;
		struct gm_thread *t;

		OK(gm_fence_create(w->lib, &fence));
		OK(gm_ws_release(ws, fence));
		cr_assert_eq(page_info(w, va).flags & GM_PAGE_HELD, GM_PAGE_HELD);
		t = spawn(w, load_later, &a);
		gm_sim_sleep_ns(w->sim, 100 * MS);
		cr_assert_eq(a.done_ns, 0);
		OK(gm_fence_signal(fence, result[i]));
		gm_fence_put(fence);
		join(w, t);
		OK(a.ret);
		cr_assert_eq(a.value, word(3, 1));
		cr_assert_eq(held_bytes(w), 0);
	}
}

CORE_TEST(ws, a_fence_that_is_done_already, .dev = { NO_FAULTS })
{
	struct gm_ws *ws = acquire(w, app_adopted(w, 1, 1), UNIT, GM_WRITE);
	struct gm_fence *fence;

	OK(gm_fence_create(w->lib, &fence));
	OK(gm_fence_signal(fence, GM_RET_SUCCESS));
	OK(gm_ws_release(ws, fence));
	gm_fence_put(fence);
	cr_assert_eq(held_bytes(w), 0);
	OK(gm_ws_release(NULL, NULL));
}

CORE_TEST(ws, what_is_refused_while_held, .dev = { NO_FAULTS }, .as = { .wait_ns = 50 * MS })
{
	uint64_t va = app_adopted(w, 1, 1), moved = 0;
	struct gm_ws *ws = acquire(w, va, UNIT, GM_WRITE), *own;
	void *p;

	OK(gm_alloc(w->as, UNIT, 0, &p));
	own = acquire(w, GM_VA(p), UNIT, GM_WRITE);
	IS(gm_free(w->as, p), GM_RET_BUSY);
	IS(gm_discard(w->as, va, 2 * UNIT), GM_RET_BUSY);
	IS(gm_release(w->as, ptr(va), BLOCK), GM_RET_BUSY);
	IS(gm_as_detach(w->ctx[0]), GM_RET_BUSY);
	IS(gm_as_destroy(w->as), GM_RET_BUSY);
	IS(gm_dev_destroy(w->dev[0]), GM_RET_BUSY);
	IS(gm_migrate(w->as, va, BLOCK, NULL, &moved), GM_RET_BUSY);
	cr_assert_eq(moved, BLOCK - UNIT);
	IS(gm_adopt(w->as, ptr(va), BLOCK, 0), GM_RET_EXIST);
	world_check(w);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 16, 1), 0, "all of it was still mapped");
	OK(gm_ws_release(ws, NULL));
	OK(gm_ws_release(own, NULL));
	OK(gm_free(w->as, p));
	OK(gm_release(w->as, ptr(va), BLOCK));
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
}

CORE_TEST(ws, a_page_in_two_sets, .dev = { NO_FAULTS })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws *a = acquire(w, va, 2 * UNIT, GM_READ), *b = acquire(w, va + UNIT, 2 * UNIT, GM_WRITE);

	world_check(w);
	OK(gm_ws_release(a, NULL));
	world_check(w);
	cr_assert_eq(page_info(w, va).flags & GM_PAGE_HELD, 0);
	cr_assert_eq(page_info(w, va + UNIT).flags & GM_PAGE_HELD, GM_PAGE_HELD);
	dev_fill(w->ctx[0], va + UNIT, 32, 2);
	OK(gm_ws_release(b, NULL));
	cr_assert_eq(page_info(w, va + UNIT).flags & GM_PAGE_HELD, 0);
	cr_assert_eq(app_wrong(w, va + UNIT, 32, 2), 0);
}

/* The application unmaps, or drops, what a set holds: its word wins, and nothing breaks. */
CORE_TEST(ws, the_application_unmaps_what_is_held, .dev = { "mock:vram=4M,faults=no" })
{
	uint64_t va = app_adopted(w, 2, 1);
	struct gm_ws *ws = acquire(w, va, BLOCK + UNIT, GM_WRITE);

	OK(gm_sim_dontneed(w->sim, va + PAGE, UNIT));
	OK(gm_sim_munmap(w->sim, va + 4 * UNIT, BLOCK - 3 * UNIT));
	gm_sim_sleep_ns(w->sim, SECOND);
	world_check(w);
	cr_assert_eq(page_info(w, va + 5 * UNIT).place, GM_PLACE_OUTSIDE);
	OK(gm_ws_release(ws, NULL));
	world_check(w);
	cr_assert_eq(app_get(w, word_va(va, 0)), word(0, 1));
	cr_assert_eq(app_get(w, word_va(va, 5)), 0);
	cr_assert_eq(app_get(w, word_va(va, 20)), word(20, 1));
	OK(gm_migrate(w->as, va, 4 * UNIT, NULL, NULL));
	gm_sim_sleep_ns(w->sim, SECOND);
	cr_assert(dev_all_free(w->dev[0]));
}

/* --------------------------------------------------- what cannot be brought */

CORE_TEST(ws, rights_and_ranges, .dev = { NO_FAULTS })
{
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_sim_munmap(w->sim, va + 64 * PAGE, PAGE));
	IS(try_acquire(w, va + 64 * PAGE, PAGE, GM_READ), GM_RET_FAULT);
	IS(try_acquire(w, va + BLOCK, PAGE, GM_READ), GM_RET_FAULT);
	IS(try_acquire(w, va + BLOCK - PAGE, 2 * PAGE, GM_READ), GM_RET_FAULT);
	OK(gm_sim_mprotect(w->sim, va, PAGE, GM_READ));
	IS(try_acquire(w, va, 2 * PAGE, GM_WRITE), GM_RET_PERM);
	OK(gm_sim_mprotect(w->sim, va, PAGE, 0));
	IS(try_acquire(w, va, PAGE, GM_READ), GM_RET_FAULT);
	OK(gm_sim_mprotect(w->sim, va, PAGE, RW));
	OK(try_acquire(w, va, 2 * PAGE, GM_WRITE));
	cr_assert_eq(held_bytes(w), 0);
}

CORE_TEST(ws, pinned_pages_in_place, .dev = { NO_FAULTS })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws *ws;

	OK(gm_sim_pin(w->sim, va + 3 * PAGE));
	ws = acquire(w, va, UNIT, GM_WRITE);
	cr_assert_eq(page_info(w, va + 3 * PAGE).place, GM_PLACE_HOST);
	cr_assert_eq(page_info(w, va + 3 * PAGE).mapped_write, 1);
	cr_assert_eq(page_info(w, va + 3 * PAGE).flags & GM_PAGE_HELD, GM_PAGE_HELD);
	dev_fill(w->ctx[0], va, 16, 2);
	cr_assert_eq(app_get(w, word_va(va, 3)), word(3, 2), "no need to wait for it");
	OK(gm_ws_release(ws, NULL));
	cr_assert_eq(app_wrong(w, va, 16, 2), 0);
	gm_sim_unpin(w->sim, va + 3 * PAGE);
	ws = acquire(w, va, UNIT, GM_WRITE);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 16, 2), 0);
	OK(gm_ws_release(ws, NULL));
}

CORE_TEST(ws, pinned_pages_and_no_host_map, .dev = { "mock:vram=512K,faults=no,hostmap=no" })
{
	uint64_t va = app_adopted(w, 1, 1);
	char name[32];

	OK(gm_sim_pin(w->sim, va + 3 * PAGE));
	IS(try_acquire(w, va, UNIT, GM_WRITE), GM_RET_BUSY);
	(void)snprintf(name, sizeof(name), "0x%llx", (unsigned long long)(va + 3 * PAGE));
	cr_assert_not_null(strstr(gm_last_error(), name), "%s", gm_last_error());
	cr_assert_eq(held_bytes(w), 0);
	world_check(w);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
	gm_sim_unpin(w->sim, va + 3 * PAGE);
	OK(try_acquire(w, va, UNIT, GM_WRITE));
}

CORE_TEST(ws, from_the_memory_of_another_device, .dev = { NO_FAULTS, "mock:vram=4M" })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws *ws;

	dev_fill(w->ctx[1], va, 32, 2);
	ws = acquire(w, va, 3 * UNIT, GM_WRITE);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 32, 2), 0);
	OK(gm_ws_release(ws, NULL));
	cr_assert_eq(dev_wrong(w->ctx[1], va, 32, 2), 0);
}

/* A set over part of a 2 MiB piece holds that part; the rest can be evicted. */
CORE_TEST(ws, part_of_a_large_piece, .dev = { "mock:vram=2M" })
{
	uint64_t va = app_adopted(w, 2, 1);
	struct gm_ws *ws;

	OK(gm_migrate(w->as, va, BLOCK, w->dev[0], NULL));
	ws = acquire(w, va + 3 * UNIT, UNIT, GM_WRITE);
	dev_fill(w->ctx[0], va + BLOCK, 31 * 16, 4);
	cr_assert_eq(pages_in(w, va + 3 * UNIT, 16, GM_PLACE_DEVICE), 16);
	world_check(w);
	OK(gm_ws_release(ws, NULL));
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
	cr_assert_eq(app_wrong(w, va + BLOCK, 31 * 16, 4), 0);
}

/* As above, after somebody held all of it. */
CORE_TEST(ws, part_of_a_large_piece_that_is_held, .dev = { "mock:vram=2M" })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws *all = acquire(w, va, BLOCK, GM_WRITE);

	IS(try_acquire(w, va + 3 * UNIT, UNIT, GM_WRITE), GM_RET_TIMEDOUT); /* admission counts each set */
	OK(gm_ws_release(all, NULL));
	OK(try_acquire(w, va + 3 * UNIT, UNIT, GM_WRITE));
	world_check(w);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
}
