/* SPDX-License-Identifier: MIT */
/*
 * How much comes home around a page that was touched. Who touches pages here and there gets a page each time: what lies
 * beside it would take the place of something that is used. Two things say that more is wanted:
 *
 *     it goes on where one of the last 16 ended         twice as much as then, up to the most
 *     other pages of its unit of 64 KiB were touched    4 of them: 16 KiB; 8: the unit
 *
 * Several streams, as a merge reads from two places and writes to a third, and as a program has threads. Pages of a unit count
 * from when it came home until it goes; a unit of which 8 were touched comes home as a whole the next four times.
 * Units are remembered until another one needs the place in the table. The server alone is here.
 */
#include "config.h"

#include <gmem/policy.h>

#include "tools/preload/preload.h"

#define STREAMS 16u
#define UNITS 4096u
#define SOME_PAGES 4
#define SOME_BYTES (16u << 10)
#define MANY_PAGES 8
#define WHOLE_TIMES 4

struct stream {
	uint64_t end; /* where it goes on */
	uint32_t bytes;
};

struct touched {
	uint64_t unit;   /* its number */
	uint16_t pages;  /* bits: since it went the last time */
	uint16_t whole;  /* so often it comes as a whole */
};

static struct stream streams[STREAMS]; /* the one touched last is first */
static struct touched units[UNITS];

static uint32_t by_stream(uint64_t va, uint32_t min_bytes)
{
	for (unsigned i = 0; i < STREAMS; i++)
		if (streams[i].end == va)
			return streams[i].bytes * 2;
	return min_bytes;
}

static void note_stream(uint64_t va, uint32_t bytes)
{
	unsigned i = 0;

	while (i < STREAMS - 1 && streams[i].end != va)
		i++;
	for (; i; i--)
		streams[i] = streams[i - 1];
	streams[0] = (struct stream){ .end = (va & ~(uint64_t)(bytes - 1)) + bytes, .bytes = bytes };
}

static uint32_t by_unit(uint64_t va, uint32_t min_bytes)
{
	uint64_t nr = va / GM_UNIT_BYTES;
	struct touched *t = &units[nr % UNITS];
	int n;

	if (t->unit != nr)
		*t = (struct touched){ .unit = nr };
	n = __builtin_popcount(t->pages);
	t->pages |= (uint16_t)(1u << va % GM_UNIT_BYTES / GM_PAGE_BYTES);
	if (!n && t->whole) {
		t->whole--;
		return GM_UNIT_BYTES;
	}
	if (n < MANY_PAGES)
		return n < SOME_PAGES ? min_bytes : SOME_BYTES;
	return GM_UNIT_BYTES;
}

void gm_exec_policy_gone(uint64_t va)
{
	struct touched *t = &units[va / GM_UNIT_BYTES % UNITS];

	if (t->unit != va / GM_UNIT_BYTES)
		return;
	if (__builtin_popcount(t->pages) >= MANY_PAGES)
		t->whole = WHOLE_TIMES;
	t->pages = 0;
}

static uint32_t unit(void *state, const struct gm_policy_fault *f)
{
	uint64_t va = f->va & ~(uint64_t)(GM_PAGE_BYTES - 1);
	uint32_t bytes = by_stream(va, f->min_bytes), near = by_unit(va, f->min_bytes);

	(void)state;
	bytes = bytes > near ? bytes : near;
	bytes = bytes < f->max_bytes ? bytes : f->max_bytes;
	note_stream(va, bytes);
	return bytes;
}

const struct gm_policy gm_exec_policy = { .size = sizeof(gm_exec_policy), .name = "streams", .unit = unit };
