/* SPDX-License-Identifier: MIT */
/*
 * Tables for people, one JSON object for programs. Both draw the list of
 * counters from one place, so a figure has the same meaning in both.
 */
#include "show.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#define TOP 10
#define FEW 8 /* sections of which the most typical package is shown */
#define BAR 40

enum form { COUNT, MIB, MS };

static const struct {
	const char *text;
	const char *key;
	enum form form;
	size_t offset;
} figures[] = {
#define FIGURE(text, form, name) { text, #name, form, offsetof(struct gm_stats, name) }
	FIGURE("device faults", COUNT, dev_faults),
	FIGURE("CPU faults", COUNT, cpu_faults),
	FIGURE("working sets", COUNT, ws_acquires),
	FIGURE("migrations to the device", COUNT, migrations_to_dev),
	FIGURE("migrations to the host", COUNT, migrations_to_host),
	FIGURE("copied to the device, MiB", MIB, bytes_to_dev),
	FIGURE("copied to the host, MiB", MIB, bytes_to_host),
	FIGURE("evictions", COUNT, evictions),
	FIGURE("pages evicted", COUNT, pages_evicted),
	FIGURE("pages home without a copy", COUNT, pages_clean),
	FIGURE("pages zero-filled, not copied", COUNT, pages_zeroed),
	FIGURE("pages used in place", COUNT, pages_in_place),
	FIGURE("serving device faults, ms", MS, ns_dev_fault),
	FIGURE("acquiring working sets, ms", MS, ns_ws),
	FIGURE("serving CPU faults, ms", MS, ns_cpu_fault),
	FIGURE("evicting, ms", MS, ns_evict),
	FIGURE("  revoking device mappings, ms", MS, ns_revoke),
	FIGURE("  taking host pages, ms", MS, ns_steal),
	FIGURE("  copying, ms", MS, ns_copy),
	FIGURE("  mapping on the device, ms", MS, ns_map),
	FIGURE("  giving pages back, ms", MS, ns_restore),
#undef FIGURE
};

#define FIGURES (sizeof(figures) / sizeof(figures[0]))

static uint64_t figure(const struct run *run, size_t which)
{
	return *(const uint64_t *)((const char *)&run->stats + figures[which].offset);
}

const char *show_mode(enum run_mode mode)
{
	return mode == RUN_FAULTS ? "device faults" : "declared sets";
}

static double mib(uint64_t bytes)
{
	return (double)bytes / (1 << 20);
}

void show_head(const struct job *job, unsigned iterations)
{
	const struct graph *graph = job->graph;

	printf("libgmem %s: personalised PageRank, %u sections, %u iterations\n", gm_version(), graph->sections,
	       iterations);
	printf("graph    %u nodes, %zu edges, from %s\n", graph->nodes, graph->edge_count, graph->origin);
	printf("memory   %.1f MiB of malloc()ed arrays, shared with a mock accelerator of %.1f MiB",
	       mib(job_footprint(job)), mib(job->vram_bytes));
	if (job_footprint(job) > job->vram_bytes)
		printf(" (1/%.1f of that)\n", (double)job_footprint(job) / (double)job->vram_bytes);
	else
		printf(" (all of it fits)\n");
	if (job->vram_raised)
		printf("         (less device memory was asked for: this is the least that one launch needs)\n");
	printf("launches %zu per iteration, each up to %u rows from up to %u rows, %u threads\n", job->step_count,
	       job->dst_rows < graph->nodes ? job->dst_rows : graph->nodes,
	       job->src_rows < graph->nodes ? job->src_rows : graph->nodes, job->threads);
	fflush(stdout);
}

/* A bar that is redrawn on a terminal, a line per quarter elsewhere. */
void show_progress(void *progress, enum run_mode mode, uint64_t done, uint64_t all)
{
	struct progress *p = progress;
	bool terminal = isatty(STDOUT_FILENO);
	unsigned steps = terminal ? 200 : 4;
	unsigned now = (unsigned)(done * steps / all) + 1;
	unsigned filled = (unsigned)(done * BAR / all);

	if (p->mode != mode)
		p->shown = 0;
	if (p->quiet || (now == p->shown && done != all) || (!terminal && now == 1))
		return;
	p->mode = mode;
	p->shown = now;
	if (terminal)
		printf("\r%-13s [%.*s%.*s] %3u%%  launch %" PRIu64 " of %" PRIu64 "%s", show_mode(mode), (int)filled,
		       "########################################", (int)(BAR - filled),
		       "........................................", (unsigned)(done * 100 / all), done, all,
		       done == all ? "\n" : "");
	else
		printf("%-13s %3u%%  launch %" PRIu64 " of %" PRIu64 "\n", show_mode(mode),
		       (unsigned)(done * 100 / all), done, all);
	fflush(stdout);
}

/* ----------------------------------------------------------------- rankings */

/* Average over all sections, per node. */
static double *averages(const struct result *result)
{
	const struct job *job = result->job;
	double *average = malloc(job->graph->nodes * sizeof(*average));
	uint32_t v;
	uint32_t s;

	if (!average) {
		fprintf(stderr, "pagerank: out of memory for the tables\n");
		return NULL;
	}
	for (v = 0; v < job->graph->nodes; v++) {
		double sum = 0;

		for (s = 0; s < job->graph->sections; s++)
			sum += result->rank[(size_t)v * job->columns + s];
		average[v] = sum / job->graph->sections;
	}
	return average;
}

/* The TOP nodes, best first; equal ones in order of node. Returns how many there are. */
static unsigned best(const double *value, uint32_t nodes, uint32_t *list)
{
	unsigned n = 0;
	unsigned i;
	uint32_t v;

	for (v = 0; v < nodes; v++) {
		if (n == TOP && value[v] <= value[list[TOP - 1]])
			continue;
		n += n < TOP;
		for (i = n - 1; i && value[list[i - 1]] < value[v]; i--)
			list[i] = list[i - 1];
		list[i] = v;
	}
	return n;
}

static bool among(uint32_t v, const uint32_t *list, unsigned n)
{
	while (n--) {
		if (list[n] == v)
			return true;
	}
	return false;
}

/*
 * What a section has that others have not: the node whose rank there is most
 * above its average, the overall best apart. `nodes` stands for none.
 */
static uint32_t most_typical(const struct result *result, const double *average, uint32_t section,
			     const uint32_t *list, unsigned n)
{
	double most = 0;
	uint32_t found = result->job->graph->nodes;
	uint32_t v;

	for (v = 0; v < result->job->graph->nodes; v++) {
		double above = result->rank[(size_t)v * result->job->columns + section] - average[v];

		if (above > most && !among(v, list, n)) {
			most = above;
			found = v;
		}
	}
	return found;
}

static void print_typical(const struct result *result, const double *average, const uint32_t *list, unsigned n)
{
	const struct graph *graph = result->job->graph;
	uint32_t few = graph->sections < FEW ? graph->sections : FEW;
	uint32_t i;

	printf("\nmost typical of a section, apart from those (rank there, rank on average)\n");
	for (i = 0; i < few; i++) {
		uint32_t section = (uint32_t)((uint64_t)i * graph->sections / few);
		uint32_t v = most_typical(result, average, section, list, n);

		if (v == graph->nodes)
			continue;
		printf("  %-16s %-32s %.6f  %.6f\n", graph_section(graph, section), graph_name(graph, v),
		       result->rank[(size_t)v * result->job->columns + section], average[v]);
	}
}

static int print_rankings(const struct result *result)
{
	const struct graph *graph = result->job->graph;
	double *average = averages(result);
	uint32_t list[TOP];
	unsigned n;
	unsigned i;

	if (!average)
		return -1;
	n = best(average, graph->nodes, list);
	printf("\nhighest rank, average over all sections\n");
	for (i = 0; i < n; i++)
		printf("  %2u. %-32s %-12s %.6f\n", i + 1, graph_name(graph, list[i]),
		       graph_section(graph, graph->section[list[i]]), average[list[i]]);
	print_typical(result, average, list, n);
	free(average);
	return 0;
}

/* ------------------------------------------------------------------- tables */

static void print_figure(const struct result *result, size_t which)
{
	unsigned r;

	printf("%-34s", figures[which].text);
	for (r = 0; r < result->run_count; r++) {
		uint64_t value = figure(&result->runs[r], which);

		if (figures[which].form == COUNT)
			printf(" %15" PRIu64, value);
		else if (figures[which].form == MIB)
			printf(" %15.1f", mib(value));
		else
			printf(" %15.1f", (double)value / 1e6);
	}
	printf("\n");
}

int show_tables(const struct result *result)
{
	unsigned r;
	size_t i;

	if (print_rankings(result))
		return -1;
	printf("\n%-34s", "what it took");
	for (r = 0; r < result->run_count; r++)
		printf(" %15s", show_mode(result->runs[r].mode));
	printf("\n%-34s", "launches");
	for (r = 0; r < result->run_count; r++)
		printf(" %15" PRIu64, result->runs[r].launches);
	printf("\n");
	for (i = 0; i < FIGURES; i++)
		print_figure(result, i);
	printf("%-34s", "total, ms");
	for (r = 0; r < result->run_count; r++)
		printf(" %15.1f", (double)result->runs[r].total_ns / 1e6);
	printf("\n(times overlap: serving a fault contains the copying; several threads wait at once.\n"
	       " The device is software, so its times say nothing about hardware. Host alone: %.1f ms,\n"
	       " sum of changes in the last iteration %.3g)\n", (double)result->host_ns / 1e6,
	       result->run_count ? result->runs[0].change : 0.0);
	return 0;
}

/* --------------------------------------------------------------------- JSON */

/* Names are printable ASCII (see pool_add()). */
static void json_text(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		putchar(*text);
	}
	putchar('"');
}

static void json_run(const struct run *run)
{
	size_t i;

	printf("{\"mode\": \"%s\", \"bit_identical\": %s, \"launches\": %" PRIu64 ", \"total_ns\": %" PRIu64
	       ", \"change\": %.17g, \"device_accesses\": %" PRIu64, run->mode == RUN_FAULTS ? "faults" : "sets",
	       run->same ? "true" : "false", run->launches, run->total_ns, run->change, run->mock.accesses);
	for (i = 0; i < FIGURES; i++)
		printf(", \"%s\": %" PRIu64, figures[i].key, figure(run, i));
	printf("}");
}

int show_json(const struct result *result)
{
	const struct job *job = result->job;
	double *average = averages(result);
	uint32_t list[TOP];
	unsigned n;
	unsigned i;

	if (!average)
		return -1;
	n = best(average, job->graph->nodes, list);
	printf("{\"version\": \"%s\", \"graph\": ", gm_version());
	json_text(job->graph->origin);
	printf(", \"nodes\": %u, \"edges\": %zu, \"sections\": %u, \"iterations\": %u, \"threads\": %u,\n "
	       "\"footprint_bytes\": %" PRIu64 ", \"vram_bytes\": %" PRIu64 ", \"host_ns\": %" PRIu64 ",\n \"top\": [",
	       job->graph->nodes, job->graph->edge_count, job->graph->sections, result->iterations, job->threads,
	       job_footprint(job), job->vram_bytes, result->host_ns);
	for (i = 0; i < n; i++) {
		printf("%s{\"name\": ", i ? ", " : "");
		json_text(graph_name(job->graph, list[i]));
		printf(", \"rank\": %.17g}", average[list[i]]);
	}
	printf("],\n \"runs\": [");
	for (i = 0; i < result->run_count; i++) {
		printf("%s", i ? ",\n  " : "");
		json_run(&result->runs[i]);
	}
	printf("]}\n");
	free(average);
	return 0;
}
