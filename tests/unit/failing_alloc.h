/* SPDX-License-Identifier: MIT */
/*
 * An allocator for tests, over calloc(): counts what is alive, checks the size
 * given to free, and fails the n-th call on demand. Usable from several threads.
 *
 *	struct failing_alloc fa;
 *
 *	failing_alloc_init(&fa);
 *	config.allocator = &fa.table;
 *	for (size_t n = 1; ; n++) {
 *		failing_alloc_arm(&fa, n);
 *		ret = thing_create(...);
 *		if (!failing_alloc_fired(&fa))
 *			break;          // fewer than n allocations: all were tried
 *		...                     // ret is NOMEM, fa.live is what it was
 *	}
 */
#ifndef GM_TEST_FAILING_ALLOC_H
#define GM_TEST_FAILING_ALLOC_H

#include <stdatomic.h>
#include <stdlib.h>

#include <gmem/lib.h>

struct failing_alloc {
	struct gm_allocator table;
	atomic_size_t live;	  /* allocations that were not freed */
	atomic_size_t live_bytes; /* their sizes */
	atomic_size_t calls;	  /* calls of alloc since arm() */
	atomic_size_t fail_at;	  /* 1: the next call fails; 0: none */
	atomic_bool fail_all;	  /* until it is false again, which counts those that failed: */
	atomic_size_t failed;
	void (*on_alloc)(void *arg); /* called at each call; NULL */
	void *on_arg;
	atomic_size_t bad_frees;  /* frees with a wrong size: a bug of the caller */
};

/* In front of every piece; keeps its alignment. */
union failing_alloc_head {
	size_t bytes;
	char align[16];
};

static inline void *failing_alloc_alloc(void *arg, size_t bytes)
{
	struct failing_alloc *fa = arg;
	union failing_alloc_head *head;

	if (fa->on_alloc)
		fa->on_alloc(fa->on_arg);
	if (atomic_load(&fa->fail_all)) {
		atomic_fetch_add(&fa->failed, 1);
		return NULL;
	}
	if (atomic_fetch_add(&fa->calls, 1) + 1 == atomic_load(&fa->fail_at))
		return NULL;
	if (bytes > SIZE_MAX - sizeof(*head))
		return NULL;
	head = calloc(1, sizeof(*head) + bytes);
	if (!head)
		return NULL;
	head->bytes = bytes;
	atomic_fetch_add(&fa->live, 1);
	atomic_fetch_add(&fa->live_bytes, bytes);
	return head + 1;
}

static inline void failing_alloc_free(void *arg, void *ptr, size_t bytes)
{
	struct failing_alloc *fa = arg;
	union failing_alloc_head *head = (union failing_alloc_head *)ptr - 1;

	if (head->bytes != bytes)
		atomic_fetch_add(&fa->bad_frees, 1);
	atomic_fetch_sub(&fa->live, 1);
	atomic_fetch_sub(&fa->live_bytes, head->bytes);
	free(head);
}

static inline void failing_alloc_init(struct failing_alloc *fa)
{
	fa->table = (struct gm_allocator){ failing_alloc_alloc, failing_alloc_free, fa };
	atomic_init(&fa->live, 0);
	atomic_init(&fa->live_bytes, 0);
	atomic_init(&fa->calls, 0);
	atomic_init(&fa->fail_at, 0);
	atomic_init(&fa->bad_frees, 0);
	fa->on_alloc = NULL;
	fa->on_arg = NULL;
	atomic_init(&fa->fail_all, false);
	atomic_init(&fa->failed, 0);
}

/* From now on the n-th call fails, that one only; 0: none. */
static inline void failing_alloc_arm(struct failing_alloc *fa, size_t n)
{
	atomic_store(&fa->fail_at, 0);
	atomic_store(&fa->calls, 0);
	atomic_store(&fa->fail_at, n);
}

/* Was the call that should fail reached? */
static inline bool failing_alloc_fired(struct failing_alloc *fa)
{
	size_t at = atomic_load(&fa->fail_at);

	return at != 0 && atomic_load(&fa->calls) >= at;
}

#endif
