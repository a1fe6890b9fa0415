/* SPDX-License-Identifier: MIT */
/*
 * peak FILE PROGRAM [ARGUMENT...]: run a program and write its highest anonymous memory, in KiB, to FILE. Looks at
 * RssAnon every half millisecond: the kernel's own high-water mark counts pages of files as well.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long anonymous_kib(pid_t pid)
{
	char path[64], line[256];
	long kib = 0;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, "RssAnon:", 8) == 0)
			kib = strtol(line + 8, NULL, 10);
	if (f)
		(void)fclose(f);
	return kib;
}

int main(int argc, char **argv)
{
	const struct timespec pause = { .tv_nsec = 500000 };
	long peak = 0, now;
	int status = 0;
	pid_t pid;
	FILE *out;

	if (argc < 3)
		return 2;
	pid = fork();
	if (pid == 0) {
		(void)execvp(argv[2], argv + 2);
		_exit(127);
	}
	while (pid > 0 && waitpid(pid, &status, WNOHANG) == 0) {
		now = anonymous_kib(pid);
		peak = now > peak ? now : peak;
		(void)nanosleep(&pause, NULL);
	}
	out = fopen(argv[1], "we");
	if (pid < 0 || !out || fprintf(out, "%ld\n", peak) < 0 || fclose(out))
		return 2;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
