/* SPDX-License-Identifier: MIT */
/*
 * A device reaches all memory of this process, with the rights that the process has, and what may not be moved is not.
 */
#include "config.h"

#include "mirror_fixture.h"

#define MIRROR_TEST(name)                                \
	static void name##_body(struct mirror *m);       \
	Test(mirror, name)                               \
	{                                                \
		struct mirror m;                         \
                                                         \
		alarm(200);                              \
		mirror_open(&m, NULL);                   \
		name##_body(&m);                         \
		mirror_close(&m);                        \
	}                                                \
	static void name##_body(struct mirror *m)

static uint64_t in_data = 7;
static uint64_t in_bss;
static const uint64_t in_rodata = 77;
static _Thread_local uint64_t in_tls;

MIRROR_TEST(data_of_the_program)
{
	static char page[2 * 4096] = "a page of .data of its own";

	shared_in_place(m, &in_data);
	shared_in_place(m, &in_bss);
	shared_in_place(m, &in_tls);
	shared_in_place(m, (uint64_t *)(void *)(page + 4096 - (uintptr_t)page % 4096));
	is_word(m->ctx, &in_rodata, 77);
	IS(dev_set(m->ctx, &in_rodata, 1), GM_RET_PERM);
	cr_assert_eq(*(volatile const uint64_t *)&in_rodata, 77);
}

MIRROR_TEST(stack_and_small_memory)
{
	volatile uint64_t on_stack = 0;
	uint64_t *small = malloc(1024);
	char *page = anon(PAGE, PROT_READ | PROT_WRITE);

	shared_in_place(m, &on_stack);
#ifndef MIRROR_SANITIZED
	shared_in_place(m, small);
#endif
	shared_in_place(m, (uint64_t *)(void *)page);
	free(small);
	munmap(page, PAGE);
	IS(dev_set(m->ctx, page, 1), GM_RET_FAULT);
	cr_assert_eq(place_of(m->as, page), GM_PLACE_OUTSIDE, "what is refused is remembered no more");
}

MIRROR_TEST(heap)
{
	char *top = sbrk(0), *more = sbrk(4 * (intptr_t)BLOCK);

	if (more == (void *)-1)
		cr_skip_test("NOT TESTED: the heap cannot grow");
	(void)top;
	shared_in_place(m, (uint64_t *)(void *)(more + 2 * BLOCK - (uintptr_t)more % 8));
	/* Asked for, it moves. */
	OK(gm_adopt(m->as, more + BLOCK, BLOCK, 0));
	shared_by_moving(m, (uint64_t *)(void *)(more + BLOCK + (BLOCK / 2) - (uintptr_t)more % 8));
	shared_in_place(m, (uint64_t *)(void *)(more + 3 * BLOCK - (uintptr_t)more % 8));
	OK(gm_release(m->as, more + BLOCK, BLOCK));
}

MIRROR_TEST(large_memory_moves)
{
	uint64_t *big = (uint64_t *)(void *)anon(64 << 20, PROT_READ | PROT_WRITE);
	struct gm_page_info info;

	for (unsigned i = 0; i < 64; i++)
		big[i << 17] = i;
	shared_by_moving(m, big + (5 << 17));
	for (unsigned i = 6; i < 64; i++)
		is_word(m->ctx, big + (i << 17), i);
	for (unsigned i = 6; i < 64; i++)
		cr_assert_eq(big[i << 17], i);
	OK(gm_query(m->as, GM_VA(big), 1, &info));
	munmap(big, 64 << 20);
	IS(dev_set(m->ctx, big + (5 << 17), 1), GM_RET_FAULT);
}

#ifndef MIRROR_SANITIZED
MIRROR_TEST(large_malloc_moves)
{
	uint64_t *big = malloc(64 << 20);

	shared_by_moving(m, big + (5 << 17));
	shared_by_moving(m, big + (63 << 17));
	free(big);
}
#endif

static void *thread_main(void *arg)
{
	volatile uint64_t on_stack = 0, *small = malloc(512);
	struct mirror *m = arg;

	shared_in_place(m, &on_stack);
	shared_in_place(m, &in_tls);
#ifndef MIRROR_SANITIZED
	shared_in_place(m, small); /* of an arena of this thread */
#endif
	free((void *)(uintptr_t)small);
	return NULL;
}

/* With a buffer right below and above, which the kernel may put into one mapping with the stack. */
MIRROR_TEST(stack_of_a_thread)
{
	char *before = anon(8 << 20, PROT_READ | PROT_WRITE), *after;
	pthread_t id;

	cr_assert_eq(pthread_create(&id, NULL, thread_main, m), 0);
	after = anon(8 << 20, PROT_READ | PROT_WRITE);
	shared_by_moving(m, (uint64_t *)(void *)(after + (4 << 20)));
	pthread_join(id, NULL);
	munmap(before, 8 << 20);
	munmap(after, 8 << 20);
}

MIRROR_TEST(stack_of_plain_memory)
{
	char *stack = anon(16 << 20, PROT_READ | PROT_WRITE);
	pthread_attr_t attr;
	pthread_t id;

	pthread_attr_init(&attr);
	cr_assert_eq(pthread_attr_setstack(&attr, stack, 16 << 20), 0);
	cr_assert_eq(pthread_create(&id, &attr, thread_main, m), 0);
	pthread_join(id, NULL);
	pthread_attr_destroy(&attr);
	munmap(stack, 16 << 20);
}

MIRROR_TEST(shared_memory)
{
	int fd = (int)syscall(SYS_memfd_create, "gm-mirror", 0u);
	char *at, *alias;

	cr_assert_eq(ftruncate(fd, 4 << 20), 0);
	at = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	alias = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert(at != MAP_FAILED && alias != MAP_FAILED);
	shared_in_place(m, (uint64_t *)(void *)(at + BLOCK));
	OK(dev_set(m->ctx, at + BLOCK + 8, 99));
	is_word(m->ctx, alias + BLOCK + 8, 99);
	munmap(alias, 4 << 20);
	munmap(at, 4 << 20);
	close(fd);
}

MIRROR_TEST(files)
{
	int fd = file_of(4 << 20);
	char *shared = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	char *private = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	char *only = mmap(NULL, 4 << 20, PROT_READ, MAP_SHARED, fd, 0);

	cr_assert(shared != MAP_FAILED && private != MAP_FAILED && only != MAP_FAILED);
	is_word(m->ctx, shared + 5 * PAGE, 6);
	is_word(m->ctx, private + 5 * PAGE, 6);
	OK(dev_set(m->ctx, shared + 5 * PAGE, 600));
	cr_assert_eq(file_word(fd, 5), 600, "the store does not reach the file");
	OK(dev_set(m->ctx, private + 5 * PAGE, 700));
	is_word(m->ctx, private + 5 * PAGE, 700);
	cr_assert_eq(file_word(fd, 5), 600, "a store to a private mapping reaches the file");
	cr_assert_eq(*(uint64_t *)(void *)(private + 5 * PAGE), 700);
	is_word(m->ctx, only + 5 * PAGE, 600);
	IS(dev_set(m->ctx, only + 5 * PAGE, 1), GM_RET_PERM);
	cr_assert_eq(place_of(m->as, only + 6 * PAGE), GM_PLACE_OUTSIDE);
	/* Cut: behind its end an access is SIGBUS for the CPU. */
	is_word(m->ctx, shared + 9 * PAGE, 10);
	cr_assert_eq(ftruncate(fd, 8 * (off_t)PAGE), 0);
	IS(dev_set(m->ctx, shared + 9 * PAGE, 1), GM_RET_FAULT);
	IS(dev_touch(m->ctx, GM_VA(shared + 100 * PAGE), false), GM_RET_FAULT);
	is_word(m->ctx, shared + 7 * PAGE, 8);
	munmap(shared, 4 << 20);
	munmap(private, 4 << 20);
	munmap(only, 4 << 20);
	close(fd);
}

MIRROR_TEST(hugetlb)
{
	char *at = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (at == MAP_FAILED)
		cr_skip_test("NOT TESTED: no huge pages of hugetlb on this machine");
	shared_in_place(m, (uint64_t *)(void *)at);
	munmap(at, BLOCK);
}

/* What the kernel maps: never a hang, and bytes where the process itself reads any. */
MIRROR_TEST(mappings_of_the_kernel)
{
	uint64_t va = 0;

	for (struct gm_host_area a; gm_host_area(m->as->host->dev, va, &a) == GM_RET_SUCCESS; va = a.end) {
		uint64_t value = 0;
		gm_ret_t ret;

		if (a.name[0] != '[' || a.name[1] != 'v' || a.end > UINT64_C(1) << 47)
			continue;
		ret = dev_get(m->ctx, ptr(a.begin), &value);
		cr_assert(ret == GM_RET_SUCCESS || ret == GM_RET_FAULT, "%s: %s", a.name, gm_ret_name(ret));
		if (strcmp(a.name, "[vdso]") == 0) {
			OK(ret);
			cr_assert_eq(value, *(uint64_t *)ptr(a.begin));
		}
		if (!ret)
			IS(dev_set(m->ctx, ptr(a.begin), 1), GM_RET_PERM);
	}
}

MIRROR_TEST(no_access)
{
	char *at = anon(8 << 20, PROT_READ | PROT_WRITE), *none = anon(4 << 20, PROT_NONE), *only;

	IS(dev_touch(m->ctx, GM_VA(none), false), GM_RET_FAULT);
	IS(dev_touch(m->ctx, GM_VA(none) + BLOCK, true), GM_RET_FAULT);
	IS(dev_touch(m->ctx, 4096, false), GM_RET_FAULT);
	IS(dev_touch(m->ctx, (UINT64_C(1) << 46) + 123 * BLOCK, true), GM_RET_FAULT);
	only = anon(4 << 20, PROT_READ);
	is_word(m->ctx, only + BLOCK, 0);
	IS(dev_set(m->ctx, only + BLOCK, 1), GM_RET_PERM);
	cr_assert_eq(*(volatile uint64_t *)(void *)(only + BLOCK), 0);
	munmap(at, 8 << 20);
	IS(dev_touch(m->ctx, GM_VA(at) + BLOCK, false), GM_RET_FAULT);
	munmap(none, 4 << 20);
	munmap(only, 4 << 20);
	cr_assert_eq(place_of(m->as, at), GM_PLACE_OUTSIDE);
}

/* What is mapped in place already follows the rights of the process. */
MIRROR_TEST(rights_that_change)
{
	char *page = anon(PAGE, PROT_READ | PROT_WRITE);
	volatile uint64_t *at = (uint64_t *)(void *)page;

	shared_in_place(m, at);
	cr_assert_eq(mprotect(page, PAGE, PROT_READ), 0);
	is_word(m->ctx, page, 43);
	IS(dev_set(m->ctx, page, 1), GM_RET_PERM);
	cr_assert_eq(*at, 43, "read-only memory was written");
	cr_assert_eq(mprotect(page, PAGE, PROT_NONE), 0);
	IS(dev_touch(m->ctx, GM_VA(page), false), GM_RET_FAULT);
	IS(dev_set(m->ctx, page, 1), GM_RET_FAULT);
	cr_assert_eq(place_of(m->as, page), GM_PLACE_OUTSIDE);
	cr_assert_eq(mprotect(page, PAGE, PROT_READ | PROT_WRITE), 0);
	is_word(m->ctx, page, 43);
	shared_in_place(m, at);
	munmap(page, PAGE);
}

/* The address stays, what is there changes. */
MIRROR_TEST(other_memory_at_the_address)
{
	int fd = file_of(4 << 20);
	char *at = anon(4 << 20, PROT_READ | PROT_WRITE), *block = ptr((GM_VA(at) + BLOCK - 1) & ~(BLOCK - 1));
	const int fixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	/* Small, in place; then large, and moved; then a file; then large again. */
	/* Nobody else may come to lie there meanwhile: read-only, which is no guard page of a stack. */
	cr_assert_eq(mmap(at, 4 << 20, PROT_READ, fixed, -1, 0), at);
	cr_assert_eq(mmap(block, PAGE, PROT_READ | PROT_WRITE, fixed, -1, 0), block);
	shared_in_place(m, (uint64_t *)(void *)block);
	cr_assert_eq(mmap(block, BLOCK, PROT_READ | PROT_WRITE, fixed, -1, 0), block);
	is_word(m->ctx, block, 0);
	shared_by_moving(m, (uint64_t *)(void *)(block + 8 * PAGE));
	is_word(m->ctx, block + 64 * PAGE, 0);
	cr_assert_eq(mmap(block, BLOCK, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0), block);
	is_word(m->ctx, block + 64 * PAGE, 65);
	cr_assert_eq(place_of(m->as, block + 64 * PAGE), GM_PLACE_IN_PLACE);
	IS(dev_set(m->ctx, block + 64 * PAGE, 1), GM_RET_PERM);
	cr_assert_eq(mmap(block, BLOCK, PROT_READ | PROT_WRITE, fixed, -1, 0), block);
	IS(dev_set(m->ctx, block + 64 * PAGE, 5), GM_RET_SUCCESS);
	shared_by_moving(m, (uint64_t *)(void *)(block + 64 * PAGE));
	munmap(at, 4 << 20);
	close(fd);
}

MIRROR_TEST(locked_memory)
{
	char *at = anon(6 << 20, PROT_READ | PROT_WRITE);

	if (syscall(SYS_mlock, at, 6 << 20))
		cr_skip_test("NOT TESTED: memory cannot be locked here");
	shared_in_place(m, (uint64_t *)(void *)(at + BLOCK));
	cr_assert_eq(syscall(SYS_munlock, at, 6 << 20), 0);
	shared_by_moving(m, (uint64_t *)(void *)(at + 2 * BLOCK));
	munmap(at, 6 << 20);
}

/* Memory of another space is in place here; where that has it on its device it comes home. */
MIRROR_TEST(memory_of_another_space)
{
	struct gm_ws_range range = { .bytes = UNIT, .access = RW };
	struct gm_ws *held, *ws;
	struct gm_as *other;
	struct gm_ctx *ctx;
	void *owned;
	uint64_t *at;

	OK(gm_as_create(m->lib, 0, 0, NULL, &other));
	OK(gm_as_attach(other, m->dev, GM_ATTACH_IDENTITY, NULL, &ctx));
	OK(gm_alloc(other, 4 << 20, 0, &owned));
	range.va = GM_VA(owned);
	at = (uint64_t *)owned + 1000;
	*at = 5;
	is_word(m->ctx, at, 5);
	cr_assert_eq(place_of(m->as, at), GM_PLACE_IN_PLACE);
	OK(gm_migrate(other, GM_VA(owned), 4 << 20, m->dev, NULL));
	OK(dev_set(ctx, at, 6));
	cr_assert_eq(place_of(other, at), GM_PLACE_DEVICE);
	is_word(m->ctx, at, 6);
	cr_assert_eq(place_of(other, at), GM_PLACE_HOST);
	OK(dev_set(m->ctx, at, 7));
	cr_assert_eq(*(volatile uint64_t *)at, 7);
	/* A device that takes sets need not fault: what it could not access must not be in one. */
	OK(gm_ws_acquire(ctx, &range, 1, 20 * SECOND, &held));
	IS(gm_ws_acquire(m->ctx, &range, 1, SECOND / 5, &ws), GM_RET_TIMEDOUT);
	OK(gm_ws_release(held, NULL));
	OK(gm_ws_acquire(m->ctx, &range, 1, 20 * SECOND, &ws));
	is_word(m->ctx, at, 7);
	OK(gm_ws_release(ws, NULL));
	OK(gm_free(other, owned));
	IS(dev_touch(m->ctx, GM_VA(at), false), GM_RET_FAULT);
	OK(gm_as_destroy(other));
}

/* What was moved on demand and has been home for a while is let go, and found again. */
MIRROR_TEST(let_go)
{
	char *at = anon(8 << 20, PROT_READ | PROT_WRITE);
	volatile uint64_t *word = (uint64_t *)(void *)(at + (4 << 20));

	shared_by_moving(m, word);
	for (unsigned i = 0; i < 20000 && place_of(m->as, at + (4 << 20)) != GM_PLACE_OUTSIDE; i++)
		usleep(1000);
	cr_assert_eq(place_of(m->as, at + (4 << 20)), GM_PLACE_OUTSIDE);
	cr_assert_eq(*word, 52);
	cr_assert_eq(mmap(at + (4 << 20), PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
		     at + (4 << 20));
	shared_in_place(m, word);
	munmap(at, 8 << 20);
}

MIRROR_TEST(asked_for_by_address)
{
	char *at = anon(8 << 20, PROT_READ | PROT_WRITE), *hole = at + (4 << 20);
	uint64_t moved;

	memset(at, 3, 8 << 20);
	OK(gm_migrate(m->as, GM_VA(at), 4 << 20, m->dev, &moved));
	cr_assert_eq(moved, 4 << 20);
	cr_assert_eq(place_of(m->as, at + BLOCK), GM_PLACE_DEVICE);
	OK(gm_migrate(m->as, GM_VA(at), 8 << 20, NULL, &moved));
	cr_assert_eq(moved, 8 << 20, "what was never moved is at home");
	munmap(hole, PAGE);
	IS(gm_migrate(m->as, GM_VA(at), 8 << 20, m->dev, &moved), GM_RET_FAULT);
	cr_assert_eq(moved, (8 << 20) - PAGE);
	for (uint64_t i = 0; i < 8 << 20; i++)
		if (at + i < hole || at + i >= hole + PAGE)
			cr_assert_eq(at[i], 3);
	/* A set has both kinds. */
	IS(gm_migrate(m->as, GM_VA(&in_data), 8, m->dev, &moved), GM_RET_FAULT);
	cr_assert_eq(moved, 0);
	munmap(at, 8 << 20);
}

MIRROR_TEST(working_set)
{
	char *at = anon(6 << 20, PROT_READ | PROT_WRITE);
	int fd = file_of(24 << 20); /* more than the device's memory */
	char *file = mmap(NULL, 24 << 20, PROT_READ, MAP_PRIVATE, fd, 0);
	struct gm_ws_range r[] = {
		{ .va = GM_VA(at), .bytes = 6 << 20, .access = GM_WRITE },
		{ .va = GM_VA(file), .bytes = 24 << 20, .access = GM_READ },
		{ .va = GM_VA(&in_data), .bytes = 8, .access = GM_WRITE },
	};
	struct gm_ws_room room = { .need_bytes = 0 };
	struct gm_ws *ws;

	cr_assert(file != MAP_FAILED);
	OK(gm_ws_room(m->ctx, r, 3, &room));
	cr_assert_leq(room.need_bytes, 8 << 20, "what stays needs no room");
	OK(gm_ws_acquire(m->ctx, r, 3, 20 * SECOND, &ws));
	cr_assert_eq(place_of(m->as, at + BLOCK), GM_PLACE_DEVICE);
	cr_assert_eq(place_of(m->as, file + BLOCK), GM_PLACE_IN_PLACE);
	is_word(m->ctx, file + 77 * PAGE, 78);
	OK(dev_set(m->ctx, &in_data, 9));
	cr_assert_eq(*(volatile uint64_t *)&in_data, 9);
	OK(gm_ws_release(ws, NULL));
	r[1].access = GM_WRITE;
	OK(gm_ws_acquire(m->ctx, r, 1, SECOND, &ws));
	OK(gm_ws_release(ws, NULL));
	munmap(file, PAGE);
	r[1].access = GM_READ;
	IS(gm_ws_acquire(m->ctx, r, 3, SECOND, &ws), GM_RET_FAULT);
	r[0] = (struct gm_ws_range){ .va = GM_VA(&in_rodata), .bytes = 8, .access = GM_WRITE };
	IS(gm_ws_acquire(m->ctx, r, 1, SECOND, &ws), GM_RET_PERM);
	munmap(file, 24 << 20);
	munmap(at, 6 << 20);
	close(fd);
}

/* What stays is no use to a device that cannot map it. */
Test(mirror, devices_without_host_map)
{
	struct mirror m;
	char *at;

	alarm(200);
	mirror_open(&m, "mock:vram=16M,hostmap=no");
	at = anon(8 << 20, PROT_READ | PROT_WRITE);
	IS(dev_touch(m.ctx, GM_VA(&in_data), false), GM_RET_NOTSUP);
	shared_by_moving(&m, (uint64_t *)(void *)(at + (4 << 20)));
	mirror_close(&m);
	munmap(at, 8 << 20);
}

/* The library's memory could be anywhere: nothing moves unasked. */
static void *any_alloc(void *arg, size_t bytes)
{
	(void)arg;
	return calloc(1, bytes);
}

static void any_free(void *arg, void *p, size_t bytes)
{
	(void)arg;
	(void)bytes;
	free(p);
}

Test(mirror, allocator_of_the_caller)
{
	static const struct gm_allocator own = { any_alloc, any_free, NULL };
	struct gm_as_config config = { .size = sizeof(config), .flags = GM_AS_MIRROR };
	struct gm_lib_config lib = { .size = sizeof(lib), .allocator = &own };
	struct mirror m;
	char *at = anon(8 << 20, PROT_READ | PROT_WRITE);
	gm_ret_t ret = gm_lib_create(&lib, &m.lib);

	alarm(200);
	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	OK(ret);
	OK(gm_dev_open(m.lib, "mock:vram=16M", &m.dev));
	OK(gm_as_create(m.lib, 0, 0, &config, &m.as));
	OK(gm_as_attach(m.as, m.dev, GM_ATTACH_IDENTITY, NULL, &m.ctx));
	shared_in_place(&m, (uint64_t *)(void *)(at + (4 << 20)));
	OK(gm_adopt(m.as, at, 8 << 20, 0));
	shared_by_moving(&m, (uint64_t *)(void *)(at + (4 << 20)));
	mirror_close(&m);
	munmap(at, 8 << 20);
}
