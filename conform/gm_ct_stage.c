/* SPDX-License-Identifier: MIT */
/*
 * The stage of most tests: one device, one window of its memory, one page table, open and filled at the beginning,
 * empty and compared at the end.
 *
 *     gm_ct_begin(): dev_init -> window filled by copies -> pmap_create
 *     gm_ct_finish(): everything removed -> memory compared -> pmap_destroy -> dev_fini
 */
#include "config.h"

#include "conform/gm_ct.h"

void gm_ct_begin(struct gm_ct_stage *s, struct gm_ct *t, uint64_t window)
{
	s->d = gm_ct_open(t);
	gm_ct_mem_init(&s->m, s->d, window, t->seed);
	gm_ct_map_init(&s->o, &s->m, GM_CT_VA, t->seed);
}

void gm_ct_finish(struct gm_ct_stage *s)
{
	gm_ct_map_fini(&s->o);
	gm_ct_mem_check(&s->m);
	gm_ct_mem_fini(&s->m);
	gm_ct_close(s->d);
}
