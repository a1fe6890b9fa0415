/* SPDX-License-Identifier: MIT */
/*
 * "Cannot tell now" (gm_host.h): the host has no answer, for a while. Nothing may be taken for gone, unlocked or
 * dropped for it; the call fails and changes nothing, or comes again. In simulation, each question by itself;
 * test_inject.c has them at every place of everything, test_tell_host.c without a simulation.
 */
#include "config.h"

#include "core/gm_lost.h"
#include "dup_fixture.h"

#define FOR_EVER (UINT64_MAX / 2)

static void cannot(struct world *w, const char *question, bool on)
{
	OK(gm_sim_fail(w->sim, question, on, on ? FOR_EVER : 0));
}

/*
 * A buffer on the device, and next to it another one of which part is unmapped while nobody watches it: who finds that
 * out must not take the first for gone as well.
 */
CORE_TEST(tell, neighbour_stays)
{
	uint64_t va = app_map_blocks(w, 1), b = va + 256 * PAGE;

	app_fill(w, va, GM_BLOCK_PAGES, 7);
	OK(gm_adopt(w->as, ptr(va), 256 * PAGE, 0));
	OK(gm_migrate(w->as, va, 256 * PAGE, w->dev[0], NULL));
	OK(gm_adopt(w->as, ptr(b), 256 * PAGE, 0));
	OK(gm_sim_munmap(w->sim, b + 255 * PAGE, PAGE));
	cannot(w, "mem_rights", true);
	IS(gm_migrate(w->as, b, PAGE, w->dev[0], NULL), GM_RET_NOMEM);
	cannot(w, "mem_rights", false);
	cr_assert_eq(pages_in(w, va, 256, GM_PLACE_DEVICE), 256);
	cr_assert_eq(pages_in(w, b, 255, GM_PLACE_HOST), 255);
	OK(gm_migrate(w->as, b, PAGE, w->dev[0], NULL));
	cr_assert_eq(app_wrong(w, va, 511, 7), 0);
}

/* The calls of the interface say so, and work when it has passed. */
CORE_TEST(tell, calls_fail_and_come_again)
{
	uint64_t va = app_map_blocks(w, 1);
	struct gm_page_info info;

	app_fill(w, va, GM_BLOCK_PAGES, 1);
	cannot(w, "mem_probe", true);
	IS(gm_adopt(w->as, ptr(va), BLOCK, 0), GM_RET_NOMEM);
	cannot(w, "mem_probe", false);
	OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
	cannot(w, "mem_rights", true);
	IS(gm_dev_fault(w->ctx[0], va, GM_READ), GM_RET_NOMEM);
	IS(gm_query_host(w->as, va, 1, &info), GM_RET_NOMEM);
	cannot(w, "mem_rights", false);
	cannot(w, "mem_content", true);
	IS(gm_query_host(w->as, va, 1, &info), GM_RET_NOMEM);
	cannot(w, "mem_content", false);
	OK(gm_query_host(w->as, va, 1, &info));
	cannot(w, "mem_protect", true);
	IS(gm_protect(w->as, va, BLOCK, GM_READ), GM_RET_NOMEM);
	cannot(w, "mem_protect", false);
	app_put(w, va, word(0, 1)); /* it is writable still */
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
}

static void come_back(void *arg)
{
	struct world *w = arg;

	gm_sim_sleep_ns(w->sim, 20 * MS);
	cannot(w, "mem_rights", false);
}

/* A fault in a device's queue is kept until there is an answer: its access does not fail. */
CORE_TEST(tell, queued_fault_is_kept)
{
	uint64_t va = app_adopted(w, 1, 1);
	struct dev_job job = { .va = va, .pages = 4, .salt = 2, .write = true };
	struct gm_thread *t = spawn(w, come_back, w);

	cannot(w, "mem_rights", true);
	OK(dev_run(w->ctx[0], &job));
	join(w, t);
	cr_assert_eq(app_wrong(w, va, 4, 2), 0);
}

static gm_ret_t reopened(void *pmap)
{
	(void)pmap;
	return GM_RET_SUCCESS;
}

/* The handler recovers; a transaction that needs it, to have events read, has the duplicates. Neither waits for the other. */
CORE_TEST(tell, recovery_waits_for_nobody, TWO_DEVS)
{
	struct gm_host_ops *ops = &w->lib->host->host;
	gm_ret_t (*reopen)(void *pmap) = ops->reopen;
	uint64_t va = app_adopted(w, 1, 1), began_ns;
	struct gm_mask mine = gm_mask_span(4, 6);
	struct gm_block *b;

	duplicate(w, va, 32, 0);
	b = gm_block_find(w->as, va);
	gm_lock(w->as->env, &b->lock);
	b->busy = gm_mask_or(b->busy, mine);
	gm_unlock(w->as->env, &b->lock);
	ops->reopen = reopened;
	began_ns = gm_now_ns(w->as->env);
	OK(gm_lost_recover(w->as, 0));
	cr_assert_lt(gm_now_ns(w->as->env) - began_ns, MS, "it waited");
	ops->reopen = reopen;
	gm_sim_sleep_ns(w->sim, 2 * MS);
	gm_txn_release(b, &mine);
	gm_block_put(b);
	for (unsigned i = 0; i < 1000 && dups(w, va, 32); i++)
		gm_sim_sleep_ns(w->sim, MS);
	cr_assert_eq(dups(w, va, 32), 0, "the worker does not end them");
	cr_assert_eq(app_wrong(w, va, 32, 1), 0);
}

static unsigned refusals;

static gm_ret_t reopened_late(void *pmap)
{
	(void)pmap;
	return refusals && refusals-- ? gm_fail(GM_RET_NOMEM, "not now") : GM_RET_SUCCESS;
}

static unsigned told;

static void count_lost(void *arg, const struct gm_lost *lost)
{
	(void)arg;
	told += lost->bytes != 0;
}

/* A lack that passes is no loss: nobody is told, and what cannot be looked at comes again. */
CORE_TEST(tell, not_now_is_not_lost, .as = { .lost = count_lost })
{
	struct gm_host_ops *ops = &w->lib->host->host;
	gm_ret_t (*reopen)(void *pmap) = ops->reopen;
	uint64_t va = app_adopted(w, 1, 1);

	told = 0;
	refusals = 3;
	OK(gm_migrate(w->as, va, 16 * PAGE, w->dev[0], NULL));
	ops->reopen = reopened_late;
	for (unsigned i = 0; i < 3; i++)
		IS(gm_lost_recover(w->as, 0), GM_RET_NOMEM);
	cr_assert_eq(told, 0);
	cannot(w, "mem_present", true);
	OK(gm_lost_recover(w->as, 0));
	gm_sim_sleep_ns(w->sim, 10 * MS);
	cannot(w, "mem_present", false);
	gm_sim_sleep_ns(w->sim, 10 * MS);
	ops->reopen = reopen;
	cr_assert_eq(told, 0, "nothing was touched");
	cr_assert_eq(pages_in(w, va, 16, GM_PLACE_DEVICE), 16);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
}
