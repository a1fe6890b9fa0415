/* SPDX-License-Identifier: MIT */
/*
 * Reads Debian's dependency graph from Packages stanzas.
 *
 *     stanzas --read_stanza--> records (name, section, what it needs, what it provides)
 *             --number_nodes-> one node per name; a second stanza of a name joins the first
 *             --number_sections-> sections in the order of their names
 *             --link---------> an edge from every package to every package it names
 *
 * A name that no package has is looked up among what packages provide; the
 * first few providers stand for it.
 */
#include "graph.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* So many providers stand for a virtual package. */
#define PROVIDERS 3

#define NONE UINT32_MAX

enum field { F_NONE, F_PACKAGE, F_SECTION, F_NEEDS, F_PROVIDES };

struct record {
	size_t name;     /* offsets into the graph's pool; 0 is "" */
	size_t section;
	size_t needs[2]; /* Depends, Pre-Depends */
	size_t provides;
	uint32_t node;
};

/* Open addressing; a slot holds an index into whatever the table is about, or NONE. */
struct table {
	uint32_t *slot;
	size_t mask;
};

struct provision {
	size_t name;
	uint32_t node;
	uint32_t next; /* same name, provided later */
};

struct reader {
	struct graph *graph;
	const char *what;
	size_t line;
	bool open;            /* inside a stanza */
	struct record record; /* the one being read */
	size_t *slot;         /* its field being read; NULL: one we do not need */
	struct record *records;
	size_t count;
	size_t room;
	struct table names; /* name -> record that was its first */
	struct table wants; /* provided name -> first provision */
	struct provision *provisions;
	size_t provision_count;
};

static const char *text_at(const struct reader *r, size_t at)
{
	return r->graph->pool.text + at;
}

static int no_memory(void)
{
	fprintf(stderr, "pagerank: out of memory while reading packages\n");
	return -1;
}

static int bad_line(const struct reader *r, const char *why)
{
	fprintf(stderr, "pagerank: %s: line %zu: %s\n", r->what, r->line, why);
	return -1;
}

/* ------------------------------------------------------------------ tables */

static int table_make(struct table *table, size_t entries)
{
	size_t slots = 64;

	while (slots < 2 * entries)
		slots *= 2;
	table->slot = malloc(slots * sizeof(table->slot[0]));
	if (!table->slot)
		return no_memory();
	memset(table->slot, 0xff, slots * sizeof(table->slot[0]));
	table->mask = slots - 1;
	return 0;
}

static size_t hash_name(const char *name, size_t bytes)
{
	uint64_t h = 1469598103934665603u;
	size_t i;

	for (i = 0; i < bytes; i++)
		h = (h ^ (unsigned char)name[i]) * 1099511628211u;
	return (size_t)(h ^ h >> 29);
}

static bool same_name(const char *whole, const char *name, size_t bytes)
{
	return !strncmp(whole, name, bytes) && !whole[bytes];
}

/* The slot of a name among the records: taken by it, or free for it. */
static uint32_t *find_record(const struct reader *r, const char *name, size_t bytes)
{
	size_t i = hash_name(name, bytes) & r->names.mask;

	while (r->names.slot[i] != NONE &&
	       !same_name(text_at(r, r->records[r->names.slot[i]].name), name, bytes))
		i = (i + 1) & r->names.mask;
	return &r->names.slot[i];
}

/* The same for provided names. */
static uint32_t *find_provision(const struct reader *r, const char *name, size_t bytes)
{
	size_t i = hash_name(name, bytes) & r->wants.mask;

	while (r->wants.slot[i] != NONE &&
	       !same_name(text_at(r, r->provisions[r->wants.slot[i]].name), name, bytes))
		i = (i + 1) & r->wants.mask;
	return &r->wants.slot[i];
}

/* ----------------------------------------------------------------- stanzas */

static enum field field_of(const char *line, size_t bytes, unsigned *which)
{
	static const struct {
		const char *name;
		enum field field;
		unsigned which;
	} fields[] = {
		{ "Package", F_PACKAGE, 0 },  { "Section", F_SECTION, 0 },    { "Depends", F_NEEDS, 0 },
		{ "Pre-Depends", F_NEEDS, 1 }, { "Provides", F_PROVIDES, 0 },
	};
	size_t i;

	for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (strlen(fields[i].name) == bytes && !strncasecmp(line, fields[i].name, bytes)) {
			*which = fields[i].which;
			return fields[i].field;
		}
	}
	return F_NONE;
}

static size_t *field_slot(struct record *record, enum field field, unsigned which)
{
	switch (field) {
	case F_PACKAGE:
		return &record->name;
	case F_SECTION:
		return &record->section;
	case F_NEEDS:
		return &record->needs[which];
	case F_PROVIDES:
		return &record->provides;
	case F_NONE:
		break;
	}
	return NULL;
}

/* A line that continues the field before it, which is the last text in the pool. */
static int continue_field(struct reader *r, const char *line, size_t bytes)
{
	struct pool *pool = &r->graph->pool;

	pool->bytes--; /* its end */
	if (pool_add(pool, line, bytes) != (size_t)-1)
		return 0;
	pool->bytes++;
	return no_memory();
}

static int begin_field(struct reader *r, const char *line, size_t bytes)
{
	const char *colon = memchr(line, ':', bytes);
	enum field field;
	unsigned which = 0;
	size_t begin;
	size_t at;

	if (!colon)
		return bad_line(r, "neither a field (\"Name: value\") nor the continuation of one");
	field = field_of(line, (size_t)(colon - line), &which);
	r->slot = field_slot(&r->record, field, which);
	if (!r->slot)
		return 0;
	begin = (size_t)(colon - line) + 1;
	while (begin < bytes && (line[begin] == ' ' || line[begin] == '\t'))
		begin++;
	at = pool_add(&r->graph->pool, line + begin, bytes - begin);
	if (at == (size_t)-1)
		return no_memory();
	*r->slot = at;
	return 0;
}

static int end_stanza(struct reader *r)
{
	if (!*text_at(r, r->record.name))
		return bad_line(r, "the stanza that ends here has no \"Package:\" field");
	if (r->count >= NONE - 1)
		return bad_line(r, "too many packages");
	if (r->count == r->room) {
		size_t room = 2 * r->room + 1024;
		struct record *grown = realloc(r->records, room * sizeof(*grown));

		if (!grown)
			return no_memory();
		r->records = grown;
		r->room = room;
	}
	r->records[r->count++] = r->record;
	r->record = (struct record){ .node = NONE };
	r->slot = NULL;
	r->open = false;
	return 0;
}

/* A blank line ends a stanza, an indented one continues a field, '#' begins a comment. */
static int feed_line(struct reader *r, const char *line, size_t bytes)
{
	int ret = 0;

	r->line++;
	while (bytes && (line[bytes - 1] == '\n' || line[bytes - 1] == '\r' || line[bytes - 1] == ' '))
		bytes--;
	if (!bytes) {
		if (r->open)
			ret = end_stanza(r);
	} else if (line[0] == ' ' || line[0] == '\t') {
		if (!r->open)
			ret = bad_line(r, "continues a field, but there is none");
		else if (r->slot)
			ret = continue_field(r, line, bytes);
	} else if (line[0] != '#') {
		r->open = true;
		ret = begin_field(r, line, bytes);
	}
	return ret;
}

static int read_stanzas(struct reader *r, FILE *in, const char *first)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t got;
	int ret = first ? feed_line(r, first, strlen(first)) : 0;

	while (!ret && (errno = 0, got = getline(&line, &room, in)) >= 0)
		ret = feed_line(r, line, (size_t)got);
	if (!ret && ferror(in)) {
		fprintf(stderr, "pagerank: %s: %s\n", r->what, strerror(errno ? errno : EIO));
		ret = -1;
	}
	if (!ret && r->open)
		ret = end_stanza(r);
	free(line);
	return ret;
}

/* ----------------------------------------------------------- nodes, sections */

static int number_nodes(struct reader *r)
{
	struct graph *graph = r->graph;
	size_t i;

	if (table_make(&r->names, r->count))
		return -1;
	graph->name = malloc((r->count + 1) * sizeof(graph->name[0]));
	graph->section = calloc(r->count + 1, sizeof(graph->section[0]));
	if (!graph->name || !graph->section)
		return no_memory();
	for (i = 0; i < r->count; i++) {
		const char *name = text_at(r, r->records[i].name);
		uint32_t *slot = find_record(r, name, strlen(name));

		if (*slot == NONE) {
			*slot = (uint32_t)i;
			graph->name[graph->nodes] = r->records[i].name;
			r->records[i].node = graph->nodes++;
		} else {
			r->records[i].node = r->records[*slot].node;
		}
	}
	return 0;
}

/* "contrib/net" and "net" are one section; a package without one is in "none". */
static const char *plain_section(const struct reader *r, const struct record *record)
{
	const char *whole = text_at(r, record->section);
	const char *slash = strrchr(whole, '/');
	const char *plain = slash ? slash + 1 : whole;

	return *plain ? plain : "none";
}

static int add_section(struct reader *r, const char *name)
{
	struct graph *graph = r->graph;
	char copy[128];
	uint32_t at = 0;
	size_t text;

	while (at < graph->sections && strcmp(graph_section(graph, at), name) < 0)
		at++;
	if (at < graph->sections && !strcmp(graph_section(graph, at), name))
		return 0;
	if (graph->sections == GRAPH_MAX_SECTIONS) {
		fprintf(stderr, "pagerank: %s: more than %u sections\n", r->what, GRAPH_MAX_SECTIONS);
		return -1;
	}
	/* `name` lies in the pool, which may move while it grows. */
	snprintf(copy, sizeof(copy), "%s", name);
	text = pool_add(&graph->pool, copy, strlen(copy));
	if (text == (size_t)-1)
		return no_memory();
	memmove(graph->section_name + at + 1, graph->section_name + at,
		(graph->sections - at) * sizeof(graph->section_name[0]));
	graph->section_name[at] = text;
	graph->sections++;
	return 0;
}

static uint16_t section_index(const struct graph *graph, const char *name)
{
	uint32_t low = 0;
	uint32_t high = graph->sections - 1;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (strcmp(graph_section(graph, middle), name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return (uint16_t)low;
}

static int number_sections(struct reader *r)
{
	struct graph *graph = r->graph;
	size_t i;

	graph->section_name = calloc(GRAPH_MAX_SECTIONS + 1, sizeof(graph->section_name[0]));
	if (!graph->section_name)
		return no_memory();
	for (i = 0; i < r->count; i++) {
		if (strlen(plain_section(r, &r->records[i])) > 100) {
			fprintf(stderr, "pagerank: %s: package %s: its section has more than 100 letters\n", r->what,
				text_at(r, r->records[i].name));
			return -1;
		}
		if (add_section(r, plain_section(r, &r->records[i])))
			return -1;
	}
	for (i = r->count; i-- > 0;)
		graph->section[r->records[i].node] = section_index(graph, plain_section(r, &r->records[i]));
	return 0;
}

/* ------------------------------------------------------------------- edges */

/* Next name of a list such as "a (>= 1) | b:any, c"; NULL at its end. */
static const char *next_name(const char **at, size_t *bytes)
{
	const char *p = *at;
	const char *name;

	p += strspn(p, " \t,|");
	if (!*p)
		return NULL;
	name = p;
	*bytes = strcspn(p, " \t,|:([<");
	p += *bytes;
	p += strcspn(p, ",|");
	*at = p;
	return name;
}

static size_t count_provisions(const struct reader *r)
{
	size_t count = 0;
	size_t i;

	for (i = 0; i < r->count; i++) {
		const char *at = text_at(r, r->records[i].provides);
		size_t bytes;

		while (next_name(&at, &bytes))
			count++;
	}
	return count;
}

static int add_provision(struct reader *r, const char *name, size_t bytes, uint32_t node)
{
	struct provision *entry = &r->provisions[r->provision_count];
	uint32_t *slot = find_provision(r, name, bytes);
	char copy[256];
	uint32_t tail;
	unsigned before = 1;

	if (*slot != NONE) {
		for (tail = *slot; r->provisions[tail].next != NONE; tail = r->provisions[tail].next)
			before++;
		if (before == PROVIDERS)
			return 0; /* nobody will look at it */
		entry->name = r->provisions[*slot].name;
		r->provisions[tail].next = (uint32_t)r->provision_count;
	} else {
		snprintf(copy, sizeof(copy), "%.*s", (int)bytes, name);
		entry->name = pool_add(&r->graph->pool, copy, strlen(copy));
		if (entry->name == (size_t)-1)
			return no_memory();
		*slot = (uint32_t)r->provision_count;
	}
	entry->node = node;
	entry->next = NONE;
	r->provision_count++;
	return 0;
}

static int read_provisions(struct reader *r)
{
	size_t count = count_provisions(r);
	size_t i;

	if (count >= NONE)
		return bad_line(r, "too many \"Provides\"");
	r->provisions = calloc(count + 1, sizeof(r->provisions[0]));
	if (!r->provisions)
		return no_memory();
	if (table_make(&r->wants, count))
		return -1;
	for (i = 0; i < r->count; i++) {
		size_t done = 0;
		size_t bytes;

		for (;;) {
			const char *list = text_at(r, r->records[i].provides);
			const char *at = list + done;
			const char *name = next_name(&at, &bytes);

			if (!name)
				break;
			done = (size_t)(at - list); /* the pool may move below */
			if (bytes < 250 && add_provision(r, name, bytes, r->records[i].node))
				return -1;
		}
	}
	return 0;
}

static int link_name(struct reader *r, uint32_t node, const char *name, size_t bytes)
{
	uint32_t found = *find_record(r, name, bytes);

	if (found != NONE)
		return graph_add_edge(r->graph, node, r->records[found].node);
	for (found = *find_provision(r, name, bytes); found != NONE; found = r->provisions[found].next) {
		if (graph_add_edge(r->graph, node, r->provisions[found].node))
			return -1;
	}
	return 0;
}

static int link_packages(struct reader *r)
{
	size_t i;
	size_t j;

	for (i = 0; i < r->count; i++) {
		for (j = 0; j < 2; j++) {
			const char *at = text_at(r, r->records[i].needs[j]);
			const char *name;
			size_t bytes;

			while ((name = next_name(&at, &bytes)) != NULL) {
				if (link_name(r, r->records[i].node, name, bytes))
					return -1;
			}
		}
	}
	return 0;
}

/* -------------------------------------------------------------------- entry */

int graph_read_packages(struct graph *graph, FILE *in, const char *what, const char *first, size_t lines_before)
{
	struct reader r = { .graph = graph, .what = what, .line = lines_before, .record = { .node = NONE } };
	int ret = -1;

	memset(graph, 0, sizeof(*graph));
	if (pool_add(&graph->pool, "", 0) == (size_t)-1) { /* offset 0 is the empty string */
		no_memory();
		goto out;
	}
	if (read_stanzas(&r, in, first))
		goto out;
	if (!r.count) {
		fprintf(stderr, "pagerank: %s: no packages\n", what);
		goto out;
	}
	if (number_nodes(&r) || number_sections(&r) || read_provisions(&r) || link_packages(&r))
		goto out;
	graph_finish(graph);
	snprintf(graph->origin, sizeof(graph->origin), "%s", what);
	ret = 0;
out:
	free(r.records);
	free(r.names.slot);
	free(r.wants.slot);
	free(r.provisions);
	if (ret)
		graph_free(graph);
	return ret;
}
