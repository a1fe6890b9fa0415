/* SPDX-License-Identifier: MIT */
/* gm_pin(): what is pinned stays where it is, whoever wants it elsewhere, until the last pin of it goes. */
#include "config.h"

#include "pack_fixture.h"

#define NO_HOST_MAP "mock:vram=4M,hostmap=no"

static bool is_pinned(struct world *w, uint64_t va)
{
	return page_info(w, va).flags & GM_PAGE_PINNED;
}

/* --------------------------------------------------------------- to the host */

CORE_TEST(pin, to_the_host)
{
	uint64_t va = app_adopted(w, 1, 3);

	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 1);
	OK(gm_pin(w->as, va + 5, 64 * PAGE - 10, NULL)); /* rounded outward */
	cr_assert_eq(pages_in(w, va, 64, GM_PLACE_HOST), 64, "brought home");
	cr_assert(is_pinned(w, va) && is_pinned(w, va + 63 * PAGE) && !is_pinned(w, va + 64 * PAGE));
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 2);
	cr_assert_eq(pages_in(w, va, 64, GM_PLACE_HOST), 64, "mapped in place");
	cr_assert_eq(page_info(w, va + 7 * PAGE).mapped_write, 1);
	IS(gm_migrate(w->as, va, BLOCK, w->dev[0], NULL), GM_RET_BUSY);
	cr_assert_eq(pages_in(w, va, 64, GM_PLACE_HOST), 64);
	cr_assert_eq(pages_in(w, va + 64 * PAGE, 448, GM_PLACE_DEVICE), 448, "the others went");
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 2), 0);
	OK(gm_unpin(w->as, va, 64 * PAGE));
	cr_assert_not(is_pinned(w, va));
	OK(gm_migrate(w->as, va, BLOCK, w->dev[0], NULL));
	cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, 2), 0);
}

/* What no device has used is in no region: it is pinned all the same, whenever and however it comes to be adopted. */
CORE_TEST(pin, to_the_host_where_a_space_mirrors, .as = { .flags = GM_AS_MIRROR })
{
	uint64_t va = app_map_blocks(w, 4), shared = gm_sim_mmap_shared(w->sim, BLOCK);

	app_fill(w, va, UINT64_C(3) * GM_BLOCK_PAGES, 1);
	OK(gm_pin(w->as, va + 8 * PAGE, 16 * PAGE, NULL));
	OK(gm_pin(w->as, va + BLOCK, 8 * PAGE, NULL));
	OK(gm_adopt(w->as, (void *)(uintptr_t)(va + BLOCK), BLOCK, 0));
	dev_fill(w->ctx[0], va, UINT64_C(2) * GM_BLOCK_PAGES, 2);
	cr_assert_eq(pages_in(w, va + 8 * PAGE, 16, GM_PLACE_HOST), 16, "mapped in place");
	cr_assert_eq(pages_in(w, va + BLOCK, 8, GM_PLACE_HOST), 8, "mapped in place, adopted by the caller");
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_DEVICE), GM_BLOCK_PAGES - 16);
	IS(gm_migrate(w->as, va, 2 * BLOCK, w->dev[0], NULL), GM_RET_BUSY);
	cr_assert_eq(pages_in(w, va + 8 * PAGE, 16, GM_PLACE_HOST), 16);
	cr_assert_eq(app_wrong(w, va, UINT64_C(2) * GM_BLOCK_PAGES, 2), 0);
	/* The pin is of the addresses. */
	OK(gm_sim_munmap(w->sim, va, BLOCK));
	cr_assert_eq(gm_sim_mmap_at(w->sim, va, BLOCK, RW), va);
	gm_sim_sleep_ns(w->sim, 2 * SECOND);
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 3);
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_DEVICE), GM_BLOCK_PAGES - 16);
	OK(gm_unpin(w->as, va + 8 * PAGE, 16 * PAGE));
	OK(gm_unpin(w->as, va + BLOCK, 8 * PAGE));
	OK(gm_migrate(w->as, va, 2 * BLOCK, w->dev[0], NULL));
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 3), 0);
	/* What moves nowhere is pinned to no device. */
	IS(gm_pin(w->as, shared, 4 * PAGE, w->dev[0]), GM_RET_BUSY);
	IS(gm_pin(w->as, shared, 4 * PAGE, NULL), GM_RET_FAULT);
}

/* On failure nothing has changed. */
CORE_TEST(pin, to_the_host_and_a_release_that_fails)
{
	struct gm_mock_rule broken = { .size = sizeof(broken), .op = GM_MOCK_COPY, .nth = 1, .count = 1000,
				       .result = GM_RET_IO };
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_pin(w->as, va, 8 * PAGE, NULL));
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 2);
	OK(gm_mock_rule_add(w->dev[0], &broken));
	IS(gm_release(w->as, (void *)(uintptr_t)va, BLOCK), GM_RET_IO);
	OK(gm_mock_rule_clear(w->dev[0]));
	cr_assert(is_pinned(w, va) && is_pinned(w, va + 7 * PAGE));
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 3);
	cr_assert_eq(pages_in(w, va, 8, GM_PLACE_HOST), 8);
	OK(gm_release(w->as, (void *)(uintptr_t)va, BLOCK));
	OK(gm_adopt(w->as, (void *)(uintptr_t)va, BLOCK, 0));
	cr_assert_not(is_pinned(w, va), "but released it is pinned no more");
	OK(gm_unpin(w->as, va, 8 * PAGE));
}

struct going {
	struct world *w;
	uint64_t va;
	bool done;
};

static void go_to_dev(void *arg)
{
	struct going *g = arg;

	OK(gm_dev_fault(g->w->ctx[0], g->va, GM_WRITE));
	g->done = true;
}

/* What is on its way to the device when it is pinned is not there afterwards; with content, and without. */
CORE_TEST(pin, to_the_host_while_it_leaves, .dev = { "mock:vram=4M,copy=async,copyns=100000" })
{
	uint64_t va = app_adopted(w, 2, 3);

	for (unsigned i = 0; i < 2; i++, va += BLOCK) {
		struct gm_mock_rule late = { .size = sizeof(late), .op = GM_MOCK_PMAP_ENTER, .nth = 1, .count = 1,
					     .delay_ns = SECOND / 10 };
		struct going g = { .w = w, .va = va };
		struct gm_thread *t;

		if (i)
			OK(gm_discard(w->as, va, BLOCK));
		OK(gm_mock_rule_add(w->dev[0], &late));
		t = spawn(w, go_to_dev, &g);
		while (!(page_info(w, va).flags & GM_PAGE_BUSY))
			gm_sim_sleep_ns(w->sim, 1000);
		cr_assert_not(g.done, "it is on its way");
		OK(gm_pin(w->as, va, 16 * PAGE, NULL));
		cr_assert_eq(pages_in(w, va, 16, GM_PLACE_DEVICE), 0);
		join(w, t);
		gm_sim_sleep_ns(w->sim, SECOND);
		cr_assert_eq(pages_in(w, va, 16, GM_PLACE_DEVICE), 0);
		OK(gm_unpin(w->as, va, 16 * PAGE));
	}
}

static void check_often(void *arg)
{
	struct going *g = arg;
	char text[160];

	while (!g->done) {
		cr_assert_eq(gm_as_check(g->w->as, text, sizeof(text)), GM_RET_SUCCESS, "%s", text);
		gm_sim_sleep_ns(g->w->sim, 100);
	}
}

/* It is kept before it is home: no invariant is broken meanwhile. */
CORE_TEST(pin, checked_while_it_comes, .dev = { "mock:vram=4M,copy=async,copyns=100000" })
{
	struct going g = { .w = w, .va = app_adopted(w, 1, 3) };
	struct gm_thread *t;

	dev_fill(w->ctx[0], g.va, GM_BLOCK_PAGES, 1);
	t = spawn(w, check_often, &g);
	OK(gm_pin(w->as, g.va, BLOCK, NULL));
	g.done = true;
	join(w, t);
	cr_assert_eq(app_wrong(w, g.va, GM_BLOCK_PAGES, 1), 0);
	OK(gm_unpin(w->as, g.va, BLOCK));
}

/* One that fails breaks none either, while it is taken back. */
CORE_TEST(pin, checked_while_it_fails, .spurious = true, .seed = 5)
{
	struct going g = { .w = w, .va = app_adopted(w, 2, 3) };
	struct gm_ws_range range = { .va = g.va + BLOCK, .bytes = 8 * PAGE, .access = GM_WRITE };
	struct gm_thread *t;
	struct gm_ws *ws;

	OK(gm_ws_acquire(w->ctx[0], &range, 1, GM_FOREVER_NS, &ws));
	t = spawn(w, check_often, &g);
	for (unsigned i = 0; i < 100; i++) {
		dev_fill(w->ctx[0], g.va, 32, i);
		IS(gm_pin(w->as, g.va, 2 * BLOCK, NULL), GM_RET_BUSY);
		gm_sim_sleep_ns(w->sim, 300);
	}
	g.done = true;
	join(w, t);
	cr_assert_not(is_pinned(w, g.va));
	OK(gm_ws_release(ws, NULL));
}

struct taking {
	struct going g;
	unsigned taken;
};

static void take_often(void *arg)
{
	struct taking *t = arg;

	while (!t->g.done) {
		t->taken += gm_unpin(t->g.w->as, t->g.va, BLOCK) == GM_RET_SUCCESS;
		gm_sim_sleep_ns(t->g.w->sim, 100);
	}
}

/* What somebody is making is not another's to take away. */
CORE_TEST(pin, taken_away_while_it_comes, .dev = { "mock:vram=4M,copy=async,copyns=100000" })
{
	struct taking t = { .g = { .w = w, .va = app_adopted(w, 1, 3) } };
	struct gm_thread *thread;

	dev_fill(w->ctx[0], t.g.va, GM_BLOCK_PAGES, 1);
	thread = spawn(w, take_often, &t);
	OK(gm_pin(w->as, t.g.va, BLOCK, NULL));
	cr_assert_eq(t.taken, 0);
	t.g.done = true;
	join(w, thread);
	t.taken += gm_unpin(w->as, t.g.va, BLOCK) == GM_RET_SUCCESS;
	cr_assert_eq(t.taken, 1);
	cr_assert_not(is_pinned(w, t.g.va));
	cr_assert_eq(app_wrong(w, t.g.va, GM_BLOCK_PAGES, 1), 0);
}

CORE_TEST(pin, to_the_host_and_a_device_that_cannot_map_it, .dev = { NO_HOST_MAP })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws_range range = { .va = va, .bytes = PAGE, .access = GM_READ };
	struct gm_ws *ws;

	OK(gm_pin(w->as, va, PAGE, NULL));
	IS(gm_dev_fault(w->ctx[0], va, GM_READ), GM_RET_BUSY);
	IS(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws), GM_RET_BUSY);
	OK(gm_dev_fault(w->ctx[0], va + PAGE, GM_WRITE));
	cr_assert_eq(page_info(w, va).place, GM_PLACE_HOST);
	OK(gm_unpin(w->as, va, PAGE));
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
}

/* A large page goes, or stays, as a whole. */
CORE_TEST(pin, beside_in_a_large_page, .dev = { "mock:vram=4M,pages=64K+2M" })
{
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_pin(w->as, va + 3 * PAGE, PAGE, NULL));
	cr_assert_neq(gm_dev_fault(w->ctx[0], va, GM_WRITE), GM_RET_SUCCESS);
	cr_assert_eq(pages_in(w, va, 16, GM_PLACE_HOST), 16);
	OK(gm_dev_fault(w->ctx[0], va + 16 * PAGE, GM_WRITE));
	OK(gm_unpin(w->as, va + 3 * PAGE, PAGE));
	dev_fill(w->ctx[0], va, 16, 2);
	cr_assert_eq(app_wrong(w, va, 16, 2), 0);
}

CORE_TEST(pin, held_in_place_by_a_set, .dev = { "mock:vram=4M,faults=no" })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws_range range = { .va = va, .bytes = 8 * PAGE, .access = GM_WRITE };
	struct gm_ws *ws;

	OK(gm_pin(w->as, va + 2 * PAGE, PAGE, NULL));
	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
	cr_assert_eq(page_info(w, va + 2 * PAGE).place, GM_PLACE_HOST);
	dev_fill(w->ctx[0], va, 8, 2);
	OK(gm_ws_release(ws, NULL));
	cr_assert_eq(app_wrong(w, va, 8, 2), 0);
	OK(gm_unpin(w->as, va + 2 * PAGE, PAGE));
}

/* A page without content gets zeros where it is. */
CORE_TEST(pin, content_given_up)
{
	uint64_t va = app_adopted(w, 1, 1), value = 1;

	OK(gm_pin(w->as, va, BLOCK, NULL));
	OK(gm_discard(w->as, va, 4 * PAGE));
	OK(gm_sim_dontneed(w->sim, va + 8 * PAGE, PAGE));
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	OK(gm_dev_fault(w->ctx[0], va + 8 * PAGE, GM_READ));
	cr_assert_eq(page_info(w, va).place, GM_PLACE_HOST);
	cr_assert_eq(page_info(w, va + 8 * PAGE).place, GM_PLACE_HOST);
	value = app_get(w, word_va(va, 0));
	cr_assert_eq(value, 0);
	cr_assert_eq(app_get(w, word_va(va, 8)), 0);
	dev_fill(w->ctx[0], va, 16, 5);
	cr_assert_eq(app_wrong(w, va, 16, 5), 0);
	cr_assert_eq(pages_in(w, va, 16, GM_PLACE_HOST), 16);
	OK(gm_unpin(w->as, va, BLOCK));
}

CORE_TEST(pin, nested_and_overlapping)
{
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_pin(w->as, va, 8 * PAGE, NULL));
	OK(gm_pin(w->as, va, 8 * PAGE, NULL));
	OK(gm_pin(w->as, va + 4 * PAGE, 8 * PAGE, NULL));
	IS(gm_unpin(w->as, va, 4 * PAGE), GM_RET_NOENT);
	OK(gm_unpin(w->as, va, 8 * PAGE));
	cr_assert(is_pinned(w, va));
	OK(gm_unpin(w->as, va, 8 * PAGE));
	cr_assert(!is_pinned(w, va) && is_pinned(w, va + 4 * PAGE) && is_pinned(w, va + 11 * PAGE));
	IS(gm_unpin(w->as, va, 8 * PAGE), GM_RET_NOENT);
	OK(gm_unpin(w->as, va + 4 * PAGE, 8 * PAGE));
	cr_assert(!is_pinned(w, va + 4 * PAGE));
}

/* It outlives every rest: blocks with pins are not packed, nor forgotten. */
CORE_TEST(pin, outlives_packing)
{
	uint64_t va = app_adopted(w, 2, 1);

	OK(gm_pin(w->as, va, PAGE, NULL));
	dev_fill(w->ctx[0], va + PAGE, GM_BLOCK_PAGES - 1, 2);
	rest(w);
	cr_assert_eq(packed(w), 0);
	IS(gm_migrate(w->as, va, PAGE, w->dev[0], NULL), GM_RET_BUSY);
	OK(gm_migrate(w->as, va, BLOCK, NULL, NULL));
	rest(w);
	IS(gm_migrate(w->as, va, PAGE, w->dev[0], NULL), GM_RET_BUSY);
	OK(gm_unpin(w->as, va, PAGE));
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 2);
	rest(w);
	cr_assert_eq(packed(w), 1);
}

/* The address is somebody else's afterwards. */
CORE_TEST(pin, unmapped)
{
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_pin(w->as, va, BLOCK, NULL));
	OK(gm_dev_fault(w->ctx[0], va + 100 * PAGE, GM_WRITE)); /* whether watched or not */
	OK(gm_sim_munmap(w->sim, va, BLOCK));
	(void)gm_release(w->as, ptr(va), BLOCK);
	cr_assert_eq(gm_sim_mmap_at(w->sim, va, BLOCK, RW), va);
	app_fill(w, va, GM_BLOCK_PAGES, 4);
	OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
	cr_assert_not(is_pinned(w, va));
	OK(gm_migrate(w->as, va, BLOCK, w->dev[0], NULL));
	OK(gm_pin(w->as, va, PAGE, NULL)); /* a smaller one, and the old one goes: it takes nothing of it away */
	OK(gm_unpin(w->as, va, BLOCK));
	cr_assert(is_pinned(w, va));
	OK(gm_unpin(w->as, va, PAGE));
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 4), 0);
}

/* The same where an event tells of it, and where it moves: nobody releases it. */
CORE_TEST(pin, unmapped_or_moved_and_noticed)
{
	for (unsigned moved = 0; moved < 2; moved++) {
		uint64_t va = app_adopted(w, 1, 1);

		OK(gm_pin(w->as, va, BLOCK / 2, NULL));
		OK(gm_dev_fault(w->ctx[0], va + BLOCK / 2, GM_WRITE)); /* so it is watched */
		if (moved)
			cr_assert_neq(gm_sim_mremap(w->sim, va, BLOCK), 0);
		else
			OK(gm_sim_munmap(w->sim, va, BLOCK));
		cr_assert_eq(gm_sim_mmap_at(w->sim, va, BLOCK, RW), va);
		OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
		cr_assert_not(is_pinned(w, va));
		OK(gm_migrate(w->as, va, BLOCK, w->dev[0], NULL));
		OK(gm_unpin(w->as, va, BLOCK / 2));
	}
}

CORE_TEST(pin, released_with_the_memory)
{
	void *mem;
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_pin(w->as, va, BLOCK, NULL));
	OK(gm_release(w->as, ptr(va), BLOCK));
	OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
	cr_assert_not(is_pinned(w, va));
	OK(gm_alloc(w->as, BLOCK, 0, &mem));
	OK(gm_pin(w->as, GM_VA(mem), BLOCK, NULL));
	OK(gm_free(w->as, mem));
	/* both pins are in the list still: the end of the space takes them */
}

/* -------------------------------------------------------------- to a device */

CORE_TEST(pin, to_a_device, .dev = { "mock:vram=4M", "mock:vram=4M" })
{
	uint64_t va = app_adopted(w, 3, 1);

	OK(gm_pin(w->as, va, BLOCK, w->dev[0]));
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_DEVICE), GM_BLOCK_PAGES);
	cr_assert(is_pinned(w, va + 100 * PAGE));
	IS(gm_migrate(w->as, va, BLOCK, NULL, NULL), GM_RET_BUSY);
	IS(gm_migrate(w->as, va, BLOCK, w->dev[1], NULL), GM_RET_BUSY);
	IS(gm_pin(w->as, va, PAGE, NULL), GM_RET_BUSY);
	IS(gm_pin(w->as, va, PAGE, w->dev[1]), GM_RET_BUSY);
	IS(gm_discard(w->as, va, PAGE), GM_RET_BUSY);
	IS(gm_release(w->as, ptr(va), BLOCK), GM_RET_BUSY);
	for (unsigned round = 0; round < 4; round++) { /* all else is evicted */
		dev_fill(w->ctx[0], va + BLOCK, GM_BLOCK_PAGES, round);
		dev_fill(w->ctx[0], va + 2 * BLOCK, GM_BLOCK_PAGES, round);
	}
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_DEVICE), GM_BLOCK_PAGES);
	IS(gm_as_detach(w->ctx[0]), GM_RET_BUSY);
	IS(gm_as_destroy(w->as), GM_RET_BUSY);
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 7);
	OK(gm_unpin(w->as, va, BLOCK));
	cr_assert_not(is_pinned(w, va));
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 7), 0);
	cr_assert_eq(app_wrong(w, va + BLOCK, GM_BLOCK_PAGES, 3), 0);
}

CORE_TEST(pin, room)
{
	uint64_t va = app_adopted(w, 3, 1);
	uint64_t before = gm_now_ns(w->env);

	OK(gm_pin(w->as, va, BLOCK + BLOCK / 2, w->dev[0]));
	IS(gm_pin(w->as, va + 2 * BLOCK, BLOCK, w->dev[0]), GM_RET_NOSPC);
	cr_assert(strstr(gm_last_error(), "lacks 1024 "), "%s", gm_last_error());
	IS(gm_pin(w->as, va, 3 * BLOCK, w->dev[0]), GM_RET_NOSPC);
	cr_assert_lt(gm_now_ns(w->env) - before, SECOND, "nobody is waited for");
	OK(gm_pin(w->as, va + 2 * BLOCK, BLOCK / 2, w->dev[0]));
	OK(gm_unpin(w->as, va + 2 * BLOCK, BLOCK / 2));
	OK(gm_unpin(w->as, va, BLOCK + BLOCK / 2));
	OK(gm_pin(w->as, va, 2 * BLOCK, w->dev[0]));
	OK(gm_unpin(w->as, va, 2 * BLOCK));
}

CORE_TEST(pin, what_cannot_be)
{
	uint64_t va = app_adopted(w, 2, 1);

	OK(gm_sim_pin(w->sim, va + 3 * PAGE)); /* in use by a system call */
	IS(gm_pin(w->as, va, 8 * PAGE, w->dev[0]), GM_RET_BUSY);
	OK(gm_pin(w->as, va, 8 * PAGE, NULL));
	gm_sim_unpin(w->sim, va + 3 * PAGE);
	IS(gm_pin(w->as, va, 8 * PAGE, w->dev[0]), GM_RET_BUSY); /* by the host's pin */
	OK(gm_unpin(w->as, va, 8 * PAGE));
	OK(gm_pin(w->as, va, 8 * PAGE, w->dev[0]));
	OK(gm_unpin(w->as, va, 8 * PAGE));
	IS(gm_pin(w->as, va, 3 * BLOCK, NULL), GM_RET_FAULT);
	cr_assert_not(is_pinned(w, va));
	IS(gm_pin(w->as, va, 3 * BLOCK, w->dev[0]), GM_RET_FAULT);
	OK(gm_protect(w->as, va, PAGE, 0));
	IS(gm_pin(w->as, va, PAGE, w->dev[0]), GM_RET_FAULT);
	OK(gm_protect(w->as, va, PAGE, RW));
	cr_assert_eq(dev_free_bytes(w->dev[0]) % UNIT, 0);
	world_check(w);
}

/* A CPU access waits, and fails loudly. */
static struct gm_stuck told;

static void on_stuck(void *arg, const struct gm_stuck *stuck)
{
	(void)arg;
	told = *stuck;
}

CORE_TEST(pin, touched_by_the_cpu, .as = { .hold_ns = 20 * MS, .stuck = on_stuck })
{
	uint64_t va = app_adopted(w, 1, 1), value;

	told.ws = (struct gm_ws *)&told;
	OK(gm_pin(w->as, va, PAGE, w->dev[0]));
	IS(gm_sim_load(w->sim, va, &value, sizeof(value)), GM_RET_IO);
	cr_assert_eq(told.va, va);
	cr_assert_geq(told.held_ns, 20 * MS);
	cr_assert_null(told.ws);
	OK(gm_unpin(w->as, va, PAGE));
	gm_sim_sleep_ns(w->sim, 50 * MS);
	cr_assert_eq(app_wrong(w, va, 1, 1), 0);
}

CORE_TEST(pin, unmapped_on_a_device)
{
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_pin(w->as, va, BLOCK, w->dev[0]));
	OK(gm_sim_munmap(w->sim, va, BLOCK));
	OK(gm_unpin(w->as, va, BLOCK));
	gm_sim_sleep_ns(w->sim, SECOND);
	cr_assert(dev_all_free(w->dev[0]));
}

CORE_TEST(pin, moved_by_mremap)
{
	uint64_t va = app_adopted(w, 2, 1), to[2];

	OK(gm_pin(w->as, va, BLOCK, NULL));
	dev_fill(w->ctx[0], va, 4, 1); /* in place */
	OK(gm_pin(w->as, va + BLOCK, BLOCK, w->dev[0]));
	to[0] = gm_sim_mremap(w->sim, va, BLOCK);
	to[1] = gm_sim_mremap(w->sim, va + BLOCK, BLOCK);
	OK(gm_unpin(w->as, va + BLOCK, BLOCK));
	for (uint64_t k = 0; k < 2 * BLOCK / PAGE; k++) {
		uint64_t i = k / GM_BLOCK_PAGES;

		cr_assert_eq(app_get(w, word_va(va, k) - (va + i * BLOCK) + to[i]), word(k, 1));
	}
	OK(gm_unpin(w->as, va, BLOCK));
}

CORE_TEST(pin, no_memory)
{
	uint64_t va = app_adopted(w, 1, 1);

	for (unsigned n = 1; n < 12; n++) {
		gm_ret_t ret;

		failing_alloc_arm(&w->fa, n);
		ret = gm_pin(w->as, va, 8 * PAGE, n % 2 ? w->dev[0] : NULL);
		failing_alloc_arm(&w->fa, 0);
		cr_assert(ret == GM_RET_SUCCESS || ret == GM_RET_NOMEM, "%s", gm_ret_name(ret));
		cr_assert_eq(is_pinned(w, va), !ret);
		if (!ret)
			OK(gm_unpin(w->as, va, 8 * PAGE));
	}
}

/* Devices fault while it is pinned and let go. */
struct racing {
	struct world *w;
	uint64_t va;
	bool stop;
};

static void faulter(void *arg)
{
	struct racing *r = arg;
	uint64_t salt = 1;

	while (!r->stop)
		dev_fill(r->w->ctx[0], r->va, 8, salt++);
}

CORE_TEST(pin, races_with_faults, .spurious = true, .seed = 3)
{
	struct racing r = { .w = w, .va = app_adopted(w, 1, 0) };
	struct gm_thread *t = spawn(w, faulter, &r);

	for (unsigned i = 0; i < 60; i++) {
		OK(gm_pin(w->as, r.va, 8 * PAGE, NULL));
		for (unsigned k = 0; k < 20; k++) {
			cr_assert_eq(pages_in(w, r.va, 8, GM_PLACE_HOST), 8);
			gm_sim_sleep_ns(w->sim, 3000);
		}
		OK(gm_unpin(w->as, r.va, 8 * PAGE));
		gm_sim_sleep_ns(w->sim, 40000);
	}
	r.stop = true;
	join(w, t);
}
