/* SPDX-License-Identifier: MIT */
/* Group lifecycle: devices and page tables come and go, and leave nothing behind. */
#include "config.h"

#include <string.h>

#include "conform/gm_ct.h"

#define MAX_PMAPS 64u
/* So many page tables with mappings, of so many pages each: within GM_CT_MIN_PAGES. */
#define APART 4u
#define APART_PAGES 4u

static void again(struct gm_ct *t)
{
	struct gm_dev_caps first;

	for (unsigned i = 0; i < 3; i++) {
		struct gm_ct_dev *d = gm_ct_open(t);

		if (i == 0)
			first = d->caps;
		else if (first.caps != d->caps.caps || first.va_bits != d->caps.va_bits ||
			 first.page_sizes != d->caps.page_sizes || first.max_contexts != d->caps.max_contexts)
			gm_ct_fail(t, "caps", "opened again, the same device announces something else");
		gm_ct_close(d);
		gm_ct_services_check(t->services);
	}
}

/* Each device has memory of its own, and page tables of its own. */
static void two_devices(struct gm_ct *t)
{
	struct gm_ct_dev *d[2] = { gm_ct_open(t), gm_ct_open(t) };
	struct gm_ct_mem m[2];
	void *pmap[2];

	if (d[0]->dev == d[1]->dev)
		gm_ct_fail(t, "devices", "the second dev_init() returned the first device");
	for (unsigned i = 0; i < 2; i++) {
		gm_ct_ok(t, gm_ct_pmap_create(d[i], &pmap[i]));
		gm_ct_mem_init(&m[i], d[i], GM_CT_SMALL, t->seed + i);
	}
	for (unsigned i = 0; i < 2; i++)
		gm_ct_mem_check(&m[i]);
	gm_ct_pmap_destroy(d[0], pmap[0]);
	gm_ct_mem_fini(&m[0]);
	gm_ct_close(d[0]);
	/* the other one does not notice */
	gm_ct_mem_check(&m[1]);
	gm_ct_pmap_destroy(d[1], pmap[1]);
	gm_ct_mem_fini(&m[1]);
	gm_ct_close(d[1]);
}

static void pmaps(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_open(t);
	bool all = d->caps.max_contexts < MAX_PMAPS;
	uint32_t n = all ? d->caps.max_contexts : MAX_PMAPS;
	void *pmap[MAX_PMAPS + 1];
	void *mark = &mark;

	for (uint32_t i = 0; i < n; i++) {
		pmap[i] = NULL;
		gm_ct_ok(t, gm_ct_pmap_create(d, &pmap[i]));
		if (!pmap[i])
			gm_ct_fail(t, "pmap", "pmap_create() succeeded with NULL");
		for (uint32_t k = 0; k < i; k++) {
			if (pmap[k] == pmap[i])
				gm_ct_fail(t, "pmap", "pmap_create() returned a page table that lives");
		}
	}
	pmap[n] = mark;
	if (all) {
		gm_ct_want(t, gm_ct_pmap_create(d, &pmap[n]), GM_RET_NOSPC);
		if (pmap[n] != mark)
			gm_ct_fail(t, "out-parameter", "pmap_create() failed, but wrote a page table");
	}
	gm_ct_pmap_destroy(d, pmap[n / 2]);
	gm_ct_ok(t, gm_ct_pmap_create(d, &pmap[n / 2]));
	for (uint32_t i = 0; i < n; i++)
		gm_ct_pmap_destroy(d, pmap[i]);
	gm_ct_close(d);
}

/*
 * Page tables of one device, as many as there may be, each with the same addresses mapped to frames of its own; one
 * in the middle goes, and its successor comes. None sees what another maps, nor loses anything with it.
 */
static void apart(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_open(t);
	uint32_t n = d->caps.max_contexts < APART ? d->caps.max_contexts : APART;
	struct gm_ct_map o[APART];
	struct gm_ct_mem m;

	if (n < 2)
		gm_ct_need(t, "max_contexts of at least 2");
	gm_ct_mem_init(&m, d, GM_CT_SMALL, t->seed);
	for (uint32_t i = 0; i < n; i++) {
		gm_ct_map_init(&o[i], &m, GM_CT_VA, t->seed + i);
		for (uint32_t k = 0; k <= i; k++)
			gm_ct_map_check(&o[k]);
		gm_ct_map_enter(&o[i], i, i * APART_PAGES, APART_PAGES, 0);
	}
	gm_ct_map_fini(&o[n / 2]);
	for (uint32_t i = 0; i < n; i++) {
		if (i != n / 2)
			gm_ct_map_check(&o[i]);
	}
	gm_ct_map_init(&o[n / 2], &m, GM_CT_VA, t->seed);
	for (uint32_t i = 0; i < n; i++)
		gm_ct_map_check(&o[i]);
	for (uint32_t i = 0; i < n; i++)
		gm_ct_map_fini(&o[i]);
	gm_ct_mem_fini(&m);
	gm_ct_close(d);
}

const struct gm_ct_test gm_ct_lifecycle_tests[] = {
	{ "again", 0, 0, again },
	{ "two_devices", 0, 0, two_devices },
	{ "pmaps", 0, 0, pmaps },
	{ "apart", GM_CAP_ACCESS, 0, apart },
	{ NULL, 0, 0, NULL },
};
