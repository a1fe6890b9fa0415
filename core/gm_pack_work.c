/* SPDX-License-Identifier: MIT */
/*
 * Which blocks are packed, and when. The worker goes round all blocks of a space,
 * a few at a time, as long as there is one that may become fit:
 *
 *     quiet --a block is used (stirred)--> due in a second --then--> going round --end--> quiet
 *                                              ^                                   |
 *                                              +---there were some, but too early--+
 *
 * Where the handler has messages or is kept from reading, the round pauses for a
 * millisecond. A space in which nothing happens does not wake anybody.
 *
 * Whoever ends a transaction, lets a set go, makes or opens a block raises the flag: what was seen to be unfit has
 * another chance after it. A device fault that only maps keeps no time and raises no flag, but says so in the block
 * (`touched`): the round that sees it takes that for a use of this moment, and so there is another round.
 *
 * Fit is a block that only the index refers to (no transaction, no working set, not
 * queued), none of whose pages is busy (a fault on an edge page has no reference, but its page is), waits, is dropped,
 * lost or leaving, in one device at most, mapped by one context at most, and
 * not used for a while. It is looked at twice, as its packed form is allocated in
 * between, without a lock.
 */
#include "config.h"

#include <string.h>

#include "core/gm_as.h"
#include "core/gm_events.h"
#include "core/gm_work.h"

/* So many entries of the index are looked at while the space's lock is held. */
#define LOOKS 64u

enum verdict {
	FIT,
	EARLY, /* in use, or a moment ago */
	UNFIT, /* until it is used again */
};

/* The largest there is. */
union form {
	struct gm_packed p;
	unsigned char room[sizeof(struct gm_packed) + GM_PACK_MAX_OTHERS * sizeof(struct gm_mask) +
			   GM_BLOCK_UNITS * sizeof(struct gm_chunk *)];
};

/* (block) Something that has no place in the packed form. */
static bool is_uneasy(const struct gm_block *b)
{
	return !gm_mask_empty(&b->busy) || !gm_mask_empty(&b->wanted) || !gm_mask_empty(&b->leaving) ||
	       !gm_mask_empty(&b->doomed) || !gm_mask_empty(&b->poisoned) || !gm_mask_empty(&b->failed) ||
	       !gm_mask_empty(&b->held) || !gm_mask_empty(&b->kept) || !gm_mask_empty(&b->dup) || !gm_mask_empty(&b->exclusive) ||
	       b->has_external || b->waits || b->watching || !SLIST_EMPTY(&b->holds);
}

/* (block) */
static bool is_early(struct gm_block *b, uint64_t now_ns)
{
	struct gm_as *as = b->as;
	uint64_t slice_ns = as->cfg.slice_ns;
	struct gm_mask cpu = gm_slice_pages(&b->slice_cpu, slice_ns, now_ns);
	struct gm_mask dev = gm_slice_pages(&b->slice_dev, slice_ns, now_ns);

	return b->touched || atomic_load_explicit(&b->refs, memory_order_acquire) != 1 || now_ns < b->used_ns + as->pack.idle_ns ||
	       (b->doomed_ns && now_ns < b->doomed_ns + GM_ZAP_GRACE_NS) || !gm_mask_empty(&cpu) || !gm_mask_empty(&dev);
}

/* One more mask. False: too many are different. */
static bool put_mask(struct gm_packed *p, enum gm_pack_mask which, const struct gm_mask *mask)
{
	unsigned code = 0;

	if (gm_mask_empty(mask))
		return true;
	while (!gm_mask_full(mask) && code < p->masks && !gm_mask_equal(mask, &p->mask[code]))
		code++;
	if (code == GM_PACK_MAX_OTHERS)
		return false;
	if (!gm_mask_full(mask) && code == p->masks)
		p->mask[p->masks++] = *mask;
	p->codes |= (gm_mask_full(mask) ? GM_PACK_FULL : GM_PACK_FIRST_OTHER + code) << (which * GM_PACK_CODE_BITS);
	return true;
}

static bool put_masks(struct gm_packed *p, struct gm_block *b, struct gm_bnode *n, struct gm_bmap *m)
{
	bool ok = true;

	for (enum gm_pack_mask i = 0; i < GM_PACK_MASKS && ok; i++) {
		struct gm_mask *mask = gm_pack_mask(b, n, m, i);

		ok = !mask || put_mask(p, i, mask);
	}
	return ok;
}

/* (block) The one device and the one context it has to do with. False: it has more. */
static bool put_parties(struct gm_packed *p, const struct gm_block *b)
{
	unsigned nodes = 0, maps = 0;

	for (unsigned i = 0; i < GM_MAX_DEVS; i++) {
		if (!b->node[i] || (gm_mask_empty(&b->node[i]->resident) && !b->backed[i]))
			continue;
		p->dev = (uint8_t)i;
		p->flags |= GM_PACK_NODE;
		nodes++;
	}
	for (unsigned i = 0; i < GM_MAX_CTXS; i++) {
		if (!b->map[i] || (gm_mask_empty(&b->map[i]->read) && gm_mask_empty(&b->map[i]->unsure)))
			continue;
		if (!gm_mask_empty(&b->map[i]->unsure))
			return false;
		p->ctx = (uint8_t)i;
		p->flags |= GM_PACK_MAP;
		maps++;
	}
	return nodes <= 1 && maps <= 1;
}

/* (block) Its chunks, behind the masks, which are complete. */
static void put_chunks(struct gm_packed *p, const struct gm_bnode *n)
{
	if (n->unit[0] && n->unit[0]->order == GM_BLOCK_ORDER) {
		p->chunk = n->unit[0];
		return;
	}
	p->flags |= GM_PACK_UNITS;
	memcpy(gm_packed_units(p), n->unit, sizeof(n->unit));
}

/* (block) What it says, packed. False: it cannot be. */
static bool pack_form(struct gm_block *b, struct gm_packed *p)
{
	struct gm_bnode *n;

	*p = (struct gm_packed){ .as = b->as, .va = b->va, .slot = b->slot };
	p->flags = (uint8_t)((b->watched ? GM_PACK_WATCHED : 0) | (b->huge ? GM_PACK_HUGE : 0) |
			     (b->has_slot ? GM_PACK_HAS_SLOT : 0));
	if (is_uneasy(b) || !put_parties(p, b))
		return false;
	n = p->flags & GM_PACK_NODE ? b->node[p->dev] : NULL;
	if (!put_masks(p, b, n, p->flags & GM_PACK_MAP ? b->map[p->ctx] : NULL))
		return false;
	if (n)
		put_chunks(p, n);
	return true;
}

/* (A) Of a block; f, if it is fit. */
static enum verdict judge(struct gm_block *b, uint64_t now_ns, union form *f)
{
	enum verdict v = UNFIT;

	gm_lock(b->as->env, &b->lock);
	if (b->touched)
		b->used_ns = now_ns;
	b->touched = false;
	if (SLIST_EMPTY(&b->holds) && is_early(b, now_ns)) /* what is held stays so until it is let go, and that raises the flag */
		v = EARLY;
	else if (pack_form(b, &f->p))
		v = FIT;
	gm_unlock(b->as->env, &b->lock);
	return v;
}

/* (A, block) `p` takes the block's place, unless somebody refers to it: then nothing is done. */
static bool replace(struct gm_block *b, struct gm_packed *p)
{
	struct gm_as *as = b->as;
	void **cell = gm_radix_slot(&as->blocks, b->va / GM_BLOCK_BYTES);
	bool ok;

	gm_readers_keep_out(&as->readers);
	if (p->flags & GM_PACK_NODE)
		ok = gm_node_set_owner(&as->lib->devs[p->dev]->node, b->node[p->dev]->unit, &b->refs, gm_packed_entry(p));
	else
		ok = atomic_load_explicit(&b->refs, memory_order_acquire) == 1;
	if (ok) {
		*cell = gm_packed_entry(p);
		b->indexed = false;
		atomic_fetch_add(&as->pack.count, 1);
		gm_stat_add(as, GM_STAT_blocks_packed, 1);
	}
	gm_readers_let_in(&as->readers);
	return ok;
}

/* The second look, and the deed: `p` has room for `bytes`. False: not now, and it is freed. */
static bool pack(struct gm_as *as, uint64_t va, uint64_t now_ns, struct gm_packed *p, size_t bytes)
{
	struct gm_block *b;
	union form f;
	bool ok;

	gm_lock(as->env, &as->lock);
	b = gm_radix_get(&as->blocks, va / GM_BLOCK_BYTES);
	ok = b && !gm_packed_of(b) && !atomic_load(&as->msgs_busy) && !as->reader_held;
	if (ok) {
		gm_lock(as->env, &b->lock);
		ok = !is_early(b, now_ns) && pack_form(b, &f.p) && gm_pack_bytes(&f.p) == bytes;
		if (ok) {
			memcpy(p, &f, bytes);
			ok = replace(b, p);
		}
		gm_unlock(as->env, &b->lock);
	}
	gm_unlock(as->env, &as->lock);
	if (ok)
		gm_block_put(b); /* the index's reference */
	else
		gm_mem_free(as->env, p, bytes);
	return ok;
}

/* From next_va on, the first that is fit: its form. False: none among those looked at. */
static bool find_fit(struct gm_as *as, uint64_t now_ns, union form *f, bool *end)
{
	struct gm_pack *pk = &as->pack;
	enum verdict v = UNFIT;

	gm_lock(as->env, &as->lock);
	*end = false;
	for (unsigned i = 0; i < LOOKS && v != FIT && !*end; i++) {
		uint64_t key = pk->next_va / GM_BLOCK_BYTES;
		void **cell = gm_radix_ceil(&as->blocks, &key);

		*end = !cell;
		if (!cell)
			break;
		pk->next_va = (key + 1) * GM_BLOCK_BYTES;
		v = gm_packed_of(*cell) ? UNFIT : judge(*cell, now_ns, f);
		pk->again |= v == EARLY;
	}
	gm_unlock(as->env, &as->lock);
	return v == FIT;
}

/* One step of the round. False: that was the last. */
static bool go_on(struct gm_as *as, uint64_t now_ns)
{
	struct gm_pack *pk = &as->pack;
	struct gm_packed *p;
	union form f;
	bool end;

	if (find_fit(as, now_ns, &f, &end)) {
		size_t bytes = gm_pack_bytes(&f.p);

		p = gm_mem_alloc(as->env, bytes);
		if (!p || !pack(as, f.p.va, now_ns, p, bytes))
			pk->again = true;
	}
	return !end;
}

uint64_t gm_pack_work(struct gm_as *as)
{
	struct gm_pack *pk = &as->pack;
	uint64_t now_ns = gm_now_ns(as->env);

	if (pk->due_ns && now_ns >= pk->due_ns) {
		if (atomic_load(&as->msgs_busy)) /* what the handler has open has to stay so */
			return pk->due_ns = now_ns + GM_WORK_RETRY_NS;
		if (go_on(as, now_ns))
			return pk->due_ns;
		pk->due_ns = 0;
		if (pk->again)
			atomic_store(&pk->stirred, true);
	}
	if (!pk->due_ns && atomic_exchange(&pk->stirred, false)) {
		pk->due_ns = now_ns + pk->idle_ns;
		pk->next_va = 0;
		pk->again = false;
	}
	return pk->due_ns ? pk->due_ns : UINT64_MAX;
}

bool gm_pack_wants(const struct gm_as *as)
{
	return !as->pack.due_ns && atomic_load(&as->pack.stirred);
}

void gm_pack_stirred(struct gm_as *as)
{
	if (atomic_load_explicit(&as->pack.stirred, memory_order_relaxed))
		return;
	gm_lock(as->env, &as->queue_lock); /* the worker looks at it before it goes to sleep */
	atomic_store(&as->pack.stirred, true);
	gm_unlock(as->env, &as->queue_lock);
	gm_work_kick(as);
}
