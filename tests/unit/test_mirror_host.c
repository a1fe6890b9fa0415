/* SPDX-License-Identifier: MIT */
/*
 * What spaces that mirror the process ask of the real host: whose memory it is, and accesses over the bus that keep to
 * the rights of the process and never wait.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "host_fixture.h"

#include "hal/host/gm_host_internal.h"

static void trust(struct host *h)
{
	((struct gm_host_pmap *)h->pmap)->knows_malloc = true; /* under a sanitizer it is another one */
}

static enum gm_host_kind kind_of(struct host *h, const void *at)
{
	struct gm_host_vma vma = { .bytes = 0 };
	uint64_t va = GM_VA(at) & ~(PAGE - 1);

	cr_assert_eq(h->ops->mem_kind(h->pmap, va, &vma), GM_RET_SUCCESS);
	cr_assert(vma.va <= va && va < vma.va + vma.bytes);
	cr_assert_eq(vma.va / BLOCK, (vma.va + vma.bytes - 1) / BLOCK, "never beyond the block");
	return vma.kind;
}

static char *map(uint64_t bytes, int prot, int flags)
{
	char *at = mmap(NULL, bytes, prot, flags | MAP_ANONYMOUS, -1, 0);

	cr_assert(at != MAP_FAILED);
	return at;
}

#define RW (PROT_READ | PROT_WRITE)

static char in_bss[8 << 20];

Test(mirror_host, kinds)
{
	char *big, *small, *shared, *none, *only, *slot_at, *heap, on_stack = 0;
	struct gm_host_vma vma;
	struct host h;
	uint64_t slot;
	void *own;

	host_begin(&h);
	trust(&h);
	/* What is mapped later may come to lie right below, and the page there be taken for the guard page of a stack. */
	big = map((16 << 20) + PAGE, RW, MAP_PRIVATE);
	cr_assert_eq(mprotect(big, PAGE, PROT_READ), 0);
	big += PAGE;
	small = map(4 * PAGE, RW, MAP_PRIVATE);
	shared = map(4 << 20, RW, MAP_SHARED);
	none = map(4 << 20, PROT_NONE, MAP_PRIVATE);
	only = map(4 << 20, PROT_READ, MAP_PRIVATE);
	cr_assert_eq(kind_of(&h, big + (8 << 20)), GM_HOST_ANON);
	cr_assert_neq(kind_of(&h, small), GM_HOST_ANON);
	cr_assert_eq(kind_of(&h, shared), GM_HOST_SHARED);
	cr_assert_eq(kind_of(&h, none), GM_HOST_RIGHTS);
	cr_assert_eq(kind_of(&h, only), GM_HOST_RIGHTS);
	cr_assert_eq(kind_of(&h, &on_stack), GM_HOST_STACK);
	heap = sbrk((intptr_t)PAGE);
	if (heap != (void *)-1)
		cr_assert_neq(kind_of(&h, heap), GM_HOST_ANON);
	in_bss[4 << 20] = 1;
	cr_assert_neq(kind_of(&h, in_bss + (4 << 20)), GM_HOST_ANON);
	/* The library's own. */
	own = gm_mem_alloc(h.env, 8 << 20);
	cr_assert_eq(kind_of(&h, (char *)own + (4 << 20)), GM_HOST_LIBRARY);
	cr_assert_neq(kind_of(&h, h.pmap), GM_HOST_ANON);
	gm_mem_free(h.env, own, 8 << 20);
	cr_assert_eq(h.ops->slot_alloc(h.pmap, &slot), GM_RET_SUCCESS);
	slot_at = (char *)(uintptr_t)slot;
	cr_assert_eq(kind_of(&h, slot_at), GM_HOST_LIBRARY);
	cr_assert_eq(kind_of(&h, slot_at + 100 * BLOCK), GM_HOST_LIBRARY);
	cr_assert_eq(kind_of(&h, h.ops->bounce(h.pmap, 1, PAGE)), GM_HOST_LIBRARY);
	h.ops->slot_free(h.pmap, slot);
	munmap(big, 16 << 20);
	cr_assert_eq(h.ops->mem_kind(h.pmap, GM_VA(big) + BLOCK, &vma), GM_RET_FAULT);
	host_end(&h);
}

/* One page of the library's in a mapping that is the program's otherwise: the kernel makes one of both. */
Test(mirror_host, library_in_the_middle)
{
	struct gm_host_vma vma;
	struct host h;
	char *big, *own;

	host_begin(&h);
	trust(&h);
	own = gm_mem_alloc(h.env, 300 << 10);
	for (unsigned i = 0; i < 2; i++) { /* below, most likely right below */
		big = map(4 << 20, RW, MAP_PRIVATE);
		for (char *at = big; at < big + (4 << 20); at += PAGE) {
			cr_assert_eq(h.ops->mem_kind(h.pmap, GM_VA(at), &vma), GM_RET_SUCCESS);
			cr_assert(vma.kind != GM_HOST_ANON || GM_VA(own) >= vma.va + vma.bytes ||
					  GM_VA(own) + (300 << 10) <= vma.va,
				  "the library's memory would be taken");
		}
	}
	cr_assert_eq(kind_of(&h, own + (150 << 10)), GM_HOST_LIBRARY);
	gm_mem_free(h.env, own, 300 << 10);
	host_end(&h);
}

static pthread_barrier_t barrier;

struct own_thread {
	char *small, *on_stack;
};

static void *sleeper(void *arg)
{
	struct own_thread *t = arg;
	char here = 1;

	t->small = malloc(100);
	t->on_stack = &here;
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	free(t->small);
	return NULL;
}

/* Stacks, of the C library's making and of the program's, and the arena of a thread. */
Test(mirror_host, threads)
{
	char *plain = map(16 << 20, RW, MAP_PRIVATE);
	struct own_thread a, b;
	pthread_attr_t attr;
	pthread_t id[2];
	struct host h;

	host_begin(&h);
	trust(&h);
	cr_assert_eq(kind_of(&h, plain + (1 << 20)), GM_HOST_ANON);
	pthread_barrier_init(&barrier, NULL, 3);
	pthread_attr_init(&attr);
	cr_assert_eq(pthread_attr_setstack(&attr, plain, 16 << 20), 0);
	cr_assert_eq(pthread_create(&id[0], NULL, sleeper, &a), 0);
	cr_assert_eq(pthread_create(&id[1], &attr, sleeper, &b), 0);
	pthread_barrier_wait(&barrier);
	cr_assert_neq(kind_of(&h, a.on_stack), GM_HOST_ANON);
	cr_assert_neq(kind_of(&h, a.on_stack - (4 << 20)), GM_HOST_ANON);
	cr_assert_neq(kind_of(&h, b.on_stack), GM_HOST_ANON);
	cr_assert_eq(kind_of(&h, plain + (1 << 20)), GM_HOST_STACK);
	if (gm_host_knows_malloc(((struct gm_host_pmap *)h.pmap)->dev)) { /* not under a sanitizer */
		cr_assert_neq(kind_of(&h, a.small), GM_HOST_ANON);
		cr_assert_neq(kind_of(&h, b.small), GM_HOST_ANON);
	}
	pthread_barrier_wait(&barrier);
	pthread_join(id[0], NULL);
	pthread_join(id[1], NULL);
	cr_assert_eq(kind_of(&h, plain + (1 << 20)), GM_HOST_ANON);
	munmap(plain, 16 << 20);
	host_end(&h);
}

/* An arena that is as large as it can get has nothing behind it; what is known of it is its head. */
Test(mirror_host, arena_of_glibc)
{
	const uint64_t size = UINT64_C(64) << 20;
	char *raw = map(2 * size, RW, MAP_PRIVATE | MAP_NORESERVE);
	char *at = (char *)((GM_VA(raw) + size - 1) / size * size);
	uint64_t head[4] = { GM_VA(at) + 64, 0, 1 << 20, 2 << 20 };
	struct host h;

	host_begin(&h);
	trust(&h);
	cr_assert_eq(kind_of(&h, at + (32 << 20)), GM_HOST_ANON);
	memcpy(at, head, sizeof(head));
	cr_assert_eq(kind_of(&h, at + (32 << 20)), GM_HOST_ARENA);
	cr_assert_eq(kind_of(&h, at), GM_HOST_ARENA);
	if (raw + (4 << 20) <= at)
		cr_assert_eq(kind_of(&h, at - (2 << 20)), GM_HOST_ANON);
	munmap(raw, 2 * size);
	host_end(&h);
}

/* The last 2 MiB end beyond what a process can have: stacks are there, where addresses are not random. */
Test(mirror_host, last_of_the_address_space)
{
#ifdef __x86_64__
	uint64_t end = UINT64_C(1) << 47, block = end - BLOCK;
	unsigned page = (unsigned)(BLOCK / PAGE - 2);
	char *at = (char *)(uintptr_t)(end - 2 * PAGE);
	struct gm_mask present;
	struct host h;

	host_begin(&h);
	if (mmap(at, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED)
		cr_assert_eq(errno, EEXIST, "error %d", errno);
	*(volatile char *)at = 1;
	for (unsigned i = 0; i < 2; i++) {
		((struct gm_host_pmap *)h.pmap)->by_entries = i;
		cr_assert_eq(h.ops->mem_present(h.pmap, block, &present), GM_RET_SUCCESS, "%u: %s", i, gm_last_error());
		cr_assert(gm_mask_test(&present, page), "%u", i);
		cr_assert_not(gm_mask_test(&present, page + 1), "%u", i);
	}
	host_end(&h);
#else
	cr_skip_test("NOT TESTED: where addresses end here is not known");
#endif
}

Test(mirror_host, guard_below)
{
	char *at = map(8 << 20, RW, MAP_PRIVATE);
	struct host h;

	host_begin(&h);
	trust(&h);
	cr_assert_eq(kind_of(&h, at + (6 << 20)), GM_HOST_ANON);
	cr_assert_eq(mprotect(at, PAGE, PROT_NONE), 0);
	cr_assert_eq(kind_of(&h, at + (6 << 20)), GM_HOST_STACK);
	munmap(at, 8 << 20);
	host_end(&h);
}

/* --------------------------------------------------------------- the bus */

static gm_ret_t bus(struct host *h, const void *at, uint64_t *value, bool write)
{
	return h->ops->bus_access(h->dev, GM_VA(at), value, sizeof(*value), write);
}

/* The kernel's file for debuggers would do all of this. */
Test(mirror_host, bus_keeps_to_the_rights)
{
	char *at = map(4 * PAGE, RW, MAP_PRIVATE);
	uint64_t value = 5;
	struct host h;

	host_begin(&h);
	memset(at, 1, 4 * PAGE);
	cr_assert_eq(mprotect(at, PAGE, PROT_READ), 0);
	cr_assert_eq(mprotect(at + PAGE, PAGE, PROT_NONE), 0);
	cr_assert_eq(bus(&h, at, &value, true), GM_RET_FAULT);
	cr_assert_eq(at[0], 1, "read-only memory was written");
	cr_assert_eq(h.ops->bus_touch(h.dev, GM_VA(at)), GM_RET_FAULT);
	cr_assert_eq(bus(&h, at, &value, false), GM_RET_SUCCESS);
	cr_assert_eq(value, UINT64_C(0x0101010101010101));
	value = 5;
	cr_assert_eq(bus(&h, at + PAGE, &value, false), GM_RET_FAULT);
	cr_assert_eq(value, 5, "PROT_NONE memory was read");
	cr_assert_eq(bus(&h, at + PAGE, &value, true), GM_RET_FAULT);
	cr_assert_eq(bus(&h, at + 2 * PAGE - 4, &value, false), GM_RET_FAULT, "half of it may not be read");
	cr_assert_eq(bus(&h, at + 2 * PAGE, &value, true), GM_RET_SUCCESS);
	cr_assert_eq(*(uint64_t *)(void *)(at + 2 * PAGE), 5);
	cr_assert_eq(h.ops->bus_touch(h.dev, GM_VA(at) + 2 * PAGE), GM_RET_SUCCESS);
	cr_assert_eq(*(uint64_t *)(void *)(at + 2 * PAGE), 5);
	munmap(at + 3 * PAGE, PAGE);
	cr_assert_eq(bus(&h, at + 3 * PAGE, &value, false), GM_RET_FAULT);
	cr_assert_eq(bus(&h, at + 3 * PAGE - 4, &value, false), GM_RET_FAULT);
	munmap(at, 3 * PAGE);
	host_end(&h);
}

/* Nobody brings it: an access that waited would wait for ever. */
Test(mirror_host, bus_never_waits)
{
	char *at = map_app(BLOCK, false);
	uint64_t value = 5;
	struct host h;

	host_begin(&h);
	alarm(100);
	cr_assert_eq(h.ops->watch(h.pmap, GM_VA(at), BLOCK), GM_RET_SUCCESS);
	cr_assert_eq(bus(&h, at, &value, false), GM_RET_FAULT);
	cr_assert_eq(bus(&h, at, &value, true), GM_RET_FAULT);
	cr_assert_eq(h.ops->bus_touch(h.dev, GM_VA(at)), GM_RET_FAULT);
	cr_assert_eq(h.ops->unwatch(h.pmap, GM_VA(at), BLOCK), GM_RET_SUCCESS);
	cr_assert_eq(bus(&h, at, &value, true), GM_RET_SUCCESS);
	host_end(&h);
}

static gm_ret_t bring(struct host *h, const void *at, bool write, uint64_t ms)
{
	return h->ops->bus_bring(h->dev, GM_VA(at), write, gm_deadline_ns(h->env, ms * 1000000));
}

/* As a touch of the process would end; where nobody serves it, at the deadline, with nothing there and no child left. */
Test(mirror_host, bring_ends)
{
	char *at = map(4 * PAGE, RW, MAP_PRIVATE), *away = map_app(BLOCK, false);
	struct host h;

	host_begin(&h);
	alarm(100);
	cr_assert_eq(bring(&h, at, false, 60000), GM_RET_SUCCESS);
	at[PAGE] = 7;
	cr_assert_eq(bring(&h, at + PAGE + 5, true, 60000), GM_RET_SUCCESS);
	cr_assert_eq(at[PAGE], 7);
	cr_assert_eq(mprotect(at, PAGE, PROT_READ), 0);
	cr_assert_eq(mprotect(at + PAGE, PAGE, PROT_NONE), 0);
	munmap(at + 3 * PAGE, PAGE);
	cr_assert_eq(bring(&h, at, false, 60000), GM_RET_SUCCESS);
	cr_assert_eq(bring(&h, at, true, 60000), GM_RET_FAULT);
	cr_assert_eq(bring(&h, at + PAGE, false, 60000), GM_RET_FAULT);
	cr_assert_eq(bring(&h, at + 3 * PAGE, false, 60000), GM_RET_FAULT);
	cr_assert_eq(h.ops->watch(h.pmap, GM_VA(away), BLOCK), GM_RET_SUCCESS);
	errno = 123;
	cr_assert_eq(bring(&h, away, false, 30), GM_RET_TIMEDOUT);
	cr_assert_eq(bring(&h, away, true, 30), GM_RET_TIMEDOUT);
	cr_assert_eq(bring(&h, away, true, 0), GM_RET_TIMEDOUT);
	cr_assert_eq(errno, 123);
	cr_assert_eq(waitpid(-1, NULL, WNOHANG | __WALL), -1, "a child is left");
	cr_assert_eq(h.ops->unwatch(h.pmap, GM_VA(away), BLOCK), GM_RET_SUCCESS);
	cr_assert_eq(away[0], 0);
	munmap(at, 3 * PAGE);
	host_end(&h);
}

/* The program closes everything, and has files of its own where ours were. */
Test(mirror_host, bus_after_the_program_closed_all)
{
	char name[] = "/tmp/gm-mirror-XXXXXX", *at = map(PAGE, RW, MAP_PRIVATE);
	int fd = mkstemp(name);
	struct gm_host_dev *d;
	uint64_t value = 5;
	struct host h;

	host_begin(&h);
	d = h.dev;
	cr_assert_geq(fd, 0);
	unlink(name);
	cr_assert_geq(dup2(fd, gm_host_fd_last(&d->mem)), 0);
	cr_assert_geq(dup2(fd, gm_host_fd_last(&d->maps)), 0);
	cr_assert_eq(bus(&h, at, &value, true), GM_RET_SUCCESS, "both are opened anew");
	cr_assert_eq(*(uint64_t *)(void *)at, value);
	cr_assert_eq(lseek(fd, 0, SEEK_END), 0, "the program's file was written");
	munmap(at, PAGE);
	host_end(&h);
}
