/* SPDX-License-Identifier: MIT */
/*
 * Duplicated pages and everything else that happens to memory: what the process does to it, what a caller asks for,
 * devices that go, failures; and races, in which nobody may see old bytes.
 *
 * Old means: the process's store is done (the call has returned) before the device's load begins.
 */
#include "config.h"

#include "dup_fixture.h"

/* --------------------------------------------------------- the process */

CORE_TEST(dup_events, dontneed, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1);

	duplicate(w, va, 32, 0);
	duplicate(w, va, 32, 1);
	OK(gm_sim_dontneed(w->sim, va + 4 * PAGE, 8 * PAGE));
	OK(gm_dev_fault(w->ctx[1], va + 4 * PAGE, GM_READ));
	for (unsigned i = 4; i < 12; i++)
		cr_assert_eq(app_get(w, word_va(va, i)), 0);
	world_check(w);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(dev_wrong(w->ctx[i], va, 32, 1), 8);
		cr_assert_eq(dev_wrong(w->ctx[i], va, 4, 1), 0);
	}
	app_fill(w, va, 32, 2);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 32, 2), 0);
}

CORE_TEST(dup_events, munmap_and_reuse, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1);

	duplicate(w, va, 32, 0);
	OK(gm_sim_munmap(w->sim, va, 16 * PAGE));
	cr_assert_eq(gm_sim_mmap_at(w->sim, va, 16 * PAGE, RW), va);
	app_fill(w, va, 16, 9);
	OK(gm_adopt(w->as, ptr(va), 16 * PAGE, 0));
	cr_assert_eq(dups(w, va, 32), 16);
	world_check(w);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 16, 9), 0);
	app_fill(w, va, 16, 8); /* of a mapping that is watched anew */
	cr_assert_eq(dev_wrong(w->ctx[0], va, 16, 8), 0);
	duplicate(w, va, 16, 0);
	app_fill(w, va, 16, 7);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 16, 7), 0);
}

/* The kernel takes the protection along, and nobody has a duplicate there: the store must go on all the same. */
CORE_TEST(dup_events, mremap, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), to;

	duplicate(w, va, 32, 0);
	to = gm_sim_mremap(w->sim, va, 16 * PAGE);
	cr_assert_neq(to, 0);
	cr_assert_eq(app_wrong(w, to, 16, 1), 0);
	app_fill(w, to, 8, 2);
	cr_assert_eq(app_wrong(w, to, 8, 2), 0);
	IS(dev_touch(w->ctx[0], va, false), GM_RET_FAULT);
	OK(gm_dev_fault(w->ctx[0], to, GM_WRITE));
	dev_fill(w->ctx[0], to, 16, 3);
	cr_assert_eq(app_wrong(w, to, 16, 3), 0);
	cr_assert_eq(dups(w, va + 16 * PAGE, 16), 16);
	world_check(w);
}

/* Protected still, locked, and a device stores in place: over the bus nobody would wait for it. */
CORE_TEST(dup_events, in_place_after_mremap, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), to;

	duplicate(w, va, 16, 0);
	to = gm_sim_mremap(w->sim, va, 16 * PAGE);
	OK(gm_sim_mlock(w->sim, to, 16 * PAGE, true));
	OK(gm_dev_fault(w->ctx[0], to, GM_WRITE));
	cr_assert_eq(page_info(w, to).place, GM_PLACE_HOST);
	dev_fill(w->ctx[0], to, 16, 3);
	cr_assert_eq(app_wrong(w, to, 16, 3), 0);
	OK(gm_discard(w->as, to, 16 * PAGE));
	cr_assert_eq(app_get(w, word_va(to, 3)), 0);
}

/* Locked after it was duplicated: a device that stores to it does so in place, and no duplicate is left. */
CORE_TEST(dup_events, locked_later, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1);

	duplicate(w, va, 16, 0);
	OK(gm_sim_mlock(w->sim, va, 16 * PAGE, true));
	cr_assert_eq(dev_wrong(w->ctx[1], va, 16, 1), 0, "a reader gets one all the same");
	cr_assert_eq(dups(w, va, 16), 16);
	dev_fill(w->ctx[0], va, 16, 2);
	world_check(w);
	cr_assert_eq(page_info(w, va).place, GM_PLACE_HOST);
	cr_assert_eq(app_wrong(w, va, 16, 2), 0);
	cr_assert_eq(dev_wrong(w->ctx[1], va, 16, 2), 0);
	app_fill(w, va, 16, 3);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 16, 3), 0);
	cr_assert_eq(dups(w, va, 16), 0);
}

CORE_TEST(dup_events, fork, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), value = 0;

	duplicate(w, va, 32, 0);
	OK(gm_sim_fork_snapshot(w->sim, word_va(va, 7), &value, 8));
	cr_assert_eq(value, word(7, 1), "the child has it");
	cr_assert_eq(dups(w, va, 32), 32, "and nothing had to come home");
	app_put(w, word_va(va, 7), 5);
	cr_assert_eq(app_get(w, word_va(va, 7)), 5);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 32, 1), 1);
}

CORE_TEST(dup_events, mprotect, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), bytes = 0;

	duplicate(w, va, 16, 0);
	OK(gm_sim_mprotect(w->sim, va, 16 * PAGE, GM_READ));
	cr_assert_eq(dev_wrong(w->ctx[1], va, 16, 1), 0);
	IS(dev_touch(w->ctx[0], va, true), GM_RET_PERM);
	cr_assert_eq(dups(w, va, 16), 16);
	OK(gm_sim_mprotect(w->sim, va, 16 * PAGE, RW));
	app_fill(w, va, 16, 2);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 16, 2), 0);
	OK(gm_migrate(w->as, va, 16 * PAGE, NULL, NULL));
	OK(gm_sim_mprotect(w->sim, va, 16 * PAGE, GM_READ));
	IS(gm_duplicate(w->as, va, 16 * PAGE, w->dev[0], &bytes), GM_RET_BUSY); /* the kernel does not give it */
	cr_assert_eq(bytes, 0);
}

/* ----------------------------------------------------------- the caller */

CORE_TEST(dup_events, migrate, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), moved = 0, copied;

	duplicate(w, va, 32, 0);
	duplicate(w, va, 32, 1);
	OK(gm_migrate(w->as, va, 16 * PAGE, NULL, &moved));
	cr_assert_eq(moved, 16 * PAGE);
	cr_assert_eq(dups(w, va, 32), 16);
	copied = stats_of(w).bytes_to_dev;
	OK(gm_migrate(w->as, va, 32 * PAGE, w->dev[1], &moved));
	cr_assert_eq(moved, 32 * PAGE);
	cr_assert_eq(stats_of(w).bytes_to_dev, copied + 16 * PAGE, "16 were there already");
	cr_assert_eq(dups(w, va, 32), 0);
	world_check(w);
	app_fill(w, va + 16 * PAGE, 4, 0);
	cr_assert_eq(dev_wrong(w->ctx[1], va, 16, 1), 0);
}

CORE_TEST(dup_events, release_and_adopt, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1);

	duplicate(w, va, 32, 0);
	duplicate(w, va, 32, 1);
	OK(gm_release(w->as, ptr(va), BLOCK));
	cr_assert(dev_all_free(w->dev[0]) && dev_all_free(w->dev[1]));
	app_fill(w, va, 32, 2); /* nobody is there to be asked */
	OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
	cr_assert_eq(dev_wrong(w->ctx[0], va, 32, 2), 0);
}

CORE_TEST(dup_events, discard_and_free, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1);
	void *p;

	duplicate(w, va, 32, 0);
	OK(gm_sim_mlock(w->sim, va + 2 * PAGE, PAGE, true)); /* cannot be taken, and is overwritten */
	OK(gm_discard(w->as, va, 16 * PAGE));
	cr_assert_eq(dups(w, va, 32), 16);
	for (unsigned i = 0; i < 16; i++)
		cr_assert_eq(app_get(w, word_va(va, i)), 0);
	OK(gm_alloc(w->as, BLOCK, 0, &p));
	app_fill(w, GM_VA(p), 32, 4);
	duplicate(w, GM_VA(p), 32, 0);
	OK(gm_free(w->as, p));
	OK(gm_release(w->as, ptr(va), BLOCK));
	cr_assert(dev_all_free(w->dev[0]));
}

CORE_TEST(dup_events, detach, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1);

	duplicate(w, va, 32, 0);
	duplicate(w, va, 16, 1);
	OK(gm_as_detach(w->ctx[0]));
	w->ctx[0] = NULL;
	cr_assert(dev_all_free(w->dev[0]));
	cr_assert_eq(dups(w, va, 32), 16);
	cr_assert_eq(page_info(w, va).mapped_read, 2);
	world_check(w);
	app_fill(w, va, 32, 2); /* the other half is not protected any more */
	cr_assert_eq(stats_of(w).dups_ended, 16);
	cr_assert_eq(dev_wrong(w->ctx[1], va, 16, 2), 0);
}

/* Duplicated when the space ends (the fixture sees that nothing is left). */
CORE_TEST(dup_events, destroy, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 2, 1);

	duplicate(w, va + 100 * PAGE, 500, 0);
	duplicate(w, va + 90 * PAGE, 32, 1);
}

/* A lost device takes nothing with it that the process has as well. */
CORE_TEST(dup_events, lost_device, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1);

	duplicate(w, va, 32, 0);
	duplicate(w, va, 32, 1);
	OK(gm_mock_lose(w->dev[0]));
	cr_assert_eq(app_wrong(w, va, 32, 1), 0);
	cr_assert_eq(dev_wrong(w->ctx[1], va, 32, 1), 0);
	app_fill(w, va, 32, 2);
	cr_assert_eq(app_wrong(w, va, 32, 2), 0);
	cr_assert_eq(pages_in(w, va, 32, GM_PLACE_POISONED), 0);
	world_check(w);
	OK(gm_as_detach(w->ctx[0]));
	w->ctx[0] = NULL;
}

/* ------------------------------------------- whoever serves is the caller */

struct served {
	struct world *w;
	uint64_t va;
	bool done;
};

static void stores(void *arg)
{
	struct served *s = arg;
	struct world *w = s->w;

	for (uint64_t round = 2; round < 5; round++) {
		OK(gm_duplicate(w->as, s->va, 32 * PAGE, w->dev[0], NULL));
		cr_assert_eq(dev_wrong(w->ctx[1], s->va, 32, round - 1), 0);
		app_fill(w, s->va, 32, round);
		cr_assert_eq(dev_wrong(w->ctx[0], s->va, 32, round), 0);
	}
	s->done = true;
}

CORE_TEST(dup_events, served_by_the_caller, .dev = { "mock:vram=1M,fastinvl=no", "mock:vram=1M" },
	  .as = { .flags = GM_AS_NO_THREADS })
{
	struct served s = { .w = w, .va = app_adopted(w, 1, 1) };
	struct gm_thread *t = spawn(w, stores, &s);

	while (!s.done)
		(void)gm_as_serve(w->as, 10 * MS);
	join(w, t);
	world_check(w);
}

/* ---------------------------------------------------------------- races */

#define PAGES 4u

/* One writes, in order; others look. `done`: the value whose store has returned. */
struct race {
	struct world *w;
	uint64_t va;
	atomic_uint_least64_t done;
	atomic_bool stop;
	uint64_t rounds, old, torn, back, ended;
};

static void writer(void *arg)
{
	struct race *r = arg;

	for (uint64_t n = 1; n <= r->rounds; n++) {
		for (unsigned i = 0; i < PAGES; i++)
			app_put(r->w, r->va + i * PAGE + 8 * (n % 2), n);
		atomic_store(&r->done, n);
		if (n % 3 == 0)
			gm_sim_sleep_ns(r->w->sim, gm_sim_random(r->w->sim, 3 * MS));
	}
	atomic_store(&r->stop, true);
}

/* Of each page the newer of two words: never older than what was done before the look, never less than the last time. */
static gm_ret_t reader(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct race *r = arg;
	uint64_t last[PAGES] = { 0 };
	gm_ret_t ret = GM_RET_SUCCESS;

	(void)index;
	while (!atomic_load(&r->stop) && !ret) {
		for (unsigned i = 0; i < PAGES && !ret; i++) {
			uint64_t done = atomic_load(&r->done), word[2] = { 0, 0 }, seen;

			ret = gm_mock_load(t, r->va + i * PAGE, word, sizeof(word));
			seen = word[0] > word[1] ? word[0] : word[1];
			r->old += seen < done;
			r->back += seen < last[i];
			last[i] = seen;
		}
		gm_mock_yield(t);
	}
	return ret;
}

static void again(void *arg)
{
	struct race *r = arg;

	for (unsigned i = 0; !atomic_load(&r->stop); i++) {
		uint64_t bytes;

		(void)gm_duplicate(r->w->as, r->va, PAGES * PAGE, r->w->dev[i % 2], &bytes);
		gm_sim_sleep_ns(r->w->sim, gm_sim_random(r->w->sim, MS));
	}
}

static void run_race(struct world *w, struct race *r)
{
	struct gm_thread *t[2];
	struct gm_fence *f[2];

	r->w = w;
	r->rounds = 60;
	for (unsigned i = 0; i < 2; i++)
		OK(gm_mock_launch(w->ctx[i], reader, r, 1, &f[i]));
	t[0] = spawn(w, writer, r);
	t[1] = spawn(w, again, r);
	for (unsigned i = 0; i < 2; i++) {
		join(w, t[i]);
		OK(gm_fence_wait(f[i], GM_FOREVER_NS));
		gm_fence_put(f[i]);
	}
	r->ended = stats_of(w).dups_ended;
}

#define SEEDS 12u

static void race_body(struct world *w)
{
	struct race r = { .va = app_adopted(w, 1, 0) };

	for (unsigned i = 0; i < PAGES; i++) {
		app_put(w, r.va + i * PAGE, 0);
		app_put(w, r.va + i * PAGE + 8, 0);
	}
	run_race(w, &r);
	cr_assert_eq(r.old, 0, "a device saw what was there before a store that was done");
	cr_assert_eq(r.back, 0);
	cr_assert_gt(r.ended, 0, "nothing was duplicated when it was stored to");
	cr_assert_eq(app_get(w, r.va + 8 * (r.rounds % 2)), r.rounds);
}

static void race_worlds(const char *dev)
{
	for (unsigned seed = 1; seed <= SEEDS; seed++) {
		const struct world_config config = { .dev = { dev, "mock:vram=4M" }, .seed = seed, .spurious = true };

		world_run(&config, race_body);
	}
}

Test(dup_events, race_with_stores)
{
	race_worlds("mock:vram=4M");
}

Test(dup_events, race_with_stores_by_the_worker)
{
	race_worlds("mock:vram=4M,fastinvl=no,copy=async,visible=no");
}

#ifdef GM_ENABLE_CHECKS
/* The race must be able to find an error. */
static enum gm_plant planted;
static uint64_t found;

static void planted_body(struct world *w)
{
	struct race r = { .va = app_adopted(w, 1, 0) };

	w->as->plant = planted;
	for (unsigned i = 0; i < PAGES; i++) {
		app_put(w, r.va + i * PAGE, 0);
		app_put(w, r.va + i * PAGE + 8, 0);
	}
	run_race(w, &r);
	found += r.old + r.back;
	w->as->plant = GM_PLANT_NONE;
	OK(gm_migrate(w->as, r.va, PAGES * PAGE, NULL, NULL));
}

Test(dup_events, planted_errors_are_seen)
{
	/* Without the shim, which sees that frames are given back too early. */
	const struct world_config config = { .dev = { "mock:vram=4M", "mock:vram=4M" }, .validate = GM_VALIDATE_OFF };

	for (planted = GM_PLANT_DUP_OPEN; planted <= GM_PLANT_DUP_KEEP; planted++) {
		found = 0;
		world_run(&config, planted_body);
		cr_assert_gt(found, 0, "plant %d was not seen", (int)planted);
	}
}
#endif

/* The application's calls race with everything; at the end all is right. */
struct mess {
	struct world *w;
	uint64_t va;
	atomic_bool stop;
};

static void mess_dev(void *arg)
{
	struct mess *m = arg;

	for (unsigned i = 0; !atomic_load(&m->stop); i++) {
		uint64_t at = m->va + gm_sim_random(m->w->sim, 32) * PAGE, bytes;
		struct gm_dev *dev = m->w->dev[i % 2];
		gm_ret_t ret = GM_RET_SUCCESS;

		switch (gm_sim_random(m->w->sim, 6)) {
		case 0:
		case 1:
			ret = gm_duplicate(m->w->as, at, 8 * PAGE, dev, &bytes);
			break;
		case 2:
			ret = gm_dev_fault(m->w->ctx[i % 2], at, GM_READ);
			break;
		case 3:
			ret = gm_dev_fault(m->w->ctx[i % 2], at, GM_WRITE);
			break;
		case 4:
			ret = gm_migrate(m->w->as, at, 4 * PAGE, i & 2 ? dev : NULL, NULL);
			break;
		case 5:
			ret = gm_exclusive(m->w->ctx[i % 2], at, 4 * PAGE, &bytes);
			break;
		}
		/* Parts of the range come and go; two who want all of a small memory wait for each other. */
		cr_assert(ret == GM_RET_SUCCESS || ret == GM_RET_FAULT || ret == GM_RET_BUSY || ret == GM_RET_TIMEDOUT ||
			  ret == GM_RET_NOSPC, "%s: %s", gm_ret_name(ret), gm_last_error());
		gm_sim_sleep_ns(m->w->sim, gm_sim_random(m->w->sim, MS / 4));
	}
}

static void adopt_page(struct world *w, uint64_t va)
{
	gm_ret_t ret = gm_adopt(w->as, ptr(va), PAGE, 0);

	cr_assert(ret == GM_RET_SUCCESS || ret == GM_RET_EXIST, "%s: %s", gm_ret_name(ret), gm_last_error());
}

/* One page after the other: what the process did to it, it sees; a device sees it when that is settled. */
static void mess_app(struct world *w, uint64_t va, uint64_t n)
{
	uint64_t page = gm_sim_random(w->sim, 40), at = word_va(va, page), value = 0;

	switch (gm_sim_random(w->sim, 5)) {
	case 0:
		OK(gm_sim_dontneed(w->sim, va + page * PAGE, PAGE));
		cr_assert_eq(app_get(w, at), 0);
		break;
	case 1:
		OK(gm_sim_munmap(w->sim, va + page * PAGE, PAGE));
		cr_assert_eq(gm_sim_mmap_at(w->sim, va + page * PAGE, PAGE, RW), va + page * PAGE);
		cr_assert_eq(app_get(w, at), 0);
		adopt_page(w, va + page * PAGE);
		break;
	case 2:
		app_put(w, at, n);
		OK(gm_sim_fork_snapshot(w->sim, at, &value, 8));
		cr_assert_eq(value, n);
		break;
	default:
		break;
	}
	app_put(w, at, n);
	cr_assert_eq(app_get(w, at), n);
	app_put(w, at, word(page, 1));
}

static void mess_body(struct world *w)
{
	struct mess m = { .w = w, .va = app_adopted(w, 1, 1) };
	struct gm_thread *t[2];

	for (unsigned i = 0; i < 2; i++)
		t[i] = spawn(w, mess_dev, &m);
	for (uint64_t n = 1; n <= 150; n++)
		mess_app(w, m.va, n << 32);
	atomic_store(&m.stop, true);
	for (unsigned i = 0; i < 2; i++)
		join(w, t[i]);
	for (uint64_t page = 0; page < 40; page++)
		adopt_page(w, m.va + page * PAGE);
	world_check(w);
	cr_assert_eq(app_wrong(w, m.va, 40, 1), 0);
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(dev_wrong(w->ctx[i], m.va, 40, 1), 0);
}

Test(dup_events, mess)
{
	for (unsigned seed = 1; seed <= SEEDS; seed++) {
		const struct world_config config = { .dev = { "mock:vram=1M", "mock:vram=256K" }, .seed = seed,
						     .spurious = true };

		world_run(&config, mess_body);
	}
}
