/* SPDX-License-Identifier: MIT */
/* What the command line asked for. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct options {
	const char *graph;      /* NULL: the machine's apt lists */
	const char *svg;
	uint64_t vram_bytes;    /* 0: a part of the footprint */
	unsigned vram_part;     /* ... namely 1/vram_part of it */
	unsigned iterations;
	unsigned threads;
	bool json;
	bool quiet;
	bool faults;            /* which runs */
	bool sets;
};

/* Returns -1 to go on, else the exit status (0 after --help, 2 for a mistake, which it has described). */
int options_parse(struct options *options, int argc, char **argv);

#endif
