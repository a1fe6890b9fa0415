/* SPDX-License-Identifier: MIT */
/* Groups sync, peer and visible: what a device shares with other drivers, other devices, and the CPU. */
#include "config.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "conform/gm_ct.h"

#define QUIET_NS 20000000u

/* --- sync ------------------------------------------------------------------ */

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

/* --- peer ------------------------------------------------------------------ */

static gm_ret_t reach(struct gm_ct_dev *from, struct gm_ct_dev *to)
{
	gm_ret_t ret;

	gm_ct_note(from->t, "peer_reach", 0, 0, 0, 0);
	ret = from->mmu->peer_reach(from->dev, to->dev);
	if (ret != GM_RET_SUCCESS && ret != GM_RET_NOTSUP)
		gm_ct_fail(from->t, "result", "peer_reach returned %s, expected GM_RET_SUCCESS or GM_RET_NOTSUP",
			   gm_ret_name(ret));
	return ret;
}

static void peer_copy(struct gm_ct *t)
{
	struct gm_ct_dev *d[2] = { gm_ct_open(t), gm_ct_open(t) };
	struct gm_ct_mem m[2];
	struct gm_copy copy = { .kind = GM_COPY_FROM_PEER };

	if (reach(d[0], d[1]))
		gm_ct_need(t, "a second device, opened with the same options, in reach");
	gm_ct_ok(t, reach(d[0], d[1]));
	for (unsigned i = 0; i < 2; i++)
		gm_ct_mem_init(&m[i], d[i], GM_CT_SMALL, t->seed + i);
	for (uint64_t n = 1; n <= m[0].bytes / GM_CT_PAGE / 2; n *= 4) {
		copy.bytes = n * GM_CT_PAGE;
		copy.pa = m[0].pa + copy.bytes;
		copy.host = m[1].pa + m[1].bytes - copy.bytes;
		copy.peer = d[1]->dev;
		gm_ct_ok(t, gm_ct_copy(d[0], &copy, 1));
		memcpy(m[0].is + copy.bytes, m[1].is + m[1].bytes - copy.bytes, copy.bytes);
		gm_ct_mem_check(&m[0]);
	}
	gm_ct_mem_check(&m[1]);
	for (unsigned i = 0; i < 2; i++) {
		gm_ct_mem_fini(&m[i]);
		gm_ct_close(d[i]);
	}
}

/* --- visible ----------------------------------------------------------------- */

/* Run `fn` for every page of the window that the CPU can reach; how many that are. */
static uint32_t each_visible(struct gm_ct_mem *m, void (*fn)(struct gm_ct_mem *m, uint32_t page, unsigned char *at))
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < m->pages; i++) {
		unsigned char *at = gm_ct_cpu_ptr(m->d, gm_ct_pa(m, i), m->d->granule);

		if (!at)
			continue;
		n++;
		fn(m, i, at);
	}
	return n;
}

static void same_bytes(struct gm_ct_mem *m, uint32_t page, unsigned char *at)
{
	if (memcmp(at, m->is + page * m->d->granule, m->d->granule) != 0)
		gm_ct_fail(m->d->t, "bytes", "through cpu_ptr() page %u of the memory holds something else", (unsigned)page);
	if (gm_ct_cpu_ptr(m->d, gm_ct_pa(m, page), m->d->granule) != at)
		gm_ct_fail(m->d->t, "cpu_ptr", "asked again, another address for pa 0x%llx",
			   (unsigned long long)gm_ct_pa(m, page));
}

static void change_bytes(struct gm_ct_mem *m, uint32_t page, unsigned char *at)
{
	gm_ct_fill(at, m->d->granule, m->d->t->seed + 900 + page);
	memcpy(m->is + page * m->d->granule, at, m->d->granule);
}

/* A range is reachable exactly if each of its pages is, and then in one piece. */
static void want_ranges(struct gm_ct_mem *m)
{
	uint64_t g = m->d->granule;

	for (uint32_t i = 0; i + 1 < m->pages; i++) {
		unsigned char *one = gm_ct_cpu_ptr(m->d, gm_ct_pa(m, i), g), *two = gm_ct_cpu_ptr(m->d, gm_ct_pa(m, i + 1), g);
		unsigned char *both = gm_ct_cpu_ptr(m->d, gm_ct_pa(m, i), 2 * g);

		if (both && (both != one || two != one + g))
			gm_ct_fail(m->d->t, "cpu_ptr", "pa 0x%llx: two pages together are at %p, alone at %p and %p",
				   (unsigned long long)gm_ct_pa(m, i), (void *)both, (void *)one, (void *)two);
	}
}

static void visible(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_open(t);
	struct gm_ct_mem m;

	/* the whole memory, where it is not huge: the part in sight may be anywhere */
	gm_ct_mem_init(&m, d, UINT64_C(64) << 20, t->seed);
	if (each_visible(&m, same_bytes) == 0)
		gm_ct_fail(t, "cpu_ptr", "GM_CAP_CPU_VISIBLE is announced, but no page of the first %llu MiB can be reached",
			   (unsigned long long)(m.bytes >> 20));
	want_ranges(&m);
	(void)each_visible(&m, change_bytes);
	gm_ct_mem_check(&m);
	gm_ct_mem_fini(&m);
	gm_ct_close(d);
}

/* Stores of the device are seen by the CPU once they are drained, and the other way round. */
static void coherent(struct gm_ct *t)
{
	struct gm_ct_stage s;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	for (unsigned k = 0; k < 3; k++) {
		gm_ct_map_enter(&s.o, 0, 0, s.o.pages, GM_PTE_WRITE);
		for (uint32_t i = 0; i < s.o.pages; i++)
			gm_ct_map_probe(&s.o, i, true);
		gm_ct_map_remove(&s.o, 0, s.o.pages);
		(void)each_visible(&s.m, same_bytes);
		(void)each_visible(&s.m, change_bytes);
	}
	gm_ct_finish(&s);
}

const struct gm_ct_test gm_ct_sync_tests[] = {
	{ "results", GM_CAP_SYNC, 0, sync_results },
	{ "late", GM_CAP_SYNC, 0, sync_late },
	{ "refused", GM_CAP_SYNC, 0, sync_refused },
	{ NULL, 0, 0, NULL },
};

const struct gm_ct_test gm_ct_peer_tests[] = {
	{ "copy", GM_CAP_PEER, 0, peer_copy },
	{ NULL, 0, 0, NULL },
};

const struct gm_ct_test gm_ct_visible_tests[] = {
	{ "pages", GM_CAP_CPU_VISIBLE, 0, visible },
	{ "coherent", GM_CAP_CPU_VISIBLE | GM_CAP_ACCESS, 0, coherent },
	{ NULL, 0, 0, NULL },
};
