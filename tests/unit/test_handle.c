/* SPDX-License-Identifier: MIT */
/* The registry of handles: what was added is found, nothing else is, and nothing is followed. */
#include "config.h"

#include <criterion/criterion.h>

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gmem/gmem.h>

#include "hal/gm_fence.h"
#include "hal/gm_handle.h"

#include "failing_alloc.h"

/* Addresses that are never followed: there is nothing. */
static void *nowhere(uintptr_t i)
{
	return (void *)((i + 1) * GM_HANDLE_ALIGN);
}

Test(handle, lives_from_add_to_del)
{
	cr_assert_not(gm_handle_live(nowhere(1), GM_HANDLE_DEV));
	cr_assert_eq(gm_handle_add(nowhere(1), GM_HANDLE_DEV), GM_RET_SUCCESS);
	cr_assert(gm_handle_live(nowhere(1), GM_HANDLE_DEV));
	cr_assert_not(gm_handle_live(nowhere(1), GM_HANDLE_AS), "of another kind");
	cr_assert_not(gm_handle_live(nowhere(2), GM_HANDLE_DEV));
	cr_assert_not(gm_handle_live((char *)nowhere(1) + 1, GM_HANDLE_DEV), "unaligned");
	cr_assert_not(gm_handle_live((char *)nowhere(1) + GM_HANDLE_AS - GM_HANDLE_DEV, GM_HANDLE_DEV));
	cr_assert_not(gm_handle_live((void *)UINTPTR_MAX, GM_HANDLE_DEV));
	for (unsigned kind = 1; kind < GM_HANDLE_KINDS; kind++)
		cr_assert_not(gm_handle_live(NULL, (enum gm_handle_kind)kind));
	gm_handle_del(nowhere(1), GM_HANDLE_AS);
	cr_assert(gm_handle_live(nowhere(1), GM_HANDLE_DEV), "of the kind asked for only");
	gm_handle_del(nowhere(1), GM_HANDLE_DEV);
	cr_assert_not(gm_handle_live(nowhere(1), GM_HANDLE_DEV));
	gm_handle_del(nowhere(1), GM_HANDLE_DEV);
}

Test(handle, says_what_is_wrong)
{
	cr_assert_eq(gm_handle_add(nowhere(7), GM_HANDLE_CTX), GM_RET_SUCCESS);
	cr_assert_eq(gm_handle_refuse("gm_f", "as", NULL, GM_HANDLE_AS), GM_RET_INVAL);
	cr_assert_str_eq(gm_last_error(), "gm_f: as must not be NULL, but an address space");
	cr_assert_eq(gm_handle_refuse("gm_f", "as", nowhere(7), GM_HANDLE_AS), GM_RET_INVAL);
	cr_assert_str_eq(gm_last_error(), "gm_f: as is a context: pass an address space");
	cr_assert_eq(gm_handle_refuse("gm_f", "as", nowhere(8), GM_HANDLE_AS), GM_RET_INVAL);
	cr_assert_not_null(strstr(gm_last_error(), "gm_f: as 0x90 is not an address space that lives"), "%s",
			   gm_last_error());
}

/* Far more than the first level holds. */
#define MANY 200000

Test(handle, many)
{
	for (uintptr_t i = 0; i < MANY; i++)
		cr_assert_eq(gm_handle_add(nowhere(i * 5), GM_HANDLE_FENCE), GM_RET_SUCCESS);
	for (uintptr_t i = 0; i < MANY; i++) {
		cr_assert(gm_handle_live(nowhere(i * 5), GM_HANDLE_FENCE));
		cr_assert_not(gm_handle_live(nowhere(i * 5 + 1), GM_HANDLE_FENCE));
	}
	for (uintptr_t i = 0; i < MANY; i += 2)
		gm_handle_del(nowhere(i * 5), GM_HANDLE_FENCE);
	for (uintptr_t i = 0; i < MANY; i++)
		cr_assert_eq(gm_handle_live(nowhere(i * 5), GM_HANDLE_FENCE), i % 2 == 1);
}

/* ------------------------------------------------------------- no memory */

#ifdef __has_feature
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static struct rlimit limit;

static void no_address_space(bool on)
{
	struct rlimit none = { .rlim_cur = 1, .rlim_max = limit.rlim_max };

	cr_assert_eq(setrlimit(RLIMIT_AS, on ? &none : &limit), 0);
}

/* All lines of the first level: many more than it takes. */
static void fill(void)
{
	for (uintptr_t i = 0; i < ((uintptr_t)64 << GM_HANDLE_FIRST_BITS) * GM_HANDLE_WORDS; i++)
		(void)gm_handle_add(nowhere(i), GM_HANDLE_FENCE);
	for (unsigned i = 0; i < 1 << GM_HANDLE_FIRST_BITS; i++)
		for (unsigned w = 0; w < GM_HANDLE_WORDS; w++)
			cr_assert(gm_handle_first[i].word[w], "there is room left");
}

Test(handle, no_memory)
{
	const struct gm_lib_config config = { .size = sizeof(config) };
	struct failing_alloc fa;
	struct gm_lib_config c = config;
	struct gm_env *env;
	struct gm_fence *f;

	failing_alloc_init(&fa);
	c.allocator = &fa.table;
	cr_assert_eq(gm_env_threads_create(&c, &env), GM_RET_SUCCESS);
	f = gm_fence_new(env);
	cr_assert_eq(getrlimit(RLIMIT_AS, &limit), 0);
	no_address_space(true);
	fill();
	cr_assert_eq(gm_handle_add(nowhere(1u << 30), GM_HANDLE_DEV), GM_RET_NOMEM);
	cr_assert_not(gm_handle_live(nowhere(1u << 30), GM_HANDLE_DEV));
	cr_assert_eq(gm_fence_publish(f), GM_RET_NOMEM);
	cr_assert_eq(gm_fence_wait(f, 0), GM_RET_INVAL, "it is not public");
	no_address_space(false);
	cr_assert_eq(gm_fence_publish(f), GM_RET_SUCCESS);
	cr_assert_eq(gm_fence_wait(f, 0), GM_RET_TIMEDOUT);
	gm_fence_put(f);
	gm_env_threads_destroy(env);
	cr_assert_eq(atomic_load(&fa.live), 0);
}

/* Every maker unwinds when its object cannot be entered. */
Test(handle, makers_without_memory)
{
	struct gm_lib *lib, *other = nowhere(0);
	struct gm_fence *fence = nowhere(0);
	struct gm_dev *dev, *more = nowhere(0);
	struct gm_ctx *ctx = nowhere(0);
	struct gm_as *as, *space = nowhere(0);
	gm_ret_t ret;

	if (SANITIZED)
		cr_skip_test("a sanitizer ends a process that has no address space left");
	ret = gm_lib_create(NULL, &lib);
	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("no userfaultfd here: %s", gm_last_error());
	cr_assert_eq(ret, GM_RET_SUCCESS, "%s", gm_last_error());
	cr_assert_eq(gm_dev_open(lib, "mock:vram=64K", &dev), GM_RET_SUCCESS);
	cr_assert_eq(gm_as_create(lib, 0, 0, NULL, &as), GM_RET_SUCCESS);
	cr_assert_eq(getrlimit(RLIMIT_AS, &limit), 0);
	no_address_space(true);
	fill();
	cr_expect_eq(gm_lib_create(NULL, &other), GM_RET_NOMEM);
	cr_expect_eq(gm_fence_create(lib, &fence), GM_RET_NOMEM);
	cr_expect_eq(gm_dev_open(lib, "mock:vram=64K", &more), GM_RET_NOMEM);
	cr_expect_eq(gm_as_create(lib, 0, 0, NULL, &space), GM_RET_NOMEM);
	cr_expect_eq(gm_as_attach(as, dev, GM_ATTACH_IDENTITY, NULL, &ctx), GM_RET_NOMEM);
	no_address_space(false);
	cr_expect_eq((void *)other, nowhere(0));
	cr_expect_eq((void *)fence, nowhere(0));
	cr_expect_eq((void *)more, nowhere(0));
	cr_expect_eq((void *)space, nowhere(0));
	cr_expect_eq((void *)ctx, nowhere(0));
	cr_assert_eq(gm_as_attach(as, dev, GM_ATTACH_IDENTITY, NULL, &ctx), GM_RET_SUCCESS);
	cr_assert_eq(gm_as_destroy(as), GM_RET_SUCCESS);
	cr_assert_eq(gm_dev_destroy(dev), GM_RET_SUCCESS);
	cr_assert_eq(gm_lib_destroy(lib), GM_RET_SUCCESS);
}

/* ------------------------------------------------------- fork and threads */

/* In the child: nothing of the parent lives, and it makes its own. */
static int in_child(void)
{
	if (gm_handle_live(nowhere(3), GM_HANDLE_AS) || gm_handle_live(nowhere(4000), GM_HANDLE_DEV))
		return 1;
	if (gm_handle_add(nowhere(5), GM_HANDLE_AS) || !gm_handle_live(nowhere(5), GM_HANDLE_AS))
		return 2;
	gm_handle_del(nowhere(3), GM_HANDLE_AS);
	return 0;
}

Test(handle, a_child_has_none_of_its_parents)
{
	int status;
	pid_t pid;

	for (uintptr_t i = 0; i < 20000; i++)
		cr_assert_eq(gm_handle_add(nowhere(i), i == 3 ? GM_HANDLE_AS : GM_HANDLE_DEV), GM_RET_SUCCESS);
	pid = fork();
	if (pid == 0)
		_exit(in_child());
	cr_assert_gt(pid, 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", (unsigned)status);
	cr_assert(gm_handle_live(nowhere(3), GM_HANDLE_AS), "the parent keeps its own");
	cr_assert(gm_handle_live(nowhere(4000), GM_HANDLE_DEV));
}

static void *churn(void *arg)
{
	uintptr_t first = (uintptr_t)arg * 5000;

	for (unsigned round = 0; round < 20; round++) {
		for (uintptr_t i = first; i < first + 3000; i++)
			if (gm_handle_add(nowhere(i), GM_HANDLE_WS))
				return (void *)"no room";
		for (uintptr_t i = first; i < first + 3000; i++) {
			if (!gm_handle_live(nowhere(i), GM_HANDLE_WS))
				return (void *)"lost";
			gm_handle_del(nowhere(i), GM_HANDLE_WS);
			if (gm_handle_live(nowhere(i), GM_HANDLE_WS))
				return (void *)"still there";
		}
	}
	return NULL;
}

Test(handle, threads)
{
	pthread_t thread[4];
	void *wrong;

	for (uintptr_t i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, churn, (void *)i), 0);
	for (unsigned i = 0; i < 4; i++) {
		cr_assert_eq(pthread_join(thread[i], &wrong), 0);
		cr_assert_null(wrong, "%s", (char *)wrong);
	}
}
