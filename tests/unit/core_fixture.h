/* SPDX-License-Identifier: MIT */
/*
 * For tests of the core and of the public interface: a whole library on a
 * simulated host, with one or two mock devices attached to one address space.
 * The body of a test is the world's first coroutine, so it may block wherever
 * the library blocks; when it returns, everything is destroyed and nothing may
 * be left.
 *
 *     create world --> lib, devices, space, contexts --> body --> gone --> no byte left
 *
 * A body that ends an object itself sets its pointer in the world to NULL.
 *
 * GM_TEST_SEED=n in the environment runs every test under another schedule,
 * with wake-ups for nothing and refusals without a reason.
 */
#ifndef GM_TEST_CORE_FIXTURE_H
#define GM_TEST_CORE_FIXTURE_H

#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gmem/gmem.h>

#include "core/gm_as.h"
#include "core/gm_lib.h"
#include "hal/sim/gm_sim.h"

#include "failing_alloc.h"

#define PAGE ((uint64_t)GM_PAGE_BYTES)
#define UNIT ((uint64_t)GM_UNIT_BYTES)
#define BLOCK ((uint64_t)GM_BLOCK_BYTES)
#define RW (GM_READ | GM_WRITE)
#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

/* What a world is made with; zeros: one mock device of 4 MiB, an address space with the defaults. */
struct world_config {
	const char *dev[2];
	struct gm_as_config as;
	uint64_t seed;
	bool spurious; /* wake-ups for nothing, AGAIN without a reason */
	bool bare;     /* an instance only */
	enum gm_validate validate;
};

struct world {
	struct failing_alloc fa;
	struct gm_sim *sim;
	struct gm_env *env;
	struct gm_lib *lib;
	struct gm_dev *dev[2];
	struct gm_as *as;
	struct gm_ctx *ctx[2];
	unsigned errors; /* lines of GM_LOG_ERROR */
	char log[256];	 /* the last of them */
	unsigned warnings;
	const struct world_config *config;
	void (*body)(struct world *w);
};

#define OK(call)                                                                                               \
	do {                                                                                                   \
		gm_ret_t ok_ret_ = (call);                                                                     \
		cr_assert_eq(ok_ret_, GM_RET_SUCCESS, "%s: %s: %s", #call, gm_ret_name(ok_ret_), gm_last_error()); \
	} while (0)

#define IS(call, want)                                                                                    \
	do {                                                                                              \
		gm_ret_t is_ret_ = (call);                                                                \
		cr_assert_eq(is_ret_, want, "%s: %s instead of %s", #call, gm_ret_name(is_ret_), gm_ret_name(want)); \
	} while (0)

static inline void world_log(void *arg, enum gm_log_level level, const char *message)
{
	struct world *w = arg;

	w->warnings += level == GM_LOG_WARN;
	if (level != GM_LOG_ERROR)
		return;
	w->errors++;
	(void)snprintf(w->log, sizeof(w->log), "%s", message);
}

static inline void world_check(struct world *w)
{
	char text[200] = "";

	cr_assert_eq(gm_as_check(w->as, text, sizeof(text)), GM_RET_SUCCESS, "%s", text);
}

static inline void world_open(struct world *w)
{
	struct gm_as_config config = w->config->as;

	OK(gm_lib_create_on(w->env, gm_sim_host_mmu(), gm_sim_host_data(w->sim), &w->lib));
	if (w->config->bare)
		return;
	config.size = sizeof(config);
	OK(gm_as_create(w->lib, 0, 0, &config, &w->as));
	for (unsigned i = 0; i < 2; i++) {
		const char *spec = w->config->dev[i] ? w->config->dev[i] : i ? NULL : "mock:vram=4M";

		if (!spec)
			continue;
		OK(gm_dev_open(w->lib, spec, &w->dev[i]));
		OK(gm_as_attach(w->as, w->dev[i], GM_ATTACH_IDENTITY, NULL, &w->ctx[i]));
	}
}

static inline void world_close(struct world *w)
{
	if (w->as)
		world_check(w);
	OK(gm_as_destroy(w->as));
	for (unsigned i = 0; i < 2; i++)
		OK(gm_dev_destroy(w->dev[i]));
	OK(gm_lib_destroy(w->lib));
}

static inline void world_main(void *arg)
{
	struct world *w = arg;

	world_open(w);
	w->body(w);
	world_close(w);
}

static inline void world_run(const struct world_config *config, void (*body)(struct world *w))
{
	struct world w = { .config = config, .body = body };
	struct gm_lib_config lib = { .size = sizeof(lib), .log = world_log, .log_arg = &w, .log_level = GM_LOG_WARN,
				     .validate = config->validate };
	const char *seed = getenv("GM_TEST_SEED");
	char report[1000];

	failing_alloc_init(&w.fa);
	lib.allocator = &w.fa.table;
	alarm(200); /* who polls without letting the clock go on is ended so */
	w.sim = gm_sim_create(seed ? strtoull(seed, NULL, 0) : config->seed ? config->seed : 1, &lib);
	cr_assert_not_null(w.sim);
	w.env = gm_sim_env(w.sim);
	gm_sim_set_spurious(w.sim, seed || config->spurious);
	gm_sim_set_horizon_ns(w.sim, 3600 * SECOND);
	if (!gm_sim_run(w.sim, world_main, &w)) {
		gm_sim_report(w.sim, report, sizeof(report));
		cr_assert_fail("deadlock, or polling for ever: %s", report);
	}
	gm_sim_destroy(w.sim);
	cr_assert_eq(atomic_load(&w.fa.live), 0, "%zu allocations were not freed", atomic_load(&w.fa.live));
	cr_assert_eq(atomic_load(&w.fa.bad_frees), 0, "memory was freed with a wrong size");
}

/* CORE_TEST(suite, name, .field = of struct world_config, ...) { body; uses w } */
#define CORE_TEST(suite, name, ...)                                             \
	static void name##_body(struct world *w);                               \
	Test(suite, name)                                                       \
	{                                                                       \
		static const struct world_config config = { __VA_ARGS__ };      \
                                                                                \
		world_run(&config, name##_body);                                \
	}                                                                       \
	static void name##_body(struct world *w)

/* ------------------------------------------------------ the application */

static inline uint64_t app_map(struct world *w, uint64_t bytes)
{
	uint64_t va = gm_sim_mmap(w->sim, bytes, RW);

	cr_assert_neq(va, 0);
	return va;
}

static inline uint64_t app_map_blocks(struct world *w, unsigned blocks)
{
	uint64_t va = app_map(w, (blocks + 1) * BLOCK), at = (va + BLOCK - 1) & ~(BLOCK - 1);

	if (at > va)
		OK(gm_sim_munmap(w->sim, va, at - va));
	OK(gm_sim_munmap(w->sim, at + blocks * BLOCK, va + BLOCK - at));
	return at;
}

static inline void app_put(struct world *w, uint64_t va, uint64_t value)
{
	OK(gm_sim_store(w->sim, va, &value, sizeof(value)));
}

static inline uint64_t app_get(struct world *w, uint64_t va)
{
	uint64_t value = 0;

	OK(gm_sim_load(w->sim, va, &value, sizeof(value)));
	return value;
}

/* Where the word of page i is, and what it is. */
static inline uint64_t word_va(uint64_t va, uint64_t i)
{
	return va + i * PAGE + (i * 8) % PAGE;
}

static inline uint64_t word(uint64_t i, uint64_t salt)
{
	return salt * 1000003 + i + 1;
}

static inline void app_fill(struct world *w, uint64_t va, uint64_t pages, uint64_t salt)
{
	for (uint64_t i = 0; i < pages; i++)
		app_put(w, word_va(va, i), word(i, salt));
}

static inline uint64_t app_wrong(struct world *w, uint64_t va, uint64_t pages, uint64_t salt)
{
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < pages; i++)
		wrong += app_get(w, word_va(va, i)) != word(i, salt);
	return wrong;
}

/* Memory of the application, filled, adopted; on block boundaries. */
static inline uint64_t app_adopted(struct world *w, unsigned blocks, uint64_t salt)
{
	uint64_t va = app_map_blocks(w, blocks);

	app_fill(w, va, blocks * GM_BLOCK_PAGES, salt);
	OK(gm_adopt(w->as, (void *)(uintptr_t)va, blocks * BLOCK, 0));
	return va;
}

static inline struct gm_thread *spawn(struct world *w, void (*fn)(void *arg), void *arg)
{
	struct gm_thread *t = NULL;

	OK(w->env->ops->thread_start(w->env, "app", 0, fn, arg, &t));
	return t;
}

static inline void join(struct world *w, struct gm_thread *t)
{
	w->env->ops->thread_join(w->env, t);
}

/* ----------------------------------------------------------- the device */

struct dev_job {
	uint64_t va, pages, salt, wrong;
	bool write;
};

static inline gm_ret_t dev_kernel(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct dev_job *job = arg;
	gm_ret_t ret = GM_RET_SUCCESS;

	(void)index;
	for (uint64_t i = 0; i < job->pages && !ret; i++) {
		uint64_t value = word(i, job->salt);

		if (job->write) {
			ret = gm_mock_store(t, word_va(job->va, i), &value, sizeof(value));
		} else {
			ret = gm_mock_load(t, word_va(job->va, i), &value, sizeof(value));
			job->wrong += value != word(i, job->salt);
		}
	}
	return ret;
}

static inline gm_ret_t dev_run(struct gm_ctx *ctx, struct dev_job *job)
{
	struct gm_fence *fence;
	gm_ret_t ret;

	ret = gm_mock_launch(ctx, dev_kernel, job, 1, &fence);
	if (ret)
		return ret;
	ret = gm_fence_wait(fence, GM_FOREVER_NS);
	gm_fence_put(fence);
	return ret;
}

static inline void dev_fill(struct gm_ctx *ctx, uint64_t va, uint64_t pages, uint64_t salt)
{
	struct dev_job job = { .va = va, .pages = pages, .salt = salt, .write = true };

	OK(dev_run(ctx, &job));
}

static inline uint64_t dev_wrong(struct gm_ctx *ctx, uint64_t va, uint64_t pages, uint64_t salt)
{
	struct dev_job job = { .va = va, .pages = pages, .salt = salt };

	OK(dev_run(ctx, &job));
	return job.wrong;
}

/* One access of the device; its result. */
static inline gm_ret_t dev_touch(struct gm_ctx *ctx, uint64_t va, bool write)
{
	struct dev_job job = { .va = va, .pages = 1, .write = write };

	return dev_run(ctx, &job);
}

static inline uint64_t dev_free_bytes(struct gm_dev *dev)
{
	struct gm_dev_info info;

	OK(gm_dev_query(dev, &info));
	return info.mem_free_bytes;
}

static inline bool dev_all_free(struct gm_dev *dev)
{
	struct gm_dev_info info;

	OK(gm_dev_query(dev, &info));
	return info.mem_free_bytes == info.mem_bytes;
}

/* ------------------------------------------------------------ the state */

static inline struct gm_page_info page_info(struct world *w, uint64_t va)
{
	struct gm_page_info info = { .place = GM_PLACE_OUTSIDE };

	OK(gm_query(w->as, va & ~(PAGE - 1), 1, &info));
	return info;
}

/* How many pages of a range are in a place. */
static inline uint64_t pages_in(struct world *w, uint64_t va, uint64_t pages, enum gm_place place)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < pages; i++)
		n += page_info(w, va + i * PAGE).place == place;
	return n;
}

static inline struct gm_stats stats_of(struct world *w)
{
	struct gm_stats s;

	OK(gm_as_stats(w->as, &s));
	return s;
}

static inline void *ptr(uint64_t va)
{
	return (void *)(uintptr_t)va;
}

#endif
