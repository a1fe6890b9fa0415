/* SPDX-License-Identifier: MIT */
/* The program gmem: its subcommands. Exit status: 0 good, 1 bad, 2 wrong use. */
#ifndef GM_TOOLS_GMEM_H
#define GM_TOOLS_GMEM_H

#define GM_CMD_USAGE 2

/* gmem_check.c */
int gm_cmd_check(int argc, char **argv);

#endif
