/* SPDX-License-Identifier: MIT */
/*
 * mremap(), and realloc() of what is large. The kernel moves what is on the host, without a copy, and tells libgmem, which
 * gives what is away at the new place; both are managed there as before.
 *
 *     shrink   what is beyond is unmapped
 *     grow     in place where the addresses behind are free; else moved
 *     moved    a place in the window, or the one that the program names there
 *                  --> piece by piece: room is made for what will come home --mremap(DONTUNMAP)--> arrived there
 *                  --> what is beyond the old length is mapped --> the old place is mapped over with the reservation
 *                                                                  (MREMAP_DONTUNMAP: adopted anew, empty)
 *     a piece that cannot be moved: those before it are moved back, and it fails as the kernel says
 *
 * Pieces are there for the bound on the host: what is away of a range comes home as it moves. They are a sixteenth of the
 * limit; smaller where the range is several mappings for the kernel (rights, or what it was grown by).
 * The old place stays mapped until all is moved, so no address is ever free for others in between. Signals are blocked:
 * no handler sees the range in two places.
 *
 * Left to the kernel, with all brought home before and not managed any more: to a place that the program names outside of
 * the window, which nobody counts; growth of what has other rights than to read and write.
 */
#include "config.h"

#include <errno.h>
#include <stdarg.h>

#include "tools/preload/preload.h"
#include "tools/preload/raw.h"

#define PAGE_MASK ((uint64_t)GM_PAGE_BYTES - 1)
#define KNOWN_FLAGS (MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP)
#define PIECES_OF_LIMIT 16

/* What is asked for; lengths in whole pages. */
struct remap {
	uint64_t va, have, need, to;
	int flags;
};

static void *raw_mremap(uint64_t va, uint64_t bytes, uint64_t want, int flags, uint64_t to)
{
	return (void *)syscall(SYS_mremap, va, bytes, want, flags, to); /* NOLINT(performance-no-int-to-ptr) */
}

static void *by_kernel(const struct remap *r)
{
	void *p;

	/* home first: the kernel moves what is there, and what is not would follow by and by */
	if (gm_exec_is_live() && !gm_exec_ask(GM_EXEC_RELEASE, r->va, r->have, 0)) {
		errno = EFAULT;
		return MAP_FAILED;
	}
	p = raw_mremap(r->va, r->have, r->need, r->flags, r->to);
	/* the hole in the window is reserved again, unless the kernel has given it to somebody meanwhile: then it is his */
	if (p != MAP_FAILED && GM_VA(p) != r->va && !(r->flags & MREMAP_DONTUNMAP) &&
	    gm_raw_mmap((void *)(uintptr_t)r->va, r->have, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) != MAP_FAILED)
		(void)gm_exec_ask(GM_EXEC_FREED, r->va, r->have, 0);
	return p;
}

/*
 * Is [va, va + bytes) of the window one mapping? Linux from 6.17 on moves the first of several, and says EFAULT then: what
 * has gone and what has not nobody knows. So it is asked for what it never does, more in place of what is not free: ENOMEM (or
 * EAGAIN, locked) if it is one, EFAULT if it is several, and EPERM if it is sealed.
 */
static bool is_one(uint64_t va, uint64_t bytes)
{
	return raw_mremap(va, bytes, bytes + GM_PAGE_BYTES, 0, 0) != MAP_FAILED || errno == ENOMEM || errno == EAGAIN;
}

/* So much of [va, va + bytes) is one mapping; a page is, if anything. */
static uint64_t one_of(uint64_t va, uint64_t bytes)
{
	while (bytes > GM_PAGE_BYTES && !is_one(va, bytes))
		bytes = (bytes / 2 + PAGE_MASK) & ~PAGE_MASK;
	return bytes;
}

/* How much of [va, va + bytes) went to `to`; errno says why no more. */
static uint64_t move_pieces(uint64_t va, uint64_t bytes, uint64_t to)
{
	uint64_t most = gm_exec.shared->limit_bytes / PIECES_OF_LIMIT & ~PAGE_MASK, done = 0, n, outside;

	while (done < bytes) {
		n = one_of(va + done, bytes - done < most ? bytes - done : most);
		outside = gm_exec_ask(GM_EXEC_MAKE_WAY, va + done, n, 0);
		if (raw_mremap(va + done, n, n, KNOWN_FLAGS, to + done) == MAP_FAILED)
			return done;
		(void)gm_exec_ask(GM_EXEC_ARRIVED, to + done, n, outside);
		done += n;
	}
	return done;
}

/* What a range is longer by at its new place. */
static bool map_more(uint64_t va, uint64_t bytes)
{
	if (!bytes)
		return true;
	if (gm_raw_mmap((void *)(uintptr_t)va, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
	    MAP_FAILED)
		return false;
	(void)gm_exec_ask(GM_EXEC_ADOPT, va, bytes, 0);
	return true;
}

/* To r->to, which is in the window and in use. */
static bool move_all(const struct remap *r)
{
	uint64_t bytes = r->have < r->need ? r->have : r->need, done;
	int err;

	if (!map_more(r->to + bytes, r->need - bytes))
		return false;
	done = move_pieces(r->va, bytes, r->to);
	if (done == bytes)
		return true;
	err = errno;
	(void)move_pieces(r->to, done, r->va);
	errno = err;
	return false;
}

/* 0 and errno: it stays where it is. `alloc`: so many bytes of it are an allocation, 0: none. */
static uint64_t elsewhere(struct remap *r, uint64_t alloc)
{
	bool named = r->flags & MREMAP_FIXED, moved;
	uint64_t signals = gm_raw_block_signals();
	int err = ENOMEM;

	if (named)
		(void)gm_exec_ask(GM_EXEC_TAKEN, r->to, r->need, 0);
	else
		r->to = gm_exec_ask(GM_EXEC_SPACE, r->need, alloc, 0);
	moved = r->to && move_all(r);
	if (!moved && r->to) {
		err = errno;
		if (!named)
			(void)gm_exec_window_unmap(r->to, r->need);
	}
	if (moved && gm_exec_window_is_odd(r->va, r->have))
		gm_exec_window_set_odd(r->to, r->need);
	if (moved && r->flags & MREMAP_DONTUNMAP)
		(void)gm_exec_ask(GM_EXEC_ADOPT, r->va, r->have, 0);
	else if (moved)
		(void)gm_exec_window_unmap(r->va, r->have);
	gm_raw_restore_signals(signals);
	if (!moved)
		errno = err;
	return moved ? r->to : 0;
}

uint64_t gm_exec_window_move(uint64_t va, uint64_t have, uint64_t bytes)
{
	struct remap r = { .va = va, .have = have, .need = (bytes + PAGE_MASK) & ~PAGE_MASK, .flags = MREMAP_MAYMOVE };

	return elsewhere(&r, bytes);
}

static void *shrink(const struct remap *r)
{
	if (r->need < r->have && gm_exec_window_unmap(r->va + r->need, r->have - r->need))
		return MAP_FAILED;
	return (void *)(uintptr_t)r->va;
}

/* The kernel knows what to say of these. */
static bool is_wrong(const struct remap *r)
{
	bool may = r->flags & MREMAP_MAYMOVE;

	if (r->flags & ~KNOWN_FLAGS || r->va & PAGE_MASK || !r->have || !r->need)
		return true;
	if (r->flags & MREMAP_DONTUNMAP && (!may || r->have != r->need))
		return true;
	return r->flags & MREMAP_FIXED && (!may || r->to & PAGE_MASK || (r->to < r->va + r->have && r->va < r->to + r->need));
}

static bool is_in_window(uint64_t va, uint64_t bytes)
{
	return gm_exec_window_has(va) && bytes <= gm_exec_window_limit() - va;
}

static void *remap(struct remap *r)
{
	bool stays = !(r->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)), odd = gm_exec_window_is_odd(r->va, r->have);
	uint64_t at;

	if (stays && r->need <= r->have)
		return shrink(r);
	if ((odd && r->need > r->have) || (r->flags & MREMAP_FIXED && !is_in_window(r->to, r->need)))
		return by_kernel(r);
	if (stays && gm_exec_ask(GM_EXEC_GROW, r->va, r->have, r->need))
		return (void *)(uintptr_t)r->va;
	if (!(r->flags & MREMAP_MAYMOVE)) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	at = elsewhere(r, 0);
	return at ? (void *)(uintptr_t)at : MAP_FAILED;
}

GM_EXEC_EXPORT void *mremap(void *at, size_t bytes, size_t want, int flags, ...)
{
	struct remap r = { .va = GM_VA(at), .have = (bytes + PAGE_MASK) & ~PAGE_MASK, .need = (want + PAGE_MASK) & ~PAGE_MASK,
			   .flags = flags };
	va_list ap;

	if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) {
		va_start(ap, flags);
		r.to = GM_VA(va_arg(ap, void *));
		va_end(ap);
	}
	if (!gm_exec_window_has(r.va) || is_wrong(&r) || !gm_exec_is_live())
		return raw_mremap(r.va, bytes, want, flags, r.to);
	if (!is_in_window(r.va, r.have) || !gm_exec_window_is_used(r.va, r.have)) {
		errno = EFAULT;
		return MAP_FAILED;
	}
	return remap(&r);
}
