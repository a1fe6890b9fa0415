/* SPDX-License-Identifier: MIT */
/* Rows of the HMM table: several readers of a page. */
#include "config.h"

#include "hmm.h"

/* Both read right bytes, and are told so by their own page tables. */
static void both_read(struct hmm *h, const struct hmm_buf *b, const char *want, char *got, bool in_place)
{
	for (unsigned i = 0; i < 2; i++) {
		memset(got, 0xee, b->bytes);
		HMM_OK(hmm_dev_read(h, i, b->at, b->bytes, got));
		cr_assert_eq(memcmp(got, want, b->bytes), 0, "device %u", i);
		cr_assert_eq(hmm_in_place(h->ctx[i], b->at + b->bytes - PAGE), in_place, "device %u", i);
	}
}

/* Read-only memory, in place on both; then on one device, and the other reads what that one has written. */
HMM_TEST(double_map)
{
	struct hmm h = hmm_open(2);
	struct hmm_buf b = hmm_buffer(&h, HMM_BYTES, HMM_ANY_SIZE);
	char *want = hmm_pattern(b.bytes, 1), *got = hmm_private(b.bytes);

	hmm_fill(b.at, b.bytes, 1);
	cr_assert_eq(mprotect(b.at, b.bytes, PROT_READ), 0);
	both_read(&h, &b, want, got, true);
	hmm_on_host(h.as, b.at, b.bytes);

	cr_assert_eq(mprotect(b.at, b.bytes, PROT_READ | PROT_WRITE), 0);
	hmm_away_all(&h, 1, &b, want);
	hmm_fill(want, b.bytes, 2);
	HMM_OK(hmm_dev_write(&h, 1, b.at, b.bytes, want));
	hmm_on_device(h.as, h.dev[1], b.at, b.bytes, want);
	HMM_OK(hmm_dev_read(&h, 0, b.at, b.bytes, got));
	cr_assert_eq(memcmp(got, want, b.bytes), 0);
	hmm_on_device(h.as, h.dev[0], b.at, b.bytes, want);
	cr_assert_eq(hmm_wrong(b.at, b.bytes, 2), 0);
	free(got);
	free(want);
	hmm_unmap(&b);
	hmm_close(&h);
}
