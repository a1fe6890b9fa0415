/* SPDX-License-Identifier: MIT */
/*
 * Pages that are inaccessible on purpose (PROT_NONE), where the kernel has no
 * better way to make an access to a page that is away fail: what was lost, without
 * UFFDIO_POISON; everything that is away, without userfaultfd.
 *
 *     open (read-write) --close: remembered, then PROT_NONE--> closed --open: read-write, then forgotten--> open
 *
 * The program did not ask for it, so the rest of the library must not see it:
 * a closed page has the rights that it had (read and write, nothing else is
 * ever closed but what content was lost of), counts as present, and what a
 * device reads there over the bus is FAULT, as with a page that the kernel has
 * marked: the bus asks for the rights (gm_host_bus.c). A right is ours only where the mapping is PROT_NONE now: what the
 * program unmapped or protected anew meanwhile counts as it is.
 *
 * The table has an entry per 2 MiB block that ever had such a page; it lies in
 * memory of its own that the kernel backs when it is used, and is never full in
 * practice (64 Ki blocks, 128 GiB of addresses).
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <errno.h>
#include <sys/mman.h>

#define SLOTS 65536u

struct entry {
	uint64_t va; /* of the block; 0: free */
	struct gm_mask pages;
};

struct gm_host_closed {
	struct gm_env *env;
	struct gm_mutex lock;
	struct entry *entry; /* [SLOTS], open addressing */
};

struct gm_host_closed *gm_host_closed_new(struct gm_env *env)
{
	struct gm_host_closed *c = gm_mem_alloc(env, sizeof(*c));
	uint64_t at = c ? gm_host_reserve(SLOTS * sizeof(struct entry)) : 0;

	if (!at) {
		gm_mem_free(env, c, sizeof(*c));
		return NULL;
	}
	c->env = env;
	c->entry = (struct entry *)(uintptr_t)at;
	gm_mutex_init(env, &c->lock, GM_RANK_LEAF);
	return c;
}

void gm_host_closed_free(struct gm_host_closed *c)
{
	if (!c)
		return;
	munmap(c->entry, SLOTS * sizeof(struct entry));
	gm_mutex_fini(c->env, &c->lock);
	gm_mem_free(c->env, c, sizeof(*c));
}

/* (lock) The entry of a block; a new one if `add`. NULL: there is none, or no room. */
static struct entry *find(struct gm_host_closed *c, uint64_t block, bool add)
{
	uint64_t at = block / GM_BLOCK_BYTES * UINT64_C(0x9E3779B97F4A7C15) >> 48;

	for (unsigned i = 0; i < SLOTS; i++) {
		struct entry *e = &c->entry[(at + i) % SLOTS];

		if (e->va == block)
			return e;
		if (e->va)
			continue;
		if (!add)
			return NULL;
		e->va = block;
		return e;
	}
	return NULL;
}

static uint64_t block_of(uint64_t va)
{
	return va / GM_BLOCK_BYTES * GM_BLOCK_BYTES;
}

/* The pages of [va, end) in the block of va; *next: where the next block's begin. */
static struct gm_mask pages_of(uint64_t va, uint64_t end, uint64_t *next)
{
	uint64_t block = block_of(va);

	*next = end - block < GM_BLOCK_BYTES ? end : block + GM_BLOCK_BYTES;
	return gm_mask_span((unsigned)((va - block) / GM_PAGE_BYTES), (unsigned)((*next - block) / GM_PAGE_BYTES));
}

gm_ret_t gm_host_closed_add(struct gm_host_closed *c, uint64_t va, uint64_t bytes)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	gm_lock(c->env, &c->lock);
	for (uint64_t at = va, next; at < va + bytes && !ret; at = next) {
		struct gm_mask pages = pages_of(at, va + bytes, &next);
		struct entry *e = find(c, block_of(at), true);

		if (e)
			e->pages = gm_mask_or(e->pages, pages);
		else
			ret = gm_fail(GM_RET_NOMEM, "no room to remember that 0x%llx is inaccessible", (unsigned long long)at);
	}
	gm_unlock(c->env, &c->lock);
	return ret;
}

void gm_host_closed_del(struct gm_host_closed *c, uint64_t va, uint64_t bytes)
{
	gm_lock(c->env, &c->lock);
	for (uint64_t at = va, next; at < va + bytes; at = next) {
		struct gm_mask pages = pages_of(at, va + bytes, &next);
		struct entry *e = find(c, block_of(at), false);

		if (e)
			e->pages = gm_mask_sub(e->pages, pages);
	}
	gm_unlock(c->env, &c->lock);
}

uint64_t gm_host_closed_run(struct gm_host_closed *c, uint64_t va, uint64_t bytes, bool *yes)
{
	uint64_t at = va;

	*yes = false;
	gm_lock(c->env, &c->lock);
	for (; at < va + bytes; at += GM_PAGE_BYTES) {
		const struct entry *e = find(c, block_of(at), false);
		bool is = e && gm_mask_test(&e->pages, (unsigned)(at % GM_BLOCK_BYTES / GM_PAGE_BYTES));

		if (at == va)
			*yes = is;
		else if (is != *yes)
			break;
	}
	gm_unlock(c->env, &c->lock);
	return at - va;
}

struct gm_mask gm_host_closed_mask(struct gm_host_closed *c, uint64_t block)
{
	struct gm_mask pages = gm_mask_none();
	const struct entry *e;

	gm_lock(c->env, &c->lock);
	e = find(c, block, false);
	if (e)
		pages = e->pages;
	gm_unlock(c->env, &c->lock);
	return pages;
}

gm_ret_t gm_host_close_pages(struct gm_host_closed *c, uint64_t va, uint64_t bytes)
{
	gm_ret_t ret = gm_host_closed_add(c, va, bytes);

	if (!ret && mprotect((void *)(uintptr_t)va, bytes, PROT_NONE)) {
		ret = errno == ENOMEM ? GM_RET_FAULT : GM_RET_NOMEM;
		gm_host_closed_del(c, va, bytes);
	}
	return ret;
}

gm_ret_t gm_host_open_pages(struct gm_host_closed *c, uint64_t va, uint64_t bytes)
{
	if (mprotect((void *)(uintptr_t)va, bytes, PROT_READ | PROT_WRITE))
		return GM_RET_FAULT;
	gm_host_closed_del(c, va, bytes);
	return GM_RET_SUCCESS;
}

/* Ours, if the mapping has no right and the page is closed: what the page is without that. */
static void lift(struct gm_host_closed *c, uint64_t va, struct gm_host_vma *vma)
{
	uint64_t run;
	bool yes;

	if (vma->access)
		return;
	run = gm_host_closed_run(c, va, vma->va + vma->bytes - va, &yes);
	*vma = (struct gm_host_vma){ .va = va, .bytes = run, .access = yes ? GM_READ | GM_WRITE : 0,
				     .private_anon = vma->private_anon, .locked = vma->locked };
}

gm_ret_t gm_host_closed_rights(void *pmap, uint64_t va, struct gm_host_vma *vma)
{
	struct gm_host_pmap *p = pmap;
	gm_ret_t ret = gm_host_mem_rights(pmap, va, vma);

	if (!ret)
		lift(p->dev->closed, va, vma);
	return ret;
}

gm_ret_t gm_host_closed_probe(void *pmap, uint64_t va, struct gm_host_vma *vma)
{
	struct gm_host_pmap *p = pmap;
	gm_ret_t ret = gm_host_mem_probe(pmap, va, vma);

	if (!ret)
		lift(p->dev->closed, va, vma);
	return ret;
}

gm_ret_t gm_host_closed_present(void *pmap, uint64_t va, struct gm_mask *present)
{
	struct gm_host_pmap *p = pmap;
	gm_ret_t ret = gm_host_mem_present(pmap, va, present);

	if (!ret)
		*present = gm_mask_or(*present, gm_host_closed_mask(p->dev->closed, va));
	return ret;
}

gm_ret_t gm_host_closed_content(void *pmap, uint64_t va, struct gm_host_content *out)
{
	struct gm_host_pmap *p = pmap;
	gm_ret_t ret = gm_host_mem_content(pmap, va, out);

	if (!ret)
		out->some = gm_mask_or(out->some, gm_host_closed_mask(p->dev->closed, va));
	return ret;
}

/* With the lock throughout: who closes pages remembers it first, so either he comes after this or this sees it. */
gm_ret_t gm_host_closed_protect(void *pmap, uint64_t va, uint64_t bytes, uint32_t access)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_closed *c = p->dev->closed;
	gm_ret_t ret = gm_host_is_mapped(p->dev, va, va + bytes); /* before: it locks as well */

	if (ret)
		return ret;
	gm_lock(c->env, &c->lock);
	for (uint64_t at = va, next; at < va + bytes && !ret; at = next) {
		struct gm_mask pages = pages_of(at, va + bytes, &next);
		const struct entry *e = find(c, block_of(at), false);

		pages = e ? gm_mask_and(pages, e->pages) : gm_mask_none();
		if (!gm_mask_empty(&pages))
			ret = gm_fail(GM_RET_NOTSUP, "the rights of memory that is away or lost cannot be changed here: "
				      "gm_migrate() 0x%llx home before, or gm_discard() it", (unsigned long long)at);
	}
	if (!ret)
		ret = gm_host_set_rights(va, bytes, access);
	gm_unlock(c->env, &c->lock);
	return ret;
}

void gm_host_closed_unmap(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_host_pmap *p = pmap;

	/* in this order: once it is unmapped another thread may have mapped and closed pages there */
	gm_host_closed_del(p->dev->closed, va, bytes);
	gm_host_mem_unmap(pmap, va, bytes);
}
