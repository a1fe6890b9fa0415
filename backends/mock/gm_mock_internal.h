/* SPDX-License-Identifier: MIT */
/*
 * The mock accelerator, inside. Who protects what:
 *
 *   (c) constant after creation      (a) atomic
 *   (L) gm_mock.lock, a mutex of the services; a place where a simulation may
 *       switch, so every operation that takes it can be interleaved there
 *   (F) gm_mock.fault_lock   (P) gm_mock.pmaps_lock   (T) gm_mock_pt.lock
 *   (S) gm_mock_pmap.tlbs_lock       (B) gm_mock_tlb.lock
 *
 * All but (L) are spin flags. Order: P, then S, then B, then T; L, then F. A
 * holder of T, F or P alone never reaches a switch point; a holder of B may
 * (host_access), and then whoever waits for B, holding P and S perhaps, spins
 * with yield(). L is never held while a spin flag other than F is wanted, and F
 * is wanted with locks of the core held (fault_next): so F is never waited for
 * with yield().
 *
 * Why B covers an access from the walk to the last byte: tlb_invl() takes B
 * of every thread, so when it returns each access that used an old
 * translation is complete, and no thread can put an entry it walked before
 * into its TLB afterwards. B is never held while a fault waits to be served.
 */
#ifndef GM_MOCK_INTERNAL_H
#define GM_MOCK_INTERNAL_H

#include <bsd/sys/queue.h>
#include <sched.h>
#include <stdatomic.h>

#include <gmem/hal.h>
#include <gmem/mock.h>

/* First device-physical address: not 0, so that a forgotten address is no valid one. */
#define GM_MOCK_PA_BASE UINT64_C(0x40000000)
#define GM_MOCK_MAX_THREADS 64u
#define GM_MOCK_GARBAGE 0xa5
/* Every how many pages, or faults, the planted errors that come now and then strike. */
#define GM_MOCK_BUG_PERIOD 64u

#define GM_MOCK_SHIFT_4K 12u
#define GM_MOCK_SHIFT_64K 16u
#define GM_MOCK_SHIFT_2M 21u

struct gm_mock;
struct gm_mock_pmap;
struct gm_mock_launch;

struct gm_mock_spin {
	atomic_flag held;
};

static inline void gm_mock_spin_lock(const struct gm_services *svc, struct gm_mock_spin *spin)
{
	unsigned spins = 0;

	while (atomic_flag_test_and_set_explicit(&spin->held, memory_order_acquire)) {
		if (++spins > 64)
			svc->yield(svc->self);
	}
}

/*
 * The same where locks of the services, or of the core, may be held: yield()
 * is no option then. Not needed in a simulation, where the flag is always free.
 */
static inline void gm_mock_spin_lock_short(struct gm_mock_spin *spin)
{
	unsigned spins = 0;

	while (atomic_flag_test_and_set_explicit(&spin->held, memory_order_acquire)) {
		if (++spins > 64)
			(void)sched_yield();
	}
}

static inline void gm_mock_spin_unlock(struct gm_mock_spin *spin)
{
	atomic_flag_clear_explicit(&spin->held, memory_order_release);
}

/* One page as the page table has it, or as a TLB remembers it. shift 0: none. */
struct gm_mock_xlate {
	uint64_t va;    /* first byte of the page */
	uint64_t pa;    /* device-physical; a host VA with GM_PTE_HOST */
	uint32_t pte;   /* GM_PTE_* */
	uint32_t shift; /* the page has 2^shift bytes */
};

struct gm_mock_table;

struct gm_mock_pt {
	struct gm_mock_spin lock;
	struct gm_mock_table *root; /* (T) */
};

enum gm_mock_access {
	GM_MOCK_LOAD,
	GM_MOCK_STORE,
	GM_MOCK_ADD, /* buf: in what to add, out the value before */
};

struct gm_mock_tlb {
	TAILQ_ENTRY(gm_mock_tlb) link; /* (S) */
	struct gm_mock_spin lock;
	struct gm_mock_xlate *entry;       /* (B) */
	uint32_t entries;                  /* (c) a power of two */
	_Atomic uint64_t accesses, misses; /* (a) written under B only */
};

TAILQ_HEAD(gm_mock_tlbs, gm_mock_tlb);

struct gm_mock_pmap {
	LIST_ENTRY(gm_mock_pmap) link; /* (P) */
	struct gm_mock *dev;           /* (c) */
	struct gm_mock_pt pt;
	struct gm_mock_spin tlbs_lock;
	struct gm_mock_tlbs tlbs;      /* (S) one per running thread, and `own` */
	struct gm_mock_tlb own;        /* what access() goes through */
	bool dying;                    /* (L) faults are answered with CANCELED */
};

/* A thread's fault; it has one at most. */
struct gm_mock_fault {
	TAILQ_ENTRY(gm_mock_fault) wait_link; /* (L) */
	TAILQ_ENTRY(gm_mock_fault) fifo_link; /* (F) */
	struct gm_mock_pmap *pmap;
	uint64_t va;     /* of the page */
	uint32_t access; /* GM_READ, GM_WRITE, GM_ATOMIC */
	bool queued;     /* (F) fault_next() has not taken it yet */
	bool done;       /* (L) */
	gm_ret_t result; /* (L) */
};

TAILQ_HEAD(gm_mock_faults, gm_mock_fault);

struct gm_mock_thread {
	_Alignas(16) struct gm_mock_launch *launch; /* (c) aligned as handles are */
	struct gm_mock_pmap *pmap;     /* (c) */
	unsigned index;                /* (c) */
	struct gm_thread *thread;      /* (c) after the start */
	struct gm_mock_tlb tlb;
	struct gm_mock_fault fault;
};

struct gm_mock_job;
TAILQ_HEAD(gm_mock_jobs, gm_mock_job);
TAILQ_HEAD(gm_mock_launches, gm_mock_launch);

struct gm_mock_failure {
	uint64_t nth, count;
};

struct gm_mock {
	const struct gm_services *svc; /* (c) */
	struct gm_mock_config config;  /* (c) */
	uint64_t granule_bytes;        /* (c) smallest page */
	char *vram;                    /* (c) */
	struct gm_mutex lock;
	struct gm_mock_failure failure[GM_MOCK_OPS]; /* (L) */
	_Atomic int bug;               /* (a) enum gm_mock_bug */
	atomic_bool unsound;           /* (a) a bug was planted once: state may contradict the law */
	_Atomic uint64_t bug_pages, bug_faults; /* (a) since the bug was planted */
	_Atomic uint64_t accesses, tlb_misses;  /* (a) of TLBs that are gone */
	_Atomic uint64_t faults, copies, bytes_to_dev, bytes_to_host, invalidations, submits; /* (a) */

	struct gm_mock_spin pmaps_lock;
	LIST_HEAD(, gm_mock_pmap) pmaps; /* (P) */
	uint32_t n_pmaps;                /* (P) with those being made */

	struct gm_mock_spin fault_lock;
	struct gm_mock_faults fault_fifo;    /* (F) not yet reported */
	struct gm_mock_faults fault_waiters; /* (L) */
	struct gm_waitq fault_waitq;

	struct gm_mock_launches launches; /* (L) running, or not joined yet */
	struct gm_waitq gate_waitq;       /* threads of a launch that is being started */

	struct gm_mock_jobs jobs;    /* (L) */
	struct gm_waitq engine_waitq;
	struct gm_thread *engine;    /* (c) NULL: copies are done by the caller */
	bool engine_stop;            /* (L) */
};

static inline bool gm_mock_has_bug(struct gm_mock *m, enum gm_mock_bug bug)
{
	return atomic_load_explicit(&m->bug, memory_order_relaxed) == (int)bug;
}

static inline void gm_mock_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* Address of device memory; [pa, pa + bytes) must lie in it. */
void *gm_mock_vram(struct gm_mock *m, uint64_t pa, uint64_t bytes);
/* Must this call of `op` fail? Counts the call. */
bool gm_mock_fails(struct gm_mock *m, enum gm_mock_op op);

/* What the public gm_mock_fail(), _plant() and _stats() do, on the device itself. INVAL for unknown numbers. */
gm_ret_t gm_mock_dev_fail(struct gm_mock *m, enum gm_mock_op op, uint64_t nth, uint64_t count);
gm_ret_t gm_mock_dev_plant(struct gm_mock *m, enum gm_mock_bug bug);
void gm_mock_dev_stats(struct gm_mock *m, struct gm_mock_stats *stats);

/* Operations that the steps of submit() share with the ops table. */
gm_ret_t gm_mock_pmap_enter(void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte);
gm_ret_t gm_mock_pmap_remove(void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_mock_tlb_invl(void *pmap, uint64_t va, uint64_t bytes);

/* gm_mock_cfg.c: complete `in` (NULL, zero fields: defaults) and check it. SUCCESS, INVAL. */
gm_ret_t gm_mock_config_complete(const struct gm_mock_config *in, struct gm_mock_config *out);

/* gm_mock_parse(); what was not understood goes into `word`. */
gm_ret_t gm_mock_config_parse(const char *text, struct gm_mock_config *config, char *word, size_t bytes);

/* gm_mock_pt.c */
gm_ret_t gm_mock_pt_init(struct gm_mock *m, struct gm_mock_pt *pt);
void gm_mock_pt_fini(struct gm_mock *m, struct gm_mock_pt *pt);
gm_ret_t gm_mock_pt_enter(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t pa, uint64_t bytes,
			  uint32_t pte);
gm_ret_t gm_mock_pt_remove(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes);
gm_ret_t gm_mock_pt_protect(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes, uint32_t pte);
/* The page that maps va; false: none. */
bool gm_mock_pt_walk(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, struct gm_mock_xlate *xlate);
/* Nothing mapped, and no table but the root. */
bool gm_mock_pt_empty(struct gm_mock *m, struct gm_mock_pt *pt);

/* gm_mock_tlb.c */
void gm_mock_tlb_link(struct gm_mock_pmap *pmap, struct gm_mock_tlb *tlb, struct gm_mock_xlate *entry);
void gm_mock_tlb_unlink(struct gm_mock_pmap *pmap, struct gm_mock_tlb *tlb);
/*
 * One access, not over the end of a 4 KiB page. SUCCESS, FAULT (no mapping),
 * PERM (no right), NOTSUP (GM_MOCK_ADD on host memory), IO (the host refused),
 * or what else the host returned.
 */
gm_ret_t gm_mock_tlb_access(struct gm_mock_pmap *pmap, struct gm_mock_tlb *tlb, uint64_t va, void *buf, size_t bytes,
			    enum gm_mock_access kind);
gm_ret_t gm_mock_access(void *pmap, uint64_t va, void *buf, size_t bytes, bool write);

/* gm_mock_fault.c */
/* Report a fault and sleep until it is answered. The answer, or CANCELED when the page table goes away. */
gm_ret_t gm_mock_fault_raise(struct gm_mock_thread *thread, uint64_t va, uint32_t access);
/* From now on every fault of the page table is answered with CANCELED. */
void gm_mock_fault_cancel(struct gm_mock_pmap *pmap);
gm_ret_t gm_mock_fault_next(void *dev, struct gm_dev_fault *fault);
gm_ret_t gm_mock_fault_done(void *pmap, uint64_t va, uint64_t bytes, gm_ret_t result);

/* gm_mock_copy.c */
gm_ret_t gm_mock_engine_start(struct gm_mock *m);
void gm_mock_engine_stop(struct gm_mock *m);
gm_ret_t gm_mock_copy(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done);
gm_ret_t gm_mock_submit(void *dev, struct gm_step *steps, size_t n, struct gm_fence *done);

/* gm_mock_run.c */
/* Start a launch; it takes over one reference to `fence` on success. SUCCESS, NOMEM, AGAIN. */
gm_ret_t gm_mock_launch_start(struct gm_mock_pmap *pmap, gm_mock_kernel kernel, void *arg, unsigned threads,
			      struct gm_fence *fence);
/* Join the launches that are finished, and with a pmap also all of its. */
void gm_mock_launch_reap(struct gm_mock *m, struct gm_mock_pmap *pmap);
/* One access of a kernel, over any pages; faults where it must. */
gm_ret_t gm_mock_access_range(struct gm_mock_thread *thread, uint64_t va, void *buf, size_t bytes,
			      enum gm_mock_access kind);
void gm_mock_thread_yield(struct gm_mock_thread *thread);

/* gm_mock_api.c: what the public functions take from now on, and no longer. SUCCESS, NOMEM. */
gm_ret_t gm_mock_admit_dev(struct gm_mock *m);
void gm_mock_dismiss_dev(struct gm_mock *m);
/* Is this a mock that dev_init() made, and dev_fini() has not ended? It may be anything. */
bool gm_mock_is_admitted(const void *dev);
gm_ret_t gm_mock_admit_thread(struct gm_mock_thread *thread);
void gm_mock_dismiss_thread(struct gm_mock_thread *thread);

#endif
