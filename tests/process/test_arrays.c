/* SPDX-License-Identifier: MIT */
/*
 * What the caller hands to a call of the library, and what the call fills in, may itself be managed memory that is away.
 * A call that read or wrote it with a lock held that the handler wants would wait for itself, for ever.
 */
#include "config.h"

#include <pthread.h>
#include <stdatomic.h>

#include "tests/process/process.h"

TestSuite(arrays, .timeout = 290);

/* Where the caller's things lie: pages of the first block, each for one. What calls are about lies in the second. */
static void *away(struct proc *p, unsigned page)
{
	char *at = p->at + page * PAGE;

	OK(gm_migrate(p->as, GM_VA(at), PAGE, p->dev, NULL));
	MUST(info_of(p, at).place == GM_PLACE_DEVICE, "page %u", page);
	return at;
}

static void queries(struct proc *p)
{
	struct gm_dev_info *dev = away(p, 1);
	struct gm_residency *r = away(p, 2);
	struct gm_stats *stats = away(p, 3);
	struct gm_rung_info *rung = away(p, 4);
	struct gm_mock_stats *mock = away(p, 5);
	struct gm_page_info *info = away(p, 6);
	char *text = away(p, 7);

	OK(gm_dev_query(p->dev, dev));
	MUST(dev->mem_bytes >= dev->mem_free_bytes && dev->mem_bytes, "of the device");
	OK(gm_residency(p->as, GM_VA(p->at) + BLOCK, BLOCK, r));
	MUST(r->host_bytes + r->dev_bytes[0] == BLOCK, "residency");
	OK(gm_as_stats(p->as, stats));
	OK(gm_lib_rung(p->lib, rung));
	OK(gm_mock_stats(p->dev, mock));
	OK(gm_query(p->as, GM_VA(p->at) + BLOCK, 16, info));
	MUST(info[15].place == GM_PLACE_HOST || info[15].place == GM_PLACE_DEVICE, "query");
	(void)away(p, 6);
	OK(gm_query_host(p->as, GM_VA(p->at) + BLOCK, 16, info));
	MUST(info[15].place == GM_PLACE_HOST || info[15].place == GM_PLACE_DEVICE, "query of the host");
	OK(gm_as_check(p->as, text, PAGE));
}

static void results(struct proc *p)
{
	struct gm_dev **dev = away(p, 8);
	uint64_t *n = away(p, 9);
	struct gm_fence **fence = away(p, 10);
	void **ptr = away(p, 11);
	char *spec = p->at + 12 * PAGE;

	memcpy(spec, "mock", 5);
	(void)away(p, 12);
	OK(gm_dev_open(p->lib, spec, dev));
	OK(gm_dev_destroy(*dev));
	OK(gm_migrate(p->as, GM_VA(p->at) + BLOCK, BLOCK, NULL, n));
	(void)away(p, 9);
	OK(gm_migrate(p->as, GM_VA(p->at) + BLOCK, BLOCK, p->dev, n));
	MUST(*n == BLOCK, "moved %llu", (unsigned long long)*n);
	(void)away(p, 9);
	OK(gm_duplicate(p->as, GM_VA(p->at) + BLOCK, BLOCK, p->dev, n));
	(void)away(p, 9);
	OK(gm_exclusive(p->ctx, GM_VA(p->at) + BLOCK, BLOCK, n));
	OK(gm_fence_create(p->lib, fence));
	OK(gm_fence_signal(*fence, GM_RET_SUCCESS));
	gm_fence_put(*fence);
	OK(gm_alloc(p->as, BLOCK, 0, ptr));
	OK(gm_free(p->as, *ptr));
	(void)away(p, 11);
	OK(gm_alloc_shared(p->as, BLOCK, 0, ptr));
	(void)away(p, 9);
	OK(gm_shared_fd(p->as, *ptr, (int *)n));
	SYS(close(*(int *)n));
	OK(gm_free(p->as, *ptr));
}

#define RANGES_AT (64 * PAGE)
#define RANGES_BYTES (128 * PAGE)
#define RANGES ((size_t)(RANGES_BYTES / sizeof(struct gm_ws_range)))

static struct gm_ws_range *ranges(struct proc *p)
{
	struct gm_ws_range *range = (struct gm_ws_range *)(p->at + RANGES_AT);

	for (size_t i = 0; i < RANGES; i++)
		range[i] = (struct gm_ws_range){ GM_VA(p->at) + BLOCK + i % BLOCK_PAGES * PAGE, PAGE, GM_READ };
	return range;
}

/* They go away again and again while working sets are made of them. */
struct mover {
	struct proc *p;
	atomic_bool enough;
};

static void *moves_ranges(void *arg)
{
	struct mover *m = arg;

	while (!atomic_load(&m->enough))
		(void)gm_migrate(m->p->as, GM_VA(m->p->at) + RANGES_AT, RANGES_BYTES, m->p->dev, NULL);
	return NULL;
}

static void sets(struct proc *p)
{
	struct gm_ws_room *room = away(p, 40);
	struct gm_ws **ws = away(p, 41);
	struct gm_ws_range *range = ranges(p);
	struct mover m = { .p = p };
	pthread_t mover;

	MUST(pthread_create(&mover, NULL, moves_ranges, &m) == 0, "pthread_create");
	for (unsigned i = 0; i < 10; i++) {
		OK(gm_ws_room(p->ctx, range, RANGES, room));
		MUST(room->need_bytes >= BLOCK, "%llu", (unsigned long long)room->need_bytes);
		OK(gm_ws_acquire(p->ctx, range, RANGES, GM_FOREVER_NS, ws));
		OK(gm_ws_release(*ws, NULL));
		(void)gm_migrate(p->as, GM_VA(room), 2 * PAGE, p->dev, NULL);
	}
	atomic_store(&m.enough, true);
	pthread_join(mover, NULL);
}

PLACE_TEST(arrays, of_the_caller)
{
	queries(p);
	results(p);
	sets(p);
	p->want[0] = *word_at(p->at, 0);
	MUST(dev_wrong(p, p->at, 0, 1) == 0, "the page beside them");
}
