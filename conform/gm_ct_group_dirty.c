/* SPDX-License-Identifier: MIT */
/* Group dirty: the accessed and dirty bits of pages, read and cleared. */
#include "config.h"

#include <string.h>

#include "conform/gm_ct.h"

#define PAGES 16u

/* Pages of the window, each entered alone and with its frames in reverse order: none can be part of a larger page. */
static void enter_apart(struct gm_ct_stage *s, uint32_t pages)
{
	for (uint32_t i = 0; i < pages; i++)
		gm_ct_map_enter(&s->o, i, pages - 1 - i, 1, GM_PTE_WRITE);
}

static void harvest(struct gm_ct_stage *s, uint32_t pages, uint8_t *bits)
{
	gm_ct_note(s->d->t, "pmap_harvest", s->o.va, 0, pages * s->d->granule, 0);
	gm_ct_ok(s->d->t, s->d->mmu->pmap_harvest(s->o.pmap, s->o.va, pages * s->d->granule, bits));
}

/* Dirty where it was stored to and nowhere else; accessed may be lost, but not invented. */
static void want_bits(struct gm_ct_stage *s, uint32_t pages, const uint8_t *want, const char *when)
{
	uint8_t bits[PAGES];

	memset(bits, 0xff, sizeof(bits));
	harvest(s, pages, bits);
	for (uint32_t i = 0; i < pages; i++) {
		if ((bits[i] & GM_PAGE_DIRTY) != (want[i] & GM_PAGE_DIRTY) || (bits[i] & ~want[i]))
			gm_ct_fail(s->d->t, "page bits", "%s: page %u has bits %u, expected %u (accessed 1, dirty 2)", when,
				   (unsigned)i, (unsigned)bits[i], (unsigned)want[i]);
	}
}

/* Store to every third, load from the next, leave the next alone. */
static void use(struct gm_ct_stage *s, uint32_t pages, uint8_t *want)
{
	memset(want, 0, pages);
	for (uint32_t i = 0; i < pages; i++) {
		if (i % 3 < 2)
			gm_ct_map_probe(&s->o, i, i % 3 == 0);
		want[i] = i % 3 == 0 ? GM_PAGE_ACCESSED | GM_PAGE_DIRTY : i % 3 == 1 ? GM_PAGE_ACCESSED : 0;
	}
}

static void dirty_bits(struct gm_ct *t)
{
	static const uint8_t none[PAGES];
	struct gm_ct_stage s;
	uint8_t want[PAGES];

	gm_ct_begin(&s, t, GM_CT_SMALL);
	want_bits(&s, PAGES, none, "nothing is mapped");
	enter_apart(&s, PAGES);
	want_bits(&s, PAGES, none, "just entered");
	use(&s, PAGES, want);
	gm_ct_map_remove(&s.o, 0, PAGES);
	want_bits(&s, PAGES, want, "used, then removed and invalidated");
	want_bits(&s, PAGES, none, "harvested before");
	enter_apart(&s, PAGES);
	use(&s, PAGES, want);
	gm_ct_map_remove(&s.o, 0, PAGES);
	enter_apart(&s, PAGES);
	want_bits(&s, PAGES, none, "entered again");
	gm_ct_finish(&s);
}

/* What is dirty stays so through harvests of other pages, and while it is mapped. */
static void dirty_mapped(struct gm_ct *t)
{
	struct gm_ct_stage s;
	uint8_t bits[PAGES], total[PAGES] = { 0 }, want[PAGES];

	gm_ct_begin(&s, t, GM_CT_SMALL);
	enter_apart(&s, PAGES);
	use(&s, PAGES, want);
	harvest(&s, 1, bits);
	total[0] |= bits[0];
	harvest(&s, PAGES, bits);
	for (uint32_t i = 0; i < PAGES; i++)
		total[i] |= bits[i];
	/* a device may keep bits in its TLB as long as a page is mapped: the rest comes with the invalidation */
	gm_ct_map_remove(&s.o, 0, PAGES);
	harvest(&s, PAGES, bits);
	for (uint32_t i = 0; i < PAGES; i++) {
		total[i] |= bits[i];
		if ((want[i] ^ total[i]) & GM_PAGE_DIRTY)
			gm_ct_fail(t, "page bits", "page %u: dirty is %s in all harvests together", (unsigned)i,
				   want[i] & GM_PAGE_DIRTY ? "lost" : "invented");
	}
	gm_ct_finish(&s);
}

const struct gm_ct_test gm_ct_dirty_tests[] = {
	{ "bits", GM_CAP_DIRTY | GM_CAP_ACCESS, 0, dirty_bits },
	{ "mapped", GM_CAP_DIRTY | GM_CAP_ACCESS, 0, dirty_mapped },
	{ NULL, 0, 0, NULL },
};
