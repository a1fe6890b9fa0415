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
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define MiB ((size_t)1 << 20)
#define BIG (24 * MiB)
#define MSEAL_NR 462

static int bad;

static void fill(void *p, size_t bytes, uint64_t salt)
{
	uint64_t *w = p;

	for (size_t i = 0; i < bytes / sizeof(*w); i++)
		w[i] = i * 0x9e3779b97f4a7c15u + salt;
}

static void check(const char *what, const void *p, size_t bytes, uint64_t salt)
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

static void check_zero(const char *what, const void *p, size_t bytes)
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

static void must(int ok, const char *what)
{
	if (ok)
		return;
	printf("%s: error %d\n", what, errno);
	bad = 1;
}

static void *filled(size_t bytes, uint64_t salt)
{
	void *p = malloc(bytes);

	must(p != NULL, "malloc");
	if (!p)
		exit(1);
	fill(p, bytes, salt);
	return p;
}

static void *resized(void *old, size_t bytes)
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
static size_t absent(void *p, size_t bytes)
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
	must(realloc(p, too_much) == NULL && errno == ENOMEM, "realloc to too much");
	check("realloc that failed", p, 10000, 7);
	free(p);
	errno = 0;
	a = malloc(SIZE_MAX / 2);
	must(a == NULL && errno == ENOMEM, "too much");
}

static char *mapped(size_t bytes)
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

static sigjmp_buf refused;

static void on_refused(int sig)
{
	(void)sig;
	siglongjmp(refused, 1);
}

/* Does the access end in SIGSEGV? */
static int refuses(char *p, int store)
{
	volatile char *at = p;

	if (sigsetjmp(refused, 1))
		return 1;
	if (store)
		*at = 1;
	else
		(void)*at;
	return 0;
}

/* All of it, which is away for the most part: it stays so. */
static void rights_of_all(void)
{
	char *p = mapped(BIG);

	fill(p, BIG, 20);
	must(absent(p, BIG) > BIG / 2, "more than the limit");
	must(mprotect(p, BIG, PROT_NONE) == 0 && absent(p, BIG) > BIG / 2, "all: to nothing");
	for (size_t at = 0; at < BIG; at += MiB)
		must(refuses(p + at, 0) && refuses(p + at + PAGE, 1), "all: no access");
	must(mprotect(p, BIG, PROT_READ) == 0 && absent(p, BIG) > BIG / 2, "all: to read");
	for (size_t at = 0; at < BIG; at += 2 * MiB) {
		must(refuses(p + at, 1) && !refuses(p + at, 0), "all: no store");
		must(refuses(p + at + MiB, 1), "all: no store to what is not there");
	}
	check("all: read-only", p, MiB, 20);
	must(mprotect(p, BIG, PROT_READ | PROT_WRITE) == 0 && absent(p, BIG) > BIG / 2, "all: back");
	check("all: back", p, BIG, 20);
	fill(p, BIG, 21);
	check("all: written", p, BIG, 21);
	must(munmap(p, BIG) == 0, "munmap");
}

/* Single pages among others that come and go; twice, as a mapping of which a part was protected is several. */
static void rights_of_guards(void)
{
	char *p = mapped(BIG);

	for (unsigned round = 0; round < 2; round++) {
		fill(p, BIG, 22 + round);
		for (size_t at = 7 * PAGE; at < BIG; at += MiB / 2)
			must(mprotect(p + at, PAGE, round ? PROT_READ : PROT_NONE) == 0, "guard");
		for (size_t at = 0; at + MiB / 2 <= BIG; at += MiB / 2) {
			check("below a guard", p + at, PAGE, 0x9e3779b97f4a7c15u * (at / 8) + 22 + round);
			fill(p + at + 8 * PAGE, PAGE, at);
			must(refuses(p + at + 7 * PAGE, 1), "a guard is written");
			must(refuses(p + at + 7 * PAGE, 0) == !round, "a guard is read");
			must(read(-1, p + at + 7 * PAGE, 1) == -1 && errno == EBADF, "read");
		}
		for (size_t at = 7 * PAGE; at < BIG; at += MiB / 2)
			must(mprotect(p + at, PAGE, PROT_READ | PROT_WRITE) == 0, "no guard");
		for (size_t at = 0; at + MiB / 2 <= BIG; at += MiB / 2) {
			check("what was a guard", p + at + 7 * PAGE, PAGE, 0x9e3779b97f4a7c15u * ((at + 7 * PAGE) / 8) + 22 + round);
			check("beside it", p + at + 8 * PAGE, PAGE, at);
		}
	}
	must(munmap(p, BIG) == 0, "munmap");
}

#if defined(__x86_64__) || defined(__aarch64__)
/* A function that returns n. */
static void emit(char *at, unsigned n)
{
#ifdef __x86_64__
	unsigned char code[] = { 0xb8, (unsigned char)n, (unsigned char)(n >> 8), 0, 0, 0xc3 };

	memcpy(at, code, sizeof(code));
#else
	uint32_t code[] = { 0x52800000u | (n & 0xffffu) << 5, 0xd65f03c0u };

	memcpy(at, code, sizeof(code));
#endif
	__builtin___clear_cache(at, at + 8);
}

static unsigned run_code(const char *at)
{
	unsigned (*fn)(void);

	memcpy(&fn, &at, sizeof(fn));
	return fn();
}

struct running {
	const char *code;
	volatile int stop;
};

static void *run_on(void *arg)
{
	struct running *r = arg;

	while (!r->stop)
		must(run_code(r->code) == 77, "running code");
	return NULL;
}

/* What a compiler in a program does: write, then execute; away in between. A thread that runs there never loses the right. */
static void rights_of_code(void)
{
	char *p = mapped(4 * MiB), *press = mapped(BIG);
	struct running r = { .code = p };
	pthread_t t;

	for (unsigned i = 0; i < 1024; i++)
		emit(p + i * PAGE, i);
	fill(press, BIG, 24);
	must(absent(p, 4 * MiB) > MiB, "code that is away");
	must(mprotect(p, 4 * MiB, PROT_READ | PROT_EXEC) == 0 && absent(p, 4 * MiB) > MiB, "to execute");
	for (unsigned i = 0; i < 1024; i += 3)
		must(run_code(p + i * PAGE) == i, "code");
	must(refuses(p, 1), "a store to code");
	must(mprotect(p, 4 * MiB, PROT_READ | PROT_WRITE | PROT_EXEC) == 0, "to write and execute");
	for (unsigned i = 0; i < 1024; i++)
		emit(p + i * PAGE, 1023 - i);
	emit(p, 77);
	must(pthread_create(&t, NULL, run_on, &r) == 0, "pthread_create");
	for (unsigned i = 1; i < 200; i++) {
		must(mprotect(p, 4 * MiB, PROT_READ | PROT_EXEC | (i % 2 ? 0 : PROT_WRITE)) == 0, "back and forth");
		must(run_code(p + i * PAGE) == 1023 - i, "new code");
	}
	r.stop = 1;
	(void)pthread_join(t, NULL);
	must(mprotect(p, 4 * MiB, PROT_READ | PROT_WRITE) == 0, "to write");
	must(munmap(p, 4 * MiB) == 0 && munmap(press, BIG) == 0, "munmap");
}
#else
static void rights_of_code(void)
{
}
#endif

static void do_rights(void)
{
	struct sigaction sa = { .sa_handler = on_refused };
	char *p = mapped(2 * MiB), *small;

	must(sigaction(SIGSEGV, &sa, NULL) == 0, "sigaction");
	must(mprotect(p + 1, PAGE, PROT_READ) == -1 && errno == EINVAL, "unaligned");
	must(mprotect(p, PAGE, 1 << 20) == -1 && errno == EINVAL, "no such right");
	must(mprotect(p, 0, PROT_READ) == 0 && mprotect(p, SIZE_MAX - PAGE, PROT_READ) == -1 && errno == ENOMEM, "length");
	must(munmap(p + MiB, MiB) == 0, "munmap");
	small = filled(64 * PAGE, 25);
	small = (char *)(((uintptr_t)small + PAGE - 1) / PAGE * PAGE);
	must(mprotect(small, 8 * PAGE, PROT_READ) == 0 && refuses(small, 1) && !refuses(small, 0), "of the heap");
	must(mprotect(small, 8 * PAGE, PROT_READ | PROT_WRITE) == 0 && !refuses(small + PAGE, 1), "of the heap, back");
	rights_of_all();
	rights_of_guards();
	rights_of_code();
}

/* Moved there and back, a part of it read-only, as an allocation; always more than the limit. */
static void remap_to_places(void)
{
	char *p = mapped(BIG), *other = mapped(BIG), *q, *past;

	fill(p, BIG, 30);
	q = mremap(p, BIG, BIG + 4 * MiB, MREMAP_MAYMOVE);
	must(q != MAP_FAILED && q != p, "something is behind it");
	must(absent(q, BIG) > BIG / 2 && refuses(p, 0) && refuses(p + BIG - PAGE, 1), "larger, elsewhere: away; gone");
	check("larger, elsewhere", q, BIG, 30);
	check_zero("larger, what is new", q + BIG, 4 * MiB);
	fill(q, BIG, 31);
	must(absent(q, BIG) > BIG / 2, "larger, elsewhere: managed");
	past = mremap(q, BIG, BIG, MREMAP_MAYMOVE | MREMAP_FIXED, other);
	must(past == other && absent(other, BIG) > BIG / 2, "to a place");
	check("to a place", other, BIG, 31);
	check_zero("beside what moved", q + BIG, 4 * MiB);
	fill(other, BIG, 32);
	must(absent(other, BIG) > BIG / 2, "to a place: managed");
	q = mremap(other, 8 * MiB, 8 * MiB, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	must(q != MAP_FAILED, "mremap that leaves a mapping");
	check("left it", q, 8 * MiB, 32);
	check_zero("left", other, 8 * MiB);
	fill(other, 8 * MiB, 33);
	fill(q, 8 * MiB, 34);
	must(absent(q, 8 * MiB) + absent(other, BIG) > BIG / 2, "left it: managed");
	check("left, written", other, 8 * MiB, 33);
	check("left it, written", q, 8 * MiB, 34);
	must(munmap(q, 8 * MiB) == 0 && munmap(other, BIG) == 0, "munmap");
}

/* What is several mappings for the kernel. */
static void remap_parts(void)
{
	char *p = mapped(BIG), *to = mapped(BIG), *q;

	fill(p, BIG, 35);
	must(mprotect(p + MiB, MiB, PROT_READ) == 0 && mprotect(p + 5 * MiB, PAGE, PROT_NONE) == 0, "mprotect");
	q = mremap(p, 8 * MiB, 8 * MiB, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	must(q == to, "mremap of parts");
	must(refuses(to + MiB, 1) && !refuses(to + MiB, 0) && refuses(to + 5 * MiB, 0), "rights came along");
	must(refuses(p, 0) && !refuses(p + 8 * MiB, 1), "the rest stayed");
	must(mprotect(to, 8 * MiB, PROT_READ | PROT_WRITE) == 0, "mprotect");
	check("in parts", to, 8 * MiB, 35);
	must(munmap(to + 3 * MiB, MiB) == 0, "munmap");
	must(mremap(to, 8 * MiB, 16 * MiB, MREMAP_MAYMOVE) == MAP_FAILED && errno == EFAULT, "mremap over a hole");
	check("before the hole", to, 3 * MiB, 35);
	must(mremap(to, MiB, MiB, MREMAP_FIXED, to + 4 * MiB) == MAP_FAILED && errno == EINVAL, "fixed, not to be moved");
	must(mremap(to, 2 * MiB, 2 * MiB, MREMAP_MAYMOVE | MREMAP_FIXED, to + MiB) == MAP_FAILED && errno == EINVAL, "onto itself");
	must(mremap(to, MiB, MiB, MREMAP_MAYMOVE | MREMAP_FIXED, to + 4 * MiB + 1) == MAP_FAILED && errno == EINVAL, "unaligned");
	must(mremap(to, MiB, 2 * MiB, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL) == MAP_FAILED && errno == EINVAL, "left, and larger");
	must(mremap(to + 8 * MiB, MiB, 2 * MiB, 0) == MAP_FAILED && errno == ENOMEM, "no room");
	check("after all that", to, 3 * MiB, 35);
	must(munmap(p, BIG) == 0 && munmap(to, BIG) == 0, "munmap");
}

/* A page that the kernel will not move, far behind: what was moved before it is back. */
static void remap_refused(void)
{
	char *p = mapped(BIG), *to = mapped(BIG);

	fill(p, BIG, 38);
	if (syscall(MSEAL_NR, p + 9 * MiB, PAGE, 0)) {
		puts("no mseal()");
		return;
	}
	must(mremap(p, BIG, BIG, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED && errno == EPERM, "mremap of what is sealed");
	must(absent(p, BIG) > BIG / 2, "refused: managed");
	check("refused", p, BIG, 38);
	must(mremap(p, BIG, BIG + MiB, MREMAP_MAYMOVE) == MAP_FAILED && errno == EPERM, "mremap of what is sealed, anywhere");
	check("refused again", p, BIG, 38);
}

static void *remap_on(void *arg)
{
	char *p = mapped(4 * MiB), *q;
	const volatile int *stop = arg;

	for (uint64_t round = 0; !*stop; round++) {
		fill(p, 4 * MiB, 40 + round);
		q = mremap(p, 4 * MiB, 4 * MiB, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
		must(q != MAP_FAILED && munmap(p, 4 * MiB) == 0, "a thread's mremap");
		check("a thread's, moved", q, 4 * MiB, 40 + round);
		p = q;
	}
	return NULL;
}

/* Two threads move theirs while a third one's grows. */
static void remap_at_once(void)
{
	pthread_t t[2];
	volatile int stop = 0;
	char *p = filled(2 * MiB, 36), *behind;

	for (unsigned i = 0; i < 2; i++)
		must(pthread_create(&t[i], NULL, remap_on, (void *)(uintptr_t)&stop) == 0, "pthread_create");
	for (size_t mib = 5; mib < 24; mib += 3) {
		behind = filled(MiB, 37);
		p = resized(p, mib * MiB);
		check("an allocation, larger", p, (mib - 3) * MiB, 36);
		fill(p, mib * MiB, 36);
		check("what was behind", behind, MiB, 37);
		free(behind);
	}
	stop = 1;
	for (unsigned i = 0; i < 2; i++)
		(void)pthread_join(t[i], NULL);
	must(absent(p, 23 * MiB) > 8 * MiB, "an allocation: managed");
	free(p);
}

static void do_remap(void)
{
	struct sigaction sa = { .sa_handler = on_refused };

	must(sigaction(SIGSEGV, &sa, NULL) == 0, "sigaction");
	remap_to_places();
	remap_parts();
	remap_at_once();
	remap_refused(); /* last: what is sealed stays mapped */
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
