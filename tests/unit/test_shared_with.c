/* SPDX-License-Identifier: MIT */
/* Shared memory and everything else that can be asked of memory: each works, or is refused in words. On this machine's real host. */
#include "config.h"

#include "shared_fixture.h"

#include "hal/host/gm_host_internal.h"

TestSuite(shared_with, .timeout = 300);

static int fd_of(struct sharer *s)
{
	int fd = -1;

	OK(gm_shared_fd(s->f.as, s->f.at, &fd));
	cr_assert_geq(fd, 0);
	return fd;
}

static void export_it(struct sharer *s)
{
	close(fd_of(s));
}

/* --------------------------------------------------------------- rights */

static void protect(uint32_t flags, bool exported)
{
	struct sharer s;
	struct forker *f = &s.f;

	begin(&s, flags);
	if (exported)
		export_it(&s);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	OK(gm_protect(f->as, GM_VA(f->at), BLOCK, GM_READ));
	IS(dev_touch(f->ctx, GM_VA(f->at), true), GM_RET_PERM);
	IS(dev_touch(s.ctx2, GM_VA(f->at) + BLOCK - PAGE, true), GM_RET_PERM);
	OK(dev_touch(f->ctx, GM_VA(f->at), false));
	cr_assert_eq(wrong(f->at, 0, PAGES, 2), 0);
	cr_assert_eq(syscall(SYS_read, open("/dev/zero", O_RDONLY | O_CLOEXEC), f->at, 8), -1, "written in spite of gm_protect()");
	OK(gm_protect(f->as, GM_VA(f->at), BLOCK, 0));
	IS(dev_touch(f->ctx, GM_VA(f->at), false), GM_RET_FAULT);
	OK(gm_protect(f->as, GM_VA(f->at), BLOCK, RW));
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 3);
	cr_assert_eq(wrong(f->at, 0, PAGES, 3), 0);
	/* Away under PROT_NONE, and home by a call. */
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 4);
	OK(gm_protect(f->as, GM_VA(f->at), BYTES, 0));
	OK(gm_as_home(f->as, GM_FOREVER_NS, NULL));
	OK(gm_protect(f->as, GM_VA(f->at), BYTES, RW));
	cr_assert_eq(on_device(f, f->at, PAGES), 0);
	cr_assert_eq(wrong(f->at, 0, PAGES, 4), 0);
	end(&s);
}

Test(shared_with, gm_protect)
{
	protect(0, false);
}

Test(shared_with, gm_protect_exclusively)
{
	protect(GM_AS_EXCLUSIVE, false);
}

Test(shared_with, gm_protect_exported)
{
	protect(0, true);
}

/* ------------------------------------------------------------- coherence */

/* Not duplicated, and nothing changes; nor is what is in place. */
static void duplicate(uint32_t flags)
{
	struct sharer s;
	struct forker *f = &s.f;
	uint64_t bytes = 1;

	begin(&s, flags);
	fill(f->at, 0, PAGES, 1);
	IS(gm_duplicate(f->as, GM_VA(f->at), BYTES, f->dev, &bytes), GM_RET_NOTSUP);
	cr_assert_not_null(strstr(gm_last_error(), "shared memory"), "%s", gm_last_error());
	cr_assert_eq(bytes, 0);
	cr_assert_eq(wrong(f->at, 0, PAGES, 1), 0);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	IS(gm_duplicate(f->as, GM_VA(f->at), BYTES, f->dev, NULL), GM_RET_NOTSUP);
	IS(gm_duplicate(f->as, GM_VA(f->at) + PAGE, PAGE, s.dev2, NULL), GM_RET_NOTSUP);
	cr_assert_eq(dev_wrong(s.ctx2, GM_VA(f->at), PAGES, 2), 0);
	dev_fill(s.ctx2, GM_VA(f->at), PAGES, 3);
	cr_assert_eq(wrong(f->at, 0, PAGES, 3), 0);
	export_it(&s);
	IS(gm_duplicate(f->as, GM_VA(f->at), BYTES, f->dev, NULL), GM_RET_BUSY);
	cr_assert_eq(dev_wrong(f->ctx, GM_VA(f->at), PAGES, 3), 0);
	end(&s);
}

Test(shared_with, gm_duplicate)
{
	duplicate(0);
}

Test(shared_with, gm_duplicate_exclusively)
{
	duplicate(GM_AS_EXCLUSIVE);
}

/* The other device, and the process, take it over by turns; in place nobody is alone. */
Test(shared_with, gm_exclusive)
{
	struct sharer s;
	struct forker *f = &s.f;
	struct gm_page_info info;
	uint64_t bytes = 0;

	begin(&s, 0);
	fill(f->at, 0, PAGES, 1);
	OK(gm_exclusive(f->ctx, GM_VA(f->at), BYTES, &bytes));
	cr_assert_eq(bytes, BYTES);
	check_away(f, f->at, 0);
	OK(gm_query(f->as, GM_VA(f->at), 1, &info));
	cr_assert_eq(info.place, GM_PLACE_DEVICE);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	OK(gm_exclusive(s.ctx2, GM_VA(f->at), BYTES, &bytes));
	cr_assert_eq(bytes, BYTES);
	cr_assert_eq(dev_wrong(s.ctx2, GM_VA(f->at), PAGES, 2), 0);
	dev_fill(s.ctx2, GM_VA(f->at), PAGES, 3);
	cr_assert_eq(wrong(f->at, 0, PAGES, 3), 0);
	cr_assert(comes_home(f, f->at, PAGES));
	export_it(&s);
	IS(gm_exclusive(f->ctx, GM_VA(f->at), BYTES, &bytes), GM_RET_BUSY);
	cr_assert_eq(bytes, 0);
	end(&s);
}

/* ------------------------------------------------------------------ pins */

/* To the host: devices use it there. The pin outlives an export, and ends with the memory. */
Test(shared_with, gm_pin_to_the_host)
{
	struct sharer s;
	struct forker *f = &s.f;

	begin(&s, 0);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	OK(gm_pin(f->as, GM_VA(f->at), BLOCK, NULL));
	cr_assert_eq(on_device(f, f->at, PAGES / 2), 0);
	cr_assert_eq(entries(f->at, PAGES / 2), PAGES / 2);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 3);
	cr_assert_eq(on_device(f, f->at, PAGES), PAGES / 2, "what is not pinned moves");
	cr_assert_eq(entries(f->at, PAGES / 2), PAGES / 2);
	cr_assert_eq(wrong(f->at, 0, PAGES / 2, 3), 0);
	IS(gm_migrate(f->as, GM_VA(f->at), BLOCK, f->dev, NULL), GM_RET_BUSY);
	OK(gm_unpin(f->as, GM_VA(f->at), BLOCK));
	OK(gm_migrate(f->as, GM_VA(f->at), BLOCK, f->dev, NULL));
	OK(gm_pin(f->as, GM_VA(f->at), BLOCK, NULL));
	OK(gm_pin(f->as, GM_VA(f->at) + BLOCK, BLOCK, NULL));
	export_it(&s);
	cr_assert_eq(wrong(f->at, 0, PAGES, 3), 0);
	OK(gm_unpin(f->as, GM_VA(f->at), BLOCK));
	OK(gm_pin(f->as, GM_VA(f->at), BLOCK, NULL));
	OK(gm_free(f->as, f->at));
	/* Who gets the address next has no pin. */
	OK(gm_alloc_shared(f->as, BYTES, 0, (void **)&f->at));
	OK(gm_migrate(f->as, GM_VA(f->at), BYTES, f->dev, NULL));
	end(&s);
}

/* To a device: there it stays, so it cannot be exported; in place it is where everybody reaches it. */
Test(shared_with, gm_pin_to_a_device)
{
	struct sharer s;
	struct forker *f = &s.f;
	int fd = -1;

	begin(&s, 0);
	fill(f->at, 0, PAGES, 1);
	OK(gm_pin(f->as, GM_VA(f->at), BLOCK, f->dev));
	cr_assert_eq(on_device(f, f->at, PAGES / 2), PAGES / 2);
	IS(gm_shared_fd(f->as, f->at, &fd), GM_RET_BUSY);
	IS(gm_migrate(f->as, GM_VA(f->at), BLOCK, NULL, NULL), GM_RET_BUSY);
	IS(gm_free(f->as, f->at), GM_RET_BUSY);
	cr_assert_eq(entries(f->at, PAGES / 2), 0);
	OK(gm_unpin(f->as, GM_VA(f->at), BLOCK));
	cr_assert_eq(wrong(f->at, 0, PAGES, 1), 0);
	OK(gm_free(f->as, f->at));
	end(&s);
}

/* ------------------------------------------------------------- where it is */

static struct gm_residency sums(struct forker *f, const char *at)
{
	struct gm_residency r;

	OK(gm_residency(f->as, GM_VA(at), BYTES, &r));
	return r;
}

Test(shared_with, gm_query_and_gm_residency)
{
	struct sharer s;
	struct forker *f = &s.f;
	struct gm_page_info info[4];
	void *other = NULL;

	begin(&s, 0);
	cr_assert_eq(sums(f, f->at).host_bytes, BYTES);
	dev_fill(f->ctx, GM_VA(f->at), PAGES / 2, 2);
	cr_assert_eq(sums(f, f->at).host_bytes, BLOCK);
	cr_assert_eq(sums(f, f->at).dev_bytes[0], BLOCK);
	OK(gm_query(f->as, GM_VA(f->at) + BLOCK - 2 * PAGE, 4, info));
	cr_assert(info[1].place == GM_PLACE_DEVICE && info[2].place == GM_PLACE_HOST);
	export_it(&s);
	cr_assert_eq(sums(f, f->at).in_place_bytes, BYTES);
	cr_assert_eq(sums(f, f->at).host_bytes, 0);
	OK(gm_query(f->as, GM_VA(f->at) + BLOCK - 2 * PAGE, 4, info));
	cr_assert(info[1].place == GM_PLACE_IN_PLACE && info[2].place == GM_PLACE_IN_PLACE);
	OK(gm_map_shared(f->as, fd_of(&s), BLOCK, 3 * PAGE, 0, &other));
	cr_assert_eq(sums(f, other).in_place_bytes, 3 * PAGE);
	OK(gm_query(f->as, GM_VA(other) + 2 * PAGE, 2, info));
	cr_assert(info[0].place == GM_PLACE_IN_PLACE && info[1].place == GM_PLACE_OUTSIDE, "not more than was asked for");
	OK(gm_free(f->as, other));
	end(&s);
}

static void home(uint32_t flags)
{
	struct sharer s;
	struct forker *f = &s.f;
	uint64_t left = 1;

	begin(&s, flags);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	OK(gm_as_home(f->as, GM_FOREVER_NS, &left));
	cr_assert_eq(left, 0);
	cr_assert_eq(on_device(f, f->at, PAGES), 0);
	cr_assert_eq(entries(f->at, PAGES), PAGES);
	cr_assert_eq(wrong(f->at, 0, PAGES, 2), 0);
	export_it(&s);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 3);
	OK(gm_as_home(f->as, GM_FOREVER_NS, &left));
	cr_assert_eq(left, 0);
	cr_assert_eq(wrong(f->at, 0, PAGES, 3), 0);
	end(&s);
}

Test(shared_with, gm_as_home)
{
	home(0);
}

Test(shared_with, gm_as_home_exclusively)
{
	home(GM_AS_EXCLUSIVE);
}

/* A space that watches all it has. */
Test(shared_with, a_space_that_watches)
{
	struct sharer s;
	struct forker *f = &s.f;

	begin(&s, GM_AS_WATCH);
	fill(f->at, 0, PAGES, 1);
	OK(gm_migrate(f->as, GM_VA(f->at), BYTES, f->dev, NULL));
	cr_assert_eq(wrong(f->at, 0, PAGES, 1), 0);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	export_it(&s);
	cr_assert_eq(wrong(f->at, 0, PAGES, 2), 0);
	OK(gm_free(f->as, f->at));
	end(&s);
}

/* ---------------------------------------------------------------- mirror */

/* In a space that mirrors the process it is managed as asked for; to another one it is memory like any: in place, coherent. */
Test(shared_with, spaces_that_mirror)
{
	struct gm_as_config config = { .size = sizeof(config), .flags = GM_AS_MIRROR };
	struct sharer s;
	struct forker *f = &s.f;
	struct gm_dev *dev;
	struct gm_ctx *ctx;
	struct gm_as *as;

	begin(&s, GM_AS_MIRROR);
	OK(gm_dev_open(f->lib, "mock:vram=32M", &dev));
	OK(gm_as_create(f->lib, 0, 0, &config, &as));
	OK(gm_as_attach(as, dev, GM_ATTACH_IDENTITY, NULL, &ctx));
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	check_away(f, f->at, GM_AS_EXCLUSIVE);
	cr_assert_eq(dev_wrong(ctx, GM_VA(f->at), PAGES, 2), 0, "the other space's device sees something else");
	dev_fill(ctx, GM_VA(f->at), PAGES, 3);
	cr_assert_eq(dev_wrong(f->ctx, GM_VA(f->at), PAGES, 3), 0);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 4);
	cr_assert_eq(dev_wrong(ctx, GM_VA(f->at), PAGES, 4), 0);
	export_it(&s);
	dev_fill(ctx, GM_VA(f->at), PAGES, 5);
	cr_assert_eq(dev_wrong(f->ctx, GM_VA(f->at), PAGES, 5), 0);
	cr_assert_eq(wrong(f->at, 0, PAGES, 5), 0);
	OK(gm_free(f->as, f->at));
	IS(dev_touch(ctx, GM_VA(f->at), false), GM_RET_FAULT);
	OK(gm_as_destroy(as));
	OK(gm_dev_destroy(dev));
	end(&s);
}

/* -------------------------------------------------------------- exports */

struct exports {
	struct sharer *s;
	int fd[4];
	atomic_uint next;
};

static void *export_one(void *arg)
{
	struct exports *e = arg;

	if (gm_shared_fd(e->s->f.as, e->s->f.at, &e->fd[atomic_fetch_add(&e->next, 1)]))
		abort();
	return (void *)(uintptr_t)(frames(e->s->f.at, PAGES) != PAGES || entries(e->s->f.at, PAGES) != PAGES);
}

/* Who calls second waits for the first: no descriptor leaves while pages are away. */
Test(shared_with, exports_at_the_same_time)
{
	struct sharer s;
	struct forker *f = &s.f;

	begin(&s, GM_AS_EXCLUSIVE);
	for (unsigned round = 0; round < 20; round++) {
		struct exports e = { .s = &s };
		pthread_t id[4];
		void *early = NULL;

		dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
		for (unsigned i = 0; i < 4; i++)
			cr_assert_eq(pthread_create(&id[i], NULL, export_one, &e), 0);
		for (unsigned i = 0; i < 4; i++) {
			pthread_join(id[i], &early);
			cr_assert_eq(GM_VA(early), 0, "a descriptor for memory that is away");
			close(e.fd[i]);
		}
		cr_assert_eq(wrong(f->at, 0, PAGES, 2), 0);
		OK(gm_free(f->as, f->at));
		OK(gm_alloc_shared(f->as, BYTES, 0, (void **)&f->at));
	}
	end(&s);
}

/* ---------------------------------------------------------- descriptors */

/* Whatever the program closes, and whoever looks when. */
Test(shared_with, the_keeper_has_its_descriptor)
{
	const struct gm_host_pmap *p;
	struct sharer s;

	begin(&s, 0);
	p = s.f.as->hpmap;
	if (!p->keep.own)
		cr_skip_test("NOT TESTED: no keeper with descriptors of its own");
	cr_assert_geq(p->keep.shared, 0);
	cr_assert_eq(syscall(SYS_kcmp, gettid(), p->keep.tid, 0, (unsigned long)p->shared.fd, (unsigned long)p->keep.shared), 0);
	end(&s);
}

/* The file's own, by its name. */
static int file_of_it(void)
{
	char path[64], link[128];
	ssize_t n;

	for (int fd = 3; fd < 5000; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, link, sizeof(link) - 1);
		link[n > 0 ? n : 0] = '\0';
		if (strstr(link, "memfd:gmem"))
			return fd;
	}
	return -1;
}

/* Closed, and the number another file's: it moves on, and nothing is done to that file. */
static void file_closed(uint32_t flags)
{
	struct sharer s;
	struct forker *f = &s.f;
	int fd, out = -1, mine = memfd_create("mine", MFD_CLOEXEC);

	begin(&s, flags);
	fill(f->at, 0, 100, 1);
	fd = file_of_it();
	cr_assert(fd >= 0 && mine >= 0);
	cr_assert_eq(dup2(mine, fd), fd);
	dev_fill(f->ctx, GM_VA(f->at), 50, 2);
	OK(gm_migrate(f->as, GM_VA(f->at), BYTES, f->dev, NULL));
	cr_assert_eq(entries(f->at, PAGES), 0);
	cr_assert_eq(wrong(f->at, 0, 50, 2), 0);
	cr_assert_eq(wrong(f->at, 50, 100, 1), 0);
	cr_assert_eq(nonzero(f->at, 100, PAGES), 0);
	OK(gm_migrate(f->as, GM_VA(f->at), BYTES, f->dev, NULL));
	IS(gm_shared_fd(f->as, f->at, &out), GM_RET_NODEV);
	cr_assert_eq(out, -1);
	OK(gm_migrate(f->as, GM_VA(f->at), BYTES, f->dev, NULL));
	cr_assert_eq(on_device(f, f->at, PAGES), PAGES, "it moves as before");
	cr_assert_eq(wrong(f->at, 0, 50, 2), 0);
	OK(gm_free(f->as, f->at));
	cr_assert_eq(fcntl(fd, F_GETFD), 0, "another file was closed");
	end(&s);
}

Test(shared_with, file_closed)
{
	file_closed(0);
}

Test(shared_with, file_closed_exclusively)
{
	file_closed(GM_AS_EXCLUSIVE);
}

static atomic_uint told;

static void hook(void *arg, const struct gm_lost *lost)
{
	(void)arg;
	if (lost->why == GM_RET_CANCELED)
		atomic_fetch_add(&told, (unsigned)(lost->bytes / PAGE));
}

#define MUST(condition)                  \
	do {                             \
		if (!(condition))        \
			return __LINE__; \
	} while (0)

/*
 * Without a keeper the descriptors are lost: what the process touched before that was noticed is what it made of it, all
 * else is as it was. Then it is watched anew.
 */
static int nobody_keeps(uint32_t flags, bool all)
{
	struct gm_as_config config = { .size = sizeof(config), .flags = flags | GM_AS_NO_THREADS, .lost = hook };
	struct sharer s;
	struct forker *f = &s.f;
	struct gm_ws_range range;
	volatile uint64_t *touched;
	unsigned loops = 0;
	struct gm_ws *ws;

	child_signals();
	begin_with(&s, &config);
	touched = ptr(word_va(GM_VA(f->at), 7));
	fill(f->at, 0, PAGES, 1);
	range = (struct gm_ws_range){ .va = GM_VA(f->at), .bytes = BYTES, .access = RW };
	OK(gm_ws_acquire(f->ctx, &range, 1, GM_FOREVER_NS, &ws)); /* nobody serves faults of the device */
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	OK(gm_ws_release(ws, NULL));
	MUST(on_device(f, f->at, PAGES) == PAGES);
	MUST(!(all ? close_range(3, ~0U, 0) : close(((const struct gm_host_pmap *)f->as->hpmap)->shared.fd)));
	*touched = 77;
	(void)gm_as_serve(f->as, 0);
	MUST(gm_as_home(f->as, GM_FOREVER_NS, NULL) == GM_RET_SUCCESS);
	while (on_device(f, f->at, PAGES) && loops++ < 10000)
		(void)gm_as_serve(f->as, MS);
	MUST(atomic_load(&told) == 1);
	MUST(*touched == 77);
	MUST(wrong(f->at, 0, 7, 2) == 0);
	MUST(wrong(f->at, 8, PAGES, 2) == 0);
	*touched = word(7, 2);
	OK(gm_migrate(f->as, GM_VA(f->at), BYTES, f->dev, NULL));
	MUST(entries(f->at, PAGES) == 0);
	OK(gm_migrate(f->as, GM_VA(f->at), BYTES, NULL, NULL));
	MUST(wrong(f->at, 0, PAGES, 2) == 0);
	return gm_free(f->as, f->at) ? __LINE__ : 0;
}

static void unkept(uint32_t flags, bool all)
{
	int status, line = -1, up[2];
	pid_t pid;

	cr_assert_eq(pipe(up), 0);
	cr_assert_eq(dup2(up[1], 0), 0); /* out of the way of close_range() */
	pid = fork();
	if (pid == 0) {
		line = nobody_keeps(flags, all);
		_exit(write(0, &line, sizeof(line)) != (ssize_t)sizeof(line));
	}
	status = ended(pid);
	cr_assert(exited(status, 0), "status 0x%x", (unsigned)status);
	cr_assert_eq(read(up[0], &line, sizeof(line)), (ssize_t)sizeof(line));
	cr_assert_eq(line, 0, "line %d", line);
}

Test(shared_with, nobody_keeps_the_descriptors)
{
	unkept(0, true);
}

Test(shared_with, nobody_keeps_the_descriptors_exclusively)
{
	unkept(GM_AS_EXCLUSIVE, true);
}

Test(shared_with, nobody_keeps_its_own_descriptor)
{
	unkept(0, false);
}
