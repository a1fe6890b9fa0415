/* SPDX-License-Identifier: MIT */
/*
 * Moving and making pages.
 *
 *     present at va --steal: MOVE--> frame in the slot --restore: MOVE, else COPY--> present at va
 *     absent at va --fill: COPY, zero: ZEROPAGE, poison: POISON--> present (poison: every access fails)
 *     poisoned at va --unmark: COPY of zeros--> present
 *     absent at va --fill_protected: COPY that protects--> protected --unprotect: WRITEPROTECT--> present
 *                                                          --steal: MOVE, which forgets the protection--> frame in the slot
 *
 * One ioctl for as much as possible; it stops at the first page it cannot do.
 * What the errors mean there, and what is done about them:
 *
 *     steal    EBUSY   shared with a child, or pinned: one try to un-share it, then `pinned`
 *              EINVAL  the range crosses mappings: half of it; one page: if the slot was locked with all memory
 *                      of the program, unlocked once; else locked, read-only: `fixed`
 *              EEXIST  the slot was filled, with zeros, when all memory of the program was locked: emptied once
 *              EFAULT  poisoned or guarded: `fixed`
 *              ENOENT  no mapping: FAULT
 *     others   EINVAL, ENOENT  the range crosses mappings: half of it
 *              EEXIST  something is there: EXIST; (restore) or a marker, which only COPY replaces: COPY, then EXIST
 *              EINVAL  (restore) the rights at va have changed since the steal: COPY
 *              EBUSY   (restore) a device still pins the frame: COPY
 *              EAGAIN  an event is unread: AGAIN
 *
 * A page that the program has guarded meanwhile (MADV_GUARD_INSTALL, for which
 * there is no event) has given its content up: restore() leaves it as it is, and
 * counts it as done. (fill() does not notice: COPY replaces the mark without a
 * word, and to look before each costs a fifth of a fault.)
 *
 * A move that met a huge page while another thread split it may have moved
 * pages and yet report EEXIST for the first of them (seen on Linux 6.18: the
 * kernel tries again after EAGAIN, moves, does not count it, and finds its own
 * page in the way). So EEXIST for a page that is gone from where it was means
 * moved; the slot page of a steal is empty before.
 *
 * Un-sharing is a write fault, and a page that vanished meanwhile (madvise
 * between two calls) would make this thread wait for the fault handler, which
 * it may be itself. FUTEX_WAKE_OP writes to a word in the kernel in a way that
 * never waits for a userfaultfd: it fails with EFAULT instead. Its operation
 * is "or 0", so the word keeps its value, whoever else changes it.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

gm_ret_t gm_host_uffd_ret(struct gm_host_pmap *p, int64_t err)
{
	switch (-err) {
	case EAGAIN:
	case EINTR: /* the process is being killed */
		return GM_RET_AGAIN;
	case EEXIST:
		return GM_RET_EXIST;
	case ENOMEM:
		return gm_fail(GM_RET_NOMEM, "userfaultfd: the kernel has no memory, or the process too many mappings; see "
					     "vm.max_map_count");
	case EBADF:
	case ENOTTY: /* closed, and the number belongs to another file now */
		return gm_host_lost(p);
	default: /* ENOENT, ESRCH, EINVAL, EFAULT: the mapping is not what it was */
		return GM_RET_FAULT;
	}
}

/* Part by part, each by its own descriptor, until one fails. */
static int by_parts(struct gm_host_pmap *p, uint64_t va, uint64_t bytes, int (*fn)(int fd, uint64_t va, uint64_t bytes))
{
	int rc = 0;

	for (uint64_t n; bytes && !rc; va += n, bytes -= n) {
		do {
			int fd;

			n = bytes;
			fd = gm_host_fd_at(p, va, &n);
			rc = fn(fd, va, n);
		} while (gm_host_again(p, rc));
	}
	return rc;
}

/* NOTSUP is not the kernel's: it registers what cannot be moved. */
static int reg(int fd, uint64_t va, uint64_t bytes, bool stores)
{
	uint64_t ioctls = 0;
	int rc = stores ? gm_uffd_register_stores(fd, va, bytes, &ioctls) : gm_uffd_register(fd, va, bytes, &ioctls);

	if (rc || (ioctls & (UINT64_C(1) << GM_UFFD_NR_MOVE)))
		return rc;
	(void)gm_uffd_unregister(fd, va, bytes);
	return -EOPNOTSUPP;
}

static int reg_plain(int fd, uint64_t va, uint64_t bytes)
{
	return reg(fd, va, bytes, false);
}

static int reg_stores(int fd, uint64_t va, uint64_t bytes)
{
	return reg(fd, va, bytes, true);
}

static gm_ret_t watch(struct gm_host_pmap *p, uint64_t va, uint64_t bytes, bool stores)
{
	int rc;

	/* the kernel registers what there is of a range; this looks only for holes */
	if (msync((void *)(uintptr_t)va, bytes, MS_ASYNC))
		return gm_fail(GM_RET_FAULT, "0x%llx + %llu is not mapped completely", (unsigned long long)va,
			       (unsigned long long)bytes);
	rc = by_parts(p, va, bytes, stores ? reg_stores : reg_plain);
	switch (-rc) {
	case 0:
		return GM_RET_SUCCESS;
	case EOPNOTSUPP:
		return gm_fail(GM_RET_NOTSUP, "0x%llx: memory of this kind cannot be moved", (unsigned long long)va);
	case EBUSY:
		return gm_fail(GM_RET_BUSY, "0x%llx is watched by another userfaultfd of this process",
			       (unsigned long long)va);
	case EINVAL:
	case EPERM:
		return gm_fail(GM_RET_NOTSUP, "0x%llx: userfaultfd does not take memory of this kind (a file)",
			       (unsigned long long)va);
	default:
		return gm_host_uffd_ret(p, rc);
	}
}

gm_ret_t gm_host_watch(void *pmap, uint64_t va, uint64_t bytes)
{
	return watch(pmap, va, bytes, false);
}

gm_ret_t gm_host_watch_stores(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_host_pmap *p = pmap;

	if (!p->protects || (gm_host_has_inthread(p) && !p->inthread.protects))
		return gm_fail(GM_RET_NOTSUP, "this kernel has no write protection by userfaultfd");
	return watch(p, va, bytes, true);
}

gm_ret_t gm_host_unwatch(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_host_pmap *p = pmap;
	int rc = by_parts(p, va, bytes, gm_uffd_unregister);

	return rc ? gm_host_uffd_ret(p, rc) : GM_RET_SUCCESS;
}

gm_ret_t gm_host_wake(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_host_pmap *p = pmap;
	int rc = by_parts(p, va, bytes, gm_uffd_wake);

	return rc ? gm_host_uffd_ret(p, rc) : GM_RET_SUCCESS;
}

bool gm_host_touch(uint64_t va)
{
	uint32_t nobody = 0;

	return syscall(SYS_futex, &nobody, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0L, (uint32_t *)(uintptr_t)va,
		       FUTEX_OP(FUTEX_OP_OR, 0, FUTEX_OP_CMP_LT, 0x800)) >= 0 || errno != EFAULT;
}

/* A write fault, see above. Its failure shows at the next move. */
static void unshare_page(uint64_t va)
{
	(void)gm_host_touch(va);
}

/* Where a steal is: pages [at, end) of the block are left of this run. */
struct steal {
	struct gm_host_pmap *p;
	int fd;
	uint64_t va, slot;
	unsigned at, end;
	unsigned span;  /* pages to try at once */
	unsigned tried; /* page that was un-shared, or whose place was emptied, last; GM_BLOCK_PAGES: none */
	bool unlocked;	/* the slot was */
	struct gm_host_steal *out;
};

static void leave_as(struct steal *s, struct gm_mask *why, unsigned pages)
{
	*why = gm_mask_or(*why, gm_mask_span(s->at, s->at + pages));
	s->at += pages;
}

static void steal_busy(struct steal *s)
{
	uint64_t va = s->va + (uint64_t)s->at * GM_PAGE_BYTES;

	if (s->tried != s->at) {
		s->tried = s->at;
		unshare_page(va);
		return;
	}
	/* one pin holds the whole huge page; trying its other pages would only split the mapping */
	leave_as(s, &s->out->pinned, gm_host_mem_huge(s->p, s->va) ? s->end - s->at : 1);
}

/*
 * mlockall() locks the slot too, and a locked mapping exchanges pages only with a locked one: true if that was not tried
 * yet.
 */
static bool unlock_slot(struct steal *s)
{
	bool first = !s->unlocked;

	s->unlocked = true;
	return first && munlock((void *)(uintptr_t)s->slot, GM_BLOCK_BYTES) == 0;
}

/* ... and fills it. What is all zeros can be dropped whoever's it is. */
static bool empty_slot_page(struct steal *s)
{
	static const unsigned char zeros[GM_PAGE_BYTES];
	uint64_t addr = s->slot + (uint64_t)s->at * GM_PAGE_BYTES;

	if (s->tried == s->at || gm_host_has_content(s->p, addr) <= 0 ||
	    memcmp((const void *)(uintptr_t)addr, zeros, GM_PAGE_BYTES) != 0)
		return false;
	s->tried = s->at;
	gm_host_slot_drop(s->p, addr, GM_PAGE_BYTES);
	return true;
}

/* Somebody else takes pages of the other sort to the same slot. */
static bool changed_over(const struct steal *s)
{
	return gm_host_has_inthread(s->p) && gm_host_slot_is_inthread(s->p, s->slot) != (s->fd == s->p->inthread.fd);
}

/* 0: nothing is at the page: it was moved, and that was not counted (see the top). Negative: that cannot be told. */
static int is_there(const struct steal *s)
{
	struct gm_mask some, zero;
	bool huge;

	if (gm_host_content_surely(s->p, s->va, &some, &zero, &huge))
		return -ENOMEM;
	return gm_mask_test(&some, s->at);
}

/* The move stopped at page s->at with this error. */
static gm_ret_t steal_refused(struct steal *s, int64_t err)
{
	int has;

	switch (-err) {
	case EBUSY:
		steal_busy(s);
		return GM_RET_SUCCESS;
	case EINVAL:
		if (s->span > 1) {
			s->span /= 2;
			return GM_RET_SUCCESS;
		}
		if (changed_over(s))
			return GM_RET_AGAIN;
		if (!unlock_slot(s))
			leave_as(s, &s->out->fixed, 1);
		return GM_RET_SUCCESS;
	case EFAULT:
		leave_as(s, &s->out->fixed, 1);
		return GM_RET_SUCCESS;
	case EEXIST:
		has = is_there(s);
		if (has < 0)
			return GM_RET_NOMEM;
		if (!has) {
			leave_as(s, &s->out->moved, 1);
			return GM_RET_SUCCESS;
		}
		if (empty_slot_page(s))
			return GM_RET_SUCCESS;
		gm_log(s->p->env, GM_LOG_ERROR, "steal at 0x%llx: the slot still has page %u",
		       (unsigned long long)s->va, s->at);
		leave_as(s, &s->out->fixed, 1);
		return GM_RET_SUCCESS;
	case ENOMEM:
		return GM_RET_AGAIN;
	default:
		return gm_host_uffd_ret(s->p, err);
	}
}

static gm_ret_t steal_run(struct steal *s)
{
	while (s->at < s->end) {
		uint64_t off = (uint64_t)s->at * GM_PAGE_BYTES;
		unsigned n = (unsigned)min_u64(s->span, s->end - s->at);
		int64_t done = gm_uffd_take(s->fd, s->slot + off, s->va + off, (uint64_t)n * GM_PAGE_BYTES);
		gm_ret_t ret;

		if (done > 0) {
			unsigned pages = (unsigned)(done / GM_PAGE_BYTES);

			s->out->moved = gm_mask_or(s->out->moved, gm_mask_span(s->at, s->at + pages));
			s->at += pages;
			s->span = n * 2;
			continue;
		}
		s->span = n;
		ret = steal_refused(s, done);
		if (ret)
			return ret;
	}
	return GM_RET_SUCCESS;
}

/* Each by the descriptor with which it is registered, and the slot with it. */
static gm_ret_t steal_parts(struct steal *s)
{
	unsigned end = s->end;
	gm_ret_t ret = GM_RET_SUCCESS;

	while (!ret && s->at < end) {
		uint64_t bytes = (uint64_t)(end - s->at) * GM_PAGE_BYTES;
		int rc;

		s->fd = gm_host_fd_at(s->p, s->va + (uint64_t)s->at * GM_PAGE_BYTES, &bytes);
		s->end = s->at + (unsigned)(bytes / GM_PAGE_BYTES);
		s->span = s->end - s->at;
		rc = gm_host_has_inthread(s->p) ? gm_host_slot_register(s->p, s->slot, s->fd == s->p->inthread.fd) : 0;
		ret = rc ? gm_host_uffd_ret(s->p, rc) : steal_run(s);
	}
	return ret;
}

/*
 * Which of the moved pages are holes: nobody may touch these in the slot. A
 * page that was only ever read is the kernel's zero page: a hole as well.
 */
gm_ret_t gm_host_find_holes(struct gm_host_pmap *p, uint64_t slot, struct gm_host_steal *out)
{
	struct gm_mask some, zero;
	gm_ret_t ret = gm_host_content_surely(p, slot, &some, &zero, &out->huge);

	if (ret)
		return ret;
	zero = gm_mask_and(zero, out->moved);
	GM_MASK_FOR_RUN(&zero, f, e)
		gm_host_slot_drop(p, slot + (uint64_t)f * GM_PAGE_BYTES, (uint64_t)(e - f) * GM_PAGE_BYTES);
	out->hole = gm_mask_or(gm_mask_sub(out->moved, some), zero);
	out->huge = out->huge && gm_mask_full(&out->moved) && gm_mask_empty(&out->hole);
	return GM_RET_SUCCESS;
}

/* Without knowing the holes nothing can be done with the slot. */
static void put_back(struct gm_host_pmap *p, uint64_t va, uint64_t slot, struct gm_host_steal *out)
{
	GM_MASK_FOR_RUN(&out->moved, f, e) {
		uint64_t off = (uint64_t)f * GM_PAGE_BYTES;
		uint64_t done;

		if (gm_host_restore(p, va + off, slot + off, (uint64_t)(e - f) * GM_PAGE_BYTES, &done))
			gm_log(p->env, GM_LOG_ERROR, "pages at 0x%llx are stuck in the staging slot",
			       (unsigned long long)(va + off));
	}
	out->moved = gm_mask_none();
}

/*
 * A huge page moves as one only where no page table is in its way, be it an
 * empty one that a former use of the slot left. Emptying the slot once more
 * takes the table away (Linux 6.14; before, the page is split and moves so).
 */
static void clear_way(struct gm_host_pmap *p, uint64_t va, uint64_t slot)
{
	struct gm_mask some, zero;
	bool huge;

	if (gm_host_mem_huge(p, va) && gm_host_content(p, slot, &some, &zero, &huge) == GM_RET_SUCCESS &&
	    gm_mask_empty(&some)) {
		gm_host_slot_drop(p, slot, GM_BLOCK_BYTES);
		gm_host_slot_set_tabled(p, slot, false);
	}
}

gm_ret_t gm_host_steal(void *pmap, uint64_t va, const struct gm_mask *want, uint64_t slot, struct gm_host_steal *out)
{
	struct gm_host_pmap *p = pmap;
	gm_ret_t ret = GM_RET_SUCCESS;

	assert(va % GM_BLOCK_BYTES == 0 && slot % GM_BLOCK_BYTES == 0);
	*out = (struct gm_host_steal){ .huge = false };
	if (gm_mask_full(want) && gm_host_slot_is_tabled(p, slot))
		clear_way(p, va, slot);
	GM_MASK_FOR_RUN(want, f, e) {
		struct steal s = {
			.p = p,
			.va = va,
			.slot = slot,
			.at = f,
			.end = e,
			.tried = GM_BLOCK_PAGES,
			.out = out,
		};

		ret = steal_parts(&s);
		if (ret)
			break;
	}
	if (!gm_mask_empty(&out->moved) && gm_host_find_holes(p, slot, out)) {
		put_back(p, va, slot, out);
		return GM_RET_NOMEM;
	}
	if (!gm_mask_empty(&out->moved) && !out->huge)
		gm_host_slot_set_tabled(p, slot, true);
	return ret;
}

/* How pages come to va: `many` in one ioctl; `one` for a page that `many` refused with `err`. */
struct mover {
	int64_t (*many)(int fd, uint64_t va, uint64_t src, uint64_t bytes);
	int64_t (*one)(struct gm_host_pmap *p, uint64_t va, uint64_t src, int64_t err);
};

static bool crosses(int64_t err)
{
	return err == -EINVAL || err == -ENOENT;
}

static gm_ret_t walk(struct gm_host_pmap *p, const struct mover *m, uint64_t va, uint64_t src, uint64_t bytes,
		     uint64_t *done)
{
	uint64_t span = bytes;

	*done = 0;
	while (*done < bytes) {
		uint64_t n = min_u64(span, bytes - *done);
		int fd = gm_host_fd_at(p, va + *done, &n);
		int64_t got = m->many(fd, va + *done, src + *done, n);

		span = n;
		if (got > 0) {
			*done += (uint64_t)got;
			span = n * 2;
			continue;
		}
		if (crosses(got) && n > GM_PAGE_BYTES) {
			span = n / 2 / GM_PAGE_BYTES * GM_PAGE_BYTES;
			continue;
		}
		if (m->one)
			got = m->one(p, va + *done, src + *done, got);
		if (got <= 0)
			return gm_host_uffd_ret(p, got);
		*done += (uint64_t)got;
	}
	return GM_RET_SUCCESS;
}

static int64_t zero_many(int fd, uint64_t va, uint64_t src, uint64_t bytes)
{
	(void)src;
	return gm_uffd_zeropage(fd, va, bytes);
}

static int64_t poison_many(int fd, uint64_t va, uint64_t src, uint64_t bytes)
{
	(void)src;
	return gm_uffd_poison(fd, va, bytes);
}

static int64_t copy_page(struct gm_host_pmap *p, uint64_t va, uint64_t src)
{
	uint64_t page = GM_PAGE_BYTES;

	return gm_uffd_copy(gm_host_fd_at(p, va, &page), va, src, page);
}

static int64_t restore_one(struct gm_host_pmap *p, uint64_t va, uint64_t src, int64_t err)
{
	int64_t got;
	int content, guard;

	if (err != -EINVAL && err != -EEXIST && err != -EBUSY)
		return err;
	content = gm_host_has_content(p, src);
	if (content < 0)
		return content;
	/* a hole must not be read: it stays a hole; with something at va it was moved there, see the top */
	if (content == 0) {
		(void)gm_host_wake(p, va, GM_PAGE_BYTES);
		return GM_PAGE_BYTES;
	}
	guard = err == -EEXIST ? gm_host_is_guard(p, va) : 0;
	if (guard < 0)
		return guard;
	if (guard) {
		(void)gm_host_wake(p, va, GM_PAGE_BYTES);
		got = GM_PAGE_BYTES;
	} else {
		got = copy_page(p, va, src);
	}
	if (got > 0)
		gm_host_slot_drop(p, src, GM_PAGE_BYTES);
	return got;
}

/* COPY replaces any marker, also of a guard page, which the kernel leaves where content is given up. */
static int64_t unmark_one(struct gm_host_pmap *p, uint64_t va, uint64_t src, int64_t err)
{
	static const unsigned char zeros[GM_PAGE_BYTES];

	int guard = err == -EEXIST ? gm_host_is_guard(p, va) : 1;

	(void)src;
	if (guard)
		return guard < 0 ? guard : err;
	return copy_page(p, va, GM_VA(zeros));
}

gm_ret_t gm_host_restore(void *pmap, uint64_t va, uint64_t addr, uint64_t bytes, uint64_t *done)
{
	static const struct mover restore = { gm_uffd_move, restore_one };

	return walk(pmap, &restore, va, addr, bytes, done);
}

gm_ret_t gm_host_fill(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done)
{
	static const struct mover fill = { gm_uffd_copy, NULL };

	return walk(pmap, &fill, va, GM_VA(src), bytes, done);
}

gm_ret_t gm_host_fill_protected(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done)
{
	static const struct mover fill = { gm_uffd_copy_protected, NULL };

	return walk(pmap, &fill, va, GM_VA(src), bytes, done);
}

static int unprotect_part(int fd, uint64_t va, uint64_t bytes)
{
	return gm_uffd_protect(fd, va, bytes, false);
}

/* Older kernels refuse a range of several mappings: page by page then, which also finds all that can be done. */
gm_ret_t gm_host_unprotect(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_host_pmap *p = pmap;
	int rc = by_parts(p, va, bytes, unprotect_part), first = 0;

	if (!rc)
		return GM_RET_SUCCESS;
	if (rc != -ENOENT || bytes == GM_PAGE_BYTES)
		return gm_host_uffd_ret(p, rc);
	for (uint64_t at = 0; at < bytes; at += GM_PAGE_BYTES) {
		rc = by_parts(p, va + at, GM_PAGE_BYTES, unprotect_part);
		first = first ? first : rc;
		if (rc && rc != -ENOENT)
			break;
	}
	return first ? gm_host_uffd_ret(p, rc && rc != -ENOENT ? rc : first) : GM_RET_SUCCESS;
}

gm_ret_t gm_host_zero(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	static const struct mover zero = { zero_many, NULL };

	return walk(pmap, &zero, va, 0, bytes, done);
}

gm_ret_t gm_host_poison(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	static const struct mover poison = { poison_many, NULL };

	return walk(pmap, &poison, va, 0, bytes, done);
}

gm_ret_t gm_host_unmark(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	static const struct mover unmark = { zero_many, unmark_one };

	return walk(pmap, &unmark, va, 0, bytes, done);
}
