/* SPDX-License-Identifier: MIT */
/*
 * Packed blocks. A block takes 1.7 KiB, and 0.6 for what a device has of it and a context
 * maps, since any of its pages may be in any state. Once nothing happens to it, what it
 * says is a few masks, most of them alike: none, full, or one of few others. So after a
 * while it is packed (gm_pack_work.c):
 *
 *     live --not used for a second--> packed --somebody asks for it--> live
 *
 * The index and the chunks of the block point to either form; which one says
 * bit 0 of the pointer (gm_packed_of()). The packed one has all that a block
 * remembers, but: who waits, whose slice it is (both are over), and when it was used
 * (now, when it comes back).
 *
 * Both ways lead through the space's lock, with readers kept out, as the index
 * changes; and through the lock of the device's memory, as its chunks do: so
 * gm_node_pick() finds one form or the other, and a block that it has taken a
 * reference of is not packed.
 *
 * To come back takes memory. Who can fail says NOMEM, and so does the handler: its
 * message waits, and is tried again. Who cannot fail waits until there is some. The
 * library's memory is safe for the handler (hal/gm_arena.h, and struct gm_allocator).
 * Nothing is packed while the handler has messages, or is kept from reading, so what was
 * opened for that stays open until it is done.
 */
#include "config.h"

#include "core/gm_as.h"
#include "core/gm_work.h"

/* ------------------------------------------------------------------ form */

struct gm_mask *gm_pack_mask(struct gm_block *b, struct gm_bnode *n, struct gm_bmap *m, enum gm_pack_mask which)
{
	switch (which) {
	case GM_PACK_MANAGED:
		return b ? &b->managed : NULL;
	case GM_PACK_HOST:
		return b ? &b->host : NULL;
	case GM_PACK_STAGED:
		return b ? &b->staged : NULL;
	case GM_PACK_REGISTERED:
		return b ? &b->registered : NULL;
	case GM_PACK_EDGE:
		return b ? &b->edge : NULL;
	case GM_PACK_MIRRORED:
		return b ? &b->mirrored : NULL;
	case GM_PACK_RESIDENT:
		return n ? &n->resident : NULL;
	case GM_PACK_DIRTY:
		return n ? &n->dirty : NULL;
	case GM_PACK_READ:
		return m ? &m->read : NULL;
	case GM_PACK_WRITE:
		return m ? &m->write : NULL;
	case GM_PACK_MASKS:
		break;
	}
	return NULL;
}

static struct gm_mask mask_of(const struct gm_packed *p, enum gm_pack_mask which)
{
	unsigned code = p->codes >> (which * GM_PACK_CODE_BITS) & ((1u << GM_PACK_CODE_BITS) - 1);

	if (code == GM_PACK_NONE)
		return gm_mask_none();
	return code == GM_PACK_FULL ? gm_mask_not(gm_mask_none()) : p->mask[code - GM_PACK_FIRST_OTHER];
}

size_t gm_pack_bytes(const struct gm_packed *p)
{
	return sizeof(*p) + p->masks * sizeof(p->mask[0]) +
	       (p->flags & GM_PACK_UNITS ? GM_BLOCK_UNITS * sizeof(struct gm_chunk *) : 0);
}

void gm_pack_unpack(const struct gm_packed *p, struct gm_block *b, struct gm_bnode *n, struct gm_bmap *m)
{
	struct gm_chunk *const *units = gm_packed_units(p);

	n = p->flags & GM_PACK_NODE ? n : NULL;
	m = p->flags & GM_PACK_MAP ? m : NULL;
	b->as = p->as;
	b->va = p->va;
	b->slot = p->slot;
	b->watched = p->flags & GM_PACK_WATCHED;
	b->huge = p->flags & GM_PACK_HUGE;
	b->has_slot = p->flags & GM_PACK_HAS_SLOT;
	if (n)
		b->node[p->dev] = n;
	if (m)
		b->map[p->ctx] = m;
	for (unsigned u = 0; n && u < GM_BLOCK_UNITS; u++) {
		n->unit[u] = units ? units[u] : p->chunk;
		b->backed[p->dev] |= (uint32_t)(n->unit[u] != NULL) << u;
	}
	for (enum gm_pack_mask i = 0; i < GM_PACK_MASKS; i++) {
		struct gm_mask *mask = gm_pack_mask(b, n, m, i);

		if (mask)
			*mask = mask_of(p, i);
	}
}

static const char *check_units(const struct gm_packed *p)
{
	struct gm_chunk *const *units = gm_packed_units(p);
	struct gm_mask resident = mask_of(p, GM_PACK_RESIDENT);
	const void *entry = gm_packed_entry(p);

	for (unsigned u = 0; u < GM_BLOCK_UNITS; u++) {
		struct gm_mask unit = gm_mask_span(u * GM_UNIT_PAGES, (u + 1) * GM_UNIT_PAGES);
		const struct gm_chunk *c = units ? units[u] : p->chunk;

		if (!c && gm_mask_meets(&unit, &resident))
			return "a resident page of a packed block has no frame";
		if (c && (c->owner != entry || c->state != GM_CHUNK_RESIDENT || c->holds))
			return "a chunk does not know its packed block";
	}
	return NULL;
}

const char *gm_pack_check(const struct gm_packed *p)
{
	struct gm_mask resident = mask_of(p, GM_PACK_RESIDENT), host = mask_of(p, GM_PACK_HOST);
	struct gm_mask staged = mask_of(p, GM_PACK_STAGED), dirty = mask_of(p, GM_PACK_DIRTY);
	struct gm_mask read = mask_of(p, GM_PACK_READ), write = mask_of(p, GM_PACK_WRITE);
	struct gm_mask clean = gm_mask_sub(gm_mask_sub(resident, dirty), staged), bad = gm_mask_sub(write, read), reach;

	if (gm_mask_meets(&resident, &host) || gm_mask_meets(&staged, &host))
		return "a page of a packed block is in two places";
	if (!gm_mask_empty(&clean))
		return "a page of a packed block counts as clean but the host keeps no frame of it";
	reach = gm_mask_or(host, mask_of(p, GM_PACK_EDGE));
	if (p->flags & GM_PACK_MAP && p->flags & GM_PACK_NODE && p->as->ctx[p->ctx]->dev->index == p->dev)
		reach = gm_mask_or(reach, resident);
	reach = gm_mask_sub(read, reach);
	if (atomic_load(&p->as->releasing)) /* mappings in place go a moment after the region */
		reach = gm_mask_and(reach, mask_of(p, GM_PACK_MANAGED));
	if (!gm_mask_empty(&bad) || !gm_mask_empty(&reach))
		return "a page of a packed block is mapped by who cannot reach it, or for writing only";
	if (!(p->flags & GM_PACK_HAS_SLOT) && !(gm_mask_empty(&resident) && gm_mask_empty(&staged)))
		return "pages of a packed block are away but there is no slot";
	return p->flags & GM_PACK_NODE ? check_units(p) : NULL;
}

/* ------------------------------------------------------------------ open */

/* A block with a node and a map, to be filled. */
static struct gm_block *bare_new(struct gm_as *as)
{
	struct gm_block *b = gm_block_new(as, 0);

	if (!b)
		return NULL;
	b->node[0] = gm_mem_alloc(as->env, sizeof(*b->node[0]));
	b->map[0] = gm_mem_alloc(as->env, sizeof(*b->map[0]));
	if (b->node[0] && b->map[0])
		return b;
	gm_block_put(b);
	return NULL;
}

/* (A) `b`, with a node and a map, takes the place of *cell's packed block, which is the caller's to free. */
static void open_into(struct gm_block *b, void **cell)
{
	const struct gm_packed *p = gm_packed_of(*cell);
	struct gm_as *as = p->as;
	struct gm_bnode *n = b->node[0];
	struct gm_bmap *m = b->map[0];

	if (p->flags & GM_PACK_NODE)
		b->node[0] = NULL; /* else there is one that has nothing */
	if (p->flags & GM_PACK_MAP)
		b->map[0] = NULL;
	gm_pack_unpack(p, b, n, m);
	if (GM_PLANTED(as, GM_PLANT_PACK_CLEAN))
		n->dirty = gm_mask_none();
	if (GM_PLANTED(as, GM_PLANT_PACK_UNMAP))
		m->read = m->write = gm_mask_none();
	for (unsigned i = 0; i < GM_MAX_DEVS; i++)
		atomic_store_explicit(&b->has_node[i], b->node[i] != NULL, memory_order_relaxed);
	b->used_ns = gm_now_ns(as->env);
	b->indexed = true;
	gm_readers_keep_out(&as->readers);
	if (p->flags & GM_PACK_NODE)
		(void)gm_node_set_owner(&as->lib->devs[p->dev]->node, n->unit, NULL, b);
	*cell = b;
	gm_readers_let_in(&as->readers);
	atomic_fetch_sub(&as->pack.count, 1);
	gm_stat_add(as, GM_STAT_blocks_opened, 1);
}

static void packed_free(struct gm_as *as, struct gm_packed *p)
{
	gm_mem_free(as->env, p, p ? gm_pack_bytes(p) : 0);
}

gm_ret_t gm_pack_open(struct gm_as *as, uint64_t va, struct gm_block **out)
{
	struct gm_block *b = bare_new(as);
	struct gm_packed *p;
	gm_ret_t ret = GM_RET_SUCCESS;
	void **cell;

	gm_lock(as->env, &as->lock);
	cell = gm_radix_slot(&as->blocks, va / GM_BLOCK_BYTES);
	p = cell ? gm_packed_of(*cell) : NULL;
	if (p && b)
		open_into(b, cell);
	else if (p)
		ret = GM_RET_NOMEM;
	*out = cell && !ret ? gm_block_get(*cell) : NULL;
	gm_unlock(as->env, &as->lock);
	if (ret)
		return gm_fail(ret, "no memory for the page state of 0x%llx", (unsigned long long)va);
	if (!p) {
		gm_block_put(b);
		return GM_RET_SUCCESS;
	}
	packed_free(as, p);
	gm_pack_stirred(as);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_pack_open_by(struct gm_as *as, uint64_t va, uint64_t deadline_ns, struct gm_block **out)
{
	gm_ret_t ret;

	while ((ret = gm_pack_open(as, va, out)) && gm_now_ns(as->env) < deadline_ns) {
		gm_lock(as->env, &as->lock);
		(void)gm_wait(as->env, &as->waitq, &as->lock, gm_deadline_ns(as->env, GM_WORK_RETRY_NS));
		gm_unlock(as->env, &as->lock);
	}
	return ret;
}

struct gm_block *gm_pack_open_sure(struct gm_as *as, uint64_t va)
{
	struct gm_block *b;

	(void)gm_pack_open_by(as, va, UINT64_MAX, &b);
	return b;
}

/* (A) The cell of the first packed block in [*va, end), whose address *va becomes; NULL: there is none. */
static void **next_packed(struct gm_as *as, uint64_t *va, uint64_t end)
{
	uint64_t key = *va / GM_BLOCK_BYTES;
	void **cell;

	while ((cell = gm_radix_ceil(&as->blocks, &key)) && key * GM_BLOCK_BYTES < end && !gm_packed_of(*cell))
		key++;
	if (!cell || key * GM_BLOCK_BYTES >= end)
		return NULL;
	*va = key * GM_BLOCK_BYTES;
	return cell;
}

gm_ret_t gm_pack_open_range(struct gm_as *as, uint64_t va, uint64_t end)
{
	gm_ret_t ret = GM_RET_SUCCESS;
	void **cell = NULL;

	do {
		struct gm_block *b = NULL;

		gm_lock(as->env, &as->lock);
		cell = atomic_load(&as->pack.count) ? next_packed(as, &va, end) : NULL;
		gm_unlock(as->env, &as->lock);
		if (cell)
			ret = gm_pack_open(as, va, &b);
		gm_block_put(b);
	} while (!ret && cell);
	return ret;
}

/* --------------------------------------------------------------- victims */

void gm_as_get(struct gm_as *as)
{
	atomic_fetch_add(&as->live_blocks, 1);
}

void gm_as_put(struct gm_as *as)
{
	atomic_fetch_sub(&as->live_blocks, 1);
}
