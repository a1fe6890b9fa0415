/* SPDX-License-Identifier: MIT */
/*
 * Cuts the job into launches that fit the device's memory.
 *
 * A launch uses rows of one destination tile, rows of one source tile, their
 * nodes, and the edges between. Its size is counted as the library counts it,
 * in units of GM_UNIT_BYTES of which each range may begin and end in the
 * middle. The largest tiles are taken with which every launch stays below 45%
 * of the device's memory: the next launch's pages can then arrive while this
 * one's are still held. Where memory is so small that most of that would be
 * partial units, it is 75%, or even 90%. Destination rows get twice the room of source
 * rows, because all sources pass by once per destination tile.
 */
#include "rank.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Below this not even one row of everything fits beside the partial units. */
#define LEAST_VRAM (12u * GM_UNIT_BYTES)
#define SMALL_VRAM (64u * GM_UNIT_BYTES)
#define LEAST_ROWS 8u

static int no_memory(const char *what)
{
	fprintf(stderr, "pagerank: out of memory for %s\n", what);
	return -1;
}

static uint64_t units(uint64_t bytes)
{
	return (bytes + GM_UNIT_BYTES - 1) / GM_UNIT_BYTES + 1;
}

/* Most edges between any two tiles; `count` has room for all source tiles. */
static uint32_t most_edges(const struct graph *graph, uint32_t dst_rows, uint32_t src_rows, uint32_t *count)
{
	uint32_t tiles = (graph->nodes + src_rows - 1) / src_rows;
	uint32_t tile = UINT32_MAX;
	uint32_t most = 0;
	size_t e;

	for (e = 0; e < graph->edge_count; e++) {
		uint32_t *here = &count[(uint32_t)graph->edges[e] / src_rows];
		uint32_t dst_tile = (uint32_t)(graph->edges[e] >> 32) / dst_rows;

		if (dst_tile != tile)
			memset(count, 0, tiles * sizeof(*count));
		tile = dst_tile;
		++*here;
		most = *here > most ? *here : most;
	}
	return most;
}

static bool tiles_fit(const struct job *job, uint32_t src_rows, unsigned percent, uint32_t *count)
{
	uint64_t room = job->vram_bytes / GM_UNIT_BYTES * percent / 100;
	uint64_t need = units(2 * src_rows * job_row_bytes(job)) + units(src_rows * job_row_bytes(job)) +
			units(2 * src_rows * sizeof(struct node)) + units(src_rows * sizeof(struct node));

	/* The two pieces of the small nodes array may well be one. */
	if (need > room && units(job->nodes_bytes) < units(2 * src_rows * sizeof(struct node)))
		need -= units(src_rows * sizeof(struct node));
	if (need >= room)
		return false;
	/* No two nodes have two edges, so few rows need no counting. */
	if (need + units(2 * (uint64_t)src_rows * src_rows * sizeof(struct edge)) <= room)
		return true;
	return need + units(most_edges(job->graph, 2 * src_rows, src_rows, count) * sizeof(struct edge)) <= room;
}

/* The largest source tile that fits; 0 if none does. */
static uint32_t fit_rows(const struct job *job, unsigned percent, uint32_t *count)
{
	uint32_t low = LEAST_ROWS;
	uint32_t high = job->graph->nodes;

	if (high < low || !tiles_fit(job, low, percent, count))
		return high < low && tiles_fit(job, high, percent, count) ? high : 0;
	while (low < high) {
		uint32_t middle = low + (high - low + 1) / 2;

		if (tiles_fit(job, middle, percent, count))
			low = middle;
		else
			high = middle - 1;
	}
	return low;
}

static int choose_tiles(struct job *job)
{
	uint32_t *count = malloc((job->graph->nodes + 1u) * sizeof(*count));
	uint64_t asked = job->vram_bytes;
	uint32_t rows = 0;

	if (!count)
		return no_memory("counting edges");
	if (job->vram_bytes < LEAST_VRAM)
		job->vram_bytes = LEAST_VRAM;
	while (!rows) {
		rows = job->vram_bytes < SMALL_VRAM ? fit_rows(job, 75, count) : fit_rows(job, 45, count);
		if (!rows)
			rows = fit_rows(job, 90, count);
		if (!rows)
			job->vram_bytes += GM_UNIT_BYTES;
	}
	free(count);
	job->vram_raised = job->vram_bytes != asked;
	job->src_rows = rows;
	job->dst_rows = 2 * rows;
	return 0;
}

/* ------------------------------------------------------------------- steps */

static int add_step(struct job *job, size_t *room, const struct step *step)
{
	if (job->step_count == *room) {
		size_t more = 2 * *room + 256;
		struct step *grown = realloc(job->steps, more * sizeof(*grown));

		if (!grown)
			return no_memory("the list of launches");
		job->steps = grown;
		*room = more;
	}
	job->steps[job->step_count++] = *step;
	return 0;
}

/*
 * Steps of one destination tile, whose edges are [begin, end): the edges are
 * put in order of source tiles (stable: destinations, then sources, stay in
 * order); a tile without edges still needs one step, to finish its rows.
 */
static int add_tile(struct job *job, size_t *room, uint32_t dst, uint32_t begin, uint32_t end, uint32_t *at)
{
	const struct graph *graph = job->graph;
	uint32_t tiles = (graph->nodes + job->src_rows - 1) / job->src_rows;
	size_t first = job->step_count;
	struct step step = { .dst_begin = dst, .edge_begin = begin, .edge_end = begin };
	uint32_t next = begin;
	uint32_t t;
	uint32_t e;

	step.dst_end = graph->nodes - dst < job->dst_rows ? graph->nodes : dst + job->dst_rows;
	memset(at, 0, (tiles + 1) * sizeof(*at));
	for (e = begin; e < end; e++)
		at[(uint32_t)graph->edges[e] / job->src_rows]++;
	for (t = 0; t < tiles; t++) {
		step.edge_begin = next;
		next += at[t];
		at[t] = step.edge_begin;
		step.edge_end = next;
		step.src_begin = t * job->src_rows;
		step.src_end = graph->nodes - step.src_begin < job->src_rows ? graph->nodes :
									       step.src_begin + job->src_rows;
		if (step.edge_end > step.edge_begin && add_step(job, room, &step))
			return -1;
	}
	for (e = begin; e < end; e++) {
		uint32_t src = (uint32_t)graph->edges[e];

		job->edges[at[src / job->src_rows]++] = (struct edge){ (uint32_t)(graph->edges[e] >> 32), src };
	}
	if (job->step_count == first) {
		step.src_begin = step.src_end = 0;
		if (add_step(job, room, &step))
			return -1;
	}
	job->steps[first].flags |= STEP_FIRST;
	job->steps[job->step_count - 1].flags |= STEP_LAST;
	return 0;
}

static int make_steps(struct job *job)
{
	const struct graph *graph = job->graph;
	uint32_t *at = malloc((graph->nodes / job->src_rows + 2u) * sizeof(*at));
	uint32_t begin = 0;
	uint32_t dst = 0;
	size_t room = 0;
	int ret = at ? 0 : no_memory("cutting the graph");

	while (!ret && dst < graph->nodes) {
		uint32_t end = begin;

		while (end < graph->edge_count && graph->edges[end] >> 32 < (uint64_t)dst + job->dst_rows)
			end++;
		ret = add_tile(job, &room, dst, begin, end, at);
		begin = end;
		dst = graph->nodes - dst <= job->dst_rows ? graph->nodes : dst + job->dst_rows;
	}
	free(at);
	return ret;
}

/* Which edges of a step belong to which thread's rows: found here, so that no launch has to search. */
static int make_split(struct job *job)
{
	size_t width = job->threads + 1u;
	size_t i;

	job->split = calloc(job->step_count, width * sizeof(job->split[0]));
	if (!job->split)
		return no_memory("the list of launches");
	for (i = 0; i < job->step_count; i++) {
		const struct step *step = &job->steps[i];
		uint32_t e = step->edge_begin;
		unsigned t;

		for (t = 0; t <= job->threads; t++) {
			while (e < step->edge_end && job->edges[e].dst < step_part(step, t, job->threads))
				e++;
			job->split[i * width + t] = e;
		}
	}
	return 0;
}

/* ------------------------------------------------------------------- arrays */

static int make_arrays(struct job *job)
{
	const struct graph *graph = job->graph;
	uint32_t v;
	uint32_t s;
	size_t e;

	/* Never empty: a graph without edges shares one that no launch reads. */
	job->edges = calloc(graph->edge_count + 1, sizeof(job->edges[0]));
	job->nodes = calloc(graph->nodes, sizeof(job->nodes[0]));
	job->teleport = calloc(job->columns, sizeof(job->teleport[0]));
	if (!job->edges || !job->nodes || !job->teleport)
		return no_memory("the graph's arrays");
	for (v = 0; v < graph->nodes; v++) {
		job->nodes[v].section = graph->section[v];
		job->teleport[graph->section[v]] += 1;
	}
	for (s = 0; s < graph->sections; s++) {
		if (job->teleport[s] > 0)
			job->teleport[s] = 1 / job->teleport[s];
	}
	for (e = 0; e < graph->edge_count; e++)
		job->nodes[(uint32_t)graph->edges[e]].outdeg++;
	return 0;
}

/* The job, the host's own computation of it and the device's memory must fit this machine. */
static int check_memory(const struct job *job)
{
	long pages = sysconf(_SC_PHYS_PAGES);
	uint64_t machine_bytes = pages > 0 ? (uint64_t)pages * GM_PAGE_BYTES : UINT64_MAX;

	if (job_footprint(job) > machine_bytes / 4 || job->vram_bytes > machine_bytes / 2) {
		fprintf(stderr, "pagerank: the job needs %.0f MiB and a device of %.0f MiB: "
			"too much for a machine with %.0f MiB of memory\n", (double)job_footprint(job) / (1 << 20),
			(double)job->vram_bytes / (1 << 20), (double)machine_bytes / (1 << 20));
		return -1;
	}
	return 0;
}

int job_make(struct job *job, const struct graph *graph, uint64_t vram_bytes, unsigned part, unsigned threads)
{
	memset(job, 0, sizeof(*job));
	job->graph = graph;
	job->threads = threads;
	job->columns = (graph->sections + 3) & ~3u;
	job->rank_bytes = (uint64_t)graph->nodes * job_row_bytes(job);
	job->edges_bytes = (graph->edge_count + 1) * sizeof(struct edge);
	job->nodes_bytes = (uint64_t)graph->nodes * sizeof(struct node);
	job->vram_bytes = vram_bytes ? vram_bytes : (job_footprint(job) + part - 1) / part;
	job->vram_bytes = (job->vram_bytes + GM_UNIT_BYTES - 1) / GM_UNIT_BYTES * GM_UNIT_BYTES;
	if (check_memory(job) || choose_tiles(job) || make_arrays(job) || make_steps(job) || make_split(job)) {
		job_free(job);
		return -1;
	}
	return 0;
}

void job_free(struct job *job)
{
	free(job->nodes);
	free(job->edges);
	free(job->teleport);
	free(job->steps);
	free(job->split);
	memset(job, 0, sizeof(*job));
}
