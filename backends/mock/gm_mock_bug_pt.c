/* SPDX-License-Identifier: MIT */
/*
 * Planted errors of page tables: between the operations of the ops table and
 * the page table itself. Without an error planted, each function here is the
 * one of gm_mock_pt.c that it is named after.
 */
#include "config.h"

#include <string.h>

#include "backends/mock/gm_mock_internal.h"

/* So many pages are looked at for holes: ranges may be as large as the VA space. */
#define MAX_FILL_PAGES 512u

static bool is_mapped(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va)
{
	struct gm_mock_xlate page;

	return gm_mock_pt_walk(m, pt, va, &page);
}

uint64_t gm_mock_bug_va(struct gm_mock *m, uint64_t va)
{
	return gm_mock_has_bug(m, GM_MOCK_BUG_VA_ALIAS) ? va & ~(UINT64_C(1) << (m->config.va_bits - 1)) : va;
}

/* The first half of a range, at least a page. */
static uint64_t half(struct gm_mock *m, uint64_t bytes)
{
	uint64_t pages = bytes / m->granule_bytes / 2;

	return (pages ? pages : 1) * m->granule_bytes;
}

static gm_ret_t enter_wrong_pa(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t pa, uint64_t bytes,
			       uint32_t pte)
{
	uint64_t page = m->granule_bytes;
	gm_ret_t ret;

	ret = gm_mock_pt_enter(m, pt, va, pa, page, pte);
	if (ret == GM_RET_SUCCESS)
		ret = gm_mock_pt_enter(m, pt, va + page, pa, page, pte);
	if (ret == GM_RET_SUCCESS && bytes > 2 * page)
		ret = gm_mock_pt_enter(m, pt, va + 2 * page, pa + 2 * page, bytes - 2 * page, pte);
	return ret;
}

gm_ret_t gm_mock_bug_enter_failed(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t pa, uint64_t bytes,
				  uint32_t pte)
{
	if (gm_mock_has_bug(m, GM_MOCK_BUG_ENTER_HALF))
		(void)gm_mock_pt_enter(m, pt, va, pa, half(m, bytes), pte);
	return gm_mock_has_bug(m, GM_MOCK_BUG_ENTER_AGAIN) ? GM_RET_AGAIN : GM_RET_NOMEM;
}

gm_ret_t gm_mock_bug_enter(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t pa, uint64_t bytes,
			   uint32_t pte)
{
	bool several = bytes > m->granule_bytes;
	gm_ret_t ret;

	if (gm_mock_has_bug(m, GM_MOCK_BUG_WRONG_PA) && several)
		return enter_wrong_pa(m, pt, va, pa, bytes, pte);
	if (gm_mock_has_bug(m, GM_MOCK_BUG_ENTER_NO_GROW) && is_mapped(m, pt, va))
		return GM_RET_SUCCESS;
	if (gm_mock_has_bug(m, GM_MOCK_BUG_ENTER_EXIST) && is_mapped(m, pt, va))
		return GM_RET_EXIST;
	if (gm_mock_has_bug(m, GM_MOCK_BUG_ENTER_SHORT) && several)
		bytes -= m->granule_bytes;
	if (gm_mock_has_bug(m, GM_MOCK_BUG_ENTER_TOP) && va + bytes == UINT64_C(1) << m->config.va_bits &&
	    (bytes -= m->granule_bytes) == 0)
		return GM_RET_SUCCESS;
	if (gm_mock_has_bug(m, GM_MOCK_BUG_ENTER_WRITABLE))
		pte |= GM_PTE_WRITE;
	ret = gm_mock_pt_enter(m, pt, va, pa, bytes, pte);
	return ret == GM_RET_NOMEM ? gm_mock_bug_enter_failed(m, pt, va, pa, bytes, pte) : ret;
}

/* What is left of the larger pages that a change of a range cuts: before it, and behind it. */
struct rest {
	struct gm_mock_xlate page[2];
	struct gm_range range[2]; /* bytes 0: nothing */
};

static void rest_find(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes, struct rest *rest)
{
	uint64_t end = va + bytes, page_end;

	*rest = (struct rest){ .range = { { .va = 0 } } };
	if (gm_mock_pt_walk(m, pt, va, &rest->page[0]))
		rest->range[0] = (struct gm_range){ rest->page[0].va, va - rest->page[0].va };
	if (!gm_mock_pt_walk(m, pt, end - 1, &rest->page[1]))
		return;
	page_end = rest->page[1].va + (UINT64_C(1) << rest->page[1].shift);
	rest->range[1] = (struct gm_range){ end, page_end - end };
}

static void rest_spoil(struct gm_mock *m, struct gm_mock_pt *pt, const struct rest *rest)
{
	for (unsigned i = 0; i < 2; i++) {
		uint32_t pte = rest->page[i].pte & GM_PTE_WRITE ? 0 : GM_PTE_WRITE;

		if (rest->range[i].bytes)
			(void)gm_mock_pt_protect(m, pt, rest->range[i].va, rest->range[i].bytes, pte);
	}
}

gm_ret_t gm_mock_bug_remove_failed(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes)
{
	if (gm_mock_has_bug(m, GM_MOCK_BUG_REMOVE_HALF))
		(void)gm_mock_pt_remove(m, pt, va, half(m, bytes));
	return GM_RET_NOMEM;
}

gm_ret_t gm_mock_bug_remove(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes)
{
	uint64_t page = m->granule_bytes, limit = UINT64_C(1) << m->config.va_bits;
	struct rest rest;
	gm_ret_t ret;

	if (gm_mock_has_bug(m, GM_MOCK_BUG_SKIP_REMOVE) && (bytes -= page) == 0)
		return GM_RET_SUCCESS;
	if (gm_mock_has_bug(m, GM_MOCK_BUG_REMOVE_NOENT) && !is_mapped(m, pt, va))
		return GM_RET_NOENT;
	if (gm_mock_has_bug(m, GM_MOCK_BUG_REMOVE_NEIGHBOUR) && bytes < limit - va)
		bytes += page;
	rest_find(m, pt, va, bytes, &rest);
	if (gm_mock_has_bug(m, GM_MOCK_BUG_REMOVE_LARGE)) {
		va -= rest.range[0].bytes;
		bytes += rest.range[0].bytes + rest.range[1].bytes;
	}
	ret = gm_mock_pt_remove(m, pt, va, bytes);
	if (ret == GM_RET_NOMEM)
		return gm_mock_bug_remove_failed(m, pt, va, bytes);
	if (gm_mock_has_bug(m, GM_MOCK_BUG_SPLIT_RIGHTS))
		rest_spoil(m, pt, &rest);
	return ret;
}

/* Map the page at va to the memory beside its own. */
static void move_page(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint32_t pte)
{
	uint64_t page = m->granule_bytes, at;
	struct gm_mock_xlate x;

	if (!gm_mock_pt_walk(m, pt, va, &x) || (x.pte & GM_PTE_HOST))
		return;
	at = x.pa + (va - x.va) - GM_MOCK_PA_BASE;
	at = at >= page ? at - page : at + page;
	if (at < m->config.vram_bytes && gm_mock_pt_remove(m, pt, va, page) == GM_RET_SUCCESS)
		(void)gm_mock_pt_enter(m, pt, va, GM_MOCK_PA_BASE + at, page, pte);
}

static void fill_holes(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes, uint32_t pte)
{
	uint64_t page = m->granule_bytes;

	for (uint64_t i = 0; i < MAX_FILL_PAGES && i * page < bytes; i++) {
		if (!is_mapped(m, pt, va + i * page))
			(void)gm_mock_pt_enter(m, pt, va + i * page, GM_MOCK_PA_BASE, page, pte);
	}
}

gm_ret_t gm_mock_bug_protect(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes, uint32_t pte)
{
	struct rest rest;
	gm_ret_t ret;

	if (gm_mock_has_bug(m, GM_MOCK_BUG_PROTECT_FIRST))
		bytes = m->granule_bytes;
	rest_find(m, pt, va, bytes, &rest);
	ret = gm_mock_pt_protect(m, pt, va, bytes, pte);
	if (ret != GM_RET_SUCCESS && gm_mock_has_bug(m, GM_MOCK_BUG_PROTECT_HALF))
		(void)gm_mock_pt_protect(m, pt, va, half(m, bytes), pte);
	if (ret != GM_RET_SUCCESS)
		return ret;
	if (gm_mock_has_bug(m, GM_MOCK_BUG_SPLIT_RIGHTS))
		rest_spoil(m, pt, &rest);
	if (gm_mock_has_bug(m, GM_MOCK_BUG_PROTECT_MOVES))
		move_page(m, pt, va, pte);
	if (gm_mock_has_bug(m, GM_MOCK_BUG_PROTECT_DROPS))
		(void)gm_mock_pt_remove(m, pt, va + bytes - m->granule_bytes, m->granule_bytes);
	if (gm_mock_has_bug(m, GM_MOCK_BUG_PROTECT_FILLS))
		fill_holes(m, pt, va, bytes, pte);
	return GM_RET_SUCCESS;
}

bool gm_mock_bug_straight(struct gm_mock_pmap *pmap, uint64_t va, uint64_t offset, void *buf, size_t bytes, bool write)
{
	struct gm_mock *m = pmap->dev;
	struct gm_mock_xlate page;
	uint64_t at;
	char *vram;

	if (!gm_mock_has_bug(m, GM_MOCK_BUG_ACCESS_STRAIGHT) || !gm_mock_pt_walk(m, pmap->vm, va, &page) ||
	    (page.pte & GM_PTE_HOST))
		return false;
	at = page.pa + (va - page.va) + offset;
	if (at - GM_MOCK_PA_BASE + bytes > m->config.vram_bytes)
		return false;
	vram = gm_mock_vram(m, at, bytes);
	if (write)
		memcpy(vram, buf, bytes);
	else
		memcpy(buf, vram, bytes);
	return true;
}
