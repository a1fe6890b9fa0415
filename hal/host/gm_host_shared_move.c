/* SPDX-License-Identifier: MIT */
/*
 * Moving pages of shared memory. The file has the frame, the view (the program's mapping) an entry for it; so a page
 * moves by its entry, and the frame stays where it is:
 *
 *     entry and frame --steal: MADV_DONTNEED on the view--> frame only --restore: CONTINUE--> entry and frame
 *     frame only --slot_drop: MADV_REMOVE on the alias--> nothing --fill: COPY, zero: ZEROPAGE--> entry and frame
 *     no entry --poison: POISON--> marked: every access fails --unmark: no frame, ZEROPAGE--> zeros
 *
 * The slot of a block is the same block of the alias, through which the frame can be read and written while the
 * view lacks it. What the view lacks waits for us: with a frame as a minor fault, without one as a missing page.
 *
 * Once the entry is gone nobody can make another but us, so the frames that steal() finds are all there are (holes are
 * asked of the file, not of page tables: a frame may be swapped out). A page of HOST whose entry the kernel
 * took (memory pressure), or the program (MADV_DONTNEED), comes to zero() as a hole would: the frame is what it gets,
 * and zeros only if there is none.
 *
 * madvise() goes by address, and would take the entries of whatever the program may have mapped there instead. So each
 * steal asks first, by CONTINUE, which works only on shared memory that a userfaultfd watches; and watch() looks
 * whether the file is ours. What is left is the time between question and madvise().
 *
 * Errors as in gm_host_move.c; EFAULT of CONTINUE is "no frame". In restore() that means that the program gave it up
 * (MADV_REMOVE): zeros.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define READ_ONCE_MSGS 16

static void *at(uint64_t va)
{
	return (void *)(uintptr_t)va;
}

/* One load for a process that has none. */
static inline bool is_shared(struct gm_host_pmap *p, uint64_t addr, struct gm_host_seg *s)
{
	return atomic_load_explicit(&p->shared.n, memory_order_acquire) && gm_host_seg_find(p, addr, s);
}

static uint64_t alias_of(const struct gm_host_seg *s, uint64_t va)
{
	return va < s->va + s->room ? va + s->room : va;
}

static gm_ret_t to_ret(struct gm_host_pmap *p, int64_t err)
{
	return err == -ENOSPC ? GM_RET_NOMEM : gm_host_uffd_ret(p, err); /* a limit of shared memory */
}

/* ------------------------------------------------------------- watching */

/* The library's own is managed as well: the view, and never the alias, as nobody else has an address of it. */
static gm_ret_t add_shared(struct gm_host_pmap *p, uint64_t va, struct gm_host_vma *vma, gm_ret_t ret)
{
	struct gm_host_seg s;

	if (ret || vma->private_anon || !is_shared(p, va, &s) || va >= s.va + s.room)
		return ret;
	ret = gm_host_seg_is_mapped(p, &s, va & ~(uint64_t)(GM_PAGE_BYTES - 1), GM_PAGE_BYTES);
	vma->private_anon = !ret;
	return ret == GM_RET_FAULT ? GM_RET_SUCCESS : ret;
}

gm_ret_t gm_host_any_rights(void *pmap, uint64_t va, struct gm_host_vma *vma)
{
	return add_shared(pmap, va, vma, gm_host_mem_rights(pmap, va, vma));
}

gm_ret_t gm_host_any_probe(void *pmap, uint64_t va, struct gm_host_vma *vma)
{
	return add_shared(pmap, va, vma, gm_host_mem_probe(pmap, va, vma));
}

gm_ret_t gm_host_any_watch(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_seg s;
	gm_ret_t ret;
	int rc;

	if (!is_shared(p, va, &s))
		return gm_host_watch(pmap, va, bytes);
	if (va >= s.va + s.room) /* what was adopted there was unmapped, and nobody told of it */
		return gm_fail(GM_RET_NOTSUP, "0x%llx is the library's", (unsigned long long)va);
	if (!s.moves || s.exported)
		return gm_fail(GM_RET_NOTSUP, "0x%llx is shared with others, and stays where it is", (unsigned long long)va);
	ret = gm_host_seg_is_mapped(p, &s, va, bytes);
	if (ret == GM_RET_FAULT)
		return gm_fail(ret, "shared memory at 0x%llx was unmapped: only gm_free() may do that", (unsigned long long)va);
	if (ret)
		return ret;
	do
		rc = gm_uffd_register_minor(p->shared.fd, va, bytes);
	while (gm_host_again(p, rc));
	if (rc == -EBUSY)
		return gm_fail(GM_RET_BUSY, "0x%llx is watched by another userfaultfd of this process", (unsigned long long)va);
	return rc ? to_ret(p, rc) : GM_RET_SUCCESS;
}

gm_ret_t gm_host_any_watch_stores(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_host_seg s;

	if (!is_shared(pmap, va, &s))
		return gm_host_watch_stores(pmap, va, bytes);
	return gm_fail(GM_RET_NOTSUP, "0x%llx is shared memory: pages of it are not protected", (unsigned long long)va);
}

gm_ret_t gm_host_any_unprotect(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_host_seg s;

	return is_shared(pmap, va, &s) ? GM_RET_SUCCESS : gm_host_unprotect(pmap, va, bytes);
}

gm_ret_t gm_host_any_unwatch(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_seg s;
	int rc;

	if (!is_shared(p, va, &s))
		return gm_host_unwatch(pmap, va, bytes);
	do
		rc = s.moves ? gm_uffd_unregister(p->shared.fd, va, bytes) : 0;
	while (gm_host_again(p, rc));
	return rc ? to_ret(p, rc) : GM_RET_SUCCESS;
}

gm_ret_t gm_host_any_wake(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_seg s;
	int rc;

	if (!is_shared(p, va, &s))
		return gm_host_wake(pmap, va, bytes);
	do
		rc = s.moves ? gm_uffd_wake(p->shared.fd, va, bytes) : 0;
	while (gm_host_again(p, rc));
	return rc ? to_ret(p, rc) : GM_RET_SUCCESS;
}

/* ---------------------------------------------------------------- slots */

void gm_host_any_slot_free(void *pmap, uint64_t slot)
{
	struct gm_host_seg s;

	if (!is_shared(pmap, slot, &s)) /* else what is in it is the program's, and at home */
		gm_host_slot_free(pmap, slot);
}

static void drop_frames(uint64_t addr, uint64_t bytes)
{
	if (!madvise(at(addr), bytes, MADV_REMOVE))
		return;
	(void)munlock(at(addr), bytes); /* somebody locked all memory of the process */
	if (madvise(at(addr), bytes, MADV_REMOVE))
		memset(at(addr), 0, bytes); /* the content must go, if the frames do not */
}

/* While somebody watches, the program has nothing in its mapping that is away. */
static bool had_gap(struct gm_host_pmap *p)
{
	return atomic_load(&p->shared.gap) || !gm_host_owns_shared(p);
}

/*
 * Never what the program has in its mapping, as where nobody watched for a while (gm_lost.c): it is one frame. If that
 * cannot be told now, and there was such a while, nothing is dropped.
 */
void gm_host_any_slot_drop(void *pmap, uint64_t addr, uint64_t bytes)
{
	uint64_t block = addr & ~(uint64_t)(GM_BLOCK_BYTES - 1);
	unsigned first = (unsigned)((addr - block) / GM_PAGE_BYTES), end = first + (unsigned)(bytes / GM_PAGE_BYTES);
	struct gm_mask pages = gm_mask_span(first, end), home;
	struct gm_host_seg s;
	gm_ret_t ret;

	if (!is_shared(pmap, addr, &s)) {
		gm_host_slot_drop(pmap, addr, bytes);
		return;
	}
	ret = gm_host_mem_present(pmap, block - s.room, &home);
	if (ret && ret != GM_RET_FAULT && had_gap(pmap))
		return;
	if (!ret)
		pages = gm_mask_sub(pages, home);
	GM_MASK_FOR_RUN(&pages, from, to)
		drop_frames(block + (uint64_t)from * GM_PAGE_BYTES, (uint64_t)(to - from) * GM_PAGE_BYTES);
}

/* ---------------------------------------------------------------- steal */

/* Is [va, va + bytes) in one mapping that is watched, and so not somebody else's? */
static int64_t ask(struct gm_host_pmap *p, uint64_t va, uint64_t bytes)
{
	int64_t got = gm_uffd_continue(p->shared.fd, va, bytes);

	return got > 0 || got == -EEXIST || got == -EFAULT ? 0 : got;
}

static int64_t zap(struct gm_host_pmap *p, uint64_t va, uint64_t bytes)
{
	int64_t err = ask(p, va, bytes);

	if (err)
		return err;
	return madvise(at(va), bytes, MADV_DONTNEED) ? -EPERM : 0; /* locked */
}

static gm_ret_t steal_run(struct gm_host_pmap *p, uint64_t va, unsigned first, unsigned end, struct gm_host_steal *out)
{
	unsigned span = end - first;

	while (first < end) {
		unsigned n = span < end - first ? span : end - first;
		int64_t err = zap(p, va + (uint64_t)first * GM_PAGE_BYTES, (uint64_t)n * GM_PAGE_BYTES);

		span = n * 2;
		if (!err) {
			gm_mask_add_span(&out->moved, first, first + n);
			first += n;
		} else if (n > 1 && (err == -ENOENT || err == -EINVAL || err == -EPERM)) {
			span = n / 2;
		} else if (err == -EPERM) {
			gm_mask_set(&out->fixed, first++);
		} else {
			return to_ret(p, err);
		}
	}
	return GM_RET_SUCCESS;
}

/*
 * Which pages of the block the file has: those that were stolen, for certain; others may come and go meanwhile. If it
 * cannot be asked: all, as reading a hole through the alias gives zeros.
 */
static struct gm_mask frames_of(const struct gm_host_seg *s, uint64_t va)
{
	off_t begin = (off_t)(va - s->va), end = begin + (off_t)GM_BLOCK_BYTES;
	struct gm_mask have = gm_mask_none();
	int fd = gm_host_seg_fd(s);

	if (fd < 0)
		return gm_mask_span(0, GM_BLOCK_PAGES);
	for (off_t data = begin, hole; data < end; data = hole) {
		data = lseek(fd, data, SEEK_DATA);
		if (data < 0 && errno != ENXIO)
			return gm_mask_span(0, GM_BLOCK_PAGES);
		if (data < 0 || data >= end)
			break;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0 || hole > end)
			hole = end;
		if (hole == data) /* gone in between */
			hole += GM_PAGE_BYTES;
		gm_mask_add_span(&have, (unsigned)((data - begin) / GM_PAGE_BYTES), (unsigned)((hole - begin) / GM_PAGE_BYTES));
	}
	return have;
}

static gm_ret_t steal(struct gm_host_pmap *p, const struct gm_host_seg *s, uint64_t va, const struct gm_mask *want,
		      struct gm_host_steal *out)
{
	struct gm_mask have;
	gm_ret_t ret = GM_RET_SUCCESS;

	*out = (struct gm_host_steal){ .huge = false };
	if (!s->moves || s->exported) {
		out->fixed = *want;
		return ret;
	}
	GM_MASK_FOR_RUN(want, first, end) {
		ret = steal_run(p, va, first, end, out);
		if (ret)
			break;
	}
	if (!gm_mask_empty(&out->moved)) {
		have = frames_of(s, va);
		out->hole = gm_mask_sub(out->moved, have);
	}
	return ret;
}

gm_ret_t gm_host_any_steal(void *pmap, uint64_t va, const struct gm_mask *want, uint64_t slot, struct gm_host_steal *out)
{
	struct gm_host_seg s;

	if (!is_shared(pmap, va, &s))
		return gm_host_steal(pmap, va, want, slot, out);
	assert(va % GM_BLOCK_BYTES == 0 && (!s.moves || slot == alias_of(&s, va)));
	return steal(pmap, &s, va, want, out);
}

/* --------------------------------------------------------------- giving */

/* How pages come to va: `many`, at least one; `one` for a page that `many` refused with `err`. */
struct mover {
	int64_t (*many)(struct gm_host_pmap *p, const struct gm_host_seg *s, uint64_t va, uint64_t src, uint64_t bytes);
	int64_t (*one)(struct gm_host_pmap *p, const struct gm_host_seg *s, uint64_t va, uint64_t src, int64_t err);
};

static gm_ret_t walk(struct gm_host_pmap *p, const struct gm_host_seg *s, const struct mover *m, uint64_t va,
		     uint64_t src, uint64_t bytes, uint64_t *done)
{
	uint64_t span = bytes;

	*done = 0;
	while (*done < bytes) {
		uint64_t n = span < bytes - *done ? span : bytes - *done;
		int64_t got = m->many(p, s, va + *done, src + *done, n);

		span = n;
		if (got > 0) {
			*done += (uint64_t)got;
			span = n * 2;
			continue;
		}
		if ((got == -EINVAL || got == -ENOENT) && n > GM_PAGE_BYTES) { /* several mappings */
			span = n / 2 / GM_PAGE_BYTES * GM_PAGE_BYTES;
			continue;
		}
		if (m->one)
			got = m->one(p, s, va + *done, src + *done, got);
		if (got <= 0)
			return to_ret(p, got);
		*done += (uint64_t)got;
	}
	return GM_RET_SUCCESS;
}

/* The frame of the file, or zeros as it has none. */
static int64_t give_page(struct gm_host_pmap *p, uint64_t va)
{
	int64_t got = gm_uffd_continue(p->shared.fd, va, GM_PAGE_BYTES);

	if (got != -EFAULT)
		return got;
	got = gm_uffd_zeropage(p->shared.fd, va, GM_PAGE_BYTES);
	return got == -EEXIST ? gm_uffd_continue(p->shared.fd, va, GM_PAGE_BYTES) : got;
}

static int64_t restore_many(struct gm_host_pmap *p, const struct gm_host_seg *s, uint64_t va, uint64_t src, uint64_t bytes)
{
	(void)src;
	assert(src == alias_of(s, va));
	(void)s;
	return gm_uffd_continue(p->shared.fd, va, bytes);
}

static int64_t restore_one(struct gm_host_pmap *p, const struct gm_host_seg *s, uint64_t va, uint64_t src, int64_t err)
{
	(void)s;
	(void)src;
	return err == -EFAULT ? give_page(p, va) : err;
}

static int64_t fill_many(struct gm_host_pmap *p, const struct gm_host_seg *s, uint64_t va, uint64_t src, uint64_t bytes)
{
	(void)s;
	return gm_uffd_copy(p->shared.fd, va, src, bytes);
}

/* The file has a frame, whose content was given up: overwritten, unless the view has it too. */
static int64_t fill_one(struct gm_host_pmap *p, const struct gm_host_seg *s, uint64_t va, uint64_t src, int64_t err)
{
	int content = err == -EEXIST ? gm_host_has_content(p, va) : 1;

	if (content)
		return content < 0 ? content : err;
	memcpy(at(alias_of(s, va)), at(src), GM_PAGE_BYTES);
	return gm_uffd_continue(p->shared.fd, va, GM_PAGE_BYTES);
}

/* A page at a time: none that has a mark, which CONTINUE and ZEROPAGE would both replace. */
static int64_t zero_many(struct gm_host_pmap *p, const struct gm_host_seg *s, uint64_t va, uint64_t src, uint64_t bytes)
{
	int content = gm_host_has_content(p, va);

	(void)s;
	(void)src;
	(void)bytes;
	if (content)
		return content < 0 ? content : -EEXIST;
	return give_page(p, va);
}

static int64_t poison_many(struct gm_host_pmap *p, const struct gm_host_seg *s, uint64_t va, uint64_t src, uint64_t bytes)
{
	(void)s;
	(void)src;
	return gm_uffd_poison(p->shared.fd, va, bytes);
}

/* A page at a time: what there is in the file was given up. */
static int64_t unmark_many(struct gm_host_pmap *p, const struct gm_host_seg *s, uint64_t va, uint64_t src, uint64_t bytes)
{
	int there = gm_host_is_present(p, va);

	(void)src;
	(void)bytes;
	if (!there)
		there = gm_host_is_guard(p, va);
	if (there)
		return there < 0 ? there : -EEXIST;
	gm_host_any_slot_drop(p, alias_of(s, va), GM_PAGE_BYTES);
	return give_page(p, va);
}

gm_ret_t gm_host_any_restore(void *pmap, uint64_t va, uint64_t addr, uint64_t bytes, uint64_t *done)
{
	static const struct mover restore = { restore_many, restore_one };
	struct gm_host_seg s;

	if (!is_shared(pmap, va, &s))
		return gm_host_restore(pmap, va, addr, bytes, done);
	return walk(pmap, &s, &restore, va, addr, bytes, done);
}

gm_ret_t gm_host_any_fill(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done)
{
	static const struct mover fill = { fill_many, fill_one };
	struct gm_host_seg s;

	if (!is_shared(pmap, va, &s))
		return gm_host_fill(pmap, va, src, bytes, done);
	return walk(pmap, &s, &fill, va, GM_VA(src), bytes, done);
}

gm_ret_t gm_host_any_zero(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	static const struct mover zero = { zero_many, NULL };
	struct gm_host_seg s;

	if (!is_shared(pmap, va, &s))
		return gm_host_zero(pmap, va, bytes, done);
	return walk(pmap, &s, &zero, va, 0, bytes, done);
}

gm_ret_t gm_host_any_poison(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	static const struct mover poison = { poison_many, NULL };
	struct gm_host_seg s;

	if (!is_shared(pmap, va, &s))
		return gm_host_poison(pmap, va, bytes, done);
	return walk(pmap, &s, &poison, va, 0, bytes, done);
}

gm_ret_t gm_host_any_unmark(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	static const struct mover unmark = { unmark_many, NULL };
	struct gm_host_seg s;

	if (!is_shared(pmap, va, &s))
		return gm_host_unmark(pmap, va, bytes, done);
	return walk(pmap, &s, &unmark, va, 0, bytes, done);
}

/* ------------------------------------------------------------- messages */

/* There are only faults. A few at a time, so that none of the two descriptors keeps the other waiting. */
static size_t read_faults(struct gm_host_pmap *p, struct gm_host_msg *msgs, size_t n)
{
	struct gm_uffd_msg raw[READ_ONCE_MSGS];
	size_t have = 0;
	ssize_t got;

	/* Another file's data are not ours to read. Not lost may mean: not now, as there is no descriptor left. */
	if (gm_uffd_changing(p->shared.fd) < 0 &&
	    (gm_host_lost(p) == GM_RET_NODEV || gm_uffd_changing(p->shared.fd) < 0))
		return 0;
	n = n / 2 < READ_ONCE_MSGS ? (n + 1) / 2 : READ_ONCE_MSGS;
	got = read(p->shared.fd, raw, n * sizeof(raw[0]));
	if (got < 0 && errno != EAGAIN && errno != EINTR)
		(void)gm_host_lost(p);
	for (size_t i = 0; got > 0 && i < (size_t)got / sizeof(raw[0]); i++)
		if (raw[i].event == GM_UFFD_EVENT_PAGEFAULT)
			msgs[have++] = (struct gm_host_msg){
				.kind = GM_HOST_FAULT,
				.va = raw[i].arg.pagefault.address / GM_PAGE_BYTES * GM_PAGE_BYTES,
				.bytes = GM_PAGE_BYTES,
				.write = raw[i].arg.pagefault.flags & GM_UFFD_PAGEFAULT_WRITE,
				.thread_id = raw[i].arg.pagefault.thread_id,
			};
	return have;
}

size_t gm_host_any_msg_read(void *pmap, struct gm_host_msg *msgs, size_t n)
{
	struct gm_host_pmap *p = pmap;
	size_t have = 0;

	if (atomic_load_explicit(&p->shared.n, memory_order_acquire) && p->shared.fd >= 0 && n)
		have = read_faults(p, msgs, n);
	return have < n ? have + gm_host_msg_read(pmap, msgs + have, n - have) : have;
}
