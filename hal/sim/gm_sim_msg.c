/* SPDX-License-Identifier: MIT */
/*
 * Messages: what a userfaultfd does. A fault or an event lives on the stack of
 * the coroutine that waits for it.
 *
 *     fault: posted --msg_read--> read        both --wake, release--> woken: tries again
 *            posted or read --rarely, after a while--> withdrawn: tries again, so posts again
 *     event: prepared --post--> unread --msg_read--> read --its coroutine runs--> over
 *
 * From "prepared" to "over" the pmap is changing: steal, restore, fill, zero
 * and poison answer AGAIN. Note the last step: reading an event is not enough,
 * who posted it must have run, as on Linux.
 *
 * A pmap that is destroyed releases everybody; who is about to post holds a
 * reference, so that its memory stays until then.
 */
#include "config.h"

#include "hal/sim/gm_sim_internal.h"

#define FAULT_PATIENCE_NS 50000u

void gm_sim_pmap_put(struct gm_sim_pmap *pmap)
{
	struct gm_env *env = &pmap->sim->env;

	if (--pmap->refs > 0)
		return;
	LIST_REMOVE(pmap, link);
	env->mem.free(env->mem.arg, pmap, sizeof(*pmap));
}

void gm_sim_event_prepare(struct gm_sim_pmap *pmap)
{
	pmap->refs++;
	pmap->changing++;
}

void gm_sim_event_post(struct gm_sim_pmap *pmap, struct gm_host_msg msg)
{
	struct gm_sim *sim = pmap->sim;
	struct gm_sim_event event = { .msg = msg, .thread = sim->current };

	if (!pmap->dead) {
		sim->stats.events++;
		TAILQ_INSERT_TAIL(&pmap->events, &event, link);
		gm_sim_queue_wake(sim, &pmap->readers);
		while (!event.read)
			gm_sim_block(sim, GM_SIM_NEVER, "an event that nobody reads");
	}
	pmap->changing--;
	gm_sim_pmap_put(pmap);
}

void gm_sim_fault_wait(struct gm_sim_pmap *pmap, uint64_t va, bool write, bool wp, uint64_t deadline_ns)
{
	struct gm_sim *sim = pmap->sim;
	struct gm_sim_fault fault = { .va = va - va % GM_PAGE_BYTES, .write = write, .wp = wp, .thread = sim->current };
	uint64_t until_ns = GM_SIM_NEVER;

	if (gm_sim_rarely(sim)) /* a signal, say */
		until_ns = gm_deadline_ns(&sim->env, gm_sim_random(sim, FAULT_PATIENCE_NS));
	sim->stats.faults++;
	TAILQ_INSERT_TAIL(&pmap->faults, &fault, link);
	gm_sim_queue_wake(sim, &pmap->readers);
	gm_sim_block(sim, until_ns < deadline_ns ? until_ns : deadline_ns, "an access to an absent page");
	if (!fault.woken)
		TAILQ_REMOVE(&pmap->faults, &fault, link);
}

void gm_sim_fault_wake(struct gm_sim_pmap *pmap, uint64_t va, uint64_t end)
{
	struct gm_sim_fault *fault, *next;

	TAILQ_FOREACH_SAFE(fault, &pmap->faults, link, next) {
		if (fault->va < va || fault->va >= end)
			continue;
		TAILQ_REMOVE(&pmap->faults, fault, link);
		fault->woken = true;
		gm_sim_unblock(pmap->sim, fault->thread);
	}
}

static void event_read(struct gm_sim_pmap *pmap, struct gm_sim_event *event)
{
	TAILQ_REMOVE(&pmap->events, event, link);
	event->read = true;
	gm_sim_unblock(pmap->sim, event->thread);
}

void gm_sim_msg_release(struct gm_sim_pmap *pmap)
{
	if (!TAILQ_EMPTY(&pmap->readers))
		gm_sim_panic(pmap->sim, "pmap destroyed while %s waits for its messages",
			     TAILQ_FIRST(&pmap->readers)->name);
	while (!TAILQ_EMPTY(&pmap->events))
		event_read(pmap, TAILQ_FIRST(&pmap->events));
	gm_sim_fault_wake(pmap, 0, UINT64_MAX);
}

size_t gm_sim_msg_read(void *p, struct gm_host_msg *msgs, size_t n)
{
	struct gm_sim_pmap *pmap = p;
	struct gm_sim_event *event;
	struct gm_sim_fault *fault;
	size_t i = 0;

	while (i < n && (event = TAILQ_FIRST(&pmap->events)) != NULL) {
		msgs[i++] = event->msg;
		event_read(pmap, event);
	}
	TAILQ_FOREACH(fault, &pmap->faults, link) {
		if (i == n)
			break;
		if (fault->read)
			continue;
		fault->read = true;
		msgs[i++] = (struct gm_host_msg){ .kind = GM_HOST_FAULT,
						  .va = fault->va,
						  .bytes = GM_PAGE_BYTES,
						  .write = fault->write,
						  .wp = fault->wp,
						  .thread_id = fault->thread->id };
	}
	return i;
}

static bool readable(const struct gm_sim_pmap *pmap)
{
	const struct gm_sim_fault *fault;

	if (!TAILQ_EMPTY(&pmap->events))
		return true;
	TAILQ_FOREACH(fault, &pmap->faults, link) {
		if (!fault->read)
			return true;
	}
	return false;
}

gm_ret_t gm_sim_msg_wait(void *p, uint64_t deadline_ns)
{
	struct gm_sim_pmap *pmap = p;
	struct gm_sim *sim = pmap->sim;

	while (!pmap->kicked && !readable(pmap)) {
		if (sim->now_ns >= deadline_ns)
			return GM_RET_TIMEDOUT;
		gm_sim_queue_wait(sim, &pmap->readers, deadline_ns, "msg_wait");
	}
	pmap->kicked = false;
	return GM_RET_SUCCESS;
}

void gm_sim_msg_kick(void *p)
{
	struct gm_sim_pmap *pmap = p;

	pmap->kicked = true;
	gm_sim_queue_wake(pmap->sim, &pmap->readers);
}

gm_ret_t gm_sim_msg_settled(void *p)
{
	const struct gm_sim_pmap *pmap = p;

	return pmap->changing ? GM_RET_AGAIN : GM_RET_SUCCESS;
}
