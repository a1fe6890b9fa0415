/* SPDX-License-Identifier: MIT */
/*
 * The application of the simulated process: accesses that wait, events and
 * their order against pages, fork. Each expectation is a measured behaviour of
 * Linux with a userfaultfd (messages sorted: events before faults).
 */
#include "sim_host_fixture.h"

static const char text_page[GM_PAGE_BYTES] = "a page of text";

/* --------------------------------------------------------------- accesses */

HOST_TEST(sim_app, unwatched_memory_is_zero_at_once)
{
	struct host_world *w = arg;
	uint64_t va = gm_sim_mmap(w->sim, 4 * PAGE, RW), old, none = 0;
	char text[32] = "over the border";
	struct gm_sim_stats stats;

	cr_assert_eq(load_u64(w, va), 0);
	cr_assert_eq(gm_sim_store(w->sim, va + PAGE - 5, text, 16), GM_RET_SUCCESS);
	memset(text, 0, sizeof(text));
	cr_assert_eq(gm_sim_load(w->sim, va + PAGE - 5, text, 16), GM_RET_SUCCESS);
	cr_assert_str_eq(text, "over the border");
	cr_assert_eq(gm_sim_fetch_add(w->sim, va + 2 * PAGE, 5, &old), GM_RET_SUCCESS);
	cr_assert_eq(old, 0);
	cr_assert_eq(gm_sim_fetch_add(w->sim, va + 2 * PAGE, 5, &old), GM_RET_SUCCESS);
	cr_assert_eq(old, 5);
	cr_assert_eq(gm_sim_fetch_add(w->sim, va + 1, 5, &old), GM_RET_INVAL);
	cr_assert_eq(gm_sim_load(w->sim, va + 4 * PAGE, &none, 8), GM_RET_FAULT);
	cr_assert_eq(gm_sim_store(w->sim, va + 4 * PAGE - 4, &none, 8), GM_RET_FAULT, "half outside");
	gm_sim_mprotect(w->sim, va, PAGE, GM_READ);
	cr_assert_eq(gm_sim_store(w->sim, va, &none, 8), GM_RET_FAULT);
	cr_assert_eq(gm_sim_fetch_add(w->sim, va, 1, &old), GM_RET_FAULT);
	cr_assert_eq(load_u64(w, va), 0);
	gm_sim_mprotect(w->sim, va, PAGE, 0);
	cr_assert_eq(gm_sim_load(w->sim, va, &none, 8), GM_RET_FAULT);
	gm_sim_stats(w->sim, &stats);
	cr_assert_eq(stats.faults + stats.events, 0);
}

static void store_1(void *arg)
{
	struct host_world *w = arg;

	store_u64(w, w->va, 1);
	w->done = true;
}

static void load_1(void *arg)
{
	struct host_world *w = arg;

	w->value = load_u64(w, w->va);
	w->done = true;
}

HOST_TEST(sim_app, absent_and_watched_waits_for_wake)
{
	struct host_world *w = arg;
	uint64_t done, value;
	struct gm_thread *t;
	struct gm_host_msg msg;

	w->va = map_watched(w, 4 * PAGE) + PAGE + 24;
	t = spawn(w, store_1, w);
	msg = next_msg(w);
	cr_assert(msg.kind == GM_HOST_FAULT && msg.write && msg.va == w->va - 24 && msg.thread_id == 2);
	cr_assert_eq(w->op->msg_read(w->pmap, &msg, 1), 0, "one message");
	sleep_long(w);
	cr_assert_not(w->done);
	w->op->wake(w->pmap, msg.va - PAGE, PAGE);
	w->op->wake(w->pmap, msg.va + PAGE, PAGE);
	cr_assert_eq(w->op->zero(w->pmap, msg.va - PAGE, PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(w->op->zero(w->pmap, msg.va + PAGE, PAGE, &done), GM_RET_SUCCESS);
	sleep_long(w);
	cr_assert_not(w->done, "woken by its neighbours");
	/* making the page present is enough: nobody has to say so */
	cr_assert_eq(w->op->zero(w->pmap, msg.va, PAGE, &done), GM_RET_SUCCESS);
	join(w, t);
	cr_assert_eq(peek(w, w->va, &value), GM_RET_SUCCESS);
	cr_assert_eq(value, 1);
}

HOST_TEST(sim_app, wake_without_the_page_asks_again)
{
	struct host_world *w = arg;
	uint64_t done;
	struct gm_thread *t;

	w->va = map_watched(w, PAGE);
	t = spawn(w, load_1, w);
	for (int i = 0; i < 3; i++) {
		struct gm_host_msg msg = next_msg(w);

		cr_assert(msg.kind == GM_HOST_FAULT && msg.va == w->va && !msg.write);
		w->op->wake(w->pmap, w->va, PAGE);
	}
	next_msg(w);
	w->op->fill(w->pmap, w->va, text_page, PAGE, &done);
	w->op->wake(w->pmap, w->va, PAGE);
	join(w, t);
	cr_assert_eq(memcmp(&w->value, text_page, 8), 0);
}

HOST_TEST(sim_app, two_threads_two_messages)
{
	struct host_world *w = arg;
	struct gm_thread *t[2];
	struct gm_host_msg msg[4];
	uint64_t done;

	w->va = map_watched(w, PAGE);
	t[0] = spawn(w, load_1, w);
	t[1] = spawn(w, load_1, w);
	sleep_long(w);
	cr_assert_eq(w->op->msg_read(w->pmap, msg, 4), 2);
	cr_assert_neq(msg[0].thread_id, msg[1].thread_id);
	cr_assert_eq(w->op->zero(w->pmap, w->va, PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(w->op->zero(w->pmap, w->va, PAGE, &done), GM_RET_EXIST);
	w->op->wake(w->pmap, w->va, PAGE);
	join(w, t[0]);
	join(w, t[1]);
}

static void signalled_body(void *arg)
{
	struct host_world *w = arg;
	uint64_t va = map_watched(w, 200 * PAGE), done;
	struct gm_thread *t[200];
	struct host_world each[200];
	struct gm_sim_stats stats;

	for (int i = 0; i < 200; i++) {
		each[i] = *w;
		each[i].va = va + (uint64_t)i * PAGE;
		t[i] = spawn(w, store_1, &each[i]);
	}
	sleep_long(w);
	gm_sim_stats(w->sim, &stats);
	w->value = stats.faults;
	for (int i = 0; i < 200; i++) {
		while (w->op->zero(w->pmap, each[i].va, PAGE, &done) == GM_RET_AGAIN)
			gm_yield(w->env);
		w->op->wake(w->pmap, each[i].va, PAGE);
		join(w, t[i]);
		cr_assert(each[i].done);
	}
}

Test(sim_app, a_signal_makes_a_second_message)
{
	struct host_world w;

	for (int spurious = 0; spurious < 2; spurious++) {
		host_world_open(&w, 1, spurious);
		cr_assert(gm_sim_run(w.sim, signalled_body, &w));
		if (spurious)
			cr_assert_gt(w.value, 200);
		else
			cr_assert_eq(w.value, 200);
		host_world_close(&w);
	}
}

HOST_TEST(sim_app, unwatch_lets_waiters_go)
{
	struct host_world *w = arg;
	struct gm_thread *t;

	w->value = 1;
	w->va = map_watched(w, PAGE);
	t = spawn(w, load_1, w);
	next_msg(w);
	w->op->unwatch(w->pmap, w->va, PAGE);
	join(w, t);
	cr_assert_eq(w->value, 0);
}

HOST_TEST(sim_app, destroying_the_view_shows_zeros)
{
	struct host_world *w = arg;
	struct gm_thread *t;

	w->value = 1;
	w->va = map_watched(w, PAGE);
	t = spawn(w, load_1, w);
	next_msg(w);
	gm_sim_host_mmu()->pmap_destroy(w->pmap);
	join(w, t);
	cr_assert_eq(w->value, 0, "as after close(uffd)");
	cr_assert_eq(gm_sim_host_mmu()->pmap_create(w->dev, &w->pmap), GM_RET_SUCCESS);
}

HOST_TEST(sim_app, mlock_brings_pages_in)
{
	struct host_world *w = arg;
	uint64_t va = gm_sim_mmap(w->sim, 4 * PAGE, RW);
	struct gm_host_vma vma;
	struct gm_mask m;

	cr_assert_eq(gm_sim_mlock(w->sim, va, 2 * PAGE, true), GM_RET_SUCCESS);
	w->op->mem_present(w->pmap, va, &m);
	cr_assert(is_span(m, 0, 2));
	w->op->mem_probe(w->pmap, va, &vma);
	cr_assert(vma.locked && vma.bytes == 2 * PAGE);
	cr_assert_eq(gm_sim_dontneed(w->sim, va, PAGE), GM_RET_INVAL);
	gm_sim_mlock(w->sim, va, 2 * PAGE, false);
	cr_assert_eq(gm_sim_dontneed(w->sim, va, PAGE), GM_RET_SUCCESS);
	w->op->mem_present(w->pmap, va, &m);
	cr_assert(is_span(m, 1, 2));
}

/* ----------------------------------------------------------------- events */

static void dontneed(void *arg)
{
	struct host_world *w = arg;

	w->ret = gm_sim_dontneed(w->sim, w->va, w->bytes);
	w->done = true;
}

static void munmap_it(void *arg)
{
	struct host_world *w = arg;

	w->ret = gm_sim_munmap(w->sim, w->va, w->bytes);
	w->done = true;
}

static void mmap_over(void *arg)
{
	struct host_world *w = arg;

	w->ret = gm_sim_mmap_at(w->sim, w->va, w->bytes, RW) == w->va ? GM_RET_SUCCESS : GM_RET_FAULT;
	w->done = true;
}

static void mremap_it(void *arg)
{
	struct host_world *w = arg;

	w->value = gm_sim_mremap(w->sim, w->va, w->bytes);
	w->done = true;
}

/* Two written pages at w->va, watched (with 6 more), and a slot with the 8th page in it. */
static void two_pages(struct host_world *w)
{
	w->va = gm_sim_mmap(w->sim, BLOCK, RW);
	w->bytes = 2 * PAGE;
	store_u64(w, w->va, 1);
	store_u64(w, w->va + PAGE, 2);
	store_u64(w, w->va + 7 * PAGE, 7);
	w->op->watch(w->pmap, w->va, 8 * PAGE);
	w->op->slot_alloc(w->pmap, &w->slot);
	steal(w, w->va, 7, 8);
}

/* While an event is unread, and until its thread runs again, nothing can be changed. */
static void assert_changing(struct host_world *w, gm_ret_t expected)
{
	struct gm_mask want = gm_mask_span(6, 7);
	struct gm_host_steal out;
	uint64_t done;

	cr_assert_eq(w->op->settled(w->pmap), expected);
	cr_assert_eq(w->op->steal(w->pmap, w->va, &want, w->slot, &out), expected);
	cr_assert_eq(gm_mask_empty(&out.moved), expected != GM_RET_SUCCESS);
	cr_assert_eq(w->op->restore(w->pmap, w->va + 7 * PAGE, w->slot + 7 * PAGE, PAGE, &done), expected);
	cr_assert_eq(w->op->fill(w->pmap, w->va + 5 * PAGE, text_page, PAGE, &done), expected);
	cr_assert_eq(w->op->zero(w->pmap, w->va + 4 * PAGE, PAGE, &done), expected);
	cr_assert_eq(w->op->poison(w->pmap, w->va + 3 * PAGE, PAGE, &done), expected);
	cr_assert_eq(done, expected == GM_RET_SUCCESS ? PAGE : 0);
}

HOST_TEST(sim_app, dontneed_says_so_before_it_acts)
{
	struct host_world *w = arg;
	struct gm_thread *t;
	struct gm_host_msg msg;
	uint64_t value;

	two_pages(w);
	t = spawn(w, dontneed, w);
	sleep_long(w);
	cr_assert_not(w->done, "waits for its event to be read");
	cr_assert_eq(peek(w, w->va, &value), GM_RET_SUCCESS, "the pages are still there");
	assert_changing(w, GM_RET_AGAIN);
	msg = next_msg(w);
	cr_assert(msg.kind == GM_HOST_REMOVE && msg.va == w->va && msg.bytes == 2 * PAGE);
	cr_assert_eq(peek(w, w->va, &value), GM_RET_SUCCESS, "and even now");
	cr_assert_eq(w->op->settled(w->pmap), GM_RET_AGAIN, "its thread has not run yet");
	join(w, t);
	cr_assert_eq(w->ret, GM_RET_SUCCESS);
	cr_assert_eq(peek(w, w->va, &value), GM_RET_FAULT);
	cr_assert_eq(peek(w, w->va + PAGE, &value), GM_RET_FAULT);
	assert_changing(w, GM_RET_SUCCESS);
	w->op->slot_free(w->pmap, w->slot);
}

HOST_TEST(sim_app, munmap_acts_before_it_says_so)
{
	struct host_world *w = arg;
	struct gm_thread *t;
	struct gm_host_msg msg;
	struct gm_host_vma vma;

	two_pages(w);
	t = spawn(w, munmap_it, w);
	sleep_long(w);
	cr_assert_not(w->done);
	cr_assert_eq(w->op->mem_probe(w->pmap, w->va, &vma), GM_RET_FAULT, "gone before the event is read");
	assert_changing(w, GM_RET_AGAIN);
	msg = next_msg(w);
	cr_assert(msg.kind == GM_HOST_UNMAP && msg.va == w->va && msg.bytes == 2 * PAGE);
	join(w, t);
	assert_changing(w, GM_RET_SUCCESS);
	w->op->slot_free(w->pmap, w->slot);
}

HOST_TEST(sim_app, an_address_is_used_again_before_the_event_is_read)
{
	struct host_world *w = arg;
	struct gm_mask want = gm_mask_span(0, 1);
	struct gm_host_steal out;
	struct gm_thread *t;
	struct gm_sim_stats stats;
	uint64_t done;

	two_pages(w);
	w->bytes = BLOCK;
	t = spawn(w, munmap_it, w);
	sleep_long(w);
	cr_assert_eq(gm_sim_mmap(w->sim, BLOCK, RW), w->va);
	store_u64(w, w->va, 99);
	gm_sim_stats(w->sim, &stats);
	cr_assert_eq(stats.watched_pages, 0);
	cr_assert_eq(next_msg(w).kind, GM_HOST_UNMAP);
	join(w, t);
	/* the library has not looked at the event yet: it must not get at the new memory */
	cr_assert_eq(w->op->steal(w->pmap, w->va, &want, w->slot, &out), GM_RET_FAULT);
	cr_assert_eq(w->op->restore(w->pmap, w->va + 7 * PAGE, w->slot + 7 * PAGE, PAGE, &done), GM_RET_FAULT);
	cr_assert_eq(load_u64(w, w->va), 99);
	w->op->slot_free(w->pmap, w->slot);
}

HOST_TEST(sim_app, mapping_over_is_an_unmap)
{
	struct host_world *w = arg;
	struct gm_thread *t;
	struct gm_host_msg msg;

	two_pages(w);
	t = spawn(w, mmap_over, w);
	sleep_long(w);
	cr_assert_not(w->done);
	cr_assert_eq(load_u64(w, w->va), 0, "the new mapping is there, unwatched");
	msg = next_msg(w);
	cr_assert(msg.kind == GM_HOST_UNMAP && msg.va == w->va && msg.bytes == 2 * PAGE);
	join(w, t);
	cr_assert_eq(w->ret, GM_RET_SUCCESS);
	w->op->slot_free(w->pmap, w->slot);
}

HOST_TEST(sim_app, mremap_takes_the_watch_along)
{
	struct host_world *w = arg;
	struct gm_thread *t, *reader;
	struct gm_host_steal out;
	struct gm_host_msg msg;
	uint64_t done, old, value;
	unsigned first;

	two_pages(w);
	old = w->va;
	w->bytes = 8 * PAGE;
	t = spawn(w, mremap_it, w);
	msg = next_msg(w);
	cr_assert(msg.kind == GM_HOST_REMAP && msg.va == old && msg.bytes == 8 * PAGE);
	value = msg.to;
	sleep_long(w);
	cr_assert_not(w->done, "one event more");
	cr_assert_eq(w->op->settled(w->pmap), GM_RET_AGAIN);
	msg = next_msg(w);
	cr_assert(msg.kind == GM_HOST_UNMAP && msg.va == old && msg.bytes == 8 * PAGE);
	join(w, t);
	cr_assert_eq(w->value, value);
	cr_assert_eq(load_u64(w, w->value), 1, "frames moved");
	cr_assert_eq(load_u64(w, w->value + PAGE), 2);
	cr_assert_eq(gm_sim_load(w->sim, old, &value, 8), GM_RET_FAULT);
	/* and what was away still is, and waits at the new address */
	w->va = w->value + 7 * PAGE;
	w->done = false;
	reader = spawn(w, load_1, w);
	msg = next_msg(w);
	cr_assert(msg.kind == GM_HOST_FAULT && msg.va == w->va);
	cr_assert_eq(w->op->restore(w->pmap, w->va, w->slot + 7 * PAGE, PAGE, &done), GM_RET_SUCCESS);
	w->op->wake(w->pmap, w->va, PAGE);
	join(w, reader);
	cr_assert_eq(w->value, 7);
	first = (unsigned)(w->va % BLOCK / PAGE);
	out = steal(w, w->va - w->va % BLOCK, first, first + 1);
	cr_assert_eq(gm_mask_count(&out.moved), 1, "it can be taken again");
	w->op->slot_free(w->pmap, w->slot);
}

HOST_TEST(sim_app, unwatched_memory_makes_no_events)
{
	struct host_world *w = arg;
	uint64_t va = gm_sim_mmap(w->sim, 4 * PAGE, RW);
	struct gm_sim_stats stats;

	store_u64(w, va, 1);
	cr_assert_eq(gm_sim_dontneed(w->sim, va, PAGE), GM_RET_SUCCESS);
	cr_assert_eq(load_u64(w, va), 0);
	va = gm_sim_mremap(w->sim, va, 4 * PAGE);
	cr_assert_neq(va, 0);
	cr_assert_eq(gm_sim_munmap(w->sim, va, 4 * PAGE), GM_RET_SUCCESS);
	cr_assert_eq(gm_sim_dontneed(w->sim, va, PAGE), GM_RET_FAULT);
	cr_assert_eq(gm_sim_mprotect(w->sim, va, PAGE, RW), GM_RET_FAULT);
	cr_assert_eq(gm_sim_mremap(w->sim, va, PAGE), 0);
	cr_assert_eq(gm_sim_munmap(w->sim, va + 1, PAGE), GM_RET_INVAL);
	gm_sim_stats(w->sim, &stats);
	cr_assert_eq(stats.events, 0);
}

HOST_TEST(sim_app, events_come_before_faults)
{
	struct host_world *w = arg;
	struct gm_host_msg msg[4];
	struct host_world other;
	struct gm_thread *fault, *event;
	uint64_t done;

	two_pages(w);
	other = *w;
	other.va += 7 * PAGE;
	fault = spawn(w, load_1, &other);
	sleep_long(w);
	event = spawn(w, dontneed, w);
	sleep_long(w);
	cr_assert_eq(w->op->msg_read(w->pmap, msg, 4), 2);
	cr_assert_eq(msg[0].kind, GM_HOST_REMOVE);
	cr_assert_eq(msg[1].kind, GM_HOST_FAULT);
	join(w, event);
	w->op->restore(w->pmap, other.va, w->slot + 7 * PAGE, PAGE, &done);
	w->op->wake(w->pmap, other.va, PAGE);
	join(w, fault);
	cr_assert_eq(other.value, 7);
	w->op->slot_free(w->pmap, w->slot);
}

static void kick_later(void *arg)
{
	struct host_world *w = arg;

	sleep_long(w);
	w->op->msg_kick(w->pmap);
}

HOST_TEST(sim_app, waiting_for_messages)
{
	struct host_world *w = arg;
	uint64_t deadline = gm_now_ns(w->env) + 5000000;
	struct gm_thread *t;

	cr_assert_eq(w->op->msg_fd(w->pmap), -1);
	cr_assert_eq(w->op->msg_wait(w->pmap, deadline), GM_RET_TIMEDOUT);
	cr_assert_geq(gm_now_ns(w->env), deadline);
	t = spawn(w, kick_later, w);
	cr_assert_eq(w->op->msg_wait(w->pmap, UINT64_MAX), GM_RET_SUCCESS);
	join(w, t);
	w->op->msg_kick(w->pmap);
	cr_assert_eq(w->op->msg_wait(w->pmap, UINT64_MAX), GM_RET_SUCCESS, "a kick is kept");
	cr_assert_eq(w->op->msg_wait(w->pmap, gm_now_ns(w->env) + 1000), GM_RET_TIMEDOUT, "once");
}

static void forget_to_read(void *arg)
{
	struct host_world *w = arg;

	two_pages(w);
	dontneed(w);
}

Test(sim_app, nobody_reads_and_the_deadlock_is_seen)
{
	struct host_world w;
	char text[256];

	host_world_open(&w, 1, false);
	cr_assert_not(gm_sim_run(w.sim, forget_to_read, &w));
	gm_sim_report(w.sim, text, sizeof(text));
	cr_assert_not_null(strstr(text, "an event that nobody reads"), "%s", text);
	w.op->slot_free(w.pmap, w.slot);
	host_world_close(&w);
}

/* ------------------------------------------------------------------- fork */

static gm_ret_t bring_home(void *arg)
{
	struct host_world *w = arg;
	uint64_t done;

	cr_assert_not(w->stop);
	w->stop = true;
	return w->op->restore(w->pmap, w->va + 7 * PAGE, w->slot + 7 * PAGE, PAGE, &done);
}

static void thaw(void *arg)
{
	struct host_world *w = arg;

	cr_assert(w->stop);
	w->stop = false;
	w->done = true;
}

/* It keeps its bytes, and its own stores, whatever the parent does with the page; and the parent keeps his. */
HOST_TEST(sim_app, a_child_keeps_what_it_had)
{
	struct host_world *w = arg;
	uint64_t va = gm_sim_mmap(w->sim, 4 * PAGE, GM_READ | GM_WRITE), value = 1, other = 2;
	struct gm_sim_child *child;

	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(gm_sim_store(w->sim, va + i * PAGE, &value, 8), GM_RET_SUCCESS);
	cr_assert_eq(gm_sim_pin(w->sim, va + 2 * PAGE), GM_RET_SUCCESS);
	child = gm_sim_fork(w->sim);
	cr_assert_eq(gm_sim_store(w->sim, va, &other, 8), GM_RET_SUCCESS);
	cr_assert_eq(w->op->bus_access(w->sim, va + 2 * PAGE, &other, 8, true), GM_RET_SUCCESS, "DMA");
	other = 3;
	cr_assert_eq(gm_sim_child_store(child, va + PAGE, &other, 8), GM_RET_SUCCESS);
	cr_assert_eq(gm_sim_child_store(child, va + 3 * PAGE, &other, 8), GM_RET_NOTSUP);
	cr_assert_eq(gm_sim_child_store(child, va + 2 * PAGE - 4, &other, 8), GM_RET_INVAL);
	for (unsigned i = 0; i < 4; i++) {
		static const uint64_t childs[] = { 1, 3, 1, 0 }, parents[] = { 2, 1, 2, 0 };

		cr_assert_eq(gm_sim_child_load(child, va + i * PAGE, &value, 8), GM_RET_SUCCESS);
		cr_assert_eq(value, childs[i]);
		cr_assert_eq(gm_sim_load(w->sim, va + i * PAGE, &value, 8), GM_RET_SUCCESS);
		cr_assert_eq(value, parents[i]);
	}
	cr_assert_eq(gm_sim_munmap(w->sim, va, 4 * PAGE), GM_RET_SUCCESS);
	cr_assert_eq(gm_sim_child_load(child, va, &value, 8), GM_RET_SUCCESS);
	cr_assert_eq(value, 1, "also when the parent has nothing there any more");
	gm_sim_child_exit(child);
}

HOST_TEST(sim_app, a_child_reads_zeros_unless_all_is_home)
{
	struct host_world *w = arg;
	uint64_t value = 5;

	two_pages(w);
	cr_assert_eq(gm_sim_fork_snapshot(w->sim, w->va, &value, 8), GM_RET_SUCCESS);
	cr_assert_eq(value, 1);
	cr_assert_eq(gm_sim_fork_snapshot(w->sim, w->va + 7 * PAGE, &value, 8), GM_RET_SUCCESS);
	cr_assert_eq(value, 0, "the bug");
	w->op->at_fork(w->pmap, bring_home, thaw, w);
	cr_assert_eq(gm_sim_fork_snapshot(w->sim, w->va + 7 * PAGE, &value, 8), GM_RET_SUCCESS);
	cr_assert_eq(value, 7, "the cure");
	cr_assert(w->done && !w->stop);
	cr_assert_eq(gm_sim_fork_snapshot(w->sim, w->va + BLOCK, &value, 8), GM_RET_FAULT);
	w->op->slot_free(w->pmap, w->slot);
}
