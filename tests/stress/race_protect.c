/* SPDX-License-Identifier: MIT */
/*
 * gm_protect() against devices that count, for --rounds rounds (2000), half of them in an inclusive space and half in an
 * exclusive one.
 *
 *     writable --gm_protect(GM_READ or 0)--> frozen: nothing changes, though devices go on trying --gm_protect(RW)--> writable
 *
 * Two devices, with several threads each, add one to words of random pages of a range (moved to them, mapped in place at
 * its edges), as fast as they can. What a device thread
 * was told had been added is counted. A mover moves pieces both ways meanwhile.
 *
 * One thread changes the rights of a random piece of it. From when gm_protect() has returned, until it gives the right
 * back, no store of a device to the piece that begins may succeed. Those who try tell (`piece`), and do not load there:
 * what was left mapped by mistake must stay until it is tried, and whoever reads may bring the page elsewhere. So only
 * after enough tries a device loads (and fails under no rights at all), and the CPU reads each word twice, some time
 * apart. While it may be read a device's load there succeeds, whatever is refused to others. At the end no addition is
 * lost.
 *
 * --handler same, other: the library's threads on the CPU of the thread that looks, or on another; default: both, half the
 * rounds each. The long run: --rounds 100000 --limit 7200.
 */
#include "tests/stress/race_hand.h"

#define PAGES	 64u
#define COUNTERS 4u /* threads of each device */
#define BYTES	 (PAGES * RACE_PAGE)
#define LINE	 UINT64_C(64)

static struct protect {
	struct race r;
	uint64_t va;
	uint64_t bytes; /* what is adopted: not whole pages */
	uint64_t seed;
	uint64_t frozen, refused_loads, tried;
	_Atomic uint64_t piece; /* round, first page, one past the last: what nobody may write now; 0: nothing */
	_Atomic uint64_t tries; /* to write there, that began and ended in this round */
	struct gm_fence *fence[RACE_DEVS];
	struct counter {
		struct race_beat *beat;
		uint64_t seed;
		uint64_t added[PAGES]; /* this thread's word of each page has so many */
		uint64_t done, refused;
	} counter[RACE_DEVS][COUNTERS];
	struct race_hand hand;
} p;

static uint64_t word_of(unsigned page, unsigned dev, unsigned index)
{
	return p.va + page * RACE_PAGE + RACE_PAGE / 2 + (dev * COUNTERS + index) * LINE;
}

/* Any page, every other time one of the piece. `inside`: it is one. */
static unsigned pick(struct counter *c, uint64_t piece, bool *inside)
{
	unsigned first = piece >> 8 & 0xff, end = piece & 0xff, page = (unsigned)(race_rand(&c->seed) % PAGES);

	if (end && race_rand(&c->seed) % 2)
		page = first + page % (end - first);
	*inside = page >= first && page < end;
	return page;
}

/* A store to page `page` of the piece is over, and it had been the piece since before it began. */
static void judge(unsigned dev, unsigned page, gm_ret_t ret)
{
	atomic_fetch_add(&p.tries, 1);
	if (!ret)
		race_fail(&p.r, "device %u wrote to page %u, where nobody may", dev, page);
}

/* One thread of a device. What fails against the rights is no addition. */
static gm_ret_t count(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct counter *c = &((struct counter *)arg)[index];
	unsigned dev = arg == p.counter[1];

	while (!atomic_load(&p.r.stop)) {
		uint64_t piece = atomic_load(&p.piece), va, seen, next;
		bool inside;
		unsigned page = pick(c, piece, &inside);
		gm_ret_t ret;

		va = word_of(page, dev, index);
		seen = c->added[page];
		ret = inside ? GM_RET_SUCCESS : gm_mock_load(t, va, &seen, 8);

		if (!ret && seen != c->added[page])
			race_fail(&p.r, "page %u, device %u, thread %u: %" PRIu64 " instead of %" PRIu64, page, dev, index, seen,
				  c->added[page]);
		next = c->added[page] + 1;
		if (!ret)
			ret = gm_mock_store(t, va, &next, 8);
		if (ret && ret != GM_RET_PERM && ret != GM_RET_FAULT)
			race_fail(&p.r, "device %u: %s", dev, gm_ret_name(ret));
		if (inside && atomic_load(&p.piece) == piece)
			judge(dev, page, ret);
		c->added[page] += !ret;
		c->done += !ret;
		c->refused += ret != GM_RET_SUCCESS;
		race_tick(c->beat);
	}
	atomic_store(&c->beat->idle, true);
	return GM_RET_SUCCESS;
}

static uint64_t sum(unsigned first, unsigned pages)
{
	uint64_t all = 0;

	for (unsigned page = first; page < first + pages; page++)
		for (unsigned i = 0; i < RACE_DEVS * COUNTERS; i++)
			all += *race_word(word_of(page, i / COUNTERS, i % COUNTERS));
	return all;
}

static void rights(unsigned first, unsigned pages, uint32_t access)
{
	RACE_MUST(&p.r, gm_protect(p.r.as, p.va + first * RACE_PAGE, pages * RACE_PAGE, access));
}

/* The piece may not be written. When this returns that was tried, by whoever comes: twice for each page, on average. */
static void let_try(uint64_t round, unsigned first, unsigned pages)
{
	atomic_store(&p.tries, 0);
	atomic_store(&p.piece, (round + 1) << 16 | first << 8 | (first + pages));
	while (atomic_load(&p.tries) < UINT64_C(2) * pages && !atomic_load(&p.r.stop))
		race_sleep_ns(20000);
	p.tried += atomic_load(&p.tries);
}

static void freeze(uint64_t round)
{
	unsigned first = (unsigned)(race_rand(&p.seed) % PAGES), pages = 1 + (unsigned)(race_rand(&p.seed) % (PAGES - first));
	bool none = round % 3 == 0;
	uint64_t before, after;

	rights(first, pages, none ? 0 : GM_READ);
	let_try(round, first, pages);
	if (none) {
		gm_ret_t ret = race_hand_do(&p.hand, RACE_EXPECT, p.va + first * RACE_PAGE, RACE_PAGE, 0);

		if (ret != GM_RET_FAULT)
			race_fail(&p.r, "a device's load without any right: %s", gm_ret_name(ret));
		p.refused_loads++;
		rights(first, pages, GM_READ);
	}
	if (round % 3 == 1)
		(void)race_hand_do(&p.hand, RACE_EXPECT, p.va + first * RACE_PAGE, RACE_PAGE, 0);
	if (round % 3 == 1 && p.hand.ret)
		race_fail(&p.r, "a device's load where it may read: %s", gm_ret_name(p.hand.ret));
	before = sum(first, pages);
	if (round % 4 == 0)
		race_sleep_ns(100000);
	after = sum(first, pages);
	if (before != after)
		race_fail(&p.r, "round %" PRIu64 ": %" PRIu64 " was added where nobody may write", round, after - before);
	p.frozen += pages;
	atomic_store(&p.piece, 0);
	rights(first, pages, GM_READ | GM_WRITE);
}

static void set_up(uint32_t flags)
{
	p.va = race_place(&p.r, BYTES);
	memset((void *)(uintptr_t)p.va, 0, BYTES);
	race_open(&p.r, flags);
	p.seed = p.r.opt.seed * 17 + 5;
	p.frozen = p.refused_loads = p.tried = 0;
	/* the last page is an edge: mapped in place */
	p.bytes = BYTES - 100;
	RACE_MUST(&p.r, gm_adopt(p.r.as, (void *)(uintptr_t)p.va, p.bytes, 0));
	race_add_target(&p.r, p.va, BYTES, false, NULL);
	memset(p.counter, 0, sizeof(p.counter));
	for (unsigned d = 0; d < RACE_DEVS; d++) {
		for (unsigned i = 0; i < COUNTERS; i++) {
			p.counter[d][i].beat = race_beat(&p.r, "counter");
			p.counter[d][i].seed = p.r.opt.seed * 101 + (uint64_t)d * COUNTERS + i + 1;
		}
		RACE_MUST(&p.r, gm_mock_launch(p.r.ctx[d], count, p.counter[d], COUNTERS, &p.fence[d]));
	}
	race_hand_start(&p.hand, &p.r, 1);
}

/* Every addition is there, once. */
static void verify(const char *space)
{
	uint64_t done = 0, refused = 0, lost = 0;

	for (unsigned d = 0; d < RACE_DEVS; d++)
		for (unsigned i = 0; i < COUNTERS; i++) {
			done += p.counter[d][i].done;
			refused += p.counter[d][i].refused;
			for (unsigned page = 0; page < PAGES; page++)
				lost += *race_word(word_of(page, d, i)) != p.counter[d][i].added[page];
		}
	printf("%s: %s space, handler %s: %" PRIu64 " pages frozen, %" PRIu64 " tries there, %" PRIu64
	       " added, %" PRIu64 " refused, %" PRIu64 " migrations, %" PRIu64 " lost\n", p.r.program, space,
	       p.r.opt.handler, p.frozen, p.tried, done, refused, race_migrations(&p.r), lost);
	if (lost)
		race_fail(&p.r, "%" PRIu64 " words are wrong", lost);
	if (!done || !refused || !race_migrations(&p.r))
		race_fail(&p.r, "nothing was added, refused or moved: the run proves nothing");
}

static void run(const char *space, uint32_t flags, uint64_t rounds)
{
	struct race_beat *beat;
	pthread_t mover;

	set_up(flags);
	race_pin_self(&p.r);
	beat = race_beat(&p.r, "changer");
	race_start(&p.r, &mover, race_mover, &p.r);
	for (uint64_t round = 0; round < rounds && !atomic_load(&p.r.stop); round++) {
		freeze(round);
		race_tick(beat);
	}
	atomic_store(&beat->idle, true);
	atomic_store(&p.r.stop, true);
	pthread_join(mover, NULL);
	race_hand_stop(&p.hand);
	for (unsigned d = 0; d < RACE_DEVS; d++) {
		RACE_MUST(&p.r, gm_fence_wait(p.fence[d], 60 * RACE_SEC));
		gm_fence_put(p.fence[d]);
	}
	race_check(&p.r);
	verify(space);
	RACE_MUST(&p.r, gm_release(p.r.as, (void *)(uintptr_t)p.va, p.bytes));
	munmap((void *)(uintptr_t)p.va, BYTES);
	race_close(&p.r);
}

int main(int argc, char **argv)
{
	const char *handler[] = { "same", "other" };
	unsigned n = 2;

	race_begin(&p.r, "race_protect", argc, argv);
	if (p.r.opt.rounds == 100) /* as nobody has said otherwise */
		p.r.opt.rounds = 2000;
	if (strcmp(p.r.opt.handler, "free")) {
		handler[0] = p.r.opt.handler;
		n = 1;
	}
	for (unsigned i = 0; i < n; i++) {
		uint64_t rounds = p.r.opt.rounds / n / 2;

		p.r.opt.handler = handler[i];
		if (strcmp(p.r.opt.space, "exclusive") && !atomic_load(&p.r.failures))
			run("inclusive", 0, rounds);
		if (strcmp(p.r.opt.space, "inclusive") && !atomic_load(&p.r.failures))
			run("exclusive", GM_AS_EXCLUSIVE, rounds);
	}
	return race_end(&p.r);
}
