/* SPDX-License-Identifier: MIT */
/*
 * Whose memory is it? A space that mirrors the process takes what a device touches without being asked. It must not
 * take what the library or a backend needs to give it back: an access of the fault handler to its own stack would
 * wait for itself, and so would a backend's to its queue while a lock of its own is held. So what is taken is what
 * is certainly the application's, and whatever there is a doubt about is left where it is:
 *
 *     file, shared, hugetlb, special           by what the kernel says
 *     the heap, what has a name                by its name
 *     .data and .bss                           what begins where a writable private mapping of a file ends
 *     a stack, with the thread's own storage   a guard page (PROT_NONE, or a marker) below it; or a thread's robust
 *                                              list in it, which the C library keeps beside that storage
 *     an arena of malloc()                     the head that glibc has at each multiple of 64 MiB
 *     the library's memory, and staging        its own books
 *     memory of a backend                      from its services, or with a guard page below: hal.h asks for it
 *     locked                                   smaps says so
 *
 * A guard page directly below: nothing but stacks, and what somebody grows or protects, has one; and the kernel makes
 * one mapping of a stack and a buffer above it only where they are alike, and then both stay. What the library
 * watches a part of is several mappings for the kernel, of which those above have a part below them that was found to be the
 * application's before.
 *
 * A program may have another malloc(), whose arenas look like any memory. So one piece is allocated when the pmap is
 * made, in a thread that may do that, and if it is not recognised as what it is, nothing is ever ANON here. (Neither
 * with an allocator of the caller's for the library: it can be anywhere.)
 *
 * Not recognised (as.h says so): stacks that a program makes of plain memory of 2 MiB and more, with no guard page below,
 * for threads of a library that keeps no robust lists; those of coroutines; alternate signal stacks.
 *
 * A question for which a file of /proc cannot be had is not answered by a guess: all of it says NOMEM then.
 *
 * Nothing in here calls malloc(), but gm_host_knows_malloc().
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARENA_BYTES (UINT64_C(64) << 20)

/* In the .bss of whatever the library is linked into. */
static char here;

/* What the kernel says of one mapping. */
static enum gm_host_kind by_area(const struct gm_host_area *a)
{
	if (a->file || a->shared)
		return GM_HOST_SHARED;
	if (strcmp(a->name, "[heap]") == 0)
		return GM_HOST_HEAP;
	if (strcmp(a->name, "[stack]") == 0)
		return GM_HOST_STACK;
	if (strncmp(a->name, "[anon:", 6) == 0)
		return GM_HOST_NAMED;
	if (a->name[0])
		return GM_HOST_SPECIAL;
	return a->readable && a->writable ? GM_HOST_ANON : GM_HOST_RIGHTS;
}

/* Staging of any space. */
static bool is_staging(struct gm_host_dev *d, uint64_t va)
{
	struct gm_host_pmap *p;
	bool is = false;

	gm_lock(d->env, &d->lock);
	LIST_FOREACH(p, &d->pmaps, in_dev)
		is |= gm_host_slots_have(p, va);
	gm_unlock(d->env, &d->lock);
	return is;
}

/* Whose it is by what adjoins below. SUCCESS, NOMEM. */
static gm_ret_t by_below(struct gm_host_pmap *p, uint64_t begin, enum gm_host_kind *kind)
{
	struct gm_host_area a;
	gm_ret_t ret = begin ? gm_host_area(p->dev, begin - 1, &a) : GM_RET_FAULT;

	*kind = GM_HOST_ANON;
	if (ret)
		return ret == GM_RET_FAULT ? GM_RET_SUCCESS : ret;
	if (a.begin >= begin) /* nothing */
		return GM_RET_SUCCESS;
	if (is_staging(p->dev, begin - 1)) /* of which the most is inaccessible still */
		return GM_RET_SUCCESS;
	if (a.file && !a.shared && a.writable)
		*kind = GM_HOST_DATA;
	else if (!a.file && !a.readable && !a.writable)
		*kind = GM_HOST_STACK;
	return GM_RET_SUCCESS;
}

struct dirent64_head {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

/* Is the robust list of this thread in there? */
static bool has_list(pid_t tid, uint64_t begin, uint64_t end)
{
	size_t len;
	void *head = NULL;

	return tid > 0 && syscall(SYS_get_robust_list, tid, &head, &len) == 0 && GM_VA(head) >= begin &&
	       GM_VA(head) < end;
}

/* Is any thread's? SUCCESS, NOMEM. */
static gm_ret_t has_thread(struct gm_host_dev *d, uint64_t begin, uint64_t end, bool *found)
{
	_Alignas(struct dirent64_head) char buf[2048];
	int fd, err = 0;
	long n = 0;

	*found = false;
	gm_lock(d->env, &d->text);
	fd = gm_host_fd_get(&d->task);
	if (fd < 0 || lseek(fd, 0, SEEK_SET))
		err = fd < 0 ? -fd : errno;
	while (!err && !*found && (n = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0)
		for (long at = 0; at < n && !*found;) {
			const struct dirent64_head *e = (const void *)(buf + at);

			*found = has_list((pid_t)strtol(e->name, NULL, 10), begin, end);
			at += e->reclen;
		}
	if (n < 0)
		err = errno;
	gm_unlock(d->env, &d->text);
	return err ? gm_host_cannot_tell(d->task.path, err) : GM_RET_SUCCESS;
}

/* What glibc has at the beginning of each part of an arena that is not the main one. */
struct arena_head {
	uint64_t arena, prev, bytes, usable_bytes;
};

static bool is_head(const struct arena_head *h)
{
	return h->arena && h->arena % 8 == 0 && h->prev % ARENA_BYTES == 0 && h->bytes &&
	       h->bytes % GM_PAGE_BYTES == 0 && h->bytes <= h->usable_bytes && h->usable_bytes % GM_PAGE_BYTES == 0 && h->usable_bytes <= ARENA_BYTES;
}

/* A page that is away is none: what is in an arena never is. SUCCESS, NOMEM. */
static gm_ret_t is_arena(struct gm_host_dev *d, uint64_t va, uint64_t begin, bool *is)
{
	uint64_t at = va & ~(ARENA_BYTES - 1);
	struct arena_head head = { .arena = 0 };
	int fd;

	*is = false;
	if (at < begin)
		return GM_RET_SUCCESS;
	fd = gm_host_fd_get(&d->mem);
	if (fd < 0)
		return gm_host_cannot_tell(d->mem.path, -fd);
	if (pread(fd, &head, sizeof(head), (off_t)at) == (ssize_t)sizeof(head))
		*is = is_head(&head);
	return GM_RET_SUCCESS;
}

bool gm_host_knows_malloc(struct gm_host_dev *d)
{
	struct gm_host_area a;
	char *volatile piece = malloc(64); /* volatile: a compiler may leave it out */
	uint64_t va = GM_VA(piece);
	bool known = piece && gm_host_area(d, va, &a) == GM_RET_SUCCESS && a.begin <= va;

	if (known && by_area(&a) != GM_HOST_HEAP && is_arena(d, va, a.begin, &known))
		known = false;
	free(piece);
	return known;
}

static bool in_area(const struct gm_host_area *a, uint64_t va)
{
	return va >= a->begin && va < a->end;
}

/* What the kernel calls neither the heap nor a stack: is it malloc()'s, or a thread's? SUCCESS, NOMEM. */
static gm_ret_t by_content(struct gm_host_pmap *p, uint64_t va, const struct gm_host_area *a, enum gm_host_kind *kind)
{
	bool is = !p->knows_malloc;
	gm_ret_t ret = is ? GM_RET_SUCCESS : is_arena(p->dev, va, a->begin, &is);
	int guard = 0;

	if (ret || is) {
		*kind = GM_HOST_ARENA;
		return ret;
	}
	guard = gm_host_is_guard(p, a->begin);
	if (guard < 0)
		return gm_host_cannot_tell(p->pagemap.path, -guard);
	is = guard;
	if (!is)
		ret = has_thread(p->dev, a->begin, a->end, &is);
	if (!ret && is)
		*kind = GM_HOST_STACK;
	return ret;
}

/* Of memory that is the application's by what the kernel says. SUCCESS, NOMEM: it cannot be told now. */
static gm_ret_t judge(struct gm_host_pmap *p, uint64_t va, const struct gm_host_area *a, enum gm_host_kind *kind)
{
	gm_ret_t ret = by_below(p, a->begin, kind);
	bool locked = false;

	if (!ret && *kind == GM_HOST_ANON && in_area(a, GM_VA(&here)))
		*kind = GM_HOST_DATA;
	if (!ret && *kind == GM_HOST_ANON)
		ret = by_content(p, va, a, kind);
	if (!ret && *kind == GM_HOST_ANON)
		ret = gm_host_is_locked(p->dev, va, &locked);
	if (locked)
		*kind = GM_HOST_LOCKED;
	else if (*kind == GM_HOST_ANON && a->end - a->begin < GM_BLOCK_BYTES)
		*kind = GM_HOST_SMALL;
	return ret;
}

gm_ret_t gm_host_mem_kind(void *pmap, uint64_t va, struct gm_host_vma *vma)
{
	uint64_t block = va & ~(uint64_t)(GM_BLOCK_BYTES - 1), begin, end;
	struct gm_host_pmap *p = pmap;
	struct gm_host_area a;
	gm_ret_t ret = gm_host_area(p->dev, va, &a);

	if (ret)
		return ret;
	if (a.begin > va)
		return GM_RET_FAULT;
	begin = a.begin > block ? a.begin : block;
	end = a.end < block + GM_BLOCK_BYTES ? a.end : block + GM_BLOCK_BYTES;
	*vma = (struct gm_host_vma){
		.access = (a.readable ? GM_READ : 0) | (a.writable ? GM_WRITE : 0),
		.kind = by_area(&a),
	};
	vma->private_anon = vma->kind <= GM_HOST_STACK || vma->kind == GM_HOST_NAMED || vma->kind == GM_HOST_RIGHTS;
	if (vma->kind == GM_HOST_RIGHTS && is_staging(p->dev, va)) /* not in use yet */
		vma->kind = GM_HOST_LIBRARY;
	if (vma->kind == GM_HOST_ANON && (is_staging(p->dev, va) || p->env->ops->is_own(p->env, va, &begin, &end)))
		vma->kind = GM_HOST_LIBRARY;
	else if (vma->kind == GM_HOST_ANON)
		ret = judge(p, va, &a, &vma->kind);
	vma->locked = vma->kind == GM_HOST_LOCKED;
	vma->va = vma->kind == GM_HOST_LIBRARY ? va & ~(uint64_t)(GM_PAGE_BYTES - 1) : begin;
	vma->bytes = vma->kind == GM_HOST_LIBRARY ? GM_PAGE_BYTES : end - begin;
	return ret;
}
