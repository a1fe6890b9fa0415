/* SPDX-License-Identifier: MIT */
/*
 * Owned and adopted memory: allocate, free, adopt, release, edges of buffers
 * that share their pages with others, and what a new mapping finds where an
 * old one was.
 */
#include "config.h"

#include "core_fixture.h"

/* ---------------------------------------------------------------- owned */

CORE_TEST(mem, alloc_is_zero_aligned_and_usable, .dev = { "mock:vram=8M" })
{
	static const uint64_t bytes[] = { 1, PAGE - 1, PAGE, UNIT, UNIT + 1, BLOCK - 1, BLOCK, 2 * BLOCK + 1 };

	for (unsigned i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++) {
		uint64_t pages = (bytes[i] + PAGE - 1) / PAGE, va;
		void *p = NULL;

		OK(gm_alloc(w->as, bytes[i], i % 2 ? GM_MEM_NO_HUGE : 0, &p));
		va = GM_VA(p);
		cr_assert_eq(va % (bytes[i] >= BLOCK ? BLOCK : PAGE), 0);
		for (uint64_t k = 0; k < pages; k += 7)
			cr_assert_eq(app_get(w, word_va(va, k)), 0);
		cr_assert_eq(pages_in(w, va, pages, GM_PLACE_HOST), pages);
		app_fill(w, va, pages, i);
		cr_assert_eq(dev_wrong(w->ctx[0], va, pages, i), 0);
		OK(gm_free(w->as, p));
		cr_assert_eq(pages_in(w, va, pages, GM_PLACE_OUTSIDE), pages);
		cr_assert(dev_all_free(w->dev[0]));
		IS(gm_sim_load(w->sim, va, &va, 1), GM_RET_FAULT);
	}
}

CORE_TEST(mem, device_touches_fresh_memory_first)
{
	struct dev_job job = { .pages = 1 };
	void *p;

	/* Frames that held other bytes before. */
	OK(gm_alloc(w->as, BLOCK, 0, &p));
	dev_fill(w->ctx[0], GM_VA(p), GM_BLOCK_PAGES, 1);
	OK(gm_free(w->as, p));
	OK(gm_alloc(w->as, BLOCK, 0, &p));
	for (uint64_t i = 0; i < GM_BLOCK_PAGES; i += 9) {
		job.va = GM_VA(p) + i * PAGE;
		job.salt = 0;
		job.wrong = 0;
		OK(dev_run(w->ctx[0], &job));
		cr_assert_eq(job.wrong, 1, "word() is never zero");
	}
	for (uint64_t i = 0; i < GM_BLOCK_PAGES; i++)
		cr_assert_eq(app_get(w, word_va(GM_VA(p), i)), 0, "page %u shows bytes of before", (unsigned)i);
	OK(gm_free(w->as, p));
}

CORE_TEST(mem, free_takes_only_what_alloc_gave)
{
	uint64_t va = app_adopted(w, 1, 1);
	void *p;

	OK(gm_alloc(w->as, BLOCK, 0, &p));
	IS(gm_free(w->as, (char *)p + PAGE), GM_RET_NOENT);
	IS(gm_free(w->as, (char *)p + 1), GM_RET_NOENT);
	IS(gm_free(w->as, ptr(va)), GM_RET_NOENT);
	OK(gm_free(w->as, NULL));
	app_put(w, GM_VA(p), 5);
	OK(gm_free(w->as, p));
	IS(gm_free(w->as, p), GM_RET_NOENT);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
}

CORE_TEST(mem, alloc_fails_cleanly)
{
	void *p = w;

	OK(gm_sim_fail(w->sim, "mem_map", 1, 1));
	IS(gm_alloc(w->as, BLOCK, 0, &p), GM_RET_NOMEM);
	cr_assert_eq(p, w);
	IS(gm_alloc(w->as, UINT64_MAX / 8, 0, &p), GM_RET_NOMEM);
	cr_assert_eq(p, w);
	OK(gm_alloc(w->as, BLOCK, 0, &p));
	OK(gm_free(w->as, p));
}

CORE_TEST(mem, alloc_respects_the_bounds_of_the_space, .bare = true)
{
	struct gm_as *as;
	void *p = w;

	OK(gm_as_create(w->lib, PAGE, 16 * PAGE, NULL, &as));
	IS(gm_alloc(as, PAGE, 0, &p), GM_RET_NOMEM);
	cr_assert_eq(p, w);
	IS(gm_adopt(as, ptr(app_map(w, PAGE)), PAGE, 0), GM_RET_INVAL);
	OK(gm_as_destroy(as));
}

/* A device that does not let go: nothing is freed, and later it is. */
CORE_TEST(mem, free_waits_for_the_device, .as = { .wait_ns = 50 * MS })
{
	void *p;

	OK(gm_alloc(w->as, BLOCK, 0, &p));
	dev_fill(w->ctx[0], GM_VA(p), 10, 1);
	OK(gm_mock_fail(w->dev[0], GM_MOCK_PMAP_REMOVE, 1, UINT64_MAX));
	OK(gm_mock_fail(w->dev[0], GM_MOCK_SUBMIT, 1, UINT64_MAX));
	IS(gm_free(w->as, p), GM_RET_TIMEDOUT);
	cr_assert_neq(page_info(w, GM_VA(p)).place, GM_PLACE_OUTSIDE, "still allocated");
	OK(gm_mock_fail(w->dev[0], GM_MOCK_PMAP_REMOVE, 0, 0));
	OK(gm_mock_fail(w->dev[0], GM_MOCK_SUBMIT, 0, 0));
	OK(gm_free(w->as, p));
	cr_assert(dev_all_free(w->dev[0]));
}

/* -------------------------------------------------------------- adopted */

CORE_TEST(mem, release_brings_the_bytes_home)
{
	uint64_t va = app_adopted(w, 2, 1);

	dev_fill(w->ctx[0], va + BLOCK, GM_BLOCK_PAGES, 2);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 100, 1), 0);
	OK(gm_release(w->as, ptr(va), 2 * BLOCK));
	cr_assert_eq(pages_in(w, va, 2 * GM_BLOCK_PAGES, GM_PLACE_OUTSIDE), 2 * GM_BLOCK_PAGES);
	cr_assert(dev_all_free(w->dev[0]));
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
	cr_assert_eq(app_wrong(w, va + BLOCK, GM_BLOCK_PAGES, 2), 0);
	IS(gm_dev_fault(w->ctx[0], va, GM_READ), GM_RET_FAULT);
	IS(gm_release(w->as, ptr(va), 2 * BLOCK), GM_RET_NOENT);
	OK(gm_adopt(w->as, ptr(va), 2 * BLOCK, 0));
	cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, 1), 0);
}

CORE_TEST(mem, release_of_a_part)
{
	uint64_t va = app_adopted(w, 2, 1), mid = va + BLOCK - 8 * PAGE;

	cr_assert_eq(dev_wrong(w->ctx[0], va, 2 * GM_BLOCK_PAGES, 1), 0);
	OK(gm_release(w->as, ptr(mid), 16 * PAGE));
	cr_assert_eq(pages_in(w, mid, 16, GM_PLACE_OUTSIDE), 16);
	cr_assert_neq(page_info(w, mid - PAGE).place, GM_PLACE_OUTSIDE);
	cr_assert_neq(page_info(w, mid + 16 * PAGE).place, GM_PLACE_OUTSIDE);
	IS(gm_dev_fault(w->ctx[0], mid, GM_READ), GM_RET_FAULT);
	OK(gm_dev_fault(w->ctx[0], mid - PAGE, GM_READ));
	OK(gm_dev_fault(w->ctx[0], mid + 16 * PAGE, GM_READ));
	world_check(w);
	cr_assert_eq(app_wrong(w, va, 2 * GM_BLOCK_PAGES, 1), 0);
	OK(gm_release(w->as, ptr(va), 2 * BLOCK)); /* what is left */
	IS(gm_release(w->as, ptr(va), 2 * BLOCK), GM_RET_NOENT);
}

CORE_TEST(mem, adopt_refuses_what_it_cannot_manage)
{
	uint64_t va = app_map_blocks(w, 2), shared = gm_sim_mmap_shared(w->sim, BLOCK);
	void *p;

	OK(gm_sim_munmap(w->sim, va + BLOCK + PAGE, PAGE));
	IS(gm_adopt(w->as, ptr(va), 2 * BLOCK, 0), GM_RET_FAULT);
	IS(gm_adopt(w->as, ptr(va + BLOCK + PAGE), 1, 0), GM_RET_FAULT);
	IS(gm_adopt(w->as, ptr(shared), BLOCK, 0), GM_RET_NOTSUP);
	cr_assert_not_null(strstr(gm_last_error(), "private"), "%s", gm_last_error());
	OK(gm_sim_mlock(w->sim, va + PAGE, PAGE, true));
	IS(gm_adopt(w->as, ptr(va), BLOCK, 0), GM_RET_NOTSUP);
	cr_assert_not_null(strstr(gm_last_error(), "locked"), "%s", gm_last_error());
	OK(gm_sim_mlock(w->sim, va + PAGE, PAGE, false));
	OK(gm_alloc(w->as, BLOCK, 0, &p));
	IS(gm_adopt(w->as, p, PAGE, 0), GM_RET_EXIST);
	IS(gm_adopt(w->as, (char *)p + 5, 5, 0), GM_RET_EXIST);
	OK(gm_free(w->as, p));
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_OUTSIDE), GM_BLOCK_PAGES, "nothing changed");
	OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
}

CORE_TEST(mem, adopted_again)
{
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_adopt(w->as, ptr(va), BLOCK, 0)); /* no device uses it */
	OK(gm_dev_fault(w->ctx[0], va + 50 * PAGE, GM_WRITE));
	IS(gm_adopt(w->as, ptr(va), BLOCK, 0), GM_RET_EXIST);
	OK(gm_adopt(w->as, ptr(va + BLOCK / 2), BLOCK / 2, 0));
	OK(gm_release(w->as, ptr(va), BLOCK));
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
}

CORE_TEST(mem, neighbours_are_independent)
{
	uint64_t va = app_map_blocks(w, 1), half = BLOCK / 2;

	app_fill(w, va, GM_BLOCK_PAGES, 1);
	OK(gm_adopt(w->as, ptr(va), half, 0));
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE)); /* the block is tracked now */
	OK(gm_adopt(w->as, ptr(va + half), half, 0));
	OK(gm_dev_fault(w->ctx[0], va + half, GM_WRITE));
	cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, 1), 0);
	OK(gm_release(w->as, ptr(va), half));
	cr_assert_eq(dev_wrong(w->ctx[0], va + half, 1, 0), 1);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
	OK(gm_release(w->as, ptr(va + half), half));
}

/* Freed without gm_release() while a device had it: the next owner of the address sees nothing of it, and can adopt. */
CORE_TEST(mem, freed_and_mapped_again)
{
	uint64_t va = app_adopted(w, 1, 1);

	for (unsigned round = 0; round < 8; round++) {
		dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 2);
		OK(gm_sim_munmap(w->sim, va, BLOCK));
		cr_assert_eq(gm_sim_mmap_at(w->sim, va, BLOCK, RW), va);
		OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
		for (uint64_t i = 0; i < GM_BLOCK_PAGES; i += 13) {
			struct dev_job job = { .va = va + i * PAGE, .pages = 1 };

			OK(dev_run(w->ctx[0], &job));
			cr_assert_eq(job.wrong, 1);
			cr_assert_eq(app_get(w, word_va(va, i)), 0, "round %u, page %u shows old bytes", round,
				     (unsigned)i);
		}
		world_check(w);
	}
}

/* The same, never touched by a device: no event came, the region that is left must not be in the way. */
CORE_TEST(mem, freed_untracked_and_mapped_again)
{
	uint64_t va = app_map_blocks(w, 1);

	OK(gm_adopt(w->as, ptr(va + 16), BLOCK - 32, 0)); /* as malloc() would give it */
	OK(gm_sim_munmap(w->sim, va, BLOCK));
	cr_assert_eq(gm_sim_mmap_at(w->sim, va, BLOCK, RW), va);
	OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	cr_assert_eq(page_info(w, va).place, GM_PLACE_DEVICE, "no edge of the old buffer is left");
	OK(gm_sim_munmap(w->sim, va, BLOCK));
	cr_assert_eq(gm_sim_mmap_at(w->sim, va, BLOCK, RW), va);
	OK(gm_adopt(w->as, ptr(va + 16), BLOCK - 32, 0));
	cr_assert_eq(page_info(w, va).place, GM_PLACE_IN_PLACE);
	OK(gm_dev_fault(w->ctx[0], va + 16, GM_WRITE));
	OK(gm_dev_fault(w->ctx[0], va + PAGE, GM_WRITE));
	world_check(w);
}

/* ---------------------------------------------------------------- edges */

CORE_TEST(mem, edges_are_mapped_in_place)
{
	uint64_t va = app_map_blocks(w, 1), begin = va + PAGE + 1000, bytes = 3 * PAGE;

	app_fill(w, va, 8, 1);
	OK(gm_adopt(w->as, ptr(begin), bytes, 0));
	cr_assert_eq(page_info(w, va).place, GM_PLACE_OUTSIDE);
	cr_assert_eq(page_info(w, va + PAGE).place, GM_PLACE_IN_PLACE);
	cr_assert_eq(page_info(w, va + 2 * PAGE).place, GM_PLACE_HOST);
	cr_assert_eq(page_info(w, va + 4 * PAGE).place, GM_PLACE_IN_PLACE);
	cr_assert_eq(page_info(w, va + 5 * PAGE).place, GM_PLACE_OUTSIDE);
	dev_fill(w->ctx[0], va + PAGE, 1, 7);
	cr_assert_eq(page_info(w, va + PAGE).mapped_write, 1);
	cr_assert_eq(page_info(w, va + PAGE).place, GM_PLACE_IN_PLACE);
	cr_assert_eq(app_wrong(w, va + PAGE, 1, 7), 0, "written over the bus");
	app_put(w, word_va(va + PAGE, 0), word(0, 8));
	cr_assert_eq(dev_wrong(w->ctx[0], va + PAGE, 1, 8), 0);
	IS(gm_dev_fault(w->ctx[0], va + PAGE, GM_ATOMIC), GM_RET_NOTSUP);
	world_check(w);
	OK(gm_release(w->as, ptr(begin), bytes));
	cr_assert_eq(pages_in(w, va, 8, GM_PLACE_OUTSIDE), 8);
	IS(gm_dev_fault(w->ctx[0], va + PAGE, GM_READ), GM_RET_FAULT);
	cr_assert_eq(dev_free_bytes(w->dev[0]), 4 << 20);
}

/* Two buffers of malloc() in one page, of which one goes. */
CORE_TEST(mem, two_buffers_share_an_edge)
{
	uint64_t va = app_map_blocks(w, 1), shared = va + 3 * PAGE;
	void *one = ptr(va + 100), *two = ptr(shared + 2048);
	uint64_t bytes = 3 * PAGE + 500;

	app_fill(w, va, 10, 1);
	OK(gm_adopt(w->as, one, bytes, 0));
	OK(gm_adopt(w->as, two, bytes, 0));
	OK(gm_dev_fault(w->ctx[0], shared, GM_WRITE));
	OK(gm_release(w->as, one, bytes));
	cr_assert_eq(page_info(w, va).place, GM_PLACE_OUTSIDE);
	cr_assert_eq(page_info(w, shared).place, GM_PLACE_IN_PLACE, "the other buffer's");
	OK(gm_dev_fault(w->ctx[0], shared, GM_WRITE));
	dev_fill(w->ctx[0], shared, 1, 3);
	cr_assert_eq(app_wrong(w, shared, 1, 3), 0);
	OK(gm_release(w->as, two, bytes));
	cr_assert_eq(page_info(w, shared).place, GM_PLACE_OUTSIDE);
	cr_assert_eq(page_info(w, shared).mapped_read, 0);
	IS(gm_dev_fault(w->ctx[0], shared, GM_READ), GM_RET_FAULT);
	IS(gm_release(w->as, two, bytes), GM_RET_NOENT);
}

CORE_TEST(mem, a_buffer_inside_one_page)
{
	uint64_t va = app_map_blocks(w, 1);

	OK(gm_adopt(w->as, ptr(va + 64), 100, 0));
	cr_assert_eq(page_info(w, va).place, GM_PLACE_IN_PLACE);
	cr_assert_eq(page_info(w, va + PAGE).place, GM_PLACE_OUTSIDE);
	dev_fill(w->ctx[0], va, 1, 1);
	cr_assert_eq(app_wrong(w, va, 1, 1), 0);
	OK(gm_release(w->as, ptr(va + 64), 100));
	cr_assert_eq(page_info(w, va).place, GM_PLACE_OUTSIDE);
	OK(gm_adopt(w->as, ptr(va), 100, 0)); /* begins on a page, ends in it */
	cr_assert_eq(page_info(w, va).place, GM_PLACE_IN_PLACE);
	OK(gm_release(w->as, ptr(va), 100));
	OK(gm_adopt(w->as, ptr(va + 64), 2 * PAGE - 100, 0)); /* two edges and nothing between */
	cr_assert_eq(pages_in(w, va, 3, GM_PLACE_IN_PLACE), 2);
	OK(gm_release(w->as, ptr(va + 64), 2 * PAGE - 100));
	cr_assert_eq(pages_in(w, va, 3, GM_PLACE_OUTSIDE), 3);
}

CORE_TEST(mem, edges_on_a_device_that_cannot_map_the_host, .dev = { "mock:hostmap=no" })
{
	uint64_t va = app_map_blocks(w, 1);
	struct gm_ws_range range = { .va = va + 10, .bytes = 4 * PAGE, .access = GM_READ };
	struct gm_ws *ws = NULL;

	app_fill(w, va, 6, 1);
	OK(gm_adopt(w->as, ptr(va + 10), 4 * PAGE, 0));
	IS(gm_dev_fault(w->ctx[0], va + 10, GM_READ), GM_RET_NOTSUP);
	cr_assert_not_null(strstr(gm_last_error(), "in place"), "%s", gm_last_error());
	IS(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws), GM_RET_NOTSUP);
	cr_assert_null(ws);
	IS(dev_touch(w->ctx[0], va, true), GM_RET_NOTSUP);
	world_check(w);
	OK(gm_release(w->as, ptr(va + 10), 4 * PAGE));
	OK(gm_adopt(w->as, ptr(va + 10), 4 * PAGE, GM_MEM_OUTWARD));
	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
	OK(gm_ws_release(ws, NULL));
	cr_assert_eq(dev_wrong(w->ctx[0], va, 5, 1), 0);
}

CORE_TEST(mem, outward_takes_the_pages_around)
{
	uint64_t va = app_map_blocks(w, 1);

	app_fill(w, va, 8, 1);
	OK(gm_adopt(w->as, ptr(va + PAGE + 10), 3 * PAGE, GM_MEM_OUTWARD));
	cr_assert_eq(pages_in(w, va, 8, GM_PLACE_HOST), 4);
	OK(gm_dev_fault(w->ctx[0], va + PAGE, GM_WRITE));
	OK(gm_dev_fault(w->ctx[0], va + 4 * PAGE, GM_WRITE));
	cr_assert_eq(pages_in(w, va, 8, GM_PLACE_DEVICE), 4);
	cr_assert_eq(app_wrong(w, va, 8, 1), 0);
	OK(gm_release(w->as, ptr(va + PAGE + 10), 3 * PAGE));
	cr_assert_eq(pages_in(w, va, 8, GM_PLACE_OUTSIDE), 8, "with the same arguments all of it goes");
}

/* A device whose pages are larger than the buffer's surroundings. */
CORE_TEST(mem, granules_that_are_not_whole, .dev = { "mock:vram=4M,pages=64K+2M" })
{
	uint64_t va = app_map_blocks(w, 1);

	app_fill(w, va, GM_BLOCK_PAGES, 1);
	OK(gm_adopt(w->as, ptr(va + PAGE), 40 * PAGE, 0)); /* 1..40: one whole granule, 16..31 */
	IS(gm_dev_fault(w->ctx[0], va + PAGE, GM_READ), GM_RET_NOTSUP);
	IS(gm_dev_fault(w->ctx[0], va + 40 * PAGE, GM_READ), GM_RET_NOTSUP);
	OK(gm_dev_fault(w->ctx[0], va + 20 * PAGE, GM_WRITE));
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_DEVICE), 16);
	cr_assert_eq(dev_wrong(w->ctx[0], va + 16 * PAGE, 0, 1), 0);
	world_check(w);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
}

static void *alloc_none(void *arg, size_t bytes)
{
	(void)arg, (void)bytes;
	return NULL;
}

struct cutting {
	struct world *w;
	uint64_t va;
	void *(*alloc)(void *arg, size_t bytes);
};

#define CUT_BLOCKS 120u

/* Each page that is cut out of another block takes a piece of the stock, until none is left, nor memory for more. */
static void cut_many(void *arg)
{
	struct cutting *c = arg;
	uint64_t at = c->va + PAGE;

	gm_sim_sleep_ns(c->w->sim, 2 * MS);
	c->w->env->mem.alloc = alloc_none;
	for (unsigned i = 0; i + 1 < CUT_BLOCKS && gm_regions_room(&c->w->as->regions) >= 2; i++, at += BLOCK) {
		OK(gm_sim_munmap(c->w->sim, at, PAGE));
		gm_sim_sleep_ns(c->w->sim, MS);
	}
	cr_assert_lt(gm_regions_room(&c->w->as->regions), 2u, "the stock was not used up: cut more");
	cr_assert_neq(gm_sim_mremap(c->w->sim, at, PAGE), 0); /* which takes the last */
	gm_sim_sleep_ns(c->w->sim, MS);
}

/* A gm_free() that fails leaves the allocation known, though there is no memory for anything. */
CORE_TEST(mem, free_fails_without_memory, .dev = { "mock:vram=16M,submit=no" }, .as = { .wait_ns = 400 * MS })
{
	uint64_t va = app_map_blocks(w, CUT_BLOCKS);
	struct cutting c = { .w = w, .va = va, .alloc = w->env->mem.alloc };
	struct gm_thread *t;
	void *p;

	OK(gm_adopt(w->as, ptr(va), CUT_BLOCKS * BLOCK, 0));
	for (unsigned i = 0; i < CUT_BLOCKS; i++)
		dev_fill(w->ctx[0], va + i * BLOCK, 1, 2); /* from here on its events are read */
	OK(gm_alloc(w->as, BLOCK, 0, &p));
	dev_fill(w->ctx[0], GM_VA(p), 16, 3);
	OK(gm_mock_fail(w->dev[0], GM_MOCK_PMAP_REMOVE, 1, UINT64_MAX));
	t = spawn(w, cut_many, &c);
	IS(gm_free(w->as, p), GM_RET_TIMEDOUT);
	w->env->mem.alloc = c.alloc;
	OK(gm_mock_fail(w->dev[0], GM_MOCK_PMAP_REMOVE, 0, 0));
	join(w, t);
	cr_assert_eq(page_info(w, GM_VA(p)).place == GM_PLACE_OUTSIDE, false, "the allocation is not known any more");
	OK(gm_free(w->as, p));
	world_check(w);
}

/* Others use up all that is not promised. */
static void drain_stock(void *arg)
{
	struct world *w = arg;
	struct gm_regions *rs = &w->as->regions;

	gm_sim_sleep_ns(w->sim, 2 * MS);
	gm_lock(w->env, &w->as->lock);
	while (rs->small)
		gm_mem_free(w->env, gm_regions_take_small(rs), GM_REGION_SMALL_BYTES);
	while (rs->stock.count > gm_regions_kept(rs))
		gm_mem_free(w->env, gm_radix_spares_take(&rs->stock), GM_REGION_PIECE_BYTES);
	gm_unlock(w->env, &w->as->lock);
}

/* A gm_release() that fails leaves the memory adopted, and a page that a buffer shares with others an edge. */
CORE_TEST(mem, release_fails_without_stock, .dev = { "mock:vram=4M,submit=no" })
{
	uint64_t va = app_map_blocks(w, 2);
	void *buffer[2] = { ptr(va), ptr(va + BLOCK + 64) };
	uint64_t bytes[2] = { BLOCK, 128 };

	app_fill(w, va, 2 * GM_BLOCK_PAGES, 1);
	for (unsigned i = 0; i < 2; i++) {
		struct gm_mock_rule slow = { .size = sizeof(slow), .op = GM_MOCK_PMAP_REMOVE, .nth = 1,
					     .count = UINT64_MAX, .delay_ns = 20 * MS, .result = GM_RET_NOMEM };
		struct gm_thread *t;

		OK(gm_adopt(w->as, buffer[i], bytes[i], 0));
		OK(gm_dev_fault(w->ctx[0], GM_VA(buffer[i]), GM_READ));
		OK(gm_mock_rule_add(w->dev[0], &slow));
		t = spawn(w, drain_stock, w);
		IS(gm_release(w->as, buffer[i], bytes[i]), GM_RET_NOMEM);
		join(w, t);
		OK(gm_mock_rule_clear(w->dev[0]));
		cr_assert_neq(page_info(w, GM_VA(buffer[i])).place, GM_PLACE_OUTSIDE, "the region is lost");
		OK(gm_release(w->as, buffer[i], bytes[i]));
		cr_assert_eq(page_info(w, GM_VA(buffer[i])).place, GM_PLACE_OUTSIDE);
	}
	cr_assert_eq(app_wrong(w, va, 2 * GM_BLOCK_PAGES, 1), 0);
}

/* Two spaces want the same memory: the second one's devices are refused, and no byte is lost. */
CORE_TEST(mem, two_spaces_and_one_buffer)
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_as *as;
	struct gm_ctx *ctx;
	gm_ret_t ret;

	OK(gm_as_create(w->lib, 0, 0, NULL, &as));
	OK(gm_as_attach(as, w->dev[0], GM_ATTACH_IDENTITY, NULL, &ctx));
	dev_fill(w->ctx[0], va, 16, 2);
	ret = gm_adopt(as, ptr(va), BLOCK, 0);
	if (!ret) {
		IS(gm_dev_fault(ctx, va, GM_WRITE), GM_RET_BUSY);
		cr_assert_eq(app_wrong(w, va, 16, 2), 0);
		OK(gm_release(as, ptr(va), BLOCK));
	} else {
		IS(ret, GM_RET_BUSY);
	}
	cr_assert_eq(dev_wrong(w->ctx[0], va, 16, 2), 0);
	OK(gm_as_destroy(as));
}

/* What cannot be on the device all at once is refused before anybody waits; counted are the frames it takes there. */
CORE_TEST(mem, migrate_what_never_fits, .dev = { "mock:vram=1M" })
{
	uint64_t va = app_adopted(w, 1, 1), start = gm_now_ns(w->env), moved = 1;

	IS(gm_migrate(w->as, va + PAGE, 1 << 20, w->dev[0], &moved), GM_RET_NOSPC);
	cr_assert_eq(moved, 0);
	cr_assert_lt(gm_now_ns(w->env) - start, MS);
	cr_assert_not_null(strstr(gm_last_error(), "1088 KiB"), "%s", gm_last_error());
	OK(gm_migrate(w->as, va, 1 << 20, w->dev[0], NULL));
	OK(gm_migrate(w->as, va + (1 << 20), 1 << 20, w->dev[0], NULL));
	OK(gm_migrate(w->as, va + PAGE, (1 << 20) - UNIT, w->dev[0], NULL));
	OK(gm_release(w->as, ptr(va + UNIT), 2 * UNIT));
	start = gm_now_ns(w->env);
	IS(gm_migrate(w->as, va, (1 << 20) + 2 * UNIT, w->dev[0], &moved), GM_RET_FAULT); /* the hole takes no frames */
	cr_assert_eq(moved, 1 << 20);
	IS(gm_migrate(w->as, va, (1 << 20) + 3 * UNIT, w->dev[0], NULL), GM_RET_NOSPC);
	cr_assert_lt(gm_now_ns(w->env) - start, SECOND);
}

/* Frames of a working set are not needed again where the range is what the set holds. */
CORE_TEST(mem, migrate_around_a_set, .dev = { "mock:vram=1M,faults=no" })
{
	uint64_t va = app_adopted(w, 1, 1), start = gm_now_ns(w->env);
	struct gm_ws_range range = { .va = va + UNIT, .bytes = 4 * UNIT, .access = GM_READ };
	struct gm_ws *ws = NULL;

	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
	OK(gm_migrate(w->as, va, 1 << 20, w->dev[0], NULL));
	cr_assert_eq(pages_in(w, va, 256, GM_PLACE_DEVICE), 256);
	IS(gm_migrate(w->as, va + 5 * UNIT, 13 * UNIT, w->dev[0], NULL), GM_RET_NOSPC);
	cr_assert_lt(gm_now_ns(w->env) - start, SECOND);
	OK(gm_ws_release(ws, NULL));
}

/* A device of large pages only: what no whole one fits into needs nothing. */
CORE_TEST(mem, migrate_whole_granules, .dev = { "mock:vram=1M,pages=64K" })
{
	uint64_t va = app_adopted(w, 1, 1), moved;

	IS(gm_migrate(w->as, va + PAGE, 1 << 20, w->dev[0], &moved), GM_RET_BUSY);
	cr_assert_eq(moved, (1 << 20) - UNIT);
}
