/* SPDX-License-Identifier: MIT */
/*
 * For tests of fork(): a library on this machine's real host with one mock
 * device; memory that is on the device; children that judge what they see.
 * Skipped, loudly, where there is no right to userfaultfd.
 */
#ifndef GM_TEST_FORK_FIXTURE_H
#define GM_TEST_FORK_FIXTURE_H

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core_fixture.h"

#define BYTES (2 * BLOCK)
#define PAGES (2 * (uint64_t)GM_BLOCK_PAGES)

struct forker {
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_as *as;
	struct gm_ctx *ctx;
	char *at; /* BYTES, on a block boundary, adopted, all on the device, filled by it with salt 2 */
};

static inline void fill(char *at, uint64_t first, uint64_t end, uint64_t salt)
{
	for (uint64_t i = first; i < end; i++)
		*(volatile uint64_t *)ptr(word_va(GM_VA(at), i)) = word(i, salt);
}

static inline uint64_t wrong(const char *at, uint64_t first, uint64_t end, uint64_t salt)
{
	uint64_t n = 0;

	for (uint64_t i = first; i < end; i++)
		n += *(const volatile uint64_t *)ptr(word_va(GM_VA(at), i)) != word(i, salt);
	return n;
}

static inline uint64_t nonzero(const char *at, uint64_t first, uint64_t end)
{
	uint64_t n = 0;

	for (uint64_t i = first; i < end; i++)
		n += *(const volatile uint64_t *)ptr(word_va(GM_VA(at), i)) != 0;
	return n;
}

static inline enum gm_place place_of(struct forker *f, const char *at)
{
	struct gm_page_info info;

	OK(gm_query(f->as, GM_VA(at), 1, &info));
	return info.place;
}

static inline uint64_t on_device(struct forker *f, const char *at, uint64_t pages)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < pages; i++)
		n += place_of(f, at + i * PAGE) == GM_PLACE_DEVICE;
	return n;
}

static inline void to_device(struct forker *f, char *at, uint64_t salt)
{
	fill(at, 0, PAGES, salt + 100);
	dev_fill(f->ctx, GM_VA(at), PAGES, salt);
	OK(gm_migrate(f->as, GM_VA(at), BYTES, f->dev, NULL));
	cr_assert_eq(on_device(f, at, PAGES), PAGES);
}

static inline char *app_block_memory(void)
{
	char *raw = mmap(NULL, BYTES + BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(raw, MAP_FAILED);
	return (char *)((GM_VA(raw) + BLOCK - 1) & ~(BLOCK - 1));
}

static inline void forker_log(void *arg, enum gm_log_level level, const char *message)
{
	(void)arg;
	(void)level;
	if (getenv("GM_TEST_LOG"))
		fprintf(stderr, "log: %s\n", message);
}

static inline void forker_begin(struct forker *f, const struct gm_as_config *config)
{
	struct gm_lib_config lc = { .size = sizeof(lc), .log = forker_log, .log_level = GM_LOG_WARN };
	gm_ret_t ret = gm_lib_create(&lc, &f->lib);

	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	OK(ret);
	alarm(300); /* an access that nobody serves waits for ever */
	OK(gm_dev_open(f->lib, "mock:vram=32M", &f->dev));
	OK(gm_as_create(f->lib, 0, 0, config, &f->as));
	OK(gm_as_attach(f->as, f->dev, GM_ATTACH_IDENTITY, NULL, &f->ctx));
	f->at = app_block_memory();
	OK(gm_adopt(f->as, f->at, BYTES, 0));
	to_device(f, f->at, 2);
}

static inline void forker_end(struct forker *f)
{
	char text[200] = "";

	cr_assert_eq(gm_as_check(f->as, text, sizeof(text)), GM_RET_SUCCESS, "%s", text);
	OK(gm_as_destroy(f->as));
	OK(gm_dev_destroy(f->dev));
	OK(gm_lib_destroy(f->lib));
}

/* Children say so with their exit status, or the signal that ended them. */
static inline bool exited(int status, int code)
{
	return WIFEXITED(status) && WEXITSTATUS(status) == code;
}

static inline bool killed(int status, int sig)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == sig;
}

static inline void child_signals(void)
{
	(void)signal(SIGSEGV, SIG_DFL);
	(void)signal(SIGBUS, SIG_DFL);
	alarm(100);
}

static inline int ended(pid_t pid)
{
	int status = 0;

	cr_assert_gt(pid, 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return status;
}

/* How a child ends that reads pages [first, end). */
static inline int child_reads(char *at, uint64_t first, uint64_t end, uint64_t salt)
{
	pid_t pid = fork();

	if (pid == 0) {
		child_signals();
		_exit(wrong(at, first, end, salt) ? 1 : 0);
	}
	return ended(pid);
}

/* Parent and child take turns. */
struct turns {
	int down[2], up[2];
};

static inline void turns_init(struct turns *t)
{
	cr_assert_eq(pipe(t->down), 0);
	cr_assert_eq(pipe(t->up), 0);
}

static inline void turn_give(int fd)
{
	if (write(fd, "x", 1) != 1)
		_exit(77);
}

static inline void turn_await(int fd)
{
	char c;

	if (read(fd, &c, 1) != 1)
		_exit(78);
}

#endif
