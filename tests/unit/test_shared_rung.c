/* SPDX-License-Identifier: MIT */
/* Shared memory on each rung of the ladder: it moves, or is refused in words, and that of others is in place on all of them. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>

#include <gmem/mock.h>

#include "core/gm_as.h"
#include "hal/host/gm_host_internal.h"
#include "tests/unit/rung_fixture.h"

#define PAGES GM_BLOCK_PAGES

TestSuite(shared_rung, .timeout = 120);

/* As on the highest rung, but for system calls where the rung cannot. */
static void moves(enum gm_rung rung, uint32_t flags)
{
	struct rung r;
	char *at;
	void *p;
	int fd = -1;

	rung_begin(&r, rung, flags, NULL);
	cr_assert(!cannot(&r, GM_RUNG_NO_SHARED));
	OK(gm_alloc_shared(r.as, BLOCK, 0, &p));
	at = p;
	put_marks(at, 0, PAGES);
	to_dev(&r, at, PAGES);
	OK(dev_add(&r, at, PAGES, 5, NULL));
	cr_assert_eq(kernel_reads(at), cannot(&r, GM_RUNG_NO_KERNEL_ACCESS) ? EFAULT : 0);
	cr_assert_eq(wrong_words(at, 0, PAGES, 5), 0);
	to_dev(&r, at, PAGES);
	OK(dev_add(&r, at, PAGES, 1, NULL));
	to_host(&r, at, PAGES);
	cr_assert_eq(kernel_reads(at), 0);
	cr_assert_eq(wrong_words(at, 0, PAGES, 6), 0);
	to_dev(&r, at, PAGES);
	OK(dev_add(&r, at, PAGES, 1, NULL));
	OK(gm_shared_fd(r.as, p, &fd));
	cr_assert_eq(pages_in(&r, at, PAGES, GM_PLACE_IN_PLACE), PAGES);
	OK(dev_add(&r, at, PAGES, 1, NULL));
	cr_assert_eq(wrong_words(at, 0, PAGES, 8), 0);
	close(fd);
	OK(gm_free(r.as, p));
	rung_end(&r);
}

Test(shared_rung, full)
{
	moves(GM_RUNG_FULL, 0);
}

Test(shared_rung, device)
{
	moves(GM_RUNG_DEVICE, 0);
}

Test(shared_rung, user)
{
	moves(GM_RUNG_USER, 0);
}

Test(shared_rung, user_exclusively)
{
	moves(GM_RUNG_USER, GM_AS_EXCLUSIVE);
}

/* None is made; what another one made is shared with this one's device. */
static void in_place_only(enum gm_rung rung)
{
	struct rung maker, r;
	uint64_t seen[16];
	char *at, *here;
	void *p, *q = NULL;
	int fd = -1, again = -1;

	rung_begin(&maker, GM_RUNG_FULL, 0, NULL);
	rung_begin(&r, rung, 0, NULL);
	cr_assert(cannot(&r, GM_RUNG_NO_SHARED));
	cr_assert_eq(gm_alloc_shared(r.as, BLOCK, 0, &q), GM_RET_NOTSUP);
	cr_assert_not_null(strstr(gm_last_error(), gm_rung_name(rung)), "%s", gm_last_error());
	cr_assert_not_null(strstr(gm_last_error(), "Linux 6.8"), "%s", gm_last_error());
	cr_assert_not_null(strstr(gm_last_error(), "gm_map_shared"), "%s", gm_last_error());
	cr_assert_null(q);
	OK(gm_alloc_shared(maker.as, BLOCK, 0, &p));
	at = p;
	put_marks(at, 0, PAGES);
	OK(dev_add(&maker, at, PAGES, 1, NULL));
	OK(gm_shared_fd(maker.as, p, &fd));
	OK(gm_map_shared(r.as, fd, 0, BLOCK, 0, &q));
	close(fd);
	here = q;
	cr_assert_eq(pages_in(&r, here, PAGES, GM_PLACE_IN_PLACE), PAGES);
	cr_assert_eq(wrong_words(here, 0, PAGES, 1), 0);
	OK(dev_add(&r, here, PAGES, 1, NULL));
	OK(dev_add(&maker, at, PAGES, 1, NULL));
	OK(dev_add(&r, here, 16, 0, seen));
	for (unsigned i = 0; i < 16; i++)
		cr_assert_eq(seen[i], mark(i) + 3);
	cr_assert_eq(wrong_words(here, 0, PAGES, 3), 0);
	cr_assert_eq(gm_migrate(r.as, GM_VA(here), BLOCK, r.dev, NULL), GM_RET_BUSY);
	OK(gm_protect(r.as, GM_VA(here), BLOCK, GM_READ));
	cr_assert_eq(dev_add(&r, here, 1, 1, NULL), GM_RET_PERM);
	OK(gm_protect(r.as, GM_VA(here), BLOCK, GM_READ | GM_WRITE));
	OK(gm_shared_fd(r.as, q, &again));
	close(again);
	/* The last one keeps it. */
	OK(gm_free(maker.as, p));
	OK(dev_add(&r, here, PAGES, 1, NULL));
	cr_assert_eq(wrong_words(here, 0, PAGES, 4), 0);
	OK(gm_free(r.as, q));
	cr_assert_eq(msync(here, BLOCK, MS_ASYNC), -1, "unmapped");
	cr_assert_eq(dev_add(&r, here, 1, 1, NULL), GM_RET_FAULT);
	rung_end(&r);
	rung_end(&maker);
}

Test(shared_rung, no_move)
{
	in_place_only(GM_RUNG_NO_MOVE);
}

Test(shared_rung, explicit)
{
	in_place_only(GM_RUNG_EXPLICIT);
}

/* What the lower tables have in place of what they cannot. "User" without MOVE has that of "no move". */
Test(shared_rung, lower_tables_refuse)
{
	static const enum gm_rung rungs[] = { GM_RUNG_NO_MOVE, GM_RUNG_EXPLICIT };

	for (unsigned i = 0; i < 2; i++) {
		struct rung r;
		const struct gm_host_ops *ops = i ? &gm_host_ops_explicit : &gm_host_ops_nomove;
		uint64_t va = 7;
		int fd = -1;

		rung_begin(&r, rungs[i], 0, NULL);
		cr_assert_eq(ops->share_map(r.as->hpmap, -1, 0, BLOCK, &va), GM_RET_NOTSUP);
		cr_assert_not_null(strstr(gm_last_error(), "Linux 6.8"), "%s", gm_last_error());
		cr_assert_eq(ops->share_slot(r.as->hpmap, BLOCK, &va), GM_RET_NOENT);
		cr_assert_eq(ops->share_fd(r.as->hpmap, BLOCK, &fd), GM_RET_NOENT);
		cr_assert(va == 7 && fd == -1);
		rung_end(&r);
	}
}
