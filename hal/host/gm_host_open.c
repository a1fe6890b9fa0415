/* SPDX-License-Identifier: MIT */
/*
 * Getting a userfaultfd, or a reason why there is none.
 *
 *     system call --EPERM, ENOSYS--> /dev/userfaultfd --fails--> NOTSUP or PERM, with what to do
 *
 * UFFD_USER_MODE_ONLY, which needs no right, is a door that is tried only where
 * it is asked for (gm_host_rung.c): with it read(2) into a page that is away gives
 * EFAULT instead of data. The features of the kernel are read on a descriptor that
 * is thrown away, because the handshake is possible only once per descriptor.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DEV_USERFAULTFD "/dev/userfaultfd"
#define USERFAULTFD_NEW _IO(GM_UFFD_API, 0x00)
#define FD_FLAGS (O_CLOEXEC | O_NONBLOCK)
#define USER_MODE_ONLY 1 /* UFFD_USER_MODE_ONLY */
#define FD_HIGH 4096 /* the kernel's table of descriptors grows with the highest number */
#define FD_ROOM 64

/* Negative errno, or a descriptor. */
static int by_syscall(int flags)
{
#ifdef SYS_userfaultfd
	int fd = (int)syscall(SYS_userfaultfd, FD_FLAGS | flags);

	return fd < 0 ? -errno : fd;
#else
	(void)flags;
	return -ENOSYS;
#endif
}

static int by_device(void)
{
	int dev = open(DEV_USERFAULTFD, O_RDWR | O_CLOEXEC);
	int fd;

	if (dev < 0)
		return -errno;
	fd = ioctl(dev, USERFAULTFD_NEW, FD_FLAGS);
	if (fd < 0)
		fd = -errno;
	close(dev);
	return fd;
}

/* "Seccomp: 2" in the process's status: a filter may answer system calls in the kernel's name. */
static bool under_seccomp(void)
{
	char text[4096];
	ssize_t n;
	const char *line;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = '\0';
	line = strstr(text, "\nSeccomp:");
	return line && strtol(line + strlen("\nSeccomp:"), NULL, 10) == 2;
}

gm_ret_t gm_host_refusal(int sys, int dev, bool seccomp)
{
	static const char remedy[] = "run as root or with CAP_SYS_PTRACE, or set sysctl "
				     "vm.unprivileged_userfaultfd=1, or give this user read and write access to "
				     DEV_USERFAULTFD;
	char sys_text[64], dev_text[64];
	const char *why_sys = strerror_r(sys, sys_text, sizeof(sys_text));
	const char *why_dev = strerror_r(dev, dev_text, sizeof(dev_text));

	if (sys == EMFILE || sys == ENFILE || dev == EMFILE || dev == ENFILE)
		return gm_fail(GM_RET_NOMEM, "userfaultfd: no file descriptor left; raise the limit (ulimit -n)");
	if (sys == ENOMEM || dev == ENOMEM)
		return gm_fail(GM_RET_NOMEM, "userfaultfd: the kernel has no memory for it");
	if (seccomp)
		return gm_fail(GM_RET_PERM,
			       "userfaultfd: refused (system call: %s; " DEV_USERFAULTFD ": %s), and a seccomp filter "
			       "is active: allow the system call userfaultfd in the container's profile, or pass "
			       DEV_USERFAULTFD " into it; then %s", why_sys, why_dev, remedy);
	if (sys == ENOSYS && dev == ENOENT)
		return gm_fail(GM_RET_NOTSUP, "userfaultfd: this kernel has none; Linux 6.8 or newer with "
			       "CONFIG_USERFAULTFD is needed (and no valgrind)");
	return gm_fail(GM_RET_PERM, "userfaultfd: not permitted (system call: %s; " DEV_USERFAULTFD ": %s): %s",
		       why_sys, why_dev, remedy);
}

/* UFFD_USER_MODE_ONLY needs no right: a filter, or a kernel that does not know it. */
static gm_ret_t refusal_user(int err, bool seccomp)
{
	char text[64];
	const char *why = strerror_r(err, text, sizeof(text));

	if (err == EINVAL || (err == ENOSYS && !seccomp))
		return gm_fail(GM_RET_NOTSUP, "userfaultfd: this kernel has no UFFD_USER_MODE_ONLY; Linux 5.11 or newer with "
			       "CONFIG_USERFAULTFD is needed (and no valgrind)");
	if (err == EMFILE || err == ENFILE || err == ENOMEM)
		return gm_host_refusal(err, 0, false);
	return gm_fail(GM_RET_PERM, "userfaultfd: not even UFFD_USER_MODE_ONLY is permitted (%s): allow the system call "
		       "userfaultfd in the container's profile (seccomp)", why);
}

/* A descriptor before the handshake. */
static gm_ret_t open_any(uint32_t doors, int *fd, uint32_t *door)
{
	int sys = doors & GM_HOST_DOOR_CALL ? by_syscall(0) : -EPERM, dev;

	*door = doors & GM_HOST_DOOR_USER ? GM_HOST_DOOR_USER : GM_HOST_DOOR_CALL;
	if (doors & GM_HOST_DOOR_USER)
		sys = by_syscall(USER_MODE_ONLY);
	if (sys >= 0) {
		*fd = sys;
		return GM_RET_SUCCESS;
	}
	if (doors & GM_HOST_DOOR_USER)
		return refusal_user(-sys, under_seccomp());
	dev = doors & GM_HOST_DOOR_DEVICE ? by_device() : -EPERM;
	if (dev < 0)
		return gm_host_refusal(-sys, -dev, under_seccomp());
	*fd = dev;
	*door = GM_HOST_DOOR_DEVICE;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_host_open(const struct gm_host_way *way, int *out)
{
	uint64_t got;
	uint32_t door;
	gm_ret_t ret;
	int fd = -1, rc;

	ret = open_any(way->doors, &fd, &door);
	if (ret)
		return ret;
	rc = gm_uffd_api(fd, way->features, &got);
	if (rc)
		close(fd);
	if (rc == -EPERM)
		return gm_fail(GM_RET_PERM, "userfaultfd: children of a fork can be served with CAP_SYS_PTRACE only: run as "
			       "root, or give the program the capability (setcap cap_sys_ptrace+ep)");
	if (rc) {
		return gm_fail(GM_RET_NOTSUP, "userfaultfd: the kernel refuses features 0x%llx: error %d",
			       (unsigned long long)way->features, -rc);
	}
	*out = gm_host_fd_high(fd);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_host_look(uint32_t doors, uint64_t *features, uint32_t *door)
{
	gm_ret_t ret;
	int fd = -1, rc;

	if (sysconf(_SC_PAGESIZE) != (long)GM_PAGE_BYTES)
		return gm_fail(GM_RET_NOTSUP, "pages of %ld bytes; the library needs pages of %u",
			       sysconf(_SC_PAGESIZE), GM_PAGE_BYTES);
	ret = open_any(doors, &fd, door);
	if (ret)
		return ret;
	rc = gm_uffd_api(fd, 0, features);
	close(fd);
	if (rc)
		return gm_fail(GM_RET_NOTSUP, "userfaultfd: no handshake with the kernel: error %d", -rc);
	return GM_RET_SUCCESS;
}

const char *gm_host_first_missing(uint64_t have, uint64_t wanted)
{
	static const struct {
		uint64_t bit;
		const char *name;
	} need[] = {
		{ GM_UFFD_FEATURE_MOVE, "UFFDIO_MOVE" },
		{ GM_UFFD_FEATURE_POISON, "UFFDIO_POISON" },
		{ GM_UFFD_FEATURE_EVENT_REMAP, "UFFD_EVENT_REMAP" },
		{ GM_UFFD_FEATURE_EVENT_REMOVE, "UFFD_EVENT_REMOVE" },
		{ GM_UFFD_FEATURE_EVENT_UNMAP, "UFFD_EVENT_UNMAP" },
		{ GM_UFFD_FEATURE_THREAD_ID, "UFFD_FEATURE_THREAD_ID" },
	};

	for (size_t i = 0; i < sizeof(need) / sizeof(need[0]); i++)
		if (wanted & need[i].bit & ~have)
			return need[i].name;
	return NULL;
}

gm_ret_t gm_host_open_pagemap(struct gm_host_fd *f)
{
	int err = -gm_host_fd_init(f, "/proc/self/pagemap", O_RDONLY);

	switch (err) {
	case 0:
		return GM_RET_SUCCESS;
	case EACCES:
	case EPERM:
		return gm_fail(GM_RET_PERM, "/proc/self/pagemap: not permitted; a process that changed its user must "
			       "be made dumpable again (prctl PR_SET_DUMPABLE)");
	case EMFILE:
	case ENFILE:
	case ENOMEM:
		return gm_fail(GM_RET_NOMEM, "/proc/self/pagemap: no file descriptor or memory left");
	default:
		return gm_fail(GM_RET_NOTSUP, "/proc/self/pagemap cannot be opened: error %d; is /proc mounted?", err);
	}
}

/* After a move the library must know which pages were holes, and only this tells. */
gm_ret_t gm_host_scans(bool *works)
{
	struct gm_page_region r;
	uint64_t va = GM_VA(&r) & ~(uint64_t)(GM_PAGE_BYTES - 1);
	uint64_t walked;
	struct gm_host_fd f;
	gm_ret_t ret;

	ret = gm_host_open_pagemap(&f);
	if (ret)
		return ret;
	*works = gm_pagemap_scan(gm_host_fd_last(&f), va, va + GM_PAGE_BYTES, GM_PAGE_HAS_CONTENT, &r, 1, &walked) == 1;
	gm_host_fd_fini(&f);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_host_probe(uint64_t allow)
{
	struct gm_rung_info info;
	const struct gm_mmu *mmu;

	return gm_host_choose_with(GM_RUNG_DEVICE, GM_RUNG_FULL, allow, &info, &mmu);
}

int gm_host_fd_high(int fd)
{
	struct rlimit lim;
	rlim_t top = FD_HIGH;
	int high;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < top)
		top = lim.rlim_cur;
	if (top <= FD_ROOM)
		return fd;
	high = fcntl(fd, F_DUPFD_CLOEXEC, (int)(top - FD_ROOM));
	if (high < 0)
		return fd;
	close(fd);
	while (gm_host_number_taken(high)) {
		int higher = fcntl(high, F_DUPFD_CLOEXEC, high + 1);

		if (higher < 0)
			break;
		close(high);
		high = higher;
	}
	return high;
}
