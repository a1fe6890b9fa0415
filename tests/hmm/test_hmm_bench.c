/* SPDX-License-Identifier: MIT */
/*
 * The row benchmark_thp_migration of the HMM table, as a test: each size from 1/4 to 16 huge pages goes there and back,
 * with huge pages and without, and is where it should be. The milliseconds and GB/s, up to 128 huge pages, are
 * printed by bench/bench_thp.
 */
#include "config.h"

#include "hmm.h"

static void there_and_back(uint64_t bytes, enum hmm_pages pages)
{
	struct hmm h = hmm_open(1);
	struct hmm_buf b = hmm_buffer(&h, bytes, pages);
	char *want = hmm_pattern(bytes, 2);

	hmm_fill(b.at, bytes, 1);
	if (pages == HMM_THP && bytes >= BLOCK)
		hmm_need_huge(b.at, bytes);
	HMM_OK(hmm_to_dev(&h, 0, b.at, bytes));
	HMM_OK(hmm_dev_write(&h, 0, b.at, bytes, want));
	hmm_on_device(h.as, h.dev[0], b.at, bytes, want);
	for (uint64_t off = 0; off + BLOCK <= bytes; off += BLOCK)
		cr_assert(hmm_dev_huge(h.as, h.dev[0], b.at + off));
	HMM_OK(hmm_to_sys(&h, b.at, bytes));
	cr_assert_eq(h.moved, bytes / PAGE);
	hmm_on_host(h.as, b.at, bytes);
	if (pages == HMM_THP && bytes >= BLOCK)
		cr_assert_eq(hmm_pages(b.at, bytes, HMM_HUGE, 0), bytes / PAGE, "huge pages stay so");
	if (pages == HMM_NO_THP)
		hmm_small(b.at, bytes);
	cr_assert_eq(hmm_wrong(b.at, bytes, 2), 0);
	free(want);
	hmm_unmap(&b);
	hmm_close(&h);
}

HMM_TEST(benchmark_thp_migration)
{
	for (uint64_t bytes = BLOCK / 4; bytes <= 16 * BLOCK; bytes *= 2) {
		there_and_back(bytes, HMM_NO_THP);
		there_and_back(bytes, HMM_THP);
	}
}
