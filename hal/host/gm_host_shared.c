/* SPDX-License-Identifier: MIT */
/*
 * Shared memory: a file of the library (memfd) per allocation, mapped twice, side by side.
 *
 *     va                        va + room                   va + 2 * room
 *     | view: the program's     | alias: the library's      |
 *
 *     share_map(-1): moves, nobody else has it --share_fd()--> exported: in place for good --mem_unmap()--> gone
 *     share_map(fd): another's file, a view only: in place for good                        --mem_unmap()--> gone
 *
 * The view is watched on a userfaultfd of its own (`shared.fd`), made with the first
 * segment that moves, which reports missing pages (the file has none) and minor
 * faults (the file has one that the view lacks), and no events: MADV_DONTNEED on
 * the view takes nothing but the view's entry, and must not raise what the library
 * would have to read. How pages move: gm_host_shared_move.c.
 *
 * The file cannot be cut short or made longer (sealed), so that no access beyond its
 * end is possible in any process. Neither view is inherited by a child, and no file
 * descriptor leaves the library, until share_fd(): so until then the view is
 * the only way to the pages, and what is away is away for everybody.
 *
 * Segments are found by address under `lock`; what is found is a copy. They may touch, and do not overlap: that of another,
 * without an alias, ends with its view. A segment goes only when nothing of it is in a transaction, so what steals,
 * drops or fills through the alias has it for as long as that takes. Only calls on `shared.fd`, which is never closed
 * before the pmap is, may come late: the kernel says that nothing is there.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static void *at(uint64_t va)
{
	return (void *)(uintptr_t)va;
}

void gm_host_shared_init(struct gm_host_pmap *p)
{
	struct gm_host_shared *sh = &p->shared;

	atomic_init(&sh->n, 0);
	atomic_init(&sh->fd, -1);
	atomic_init(&sh->gap, false);
	gm_mutex_init(p->env, &sh->lock, GM_RANK_LEAF);
	sh->seg = NULL;
	sh->room = 0;
}

/* ------------------------------------------------------------ segments */

/* Only what moves has an alias: behind the view of another there may be anything, the next segment as well. */
static uint64_t end_of(const struct gm_host_seg *s)
{
	return s->va + s->room * (s->moves ? 2 : 1);
}

/* (lock) The first that ends above addr. */
static unsigned place_of(const struct gm_host_shared *sh, uint64_t addr)
{
	unsigned lo = 0, hi = atomic_load(&sh->n);

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (end_of(&sh->seg[mid]) <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool gm_host_seg_find(struct gm_host_pmap *p, uint64_t addr, struct gm_host_seg *seg)
{
	struct gm_host_shared *sh = &p->shared;
	unsigned i;
	bool found;

	gm_lock(p->env, &sh->lock);
	i = place_of(sh, addr);
	found = i < atomic_load(&sh->n) && addr >= sh->seg[i].va;
	if (found)
		*seg = sh->seg[i];
	gm_unlock(p->env, &sh->lock);
	return found;
}

/* (lock) */
static void insert_at(struct gm_host_shared *sh, unsigned i, const struct gm_host_seg *seg)
{
	unsigned n = atomic_load(&sh->n);

	memmove(&sh->seg[i + 1], &sh->seg[i], (n - i) * sizeof(*seg));
	sh->seg[i] = *seg;
	atomic_store(&sh->n, n + 1);
}

static gm_ret_t add(struct gm_host_pmap *p, const struct gm_host_seg *seg)
{
	struct gm_host_shared *sh = &p->shared;
	struct gm_host_seg *more = NULL;
	unsigned room = 0, old = 0;
	bool done;

	do {
		gm_lock(p->env, &sh->lock);
		if (room > sh->room) {
			struct gm_host_seg *former = sh->seg;

			memcpy(more, former ? former : seg, atomic_load(&sh->n) * sizeof(*seg));
			old = sh->room;
			sh->seg = more;
			sh->room = room;
			more = former;
			room = old;
		}
		done = atomic_load(&sh->n) < sh->room;
		if (done)
			insert_at(sh, place_of(sh, seg->va), seg);
		old = sh->room;
		gm_unlock(p->env, &sh->lock);
		gm_mem_free(p->env, more, room * sizeof(*more));
		room = done ? 0 : 2 * old + 4;
		more = done ? NULL : gm_mem_alloc(p->env, room * sizeof(*more));
	} while (!done && more);
	return done ? GM_RET_SUCCESS : gm_fail(GM_RET_NOMEM, "no memory for a segment of shared memory");
}

/* The one that begins at va, out of the list. */
static bool take_out(struct gm_host_pmap *p, uint64_t va, struct gm_host_seg *seg)
{
	struct gm_host_shared *sh = &p->shared;
	unsigned i, n;
	bool found;

	gm_lock(p->env, &sh->lock);
	i = place_of(sh, va);
	n = atomic_load(&sh->n);
	found = i < n && sh->seg[i].va == va;
	if (found) {
		*seg = sh->seg[i];
		memmove(&sh->seg[i], &sh->seg[i + 1], (n - i - 1) * sizeof(*seg));
		atomic_store(&sh->n, n - 1);
	}
	gm_unlock(p->env, &sh->lock);
	return found;
}

int gm_host_seg_fd(const struct gm_host_seg *seg)
{
	struct stat st;

	return !fstat(seg->fd, &st) && st.st_ino == seg->ino && st.st_dev == seg->ino_dev ? seg->fd : -1;
}

gm_ret_t gm_host_seg_is_mapped(struct gm_host_pmap *p, const struct gm_host_seg *seg, uint64_t va, uint64_t bytes)
{
	struct gm_host_area a = { .begin = 0 };

	for (uint64_t end = va + bytes; va < end; va = a.end) {
		gm_ret_t ret = gm_host_area(p->dev, va, &a);

		if (ret)
			return ret;
		if (a.begin > va || a.inode != seg->ino || !a.shared)
			return GM_RET_FAULT;
	}
	return GM_RET_SUCCESS;
}

/* ------------------------------------------------------------ making one */

/* The library's own, empty. Negative errno, or a descriptor. */
static int new_file(uint64_t bytes)
{
	int fd = memfd_create("gmem", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL), err;

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("gmem", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)bytes) || fcntl(fd, F_ADD_SEALS, SEALS)) {
		err = errno;
		close(fd);
		return -err;
	}
	return gm_host_fd_high(fd);
}

/*
 * In place of what is reserved there. Without rights first: where the program has asked for all its future memory to be
 * locked the kernel fills a mapping at once, but not this one; and a child that another thread makes before
 * it is kept from children has no access to it, ever.
 */
static int map_view(uint64_t va, uint64_t bytes, int fd, uint64_t offset, bool inherit)
{
	if (mmap(at(va), bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED)
		return -errno;
	if (!inherit && madvise(at(va), bytes, MADV_DONTFORK))
		return -errno;
	(void)munlock(at(va), bytes);
	(void)madvise(at(va), bytes, MADV_NOHUGEPAGE); /* else they might be mapped behind our back (MADV_COLLAPSE) */
	return mprotect(at(va), bytes, PROT_READ | PROT_WRITE) ? -errno : 0;
}

static int map_both(const struct gm_host_seg *s)
{
	int rc = map_view(s->va, s->bytes, s->fd, 0, false);

	return rc ? rc : map_view(s->va + s->room, s->bytes, s->fd, 0, false);
}

gm_ret_t gm_host_open_shared(struct gm_host_pmap *p, int *fd)
{
	struct gm_host_way way = { p->dev->way.doors, GM_HOST_FEATURES_SHARED };

	return gm_host_open(&way, fd);
}

/* Of the first segment that moves. SUCCESS, or as gm_host_open(). */
static gm_ret_t need_uffd(struct gm_host_pmap *p)
{
	struct gm_host_shared *sh = &p->shared;
	int fd;
	gm_ret_t ret;

	if (atomic_load(&sh->fd) >= 0)
		return GM_RET_SUCCESS;
	ret = gm_host_open_shared(p, &fd);
	return ret ? ret : gm_host_add_late(p, fd, &sh->fd, &p->keep.shared, "shared memory");
}

void gm_host_shared_put_back(struct gm_host_pmap *p, int fd)
{
	gm_host_set_late(&p->shared.fd, fd);
	(void)gm_uffd_wake(fd, UINT64_C(1) << 20, GM_HOST_VA_END - (UINT64_C(1) << 21));
}

static gm_ret_t why_not(int err, const char *what)
{
	switch (-err) {
	case EPERM:
	case EACCES:
		return gm_fail(GM_RET_PERM, "shared memory: %s: not permitted (for writing)", what);
	case ENODEV:
	case EINVAL:
		return gm_fail(GM_RET_NOTSUP, "shared memory: %s: error %d", what, -err);
	default:
		return gm_fail(GM_RET_NOMEM, "shared memory: %s: error %d", what, -err);
	}
}

/* A descriptor of share_fd(), and as much of the file. *mine: a copy, for the segment. */
static gm_ret_t check_file(int fd, uint64_t offset, uint64_t bytes, int *mine)
{
	struct stat st;
	int seals;

	if (fstat(fd, &st))
		return gm_fail(GM_RET_INVAL, "shared memory: %d is no descriptor", fd);
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & SEALS) != SEALS || st.st_blksize != GM_PAGE_BYTES)
		return gm_fail(GM_RET_NOTSUP, "shared memory: descriptor %d is not one of gm_shared_fd(): a file that can be "
			       "made shorter, or one with large pages", fd);
	if ((uint64_t)st.st_size < offset || (uint64_t)st.st_size - offset < bytes)
		return gm_fail(GM_RET_INVAL, "shared memory: %llu bytes at %llu are not inside the file of %llu",
			       (unsigned long long)bytes, (unsigned long long)offset, (unsigned long long)st.st_size);
	*mine = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (*mine < 0)
		return why_not(-errno, "no descriptor");
	*mine = gm_host_fd_high(*mine);
	return GM_RET_SUCCESS;
}

static void unmap_seg(struct gm_host_pmap *p, const struct gm_host_seg *s);

/* Where pages of it cannot move: only that of others, in place. */
gm_ret_t gm_host_share_view(void *pmap, int fd, uint64_t offset, uint64_t bytes, uint64_t *va)
{
	if (fd < 0)
		return gm_fail(GM_RET_NOTSUP, "on this rung shared memory does not move: it needs UFFDIO_POISON, PAGEMAP_SCAN and minor "
			       "faults of userfaultfd (Linux 6.8)");
	return gm_host_share_map(pmap, fd, offset, bytes, va);
}

gm_ret_t gm_host_share_map(void *pmap, int fd, uint64_t offset, uint64_t bytes, uint64_t *va)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_seg s = { .bytes = bytes, .moves = fd < 0, .exported = fd >= 0 };
	struct stat st;
	gm_ret_t ret = fd < 0 ? need_uffd(p) : check_file(fd, offset, bytes, &s.fd);
	int rc;

	if (ret)
		return ret;
	s.room = (bytes + GM_BLOCK_BYTES - 1) / GM_BLOCK_BYTES * GM_BLOCK_BYTES;
	if (s.moves)
		s.fd = new_file(bytes);
	if (s.fd < 0)
		return why_not(s.fd, "no file");
	s.va = gm_host_reserve(s.room * (s.moves ? 2 : 1));
	if (!s.va) {
		close(s.fd);
		return gm_fail(GM_RET_NOMEM, "shared memory: no address space for %llu bytes", (unsigned long long)bytes);
	}
	if (fstat(s.fd, &st) == 0) {
		s.ino = st.st_ino;
		s.ino_dev = st.st_dev;
	}
	rc = s.moves ? map_both(&s) : map_view(s.va, bytes, s.fd, offset, true);
	if (!rc && bytes < s.room && mprotect(at(s.va + bytes), s.room - bytes, PROT_NONE)) /* a block mixes no kinds */
		rc = -errno;
	ret = rc ? why_not(rc, "it cannot be mapped") : add(p, &s);
	if (ret)
		unmap_seg(p, &s);
	else
		*va = s.va;
	return ret;
}

/* ------------------------------------------------------------ and its end */

/*
 * What is ours still of the view: the program may have unmapped it, and what is there now is not ours to unmap. Where
 * that cannot be told now the rest stays.
 */
static void unmap_view(struct gm_host_pmap *p, const struct gm_host_seg *s)
{
	struct gm_host_area a;
	gm_ret_t ret = GM_RET_SUCCESS;

	for (uint64_t va = s->va, end = s->va + s->room, lo, hi; va < end; va = a.end) {
		bool tail;

		ret = gm_host_area(p->dev, va, &a);
		if (ret || a.begin >= end)
			break;
		lo = a.begin > va ? a.begin : va;
		hi = a.end < end ? a.end : end;
		tail = lo >= s->va + s->bytes && !a.file && !a.readable;
		if ((a.inode == s->ino && a.shared) || tail)
			gm_host_mem_unmap(p, lo, hi - lo);
	}
	if (ret == GM_RET_NOMEM)
		gm_log(p->env, GM_LOG_WARN, "shared memory at 0x%llx stays mapped: %s", (unsigned long long)s->va,
		       gm_last_error());
}

static void unmap_seg(struct gm_host_pmap *p, const struct gm_host_seg *s)
{
	unmap_view(p, s);
	if (s->moves)
		gm_host_mem_unmap(p, s->va + s->room, s->room);
	if (gm_host_seg_fd(s) >= 0)
		close(s->fd);
}

void gm_host_any_unmap(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_seg s;

	if (atomic_load_explicit(&p->shared.n, memory_order_acquire) && take_out(p, va, &s))
		unmap_seg(p, &s);
	else if (p->dev->closed)
		gm_host_closed_unmap(p, va, bytes);
	else
		gm_host_mem_unmap(p, va, bytes);
}

void gm_host_shared_fini(struct gm_host_pmap *p)
{
	struct gm_host_shared *sh = &p->shared;
	int fd = atomic_load(&sh->fd);

	for (unsigned i = 0; i < atomic_load(&sh->n); i++)
		unmap_seg(p, &sh->seg[i]);
	if (fd >= 0) {
		if (gm_host_fd_is(fd, "[userfaultfd]"))
			close(fd);
		gm_host_number_give(fd);
	}
	gm_mem_free(p->env, sh->seg, sh->room * sizeof(*sh->seg));
	gm_mutex_fini(p->env, &sh->lock);
}

/* ------------------------------------------------------------------ ops */

gm_ret_t gm_host_share_slot(void *pmap, uint64_t va, uint64_t *slot)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_seg s;

	if (!atomic_load(&p->shared.n) || !gm_host_seg_find(p, va, &s) || !s.moves || va >= s.va + s.room)
		return GM_RET_NOENT;
	*slot = va + s.room;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_host_share_fd(void *pmap, uint64_t va, int *fd)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_shared *sh = &p->shared;
	struct gm_host_seg s = { .bytes = 0 };
	int copy = -1, err = 0;
	unsigned i;

	gm_lock(p->env, &sh->lock); /* throughout: who takes it out closes its file */
	i = place_of(sh, va);
	if (i < atomic_load(&sh->n) && sh->seg[i].va == va)
		s = sh->seg[i];
	if (s.bytes && gm_host_seg_fd(&s) >= 0) {
		copy = fcntl(s.fd, F_DUPFD_CLOEXEC, 3);
		err = -errno;
		sh->seg[i].exported |= copy >= 0;
	}
	gm_unlock(p->env, &sh->lock);
	if (!s.bytes)
		return gm_fail(GM_RET_NOENT, "no shared memory begins at 0x%llx", (unsigned long long)va);
	if (copy < 0 && !err)
		return gm_fail(GM_RET_NODEV, "the program closed the descriptor of the shared memory at 0x%llx",
			       (unsigned long long)va);
	if (copy < 0)
		return why_not(err, "no descriptor");
	if (!s.exported)
		gm_host_mem_inherit(p, va, s.bytes, true);
	*fd = copy;
	return GM_RET_SUCCESS;
}
