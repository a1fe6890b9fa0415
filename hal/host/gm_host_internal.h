/* SPDX-License-Identifier: MIT */
/*
 * The real host, inside. One pmap is one address space's view of the process:
 *
 *     fd_app   userfaultfd of the application's ranges and of the staging arena
 *              (lower rungs of the ladder: of the ranges only, or none: gm_host_rung.c;
 *              shared memory has one of its own, without events: gm_host_shared.c; so have ranges whose faults
 *              their own threads serve: gm_host_inthread.c)
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
 * msg_wait(). Nothing allocates after pmap_create(), but bus_bring() and the making of shared memory.
 */
#ifndef GM_HAL_HOST_INTERNAL_H
#define GM_HAL_HOST_INTERNAL_H

#include <bsd/sys/queue.h>
#include <stdatomic.h>

#include "hal/gm_env.h"
#include "hal/gm_host.h"
#include "hal/host/gm_host_fd.h"
#include "hal/host/gm_host_inthread.h"
#include "hal/host/gm_host_shared.h"
#include "hal/host/gm_host_uffd.h"

#if defined(__x86_64__)
#define GM_HOST_VA_BITS 47
#else
#define GM_HOST_VA_BITS 48
#endif
#define GM_HOST_VA_END (UINT64_C(1) << GM_HOST_VA_BITS)
#define GM_HOST_PIECES 64       /* mappings of the staging arena */
#define GM_HOST_PIECE_SLOTS 512 /* slots in one: 1 GiB of address space */
#define GM_HOST_PIECE_OPENS 8 /* slots opened at once */
#define GM_HOST_BOUNCES 4
#define GM_HOST_EVENTS 256 /* messages kept between two msg_read() */
#define GM_HOST_FAULTS 512

/* What the library asks of userfaultfd; all of it is in Linux 6.8. */
#define GM_HOST_FEATURES_APP                                                                                    \
	(GM_UFFD_FEATURE_EVENT_REMAP | GM_UFFD_FEATURE_EVENT_REMOVE | GM_UFFD_FEATURE_EVENT_UNMAP |             \
	 GM_UFFD_FEATURE_THREAD_ID | GM_UFFD_FEATURE_POISON | GM_UFFD_FEATURE_MOVE)

/* ... and where the kernel has it. */
#define GM_HOST_FEATURES_PROTECT GM_UFFD_FEATURE_WP
/* For shared memory: no events. Linux 5.14, and 6.6 for the marks. */
#define GM_HOST_FEATURES_SHARED                                                                                 \
	(GM_UFFD_FEATURE_MISSING_SHMEM | GM_UFFD_FEATURE_MINOR_SHMEM | GM_UFFD_FEATURE_THREAD_ID | GM_UFFD_FEATURE_POISON)

/* The same on a rung without them. */
#define GM_HOST_FEATURES_NO_MOVE (GM_HOST_FEATURES_APP & ~(GM_UFFD_FEATURE_POISON | GM_UFFD_FEATURE_MOVE))

/* Ways to a userfaultfd. */
#define GM_HOST_DOOR_CALL 1u   /* the system call */
#define GM_HOST_DOOR_DEVICE 2u /* /dev/userfaultfd */
#define GM_HOST_DOOR_USER 4u   /* the system call, for accesses of user mode only */

struct gm_host_way {
	uint32_t doors;    /* which to try, in this order */
	uint64_t features; /* 0: no userfaultfd at all */
};

struct gm_host_closed; /* gm_host_closed.c */
struct gm_host_pump;   /* gm_host_pump.c */

struct gm_host_dev {
	struct gm_env *env;
	struct gm_host_way way;        /* (c) */
	struct gm_host_closed *closed; /* (c) pages that are inaccessible on purpose; NULL on rungs that need none */
	struct gm_host_fd mem, maps, smaps, status, task; /* of /proc/self */
	struct gm_mutex text; /* whose turn it is to read the text of maps, smaps, status or task: they have one position each */
	struct gm_mutex lock;
	LIST_HEAD(, gm_host_pmap) pmaps; /* (lock) */
};

/* One mapping of the staging arena. */
struct gm_host_piece {
	uint64_t va;
	unsigned slots, used, open; /* open: the first so many may be read and written */
	uint64_t taken[GM_HOST_PIECE_SLOTS / 64];
	uint64_t tabled[GM_HOST_PIECE_SLOTS / 64]; /* may have a page table: small pages were moved in */
	uint64_t inthread[GM_HOST_PIECE_SLOTS / 64]; /* registered with inthread.fd */
};

/* First in, first out; never overwrites. */
struct gm_host_queue {
	struct gm_host_msg *msgs;
	unsigned size, head, count;
};

/* The keeper; see gm_host_keep.c. */
struct gm_host_keep {
	struct gm_mutex lock;
	struct gm_waitq waitq;
	struct gm_thread *thread; /* (c) NULL: none */
	int app, kick;            /* (c) their numbers there */
	int tid;                  /* (c) once ready */
	bool own;                 /* (c) once ready: it has a table of its own */
	bool ready, stop, told;   /* under `lock` */
	int shared, inthread;     /* under `lock`: those that came later, there; -1: none */
	int wish, wish_tid;       /* under `lock`: whose descriptor to copy; -1: none */
	int *wish_for;            /* under `lock`: which of those it is to be */
	struct gm_host_fd pagemap; /* the keeper's alone: a number there */
	struct gm_host_look *look; /* under `lock`: what it is to look at; NULL: nothing */
};

struct gm_host_pmap {
	struct gm_env *env; /* (c) */
	struct gm_host_fd pagemap;
	atomic_int fd_app;   /* (a) another number after gm_host_revive() */
	atomic_int fd_kick;  /* (a) eventfd; ditto */
	int fd_poll;         /* (r) epoll over fd_kick and, once it was asked for, fd_app; the others as they come. Another
			      * one after gm_host_reopen() */
	bool protects;       /* (c) pages of fd_app can be protected */
	bool knows_malloc;   /* (c) what malloc() gives is recognised (gm_host_kind.c) */
	atomic_bool lost;    /* (a) a descriptor was closed behind our back, and nobody kept it; until gm_host_reopen() */
	bool plain_arena;    /* (c) staging is not registered with fd_app */
	bool by_entries;     /* (c) the pagemap has no PAGEMAP_SCAN: its entries are read */
	struct gm_host_pump *pump; /* (c) rungs that have one */
	struct gm_host_keep keep;
	struct gm_host_inthread inthread;
	struct gm_host_dev *dev; /* (c) */
	LIST_ENTRY(gm_host_pmap) in_dev; /* under its lock */
	atomic_uint unread;  /* (a) events taken from the kernel and not handed out, +1 while reading */

	struct gm_mutex lock;
	struct gm_host_piece piece[GM_HOST_PIECES]; /* (l) */
	atomic_uint pieces;                         /* (l), read without it: they stay what they are */

	struct gm_host_shared shared;

	uint64_t bounce; /* (c) per index 2 MiB of small pages, then 2 MiB of one huge page */

	struct gm_host_queue events, faults; /* (r) */
	uint64_t ours_ns;                    /* (r) when fd_app was last seen to be ours */
	struct gm_host_msg event_msgs[GM_HOST_EVENTS];
	struct gm_host_msg fault_msgs[GM_HOST_FAULTS];

	LIST_ENTRY(gm_host_pmap) link;   /* (f) */
	bool listed, frozen;             /* (f) */
	bool serves;                     /* (c) serve_forks() was called */
	bool failed;                     /* (f) the child of this fork lacks bytes */
	gm_ret_t (*freeze)(void *arg);   /* (f) */
	void (*thaw)(void *arg);         /* (f) */
	void *fork_arg;                  /* (f) */
};

/* What the process has mapped, as /proc tells it. */
struct gm_host_area {
	uint64_t begin, end;
	uint64_t inode;  /* 0: no file */
	bool readable, writable, shared, file;
	char name[64]; /* "", "[heap]", a path (cut) */
};

/* gm_host_open.c */

/*
 * Can this process on this kernel run the library? Features not in `allow` are
 * taken as missing (tests). SUCCESS, NOTSUP, PERM, NOMEM (no descriptors).
 */
gm_ret_t gm_host_probe(uint64_t allow);
/* A userfaultfd with way->features on. As gm_host_probe(). */
gm_ret_t gm_host_open(const struct gm_host_way *way, int *fd);
/* What the kernel has behind these doors, and which of them opened. As gm_host_probe(). */
gm_ret_t gm_host_look(uint32_t doors, uint64_t *features, uint32_t *door);
/* Name of the first of `need` that is not in `have`; NULL: none. */
const char *gm_host_first_missing(uint64_t have, uint64_t need);
/* Does the pagemap know PAGEMAP_SCAN? As gm_host_open_pagemap(). */
gm_ret_t gm_host_scans(bool *works);
/* The process's pagemap, for gm_pagemap_scan(). As gm_host_probe(). Failure: nothing to close. */
gm_ret_t gm_host_open_pagemap(struct gm_host_fd *f);
/* The verdict and its message when neither the system call (`sys`) nor the device (`dev`) gave a
 * userfaultfd; errnos. `seccomp`: a filter is installed. */
gm_ret_t gm_host_refusal(int sys, int dev, bool seccomp);
/* Move a descriptor out of the low numbers, where programs expect their own. */
int gm_host_fd_high(int fd);

/* gm_host_rung.c: gm_host_choose() where features not in `allow` are missing, and PAGEMAP_SCAN without MOVE (tests). */
gm_ret_t gm_host_choose_with(enum gm_rung lowest, enum gm_rung highest, uint64_t allow, struct gm_rung_info *info,
			     const struct gm_mmu **mmu);

/* gm_host_vma.c. NOMEM: it cannot be told now (gm_host.h). */

/* Is the mapping at va one of those that can be managed (private, anonymous, not the kernel's own)? */
bool gm_host_is_anon(const struct gm_host_area *area);
/* Is memory locked there (mlock)? SUCCESS, NOMEM. */
gm_ret_t gm_host_is_locked(struct gm_host_dev *d, uint64_t va, bool *locked);

/* Address space: private, anonymous, read-write, not inherited, not locked; 2 MiB aligned if that large.
 * 0 when there is none. */
uint64_t gm_host_reserve(uint64_t bytes);
/* The same, without rights yet. */
uint64_t gm_host_reserve_closed(uint64_t bytes);
/* The first mapping that ends above va. SUCCESS, FAULT (none), NOMEM; _maps reads text (old kernels). */
gm_ret_t gm_host_area(struct gm_host_dev *d, uint64_t va, struct gm_host_area *area);
gm_ret_t gm_host_area_maps(struct gm_host_dev *d, uint64_t va, struct gm_host_area *area);
/* The same as gm_host_area() without the name, and who answers is looked at only if the answer is an error. */
gm_ret_t gm_host_area_quick(struct gm_host_dev *d, uint64_t va, struct gm_host_area *area);
/* Is all of it mapped? SUCCESS, FAULT, NOMEM. */
gm_ret_t gm_host_is_mapped(struct gm_host_dev *d, uint64_t va, uint64_t end);
/* mprotect(), as mem_protect(), of what is mapped. SUCCESS, NOMEM, PERM. */
gm_ret_t gm_host_set_rights(uint64_t va, uint64_t bytes, uint32_t access);
/* Content of the 2 MiB at va: `some` pages have any, `zero` of them only the shared zero page. SUCCESS, NOMEM. */
gm_ret_t gm_host_content(struct gm_host_pmap *p, uint64_t va, struct gm_mask *some, struct gm_mask *zero, bool *huge);
/* The same by a pagemap opened elsewhere: of the keeper's. */
gm_ret_t gm_host_content_by(struct gm_host_pmap *p, struct gm_host_fd *f, uint64_t va, struct gm_mask *some,
			    struct gm_mask *zero, bool *huge);
/* Has the page at va content? 1, 0, or -ENOMEM: it cannot be told now. */
int gm_host_has_content(struct gm_host_pmap *p, uint64_t va);
/* Has it a page, not only a mark? On the rung with PAGEMAP_SCAN. As gm_host_has_content(). */
int gm_host_is_present(struct gm_host_pmap *p, uint64_t va);
/* Which pages of the 2 MiB at va are guard pages; none where the kernel does not say. SUCCESS, NOMEM. */
gm_ret_t gm_host_guards(struct gm_host_pmap *p, uint64_t va, struct gm_mask *guards);
/* Is it a guard page (MADV_GUARD_INSTALL)? Never before Linux 6.15, which does not say. As gm_host_has_content(). */
int gm_host_is_guard(struct gm_host_pmap *p, uint64_t va);

gm_ret_t gm_host_mem_map(void *pmap, uint64_t bytes, bool huge, uint64_t *va);
void gm_host_mem_unmap(void *pmap, uint64_t va, uint64_t bytes);
void gm_host_mem_inherit(void *pmap, uint64_t va, uint64_t bytes, bool inherit);
gm_ret_t gm_host_mem_protect(void *pmap, uint64_t va, uint64_t bytes, uint32_t access);
gm_ret_t gm_host_mem_rights(void *pmap, uint64_t va, struct gm_host_vma *vma);
gm_ret_t gm_host_mem_probe(void *pmap, uint64_t va, struct gm_host_vma *vma);
bool gm_host_mem_huge(void *pmap, uint64_t va);
gm_ret_t gm_host_mem_content(void *pmap, uint64_t va, struct gm_host_content *out);
gm_ret_t gm_host_mem_present(void *pmap, uint64_t va, struct gm_mask *present);

/* gm_host_kind.c */

gm_ret_t gm_host_mem_kind(void *pmap, uint64_t va, struct gm_host_vma *vma);
/* In a thread of the program that may call malloc(). */
bool gm_host_knows_malloc(struct gm_host_dev *d);

/* gm_host_bus.c */

void gm_host_bus_init(struct gm_host_dev *d);
void gm_host_bus_fini(struct gm_host_dev *d);
gm_ret_t gm_host_bus_access(void *dev, uint64_t va, void *buf, size_t bytes, bool write);
gm_ret_t gm_host_bus_touch(void *dev, uint64_t va);

/* gm_host_bring.c */

gm_ret_t gm_host_bus_bring(void *dev, uint64_t va, bool write, uint64_t deadline_ns);

/* gm_host_slot.c */

/* Is va staging or a bounce buffer? Any thread, for as long as the pmap is there. */
bool gm_host_slots_have(struct gm_host_pmap *p, uint64_t va);
gm_ret_t gm_host_slots_init(struct gm_host_pmap *p);
void gm_host_slots_fini(struct gm_host_pmap *p);
/* No slot is registered with inthread.fd, which is another one now. */
void gm_host_slots_plain(struct gm_host_pmap *p);
/* The arena is watched with `fd`. False: not all of it can be. */
bool gm_host_slots_watch(struct gm_host_pmap *p, int fd);
gm_ret_t gm_host_slot_alloc(void *pmap, uint64_t *slot);
/* Pages can be taken into it by the descriptor that inthread.fd is, or the other. 0 or a negative errno. */
int gm_host_slot_register(struct gm_host_pmap *p, uint64_t slot, bool inthread);
/* By which? */
bool gm_host_slot_is_inthread(struct gm_host_pmap *p, uint64_t slot);
void gm_host_slot_free(void *pmap, uint64_t slot);
/* The same where a steal leaves the slot in several mappings: it is one again. */
void gm_host_slot_renew(void *pmap, uint64_t slot);
void gm_host_slot_drop(void *pmap, uint64_t addr, uint64_t bytes);
bool gm_host_slot_is_tabled(struct gm_host_pmap *p, uint64_t slot);
void gm_host_slot_set_tabled(struct gm_host_pmap *p, uint64_t slot, bool tabled);
void *gm_host_bounce(void *pmap, unsigned index, uint64_t bytes);

/* Is there, or was there ever, memory whose faults its own threads serve? */
static inline bool gm_host_has_inthread(const struct gm_host_pmap *p)
{
	return atomic_load_explicit(&p->inthread.fd, memory_order_acquire) >= 0;
}

/* The descriptor with which [va, va + *bytes) is, or would be, registered; as much of it as has the same. */
static inline int gm_host_fd_at(struct gm_host_pmap *p, uint64_t va, uint64_t *bytes)
{
	return atomic_load_explicit(&p->inthread.n, memory_order_acquire) ? gm_host_inthread_fd(p, va, bytes) : p->fd_app;
}

/* gm_host_move.c */

gm_ret_t gm_host_watch(void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_host_watch_stores(void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_host_unwatch(void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_host_steal(void *pmap, uint64_t va, const struct gm_mask *want, uint64_t slot, struct gm_host_steal *out);
/* After pages out->moved came to the slot: out->hole, out->huge. SUCCESS, NOMEM (it cannot be told now). */
gm_ret_t gm_host_find_holes(struct gm_host_pmap *p, uint64_t slot, struct gm_host_steal *out);
/* What an errno of userfaultfd means to the caller of a host. */
gm_ret_t gm_host_uffd_ret(struct gm_host_pmap *p, int64_t err);
gm_ret_t gm_host_restore(void *pmap, uint64_t va, uint64_t addr, uint64_t bytes, uint64_t *done);
gm_ret_t gm_host_fill(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done);
gm_ret_t gm_host_fill_protected(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done);
gm_ret_t gm_host_unprotect(void *pmap, uint64_t va, uint64_t bytes);
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
/* A new descriptor to poll, if the old one is closed. */
void gm_host_msg_repoll(struct gm_host_pmap *p);
/* An event as core wants it; false: it is none (a fault, or unknown). */
bool gm_host_event(const struct gm_uffd_msg *u, struct gm_host_msg *m);

/* As gm_host_msg_wait(); without `looks` what is kept in the queues is not looked at, as others read too. */
gm_ret_t gm_host_msg_sleep(struct gm_host_pmap *p, uint64_t deadline_ns, bool looks);
/* For who reads beside the reader, one message. SUCCESS, TIMEDOUT (there is none, or no room), or as gm_host_lost(). */
gm_ret_t gm_host_msg_pull(struct gm_host_pmap *p);
/* Events first, then faults, from what is kept; *left: there is more. */
size_t gm_host_msg_take(struct gm_host_pmap *p, struct gm_host_msg *msgs, size_t n, bool *left);
/* An event that the kernel does not tell. */
void gm_host_msg_keep(struct gm_host_pmap *p, struct gm_host_msg m);

/* gm_host_fork.c */

void gm_host_at_fork(void *pmap, gm_ret_t (*freeze)(void *arg), void (*thaw)(void *arg), void *arg);
void gm_host_fork_forget(struct gm_host_pmap *p);
/* Children of fork() wait for thaw from now on. SUCCESS, NOMEM. */
gm_ret_t gm_host_fork_gate(void);
void gm_host_child_fail(void *pmap);

/* gm_host_child.c */

gm_ret_t gm_host_serve_forks(void *pmap);
gm_ret_t gm_host_child_fill(void *pmap, int child, uint64_t va, const void *src, uint64_t bytes, uint64_t *done);
size_t gm_host_child_read(void *pmap, int child, struct gm_host_msg *msgs, size_t n);
void gm_host_child_close(void *pmap, int child);

/* gm_host_keep.c */

gm_ret_t gm_host_keep(void *pmap);
gm_ret_t gm_host_reopen(void *pmap);
void gm_host_keep_init(struct gm_host_pmap *p);
void gm_host_keep_fini(struct gm_host_pmap *p);
/* gm_host_content(), asked of the keeper where that cannot be told. SUCCESS; NOMEM: it cannot be told by the keeper either, or
 * there is none. Takes a lock, waits for the keeper: a few system calls. */
gm_ret_t gm_host_content_surely(struct gm_host_pmap *p, uint64_t va, struct gm_mask *some, struct gm_mask *zero, bool *huge);
/* The descriptors are (again) what they should be. False: they are lost. Takes a lock; logs. */
bool gm_host_revive(struct gm_host_pmap *p);
/* Under this number a pmap knows its userfaultfd: no other may come there, even if the program closed it. */
void gm_host_number_take(int fd);
void gm_host_number_give(int fd);
bool gm_host_number_taken(int fd);
/* fd_app is this one from now on. */
void gm_host_set_app(struct gm_host_pmap *p, int fd);
/* `fd` becomes *which, one of those that came later (*kept is its number with the keeper), unless there is one: polled and
 * kept like the others. Waits for the keeper. SUCCESS, NOMEM. */
gm_ret_t gm_host_add_late(struct gm_host_pmap *p, int fd, atomic_int *which, int *kept, const char *what);
/* A late one has another number from now on. */
void gm_host_set_late(atomic_int *which, int fd);
/* A call failed because the descriptor was closed, and it is open again: do it once more. */
bool gm_host_again(struct gm_host_pmap *p, int64_t err);
/* Is fd_app our file? True on a rung that has none. */
bool gm_host_owns_app(const struct gm_host_pmap *p);
/* The same of shared.fd and inthread.fd, true if there is none; and of them all. */
bool gm_host_owns_shared(const struct gm_host_pmap *p);
bool gm_host_owns_inthread(const struct gm_host_pmap *p);
bool gm_host_owns_all(const struct gm_host_pmap *p);
/* fd_kick, looked at; -1: lost. */
int gm_host_kick_fd(struct gm_host_pmap *p);
/* Does the descriptor lead to something with this in its name? */
bool gm_host_fd_is(int fd, const char *what);
/* Close all of a pmap that is ours still, not what others have under these numbers. */
void gm_host_close_ours(struct gm_host_pmap *p);

/* gm_host_closed.c */

struct gm_host_closed *gm_host_closed_new(struct gm_env *env);
void gm_host_closed_free(struct gm_host_closed *c);
/* Remember, forget; NOMEM: no room to remember. */
gm_ret_t gm_host_closed_add(struct gm_host_closed *c, uint64_t va, uint64_t bytes);
void gm_host_closed_del(struct gm_host_closed *c, uint64_t va, uint64_t bytes);
/* From va on, at most to va + bytes: how many bytes are all closed (*yes), or all not. */
uint64_t gm_host_closed_run(struct gm_host_closed *c, uint64_t va, uint64_t bytes, bool *yes);
/* Which of the 2 MiB at `block`. */
struct gm_mask gm_host_closed_mask(struct gm_host_closed *c, uint64_t block);
/* Accesses fail from now on; and they work again. SUCCESS, NOMEM, FAULT (not mapped). */
gm_ret_t gm_host_close_pages(struct gm_host_closed *c, uint64_t va, uint64_t bytes);
gm_ret_t gm_host_open_pages(struct gm_host_closed *c, uint64_t va, uint64_t bytes);
/* What hosts that close pages say of memory: these are as if they were not, but marked. Over the bus they are FAULT,
 * as the process has no right there. */
gm_ret_t gm_host_closed_rights(void *pmap, uint64_t va, struct gm_host_vma *vma);
gm_ret_t gm_host_closed_probe(void *pmap, uint64_t va, struct gm_host_vma *vma);
gm_ret_t gm_host_closed_present(void *pmap, uint64_t va, struct gm_mask *present);
gm_ret_t gm_host_closed_content(void *pmap, uint64_t va, struct gm_host_content *out);
/* As mem_protect(); NOTSUP: pages of it are closed. */
gm_ret_t gm_host_closed_protect(void *pmap, uint64_t va, uint64_t bytes, uint32_t access);
void gm_host_closed_unmap(void *pmap, uint64_t va, uint64_t bytes);

/* gm_host_pump.c */

gm_ret_t gm_host_pump_init(struct gm_host_pmap *p, bool reads);
void gm_host_pump_fini(struct gm_host_pmap *p);
/* From here to _end no other thread takes pages; an event that the taking raises for the library itself, as
 * pages come to `to`, is read by the pump. SUCCESS, AGAIN (events are unread), or as gm_host_lost(). */
gm_ret_t gm_host_pump_begin(struct gm_host_pmap *p, uint64_t to, uint64_t bytes);
/* After mremap(): the event was raised, so what was taken was watched. */
bool gm_host_pump_told(struct gm_host_pmap *p);
void gm_host_pump_end(struct gm_host_pmap *p);
/* Is this REMAP the library's own? */
bool gm_host_pump_own(struct gm_host_pmap *p, uint64_t to);
/* Between these two no message is read. False (and not locked): an event is kept that nobody has seen yet. */
bool gm_host_pump_still(struct gm_host_pmap *p);
void gm_host_pump_go_on(struct gm_host_pmap *p);
size_t gm_host_pump_read(void *pmap, struct gm_host_msg *msgs, size_t n);
gm_ret_t gm_host_pump_wait(void *pmap, uint64_t deadline_ns);
/* An event the kernel does not tell, for the reader. */
void gm_host_pump_post(struct gm_host_pmap *p, struct gm_host_msg m);
size_t gm_host_pump_posted(void *pmap, struct gm_host_msg *msgs, size_t n);

/* gm_host_nomove.c, gm_host_explicit.c */

extern const struct gm_host_ops gm_host_ops_full, gm_host_ops_nomove, gm_host_ops_explicit;
gm_ret_t gm_host_nomove_create(void *dev, void **pmap);
gm_ret_t gm_host_explicit_create(void *dev, void **pmap);
void gm_host_pumped_destroy(void *pmap);
/* What the rungs without MOVE have not. */
gm_ret_t gm_host_no_kind(void *pmap, uint64_t va, struct gm_host_vma *vma);
gm_ret_t gm_host_no_protected(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done);
gm_ret_t gm_host_no_unprotect(void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_host_no_forks(void *pmap);

/* gm_host.c */

/* The parts of which the tables of all rungs are made. */
gm_ret_t gm_host_dev_open(struct gm_env *env, const struct gm_host_way *way, struct gm_dev_caps *caps, void **dev);
void gm_host_dev_fini(void *dev);
gm_ret_t gm_host_pmap_create(void *dev, void **pmap);
void gm_host_pmap_destroy(void *pmap);
gm_ret_t gm_host_access(void *pmap, uint64_t va, void *buf, size_t bytes, bool write);

/* A descriptor for fd_app, by the way of the rung: with the features it needs, those it can do without where the
 * kernel has them, and `more`. *protects: pages of it can be protected. As gm_host_open(). */
gm_ret_t gm_host_open_app(const struct gm_host_pmap *p, uint64_t more, int *fd, bool *protects);
/* A descriptor of ours is gone. AGAIN: and is back. Else logs once; NODEV. */
gm_ret_t gm_host_lost(struct gm_host_pmap *p);

#endif
