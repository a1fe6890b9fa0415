/* SPDX-License-Identifier: MIT */
/* Group map: what is entered can be accessed, what is removed cannot, against the array oracle. */
#include "config.h"

#include <string.h>

#include "conform/gm_ct.h"

static void enter_remove(struct gm_ct *t)
{
	struct gm_ct_stage s;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	gm_ct_map_check(&s.o);
	gm_ct_map_enter(&s.o, 1, 3, 1, 0);
	gm_ct_map_check(&s.o);
	gm_ct_map_enter(&s.o, 4, 6, 5, GM_PTE_WRITE);
	for (uint32_t i = 0; i < s.o.pages; i++)
		gm_ct_map_probe(&s.o, i, true);
	gm_ct_map_remove(&s.o, 1, 1);
	gm_ct_map_check(&s.o);
	gm_ct_map_remove(&s.o, 4, 5);
	gm_ct_map_check(&s.o);
	gm_ct_finish(&s);
}

/* The whole window at once: with large pages where the device has them, and every page its own frame. */
static void whole(struct gm_ct *t)
{
	struct gm_ct_stage s;

	gm_ct_begin(&s, t, GM_CT_WINDOW);
	gm_ct_map_enter(&s.o, 0, 0, s.o.pages, GM_PTE_WRITE);
	for (uint32_t i = 0; i < s.o.pages; i++)
		gm_ct_map_probe(&s.o, i, true);
	gm_ct_map_check(&s.o);
	gm_ct_finish(&s);
}

/* Twice is as good as once; removing holes is no error. */
static void idempotent(struct gm_ct *t)
{
	struct gm_ct_stage s;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	gm_ct_map_enter(&s.o, 2, 2, 6, 0);
	gm_ct_map_enter(&s.o, 2, 2, 6, 0);
	gm_ct_map_check(&s.o);
	gm_ct_map_remove(&s.o, 0, 4);
	gm_ct_map_remove(&s.o, 0, 4);
	gm_ct_map_check(&s.o);
	gm_ct_map_remove(&s.o, 0, s.o.pages);
	gm_ct_map_remove(&s.o, 0, s.o.pages);
	gm_ct_map_check(&s.o);
	gm_ct_finish(&s);
}

/* A large range, and out of it every kind of piece: first, last, middle, over a boundary of large pages. */
static void cut(struct gm_ct *t)
{
	struct gm_ct_stage s;
	uint32_t large;

	gm_ct_begin(&s, t, GM_CT_WINDOW);
	large = (uint32_t)(s.d->large / s.d->granule);
	if (large >= s.o.pages)
		large = s.o.pages / 2;
	const struct {
		uint32_t page, n;
	} pieces[] = {
		{ 0, 1 }, { large - 1, 2 }, { s.o.pages - 1, 1 }, { large / 2, 1 }, { large / 4, large / 8 + 1 },
		{ s.o.pages / 2, s.o.pages / 4 },
	};

	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		gm_ct_map_enter(&s.o, 0, 0, s.o.pages, GM_PTE_WRITE);
		gm_ct_map_remove(&s.o, pieces[i].page, pieces[i].n);
		gm_ct_map_check(&s.o);
		gm_ct_map_remove(&s.o, 0, s.o.pages);
		gm_ct_map_check(&s.o);
	}
	gm_ct_finish(&s);
}

/* Same frames again with write added, also over a part of a large page. */
static void upgrade(struct gm_ct *t)
{
	struct gm_ct_stage s;

	gm_ct_begin(&s, t, GM_CT_WINDOW);
	gm_ct_map_enter(&s.o, 0, 0, s.o.pages, 0);
	gm_ct_map_probe(&s.o, 3, true);
	gm_ct_map_enter(&s.o, 3, 3, 5, GM_PTE_WRITE);
	for (uint32_t i = 0; i < s.o.pages; i++)
		gm_ct_map_probe(&s.o, i, true);
	gm_ct_finish(&s);
}

static void contexts(struct gm_ct *t)
{
	struct gm_ct_stage s;
	struct gm_ct_map other;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	if (s.d->caps.max_contexts < 2)
		gm_ct_need(t, "max_contexts of at least 2");
	gm_ct_map_init(&other, &s.m, GM_CT_VA, t->seed + 1);
	gm_ct_map_enter(&s.o, 0, 0, 8, 0);
	gm_ct_map_check(&other);
	gm_ct_map_enter(&other, 4, 8, 8, 0);
	gm_ct_map_check(&s.o);
	gm_ct_map_check(&other);
	gm_ct_map_remove(&s.o, 0, 8);
	gm_ct_map_check(&other);
	gm_ct_map_fini(&other);
	gm_ct_finish(&s);
}

/* The lowest and the highest addresses that the device announces. */
static void ends(struct gm_ct *t)
{
	struct gm_ct_stage s;
	uint64_t top;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	/* no range ends at 2^64: its end would be 0 */
	top = s.d->caps.va_bits == 64 ? 0 - s.d->large : UINT64_C(1) << s.d->caps.va_bits;
	for (unsigned i = 0; i < 2; i++) {
		s.o.va = i ? top - s.m.bytes : 0;
		gm_ct_map_enter(&s.o, 0, 0, s.o.pages, GM_PTE_WRITE);
		for (uint32_t k = 0; k < s.o.pages; k++)
			gm_ct_map_probe(&s.o, k, true);
		gm_ct_map_remove(&s.o, 0, s.o.pages);
		gm_ct_map_check(&s.o);
	}
	gm_ct_finish(&s);
}

/* All address bits that are announced count: a page is not there, and another one can be, where one of them differs. */
static void aliases(struct gm_ct *t)
{
	struct gm_ct_map other;
	struct gm_ct_stage s;
	uint64_t word;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	gm_ct_map_share(&other, &s.o, GM_CT_VA, t->seed);
	gm_ct_map_enter(&s.o, 0, 0, 1, GM_PTE_WRITE);
	for (unsigned bit = (unsigned)__builtin_ctzll(s.d->granule); bit < s.d->caps.va_bits; bit++) {
		other.va = GM_CT_VA ^ (UINT64_C(1) << bit);
		gm_ct_map_probe(&s.o, 0, true);
		if (gm_ct_access(s.d, s.o.pmap, other.va, &word, sizeof(word), false) != GM_RET_FAULT)
			gm_ct_fail(t, "alias", "va 0x%llx is mapped, and a load at 0x%llx does not say FAULT: bit %u of %u is ignored",
				   (unsigned long long)GM_CT_VA, (unsigned long long)other.va, bit,
				   (unsigned)s.d->caps.va_bits);
		gm_ct_map_enter(&other, 0, 1, 1, 0);
		gm_ct_map_probe(&other, 0, false);
		gm_ct_map_probe(&s.o, 0, true);
		gm_ct_map_remove(&other, 0, 1);
	}
	gm_ct_map_fini(&other);
	gm_ct_finish(&s);
}

/* One access over the boundary of two pages whose frames are not neighbours, and into a hole. */
static void across(struct gm_ct *t)
{
	unsigned char got[256];
	struct gm_ct_stage s;
	uint64_t g;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	g = s.d->granule;
	gm_ct_map_enter(&s.o, 0, 5, 1, 0);
	gm_ct_map_enter(&s.o, 1, 2, 1, 0);
	gm_ct_ok(t, gm_ct_access(s.d, s.o.pmap, gm_ct_va(&s.o, 1) - 101, got, sizeof(got), false));
	if (memcmp(got, s.m.is + 6 * g - 101, 101) != 0 || memcmp(got + 101, s.m.is + 2 * g, sizeof(got) - 101) != 0)
		gm_ct_fail(t, "bytes", "an access over the boundary of two pages read something else");
	gm_ct_want(t, gm_ct_access(s.d, s.o.pmap, gm_ct_va(&s.o, 2) - 101, got, sizeof(got), false), GM_RET_FAULT);
	gm_ct_finish(&s);
}

static void random_steps(struct gm_ct *t)
{
	struct gm_ct_stage s;

	gm_ct_begin(&s, t, GM_CT_WINDOW);
	for (unsigned i = 0; i < 1500; i++) {
		struct gm_ct_step step;

		gm_ct_map_choose(&s.o, &step);
		gm_ct_map_do(&s.o, &step);
		if (i % 100 == 99)
			gm_ct_map_check(&s.o);
	}
	gm_ct_finish(&s);
}

const struct gm_ct_test gm_ct_map_tests[] = {
	{ "enter_remove", GM_CAP_ACCESS, 0, enter_remove },
	{ "whole", GM_CAP_ACCESS, 0, whole },
	{ "idempotent", GM_CAP_ACCESS, 0, idempotent },
	{ "cut", GM_CAP_ACCESS, 0, cut },
	{ "upgrade", GM_CAP_ACCESS, 0, upgrade },
	{ "contexts", GM_CAP_ACCESS, 0, contexts },
	{ "ends", GM_CAP_ACCESS, 0, ends },
	{ "aliases", GM_CAP_ACCESS, 0, aliases },
	{ "across", GM_CAP_ACCESS, 0, across },
	{ "random", GM_CAP_ACCESS, 0, random_steps },
	{ NULL, 0, 0, NULL },
};
