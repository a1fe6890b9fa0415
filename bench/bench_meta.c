/* SPDX-License-Identifier: MIT */
/*
 * What the library's own data take, in KiB per GiB: all that it has asked its
 * allocator for and not given back, after less before. What the mock asks for
 * (its page tables) is the device's and does not count; nor do the kernel's
 * page tables, and the staging that has to be there for what is away.
 *
 *     meta.uniform      1 GiB of gm_alloc() memory, all of it on the device and mapped there, in
 *                       chunks of 2 MiB
 *     meta.mixed        256 MiB, scaled up: every other page on the device, the rest on the host
 *     meta.*.busy       the same two right after they were used: what is left alone for a
 *                       second or two is packed, which the two above wait for
 *     meta.host         1 GiB of it that no device has used
 *     meta.device_node  1 GiB of device memory registered, nothing in it
 *
 * One run each, since nothing is timed. The spare pieces that a space keeps for its regions
 * (GM_REGION_SPARES) count, or do not where the worker had made them before: by that, about
 * 36 KiB, runs of meta.uniform differ; those of meta.mixed by four times as much, being scaled.
 */
#include "config.h"

#include "bench/bench.h"

#include <gmem/mock.h>

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define KIB 1024.0
#define GIB (UINT64_C(1) << 30)
#define BYTES GIB
/* A call for each page. */
#define MIXED_BYTES (UINT64_C(256) << 20)
/* Device-physical addresses where the mock has nothing. */
#define ELSEWHERE (UINT64_C(1) << 40)

static const struct bench_spec uniform_spec = { "meta.uniform", "KiB", BENCH_COST, 96, 16 };
static const struct bench_spec uniform_busy_spec = { "meta.uniform.busy", "KiB", BENCH_COST, 0, 0 };
static const struct bench_spec mixed_busy_spec = { "meta.mixed.busy", "KiB", BENCH_COST, 0, 0 };
static const struct bench_spec mixed_spec = { "meta.mixed", "KiB", BENCH_COST, 3072, 320 };
static const struct bench_spec host_spec = { "meta.host", "KiB", BENCH_COST, 0, 0 };
static const struct bench_spec node_spec = { "meta.device_node", "KiB", BENCH_COST, 2560, 320 };

static atomic_size_t live_bytes;

static void *counted_alloc(void *arg, size_t bytes)
{
	void *ptr = calloc(1, bytes);

	(void)arg;
	if (ptr)
		atomic_fetch_add(&live_bytes, bytes);
	return ptr;
}

static void counted_free(void *arg, void *ptr, size_t bytes)
{
	(void)arg;
	if (ptr)
		atomic_fetch_sub(&live_bytes, bytes);
	free(ptr);
}

/* The mock's own. */
static void *mock_alloc(void *self, size_t bytes)
{
	(void)self;
	return calloc(1, bytes);
}

static void mock_free(void *self, void *ptr, size_t bytes)
{
	(void)self;
	(void)bytes;
	free(ptr);
}

struct meta {
	struct gm_mmu mmu;
	struct gm_mock_config mock;
	struct gm_services svc; /* the library's, but for memory */
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_as *as;
	struct gm_ctx *ctx;
};

static gm_ret_t open_device(void *data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev)
{
	struct meta *m = data;

	m->svc = *svc;
	m->svc.alloc = mock_alloc;
	m->svc.free = mock_free;
	return gm_mock_mmu()->dev_init(&m->mock, &m->svc, caps, dev);
}

static void meta_open(struct meta *m)
{
	struct gm_allocator allocator = { .alloc = counted_alloc, .free = counted_free };
	struct gm_lib_config lib = { .size = sizeof(lib), .allocator = &allocator };
	struct gm_as_config as = {
		.size = sizeof(as),
		.cpu_unit_bytes = BENCH_PAGE,
		.cpu_around_bytes = BENCH_PAGE,
	};

	*m = (struct meta){ .mock = { .size = sizeof(m->mock), .vram_bytes = BYTES + BYTES / 4 } };
	m->mmu = *gm_mock_mmu();
	m->mmu.dev_init = open_device;
	BENCH_TRY(gm_lib_create(&lib, &m->lib));
	BENCH_TRY(gm_dev_create(m->lib, &m->mmu, m, &m->dev));
	BENCH_TRY(gm_as_create(m->lib, 0, 0, &as, &m->as));
	BENCH_TRY(gm_as_attach(m->as, m->dev, GM_ATTACH_IDENTITY, NULL, &m->ctx));
}

static void meta_close(struct meta *m)
{
	BENCH_TRY(gm_as_detach(m->ctx));
	BENCH_TRY(gm_as_destroy(m->as));
	BENCH_TRY(gm_dev_destroy(m->dev));
	BENCH_TRY(gm_lib_destroy(m->lib));
	if (atomic_load(&live_bytes))
		bench_die("the library has lost %zu bytes", atomic_load(&live_bytes));
}

static void report(const struct bench_spec *spec, size_t before, uint64_t managed)
{
	bench_report_value(spec, ((double)atomic_load(&live_bytes) - (double)before) / KIB / ((double)managed / (double)GIB));
}

static void expect(struct meta *m, uint64_t va, enum gm_place place)
{
	struct gm_page_info info;

	BENCH_TRY(gm_query(m->as, va, 1, &info));
	if (info.place != place)
		bench_die("a page is in place %d, not %d", (int)info.place, (int)place);
}

/* Until no block is packed any more, for a while longer than it takes to begin. */
static void wait_packed(struct meta *m)
{
	const struct timespec pause = { .tv_sec = 3 };
	struct gm_stats before, now = { .blocks_packed = UINT64_MAX };

	do {
		before = now;
		(void)nanosleep(&pause, NULL);
		BENCH_TRY(gm_as_stats(m->as, &now));
	} while (now.blocks_packed != before.blocks_packed);
}

/* The mappings on the device too, as a kernel's faults would leave them. */
static void map_on_dev(struct meta *m, uint64_t va, uint64_t bytes)
{
	struct gm_ws_range range = { .va = va, .bytes = bytes, .access = GM_WRITE };
	struct gm_ws *ws;

	BENCH_TRY(gm_ws_acquire(m->ctx, &range, 1, GM_FOREVER_NS, &ws));
	BENCH_TRY(gm_ws_release(ws, NULL));
}

static void run_uniform(struct meta *m)
{
	size_t before = atomic_load(&live_bytes);
	void *mem;

	BENCH_TRY(gm_alloc(m->as, BYTES, 0, &mem));
	memset(mem, 1, BYTES);
	BENCH_TRY(gm_migrate(m->as, GM_VA(mem), BYTES, m->dev, NULL));
	map_on_dev(m, GM_VA(mem), BYTES);
	expect(m, GM_VA(mem) + BYTES / 2, GM_PLACE_DEVICE);
	report(&uniform_busy_spec, before, BYTES);
	wait_packed(m);
	report(&uniform_spec, before, BYTES);
	BENCH_TRY(gm_free(m->as, mem));
}

static void run_mixed(struct meta *m)
{
	size_t before = atomic_load(&live_bytes);
	void *mem;

	BENCH_TRY(gm_alloc(m->as, MIXED_BYTES, GM_MEM_NO_HUGE, &mem));
	memset(mem, 1, MIXED_BYTES);
	BENCH_TRY(gm_migrate(m->as, GM_VA(mem), MIXED_BYTES, m->dev, NULL));
	for (uint64_t at = 0; at < MIXED_BYTES; at += UINT64_C(2) * BENCH_PAGE)
		BENCH_TRY(gm_migrate(m->as, GM_VA(mem) + at, BENCH_PAGE, NULL, NULL));
	expect(m, GM_VA(mem) + MIXED_BYTES / 2, GM_PLACE_HOST);
	expect(m, GM_VA(mem) + MIXED_BYTES / 2 + BENCH_PAGE, GM_PLACE_DEVICE);
	report(&mixed_busy_spec, before, MIXED_BYTES);
	wait_packed(m);
	report(&mixed_spec, before, MIXED_BYTES);
	BENCH_TRY(gm_free(m->as, mem));
}

static void run_host(struct meta *m)
{
	size_t before = atomic_load(&live_bytes);
	void *mem;

	BENCH_TRY(gm_alloc(m->as, GIB, 0, &mem));
	report(&host_spec, before, GIB);
	BENCH_TRY(gm_free(m->as, mem));
}

/* Never used: there is no such memory. */
static void run_node(struct meta *m)
{
	size_t before = atomic_load(&live_bytes);

	BENCH_TRY(gm_dev_register_physmem(m->dev, ELSEWHERE, ELSEWHERE + GIB));
	report(&node_spec, before, GIB);
}

/* In a fresh instance each. */
static void run(const struct bench_opts *o, const struct bench_spec *spec, void (*what)(struct meta *m))
{
	static struct meta m;

	if (!bench_wanted(o, spec->name))
		return;
	meta_open(&m);
	what(&m);
	meta_close(&m);
}

int main(int argc, char **argv)
{
	struct bench_opts o = bench_options(argc, argv);

	run(&o, &uniform_spec, run_uniform);
	run(&o, &mixed_spec, run_mixed);
	run(&o, &host_spec, run_host);
	run(&o, &node_spec, run_node);
	return 0;
}
