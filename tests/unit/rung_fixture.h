/* SPDX-License-Identifier: MIT */
/*
 * One instance on a rung of the ladder, with a mock device, over the real host.
 * Where the rung cannot be had (rights of who runs the tests) the test is skipped,
 * with the library's own words.
 */
#ifndef GM_TEST_RUNG_FIXTURE_H
#define GM_TEST_RUNG_FIXTURE_H

#include <gmem/gmem.h>
#include <setjmp.h>
#include <signal.h>

#include "tests/unit/host_fixture.h"

#define OK(call)                                                                                       \
	do {                                                                                           \
		gm_ret_t ok_ = (call);                                                                 \
		cr_assert_eq(ok_, GM_RET_SUCCESS, "%s: %s: %s", #call, gm_ret_name(ok_), gm_last_error()); \
	} while (0)

struct rung {
	struct gm_lib *lib;
	struct gm_as *as;
	struct gm_dev *dev;
	struct gm_ctx *ctx;
	struct gm_rung_info info;
	_Atomic unsigned errors; /* lines of the log at GM_LOG_ERROR */
};

static inline void rung_log(void *arg, enum gm_log_level level, const char *message)
{
	struct rung *r = arg;

	(void)message;
	if (level == GM_LOG_ERROR)
		atomic_fetch_add(&r->errors, 1);
}

static inline bool cannot(const struct rung *r, uint32_t what)
{
	return r->info.cannot & what;
}

static inline void rung_begin(struct rung *r, enum gm_rung rung, uint32_t flags, const char *dev)
{
	struct gm_lib_config lc = { .size = sizeof(lc), .lowest_rung = rung, .highest_rung = rung, .log = rung_log,
				    .log_arg = r, .log_level = GM_LOG_ERROR };
	struct gm_as_config ac = { .size = sizeof(ac), .flags = flags };
	gm_ret_t ret;

	memset(r, 0, sizeof(*r));
	ret = gm_lib_create(&lc, &r->lib);
	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	cr_assert_eq(ret, GM_RET_SUCCESS, "%s", gm_last_error());
	OK(gm_lib_rung(r->lib, &r->info));
	cr_assert_eq(r->info.rung, rung);
	OK(gm_as_create(r->lib, 0, 0, &ac, &r->as));
	OK(gm_dev_open(r->lib, dev ? dev : "mock:vram=16M", &r->dev));
	OK(gm_as_attach(r->as, r->dev, GM_ATTACH_IDENTITY, NULL, &r->ctx));
}

static inline void rung_check(struct rung *r)
{
	char text[256] = "";
	gm_ret_t ret = gm_as_check(r->as, text, sizeof(text));

	cr_assert_eq(ret, GM_RET_SUCCESS, "%s: %s", gm_ret_name(ret), text);
}

static inline void rung_end(struct rung *r)
{
	if (r->as) {
		rung_check(r);
		OK(gm_as_destroy(r->as));
	}
	OK(gm_dev_destroy(r->dev));
	OK(gm_lib_destroy(r->lib));
}

/* ------------------------------------------------------------ the device */

struct dev_job {
	uint64_t va, add;
	unsigned pages;
	uint64_t *seen; /* [pages]: what was there before; or NULL */
	gm_ret_t ret;
};

static inline gm_ret_t dev_job_run(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct dev_job *j = arg;

	(void)index;
	for (unsigned i = 0; i < j->pages && !j->ret; i++) {
		uint64_t va = j->va + i * PAGE + 8, word = 0;

		j->ret = gm_mock_load(t, va, &word, 8);
		if (j->seen)
			j->seen[i] = word;
		word += j->add;
		if (!j->ret && j->add)
			j->ret = gm_mock_store(t, va, &word, 8);
	}
	return GM_RET_SUCCESS;
}

/* The device adds to the word of each page; `seen` NULL, or what it read before. */
static inline gm_ret_t dev_add(struct rung *r, const char *at, unsigned pages, uint64_t add, uint64_t *seen)
{
	struct dev_job j = { .va = GM_VA(at), .add = add, .pages = pages, .seen = seen };
	struct gm_fence *fence;

	OK(gm_mock_launch(r->ctx, dev_job_run, &j, 1, &fence));
	OK(gm_fence_wait(fence, 60 * SECOND_NS));
	gm_fence_put(fence);
	return j.ret;
}

/* ---------------------------------------------------------------- memory */

/* How many pages of a range are where it says, by gm_query(); and by the kernel's page map, that nothing is at an
 * address whose bytes are on a device. */
static inline unsigned pages_in(struct rung *r, const char *at, unsigned pages, enum gm_place place)
{
	struct gm_page_info info[1024];
	unsigned n = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	cr_assert(pages <= 1024 && fd >= 0);
	OK(gm_query(r->as, GM_VA(at), pages, info));
	for (unsigned i = 0; i < pages; i++) {
		uint64_t entry = 0;

		cr_assert_eq(pread(fd, &entry, 8, (off_t)(GM_VA(at) / PAGE + i) * 8), 8);
		n += info[i].place == place;
		if (info[i].place == GM_PLACE_DEVICE)
			cr_assert_eq(entry >> 62, 0, "page %u is on the device and at its address", i);
	}
	close(fd);
	return n;
}

static inline void to_dev(struct rung *r, const char *at, unsigned pages)
{
	OK(gm_migrate(r->as, GM_VA(at), pages * PAGE, r->dev, NULL));
	cr_assert_eq(pages_in(r, at, pages, GM_PLACE_DEVICE), pages);
}

static inline void to_host(struct rung *r, const char *at, unsigned pages)
{
	OK(gm_migrate(r->as, GM_VA(at), pages * PAGE, NULL, NULL));
	cr_assert_eq(pages_in(r, at, pages, GM_PLACE_DEVICE), 0);
}

/* Words as put_marks() left them, plus `add`. */
static inline unsigned wrong_words(const char *at, unsigned first, unsigned end, uint64_t add)
{
	unsigned wrong = 0;

	for (unsigned i = first; i < end; i++)
		wrong += *(const volatile uint64_t *)(at + i * PAGE + 8) != mark(i) + add;
	return wrong;
}

static sigjmp_buf fate_jump;

static inline void fate_handler(int sig)
{
	siglongjmp(fate_jump, sig);
}

/* What an access of the CPU comes to: 0, SIGSEGV or SIGBUS; *word is what it read. */
static inline int fate(char *at, bool write, uint64_t *word)
{
	struct sigaction act = { .sa_handler = fate_handler, .sa_flags = SA_NODEFER }, segv, bus;
	volatile int sig;

	sigaction(SIGSEGV, &act, &segv);
	sigaction(SIGBUS, &act, &bus);
	sig = sigsetjmp(fate_jump, 1);
	if (!sig) {
		*word = *(volatile uint64_t *)(at + 8);
		if (write)
			*(volatile uint64_t *)(at + 8) = *word;
	}
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	return sig;
}

/* write(2) of one page to a pipe: the kernel reads it. 0 or errno. */
static inline int kernel_reads(const char *at)
{
	int fd[2], err = 0;

	cr_assert_eq(pipe(fd), 0);
	if (write(fd[1], at, PAGE) != (ssize_t)PAGE)
		err = errno;
	close(fd[0]);
	close(fd[1]);
	return err;
}

#endif
