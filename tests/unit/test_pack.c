/* SPDX-License-Identifier: MIT */
/* Blocks that nothing happens to: packed, looked at, opened again, with and without memory for it. */
#include "config.h"

#include "pack_fixture.h"

#include <gmem/policy.h>

static void map_all(struct world *w, uint64_t va, uint64_t bytes, uint32_t access)
{
	struct gm_ws_range range = { .va = va, .bytes = bytes, .access = access };
	struct gm_ws *ws;

	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
	OK(gm_ws_release(ws, NULL));
}

static struct gm_page_info *query(struct world *w, uint64_t va, size_t pages)
{
	struct gm_page_info *info = calloc(pages, sizeof(*info));

	OK(gm_query(w->as, va, pages, info));
	return info;
}

/* What a query says before and after, and that to ask does not open anything. */
static void same_when_packed(struct world *w, uint64_t va, unsigned blocks, uint64_t want)
{
	size_t pages = (size_t)blocks * GM_BLOCK_PAGES;
	struct gm_page_info *before = query(w, va, pages), *after;

	cr_assert_eq(packed(w), 0);
	rest(w);
	cr_assert_eq(packed(w), want);
	after = query(w, va, pages);
	for (size_t i = 0; i < pages; i++) {
		cr_assert_eq(after[i].place, before[i].place, "page %zu", i);
		cr_assert_eq(after[i].dev, before[i].dev, "page %zu", i);
		cr_assert_eq(after[i].flags, before[i].flags, "page %zu", i);
		cr_assert_eq(after[i].mapped_read, before[i].mapped_read, "page %zu", i);
		cr_assert_eq(after[i].mapped_write, before[i].mapped_write, "page %zu", i);
	}
	cr_assert_eq(packed(w), want, "to look opens nothing");
	world_check(w);
	free(before);
	free(after);
}

CORE_TEST(pack, whole_blocks, .dev = { BIG })
{
	uint64_t va = app_adopted(w, 8, 7);
	size_t before;

	OK(gm_migrate(w->as, va, 8 * BLOCK, w->dev[0], NULL));
	map_all(w, va, 8 * BLOCK, GM_WRITE);
	before = atomic_load(&w->fa.live_bytes);
	same_when_packed(w, va, 8, 8);
	cr_assert_lt(atomic_load(&w->fa.live_bytes) + 7 * sizeof(struct gm_block), before);
	cr_assert_eq(app_get(w, word_va(va, GM_BLOCK_PAGES + 5)), word(GM_BLOCK_PAGES + 5, 7));
	cr_assert_eq(packed(w), 7, "one was asked for");
	cr_assert_eq(dev_wrong(w->ctx[0], va, 8 * GM_BLOCK_PAGES, 7), 0);
	cr_assert_eq(app_wrong(w, va, 8 * GM_BLOCK_PAGES, 7), 0);
	cr_assert_eq(packed(w), 0);
}

/* Devices go on using what is packed, and what they wrote is not lost. */
CORE_TEST(pack, devices_do_not_notice, .dev = { BIG })
{
	uint64_t va = app_adopted(w, 2, 7);
	struct gm_stats stats;
	uint64_t faults;

	OK(gm_migrate(w->as, va, 2 * BLOCK, w->dev[0], NULL));
	map_all(w, va, 2 * BLOCK, RW);
	rest(w);
	cr_assert_eq(packed(w), 2);
	OK(gm_as_stats(w->as, &stats));
	faults = stats.dev_faults;
	dev_fill(w->ctx[0], va, 2 * GM_BLOCK_PAGES, 9);
	OK(gm_as_stats(w->as, &stats));
	cr_assert_eq(stats.dev_faults, faults, "all of it is mapped");
	cr_assert_eq(packed(w), 2);
	cr_assert_eq(app_wrong(w, va, 2 * GM_BLOCK_PAGES, 9), 0);
}

/* Every kind of page in one block, and frames by the unit. */
CORE_TEST(pack, mixed_blocks, .dev = { BIG })
{
	uint64_t va = app_adopted(w, 2, 7);

	OK(gm_migrate(w->as, va, 2 * BLOCK, w->dev[0], NULL));
	for (unsigned i = 0; i < 16; i++)
		OK(gm_migrate(w->as, va + 2 * i * UNIT + PAGE, PAGE, NULL, NULL));
	map_all(w, va + 2 * UNIT, PAGE, RW);
	map_all(w, va + 6 * UNIT, 3 * PAGE, GM_READ);
	OK(gm_discard(w->as, va + 9 * UNIT, 2 * PAGE));
	same_when_packed(w, va, 2, 2);
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(app_get(w, word_va(va, 9 * GM_UNIT_PAGES + i)), 0);
	OK(gm_migrate(w->as, va, 2 * BLOCK, NULL, NULL));
	for (unsigned i = 0; i < 2; i++)
		app_put(w, word_va(va, 9 * GM_UNIT_PAGES + i), word(9 * GM_UNIT_PAGES + i, 7));
	cr_assert_eq(app_wrong(w, va, 2 * GM_BLOCK_PAGES, 7), 0);
	cr_assert(dev_all_free(w->dev[0]));
}

/* Held, or used again and again: left as it is. */
CORE_TEST(pack, not_what_is_in_use, .dev = { BIG })
{
	uint64_t va = app_adopted(w, 2, 7);
	struct gm_ws_range range = { .va = va, .bytes = BLOCK, .access = GM_READ };
	struct gm_ws *ws;

	OK(gm_migrate(w->as, va, 2 * BLOCK, w->dev[0], NULL));
	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
	for (unsigned i = 0; i < 40; i++) {
		gm_sim_sleep_ns(w->sim, SECOND / 10);
		(void)app_get(w, word_va(va, GM_BLOCK_PAGES + i));
		OK(gm_migrate(w->as, va + BLOCK + i * PAGE, PAGE, w->dev[0], NULL));
		cr_assert_eq(packed(w), 0);
	}
	rest(w);
	cr_assert_eq(packed(w), 1, "the other");
	cr_assert(!w->as->pack.due_ns && !gm_pack_wants(w->as), "and nobody is woken for what is held");
	OK(gm_ws_release(ws, NULL));
	rest(w);
	cr_assert_eq(packed(w), 2);
}

/* An idle space wakes nobody: the clock would go on for ever, and the end of the world be late. */
CORE_TEST(pack, quiet_afterwards, .dev = { BIG })
{
	uint64_t va = app_adopted(w, 1, 7);

	OK(gm_migrate(w->as, va, BLOCK / 2, w->dev[0], NULL));
	rest(w);
	cr_assert_eq(packed(w), 1);
	cr_assert(!w->as->pack.due_ns && !gm_pack_wants(w->as));
}

CORE_TEST(pack, events_over_many, .dev = { BIG })
{
	uint64_t va = app_adopted(w, 24, 7);

	OK(gm_migrate(w->as, va, 24 * BLOCK, w->dev[0], NULL));
	rest(w);
	cr_assert_eq(packed(w), 24);
	OK(gm_sim_munmap(w->sim, va + BLOCK / 2, 11 * BLOCK));
	OK(gm_sim_dontneed(w->sim, va + 13 * BLOCK, 9 * BLOCK));
	rest(w);
	world_check(w);
	for (unsigned i = 0; i < 13 * GM_BLOCK_PAGES; i++)
		if (i < GM_BLOCK_PAGES / 2 || i >= 23 * GM_BLOCK_PAGES / 2)
			cr_assert_eq(app_get(w, word_va(va, i)), word(i, 7), "page %u", i);
	for (unsigned i = 13 * GM_BLOCK_PAGES; i < 22 * GM_BLOCK_PAGES; i++)
		cr_assert_eq(app_get(w, word_va(va, i)), 0, "page %u", i);
	for (unsigned i = 22 * GM_BLOCK_PAGES; i < 24 * GM_BLOCK_PAGES; i++)
		cr_assert_eq(app_get(w, word_va(va, i)), word(i, 7), "page %u", i);
	rest(w);
	cr_assert(dev_all_free(w->dev[0]));
}

/* The address is another's, the bytes follow. */
CORE_TEST(pack, mremap_of_many, .dev = { BIG })
{
	uint64_t va = app_adopted(w, 12, 7), to;

	OK(gm_migrate(w->as, va, 12 * BLOCK, w->dev[0], NULL));
	rest(w);
	cr_assert_eq(packed(w), 12);
	to = gm_sim_mremap(w->sim, va, 12 * BLOCK);
	cr_assert_neq(to, 0);
	cr_assert_eq(app_wrong(w, to, 12 * GM_BLOCK_PAGES, 7), 0);
	world_check(w);
}

/* A victim is found in either form. */
CORE_TEST(pack, victims, .dev = { "mock:vram=8M" })
{
	uint64_t va = app_adopted(w, 4, 7), more = app_adopted(w, 4, 8);

	OK(gm_migrate(w->as, va, 4 * BLOCK, w->dev[0], NULL));
	rest(w);
	cr_assert_eq(packed(w), 4);
	OK(gm_migrate(w->as, more, 3 * BLOCK, w->dev[0], NULL));
	cr_assert_eq(packed(w), 1);
	world_check(w);
	cr_assert_eq(app_wrong(w, va, 4 * GM_BLOCK_PAGES, 7), 0);
	cr_assert_eq(dev_wrong(w->ctx[0], more, 4 * GM_BLOCK_PAGES, 8), 0);
}

/* Another space makes room. */
CORE_TEST(pack, victims_of_another_space, .dev = { "mock:vram=4M" })
{
	struct gm_as_config config = { .size = sizeof(config) };
	uint64_t va = app_adopted(w, 2, 7), more = app_map_blocks(w, 2);
	struct gm_ctx *ctx;
	struct gm_as *as;

	OK(gm_migrate(w->as, va, 2 * BLOCK, w->dev[0], NULL));
	rest(w);
	cr_assert_eq(packed(w), 2);
	OK(gm_as_create(w->lib, 0, 0, &config, &as));
	OK(gm_as_attach(as, w->dev[0], GM_ATTACH_IDENTITY, NULL, &ctx));
	app_fill(w, more, 2 * GM_BLOCK_PAGES, 8);
	OK(gm_adopt(as, (void *)(uintptr_t)more, 2 * BLOCK, 0));
	OK(gm_migrate(as, more, 2 * BLOCK, w->dev[0], NULL));
	cr_assert_eq(packed(w), 0);
	cr_assert_eq(app_wrong(w, va, 2 * GM_BLOCK_PAGES, 7), 0);
	OK(gm_as_destroy(as));
	cr_assert_eq(app_wrong(w, more, 2 * GM_BLOCK_PAGES, 8), 0);
}

/* Who evicts, and sleeps with a packed victim in its hands. */
struct evictor {
	struct world *w;
	struct gm_as *as;
	uint64_t va;
	bool armed, asleep, awake;
	gm_ret_t ret;
};

static void sleep_once(void *arg)
{
	struct evictor *e = arg;

	if (!e->armed)
		return;
	e->armed = false;
	e->asleep = true;
	gm_sim_sleep_ns(e->w->sim, 20 * MS);
	e->awake = true;
}

static size_t victim(void *state, const struct gm_policy_victim *v, size_t n)
{
	struct evictor *e = state;

	(void)v;
	(void)n;
	e->armed = !e->asleep; /* the next allocation is that of who opens it */
	return 0;
}

static void evict(void *arg)
{
	struct evictor *e = arg;

	e->ret = gm_migrate(e->as, e->va, BLOCK, e->w->dev[0], NULL);
}

/* The victim's space ends meanwhile: it waits for who has it in its hands. */
CORE_TEST(pack, victim_of_a_space_that_ends, .dev = { "mock:vram=4M" })
{
	struct evictor e = { .w = w };
	struct gm_policy policy = { .size = sizeof(policy), .state = &e, .victim = victim };
	struct gm_as_config config = { .size = sizeof(config), .policy = &policy };
	uint64_t va = app_adopted(w, 2, 7);
	struct gm_thread *t;
	struct gm_ctx *ctx;

	e.va = app_map_blocks(w, 1);
	OK(gm_as_create(w->lib, 0, 0, &config, &e.as));
	OK(gm_as_attach(e.as, w->dev[0], GM_ATTACH_IDENTITY, NULL, &ctx));
	app_fill(w, e.va, GM_BLOCK_PAGES, 8);
	OK(gm_adopt(e.as, (void *)(uintptr_t)e.va, BLOCK, 0));
	OK(gm_migrate(w->as, va, 2 * BLOCK, w->dev[0], NULL));
	rest(w);
	cr_assert_eq(packed(w), 2);
	w->fa.on_arg = &e;
	w->fa.on_alloc = sleep_once;
	t = spawn(w, evict, &e);
	gm_sim_sleep_ns(w->sim, MS);
	cr_assert(e.asleep && !e.awake);
	OK(gm_as_destroy(w->as));
	w->as = NULL;
	cr_assert(e.awake, "not before");
	join(w, t);
	OK(e.ret);
	w->fa.on_alloc = NULL;
	cr_assert_eq(app_wrong(w, va, 2 * GM_BLOCK_PAGES, 7), 0);
	OK(gm_as_destroy(e.as));
}

struct access {
	struct world *w;
	uint64_t va, value;
};

static void touch(void *arg)
{
	struct access *a = arg;

	a->value = app_get(a->w, a->va);
}

/* To open what is packed takes no worker: accesses go on while it waits for a device. */
CORE_TEST(pack, accesses_while_the_worker_waits, .dev = { BIG, "mock:vram=64M,visible=no,copy=async,copyns=3000000000" })
{
	uint64_t va = app_adopted(w, 9, 7), slow = app_adopted(w, 1, 8), start_ns, worst_ns = 0;
	struct access slowly = { .w = w, .va = word_va(slow, 1) };
	struct gm_thread *t;

	OK(gm_migrate(w->as, va, 9 * BLOCK, w->dev[0], NULL));
	OK(gm_migrate(w->as, slow, BLOCK, w->dev[1], NULL));
	OK(dev_touch(w->ctx[1], word_va(slow, 0), true));
	gm_sim_sleep_ns(w->sim, 10 * SECOND);
	cr_assert_geq(packed(w), 9);
	t = spawn(w, touch, &slowly);
	gm_sim_sleep_ns(w->sim, SECOND / 10);
	for (unsigned i = 0; i < 9; i++) {
		start_ns = w->env->ops->now_ns(w->env);
		cr_assert_eq(app_get(w, word_va(va, i * GM_BLOCK_PAGES)), word(i * GM_BLOCK_PAGES, 7));
		if (w->env->ops->now_ns(w->env) - start_ns > worst_ns)
			worst_ns = w->env->ops->now_ns(w->env) - start_ns;
	}
	cr_assert_lt(worst_ns, MS);
	join(w, t);
	cr_assert_eq(slowly.value, word(1, 8));
}

/* ------------------------------------------------------- without memory */

/* Calls refuse, nothing is changed, and nothing is lost. */
CORE_TEST(pack, calls_without_memory, .dev = { BIG })
{
	uint64_t va = app_adopted(w, 8, 7);

	OK(gm_migrate(w->as, va, 8 * BLOCK, w->dev[0], NULL));
	rest(w);
	cr_assert_eq(packed(w), 8);
	atomic_store(&w->fa.fail_all, true);
	IS(gm_migrate(w->as, va, 8 * BLOCK, NULL, NULL), GM_RET_NOMEM);
	IS(gm_release(w->as, (void *)(uintptr_t)va, 8 * BLOCK), GM_RET_NOMEM);
	IS(gm_discard(w->as, va, 8 * BLOCK), GM_RET_NOMEM);
	cr_assert_gt(packed(w), 0);
	world_check(w);
	atomic_store(&w->fa.fail_all, false);
	cr_assert_eq(app_wrong(w, va, 8 * GM_BLOCK_PAGES, 7), 0);
}

struct later {
	struct world *w;
	uint64_t done_ns;
};

static void give_memory(void *arg)
{
	struct later *l = arg;

	gm_sim_sleep_ns(l->w->sim, 20 * MS);
	l->done_ns = l->w->env->ops->now_ns(l->w->env);
	atomic_store(&l->w->fa.fail_all, false);
}

/* Accesses of the CPU wait for it, those to what is packed; the clock goes on. */
CORE_TEST(pack, accesses_without_memory, .dev = { BIG })
{
	uint64_t va = app_adopted(w, 3, 7);
	struct later l = { .w = w };
	struct gm_thread *t;

	OK(gm_migrate(w->as, va, 3 * BLOCK, w->dev[0], NULL));
	rest(w);
	(void)app_get(w, va);
	cr_assert_eq(packed(w), 2);
	t = spawn(w, give_memory, &l);
	atomic_store(&w->fa.fail_all, true);
	cr_assert_eq(app_get(w, word_va(va, 100)), word(100, 7));
	cr_assert_eq(l.done_ns, 0, "that one is open");
	cr_assert_eq(app_get(w, word_va(va, GM_BLOCK_PAGES)), word(GM_BLOCK_PAGES, 7));
	cr_assert_gt(l.done_ns, 0);
	join(w, t);
	cr_assert_gt(atomic_load(&w->fa.failed), 0);
	cr_assert_lt(atomic_load(&w->fa.failed), 100, "tried now and then, not all the time");
	cr_assert_eq(app_wrong(w, va, 3 * GM_BLOCK_PAGES, 7), 0);
}

/* Detaching fails at its deadline, and the context is as before. */
CORE_TEST(pack, detach_without_memory, .dev = { BIG }, .as = { .wait_ns = 5 * MS })
{
	uint64_t va = app_adopted(w, 2, 7);
	struct later l = { .w = w };
	struct gm_thread *t;

	OK(gm_migrate(w->as, va, 2 * BLOCK, w->dev[0], NULL));
	rest(w);
	cr_assert_eq(packed(w), 2);
	t = spawn(w, give_memory, &l);
	atomic_store(&w->fa.fail_all, true);
	IS(gm_as_detach(w->ctx[0]), GM_RET_NOMEM);
	IS(gm_as_destroy(w->as), GM_RET_NOMEM);
	cr_assert_eq(l.done_ns, 0, "before there is memory");
	join(w, t);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 2 * GM_BLOCK_PAGES, 7), 0);
}

/* An event waits for memory; nothing of what it gave up is seen again. */
CORE_TEST(pack, events_without_memory, .dev = { BIG })
{
	uint64_t va = app_adopted(w, 12, 7);
	struct later l = { .w = w };
	struct gm_thread *t;

	OK(gm_migrate(w->as, va, 12 * BLOCK, w->dev[0], NULL));
	rest(w);
	t = spawn(w, give_memory, &l);
	atomic_store(&w->fa.fail_all, true);
	OK(gm_sim_dontneed(w->sim, va, 10 * BLOCK));
	for (unsigned i = 0; i < 12; i++)
		cr_assert_eq(app_get(w, word_va(va, i * GM_BLOCK_PAGES)), i < 10 ? 0 : word(i * GM_BLOCK_PAGES, 7));
	cr_assert_gt(l.done_ns, 0);
	join(w, t);
}

/* There is none for the packed form: the blocks stay as they are, until there is. */
CORE_TEST(pack, no_memory_to_pack, .dev = { BIG })
{
	uint64_t va = app_adopted(w, 3, 7);

	OK(gm_migrate(w->as, va, 3 * BLOCK, w->dev[0], NULL));
	atomic_store(&w->fa.fail_all, true);
	rest(w);
	cr_assert_eq(packed(w), 0);
	cr_assert_gt(atomic_load(&w->fa.failed), 0);
	atomic_store(&w->fa.fail_all, false);
	rest(w);
	cr_assert_eq(packed(w), 3);
	cr_assert_eq(app_wrong(w, va, 3 * GM_BLOCK_PAGES, 7), 0);
}

/* Without own threads whoever serves does it. */
CORE_TEST(pack, without_threads, .dev = { BIG }, .as = { .flags = GM_AS_NO_THREADS })
{
	uint64_t va = app_adopted(w, 2, 7);

	OK(gm_migrate(w->as, va, 2 * BLOCK, w->dev[0], NULL));
	for (unsigned i = 0; i < 4; i++)
		(void)gm_as_serve(w->as, SECOND);
	cr_assert_eq(packed(w), 2);
	OK(gm_migrate(w->as, va, 2 * BLOCK, NULL, NULL));
	cr_assert_eq(app_wrong(w, va, 2 * GM_BLOCK_PAGES, 7), 0);
}

/* Everything home, what is packed included. */
CORE_TEST(pack, everything_home, .dev = { BIG })
{
	uint64_t va = app_adopted(w, 3, 7), left = 1;

	dev_fill(w->ctx[0], va, 3 * GM_BLOCK_PAGES, 8);
	rest(w);
	cr_assert_eq(packed(w), 3);
	OK(gm_as_home(w->as, SECOND, &left));
	cr_assert_eq(left, 0);
	cr_assert_eq(pages_in(w, va, 3 * GM_BLOCK_PAGES, GM_PLACE_HOST), 3 * GM_BLOCK_PAGES);
	cr_assert_eq(app_wrong(w, va, 3 * GM_BLOCK_PAGES, 8), 0);
}

CORE_TEST(pack, everything_home_without_threads, .dev = { "mock:vram=64M,faults=no" }, .as = { .flags = GM_AS_NO_THREADS })
{
	uint64_t va = app_adopted(w, 3, 7), left = 1;

	OK(gm_migrate(w->as, va, 3 * BLOCK, w->dev[0], NULL));
	for (unsigned i = 0; i < 4; i++)
		(void)gm_as_serve(w->as, SECOND);
	cr_assert_eq(packed(w), 3);
	OK(gm_as_home(w->as, SECOND, &left));
	cr_assert_eq(left, 0);
	cr_assert_eq(app_wrong(w, va, 3 * GM_BLOCK_PAGES, 7), 0);
}

/* The worker brings moved memory to a place that is packed: it does not keep the handler from reading until there is memory. */
CORE_TEST(pack, remap_target_without_memory, .dev = { BIG })
{
	uint64_t t = app_map_blocks(w, 1), va, other, to;
	struct later l = { .w = w };
	struct gm_thread *th;

	app_fill(w, t, GM_BLOCK_PAGES, 3);
	va = app_adopted(w, 2, 7);
	other = app_adopted(w, 1, 9);
	OK(gm_adopt(w->as, (void *)(uintptr_t)(t + BLOCK / 2), BLOCK / 2, 0));
	OK(gm_migrate(w->as, t + BLOCK / 2, BLOCK / 2, w->dev[0], NULL));
	OK(gm_sim_munmap(w->sim, t, BLOCK / 2));
	OK(gm_migrate(w->as, va, 2 * BLOCK, w->dev[0], NULL));
	OK(gm_migrate(w->as, other, BLOCK, w->dev[0], NULL));
	rest(w);
	cr_assert_eq(packed(w), 4);
	(void)app_get(w, word_va(other, 0));
	(void)app_get(w, word_va(va, 0));
	gm_sim_sleep_ns(w->sim, 100 * MS);
	th = spawn(w, give_memory, &l);
	atomic_store(&w->fa.fail_all, true);
	to = gm_sim_mremap(w->sim, va + BLOCK / 2, UNIT);
	cr_assert_eq(to / BLOCK, t / BLOCK);
	gm_sim_sleep_ns(w->sim, 5 * MS);
	cr_assert_eq(app_get(w, word_va(other, 64)), word(64, 9));
	cr_assert_eq(l.done_ns, 0, "what is open needs none");
	join(w, th);
	cr_assert_eq(app_get(w, to + word_va(0, GM_BLOCK_PAGES / 2) - BLOCK / 2), word(GM_BLOCK_PAGES / 2, 7));
}
