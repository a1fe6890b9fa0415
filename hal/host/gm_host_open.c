/* SPDX-License-Identifier: MIT */
/*
 * Getting a userfaultfd, or a reason why there is none.
 *
 *     system call --EPERM, ENOSYS--> /dev/userfaultfd --fails--> NOTSUP or PERM, with what to do
 *
 * UFFD_USER_MODE_ONLY, which needs no right, is no rung of this ladder: with
 * it read(2) into a page that is away gives EFAULT instead of data. The
 * features of the kernel are read on a descriptor that is thrown away, because
 * the handshake is possible only once per descriptor.
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
#include <sys/utsname.h>
#include <unistd.h>

#define DEV_USERFAULTFD "/dev/userfaultfd"
#define USERFAULTFD_NEW _IO(GM_UFFD_API, 0x00)
#define FD_FLAGS (O_CLOEXEC | O_NONBLOCK)
#define FD_HIGH 4096 /* the kernel's table of descriptors grows with the highest number */
#define FD_ROOM 64

/* Negative errno, or a descriptor. */
static int by_syscall(void)
{
#ifdef SYS_userfaultfd
	int fd = (int)syscall(SYS_userfaultfd, FD_FLAGS);

	return fd < 0 ? -errno : fd;
#else
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

/* A descriptor before the handshake. */
static gm_ret_t open_any(int *fd)
{
	int sys = by_syscall();
	int dev;

	if (sys >= 0) {
		*fd = sys;
		return GM_RET_SUCCESS;
	}
	dev = by_device();
	if (dev < 0)
		return gm_host_refusal(-sys, -dev, under_seccomp());
	*fd = dev;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_host_open(uint64_t features, int *out)
{
	uint64_t got;
	gm_ret_t ret;
	int fd, rc;

	ret = open_any(&fd);
	if (ret)
		return ret;
	rc = gm_uffd_api(fd, features, &got);
	if (rc)
		close(fd);
	if (rc == -EPERM)
		return gm_fail(GM_RET_PERM, "userfaultfd: children of a fork can be served with CAP_SYS_PTRACE only: run as "
			       "root, or give the program the capability (setcap cap_sys_ptrace+ep)");
	if (rc) {
		return gm_fail(GM_RET_NOTSUP, "userfaultfd: the kernel refuses features 0x%llx: error %d",
			       (unsigned long long)features, -rc);
	}
	*out = gm_host_fd_high(fd);
	return GM_RET_SUCCESS;
}

static const char *first_missing(uint64_t features)
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
		if (!(features & need[i].bit))
			return need[i].name;
	return NULL;
}

gm_ret_t gm_host_open_pagemap(int *fd)
{
	*fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (*fd >= 0) {
		*fd = gm_host_fd_high(*fd);
		return GM_RET_SUCCESS;
	}
	switch (errno) {
	case EACCES:
	case EPERM:
		return gm_fail(GM_RET_PERM, "/proc/self/pagemap: not permitted; a process that changed its user must "
			       "be made dumpable again (prctl PR_SET_DUMPABLE)");
	case EMFILE:
	case ENFILE:
	case ENOMEM:
		return gm_fail(GM_RET_NOMEM, "/proc/self/pagemap: no file descriptor or memory left");
	default:
		return gm_fail(GM_RET_NOTSUP, "/proc/self/pagemap cannot be opened: error %d; is /proc mounted?",
			       errno);
	}
}

/* After a move the library must know which pages were holes, and only this tells. */
static gm_ret_t check_pagemap(bool *works)
{
	struct gm_page_region r;
	uint64_t va = GM_VA(&r) & ~(uint64_t)(GM_PAGE_BYTES - 1);
	uint64_t walked;
	gm_ret_t ret;
	int fd;

	ret = gm_host_open_pagemap(&fd);
	if (ret)
		return ret;
	*works = gm_pagemap_scan(fd, va, va + GM_PAGE_BYTES, GM_PAGE_HAS_CONTENT, &r, 1, &walked) == 1;
	close(fd);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_host_probe(uint64_t allow)
{
	struct utsname un;
	const char *missing;
	uint64_t features;
	bool scans = false;
	gm_ret_t ret;
	int fd, rc;

	if (sysconf(_SC_PAGESIZE) != (long)GM_PAGE_BYTES)
		return gm_fail(GM_RET_NOTSUP, "pages of %ld bytes; the library needs pages of %u",
			       sysconf(_SC_PAGESIZE), GM_PAGE_BYTES);
	ret = open_any(&fd);
	if (ret)
		return ret;
	rc = gm_uffd_api(fd, 0, &features);
	close(fd);
	if (rc)
		return gm_fail(GM_RET_NOTSUP, "userfaultfd: no handshake with the kernel: error %d", -rc);
	ret = check_pagemap(&scans);
	if (ret)
		return ret;
	if (uname(&un))
		un.release[0] = '\0';
	missing = first_missing(features & allow);
	if (!missing && !scans)
		missing = "PAGEMAP_SCAN on /proc/self/pagemap";
	if (missing)
		return gm_fail(GM_RET_NOTSUP, "this kernel (%s) has no %s; Linux 6.8 or newer is needed", un.release,
			       missing);
	return GM_RET_SUCCESS;
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
