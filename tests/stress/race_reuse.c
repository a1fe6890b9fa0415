/* SPDX-License-Identifier: MIT */
/*
 * One address, many lives. In the middle of a 2 MiB block
 *
 *     [left 256 KiB | victim | right 256 KiB]
 *
 * the victim is adopted, written by a device, and unmapped without gm_release()
 * (or mapped over, or dropped with MADV_DONTNEED first), mapped again with new
 * content, adopted again, over and over. Meanwhile
 *
 *  - movers push all of the block, the victim included, to devices and back;
 *  - a CPU thread and a device count in the neighbours, which stay in use;
 *  - a kernel of the other device reads the victim all the time. A generation is
 *    in each page; once gm_adopt() returned, no older one may be seen. While
 *    there is no memory at the address its access may fail.
 *
 * The victim has 128 KiB. Lives of --victim-pages 4 are shorter: the long run is --rounds 100000 --victim-pages 4
 * --limit 7200.
 */
#include "tests/stress/race_hand.h"

#define SIDE_BYTES (UINT64_C(256) << 10)
#define SIDE_PAGES (2 * SIDE_BYTES / RACE_PAGE)

struct reuse {
	struct race r;
	uint64_t left, victim, right, victim_bytes;
	_Atomic uint64_t generation;	 /* adopted last */
	_Atomic uint64_t ended;		 /* the last whose memory is being taken away, or was */
	_Atomic uint64_t looks, refused; /* of the reader: loads, of these without an answer */
	uint32_t cpu_own[SIDE_PAGES], dev_own[SIDE_PAGES];
	struct race_beat *cpu_beat, *dev_beat, *reader_beat, *victim_beat;
};

/* Bits 8 and up: the generation; below: what a device added. */
static uint64_t stamp(uint64_t generation)
{
	return generation << 8;
}

/* Pages of both neighbours, one after the other. */
static uint64_t side_page(const struct reuse *u, uint64_t i)
{
	return i < SIDE_PAGES / 2 ? u->left + i * RACE_PAGE : u->right + (i - SIDE_PAGES / 2) * RACE_PAGE;
}

static void *cpu_neighbour(void *arg)
{
	struct reuse *u = arg;
	uint64_t seed = u->r.opt.seed * 3 + 1;

	race_pin_self(&u->r);
	while (!atomic_load(&u->r.stop)) {
		uint64_t i = race_rand(&seed) % SIDE_PAGES, seen = *race_word(side_page(u, i) + 8);

		if (seen != u->cpu_own[i])
			race_fail(&u->r, "CPU: neighbour 0x%" PRIx64 ": sees %" PRIu64 ", wrote %u", side_page(u, i),
				  seen, u->cpu_own[i]);
		*race_word(side_page(u, i) + 8) = ++u->cpu_own[i];
		race_tick(u->cpu_beat);
	}
	atomic_store(&u->cpu_beat->idle, true);
	return NULL;
}

static gm_ret_t dev_neighbour(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct reuse *u = arg;
	uint64_t seed = u->r.opt.seed * 5 + 1;
	gm_ret_t ret = GM_RET_SUCCESS;

	(void)index;
	while (!atomic_load(&u->r.stop) && !ret) {
		uint64_t i = race_rand(&seed) % SIDE_PAGES, seen = u->dev_own[i], next = seen + 1;

		ret = gm_mock_load(t, side_page(u, i) + 16, &seen, 8);
		if (!ret && seen != u->dev_own[i])
			race_fail(&u->r, "device: neighbour 0x%" PRIx64 ": sees %" PRIu64 ", wrote %u", side_page(u, i),
				  seen, u->dev_own[i]);
		if (!ret)
			ret = gm_mock_store(t, side_page(u, i) + 16, &next, 8);
		u->dev_own[i] += !ret;
		race_tick(u->dev_beat);
		gm_mock_yield(t);
	}
	if (ret)
		race_fail(&u->r, "device: neighbour: %s", gm_ret_name(ret));
	atomic_store(&u->dev_beat->idle, true);
	return ret;
}

static gm_ret_t reader(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct reuse *u = arg;
	uint64_t seed = u->r.opt.seed * 11 + 1;

	(void)index;
	while (!atomic_load(&u->r.stop)) {
		uint64_t va = u->victim + race_rand(&seed) % (u->victim_bytes / RACE_PAGE) * RACE_PAGE;
		uint64_t before = atomic_load(&u->generation), seen = 0;
		gm_ret_t ret = gm_mock_load(t, va, &seen, 8);
		bool alive = atomic_load(&u->ended) < before;

		atomic_fetch_add(&u->looks, 1);
		atomic_fetch_add(&u->refused, ret != GM_RET_SUCCESS);
		/* Zero is new memory that its owner has not written yet: never while the one adopted lives. */
		if (!ret && seen < stamp(before) && (seen || alive))
			race_fail(&u->r, "reader: sees generation %" PRIu64 " at 0x%" PRIx64 ", adopted was %" PRIu64,
				  seen >> 8, va, before);
		if (ret && ret != GM_RET_FAULT && ret != GM_RET_NOTSUP)
			race_fail(&u->r, "reader: %s", gm_ret_name(ret));
		race_tick(u->reader_beat);
		gm_mock_yield(t);
	}
	atomic_store(&u->reader_beat->idle, true);
	return GM_RET_SUCCESS;
}

/* The end of a life and the beginning of the next. */
static void renew(struct reuse *u, uint64_t *seed)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
	uint64_t how = race_rand(seed) % 3;
	void *p = (void *)(uintptr_t)u->victim;

	if (how == 2 && madvise(p, u->victim_bytes, MADV_DONTNEED))
		race_fail(&u->r, "madvise");
	if (how && munmap(p, u->victim_bytes))
		race_fail(&u->r, "munmap");
	if (how)
		flags ^= MAP_FIXED ^ MAP_FIXED_NOREPLACE;
	if (mmap(p, u->victim_bytes, PROT_READ | PROT_WRITE, flags, -1, 0) != p)
		race_must(&u->r, GM_RET_EXIST, "mmap at the old address");
	race_cpu_sees(&u->r, "new memory", u->victim, u->victim_bytes, 0);
}

static void life(struct reuse *u, struct race_hand *hand, uint64_t generation, uint64_t *seed)
{
	uint64_t value = stamp(generation);

	race_cpu_write(u->victim, u->victim_bytes, value);
	race_adopt_again(&u->r, u->victim, u->victim_bytes);
	atomic_store(&u->generation, generation);
	race_dev_sees(hand, "victim", u->victim, u->victim_bytes, value);
	race_dev_add(hand, "victim", u->victim, u->victim_bytes);
	if (race_rand(seed) & 1)
		race_cpu_sees(&u->r, "victim, sum", u->victim, u->victim_bytes, value + 1);
	atomic_store(&u->ended, generation);
	renew(u, seed);
}

static void *whole_mover(void *arg)
{
	struct reuse *u = arg;
	struct race_beat *beat = race_beat(&u->r, "whole mover");

	for (uint64_t i = 0; !atomic_load(&u->r.stop); i++) {
		gm_ret_t ret = gm_migrate(u->r.as, u->left, u->right + SIDE_BYTES - u->left,
					  i % 3 < RACE_DEVS ? u->r.dev[i % 3] : NULL, NULL);

		if (ret && ret != GM_RET_BUSY && ret != GM_RET_NOSPC && ret != GM_RET_FAULT)
			race_fail(&u->r, "gm_migrate: %s: %s", gm_ret_name(ret), gm_last_error());
		race_tick(beat);
	}
	atomic_store(&beat->idle, true);
	return NULL;
}

static void live(struct reuse *u)
{
	uint64_t seed = u->r.opt.seed * 13 + 1, next = race_now_ns() + 10 * RACE_SEC;
	struct race_hand hand;

	race_hand_start(&hand, &u->r, 0);
	for (uint64_t i = 1; i <= u->r.opt.rounds && !atomic_load(&u->r.stop); i++) {
		life(u, &hand, i, &seed);
		race_tick(u->victim_beat);
		if (race_now_ns() > next) {
			next += 10 * RACE_SEC;
			printf("%s: %" PRIu64 " of %" PRIu64 " lives\n", u->r.program, i, u->r.opt.rounds);
		}
	}
	atomic_store(&u->victim_beat->idle, true);
	atomic_store(&u->r.stop, true);
	race_hand_stop(&hand);
}

static uint64_t verify(struct reuse *u)
{
	uint64_t lost = 0;

	for (uint64_t i = 0; i < SIDE_PAGES; i++) {
		lost += *race_word(side_page(u, i) + 8) != u->cpu_own[i];
		lost += *race_word(side_page(u, i) + 16) != u->dev_own[i];
	}
	if (lost)
		race_fail(&u->r, "%" PRIu64 " words of the neighbours are wrong", lost);
	return lost;
}

static void set_up(struct reuse *u, uint32_t flags)
{
	race_open(&u->r, flags);
	u->victim_bytes = u->r.opt.victim_pages * RACE_PAGE;
	u->left = race_place(&u->r, 2 * SIDE_BYTES + u->victim_bytes);
	u->victim = u->left + SIDE_BYTES;
	u->right = u->victim + u->victim_bytes;
	RACE_MUST(&u->r, gm_adopt(u->r.as, (void *)(uintptr_t)u->left, SIDE_BYTES, 0));
	RACE_MUST(&u->r, gm_adopt(u->r.as, (void *)(uintptr_t)u->right, SIDE_BYTES, 0));
	race_add_target(&u->r, u->left, 2 * SIDE_BYTES + u->victim_bytes, true, NULL);
	memset(u->cpu_own, 0, sizeof(u->cpu_own));
	memset(u->dev_own, 0, sizeof(u->dev_own));
	u->generation = u->ended = u->looks = u->refused = 0;
	u->cpu_beat = race_beat(&u->r, "neighbour");
	u->dev_beat = race_beat(&u->r, "dev neighb");
	u->reader_beat = race_beat(&u->r, "reader");
	u->victim_beat = race_beat(&u->r, "victim");
}

static void run(struct reuse *u, const char *space, uint32_t flags)
{
	struct gm_fence *fence[2];
	pthread_t cpu, mover, whole;
	uint64_t start, ns, all, lost;

	set_up(u, flags);
	start = race_now_ns();
	race_start(&u->r, &cpu, cpu_neighbour, u);
	RACE_MUST(&u->r, gm_mock_launch(u->r.ctx[0], dev_neighbour, u, 1, &fence[0]));
	RACE_MUST(&u->r, gm_mock_launch(u->r.ctx[1], reader, u, 1, &fence[1]));
	race_start(&u->r, &mover, race_mover, &u->r);
	race_start(&u->r, &whole, whole_mover, u);
	live(u);
	pthread_join(cpu, NULL);
	pthread_join(mover, NULL);
	pthread_join(whole, NULL);
	for (unsigned i = 0; i < 2; i++) {
		(void)gm_fence_wait(fence[i], 60 * RACE_SEC);
		gm_fence_put(fence[i]);
	}
	ns = race_now_ns() - start;
	race_check(&u->r);
	lost = verify(u);
	all = race_migrations(&u->r);
	printf("%s: %s space, handler %s, victim %" PRIu64 " pages\n", u->r.program, space, u->r.opt.handler,
	       u->r.opt.victim_pages);
	printf("  lives      %" PRIu64 ", %.0f/s, %" PRIu64 " claimed\n", u->generation,
	       (double)u->generation * 1e9 / (double)ns, u->r.claimed);
	printf("  reader     %" PRIu64 " loads, %" PRIu64 " without an answer\n", u->looks, u->refused);
	printf("  lost       %" PRIu64 "\n", lost);
	printf("  %.1f s, %" PRIu64 " migrations, %.0f migrations/s\n", (double)ns / 1e9, all,
	       (double)all * 1e9 / (double)ns);
	if (!all || u->looks == u->refused)
		race_fail(&u->r, "nothing migrated, or nothing was read: the run proves nothing");
	RACE_MUST(&u->r, gm_release(u->r.as, (void *)(uintptr_t)u->left, 2 * SIDE_BYTES + u->victim_bytes));
	munmap((void *)(uintptr_t)u->left, 2 * SIDE_BYTES + u->victim_bytes);
	race_close(&u->r);
}

int main(int argc, char **argv)
{
	static struct reuse u;

	race_begin(&u.r, "race_reuse", argc, argv);
	if (strcmp(u.r.opt.space, "exclusive"))
		run(&u, "inclusive", 0);
	if (strcmp(u.r.opt.space, "inclusive") && !atomic_load(&u.r.failures))
		run(&u, "exclusive", GM_AS_EXCLUSIVE);
	return race_end(&u.r);
}
