/* SPDX-License-Identifier: MIT */
/*
 * The randomised test, shared by its files:
 *
 *     random_sim     options, seeds, planted errors     random_app   what the process does
 *     random_world   a world is made and unmade         random_lib   calls of the library
 *     random_model   the byte array, claims, checks     random_dev   kernels and working sets
 *     random_coh     duplicates, exclusive use, sums     random_hold  rights that devices obey, pins
 *     random_child   forks, children               random_remap  mremap(), holes
 *     random_query   gm_query() against what is so
 *     random_madvise  madvise()                    random_mirror  spaces that mirror the process
 *
 * Every byte of a region has one legal value at any time. A page is cut into
 * cells; whoever reads or writes a cell claims it first, so that while a store
 * is under way nobody else looks. What drops the content of whole pages, or
 * changes their address, claims the pages alone. Calls that may not change a
 * byte claim nothing and run at any time: these are the races.
 *
 * Everything runs on one thread of the machine, as coroutines of the
 * simulation, so the books here need no lock; they change only between two
 * points of the scheduler.
 */
#ifndef GM_TEST_RANDOM_WORLD_H
#define GM_TEST_RANDOM_WORLD_H

#include "backends/mock/gm_mock_internal.h"
#include "core/gm_as.h"
#include "hal/sim/gm_sim_internal.h"

#define RND_CELL_BYTES 256u
#define RND_CELLS (GM_PAGE_BYTES / RND_CELL_BYTES)
#define RND_DEVS 2u
#define RND_SPACES 2u
#define RND_REGIONS 7u
#define RND_ACTORS 4u
#define RND_JOBS 6u
#define RND_CHILDREN 2u
#define RND_CHILD_PAGES 8u
#define RND_JOB_ACCESSES 12u
/* An operation that takes longer than this of virtual time is a stall. */
#define RND_STALL_NS (UINT64_C(4) * 1000 * 1000 * 1000)
#define RND_WAIT_NS (UINT64_C(600) * 1000 * 1000)

/* Results as a set. */
#define RND_NUMBER_(name, value, text) RND_NUMBER_##name,
enum { GM_RET_LIST(RND_NUMBER_) };
#undef RND_NUMBER_
#define RND_RET(name) (UINT32_C(1) << RND_NUMBER_##name)

enum rnd_managed {
	RND_UNMANAGED, /* no device may reach it */
	RND_MANAGED,
	RND_PERHAPS,   /* unmapped without gm_release(): a region may have been left behind */
};

/* What gm_fork_policy() said last. */
enum rnd_fork {
	RND_FORK_DEFAULT,
	RND_FORK_EXCLUDE,
	RND_FORK_HOME,
	RND_FORK_SERVE,
	RND_FORK_PERHAPS, /* one of these: the memory was released, or replaced, since */
};

struct rnd_region;
struct rnd_space;
struct rnd_world;

struct rnd_page {
	struct rnd_region *region;
	struct rnd_space *space;
	uint64_t va;
	uint8_t *want;              /* the bytes it must have */
	uint16_t writer;            /* bit per cell */
	uint8_t readers[RND_CELLS];
	unsigned users;             /* claims of cells */
	bool alone;                 /* claimed as a whole */
	enum rnd_managed managed;
	bool edge;                  /* first or last of an unaligned buffer: stays where it is */
	uint32_t edge_head;         /* ... which begins so far inside, */
	uint32_t edge_bytes;        /* ... and has so many bytes here */
	bool counter;               /* holds a counter: its content is never given up */
	bool read_only, locked;
	bool no_read;               /* and so read_only; only for a while, with `changing` */
	bool changing;              /* its rights are */
	bool obeyed;                /* devices have these rights at most: gm_protect() said so */
	unsigned pins;              /* of DMA */
	unsigned kept;              /* gm_pin() */
	enum rnd_fork fork;
	uint32_t changes;           /* rises with each of the above, so that who sees it rise knows */
	uint64_t changed_ns;        /* ... the last time */
};

static inline void rnd_forget_fork(struct rnd_page *p)
{
	if (p->fork != RND_FORK_DEFAULT)
		p->fork = RND_FORK_PERHAPS;
}

struct rnd_region {
	struct rnd_space *space;
	bool owned;
	bool lost;                  /* gm_alloc() failed: nothing is there */
	unsigned pages;
	struct rnd_page *page;
	uint8_t *bytes;
};

struct rnd_ctx {
	struct gm_ctx *ctx;         /* NULL: detached */
	unsigned users;
	bool closing;
	uint32_t changes;
};

struct rnd_space {
	struct rnd_world *w;
	struct gm_as *as;
	struct rnd_ctx ctx[RND_DEVS];
	struct gm_thread *server;   /* of a space without threads */
	bool serves;                /* children */
	bool mirrors;               /* devices reach what is in no region too */
	enum rnd_fork fork;         /* what is so by default */
};

struct rnd_dev {
	struct gm_dev *dev;
	struct gm_mock *mock;
	char spec[256];
	bool faults;
	bool hostmap;               /* maps host memory in place */
	uint32_t granule_bytes;
	uint64_t vram_bytes;
	uint32_t asking;            /* who asks for a working set now, or has one */
	uint32_t holds;             /* rises with each working set that is asked for, and that ends */
};

struct rnd_counter {
	struct rnd_page *page;
	unsigned offset;
	uint64_t done, started;     /* additions */
};

/* One access of a kernel. */
struct rnd_access {
	struct rnd_page *page;
	unsigned cell, cells;       /* cells 0: an addition to the page's counter */
	bool write;
	bool discard;               /* the page was discarded: zeros, or what it had */
};

/* A kernel that runs, with or without a working set. */
struct rnd_job {
	struct rnd_world *w;
	struct rnd_space *space;
	struct rnd_ctx *ctx;
	struct rnd_dev *dev;
	struct rnd_access access[RND_JOB_ACCESSES];
	unsigned n, threads, running, rounds;
	bool used;
	bool held;                  /* inside a working set: nothing may fail */
	bool busy;                  /* whoever launched it still needs it */
	uint32_t drops;             /* of the world, when it was launched */
	struct gm_fence *fence;
};

/* What a child had of a page at its fork. */
struct rnd_child_page {
	struct rnd_page *parent;
	uint32_t changes;           /* of the parent's, before the fork */
	uint64_t va;
	uint16_t cells;             /* bit per cell that nobody was writing */
	bool gone;                  /* somebody was giving its content up, or a new address to it */
	bool odd;                   /* its rights were being changed, or it had been changed since `changes` */
	enum rnd_fork fork;
	gm_ret_t ret;               /* of a load */
	uint8_t want[GM_PAGE_BYTES];
};

struct rnd_child {
	struct gm_sim_child *child; /* NULL: none */
	bool judged; /* what it must answer is known */
	unsigned n;
	struct rnd_child_page page[RND_CHILD_PAGES];
};

struct rnd_actor {
	struct rnd_world *w;
	struct gm_thread *thread;
};

/* What decides whether an odd answer was legal: taken before an operation, compared after it. */
struct rnd_watch {
	uint64_t start_ns;
	uint32_t noise, holds[RND_DEVS], odd;
	bool noisy, held[RND_DEVS];
};

/* What the parent of a planted run learns. */
struct rnd_result {
	uint64_t steps, hash, migrations, evictions, faults, packs;
	uint64_t sums, dups, exclusives, protects, keeps, children; /* calls that did all of it */
	uint64_t remaps, resizes, frees, populates, served, mirrored, queries;
	char why[160];
};

struct rnd_options {
	uint64_t seed, steps;
	enum gm_plant plant;
	enum gm_mock_bug bug;
	bool verbose, quiet;
	struct rnd_result *child;   /* a planted run: shared with the parent; else NULL */
};

struct rnd_world {
	const struct rnd_options *opt;
	struct rnd_result *result;
	uint64_t rng;
	struct gm_sim *sim;
	struct gm_lib *lib;
	struct gm_lib_config config;
	struct gm_allocator allocator;
	uint64_t live;              /* allocations */
	uint64_t fail_alloc_in;     /* 0: not */
	struct rnd_dev dev[RND_DEVS];
	struct rnd_space space[RND_SPACES];
	unsigned spaces;
	struct rnd_region region[RND_REGIONS];
	unsigned regions;
	struct rnd_counter counter[2];
	struct rnd_actor actor[RND_ACTORS];
	unsigned actors;
	struct rnd_job job[RND_JOBS];
	struct rnd_child child[RND_CHILDREN];
	uint64_t steps;
	uint64_t hash;
	bool noisy;                 /* failures are armed */
	bool quieting;              /* ... and being disarmed */
	uint64_t quiet_ns;          /* when that was last done */
	uint64_t noisy_until;       /* ... until this step */
	uint32_t noise;             /* rises when that changes */
	uint32_t odd;               /* rises when any page changes */
	uint32_t drops;             /* rises when content is dropped */
	uint32_t dropping;          /* who does that now */
	uint64_t fork_failures;     /* that the library reported */
	bool forking;               /* one at a time: what the library reports is of that one */
	bool fork_forgot;           /* for want of memory some range stays kept from children for ever */
	uint64_t rest_until_ns;     /* nobody does anything */
	bool moving;                /* two spaces: somebody gives pages new addresses */
	bool stop;                  /* for the servers */
	const char *last_op;
};

/* random_world.c: SUCCESS, or it does not return. */
void rnd_world_run(const struct rnd_options *opt, struct rnd_result *result);

/* random_model.c */
uint64_t rnd(struct rnd_world *w, uint64_t n);
bool rnd_one_in(struct rnd_world *w, uint64_t n);
/* The run is over: say what is broken, and how to see it again. */
_Noreturn void rnd_fail(struct rnd_world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

struct rnd_watch rnd_watch(struct rnd_world *w);
/* Were failures armed at any time since; was memory of the device held; did any page change? */
bool rnd_noisy(struct rnd_world *w, const struct rnd_watch *watch);
bool rnd_held(struct rnd_world *w, const struct rnd_watch *watch, const struct rnd_dev *dev);
/* The result must be SUCCESS or in `legal`, or in `noisy` while failures are armed. */
void rnd_expect(struct rnd_world *w, const struct rnd_watch *watch, gm_ret_t ret, uint32_t legal, uint32_t noisy,
		const char *what, uint64_t va);

bool rnd_claim(struct rnd_page *p, unsigned cell, unsigned cells, bool write);
void rnd_unclaim(struct rnd_page *p, unsigned cell, unsigned cells, bool write);
/* A cell of each page, or none: their addresses stay; `write`: nobody else does that at the same time. */
bool rnd_claim_all(struct rnd_page *p, unsigned n, bool write);
void rnd_unclaim_all(struct rnd_page *p, unsigned n, bool write);
/* No device may have been let through against rights of gm_protect(). `changes`: of the page, before. */
void rnd_check_obeyed(struct rnd_world *w, const struct rnd_page *p, uint32_t changes, bool write);
/* Around what drops content; and a number that differs from w->drops once some is, or is being, dropped. */
void rnd_drop_begin(struct rnd_world *w);
void rnd_drop_end(struct rnd_world *w);
uint32_t rnd_drops(const struct rnd_world *w);
/* All pages alone, or none. */
bool rnd_claim_alone(struct rnd_page *p, unsigned n);
void rnd_unclaim_alone(struct rnd_page *p, unsigned n);
void rnd_changed(struct rnd_world *w, struct rnd_page *p);
/*
 * Around what gives pages new addresses. With two spaces one at a time: who moves memory tells his
 * space to forget the old address, which nobody else may have got meanwhile.
 */
bool rnd_begin_move(struct rnd_world *w);
void rnd_end_move(struct rnd_world *w);

struct rnd_region *rnd_region(struct rnd_world *w);
struct rnd_page *rnd_page(struct rnd_world *w);
/* A run of neighbours in one region, side by side in address too, each good enough; 0: none. */
unsigned rnd_run(struct rnd_world *w, struct rnd_region *r, unsigned max, bool (*good)(const struct rnd_page *p),
		 struct rnd_page **first);
/* A range for a call that changes no byte. */
struct rnd_range {
	struct rnd_page *p;
	unsigned n;
	uint64_t va, bytes;
	bool claimed;               /* its addresses are kept */
	bool whole;                 /* all of it is managed */
};
bool rnd_range_begin(struct rnd_world *w, struct rnd_range *g, unsigned max);
void rnd_range_end(struct rnd_range *g);
void rnd_random_bytes(struct rnd_world *w, uint8_t *buf, size_t bytes);
void rnd_compare(struct rnd_world *w, const struct rnd_page *p, unsigned offset, const uint8_t *got, size_t bytes,
		 const char *who);
/* After each operation: invariants, a sample of bytes and translations. */
void rnd_step(struct rnd_world *w, const char *op, const struct rnd_watch *watch);
/* Every page, wherever it is. */
void rnd_look_at_all(struct rnd_world *w);

/* The operations: true if something was done. */
bool rnd_cpu_load(struct rnd_world *w);
bool rnd_cpu_store(struct rnd_world *w);
bool rnd_cpu_touch(struct rnd_world *w);
bool rnd_cpu_add(struct rnd_world *w);
bool rnd_app_dontneed(struct rnd_world *w);
bool rnd_app_replace(struct rnd_world *w);
bool rnd_app_protect(struct rnd_world *w);
bool rnd_app_move(struct rnd_world *w);
bool rnd_app_move_onto(struct rnd_world *w);
bool rnd_app_resize(struct rnd_world *w);
bool rnd_app_hole(struct rnd_world *w);
bool rnd_app_free(struct rnd_world *w);
bool rnd_app_populate(struct rnd_world *w);
bool rnd_app_dontfork(struct rnd_world *w);
bool rnd_app_pin(struct rnd_world *w);
bool rnd_app_lock(struct rnd_world *w);
bool rnd_app_fork(struct rnd_world *w);
/* A child that could not be given all its bytes, of whatever space that serves, ends: then nothing of it can be loaded. */
uint32_t rnd_may_end_child(const struct rnd_world *w);
bool rnd_app_child(struct rnd_world *w);
bool rnd_lib_fork_policy(struct rnd_world *w);
/* The process itself reads zeros at once. */
void rnd_see_zeros(struct rnd_world *w, const struct rnd_watch *watch, struct rnd_page *p, unsigned n, const char *why);
/* Where these pages are now, regions of others may have been left behind; and theirs, where they were. */
enum rnd_managed rnd_elsewhere_now(struct rnd_world *w, enum rnd_managed before);
/* Children exit. */
void rnd_app_reap(struct rnd_world *w);
/* Protections, pins and locks end. */
void rnd_app_restore(struct rnd_world *w);

bool rnd_lib_to_dev(struct rnd_world *w);
bool rnd_lib_to_host(struct rnd_world *w);
bool rnd_lib_fault(struct rnd_world *w);
bool rnd_lib_discard(struct rnd_world *w);
bool rnd_lib_release(struct rnd_world *w);
bool rnd_lib_adopt(struct rnd_world *w);
bool rnd_lib_edge(struct rnd_world *w);
bool rnd_lib_renew(struct rnd_world *w);
bool rnd_lib_detach(struct rnd_world *w);
bool rnd_lib_attach(struct rnd_world *w);
bool rnd_lib_query(struct rnd_world *w);
/* The process has just read, or written, a byte of the page. */
void rnd_check_touched(struct rnd_world *w, const struct rnd_page *p, bool write);
bool rnd_lib_protect(struct rnd_world *w);
bool rnd_lib_pin(struct rnd_world *w);
bool rnd_lib_sum(struct rnd_world *w);
bool rnd_lib_query_host(struct rnd_world *w);
bool rnd_lib_home(struct rnd_world *w);
bool rnd_lib_duplicate(struct rnd_world *w);
bool rnd_lib_exclusive(struct rnd_world *w);
/* Bytes of pages claimed alone are read by the CPU: no device has an older copy in its hands any more. */
void rnd_lib_settle(struct rnd_world *w, struct rnd_page *p, unsigned n);
/* gm_adopt() of pages claimed alone. */
gm_ret_t rnd_lib_adopt_run(struct rnd_world *w, struct rnd_page *p, unsigned n);
bool rnd_ctx_use(struct rnd_ctx *c);
void rnd_ctx_unuse(struct rnd_ctx *c);

bool rnd_dev_access(struct rnd_world *w);
bool rnd_dev_kernel(struct rnd_world *w);
bool rnd_dev_set(struct rnd_world *w);
bool rnd_dev_mirror(struct rnd_world *w);
/* Forget jobs that are done; with `all`, wait for them. */
void rnd_dev_reap(struct rnd_world *w, bool all);
/* Failures begin; end. */
bool rnd_inject(struct rnd_world *w);
void rnd_quiet(struct rnd_world *w);

#endif
