/* SPDX-License-Identifier: MIT */
/*
 * From ranges to pieces, against an oracle that looks at every page of every
 * range; and sets of which all or a part is resident already.
 */
#include "config.h"

#include "core_fixture.h"

#include "core/gm_ws.h"

#define BLOCKS 5u
#define PAGES (BLOCKS * GM_BLOCK_PAGES)
#define RANGES 40u

/* What is asked of each page. */
static struct oracle {
	bool read, write, discard, kept, atomic;
} oracle[PAGES];

static void ask_oracle(uint64_t va, const struct gm_ws_range *r)
{
	uint64_t first = (r->va - va) / PAGE, end = (r->va + r->bytes - va + PAGE - 1) / PAGE;

	for (uint64_t i = first; i < end; i++) {
		bool whole = r->va <= va + i * PAGE && r->va + r->bytes >= va + (i + 1) * PAGE;

		oracle[i].read = true;
		oracle[i].write |= (r->access & (GM_WRITE | GM_ATOMIC)) != 0;
		oracle[i].discard |= (r->access & GM_WS_DISCARD) && whole;
		oracle[i].kept |= !(r->access & GM_WS_DISCARD) || !whole;
	}
	for (uint64_t b = first / GM_BLOCK_PAGES; b <= (end - 1) / GM_BLOCK_PAGES; b++)
		oracle[b * GM_BLOCK_PAGES].atomic |= (r->access & GM_ATOMIC) != 0; /* of the block */
}

static void compare(uint64_t va, const struct gm_ws_piece *piece, size_t pieces)
{
	size_t k = 0;

	for (unsigned b = 0; b < BLOCKS; b++) {
		const struct oracle *o = &oracle[(size_t)b * GM_BLOCK_PAGES];
		bool any = false;

		for (unsigned i = 0; i < GM_BLOCK_PAGES; i++)
			any |= o[i].read;
		if (!any)
			continue;
		cr_assert_lt(k, pieces);
		cr_assert_eq(piece[k].va, va + b * BLOCK);
		cr_assert_eq(piece[k].atomic, o[0].atomic);
		for (unsigned i = 0; i < GM_BLOCK_PAGES; i++) {
			cr_assert_eq(gm_mask_test(&piece[k].read, i), o[i].read);
			cr_assert_eq(gm_mask_test(&piece[k].write, i), o[i].write);
			cr_assert_eq(gm_mask_test(&piece[k].discard, i), o[i].discard && !o[i].kept, "page %u", i);
		}
		k++;
	}
	cr_assert_eq(k, pieces);
}

static struct gm_ws_range random_range(struct world *w, uint64_t va)
{
	static const uint32_t access[] = {
		GM_READ, GM_WRITE, GM_ATOMIC, GM_WRITE | GM_WS_DISCARD, GM_ATOMIC | GM_WS_DISCARD
	};
	uint64_t most = gm_sim_random(w->sim, 4) ? 20 * PAGE : 2 * BLOCK, bytes = 1 + gm_sim_random(w->sim, most);

	return (struct gm_ws_range){
		.va = va + gm_sim_random(w->sim, BLOCKS * BLOCK - bytes),
		.bytes = bytes,
		.access = access[gm_sim_random(w->sim, 5)],
	};
}

CORE_TEST(ws_pieces, random_ranges, .seed = 3)
{
	uint64_t va = app_adopted(w, BLOCKS, 1);

	for (unsigned round = 0; round < 300; round++) {
		struct gm_ws_range range[RANGES];
		size_t n = 1 + gm_sim_random(w->sim, RANGES), pieces = 0, live = atomic_load(&w->fa.live);
		struct gm_ws_piece *piece = NULL;

		memset(oracle, 0, sizeof(oracle));
		for (size_t i = 0; i < n; i++) {
			range[i] = random_range(w, va);
			ask_oracle(va, &range[i]);
		}
		for (size_t k = 1; k <= 2; k++) {
			failing_alloc_arm(&w->fa, k);
			IS(gm_ws_pieces(w->ctx[0], range, n, &piece, &pieces), GM_RET_NOMEM);
			cr_assert_eq(atomic_load(&w->fa.live), live);
		}
		failing_alloc_arm(&w->fa, 0);
		OK(gm_ws_pieces(w->ctx[0], range, n, &piece, &pieces));
		compare(va, piece, pieces);
		gm_ws_pieces_free(w->ctx[0], piece, pieces);
	}
}

/* Addresses that differ in every byte, against the order they must have. */
CORE_TEST(ws_pieces, far_apart)
{
	struct gm_ws_range range[12];
	struct gm_ws_piece *piece;
	size_t pieces;

	for (unsigned i = 0; i < 12; i++) {
		uint64_t va = (UINT64_C(0x1234567) << 19) * (13 - i) & ~(BLOCK - 1);

		cr_assert_eq(gm_sim_mmap_at(w->sim, va, BLOCK, RW), va);
		OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
		range[i] = (struct gm_ws_range){ .va = va + i * PAGE, .bytes = PAGE, .access = GM_READ };
	}
	OK(gm_ws_pieces(w->ctx[0], range, 12, &piece, &pieces));
	cr_assert_eq(pieces, 12);
	for (unsigned i = 0; i < 12; i++) {
		cr_assert_eq(piece[i].va, range[11 - i].va & ~(BLOCK - 1));
		cr_assert(gm_mask_test(&piece[i].read, 11 - i));
		cr_assert_eq(gm_mask_count(&piece[i].read), 1);
	}
	cr_assert_eq(gm_ws_units(w->ctx[0], piece, pieces), 12);
	gm_ws_pieces_free(w->ctx[0], piece, pieces);
}

CORE_TEST(ws_pieces, what_is_not_managed_is_named)
{
	uint64_t va = app_adopted(w, 2, 1);
	struct gm_ws_range range[2] = {
		{ .va = va, .bytes = BLOCK, .access = GM_READ },
		{ .va = va + BLOCK, .bytes = BLOCK, .access = GM_READ },
	};
	struct gm_ws_piece *piece;
	size_t pieces;

	OK(gm_release(w->as, ptr(va + BLOCK + 8 * PAGE), PAGE));
	IS(gm_ws_pieces(w->ctx[0], range, 2, &piece, &pieces), GM_RET_FAULT);
	range[1].bytes = 8 * PAGE;
	OK(gm_ws_pieces(w->ctx[0], range, 2, &piece, &pieces));
	gm_ws_pieces_free(w->ctx[0], piece, pieces);
}

/* ------------------------------------------------------ resident already */

static struct gm_ws *acquire(struct world *w, uint64_t va, uint64_t pages, uint32_t access)
{
	struct gm_ws_range range = { .va = va, .bytes = pages * PAGE, .access = access };
	struct gm_ws *ws = NULL;

	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
	return ws;
}

/* The device is asked for nothing: an operation that would fail is still to come when the set is held. */
CORE_TEST(ws_resident, holds_without_the_device)
{
	uint64_t va = app_adopted(w, 2, 1);
	struct gm_stats before, after;
	struct gm_ws *ws, *other;

	OK(gm_ws_release(acquire(w, va, 20, GM_WRITE), NULL));
	before = stats_of(w);
	OK(gm_mock_fail(w->dev[0], GM_MOCK_PMAP_ENTER, 1, 1));
	OK(gm_mock_fail(w->dev[0], GM_MOCK_SUBMIT, 1, 1));
	ws = acquire(w, va, 20, GM_READ);
	other = acquire(w, va + 16 * PAGE, 4, GM_WRITE);
	after = stats_of(w);
	cr_assert_eq(after.pages_to_dev, before.pages_to_dev);
	IS(gm_dev_fault(w->ctx[0], va + BLOCK, GM_READ), GM_RET_NOMEM); /* the failure was still to come */
	cr_assert_eq(page_info(w, va).flags & GM_PAGE_HELD, GM_PAGE_HELD);
	IS(gm_migrate(w->as, va, PAGE, NULL, NULL), GM_RET_BUSY);
	OK(gm_ws_release(ws, NULL));
	cr_assert_eq(page_info(w, va).flags & GM_PAGE_HELD, 0);
	cr_assert_eq(page_info(w, va + 16 * PAGE).flags & GM_PAGE_HELD, GM_PAGE_HELD, "the other set's");
	world_check(w);
	OK(gm_ws_release(other, NULL));
	OK(gm_migrate(w->as, va, 20 * PAGE, NULL, NULL));
}

/* Held to be written counts as written, though nothing was mapped anew. */
CORE_TEST(ws_resident, what_may_be_written_is_dirty)
{
	uint64_t va = app_adopted(w, 1, 1), clean;

	OK(gm_ws_release(acquire(w, va, 16, GM_WRITE), NULL));
	OK(gm_migrate(w->as, va, 16 * PAGE, NULL, NULL));
	OK(gm_ws_release(acquire(w, va, 16, GM_READ), NULL));
	cr_assert_eq(page_info(w, va).flags & GM_PAGE_DIRTY, 0);
	OK(gm_ws_release(acquire(w, va, 16, GM_WRITE), NULL)); /* mapped anew */
	dev_fill(w->ctx[0], va, 16, 2);
	clean = stats_of(w).bytes_to_dev;
	OK(gm_ws_release(acquire(w, va, 16, GM_WRITE), NULL)); /* as it is */
	cr_assert_eq(stats_of(w).bytes_to_dev, clean);
	cr_assert_eq(page_info(w, va).flags & GM_PAGE_DIRTY, GM_PAGE_DIRTY);
	cr_assert_eq(app_wrong(w, va, 16, 2), 0);
}

/* A right that is missing, or a page, and the transaction is back. */
CORE_TEST(ws_resident, what_is_missing_is_brought)
{
	uint64_t va = app_adopted(w, 2, 1), moved;
	struct gm_ws *ws;

	OK(gm_ws_release(acquire(w, va, 16, GM_READ), NULL));
	cr_assert_eq(page_info(w, va).mapped_write, 0);
	ws = acquire(w, va, 16, GM_WRITE);
	cr_assert_eq(page_info(w, va).mapped_write, 1);
	OK(gm_ws_release(ws, NULL));
	moved = stats_of(w).pages_to_dev;
	ws = acquire(w, va, GM_BLOCK_PAGES + 16, GM_READ);
	cr_assert_eq(stats_of(w).pages_to_dev, moved + GM_BLOCK_PAGES);
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES + 16, GM_PLACE_DEVICE), GM_BLOCK_PAGES + 16);
	OK(gm_ws_release(ws, NULL));
}

/* The process has taken its own right away: the mapping lives on, a new set is refused. */
CORE_TEST(ws_resident, rights_are_asked_for_again)
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws_range range = { .va = va, .bytes = 16 * PAGE, .access = GM_WRITE };
	struct gm_ws *ws;

	OK(gm_ws_release(acquire(w, va, 16, GM_WRITE), NULL));
	OK(gm_sim_mprotect(w->sim, va + 4 * PAGE, PAGE, GM_READ));
	IS(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws), GM_RET_PERM);
	cr_assert_eq(page_info(w, va).flags & GM_PAGE_HELD, 0);
	OK(gm_sim_mprotect(w->sim, va + 4 * PAGE, PAGE, RW));
	OK(gm_ws_release(acquire(w, va, 16, GM_WRITE), NULL));
}

/* Edges are mapped in place the first time, and only held the second. */
CORE_TEST(ws_resident, edges_are_held_in_place)
{
	uint64_t va = app_map_blocks(w, 1);
	struct gm_ws_range range = { .va = va + 100, .bytes = 5 * PAGE, .access = GM_WRITE };
	struct gm_ws *ws;

	OK(gm_adopt(w->as, ptr(range.va), range.bytes, 0));
	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
	cr_assert_eq(stats_of(w).pages_in_place, 2);
	OK(gm_ws_release(ws, NULL));
	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
	cr_assert_eq(stats_of(w).pages_in_place, 2);
	cr_assert_eq(page_info(w, va).flags & GM_PAGE_HELD, GM_PAGE_HELD);
	OK(gm_ws_release(ws, NULL));
	range.access = GM_ATOMIC;
	IS(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws), GM_RET_NOTSUP);
}
