/* SPDX-License-Identifier: MIT */
/*
 * munmap() of all, the head, the middle, the tail; mmap() over all or part; the address in other hands at once: new
 * memory is zero on both sides, whatever the device had of the old.
 */
#include "config.h"

#include "tests/process/process.h"

TestSuite(unmap, .timeout = 290);

/* Cut at page granularity that is no unit's, so that device frames are shared by what goes and what stays. */
static const struct cut {
	uint64_t first, end;
} cuts[] = {
	{ 0, PAGES },
	{ 0, 5 },
	{ 0, BLOCK_PAGES },
	{ BLOCK_PAGES / 2 - 3, BLOCK_PAGES + 21 },
	{ 100, 101 },
	{ PAGES - 7, PAGES },
};

#define CUTS (sizeof(cuts) / sizeof(cuts[0]))

static void each_cut(struct proc *p, void (*fn)(struct proc *p, const struct cut *c))
{
	for (unsigned i = 0; i < CUTS; i++) {
		if (i) {
			proc_put(p);
			proc_get(p);
		}
		fn(p, &cuts[i]);
	}
}

static void unmap_cut(struct proc *p, const struct cut *c)
{
	SYS(munmap(p->at + c->first * PAGE, (c->end - c->first) * PAGE));
	assert_outside(p, p->at, c->first, c->end);
	assert_same(p, p->at, 0, c->first);
	assert_same(p, p->at, c->end, PAGES);
}

PLACE_TEST(unmap, whole_head_middle_tail)
{
	each_cut(p, unmap_cut);
}

/* Gone and there again before anybody can have looked: others' memory until it is adopted. */
static void reuse_cut(struct proc *p, const struct cut *c)
{
	char *at = p->at + c->first * PAGE;
	uint64_t bytes = (c->end - c->first) * PAGE;

	SYS(munmap(at, bytes));
	MUST(mmap(at, bytes, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == at, "the address is free");
	for (uint64_t i = c->first; i < c->end; i++)
		p->want[i] = 0;
	MUST(cpu_wrong(p, p->at, c->first, c->end) == 0, "old bytes in new memory");
	assert_next_owner(p, p->at, c->first, c->end);
	adopt_next(p, at, bytes);
	assert_same(p, p->at, 0, PAGES);
}

PLACE_TEST(unmap, address_reused_at_once)
{
	each_cut(p, reuse_cut);
}

/* The same, adopted by its next owner before either side has touched it. */
static void adopt_cut(struct proc *p, const struct cut *c)
{
	char *at = p->at + c->first * PAGE;
	uint64_t bytes = (c->end - c->first) * PAGE;

	SYS(munmap(at, bytes));
	MUST(mmap(at, bytes, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == at, "the address is free");
	adopt_next(p, at, bytes);
	assert_zero(p, p->at, c->first, c->end);
	assert_same(p, p->at, 0, PAGES);
}

PLACE_TEST(unmap, address_adopted_at_once)
{
	each_cut(p, adopt_cut);
}

/* One system call: there is no moment without a mapping. */
static void over_cut(struct proc *p, const struct cut *c)
{
	char *at = p->at + c->first * PAGE;
	uint64_t bytes = (c->end - c->first) * PAGE;

	MUST(mmap(at, bytes, RW, ANON | MAP_FIXED, -1, 0) == at, "mmap over it");
	for (uint64_t i = c->first; i < c->end; i++)
		p->want[i] = 0;
	if (!p->dev_first)
		MUST(cpu_wrong(p, p->at, c->first, c->end) == 0, "old bytes in new memory");
	assert_next_owner(p, p->at, c->first, c->end);
	MUST(cpu_wrong(p, p->at, 0, PAGES) == 0, "after the device looked");
	adopt_next(p, at, bytes);
	assert_same(p, p->at, 0, PAGES);
}

PLACE_TEST(unmap, mapped_over)
{
	each_cut(p, over_cut);
}

/* By something that is not even memory of the kind that can be managed. */
PLACE_TEST(unmap, mapped_over_by_a_file)
{
	int fd = memfd_create("gm-test", MFD_CLOEXEC);
	char *at = p->at + BLOCK / 2;

	MUST(fd >= 0 && ftruncate(fd, (off_t)BLOCK) == 0, "memfd");
	MUST(pwrite(fd, "file", 4, 0) == 4, "pwrite");
	MUST(mmap(at, BLOCK, RW, MAP_SHARED | MAP_FIXED, fd, 0) == at, "mmap over it");
	MUST(memcmp(at, "file", 5) == 0, "the file's bytes");
	assert_outside(p, p->at, BLOCK_PAGES / 2, BLOCK_PAGES / 2 * 3);
	MUST(memcmp(at, "file", 5) == 0, "the file's bytes");
	IS(gm_adopt(p->as, at, BLOCK, 0), GM_RET_NOTSUP);
	assert_same(p, p->at, 0, BLOCK_PAGES / 2);
	assert_same(p, p->at, BLOCK_PAGES / 2 * 3, PAGES);
	close(fd);
}

/* Reserved, not given back: no access, and no old byte when it is opened again. */
PLACE_TEST(unmap, mapped_over_without_rights)
{
	char *at = p->at + 40 * PAGE;

	MUST(mmap(at, BLOCK, PROT_NONE, ANON | MAP_FIXED | MAP_NORESERVE, -1, 0) == at, "mmap over it");
	assert_outside(p, p->at, 40, 40 + BLOCK_PAGES);
	SYS(mprotect(at, BLOCK, RW));
	adopt_next(p, at, BLOCK);
	assert_zero(p, p->at, 40, 40 + BLOCK_PAGES);
	assert_same(p, p->at, 0, PAGES);
}
