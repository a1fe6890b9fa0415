/* SPDX-License-Identifier: MIT */
/* The real host: pages that are protected against stores. Needs userfaultfd, else skips. */
#include "config.h"

#include "tests/unit/host_fixture.h"

TestSuite(host_protect, .timeout = 60);

/* 2 MiB that is watched, of which pages [0, pages) are protected, with marks. */
static char *protected_pages(struct host *h, unsigned pages)
{
	char *at = map_app(BLOCK, false), *src = map_app(BLOCK, false);
	uint64_t done = 0;

	put_marks(src, 0, pages);
	cr_assert_eq(h->ops->watch(h->pmap, GM_VA(at), BLOCK), GM_RET_SUCCESS, "%s", gm_last_error());
	if (h->ops->watch_stores(h->pmap, GM_VA(at), BLOCK) == GM_RET_NOTSUP)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	cr_assert_eq(h->ops->fill_protected(h->pmap, GM_VA(at), src, pages * PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(done, pages * PAGE);
	munmap(src, BLOCK);
	return at;
}

struct store {
	volatile uint64_t *at;
	uint64_t value;
};

static void store_fn(void *arg)
{
	struct store *s = arg;

	*s->at = s->value;
}

/* A store that waits; its message. */
static struct gm_host_msg blocked_store(struct host *h, struct worker *w, struct store *s)
{
	struct gm_host_msg m;

	worker_start(w, store_fn, s);
	m = next_msg(h);
	cr_assert_eq(m.kind, GM_HOST_FAULT);
	cr_assert(m.write);
	cr_assert(!atomic_load(&w->done));
	return m;
}

static bool no_msg(struct host *h)
{
	struct gm_host_msg m;

	return h->ops->msg_read(h->pmap, &m, 1) == 0;
}

Test(host_protect, loads_pass_and_stores_wait)
{
	struct host h;
	struct worker w;
	struct gm_host_msg m;
	struct store s;
	char *at;

	host_begin(&h);
	at = protected_pages(&h, 8);
	cr_assert_eq(wrong_marks(at, 0, 8), 0);
	cr_assert(no_msg(&h));
	s = (struct store){ (volatile uint64_t *)(void *)(at + 3 * PAGE), 4711 };
	m = blocked_store(&h, &w, &s);
	cr_assert(m.wp);
	cr_assert_eq(m.va, GM_VA(at) + 3 * PAGE);
	cr_assert_neq(*s.at, 4711);
	cr_assert_eq(h.ops->unprotect(h.pmap, GM_VA(at) + 3 * PAGE, PAGE), GM_RET_SUCCESS);
	worker_join(&w);
	cr_assert_eq(*s.at, 4711);
	s = (struct store){ (volatile uint64_t *)(void *)(at + 4 * PAGE), 1 };
	m = blocked_store(&h, &w, &s); /* the next page is protected still */
	cr_assert(m.wp);
	cr_assert_eq(h.ops->unprotect(h.pmap, GM_VA(at), BLOCK), GM_RET_SUCCESS, "what is absent is no hindrance");
	worker_join(&w);
	put_marks(at, 0, 8);
	cr_assert(no_msg(&h));
	host_end(&h);
}

/* The bus never waits: a store fails. */
Test(host_protect, bus)
{
	uint64_t value = 1;
	struct host h;
	char *at;

	host_begin(&h);
	at = protected_pages(&h, 2);
	cr_assert_eq(h.ops->bus_access(h.dev, GM_VA(at) + 8, &value, 8, false), GM_RET_SUCCESS);
	cr_assert_eq(value, mark(0));
	cr_assert_eq(h.ops->bus_access(h.dev, GM_VA(at), &value, 8, true), GM_RET_FAULT);
	cr_assert_eq(h.ops->unprotect(h.pmap, GM_VA(at), PAGE), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->bus_access(h.dev, GM_VA(at), &value, 8, true), GM_RET_SUCCESS);
	host_end(&h);
}

Test(host_protect, steal_and_restore_forget_it)
{
	struct gm_mask want = gm_mask_span(0, 4);
	struct gm_host_steal out;
	uint64_t slot, done;
	struct host h;
	char *at;

	host_begin(&h);
	at = protected_pages(&h, 4);
	cr_assert_eq(h.ops->slot_alloc(h.pmap, &slot), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->steal(h.pmap, GM_VA(at), &want, slot, &out), GM_RET_SUCCESS);
	cr_assert(gm_mask_equal(&out.moved, &want));
	cr_assert(gm_mask_empty(&out.hole));
	cr_assert_eq(h.ops->restore(h.pmap, GM_VA(at), slot, 4 * PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(wrong_marks(at, 0, 4), 0);
	put_marks(at, 0, 4); /* does not wait */
	cr_assert(no_msg(&h));
	h.ops->slot_free(h.pmap, slot);
	host_end(&h);
}

static void dontneed_fn(void *arg)
{
	(void)madvise(arg, PAGE, MADV_DONTNEED);
}

/* What is dropped is absent: the next access is told as such. */
Test(host_protect, goes_with_the_page)
{
	struct host h;
	struct worker w, d;
	struct gm_host_msg m;
	struct store s;
	uint64_t done;
	char *at;

	host_begin(&h);
	at = protected_pages(&h, 2);
	worker_start(&d, dontneed_fn, at);
	cr_assert_eq(next_msg(&h).kind, GM_HOST_REMOVE);
	worker_join(&d);
	s = (struct store){ (volatile uint64_t *)(void *)at, 5 };
	m = blocked_store(&h, &w, &s);
	cr_assert(!m.wp);
	cr_assert_eq(h.ops->zero(h.pmap, GM_VA(at), PAGE, &done), GM_RET_SUCCESS);
	worker_join(&w);
	cr_assert_eq(*s.at, 5);
	host_end(&h);
}

static void remap_fn(void *arg)
{
	char **at = arg;

	at[1] = mremap(at[0], BLOCK, BLOCK, MREMAP_MAYMOVE | MREMAP_FIXED, at[1]);
}

/* The kernel takes it along. */
Test(host_protect, follows_mremap)
{
	struct host h;
	struct worker w, r;
	struct store s;
	char *at[2];

	host_begin(&h);
	at[0] = protected_pages(&h, 2);
	at[1] = map_app(BLOCK, false);
	worker_start(&r, remap_fn, at);
	WAIT_FOR(no_msg(&h) && atomic_load(&r.done));
	worker_join(&r);
	cr_assert_eq(wrong_marks(at[1], 0, 2), 0);
	s = (struct store){ (volatile uint64_t *)(void *)at[1], 5 };
	cr_assert(blocked_store(&h, &w, &s).wp);
	cr_assert_eq(h.ops->unprotect(h.pmap, GM_VA(at[1]), PAGE), GM_RET_SUCCESS);
	worker_join(&w);
	cr_assert_eq(h.ops->unprotect(h.pmap, GM_VA(at[0]), PAGE), GM_RET_FAULT);
	host_end(&h);
}

/* Shared with a child it is not given, and cannot be un-shared as long as it is protected. */
Test(host_protect, a_child_has_it)
{
	struct gm_mask want = gm_mask_span(0, 2), none = gm_mask_none();
	struct gm_host_steal out;
	uint64_t slot;
	struct host h;
	int status;
	pid_t pid;
	char *at;

	host_begin(&h);
	at = protected_pages(&h, 2);
	pid = fork();
	if (!pid) {
		alarm(10);
		if (wrong_marks(at, 0, 2))
			_exit(1);
		put_marks(at, 1, 2); /* the child's own: nobody is to be asked */
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	cr_assert_eq(h.ops->slot_alloc(h.pmap, &slot), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->steal(h.pmap, GM_VA(at), &want, slot, &out), GM_RET_SUCCESS);
	if (!gm_mask_empty(&out.pinned)) {
		cr_assert_eq(h.ops->unprotect(h.pmap, GM_VA(at), 2 * PAGE), GM_RET_SUCCESS);
		cr_assert_eq(h.ops->steal(h.pmap, GM_VA(at), &out.pinned, slot, &out), GM_RET_SUCCESS);
		cr_assert(gm_mask_equal(&out.pinned, &none));
	}
	h.ops->slot_free(h.pmap, slot);
	host_end(&h);
}

Test(host_protect, only_where_it_was_asked_for)
{
	char *at = map_app(2 * BLOCK, false), page[GM_PAGE_BYTES] = { 1 };
	uint64_t done = 7;
	struct host h;

	host_begin(&h);
	cr_assert_eq(h.ops->watch_stores(h.pmap, GM_VA(at), BLOCK), GM_RET_SUCCESS, "%s", gm_last_error());
	cr_assert_eq(h.ops->watch(h.pmap, GM_VA(at), 2 * BLOCK), GM_RET_SUCCESS, "and it stays so");
	cr_assert_eq(h.ops->fill_protected(h.pmap, GM_VA(at), page, PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->fill_protected(h.pmap, GM_VA(at) + BLOCK, page, PAGE, &done), GM_RET_FAULT);
	cr_assert_eq(done, 0);
	cr_assert_eq(h.ops->unprotect(h.pmap, GM_VA(at) + BLOCK, PAGE), GM_RET_FAULT);
	cr_assert_eq(h.ops->unprotect(h.pmap, GM_VA(at), 2 * BLOCK), GM_RET_FAULT, "part of it");
	at[0] = 2; /* the other part is done */
	cr_assert_eq(h.ops->unwatch(h.pmap, GM_VA(at), 2 * BLOCK), GM_RET_SUCCESS);
	host_end(&h);
}

/* Whoever stops watching leaves nothing behind that waits for somebody. */
Test(host_protect, ends_with_the_watch)
{
	struct host h;
	char *at;

	host_begin(&h);
	at = protected_pages(&h, 2);
	cr_assert_eq(h.ops->unwatch(h.pmap, GM_VA(at), BLOCK), GM_RET_SUCCESS);
	put_marks(at, 0, 2);
	cr_assert(no_msg(&h));
	host_end(&h);
}
