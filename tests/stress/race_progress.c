/* SPDX-License-Identifier: MIT */
/*
 * Both sides hammer one page, and each gets on: in every second of --seconds
 * the counter of each participant must have advanced. Participants are a CPU
 * thread and a kernel of a device, two devices, and all three, in an inclusive
 * and in an exclusive space. Counting is as in race_counters: own words with
 * load, compare, store, and one word that all add to.
 */
#include "tests/stress/race_hand.h"

#define SIDES 3u

struct side {
	struct progress *p;
	struct race_beat *beat;
	unsigned id;
	_Atomic uint64_t done;
	uint64_t own; /* what it wrote last */
};

struct progress {
	struct race r;
	uint64_t va;
	struct side side[SIDES]; /* the CPU, the devices */
};

static uint64_t own_va(const struct side *s)
{
	return s->p->va + (s->id + UINT64_C(1)) * 8;
}

static void *cpu_side(void *arg)
{
	struct side *s = arg;
	struct race *r = &s->p->r;
	volatile uint64_t *own = race_word(own_va(s));

	race_pin_self(r);
	while (!atomic_load(&r->stop)) {
		uint64_t seen = *own;

		if (seen != s->own)
			race_fail(r, "CPU: sees %" PRIu64 ", wrote %" PRIu64, seen, s->own);
		*own = ++s->own;
		__atomic_fetch_add(race_word(s->p->va), 1, __ATOMIC_RELAXED);
		atomic_fetch_add_explicit(&s->done, 1, memory_order_relaxed);
		race_tick(s->beat);
	}
	atomic_store(&s->beat->idle, true);
	return NULL;
}

static gm_ret_t dev_side(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct side *s = arg;
	struct race *r = &s->p->r;
	gm_ret_t ret = GM_RET_SUCCESS;

	(void)index;
	while (!atomic_load(&r->stop) && !ret) {
		uint64_t seen = s->own, next = s->own + 1;

		ret = gm_mock_load(t, own_va(s), &seen, 8);
		if (!ret && seen != s->own)
			race_fail(r, "device %u: sees %" PRIu64 ", wrote %" PRIu64, s->id, seen, s->own);
		if (!ret)
			ret = gm_mock_store(t, own_va(s), &next, 8);
		if (!ret)
			ret = gm_mock_fetch_add(t, s->p->va, 1, NULL);
		if (ret)
			break;
		s->own = next;
		atomic_fetch_add_explicit(&s->done, 1, memory_order_relaxed);
		race_tick(s->beat);
		gm_mock_yield(t);
	}
	if (ret)
		race_fail(r, "device %u: %s", s->id, gm_ret_name(ret));
	atomic_store(&s->beat->idle, true);
	return ret;
}

/* Second by second. */
static void watch(struct progress *p, const unsigned *who, unsigned n, uint64_t *least, uint64_t *most)
{
	uint64_t last[SIDES] = { 0 }, next = race_now_ns();

	for (unsigned i = 0; i < n; i++) {
		least[i] = UINT64_MAX;
		most[i] = 0;
	}
	for (uint64_t second = 0; second < p->r.opt.seconds && !atomic_load(&p->r.stop); second++) {
		next += RACE_SEC;
		while (race_now_ns() < next)
			race_sleep_ns(RACE_SEC / 100);
		for (unsigned i = 0; i < n; i++) {
			uint64_t now = atomic_load(&p->side[who[i]].done), got = now - last[i];

			last[i] = now;
			least[i] = got < least[i] ? got : least[i];
			most[i] = got > most[i] ? got : most[i];
			if (!got)
				race_fail(&p->r, "side %u did not get on in second %" PRIu64, who[i], second);
		}
	}
	atomic_store(&p->r.stop, true);
}

static const char *const names[SIDES] = { "CPU", "device 0", "device 1" };

static void report(struct progress *p, const char *what, const unsigned *who, unsigned n, const uint64_t *least,
		   const uint64_t *most, uint64_t ns)
{
	uint64_t sum = 0, all = race_migrations(&p->r);

	printf("%s: %s, %.1f s, handler %s\n", p->r.program, what, (double)ns / 1e9, p->r.opt.handler);
	for (unsigned i = 0; i < n; i++) {
		struct side *s = &p->side[who[i]];

		sum += s->own;
		printf("  %-9s %9.0f/s, in one second %" PRIu64 " at least, %" PRIu64 " at most\n", names[who[i]],
		       (double)s->own * 1e9 / (double)ns, least[i], most[i]);
		if (*race_word(own_va(s)) != s->own)
			race_fail(&p->r, "%s: %" PRIu64 " in memory, wrote %" PRIu64, names[who[i]],
				  *race_word(own_va(s)), s->own);
	}
	if (*race_word(p->va) != sum)
		race_fail(&p->r, "sum %" PRIu64 " in memory, added %" PRIu64, *race_word(p->va), sum);
	printf("  %" PRIu64 " migrations, %.0f migrations/s\n", all, (double)all * 1e9 / (double)ns);
	if (!all)
		race_fail(&p->r, "nothing migrated: the run proves nothing");
}

static void run(struct progress *p, const char *what, uint32_t flags, const unsigned *who, unsigned n)
{
	struct gm_fence *fence[SIDES] = { NULL };
	uint64_t least[SIDES], most[SIDES], start;
	pthread_t cpu = 0;

	race_open(&p->r, flags);
	p->va = race_place(&p->r, RACE_PAGE);
	RACE_MUST(&p->r, gm_adopt(p->r.as, (void *)(uintptr_t)p->va, RACE_PAGE, 0));
	start = race_now_ns();
	for (unsigned i = 0; i < n; i++) {
		struct side *s = &p->side[who[i]];

		s->p = p;
		s->id = who[i];
		s->own = 0;
		atomic_store(&s->done, 0);
		s->beat = race_beat(&p->r, names[s->id]);
		if (s->id == 0)
			race_start(&p->r, &cpu, cpu_side, s);
		else
			RACE_MUST(&p->r, gm_mock_launch(p->r.ctx[s->id - 1], dev_side, s, 1, &fence[s->id]));
	}
	watch(p, who, n, least, most);
	for (unsigned i = 0; i < n; i++) {
		if (who[i] == 0)
			pthread_join(cpu, NULL);
		else
			(void)gm_fence_wait(fence[who[i]], 60 * RACE_SEC);
		gm_fence_put(fence[who[i]]);
	}
	start = race_now_ns() - start;
	race_check(&p->r);
	report(p, what, who, n, least, most, start);
	RACE_MUST(&p->r, gm_release(p->r.as, (void *)(uintptr_t)p->va, RACE_PAGE));
	munmap((void *)(uintptr_t)p->va, RACE_PAGE);
	race_close(&p->r);
}

int main(int argc, char **argv)
{
	static const unsigned all[] = { 0, 1, 2 };
	static struct progress p;
	const struct {
		const char *what;
		uint32_t flags;
		unsigned first, n;
	} runs[] = {
		{ "inclusive, CPU and device", 0, 0, 2 },
		{ "exclusive, CPU and device", GM_AS_EXCLUSIVE, 0, 2 },
		{ "inclusive, two devices", 0, 1, 2 },
		{ "exclusive, CPU and two devices", GM_AS_EXCLUSIVE, 0, 3 },
	};

	race_begin(&p.r, "race_progress", argc, argv);
	for (unsigned i = 0; i < sizeof(runs) / sizeof(runs[0]) && !atomic_load(&p.r.failures); i++) {
		if (!strcmp(p.r.opt.space, "both") || !strncmp(runs[i].what, p.r.opt.space, 9))
			run(&p, runs[i].what, runs[i].flags, all + runs[i].first, runs[i].n);
	}
	return race_end(&p.r);
}
