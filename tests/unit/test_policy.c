/* SPDX-License-Identifier: MIT */
/*
 * Policies: what they are asked, that their answers count, and that answers
 * that make no sense are replaced and break nothing.
 */
#include "config.h"

#include "core_fixture.h"

/* A policy that notes what it is asked and answers what the test says. */
struct notes {
	struct gm_policy_fault fault;
	unsigned units, victims;
	uint32_t unit;
	size_t victim;
	uint64_t victim_va;
};

static struct notes notes;

static uint32_t note_unit(void *state, const struct gm_policy_fault *fault)
{
	cr_assert_eq(state, &notes);
	notes.fault = *fault;
	notes.units++;
	return notes.unit;
}

static size_t note_victim(void *state, const struct gm_policy_victim *v, size_t n)
{
	cr_assert_eq(state, &notes);
	notes.victims++;
	cr_assert_gt(n, 0);
	notes.victim_va = v[notes.victim < n ? notes.victim : 0].va;
	return notes.victim;
}

static const struct gm_policy noting = { .size = sizeof(noting), .name = "noting", .state = &notes, .unit = note_unit,
					 .victim = note_victim };

#define UNITS .dev_unit_bytes = 16 << 10, .dev_around_bytes = 512 << 10, .cpu_unit_bytes = 8 << 10, \
	      .cpu_around_bytes = 256 << 10, .slice_ns = 1

CORE_TEST(policy, is_asked_about_device_faults, .dev = { "mock:vram=16M" }, .as = { .policy = &noting, UNITS })
{
	uint64_t va = app_adopted(w, 1, 1);

	notes.unit = 64 << 10;
	OK(gm_dev_fault(w->ctx[0], va + 100 * PAGE + 7, GM_WRITE));
	cr_assert_eq(notes.fault.va, va + 100 * PAGE);
	cr_assert_eq(notes.fault.access, GM_WRITE);
	cr_assert_not(notes.fault.from_cpu);
	cr_assert_eq(notes.fault.min_bytes, 16 << 10);
	cr_assert_eq(notes.fault.max_bytes, 512 << 10);
	cr_assert_not(notes.fault.adjacent);
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_DEVICE), 16);
	cr_assert_eq(pages_in(w, va + 96 * PAGE, 16, GM_PLACE_DEVICE), 16, "the aligned piece around the page");
	OK(gm_dev_fault(w->ctx[0], va + 112 * PAGE, GM_READ));
	cr_assert(notes.fault.adjacent);
	cr_assert_eq(notes.fault.last_bytes, 64 << 10);
	OK(gm_dev_fault(w->ctx[0], va + 300 * PAGE, GM_READ));
	cr_assert_not(notes.fault.adjacent);
}

CORE_TEST(policy, is_asked_about_cpu_faults, .dev = { "mock:vram=16M" }, .as = { .policy = &noting, UNITS })
{
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_migrate(w->as, va, BLOCK, w->dev[0], NULL));
	/* What came as one huge page goes home as one, as long as it is whole. */
	OK(gm_migrate(w->as, va, PAGE, NULL, NULL));
	gm_sim_sleep_ns(w->sim, MS);
	notes.unit = 32 << 10;
	(void)app_get(w, va + 100 * PAGE + 8);
	gm_sim_sleep_ns(w->sim, MS); /* the access may go on before the books are closed */
	cr_assert(notes.fault.from_cpu);
	cr_assert_eq(notes.fault.va, va + 100 * PAGE);
	cr_assert_eq(notes.fault.min_bytes, 8 << 10);
	cr_assert_eq(notes.fault.max_bytes, 256 << 10);
	cr_assert_eq(pages_in(w, va + 96 * PAGE, 8, GM_PLACE_HOST), 8);
	cr_assert_eq(pages_in(w, va + 104 * PAGE, 8, GM_PLACE_DEVICE), 8);
}

CORE_TEST(policy, absurd_units, .dev = { "mock:vram=16M" }, .as = { .policy = &noting, UNITS })
{
	static const uint32_t absurd[] = { 0, 1, 3, 4096, 8192, 20 << 10, 48 << 10, 1 << 20, 2 << 20, 1u << 31,
					   UINT32_MAX };
	uint64_t va = app_adopted(w, 1, 1);

	for (unsigned i = 0; i < sizeof(absurd) / sizeof(absurd[0]); i++) {
		uint64_t at = va + i * 16 * PAGE, before = pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_DEVICE);

		notes.unit = absurd[i];
		OK(gm_dev_fault(w->ctx[0], at + 5 * PAGE, GM_WRITE));
		cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_DEVICE) - before, 4,
			     "answer %u: the smallest unit", (unsigned)absurd[i]);
		cr_assert_eq(pages_in(w, at + 4 * PAGE, 4, GM_PLACE_DEVICE), 4);
		gm_sim_sleep_ns(w->sim, MS);
		cr_assert_eq(app_get(w, word_va(va, i * 16 + 5)), word(i * 16 + 5, 1));
		world_check(w);
	}
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
	cr_assert_geq(notes.units, 22);
}

/* However much a policy wants at once, a device with little memory keeps going. */
CORE_TEST(policy, more_than_the_memory, .dev = { "mock:vram=256K" }, .as = { .policy = &noting })
{
	uint64_t va = app_adopted(w, 1, 1);

	notes.unit = BLOCK;
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 2);
	world_check(w);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 2), 0);
}

CORE_TEST(policy, chooses_the_victim, .dev = { "mock:vram=256K" }, .as = { .policy = &noting, .slice_ns = 1 })
{
	uint64_t va = app_adopted(w, 1, 1);

	notes.unit = UNIT;
	for (unsigned i = 0; i < 4; i++)
		OK(gm_dev_fault(w->ctx[0], va + i * UNIT, GM_WRITE));
	gm_sim_sleep_ns(w->sim, MS);
	cr_assert_eq(notes.victims, 0, "nobody asks while there is room");
	notes.victim = 2;
	OK(gm_dev_fault(w->ctx[0], va + 4 * UNIT, GM_WRITE));
	cr_assert_eq(notes.victims, 1);
	cr_assert_eq(notes.victim_va, va + 2 * UNIT);
	cr_assert_eq(page_info(w, va + 2 * UNIT).place, GM_PLACE_HOST);
	cr_assert_eq(page_info(w, va).place, GM_PLACE_DEVICE, "least recently used, but not chosen");
}

CORE_TEST(policy, absurd_victims, .dev = { "mock:vram=256K" }, .as = { .policy = &noting, .slice_ns = 1 })
{
	static const size_t absurd[] = { SIZE_MAX, 4, 16, 1u << 31 };
	uint64_t va = app_adopted(w, 1, 1);

	notes.unit = UNIT;
	for (unsigned i = 0; i < sizeof(absurd) / sizeof(absurd[0]); i++) {
		notes.victim = absurd[i];
		dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, i);
		world_check(w);
		cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, i), 0);
	}
	cr_assert_gt(notes.victims, 50);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 3), 0);
}

static const struct gm_policy nothing = { .size = sizeof(nothing) };
static const struct gm_policy old = { .size = offsetof(struct gm_policy, victim), .unit = note_unit, .state = &notes,
				      .victim = note_victim };

CORE_TEST(policy, empty_slots_are_the_default, .dev = { "mock:vram=512K" }, .as = { .policy = &nothing })
{
	uint64_t va = app_adopted(w, 1, 1);

	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 2);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 2), 0);
}

CORE_TEST(policy, slots_beyond_its_size_do_not_count, .dev = { "mock:vram=256K" }, .as = { .policy = &old })
{
	uint64_t va = app_adopted(w, 1, 1);

	notes.unit = UNIT;
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 2);
	cr_assert_gt(notes.units, 0);
	cr_assert_eq(notes.victims, 0);
}

/* The default: a scan soon moves large pieces, a random walk small ones. */
CORE_TEST(policy, default_follows_a_scan, .dev = { "mock:vram=64M" })
{
	uint64_t va = app_adopted(w, 4, 1), far = app_adopted(w, 4, 1), scan;

	dev_fill(w->ctx[0], va, 4 * GM_BLOCK_PAGES, 2);
	scan = stats_of(w).dev_faults;
	cr_assert_lt(scan, 24, "%llu faults for 128 units", (unsigned long long)scan);
	for (unsigned i = 0; i < 32; i++)
		OK(gm_dev_fault(w->ctx[0], far + (i * 37 % 128) * UNIT, GM_WRITE));
	cr_assert_eq(pages_in(w, far, 4 * GM_BLOCK_PAGES, GM_PLACE_DEVICE), 32 * 16);
}
