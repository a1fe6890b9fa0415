/* SPDX-License-Identifier: MIT */
/* madvise() while pages are away: what gives content up, what only moves it, what says something of children. */
#include "config.h"

#include <sys/wait.h>

#include "tests/process/process.h"

/* Older headers do not know them. */
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

TestSuite(advise, .timeout = 290);

PLACE_TEST(advise, dontneed)
{
	static const uint64_t cut[][2] = { { 3, 20 }, { BLOCK_PAGES - 9, BLOCK_PAGES + 30 }, { 0, PAGES } };

	for (unsigned i = 0; i < 3; i++) {
		SYS(madvise(p->at + cut[i][0] * PAGE, (cut[i][1] - cut[i][0]) * PAGE, MADV_DONTNEED));
		for (uint64_t k = cut[i][0]; k < cut[i][1]; k++)
			p->want[k] = 0;
		assert_same(p, p->at, 0, PAGES);
	}
}

/* Dropped and written at once: what is written stays, whenever the event is acted upon. */
PLACE_TEST(advise, dontneed_and_written_at_once)
{
	for (uint64_t round = 0; round < 3; round++) {
		SYS(madvise(p->at, BYTES, MADV_DONTNEED));
		for (uint64_t i = 0; i < PAGES; i++)
			p->want[i] = 0;
		cpu_fill(p, p->at, round * 7, PAGES - 50, 20 + round);
		assert_same(p, p->at, 0, PAGES);
	}
}

/* Old bytes or zeros until it is written to; what is written afterwards stays. */
PLACE_TEST(advise, free)
{
	uint64_t odd = 0;

	SYS(madvise(p->at, BYTES, MADV_FREE));
	for (uint64_t i = 0; i < PAGES; i++) {
		uint64_t value = *word_at(p->at, i);

		/* "old": as the program last stored it, or as the device did */
		odd += value != 0 && value != p->want[i] && value != word(i, 1);
	}
	MUST(odd == 0, "%llu words are neither old nor zero", (unsigned long long)odd);
	cpu_fill(p, p->at, 0, PAGES, 5);
	assert_same(p, p->at, 0, PAGES);
}

/* Advice that this kind of memory does not take: refused as without the library, and nothing changes. */
PLACE_TEST(advise, refused)
{
	MUST(madvise(p->at, BYTES, MADV_REMOVE) == -1 && errno == EINVAL, "MADV_REMOVE");
	MUST(madvise(p->at, BYTES, 12345) == -1 && errno == EINVAL, "no such advice");
	MUST(madvise(p->at + 1, PAGE, MADV_DONTNEED) == -1 && errno == EINVAL, "unaligned");
	assert_placed(p);
	assert_same(p, p->at, 0, PAGES);
}

/* Advice that moves pages at most. Some may be refused by a kernel without it, or for want of memory. */
PLACE_TEST(advise, content_is_kept)
{
	static const int advice[] = { MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_COLD, MADV_PAGEOUT,
				      MADV_HUGEPAGE, MADV_COLLAPSE, MADV_NOHUGEPAGE, MADV_MERGEABLE, MADV_UNMERGEABLE,
				      MADV_DONTDUMP, MADV_DODUMP };
	uint64_t away = pages_away(p, p->at, 0, PAGES);

	for (unsigned i = 0; i < sizeof(advice) / sizeof(advice[0]); i++) {
		int rc = madvise(p->at, BYTES, advice[i]);

		MUST(rc == 0 || errno == EINVAL || errno == EAGAIN || errno == ENOMEM || errno == EBUSY, "advice %d", advice[i]);
		MUST(pages_away(p, p->at, 0, PAGES) == away, "what is away is still away after advice %d", advice[i]);
		assert_same(p, p->at, 0, PAGES);
		OK(gm_migrate(p->as, GM_VA(p->at), BYTES, NULL, NULL));
		move_there(p);
	}
}

static unsigned collapsed;

/* khugepaged's own way, asked for: what is away must not be taken for a hole and filled with zeros. */
static void collapse_body(struct proc *p)
{
	uint64_t away = pages_away(p, p->at, 0, PAGES);

	SYS(madvise(p->at, BYTES, MADV_HUGEPAGE));
	for (unsigned i = 0; i < 3; i++) {
		int rc = madvise(p->at, BYTES, MADV_COLLAPSE);

		MUST(rc == 0 || errno == EINVAL || errno == EAGAIN || errno == ENOMEM || errno == EBUSY, "MADV_COLLAPSE");
		MUST(rc || !away, "there is no huge page where pages are away");
		collapsed += rc == 0;
		MUST(pages_away(p, p->at, 0, PAGES) == away, "what is away is still away");
	}
	assert_same(p, p->at, 0, PAGES);
}

Test(advise, collapse)
{
	each_place(collapse_body);
	if (!collapsed)
		cr_skip_test("NOT TESTED: the kernel makes no huge page when asked to (MADV_COLLAPSE)");
}

static void populate(struct proc *p, int advice)
{
	SYS(madvise(p->at + 5 * PAGE, BYTES - 10 * PAGE, advice));
	MUST(pages_away(p, p->at, 5, PAGES - 5) == 0, "all of it is home");
	for (uint64_t i = 5; i < PAGES - 5; i += 11)
		MUST(pagemap_of(p->at + i * PAGE) == 2, "page %u is present", (unsigned)i);
	assert_same(p, p->at, 0, PAGES);
}

PLACE_TEST(advise, populate_read)
{
	populate(p, MADV_POPULATE_READ);
}

PLACE_TEST(advise, populate_write)
{
	populate(p, MADV_POPULATE_WRITE);
}

/* How a child ends that looks at page `page`: 0 as wanted, 1 zero, 2 anything else; 100 + the signal. */
static int child_finds(struct proc *p, uint64_t page)
{
	int status = 0;
	pid_t pid = fork();

	MUST(pid >= 0, "fork");
	if (pid == 0) {
		uint64_t value;

		(void)signal(SIGSEGV, SIG_DFL);
		(void)signal(SIGBUS, SIG_DFL);
		value = *word_at(p->at, page);
		_exit(value == p->want[page] ? 0 : value ? 2 : 1);
	}
	MUST(waitpid(pid, &status, 0) == pid, "waitpid");
	return WIFSIGNALED(status) ? 100 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Said while nothing was away; what was away meanwhile is inherited again, see docs/design.md, "Limits". */
PLACE_TEST(advise, dontfork_dofork)
{
	SYS(madvise(p->at, BYTES, MADV_DONTFORK));
	MUST(child_finds(p, 20) == 100 + SIGSEGV, "not inherited");
	SYS(madvise(p->at, BYTES, MADV_DOFORK));
	assert_same(p, p->at, 0, PAGES);
	for (uint64_t i = 1; i < PAGES; i += 201)
		MUST(child_finds(p, i) == 0, "inherited");
	assert_same(p, p->at, 0, PAGES);
}

/* The child's is wiped, whether the bytes were away or not; the parent's is not. */
PLACE_TEST(advise, wipeonfork_keeponfork)
{
	SYS(madvise(p->at, BYTES, MADV_WIPEONFORK));
	for (uint64_t i = 1; i < PAGES; i += 201)
		MUST(child_finds(p, i) == 1, "wiped");
	assert_same(p, p->at, 0, PAGES);
	SYS(madvise(p->at, BYTES, MADV_KEEPONFORK));
	MUST(child_finds(p, 20) == 0, "kept");
	assert_same(p, p->at, 0, PAGES);
}

/*
 * There is no event for it. What comes home later must neither take the place of the guard nor come back when it goes,
 * where the host kept its frame (without, see docs/design.md, "Limits").
 */
PLACE_TEST(advise, guarded_while_away)
{
	uint64_t value;
	int fd[2];

	if (p->flags & GM_AS_EXCLUSIVE)
		return;
	if (madvise(p->at + 3 * PAGE, 20 * PAGE, MADV_GUARD_INSTALL)) {
		MUST(errno == EINVAL, "MADV_GUARD_INSTALL");
		cr_skip_test("NOT TESTED: this kernel has no guard pages");
	}
	SYS(pipe(fd));
	for (unsigned i = 0; i < 2; i++) {
		MUST(write(fd[1], p->at + 3 * PAGE, 8) == -1 && errno == EFAULT, "guarded");
		MUST(write(fd[1], p->at + 20 * PAGE, 8) == -1 && errno == EFAULT, "guarded");
		MUST(cpu_wrong(p, p->at, 0, 3) == 0 && cpu_wrong(p, p->at, 23, PAGES) == 0, "the others");
		OK(gm_migrate(p->as, GM_VA(p->at), BYTES, NULL, NULL));
		IS(dev_peek(p, p->at + 3 * PAGE, &value), GM_RET_FAULT);
	}
	close(fd[0]);
	close(fd[1]);
	SYS(madvise(p->at + 3 * PAGE, 20 * PAGE, MADV_GUARD_REMOVE));
	memset(p->want + 3, 0, 20 * sizeof(p->want[0]));
	assert_same(p, p->at, 0, PAGES);
}

/* What the library brings home, or takes away, must not replace a page that the program has guarded. */
PLACE_TEST(advise, guard_pages)
{
	static int fd = -1;

	if (fd < 0)
		fd = memfd_create("gm-test", MFD_CLOEXEC);
	OK(gm_migrate(p->as, GM_VA(p->at), BYTES, NULL, NULL));
	if (madvise(p->at + 3 * PAGE, 2 * PAGE, MADV_GUARD_INSTALL)) {
		MUST(errno == EINVAL, "MADV_GUARD_INSTALL");
		cr_skip_test("NOT TESTED: this kernel has no guard pages");
	}
	MUST(pwrite(fd, p->at + 3 * PAGE, 8, 0) == -1 && errno == EFAULT, "guarded");
	MUST(dev_touch(p, p->at + 3 * PAGE, true) != GM_RET_SUCCESS, "guarded for devices");
	assert_same(p, p->at, 0, 3);
	assert_same(p, p->at, 5, PAGES);
	MUST(pwrite(fd, p->at + 4 * PAGE, 8, 0) == -1 && errno == EFAULT, "guarded");
	SYS(madvise(p->at + 3 * PAGE, 2 * PAGE, MADV_GUARD_REMOVE));
	p->want[3] = p->want[4] = 0;
	assert_same(p, p->at, 0, PAGES);
}
