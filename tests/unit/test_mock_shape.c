/* SPDX-License-Identifier: MIT */
/* Shapes of the mock: presets, what each word takes away or adds, memory seen in part, peers, accessed and dirty bits. */
#include "config.h"

#include <stdio.h>

#include "mock_fixture.h"

#define VA UINT64_C(0x200000)

Test(mock_shape, presets)
{
	const char *name, *words, *text;
	unsigned n;

	for (n = 0; gm_mock_preset(n, &name, &words, &text) == GM_RET_SUCCESS; n++) {
		struct gm_mock_config by_name, by_words;
		char spec[100];
		struct mock_fixture fx;

		(void)snprintf(spec, sizeof(spec), "preset=%s", name);
		cr_assert_eq(gm_mock_parse(spec, &by_name), GM_RET_SUCCESS, "%s", name);
		cr_assert_eq(gm_mock_parse(words, &by_words), GM_RET_SUCCESS, "%s", name);
		cr_assert_arr_eq(&by_name, &by_words, sizeof(by_name), "%s", name);
		cr_assert(strlen(text) > 20 && text[strlen(text) - 1] == '.', "%s has no sentence", name);
		(void)snprintf(spec, sizeof(spec), "preset=%s,vram=8M", name);
		fx_open(&fx, spec);
		cr_assert_eq(fx.caps.slab[0].end - fx.caps.slab[0].begin, 8 * MIB);
		fx_close(&fx);
	}
	cr_assert_geq(n, 8);
	cr_assert_eq(gm_mock_preset(n, &name, NULL, NULL), GM_RET_NOENT);
	cr_assert_eq(gm_mock_preset(0, NULL, NULL, NULL), GM_RET_SUCCESS);
}

/* "minimal" is what it says: no optional capability, and the slots answer their defaults. */
Test(mock_shape, minimal)
{
	struct mock_fixture fx;
	uint8_t bits;
	uint64_t word;

	fx_open(&fx, "preset=minimal,vram=1M");
	cr_assert_eq(fx.caps.caps, 0);
	fx_enter(&fx, VA, PA, PAGE, 0);
	cr_assert_eq(fx.mmu->pmap_protect(fx.pmap, VA, PAGE, 0), GM_RET_UNIMPLEMENTED);
	cr_assert_eq(fx.mmu->access(fx.pmap, VA, &word, 8, false), GM_RET_UNIMPLEMENTED);
	cr_assert_eq(fx.mmu->pmap_harvest(fx.pmap, VA, PAGE, &bits), GM_RET_UNIMPLEMENTED);
	cr_assert_null(fx.mmu->cpu_ptr(fx.m, PA, PAGE));
	fx_close(&fx);
	fx_open(&fx, "vram=1M");
	cr_assert_eq(fx.caps.caps, GM_CAP_FAULTS | GM_CAP_HOST_MAP | GM_CAP_CPU_VISIBLE | GM_CAP_FAST_INVL | GM_CAP_SUBMIT |
					   GM_CAP_ACCESS | GM_CAP_PROTECT | (fx.caps.caps & GM_CAP_SYNC));
	fx_close(&fx);
	fx_open(&fx, "vram=1M,dirty=yes,peer=1");
	cr_assert(fx.caps.caps & GM_CAP_DIRTY);
	cr_assert(fx.caps.caps & GM_CAP_PEER);
	fx_close(&fx);
}

Test(mock_shape, visible_in_part)
{
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M,visible=20K");
	cr_assert(fx.caps.caps & GM_CAP_CPU_VISIBLE);
	cr_assert_not_null(fx.mmu->cpu_ptr(fx.m, PA, 5 * PAGE));
	cr_assert_eq((char *)fx.mmu->cpu_ptr(fx.m, PA + 4 * PAGE, PAGE), (char *)fx.mmu->cpu_ptr(fx.m, PA, PAGE) + 4 * PAGE);
	cr_assert_null(fx.mmu->cpu_ptr(fx.m, PA, 6 * PAGE));
	cr_assert_null(fx.mmu->cpu_ptr(fx.m, PA + 5 * PAGE, PAGE));
	cr_assert_null(fx.mmu->cpu_ptr(fx.m, PA + MIB - PAGE, PAGE));
	fx_close(&fx);
}

/* ------------------------------------------------------------------ peers */

struct pair {
	struct mock_fixture a, b;
};

static void open_pair(struct pair *p, const char *a, const char *b)
{
	fx_open(&p->a, a);
	fx_open(&p->b, b);
}

static gm_ret_t from_peer(struct pair *p, uint64_t pa, uint64_t from, uint64_t bytes)
{
	struct gm_copy c = { .kind = GM_COPY_FROM_PEER, .pa = pa, .host = from, .bytes = bytes, .peer = p->b.m };
	struct gm_fence *fence = mock_svc_fence_create(&p->a.s);

	cr_assert_eq(p->a.mmu->copy(p->a.m, &c, 1, fence), GM_RET_SUCCESS);
	return fx_finish(&p->a, fence);
}

static void run_peers(const char *words)
{
	struct gm_mock_stats stats;
	char text[100];
	struct pair p;

	(void)snprintf(text, sizeof(text), "vram=1M,peer=3%s", words);
	open_pair(&p, text, "vram=1M,peer=3");
	cr_assert_eq(p.a.mmu->peer_reach(p.a.m, p.b.m), GM_RET_SUCCESS);
	cr_assert_eq(p.b.mmu->peer_reach(p.b.m, p.a.m), GM_RET_SUCCESS);
	cr_assert_eq(p.a.mmu->peer_reach(p.a.m, p.a.m), GM_RET_NOTSUP);
	*fx_word(&p.b, PA + 3 * PAGE) = 33;
	*fx_word(&p.b, PA + 4 * PAGE) = 44;
	cr_assert_eq(from_peer(&p, PA + 7 * PAGE, PA + 3 * PAGE, 2 * PAGE), GM_RET_SUCCESS);
	cr_assert_eq(*fx_word(&p.a, PA + 7 * PAGE), 33);
	cr_assert_eq(*fx_word(&p.a, PA + 8 * PAGE), 44);
	gm_mock_dev_stats(p.a.m, &stats);
	cr_assert_eq(stats.bytes_from_peer, 2 * PAGE);
	cr_assert_eq(stats.bytes_to_dev, 0);
	cr_assert_eq(gm_mock_dev_bad_page(p.b.m, PA + 4 * PAGE), GM_RET_SUCCESS);
	cr_assert_eq(from_peer(&p, PA + 7 * PAGE, PA + 3 * PAGE, 2 * PAGE), GM_RET_IO);
	cr_assert_eq(from_peer(&p, PA + 7 * PAGE, PA + 3 * PAGE, PAGE), GM_RET_SUCCESS);
	gm_mock_dev_lose(p.b.m);
	cr_assert_eq(from_peer(&p, PA + 7 * PAGE, PA + 3 * PAGE, PAGE), GM_RET_IO);
	p.b.mmu->pmap_destroy(p.b.pmap);
	p.b.mmu->dev_fini(p.b.m);
	fx_close(&p.a);
}

Test(mock_shape, peers)
{
	struct pair p;

	run_peers("");
	run_peers(",engines=2,reorder=4");
	open_pair(&p, "vram=1M,peer=3", "vram=1M,peer=4");
	cr_assert_eq(p.a.mmu->peer_reach(p.a.m, p.b.m), GM_RET_NOTSUP);
	cr_assert_eq(gm_mock_dev_fail(p.a.m, GM_MOCK_PEER_REACH, 1, 1), GM_RET_SUCCESS);
	cr_assert_eq(p.a.mmu->peer_reach(p.a.m, p.b.m), GM_RET_NOTSUP);
	fx_close(&p.b);
	fx_close(&p.a);
	open_pair(&p, "vram=1M", "vram=1M");
	cr_assert_eq(p.a.mmu->peer_reach(p.a.m, p.b.m), GM_RET_NOTSUP);
	fx_close(&p.b);
	fx_close(&p.a);
}

/* --------------------------------------------------- accessed and dirty */

#define A GM_PAGE_ACCESSED
#define D (GM_PAGE_ACCESSED | GM_PAGE_DIRTY)

static void touch(struct mock_fixture *fx, uint64_t va, bool write)
{
	uint64_t word = 1;

	cr_assert_eq(fx->mmu->access(fx->pmap, va, &word, 8, write), GM_RET_SUCCESS);
}

static void expect_bits(struct mock_fixture *fx, uint64_t va, unsigned n, const char *want)
{
	uint8_t bits[64];

	memset(bits, 0xee, sizeof(bits));
	cr_assert_eq(fx->mmu->pmap_harvest(fx->pmap, va, n * fx->m->granule_bytes, bits), GM_RET_SUCCESS);
	for (unsigned i = 0; i < n; i++)
		cr_expect_eq(bits[i], want[i] == 'd' ? D : want[i] == 'a' ? A : 0, "granule %u: %u, not %c", i,
			     (unsigned)bits[i], want[i]);
	cr_expect_eq(bits[n], 0xee, "written beyond the end");
}

Test(mock_shape, dirty_bits)
{
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M,pages=4K,dirty=yes");
	expect_bits(&fx, VA, 4, "----"); /* never mapped */
	fx_enter(&fx, VA, PA, 6 * PAGE, GM_PTE_WRITE);
	expect_bits(&fx, VA, 6, "------");
	touch(&fx, VA + PAGE, false);
	touch(&fx, VA + 2 * PAGE, true);
	touch(&fx, VA + 4 * PAGE, true);
	expect_bits(&fx, VA, 4, "-ad-");
	expect_bits(&fx, VA, 6, "----d-"); /* cleared where it was read, kept where it was not */
	/* The translation is in the TLB: a store must be seen all the same. */
	touch(&fx, VA + 2 * PAGE, true);
	fx_remove(&fx, VA, 6 * PAGE);
	touch(&fx, VA + 4 * PAGE, true); /* an old translation, not yet invalidated */
	fx_invl(&fx, VA, 6 * PAGE);
	/* Outlives the mapping, until the next one. */
	expect_bits(&fx, VA + 4 * PAGE, 1, "d");
	fx_enter(&fx, VA, PA, 6 * PAGE, 0);
	expect_bits(&fx, VA, 6, "------");
	/* More rights for what is mapped: its bits stay. */
	touch(&fx, VA, false);
	fx_enter(&fx, VA, PA, 2 * PAGE, GM_PTE_WRITE);
	expect_bits(&fx, VA, 2, "a-");
	fx_close(&fx);
}

/* An enter that fails has no effect on the bits; a harvest that fails clears none. */
Test(mock_shape, dirty_bits_and_failures)
{
	struct mock_fixture fx;
	uint8_t bit = 9;

	fx_open(&fx, "vram=1M,pages=4K,dirty=yes");
	fx_enter(&fx, VA, PA, PAGE, GM_PTE_WRITE);
	touch(&fx, VA, true);
	fx_remove(&fx, VA, PAGE);
	fx_invl(&fx, VA, PAGE);
	for (long nth = 1; nth < 5; nth++) {
		gm_ret_t ret;

		atomic_store(&fx.s.fail_alloc, nth);
		ret = fx.mmu->pmap_enter(fx.pmap, VA, PA, PAGE, 0);
		if (atomic_load(&fx.s.fail_alloc) == 0)
			cr_assert_eq(ret, GM_RET_NOMEM);
		atomic_store(&fx.s.fail_alloc, 0);
		if (ret == GM_RET_SUCCESS)
			break;
		cr_assert_eq(gm_mock_dev_fail(fx.m, GM_MOCK_HARVEST, 1, 1), GM_RET_SUCCESS);
		cr_assert_eq(fx.mmu->pmap_harvest(fx.pmap, VA, PAGE, &bit), GM_RET_NOMEM);
		cr_assert_eq(bit, 9);
	}
	fx_remove(&fx, VA, PAGE);
	fx_invl(&fx, VA, PAGE);
	fx_enter(&fx, VA, PA, PAGE, GM_PTE_WRITE);
	touch(&fx, VA, true);
	fx_remove(&fx, VA, PAGE);
	fx_invl(&fx, VA, PAGE);
	cr_assert_eq(gm_mock_dev_fail(fx.m, GM_MOCK_PMAP_ENTER, 1, 1), GM_RET_SUCCESS);
	cr_assert_eq(fx.mmu->pmap_enter(fx.pmap, VA, PA, PAGE, 0), GM_RET_NOMEM);
	atomic_store(&fx.s.fail_alloc, 1); /* the page table's first */
	cr_assert_eq(fx.mmu->pmap_enter(fx.pmap, VA, PA, PAGE, 0), GM_RET_NOMEM);
	expect_bits(&fx, VA, 1, "d");
	fx_close(&fx);
}

/* A page reports for each of its granules; granules of 64 KiB have a byte each. */
Test(mock_shape, dirty_bits_of_large_pages)
{
	struct mock_fixture fx;

	fx_open(&fx, "vram=4M,dirty=yes");
	fx_enter(&fx, VA, PA, 16 * PAGE, GM_PTE_WRITE);              /* one page of 64 KiB */
	fx_enter(&fx, VA + 16 * PAGE, PA + 17 * PAGE, PAGE, GM_PTE_WRITE); /* one of 4 KiB */
	touch(&fx, VA + 5 * PAGE, true);
	expect_bits(&fx, VA, 17, "dddddddddddddddd-");
	fx_close(&fx);
	fx_open(&fx, "vram=4M,pages=64K,dirty=yes");
	fx_enter(&fx, VA, PA, 64 * PAGE, GM_PTE_WRITE);
	touch(&fx, VA + 20 * PAGE, true);
	touch(&fx, VA + 50 * PAGE, false);
	expect_bits(&fx, VA, 4, "-d-a");
	fx_close(&fx);
}
