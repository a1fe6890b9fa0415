/* SPDX-License-Identifier: MIT */
/* What the user sees: progress, tables, or JSON. */
#ifndef SHOW_H
#define SHOW_H

#include "device.h"

struct result {
	const struct job *job;
	const double *rank;
	unsigned iterations;
	uint64_t host_ns; /* the computation on the host alone */
	const struct run *runs;
	unsigned run_count;
};

/* State of the progress display; starts as zeros. */
struct progress {
	bool quiet;
	unsigned shown; /* last step shown, plus one */
	enum run_mode mode;
};

const char *show_mode(enum run_mode mode);
void show_head(const struct job *job, unsigned iterations);
void show_progress(void *progress, enum run_mode mode, uint64_t done, uint64_t all);
/* Both return -1 when out of memory, after having said so. */
int show_tables(const struct result *result);
int show_json(const struct result *result);

#endif
