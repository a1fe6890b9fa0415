/* SPDX-License-Identifier: MIT */
/* The simulated host: pages that are protected against stores behave as those of Linux do (test_host_protect.c). */
#include "sim_host_fixture.h"

/* The block at va, whose pages [0, 4) are protected and begin with 100, 101... */
static uint64_t protected_block(struct host_world *w)
{
	static uint64_t src[4 * PAGE / sizeof(uint64_t)];
	uint64_t va = map_watched(w, BLOCK), done;

	for (unsigned i = 0; i < 4; i++)
		src[i * (PAGE / sizeof(uint64_t))] = 100 + i;
	cr_assert_eq(w->op->watch_stores(w->pmap, va, BLOCK), GM_RET_SUCCESS);
	cr_assert_eq(w->op->fill_protected(w->pmap, va, src, 4 * PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(done, 4 * PAGE);
	return va;
}

struct store {
	struct host_world *w;
	uint64_t va;
	gm_ret_t ret;
	bool done;
};

static void store_fn(void *arg)
{
	struct store *s = arg;
	uint64_t value = 7;

	s->ret = gm_sim_store(s->w->sim, s->va, &value, sizeof(value));
	s->done = true;
}

static struct gm_thread *start_store(struct host_world *w, struct store *s, uint64_t va)
{
	struct gm_thread *t = NULL;

	*s = (struct store){ .w = w, .va = va };
	cr_assert_eq(w->env->ops->thread_start(w->env, "store", 0, store_fn, s, &t), GM_RET_SUCCESS);
	return t;
}

HOST_TEST(sim_protect, loads_pass_and_stores_wait)
{
	struct host_world *w = arg;
	uint64_t va = protected_block(w), value = 9;
	struct gm_host_msg msg;
	struct gm_thread *t;
	struct store s;

	cr_assert_eq(load_u64(w, va + 2 * PAGE), 102);
	cr_assert_eq(w->op->bus_access(w->sim, va, &value, 8, false), GM_RET_SUCCESS);
	cr_assert_eq(w->op->bus_access(w->sim, va, &value, 8, true), GM_RET_FAULT);
	t = start_store(w, &s, va + 2 * PAGE);
	msg = next_msg(w);
	cr_assert(msg.wp && msg.write);
	cr_assert_eq(msg.va, va + 2 * PAGE);
	sleep_long(w);
	cr_assert(!s.done);
	cr_assert_eq(w->op->unprotect(w->pmap, va, BLOCK), GM_RET_SUCCESS);
	w->env->ops->thread_join(w->env, t);
	cr_assert_eq(load_u64(w, va + 2 * PAGE), 7);
	store_u64(w, va + 3 * PAGE, 1);
}

HOST_TEST(sim_protect, goes_with_the_frame)
{
	struct host_world *w = arg;
	uint64_t va = protected_block(w), done;
	struct gm_thread *t;
	struct store s;

	w->op->slot_alloc(w->pmap, &w->slot);
	cr_assert(is_span(steal(w, va, 0, 2).moved, 0, 2));
	cr_assert_eq(w->op->restore(w->pmap, va, w->slot, 2 * PAGE, &done), GM_RET_SUCCESS);
	store_u64(w, va, 1);
	/* who waited for the former page is told of the absence of the next */
	t = start_store(w, &s, va + 2 * PAGE);
	cr_assert(next_msg(w).wp);
	cr_assert(is_span(steal(w, va, 2, 3).moved, 2, 3));
	w->op->wake(w->pmap, va + 2 * PAGE, PAGE);
	cr_assert(!next_msg(w).wp);
	cr_assert_eq(w->op->zero(w->pmap, va + 2 * PAGE, PAGE, &done), GM_RET_SUCCESS);
	w->env->ops->thread_join(w->env, t);
	w->op->slot_free(w->pmap, w->slot);
	cr_assert_eq(w->op->unwatch(w->pmap, va, BLOCK), GM_RET_SUCCESS);
	store_u64(w, va + 3 * PAGE, 1);
}

HOST_TEST(sim_protect, only_where_it_was_asked_for)
{
	struct host_world *w = arg;
	uint64_t va = map_watched(w, 2 * BLOCK), done = 7;
	char page[GM_PAGE_BYTES] = { 0 };

	cr_assert_eq(w->op->watch_stores(w->pmap, va, BLOCK), GM_RET_SUCCESS);
	cr_assert_eq(w->op->fill_protected(w->pmap, va + BLOCK, page, PAGE, &done), GM_RET_FAULT);
	cr_assert_eq(done, 0);
	cr_assert_eq(w->op->unprotect(w->pmap, va, 2 * BLOCK), GM_RET_FAULT);
	cr_assert_eq(w->op->watch(w->pmap, va, 2 * BLOCK), GM_RET_SUCCESS);
	cr_assert_eq(w->op->fill_protected(w->pmap, va, page, PAGE, &done), GM_RET_SUCCESS, "and it stays so");
}
