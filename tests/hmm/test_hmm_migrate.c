/* SPDX-License-Identifier: MIT */
/* Rows of the HMM table: memory is moved to a device and back, by call and by fault. */
#include "config.h"

#include "hmm.h"

HMM_TEST(migrate)
{
	struct hmm h = hmm_open(1);
	struct hmm_buf b = hmm_buffer(&h, HMM_BYTES, HMM_ANY_SIZE);
	char *got = hmm_private(b.bytes), *want = hmm_pattern(b.bytes, 1);

	hmm_fill(b.at, b.bytes, 1);
	hmm_on_host(h.as, b.at, b.bytes);
	hmm_away_all(&h, 0, &b, want);
	HMM_OK(hmm_dev_read(&h, 0, b.at, b.bytes, got));
	cr_assert_eq(memcmp(got, want, b.bytes), 0);
	hmm_on_device(h.as, h.dev[0], b.at, b.bytes, want);
	cr_assert_eq(hmm_wrong(b.at, b.bytes, 1), 0);
	hmm_on_host(h.as, b.at, b.bytes);
	free(got);
	free(want);
	hmm_unmap(&b);
	hmm_close(&h);
}

/* The process faults the first half back; the whole goes again. The bytes of both sides differ. */
HMM_TEST(migrate_fault)
{
	struct hmm h = hmm_open(1);
	struct hmm_buf b = hmm_buffer(&h, HMM_BYTES, HMM_ANY_SIZE);
	char *want = hmm_pattern(b.bytes, 1);
	uint64_t half = b.bytes / 2;

	hmm_fill(b.at, b.bytes, 1);
	hmm_away_all(&h, 0, &b, want);
	cr_assert_eq(hmm_wrong(b.at, half, 1), 0);
	hmm_on_host(h.as, b.at, half);
	hmm_on_device(h.as, h.dev[0], b.at + half, half, want + half);
	hmm_fill(b.at, half, 2); /* the device's former copy must not come back */
	hmm_fill(want, half, 2);
	hmm_away_all(&h, 0, &b, want);
	cr_assert_eq(memcmp(b.at, want, b.bytes), 0);
	hmm_on_host(h.as, b.at, b.bytes);

	/* Each second page of the first half, one by one. */
	hmm_away_all(&h, 0, &b, want);
	for (uint64_t off = 0; off < half; off += 2 * UNIT)
		b.at[off] ^= 1, want[off] ^= 1;
	hmm_away_all(&h, 0, &b, want);
	cr_assert_eq(memcmp(b.at, want, b.bytes), 0);
	free(want);
	hmm_unmap(&b);
	hmm_close(&h);
}

/* All of the device's memory goes away, with the device. */
HMM_TEST(migrate_release)
{
	struct hmm h = hmm_open(2);
	struct hmm_buf b = hmm_buffer(&h, HMM_BYTES, HMM_ANY_SIZE);
	char *want = hmm_pattern(b.bytes, 2);

	hmm_fill(b.at, b.bytes, 1);
	HMM_OK(hmm_to_dev(&h, 0, b.at, b.bytes));
	HMM_OK(hmm_dev_write(&h, 0, b.at, b.bytes, want)); /* the device's copy is the only one that is right */
	hmm_on_device(h.as, h.dev[0], b.at, b.bytes, want);
	HMM_OK(gm_as_detach(h.ctx[0]));
	HMM_OK(gm_dev_destroy(h.dev[0]));
	hmm_on_host(h.as, b.at, b.bytes);
	cr_assert_eq(hmm_wrong(b.at, b.bytes, 2), 0);
	h.dev[0] = h.dev[1];
	h.ctx[0] = h.ctx[1];
	h.dev[1] = NULL;
	hmm_away_all(&h, 0, &b, want);
	cr_assert_eq(hmm_wrong(b.at, b.bytes, 2), 0);
	free(want);
	hmm_unmap(&b);
	hmm_close(&h);
}

/* Shared memory does not move: it is not taken, and a request to move it moves nothing. */
HMM_TEST(migrate_shared)
{
	struct hmm h = hmm_open(1);
	char *p = mmap(NULL, HMM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(p, MAP_FAILED);
	hmm_fill(p, HMM_BYTES, 1);
	HMM_IS(gm_adopt(h.as, p, HMM_BYTES, 0), GM_RET_NOTSUP);
	HMM_IS(hmm_to_dev(&h, 0, p, HMM_BYTES), GM_RET_FAULT);
	cr_assert_eq(h.moved, 0);
	cr_assert_eq(hmm_away(h.as, p, HMM_BYTES), 0);
	cr_assert_eq(hmm_pages(p, HMM_BYTES, HMM_PRESENT | HMM_FILE, 0), HMM_PAGES);
	cr_assert_eq(hmm_dev_free(h.dev[0]), UINT64_C(64) << 20);
	cr_assert_eq(hmm_wrong(p, HMM_BYTES, 1), 0);
	cr_assert_eq(munmap(p, HMM_BYTES), 0);
	hmm_close(&h);
}

/* Ten times there and back; the CPU's faults bring it back, or a call. Each time other bytes. */
static void round_trips(bool by_call)
{
	struct hmm h = hmm_open(1);
	struct hmm_buf b = hmm_buffer(&h, HMM_BYTES, HMM_ANY_SIZE);

	for (uint32_t round = 0; round < 10; round++) {
		char *want = hmm_pattern(b.bytes, round);

		hmm_fill(b.at, b.bytes, round);
		hmm_away_all(&h, 0, &b, want);
		if (by_call) {
			HMM_OK(hmm_to_sys(&h, b.at, b.bytes));
			cr_assert_eq(h.moved, HMM_PAGES);
			hmm_on_host(h.as, b.at, b.bytes);
		}
		cr_assert_eq(hmm_wrong(b.at, b.bytes, round), 0, "round %u", round);
		hmm_on_host(h.as, b.at, b.bytes);
		free(want);
	}
	hmm_unmap(&b);
	hmm_close(&h);
}

HMM_TEST(migrate_multiple)
{
	round_trips(false);
}

HMM_MORE(migrate_multiple, by_call)
{
	round_trips(true);
}

/* What is wrong with a range is said, and nothing of it is touched. */
static void mixed_errors(struct hmm *h, struct hmm_buf *b)
{
	char *p = b->at;

	cr_assert_eq(mprotect(p, PAGE, PROT_NONE), 0);
	HMM_IS(hmm_to_dev(h, 0, p, PAGE), GM_RET_BUSY);
	cr_assert_eq(h->moved, 0);
	cr_assert_eq(hmm_away(h->as, p, PAGE), 0);
	cr_assert_eq(munmap(p, PAGE), 0);
	HMM_IS(hmm_to_dev(h, 0, p, PAGE), GM_RET_FAULT);
	cr_assert_eq(h->moved, 0);
	cr_assert_eq(hmm_away(h->as, b->at, b->bytes), 0);
	cr_assert_eq(hmm_dev_free(h->dev[0]), UINT64_C(64) << 20);
}

/*
 * Two devices; pages: not readable, a hole, never touched, the page of zeros, written, read-only, on the other device.
 * Two differences to the kernel's driver: what the process may only read stays on the host, as userfaultfd moves nothing
 * out of a read-only mapping (the device maps it in place); and what device 1 has comes over to device 0, which the
 * driver refuses.
 */
HMM_TEST(migrate_mixed)
{
	struct hmm h = hmm_open(2);
	struct hmm_buf b = hmm_buffer(&h, 16 * UNIT, HMM_NO_THP);
	char *p = b.at, *got = hmm_private(b.bytes), *want = hmm_private(b.bytes);

	mixed_errors(&h, &b);
	memset(want, 0, b.bytes);
	cr_assert_eq(((volatile char *)p)[3 * PAGE], 0);
	hmm_fill(p + 4 * PAGE, 2 * PAGE, 1);
	hmm_fill(want + 4 * PAGE, 2 * PAGE, 1);
	cr_assert_eq(hmm_pagemap(GM_VA(p) + 2 * PAGE) & HMM_PRESENT, 0);
	cr_assert(hmm_pagemap(GM_VA(p) + 3 * PAGE) & HMM_ZERO);
	cr_assert_eq(mprotect(p + 5 * PAGE, PAGE, PROT_READ), 0);
	HMM_OK(hmm_to_dev(&h, 1, p + 6 * PAGE, PAGE));
	hmm_on_device(h.as, h.dev[1], p + 6 * PAGE, PAGE, NULL);

	HMM_IS(hmm_to_dev(&h, 0, p + PAGE, 6 * PAGE), GM_RET_BUSY); /* the read-only one */
	cr_assert_eq(h.moved, 5);
	hmm_on_device(h.as, h.dev[0], p + PAGE, 4 * PAGE, want + PAGE);
	hmm_on_host(h.as, p + 5 * PAGE, PAGE);
	hmm_on_device(h.as, h.dev[0], p + 6 * PAGE, PAGE, NULL);
	cr_assert_null(hmm_dev_bytes(h.as, h.dev[1], GM_VA(p) + 6 * PAGE));
	HMM_OK(hmm_dev_read(&h, 0, p + PAGE, 6 * PAGE, got));
	cr_assert_eq(memcmp(got, want + PAGE, 6 * PAGE), 0);
	cr_assert(hmm_in_place(h.ctx[0], p + 5 * PAGE));
	HMM_OK(hmm_to_sys(&h, p + PAGE, 6 * PAGE));
	hmm_on_host(h.as, p + PAGE, 6 * PAGE);
	cr_assert_eq(memcmp(p + PAGE, want + PAGE, 6 * PAGE), 0);
	free(got);
	free(want);
	hmm_unmap(&b);
	hmm_close(&h);
}
