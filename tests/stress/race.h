/* SPDX-License-Identifier: MIT */
/*
 * What the race programs share: options, a world (library, mock devices, address
 * space), threads that are watched, pinning. race_hand.h has what works on memory.
 *
 * The watchdog looks once a second. A watched thread that did nothing for
 * --watchdog seconds, or a program that runs for more than --limit, prints the
 * counters of the space and the state of every thread, and aborts. An access
 * that the library gave up (SIGBUS) ends the program the same way.
 */
#ifndef GM_TEST_RACE_H
#define GM_TEST_RACE_H

#include "config.h"

#include <dirent.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <gmem/gmem.h>
#include <gmem/mock.h>

#include "core/gm_as.h"

#define RACE_SKIP    77
#define RACE_PAGE    ((uint64_t)GM_PAGE_BYTES)
#define RACE_BEATS   64u
#define RACE_DEVS    2u
#define RACE_TARGETS 8u
#define RACE_SEC     UINT64_C(1000000000)

struct race_opt {
	uint64_t migrations, rounds, seconds, seed, watchdog_s, limit_s;
	uint64_t pack_ns;		/* blocks not used for so long are packed; 0: the default */
	uint64_t victim_pages;		/* of memory that goes and comes */
	unsigned cpus, kernels, movers; /* threads: of the CPU, of each device, that call gm_migrate() */
	const char *handler;		/* same, other, free */
	const char *with, *space;	/* which variants, which spaces */
	const char *dev;		/* for gm_dev_open() */
	enum gm_rung rung;		/* 0: the best there is */
};

/* A thread that must get on. */
struct race_beat {
	const char *name;
	_Atomic uint64_t n;
	atomic_bool idle;
};

/* A range that the movers move; `holes`: parts may be unmapped at times. */
struct race_target {
	uint64_t va, bytes;
	bool holes;
	pthread_rwlock_t *gate; /* read-locked around a move; NULL */
};

struct race {
	const char *program;
	struct race_opt opt;
	struct gm_lib *lib;
	struct gm_dev *dev[RACE_DEVS];
	struct gm_ctx *ctx[RACE_DEVS];
	struct gm_as *as;
	pthread_mutex_t lock; /* beat, beats */
	atomic_bool stop, quit;
	atomic_uint failures;
	struct race_beat beat[RACE_BEATS];
	unsigned beats;
	struct race_target target[RACE_TARGETS];
	unsigned targets;
	pthread_t watchdog;
	uint64_t start_ns;
	_Atomic uint64_t moves, refused; /* gm_migrate(): calls, of those BUSY or NOSPC */
	_Atomic uint64_t claimed;	 /* gm_adopt(): EXIST, see race_adopt_again() */
};

/* For the handler of SIGBUS alone. */
static struct race *race_current;

static inline uint64_t race_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * RACE_SEC + (uint64_t)ts.tv_nsec;
}

static inline void race_sleep_ns(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / RACE_SEC), (long)(ns % RACE_SEC) };

	nanosleep(&ts, NULL);
}

static inline uint64_t race_rand(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}

__attribute__((format(printf, 2, 3))) static inline void race_fail(struct race *r, const char *format, ...)
{
	va_list args;

	if (atomic_fetch_add(&r->failures, 1) < 20) {
		fprintf(stderr, "%s: FAIL: ", r->program);
		va_start(args, format);
		vfprintf(stderr, format, args);
		va_end(args);
		fputc('\n', stderr);
	}
	atomic_store(&r->stop, true);
}

/* For set-up and calls that have no excuse: the program cannot go on. */
#define RACE_MUST(r, call) race_must((r), (call), #call)

static inline void race_must(struct race *r, gm_ret_t ret, const char *what)
{
	if (!ret)
		return;
	fprintf(stderr, "%s: FAIL: %s: %s: %s\n", r->program, what, gm_ret_name(ret), gm_last_error());
	exit(1);
}

/* ------------------------------------------------------------- watchdog */

static inline void race_print_stats(struct gm_as *as)
{
	struct gm_stats s;

	if (!as || gm_as_stats(as, &s))
		return;
#define RACE_PRINT_(name, text) fprintf(stderr, "  %-20s %" PRIu64 "\n", #name, s.name);
	GM_STAT_LIST(RACE_PRINT_)
#undef RACE_PRINT_
}

static inline void race_print_file(const char *task, const char *file)
{
	char path[320], text[256] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%s/%s", task, file);
	f = fopen(path, "r");
	if (f && fgets(text, sizeof(text), f))
		text[strcspn(text, "\n")] = 0;
	fprintf(stderr, " %s=[%s]", file, text);
	if (f)
		fclose(f);
}

static inline void race_print_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *e;

	while (dir && (e = readdir(dir)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		fprintf(stderr, "  thread %s:", e->d_name);
		race_print_file(e->d_name, "comm");
		race_print_file(e->d_name, "wchan");
		race_print_file(e->d_name, "syscall");
		fputc('\n', stderr);
	}
	if (dir)
		closedir(dir);
}

static inline void race_die(struct race *r, const char *why)
{
	fprintf(stderr, "%s: FAIL: %s\n", r->program, why);
	for (unsigned i = 0; i < r->beats; i++)
		fprintf(stderr, "  %-12s %" PRIu64 "%s\n", r->beat[i].name, atomic_load(&r->beat[i].n),
			atomic_load(&r->beat[i].idle) ? " (idle)" : "");
	race_print_threads();
	race_print_stats(r->as);
	fprintf(stderr,
		"hint: a thread in handle_userfault waits for a page: look for a wake that was lost, or a page that\n"
		"stays busy; a thread of the mock in futex waits for its fault. gdb -p shows who has what.\n");
	abort();
}

static inline void *race_watchdog(void *arg)
{
	struct race *r = arg;
	uint64_t last[RACE_BEATS] = { 0 }, since[RACE_BEATS] = { 0 };
	char why[96];

	while (!atomic_load(&r->quit)) {
		uint64_t now = race_now_ns();

		pthread_mutex_lock(&r->lock);
		for (unsigned i = 0; i < r->beats; i++) {
			uint64_t n = atomic_load(&r->beat[i].n);

			if (n != last[i] || !since[i] || atomic_load(&r->beat[i].idle))
				since[i] = now;
			last[i] = n;
			snprintf(why, sizeof(why), "thread %s has stood still for %" PRIu64 " s", r->beat[i].name,
				 r->opt.watchdog_s);
			if (now - since[i] > r->opt.watchdog_s * RACE_SEC)
				race_die(r, why);
		}
		pthread_mutex_unlock(&r->lock);
		if (now - r->start_ns > r->opt.limit_s * RACE_SEC)
			race_die(r, "not finished within --limit");
		race_sleep_ns(RACE_SEC);
	}
	return NULL;
}

/* Not async-signal-safe; the program is lost anyway, and shall say why. */
static inline void race_on_sigbus(int sig, siginfo_t *info, void *context)
{
	char why[64];

	(void)sig;
	(void)context;
	snprintf(why, sizeof(why), "SIGBUS at %p: the library gave the access up", info->si_addr);
	race_die(race_current, why);
}

static inline struct race_beat *race_beat(struct race *r, const char *name)
{
	struct race_beat *b;

	pthread_mutex_lock(&r->lock);
	b = &r->beat[r->beats++];
	b->name = name;
	atomic_store(&b->n, 0);
	atomic_store(&b->idle, false);
	pthread_mutex_unlock(&r->lock);
	return b;
}

static inline void race_tick(struct race_beat *b)
{
	atomic_fetch_add_explicit(&b->n, 1, memory_order_relaxed);
}

/* -------------------------------------------------------------- options */

static inline void race_usage(const struct race *r)
{
	printf("%s [--migrations N] [--rounds N] [--seconds N] [--seed N] [--handler same|other|free]\n"
	       "  [--with none|all|dontneed,reuse,mprotect] [--space both|inclusive|exclusive] [--dev SPEC]\n"
	       "  [--cpus N] [--kernels N] [--movers N] [--watchdog S] [--limit S] [--pack NS]\n"
	       "  [--rung full|device|no-move|user] [--victim-pages N]\n",
	       r->program);
}

static inline enum gm_rung race_rung(const char *name)
{
	static const char *const names[] = { "", "full", "device", "no-move", "user" };

	for (unsigned i = 1; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(name, names[i]))
			return (enum gm_rung)i;
	fprintf(stderr, "no rung %s\n", name);
	exit(2);
}

/* One option; false: unknown. */
static inline bool race_option(struct race_opt *o, int c, uint64_t n)
{
	switch (c) {
	case 'm':
		o->migrations = n;
		break;
	case 'r':
		o->rounds = n;
		break;
	case 's':
		o->seconds = n;
		break;
	case 'x':
		o->seed = n;
		break;
	case 'h':
		o->handler = optarg;
		break;
	case 'w':
		o->with = optarg;
		break;
	case 'a':
		o->space = optarg;
		break;
	case 'd':
		o->dev = optarg;
		break;
	case 'c':
		o->cpus = (unsigned)n;
		break;
	case 'k':
		o->kernels = (unsigned)n;
		break;
	case 'v':
		o->movers = (unsigned)n;
		break;
	case 'g':
		o->watchdog_s = n;
		break;
	case 'l':
		o->limit_s = n;
		break;
	case 'p':
		o->pack_ns = n;
		break;
	case 'u':
		o->rung = race_rung(optarg ? optarg : "");
		break;
	case 't':
		o->victim_pages = n;
		break;
	default:
		return false;
	}
	return true;
}

static inline void race_options(struct race *r, int argc, char **argv)
{
	static const struct option options[] = {
		{ "migrations", 1, NULL, 'm' },	  { "rounds", 1, NULL, 'r' },  { "seconds", 1, NULL, 's' },
		{ "seed", 1, NULL, 'x' },	  { "handler", 1, NULL, 'h' }, { "with", 1, NULL, 'w' },
		{ "space", 1, NULL, 'a' },	  { "dev", 1, NULL, 'd' },     { "cpus", 1, NULL, 'c' },
		{ "kernels", 1, NULL, 'k' },	  { "movers", 1, NULL, 'v' },  { "watchdog", 1, NULL, 'g' },
		{ "limit", 1, NULL, 'l' },	  { "pack", 1, NULL, 'p' },    { "rung", 1, NULL, 'u' },
		{ "victim-pages", 1, NULL, 't' }, { NULL, 0, NULL, 0 },
	};
	struct race_opt *o = &r->opt;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		uint64_t n = optarg ? strtoull(optarg, NULL, 0) : 0;

		if (!race_option(o, c, n)) {
			race_usage(r);
			exit(2);
		}
	}
	if (!o->cpus || o->cpus > 8 || !o->kernels || o->kernels > 8 || o->movers > 4 || !o->victim_pages ||
	    o->victim_pages > 256) {
		race_usage(r);
		exit(2);
	}
}

static inline void race_begin(struct race *r, const char *program, int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = race_on_sigbus, .sa_flags = SA_SIGINFO };

	setvbuf(stdout, NULL, _IOLBF, 0);
	r->program = program;
	r->opt = (struct race_opt){ .migrations = 5000,
				    .rounds = 100,
				    .victim_pages = 32,
				    .seconds = 5,
				    .seed = 1,
				    .watchdog_s = 60,
				    .limit_s = 280,
				    .cpus = 2,
				    .kernels = 2,
				    .movers = 1,
				    .handler = "free",
				    .with = "all",
				    .space = "both",
				    .dev = "mock:vram=2M" };
	race_options(r, argc, argv);
	pthread_mutex_init(&r->lock, NULL);
	race_current = r;
	sigaction(SIGBUS, &sa, NULL);
	r->start_ns = race_now_ns();
	if (pthread_create(&r->watchdog, NULL, race_watchdog, r))
		abort();
}

/* The exit status. */
static inline int race_end(struct race *r)
{
	atomic_store(&r->quit, true);
	pthread_join(r->watchdog, NULL);
	printf("%s: %s\n", r->program, atomic_load(&r->failures) ? "FAILED" : "passed");
	return atomic_load(&r->failures) ? 1 : 0;
}

/* ---------------------------------------------------------------- world */

static inline void race_log(void *arg, enum gm_log_level level, const char *message)
{
	struct race *r = arg;

	if (!strstr(message, "cannot be served")) /* of a device fault: the kernel is told, and judges */
		fprintf(stderr, "%s: log %d: %s\n", r->program, (int)level, message);
}

/* Threads of the library by their name: on the CPU of the CPU threads, or on another. */
static inline void race_pin_library(const struct race *r)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *e;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(!strcmp(r->opt.handler, "other") ? 1 : 0, &set);
	while (dir && (e = readdir(dir)) != NULL) {
		char path[320], comm[32] = "";
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", e->d_name);
		f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
		if (f && fgets(comm, sizeof(comm), f) &&
		    (!strncmp(comm, "gm-handler", 10) || !strncmp(comm, "gm-worker", 9)) &&
		    sched_setaffinity((pid_t)atoi(e->d_name), sizeof(set), &set))
			printf("%s: NOTE: thread %s stays where it is: no CPU %s\n", r->program, e->d_name,
			       strcmp(r->opt.handler, "other") ? "0" : "1");
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
}

/* A CPU thread calls it for itself. */
static inline void race_pin_self(const struct race *r)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	if (strcmp(r->opt.handler, "free"))
		(void)sched_setaffinity(0, sizeof(set), &set);
}

static inline bool race_wants(const struct race *r, const char *variant)
{
	return !strcmp(r->opt.with, "all") || strstr(r->opt.with, variant);
}

static inline void race_open(struct race *r, uint32_t flags)
{
	struct gm_lib_config lc = { .size = sizeof(lc),
				    .log = race_log,
				    .log_arg = r,
				    .log_level = GM_LOG_WARN,
				    .lowest_rung = r->opt.rung,
				    .highest_rung = r->opt.rung };
	struct gm_as_config ac = { .size = sizeof(ac), .flags = flags };
	struct gm_as *as;
	gm_ret_t ret = gm_lib_create(&lc, &r->lib);

	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP) {
		printf("%s: SKIPPED, NOTHING WAS TESTED: no userfaultfd: %s\n", r->program, gm_last_error());
		exit(RACE_SKIP);
	}
	race_must(r, ret, "gm_lib_create");
	RACE_MUST(r, gm_as_create(r->lib, 0, 0, &ac, &as));
	if (r->opt.pack_ns)
		as->pack.idle_ns = r->opt.pack_ns; /* nothing was used yet: nobody reads it */
	for (unsigned i = 0; i < RACE_DEVS; i++) {
		RACE_MUST(r, gm_dev_open(r->lib, r->opt.dev, &r->dev[i]));
		RACE_MUST(r, gm_as_attach(as, r->dev[i], GM_ATTACH_IDENTITY, NULL, &r->ctx[i]));
	}
	r->as = as;
	if (strcmp(r->opt.handler, "free"))
		race_pin_library(r);
	atomic_store(&r->stop, false);
	pthread_mutex_lock(&r->lock);
	r->beats = 0;
	pthread_mutex_unlock(&r->lock);
	r->targets = 0;
	atomic_store(&r->moves, 0);
	atomic_store(&r->refused, 0);
	atomic_store(&r->claimed, 0);
}

static inline void race_close(struct race *r)
{
	for (unsigned i = 0; i < RACE_DEVS; i++)
		RACE_MUST(r, gm_as_detach(r->ctx[i]));
	RACE_MUST(r, gm_as_destroy(r->as));
	r->as = NULL;
	for (unsigned i = 0; i < RACE_DEVS; i++)
		RACE_MUST(r, gm_dev_destroy(r->dev[i]));
	RACE_MUST(r, gm_lib_destroy(r->lib));
}

/* Nothing runs: do all invariants hold? */
static inline void race_check(struct race *r)
{
	char text[256] = "";
	gm_ret_t ret = gm_as_check(r->as, text, sizeof(text));

	if (ret)
		race_fail(r, "gm_as_check: %s: %s", gm_ret_name(ret), text);
}

static inline uint64_t race_migrations(struct race *r)
{
	struct gm_stats s = { .cpu_faults = 0 };

	(void)gm_as_stats(r->as, &s);
	return s.migrations_to_dev + s.migrations_to_host;
}

static inline void race_start(struct race *r, pthread_t *id, void *(*fn)(void *), void *arg)
{
	if (pthread_create(id, NULL, fn, arg))
		race_must(r, GM_RET_AGAIN, "pthread_create");
}

/* Private anonymous memory: 2 MiB-aligned, low where nobody else maps anything by chance. */
static inline uint64_t race_place(struct race *r, uint64_t bytes)
{
	static const uint64_t low = UINT64_C(0x20000000);

	for (uint64_t va = low; va < low + (UINT64_C(1) << 30); va += GM_BLOCK_BYTES) {
		void *p = mmap((void *)(uintptr_t)va, bytes, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

		if (p != MAP_FAILED)
			return va;
	}
	race_must(r, GM_RET_NOMEM, "mmap");
	return 0;
}

static inline volatile uint64_t *race_word(uint64_t va)
{
	return (volatile uint64_t *)(uintptr_t)va;
}

static inline void race_add_target(struct race *r, uint64_t va, uint64_t bytes, bool holes, pthread_rwlock_t *gate)
{
	r->target[r->targets++] = (struct race_target){ .va = va, .bytes = bytes, .holes = holes, .gate = gate };
}

#endif
