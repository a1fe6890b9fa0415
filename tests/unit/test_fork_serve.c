/* SPDX-License-Identifier: MIT */
/*
 * Children that are served (core/gm_fork_serve.c, hal/host/gm_host_child.c): what happens between the copy and
 * the fork, between the fork and the fill, and when something fails. On this machine's real host.
 */
#include "config.h"

#include "fork_fixture.h"

#include <sys/prctl.h>

#include "hal/host/gm_host_internal.h"

static const struct gm_as_config served = { .size = sizeof(served), .fork = GM_FORK_SERVE };

TestSuite(fork_serve, .timeout = 300);

/*
 * Fork handlers of the program, registered before the library's: in the child they run before its gate, so
 * while it is being filled; in the parent before thaw, after the fork. They do nothing unless a test says so.
 */
static void (*in_prepare)(void), (*in_parent)(void), (*in_child)(void);

static void call_prepare(void)
{
	if (in_prepare)
		in_prepare();
}

static void call_parent(void)
{
	if (in_parent)
		in_parent();
}

static void call_child(void)
{
	if (in_child)
		in_child();
}

__attribute__((constructor)) static void register_handlers(void)
{
	if (pthread_atfork(call_prepare, call_parent, call_child))
		abort();
}

static struct forker f;
static char *elsewhere;
static uint64_t seen_early;

static void child_touches(void)
{
	seen_early = wrong(f.at, 0, PAGES, 2);
}

Test(fork_serve, early_touches_wait)
{
	pid_t pid;

	forker_begin(&f, &served);
	in_child = child_touches;
	pid = fork();
	if (pid == 0)
		_exit(seen_early || wrong(f.at, 0, PAGES, 2) ? 1 : 0);
	cr_assert(exited(ended(pid), 0));
	cr_assert_eq(on_device(&f, f.at, PAGES), PAGES);
	forker_end(&f);
}

/* munmap, madvise, mremap in the child before it has its bytes. */
static void child_changes(void)
{
	if (munmap(f.at, 10 * PAGE) || madvise(f.at + 20 * PAGE, 10 * PAGE, MADV_DONTNEED) ||
	    mremap(f.at + 100 * PAGE, 50 * PAGE, 50 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere) == MAP_FAILED)
		_exit(9);
}

Test(fork_serve, child_changes_its_memory_early)
{
	forker_begin(&f, &served);
	elsewhere = app_block_memory();
	in_child = child_changes;
	for (unsigned i = 0; i < 10; i++) {
		pid_t pid = fork();
		int status;

		if (pid == 0) {
			uint64_t bad = wrong(f.at, 10, 20, 2) + nonzero(f.at, 20, 30) + wrong(f.at, 30, 100, 2) +
				       wrong(f.at, 150, PAGES, 2);

			for (uint64_t k = 0; k < 50; k++)
				bad += *(volatile uint64_t *)(elsewhere + k * PAGE + (100 + k) * 8 % PAGE) != word(100 + k, 2);
			_exit(bad ? 1 : 0);
		}
		status = ended(pid);
		cr_assert(exited(status, 0), "status 0x%x", (unsigned)status);
	}
	in_child = NULL;
	cr_assert_eq(on_device(&f, f.at, PAGES), PAGES);
	forker_end(&f);
}

/* A child of the child, made before that has its bytes: by clone(), as fork() would come here again. */
static pid_t grandchild;

static void child_clones(void)
{
	grandchild = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (grandchild == 0) {
		child_signals();
		_exit(wrong(f.at, 0, PAGES, 2) ? 1 : 0);
	}
}

Test(fork_serve, child_of_a_child)
{
	forker_begin(&f, &served);
	in_child = child_clones;
	for (unsigned i = 0; i < 10; i++) {
		pid_t pid = fork();
		int status;

		if (pid == 0) {
			in_child = NULL;
			if (waitpid(grandchild, &status, 0) != grandchild || status)
				_exit(2);
			status = child_reads(f.at, 0, PAGES, 2);
			_exit(status || wrong(f.at, 0, PAGES, 2) ? 1 : 0);
		}
		status = ended(pid);
		cr_assert(exited(status, 0), "status 0x%x", (unsigned)status);
	}
	in_child = NULL;
	forker_end(&f);
}

/*
 * A clone() and then an event between the copy and the fork: the list is wrong for the second child. It gets marks, and so
 * does a child of its own, which is not to get by inheritance what its parent may not have.
 */
static volatile unsigned *grandchildren;

static void process_clones_and_changes(void)
{
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		_exit(7);
	OK(madvise(f.at + 20 * PAGE, 10 * PAGE, MADV_DONTNEED));
}

static void child_clones_one_that_looks(void)
{
	if (syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0))
		return;
	child_signals();
	(*grandchildren)++;
	_exit(wrong(f.at, 50, 51, 2) ? 1 : 0);
}

Test(fork_serve, child_of_a_child_that_gets_nothing)
{
	int status;

	forker_begin(&f, &served);
	grandchildren = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq((void *)(uintptr_t)grandchildren, MAP_FAILED);
	cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	in_prepare = process_clones_and_changes;
	in_child = child_clones_one_that_looks;
	for (unsigned i = 0; i < 10; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(3);
		while (waitpid(-1, &status, 0) > 0)
			cr_assert_not(exited(status, 0) || exited(status, 1), "a child of a child looked: 0x%x", (unsigned)status);
	}
	in_prepare = in_child = NULL;
	cr_assert_gt(*grandchildren, 0, "nobody looked: the test proves nothing");
	cr_assert_eq(on_device(&f, f.at + 50 * PAGE, 1), 1);
	forker_end(&f);
}

/* Between the copy and the fork the process gives up content, unmaps, moves. The library's prepare has run: as the
 * handlers of prepare run in reverse, ours is the last. */
static void process_changes(void)
{
	OK(madvise(f.at + 20 * PAGE, 10 * PAGE, MADV_DONTNEED));
	OK(munmap(f.at + 40 * PAGE, 10 * PAGE));
	OK(gm_discard(f.as, GM_VA(f.at + 60 * PAGE), 10 * PAGE));
	cr_assert_neq(mremap(f.at + 100 * PAGE, 50 * PAGE, 50 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere), MAP_FAILED);
	*(volatile uint64_t *)ptr(word_va(GM_VA(f.at), 3)) = word(3, 8); /* comes home */
}

Test(fork_serve, process_changes_its_memory_late)
{
	pid_t pid;
	int status;

	forker_begin(&f, &served);
	elsewhere = app_block_memory();
	in_prepare = process_changes;
	pid = fork();
	in_prepare = NULL;
	if (pid == 0) {
		uint64_t bad = wrong(f.at, 0, 3, 2) + wrong(f.at, 3, 4, 8) + wrong(f.at, 4, 20, 2) + nonzero(f.at, 20, 30) +
			       wrong(f.at, 30, 40, 2) + wrong(f.at, 50, 60, 2) + nonzero(f.at, 60, 70) +
			       wrong(f.at, 70, 100, 2) + wrong(f.at, 150, PAGES, 2);

		for (uint64_t k = 0; k < 50; k++)
			bad += *(volatile uint64_t *)(elsewhere + k * PAGE + (100 + k) * 8 % PAGE) != word(100 + k, 2);
		_exit(bad ? 1 : 0);
	}
	status = ended(pid);
	cr_assert(exited(status, 0), "status 0x%x", (unsigned)status);
	cr_assert_eq(wrong(f.at, 150, PAGES, 2), 0);
	cr_assert_eq(wrong(f.at, 50, 60, 2) + nonzero(f.at, 60, 70) + wrong(f.at, 70, 100, 2), 0);
	forker_end(&f);
}

/* After the fork, before the fill: that is not the child's business any more. */
static void process_goes_on(void)
{
	OK(madvise(f.at, BYTES / 2, MADV_DONTNEED));
	fill(f.at, PAGES / 2, PAGES, 6);
}

Test(fork_serve, what_comes_after_the_fork_is_not_seen)
{
	pid_t pid;
	int status;

	forker_begin(&f, &served);
	in_parent = process_goes_on;
	pid = fork();
	if (pid == 0)
		_exit(wrong(f.at, 0, PAGES, 2) ? 1 : 0);
	in_parent = NULL;
	status = ended(pid);
	cr_assert(exited(status, 0), "status 0x%x", (unsigned)status);
	cr_assert_eq(nonzero(f.at, 0, PAGES / 2), 0);
	cr_assert_eq(wrong(f.at, PAGES / 2, PAGES, 6), 0);
	forker_end(&f);
}

/* Rights at the moment of the fork are the child's too; its bytes are there when it has them back. */
Test(fork_serve, protected_memory)
{
	pid_t pid;

	forker_begin(&f, &served);
	cr_assert_eq(mprotect(f.at, BLOCK, PROT_NONE), 0);
	cr_assert_eq(mprotect(f.at + BLOCK, BLOCK, PROT_READ), 0);
	pid = fork();
	if (pid == 0)
		_exit(mprotect(f.at, BLOCK, PROT_READ) || wrong(f.at, 0, PAGES, 2) ? 1 : 0);
	cr_assert(exited(ended(pid), 0));
	cr_assert_eq(mprotect(f.at, BYTES, PROT_READ | PROT_WRITE), 0);
	cr_assert_eq(wrong(f.at, 0, PAGES, 2), 0);
	forker_end(&f);
}

/* A clone() without fork handlers: what is away is marked, what is home is there; nothing reads as zeros. */
Test(fork_serve, clone_without_handlers)
{
	pid_t pid;

	forker_begin(&f, &served);
	OK(gm_migrate(f.as, GM_VA(f.at), 10 * PAGE, NULL, NULL));
	for (unsigned page = 0; page < PAGES; page += 100) {
		bool home = place_of(&f, f.at + page * PAGE) != GM_PLACE_DEVICE;
		int status;

		pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
		if (pid == 0) {
			child_signals();
			_exit(wrong(f.at, page, page + 1, 2) ? 1 : 0);
		}
		status = ended(pid);
		cr_assert(home ? exited(status, 0) : killed(status, SIGBUS), "page %u, home %d: status 0x%x", page, home,
			  (unsigned)status);
	}
	cr_assert_eq(wrong(f.at, 0, PAGES, 2), 0);
	forker_end(&f);
}

/* Held by a working set, its device writes at will: not inherited, as without serving. */
Test(fork_serve, held_memory_is_not_inherited)
{
	struct gm_range range;
	struct gm_ws *ws;

	forker_begin(&f, &served);
	range = (struct gm_range){ .va = GM_VA(f.at), .bytes = BLOCK };
	OK(gm_ws_acquire(f.ctx, &(struct gm_ws_range){ .va = range.va, .bytes = range.bytes, .access = RW }, 1, GM_FOREVER_NS, &ws));
	cr_assert(killed(child_reads(f.at, 0, GM_BLOCK_PAGES, 2), SIGSEGV));
	cr_assert(exited(child_reads(f.at, GM_BLOCK_PAGES, PAGES, 2), 0));
	OK(gm_ws_release(ws, NULL));
	cr_assert(exited(child_reads(f.at, 0, PAGES, 2), 0));
	forker_end(&f);
}

/* ------------------------------------------------------- the host alone */

static gm_ret_t frozen(void *arg)
{
	(void)arg;
	return GM_RET_SUCCESS;
}

static void dies(void *arg)
{
	(void)arg;
	kill(getpid(), SIGKILL);
}

static void fails(void *arg)
{
	gm_host_child_fail(arg);
}

/* A process with a pmap that serves forks, and whose thaw is given. It says by `tell` how its child ended. */
static void parent_of_one(void (*thaw)(void *arg), int tell)
{
	struct gm_lib_config config = { .size = sizeof(config) };
	const struct gm_mmu *mmu = gm_host_mmu();
	struct gm_dev_caps caps;
	struct gm_env *env;
	void *dev, *pmap;
	pid_t pid;
	int status;

	if (gm_env_threads_create(&config, &env) || mmu->dev_init(env, NULL, &caps, &dev) || mmu->pmap_create(dev, &pmap) ||
	    mmu->host->serve_forks(pmap))
		_exit(3);
	mmu->host->at_fork(pmap, frozen, thaw, pmap);
	pid = fork();
	if (pid == 0) {
		(void)!write(tell, "passed", 6);
		_exit(0);
	}
	_exit(waitpid(pid, &status, 0) == pid && killed(status, SIGBUS) ? 0 : 4);
}

static int end_of_parent(void (*thaw)(void *arg), char *told)
{
	int tell[2], status;
	ssize_t n;
	pid_t pid;

	cr_assert_eq(pipe(tell), 0);
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		parent_of_one(thaw, tell[1]);
	close(tell[1]);
	status = ended(pid);
	n = read(tell[0], told, 15); /* to the end: its child is gone too */
	told[n > 0 ? n : 0] = '\0';
	close(tell[0]);
	return status;
}

/* Whoever would fill the child is gone: the child never looks. */
Test(fork_serve, parent_that_dies)
{
	struct forker probe;
	char told[16];

	forker_begin(&probe, &served);
	forker_end(&probe);
	cr_assert(killed(end_of_parent(dies, told), SIGKILL));
	cr_assert_str_eq(told, "", "the child went on");
}

Test(fork_serve, fill_that_fails)
{
	struct forker probe;
	char told[16];
	int status;

	forker_begin(&probe, &served);
	forker_end(&probe);
	status = end_of_parent(fails, told);
	cr_assert(exited(status, 0), "status 0x%x", (unsigned)status);
	cr_assert_str_eq(told, "", "the child went on");
}
