/* SPDX-License-Identifier: MIT */
/*
 * Simulation: the environment as coroutines on a virtual clock, chosen by a
 * seed, and a simulated process (its memory, page tables, userfaultfd) as the
 * host. The whole library runs on it deterministically, without threads or
 * userfaultfd; the same seed gives the same run, switch for switch.
 */
#ifndef GM_SIM_H
#define GM_SIM_H

#include <gmem/hal.h>

#include "hal/gm_env.h"

struct gm_sim;

/* A world: scheduler, clock, one process. `allocator` NULL: malloc. NULL when out of memory. */
struct gm_sim *gm_sim_create(uint64_t seed, const struct gm_lib_config *config);
void gm_sim_destroy(struct gm_sim *sim);
struct gm_env *gm_sim_env(struct gm_sim *sim);
/* The simulated host: ops table, and its dev_data. */
const struct gm_mmu *gm_sim_host_mmu(void);
void *gm_sim_host_data(struct gm_sim *sim);

/*
 * Run fn(arg) as the first coroutine and schedule until it has returned (the
 * others may still exist; they go on at the next run). Returns false if every
 * coroutine was blocked for ever: a deadlock; gm_sim_report() tells who waits where.
 */
bool gm_sim_run(struct gm_sim *sim, void (*fn)(void *arg), void *arg);
void gm_sim_report(struct gm_sim *sim, char *text, size_t bytes);
/* Switches so far, and a hash over all scheduling decisions: equal for equal runs. */
uint64_t gm_sim_switches(struct gm_sim *sim);
uint64_t gm_sim_hash(struct gm_sim *sim);
/* The world's random numbers: uniform in [0, n). */
uint64_t gm_sim_random(struct gm_sim *sim, uint64_t n);
/* Virtual sleep. */
void gm_sim_sleep_ns(struct gm_sim *sim, uint64_t ns);
/* Wake-ups for nothing and GM_RET_AGAIN without a reason: on by default, off for tests of one exact step. */
void gm_sim_set_spurious(struct gm_sim *sim, bool on);
/* gm_sim_run() gives up (false) once the clock passes this: for runs in which somebody polls for ever. */
void gm_sim_set_horizon_ns(struct gm_sim *sim, uint64_t ns);
/* Id of the running coroutine, as in gm_host_msg.thread_id; 0 outside gm_sim_run(). */
uint32_t gm_sim_thread_id(struct gm_sim *sim);

/* What the application does, from any coroutine that is not the library's. Each behaves as Linux
 * does, including where it blocks on events and in which order it changes pages. */
uint64_t gm_sim_mmap(struct gm_sim *sim, uint64_t bytes, uint32_t access); /* 0: no memory */
uint64_t gm_sim_mmap_at(struct gm_sim *sim, uint64_t va, uint64_t bytes, uint32_t access); /* MAP_FIXED */
gm_ret_t gm_sim_munmap(struct gm_sim *sim, uint64_t va, uint64_t bytes);
gm_ret_t gm_sim_dontneed(struct gm_sim *sim, uint64_t va, uint64_t bytes);
gm_ret_t gm_sim_mprotect(struct gm_sim *sim, uint64_t va, uint64_t bytes, uint32_t access);
uint64_t gm_sim_mremap(struct gm_sim *sim, uint64_t va, uint64_t bytes); /* moves; 0 on failure */
#define GM_SIM_MAYMOVE 1u
#define GM_SIM_FIXED 2u     /* to *to, over what is there */
#define GM_SIM_DONTUNMAP 4u /* the old mapping stays, empty */
/* In all its ways; *to: where it is now. INVAL; FAULT: not one mapping; NOMEM: no room. */
gm_ret_t gm_sim_mremap_to(struct gm_sim *sim, uint64_t va, uint64_t bytes, uint64_t new_bytes, uint32_t flags,
			  uint64_t *to);
enum gm_sim_advice {
	GM_SIM_DONTNEED,
	GM_SIM_FREE, /* bytes go at any time, or not, until they are written */
	GM_SIM_REMOVE, /* INVAL: for memory of files */
	GM_SIM_DONTFORK,
	GM_SIM_DOFORK,
	GM_SIM_HUGEPAGE,
	GM_SIM_NOHUGEPAGE,
	GM_SIM_POPULATE_READ,
	GM_SIM_POPULATE_WRITE,
};
/* INVAL: also for what is locked; FAULT: not all mapped, or not the right; IO: poisoned. */
gm_ret_t gm_sim_madvise(struct gm_sim *sim, uint64_t va, uint64_t bytes, enum gm_sim_advice advice);
uint64_t gm_sim_mmap_shared(struct gm_sim *sim, uint64_t bytes); /* of a kind that cannot be managed */
gm_ret_t gm_sim_mlock(struct gm_sim *sim, uint64_t va, uint64_t bytes, bool on); /* brings every page in */
/* CPU loads and stores; block while a page is absent and watched. FAULT = SIGSEGV, IO = SIGBUS (poison). */
gm_ret_t gm_sim_load(struct gm_sim *sim, uint64_t va, void *buf, size_t bytes);
gm_ret_t gm_sim_store(struct gm_sim *sim, uint64_t va, const void *buf, size_t bytes);
gm_ret_t gm_sim_fetch_add(struct gm_sim *sim, uint64_t va, uint64_t add, uint64_t *old);
/* A DMA pin (as O_DIRECT or io_uring takes it): steal refuses the page meanwhile. It goes with the
 * frame: after munmap or dontneed there is nothing to unpin, after mremap it is at the new address. */
gm_ret_t gm_sim_pin(struct gm_sim *sim, uint64_t va);
void gm_sim_unpin(struct gm_sim *sim, uint64_t va);
/*
 * Fork with the at_fork hooks. The child has the bytes as of then, whatever the process and devices do later. A fork cannot
 * be refused: where freeze fails it happens anyway.
 */
struct gm_sim_child;
struct gm_sim_child *gm_sim_fork(struct gm_sim *sim);
/* The same, and at the moment as of which the child has its bytes, which is no point of the scheduler, at(arg). */
struct gm_sim_child *gm_sim_fork_at(struct gm_sim *sim, void (*at)(void *arg), void *arg);
/* FAULT: it has nothing there, or not the right; IO: poisoned, or the child has ended. At any time, no point of the scheduler. */
gm_ret_t gm_sim_child_load(const struct gm_sim_child *child, uint64_t va, void *buf, size_t bytes);
/* Was the page given by who serves the child? */
bool gm_sim_child_was_filled(const struct gm_sim_child *child, uint64_t va);
/* In one page (else INVAL) that was there at the fork (else NOTSUP). */
gm_ret_t gm_sim_child_store(struct gm_sim_child *child, uint64_t va, const void *buf, size_t bytes);
void gm_sim_child_exit(struct gm_sim_child *child);
/* The same in one: what a child reads at va, at once. */
gm_ret_t gm_sim_fork_snapshot(struct gm_sim *sim, uint64_t va, void *buf, size_t bytes);

/* Make the nth call of a host operation from now fail: "steal", "restore", "fill", "zero", "watch",
 * "watch_stores", "fill_protected", "unprotect", "slot_alloc", "mem_map", "child_fill"; with NOMEM, or AGAIN for what
 * moves, makes or unprotects pages (transient). Or a question be answered with "cannot tell now" (gm_host.h):
 * "mem_probe", "mem_rights", "mem_kind", "mem_content", "mem_present", "mem_protect", "bus_access" (bus_touch() too). */
gm_ret_t gm_sim_fail(struct gm_sim *sim, const char *op, uint64_t nth, uint64_t count);
/* Have all calls failed that the last gm_sim_fail() of `op` asked for? */
bool gm_sim_failed(const struct gm_sim *sim, const char *op);
/* nth 1 is the next call; `count` calls fail from there on; 0 of either disarms. INVAL: no such op. */

/* Counters for tests: messages posted, pages moved (holes not counted), pages watched now. */
struct gm_sim_stats {
	uint64_t faults, events, steals, restores, fills, zeros, watched_pages;
};
void gm_sim_stats(struct gm_sim *sim, struct gm_sim_stats *stats);

#endif
