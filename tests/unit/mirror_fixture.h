/* SPDX-License-Identifier: MIT */
/*
 * A space that mirrors this process, on the real host, with a mock device. What the device does is checked with the
 * device's own accesses, and where a page is with gm_query().
 */
#ifndef GM_TEST_MIRROR_FIXTURE_H
#define GM_TEST_MIRROR_FIXTURE_H

#include "core_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "hal/host/gm_host_internal.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MIRROR_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MIRROR_SANITIZED 1
#endif
#endif

struct mirror {
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_as *as;
	struct gm_ctx *ctx;
};

/* Under a sanitizer malloc() is another one: what is recognised then is only what the tests map themselves. */
static inline void mirror_trust(struct gm_as *as)
{
#ifdef MIRROR_SANITIZED
	((struct gm_host_pmap *)as->hpmap)->knows_malloc = true;
#else
	cr_assert(((struct gm_host_pmap *)as->hpmap)->knows_malloc, "malloc() of this machine is not recognised");
#endif
}

static inline void mirror_open(struct mirror *m, const char *spec)
{
	struct gm_as_config config = { .size = sizeof(config), .flags = GM_AS_MIRROR };
	gm_ret_t ret = gm_lib_create(NULL, &m->lib);

	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	OK(ret);
	OK(gm_dev_open(m->lib, spec ? spec : "mock:vram=16M", &m->dev));
	OK(gm_as_create(m->lib, 0, 0, &config, &m->as));
	OK(gm_as_attach(m->as, m->dev, GM_ATTACH_IDENTITY, NULL, &m->ctx));
	mirror_trust(m->as);
}

static inline void mirror_close(struct mirror *m)
{
	char text[200] = "";

	cr_assert_eq(gm_as_check(m->as, text, sizeof(text)), GM_RET_SUCCESS, "%s", text);
	OK(gm_as_destroy(m->as));
	OK(gm_dev_destroy(m->dev));
	OK(gm_lib_destroy(m->lib));
}

/* One word by the device. */
struct word_job {
	uint64_t va, value;
	bool write;
};

static inline gm_ret_t word_kernel(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct word_job *job = arg;

	(void)index;
	return job->write ? gm_mock_store(t, job->va, &job->value, 8) : gm_mock_load(t, job->va, &job->value, 8);
}

static inline gm_ret_t word_run(struct gm_ctx *ctx, struct word_job *job)
{
	struct gm_fence *fence;
	gm_ret_t ret = gm_mock_launch(ctx, word_kernel, job, 1, &fence);

	if (ret)
		return ret;
	ret = gm_fence_wait(fence, GM_FOREVER_NS);
	gm_fence_put(fence);
	return ret;
}

static inline gm_ret_t dev_get(struct gm_ctx *ctx, const void *at, uint64_t *value)
{
	struct word_job job = { .va = GM_VA(at) };
	gm_ret_t ret = word_run(ctx, &job);

	*value = job.value;
	return ret;
}

static inline gm_ret_t dev_set(struct gm_ctx *ctx, const void *at, uint64_t value)
{
	struct word_job job = { .va = GM_VA(at), .value = value, .write = true };

	return word_run(ctx, &job);
}

static inline enum gm_place place_of(struct gm_as *as, const void *at)
{
	struct gm_page_info info;

	OK(gm_query(as, GM_VA(at) & ~(PAGE - 1), 1, &info));
	return info.place;
}

static inline void is_word(struct gm_ctx *ctx, const void *at, uint64_t want)
{
	uint64_t got = ~want;

	OK(dev_get(ctx, at, &got));
	cr_assert_eq(got, want, "the device reads 0x%llx at %p, not 0x%llx", (unsigned long long)got, at,
		     (unsigned long long)want);
}

/* Both sides see what the other wrote, and the page stays where it is. */
static inline void shared_in_place(struct mirror *m, volatile uint64_t *at)
{
	const void *p = (const void *)(uintptr_t)at;

	*at = 41;
	is_word(m->ctx, p, 41);
	cr_assert_eq(place_of(m->as, p), GM_PLACE_IN_PLACE);
	OK(dev_set(m->ctx, p, 42));
	cr_assert_eq(*at, 42);
	*at = 43;
	is_word(m->ctx, p, 43);
	cr_assert_eq(place_of(m->as, p), GM_PLACE_IN_PLACE);
}

/* The same, and it goes to the device and comes back. */
static inline void shared_by_moving(struct mirror *m, volatile uint64_t *at)
{
	const void *p = (const void *)(uintptr_t)at;

	*at = 51;
	is_word(m->ctx, p, 51);
	cr_assert_eq(place_of(m->as, p), GM_PLACE_DEVICE);
	OK(dev_set(m->ctx, p, 52));
	cr_assert_eq(place_of(m->as, p), GM_PLACE_DEVICE);
	cr_assert_eq(*at, 52);
	for (unsigned i = 0; i < 20000 && place_of(m->as, p) == GM_PLACE_DEVICE; i++)
		usleep(1000); /* the program goes on before the commit */
	cr_assert_eq(place_of(m->as, p), GM_PLACE_HOST);
}

static inline char *anon(uint64_t bytes, int prot)
{
	char *at = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	cr_assert(at != MAP_FAILED);
	return at;
}

/* A file without a name, of so many bytes, page i beginning with i + 1. */
static inline int file_of(uint64_t bytes)
{
	char name[] = "/tmp/gm-mirror-XXXXXX";
	int fd = mkstemp(name);

	cr_assert_geq(fd, 0);
	cr_assert_eq(unlink(name), 0);
	cr_assert_eq(ftruncate(fd, (off_t)bytes), 0);
	for (uint64_t i = 0; i < bytes / PAGE; i++) {
		uint64_t value = i + 1;

		cr_assert_eq(pwrite(fd, &value, sizeof(value), (off_t)(i * PAGE)), (ssize_t)sizeof(value));
	}
	return fd;
}

static inline uint64_t file_word(int fd, uint64_t page)
{
	uint64_t value = 0;

	cr_assert_eq(pread(fd, &value, sizeof(value), (off_t)(page * PAGE)), (ssize_t)sizeof(value));
	return value;
}

#endif
