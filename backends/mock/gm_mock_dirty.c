/* SPDX-License-Identifier: MIT */
/*
 * Accessed and dirty bits: a byte per 4 KiB of a page table's VA, beside the page table, because the bits of a page
 * outlive its mapping. A granule uses the byte of its first 4 KiB.
 *
 *     (none) --enter, not mapped before--> clean --access--> ACCESSED, DIRTY --harvest--> clean
 *     removed: as it was; an old translation may still set bits until it is invalidated
 *
 * A page sets the bits of all its granules at once, as hardware has one pair per page.
 *
 * An enter clears the bits, but must not if it fails, and accesses must not meet old ones afterwards. So it first moves
 * them aside (to the high half of the byte), then enters, then forgets them or moves them back. What was mapped
 * already, and only gets more rights, keeps its bits.
 *
 * The bytes hang in a tree of four levels of nine bits that only grows, so accesses, which may not wait, read it
 * without a lock. A VA that was never entered has no bytes and nothing to set.
 */
#include "config.h"

#include <assert.h>

#include "backends/mock/gm_mock_internal.h"

#define FAN 512u
#define TOP 3 /* level of the root; the bytes are level 0 */
#define LOW (GM_PAGE_ACCESSED | GM_PAGE_DIRTY)
#define ASIDE 4u

struct node {
	_Atomic(void *) child[FAN];
};

struct bytes {
	_Atomic uint8_t at[FAN];
};

struct gm_mock_dirty {
	struct node root;
};

static unsigned index_at(uint64_t va, int level)
{
	return (unsigned)(va >> (GM_MOCK_SHIFT_4K + 9u * (unsigned)level)) % FAN;
}

/* The byte of an address; NULL: none. */
static _Atomic uint8_t *find(struct gm_mock_pmap *pmap, uint64_t va)
{
	void *at = &pmap->dirty->root;

	for (int level = TOP; level > 0 && at; level--) {
		struct node *node = at;

		at = atomic_load_explicit(&node->child[index_at(va, level)], memory_order_acquire);
	}
	return at ? &((struct bytes *)at)->at[index_at(va, 0)] : NULL;
}

/* Make the way to an address. Several may: the first one counts. */
static gm_ret_t grow(struct gm_mock_pmap *pmap, uint64_t va)
{
	const struct gm_services *svc = pmap->dev->svc;
	struct node *node = &pmap->dirty->root;

	for (int level = TOP; level > 0; level--) {
		_Atomic(void *) *slot = &node->child[index_at(va, level)];
		size_t size = level > 1 ? sizeof(struct node) : sizeof(struct bytes);
		void *next = atomic_load_explicit(slot, memory_order_acquire), *fresh;

		if (!next) {
			fresh = svc->alloc(svc->self, size);
			if (!fresh)
				return GM_RET_NOMEM;
			if (atomic_compare_exchange_strong(slot, &next, fresh))
				next = fresh;
			else
				svc->free(svc->self, fresh, size);
		}
		node = next;
	}
	return GM_RET_SUCCESS;
}

static void drop(const struct gm_services *svc, void *at, int level)
{
	if (level > 0) {
		struct node *node = at;

		for (unsigned i = 0; i < FAN; i++) {
			void *child = atomic_load(&node->child[i]);

			if (child)
				drop(svc, child, level - 1);
		}
	}
	if (level < TOP)
		svc->free(svc->self, at, level > 0 ? sizeof(struct node) : sizeof(struct bytes));
}

gm_ret_t gm_mock_dirty_init(struct gm_mock_pmap *pmap)
{
	const struct gm_services *svc = pmap->dev->svc;

	if (!pmap->dev->config.dirty_bits)
		return GM_RET_SUCCESS;
	pmap->dirty = svc->alloc(svc->self, sizeof(*pmap->dirty));
	return pmap->dirty ? GM_RET_SUCCESS : GM_RET_NOMEM;
}

void gm_mock_dirty_fini(struct gm_mock_pmap *pmap)
{
	const struct gm_services *svc = pmap->dev->svc;

	if (!pmap->dirty)
		return;
	drop(svc, &pmap->dirty->root, TOP);
	svc->free(svc->self, pmap->dirty, sizeof(*pmap->dirty));
	pmap->dirty = NULL;
}

gm_ret_t gm_mock_dirty_enter(struct gm_mock_pmap *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_mock *m = pmap->dev;
	struct gm_mock_xlate old;

	if (!pmap->dirty)
		return GM_RET_SUCCESS;
	for (uint64_t at = va; at < va + bytes; at = (at | (GM_BLOCK_BYTES - 1)) + 1) {
		if (grow(pmap, at) != GM_RET_SUCCESS)
			return GM_RET_NOMEM;
	}
	for (uint64_t at = va; at < va + bytes; at += m->granule_bytes) {
		_Atomic uint8_t *byte = find(pmap, at);

		/* Not mapped, and by the law no old translation is left: nobody changes it meanwhile. */
		if (!gm_mock_pt_walk(m, pmap->vm, at, &old))
			atomic_store(byte, (uint8_t)((atomic_load(byte) & LOW) << ASIDE));
	}
	return GM_RET_SUCCESS;
}

void gm_mock_dirty_entered(struct gm_mock_pmap *pmap, uint64_t va, uint64_t bytes, gm_ret_t ret)
{
	if (!pmap->dirty)
		return;
	for (uint64_t at = va; at < va + bytes; at += pmap->dev->granule_bytes) {
		_Atomic uint8_t *byte = find(pmap, at);
		uint8_t aside = (uint8_t)(atomic_load(byte) >> ASIDE);

		if (ret != GM_RET_SUCCESS)
			atomic_fetch_or(byte, aside);
		atomic_fetch_and(byte, LOW);
	}
}

void gm_mock_dirty_touch(struct gm_mock_pmap *pmap, uint64_t va, const struct gm_mock_xlate *page, bool write)
{
	uint8_t bits = GM_PAGE_ACCESSED | (write ? GM_PAGE_DIRTY : 0);
	uint64_t granule = pmap->dev->granule_bytes;
	_Atomic uint8_t *byte;

	if (!pmap->dirty)
		return;
	byte = find(pmap, va & ~(granule - 1));
	if (!byte || (atomic_load_explicit(byte, memory_order_relaxed) & bits) == bits)
		return;
	for (uint64_t at = page->va; at < page->va + (UINT64_C(1) << page->shift); at += granule) {
		byte = find(pmap, at);
		if (byte)
			atomic_fetch_or(byte, bits);
	}
}

gm_ret_t gm_mock_harvest(void *pmap_ptr, uint64_t va, uint64_t bytes, uint8_t *bits)
{
	struct gm_mock_event event = { .kind = GM_MOCK_EV_HARVEST, .pmap = pmap_ptr, .va = va, .bytes = bytes };
	struct gm_mock_pmap *pmap = pmap_ptr;
	struct gm_mock *m = pmap->dev;
	uint64_t granule = m->granule_bytes;

	if (!pmap->dirty)
		return GM_RET_UNIMPLEMENTED;
	assert(va % granule == 0 && bytes % granule == 0 && bytes > 0);
	event.ret = gm_mock_begin(m, &(struct gm_mock_call){ .op = GM_MOCK_HARVEST, .va = va, .bytes = bytes });
	for (uint64_t i = 0; i < bytes / granule && event.ret == GM_RET_SUCCESS; i++) {
		_Atomic uint8_t *byte = find(pmap, va + i * granule);

		bits[i] = byte ? atomic_exchange(byte, 0) & LOW : 0;
	}
	gm_mock_note(m, &event);
	return event.ret;
}
