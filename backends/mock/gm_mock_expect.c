/* SPDX-License-Identifier: MIT */
/*
 * Expectations: text is compiled into a list of patterns, each for one step, or for any number of them ("..."). Steps
 * are kept as they come; the comparison is made at the end.
 *
 *     none --gm_mock_expect--> watching (steps are noted) --gm_mock_expect_end--> compared, none
 *
 * Comparing goes from left to right; where a pattern does not match, the last "..." takes one step more and what stands
 * behind it begins again. What is reported is the place where the comparison came furthest: there is the first
 * difference that a reader would see.
 *
 * "xN" becomes N patterns. gm_mock_expect.c knows the words; their meaning is in gmem/mock.h.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include <gmem/types.h>

#include "backends/mock/gm_mock_internal.h"

#define MAX_PATTERNS 1024u
#define MAX_ITEM 96u

struct pattern {
	enum { ONE_STEP, ANY_STEP, ANY_STEPS } what;
	enum gm_mock_event_kind kind;
	bool has_at, has_bytes, has_write, has_host, has_copy, any_ret;
	bool write, host;
	int copy;
	uint64_t at, bytes;
	gm_ret_t ret;
	unsigned text, text_bytes; /* where it stands in the text */
};

struct gm_mock_expected {
	size_t bytes;                /* of this allocation */
	char *text;                  /* behind the steps */
	unsigned patterns;
	uint64_t steps;              /* also those there was no room for */
	struct pattern pattern[MAX_PATTERNS];
	struct gm_mock_event step[GM_MOCK_MAX_EXPECT];
};

/* --------------------------------------------------------------- parsing */

struct words {
	const char *at, *end;
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n';
}

/* The next word; empty: none is left. */
static struct words next_word(struct words *rest)
{
	struct words word;

	while (rest->at < rest->end && is_space(*rest->at))
		rest->at++;
	word.at = rest->at;
	while (rest->at < rest->end && !is_space(*rest->at))
		rest->at++;
	word.end = rest->at;
	return word;
}

static bool is(struct words word, const char *text)
{
	size_t n = (size_t)(word.end - word.at);

	return strlen(text) == n && memcmp(word.at, text, n) == 0;
}

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* A number at the beginning of `word`, which goes on behind it. */
static bool take_number(struct words *word, unsigned base, uint64_t *out)
{
	const char *begin = word->at;
	uint64_t value = 0;

	for (; word->at < word->end; word->at++) {
		int digit = digit_of(*word->at);

		if (digit < 0 || (unsigned)digit >= base)
			break;
		if (value > (UINT64_MAX - (unsigned)digit) / base)
			return false;
		value = value * base + (unsigned)digit;
	}
	*out = value;
	return word->at > begin;
}

static bool take_size(struct words *word, uint64_t *out)
{
	static const char units[] = "KMG";
	const char *unit;

	if (!take_number(word, 10, out) || *out == 0)
		return false;
	unit = word->at < word->end ? strchr(units, *word->at) : NULL;
	if (unit && *unit) {
		unsigned shift = 10 * (unsigned)(unit - units + 1);

		if (*out > UINT64_MAX >> shift)
			return false;
		*out <<= shift;
		word->at++;
	}
	return word->at == word->end;
}

/* "0xADDRESS", "0xADDRESS+SIZE", "SIZE" */
static bool take_range(struct words word, struct pattern *p)
{
	if (word.end - word.at > 2 && word.at[0] == '0' && word.at[1] == 'x') {
		word.at += 2;
		p->has_at = true;
		if (!take_number(&word, 16, &p->at))
			return false;
		if (word.at == word.end)
			return true;
		if (*word.at++ != '+')
			return false;
	}
	p->has_bytes = true;
	return take_size(&word, &p->bytes);
}

static bool take_result(struct words word, struct pattern *p)
{
#define RESULT_(name, value, text) { #name, GM_RET_##name },
	static const struct {
		const char *name;
		gm_ret_t ret;
	} results[] = { GM_RET_LIST(RESULT_) };
#undef RESULT_

	word.at++;
	p->any_ret = is(word, "*");
	for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
		if (is(word, results[i].name)) {
			p->ret = results[i].ret;
			return true;
		}
	}
	return p->any_ret;
}

static bool take_copy(struct words word, struct pattern *p)
{
	static const char *const names[] = {
		[GM_COPY_TO_DEV] = "to-dev",
		[GM_COPY_TO_HOST] = "to-host",
		[GM_COPY_ZERO] = "zero",
		[GM_COPY_FROM_PEER] = "from-peer",
	};

	for (int i = 0; i < (int)(sizeof(names) / sizeof(names[0])); i++) {
		if (is(word, names[i])) {
			p->has_copy = true;
			p->copy = i;
			return p->kind == GM_MOCK_EV_COPY;
		}
	}
	return false;
}

static bool take_detail(struct words word, struct pattern *p, uint64_t *times)
{
	if (*word.at == '=')
		return take_result(word, p);
	if (*word.at == 'x') {
		word.at++;
		return take_number(&word, 10, times) && word.at == word.end && *times > 0;
	}
	if (is(word, "rw") || is(word, "ro")) {
		p->has_write = true;
		p->write = is(word, "rw");
		return p->kind == GM_MOCK_EV_ENTER || p->kind == GM_MOCK_EV_PROTECT;
	}
	if (is(word, "host") || is(word, "local")) {
		p->has_host = true;
		p->host = is(word, "host");
		return p->kind == GM_MOCK_EV_ENTER;
	}
	return *word.at >= '0' && *word.at <= '9' ? take_range(word, p) : take_copy(word, p);
}

static bool take_name(struct words word, struct pattern *p)
{
	static const char *const names[] = { "remove", "invl", "copy", "enter", "protect", "harvest" };

	if (is(word, "...")) {
		p->what = ANY_STEPS;
		return true;
	}
	if (is(word, "*")) {
		p->what = ANY_STEP;
		return true;
	}
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (is(word, names[i])) {
			p->kind = (enum gm_mock_event_kind)i;
			return true;
		}
	}
	return false;
}

/* One item of the text. */
static bool parse_item(struct gm_mock_expected *e, struct words item)
{
	struct pattern p = { .ret = GM_RET_SUCCESS };
	struct words word = next_word(&item);
	uint64_t times = 1;
	bool ok;

	p.text = (unsigned)(word.at - e->text);
	p.text_bytes = (unsigned)(item.end - word.at);
	while (p.text_bytes > 0 && is_space(e->text[p.text + p.text_bytes - 1]))
		p.text_bytes--;
	ok = word.at < word.end && take_name(word, &p);
	for (word = next_word(&item); ok && word.at < word.end; word = next_word(&item)) {
		ok = p.what == ONE_STEP || (*word.at == 'x' && p.what == ANY_STEP);
		ok = ok && take_detail(word, &p, &times);
	}
	if (!ok || times > MAX_PATTERNS - e->patterns)
		return false;
	while (times--)
		e->pattern[e->patterns++] = p;
	return true;
}

/* NULL: all of it; else where it is not understood. */
static const char *parse(struct gm_mock_expected *e)
{
	struct words rest = { e->text, e->text + strlen(e->text) }, probe = rest, item;

	if (next_word(&probe).at == probe.end) /* nothing at all */
		return NULL;
	while (rest.at <= rest.end) {
		const char *semicolon = memchr(rest.at, ';', (size_t)(rest.end - rest.at));

		item = (struct words){ rest.at, semicolon ? semicolon : rest.end };
		if (!parse_item(e, item))
			return item.at;
		rest.at = item.end + 1;
	}
	return NULL;
}

/* -------------------------------------------------------------- watching */

static void say(struct gm_mock *m, const char *what, const char *where)
{
	char line[128];

	(void)snprintf(line, sizeof(line), "mock: expectation: %s: \"%.60s\"", what, where);
	m->svc->log(m->svc->self, GM_LOG_ERROR, line);
}

gm_ret_t gm_mock_dev_expect(struct gm_mock *m, const char *text)
{
	const struct gm_services *svc = m->svc;
	size_t length = strlen(text) + 1;
	size_t bytes = sizeof(struct gm_mock_expected) + length;
	struct gm_mock_expected *e = svc->alloc(svc->self, bytes);
	const char *bad;
	gm_ret_t ret = GM_RET_INVAL;
	bool busy;

	if (!e)
		return GM_RET_NOMEM;
	e->bytes = bytes;
	e->text = (char *)(e + 1);
	memcpy(e->text, text, length);
	bad = parse(e);
	if (bad) {
		say(m, "not understood", bad);
		goto err_free;
	}
	svc->lock(svc->self, &m->lock);
	busy = m->expected != NULL;
	if (!busy)
		m->expected = e;
	atomic_store_explicit(&m->watched, true, memory_order_release);
	svc->unlock(svc->self, &m->lock);
	if (!busy)
		return GM_RET_SUCCESS;
	ret = GM_RET_BUSY;

err_free:
	svc->free(svc->self, e, bytes);
	return ret;
}

void gm_mock_expect_note(struct gm_mock_expected *e, const struct gm_mock_event *event)
{
	if (e->steps < GM_MOCK_MAX_EXPECT)
		e->step[e->steps] = *event;
	e->steps++;
}

/* ------------------------------------------------------------- comparing */

static bool meets(const struct pattern *p, const struct gm_mock_event *s)
{
	uint64_t at = s->kind == GM_MOCK_EV_COPY ? s->pa : s->va;

	if (p->what == ANY_STEP)
		return true;
	if (p->kind != s->kind || (p->has_at && p->at != at) || (p->has_bytes && p->bytes != s->bytes))
		return false;
	if (p->has_copy && p->copy != s->copy)
		return false;
	if (p->has_write && p->write != ((s->pte & (GM_PTE_WRITE | GM_PTE_ATOMIC)) != 0))
		return false;
	if (p->has_host && p->host != ((s->pte & GM_PTE_HOST) != 0))
		return false;
	return p->any_ret || p->ret == s->ret;
}

/* True: all of it. Else the first step, and the pattern, that differ where the comparison came furthest. */
static bool compare(const struct gm_mock_expected *e, unsigned *bad_pattern, uint64_t *bad_step)
{
	unsigned p = 0, back_p = MAX_PATTERNS + 1, far_p = 0;
	uint64_t s = 0, back_s = 0, far_s = 0;

	for (;;) {
		if (s > far_s || (s == far_s && p > far_p)) {
			far_s = s;
			far_p = p;
		}
		if (p < e->patterns && e->pattern[p].what == ANY_STEPS) {
			back_p = ++p;
			back_s = s;
		} else if (p == e->patterns && s == e->steps) {
			return true;
		} else if (p < e->patterns && s < e->steps && meets(&e->pattern[p], &e->step[s])) {
			p++;
			s++;
		} else if (back_p <= MAX_PATTERNS && back_s < e->steps) {
			p = back_p;
			s = ++back_s;
		} else {
			break;
		}
	}
	*bad_pattern = far_p;
	*bad_step = far_s;
	return false;
}

static void explain(const struct gm_mock_expected *e, unsigned p, uint64_t s, char *why, size_t bytes)
{
	char seen[MAX_ITEM] = "nothing more", after[MAX_ITEM] = "the beginning", want[MAX_ITEM] = "nothing more";
	const struct pattern *pattern = &e->pattern[p];

	if (s < e->steps)
		(void)gm_mock_event_text(&e->step[s], seen, sizeof(seen));
	if (s > 0)
		(void)gm_mock_event_text(&e->step[s - 1], after, sizeof(after));
	if (p < e->patterns)
		(void)snprintf(want, sizeof(want), "%.*s", (int)pattern->text_bytes, e->text + pattern->text);
	(void)snprintf(why, bytes, "step %llu: expected \"%s\", seen \"%s\", after \"%s\"", (unsigned long long)s + 1, want,
		       seen, after);
}

gm_ret_t gm_mock_dev_expect_end(struct gm_mock *m, char *why, size_t bytes)
{
	const struct gm_services *svc = m->svc;
	struct gm_mock_expected *e;
	gm_ret_t ret = GM_RET_FAULT;
	unsigned pattern = 0;
	uint64_t step = 0;

	svc->lock(svc->self, &m->lock);
	e = m->expected;
	m->expected = NULL;
	atomic_store_explicit(&m->watched, m->trace != NULL, memory_order_release);
	svc->unlock(svc->self, &m->lock);
	if (!e)
		return GM_RET_NOENT;
	if (e->steps > GM_MOCK_MAX_EXPECT) {
		if (why && bytes > 0)
			(void)snprintf(why, bytes, "%llu steps are more than can be kept", (unsigned long long)e->steps);
	} else if (compare(e, &pattern, &step)) {
		ret = GM_RET_SUCCESS;
	} else if (why && bytes > 0) {
		explain(e, pattern, step, why, bytes);
	}
	svc->free(svc->self, e, e->bytes);
	return ret;
}
