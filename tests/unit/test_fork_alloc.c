/* SPDX-License-Identifier: MIT */
/*
 * gm_free() and gm_alloc() while a fork is under way: what stood there before was kept from the child and is given back
 * afterwards; what stands there now is excluded all the same. Many schedules.
 */
#include "config.h"

#include "core_fixture.h"

#define BYTES (4 * UNIT)

struct renewal {
	struct world *w;
	void *ptr;
};

/* The kernel gives the same addresses again. */
static void renew_main(void *arg)
{
	struct renewal *r = arg;

	gm_sim_sleep_ns(r->w->sim, gm_sim_random(r->w->sim, 20000));
	OK(gm_free(r->w->as, r->ptr));
	OK(gm_alloc(r->w->as, BYTES, 0, &r->ptr));
}

static void renewed_body(struct world *w)
{
	struct renewal r = { .w = w };
	struct gm_thread *t;
	void *stays;
	uint64_t word;

	OK(gm_alloc(w->as, BYTES, 0, &stays));
	OK(gm_alloc(w->as, BYTES, 0, &r.ptr));
	app_fill(w, GM_VA(stays), BYTES / PAGE, 1);
	app_fill(w, GM_VA(r.ptr), BYTES / PAGE, 2);
	OK(gm_migrate(w->as, GM_VA(r.ptr), BYTES, w->dev[0], NULL));
	OK(gm_pin(w->as, GM_VA(stays), BYTES, w->dev[0])); /* so that nothing of the block comes home */
	t = spawn(w, renew_main, &r);
	(void)gm_sim_fork_snapshot(w->sim, GM_VA(r.ptr), &word, sizeof(word));
	join(w, t);
	IS(gm_sim_fork_snapshot(w->sim, GM_VA(r.ptr), &word, sizeof(word)), GM_RET_FAULT);
	OK(gm_unpin(w->as, GM_VA(stays), BYTES));
	OK(gm_free(w->as, r.ptr));
	OK(gm_free(w->as, stays));
}

Test(fork_alloc, renewed_meanwhile_is_excluded)
{
	const char *seeds = getenv("GM_TEST_SEEDS");
	uint64_t n = seeds ? strtoull(seeds, NULL, 0) : 400;

	for (uint64_t seed = 1; seed <= n; seed++) {
		const struct world_config config = { .seed = seed, .spurious = true };

		world_run(&config, renewed_body);
	}
}
