/* SPDX-License-Identifier: MIT */
/*
 * A process that has no file descriptor left, and that closed the library's: what is asked of the kernel is answered as
 * ever where the library still has its own, and else not at all. Each test is a process of its own, with its limit.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "core/gm_as.h"
#include "hal/host/gm_host_internal.h"
#include "rung_fixture.h"

#define IS(call, want)                                                                                              \
	do {                                                                                                        \
		gm_ret_t is_ = (call);                                                                              \
		cr_assert_eq(is_, (want), "%s: %s: %s", #call, gm_ret_name(is_), is_ ? gm_last_error() : ""); \
	} while (0)

static struct rlimit old_limit;

/* No descriptor can be opened from here on. */
static void none_left(void)
{
	struct rlimit none;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &old_limit), 0);
	none = old_limit;
	none.rlim_cur = 3;
	while (open("/dev/null", O_RDONLY | O_CLOEXEC) < 2)
		;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	cr_assert_eq(open("/dev/null", O_RDONLY), -1);
}

static void some_left(void)
{
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &old_limit), 0);
}

static struct gm_host_dev *dev_of(struct rung *r)
{
	return ((struct gm_host_pmap *)r->as->hpmap)->dev;
}

/* What the program might do, to those by which the library asks. */
static void close_files_of(struct gm_host_pmap *p)
{
	struct gm_host_dev *d = p->dev;

	close(gm_host_fd_last(&d->mem));
	close(gm_host_fd_last(&d->maps));
	close(gm_host_fd_last(&d->smaps));
	close(gm_host_fd_last(&d->status));
	close(gm_host_fd_last(&d->task));
	close(gm_host_fd_last(&p->pagemap));
}

static void close_files(struct rung *r)
{
	close_files_of(r->as->hpmap);
}

/* Part of b goes without gm_release(); a, on the device, is in the same block, and stays. */
static void neighbour(struct rung *r, bool closed)
{
	char *a = map_app(BLOCK, false), *b = a + BLOCK / 2;
	gm_ret_t ret;

	put_marks(a, 0, GM_BLOCK_PAGES);
	OK(gm_adopt(r->as, a, BLOCK / 2, 0));
	OK(gm_migrate(r->as, GM_VA(a), BLOCK / 2, r->dev, NULL));
	OK(gm_adopt(r->as, b, BLOCK / 2, 0));
	munmap(b + BLOCK / 2 - PAGE, PAGE);
	none_left();
	if (closed)
		close_files(r);
	ret = gm_migrate(r->as, GM_VA(b), PAGE, r->dev, NULL);
	some_left();
	cr_assert_eq(ret, closed ? GM_RET_NOMEM : GM_RET_SUCCESS, "%s: %s", gm_ret_name(ret), gm_last_error());
	cr_assert_eq(pages_in(r, a, GM_BLOCK_PAGES / 2, GM_PLACE_DEVICE), GM_BLOCK_PAGES / 2);
	if (cannot(r, GM_RUNG_NO_CPU_FAULTS))
		OK(gm_migrate(r->as, GM_VA(a), BLOCK - PAGE, NULL, NULL));
	cr_assert_eq(wrong_marks(a, 0, GM_BLOCK_PAGES - 1), 0);
}

#define NEIGHBOUR(name, on, closed)                      \
	Test(tell_host, name)                            \
	{                                                \
		struct rung r;                           \
		rung_begin(&r, on, 0, NULL);             \
		neighbour(&r, closed);                   \
		rung_end(&r);                            \
	}

NEIGHBOUR(neighbour_stays, GM_RUNG_FULL, false)
NEIGHBOUR(neighbour_stays_unasked, GM_RUNG_FULL, true)
NEIGHBOUR(neighbour_stays_without_move, GM_RUNG_NO_MOVE, false)
NEIGHBOUR(neighbour_stays_unasked_without_move, GM_RUNG_NO_MOVE, true)
NEIGHBOUR(neighbour_stays_explicit, GM_RUNG_EXPLICIT, false)
NEIGHBOUR(neighbour_stays_unasked_explicit, GM_RUNG_EXPLICIT, true)

/* All questions are answered by what is open. */
Test(tell_host, asks_without_a_free_descriptor)
{
	char *at = map_app(BLOCK, false), *other = map_app(BLOCK, false);
	struct gm_page_info info;
	struct rung r;

	rung_begin(&r, GM_RUNG_FULL, 0, NULL);
	put_marks(at, 0, GM_BLOCK_PAGES);
	cr_assert_eq(lock_pages(other, PAGE), 0);
	none_left();
	IS(gm_adopt(r.as, other, BLOCK, 0), GM_RET_NOTSUP);
	OK(gm_adopt(r.as, at, BLOCK, 0));
	OK(gm_query_host(r.as, GM_VA(at), 1, &info));
	cr_assert_eq(info.access, GM_READ | GM_WRITE);
	OK(gm_dev_fault(r.ctx, GM_VA(at), GM_WRITE));
	OK(dev_add(&r, at, 4, 0, NULL));
	OK(gm_protect(r.as, GM_VA(at), BLOCK, GM_READ));
	OK(gm_protect(r.as, GM_VA(at), BLOCK, GM_READ | GM_WRITE));
	some_left();
	cr_assert_eq(wrong_marks(at, 0, GM_BLOCK_PAGES), 0);
	rung_end(&r);
}

/* Without them, calls say so, and what they are to do, and change nothing. */
Test(tell_host, says_that_it_cannot_tell)
{
	char *at = map_app(BLOCK, false), *other = map_app(BLOCK, false);
	struct gm_page_info info = { .access = 77 };
	struct rung r;

	rung_begin(&r, GM_RUNG_FULL, 0, NULL);
	put_marks(at, 0, GM_BLOCK_PAGES);
	put_marks(other, 0, 1);
	cr_assert_eq(lock_pages(other, PAGE), 0);
	OK(gm_adopt(r.as, at, BLOCK, 0));
	none_left();
	close_files(&r);
	IS(gm_query_host(r.as, GM_VA(at), 1, &info), GM_RET_NOMEM);
	cr_assert(strstr(gm_last_error(), "ulimit -n"), "%s", gm_last_error());
	IS(gm_adopt(r.as, other, BLOCK, 0), GM_RET_NOMEM);
	IS(gm_dev_fault(r.ctx, GM_VA(at), GM_WRITE), GM_RET_NOMEM);
	IS(gm_protect(r.as, GM_VA(at), BLOCK, GM_READ), GM_RET_NOMEM);
	put_marks(at, 0, 1);
	some_left();
	OK(gm_query_host(r.as, GM_VA(at), 1, &info));
	IS(gm_adopt(r.as, other, BLOCK, 0), GM_RET_NOTSUP);
	OK(gm_dev_fault(r.ctx, GM_VA(at), GM_WRITE));
	cr_assert_eq(wrong_marks(at, 0, GM_BLOCK_PAGES), 0);
	rung_end(&r);
}

/* MADV_FREE, and a store that the library does not see. */
Test(tell_host, alive_is_not_zero)
{
	char *at = map_app(BLOCK, false);
	struct timespec grace = { 0, 300000000 };
	uint64_t seen = 0;
	struct rung r;
	gm_ret_t ret;

	rung_begin(&r, GM_RUNG_FULL, 0, NULL);
	put_marks(at, 0, GM_BLOCK_PAGES);
	OK(gm_adopt(r.as, at, BLOCK, 0));
	OK(gm_migrate(r.as, GM_VA(at), BLOCK, r.dev, NULL));
	OK(gm_migrate(r.as, GM_VA(at), BLOCK / 2, NULL, NULL)); /* not all, or the block would be forgotten */
	cr_assert_eq(madvise(at, PAGE, MADV_FREE), 0);
	*(volatile uint64_t *)(at + 8) = 0x1234;
	nanosleep(&grace, NULL);
	none_left();
	close(gm_host_fd_last(&((struct gm_host_pmap *)r.as->hpmap)->pagemap)); /* by which it would be seen */
	ret = gm_migrate(r.as, GM_VA(at), PAGE, r.dev, NULL);
	some_left();
	IS(ret, GM_RET_NOMEM);
	OK(dev_add(&r, at, 1, 0, &seen));
	cr_assert_eq(seen, 0x1234);
	cr_assert_eq(*(volatile uint64_t *)(at + 8), 0x1234);
	rung_end(&r);
}

/* As before Linux 6.9: no descriptor can be fetched from the keeper. */
static void without_pidfd(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_open, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(code) / sizeof(code[0]), code };

	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), 0);
}

/* The library's descriptors are closed, and for a while there are none for new ones. When there are, accesses are served. */
Test(tell_host, handler_outlives_the_lack)
{
	char *at = map_app(BLOCK, false);
	struct timespec lack = { 2, 500000000 };
	struct gm_host_pmap *p;
	struct rung r;

	without_pidfd();
	rung_begin(&r, GM_RUNG_FULL, 0, NULL);
	p = r.as->hpmap;
	put_marks(at, 0, GM_BLOCK_PAGES);
	OK(gm_adopt(r.as, at, BLOCK, 0));
	none_left();
	close_files(&r);
	close(p->fd_app);
	close(p->fd_kick);
	close(p->fd_poll);
	nanosleep(&lack, NULL); /* the handler looks each second */
	some_left();
	OK(gm_migrate(r.as, GM_VA(at), BLOCK, r.dev, NULL));
	alarm(100);
	cr_assert_eq(wrong_marks(at, 0, GM_BLOCK_PAGES), 0);
	alarm(0);
	rung_end(&r);
}

/* ------------------------------------------- numbers that are another's now */

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* The program has files of its own where ours were: they are its own at the end, too. */
Test(tell_host, closes_only_its_own)
{
	int fd[6], null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct gm_host_dev *d;
	struct rung r;

	rung_begin(&r, GM_RUNG_FULL, 0, NULL);
	d = dev_of(&r);
	fd[0] = gm_host_fd_last(&d->mem);
	fd[1] = gm_host_fd_last(&d->maps);
	fd[2] = gm_host_fd_last(&d->smaps);
	fd[3] = gm_host_fd_last(&d->status);
	fd[4] = gm_host_fd_last(&d->task);
	fd[5] = gm_host_fd_last(&((struct gm_host_pmap *)r.as->hpmap)->pagemap);
	for (unsigned i = 0; i < 6; i++) {
		cr_assert(is_open(fd[i]));
		cr_assert_eq(dup2(null, fd[i]), fd[i]);
	}
	rung_end(&r);
	for (unsigned i = 0; i < 6; i++)
		cr_assert(is_open(fd[i]), "file %u", i);
}

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	cr_assert(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* Opened again it may have another inode. It is opened once then, not each time. */
Test(tell_host, another_inode_is_noted)
{
	char dir[] = "/tmp/gm-tell-XXXXXX", path[64], away[64];
	struct gm_host_fd f;
	unsigned before;
	int fd;

	cr_assert(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/file", dir);
	snprintf(away, sizeof(away), "%s/old", dir);
	close(open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
	cr_assert_eq(gm_host_fd_init(&f, path, O_RDWR), 0);
	cr_assert_eq(rename(path, away), 0); /* so that the inode is not used again */
	close(open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
	before = count_fds();
	close(gm_host_fd_last(&f));
	fd = gm_host_fd_get(&f);
	cr_assert_geq(fd, 0);
	for (unsigned i = 0; i < 50; i++)
		cr_assert_eq(gm_host_fd_get(&f), fd);
	cr_assert_eq(count_fds(), before);
	gm_host_fd_fini(&f);
	cr_assert(!is_open(fd));
	unlink(path);
	unlink(away);
	rmdir(dir);
}

/* A pipe with something in it, under a number that was the library's. */
static int pipe_at(int fd)
{
	int ends[2];

	cr_assert_eq(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
	cr_assert_eq(write(ends[1], "0123456789012345678901234567890123456789", 40), 40);
	if (fd >= 0)
		cr_assert_eq(dup2(ends[0], fd), fd);
	return ends[0];
}

static ssize_t left_in(int fd)
{
	char buf[64];

	return read(fd, buf, sizeof(buf));
}

/* A child's descriptor was closed, and its number is a pipe of the program's. */
Test(tell_host, not_the_childs)
{
	struct gm_host_msg msg[4];
	struct host h;
	int fd;

	host_begin(&h);
	fd = pipe_at(-1);
	cr_assert_eq(h.ops->child_read(h.pmap, fd, msg, 4), 0);
	h.ops->child_close(h.pmap, fd);
	cr_assert_eq(left_in(fd), 40);
	host_end(&h);
}

/* The same for messages, while there is no descriptor to fetch the kept one by. */
Test(tell_host, not_the_spaces)
{
	struct gm_host_msg msg[4];
	struct gm_host_pmap *p;
	struct host h;
	int fd;

	host_begin(&h);
	p = h.pmap;
	OK(h.ops->keep(h.pmap));
	if (!p->keep.own)
		cr_skip_test("NOT TESTED: a thread cannot have descriptors of its own here");
	fd = pipe_at(p->fd_app);
	none_left();
	cr_assert_eq(h.ops->msg_read(h.pmap, msg, 4), 0);
	some_left();
	cr_assert_eq(left_in(fd), 40);
	host_end(&h);
}

/*
 * After pages were stolen their bytes hang on what is a hole in the slot. The keeper tells where the program has closed the
 * pagemap; else a steal that cannot be undone either, as an event is unread, would leave the bytes in the slot unnoted.
 */
Test(tell_host, what_was_stolen)
{
	const unsigned hole = 77;
	struct gm_mask want = gm_mask_span(0, GM_BLOCK_PAGES), holes = gm_mask_span(hole, hole + 1);
	struct gm_host_steal out;
	uint64_t slot, done;
	struct host h;
	char *at;

	host_begin(&h);
	OK(h.ops->keep(h.pmap));
	if (!((struct gm_host_pmap *)h.pmap)->keep.own)
		cr_skip_test("NOT TESTED: a thread cannot have descriptors of its own here");
	at = map_app(BLOCK, false);
	put_marks(at, 0, hole);
	put_marks(at, hole + 1, GM_BLOCK_PAGES);
	OK(h.ops->watch(h.pmap, GM_VA(at), BLOCK));
	OK(h.ops->slot_alloc(h.pmap, &slot));
	none_left();
	close_files_of(h.pmap);
	OK(h.ops->steal(h.pmap, GM_VA(at), &want, slot, &out));
	cr_assert(gm_mask_full(&out.moved));
	cr_assert(gm_mask_equal(&out.hole, &holes));
	OK(h.ops->restore(h.pmap, GM_VA(at), slot, BLOCK, &done));
	some_left();
	cr_assert_eq(wrong_marks(at, 0, hole), 0);
	cr_assert_eq(wrong_marks(at, hole + 1, GM_BLOCK_PAGES), 0);
	OK(h.ops->zero(h.pmap, GM_VA(at) + hole * PAGE, PAGE, &done));
	OK(h.ops->unwatch(h.pmap, GM_VA(at), BLOCK));
	h.ops->slot_free(h.pmap, slot);
	host_end(&h);
}

/* ------------------------------------------------------------ shared memory */

/* A block of it that is away, with all its frames in the file. */
static char *shared_away(struct host *h, uint64_t *slot)
{
	struct gm_mask want = gm_mask_span(0, GM_BLOCK_PAGES);
	struct gm_host_steal out;
	uint64_t va = 0;
	char *at;

	host_begin(h);
	OK(h->ops->share_map(h->pmap, -1, 0, BLOCK, &va));
	at = (char *)(uintptr_t)va;
	put_marks(at, 0, GM_BLOCK_PAGES);
	OK(h->ops->watch(h->pmap, va, BLOCK));
	OK(h->ops->share_slot(h->pmap, va, slot));
	OK(h->ops->steal(h->pmap, va, &want, *slot, &out));
	cr_assert(gm_mask_full(&out.moved));
	cr_assert(gm_mask_empty(&out.hole));
	return at;
}

/* What needs an answer has none, and changes nothing; what needs none goes on. */
Test(tell_host, shared_memory_unasked)
{
	static char src[GM_PAGE_BYTES];
	struct gm_host_vma vma;
	uint64_t slot, va, done;
	struct host h;
	char *at = shared_away(&h, &slot);

	va = GM_VA(at);
	none_left();
	close_files_of(h.pmap);
	IS(h.ops->watch(h.pmap, va, BLOCK), GM_RET_NOMEM);
	IS(h.ops->mem_rights(h.pmap, va, &vma), GM_RET_NOMEM);
	IS(h.ops->mem_probe(h.pmap, va, &vma), GM_RET_NOMEM);
	IS(h.ops->fill(h.pmap, va, src, PAGE, &done), GM_RET_NOMEM);
	IS(h.ops->zero(h.pmap, va, PAGE, &done), GM_RET_NOMEM);
	IS(h.ops->unmark(h.pmap, va, PAGE, &done), GM_RET_NOMEM);
	OK(h.ops->restore(h.pmap, va, slot, BLOCK, &done));
	cr_assert_eq(wrong_marks(at, 0, GM_BLOCK_PAGES), 0);
	h.ops->mem_unmap(h.pmap, va, BLOCK);
	some_left();
	cr_assert(strstr(h.log, "stays mapped"), "%s", h.log);
	cr_assert_eq(wrong_marks(at, 0, GM_BLOCK_PAGES), 0, "it may be another's");
	host_end(&h);
}

/* What the file has at the moment. */
static bool has_frame(const char *at)
{
	unsigned char in;

	cr_assert_eq(mincore((void *)(uintptr_t)GM_VA(at), PAGE, &in), 0);
	return in & 1;
}

/* Where all was watched all the time the program has none of the frames; else it may have, and they are one. */
Test(tell_host, shared_memory_is_dropped_unasked)
{
	struct gm_host_pmap *p;
	struct host h;
	uint64_t slot;
	char *at = shared_away(&h, &slot);

	p = h.pmap;
	none_left();
	close_files_of(p);
	h.ops->slot_drop(p, slot, PAGE);
	atomic_store(&p->shared.gap, true); /* as gm_host_reopen() */
	h.ops->slot_drop(p, slot + PAGE, PAGE);
	some_left();
	cr_assert(!has_frame(at));
	cr_assert(has_frame(at + PAGE));
	host_end(&h);
}

/* ------------------------------------------------------- order of forgetting */

struct unmapping {
	struct host *h;
	char *at;
};

static void *unmap_it(void *arg)
{
	struct unmapping *u = arg;

	gm_host_closed_unmap(u->h->pmap, GM_VA(u->at), PAGE);
	return NULL;
}

/* Unmapped, and mapped and closed anew by somebody else before the call is at its end: that is not forgotten. */
Test(tell_host, forgets_before_it_unmaps)
{
	struct gm_uffd_msg msg;
	struct unmapping u;
	struct gm_host_dev *d;
	uint64_t ioctls;
	pthread_t t;
	struct host h;
	bool yes;
	int fd;

	host_begin(&h);
	d = h.dev;
	d->closed = gm_host_closed_new(h.env);
	cr_assert(d->closed);
	u = (struct unmapping){ &h, map_app(BLOCK, false) };
	fd = ((struct gm_host_pmap *)h.pmap)->fd_app; /* its events make munmap() wait, when the memory is gone */
	cr_assert_eq(gm_uffd_register(fd, GM_VA(u.at), PAGE, &ioctls), 0);
	OK(gm_host_close_pages(d->closed, GM_VA(u.at), PAGE));
	cr_assert_eq(pthread_create(&t, NULL, unmap_it, &u), 0);
	while (msync(u.at, PAGE, MS_ASYNC) == 0)
		sched_yield();
	cr_assert_eq(mmap(u.at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), u.at);
	OK(gm_host_close_pages(d->closed, GM_VA(u.at), PAGE));
	while (read(fd, &msg, sizeof(msg)) != (ssize_t)sizeof(msg))
		sched_yield();
	pthread_join(t, NULL);
	cr_assert_eq(gm_host_closed_run(d->closed, GM_VA(u.at), PAGE, &yes), PAGE);
	cr_assert(yes, "forgotten");
	host_end(&h);
}
