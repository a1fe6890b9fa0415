/* SPDX-License-Identifier: MIT */
/*
 * A window of device memory, and beside it what must be in it. Every aligned word says where it belongs, so that a
 * wrong byte also tells where it came from.
 *
 * Copies obey the contract of the caller: the window is put before anything is mapped, and checked by copy only
 * while nothing is mapped with write.
 */
#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "conform/gm_ct.h"

void *gm_ct_alloc(struct gm_ct *t, size_t bytes)
{
	void *ptr = calloc(1, bytes);

	if (!ptr)
		gm_ct_fail(t, "host", "no memory for the suite itself: %zu bytes", bytes);
	return ptr;
}

void *gm_ct_pages(struct gm_ct *t, size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		gm_ct_fail(t, "host", "no memory for the suite itself: %zu bytes", bytes);
	return at;
}

void gm_ct_pages_free(void *at, size_t bytes)
{
	(void)munmap(at, bytes);
}

/* The number of the word in the low half; a mark of the seed in the high half. */
void gm_ct_fill(void *at, size_t bytes, uint64_t seed)
{
	uint64_t mark = (seed * UINT64_C(0x9e3779b97f4a7c15)) << 32, *word = at;

	for (size_t i = 0; i < bytes / sizeof(*word); i++)
		word[i] = mark | (i + 1);
}

/* The largest piece, cut to whole large pages where it has one. */
static void choose_piece(struct gm_ct_mem *m, uint64_t max)
{
	const struct gm_ct_dev *d = m->d;

	for (uint32_t i = 0; i < d->caps.slabs; i++) {
		uint64_t begin = d->caps.slab[i].begin, end = d->caps.slab[i].end, bytes;
		uint64_t large = (begin + d->large - 1) / d->large * d->large;

		if (large < end && (end - large) * 2 >= end - begin)
			begin = large;
		bytes = (end - begin) / d->granule * d->granule;
		if (bytes > max)
			bytes = max / d->granule * d->granule;
		if (bytes <= m->bytes)
			continue;
		m->pa = begin;
		m->bytes = bytes;
	}
	m->pages = (uint32_t)(m->bytes / d->granule);
	if (m->pages < GM_CT_MIN_PAGES)
		gm_ct_fail(d->t, "memory", "no piece of at least %u pages of %llu bytes: open a larger device",
			   GM_CT_MIN_PAGES, (unsigned long long)d->granule);
}

void gm_ct_mem_init(struct gm_ct_mem *m, struct gm_ct_dev *d, uint64_t max, uint64_t seed)
{
	uint64_t least = GM_CT_MIN_PAGES * d->granule;

	*m = (struct gm_ct_mem){ .d = d };
	choose_piece(m, max < least ? least : max);
	m->is = gm_ct_pages(d->t, m->bytes);
	m->buf = gm_ct_pages(d->t, m->bytes);
	gm_ct_fill(m->is, m->bytes, seed + 1);
	gm_ct_mem_put(m);
}

void gm_ct_mem_fini(struct gm_ct_mem *m)
{
	gm_ct_pages_free(m->is, m->bytes);
	gm_ct_pages_free(m->buf, m->bytes);
}

void gm_ct_mem_put(struct gm_ct_mem *m)
{
	struct gm_copy copy = { .kind = GM_COPY_TO_DEV, .pa = m->pa, .host = GM_VA(m->is), .bytes = m->bytes };

	gm_ct_ok(m->d->t, gm_ct_copy(m->d, &copy, 1));
}

void gm_ct_mem_check(struct gm_ct_mem *m)
{
	struct gm_copy copy = { .kind = GM_COPY_TO_HOST, .pa = m->pa, .host = GM_VA(m->buf), .bytes = m->bytes };

	memset(m->buf, 0x5a, m->bytes);
	gm_ct_ok(m->d->t, gm_ct_copy(m->d, &copy, 1));
	if (memcmp(m->buf, m->is, m->bytes) == 0)
		return;
	for (uint64_t i = 0; i < m->bytes; i += 8) {
		uint64_t got, want;

		memcpy(&got, m->buf + i, 8);
		memcpy(&want, m->is + i, 8);
		if (got != want)
			gm_ct_fail(m->d->t, "bytes", "device memory at pa 0x%" PRIx64 " (page %" PRIu64
				   " of the window) holds %016" PRIx64 ", expected %016" PRIx64, m->pa + i,
				   i / m->d->granule, got, want);
	}
}
