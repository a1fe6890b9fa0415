/* SPDX-License-Identifier: MIT */
/* Memory whose faults its own threads serve; see gm_host_inthread.c. */
#ifndef GM_HAL_HOST_INTHREAD_H
#define GM_HAL_HOST_INTHREAD_H

#include <stdatomic.h>

#include "hal/gm_env.h"
#include "hal/gm_host.h"

#define GM_HOST_INTHREAD_SPANS 1024
#define GM_HOST_INTHREAD_MOVED 32
#define GM_HOST_INTHREAD_ASKED 512 /* of these, for who asks; the others are for what mremap() makes of them */

struct gm_host_pmap;

struct gm_host_span {
	uint64_t va, end;
};

struct gm_host_inthread {
	struct gm_mutex lock;
	struct gm_host_span span[GM_HOST_INTHREAD_SPANS];   /* in order, none meets or touches another */
	struct gm_host_span moved[GM_HOST_INTHREAD_MOVED]; /* places to which mremap() has just moved such memory */
	atomic_uint moves;    /* so many; changed under `lock` */
	atomic_int fd;        /* userfaultfd that raises SIGBUS; -1: there was no such memory yet */
	atomic_uint n;        /* spans; changed under `lock` */
	atomic_bool protects; /* pages of fd can be protected */
};

void gm_host_inthread_init(struct gm_host_pmap *p);
void gm_host_inthread_fini(struct gm_host_pmap *p);
/* It is lost: a new one, with which nothing is registered. BUSY, or as gm_host_open(). */
gm_ret_t gm_host_inthread_reopen(struct gm_host_pmap *p);
/* The descriptor of what is at va, of [va, va + *bytes) as far as it is the same. There are spans. */
int gm_host_inthread_fd(struct gm_host_pmap *p, uint64_t va, uint64_t *bytes);
/* No event of that descriptor is under way. */
void gm_host_inthread_quiet(struct gm_host_pmap *p);
/* An event that was read, from that descriptor (`own`) or the other. */
void gm_host_inthread_event(struct gm_host_pmap *p, const struct gm_host_msg *m, bool own);

/* Ops; see gm_host.h. */
gm_ret_t gm_host_mem_inthread(void *pmap, uint64_t va, uint64_t bytes, bool on);
bool gm_host_inthread_has(void *pmap, uint64_t va, uint64_t bytes);

#endif
