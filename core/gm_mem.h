/* SPDX-License-Identifier: MIT */
/* Memory of a space as a whole; the public calls of gmem/mem.h are in the same file. */
#ifndef GM_CORE_MEM_H
#define GM_CORE_MEM_H

#include "core/gm_as.h"

/* Does the range fit into the device's memory, all of it at once, beside what is held there? SUCCESS, NOSPC. */
gm_ret_t gm_mem_check_fit(struct gm_as *as, const char *what, struct gm_dev *dev, uint64_t va, uint64_t end);

/* Where new memory comes from. */
struct gm_mem_source {
	bool shared, huge;
	uint32_t sort;   /* GM_MEM_INTHREAD, or 0 */
	int fd;          /* shared: of others; < 0: new */
	uint64_t offset; /* in it */
};
/* New memory, aligned as the host's mem_map() or share_map() says, as a region. SUCCESS; with words: NOMEM and what the host says. */
gm_ret_t gm_mem_obtain(struct gm_as *as, const struct gm_mem_source *from, uint64_t bytes, enum gm_fork fork, uint64_t *va);

/* Every page of every block home; held pages: BUSY. */
gm_ret_t gm_mem_all_home(struct gm_as *as, uint64_t deadline_ns);
/* Teardown, when all is home: stop watching; unmap what is owned. */
void gm_mem_unwatch_all(struct gm_as *as);
void gm_mem_unmap_owned(struct gm_as *as);

/* Pages of [va, end) of one block home, whatever it takes until the deadline. */
gm_ret_t gm_mem_block_home(struct gm_block *b, uint64_t va, uint64_t end, uint64_t deadline_ns);
/* The same for pages anywhere in it. */
gm_ret_t gm_mem_pages_home(struct gm_block *b, const struct gm_mask *pages, uint64_t deadline_ns);
/* Mappings in place of [va, end) in one block are revoked. */
gm_ret_t gm_mem_unmap_in_place(struct gm_block *b, uint64_t va, uint64_t end, uint64_t deadline_ns);
/* Blocks that exist learn that a range became managed, or is no more. */
void gm_mem_set_managed(struct gm_as *as, uint64_t va, uint64_t end, bool managed);
/* Accesses to the poisoned pages of the range fail by themselves from now on, whoever watches. Returns those pages. */
struct gm_mask gm_mem_mark_poison(struct gm_block *b, uint64_t va, uint64_t end);
/* Of a page that is present: the process itself may read it and cannot, so it has the mark, or is a guard page. */
gm_ret_t gm_mem_is_marked(struct gm_as *as, uint64_t va, bool *yes);
/* Stop watching; blocks that are empty then are forgotten. */
void gm_mem_unwatch(struct gm_as *as, uint64_t va, uint64_t end);
/* Until what was dropped of the range (gm_events_doom()) is taken apart. SUCCESS, TIMEDOUT. */
gm_ret_t gm_mem_wait_dropped(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns);
/* Does a working set hold any page of the range? */
bool gm_mem_is_held(struct gm_as *as, uint64_t va, uint64_t end);
/* (A) Adopted regions and edges out of the way, however many used them. Needs a spare. */
void gm_mem_clear_stale(struct gm_as *as, uint64_t va, uint64_t end);
/* Room for `n` changes of the regions that may each need a spare. SUCCESS, NOMEM. */
gm_ret_t gm_mem_stock(struct gm_as *as, unsigned n);
/* Give back what many carvings left. */
void gm_mem_trim_stock(struct gm_as *as);

#endif
