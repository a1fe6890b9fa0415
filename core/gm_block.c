/* SPDX-License-Identifier: MIT */
/*
 * Blocks: the state of pages, 512 at a time.
 *
 * A block that no device was ever involved with does not exist: it is "host,
 * untracked" and costs nothing. It comes into being with the first device
 * access and goes when it is all host again (gm_block_retire()).
 *
 * Each page that is managed is in exactly one of these states:
 *
 *     HOST      host                        at its VA, possibly a hole
 *     DEVICE    in one node's resident      staged: the host's frame is kept in the slot;
 *                                           dirty: the device copy is newer than that frame
 *     PARKED    staged only                 the bytes are in the slot and nowhere else
 *     NONE      none of these               content given up: zeros wherever it is touched next
 *     POISONED  poisoned                    the only copy was on a device that is lost
 *
 * and beside it may be
 *
 *     dup       (HOST) devices have duplicates, all read-only; stores of the process wait (gm_dup.c)
 *     exclusive (DEVICE) asked for so; until it comes home (gm_coherence.c)
 *     busy      a transaction owns it: nobody else changes its state, others wait
 *     doomed    the application dropped its content (or its mapping); no copy of it
 *               is good any more. Waits for the worker, or the transaction that has
 *               it busy, to take it apart: DEVICE/HOST -> NONE
 *     leaving   mremap() took its address elsewhere: what is here is not of this address
 *               any more, and only gm_remap.c moves it
 *     held      a working set needs it where it is
 *     wanted    a CPU access waits for it
 *     failed    an access has waited too long: all accesses fail until it is home
 *
 * Transitions, each a function:
 *
 *     HOST -> PARKED                     gm_txn_to_dev.c   park()
 *     NONE -> PARKED                     gm_txn_to_dev.c   recheck_none(), then park(): it has content after all
 *     PARKED, NONE -> DEVICE             gm_txn_to_dev.c   commit_dev()
 *     PARKED, DEVICE -> HOST             gm_txn.c          gm_commit_host(), gm_txn_end_home()
 *     NONE -> HOST                       gm_fault_cpu.c    touch_hole(); gm_work.c forget(); gm_mem.c
 *                                                          gm_mem_set_managed()
 *     HOST -> NONE                       gm_events.c       doom_pages(); gm_discard.c discard_busy()
 *     any -> NONE                        gm_block.c        gm_block_doom(), then gm_txn.c gm_take_apart()
 *     DEVICE -> POISONED                 gm_txn_to_host.c  poison()
 *     POISONED -> not managed            gm_mem.c          gm_mem_unwatch()
 *     HOST -> POISONED                   gm_remap_deliver.c  learn_marks(): moved here when it was lost
 *     any -> not managed, leaving        gm_remap.c        start_leaving()
 *
 * The index is a radix tree per space (gm_radix.c), changed under the space's
 * lock, and read by who has that lock or is one of its readers (hal/gm_readers.h);
 * its nodes are made and freed without the lock. A reference keeps a block in memory, being indexed keeps it meaningful. Page state is
 * under the block's own lock, which is only ever held for a few hundred
 * instructions: no call into a device, the kernel or an allocator happens under it.
 */
#include "config.h"

#include <assert.h>

#include "core/gm_as.h"
#include "core/gm_mirror.h"
#include "core/gm_pin.h"

struct gm_block *gm_block_get(struct gm_block *b)
{
	atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
	return b;
}

static void block_free(struct gm_block *b)
{
	struct gm_as *as = b->as;
	struct gm_env *env = as->env;

	assert(SLIST_EMPTY(&b->holds) && !b->queued && !b->indexed);
	b->external = gm_mask_none();
	gm_mirror_count(b);
	for (unsigned i = 0; i < GM_MAX_DEVS; i++)
		gm_mem_free(env, b->node[i], sizeof(*b->node[i]));
	for (unsigned i = 0; i < GM_MAX_CTXS; i++)
		gm_mem_free(env, b->map[i], sizeof(*b->map[i]));
	gm_waitq_fini(env, &b->waitq);
	gm_mutex_fini(env, &b->lock);
	gm_mem_free(env, b, sizeof(*b));
	atomic_fetch_sub(&as->live_blocks, 1); /* last: the space may go now */
}

void gm_block_put(struct gm_block *b)
{
	if (b && atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1)
		block_free(b);
}

static uint64_t key_of(uint64_t va)
{
	return va / GM_BLOCK_BYTES;
}

/* What the index has for va; if that is a block, with a reference. */
static void *look_up(struct gm_as *as, uint64_t va)
{
	atomic_bool *reading;
	void *entry;

	gm_may_switch(as->env);
	reading = gm_readers_enter(as->env, &as->readers);
	if (!reading)
		gm_lock(as->env, &as->lock);
	entry = gm_radix_get(&as->blocks, key_of(va));
	if (entry && !gm_packed_of(entry))
		gm_block_get(entry);
	if (reading)
		gm_readers_leave(reading);
	else
		gm_unlock(as->env, &as->lock);
	return entry;
}

struct gm_block *gm_block_find(struct gm_as *as, uint64_t va)
{
	void *entry = look_up(as, va);

	return gm_packed_of(entry) ? gm_pack_open_sure(as, va) : entry;
}

gm_ret_t gm_block_seek(struct gm_as *as, uint64_t va, struct gm_block **out)
{
	void *entry = look_up(as, va);

	*out = entry;
	return gm_packed_of(entry) ? gm_pack_open(as, va, out) : GM_RET_SUCCESS;
}

struct gm_block *gm_block_find_live(struct gm_as *as, uint64_t va)
{
	void *entry = look_up(as, va);

	return gm_packed_of(entry) ? NULL : entry;
}

/* (A) What the index has first in [*va, end), in either form; *va becomes its address. */
static void *first_entry(struct gm_as *as, uint64_t *va, uint64_t end)
{
	uint64_t key = key_of(*va);
	void **slot = gm_radix_ceil(&as->blocks, &key);

	*va = key * GM_BLOCK_BYTES;
	return slot && *va < end ? *slot : NULL;
}

struct gm_block *gm_block_find_locked(struct gm_as *as, uint64_t va)
{
	atomic_bool *reading;
	struct gm_block *b;

	gm_may_switch(as->env);
	reading = gm_readers_enter(as->env, &as->readers);
	if (!reading)
		return NULL;
	b = gm_radix_get(&as->blocks, key_of(va));
	if (gm_packed_of(b))
		b = NULL;
	if (b && !gm_trylock(as->env, &b->lock)) /* who has it may wait for us to stop reading */
		b = NULL;
	gm_readers_leave(reading);
	return b;
}

struct gm_block *gm_block_first(struct gm_as *as, uint64_t va, uint64_t end)
{
	void *entry;

	while ((entry = first_entry(as, &va, end)) && gm_packed_of(entry))
		va += GM_BLOCK_BYTES;
	return entry;
}

struct gm_block *gm_block_after(struct gm_block *b, uint64_t end)
{
	return gm_block_first(b->as, b->va + GM_BLOCK_BYTES, end);
}

gm_ret_t gm_block_next_by(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns, struct gm_block **out)
{
	void *entry;
	gm_ret_t ret;

	do {
		gm_lock(as->env, &as->lock);
		entry = first_entry(as, &va, end);
		if (entry && !gm_packed_of(entry))
			gm_block_get(entry);
		gm_unlock(as->env, &as->lock);
		*out = entry;
		if (!gm_packed_of(entry))
			return GM_RET_SUCCESS;
		ret = gm_pack_open_by(as, va, deadline_ns, out);
	} while (!ret && !*out); /* it is gone meanwhile */
	return ret;
}

struct gm_block *gm_block_next(struct gm_as *as, uint64_t va, uint64_t end)
{
	struct gm_block *b;

	(void)gm_block_next_by(as, va, end, UINT64_MAX, &b);
	return b;
}

struct gm_block *gm_block_next_live(struct gm_as *as, uint64_t va, uint64_t end)
{
	struct gm_block *b;

	gm_lock(as->env, &as->lock);
	b = gm_block_first(as, va, end);
	if (b)
		gm_block_get(b);
	gm_unlock(as->env, &as->lock);
	return b;
}

struct gm_mask gm_block_clip(const struct gm_block *b, uint64_t va, uint64_t end)
{
	uint64_t lo = va > b->va ? va : b->va;
	uint64_t hi = end < b->va + GM_BLOCK_BYTES ? end : b->va + GM_BLOCK_BYTES;

	return lo < hi ? gm_mask_span(gm_page_of(b, lo), gm_page_of(b, hi)) : gm_mask_none();
}

/* (A) What the regions say about a block's pages, and which of them were given up a moment ago. */
static void learn_regions(struct gm_block *b)
{
	uint64_t end = b->va + GM_BLOCK_BYTES, now_ns = gm_now_ns(b->as->env);
	struct gm_mask zapped;
	struct gm_regions *rs = &b->as->regions;
	struct gm_region buf;

	for (struct gm_region *r = gm_regions_first(rs, b->va, end, &buf); r; r = gm_regions_next(rs, r, end)) {
		struct gm_mask pages = gm_block_clip(b, r->va, r->end);

		if (gm_region_stays(r))
			b->edge = gm_mask_or(b->edge, pages);
		else
			b->managed = gm_mask_or(b->managed, pages);
	}
	zapped = gm_zap_recall(&b->as->zaps, b->va, now_ns);
	b->host = gm_mask_sub(b->managed, zapped);
	if (!gm_mask_empty(&zapped)) {
		gm_zap_note(&b->zap, &zapped, now_ns);
		b->doomed_ns = now_ns;
	}
	gm_pin_keep_new(b, &b->managed); /* (block): nobody else knows of it yet */
}

struct gm_block *gm_block_new(struct gm_as *as, uint64_t va)
{
	struct gm_block *b = gm_mem_alloc(as->env, sizeof(*b));

	if (!b)
		return NULL;
	atomic_fetch_add(&as->live_blocks, 1);
	b->as = as;
	b->va = gm_block_base(va);
	atomic_init(&b->refs, 1);
	gm_mutex_init(as->env, &b->lock, GM_RANK_BLOCK);
	gm_waitq_init(as->env, &b->waitq);
	SLIST_INIT(&b->holds);
	return b;
}

/*
 * (A) The block of va, or its packed form. If there is none but a region, *fresh becomes it. *lacks, if not 0: nothing
 * was done, as the index needs so many nodes.
 */
static void *find_or_index(struct gm_as *as, uint64_t va, struct gm_block **fresh, struct gm_radix_spares *nodes,
			   unsigned *lacks)
{
	uint64_t key = key_of(va);
	struct gm_block *b;
	struct gm_region r;

	*lacks = 0;
	if (!gm_regions_find(&as->regions, va, &r) && !(as->cfg.flags & GM_AS_MIRROR))
		return NULL;
	b = gm_radix_get(&as->blocks, key);
	if (b)
		return gm_packed_of(b) ? b : gm_block_get(b);
	if (gm_radix_lacks(&as->blocks, key) > nodes->count) {
		*lacks = gm_radix_lacks(&as->blocks, key);
		return NULL;
	}
	b = *fresh;
	*fresh = NULL;
	learn_regions(b);
	b->indexed = true;
	gm_readers_keep_out(&as->readers);
	gm_radix_put(&as->blocks, key, b, nodes);
	gm_readers_let_in(&as->readers);
	return gm_block_get(b);
}

/* The block of va, if a region is there. *entry: the block, with a reference, or what others put there meanwhile. */
static gm_ret_t make(struct gm_as *as, uint64_t va, void **entry)
{
	struct gm_radix_spares nodes = { .count = 0 };
	struct gm_block *fresh = gm_block_new(as, va);
	unsigned lacks = 0;
	bool ok = fresh;

	*entry = NULL;
	do { /* again only if nodes are lacking, of which one serves 64 blocks; they are made without the lock */
		while (ok && nodes.count < lacks)
			ok = gm_radix_more(as->env, &nodes);
		if (!ok)
			break;
		gm_lock(as->env, &as->lock);
		*entry = find_or_index(as, va, &fresh, &nodes, &lacks);
		gm_unlock(as->env, &as->lock);
	} while (lacks);
	gm_block_put(fresh);
	gm_radix_spares_free(as->env, &nodes);
	if (!ok)
		return gm_fail(GM_RET_NOMEM, "no memory for the page state of 0x%llx", (unsigned long long)va);
	if (!*entry)
		return gm_fail(GM_RET_FAULT, "0x%llx is not managed memory: gm_alloc() or gm_adopt() it first",
			       (unsigned long long)va);
	gm_pack_stirred(as);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_block_obtain(struct gm_as *as, uint64_t va, struct gm_block **out)
{
	void *entry = look_up(as, va);
	gm_ret_t ret = GM_RET_SUCCESS;

	while (!ret && (!entry || gm_packed_of(entry))) {
		if (!entry) {
			ret = make(as, va, &entry);
		} else {
			ret = gm_pack_open(as, va, out);
			entry = *out; /* NULL: it is gone meanwhile */
		}
	}
	*out = ret ? NULL : entry;
	return ret;
}

bool gm_block_all_host(const struct gm_block *b)
{
	if (!gm_mask_empty(&b->staged) || b->any_dup || !gm_mask_empty(&b->busy) || !gm_mask_empty(&b->doomed) ||
	    !gm_mask_empty(&b->leaving) || !gm_mask_empty(&b->poisoned) || !gm_mask_empty(&b->wanted) ||
	    !gm_mask_empty(&b->kept) || !SLIST_EMPTY(&b->holds))
		return false;
	for (unsigned i = 0; i < GM_MAX_DEVS; i++)
		if (b->node[i] && !gm_mask_empty(&b->node[i]->resident))
			return false;
	for (unsigned i = 0; i < GM_MAX_CTXS; i++)
		if (b->map[i] && !gm_mask_empty(&b->map[i]->read))
			return false;
	return true;
}

/* (A, no readers) */
static void unindex(struct gm_block *b, struct gm_radix_spares *nodes)
{
	gm_radix_drop(&b->as->blocks, key_of(b->va), nodes);
	b->indexed = false;
}

bool gm_block_retire(struct gm_block *b)
{
	struct gm_radix_spares nodes = { .count = 0 };
	uint64_t now_ns = gm_now_ns(b->as->env);
	struct gm_as *as = b->as;
	bool gone = false;

	gm_lock(as->env, &as->lock);
	gm_lock(as->env, &b->lock);
	gm_readers_keep_out(&as->readers);
	/* Two references, the index's and the caller's: nobody else is about to use it. */
	if (b->indexed && !b->watched && !b->has_slot && gm_block_all_host(b) && !gm_block_is_zapped(b, now_ns) &&
	    atomic_load_explicit(&b->refs, memory_order_acquire) == 2) {
		unindex(b, &nodes);
		gone = true;
	}
	gm_readers_let_in(&as->readers);
	gm_unlock(as->env, &b->lock);
	gm_unlock(as->env, &as->lock);
	gm_radix_spares_free(as->env, &nodes);
	if (gone)
		gm_block_put(b);
	return gone;
}

void gm_block_unindex(struct gm_block *b)
{
	struct gm_radix_spares nodes = { .count = 0 };
	struct gm_as *as = b->as;
	bool was;

	gm_lock(as->env, &as->lock);
	gm_readers_keep_out(&as->readers);
	was = b->indexed;
	if (was)
		unindex(b, &nodes);
	gm_readers_let_in(&as->readers);
	gm_unlock(as->env, &as->lock);
	gm_radix_spares_free(as->env, &nodes);
	if (was)
		gm_block_put(b);
}

gm_ret_t gm_block_need_node(struct gm_block *b, unsigned dev)
{
	struct gm_env *env = b->as->env;
	struct gm_bnode *n;

	if (atomic_load_explicit(&b->has_node[dev], memory_order_acquire))
		return GM_RET_SUCCESS;
	n = gm_mem_alloc(env, sizeof(*n));
	if (!n)
		return gm_fail(GM_RET_NOMEM, "no memory for the page state of 0x%llx", (unsigned long long)b->va);
	gm_lock(env, &b->lock);
	if (!b->node[dev]) {
		b->node[dev] = n;
		atomic_store_explicit(&b->has_node[dev], true, memory_order_release);
		n = NULL;
	}
	gm_unlock(env, &b->lock);
	gm_mem_free(env, n, sizeof(*n));
	return GM_RET_SUCCESS;
}

gm_ret_t gm_block_need_map(struct gm_block *b, unsigned ctx)
{
	struct gm_env *env = b->as->env;
	struct gm_bmap *m;
	bool has;

	gm_lock(env, &b->lock);
	has = b->map[ctx];
	gm_unlock(env, &b->lock);
	if (has)
		return GM_RET_SUCCESS;
	m = gm_mem_alloc(env, sizeof(*m));
	if (!m)
		return gm_fail(GM_RET_NOMEM, "no memory for the page state of 0x%llx", (unsigned long long)b->va);
	gm_lock(env, &b->lock);
	if (!b->map[ctx]) {
		b->map[ctx] = m;
		m = NULL;
	}
	gm_unlock(env, &b->lock);
	gm_mem_free(env, m, sizeof(*m));
	return GM_RET_SUCCESS;
}

struct gm_dev *gm_block_dev_of(struct gm_block *b, unsigned page)
{
	for (unsigned i = 0; i < GM_MAX_DEVS; i++)
		if (b->node[i] && gm_mask_test(&b->node[i]->resident, page))
			return b->as->lib->devs[i];
	return NULL;
}

struct gm_mask gm_block_on_dev(const struct gm_block *b, unsigned dev)
{
	return b->node[dev] ? b->node[dev]->resident : gm_mask_none();
}

struct gm_mask gm_block_on_devs(const struct gm_block *b)
{
	struct gm_mask m = gm_mask_none();

	for (unsigned i = 0; i < GM_MAX_DEVS; i++)
		if (b->node[i])
			m = gm_mask_or(m, b->node[i]->resident);
	return m;
}

struct gm_mask gm_block_mapped_by(const struct gm_block *b, unsigned ctx, uint32_t access)
{
	const struct gm_bmap *m = b->map[ctx];

	if (!m)
		return gm_mask_none();
	return access & (GM_WRITE | GM_ATOMIC) ? m->write : m->read;
}

struct gm_mask gm_block_mapped(const struct gm_block *b)
{
	struct gm_mask m = gm_mask_none();

	for (unsigned i = 0; i < GM_MAX_CTXS; i++)
		if (b->map[i])
			m = gm_mask_or(m, b->map[i]->read);
	return m;
}

void gm_block_frames(const struct gm_block *b, unsigned dev, struct gm_frame_map *map)
{
	const struct gm_bnode *n = b->node[dev];

	for (unsigned u = 0; u < GM_BLOCK_UNITS; u++) {
		const struct gm_chunk *c = n ? n->unit[u] : NULL;

		map->unit_pa[u] = c ? c->pa + (uint64_t)(u - c->first / GM_UNIT_PAGES) * GM_UNIT_BYTES : 0;
	}
}

unsigned gm_frame_run(const struct gm_frame_map *map, unsigned page, unsigned end)
{
	unsigned u = page / GM_UNIT_PAGES;

	while ((u + 1) * GM_UNIT_PAGES < end && map->unit_pa[u + 1] == map->unit_pa[u] + GM_UNIT_BYTES)
		u++;
	return (u + 1) * GM_UNIT_PAGES < end ? (u + 1) * GM_UNIT_PAGES : end;
}

void gm_block_count_holds(struct gm_block *b)
{
	struct gm_hold *h;

	b->held = gm_mask_none();
	SLIST_FOREACH(h, &b->holds, in_block)
		b->held = gm_mask_or(b->held, h->pages);
}

void gm_block_doom(struct gm_block *b, const struct gm_mask *pages, uint64_t now_ns)
{
	struct gm_mask some = gm_mask_or(gm_mask_or(gm_block_on_devs(b), b->staged), gm_block_mapped(b));

	some = gm_mask_or(some, gm_mask_or(gm_mask_or(b->busy, b->poisoned), b->dup));
	b->doomed = gm_mask_or(b->doomed, gm_mask_and(some, *pages));
	b->doomed_ns = now_ns;
	gm_zap_note(&b->zap, pages, now_ns);
	gm_block_count_doomed(b);
}

bool gm_block_is_zapped(const struct gm_block *b, uint64_t now_ns)
{
	return b->doomed_ns && now_ns < b->doomed_ns + GM_ZAP_GRACE_NS && !gm_mask_empty(&b->managed);
}

void gm_block_count_doomed(struct gm_block *b)
{
	bool is = !gm_mask_empty(&b->doomed);

	if (is && !b->is_doomed)
		atomic_fetch_add(&b->as->doomed_blocks, 1);
	if (!is && b->is_doomed)
		atomic_fetch_sub(&b->as->doomed_blocks, 1);
	b->is_doomed = is;
}

struct gm_wait *gm_block_wait(struct gm_block *b, unsigned page, uint32_t thread_id, uint64_t now_ns)
{
	struct gm_wait *last;

	for (unsigned i = 0; i < b->waits; i++)
		if (b->wait[i].page == page)
			return &b->wait[i];
	if (b->waits == GM_BLOCK_WAITS)
		return NULL;
	last = &b->wait[b->waits++];
	*last = (struct gm_wait){ .since_ns = now_ns, .thread_id = thread_id, .page = page };
	return last;
}

void gm_block_trim_waits(struct gm_block *b)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < b->waits; i++)
		if (gm_mask_test(&b->wanted, b->wait[i].page))
			b->wait[kept++] = b->wait[i];
	b->waits = kept;
}

void gm_slice_serve(struct gm_slice *s, uint64_t slice_ns, uint64_t now_ns, const struct gm_mask *pages)
{
	uint64_t epoch = now_ns / slice_ns;
	unsigned i = epoch & 1;

	if (s->epoch[i] != epoch) {
		s->epoch[i] = epoch;
		s->page[i] = gm_mask_none();
	}
	s->page[i] = gm_mask_or(s->page[i], *pages);
}

struct gm_mask gm_slice_pages(const struct gm_slice *s, uint64_t slice_ns, uint64_t now_ns)
{
	uint64_t epoch = now_ns / slice_ns;
	struct gm_mask m = gm_mask_none();

	for (unsigned i = 0; i < 2; i++)
		if (s->epoch[i] == epoch || s->epoch[i] + 1 == epoch)
			m = gm_mask_or(m, s->page[i]);
	return m;
}
