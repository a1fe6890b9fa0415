/* SPDX-License-Identifier: MIT */
/* An address space, its contexts, its queue of work. */
#ifndef GM_CORE_AS_H
#define GM_CORE_AS_H

#include "core/gm_block.h"
#include "core/gm_dev.h"
#include "core/gm_fork_serve.h"
#include "core/gm_inthread.h"
#include "core/gm_pack.h"
#include "core/gm_plant.h"
#include "core/gm_protect.h"
#include "core/gm_region.h"
#include "core/gm_remap.h"
#include "hal/gm_readers.h"

enum gm_stat {
#define GM_STAT_ENUM_(name, text) GM_STAT_##name,
	GM_STAT_LIST(GM_STAT_ENUM_)
#undef GM_STAT_ENUM_
	GM_STATS,
	GM_STAT_EDGES = GM_STATS, /* counts for both dev_faults and pages_in_place */
	GM_STATS_KEPT
};

/* Counters are added to where the thread runs, so that CPUs do not take the line from each other; who reads adds up. */
#define GM_STAT_SHARDS 8
struct gm_stat_shard {
	char before[64]; /* however the space is aligned, no two shards lie in one line */
	_Atomic uint64_t n[(GM_STATS_KEPT + 7) / 8 * 8];
};

#define GM_CTX_CLOSING (UINT32_C(1) << 31)

struct gm_ctx {
	struct gm_as *as;
	struct gm_dev *dev;
	TAILQ_ENTRY(gm_ctx) in_dev;  /* (dev->lock) */
	unsigned index;              /* in as->ctx */
	void *pmap;
	uint64_t va, end;            /* host VA it can see */
	uint64_t to_dev;             /* device VA = host VA + to_dev (modulo 2^64) */
	char before[64];             /* what others read is not in the line of: */
	atomic_uint users;           /* calls in flight; and GM_CTX_CLOSING, then changed with dev->lock only */
	_Atomic uint32_t ticks;      /* fault blocks served, roughly: which are timed */
	char behind[56];
	unsigned sets;               /* (dev->lock) working sets held */
};

#define GM_HANDLER_MSGS 64

/* What the program said of forks, by VA; see gm_fork_policy.c. */
struct gm_fork_range {
	uint64_t va, end;
	enum gm_fork policy;
};

struct gm_fork_table {
	struct gm_fork_range *range;
	unsigned n, room;
};

struct gm_pin;

/* Of a space that mirrors the process; see gm_mirror.c. */
struct gm_mirror {
	atomic_uint blocks;  /* that have external pages */
	atomic_uint limit;   /* with more of them the worker looks which are of use */
	atomic_bool sweep;   /* the worker's job */
	atomic_uint sets;    /* working sets; see gm_mirror_leave_held() */
};

struct gm_as {
	TAILQ_ENTRY(gm_as) in_lib;       /* (lib->lock) */
	struct gm_lib *lib;
	struct gm_env *env;
	struct gm_hal_dev *host;
	void *hpmap;                     /* the host's view */
	struct gm_as_config cfg;         /* defaults filled in */
	struct gm_policy policy;         /* a copy, complete */
	uint64_t begin, end;

	struct gm_mutex lock;            /* GM_RANK_AS (A) */
	struct gm_waitq waitq;           /* (A) frozen, settled, counts that reach zero */
	struct gm_regions regions;       /* (A) */
	struct gm_radix blocks;          /* by VA / 2 MiB: struct gm_block, or packed. (A), or read as one of `readers` */
	struct gm_readers readers;       /* of blocks; changed by who has (A) and keeps them out */
	struct gm_pack pack;
	struct gm_mirror mirror;
	struct gm_ctx *ctx[GM_MAX_CTXS]; /* (A) */
	atomic_uint granule_pages;       /* largest granule of the devices attached so far */
	atomic_uint live_blocks;         /* in memory, and packed victims in somebody's hands: the space ends at 0 */
	atomic_uint releasing;            /* gm_free(), gm_release() under way: regions are out, mappings not yet */
	atomic_uint doomed_blocks;       /* with pages that an event doomed and nobody dropped yet */
	struct gm_zap_ranges zaps;       /* (A) */
	uint64_t forget_ns;              /* a block that is all host for so long is forgotten; tests have more patience */
	struct gm_rights rights;         /* changes of what the process itself may do */
	LIST_HEAD(, gm_pin) pins;        /* (A) the last one first */
	unsigned sets;                   /* (A) working sets held */
	unsigned frozen;                 /* (A) a fork is on its way: nothing moves to a device */
	unsigned moving;                 /* (A) transactions to devices in flight */
	unsigned reader_held;            /* (A) who takes or gives pages now: no message is read meanwhile */
	uint64_t forks_begun;            /* (A) */
	uint64_t msgs_gen;               /* (A) rounds of the handler */
	atomic_bool msgs_busy;           /* (A), read without it: the handler has messages it has not handled */
	atomic_bool told_lost;           /* that the descriptors are lost for ever */
	bool msgs_reader;                /* (A) somebody is in gm_events_once(): one at a time */
	bool msgs_stuck;                 /* (A) ... and waits for the worker before it goes on */
	bool exporting;                  /* (A) somebody is in gm_shared_fd() */
	struct gm_remaps remaps;         /* (A) ranges that mremap() moved and the worker has not yet */
	struct gm_fork_table forks;      /* (A) */
	struct gm_serving serve;

	struct gm_inthread_asks asks;    /* faults for the handler that no message tells */

	/* the handler's own */
	struct gm_host_msg msg[GM_HANDLER_MSGS];
	size_t msgs, next_msg;
	_Atomic uint64_t cpu_last_end;   /* where the last CPU fault's unit ended (a hint) */
	_Atomic uint32_t cpu_last_bytes;
	struct gm_thread *handler;

	struct gm_mutex queue_lock;      /* GM_RANK_QUEUE (Q) */
	struct gm_waitq queue_waitq;
	TAILQ_HEAD(, gm_block) work;     /* (Q) */
	uint64_t work_until_ns;          /* (Q) the worker sleeps until then; 0: it does not, and will look */
	atomic_bool stop;                /* (Q), read without it */
	bool refill;                     /* (Q) the stock of regions and remaps wants filling */
	bool remap_noted;                /* (Q) there is a remap to do */
	struct gm_thread *worker;

	uint64_t dev_last_end[GM_MAX_CTXS]; /* hints, racy by design: read and written relaxed */
	uint32_t dev_last_bytes[GM_MAX_CTXS];

	struct gm_stat_shard stat[GM_STAT_SHARDS];
#ifdef GM_ENABLE_CHECKS
	enum gm_plant plant;
#endif
};

/* For several at once: the counters of where the thread runs. */
static inline struct gm_stat_shard *gm_stat_here(struct gm_as *as)
{
	return &as->stat[gm_env_cpu(as->env) % GM_STAT_SHARDS];
}

static inline void gm_stat_add_to(struct gm_stat_shard *s, enum gm_stat which, uint64_t n)
{
	atomic_fetch_add_explicit(&s->n[which], n, memory_order_relaxed);
}

static inline void gm_stat_add(struct gm_as *as, enum gm_stat which, uint64_t n)
{
	gm_stat_add_to(gm_stat_here(as), which, n);
}

/* Time since `start_ns`, booked. */
static inline void gm_stat_time(struct gm_as *as, enum gm_stat which, uint64_t start_ns)
{
	gm_stat_add(as, which, gm_now_ns(as->env) - start_ns);
}

/* Time since *now_ns, booked; and what time it is. */
static inline void gm_stat_lap(struct gm_as *as, enum gm_stat which, uint64_t *now_ns)
{
	uint64_t now = gm_now_ns(as->env);

	gm_stat_add(as, which, now - *now_ns);
	*now_ns = now;
}

static inline uint64_t gm_block_base(uint64_t va)
{
	return va & ~(uint64_t)(GM_BLOCK_BYTES - 1);
}

static inline unsigned gm_page_of(const struct gm_block *b, uint64_t va)
{
	return (unsigned)((va - b->va) / GM_PAGE_BYTES);
}

/* The pages of [va, end) that lie in block b. */
struct gm_mask gm_block_clip(const struct gm_block *b, uint64_t va, uint64_t end);

/* The context that sees `as` through `pmap` of `dev`, kept alive; NULL if there is none (any more). */
struct gm_ctx *gm_ctx_enter_pmap(struct gm_dev *dev, void *pmap);
/* The same for a known context: false if it is being detached. */
bool gm_ctx_enter(struct gm_ctx *ctx);
void gm_ctx_leave(struct gm_ctx *ctx);
/* No new calls, and nothing left of the space on the device; a failure leaves it open as before. Open again; gone. */
gm_ret_t gm_ctx_close(struct gm_ctx *ctx);
void gm_ctx_reopen(struct gm_ctx *ctx);
void gm_ctx_drop(struct gm_ctx *ctx);
/* The context of a device in a space, entered: gm_ctx_leave() it; or NULL. */
struct gm_ctx *gm_as_ctx_of(struct gm_as *as, struct gm_dev *dev);

/* Check and round a public range: SUCCESS, INVAL. */
gm_ret_t gm_as_check_range(const struct gm_as *as, const char *what, uint64_t va, uint64_t bytes);

#endif
