/* SPDX-License-Identifier: MIT */
/*
 * gm_residency() of 1 GiB, against 512 lookups in the space's index of regions (core/gm_region.c), one address in each
 * 2 MiB of it. A round's figure is the mean of many calls.
 *
 *     query.1gib.uniform          all on the device, mapped, nothing happens to it: packed
 *     query.1gib.uniform.used     the same a moment after it was used: nothing is packed
 *     query.1gib.uniform.host     no device has used it
 *     query.1gib.mixed            every other page of it on the device, packed
 */
#include "config.h"

#include "bench/bench.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/gm_as.h"

#define GIB (UINT64_C(1) << 30)
#define BLOCKS ((unsigned)(GIB / BENCH_BLOCK))
#define CALLS 200u

enum how { PACKED, USED, HOST, MIXED };

static const struct bench_spec specs[] = {
	[PACKED] = { "query.1gib.uniform", "ns", BENCH_COST, 10, 2 },
	[USED] = { "query.1gib.uniform.used", "ns", BENCH_COST, 10, 0 },
	[HOST] = { "query.1gib.uniform.host", "ns", BENCH_COST, 10, 2 },
	[MIXED] = { "query.1gib.mixed", "ns", BENCH_COST, 0, 0 },
};

struct query {
	struct gm_mock_config mock;
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_as *as;
	struct gm_ctx *ctx;
	uint64_t va;
	enum how how;
};

/* Kept, so that the compiler keeps the lookups. */
static volatile uint64_t found;

/* Nothing is written to it: the device's frames are never touched either. */
static void query_open(struct query *q, enum how how)
{
	struct gm_as_config as = { .size = sizeof(as) };
	void *mem;

	*q = (struct query){ .mock = { .size = sizeof(q->mock), .vram_bytes = GIB + GIB / 4 }, .how = how };
	BENCH_TRY(gm_lib_create(NULL, &q->lib));
	BENCH_TRY(gm_dev_create(q->lib, gm_mock_mmu(), &q->mock, &q->dev));
	BENCH_TRY(gm_as_create(q->lib, 0, 0, &as, &q->as));
	BENCH_TRY(gm_as_attach(q->as, q->dev, GM_ATTACH_IDENTITY, NULL, &q->ctx));
	BENCH_TRY(gm_alloc(q->as, GIB, how == MIXED ? GM_MEM_NO_HUGE : 0, &mem));
	q->va = GM_VA(mem);
	if (how == MIXED)
		for (uint64_t at = 0; at < GIB; at += UINT64_C(2) * BENCH_PAGE)
			BENCH_TRY(gm_migrate(q->as, q->va + at, BENCH_PAGE, q->dev, NULL));
	else if (how != HOST)
		BENCH_TRY(gm_migrate(q->as, q->va, GIB, q->dev, NULL));
	if (how == PACKED || how == MIXED)
		while (atomic_load(&q->as->pack.count) < BLOCKS)
			sleep(1);
}

static void query_close(struct query *q)
{
	BENCH_TRY(gm_free(q->as, (void *)(uintptr_t)q->va));
	BENCH_TRY(gm_as_detach(q->ctx));
	BENCH_TRY(gm_as_destroy(q->as));
	BENCH_TRY(gm_dev_destroy(q->dev));
	BENCH_TRY(gm_lib_destroy(q->lib));
}

static double time_query(struct query *q)
{
	uint64_t want = q->how == HOST ? 0 : q->how == MIXED ? GIB / 2 : GIB, start = bench_now_ns();
	struct gm_residency r;

	for (unsigned i = 0; i < CALLS; i++) {
		BENCH_TRY(gm_residency(q->as, q->va, GIB, &r));
		if (r.dev_bytes[0] != want || r.host_bytes != GIB - want)
			bench_die("the sums are wrong");
	}
	return (double)(bench_now_ns() - start) / CALLS;
}

static double time_lookups(struct query *q)
{
	uint64_t start = bench_now_ns(), sum = 0;

	for (unsigned i = 0; i < CALLS; i++)
		for (unsigned k = 0; k < BLOCKS; k++) {
			struct gm_region r;

			if (!gm_regions_find(&q->as->regions, q->va + (uint64_t)k * BENCH_BLOCK, &r))
				bench_die("a region is not found");
			sum += r.end;
		}
	found = sum;
	return (double)(bench_now_ns() - start) / CALLS;
}

static void run(const struct bench_opts *o, enum how how)
{
	static struct bench_series s;
	struct query q;

	query_open(&q, how);
	bench_begin(&s, &specs[how]);
	for (unsigned i = 0; i < o->runs + 1; i++) {
		double lib = 0, base;

		if (how == USED) /* no longer than they stay open */
			BENCH_TRY(gm_pack_open_range(q.as, q.va, q.va + GIB));
		if (i % 2)
			lib = time_query(&q);
		base = time_lookups(&q);
		if (i % 2 == 0)
			lib = time_query(&q);
		if (i)
			bench_add(&s, lib, base);
	}
	query_close(&q);
	bench_report(&s);
}

int main(int argc, char **argv)
{
	struct bench_opts o = bench_options(argc, argv);

	bench_pin_self(0);
	for (int how = PACKED; how <= MIXED; how++)
		if (bench_wanted(&o, specs[how].name))
			run(&o, (enum how)how);
	return 0;
}
