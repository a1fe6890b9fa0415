/* SPDX-License-Identifier: MIT */
/*
 * What the readers of graphs share: the pool of strings, the list of edges and
 * their final order. Growth doubles; a failure leaves what was there.
 */
#include "graph.h"

#include <stdlib.h>
#include <string.h>

size_t pool_add(struct pool *pool, const char *text, size_t bytes)
{
	size_t at = pool->bytes;
	size_t i;

	if (bytes > SIZE_MAX / 4 || at > SIZE_MAX / 4)
		return (size_t)-1;
	if (at + bytes + 1 > pool->room) {
		size_t room = 2 * (at + bytes + 1) + 4096;
		char *grown = realloc(pool->text, room);

		if (!grown)
			return (size_t)-1;
		pool->text = grown;
		pool->room = room;
	}
	for (i = 0; i < bytes; i++) {
		unsigned char c = text[i] == '\t' ? ' ' : (unsigned char)text[i];

		/* Names reach terminals, JSON and the shell of whoever copies them. */
		pool->text[at + i] = (char)(c >= 0x20 && c < 0x7f ? c : '?');
	}
	pool->text[at + bytes] = 0;
	pool->bytes = at + bytes + 1;
	return at;
}

int graph_add_edge(struct graph *graph, uint32_t src, uint32_t dst)
{
	if (src == dst)
		return 0;
	if (graph->edge_count >= UINT32_MAX) {
		fprintf(stderr, "pagerank: more than %u edges\n", UINT32_MAX);
		return -1;
	}
	if (graph->edge_count == graph->edge_room) {
		size_t room = 2 * graph->edge_room + 4096;
		uint64_t *grown = realloc(graph->edges, room * sizeof(*grown));

		if (!grown) {
			fprintf(stderr, "pagerank: out of memory for %zu edges\n", room);
			return -1;
		}
		graph->edges = grown;
		graph->edge_room = room;
	}
	graph->edges[graph->edge_count++] = (uint64_t)dst << 32 | src;
	return 0;
}

static int edge_order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

void graph_finish(struct graph *graph)
{
	size_t kept = 0;
	size_t i;

	if (!graph->edge_count)
		return;
	qsort(graph->edges, graph->edge_count, sizeof(graph->edges[0]), edge_order);
	for (i = 0; i < graph->edge_count; i++) {
		if (!kept || graph->edges[i] != graph->edges[kept - 1])
			graph->edges[kept++] = graph->edges[i];
	}
	graph->edge_count = kept;
}

void graph_free(struct graph *graph)
{
	free(graph->name);
	free(graph->section_name);
	free(graph->section);
	free(graph->edges);
	free(graph->pool.text);
	memset(graph, 0, sizeof(*graph));
}
