/* SPDX-License-Identifier: MIT */
/* Group protect: what is not allowed to be written is not written. */
#include "config.h"

#include "conform/gm_ct.h"

static void probe_all(struct gm_ct_map *o)
{
	for (uint32_t i = 0; i < o->pages; i++)
		gm_ct_map_probe(o, i, true);
}

/* Without GM_PTE_WRITE no store passes, and the memory stays as it is (gm_ct_finish() compares). */
static void read_only(struct gm_ct *t)
{
	struct gm_ct_stage s;

	gm_ct_begin(&s, t, GM_CT_WINDOW);
	gm_ct_map_enter(&s.o, 0, 0, s.o.pages, 0);
	probe_all(&s.o);
	gm_ct_map_remove(&s.o, 0, s.o.pages);
	/* neighbours with different rights */
	for (uint32_t i = 0; i < 8; i++)
		gm_ct_map_enter(&s.o, i, i, 1, i % 2 ? GM_PTE_WRITE : 0);
	probe_all(&s.o);
	gm_ct_finish(&s);
}

static void change(struct gm_ct *t)
{
	struct gm_ct_stage s;

	gm_ct_begin(&s, t, GM_CT_WINDOW);
	gm_ct_map_enter(&s.o, 0, 0, s.o.pages, GM_PTE_WRITE);
	probe_all(&s.o);
	gm_ct_map_protect(&s.o, 0, s.o.pages, 0);
	probe_all(&s.o);
	gm_ct_map_protect(&s.o, 0, s.o.pages, GM_PTE_WRITE);
	probe_all(&s.o);
	gm_ct_finish(&s);
}

/* A part of a large page. */
static void part(struct gm_ct *t)
{
	struct gm_ct_stage s;
	uint32_t n;

	gm_ct_begin(&s, t, GM_CT_WINDOW);
	n = s.o.pages;
	gm_ct_map_enter(&s.o, 0, 0, n, GM_PTE_WRITE);
	gm_ct_map_protect(&s.o, n / 2 - 1, 2, 0);
	probe_all(&s.o);
	gm_ct_map_protect(&s.o, 1, 1, 0);
	probe_all(&s.o);
	gm_ct_map_protect(&s.o, 0, n, 0);
	gm_ct_map_protect(&s.o, n - 1, 1, GM_PTE_WRITE);
	probe_all(&s.o);
	gm_ct_finish(&s);
}

/* Nothing is mapped by it. */
static void holes(struct gm_ct *t)
{
	struct gm_ct_stage s;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	gm_ct_map_protect(&s.o, 0, s.o.pages, GM_PTE_WRITE);
	probe_all(&s.o);
	gm_ct_map_enter(&s.o, 2, 2, 2, 0);
	gm_ct_map_enter(&s.o, 6, 6, 2, 0);
	gm_ct_map_protect(&s.o, 0, s.o.pages, GM_PTE_WRITE);
	probe_all(&s.o);
	gm_ct_finish(&s);
}

const struct gm_ct_test gm_ct_protect_tests[] = {
	{ "read_only", GM_CAP_ACCESS, 0, read_only },
	{ "change", GM_CAP_ACCESS | GM_CAP_PROTECT, 0, change },
	{ "part", GM_CAP_ACCESS | GM_CAP_PROTECT, 0, part },
	{ "holes", GM_CAP_ACCESS | GM_CAP_PROTECT, 0, holes },
	{ NULL, 0, 0, NULL },
};
