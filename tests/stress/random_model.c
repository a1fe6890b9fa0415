/* SPDX-License-Identifier: MIT */
/*
 * The byte array and everything that is compared with it.
 *
 * Bytes are looked at where they are (frame of the process, staging slot,
 * device memory), without an access that would move them; pages in the middle
 * of a transaction are left for later. Translations, in the device's page
 * table and in its TLBs, must agree with what the core believes to be mapped.
 */
#include "config.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/stress/random_world.h"

#define LOOK_AT_ALL_EVERY 256u

/* ------------------------------------------------------- random numbers */

uint64_t rnd(struct rnd_world *w, uint64_t n)
{
	uint64_t z = w->rng += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return n > 1 ? (z ^ (z >> 31)) % n : 0;
}

bool rnd_one_in(struct rnd_world *w, uint64_t n)
{
	return rnd(w, n) == 0;
}

void rnd_random_bytes(struct rnd_world *w, uint8_t *buf, size_t bytes)
{
	uint64_t word = 0;

	for (size_t i = 0; i < bytes; i++) {
		if (i % 8 == 0)
			word = rnd(w, UINT64_MAX);
		buf[i] = (uint8_t)(word >> (i % 8 * 8));
	}
}

/* -------------------------------------------------------------- failures */

void rnd_fail(struct rnd_world *w, const char *fmt, ...)
{
	struct rnd_result *r = w->opt->child;
	char why[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, sizeof(why), fmt, args);
	va_end(args);
	if (r) {
		r->steps = w->steps;
		snprintf(r->why, sizeof(r->why), "%.*s", (int)sizeof(r->why) - 1, why);
	}
	if (!w->opt->quiet)
		fprintf(stderr, "random_sim: FAILED: seed %" PRIu64 " step %" PRIu64 " (%s): %s\n"
				"again: random_sim --seed %" PRIu64 " --seeds 1 --steps %" PRIu64 " --verbose\n",
			w->opt->seed, w->steps, w->last_op ? w->last_op : "start", why, w->opt->seed, w->opt->steps);
	fflush(NULL);
	_exit(1); /* from the stack of a coroutine: nothing can be unwound */
}

/* --------------------------------------------------- what may go wrong now */

struct rnd_watch rnd_watch(struct rnd_world *w)
{
	struct rnd_watch watch = { .start_ns = gm_now_ns(gm_sim_env(w->sim)), .noise = w->noise, .noisy = w->noisy,
				   .odd = w->odd };

	for (unsigned i = 0; i < RND_DEVS; i++) {
		watch.holds[i] = w->dev[i].holds;
		watch.held[i] = w->dev[i].dev->node.reserved_units > 0 || w->dev[i].asking;
	}
	return watch;
}

bool rnd_noisy(struct rnd_world *w, const struct rnd_watch *watch)
{
	return watch->noisy || w->noisy || watch->noise != w->noise;
}

bool rnd_held(struct rnd_world *w, const struct rnd_watch *watch, const struct rnd_dev *dev)
{
	size_t i = (size_t)(dev - w->dev);

	return watch->held[i] || dev->dev->node.reserved_units > 0 || dev->asking || watch->holds[i] != dev->holds;
}

static uint32_t ret_bit(gm_ret_t ret)
{
	switch (ret) {
#define CASE_(name, value, text) \
	case GM_RET_##name: \
		return RND_RET(name);
		GM_RET_LIST(CASE_)
#undef CASE_
	}
	return 0;
}

void rnd_expect(struct rnd_world *w, const struct rnd_watch *watch, gm_ret_t ret, uint32_t legal, uint32_t noisy,
		const char *what, uint64_t va)
{
	if (rnd_noisy(w, watch))
		legal |= noisy;
	w->hash = (w->hash ^ (uint64_t)(uint32_t)ret ^ va << 8) * UINT64_C(0x100000001b3);
	if (w->opt->verbose)
		fprintf(stderr, "%8" PRIu64 " %10" PRIu64 " %s 0x%" PRIx64 ": %s\n", w->steps,
			(uint64_t)(gm_now_ns(gm_sim_env(w->sim)) / 1000), what, va, gm_ret_name(ret));
	if (!(ret_bit(ret) & (legal | RND_RET(SUCCESS))))
		rnd_fail(w, "%s at 0x%" PRIx64 " answers %s, which it may not here (%s)", what, va, gm_ret_name(ret),
			 gm_last_error());
}

/* ---------------------------------------------------------------- claims */

static uint16_t cell_mask(unsigned cell, unsigned cells)
{
	return (uint16_t)(((1u << cells) - 1) << cell);
}

bool rnd_claim(struct rnd_page *p, unsigned cell, unsigned cells, bool write)
{
	if (p->alone || (p->writer & cell_mask(cell, cells)))
		return false;
	for (unsigned i = cell; write && i < cell + cells; i++)
		if (p->readers[i])
			return false;
	for (unsigned i = cell; !write && i < cell + cells; i++)
		p->readers[i]++;
	if (write)
		p->writer |= cell_mask(cell, cells);
	p->users++;
	return true;
}

void rnd_unclaim(struct rnd_page *p, unsigned cell, unsigned cells, bool write)
{
	for (unsigned i = cell; !write && i < cell + cells; i++)
		p->readers[i]--;
	if (write)
		p->writer &= (uint16_t)~cell_mask(cell, cells);
	p->users--;
}

void rnd_check_obeyed(struct rnd_world *w, const struct rnd_page *p, uint32_t changes, bool write)
{
	if (p->obeyed && p->changes == changes && (p->no_read || (write && p->read_only)))
		rnd_fail(w, "a device %s 0x%" PRIx64 " against the rights of gm_protect()", write ? "writes" : "reads", p->va);
}

void rnd_drop_begin(struct rnd_world *w)
{
	w->drops++;
	w->dropping++;
}

void rnd_drop_end(struct rnd_world *w)
{
	w->drops++;
	w->dropping--;
}

uint32_t rnd_drops(const struct rnd_world *w)
{
	return w->dropping ? w->drops - 1 : w->drops;
}

bool rnd_claim_alone(struct rnd_page *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (p[i].alone || p[i].users)
			return false;
	for (unsigned i = 0; i < n; i++)
		p[i].alone = true;
	return true;
}

void rnd_unclaim_alone(struct rnd_page *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		p[i].alone = false;
}

void rnd_changed(struct rnd_world *w, struct rnd_page *p)
{
	p->changes++;
	p->changed_ns = gm_now_ns(gm_sim_env(w->sim));
	w->odd++;
}

bool rnd_begin_move(struct rnd_world *w)
{
	if (w->spaces > 1 && w->moving)
		return false;
	w->moving = true;
	return true;
}

void rnd_end_move(struct rnd_world *w)
{
	w->moving = false;
}

/* --------------------------------------------------------------- choices */

struct rnd_region *rnd_region(struct rnd_world *w)
{
	struct rnd_region *r;

	do {
		r = &w->region[rnd(w, w->regions)];
	} while (r->lost && r != &w->region[0]); /* the first one is adopted: it is always there */
	return r;
}

struct rnd_page *rnd_page(struct rnd_world *w)
{
	struct rnd_region *r = rnd_region(w);

	return &r->page[rnd(w, r->pages)];
}

unsigned rnd_run(struct rnd_world *w, struct rnd_region *r, unsigned max, bool (*good)(const struct rnd_page *p),
		 struct rnd_page **first)
{
	unsigned begin = (unsigned)rnd(w, r->pages), end = begin;
	unsigned limit = 1 + (unsigned)rnd(w, rnd_one_in(w, 4) ? max : (max + 3) / 4);

	*first = &r->page[begin];
	while (end < r->pages && end - begin < limit && (!good || good(&r->page[end])) &&
	       (end == begin || r->page[end].va == r->page[end - 1].va + GM_PAGE_BYTES))
		end++;
	return end - begin;
}

/* --------------------------------------------------- where the bytes are */

/* Without a lock: nobody runs between two points of the scheduler. What is packed is shown until the next call. */
static const struct gm_block *block_of(struct gm_as *as, uint64_t va)
{
	static struct gm_block view;
	static struct gm_bnode node;
	static struct gm_bmap map;
	const void *home = gm_radix_get(&as->blocks, va / GM_BLOCK_BYTES);
	const struct gm_packed *p = gm_packed_of(home);

	if (!p)
		return home;
	memset(&view, 0, sizeof(view));
	memset(&node, 0, sizeof(node));
	memset(&map, 0, sizeof(map));
	gm_pack_unpack(p, &view, &node, &map);
	return &view;
}

static const uint8_t zeros[GM_PAGE_BYTES];

static const uint8_t *on_host(struct rnd_world *w, uint64_t va)
{
	const struct gm_sim_page *page = gm_sim_page_get(w->sim, va, false);

	return page && page->frame ? page->frame : zeros;
}

static bool under_way(const struct gm_block *b, unsigned page)
{
	return gm_mask_test(&b->busy, page) || gm_mask_test(&b->doomed, page);
}

/* A device copy that counts as clean is the parked frame, and nobody can write to it. */
static void check_clean(struct rnd_world *w, const struct gm_block *b, unsigned page, const struct gm_bnode *n,
			const uint8_t *bytes)
{
	uint64_t va = b->va + (uint64_t)page * GM_PAGE_BYTES;

	if (!gm_mask_test(&b->staged, page) || gm_mask_test(&n->dirty, page))
		return;
	if (memcmp(bytes, (const void *)(uintptr_t)(b->slot + (uint64_t)page * GM_PAGE_BYTES), GM_PAGE_BYTES) != 0)
		rnd_fail(w, "the device copy of 0x%" PRIx64 " counts as clean but differs from the parked frame", va);
	for (unsigned i = 0; i < GM_MAX_CTXS; i++)
		if (b->map[i] && gm_mask_test(&b->map[i]->write, page))
			rnd_fail(w, "0x%" PRIx64 " counts as clean but a device may write to it", va);
}

/* Every duplicate has the bytes of the page, which nobody may map for stores. */
static void check_duplicates(struct rnd_world *w, const struct gm_block *b, unsigned page)
{
	uint64_t va = b->va + (uint64_t)page * GM_PAGE_BYTES;
	bool some = false;

	for (unsigned i = 0; i < RND_DEVS; i++) {
		const struct rnd_dev *d = &w->dev[i];
		const struct gm_bnode *n = b->node[d->dev->index];
		struct gm_frame_map frames;

		if (!n || !gm_mask_test(&n->copy, page))
			continue;
		some = true;
		gm_block_frames(b, d->dev->index, &frames);
		if (memcmp(gm_mock_vram(d->mock, gm_frame_pa(&frames, page), GM_PAGE_BYTES), on_host(w, va), GM_PAGE_BYTES) != 0)
			rnd_fail(w, "a duplicate of 0x%" PRIx64 " has other bytes than the page", va);
	}
	if (some != gm_mask_test(&b->dup, page))
		rnd_fail(w, "0x%" PRIx64 " counts as duplicated or not, but is it?", va);
	for (unsigned i = 0; some && i < GM_MAX_CTXS; i++)
		if (b->map[i] && gm_mask_test(&b->map[i]->write, page))
			rnd_fail(w, "0x%" PRIx64 " is duplicated but a device may write to it", va);
}

/* The space that has it: its own, or one that mirrors the process and took what nobody managed. */
static struct gm_as *who_has(struct rnd_world *w, const struct rnd_page *p)
{
	for (unsigned i = 0; i < w->spaces; i++) {
		const struct rnd_space *s = &w->space[i];
		const struct gm_block *b = s->mirrors && s->as ? block_of(s->as, p->va) : NULL;

		if (b && gm_mask_test(&b->managed, gm_page_of(b, p->va)))
			return s->as;
	}
	return p->space->as;
}

/* The page's bytes, or NULL: on their way. */
static const uint8_t *look(struct rnd_world *w, const struct rnd_page *p)
{
	const struct gm_block *b = block_of(who_has(w, p), p->va);
	unsigned page;

	if (!b)
		return on_host(w, p->va);
	page = gm_page_of(b, p->va);
	if (gm_mask_test(&b->leaving, page)) /* what the block has there belongs to another address */
		return on_host(w, p->va);
	if (under_way(b, page))
		return NULL;
	if (gm_mask_test(&b->poisoned, page))
		rnd_fail(w, "0x%" PRIx64 " is poisoned although no device was lost", p->va);
	for (unsigned i = 0; i < RND_DEVS; i++) {
		const struct rnd_dev *d = &w->dev[i];
		const struct gm_bnode *n = b->node[d->dev->index];
		struct gm_frame_map frames;
		const uint8_t *bytes;

		if (!n || !gm_mask_test(&n->resident, page))
			continue;
		gm_block_frames(b, d->dev->index, &frames);
		bytes = gm_mock_vram(d->mock, gm_frame_pa(&frames, page), GM_PAGE_BYTES);
		check_clean(w, b, page, n, bytes);
		return bytes;
	}
	check_duplicates(w, b, page);
	if (gm_mask_test(&b->host, page) || gm_mask_test(&b->edge, page) || !gm_mask_test(&b->managed, page))
		return gm_mask_test(&b->staged, page) ? NULL : on_host(w, p->va);
	if (gm_mask_test(&b->staged, page))
		return (const uint8_t *)(uintptr_t)(b->slot + (uint64_t)page * GM_PAGE_BYTES);
	return on_host(w, p->va); /* zeros; or written after MADV_FREE, and not found out yet */
}

/* ------------------------------------------------------------ comparing */

void rnd_compare(struct rnd_world *w, const struct rnd_page *p, unsigned offset, const uint8_t *got, size_t bytes,
		 const char *who)
{
	size_t i = 0;

	if (memcmp(got, p->want + offset, bytes) == 0)
		return;
	while (got[i] == p->want[offset + i])
		i++;
	rnd_fail(w, "wrong byte: %s sees 0x%02x at 0x%" PRIx64 ", not 0x%02x", who, got[i],
		 p->va + offset + i, p->want[offset + i]);
}

/* The words of counters change by themselves. */
static bool is_counter_cell(const struct rnd_page *p, unsigned cell)
{
	return p->counter && cell == 0;
}

static void look_at(struct rnd_world *w, const struct rnd_page *p)
{
	const uint8_t *bytes = p->alone || p->space->as == NULL ? NULL : look(w, p);

	for (unsigned i = 0; bytes && i < RND_CELLS; i++)
		if (!(p->writer & (1u << i)) && !is_counter_cell(p, i))
			rnd_compare(w, p, i * RND_CELL_BYTES, bytes + (size_t)i * RND_CELL_BYTES, RND_CELL_BYTES,
				    "a look into memory");
}

void rnd_look_at_all(struct rnd_world *w)
{
	for (unsigned i = 0; i < w->regions; i++)
		for (unsigned k = 0; !w->region[i].lost && k < w->region[i].pages; k++)
			look_at(w, &w->region[i].page[k]);
}

/* ------------------------------------------------------- translations */

/* What a device would use for `va` must be what the core has recorded. */
static void check_translation(struct rnd_world *w, const struct gm_ctx *ctx, const struct gm_mock_xlate *x,
			      uint64_t dev_va, const char *where)
{
	uint64_t va = (dev_va - ctx->to_dev) & ~(uint64_t)(GM_PAGE_BYTES - 1);
	uint64_t pa = x->pa + ((dev_va & ~(uint64_t)(GM_PAGE_BYTES - 1)) - x->va);
	const struct gm_block *b = block_of(ctx->as, va);
	struct gm_frame_map frames;
	const struct gm_bmap *map;
	unsigned page;

	if (!b)
		rnd_fail(w, "%s of a device maps 0x%" PRIx64 ", of which no state is kept", where, va);
	page = gm_page_of(b, va);
	map = b->map[ctx->index];
	if (under_way(b, page))
		return;
	if (!map || !gm_mask_test(&map->read, page))
		rnd_fail(w, "%s of a device maps 0x%" PRIx64 ", which should have been revoked", where, va);
	if ((x->pte & GM_PTE_WRITE) && !gm_mask_test(&map->write, page))
		rnd_fail(w, "%s of a device maps 0x%" PRIx64 " writable, which it should not", where, va);
	if (x->pte & GM_PTE_HOST) {
		/* gm_release(): the region goes first, a moment later what is mapped in place */
		if (atomic_load(&ctx->as->releasing) && !gm_mask_test(&b->managed, page) && !gm_mask_test(&b->edge, page))
			return;
		if (pa != va || !(gm_mask_test(&b->host, page) || gm_mask_test(&b->edge, page) ||
				  gm_mask_test(&b->leaving, page)))
			rnd_fail(w, "%s of a device maps 0x%" PRIx64 " in place, but it is not there", where, va);
		return;
	}
	gm_block_frames(b, ctx->dev->index, &frames);
	if (!frames.unit_pa[page / GM_UNIT_PAGES] || gm_frame_pa(&frames, page) != pa)
		rnd_fail(w, "%s of a device maps 0x%" PRIx64 " to a frame that is not its own", where, va);
}

static void check_ctx(struct rnd_world *w, const struct rnd_ctx *c)
{
	struct gm_mock_pmap *pmap;
	struct gm_mock_xlate x;
	struct gm_mock_tlb *tlb;

	if (!c->ctx || c->closing)
		return;
	pmap = gm_hal_backend_pmap(c->ctx->dev->hal, c->ctx->pmap);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t va = rnd_page(w)->va + c->ctx->to_dev;

		if (gm_mock_pt_walk(pmap->dev, &pmap->pt, va, &x))
			check_translation(w, c->ctx, &x, va, "the page table");
	}
	TAILQ_FOREACH(tlb, &pmap->tlbs, link) {
		x = tlb->entry[rnd(w, tlb->entries)];
		if (x.shift)
			check_translation(w, c->ctx, &x, x.va + rnd(w, UINT64_C(1) << x.shift), "a TLB");
	}
}

/* ---------------------------------------------------------------- steps */

static void check_spaces(struct rnd_world *w)
{
	char text[160];

	for (unsigned i = 0; i < w->spaces; i++)
		if (w->space[i].as && gm_as_check(w->space[i].as, text, sizeof(text)))
			rnd_fail(w, "invariant: %s", text);
}

void rnd_step(struct rnd_world *w, const char *op, const struct rnd_watch *watch)
{
	uint64_t now_ns = gm_now_ns(gm_sim_env(w->sim)), took_ns = now_ns - watch->start_ns;

	w->steps++;
	w->last_op = op;
	if (w->opt->child)
		w->opt->child->steps = w->steps;
	if (took_ns > RND_STALL_NS)
		rnd_fail(w, "stall: %s took %" PRIu64 " ms", op, took_ns / 1000000);
	gm_sim_set_horizon_ns(w->sim, now_ns + RND_STALL_NS);
	check_spaces(w);
	for (unsigned i = 0; i < 3; i++)
		look_at(w, rnd_page(w));
	for (unsigned i = 0; i < w->spaces; i++)
		check_ctx(w, &w->space[i].ctx[rnd(w, RND_DEVS)]);
	if (w->steps % LOOK_AT_ALL_EVERY == 0)
		rnd_look_at_all(w);
	if (w->noisy && w->steps >= w->noisy_until)
		rnd_quiet(w);
}
