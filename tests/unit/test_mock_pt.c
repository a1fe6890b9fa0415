/* SPDX-License-Identifier: MIT */
/*
 * The mock's page table against an array: what every 4 KiB page of a piece of
 * VA should map to. Beyond equality: a page of the table must never cover
 * anything that the array does not have with the same rights and distance.
 */
#include "config.h"

#include "mock_fixture.h"

#define N_PAGES 4096u /* 16 MiB */
#define BYTES (N_PAGES * PAGE)

struct want {
	uint64_t pa; /* 0: not mapped */
	uint32_t pte;
};

struct oracle {
	struct mock_fixture fx;
	uint64_t base;    /* VA of page[0] */
	uint64_t granule; /* in pages */
	uint64_t seed;
	struct want page[N_PAGES];
};

static void check_page(struct oracle *o, unsigned i)
{
	uint64_t va = o->base + i * PAGE, first, n;
	struct gm_mock_xlate x;
	struct want *w = &o->page[i];

	if (!gm_mock_pt_walk(o->fx.m, &((struct gm_mock_pmap *)o->fx.pmap)->pt, va, &x)) {
		cr_assert_eq(w->pa, 0, "page %u is missing", i);
		return;
	}
	cr_assert_neq(w->pa, 0, "page %u should not be there", i);
	cr_assert_eq(x.pa + (va - x.va), w->pa, "page %u", i);
	cr_assert_eq(x.pte, w->pte, "rights of page %u", i);
	cr_assert((o->fx.m->config.page_sizes >> x.shift) & 1, "size of page %u", i);
	cr_assert(x.va % (UINT64_C(1) << x.shift) == 0 && x.pa % (UINT64_C(1) << x.shift) == 0);
	cr_assert_geq(x.va, o->base);
	first = (x.va - o->base) / PAGE;
	n = (UINT64_C(1) << x.shift) / PAGE;
	cr_assert_leq(first + n, N_PAGES);
	for (uint64_t k = first; k < first + n; k++) {
		cr_assert_eq(o->page[k].pa, x.pa + (k - first) * PAGE, "large page over page %u", (unsigned)k);
		cr_assert_eq(o->page[k].pte, x.pte);
	}
}

static void check_all(struct oracle *o)
{
	for (unsigned i = 0; i < N_PAGES; i++)
		check_page(o, i);
}

/* A range of granules, now and then of whole blocks. */
static void pick(struct oracle *o, unsigned *first, unsigned *n)
{
	unsigned unit = (unsigned)o->granule, units;

	if (fx_random(&o->seed) % 3 == 0)
		unit = 512;
	else if (fx_random(&o->seed) % 3 == 0 && unit < 16)
		unit = 16;
	units = N_PAGES / unit;
	*first = (unsigned)(fx_random(&o->seed) % units) * unit;
	*n = (unsigned)(1 + fx_random(&o->seed) % (N_PAGES - *first) / unit) * unit;
	if (*n > N_PAGES - *first)
		*n = N_PAGES - *first;
	if (fx_random(&o->seed) % 2 && *n > 40 * unit)
		*n = 40 * unit;
}

static uint32_t pick_pte(struct oracle *o)
{
	static const uint32_t pte[] = { 0, GM_PTE_WRITE, GM_PTE_WRITE | GM_PTE_ATOMIC };

	return pte[fx_random(&o->seed) % 3];
}

static void remove_pages(struct oracle *o, unsigned first, unsigned n)
{
	fx_remove(&o->fx, o->base + first * PAGE, n * PAGE);
	for (unsigned i = first; i < first + n; i++)
		o->page[i] = (struct want){ .pa = 0 };
}

static void enter_pages(struct oracle *o, unsigned first, unsigned n, uint64_t pa, uint32_t pte)
{
	fx_enter(&o->fx, o->base + first * PAGE, pa, n * PAGE, pte);
	for (unsigned i = first; i < first + n; i++)
		o->page[i] = (struct want){ .pa = pa + (i - first) * PAGE, .pte = pte };
}

/* Map anew, host or device memory, aligned well or badly. */
static void do_enter(struct oracle *o, unsigned first, unsigned n)
{
	uint64_t offset = first * PAGE + fx_random(&o->seed) % 3 * o->granule * PAGE * (fx_random(&o->seed) % 2);
	uint32_t pte = pick_pte(o);

	for (unsigned i = first; i < first + n; i++) {
		if (o->page[i].pa) {
			remove_pages(o, first, n);
			break;
		}
	}
	if (fx_random(&o->seed) % 4 == 0)
		enter_pages(o, first, n, UINT64_C(0x7f0000000000) + offset, pte | GM_PTE_HOST);
	else
		enter_pages(o, first, n, PA + offset, pte);
}

/* Enter again what is there, and what is not there around it, with all rights. */
static void do_grow(struct oracle *o, unsigned first, unsigned n)
{
	uint64_t pa = o->page[first].pa;
	uint32_t host = o->page[first].pte & GM_PTE_HOST;

	if (!pa)
		return;
	for (unsigned i = first; i < first + n; i++) {
		const struct want *w = &o->page[i];

		if (w->pa && (w->pa != pa + (i - first) * PAGE || (w->pte & GM_PTE_HOST) != host))
			n = i - first;
	}
	if (n > 0)
		enter_pages(o, first, n, pa, host | GM_PTE_WRITE | GM_PTE_ATOMIC);
}

static void do_protect(struct oracle *o, unsigned first, unsigned n)
{
	uint32_t pte = pick_pte(o);

	cr_assert_eq(o->fx.mmu->pmap_protect(o->fx.pmap, o->base + first * PAGE, n * PAGE, pte), GM_RET_SUCCESS);
	for (unsigned i = first; i < first + n; i++) {
		if (o->page[i].pa)
			o->page[i].pte = pte | (o->page[i].pte & GM_PTE_HOST);
	}
}

static void run_oracle(const char *options, uint64_t base, uint64_t seed)
{
	struct oracle *o = calloc(1, sizeof(*o));

	cr_assert_not_null(o);
	fx_open(&o->fx, options);
	o->base = base;
	o->seed = seed;
	o->granule = o->fx.m->granule_bytes / PAGE;
	for (unsigned step = 0; step < 600; step++) {
		unsigned first, n;

		pick(o, &first, &n);
		switch (fx_random(&o->seed) % 5) {
		case 0:
		case 1:
			do_enter(o, first, n);
			break;
		case 2:
			remove_pages(o, first, n);
			break;
		case 3:
			do_grow(o, first, n);
			break;
		default:
			do_protect(o, first, n);
			break;
		}
		for (unsigned k = 0; k < 64; k++)
			check_page(o, (unsigned)(fx_random(&o->seed) % N_PAGES));
		check_page(o, first);
		check_page(o, first + n - 1);
		check_page(o, first ? first - 1 : 0);
		check_page(o, first + n < N_PAGES ? first + n : 0);
		if (step % 50 == 0)
			check_all(o);
	}
	check_all(o);
	fx_close(&o->fx);
	free(o);
}

/* Every set of page sizes; the piece of VA lies over the borders of tables of every level. */
Test(mock_pt, oracle)
{
	static const char *const pages[] = { "pages=4K",    "pages=64K",   "pages=2M",       "pages=4K+64K",
					     "pages=4K+2M", "pages=64K+2M", "pages=4K+64K+2M" };

	for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		run_oracle(pages[i], 0, 11 + i);
		run_oracle(pages[i], (UINT64_C(1) << 30) - BYTES / 2, 22 + i);
		run_oracle(pages[i], (UINT64_C(3) << 39) - BYTES / 4, 33 + i);
		run_oracle(pages[i], (UINT64_C(1) << 48) - BYTES, 44 + i);
	}
}

static unsigned shift_at(struct mock_fixture *fx, uint64_t va)
{
	struct gm_mock_xlate x = { .shift = 0 };

	(void)gm_mock_pt_walk(fx->m, &((struct gm_mock_pmap *)fx->pmap)->pt, va, &x);
	return x.shift;
}

/* The largest page that address and length allow is used, and only what a range cuts is split. */
Test(mock_pt, sizes)
{
	uint64_t va = UINT64_C(0x10000000);
	struct mock_fixture fx;

	fx_open(&fx, "vram=64M");
	fx_enter(&fx, va - PAGE, PA + 2 * MIB - PAGE, 4 * MIB, GM_PTE_WRITE);
	cr_assert_eq(shift_at(&fx, va - PAGE), 12);
	cr_assert_eq(shift_at(&fx, va), 21);
	cr_assert_eq(shift_at(&fx, va + 2 * MIB), 16);
	cr_assert_eq(shift_at(&fx, va + 4 * MIB - 3 * PAGE), 12);
	cr_assert_eq(shift_at(&fx, va + 4 * MIB - PAGE), 0);
	fx_remove(&fx, va + 65536 + PAGE, PAGE);
	cr_assert_eq(shift_at(&fx, va), 16);
	cr_assert_eq(shift_at(&fx, va + 65536), 12);
	cr_assert_eq(shift_at(&fx, va + 65536 + PAGE), 0);
	cr_assert_eq(shift_at(&fx, va + 131072), 16);
	/* Back to one large page when all of it is entered again. */
	fx_enter(&fx, va, PA + 2 * MIB, 2 * MIB, GM_PTE_WRITE);
	cr_assert_eq(shift_at(&fx, va + 65536 + PAGE), 21);
	/* An address that is not aligned like the VA gets small pages. */
	fx_enter(&fx, va + 8 * MIB, PA + 8 * MIB + 65536, 2 * MIB, 0);
	cr_assert_eq(shift_at(&fx, va + 8 * MIB), 16);
	fx_enter(&fx, va + 16 * MIB, PA + 16 * MIB + PAGE, 2 * MIB, 0);
	cr_assert_eq(shift_at(&fx, va + 16 * MIB), 12);
	fx_close(&fx);
}

/* Tables that became empty are given back at once, and split tables by a large page. */
Test(mock_pt, tables_go_away)
{
	struct mock_fixture fx;
	long before;

	fx_open(&fx, "vram=64M");
	before = atomic_load(&fx.s.live_bytes);
	for (unsigned i = 0; i < 100; i++) {
		fx_enter(&fx, i * (UINT64_C(1) << 40), PA, 3 * PAGE, 0);
		fx_remove(&fx, i * (UINT64_C(1) << 40), 3 * PAGE);
		cr_assert_eq(atomic_load(&fx.s.live_bytes), before);
	}
	fx_enter(&fx, 0, PA, 2 * MIB, 0);
	before = atomic_load(&fx.s.live_bytes);
	cr_assert_eq(fx.mmu->pmap_protect(fx.pmap, PAGE, PAGE, GM_PTE_WRITE), GM_RET_SUCCESS);
	cr_assert_gt(atomic_load(&fx.s.live_bytes), before);
	fx_enter(&fx, 0, PA, 2 * MIB, GM_PTE_WRITE);
	cr_assert_eq(atomic_load(&fx.s.live_bytes), before);
	fx_close(&fx);
}

/* Without memory for a table, nothing changes: fail every allocation in turn. */
Test(mock_pt, no_memory_no_change)
{
	uint64_t va = (UINT64_C(1) << 39) - 3 * PAGE;
	struct mock_fixture fx;
	gm_ret_t ret;
	long before, nth;

	fx_open(&fx, "vram=64M");
	before = atomic_load(&fx.s.live_bytes);
	for (nth = 1; nth < 20; nth++) {
		atomic_store(&fx.s.fail_alloc, nth);
		ret = fx.mmu->pmap_enter(fx.pmap, va, PA + 2 * MIB - 3 * PAGE, 6 * PAGE, 0);
		atomic_store(&fx.s.fail_alloc, 0);
		if (ret == GM_RET_SUCCESS)
			break;
		cr_assert_eq(ret, GM_RET_NOMEM);
		cr_assert_eq(atomic_load(&fx.s.live_bytes), before);
		cr_assert(gm_mock_pt_empty(fx.m, &((struct gm_mock_pmap *)fx.pmap)->pt));
	}
	/* Two tables of each of the levels 2, 1 and 0. */
	cr_assert_eq(nth, 7);
	fx_enter(&fx, 4 * MIB, PA + 4 * MIB, 4 * MIB, 0);
	for (nth = 1; nth < 20; nth++) {
		atomic_store(&fx.s.fail_alloc, nth);
		ret = fx.mmu->pmap_remove(fx.pmap, 5 * MIB, 2 * MIB);
		atomic_store(&fx.s.fail_alloc, 0);
		if (ret == GM_RET_SUCCESS)
			break;
		cr_assert_eq(ret, GM_RET_NOMEM);
		cr_assert_eq(shift_at(&fx, 5 * MIB), 21);
		cr_assert_eq(shift_at(&fx, 6 * MIB), 21);
	}
	cr_assert_eq(nth, 3);
	cr_assert_eq(shift_at(&fx, 5 * MIB), 0);
	cr_assert_eq(shift_at(&fx, 5 * MIB - PAGE), 16);
	fx_close(&fx);
}
