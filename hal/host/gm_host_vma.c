/* SPDX-License-Identifier: MIT */
/*
 * What the process has mapped: making address space, asking /proc.
 *
 * A mapping is looked up with PROCMAP_QUERY (Linux 6.11), else by reading
 * /proc/self/maps; whether it is locked only smaps tells, which is slow and
 * therefore read only in a process that has locked anything.
 *
 *     question --file of /proc open, or opened again (gm_host_fd.c)--> yes or no
 *              --not to be had, as the program closed it and has no descriptor free--> cannot tell: NOMEM
 *
 * So nothing here takes a failure for "nothing there": what is away would be dropped for it.
 *
 * Before Linux 6.7 the pagemap has no PAGEMAP_SCAN, and its entries are read one by one
 * (by_entries, on the lower rungs): 15 ms per GiB.
 *
 * PAGEMAP_SCAN takes the markers of poisoned and guarded pages for swapped out
 * ones: they count as content here, and steal() then refuses them.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define QUERY_COVERING_OR_NEXT UINT64_C(0x10)
#define VMA_READABLE UINT64_C(1)
#define VMA_WRITABLE UINT64_C(2)
#define VMA_SHARED UINT64_C(8)

struct procmap_query {
	uint64_t size, query_flags, query_addr;
	uint64_t vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode;
	uint32_t dev_major, dev_minor, vma_name_size, build_id_size;
	uint64_t vma_name_addr, build_id_addr;
};

#define PROCMAP_QUERY_ _IOWR('f', 17, struct procmap_query)

_Static_assert(sizeof(struct procmap_query) == 104, "the kernel's procmap_query");

/* Lines of a text file without the C library's buffers, which are malloc()ed. */
struct lines {
	struct gm_host_dev *d;
	const struct gm_host_fd *f;
	int fd;
	int err; /* of read(); 0: all is well */
	size_t at, have;
	char buf[4096];
};

/*
 * From its beginning, and nobody else reads until lines_close(): the kernel goes on where the last read() ended in
 * terms of mappings, not of bytes, so that none is missed when others change meanwhile.
 */
static gm_ret_t lines_open(struct lines *l, struct gm_host_dev *d, struct gm_host_fd *f)
{
	*l = (struct lines){ .d = d, .f = f, .at = 0 };
	gm_lock(d->env, &d->text);
	l->fd = gm_host_fd_get(f);
	if (l->fd >= 0 && !lseek(l->fd, 0, SEEK_SET))
		return GM_RET_SUCCESS;
	l->err = l->fd < 0 ? -l->fd : errno;
	gm_unlock(d->env, &d->text);
	return gm_host_cannot_tell(f->path, l->err);
}

/* SUCCESS, or NOMEM: not all of it could be read. */
static gm_ret_t lines_close(struct lines *l)
{
	gm_unlock(l->d->env, &l->d->text);
	return l->err ? gm_host_cannot_tell(l->f->path, l->err) : GM_RET_SUCCESS;
}

/* The next line, cut to `bytes`, without its end. False after the last. */
static bool lines_next(struct lines *l, char *line, size_t bytes)
{
	size_t n = 0;
	bool any = false;

	for (;;) {
		ssize_t got;

		if (l->at == l->have) {
			do
				got = read(l->fd, l->buf, sizeof(l->buf));
			while (got < 0 && errno == EINTR);
			l->err = got < 0 ? errno : 0;
			l->at = 0;
			l->have = got > 0 ? (size_t)got : 0;
			if (!l->have)
				break;
		}
		any = true;
		if (l->buf[l->at++] == '\n')
			break;
		if (n + 1 < bytes)
			line[n++] = l->buf[l->at - 1];
	}
	line[n] = '\0';
	return any;
}

/* The first line of a mapping, as in maps and smaps. */
static bool parse_area(const char *line, struct gm_host_area *a)
{
	uint64_t begin, end, inode;
	unsigned major_nr, minor_nr;
	char perms[5];
	int name = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*x %x:%x %" SCNu64 " %n", &begin, &end, perms, &major_nr,
		   &minor_nr, &inode, &name) < 6)
		return false;
	*a = (struct gm_host_area){
		.begin = begin,
		.end = end,
		.inode = inode,
		.readable = perms[0] == 'r',
		.writable = perms[1] == 'w',
		.shared = perms[3] == 's',
		.file = inode || major_nr || minor_nr,
	};
	snprintf(a->name, sizeof(a->name), "%.*s", (int)sizeof(a->name) - 1, name ? line + name : "");
	return true;
}

gm_ret_t gm_host_area_maps(struct gm_host_dev *d, uint64_t va, struct gm_host_area *area)
{
	struct gm_host_area a;
	struct lines l;
	char line[256];
	bool found = false;
	gm_ret_t ret = lines_open(&l, d, &d->maps);

	if (ret)
		return ret;
	while (!found && lines_next(&l, line, sizeof(line))) {
		if (!parse_area(line, &a) || a.end <= va)
			continue;
		*area = a;
		found = true;
	}
	ret = lines_close(&l);
	return ret || found ? ret : GM_RET_FAULT;
}

/* 0, or an errno: ENOENT where nothing is mapped at or above va; others where the kernel is not asked so. */
static int query(int fd, uint64_t va, bool named, struct gm_host_area *area)
{
	char name[sizeof(area->name)] = "";
	struct procmap_query q = {
		.size = sizeof(q),
		.query_flags = QUERY_COVERING_OR_NEXT,
		.query_addr = va,
		.vma_name_size = named ? sizeof(name) : 0,
		.vma_name_addr = named ? GM_VA(name) : 0,
	};

	while (ioctl(fd, PROCMAP_QUERY_, &q)) {
		if (errno != ENAMETOOLONG || !q.vma_name_size)
			return errno ? errno : EIO;
		q.vma_name_size = 0; /* the path of a file: not needed */
		q.vma_name_addr = 0;
	}
	*area = (struct gm_host_area){
		.begin = q.vma_start,
		.end = q.vma_end,
		.inode = q.inode,
		.readable = q.vma_flags & VMA_READABLE,
		.writable = q.vma_flags & VMA_WRITABLE,
		.shared = q.vma_flags & VMA_SHARED,
		.file = q.inode || q.dev_major || q.dev_minor,
	};
	memcpy(area->name, name, sizeof(name));
	return 0;
}

gm_ret_t gm_host_area(struct gm_host_dev *d, uint64_t va, struct gm_host_area *area)
{
	int fd = gm_host_fd_get(&d->maps), err;

	if (fd < 0)
		return gm_host_cannot_tell(d->maps.path, -fd);
	err = query(fd, va, true, area);
	if (err == ENOENT)
		return GM_RET_FAULT;
	return err ? gm_host_area_maps(d, va, area) : GM_RET_SUCCESS; /* a kernel before 6.11, or it was closed just now */
}

gm_ret_t gm_host_area_quick(struct gm_host_dev *d, uint64_t va, struct gm_host_area *area)
{
	int fd = gm_host_fd_last(&d->maps), err = fd < 0 ? EBADF : query(fd, va, false, area);

	if (err == ENOENT)
		return GM_RET_FAULT;
	return err ? gm_host_area(d, va, area) : GM_RET_SUCCESS;
}

/* Has the process locked any memory? Then smaps is worth its price. */
static gm_ret_t any_locked(struct gm_host_dev *d, bool *locked)
{
	struct lines l;
	char line[128];
	gm_ret_t ret = lines_open(&l, d, &d->status);

	*locked = false;
	if (ret)
		return ret;
	while (lines_next(&l, line, sizeof(line)))
		if (strncmp(line, "VmLck:", 6) == 0)
			*locked = strtoull(line + 6, NULL, 10) != 0;
	return lines_close(&l);
}

/* "lo" among the VmFlags of the mapping that contains va. */
gm_ret_t gm_host_is_locked(struct gm_host_dev *d, uint64_t va, bool *locked)
{
	struct gm_host_area a;
	struct lines l;
	char line[512];
	bool inside = false;
	gm_ret_t ret = any_locked(d, locked);

	if (ret || !*locked)
		return ret;
	*locked = false;
	ret = lines_open(&l, d, &d->smaps);
	if (ret)
		return ret;
	while (lines_next(&l, line, sizeof(line))) {
		if (parse_area(line, &a)) {
			inside = a.begin <= va && va < a.end;
		} else if (inside && strncmp(line, "VmFlags:", 8) == 0) {
			*locked = strstr(line, " lo") != NULL;
			break;
		}
	}
	return lines_close(&l);
}

/* Ordinary memory, not one of the kernel's own mappings ([vdso], [vvar]...). */
bool gm_host_is_anon(const struct gm_host_area *a)
{
	if (a->file || a->shared)
		return false;
	return a->name[0] == '\0' || strcmp(a->name, "[heap]") == 0 || strcmp(a->name, "[stack]") == 0 ||
	       strncmp(a->name, "[anon:", 6) == 0;
}

void gm_host_mem_inherit(void *pmap, uint64_t va, uint64_t bytes, bool inherit)
{
	struct gm_host_pmap *p = pmap;

	if (madvise((void *)(uintptr_t)va, bytes, inherit ? MADV_DOFORK : MADV_DONTFORK) && !inherit)
		gm_log(p->env, GM_LOG_ERROR, "fork: a child will see zeros at 0x%llx: error %d", (unsigned long long)va, errno);
}

/* Is all of it mapped? The kernel changes what it finds before a hole, and only then says so. */
gm_ret_t gm_host_is_mapped(struct gm_host_dev *d, uint64_t va, uint64_t end)
{
	struct gm_host_area a = { .begin = 0 };

	for (uint64_t at = va; at < end; at = a.end) {
		gm_ret_t ret = gm_host_area(d, at, &a);

		if (ret == GM_RET_FAULT || (!ret && a.begin > at))
			return gm_fail(GM_RET_FAULT, "not all of 0x%" PRIx64 " + 0x%" PRIx64 " is mapped", va, end - va);
		if (ret)
			return ret;
	}
	return GM_RET_SUCCESS;
}

gm_ret_t gm_host_set_rights(uint64_t va, uint64_t bytes, uint32_t access)
{
	int prot = (access & GM_READ ? PROT_READ : 0) | (access & GM_WRITE ? PROT_READ | PROT_WRITE : 0);
	int err;

	if (!mprotect((void *)(uintptr_t)va, bytes, prot))
		return GM_RET_SUCCESS;
	err = errno;
	return gm_fail(err == ENOMEM ? GM_RET_NOMEM : GM_RET_PERM, "mprotect() of 0x%" PRIx64 " + 0x%" PRIx64 ": error %d", va,
		       bytes, err);
}

gm_ret_t gm_host_mem_protect(void *pmap, uint64_t va, uint64_t bytes, uint32_t access)
{
	struct gm_host_pmap *p = pmap;
	gm_ret_t ret = gm_host_is_mapped(p->dev, va, va + bytes);

	return ret ? ret : gm_host_set_rights(va, bytes, access);
}

gm_ret_t gm_host_mem_rights(void *pmap, uint64_t va, struct gm_host_vma *vma)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_area a = { .begin = 0 };
	gm_ret_t ret;

	ret = gm_host_area(p->dev, va, &a);
	if (ret)
		return ret;
	if (a.begin > va)
		return GM_RET_FAULT;
	*vma = (struct gm_host_vma){
		.va = a.begin,
		.bytes = a.end - a.begin,
		.access = (a.readable ? GM_READ : 0) | (a.writable ? GM_WRITE : 0),
		.private_anon = gm_host_is_anon(&a),
	};
	return GM_RET_SUCCESS;
}

gm_ret_t gm_host_mem_probe(void *pmap, uint64_t va, struct gm_host_vma *vma)
{
	struct gm_host_pmap *p = pmap;
	gm_ret_t ret = gm_host_mem_rights(pmap, va, vma);

	return ret ? ret : gm_host_is_locked(p->dev, va, &vma->locked);
}

/* Without rights: where the program has asked for all its future memory to be locked, the kernel fills a mapping at
 * once, but not this one. */
uint64_t gm_host_reserve_closed(uint64_t bytes)
{
	uint64_t align = bytes >= GM_BLOCK_BYTES ? GM_BLOCK_BYTES : bytes >= GM_UNIT_BYTES ? GM_UNIT_BYTES : GM_PAGE_BYTES;
	uint64_t room = (bytes + GM_PAGE_BYTES - 1) / GM_PAGE_BYTES * GM_PAGE_BYTES;
	uint64_t extra = align - GM_PAGE_BYTES;
	uint64_t base, va;
	char *raw;

	if (room < bytes || room == 0 || room + extra < room)
		return 0;
	raw = mmap(NULL, room + extra, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (raw == MAP_FAILED)
		return 0;
	base = GM_VA(raw);
	va = (base + align - 1) / align * align;
	if (va > base)
		munmap(raw, va - base);
	if (base + extra > va)
		munmap((void *)(uintptr_t)(va + room), base + extra - va);
	raw = (char *)(uintptr_t)va;
	(void)munlock(raw, room);
	if (madvise(raw, room, MADV_DONTFORK)) {
		munmap(raw, room);
		return 0;
	}
	return va;
}

uint64_t gm_host_reserve(uint64_t bytes)
{
	uint64_t va = gm_host_reserve_closed(bytes);

	if (va && mprotect((void *)(uintptr_t)va, bytes, PROT_READ | PROT_WRITE)) {
		munmap((void *)(uintptr_t)va, bytes);
		return 0;
	}
	return va;
}

gm_ret_t gm_host_mem_map(void *pmap, uint64_t bytes, bool huge, uint64_t *va)
{
	uint64_t at = gm_host_reserve(bytes);

	(void)pmap;
	if (!at)
		return gm_fail(GM_RET_NOMEM, "no address space for %" PRIu64 " bytes", bytes);
	/* refused only by kernels without huge pages */
	if (huge)
		(void)madvise((void *)(uintptr_t)at, bytes, MADV_HUGEPAGE);
	*va = at;
	return GM_RET_SUCCESS;
}

void gm_host_mem_unmap(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_host_pmap *p = pmap;

	(void)gm_host_mem_inthread(pmap, va, bytes, false); /* what is mapped there next is another's */
	/* with the mappings of the process at their limit the kernel cannot cut one */
	if (munmap((void *)(uintptr_t)va, bytes))
		gm_log(p->env, GM_LOG_ERROR, "0x%" PRIx64 " cannot be unmapped: error %d", va, errno);
}

/* Bit 63: present, 62: swapped out or a marker. Nothing tells the zero page and huge pages from others. */
static int read_entries(int fd, uint64_t begin, uint64_t end, struct gm_page_region *vec, size_t n,
			uint64_t *walked)
{
	uint64_t entry[64], at = begin;
	size_t found = 0;

	while (at < end) {
		uint64_t pages = (end - at) / GM_PAGE_BYTES < 64 ? (end - at) / GM_PAGE_BYTES : 64;
		ssize_t got = pread(fd, entry, pages * sizeof(entry[0]), (off_t)(at / GM_PAGE_BYTES * sizeof(entry[0])));

		if (got < 0)
			return -errno;
		if (got < (ssize_t)sizeof(entry[0])) /* the end of what a process can have */
			break;
		for (size_t i = 0; i < (size_t)got / sizeof(entry[0]); i++, at += GM_PAGE_BYTES) {
			if (!(entry[i] >> 62))
				continue;
			if (found && vec[found - 1].end == at) {
				vec[found - 1].end += GM_PAGE_BYTES;
				continue;
			}
			if (found == n) {
				*walked = at;
				return (int)found;
			}
			vec[found++] = (struct gm_page_region){ at, at + GM_PAGE_BYTES, GM_PAGE_IS_PRESENT };
		}
	}
	*walked = end;
	return (int)found;
}

static int scan_once(struct gm_host_pmap *p, struct gm_host_fd *f, uint64_t begin, uint64_t end, uint64_t anyof,
		     struct gm_page_region *vec, size_t n, uint64_t *walked)
{
	int fd = p->by_entries ? gm_host_fd_get(f) : gm_host_fd_last(f), found, again;
	unsigned tries = 0;

	if (p->by_entries && !(anyof & GM_PAGE_HAS_CONTENT))
		return -EINVAL;
	if (p->by_entries) /* by pread(), which reads any file: looked at */
		return fd < 0 ? fd : read_entries(fd, begin, end, vec, n, walked);
	do {
		found = gm_pagemap_scan(fd, begin, end, anyof, vec, n, walked);
		/* ENOTTY may be that of another's file, whose number is ours by now */
		again = found < 0 ? gm_host_fd_again(f, &fd, found == -ENOTTY && tries++ < 8 ? EBADF : -found) : 0;
	} while (again > 0);
	return again < 0 ? again : found;
}

/*
 * As gm_pagemap_scan(). -EINVAL: the kernel does not know such pages. Other errors: it cannot be told now. The kernel
 * refuses a range that ends beyond what a process can have, as the last 2 MiB do, with a stack in them: then a part of it.
 */
static int scan_by(struct gm_host_pmap *p, struct gm_host_fd *f, uint64_t begin, uint64_t end, uint64_t anyof,
		   struct gm_page_region *vec, size_t n, uint64_t *walked)
{
	int found = scan_once(p, f, begin, end, anyof, vec, n, walked);

	while (found == -EFAULT && end - begin > GM_PAGE_BYTES) {
		end = begin + (end - begin) / GM_PAGE_BYTES / 2 * GM_PAGE_BYTES;
		found = scan_once(p, f, begin, end, anyof, vec, n, walked);
	}
	if (found != -EFAULT)
		return found;
	*walked = end;
	return 0;
}

static int scan(struct gm_host_pmap *p, uint64_t begin, uint64_t end, uint64_t anyof, struct gm_page_region *vec,
		size_t n, uint64_t *walked)
{
	return scan_by(p, &p->pagemap, begin, end, anyof, vec, n, walked);
}

gm_ret_t gm_host_content_by(struct gm_host_pmap *p, struct gm_host_fd *f, uint64_t va, struct gm_mask *some,
			    struct gm_mask *zero, bool *huge)
{
	struct gm_page_region vec[64] = { { 0 } };
	uint64_t at = va;

	*some = *zero = gm_mask_none();
	*huge = false;
	while (at < va + GM_BLOCK_BYTES) {
		int n = scan_by(p, f, at, va + GM_BLOCK_BYTES, GM_PAGE_HAS_CONTENT, vec, sizeof(vec) / sizeof(vec[0]), &at);

		if (n < 0)
			return gm_host_cannot_tell(f->path, -n);
		for (int i = 0; i < n; i++) {
			struct gm_mask run = gm_mask_span((unsigned)((vec[i].begin - va) / GM_PAGE_BYTES),
							  (unsigned)((vec[i].end - va) / GM_PAGE_BYTES));

			*some = gm_mask_or(*some, run);
			if (vec[i].categories & GM_PAGE_IS_PFNZERO)
				*zero = gm_mask_or(*zero, run);
			*huge = gm_mask_full(&run) && (vec[i].categories & GM_PAGE_IS_HUGE);
		}
	}
	return GM_RET_SUCCESS;
}

gm_ret_t gm_host_content(struct gm_host_pmap *p, uint64_t va, struct gm_mask *some, struct gm_mask *zero, bool *huge)
{
	return gm_host_content_by(p, &p->pagemap, va, some, zero, huge);
}

int gm_host_has_content(struct gm_host_pmap *p, uint64_t va)
{
	struct gm_page_region r;
	uint64_t walked;
	int n = scan(p, va, va + GM_PAGE_BYTES, GM_PAGE_HAS_CONTENT, &r, 1, &walked);

	return n < 0 ? -ENOMEM : n;
}

int gm_host_is_present(struct gm_host_pmap *p, uint64_t va)
{
	struct gm_page_region r;
	uint64_t walked;
	int n = scan(p, va, va + GM_PAGE_BYTES, GM_PAGE_IS_PRESENT, &r, 1, &walked);

	return n < 0 ? -ENOMEM : n;
}

gm_ret_t gm_host_guards(struct gm_host_pmap *p, uint64_t va, struct gm_mask *guards)
{
	struct gm_page_region vec[64] = { { 0 } };
	uint64_t at = va;

	*guards = gm_mask_none();
	while (at < va + GM_BLOCK_BYTES) {
		int n = scan(p, at, va + GM_BLOCK_BYTES, GM_PAGE_IS_GUARD, vec, sizeof(vec) / sizeof(vec[0]), &at);

		if (n == -EINVAL)
			break;
		if (n < 0)
			return gm_host_cannot_tell(p->pagemap.path, -n);
		for (int i = 0; i < n; i++)
			gm_mask_add_span(guards, (unsigned)((vec[i].begin - va) / GM_PAGE_BYTES),
					 (unsigned)((vec[i].end - va) / GM_PAGE_BYTES));
	}
	return GM_RET_SUCCESS;
}

int gm_host_is_guard(struct gm_host_pmap *p, uint64_t va)
{
	struct gm_page_region r;
	uint64_t walked;
	int n = scan(p, va, va + GM_PAGE_BYTES, GM_PAGE_IS_GUARD, &r, 1, &walked);

	return n == -EINVAL ? 0 : n < 0 ? -ENOMEM : n;
}

bool gm_host_mem_huge(void *pmap, uint64_t va)
{
	struct gm_mask some, zero;
	bool huge;

	return gm_host_content(pmap, va, &some, &zero, &huge) == GM_RET_SUCCESS && huge;
}

gm_ret_t gm_host_mem_content(void *pmap, uint64_t va, struct gm_host_content *out)
{
	return gm_host_content(pmap, va, &out->some, &out->zero, &out->huge);
}

gm_ret_t gm_host_mem_present(void *pmap, uint64_t va, struct gm_mask *present)
{
	struct gm_host_pmap *p = pmap;
	struct gm_mask some, zero;
	struct gm_host_area area = { .begin = 0 };
	bool huge;
	gm_ret_t ret = gm_host_content(p, va, &some, &zero, &huge);

	/* nothing present: nothing touched, or nothing mapped? */
	if (!ret && gm_mask_empty(&some))
		ret = gm_host_area(p->dev, va, &area);
	if (ret)
		return ret;
	if (area.begin >= va + GM_BLOCK_BYTES)
		return GM_RET_FAULT;
	*present = some;
	return GM_RET_SUCCESS;
}
