/* SPDX-License-Identifier: MIT */
/* Probes for planted errors of page tables and TLBs. */
#include "config.h"

#include "mock_bug.h"

static bool enter_short(struct mock_fixture *fx)
{
	fx_enter(fx, VA, PA, 4 * PAGE, 0);
	cr_assert(bug_mapped(fx, VA) && bug_mapped(fx, VA + 2 * PAGE));
	return !bug_mapped(fx, VA + 3 * PAGE);
}

static bool enter_half(struct mock_fixture *fx)
{
	cr_assert_eq(gm_mock_dev_fail(fx->m, GM_MOCK_PMAP_ENTER, 1, 1), GM_RET_SUCCESS);
	cr_assert_eq(fx->mmu->pmap_enter(fx->pmap, VA, PA, 4 * PAGE, 0), GM_RET_NOMEM);
	cr_assert_not(bug_mapped(fx, VA + 2 * PAGE));
	return bug_mapped(fx, VA);
}

/* The same where a table could not be allocated. */
static bool enter_half_alloc(struct mock_fixture *fx)
{
	atomic_store(&fx->s.fail_alloc, 1);
	cr_assert_eq(fx->mmu->pmap_enter(fx->pmap, VA, PA, 4 * PAGE, 0), GM_RET_NOMEM);
	return bug_mapped(fx, VA);
}

static bool enter_writable(struct mock_fixture *fx)
{
	fx_enter(fx, VA, PA, PAGE, 0);
	return bug_writable(fx, VA);
}

static bool enter_no_grow(struct mock_fixture *fx)
{
	fx_enter(fx, VA, PA, PAGE, 0);
	cr_assert_not(bug_writable(fx, VA));
	fx_enter(fx, VA, PA, PAGE, GM_PTE_WRITE);
	fx_invl(fx, VA, PAGE);
	return !bug_writable(fx, VA);
}

static bool enter_exist(struct mock_fixture *fx)
{
	fx_enter(fx, VA, PA, PAGE, 0);
	return fx->mmu->pmap_enter(fx->pmap, VA, PA, PAGE, 0) == GM_RET_EXIST;
}

static bool enter_again(struct mock_fixture *fx)
{
	gm_ret_t ret;

	atomic_store(&fx->s.fail_alloc, 1);
	ret = fx->mmu->pmap_enter(fx->pmap, VA, PA, PAGE, 0);
	cr_assert(ret == GM_RET_NOMEM || ret == GM_RET_AGAIN);
	return ret == GM_RET_AGAIN;
}

static bool remove_large(struct mock_fixture *fx)
{
	fx_enter(fx, VA, PA, GM_BLOCK_BYTES, 0);
	fx_remove(fx, VA + 5 * PAGE, PAGE);
	fx_invl(fx, VA + 5 * PAGE, PAGE);
	cr_assert_not(bug_mapped(fx, VA + 5 * PAGE));
	return !bug_mapped(fx, VA) && !bug_mapped(fx, VA + GM_BLOCK_BYTES - PAGE);
}

static bool remove_neighbour(struct mock_fixture *fx)
{
	fx_enter(fx, VA, PA, 4 * PAGE, 0);
	fx_remove(fx, VA + PAGE, PAGE);
	fx_invl(fx, VA + PAGE, PAGE);
	cr_assert(bug_mapped(fx, VA) && !bug_mapped(fx, VA + PAGE) && bug_mapped(fx, VA + 3 * PAGE));
	return !bug_mapped(fx, VA + 2 * PAGE);
}

static bool remove_half(struct mock_fixture *fx)
{
	fx_enter(fx, VA, PA, 4 * PAGE, 0);
	cr_assert_eq(gm_mock_dev_fail(fx->m, GM_MOCK_PMAP_REMOVE, 1, 1), GM_RET_SUCCESS);
	cr_assert_eq(fx->mmu->pmap_remove(fx->pmap, VA, 4 * PAGE), GM_RET_NOMEM);
	fx_invl(fx, VA, 4 * PAGE);
	cr_assert(bug_mapped(fx, VA + 2 * PAGE));
	return !bug_mapped(fx, VA);
}

static bool remove_noent(struct mock_fixture *fx)
{
	gm_ret_t ret;

	fx_enter(fx, VA + PAGE, PA, PAGE, 0);
	ret = fx->mmu->pmap_remove(fx->pmap, VA, 2 * PAGE);
	cr_assert(ret == GM_RET_SUCCESS || ret == GM_RET_NOENT);
	return ret == GM_RET_NOENT;
}

static bool split_rights(struct mock_fixture *fx)
{
	fx_enter(fx, VA, PA, GM_BLOCK_BYTES, 0);
	fx_remove(fx, VA + 5 * PAGE, PAGE);
	fx_invl(fx, VA, GM_BLOCK_BYTES);
	cr_assert(bug_mapped(fx, VA) && bug_mapped(fx, VA + 6 * PAGE));
	cr_assert_eq(bug_writable(fx, VA), bug_writable(fx, VA + 6 * PAGE));
	return bug_writable(fx, VA);
}

static bool split_rights_protect(struct mock_fixture *fx)
{
	fx_enter(fx, VA, PA, GM_BLOCK_BYTES, GM_PTE_WRITE);
	cr_assert_eq(fx->mmu->pmap_protect(fx->pmap, VA, PAGE, 0), GM_RET_SUCCESS);
	fx_invl(fx, VA, GM_BLOCK_BYTES);
	cr_assert_not(bug_writable(fx, VA));
	return !bug_writable(fx, VA + PAGE);
}

/* Four pages with different words, a hole, then write taken from all five. */
static void protect_five(struct mock_fixture *fx)
{
	for (unsigned i = 0; i < 4; i++)
		*fx_word(fx, PA + i * PAGE) = i + 1;
	fx_enter(fx, VA, PA, 4 * PAGE, GM_PTE_WRITE);
	cr_assert_eq(fx->mmu->pmap_protect(fx->pmap, VA, 5 * PAGE, 0), GM_RET_SUCCESS);
	fx_invl(fx, VA, 5 * PAGE);
	cr_assert_not(bug_writable(fx, VA));
}

static bool protect_first(struct mock_fixture *fx)
{
	protect_five(fx);
	return bug_writable(fx, VA + PAGE) && bug_writable(fx, VA + 3 * PAGE);
}

static bool protect_moves(struct mock_fixture *fx)
{
	uint64_t word;

	protect_five(fx);
	cr_assert_eq(bug_read(fx, VA + PAGE, &word), GM_RET_SUCCESS);
	cr_assert_eq(word, 2);
	cr_assert_eq(bug_read(fx, VA, &word), GM_RET_SUCCESS);
	return word != 1;
}

static bool protect_drops(struct mock_fixture *fx)
{
	fx_enter(fx, VA, PA, 4 * PAGE, GM_PTE_WRITE);
	cr_assert_eq(fx->mmu->pmap_protect(fx->pmap, VA, 4 * PAGE, 0), GM_RET_SUCCESS);
	fx_invl(fx, VA, 4 * PAGE);
	cr_assert(bug_mapped(fx, VA) && bug_mapped(fx, VA + 2 * PAGE));
	return !bug_mapped(fx, VA + 3 * PAGE);
}

static bool protect_fills(struct mock_fixture *fx)
{
	protect_five(fx);
	cr_assert(bug_mapped(fx, VA + 3 * PAGE) && !bug_mapped(fx, VA + 5 * PAGE));
	return bug_mapped(fx, VA + 4 * PAGE);
}

/* How many page tables there can be besides the fixture's; they are gone again. */
static unsigned count_pmaps(struct mock_fixture *fx, unsigned limit)
{
	void *pmap[16];
	unsigned n = 0;

	cr_assert(limit <= 16);
	while (n < limit && fx->mmu->pmap_create(fx->m, &pmap[n]) == GM_RET_SUCCESS)
		n++;
	for (unsigned i = 0; i < n; i++)
		fx->mmu->pmap_destroy(pmap[i]);
	return n;
}

static bool create_early(struct mock_fixture *fx)
{
	unsigned n = count_pmaps(fx, 10);

	cr_assert(n == 2 || n == 3);
	return n == 2;
}

static bool create_unbounded(struct mock_fixture *fx)
{
	unsigned n = count_pmaps(fx, 10);

	cr_assert(n == 3 || n == 10);
	return n == 10;
}

static bool invl_first(struct mock_fixture *fx)
{
	fx_enter(fx, VA, PA, 2 * PAGE, 0);
	cr_assert(bug_mapped(fx, VA) && bug_mapped(fx, VA + PAGE));
	fx_remove(fx, VA, 2 * PAGE);
	fx_invl(fx, VA, 2 * PAGE);
	cr_assert_not(bug_mapped(fx, VA));
	return bug_mapped(fx, VA + PAGE);
}

static bool invl_one_tlb(struct mock_fixture *fx)
{
	uint64_t word;

	fx_enter(fx, VA, PA, PAGE, 0);
	cr_assert(bug_mapped(fx, VA));
	cr_assert_eq(gm_mock_touch(fx->pmap, VA, &word, 8, false), GM_RET_SUCCESS);
	fx_remove(fx, VA, PAGE);
	fx_invl(fx, VA, PAGE);
	cr_assert_not(bug_mapped(fx, VA));
	return gm_mock_touch(fx->pmap, VA, &word, 8, false) == GM_RET_SUCCESS;
}

/* An access to host memory that takes as long as the test wants. */
struct slow_bus {
	struct mock_fixture *fx;
	uint64_t va;
	_Atomic long inside, leave, invalidated;
};

static gm_ret_t slow_hook(void *arg, uint64_t va, size_t bytes, bool write)
{
	struct slow_bus *bus = arg;

	(void)va, (void)bytes, (void)write;
	atomic_store(&bus->inside, 1);
	return fx_reaches(&bus->leave, 1) ? GM_RET_SUCCESS : GM_RET_FAULT;
}

static void *slow_access(void *arg)
{
	struct slow_bus *bus = arg;

	cr_assert(bug_mapped(bus->fx, VA));
	return NULL;
}

static void *slow_invl(void *arg)
{
	struct slow_bus *bus = arg;

	fx_invl(bus->fx, VA, PAGE);
	atomic_store(&bus->invalidated, 1);
	return NULL;
}

static bool invl_no_wait(struct mock_fixture *fx)
{
	struct slow_bus bus = { .fx = fx };
	pthread_t access, invl;
	bool early;

	fx_enter(fx, VA, fx_host(fx, PAGE), PAGE, GM_PTE_HOST);
	fx->s.host_hook = slow_hook;
	fx->s.host_hook_arg = &bus;
	cr_assert_eq(pthread_create(&access, NULL, slow_access, &bus), 0);
	cr_assert(fx_reaches(&bus.inside, 1));
	fx_remove(fx, VA, PAGE);
	cr_assert_eq(pthread_create(&invl, NULL, slow_invl, &bus), 0);
	for (unsigned i = 0; i < 200 && !atomic_load(&bus.invalidated); i++)
		mock_sleep_ms(1);
	early = atomic_load(&bus.invalidated);
	atomic_store(&bus.leave, 1);
	pthread_join(access, NULL);
	pthread_join(invl, NULL);
	cr_assert_not(bug_mapped(fx, VA));
	return early;
}

static bool rights_stick(struct mock_fixture *fx)
{
	fx_enter(fx, VA, PA, PAGE, 0);
	cr_assert(bug_mapped(fx, VA));
	fx_enter(fx, VA, PA, PAGE, GM_PTE_WRITE);
	return !bug_writable(fx, VA);
}

static bool dirty_lost(struct mock_fixture *fx)
{
	uint8_t bits = 0;

	fx_enter(fx, VA, PA, PAGE, GM_PTE_WRITE);
	cr_assert(bug_writable(fx, VA));
	cr_assert_eq(fx->mmu->pmap_harvest(fx->pmap, VA, PAGE, &bits), GM_RET_SUCCESS);
	cr_assert(bits & GM_PAGE_ACCESSED);
	return !(bits & GM_PAGE_DIRTY);
}

static bool va_alias(struct mock_fixture *fx)
{
	fx_enter(fx, VA, PA, PAGE, 0);
	cr_assert(bug_mapped(fx, VA));
	cr_assert_not(bug_mapped(fx, VA + (UINT64_C(1) << 46)));
	return bug_mapped(fx, VA + (UINT64_C(1) << 47));
}

const struct bug_case bug_cases_pt[] = {
	{ GM_MOCK_BUG_VA_ALIAS, "vram=1M", va_alias },
	{ GM_MOCK_BUG_ENTER_SHORT, "vram=1M", enter_short },
	{ GM_MOCK_BUG_ENTER_HALF, "vram=1M", enter_half },
	{ GM_MOCK_BUG_ENTER_HALF, "vram=1M", enter_half_alloc },
	{ GM_MOCK_BUG_ENTER_WRITABLE, "vram=1M", enter_writable },
	{ GM_MOCK_BUG_ENTER_NO_GROW, "vram=1M", enter_no_grow },
	{ GM_MOCK_BUG_ENTER_EXIST, "vram=1M", enter_exist },
	{ GM_MOCK_BUG_ENTER_AGAIN, "vram=1M", enter_again },
	{ GM_MOCK_BUG_REMOVE_LARGE, "vram=2M", remove_large },
	{ GM_MOCK_BUG_REMOVE_NEIGHBOUR, "vram=1M", remove_neighbour },
	{ GM_MOCK_BUG_REMOVE_HALF, "vram=1M", remove_half },
	{ GM_MOCK_BUG_REMOVE_NOENT, "vram=1M", remove_noent },
	{ GM_MOCK_BUG_SPLIT_RIGHTS, "vram=2M", split_rights },
	{ GM_MOCK_BUG_SPLIT_RIGHTS, "vram=2M", split_rights_protect },
	{ GM_MOCK_BUG_PROTECT_FIRST, "vram=1M", protect_first },
	{ GM_MOCK_BUG_PROTECT_MOVES, "vram=1M", protect_moves },
	{ GM_MOCK_BUG_PROTECT_DROPS, "vram=1M", protect_drops },
	{ GM_MOCK_BUG_PROTECT_FILLS, "vram=1M", protect_fills },
	{ GM_MOCK_BUG_CREATE_EARLY, "vram=1M,contexts=4", create_early },
	{ GM_MOCK_BUG_CREATE_UNBOUNDED, "vram=1M,contexts=4", create_unbounded },
	{ GM_MOCK_BUG_INVL_FIRST, "vram=1M", invl_first },
	{ GM_MOCK_BUG_INVL_ONE_TLB, "vram=1M,faults=no", invl_one_tlb },
	{ GM_MOCK_BUG_INVL_NO_WAIT, "vram=1M", invl_no_wait },
	{ GM_MOCK_BUG_RIGHTS_STICK, "vram=1M", rights_stick },
	{ GM_MOCK_BUG_DIRTY_LOST, "vram=1M,dirty=yes", dirty_lost },
	{ .bug = GM_MOCK_BUG_NONE },
};
