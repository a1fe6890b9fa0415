/* SPDX-License-Identifier: MIT */
/*
 * thp.*: the row benchmark_thp_migration of the Linux HMM self-test. One gm_migrate() of a buffer of 1/4 to 128 huge
 * pages to the device and one back, in huge pages and in small ones; the device has written all of it in between.
 * Milliseconds and GB/s, against memcpy between the same buffers. No goals: what it shows is how the cost grows.
 *
 *     round: host -> device | device writes all | device -> host | memcpy both ways
 */
#include "config.h"

#include "bench/bench.h"

#include <stdio.h>
#include <string.h>

#define SIZES 10u /* 512 KiB << 0 .. 9 */
#define LEAST (512u << 10)

enum { H2D_MS, D2H_MS, H2D, D2H, METRICS };

struct thp_case {
	struct bench_spec spec[METRICS];
	char name[METRICS][48];
	uint64_t bytes;
	bool huge;
};

static void name_case(struct thp_case *c, unsigned size, bool huge)
{
	static const char *const what[METRICS] = { "h2d.ms", "d2h.ms", "h2d", "d2h" };

	c->bytes = (uint64_t)LEAST << size;
	c->huge = huge;
	for (unsigned i = 0; i < METRICS; i++) {
		bool ms = i < H2D;

		snprintf(c->name[i], sizeof(c->name[i]), "thp.%s.%lluk.%s", what[i], (unsigned long long)(c->bytes >> 10),
			 huge ? "huge" : "small");
		c->spec[i] = (struct bench_spec){ c->name[i], ms ? "ms" : "GB/s", ms ? BENCH_COST : BENCH_RATE, 0, 0 };
	}
}

static uint64_t migrate(struct bench_gm *g, struct gm_dev *dev)
{
	uint64_t start = bench_now_ns(), moved = 0;

	BENCH_TRY(gm_migrate(g->as, GM_VA(g->mem), g->bytes, dev, &moved));
	start = bench_now_ns() - start;
	if (moved != g->bytes)
		bench_die("not all of it moved");
	return start;
}

static void round_lib(struct bench_gm *g, uint64_t seed, uint64_t *to_dev, uint64_t *to_host)
{
	bench_fill(g->mem, g->bytes, seed);
	*to_dev = migrate(g, g->dev);
	bench_gm_dirty(g);
	*to_host = migrate(g, NULL);
	bench_verify(g->mem, g->bytes, seed);
}

static void round_base(struct bench_gm *g, uint64_t *to_dev, uint64_t *to_host)
{
	char *vram = bench_gm_vram(g, g->bytes);
	uint64_t start = bench_now_ns();

	memcpy(vram, g->mem, g->bytes);
	*to_dev = bench_now_ns() - start;
	start = bench_now_ns();
	memcpy(g->mem, vram, g->bytes);
	*to_host = bench_now_ns() - start;
}

static void run_case(const struct bench_opts *o, const struct thp_case *c)
{
	struct bench_gm_config config = { .bytes = c->bytes, .huge = c->huge };
	static struct bench_series s[METRICS];
	struct bench_gm g;

	bench_gm_open(&g, &config);
	if (c->bytes >= BENCH_BLOCK && !bench_is_huge(g.mem, g.bytes, c->huge))
		bench_die("the memory %s in huge pages", c->huge ? "is not" : "is");
	for (unsigned i = 0; i < METRICS; i++)
		bench_begin(&s[i], &c->spec[i]);
	for (unsigned i = 0; i < o->runs + 1; i++) {
		uint64_t lib[2], base[2];

		round_lib(&g, i, &lib[0], &lib[1]);
		round_base(&g, &base[0], &base[1]);
		for (unsigned way = 0; i && way < 2; way++) { /* the first warms up */
			bench_add(&s[H2D_MS + way], (double)lib[way] / 1e6, (double)base[way] / 1e6);
			bench_add(&s[H2D + way], bench_gb_per_s(c->bytes, lib[way]), bench_gb_per_s(c->bytes, base[way]));
		}
	}
	bench_gm_close(&g);
	for (unsigned i = 0; i < METRICS; i++)
		if (bench_wanted(o, c->spec[i].name))
			bench_report(&s[i]);
}

int main(int argc, char **argv)
{
	struct bench_opts o = bench_options(argc, argv);
	static struct thp_case c;

	o.runs = o.runs < 5 ? o.runs : 5; /* as in the kernel's test */
	for (unsigned size = 0; size < SIZES; size++)
		for (unsigned huge = 0; huge < 2; huge++) {
			bool wanted = false;

			name_case(&c, size, huge);
			for (unsigned i = 0; i < METRICS; i++)
				wanted = wanted || bench_wanted(&o, c.spec[i].name);
			if (wanted)
				run_case(&o, &c);
		}
	return 0;
}
