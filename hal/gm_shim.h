/* SPDX-License-Identifier: MIT */
/*
 * The validation shim, inside. What each file does:
 *
 *   gm_shim.c         life of device and page tables; the table
 *   gm_shim_op.c      around every operation: what is in flight, results, bounds
 *   gm_shim_map.c     operations on mappings          gm_shim_misc.c  all other operations
 *   gm_shim_shadow.c  what is mapped where            gm_shim_frame.c who uses which memory
 *   gm_shim_probe.c   looks through the device's own translation
 *   gm_shim_copy.c    copies                          gm_shim_plan.c  plans
 *   gm_shim_fence.c   fences                          gm_shim_svc.c   services
 *   gm_shim_report.c  history and reports
 *
 * Locks: the shim must not take a lock of the services where the backend may hold one, and is called in places that
 * may not block (fault_next, cpu_ptr, tlb_invl). So it has one spin flag per device, (S), held for short loops over memory,
 * never across a service that could switch, an operation of the backend, or a report. Memory is allocated before.
 *
 * Blind: when the shim gets no memory for its books, calls go through as before and nothing is judged by the books
 * any more. But what cannot be passed on without a record fails as it may when the backend has no memory: dev_init(),
 * pmap_create(), copy(), submit() and sync_import() say NOMEM, the services alloc() and fence_create() NULL.
 */
#ifndef GM_HAL_SHIM_H
#define GM_HAL_SHIM_H

#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include <gmem/validate.h>

#include "hal/gm_handle.h"

#define GM_SHIM_DEAD_PMAPS 64u /* destroyed page tables that are remembered */
#define GM_SHIM_DONE_FENCES 64u
#define GM_SHIM_EVENTS 2048u
#define GM_SHIM_SHOWN 8u       /* events in a report */
#define GM_SHIM_REPORTS 100u   /* of one rule */
#define GM_SHIM_BOUND_NS UINT64_C(10000000000)
/* A service called so near below an operation on the stack is called by that operation: stacks are larger. */
#define GM_SHIM_STACK_BYTES ((uintptr_t)48 << 10)

/* ---------------------------------------------------------------- the shadow */

/* A page: address and these. */
#define GM_SHIM_M UINT64_C(1)         /* mapped */
#define GM_SHIM_W UINT64_C(2)         /* writable */
#define GM_SHIM_A UINT64_C(4)         /* atomic */
#define GM_SHIM_H UINT64_C(8)         /* host memory */
#define GM_SHIM_UNSURE UINT64_C(16)   /* an operation failed half-way: not known; with H: perhaps host memory */
#define GM_SHIM_EVER UINT64_C(32)     /* was mapped since the last harvest */
#define GM_SHIM_DIRTY UINT64_C(64)    /* the caller stored to it through access() */
#define GM_SHIM_TOUCHED UINT64_C(128) /* ... or loaded from it */
#define GM_SHIM_PROBED UINT64_C(256)  /* the shim loaded from it */
#define GM_SHIM_NEW UINT64_C(512)     /* an enter that has not returned maps it */
#define GM_SHIM_NEW_W UINT64_C(1024)  /* ... gives it write */
#define GM_SHIM_NEW_A UINT64_C(2048)  /* ... and atomic */
#define GM_SHIM_FLAGS UINT64_C(4095)
#define GM_SHIM_RIGHTS (GM_SHIM_W | GM_SHIM_A)
#define GM_SHIM_USES (GM_SHIM_EVER | GM_SHIM_DIRTY | GM_SHIM_TOUCHED | GM_SHIM_PROBED)

struct gm_shim_page {
	uint64_t cur; /* what the page table has */
	uint64_t old; /* what TLBs may have besides, until tlb_invl(); 0: nothing */
};

struct gm_shim_chunk {
	RB_ENTRY(gm_shim_chunk) link;
	SLIST_ENTRY(gm_shim_chunk) dropped;
	uint64_t va;
	struct gm_shim_page page[]; /* GM_BLOCK_PAGES; a key has none */
};

#define GM_SHIM_CHUNK_BYTES (sizeof(struct gm_shim_chunk) + GM_BLOCK_PAGES * sizeof(struct gm_shim_page))

RB_HEAD(gm_shim_chunks, gm_shim_chunk);

/* A page of device memory, or of host memory that is mapped in place. */
struct gm_shim_frame {
	uint16_t maps, writers;             /* translations that page tables have */
	uint16_t old_maps, old_writers;     /* that TLBs may have */
	bool used;                          /* belongs to somebody; see gm_shim_frames() */
	void *cpu;                          /* what cpu_ptr() said */
};

struct gm_shim_memory {
	RB_ENTRY(gm_shim_memory) link;
	SLIST_ENTRY(gm_shim_memory) dropped;
	uint64_t pa;
	struct gm_shim_frame frame[]; /* GM_BLOCK_PAGES; a key has none */
};

#define GM_SHIM_MEMORY_BYTES (sizeof(struct gm_shim_memory) + GM_BLOCK_PAGES * sizeof(struct gm_shim_frame))

RB_HEAD(gm_shim_memories, gm_shim_memory);

/* ------------------------------------------------------------- what there is */

struct gm_shim_dev;

struct gm_shim_pmap {
	struct gm_shim_dev *dev;
	void *pmap;                       /* the backend's */
	bool going, dead;                 /* (S) its destruction has begun; ended */
	uint64_t died;                    /* (S) gm_shim_dev.ops at its death */
	uint64_t harvests;                /* (S) begun, and ended */
	TAILQ_ENTRY(gm_shim_pmap) link;   /* (S) in pmaps or dead */
	struct gm_shim_chunks chunks;     /* (S) */
};

TAILQ_HEAD(gm_shim_pmaps, gm_shim_pmap);

enum gm_shim_op {
	GM_SHIM_OP_DEV_INIT, GM_SHIM_OP_DEV_FINI, GM_SHIM_OP_PMAP_CREATE, GM_SHIM_OP_PMAP_DESTROY,
	GM_SHIM_OP_PMAP_ENTER, GM_SHIM_OP_PMAP_REMOVE, GM_SHIM_OP_TLB_INVL, GM_SHIM_OP_COPY, GM_SHIM_OP_PMAP_PROTECT,
	GM_SHIM_OP_SUBMIT, GM_SHIM_OP_ACCESS, GM_SHIM_OP_FAULT_NEXT, GM_SHIM_OP_FAULT_DONE, GM_SHIM_OP_CPU_PTR,
	GM_SHIM_OP_HARVEST, GM_SHIM_OP_SYNC_CREATE, GM_SHIM_OP_SYNC_SIGNAL, GM_SHIM_OP_SYNC_IMPORT,
	GM_SHIM_OP_PEER_REACH, GM_SHIM_OPS,
};

/* Where something happens: what reports and history are made of. */
struct gm_shim_at {
	const char *op;
	uint32_t step; /* GM_STEP_FREE: none */
	struct gm_shim_pmap *pmap;
	uint64_t va, pa, bytes;
	uint32_t pte;
};

/* An operation in flight; lives on the stack of its wrapper. */
struct gm_shim_call {
	LIST_ENTRY(gm_shim_call) link; /* (S) */
	struct gm_shim_dev *dev;
	enum gm_shim_op op;
	struct gm_shim_at at;
	uint64_t start_ns, seq;
	uint64_t returned_ns; /* the backend's own return; 0: not known apart */
	uintptr_t stack;      /* what it calls lies below */
	pthread_t thread;
	bool was_lost; /* when it began */
	bool blocked;  /* reported */
	bool look;     /* an access of the shim's own, inside of another call */
};

struct gm_shim_event {
	struct gm_shim_at at;
	gm_ret_t ret;
	bool pending; /* it has no result yet */
	uint64_t ns;
};

/* Pages to look at after an invalidation, chosen before the books forget the old translations. */
struct gm_shim_gone {
	uint64_t va[3];
	unsigned n;
};

/* What a function under (S) found, to be reported without. */
struct gm_shim_found {
	enum gm_rule rule; /* GM_RULES: nothing */
	struct gm_shim_at at;
};

/* A step of a plan. */
struct gm_shim_step {
	struct gm_shim_gone gone;   /* what to look at */
	struct gm_shim_found found; /* not legal before every step in front of it is complete */
	bool hosts;                 /* it ends mappings of host memory */
};

enum gm_shim_fence_kind {
	GM_SHIM_FENCE_COPY,
	GM_SHIM_FENCE_PLAN,
	GM_SHIM_FENCE_IMPORT,
	GM_SHIM_FENCE_OWN, /* made by the backend with fence_create() */
};

struct gm_shim_fence {
	TAILQ_ENTRY(gm_shim_fence) link; /* (S) in fences, until signalled or failed */
	struct gm_fence *fence;
	enum gm_shim_fence_kind kind;
	bool done, failed, late;  /* (S) signalled; its operation failed; reported */
	bool sound;               /* COPY, PLAN: the caller kept its rules, so there is something to compare */
	bool blamed;              /* PLAN: but not all of them */
	uint64_t since_ns;
	struct gm_copy *copies;   /* COPY */
	struct gm_step *outer;    /* PLAN: the caller's steps */
	struct gm_step *inner;    /* ... and those the backend got */
	struct gm_shim_step *steps; /* PLAN: what is known of each */
	size_t n;
	unsigned refs;            /* (S) the list, its operation, its signal */
};

TAILQ_HEAD(gm_shim_fences, gm_shim_fence);

/* Memory, a lock, a queue, or a thread that the backend has; by address. */
struct gm_shim_thing {
	RB_ENTRY(gm_shim_thing) link;
	const void *key;
	enum { GM_SHIM_ALLOCATION, GM_SHIM_LOCK, GM_SHIM_QUEUE, GM_SHIM_THREAD } kind;
	size_t bytes;     /* ALLOCATION */
	bool held;        /* LOCK */
	pthread_t holder;
	LIST_ENTRY(gm_shim_thing) in_held;
};

RB_HEAD(gm_shim_things, gm_shim_thing);

struct gm_shim_dev {
	atomic_flag spin;
	const struct gm_services *out; /* (c) the services the shim got */
	struct gm_services svc;        /* (c) those the backend gets */
	struct gm_mmu mmu;             /* (c) the backend's table, as far as it goes */
	struct gm_validate_config config;
	struct gm_dev_caps caps;       /* (c) */
	void *dev;                     /* (c) the backend's */
	uint64_t granule_bytes, bound_ns, born_ns;
	atomic_bool blind;             /* no memory for the books */
	atomic_bool used;              /* what it announced has been judged */
	atomic_bool access_waits;      /* access() has been seen to wait for something */
	bool blind_things;             /* (S) ... for locks, memory, threads */
	uint64_t unsure_hosts;         /* (S) pages that may or may not be mapped to host memory */
	bool lost;                     /* (S) an operation said NODEV */
	bool given_up;                 /* (S) ... or the caller treats it so */
	pthread_t giver;               /* (S) given_up: the first that said so */
	bool tracked;                  /* (S) the caller says which frames are in use */
	uint64_t ops;                  /* (S) operations so far */
	uint64_t random;               /* (S) */
	LIST_HEAD(, gm_shim_call) calls;  /* (S) in flight */
	LIST_HEAD(, gm_shim_thing) held;  /* (S) locks */
	struct gm_shim_pmaps pmaps, dead; /* (S) */
	unsigned n_pmaps, n_making, n_going; /* (S) that live; that are being made, or destroyed */
	unsigned n_dead, n_done;          /* (S) */
	unsigned pins;                    /* (S) somebody is about to use books made: none are dropped */
	struct gm_shim_fences fences;     /* (S) not signalled */
	struct {
		const struct gm_fence *fence; /* NULL: none */
		bool failed;
	} done[GM_SHIM_DONE_FENCES];      /* (S) the last ones that were signalled, or whose call failed */
	struct gm_shim_things things;     /* (S) */
	struct gm_shim_memories frames;   /* (S) of the device */
	struct gm_shim_memories hosts;    /* (S) of the host, mapped in place */
	uint64_t ready, ready_seen;       /* (S) announcements of faults; those that an AGAIN has used up */
	uint64_t silent_ns;               /* (S) a fault came without one; 0: none */
	struct {
		const void *other;
		uint64_t born_ns; /* of the other: its address may be another's later */
		gm_ret_t ret;
	} peer[GM_MAX_DEVS];              /* (S) */
	unsigned peers;
	uint64_t events;                  /* (S) so far */
	uint64_t reports[GM_RULES];       /* (S) */
	struct gm_shim_event event[GM_SHIM_EVENTS]; /* (S) */
};

static inline void gm_shim_lock(struct gm_shim_dev *d)
{
	unsigned spins = 0;

	while (atomic_flag_test_and_set_explicit(&d->spin, memory_order_acquire)) {
		if (++spins > 64) {
			struct timespec ts = { .tv_nsec = 1000 };

			(void)nanosleep(&ts, NULL);
		}
	}
}

static inline void gm_shim_unlock(struct gm_shim_dev *d)
{
	atomic_flag_clear_explicit(&d->spin, memory_order_release);
}

static inline uint64_t gm_shim_now(struct gm_shim_dev *d)
{
	return d->out->now_ns(d->out->self);
}

static inline bool gm_shim_has(const struct gm_shim_dev *d, uint32_t cap)
{
	return (d->caps.caps & cap) != 0;
}

/* gm_shim_report.c */
void gm_shim_report(struct gm_shim_dev *d, enum gm_rule rule, const struct gm_shim_at *at, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* (S) */
void gm_shim_note(struct gm_shim_dev *d, const struct gm_shim_at *at, uint64_t now_ns, bool pending, gm_ret_t ret);

/* gm_shim_op.c */
/* Around each operation. gm_shim_end() judges the result, for operations that have one. */
void gm_shim_begin(struct gm_shim_dev *d, struct gm_shim_call *c, enum gm_shim_op op, const struct gm_shim_at *at);
void gm_shim_end(struct gm_shim_call *c, gm_ret_t ret);
void gm_shim_end_void(struct gm_shim_call *c);
/* The backend has returned; what follows until the end is the shim's own doing. */
void gm_shim_returned(struct gm_shim_call *c);
/* Around each access() that the shim makes to look: services it uses are not those of the call it looks for. */
void gm_shim_look_begin(struct gm_shim_dev *d, struct gm_shim_call *c);
void gm_shim_look_end(struct gm_shim_call *c);
/* pte has bits of `may` only. */
bool gm_shim_pte_ok(struct gm_shim_dev *d, const struct gm_shim_at *at, uint32_t may);
/* May this operation return this? NODEV always. */
bool gm_shim_listed(enum gm_shim_op op, gm_ret_t ret);
/* The operation that calls a service now; NULL: none. (S) */
struct gm_shim_call *gm_shim_caller(struct gm_shim_dev *d, uintptr_t stack);
/* False (and reported): the range is none that the law of hal.h allows. */
bool gm_shim_range_ok(struct gm_shim_dev *d, const struct gm_shim_at *at);
/* The page table lives; else reported. */
bool gm_shim_alive(struct gm_shim_pmap *p, const struct gm_shim_at *at);
/* False, and reported: the capability was not announced. */
bool gm_shim_cap_ok(struct gm_shim_dev *d, uint32_t cap, const struct gm_shim_at *at);

/* gm_shim_shadow.c */
/* Make books for the range; without memory the shim is blind. */
void gm_shim_need(struct gm_shim_pmap *p, uint64_t va, uint64_t pa, uint64_t bytes, bool host);
void gm_shim_forget(struct gm_shim_pmap *p); /* all books of a page table */
/* Between making books and using them: none are dropped. */
void gm_shim_pin(struct gm_shim_dev *d, int n);
/* Drop books of the range that say nothing any more. */
void gm_shim_sweep(struct gm_shim_pmap *p, const struct gm_shim_at *at);
/* (S), all of them: the first finding of a call is kept. */
struct gm_shim_page *gm_shim_page(struct gm_shim_pmap *p, uint64_t va);
struct gm_shim_chunk *gm_shim_chunk_at(struct gm_shim_pmap *p, uint64_t va); /* the first at or after */
bool gm_shim_mapped_any(struct gm_shim_pmap *p);
bool gm_shim_hosts_any(struct gm_shim_pmap *p, const struct gm_shim_at *at); /* host memory, mapped or waiting */
void gm_shim_check_enter(struct gm_shim_pmap *p, const struct gm_shim_at *at, struct gm_shim_found *found);
void gm_shim_enter(struct gm_shim_pmap *p, const struct gm_shim_at *at); /* in flight: marked NEW */
void gm_shim_entered(struct gm_shim_pmap *p, const struct gm_shim_at *at, bool failed);
void gm_shim_removed(struct gm_shim_pmap *p, const struct gm_shim_at *at);
void gm_shim_invalidated(struct gm_shim_pmap *p, const struct gm_shim_at *at);
void gm_shim_protected(struct gm_shim_pmap *p, const struct gm_shim_at *at);
/* hosts: there may have been host memory, though the books say otherwise by now. */
void gm_shim_doubt(struct gm_shim_pmap *p, const struct gm_shim_at *at, bool hosts);
uint64_t gm_shim_pte_flags(uint32_t pte);

/* gm_shim_frame.c */
/* (S) NULL: no books */
struct gm_shim_memory *gm_shim_memory_of(struct gm_shim_memories *all, uint64_t pa);
struct gm_shim_frame *gm_shim_frame_of(struct gm_shim_memories *all, uint64_t pa);
bool gm_shim_need_memory(struct gm_shim_dev *d, struct gm_shim_memories *all, uint64_t pa, uint64_t bytes);
bool gm_shim_registered(struct gm_shim_dev *d, uint64_t pa, uint64_t bytes);
void gm_shim_forget_memory(struct gm_shim_dev *d, struct gm_shim_memories *all);
void gm_shim_sweep_hosts(struct gm_shim_dev *d);
void gm_shim_found_at(struct gm_shim_found *found, enum gm_rule rule, const struct gm_shim_at *at, uint64_t va,
		      uint64_t pa);
/* The caller's books of device memory: [pa, pa + bytes) is somebody's from now on, or nobody's. `dev` is the shim's. */
void gm_shim_frames(void *dev, uint64_t pa, uint64_t bytes, bool used);

/* gm_shim_probe.c: looks at a few pages after an operation; see there. */
void gm_shim_probe_entered(struct gm_shim_pmap *p, const struct gm_shim_at *at);
void gm_shim_probe_failed(struct gm_shim_pmap *p, const struct gm_shim_at *at);
void gm_shim_probe_beside(struct gm_shim_pmap *p, const struct gm_shim_at *at);
void gm_shim_probe_protected(struct gm_shim_pmap *p, const struct gm_shim_at *at);

void gm_shim_choose_gone(struct gm_shim_pmap *p, const struct gm_shim_at *at, struct gm_shim_gone *gone); /* (S) */
void gm_shim_probe_gone(struct gm_shim_pmap *p, const struct gm_shim_at *at, const struct gm_shim_gone *gone);
uint64_t gm_shim_random(struct gm_shim_dev *d, uint64_t n); /* below n */

/* gm_shim_copy.c */
void gm_shim_check_copy(struct gm_shim_dev *d, const struct gm_copy *c, const struct gm_shim_at *at,
			struct gm_shim_found *found); /* (S) */
gm_ret_t gm_shim_copy(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done);
bool gm_shim_copies_meet(const struct gm_copy *a, const struct gm_copy *b);
/* (S) A copy in flight that writes to (or also reads) device memory. */
bool gm_shim_copying(struct gm_shim_dev *d, uint64_t pa, uint64_t bytes, bool reads);
bool gm_shim_copy_range_ok(struct gm_shim_dev *d, const struct gm_copy *c, const struct gm_shim_at *at);
void gm_shim_verify_copy(struct gm_shim_dev *d, const struct gm_copy *c, uint32_t step);
struct gm_shim_at gm_shim_copy_at(const char *op, const struct gm_copy *c, uint32_t step);

/* gm_shim_plan.c */
gm_ret_t gm_shim_submit(void *dev, struct gm_step *steps, size_t n, struct gm_fence *done);
/* The fence of a plan is about to be signalled with `result`. */
void gm_shim_plan_done(struct gm_shim_dev *d, struct gm_shim_fence *f, gm_ret_t result);

/* gm_shim_fence.c */
struct gm_shim_fence *gm_shim_fence_new(struct gm_shim_dev *d, struct gm_fence *fence, enum gm_shim_fence_kind kind,
					size_t n);
void gm_shim_fence_given(struct gm_shim_dev *d, struct gm_shim_fence *f);
/* Its operation returned. */
void gm_shim_fence_sent(struct gm_shim_dev *d, struct gm_shim_fence *f, const struct gm_shim_at *at, gm_ret_t ret);
/* The backend gives its reference back: of a fence that it made, and has not signalled, nothing more will come. */
void gm_shim_fence_put(struct gm_shim_dev *d, const struct gm_fence *fence);
void gm_shim_signal(void *self, struct gm_fence *fence, gm_ret_t result);
/* Report those that take too long; all: those that are left when the device is closed. */
void gm_shim_fences_late(struct gm_shim_dev *d, uint64_t now_ns, bool all);
void gm_shim_fences_free(struct gm_shim_dev *d);
/* How many copies and plans are pending: they count as reported. */
unsigned gm_shim_fences_left(struct gm_shim_dev *d);
/* (S) A plan is in flight: which of its steps are done only the backend knows. */
bool gm_shim_planning(struct gm_shim_dev *d);

/* gm_shim_svc.c */
void gm_shim_services(struct gm_shim_dev *d);
/* (S) A lock that this thread holds; NULL: none. */
struct gm_shim_thing *gm_shim_held(struct gm_shim_dev *d);
/* Report what is left and forget it. True: threads are, so nothing may be freed. */
bool gm_shim_things_left(struct gm_shim_dev *d, const char *op);

/* gm_shim.c */
/* The caller treats the device as lost from now on. */
void gm_shim_lose(void *dev);
/* The page table that the backend means, rather one that lives than one that goes; NULL: neither. (S) */
struct gm_shim_pmap *gm_shim_pmap_of(struct gm_shim_dev *d, const void *inner);

/* gm_shim_map.c, gm_shim_misc.c: the operations. */
gm_ret_t gm_shim_pmap_enter(void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte);
gm_ret_t gm_shim_pmap_remove(void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_shim_tlb_invl(void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_shim_pmap_protect(void *pmap, uint64_t va, uint64_t bytes, uint32_t pte);
gm_ret_t gm_shim_access(void *pmap, uint64_t va, void *buf, size_t bytes, bool write);
gm_ret_t gm_shim_fault_next(void *dev, struct gm_dev_fault *fault);
gm_ret_t gm_shim_fault_done(void *pmap, uint64_t va, uint64_t bytes, gm_ret_t result);
void *gm_shim_cpu_ptr(void *dev, uint64_t pa, uint64_t bytes);
gm_ret_t gm_shim_harvest(void *pmap, uint64_t va, uint64_t bytes, uint8_t *bits);
gm_ret_t gm_shim_sync_create(void *dev, void **sync, int *fd);
void gm_shim_sync_signal(void *dev, void *sync, gm_ret_t result);
gm_ret_t gm_shim_sync_import(void *dev, int fd, struct gm_fence *done);
gm_ret_t gm_shim_peer_reach(void *dev, void *other);

#endif
