/* SPDX-License-Identifier: MIT */
/*
 * fork() against migration, on this machine's real host. Every page of a buffer
 * has three words:
 *
 *     own    the forking thread writes all of them before each fork: the child must see exactly these
 *     cpu    another thread adds one to each, lap by lap: the child must see at least what was complete
 *     dev    a device does the same: as a device is stopped for good before the first page is copied, the child must
 *            see a moment of it: no page ahead of one before it, none more than a lap behind
 *
 * Two movers move pieces to the devices and back all the time, and the buffer is larger than a device. The parent must
 * have lost nothing at the end. Each of the policies HOME and SERVE, with the handler on the CPU of the threads
 * and on another (or as --handler says), gets --rounds / 2 forks; --rounds 100000 for the long run.
 */
#include "config.h"

#include <sys/wait.h>

#include "tests/stress/race_hand.h"

#define FORK_PAGES 640u
#define FORK_BYTES (FORK_PAGES * RACE_PAGE)

enum word_of { OWN, CPU, DEV };

/* What a child saw, in memory that it shares with its parent. */
struct verdict {
	uint64_t page, got, want;
	char what[32];
};

struct forks {
	struct race r;
	uint64_t va, round;
	_Atomic uint64_t cpu_laps, dev_laps;
	struct verdict *verdict;
	uint64_t served_stayed; /* forks after which pages were on a device still */
};

static uint64_t word_at(const struct forks *f, uint64_t page, enum word_of word)
{
	return f->va + page * RACE_PAGE + (page * 24 + (uint64_t)word * 8) % RACE_PAGE / 8 * 8;
}

static void *cpu_laps(void *arg)
{
	struct forks *f = arg;
	struct race_beat *beat = race_beat(&f->r, "cpu laps");

	race_pin_self(&f->r);
	for (uint64_t lap = 1; !atomic_load(&f->r.stop); lap++) {
		for (uint64_t page = 0; page < FORK_PAGES; page++)
			*race_word(word_at(f, page, CPU)) += 1;
		atomic_store(&f->cpu_laps, lap);
		race_tick(beat);
	}
	atomic_store(&beat->idle, true);
	return NULL;
}

static gm_ret_t dev_laps(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct forks *f = arg;
	struct race_beat *beat = race_beat(&f->r, "dev laps");

	(void)index;
	for (uint64_t lap = 1; !atomic_load(&f->r.stop); lap++) {
		for (uint64_t page = 0; page < FORK_PAGES; page++) {
			gm_ret_t ret = gm_mock_store(t, word_at(f, page, DEV), &lap, sizeof(lap));

			if (ret) {
				race_fail(&f->r, "device store: %s", gm_ret_name(ret));
				return ret;
			}
		}
		atomic_store(&f->dev_laps, lap);
		race_tick(beat);
	}
	atomic_store(&beat->idle, true);
	return GM_RET_SUCCESS;
}

static uint64_t stamp(const struct forks *f, uint64_t page)
{
	return f->round * 1000003 + page + 1;
}

static int condemn(struct forks *f, const char *what, uint64_t page, uint64_t got, uint64_t want)
{
	snprintf(f->verdict->what, sizeof(f->verdict->what), "%s", what);
	f->verdict->page = page;
	f->verdict->got = got;
	f->verdict->want = want;
	return 1;
}

/* In the child: from the last page on, so that what is filled in order is looked for before it is there. */
static int judge(struct forks *f, uint64_t cpu_floor, uint64_t dev_floor)
{
	uint64_t first = *race_word(word_at(f, 0, DEV)), behind = 0;

	for (uint64_t page = FORK_PAGES; page--;) {
		uint64_t own = *race_word(word_at(f, page, OWN)), cpu = *race_word(word_at(f, page, CPU));
		uint64_t dev = *race_word(word_at(f, page, DEV));

		if (own != stamp(f, page))
			return condemn(f, "own", page, own, stamp(f, page));
		if (cpu < cpu_floor)
			return condemn(f, "cpu", page, cpu, cpu_floor);
		if (dev < dev_floor || dev > first || dev + 1 < first || dev < behind)
			return condemn(f, "dev", page, dev, first);
		behind = dev;
	}
	return 0;
}

static bool any_on_device(struct forks *f)
{
	static struct gm_page_info info[FORK_PAGES];

	RACE_MUST(&f->r, gm_query(f->r.as, f->va, FORK_PAGES, info));
	for (unsigned i = 0; i < FORK_PAGES; i++)
		if (info[i].place == GM_PLACE_DEVICE)
			return true;
	return false;
}

static void one_fork(struct forks *f)
{
	uint64_t cpu_floor, dev_floor;
	int status;
	pid_t pid;

	f->round++;
	for (uint64_t page = 0; page < FORK_PAGES; page++)
		*race_word(word_at(f, page, OWN)) = stamp(f, page);
	cpu_floor = atomic_load(&f->cpu_laps);
	dev_floor = atomic_load(&f->dev_laps);
	pid = fork();
	if (pid == 0) {
		(void)signal(SIGBUS, SIG_DFL);
		_exit(judge(f, cpu_floor, dev_floor));
	}
	f->served_stayed += any_on_device(f);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		race_fail(&f->r, "fork %" PRIu64 ": no child", f->round);
	else if (WIFEXITED(status) && WEXITSTATUS(status) == 1)
		race_fail(&f->r, "fork %" PRIu64 ": %s of page %" PRIu64 " is %" PRIu64 ", not %" PRIu64, f->round,
			  f->verdict->what, f->verdict->page, f->verdict->got, f->verdict->want);
	else if (status)
		race_fail(&f->r, "fork %" PRIu64 ": the child ended with status 0x%x", f->round, (unsigned)status);
}

static void fork_on(struct forks *f)
{
	uint64_t next = race_now_ns() + 10 * RACE_SEC, forks = f->r.opt.rounds / 2 ? f->r.opt.rounds / 2 : 1;
	struct race_beat *beat = race_beat(&f->r, "forks");

	race_pin_self(&f->r);
	for (uint64_t i = 0; i < forks && !atomic_load(&f->r.stop); i++) {
		one_fork(f);
		race_tick(beat);
		if (race_now_ns() > next) {
			next += 10 * RACE_SEC;
			printf("%s: %" PRIu64 " of %" PRIu64 " forks\n", f->r.program, i, forks);
		}
	}
	atomic_store(&beat->idle, true);
	atomic_store(&f->r.stop, true);
}

/* The parent's own: nothing lost. Returns wrong words. */
static uint64_t verify(struct forks *f)
{
	uint64_t lost = 0;

	for (uint64_t page = 0; page < FORK_PAGES; page++) {
		uint64_t cpu = *race_word(word_at(f, page, CPU)), dev = *race_word(word_at(f, page, DEV));

		lost += *race_word(word_at(f, page, OWN)) != stamp(f, page);
		lost += cpu != f->cpu_laps;
		lost += dev != f->dev_laps;
	}
	if (lost)
		race_fail(&f->r, "%" PRIu64 " words of the parent are wrong", lost);
	return lost;
}

static void set_up(struct forks *f, enum gm_fork policy)
{
	race_open(&f->r, policy == GM_FORK_SERVE ? GM_AS_FORK_SERVE : 0);
	f->va = race_place(&f->r, FORK_BYTES);
	RACE_MUST(&f->r, gm_adopt(f->r.as, (void *)(uintptr_t)f->va, FORK_BYTES, 0));
	RACE_MUST(&f->r, gm_fork_policy(f->r.as, f->va, FORK_BYTES, policy));
	race_add_target(&f->r, f->va, FORK_BYTES, false, NULL);
	f->round = f->served_stayed = 0;
	atomic_store(&f->cpu_laps, 0);
	atomic_store(&f->dev_laps, 0);
}

static void run(struct forks *f, enum gm_fork policy)
{
	const char *name = policy == GM_FORK_SERVE ? "served" : "home";
	pthread_t cpu, mover[2];
	struct gm_fence *fence;
	uint64_t start, ns, lost;

	set_up(f, policy);
	start = race_now_ns();
	race_start(&f->r, &cpu, cpu_laps, f);
	RACE_MUST(&f->r, gm_mock_launch(f->r.ctx[0], dev_laps, f, 1, &fence));
	for (unsigned i = 0; i < 2; i++)
		race_start(&f->r, &mover[i], race_mover, &f->r);
	fork_on(f);
	pthread_join(cpu, NULL);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(mover[i], NULL);
	(void)gm_fence_wait(fence, 60 * RACE_SEC);
	gm_fence_put(fence);
	ns = race_now_ns() - start;
	race_check(&f->r);
	lost = verify(f);
	printf("%s: %s, handler %s: %" PRIu64 " forks, %.1f/s, %" PRIu64 " migrations, laps %" PRIu64 " and %" PRIu64
	       ", lost %" PRIu64 "; pages were on devices after %" PRIu64 " forks\n",
	       f->r.program, name, f->r.opt.handler, f->round, (double)f->round * 1e9 / (double)ns, race_migrations(&f->r),
	       atomic_load(&f->cpu_laps), atomic_load(&f->dev_laps), lost, f->served_stayed);
	if (!race_migrations(&f->r) || (policy == GM_FORK_SERVE && !f->served_stayed))
		race_fail(&f->r, "nothing migrated, or nothing stayed: the run proves nothing");
	RACE_MUST(&f->r, gm_release(f->r.as, (void *)(uintptr_t)f->va, FORK_BYTES));
	munmap((void *)(uintptr_t)f->va, FORK_BYTES);
	race_close(&f->r);
}

int main(int argc, char **argv)
{
	static struct forks f;
	static const char *const placements[] = { "same", "other" };
	bool both;

	race_begin(&f.r, "race_fork", argc, argv);
	f.verdict = mmap(NULL, sizeof(*f.verdict), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (f.verdict == MAP_FAILED)
		race_must(&f.r, GM_RET_NOMEM, "mmap");
	both = !strcmp(f.r.opt.handler, "free");
	for (unsigned i = 0; i < (both ? 2 : 1); i++) {
		if (both)
			f.r.opt.handler = placements[i];
		run(&f, GM_FORK_HOME);
		run(&f, GM_FORK_SERVE);
	}
	return race_end(&f.r);
}
