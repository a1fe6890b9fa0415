/* SPDX-License-Identifier: MIT */
/*
 * Patterns of use times kinds of memory, each pair with a name, all from two tables (patterns.c, patterns_sections.c). The
 * names are those of a well-known suite of system allocators for devices (igt, xe_exec_system_allocator) where it has them.
 *
 * One job: the CPU fills memory of the section; a device adds one to every byte; the section does its twist (moves it, locks
 * it, forks...); the device adds one again; both sides read all of it. Every byte has a value of its own, and each side
 * compares every byte.
 */
#ifndef GM_TEST_PATTERNS_H
#define GM_TEST_PATTERNS_H

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gmem/gmem.h>
#include <gmem/mock.h>

#define PAGE ((uint64_t)GM_PAGE_BYTES)
#define BLOCK ((uint64_t)GM_BLOCK_BYTES)

/* How memory is used. */
struct pattern {
	const char *name;
	uint64_t bytes;
	unsigned jobs;	    /* each on fresh memory */
	unsigned passes;    /* of the device over it, per job */
	unsigned stride;    /* pages; 1: all of them */
	unsigned threads;   /* at once */
	unsigned processes; /* at once, each with a library of its own; 0: this one */
	bool own_space;	    /* each thread has an address space of its own */
};

struct world {
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_as *as;
	struct gm_ctx *ctx;
};

/* Memory of one job. */
struct run {
	const struct pattern *pattern;
	struct world *w;
	char *at;
	uint64_t bytes;
	void *raw;	   /* what free() or munmap() wants */
	uint64_t raw_bytes;
	int fd;
	uint8_t seed;
	uint8_t *passes;   /* of each page of it: how often the device was there */
	unsigned failures;
};

/* What the memory is, and what happens to it. */
struct section {
	const char *name;
	bool mirror;			    /* needs a space that mirrors the process */
	bool (*get)(struct run *r);	    /* false: it has said why */
	void (*twist)(struct run *r, unsigned pass);
	void (*put)(struct run *r);
};

extern const struct section pattern_sections[];
extern const unsigned pattern_section_count;

/* The program's options. */
struct pattern_options {
	const char *only, *dev;
	unsigned rounds;
	bool list;
};
extern struct pattern_options pattern_options;

/* patterns_run.c */
__attribute__((format(printf, 2, 3))) void pattern_fail(struct run *r, const char *format, ...);
/* One world: SUCCESS, or why not. */
gm_ret_t pattern_open(struct world *w, uint32_t flags);
gm_ret_t pattern_open_space(struct world *w, uint32_t flags);
void pattern_close_space(struct run *r, struct world *w);
void pattern_close(struct run *r, struct world *w);
/* All jobs of one pattern on one section; how many failures. */
unsigned pattern_jobs(const struct pattern *p, const struct section *s, struct world *w, uint8_t seed);
/* The device adds one to what the stride lets it see; the first failure of an access. `done`: pages it has finished. */
gm_ret_t pattern_pass(struct run *r, _Atomic uint64_t *done);
/* Bytes [0, bytes) are as they must be; for a child as well, which may only read. */
uint64_t pattern_wrong_cpu(const struct run *r, uint64_t bytes);
uint64_t pattern_wrong_dev(struct run *r, uint64_t bytes);
gm_ret_t pattern_touch(struct run *r, uint64_t off, bool write);

#endif
