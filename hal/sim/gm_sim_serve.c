/* SPDX-License-Identifier: MIT */
/*
 * Children of the simulated process that are served: what of a pmap is watched is so in the child too, by a descriptor
 * of the child's own, which the message FORK brings.
 *
 *     fork: hooks freeze --> copy --FORK, one pmap after the other, each until it is read--> hooks thaw --> the child runs
 *     descriptor: open --child_fill: a page of the child--> ... --child_close--> closed: what is absent is zeros
 *
 * Between the copy and the end of thaw everybody else goes on, so what the child gets must be from before. It waits
 * until thaw is over. Stricter than Linux: a descriptor that nobody has closed by then, one that is used after it was
 * closed, and a call for a child that no message named, abort.
 *
 * Each call may stop half way with AGAIN for no reason, or fail with NOMEM where a test says so (gm_sim_fail(), "child_fill").
 */
#include "config.h"

#include <string.h>

#include "hal/sim/gm_sim_internal.h"

#define FIRST_CHILD 100

gm_ret_t gm_sim_serve_forks(void *pmap)
{
	((struct gm_sim_pmap *)pmap)->serves = true;
	return GM_RET_SUCCESS;
}

/* What a message named, and nobody has closed. */
static struct gm_sim_served *must_find(struct gm_sim_pmap *p, int child, const char *op)
{
	unsigned i = (unsigned)(child - FIRST_CHILD);

	if (child < FIRST_CHILD || i >= GM_SIM_SERVED || p->sim->served[i].pmap != p)
		gm_sim_panic(p->sim, "%s of child %d, which no message named, or which is closed", op, child);
	return &p->sim->served[i];
}

static int open_child(struct gm_sim *sim, struct gm_sim_child *child, struct gm_sim_pmap *pmap)
{
	for (unsigned i = 0; i < GM_SIM_SERVED; i++) {
		if (sim->served[i].pmap)
			continue;
		sim->served[i] = (struct gm_sim_served){ .child = child, .pmap = pmap };
		return FIRST_CHILD + (int)i;
	}
	gm_sim_panic(sim, "more than %u children are served at once", GM_SIM_SERVED);
}

void gm_sim_serve_begin(struct gm_sim *sim, struct gm_sim_child *child, struct gm_sim_pmap **pmap, unsigned n)
{
	for (unsigned i = 0; i < n; i++) { /* all are about to be told from here on */
		if (pmap[i]->serves && !pmap[i]->dead)
			gm_sim_event_prepare(pmap[i]);
		else
			pmap[i] = NULL;
	}
	for (unsigned i = 0; i < n; i++)
		if (pmap[i])
			gm_sim_event_post(pmap[i], (struct gm_host_msg){ .kind = GM_HOST_FORK,
									 .child = open_child(sim, child, pmap[i]) });
}

void gm_sim_serve_end(struct gm_sim *sim, const struct gm_sim_child *child)
{
	for (unsigned i = 0; i < GM_SIM_SERVED; i++) {
		struct gm_sim_served *s = &sim->served[i];

		if (s->child != child)
			continue;
		if (!s->pmap->dead)
			gm_sim_panic(sim, "the descriptor of a child is open when its fork is over");
		*s = (struct gm_sim_served){ .child = NULL };
	}
}

/* One page of the child. */
static gm_ret_t fill_page(const struct gm_sim_served *s, uint64_t va, const uint8_t *bytes)
{
	const struct gm_sim_vma *vma = gm_sim_child_vma(s->child, va);
	uint8_t *frame = NULL;

	if (!vma || vma->pmap != s->pmap)
		return GM_RET_FAULT;
	if (gm_sim_child_has(s->child, va))
		return GM_RET_EXIST;
	if (bytes) {
		frame = gm_sim_frame_alloc(s->pmap->sim);
		memcpy(frame, bytes, GM_PAGE_BYTES);
	}
	gm_sim_child_put(s->child, va, frame);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_sim_child_fill(void *pmap, int child, uint64_t va, const void *src, uint64_t bytes, uint64_t *done)
{
	struct gm_sim_pmap *p = pmap;
	const struct gm_sim_served *s = must_find(p, child, "child_fill");
	uint64_t left = gm_sim_rarely(p->sim) ? gm_sim_random(p->sim, bytes / GM_PAGE_BYTES) : UINT64_MAX;

	*done = 0;
	if (gm_sim_trapped(p->sim, GM_SIM_CHILD_FILL))
		return GM_RET_NOMEM;
	for (; *done < bytes; *done += GM_PAGE_BYTES) {
		gm_ret_t ret = left-- == 0 ? GM_RET_AGAIN :
					     fill_page(s, va + *done, src ? (const uint8_t *)src + *done : NULL);

		if (ret)
			return ret;
	}
	return GM_RET_SUCCESS;
}

/* It waits in its fork handler, and does nothing. */
size_t gm_sim_child_read(void *pmap, int child, struct gm_host_msg *msgs, size_t n)
{
	(void)must_find(pmap, child, "child_read"), (void)msgs, (void)n;
	return 0;
}

void gm_sim_child_close(void *pmap, int child)
{
	*must_find(pmap, child, "child_close") = (struct gm_sim_served){ .child = NULL };
}

void gm_sim_child_fail(void *pmap)
{
	struct gm_sim_pmap *p = pmap;

	if (!p->sim->newborn)
		gm_sim_panic(p->sim, "child_fail where no fork is under way");
	gm_sim_child_kill(p->sim->newborn);
}
