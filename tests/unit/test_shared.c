/* SPDX-License-Identifier: MIT */
/* Shared memory on this machine's real host, while it moves: the bytes, and where they are. */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <sys/uio.h>

#include "shared_fixture.h"

#include "hal/host/gm_host_internal.h"

TestSuite(shared, .timeout = 300);

static void moves_both_ways(uint32_t flags)
{
	struct sharer s;
	struct forker *f = &s.f;

	begin(&s, flags);
	cr_assert_eq(nonzero(f->at, 0, PAGES), 0);
	fill(f->at, 0, PAGES, 1);
	cr_assert_eq(entries(f->at, PAGES), PAGES);
	/* Clean: the host's bytes are good still. */
	OK(gm_migrate(f->as, GM_VA(f->at), BYTES, f->dev, NULL));
	check_away(f, f->at, flags);
	cr_assert_eq(wrong(f->at, 0, PAGES, 1), 0);
	cr_assert(comes_home(f, f->at, PAGES));
	cr_assert_eq(entries(f->at, PAGES), PAGES);
	/* Written by the device. */
	cr_assert_eq(dev_wrong(f->ctx, GM_VA(f->at), PAGES, 1), 0);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	check_away(f, f->at, flags);
	cr_assert_eq(wrong(f->at, 0, PAGES, 2), 0);
	cr_assert(comes_home(f, f->at, PAGES));
	/* From device to device, and home as a whole. */
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 3);
	cr_assert_eq(dev_wrong(s.ctx2, GM_VA(f->at), PAGES, 3), 0);
	dev_fill(s.ctx2, GM_VA(f->at), PAGES, 4);
	cr_assert_eq(dev_wrong(f->ctx, GM_VA(f->at), PAGES, 4), 0);
	check_away(f, f->at, flags);
	OK(gm_migrate(f->as, GM_VA(f->at), BYTES, NULL, NULL));
	cr_assert(comes_home(f, f->at, PAGES));
	cr_assert_eq(entries(f->at, PAGES), PAGES);
	cr_assert_eq(wrong(f->at, 0, PAGES, 4), 0);
	OK(gm_free(f->as, f->at));
	IS(gm_free(f->as, f->at), GM_RET_NOENT);
	cr_assert_eq(msync(f->at, BYTES, MS_ASYNC), -1, "unmapped");
	cr_assert(dev_all_free(f->dev));
	end(&s);
}

Test(shared, moves_both_ways)
{
	moves_both_ways(0);
}

Test(shared, moves_both_ways_exclusively)
{
	moves_both_ways(GM_AS_EXCLUSIVE);
}

/* What nobody ever touched is zeros everywhere, and costs no frame. */
static void holes(uint32_t flags)
{
	struct sharer s;
	struct forker *f = &s.f;

	begin(&s, flags);
	fill(f->at, 0, 100, 1);
	OK(gm_migrate(f->as, GM_VA(f->at), BYTES, f->dev, NULL));
	cr_assert_eq(frames(f->at + 100 * PAGE, PAGES - 100), 0);
	cr_assert_eq(dev_wrong(f->ctx, GM_VA(f->at), 100, 1), 0);
	cr_assert_eq(dev_wrong(f->ctx, GM_VA(f->at) + 100 * PAGE, 1, 0), 1, "word() is never zero");
	cr_assert_eq(nonzero(f->at, 100, PAGES), 0);
	cr_assert_eq(wrong(f->at, 0, 100, 1), 0);
	/* The device is first. */
	OK(gm_free(f->as, f->at));
	OK(gm_alloc_shared(f->as, BYTES, 0, (void **)&f->at));
	dev_fill(f->ctx, GM_VA(f->at), 10, 5);
	cr_assert_eq(frames(f->at, PAGES), 0);
	cr_assert_eq(wrong(f->at, 0, 10, 5), 0);
	cr_assert_eq(nonzero(f->at, 10, PAGES), 0);
	end(&s);
}

Test(shared, holes)
{
	holes(0);
}

Test(shared, holes_exclusively)
{
	holes(GM_AS_EXCLUSIVE);
}

/* System calls and other processes' looks at pages that are away wait for them. */
static void kernel_accesses(uint32_t flags)
{
	struct sharer s;
	struct forker *f = &s.f;
	static char buf[BLOCK];
	int fd = memfd_create("in", MFD_CLOEXEC);
	struct iovec here = { buf, BLOCK }, there;

	begin(&s, flags);
	cr_assert_geq(fd, 0);
	there = (struct iovec){ f->at, BLOCK };
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	check_away(f, f->at, flags | GM_AS_EXCLUSIVE); /* the device was first: no frames in either */
	cr_assert_eq(pwrite(fd, f->at, BLOCK, 0), (ssize_t)BLOCK);
	cr_assert(comes_home(f, f->at, PAGES / 2));
	cr_assert_eq(on_device(f, f->at, PAGES), PAGES / 2);
	cr_assert_eq(pread(fd, buf, BLOCK, 0), (ssize_t)BLOCK);
	cr_assert_eq(wrong(buf, 0, PAGES / 2, 2), 0);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 3);
	memset(buf, 0, BLOCK);
	cr_assert_eq(process_vm_readv(getpid(), &here, 1, &there, 1, 0), (ssize_t)BLOCK);
	cr_assert_eq(wrong(buf, 0, PAGES / 2, 3), 0);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 4);
	fill(buf, 0, PAGES / 2, 5);
	cr_assert_eq(pwrite(fd, buf, BLOCK, 0), (ssize_t)BLOCK);
	cr_assert_eq(pread(fd, f->at, BLOCK, 0), (ssize_t)BLOCK);
	cr_assert_eq(dev_wrong(f->ctx, GM_VA(f->at), PAGES / 2, 5), 0);
	close(fd);
	end(&s);
}

Test(shared, kernel_accesses)
{
	kernel_accesses(0);
}

Test(shared, kernel_accesses_exclusively)
{
	kernel_accesses(GM_AS_EXCLUSIVE);
}

/* The content of shared memory outlives MADV_DONTNEED, wherever it is. */
static void dontneed(uint32_t flags)
{
	struct sharer s;
	struct forker *f = &s.f;

	begin(&s, flags);
	fill(f->at, 0, PAGES, 1);
	dev_fill(f->ctx, GM_VA(f->at), PAGES / 2, 2);
	cr_assert_eq(madvise(f->at, BYTES, MADV_DONTNEED), 0);
	cr_assert_eq(wrong(f->at, 0, PAGES / 2, 2), 0);
	for (uint64_t i = PAGES / 2; i < PAGES; i++)
		cr_assert_eq(*(uint64_t *)ptr(word_va(GM_VA(f->at), i)), word(i, 1));
	/* Home, watched, without entries: the device may have it again. */
	cr_assert_eq(madvise(f->at, BYTES, MADV_DONTNEED), 0);
	cr_assert_eq(dev_wrong(f->ctx, GM_VA(f->at), PAGES / 2, 2), 0);
	end(&s);
}

Test(shared, dontneed_keeps_the_content)
{
	dontneed(0);
}

Test(shared, dontneed_keeps_the_content_exclusively)
{
	dontneed(GM_AS_EXCLUSIVE);
}

Test(shared, discard)
{
	struct sharer s;
	struct forker *f = &s.f;
	int fd;

	begin(&s, 0);
	fill(f->at, 0, PAGES, 1);
	dev_fill(f->ctx, GM_VA(f->at), PAGES / 4, 2);
	OK(gm_discard(f->as, GM_VA(f->at) + PAGE, BLOCK - 2 * PAGE));
	cr_assert_eq(nonzero(f->at, 1, PAGES / 2 - 1), 0);
	cr_assert_eq(wrong(f->at, 0, 1, 2), 0);
	for (uint64_t i = PAGES / 2 - 1; i < PAGES; i++)
		cr_assert_eq(*(uint64_t *)ptr(word_va(GM_VA(f->at), i)), word(i, 1));
	OK(gm_discard(f->as, GM_VA(f->at), BYTES));
	cr_assert_eq(frames(f->at, PAGES), 0, "the frames are given back");
	cr_assert_eq(dev_wrong(f->ctx, GM_VA(f->at), 1, 0), 1);
	cr_assert_eq(nonzero(f->at, 0, PAGES), 0);
	fill(f->at, 0, PAGES, 3);
	OK(gm_shared_fd(f->as, f->at, &fd));
	IS(gm_discard(f->as, GM_VA(f->at), BYTES), GM_RET_FAULT);
	cr_assert_eq(wrong(f->at, 0, PAGES, 3), 0);
	close(fd);
	end(&s);
}

Test(shared, rights_are_kept)
{
	struct sharer s;
	struct forker *f = &s.f;
	char *half;
	pid_t pid;

	begin(&s, 0);
	half = f->at + BLOCK / 2;
	fill(f->at, 0, PAGES, 1);
	cr_assert_eq(mprotect(half, BLOCK / 4, PROT_READ), 0);
	IS(dev_touch(f->ctx, GM_VA(half), true), GM_RET_PERM);
	OK(gm_migrate(f->as, GM_VA(f->at), BYTES, f->dev, NULL));
	check_away(f, f->at, 0);
	cr_assert_eq(wrong(f->at, 0, PAGES, 1), 0);
	OK(gm_migrate(f->as, GM_VA(f->at), BYTES, f->dev, NULL));
	/* It is not writable when it comes home. (The child has the memory of its parent.) */
	pid = (pid_t)syscall(SYS_fork);
	if (pid == 0)
		_exit(0);
	cr_assert(exited(ended(pid), 0));
	cr_assert_eq(*(volatile uint64_t *)ptr(word_va(GM_VA(f->at), PAGES / 4)), word(PAGES / 4, 1));
	cr_assert_eq(syscall(SYS_read, open("/dev/zero", O_RDONLY | O_CLOEXEC), half, 8), -1, "written in spite of mprotect()");
	cr_assert_eq(mprotect(half, BLOCK / 4, PROT_READ | PROT_WRITE), 0);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	cr_assert_eq(wrong(f->at, 0, PAGES, 2), 0);
	end(&s);
}

Test(shared, locked_memory_stays)
{
	struct sharer s;
	struct forker *f = &s.f;
	uint64_t moved = 0;

	begin(&s, 0);
	fill(f->at, 0, PAGES, 1);
	if (syscall(SYS_mlock, f->at + BLOCK, 16 * PAGE)) { /* sanitizers have a mlock() of their own */
		end(&s);
		cr_skip_test("NOT TESTED: mlock() is refused");
	}
	IS(gm_migrate(f->as, GM_VA(f->at), BYTES, f->dev, &moved), GM_RET_BUSY);
	cr_assert_eq(moved, BYTES - 16 * PAGE);
	cr_assert_eq(on_device(f, f->at, PAGES), PAGES - 16);
	cr_assert_eq(entries(f->at + BLOCK, 16), 16);
	cr_assert_eq(dev_wrong(f->ctx, GM_VA(f->at), PAGES, 1), 0);
	cr_assert_eq(syscall(SYS_munlock, f->at + BLOCK, 16 * PAGE), 0);
	cr_assert_eq(wrong(f->at, 0, PAGES, 1), 0);
	end(&s);
}

static sigjmp_buf away;

static void jump(int sig)
{
	siglongjmp(away, sig);
}

/* A load of it raises SIGBUS. */
static bool dies_of_sigbus(const char *at)
{
	void (*before)(int) = signal(SIGBUS, jump);
	bool bus = sigsetjmp(away, 1) == SIGBUS;

	if (!bus)
		(void)*(const volatile char *)at;
	(void)signal(SIGBUS, before);
	return bus;
}

/* The only copy was lost: every access fails, and never shows zeros. */
Test(shared, lost_content_fails)
{
	struct sharer s;
	struct forker *f = &s.f;
	int none = -1, fd = memfd_create("out", MFD_CLOEXEC);

	begin(&s, GM_AS_EXCLUSIVE);
	fill(f->at, 0, PAGES, 1);
	OK(gm_migrate(f->as, GM_VA(f->at), BLOCK, f->dev, NULL));
	OK(gm_mock_lose(f->dev));
	IS(gm_migrate(f->as, GM_VA(f->at), BLOCK, NULL, NULL), GM_RET_NODEV);
	cr_assert_eq(place_of(f, f->at), GM_PLACE_POISONED);
	IS(gm_shared_fd(f->as, f->at, &none), GM_RET_NODEV);
	cr_assert_eq(none, -1);
	cr_assert_eq(place_of(f, f->at + BLOCK), GM_PLACE_HOST, "it moves as before");
	IS(dev_touch(s.ctx2, GM_VA(f->at), false), GM_RET_FAULT);
	cr_assert_eq(write(fd, f->at, 8), -1);
	cr_assert_eq(errno, EFAULT);
	cr_assert(dies_of_sigbus(f->at));
	OK(gm_discard(f->as, GM_VA(f->at), BLOCK));
	cr_assert_eq(nonzero(f->at, 0, PAGES / 2), 0);
	for (uint64_t i = PAGES / 2; i < PAGES; i++)
		cr_assert_eq(*(uint64_t *)ptr(word_va(GM_VA(f->at), i)), word(i, 1));
	OK(gm_migrate(f->as, GM_VA(f->at), BYTES, s.dev2, NULL));
	close(fd);
	end(&s);
}

/* The host by itself: where there is a mark no zeros come, and only who asks for that takes it away. */
Test(shared, marks_are_not_overwritten)
{
	const struct gm_host_ops *ops = &gm_host_ops_full;
	uint64_t done = 0;
	struct sharer s;
	char *at;

	begin(&s, 0);
	at = s.f.at;
	OK(ops->watch(s.f.as->hpmap, GM_VA(at), BLOCK));
	OK(ops->poison(s.f.as->hpmap, GM_VA(at) + PAGE, PAGE, &done));
	IS(ops->zero(s.f.as->hpmap, GM_VA(at), 3 * PAGE, &done), GM_RET_EXIST);
	cr_assert_eq(done, PAGE);
	cr_assert(dies_of_sigbus(at + PAGE));
	OK(ops->unmark(s.f.as->hpmap, GM_VA(at) + PAGE, PAGE, &done));
	cr_assert_eq(nonzero(at, 0, 3), 0);
	IS(ops->zero(s.f.as->hpmap, GM_VA(at) + PAGE, PAGE, &done), GM_RET_EXIST);
	OK(ops->unwatch(s.f.as->hpmap, GM_VA(at), BLOCK));
	end(&s);
}

/* ----------------------------------------------------------------- fork */

Test(shared, no_child_has_it_before_it_is_exported)
{
	struct sharer s;
	struct forker *f = &s.f;

	begin(&s, 0);
	fill(f->at, 0, PAGES, 1);
	cr_assert(killed(child_reads(f->at, 0, 1, 1), SIGSEGV));
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	cr_assert(killed(child_reads(f->at, 0, 1, 2), SIGSEGV));
	IS(gm_fork_policy(f->as, GM_VA(f->at), BYTES, GM_FORK_HOME), GM_RET_NOTSUP);
	IS(gm_fork_policy(f->as, GM_VA(f->at) + BLOCK, PAGE, GM_FORK_DEFAULT), GM_RET_NOTSUP);
	OK(gm_fork_policy(f->as, GM_VA(f->at), BYTES, GM_FORK_EXCLUDE));
	cr_assert(killed(child_reads(f->at, 0, 1, 2), SIGSEGV));
	cr_assert_eq(wrong(f->at, 0, PAGES, 2), 0);
	end(&s);
}

/* Unmapping it is not the program's to do. If it does: what it maps there is its own, for everybody. */
Test(shared, what_is_mapped_there_instead_is_left_alone)
{
	struct sharer s;
	struct forker *f = &s.f;
	char *mine;

	begin(&s, 0);
	fill(f->at, 0, PAGES, 1);
	dev_fill(f->ctx, GM_VA(f->at), PAGES / 4, 2);
	mine = mmap(f->at, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	cr_assert_eq(mine, f->at);
	fill(mine, 0, PAGES, 7);
	(void)gm_migrate(f->as, GM_VA(mine), BYTES, f->dev, NULL);
	(void)gm_migrate(f->as, GM_VA(mine), BYTES, NULL, NULL);
	cr_assert_eq(wrong(mine, 0, PAGES, 7), 0);
	OK(gm_free(f->as, f->at));
	cr_assert_eq(wrong(mine, 0, PAGES, 7), 0);
	munmap(mine, BYTES);
	end(&s);
}

/* A space that the program serves itself learns of these faults too. */
static void *reader(void *arg)
{
	return (void *)(uintptr_t)wrong(arg, 0, PAGES, 2);
}

Test(shared, served_by_the_program)
{
	struct sharer s;
	struct forker *f = &s.f;
	pthread_t id;
	void *bad = NULL;

	begin(&s, GM_AS_NO_THREADS);
	fill(f->at, 0, PAGES, 2);
	OK(gm_migrate(f->as, GM_VA(f->at), BYTES, f->dev, NULL));
	check_away(f, f->at, 0);
	cr_assert_eq(pthread_create(&id, NULL, reader, f->at), 0);
	while (on_device(f, f->at, PAGES))
		(void)gm_as_serve(f->as, MS);
	while (pthread_tryjoin_np(id, &bad))
		(void)gm_as_serve(f->as, MS);
	cr_assert_eq(GM_VA(bad), 0);
	end(&s);
}

/* A program that closes every descriptor closes ours: the library has copies (Linux 6.9). */
Test(shared, survives_close_range)
{
	struct sharer s;
	struct forker *f = &s.f;
	pid_t pid;

	pid = fork();
	if (pid == 0) {
		child_signals();
		begin(&s, GM_AS_EXCLUSIVE);
		if (!s.f.as->hpmap || syscall(SYS_pidfd_open, gettid(), O_EXCL) < 0)
			_exit(77);
		dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
		if (syscall(SYS_close_range, 3u, ~0u, 0u))
			_exit(77);
		if (wrong(f->at, 0, PAGES, 2))
			_exit(1);
		dev_fill(f->ctx, GM_VA(f->at), PAGES, 3);
		if (syscall(SYS_close_range, 3u, ~0u, 0u) || wrong(f->at, 0, PAGES, 3))
			_exit(2);
		_exit(gm_free(f->as, f->at) ? 3 : 0);
	}
	pid = ended(pid);
	if (exited(pid, 77))
		cr_skip_test("NOT TESTED: before Linux 6.9");
	cr_assert(exited(pid, 0), "status 0x%x", (unsigned)pid);
}

/* At the end of a space everything of it is unmapped. */
Test(shared, ends_with_its_space)
{
	struct sharer s;
	struct forker *f = &s.f;
	void *p = NULL;
	int fd = -1;
	char *at;

	begin(&s, GM_AS_EXCLUSIVE);
	OK(gm_alloc_shared(f->as, BLOCK, 0, &p));
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 3);
	dev_fill(f->ctx, GM_VA(p), PAGES / 2, 4);
	OK(gm_shared_fd(f->as, p, &fd));
	end(&s);
	cr_assert_eq(msync(f->at, BYTES, MS_ASYNC), -1);
	cr_assert_eq(msync(p, BLOCK, MS_ASYNC), -1);
	at = mmap(NULL, BLOCK, PROT_READ, MAP_SHARED, fd, 0);
	cr_assert_neq(at, MAP_FAILED);
	cr_assert_eq(wrong(at, 0, PAGES / 2, 4), 0, "who has the descriptor has the bytes");
	munmap(at, BLOCK);
	close(fd);
}

CORE_TEST(shared, simulated_host_has_none)
{
	void *p = NULL;
	int fd = -1;

	IS(gm_alloc_shared(w->as, BLOCK, 0, &p), GM_RET_NOTSUP);
	IS(gm_map_shared(w->as, 0, 0, BLOCK, 0, &p), GM_RET_NOTSUP);
	OK(gm_alloc(w->as, BLOCK, 0, &p));
	IS(gm_shared_fd(w->as, p, &fd), GM_RET_NOENT);
}
