/* SPDX-License-Identifier: MIT */
/* Shared memory of a pmap: its segments (gm_host_shared.c), and moving their pages (gm_host_shared_move.c). */
#ifndef GM_HAL_HOST_SHARED_H
#define GM_HAL_HOST_SHARED_H

#include <stdatomic.h>

#include "hal/gm_env.h"
#include "hal/gm_host.h"

struct gm_host_pmap;

/* Of a library's file: the view of the program at va, and behind it, at va + room, the alias, if it moves. */
struct gm_host_seg {
	uint64_t va, bytes;    /* what the program has */
	uint64_t room;         /* address space of one view: whole blocks */
	uint64_t ino, ino_dev; /* the file */
	int fd;
	bool moves;            /* it has an alias */
	bool exported;         /* others may map it: nothing is stolen any more */
};

struct gm_host_shared {
	atomic_uint n;            /* segments; changed under `lock` */
	atomic_int fd;            /* userfaultfd of them all, -1 before the first that moves */
	atomic_bool gap;          /* for a while nobody watched them: gm_host_reopen() */
	struct gm_mutex lock;
	struct gm_host_seg *seg;  /* sorted by va, disjoint */
	unsigned room;
};

void gm_host_shared_init(struct gm_host_pmap *p);
void gm_host_shared_fini(struct gm_host_pmap *p);
/* `fd` is that of all segments from now on; who waits looks again. */
void gm_host_shared_put_back(struct gm_host_pmap *p, int fd);
/* The segment that addr is in, by a view or an alias. */
bool gm_host_seg_find(struct gm_host_pmap *p, uint64_t addr, struct gm_host_seg *seg);
/* The program has [va, va + bytes) of it there still. SUCCESS, FAULT (no), NOMEM (it cannot be told now). */
gm_ret_t gm_host_seg_is_mapped(struct gm_host_pmap *p, const struct gm_host_seg *seg, uint64_t va, uint64_t bytes);
/* Its descriptor, looked at; -1: the program closed it. */
int gm_host_seg_fd(const struct gm_host_seg *seg);

/* A userfaultfd for them, by the way of the rung. As gm_host_open(). */
gm_ret_t gm_host_open_shared(struct gm_host_pmap *p, int *fd);

/* Ops; see gm_host.h. */
gm_ret_t gm_host_share_map(void *pmap, int fd, uint64_t offset, uint64_t bytes, uint64_t *va);
gm_ret_t gm_host_share_view(void *pmap, int fd, uint64_t offset, uint64_t bytes, uint64_t *va);
gm_ret_t gm_host_share_slot(void *pmap, uint64_t va, uint64_t *slot);
gm_ret_t gm_host_share_fd(void *pmap, uint64_t va, int *fd);

/* What these do of segments; of other memory as gm_host_mem_unmap(), gm_host_steal()... */
void gm_host_any_unmap(void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_host_any_rights(void *pmap, uint64_t va, struct gm_host_vma *vma);
gm_ret_t gm_host_any_probe(void *pmap, uint64_t va, struct gm_host_vma *vma);
gm_ret_t gm_host_any_watch(void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_host_any_watch_stores(void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_host_any_unwatch(void *pmap, uint64_t va, uint64_t bytes);
void gm_host_any_slot_free(void *pmap, uint64_t slot);
void gm_host_any_slot_drop(void *pmap, uint64_t addr, uint64_t bytes);
gm_ret_t gm_host_any_steal(void *pmap, uint64_t va, const struct gm_mask *want, uint64_t slot, struct gm_host_steal *out);
gm_ret_t gm_host_any_restore(void *pmap, uint64_t va, uint64_t addr, uint64_t bytes, uint64_t *done);
gm_ret_t gm_host_any_fill(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done);
gm_ret_t gm_host_any_unprotect(void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_host_any_zero(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done);
gm_ret_t gm_host_any_poison(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done);
gm_ret_t gm_host_any_unmark(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done);
gm_ret_t gm_host_any_wake(void *pmap, uint64_t va, uint64_t bytes);
size_t gm_host_any_msg_read(void *pmap, struct gm_host_msg *msgs, size_t n);

#endif
