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
 * The program may close both descriptors, and have a file of its own under their numbers. The kernel says which
 * file it is that is asked for mappings, and then it is opened anew; so is the other, where it is not the file it was.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_mem(void)
{
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);

	return fd < 0 ? fd : gm_host_fd_high(fd);
}

static void note_mem(struct gm_host_dev *d)
{
	struct stat st;

	if (d->fd_mem < 0 || fstat(d->fd_mem, &st))
		return;
	d->mem_dev = st.st_dev;
	d->mem_ino = st.st_ino;
}

/* The program may have closed it, and given the number to a file of its own, which must not be written to. */
static bool has_mem(struct gm_host_dev *d)
{
	struct stat st;

	return d->fd_mem >= 0 && !fstat(d->fd_mem, &st) && st.st_ino == d->mem_ino && st.st_dev == d->mem_dev;
}

int gm_host_mem_fd(struct gm_host_dev *d)
{
	int old = d->fd_mem, fd;

	if (old < 0 || has_mem(d))
		return old;
	fd = open_mem();
	if (fd < 0 || atomic_compare_exchange_strong(&d->fd_mem, &old, fd))
		return fd;
	close(fd); /* another thread was faster */
	return old;
}

void gm_host_bus_init(struct gm_host_dev *d)
{
	atomic_init(&d->fd_mem, open_mem());
	note_mem(d);
	d->fd_maps = gm_host_fd_high(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
}

void gm_host_bus_fini(struct gm_host_dev *d)
{
	if (has_mem(d))
		close(d->fd_mem);
	if (d->fd_maps >= 0)
		close(d->fd_maps);
}

/* May the process itself access all of it so? */
static bool is_allowed(const struct gm_host_dev *d, uint64_t va, uint64_t bytes, bool write)
{
	for (uint64_t at = va, end = va + bytes; at < end;) {
		struct gm_host_area a;

		if (gm_host_area_by(d->fd_maps, at, &a) || a.begin > at || !a.readable || (write && !a.writable))
			return false;
		at = a.end;
	}
	return true;
}

gm_ret_t gm_host_bus_access(void *dev, uint64_t va, void *buf, size_t bytes, bool write)
{
	struct gm_host_dev *d = dev;
	int fd = gm_host_mem_fd(d);
	ssize_t n;

	if (fd < 0)
		return GM_RET_NOTSUP;
	if (!is_allowed(d, va, bytes, write))
		return GM_RET_FAULT;
	n = write ? pwrite(fd, buf, bytes, (off_t)va) : pread(fd, buf, bytes, (off_t)va);
	return n == (ssize_t)bytes ? GM_RET_SUCCESS : GM_RET_FAULT;
}

gm_ret_t gm_host_bus_touch(void *dev, uint64_t va)
{
	const struct gm_host_dev *d = dev;

	va &= ~(uint64_t)(sizeof(uint32_t) - 1);
	return is_allowed(d, va, sizeof(uint32_t), true) && gm_host_touch(va) ? GM_RET_SUCCESS : GM_RET_FAULT;
}
