/* SPDX-License-Identifier: MIT */
/* Group visible: device memory that the CPU reaches. */
#include "config.h"

#include <string.h>

#include "conform/gm_ct.h"

/* Run `fn` for every page of the window that the CPU can reach; how many that are. */
static uint32_t each_visible(struct gm_ct_mem *m, void (*fn)(struct gm_ct_mem *m, uint32_t page, unsigned char *at))
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < m->pages; i++) {
		unsigned char *at = gm_ct_cpu_ptr(m->d, gm_ct_pa(m, i), m->d->granule);

		if (!at)
			continue;
		n++;
		fn(m, i, at);
	}
	return n;
}

static void same_bytes(struct gm_ct_mem *m, uint32_t page, unsigned char *at)
{
	if (memcmp(at, m->is + page * m->d->granule, m->d->granule) != 0)
		gm_ct_fail(m->d->t, "bytes", "through cpu_ptr() page %u of the memory holds something else", (unsigned)page);
	if (gm_ct_cpu_ptr(m->d, gm_ct_pa(m, page), m->d->granule) != at)
		gm_ct_fail(m->d->t, "cpu_ptr", "asked again, another address for pa 0x%llx",
			   (unsigned long long)gm_ct_pa(m, page));
}

static void change_bytes(struct gm_ct_mem *m, uint32_t page, unsigned char *at)
{
	gm_ct_fill(at, m->d->granule, m->d->t->seed + 900 + page);
	memcpy(m->is + page * m->d->granule, at, m->d->granule);
}

/* A range is reachable exactly if each of its pages is, and then in one piece. */
static void want_ranges(struct gm_ct_mem *m)
{
	uint64_t g = m->d->granule;

	for (uint32_t i = 0; i + 1 < m->pages; i++) {
		unsigned char *one = gm_ct_cpu_ptr(m->d, gm_ct_pa(m, i), g), *two = gm_ct_cpu_ptr(m->d, gm_ct_pa(m, i + 1), g);
		unsigned char *both = gm_ct_cpu_ptr(m->d, gm_ct_pa(m, i), 2 * g);

		if (both && (both != one || two != one + g))
			gm_ct_fail(m->d->t, "cpu_ptr", "pa 0x%llx: two pages together are at %p, alone at %p and %p",
				   (unsigned long long)gm_ct_pa(m, i), (void *)both, (void *)one, (void *)two);
	}
}

static void visible(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_open(t);
	struct gm_ct_mem m;

	/* the whole memory, where it is not huge: the part in sight may be anywhere */
	gm_ct_mem_init(&m, d, UINT64_C(64) << 20, t->seed);
	if (each_visible(&m, same_bytes) == 0)
		gm_ct_fail(t, "cpu_ptr", "GM_CAP_CPU_VISIBLE is announced, but no page of the first %llu MiB can be reached",
			   (unsigned long long)(m.bytes >> 20));
	want_ranges(&m);
	(void)each_visible(&m, change_bytes);
	gm_ct_mem_check(&m);
	gm_ct_mem_fini(&m);
	gm_ct_close(d);
}

/* Stores of the device are seen by the CPU once they are drained, and the other way round. */
static void coherent(struct gm_ct *t)
{
	struct gm_ct_stage s;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	for (unsigned k = 0; k < 3; k++) {
		gm_ct_map_enter(&s.o, 0, 0, s.o.pages, GM_PTE_WRITE);
		for (uint32_t i = 0; i < s.o.pages; i++)
			gm_ct_map_probe(&s.o, i, true);
		gm_ct_map_remove(&s.o, 0, s.o.pages);
		(void)each_visible(&s.m, same_bytes);
		(void)each_visible(&s.m, change_bytes);
	}
	gm_ct_finish(&s);
}

const struct gm_ct_test gm_ct_visible_tests[] = {
	{ "pages", GM_CAP_CPU_VISIBLE, 0, visible },
	{ "coherent", GM_CAP_CPU_VISIBLE | GM_CAP_ACCESS, 0, coherent },
	{ NULL, 0, 0, NULL },
};
