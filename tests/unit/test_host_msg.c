/* SPDX-License-Identifier: MIT */
/* The real host: accesses that wait, events, the reader of messages, fork. Needs userfaultfd, else skips. */
#include "config.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>

#include "hal/host/gm_host_internal.h"
#include "tests/unit/host_fixture.h"

/* What goes wrong here tends to wait for ever. */
TestSuite(host_wait, .timeout = 60);
TestSuite(host_events, .timeout = 60);
TestSuite(host_reader, .timeout = 60);
TestSuite(host_fork, .timeout = 60);

static char *watched(struct host *h, uint64_t bytes)
{
	char *at = map_app(bytes, false);

	cr_assert_eq(h->ops->watch(h->pmap, GM_VA(at), bytes), GM_RET_SUCCESS, "%s", gm_last_error());
	return at;
}

static uint64_t steal_all(struct host *h, const char *at)
{
	struct gm_mask want = gm_mask_span(0, GM_BLOCK_PAGES);
	struct gm_host_steal out;
	uint64_t slot = 0;

	cr_assert_eq(h->ops->slot_alloc(h->pmap, &slot), GM_RET_SUCCESS);
	cr_assert_eq(h->ops->steal(h->pmap, GM_VA(at), &want, slot, &out), GM_RET_SUCCESS);
	cr_assert(gm_mask_full(&out.moved));
	return slot;
}

static bool no_msg(struct host *h)
{
	struct gm_host_msg m;

	return h->ops->msg_read(h->pmap, &m, 1) == 0;
}

static bool settled(struct host *h)
{
	return h->ops->settled(h->pmap) == GM_RET_SUCCESS;
}

/* One load or store of a word by a thread of its own. */
struct touch {
	char *at;
	bool write;
	volatile uint64_t value;
};

static void touch_fn(void *arg)
{
	struct touch *t = arg;

	if (t->write)
		*(volatile uint64_t *)t->at = t->value;
	else
		t->value = *(volatile uint64_t *)t->at;
}

/* Wait for the fault of `w` and check what it says. */
static void expect_fault(struct host *h, struct worker *w, const char *page, bool write)
{
	struct gm_host_msg m = next_msg(h);

	cr_assert_eq(m.kind, GM_HOST_FAULT);
	cr_assert_eq(m.va, GM_VA(page), "0x%llx", (unsigned long long)m.va);
	cr_assert_eq(m.bytes, PAGE);
	cr_assert_eq(m.write, write);
	cr_assert_eq(m.thread_id, atomic_load(&w->tid));
	for (unsigned i = 0; i < 5; i++)
		nap();
	cr_assert_not(atomic_load(&w->done), "the access did not wait");
}

Test(host_wait, restore_fill_and_zero_serve_waiting_accesses)
{
	struct host h;
	struct worker w[3];
	struct touch t[3];
	uint64_t page[GM_PAGE_BYTES / 8] = { 0, 4711 };
	uint64_t slot, done;
	char *at;

	host_begin(&h);
	at = watched(&h, BLOCK);
	/* nobody serves first touches of the watched range yet */
	cr_assert_eq(h.ops->unwatch(h.pmap, GM_VA(at), BLOCK), GM_RET_SUCCESS);
	put_marks(at, 0, GM_BLOCK_PAGES);
	cr_assert_eq(h.ops->watch(h.pmap, GM_VA(at), BLOCK), GM_RET_SUCCESS);
	slot = steal_all(&h, at);
	for (unsigned i = 0; i < 3; i++) {
		t[i] = (struct touch){ at + (10 + i) * PAGE + 8, i == 2, 99 };
		worker_start(&w[i], touch_fn, &t[i]);
		expect_fault(&h, &w[i], at + (10 + i) * PAGE, i == 2);
	}
	cr_assert_eq(h.ops->restore(h.pmap, GM_VA(at) + 10 * PAGE, slot + 10 * PAGE, PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->fill(h.pmap, GM_VA(at) + 11 * PAGE, page, PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->zero(h.pmap, GM_VA(at) + 12 * PAGE, PAGE, &done), GM_RET_SUCCESS);
	/* whose page is there goes on, without a word from wake() */
	for (unsigned i = 0; i < 3; i++)
		worker_join(&w[i]);
	cr_assert_eq(t[0].value, mark(10));
	cr_assert_eq(t[1].value, 4711);
	cr_assert_eq(*(volatile uint64_t *)(at + 12 * PAGE + 8), 99);
	cr_assert_eq(*(volatile uint64_t *)(at + 12 * PAGE), 0);
	cr_assert(no_msg(&h));
	h.ops->slot_free(h.pmap, slot);
	cr_assert_eq(h.ops->unwatch(h.pmap, GM_VA(at), BLOCK), GM_RET_SUCCESS);
	host_end(&h);
}

static void read_fn(void *arg)
{
	struct touch *t = arg;
	int fds[2];

	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(write(fds[1], "12345678", 8), 8);
	t->value = (uint64_t)read(fds[0], t->at, 8);
	close(fds[0]);
	close(fds[1]);
}

/* The kernel's own accesses wait and are served as the program's are: this is why user-mode-only is not enough. */
Test(host_wait, system_calls_wait_too)
{
	struct host h;
	struct worker w;
	struct touch t;
	uint64_t done;

	host_begin(&h);
	t = (struct touch){ watched(&h, BLOCK), true, 0 };
	worker_start(&w, read_fn, &t);
	expect_fault(&h, &w, t.at, true);
	cr_assert_eq(h.ops->zero(h.pmap, GM_VA(t.at), PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->wake(h.pmap, GM_VA(t.at), PAGE), GM_RET_SUCCESS);
	worker_join(&w);
	cr_assert_eq(t.value, 8);
	cr_assert_eq(memcmp(t.at, "12345678", 8), 0);
	host_end(&h);
}

static sigjmp_buf out_of_sigbus;

static void on_sigbus(int sig)
{
	siglongjmp(out_of_sigbus, sig);
}

Test(host_wait, poison_ends_a_wait_with_sigbus)
{
	struct host h;
	struct sigaction act = { .sa_handler = on_sigbus };
	uint64_t done;
	char *at;

	host_begin(&h);
	at = watched(&h, BLOCK);
	cr_assert_eq(h.ops->poison(h.pmap, GM_VA(at), 2 * PAGE, &done), GM_RET_SUCCESS);
	sigaction(SIGBUS, &act, NULL);
	if (sigsetjmp(out_of_sigbus, 1) == 0) {
		char c = *(volatile char *)(at + PAGE);

		cr_assert_fail("read %d from a poisoned page", c);
	}
	cr_assert(no_msg(&h));
	host_end(&h);
}

enum change { DROP, UNMAP, MOVE };

struct changer {
	char *at, *to;
	uint64_t bytes;
	enum change what;
};

static void changer_fn(void *arg)
{
	struct changer *c = arg;

	if (c->what == DROP)
		cr_assert_eq(madvise(c->at, c->bytes, MADV_DONTNEED), 0);
	else if (c->what == UNMAP)
		cr_assert_eq(munmap(c->at, c->bytes), 0);
	else
		cr_assert_eq(mremap(c->at, c->bytes, c->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, c->to), c->to);
}

/* Some kernels tell of the old place of a move once more, as unmapped. */
static void finish_move(struct host *h, struct worker *w, const struct changer *c)
{
	struct gm_host_msg m;

	for (uint64_t end = now_ns() + 5 * SECOND_NS; !atomic_load(&w->done) && now_ns() < end; nap()) {
		if (!h->ops->msg_read(h->pmap, &m, 1))
			continue;
		cr_assert_eq(m.kind, GM_HOST_UNMAP);
		cr_assert(m.va == GM_VA(c->at) && m.bytes == c->bytes);
	}
}

Test(host_events, each_change_is_told_with_its_range)
{
	struct host h;
	struct worker w;
	struct changer c[] = {
		{ .bytes = 3 * PAGE, .what = DROP },
		{ .bytes = 5 * PAGE, .what = UNMAP },
		{ .bytes = 2 * PAGE, .what = MOVE },
	};
	static const enum gm_host_msg_kind kind[] = { GM_HOST_REMOVE, GM_HOST_UNMAP, GM_HOST_REMAP };
	char *at;

	host_begin(&h);
	at = watched(&h, BLOCK);
	for (unsigned i = 0; i < 3; i++) {
		struct gm_host_msg m;

		c[i].at = at + (10 + 20 * i) * PAGE;
		c[i].to = map_app(BLOCK, false) + 7 * PAGE;
		cr_assert(settled(&h));
		worker_start(&w, changer_fn, &c[i]);
		WAIT_FOR(!settled(&h));
		cr_assert(!settled(&h), "an event is unread");
		nap();
		cr_assert_not(atomic_load(&w.done), "the change did not wait for its reader");
		m = next_msg(&h);
		cr_assert_eq(m.kind, kind[i]);
		cr_assert_eq(m.va, GM_VA(c[i].at));
		cr_assert_eq(m.bytes, c[i].bytes);
		cr_assert_eq(m.to, i == 2 ? GM_VA(c[i].to) : 0);
		if (i == 2)
			finish_move(&h, &w, &c[i]);
		worker_join(&w);
		cr_assert(settled(&h));
	}
	cr_assert(no_msg(&h));
	host_end(&h);
}

Test(host_events, nothing_becomes_present_while_an_event_is_unread)
{
	struct host h;
	struct worker w;
	struct changer c = { .bytes = PAGE, .what = DROP };
	char page[GM_PAGE_BYTES] = { 5 };
	uint64_t slot, done;
	char *at;

	host_begin(&h);
	at = map_app(BLOCK, false);
	put_marks(at, 0, GM_BLOCK_PAGES);
	cr_assert_eq(h.ops->watch(h.pmap, GM_VA(at), BLOCK), GM_RET_SUCCESS);
	slot = steal_all(&h, at);
	c.at = at + 300 * PAGE;
	worker_start(&w, changer_fn, &c);
	WAIT_FOR(!settled(&h));
	cr_assert_eq(h.ops->restore(h.pmap, GM_VA(at), slot, PAGE, &done), GM_RET_AGAIN);
	cr_assert_eq(done, 0);
	cr_assert_eq(h.ops->fill(h.pmap, GM_VA(at), page, PAGE, &done), GM_RET_AGAIN);
	cr_assert_eq(h.ops->zero(h.pmap, GM_VA(at), PAGE, &done), GM_RET_AGAIN);
	cr_assert_eq(h.ops->poison(h.pmap, GM_VA(at), PAGE, &done), GM_RET_AGAIN);
	cr_assert_eq(done, 0);
	cr_assert_eq(next_msg(&h).kind, GM_HOST_REMOVE);
	worker_join(&w);
	cr_assert_eq(h.ops->restore(h.pmap, GM_VA(at), slot, PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(wrong_marks(at, 0, 1), 0);
	host_end(&h);
}

Test(host_events, events_come_before_faults)
{
	struct host h;
	struct worker faulter[3], dropper;
	struct touch t[3];
	struct changer c = { .bytes = PAGE, .what = DROP };
	struct gm_host_msg m[8];
	uint64_t done;
	char *at;

	host_begin(&h);
	at = watched(&h, BLOCK);
	c.at = at + 300 * PAGE;
	for (unsigned i = 0; i < 3; i++) {
		t[i] = (struct touch){ at + i * PAGE, false, 1 };
		worker_start(&faulter[i], touch_fn, &t[i]);
	}
	worker_start(&dropper, changer_fn, &c);
	for (unsigned i = 0; i < 50; i++)
		nap();
	/* the kernel gives faults first; one at a time shows what is kept */
	cr_assert_eq(h.ops->msg_read(h.pmap, m, 1), 1);
	cr_assert_eq(m[0].kind, GM_HOST_REMOVE);
	worker_join(&dropper);
	cr_assert(settled(&h), "faults that are kept do not count");
	cr_assert_eq(h.ops->msg_wait(h.pmap, gm_now_ns(h.env)), GM_RET_SUCCESS, "three messages are kept");
	cr_assert_eq(h.ops->msg_read(h.pmap, m, 8), 3);
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(m[i].kind, GM_HOST_FAULT);
	cr_assert_eq(h.ops->zero(h.pmap, GM_VA(at), 3 * PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->wake(h.pmap, GM_VA(at), 3 * PAGE), GM_RET_SUCCESS);
	for (unsigned i = 0; i < 3; i++)
		worker_join(&faulter[i]);
	host_end(&h);
}

Test(host_events, an_event_that_is_kept_is_not_settled)
{
	struct host h;
	struct worker w[2];
	struct changer c[2];
	struct gm_host_msg m;
	char *at;

	host_begin(&h);
	at = watched(&h, BLOCK);
	for (unsigned i = 0; i < 2; i++) {
		c[i] = (struct changer){ .at = at + (size_t)10 * i * PAGE, .bytes = PAGE, .what = DROP };
		worker_start(&w[i], changer_fn, &c[i]);
	}
	for (unsigned i = 0; i < 50; i++)
		nap();
	cr_assert_eq(h.ops->msg_read(h.pmap, &m, 1), 1);
	worker_join(&w[0]);
	worker_join(&w[1]);
	cr_assert_not(settled(&h), "the second was read, but not handed out");
	cr_assert_eq(h.ops->msg_read(h.pmap, &m, 1), 1);
	cr_assert(settled(&h));
	host_end(&h);
}

Test(host_events, unwatched_ranges_are_silent)
{
	struct host h;
	struct worker w;
	struct changer c = { .bytes = PAGE, .what = DROP };
	char *at;

	host_begin(&h);
	at = watched(&h, 2 * BLOCK);
	cr_assert_eq(h.ops->unwatch(h.pmap, GM_VA(at) + BLOCK, BLOCK), GM_RET_SUCCESS);
	put_marks(at + BLOCK, 0, 4);
	c.at = at + BLOCK;
	worker_start(&w, changer_fn, &c);
	worker_join(&w);
	cr_assert_eq(*(volatile char *)(at + BLOCK), 0);
	cr_assert(no_msg(&h));
	host_end(&h);
}

static bool readable(int fd)
{
	struct pollfd p = { fd, POLLIN, 0 };

	return poll(&p, 1, 0) == 1;
}

Test(host_reader, waits_until_the_deadline_or_a_kick)
{
	struct host h;
	uint64_t t0;
	int fd;

	host_begin(&h);
	fd = h.ops->msg_fd(h.pmap);
	cr_assert_not(readable(fd));
	cr_assert_eq(h.ops->msg_wait(h.pmap, 0), GM_RET_TIMEDOUT);
	t0 = now_ns();
	cr_assert_eq(h.ops->msg_wait(h.pmap, gm_deadline_ns(h.env, 20000000)), GM_RET_TIMEDOUT);
	cr_assert_geq(now_ns() - t0, 20000000);
	h.ops->msg_kick(h.pmap);
	h.ops->msg_kick(h.pmap);
	cr_assert(readable(fd));
	cr_assert_eq(h.ops->msg_wait(h.pmap, UINT64_MAX), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->msg_wait(h.pmap, 0), GM_RET_TIMEDOUT, "kicks are taken by one wait");
	cr_assert_not(readable(fd));
	host_end(&h);
}

static void waiter_fn(void *arg)
{
	struct host *h = arg;

	cr_assert_eq(h->ops->msg_wait(h->pmap, gm_deadline_ns(h->env, 8 * SECOND_NS)), GM_RET_SUCCESS);
}

Test(host_reader, a_kick_ends_a_wait)
{
	struct host h;
	struct worker w;
	uint64_t t0 = now_ns();

	host_begin(&h);
	worker_start(&w, waiter_fn, &h);
	for (unsigned i = 0; i < 20; i++)
		nap();
	cr_assert_not(atomic_load(&w.done));
	h.ops->msg_kick(h.pmap);
	worker_join(&w);
	cr_assert_lt(now_ns() - t0, 7 * SECOND_NS);
	host_end(&h);
}

/* More faults at once than are kept: none may be lost. */
Test(host_reader, more_messages_than_room)
{
	enum { N = 600 };
	static struct worker w[N];
	static struct touch t[N];
	static bool seen[N];
	const struct gm_host_pmap *p;
	struct host h;
	struct gm_host_msg m[7];
	unsigned got = 0, announced = 0;
	uint64_t done;
	char *at;

	host_begin(&h);
	p = h.pmap;
	at = watched(&h, 2 * BLOCK);
	for (unsigned i = 0; i < N; i++) {
		t[i] = (struct touch){ at + i * PAGE, false, 1 };
		worker_start(&w[i], touch_fn, &t[i]);
	}
	for (unsigned i = 0; i < 100; i++)
		nap();
	while (got < N) {
		size_t n = h.ops->msg_read(h.pmap, m, 7);

		if (n == 0)
			cr_assert_eq(h.ops->msg_wait(h.pmap, gm_deadline_ns(h.env, 10 * SECOND_NS)), GM_RET_SUCCESS,
				     "%u of %u came", got, (unsigned)N);
		for (size_t i = 0; i < n; i++, got++) {
			uint64_t page = (m[i].va - GM_VA(at)) / PAGE;

			cr_assert(page < N && !seen[page]);
			seen[page] = true;
		}
		/* what is kept, not what is still to come: that not all of them wait by now is no failure */
		if (p->faults.count) {
			cr_assert(readable(h.ops->msg_fd(h.pmap)), "kept messages are not announced");
			announced++;
		}
	}
	cr_assert_gt(announced, 0, "no read left anything");
	cr_assert_eq(h.ops->zero(h.pmap, GM_VA(at), N * PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->wake(h.pmap, GM_VA(at), 2 * BLOCK), GM_RET_SUCCESS);
	for (unsigned i = 0; i < N; i++)
		worker_join(&w[i]);
	host_end(&h);
}

/* The descriptors of a pmap are made one after the other, the pollable one last. */
static int lowest_of(struct host *h)
{
	return h->ops->msg_fd(h->pmap) - 4;
}

Test(host_reader, closed_descriptors_are_reported)
{
	struct host h;
	struct gm_host_msg m;

	host_begin(&h);
	cr_assert_eq(h.logs, 0);
	/* all of the library's are above this one */
	cr_assert_eq(close_range((unsigned)lowest_of(&h), 8000, 0), 0);
	cr_assert_eq(h.ops->msg_wait(h.pmap, gm_deadline_ns(h.env, SECOND_NS)), GM_RET_NODEV);
	cr_assert_eq(h.ops->msg_wait(h.pmap, gm_deadline_ns(h.env, SECOND_NS)), GM_RET_NODEV);
	cr_assert_eq(h.ops->msg_read(h.pmap, &m, 1), 0);
	cr_assert_eq(h.ops->settled(h.pmap), GM_RET_NODEV);
	cr_assert_eq(h.logs, 1, "once is enough: %s", h.log);
	cr_assert_not_null(strstr(h.log, "closed"));
	host_end(&h);
}

/* What the fork hooks were asked, in order. */
struct hooks {
	char calls[64];
	char name;
	gm_ret_t answer;
	struct hooks *all;
};

static void note(struct hooks *k, char what)
{
	size_t n = strlen(k->all->calls);

	k->all->calls[n] = what;
	k->all->calls[n + 1] = k->name;
}

static gm_ret_t freeze(void *arg)
{
	note(arg, 'f');
	return ((struct hooks *)arg)->answer;
}

static void thaw(void *arg)
{
	note(arg, 't');
}

static void fork_once(const struct hooks *k)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		size_t calls = strlen(k->calls);
		pid_t inner = fork();

		if (inner == 0)
			_exit(0);
		if (waitpid(inner, &status, 0) != inner || status)
			_exit(1);
		/* its parent's pmaps are none of a child's business */
		_exit(strlen(k->calls) == calls ? 0 : 2);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
}

Test(host_fork, freezes_before_and_thaws_in_the_parent)
{
	struct host h;
	struct hooks a = { .name = 'a', .answer = GM_RET_SUCCESS }, b = { .name = 'b', .answer = GM_RET_TIMEDOUT };
	void *second;

	a.all = b.all = &a;
	host_begin(&h);
	cr_assert_eq(h.mmu->pmap_create(h.dev, &second), GM_RET_SUCCESS);
	h.ops->at_fork(h.pmap, freeze, thaw, &a);
	h.ops->at_fork(second, freeze, thaw, &b);
	fork_once(&a);
	cr_assert(strcmp(a.calls, "fafbta") == 0 || strcmp(a.calls, "fbfata") == 0, "%s", a.calls);
	cr_assert_eq(h.logs, 1, "a freeze failed");
	memset(a.calls, 0, sizeof(a.calls));
	h.mmu->pmap_destroy(second);
	h.ops->at_fork(h.pmap, freeze, thaw, &a);
	fork_once(&a);
	cr_assert_str_eq(a.calls, "fata");
	host_end(&h);
	fork_once(&a);
	cr_assert_str_eq(a.calls, "fata", "a pmap that is gone was asked");
}

/* What a program with an address space does: the frozen state is what a child inherits. */
struct homing {
	struct host *h;
	char *at;
	uint64_t slot;
};

static gm_ret_t bring_home(void *arg)
{
	struct homing *k = arg;
	uint64_t done;

	return k->h->ops->restore(k->h->pmap, GM_VA(k->at), k->slot, BLOCK, &done);
}

static void nothing(void *arg)
{
	(void)arg;
}

Test(host_fork, child_reads_what_was_brought_home)
{
	struct host h;
	struct homing k;
	pid_t pid;
	int status;

	host_begin(&h);
	k.h = &h;
	k.at = map_app(BLOCK, false);
	put_marks(k.at, 0, GM_BLOCK_PAGES);
	cr_assert_eq(h.ops->watch(h.pmap, GM_VA(k.at), BLOCK), GM_RET_SUCCESS);
	k.slot = steal_all(&h, k.at);
	h.ops->at_fork(h.pmap, bring_home, nothing, &k);
	pid = fork();
	if (pid == 0)
		_exit(wrong_marks(k.at, 0, GM_BLOCK_PAGES) != 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "the child read something else");
	host_end(&h);
}
