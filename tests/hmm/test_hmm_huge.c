/* SPDX-License-Identifier: MIT */
/*
 * Rows of the HMM table: huge pages. One moves as one, in a frame of 2 MiB, mapped as one page; where such a frame is
 * not to be had, or the page cannot go back as one, it goes in small pages, and no byte is lost.
 *
 * All device memory is written before (soil()), so that zeros that are found there were put there.
 */
#include "config.h"

#include "hmm.h"

#define VRAM_BLOCKS 8u

/* A space whose device memory is full of other bytes, all of it free. */
static struct hmm soiled(void)
{
	struct hmm h = { .faults = 0 };
	struct hmm_buf b;
	char *dirt;

	hmm_open_with(&h, 1, "16M", 0);
	b = hmm_buffer(&h, VRAM_BLOCKS * BLOCK, HMM_ANY_SIZE);
	dirt = hmm_pattern(b.bytes, 99);
	HMM_OK(hmm_to_dev(&h, 0, b.at, b.bytes));
	HMM_OK(hmm_dev_write(&h, 0, b.at, b.bytes, dirt));
	hmm_on_device(h.as, h.dev[0], b.at, b.bytes, dirt);
	HMM_OK(gm_release(h.as, b.at, b.bytes));
	cr_assert_eq(hmm_dev_free(h.dev[0]), VRAM_BLOCKS * BLOCK);
	free(dirt);
	hmm_unmap(&b);
	return h;
}

/* Mapped by the device as one page that may be written. */
static bool mapped_as_one(struct hmm *h, const void *at)
{
	struct gm_mock_xlate x;

	return hmm_dev_walk(h->ctx[0], GM_VA(at), &x) && x.shift == GM_MOCK_SHIFT_2M && (x.pte & GM_PTE_WRITE) &&
	       !(x.pte & GM_PTE_HOST);
}

/* Memory that was asked to be huge and never touched. */
HMM_TEST(migrate_anon_huge_empty)
{
	struct hmm h = soiled();
	struct hmm_buf b = hmm_buffer(&h, BLOCK, HMM_THP);
	char *got = hmm_private(BLOCK);

	cr_assert_eq(hmm_pages(b.at, BLOCK, HMM_PRESENT, 0), 0);
	hmm_away_all(&h, 0, &b, NULL);
	cr_assert(hmm_dev_huge(h.as, h.dev[0], b.at));
	HMM_OK(hmm_dev_read(&h, 0, b.at, BLOCK, got));
	cr_assert_eq(hmm_nonzero(got, BLOCK), 0, "the device sees what was there before");
	cr_assert_eq(hmm_nonzero(b.at, BLOCK), 0);
	free(got);
	hmm_unmap(&b);
	hmm_close(&h);
}

/* The huge page of zeros: there, and back again. */
HMM_TEST(migrate_anon_huge_zero)
{
	struct hmm h = soiled();
	struct hmm_buf b = hmm_buffer(&h, BLOCK, HMM_THP);
	char *got = hmm_private(BLOCK);

	cr_assert_eq(*(volatile char *)b.at, 0); /* a read fault alone */
	if (hmm_pages(b.at, BLOCK, HMM_PRESENT | HMM_ZERO, 0) != GM_BLOCK_PAGES)
		cr_skip_test("NOT TESTED: no huge page of zeros here (transparent_hugepage/use_zero_page)");
	hmm_away_all(&h, 0, &b, NULL);
	cr_assert(hmm_dev_huge(h.as, h.dev[0], b.at));
	HMM_OK(hmm_dev_read(&h, 0, b.at, BLOCK, got));
	cr_assert_eq(hmm_nonzero(got, BLOCK), 0);
	HMM_OK(hmm_to_sys(&h, b.at, BLOCK));
	cr_assert_eq(hmm_away(h.as, b.at, BLOCK), 0);
	cr_assert_eq(hmm_nonzero(b.at, BLOCK), 0);
	hmm_fill(b.at, BLOCK, 1); /* pages of its own now, and the page of zeros has stayed one */
	cr_assert_eq(hmm_pages(b.at, BLOCK, HMM_PRESENT, HMM_ZERO), GM_BLOCK_PAGES);
	cr_assert_eq(hmm_wrong(b.at, BLOCK, 1), 0);
	free(got);
	hmm_unmap(&b);
	hmm_close(&h);
}

/* A huge page with content, moved as one to the device, which has then written it. */
static struct hmm_buf one_on_device(struct hmm *h, char *want)
{
	struct hmm_buf b = hmm_buffer(h, BLOCK, HMM_THP);

	hmm_fill(b.at, BLOCK, 1);
	hmm_need_huge(b.at, BLOCK);
	HMM_OK(hmm_to_dev(h, 0, b.at, BLOCK));
	HMM_OK(hmm_dev_write(h, 0, b.at, BLOCK, want));
	hmm_on_device(h->as, h->dev[0], b.at, BLOCK, want);
	cr_assert(hmm_dev_huge(h->as, h->dev[0], b.at), "not one frame of 2 MiB");
	return b;
}

/* madvise(MADV_FREE) of what the device has: its memory is free again, and no old byte is seen. */
HMM_TEST(migrate_anon_huge_free)
{
	struct hmm h = soiled();
	char *want = hmm_pattern(BLOCK, 2), *got = hmm_private(BLOCK);
	struct hmm_buf b = one_on_device(&h, want);

	cr_assert_eq(madvise(b.at, BLOCK, MADV_FREE), 0);
	hmm_gone(&h, &b);
	HMM_OK(hmm_dev_read(&h, 0, b.at, BLOCK, got));
	cr_assert_eq(hmm_nonzero(got, BLOCK), 0);
	hmm_on_device(h.as, h.dev[0], b.at, BLOCK, NULL);
	cr_assert_eq(hmm_nonzero(b.at, BLOCK), 0);
	hmm_fill(b.at, BLOCK, 3);
	hmm_fill(want, BLOCK, 3);
	hmm_away_all(&h, 0, &b, want);
	cr_assert_eq(hmm_wrong(b.at, BLOCK, 3), 0);
	free(want);
	free(got);
	hmm_unmap(&b);
	hmm_close(&h);
}

/* Local, writable, one page of 2 MiB, absent for the kernel; comes back by fault, or as one by a call. */
HMM_TEST(migrate_anon_huge_fault)
{
	struct hmm h = soiled();
	char *want = hmm_pattern(BLOCK, 2);
	struct hmm_buf b = one_on_device(&h, want);

	cr_assert(mapped_as_one(&h, b.at));
	cr_assert_eq(hmm_pages(b.at, BLOCK, 0, HMM_PRESENT | HMM_MARKED), GM_BLOCK_PAGES);
	cr_assert_eq(b.at[7 * PAGE], want[7 * PAGE]);
	hmm_on_host(h.as, b.at, BLOCK); /* by one fault */
	cr_assert_eq(hmm_pages(b.at, BLOCK, HMM_PRESENT | HMM_HUGE, 0), GM_BLOCK_PAGES, "as one");
	cr_assert_not(mapped_as_one(&h, b.at));
	cr_assert_eq(hmm_wrong(b.at, BLOCK, 2), 0);
	hmm_unmap(&b);

	b = one_on_device(&h, want);
	HMM_OK(hmm_to_sys(&h, b.at, BLOCK));
	hmm_on_host(h.as, b.at, BLOCK);
	cr_assert_eq(hmm_pages(b.at, BLOCK, HMM_PRESENT | HMM_HUGE, 0), GM_BLOCK_PAGES, "as one");
	cr_assert_eq(hmm_wrong(b.at, BLOCK, 2), 0);
	free(want);
	hmm_unmap(&b);
	hmm_close(&h);
}

/* Towards the device: no frame of 2 MiB is to be had, so small ones are taken. `want` NULL: zeros. */
static void no_huge_frame(struct hmm *h, struct hmm_buf *b, char *want)
{
	struct gm_chunk *kept[VRAM_BLOCKS];
	char *got = hmm_private(BLOCK);

	hmm_fragment(h->dev[0], kept, VRAM_BLOCKS);
	hmm_away_all(h, 0, b, want);
	cr_assert_not(hmm_dev_huge(h->as, h->dev[0], b->at), "a frame of 2 MiB, where there is none");
	HMM_OK(hmm_dev_read(h, 0, b->at, BLOCK, got));
	cr_assert_eq(want ? (uint64_t)memcmp(got, want, BLOCK) : hmm_nonzero(got, BLOCK), 0);
	cr_assert_not(mapped_as_one(h, b->at));
	HMM_OK(hmm_to_sys(h, b->at, BLOCK));
	cr_assert_eq(hmm_away(h->as, b->at, BLOCK), 0);
	hmm_mend(h->dev[0], kept, VRAM_BLOCKS);
	free(got);
}

/* Towards the host: the place is two mappings by then, over which the kernel lays no huge page. */
static void no_huge_page(struct hmm *h, struct hmm_buf *b)
{
	HMM_OK(hmm_to_dev(h, 0, b->at, BLOCK));
	cr_assert(hmm_dev_huge(h->as, h->dev[0], b->at), "it is to be had again");
	cr_assert_eq(madvise(b->at, 5 * PAGE, MADV_DONTDUMP), 0);
	HMM_OK(hmm_to_sys(h, b->at, BLOCK));
	cr_assert_eq(hmm_away(h->as, b->at, BLOCK), 0);
	cr_assert_eq(hmm_pages(b->at, BLOCK, HMM_HUGE, 0), 0, "a huge page over two mappings");
}

/* The host keeps no frame (GM_AS_EXCLUSIVE): each page needs a new one, and gets a small one. */
static void no_frame_kept(const char *want)
{
	struct hmm h = { .faults = 0 };
	struct hmm_buf b;

	hmm_open_with(&h, 1, "16M", GM_AS_EXCLUSIVE);
	b = hmm_buffer(&h, BLOCK, HMM_THP);
	if (want)
		hmm_fill(b.at, BLOCK, 1);
	hmm_away_all(&h, 0, &b, want);
	HMM_OK(hmm_to_sys(&h, b.at, BLOCK));
	hmm_on_host(h.as, b.at, BLOCK);
	hmm_small(b.at, BLOCK);
	cr_assert_eq(want ? hmm_wrong(b.at, BLOCK, 1) : hmm_nonzero(b.at, BLOCK), 0);
	hmm_unmap(&b);
	hmm_close(&h);
}

HMM_TEST(migrate_anon_huge_err)
{
	struct hmm h = soiled();
	struct hmm_buf b = hmm_buffer(&h, BLOCK, HMM_THP);
	char *want = hmm_pattern(BLOCK, 1);

	hmm_fill(b.at, BLOCK, 1);
	hmm_need_huge(b.at, BLOCK);
	no_huge_frame(&h, &b, want);
	cr_assert_eq(hmm_wrong(b.at, BLOCK, 1), 0);
	no_huge_page(&h, &b);
	cr_assert_eq(hmm_wrong(b.at, BLOCK, 1), 0);
	hmm_unmap(&b);
	hmm_close(&h);
	no_frame_kept(want);
	free(want);
}

HMM_TEST(migrate_anon_huge_zero_err)
{
	struct hmm h = soiled();
	struct hmm_buf b = hmm_buffer(&h, BLOCK, HMM_THP);

	cr_assert_eq(*(volatile char *)b.at, 0);
	no_huge_frame(&h, &b, NULL);
	cr_assert_eq(hmm_nonzero(b.at, BLOCK), 0);
	no_huge_page(&h, &b);
	cr_assert_eq(hmm_nonzero(b.at, BLOCK), 0);
	hmm_unmap(&b);
	hmm_close(&h);
	no_frame_kept(NULL);
}
