/* SPDX-License-Identifier: MIT */
/* What a program does to the rights of its memory, with the bytes away for the most part. See victim.c. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "victim.h"

static sigjmp_buf refused;

static void on_refused(int sig)
{
	(void)sig;
	siglongjmp(refused, 1);
}

void catch_refused(void)
{
	struct sigaction sa = { .sa_handler = on_refused };

	must(sigaction(SIGSEGV, &sa, NULL) == 0, "sigaction");
}

int refuses(char *p, int store)
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

void do_rights(void)
{
	char *p = mapped(2 * MiB), *small;

	catch_refused();
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
