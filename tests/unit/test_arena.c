/* SPDX-License-Identifier: MIT */
/* The library's own memory against a shadow of what was handed out. */
#include "config.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include <criterion/criterion.h>

#include "hal/gm_arena.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#endif

#define PIECES 600

struct piece {
	unsigned char *ptr;
	size_t bytes;
	unsigned char pattern;
};

static uint64_t rng(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Mostly small, some at the edges of classes, few large. */
static size_t random_bytes(uint64_t *state)
{
	uint64_t kind = rng(state) % 16;

	if (kind == 0)
		return GM_ARENA_SMALL_MAX_BYTES - 40 + rng(state) % 80;
	if (kind == 1)
		return 1 + rng(state) % 200000;
	if (kind < 6)
		return ((size_t)1 << rng(state) % 15) + rng(state) % 3;
	return 1 + rng(state) % 500;
}

static bool all_are(const unsigned char *ptr, size_t bytes, unsigned char value)
{
	for (size_t i = 0; i < bytes; i++) {
		if (ptr[i] != value)
			return false;
	}
	return true;
}

static void check_no_overlap(const struct piece *pieces, const struct piece *p)
{
	for (unsigned i = 0; i < PIECES; i++) {
		const struct piece *q = &pieces[i];

		if (q == p || !q->ptr)
			continue;
		cr_assert(q->ptr + q->bytes <= p->ptr || p->ptr + p->bytes <= q->ptr, "%p+%zu meets %p+%zu",
			  (void *)q->ptr, q->bytes, (void *)p->ptr, p->bytes);
	}
}

static void piece_make(struct gm_arena *arena, struct piece *p, uint64_t *state)
{
	p->bytes = random_bytes(state);
	p->pattern = (unsigned char)(1 + rng(state) % 255);
	p->ptr = gm_arena_alloc(arena, p->bytes);
	cr_assert_not_null(p->ptr);
	cr_assert_eq((uintptr_t)p->ptr % 16, 0u);
	cr_assert(all_are(p->ptr, p->bytes, 0), "%zu bytes are not zeroed", p->bytes);
	memset(p->ptr, p->pattern, p->bytes);
}

static void piece_drop(struct gm_arena *arena, struct piece *p)
{
	cr_assert(all_are(p->ptr, p->bytes, p->pattern), "%zu bytes were changed by others", p->bytes);
	gm_arena_free(arena, p->ptr, p->bytes);
	p->ptr = NULL;
}

Test(arena, random_against_shadow)
{
	static struct piece pieces[PIECES];
	struct gm_arena *arena = gm_arena_create();
	uint64_t state = 0x1234567;
	size_t live = 0;

	cr_assert_not_null(arena);
	for (unsigned step = 0; step < 60000; step++) {
		struct piece *p = &pieces[rng(&state) % PIECES];

		if (p->ptr) {
			live -= p->bytes;
			piece_drop(arena, p);
		} else {
			piece_make(arena, p, &state);
			live += p->bytes;
			if (step % 16 == 0)
				check_no_overlap(pieces, p);
		}
		cr_assert_eq(gm_arena_live_bytes(arena), live);
	}
	for (unsigned i = 0; i < PIECES; i++) {
		if (pieces[i].ptr)
			piece_drop(arena, &pieces[i]);
	}
	cr_assert_eq(gm_arena_destroy(arena), 0u);
}

Test(arena, every_small_size)
{
	struct gm_arena *arena = gm_arena_create();

	for (size_t bytes = 0; bytes <= GM_ARENA_SMALL_MAX_BYTES + 64; bytes += bytes < 300 ? 1 : 61) {
		unsigned char *a = gm_arena_alloc(arena, bytes), *b = gm_arena_alloc(arena, bytes);

		cr_assert(a && b);
		memset(a, 0xaa, bytes);
		memset(b, 0xbb, bytes);
		cr_assert(all_are(a, bytes, 0xaa), "%zu bytes: pieces overlap", bytes);
		gm_arena_free(arena, a, bytes);
		cr_assert(all_are(b, bytes, 0xbb), "%zu bytes: free wrote into a neighbour", bytes);
		gm_arena_free(arena, b, bytes);
	}
	cr_assert_eq(gm_arena_live_bytes(arena), 0u);
	cr_assert_eq(gm_arena_destroy(arena), 0u);
}

Test(arena, reused_pieces_are_zeroed)
{
	static const size_t sizes[] = { 1, 16, 24, 100, 4096, 30000 };
	struct gm_arena *arena = gm_arena_create();

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		void *first = gm_arena_alloc(arena, sizes[i]);
		unsigned char *again;

		memset(first, 0xff, sizes[i]);
		gm_arena_free(arena, first, sizes[i]);
		again = gm_arena_alloc(arena, sizes[i]);
		cr_assert_eq(again, first, "the test needs the same piece again");
		cr_assert(all_are(again, sizes[i], 0));
		gm_arena_free(arena, again, sizes[i]);
	}
	cr_assert_eq(gm_arena_destroy(arena), 0u);
}

Test(arena, destroy_counts_leaks)
{
	struct gm_arena *arena = gm_arena_create();

	cr_assert_not_null(gm_arena_alloc(arena, 100));
	cr_assert_not_null(gm_arena_alloc(arena, 7));
	cr_assert_not_null(gm_arena_alloc(arena, 1000000));
	gm_arena_free(arena, gm_arena_alloc(arena, 5000), 5000);
	gm_arena_free(arena, gm_arena_alloc(arena, 500000), 500000);
	gm_arena_free(arena, NULL, 12);
	cr_assert_eq(gm_arena_live_bytes(arena), 1000107u);
	cr_assert_eq(gm_arena_destroy(arena), 1000107u);
	cr_assert_eq(gm_arena_destroy(NULL), 0u);
}

/* Mappings of the process, from the kernel's point of view. */
static size_t address_space_pages(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	size_t pages = 0;

	cr_assert_not_null(f);
	cr_assert_eq(fscanf(f, "%zu", &pages), 1);
	fclose(f);
	return pages;
}

Test(arena, memory_goes_back)
{
	enum { N = 4000 };
	static void *ptr[N];
	struct gm_arena *arena = gm_arena_create();
	size_t peak, one, full_pages, idle_pages;

	gm_arena_free(arena, gm_arena_alloc(arena, 1000), 1000);
	one = gm_arena_mapped_bytes(arena);
	for (unsigned i = 0; i < N; i++) {
		ptr[i] = gm_arena_alloc(arena, 1000);
		cr_assert_not_null(ptr[i]);
	}
	peak = gm_arena_mapped_bytes(arena);
	cr_assert_geq(peak, (size_t)N * 1000);
	cr_assert_leq(peak, (size_t)N * 1500, "too much is wasted: %zu", peak);
	full_pages = address_space_pages();
	for (unsigned i = 0; i < N; i++)
		gm_arena_free(arena, ptr[i], 1000);
	idle_pages = address_space_pages();
	cr_assert_eq(gm_arena_mapped_bytes(arena), one, "one empty slab stays");
	cr_assert_leq(idle_pages + (peak - one) / 4096, full_pages, "the kernel did not get it back");
	ptr[0] = gm_arena_alloc(arena, 1000000);
	cr_assert_geq(gm_arena_mapped_bytes(arena), one + 1000000);
	gm_arena_free(arena, ptr[0], 1000000);
	cr_assert_eq(gm_arena_mapped_bytes(arena), one);
	cr_assert_eq(gm_arena_destroy(arena), 0u);
}

Test(arena, destroy_unmaps_everything)
{
	size_t before = address_space_pages(), after;

	for (unsigned round = 0; round < 50; round++) {
		struct gm_arena *arena = gm_arena_create();

		for (size_t bytes = 16; bytes <= 1 << 20; bytes *= 2)
			cr_assert_not_null(gm_arena_alloc(arena, bytes));
		cr_assert_gt(gm_arena_destroy(arena), 1u << 20);
	}
	after = address_space_pages();
	/* One round maps more than 1000 pages; the heap of the test itself may grow a little. */
	cr_assert_lt(after, before + 1000, "%zu pages before, %zu after", before, after);
}

Test(arena, impossible_sizes_fail)
{
	struct gm_arena *arena = gm_arena_create();

	cr_assert_null(gm_arena_alloc(arena, SIZE_MAX));
	cr_assert_null(gm_arena_alloc(arena, SIZE_MAX - 4096));
	cr_assert_null(gm_arena_alloc(arena, SIZE_MAX / 2));
	cr_assert_eq(gm_arena_live_bytes(arena), 0u);
	cr_assert_eq(gm_arena_mapped_bytes(arena), 0u);
	cr_assert_eq(gm_arena_destroy(arena), 0u);
}

#ifndef WITH_ASAN
/* The sanitizer's own mappings do not fit under such a limit. */
Test(arena, no_memory_leaves_nothing_behind)
{
	struct gm_arena *arena = gm_arena_create();
	struct rlimit none = { 0, 0 };
	void *small, *large;

	cr_assert_eq(getrlimit(RLIMIT_AS, &none), 0);
	none.rlim_cur = 0;
	cr_assert_eq(setrlimit(RLIMIT_AS, &none), 0);
	small = gm_arena_alloc(arena, 100);
	large = gm_arena_alloc(arena, 100000);
	none.rlim_cur = none.rlim_max;
	cr_assert_eq(setrlimit(RLIMIT_AS, &none), 0);
	cr_assert(!small && !large);
	cr_assert_eq(gm_arena_live_bytes(arena), 0u);
	cr_assert_eq(gm_arena_mapped_bytes(arena), 0u);
	small = gm_arena_alloc(arena, 100);
	cr_assert_not_null(small);
	gm_arena_free(arena, small, 100);
	cr_assert_eq(gm_arena_destroy(arena), 0u);
}
#endif

Test(arena, allocator_table)
{
	struct gm_arena *arena = gm_arena_create();
	struct gm_allocator table = gm_arena_allocator(arena);
	void *ptr = table.alloc(table.arg, 300);

	cr_assert_not_null(ptr);
	cr_assert_eq(gm_arena_live_bytes(arena), 300u);
	table.free(table.arg, ptr, 300);
	cr_assert_eq(gm_arena_destroy(arena), 0u);
}

struct worker {
	struct gm_arena *arena;
	uint64_t seed;
	bool ok;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct piece pieces[64] = { { 0 } };

	w->ok = true;
	for (unsigned step = 0; step < 20000 && w->ok; step++) {
		struct piece *p = &pieces[rng(&w->seed) % 64];

		if (p->ptr) {
			w->ok = all_are(p->ptr, p->bytes, p->pattern);
			gm_arena_free(w->arena, p->ptr, p->bytes);
			p->ptr = NULL;
			continue;
		}
		p->bytes = 1 + rng(&w->seed) % 3000;
		p->pattern = (unsigned char)(1 + rng(&w->seed) % 255);
		p->ptr = gm_arena_alloc(w->arena, p->bytes);
		w->ok = p->ptr && all_are(p->ptr, p->bytes, 0);
		if (p->ptr)
			memset(p->ptr, p->pattern, p->bytes);
	}
	for (unsigned i = 0; i < 64; i++)
		gm_arena_free(w->arena, pieces[i].ptr, pieces[i].bytes);
	return NULL;
}

Test(arena, four_threads)
{
	struct gm_arena *arena = gm_arena_create();
	struct worker workers[4];
	pthread_t threads[4];

	for (unsigned i = 0; i < 4; i++) {
		workers[i] = (struct worker){ .arena = arena, .seed = 1000 + i };
		cr_assert_eq(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
		cr_assert(workers[i].ok, "worker %u saw memory of others", i);
	}
	cr_assert_eq(gm_arena_destroy(arena), 0u);
}

#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>

Test(arena, freed_and_foreign_bytes_are_poisoned)
{
	struct gm_arena *arena = gm_arena_create();
	char *small = gm_arena_alloc(arena, 40), *large = gm_arena_alloc(arena, 100000);

	cr_assert_null(__asan_region_is_poisoned(small, 40));
	cr_assert_null(__asan_region_is_poisoned(large, 100000));
	cr_assert(__asan_address_is_poisoned(small + 40));
	cr_assert(__asan_address_is_poisoned(large + 100000));
	gm_arena_free(arena, small, 40);
	for (unsigned i = 0; i < 40; i++)
		cr_assert(__asan_address_is_poisoned(small + i));
	gm_arena_free(arena, large, 100000);
	cr_assert_null(__asan_region_is_poisoned(large, 100000), "unmapped: poison would hit the next owner");
	cr_assert_eq(gm_arena_destroy(arena), 0u);
}
#elif !defined(NDEBUG)
Test(arena, free_with_a_size_of_another_class_is_caught, .signal = SIGABRT)
{
	struct gm_arena *arena = gm_arena_create();

	gm_arena_free(arena, gm_arena_alloc(arena, 100), 1000);
}
#endif
