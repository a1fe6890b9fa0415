/* SPDX-License-Identifier: MIT */
/*
 * Where packages come from: apt, or where it has none, the fixture.
 *
 * `apt-cache dumpavail` is asked, not the lists themselves, because it knows
 * where they are and how they are packed. An empty answer leads to the
 * fixture; an answer that cannot be read, or ends early, is an error.
 */
#include "graph.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* The fixture lies beside the program, or beside this source. */
static FILE *open_fixture(char *path, size_t room)
{
	static const char source[] = __FILE__;
	const char *slash = strrchr(source, '/');
	char self[512];
	ssize_t got = readlink("/proc/self/exe", self, sizeof(self) - 1);
	FILE *in = NULL;

	if (got > 0) {
		self[got] = 0;
		*(strrchr(self, '/') ? strrchr(self, '/') : self) = 0;
		snprintf(path, room, "%s/fixture.txt", self);
		in = fopen(path, "r");
	}
	if (!in) {
		snprintf(path, room, "%.*sfixture.txt", slash ? (int)(slash - source + 1) : 0, source);
		in = fopen(path, "r");
	}
	if (!in) {
		snprintf(path, room, "examples/pagerank/fixture.txt");
		in = fopen(path, "r");
	}
	return in;
}

/* An empty answer is told from a failure to read: the first leads to the fixture, the second ends the program. */
static int ask_apt(struct graph *graph, bool *empty)
{
	FILE *in = popen("apt-cache dumpavail 2>/dev/null", "r");
	int first;
	int ret;

	*empty = true;
	if (!in)
		return -1;
	first = fgetc(in);
	if (first == EOF) {
		pclose(in);
		return -1;
	}
	*empty = false;
	ungetc(first, in);
	ret = graph_read_packages(graph, in, "the machine's apt lists (apt-cache dumpavail)", NULL, 0);
	if (pclose(in) && !ret) {
		fprintf(stderr, "pagerank: apt-cache dumpavail failed before its end\n");
		graph_free(graph);
		ret = -1;
	}
	return ret;
}

int graph_read_apt(struct graph *graph, bool quiet)
{
	char path[600] = "";
	char what[700];
	bool empty;
	FILE *in;
	int ret = ask_apt(graph, &empty);

	if (!empty)
		return ret;
	in = open_fixture(path, sizeof(path));
	if (!in) {
		fprintf(stderr, "pagerank: apt-cache has no packages, and the fixture cannot be read (%s: %s); "
			"try --graph FILE\n", path, strerror(errno));
		return -1;
	}
	if (!quiet)
		fprintf(stderr, "pagerank: apt-cache is missing or has no packages (apt-get update?): "
			"using the synthetic graph %s\n", path);
	snprintf(what, sizeof(what), "the synthetic packages of %s", path);
	ret = graph_read_packages(graph, in, what, NULL, 0);
	fclose(in);
	return ret;
}
