/* SPDX-License-Identifier: MIT */
/* Shared memory that others may map: other processes, children, other spaces, and what is refused. */
#include "config.h"

#include "shared_fixture.h"

TestSuite(shared_export, .timeout = 300);

/* --------------------------------------------------------------- export */

/* Another process: maps the descriptor, waits for a turn, checks, writes. */
static int other_process(int fd, struct turns *t)
{
	char *at = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint64_t bad = at == MAP_FAILED;

	child_signals();
	for (uint64_t salt = 2; salt < 8 && !bad; salt += 2) {
		turn_await(t->down[0]);
		bad += wrong(at, 0, PAGES, salt);
		fill(at, 0, PAGES, salt + 1);
		turn_give(t->up[1]);
	}
	return bad ? 1 : 0;
}

/* Bytes come home and stay there; a device and another process see each other's stores, page by page in turns. */
static void exported(uint32_t flags)
{
	struct sharer s;
	struct forker *f = &s.f;
	struct turns t;
	int fd = -1, again = -1;
	pid_t pid;

	begin(&s, flags);
	turns_init(&t);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	OK(gm_shared_fd(f->as, f->at, &fd));
	cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	cr_assert_eq(in_place(f, f->at, PAGES), PAGES);
	cr_assert_eq(frames(f->at, PAGES), PAGES);
	cr_assert(dev_all_free(f->dev));
	pid = fork();
	if (pid == 0)
		_exit(other_process(fd, &t));
	for (uint64_t salt = 2; salt < 8; salt += 2) {
		dev_fill(salt & 4 ? f->ctx : s.ctx2, GM_VA(f->at), PAGES, salt);
		turn_give(t.down[1]);
		turn_await(t.up[0]);
		cr_assert_eq(wrong(f->at, 0, PAGES, salt + 1), 0);
		cr_assert_eq(dev_wrong(f->ctx, GM_VA(f->at), PAGES, salt + 1), 0);
		cr_assert_eq(dev_wrong(s.ctx2, GM_VA(f->at), PAGES, salt + 1), 0);
	}
	cr_assert(exited(ended(pid), 0));
	cr_assert_eq(in_place(f, f->at, PAGES), PAGES, "for good");
	cr_assert(dev_all_free(f->dev) && dev_all_free(s.dev2));
	IS(gm_migrate(f->as, GM_VA(f->at), BYTES, f->dev, NULL), GM_RET_BUSY);
	OK(gm_shared_fd(f->as, f->at, &again));
	cr_assert(again >= 0 && again != fd);
	cr_assert(exited(child_reads(f->at, 0, PAGES, 7), 0), "children inherit it");
	close(again);
	OK(gm_free(f->as, f->at));
	IS(dev_touch(f->ctx, GM_VA(f->at), false), GM_RET_FAULT);
	cr_assert_eq(msync(f->at, BYTES, MS_ASYNC), -1, "unmapped");
	close(fd);
	end(&s);
}

Test(shared_export, exported)
{
	exported(0);
}

Test(shared_export, exported_exclusively)
{
	exported(GM_AS_EXCLUSIVE);
}

/* A child that inherits exported memory, and its parent's devices. */
Test(shared_export, child_and_devices_see_each_other)
{
	struct sharer s;
	struct forker *f = &s.f;
	struct turns t;
	int fd = -1;
	pid_t pid;

	begin(&s, 0);
	turns_init(&t);
	OK(gm_shared_fd(f->as, f->at, &fd));
	close(fd);
	pid = fork();
	if (pid == 0) {
		child_signals();
		turn_await(t.down[0]);
		if (wrong(f->at, 0, PAGES, 2))
			_exit(1);
		fill(f->at, 0, PAGES, 3);
		_exit(0);
	}
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	turn_give(t.down[1]);
	cr_assert(exited(ended(pid), 0));
	cr_assert_eq(dev_wrong(f->ctx, GM_VA(f->at), PAGES, 3), 0);
	end(&s);
}

/* Devices that go on taking pages do not keep an export from ending, and none of their accesses fails. */
static gm_ret_t busy_kernel(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct dev_job *job = arg;
	gm_ret_t ret = GM_RET_SUCCESS;

	for (uint64_t round = index * 7; !ret && !__atomic_load_n(&job->wrong, __ATOMIC_RELAXED); round++) {
		uint64_t i = round % job->pages, value = word(i, job->salt);

		ret = gm_mock_store(t, word_va(job->va, i), &value, sizeof(value));
		gm_mock_yield(t);
	}
	return ret;
}

Test(shared_export, exported_while_a_device_works)
{
	struct gm_as_config config = { .size = sizeof(config), .slice_ns = 1 }; /* what came home may go at once */
	struct sharer s;
	struct forker *f = &s.f;
	struct gm_fence *fence[2];
	struct dev_job job;
	int fd = -1;

	begin_with(&s, &config);
	for (unsigned round = 0; round < 20; round++) {
		void *p = NULL;

		OK(gm_alloc_shared(f->as, BYTES, 0, &p));
		fill(p, 0, PAGES, 9);
		job = (struct dev_job){ .va = GM_VA(p), .pages = PAGES, .salt = 9 };
		OK(gm_mock_launch(f->ctx, busy_kernel, &job, 4, &fence[0]));
		OK(gm_mock_launch(s.ctx2, busy_kernel, &job, 4, &fence[1]));
		while (!on_device(f, p, 1))
			sched_yield();
		OK(gm_shared_fd(f->as, p, &fd));
		close(fd);
		cr_assert_eq(in_place(f, p, PAGES), PAGES, "a descriptor for what is on a device");
		while (!dev_all_free(f->dev) || !dev_all_free(s.dev2)) /* who came too late gives back what he had reserved */
			sched_yield();
		__atomic_store_n(&job.wrong, 1, __ATOMIC_RELAXED);
		for (unsigned i = 0; i < 2; i++) {
			OK(gm_fence_wait(fence[i], GM_FOREVER_NS));
			gm_fence_put(fence[i]);
		}
		cr_assert_eq(wrong(p, 0, PAGES, 9), 0);
		OK(gm_free(f->as, p));
	}
	end(&s);
}

Test(shared_export, export_waits_for_nobody_who_holds_it)
{
	struct sharer s;
	struct forker *f = &s.f;
	struct gm_ws_range range;
	struct gm_ws *ws = NULL;
	int fd = -1;

	begin(&s, 0);
	range = (struct gm_ws_range){ .va = GM_VA(f->at), .bytes = BLOCK, .access = RW };
	OK(gm_ws_acquire(f->ctx, &range, 1, GM_FOREVER_NS, &ws));
	IS(gm_shared_fd(f->as, f->at, &fd), GM_RET_BUSY);
	cr_assert_eq(place_of(f, f->at + BLOCK), GM_PLACE_HOST);
	IS(gm_free(f->as, f->at), GM_RET_BUSY);
	OK(gm_ws_release(ws, NULL));
	OK(gm_shared_fd(f->as, f->at, &fd));
	close(fd);
	/* In place it can be held as well. */
	OK(gm_ws_acquire(f->ctx, &range, 1, GM_FOREVER_NS, &ws));
	IS(gm_free(f->as, f->at), GM_RET_BUSY);
	cr_assert_eq(in_place(f, f->at, PAGES), PAGES);
	OK(gm_ws_release(ws, NULL));
	OK(gm_free(f->as, f->at));
	end(&s);
}

/* ------------------------------------------------------------------ map */

/* Two spaces of two instances, a device each, over the same bytes. */
Test(shared_export, mapped_in_another_space)
{
	struct sharer a, b;
	void *p = NULL;
	char *there;
	int fd = -1;

	begin(&a, 0);
	begin(&b, GM_AS_EXCLUSIVE);
	dev_fill(a.f.ctx, GM_VA(a.f.at), PAGES, 1);
	OK(gm_shared_fd(a.f.as, a.f.at, &fd));
	IS(gm_map_shared(b.f.as, fd, PAGE, BYTES, 0, &p), GM_RET_INVAL);
	OK(gm_map_shared(b.f.as, fd, 4 * PAGE, BLOCK, 0, &p));
	there = p;
	cr_assert_eq(GM_VA(there) % BLOCK, 0);
	cr_assert_eq(in_place(&b.f, there, PAGES / 2), PAGES / 2);
	for (uint64_t i = 0; i < PAGES / 2; i += 7) { /* its page i is page i + 4 */
		uint64_t value = word(i + 4, 1);

		cr_assert_eq(*(volatile uint64_t *)(there + (word_va(0, i + 4) - 4 * PAGE)), value);
	}
	dev_fill(b.f.ctx, GM_VA(there), 100, 3);
	for (uint64_t i = 0; i < 100; i++)
		cr_assert_eq(*(volatile uint64_t *)(a.f.at + 4 * PAGE + word_va(0, i)), word(i, 3));
	cr_assert_eq(dev_wrong(a.f.ctx, GM_VA(a.f.at) + 4 * PAGE, 100, 3), 0);
	dev_fill(a.f.ctx, GM_VA(a.f.at) + 4 * PAGE, 100, 4);
	cr_assert_eq(dev_wrong(b.ctx2, GM_VA(there), 100, 4), 0);
	/* The last one keeps the bytes. */
	OK(gm_free(a.f.as, a.f.at));
	close(fd);
	cr_assert_eq(dev_wrong(b.f.ctx, GM_VA(there), 100, 4), 0);
	OK(gm_shared_fd(b.f.as, there, &fd));
	close(fd);
	OK(gm_free(b.f.as, there));
	end(&a);
	end(&b);
}

Test(shared_export, what_is_refused)
{
	struct sharer s;
	struct forker *f = &s.f;
	void *p = NULL, *owned = NULL;
	int fd = memfd_create("other", MFD_CLOEXEC), ours = -1, none = -1;
	char *foreign;

	begin(&s, 0);
	cr_assert_eq(ftruncate(fd, (off_t)BLOCK), 0);
	IS(gm_map_shared(f->as, fd, 0, BLOCK, 0, &p), GM_RET_NOTSUP);
	IS(gm_map_shared(f->as, 1 << 20, 0, BLOCK, 0, &p), GM_RET_INVAL);
	OK(gm_alloc(f->as, BLOCK, 0, &owned));
	IS(gm_shared_fd(f->as, owned, &none), GM_RET_NOENT);
	IS(gm_shared_fd(f->as, f->at + PAGE, &none), GM_RET_NOENT);
	IS(gm_shared_fd(f->as, &none, &none), GM_RET_NOENT);
	IS(gm_adopt(f->as, f->at, BLOCK, 0), GM_RET_EXIST);
	IS(gm_release(f->as, f->at, BLOCK), GM_RET_NOENT);
	OK(gm_shared_fd(f->as, f->at, &ours));
	cr_assert_eq(ftruncate(ours, 0), -1, "its size is fixed");
	cr_assert_eq(ftruncate(ours, (off_t)(4 * BLOCK)), -1);
	IS(gm_adopt(f->as, f->at, BLOCK, 0), GM_RET_EXIST);
	IS(gm_release(f->as, f->at, BLOCK), GM_RET_NOENT);
	IS(gm_discard(f->as, GM_VA(f->at), BLOCK), GM_RET_FAULT);
	/* Shared memory of others is not managed at all. */
	foreign = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(foreign, MAP_FAILED);
	IS(gm_adopt(f->as, foreign, BLOCK, 0), GM_RET_NOTSUP);
	IS(gm_migrate(f->as, GM_VA(foreign), BLOCK, f->dev, NULL), GM_RET_FAULT);
	munmap(foreign, BLOCK);
	close(ours);
	close(fd);
	end(&s);
}
