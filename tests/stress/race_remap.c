/* SPDX-License-Identifier: MIT */
/*
 * Memory on the move. A buffer of 16 pages wanders between six places, two in each of three 2 MiB blocks:
 *
 *     | . A . . B . | . C . . D . | . E . . F . |      mremap(): there; there and the old place left as zeros
 *                                                      (MREMAP_DONTUNMAP); half of it cut off and grown again
 *
 * while everybody faults at it, wherever it is at that moment:
 *
 *  - a hand on one device adds to every page now and then, and the owner, a CPU thread, looks: exact;
 *  - a kernel on the other device counts in it without asking where it is. While the buffer stays where it is for
 *    the whole of an access, the access must hit it: what it counted is found again. One that met a
 *    move may fail, or be lost with the old place;
 *  - another kernel, and a thread that reads through the kernel (process_vm_readv(), which fails where
 *    nothing is mapped), load at all places: an answer is the right page, neither older than what was known before
 *    nor newer than what was begun; never zeros where the buffer lives;
 *  - movers push all places to devices and back.
 *
 * `seq` is odd during a move; who sees the same even number before and after an access knows where the buffer was.
 */
#include "tests/stress/race_hand.h"

#include <errno.h>
#include <sys/uio.h>

#define PAGES	    16u
#define BYTES	    (PAGES * RACE_PAGE)
#define HALF_BYTES  (BYTES / 2)
#define PLACES	    6u
#define ZONE_BYTES  (UINT64_C(3) * GM_BLOCK_BYTES)
#define PAGE_SHIFT  40 /* a word: which page it belongs to, then what was counted */
#define COUNT_MASK  ((UINT64_C(1) << PAGE_SHIFT) - 1)

struct remap {
	struct race r;
	uint64_t zone;
	_Atomic uint64_t seq;
	_Atomic unsigned place;
	_Atomic uint64_t floor, ceiling;	 /* of the count in word 0 of every page: ended, begun */
	_Atomic uint64_t sure[PAGES], unsure[PAGES]; /* of word 1: found again for certain; perhaps */
	_Atomic uint64_t hits, misses, looks, blanks;
	uint64_t moves, refusals, dontunmaps, cuts;
	struct race_beat *owner_beat, *adder_beat, *looker_beat, *kernel_beat;
};

static uint64_t place_va(const struct remap *u, unsigned place)
{
	return u->zone + (uint64_t)(place / 2) * GM_BLOCK_BYTES + (place % 2 ? UINT64_C(1) << 20 : UINT64_C(256) << 10);
}

static uint64_t stamp(unsigned page, uint64_t count)
{
	return (uint64_t)(page + 1) << PAGE_SHIFT | count;
}

/* Where the buffer is; true: not on the move. */
static bool look_where(struct remap *u, uint64_t *seq, unsigned *place)
{
	*seq = atomic_load(&u->seq);
	*place = atomic_load(&u->place);
	return *seq % 2 == 0;
}

static bool stayed(struct remap *u, uint64_t seq)
{
	return seq % 2 == 0 && atomic_load(&u->seq) == seq;
}

/* Somebody loaded word 0 of a page of a place. */
static void judge(struct remap *u, const char *who, unsigned page, uint64_t seen, bool must, uint64_t floor)
{
	uint64_t count = seen & COUNT_MASK, ceiling = atomic_load(&u->ceiling);

	atomic_fetch_add(seen ? &u->looks : &u->blanks, 1);
	if (!seen && must)
		race_fail(&u->r, "%s: zero in page %u, where the buffer was all the time", who, page);
	if (seen && (seen >> PAGE_SHIFT != page + 1 || count > ceiling || (must && count < floor)))
		race_fail(&u->r, "%s: 0x%" PRIx64 " in page %u: not %" PRIu64 " to %" PRIu64, who, seen, page, floor, ceiling);
}

static gm_ret_t load_kernel(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct remap *u = arg;
	uint64_t seed = u->r.opt.seed * 17 + 1;

	(void)index;
	while (!atomic_load(&u->r.stop)) {
		unsigned where, page = (unsigned)(race_rand(&seed) % PAGES), at = (unsigned)(race_rand(&seed) % PLACES);
		uint64_t seq, seen = 0, floor = atomic_load(&u->floor);
		bool still = look_where(u, &seq, &where);
		gm_ret_t ret;

		if (race_rand(&seed) % 2)
			at = where;
		ret = gm_mock_load(t, place_va(u, at) + page * RACE_PAGE, &seen, 8);
		still = still && at == where && stayed(u, seq);
		if (!ret)
			judge(u, "device", page, seen, still, floor);
		else if (still || (ret != GM_RET_FAULT && ret != GM_RET_NOTSUP))
			race_fail(&u->r, "device: %s where the buffer %s", gm_ret_name(ret), still ? "is" : "may be");
		race_tick(u->kernel_beat);
		gm_mock_yield(t);
	}
	atomic_store(&u->kernel_beat->idle, true);
	return GM_RET_SUCCESS;
}

static gm_ret_t add_kernel(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct remap *u = arg;
	uint64_t seed = u->r.opt.seed * 19 + 1;

	(void)index;
	while (!atomic_load(&u->r.stop)) {
		unsigned where, page = (unsigned)(race_rand(&seed) % (PAGES / 2)); /* what is never cut off */
		uint64_t seq;
		bool still = look_where(u, &seq, &where);
		gm_ret_t ret = gm_mock_fetch_add(t, place_va(u, where) + page * RACE_PAGE + 8, 1, NULL);

		still = still && stayed(u, seq);
		if (!ret)
			atomic_fetch_add(still ? &u->sure[page] : &u->unsure[page], 1);
		else if (still || (ret != GM_RET_FAULT && ret != GM_RET_NOTSUP))
			race_fail(&u->r, "device: counting in page %u: %s", page, gm_ret_name(ret));
		atomic_fetch_add(ret ? &u->misses : &u->hits, 1);
		race_tick(u->adder_beat);
		gm_mock_yield(t);
	}
	atomic_store(&u->adder_beat->idle, true);
	return GM_RET_SUCCESS;
}

/* The CPU, by way of the kernel: an address where nothing is mapped is an error, no signal. */
static void *look_around(void *arg)
{
	struct remap *u = arg;
	uint64_t seed = u->r.opt.seed * 23 + 1;

	while (!atomic_load(&u->r.stop)) {
		unsigned where, page = (unsigned)(race_rand(&seed) % PAGES), at = (unsigned)(race_rand(&seed) % PLACES);
		uint64_t seq, seen = 0, floor = atomic_load(&u->floor);
		bool still = look_where(u, &seq, &where);
		struct iovec here = { &seen, 8 }, there;

		if (race_rand(&seed) % 2)
			at = where;
		there = (struct iovec){ (void *)(uintptr_t)(place_va(u, at) + page * RACE_PAGE), 8 };
		if (process_vm_readv(getpid(), &here, 1, &there, 1, 0) == 8)
			judge(u, "CPU", page, seen, still && at == where && stayed(u, seq), floor);
		else if (still && at == where && stayed(u, seq))
			race_fail(&u->r, "CPU: no access to page %u, where the buffer is", page);
		race_tick(u->looker_beat);
	}
	atomic_store(&u->looker_beat->idle, true);
	return NULL;
}

/* ------------------------------------------------------------ the owner */

static void must_be(struct remap *u, void *got, uint64_t want, const char *what)
{
	if (got != (void *)(uintptr_t)want)
		race_must(&u->r, GM_RET_FAULT, what);
}

static void move_to(struct remap *u, unsigned from, unsigned to, bool leave)
{
	void *old = (void *)(uintptr_t)place_va(u, from), *new = (void *)(uintptr_t)place_va(u, to);
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (leave ? MREMAP_DONTUNMAP : 0);
	void *got = mremap(old, BYTES, BYTES, flags, new);

	if (got == MAP_FAILED && errno == EFAULT) { /* half of it is watched: see gm_adopt() */
		u->refusals++;
		RACE_MUST(&u->r, gm_release(u->r.as, old, BYTES));
		got = mremap(old, BYTES, BYTES, flags, new);
	}
	must_be(u, got, place_va(u, to), "mremap to another place");
	if (!leave)
		return;
	u->dontunmaps++;
	for (unsigned page = 0; page < PAGES; page++) /* of the device's count there may be some: see the top */
		if (*race_word(place_va(u, from) + page * RACE_PAGE))
			race_fail(&u->r, "the place that was left: not zero in page %u", page);
	must_be(u, munmap(old, BYTES) ? old : NULL, 0, "munmap of the place that was left");
}

/* Half of it is cut off and grown again: what was there is gone, for everybody. */
static void cut(struct remap *u, unsigned place)
{
	uint64_t va = place_va(u, place);
	void *p = (void *)(uintptr_t)va;

	must_be(u, mremap(p, BYTES, HALF_BYTES, 0), va, "mremap to half the size");
	must_be(u, mremap(p, HALF_BYTES, BYTES, 0), va, "mremap to the old size");
	u->cuts++;
	for (unsigned page = PAGES / 2; page < PAGES; page++) {
		if (*race_word(va + page * RACE_PAGE))
			race_fail(&u->r, "grown anew: not zero in page %u", page);
		*race_word(va + page * RACE_PAGE) = stamp(page, atomic_load(&u->floor));
	}
}

static bool is_managed(struct remap *u, uint64_t va)
{
	struct gm_page_info info[PAGES / 2];

	RACE_MUST(&u->r, gm_query(u->r.as, va, PAGES / 2, info));
	for (unsigned i = 0; i < PAGES / 2; i++)
		if (info[i].place == GM_PLACE_OUTSIDE)
			return false;
	return true;
}

/* Half of a place: the library has followed it, or it is adopted anew. */
static void claim(struct remap *u, uint64_t va)
{
	gm_ret_t ret = gm_adopt(u->r.as, (void *)(uintptr_t)va, HALF_BYTES, 0);

	if (ret == GM_RET_EXIST && is_managed(u, va))
		return;
	atomic_fetch_add(&u->r.claimed, 1);
	if (ret == GM_RET_EXIST)
		race_adopt_again(&u->r, va, HALF_BYTES);
	else
		race_must(&u->r, ret, "gm_adopt of the new place");
}

static void wander(struct remap *u, uint64_t *seed)
{
	unsigned from = atomic_load(&u->place), to = (from + 1 + (unsigned)(race_rand(seed) % (PLACES - 1))) % PLACES;
	uint64_t how = race_rand(seed) % 4;

	atomic_fetch_add(&u->seq, 1);
	u->moves++;
	if (how == 0)
		cut(u, from);
	else
		move_to(u, from, to, how == 1);
	to = how ? to : from;
	claim(u, place_va(u, to));
	claim(u, place_va(u, to) + HALF_BYTES);
	atomic_store(&u->place, to);
	atomic_fetch_add(&u->seq, 1);
}

static void owner_sees(struct remap *u, uint64_t count)
{
	uint64_t va = place_va(u, atomic_load(&u->place));

	for (unsigned page = 0; page < PAGES; page++) {
		uint64_t seen = *race_word(va + page * RACE_PAGE);

		if (seen != stamp(page, count))
			race_fail(&u->r, "owner: page %u: 0x%" PRIx64 " instead of %" PRIu64, page, seen, count);
	}
}

/* The hand adds to every page. */
static void count_all(struct remap *u, struct race_hand *hand, bool look)
{
	uint64_t count = atomic_load(&u->floor) + 1;

	atomic_store(&u->ceiling, count);
	race_dev_add(hand, "buffer", place_va(u, atomic_load(&u->place)), BYTES);
	atomic_store(&u->floor, count);
	if (look)
		owner_sees(u, count);
}

static void live(struct remap *u)
{
	uint64_t seed = u->r.opt.seed * 29 + 1, next = race_now_ns() + 10 * RACE_SEC;
	struct race_hand hand;

	race_hand_start(&hand, &u->r, 0);
	for (uint64_t i = 1; i <= u->r.opt.rounds && !atomic_load(&u->r.stop); i++) {
		wander(u, &seed);
		if (i % 4 == 0)
			count_all(u, &hand, race_rand(&seed) & 1);
		race_tick(u->owner_beat);
		if (race_now_ns() > next) {
			next += 10 * RACE_SEC;
			printf("%s: %" PRIu64 " of %" PRIu64 " moves\n", u->r.program, i, u->r.opt.rounds);
		}
	}
	atomic_store(&u->owner_beat->idle, true);
	atomic_store(&u->r.stop, true);
	race_hand_stop(&hand);
}

static uint64_t verify(struct remap *u)
{
	uint64_t va = place_va(u, atomic_load(&u->place)), lost = 0;

	owner_sees(u, atomic_load(&u->floor));
	for (unsigned page = 0; page < PAGES / 2; page++) {
		uint64_t seen = *race_word(va + page * RACE_PAGE + 8), sure = atomic_load(&u->sure[page]);

		lost += seen < sure || seen > sure + atomic_load(&u->unsure[page]);
	}
	if (lost)
		race_fail(&u->r, "what devices counted is wrong in %" PRIu64 " pages", lost);
	return lost;
}

/* --------------------------------------------------------------- a world */

static void set_up(struct remap *u, uint32_t flags)
{
	race_open(&u->r, flags);
	u->seq = u->floor = u->ceiling = u->hits = u->misses = u->looks = u->blanks = u->moves = u->refusals = u->dontunmaps = u->cuts = 0;
	u->place = 0;
	for (unsigned page = 0; page < PAGES; page++)
		u->sure[page] = u->unsure[page] = 0;
	u->zone = race_place(&u->r, ZONE_BYTES);
	munmap((void *)(uintptr_t)u->zone, ZONE_BYTES);
	if (mmap((void *)(uintptr_t)place_va(u, 0), BYTES, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED)
		race_must(&u->r, GM_RET_NOMEM, "mmap");
	for (unsigned page = 0; page < PAGES; page++)
		*race_word(place_va(u, 0) + page * RACE_PAGE) = stamp(page, 0);
	claim(u, place_va(u, 0));
	claim(u, place_va(u, 0) + HALF_BYTES);
	race_add_target(&u->r, u->zone, ZONE_BYTES, true, NULL);
	u->owner_beat = race_beat(&u->r, "owner");
	u->adder_beat = race_beat(&u->r, "dev adder");
	u->looker_beat = race_beat(&u->r, "looker");
	u->kernel_beat = race_beat(&u->r, "dev loads");
}

static void report(struct remap *u, const char *space, uint64_t ns, uint64_t lost)
{
	uint64_t all = race_migrations(&u->r);

	printf("%s: %s space, handler %s\n", u->r.program, space, u->r.opt.handler);
	printf("  moves      %" PRIu64 ", %.0f/s, %" PRIu64 " left zeros, %" PRIu64 " cut; halves adopted anew %" PRIu64 "\n",
	       u->moves, (double)u->moves * 1e9 / (double)ns, u->dontunmaps, u->cuts, u->r.claimed);
	printf("  refused    %" PRIu64 " by the kernel, as half of it was watched\n", u->refusals);
	printf("  counted    %" PRIu64 ", %" PRIu64 " without an answer\n", u->hits, u->misses);
	printf("  looked     %" PRIu64 " answers, %" PRIu64 " zeros\n", u->looks, u->blanks);
	printf("  lost       %" PRIu64 "\n", lost);
	printf("  %.1f s, %" PRIu64 " migrations\n", (double)ns / 1e9, all);
	if (!all || !u->hits || !u->looks)
		race_fail(&u->r, "nothing migrated, or nobody saw anything: the run proves nothing");
}

static void run(struct remap *u, const char *space, uint32_t flags)
{
	gm_ret_t (*const kernel[2])(struct gm_mock_thread *, unsigned, void *) = { add_kernel, load_kernel };
	struct gm_fence *fence[2];
	pthread_t looker, mover;
	uint64_t start, ns, lost;

	set_up(u, flags);
	start = race_now_ns();
	for (unsigned i = 0; i < 2; i++)
		RACE_MUST(&u->r, gm_mock_launch(u->r.ctx[1], kernel[i], u, 1, &fence[i]));
	race_start(&u->r, &looker, look_around, u);
	race_start(&u->r, &mover, race_mover, &u->r);
	live(u);
	pthread_join(looker, NULL);
	pthread_join(mover, NULL);
	for (unsigned i = 0; i < 2; i++) {
		(void)gm_fence_wait(fence[i], 60 * RACE_SEC);
		gm_fence_put(fence[i]);
	}
	ns = race_now_ns() - start;
	race_check(&u->r);
	lost = verify(u);
	report(u, space, ns, lost);
	RACE_MUST(&u->r, gm_release(u->r.as, (void *)(uintptr_t)place_va(u, atomic_load(&u->place)), BYTES));
	munmap((void *)(uintptr_t)place_va(u, atomic_load(&u->place)), BYTES);
	race_close(&u->r);
}

int main(int argc, char **argv)
{
	static struct remap u;

	race_begin(&u.r, "race_remap", argc, argv);
	if (strcmp(u.r.opt.space, "exclusive"))
		run(&u, "inclusive", 0);
	if (strcmp(u.r.opt.space, "inclusive") && !atomic_load(&u.r.failures))
		run(&u, "exclusive", GM_AS_EXCLUSIVE);
	return race_end(&u.r);
}
