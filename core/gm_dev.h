/* SPDX-License-Identifier: MIT */
/* A device of an instance. */
#ifndef GM_CORE_DEV_H
#define GM_CORE_DEV_H

#include "core/gm_lib.h"
#include "core/gm_node.h"

/* A device fault that is not answered yet. */
struct gm_devq_entry {
	struct gm_dev_fault fault; /* of several: all that they ask for */
	uint32_t least;		   /* of several: what the one asks for that asks for least */
	uint64_t since_ns;
	uint64_t not_before_ns; /* of the next attempt */
	uint64_t pause_ns;      /* since the last one */
	unsigned untold;        /* how often the host could not tell, before the last attempt */
};

/* Who asked for more than was given comes again, and has waited since then. */
struct gm_devq_debt {
	void *pmap;
	uint64_t va, since_ns;
	uint64_t at_ns; /* answered; much later it is somebody else */
	uint32_t more;  /* rights that were not given */
};

#define GM_DEVQ_DEBTS 8
#define GM_DEVQ_BATCH 64
/* So many that something is in the way of do not keep others waiting; with more, others are fetched as these go. */
#define GM_DEVQ_KEPT 1024

struct gm_dev {
	struct gm_lib *lib;
	struct gm_hal_dev *hal;
	unsigned index;             /* in lib->devs, and of its state in every block */
	struct gm_node node;
	struct gm_mutex lock;       /* GM_RANK_QUEUE: the fields below */
	struct gm_waitq waitq;      /* ready, stop, or a context's users changed */
	TAILQ_HEAD(, gm_ctx) ctxs;  /* attached contexts */
	unsigned contexts;
	unsigned exports;           /* fences given out as descriptors, pending; see gm_sync.c */
	bool started;               /* the fault thread is there, or coming: */
	bool starting;              /* somebody is making it, and others wait for what becomes of it */
	bool ready;                 /* fault_next() may have something */
	bool stop;
	bool serving;               /* somebody has the faults below: one at a time */
	bool missed;                /* ... and somebody else has been turned away */
	struct gm_thread *thread;   /* services faults; see gm_devq.c */

	/* who has `serving` */
	struct gm_devq_entry fault[GM_DEVQ_BATCH]; /* of this round */
	size_t faults;
	struct gm_devq_entry kept[GM_DEVQ_KEPT];   /* for later ones */
	size_t n_kept;
	struct gm_devq_debt debt[GM_DEVQ_DEBTS];
	unsigned next_debt;
};

#endif
