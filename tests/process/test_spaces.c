/* SPDX-License-Identifier: MIT */
/*
 * Two address spaces with one device. What the process does to memory of the one changes nothing of the other, also where
 * one system call covers both; a page belongs to one of them at most.
 */
#include "config.h"

#include <sys/wait.h>

#include "tests/process/process.h"

#define LONG_NS UINT64_C(60000000000)

TestSuite(spaces, .timeout = 290);

/* `one` as each_place() made it; `two` is behind it, of another space, in the same place of its own. */
static struct proc *second(struct proc *one)
{
	static struct proc two;
	struct gm_as_config config = { .size = sizeof(config), .flags = one->flags ^ GM_AS_EXCLUSIVE,
				       .cpu_around_bytes = GM_UNIT_BYTES, .dev_around_bytes = GM_UNIT_BYTES, .slice_ns = 1 };

	two = *one;
	two.flags = config.flags;
	two.window = false;
	OK(gm_as_create(one->lib, 0, 0, &config, &two.as));
	two.as->forget_ns = PATIENCE_NS;
	OK(gm_as_attach(two.as, one->dev, GM_ATTACH_IDENTITY, NULL, &two.ctx));
	two.at = one->at + BYTES;
	map_at(&two, two.at, BYTES);
	cpu_fill(&two, two.at, 0, PAGES, 5);
	OK(gm_adopt(two.as, two.at, BYTES, 0));
	move_there(&two);
	assert_placed(&two);
	assert_placed(one);
	return &two;
}

static void end_second(struct proc *two)
{
	char text[200] = "";

	MUST(gm_as_check(two->as, text, sizeof(text)) == GM_RET_SUCCESS, "%s", text);
	OK(gm_as_destroy(two->as));
}

/* From the middle of the one to the middle of the other. */
PLACE_TEST(spaces, munmap_over_both)
{
	struct proc *two = second(p);

	SYS(munmap(p->at + BLOCK, BYTES));
	assert_outside(p, p->at, BLOCK_PAGES, PAGES);
	assert_outside(two, two->at, 0, BLOCK_PAGES);
	assert_same(p, p->at, 0, BLOCK_PAGES);
	assert_same(two, two->at, BLOCK_PAGES, PAGES);
	end_second(two);
}

PLACE_TEST(spaces, madvise_over_both)
{
	struct proc *two = second(p);

	SYS(madvise(p->at + BLOCK, BYTES, MADV_DONTNEED));
	memset(p->want + BLOCK_PAGES, 0, BLOCK_PAGES * sizeof(p->want[0]));
	memset(two->want, 0, BLOCK_PAGES * sizeof(p->want[0]));
	assert_same(two, two->at, 0, PAGES);
	assert_same(p, p->at, 0, PAGES);
	end_second(two);
}

/* Each has its own: neither sees the other's memory, nor brings it home. */
PLACE_TEST(spaces, each_its_own)
{
	struct proc *two = second(p);
	uint64_t away = pages_away(two, two->at, 0, PAGES);

	IS(gm_dev_fault(p->ctx, GM_VA(two->at), GM_READ), GM_RET_FAULT);
	IS(gm_dev_fault(two->ctx, GM_VA(p->at), GM_READ), GM_RET_FAULT);
	OK(gm_as_home(p->as, LONG_NS, NULL));
	MUST(pages_away(p, p->at, 0, PAGES) == 0, "the one's");
	MUST(pages_away(two, two->at, 0, PAGES) == away, "the other's");
	assert_same(p, p->at, 0, PAGES);
	assert_same(two, two->at, 0, PAGES);
	end_second(two);
}

/* A fork brings both home. */
PLACE_TEST(spaces, fork)
{
	struct proc *two = second(p);
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(cpu_wrong(p, p->at, 0, PAGES) ? 1 : cpu_wrong(two, two->at, 0, PAGES) ? 2 : 0);
	MUST(pid > 0 && waitpid(pid, &status, 0) == pid, "waitpid");
	MUST(status == 0, "the child: status 0x%x", (unsigned)status);
	assert_same(p, p->at, 0, PAGES);
	assert_same(two, two->at, 0, PAGES);
	end_second(two);
}

/* mremap() of the one's onto the other's: bytes and management follow. */
PLACE_TEST(spaces, mremap_onto_the_other)
{
	struct proc *two = second(p);

	MUST(mremap(p->at, BLOCK, BLOCK, MREMAP_MAYMOVE | MREMAP_FIXED, two->at) == two->at, "mremap");
	if (gm_dev_fault(p->ctx, GM_VA(two->at), GM_READ))
		adopt_next(p, two->at, BLOCK);
	assert_same(p, two->at, 0, BLOCK_PAGES);
	assert_outside(p, p->at, 0, BLOCK_PAGES);
	assert_same(p, p->at, BLOCK_PAGES, PAGES);
	assert_same(two, two->at, BLOCK_PAGES, PAGES);
	MUST(gm_dev_fault(two->ctx, GM_VA(two->at), GM_READ) != GM_RET_SUCCESS, "the other has it no more");
	end_second(two);
}

/* What both claim the second one gets when the first has let go. */
PLACE_TEST(spaces, claimed_by_both)
{
	struct proc *two = second(p), both = *two;
	gm_ret_t ret = gm_adopt(two->as, p->at, BYTES, 0);

	both.at = p->at;
	memcpy(both.want, p->want, sizeof(both.want));
	MUST(ret == GM_RET_SUCCESS || ret == GM_RET_BUSY, "%s", gm_ret_name(ret));
	if (p->place != HOST && !ret)
		IS(gm_dev_fault(two->ctx, GM_VA(p->at) + 20 * PAGE, GM_READ), GM_RET_BUSY);
	MUST(cpu_wrong(p, p->at, 0, PAGES) == 0, "the first one's");
	OK(gm_release(p->as, p->at, BYTES));
	if (ret)
		OK(gm_adopt(two->as, p->at, BYTES, 0));
	assert_same(&both, p->at, 0, PAGES);
	end_second(two);
}
