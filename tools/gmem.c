/* SPDX-License-Identifier: MIT */
/*
 * gmem: one program for what is done from a shell. A subcommand is a row of the table below, and a file.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include <gmem/types.h>

#include "tools/gmem.h"

static const struct gmem_command {
	const char *name;
	const char *what;
	int (*main)(int argc, char **argv); /* argv[0] is the subcommand's name */
} commands[] = {
	{ "check", "run the conformance suite on a backend", gm_cmd_check },
	{ "exec", "run a program with its large memory managed by the library", gm_cmd_exec },
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void help(FILE *out)
{
	fprintf(out, "usage: gmem COMMAND [ARGUMENT...]\n\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].what);
	fprintf(out, "  %-10s this text\n", "help");
	fprintf(out, "\ngmem COMMAND --help says more; gmem --version the version.\n");
}

int gm_cmd_written(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	fprintf(stderr, "gmem: standard output could not be written\n");
	return GM_CMD_USAGE;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	if (strcmp(name, "--version") == 0) {
		printf("gmem %s\n", gm_version());
		return gm_cmd_written();
	}
	if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0) {
		help(stdout);
		return gm_cmd_written();
	}
	for (size_t i = 0; i < N_COMMANDS; i++) {
		if (strcmp(name, commands[i].name) == 0)
			return commands[i].main(argc - 1, argv + 1);
	}
	if (*name)
		fprintf(stderr, "gmem: there is no command %s\n", name);
	help(stderr);
	return GM_CMD_USAGE;
}
