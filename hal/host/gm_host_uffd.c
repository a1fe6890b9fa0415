/* SPDX-License-Identifier: MIT */
/* Raw ioctls: see gm_host_uffd.h. No state, no policy, no retries. */
#include "config.h"

#include "hal/host/gm_host_uffd.h"

#include <errno.h>
#include <sys/ioctl.h>

#define MODE_MISSING UINT64_C(1)
#define MODE_STORES UINT64_C(2) /* of register */
#define MODE_MINOR UINT64_C(4)
#define MODE_DONTWAKE UINT64_C(1) /* of copy, zeropage, move and poison alike */
#define MODE_ALLOW_SRC_HOLES UINT64_C(2)
#define MODE_COPY_PROTECTED UINT64_C(2)
#define MODE_PROTECT UINT64_C(1)

struct uffd_api {
	uint64_t api, features, ioctls;
};

struct uffd_range {
	uint64_t start, len;
};

struct uffd_register {
	struct uffd_range range;
	uint64_t mode, ioctls;
};

/* Copy and move: the result comes last, written by the kernel and not read by it. */
struct uffd_transfer {
	uint64_t dst, src, len, mode;
	int64_t result;
};

/* Zeropage and poison. */
struct uffd_make {
	struct uffd_range range;
	uint64_t mode;
	int64_t result;
};

struct uffd_protect {
	struct uffd_range range;
	uint64_t mode;
};

struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t inverted, mask, anyof, returned;
};

#define UFFD_API _IOWR(GM_UFFD_API, 0x3F, struct uffd_api)
#define UFFD_REGISTER _IOWR(GM_UFFD_API, 0x00, struct uffd_register)
#define UFFD_UNREGISTER _IOR(GM_UFFD_API, 0x01, struct uffd_range)
#define UFFD_WAKE _IOR(GM_UFFD_API, 0x02, struct uffd_range)
#define UFFD_COPY _IOWR(GM_UFFD_API, 0x03, struct uffd_transfer)
#define UFFD_ZEROPAGE _IOWR(GM_UFFD_API, 0x04, struct uffd_make)
#define UFFD_MOVE _IOWR(GM_UFFD_API, GM_UFFD_NR_MOVE, struct uffd_transfer)
#define UFFD_PROTECT _IOWR(GM_UFFD_API, GM_UFFD_NR_PROTECT, struct uffd_protect)
#define UFFD_CONTINUE _IOWR(GM_UFFD_API, 0x07, struct uffd_make)
#define UFFD_POISON _IOWR(GM_UFFD_API, 0x08, struct uffd_make)
#define PAGEMAP_SCAN_ _IOWR('f', 16, struct scan_arg)

_Static_assert(sizeof(struct gm_uffd_msg) == 32, "the kernel's message");
_Static_assert(sizeof(struct uffd_transfer) == 40, "the kernel's uffdio_move");
_Static_assert(sizeof(struct uffd_make) == 32, "the kernel's uffdio_poison");
_Static_assert(sizeof(struct uffd_protect) == 24, "the kernel's uffdio_writeprotect");
_Static_assert(sizeof(struct scan_arg) == 96, "the kernel's pm_scan_arg");
_Static_assert(sizeof(struct gm_page_region) == 24, "the kernel's page_region");

static int simple(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg) == 0 ? 0 : -errno;
}

int gm_uffd_api(int fd, uint64_t want, uint64_t *features)
{
	struct uffd_api a = { .api = GM_UFFD_API, .features = want };
	int rc = simple(fd, UFFD_API, &a);

	if (rc == 0)
		*features = a.features;
	return rc;
}

static int do_register(int fd, uint64_t va, uint64_t bytes, uint64_t mode, uint64_t *ioctls)
{
	struct uffd_register r = { .range = { va, bytes }, .mode = mode };
	int rc = simple(fd, UFFD_REGISTER, &r);

	if (rc == 0)
		*ioctls = r.ioctls;
	return rc;
}

int gm_uffd_register(int fd, uint64_t va, uint64_t bytes, uint64_t *ioctls)
{
	return do_register(fd, va, bytes, MODE_MISSING, ioctls);
}

int gm_uffd_register_stores(int fd, uint64_t va, uint64_t bytes, uint64_t *ioctls)
{
	return do_register(fd, va, bytes, MODE_MISSING | MODE_STORES, ioctls);
}

int gm_uffd_protect(int fd, uint64_t va, uint64_t bytes, bool on)
{
	struct uffd_protect p = { .range = { va, bytes }, .mode = on ? MODE_PROTECT : 0 };

	return simple(fd, UFFD_PROTECT, &p);
}

int gm_uffd_register_minor(int fd, uint64_t va, uint64_t bytes)
{
	struct uffd_register r = { .range = { va, bytes }, .mode = MODE_MISSING | MODE_MINOR };

	return simple(fd, UFFD_REGISTER, &r);
}

int gm_uffd_unregister(int fd, uint64_t va, uint64_t bytes)
{
	struct uffd_range r = { va, bytes };

	return simple(fd, UFFD_UNREGISTER, &r);
}

int gm_uffd_wake(int fd, uint64_t va, uint64_t bytes)
{
	struct uffd_range r = { va, bytes };

	return simple(fd, UFFD_WAKE, &r);
}

int gm_uffd_changing(int fd)
{
	struct uffd_make nothing = { .mode = MODE_DONTWAKE };
	int rc = simple(fd, UFFD_ZEROPAGE, &nothing);

	/* the kernel looks for changes before it finds the empty range invalid */
	if (rc == -EAGAIN)
		return 1;
	return rc == -EINVAL ? 0 : rc;
}

/* The same errno stands for "stopped half way" and for "not now"; the result field tells them apart. */
static int64_t outcome(int rc, int64_t result)
{
	if (rc == 0 || result > 0)
		return result;
	return result < 0 ? result : -errno;
}

static int64_t transfer(int fd, unsigned long request, struct uffd_transfer t)
{
	int rc = ioctl(fd, request, &t);

	return outcome(rc, t.result);
}

static int64_t make(int fd, unsigned long request, uint64_t dst, uint64_t bytes, uint64_t mode)
{
	struct uffd_make m = { .range = { dst, bytes }, .mode = mode };
	int rc = ioctl(fd, request, &m);

	return outcome(rc, m.result);
}

int64_t gm_uffd_take(int fd, uint64_t dst, uint64_t src, uint64_t bytes)
{
	return transfer(fd, UFFD_MOVE,
			(struct uffd_transfer){ dst, src, bytes, MODE_DONTWAKE | MODE_ALLOW_SRC_HOLES, 0 });
}

int64_t gm_uffd_move(int fd, uint64_t dst, uint64_t src, uint64_t bytes)
{
	return transfer(fd, UFFD_MOVE, (struct uffd_transfer){ dst, src, bytes, MODE_ALLOW_SRC_HOLES, 0 });
}

int64_t gm_uffd_copy(int fd, uint64_t dst, uint64_t src, uint64_t bytes)
{
	return transfer(fd, UFFD_COPY, (struct uffd_transfer){ dst, src, bytes, 0, 0 });
}

int64_t gm_uffd_copy_protected(int fd, uint64_t dst, uint64_t src, uint64_t bytes)
{
	return transfer(fd, UFFD_COPY, (struct uffd_transfer){ dst, src, bytes, MODE_COPY_PROTECTED, 0 });
}

int64_t gm_uffd_zeropage(int fd, uint64_t dst, uint64_t bytes)
{
	return make(fd, UFFD_ZEROPAGE, dst, bytes, 0);
}

int64_t gm_uffd_continue(int fd, uint64_t dst, uint64_t bytes)
{
	return make(fd, UFFD_CONTINUE, dst, bytes, 0);
}

int64_t gm_uffd_poison(int fd, uint64_t dst, uint64_t bytes)
{
	return make(fd, UFFD_POISON, dst, bytes, MODE_DONTWAKE);
}

int gm_pagemap_scan(int fd, uint64_t begin, uint64_t end, uint64_t anyof, struct gm_page_region *vec, size_t n,
		    uint64_t *walked)
{
	struct scan_arg a = {
		.size = sizeof(a),
		.start = begin,
		.end = end,
		.vec = (uint64_t)(uintptr_t)vec,
		.vec_len = n,
		.anyof = anyof,
		.returned = anyof | GM_PAGE_IS_PFNZERO | GM_PAGE_IS_HUGE,
	};
	int found = ioctl(fd, PAGEMAP_SCAN_, &a);

	if (found < 0)
		return -errno;
	*walked = a.walk_end;
	return found;
}
