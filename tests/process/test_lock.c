/* SPDX-License-Identifier: MIT */
/*
 * mlock() and its kin while pages are away: locked memory is home, and stays there; a device reads and writes it in place.
 * Unlocked it moves again.
 */
#include "config.h"

#include "tests/process/process.h"

/* All by syscall(), past the address sanitizer, which makes mlock() do nothing. */
#define LOCK_ONFAULT 1u

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define WITH_SHADOW 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WITH_SHADOW 1
#endif
#ifndef WITH_SHADOW
#define WITH_SHADOW 0
#endif

TestSuite(lock, .timeout = 290);

static void need_right(long rc)
{
	if (rc && (errno == EPERM || errno == ENOMEM))
		cr_skip_test("NOT TESTED: no right to lock so much memory");
	MUST(rc == 0, "lock");
}

/* Locked: not to be moved, in place for a device. */
static void assert_locked(struct proc *p, uint64_t first, uint64_t end)
{
	uint64_t bytes = (end - first) * PAGE, moved = 1;
	char *at = p->at + first * PAGE;

	MUST(pages_away(p, p->at, first, end) == 0, "all of it is home");
	for (uint64_t i = first; i < end; i += 7)
		MUST(pagemap_of(p->at + i * PAGE) == 2, "page %u is present", (unsigned)i);
	IS(gm_migrate(p->as, GM_VA(at), bytes, p->dev, &moved), GM_RET_BUSY);
	MUST(moved == 0, "%llu bytes moved", (unsigned long long)moved);
	MUST(dev_wrong(p, p->at, first, end) == 0, "the device reads it in place");
	dev_fill(p, p->at, first, end, 4);
	MUST(cpu_wrong(p, p->at, first, end) == 0, "the device has written it in place");
	MUST(pages_away(p, p->at, first, end) == 0, "it stays home");
}

/* As before it was locked. */
static void assert_movable(struct proc *p)
{
	OK(gm_migrate(p->as, GM_VA(p->at), BYTES, NULL, NULL)); /* what devices have mapped in place */
	OK(gm_migrate(p->as, GM_VA(p->at), BYTES, p->dev, NULL));
	MUST(pages_away(p, p->at, 0, PAGES) == PAGES, "all of it moves");
	assert_same(p, p->at, 0, PAGES);
}

PLACE_TEST(lock, mlock_munlock)
{
	need_right(syscall(SYS_mlock, p->at, BYTES));
	assert_locked(p, 0, PAGES);
	SYS(syscall(SYS_munlock, p->at, BYTES));
	assert_movable(p);
}

PLACE_TEST(lock, part)
{
	uint64_t first = BLOCK_PAGES - 37, end = BLOCK_PAGES + 50;

	need_right(syscall(SYS_mlock, p->at + first * PAGE, (end - first) * PAGE));
	assert_locked(p, first, end);
	MUST(cpu_wrong(p, p->at, 0, PAGES) == 0, "the others");
	IS(gm_migrate(p->as, GM_VA(p->at), BYTES, p->dev, NULL), GM_RET_BUSY);
	MUST(pages_away(p, p->at, 0, PAGES) == PAGES - (end - first), "the others move");
	SYS(syscall(SYS_munlock, p->at, BYTES));
	assert_movable(p);
}

/* Locks what is touched: what is away stays there until the CPU comes. */
PLACE_TEST(lock, mlock_on_fault)
{
	uint64_t away = pages_away(p, p->at, 0, PAGES);

	need_right(syscall(SYS_mlock2, p->at, BYTES, LOCK_ONFAULT));
	MUST(pages_away(p, p->at, 0, PAGES) == away, "not touched");
	MUST(cpu_wrong(p, p->at, 0, PAGES) == 0, "touched by the CPU");
	assert_locked(p, 0, PAGES);
	SYS(syscall(SYS_munlock, p->at, BYTES));
	assert_movable(p);
}

/* A device that has it may go on using it; what comes home is locked then. */
PLACE_TEST(lock, locked_while_the_device_works)
{
	need_right(syscall(SYS_mlock2, p->at, BYTES, LOCK_ONFAULT));
	MUST(dev_wrong(p, p->at, 0, PAGES) == 0, "the device reads");
	dev_fill(p, p->at, 0, PAGES, 6);
	MUST(cpu_wrong(p, p->at, 0, PAGES) == 0, "the CPU reads");
	assert_locked(p, 0, PAGES);
	SYS(syscall(SYS_munlock, p->at, BYTES));
	assert_movable(p);
}

PLACE_TEST(lock, locked_and_dropped)
{
	need_right(syscall(SYS_mlock, p->at, BYTES));
	MUST(madvise(p->at, BLOCK, MADV_DONTNEED) == -1 && errno == EINVAL, "locked memory is not dropped");
	MUST(cpu_wrong(p, p->at, 0, PAGES) == 0, "nothing changed");
	SYS(munmap(p->at, BLOCK));
	assert_outside(p, p->at, 0, BLOCK_PAGES);
	MUST(dev_wrong(p, p->at, BLOCK_PAGES, PAGES) == 0, "the rest");
	SYS(syscall(SYS_munlock, p->at + BLOCK, BLOCK));
	assert_same(p, p->at, BLOCK_PAGES, PAGES);
}

static uint64_t kib_of(const char *what)
{
	FILE *f = fopen("/proc/self/status", "r");
	uint64_t kib = 0;
	char line[200];

	MUST(f, "/proc/self/status");
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, what, strlen(what)))
			kib = strtoull(line + strlen(what) + 1, NULL, 10);
	(void)fclose(f);
	return kib;
}

/*
 * All memory of the process, the library's own included: that is not filled for nothing, and what was filled and locked
 * of it is no obstacle afterwards.
 */
static void lock_all(struct proc *p, int flags)
{
	uint64_t before = kib_of("VmRSS:");

	if (WITH_SHADOW)
		cr_skip_test("NOT TESTED: the sanitizer maps more than a machine can lock");
	need_right(syscall(SYS_mlockall, MCL_CURRENT | flags));
	MUST(kib_of("VmRSS:") < before + (256u << 10), "%llu KiB before, %llu now", (unsigned long long)before,
	     (unsigned long long)kib_of("VmRSS:"));
	if (flags & MCL_ONFAULT) /* may move until its staging is another, see docs/design.md, "Limits" */
		MUST(cpu_wrong(p, p->at, 0, PAGES) == 0, "touched by the CPU");
	else
		assert_locked(p, 0, PAGES);
	if (p->dev_first)
		SYS(syscall(SYS_munlock, p->at, BYTES)); /* the library's own stays locked */
	else
		SYS(syscall(SYS_munlockall));
	assert_movable(p);
	SYS(syscall(SYS_munlockall));
}

PLACE_TEST(lock, all_that_is_there)
{
	lock_all(p, 0);
}

PLACE_TEST(lock, all_that_is_there_on_fault)
{
	lock_all(p, MCL_ONFAULT);
}

/* What is mapped from now on is locked, and so are pages that come home. */
PLACE_TEST(lock, all_that_comes)
{
	char *at = p->arena + 8 * BLOCK;

	if (WITH_SHADOW)
		cr_skip_test("NOT TESTED: the sanitizer makes the library's munlock() do nothing");
	need_right(syscall(SYS_mlockall, MCL_FUTURE));
	MUST(cpu_wrong(p, p->at, 0, PAGES) == 0, "mapped before: not locked");
	assert_movable(p);
	MUST(mmap(at, BLOCK, RW, ANON | MAP_FIXED, -1, 0) == at, "mmap");
	IS(gm_adopt(p->as, at, BLOCK, 0), GM_RET_NOTSUP);
	MUST(strstr(gm_last_error(), "locked"), "%s", gm_last_error());
	SYS(syscall(SYS_munlockall));
	OK(gm_adopt(p->as, at, BLOCK, 0));
	for (uint64_t i = 0; i < BLOCK_PAGES; i++)
		*word_at(at, i) = p->want[i];
	assert_same(p, at, 0, BLOCK_PAGES);
}
