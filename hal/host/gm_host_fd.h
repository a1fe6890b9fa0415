/* SPDX-License-Identifier: MIT */
/* A file of /proc/self that stays open, under a number that the program may close; see gm_host_fd.c. */
#ifndef GM_HAL_HOST_FD_H
#define GM_HAL_HOST_FD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <gmem/types.h>

struct gm_host_fd {
	const char *path;      /* (c) */
	int flags;             /* (c) of open() */
	_Atomic uint64_t word; /* the number + 1, and above it which file that is; 0: none */
};

/* Opens it. 0, or a negative errno: then it is tried again when it is needed. */
int gm_host_fd_init(struct gm_host_fd *f, const char *path, int flags);
/* Closes it, if the number is still ours. */
void gm_host_fd_fini(struct gm_host_fd *f);
/* The number, looked at, and opened again if it is not ours any more; a negative errno: it cannot be. */
int gm_host_fd_get(struct gm_host_fd *f);
/* The same without a look, for calls that fail by themselves with another's file; -1: none. */
int gm_host_fd_last(const struct gm_host_fd *f);
/* Such a call failed with errno `err` on *fd. 1: it was not ours, *fd is; call again. 0: the failure is the file's own. A
 * negative errno: it cannot be opened again. */
int gm_host_fd_again(struct gm_host_fd *f, int *fd, int err);
/* "Cannot tell now" (gm_host.h), with what to do: the file at `path` could not be had, or read. `err`: an errno. */
gm_ret_t gm_host_cannot_tell(const char *path, int err);

#endif
