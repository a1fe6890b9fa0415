/* SPDX-License-Identifier: MIT */
/* A program that knows nothing of gmem: its tools (victim.c), and what of it has files of its own. */
#ifndef GM_TESTS_VICTIM_H
#define GM_TESTS_VICTIM_H

#include <stddef.h>
#include <stdint.h>

#define PAGE ((size_t)4096)
#define MiB ((size_t)1 << 20)
#define BIG (24 * MiB)

extern int bad;

void fill(void *p, size_t bytes, uint64_t salt);
void check(const char *what, const void *p, size_t bytes, uint64_t salt);
void check_zero(const char *what, const void *p, size_t bytes);
void must(int ok, const char *what);
void *filled(size_t bytes, uint64_t salt);    /* malloc() */
void *resized(void *old, size_t bytes);       /* realloc() */
char *mapped(size_t bytes);                   /* mmap() */
size_t absent(void *p, size_t bytes);         /* bytes that are not there at the moment; BIG at most */

/* victim_rights.c: does the access end in SIGSEGV? Once the signal is caught. */
void catch_refused(void);
int refuses(char *p, int store);
void do_rights(void);

/* victim_remap.c */
void do_remap(void);

#endif
