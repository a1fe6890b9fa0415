/* SPDX-License-Identifier: MIT */
/*
 * The job: its arrays, its cutting into launches, and the arithmetic that host
 * and device share.
 *
 * One row per node, one column per section:
 *
 *     next[v][s] = 0.15 t(v,s) + 0.85 (sum over edges u -> v of rank[u][s] / outdeg(u) + lost(s) t(v,s))
 *
 * t(v,s) is 1 / size of s where v is in section s, else 0; lost(s) is the rank
 * of column s on nodes without outgoing edges. Additions into one element are
 * always made in ascending order of u, and every element is finished by the
 * same function, so the result has the same bits whoever computes it and
 * however the work is cut.
 *
 * Cutting: destinations into tiles of dst_rows, sources into tiles of
 * src_rows; one step (one launch) per pair of tiles that has edges. Inside a
 * destination tile the steps go through the source tiles in ascending order,
 * which keeps the order of additions.
 */
#ifndef RANK_H
#define RANK_H

#include "graph.h"

#include <gmem/gmem.h>

/* Columns are padded to whole 32 bytes. */
#define MAX_COLUMNS GRAPH_MAX_SECTIONS

#define STEP_FIRST 1u /* first step of its destination tile: sums begin at zero */
#define STEP_LAST 2u  /* last one: sums become ranks */

struct edge {
	uint32_t dst;
	uint32_t src;
};

struct node {
	uint32_t section;
	uint32_t outdeg;
};

struct step {
	uint32_t dst_begin, dst_end;
	uint32_t src_begin, src_end;
	uint32_t edge_begin, edge_end;
	uint32_t flags;
};

/* Everything that does not change while ranks are computed. */
struct job {
	const struct graph *graph;
	uint32_t columns;      /* doubles per row */
	uint64_t rank_bytes;   /* of one of the two rank arrays */
	uint64_t edges_bytes;
	uint64_t nodes_bytes;
	struct node *nodes;    /* shared with the device */
	struct edge *edges;    /* shared with the device; in the order of the steps */
	double *teleport;      /* [columns]: 1 / size of the section */
	uint32_t dst_rows;
	uint32_t src_rows;
	struct step *steps;
	size_t step_count;
	unsigned threads;
	uint32_t *split;       /* [step_count][threads + 1]: which edges are whose */
	uint64_t vram_bytes;
	bool vram_raised;      /* what was asked for was too small */
};

static inline uint64_t job_footprint(const struct job *job)
{
	return 2 * job->rank_bytes + job->edges_bytes + job->nodes_bytes;
}

static inline uint64_t job_row_bytes(const struct job *job)
{
	return job->columns * sizeof(double);
}

/* Rows of thread `index` of a step: [part(index), part(index + 1)). */
static inline uint32_t step_part(const struct step *step, unsigned index, unsigned threads)
{
	/* threads is at least 1: options.c */
	return step->dst_begin + (uint32_t)((uint64_t)(step->dst_end - step->dst_begin) * index / (threads ? threads : 1));
}

/* vram_bytes 0: 1/part of the footprint. Both say what is wrong and return -1 on failure. */
int job_make(struct job *job, const struct graph *graph, uint64_t vram_bytes, unsigned part, unsigned threads);
void job_free(struct job *job);

/* The arithmetic: acc += row / outdeg, and the end of a sum. */
void rank_add(double *acc, const double *row, double weight, uint32_t columns);
void rank_finish(double *acc, uint32_t section, const double *teleport, const double *lost, uint32_t columns);

/* Ranks before the first iteration. */
void rank_start(const struct job *job, double *rank);
/*
 * The host's part between iterations, through plain pointers: what is lost at
 * nodes without outgoing edges, and how much changed in all (`old` may be NULL).
 */
double rank_between(const struct job *job, const double *rank, const double *old, double *lost);
/* All of it on the host alone; ranks end in *result (one of the two allocated arrays, free both). */
int rank_on_host(const struct job *job, unsigned iterations, double *array[2], double **result, double *change);

#endif
