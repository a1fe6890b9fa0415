/* SPDX-License-Identifier: MIT */
/*
 * What was lost with a device, and then moved by mremap(): it is lost at its new place too, wherever that is by then, and
 * never reads as zeros, except where the application gives its content up.
 */
#include "config.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "losing_mock.h"

#define SMALL 16u /* pages: one unit */

/* How many of these pages fail an access of the CPU. */
static unsigned failing(struct world *w, uint64_t va, unsigned pages)
{
	unsigned n = 0;

	for (unsigned i = 0; i < pages; i++) {
		uint64_t value = 0;
		gm_ret_t ret = gm_sim_load(w->sim, word_va(va, i), &value, sizeof(value));

		cr_assert(ret == GM_RET_IO || ret == GM_RET_SUCCESS, "%s", gm_ret_name(ret));
		n += ret == GM_RET_IO;
	}
	return n;
}

/* Adopted memory of its own that only the device has; `pages` of it are lost in the moment it says so. */
static uint64_t written(struct world *w, struct gm_ctx *ctx, unsigned pages, uint64_t salt)
{
	uint64_t va = app_map(w, pages * PAGE);

	OK(gm_adopt(w->as, ptr(va), pages * PAGE, 0));
	dev_fill(ctx, va, pages, salt);
	return va;
}

/* The library has noticed. No page but the first has the mark yet. */
static void lose(struct world *w, uint64_t va)
{
	uint64_t value;

	losing.lost = true;
	IS(gm_sim_load(w->sim, va, &value, sizeof(value)), GM_RET_IO);
}

/* Everything that can be asked of it says so; and given up it is memory as any other. */
static void lost_at_new_place(struct world *w)
{
	uint64_t va = app_adopted(w, 1, 1), to, moved;
	struct gm_ctx *ctx;
	struct gm_dev *dev = open_losing(w->lib, w->as, "vram=4M", &ctx);

	dev_fill(ctx, va, 64, 2);
	lose(w, va + 3 * PAGE);
	to = gm_sim_mremap(w->sim, va, BLOCK);
	cr_assert_neq(to, 0);
	cr_assert_eq(failing(w, to, 64), 64);
	cr_assert_eq(failing(w, to + 64 * PAGE, GM_BLOCK_PAGES - 64), 0);
	for (unsigned i = 64; i < GM_BLOCK_PAGES; i++)
		cr_assert_eq(app_get(w, word_va(to, i)), word(i, 1));
	cr_assert_neq(dev_touch(w->ctx[0], to + 7 * PAGE, false), GM_RET_SUCCESS);
	cr_assert_eq(pages_in(w, to, GM_BLOCK_PAGES, GM_PLACE_POISONED), 64);
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_OUTSIDE), GM_BLOCK_PAGES);
	IS(gm_migrate(w->as, to, BLOCK, NULL, &moved), GM_RET_NODEV);
	cr_assert_eq(moved, BLOCK - 64 * PAGE);
	to = gm_sim_mremap(w->sim, to, BLOCK); /* and on: now the marks are the kernel's to move */
	cr_assert_eq(failing(w, to, 64), 64);
	OK(gm_discard(w->as, to, 32 * PAGE));
	cr_assert_eq(failing(w, to, 64), 32);
	cr_assert_eq(app_get(w, word_va(to, 5)), 0);
	OK(gm_sim_dontneed(w->sim, to, BLOCK));
	cr_assert_eq(failing(w, to, 64), 0);
	dev_fill(w->ctx[0], to, GM_BLOCK_PAGES, 3);
	cr_assert_eq(app_wrong(w, to, GM_BLOCK_PAGES, 3), 0);
	world_check(w);
	close_losing(dev, ctx);
}

CORE_TEST(lost_moved, at_its_new_place)
{
	lost_at_new_place(w);
}

CORE_TEST(lost_moved, at_its_new_place_with_whims, .spurious = true)
{
	lost_at_new_place(w);
}

/* First fit: each range moves to where the one before it was. Nobody asks before all have moved. */
static void change_places(struct world *w)
{
	struct gm_ctx *ctx;
	struct gm_dev *dev = open_losing(w->lib, w->as, "vram=4M,visible=no,copy=async,copyns=50000", &ctx);
	uint64_t a = written(w, ctx, SMALL, 1), b = written(w, ctx, 4, 2), c, a_to, b_to, good = app_map(w, 4 * PAGE);

	app_fill(w, good, 4, 7); /* what goes to an address from which lost pages go */
	OK(gm_adopt(w->as, ptr(good), 4 * PAGE, 0));
	dev_fill(w->ctx[0], good, 4, 8);
	lose(w, a);
	lose(w, b);
	a_to = gm_sim_mremap(w->sim, a, SMALL * PAGE);
	b_to = gm_sim_mremap(w->sim, b, 4 * PAGE);
	cr_assert_eq(b_to, a, "the test needs the place to be used again");
	good = gm_sim_mremap(w->sim, good, 4 * PAGE);
	c = gm_sim_mremap(w->sim, a_to, SMALL * PAGE);
	cr_assert(good == a + 5 * PAGE || good == b, "and these: 0x%llx", (unsigned long long)good);
	cr_assert_eq(failing(w, c, SMALL), SMALL);
	cr_assert_eq(failing(w, b_to, 4), 4);
	cr_assert_eq(app_wrong(w, good, 4, 8), 0, "a mark at an address that was left");
	OK(gm_discard(w->as, c, SMALL * PAGE));
	OK(gm_discard(w->as, b_to, 4 * PAGE));
	cr_assert_eq(failing(w, c, SMALL), 0);
	dev_fill(w->ctx[0], c, SMALL, 4);
	cr_assert_eq(app_wrong(w, c, SMALL, 4), 0);
	world_check(w);
	close_losing(dev, ctx);
}

CORE_TEST(lost_moved, ranges_change_places)
{
	change_places(w);
}

CORE_TEST(lost_moved, ranges_change_places_with_whims, .spurious = true)
{
	change_places(w);
}

/* Lost while the bytes are under way: nobody knew before. */
static void lost_under_way(struct world *w)
{
	struct gm_ctx *ctx;
	struct gm_dev *dev = open_losing(w->lib, w->as, "vram=4M,visible=no,copy=async,copyns=50000", &ctx);
	uint64_t va = written(w, ctx, SMALL, 1), to;

	losing.lost = true;
	to = gm_sim_mremap(w->sim, va, SMALL * PAGE);
	to = gm_sim_mremap(w->sim, to, SMALL * PAGE);
	cr_assert_eq(failing(w, to, SMALL), SMALL);
	IS(gm_migrate(w->as, to, SMALL * PAGE, NULL, NULL), GM_RET_NODEV); /* when it is through */
	cr_assert_eq(pages_in(w, to, SMALL, GM_PLACE_POISONED), SMALL);
	world_check(w);
	close_losing(dev, ctx);
}

CORE_TEST(lost_moved, lost_on_the_way)
{
	lost_under_way(w);
}

CORE_TEST(lost_moved, lost_on_the_way_with_whims, .spurious = true)
{
	lost_under_way(w);
}

static void ask(void *arg)
{
	uint64_t value, *va = arg;

	(void)gm_sim_load((struct gm_sim *)(uintptr_t)va[1], va[0], &value, sizeof(value));
}

/* The move comes while the loss is being noticed, at whatever moment; the old address is somebody else's then. */
CORE_TEST(lost_moved, moved_while_it_is_noticed, .spurious = true)
{
	for (unsigned i = 0; i < 200; i++) {
		struct gm_ctx *ctx;
		struct gm_dev *dev = open_losing(w->lib, w->as, i % 2 ? "vram=4M" : "vram=4M,visible=no,copy=async,copyns=5000",
						 &ctx);
		uint64_t va = written(w, ctx, SMALL, i), good = app_map(w, SMALL * PAGE), to;
		uint64_t arg[2] = { va + i % SMALL * PAGE, (uint64_t)(uintptr_t)w->sim };
		struct gm_thread *t;

		OK(gm_adopt(w->as, ptr(good), SMALL * PAGE, 0));
		dev_fill(w->ctx[0], good, 1, i); /* watched, and the rest are holes */
		losing.lost = true;
		t = spawn(w, ask, arg);
		for (unsigned k = 0; k < i / 2; k++)
			gm_yield(w->env);
		to = gm_sim_mremap(w->sim, va, SMALL * PAGE);
		good = gm_sim_mremap(w->sim, good, SMALL * PAGE);
		cr_assert_eq(good, va, "the test needs the place to be used again");
		join(w, t);
		cr_assert_eq(failing(w, to, SMALL), SMALL, "round %u", i);
		cr_assert_eq(app_wrong(w, good, 1, i), 0);
		cr_assert_eq(failing(w, good, SMALL), 0, "round %u: a mark at an address that was left", i);
		OK(gm_sim_munmap(w->sim, to, SMALL * PAGE));
		OK(gm_sim_munmap(w->sim, good, SMALL * PAGE));
		close_losing(dev, ctx);
	}
	world_check(w);
}

/* Given up, or gone, right after the move, while the marks are still to be made. */
CORE_TEST(lost_moved, given_up_at_the_new_place, .spurious = true)
{
	for (unsigned i = 0; i < 100; i++) {
		struct gm_ctx *ctx;
		struct gm_dev *dev = open_losing(w->lib, w->as, "vram=4M", &ctx);
		uint64_t va = written(w, ctx, SMALL, 1), to;

		lose(w, va);
		to = gm_sim_mremap(w->sim, va, SMALL * PAGE);
		gm_sim_sleep_ns(w->sim, i * 100);
		if (i % 2) {
			OK(gm_sim_dontneed(w->sim, to + 4 * PAGE, 4 * PAGE));
			cr_assert_eq(failing(w, to + 4 * PAGE, 4), 0);
			cr_assert_eq(app_get(w, to + 5 * PAGE), 0);
			cr_assert_eq(failing(w, to, SMALL), SMALL - 4);
			OK(gm_sim_munmap(w->sim, to, SMALL * PAGE));
		} else {
			OK(gm_sim_munmap(w->sim, to, SMALL * PAGE));
			cr_assert_eq(gm_sim_mmap_at(w->sim, to, SMALL * PAGE, RW), to);
			OK(gm_adopt(w->as, ptr(to), SMALL * PAGE, 0));
			cr_assert_eq(failing(w, to, SMALL), 0, "round %u: a mark in other memory", i);
			dev_fill(w->ctx[0], to, SMALL, i);
			cr_assert_eq(app_wrong(w, to, SMALL, i), 0);
			OK(gm_release(w->as, ptr(to), SMALL * PAGE));
			OK(gm_sim_munmap(w->sim, to, SMALL * PAGE));
		}
		close_losing(dev, ctx);
		cr_assert_eq(pages_in(w, va, SMALL, GM_PLACE_OUTSIDE), SMALL);
	}
	world_check(w);
}

static void bring_home(void *arg)
{
	uint64_t *va = arg;

	(void)gm_migrate((struct gm_as *)(uintptr_t)va[1], va[0], SMALL * PAGE, NULL, NULL);
}

/* The pages are on their way home, and move, and other memory comes to where they were; then the device is lost. */
CORE_TEST(lost_moved, moved_in_the_middle, .dev = { "mock:vram=4M,visible=no,submit=no", "mock:vram=4M" })
{
	struct gm_mock_rule slow = { .size = sizeof(slow), .op = GM_MOCK_COPY, .nth = 1, .count = 1, .delay_ns = 10 * MS };
	uint64_t va = written(w, w->ctx[0], SMALL, 1), good = app_map(w, SMALL * PAGE), to;
	uint64_t arg[2] = { va, (uint64_t)(uintptr_t)w->as };
	struct gm_thread *t;

	OK(gm_adopt(w->as, ptr(good), SMALL * PAGE, 0));
	OK(gm_dev_fault(w->ctx[1], good, GM_READ)); /* watched, and all of it a hole */
	OK(gm_migrate(w->as, good, SMALL * PAGE, NULL, NULL));
	OK(gm_discard(w->as, good, SMALL * PAGE));
	OK(gm_mock_rule_add(w->dev[0], &slow));
	t = spawn(w, bring_home, arg);
	gm_sim_sleep_ns(w->sim, MS);
	cr_assert(page_info(w, va).flags & GM_PAGE_BUSY, "the test needs it to be on its way");
	to = gm_sim_mremap(w->sim, va, SMALL * PAGE);
	cr_assert_eq(gm_sim_mremap(w->sim, good, SMALL * PAGE), va, "the test needs the place to be used again");
	gm_sim_sleep_ns(w->sim, MS); /* all of it is known */
	OK(gm_mock_lose(w->dev[0]));
	join(w, t);
	cr_assert_eq(failing(w, to, SMALL), SMALL);
	cr_assert_eq(failing(w, va, SMALL), 0, "a mark at an address that was left");
	world_check(w);
}

static void move_now(void *arg)
{
	uint64_t *va = arg;

	va[0] = gm_sim_mremap((struct gm_sim *)(uintptr_t)va[1], va[0], SMALL * PAGE);
}

/* That what was there before went may be told later than the move: it casts doubt, but the place is ours. */
CORE_TEST(lost_moved, to_a_place_left_a_moment_ago, .spurious = true)
{
	unsigned hits = 0;

	for (unsigned i = 0; i < 200; i++) {
		struct gm_ctx *ctx;
		struct gm_dev *dev = open_losing(w->lib, w->as, "vram=4M", &ctx);
		uint64_t former = written(w, w->ctx[0], SMALL, 5), va = written(w, ctx, SMALL, 1), to;
		uint64_t arg[2] = { former, (uint64_t)(uintptr_t)w->sim };
		struct gm_thread *t;

		lose(w, va);
		t = spawn(w, move_now, arg);
		for (unsigned k = 0; k < i % 40; k++)
			gm_yield(w->env);
		to = gm_sim_mremap(w->sim, va, SMALL * PAGE);
		hits += to == former;
		join(w, t);
		cr_assert_eq(failing(w, to, SMALL), SMALL, "round %u", i);
		IS(gm_migrate(w->as, to, SMALL * PAGE, NULL, NULL), GM_RET_NODEV);
		cr_assert_eq(failing(w, to, SMALL), SMALL, "round %u, later", i);
		cr_assert_eq(app_wrong(w, arg[0], SMALL, 5), 0);
		OK(gm_sim_munmap(w->sim, to, SMALL * PAGE));
		OK(gm_sim_munmap(w->sim, arg[0], SMALL * PAGE));
		close_losing(dev, ctx);
	}
	cr_assert_gt(hits, 20);
	world_check(w);
}

/* A child has nobody to ask, and the marks are where the bytes would be. */
CORE_TEST(lost_moved, a_child_after_the_move, .spurious = true)
{
	struct gm_ctx *ctx;
	struct gm_dev *dev = open_losing(w->lib, w->as, "vram=4M", &ctx);
	uint64_t va = written(w, ctx, SMALL, 1), to, value, stranger;

	lose(w, va);
	to = gm_sim_mremap(w->sim, va, SMALL * PAGE);
	stranger = gm_sim_mmap_at(w->sim, va, SMALL * PAGE, RW);
	cr_assert_eq(stranger, va);
	for (unsigned i = 0; i < SMALL; i++)
		IS(gm_sim_fork_snapshot(w->sim, word_va(to, i), &value, sizeof(value)), GM_RET_IO);
	cr_assert_eq(failing(w, stranger, SMALL), 0);
	OK(gm_release(w->as, ptr(to), SMALL * PAGE));
	cr_assert_eq(failing(w, to, SMALL), SMALL);
	close_losing(dev, ctx);
}

/* ------------------------------------------------------- on the real host */

static sigjmp_buf out_of_sigbus;

static void on_sigbus(int sig)
{
	siglongjmp(out_of_sigbus, sig);
}

static bool fails(const char *at)
{
	if (sigsetjmp(out_of_sigbus, 1))
		return true;
	(void)*(const volatile char *)at;
	return false;
}

static unsigned real_failing(const char *at, unsigned pages)
{
	unsigned n = 0;

	for (unsigned i = 0; i < pages; i++)
		n += fails(at + i * PAGE);
	return n;
}

static char *real_map(uint64_t bytes, int prot)
{
	char *at = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(at, MAP_FAILED);
	return at;
}

struct real {
	struct gm_lib *lib;
	struct gm_as *as;
	struct gm_ctx *ctx;
	struct gm_dev *dev;
};

static void real_begin(struct real *r)
{
	struct sigaction act = { .sa_handler = on_sigbus };
	gm_ret_t ret = gm_lib_create(NULL, &r->lib);

	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	OK(ret);
	alarm(200);
	sigaction(SIGBUS, &act, NULL);
	OK(gm_as_create(r->lib, 0, 0, NULL, &r->as));
	r->dev = open_losing(r->lib, r->as, "vram=4M", &r->ctx);
}

static void real_end(struct real *r)
{
	char text[200] = "";

	cr_assert_eq(gm_as_check(r->as, text, sizeof(text)), GM_RET_SUCCESS, "%s", text);
	close_losing(r->dev, r->ctx);
	OK(gm_as_destroy(r->as));
	OK(gm_lib_destroy(r->lib));
}

Test(lost_moved_real, marks_follow)
{
	struct gm_page_info info[64];
	unsigned poisoned = 0;
	struct real r;
	char *at, *to;

	real_begin(&r);
	at = real_map(64 * PAGE, PROT_READ | PROT_WRITE);
	to = real_map(64 * PAGE, PROT_NONE);
	OK(gm_adopt(r.as, at, 64 * PAGE, 0));
	dev_fill(r.ctx, GM_VA(at), 64, 2);
	losing.lost = true;
	cr_assert(fails(at + 3 * PAGE));
	cr_assert_eq(mremap(at, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to), to);
	cr_assert_eq(real_failing(to, 64), 64, "zeros where the content is lost");
	IS(gm_migrate(r.as, GM_VA(to), 64 * PAGE, NULL, NULL), GM_RET_NODEV); /* when it is through */
	OK(gm_query(r.as, GM_VA(to), 64, info));
	for (unsigned i = 0; i < 64; i++)
		poisoned += info[i].place == GM_PLACE_POISONED;
	cr_assert_eq(poisoned, 64);
	OK(gm_discard(r.as, GM_VA(to), SMALL * PAGE));
	cr_assert_eq(real_failing(to, 64), 64 - SMALL);
	cr_assert_eq(to[3 * PAGE], 0);
	real_end(&r);
}

/* Released and adopted anew: only the mark knows, until the content is given up. */
Test(lost_moved_real, given_up_after_a_release)
{
	struct real r;
	char *at;

	real_begin(&r);
	at = real_map(SMALL * PAGE, PROT_READ | PROT_WRITE);
	OK(gm_adopt(r.as, at, SMALL * PAGE, 0));
	dev_fill(r.ctx, GM_VA(at), SMALL, 2);
	losing.lost = true;
	cr_assert(fails(at));
	OK(gm_release(r.as, at, SMALL * PAGE));
	cr_assert_eq(real_failing(at, SMALL), SMALL);
	OK(gm_adopt(r.as, at, SMALL * PAGE, 0));
	cr_assert_eq(real_failing(at, SMALL), SMALL);
	OK(gm_discard(r.as, GM_VA(at), 8 * PAGE));
	cr_assert_eq(real_failing(at, SMALL), SMALL - 8);
	for (unsigned i = 0; i < 8; i++)
		cr_assert_eq(at[i * PAGE + i], 0);
	memset(at, 3, 8 * PAGE);
	real_end(&r);
}
