/* SPDX-License-Identifier: MIT */
/*
 * Descriptors of ours. A program that closes whatever it did not open itself would take the memory away that it has on
 * the device; so what close() and its relatives are told to close is left alone where it is ours, as if it were not
 * open. Which are ours: those that are there after the start and were not before. In children nothing is kept: the
 * descriptors are close-on-exec, and without use in a process that has no server.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "tools/preload/preload.h"
#include "tools/preload/raw.h"

#define MAX_FDS 32u
#define TOP_FD ((rlim_t)4096)

struct entry {
	uint64_t inode, offset;
	uint16_t bytes;
	uint8_t type;
	char name[];
};

static int ours[MAX_FDS]; /* sorted */
static unsigned n_ours;
static uint64_t before[1024]; /* bits: open before the start */

int gm_exec_fd_high(int fd)
{
	struct rlimit lim;
	int high;

	if (fd < 0 || getrlimit(RLIMIT_NOFILE, &lim) || lim.rlim_cur <= (rlim_t)2 * MAX_FDS)
		return fd;
	high = fcntl(fd, F_DUPFD_CLOEXEC, (int)((lim.rlim_cur < TOP_FD ? lim.rlim_cur : TOP_FD) - MAX_FDS));
	if (high < 0)
		return fd;
	(void)gm_raw_close(fd);
	return high;
}

static void each_fd(void (*tell)(int fd))
{
	int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char buf[2048] __attribute__((aligned(8)));
	long n;

	while (dir >= 0 && (n = syscall(SYS_getdents64, dir, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < n; at += ((struct entry *)(buf + at))->bytes) {
			const struct entry *e = (struct entry *)(buf + at);
			int fd = e->name[0] >= '0' && e->name[0] <= '9' ? atoi(e->name) : -1;

			if (fd >= 0 && fd != dir)
				tell(fd);
		}
	}
	if (dir >= 0)
		(void)gm_raw_close(dir);
}

static void note_before(int fd)
{
	if ((unsigned)fd / 64 < sizeof(before) / sizeof(before[0]))
		before[fd / 64] |= UINT64_C(1) << (fd % 64);
}

static void note_ours(int fd)
{
	unsigned i = n_ours;

	if ((unsigned)fd / 64 >= sizeof(before) / sizeof(before[0]) || (before[fd / 64] >> (fd % 64) & 1) || n_ours == MAX_FDS)
		return;
	for (; i && ours[i - 1] > fd; i--)
		ours[i] = ours[i - 1];
	ours[i] = fd;
	n_ours++;
}

void gm_exec_fds_before(void)
{
	each_fd(note_before);
}

void gm_exec_fds_after(void)
{
	each_fd(note_ours);
}

static bool is_ours(int fd)
{
	for (unsigned i = 0; i < n_ours; i++)
		if (ours[i] == fd)
			return gm_exec_is_live();
	return false;
}

GM_EXEC_EXPORT int close(int fd)
{
	if (is_ours(fd)) {
		errno = EBADF;
		return -1;
	}
	return gm_raw_close(fd);
}

GM_EXEC_EXPORT int dup2(int from, int to)
{
	if (is_ours(to) || is_ours(from)) {
		errno = EBADF;
		return -1;
	}
	if (from == to)
		return fcntl(from, F_GETFD) < 0 ? -1 : to;
	return (int)syscall(SYS_dup3, from, to, 0);
}

GM_EXEC_EXPORT int dup3(int from, int to, int flags)
{
	if (is_ours(to) || is_ours(from)) {
		errno = EBADF;
		return -1;
	}
	return (int)syscall(SYS_dup3, from, to, flags);
}

int gm_exec_fds_close_range(unsigned first, unsigned last, unsigned flags)
{
	int ret = 0;

	for (unsigned i = 0; i < n_ours && !ret; i++) {
		unsigned fd = (unsigned)ours[i];

		if (fd < first || fd > last)
			continue;
		if (fd > first)
			ret = (int)syscall(SYS_close_range, first, fd - 1, flags);
		if (fd == last)
			return ret;
		first = fd + 1;
	}
	return ret ? ret : (int)syscall(SYS_close_range, first, last, flags);
}

/*
 * The range without what is ours. The server does it: it may have a descriptor open for a moment, which it closes
 * later by its number. Not for a thread that has a table of its own (CLOSE_RANGE_UNSHARE, unshare()), as the server cannot
 * close there, and has nothing open in it: the thread does it itself.
 */
GM_EXEC_EXPORT int close_range(unsigned first, unsigned last, int flags)
{
	uint64_t err;

	if (flags == (int)CLOSE_RANGE_UNSHARE && first <= last && gm_exec_is_live()) {
		if (syscall(SYS_unshare, CLONE_FILES))
			return -1;
		return gm_exec_fds_close_range(first, last, 0);
	}
	if (flags || first > last || !gm_exec_is_live())
		return (int)syscall(SYS_close_range, first, last, flags);
	err = gm_exec_ask(GM_EXEC_CLOSE, first, last, (uint64_t)syscall(SYS_gettid));
	if (!err)
		return 0;
	if (err == GM_EXEC_APART)
		return gm_exec_fds_close_range(first, last, 0);
	errno = (int)err;
	return -1;
}

GM_EXEC_EXPORT void closefrom(int low)
{
	(void)close_range(low < 0 ? 0 : (unsigned)low, ~0u, 0);
}
