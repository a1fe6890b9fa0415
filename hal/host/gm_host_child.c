/* SPDX-License-Identifier: MIT */
/*
 * Children that are served: a fork gives what is watched to the child with a
 * userfaultfd of the child's own, and hands its descriptor to us.
 *
 *     serve_forks: fd_app asks for UFFD_FEATURE_EVENT_FORK (CAP_SYS_PTRACE)
 *     fork --message FORK--> child's descriptor --child_fill: COPY, POISON--> child_close
 *
 * The child inherits the features with the descriptor: as long as it is open
 * the child's munmap(), madvise(), mremap() and fork() wait until their events
 * are read from it, and child_fill() says AGAIN. Faults come on it too: COPY
 * and close() wake who waits, so they are not handed on.
 *
 * When the descriptor is closed, by whomever, and be it that this process dies,
 * what is absent reads as zeros in the child. So all is filled, or has a mark,
 * before it is closed; and until then the child is kept from running, see
 * gm_host_fork.c.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <assert.h>
#include <errno.h>
#include <unistd.h>

/* The program may have closed it, and have a file of its own there, whose bytes and whose life are not ours. */
static bool is_childs(int child)
{
	return gm_host_fd_is(child, "[userfaultfd]");
}

gm_ret_t gm_host_serve_forks(void *pmap)
{
	struct gm_host_pmap *p = pmap;
	gm_ret_t ret;
	int fd;

	ret = gm_host_open_app(p, GM_UFFD_FEATURE_EVENT_FORK, &fd, &p->protects);
	if (ret)
		return ret;
	ret = gm_host_fork_gate();
	if (ret) {
		close(fd);
		return ret;
	}
	close(p->fd_app);
	gm_host_set_app(p, fd);
	p->serves = true;
	return GM_RET_SUCCESS;
}

static gm_ret_t to_ret(int64_t err)
{
	switch (-err) {
	case EAGAIN:
	case EINTR:
		return GM_RET_AGAIN;
	case EEXIST:
		return GM_RET_EXIST;
	case ENOMEM:
		return GM_RET_NOMEM;
	case ESRCH: /* it has ended, or runs another program */
		return GM_RET_NODEV;
	case EBADF:
	case ENOTTY: /* this process closed it */
		return GM_RET_IO;
	default: /* ENOENT, EINVAL, EFAULT: the mapping is not what it was */
		return GM_RET_FAULT;
	}
}

/* The range crosses mappings of the child, where one call stops before its first page: less is asked for. */
static bool crosses(int64_t got)
{
	return got == -ENOENT || got == -EINVAL;
}

gm_ret_t gm_host_child_fill(void *pmap, int child, uint64_t va, const void *src, uint64_t bytes, uint64_t *done)
{
	uint64_t span = bytes;

	(void)pmap;
	*done = 0;
	while (*done < bytes) {
		uint64_t n = span < bytes - *done ? span : bytes - *done;
		int64_t got = src ? gm_uffd_copy(child, va + *done, GM_VA(src) + *done, n) :
				    gm_uffd_poison(child, va + *done, n);

		if (got > 0) {
			*done += (uint64_t)got;
			span = n * 2;
		} else if (crosses(got) && n > GM_PAGE_BYTES) {
			span = n / 2 / GM_PAGE_BYTES * GM_PAGE_BYTES;
		} else {
			return to_ret(got);
		}
	}
	return GM_RET_SUCCESS;
}

size_t gm_host_child_read(void *pmap, int child, struct gm_host_msg *msgs, size_t n)
{
	size_t have = 0;

	(void)pmap;
	while (have < n && is_childs(child)) {
		struct gm_uffd_msg u;
		ssize_t got = read(child, &u, sizeof(u));

		if (got < 0 && errno == EINTR)
			continue;
		if (got != (ssize_t)sizeof(u))
			break;
		have += gm_host_event(&u, &msgs[have]);
	}
	return have;
}

void gm_host_child_close(void *pmap, int child)
{
	(void)pmap;
	if (is_childs(child))
		close(child);
}
