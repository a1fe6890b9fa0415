/* SPDX-License-Identifier: MIT */
/*
 * A program that knows nothing of gmem and does to its memory what programs do. Each subcommand checks every byte
 * itself, and says what was wrong; the tests run it with less memory than it needs, so that most of it is away.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

int bad;

void fill(void *p, size_t bytes, uint64_t salt)
{
	uint64_t *w = p;

	for (size_t i = 0; i < bytes / sizeof(*w); i++)
		w[i] = i * 0x9e3779b97f4a7c15u + salt;
}

void check(const char *what, const void *p, size_t bytes, uint64_t salt)
{
	const uint64_t *w = p;

	for (size_t i = 0; i < bytes / sizeof(*w); i++) {
		if (w[i] == i * 0x9e3779b97f4a7c15u + salt)
			continue;
		printf("%s: wrong at byte %zu: %llx\n", what, i * sizeof(*w), (unsigned long long)w[i]);
		bad = 1;
		return;
	}
}

void check_zero(const char *what, const void *p, size_t bytes)
{
	const uint64_t *w = p;

	for (size_t i = 0; i < bytes / sizeof(*w); i++) {
		if (!w[i])
			continue;
		printf("%s: not zero at byte %zu\n", what, i * sizeof(*w));
		bad = 1;
		return;
	}
}

void must(int ok, const char *what)
{
	if (ok)
		return;
	printf("%s: error %d\n", what, errno);
	bad = 1;
}

void *filled(size_t bytes, uint64_t salt)
{
	void *p = malloc(bytes);

	must(p != NULL, "malloc");
	if (!p)
		exit(1);
	fill(p, bytes, salt);
	return p;
}

void *resized(void *old, size_t bytes)
{
	void *p = realloc(old, bytes);

	must(p != NULL, "realloc");
	if (!p)
		exit(1);
	return p;
}

/* In a table of its own, from here on. */
static void *close_apart(void *arg)
{
	int fd = *(int *)arg;

	must(fcntl(fd, F_GETFD) >= 0, "the descriptor before");
	must(close_range((unsigned)fd, ~0u, CLOSE_RANGE_UNSHARE) == 0, "close_range, apart");
	must(fcntl(fd, F_GETFD) < 0 && errno == EBADF, "closed apart");
	must(dup2(0, fd) == fd && close_range((unsigned)fd, (unsigned)fd, 0) == 0, "close_range in a table of its own");
	must(fcntl(fd, F_GETFD) < 0 && errno == EBADF, "closed in a table of its own");
	return NULL;
}

static void do_close_apart(void)
{
	int fd = open("/dev/null", O_RDONLY);
	pthread_t t;

	must(fd > 2 && pthread_create(&t, NULL, close_apart, &fd) == 0 && pthread_join(t, NULL) == 0, "pthread_create");
	must(fcntl(fd, F_GETFD) >= 0, "another's table");
	must(close_range((unsigned)fd, ~0u, 0) == 0 && fcntl(fd, F_GETFD) < 0, "close_range afterwards");
}

/* Everything that is not its own, in every way there is. */
static void do_close(void)
{
	char *p = filled(BIG, 1), *q;

	do_close_apart();
	must(close_range(3, ~0u, 0) == 0, "close_range");
	closefrom(3);
	for (int fd = 3; fd < 70000; fd++)
		(void)close(fd);
	(void)dup2(1, 4032);
	check("after closing", p, BIG, 1);
	q = filled(BIG, 2);
	check("after closing, the first", p, BIG, 1);
	check("after closing, the second", q, BIG, 2);
	free(p);
	free(q);
	must(open("/dev/null", O_RDONLY) == 3, "the lowest descriptor is free");
}

static void *one_thread(void *arg)
{
	uint64_t salt = (uint64_t)(uintptr_t)arg;
	char *p = filled(4 * MiB, salt), *small[64];

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 64; i++)
			small[i] = filled(PAGE * (1 + i % 8), salt + i);
		check("a thread's", p, 4 * MiB, salt + round);
		fill(p, 4 * MiB, salt + round + 1);
		for (unsigned i = 0; i < 64; i++) {
			check("a thread's small", small[i], PAGE * (1 + i % 8), salt + i);
			free(small[i]);
		}
	}
	free(p);
	return NULL;
}

static void do_threads(void)
{
	pthread_t t[6];

	for (uintptr_t i = 0; i < 6; i++)
		must(pthread_create(&t[i], NULL, one_thread, (void *)(i * 1000)) == 0, "pthread_create");
	for (unsigned i = 0; i < 6; i++)
		(void)pthread_join(t[i], NULL);
}

/* Bytes that are not there at the moment. */
size_t absent(void *p, size_t bytes)
{
	static unsigned char there[BIG / PAGE];
	size_t n = 0;

	must(mincore(p, bytes, there) == 0, "mincore");
	for (size_t i = 0; i < bytes / PAGE; i++)
		n += there[i] & 1 ? 0 : PAGE;
	return n;
}

static int wait_for(pid_t pid)
{
	int status = -1;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/* A child has everything, and what it does shows nowhere else. Also of a child of a child, and of one that executes. */
static void do_fork(void)
{
	char name[] = "true", *argv[] = { name, NULL };
	char *p = filled(BIG, 3), *q;
	pid_t pid = fork();

	if (pid == 0) {
		check("the child", p, BIG, 3);
		fill(p, BIG, 4);
		q = filled(2 * MiB, 5);
		check("the child's own", q, 2 * MiB, 5);
		free(q);
		pid = fork();
		if (pid == 0) {
			check("the child's child", p, BIG, 4);
			free(p);
			_exit(bad);
		}
		p = resized(p, BIG + MiB);
		check("the child's, larger", p, BIG, 4);
		exit(bad || wait_for(pid));
	}
	must(wait_for(pid) == 0, "the child's status");
	check("the parent", p, BIG, 3);
	must(posix_spawnp(&pid, "true", NULL, NULL, argv, environ) == 0 && wait_for(pid) == 0, "posix_spawn");
	must(system("exit 3") == 3 << 8, "system");
	q = filled(BIG, 6);
	check("the parent, later", p, BIG, 3);
	check("the parent, second", q, BIG, 6);
}

/* Programs that are started without a copy of the memory: nothing comes home for that, and nothing of it is read here. */
static void do_spawn(void)
{
	char name[] = "true", *argv[] = { name, NULL }, line[8];
	char *p = filled(BIG, 9);
	pid_t pid;
	FILE *f;

	for (unsigned i = 0; i < 10; i++) {
		must(posix_spawnp(&pid, "true", NULL, NULL, argv, environ) == 0 && wait_for(pid) == 0, "posix_spawn");
		must(system("exit 3") == 3 << 8, "system");
		f = popen("echo one", "r");
		must(f && fgets(line, sizeof(line), f) && strcmp(line, "one\n") == 0 && pclose(f) == 0, "popen");
		pid = vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork) */
		if (pid == 0) {
			(void)execvp("true", argv);
			_exit(1);
		}
		must(wait_for(pid) == 0, "vfork");
	}
	must(absent(p, BIG) > BIG / 2, "started others");
}

static void do_malloc(void)
{
	char *p = filled(2 * MiB, 7), *small[2000];
	volatile size_t too_much = SIZE_MAX - 100;
	void *a = NULL;

	for (size_t mib = 3; mib <= 24; mib += 3) {
		p = resized(p, mib * MiB);
		check("realloc", p, (mib - 3 ? mib - 3 : 2) * MiB, 7);
		must(malloc_usable_size(p) >= mib * MiB, "malloc_usable_size");
		fill(p, mib * MiB, 7);
	}
	for (unsigned i = 0; i < 2000; i++)
		small[i] = filled(PAGE + 64, i);
	p = resized(p, 10000);
	check("realloc to little", p, 10000, 7);
	a = reallocarray(p, 3, MiB);
	must(a != NULL, "reallocarray");
	p = a ? a : p;
	a = NULL;
	check("realloc to much", p, 10000, 7);
	for (unsigned round = 0; round < 6; round++) {
		char *z = calloc(3, MiB);

		check_zero("calloc", z, 3 * MiB);
		fill(z, 3 * MiB, round);
		free(z);
	}
	must(posix_memalign(&a, 2 * MiB, 3 * MiB) == 0 && (uintptr_t)a % (2 * MiB) == 0, "posix_memalign");
	must(posix_memalign(&a, 24, 3 * MiB) == EINVAL, "posix_memalign of 24");
	fill(a, 3 * MiB, 9);
	for (unsigned i = 0; i < 2000; i++) {
		check("small", small[i], PAGE + 64, i);
		free(small[i]);
	}
	check("aligned", a, 3 * MiB, 9);
	free(a);
	a = realloc(p, too_much);
	must(a == NULL && errno == ENOMEM, "realloc to too much");
	check("realloc that failed", p, 10000, 7);
	free(p);
	errno = 0;
	a = malloc(SIZE_MAX / 2);
	must(a == NULL && errno == ENOMEM, "too much");
}

char *mapped(size_t bytes)
{
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(p != MAP_FAILED, "mmap");
	return p;
}

/* A file where memory was that is managed: it stays a file, however large, and wherever it goes. */
static void map_a_file_over(void)
{
	const int rw = PROT_READ | PROT_WRITE;
	int fd = memfd_create("victim", 0);
	char *p = mapped(BIG), *at = p + MiB, *want = filled(MiB, 21), *q;

	fill(p, BIG, 20);
	must(pwrite(fd, want, MiB, 0) == (ssize_t)MiB, "pwrite");
	must(mmap(at, MiB / 2, rw, MAP_SHARED | MAP_FIXED, fd, 0) == at, "a file over it");
	check("before the file", p, MiB, 20);
	q = mremap(at, MiB / 2, MiB, MREMAP_MAYMOVE);
	must(q != MAP_FAILED, "mremap of the file");
	check("the file, larger", q, MiB, 21);
	fill(q, MiB, 22);
	must(pread(fd, want, MiB, 0) == (ssize_t)MiB, "pread");
	check("stored through the mapping", want, MiB, 22);
	free(want);
	(void)close(fd);
}

static void do_map(void)
{
	char *p = mapped(BIG), *other = mapped(4 * MiB), *q;

	map_a_file_over();
	fill(p, BIG, 10);
	fill(other, 4 * MiB, 11);
	must(munmap(p + 4 * MiB, 3 * MiB) == 0, "munmap of the middle");
	must(mmap(p + 5 * MiB, MiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p + 5 * MiB,
	     "mmap over");
	check_zero("mapped over", p + 5 * MiB, MiB);
	check("before the hole", p, 4 * MiB, 10);
	must(madvise(p, MiB, MADV_DONTNEED) == 0, "madvise");
	check_zero("given up", p, MiB);
	fill(p, 4 * MiB, 12);
	q = mremap(p, 4 * MiB, 16 * MiB, MREMAP_MAYMOVE);
	must(q != MAP_FAILED, "mremap, larger");
	check("mremap, larger", q, 4 * MiB, 12);
	check_zero("mremap, new", q + 4 * MiB, 12 * MiB);
	fill(q, 16 * MiB, 13);
	must(mremap(q, 16 * MiB, 8 * MiB, 0) == q, "mremap, smaller");
	check("mremap, smaller", q, 8 * MiB, 13);
	must(mprotect(q, 2 * MiB, PROT_READ) == 0, "mprotect");
	check("read-only", q, 8 * MiB, 13);
	check("of before, beside it", other, 4 * MiB, 11);
	must(mprotect(q + MiB, MiB, PROT_NONE) == 0 && mprotect(q, 2 * MiB, PROT_READ | PROT_WRITE) == 0, "mprotect back");
	check("writable again", q, 8 * MiB, 13);
	p = mapped(BIG);
	check_zero("only looked at", p, BIG);
	fill(p, BIG, 18); /* of which the kernel tells nobody: there are pages, of zeros */
	check("looked at, then written", p, BIG, 18);
	must(munmap(p, BIG) == 0, "munmap");
	p = mapped(MiB);
	fill(p, MiB, 16);
	must(mremap(q, 4 * MiB, 4 * MiB, MREMAP_MAYMOVE | MREMAP_FIXED, other) == other, "mremap to a place");
	check("moved to a place", other, 4 * MiB, 13);
	fill(q + 4 * MiB, 4 * MiB, 17);
	check("beside what was moved", q + 4 * MiB, 4 * MiB, 17);
	check("another mapping", p, MiB, 16);
	must(munmap(p, MiB) == 0, "munmap");
}

/* A page here and there is used all the time, all of them within the limit; what lies beside them is not worth its place. */
static void do_scattered(void)
{
	uint64_t *p = filled(BIG, 60), random = 88172645463325252u;
	const size_t pages = BIG / PAGE, words = PAGE / sizeof(*p);

	for (unsigned i = 0; i < 100000; i++) {
		size_t page;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		page = (random >> 20) % pages;
		page = random % 64 ? page / 6 * 6 : page;
		must(p[page * words + i % words] == (page * words + i % words) * 0x9e3779b97f4a7c15u + 60, "scattered");
	}
}

/* Read and written by the kernel, wherever it is. */
static void do_kernel(void)
{
	char *p = filled(BIG, 14), *q = malloc(BIG);
	int fds[2], fd = memfd_create("victim", 0);

	must(write(fd, p, BIG) == (ssize_t)BIG && pread(fd, q, BIG, 0) == (ssize_t)BIG, "write, read");
	check("through a file", q, BIG, 14);
	must(pipe(fds) == 0, "pipe");
	for (size_t at = 0; at < BIG; at += 8 * PAGE) {
		must(write(fds[1], p + at, 8 * PAGE) == 8 * (ssize_t)PAGE, "into the pipe");
		memset(q + at, 0, 8 * PAGE);
		must(read(fds[0], q + at, 8 * PAGE) == 8 * (ssize_t)PAGE, "out of the pipe");
	}
	check("through a pipe", q, BIG, 14);
}

static void on_term(int sig)
{
	_exit(40 + (sig == SIGTERM));
}

static void do_wait(void)
{
	char *p = filled(BIG, 15);

	(void)signal(SIGTERM, on_term);
	printf("ready %d\n", (int)getpid());
	(void)fflush(stdout);
	for (;;)
		check("while it waits", p, BIG, 15);
}

static void do_env(void)
{
	for (char **e = environ; *e; e++)
		puts(*e);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*fn)(void);
	} commands[] = {
		{ "close", do_close }, { "env", do_env }, { "fork", do_fork }, { "kernel", do_kernel },
		{ "malloc", do_malloc }, { "map", do_map }, { "remap", do_remap }, { "rights", do_rights }, { "scattered", do_scattered }, { "spawn", do_spawn }, { "threads", do_threads },
		{ "wait", do_wait },
	};

	if (argc == 3 && strcmp(argv[1], "exit") == 0)
		return atoi(argv[2]);
	if (argc == 3 && strcmp(argv[1], "signal") == 0)
		return raise(atoi(argv[2]));
	for (size_t i = 0; argc == 2 && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(argv[1], commands[i].name))
			continue;
		commands[i].fn();
		puts(bad ? "BAD" : "good");
		return bad;
	}
	return 2;
}
