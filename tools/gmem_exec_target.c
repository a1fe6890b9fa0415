/* SPDX-License-Identifier: MIT */
/*
 * Can a program be served? It is if the loader will put the preload library into it, which needs
 *  - a file that can be executed, an ELF file of this machine's kind;
 *  - a loader, the one that this program has: static programs have none, others' C libraries another one;
 *  - no privileges by its file (setuid, setgid, capabilities): for these the loader ignores LD_PRELOAD.
 *
 *     name --PATH--> file --"#!", as the kernel reads it--> its interpreter --"#!"...--> ELF --> looked at
 *
 * `#!/usr/bin/env NAME` is NAME: env would be served instead, and not what it executes.
 */
#include "config.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tools/gmem_exec.h"

#define SCRIPTS 4 /* one behind the other at most, as in the kernel */

struct image {
	ElfW(Ehdr) head;
	char loader[256]; /* empty: none */
};

static bool is_file(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* As execvp() finds it. 0, or the exit status. */
static int find_in_path(const char *name, char *path, size_t bytes, char *why, size_t why_bytes)
{
	const char *list = getenv("PATH"), *end;
	bool denied = false;

	if (strchr(name, '/'))
		list = NULL;
	else if (!list)
		list = "/bin:/usr/bin";
	for (; list; list = *end ? end + 1 : NULL) {
		end = strchrnul(list, ':');
		(void)snprintf(path, bytes, "%.*s%s%s", (int)(end - list), list, end > list ? "/" : "", name);
		if (is_file(path) && access(path, X_OK) == 0)
			return 0;
		denied |= is_file(path);
	}
	if (strchr(name, '/'))
		(void)snprintf(path, bytes, "%s", name);
	if (strchr(name, '/') && access(path, X_OK) == 0 && is_file(path))
		return 0;
	denied |= strchr(name, '/') && access(path, F_OK) == 0;
	(void)snprintf(why, why_bytes, denied ? "%s: it is there, but cannot be executed by you" : "%s: there is no such program",
		       name);
	return denied ? GM_EXEC_NOT_STARTED : GM_EXEC_NOT_FOUND;
}

static bool read_loader(int fd, struct image *image)
{
	for (unsigned i = 0; i < image->head.e_phnum; i++) {
		ElfW(Phdr) ph;

		if (pread(fd, &ph, sizeof(ph), (off_t)(image->head.e_phoff + (uint64_t)i * sizeof(ph))) != sizeof(ph))
			return false;
		if (ph.p_type != PT_INTERP)
			continue;
		return ph.p_filesz > 0 && ph.p_filesz <= sizeof(image->loader) &&
		       pread(fd, image->loader, ph.p_filesz, (off_t)ph.p_offset) == (ssize_t)ph.p_filesz &&
		       !image->loader[ph.p_filesz - 1];
	}
	return true;
}

/* False: no ELF file of this machine's kind. */
static bool read_image(const char *path, struct image *image)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool ok;

	*image = (struct image){ .loader = "" };
	if (fd < 0)
		return false;
	ok = pread(fd, &image->head, sizeof(image->head), 0) == sizeof(image->head) &&
	     memcmp(image->head.e_ident, ELFMAG, SELFMAG) == 0 &&
	     image->head.e_ident[EI_CLASS] == (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32) && read_loader(fd, image);
	(void)close(fd);
	return ok;
}

/* Does the kernel run it with privileges that the caller lacks? */
static const char *privileges(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return NULL;
	if (st.st_mode & S_ISUID && st.st_uid != getuid())
		return "it is setuid";
	if (st.st_mode & S_ISGID && st.st_mode & S_IXGRP && st.st_gid != getgid())
		return "it is setgid";
	if (getuid() && getxattr(path, "security.capability", NULL, 0) > 0)
		return "it has file capabilities";
	return NULL;
}

static int judge(const char *path, char *why, size_t bytes)
{
	const char *more = privileges(path), *reason = NULL;
	struct image image, self;

	if (more)
		(void)snprintf(why, bytes, "%s: %s, and for such programs the loader takes no preload library; use a copy "
			       "without that", path, more);
	else if (getauxval(AT_SECURE))
		(void)snprintf(why, bytes, "gmem itself runs with privileges of its file, and the loader hands no preload library "
			       "on; run it without");
	else if (access(path, R_OK))
		(void)snprintf(why, bytes, "%s: it cannot be read, so nobody knows whether it can be served", path);
	else if (!read_image("/proc/self/exe", &self))
		(void)snprintf(why, bytes, "/proc/self/exe cannot be read; is /proc mounted?");
	else if (!read_image(path, &image) || image.head.e_machine != self.head.e_machine)
		reason = "it is no program of this machine's kind (another architecture, or damaged)";
	else if (!image.loader[0])
		reason = "it is linked statically, so there is no loader to put libgmem into it; use a dynamically linked build";
	else if (strcmp(image.loader, self.loader) != 0)
		reason = "it has another C library's loader than gmem, and libgmem's preload library does not fit in";
	else
		return 0;
	if (reason)
		(void)snprintf(why, bytes, "%s: %s", path, reason);
	return GM_EXEC_NOT_STARTED;
}

/* The line behind "#!" without the blanks around; false: it is no script. */
static bool script_line(const char *path, char *line, size_t bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : pread(fd, line, bytes - 1, 0);
	char *from, *end;

	if (fd >= 0)
		(void)close(fd);
	if (n < 3 || line[0] != '#' || line[1] != '!')
		return false;
	line[n] = 0;
	line[strcspn(line, "\n")] = 0;
	from = line + 2 + strspn(line + 2, " \t");
	for (end = from + strlen(from); end > from && (end[-1] == ' ' || end[-1] == '\t'); end--)
		end[-1] = 0;
	memmove(line, from, strlen(from) + 1);
	return *line;
}

/* One "#!": the arguments become those of the interpreter. 0, or the exit status. */
static int interpret(struct gm_exec_target *t, unsigned depth, char *why, size_t bytes)
{
	char *line = t->lines[depth], *rest = line + strcspn(line, " \t"), *name = line;
	size_t n = 0, extra;

	if (*rest)
		*rest++ = 0;
	rest += strspn(rest, " \t");
	/* env hands on to what it is told */
	if (strcmp(strrchr(line, '/') ? strrchr(line, '/') + 1 : line, "env") == 0 && *rest && !strpbrk(rest, " \t=-"))
		name = rest, rest += strlen(rest);
	extra = 1 + (*rest != 0);
	while (t->argv[n])
		n++;
	(void)snprintf(t->paths[depth], sizeof(t->paths[depth]), "%s", t->path);
	t->argv = reallocarray(t->argv, n + extra + 1, sizeof(*t->argv));
	if (!t->argv) {
		(void)snprintf(why, bytes, "out of memory");
		return GM_EXEC_NOT_STARTED;
	}
	memmove(t->argv + extra, t->argv, (n + 1) * sizeof(*t->argv));
	t->argv[0] = name;
	if (*rest)
		t->argv[1] = rest;
	t->argv[extra] = t->paths[depth];
	return find_in_path(name, t->path, sizeof(t->path), why, bytes);
}

int gm_exec_find(struct gm_exec_target *t, char **argv, char *why, size_t bytes)
{
	size_t n = 1; /* there is a name */
	int status;

	while (argv[n])
		n++;
	t->argv = calloc(n + 1, sizeof(*t->argv));
	if (!t->argv) {
		(void)snprintf(why, bytes, "out of memory");
		return GM_EXEC_NOT_STARTED;
	}
	memcpy(t->argv, argv, n * sizeof(*argv));
	status = find_in_path(argv[0], t->path, sizeof(t->path), why, bytes);
	for (unsigned depth = 0; !status && script_line(t->path, t->lines[depth % SCRIPTS], sizeof(t->lines[0])); depth++) {
		if (depth == SCRIPTS) {
			(void)snprintf(why, bytes, "%s: too many scripts one behind the other", argv[0]);
			return GM_EXEC_NOT_STARTED;
		}
		status = interpret(t, depth, why, bytes);
	}
	return status ? status : judge(t->path, why, bytes);
}
