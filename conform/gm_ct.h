/* SPDX-License-Identifier: MIT */
/*
 * The conformance suite, inside. One test:
 *
 *     parent: what does it need, is it there?  --no--> a written reason? SKIP : FAIL
 *        | fork
 *     child: gm_ct_open() -> operations by hand -> gm_ct_close() -> PASS
 *        |      \-- first thing that is wrong, in any thread: gm_ct_fail() writes the reason and ends the process
 *     parent: exit status, reason, or: killed by a signal, no progress within the bound
 *
 * A process per test, because the backend under test is not to be trusted: it may assert, crash, or never return,
 * and a failure may leave threads and locks behind that no test could clean up. The page that parent and child share
 * holds the reason and the operation that runs, so that also a crash is told with its place.
 *
 * Between test and backend there are two tables:
 *
 *     test --> shim (rules) --> gap (n-th service fails) --> backend
 *
 * Nothing here includes anything of the library but its public headers.
 */
#ifndef GM_CT_H
#define GM_CT_H

#include <pthread.h>
#include <stdatomic.h>

#include <gmem/conform.h>
#include <gmem/hal.h>
#include <gmem/plugin.h>

#define GM_CT_REASON_BYTES 4096u
#define GM_CT_MAX_HOST 8u
#define GM_CT_SEED UINT64_C(20190305) /* where none is given */
/* Memory that a test works on; more where 16 pages need more. */
#define GM_CT_WINDOW (UINT64_C(8) << 20)
#define GM_CT_SMALL (UINT64_C(1) << 20)
/* Addresses that tests map things at: a multiple of every page size, inside 32 bits. */
#define GM_CT_VA (UINT64_C(1) << 30)
#define GM_CT_PAGE ((size_t)GM_PAGE_BYTES) /* unit of copies */
/* A device has at least that many granules of memory. */
#define GM_CT_MIN_PAGES 16u
/* What a mapping of the oracle says where there is none. */
#define GM_CT_NONE UINT32_MAX

/* Hooks, as bits of gm_ct_test.hooks. */
#define GM_CT_TOUCH 1u
#define GM_CT_FAIL 2u
#define GM_CT_LOSE 4u
#define GM_CT_HANG 8u

/* The operation that runs, or ran last. */
struct gm_ct_note {
	const char *op; /* a constant; NULL: none yet */
	uint64_t va, pa, bytes;
	uint32_t pte;
};

enum gm_ct_state {
	GM_CT_RUNS,
	GM_CT_PASSED,
	GM_CT_FAILED,
	GM_CT_NEEDS, /* something that only the open device could tell is missing: reason says what */
};

/* Shared by parent and child. */
struct gm_ct_shared {
	_Atomic int state;         /* enum gm_ct_state */
	_Atomic uint64_t progress; /* rises with each operation */
	/* The last of these to be noted by any thread. Fields of two may be mixed: it is for people. */
	const char *_Atomic op;
	_Atomic uint64_t va, pa, bytes;
	_Atomic uint32_t pte;
	atomic_bool threads;       /* the backend has started one */
	uint32_t caps;             /* of the device opened last */
	char reason[GM_CT_REASON_BYTES];
};

struct gm_ct_services;

/* The child: one test that runs. */
struct gm_ct {
	const struct gm_plugin *plugin;
	const char *options;
	uint64_t seed;
	uint64_t bound_ns;
	struct gm_ct_shared *shared;
	struct gm_ct_services *services; /* of the whole test, all devices */
	/* What fails (gm_ct_gap.c): 1 is the next call of this kind, 0 none; and whether it did. */
	_Atomic long fail_service;
	atomic_bool failed_service;
	/* Which one did: a constant, and the how many-th of its name. */
	const char *_Atomic failed_name;
	_Atomic unsigned failed_call;
};

/* Fence of the suite: what stands behind the name in the services. */
struct gm_fence;

/* An open device. */
struct gm_ct_dev {
	struct gm_ct *t;
	const struct gm_mmu *mmu; /* the shim around the backend */
	void *dev;
	void *dev_data;           /* the plugin's */
	bool foreign;             /* dev_data is not the plugin's */
	void *wrap;               /* the shim's configuration */
	struct gm_dev_caps caps;
	uint64_t granule;
	uint64_t large;           /* largest page of at most 2 MiB */
	struct gm_services svc;
};

/* A test. */
struct gm_ct_test {
	const char *name;
	uint32_t caps;   /* needed GM_CAP_* */
	uint32_t hooks;  /* needed GM_CT_TOUCH, _FAIL, _LOSE, _HANG */
	void (*run)(struct gm_ct *t);
};

struct gm_ct_group {
	const char *name;
	const struct gm_ct_test *tests; /* ends with a NULL name */
};

/* gm_conform.c: all groups, in order; ends with a NULL name. */
extern const struct gm_ct_group gm_ct_groups[];
/* Is it one that can be looked at? If not, `why` says what is wrong. */
bool gm_ct_plugin_check(const struct gm_plugin *plugin, char *why, size_t bytes);

/* --- gm_ct_child.c: how a test ends ---------------------------------------- */

/* Not kept: `what` is a few words that name the expectation. Any thread. */
_Noreturn void gm_ct_fail(struct gm_ct *t, const char *what, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* What the test needs is missing, and could not be known before the device was open. */
_Noreturn void gm_ct_need(struct gm_ct *t, const char *what);
void gm_ct_note(struct gm_ct *t, const char *op, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte);
/* Fail unless the operation noted last by this thread returned `want`. */
void gm_ct_want(struct gm_ct *t, gm_ret_t ret, gm_ret_t want);
static inline void gm_ct_ok(struct gm_ct *t, gm_ret_t ret)
{
	gm_ct_want(t, ret, GM_RET_SUCCESS);
}
/* Run one test in a child. The outcome; the reason is in `reason`. */
enum gm_ct_state gm_ct_run(const struct gm_conform_config *config, const struct gm_ct_test *test, char *reason,
			   size_t bytes, uint32_t *caps);
uint64_t gm_ct_now_ns(void);
void gm_ct_sleep_ns(uint64_t ns);

/* --- gm_ct_random.c ---------------------------------------------------------- */

struct gm_ct_random {
	uint64_t state;
};
uint64_t gm_ct_random(struct gm_ct_random *r);
/* 0 .. n - 1 */
uint64_t gm_ct_below(struct gm_ct_random *r, uint64_t n);

/* --- gm_ct_svc.c: services ------------------------------------------------- */

struct gm_ct_services *gm_ct_services_create(struct gm_ct *t);
void gm_ct_services_fill(struct gm_ct_services *s, struct gm_services *svc);
/* Nothing may be left of a closed device: fails and says what. */
void gm_ct_services_check(struct gm_ct_services *s);
/* Host memory that host_access reaches from now on. */
void gm_ct_host_add(struct gm_ct_services *s, void *at, size_t bytes);
/* While the gate is closed a host access waits in front of it, as on a slow bus. */
void gm_ct_host_gate(struct gm_ct_services *s, bool closed);
/* Wait until one does. False: not within the bound. */
bool gm_ct_host_wait(struct gm_ct_services *s);
/* How often fault_ready was called; wait until it is more than `seen`. False: not within the bound. */
uint64_t gm_ct_faults_ready(struct gm_ct_services *s);
bool gm_ct_faults_wait(struct gm_ct_services *s, uint64_t seen);
/* Fences that the suite hands to copy() and submit(). They live until gm_ct_services_check(). */
struct gm_fence *gm_ct_fence(struct gm_ct_services *s);
/* The result, or TIMEDOUT when it is still pending after so long. */
gm_ret_t gm_ct_fence_wait(struct gm_fence *fence, uint64_t ns);
/* The operation that was to signal it failed: nobody ever may. */
void gm_ct_fence_refused(struct gm_fence *fence);
/* Before it is given away: what its signal calls, on the thread that signals, once. */
void gm_ct_fence_on_done(struct gm_fence *fence, void (*fn)(void *arg, gm_ret_t result), void *arg);

/* Threads of the suite itself. */
struct gm_ct_thread {
	pthread_t thread;
};
void gm_ct_thread_start(struct gm_ct *t, struct gm_ct_thread *thread, void *(*fn)(void *arg), void *arg);
void gm_ct_thread_join(struct gm_ct_thread *thread);

/* --- gm_ct_gap.c: the n-th service fails -------------------------------------- */

/* The table that is put directly around the backend. */
const struct gm_mmu *gm_ct_gap(struct gm_ct *t);

/* --- gm_ct_shim.c --------------------------------------------------------------- */

/* The shim around `mmu`. */
const struct gm_mmu *gm_ct_wrap(struct gm_ct_dev *d, const struct gm_mmu *mmu);
/* Undo it, after dev_fini(). */
void gm_ct_unwrap(struct gm_ct_dev *d);
void *gm_ct_inner_dev(struct gm_ct_dev *d);
void *gm_ct_inner_pmap(void *pmap);

/* --- gm_ct_dev.c: devices and operations -------------------------------------- */

/* Open; a failure ends the test. gm_ct_try_open() says why not instead. */
struct gm_ct_dev *gm_ct_open(struct gm_ct *t);
gm_ret_t gm_ct_try_open(struct gm_ct *t, struct gm_ct_dev **out);
/* Another backend, not the one under test; a failure ends the test. */
struct gm_ct_dev *gm_ct_open_other(struct gm_ct *t, const struct gm_mmu *mmu, void *dev_data);
void gm_ct_close(struct gm_ct_dev *d);
bool gm_ct_has(const struct gm_ct_dev *d, uint32_t caps);

/* The operations, noted, with whatever result they have. */
gm_ret_t gm_ct_pmap_create(struct gm_ct_dev *d, void **pmap);
void gm_ct_pmap_destroy(struct gm_ct_dev *d, void *pmap);
gm_ret_t gm_ct_enter(struct gm_ct_dev *d, void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte);
gm_ret_t gm_ct_remove(struct gm_ct_dev *d, void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_ct_protect(struct gm_ct_dev *d, void *pmap, uint64_t va, uint64_t bytes, uint32_t pte);
void gm_ct_invl(struct gm_ct_dev *d, void *pmap, uint64_t va, uint64_t bytes);
/* With wait: the result of the call, or of the fence. */
gm_ret_t gm_ct_copy(struct gm_ct_dev *d, const struct gm_copy *copies, size_t n);
gm_ret_t gm_ct_submit(struct gm_ct_dev *d, struct gm_step *steps, size_t n);
gm_ret_t gm_ct_access(struct gm_ct_dev *d, void *pmap, uint64_t va, void *buf, size_t bytes, bool write);
gm_ret_t gm_ct_fault_next(struct gm_ct_dev *d, struct gm_dev_fault *fault);
void gm_ct_fault_done(struct gm_ct_dev *d, void *pmap, uint64_t va, uint64_t bytes, gm_ret_t result);
void *gm_ct_cpu_ptr(struct gm_ct_dev *d, uint64_t pa, uint64_t bytes);
/* Hooks of the plugin, on the backend's own device. */
gm_ret_t gm_ct_touch(struct gm_ct_dev *d, void *pmap, uint64_t va, void *buf, size_t bytes, bool write);
gm_ret_t gm_ct_fail_op(struct gm_ct_dev *d, const char *op, uint64_t nth);
void gm_ct_lose(struct gm_ct_dev *d);
void gm_ct_hang(struct gm_ct_dev *d);

/* --- gm_ct_mem.c: a window of device memory, and what must be in it ------------- */

struct gm_ct_mem {
	struct gm_ct_dev *d;
	uint64_t pa;      /* first byte */
	uint64_t bytes;
	uint32_t pages;   /* granules */
	unsigned char *is; /* what must be there; page-aligned */
	unsigned char *buf; /* as large, to copy to */
};

/* The largest aligned piece of the device's memory, of at most `max` bytes; filled with words that name themselves. */
void gm_ct_mem_init(struct gm_ct_mem *m, struct gm_ct_dev *d, uint64_t max, uint64_t seed);
void gm_ct_mem_fini(struct gm_ct_mem *m);
/* Copy what must be there to the device, all of it. */
void gm_ct_mem_put(struct gm_ct_mem *m);
/* Copy back and compare. Nothing is mapped with write. */
void gm_ct_mem_check(struct gm_ct_mem *m);
/* Zeroed memory of the suite itself, for free(). */
void *gm_ct_alloc(struct gm_ct *t, size_t bytes);
/* Page-aligned host memory; ends the test where there is none. */
void *gm_ct_pages(struct gm_ct *t, size_t bytes);
void gm_ct_pages_free(void *at, size_t bytes);
void gm_ct_fill(void *at, size_t bytes, uint64_t seed);

/* --- gm_ct_oracle.c: the array oracle of a page table --------------------------- */

struct gm_ct_map {
	struct gm_ct_dev *d;
	struct gm_ct_mem *m;
	void *pmap;
	bool shared;     /* the page table is somebody else's */
	uint64_t va;     /* first byte of the window */
	uint32_t pages;  /* granules */
	uint32_t *frame; /* [pages] granule of m, or GM_CT_NONE */
	uint32_t *pte;   /* [pages] rights */
	uint32_t first, last; /* frames of m that are its own: [first, last) */
	unsigned char *used;  /* [m->pages] frames that are mapped */
	struct gm_ct_random random;
};

/* An empty page table with a window of as many bytes as the memory has. */
void gm_ct_map_init(struct gm_ct_map *o, struct gm_ct_mem *m, uint64_t va, uint64_t seed);
/* The same in the page table of another one, which destroys it. */
void gm_ct_map_share(struct gm_ct_map *o, struct gm_ct_map *owner, uint64_t va, uint64_t seed);
/* Remove all, destroy the page table. */
void gm_ct_map_fini(struct gm_ct_map *o);
/* The same with what is mapped left mapped: the device is lost. */
void gm_ct_map_abandon(struct gm_ct_map *o);
/* Operations with the oracle kept in step; pages are granules of the window, frames of the memory. */
void gm_ct_map_enter(struct gm_ct_map *o, uint32_t page, uint32_t frame, uint32_t n, uint32_t pte);
void gm_ct_map_remove(struct gm_ct_map *o, uint32_t page, uint32_t n);
void gm_ct_map_protect(struct gm_ct_map *o, uint32_t page, uint32_t n, uint32_t pte);
/* The oracle alone, after a raw operation that succeeded. */
void gm_ct_map_set(struct gm_ct_map *o, uint32_t page, uint32_t frame, uint32_t n, uint32_t pte);
void gm_ct_map_unset(struct gm_ct_map *o, uint32_t page, uint32_t n);
/* Load one word of a page, and with `store` store one, and compare. */
void gm_ct_map_probe(struct gm_ct_map *o, uint32_t page, bool store);
/* Every page of the window, loads only. */
void gm_ct_map_check(struct gm_ct_map *o);

/* What a random step does; made so that the contract of the caller is kept. */
enum gm_ct_step_kind {
	GM_CT_STEP_ENTER,
	GM_CT_STEP_REMOVE,
	GM_CT_STEP_PROTECT,
	GM_CT_STEP_LOAD,
	GM_CT_STEP_STORE,
};
struct gm_ct_step {
	enum gm_ct_step_kind kind;
	uint32_t page, frame, n, pte;
};
/* The next random step; it is not done yet. */
void gm_ct_map_choose(struct gm_ct_map *o, struct gm_ct_step *step);
void gm_ct_map_do(struct gm_ct_map *o, const struct gm_ct_step *step);

static inline uint64_t gm_ct_va(const struct gm_ct_map *o, uint32_t page)
{
	return o->va + page * o->d->granule;
}
static inline uint64_t gm_ct_pa(const struct gm_ct_mem *m, uint32_t frame)
{
	return m->pa + frame * m->d->granule;
}

/* --- gm_ct_stage.c: one device, one window, one page table ----------------------- */

struct gm_ct_stage {
	struct gm_ct_dev *d;
	struct gm_ct_mem m;
	struct gm_ct_map o;
};
void gm_ct_begin(struct gm_ct_stage *s, struct gm_ct *t, uint64_t window);
/* What is mapped goes; every store that was made must be in memory. */
void gm_ct_finish(struct gm_ct_stage *s);

/* --- gm_ct_group_*.c: the groups, a file each, with the group's name -------------- */

extern const struct gm_ct_test gm_ct_table_tests[], gm_ct_lifecycle_tests[], gm_ct_memory_tests[], gm_ct_map_tests[],
	gm_ct_protect_tests[], gm_ct_invalidate_tests[], gm_ct_fence_tests[], gm_ct_plan_tests[], gm_ct_fault_tests[],
	gm_ct_workset_tests[], gm_ct_dirty_tests[], gm_ct_sync_tests[], gm_ct_peer_tests[], gm_ct_visible_tests[],
	gm_ct_host_tests[], gm_ct_nth_tests[], gm_ct_threads_tests[], gm_ct_trace_tests[], gm_ct_lost_tests[];

#endif
