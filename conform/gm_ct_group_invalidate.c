/* SPDX-License-Identifier: MIT */
/*
 * Group invalidate: when tlb_invl() has returned, no access uses, or will use, a translation that the page table no
 * longer has.
 *
 * With threads: the main thread shows frame after frame at one address. A counter says which is the latest of which
 * the invalidation has returned. A reader looks at the counter, loads, and must not see an older frame than that; a
 * writer's stores must have ended: the old frame, copied back twice, is the same; and what is then written to it is
 * still there when it is mapped again, or when the writers are gone, so that a store that comes late is seen as well.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "conform/gm_ct.h"

#define ROUNDS 400u
#define STORE_ROUNDS 150u
#define READERS 2u
/* A writer's store is as long as the page, but not longer than this: long ones are in flight nearly always. */
#define STORE_MAX ((size_t)64 << 10)
#define STORE_OFF 64u

/* A translation that was used before is not used again. */
static void gone(struct gm_ct *t)
{
	struct gm_ct_stage s;

	gm_ct_begin(&s, t, GM_CT_WINDOW);
	for (uint32_t n = 1; n <= s.o.pages; n *= 4) {
		gm_ct_map_enter(&s.o, 0, 0, n, GM_PTE_WRITE);
		for (uint32_t i = 0; i < n; i++)
			gm_ct_map_probe(&s.o, i, true);
		gm_ct_map_remove(&s.o, 0, n);
		gm_ct_map_check(&s.o);
	}
	gm_ct_finish(&s);
}

/* Another frame at the same address: right after, page by page, and with part of a large page gone. */
static void reuse(struct gm_ct *t)
{
	struct gm_ct_stage s;
	uint32_t half;

	gm_ct_begin(&s, t, GM_CT_WINDOW);
	half = s.o.pages / 2;
	gm_ct_map_enter(&s.o, 0, 0, half, 0);
	gm_ct_map_check(&s.o);
	gm_ct_map_remove(&s.o, 0, half);
	gm_ct_map_enter(&s.o, 0, half, half, 0);
	gm_ct_map_check(&s.o);
	for (uint32_t i = 0; i < half && i < 64; i++) {
		gm_ct_map_remove(&s.o, i, 1);
		gm_ct_map_enter(&s.o, i, i, 1, 0);
		gm_ct_map_probe(&s.o, i, false);
		gm_ct_map_probe(&s.o, half - 1, false);
	}
	gm_ct_map_check(&s.o);
	gm_ct_finish(&s);
}

/* One invalidation for what several removals took away. */
static void batch(struct gm_ct *t)
{
	struct gm_ct_stage s;
	uint64_t g;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	g = s.d->granule;
	gm_ct_map_enter(&s.o, 0, 0, s.o.pages, 0);
	gm_ct_map_check(&s.o);
	for (uint32_t i = 0; i < s.o.pages; i += 2) {
		gm_ct_ok(t, gm_ct_remove(s.d, s.o.pmap, gm_ct_va(&s.o, i), g));
		gm_ct_map_unset(&s.o, i, 1);
	}
	gm_ct_invl(s.d, s.o.pmap, s.o.va, s.m.bytes);
	gm_ct_map_check(&s.o);
	gm_ct_invl(s.d, s.o.pmap, s.o.va, s.m.bytes);
	gm_ct_map_check(&s.o);
	gm_ct_finish(&s);
}

static void rights(struct gm_ct *t)
{
	struct gm_ct_stage s;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	gm_ct_map_enter(&s.o, 0, 0, s.o.pages, GM_PTE_WRITE);
	for (unsigned k = 0; k < 4; k++) {
		for (uint32_t i = 0; i < s.o.pages; i++)
			gm_ct_map_probe(&s.o, i, true);
		gm_ct_map_protect(&s.o, 0, s.o.pages, k % 2 ? GM_PTE_WRITE : 0);
	}
	gm_ct_finish(&s);
}

/* Jobs have TLBs of their own. */
static void jobs(struct gm_ct *t)
{
	struct gm_ct_stage s;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	for (uint32_t i = 0; i < 32; i++) {
		uint32_t page = i % 4, frame = (5 * i) % s.o.pages;
		uint64_t got = 0, want;

		memcpy(&want, s.m.is + frame * s.d->granule, 8);
		gm_ct_map_enter(&s.o, page, frame, 1, 0);
		gm_ct_ok(t, gm_ct_touch(s.d, s.o.pmap, gm_ct_va(&s.o, page), &got, 8, false));
		if (got != want)
			gm_ct_fail(t, "stale translation", "a job that loads from va 0x%llx after tlb_invl() read %016llx, "
				   "expected %016llx", (unsigned long long)gm_ct_va(&s.o, page), (unsigned long long)got,
				   (unsigned long long)want);
		gm_ct_map_remove(&s.o, page, 1);
	}
	gm_ct_finish(&s);
}

struct race {
	struct gm_ct_stage s;
	_Atomic uint32_t latest; /* round whose predecessor is invalidated */
	atomic_bool stop;
	uint32_t page;           /* where in the window */
	size_t span;             /* what writers reach of a page */
};

/* The frame of a round; its first word holds the number of the frame. */
static uint32_t frame_of(const struct race *r, uint32_t round)
{
	return round % r->s.o.pages;
}

static uint64_t word_of(const struct race *r, uint32_t frame)
{
	uint64_t word;

	memcpy(&word, r->s.m.is + frame * r->s.d->granule, 8);
	return word;
}

static void *reader(void *arg)
{
	struct race *r = arg;
	struct gm_ct *t = r->s.d->t;

	while (!atomic_load(&r->stop)) {
		uint32_t before = atomic_load(&r->latest), after;
		uint64_t word = 0;
		bool known = false;
		gm_ret_t ret = gm_ct_access(r->s.d, r->s.o.pmap, gm_ct_va(&r->s.o, r->page), &word, 8, false);

		after = atomic_load(&r->latest);
		if (ret != GM_RET_SUCCESS && ret != GM_RET_FAULT)
			gm_ct_fail(t, "result", "access returned %s", gm_ret_name(ret));
		/* the next one may be mapped already */
		for (uint32_t round = before; round <= after + 1 && !known; round++)
			known = word == word_of(r, frame_of(r, round));
		if (ret == GM_RET_SUCCESS && !known)
			gm_ct_fail(t, "stale translation", "a load that began after tlb_invl() had returned read %016llx, "
				   "which is not in the frame that is mapped now", (unsigned long long)word);
	}
	return NULL;
}

static void *writer(void *arg)
{
	struct race *r = arg;
	struct gm_ct *t = r->s.d->t;
	size_t bytes = r->span - STORE_OFF;
	unsigned char *from = gm_ct_alloc(t, bytes);

	for (unsigned n = 1; !atomic_load(&r->stop); n++) {
		gm_ret_t ret;

		memset(from, (int)(n % 251), bytes);
		ret = gm_ct_access(r->s.d, r->s.o.pmap, gm_ct_va(&r->s.o, r->page) + STORE_OFF, from, bytes, true);
		if (ret != GM_RET_SUCCESS && ret != GM_RET_FAULT)
			gm_ct_fail(t, "result", "access returned %s", gm_ret_name(ret));
	}
	free(from);
	return NULL;
}

/* What writers reach of a frame that nobody has mapped: from it, or to it. */
static void move(struct race *r, enum gm_copy_kind kind, uint32_t frame, void *host)
{
	struct gm_copy copy = { .kind = kind, .pa = gm_ct_pa(&r->s.m, frame), .host = GM_VA(host), .bytes = r->span };

	gm_ct_ok(r->s.d->t, gm_ct_copy(r->s.d, &copy, 1));
}

static void late(struct gm_ct *t)
{
	gm_ct_fail(t, "access in flight", "a store reached the old frame after tlb_invl() had returned");
}

/* The frame is not mapped since it was left the last time. */
static void was_left(struct race *r, uint32_t frame, void *host)
{
	move(r, GM_COPY_TO_HOST, frame, host);
	if (memcmp(host, r->s.m.is + frame * r->s.d->granule, r->span) != 0)
		late(r->s.d->t);
}

/* No store may be under way any more; what it now holds is the round's. */
static void leave(struct race *r, uint32_t frame, uint32_t round, unsigned char *host)
{
	unsigned char *is = r->s.m.is + frame * r->s.d->granule;

	move(r, GM_COPY_TO_HOST, frame, host);
	move(r, GM_COPY_TO_HOST, frame, host + r->span);
	if (memcmp(host, host + r->span, r->span) != 0)
		late(r->s.d->t);
	gm_ct_fill(is, r->span, r->s.d->t->seed + round);
	move(r, GM_COPY_TO_DEV, frame, is);
}

static void swap_frames(struct race *r, bool stores, unsigned char *host)
{
	struct gm_ct_map *o = &r->s.o;

	for (uint32_t round = 0; round < (stores ? STORE_ROUNDS : ROUNDS); round++) {
		if (stores)
			was_left(r, frame_of(r, round), host);
		gm_ct_map_enter(o, r->page, frame_of(r, round), 1, stores ? GM_PTE_WRITE : 0);
		if (stores || round % 8 == 0)
			gm_ct_sleep_ns(50000);
		gm_ct_map_remove(o, r->page, 1);
		atomic_store(&r->latest, round + 1);
		if (stores)
			leave(r, frame_of(r, round), round, host);
	}
}

static void race(struct gm_ct *t, bool stores)
{
	struct race r = { .page = 1 };
	struct gm_ct_thread thread[READERS];
	unsigned char *host = gm_ct_pages(t, 2 * STORE_MAX);

	gm_ct_begin(&r.s, t, GM_CT_SMALL);
	r.span = r.s.d->granule < STORE_MAX ? (size_t)r.s.d->granule : STORE_MAX;
	for (unsigned i = 0; i < READERS; i++)
		gm_ct_thread_start(t, &thread[i], stores ? writer : reader, &r);
	swap_frames(&r, stores, host);
	atomic_store(&r.stop, true);
	for (unsigned i = 0; i < READERS; i++)
		gm_ct_thread_join(&thread[i]);
	gm_ct_finish(&r.s);
	gm_ct_pages_free(host, 2 * STORE_MAX);
}

static void readers(struct gm_ct *t)
{
	race(t, false);
}

static void writers(struct gm_ct *t)
{
	race(t, true);
}

const struct gm_ct_test gm_ct_invalidate_tests[] = {
	{ "gone", GM_CAP_ACCESS, 0, gone },
	{ "reuse", GM_CAP_ACCESS, 0, reuse },
	{ "batch", GM_CAP_ACCESS, 0, batch },
	{ "rights", GM_CAP_ACCESS | GM_CAP_PROTECT, 0, rights },
	{ "jobs", GM_CAP_ACCESS, GM_CT_TOUCH, jobs },
	{ "readers", GM_CAP_ACCESS, 0, readers },
	{ "writers", GM_CAP_ACCESS, 0, writers },
	{ NULL, 0, 0, NULL },
};
