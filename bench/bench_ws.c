/* SPDX-License-Identifier: MIT */
/*
 * Working sets when nothing has to move: what a launch pays for being sure.
 *
 *     ws.acquire.resident         acquire and release a set of 1,000 ranges of 64 KiB, in any order, every
 *                                 second 64 KiB of an area; all are on the device and mapped
 *     ws.acquire.resident.sparse  each range in a block of its own
 *     ws.acquire.kernel           as the first, with the kernel asked: are events unread, what may the
 *                                 process access
 *
 * Baseline: 2,000 uncontended lock pairs and 1,000 binary searches among the ranges. What is measured is
 * the library: what the host answers is fixed beforehand, but for the last.
 */
#include "config.h"

#include "bench/bench.h"
#include "bench/known_host.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/gm_as.h"

#define RANGES 1000u
#define RANGE_BYTES (64u << 10)

static const struct bench_spec ws_spec = { "ws.acquire.resident", "us", BENCH_COST, 3, 1.5 };
static const struct bench_spec sparse_spec = { "ws.acquire.resident.sparse", "us", BENCH_COST, 0, 0 };
static const struct bench_spec kernel_spec = { "ws.acquire.kernel", "us", BENCH_COST, 0, 0 };

struct sets {
	struct known_host host;
	struct gm_mock_config mock;
	struct gm_env *env;
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_as *as;
	struct gm_ctx *ctx;
	void *mem;
	uint64_t bytes;
	struct gm_ws_range range[RANGES]; /* as given to the library */
	uint64_t sorted[RANGES];          /* their addresses */
	pthread_mutex_t lock;
};

static void open_sets(struct sets *s, uint64_t stride, bool ask)
{
	struct gm_as_config as = { .size = sizeof(as), .flags = GM_AS_NO_THREADS };
	uint32_t order[RANGES];

	memset(s, 0, sizeof(*s));
	pthread_mutex_init(&s->lock, NULL);
	s->bytes = (RANGES * stride + BENCH_BLOCK - 1) / BENCH_BLOCK * BENCH_BLOCK;
	s->mock = (struct gm_mock_config){ .size = sizeof(s->mock), .vram_bytes = 128u << 20 };
	BENCH_TRY(gm_env_threads_create(NULL, &s->env));
	known_host_init(&s->host, NULL, 0, ask);
	BENCH_TRY(gm_lib_create_on(s->env, &s->host.mmu, s->env, &s->lib));
	BENCH_TRY(gm_dev_create(s->lib, gm_mock_mmu(), &s->mock, &s->dev));
	BENCH_TRY(gm_as_create(s->lib, 0, 0, &as, &s->as));
	BENCH_TRY(gm_as_attach(s->as, s->dev, GM_ATTACH_IDENTITY, NULL, &s->ctx));
	BENCH_TRY(gm_alloc(s->as, s->bytes, GM_MEM_NO_HUGE, &s->mem));
	known_host_init(&s->host, s->mem, s->bytes, ask);
	bench_shuffle(order, RANGES);
	for (uint32_t i = 0; i < RANGES; i++) {
		s->sorted[i] = GM_VA(s->mem) + i * stride;
		s->range[order[i]] = (struct gm_ws_range){
			.va = s->sorted[i],
			.bytes = RANGE_BYTES,
			.access = i % 2 ? GM_READ : GM_WRITE,
		};
	}
}

static void close_sets(struct sets *s)
{
	BENCH_TRY(gm_as_detach(s->ctx));
	BENCH_TRY(gm_free(s->as, s->mem));
	BENCH_TRY(gm_as_destroy(s->as));
	BENCH_TRY(gm_dev_destroy(s->dev));
	BENCH_TRY(gm_lib_destroy(s->lib));
	gm_env_threads_destroy(s->env);
	pthread_mutex_destroy(&s->lock);
}

#define REPEAT 5

static double sets_lib(struct sets *s)
{
	uint64_t start = bench_now_ns();

	for (unsigned i = 0; i < REPEAT; i++) {
		struct gm_ws *ws;

		BENCH_TRY(gm_ws_acquire(s->ctx, s->range, RANGES, GM_FOREVER_NS, &ws));
		BENCH_TRY(gm_ws_release(ws, NULL));
	}
	return (double)(bench_now_ns() - start) / 1000 / REPEAT;
}

static uint64_t *volatile found; /* so that the search is made */

static void search(struct sets *s, uint64_t va)
{
	uint64_t *at = s->sorted;

	for (unsigned n = RANGES; n > 1; n -= n / 2)
		at += at[n / 2] <= va ? n / 2 : 0;
	found = at;
}

static void lock_pair(struct sets *s)
{
	pthread_mutex_lock(&s->lock);
	pthread_mutex_unlock(&s->lock);
}

static double sets_base(struct sets *s)
{
	uint64_t start = bench_now_ns();

	for (unsigned i = 0; i < REPEAT; i++) {
		for (unsigned k = 0; k < RANGES; k++) {
			lock_pair(s);
			search(s, s->range[k].va);
			lock_pair(s);
		}
	}
	return (double)(bench_now_ns() - start) / 1000 / REPEAT;
}

static uint64_t moved_pages(struct sets *s)
{
	struct gm_stats stats;

	BENCH_TRY(gm_as_stats(s->as, &stats));
	return stats.pages_to_dev;
}

static void run(const struct bench_opts *o, const struct bench_spec *spec, uint64_t stride, bool ask)
{
	static struct bench_series series;
	static struct sets s;
	uint64_t moved;

	open_sets(&s, stride, ask);
	(void)sets_lib(&s); /* brings them */
	moved = moved_pages(&s);
	bench_begin(&series, spec);
	for (unsigned i = 0; i < o->runs + 1; i++) {
		double lib = 0, base;

		if (i % 2)
			lib = sets_lib(&s);
		base = sets_base(&s);
		if (i % 2 == 0)
			lib = sets_lib(&s);
		if (i)
			bench_add(&series, lib, base);
	}
	if (moved_pages(&s) != moved || moved != RANGES * (RANGE_BYTES / BENCH_PAGE))
		bench_die("%s: pages moved in between", spec->name);
	bench_report(&series);
	close_sets(&s);
}

int main(int argc, char **argv)
{
	struct bench_opts o = bench_options(argc, argv);

	bench_pin_self(0);
	if (bench_wanted(&o, ws_spec.name))
		run(&o, &ws_spec, 2 * RANGE_BYTES, false);
	if (bench_wanted(&o, sparse_spec.name))
		run(&o, &sparse_spec, BENCH_BLOCK, false);
	if (bench_wanted(&o, kernel_spec.name))
		run(&o, &kernel_spec, 2 * RANGE_BYTES, true);
	return 0;
}
