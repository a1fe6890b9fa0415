/* SPDX-License-Identifier: MIT */
/*
 * Configuration: from text, from a structure, and whether it makes sense.
 *
 * Text is a list of `key=value` separated by commas; each key has one row in
 * the table below. A word given twice counts as given the last time. Nothing
 * is written to the caller's structure before all of it was understood.
 */
#include "config.h"

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

static bool set_vram(struct gm_mock_config *config, struct span value)
{
	return parse_size(value, &config->vram_bytes);
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

static bool set_u32(uint32_t *out, struct span value)
{
	uint64_t number;

	if (!parse_number(value, &number) || number > UINT32_MAX)
		return false;
	*out = (uint32_t)number;
	return true;
}

static bool set_tlb(struct gm_mock_config *config, struct span value)
{
	return set_u32(&config->tlb_entries, value);
}

static bool set_vabits(struct gm_mock_config *config, struct span value)
{
	return set_u32(&config->va_bits, value);
}

static bool set_contexts(struct gm_mock_config *config, struct span value)
{
	return set_u32(&config->max_contexts, value);
}

static bool set_copyns(struct gm_mock_config *config, struct span value)
{
	return parse_number(value, &config->copy_ns);
}

static bool set_choice(bool *out, struct span value, const char *word_false, const char *word_true)
{
	if (!span_is(value, word_false) && !span_is(value, word_true))
		return false;
	*out = span_is(value, word_true);
	return true;
}

static bool set_copy(struct gm_mock_config *config, struct span value)
{
	return set_choice(&config->async_copy, value, "sync", "async");
}

static bool set_faults(struct gm_mock_config *config, struct span value)
{
	return set_choice(&config->no_faults, value, "yes", "no");
}

static bool set_hostmap(struct gm_mock_config *config, struct span value)
{
	return set_choice(&config->no_host_map, value, "yes", "no");
}

static bool set_visible(struct gm_mock_config *config, struct span value)
{
	return set_choice(&config->no_cpu_visible, value, "yes", "no");
}

static bool set_submit(struct gm_mock_config *config, struct span value)
{
	return set_choice(&config->no_submit, value, "yes", "no");
}

static const struct {
	const char *key;
	bool (*set)(struct gm_mock_config *config, struct span value);
} words[] = {
	{ "vram", set_vram },     { "pages", set_pages },       { "tlb", set_tlb },         { "vabits", set_vabits },
	{ "copy", set_copy },     { "contexts", set_contexts }, { "copyns", set_copyns },   { "faults", set_faults },
	{ "submit", set_submit }, { "hostmap", set_hostmap },   { "visible", set_visible },
};

static bool parse_word(struct gm_mock_config *config, struct span word)
{
	struct span key = span_cut(&word, '=');

	if (!word.at)
		return false;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (span_is(key, words[i].key))
			return words[i].set(config, word);
	}
	return false;
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
	};
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
	}
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
