/* SPDX-License-Identifier: MIT */
/*
 * Programs that close the library's descriptors, that end, that are ended, with
 * memory on a device: on this machine's real host. Each runs in a process of its own, as
 * it closes also what the test reports with; it says by the line of its failure.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "fork_fixture.h"

TestSuite(teardown, .timeout = 300);

/* What the process shares with the test. */
static struct shared {
	atomic_int line; /* of the failure */
	atomic_uint phase, told;
	struct gm_lost lost;
	char text[200];
} *shared;

#define MUST(condition)                                   \
	do {                                              \
		if (!(condition)) {                       \
			atomic_store(&shared->line, __LINE__); \
			_exit(1);                         \
		}                                         \
	} while (0)

static void note_log(void *arg, enum gm_log_level level, const char *message)
{
	(void)arg;
	(void)level;
	atomic_fetch_add(&shared->told, 1);
	snprintf(shared->text, sizeof(shared->text), "%s", message);
}

static void note_lost(void *arg, const struct gm_lost *lost)
{
	shared->lost = *lost;
	atomic_fetch_add((atomic_uint *)arg, 1);
}

static atomic_uint lost_calls;

/* A library in this process, f.at on the device. */
static struct forker f;

static void open_library(uint32_t flags, const char *dev)
{
	struct gm_lib_config lc = { .size = sizeof(lc), .log = note_log, .log_level = GM_LOG_WARN };
	struct gm_as_config ac = { .size = sizeof(ac), .flags = flags, .lost = note_lost, .lost_arg = &lost_calls };

	child_signals();
	MUST(!gm_lib_create(&lc, &f.lib));
	MUST(!gm_dev_open(f.lib, dev, &f.dev));
	MUST(!gm_as_create(f.lib, 0, 0, &ac, &f.as));
	MUST(!gm_as_attach(f.as, f.dev, GM_ATTACH_IDENTITY, NULL, &f.ctx));
	f.at = app_block_memory();
	MUST(!gm_adopt(f.as, f.at, BYTES, 0));
	fill(f.at, 0, PAGES, 2);
	MUST(!gm_migrate(f.as, GM_VA(f.at), BYTES, f.dev, NULL));
}

static void close_library(void)
{
	char text[200];

	MUST(!gm_as_check(f.as, text, sizeof(text)));
	MUST(!gm_as_destroy(f.as));
	MUST(!gm_dev_destroy(f.dev));
	MUST(!gm_lib_destroy(f.lib));
}

static void away_again(uint64_t salt)
{
	fill(f.at, 0, PAGES, salt);
	MUST(!gm_migrate(f.as, GM_VA(f.at), BYTES, f.dev, NULL));
}

/* Without a right to userfaultfd there is nothing to test. */
static void probe(void)
{
	struct gm_lib *lib;
	gm_ret_t ret;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq((void *)shared, MAP_FAILED);
	ret = gm_lib_create(NULL, &lib);
	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	OK(ret);
	OK(gm_lib_destroy(lib));
}

static pid_t start(void (*body)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		body();
		_exit(0);
	}
	cr_assert_gt(pid, 0);
	return pid;
}

static void run(void (*body)(void))
{
	int status;

	probe();
	status = ended(start(body));
	cr_assert(exited(status, 0), "status 0x%x, line %d: %s", (unsigned)status, atomic_load(&shared->line), shared->text);
}

/* ------------------------------------------------- all descriptors closed */

static void close_all(void)
{
	MUST(!close_range(3, ~0U, 0));
}

static void closes_all(void)
{
	open_library(0, "mock:vram=32M");
	for (uint64_t round = 0; round < 5; round++) {
		close_all();
		MUST(wrong(f.at, 0, PAGES, round + 2) == 0);
		away_again(round + 3);
		close_all();
		MUST(dev_wrong(f.ctx, GM_VA(f.at), PAGES, round + 3) == 0);
	}
	MUST(atomic_load(&shared->told) == 1 && strstr(shared->text, "closed"));
	MUST(atomic_load(&lost_calls) == 0);
	close_all();
	/* events, too */
	MUST(!madvise(f.at, 10 * PAGE, MADV_DONTNEED) && nonzero(f.at, 0, 10) == 0);
	MUST(!munmap(f.at + BLOCK, BLOCK));
	MUST(gm_dev_fault(f.ctx, GM_VA(f.at) + BLOCK, GM_READ) == GM_RET_FAULT);
	close_all();
	close_library();
	MUST(wrong(f.at, 10, GM_BLOCK_PAGES, 7) == 0);
}

Test(teardown, program_closes_all_descriptors)
{
	run(closes_all);
}

/* The first to find out are: a system call, a migration, a fork, the end of the space. */
static void closes_then_calls(void)
{
	int fd[2], status;
	pid_t pid;

	open_library(0, "mock:vram=32M");
	close_all();
	MUST(!pipe(fd) && write(fd[1], f.at, PAGE) == (ssize_t)PAGE);
	away_again(3);
	close_all();
	MUST(!gm_migrate(f.as, GM_VA(f.at), BYTES, NULL, NULL));
	MUST(on_device(&f, f.at, PAGES) == 0);
	away_again(4);
	close_all();
	pid = fork();
	if (pid == 0)
		_exit(wrong(f.at, 0, PAGES, 4) ? 1 : 0);
	MUST(waitpid(pid, &status, 0) == pid && !status);
	away_again(5);
	close_all();
	close_library();
	MUST(wrong(f.at, 0, PAGES, 5) == 0);
}

Test(teardown, whatever_comes_first_finds_out)
{
	run(closes_then_calls);
}

/* Spaces that are made before the others find out: no descriptor of one answers for another. */
static void closes_and_makes(void)
{
	struct gm_as *more[4];

	open_library(0, "mock:vram=32M");
	for (uint64_t round = 0; round < 10; round++) {
		close_all();
		for (unsigned i = 0; i < 4; i++)
			MUST(!gm_as_create(f.lib, 0, 0, NULL, &more[i]));
		MUST(wrong(f.at, 0, PAGES, round + 2) == 0);
		close_all();
		for (unsigned i = 4; i--;)
			MUST(!gm_as_destroy(more[i]));
		away_again(round + 3);
	}
	close_library();
	MUST(wrong(f.at, 0, PAGES, 12) == 0);
}

Test(teardown, other_spaces_are_made_meanwhile)
{
	run(closes_and_makes);
}

/* A daemon: two forks, each parent ends, all descriptors closed. A library made before the fork is its maker's alone;
 * one that is made in the daemon lives on. */
static void daemonises(void)
{
	int end[2];
	char c;
	pid_t pid;

	MUST(!pipe(end));
	pid = fork();
	if (pid == 0) {
		if (fork())
			_exit(0);
		(void)setsid();
		open_library(0, "mock:vram=32M");
		for (int fd = 0; fd < 8192; fd++)
			if (fd != end[1])
				(void)close(fd);
		MUST(wrong(f.at, 0, PAGES, 2) == 0);
		close_library();
		MUST(write(end[1], "k", 1) == 1);
		_exit(0);
	}
	close(end[1]);
	MUST(read(end[0], &c, 1) == 1);
}

Test(teardown, daemon)
{
	run(daemonises);
}

/* The kernel refuses a number that a thread, of the library here, is opening in this moment. */
static bool put_at(int made, int fd)
{
	int got;

	do
		got = dup2(made, fd);
	while (got < 0 && errno == EBUSY);
	return got == fd;
}

/* The numbers are other files' now: their bytes and counters are not touched, nor are they closed. */
static void gives_numbers_away(void)
{
	char content[4096], got[4096];
	int pipes[2], event, file, top = 4200;
	uint64_t count;
	struct rlimit limit;

	MUST(!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur >= 64);
	top = limit.rlim_cur < (rlim_t)top ? (int)limit.rlim_cur : top;
	memset(content, 'x', sizeof(content));
	open_library(0, "mock:vram=32M");
	for (unsigned kind = 0; kind < 3; kind++) {
		int made;

		close_all();
		MUST(!pipe(pipes) && write(pipes[1], content, sizeof(content)) == (ssize_t)sizeof(content));
		event = eventfd(5, EFD_NONBLOCK);
		file = memfd_create("file", 0);
		MUST(event >= 0 && file >= 0 && write(file, content, sizeof(content)) == (ssize_t)sizeof(content));
		MUST(lseek(file, 0, SEEK_SET) == 0);
		made = kind == 0 ? pipes[0] : kind == 1 ? event : file;
		for (int fd = 20; fd < top; fd++)
			MUST(put_at(made, fd));
		MUST(wrong(f.at, 0, PAGES, 2) == 0);
		away_again(3);
		MUST(dev_wrong(f.ctx, GM_VA(f.at), PAGES, 3) == 0);
		away_again(2);
		if (kind == 2) /* also when it ends */
			close_library();
		MUST(read(pipes[0], got, sizeof(got)) == (ssize_t)sizeof(got) && !memcmp(got, content, sizeof(got)));
		MUST(read(event, &count, 8) == 8 && count == 5);
		MUST(lseek(file, 0, SEEK_CUR) == 0);
		MUST(pread(file, got, sizeof(got), 0) == (ssize_t)sizeof(got) && !memcmp(got, content, sizeof(got)));
		MUST(lseek(file, 0, SEEK_END) == (off_t)sizeof(content));
	}
	for (int fd = 20; fd < 3000; fd++)
		MUST(fcntl(fd, F_GETFD) >= 0);
}

Test(teardown, numbers_of_other_files)
{
	run(gives_numbers_away);
}

/* Others fault, move, and map while it happens, again and again. */
static atomic_bool enough;
static atomic_uint faulted;

static void *faults(void *arg)
{
	uint64_t i = 0;

	(void)arg;
	while (!atomic_load(&enough)) {
		MUST(*(volatile uint64_t *)ptr(word_va(GM_VA(f.at), i % PAGES)) == word(i % PAGES, 2));
		i += 37;
		atomic_fetch_add(&faulted, 1);
	}
	return NULL;
}

static void *moves(void *arg)
{
	(void)arg;
	while (!atomic_load(&enough)) {
		gm_ret_t ret = gm_migrate(f.as, GM_VA(f.at), BYTES, f.dev, NULL);

		MUST(!ret || ret == GM_RET_BUSY);
	}
	return NULL;
}

static void closes_under_load(void)
{
	pthread_t thread[3];

	open_library(0, "mock:vram=32M");
	for (unsigned i = 0; i < 3; i++)
		MUST(!pthread_create(&thread[i], NULL, i ? faults : moves, NULL));
	for (unsigned i = 0; i < 200; i++) {
		struct timespec ts = { 0, 1000000 };

		close_all();
		nanosleep(&ts, NULL);
	}
	atomic_store(&enough, true);
	for (unsigned i = 0; i < 3; i++)
		MUST(!pthread_join(thread[i], NULL));
	MUST(atomic_load(&faulted) > 0 && atomic_load(&lost_calls) == 0);
	MUST(wrong(f.at, 0, PAGES, 2) == 0);
	close_library();
}

Test(teardown, closed_under_load)
{
	run(closes_under_load);
}

/* Nobody keeps the descriptors: what was touched before the library looked is told; nothing else is lost. */
static void nobody_keeps(void)
{
	open_library(GM_AS_NO_THREADS, "mock:vram=32M");
	MUST(on_device(&f, f.at, PAGES) == PAGES);
	close_all();
	MUST(*(volatile uint64_t *)f.at == 0); /* what the kernel makes of it */
	(void)gm_as_serve(f.as, 0);
	MUST(!gm_migrate(f.as, GM_VA(f.at) + PAGE, BYTES - PAGE, NULL, NULL));
	MUST(wrong(f.at, 1, PAGES, 2) == 0);
	MUST(atomic_load(&lost_calls) == 1 && shared->lost.va == GM_VA(f.at) && shared->lost.bytes == PAGE);
	MUST(shared->lost.why == GM_RET_CANCELED);
	MUST(*(volatile uint64_t *)f.at == 0);
	close_library();
}

Test(teardown, without_threads)
{
	run(nobody_keeps);
}

/* ------------------------------------------------------ ends of a process */

static void exits(void)
{
	open_library(0, "mock:vram=32M");
	exit(0);
}

Test(teardown, exit_with_pages_away)
{
	run(exits);
}

/* Works until it is killed: moves, faults, forks, closes, makes and ends spaces. */
static void works(void)
{
	pthread_t thread[2];
	unsigned i = 0;

	atomic_store(&shared->phase, 1);
	open_library(GM_AS_FORK_SERVE, "mock:vram=32M");
	MUST(!gm_fork_policy(f.as, GM_VA(f.at), BLOCK, GM_FORK_SERVE));
	MUST(!pthread_create(&thread[0], NULL, faults, NULL) && !pthread_create(&thread[1], NULL, moves, NULL));
	atomic_store(&shared->phase, 2);
	for (;; i++) {
		struct gm_as *as;
		int status;
		pid_t pid = fork();

		if (pid == 0)
			_exit(wrong(f.at, 0, PAGES, 2) ? 1 : 0);
		MUST(waitpid(pid, &status, 0) == pid && !status);
		MUST(!gm_as_create(f.lib, 0, 0, NULL, &as) && !gm_as_destroy(as));
		if (i % 4 == 3)
			close_all();
	}
}

Test(teardown, killed_at_any_moment)
{
	uint64_t seed = 12345;

	probe();
	for (unsigned round = 0; round < 40; round++) {
		struct timespec ts = { 0, 0 };
		pid_t pid;
		int status;

		atomic_store(&shared->phase, 0);
		pid = start(works);
		seed = seed * 6364136223846793005 + 1442695040888963407;
		ts.tv_nsec = (long)(seed >> 40) % 40000000;
		while (round % 4 && atomic_load(&shared->phase) < 2 && !waitpid(pid, &status, WNOHANG))
			usleep(1000); /* three of four while it works, one while it begins */
		nanosleep(&ts, NULL);
		cr_assert_eq(kill(pid, SIGKILL), 0);
		status = ended(pid); /* the suite's time is the bound */
		cr_assert(killed(status, SIGKILL), "round %u: status 0x%x, line %d", round, (unsigned)status,
			  atomic_load(&shared->line));
	}
}

/* --------------------------------------------------------- ends of a space */

static void destroys_under_load(void)
{
	pthread_t thread[2];

	for (unsigned i = 0; i < 10; i++) {
		struct timespec ts = { 0, 3000000 };

		atomic_store(&enough, false);
		open_library(0, "mock:vram=32M");
		for (unsigned k = 0; k < 2; k++)
			MUST(!pthread_create(&thread[k], NULL, faults, NULL));
		nanosleep(&ts, NULL);
		close_library();
		nanosleep(&ts, NULL);
		atomic_store(&enough, true);
		for (unsigned k = 0; k < 2; k++)
			MUST(!pthread_join(thread[k], NULL));
		MUST(wrong(f.at, 0, PAGES, 2) == 0);
	}
}

Test(teardown, space_that_ends_under_faults)
{
	run(destroys_under_load);
}
