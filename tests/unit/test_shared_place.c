/* SPDX-License-Identifier: MIT */
/*
 * Shared memory at addresses where something else was before, or is next to it. The kernel chooses them: the same again, and
 * side by side.
 */
#include "config.h"

#include <errno.h>

#include "shared_fixture.h"

TestSuite(shared_place, .timeout = 300);

#define TRIES 64u

/* Pieces of shared memory that moves, and mappings of one that others may map. */
struct places {
	char *mem[TRIES], *view[TRIES];
	unsigned n;
};

/* Is the end of one where `at` begins? */
static bool adjoins(const struct places *p, const char *at)
{
	for (unsigned i = 0; i < p->n; i++)
		if (p->view[i] + BYTES == at)
			return true;
	return false;
}

/* Until one that moves lies directly above a mapping. */
static char *neighbour(struct forker *f, int fd, struct places *p)
{
	for (p->n = 0; p->n < TRIES;) {
		OK(gm_alloc_shared(f->as, BYTES, 0, (void **)&p->mem[p->n]));
		OK(gm_map_shared(f->as, fd, 0, BYTES, 0, (void **)&p->view[p->n]));
		p->n++;
		for (unsigned i = 0; i < p->n; i++)
			if (adjoins(p, p->mem[i]))
				return p->mem[i];
	}
	cr_assert_fail("the kernel leaves room between mappings");
	return NULL;
}

/* A mapping has no alias: the address behind it is another's. */
static void directly_above(uint32_t flags)
{
	struct places p;
	struct sharer s;
	struct forker *f = &s.f;
	int fd = -1, fd2 = -1;
	char *at;

	begin(&s, flags);
	fill(f->at, 0, PAGES, 1);
	OK(gm_shared_fd(f->as, f->at, &fd));
	at = neighbour(f, fd, &p);
	fill(at, 0, PAGES, 2);
	OK(gm_migrate(f->as, GM_VA(at), BYTES, f->dev, NULL));
	check_away(f, at, flags);
	cr_assert_eq(wrong(at, 0, PAGES, 2), 0);
	cr_assert(comes_home(f, at, PAGES));
	dev_fill(f->ctx, GM_VA(at), PAGES, 3);
	check_away(f, at, flags);
	OK(gm_shared_fd(f->as, at, &fd2));
	cr_assert_eq(wrong(at, 0, PAGES, 3), 0);
	close(fd2);
	OK(gm_shared_fd(f->as, at, &fd2));
	close(fd2);
	OK(gm_free(f->as, at));
	cr_assert(msync(at, BYTES, MS_ASYNC) == -1 && msync(at + BYTES, BYTES, MS_ASYNC) == -1, "unmapped, and its alias");
	for (unsigned i = 0; i < p.n; i++) {
		cr_assert_eq(wrong(p.view[i], 0, PAGES, 1), 0);
		OK(gm_free(f->as, p.view[i]));
		if (p.mem[i] != at)
			OK(gm_free(f->as, p.mem[i]));
	}
	close(fd);
	end(&s);
}

Test(shared_place, directly_above)
{
	directly_above(0);
}

Test(shared_place, directly_above_exclusively)
{
	directly_above(GM_AS_EXCLUSIVE);
}

/*
 * What was private has its slot in the library's staging, until the worker takes it back; what is shared has its alias.
 * The program serves the space itself, and so there is no worker.
 */
static void after_private(uint32_t flags)
{
	struct sharer s;
	struct forker *f = &s.f;
	unsigned same = 0;

	begin(&s, flags | GM_AS_NO_THREADS);
	for (unsigned round = 0; round < 8; round++) {
		char *before, *at;

		OK(gm_alloc(f->as, 2 * BYTES, 0, (void **)&before));
		fill(before, 0, 2 * PAGES, 1);
		OK(gm_migrate(f->as, GM_VA(before), 2 * BYTES, f->dev, NULL));
		OK(gm_free(f->as, before));
		OK(gm_alloc_shared(f->as, BYTES, 0, (void **)&at));
		same += at == before;
		fill(at, 0, PAGES, 2);
		OK(gm_migrate(f->as, GM_VA(at), BYTES, f->dev, NULL));
		check_away(f, at, flags);
		OK(gm_migrate(f->as, GM_VA(at), BYTES, NULL, NULL));
		cr_assert_eq(wrong(at, 0, PAGES, 2), 0);
		OK(gm_free(f->as, at));
	}
	cr_assert_gt(same, 0, "the kernel never gave an address again");
	end(&s);
}

Test(shared_place, after_private)
{
	after_private(0);
}

Test(shared_place, after_private_exclusively)
{
	after_private(GM_AS_EXCLUSIVE);
}

/* Private memory of the program's that begins with a block. */
static char *app_memory(uint64_t bytes)
{
	char *raw = mmap(NULL, bytes + BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t before = BLOCK - GM_VA(raw) % BLOCK;

	cr_assert_neq(raw, MAP_FAILED);
	munmap(raw, before);
	munmap(raw + before + bytes, BLOCK - before);
	return raw + before;
}

/* Unmapped before a device had any of it, and so nobody was told: what is there now is not the program's to move. */
Test(shared_place, alias_where_memory_was_adopted)
{
	struct sharer s;
	struct forker *f = &s.f;
	unsigned same = 0;

	begin(&s, 0);
	for (unsigned round = 0; round < 8; round++) {
		char *app = app_memory(2 * BYTES), *at;

		OK(gm_adopt(f->as, app, 2 * BYTES, 0));
		munmap(app, 2 * BYTES);
		OK(gm_alloc_shared(f->as, BYTES, 0, (void **)&at));
		fill(at, 0, PAGES, 2);
		if (at == app) {
			IS(gm_migrate(f->as, GM_VA(at + BYTES), BYTES, f->dev, NULL), GM_RET_FAULT);
			cr_assert_eq(on_device(f, at + BYTES, PAGES), 0);
			same++;
		}
		OK(gm_migrate(f->as, GM_VA(at), BYTES, f->dev, NULL));
		check_away(f, at, 0);
		cr_assert_eq(wrong(at, 0, PAGES, 2), 0);
		OK(gm_free(f->as, at));
	}
	cr_assert_gt(same, 0, "the kernel never gave an address again");
	end(&s);
}
