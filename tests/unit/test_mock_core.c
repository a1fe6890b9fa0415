/* SPDX-License-Identifier: MIT */
/* The library on mocks of every shape, and what it makes of the failures that a script brings. In the simulation. */
#include "config.h"

#include "core_fixture.h"

#define PAGES (2 * (uint64_t)GM_BLOCK_PAGES)

/* ------------------------------------------------------------- visibility */

/* The device writes everything, the CPU reads it: what it sees directly, and what it does not. */
static void there_and_back(struct world *w)
{
	uint64_t va = app_adopted(w, 2, 1);

	for (unsigned salt = 2; salt < 5; salt++) {
		dev_fill(w->ctx[0], va, PAGES, salt);
		cr_assert_gt(pages_in(w, va, PAGES, GM_PLACE_DEVICE), 100);
		cr_assert_eq(app_wrong(w, va, PAGES, salt), 0);
		app_fill(w, va, PAGES, salt + 10);
		cr_assert_eq(dev_wrong(w->ctx[0], va, PAGES, salt + 10), 0);
		OK(gm_migrate(w->as, va, PAGES * PAGE, NULL, NULL));
		cr_assert_eq(app_wrong(w, va, PAGES, salt + 10), 0);
		world_check(w);
	}
}

/* What it says is its memory has the bytes of what moved there. */
CORE_TEST(mock_core, memory_is_where_it_says, .dev = { "mock:vram=4M" })
{
	uint64_t va = app_adopted(w, 1, 3), bytes, want = word(5, 3);
	void *memory;

	OK(gm_mock_memory(w->dev[0], &memory, &bytes));
	cr_assert_eq(bytes, 4 << 20);
	cr_assert_null(memmem(memory, bytes, &want, sizeof(want)));
	OK(gm_migrate(w->as, va, UNIT, w->dev[0], NULL));
	cr_assert_not_null(memmem(memory, bytes, &want, sizeof(want)));
}

CORE_TEST(mock_core, visible_in_part, .dev = { "mock:vram=8M,visible=1M" })
{
	there_and_back(w);
	cr_assert_gt(stats_of(w).cpu_faults_inline, 0, "nothing was seen directly");
	cr_assert_gt(stats_of(w).cpu_faults, stats_of(w).cpu_faults_inline, "everything was seen directly");
}

CORE_TEST(mock_core, visible_in_part_exclusive, .dev = { "mock:vram=8M,visible=1M" }, .as = { .flags = GM_AS_EXCLUSIVE })
{
	there_and_back(w);
	cr_assert_gt(stats_of(w).cpu_faults_inline, 0, "nothing was seen directly");
	cr_assert_gt(stats_of(w).cpu_faults, stats_of(w).cpu_faults_inline, "everything was seen directly");
}

/* The border lies inside of a unit, of a block, of a frame of 2 MiB. */
CORE_TEST(mock_core, visible_border, .dev = { "mock:vram=4M,visible=2076K" }, .as = { .flags = GM_AS_EXCLUSIVE })
{
	there_and_back(w);
}

CORE_TEST(mock_core, visible_in_part_evicting, .dev = { "mock:vram=1M,visible=512K" }, .as = { .flags = GM_AS_EXCLUSIVE })
{
	there_and_back(w);
	cr_assert_gt(stats_of(w).evictions, 0);
}

/* Every preset that can be reached by pointers of the process. */
Test(mock_core, presets)
{
	static char spec[100];
	const char *name;

	for (unsigned i = 0; gm_mock_preset(i, &name, NULL, NULL) == GM_RET_SUCCESS; i++) {
		struct gm_mock_config config;
		struct world_config world = { .dev = { spec } };

		(void)snprintf(spec, sizeof(spec), "preset=%s,vram=8M", name);
		cr_assert_eq(gm_mock_parse(spec, &config), GM_RET_SUCCESS);
		if (config.no_faults) /* needs working sets: not this program */
			continue;
		(void)snprintf(spec, sizeof(spec), "mock:preset=%s,vram=8M", name);
		world_run(&world, there_and_back);
	}
}

/* -------------------------------------------------------------- the plans */

/* One unit to the device and home again is exactly this, whether as a message or step by step. */
static void exact_steps(struct world *w)
{
	uint64_t va = app_adopted(w, 1, 1);
	char why[300] = "";
	gm_ret_t ret;

	OK(gm_mock_expect(w->dev[0], "copy to-dev 64K"));
	OK(gm_migrate(w->as, va, UNIT, w->dev[0], NULL));
	ret = gm_mock_expect_end(w->dev[0], why, sizeof(why));
	cr_assert_eq(ret, GM_RET_SUCCESS, "%s", why);

	OK(gm_mock_expect(w->dev[0], "enter 4K ro local; remove 4K; invl 4K"));
	OK(dev_touch(w->ctx[0], va, false));
	OK(gm_migrate(w->as, va, UNIT, NULL, NULL)); /* nobody wrote: no copy */
	ret = gm_mock_expect_end(w->dev[0], why, sizeof(why));
	cr_assert_neq(ret, GM_RET_NOENT);
	if (ret) /* how much a fault maps is the policy's choice */
		cr_assert_not_null(strstr(why, "enter"), "%s", why);

	OK(gm_migrate(w->as, va, UNIT, w->dev[0], NULL));
	OK(dev_touch(w->ctx[0], va, true));
	OK(gm_mock_expect(w->dev[0], "remove; invl; copy to-host; ..."));
	OK(gm_migrate(w->as, va, UNIT, NULL, NULL));
	ret = gm_mock_expect_end(w->dev[0], why, sizeof(why));
	cr_assert_eq(ret, GM_RET_SUCCESS, "%s", why);
}

CORE_TEST(mock_core, steps_in_a_message, .dev = { "mock:vram=4M" })
{
	exact_steps(w);
}

CORE_TEST(mock_core, steps_one_by_one, .dev = { "mock:vram=4M,submit=no" })
{
	exact_steps(w);
}

/* ----------------------------------------------------------- modelled time */

static struct gm_mock_stats figures[2];

static void modelled(struct world *w)
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_mock_stats s;
	static unsigned turn;

	OK(gm_mock_stats(w->dev[0], &s));
	OK(gm_migrate(w->as, va, UNIT, w->dev[0], NULL));
	OK(gm_mock_stats(w->dev[0], &figures[turn]));
	/* 64 KiB at 1 GB/s, 1000 ns, one call. */
	cr_assert_eq(figures[turn].modelled_ns - s.modelled_ns, 65536 + 1000 + 10);
	dev_fill(w->ctx[0], va, 200, 2);
	cr_assert_eq(app_wrong(w, va, 200, 2), 0);
	OK(gm_mock_stats(w->dev[0], &figures[turn]));
	cr_assert_gt(figures[turn].fault_ns, 0);
	turn++;
}

Test(mock_core, modelled_time_repeats)
{
	static const struct world_config config = {
		.dev = { "mock:vram=4M,engines=2,todev=1000000000,tohost=1000000000,latency=1000,opns=10,faultns=5000,missns=40" }
	};

	world_run(&config, modelled);
	world_run(&config, modelled);
	cr_assert_arr_eq(&figures[0], &figures[1], sizeof(figures[0]));
}

/* With timing=wait the virtual clock shows it. */
CORE_TEST(mock_core, waited_time, .dev = { "mock:vram=4M,timing=wait,todev=1000000000,latency=1000" })
{
	uint64_t va = app_adopted(w, 1, 1), begin = gm_now_ns(w->env);

	OK(gm_migrate(w->as, va, UNIT, w->dev[0], NULL));
	cr_assert_geq(gm_now_ns(w->env) - begin, 65536 + 1000);
}

/* ---------------------------------------------------------------- failures */

/* The CPU's access: its result, after whatever the library does about it. */
static gm_ret_t app_try(struct world *w, uint64_t va, uint64_t *value)
{
	return gm_sim_load(w->sim, va, value, sizeof(*value));
}

/*
 * A lost device: what was only there is gone, loudly and for ever; what the host has too, or has back, is right.
 */
static void lose(struct world *w)
{
	uint64_t va = app_adopted(w, 1, 1), value, right = 0, failed = 0;
	struct dev_job job = { .va = va, .pages = 1, .write = true };

	OK(gm_migrate(w->as, va, 2 * UNIT, w->dev[0], NULL));
	dev_fill(w->ctx[0], va, 16, 2);
	OK(gm_mock_lose(w->dev[0]));
	IS(dev_run(w->ctx[0], &job), GM_RET_NODEV);
	for (uint64_t i = 0; i < GM_BLOCK_PAGES; i++) {
		gm_ret_t ret = app_try(w, word_va(va, i), &value);

		failed += ret != GM_RET_SUCCESS;
		right += ret == GM_RET_SUCCESS && value == word(i, 1);
		if (i < 16)
			cr_assert_neq(ret, GM_RET_SUCCESS, "page %u reads %llx", (unsigned)i, (unsigned long long)value);
	}
	cr_assert_eq(right + failed, GM_BLOCK_PAGES, "something reads wrong");
	cr_assert_geq(right, GM_BLOCK_PAGES - 32);
	cr_assert_eq(page_info(w, va).place, GM_PLACE_POISONED);
	cr_assert_neq(app_try(w, va, &value), GM_RET_SUCCESS, "it heals by itself");
	cr_assert_neq(gm_migrate(w->as, va + 8 * UNIT, UNIT, w->dev[0], NULL), GM_RET_SUCCESS);
	cr_assert_eq(app_wrong(w, va + 32 * PAGE, 1, 0), 1);
	w->errors = 0;
}

CORE_TEST(mock_core, lose_inclusive, .dev = { "mock:vram=4M" })
{
	lose(w);
}

CORE_TEST(mock_core, lose_exclusive, .dev = { "mock:vram=4M" }, .as = { .flags = GM_AS_EXCLUSIVE })
{
	lose(w);
}

CORE_TEST(mock_core, lose_blind, .dev = { "mock:vram=4M,visible=no,engines=2" })
{
	lose(w);
}

/* A kernel that waits for its fault when the device goes. */
static void lose_later(void *arg)
{
	struct world *w = arg;

	gm_sim_sleep_ns(w->sim, 500);
	OK(gm_mock_lose(w->dev[0]));
}

CORE_TEST(mock_core, lose_while_faulting, .dev = { "mock:vram=4M,timing=wait,todev=1M" })
{
	uint64_t va = app_adopted(w, 1, 1);
	struct dev_job job = { .va = va, .pages = 100, .salt = 1 };
	struct gm_thread *t = spawn(w, lose_later, w);

	IS(dev_run(w->ctx[0], &job), GM_RET_NODEV);
	join(w, t);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0, "nothing was written there: nothing is lost");
}

/* A broken page that only the device has: that page fails at its bound, the bytes around it come home. */
static void bad_page(struct world *w)
{
	uint64_t va = app_adopted(w, 1, 1), value, wrong = 0;
	const struct gm_block *b;
	struct gm_frame_map map;

	OK(gm_migrate(w->as, va, UNIT, w->dev[0], NULL));
	dev_fill(w->ctx[0], va, GM_UNIT_PAGES, 2);
	b = gm_block_find(w->as, va);
	gm_lock(w->env, &((struct gm_block *)(uintptr_t)b)->lock);
	gm_block_frames(b, w->dev[0]->index, &map);
	gm_unlock(w->env, &((struct gm_block *)(uintptr_t)b)->lock);
	gm_block_put((struct gm_block *)(uintptr_t)b);
	OK(gm_mock_bad_page(w->dev[0], gm_frame_pa(&map, 5)));
	for (uint64_t i = 0; i < GM_UNIT_PAGES; i++) {
		gm_ret_t ret = app_try(w, word_va(va, i), &value);

		if (i == 5)
			cr_assert_neq(ret, GM_RET_SUCCESS, "it reads %llx", (unsigned long long)value);
		else
			wrong += ret != GM_RET_SUCCESS || value != word(i, 2);
	}
	cr_assert_eq(wrong, 0, "%u neighbours are lost with it", (unsigned)wrong);
	IS(gm_migrate(w->as, va, BLOCK, NULL, NULL), GM_RET_IO); /* nothing is given up silently */
	OK(gm_sim_dontneed(w->sim, va + 5 * PAGE, PAGE));  /* but on request */
	OK(gm_release(w->as, ptr(va), BLOCK));
	cr_assert_eq(app_get(w, va + 5 * PAGE), 0);
	w->errors = 0;
}

CORE_TEST(mock_core, bad_page_inclusive, .dev = { "mock:vram=4M" }, .as = { .wait_ns = SECOND })
{
	bad_page(w);
}

CORE_TEST(mock_core, bad_page_exclusive, .dev = { "mock:vram=4M" }, .as = { .flags = GM_AS_EXCLUSIVE, .wait_ns = SECOND })
{
	bad_page(w);
}

CORE_TEST(mock_core, bad_page_blind, .dev = { "mock:vram=4M,visible=no" }, .as = { .wait_ns = SECOND })
{
	bad_page(w);
}

/* An engine that hangs: the device is given up within the bound, and what the host had it has again. */
static void hang(struct world *w)
{
	struct gm_mock_rule rule = { .size = sizeof(rule), .op = GM_MOCK_COPY, .nth = 2, .count = 1, .hang = true };
	uint64_t va = app_adopted(w, 2, 1);
	gm_ret_t ret;

	OK(gm_mock_rule_add(w->dev[0], &rule));
	ret = gm_migrate(w->as, va, UNIT, w->dev[0], NULL);
	cr_assert_eq(ret, GM_RET_SUCCESS);
	ret = gm_migrate(w->as, va + BLOCK, UNIT, w->dev[0], NULL);
	cr_assert(ret == GM_RET_TIMEDOUT || ret == GM_RET_NODEV, "%s", gm_ret_name(ret));
	/* Nothing was written on the device: all of it is as it was. */
	cr_assert_eq(app_wrong(w, va, PAGES, 1), 0);
	IS(gm_migrate(w->as, va + BLOCK, UNIT, w->dev[0], NULL), GM_RET_NODEV);
	cr_assert_gt(w->errors, 0, "nobody was told");
	w->errors = 0;
}

CORE_TEST(mock_core, hang_sync, .dev = { "mock:vram=4M" })
{
	hang(w);
}

CORE_TEST(mock_core, hang_async, .dev = { "mock:vram=4M,engines=2,submit=no" })
{
	hang(w);
}

/* Slow is not lost. */
CORE_TEST(mock_core, slow, .dev = { "mock:vram=4M,copy=async" })
{
	struct gm_mock_rule rule = { .size = sizeof(rule), .op = GM_MOCK_COPY, .nth = 1, .count = UINT64_MAX,
				     .delay_ns = 5 * MS };
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_mock_rule_add(w->dev[0], &rule));
	dev_fill(w->ctx[0], va, 64, 2);
	cr_assert_eq(app_wrong(w, va, 64, 2), 0);
	cr_assert_eq(w->errors, 0);
}
