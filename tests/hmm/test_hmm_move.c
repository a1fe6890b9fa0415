/* SPDX-License-Identifier: MIT */
/*
 * Rows of the HMM table: parts of memory that a device has are unmapped or moved by the program. The kernel's test takes
 * half of 2 MiB at three offsets (the lower half, the middle, the upper half), with and without huge pages.
 */
#include "config.h"

#include "hmm.h"

static const uint64_t offset[] = { 0, BLOCK / 4, BLOCK / 2 };

/* Half of a block is unmapped; the rest is where it was, and comes home right. */
static void partial_unmap(enum hmm_pages pages, uint64_t off)
{
	struct hmm h = hmm_open(1);
	struct hmm_buf b = hmm_buffer(&h, BLOCK, pages);
	char *want = hmm_pattern(b.bytes, 2);
	uint64_t half = BLOCK / 2, end = off + half;
	struct hmm_buf gone = { .at = b.at + off, .bytes = half };

	hmm_fill(b.at, b.bytes, 1);
	if (pages == HMM_THP)
		hmm_need_huge(b.at, b.bytes);
	HMM_OK(hmm_to_dev(&h, 0, b.at, b.bytes));
	HMM_OK(hmm_dev_write(&h, 0, b.at, b.bytes, want)); /* the frames kept on the host are old */
	hmm_on_device(h.as, h.dev[0], b.at, b.bytes, want);
	cr_assert_eq(munmap(gone.at, half), 0);
	hmm_gone(&h, &gone);
	HMM_IS(hmm_dev_read(&h, 0, gone.at, half, want + off), GM_RET_FAULT);
	hmm_on_device(h.as, h.dev[0], b.at, off, want);
	hmm_on_device(h.as, h.dev[0], b.at + end, b.bytes - end, want + end);
	for (uint64_t at = 0; at < b.bytes; at += PAGE)
		if (at < off || at >= end)
			cr_assert_eq(memcmp(b.at + at, want + at, PAGE), 0, "page %u", (unsigned)(at / PAGE));
	hmm_on_host(h.as, b.at, off);
	hmm_on_host(h.as, b.at + end, b.bytes - end);
	free(want);
	hmm_unmap(&b);
	hmm_close(&h);
}

HMM_TEST(migrate_partial_unmap_fault)
{
	for (unsigned i = 0; i < 3; i++)
		partial_unmap(HMM_NO_THP, offset[i]);
}

HMM_MORE(migrate_partial_unmap_fault, thp)
{
	for (unsigned i = 0; i < 3; i++)
		partial_unmap(HMM_THP, offset[i]);
}

struct remap {
	enum hmm_pages pages;
	bool before;   /* mremap(), then migrated; else the other way round */
	bool dontunmap;
	uint64_t off;  /* of the new place in its block */
};

/* Where the block went, the bytes are, on the host or on the device; where it was, nothing is, or zeros. */
static void remapped(const struct remap *r)
{
	struct hmm h = hmm_open(1);
	struct hmm_buf b = hmm_buffer(&h, BLOCK, r->pages), to = hmm_map(2 * BLOCK, r->pages), moved;
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (r->dontunmap ? MREMAP_DONTUNMAP : 0);
	char *want = hmm_pattern(b.bytes, 2);

	hmm_fill(b.at, b.bytes, 1);
	if (r->pages == HMM_THP)
		hmm_need_huge(b.at, b.bytes);
	HMM_OK(hmm_to_dev(&h, 0, b.at, b.bytes)); /* it must be watched to be followed, see gm_adopt() */
	HMM_OK(hmm_dev_write(&h, 0, b.at, b.bytes, want));
	hmm_on_device(h.as, h.dev[0], b.at, b.bytes, want);
	if (r->before) {
		HMM_OK(hmm_to_sys(&h, b.at, b.bytes));
		hmm_on_host(h.as, b.at, b.bytes);
	}
	moved = (struct hmm_buf){ .at = to.at + r->off, .bytes = BLOCK };
	cr_assert_eq(mremap(b.at, BLOCK, BLOCK, flags, moved.at), moved.at);
	if (r->before) {
		gm_ret_t ret = gm_adopt(h.as, moved.at, BLOCK, 0); /* watched or not, it is managed then */

		cr_assert(!ret || ret == GM_RET_EXIST, "%s", gm_ret_name(ret));
		hmm_away_all(&h, 0, &moved, want);
	}
	cr_assert_eq(hmm_wrong(moved.at, BLOCK, 2), 0, "at the new place");
	hmm_on_host(h.as, moved.at, BLOCK);
	hmm_gone(&h, &b);
	if (r->dontunmap)
		cr_assert_eq(hmm_nonzero(b.at, BLOCK), 0, "the old place reads as zeros");
	else
		cr_assert_eq(hmm_pages(b.at, BLOCK, HMM_PRESENT, 0), 0);
	hmm_away_all(&h, 0, &moved, want);
	HMM_OK(hmm_to_sys(&h, moved.at, BLOCK));
	cr_assert_eq(hmm_wrong(moved.at, BLOCK, 2), 0);
	free(want);
	hmm_unmap(&b);
	hmm_unmap(&to);
	hmm_close(&h);
}

static void remap_variants(enum hmm_pages pages)
{
	for (unsigned i = 0; i < 12; i++)
		remapped(&(struct remap){ pages, i / 6, i / 3 % 2, offset[i % 3] });
}

HMM_TEST(migrate_remap_fault)
{
	remap_variants(HMM_NO_THP);
}

HMM_MORE(migrate_remap_fault, thp)
{
	remap_variants(HMM_THP);
}
