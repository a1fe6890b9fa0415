/* SPDX-License-Identifier: MIT */
/*
 * Planted errors of copies, fences, plans and faults: what the sound code is
 * about to do, changed. Without an error planted nothing is.
 */
#include "config.h"

#include "backends/mock/gm_mock_internal.h"

/* Every how many fences one is forgotten. */
#define FENCE_PERIOD 8u
#define BLOCK_NS UINT64_C(1000000)

bool gm_mock_bug_piece(struct gm_mock *m, const struct gm_copy *copies, size_t n, size_t i, struct gm_copy *piece)
{
	size_t other = i ^ 1;

	*piece = copies[i];
	if (gm_mock_has_bug(m, GM_MOCK_BUG_COPY_SWAP) && other < n && copies[i].kind == copies[other].kind &&
	    copies[i].bytes == copies[other].bytes)
		piece->host = copies[other].host;
	return !(gm_mock_has_bug(m, GM_MOCK_BUG_COPY_LAST) && n > 1 && i == n - 1);
}

bool gm_mock_bug_page(struct gm_mock *m, const struct gm_copy *c, uint64_t at, struct gm_copy *page)
{
	bool shift = gm_mock_has_bug(m, GM_MOCK_BUG_COPY_SHIFT);

	*page = *c;
	page->bytes = GM_PAGE_BYTES;
	page->pa += at;
	page->host += shift ? (at + GM_PAGE_BYTES) % c->bytes : at;
	if (!gm_mock_has_bug(m, GM_MOCK_BUG_SKIP_COPY))
		return true;
	return (atomic_fetch_add(&m->bug_pages, 1) + 1) % GM_MOCK_BUG_PERIOD != 0;
}

void gm_mock_bug_signal(struct gm_mock *m, struct gm_fence *done, gm_ret_t ret)
{
	const struct gm_services *svc = m->svc;

	if (gm_mock_has_bug(m, GM_MOCK_BUG_FENCE_NEVER) &&
	    (atomic_fetch_add(&m->bug_fences, 1) + 1) % FENCE_PERIOD == 0)
		return;
	if (gm_mock_has_bug(m, GM_MOCK_BUG_FENCE_SUCCESS))
		ret = GM_RET_SUCCESS;
	svc->fence_signal(svc->self, done, ret);
	/* Only while the caller is inside the call: once it waits, the first signal may be the end of the fence. */
	if (gm_mock_has_bug(m, GM_MOCK_BUG_FENCE_TWICE) && !m->config.async_copy)
		svc->fence_signal(svc->self, done, ret);
}

gm_ret_t gm_mock_bug_refuse(struct gm_mock *m, struct gm_fence *done, gm_ret_t ret)
{
	if (gm_mock_has_bug(m, GM_MOCK_BUG_FENCE_AFTER_ERROR))
		m->svc->fence_signal(m->svc->self, done, ret);
	return ret;
}

size_t gm_mock_bug_order(struct gm_mock *m, size_t i, size_t n)
{
	return gm_mock_has_bug(m, GM_MOCK_BUG_PLAN_REVERSED) ? n - 1 - i : i;
}

bool gm_mock_bug_skips_step(struct gm_mock *m, size_t i, size_t n)
{
	return gm_mock_has_bug(m, GM_MOCK_BUG_PLAN_DROPS_LAST) && n > 1 && i == n - 1;
}

void gm_mock_bug_step_ret(struct gm_mock *m, struct gm_step *step, gm_ret_t ret)
{
	if (!gm_mock_has_bug(m, GM_MOCK_BUG_PLAN_NO_RET))
		step->ret = ret;
}

void gm_mock_bug_fault_next(struct gm_mock *m)
{
	const struct gm_services *svc = m->svc;

	if (!gm_mock_has_bug(m, GM_MOCK_BUG_FAULT_BLOCKS))
		return;
	svc->lock(svc->self, &m->lock);
	(void)svc->wait(svc->self, &m->fault_waitq, &m->lock, svc->now_ns(svc->self) + BLOCK_NS);
	svc->unlock(svc->self, &m->lock);
}

void gm_mock_bug_fault_named(struct gm_mock *m, struct gm_dev_fault *fault)
{
	uint64_t limit = UINT64_C(1) << m->config.va_bits;

	if (gm_mock_has_bug(m, GM_MOCK_BUG_FAULT_VA) && fault->va + m->granule_bytes < limit)
		fault->va += m->granule_bytes;
	if (gm_mock_has_bug(m, GM_MOCK_BUG_FAULT_ACCESS))
		fault->access = GM_READ;
}

void gm_mock_bug_fault_done(struct gm_mock *m, uint64_t *bytes, gm_ret_t *result)
{
	if (gm_mock_has_bug(m, GM_MOCK_BUG_FAULT_ONE_PAGE))
		*bytes = m->granule_bytes;
	if (gm_mock_has_bug(m, GM_MOCK_BUG_FAULT_RESULT) && *result != GM_RET_SUCCESS)
		*result = GM_RET_IO;
}
