/* SPDX-License-Identifier: MIT */
/* The program gmem: its subcommands. Exit status: 0 good, 1 bad, 2 wrong use. */
#ifndef GM_TOOLS_GMEM_H
#define GM_TOOLS_GMEM_H

#define GM_CMD_USAGE 2

/* 0; or wrong use, and says so, where standard output did not take what was written. */
int gm_cmd_written(void);

/* gmem_check.c */
int gm_cmd_check(int argc, char **argv);

/* gmem_exec.c */
int gm_cmd_exec(int argc, char **argv);

#endif
