/* SPDX-License-Identifier: MIT */
/*
 * The real host for tests: an environment, a device, one pmap, and a log that
 * is kept. Where the machine has no userfaultfd a test is skipped, with the
 * library's own words; nothing else is ever skipped here.
 */
#ifndef GM_TEST_HOST_FIXTURE_H
#define GM_TEST_HOST_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "hal/gm_env.h"
#include "hal/gm_host.h"

#define PAGE ((uint64_t)GM_PAGE_BYTES)
#define BLOCK ((uint64_t)GM_BLOCK_BYTES)
#define SECOND_NS UINT64_C(1000000000)

struct host {
	struct gm_env *env;
	const struct gm_mmu *mmu;
	const struct gm_host_ops *ops;
	void *dev, *pmap;
	struct gm_dev_caps caps;
	pthread_mutex_t log_lock;
	unsigned logs;
	char log[512]; /* the last line */
};

static inline void host_log(void *arg, enum gm_log_level level, const char *message)
{
	struct host *h = arg;

	(void)level;
	pthread_mutex_lock(&h->log_lock);
	h->logs++;
	snprintf(h->log, sizeof(h->log), "%s", message);
	pthread_mutex_unlock(&h->log_lock);
}

static inline void host_begin(struct host *h)
{
	struct gm_lib_config config = {
		.size = sizeof(config),
		.log = host_log,
		.log_arg = h,
		.log_level = GM_LOG_WARN,
	};
	gm_ret_t ret;

	memset(h, 0, sizeof(*h));
	pthread_mutex_init(&h->log_lock, NULL);
	h->mmu = gm_host_mmu();
	h->ops = h->mmu->host;
	cr_assert_eq(gm_env_threads_create(&config, &h->env), GM_RET_SUCCESS);
	ret = h->mmu->dev_init(h->env, NULL, &h->caps, &h->dev);
	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	cr_assert_eq(ret, GM_RET_SUCCESS, "%s", gm_last_error());
	cr_assert_eq(h->mmu->pmap_create(h->dev, &h->pmap), GM_RET_SUCCESS, "%s", gm_last_error());
}

static inline void host_end(struct host *h)
{
	h->mmu->pmap_destroy(h->pmap);
	h->mmu->dev_fini(h->dev);
	gm_env_threads_destroy(h->env);
	pthread_mutex_destroy(&h->log_lock);
}

/* Memory of the program, 2 MiB aligned, small pages unless `huge`; inherited by children, unlike mem_map()'s. */
static inline char *map_app(uint64_t bytes, bool huge)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	char *raw = mmap(NULL, bytes + BLOCK, PROT_READ | PROT_WRITE, flags, -1, 0);
	char *at;

	cr_assert(raw != MAP_FAILED);
	at = (char *)((GM_VA(raw) + BLOCK - 1) / BLOCK * BLOCK);
	cr_assert_eq(madvise(at, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE), 0);
	return at;
}

/* Past the address sanitizer, which makes mlock() do nothing. */
static inline long lock_pages(const void *at, uint64_t bytes)
{
	return syscall(SYS_mlock, at, bytes);
}

static inline long unlock_pages(const void *at, uint64_t bytes)
{
	return syscall(SYS_munlock, at, bytes);
}

/* What page i of a pattern begins with. */
static inline uint64_t mark(unsigned page)
{
	return UINT64_C(0x1234567890000001) + page;
}

static inline void put_marks(char *at, unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++)
		*(volatile uint64_t *)(at + i * PAGE + 8) = mark(i);
}

static inline unsigned wrong_marks(const char *at, unsigned first, unsigned end)
{
	unsigned wrong = 0;

	for (unsigned i = first; i < end; i++)
		wrong += *(const volatile uint64_t *)(at + i * PAGE + 8) != mark(i);
	return wrong;
}

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * SECOND_NS + (uint64_t)ts.tv_nsec;
}

static inline void nap(void)
{
	struct timespec ms = { 0, 1000000 };

	nanosleep(&ms, NULL);
}

/* Wait up to ten seconds for a condition; the caller asserts it. */
#define WAIT_FOR(condition)                                                            \
	do {                                                                           \
		for (uint64_t end_ = now_ns() + 10 * SECOND_NS; !(condition) && now_ns() < end_;) \
			nap();                                                         \
	} while (0)

static inline bool present_is(struct host *h, const char *at, struct gm_mask want)
{
	struct gm_mask got;

	return h->ops->mem_present(h->pmap, GM_VA(at), &got) == GM_RET_SUCCESS && gm_mask_equal(&got, &want);
}

/* One message, waited for. */
static inline struct gm_host_msg next_msg(struct host *h)
{
	struct gm_host_msg m = { .bytes = 0 };

	for (;;) {
		if (h->ops->msg_read(h->pmap, &m, 1))
			return m;
		cr_assert_eq(h->ops->msg_wait(h->pmap, gm_deadline_ns(h->env, 10 * SECOND_NS)), GM_RET_SUCCESS,
			     "no message came");
	}
}

/* A thread that calls fn(arg) once. */
struct worker {
	pthread_t id;
	void (*fn)(void *arg);
	void *arg;
	atomic_uint tid;
	atomic_bool done;
};

static inline void *worker_main(void *arg)
{
	struct worker *w = arg;

	atomic_store(&w->tid, (unsigned)gettid());
	w->fn(w->arg);
	atomic_store(&w->done, true);
	return NULL;
}

static inline void worker_start(struct worker *w, void (*fn)(void *arg), void *arg)
{
	w->fn = fn;
	w->arg = arg;
	atomic_init(&w->tid, 0);
	atomic_init(&w->done, false);
	cr_assert_eq(pthread_create(&w->id, NULL, worker_main, w), 0);
}

static inline void worker_join(struct worker *w)
{
	WAIT_FOR(atomic_load(&w->done));
	cr_assert(atomic_load(&w->done), "a thread still waits");
	pthread_join(w->id, NULL);
}

#endif
