/* SPDX-License-Identifier: MIT */
/*
 * The arithmetic of PageRank, and the computation on the host alone that the
 * device's is compared with: no tiles, no device, one destination after the
 * other. rank_add() and rank_finish() are never inlined: one machine code for
 * both, so that no compiler may round them differently.
 */
#include "rank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DAMPING 0.85

__attribute__((noinline)) void rank_add(double *acc, const double *row, double weight, uint32_t columns)
{
	uint32_t s;

	for (s = 0; s < columns; s++)
		acc[s] += row[s] * weight;
}

__attribute__((noinline)) void rank_finish(double *acc, uint32_t section, const double *teleport, const double *lost,
					   uint32_t columns)
{
	uint32_t s;

	acc[section] += lost[section] * teleport[section];
	for (s = 0; s < columns; s++)
		acc[s] *= DAMPING;
	acc[section] += (1.0 - DAMPING) * teleport[section];
}

void rank_start(const struct job *job, double *rank)
{
	uint32_t v;

	memset(rank, 0, job->rank_bytes);
	for (v = 0; v < job->graph->nodes; v++) {
		uint32_t section = job->graph->section[v];

		rank[(size_t)v * job->columns + section] = job->teleport[section];
	}
}

double rank_between(const struct job *job, const double *rank, const double *old, double *lost)
{
	double change = 0;
	uint32_t v;
	uint32_t s;

	memset(lost, 0, job_row_bytes(job));
	for (v = 0; v < job->graph->nodes; v++) {
		size_t at = (size_t)v * job->columns;

		for (s = 0; old && s < job->columns; s++)
			change += fabs(rank[at + s] - old[at + s]);
		for (s = 0; !job->nodes[v].outdeg && s < job->columns; s++)
			lost[s] += rank[at + s];
	}
	return change;
}

static void iterate(const struct job *job, const double *rank, double *next, const double *lost)
{
	const struct graph *graph = job->graph;
	size_t e = 0;
	uint32_t v;

	for (v = 0; v < graph->nodes; v++) {
		double *acc = next + (size_t)v * job->columns;

		memset(acc, 0, job_row_bytes(job));
		for (; e < graph->edge_count && graph->edges[e] >> 32 == v; e++) {
			uint32_t u = (uint32_t)graph->edges[e];

			rank_add(acc, rank + (size_t)u * job->columns, 1.0 / job->nodes[u].outdeg, job->columns);
		}
		rank_finish(acc, graph->section[v], job->teleport, lost, job->columns);
	}
}

int rank_on_host(const struct job *job, unsigned iterations, double *array[2], double **result, double *change)
{
	double lost[MAX_COLUMNS];
	unsigned i;

	array[0] = malloc(job->rank_bytes);
	array[1] = malloc(job->rank_bytes);
	if (!array[0] || !array[1]) {
		fprintf(stderr, "pagerank: out of memory for the computation on the host\n");
		return -1;
	}
	rank_start(job, array[0]);
	rank_between(job, array[0], NULL, lost);
	for (i = 0; i < iterations; i++) {
		iterate(job, array[i & 1], array[~i & 1], lost);
		*change = rank_between(job, array[~i & 1], array[i & 1], lost);
	}
	*result = array[iterations & 1];
	return 0;
}
