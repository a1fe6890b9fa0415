/* SPDX-License-Identifier: MIT */
/* Page sets against a plain array of bool: random, and every span there is. */
#include "config.h"

#include <string.h>

#include <criterion/criterion.h>

#include "hal/gm_mask.h"

#define N GM_BLOCK_PAGES

struct naive {
	bool bit[N];
};

static uint64_t rng_state;

static uint64_t rng(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state;
}

static bool same(const struct gm_mask *m, const struct naive *n)
{
	for (unsigned i = 0; i < N; i++) {
		if (gm_mask_test(m, i) != n->bit[i])
			return false;
	}
	return true;
}

/* Runs of random lengths, so that words are full, empty and mixed. */
static void random_pair(struct gm_mask *m, struct naive *n)
{
	uint64_t longest = 1 + rng() % 200;
	bool on = rng() % 2;

	*m = gm_mask_none();
	for (unsigned i = 0; i < N;) {
		unsigned end = i + 1 + (unsigned)(rng() % longest);

		for (; i < N && i < end; i++) {
			n->bit[i] = on;
			if (on)
				gm_mask_set(m, i);
		}
		on = !on;
	}
}

static unsigned naive_count(const struct naive *n)
{
	unsigned count = 0;

	for (unsigned i = 0; i < N; i++)
		count += n->bit[i];
	return count;
}

static void check_algebra(const struct gm_mask *a, const struct naive *na, const struct gm_mask *b,
			  const struct naive *nb)
{
	struct gm_mask m_and = gm_mask_and(*a, *b), m_or = gm_mask_or(*a, *b);
	struct gm_mask m_sub = gm_mask_sub(*a, *b), m_not = gm_mask_not(*a);
	bool meets = false, equal = true;

	for (unsigned i = 0; i < N; i++) {
		cr_assert_eq(gm_mask_test(&m_and, i), na->bit[i] && nb->bit[i]);
		cr_assert_eq(gm_mask_test(&m_or, i), na->bit[i] || nb->bit[i]);
		cr_assert_eq(gm_mask_test(&m_sub, i), na->bit[i] && !nb->bit[i]);
		cr_assert_eq(gm_mask_test(&m_not, i), !na->bit[i]);
		meets |= na->bit[i] && nb->bit[i];
		equal &= na->bit[i] == nb->bit[i];
	}
	cr_assert_eq(gm_mask_meets(a, b), meets);
	cr_assert_eq(gm_mask_equal(a, b), equal);
	cr_assert(gm_mask_equal(a, a));
	cr_assert_eq(gm_mask_count(a), naive_count(na));
	cr_assert_eq(gm_mask_empty(a), naive_count(na) == 0);
	cr_assert_eq(gm_mask_full(a), naive_count(na) == N);
}

Test(mask, algebra_random)
{
	struct gm_mask a, b;
	struct naive na, nb;

	rng_state = 0x9e3779b97f4a7c15;
	for (unsigned round = 0; round < 500; round++) {
		random_pair(&a, &na);
		random_pair(&b, &nb);
		cr_assert(same(&a, &na));
		check_algebra(&a, &na, &b, &nb);
	}
}

Test(mask, empty_and_full)
{
	struct gm_mask none = gm_mask_none();
	struct gm_mask all = gm_mask_not(none);

	cr_assert(gm_mask_empty(&none));
	cr_assert_not(gm_mask_full(&none));
	cr_assert(gm_mask_full(&all));
	cr_assert_not(gm_mask_empty(&all));
	cr_assert_eq(gm_mask_count(&all), N);
	cr_assert_not(gm_mask_meets(&none, &all));
	for (unsigned i = 0; i < N; i++) {
		struct gm_mask one = gm_mask_none(), hole = all;

		gm_mask_set(&one, i);
		gm_mask_clear(&hole, i);
		cr_assert_not(gm_mask_empty(&one), "page %u alone", i);
		cr_assert_not(gm_mask_full(&hole), "all but page %u", i);
		cr_assert_not(gm_mask_equal(&one, &none), "page %u", i);
		cr_assert_not(gm_mask_equal(&hole, &all), "page %u", i);
		cr_assert_not(gm_mask_meets(&one, &hole), "page %u", i);
		cr_assert(gm_mask_meets(&one, &all), "page %u", i);
	}
}

Test(mask, set_and_clear_touch_one_page)
{
	struct gm_mask m;
	struct naive n;

	rng_state = 77;
	random_pair(&m, &n);
	for (unsigned round = 0; round < 2000; round++) {
		unsigned i = (unsigned)(rng() % N);

		n.bit[i] = rng() % 2;
		if (n.bit[i])
			gm_mask_set(&m, i);
		else
			gm_mask_clear(&m, i);
		cr_assert(same(&m, &n));
	}
}

/* All 131328 spans, and the empty ones; each against a naive fill. */
Test(mask, every_span)
{
	for (unsigned first = 0; first <= N; first++) {
		struct gm_mask want = gm_mask_none();

		for (unsigned end = first; end <= N; end++) {
			struct gm_mask span = gm_mask_span(first, end);

			if (end > first)
				gm_mask_set(&want, end - 1);
			if (!gm_mask_equal(&span, &want))
				cr_assert_fail("span [%u, %u)", first, end);
		}
	}
}

Test(mask, span_is_total)
{
	struct gm_mask m = gm_mask_span(10, 5);

	cr_assert(gm_mask_empty(&m), "end before first");
	m = gm_mask_span(N, N + 64);
	cr_assert(gm_mask_empty(&m), "outside");
	m = gm_mask_span(0, N + 64);
	cr_assert(gm_mask_full(&m), "cut at the end");
}

static bool naive_next(const struct naive *n, unsigned *first, unsigned *end)
{
	while (*first < N && !n->bit[*first])
		(*first)++;
	if (*first >= N)
		return false;
	for (*end = *first; *end < N && n->bit[*end];)
		(*end)++;
	return true;
}

Test(mask, runs_random)
{
	rng_state = 4242;
	for (unsigned round = 0; round < 300; round++) {
		struct naive n, seen;
		struct gm_mask m;

		random_pair(&m, &n);
		for (unsigned from = 0; from <= N; from += 1 + (unsigned)(rng() % 9)) {
			unsigned f1 = from, e1 = 0, f2 = from, e2 = 0;
			bool got = gm_mask_next_run(&m, &f1, &e1), want = naive_next(&n, &f2, &e2);

			cr_assert_eq(got, want);
			if (want)
				cr_assert(f1 == f2 && e1 == e2, "from %u: [%u, %u) not [%u, %u)", from, f1, e1, f2, e2);
		}
		memset(&seen, 0, sizeof(seen));
		GM_MASK_FOR_RUN (&m, f, e) {
			cr_assert(f < e && e <= N);
			for (unsigned i = f; i < e; i++)
				seen.bit[i] = true;
		}
		cr_assert(same(&m, &seen));
	}
}

Test(mask, runs_of_none_and_all)
{
	struct gm_mask none = gm_mask_none(), all = gm_mask_not(none);
	unsigned runs = 0;

	GM_MASK_FOR_RUN (&none, f, e)
		cr_assert_fail("[%u, %u) in an empty set", f, e);
	GM_MASK_FOR_RUN (&all, f, e) {
		cr_assert(f == 0 && e == N);
		runs++;
	}
	cr_assert_eq(runs, 1u);
}

/* Spans added to what is there, and which units are met: against the plain array. */
Test(mask, add_span_and_units)
{
	const unsigned unit_pages = GM_UNIT_BYTES / GM_PAGE_BYTES;

	rng_state = 99;
	for (unsigned round = 0; round < 5000; round++) {
		unsigned first = (unsigned)(rng() % N), end = first + 1 + (unsigned)(rng() % (N - first));
		uint32_t units = 0;
		struct gm_mask m;
		struct naive n;

		random_pair(&m, &n);
		if (round % 3 == 0) { /* few pages, so that units are empty */
			m = gm_mask_none();
			memset(&n, 0, sizeof(n));
			end = first + 1 + (unsigned)(rng() % 20);
			end = end > N ? N : end;
		}
		gm_mask_add_span(&m, first, end);
		for (unsigned i = first; i < end; i++)
			n.bit[i] = true;
		cr_assert(same(&m, &n), "[%u, %u)", first, end);
		for (unsigned i = 0; i < N; i++)
			units |= (uint32_t)n.bit[i] << (i / unit_pages);
		cr_assert_eq(gm_mask_units(&m), units);
	}
}
