/* SPDX-License-Identifier: MIT */
/*
 * The errors that can be planted in the mock: each is looked for on a sound
 * device, where it must not be, and on one that has it, where it must be.
 */
#include "config.h"

#include "mock_bug.h"

#define N_PAGES 256u

static uint64_t read_word(struct mock_fixture *fx, uint64_t va, gm_ret_t *ret)
{
	uint64_t word = UINT64_MAX;

	*ret = fx->mmu->access(fx->pmap, va, &word, 8, false);
	return word;
}

static void transfer(struct mock_fixture *fx, enum gm_copy_kind kind, uint64_t pa, const void *host, uint64_t bytes)
{
	struct gm_copy c = { .kind = kind, .pa = pa, .host = (uint64_t)(uintptr_t)host, .bytes = bytes };
	struct gm_fence *fence = mock_svc_fence_create(&fx->s);

	cr_assert_eq(fx->mmu->copy(fx->m, &c, 1, fence), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(fx, fence), GM_RET_SUCCESS);
}

static bool probe_invl(struct mock_fixture *fx)
{
	gm_ret_t ret;

	fx_enter(fx, VA, PA, PAGE, 0);
	(void)read_word(fx, VA, &ret);
	cr_assert_eq(ret, GM_RET_SUCCESS);
	fx_remove(fx, VA, PAGE);
	fx_invl(fx, VA, PAGE);
	(void)read_word(fx, VA, &ret);
	return ret == GM_RET_SUCCESS;
}

static bool probe_remove(struct mock_fixture *fx)
{
	gm_ret_t first, last;

	fx_enter(fx, VA, PA, 4 * PAGE, 0);
	fx_remove(fx, VA, 4 * PAGE);
	fx_invl(fx, VA, 4 * PAGE);
	(void)read_word(fx, VA, &first);
	(void)read_word(fx, VA + 3 * PAGE, &last);
	cr_assert_eq(first, GM_RET_FAULT);
	return last == GM_RET_SUCCESS;
}

static bool probe_copy(struct mock_fixture *fx)
{
	char *buf = aligned_alloc(GM_PAGE_BYTES, N_PAGES * PAGE);
	const char *vram = fx->mmu->cpu_ptr(fx->m, PA, N_PAGES * PAGE);
	unsigned wrong = 0;

	cr_assert_not_null(buf);
	memset(buf, 0x77, N_PAGES * PAGE);
	/* In pieces of several sizes: what counts is the page, not the piece. */
	for (unsigned i = 0, n; i < N_PAGES; i += n) {
		n = i % 3 + 1 < N_PAGES - i ? i % 3 + 1 : N_PAGES - i;
		transfer(fx, GM_COPY_TO_DEV, PA + i * PAGE, buf + i * PAGE, n * PAGE);
	}
	for (unsigned i = 0; i < N_PAGES; i++)
		wrong += memcmp(vram + i * PAGE, buf, PAGE) != 0;
	free(buf);
	cr_assert(wrong == 0 || wrong == N_PAGES / 64, "%u pages", wrong);
	return wrong > 0;
}

static bool probe_zero(struct mock_fixture *fx)
{
	transfer(fx, GM_COPY_ZERO, PA + 9 * PAGE, NULL, PAGE);
	return *fx_word(fx, PA + 9 * PAGE) != 0;
}

static bool probe_pa(struct mock_fixture *fx)
{
	uint64_t word[4];
	gm_ret_t ret;

	for (unsigned i = 0; i < 4; i++)
		*fx_word(fx, PA + i * PAGE) = i + 1;
	fx_enter(fx, VA, PA, 4 * PAGE, 0);
	for (unsigned i = 0; i < 4; i++) {
		word[i] = read_word(fx, VA + i * PAGE, &ret);
		cr_assert_eq(ret, GM_RET_SUCCESS);
	}
	/* A single page is right. */
	fx_enter(fx, VA + 8 * PAGE, PA + PAGE, PAGE, 0);
	cr_assert_eq(read_word(fx, VA + 8 * PAGE, &ret), 2);
	cr_assert(word[0] == 1 && word[2] == 3 && word[3] == 4);
	return word[1] == 1;
}

static bool probe_fence(struct mock_fixture *fx)
{
	char *buf = aligned_alloc(GM_PAGE_BYTES, PAGE);
	uint64_t *word = fx_word(fx, PA + 11 * PAGE);
	bool early;

	cr_assert_not_null(buf);
	memset(buf, 0x66, PAGE);
	transfer(fx, GM_COPY_TO_DEV, PA + 11 * PAGE, buf, PAGE);
	early = __atomic_load_n(word, __ATOMIC_ACQUIRE) == 0;
	/* It may be freed once the fence is done; the late copy must not mind. */
	memset(buf, 0, PAGE);
	free(buf);
	for (unsigned i = 0; i < LONG_MS && __atomic_load_n(word, __ATOMIC_ACQUIRE) == 0; i++)
		mock_sleep_ms(1);
	cr_assert_eq(*word, 0x6666666666666666);
	return early;
}

/* The same through a plan. */
static bool probe_fence_plan(struct mock_fixture *fx)
{
	struct gm_step step = { .op = GM_STEP_COPY, .after = GM_STEP_FREE };
	struct gm_fence *fence = mock_svc_fence_create(&fx->s);
	uint64_t *word = fx_word(fx, PA + 12 * PAGE);
	bool early;

	*word = 5;
	step.copy = (struct gm_copy){ .kind = GM_COPY_ZERO, .pa = PA + 12 * PAGE, .bytes = PAGE };
	cr_assert_eq(fx->mmu->submit(fx->m, &step, 1, fence), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(fx, fence), GM_RET_SUCCESS);
	early = __atomic_load_n(word, __ATOMIC_ACQUIRE) != 0;
	for (unsigned i = 0; i < LONG_MS && __atomic_load_n(word, __ATOMIC_ACQUIRE) != 0; i++)
		mock_sleep_ms(1);
	cr_assert_eq(*word, 0);
	return early;
}

static gm_ret_t walk_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	gm_ret_t ret = GM_RET_SUCCESS;
	uint64_t word;

	(void)index;
	(void)arg;
	for (unsigned i = 0; i < 70 && ret == GM_RET_SUCCESS; i++)
		ret = gm_mock_load(thread, VA + i * PAGE, &word, 8);
	return ret;
}

/* Serves until nothing comes for a while; destroying the page table frees the thread that waits for ever. */
static bool probe_fault(struct mock_fixture *fx)
{
	struct gm_fence *fence = fx_launch(fx, walk_kernel, NULL, 1);
	struct gm_dev_fault fault;
	unsigned served = 0, idle = 0;
	bool lost;

	while (mock_fence_wait(fence, 0) == GM_RET_TIMEDOUT && idle < 300) {
		if (fx->mmu->fault_next(fx->m, &fault) != GM_RET_SUCCESS) {
			mock_sleep_ms(1);
			idle++;
			continue;
		}
		idle = 0;
		fx_enter(fx, fault.va, PA + (fault.va - VA), PAGE, 0);
		cr_assert_eq(fx->mmu->fault_done(fx->pmap, fault.va, PAGE, GM_RET_SUCCESS), GM_RET_SUCCESS);
		served++;
	}
	lost = mock_fence_wait(fence, 0) == GM_RET_TIMEDOUT;
	cr_assert_eq(served, lost ? 63 : 70);
	if (lost) {
		fx_remove(fx, VA, 70 * PAGE);
		fx_invl(fx, VA, 70 * PAGE);
		fx->mmu->pmap_destroy(fx->pmap);
		cr_assert_eq(mock_fence_wait(fence, 0), GM_RET_CANCELED);
		cr_assert_eq(fx->mmu->pmap_create(fx->m, &fx->pmap), GM_RET_SUCCESS);
	}
	mock_svc_fence_put(&fx->s, fence);
	return lost;
}

static bool probe_rights(struct mock_fixture *fx)
{
	uint64_t word = 8;
	gm_ret_t ret;

	fx_enter(fx, VA, PA, PAGE, 0);
	ret = fx->mmu->access(fx->pmap, VA, &word, 8, true);
	cr_assert_eq(*fx_word(fx, PA) == 8, ret == GM_RET_SUCCESS);
	return ret == GM_RET_SUCCESS;
}

static const struct bug_case bug_cases_first[] = {
	{ GM_MOCK_BUG_SKIP_INVL, "vram=1M", probe_invl },
	{ GM_MOCK_BUG_SKIP_REMOVE, "vram=1M", probe_remove },
	{ GM_MOCK_BUG_SKIP_COPY, "vram=1M", probe_copy },
	{ GM_MOCK_BUG_SKIP_COPY, "vram=1M,copy=async", probe_copy },
	{ GM_MOCK_BUG_SKIP_ZERO, "vram=1M", probe_zero },
	{ GM_MOCK_BUG_WRONG_PA, "vram=1M", probe_pa },
	{ GM_MOCK_BUG_EARLY_FENCE, "vram=1M,copy=async,copyns=50000000", probe_fence },
	{ GM_MOCK_BUG_EARLY_FENCE, "vram=1M,copy=async,copyns=50000000", probe_fence_plan },
	{ GM_MOCK_BUG_LOST_FAULT, "vram=1M", probe_fault },
	{ GM_MOCK_BUG_IGNORE_RIGHTS, "vram=1M", probe_rights },
	{ .bug = GM_MOCK_BUG_NONE },
};

static void check_case(const struct bug_case *c)
{
	struct mock_fixture fx;

	fx_open(&fx, c->options);
	cr_assert_not(c->probe(&fx), "a sound device shows %s", gm_mock_bug_name(c->bug));
	fx_close(&fx);
	fx_open(&fx, c->options);
	cr_assert_eq(gm_mock_dev_plant(fx.m, c->bug), GM_RET_SUCCESS);
	cr_assert(c->probe(&fx), "%s does not show", gm_mock_bug_name(c->bug));
	fx_close(&fx);
}

static unsigned check_cases(const struct bug_case *c)
{
	unsigned n = 0;

	for (; c->bug != GM_MOCK_BUG_NONE; c++, n++)
		check_case(c);
	return n;
}

Test(mock_bug, first)
{
	cr_assert_gt(check_cases(bug_cases_first), 0);
}

Test(mock_bug, page_tables)
{
	cr_assert_gt(check_cases(bug_cases_pt), 0);
}

Test(mock_bug, copies_and_faults)
{
	cr_assert_gt(check_cases(bug_cases_io), 0);
}

Test(mock_bug, devices)
{
	cr_assert_gt(check_cases(bug_cases_dev), 0);
}

Test(mock_bug, lost_devices)
{
	for (const struct lost_case *c = lost_cases; c->bug != GM_MOCK_BUG_NONE; c++) {
		cr_assert_not(c->probe(GM_MOCK_BUG_NONE), "a sound device shows %s", gm_mock_bug_name(c->bug));
		cr_assert(c->probe(c->bug), "%s does not show", gm_mock_bug_name(c->bug));
	}
}

/* The memory that a test lets go is kept here, for it to be given back after all. */
static struct {
	void *ptr;
	size_t bytes;
} last_alloc;

static void *noting_alloc(void *self, size_t bytes)
{
	void *ptr = mock_svc_alloc(self, bytes);

	/* The structure of the device comes first, that of the page table after it: whoever asks wants the first. */
	if (ptr && !last_alloc.ptr) {
		last_alloc.ptr = ptr;
		last_alloc.bytes = bytes;
	}
	return ptr;
}

/* Whether memory is left when page table and device are gone; `pmap`: what pmap_create() took first, or dev_init(). */
static bool leaks(enum gm_mock_bug bug, bool pmap)
{
	struct mock_fixture fx = { .mmu = gm_mock_mmu() };
	struct gm_mock_config config;
	bool left;
	void *dev;

	mock_services_init(&fx.s);
	fx.s.svc.alloc = noting_alloc;
	last_alloc.ptr = NULL;
	cr_assert_eq(gm_mock_parse("vram=1M", &config), GM_RET_SUCCESS);
	config.bug = bug;
	cr_assert_eq(fx.mmu->dev_init(&config, &fx.s.svc, &fx.caps, &dev), GM_RET_SUCCESS);
	if (pmap)
		last_alloc.ptr = NULL;
	cr_assert_eq(fx.mmu->pmap_create(dev, &fx.pmap), GM_RET_SUCCESS);
	fx.mmu->pmap_destroy(fx.pmap);
	fx.mmu->dev_fini(dev);
	left = atomic_load(&fx.s.live_bytes) != 0;
	if (left)
		mock_svc_free(&fx.s, last_alloc.ptr, last_alloc.bytes);
	cr_assert_eq(atomic_load(&fx.s.live_bytes), 0);
	return left;
}

Test(mock_bug, leaks)
{
	cr_assert_not(leaks(GM_MOCK_BUG_NONE, false));
	cr_assert(leaks(GM_MOCK_BUG_DESTROY_LEAK, true));
	cr_assert(leaks(GM_MOCK_BUG_FINI_LEAK, false));
}

/* Whether a dev_init() that cannot start its engine leaves memory behind. */
static bool init_leaks(enum gm_mock_bug bug)
{
	struct mock_fixture fx = { .mmu = gm_mock_mmu() };
	struct gm_mock_config config;
	void *dev = NULL;
	bool left;

	mock_services_init(&fx.s);
	fx.s.svc.alloc = noting_alloc;
	last_alloc.ptr = NULL;
	cr_assert_eq(gm_mock_parse("vram=1M,copy=async", &config), GM_RET_SUCCESS);
	config.bug = bug;
	atomic_store(&fx.s.fail_thread, 1);
	cr_assert_eq(fx.mmu->dev_init(&config, &fx.s.svc, &fx.caps, &dev), GM_RET_NOMEM);
	left = atomic_load(&fx.s.live_bytes) != 0;
	if (left)
		mock_svc_free(&fx.s, last_alloc.ptr, last_alloc.bytes);
	cr_assert_eq(atomic_load(&fx.s.live_bytes), 0);
	return left;
}

Test(mock_bug, init_leaks)
{
	cr_assert_not(init_leaks(GM_MOCK_BUG_NONE));
	cr_assert(init_leaks(GM_MOCK_BUG_INIT_LEAK));
}

static void mark(bool *seen, const struct bug_case *c)
{
	for (; c->bug != GM_MOCK_BUG_NONE; c++)
		seen[c->bug] = true;
}

/* No error without a probe, no name twice. */
Test(mock_bug, complete)
{
	bool seen[GM_MOCK_BUGS] = { false };

	mark(seen, bug_cases_first);
	mark(seen, bug_cases_pt);
	mark(seen, bug_cases_io);
	mark(seen, bug_cases_dev);
	for (const struct lost_case *c = lost_cases; c->bug != GM_MOCK_BUG_NONE; c++)
		seen[c->bug] = true;
	seen[GM_MOCK_BUG_INIT_LEAK] = true;
	seen[GM_MOCK_BUG_NONE] = seen[GM_MOCK_BUG_DESTROY_LEAK] = seen[GM_MOCK_BUG_FINI_LEAK] = true;
	for (unsigned i = 0; i < GM_MOCK_BUGS; i++) {
		cr_assert_not_null(gm_mock_bug_name((enum gm_mock_bug)i), "error %u has no name", i);
		cr_assert(seen[i], "%s has no probe", gm_mock_bug_name((enum gm_mock_bug)i));
		for (unsigned k = 0; k < i; k++)
			cr_assert_str_neq(gm_mock_bug_name((enum gm_mock_bug)k), gm_mock_bug_name((enum gm_mock_bug)i));
	}
	cr_assert_null(gm_mock_bug_name(GM_MOCK_BUGS));
}

Test(mock_bug, unknown)
{
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	cr_assert_eq(gm_mock_dev_plant(fx.m, GM_MOCK_BUGS), GM_RET_INVAL);
	cr_assert_not(probe_invl(&fx));
	fx_close(&fx);
}
