/* SPDX-License-Identifier: MIT */
/*
 * The baseline of everything that serves faults: a bare userfaultfd handler
 * thread with no state at all. It shares no code with the library.
 *
 *     blocking read() of one message --> resolve the unit around it --> next
 *
 * How it resolves is given when it is made, to be what the library does in the
 * case that is compared with; bare_empty() makes all pages absent again.
 */
#ifndef GM_BENCH_BARE_UFFD_H
#define GM_BENCH_BARE_UFFD_H

#include <stdbool.h>
#include <stdint.h>

enum bare_kind {
	BARE_COPY,      /* UFFDIO_COPY from a buffer */
	BARE_MOVE,      /* UFFDIO_MOVE of a staged page */
	BARE_COPY_MOVE, /* memcpy from a buffer into the staged page, then UFFDIO_MOVE */
};

struct bare;

/* Memory of `bytes` bytes, huge or not, served in units by a thread on `cpu`. */
struct bare *bare_start(enum bare_kind kind, uint64_t bytes, uint64_t unit_bytes, bool huge, unsigned cpu);
void bare_stop(struct bare *b);
/* The memory; the buffer that its content comes from (BARE_COPY, BARE_COPY_MOVE). */
char *bare_memory(struct bare *b);
char *bare_buffer(struct bare *b);
/* Make every page absent. */
void bare_empty(struct bare *b);

/* The ioctls themselves, without a handler. They end the program when they fail. */
void bare_copy(struct bare *b, uint64_t offset, uint64_t bytes);
void bare_move_out(struct bare *b, uint64_t offset, uint64_t bytes);
void bare_move_in(struct bare *b, uint64_t offset, uint64_t bytes);

#endif
