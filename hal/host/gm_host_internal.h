/* SPDX-License-Identifier: MIT */
/*
 * The real host, inside. One pmap is one address space's view of the process:
 *
 *     fd_app   userfaultfd of the application's ranges and of the staging arena
 *
 * The arena is on the same descriptor so that the kernel refuses to steal
 * while an event is unread (docs/decisions/0003): the check and the move are
 * one. The price: staging is taken off the descriptor for the moment in which
 * its frames are dropped, or the library would have to read an event of its own.
 *
 * A slot page without a frame must never be touched, neither by the library
 * nor by the kernel on its behalf: nobody would bring it.
 *
 * Letters: (c) constant after creation, (l) under `lock`, (a) atomic, (r) only
 * the one thread that reads messages, (f) under the registry lock of gm_host_fork.c.
 *
 * Everything may run in several threads at once, except msg_read() and
 * msg_wait(). Nothing allocates after pmap_create().
 */
#ifndef GM_HAL_HOST_INTERNAL_H
#define GM_HAL_HOST_INTERNAL_H

#include <bsd/sys/queue.h>
#include <stdatomic.h>

#include "hal/gm_env.h"
#include "hal/gm_host.h"
#include "hal/host/gm_host_uffd.h"

#define GM_HOST_PIECES 64       /* mappings of the staging arena */
#define GM_HOST_PIECE_SLOTS 512 /* slots in one: 1 GiB of address space */
#define GM_HOST_BOUNCES 4
#define GM_HOST_EVENTS 256 /* messages kept between two msg_read() */
#define GM_HOST_FAULTS 512

/* What the library asks of userfaultfd; all of it is in Linux 6.8. */
#define GM_HOST_FEATURES_APP                                                                                    \
	(GM_UFFD_FEATURE_EVENT_REMAP | GM_UFFD_FEATURE_EVENT_REMOVE | GM_UFFD_FEATURE_EVENT_UNMAP |             \
	 GM_UFFD_FEATURE_THREAD_ID | GM_UFFD_FEATURE_POISON | GM_UFFD_FEATURE_MOVE)

struct gm_host_dev {
	struct gm_env *env;
	int fd_mem;  /* /proc/self/mem, or -1 */
	int fd_maps; /* /proc/self/maps, or -1: asked at every access over the bus */
	uint64_t mem_dev, mem_ino; /* what fd_mem was: the program may have closed it, and have a file of its own there */
	struct gm_mutex lock;
	LIST_HEAD(, gm_host_pmap) pmaps; /* (lock) */
};

/* One mapping of the staging arena. */
struct gm_host_piece {
	uint64_t va;
	unsigned slots, used;
	uint64_t taken[GM_HOST_PIECE_SLOTS / 64];
	uint64_t tabled[GM_HOST_PIECE_SLOTS / 64]; /* may have a page table: small pages were moved in */
};

/* First in, first out; never overwrites. */
struct gm_host_queue {
	struct gm_host_msg *msgs;
	unsigned size, head, count;
};

struct gm_host_pmap {
	struct gm_env *env; /* (c) */
	struct gm_host_dev *dev; /* (c) */
	LIST_ENTRY(gm_host_pmap) in_dev; /* under its lock */
	int fd_app;          /* (c) */
	int fd_kick;         /* (c) eventfd */
	int fd_poll;         /* (c) epoll over fd_kick and, once it was asked for, fd_app */
	int fd_pagemap;      /* (c) */
	bool knows_malloc;   /* (c) what malloc() gives is recognised (gm_host_kind.c) */
	atomic_bool lost;    /* (a) a descriptor was closed behind our back; for ever */
	atomic_uint unread;  /* (a) events taken from the kernel and not handed out, +1 while reading */

	struct gm_mutex lock;
	struct gm_host_piece piece[GM_HOST_PIECES]; /* (l) */
	atomic_uint pieces;                         /* (l), read without it: they stay what they are */

	uint64_t bounce; /* (c) per index 2 MiB of small pages, then 2 MiB of one huge page */

	struct gm_host_queue events, faults; /* (r) */
	struct gm_host_msg event_msgs[GM_HOST_EVENTS];
	struct gm_host_msg fault_msgs[GM_HOST_FAULTS];

	LIST_ENTRY(gm_host_pmap) link;   /* (f) */
	bool listed, frozen;             /* (f) */
	gm_ret_t (*freeze)(void *arg);   /* (f) */
	void (*thaw)(void *arg);         /* (f) */
	void *fork_arg;                  /* (f) */
};

/* What the process has mapped, as /proc tells it. */
struct gm_host_area {
	uint64_t begin, end;
	bool readable, writable, shared, file;
	char name[64]; /* "", "[heap]", a path (cut) */
};

/* gm_host_open.c */

/*
 * Can this process on this kernel run the library? Features not in `allow` are
 * taken as missing (tests). SUCCESS, NOTSUP, PERM, NOMEM (no descriptors).
 */
gm_ret_t gm_host_probe(uint64_t allow);
/* A userfaultfd with `features` on. As gm_host_probe(). */
gm_ret_t gm_host_open(uint64_t features, int *fd);
/* The process's pagemap, for gm_pagemap_scan(). As gm_host_probe(). */
gm_ret_t gm_host_open_pagemap(int *fd);
/* The verdict and its message when neither the system call (`sys`) nor the device (`dev`) gave a
 * userfaultfd; errnos. `seccomp`: a filter is installed. */
gm_ret_t gm_host_refusal(int sys, int dev, bool seccomp);
/* Move a descriptor out of the low numbers, where programs expect their own. */
int gm_host_fd_high(int fd);

/* gm_host_vma.c */

/* Address space: private, anonymous, read-write, not inherited, not locked; 2 MiB aligned if that large.
 * 0 when there is none. */
uint64_t gm_host_reserve(uint64_t bytes);
/* The first mapping that ends above va. Both SUCCESS or FAULT (none); _maps reads text (old kernels). */
gm_ret_t gm_host_area(uint64_t va, struct gm_host_area *area);
gm_ret_t gm_host_area_maps(uint64_t va, struct gm_host_area *area);
/* The same as gm_host_area() without the name, by a descriptor of /proc/self/maps that may be closed, or another file's. */
gm_ret_t gm_host_area_by(int fd, uint64_t va, struct gm_host_area *area);
/* Is the mapping that contains va locked? */
bool gm_host_is_locked(uint64_t va);
/* Content of the 2 MiB at va: `some` pages have any, `zero` of them only the shared zero page. SUCCESS, NODEV. */
gm_ret_t gm_host_content(struct gm_host_pmap *p, uint64_t va, struct gm_mask *some, struct gm_mask *zero, bool *huge);
/* Has the page at va content? 1, 0 or a negative errno. */
int gm_host_has_content(struct gm_host_pmap *p, uint64_t va);
/* Is it a guard page (MADV_GUARD_INSTALL)? Never before Linux 6.15, which does not say. */
bool gm_host_is_guard(struct gm_host_pmap *p, uint64_t va);

gm_ret_t gm_host_mem_map(void *pmap, uint64_t bytes, bool huge, uint64_t *va);
void gm_host_mem_unmap(void *pmap, uint64_t va, uint64_t bytes);
void gm_host_mem_inherit(void *pmap, uint64_t va, uint64_t bytes, bool inherit);
gm_ret_t gm_host_mem_rights(void *pmap, uint64_t va, struct gm_host_vma *vma);
gm_ret_t gm_host_mem_probe(void *pmap, uint64_t va, struct gm_host_vma *vma);
bool gm_host_mem_huge(void *pmap, uint64_t va);
gm_ret_t gm_host_mem_present(void *pmap, uint64_t va, struct gm_mask *present);

/* gm_host_kind.c */

gm_ret_t gm_host_mem_kind(void *pmap, uint64_t va, struct gm_host_vma *vma);
/* In a thread of the program that may call malloc(). */
bool gm_host_knows_malloc(void);

/* gm_host_bus.c */

void gm_host_bus_init(struct gm_host_dev *d);
void gm_host_bus_fini(struct gm_host_dev *d);
gm_ret_t gm_host_bus_access(void *dev, uint64_t va, void *buf, size_t bytes, bool write);
gm_ret_t gm_host_bus_touch(void *dev, uint64_t va);

/* gm_host_slot.c */

/* Is va staging or a bounce buffer? Any thread, for as long as the pmap is there. */
bool gm_host_slots_have(struct gm_host_pmap *p, uint64_t va);
gm_ret_t gm_host_slots_init(struct gm_host_pmap *p);
void gm_host_slots_fini(struct gm_host_pmap *p);
gm_ret_t gm_host_slot_alloc(void *pmap, uint64_t *slot);
void gm_host_slot_free(void *pmap, uint64_t slot);
void gm_host_slot_drop(void *pmap, uint64_t addr, uint64_t bytes);
bool gm_host_slot_is_tabled(struct gm_host_pmap *p, uint64_t slot);
void gm_host_slot_set_tabled(struct gm_host_pmap *p, uint64_t slot, bool tabled);
void *gm_host_bounce(void *pmap, unsigned index, uint64_t bytes);

/* gm_host_move.c */

gm_ret_t gm_host_watch(void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_host_unwatch(void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_host_steal(void *pmap, uint64_t va, const struct gm_mask *want, uint64_t slot, struct gm_host_steal *out);
gm_ret_t gm_host_restore(void *pmap, uint64_t va, uint64_t addr, uint64_t bytes, uint64_t *done);
gm_ret_t gm_host_fill(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done);
gm_ret_t gm_host_zero(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done);
gm_ret_t gm_host_poison(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done);
gm_ret_t gm_host_unmark(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done);
gm_ret_t gm_host_wake(void *pmap, uint64_t va, uint64_t bytes);
/* A store to the word at va that changes nothing and never waits: false, it would fail. */
bool gm_host_touch(uint64_t va);

/* gm_host_msg.c */

gm_ret_t gm_host_msg_init(struct gm_host_pmap *p);
void gm_host_msg_fini(struct gm_host_pmap *p);
size_t gm_host_msg_read(void *pmap, struct gm_host_msg *msgs, size_t n);
gm_ret_t gm_host_msg_wait(void *pmap, uint64_t deadline_ns);
void gm_host_msg_kick(void *pmap);
gm_ret_t gm_host_settled(void *pmap);
int gm_host_msg_fd(void *pmap);

/* gm_host_fork.c */

void gm_host_at_fork(void *pmap, gm_ret_t (*freeze)(void *arg), void (*thaw)(void *arg), void *arg);
void gm_host_fork_forget(struct gm_host_pmap *p);

/* gm_host.c */

/* A descriptor of ours is gone. Logs once; returns NODEV. */
gm_ret_t gm_host_lost(struct gm_host_pmap *p);

#endif
