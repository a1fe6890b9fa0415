/* SPDX-License-Identifier: MIT */
/*
 * A device that is lost while it has memory: what only it had is lost with it, and every access says so; what the
 * host has kept comes home; and nothing of the device is called any more.
 */
#include "config.h"

#include "losing_mock.h"

/* Dirty pages are lost, clean ones are not; the device's memory is not read, though the CPU sees it. */
CORE_TEST(lost, what_only_the_device_had)
{
	static const char *const specs[] = { "vram=4M", "vram=4M,visible=no", "vram=4M,submit=no,copy=async" };

	for (unsigned i = 0; i < 3; i++) {
		uint64_t va = app_adopted(w, 1, 1), value;
		struct gm_ctx *ctx;
		struct gm_dev *dev = open_losing(w->lib, w->as, specs[i], &ctx);

		OK(gm_migrate(w->as, va, BLOCK, dev, NULL));
		dev_fill(ctx, va, 64, 2);
		losing.lost = true;
		IS(gm_sim_load(w->sim, word_va(va, 3), &value, sizeof(value)), GM_RET_IO);
		IS(gm_sim_load(w->sim, word_va(va, 40), &value, sizeof(value)), GM_RET_IO);
		cr_assert_eq(app_get(w, word_va(va, 400)), word(400, 1));
		cr_assert_eq(page_info(w, va + 3 * PAGE).place, GM_PLACE_POISONED);
		cr_assert_gt(w->errors, 0);
		world_check(w);
		close_losing(dev, ctx);
		for (unsigned k = 0; k < 64; k++)
			IS(gm_sim_load(w->sim, word_va(va, k), &value, sizeof(value)), GM_RET_IO);
		for (unsigned k = 64; k < GM_BLOCK_PAGES; k++)
			cr_assert_eq(app_get(w, word_va(va, k)), word(k, 1), "page %u was kept", k);
	}
}

/* The news comes with a fault: nobody asks for another, nor answers this one. */
CORE_TEST(lost, told_by_fault_next)
{
	uint64_t va = app_adopted(w, 1, 1);
	struct dev_job job = { .va = va, .pages = 1, .salt = 2, .write = true };
	struct gm_fence *fence;
	struct gm_ctx *ctx;
	struct gm_dev *dev = open_losing(w->lib, w->as, "vram=4M", &ctx);

	losing.lost = true;
	OK(gm_mock_launch(ctx, dev_kernel, &job, 1, &fence));
	IS(gm_fence_wait(fence, 10 * MS), GM_RET_TIMEDOUT);
	cr_assert(losing.told);
	IS(gm_dev_fault(ctx, va, GM_WRITE), GM_RET_NODEV);
	close_losing(dev, ctx); /* where the mock, which does not know that it is lost, ends the kernel */
	IS(gm_fence_wait(fence, 0), GM_RET_CANCELED);
	gm_fence_put(fence);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
}

/* What is lost stays lost with the memory, not with the address. */
CORE_TEST(lost, released_and_adopted_anew)
{
	uint64_t va = app_adopted(w, 1, 1), value;
	struct gm_ctx *ctx;
	struct gm_dev *dev = open_losing(w->lib, w->as, "vram=4M", &ctx);

	dev_fill(ctx, va, GM_BLOCK_PAGES, 2);
	losing.lost = true;
	IS(gm_sim_load(w->sim, word_va(va, 40), &value, sizeof(value)), GM_RET_IO);
	OK(gm_release(w->as, ptr(va), BLOCK));
	for (unsigned k = 0; k < GM_BLOCK_PAGES; k++)
		IS(gm_sim_load(w->sim, word_va(va, k), &value, sizeof(value)), GM_RET_IO);
	OK(gm_adopt(w->as, ptr(va), BLOCK, 0)); /* the same memory: nobody can do anything with it, */
	IS(gm_sim_load(w->sim, word_va(va, 7), &value, sizeof(value)), GM_RET_IO);
	cr_assert_neq(dev_touch(w->ctx[0], va + 7 * PAGE, false), GM_RET_SUCCESS);
	OK(gm_sim_mprotect(w->sim, va + 4 * PAGE, PAGE, GM_READ));
	OK(gm_discard(w->as, va, 32 * PAGE)); /* but give it up */
	OK(gm_sim_mprotect(w->sim, va + 4 * PAGE, PAGE, RW));
	for (unsigned k = 0; k < 32; k++)
		cr_assert_eq(app_get(w, word_va(va, k)), 0, "page %u", k);
	for (unsigned k = 32; k < GM_BLOCK_PAGES; k++)
		IS(gm_sim_load(w->sim, word_va(va, k), &value, sizeof(value)), GM_RET_IO);
	dev_fill(w->ctx[0], va, 32, 5);
	cr_assert_eq(app_wrong(w, va, 32, 5), 0);
	OK(gm_release(w->as, ptr(va), BLOCK));
	OK(gm_sim_munmap(w->sim, va, BLOCK));
	cr_assert_eq(gm_sim_mmap_at(w->sim, va, BLOCK, RW), va);
	OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 3);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 3), 0);
	world_check(w);
	close_losing(dev, ctx);
}

/* A child has nobody to ask: it must not see zeros either. */
CORE_TEST(lost, a_child)
{
	uint64_t va = app_adopted(w, 1, 1), value;
	struct gm_ctx *ctx;
	struct gm_dev *dev = open_losing(w->lib, w->as, "vram=4M", &ctx);

	dev_fill(ctx, va, 64, 2);
	losing.lost = true;
	IS(gm_sim_load(w->sim, word_va(va, 3), &value, sizeof(value)), GM_RET_IO);
	for (unsigned k = 0; k < 64; k++)
		IS(gm_sim_fork_snapshot(w->sim, word_va(va, k), &value, sizeof(value)), GM_RET_IO);
	OK(gm_sim_fork_snapshot(w->sim, word_va(va, 100), &value, sizeof(value)));
	cr_assert_eq(value, word(100, 1));
	close_losing(dev, ctx);
}

/* Given up: zeros on both sides, the marks are gone; what was good beside them too. */
CORE_TEST(lost, discarded)
{
	uint64_t va = app_adopted(w, 1, 1), value, at = va + 8 * PAGE;
	struct gm_ctx *ctx;
	struct gm_dev *dev = open_losing(w->lib, w->as, "vram=4M", &ctx);

	dev_fill(ctx, va + 32 * PAGE, 32, 2);
	OK(gm_sim_pin(w->sim, va + 9 * PAGE)); /* a page that is overwritten in place */
	losing.lost = true;
	IS(gm_sim_load(w->sim, word_va(va, 40), &value, sizeof(value)), GM_RET_IO);
	OK(gm_discard(w->as, at, 50 * PAGE));
	for (unsigned k = 8; k < 58; k++)
		cr_assert_eq(app_get(w, word_va(va, k)), 0, "page %u", k);
	for (unsigned k = 58; k < 64; k++)
		IS(gm_sim_load(w->sim, word_va(va, k), &value, sizeof(value)), GM_RET_IO);
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_POISONED), 6, "what was not discarded");
	gm_sim_unpin(w->sim, va + 9 * PAGE);
	OK(gm_discard(w->as, va, BLOCK));
	world_check(w);
	IS(dev_touch(w->ctx[0], va + 63 * PAGE, false), GM_RET_SUCCESS);
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 3);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 3), 0);
	world_check(w);
	close_losing(dev, ctx);
}

/* A move finds what is lost: it says so, and does not call it busy; the rest has moved. */
CORE_TEST(lost, moved)
{
	uint64_t va = app_adopted(w, 1, 1), value, moved;
	struct gm_ctx *ctx;
	struct gm_dev *dev = open_losing(w->lib, w->as, "vram=4M", &ctx);

	dev_fill(ctx, va + 16 * PAGE, 16, 2);
	losing.lost = true;
	IS(gm_sim_load(w->sim, word_va(va, 20), &value, sizeof(value)), GM_RET_IO);
	IS(gm_migrate(w->as, va, 64 * PAGE, NULL, &moved), GM_RET_NODEV);
	cr_assert_not_null(strstr(gm_last_error(), "16 pages"), "%s", gm_last_error());
	cr_assert_eq(moved, 48 * PAGE);
	IS(gm_migrate(w->as, va, 64 * PAGE, w->dev[0], &moved), GM_RET_NODEV);
	cr_assert_not_null(strstr(gm_last_error(), "lost"), "%s", gm_last_error());
	cr_assert_eq(moved, 48 * PAGE);
	OK(gm_discard(w->as, va + 16 * PAGE, 16 * PAGE));
	OK(gm_migrate(w->as, va, 64 * PAGE, w->dev[0], NULL));
	OK(gm_migrate(w->as, va, 64 * PAGE, NULL, NULL));
	close_losing(dev, ctx);
}

/* What was lost before it was adopted is known by nobody; but no device is told that it has it. */
CORE_TEST(lost, before_it_was_adopted)
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws_range range = { .va = va, .bytes = 16 * PAGE, .access = GM_READ };
	struct gm_ctx *ctx;
	struct gm_dev *dev = open_losing(w->lib, w->as, "vram=4M", &ctx);
	struct gm_ws *ws;

	dev_fill(ctx, va, 16, 2);
	losing.lost = true;
	OK(gm_release(w->as, ptr(va), BLOCK));
	OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
	IS(gm_dev_fault(w->ctx[0], va, GM_READ), GM_RET_FAULT);
	IS(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws), GM_RET_FAULT);
	IS(gm_migrate(w->as, va, 16 * PAGE, w->dev[0], NULL), GM_RET_BUSY);
	for (unsigned i = 0; i < 16; i++)
		cr_assert_eq(page_info(w, va + i * PAGE).mapped_read, 0, "page %u", i);
	IS(dev_touch(w->ctx[0], va + 20 * PAGE, true), GM_RET_SUCCESS);
	OK(gm_discard(w->as, va, 16 * PAGE));
	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
	OK(gm_ws_release(ws, NULL));
	cr_assert_eq(app_get(w, word_va(va, 3)), 0);
	close_losing(dev, ctx);
}

/* The hook learns of each run of pages that is lost, once. */
static struct {
	unsigned calls;
	uint64_t pages;
	struct gm_lost last;
} lost_told;

static void note_lost(void *arg, const struct gm_lost *lost)
{
	(void)arg;
	lost_told.calls++;
	lost_told.pages += lost->bytes / PAGE;
	lost_told.last = *lost;
}

CORE_TEST(lost, hook_is_told, .as = { .lost = note_lost })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ctx *ctx;
	struct gm_dev *dev = open_losing(w->lib, w->as, "vram=4M", &ctx);

	OK(gm_migrate(w->as, va, BLOCK, dev, NULL));
	dev_fill(ctx, va, 64, 2);
	losing.lost = true;
	(void)gm_migrate(w->as, va, BLOCK, NULL, NULL);
	cr_assert_gt(lost_told.calls, 0);
	cr_assert_eq(lost_told.pages, 64);
	cr_assert_eq(lost_told.last.why, GM_RET_NODEV);
	cr_assert(lost_told.last.va >= va && lost_told.last.va + lost_told.last.bytes <= va + 64 * PAGE);
	close_losing(dev, ctx);
	cr_assert_eq(lost_told.pages, 64, "told again");
}
