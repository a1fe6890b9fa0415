/* SPDX-License-Identifier: MIT */
/*
 * A directed graph and its nodes' groups ("sections"), however it was read.
 *
 * Edges are kept as one 64-bit word, destination in the upper half: sorted as
 * plain numbers they are in the order in which every computation of this
 * program adds, destination by destination with ascending sources. Equal
 * edges and edges from a node to itself are dropped.
 *
 * The readers print one line that says what is wrong with the input and where,
 * and return -1; nothing is left allocated then.
 */
#ifndef GRAPH_H
#define GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Groups of a graph that has no sections of its own. */
#define GRAPH_GROUPS 60u
/* More sections than this are refused: the kernel keeps rows on its stack. */
#define GRAPH_MAX_SECTIONS 256u

/* Strings one after the other; a string is known by its offset. */
struct pool {
	char *text;
	size_t bytes;
	size_t room;
};

struct graph {
	uint32_t nodes;
	uint32_t sections;
	size_t *name;         /* [nodes], into pool */
	size_t *section_name; /* [sections], into pool */
	uint16_t *section;    /* [nodes] */
	uint64_t *edges;      /* dst << 32 | src, ascending after graph_finish() */
	size_t edge_count;
	size_t edge_room;
	struct pool pool;
	char origin[200];     /* where it came from, for people */
};

/* The packages of apt's lists; where there are none, that is said and the fixture is read. */
int graph_read_apt(struct graph *graph, bool quiet);
/*
 * Packages stanzas from an open stream that `what` names in messages; `first`
 * is a line taken from it already, or NULL, and `lines_before` came before that.
 */
int graph_read_packages(struct graph *graph, FILE *in, const char *what, const char *first, size_t lines_before);
/* An edge list, a MatrixMarket coordinate file or Packages stanzas, by what the first line looks like. */
int graph_read_file(struct graph *graph, const char *path);

int graph_add_edge(struct graph *graph, uint32_t src, uint32_t dst);
void graph_finish(struct graph *graph);
void graph_free(struct graph *graph);

/* Appends `bytes` of text, unprintable bytes replaced; (size_t)-1 when out of memory. */
size_t pool_add(struct pool *pool, const char *text, size_t bytes);

static inline const char *graph_name(const struct graph *graph, uint32_t node)
{
	return graph->pool.text + graph->name[node];
}

static inline const char *graph_section(const struct graph *graph, uint32_t section)
{
	return graph->pool.text + graph->section_name[section];
}

#endif
