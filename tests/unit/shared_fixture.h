/* SPDX-License-Identifier: MIT */
/*
 * For tests of shared memory on this machine's real host: a library with two devices, and BYTES of shared memory. Of a page
 * the kernel tells whether the file has a frame (mincore) and whether the program's mapping has an entry for it (the page
 * map).
 */
#ifndef GM_TEST_SHARED_FIXTURE_H
#define GM_TEST_SHARED_FIXTURE_H

#include <fcntl.h>

#include "fork_fixture.h"

struct sharer {
	struct forker f;
	struct gm_dev *dev2;
	struct gm_ctx *ctx2;
};

static inline void begin_with(struct sharer *s, const struct gm_as_config *config)
{
	struct gm_lib_config lc = { .size = sizeof(lc), .log = forker_log, .log_level = GM_LOG_WARN };
	gm_ret_t ret = gm_lib_create(&lc, &s->f.lib);
	void *p = NULL;

	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	OK(ret);
	alarm(300); /* an access that nobody serves waits for ever */
	OK(gm_dev_open(s->f.lib, "mock:vram=32M", &s->f.dev));
	OK(gm_dev_open(s->f.lib, "mock:vram=32M", &s->dev2));
	OK(gm_as_create(s->f.lib, 0, 0, config, &s->f.as));
	OK(gm_as_attach(s->f.as, s->f.dev, GM_ATTACH_IDENTITY, NULL, &s->f.ctx));
	OK(gm_as_attach(s->f.as, s->dev2, GM_ATTACH_IDENTITY, NULL, &s->ctx2));
	OK(gm_alloc_shared(s->f.as, BYTES, 0, &p));
	s->f.at = p;
	cr_assert_eq(GM_VA(p) % BLOCK, 0);
}

static inline void begin(struct sharer *s, uint32_t flags)
{
	struct gm_as_config config = { .size = sizeof(config), .flags = flags };

	begin_with(s, &config);
}

static inline void end(struct sharer *s)
{
	char text[200] = "";

	cr_assert_eq(gm_as_check(s->f.as, text, sizeof(text)), GM_RET_SUCCESS, "%s", text);
	OK(gm_as_destroy(s->f.as));
	OK(gm_dev_destroy(s->f.dev));
	OK(gm_dev_destroy(s->dev2));
	OK(gm_lib_destroy(s->f.lib));
}

/* Pages of which the file has a frame. */
static inline uint64_t frames(const char *at, uint64_t pages)
{
	unsigned char in[PAGES];
	uint64_t n = 0;

	cr_assert_leq(pages, PAGES);
	cr_assert_eq(mincore(ptr(GM_VA(at)), pages * PAGE, in), 0);
	for (uint64_t i = 0; i < pages; i++)
		n += in[i] & 1;
	return n;
}

/* Pages of which the program's mapping has an entry. */
static inline uint64_t entries(const char *at, uint64_t pages)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t n = 0, e;

	cr_assert_geq(fd, 0);
	for (uint64_t i = 0; i < pages; i++) {
		cr_assert_eq(pread(fd, &e, sizeof(e), (off_t)((GM_VA(at) / PAGE + i) * sizeof(e))), (ssize_t)sizeof(e));
		n += e >> 63;
	}
	close(fd);
	return n;
}

static inline uint64_t in_place(struct forker *f, const char *at, uint64_t pages)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < pages; i++)
		n += place_of(f, at + i * PAGE) == GM_PLACE_IN_PLACE;
	return n;
}

/* The access goes on when its page is there; a moment later the library says so too. */
static inline bool comes_home(struct forker *f, const char *at, uint64_t pages)
{
	for (unsigned i = 0; i < 20000 && on_device(f, at, pages); i++)
		usleep(1000);
	return !on_device(f, at, pages);
}

/* Where it is, when all of it is on a device. */
static inline void check_away(struct forker *f, const char *at, uint32_t flags)
{
	cr_assert_eq(on_device(f, at, PAGES), PAGES);
	cr_assert_eq(entries(at, PAGES), 0, "the process has no way around the library");
	cr_assert_eq(frames(at, PAGES), flags & GM_AS_EXCLUSIVE ? 0 : PAGES);
}

#endif
