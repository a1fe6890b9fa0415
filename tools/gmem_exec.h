/* SPDX-License-Identifier: MIT */
/* The parts of `gmem exec`. */
#ifndef GM_TOOLS_GMEM_EXEC_H
#define GM_TOOLS_GMEM_EXEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>

#include "tools/preload/shared.h"

/* As env(1) and the shell have it. */
#define GM_EXEC_NOT_STARTED 126
#define GM_EXEC_NOT_FOUND 127

/* gmem_exec_target.c: what is really executed, an interpreter for a script. */
struct gm_exec_target {
	char path[4096];
	char **argv; /* from malloc(), the strings are the caller's or below */
	char lines[4][512]; /* "#!" lines that `argv` points into */
	char paths[4][4096];
};
/* 0, or the exit status, and `why` says what is wrong and what to do. */
int gm_exec_find(struct gm_exec_target *target, char **argv, char *why, size_t bytes);

/* gmem_exec_report.c */
struct gm_exec_outcome {
	int status; /* as of wait4() */
	uint64_t wall_ns;
	struct rusage usage;
};
void gm_exec_table(FILE *out, char **argv, const struct gm_exec_shared *x, const struct gm_exec_outcome *o);
/* False: it could not be written. */
bool gm_exec_json(FILE *out, char **argv, const struct gm_exec_shared *x, const struct gm_exec_outcome *o);

#endif
