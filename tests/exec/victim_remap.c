/* SPDX-License-Identifier: MIT */
/* How a program moves its memory, with the bytes away for the most part. See victim.c. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "victim.h"

#define MSEAL_NR 462

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
	/* what a program maps itself, at an address, is not managed: it is moved all the same */
	must(mmap(to + 6 * MiB, MiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == to + 6 * MiB,
	     "mmap over");
	fill(to + 6 * MiB, MiB, 39);
	must(mremap(to, 8 * MiB, 8 * MiB, MREMAP_MAYMOVE | MREMAP_FIXED, p) == p, "mremap of what is partly managed");
	check("partly managed, managed", p, 6 * MiB, 35);
	check("partly managed, not", p + 6 * MiB, MiB, 39);
	must(mremap(p, 8 * MiB, 8 * MiB, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "and back");
	check("there and back", to + 6 * MiB, MiB, 39);
	check("there and back, managed", to, 6 * MiB, 35);
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

void do_remap(void)
{
	catch_refused();
	remap_to_places();
	remap_parts();
	remap_at_once();
	remap_refused(); /* last: what is sealed stays mapped */
}
