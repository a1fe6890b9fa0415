/* SPDX-License-Identifier: MIT */
/*
 * The copy engine, and plans.
 *
 * Without async_copy the caller does the work, and the fence is signalled
 * before copy() or submit() returns. With it there is one engine thread and
 * a queue; work is done in order, each call after copy_ns of sleep.
 *
 *     call --SUBMIT, COPY made to fail--> error return, fence never signalled
 *          --> queued --> (copy_ns) --> steps or pieces --> fence signalled
 *
 * A plan is run step by step in the order given, which satisfies every
 * `after`. The first failure ends it: the later steps are CANCELED.
 *
 * The planted early fence: what goes to the device is put off until after
 * the signal. Its source is kept aside first, because the caller may free it
 * once the fence is done; what goes to the host is done in time, because the
 * late write would hit memory of somebody else.
 */
#include "config.h"

#include <assert.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "backends/mock/gm_mock_internal.h"

/* From here on stores that bypass the cache pay; those of a real engine do, too, in both directions. */
#define STREAM_BYTES (64u << 10)

/* A piece that is done after the fence; a copy of the source follows. */
struct late_piece {
	STAILQ_ENTRY(late_piece) link;
	struct gm_copy copy;
	size_t bytes; /* of this allocation */
	char source[];
};

STAILQ_HEAD(late_pieces, late_piece);

struct gm_mock_job {
	TAILQ_ENTRY(gm_mock_job) link;
	struct gm_fence *done;
	struct gm_step *steps; /* submit(): the caller's; NULL: copies */
	size_t n;
	bool fail;             /* GM_MOCK_COPY_LATE */
	size_t bytes;          /* of this allocation */
	struct gm_copy copies[];
};

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void stream_avx2(char *to, const char *from, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 128) { /* a whole number of pages */
		const __m256i *src = (const __m256i *)(const void *)(from + i);
		__m256i *dst = (__m256i *)(void *)(to + i);
		__m256i a = _mm256_loadu_si256(src), b = _mm256_loadu_si256(src + 1);
		__m256i c = _mm256_loadu_si256(src + 2), d = _mm256_loadu_si256(src + 3);

		_mm256_stream_si256(dst, a);
		_mm256_stream_si256(dst + 1, b);
		_mm256_stream_si256(dst + 2, c);
		_mm256_stream_si256(dst + 3, d);
	}
	_mm_sfence();
}

static void copy_bytes(char *to, const char *from, size_t bytes)
{
	/* host memory is where the library says, not necessarily aligned */
	if (bytes >= STREAM_BYTES && (uintptr_t)to % 32 == 0 && __builtin_cpu_supports("avx2"))
		stream_avx2(to, from, bytes);
	else
		memcpy(to, from, bytes);
}
#else
static void copy_bytes(char *to, const char *from, size_t bytes)
{
	memcpy(to, from, bytes);
}
#endif

static void transfer(struct gm_mock *m, const struct gm_copy *c)
{
	char *vram = gm_mock_vram(m, c->pa, c->bytes);

	switch (c->kind) {
	case GM_COPY_TO_DEV:
		copy_bytes(vram, (const char *)(uintptr_t)c->host, c->bytes);
		gm_mock_count(&m->bytes_to_dev, c->bytes);
		break;
	case GM_COPY_TO_HOST:
		copy_bytes((char *)(uintptr_t)c->host, vram, c->bytes);
		gm_mock_count(&m->bytes_to_host, c->bytes);
		break;
	case GM_COPY_ZERO:
		/* Never-used memory of the mock reads as zeros, where a real device has somebody's old data. */
		memset(vram, gm_mock_has_bug(m, GM_MOCK_BUG_SKIP_ZERO) ? GM_MOCK_GARBAGE : 0, c->bytes);
		break;
	case GM_COPY_FROM_PEER:
		assert(!"no peer was ever said to be in reach");
		break;
	}
}

/* Where an error is planted: page by page. */
static void transfer_pages(struct gm_mock *m, const struct gm_copy *c)
{
	struct gm_copy page;

	for (uint64_t at = 0; at < c->bytes; at += GM_PAGE_BYTES) {
		if (gm_mock_bug_page(m, c, at, &page))
			transfer(m, &page);
	}
}

/* A transfer that failed leaves anything at the destination. */
static void transfer_garbage(struct gm_mock *m, const struct gm_copy *c)
{
	void *to = gm_mock_vram(m, c->pa, c->bytes);

	if (c->kind == GM_COPY_TO_HOST)
		to = (void *)(uintptr_t)c->host;
	memset(to, GM_MOCK_GARBAGE, c->bytes);
}

/* Put a piece off. False: there is no memory for it, do it now. */
static bool put_off(struct gm_mock *m, const struct gm_copy *c, struct late_pieces *late)
{
	size_t source = c->kind == GM_COPY_TO_DEV ? c->bytes : 0;
	struct late_piece *piece;

	if (!late || c->kind == GM_COPY_TO_HOST)
		return false;
	piece = m->svc->alloc(m->svc->self, sizeof(*piece) + source);
	if (!piece)
		return false;
	piece->copy = *c;
	piece->bytes = sizeof(*piece) + source;
	if (source) {
		memcpy(piece->source, (const void *)(uintptr_t)c->host, source);
		piece->copy.host = (uint64_t)(uintptr_t)piece->source;
	}
	STAILQ_INSERT_TAIL(late, piece, link);
	return true;
}

static void run_late(struct gm_mock *m, struct late_pieces *late)
{
	while (!STAILQ_EMPTY(late)) {
		struct late_piece *piece = STAILQ_FIRST(late);

		STAILQ_REMOVE_HEAD(late, link);
		transfer(m, &piece->copy);
		m->svc->free(m->svc->self, piece, piece->bytes);
	}
}

static gm_ret_t run_pieces(struct gm_mock *m, const struct gm_copy *copies, size_t n, bool fail,
			   struct late_pieces *late)
{
	for (size_t i = 0; i < n; i++) {
		struct gm_copy piece, *c = &piece;

		if (gm_mock_is_lost(m))
			return GM_RET_NODEV;
		if (!gm_mock_bug_piece(m, copies, n, i, c))
			continue;
		assert(c->bytes > 0 && c->bytes % GM_PAGE_BYTES == 0 && c->pa % GM_PAGE_BYTES == 0);
		gm_mock_count(&m->copies, 1);
		if (fail)
			transfer_garbage(m, c);
		else if ((gm_mock_has_bug(m, GM_MOCK_BUG_SKIP_COPY) || gm_mock_has_bug(m, GM_MOCK_BUG_COPY_SHIFT)) &&
			 c->kind != GM_COPY_ZERO)
			transfer_pages(m, c);
		else if (!put_off(m, c, late))
			transfer(m, c);
	}
	return fail ? GM_RET_IO : GM_RET_SUCCESS;
}

static gm_ret_t run_step(struct gm_mock *m, const struct gm_step *step, struct late_pieces *late)
{
	switch (step->op) {
	case GM_STEP_REMOVE:
		return gm_mock_pmap_remove(step->pmap, step->va, step->bytes);
	case GM_STEP_INVL:
		return gm_mock_tlb_invl(step->pmap, step->va, step->bytes);
	case GM_STEP_ENTER:
		return gm_mock_pmap_enter(step->pmap, step->va, step->pa, step->bytes, step->pte);
	case GM_STEP_COPY:
		if (gm_mock_fails(m, GM_MOCK_COPY))
			return GM_RET_IO;
		return run_pieces(m, &step->copy, 1, gm_mock_fails(m, GM_MOCK_COPY_LATE), late);
	}
	assert(!"unknown step");
	return GM_RET_IO;
}

static gm_ret_t run_steps(struct gm_mock *m, struct gm_step *steps, size_t n, struct late_pieces *late)
{
	gm_ret_t first = GM_RET_SUCCESS;

	for (size_t i = 0; i < n; i++) {
		struct gm_step *step = &steps[gm_mock_bug_order(m, i, n)];
		gm_ret_t ret = GM_RET_SUCCESS;

		assert(steps[i].after == GM_STEP_FREE || steps[i].after < i);
		if (first != GM_RET_SUCCESS && !gm_mock_has_bug(m, GM_MOCK_BUG_PLAN_GOES_ON))
			ret = GM_RET_CANCELED;
		else if (!gm_mock_bug_skips_step(m, i, n))
			ret = run_step(m, step, late);
		if (first == GM_RET_SUCCESS)
			first = ret;
		gm_mock_bug_step_ret(m, step, ret);
	}
	return first;
}

static bool has_copy(const struct gm_mock_job *job)
{
	if (!job->steps)
		return true;
	for (size_t i = 0; i < job->n; i++) {
		if (job->steps[i].op == GM_STEP_COPY)
			return true;
	}
	return false;
}

/* Only the engine sleeps; new work wakes it too early, so look at the clock. */
static void engine_sleep(struct gm_mock *m)
{
	const struct gm_services *svc = m->svc;
	uint64_t now = svc->now_ns(svc->self);
	uint64_t deadline = m->config.copy_ns > UINT64_MAX - 1 - now ? UINT64_MAX - 1 : now + m->config.copy_ns;

	svc->lock(svc->self, &m->lock);
	while (svc->now_ns(svc->self) < deadline)
		(void)svc->wait(svc->self, &m->engine_waitq, &m->lock, deadline);
	svc->unlock(svc->self, &m->lock);
}

static void run_job(struct gm_mock *m, struct gm_mock_job *job)
{
	struct late_pieces late = STAILQ_HEAD_INITIALIZER(late);
	bool early = gm_mock_has_bug(m, GM_MOCK_BUG_EARLY_FENCE);
	bool sleeps = has_copy(job) && m->config.copy_ns > 0;
	struct late_pieces *put = early ? &late : NULL;
	gm_ret_t ret;

	if (sleeps && !early)
		engine_sleep(m);
	if (job->steps)
		ret = run_steps(m, job->steps, job->n, put);
	else
		ret = run_pieces(m, job->copies, job->n, job->fail, put);
	gm_mock_bug_signal(m, job->done, ret);
	if (!early)
		return;
	if (sleeps)
		engine_sleep(m);
	m->svc->yield(m->svc->self);
	run_late(m, &late);
}

static void engine_main(void *arg)
{
	struct gm_mock *m = arg;
	const struct gm_services *svc = m->svc;
	struct gm_mock_job *job;

	svc->lock(svc->self, &m->lock);
	for (;;) {
		while (TAILQ_EMPTY(&m->jobs) && !m->engine_stop)
			(void)svc->wait(svc->self, &m->engine_waitq, &m->lock, GM_FOREVER_NS);
		job = TAILQ_FIRST(&m->jobs);
		if (!job)
			break;
		TAILQ_REMOVE(&m->jobs, job, link);
		svc->unlock(svc->self, &m->lock);
		run_job(m, job);
		svc->free(svc->self, job, job->bytes);
		svc->lock(svc->self, &m->lock);
	}
	svc->unlock(svc->self, &m->lock);
}

gm_ret_t gm_mock_engine_start(struct gm_mock *m)
{
	const struct gm_services *svc = m->svc;
	gm_ret_t ret;

	if (!m->config.async_copy)
		return GM_RET_SUCCESS;
	ret = svc->thread_start(svc->self, "gm-mock-copy", GM_THREAD_DEVICE, engine_main, m, &m->engine);
	/* What is short is memory or processes; dev_init() knows only the one word. */
	return ret == GM_RET_SUCCESS ? ret : GM_RET_NOMEM;
}

void gm_mock_engine_stop(struct gm_mock *m)
{
	const struct gm_services *svc = m->svc;

	if (!m->engine)
		return;
	svc->lock(svc->self, &m->lock);
	m->engine_stop = true;
	svc->unlock(svc->self, &m->lock);
	svc->wake(svc->self, &m->engine_waitq);
	svc->thread_join(svc->self, m->engine);
	m->engine = NULL;
}

/* Queue work for the engine: `steps`, or else `copies`, which are copied. */
static gm_ret_t enqueue(struct gm_mock *m, struct gm_step *steps, const struct gm_copy *copies, size_t n,
			struct gm_fence *done, bool fail)
{
	const struct gm_services *svc = m->svc;
	struct gm_mock_job *job;
	size_t bytes = sizeof(*job);

	if (!steps)
		bytes += n * sizeof(*copies);
	job = svc->alloc(svc->self, bytes);
	if (!job)
		return gm_mock_bug_refuse(m, done, GM_RET_NOMEM);
	job->done = done;
	job->steps = steps;
	job->n = n;
	job->fail = fail;
	job->bytes = bytes;
	if (!steps)
		memcpy(job->copies, copies, n * sizeof(*copies));
	svc->lock(svc->self, &m->lock);
	TAILQ_INSERT_TAIL(&m->jobs, job, link);
	svc->unlock(svc->self, &m->lock);
	svc->wake(svc->self, &m->engine_waitq);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_copy(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done)
{
	struct gm_mock *m = dev;
	gm_ret_t ret;
	bool fail;

	assert(copies && n > 0);
	if (gm_mock_is_lost(m))
		return GM_RET_NODEV;
	if (gm_mock_fails(m, GM_MOCK_COPY))
		return gm_mock_bug_refuse(m, done, GM_RET_IO);
	fail = gm_mock_fails(m, GM_MOCK_COPY_LATE);
	if (m->config.async_copy)
		return enqueue(m, NULL, copies, n, done, fail);
	ret = run_pieces(m, copies, n, fail, NULL);
	gm_mock_bug_signal(m, done, ret);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_submit(void *dev, struct gm_step *steps, size_t n, struct gm_fence *done)
{
	struct gm_mock *m = dev;
	gm_ret_t ret;

	assert(steps && n > 0);
	if (gm_mock_is_lost(m))
		return GM_RET_NODEV;
	if (gm_mock_fails(m, GM_MOCK_SUBMIT))
		return gm_mock_bug_refuse(m, done, GM_RET_NOMEM);
	gm_mock_count(&m->submits, 1);
	if (m->config.async_copy)
		return enqueue(m, steps, NULL, n, done, false);
	ret = run_steps(m, steps, n, NULL);
	gm_mock_bug_signal(m, done, ret);
	return GM_RET_SUCCESS;
}
