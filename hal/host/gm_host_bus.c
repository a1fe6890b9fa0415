/* SPDX-License-Identifier: MIT */
/*
 * Accesses of devices over the bus.
 *
 *     asked: may the process itself do so now? --yes--> /proc/self/mem --there--> done
 *                                              '--no--> FAULT            '--not there, or no memory--> FAULT
 *
 * /proc/self/mem is the one way that answers EIO for a page that is away instead of waiting for it: the device may be
 * in the middle of something that the page's return waits for. (process_vm_readv() waits, and so does all else
 * that goes through a fault that userfaultfd has; what nobody watches cannot be told from what somebody does
 * without reading smaps.) But that file is made for debuggers, and ignores rights: it writes private memory that is
 * read-only, and reads what is PROT_NONE. So the rights are asked first, page after page as far as the kernel's
 * answer goes. Between the answer and the access they may change: such an access began before mprotect()
 * returned, and its bytes are those of the process all the same.
 *
 * The program may close both descriptors, and have a file of its own under their numbers: gm_host_fd.c.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* Those that cannot be had now are tried again when they are needed. */
void gm_host_bus_init(struct gm_host_dev *d)
{
	(void)gm_host_fd_init(&d->mem, "/proc/self/mem", O_RDWR);
	(void)gm_host_fd_init(&d->maps, "/proc/self/maps", O_RDONLY);
	(void)gm_host_fd_init(&d->smaps, "/proc/self/smaps", O_RDONLY);
	(void)gm_host_fd_init(&d->status, "/proc/self/status", O_RDONLY);
	(void)gm_host_fd_init(&d->task, "/proc/self/task", O_RDONLY | O_DIRECTORY);
	gm_mutex_init(d->env, &d->text, GM_RANK_LEAF);
}

void gm_host_bus_fini(struct gm_host_dev *d)
{
	gm_mutex_fini(d->env, &d->text);
	gm_host_fd_fini(&d->task);
	gm_host_fd_fini(&d->status);
	gm_host_fd_fini(&d->smaps);
	gm_host_fd_fini(&d->maps);
	gm_host_fd_fini(&d->mem);
}

/* May the process itself access all of it so? SUCCESS, FAULT (no), NOMEM (it cannot be told now). */
static gm_ret_t may_access(struct gm_host_dev *d, uint64_t va, uint64_t bytes, bool write)
{
	for (uint64_t at = va, end = va + bytes; at < end;) {
		struct gm_host_area a;
		gm_ret_t ret = gm_host_area_quick(d, at, &a);

		if (ret)
			return ret;
		if (a.begin > at || !a.readable || (write && !a.writable))
			return GM_RET_FAULT;
		at = a.end;
	}
	return GM_RET_SUCCESS;
}

static bool is_short(int err)
{
	return err == EMFILE || err == ENFILE || err == ENOMEM || err == EBADF;
}

gm_ret_t gm_host_bus_access(void *dev, uint64_t va, void *buf, size_t bytes, bool write)
{
	struct gm_host_dev *d = dev;
	gm_ret_t ret;
	ssize_t n;
	int fd;

	do {
		fd = gm_host_fd_get(&d->mem);
		if (fd < 0)
			return is_short(-fd) ? gm_host_cannot_tell(d->mem.path, -fd) : GM_RET_NOTSUP;
		ret = may_access(d, va, bytes, write);
		if (ret)
			return ret;
		n = write ? pwrite(fd, buf, bytes, (off_t)va) : pread(fd, buf, bytes, (off_t)va);
	} while (n < 0 && errno == EBADF); /* the program closed it since */
	return n == (ssize_t)bytes ? GM_RET_SUCCESS : GM_RET_FAULT;
}

gm_ret_t gm_host_bus_touch(void *dev, uint64_t va)
{
	gm_ret_t ret;

	va &= ~(uint64_t)(sizeof(uint32_t) - 1);
	ret = may_access(dev, va, sizeof(uint32_t), true);
	return !ret && !gm_host_touch(va) ? GM_RET_FAULT : ret;
}
