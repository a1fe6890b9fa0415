/* SPDX-License-Identifier: MIT */
/*
 * Personalised PageRank over Debian's packages on an accelerator with too
 * little memory: read the graph, compute on the host, compute on the device
 * (twice: by faults, by declared working sets), compare bit by bit, show.
 */
#include "show.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUNS 2u

struct program {
	struct options options;
	struct graph graph;
	struct job job;
	double *array[2]; /* the host's own */
	double *expect;
	uint64_t host_ns;
	struct run runs[RUNS];
	struct picture pictures[RUNS];
	unsigned run_count;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int prepare(struct program *p)
{
	const struct options *o = &p->options;
	double change = 0;
	uint64_t begin;
	bool silent = o->quiet || o->json;

	if (o->graph ? graph_read_file(&p->graph, o->graph) : graph_read_apt(&p->graph, silent))
		return 1;
	if (job_make(&p->job, &p->graph, o->vram_bytes, o->vram_part, o->threads))
		return 1;
	if (!silent)
		show_head(&p->job, o->iterations);
	begin = now_ns();
	if (rank_on_host(&p->job, o->iterations, p->array, &p->expect, &change))
		return 1;
	p->host_ns = now_ns() - begin;
	return 0;
}

static void note_run(struct picture *picture, const struct run *run)
{
	const struct gm_stats *s = &run->stats;

	snprintf(picture->note, sizeof(picture->note),
		 "%" PRIu64 " launches, %" PRIu64 " device faults, %" PRIu64 " CPU faults; %.0f MiB copied to the "
		 "device, %.0f MiB back; %" PRIu64 " pages came home without a copy", run->launches, s->dev_faults,
		 s->cpu_faults, (double)s->bytes_to_dev / (1 << 20), (double)s->bytes_to_host / (1 << 20),
		 s->pages_clean);
}

static int one_run(struct program *p, enum run_mode mode, struct progress *progress)
{
	static const char *const titles[] = {
		[RUN_FAULTS] = "Device faults: nothing is declared, every page comes when the device touches it",
		[RUN_SETS] = "Declared working sets: a device without faults, each launch names what it will use",
	};
	struct picture *picture = &p->pictures[p->run_count];
	struct run *run = &p->runs[p->run_count];
	int ret;

	picture_init(picture, titles[mode], p->job.vram_bytes, job_footprint(&p->job), p->options.iterations);
	ret = device_run(&p->job, &p->options, mode, p->expect, *p->options.svg ? picture : NULL, show_progress,
			 progress, run);
	note_run(picture, run);
	p->run_count++;
	return ret;
}

static int write_picture(const struct program *p)
{
	char subtitle[200];

	if (!*p->options.svg)
		return 0;
	snprintf(subtitle, sizeof(subtitle), "Personalised PageRank of %u nodes in %u sections, %u iterations, "
		 "libgmem %s with its mock device; arrays come from malloc()", p->graph.nodes, p->graph.sections,
		 p->options.iterations, gm_version());
	return picture_write_svg(p->pictures, p->run_count, p->options.svg, subtitle) ? 1 : 0;
}

static int report(const struct program *p)
{
	struct result result = { .job = &p->job, .rank = p->expect, .iterations = p->options.iterations,
				 .host_ns = p->host_ns, .runs = p->runs, .run_count = p->run_count };
	bool same = true;
	unsigned r;
	int ret = 0;

	for (r = 0; r < p->run_count; r++)
		same = same && p->runs[r].same;
	if (p->options.json)
		ret = show_json(&result);
	else if (!p->options.quiet)
		ret = show_tables(&result);
	if (ret || write_picture(p))
		return 1;
	if (!p->options.json) {
		if (*p->options.svg && !p->options.quiet)
			printf("\npicture: %s\n", p->options.svg);
		printf(same ? "ranks are bit-identical to the host computation\n" :
			      "ranks DIFFER from the host computation\n");
	}
	return same ? 0 : 1;
}

static void end(struct program *p)
{
	unsigned r;

	for (r = 0; r < RUNS; r++)
		picture_fini(&p->pictures[r]);
	free(p->array[0]);
	free(p->array[1]);
	job_free(&p->job);
	graph_free(&p->graph);
}

int main(int argc, char **argv)
{
	static struct program p;
	struct progress progress = { 0 };
	int ret = options_parse(&p.options, argc, argv);

	if (ret >= 0)
		return ret;
	progress.quiet = p.options.quiet || p.options.json;
	ret = prepare(&p);
	if (!ret && p.options.faults)
		ret = one_run(&p, RUN_FAULTS, &progress);
	if (!ret && p.options.sets)
		ret = one_run(&p, RUN_SETS, &progress);
	if (!ret)
		ret = report(&p);
	end(&p);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "pagerank: standard output could not be written\n");
		ret = ret ? ret : 1;
	}
	return ret;
}
