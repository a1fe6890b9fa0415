/* SPDX-License-Identifier: MIT */
/*
 * Inside of the simulation, shared by its files:
 *
 *     gm_sim_ctx    switch between stacks        gm_sim_msg   faults, events, who waits for them
 *     gm_sim_sched  coroutines, clock            gm_sim_host  the host's ops table
 *     gm_sim_mem    mappings and pages           gm_sim_app   what the application does
 *     gm_sim_slot   library memory with frames   gm_sim_move  steal, restore, fill, zero, poison
 *     gm_sim_env    locks, queues; the world     gm_sim_child children, frames shared with them
 *     gm_sim_remap  mremap()
 *     gm_sim_madvise  madvise()                  gm_sim_serve children with descriptors of their own
 *
 * Everything runs on one thread of the machine and a coroutine gives way only
 * at the points that gm_env.h names, so whatever stands between two of them is
 * atomic and there is no lock here. Nothing that is decided may depend on an
 * address of the machine, or on its clock.
 */
#ifndef GM_SIM_INTERNAL_H
#define GM_SIM_INTERNAL_H

#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>

#include "hal/gm_host.h"
#include "hal/gm_rank.h"
#include "hal/sim/gm_sim.h"
#include "hal/sim/gm_sim_ctx.h"

#define GM_SIM_NEVER UINT64_MAX
/* One in so many calls does what it may do but rarely does: wakes for nothing, stops half way. */
#define GM_SIM_RARELY 64u

/* ------------------------------------------------------------- coroutines */

TAILQ_HEAD(gm_sim_threads, gm_thread);

enum gm_sim_state {
	GM_SIM_READY,   /* in sim->ready */
	GM_SIM_RUNNING, /* sim->current */
	GM_SIM_BLOCKED, /* until gm_sim_unblock() or its deadline */
	GM_SIM_DONE,    /* until it is joined */
};

/* A coroutine. One of them (sim->main) is the caller of gm_sim_run(): it is never chosen. */
struct gm_thread {
	struct gm_sim *sim;
	TAILQ_ENTRY(gm_thread) all;
	TAILQ_ENTRY(gm_thread) waiting; /* in `queue` */
	RB_ENTRY(gm_thread) timer;      /* while BLOCKED with a deadline */
	struct gm_sim_threads *queue;   /* gm_sim_queue_wait(): where; NULL once it was woken */
	enum gm_sim_state state;
	uint32_t id; /* 1.. in order of start; 0: main */
	uint32_t flags;
	char name[24];
	void (*fn)(void *arg);
	void *arg;
	uint64_t deadline_ns;
	const char *what; /* BLOCKED: in what */
	struct gm_sim_threads joiners;
	struct gm_rank_stack locks;
	struct gm_sim_stack *stack;
	struct gm_sim_ctx ctx;
};

RB_HEAD(gm_sim_timers, gm_thread);

/* A bug of whoever uses the simulation: say what and who, and abort. */
_Noreturn void gm_sim_panic(struct gm_sim *sim, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Let others run, perhaps. No effect outside gm_sim_run(). No lock may be held. */
void gm_sim_point(struct gm_sim *sim);
/* Block until gm_sim_unblock() or the deadline. No lock may be held. */
void gm_sim_block(struct gm_sim *sim, uint64_t deadline_ns, const char *what);
void gm_sim_unblock(struct gm_sim *sim, struct gm_thread *thread);
/* The same over a queue: true if woken, even past the deadline. Everybody is woken. */
bool gm_sim_queue_wait(struct gm_sim *sim, struct gm_sim_threads *queue, uint64_t deadline_ns, const char *what);
void gm_sim_queue_wake(struct gm_sim *sim, struct gm_sim_threads *queue);
/* True once in GM_SIM_RARELY calls, never when that is turned off. */
bool gm_sim_rarely(struct gm_sim *sim);
/* Memory of the simulation itself, zeroed; never NULL. */
void *gm_sim_calloc(struct gm_sim *sim, size_t bytes);

gm_ret_t gm_sim_thread_start(struct gm_env *env, const char *name, uint32_t flags, void (*fn)(void *), void *arg,
			     struct gm_thread **out);
void gm_sim_thread_free(struct gm_sim *sim, struct gm_thread *t);

/* ------------------------------------------------------ the process's memory */

struct gm_sim_page {
	uint8_t *frame; /* NULL: absent */
	uint32_t pins;
	bool poisoned; /* absent, and an access is an error */
	bool freed; /* present, MADV_FREE, and not written since: may go at any time */
	bool protected; /* present, and a store waits; as Linux has it: goes with the frame, but stays over mremap() */
};

/* The pages of one aligned 2 MiB; made when first needed, kept as long as the world. */
struct gm_sim_block {
	RB_ENTRY(gm_sim_block) link;
	uint64_t va;
	bool huge;             /* all of it is one huge page */
	struct gm_mask wanted; /* the library asked to watch these; outlives the application's munmap() */
	struct gm_sim_page page[GM_BLOCK_PAGES];
};

RB_HEAD(gm_sim_blocks, gm_sim_block);

struct gm_sim_pmap;

/* One mapping. Neighbours that are alike are merged, as Linux does. */
struct gm_sim_vma {
	RB_ENTRY(gm_sim_vma) link; /* by end */
	uint64_t va, end;
	uint32_t access; /* GM_READ, GM_WRITE */
	bool shared;     /* not private anonymous: cannot be managed */
	bool locked;     /* mlock()ed */
	bool not_inherited; /* MADV_DONTFORK */
	bool owned;      /* made by mem_map */
	bool huge;       /* huge pages are wanted */
	bool stores;     /* watched so that pages may be protected */
	struct gm_sim_pmap *pmap; /* who watches it, or NULL */
};

RB_HEAD(gm_sim_vmas, gm_sim_vma);

/* The mapping that contains va, or NULL; the first one that ends after va, or NULL. */
struct gm_sim_vma *gm_sim_vma_find(struct gm_sim *sim, uint64_t va);
struct gm_sim_vma *gm_sim_vma_after(struct gm_sim *sim, uint64_t va);
struct gm_sim_vma *gm_sim_vma_next(struct gm_sim *sim, struct gm_sim_vma *vma);
bool gm_sim_vma_covers(struct gm_sim *sim, uint64_t va, uint64_t end);
bool gm_sim_vma_allows(const struct gm_sim_vma *vma, bool write);
/* `like` is copied. The range must be free. */
void gm_sim_vma_add(struct gm_sim *sim, const struct gm_sim_vma *like);
/* Make mapping borders at va and end, so that what is between can be changed. */
void gm_sim_vma_isolate(struct gm_sim *sim, uint64_t va, uint64_t end);
/* Merge what can be merged between, and across, va and end. */
void gm_sim_vma_merge(struct gm_sim *sim, uint64_t va, uint64_t end);
/* Remove mappings and pages. */
void gm_sim_vma_cut(struct gm_sim *sim, uint64_t va, uint64_t end);
/* Free address space with free pages around it; 0: none. */
uint64_t gm_sim_va_pick(struct gm_sim *sim, uint64_t bytes, uint64_t align);

struct gm_sim_block *gm_sim_block_get(struct gm_sim *sim, uint64_t va, bool make);
/* NULL: never used, so absent. */
struct gm_sim_page *gm_sim_page_get(struct gm_sim *sim, uint64_t va, bool make);
/* Give frames back; every mark of a page goes too. */
void gm_sim_pages_zap(struct gm_sim *sim, uint64_t va, uint64_t end);
/* Frames, pins and marks go from one place to another. */
void gm_sim_pages_move(struct gm_sim *sim, uint64_t from, uint64_t to, uint64_t bytes);
/* First touch of unwatched memory: zeros, one huge page if possible. */
void gm_sim_pages_populate(struct gm_sim *sim, struct gm_sim_vma *vma, uint64_t va);
uint8_t *gm_sim_frame_alloc(struct gm_sim *sim);
/* One more has it; gm_sim_frame_free() takes back one. */
uint8_t *gm_sim_frame_share(uint8_t *frame);
bool gm_sim_frame_is_shared(uint8_t *frame);
/* Before a store: a copy, if others have it. NULL is allowed. */
void gm_sim_frame_own(struct gm_sim *sim, uint8_t **frame);
void gm_sim_frame_free(uint8_t *frame);
/* Before a store to a page that is present. */
static inline void gm_sim_page_own(struct gm_sim *sim, struct gm_sim_page *page)
{
	gm_sim_frame_own(sim, &page->frame);
	page->freed = false;
}
/* Before anybody looks: what MADV_FREE gave up may be gone by now. */
void gm_sim_page_look(struct gm_sim *sim, struct gm_sim_page *page);
void gm_sim_block_look(struct gm_sim *sim, struct gm_sim_block *block);
void gm_sim_mem_fini(struct gm_sim *sim);

/* ------------------------------------------------------------ the application */

#define GM_SIM_WATCHERS 8u

/* Who must be told that a range goes. */
struct gm_sim_watchers {
	struct gm_sim_pmap *pmap[GM_SIM_WATCHERS];
	unsigned n;
};

bool gm_sim_bad_range(uint64_t va, uint64_t bytes);
/* One UNMAP for each who watches part of it, over the whole range, as Linux does, is on its way from now on. */
struct gm_sim_watchers gm_sim_unmap_prepare(struct gm_sim *sim, uint64_t va, uint64_t end);
void gm_sim_unmap_post(const struct gm_sim_watchers *w, uint64_t va, uint64_t bytes);
/* munmap() without a point of the scheduler before it. */
gm_ret_t gm_sim_unmap(struct gm_sim *sim, uint64_t va, uint64_t bytes);
/* The byte of memory at va, present and allowed; blocks as long as it takes. */
gm_ret_t gm_sim_touch(struct gm_sim *sim, uint64_t va, bool write, uint8_t **byte);
/* The same, or TIMEDOUT. */
gm_ret_t gm_sim_touch_by(struct gm_sim *sim, uint64_t va, bool write, uint64_t deadline_ns, uint8_t **byte);

/* ----------------------------------------------------------- library memory */

/* A staging slot or a bounce buffer: real memory, of which each page has a frame or not. */
struct gm_sim_slot {
	RB_ENTRY(gm_sim_slot) link; /* by address */
	struct gm_sim_slot *next_free;
	struct gm_sim_pmap *pmap;
	uint8_t *base;
	uint64_t bytes;
	bool bounce;
	bool huge;    /* its frames are one huge page */
	bool *frames; /* per page */
};
gm_ret_t gm_sim_share_map(void *pmap, int fd, uint64_t offset, uint64_t bytes, uint64_t *va);
gm_ret_t gm_sim_share_slot(void *pmap, uint64_t va, uint64_t *slot);
gm_ret_t gm_sim_share_fd(void *pmap, uint64_t va, int *fd);
gm_ret_t gm_sim_mem_inthread(void *pmap, uint64_t va, uint64_t bytes, bool on);
bool gm_sim_inthread_has(void *pmap, uint64_t va, uint64_t bytes);

RB_HEAD(gm_sim_slots, gm_sim_slot);

struct gm_sim_slot *gm_sim_slot_alloc(struct gm_sim_pmap *pmap, uint64_t bytes, bool bounce);
void gm_sim_slot_free(struct gm_sim_slot *slot);
/* The slot or buffer that [addr, addr + bytes) lies in, or NULL. */
struct gm_sim_slot *gm_sim_slot_find(struct gm_sim *sim, uint64_t addr, uint64_t bytes);
bool gm_sim_slot_has(const struct gm_sim_slot *slot, uint64_t addr);
/* Page at addr gets a frame with these bytes (NULL: with those of a fresh frame); loses it. */
void gm_sim_slot_put(struct gm_sim_slot *slot, uint64_t addr, const uint8_t *bytes);
void gm_sim_slot_clear(struct gm_sim_slot *slot, uint64_t addr);
void gm_sim_slot_fini(struct gm_sim *sim);

/* ----------------------------------------------------------------- messages */

/* An access that waits. Lives on the stack of its coroutine. */
struct gm_sim_fault {
	TAILQ_ENTRY(gm_sim_fault) link;
	uint64_t va; /* of the page */
	bool write;
	bool wp;     /* the page is there, but protected */
	bool read;   /* msg_read() has returned it */
	bool woken;  /* and so out of the list */
	struct gm_thread *thread;
};

/* An event that waits to be read. Ditto. */
struct gm_sim_event {
	TAILQ_ENTRY(gm_sim_event) link;
	struct gm_host_msg msg;
	bool read; /* and so out of the list */
	struct gm_thread *thread;
};

#define GM_SIM_BOUNCES 8u

/* One address space's view of the process: what a userfaultfd is on a real machine. */
struct gm_sim_pmap {
	struct gm_sim *sim;
	LIST_ENTRY(gm_sim_pmap) link;
	unsigned refs; /* its owner, and coroutines that are about to post an event */
	bool dead;
	unsigned changing; /* events prepared whose poster does not run again yet (mmap_changing) */
	unsigned slots;
	bool kicked;
	bool serves; /* children have descriptors */
	TAILQ_HEAD(, gm_sim_fault) faults;
	TAILQ_HEAD(, gm_sim_event) events;
	struct gm_sim_threads readers; /* in msg_wait() */
	struct gm_sim_slot *bounce[GM_SIM_BOUNCES];
	gm_ret_t (*freeze)(void *arg);
	void (*thaw)(void *arg);
	void *fork_arg;
};

void gm_sim_pmap_put(struct gm_sim_pmap *pmap);
/* An event is on its way: from here on the pmap's changes answer AGAIN. */
void gm_sim_event_prepare(struct gm_sim_pmap *pmap);
/* Post it and block until it was read. Ends what prepare began. */
void gm_sim_event_post(struct gm_sim_pmap *pmap, struct gm_host_msg msg);
/* Report an access and block until wake(), the deadline, or for nothing. The pmap may be gone afterwards. */
void gm_sim_fault_wait(struct gm_sim_pmap *pmap, uint64_t va, bool write, bool wp, uint64_t deadline_ns);
void gm_sim_fault_wake(struct gm_sim_pmap *pmap, uint64_t va, uint64_t end);
/* The pmap goes: whoever waits for it goes on. */
void gm_sim_msg_release(struct gm_sim_pmap *pmap);
size_t gm_sim_msg_read(void *pmap, struct gm_host_msg *msgs, size_t n);
gm_ret_t gm_sim_msg_wait(void *pmap, uint64_t deadline_ns);
void gm_sim_msg_kick(void *pmap);
gm_ret_t gm_sim_msg_settled(void *pmap);

/* ---------------------------------------------------------- pages in and out */

/* As in gm_host.h. */
gm_ret_t gm_sim_steal(void *pmap, uint64_t va, const struct gm_mask *want, uint64_t addr, struct gm_host_steal *out);
gm_ret_t gm_sim_restore(void *pmap, uint64_t va, uint64_t addr, uint64_t bytes, uint64_t *done);
gm_ret_t gm_sim_fill(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done);
gm_ret_t gm_sim_fill_protected(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done);
gm_ret_t gm_sim_unprotect(void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_sim_zero(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done);
gm_ret_t gm_sim_poison(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done);
gm_ret_t gm_sim_unmark(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done);

/* ----------------------------------------------------------------- children */

#define GM_SIM_SERVED 16u

/* A descriptor of a child. */
struct gm_sim_served {
	struct gm_sim_child *child;
	struct gm_sim_pmap *pmap; /* NULL: free */
};

/* Of the child's memory as it is now; before it runs. */
const struct gm_sim_vma *gm_sim_child_vma(const struct gm_sim_child *child, uint64_t va);
bool gm_sim_child_has(const struct gm_sim_child *child, uint64_t va);
/* A page where it has none; the frame is the child's. NULL: poisoned. */
void gm_sim_child_put(struct gm_sim_child *child, uint64_t va, uint8_t *frame);
/* It has ended: every load answers IO. */
void gm_sim_child_kill(struct gm_sim_child *child);

/* After the copy: descriptors, and who is told of them; others of `pmap` become NULL. When thaw is over: all are closed. */
void gm_sim_serve_begin(struct gm_sim *sim, struct gm_sim_child *child, struct gm_sim_pmap **pmap, unsigned n);
void gm_sim_serve_end(struct gm_sim *sim, const struct gm_sim_child *child);
/* As in gm_host.h. */
gm_ret_t gm_sim_serve_forks(void *pmap);
gm_ret_t gm_sim_child_fill(void *pmap, int child, uint64_t va, const void *src, uint64_t bytes, uint64_t *done);
size_t gm_sim_child_read(void *pmap, int child, struct gm_host_msg *msgs, size_t n);
void gm_sim_child_close(void *pmap, int child);
void gm_sim_child_fail(void *pmap);

/* -------------------------------------------------------------------- world */

enum gm_sim_op {
	GM_SIM_STEAL,
	GM_SIM_RESTORE,
	GM_SIM_FILL,
	GM_SIM_ZERO,
	GM_SIM_WATCH,
	GM_SIM_WATCH_STORES,
	GM_SIM_FILL_PROTECTED,
	GM_SIM_UNPROTECT,
	GM_SIM_SLOT_ALLOC,
	GM_SIM_MEM_MAP,
	GM_SIM_CHILD_FILL,
	GM_SIM_MEM_PROTECT, /* from here on: "cannot tell" */
	GM_SIM_MEM_PROBE,
	GM_SIM_MEM_RIGHTS,
	GM_SIM_MEM_KIND,
	GM_SIM_MEM_CONTENT,
	GM_SIM_MEM_PRESENT,
	GM_SIM_BUS_ACCESS,
	GM_SIM_OPS,
};

/* Count a call of `op`: must it fail (gm_sim_fail())? */
bool gm_sim_trapped(struct gm_sim *sim, enum gm_sim_op op);

/* --- gm_sim_ask.c --- */

/* Is the question one that cannot be answered now? NOMEM, with the reason; SUCCESS: it can. */
gm_ret_t gm_sim_cannot_tell(struct gm_sim *sim, enum gm_sim_op op);
gm_ret_t gm_sim_mem_probe(void *pmap, uint64_t va, struct gm_host_vma *out);
gm_ret_t gm_sim_mem_rights(void *pmap, uint64_t va, struct gm_host_vma *out);
gm_ret_t gm_sim_mem_kind(void *pmap, uint64_t va, struct gm_host_vma *out);
bool gm_sim_mem_huge(void *pmap, uint64_t va);
gm_ret_t gm_sim_mem_content(void *pmap, uint64_t va, struct gm_host_content *out);
gm_ret_t gm_sim_mem_present(void *pmap, uint64_t va, struct gm_mask *present);

/* The world this thread of the machine used last: a device's bus access names neither world nor pmap. */

/* Calls until the first that fails (0: unarmed), and how many then do. */
struct gm_sim_trap {
	uint64_t nth, count;
};

struct gm_sim {
	struct gm_env env; /* first: the environment is the world */
	uint64_t rng;
	uint64_t now_ns;
	uint64_t horizon_ns;
	uint64_t next_timer_ns; /* of the first timer */
	uint64_t hash;
	uint64_t switches;
	bool spurious;
	bool stuck; /* gm_sim_run() ended without its coroutine */
	uint32_t next_id;
	struct gm_thread main;
	struct gm_thread *current; /* &main outside gm_sim_run() */
	struct gm_thread *previous; /* who switched to current */
	struct gm_thread *first;   /* gm_sim_run()'s */
	struct gm_thread **ready;
	size_t n_ready, max_ready;
	struct gm_sim_threads all;
	struct gm_sim_timers timers;
	struct gm_sim_stack *free_stacks;

	struct gm_sim_vmas vmas;
	struct gm_sim_blocks blocks;
	struct gm_sim_block *last_block;
	struct gm_sim_slots slots;
	struct gm_sim_slot *free_slots;
	bool forking;                /* one fork at a time, as gm_host_fork.c's lock has it */
	struct gm_sim_threads forkers; /* who waits for it */
	struct gm_sim_child *newborn; /* of the fork under way, after the copy */
	struct gm_sim_served served[GM_SIM_SERVED];
	LIST_HEAD(, gm_sim_pmap) pmaps;
	LIST_HEAD(, gm_sim_pmap) dead_pmaps; /* destroyed, but coroutines hold references */
	struct gm_sim_trap trap[GM_SIM_OPS];
	struct gm_sim_stats stats;
};

/* Does a coroutine run, rather than the caller of gm_sim_run()? */
static inline bool gm_sim_inside(const struct gm_sim *sim)
{
	return sim->current != &sim->main;
}

#endif
