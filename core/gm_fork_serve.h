/* SPDX-License-Identifier: MIT */
/* Children that get what devices have, as of the fork; see gm_fork_serve.c. */
#ifndef GM_CORE_FORK_SERVE_H
#define GM_CORE_FORK_SERVE_H

#include "hal/gm_host.h"
#include "hal/gm_mask.h"

struct gm_as;
struct gm_block;

#define GM_SERVE_CHILDREN 8

/* Bytes of one block, copied aside. */
struct gm_aside {
	struct gm_aside *next;
	unsigned pages;
	uint64_t to[GM_BLOCK_PAGES]; /* where page i of `bytes` belongs in the child; 0: nowhere any more */
	char *bytes;
};

/* Of one space. */
struct gm_serving {
	bool on;               /* (c) children have descriptors */
	bool copying;          /* (A) a fork has begun: events are followed */
	bool open;             /* (A) all is copied aside, and the fork not over: children get it */
	struct gm_aside *list; /* (A) while events are followed; else the forking thread's */
	int child[GM_SERVE_CHILDREN]; /* (A) */
	unsigned children;     /* (A) */
	unsigned good;         /* (A) the first so many get what is in the list */
};

/* Can children be served in this space? SUCCESS, PERM, NOTSUP, NOMEM. Before anything is watched. */
gm_ret_t gm_serve_init(struct gm_as *as);

/* Freeze: copy aside what a child is to get of this block. Returns those pages; the others have to come home. */
struct gm_mask gm_serve_copy(struct gm_block *b, uint64_t deadline_ns);
/* Before the first block, also when all are copied again. */
void gm_serve_begin(struct gm_as *as);
/* Freeze has ended. */
void gm_serve_open(struct gm_as *as);
/* Thaw: fill the children. */
void gm_serve_close(struct gm_as *as, uint64_t deadline_ns);

/* An event of this process, or what comes to the same; what it says is of the child too, if that is not there yet. */
void gm_serve_note(struct gm_as *as, const struct gm_host_msg *msg);
/* Handler: there is a child. */
void gm_serve_child(struct gm_as *as, int child);

#endif
