/* SPDX-License-Identifier: MIT */
/*
 * Configuration: from text, from a structure, and whether it makes sense.
 *
 * Text is a list of `key=value` separated by commas; each key has one row in
 * the table below. A word given twice counts as given the last time. Nothing
 * is written to the caller's structure before all of it was understood.
 */
#include "config.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <gmem/mock.h>

#include "backends/mock/gm_mock_internal.h"
#include "backends/mock/gm_mock_spec.h"

#define PAGE_BIT(shift) (UINT64_C(1) << (shift))
#define ALL_PAGES (PAGE_BIT(GM_MOCK_SHIFT_4K) | PAGE_BIT(GM_MOCK_SHIFT_64K) | PAGE_BIT(GM_MOCK_SHIFT_2M))
#define MAX_VRAM_BYTES (UINT64_C(1) << 40)
/* The page table has four levels of nine bits over pages of twelve. */
#define MIN_VA_BITS 32u
#define MAX_VA_BITS 48u
#define MAX_TLB_ENTRIES 4096u
#define MAX_CONTEXTS 1024u

/* A piece of text that is not terminated. */
struct span {
	const char *at;
	size_t len;
};

static bool span_is(struct span s, const char *word)
{
	return s.len == strlen(word) && memcmp(s.at, word, s.len) == 0;
}

/* Cut `text` at the first `sep`: returns what is before it, leaves what is after; at == NULL at the end. */
static struct span span_cut(struct span *text, char sep)
{
	const char *hit = memchr(text->at, sep, text->len);
	struct span head = *text;

	if (hit) {
		head.len = (size_t)(hit - text->at);
		text->at = hit + 1;
		text->len -= head.len + 1;
	} else {
		text->at = NULL;
		text->len = 0;
	}
	return head;
}

static bool parse_number(struct span s, uint64_t *out)
{
	uint64_t value = 0;

	if (s.len == 0)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		unsigned digit = (unsigned)(s.at[i] - '0');

		if (s.at[i] < '0' || s.at[i] > '9')
			return false;
		if (value > (UINT64_MAX - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	*out = value;
	return true;
}

static bool parse_size(struct span s, uint64_t *out)
{
	unsigned shift = 0;
	uint64_t value;

	if (s.len == 0)
		return false;
	switch (s.at[s.len - 1]) {
	case 'K':
		shift = 10;
		break;
	case 'M':
		shift = 20;
		break;
	case 'G':
		shift = 30;
		break;
	default:
		break;
	}
	if (shift)
		s.len--;
	if (!parse_number(s, &value) || value > UINT64_MAX >> shift)
		return false;
	*out = value << shift;
	return true;
}

static bool set_pages(struct gm_mock_config *config, struct span value)
{
	uint64_t sizes = 0, bytes;

	while (value.at) {
		struct span one = span_cut(&value, '+');

		/* The value of a size that is a power of two is its own bit. */
		if (!parse_size(one, &bytes) || (bytes & ~ALL_PAGES) || bytes == 0 || (bytes & (bytes - 1)))
			return false;
		sizes |= bytes;
	}
	config->page_sizes = sizes;
	return true;
}

/* yes, no, or how much of it. */
static bool set_visible(struct gm_mock_config *config, struct span value)
{
	uint64_t bytes = 0;

	config->no_cpu_visible = span_is(value, "no");
	if (!config->no_cpu_visible && !span_is(value, "yes") && (!parse_size(value, &bytes) || bytes == 0))
		return false;
	config->visible_bytes = bytes;
	return true;
}

static bool parse_words(struct gm_mock_config *config, struct span rest);

static bool set_preset(struct gm_mock_config *config, struct span value)
{
	const char *name, *text;

	for (unsigned i = 0; gm_mock_preset(i, &name, &text, NULL) == GM_RET_SUCCESS; i++) {
		if (span_is(value, name))
			return parse_words(config, (struct span){ .at = text, .len = strlen(text) });
	}
	return false;
}

static bool set_bug(struct gm_mock_config *config, struct span value)
{
	const char *name;

	for (unsigned i = 0; (name = gm_mock_bug_name((enum gm_mock_bug)i)); i++) {
		if (span_is(value, name)) {
			config->bug = (enum gm_mock_bug)i;
			return true;
		}
	}
	return false;
}

enum kind {
	NUMBER, /* uint64_t, digits only */
	SIZE,   /* uint64_t, also with K, M, G */
	NUM32,  /* uint32_t */
	CHOICE, /* bool: word[0] or word[1] */
	OTHER,  /* set() */
};

#define FIELD(what, name) .kind = (what), .offset = offsetof(struct gm_mock_config, name)

static const struct word {
	const char *key;
	enum kind kind;
	size_t offset;
	const char *word[2]; /* CHOICE: false, true */
	bool (*set)(struct gm_mock_config *config, struct span value);
} words[] = {
	{ "preset", .kind = OTHER, .set = set_preset },
	{ "vram", FIELD(SIZE, vram_bytes) },
	{ "pages", .kind = OTHER, .set = set_pages },
	{ "tlb", FIELD(NUM32, tlb_entries) },
	{ "vabits", FIELD(NUM32, va_bits) },
	{ "contexts", FIELD(NUM32, max_contexts) },
	{ "copy", FIELD(CHOICE, async_copy), .word = { "sync", "async" } },
	{ "copyns", FIELD(NUMBER, copy_ns) },
	{ "faults", FIELD(CHOICE, no_faults), .word = { "yes", "no" } },
	{ "hostmap", FIELD(CHOICE, no_host_map), .word = { "yes", "no" } },
	{ "visible", .kind = OTHER, .set = set_visible },
	{ "submit", FIELD(CHOICE, no_submit), .word = { "yes", "no" } },
	{ "protect", FIELD(CHOICE, no_protect), .word = { "yes", "no" } },
	{ "access", FIELD(CHOICE, no_access), .word = { "yes", "no" } },
	{ "fastinvl", FIELD(CHOICE, no_fast_invl), .word = { "yes", "no" } },
	{ "dirty", FIELD(CHOICE, dirty_bits), .word = { "no", "yes" } },
	{ "engines", FIELD(NUM32, engines) },
	{ "reorder", FIELD(NUMBER, reorder_seed) },
	{ "peer", FIELD(NUM32, peer_group) },
	{ "timing", FIELD(CHOICE, timing_wait), .word = { "account", "wait" } },
	{ "todev", FIELD(SIZE, to_dev_bps) },
	{ "tohost", FIELD(SIZE, to_host_bps) },
	{ "frompeer", FIELD(SIZE, peer_bps) },
	{ "zero", FIELD(SIZE, zero_bps) },
	{ "latency", FIELD(NUMBER, latency_ns) },
	{ "opns", FIELD(NUMBER, op_ns) },
	{ "stepns", FIELD(NUMBER, step_ns) },
	{ "faultns", FIELD(NUMBER, fault_ns) },
	{ "missns", FIELD(NUMBER, miss_ns) },
	{ "sync", FIELD(CHOICE, no_sync), .word = { "yes", "no" } },
	{ "bug", .kind = OTHER, .set = set_bug },
};

static bool set_word(struct gm_mock_config *config, const struct word *w, struct span value)
{
	char *field = (char *)config + w->offset;
	uint64_t number = 0;
	uint32_t narrow;
	bool choice;

	switch (w->kind) {
	case OTHER:
		return w->set(config, value);
	case CHOICE:
		choice = span_is(value, w->word[1]);
		if (!choice && !span_is(value, w->word[0]))
			return false;
		memcpy(field, &choice, sizeof(choice));
		return true;
	case NUMBER:
	case NUM32:
		if (!parse_number(value, &number))
			return false;
		break;
	case SIZE:
		if (!parse_size(value, &number))
			return false;
		break;
	}
	if (w->kind != NUM32) {
		memcpy(field, &number, sizeof(number));
		return true;
	}
	narrow = (uint32_t)number;
	memcpy(field, &narrow, sizeof(narrow));
	return narrow == number;
}

static bool parse_word(struct gm_mock_config *config, struct span word)
{
	struct span key = span_cut(&word, '=');

	if (!word.at)
		return false;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (span_is(key, words[i].key))
			return set_word(config, &words[i], word);
	}
	return false;
}

static bool parse_words(struct gm_mock_config *config, struct span rest)
{
	if (rest.len == 0)
		return true;
	while (rest.at) {
		if (!parse_word(config, span_cut(&rest, ',')))
			return false;
	}
	return true;
}

static struct gm_mock_config defaults(void)
{
	return (struct gm_mock_config){
		.size = sizeof(struct gm_mock_config),
		.vram_bytes = UINT64_C(64) << 20,
		.page_sizes = ALL_PAGES,
		.va_bits = MAX_VA_BITS,
		.max_contexts = 8,
		.tlb_entries = 64,
		.engines = 1,
	};
}

/* What one word says about another. */
static void imply(struct gm_mock_config *config)
{
	config->async_copy |= config->engines > 1;
}

static bool is_valid(const struct gm_mock_config *config)
{
	if (config->vram_bytes == 0 || config->vram_bytes > MAX_VRAM_BYTES || config->vram_bytes % GM_UNIT_BYTES)
		return false;
	if (config->page_sizes == 0 || (config->page_sizes & ~ALL_PAGES))
		return false;
	if (config->va_bits < MIN_VA_BITS || config->va_bits > MAX_VA_BITS)
		return false;
	if (config->max_contexts == 0 || config->max_contexts > MAX_CONTEXTS)
		return false;
	if (!gm_mock_bug_name(config->bug) || (config->hw && !gm_mock_is_hw(config->hw)))
		return false;
	if (config->engines == 0 || config->engines > GM_MOCK_MAX_ENGINES)
		return false;
	if (config->visible_bytes % GM_PAGE_BYTES || (config->no_cpu_visible && config->visible_bytes))
		return false;
	return config->tlb_entries > 0 && config->tlb_entries <= MAX_TLB_ENTRIES &&
	       (config->tlb_entries & (config->tlb_entries - 1)) == 0;
}

gm_ret_t gm_mock_config_complete(const struct gm_mock_config *in, struct gm_mock_config *out)
{
	struct gm_mock_config config = defaults();

	if (in) {
		if (in->size != sizeof(*in))
			return GM_RET_INVAL;
		config = *in;
		if (config.vram_bytes == 0)
			config.vram_bytes = defaults().vram_bytes;
		if (config.page_sizes == 0)
			config.page_sizes = defaults().page_sizes;
		if (config.va_bits == 0)
			config.va_bits = defaults().va_bits;
		if (config.max_contexts == 0)
			config.max_contexts = defaults().max_contexts;
		if (config.tlb_entries == 0)
			config.tlb_entries = defaults().tlb_entries;
		if (config.engines == 0)
			config.engines = defaults().engines;
	}
	imply(&config);
	if (!is_valid(&config))
		return GM_RET_INVAL;
	*out = config;
	return GM_RET_SUCCESS;
}

/* For the message. */
static void keep_word(struct span s, char *word, size_t bytes)
{
	(void)snprintf(word, bytes, "%.*s", s.len < bytes ? (int)s.len : (int)bytes - 1, s.at ? s.at : "");
}

gm_ret_t gm_mock_config_parse(const char *text, struct gm_mock_config *config, char *word, size_t bytes)
{
	struct gm_mock_config parsed = defaults();
	struct span rest = { .at = text, .len = text ? strlen(text) : 0 };

	keep_word(rest, word, bytes);
	while (rest.len > 0 || (rest.at && rest.at != text)) {
		struct span one = span_cut(&rest, ',');

		if (parse_word(&parsed, one))
			continue;
		keep_word(one, word, bytes);
		return GM_RET_INVAL;
	}
	imply(&parsed);
	if (!is_valid(&parsed))
		return GM_RET_INVAL;
	*config = parsed;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_open_spec(const char *options, void *dev_data, size_t bytes)
{
	struct gm_mock_config config;
	gm_ret_t ret;

	if (!dev_data || bytes < sizeof(config))
		return GM_RET_INVAL;
	ret = gm_mock_parse(options, &config);
	if (ret == GM_RET_SUCCESS)
		memcpy(dev_data, &config, sizeof(config));
	return ret;
}
