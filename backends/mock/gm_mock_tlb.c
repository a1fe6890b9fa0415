/* SPDX-License-Identifier: MIT */
/*
 * TLBs: one per kernel thread, and one per page table for access().
 *
 *     miss: walk, insert      hit: use it, whatever the page table says now
 *     tlb_invl: drop what overlaps, in every TLB of the page table
 *
 * Direct mapped; a page is looked up once per page size. A hit is never
 * checked against the page table: where the core forgets to invalidate, the
 * old frame goes on being read. The one exception is a hit that lacks the
 * right: like hardware, it walks again before it calls that a fault, because
 * growing rights needs no invalidation.
 *
 * The TLB's lock is held from the look-up to the last byte of the access; see
 * gm_mock_internal.h for why, and for the one place where that takes long.
 */
#include "config.h"

#include <assert.h>
#include <string.h>

#include "backends/mock/gm_mock_internal.h"

static const unsigned shifts[] = { GM_MOCK_SHIFT_4K, GM_MOCK_SHIFT_64K, GM_MOCK_SHIFT_2M };

#define N_SHIFTS (sizeof(shifts) / sizeof(shifts[0]))

/* Written under the TLB's lock only, read without it by gm_mock_stats(). */
static void count_one(_Atomic uint64_t *counter)
{
	uint64_t n = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, n + 1, memory_order_relaxed);
}

void gm_mock_tlb_link(struct gm_mock_pmap *pmap, struct gm_mock_tlb *tlb, struct gm_mock_xlate *entry)
{
	const struct gm_services *svc = pmap->dev->svc;

	atomic_flag_clear(&tlb->lock.held);
	tlb->entry = entry;
	tlb->entries = pmap->dev->config.tlb_entries;
	atomic_init(&tlb->accesses, 0);
	atomic_init(&tlb->misses, 0);
	atomic_init(&tlb->flush, false);
	gm_mock_spin_lock(svc, &pmap->tlbs_lock);
	TAILQ_INSERT_TAIL(&pmap->tlbs, tlb, link);
	gm_mock_spin_unlock(&pmap->tlbs_lock);
}

void gm_mock_tlb_unlink(struct gm_mock_pmap *pmap, struct gm_mock_tlb *tlb)
{
	struct gm_mock *m = pmap->dev;

	/* Under the lock of the list, so that gm_mock_stats() counts each access once. */
	gm_mock_spin_lock(m->svc, &pmap->tlbs_lock);
	TAILQ_REMOVE(&pmap->tlbs, tlb, link);
	gm_mock_count(&m->accesses, atomic_load(&tlb->accesses));
	gm_mock_count(&m->tlb_misses, atomic_load(&tlb->misses));
	gm_mock_spin_unlock(&pmap->tlbs_lock);
}

static struct gm_mock_xlate *entry_for(struct gm_mock_tlb *tlb, uint64_t va, unsigned shift)
{
	/* The low bits of the shift keep pages of different sizes at the same VA apart. */
	return &tlb->entry[((va >> shift) + shift) & (tlb->entries - 1)];
}

static struct gm_mock_xlate *tlb_find(struct gm_mock_tlb *tlb, uint64_t va)
{
	for (size_t i = 0; i < N_SHIFTS; i++) {
		struct gm_mock_xlate *e = entry_for(tlb, va, shifts[i]);

		if (e->shift == shifts[i] && (va ^ e->va) >> e->shift == 0)
			return e;
	}
	return NULL;
}

static bool allows(struct gm_mock *m, const struct gm_mock_xlate *e, enum gm_mock_access kind)
{
	/* Atomic implies write; a device with write may also do read-modify-write on its own memory. */
	return kind == GM_MOCK_LOAD || (e->pte & (GM_PTE_WRITE | GM_PTE_ATOMIC)) ||
	       gm_mock_has_bug(m, GM_MOCK_BUG_IGNORE_RIGHTS);
}

/* A translation that allows the access, from the TLB or else the page table. */
static gm_ret_t translate(struct gm_mock_pmap *pmap, struct gm_mock_tlb *tlb, uint64_t va, enum gm_mock_access kind,
			  struct gm_mock_xlate *out)
{
	struct gm_mock_xlate *hit = tlb_find(tlb, va);
	struct gm_mock *m = pmap->dev;

	count_one(&tlb->accesses);
	if (hit && gm_mock_has_bug(m, GM_MOCK_BUG_RIGHTS_STICK) && !allows(m, hit, kind))
		return GM_RET_PERM;
	if (hit && allows(m, hit, kind)) {
		*out = *hit;
		return GM_RET_SUCCESS;
	}
	count_one(&tlb->misses);
	if (hit)
		hit->shift = 0;
	if (!gm_mock_pt_walk(m, pmap->vm, va, out))
		return GM_RET_FAULT;
	if (!allows(m, out, kind))
		return GM_RET_PERM;
	*entry_for(tlb, va, out->shift) = *out;
	return GM_RET_SUCCESS;
}

static void tlb_drop(struct gm_mock_tlb *tlb, uint64_t va, uint64_t end)
{
	for (uint32_t i = 0; i < tlb->entries; i++) {
		struct gm_mock_xlate *e = &tlb->entry[i];

		if (e->shift && e->va < end && va < e->va + (UINT64_C(1) << e->shift))
			e->shift = 0;
	}
}

/* Part of an aligned 8-byte word, in one access of the memory. */
static void word_load(const char *at, void *buf, size_t bytes)
{
	unsigned offset = (unsigned)((uintptr_t)at % 8);
	uint64_t word = __atomic_load_n((const uint64_t *)(const void *)(at - offset), __ATOMIC_ACQUIRE);

	memcpy(buf, (const char *)&word + offset, bytes);
}

static void word_store(char *at, const void *buf, size_t bytes)
{
	unsigned offset = (unsigned)((uintptr_t)at % 8);
	uint64_t *word = (uint64_t *)(void *)(at - offset);
	uint64_t old = __atomic_load_n(word, __ATOMIC_RELAXED), new;

	if (bytes == 8) {
		memcpy(&new, buf, 8);
		__atomic_store_n(word, new, __ATOMIC_RELEASE);
		return;
	}
	do {
		new = old;
		memcpy((char *)&new + offset, buf, bytes);
	} while (!__atomic_compare_exchange_n(word, &old, new, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

/* Word by word, each in one access: what a device does with memory that others look at meanwhile. */
static void copy_words(char *at, char *buf, size_t bytes, bool store)
{
	for (size_t n; bytes; at += n, buf += n, bytes -= n) {
		n = 8 - (uintptr_t)at % 8 < bytes ? 8 - (uintptr_t)at % 8 : bytes;
		if (store)
			word_store(at, buf, n);
		else
			word_load(at, buf, n);
	}
}

static void vram_access(char *at, void *buf, size_t bytes, enum gm_mock_access kind)
{
	uint64_t add, word[2];

	switch (kind) {
	case GM_MOCK_LOAD:
		copy_words(at, buf, bytes, false);
		break;
	case GM_MOCK_STORE:
		copy_words(at, buf, bytes, true);
		break;
	case GM_MOCK_ADD:
		assert(bytes == 8 && (uintptr_t)at % 8 == 0);
		memcpy(&add, buf, 8);
		add = __atomic_fetch_add((uint64_t *)(void *)at, add, __ATOMIC_ACQ_REL);
		memcpy(buf, &add, 8);
		break;
	case GM_MOCK_SWAP:
		assert(bytes == 8 && (uintptr_t)at % 8 == 0);
		memcpy(word, buf, 16);
		(void)__atomic_compare_exchange_n((uint64_t *)(void *)at, &word[0], word[1], false, __ATOMIC_ACQ_REL,
						  __ATOMIC_ACQUIRE);
		memcpy(buf, word, 8);
		break;
	}
}

static gm_ret_t host_access(struct gm_mock *m, uint64_t va, void *buf, size_t bytes, enum gm_mock_access kind)
{
	gm_ret_t ret;

	if (kind == GM_MOCK_ADD || kind == GM_MOCK_SWAP)
		return GM_RET_NOTSUP;
	ret = m->svc->host_access(m->svc->self, va, buf, bytes, kind == GM_MOCK_STORE);
	return ret == GM_RET_FAULT ? GM_RET_AGAIN : ret;
}

gm_ret_t gm_mock_tlb_access(struct gm_mock_pmap *pmap, struct gm_mock_tlb *tlb, uint64_t va, void *buf, size_t bytes,
			    enum gm_mock_access kind)
{
	struct gm_mock *m = pmap->dev;
	struct gm_mock_xlate page;
	uint64_t at;
	gm_ret_t ret;

	assert(bytes > 0 && va % GM_PAGE_BYTES + bytes <= GM_PAGE_BYTES);
	if (gm_mock_is_lost(m))
		return GM_RET_NODEV;
	gm_mock_spin_lock(m->svc, &tlb->lock);
	if (atomic_load_explicit(&tlb->flush, memory_order_relaxed) && atomic_exchange(&tlb->flush, false))
		tlb_drop(tlb, 0, UINT64_MAX);
	ret = translate(pmap, tlb, va, kind, &page);
	if (ret != GM_RET_SUCCESS)
		goto out;
	at = page.pa + (va - page.va);
	gm_mock_dirty_touch(pmap, va, &page, kind != GM_MOCK_LOAD);
	if (page.pte & GM_PTE_HOST)
		ret = host_access(m, at, buf, bytes, kind);
	else if (gm_mock_is_bad(m, at, bytes))
		ret = GM_RET_IO;
	else
		vram_access(gm_mock_vram(m, at, bytes), buf, bytes, kind);
out:
	gm_mock_spin_unlock(&tlb->lock);
	return ret;
}

/*
 * What is broken has no result of this operation: FAULT and PERM are about the mapping, which is there. So it answers as
 * memory does that gives up a line: with nonsense.
 */
static gm_ret_t access_broken(void *buf, size_t bytes, bool write)
{
	if (!write)
		memset(buf, 0xff, bytes);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_access(void *pmap_ptr, uint64_t va, void *buf, size_t bytes, bool write)
{
	struct gm_mock_pmap *pmap = pmap_ptr;
	uint64_t limit = UINT64_C(1) << pmap->dev->config.va_bits, begin = va;
	gm_ret_t ret = GM_RET_SUCCESS;

	if (pmap->dev->config.no_access)
		return GM_RET_UNIMPLEMENTED;
	if (va >= limit || bytes > limit - va)
		return GM_RET_FAULT;
	if (gm_mock_bug_short(pmap->dev, GM_MOCK_BUG_NEEDS_MEMORY))
		return GM_RET_NOMEM;
	while (bytes > 0 && ret == GM_RET_SUCCESS) {
		size_t n = GM_PAGE_BYTES - va % GM_PAGE_BYTES;

		if (n > bytes)
			n = bytes;
		if (va == begin || !gm_mock_bug_straight(pmap, begin, va - begin, buf, n, write))
			ret = gm_mock_tlb_access(pmap, &pmap->own, va, buf, n, write ? GM_MOCK_STORE : GM_MOCK_LOAD);
		if (ret == GM_RET_IO)
			ret = access_broken(buf, n, write);
		va += n;
		buf = (char *)buf + n;
		bytes -= n;
	}
	return ret == GM_RET_AGAIN ? GM_RET_FAULT : ret;
}

/* Wait until no access is in flight, and keep others out. False is the planted error: it did not wait. */
static bool tlb_drain(struct gm_mock *m, struct gm_mock_tlb *tlb)
{
	if (!gm_mock_has_bug(m, GM_MOCK_BUG_INVL_NO_WAIT)) {
		gm_mock_spin_lock(m->svc, &tlb->lock);
		return true;
	}
	if (!atomic_flag_test_and_set_explicit(&tlb->lock.held, memory_order_acquire))
		return true;
	atomic_store(&tlb->flush, true);
	return false;
}

static void invl(struct gm_mock_pmap *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_mock *m = pmap->dev;
	struct gm_mock_tlb *tlb;

	if (gm_mock_has_bug(m, GM_MOCK_BUG_INVL_FIRST))
		bytes = m->granule_bytes;
	gm_mock_spin_lock(m->svc, &pmap->tlbs_lock);
	TAILQ_FOREACH(tlb, &pmap->tlbs, link) {
		if (!tlb_drain(m, tlb))
			continue;
		tlb_drop(tlb, va, va + bytes);
		gm_mock_spin_unlock(&tlb->lock);
		if (gm_mock_has_bug(m, GM_MOCK_BUG_INVL_ONE_TLB))
			break;
	}
	gm_mock_spin_unlock(&pmap->tlbs_lock);
}

gm_ret_t gm_mock_tlb_invl(void *pmap_ptr, uint64_t va, uint64_t bytes)
{
	struct gm_mock_event event = { .kind = GM_MOCK_EV_INVL, .pmap = pmap_ptr, .va = va, .bytes = bytes };
	struct gm_mock_pmap *pmap = pmap_ptr;
	struct gm_mock *m = pmap->dev;

	/* Takes the lock: where a simulation may let others run between the steps of a plan. */
	event.ret = gm_mock_begin(m, &(struct gm_mock_call){ .op = GM_MOCK_INVL, .va = va, .bytes = bytes });
	if (event.ret != GM_RET_SUCCESS)
		goto out;
	gm_mock_count(&m->invalidations, 1);
	if (!gm_mock_has_bug(m, GM_MOCK_BUG_SKIP_INVL))
		invl(pmap, va, bytes);
out:
	gm_mock_note(m, &event);
	return event.ret;
}
