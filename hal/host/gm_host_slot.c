/* SPDX-License-Identifier: MIT */
/*
 * Staging: slots of 2 MiB in which stolen frames wait, and the bounce buffers.
 *
 * The arena grows by pieces of address space, registered with fd_app, that
 * stay until the pmap goes. A slot is free or taken; a free slot has no frames:
 *
 *     free --slot_alloc--> taken, empty --steal--> frames --restore--> empty
 *     taken --slot_free: MADV_DONTNEED--> free
 *
 * A piece is opened as its slots are needed, a few at a time: a program that
 * locks all its memory (mlockall) makes the kernel fill whatever it may access,
 * and that shall not be a gigabyte. What is filled so in a slot is nobody's.
 *
 * Two rules keep the frames movable: nothing here is inherited by a child
 * (a frame shared with a child cannot be moved home), and nothing here is
 * locked (a locked mapping exchanges pages only with a locked one; a program
 * may have asked for all its future memory to be locked).
 *
 * A bounce buffer is plain memory whose frames restore() gives away. Small
 * pages and the huge page are kept apart, since moving a part of a huge page
 * costs a split of it.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* Lowest free slot of a piece that has one. */
static unsigned take_slot(struct gm_host_piece *piece)
{
	for (unsigned w = 0; w < GM_HOST_PIECE_SLOTS / 64; w++) {
		unsigned bit;

		if (piece->taken[w] == UINT64_MAX)
			continue;
		bit = (unsigned)__builtin_ctzll(~piece->taken[w]);
		piece->taken[w] |= UINT64_C(1) << bit;
		piece->used++;
		return w * 64 + bit;
	}
	assert(!"a piece with a free slot");
	return 0;
}

static int reg(struct gm_host_pmap *p, uint64_t va, uint64_t bytes)
{
	uint64_t ioctls;
	int rc;

	do
		rc = gm_uffd_register(p->fd_app, va, bytes, &ioctls);
	while (gm_host_again(p, rc));
	return rc;
}

static int unregister(struct gm_host_pmap *p, uint64_t va, uint64_t bytes)
{
	int rc;

	do
		rc = gm_uffd_unregister(p->fd_app, va, bytes);
	while (gm_host_again(p, rc));
	return rc;
}

static struct gm_host_piece *piece_of(struct gm_host_pmap *p, uint64_t slot);

static bool is_set(const uint64_t *bits, unsigned s)
{
	return bits[s / 64] >> (s % 64) & 1;
}

/* (l) */
static bool is_inthread(struct gm_host_pmap *p, uint64_t addr)
{
	struct gm_host_piece *piece = piece_of(p, addr);

	return piece && is_set(piece->inthread, (unsigned)((addr - piece->va) / GM_BLOCK_BYTES));
}

bool gm_host_slot_is_inthread(struct gm_host_pmap *p, uint64_t slot)
{
	bool is;

	gm_lock(p->env, &p->lock);
	is = is_inthread(p, slot);
	gm_unlock(p->env, &p->lock);
	return is;
}

int gm_host_slot_register(struct gm_host_pmap *p, uint64_t slot, bool inthread)
{
	struct gm_host_piece *piece;
	int rc = 0, from, to;
	uint64_t ioctls;
	unsigned s;

	gm_lock(p->env, &p->lock);
	piece = piece_of(p, slot);
	s = (unsigned)((slot - piece->va) / GM_BLOCK_BYTES);
	from = inthread ? p->fd_app : p->inthread.fd;
	to = inthread ? p->inthread.fd : p->fd_app;
	if (is_set(piece->inthread, s) != inthread) {
		rc = gm_uffd_unregister(from, slot, GM_BLOCK_BYTES);
		if (!rc)
			rc = gm_uffd_register(to, slot, GM_BLOCK_BYTES, &ioctls);
		if (!rc)
			piece->inthread[s / 64] ^= UINT64_C(1) << (s % 64);
		else
			(void)gm_uffd_register(from, slot, GM_BLOCK_BYTES, &ioctls); /* as it was */
	}
	gm_unlock(p->env, &p->lock);
	return rc;
}

/* (l) A new piece, smaller where a limit on address space wants it so. SUCCESS, NOMEM, AGAIN (the descriptor is gone). */
static gm_ret_t grow(struct gm_host_pmap *p)
{
	struct gm_host_piece *piece = &p->piece[p->pieces];
	unsigned slots = GM_HOST_PIECE_SLOTS;
	uint64_t va = 0, ioctls;
	int rc;

	if (p->pieces == GM_HOST_PIECES)
		return gm_fail(GM_RET_NOMEM, "staging: all %u pieces are in use", GM_HOST_PIECES);
	for (; slots && !va; slots = va ? slots : slots / 8)
		va = gm_host_reserve_closed((uint64_t)slots * GM_BLOCK_BYTES);
	if (!va)
		return gm_fail(GM_RET_NOMEM, "staging: no address space left");
	rc = p->plain_arena ? 0 : gm_uffd_register(p->fd_app, va, (uint64_t)slots * GM_BLOCK_BYTES, &ioctls);
	if (rc) {
		munmap((void *)(uintptr_t)va, (uint64_t)slots * GM_BLOCK_BYTES);
		if (rc == -EBADF || rc == -ENOTTY)
			return GM_RET_AGAIN;
		return gm_fail(GM_RET_NOMEM, "staging: the kernel does not register it with userfaultfd");
	}
	/* a huge page that is moved in stays huge; without huge pages in the kernel nothing is lost */
	(void)madvise((void *)(uintptr_t)va, (uint64_t)slots * GM_BLOCK_BYTES, MADV_HUGEPAGE);
	*piece = (struct gm_host_piece){ .va = va, .slots = slots };
	for (unsigned s = slots; s < GM_HOST_PIECE_SLOTS; s++)
		piece->taken[s / 64] |= UINT64_C(1) << (s % 64);
	atomic_fetch_add(&p->pieces, 1); /* complete: read without the lock too */
	return GM_RET_SUCCESS;
}

static bool is_within(uint64_t va, uint64_t begin, uint64_t bytes)
{
	return va >= begin && va - begin < bytes;
}

bool gm_host_slots_have(struct gm_host_pmap *p, uint64_t va)
{
	unsigned n = atomic_load(&p->pieces);
	bool has = is_within(va, p->bounce, (uint64_t)GM_HOST_BOUNCES * 2 * GM_BLOCK_BYTES);

	for (unsigned i = 0; i < n; i++)
		has |= is_within(va, p->piece[i].va, (uint64_t)p->piece[i].slots * GM_BLOCK_BYTES);
	return has;
}

static struct gm_host_piece *piece_with_room(struct gm_host_pmap *p)
{
	for (unsigned i = 0; i < p->pieces; i++)
		if (p->piece[i].used < p->piece[i].slots)
			return &p->piece[i];
	return NULL;
}

/* So that slot s can be used; it may be the last that the address space limit or the number of mappings allows. */
static gm_ret_t open_up(struct gm_host_piece *piece, unsigned s)
{
	unsigned end = s < piece->open ? piece->open : (s / GM_HOST_PIECE_OPENS + 1) * GM_HOST_PIECE_OPENS;
	void *at = (void *)(uintptr_t)(piece->va + (uint64_t)piece->open * GM_BLOCK_BYTES);

	if (end > piece->slots)
		end = piece->slots;
	if (end > piece->open && mprotect(at, (uint64_t)(end - piece->open) * GM_BLOCK_BYTES, PROT_READ | PROT_WRITE))
		return gm_fail(GM_RET_NOMEM, "staging: no memory for more: error %d", errno);
	piece->open = end;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_host_slot_alloc(void *pmap, uint64_t *slot)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_piece *piece;
	gm_ret_t ret;

again:
	ret = GM_RET_SUCCESS;
	gm_lock(p->env, &p->lock);
	piece = piece_with_room(p);
	if (!piece) {
		ret = grow(p);
		piece = piece_with_room(p);
	}
	if (piece) {
		unsigned s = take_slot(piece);

		ret = open_up(piece, s);
		if (ret) {
			piece->taken[s / 64] &= ~(UINT64_C(1) << (s % 64));
			piece->used--;
		} else {
			*slot = piece->va + (uint64_t)s * GM_BLOCK_BYTES;
		}
	}
	gm_unlock(p->env, &p->lock);
	if (ret == GM_RET_AGAIN && gm_host_revive(p))
		goto again;
	return ret == GM_RET_AGAIN ? gm_fail(GM_RET_NOMEM, "staging: the program closed the descriptor") : ret;
}

static struct gm_host_piece *piece_of(struct gm_host_pmap *p, uint64_t slot)
{
	for (unsigned i = 0; i < p->pieces; i++)
		if (slot >= p->piece[i].va && slot - p->piece[i].va < (uint64_t)p->piece[i].slots * GM_BLOCK_BYTES)
			return &p->piece[i];
	return NULL;
}

bool gm_host_slot_is_tabled(struct gm_host_pmap *p, uint64_t slot)
{
	struct gm_host_piece *piece;
	unsigned s;
	bool is;

	gm_lock(p->env, &p->lock);
	piece = piece_of(p, slot);
	s = piece ? (unsigned)((slot - piece->va) / GM_BLOCK_BYTES) : 0;
	is = piece && (piece->tabled[s / 64] >> (s % 64) & 1);
	gm_unlock(p->env, &p->lock);
	return is;
}

void gm_host_slot_set_tabled(struct gm_host_pmap *p, uint64_t slot, bool tabled)
{
	struct gm_host_piece *piece;
	unsigned s;

	gm_lock(p->env, &p->lock);
	piece = piece_of(p, slot);
	s = piece ? (unsigned)((slot - piece->va) / GM_BLOCK_BYTES) : 0;
	if (piece && tabled)
		piece->tabled[s / 64] |= UINT64_C(1) << (s % 64);
	else if (piece)
		piece->tabled[s / 64] &= ~(UINT64_C(1) << (s % 64));
	gm_unlock(p->env, &p->lock);
}

void gm_host_slot_free(void *pmap, uint64_t slot)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_piece *piece;
	unsigned s;

	/* first empty, then free: another thread may take it at once */
	gm_host_slot_drop(p, slot, GM_BLOCK_BYTES);
	gm_lock(p->env, &p->lock);
	piece = piece_of(p, slot);
	assert(piece && (slot - piece->va) % GM_BLOCK_BYTES == 0);
	s = (unsigned)((slot - piece->va) / GM_BLOCK_BYTES);
	assert(piece->taken[s / 64] >> (s % 64) & 1);
	piece->taken[s / 64] &= ~(UINT64_C(1) << (s % 64));
	piece->tabled[s / 64] &= ~(UINT64_C(1) << (s % 64));
	piece->used--;
	gm_unlock(p->env, &p->lock);
}

/* Frames back to the kernel; false: it did not take them. */
static bool drop_frames(uint64_t addr, uint64_t bytes)
{
	void *at = (void *)(uintptr_t)addr;

	if (madvise(at, bytes, MADV_DONTNEED) == 0)
		return true;
	(void)munlock(at, bytes); /* somebody locked all memory of the process */
	return madvise(at, bytes, MADV_DONTNEED) == 0;
}

/* As below, where a slot may change over to another descriptor meanwhile. */
static void drop_locked(struct gm_host_pmap *p, uint64_t addr, uint64_t bytes)
{
	uint64_t ioctls;
	bool ok = false;
	int rc, fd;

	do {
		gm_lock(p->env, &p->lock);
		fd = is_inthread(p, addr) ? p->inthread.fd : p->fd_app;
		rc = gm_uffd_unregister(fd, addr, bytes);
		if (!rc) {
			ok = drop_frames(addr, bytes);
			rc = gm_uffd_register(fd, addr, bytes, &ioctls);
		}
		gm_unlock(p->env, &p->lock);
	} while (gm_host_again(p, rc));
	if (rc || !ok)
		gm_log(p->env, GM_LOG_ERROR, "staging at 0x%llx cannot be emptied: error %d", (unsigned long long)addr, -rc);
}

void gm_host_slot_drop(void *pmap, uint64_t addr, uint64_t bytes)
{
	struct gm_host_pmap *p = pmap;
	bool ok;

	if (p->plain_arena) {
		if (!drop_frames(addr, bytes))
			gm_log(p->env, GM_LOG_ERROR, "staging at 0x%llx cannot be emptied: error %d",
			       (unsigned long long)addr, errno);
		return;
	}
	if (gm_host_has_inthread(p)) {
		drop_locked(p, addr, bytes);
		return;
	}
	/* While it is off the descriptor, dropping it raises no event. On it, this thread would wait until the
	 * event was read, and whoever reads may wait for this thread. So if it cannot be taken off (too many
	 * mappings) the frames stay: a later steal into these pages is refused, and costs no byte. */
	if (unregister(p, addr, bytes)) {
		gm_log(p->env, GM_LOG_ERROR, "staging at 0x%llx stays full: too many mappings in this process",
		       (unsigned long long)addr);
		return;
	}
	ok = drop_frames(addr, bytes);
	if (reg(p, addr, bytes) || !ok)
		gm_log(p->env, GM_LOG_ERROR, "staging at 0x%llx cannot be emptied: error %d",
		       (unsigned long long)addr, errno);
}

void gm_host_slot_renew(void *pmap, uint64_t slot)
{
	void *at = (void *)(uintptr_t)slot;

	/* With the mappings of the process at their limit they stay as they are; their frames go all the same. */
	if (mmap(at, GM_BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		 0) != MAP_FAILED) {
		(void)munlock(at, GM_BLOCK_BYTES);
		(void)madvise(at, GM_BLOCK_BYTES, MADV_DONTFORK);
		(void)madvise(at, GM_BLOCK_BYTES, MADV_HUGEPAGE);
	}
	gm_host_slot_free(pmap, slot);
}

gm_ret_t gm_host_slots_init(struct gm_host_pmap *p)
{
	gm_mutex_init(p->env, &p->lock, GM_RANK_LEAF);
	p->bounce = gm_host_reserve((uint64_t)GM_HOST_BOUNCES * 2 * GM_BLOCK_BYTES);
	if (!p->bounce) {
		gm_mutex_fini(p->env, &p->lock);
		return gm_fail(GM_RET_NOMEM, "no address space left for bounce buffers");
	}
	for (unsigned i = 0; i < GM_HOST_BOUNCES * 2; i++)
		(void)madvise((void *)(uintptr_t)(p->bounce + (uint64_t)i * GM_BLOCK_BYTES), GM_BLOCK_BYTES,
			      i % 2 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return GM_RET_SUCCESS;
}

void gm_host_slots_plain(struct gm_host_pmap *p)
{
	for (unsigned i = 0; i < p->pieces; i++)
		memset(p->piece[i].inthread, 0, sizeof(p->piece[i].inthread));
}

bool gm_host_slots_watch(struct gm_host_pmap *p, int fd)
{
	bool ok = true;

	for (unsigned i = 0; !p->plain_arena && i < p->pieces; i++) {
		const struct gm_host_piece *piece = &p->piece[i];

		for (unsigned s = 0, end; s < piece->slots; s = end + 1) {
			uint64_t ioctls;

			for (end = s; end < piece->slots && !is_set(piece->inthread, end); end++)
				;
			ok &= s == end || !gm_uffd_register(fd, piece->va + (uint64_t)s * GM_BLOCK_BYTES,
							    (uint64_t)(end - s) * GM_BLOCK_BYTES, &ioctls);
		}
	}
	return ok;
}

void gm_host_slots_fini(struct gm_host_pmap *p)
{
	for (unsigned i = 0; i < p->pieces; i++) {
		uint64_t bytes = (uint64_t)p->piece[i].slots * GM_BLOCK_BYTES;

		/* nobody reads the event of unmapping it any more */
		for (unsigned s = 0; gm_host_has_inthread(p) && s < p->piece[i].slots; s++)
			if (is_set(p->piece[i].inthread, s))
				(void)gm_host_slot_register(p, p->piece[i].va + (uint64_t)s * GM_BLOCK_BYTES, false);
		if (!p->plain_arena)
			(void)unregister(p, p->piece[i].va, bytes);
		munmap((void *)(uintptr_t)p->piece[i].va, bytes);
	}
	munmap((void *)(uintptr_t)p->bounce, (uint64_t)GM_HOST_BOUNCES * 2 * GM_BLOCK_BYTES);
	gm_mutex_fini(p->env, &p->lock);
}

/* What an incomplete restore() left, be it only a page table, keeps the block from becoming one huge page. */
static void empty_unless_whole(struct gm_host_pmap *p, uint64_t va)
{
	struct gm_mask some, zero;
	bool huge;

	if (gm_host_content(p, va, &some, &zero, &huge) == GM_RET_SUCCESS && gm_mask_full(&some))
		return;
	(void)drop_frames(va, GM_BLOCK_BYTES);
}

void *gm_host_bounce(void *pmap, unsigned index, uint64_t bytes)
{
	struct gm_host_pmap *p = pmap;
	bool huge = bytes == GM_BLOCK_BYTES;
	void *at = (void *)(uintptr_t)(p->bounce + (2 * (uint64_t)index + huge) * GM_BLOCK_BYTES);

	if (index >= GM_HOST_BOUNCES || bytes == 0 || bytes > GM_BLOCK_BYTES)
		return NULL;
	if (huge)
		empty_unless_whole(p, GM_VA(at));
	return madvise(at, bytes, MADV_POPULATE_WRITE) == 0 ? at : NULL;
}
