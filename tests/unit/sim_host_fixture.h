/* SPDX-License-Identifier: MIT */
/*
 * For tests of the simulated host: a world whose host is open, one address
 * space, and a test that runs as the world's first coroutine.
 */
#ifndef GM_TEST_SIM_HOST_FIXTURE_H
#define GM_TEST_SIM_HOST_FIXTURE_H

#include <criterion/criterion.h>

#include <signal.h>
#include <string.h>

#include "hal/gm_host.h"
#include "hal/sim/gm_sim.h"

#define PAGE ((uint64_t)GM_PAGE_BYTES)
#define BLOCK ((uint64_t)GM_BLOCK_BYTES)
#define RW (GM_READ | GM_WRITE)

struct host_world {
	struct gm_sim *sim;
	struct gm_env *env;
	const struct gm_host_ops *op;
	void *dev, *pmap;
	/* for the bodies of tests */
	uint64_t va, bytes, slot;
	uint64_t value;
	gm_ret_t ret;
	bool done, stop;
};

static inline void host_world_open(struct host_world *w, uint64_t seed, bool spurious)
{
	const struct gm_mmu *mmu = gm_sim_host_mmu();
	struct gm_dev_caps caps;

	memset(w, 0, sizeof(*w));
	w->sim = gm_sim_create(seed, NULL);
	cr_assert_not_null(w->sim);
	gm_sim_set_spurious(w->sim, spurious);
	w->env = gm_sim_env(w->sim);
	w->op = mmu->host;
	cr_assert_eq(mmu->dev_init(gm_sim_host_data(w->sim), NULL, &caps, &w->dev), GM_RET_SUCCESS);
	cr_assert_eq(mmu->pmap_create(w->dev, &w->pmap), GM_RET_SUCCESS);
}

static inline void host_world_close(struct host_world *w)
{
	if (w->pmap)
		gm_sim_host_mmu()->pmap_destroy(w->pmap);
	gm_sim_host_mmu()->dev_fini(w->dev);
	gm_sim_destroy(w->sim);
}

/* A test whose body is the first coroutine, without spurious events. */
#define HOST_TEST(suite, name, ...) \
	static void name##_body(void *arg); \
	Test(suite, name, ##__VA_ARGS__) \
	{ \
		struct host_world w; \
\
		host_world_open(&w, 1, false); \
		cr_assert(gm_sim_run(w.sim, name##_body, &w), "deadlock"); \
		host_world_close(&w); \
	} \
	static void name##_body(void *arg)

static inline struct gm_thread *spawn(struct host_world *w, void (*fn)(void *arg), void *arg)
{
	struct gm_thread *t = NULL;

	cr_assert_eq(w->env->ops->thread_start(w->env, "app", 0, fn, arg, &t), GM_RET_SUCCESS);
	return t;
}

static inline void join(struct host_world *w, struct gm_thread *t)
{
	w->env->ops->thread_join(w->env, t);
}

/* Memory of the application; watched. */
static inline uint64_t map_watched(struct host_world *w, uint64_t bytes)
{
	uint64_t va = gm_sim_mmap(w->sim, bytes, RW);

	cr_assert_neq(va, 0);
	cr_assert_eq(w->op->watch(w->pmap, va, bytes), GM_RET_SUCCESS);
	return va;
}

static inline void store_u64(struct host_world *w, uint64_t va, uint64_t value)
{
	cr_assert_eq(gm_sim_store(w->sim, va, &value, sizeof(value)), GM_RET_SUCCESS);
}

static inline uint64_t load_u64(struct host_world *w, uint64_t va)
{
	uint64_t value = 0;

	cr_assert_eq(gm_sim_load(w->sim, va, &value, sizeof(value)), GM_RET_SUCCESS);
	return value;
}

/* What the bus sees; blocks for nothing. */
static inline gm_ret_t peek(struct host_world *w, uint64_t va, uint64_t *value)
{
	return gm_sim_host_mmu()->access(w->pmap, va, value, sizeof(*value), false);
}

/* Pages [first, end) of the block at va into w->slot. */
static inline struct gm_host_steal steal(struct host_world *w, uint64_t va, unsigned first, unsigned end)
{
	struct gm_mask want = gm_mask_span(first, end);
	struct gm_host_steal out;

	cr_assert_eq(w->op->steal(w->pmap, va, &want, w->slot, &out), GM_RET_SUCCESS);
	return out;
}

static inline bool is_span(struct gm_mask m, unsigned first, unsigned end)
{
	struct gm_mask span = gm_mask_span(first, end);

	return gm_mask_equal(&m, &span);
}

/* Yield until there is a message, and take one. */
static inline struct gm_host_msg next_msg(struct host_world *w)
{
	struct gm_host_msg msg;

	cr_assert_eq(w->op->msg_wait(w->pmap, gm_now_ns(w->env) + 1000000000), GM_RET_SUCCESS, "no message");
	cr_assert_eq(w->op->msg_read(w->pmap, &msg, 1), 1);
	return msg;
}

static inline void sleep_long(struct host_world *w)
{
	gm_sim_sleep_ns(w->sim, 1000000);
}

#endif
