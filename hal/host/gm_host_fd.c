/* SPDX-License-Identifier: MIT */
/*
 * A number we own: look, reopen, close. What the library asks of the kernel by a file of /proc/self is asked by
 * descriptors that are opened once, so that a process without a free one (EMFILE) is answered as any other.
 *
 *     none --open--> ours --the program closes the number--> none's, or another file's
 *                     ^                                        |
 *                     '------------ look: open again ----------'   (cannot: "cannot tell now", never "nothing there")
 *     ours --fini: look--> closed;  another file's --fini--> left alone
 *
 * Which file it is: device and inode. While our file is open nobody else has that inode; when it is opened again it
 * may have a new one (the kernel numbers those of /proc as it makes them, and forgets them), so number and file are
 * noted together, in one word, by whoever opens: no thread sees the number of one with the file of the other. Who opens
 * asks the path which file it is, not the number, which the program may have closed already, and another thread opened. A
 * file that the program itself opened of /proc/self under our old number is taken for ours: it answers the same.
 *
 * read() and pread() take any file's bytes, and are done only after a look. ioctl()s of ours fail with another's file:
 * they are done first, and looked at if they fail (gm_host_fd_again()). Between a look and the call a moment is left,
 * see gm_host_keep.c.
 *
 * Neither locks nor allocates.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define NUMBER_BITS 24 /* of the word; the kernel's own limit of numbers is far below (fs.nr_open) */
#define NUMBER_MASK ((UINT64_C(1) << NUMBER_BITS) - 1)
#define TRIES 16       /* each failed one takes a program that closes all in that moment */

static int number_of(uint64_t word)
{
	return (int)(word & NUMBER_MASK) - 1;
}

/* Number and file. Inodes of /proc have 32 bits, so within it no two are alike. */
static uint64_t word_of(const struct stat *st, int fd)
{
	return (((uint64_t)st->st_ino ^ (uint64_t)st->st_dev << 32) << NUMBER_BITS) | (uint64_t)(fd + 1);
}

static bool is_ours(uint64_t word)
{
	struct stat st;

	return word && !fstat(number_of(word), &st) && word_of(&st, number_of(word)) == word;
}

/* The file at `path`, under fd. 0: it is not, as the program closed all descriptors since it was opened. */
static uint64_t word_at(const char *path, int fd)
{
	struct stat st;
	uint64_t word = stat(path, &st) ? 0 : word_of(&st, fd);

	return is_ours(word) ? word : 0;
}

static int open_again(struct gm_host_fd *f)
{
	uint64_t old = atomic_load(&f->word), word;

	for (unsigned i = 0; i < TRIES; i++) {
		int fd = open(f->path, f->flags | O_CLOEXEC);

		if (fd < 0)
			return -errno;
		fd = gm_host_fd_high(fd);
		if ((uint64_t)fd >= NUMBER_MASK) {
			close(fd);
			return -EMFILE;
		}
		word = word_at(f->path, fd);
		if (!word)
			continue;
		if (word == old) /* the same number again, and the same inode */
			return fd;
		while (!is_ours(old))
			if (atomic_compare_exchange_strong(&f->word, &old, word))
				return fd;
		if (is_ours(word)) /* another thread was faster */
			close(fd);
		return number_of(old);
	}
	return -EBADF;
}

int gm_host_fd_init(struct gm_host_fd *f, const char *path, int flags)
{
	int fd;

	f->path = path;
	f->flags = flags;
	atomic_init(&f->word, 0);
	fd = open_again(f);
	return fd < 0 ? fd : 0;
}

void gm_host_fd_fini(struct gm_host_fd *f)
{
	uint64_t word = atomic_exchange(&f->word, 0);

	if (is_ours(word))
		close(number_of(word));
}

int gm_host_fd_get(struct gm_host_fd *f)
{
	uint64_t word = atomic_load(&f->word);

	return is_ours(word) ? number_of(word) : open_again(f);
}

int gm_host_fd_last(const struct gm_host_fd *f)
{
	return number_of(atomic_load(&f->word));
}

int gm_host_fd_again(struct gm_host_fd *f, int *fd, int err)
{
	int now = gm_host_fd_get(f);

	if (now < 0)
		return now;
	/* EBADF: it was closed then, and another thread has opened it under the same number since */
	if (now == *fd && err != EBADF)
		return 0;
	*fd = now;
	return 1;
}

gm_ret_t gm_host_cannot_tell(const char *path, int err)
{
	if (err == EMFILE || err == ENFILE)
		return gm_fail(GM_RET_NOMEM, "%s was closed by the program and cannot be opened again: no file descriptor left; "
			       "close some, or raise the limit (ulimit -n)", path);
	return gm_fail(GM_RET_NOMEM, "%s cannot be read: error %d; is /proc mounted?", path, err);
}
