/* SPDX-License-Identifier: MIT */
/* Group memory: copies of all kinds and sizes put every byte where it belongs, and no other. */
#include "config.h"

#include <string.h>

#include "conform/gm_ct.h"

#define PIECES 64u

static void round_trip(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_open(t);
	struct gm_ct_mem m;

	gm_ct_mem_init(&m, d, GM_CT_WINDOW, t->seed);
	gm_ct_mem_check(&m);
	/* and once more: not what happened to be there */
	gm_ct_fill(m.is, m.bytes, t->seed + 7);
	gm_ct_mem_put(&m);
	gm_ct_mem_check(&m);
	gm_ct_mem_fini(&m);
	gm_ct_close(d);
}

/* A piece of random place and length, of one kind; the neighbours stay. */
static void piece(struct gm_ct_mem *m, struct gm_ct_random *r, void *host, enum gm_copy_kind kind)
{
	uint64_t pages = m->bytes / GM_CT_PAGE, at = gm_ct_below(r, pages), n = 1 + gm_ct_below(r, pages - at);
	struct gm_copy copy = { .kind = kind, .pa = m->pa + at * GM_CT_PAGE };
	unsigned char *is = m->is + at * GM_CT_PAGE;

	if (gm_ct_below(r, 2))
		n = n < 16 ? n : 16;
	copy.bytes = n * GM_CT_PAGE;
	copy.host = kind == GM_COPY_ZERO ? 0 : GM_VA(host);
	gm_ct_fill(host, copy.bytes, gm_ct_random(r));
	if (kind == GM_COPY_TO_DEV)
		memcpy(is, host, copy.bytes);
	else if (kind == GM_COPY_ZERO)
		memset(is, 0, copy.bytes);
	gm_ct_ok(m->d->t, gm_ct_copy(m->d, &copy, 1));
	if (kind == GM_COPY_TO_HOST && memcmp(host, is, copy.bytes) != 0)
		gm_ct_fail(m->d->t, "bytes", "GM_COPY_TO_HOST of %llu bytes at pa 0x%llx brought something else",
			   (unsigned long long)copy.bytes, (unsigned long long)copy.pa);
}

static void sizes(struct gm_ct *t)
{
	static const enum gm_copy_kind kinds[] = { GM_COPY_TO_DEV, GM_COPY_TO_HOST, GM_COPY_ZERO };
	struct gm_ct_dev *d = gm_ct_open(t);
	struct gm_ct_random r = { .state = t->seed };
	struct gm_ct_mem m;
	void *host;

	gm_ct_mem_init(&m, d, GM_CT_WINDOW, t->seed);
	host = gm_ct_pages(t, m.bytes);
	for (unsigned i = 0; i < 60; i++) {
		piece(&m, &r, host, kinds[i % 3]);
		if (i % 10 == 9)
			gm_ct_mem_check(&m);
	}
	gm_ct_pages_free(host, m.bytes);
	gm_ct_mem_fini(&m);
	gm_ct_close(d);
}

/* Zeros where there was something, and nowhere else. */
static void zero(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_open(t);
	struct gm_copy copy = { .kind = GM_COPY_ZERO, .bytes = GM_CT_PAGE };
	struct gm_ct_mem m;

	gm_ct_mem_init(&m, d, GM_CT_SMALL, t->seed);
	copy.pa = m.pa + GM_CT_PAGE;
	gm_ct_ok(t, gm_ct_copy(d, &copy, 1));
	memset(m.is + GM_CT_PAGE, 0, GM_CT_PAGE);
	gm_ct_mem_check(&m);
	copy.pa = m.pa;
	copy.bytes = m.bytes;
	gm_ct_ok(t, gm_ct_copy(d, &copy, 1));
	memset(m.is, 0, m.bytes);
	gm_ct_mem_check(&m);
	gm_ct_mem_fini(&m);
	gm_ct_close(d);
}

/* One call with many pieces of all kinds, in no order: even pages change, odd ones are read or left alone. */
static void many(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_open(t);
	struct gm_ct_random r = { .state = t->seed };
	struct gm_copy copy[PIECES];
	unsigned char *host = gm_ct_pages(t, PIECES * GM_CT_PAGE);
	struct gm_ct_mem m;
	uint64_t n;

	gm_ct_mem_init(&m, d, GM_CT_SMALL, t->seed);
	n = m.bytes / GM_CT_PAGE < PIECES ? m.bytes / GM_CT_PAGE : PIECES;
	gm_ct_fill(host, PIECES * GM_CT_PAGE, t->seed + 3);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t page = n - 1 - i, offset = page * GM_CT_PAGE;

		copy[i] = (struct gm_copy){ .kind = GM_COPY_TO_HOST, .pa = m.pa + offset, .host = GM_VA(host) + offset,
					    .bytes = GM_CT_PAGE };
		if (page % 2)
			continue;
		copy[i].kind = gm_ct_below(&r, 2) ? GM_COPY_ZERO : GM_COPY_TO_DEV;
		if (copy[i].kind == GM_COPY_ZERO)
			copy[i].host = 0;
		if (copy[i].kind == GM_COPY_ZERO)
			memset(m.is + offset, 0, GM_CT_PAGE);
		else
			memcpy(m.is + offset, host + offset, GM_CT_PAGE);
	}
	gm_ct_ok(t, gm_ct_copy(d, copy, n));
	for (uint64_t page = 1; page < n; page += 2) {
		if (memcmp(host + page * GM_CT_PAGE, m.is + page * GM_CT_PAGE, GM_CT_PAGE) != 0)
			gm_ct_fail(t, "bytes", "piece %llu of %llu, to the host, brought something else",
				   (unsigned long long)(n - 1 - page), (unsigned long long)n);
	}
	gm_ct_mem_check(&m);
	gm_ct_mem_fini(&m);
	gm_ct_pages_free(host, PIECES * GM_CT_PAGE);
	gm_ct_close(d);
}

/* First and last page of piece i, in one call. */
static void ends(struct gm_ct_dev *d, uint32_t i, enum gm_copy_kind kind, unsigned char *host)
{
	const struct gm_slab *slab = &d->caps.slab[i];
	struct gm_copy copy[2] = {
		{ .kind = kind, .pa = slab->begin, .host = GM_VA(host), .bytes = GM_CT_PAGE },
		{ .kind = kind, .pa = slab->end - GM_CT_PAGE, .host = GM_VA(host) + GM_CT_PAGE, .bytes = GM_CT_PAGE },
	};

	gm_ct_ok(d->t, gm_ct_copy(d, copy, 2));
}

/* Every piece of memory that the device announces is there from the first to the last page, and none is another. */
static void slabs(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_open(t);
	unsigned char *host = gm_ct_pages(t, 2 * GM_CT_PAGE), *want = gm_ct_pages(t, 2 * GM_CT_PAGE);

	for (uint32_t i = 0; i < d->caps.slabs; i++) {
		gm_ct_fill(host, 2 * GM_CT_PAGE, t->seed + i);
		ends(d, i, GM_COPY_TO_DEV, host);
	}
	for (uint32_t i = 0; i < d->caps.slabs; i++) {
		gm_ct_fill(want, 2 * GM_CT_PAGE, t->seed + i);
		memset(host, 0, 2 * GM_CT_PAGE);
		ends(d, i, GM_COPY_TO_HOST, host);
		if (memcmp(want, host, 2 * GM_CT_PAGE) != 0)
			gm_ct_fail(t, "bytes", "first or last page of piece %u of the memory holds something else", (unsigned)i);
	}
	gm_ct_pages_free(host, 2 * GM_CT_PAGE);
	gm_ct_pages_free(want, 2 * GM_CT_PAGE);
	gm_ct_close(d);
}

const struct gm_ct_test gm_ct_memory_tests[] = {
	{ "round_trip", 0, 0, round_trip },
	{ "zero", 0, 0, zero },
	{ "sizes", 0, 0, sizes },
	{ "many", 0, 0, many },
	{ "slabs", 0, 0, slabs },
	{ NULL, 0, 0, NULL },
};
