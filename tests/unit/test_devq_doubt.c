/* SPDX-License-Identifier: MIT */
/* Device faults at pages whose mapping is in doubt: a change of it failed half way. */
#include "config.h"

#include "devq_script.h"

#include "core/gm_plan.h"

static void doubt_pages(struct world *w, uint64_t va, unsigned first, unsigned end)
{
	struct gm_block *b = gm_block_find(w->as, va);
	struct gm_mask pages = gm_mask_span(first, end);

	cr_assert_not_null(b);
	gm_plan_doubt(b, w->ctx[1]->index, &pages);
	gm_block_put(b);
}

static bool is_doubtful(struct world *w, uint64_t va, unsigned page)
{
	struct gm_block *b = gm_block_find(w->as, va);
	bool is = gm_mask_test(&b->map[w->ctx[1]->index]->unsure, page);

	gm_block_put(b);
	return is;
}

/* A change that failed half way may have left a translation in a TLB: it ends before the page is mapped again. */
CORE_TEST(devq_doubt, doubtful_pages_are_invalidated_first, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	uint64_t moved, edges;

	script_open(w, "submit=no,vram=4M");
	moved = app_adopted(w, 1, 1);
	edges = app_edges(w, 1, 4);
	for (unsigned p = 0; p < 4; p++)
		raise_in(w->ctx[1], edges + p * PAGE, GM_WRITE);
	raise_in(w->ctx[1], moved, GM_WRITE);
	cr_assert_eq(serve_round(w), UINT64_MAX);
	cr_assert_eq(s.invls, 0, "nothing is in doubt");
	doubt_pages(w, edges, 1, 3);
	doubt_pages(w, moved, 0, 2);
	for (unsigned p = 0; p < 2; p++) {
		raise_in(w->ctx[1], edges + p * PAGE, GM_READ);
		cr_assert_eq(serve_round(w), UINT64_MAX);
		cr_assert_eq(s.invls, p, "page %u", p);
		cr_assert_eq(s.enters, p);
	}
	cr_assert(!is_doubtful(w, edges, 1) && is_doubtful(w, edges, 2));
	raise_in(w->ctx[1], moved, GM_READ);
	cr_assert_eq(serve_round(w), UINT64_MAX);
	cr_assert_eq(s.invls, 1, "a page in device memory");
	cr_assert_geq(s.enters, 1);
	cr_assert_not(is_doubtful(w, moved, 0));
}

/* A working set maps what is in doubt anew, in place and in device memory. */
CORE_TEST(devq_doubt, doubtful_pages_of_a_working_set, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	struct gm_ws_range range = { .bytes = PAGE, .access = GM_READ };
	struct gm_ws *ws;

	script_open(w, "submit=no,vram=4M");
	for (unsigned i = 0; i < 2; i++) {
		uint64_t va = i ? app_adopted(w, 1, 1) : app_edges(w, 1, 1);

		raise_in(w->ctx[1], va, GM_WRITE);
		cr_assert_eq(serve_round(w), UINT64_MAX);
		doubt_pages(w, va, 0, 1);
		s.enters = s.invls = 0;
		range.va = va;
		OK(gm_ws_acquire(w->ctx[1], &range, 1, SECOND, &ws));
		cr_assert_eq(s.invls, 1);
		cr_assert_eq(s.enters, 1);
		cr_assert_not(is_doubtful(w, va, 0));
		OK(gm_ws_release(ws, NULL));
	}
}

/* Who may not access a page has looked at nothing: it is in doubt as before. */
CORE_TEST(devq_doubt, doubt_survives_a_refusal, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	uint64_t va;

	script_open(w, "submit=no");
	va = app_edges(w, 1, 1);
	raise_in(w->ctx[1], va, GM_READ);
	cr_assert_eq(serve_round(w), UINT64_MAX);
	doubt_pages(w, va, 0, 1);
	OK(gm_sim_mprotect(w->sim, va, PAGE, GM_READ));
	raise_in(w->ctx[1], va, GM_WRITE);
	cr_assert_eq(serve_round(w), UINT64_MAX);
	IS(answer_of(w->ctx[1], va), GM_RET_PERM);
	cr_assert(is_doubtful(w, va, 0));
	OK(gm_mock_fail(w->dev[1], GM_MOCK_PMAP_ENTER, 1, 2));
	raise_in(w->ctx[1], va, GM_READ);
	cr_assert_eq(serve_round(w), UINT64_MAX);
	IS(answer_of(w->ctx[1], va), GM_RET_NOMEM);
	cr_assert(is_doubtful(w, va, 0), "invalidated, and not mapped after all");
}

/* One page alone that gets more rights: if that fails, what it had is in doubt, and nothing else of it has changed. */
CORE_TEST(devq_doubt, more_rights_that_fail, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	uint64_t va;

	script_open(w, "submit=no");
	va = app_edges(w, 1, 1);
	OK(gm_dev_fault(w->ctx[1], va, GM_READ));
	OK(gm_mock_fail(w->dev[1], GM_MOCK_PMAP_ENTER, 1, 1));
	IS(gm_dev_fault(w->ctx[1], va, GM_WRITE), GM_RET_NOMEM);
	cr_assert(is_doubtful(w, va, 0), "it may read still");
	s.enters = s.invls = 0;
	OK(gm_dev_fault(w->ctx[1], va, GM_WRITE));
	cr_assert_eq(s.invls, 1);
	cr_assert_not(is_doubtful(w, va, 0));
	OK(gm_sim_mprotect(w->sim, va, PAGE, GM_READ));
	IS(gm_dev_fault(w->ctx[0], va, GM_WRITE), GM_RET_PERM);
	OK(gm_dev_fault(w->ctx[0], va, GM_READ));
}
