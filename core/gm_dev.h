/* SPDX-License-Identifier: MIT */
/* A device of an instance. */
#ifndef GM_CORE_DEV_H
#define GM_CORE_DEV_H

#include "core/gm_lib.h"
#include "core/gm_node.h"

struct gm_dev {
	struct gm_lib *lib;
	struct gm_hal_dev *hal;
	unsigned index;             /* in lib->devs, and of its state in every block */
	struct gm_node node;
	struct gm_mutex lock;       /* GM_RANK_QUEUE: the fields below */
	struct gm_waitq waitq;      /* ready, stop, or a context's users changed */
	TAILQ_HEAD(, gm_ctx) ctxs;  /* attached contexts */
	unsigned contexts;
	bool started;               /* the fault thread is there, or coming */
	bool ready;                 /* fault_next() may have something */
	bool stop;
	struct gm_thread *thread;   /* services faults; see gm_devq.c */
};

#endif
