/* SPDX-License-Identifier: MIT */
/* Rows of the HMM table: a device reads and writes anonymous memory that nobody migrated before. */
#include "config.h"

#include <pthread.h>

#include "hmm.h"

HMM_TEST(open_close)
{
	for (unsigned devices = 1; devices <= 2; devices++) {
		struct hmm h = hmm_open(devices);

		cr_assert_eq(hmm_dev_free(h.dev[devices - 1]), UINT64_C(64) << 20);
		hmm_close(&h);
	}
}

/*
 * A page that was never touched, one that is the kernel's page of zeros, the rest with content, all read-only: the
 * device sees it all, in one call. What the process itself may not write cannot be taken from it: mapped in place.
 */
HMM_TEST(anon_read)
{
	struct hmm h = hmm_open(1);
	struct hmm_buf b = hmm_buffer(&h, HMM_BYTES, HMM_NO_THP);
	char *got = hmm_private(b.bytes);

	hmm_fill(b.at + 2 * PAGE, b.bytes - 2 * PAGE, 1);
	cr_assert_eq(mprotect(b.at, b.bytes, PROT_READ), 0);
	cr_assert_eq(*(volatile char *)(b.at + PAGE), 0);
	cr_assert_eq(hmm_pagemap(GM_VA(b.at)) & HMM_PRESENT, 0, "page 0 was never touched");
	cr_assert(hmm_pagemap(GM_VA(b.at) + PAGE) & HMM_ZERO, "page 1 is the page of zeros");
	HMM_OK(hmm_dev_read(&h, 0, b.at, b.bytes, got));
	if (!h.raises)
		cr_assert_eq(h.faults, 1, "%u fault calls", (unsigned)h.faults);
	cr_assert_eq(hmm_nonzero(got, 2 * PAGE), 0);
	cr_assert_eq(hmm_wrong(got + 2 * PAGE, b.bytes - 2 * PAGE, 1), 0);
	cr_assert_eq(hmm_away(h.as, b.at, b.bytes), 0, "read-only memory stays");
	cr_assert_eq(hmm_pages(b.at + 2 * PAGE, b.bytes - 2 * PAGE, HMM_PRESENT, 0), HMM_PAGES - 2);
	/* Where each page faults alone, the attempt to move its neighbours takes the mappings of those away again. */
	for (uint64_t off = h.raises ? b.bytes - PAGE : 2 * PAGE; off < b.bytes; off += PAGE)
		cr_assert(hmm_in_place(h.ctx[0], b.at + off), "page %u", (unsigned)(off / PAGE));
	HMM_OK(hmm_dev_read(&h, 0, b.at, b.bytes, got));
	cr_assert(h.raises || !h.faults, "it is mapped");
	cr_assert_eq(hmm_wrong(b.at + 2 * PAGE, b.bytes - 2 * PAGE, 1), 0);

	/* The same where it may be taken: all of it goes, and is read there. */
	cr_assert_eq(mprotect(b.at, b.bytes, PROT_READ | PROT_WRITE), 0);
	HMM_OK(hmm_to_dev(&h, 0, b.at, b.bytes));
	memset(got, 0xee, b.bytes);
	HMM_OK(hmm_dev_read(&h, 0, b.at, b.bytes, got));
	hmm_on_device(h.as, h.dev[0], b.at, b.bytes, got);
	cr_assert_eq(hmm_nonzero(got, 2 * PAGE), 0);
	cr_assert_eq(hmm_wrong(got + 2 * PAGE, b.bytes - 2 * PAGE, 1), 0);
	hmm_unmap(&b);
	free(got);
	hmm_close(&h);
}

/* Cold memory that may be written moves at the first access, in one call. */
HMM_MORE(anon_read, moves)
{
	struct hmm h = hmm_open(1);
	struct hmm_buf b = hmm_buffer(&h, HMM_BYTES, HMM_ANY_SIZE);
	char *got = hmm_private(b.bytes), *want = hmm_pattern(b.bytes, 1);

	hmm_fill(b.at, b.bytes, 1);
	HMM_OK(hmm_dev_read(&h, 0, b.at, b.bytes, got));
	hmm_faults_of_cold(&h, HMM_PAGES);
	cr_assert_eq(memcmp(got, want, b.bytes), 0);
	hmm_on_device(h.as, h.dev[0], b.at, b.bytes, want);
	cr_assert_eq(hmm_wrong(b.at, b.bytes, 1), 0);
	hmm_on_host(h.as, b.at, b.bytes);
	free(got);
	free(want);
	hmm_unmap(&b);
	hmm_close(&h);
}

static void refused_both_ways(struct hmm *h, struct hmm_buf *b, char *buf)
{
	gm_ret_t ret = hmm_dev_read(h, 0, b->at, b->bytes, buf);

	cr_assert(ret == GM_RET_FAULT || ret == GM_RET_PERM, "read: %s", gm_ret_name(ret));
	cr_assert_eq(((unsigned char *)buf)[0], 0xee, "the device's own buffer is as it was");
	cr_assert_eq(((unsigned char *)buf)[b->bytes - 1], 0xee);
	ret = hmm_dev_write(h, 0, b->at, b->bytes, buf);
	cr_assert(ret == GM_RET_FAULT || ret == GM_RET_PERM, "write: %s", gm_ret_name(ret));
	cr_assert_eq(hmm_away(h->as, b->at, b->bytes), 0, "nothing moved");
}

/* Memory that the process itself may not read; on the host, then while the device has it. */
HMM_TEST(anon_read_prot)
{
	struct hmm h = hmm_open(1);
	struct hmm_buf b = hmm_buffer(&h, HMM_BYTES, HMM_ANY_SIZE);
	char *buf = hmm_private(b.bytes), *want = hmm_pattern(b.bytes, 1);

	hmm_fill(b.at, b.bytes, 1);
	cr_assert_eq(mprotect(b.at, b.bytes, PROT_NONE), 0);
	refused_both_ways(&h, &b, buf);
	cr_assert_eq(mprotect(b.at, b.bytes, PROT_READ), 0);
	cr_assert_eq(hmm_wrong(b.at, b.bytes, 1), 0, "nor did the process's memory change");
	hmm_on_host(h.as, b.at, b.bytes);

	/* On the device and mapped nowhere: the access asks for the rights anew. */
	cr_assert_eq(mprotect(b.at, b.bytes, PROT_READ | PROT_WRITE), 0);
	hmm_away_all(&h, 0, &b, want);
	cr_assert_eq(mprotect(b.at, b.bytes, PROT_NONE), 0);
	{
		gm_ret_t ret = hmm_dev_read(&h, 0, b.at, b.bytes, buf);

		cr_assert(ret == GM_RET_FAULT || ret == GM_RET_PERM, "read: %s", gm_ret_name(ret));
	}
	cr_assert_eq(mprotect(b.at, b.bytes, PROT_READ | PROT_WRITE), 0);
	cr_assert_eq(hmm_wrong(b.at, b.bytes, 1), 0);
	hmm_unmap(&b);
	free(buf);
	free(want);
	hmm_close(&h);
}

static void write_and_look(enum hmm_pages pages)
{
	struct hmm h = hmm_open(1);
	struct hmm_buf b = hmm_buffer(&h, HMM_BYTES, pages);
	char *want = hmm_pattern(b.bytes, 2);

	hmm_fill(b.at, b.bytes, 1);
	if (pages == HMM_THP)
		hmm_need_huge(b.at, b.bytes);
	HMM_OK(hmm_dev_write(&h, 0, b.at, b.bytes, want));
	hmm_faults_of_cold(&h, HMM_PAGES);
	hmm_on_device(h.as, h.dev[0], b.at, b.bytes, want);
	cr_assert(pages != HMM_THP || h.raises || hmm_dev_huge(h.as, h.dev[0], b.at), "a frame of 2 MiB");
	cr_assert_eq(hmm_wrong(b.at, b.bytes, 2), 0, "the process sees it");
	hmm_on_host(h.as, b.at, b.bytes);
	free(want);
	hmm_unmap(&b);
	hmm_close(&h);
}

HMM_TEST(anon_write)
{
	write_and_look(HMM_ANY_SIZE);
}

HMM_TEST(anon_write_huge)
{
	write_and_look(HMM_THP);
}

/* Read-only memory can be read, not written; once it may be, it is, and the page of zeros is replaced. */
HMM_TEST(anon_write_prot)
{
	struct hmm h = hmm_open(1);
	struct hmm_buf b = hmm_map(HMM_BYTES, HMM_NO_THP);
	char *got = hmm_private(b.bytes), *want = hmm_pattern(b.bytes, 2);

	cr_assert_eq(mprotect(b.at, b.bytes, PROT_READ), 0);
	hmm_adopt(&h, &b);
	cr_assert_eq(*(volatile char *)b.at, 0);
	cr_assert(hmm_pagemap(GM_VA(b.at)) & HMM_ZERO);
	HMM_OK(hmm_dev_read(&h, 0, b.at, PAGE, got));
	cr_assert_eq(hmm_nonzero(got, PAGE), 0);
	HMM_IS(hmm_dev_write(&h, 0, b.at, PAGE, want), GM_RET_PERM);
	HMM_IS(hmm_dev_write(&h, 0, b.at, b.bytes, want), GM_RET_PERM);
	cr_assert_eq(hmm_away(h.as, b.at, b.bytes), 0);
	cr_assert_eq(hmm_nonzero(b.at, b.bytes), 0, "nothing was written");

	cr_assert_eq(mprotect(b.at, b.bytes, PROT_READ | PROT_WRITE), 0);
	HMM_OK(hmm_dev_write(&h, 0, b.at, b.bytes, want));
	hmm_on_device(h.as, h.dev[0], b.at, b.bytes, want);
	cr_assert_eq(hmm_wrong(b.at, b.bytes, 2), 0);
	cr_assert_eq(hmm_pages(b.at, b.bytes, HMM_PRESENT, HMM_ZERO), HMM_PAGES, "no page of zeros is left");
	free(got);
	free(want);
	hmm_unmap(&b);
	hmm_close(&h);
}

/* Ten buffers one after the other, often at the same address: no byte of one shows in the next. */
HMM_TEST(anon_read_multiple)
{
	struct hmm h = hmm_open(1);
	char *got = hmm_private(HMM_BYTES);

	for (uint32_t round = 0; round < 10; round++) {
		struct hmm_buf b = hmm_buffer(&h, HMM_BYTES, HMM_ANY_SIZE);

		if (round % 2 == 0)
			hmm_fill(b.at, b.bytes, round);
		HMM_OK(hmm_dev_read(&h, 0, b.at, b.bytes, got));
		hmm_on_device(h.as, h.dev[0], b.at, b.bytes, round % 2 ? NULL : got);
		cr_assert_eq(round % 2 ? hmm_nonzero(got, b.bytes) : hmm_wrong(got, b.bytes, round), 0, "round %u", round);
		hmm_unmap(&b);
		hmm_gone(&h, &b);
	}
	free(got);
	hmm_close(&h);
}

struct teardown {
	struct hmm_buf *b;
	pthread_barrier_t start;
	unsigned delay;
};

static void *unmap_soon(void *arg)
{
	struct teardown *t = arg;

	pthread_barrier_wait(&t->start);
	for (volatile unsigned i = 0; i < t->delay; i++)
		;
	cr_assert_eq(munmap(t->b->at, t->b->bytes), 0);
	return NULL;
}

/* munmap() against a device that reads: right bytes, or a refusal; then the memory is free. */
HMM_TEST(anon_teardown)
{
	struct hmm h = hmm_open(1);
	char *got = hmm_private(HMM_BYTES);
	unsigned whole = 0, refused = 0;

	for (unsigned round = 0; round < 60; round++) {
		struct hmm_buf b = hmm_buffer(&h, HMM_BYTES, round % 2 ? HMM_THP : HMM_NO_THP);
		struct teardown t = { .b = &b, .delay = round * round * 1000 };
		pthread_t id;
		gm_ret_t ret;

		pthread_barrier_init(&t.start, NULL, 2);
		hmm_fill(b.at, b.bytes, round);
		cr_assert_eq(pthread_create(&id, NULL, unmap_soon, &t), 0);
		pthread_barrier_wait(&t.start);
		ret = hmm_dev_read(&h, 0, b.at, b.bytes, got);
		cr_assert(ret == GM_RET_SUCCESS || ret == GM_RET_FAULT, "round %u: %s: %s", round, gm_ret_name(ret),
			  gm_last_error());
		cr_assert(ret || !hmm_wrong(got, b.bytes, round), "round %u: wrong bytes", round);
		whole += !ret;
		refused += ret != GM_RET_SUCCESS;
		pthread_join(id, NULL);
		pthread_barrier_destroy(&t.start);
		cr_assert_eq(hmm_pages(b.at, b.bytes, HMM_PRESENT, 0), 0);
		hmm_unmap(&b);
		HMM_IS(hmm_dev_read(&h, 0, b.at, PAGE, got), GM_RET_FAULT);
		cr_assert_eq(hmm_away(h.as, b.at, b.bytes), 0, "round %u", round);
	}
	printf("# anon_teardown: %u reads were complete, %u refused\n", whole, refused);
	free(got);
	hmm_close(&h);
}
