/* SPDX-License-Identifier: MIT */
/*
 * Huge pages: 2 MiB go to a device and come home as one page, which the kernel's page map says; what takes a part splits
 * it; where there is no huge page to be had small ones do, with the same bytes.
 */
#include "config.h"

#include <sys/prctl.h>

#include "hal/host/gm_host_uffd.h"
#include "tests/process/process.h"

TestSuite(huge, .timeout = 290);

/* Is the block one huge page? */
static bool is_huge(const char *at)
{
	struct gm_page_region r;
	uint64_t walked;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), n;

	n = gm_pagemap_scan(fd, GM_VA(at), GM_VA(at) + BLOCK, GM_PAGE_IS_PRESENT, &r, 1, &walked);
	close(fd);
	return n == 1 && r.begin == GM_VA(at) && r.end == GM_VA(at) + BLOCK && (r.categories & GM_PAGE_IS_HUGE);
}

/* Memory as a variant has it, on the host. */
static void at_home(struct proc *p)
{
	map_at(p, p->at, BYTES);
	cpu_fill(p, p->at, 0, PAGES, 1);
	OK(gm_adopt(p->as, p->at, BYTES, 0));
	if (p->huge && !(is_huge(p->at) && is_huge(p->at + BLOCK)))
		cr_skip_test("NOT TESTED: the kernel gives no huge page now");
}

/* Afresh: adopted memory that each test takes to the device and back as a whole. */
static void again(struct proc *p)
{
	proc_put(p);
	at_home(p);
}

/*
 * To the device, used there or not, and home as one; where the host did not keep its frame (GM_AS_EXCLUSIVE), home as small
 * pages, see docs/design.md, "Limits".
 */
PLACE_TEST(huge, moves_as_one)
{
	again(p);
	if (!p->huge) {
		MUST(!is_huge(p->at), "small pages");
		return;
	}
	for (unsigned i = 0; i < 3; i++) {
		OK(gm_migrate(p->as, GM_VA(p->at), BYTES, p->dev, NULL));
		MUST(pages_away(p, p->at, 0, PAGES) == PAGES, "all of it");
		if (p->place == CLEAN)
			MUST(dev_wrong(p, p->at, 0, PAGES) == 0, "the device reads");
		else if (p->place == DIRTY)
			dev_fill(p, p->at, 0, PAGES, 3 + i);
		else if (p->place == HALF)
			dev_fill(p, p->at, PAGES / 4, PAGES / 4 * 3, 3 + i);
		OK(gm_migrate(p->as, GM_VA(p->at), BYTES, NULL, NULL));
		if (p->flags & GM_AS_EXCLUSIVE) {
			MUST(!is_huge(p->at), "small pages, where no frame was kept");
			break;
		}
		MUST(is_huge(p->at) && is_huge(p->at + BLOCK), "huge as before, round %u", i);
	}
	assert_same(p, p->at, 0, PAGES);
}

/* A touch of the CPU takes the huge page that was kept as one; else what it touches, and the rest stays away. */
PLACE_TEST(huge, a_touch)
{
	again(p);
	OK(gm_migrate(p->as, GM_VA(p->at), BYTES, p->dev, NULL));
	dev_fill(p, p->at, 0, PAGES, 3);
	MUST(*word_at(p->at, 100) == p->want[100], "the page touched");
	if (p->huge && !(p->flags & GM_AS_EXCLUSIVE)) {
		MUST(pages_away(p, p->at, 0, PAGES) == PAGES - BLOCK_PAGES, "the one that was touched");
		MUST(is_huge(p->at), "huge as before");
	} else {
		MUST(pages_away(p, p->at, 0, PAGES) == PAGES - UNIT_PAGES, "only what was touched");
		MUST(!is_huge(p->at), "small pages");
	}
	assert_same(p, p->at, 0, PAGES);
}

/* Each partial operation splits; what is left is right. */
PLACE_TEST(huge, parts)
{
	for (unsigned what = 0; what < 4; what++) {
		char *at = p->at + 200 * PAGE;
		uint64_t bytes = 100 * PAGE;

		again(p);
		OK(gm_migrate(p->as, GM_VA(p->at), BYTES, p->dev, NULL));
		dev_fill(p, p->at, 0, PAGES, 3);
		if (what == 0)
			SYS(munmap(at, bytes));
		else if (what == 1)
			SYS(madvise(at, bytes, MADV_DONTNEED));
		else if (what == 2)
			SYS(mprotect(at, bytes, PROT_READ));
		else
			MUST(mremap(at, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, p->arena + 8 * BLOCK) != MAP_FAILED, "mremap");
		if (what == 2)
			SYS(mprotect(at, bytes, RW));
		if (what == 1)
			memset(p->want + 200, 0, 100 * sizeof(p->want[0]));
		assert_same(p, p->at, 0, 200);
		assert_same(p, p->at, 300, PAGES);
		if (what == 1 || what == 2)
			assert_same(p, p->at, 200, 300);
		else
			assert_outside(p, p->at, 200, 300);
	}
}

/* No huge page to come home to: small ones, the same bytes. */
PLACE_TEST(huge, falls_back_to_small_pages)
{
	again(p);
	OK(gm_migrate(p->as, GM_VA(p->at), BYTES, p->dev, NULL));
	dev_fill(p, p->at, 0, PAGES, 3);
	SYS(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	OK(gm_migrate(p->as, GM_VA(p->at), BYTES, NULL, NULL));
	MUST(pages_away(p, p->at, 0, PAGES) == 0, "home");
	if (p->huge && !(p->flags & GM_AS_EXCLUSIVE))
		MUST(is_huge(p->at) && is_huge(p->at + BLOCK), "the frames were kept as they are");
	else
		MUST(!is_huge(p->at) && !is_huge(p->at + BLOCK), "no frame was kept, and none is huge");
	MUST(cpu_wrong(p, p->at, 0, PAGES) == 0, "with its bytes");
	/* Nor is there one where a page of what was kept is given up meanwhile. */
	OK(gm_migrate(p->as, GM_VA(p->at), BYTES, p->dev, NULL));
	SYS(madvise(p->at + 7 * PAGE, PAGE, MADV_DONTNEED));
	SYS(madvise(p->at + BLOCK, PAGE, MADV_DONTNEED));
	p->want[7] = p->want[BLOCK_PAGES] = 0;
	OK(gm_migrate(p->as, GM_VA(p->at), BYTES, NULL, NULL));
	MUST(pages_away(p, p->at, 0, PAGES) == 0, "home again");
	MUST(!is_huge(p->at) && !is_huge(p->at + BLOCK), "small pages beside a hole");
	assert_same(p, p->at, 0, PAGES);
	SYS(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0));
}

/* Owned memory asks for huge pages, unless told not to. */
PLACE_TEST(huge, owned)
{
	void *at = NULL;

	if (p->place != HOST)
		return;
	OK(gm_alloc(p->as, BYTES, p->huge ? 0 : GM_MEM_NO_HUGE, &at));
	p->want[0] = 0;
	memset(at, 1, BYTES);
	if (p->huge && !is_huge(at))
		cr_skip_test("NOT TESTED: the kernel gives no huge page now");
	MUST(p->huge == is_huge(at), "as it was asked for");
	OK(gm_migrate(p->as, GM_VA(at), BYTES, p->dev, NULL));
	OK(gm_migrate(p->as, GM_VA(at), BYTES, NULL, NULL));
	MUST((p->huge && !(p->flags & GM_AS_EXCLUSIVE)) == is_huge(at), "as before");
	for (uint64_t i = 0; i < BYTES; i += 4095)
		MUST(((char *)at)[i] == 1, "byte %u", (unsigned)i);
	OK(gm_free(p->as, at));
}
