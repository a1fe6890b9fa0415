/* SPDX-License-Identifier: MIT */
/*
 * Rows of the HMM table: a snapshot of what there is, without a fault. The codes are those of HMM_DMIRROR_SNAPSHOT,
 * put together from the library's state (place, who has it), the kernel's page map and the rights of the process, so
 * that each row asks all of them.
 */
#include "config.h"

#include <inttypes.h>

#include "hmm.h"

#define S_ERROR 0xffu
#define S_NONE 0x00u
#define S_READ 0x01u
#define S_WRITE 0x02u
#define S_PMD 0x04u
#define S_ZERO 0x10u
#define S_LOCAL 0x20u

/* What the process may do at va: GM_READ, GM_WRITE; 0: nothing, or nothing is mapped. */
static uint32_t rights_at(uint64_t va)
{
	FILE *f = fopen("/proc/self/maps", "r");
	uint32_t rights = 0;
	char line[400];

	cr_assert_not_null(f);
	while (fgets(line, sizeof(line), f)) {
		uint64_t begin, end;
		char r, w;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %c%c", &begin, &end, &r, &w) == 4 && va >= begin && va < end)
			rights = (r == 'r' ? GM_READ : 0) | (w == 'w' ? GM_WRITE : 0);
	}
	fclose(f);
	return rights;
}

/* One byte of HMM_DMIRROR_SNAPSHOT, as device i sees it. Private memory of another device is nothing to it. */
static unsigned snapshot(struct hmm *h, unsigned i, const void *at)
{
	struct gm_page_info info = hmm_settled_info(h->as, GM_VA(at));
	uint32_t rights = rights_at(GM_VA(at));
	unsigned map = hmm_pagemap(GM_VA(at)), s = rights & GM_WRITE ? S_WRITE : S_READ;

	if (!rights)
		return S_ERROR;
	if (info.place == GM_PLACE_DEVICE) {
		cr_assert_not(map & HMM_PRESENT, "in two places");
		cr_assert_not_null(hmm_dev_bytes(h->as, info.dev, GM_VA(at)));
		if (info.dev != h->dev[i])
			return S_NONE;
		return S_LOCAL | s | (hmm_dev_huge(h->as, info.dev, at) ? S_PMD : 0);
	}
	cr_assert_null(hmm_dev_bytes(h->as, h->dev[i], GM_VA(at)), "in two places");
	if (!(map & HMM_PRESENT))
		return S_NONE;
	if (map & HMM_ZERO)
		return S_ZERO | S_READ;
	return s | (map & HMM_HUGE ? S_PMD : 0);
}

/* The reason why this row has no test. */
HMM_TEST(mixedmap)
{
	cr_skip_test("NOT TESTED: needs a mapping of a driver that mixes pages and frames without one (VM_MIXEDMAP), "
		     "which a process cannot make");
}

/* Two devices; looking changes nothing: no fault, no move, the same again. */
HMM_TEST(snapshot)
{
	static const unsigned want[2][8] = {
		{ S_ERROR, S_ERROR, S_NONE, S_ZERO | S_READ, S_READ, S_WRITE, S_LOCAL | S_WRITE, S_NONE },
		{ S_ERROR, S_ERROR, S_NONE, S_ZERO | S_READ, S_READ, S_WRITE, S_NONE, S_LOCAL | S_WRITE },
	};
	struct hmm h = hmm_open(2);
	struct hmm_buf b = hmm_buffer(&h, 16 * UNIT, HMM_NO_THP);
	char *p = b.at, *ones = hmm_pattern(8 * PAGE, 1);
	struct gm_stats before, after;

	cr_assert_eq(munmap(p, PAGE), 0);
	cr_assert_eq(mprotect(p + PAGE, PAGE, PROT_NONE), 0);
	cr_assert_eq(((volatile char *)p)[3 * PAGE], 0);
	memcpy(p + 4 * PAGE, ones + 4 * PAGE, 4 * PAGE);
	cr_assert_eq(mprotect(p + 4 * PAGE, PAGE, PROT_READ), 0);
	HMM_OK(hmm_to_dev(&h, 0, p + 6 * PAGE, PAGE));
	HMM_OK(hmm_to_dev(&h, 1, p + 7 * PAGE, PAGE));
	HMM_OK(gm_as_stats(h.as, &before));
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < 2; i++)
			for (unsigned page = 0; page < 8; page++)
				cr_assert_eq(snapshot(&h, i, p + page * PAGE), want[i][page], "device %u, page %u: %02x, not %02x", i,
					     page, snapshot(&h, i, p + page * PAGE), want[i][page]);
	HMM_OK(gm_as_stats(h.as, &after));
	cr_assert_eq(before.cpu_faults + before.dev_faults + before.migrations_to_dev + before.migrations_to_host,
		     after.cpu_faults + after.dev_faults + after.migrations_to_dev + after.migrations_to_host);
	hmm_on_device(h.as, h.dev[0], p + 6 * PAGE, PAGE, ones + 6 * PAGE);
	hmm_on_device(h.as, h.dev[1], p + 7 * PAGE, PAGE, ones + 7 * PAGE);
	cr_assert_eq(memcmp(p + 4 * PAGE, ones + 4 * PAGE, 4 * PAGE), 0);
	free(ones);
	hmm_unmap(&b);
	hmm_close(&h);
}

static void every_page_is(struct hmm *h, const struct hmm_buf *b, unsigned want)
{
	for (uint64_t off = 0; off < b->bytes; off += PAGE)
		cr_assert_eq(snapshot(h, 0, b->at + off), want, "page %u: %02x, not %02x", (unsigned)(off / PAGE),
			     snapshot(h, 0, b->at + off), want);
}

/* A huge page: one size and one right for all of it, writable, then read-only; on the host, and on the device. */
HMM_TEST(compound)
{
	struct hmm h = hmm_open(1);
	struct hmm_buf b = hmm_buffer(&h, BLOCK, HMM_THP);
	char *want = hmm_pattern(BLOCK, 1);

	hmm_fill(b.at, BLOCK, 1);
	hmm_need_huge(b.at, BLOCK);
	every_page_is(&h, &b, S_WRITE | S_PMD);
	cr_assert_eq(mprotect(b.at, BLOCK, PROT_READ), 0);
	every_page_is(&h, &b, S_READ | S_PMD);
	cr_assert_eq(mprotect(b.at, BLOCK, PROT_READ | PROT_WRITE), 0);
	hmm_away_all(&h, 0, &b, want);
	every_page_is(&h, &b, S_LOCAL | S_WRITE | S_PMD);
	cr_assert_eq(mprotect(b.at, BLOCK, PROT_READ), 0);
	every_page_is(&h, &b, S_LOCAL | S_READ | S_PMD);
	hmm_on_device(h.as, h.dev[0], b.at, BLOCK, want);
	cr_assert_eq(hmm_wrong(b.at, BLOCK, 1), 0);
	free(want);
	hmm_unmap(&b);
	hmm_close(&h);
}
