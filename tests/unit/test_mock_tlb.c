/* SPDX-License-Identifier: MIT */
/*
 * The mock's translation: rights, pages in different frames, TLBs that stay
 * stale until they are invalidated, invalidation that waits for accesses in
 * flight, and what is atomic.
 */
#include "config.h"

#include "mock_fixture.h"

#define VA UINT64_C(0x40000000)

static gm_ret_t dev_read(struct mock_fixture *fx, uint64_t va, void *buf, size_t bytes)
{
	return fx->mmu->access(fx->pmap, va, buf, bytes, false);
}

static gm_ret_t dev_write(struct mock_fixture *fx, uint64_t va, const void *buf, size_t bytes)
{
	return fx->mmu->access(fx->pmap, va, (void *)(uintptr_t)buf, bytes, true);
}

/* A piece of VA whose pages lie in scattered frames, read and written over their borders. */
Test(mock_tlb, scattered_frames)
{
	char out[5 * GM_PAGE_BYTES], in[sizeof(out)];
	struct mock_fixture fx;
	uint64_t seed = 5;

	fx_open(&fx, "vram=1M");
	for (unsigned i = 0; i < 6; i++)
		fx_enter(&fx, VA + i * PAGE, PA + (i * 7 + 1) * PAGE, PAGE, GM_PTE_WRITE);
	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (char)fx_random(&seed);
	cr_assert_eq(dev_write(&fx, VA + 123, out, sizeof(out)), GM_RET_SUCCESS);
	cr_assert_eq(dev_read(&fx, VA + 123, in, sizeof(in)), GM_RET_SUCCESS);
	cr_assert_arr_eq(in, out, sizeof(out));
	for (unsigned i = 0; i < 5; i++) {
		const char *frame = fx.mmu->cpu_ptr(fx.m, PA + (i * 7 + 1) * PAGE, PAGE);
		size_t skip = i ? 0 : 123, from = i ? i * PAGE - 123 : 0;

		cr_assert_arr_eq(frame + skip, out + from, PAGE - skip);
	}
	cr_assert_eq(dev_read(&fx, VA + 5 * PAGE + 4000, in, 97), GM_RET_FAULT);
	fx_close(&fx);
}

Test(mock_tlb, rights)
{
	uint64_t word = 7, limit = UINT64_C(1) << 48;
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	cr_assert_eq(dev_read(&fx, VA, &word, 8), GM_RET_FAULT);
	cr_assert_eq(dev_read(&fx, limit, &word, 8), GM_RET_FAULT);
	cr_assert_eq(dev_read(&fx, limit - 4, &word, 8), GM_RET_FAULT);
	fx_enter(&fx, VA, PA, PAGE, 0);
	cr_assert_eq(dev_read(&fx, VA, &word, 8), GM_RET_SUCCESS);
	word = 7;
	cr_assert_eq(dev_write(&fx, VA, &word, 8), GM_RET_PERM);
	cr_assert_eq(*fx_word(&fx, PA), 0);
	/* Growing rights needs no invalidation. */
	fx_enter(&fx, VA, PA, PAGE, GM_PTE_WRITE);
	cr_assert_eq(dev_write(&fx, VA, &word, 8), GM_RET_SUCCESS);
	cr_assert_eq(*fx_word(&fx, PA), 7);
	/* Shrinking does: the TLB still has the right, and loses it then. */
	cr_assert_eq(fx.mmu->pmap_protect(fx.pmap, VA, PAGE, 0), GM_RET_SUCCESS);
	word = 8;
	cr_assert_eq(dev_write(&fx, VA, &word, 8), GM_RET_SUCCESS);
	fx_invl(&fx, VA, PAGE);
	word = 9;
	cr_assert_eq(dev_write(&fx, VA, &word, 8), GM_RET_PERM);
	cr_assert_eq(*fx_word(&fx, PA), 8);
	cr_assert_eq(fx.mmu->pmap_protect(fx.pmap, VA, PAGE, GM_PTE_ATOMIC), GM_RET_SUCCESS);
	cr_assert_eq(dev_write(&fx, VA, &word, 8), GM_RET_SUCCESS);
	fx_close(&fx);
}

/* Only what overlaps is dropped, whatever the size of the page; one entry is enough of a TLB. */
Test(mock_tlb, invalidates_what_overlaps)
{
	struct mock_fixture fx;
	uint64_t word;

	fx_open(&fx, "vram=8M,tlb=64");
	*fx_word(&fx, PA) = 1;
	*fx_word(&fx, PA + 2 * MIB) = 2;
	*fx_word(&fx, PA + 4 * MIB) = 3;
	fx_enter(&fx, VA, PA, 2 * MIB, 0);
	fx_enter(&fx, VA + 2 * MIB, PA + 4 * MIB, 65536, 0);
	cr_assert_eq(dev_read(&fx, VA, &word, 8), GM_RET_SUCCESS);
	cr_assert_eq(dev_read(&fx, VA + 2 * MIB, &word, 8), GM_RET_SUCCESS);
	fx_remove(&fx, VA, 4 * MIB);
	fx_enter(&fx, VA, PA + 2 * MIB, PAGE, 0);
	cr_assert_eq(dev_read(&fx, VA, &word, 8), GM_RET_SUCCESS);
	cr_assert_eq(word, 1, "the old translation lives on");
	/* One page in the middle of the large one. */
	fx_invl(&fx, VA + MIB, PAGE);
	cr_assert_eq(dev_read(&fx, VA, &word, 8), GM_RET_SUCCESS);
	cr_assert_eq(word, 2);
	cr_assert_eq(dev_read(&fx, VA + 2 * MIB, &word, 8), GM_RET_SUCCESS);
	cr_assert_eq(word, 3, "not in the range, still there");
	fx_invl(&fx, VA + 2 * MIB + 15 * PAGE, PAGE);
	cr_assert_eq(dev_read(&fx, VA + 2 * MIB, &word, 8), GM_RET_FAULT);
	fx_close(&fx);
}

struct watcher {
	_Atomic uint64_t seen;
	_Atomic long loads;
	atomic_bool stop;
};

static gm_ret_t watch_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	struct watcher *w = arg;
	gm_ret_t ret = GM_RET_SUCCESS;
	uint64_t word;

	(void)index;
	while (!atomic_load(&w->stop) && ret == GM_RET_SUCCESS) {
		ret = gm_mock_load(thread, VA, &word, 8);
		atomic_store(&w->seen, word);
		atomic_fetch_add(&w->loads, 1);
		gm_mock_yield(thread);
	}
	return ret;
}

/* A running kernel goes on reading the old frame until it is told. */
Test(mock_tlb, stale_in_a_kernel)
{
	struct watcher w = { .seen = 0 };
	struct mock_fixture fx;
	struct gm_fence *fence;

	fx_open(&fx, "vram=1M,faults=no");
	*fx_word(&fx, PA) = 1;
	*fx_word(&fx, PA + PAGE) = 2;
	fx_enter(&fx, VA, PA, PAGE, 0);
	fence = fx_launch(&fx, watch_kernel, &w, 1);
	cr_assert(fx_reaches(&w.loads, 10));
	cr_assert_eq(atomic_load(&w.seen), 1);
	fx_remove(&fx, VA, PAGE);
	fx_enter(&fx, VA, PA + PAGE, PAGE, 0);
	cr_assert(fx_reaches(&w.loads, atomic_load(&w.loads) + 100));
	cr_assert_eq(atomic_load(&w.seen), 1, "a TLB must not look at the page table");
	fx_invl(&fx, VA, PAGE);
	cr_assert(fx_reaches(&w.loads, atomic_load(&w.loads) + 2));
	cr_assert_eq(atomic_load(&w.seen), 2);
	atomic_store(&w.stop, true);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_SUCCESS);
	fx_close(&fx);
}

struct bus {
	_Atomic long entered, left;
	atomic_bool go;
};

static gm_ret_t slow_bus(void *arg, uint64_t va, size_t bytes, bool write)
{
	struct bus *bus = arg;

	(void)va;
	(void)bytes;
	(void)write;
	atomic_fetch_add(&bus->entered, 1);
	while (!atomic_load(&bus->go))
		mock_sleep_ms(1);
	atomic_fetch_add(&bus->left, 1);
	return GM_RET_SUCCESS;
}

static gm_ret_t load_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	uint64_t word;

	(void)arg;
	return gm_mock_load(thread, VA + index * PAGE, &word, 8);
}

struct invalidator {
	struct mock_fixture *fx;
	struct bus *bus;
	_Atomic long done, left_before;
};

static void *invalidate_main(void *arg)
{
	struct invalidator *inv = arg;

	fx_remove(inv->fx, VA, PAGE);
	fx_invl(inv->fx, VA, PAGE);
	atomic_store(&inv->left_before, atomic_load(&inv->bus->left));
	atomic_store(&inv->done, 1);
	return NULL;
}

/* An access that is on the bus holds the invalidation up. */
Test(mock_tlb, invalidation_drains)
{
	struct bus bus = { .entered = 0 };
	struct mock_fixture fx;
	struct invalidator inv = { .fx = &fx, .bus = &bus };
	struct gm_fence *fence;
	pthread_t other;
	uint64_t host;

	fx_open(&fx, "vram=1M,faults=no");
	host = fx_host(&fx, PAGE);
	fx.s.host_hook = slow_bus;
	fx.s.host_hook_arg = &bus;
	fx_enter(&fx, VA, host, PAGE, GM_PTE_HOST);
	fence = fx_launch(&fx, load_kernel, NULL, 1);
	cr_assert(fx_reaches(&bus.entered, 1));
	cr_assert_eq(pthread_create(&other, NULL, invalidate_main, &inv), 0);
	mock_sleep_ms(50);
	cr_assert_eq(atomic_load(&inv.done), 0, "returned with an access in flight");
	atomic_store(&bus.go, true);
	cr_assert(fx_reaches(&inv.done, 1));
	cr_assert_eq(atomic_load(&inv.left_before), 1);
	pthread_join(other, NULL);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_SUCCESS);
	fx_close(&fx);
}

Test(mock_tlb, host_memory)
{
	struct mock_fixture fx;
	uint64_t host, word = 0x1122334455667788, back = 0;

	fx_open(&fx, "vram=1M");
	host = fx_host(&fx, 4 * PAGE);
	fx_enter(&fx, VA, host + PAGE, 2 * PAGE, GM_PTE_HOST | GM_PTE_WRITE);
	cr_assert_eq(dev_write(&fx, VA + PAGE - 4, &word, 8), GM_RET_SUCCESS);
	cr_assert_arr_eq(fx.s.host + 2 * PAGE - 4, &word, 8);
	cr_assert_eq(dev_read(&fx, VA + PAGE - 4, &back, 8), GM_RET_SUCCESS);
	cr_assert_eq(back, word);
	/* The mapping is there, its memory is not. */
	fx.s.host_bytes = PAGE;
	cr_assert_eq(dev_read(&fx, VA, &back, 8), GM_RET_FAULT);
	fx_close(&fx);
}

#define ROUNDS 20000u

/* Four neighbouring 16-bit counters in one word, a shared counter, and words that must never be torn. */
static gm_ret_t atomic_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	uint64_t pattern, seen;
	uint16_t lane;
	gm_ret_t ret = GM_RET_SUCCESS;

	(void)arg;
	for (unsigned i = 0; i < ROUNDS && ret == GM_RET_SUCCESS; i++) {
		ret = gm_mock_load(thread, VA + UINT64_C(2) * index, &lane, 2);
		lane++;
		if (ret == GM_RET_SUCCESS)
			ret = gm_mock_store(thread, VA + UINT64_C(2) * index, &lane, 2);
		if (ret == GM_RET_SUCCESS)
			ret = gm_mock_fetch_add(thread, VA + 64, 3, NULL);
		pattern = (i + index) % 2 ? UINT64_MAX : 0;
		if (ret == GM_RET_SUCCESS)
			ret = gm_mock_store(thread, VA + 128, &pattern, 8);
		if (ret == GM_RET_SUCCESS)
			ret = gm_mock_load(thread, VA + 128, &seen, 8);
		if (ret == GM_RET_SUCCESS && seen != 0 && seen != UINT64_MAX)
			return GM_RET_IO;
	}
	return ret;
}

Test(mock_tlb, single_copy_atomic)
{
	struct mock_fixture fx;
	uint16_t lanes[4];

	fx_open(&fx, "vram=1M");
	fx_enter(&fx, VA, PA, PAGE, GM_PTE_WRITE);
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, atomic_kernel, NULL, 4)), GM_RET_SUCCESS);
	fx_invl(&fx, VA, PAGE);
	memcpy(lanes, fx_word(&fx, PA), sizeof(lanes));
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(lanes[i], ROUNDS, "lane %u lost a neighbour's store", i);
	cr_assert_eq(*fx_word(&fx, PA + 64), UINT64_C(4) * 3 * ROUNDS);
	fx_close(&fx);
}

static gm_ret_t add_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	uint64_t *va_old = arg;

	(void)index;
	return gm_mock_fetch_add(thread, va_old[0], 5, &va_old[1]);
}

Test(mock_tlb, fetch_add)
{
	uint64_t va_old[2] = { VA, 99 }, host;
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M,faults=no");
	host = fx_host(&fx, PAGE);
	*fx_word(&fx, PA) = 37;
	fx_enter(&fx, VA, PA, PAGE, 0);
	fx_enter(&fx, VA + PAGE, host, PAGE, GM_PTE_HOST | GM_PTE_WRITE);
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, add_kernel, va_old, 1)), GM_RET_PERM);
	fx_enter(&fx, VA, PA, PAGE, GM_PTE_WRITE);
	cr_assert_eq(va_old[1], 99);
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, add_kernel, va_old, 1)), GM_RET_SUCCESS);
	cr_assert_eq(va_old[1], 37);
	cr_assert_eq(*fx_word(&fx, PA), 42);
	va_old[0] = VA + 4;
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, add_kernel, va_old, 1)), GM_RET_INVAL);
	va_old[0] = VA + PAGE;
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, add_kernel, va_old, 1)), GM_RET_NOTSUP);
	va_old[0] = VA + 2 * PAGE;
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, add_kernel, va_old, 1)), GM_RET_FAULT);
	fx_close(&fx);
}

static gm_ret_t swap_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	uint64_t *va_old = arg;

	(void)index;
	return gm_mock_compare_swap(thread, va_old[0], va_old[2], va_old[3], &va_old[1]);
}

Test(mock_tlb, compare_swap)
{
	uint64_t va_old[4] = { VA, 99, 37, 40 }, host;
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M,faults=no");
	host = fx_host(&fx, PAGE);
	*fx_word(&fx, PA) = 37;
	fx_enter(&fx, VA, PA, PAGE, 0);
	fx_enter(&fx, VA + PAGE, host, PAGE, GM_PTE_HOST | GM_PTE_WRITE);
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, swap_kernel, va_old, 1)), GM_RET_PERM);
	fx_enter(&fx, VA, PA, PAGE, GM_PTE_WRITE);
	cr_assert_eq(va_old[1], 99);
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, swap_kernel, va_old, 1)), GM_RET_SUCCESS);
	cr_assert_eq(va_old[1], 37);
	cr_assert_eq(*fx_word(&fx, PA), 40);
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, swap_kernel, va_old, 1)), GM_RET_SUCCESS);
	cr_assert_eq(va_old[1], 40, "not as expected");
	cr_assert_eq(*fx_word(&fx, PA), 40);
	va_old[0] = VA + 4;
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, swap_kernel, va_old, 1)), GM_RET_INVAL);
	va_old[0] = VA + PAGE;
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, swap_kernel, va_old, 1)), GM_RET_NOTSUP);
	fx_close(&fx);
}

/* Counted: accesses of running and of ended threads; misses only where the TLB has nothing. */
Test(mock_tlb, counters)
{
	struct gm_mock_stats stats;
	struct mock_fixture fx;
	char buf[2 * GM_PAGE_BYTES];

	fx_open(&fx, "vram=1M,faults=no");
	fx_enter(&fx, VA, PA, 4 * PAGE, 0);
	for (unsigned i = 0; i < 10; i++)
		cr_assert_eq(dev_read(&fx, VA + 8, buf, sizeof(buf)), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, load_kernel, NULL, 4)), GM_RET_SUCCESS);
	gm_mock_dev_stats(fx.m, &stats);
	cr_assert_eq(stats.accesses, 10 * 3 + 4);
	cr_assert_eq(stats.tlb_misses, 3 + 4);
	cr_assert_eq(stats.invalidations, 0);
	fx_invl(&fx, VA, PAGE);
	gm_mock_dev_stats(fx.m, &stats);
	cr_assert_eq(stats.invalidations, 1);
	fx_close(&fx);
}
