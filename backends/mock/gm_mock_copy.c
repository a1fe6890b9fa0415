/* SPDX-License-Identifier: MIT */
/*
 * Transfers, the steps of plans, and the calls that bring them.
 *
 *     copy():   COPY scripted to fail --> error return, fence never signalled
 *               COPY_LATE --> the fence says so, the destinations may hold nonsense
 *     submit(): SUBMIT scripted to fail --> error return, nothing touched
 *
 * Where nothing is out of the ordinary (no engine, no reordering, no script, nothing that takes time), the caller does
 * the work here, in the order given, which satisfies every `after`; the first failure ends it, later steps are
 * CANCELED. Everything else is a job for gm_mock_engine.c.
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
struct gm_mock_late_piece {
	STAILQ_ENTRY(gm_mock_late_piece) link;
	struct gm_copy copy;
	size_t bytes; /* of this allocation */
	char source[];
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
		copy_bytes(vram, gm_mock_vram(gm_mock_has_bug(m, GM_MOCK_BUG_PEER_WRONG) ? m : c->peer, c->host, c->bytes),
			   c->bytes);
		gm_mock_count(&m->bytes_from_peer, c->bytes);
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
static bool put_off(struct gm_mock *m, const struct gm_copy *c, struct gm_mock_late *late)
{
	size_t source = c->kind == GM_COPY_TO_DEV ? c->bytes : 0;
	struct gm_mock_late_piece *piece;

	if (!late || c->kind == GM_COPY_TO_HOST || c->kind == GM_COPY_FROM_PEER)
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
	m->svc->lock(m->svc->self, &m->lock); /* several engines may work for one job */
	STAILQ_INSERT_TAIL(late, piece, link);
	m->svc->unlock(m->svc->self, &m->lock);
	return true;
}

void gm_mock_run_late(struct gm_mock *m, struct gm_mock_late *late)
{
	while (!STAILQ_EMPTY(late)) {
		struct gm_mock_late_piece *piece = STAILQ_FIRST(late);

		STAILQ_REMOVE_HEAD(late, link);
		transfer(m, &piece->copy);
		m->svc->free(m->svc->self, piece, piece->bytes);
	}
}

/* The memory that it reads cannot be read. */
static bool is_unreadable(struct gm_mock *m, const struct gm_copy *c)
{
	if (c->kind == GM_COPY_TO_HOST)
		return gm_mock_is_bad(m, c->pa, c->bytes);
	if (c->kind == GM_COPY_FROM_PEER)
		return gm_mock_is_lost(c->peer) || gm_mock_is_bad(c->peer, c->host, c->bytes);
	return false;
}

static void check_piece(struct gm_mock *m, const struct gm_copy *c)
{
	assert(c->bytes > 0 && c->bytes % GM_PAGE_BYTES == 0 && c->pa % GM_PAGE_BYTES == 0);
	assert((c->kind == GM_COPY_FROM_PEER) == (c->peer != NULL));
	assert(c->kind != GM_COPY_FROM_PEER || gm_mock_peer_reach(m, c->peer) == GM_RET_SUCCESS ||
	       gm_mock_is_lost(c->peer));
	(void)m;
	(void)c;
}

gm_ret_t gm_mock_run_piece(struct gm_mock *m, const struct gm_copy *c, bool fail, bool garbage,
			   struct gm_mock_late *late)
{
	struct gm_mock_event event = { .kind = GM_MOCK_EV_COPY, .copy = (int)c->kind, .pa = c->pa, .host = c->host,
				       .bytes = c->bytes };

	if (gm_mock_is_lost(m) && !gm_mock_has_bug(m, GM_MOCK_BUG_HALT_LATE)) {
		event.ret = GM_RET_NODEV;
		goto out;
	}
	check_piece(m, c);
	gm_mock_count(&m->copies, 1);
	if (fail || is_unreadable(m, c)) {
		event.ret = GM_RET_IO;
		if (garbage || !fail)
			transfer_garbage(m, c);
	} else if ((gm_mock_has_bug(m, GM_MOCK_BUG_SKIP_COPY) || gm_mock_has_bug(m, GM_MOCK_BUG_COPY_SHIFT)) &&
		   c->kind != GM_COPY_ZERO) {
		transfer_pages(m, c);
	} else if (!put_off(m, c, late)) {
		transfer(m, c);
	}
out:
	gm_mock_note(m, &event);
	return event.ret;
}

static gm_ret_t run_copy(struct gm_mock *m, const struct gm_copy *copy, struct gm_mock_late *late, bool *hang)
{
	struct gm_mock_verdict late_v, v = gm_mock_judge(m, &(struct gm_mock_call){ .op = GM_MOCK_COPY, .copies = copy, .n = 1 });
	uint64_t delay_ns;

	if (v.ret == GM_RET_SUCCESS)
		late_v = gm_mock_judge(m, &(struct gm_mock_call){ .op = GM_MOCK_COPY_LATE, .copies = copy, .n = 1 });
	else
		late_v = (struct gm_mock_verdict){ .ret = GM_RET_SUCCESS };
	delay_ns = late_v.delay_ns > UINT64_MAX - v.delay_ns ? UINT64_MAX : v.delay_ns + late_v.delay_ns;
	if (delay_ns > 0) {
		gm_mock_cost_delay(m, delay_ns);
		gm_mock_sleep(m, delay_ns);
	}
	*hang = v.hang || late_v.hang;
	if (*hang || v.ret != GM_RET_SUCCESS)
		return v.ret;
	return gm_mock_run_piece(m, copy, late_v.ret != GM_RET_SUCCESS, late_v.garbage, late);
}

gm_ret_t gm_mock_run_step(struct gm_mock *m, const struct gm_step *step, struct gm_mock_late *late, bool *hang)
{
	switch (step->op) {
	case GM_STEP_REMOVE:
		return gm_mock_pmap_remove(step->pmap, step->va, step->bytes);
	case GM_STEP_INVL:
		return gm_mock_tlb_invl(step->pmap, step->va, step->bytes);
	case GM_STEP_ENTER:
		return gm_mock_pmap_enter(step->pmap, step->va, step->pa, step->bytes, step->pte);
	case GM_STEP_COPY:
		return run_copy(m, &step->copy, late, hang);
	}
	assert(!"unknown step");
	return GM_RET_IO;
}

/* Every step here and now, one after the other. */
static gm_ret_t run_steps(struct gm_mock *m, struct gm_step *steps, size_t n)
{
	gm_ret_t first = GM_RET_SUCCESS;
	bool hang = false;

	for (size_t i = 0; i < n; i++) {
		struct gm_step *step = &steps[gm_mock_bug_order(m, i, n)];
		gm_ret_t ret = GM_RET_SUCCESS;

		if (first != GM_RET_SUCCESS && !gm_mock_has_bug(m, GM_MOCK_BUG_PLAN_GOES_ON))
			ret = GM_RET_CANCELED;
		else if (!gm_mock_bug_skips_step(m, i, n))
			ret = gm_mock_run_step(m, step, NULL, &hang);
		if (first == GM_RET_SUCCESS)
			first = ret;
		gm_mock_bug_step_ret(m, step, ret);
	}
	return first;
}

/* Nothing about it needs a job. */
static bool is_plain(const struct gm_mock *m, const struct gm_mock_verdict *v)
{
	return !m->config.async_copy && !m->config.reorder_seed && !m->config.timing_wait && !v->scripted;
}

gm_ret_t gm_mock_copy(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done)
{
	struct gm_mock_call call = { .op = GM_MOCK_COPY, .copies = copies, .n = n };
	struct gm_mock *m = dev;
	struct gm_mock_verdict v, late;
	gm_ret_t ret = GM_RET_SUCCESS;
	uint64_t end_ns;

	assert(copies && n > 0);
	if (gm_mock_is_lost(m))
		return GM_RET_NODEV;
	v = gm_mock_judge(m, &call);
	if (v.ret != GM_RET_SUCCESS)
		return gm_mock_bug_refuse(m, done, v.ret);
	call.op = GM_MOCK_COPY_LATE;
	late = gm_mock_judge(m, &call);
	late.hang |= v.hang;
	late.delay_ns = v.delay_ns > UINT64_MAX - late.delay_ns ? UINT64_MAX : late.delay_ns + v.delay_ns;
	late.scripted |= v.scripted;
	if (!is_plain(m, &late))
		return gm_mock_job_start(m, NULL, copies, n, done, &late);
	atomic_fetch_add(&m->working, 1);
	end_ns = gm_mock_cost_job(m, NULL, copies, n, 0);
	for (size_t i = 0; i < n && ret == GM_RET_SUCCESS; i++) {
		struct gm_copy piece;

		if (gm_mock_bug_piece(m, copies, n, i, &piece))
			ret = gm_mock_run_piece(m, &piece, false, false, NULL);
	}
	gm_mock_cost_done(m, end_ns);
	gm_mock_bug_signal(m, done, ret);
	atomic_fetch_sub(&m->working, 1);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_submit(void *dev, struct gm_step *steps, size_t n, struct gm_fence *done)
{
	struct gm_mock *m = dev;
	struct gm_mock_verdict v;
	uint64_t end_ns;
	gm_ret_t ret;

	assert(steps && n > 0);
	for (size_t i = 0; i < n; i++)
		assert(steps[i].after == GM_STEP_FREE || steps[i].after < i);
	if (gm_mock_is_lost(m))
		return GM_RET_NODEV;
	v = gm_mock_judge(m, &(struct gm_mock_call){ .op = GM_MOCK_SUBMIT });
	if (v.ret != GM_RET_SUCCESS)
		return gm_mock_bug_refuse(m, done, v.ret);
	gm_mock_count(&m->submits, 1);
	if (!is_plain(m, &v))
		return gm_mock_job_start(m, steps, NULL, n, done, &v);
	atomic_fetch_add(&m->working, 1);
	end_ns = gm_mock_cost_job(m, steps, NULL, n, 0);
	ret = run_steps(m, steps, n);
	gm_mock_cost_done(m, end_ns);
	gm_mock_bug_signal(m, done, ret);
	atomic_fetch_sub(&m->working, 1);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_peer_reach(void *dev, void *other)
{
	const struct gm_mock *m = dev, *peer = other;

	if (!gm_mock_is_admitted(peer) || peer == m || m->config.peer_group == 0 ||
	    peer->config.peer_group != m->config.peer_group)
		return GM_RET_NOTSUP;
	return GM_RET_SUCCESS;
}
