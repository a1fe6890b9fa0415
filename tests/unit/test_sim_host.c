/* SPDX-License-Identifier: MIT */
/*
 * The simulated host's own operations: mappings, pages in and out, slots, what
 * it refuses, what it aborts on. What the application does meanwhile is in
 * test_sim_app.c.
 */
#include "sim_host_fixture.h"

Test(sim_host, table)
{
	const struct gm_mmu *mmu = gm_sim_host_mmu();
	struct gm_sim *sim = gm_sim_create(1, NULL);
	struct gm_dev_caps caps;
	void *dev;

	cr_assert_eq(mmu->abi, GM_HAL_ABI);
	cr_assert_eq(mmu->size, sizeof(*mmu));
	cr_assert_eq(mmu->dev_init(gm_sim_host_data(sim), NULL, &caps, &dev), GM_RET_SUCCESS);
	cr_assert_eq(caps.caps, GM_CAP_HOST | GM_CAP_ACCESS);
	cr_assert_eq(caps.slabs, 0);
	cr_assert_null(mmu->pmap_enter);
	for (size_t i = 0; i < sizeof(*mmu->host) / sizeof(void (*)(void)); i++)
		cr_assert_not_null(((void *const *)(const void *)mmu->host)[i], "slot %zu", i);
	mmu->dev_fini(dev);
	gm_sim_destroy(sim);
}

HOST_TEST(sim_host, steal_and_restore)
{
	struct host_world *w = arg;
	uint64_t va = map_watched(w, BLOCK), done, value;
	struct gm_host_steal out;

	/* untouched memory is all holes; so are what is not asked for */
	w->op->slot_alloc(w->pmap, &w->slot);
	w->op->unwatch(w->pmap, va, BLOCK);
	store_u64(w, va + 3 * PAGE, 333);
	store_u64(w, va + 5 * PAGE, 555);
	w->op->watch(w->pmap, va, BLOCK);
	out = steal(w, va, 2, 5);
	cr_assert(is_span(out.moved, 2, 5));
	cr_assert(gm_mask_test(&out.hole, 2) && !gm_mask_test(&out.hole, 3) && gm_mask_test(&out.hole, 4));
	cr_assert_eq(gm_mask_count(&out.hole), 2);
	cr_assert(gm_mask_empty(&out.pinned) && gm_mask_empty(&out.fixed));
	cr_assert_eq(*(uint64_t *)(uintptr_t)(w->slot + 3 * PAGE), 333, "same offset in the slot");
	cr_assert_eq(peek(w, va + 3 * PAGE, &value), GM_RET_FAULT, "gone from the process");
	cr_assert_eq(peek(w, va + 5 * PAGE, &value), GM_RET_SUCCESS);

	/* the engine changes it, and it comes back, elsewhere even */
	*(uint64_t *)(uintptr_t)(w->slot + 3 * PAGE) = 334;
	cr_assert_eq(w->op->restore(w->pmap, va + 9 * PAGE, w->slot + 3 * PAGE, PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(done, PAGE);
	cr_assert_eq(load_u64(w, va + 9 * PAGE), 334);
	w->op->slot_free(w->pmap, w->slot);
}

HOST_TEST(sim_host, present)
{
	struct host_world *w = arg;
	uint64_t va = gm_sim_mmap(w->sim, BLOCK, RW);
	struct gm_mask m;

	store_u64(w, va + 7 * PAGE, 1);
	store_u64(w, va + 511 * PAGE, 1);
	cr_assert_eq(w->op->mem_present(w->pmap, va, &m), GM_RET_SUCCESS);
	cr_assert_eq(gm_mask_count(&m), 2);
	cr_assert(gm_mask_test(&m, 7) && gm_mask_test(&m, 511));
	cr_assert_eq(w->op->mem_present(w->pmap, va + (UINT64_C(1) << 40), &m), GM_RET_FAULT);
}

HOST_TEST(sim_host, probe)
{
	struct host_world *w = arg;
	uint64_t va = gm_sim_mmap(w->sim, 8 * PAGE, RW), shared = gm_sim_mmap_shared(w->sim, PAGE);
	struct gm_host_vma vma;

	cr_assert_eq(w->op->mem_probe(w->pmap, va + 5 * PAGE, &vma), GM_RET_SUCCESS);
	cr_assert(vma.va == va && vma.bytes == 8 * PAGE && vma.access == RW && vma.private_anon && !vma.locked);
	cr_assert_eq(w->op->mem_probe(w->pmap, va + 8 * PAGE, &vma), GM_RET_FAULT);
	cr_assert_eq(w->op->mem_probe(w->pmap, va - 1, &vma), GM_RET_FAULT);
	gm_sim_mprotect(w->sim, va + 2 * PAGE, PAGE, GM_READ);
	cr_assert_eq(w->op->mem_probe(w->pmap, va + 2 * PAGE, &vma), GM_RET_SUCCESS);
	cr_assert(vma.va == va + 2 * PAGE && vma.bytes == PAGE && vma.access == GM_READ);
	gm_sim_mprotect(w->sim, va + 2 * PAGE, PAGE, GM_WRITE);
	cr_assert_eq(w->op->mem_probe(w->pmap, va, &vma), GM_RET_SUCCESS);
	cr_assert_eq(vma.bytes, 8 * PAGE, "equal neighbours are merged");
	cr_assert_eq(w->op->mem_probe(w->pmap, shared, &vma), GM_RET_SUCCESS);
	cr_assert_not(vma.private_anon);
}

HOST_TEST(sim_host, watch_says_why_not)
{
	struct host_world *w = arg;
	uint64_t va = gm_sim_mmap(w->sim, 8 * PAGE, RW), shared = gm_sim_mmap_shared(w->sim, PAGE);
	struct gm_sim_stats stats;
	void *second;

	cr_assert_eq(w->op->watch(w->pmap, va, 9 * PAGE), GM_RET_FAULT);
	cr_assert_eq(w->op->watch(w->pmap, shared, PAGE), GM_RET_NOTSUP);
	gm_sim_stats(w->sim, &stats);
	cr_assert_eq(stats.watched_pages, 0);
	cr_assert_eq(w->op->watch(w->pmap, va, 4 * PAGE), GM_RET_SUCCESS);
	cr_assert_eq(w->op->watch(w->pmap, va, 5 * PAGE), GM_RET_SUCCESS, "repeated is fine");
	cr_assert_eq(gm_sim_host_mmu()->pmap_create(w->dev, &second), GM_RET_SUCCESS);
	cr_assert_eq(w->op->watch(second, va + 4 * PAGE, 2 * PAGE), GM_RET_BUSY);
	cr_assert_eq(w->op->watch(second, va + 5 * PAGE, PAGE), GM_RET_SUCCESS);
	gm_sim_stats(w->sim, &stats);
	cr_assert_eq(stats.watched_pages, 6);
	cr_assert_eq(w->op->unwatch(w->pmap, va, 6 * PAGE), GM_RET_BUSY);
	gm_sim_host_mmu()->pmap_destroy(second);
	gm_sim_stats(w->sim, &stats);
	cr_assert_eq(stats.watched_pages, 5);
	cr_assert_eq(w->op->unwatch(w->pmap, va, 8 * PAGE), GM_RET_SUCCESS);
	gm_sim_stats(w->sim, &stats);
	cr_assert_eq(stats.watched_pages, 0);
}

HOST_TEST(sim_host, steal_refuses)
{
	struct host_world *w = arg;
	uint64_t va = gm_sim_mmap(w->sim, BLOCK, RW);
	struct gm_host_steal out;

	for (unsigned i = 0; i < 8; i++)
		store_u64(w, va + i * PAGE, i);
	cr_assert_eq(gm_sim_pin(w->sim, va + PAGE), GM_RET_SUCCESS);
	gm_sim_mprotect(w->sim, va + 2 * PAGE, PAGE, GM_READ);
	gm_sim_mprotect(w->sim, va + 3 * PAGE, PAGE, 0);
	gm_sim_mlock(w->sim, va + 4 * PAGE, PAGE, true);
	w->op->watch(w->pmap, va, BLOCK);
	w->op->slot_alloc(w->pmap, &w->slot);
	out = steal(w, va, 0, 8);
	cr_assert(is_span(out.pinned, 1, 2));
	cr_assert(is_span(out.fixed, 2, 5));
	cr_assert_eq(gm_mask_count(&out.moved), 4);
	cr_assert_eq(load_u64(w, va + PAGE), 1, "left where it was");
	gm_sim_unpin(w->sim, va + PAGE);
	out = steal(w, va, 1, 2);
	cr_assert(is_span(out.moved, 1, 2));
	w->op->slot_free(w->pmap, w->slot);
}

HOST_TEST(sim_host, owned_memory)
{
	struct host_world *w = arg;
	struct gm_host_vma vma;
	uint64_t va, value;

	cr_assert_eq(w->op->mem_map(w->pmap, BLOCK + PAGE, false, &va), GM_RET_SUCCESS);
	cr_assert_eq(va % BLOCK, 0);
	cr_assert_eq(w->op->mem_probe(w->pmap, va, &vma), GM_RET_SUCCESS);
	cr_assert(vma.bytes == BLOCK + PAGE && vma.private_anon && vma.access == RW);
	store_u64(w, va, 7);
	cr_assert_eq(gm_sim_fork_snapshot(w->sim, va, &value, 8), GM_RET_FAULT, "a child has nothing there");
	w->op->mem_unmap(w->pmap, va, BLOCK + PAGE);
	cr_assert_eq(w->op->mem_probe(w->pmap, va, &vma), GM_RET_FAULT);
	cr_assert_eq(gm_sim_load(w->sim, va, &value, 8), GM_RET_FAULT);
}

/* Write, steal, restore: true if the block was one huge page all the way. */
static bool goes_as_one(struct host_world *w, uint64_t va, unsigned end)
{
	struct gm_host_steal out = steal(w, va, 0, end);
	uint64_t done;

	cr_assert_eq(w->op->restore(w->pmap, va, w->slot, end * PAGE, &done), GM_RET_SUCCESS);
	return out.huge;
}

HOST_TEST(sim_host, huge_pages)
{
	struct host_world *w = arg;
	uint64_t va, small;

	cr_assert_eq(w->op->mem_map(w->pmap, 2 * BLOCK, true, &va), GM_RET_SUCCESS);
	small = gm_sim_mmap(w->sim, BLOCK, RW);
	store_u64(w, small, 1);
	store_u64(w, va + 10 * PAGE, 10);
	cr_assert(w->op->mem_huge(w->pmap, va));
	cr_assert_not(w->op->mem_huge(w->pmap, va + BLOCK), "not touched");
	cr_assert_not(w->op->mem_huge(w->pmap, small));
	cr_assert_eq(load_u64(w, va), 0, "all of it is there");

	w->op->watch(w->pmap, va, BLOCK);
	w->op->slot_alloc(w->pmap, &w->slot);
	cr_assert(goes_as_one(w, va, 512));
	cr_assert(w->op->mem_huge(w->pmap, va), "and back");
	cr_assert_not(goes_as_one(w, va, 2));
	cr_assert_not(w->op->mem_huge(w->pmap, va), "a part was taken out of it");
	cr_assert_not(goes_as_one(w, va, 512), "it never grows together again");
	cr_assert_eq(load_u64(w, va + 10 * PAGE), 10);
	w->op->unwatch(w->pmap, va, BLOCK);
	w->op->slot_free(w->pmap, w->slot);
}

HOST_TEST(sim_host, bounce_gives_frames_away)
{
	struct host_world *w = arg;
	uint64_t va = map_watched(w, 4 * PAGE), done;
	uint8_t *b = w->op->bounce(w->pmap, 0, 4 * PAGE);

	memset(b, 'x', 4 * PAGE);
	cr_assert_eq(w->op->restore(w->pmap, va, GM_VA(b) + PAGE, 2 * PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq((uint8_t)load_u64(w, va + PAGE), 'x');
	cr_assert_eq(w->op->bounce(w->pmap, 0, 4 * PAGE), b, "the same memory, new frames");
	memset(b, 'y', 4 * PAGE);
	cr_assert_eq(w->op->restore(w->pmap, va + 2 * PAGE, GM_VA(b) + PAGE, 2 * PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq((uint8_t)load_u64(w, va + 3 * PAGE), 'y');
	cr_assert_neq(w->op->bounce(w->pmap, 1, 2 * BLOCK), b);
	cr_assert_null(w->op->bounce(w->pmap, 1000, PAGE));
}

HOST_TEST(sim_host, fill_zero_and_their_limits)
{
	struct host_world *w = arg;
	uint64_t va = gm_sim_mmap(w->sim, 8 * PAGE, RW), done = 77;
	static uint8_t src[8 * GM_PAGE_BYTES];

	memset(src, 'f', sizeof(src));
	w->op->watch(w->pmap, va, 6 * PAGE);
	cr_assert_eq(w->op->fill(w->pmap, va, src, 2 * PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(done, 2 * PAGE);
	cr_assert_eq(w->op->zero(w->pmap, va + 3 * PAGE, PAGE, &done), GM_RET_SUCCESS);
	/* something is there: everything before it is done */
	cr_assert_eq(w->op->fill(w->pmap, va + 2 * PAGE, src, 2 * PAGE, &done), GM_RET_EXIST);
	cr_assert_eq(done, PAGE);
	cr_assert_eq(w->op->zero(w->pmap, va, PAGE, &done), GM_RET_EXIST);
	cr_assert_eq(done, 0);
	/* page 6 is mapped but not watched, page 8 is not even mapped */
	cr_assert_eq(w->op->zero(w->pmap, va + 4 * PAGE, 3 * PAGE, &done), GM_RET_FAULT);
	cr_assert_eq(done, 2 * PAGE);
	cr_assert_eq((uint8_t)load_u64(w, va + 2 * PAGE), 'f');
	cr_assert_eq(load_u64(w, va + 3 * PAGE), 0);
	cr_assert_eq(load_u64(w, va + 5 * PAGE), 0);
}

HOST_TEST(sim_host, poison)
{
	struct host_world *w = arg;
	uint64_t va = map_watched(w, 4 * PAGE), done, value;
	char bytes[GM_PAGE_BYTES];

	cr_assert_eq(w->op->poison(w->pmap, va, 2 * PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(gm_sim_load(w->sim, va, &value, 8), GM_RET_IO, "SIGBUS");
	cr_assert_eq(gm_sim_store(w->sim, va + PAGE, &value, 8), GM_RET_IO);
	cr_assert_eq(w->op->poison(w->pmap, va + PAGE, PAGE, &done), GM_RET_EXIST);
	cr_assert_eq(gm_sim_fork_snapshot(w->sim, va, &value, 8), GM_RET_IO);
	cr_assert_eq(w->op->zero(w->pmap, va, PAGE, &done), GM_RET_EXIST, "a mark is no hole");
	cr_assert_eq(gm_sim_load(w->sim, va, &value, 8), GM_RET_IO);
	cr_assert_eq(w->op->unmark(w->pmap, va, PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(load_u64(w, va), 0);
	cr_assert_eq(w->op->unmark(w->pmap, va, PAGE, &done), GM_RET_EXIST, "bytes are no mark");
	cr_assert_eq(w->op->unmark(w->pmap, va + 2 * PAGE, PAGE, &done), GM_RET_SUCCESS, "a hole");
	memset(bytes, 0x77, sizeof(bytes));
	cr_assert_eq(w->op->fill(w->pmap, va + PAGE, bytes, PAGE, &done), GM_RET_SUCCESS, "bytes replace the mark");
	cr_assert_eq((uint8_t)load_u64(w, va + PAGE), 0x77);
}

HOST_TEST(sim_host, read_only_pages_can_be_restored)
{
	struct host_world *w = arg;
	uint64_t va = gm_sim_mmap(w->sim, BLOCK, RW), done, value = 0;

	store_u64(w, va, 5);
	w->op->watch(w->pmap, va, BLOCK);
	w->op->slot_alloc(w->pmap, &w->slot);
	steal(w, va, 0, 1);
	gm_sim_mprotect(w->sim, va, PAGE, GM_READ);
	cr_assert_eq(w->op->msg_read(w->pmap, (struct gm_host_msg[1]){ 0 }, 1), 0, "mprotect raises no event");
	cr_assert_eq(w->op->restore(w->pmap, va, w->slot, PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(load_u64(w, va), 5);
	cr_assert_eq(gm_sim_store(w->sim, va, &value, 8), GM_RET_FAULT);
	w->op->slot_free(w->pmap, w->slot);
}

HOST_TEST(sim_host, bus_access)
{
	struct host_world *w = arg;
	uint64_t va = gm_sim_mmap(w->sim, 4 * PAGE, RW), value = 9;
	gm_ret_t (*access)(void *, uint64_t, void *, size_t, bool) = w->op->bus_access;
	void *dev = gm_sim_host_data(w->sim);
	char text[16] = "across a border";

	cr_assert_eq(access(dev, va, &value, 8, false), GM_RET_SUCCESS, "first touch");
	cr_assert_eq(value, 0);
	value = 9;
	cr_assert_eq(w->op->watch(w->pmap, va + 2 * PAGE, 2 * PAGE), GM_RET_SUCCESS);
	cr_assert_eq(access(dev, va + 2 * PAGE, &value, 8, false), GM_RET_FAULT, "absent and watched: nobody fills it in");
	store_u64(w, va, 1);
	store_u64(w, va + PAGE, 2);
	cr_assert_eq(access(dev, va + PAGE - 8, text, 16, true), GM_RET_SUCCESS);
	memset(text, 0, sizeof(text));
	cr_assert_eq(gm_sim_load(w->sim, va + PAGE - 8, text, 16), GM_RET_SUCCESS);
	cr_assert_str_eq(text, "across a border");
	gm_sim_mprotect(w->sim, va, PAGE, GM_READ);
	cr_assert_eq(access(dev, va, &value, 8, false), GM_RET_SUCCESS);
	cr_assert_eq(value, 1);
	cr_assert_eq(access(dev, va, &value, 8, true), GM_RET_FAULT);
	gm_sim_mprotect(w->sim, va, PAGE, 0);
	cr_assert_eq(access(dev, va, &value, 8, false), GM_RET_FAULT);
	cr_assert_eq(access(dev, va + 4 * PAGE, &value, 8, false), GM_RET_FAULT);
}

HOST_TEST(sim_host, failures_on_demand)
{
	struct host_world *w = arg;
	uint64_t va = map_watched(w, BLOCK), done, out;
	struct gm_mask want = gm_mask_span(0, 1);
	struct gm_host_steal st;

	cr_assert_eq(gm_sim_fail(w->sim, "nonsense", 1, 1), GM_RET_INVAL);
	cr_assert_eq(gm_sim_fail(w->sim, "zero", 2, 2), GM_RET_SUCCESS);
	cr_assert_eq(w->op->zero(w->pmap, va, PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(w->op->zero(w->pmap, va + PAGE, PAGE, &done), GM_RET_AGAIN);
	cr_assert_eq(done, 0);
	cr_assert_eq(w->op->zero(w->pmap, va + PAGE, PAGE, &done), GM_RET_AGAIN);
	cr_assert_eq(w->op->zero(w->pmap, va + PAGE, PAGE, &done), GM_RET_SUCCESS);

	gm_sim_fail(w->sim, "slot_alloc", 1, 1);
	cr_assert_eq(w->op->slot_alloc(w->pmap, &w->slot), GM_RET_NOMEM);
	cr_assert_eq(w->op->slot_alloc(w->pmap, &w->slot), GM_RET_SUCCESS);
	gm_sim_fail(w->sim, "steal", 1, 1);
	cr_assert_eq(w->op->steal(w->pmap, va, &want, w->slot, &st), GM_RET_AGAIN);
	cr_assert(gm_mask_empty(&st.moved));
	steal(w, va, 0, 1);
	gm_sim_fail(w->sim, "restore", 1, 1);
	cr_assert_eq(w->op->restore(w->pmap, va, w->slot, PAGE, &done), GM_RET_AGAIN);
	cr_assert_eq(w->op->restore(w->pmap, va, w->slot, PAGE, &done), GM_RET_SUCCESS);
	gm_sim_fail(w->sim, "fill", 1, 1);
	cr_assert_eq(w->op->fill(w->pmap, va + 4 * PAGE, &st, PAGE, &done), GM_RET_AGAIN);
	gm_sim_fail(w->sim, "watch", 1, 1);
	cr_assert_eq(w->op->watch(w->pmap, va, PAGE), GM_RET_NOMEM);
	gm_sim_fail(w->sim, "mem_map", 1, 1);
	cr_assert_eq(w->op->mem_map(w->pmap, PAGE, false, &out), GM_RET_NOMEM);
	gm_sim_fail(w->sim, "mem_map", 1, 1);
	gm_sim_fail(w->sim, "mem_map", 0, 0);
	cr_assert_eq(w->op->mem_map(w->pmap, PAGE, false, &out), GM_RET_SUCCESS, "disarmed");
	w->op->slot_free(w->pmap, w->slot);
}

/* Steal and restore a block again and again; every AGAIN must tell the truth about what moved. */
static void again_body(void *arg)
{
	struct host_world *w = arg;
	uint64_t va = gm_sim_mmap(w->sim, BLOCK, RW);

	for (unsigned i = 0; i < 16; i++)
		store_u64(w, va + i * PAGE, i);
	w->op->watch(w->pmap, va, BLOCK);
	w->op->slot_alloc(w->pmap, &w->slot);
	for (int round = 0; round < 400; round++) {
		struct gm_mask want = gm_mask_span(0, 16);
		uint64_t at = 0, done, value;

		while (!gm_mask_empty(&want)) {
			struct gm_host_steal out;
			gm_ret_t ret = w->op->steal(w->pmap, va, &want, w->slot, &out);

			cr_assert(ret == GM_RET_SUCCESS || ret == GM_RET_AGAIN);
			w->value += ret == GM_RET_AGAIN && !gm_mask_empty(&out.moved);
			want = gm_mask_sub(want, out.moved);
			for (unsigned i = 0; i < 16; i++)
				cr_assert_eq(peek(w, va + i * PAGE, &value),
					     gm_mask_test(&want, i) ? GM_RET_SUCCESS : GM_RET_FAULT);
		}
		while (at < 16 * PAGE) {
			gm_ret_t ret = w->op->restore(w->pmap, va + at, w->slot + at, 16 * PAGE - at, &done);

			cr_assert(ret == (at + done == 16 * PAGE ? GM_RET_SUCCESS : GM_RET_AGAIN));
			w->bytes += ret == GM_RET_AGAIN && done > 0;
			at += done;
		}
	}
	for (unsigned i = 0; i < 16; i++)
		cr_assert_eq(load_u64(w, va + i * PAGE), i);
	w->op->slot_free(w->pmap, w->slot);
}

Test(sim_host, again_without_a_reason)
{
	struct host_world w;

	host_world_open(&w, 1, true);
	cr_assert(gm_sim_run(w.sim, again_body, &w));
	cr_assert_gt(w.value, 0, "steal stopped half way");
	cr_assert_gt(w.bytes, 0, "restore stopped half way");
	host_world_close(&w);
	host_world_open(&w, 1, false);
	cr_assert(gm_sim_run(w.sim, again_body, &w));
	cr_assert_eq(w.value + w.bytes, 0);
	host_world_close(&w);
}

/* ------------------------------------ a slot page without a frame is found out */

#if defined(__SANITIZE_ADDRESS__)
#define READS_ARE_TRAPPED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define READS_ARE_TRAPPED 1
#endif
#endif
#ifdef READS_ARE_TRAPPED
#include <sanitizer/asan_interface.h>
#endif

/* Would reading this byte be noticed? */
static bool is_garbage(uint64_t addr)
{
#ifdef READS_ARE_TRAPPED
	return __asan_address_is_poisoned((void *)(uintptr_t)addr);
#else
	return *(uint8_t *)(uintptr_t)addr == 0xEE;
#endif
}

HOST_TEST(sim_host, slot_page_without_frame_is_garbage)
{
	struct host_world *w = arg;
	uint64_t va = gm_sim_mmap(w->sim, BLOCK, RW), done;

	store_u64(w, va, 5);
	w->op->watch(w->pmap, va, BLOCK);
	w->op->slot_alloc(w->pmap, &w->slot);
	steal(w, va, 0, 2);
	cr_assert_eq(*(uint8_t *)(uintptr_t)w->slot, 5);
	cr_assert(is_garbage(w->slot + PAGE), "a hole");
	cr_assert(is_garbage(w->slot + 511 * PAGE), "never used");
	cr_assert_eq(w->op->restore(w->pmap, va, w->slot, PAGE, &done), GM_RET_SUCCESS);
	cr_assert(is_garbage(w->slot), "given away");
	steal(w, va, 0, 1);
	cr_assert_not(is_garbage(w->slot));
	w->op->slot_drop(w->pmap, w->slot, PAGE);
	cr_assert(is_garbage(w->slot), "dropped");
	w->op->slot_free(w->pmap, w->slot);
}

/* -------------------------------------------------- bugs that end in abort() */

/* A block with one written page, watched, and a slot. */
static uint64_t prepare(struct host_world *w)
{
	uint64_t va = gm_sim_mmap(w->sim, BLOCK, RW);

	store_u64(w, va, 5);
	w->op->watch(w->pmap, va, BLOCK);
	w->op->slot_alloc(w->pmap, &w->slot);
	return va;
}

HOST_TEST(sim_host, abort_steal_unwatched, .signal = SIGABRT)
{
	struct host_world *w = arg;
	uint64_t va = prepare(w);

	w->op->unwatch(w->pmap, va, PAGE);
	steal(w, va, 0, 1);
}

HOST_TEST(sim_host, abort_steal_into_a_used_slot, .signal = SIGABRT)
{
	struct host_world *w = arg;
	uint64_t va = prepare(w), done;

	steal(w, va, 0, 1);
	w->op->zero(w->pmap, va, PAGE, &done);
	steal(w, va, 0, 1);
}

HOST_TEST(sim_host, abort_restore_of_a_hole, .signal = SIGABRT)
{
	struct host_world *w = arg;
	uint64_t va = prepare(w), done;

	steal(w, va, 0, 2);
	w->op->restore(w->pmap, va, w->slot, 2 * PAGE, &done);
}

HOST_TEST(sim_host, abort_restore_of_what_was_dropped, .signal = SIGABRT)
{
	struct host_world *w = arg;
	uint64_t va = prepare(w), done;

	steal(w, va, 0, 1);
	w->op->slot_drop(w->pmap, w->slot, PAGE);
	w->op->restore(w->pmap, va, w->slot, PAGE, &done);
}

HOST_TEST(sim_host, abort_restore_from_no_slot, .signal = SIGABRT)
{
	struct host_world *w = arg;
	uint64_t va = prepare(w), done;
	static char page[GM_PAGE_BYTES];

	w->op->restore(w->pmap, va + PAGE, GM_VA(page), PAGE, &done);
}

HOST_TEST(sim_host, abort_fill_from_a_hole, .signal = SIGABRT)
{
	struct host_world *w = arg;
	uint64_t va = prepare(w), done;

	w->op->fill(w->pmap, va + PAGE, (void *)(uintptr_t)w->slot, PAGE, &done);
}

HOST_TEST(sim_host, abort_unmap_while_watched, .signal = SIGABRT)
{
	struct host_world *w = arg;
	uint64_t va;

	w->op->mem_map(w->pmap, BLOCK, false, &va);
	w->op->watch(w->pmap, va, PAGE);
	w->op->mem_unmap(w->pmap, va, BLOCK);
}

HOST_TEST(sim_host, abort_slots_left_behind, .signal = SIGABRT)
{
	struct host_world *w = arg;

	prepare(w);
	gm_sim_host_mmu()->pmap_destroy(w->pmap);
}

HOST_TEST(sim_host, abort_host_closed_in_use, .signal = SIGABRT)
{
	struct host_world *w = arg;

	gm_sim_host_mmu()->dev_fini(w->dev);
}
