/* SPDX-License-Identifier: MIT */
/*
 * The preload library of `gmem exec`: an unmodified program's large memory is managed by libgmem inside of it.
 *
 *     the program's threads                      the server (one thread)              libgmem
 *     malloc, mmap, munmap, ... (calls.c,   -->  asks (ask.c): place, adopt,     -->  gm_adopt(), gm_release(),
 *     heap.c, remap.c, rights.c)                 release, protect (window.c,          gm_protect()
 *                      wait for the answer       rights.c, server.c)
 *     touch of a page that is absent        -->  the kernel's message            -->  gm_as_serve()
 *                         how much of it comes   too much on the host (limit.c)  -->  gm_migrate() to the device
 *                         home with it: policy.c
 *
 * What is managed: allocations of GM_EXEC_LARGE_BYTES and more, anonymous mappings of GM_EXEC_MAP_BYTES and more, and the
 * break's memory, from which the C library's malloc() serves what is smaller.
 *
 * Nothing waits for itself. While the server works nobody but it can bring a page, so it touches no managed memory,
 * and waits for no thread that might:
 *  - its stack, the library's memory, the device's (mock) and all tables here are mapped by libraries, not through the
 *    functions interposed: never managed. The break's memory is managed from what it was before the server started on;
 *  - it calls neither malloc() nor stdio, and resolves no symbol (the library is bound when it is loaded); variables
 *    of threads are in the static block (-ftls-model=initial-exec), so none is allocated when it is first used;
 *  - the program's threads never call libgmem (but for fork()): they ask, with signals blocked, holding nothing. What
 *    they ask with is a static table (their stacks may be managed: coroutines);
 *  - what blocks until an event was read (unmapping, moving) the program's threads do themselves, and tell of it afterwards.
 * There is one server, so room is made before the next page is brought: a bound on the host's memory needs no other
 * back-pressure, since every page of managed memory comes through it (GM_AS_WATCH).
 *
 * A child of fork() has all its memory at home and no server: it is not managed, and everything here is a mere pass
 * through. What the program executes is not managed either: the environment is as if nobody had been here.
 */
#ifndef GM_TOOLS_PRELOAD_H
#define GM_TOOLS_PRELOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gmem/gmem.h>
#include <gmem/policy.h>

#include "tools/preload/shared.h"

#define GM_EXEC_LARGE_BYTES ((size_t)1 << 20)
#define GM_EXEC_MAP_BYTES ((size_t)256 << 10)
/* The break grows by so much at once. */
#define GM_EXEC_HEAP_STEP_BYTES ((size_t)64 << 20)
#define GM_EXEC_EXPORT __attribute__((visibility("default")))

struct gm_exec {
	struct gm_exec_shared *shared;
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_as *as;
	struct gm_ctx *ctx;
	uint64_t vram_va, vram_bytes; /* where the device's memory is in this process; 0 bytes: it is elsewhere */
	int pid;
	_Atomic bool live;            /* there is a server; false in children */
	uint64_t heap_va;             /* the break's memory that is managed */
	_Atomic uint64_t heap_end;
};
extern struct gm_exec gm_exec;

/* ask.c: what the server is asked for, and what it answers. */
enum gm_exec_op {
	GM_EXEC_PLACE,   /* bytes, alignment, is an allocation -> address or 0 */
	GM_EXEC_SPACE,   /* bytes, of an allocation (0: none) -> addresses with nothing there yet, or 0 */
	GM_EXEC_TAKEN,   /* va, bytes of the window: in use */
	GM_EXEC_MAKE_WAY, /* va, bytes: what is away of it is about to come home -> bytes of it that are not managed */
	GM_EXEC_ARRIVED, /* va, bytes, how much was not managed where it came from -> 1 it is there; 0 it does not come */
	GM_EXEC_GROW,    /* va, bytes now, bytes wanted -> 1 done in place, 0 no */
	GM_EXEC_FREED,   /* va, bytes: nothing is mapped there any more */
	GM_EXEC_ADOPT,   /* va, bytes */
	GM_EXEC_RELEASE, /* va, bytes: all home, not managed any more -> 1, 0 failed */
	GM_EXEC_PROTECT, /* va, bytes, PROT_* -> 1 and an error number (1: done); 0: there is no server */
	GM_EXEC_HEAP,    /* the break has moved */
	GM_EXEC_CLOSE,   /* first, last, thread: a range of its descriptors, without ours -> 0, an error number, or APART */
	GM_EXEC_PUBLISH, /* bring the counters up to date */
};
#define GM_EXEC_APART UINT64_MAX /* the thread has a table of its own */
int gm_exec_ask_init(void); /* descriptor that becomes readable when somebody asks; -1 */
uint64_t gm_exec_ask(enum gm_exec_op op, uint64_t a, uint64_t b, uint64_t c);
/* For the server: answer what was asked. */
void gm_exec_ask_serve(uint64_t (*answer)(enum gm_exec_op op, uint64_t a, uint64_t b, uint64_t c));
/* Is there a server that answers this process? */
bool gm_exec_is_live(void);

/* server.c */
gm_ret_t gm_exec_server_start(void);

/* window.c: addresses. Those of the server are marked S. */
bool gm_exec_window_init(void);
bool gm_exec_window_has(uint64_t va);
uint64_t gm_exec_window_end(void);                                /* S: above the last one in use */
uint64_t gm_exec_window_place(uint64_t bytes, uint64_t align, bool alloc); /* S: mapped, 0: no room */
uint64_t gm_exec_window_space(uint64_t bytes, uint64_t alloc);             /* S: the same, with nothing there yet */
void gm_exec_window_taken(uint64_t va, uint64_t bytes);                    /* S */
bool gm_exec_window_grow(uint64_t va, uint64_t bytes, uint64_t want);      /* S */
void gm_exec_window_freed(uint64_t va, uint64_t bytes);                    /* S */
uint64_t gm_exec_window_base(void);
uint64_t gm_exec_window_limit(void); /* one past the last address of the window */
uint64_t gm_exec_alloc_bytes(uint64_t va);      /* of an allocation that begins there; 0: none does */
void gm_exec_window_set_odd(uint64_t va, uint64_t bytes); /* its rights were changed */
bool gm_exec_window_is_odd(uint64_t va, uint64_t bytes);
bool gm_exec_window_is_used(uint64_t va, uint64_t bytes); /* all of it; by whoever has it */
/* Give [va, va + bytes) of the window back; any thread. 0, or -1 and errno. */
int gm_exec_window_unmap(uint64_t va, uint64_t bytes);

/* limit.c: all S. */
bool gm_exec_limit_init(void);
void gm_exec_limit_check(void);  /* before pages are brought: make room if there is too little */
uint64_t gm_exec_limit_absent(uint64_t va, uint64_t bytes); /* how much of it is not there */
void gm_exec_limit_make_way(uint64_t bytes); /* so much is about to come home */
void gm_exec_limit_sample(void); /* measure, publish, correct */

/* calls.c: is some of it memory that is managed? */
bool gm_exec_is_managed(uint64_t va, uint64_t bytes);

/* remap.c: an allocation of the window elsewhere, with other bytes; 0: it stays. */
uint64_t gm_exec_window_move(uint64_t va, uint64_t have, uint64_t bytes);

/* rights.c: S. 0, or an error number of mprotect(). */
int gm_exec_protect(uint64_t va, uint64_t bytes, int prot);

/* fds.c */
int gm_exec_fd_high(int fd); /* out of the way of the program's, which count from 0; -1 stays so */
void gm_exec_fds_before(void);
int gm_exec_fds_close_range(unsigned first, unsigned last, unsigned flags); /* the server's thread */
void gm_exec_fds_after(void); /* what was opened since is ours, and stays open */

/* policy.c: how much comes home at once */
extern const struct gm_policy gm_exec_policy;
void gm_exec_policy_gone(uint64_t va); /* S: the unit there goes to the device */

/* heap.c */
void gm_exec_heap_init(void);

#endif
