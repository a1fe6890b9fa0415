/* SPDX-License-Identifier: MIT */
/* Which VA ranges of an address space are managed, and how; see gm_region.c. */
#ifndef GM_CORE_REGION_H
#define GM_CORE_REGION_H

#include <bsd/sys/tree.h>

#include "hal/gm_env.h"

enum gm_region_kind {
	GM_REGION_OWNED,   /* gm_alloc(): mapped and unmapped by the library */
	GM_REGION_ADOPTED, /* the application's own memory */
	GM_REGION_EDGE,    /* a page that an adopted buffer shares with others: never migrated */
};

struct gm_region {
	RB_ENTRY(gm_region) link;
	uint64_t va, end; /* whole pages, half-open */
	enum gm_region_kind kind;
	uint32_t users;   /* EDGE: buffers that end in this page */
	struct gm_region *next_spare;
};

RB_HEAD(gm_region_tree, gm_region);

#define GM_REGION_SPARES 8 /* usual stock */

/* All regions of one space. Protected by the space's lock; nothing in here allocates but _stock(). */
struct gm_regions {
	struct gm_region_tree tree;
	uint64_t count;
	uint64_t inserts;        /* how often something was added: rises, never falls */
	struct gm_region *spare; /* chain of unused nodes */
	unsigned spares;         /* how many */
};

void gm_regions_init(struct gm_regions *rs);
/* Frees every node. */
void gm_regions_fini(struct gm_regions *rs, struct gm_env *env);

/* The region that contains va, or NULL. */
struct gm_region *gm_regions_find(struct gm_regions *rs, uint64_t va);
/* The first region that meets [va, end), or NULL; gm_regions_next() goes on. */
struct gm_region *gm_regions_first(struct gm_regions *rs, uint64_t va, uint64_t end);
struct gm_region *gm_regions_next(struct gm_regions *rs, struct gm_region *r, uint64_t end);

/*
 * Add [va, end). It meets no region, except that an EDGE may meet an EDGE of
 * the same page. Uses at most one spare. False: no spare left, nothing changed.
 */
bool gm_regions_insert(struct gm_regions *rs, uint64_t va, uint64_t end, enum gm_region_kind kind);

/*
 * Take [va, end) out of every region of `kind` that it meets. Uses at most one
 * spare. False: no spare left, nothing changed.
 */
bool gm_regions_carve(struct gm_regions *rs, uint64_t va, uint64_t end, enum gm_region_kind kind);

/* Nodes for the stock are made without the space's lock... */
struct gm_region *gm_region_new(struct gm_env *env);
/* ...and handed in under it. */
void gm_regions_stock(struct gm_regions *rs, struct gm_region *spare);
/* A node beyond the usual stock, for the caller to free; NULL if there is none. */
struct gm_region *gm_regions_excess(struct gm_regions *rs);

/* Every invariant; NULL or what is wrong. */
const char *gm_regions_check(struct gm_regions *rs);

#endif
