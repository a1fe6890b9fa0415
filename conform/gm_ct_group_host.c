/* SPDX-License-Identifier: MIT */
/* Group host: host memory mapped in place. */
#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conform/gm_ct.h"

#define HOST_PAGES 16u
#define QUIET_NS 50000000u

struct host_memory {
	struct gm_ct_stage s;
	unsigned char *at;
	uint64_t bytes;
};

static void host_begin(struct host_memory *h, struct gm_ct *t)
{
	gm_ct_begin(&h->s, t, GM_CT_SMALL);
	/* host memory that a large page could map would have to be aligned: a granule is enough */
	h->bytes = HOST_PAGES * h->s.d->granule;
	h->at = aligned_alloc(h->s.d->granule, h->bytes);
	if (!h->at)
		gm_ct_fail(t, "host", "no memory for the suite itself");
	gm_ct_fill(h->at, h->bytes, t->seed + 40);
	gm_ct_host_add(t->services, h->at, h->bytes);
}

static void host_end(struct host_memory *h)
{
	free(h->at);
	gm_ct_finish(&h->s);
}

static void host_word(struct host_memory *h, uint32_t page, bool store, gm_ret_t want)
{
	struct gm_ct_dev *d = h->s.d;
	uint64_t offset = UINT64_C(8) * (page + 1), got = 0xabcdef, is;
	gm_ret_t ret = gm_ct_access(d, h->s.o.pmap, gm_ct_va(&h->s.o, page) + offset, &got, 8, store);

	if (ret != want)
		gm_ct_fail(d->t, "host memory", "a %s at page %u returned %s, expected %s", store ? "store" : "load",
			   (unsigned)page, gm_ret_name(ret), gm_ret_name(want));
	memcpy(&is, h->at + page * d->granule + offset, 8);
	if (ret == GM_RET_SUCCESS && got != is)
		gm_ct_fail(d->t, "bytes", "host memory mapped in place: a %s at page %u %016" PRIx64 ", host has %016" PRIx64,
			   store ? "store of" : "load read", (unsigned)page, got, is);
}

static void host_enter(struct host_memory *h, uint32_t page, uint32_t n, uint32_t pte)
{
	uint64_t g = h->s.d->granule;

	gm_ct_ok(h->s.d->t, gm_ct_enter(h->s.d, h->s.o.pmap, gm_ct_va(&h->s.o, page), GM_VA(h->at) + page * g, n * g,
					pte | GM_PTE_HOST));
}

static void host_remove(struct host_memory *h, uint32_t page, uint32_t n)
{
	gm_ct_ok(h->s.d->t, gm_ct_remove(h->s.d, h->s.o.pmap, gm_ct_va(&h->s.o, page), n * h->s.d->granule));
	gm_ct_invl(h->s.d, h->s.o.pmap, gm_ct_va(&h->s.o, page), n * h->s.d->granule);
}

static void in_place(struct gm_ct *t)
{
	struct host_memory h;

	host_begin(&h, t);
	host_enter(&h, 0, 8, 0);
	host_enter(&h, 8, HOST_PAGES - 8, GM_PTE_WRITE);
	for (uint32_t i = 0; i < HOST_PAGES; i++) {
		host_word(&h, i, false, GM_RET_SUCCESS);
		host_word(&h, i, true, i < 8 ? GM_RET_PERM : GM_RET_SUCCESS);
	}
	host_remove(&h, 4, 8);
	for (uint32_t i = 0; i < HOST_PAGES; i++)
		host_word(&h, i, false, i >= 4 && i < 12 ? GM_RET_FAULT : GM_RET_SUCCESS);
	host_remove(&h, 0, HOST_PAGES);
	host_end(&h);
}

/* Host memory and device memory take turns at one address. */
static void turns(struct gm_ct *t)
{
	struct host_memory h;

	host_begin(&h, t);
	for (unsigned k = 0; k < 4; k++) {
		host_enter(&h, 0, HOST_PAGES, GM_PTE_WRITE);
		for (uint32_t i = 0; i < HOST_PAGES; i++)
			host_word(&h, i, i % 2, GM_RET_SUCCESS);
		host_remove(&h, 0, HOST_PAGES);
		gm_ct_map_enter(&h.s.o, 0, 0, HOST_PAGES, 0);
		gm_ct_map_check(&h.s.o);
		gm_ct_map_remove(&h.s.o, 0, HOST_PAGES);
	}
	host_end(&h);
}

struct slow {
	struct host_memory h;
	atomic_bool invalidated;
};

static void *slow_load(void *arg)
{
	struct slow *w = arg;
	uint64_t word;

	gm_ct_ok(w->h.s.d->t, gm_ct_access(w->h.s.d, w->h.s.o.pmap, gm_ct_va(&w->h.s.o, 0), &word, 8, false));
	return NULL;
}

static void *slow_invl(void *arg)
{
	struct slow *w = arg;

	gm_ct_invl(w->h.s.d, w->h.s.o.pmap, gm_ct_va(&w->h.s.o, 0), w->h.s.d->granule);
	atomic_store(&w->invalidated, true);
	return NULL;
}

/* An access is on the bus: tlb_invl() waits for it. */
static void in_flight(struct gm_ct *t)
{
	struct slow w = { .invalidated = false };
	struct gm_ct_thread load, invl;

	host_begin(&w.h, t);
	host_enter(&w.h, 0, 1, 0);
	gm_ct_host_gate(t->services, true);
	gm_ct_thread_start(t, &load, slow_load, &w);
	if (!gm_ct_host_wait(t->services))
		gm_ct_fail(t, "host memory", "a load did not come to the service host_access");
	gm_ct_ok(t, gm_ct_remove(w.h.s.d, w.h.s.o.pmap, gm_ct_va(&w.h.s.o, 0), w.h.s.d->granule));
	gm_ct_thread_start(t, &invl, slow_invl, &w);
	gm_ct_sleep_ns(QUIET_NS);
	if (atomic_load(&w.invalidated))
		gm_ct_fail(t, "access in flight", "tlb_invl() returned while an access to host memory was under way");
	gm_ct_host_gate(t->services, false);
	gm_ct_thread_join(&load);
	gm_ct_thread_join(&invl);
	host_end(&w.h);
}

const struct gm_ct_test gm_ct_host_tests[] = {
	{ "in_place", GM_CAP_HOST_MAP | GM_CAP_ACCESS, 0, in_place },
	{ "turns", GM_CAP_HOST_MAP | GM_CAP_ACCESS, 0, turns },
	{ "in_flight", GM_CAP_HOST_MAP | GM_CAP_ACCESS, 0, in_flight },
	{ NULL, 0, 0, NULL },
};
