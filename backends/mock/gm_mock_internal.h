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
	const struct gm_services *svc; /* (c) where tables come from */
	bool shared;                   /* (c) with a runtime: see gm_mock_hw.c */
	struct gm_mock_table *root;    /* (T) */
};

enum gm_mock_access {
	GM_MOCK_LOAD,
	GM_MOCK_STORE,
	GM_MOCK_ADD, /* buf: in what to add, out the value before */
	GM_MOCK_SWAP, /* buf: two words; in what is expected and what is to be there, out the value before in the first */
};

struct gm_mock_tlb {
	TAILQ_ENTRY(gm_mock_tlb) link; /* (S) */
	struct gm_mock_spin lock;
	struct gm_mock_xlate *entry;       /* (B) */
	uint32_t entries;                  /* (c) a power of two */
	_Atomic uint64_t accesses, misses; /* (a) written under B only */
	atomic_bool flush;                 /* (a) planted error: to be emptied by the next access */
};

TAILQ_HEAD(gm_mock_tlbs, gm_mock_tlb);

struct gm_mock_pmap {
	LIST_ENTRY(gm_mock_pmap) link; /* (P) */
	struct gm_mock *dev;           /* (c) */
	struct gm_mock_pt *vm;         /* (c) &pt, or that of the hardware that a runtime opened */
	struct gm_mock_pt pt;
	struct gm_mock_spin tlbs_lock;
	struct gm_mock_tlbs tlbs;      /* (S) one per running thread, and `own` */
	struct gm_mock_tlb own;        /* what access() goes through */
	struct gm_mock_tlb job;        /* what gm_mock_touch() goes through */
	unsigned touches;              /* (L) gm_mock_touch() calls in flight */
	struct gm_mock_dirty *dirty;   /* (c) NULL: not kept */
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
	bool reported;   /* (F) fault_next() has named it */
	bool repeated;   /* (F) planted error: it was named, and will be again */
	bool done;       /* (L) */
	gm_ret_t result; /* (L) */
};

TAILQ_HEAD(gm_mock_faults, gm_mock_fault);

struct gm_mock_thread {
	_Alignas(16) struct gm_mock_launch *launch; /* (c) aligned as handles are */
	struct gm_mock_pmap *pmap;     /* (c) */
	unsigned index;                /* (c) */
	struct gm_thread *thread;      /* (c) after the start */
	struct gm_mock_tlb *via;       /* (c) where its accesses go through: &tlb, but in gm_mock_touch() */
	struct gm_mock_tlb tlb;
	struct gm_mock_fault fault;
};

struct gm_mock_job;
TAILQ_HEAD(gm_mock_jobs, gm_mock_job);
struct gm_mock_import;
TAILQ_HEAD(gm_mock_imports, gm_mock_import);
TAILQ_HEAD(gm_mock_launches, gm_mock_launch);

struct gm_mock_scripted;
TAILQ_HEAD(gm_mock_rules, gm_mock_scripted);
struct gm_mock_expected;
struct gm_mock_dirty;

/* The modelled clock; see gm_mock_cost.c. */
struct gm_mock_clock {
	uint64_t now_ns;
	uint64_t mmu_free_ns, fault_free_ns, engine_free_ns[GM_MOCK_MAX_ENGINES];
	uint64_t mmu_ns, fault_ns, stall_ns, busy_ns[GM_MOCK_MAX_ENGINES];
};

/* Pieces that a planted bug puts off until after the fence. */
struct gm_mock_late_piece;
STAILQ_HEAD(gm_mock_late, gm_mock_late_piece);

struct gm_mock {
	const struct gm_services *svc; /* (c) */
	struct gm_mock_config config;  /* (c) */
	uint64_t granule_bytes;        /* (c) smallest page */
	char *vram;                    /* (c) */
	uint64_t slab_end;             /* (c) the library's memory ends here, device-physical */
	struct gm_mutex lock;
	struct gm_mock_rules rules;        /* (L) scripted failures */
	struct gm_mock_clock clock;        /* (L) */
	uint64_t reorder;                  /* (L) state of the generator */
	gm_mock_trace_fn trace;            /* (L) */
	void *trace_arg;                   /* (L) */
	struct gm_mock_expected *expected; /* (L) */
	atomic_bool watched;               /* (a) there is a trace or an expectation */
	_Atomic unsigned bad_pages;        /* (a) how many of bad_page; changes under L */
	_Atomic uint64_t bad_page[GM_MOCK_MAX_BAD_PAGES]; /* (a) device-physical */
	_Atomic int bug;               /* (a) enum gm_mock_bug */
	atomic_bool unsound;           /* (a) a bug was planted once: state may contradict the law */
	atomic_bool lost;              /* (a) for ever */
	_Atomic uint64_t bug_pages, bug_faults, bug_fences; /* (a) since the bug was planted */
	_Atomic uint64_t accesses, tlb_misses;  /* (a) of TLBs that are gone */
	_Atomic uint64_t faults, copies, bytes_to_dev, bytes_to_host, invalidations, submits; /* (a) */
	_Atomic uint64_t bytes_from_peer; /* (a) */

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
	struct gm_mock_jobs hung;    /* (L) nothing happens to them any more */
	struct gm_waitq engine_waitq;
	struct gm_thread *engine[GM_MOCK_MAX_ENGINES]; /* (c) none: copies are done by the caller */
	bool engine_stop;            /* (L) */
	_Atomic unsigned working;    /* (a) copy() and submit() whose fence is not signalled, or that still touch memory */

	_Atomic long syncs;                /* (a) created, not signalled */
	struct gm_mock_imports imports;    /* (L) */
	_Atomic unsigned importing;        /* (a) imports whose fence is not signalled */
	struct gm_waitq sync_waitq;
	struct gm_thread *sync_thread;     /* (L) looks at the imports; NULL: none was needed yet */
	bool sync_starting, sync_stop;     /* (L) */
};

static inline bool gm_mock_has_bug(struct gm_mock *m, enum gm_mock_bug bug)
{
	return atomic_load_explicit(&m->bug, memory_order_relaxed) == (int)bug;
}

/* Unplugged: every operation with a result says NODEV. */
static inline bool gm_mock_is_lost(struct gm_mock *m)
{
	return atomic_load_explicit(&m->lost, memory_order_acquire);
}

static inline void gm_mock_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* What gm_mock_mmu() returns. */
extern const struct gm_mmu gm_mock_table;

/* Address of device memory; [pa, pa + bytes) must lie in it. */
void *gm_mock_vram(struct gm_mock *m, uint64_t pa, uint64_t bytes);

/* What the public gm_mock_fail(), _plant() and _stats() do, on the device itself. INVAL for unknown numbers. */
gm_ret_t gm_mock_dev_fail(struct gm_mock *m, enum gm_mock_op op, uint64_t nth, uint64_t count);
/* How many calls of `op` there were since. */
uint64_t gm_mock_dev_fail_seen(struct gm_mock *m, enum gm_mock_op op);
gm_ret_t gm_mock_dev_plant(struct gm_mock *m, enum gm_mock_bug bug);
void gm_mock_dev_lose(struct gm_mock *m);
void gm_mock_dev_stats(struct gm_mock *m, struct gm_mock_stats *stats);

/* Operations that the steps of submit() share with the ops table. */
gm_ret_t gm_mock_pmap_enter(void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte);
gm_ret_t gm_mock_pmap_remove(void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_mock_tlb_invl(void *pmap, uint64_t va, uint64_t bytes);

/* gm_mock_cfg.c: complete `in` (NULL, zero fields: defaults) and check it. SUCCESS, INVAL. */
gm_ret_t gm_mock_config_complete(const struct gm_mock_config *in, struct gm_mock_config *out);

/* gm_mock_parse(); what was not understood goes into `word`. */
gm_ret_t gm_mock_config_parse(const char *text, struct gm_mock_config *config, char *word, size_t bytes);

/* gm_mock.c: device memory, straight from the kernel. */
gm_ret_t gm_mock_vram_map(uint64_t vram_bytes, char **vram);
void gm_mock_vram_unmap(uint64_t vram_bytes, char *vram);

/* gm_mock_hw.c */
/* Take the hardware for a device, and fill in where its memory is. SUCCESS, BUSY. */
gm_ret_t gm_mock_hw_claim(struct gm_mock_hw *hw, struct gm_mock *m);
void gm_mock_hw_release(struct gm_mock_hw *hw);
/* What of a configuration is the hardware's affair. */
void gm_mock_hw_adapt(const struct gm_mock_hw *hw, struct gm_mock_config *config);
/* The hardware's page table; `pmap` uses it from now on, until detach. */
struct gm_mock_pt *gm_mock_hw_attach(struct gm_mock_hw *hw, struct gm_mock_pmap *pmap);
void gm_mock_hw_detach(struct gm_mock_hw *hw, const struct gm_services *svc);

/* gm_mock_pt.c; enter says EXIST where a shared page table has a mapping of the runtime's. */
gm_ret_t gm_mock_pt_init(struct gm_mock *m, struct gm_mock_pt *pt);
void gm_mock_pt_fini(struct gm_mock *m, struct gm_mock_pt *pt);
gm_ret_t gm_mock_pt_enter(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t pa, uint64_t bytes,
			  uint32_t pte);
gm_ret_t gm_mock_pt_remove(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes);
gm_ret_t gm_mock_pt_protect(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes, uint32_t pte);
/* The page that maps va; false: none. */
bool gm_mock_pt_walk(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, struct gm_mock_xlate *xlate);
/* Drop every mapping but the runtime's. */
void gm_mock_pt_drop(struct gm_mock *m, struct gm_mock_pt *pt);
/* The runtime's own mappings, in a page table that is shared. SUCCESS, NOMEM; EXIST: something is there. */
gm_ret_t gm_mock_pt_own_enter(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t pa, uint64_t bytes,
			      uint32_t pte);
gm_ret_t gm_mock_pt_own_remove(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes);
/* Nothing mapped but what is the runtime's; and no table but the root, if it has no part in it. */
bool gm_mock_pt_empty(struct gm_mock *m, struct gm_mock_pt *pt);

/* gm_mock_tlb.c */
void gm_mock_tlb_link(struct gm_mock_pmap *pmap, struct gm_mock_tlb *tlb, struct gm_mock_xlate *entry);
void gm_mock_tlb_unlink(struct gm_mock_pmap *pmap, struct gm_mock_tlb *tlb);
/*
 * One access, not over the end of a 4 KiB page. SUCCESS, FAULT (no mapping),
 * PERM (no right), NOTSUP (GM_MOCK_ADD, _SWAP on host memory), IO (the host refused),
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
/* Answer every fault that waits, of all page tables. */
void gm_mock_fault_answer_all(struct gm_mock *m, gm_ret_t result);
gm_ret_t gm_mock_fault_next(void *dev, struct gm_dev_fault *fault);
gm_ret_t gm_mock_fault_done(void *pmap, uint64_t va, uint64_t bytes, gm_ret_t result);

/* gm_mock_copy.c */
gm_ret_t gm_mock_run_piece(struct gm_mock *m, const struct gm_copy *c, bool fail, bool garbage,
			   struct gm_mock_late *late);
/* `*hang` is set if it never ends. */
gm_ret_t gm_mock_run_step(struct gm_mock *m, const struct gm_step *step, struct gm_mock_late *late, bool *hang);
void gm_mock_run_late(struct gm_mock *m, struct gm_mock_late *late);
gm_ret_t gm_mock_peer_reach(void *dev, void *other);
gm_ret_t gm_mock_copy(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done);
gm_ret_t gm_mock_submit(void *dev, struct gm_step *steps, size_t n, struct gm_fence *done);

/* gm_mock_sync.c */
void gm_mock_sync_init(struct gm_mock *m);
/* Imports that are pending are done with this result. */
void gm_mock_sync_end(struct gm_mock *m, gm_ret_t result);
/* End the thread; imports that are pending are done with CANCELED. */
void gm_mock_sync_stop(struct gm_mock *m);
void gm_mock_sync_fini(struct gm_mock *m);
gm_ret_t gm_mock_sync_create(void *dev, void **sync, int *fd);
void gm_mock_sync_signal(void *dev, void *sync, gm_ret_t result);
gm_ret_t gm_mock_sync_import(void *dev, int fd, struct gm_fence *done);

/* gm_mock_bug_pt.c: as in gm_mock_pt.c, with what is planted; and the answer where it was made to fail. */
/* The address that an access is translated for. */
uint64_t gm_mock_bug_va(struct gm_mock *m, uint64_t va);
gm_ret_t gm_mock_bug_enter(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t pa, uint64_t bytes,
			   uint32_t pte);
gm_ret_t gm_mock_bug_enter_failed(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t pa, uint64_t bytes,
				  uint32_t pte);
gm_ret_t gm_mock_bug_remove(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes);
gm_ret_t gm_mock_bug_remove_failed(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes);
gm_ret_t gm_mock_bug_protect(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes, uint32_t pte);
/* Bytes behind the first page of an access, where they are planted to lie right behind it; false: they are not. */
bool gm_mock_bug_straight(struct gm_mock_pmap *pmap, uint64_t va, uint64_t offset, void *buf, size_t bytes, bool write);

/* gm_mock_bug_io.c */
/* Piece i of a copy as it is done; false: it is not. */
bool gm_mock_bug_piece(struct gm_mock *m, const struct gm_copy *copies, size_t n, size_t i, struct gm_copy *piece);
/* The page `at` bytes into a piece as it is copied where SKIP_COPY or COPY_SHIFT is planted; false: it is not. */
bool gm_mock_bug_page(struct gm_mock *m, const struct gm_copy *c, uint64_t at, struct gm_copy *page);
/* How the fence of a copy or a plan is signalled, and how a call that fails leaves. */
void gm_mock_bug_signal(struct gm_mock *m, struct gm_fence *done, gm_ret_t ret);
gm_ret_t gm_mock_bug_refuse(struct gm_mock *m, struct gm_fence *done, gm_ret_t ret);
/* Which step of a plan comes i-th; whether step i is left out; how it gets its result. */
size_t gm_mock_bug_order(struct gm_mock *m, size_t i, size_t n);
bool gm_mock_bug_skips_step(struct gm_mock *m, size_t i, size_t n);
void gm_mock_bug_step_ret(struct gm_mock *m, struct gm_step *step, gm_ret_t ret);
/* Before a fault is taken; what is said of it; how it is answered. */
void gm_mock_bug_fault_next(struct gm_mock *m);
void gm_mock_bug_fault_named(struct gm_mock *m, struct gm_dev_fault *fault);
void gm_mock_bug_fault_done(struct gm_mock *m, uint64_t *bytes, gm_ret_t *result);

/* gm_mock_bug_dev.c */
/* Device memory: its own, but where devices share it. */
char *gm_mock_bug_vram(struct gm_mock *m);
void gm_mock_bug_fini(struct gm_mock *m);
/* This error is planted, it asks for memory, and there is none. */
bool gm_mock_bug_short(struct gm_mock *m, enum gm_mock_bug bug);
/* After a range was entered; and (P) after a page table has gone. */
void gm_mock_bug_entered(struct gm_mock_pmap *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte);
void gm_mock_bug_destroyed(struct gm_mock *m);

/* gm_mock_rule.c: scripted failures. */
struct gm_mock_call {
	enum gm_mock_op op;
	uint64_t va, pa, bytes;       /* bytes 0: no place; pa 0: none */
	const struct gm_copy *copies; /* or these places */
	size_t n;
};

struct gm_mock_verdict {
	gm_ret_t ret;      /* SUCCESS: do it */
	uint64_t delay_ns; /* but so much later */
	bool hang, garbage;
	bool scripted;     /* there are rules */
};

/* What the script says of this call. Counts it; loses the device where the script says so. */
struct gm_mock_verdict gm_mock_judge(struct gm_mock *m, const struct gm_mock_call *call);
/* The same, sleeping the delay: SUCCESS, or what the call returns without doing anything. */
gm_ret_t gm_mock_begin(struct gm_mock *m, const struct gm_mock_call *call);
gm_ret_t gm_mock_dev_rule_add(struct gm_mock *m, const struct gm_mock_rule *rule);
void gm_mock_dev_rule_clear(struct gm_mock *m);
gm_ret_t gm_mock_dev_bad_page(struct gm_mock *m, uint64_t pa);
bool gm_mock_is_bad(struct gm_mock *m, uint64_t pa, uint64_t bytes);

/* gm_mock_cost.c: the modelled clock. */
/* What a step of a plan (its own copy, if it is one), or a piece of a copy, takes. */
uint64_t gm_mock_cost_of(const struct gm_mock *m, const struct gm_step *step, const struct gm_copy *copy);
/* An operation that the host calls and waits for; with timing=wait it takes its time, if it may sleep. */
void gm_mock_cost_op(struct gm_mock *m, bool may_sleep);
/* So much longer. */
void gm_mock_cost_delay(struct gm_mock *m, uint64_t ns);
/* A call with work for the engines (`steps`, or else `copies`), which begins `first_ns` late. When it will end. */
uint64_t gm_mock_cost_job(struct gm_mock *m, const struct gm_step *steps, const struct gm_copy *copies, size_t n,
			  uint64_t first_ns);
/* The host learns that it has. */
void gm_mock_cost_done(struct gm_mock *m, uint64_t end_ns);
/* A fault is raised; when. And answered. */
uint64_t gm_mock_cost_fault(struct gm_mock *m);
void gm_mock_cost_answer(struct gm_mock *m, uint64_t raised_ns);
void gm_mock_cost_stats(struct gm_mock *m, struct gm_mock_stats *stats);

/* gm_mock_engine.c */
gm_ret_t gm_mock_engine_start(struct gm_mock *m);
void gm_mock_engine_stop(struct gm_mock *m);
/* Sleep, unless the device is lost. */
void gm_mock_sleep(struct gm_mock *m, uint64_t ns);
/* Work for the engines, or for the caller where there are none. SUCCESS, NOMEM. */
gm_ret_t gm_mock_job_start(struct gm_mock *m, struct gm_step *steps, const struct gm_copy *copies, size_t n,
			   struct gm_fence *done, const struct gm_mock_verdict *v);
/* What dev_halt() does. */
void gm_mock_halt(void *dev);
/* What hangs ends. */
void gm_mock_hung_end(struct gm_mock *m, gm_ret_t ret);

/* gm_mock_dirty.c: accessed and dirty bits. */
gm_ret_t gm_mock_dirty_init(struct gm_mock_pmap *pmap);
void gm_mock_dirty_fini(struct gm_mock_pmap *pmap);
/* Around an enter: bits of what was not mapped begin anew if it succeeds. SUCCESS, NOMEM. */
gm_ret_t gm_mock_dirty_enter(struct gm_mock_pmap *pmap, uint64_t va, uint64_t bytes);
void gm_mock_dirty_entered(struct gm_mock_pmap *pmap, uint64_t va, uint64_t bytes, gm_ret_t ret);
void gm_mock_dirty_touch(struct gm_mock_pmap *pmap, uint64_t va, const struct gm_mock_xlate *page, bool write);
gm_ret_t gm_mock_harvest(void *pmap, uint64_t va, uint64_t bytes, uint8_t *bits);

/* gm_mock_trace.c, gm_mock_expect.c: what was done. */
void gm_mock_note(struct gm_mock *m, const struct gm_mock_event *event);
void gm_mock_dev_trace(struct gm_mock *m, gm_mock_trace_fn fn, void *arg);
gm_ret_t gm_mock_dev_expect(struct gm_mock *m, const char *text);
gm_ret_t gm_mock_dev_expect_end(struct gm_mock *m, char *why, size_t bytes);
/* (L) */
void gm_mock_expect_note(struct gm_mock_expected *expected, const struct gm_mock_event *event);

/* gm_mock_run.c */
/* Start a launch; it takes over one reference to `fence` on success. SUCCESS, NOMEM, AGAIN. */
gm_ret_t gm_mock_launch_start(struct gm_mock_pmap *pmap, gm_mock_kernel kernel, void *arg, unsigned threads,
			      struct gm_fence *fence);
/*
 * One access of a job, by any thread: faults, waits for the answer and tries again. SUCCESS, FAULT, PERM, NODEV, or
 * what the fault was answered with.
 */
gm_ret_t gm_mock_touch(struct gm_mock_pmap *pmap, uint64_t va, void *buf, size_t bytes, bool write);
/* Wait until no gm_mock_touch() on the page table is left. */
void gm_mock_touch_drain(struct gm_mock_pmap *pmap);
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
gm_ret_t gm_mock_admit_hw(struct gm_mock_hw *hw);
void gm_mock_dismiss_hw(struct gm_mock_hw *hw);
bool gm_mock_is_hw(const struct gm_mock_hw *hw);
/* For public functions, which say their name: SUCCESS, INVAL. */
gm_ret_t gm_mock_check_hw(const char *function, const struct gm_mock_hw *hw);
/* Remember why an argument is refused; INVAL. */
gm_ret_t gm_mock_refuse(const char *function, const char *why);
/* The mock behind a device; NULL: none, or another backend's, which is remembered. */
struct gm_mock *gm_mock_of(const char *function, struct gm_dev *dev);

#endif
