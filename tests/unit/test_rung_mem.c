/* SPDX-License-Identifier: MIT */
/*
 * The same on each rung of the ladder: what moves, what comes back, what the program does to its memory meanwhile; and
 * where a rung cannot, that it says so by failing, never by zeros.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>

#include <gmem/mock.h>

#include "tests/unit/rung_fixture.h"

TestSuite(rung_full, .timeout = 120);
TestSuite(rung_device, .timeout = 120);
TestSuite(rung_no_move, .timeout = 120);
TestSuite(rung_user, .timeout = 120);
TestSuite(rung_explicit, .timeout = 120);

/* A test per rung. */
#define RUNG_TEST(name)                                                            \
	static void name(enum gm_rung rung);                                       \
	Test(rung_full, name) { name(GM_RUNG_FULL); }                              \
	Test(rung_device, name) { name(GM_RUNG_DEVICE); }                          \
	Test(rung_no_move, name) { name(GM_RUNG_NO_MOVE); }                        \
	Test(rung_user, name) { name(GM_RUNG_USER); }                              \
	Test(rung_explicit, name) { name(GM_RUNG_EXPLICIT); }                      \
	static void name(enum gm_rung rung)

#define PAGES 600u /* more than a block */

static char *adopted(struct rung *r, unsigned pages)
{
	char *at = map_app((pages * PAGE + BLOCK - 1) / BLOCK * BLOCK, false);

	OK(gm_adopt(r->as, at, pages * PAGE, 0));
	return at;
}

/* Marks in all pages but a hole and one that was only read. */
static void put_some(char *at)
{
	put_marks(at, 0, 100);
	put_marks(at, 103, PAGES);
	cr_assert_eq(at[100 * PAGE], 0);
}

static void check_some(const char *at, uint64_t add)
{
	cr_assert_eq(wrong_words(at, 0, 100, add) + wrong_words(at, 103, PAGES, add), 0);
	for (unsigned i = 100; i < 103; i++)
		cr_assert_eq(*(const volatile uint64_t *)(at + i * PAGE + 8), add);
}

static void round_trip_with(enum gm_rung rung, uint32_t flags)
{
	struct rung r;
	char *at, *own;
	void *ptr;

	rung_begin(&r, rung, flags, NULL);
	at = adopted(&r, PAGES);
	OK(gm_alloc(r.as, PAGES * PAGE, 0, &ptr));
	own = ptr;
	put_some(at);
	put_some(own);
	for (uint64_t i = 0; i < 3; i++) {
		to_dev(&r, at, PAGES);
		to_dev(&r, own, PAGES);
		OK(dev_add(&r, at, PAGES, 1, NULL));
		OK(dev_add(&r, own, PAGES, 1, NULL));
		rung_check(&r);
		to_host(&r, at, PAGES);
		to_host(&r, own, PAGES);
		check_some(at, i + 1);
		check_some(own, i + 1);
	}
	OK(gm_free(r.as, own));
	OK(gm_release(r.as, at, PAGES * PAGE));
	cr_assert_eq(atomic_load(&r.errors), 0);
	rung_end(&r);
}

RUNG_TEST(round_trip)
{
	round_trip_with(rung, 0);
}

RUNG_TEST(round_trip_exclusive)
{
	round_trip_with(rung, GM_AS_EXCLUSIVE);
}

RUNG_TEST(pieces)
{
	struct rung r;
	char *at;

	rung_begin(&r, rung, 0, NULL);
	at = adopted(&r, PAGES);
	put_marks(at, 0, PAGES);
	for (unsigned i = 0; i < PAGES; i += 7)
		to_dev(&r, at + i * PAGE, 1);
	OK(dev_add(&r, at, PAGES, 1, NULL));
	for (unsigned i = 0; i < PAGES; i += 3)
		to_host(&r, at + i * PAGE, 1);
	to_host(&r, at, PAGES);
	cr_assert_eq(wrong_words(at, 0, PAGES, 1), 0);
	OK(gm_release(r.as, at, PAGES * PAGE));
	rung_end(&r);
}

/* The CPU's own access: it is served, or fails; and the bytes are what they were. */
RUNG_TEST(cpu_access)
{
	struct rung r;
	uint64_t word = 0;
	char *at;

	rung_begin(&r, rung, 0, NULL);
	at = adopted(&r, PAGES);
	put_marks(at, 0, PAGES);
	to_dev(&r, at, PAGES);
	OK(dev_add(&r, at, PAGES, 1, NULL));
	if (cannot(&r, GM_RUNG_NO_CPU_FAULTS)) {
		cr_assert_eq(fate(at, false, &word), SIGSEGV);
		cr_assert_eq(fate(at + 5 * PAGE, true, &word), SIGSEGV);
		cr_assert_eq(pages_in(&r, at, PAGES, GM_PLACE_DEVICE), PAGES, "an access moved something");
		to_host(&r, at, PAGES);
	}
	cr_assert_eq(fate(at, false, &word), 0);
	cr_assert_eq(word, mark(0) + 1);
	cr_assert_eq(wrong_words(at, 0, PAGES, 1), 0);
	OK(gm_release(r.as, at, PAGES * PAGE));
	rung_end(&r);
}

/* The kernel's access on behalf of the program: it waits, or fails; exactly where the rung says so. */
RUNG_TEST(kernel_access)
{
	struct rung r;
	char *at;

	rung_begin(&r, rung, 0, NULL);
	at = adopted(&r, 16);
	put_marks(at, 0, 16);
	cr_assert_eq(kernel_reads(at), 0);
	to_dev(&r, at, 16);
	cr_assert_eq(kernel_reads(at + 3 * PAGE), cannot(&r, GM_RUNG_NO_KERNEL_ACCESS) ? EFAULT : 0);
	to_host(&r, at, 16);
	cr_assert_eq(kernel_reads(at + 3 * PAGE), 0);
	cr_assert_eq(wrong_words(at, 0, 16, 0), 0);
	OK(gm_release(r.as, at, 16 * PAGE));
	rung_end(&r);
}

RUNG_TEST(dontneed)
{
	struct rung r;
	uint64_t seen[16];
	char *at;

	rung_begin(&r, rung, 0, NULL);
	at = adopted(&r, 16);
	put_marks(at, 0, 16);
	to_dev(&r, at, 16);
	OK(dev_add(&r, at, 16, 1, NULL));
	if (cannot(&r, GM_RUNG_NO_EVENTS))
		OK(gm_discard(r.as, GM_VA(at) + 4 * PAGE, 8 * PAGE));
	else
		cr_assert_eq(madvise(at + 4 * PAGE, 8 * PAGE, MADV_DONTNEED), 0);
	OK(gm_dev_fault(r.ctx, GM_VA(at), GM_READ)); /* what was told before is through */
	OK(dev_add(&r, at, 16, 0, seen));
	for (unsigned i = 0; i < 16; i++)
		cr_assert_eq(seen[i], i >= 4 && i < 12 ? 0 : mark(i) + 1, "page %u: 0x%llx", i, (unsigned long long)seen[i]);
	to_host(&r, at, 16);
	for (unsigned i = 4; i < 12; i++)
		cr_assert_eq(*(volatile uint64_t *)(at + i * PAGE + 8), 0);
	cr_assert_eq(wrong_words(at, 0, 4, 1) + wrong_words(at, 12, 16, 1), 0);
	OK(gm_release(r.as, at, 16 * PAGE));
	rung_end(&r);
}

/* On the host, on the device, never touched: zeros for both from then on. */
RUNG_TEST(discard)
{
	struct rung r;
	uint64_t seen[24], word = 1;
	char *at;

	rung_begin(&r, rung, 0, NULL);
	at = adopted(&r, 24);
	put_marks(at, 0, 16);
	to_dev(&r, at, 8);
	OK(dev_add(&r, at, 8, 1, NULL));
	OK(gm_discard(r.as, GM_VA(at) + PAGE, 22 * PAGE));
	for (unsigned i = 1; i < 23; i++) {
		cr_assert_eq(fate(at + i * PAGE, i & 1, &word), 0, "page %u", i);
		cr_assert_eq(word, 0, "page %u", i);
	}
	OK(dev_add(&r, at, 24, 0, seen));
	for (unsigned i = 0; i < 24; i++)
		cr_assert_eq(seen[i], i ? 0 : mark(0) + 1, "page %u", i);
	to_host(&r, at, 24);
	cr_assert_eq(wrong_words(at, 0, 1, 1), 0);
	OK(gm_release(r.as, at, 24 * PAGE));
	rung_end(&r);
}

/* A page that cannot be given up ends it there; those behind are what they were, and none is lost. */
RUNG_TEST(discard_that_stops)
{
	struct rung r;
	uint64_t word;
	gm_ret_t ret;
	char *at;

	rung_begin(&r, rung, 0, NULL);
	at = adopted(&r, 16);
	put_marks(at, 0, 16);
	OK(gm_protect(r.as, GM_VA(at) + 4 * PAGE, PAGE, GM_READ));
	ret = gm_discard(r.as, GM_VA(at) + 2 * PAGE, 6 * PAGE);
	for (unsigned i = 0; i < 16; i++) {
		struct gm_page_info info;

		OK(gm_query(r.as, GM_VA(at) + i * PAGE, 1, &info));
		cr_assert_neq(info.place, GM_PLACE_POISONED, "page %u", i);
		cr_assert_eq(fate(at + i * PAGE, false, &word), 0, "page %u", i);
		cr_assert(word == mark(i) || (i >= 2 && i < 8 && word == 0), "page %u", i);
		cr_assert(ret || i < 2 || i >= 8 || word == 0, "page %u was discarded", i);
	}
	OK(dev_add(&r, at, 4, 0, NULL));
	OK(dev_add(&r, at + 5 * PAGE, 11, 0, NULL));
	OK(gm_protect(r.as, GM_VA(at) + 4 * PAGE, PAGE, GM_READ | GM_WRITE));
	to_host(&r, at, 16);
	OK(gm_release(r.as, at, 16 * PAGE));
	rung_end(&r);
}

static void map_again(char *at, uint64_t bytes)
{
	cr_assert_eq(munmap(at, bytes), 0);
	cr_assert_eq(mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), at);
}

/* What is unmapped while it is away does not come back in what is mapped there next. */
RUNG_TEST(unmapped)
{
	struct rung r;
	uint64_t seen[64];
	char *at;

	rung_begin(&r, rung, 0, NULL);
	at = adopted(&r, 64);
	put_marks(at, 0, 64);
	to_dev(&r, at, 64);
	if (cannot(&r, GM_RUNG_NO_EVENTS))
		OK(gm_release(r.as, at + 16 * PAGE, 32 * PAGE));
	map_again(at + 16 * PAGE, 32 * PAGE);
	cr_assert_eq(at[20 * PAGE + 8], 0);
	OK(gm_adopt(r.as, at + 16 * PAGE, 32 * PAGE, 0));
	OK(dev_add(&r, at, 64, 1, seen));
	for (unsigned i = 0; i < 64; i++)
		cr_assert_eq(seen[i], i >= 16 && i < 48 ? 0 : mark(i), "page %u", i);
	to_host(&r, at, 64);
	cr_assert_eq(wrong_words(at, 0, 16, 1) + wrong_words(at, 48, 64, 1), 0);
	cr_assert_eq(*(volatile uint64_t *)(at + 20 * PAGE + 8), 1);
	OK(gm_release(r.as, at, 64 * PAGE));
	rung_end(&r);
}

RUNG_TEST(mremapped)
{
	struct rung r;
	char *at, *to = map_app(BLOCK, false);

	rung_begin(&r, rung, 0, NULL);
	at = adopted(&r, 64);
	put_marks(at, 0, 64);
	to_dev(&r, at, 64);
	OK(dev_add(&r, at, 64, 1, NULL));
	if (cannot(&r, GM_RUNG_NO_EVENTS))
		OK(gm_release(r.as, at, 64 * PAGE));
	cr_assert_eq(mremap(at, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to), to);
	cr_assert_eq(wrong_words(to, 0, 64, 1), 0);
	if (!cannot(&r, GM_RUNG_NO_EVENTS))
		OK(gm_release(r.as, to, 64 * PAGE));
	rung_end(&r);
}

/* The child has the bytes, and the parent goes on. */
RUNG_TEST(forked)
{
	struct rung r;
	int status;
	pid_t pid;
	char *at;

	rung_begin(&r, rung, 0, NULL);
	at = adopted(&r, PAGES);
	put_marks(at, 0, PAGES);
	to_dev(&r, at, PAGES);
	OK(dev_add(&r, at, PAGES, 1, NULL));
	pid = fork();
	if (pid == 0)
		_exit(wrong_words(at, 0, PAGES, 1) ? 1 : 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child lacks bytes: status 0x%x", (unsigned)status);
	to_dev(&r, at, PAGES);
	OK(dev_add(&r, at, PAGES, 1, NULL));
	to_host(&r, at, PAGES);
	cr_assert_eq(wrong_words(at, 0, PAGES, 2), 0);
	OK(gm_release(r.as, at, PAGES * PAGE));
	rung_end(&r);
}

RUNG_TEST(destroy_brings_home)
{
	struct rung r;
	char *at;

	rung_begin(&r, rung, GM_AS_EXCLUSIVE, NULL);
	at = adopted(&r, PAGES);
	put_marks(at, 0, PAGES);
	to_dev(&r, at, PAGES);
	OK(dev_add(&r, at, PAGES, 1, NULL));
	OK(gm_as_destroy(r.as));
	r.as = NULL;
	cr_assert_eq(wrong_words(at, 0, PAGES, 1), 0);
	put_marks(at, 0, PAGES);
	rung_end(&r);
}

/* What only a lost device had fails every access, as the rung says, until it is given up; a child sees no zeros either. */
RUNG_TEST(lost)
{
	struct rung r;
	struct gm_dev *other;
	struct gm_ctx *ctx;
	uint64_t word = 1;
	int status, bad;
	pid_t pid;
	char *at;

	rung_begin(&r, rung, GM_AS_EXCLUSIVE, NULL);
	bad = cannot(&r, GM_RUNG_NO_POISON) ? SIGSEGV : SIGBUS;
	at = adopted(&r, 272);
	put_marks(at, 0, 272);
	to_dev(&r, at, 8);
	OK(dev_add(&r, at, 8, 1, NULL));
	OK(gm_mock_lose(r.dev));
	cr_assert_eq(gm_migrate(r.as, GM_VA(at), 8 * PAGE, NULL, NULL), GM_RET_NODEV);
	cr_assert_eq(pages_in(&r, at, 8, GM_PLACE_POISONED), 8);
	for (unsigned i = 0; i < 8; i++)
		cr_assert_eq(fate(at + i * PAGE, i & 1, &word), bad, "page %u", i);
	cr_assert_eq(kernel_reads(at + PAGE), EFAULT);
	cr_assert_eq(wrong_words(at, 256, 272, 0), 0);
	pid = fork();
	if (pid == 0)
		_exit(fate(at, false, &word) ? 0 : 1);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child reads what was lost: status 0x%x", (unsigned)status);
	OK(gm_release(r.as, at, 4 * PAGE));
	cr_assert_eq(fate(at, false, &word), bad, "released, and it reads as %llx", (unsigned long long)word);
	OK(gm_adopt(r.as, at, 4 * PAGE, 0));
	OK(gm_dev_open(r.lib, "mock:vram=4M", &other));
	OK(gm_as_attach(r.as, other, GM_ATTACH_IDENTITY, NULL, &ctx));
	cr_assert_eq(gm_dev_fault(ctx, GM_VA(at) + PAGE, GM_READ), GM_RET_FAULT, "another device reads what was lost");
	cr_assert_eq(gm_migrate(r.as, GM_VA(at), 4 * PAGE, other, NULL), GM_RET_BUSY);
	cr_assert_eq(fate(at + PAGE, false, &word), bad, "a device made it accessible");
	OK(gm_discard(r.as, GM_VA(at), 6 * PAGE));
	for (unsigned i = 0; i < 8; i++) {
		word = 1;
		cr_assert_eq(fate(at + i * PAGE, true, &word), i < 6 ? 0 : bad, "page %u", i);
		cr_assert_eq(word, i < 6 ? 0 : 1);
	}
	OK(gm_as_detach(ctx));
	OK(gm_dev_destroy(other));
	OK(gm_as_detach(r.ctx));
	OK(gm_release(r.as, at, 272 * PAGE));
	rung_end(&r);
	munmap(at, BLOCK);
}

/* A move that fails half way: everything is accessible again, holes too. */
RUNG_TEST(undone)
{
	struct rung r;
	uint64_t word = 1;
	char *at;

	rung_begin(&r, rung, 0, NULL);
	at = adopted(&r, 64);
	put_marks(at, 0, 16);
	put_marks(at, 32, 64);
	OK(gm_mock_fail(r.dev, GM_MOCK_COPY, 1, 1));
	cr_assert_eq(gm_migrate(r.as, GM_VA(at), 64 * PAGE, r.dev, NULL), GM_RET_IO);
	cr_assert_eq(pages_in(&r, at, 64, GM_PLACE_DEVICE), 0);
	for (unsigned i = 0; i < 64; i++) {
		cr_assert_eq(fate(at + i * PAGE, true, &word), 0, "page %u", i);
		cr_assert_eq(word, i >= 16 && i < 32 ? 0 : mark(i));
	}
	to_dev(&r, at, 64);
	OK(dev_add(&r, at, 64, 1, NULL));
	to_host(&r, at, 64);
	cr_assert_eq(wrong_words(at, 0, 16, 1) + wrong_words(at, 32, 64, 1), 0);
	OK(gm_release(r.as, at, 64 * PAGE));
	rung_end(&r);
}

/* Locked memory keeps its lock, read-only memory its right. */
RUNG_TEST(fixed)
{
	struct rung r;
	uint64_t moved = 0;
	char *at;

	rung_begin(&r, rung, 0, NULL);
	at = adopted(&r, 16);
	put_marks(at, 0, 16);
	cr_assert_eq(lock_pages(at + 4 * PAGE, PAGE), 0);
	cr_assert_eq(gm_migrate(r.as, GM_VA(at), 16 * PAGE, r.dev, &moved), GM_RET_BUSY);
	cr_assert_eq(pages_in(&r, at + 4 * PAGE, 1, GM_PLACE_HOST), 1);
	cr_assert_eq(moved, 15 * PAGE);
	cr_assert_eq(unlock_pages(at + 4 * PAGE, PAGE), 0);
	to_host(&r, at, 16);
	cr_assert_eq(wrong_words(at, 0, 16, 0), 0);
	cr_assert_eq(mprotect(at, PAGE, PROT_READ), 0);
	(void)gm_migrate(r.as, GM_VA(at), 16 * PAGE, r.dev, NULL);
	cr_assert_eq(dev_add(&r, at, 1, 1, NULL), GM_RET_PERM);
	to_host(&r, at, 16);
	cr_assert_eq(kernel_reads(at), 0);
	cr_assert_eq(fate(at, false, &moved), 0);
	cr_assert_eq(moved, mark(0));
	cr_assert_eq(fate(at, true, &moved), SIGSEGV);
	cr_assert_eq(mprotect(at, PAGE, PROT_READ | PROT_WRITE), 0);
	OK(gm_release(r.as, at, 16 * PAGE));
	rung_end(&r);
}

/* What a rung lacks is refused in words, and works where it does not lack it. */
RUNG_TEST(what_it_cannot_is_refused)
{
	struct gm_as_config mirror = { .size = sizeof(mirror), .flags = GM_AS_MIRROR };
	struct gm_as_config serve = { .size = sizeof(serve), .flags = GM_AS_FORK_SERVE };
	struct gm_as *as;
	struct rung r;
	gm_ret_t ret;
	char *at;

	rung_begin(&r, rung, 0, NULL);
	at = adopted(&r, 64);
	put_marks(at, 0, 64);
	ret = gm_duplicate(r.as, GM_VA(at), 64 * PAGE, r.dev, NULL);
	cr_assert_eq(ret, cannot(&r, GM_RUNG_NO_DUPLICATION) ? GM_RET_NOTSUP : GM_RET_SUCCESS, "%s", gm_last_error());
	cr_assert_eq(wrong_words(at, 0, 64, 0), 0);
	ret = gm_as_create(r.lib, 0, 0, &mirror, &as);
	cr_assert_eq(ret, cannot(&r, GM_RUNG_NO_UNMAP_GUARD) ? GM_RET_NOTSUP : GM_RET_SUCCESS, "%s", gm_last_error());
	if (ret)
		cr_assert_not_null(strstr(gm_last_error(), "gm_adopt()"), "%s", gm_last_error());
	else
		OK(gm_as_destroy(as));
	ret = gm_as_create(r.lib, 0, 0, &serve, &as);
	if (cannot(&r, GM_RUNG_NO_UNMAP_GUARD))
		cr_assert_eq(ret, GM_RET_NOTSUP, "%s", gm_last_error());
	else
		cr_assert(ret == GM_RET_SUCCESS || ret == GM_RET_PERM, "%s", gm_last_error());
	if (ret)
		cr_assert_not_null(strstr(gm_last_error(), "CAP_SYS_PTRACE"), "%s", gm_last_error());
	else
		OK(gm_as_destroy(as));
	OK(gm_release(r.as, at, 64 * PAGE));
	rung_end(&r);
}

/* gm_protect() never opens a page that is away: it would read as zeros. */
RUNG_TEST(protected)
{
	uint64_t word = 1;
	struct rung r;
	gm_ret_t ret;
	char *at;

	rung_begin(&r, rung, 0, NULL);
	at = adopted(&r, 64);
	put_marks(at, 0, 64);
	OK(gm_protect(r.as, GM_VA(at), 64 * PAGE, GM_READ));
	cr_assert_eq(fate(at, true, &word), SIGSEGV);
	OK(gm_protect(r.as, GM_VA(at), 64 * PAGE, GM_READ | GM_WRITE));
	to_dev(&r, at, 32);
	ret = gm_protect(r.as, GM_VA(at), 64 * PAGE, GM_READ | GM_WRITE);
	cr_assert_eq(ret, cannot(&r, GM_RUNG_NO_CPU_FAULTS) ? GM_RET_NOTSUP : GM_RET_SUCCESS, "%s", gm_last_error());
	cr_assert_eq(fate(at, false, &word), cannot(&r, GM_RUNG_NO_CPU_FAULTS) ? SIGSEGV : 0);
	OK(dev_add(&r, at, 32, 1, NULL));
	to_host(&r, at, 64);
	cr_assert_eq(wrong_words(at, 0, 32, 1) + wrong_words(at, 32, 64, 0), 0);
	OK(gm_protect(r.as, GM_VA(at), 64 * PAGE, GM_READ));
	cr_assert_eq(wrong_words(at, 0, 32, 1), 0);
	OK(gm_protect(r.as, GM_VA(at), 64 * PAGE, GM_READ | GM_WRITE));
	OK(gm_release(r.as, at, 64 * PAGE));
	rung_end(&r);
}

/* One device alone, and another's access ends it. */
RUNG_TEST(exclusive)
{
	struct rung r;
	char *at;

	rung_begin(&r, rung, 0, NULL);
	at = adopted(&r, 64);
	put_marks(at, 0, 64);
	OK(gm_exclusive(r.ctx, GM_VA(at), 64 * PAGE, NULL));
	OK(dev_add(&r, at, 64, 1, NULL));
	to_host(&r, at, 64);
	cr_assert_eq(wrong_words(at, 0, 64, 1), 0);
	OK(gm_release(r.as, at, 64 * PAGE));
	rung_end(&r);
}

/* All of the library's, which lie at the end of what the process may have. */
static void close_high(void)
{
	struct rlimit lim;
	unsigned top = 4096;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &lim), 0);
	top = lim.rlim_cur < top ? (unsigned)lim.rlim_cur : top;
	cr_assert_gt(top, 128);
	cr_assert_geq(fcntl((int)top - 64, F_GETFD), 0, "the library's descriptors are elsewhere");
	cr_assert_eq(syscall(SYS_close_range, top - 64, ~0u, 0u), 0);
}

/* The program closes all of the library's descriptors while memory is away: the keeper has them (Linux 6.9), or nothing needs them. */
RUNG_TEST(descriptors_closed)
{
	struct rung r;
	char *at;

	rung_begin(&r, rung, 0, NULL);
	at = adopted(&r, PAGES);
	put_some(at);
	to_dev(&r, at, 64);
	close_high();
	to_dev(&r, at + 64 * PAGE, PAGES - 64);
	OK(dev_add(&r, at, PAGES, 1, NULL));
	to_host(&r, at, PAGES);
	check_some(at, 1);
	to_dev(&r, at, PAGES);
	close_high();
	if (!cannot(&r, GM_RUNG_NO_CPU_FAULTS))
		check_some(at, 1);
	to_host(&r, at, PAGES);
	check_some(at, 1);
	OK(gm_release(r.as, at, PAGES * PAGE));
	cr_assert_eq(atomic_load(&r.errors), 0);
	rung_end(&r);
}
