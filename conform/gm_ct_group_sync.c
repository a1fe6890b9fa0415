/* SPDX-License-Identifier: MIT */
/* Group sync: completion leaves and enters as descriptors. */
#include "config.h"

#include <fcntl.h>
#include <unistd.h>

#include "conform/gm_ct.h"

#define QUIET_NS 20000000u

struct sync {
	void *sync;
	int fd;
};

static struct sync sync_create(struct gm_ct_dev *d)
{
	struct sync s = { .fd = -1 };
	int flags;

	gm_ct_note(d->t, "sync_create", 0, 0, 0, 0);
	gm_ct_ok(d->t, d->mmu->sync_create(d->dev, &s.sync, &s.fd));
	flags = fcntl(s.fd, F_GETFD);
	if (flags < 0)
		gm_ct_fail(d->t, "descriptor", "sync_create() succeeded, but %d is no open descriptor", s.fd);
	if (!(flags & FD_CLOEXEC))
		gm_ct_fail(d->t, "descriptor", "not close-on-exec");
	return s;
}

static struct gm_fence *sync_import(struct gm_ct_dev *d, int fd)
{
	struct gm_fence *done = gm_ct_fence(d->t->services);

	gm_ct_note(d->t, "sync_import", 0, 0, 0, 0);
	gm_ct_ok(d->t, d->mmu->sync_import(d->dev, fd, done));
	return done;
}

static void sync_signal(struct gm_ct_dev *d, struct sync *s, gm_ret_t result)
{
	gm_ct_note(d->t, "sync_signal", 0, 0, 0, 0);
	d->mmu->sync_signal(d->dev, s->sync, result);
}

static void want_fence(struct gm_ct *t, struct gm_fence *done, gm_ret_t want, const char *when)
{
	gm_ret_t ret = gm_ct_fence_wait(done, want == GM_RET_TIMEDOUT ? QUIET_NS : t->bound_ns);

	if (ret != want)
		gm_ct_fail(t, "completion", "%s: the import has %s, expected %s", when,
			   ret == GM_RET_TIMEDOUT ? "not come" : gm_ret_name(ret),
			   want == GM_RET_TIMEDOUT ? "nothing yet" : gm_ret_name(want));
}

/* The completion arrives with its result; twice imported, twice; the descriptor may be closed at once. */
static void sync_results(struct gm_ct *t)
{
	static const gm_ret_t results[] = { GM_RET_SUCCESS, GM_RET_IO, GM_RET_CANCELED };
	struct gm_ct_dev *d = gm_ct_open(t);

	for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
		struct sync s = sync_create(d);
		struct gm_fence *one = sync_import(d, s.fd), *two = sync_import(d, s.fd);

		(void)close(s.fd);
		want_fence(t, one, GM_RET_TIMEDOUT, "not signalled");
		sync_signal(d, &s, results[i]);
		want_fence(t, one, results[i], "signalled");
		want_fence(t, two, results[i], "signalled");
	}
	gm_ct_close(d);
}

/* Signalled first, imported then; and signalled when the descriptor is closed and nobody listens. */
static void sync_late(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_open(t);
	struct sync s = sync_create(d);
	struct gm_fence *done;

	sync_signal(d, &s, GM_RET_SUCCESS);
	done = sync_import(d, s.fd);
	want_fence(t, done, GM_RET_SUCCESS, "signalled before");
	(void)close(s.fd);
	s = sync_create(d);
	(void)close(s.fd);
	sync_signal(d, &s, GM_RET_SUCCESS);
	gm_ct_close(d);
}

/* What stands for no completion is refused; an import that is pending when the device goes is cancelled. */
static void sync_refused(struct gm_ct *t)
{
	struct gm_ct_dev *d[2] = { gm_ct_open(t), gm_ct_open(t) };
	struct gm_fence *done = gm_ct_fence(t->services);
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct sync s;

	gm_ct_note(t, "sync_import", 0, 0, 0, 0);
	gm_ct_want(t, d[0]->mmu->sync_import(d[0]->dev, fd, done), GM_RET_INVAL);
	gm_ct_fence_refused(done);
	(void)close(fd);
	s = sync_create(d[0]);
	done = sync_import(d[1], s.fd);
	(void)close(s.fd);
	gm_ct_close(d[1]);
	want_fence(t, done, GM_RET_CANCELED, "its device was closed");
	sync_signal(d[0], &s, GM_RET_SUCCESS);
	gm_ct_close(d[0]);
}

const struct gm_ct_test gm_ct_sync_tests[] = {
	{ "results", GM_CAP_SYNC, 0, sync_results },
	{ "late", GM_CAP_SYNC, 0, sync_late },
	{ "refused", GM_CAP_SYNC, 0, sync_refused },
	{ NULL, 0, 0, NULL },
};
