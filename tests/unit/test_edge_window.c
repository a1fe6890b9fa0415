/* SPDX-License-Identifier: MIT */
/*
 * Pages that adopted buffers share with others, at the moments in which they become so, or are so no more: a device that
 * asks, another buffer that comes, another device that holds the page.
 */
#include "config.h"

#include "comes_fixture.h"

static gm_ret_t do_release(struct gm_as *as, uint64_t va)
{
	return gm_release(as, ptr(va + 100), 50);
}

static gm_ret_t do_adopt(struct gm_as *as, uint64_t va)
{
	return gm_adopt(as, ptr(va + 100), 50, 0);
}

static gm_ret_t do_adopt_neighbour(struct gm_as *as, uint64_t va)
{
	return gm_adopt(as, ptr(va + 2000), 500, 0);
}

static gm_ret_t do_dev_fault(struct gm_as *as, uint64_t va)
{
	(void)as;
	return gm_dev_fault(other.w->ctx[0], va, GM_READ);
}

/* Memory in a block that stays, beside the page. */
static uint64_t block_with(struct world *w, uint64_t adopted)
{
	uint64_t va = app_map_blocks(w, 1);

	app_fill(w, va, GM_BLOCK_PAGES, 1);
	OK(gm_adopt(w->as, ptr(va + adopted), 16 * PAGE, 0));
	OK(gm_dev_fault(w->ctx[0], va + adopted, GM_READ));
	return va;
}

/* A device that cannot map an edge takes nothing from another whose working set holds it. */
CORE_TEST(edge_window, another_device_holds_it, .dev = { "mock:vram=4M,faults=no", "mock:vram=4M,submit=no" })
{
	uint64_t va = app_map_blocks(w, 1);
	struct gm_ws_range range = { .va = va + PAGE + 100, .bytes = 50, .access = GM_READ };
	struct gm_ws *ws;

	app_fill(w, va, GM_BLOCK_PAGES, 1);
	OK(gm_adopt(w->as, ptr(va + 100), 50, 0));
	OK(gm_dev_fault(w->ctx[1], va, GM_READ)); /* makes the block's records */
	OK(gm_adopt(w->as, ptr(va + PAGE + 100), 50, 0));
	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
	cr_assert_eq(page_info(w, va + PAGE).mapped_read, 1);
	OK(gm_mock_fail(w->dev[1], GM_MOCK_PMAP_ENTER, 1, 1));
	IS(gm_dev_fault(w->ctx[1], va + PAGE, GM_READ), GM_RET_NOMEM);
	cr_assert_eq(page_info(w, va + PAGE).mapped_read, 1, "what a set holds was revoked");
	OK(gm_ws_release(ws, NULL));
}

/* Two buffers share a page; one goes and the other comes. */
CORE_TEST(edge_window, one_goes_and_one_comes, .dev = { "mock:vram=4M" })
{
	uint64_t va = block_with(w, 4 * PAGE);

	for (unsigned at = 1;; at++) {
		OK(gm_adopt(w->as, ptr(va + 100), 50, 0));
		OK(gm_dev_fault(w->ctx[0], va, GM_READ));
		OK(meet(w, do_release, do_adopt_neighbour, va, at));
		if (!other.ret)
			cr_assert_eq(gm_dev_fault(w->ctx[0], va, GM_READ), GM_RET_SUCCESS, "it came at lock %u", at);
		world_check(w);
		if (!other.ret)
			OK(gm_release(w->as, ptr(va + 2000), 500));
		if (other.at)
			break;
	}
}

/* A page that was adopted becomes an edge, and a device asks for it at that moment. An edge is never moved. */
CORE_TEST(edge_window, asked_for_meanwhile, .dev = { "mock:vram=4M" }, .as = { .wait_ns = 5 * MS })
{
	uint64_t va = block_with(w, 64 * PAGE);

	for (unsigned at = 1;; at++) {
		gm_ret_t ret;

		OK(gm_adopt(w->as, ptr(va), PAGE, 0));
		ret = meet(w, do_adopt, do_dev_fault, va, at);
		if (!ret) {
			cr_assert_neq(page_info(w, va).place, GM_PLACE_DEVICE, "it came at lock %u", at);
			OK(gm_release(w->as, ptr(va + 100), 50));
			cr_assert_neq(page_info(w, va).place, GM_PLACE_DEVICE, "released, but not home; it came at lock %u", at);
		}
		world_check(w);
		(void)gm_release(w->as, ptr(va), PAGE);
		cr_assert_eq(app_get(w, word_va(va, 0)), word(0, 1));
		gm_sim_sleep_ns(w->sim, SECOND);
		if (other.at)
			break;
	}
}

/* Who releases more than the buffer releases all of it, and whoever shares its pages. */
CORE_TEST(edge_window, released_with_what_is_around, .dev = { "mock:vram=4M" })
{
	uint64_t va = app_map_blocks(w, 1);

	app_fill(w, va, GM_BLOCK_PAGES, 1);
	for (unsigned wide = 0; wide < 2; wide++) {
		OK(gm_adopt(w->as, ptr(va + 100), 2 * PAGE, 0));
		OK(gm_adopt(w->as, ptr(va + 20), 30, 0));
		OK(gm_adopt(w->as, ptr(va + 2 * PAGE + 1000), 30, 0));
		OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
		OK(gm_dev_fault(w->ctx[0], va + 2 * PAGE, GM_WRITE));
		if (wide) {
			OK(gm_release(w->as, ptr(va), 3 * PAGE));
		} else {
			OK(gm_release(w->as, ptr(va + 100), 2 * PAGE));
			cr_assert_eq(page_info(w, va).place, GM_PLACE_IN_PLACE, "another buffer's");
			OK(gm_release(w->as, ptr(va), PAGE));
			cr_assert_eq(page_info(w, va + 2 * PAGE).place, GM_PLACE_IN_PLACE);
			OK(gm_release(w->as, ptr(va + 2 * PAGE), PAGE));
		}
		for (unsigned i = 0; i < 3; i++) {
			cr_assert_eq(page_info(w, va + i * PAGE).place, GM_PLACE_OUTSIDE);
			IS(dev_touch(w->ctx[0], word_va(va, i), false), GM_RET_FAULT);
		}
		IS(gm_release(w->as, ptr(va), 3 * PAGE), GM_RET_NOENT);
	}
}
