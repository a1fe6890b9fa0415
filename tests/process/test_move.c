/* SPDX-License-Identifier: MIT */
/*
 * mremap(): grow, shrink, move, move over other managed memory, move without unmapping. The bytes are at the new place for
 * both sides, and nothing of them is left at the old one.
 */
#include "config.h"

#include "tests/process/process.h"

TestSuite(move, .timeout = 290);

/*
 * [first, end) is at `to` now. What devices had goes along; where none had any of it lately the new place is adopted by the
 * program itself (gm_adopt() says so).
 */
static void arrived(struct proc *p, char *to, uint64_t first, uint64_t end)
{
	char *base = to - first * PAGE;

	if (p->place == HOST && gm_dev_fault(p->ctx, GM_VA(to), GM_READ) == GM_RET_FAULT)
		adopt_next(p, to, (end - first) * PAGE);
	assert_same(p, base, first, end);
}

static char *free_place(struct proc *p)
{
	return p->arena + 8 * BLOCK;
}

static char *remap(struct proc *p, uint64_t first, uint64_t end, char *to)
{
	char *got = mremap(p->at + first * PAGE, (end - first) * PAGE, (end - first) * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);

	MUST(got == to, "mremap");
	return to;
}

PLACE_TEST(move, whole)
{
	char *to = remap(p, 0, PAGES, free_place(p));

	assert_outside(p, p->at, 0, PAGES);
	arrived(p, to, 0, PAGES);
}

/* Another offset in its block: no page keeps its index, and huge pages cannot be moved as such. */
PLACE_TEST(move, to_another_offset)
{
	char *to = remap(p, 0, PAGES, free_place(p) + 5 * PAGE);

	arrived(p, to, 0, PAGES);
	assert_outside(p, p->at, 0, PAGES);
}

PLACE_TEST(move, middle)
{
	uint64_t first = BLOCK_PAGES / 2 - 3, end = BLOCK_PAGES + 21;
	char *to = remap(p, first, end, free_place(p));

	arrived(p, to, first, end);
	assert_outside(p, p->at, first, end);
	assert_same(p, p->at, 0, first);
	assert_same(p, p->at, end, PAGES);
}

PLACE_TEST(move, there_and_back_untouched)
{
	char *to = remap(p, 0, BLOCK_PAGES, free_place(p));

	MUST(mremap(to, BLOCK, BLOCK, MREMAP_MAYMOVE | MREMAP_FIXED, p->at) == p->at, "mremap");
	arrived(p, p->at, 0, BLOCK_PAGES);
	arrived(p, p->at, 0, PAGES);
}

PLACE_TEST(move, shrink)
{
	uint64_t pages = BLOCK_PAGES / 2 + 9;

	MUST(mremap(p->at, BYTES, pages * PAGE, 0) == p->at, "mremap");
	assert_outside(p, p->at, pages, PAGES);
	assert_same(p, p->at, 0, pages);
}

/* What is new is the program's until it adopts it; zero for the CPU whatever lay behind. */
PLACE_TEST(move, grow_in_place)
{
	char *more = p->at + BYTES;
	struct gm_page_info info;

	SYS(munmap(more, BLOCK));
	MUST(mremap(p->at, BYTES, BYTES + BLOCK, 0) == p->at, "mremap");
	for (uint64_t i = 0; i < BLOCK_PAGES; i += 5)
		MUST(*word_at(more, i) == 0, "page %u", (unsigned)i);
	info = info_of(p, more);
	MUST(info.place == GM_PLACE_OUTSIDE, "not adopted");
	IS(gm_dev_fault(p->ctx, GM_VA(more), GM_READ), GM_RET_FAULT);
	assert_same(p, p->at, 0, PAGES);
	OK(gm_adopt(p->as, more, BLOCK, 0));
	for (uint64_t i = 0; i < BLOCK_PAGES; i++)
		*word_at(more, i) = p->want[i];
	assert_same(p, more, 0, BLOCK_PAGES);
}

PLACE_TEST(move, grow_and_move)
{
	char *to = free_place(p);

	MUST(mremap(p->at, BYTES, BYTES + BLOCK, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "mremap");
	for (uint64_t i = 0; i < BLOCK_PAGES; i += 5)
		MUST(*word_at(to + BYTES, i) == 0, "page %u", (unsigned)i);
	arrived(p, to, 0, PAGES);
	assert_outside(p, p->at, 0, PAGES);
}

/* The other memory is on the device, too, and ends. */
PLACE_TEST(move, onto_other_managed_memory)
{
	static uint64_t keep[PAGES];
	char *to = free_place(p), *behind = to + BYTES;

	memcpy(keep, p->want, sizeof(keep));
	map_at(p, to, BYTES + BLOCK);
	OK(gm_adopt(p->as, to, BYTES + BLOCK, 0));
	dev_fill(p, to, 0, PAGES, 9);
	dev_fill(p, behind, 0, BLOCK_PAGES, 5);
	MUST(pages_away(p, behind, 0, BLOCK_PAGES) == BLOCK_PAGES, "all of it");
	memcpy(p->want, keep, sizeof(keep));
	(void)remap(p, 0, PAGES, to);
	arrived(p, to, 0, PAGES);
	assert_outside(p, p->at, 0, PAGES);
	for (uint64_t i = 0; i < BLOCK_PAGES; i++)
		p->want[i] = word(i, 5);
	assert_same(p, behind, 0, BLOCK_PAGES);
}

/* The old place stays mapped, without content: zeros for the CPU; for a device once it is adopted. */
PLACE_TEST(move, without_unmapping)
{
	static uint64_t keep[PAGES];
	char *to = free_place(p);

	SYS(munmap(to, BYTES));
	MUST(mremap(p->at, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_DONTUNMAP | MREMAP_FIXED, to) == to, "mremap");
	if (p->dev_first)
		arrived(p, to, 0, PAGES);
	memcpy(keep, p->want, sizeof(keep));
	memset(p->want, 0, sizeof(p->want));
	MUST(cpu_wrong(p, p->at, 0, PAGES) == 0, "old bytes at the old place");
	memcpy(p->want, keep, sizeof(keep));
	arrived(p, to, 0, PAGES);
	memcpy(keep, p->want, sizeof(keep));
	memset(p->want, 0, sizeof(p->want));
	if (gm_dev_fault(p->ctx, GM_VA(p->at), GM_READ) == GM_RET_FAULT)
		adopt_next(p, p->at, BYTES);
	assert_same(p, p->at, 0, PAGES);
	memcpy(p->want, keep, sizeof(keep));
	assert_same(p, to, 0, PAGES);
}

/* Bytes that are on their way to a new place whose mapping goes before they arrive. */
PLACE_TEST(move, and_unmap_at_once)
{
	char *to = remap(p, 0, PAGES, free_place(p));

	SYS(munmap(to, BYTES));
	map_at(p, to, BYTES);
	memset(p->want, 0, sizeof(p->want));
	MUST(cpu_wrong(p, to, 0, PAGES) == 0, "old bytes in new memory");
	adopt_next(p, to, BYTES);
	assert_same(p, to, 0, PAGES);
	assert_outside(p, p->at, 0, PAGES);
}
