/* SPDX-License-Identifier: MIT */
/*
 * gm_protect(): when it has returned, no device has more rights than the process, wherever the bytes are; nothing
 * changes where it fails; and no mapping survives that was made by rights from before it.
 */
#include "config.h"

#include "core_fixture.h"

#include "core/gm_txn.h"

#define NO_FAULTS "mock:vram=4M,faults=no"
#define LARGE "mock:vram=4M,pages=64K+2M"

/* A page that is busy may be recorded as mapped before rights are asked for, and before it is. */
static bool may_write(struct world *w, uint64_t va)
{
	struct gm_page_info info = page_info(w, va);

	return info.mapped_write && !(info.flags & GM_PAGE_BUSY);
}

static uint32_t rights_of(struct world *w, uint64_t va)
{
	struct gm_host_vma vma;

	OK(gm_hal_mem_rights(w->as->host, w->as->hpmap, va, &vma));
	return vma.access;
}

/* --------------------------------------------------------- wherever it is */

/* `va` is one page, whose word is word(0, 1); the page behind it is no concern of ours. */
static void check_rights(struct world *w, uint64_t va)
{
	uint64_t value = 77;

	OK(gm_protect(w->as, va, PAGE, GM_READ));
	IS(dev_touch(w->ctx[0], va, true), GM_RET_PERM);
	IS(gm_sim_store(w->sim, va, &value, sizeof(value)), GM_RET_FAULT);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 1, 1), 0);
	IS(dev_touch(w->ctx[0], va, true), GM_RET_PERM);
	OK(gm_protect(w->as, va, PAGE, 0));
	IS(dev_touch(w->ctx[0], va, false), GM_RET_FAULT);
	IS(dev_touch(w->ctx[0], va, true), GM_RET_FAULT);
	IS(gm_sim_load(w->sim, va, &value, sizeof(value)), GM_RET_FAULT);
	cr_assert_eq(page_info(w, va).mapped_read, 0);
	OK(gm_protect(w->as, va, PAGE, GM_WRITE));
	cr_assert_eq(rights_of(w, va), RW);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 1, 1), 0);
	cr_assert_eq(app_wrong(w, va, 1, 1), 0);
	dev_fill(w->ctx[0], va, 1, 1);
}

CORE_TEST(protect, on_the_host)
{
	uint64_t va = app_adopted(w, 1, 1);

	check_rights(w, va);
}

CORE_TEST(protect, on_a_device)
{
	uint64_t va = app_adopted(w, 1, 3);

	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 1);
	OK(gm_protect(w->as, va, BLOCK, GM_READ));
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_DEVICE), GM_BLOCK_PAGES, "where they were");
	IS(dev_touch(w->ctx[0], va + 100 * PAGE, true), GM_RET_PERM);
	cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, 1), 0);
	OK(gm_protect(w->as, va, BLOCK, RW));
	check_rights(w, va);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
}

/* A read mapping may stay when only writing ends. */
CORE_TEST(protect, what_is_read_stays_mapped)
{
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_dev_fault(w->ctx[0], va, GM_READ));
	OK(gm_protect(w->as, va, PAGE, GM_READ));
	cr_assert_eq(page_info(w, va).mapped_read, 1);
	OK(gm_protect(w->as, va, PAGE, 0));
	cr_assert_eq(page_info(w, va).mapped_read, 0);
	OK(gm_protect(w->as, va, PAGE, RW));
}

CORE_TEST(protect, in_place)
{
	uint64_t va = app_map_blocks(w, 1);

	app_fill(w, va, 2, 1);
	OK(gm_adopt(w->as, ptr(va), 100, 0)); /* an edge */
	OK(gm_adopt(w->as, ptr(va + PAGE), PAGE, 0));
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	cr_assert_eq(page_info(w, va).place, GM_PLACE_IN_PLACE);
	check_rights(w, va);
	app_put(w, va + PAGE, word(0, 1));
	OK(gm_sim_pin(w->sim, va + PAGE)); /* cannot move: mapped in place */
	OK(gm_dev_fault(w->ctx[0], va + PAGE, GM_WRITE));
	check_rights(w, va + PAGE);
	gm_sim_unpin(w->sim, va + PAGE);
}

/* What is away comes home under no rights at all, when somebody wants it there. */
CORE_TEST(protect, home_without_rights)
{
	uint64_t va = app_adopted(w, 1, 3);

	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 1);
	OK(gm_protect(w->as, va, 64 * PAGE, 0));
	OK(gm_protect(w->as, va + 64 * PAGE, 64 * PAGE, GM_READ));
	OK(gm_migrate(w->as, va, BLOCK, NULL, NULL));
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_HOST), GM_BLOCK_PAGES);
	IS(dev_touch(w->ctx[0], va, false), GM_RET_FAULT);
	IS(dev_touch(w->ctx[0], va + 64 * PAGE, true), GM_RET_PERM);
	cr_assert_eq(dev_wrong(w->ctx[0], va + 64 * PAGE, 1, 1), 1, "the word of page 64, not of page 0");
	OK(gm_protect(w->as, va, BLOCK, RW));
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
	cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, 1), 0);
}

/* Two devices, one in place: both obey. */
CORE_TEST(protect, every_device, .dev = { "mock:vram=4M", "mock:vram=4M" })
{
	uint64_t va = app_map_blocks(w, 1);

	app_fill(w, va, 1, 1);
	OK(gm_adopt(w->as, ptr(va), 100, 0));
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	OK(gm_dev_fault(w->ctx[1], va, GM_READ));
	OK(gm_protect(w->as, va, PAGE, GM_READ));
	IS(dev_touch(w->ctx[0], va, true), GM_RET_PERM);
	cr_assert_eq(page_info(w, va).mapped_read & 2, 2);
	OK(gm_protect(w->as, va, PAGE, 0));
	IS(dev_touch(w->ctx[1], va, false), GM_RET_FAULT);
	OK(gm_protect(w->as, va, PAGE, RW));
}

/* -------------------------------------------------------------- the range */

CORE_TEST(protect, memory_that_is_not_managed)
{
	uint64_t va = app_map_blocks(w, 3);

	app_fill(w, va, 3 * BLOCK / PAGE, 1);
	OK(gm_protect(w->as, va, 3 * BLOCK, GM_READ)); /* nothing is */
	cr_assert_eq(rights_of(w, va + 2 * BLOCK), GM_READ);
	OK(gm_protect(w->as, va, 3 * BLOCK - 1, RW)); /* rounded up */
	cr_assert_eq(rights_of(w, va + 3 * BLOCK - PAGE), RW);
	OK(gm_adopt(w->as, ptr(va + BLOCK), BLOCK, 0));
	OK(gm_dev_fault(w->ctx[0], va + BLOCK, GM_WRITE));
	OK(gm_protect(w->as, va + PAGE, 2 * BLOCK, 0)); /* part is */
	cr_assert_eq(rights_of(w, va + PAGE), 0);
	cr_assert_eq(rights_of(w, va), RW);
	cr_assert_eq(rights_of(w, va + 2 * BLOCK), 0);
	IS(dev_touch(w->ctx[0], va + BLOCK, false), GM_RET_FAULT);
	OK(gm_protect(w->as, va, 3 * BLOCK, RW));
	cr_assert_eq(app_wrong(w, va, 3 * BLOCK / PAGE, 1), 0);
}

CORE_TEST(protect, a_hole_in_the_range)
{
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	OK(gm_sim_munmap(w->sim, va + 64 * PAGE, PAGE));
	IS(gm_protect(w->as, va, BLOCK, GM_READ), GM_RET_FAULT);
	cr_assert_eq(rights_of(w, va), RW);
	cr_assert_eq(rights_of(w, va + 65 * PAGE), RW);
	OK(dev_touch(w->ctx[0], va, true));
}

/* A block that is packed is looked into as well. */
CORE_TEST(protect, packed_blocks, .dev = { "mock:vram=8M" })
{
	uint64_t va = app_adopted(w, 2, 3);

	dev_fill(w->ctx[0], va, 2 * BLOCK / PAGE, 1);
	gm_sim_sleep_ns(w->sim, 3 * SECOND);
	cr_assert_eq(atomic_load(&w->as->pack.count), 2);
	OK(gm_protect(w->as, va + BLOCK, PAGE, GM_READ));
	cr_assert_eq(atomic_load(&w->as->pack.count), 1, "only that which is concerned is opened");
	IS(dev_touch(w->ctx[0], va + BLOCK, true), GM_RET_PERM);
	OK(gm_protect(w->as, va, 2 * BLOCK, GM_READ));
	IS(dev_touch(w->ctx[0], va, true), GM_RET_PERM);
	OK(gm_protect(w->as, va, 2 * BLOCK, RW));
	cr_assert_eq(app_wrong(w, va, 2 * BLOCK / PAGE, 1), 0);
}

/* The whole of a large page loses what part of it loses; the other large page nothing. */
CORE_TEST(protect, large_pages, .dev = { LARGE })
{
	uint64_t va = app_adopted(w, 1, 3);

	dev_fill(w->ctx[0], va, 32, 1);
	OK(gm_protect(w->as, va + 3 * PAGE, PAGE, GM_READ));
	cr_assert_eq(page_info(w, va + 15 * PAGE).mapped_read, 0);
	cr_assert_eq(page_info(w, va + 16 * PAGE).mapped_write, 1);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 32, 1), 0, "all of it may be read");
	IS(gm_dev_fault(w->ctx[0], va + 3 * PAGE, GM_WRITE), GM_RET_PERM);
	IS(gm_dev_fault(w->ctx[0], va + 4 * PAGE, GM_WRITE), GM_RET_NOTSUP);
	IS(dev_touch(w->ctx[0], va + 4 * PAGE, true), GM_RET_NOTSUP);
	IS(dev_touch(w->ctx[0], va + 15 * PAGE, true), GM_RET_NOTSUP);
	OK(dev_touch(w->ctx[0], va + 31 * PAGE, true));
	OK(gm_protect(w->as, va + 3 * PAGE, PAGE, 0));
	IS(dev_touch(w->ctx[0], va + 2 * PAGE, false), GM_RET_NOTSUP);
	OK(gm_protect(w->as, va, BLOCK, RW));
	dev_fill(w->ctx[0], va, 32, 2);
	cr_assert_eq(app_wrong(w, va, 32, 2), 0);
}

/* ------------------------------------------------------------ working sets */

static struct gm_ws *acquire(struct world *w, uint64_t va, uint64_t pages, uint32_t access)
{
	struct gm_ws_range range = { .va = va, .bytes = pages * PAGE, .access = access };
	struct gm_ws *ws = NULL;

	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
	return ws;
}

CORE_TEST(protect, held_by_a_set, .dev = { NO_FAULTS })
{
	uint64_t va = app_adopted(w, 2, 1);
	struct gm_ws *ws = acquire(w, va + BLOCK, 16, GM_WRITE);

	IS(gm_protect(w->as, va, 2 * BLOCK, GM_READ), GM_RET_BUSY);
	cr_assert_eq(rights_of(w, va), RW, "nothing changed");
	OK(dev_touch(w->ctx[0], va + BLOCK, true));
	OK(gm_protect(w->as, va + BLOCK, 16 * PAGE, RW)); /* it loses nothing */
	OK(gm_protect(w->as, va + BLOCK + 64 * PAGE, PAGE, 0)); /* not its pages */
	OK(gm_ws_release(ws, NULL));
	OK(gm_protect(w->as, va, 2 * BLOCK, GM_READ));
	cr_assert_neq(dev_touch(w->ctx[0], va + BLOCK, true), GM_RET_SUCCESS);
	ws = acquire(w, va, 16, GM_READ);
	OK(gm_protect(w->as, va, BLOCK, GM_READ)); /* as it is */
	IS(gm_protect(w->as, va, BLOCK, 0), GM_RET_BUSY);
	OK(dev_touch(w->ctx[0], va, false));
	OK(gm_ws_release(ws, NULL));
	OK(gm_protect(w->as, va, 2 * BLOCK, RW));
}

/* The set's large page would go with its neighbour's. */
CORE_TEST(protect, beside_a_set_in_a_large_page, .dev = { LARGE })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws *ws = acquire(w, va, 1, GM_WRITE);

	IS(gm_protect(w->as, va + 15 * PAGE, PAGE, GM_READ), GM_RET_BUSY);
	OK(gm_protect(w->as, va + 16 * PAGE, PAGE, GM_READ));
	OK(gm_ws_release(ws, NULL));
	OK(gm_protect(w->as, va + 15 * PAGE, PAGE, GM_READ));
	struct gm_ws_range range = { .va = va, .bytes = PAGE, .access = GM_WRITE };
	IS(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws), GM_RET_PERM);
	OK(gm_protect(w->as, va, BLOCK, RW));
}

/* --------------------------------------------------------------- failures */

static struct {
	struct gm_hal_dev *host;
	gm_ret_t (*mem_protect)(void *pmap, uint64_t va, uint64_t bytes, uint32_t access);
	gm_ret_t (*mem_rights)(void *pmap, uint64_t va, struct gm_host_vma *vma);
	struct world *w;
	uint64_t va;
	gm_ret_t ret;
	bool armed;
} hooked;

static gm_ret_t half_way(void *pmap, uint64_t va, uint64_t bytes, uint32_t access)
{
	OK(hooked.mem_protect(pmap, va, bytes / 2, access));
	return GM_RET_NOMEM;
}

/* What may have been done was done for the devices too. */
CORE_TEST(protect, the_kernel_stops_half_way)
{
	uint64_t va = app_adopted(w, 1, 1);

	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 1);
	hooked.host = w->as->host;
	hooked.mem_protect = hooked.host->host.mem_protect;
	hooked.host->host.mem_protect = half_way;
	IS(gm_protect(w->as, va, BLOCK, GM_READ), GM_RET_NOMEM);
	hooked.host->host.mem_protect = hooked.mem_protect;
	IS(dev_touch(w->ctx[0], va, true), GM_RET_PERM);
	OK(dev_touch(w->ctx[0], va + BLOCK - PAGE, true));
	OK(gm_protect(w->as, va, BLOCK, RW));
}

/* Whoever asks while it is under way may have the answer of before: nothing may be recorded until the end. */
static gm_ret_t look_meanwhile(void *pmap, uint64_t va, uint64_t bytes, uint32_t access)
{
	struct gm_as *as = hooked.w->as;

	for (uint64_t at = va; at < va + bytes; at += BLOCK)
		cr_assert_not(gm_rights_same(&as->rights, at, gm_rights_seen(&as->rights, at)));
	cr_assert(gm_rights_same(&as->rights, va - BLOCK, gm_rights_seen(&as->rights, va - BLOCK)) ||
		  bytes > 63 * BLOCK);
	return hooked.mem_protect(pmap, va, bytes, access);
}

CORE_TEST(protect, nothing_is_recorded_meanwhile)
{
	static const unsigned blocks[] = { 1, 3, 63, 64, 200 };
	uint64_t va = app_map_blocks(w, 200);

	hooked.w = w;
	hooked.host = w->as->host;
	hooked.mem_protect = hooked.host->host.mem_protect;
	hooked.host->host.mem_protect = look_meanwhile;
	for (unsigned i = 0; i < 5; i++) {
		uint64_t seen = gm_rights_seen(&w->as->rights, va + (blocks[i] - 1) * BLOCK);

		OK(gm_protect(w->as, va, blocks[i] * BLOCK, GM_READ));
		cr_assert_not(gm_rights_same(&w->as->rights, va + (blocks[i] - 1) * BLOCK, seen),
			      "who asked before asks again");
		seen = gm_rights_seen(&w->as->rights, va);
		cr_assert(gm_rights_same(&w->as->rights, va, seen));
	}
	hooked.host->host.mem_protect = hooked.mem_protect;
}

/* A set of what is there already would be held by rights that are on their way out. */
static gm_ret_t acquire_meanwhile(void *pmap, uint64_t va, uint64_t bytes, uint32_t access)
{
	struct gm_ws_range range = { .va = va, .bytes = PAGE, .access = GM_WRITE };
	struct gm_ws *ws;

	IS(gm_ws_acquire(hooked.w->ctx[0], &range, 1, 3 * MS, &ws), GM_RET_TIMEDOUT);
	return hooked.mem_protect(pmap, va, bytes, access);
}

CORE_TEST(protect, nothing_is_held_meanwhile)
{
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	hooked.w = w;
	hooked.host = w->as->host;
	hooked.mem_protect = hooked.host->host.mem_protect;
	hooked.host->host.mem_protect = acquire_meanwhile;
	OK(gm_protect(w->as, va, PAGE, GM_READ));
	hooked.host->host.mem_protect = hooked.mem_protect;
	cr_assert_eq(page_info(w, va).flags & GM_PAGE_HELD, 0);
	OK(gm_protect(w->as, va, PAGE, RW));
}

CORE_TEST(protect, a_page_that_stays_busy, .as = { .wait_ns = 5 * MS })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_mask one = gm_mask_span(7, 8);
	struct gm_block *b;

	OK(gm_dev_fault(w->ctx[0], va + 7 * PAGE, GM_WRITE));
	OK(gm_block_obtain(w->as, va, &b));
	gm_lock(w->env, &b->lock);
	b->busy = gm_mask_or(b->busy, one);
	gm_unlock(w->env, &b->lock);
	IS(gm_protect(w->as, va, BLOCK, GM_READ), GM_RET_TIMEDOUT);
	cr_assert_eq(rights_of(w, va), RW);
	OK(gm_protect(w->as, va, 7 * PAGE, GM_READ)); /* not among them */
	gm_txn_release_unmoved(b, &one);
	gm_block_put(b);
	OK(gm_protect(w->as, va, BLOCK, GM_READ));
	IS(dev_touch(w->ctx[0], va + 7 * PAGE, true), GM_RET_PERM);
	OK(gm_protect(w->as, va, BLOCK, RW));
}

CORE_TEST(protect, no_memory_to_open_a_block)
{
	uint64_t va = app_adopted(w, 1, 1);

	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 1);
	gm_sim_sleep_ns(w->sim, 3 * SECOND);
	cr_assert_eq(atomic_load(&w->as->pack.count), 1);
	atomic_store(&w->fa.fail_all, true);
	IS(gm_protect(w->as, va, BLOCK, GM_READ), GM_RET_NOMEM);
	atomic_store(&w->fa.fail_all, false);
	cr_assert_eq(rights_of(w, va), RW, "nothing changed");
	OK(dev_touch(w->ctx[0], va, true));
}

/* ------------------------------------------------------------------ races */

/* Rights are asked for, then all is changed before the mapping is recorded: here, for certain. */
static gm_ret_t protect_behind(void *pmap, uint64_t va, struct gm_host_vma *vma)
{
	gm_ret_t ret = hooked.mem_rights(pmap, va, vma);

	if (hooked.armed) {
		hooked.armed = false;
		hooked.ret = gm_protect(hooked.w->as, hooked.va, PAGE, GM_READ);
	}
	return ret;
}

static void arm(struct world *w, uint64_t va)
{
	hooked.w = w;
	hooked.va = va;
	hooked.host = w->as->host;
	if (hooked.host->host.mem_rights != protect_behind)
		hooked.mem_rights = hooked.host->host.mem_rights;
	hooked.host->host.mem_rights = protect_behind;
	hooked.ret = GM_RET_INVAL;
	hooked.armed = true;
}

static void disarm(void)
{
	hooked.host->host.mem_rights = hooked.mem_rights;
	cr_assert_not(hooked.armed, "rights were not asked for");
}

CORE_TEST(protect, between_the_question_and_the_mapping)
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws_range range = { .va = va, .bytes = 4 * PAGE, .access = GM_WRITE };
	struct gm_ws *ws;

	arm(w, va); /* moved */
	IS(gm_dev_fault(w->ctx[0], va, GM_WRITE), GM_RET_PERM);
	OK(hooked.ret);
	cr_assert_eq(page_info(w, va).mapped_write, 0);
	OK(gm_protect(w->as, va, PAGE, RW));
	arm(w, va + PAGE); /* already there */
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	cr_assert_eq(page_info(w, va + PAGE).mapped_write, 0);
	OK(gm_protect(w->as, va, BLOCK, RW));
	arm(w, va);
	IS(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws), GM_RET_PERM);
	OK(hooked.ret);
	OK(gm_protect(w->as, va, BLOCK, RW));
	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws)); /* all is there: the next needs only to hold it */
	OK(gm_ws_release(ws, NULL));
	arm(w, va);
	IS(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws), GM_RET_PERM);
	OK(hooked.ret);
	disarm();
	OK(gm_protect(w->as, va, BLOCK, RW));
}

CORE_TEST(protect, between_the_question_and_a_mapping_in_place)
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws_range range = { .va = va, .bytes = 4 * PAGE, .access = GM_WRITE };
	struct gm_ws *ws;

	OK(gm_sim_pin(w->sim, va));
	arm(w, va);
	IS(gm_dev_fault(w->ctx[0], va, GM_WRITE), GM_RET_PERM);
	OK(hooked.ret);
	OK(gm_protect(w->as, va, PAGE, RW));
	arm(w, va);
	IS(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws), GM_RET_PERM);
	OK(hooked.ret);
	disarm();
	OK(gm_protect(w->as, va, PAGE, RW));
	gm_sim_unpin(w->sim, va);
}

/* An edge is busy before rights are asked for: who protects waits for it. */
struct racing {
	struct world *w;
	uint64_t va, stores, refused;
	bool stop;
};

static void device_side(void *arg)
{
	struct racing *r = arg;

	while (!r->stop) {
		gm_ret_t ret = dev_touch(r->w->ctx[0], r->va, true);

		cr_assert(ret == GM_RET_SUCCESS || ret == GM_RET_PERM || ret == GM_RET_FAULT, "%s", gm_ret_name(ret));
		r->stores += !ret;
		r->refused += ret != GM_RET_SUCCESS;
	}
}

static void set_side(void *arg)
{
	struct racing *r = arg;
	struct gm_ws_range range = { .va = r->va, .bytes = 2 * PAGE, .access = GM_WRITE };
	struct gm_ws *ws;

	while (!r->stop) {
		gm_ret_t ret = gm_ws_acquire(r->w->ctx[0], &range, 1, SECOND, &ws);

		if (ret)
			cr_assert(ret == GM_RET_PERM || ret == GM_RET_FAULT, "%s: %s", gm_ret_name(ret), gm_last_error());
		else
			OK(gm_ws_release(ws, NULL));
		gm_sim_sleep_ns(r->w->sim, 1000);
	}
}

/* While it is read-only (or nothing) the byte does not change, though a device writes all the time. */
static void flip(struct racing *r, unsigned rounds)
{
	struct world *w = r->w;

	for (unsigned i = 0; i < rounds; i++) {
		uint64_t first;
		gm_ret_t ret = gm_protect(w->as, r->va, PAGE, i % 3 ? GM_READ : 0);

		if (ret == GM_RET_BUSY) {
			cr_assert_eq(rights_of(w, r->va), RW);
			continue;
		}
		OK(ret);
		cr_assert_not(may_write(w, r->va));
		if (!(i % 3))
			OK(gm_protect(w->as, r->va, PAGE, GM_READ));
		first = app_get(w, r->va);
		gm_sim_sleep_ns(w->sim, 50000);
		cr_assert_eq(app_get(w, r->va), first);
		cr_assert_not(may_write(w, r->va));
		OK(gm_protect(w->as, r->va, PAGE, RW));
		app_put(w, r->va, UINT64_C(0xdead0000) + i); /* the device's word differs from it */
		gm_sim_sleep_ns(w->sim, 50000);
	}
	r->stop = true;
}

static void race_them(struct world *w, uint64_t va, bool set)
{
	struct racing r = { .w = w, .va = va };
	struct gm_thread *t[2] = { spawn(w, device_side, &r), set ? spawn(w, set_side, &r) : NULL };

	flip(&r, 120);
	for (unsigned i = 0; i < 2; i++)
		if (t[i])
			join(w, t[i]);
	cr_assert_gt(r.stores, 0);
	cr_assert_gt(r.refused, 0);
}

CORE_TEST(protect, races_with_stores, .spurious = true)
{
	race_them(w, app_adopted(w, 1, 1), false);
}

CORE_TEST(protect, races_with_stores_in_place, .spurious = true, .seed = 5)
{
	uint64_t va = app_map_blocks(w, 1);

	app_fill(w, va, 1, 1);
	OK(gm_adopt(w->as, ptr(va), 100, 0));
	race_them(w, va, false);
}

CORE_TEST(protect, races_with_sets, .spurious = true, .seed = 9)
{
	race_them(w, app_adopted(w, 1, 1), true);
}
