/* SPDX-License-Identifier: MIT */
/*
 * Reads a graph from a file, in one of three forms that its first line tells apart:
 *
 *     %%MatrixMarket matrix coordinate ...   entries "i j [value]", 1-based, as many as announced
 *     Package: ...                           Packages stanzas (graph_packages.c)
 *     anything else                          "u v [weight]" per line, any 64-bit ids, '#' or '%' comments
 *
 * Ids of an edge list become nodes 0, 1, ... in ascending order of id, so the
 * graph does not depend on the order of the lines. Weights are read and not
 * used. Whatever is wrong is reported with its line; nothing is guessed.
 */
#include "graph.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Nodes beyond this would need hundreds of gigabytes; main.c asks the machine for the real limit. */
#define MAX_NODES (1u << 28)

struct text {
	const char *path;
	FILE *in;
	char *line;
	size_t room;
	size_t number;
};

struct pairs {
	uint64_t *id; /* u0 v0 u1 v1 ... */
	size_t count; /* of ids, not of pairs */
	size_t room;
};

static int bad(const struct text *t, const char *why)
{
	fprintf(stderr, "pagerank: %s: line %zu: %s\n", t->path, t->number, why);
	return -1;
}

static int no_memory(const struct text *t)
{
	return bad(t, "out of memory");
}

/* 1: t->line holds the next line without its end; 0: no more; -1: said why. */
static int next_line(struct text *t)
{
	ssize_t got;

	errno = 0;
	got = getline(&t->line, &t->room, t->in);
	if (got < 0) {
		if (!ferror(t->in) && feof(t->in))
			return 0;
		fprintf(stderr, "pagerank: %s: %s\n", t->path, strerror(errno ? errno : EIO));
		return -1;
	}
	t->number++;
	if (strlen(t->line) != (size_t)got)
		return bad(t, "has a zero byte; this is not text");
	while (got && isspace((unsigned char)t->line[got - 1]))
		t->line[--got] = 0;
	return 1;
}

/* 1: a number was taken; 0: there is none; -1: said why. */
static int take_number(const struct text *t, const char **at, uint64_t *value)
{
	char *end;

	while (isspace((unsigned char)**at))
		++*at;
	if (!**at)
		return 0;
	if (!isdigit((unsigned char)**at))
		return bad(t, "not a non-negative whole number");
	errno = 0;
	*value = strtoull(*at, &end, 10);
	if (errno)
		return bad(t, "a number does not fit into 64 bits");
	if (*end && !isspace((unsigned char)*end))
		return bad(t, "not a non-negative whole number");
	*at = end;
	return 1;
}

/* What may follow a pair: nothing, or so many real numbers. */
static int check_values(const struct text *t, const char *at, unsigned least, unsigned most)
{
	unsigned seen = 0;

	for (;;) {
		char *end;

		while (isspace((unsigned char)*at))
			at++;
		if (!*at)
			break;
		strtod(at, &end);
		if (end == at || (*end && !isspace((unsigned char)*end)))
			return bad(t, "the value is not a number");
		at = end;
		seen++;
	}
	if (seen < least)
		return bad(t, "the value is missing");
	if (seen > most)
		return bad(t, "more numbers than expected");
	return 0;
}

static int take_pair(const struct text *t, uint64_t *u, uint64_t *v, unsigned least, unsigned most)
{
	const char *at = t->line;
	int got = take_number(t, &at, u);

	if (got > 0)
		got = take_number(t, &at, v);
	if (got < 0)
		return -1;
	if (!got)
		return bad(t, "two numbers are needed");
	return check_values(t, at, least, most);
}

static int add_pair(const struct text *t, struct pairs *pairs, uint64_t u, uint64_t v)
{
	if (pairs->count + 2 > pairs->room) {
		size_t room = 2 * pairs->room + 8192;
		uint64_t *grown = realloc(pairs->id, room * sizeof(*grown));

		if (!grown)
			return no_memory(t);
		pairs->id = grown;
		pairs->room = room;
	}
	pairs->id[pairs->count++] = u;
	pairs->id[pairs->count++] = v;
	return 0;
}

/* ------------------------------------------------------------ nodes, groups */

static int make_nodes(const struct text *t, struct graph *graph, size_t nodes, const uint64_t *ids)
{
	char text[32];
	size_t i;

	if (!nodes || nodes > MAX_NODES) {
		fprintf(stderr, "pagerank: %s: %s\n", t->path, nodes ? "too many nodes" : "no edges");
		return -1;
	}
	graph->sections = nodes < GRAPH_GROUPS ? (uint32_t)nodes : GRAPH_GROUPS;
	graph->name = malloc(nodes * sizeof(graph->name[0]));
	graph->section = malloc(nodes * sizeof(graph->section[0]));
	graph->section_name = malloc(graph->sections * sizeof(graph->section_name[0]));
	if (!graph->name || !graph->section || !graph->section_name)
		return no_memory(t);
	for (i = 0; i < nodes; i++) {
		snprintf(text, sizeof(text), "%" PRIu64, ids ? ids[i] : (uint64_t)i + 1);
		graph->name[i] = pool_add(&graph->pool, text, strlen(text));
		graph->section[i] = (uint16_t)(i % graph->sections);
		if (graph->name[i] == (size_t)-1)
			return no_memory(t);
	}
	for (i = 0; i < graph->sections; i++) {
		snprintf(text, sizeof(text), "group %zu", i);
		graph->section_name[i] = pool_add(&graph->pool, text, strlen(text));
		if (graph->section_name[i] == (size_t)-1)
			return no_memory(t);
	}
	graph->nodes = (uint32_t)nodes;
	return 0;
}

/* --------------------------------------------------------------- edge lists */

static int id_order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint32_t id_index(const uint64_t *ids, size_t count, uint64_t id)
{
	const uint64_t *found = bsearch(&id, ids, count, sizeof(*ids), id_order);

	return (uint32_t)(found - ids);
}

static int link_pairs(const struct text *t, struct graph *graph, const struct pairs *pairs)
{
	uint64_t *ids = malloc((pairs->count + 1) * sizeof(*ids));
	size_t nodes = 0;
	size_t i;
	int ret;

	if (!ids)
		return no_memory(t);
	if (pairs->count) {
		memcpy(ids, pairs->id, pairs->count * sizeof(*ids));
		qsort(ids, pairs->count, sizeof(*ids), id_order);
	}
	for (i = 0; i < pairs->count; i++) {
		if (!nodes || ids[i] != ids[nodes - 1])
			ids[nodes++] = ids[i];
	}
	ret = make_nodes(t, graph, nodes, ids);
	for (i = 0; !ret && i < pairs->count; i += 2)
		ret = graph_add_edge(graph, id_index(ids, nodes, pairs->id[i]),
				     id_index(ids, nodes, pairs->id[i + 1]));
	free(ids);
	return ret;
}

static bool is_comment(const char *line)
{
	line += strspn(line, " \t");
	return !*line || *line == '#' || *line == '%';
}

static int read_edge_list(struct text *t, struct graph *graph)
{
	struct pairs pairs = { 0 };
	int got = 1;
	int ret = 0;

	/* The first line is in the buffer already. */
	while (!ret && got > 0) {
		uint64_t u;
		uint64_t v;

		if (!is_comment(t->line)) {
			ret = take_pair(t, &u, &v, 0, 1);
			if (!ret)
				ret = add_pair(t, &pairs, u, v);
		}
		if (!ret)
			got = next_line(t);
	}
	if (got < 0)
		ret = -1;
	if (!ret)
		ret = link_pairs(t, graph, &pairs);
	free(pairs.id);
	return ret;
}

/* ------------------------------------------------------------- MatrixMarket */

struct matrix {
	unsigned values; /* numbers behind each pair */
	bool symmetric;
	uint64_t rows;
	uint64_t columns;
	uint64_t entries;
};

static int read_banner(const struct text *t, struct matrix *m)
{
	char object[16] = "";
	char format[16] = "";
	char field[16] = "";
	char symmetry[24] = "";

	if (sscanf(t->line, "%%%%MatrixMarket %15s %15s %15s %23s", object, format, field, symmetry) != 4)
		return bad(t, "the MatrixMarket banner needs four words: matrix coordinate FIELD SYMMETRY");
	if (strcasecmp(object, "matrix") || strcasecmp(format, "coordinate"))
		return bad(t, "only \"matrix coordinate\" files are graphs");
	if (!strcasecmp(field, "pattern"))
		m->values = 0;
	else if (!strcasecmp(field, "real") || !strcasecmp(field, "integer"))
		m->values = 1;
	else
		return bad(t, "the field must be pattern, real or integer");
	m->symmetric = !strcasecmp(symmetry, "symmetric");
	if (!m->symmetric && strcasecmp(symmetry, "general"))
		return bad(t, "the symmetry must be general or symmetric");
	return 0;
}

/* The next line that is neither empty nor a comment. */
static int next_content(struct text *t)
{
	int got;

	do {
		got = next_line(t);
	} while (got > 0 && (!t->line[0] || t->line[0] == '%'));
	return got;
}

static int read_size(struct text *t, struct matrix *m)
{
	const char *at;
	int got = next_content(t);

	if (got < 0)
		return -1;
	if (!got)
		return bad(t, "the file ends before the size line");
	at = t->line;
	got = take_number(t, &at, &m->rows);
	if (got > 0)
		got = take_number(t, &at, &m->columns);
	if (got > 0)
		got = take_number(t, &at, &m->entries);
	if (got < 0)
		return -1;
	if (!got)
		return bad(t, "the size line needs three numbers: rows, columns, entries");
	if (!m->rows || !m->columns || m->rows > MAX_NODES || m->columns > MAX_NODES)
		return bad(t, "no rows or columns, or too many");
	return check_values(t, at, 0, 0);
}

static int read_entry(struct text *t, struct graph *graph, const struct matrix *m)
{
	uint64_t i;
	uint64_t j;

	if (take_pair(t, &i, &j, m->values, m->values))
		return -1;
	if (!i || !j || i > m->rows || j > m->columns)
		return bad(t, "an index is outside the matrix");
	if (graph_add_edge(graph, (uint32_t)(i - 1), (uint32_t)(j - 1)))
		return -1;
	return m->symmetric ? graph_add_edge(graph, (uint32_t)(j - 1), (uint32_t)(i - 1)) : 0;
}

static int read_matrix(struct text *t, struct graph *graph)
{
	struct matrix m = { 0 };
	uint64_t seen = 0;
	int got;

	if (read_banner(t, &m) || read_size(t, &m))
		return -1;
	if (m.symmetric && m.rows != m.columns)
		return bad(t, "a symmetric matrix must be square");
	while ((got = next_content(t)) > 0) {
		if (seen++ == m.entries)
			return bad(t, "more entries than announced");
		if (read_entry(t, graph, &m))
			return -1;
	}
	if (got < 0)
		return -1;
	if (seen != m.entries)
		return bad(t, "the file ends before all announced entries");
	return make_nodes(t, graph, m.rows > m.columns ? m.rows : m.columns, NULL);
}

/* -------------------------------------------------------------------- entry */

/* Comments before the first line that tells what the file is belong to no form in particular. */
static int read_any(struct text *t, struct graph *graph)
{
	int got = next_line(t);

	if (got > 0 && !strncmp(t->line, "%%MatrixMarket", 14))
		return read_matrix(t, graph);
	while (got > 0 && is_comment(t->line))
		got = next_line(t);
	if (got < 0)
		return -1;
	if (!got) {
		fprintf(stderr, "pagerank: %s: there is nothing in it\n", t->path);
		return -1;
	}
	if (!strncasecmp(t->line, "Package:", 8))
		return graph_read_packages(graph, t->in, t->path, t->line, t->number - 1);
	return read_edge_list(t, graph);
}

int graph_read_file(struct graph *graph, const char *path)
{
	struct text t = { .path = path, .in = fopen(path, "r") };
	int ret;

	memset(graph, 0, sizeof(*graph));
	if (!t.in) {
		fprintf(stderr, "pagerank: %s: %s\n", path, strerror(errno));
		return -1;
	}
	ret = read_any(&t, graph);
	if (ret) {
		graph_free(graph);
	} else {
		graph_finish(graph);
		snprintf(graph->origin, sizeof(graph->origin), "%s", path);
	}
	free(t.line);
	fclose(t.in);
	return ret;
}
