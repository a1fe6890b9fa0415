/* SPDX-License-Identifier: MIT */
/*
 * Threads make and free shared memory all the time, so that the kernel gives the same addresses again and again, to all kinds
 * of memory in turn, and puts pieces side by side: private memory, which leaves a block with a slot; shared memory that
 * moves; its export, and another mapping of it; freed in either order. Each thread knows what must be in its memory, and
 * that no child is to have it yet.
 *
 * Meanwhile CPU threads count in a piece that stays, each in a word of its own in every page, and threads move it both ways,
 * so that devices, which are small, evict what the others have.
 *
 * Ends after --rounds pieces in an inclusive and as many in an exclusive space. Then nothing of any file is mapped any more.
 */
#include "tests/stress/race_hand.h"

#include "core/gm_fork.h"

#define MIB	(UINT64_C(1) << 20)
#define CHURNS	4u
#define STEADY	(8 * MIB)
#define PAGES	(STEADY / RACE_PAGE)

struct segments {
	struct race r;
	char *steady;
	_Atomic uint64_t rounds, exports, counted;
	atomic_uint next; /* the number of a thread */
};

static void *counter(void *arg)
{
	struct segments *g = arg;
	struct race_beat *beat = race_beat(&g->r, "counter");
	uint64_t word = atomic_fetch_add(&g->next, 1) * 8, n = 0;

	for (; !atomic_load(&g->r.stop); n++) {
		for (uint64_t page = 0; page < PAGES; page++) {
			volatile uint64_t *own = race_word(GM_VA(g->steady) + page * RACE_PAGE + word * 8);

			if (*own != n)
				race_fail(&g->r, "counter, page %" PRIu64 ": sees %" PRIu64 ", wrote %" PRIu64, page, *own, n);
			*own = n + 1;
		}
		atomic_fetch_add(&g->counted, PAGES);
		race_tick(beat);
	}
	atomic_store(&beat->idle, true);
	return NULL;
}

/* What does not fit, or not now, stays. */
static void to_device(struct segments *g, void *p, uint64_t bytes, uint64_t *seed)
{
	gm_ret_t ret = gm_migrate(g->r.as, GM_VA(p), bytes, g->r.dev[race_rand(seed) % RACE_DEVS], NULL);

	if (ret && ret != GM_RET_BUSY && ret != GM_RET_NOSPC)
		race_fail(&g->r, "gm_migrate: %s: %s", gm_ret_name(ret), gm_last_error());
}

/* As much address space as shared memory takes with its alias. */
static void private_round(struct segments *g, uint64_t bytes, uint64_t value, uint64_t *seed)
{
	void *p = NULL;

	RACE_MUST(&g->r, gm_alloc(g->r.as, 2 * bytes, 0, &p));
	race_cpu_write(GM_VA(p), 2 * bytes, value);
	to_device(g, p, bytes, seed);
	RACE_MUST(&g->r, gm_free(g->r.as, p));
}

/* Others may have it, and so it does not go anywhere. */
static void *export_round(struct segments *g, void *p, uint64_t bytes, uint64_t value)
{
	void *view = NULL;
	int fd = -1;

	RACE_MUST(&g->r, gm_shared_fd(g->r.as, p, &fd));
	RACE_MUST(&g->r, gm_map_shared(g->r.as, fd, 0, bytes, 0, &view));
	close(fd);
	race_cpu_sees(&g->r, "by another mapping", GM_VA(view), bytes, value);
	race_cpu_write(GM_VA(view), bytes, value + 1);
	race_cpu_sees(&g->r, "exported", GM_VA(p), bytes, value + 1);
	atomic_fetch_add(&g->exports, 1);
	return view;
}

/* What was noted of the address for somebody else, or too late for who had it before, is not of it. */
static void check_fork(struct segments *g, void *p, uint64_t bytes)
{
	uint64_t end = GM_VA(p) + bytes;

	if (gm_fork_policy_at(g->r.as, GM_VA(p), &end) != GM_FORK_EXCLUDE || end != GM_VA(p) + bytes)
		race_fail(&g->r, "children would inherit new shared memory at %p", p);
}

static void shared_round(struct segments *g, uint64_t bytes, uint64_t value, uint64_t *seed)
{
	void *p = NULL, *view = NULL;

	RACE_MUST(&g->r, gm_alloc_shared(g->r.as, bytes, 0, &p));
	race_cpu_sees(&g->r, "new", GM_VA(p), bytes, 0);
	race_cpu_write(GM_VA(p), bytes, value);
	to_device(g, p, bytes, seed);
	if (race_rand(seed) & 1)
		view = export_round(g, p, bytes, value);
	else
		race_cpu_sees(&g->r, "moved", GM_VA(p), bytes, value);
	if (!view)
		check_fork(g, p, bytes);
	if (race_rand(seed) & 1) {
		RACE_MUST(&g->r, gm_free(g->r.as, p));
		p = NULL;
	}
	RACE_MUST(&g->r, gm_free(g->r.as, view));
	RACE_MUST(&g->r, gm_free(g->r.as, p));
}

static void *churn(void *arg)
{
	struct segments *g = arg;
	struct race_beat *beat = race_beat(&g->r, "churn");
	uint64_t id = atomic_fetch_add(&g->next, 1) + 1, seed = g->r.opt.seed * 7919 + id;

	for (uint64_t value = id << 32; !atomic_load(&g->r.stop); value += 2) {
		uint64_t bytes = (race_rand(&seed) % 2 + 1) * 2 * MIB;

		if (race_rand(&seed) % 4 == 0)
			private_round(g, bytes, value, &seed);
		shared_round(g, bytes, value, &seed);
		atomic_fetch_add(&g->rounds, 1);
		race_tick(beat);
	}
	atomic_store(&beat->idle, true);
	return NULL;
}

static unsigned files_mapped(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned n = 0;

	if (!f)
		abort();
	while (fgets(line, sizeof(line), f))
		n += strstr(line, "memfd:gmem") != NULL;
	(void)fclose(f);
	return n;
}

static void print(struct segments *g, const char *space)
{
	struct gm_stats s = { .cpu_faults = 0 };

	(void)gm_as_stats(g->r.as, &s);
	printf("%s: %s space: %" PRIu64 " pieces, %" PRIu64 " of them exported; counted %" PRIu64 "; migrations %" PRIu64
	       " to devices, %" PRIu64 " to the host\n", g->r.program, space, atomic_load(&g->rounds), atomic_load(&g->exports),
	       atomic_load(&g->counted), s.migrations_to_dev, s.migrations_to_host);
	if (!s.migrations_to_dev || !atomic_load(&g->exports) || !atomic_load(&g->counted))
		race_fail(&g->r, "somebody did nothing at all: the run proves nothing");
}

static void run(struct segments *g, const char *space, uint32_t flags)
{
	pthread_t id[CHURNS + 8 + 4];
	unsigned n = 0;

	race_open(&g->r, flags);
	g->rounds = g->exports = g->counted = 0;
	g->next = 0;
	RACE_MUST(&g->r, gm_alloc_shared(g->r.as, STEADY, 0, (void **)&g->steady));
	race_add_target(&g->r, GM_VA(g->steady), STEADY, false, NULL);
	for (unsigned i = 0; i < g->r.opt.cpus; i++)
		race_start(&g->r, &id[n++], counter, g);
	for (unsigned i = 0; i < g->r.opt.movers; i++)
		race_start(&g->r, &id[n++], race_mover, &g->r);
	for (unsigned i = 0; i < CHURNS; i++)
		race_start(&g->r, &id[n++], churn, g);
	while (!atomic_load(&g->r.stop) && atomic_load(&g->rounds) < g->r.opt.rounds)
		race_sleep_ns(RACE_SEC / 50);
	atomic_store(&g->r.stop, true);
	while (n)
		pthread_join(id[--n], NULL);
	race_check(&g->r);
	print(g, space);
	RACE_MUST(&g->r, gm_free(g->r.as, g->steady));
	if (files_mapped())
		race_fail(&g->r, "%u pieces of freed memory are mapped still", files_mapped());
	race_close(&g->r);
}

int main(int argc, char **argv)
{
	static struct segments g;

	race_begin(&g.r, "race_segments", argc, argv);
	if (strcmp(g.r.opt.space, "exclusive"))
		run(&g, "inclusive", 0);
	if (strcmp(g.r.opt.space, "inclusive") && !atomic_load(&g.r.failures))
		run(&g, "exclusive", GM_AS_EXCLUSIVE);
	return race_end(&g.r);
}
