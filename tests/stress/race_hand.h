/* SPDX-License-Identifier: MIT */
/*
 * What works on the memory of the race programs: threads that move pieces of it
 * about, and a device thread that takes orders (a hand): add to, store, or look
 * at the first word of each page of a range.
 */
#ifndef GM_TEST_RACE_HAND_H
#define GM_TEST_RACE_HAND_H

#include "tests/stress/race.h"

/* --------------------------------------------------------------- movers */

static inline void race_move(struct race *r, const struct race_target *t, uint64_t *seed)
{
	uint64_t pages = t->bytes / RACE_PAGE, n = race_rand(seed) % 64 + 1;
	uint64_t first = race_rand(seed) % pages, dest = race_rand(seed) % 4;
	gm_ret_t ret;

	n = first + n > pages ? pages - first : n;
	if (t->gate)
		pthread_rwlock_rdlock(t->gate);
	ret = gm_migrate(r->as, t->va + first * RACE_PAGE, n * RACE_PAGE, dest < RACE_DEVS ? r->dev[dest] : NULL, NULL);
	if (t->gate)
		pthread_rwlock_unlock(t->gate);
	atomic_fetch_add(&r->moves, 1);
	if (ret == GM_RET_BUSY || ret == GM_RET_NOSPC)
		atomic_fetch_add(&r->refused, 1);
	else if (ret && !(ret == GM_RET_FAULT && t->holes))
		race_fail(r, "gm_migrate: %s: %s", gm_ret_name(ret), gm_last_error());
}

/* Moves pieces of the targets at random, both ways. */
static inline void *race_mover(void *arg)
{
	struct race *r = arg;
	struct race_beat *beat = race_beat(r, "mover");
	uint64_t seed = r->opt.seed * 7919 + 1;

	while (!atomic_load(&r->stop)) {
		race_move(r, &r->target[race_rand(&seed) % r->targets], &seed);
		race_tick(beat);
	}
	atomic_store(&beat->idle, true);
	return NULL;
}

/* ------------------------------------------ a device thread that takes orders */

enum race_order { RACE_ADD, RACE_STORE, RACE_EXPECT, RACE_QUIT };

struct race_hand {
	struct race *r;
	struct gm_fence *fence;
	sem_t go, done;
	enum race_order order;
	uint64_t va, bytes, value; /* the first word of each page */
	gm_ret_t ret;
	uint64_t bad_va, bad_value; /* EXPECT: what was there instead; bad_va 0: all as expected */
};

static inline void race_obey(struct race_hand *h, struct gm_mock_thread *t)
{
	h->ret = GM_RET_SUCCESS;
	h->bad_va = 0;
	for (uint64_t va = h->va; va < h->va + h->bytes && !h->ret; va += RACE_PAGE) {
		uint64_t seen = h->value;

		if (h->order == RACE_ADD)
			h->ret = gm_mock_fetch_add(t, va, h->value, NULL);
		else if (h->order == RACE_STORE)
			h->ret = gm_mock_store(t, va, &h->value, 8);
		else
			h->ret = gm_mock_load(t, va, &seen, 8);
		if (seen != h->value && !h->bad_va) {
			h->bad_va = va;
			h->bad_value = seen;
		}
	}
}

static inline gm_ret_t race_hand_kernel(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct race_hand *h = arg;

	(void)index;
	for (;;) {
		sem_wait(&h->go);
		if (h->order == RACE_QUIT)
			return GM_RET_SUCCESS;
		race_obey(h, t);
		sem_post(&h->done);
	}
}

static inline void race_hand_start(struct race_hand *h, struct race *r, unsigned dev)
{
	h->r = r;
	sem_init(&h->go, 0, 0);
	sem_init(&h->done, 0, 0);
	RACE_MUST(r, gm_mock_launch(r->ctx[dev], race_hand_kernel, h, 1, &h->fence));
}

static inline gm_ret_t race_hand_do(struct race_hand *h, enum race_order order, uint64_t va, uint64_t bytes,
				    uint64_t value)
{
	h->order = order;
	h->va = va;
	h->bytes = bytes;
	h->value = value;
	sem_post(&h->go);
	sem_wait(&h->done);
	return h->ret;
}

static inline void race_hand_stop(struct race_hand *h)
{
	h->order = RACE_QUIT;
	sem_post(&h->go);
	RACE_MUST(h->r, gm_fence_wait(h->fence, 60 * RACE_SEC));
	gm_fence_put(h->fence);
	sem_destroy(&h->go);
	sem_destroy(&h->done);
}

/* What the device sees must be `value` in every page. */
static inline bool race_dev_sees(struct race_hand *h, const char *what, uint64_t va, uint64_t bytes, uint64_t value)
{
	gm_ret_t ret = race_hand_do(h, RACE_EXPECT, va, bytes, value);

	if (ret)
		race_fail(h->r, "%s: device load: %s", what, gm_ret_name(ret));
	else if (h->bad_va)
		race_fail(h->r, "%s: device sees %" PRIu64 " at 0x%" PRIx64 ", expected %" PRIu64, what, h->bad_value,
			  h->bad_va, value);
	return !ret && !h->bad_va;
}

static inline bool race_cpu_sees(struct race *r, const char *what, uint64_t va, uint64_t bytes, uint64_t value)
{
	for (uint64_t at = va; at < va + bytes; at += RACE_PAGE) {
		uint64_t seen = *race_word(at);

		if (seen != value) {
			race_fail(r, "%s: CPU sees %" PRIu64 " at 0x%" PRIx64 ", expected %" PRIu64, what, seen, at,
				  value);
			return false;
		}
	}
	return true;
}

static inline void race_cpu_write(uint64_t va, uint64_t bytes, uint64_t value)
{
	for (uint64_t at = va; at < va + bytes; at += RACE_PAGE)
		*race_word(at) = value;
}

static inline void race_dev_add(struct race_hand *h, const char *what, uint64_t va, uint64_t bytes)
{
	gm_ret_t ret = race_hand_do(h, RACE_ADD, va, bytes, 1);

	if (ret)
		race_fail(h->r, "%s: device add: %s", what, gm_ret_name(ret));
}

/*
 * Adopt what is at an address that was adopted before and unmapped since. Where
 * all of it was on the host at that time the library was not told, and whoever
 * moves memory about may have moved the new one by the old claim: EXIST, and to
 * be released first.
 */
static inline void race_adopt_again(struct race *r, uint64_t va, uint64_t bytes)
{
	gm_ret_t ret = gm_adopt(r->as, (void *)(uintptr_t)va, bytes, 0);

	if (ret == GM_RET_EXIST) {
		RACE_MUST(r, gm_release(r->as, (void *)(uintptr_t)va, bytes));
		atomic_fetch_add(&r->claimed, 1);
		ret = gm_adopt(r->as, (void *)(uintptr_t)va, bytes, 0);
	}
	race_must(r, ret, "gm_adopt of a used address");
}

#endif
