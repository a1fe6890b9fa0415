/* SPDX-License-Identifier: MIT */
/*
 * fault.handler.*, fault.inthread.*: a CPU touches pages that are away, one after the other in
 * random order; each touch is timed alone, a round's figure is their median.
 *
 *                 library                               baseline
 *     (plain)     frame kept in staging, unchanged:     bare handler, UFFDIO_MOVE
 *                 it moves home
 *     .dirty      the device has written: copied into   bare handler, memcpy and
 *                 the kept frame, which moves home      UFFDIO_MOVE
 *     .copy       no frame kept (GM_AS_EXCLUSIVE):      bare handler, UFFDIO_COPY
 *                 filled from device memory
 *
 * .same: both threads on one CPU; .other: the handler on another CPU.
 *
 * fault.inthread.*: the library's memory is GM_MEM_INTHREAD, and this program's signal handler has it served; the
 * baseline is the bare handler thread, on the same CPU, as for .same.
 */
#include "config.h"

#include "bench/bare_uffd.h"
#include "bench/bench.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum backing { KEPT, DIRTY, COPIED };

struct fault_case {
	struct bench_spec spec;
	uint32_t unit_bytes;
	uint32_t touches;
	enum backing backing;
	unsigned handler_cpu;
	bool inthread;
};

static const struct fault_case cases[] = {
	{ { "fault.handler.4k.same", "ns", BENCH_COST, 1.10, 1.04 }, 4096, 1024, KEPT, 0, false },
	{ { "fault.handler.4k.other", "ns", BENCH_COST, 1.10, 1.04 }, 4096, 1024, KEPT, 1, false },
	{ { "fault.handler.64k.same", "ns", BENCH_COST, 1.10, 1.04 }, 65536, 512, KEPT, 0, false },
	{ { "fault.handler.4k.copy.same", "ns", BENCH_COST, 1.10, 1.04 }, 4096, 1024, COPIED, 0, false },
	{ { "fault.handler.4k.copy.other", "ns", BENCH_COST, 1.10, 1.04 }, 4096, 1024, COPIED, 1, false },
	{ { "fault.handler.64k.copy.same", "ns", BENCH_COST, 1.10, 1.04 }, 65536, 512, COPIED, 0, false },
	{ { "fault.handler.4k.dirty.same", "ns", BENCH_COST, 0, 0 }, 4096, 1024, DIRTY, 0, false },
	{ { "fault.handler.64k.dirty.same", "ns", BENCH_COST, 0, 0 }, 65536, 512, DIRTY, 0, false },
	{ { "fault.inthread.4k", "ns", BENCH_COST, 0.75, 0.68 }, 4096, 1024, KEPT, 0, true },
	{ { "fault.inthread.4k.copy", "ns", BENCH_COST, 0, 0 }, 4096, 1024, COPIED, 0, true },
};

struct fault_bench {
	const struct fault_case *c;
	struct bench_gm gm;
	struct bare *bare;
	uint32_t *order;
	double *sample;
};

/* The space that is measured. */
static struct gm_as *inthread_as;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (gm_inthread_serve(inthread_as, GM_VA(info->si_addr)))
		(void)signal(sig, SIG_DFL);
}

static void catch_sigbus(struct gm_as *as)
{
	struct sigaction on = { .sa_flags = SA_SIGINFO };

	on.sa_sigaction = on_sigbus;
	inthread_as = as;
	if (sigaction(SIGBUS, &on, NULL))
		bench_die("sigaction failed");
}

/* Every touch alone; the page inside the unit differs from unit to unit. */
static double touch_all(struct fault_bench *f, char *mem)
{
	const struct fault_case *c = f->c;
	uint32_t pages = c->unit_bytes / BENCH_PAGE;

	for (uint32_t i = 0; i < c->touches; i++) {
		uint64_t page = (uint64_t)f->order[i] * pages + f->order[i] * 7 % pages;
		volatile uint64_t *at = (volatile uint64_t *)(void *)(mem + page * BENCH_PAGE);
		uint64_t start = bench_now_ns(), got = *at;

		f->sample[i] = (double)(bench_now_ns() - start);
		if (got != bench_word(page, c->unit_bytes))
			bench_die("%s: page %llu has wrong content", c->spec.name, (unsigned long long)page);
	}
	return bench_median(f->sample, c->touches);
}

static double round_lib(struct fault_bench *f)
{
	struct gm_stats before, after;
	double ns;

	bench_gm_to_dev(&f->gm);
	if (f->c->backing == DIRTY)
		bench_gm_dirty(&f->gm);
	BENCH_TRY(gm_as_stats(f->gm.as, &before));
	ns = touch_all(f, f->gm.mem);
	BENCH_TRY(gm_as_stats(f->gm.as, &after));
	if (after.cpu_faults - before.cpu_faults < f->c->touches)
		bench_die("%s: the pages were not away", f->c->spec.name);
	if ((after.cpu_faults_inthread - before.cpu_faults_inthread >= f->c->touches) != f->c->inthread)
		bench_die("%s: who served them?", f->c->spec.name);
	return ns;
}

static double round_bare(struct fault_bench *f)
{
	bare_empty(f->bare);
	return touch_all(f, bare_memory(f->bare));
}

static void open_case(struct fault_bench *f)
{
	static const enum bare_kind kind[] = { [KEPT] = BARE_MOVE, [DIRTY] = BARE_COPY_MOVE, [COPIED] = BARE_COPY };
	const struct fault_case *c = f->c;
	struct bench_gm_config config = {
		.bytes = (uint64_t)c->touches * c->unit_bytes,
		.cpu_unit_bytes = c->unit_bytes,
		.cpu_around_bytes = c->unit_bytes,
		.exclusive = c->backing == COPIED,
		.inthread = c->inthread,
	};

	f->order = calloc(c->touches, sizeof(*f->order));
	f->sample = calloc(c->touches, sizeof(*f->sample));
	if (!f->order || !f->sample)
		bench_die("no memory");
	bench_shuffle(f->order, c->touches);
	bench_gm_open(&f->gm, &config);
	catch_sigbus(f->gm.as);
	bench_fill(f->gm.mem, config.bytes, c->unit_bytes);
	f->bare = bare_start(kind[c->backing], config.bytes, c->unit_bytes, false, c->handler_cpu);
	bench_fill(bare_memory(f->bare), config.bytes, c->unit_bytes);
	bench_fill(bare_buffer(f->bare), config.bytes, c->unit_bytes);
	bench_pin_self(0);
	bench_pin_threads("gm-handler", c->handler_cpu);
	bench_pin_threads("gm-worker", c->handler_cpu);
}

static void close_case(struct fault_bench *f)
{
	bench_unpin_self();
	bare_stop(f->bare);
	bench_gm_close(&f->gm);
	free(f->order);
	free(f->sample);
}

static void run_case(const struct fault_case *c, unsigned runs)
{
	struct fault_bench f = { .c = c };
	struct bench_series s;

	if (c->handler_cpu >= bench_cpus()) {
		bench_skip(&c->spec, "there is only one CPU");
		return;
	}
	open_case(&f);
	bench_begin(&s, &c->spec);
	for (unsigned i = 0; i < runs + 1; i++) {
		double lib = 0, bare;

		if (i % 2)
			lib = round_lib(&f);
		bare = round_bare(&f);
		if (i % 2 == 0)
			lib = round_lib(&f);
		if (i) /* the first warms up */
			bench_add(&s, lib, bare);
	}
	close_case(&f);
	bench_report(&s);
}

int main(int argc, char **argv)
{
	struct bench_opts o = bench_options(argc, argv);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (bench_wanted(&o, cases[i].spec.name))
			run_case(&cases[i], o.runs);
	return 0;
}
