/* SPDX-License-Identifier: MIT */
/* Probes for planted errors of devices as a whole: page tables beside each other, two devices, what is lost. */
#include "config.h"

#include <unistd.h>

#include "mock_bug.h"

static bool access_straight(struct mock_fixture *fx)
{
	uint64_t word = 0;

	memset(fx_word(fx, PA), 1, 4 * PAGE);
	memset(fx_word(fx, PA + 3 * PAGE), 3, PAGE);
	fx_enter(fx, VA, PA, PAGE, 0);
	fx_enter(fx, VA + PAGE, PA + 3 * PAGE, PAGE, 0);
	cr_assert_eq(fx->mmu->access(fx->pmap, VA + PAGE - 4, &word, 8, false), GM_RET_SUCCESS);
	cr_assert_eq((uint32_t)word, 0x01010101u);
	return word >> 32 == 0x01010101u;
}

static bool enter_top(struct mock_fixture *fx)
{
	uint64_t top = UINT64_C(1) << fx->caps.va_bits;

	fx_enter(fx, top - 2 * PAGE, PA, 2 * PAGE, 0);
	cr_assert(bug_mapped(fx, top - 2 * PAGE));
	return !bug_mapped(fx, top - PAGE);
}

/* A second page table, beside that of the fixture. */
static bool enter_all(struct mock_fixture *fx)
{
	void *pmap = NULL;
	uint64_t word;
	bool shows;

	cr_assert_eq(fx->mmu->pmap_create(fx->m, &pmap), GM_RET_SUCCESS);
	fx_enter(fx, VA, PA, PAGE, 0);
	shows = fx->mmu->access(pmap, VA, &word, 8, false) == GM_RET_SUCCESS;
	cr_assert_eq(fx->mmu->pmap_remove(pmap, VA, PAGE), GM_RET_SUCCESS);
	fx->mmu->pmap_destroy(pmap);
	return shows;
}

static bool destroy_other(struct mock_fixture *fx)
{
	void *pmap = NULL;

	cr_assert_eq(fx->mmu->pmap_create(fx->m, &pmap), GM_RET_SUCCESS);
	fx_enter(fx, VA, PA, PAGE, 0);
	cr_assert(bug_mapped(fx, VA));
	fx->mmu->pmap_destroy(pmap);
	return !bug_mapped(fx, VA);
}

static bool create_half(struct mock_fixture *fx)
{
	gm_ret_t ret;
	void *pmap = NULL;

	atomic_store(&fx->s.fail_alloc, 1);
	cr_assert_eq(fx->mmu->pmap_create(fx->m, &pmap), GM_RET_NOMEM);
	ret = fx->mmu->pmap_create(fx->m, &pmap); /* two of two */
	if (ret == GM_RET_SUCCESS)
		fx->mmu->pmap_destroy(pmap);
	else
		fx->m->n_pmaps--;
	return ret == GM_RET_NOSPC;
}

/* The second of four pages is in a large page with the first: a split needs memory. */
static bool protect_half(struct mock_fixture *fx)
{
	uint64_t begin = UINT64_C(4) << 20;

	fx_enter(fx, begin, PA, UINT64_C(2) << 20, 0);
	atomic_store(&fx->s.fail_alloc, 1);
	cr_assert_eq(fx->mmu->pmap_protect(fx->pmap, begin + PAGE, 4 * PAGE, GM_PTE_WRITE), GM_RET_NOMEM);
	fx_invl(fx, begin, UINT64_C(2) << 20);
	cr_assert_not(bug_writable(fx, begin + 4 * PAGE));
	return bug_writable(fx, begin + PAGE);
}

/* A copy from a second device, of the same kind and with the same error. */
static bool two_devices(struct mock_fixture *fx, bool peer)
{
	struct gm_copy copy = { .kind = GM_COPY_FROM_PEER, .pa = PA + PAGE, .host = PA + PAGE, .bytes = PAGE };
	struct mock_fixture other;
	uint64_t own, its;

	fx_open(&other, "vram=2M,peer=1");
	cr_assert_eq(gm_mock_dev_plant(other.m, (enum gm_mock_bug)atomic_load(&fx->m->bug)), GM_RET_SUCCESS);
	*fx_word(fx, PA + PAGE) = 1;
	*fx_word(&other, PA + PAGE) = 2;
	own = *fx_word(fx, PA + PAGE);
	if (peer) {
		struct gm_fence *fence = mock_svc_fence_create(&fx->s);

		copy.peer = other.m;
		cr_assert_eq(fx->mmu->copy(fx->m, &copy, 1, fence), GM_RET_SUCCESS);
		cr_assert_eq(fx_finish(fx, fence), GM_RET_SUCCESS);
	}
	its = *fx_word(fx, PA + PAGE);
	fx_close(&other);
	return peer ? its == 1 : own == 2;
}

static bool devices_share(struct mock_fixture *fx)
{
	return two_devices(fx, false);
}

static bool peer_wrong(struct mock_fixture *fx)
{
	return two_devices(fx, true);
}

static bool harvest_clears(struct mock_fixture *fx)
{
	uint64_t word = 5;
	uint8_t bits = 0;
	gm_ret_t ret;

	fx_enter(fx, VA, PA, PAGE, GM_PTE_WRITE);
	cr_assert_eq(fx->mmu->access(fx->pmap, VA, &word, 8, true), GM_RET_SUCCESS);
	atomic_store(&fx->s.fail_alloc, 1);
	ret = fx->mmu->pmap_harvest(fx->pmap, VA, PAGE, &bits);
	atomic_store(&fx->s.fail_alloc, 0);
	if (ret == GM_RET_SUCCESS)
		return false;
	cr_assert_eq(fx->mmu->pmap_harvest(fx->pmap, VA, PAGE, &bits), GM_RET_SUCCESS);
	return bits == 0;
}

static bool sync_writes(struct mock_fixture *fx)
{
	void *sync = NULL;
	int fd = -1;

	atomic_store(&fx->s.fail_alloc, 1);
	cr_assert_eq(fx->mmu->sync_create(fx->m, &sync, &fd), GM_RET_NOMEM);
	return sync != NULL;
}

static bool needs_memory(struct mock_fixture *fx)
{
	unsigned failed = 0;
	uint64_t word;

	fx_enter(fx, VA, PA, PAGE, 0);
	for (unsigned i = 0; i < 4; i++) {
		atomic_store(&fx->s.fail_alloc, 1);
		failed += (i == 0 && fx->mmu->tlb_invl(fx->pmap, VA, PAGE)) ||
			  (i == 1 && fx->mmu->access(fx->pmap, VA, &word, 8, false)) ||
			  (i == 2 && fx->mmu->fault_done(fx->pmap, VA, PAGE, GM_RET_SUCCESS)) ||
			  (i == 3 && atomic_load(&fx->s.fail_alloc) && fx->mmu->peer_reach(fx->m, fx->m) &&
			   !atomic_load(&fx->s.fail_alloc));
		atomic_store(&fx->s.fail_alloc, 0);
	}
	cr_assert(failed == 0 || failed == 4);
	return failed == 4;
}

/* --- lost devices: these do not come back, so each has one of its own ------------------- */

static void lost_open(struct mock_fixture *fx, enum gm_mock_bug bug, const char *options)
{
	fx_open(fx, options);
	cr_assert_eq(gm_mock_dev_plant(fx->m, bug), GM_RET_SUCCESS);
}

/* The fence outlives the device: it may be signalled late. */
static void lost_close(struct mock_fixture *fx, struct gm_fence *fence)
{
	fx->mmu->pmap_destroy(fx->pmap);
	fx->mmu->dev_fini(fx->m);
	if (fence)
		mock_svc_fence_put(&fx->s, fence);
	cr_assert_eq(atomic_load(&fx->s.live_bytes), 0);
	cr_assert_eq(atomic_load(&fx->s.live_threads), 0);
}

static bool lost_alive(enum gm_mock_bug bug)
{
	struct mock_fixture fx;
	void *pmap = NULL;
	gm_ret_t ret;

	lost_open(&fx, bug, "vram=1M");
	gm_mock_dev_lose(fx.m);
	ret = fx.mmu->pmap_create(fx.m, &pmap);
	if (ret == GM_RET_SUCCESS)
		fx.mmu->pmap_destroy(pmap);
	else
		cr_assert_eq(ret, GM_RET_NODEV);
	lost_close(&fx, NULL);
	return ret == GM_RET_SUCCESS;
}

/* A copy home is under way when the device is lost, or given up. Its result at once; whether it came after all. */
static gm_ret_t lose_copying(enum gm_mock_bug bug, bool halt, bool *late)
{
	uint64_t *host = aligned_alloc(GM_PAGE_BYTES, PAGE);
	struct gm_copy copy = { .kind = GM_COPY_TO_HOST, .pa = PA, .host = (uint64_t)(uintptr_t)host, .bytes = PAGE };
	struct mock_fixture fx;
	struct gm_fence *fence;
	gm_ret_t ret;

	cr_assert_not_null(host);
	memset(host, 7, PAGE);
	lost_open(&fx, bug, "vram=1M,copy=async,copyns=20000000");
	fence = mock_svc_fence_create(&fx.s);
	cr_assert_eq(fx.mmu->copy(fx.m, &copy, 1, fence), GM_RET_SUCCESS);
	if (halt)
		fx.mmu->dev_halt(fx.m);
	else
		gm_mock_dev_lose(fx.m);
	ret = mock_fence_wait(fence, halt ? 0 : 200);
	if (ret == GM_RET_TIMEDOUT && halt) /* it is not done with the fence */
		(void)mock_fence_wait(fence, LONG_MS);
	lost_close(&fx, fence);
	*late = host[0] == 0;
	free(host);
	return ret;
}

static bool lost_fence(enum gm_mock_bug bug)
{
	bool late;

	return lose_copying(bug, false, &late) == GM_RET_TIMEDOUT;
}

static bool halt_ignored(enum gm_mock_bug bug)
{
	bool late;

	return lose_copying(bug, true, &late) == GM_RET_TIMEDOUT;
}

static bool halt_late(enum gm_mock_bug bug)
{
	bool late;

	cr_assert_eq(lose_copying(bug, true, &late), GM_RET_NODEV);
	return late;
}

static gm_ret_t load_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	uint64_t word;

	(void)index;
	*(gm_ret_t *)arg = gm_mock_load(thread, VA, &word, 8);
	return GM_RET_SUCCESS;
}

/* A job waits for its fault while the device is lost, or its page table destroyed: whether it goes on, and with what. */
static bool end_waiting(enum gm_mock_bug bug, bool lose, gm_ret_t *ret)
{
	struct mock_fixture fx;
	struct gm_fence *fence;
	bool waits = false;

	lost_open(&fx, bug, "vram=1M");
	fence = fx_launch(&fx, load_kernel, ret, 1);
	cr_assert(fx_reaches(&fx.s.faults_ready, 1));
	if (lose) {
		gm_mock_dev_lose(fx.m);
		waits = mock_fence_wait(fence, 200) == GM_RET_TIMEDOUT;
	}
	lost_close(&fx, fence);
	return waits;
}

static bool lost_waits(enum gm_mock_bug bug)
{
	gm_ret_t ret;

	return end_waiting(bug, true, &ret);
}

static bool destroy_result(enum gm_mock_bug bug)
{
	gm_ret_t ret;

	(void)end_waiting(bug, false, &ret);
	cr_assert(ret == GM_RET_CANCELED || ret == GM_RET_FAULT);
	return ret == GM_RET_FAULT;
}

const struct bug_case bug_cases_dev[] = {
	{ GM_MOCK_BUG_ACCESS_STRAIGHT, "vram=1M", access_straight },
	{ GM_MOCK_BUG_ENTER_TOP, "vram=1M", enter_top },
	{ GM_MOCK_BUG_ENTER_ALL, "vram=1M", enter_all },
	{ GM_MOCK_BUG_DESTROY_OTHER, "vram=1M", destroy_other },
	{ GM_MOCK_BUG_CREATE_HALF, "vram=1M,contexts=2", create_half },
	{ GM_MOCK_BUG_PROTECT_HALF, "vram=4M", protect_half },
	{ GM_MOCK_BUG_DEVICES_SHARE, "vram=2M,peer=1", devices_share },
	{ GM_MOCK_BUG_PEER_WRONG, "vram=2M,peer=1", peer_wrong },
	{ GM_MOCK_BUG_HARVEST_CLEARS, "vram=1M,dirty=yes", harvest_clears },
	{ GM_MOCK_BUG_SYNC_WRITES, "vram=1M", sync_writes },
	{ GM_MOCK_BUG_NEEDS_MEMORY, "vram=1M", needs_memory },
	{ .bug = GM_MOCK_BUG_NONE },
};

const struct lost_case lost_cases[] = {
	{ GM_MOCK_BUG_LOST_ALIVE, lost_alive },
	{ GM_MOCK_BUG_LOST_FENCE, lost_fence },
	{ GM_MOCK_BUG_LOST_WAITS, lost_waits },
	{ GM_MOCK_BUG_HALT_IGNORED, halt_ignored },
	{ GM_MOCK_BUG_HALT_LATE, halt_late },
	{ GM_MOCK_BUG_DESTROY_RESULT, destroy_result },
	{ .bug = GM_MOCK_BUG_NONE },
};
