/* SPDX-License-Identifier: MIT */
/*
 * CPU threads and kernels of two devices count in the same pages of shared memory while these migrate both ways, as in
 * race_counters.c: each has a word of its own in every page, which it loads, compares with what it wrote last, and stores
 * plus one; all add to one word of every page. Meanwhile
 *
 *  - threads move random pieces to a device or home, and devices evict;
 *  - a thread calls madvise(MADV_DONTNEED) on pieces: of shared memory that takes nothing but entries of the page table;
 *  - a thread allocates, fills by CPU and device, exports, checks by another mapping, and frees, again and again.
 *
 * In the end the memory is exported, and another mapping of it must show every count.
 *
 * Ends when the library counted --migrations moves and there were a tenth of --rounds exports, a quarter of that each in an
 * inclusive and in an exclusive space, with the library's threads on the CPU of the CPU threads and on another (--handler
 * same, other: only so).
 */
#include "tests/stress/race_hand.h"

#define MIB	(UINT64_C(1) << 20)
#define PARTS	2u
#define EACH	512u /* pages of a part: 2 MiB */
#define PAGES	1024u /* PARTS * EACH */
#define PLAYERS 32u
#define HOT	16u
#define STEP	UINT64_C(64) /* pages from one of those that all want to the next */

_Static_assert(PAGES == PARTS * EACH, "all parts");

struct player {
	struct sharing *c;
	struct race_beat *beat;
	unsigned id;
	uint32_t own[PAGES], added[PAGES];
	uint64_t ops;
};

struct sharing {
	struct race r;
	void *part[PARTS];
	struct player *player;
	unsigned players;
	pthread_t cpu[8];
	struct gm_fence *kernel[RACE_DEVS];
	_Atomic uint64_t exports, dontneeds;
};

static uint64_t page_va(const struct sharing *c, unsigned page)
{
	return GM_VA(c->part[page / EACH]) + (uint64_t)(page % EACH) * RACE_PAGE;
}

static uint64_t own_va(const struct player *p, unsigned page)
{
	return page_va(p->c, page) + (p->id * UINT64_C(15) + 2) * 8;
}

static uint64_t shared_va(const struct sharing *c, unsigned page)
{
	return page_va(c, page) + UINT64_C(511) * 8;
}

static void check_own(struct player *p, unsigned page, uint64_t seen, const char *who)
{
	if (seen != p->own[page])
		race_fail(&p->c->r, "%s player %u, page %u: sees %" PRIu64 ", wrote %u", who, p->id, page, seen, p->own[page]);
}

static void cpu_count(struct player *p, unsigned page)
{
	volatile uint64_t *own = race_word(own_va(p, page));

	check_own(p, page, *own, "CPU");
	*own = ++p->own[page];
	__atomic_fetch_add(race_word(shared_va(p->c, page)), 1, __ATOMIC_RELAXED);
	p->added[page]++;
}

static gm_ret_t dev_count(struct player *p, unsigned page, struct gm_mock_thread *t)
{
	uint64_t seen = 0, next = (uint64_t)p->own[page] + 1;
	gm_ret_t ret = gm_mock_load(t, own_va(p, page), &seen, 8);

	if (ret)
		return ret;
	check_own(p, page, seen, "device");
	ret = gm_mock_store(t, own_va(p, page), &next, 8);
	if (ret)
		return ret;
	p->own[page]++;
	ret = gm_mock_fetch_add(t, shared_va(p->c, page), 1, NULL);
	if (!ret)
		p->added[page]++;
	return ret;
}

/* Now and then anywhere, else a few pages that all want. */
static unsigned choose_page(uint64_t *seed)
{
	uint64_t x = race_rand(seed);

	return (unsigned)(x & 3 ? (x >> 8) % HOT * STEP : (x >> 8) % PAGES);
}

static void *cpu_player(void *arg)
{
	struct player *p = arg;
	uint64_t seed = p->c->r.opt.seed * 104729 + p->id + 1;

	race_pin_self(&p->c->r);
	while (!atomic_load(&p->c->r.stop)) {
		unsigned page = choose_page(&seed);

		for (uint64_t n = race_rand(&seed) % 8 + 1; n > 0; n--, p->ops++)
			cpu_count(p, page);
		race_tick(p->beat);
	}
	atomic_store(&p->beat->idle, true);
	return NULL;
}

static gm_ret_t dev_player(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct player *p = (struct player *)arg + index;
	uint64_t seed = p->c->r.opt.seed * 1299709 + p->id + 1;
	gm_ret_t ret = GM_RET_SUCCESS;

	while (!atomic_load(&p->c->r.stop) && !ret) {
		unsigned page = choose_page(&seed);

		for (uint64_t n = race_rand(&seed) % 8 + 1; n > 0 && !ret; n--, p->ops++)
			ret = dev_count(p, page, t);
		race_tick(p->beat);
		gm_mock_yield(t);
	}
	if (ret)
		race_fail(&p->c->r, "device player %u: %s", p->id, gm_ret_name(ret));
	atomic_store(&p->beat->idle, true);
	return ret;
}

static void *dontneed(void *arg)
{
	struct sharing *c = arg;
	struct race_beat *beat = race_beat(&c->r, "dontneed");
	uint64_t seed = c->r.opt.seed * 7 + 3;

	race_pin_self(&c->r);
	while (!atomic_load(&c->r.stop)) {
		unsigned page = (unsigned)(race_rand(&seed) % (PAGES - 8));
		uint64_t pages = page % EACH + 8 > EACH ? 1 : race_rand(&seed) % 8 + 1;

		if (madvise((void *)(uintptr_t)page_va(c, page), pages * RACE_PAGE, MADV_DONTNEED))
			race_fail(&c->r, "madvise");
		atomic_fetch_add(&c->dontneeds, 1);
		race_tick(beat);
		race_sleep_ns(200000);
	}
	atomic_store(&beat->idle, true);
	return NULL;
}

/* What the descriptor shows; true: all of it is `value`. */
static bool file_sees(struct race *r, int fd, uint64_t bytes, uint64_t value)
{
	void *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	bool ok = p != MAP_FAILED && race_cpu_sees(r, "by the descriptor", GM_VA(p), bytes, value);

	if (p != MAP_FAILED)
		munmap(p, bytes);
	return ok;
}

static void export_round(struct sharing *c, struct race_hand *hand, uint64_t round, uint64_t *seed)
{
	uint64_t bytes = (race_rand(seed) % 2 + 1) * 2 * MIB;
	void *p = NULL;
	int fd = -1;

	RACE_MUST(&c->r, gm_alloc_shared(c->r.as, bytes, 0, &p));
	race_cpu_sees(&c->r, "new shared memory", GM_VA(p), bytes, 0);
	race_cpu_write(GM_VA(p), bytes, 2 * round);
	race_dev_add(hand, "shared", GM_VA(p), bytes);
	if (race_rand(seed) & 1) {
		RACE_MUST(&c->r, gm_shared_fd(c->r.as, p, &fd));
		(void)file_sees(&c->r, fd, bytes, 2 * round + 1);
		race_dev_sees(hand, "exported", GM_VA(p), bytes, 2 * round + 1);
		race_hand_do(hand, RACE_STORE, GM_VA(p), bytes, 2 * round + 5);
		(void)file_sees(&c->r, fd, bytes, 2 * round + 5);
		close(fd);
	} else {
		race_cpu_sees(&c->r, "shared", GM_VA(p), bytes / 2, 2 * round + 1);
	}
	RACE_MUST(&c->r, gm_free(c->r.as, p));
	atomic_fetch_add(&c->exports, 1);
}

static void *exporter(void *arg)
{
	struct sharing *c = arg;
	struct race_beat *beat = race_beat(&c->r, "exporter");
	uint64_t seed = c->r.opt.seed * 11 + 5;
	struct race_hand hand;

	race_pin_self(&c->r);
	race_hand_start(&hand, &c->r, 0);
	for (uint64_t round = 1; !atomic_load(&c->r.stop); round++) {
		export_round(c, &hand, round, &seed);
		race_tick(beat);
	}
	atomic_store(&beat->idle, true);
	race_hand_stop(&hand);
	return NULL;
}

static struct player *add_player(struct sharing *c, const char *name)
{
	struct player *p = &c->player[c->players];

	p->c = c;
	p->beat = race_beat(&c->r, name);
	p->id = c->players++;
	return p;
}

static void start_players(struct sharing *c)
{
	for (unsigned i = 0; i < c->r.opt.cpus; i++)
		race_start(&c->r, &c->cpu[i], cpu_player, add_player(c, "cpu"));
	for (unsigned d = 0; d < RACE_DEVS; d++) {
		struct player *first = &c->player[c->players];

		for (unsigned i = 0; i < c->r.opt.kernels; i++)
			(void)add_player(c, d ? "device 1" : "device 0");
		RACE_MUST(&c->r, gm_mock_launch(c->r.ctx[d], dev_player, first, c->r.opt.kernels, &c->kernel[d]));
	}
}

static void stop_players(struct sharing *c)
{
	for (unsigned i = 0; i < c->r.opt.cpus; i++)
		pthread_join(c->cpu[i], NULL);
	for (unsigned d = 0; d < RACE_DEVS; d++) {
		if (gm_fence_wait(c->kernel[d], 60 * RACE_SEC))
			race_fail(&c->r, "kernels of device %u", d);
		gm_fence_put(c->kernel[d]);
	}
}

/* Every word of every page, by the descriptors. */
static uint64_t verify(struct sharing *c)
{
	uint64_t lost = 0;

	for (unsigned part = 0; part < PARTS; part++) {
		uint64_t bytes = 2 * MIB, sum, base = GM_VA(c->part[part]);
		char *seen;
		int fd = -1;

		RACE_MUST(&c->r, gm_shared_fd(c->r.as, c->part[part], &fd));
		seen = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
		if (seen == MAP_FAILED)
			abort();
		for (unsigned page = part * EACH; page < (part + 1) * EACH; page++) {
			sum = 0;
			for (unsigned i = 0; i < c->players; i++) {
				lost += *(uint64_t *)(seen + (own_va(&c->player[i], page) - base)) != c->player[i].own[page];
				sum += c->player[i].added[page];
			}
			lost += *(uint64_t *)(seen + (shared_va(c, page) - base)) != sum;
		}
		munmap(seen, bytes);
	}
	if (lost)
		race_fail(&c->r, "%" PRIu64 " words are wrong", lost);
	return lost;
}

static void print(struct sharing *c, const char *space, uint64_t lost)
{
	struct gm_stats s = { .cpu_faults = 0 };
	uint64_t cpu = 0, dev = 0;

	(void)gm_as_stats(c->r.as, &s);
	for (unsigned i = 0; i < c->players; i++)
		*(i < c->r.opt.cpus ? &cpu : &dev) += c->player[i].ops;
	printf("%s: %s space, handler %s: migrations %" PRIu64 " to devices, %" PRIu64 " to the host; %" PRIu64 " exports, %" PRIu64
	       " dontneed; counted %" PRIu64 " by CPUs, %" PRIu64 " by devices; lost %" PRIu64 "\n",
	       c->r.program, space, c->r.opt.handler, s.migrations_to_dev, s.migrations_to_host, atomic_load(&c->exports),
	       atomic_load(&c->dontneeds), cpu, dev, lost);
	if (!cpu || !dev)
		race_fail(&c->r, "somebody did nothing at all: the run proves nothing");
}

static void run(struct sharing *c, const char *space, uint32_t flags)
{
	pthread_t mover[4] = { 0 }, other[2];
	uint64_t lost;

	race_open(&c->r, flags);
	c->players = 0;
	c->exports = c->dontneeds = 0;
	c->player = calloc(PLAYERS, sizeof(*c->player));
	if (!c->player)
		abort();
	for (unsigned i = 0; i < PARTS; i++) {
		RACE_MUST(&c->r, gm_alloc_shared(c->r.as, 2 * MIB, 0, &c->part[i]));
		race_add_target(&c->r, GM_VA(c->part[i]), 2 * MIB, false, NULL);
	}
	start_players(c);
	race_start(&c->r, &other[0], dontneed, c);
	race_start(&c->r, &other[1], exporter, c);
	for (unsigned i = 0; i < c->r.opt.movers; i++)
		race_start(&c->r, &mover[i], race_mover, &c->r);
	while (!atomic_load(&c->r.stop) &&
	       (race_migrations(&c->r) < c->r.opt.migrations || atomic_load(&c->exports) < c->r.opt.rounds / 10))
		race_sleep_ns(RACE_SEC / 50);
	atomic_store(&c->r.stop, true);
	for (unsigned i = 0; i < c->r.opt.movers; i++)
		pthread_join(mover[i], NULL);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(other[i], NULL);
	stop_players(c);
	race_check(&c->r);
	lost = verify(c);
	race_check(&c->r);
	print(c, space, lost);
	for (unsigned i = 0; i < PARTS; i++)
		RACE_MUST(&c->r, gm_free(c->r.as, c->part[i]));
	free(c->player);
	race_close(&c->r);
}

int main(int argc, char **argv)
{
	static struct sharing c;
	const char *handler[] = { "same", "other" };
	unsigned placements = 2, spaces;

	race_begin(&c.r, "race_shared", argc, argv);
	if (strcmp(c.r.opt.handler, "free")) {
		handler[0] = c.r.opt.handler;
		placements = 1;
	}
	spaces = strcmp(c.r.opt.space, "both") ? 1 : 2;
	c.r.opt.migrations /= placements * spaces;
	c.r.opt.rounds /= placements * spaces;
	for (unsigned i = 0; i < placements; i++) {
		c.r.opt.handler = handler[i];
		if (strcmp(c.r.opt.space, "exclusive") && !atomic_load(&c.r.failures))
			run(&c, "inclusive", 0);
		if (strcmp(c.r.opt.space, "inclusive") && !atomic_load(&c.r.failures))
			run(&c, "exclusive", GM_AS_EXCLUSIVE);
	}
	return race_end(&c.r);
}
