/* SPDX-License-Identifier: MIT */
/*
 * patterns [--rounds N] [--only TEXT] [--dev SPEC] [--list]
 *
 * Every pattern on every section, each a line of TAP with a name made of both; how many at the end. What this library cannot
 * run is said and counted apart, never as passed.
 */
#include "patterns.h"

#include <getopt.h>

#define MAX_THREADS 4u
#define SKIP 77

struct pattern_options pattern_options = { .dev = "mock:vram=4M", .rounds = 1 };

/* Small ones fit the device, `large` does not. Bytes are no whole number of pages, so that every edge is at work. */
static const struct pattern patterns[] = {
	{ "once", 256 * 1024 - 100, 1, 1, 1, 1, 0, false },
	{ "twice", 256 * 1024 - 100, 1, 2, 1, 1, 0, false },
	{ "many", 128 * 1024 - 100, 12, 2, 1, 1, 0, false },
	{ "many-large", 6 * 1024 * 1024 - 100, 1, 2, 1, 1, 0, false },
	{ "many-stride", 3 * 1024 * 1024 - 100, 2, 2, 37, 1, 0, false },
	{ "threads", 256 * 1024 - 100, 4, 2, 1, 3, 0, true },
	{ "threads-shared-space", 256 * 1024 - 100, 4, 2, 1, 3, 0, false },
	{ "threads-shared-space-large", 3 * 1024 * 1024 - 100, 1, 2, 1, 3, 0, false },
	{ "process", 256 * 1024 - 100, 2, 2, 1, 1, 3, false },
};

#define PATTERNS (sizeof(patterns) / sizeof(patterns[0]))

static uint32_t flags_of(const struct section *s)
{
#ifdef GM_AS_MIRROR
	return s->mirror ? GM_AS_MIRROR : 0;
#else
	(void)s;
	return 0;
#endif
}

/* NULL: it runs. */
static const char *why_not(const struct section *s)
{
#ifndef GM_AS_MIRROR
	if (s->mirror)
		return "no space that mirrors the process (GM_AS_MIRROR)";
#endif
	(void)s;
	return NULL;
}

struct part {
	const struct pattern *p;
	const struct section *s;
	struct world w;
	uint8_t seed;
	unsigned failures;
	pthread_t id;
};

static void *work(void *arg)
{
	struct part *part = arg;
	struct run r = { .pattern = part->p };

	if (part->p->own_space && pattern_open_space(&part->w, flags_of(part->s))) {
		pattern_fail(&r, "no space: %s", gm_last_error());
	} else {
		part->failures = pattern_jobs(part->p, part->s, &part->w, part->seed);
		if (part->p->own_space)
			pattern_close_space(&r, &part->w);
	}
	part->failures += r.failures;
	return NULL;
}

static unsigned in_threads(const struct pattern *p, const struct section *s, struct world *w)
{
	struct part part[MAX_THREADS];
	unsigned failures = 0;

	for (unsigned i = 0; i < p->threads; i++) {
		part[i] = (struct part){ .p = p, .s = s, .w = *w, .seed = (uint8_t)(i * 70) };
		if (pthread_create(&part[i].id, NULL, work, &part[i]))
			abort();
	}
	for (unsigned i = 0; i < p->threads; i++) {
		pthread_join(part[i].id, NULL);
		failures += part[i].failures;
	}
	return failures;
}

/* In this process, with a library of its own. */
static unsigned here(const struct pattern *p, const struct section *s)
{
	struct world w = { NULL, NULL, NULL, NULL };
	struct run r = { .pattern = p };
	gm_ret_t ret = pattern_open(&w, flags_of(s));

	if (ret) {
		pattern_fail(&r, "no world: %s: %s", gm_ret_name(ret), gm_last_error());
		return 1;
	}
	r.failures = p->threads > 1 ? in_threads(p, s, &w) : pattern_jobs(p, s, &w, 7);
	pattern_close(&r, &w);
	return r.failures;
}

static unsigned in_processes(const struct pattern *p, const struct section *s)
{
	unsigned failures = 0;
	pid_t pid[MAX_THREADS];

	(void)fflush(stdout);
	for (unsigned i = 0; i < p->processes; i++) {
		pid[i] = fork();
		if (pid[i] == 0) {
			failures = here(p, s);
			(void)fflush(stdout);
			_exit(failures ? 1 : 0);
		}
	}
	for (unsigned i = 0; i < p->processes; i++) {
		int status = 1;

		while (pid[i] > 0 && waitpid(pid[i], &status, 0) < 0 && errno == EINTR)
			;
		failures += status != 0;
	}
	return failures;
}

static bool wanted(const struct pattern *p, const struct section *s, char *name, size_t bytes)
{
	(void)snprintf(name, bytes, "%s-%s", p->name, s->name);
	return !pattern_options.only || strstr(name, pattern_options.only);
}

/* 0 passed, 1 failed, 2 not run. */
static unsigned one(const struct pattern *p, const struct section *s, const char *name, unsigned number)
{
	const char *why = why_not(s);
	unsigned failures;

	if (pattern_options.list) {
		printf("%s\n", name);
		return 2;
	}
	if (why) {
		printf("ok %u - %s # SKIP not run: %s\n", number, name, why);
		return 2;
	}
	failures = p->processes ? in_processes(p, s) : here(p, s);
	printf("%s %u - %s\n", failures ? "not ok" : "ok", number, name);
	return failures ? 1 : 0;
}

static void options(int argc, char **argv)
{
	static const struct option words[] = { { "rounds", 1, NULL, 'r' }, { "only", 1, NULL, 'o' }, { "dev", 1, NULL, 'd' },
					       { "list", 0, NULL, 'l' },   { NULL, 0, NULL, 0 } };
	int c;

	while ((c = getopt_long(argc, argv, "", words, NULL)) != -1) {
		if (c == 'r' && atoi(optarg) > 0) {
			pattern_options.rounds = (unsigned)atoi(optarg);
		} else if (c == 'o') {
			pattern_options.only = optarg;
		} else if (c == 'd') {
			pattern_options.dev = optarg;
		} else if (c == 'l') {
			pattern_options.list = true;
		} else {
			fprintf(stderr, "usage: patterns [--rounds N] [--only TEXT] [--dev SPEC] [--list]\n");
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	unsigned total = 0, number = 0, count[3] = { 0, 0, 0 };
	char name[100];
	struct world w = { NULL, NULL, NULL, NULL };
	gm_ret_t ret;

	setvbuf(stdout, NULL, _IOLBF, 0);
	options(argc, argv);
	ret = gm_lib_create(NULL, &w.lib);
	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP) {
		printf("patterns: SKIPPED, NOTHING WAS TESTED: no userfaultfd: %s\n", gm_last_error());
		return SKIP;
	}
	if (ret || gm_lib_destroy(w.lib))
		return 1;
	for (unsigned i = 0; i < PATTERNS; i++)
		for (unsigned k = 0; k < pattern_section_count; k++)
			total += wanted(&patterns[i], &pattern_sections[k], name, sizeof(name));
	if (!pattern_options.list)
		printf("1..%u\n", total);
	for (unsigned i = 0; i < PATTERNS; i++)
		for (unsigned k = 0; k < pattern_section_count; k++)
			if (wanted(&patterns[i], &pattern_sections[k], name, sizeof(name)))
				count[one(&patterns[i], &pattern_sections[k], name, ++number)]++;
	if (!pattern_options.list)
		printf("# patterns: %u names: %u passed, %u failed, %u not run\n", total, count[0], count[1], count[2]);
	return count[1] || !total ? 1 : 0;
}
