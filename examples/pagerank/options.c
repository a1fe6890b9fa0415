/* SPDX-License-Identifier: MIT */
/*
 * Command line. Every number is checked against the bounds that the rest of
 * the program relies on; a mistake is named and ends the program with 2.
 */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
	"Usage: pagerank [OPTION]...\n"
	"Personalised PageRank, one vector per section of the Debian archive, over the\n"
	"dependency graph of all packages in this machine's apt lists. The arrays are\n"
	"malloc()ed and shared with a mock accelerator whose memory is smaller than they\n"
	"are; libgmem moves their pages to and fro. The result is compared bit by bit with\n"
	"the same computation on the host alone.\n"
	"\n"
	"  --vram SIZE|1/N   memory of the device: bytes (suffix K, M or G), or a part of\n"
	"                    what the job needs (default 1/4); 1/32 still works\n"
	"  --iterations N    how many (default 10)\n"
	"  --threads N       threads of a kernel, 1 to 64 (default 2)\n"
	"  --graph FILE      instead of apt's lists: an edge list (\"u v\" per line), a\n"
	"                    MatrixMarket coordinate file, or a Packages file\n"
	"  --mode MODE       faults: the device raises page faults, nobody declares anything\n"
	"                    sets:   a device without faults, every launch declares what it uses\n"
	"                    both:   one run each (default)\n"
	"  --svg FILE        picture of where every page was (default pagerank.svg); \"\": none\n"
	"  --json            print one JSON object instead of tables\n"
	"  --quiet           print the verdict only\n"
	"  --help            this text\n"
	"\n"
	"Exit status: 0 ranks are bit-identical; 1 they are not, or something failed;\n"
	"2 wrong usage; 3 this machine does not allow userfaultfd.\n";

static int mistake(const char *what, const char *value)
{
	fprintf(stderr, "pagerank: %s: \"%s\"; see --help\n", what, value);
	return 2;
}

/* A whole decimal number and what follows it; false if there is none or it is too large. */
static bool take_number(const char *text, uint64_t *value, const char **rest)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*value = strtoull(text, &end, 10);
	*rest = end;
	return !errno;
}

static int parse_count(const char *what, const char *text, unsigned most, unsigned *count)
{
	const char *rest;
	uint64_t value;

	if (!take_number(text, &value, &rest) || *rest || !value || value > most)
		return mistake(what, text);
	*count = (unsigned)value;
	return -1;
}

static int parse_vram(struct options *options, const char *text)
{
	static const char units[] = "KMG";
	const char *rest;
	const char *unit;
	uint64_t value;
	unsigned shift;

	if (!strncmp(text, "1/", 2)) {
		options->vram_bytes = 0;
		return parse_count("--vram 1/N takes N from 1 to 1024", text + 2, 1024, &options->vram_part);
	}
	if (!take_number(text, &value, &rest) || !value)
		return mistake("--vram takes SIZE, such as 16M, or 1/N", text);
	unit = *rest ? strchr(units, *rest) : NULL;
	shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
	if ((*rest && !unit) || (unit && rest[1]))
		return mistake("--vram takes SIZE, such as 16M, or 1/N", text);
	if (value > (UINT64_C(1) << 40) >> shift)
		return mistake("--vram is limited to 1024G", text);
	options->vram_bytes = value << shift;
	return -1;
}

static int parse_mode(struct options *options, const char *text)
{
	options->faults = !strcmp(text, "faults") || !strcmp(text, "both");
	options->sets = !strcmp(text, "sets") || !strcmp(text, "both");
	return options->faults || options->sets ? -1 : mistake("--mode takes faults, sets or both", text);
}

static int parse_one(struct options *options, int option, const char *value)
{
	switch (option) {
	case 'v':
		return parse_vram(options, value);
	case 'i':
		return parse_count("--iterations takes 1 to 10000", value, 10000, &options->iterations);
	case 't':
		return parse_count("--threads takes 1 to 64", value, 64, &options->threads);
	case 'g':
		options->graph = value;
		return -1;
	case 'm':
		return parse_mode(options, value);
	case 's':
		options->svg = value;
		return -1;
	case 'j':
		options->json = true;
		return -1;
	case 'q':
		options->quiet = true;
		return -1;
	case 'h':
		return fputs(help, stdout) < 0 || fflush(stdout) ? 1 : 0;
	default:
		return 2; /* getopt_long() has said why */
	}
}

int options_parse(struct options *options, int argc, char **argv)
{
	static const struct option table[] = {
		{ "vram", required_argument, NULL, 'v' },    { "iterations", required_argument, NULL, 'i' },
		{ "threads", required_argument, NULL, 't' }, { "graph", required_argument, NULL, 'g' },
		{ "mode", required_argument, NULL, 'm' },    { "svg", required_argument, NULL, 's' },
		{ "json", no_argument, NULL, 'j' },          { "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },          { NULL, 0, NULL, 0 },
	};
	int option;

	*options = (struct options){ .svg = "pagerank.svg", .vram_part = 4, .iterations = 10, .threads = 2,
				     .faults = true, .sets = true };
	while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
		int ret = parse_one(options, option, optarg);

		if (ret >= 0)
			return ret;
	}
	if (optind < argc)
		return mistake("unexpected argument", argv[optind]);
	return -1;
}
