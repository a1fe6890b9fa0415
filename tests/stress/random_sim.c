/* SPDX-License-Identifier: MIT */
/*
 * Random programs of all operations on the simulated host and two mock devices,
 * against a byte array; invariants after every step, failures injected.
 *
 *     random_sim [--steps N] [--seed S] [--seeds K] [--plant NAME|all] [--verbose]
 *
 * Each of K seeds, from S on, makes a world and does N steps in it. A seed
 * gives the same run, switch for switch; the first one runs twice to prove it.
 * With --plant, an error is planted in the core or in the devices and must be
 * noticed within 10,000 steps; each such world runs in a process of its own,
 * because it may end in an assertion.
 */
#include "config.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/stress/random_world.h"

#define DEFAULT_STEPS 1000u
#define DEFAULT_SEEDS 200u
/* In so many, everything happens. */
#define MANY_STEPS 100000
#define PLANT_STEPS 10000u
#define PLANT_WORLD_STEPS 1000u
/* Real time of one planted world; beyond it, it hangs. */
#define PLANT_SECONDS 60u

#define EXIT_SKIPPED 77

static const struct plant {
	const char *name;
	enum gm_plant plant;
	enum gm_mock_bug bug;
} plants[] = {
	{ "none", GM_PLANT_NONE, GM_MOCK_BUG_NONE },
	{ "skip-invl", GM_PLANT_SKIP_INVL, GM_MOCK_BUG_NONE },
	{ "copy-early", GM_PLANT_COPY_EARLY, GM_MOCK_BUG_NONE },
	{ "drop-dirty", GM_PLANT_DROP_DIRTY, GM_MOCK_BUG_NONE },
	{ "skip-zero", GM_PLANT_SKIP_ZERO, GM_MOCK_BUG_NONE },
	{ "miss-remove", GM_PLANT_MISS_REMOVE, GM_MOCK_BUG_NONE },
	{ "miss-unmap", GM_PLANT_MISS_UNMAP, GM_MOCK_BUG_NONE },
	{ "skip-hold", GM_PLANT_SKIP_HOLD, GM_MOCK_BUG_NONE },
	{ "lose-wake", GM_PLANT_LOSE_WAKE, GM_MOCK_BUG_NONE },
	{ "write-clean", GM_PLANT_WRITE_CLEAN, GM_MOCK_BUG_NONE },
	{ "pack-clean", GM_PLANT_PACK_CLEAN, GM_MOCK_BUG_NONE },
	{ "pack-unmap", GM_PLANT_PACK_UNMAP, GM_MOCK_BUG_NONE },
	{ "dup-open", GM_PLANT_DUP_OPEN, GM_MOCK_BUG_NONE },
	{ "dup-keep", GM_PLANT_DUP_KEEP, GM_MOCK_BUG_NONE },
	{ "protect-keep", GM_PLANT_PROTECT_KEEP, GM_MOCK_BUG_NONE },
	{ "pin-move", GM_PLANT_PIN_MOVE, GM_MOCK_BUG_NONE },
	{ "fork-open", GM_PLANT_FORK_OPEN, GM_MOCK_BUG_NONE },
	{ "exclusive-keep", GM_PLANT_EXCLUSIVE_KEEP, GM_MOCK_BUG_NONE },
	{ "remap-keep", GM_PLANT_REMAP_KEEP, GM_MOCK_BUG_NONE },
	{ "freed-lost", GM_PLANT_FREED_LOST, GM_MOCK_BUG_NONE },
	{ "zap-early", GM_PLANT_ZAP_EARLY, GM_MOCK_BUG_NONE },
	{ "serve-open", GM_PLANT_SERVE_OPEN, GM_MOCK_BUG_NONE },
	{ "serve-lose", GM_PLANT_SERVE_LOSE, GM_MOCK_BUG_NONE },
	{ "mirror-pin", GM_PLANT_MIRROR_PIN, GM_MOCK_BUG_NONE },
	{ "mock-skip-invl", GM_PLANT_NONE, GM_MOCK_BUG_SKIP_INVL },
	{ "mock-skip-remove", GM_PLANT_NONE, GM_MOCK_BUG_SKIP_REMOVE },
	{ "mock-skip-copy", GM_PLANT_NONE, GM_MOCK_BUG_SKIP_COPY },
	{ "mock-skip-zero", GM_PLANT_NONE, GM_MOCK_BUG_SKIP_ZERO },
	{ "mock-wrong-pa", GM_PLANT_NONE, GM_MOCK_BUG_WRONG_PA },
	{ "mock-early-fence", GM_PLANT_NONE, GM_MOCK_BUG_EARLY_FENCE },
	{ "mock-lost-fault", GM_PLANT_NONE, GM_MOCK_BUG_LOST_FAULT },
	{ "mock-ignore-rights", GM_PLANT_NONE, GM_MOCK_BUG_IGNORE_RIGHTS },
};

#define N_PLANTS (sizeof(plants) / sizeof(plants[0]))

#ifdef GM_ENABLE_CHECKS
static const bool have_checks = true;
#else
static const bool have_checks = false;
#endif

/* ---------------------------------------------------------- planted runs */

/* One world in a process of its own. True: it noticed; *child says what. */
static bool run_child(const struct rnd_options *opt, struct rnd_result *child)
{
	struct rnd_options own = *opt;
	struct rnd_result result = { .steps = 0 };
	int status;
	pid_t pid;

	memset(child, 0, sizeof(*child));
	own.child = child;
	own.quiet = !opt->verbose;
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		perror("random_sim: fork");
		exit(1);
	}
	if (pid == 0) {
		if (own.quiet && !freopen("/dev/null", "w", stderr))
			_exit(2);
		alarm(PLANT_SECONDS);
		rnd_world_run(&own, &result);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid) {
		perror("random_sim: waitpid");
		exit(1);
	}
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT)
		snprintf(child->why, sizeof(child->why), "an assertion");
	else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		snprintf(child->why, sizeof(child->why), "it hangs");
	else if (WIFSIGNALED(status) || (WEXITSTATUS(status) != 0 && !child->why[0])) {
		fprintf(stderr, "random_sim: seed %" PRIu64 " ended with status 0x%x\n", opt->seed, (unsigned)status);
		exit(1);
	}
	return child->why[0] != '\0';
}

/* True: as it should be, i.e. noticed, or nothing noticed where nothing is planted. */
static bool run_plant(const struct plant *plant, const struct rnd_options *base, struct rnd_result *child)
{
	struct rnd_options opt = *base;
	bool planted = plant->plant != GM_PLANT_NONE || plant->bug != GM_MOCK_BUG_NONE, caught = false;
	uint64_t steps = 0;

	if (plant->plant != GM_PLANT_NONE && !have_checks) {
		printf("%-20s SKIPPED: built without --enable-checks\n", plant->name);
		return true;
	}
	opt.plant = plant->plant;
	opt.bug = plant->bug;
	opt.steps = PLANT_WORLD_STEPS;
	while (!caught && steps < PLANT_STEPS) {
		caught = run_child(&opt, child);
		steps += child->steps ? child->steps : 1;
		opt.seed++;
	}
	if (caught && steps <= PLANT_STEPS)
		printf("%-20s caught after %5" PRIu64 " steps: %s\n", plant->name, steps, child->why);
	else
		printf("%-20s nothing in %" PRIu64 " steps\n", plant->name, steps);
	fflush(stdout);
	return planted == (caught && steps <= PLANT_STEPS);
}

static int run_plants(const char *name, const struct rnd_options *base)
{
	struct rnd_result *child = mmap(NULL, sizeof(*child), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bool all = strcmp(name, "all") == 0, ok = true, found = false;

	if (child == MAP_FAILED) {
		perror("random_sim: mmap");
		return 1;
	}
	for (size_t i = 0; i < N_PLANTS; i++) {
		if (!all && strcmp(name, plants[i].name) != 0)
			continue;
		found = true;
		if (!run_plant(&plants[i], base, child)) {
			printf("FAILED: %s\n", plants[i].name);
			ok = false;
		}
	}
	if (!found)
		fprintf(stderr, "random_sim: no plant '%s'\n", name);
	(void)munmap(child, sizeof(*child));
	return ok && found ? 0 : 1;
}

/* --------------------------------------------------------------- worlds */

/* The same seed, the same run. */
static bool prove_repeat(const struct rnd_options *opt)
{
	struct rnd_result once = { .steps = 0 }, again = { .steps = 0 };

	rnd_world_run(opt, &once);
	rnd_world_run(opt, &again);
	if (once.hash == again.hash && once.steps == again.steps)
		return true;
	fprintf(stderr, "random_sim: FAILED: seed %" PRIu64 " does not repeat: %" PRIu64 " steps, hash %016" PRIx64 "; %" PRIu64
		" steps, hash %016" PRIx64 "\n", opt->seed, once.steps, once.hash, again.steps, again.hash);
	return false;
}

static int run_worlds(const struct rnd_options *base, uint64_t seeds)
{
	struct rnd_result sum = { .steps = 0 };
	struct rnd_options opt = *base;
	uint64_t tenth = 0;

	if (!prove_repeat(&opt))
		return 1;
	for (uint64_t i = 0; i < seeds; i++, opt.seed++) {
		rnd_world_run(&opt, &sum);
		if ((i + 1) * 10 / seeds > tenth) {
			tenth = (i + 1) * 10 / seeds;
			printf("%3" PRIu64 "%%: %" PRIu64 " steps\n", tenth * 10, sum.steps);
			fflush(stdout);
		}
	}
	printf("%" PRIu64 " steps of %" PRIu64 " seeds from %" PRIu64 ": %" PRIu64 " migrations, %" PRIu64 " evictions, %" PRIu64
	       " faults, %" PRIu64 " blocks packed, %" PRIu64 " sums, %" PRIu64 " duplicated, %" PRIu64
	       " exclusive, %" PRIu64 " protected, %" PRIu64 " pinned, %" PRIu64
	       " looks at children, %" PRIu64 " moved onto, %" PRIu64 " resized, %" PRIu64 " freed, %" PRIu64
	       " populated, %" PRIu64 " served to children, %" PRIu64 " mirrored, %" PRIu64
	       " asked about, hash %016" PRIx64 "\n",
	       sum.steps, seeds, base->seed, sum.migrations, sum.evictions, sum.faults, sum.packs, sum.sums, sum.dups, sum.exclusives,
	       sum.protects, sum.keeps, sum.children, sum.remaps, sum.resizes, sum.frees, sum.populates, sum.served, sum.mirrored,
	       sum.queries, sum.hash);
	if (sum.steps < MANY_STEPS || (sum.migrations && sum.evictions && sum.faults && sum.packs && sum.sums && sum.dups &&
				       sum.exclusives && sum.protects && sum.keeps && sum.children && sum.remaps && sum.resizes &&
				       sum.frees && sum.populates && sum.served && sum.mirrored && sum.queries))
		return 0;
	fprintf(stderr, "random_sim: FAILED: something never happened at all\n");
	return 1;
}

static bool number(const char *text, uint64_t *out)
{
	char *end;

	if (!text || !*text)
		return false;
	*out = strtoull(text, &end, 0);
	return *end == '\0';
}

int main(int argc, char **argv)
{
	struct rnd_options opt = { .seed = 1, .steps = DEFAULT_STEPS };
	uint64_t seeds = DEFAULT_SEEDS;
	const char *plant = NULL;
	bool ok = true;

	for (int i = 1; i < argc && ok; i++) {
		const char *next = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(argv[i], "--verbose") == 0)
			opt.verbose = true;
		else if (strcmp(argv[i], "--plant") == 0)
			ok = (plant = argv[++i]) != NULL;
		else if (strcmp(argv[i], "--steps") == 0)
			ok = number(next, &opt.steps) && ++i;
		else if (strcmp(argv[i], "--seed") == 0)
			ok = number(next, &opt.seed) && ++i;
		else if (strcmp(argv[i], "--seeds") == 0)
			ok = number(next, &seeds) && seeds && ++i;
		else
			ok = false;
	}
	if (!ok) {
		fprintf(stderr, "usage: random_sim [--steps N] [--seed S] [--seeds K] [--plant NAME|all] [--verbose]\n");
		return 2;
	}
	return plant ? run_plants(plant, &opt) : run_worlds(&opt, seeds);
}
