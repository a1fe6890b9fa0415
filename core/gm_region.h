/* SPDX-License-Identifier: MIT */
/* Which VA ranges of an address space are managed, and how; see gm_region.c, and gm_region_stock.c for its memory. */
#ifndef GM_CORE_REGION_H
#define GM_CORE_REGION_H

#include "core/gm_radix.h"

enum gm_region_kind {
	GM_REGION_OWNED,   /* gm_alloc(): mapped and unmapped by the library */
	GM_REGION_ADOPTED, /* the application's own memory */
	GM_REGION_EDGE,    /* a page that an adopted buffer shares with others: never migrated */
	GM_REGION_PLACED,  /* memory of the library that others may map: never migrated (gm_shared.c) */
};

/* A small leaf in stock. */
struct gm_region_small {
	struct gm_region_small *next;
};

struct gm_region {
	uint64_t va, end; /* whole pages, half-open */
	enum gm_region_kind kind;
	uint32_t users;   /* EDGE: buffers that end in this page */
};

/* Does it stay on the host, mapped in place? */
static inline bool gm_region_stays(const struct gm_region *r)
{
	return r->kind == GM_REGION_EDGE || r->kind == GM_REGION_PLACED;
}

/* Tree nodes and leaves: pieces of one size. */
#define GM_REGION_PIECE_BYTES sizeof(struct gm_radix_node)
/* Small leaves: what most places need. Optional: they spare memory, not failures. */
#define GM_REGION_SMALL_BYTES 112

#define GM_REGION_SPARES 8 /* usual stock: so many changes can be made without an allocation */

/* All regions of one space. Protected by the space's lock; nothing in here allocates. */
struct gm_regions {
	struct gm_radix tree;         /* by 2 MiB piece: struct gm_region_leaf */
	uint64_t count;
	uint64_t inserts;             /* how often something was added: rises, never falls */
	struct gm_radix_spares stock; /* unused pieces */
	unsigned promised;            /* changes for which the stock keeps pieces */
	struct gm_region_small *small; /* unused small leaves, */
	unsigned smalls;               /* so many */
};

void gm_regions_init(struct gm_regions *rs);
/* Frees every node. */
void gm_regions_fini(struct gm_regions *rs, struct gm_env *env);

/* The region that contains va, described in *r: r, or NULL. */
struct gm_region *gm_regions_find(struct gm_regions *rs, uint64_t va, struct gm_region *r);
/*
 * The first region that meets [va, end), in *r; gm_regions_next() goes on from *r, and
 * also when that has been carved since. What is written to *r changes nothing.
 */
struct gm_region *gm_regions_first(struct gm_regions *rs, uint64_t va, uint64_t end, struct gm_region *r);
struct gm_region *gm_regions_next(struct gm_regions *rs, struct gm_region *r, uint64_t end);

/*
 * Add [va, end). It meets no region, except that an EDGE may meet an EDGE of
 * the same page. Takes room for one change at most. False: there is none, nothing changed.
 */
bool gm_regions_insert(struct gm_regions *rs, uint64_t va, uint64_t end, enum gm_region_kind kind);

/*
 * Take [va, end) out of every region of `kind` that it meets. Takes room for one
 * change at most. False: there is none, nothing changed.
 */
bool gm_regions_carve(struct gm_regions *rs, uint64_t va, uint64_t end, enum gm_region_kind kind);

/* Take out every EDGE of [va, end), however many use it. Takes no room. */
void gm_regions_drop_edges(struct gm_regions *rs, uint64_t va, uint64_t end);

/* Keep room for one change, which must not fail later. False: there is none. */
bool gm_regions_promise(struct gm_regions *rs);
/* That change is made next, or is not needed. */
void gm_regions_redeem(struct gm_regions *rs);
/* For how many insertions or carvings, one after the other, the stock is enough in any case. */
unsigned gm_regions_room(const struct gm_regions *rs);
/* A piece for the stock, of GM_REGION_PIECE_BYTES, made without the space's lock; NULL: no memory... */
void *gm_region_new(struct gm_env *env);
/* ...and handed in under it. */
void gm_regions_stock(struct gm_regions *rs, void *piece);
/* A piece beyond the usual stock, for the caller to free; NULL if there is none. */
void *gm_regions_excess(struct gm_regions *rs);
/* The same for small leaves, of GM_REGION_SMALL_BYTES. */
bool gm_regions_lack_small(const struct gm_regions *rs);
void *gm_region_new_small(struct gm_env *env);
void gm_regions_stock_small(struct gm_regions *rs, void *piece);
void *gm_regions_excess_small(struct gm_regions *rs);
/* For changes of the tree: a small leaf, or NULL; pieces that are kept for what was promised. */
void *gm_regions_take_small(struct gm_regions *rs);
unsigned gm_regions_kept(const struct gm_regions *rs);

/* Every invariant; NULL or what is wrong. */
const char *gm_regions_check(struct gm_regions *rs);

#endif
