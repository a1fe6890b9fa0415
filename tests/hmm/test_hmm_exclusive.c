/* SPDX-License-Identifier: MIT */
/* Rows of the HMM table: several readers of a page, and one device that has it alone. */
#include "config.h"

#include <gmem/coherence.h>

#include "hmm.h"

/* Both read right bytes, and are told so by their own page tables. */
static void both_read(struct hmm *h, const struct hmm_buf *b, const char *want, char *got, bool in_place)
{
	for (unsigned i = 0; i < 2; i++) {
		memset(got, 0xee, b->bytes);
		HMM_OK(hmm_dev_read(h, i, b->at, b->bytes, got));
		cr_assert_eq(memcmp(got, want, b->bytes), 0, "device %u", i);
	}
	for (uint64_t off = 0; off < b->bytes; off += PAGE) /* the second has taken nothing from the first */
		for (unsigned i = 0; i < 2; i++)
			cr_assert_eq(hmm_in_place(h->ctx[i], b->at + off), in_place, "device %u, page %u", i,
				     (unsigned)(off / PAGE));
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

/* What device i has of its own for each page: these bytes, while the page is on the host. */
static void duplicated(struct hmm *h, unsigned i, const struct hmm_buf *b, const char *want)
{
	for (uint64_t off = 0; off < b->bytes; off += PAGE) {
		const void *own = hmm_dev_bytes(h->as, h->dev[i], GM_VA(b->at) + off);

		cr_assert_not_null(own, "device %u, page %u: no duplicate", i, (unsigned)(off / PAGE));
		cr_assert_eq(memcmp(own, want + off, PAGE), 0, "device %u, page %u: other bytes", i, (unsigned)(off / PAGE));
		cr_assert(hmm_info(h->as, GM_VA(b->at) + off).flags & GM_PAGE_DUPLICATED);
	}
}

/* Each device reads its own memory, the process its own; a store of one device is what all read next. */
HMM_MORE(double_map, duplicates)
{
	struct hmm h = hmm_open(2);
	struct hmm_buf b = hmm_buffer(&h, HMM_BYTES, HMM_ANY_SIZE);
	char *want = hmm_pattern(b.bytes, 1), *got = hmm_private(b.bytes);
	uint64_t bytes = 0;

	hmm_fill(b.at, b.bytes, 1);
	for (unsigned i = 0; i < 2; i++) {
		HMM_OK(gm_duplicate(h.as, GM_VA(b.at), b.bytes, h.dev[i], &bytes));
		cr_assert_eq(bytes, b.bytes);
	}
	hmm_on_host(h.as, b.at, b.bytes);
	duplicated(&h, 0, &b, want);
	duplicated(&h, 1, &b, want);
	both_read(&h, &b, want, got, false);
	cr_assert_eq(hmm_wrong(b.at, b.bytes, 1), 0);
	hmm_on_host(h.as, b.at, b.bytes);
	duplicated(&h, 1, &b, want); /* reading moved nothing */

	hmm_fill(want, b.bytes, 3);
	HMM_OK(hmm_dev_write(&h, 1, b.at, b.bytes, want));
	hmm_on_device(h.as, h.dev[1], b.at, b.bytes, want);
	cr_assert_null(hmm_dev_bytes(h.as, h.dev[0], GM_VA(b.at)), "an old duplicate is left");
	both_read(&h, &b, want, got, false);
	cr_assert_eq(hmm_wrong(b.at, b.bytes, 3), 0);
	free(got);
	free(want);
	hmm_unmap(&b);
	hmm_close(&h);
}

/* --------------------------------------------------------------- exclusive */

struct adder {
	uint64_t va, pages;
};

/* One to the first word of each page, by an atomic operation of the device. */
static gm_ret_t add_kernel(struct gm_mock_thread *t, unsigned index, void *arg)
{
	const struct adder *a = arg;
	gm_ret_t ret = GM_RET_SUCCESS;

	(void)index;
	for (uint64_t i = 0; i < a->pages && !ret; i++)
		ret = gm_mock_fetch_add(t, a->va + i * PAGE, 1, NULL);
	return ret;
}

static gm_ret_t dev_add(struct hmm *h, unsigned i, const void *at, uint64_t pages)
{
	struct adder a = { .va = GM_VA(at), .pages = pages };

	return hmm_launch(h->ctx[i], add_kernel, &a);
}

static volatile uint64_t *word_of(const struct hmm_buf *b, uint64_t page)
{
	return (volatile uint64_t *)(void *)(b->at + page * PAGE);
}

/* HMM_DMIRROR_CHECK_EXCLUSIVE: how many pages are exclusive still. */
static uint64_t exclusive_pages(struct hmm *h, const struct hmm_buf *b)
{
	uint64_t n = 0;

	for (uint64_t off = 0; off < b->bytes; off += PAGE)
		n += !!(hmm_settled_info(h->as, GM_VA(b->at) + off).flags & GM_PAGE_EXCLUSIVE);
	return n;
}

/* Words 1, 2, 3 ... in a buffer that device 0 has alone. */
static struct hmm_buf counters(struct hmm *h, uint64_t pages)
{
	struct hmm_buf b = hmm_buffer(h, pages * PAGE, HMM_NO_THP);
	uint64_t bytes = 0;

	for (uint64_t i = 0; i < pages; i++)
		*word_of(&b, i) = i + 1;
	HMM_OK(gm_exclusive(h->ctx[0], GM_VA(b.at), b.bytes, &bytes));
	HMM_TRUE(bytes == b.bytes, "not all of it");
	HMM_TRUE(exclusive_pages(h, &b) == pages, "not all of it is exclusive");
	return b;
}

/* In the device's memory each word is i + 1 + more, and the kernel has no page there. */
static void counted_on_device(struct hmm *h, const struct hmm_buf *b, uint64_t more)
{
	char *want = hmm_private(b->bytes);

	memset(want, 0, b->bytes);
	for (uint64_t i = 0; i < b->bytes / PAGE; i++)
		*(uint64_t *)(void *)(want + i * PAGE) = i + 1 + more;
	hmm_on_device(h->as, h->dev[0], b->at, b->bytes, want);
	free(want);
}

/* The device's atomics, then the CPU's: each add counts, and the CPU's first touch ends it, page by page. */
HMM_TEST(exclusive)
{
	struct hmm h = hmm_open(1);
	struct hmm_buf b = counters(&h, 512);

	counted_on_device(&h, &b, 0);
	for (unsigned round = 0; round < 3; round++)
		HMM_OK(dev_add(&h, 0, b.at, 512));
	counted_on_device(&h, &b, 3);
	cr_assert_eq(exclusive_pages(&h, &b), 512, "its own atomics end nothing");
	cr_assert_eq(__atomic_fetch_add((uint64_t *)(void *)b.at, 1, __ATOMIC_SEQ_CST), 4);
	hmm_on_host(h.as, b.at, PAGE);
	cr_assert_lt(exclusive_pages(&h, &b), 512, "revoked");
	for (uint64_t i = 1; i < 512; i++)
		cr_assert_eq(__atomic_fetch_add((uint64_t *)(void *)(b.at + i * PAGE), 1, __ATOMIC_SEQ_CST), i + 4);
	cr_assert_eq(exclusive_pages(&h, &b), 0, "all of it is revoked");
	hmm_on_host(h.as, b.at, b.bytes);
	for (uint64_t i = 0; i < 512; i++)
		cr_assert_eq(*word_of(&b, i), i + 5);
	hmm_unmap(&b);
	hmm_close(&h);
}

/* After the memory was made read-only the device's stores fail, though it had it alone. */
HMM_TEST(exclusive_mprotect)
{
	struct hmm h = hmm_open(1);
	struct hmm_buf b = counters(&h, 64);
	char *other = hmm_pattern(b.bytes, 7), *got = hmm_private(b.bytes);

	HMM_OK(gm_protect(h.as, GM_VA(b.at), b.bytes, GM_READ));
	HMM_IS(hmm_dev_write(&h, 0, b.at, b.bytes, other), GM_RET_PERM);
	{
		gm_ret_t ret = dev_add(&h, 0, b.at, 1); /* a device without faults only says that it has no mapping */

		cr_assert(ret == GM_RET_PERM || (!h.raises && ret == GM_RET_FAULT), "%s", gm_ret_name(ret));
	}
	HMM_OK(hmm_dev_read(&h, 0, b.at, b.bytes, got));
	for (uint64_t i = 0; i < 64; i++)
		cr_assert_eq(*(uint64_t *)(void *)(got + i * PAGE), i + 1);
	counted_on_device(&h, &b, 0);
	for (uint64_t i = 0; i < 64; i++)
		cr_assert_eq(*word_of(&b, i), i + 1);
	hmm_on_host(h.as, b.at, b.bytes);
	free(other);
	free(got);
	hmm_unmap(&b);
	hmm_close(&h);
}

static void child_counts(void *arg)
{
	const struct hmm_buf *theirs = arg;
	struct hmm h = hmm_open(1);
	struct hmm_buf b = *theirs;
	uint64_t bytes;

	for (uint64_t i = 0; i < 64; i++)
		HMM_TRUE(*word_of(&b, i) == i + 2, "the child inherits %u", (unsigned)*word_of(&b, i));
	hmm_adopt(&h, &b);
	HMM_OK(gm_exclusive(h.ctx[0], GM_VA(b.at), b.bytes, &bytes));
	HMM_OK(dev_add(&h, 0, b.at, 64));
	counted_on_device(&h, &b, 2);
	for (uint64_t i = 0; i < 64; i++)
		HMM_TRUE(++*word_of(&b, i) == i + 4, "the child's count");
	hmm_on_host(h.as, b.at, b.bytes);
	hmm_close(&h);
}

/* Parent and child go on counting, each for itself. */
HMM_TEST(exclusive_cow)
{
	struct hmm h = hmm_open(1);
	struct hmm_buf b = counters(&h, 64);

	HMM_OK(dev_add(&h, 0, b.at, 64));
	counted_on_device(&h, &b, 1);
	cr_assert_eq(hmm_child(child_counts, &b), 0);
	for (uint64_t i = 0; i < 64; i++)
		cr_assert_eq(++*word_of(&b, i), i + 3, "the parent's count");
	hmm_on_host(h.as, b.at, b.bytes);
	HMM_OK(gm_exclusive(h.ctx[0], GM_VA(b.at), b.bytes, NULL));
	HMM_OK(dev_add(&h, 0, b.at, 64));
	counted_on_device(&h, &b, 3);
	hmm_unmap(&b);
	hmm_close(&h);
}
