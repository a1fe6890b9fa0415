/* SPDX-License-Identifier: MIT */
/*
 * A main() around gm_conform_run(): options, and three ways to say how it went. Each way is a row of functions: what
 * comes before, for each test, and after.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conform/gm_ct.h"

#define EXIT_USAGE 2
#define MAX_BOUND_S 3600u

struct out {
	const struct style *style; /* NULL: not chosen yet */
	const char *word;          /* the option that chose it */
	const struct gm_plugin *plugin;
	const char *options;
	uint64_t seed;
	unsigned n, count;
};

struct style {
	void (*begin)(struct out *o);
	void (*test)(struct out *o, const struct gm_conform_result *r);
	void (*end)(struct out *o, const struct gm_conform_summary *s);
};

/* The first line of a reason. */
static int first_line(const char *reason)
{
	return (int)strcspn(reason, "\n");
}

/* The other lines, each behind a mark. */
static void more_lines(const char *reason, const char *mark)
{
	const char *at = reason + first_line(reason);

	while (*at == '\n' && at[1]) {
		int len = first_line(++at);

		printf("%s%.*s\n", mark, len, at);
		at += len;
	}
}

/* --- a table for people ---------------------------------------------------- */

static void table_begin(struct out *o)
{
	printf("conformance of %s%s%s: %u tests\n\n", o->plugin->name, *o->options ? ":" : "", o->options, o->count);
}

static void table_test(struct out *o, const struct gm_conform_result *r)
{
	static const char *const words[] = { "ok", "FAIL", "skip" };
	char name[64];

	(void)o;
	(void)snprintf(name, sizeof(name), "%s/%s", r->group, r->test);
	printf("%-26s %-4s %7.1f ms%s%.*s\n", name, words[r->outcome], (double)r->ns / 1e6, *r->reason ? "  " : "",
	       first_line(r->reason), r->reason);
	more_lines(r->reason, "    ");
	(void)fflush(stdout);
}

static void table_end(struct out *o, const struct gm_conform_summary *s)
{
	printf("\n%u passed, %u failed, %u skipped (seed %" PRIu64 ")\n", s->passed, s->failed, s->skipped, o->seed);
}

/* --- TAP ------------------------------------------------------------------- */

static void tap_begin(struct out *o)
{
	printf("1..%u\n", o->count);
}

static void tap_test(struct out *o, const struct gm_conform_result *r)
{
	printf("%s %u - %s/%s", r->outcome == GM_CONFORM_FAIL ? "not ok" : "ok", ++o->n, r->group, r->test);
	if (r->outcome == GM_CONFORM_SKIP)
		printf(" # SKIP %.*s", first_line(r->reason), r->reason);
	printf("\n");
	if (r->outcome == GM_CONFORM_FAIL) {
		printf("# %.*s\n", first_line(r->reason), r->reason);
		more_lines(r->reason, "# ");
	}
	(void)fflush(stdout);
}

/* A device that did not open has one line only. */
static void tap_end(struct out *o, const struct gm_conform_summary *s)
{
	if (o->n < o->count)
		printf("Bail out! %u tests were not run\n", o->count - o->n);
	printf("# %u passed, %u failed, %u skipped, seed %" PRIu64 "\n", s->passed, s->failed, s->skipped, o->seed);
}

/* --- JSON ------------------------------------------------------------------ */

/* Bytes of the character of UTF-8 that `c` begins with, 0 where it is none: RFC 3629, table of section 4. */
static unsigned utf8_bytes(const unsigned char *c)
{
	unsigned n = c[0] < 0x80 ? 1 : c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : c[0] < 0xf5 ? 4 : 0;

	for (unsigned i = 1; i < n; i++) {
		if ((c[i] & 0xc0) != 0x80)
			return 0;
	}
	/* too long, a surrogate, too large */
	if ((c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xed && c[1] > 0x9f) || (c[0] == 0xf0 && c[1] < 0x90) ||
	    (c[0] == 0xf4 && c[1] > 0x8f))
		return 0;
	return n;
}

/* What is no UTF-8 shows as the characters with the numbers of its bytes. */
static void json_string(const char *text)
{
	unsigned n;

	putchar('"');
	for (const unsigned char *c = (const unsigned char *)text; *c; c += n ? n : 1) {
		n = utf8_bytes(c);
		if (*c == '"' || *c == '\\')
			printf("\\%c", *c);
		else if (*c < 0x20 || !n)
			printf("\\u%04x", *c);
		else
			printf("%.*s", (int)n, (const char *)c);
	}
	putchar('"');
}

static void json_begin(struct out *o)
{
	printf("{\"backend\": ");
	json_string(o->plugin->name);
	printf(", \"options\": ");
	json_string(o->options);
	printf(", \"seed\": %" PRIu64 ", \"tests\": [", o->seed);
}

static void json_test(struct out *o, const struct gm_conform_result *r)
{
	static const char *const words[] = { "pass", "fail", "skip" };

	printf("%s\n  {\"group\": \"%s\", \"test\": \"%s\", \"outcome\": \"%s\", \"ns\": %" PRIu64 ", \"reason\": ",
	       o->n++ ? "," : "", r->group, r->test, words[r->outcome], r->ns);
	json_string(r->reason);
	printf("}");
}

static void json_end(struct out *o, const struct gm_conform_summary *s)
{
	(void)o;
	printf("\n], \"passed\": %u, \"failed\": %u, \"skipped\": %u}\n", s->passed, s->failed, s->skipped);
}

/* --- a list ---------------------------------------------------------------- */

static void list_begin(struct out *o)
{
	(void)o;
}

static void list_test(struct out *o, const struct gm_conform_result *r)
{
	char name[64];

	(void)o;
	(void)snprintf(name, sizeof(name), "%s/%s", r->group, r->test);
	if (*r->reason)
		printf("%-26s %s\n", name, r->reason);
	else
		printf("%s\n", name);
}

static void list_end(struct out *o, const struct gm_conform_summary *s)
{
	(void)o;
	(void)s;
}

static const struct style table = { table_begin, table_test, table_end };
static const struct style tap = { tap_begin, tap_test, tap_end };
static const struct style json = { json_begin, json_test, json_end };
static const struct style list = { list_begin, list_test, list_end };

static void report(void *arg, const struct gm_conform_result *result)
{
	struct out *o = arg;

	o->style->test(o, result);
}

static void count(void *arg, const struct gm_conform_result *result)
{
	unsigned *n = arg;

	(void)result;
	++*n;
}

static bool parse_number(const char *text, uint64_t *out)
{
	char *end = NULL;

	if (!text || *text < '0' || *text > '9')
		return false;
	errno = 0;
	*out = strtoull(text, &end, 0);
	return *end == '\0' && errno == 0; /* ERANGE: more than 64 bits */
}

static bool parse_seconds(const char *text, uint64_t *ns)
{
	uint64_t seconds;

	if (!parse_number(text, &seconds) || seconds == 0 || seconds > MAX_BOUND_S)
		return false;
	*ns = seconds * UINT64_C(1000000000);
	return true;
}

/* An option without a value; two that differ choose none. */
static bool parse_style(struct out *o, const char *word)
{
	static const struct {
		const char *word;
		const struct style *style;
	} styles[] = { { "--tap", &tap }, { "--json", &json }, { "--list", &list } };

	for (size_t i = 0; i < sizeof(styles) / sizeof(styles[0]); i++) {
		if (strcmp(word, styles[i].word) != 0)
			continue;
		if (o->style && o->style != styles[i].style) {
			fprintf(stderr, "%s and %s: one of them\n", o->word, word);
			return false;
		}
		o->style = styles[i].style;
		o->word = word;
		return true;
	}
	return false;
}

static bool parse_value(struct gm_conform_config *config, const char *word, const char *value)
{
	if (!value)
		return false;
	if (strcmp(word, "--seed") == 0)
		return parse_number(value, &config->seed);
	if (strcmp(word, "--bound") == 0)
		return parse_seconds(value, &config->bound_ns);
	if (strcmp(word, "--options") == 0)
		config->options = value;
	else if (strcmp(word, "--only") == 0)
		config->only = value;
	else
		return false;
	return true;
}

static bool parse(struct gm_conform_config *config, struct out *o, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (parse_style(o, argv[i]))
			continue;
		if (!parse_value(config, argv[i], i + 1 < argc ? argv[i + 1] : NULL))
			return false;
		i++;
	}
	return true;
}

static int usage(const char *program)
{
	fprintf(stderr, "usage: %s [--options TEXT] [--only GROUP[/TEST][,...]] [--seed N] [--bound SECONDS]\n"
		"       [--tap | --json | --list]\n", program);
	return EXIT_USAGE;
}

/* How many tests a run would have; 0: no such test. */
static unsigned count_tests(struct gm_conform_config config)
{
	unsigned n = 0;

	config.list = true;
	config.report = count;
	config.arg = &n;
	return gm_conform_run(&config, NULL) == GM_RET_SUCCESS ? n : 0;
}

/* Can it be run, and can anybody see the results? Says what is wrong. */
static bool ready(struct out *o, const struct gm_conform_config *config, const char *program)
{
	char why[160];

	if (fcntl(STDOUT_FILENO, F_GETFD) < 0) {
		fprintf(stderr, "%s: standard output is closed\n", program);
		return false;
	}
	if (!gm_ct_plugin_check(o->plugin, why, sizeof(why))) {
		fprintf(stderr, "%s: %s\n", program, why);
		return false;
	}
	o->count = count_tests(*config);
	if (o->count == 0)
		fprintf(stderr, "%s: no test is called %s (--list shows all)\n", program, config->only ? config->only : "so");
	return o->count > 0;
}

/* Results that nobody got are none. */
static int written(const char *program, int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fprintf(stderr, "%s: the results could not be written to standard output\n", program);
	return EXIT_USAGE;
}

int gm_conform_main(int argc, char **argv, const struct gm_plugin *plugin)
{
	struct out o = { .plugin = plugin };
	struct gm_conform_config config = { .size = sizeof(config), .plugin = plugin, .report = report, .arg = &o };
	struct gm_conform_summary summary = { 0 };
	const char *program = argc > 0 && argv && argv[0] ? argv[0] : "conformance";
	gm_ret_t ret;

	if ((argc > 0 && !argv) || !parse(&config, &o, argc, argv))
		return usage(program);
	o.style = o.style ? o.style : &table;
	o.options = config.options ? config.options : "";
	if (!ready(&o, &config, program))
		return EXIT_USAGE;
	config.seed = config.seed ? config.seed : GM_CT_SEED;
	o.seed = config.seed;
	config.list = o.style == &list;
	o.style->begin(&o);
	ret = gm_conform_run(&config, &summary);
	o.style->end(&o, &summary);
	return written(program, ret == GM_RET_SUCCESS ? EXIT_SUCCESS : EXIT_FAILURE);
}
