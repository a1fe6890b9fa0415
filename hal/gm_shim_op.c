/* SPDX-License-Identifier: MIT */
/*
 * Around every operation.
 *
 *     begin:    noted as in flight, with time and place on the stack
 *     returned: the backend's time ends; what the shim looks at afterwards is not the operation's
 *     end:      result listed? device lost before? a lock kept? longer than the bound?
 *
 * Which operation calls a service is told by the stack: the services have no name for a thread that both threads and
 * coroutines know, but a service called by an operation runs a little below its wrapper on the same stack. An access()
 * by which the shim looks is a call of its own, so that what it uses is not taken for what the operation uses.
 *
 * Of a lost device a call is wrong only if its caller knew. Other threads may have begun theirs before they could, so
 * just the thread is held to it that said that it gives the device up, as the core does when it has seen NODEV.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "hal/gm_shim.h"

#define R(name) (UINT32_C(1) << GM_RET_INDEX_##name)

/* Results as bits: the index of each in the list. */
enum {
#define INDEX(name, value, text) GM_RET_INDEX_##name,
	GM_RET_LIST(INDEX)
#undef INDEX
};

static const struct {
	const char *name;
	uint32_t may; /* bits of the results it may return, besides NODEV */
	bool bounded;
	bool lost_too; /* called of a lost device as well */
} ops[GM_SHIM_OPS] = {
	[GM_SHIM_OP_DEV_INIT] = { "dev_init", R(SUCCESS) | R(INVAL) | R(NOMEM) | R(NOTSUP) | R(PERM) | R(BUSY), false, false },
	[GM_SHIM_OP_DEV_FINI] = { "dev_fini", 0, false, true },
	[GM_SHIM_OP_PMAP_CREATE] = { "pmap_create", R(SUCCESS) | R(NOMEM) | R(NOSPC), true, false },
	[GM_SHIM_OP_PMAP_DESTROY] = { "pmap_destroy", 0, false, true },
	[GM_SHIM_OP_PMAP_ENTER] = { "pmap_enter", R(SUCCESS) | R(NOMEM), true, false },
	[GM_SHIM_OP_PMAP_REMOVE] = { "pmap_remove", R(SUCCESS) | R(NOMEM), true, false },
	[GM_SHIM_OP_TLB_INVL] = { "tlb_invl", R(SUCCESS), true, false },
	[GM_SHIM_OP_COPY] = { "copy", R(SUCCESS) | R(NOMEM) | R(IO), false, false },
	[GM_SHIM_OP_PMAP_PROTECT] = { "pmap_protect", R(SUCCESS) | R(NOMEM), true, false },
	[GM_SHIM_OP_SUBMIT] = { "submit", R(SUCCESS) | R(NOMEM), false, false },
	[GM_SHIM_OP_ACCESS] = { "access", R(SUCCESS) | R(FAULT) | R(PERM), true, false },
	[GM_SHIM_OP_FAULT_NEXT] = { "fault_next", R(SUCCESS) | R(AGAIN), true, false },
	[GM_SHIM_OP_FAULT_DONE] = { "fault_done", R(SUCCESS), true, false },
	[GM_SHIM_OP_CPU_PTR] = { "cpu_ptr", 0, true, false },
	[GM_SHIM_OP_HARVEST] = { "pmap_harvest", R(SUCCESS) | R(NOMEM), true, false },
	[GM_SHIM_OP_SYNC_CREATE] = { "sync_create", R(SUCCESS) | R(NOMEM) | R(NOSPC), true, false },
	[GM_SHIM_OP_SYNC_SIGNAL] = { "sync_signal", 0, true, true },
	[GM_SHIM_OP_SYNC_IMPORT] = { "sync_import", R(SUCCESS) | R(INVAL) | R(NOMEM), true, false },
	[GM_SHIM_OP_PEER_REACH] = { "peer_reach", R(SUCCESS) | R(NOTSUP), true, false },
};

bool gm_shim_listed(enum gm_shim_op op, gm_ret_t ret)
{
	switch (ret) {
#define CASE(name, value, text) case GM_RET_##name: return ret == GM_RET_NODEV || (ops[op].may & R(name));
	GM_RET_LIST(CASE)
#undef CASE
	}
	return false;
}

static bool changes(enum gm_shim_op op)
{
	return op == GM_SHIM_OP_PMAP_ENTER || op == GM_SHIM_OP_PMAP_REMOVE || op == GM_SHIM_OP_TLB_INVL ||
	       op == GM_SHIM_OP_PMAP_PROTECT;
}

/* (S) Another change of the same pages is in flight. */
static bool overlaps(const struct gm_shim_call *c)
{
	const struct gm_shim_call *o;

	if (!changes(c->op))
		return false;
	LIST_FOREACH(o, &c->dev->calls, link)
		if (o != c && changes(o->op) && o->at.pmap == c->at.pmap && o->at.va < c->at.va + c->at.bytes &&
		    c->at.va < o->at.va + o->at.bytes)
			return true;
	return false;
}

void gm_shim_begin(struct gm_shim_dev *d, struct gm_shim_call *c, enum gm_shim_op op, const struct gm_shim_at *at)
{
	bool overlap, silent, called;

	/* What the operation calls lies below our caller's part of the stack, of which this is somewhere inside. */
	*c = (struct gm_shim_call){ .dev = d, .op = op, .at = *at, .start_ns = gm_shim_now(d),
				    .stack = (uintptr_t)__builtin_frame_address(0) + 512, .thread = pthread_self() };
	c->at.op = ops[op].name;
	gm_shim_fences_late(d, c->start_ns, false);
	gm_shim_lock(d);
	c->seq = ++d->ops;
	c->was_lost = d->lost;
	overlap = overlaps(c);
	called = !ops[op].lost_too && d->given_up && pthread_equal(d->giver, c->thread);
	LIST_INSERT_HEAD(&d->calls, c, link);
	/* Another call may have begun later and been faster. */
	silent = d->silent_ns && c->start_ns > d->silent_ns && c->start_ns - d->silent_ns > d->bound_ns;
	if (silent)
		d->silent_ns = 0;
	gm_shim_unlock(d);
	if (called)
		gm_shim_report(d, GM_RULE_LOST_CALLED, &c->at, "%s", "this thread gave the device up before");
	if (overlap)
		gm_shim_report(d, GM_RULE_OVERLAP, &c->at, "another call for a part of the range is in flight");
	if (silent)
		gm_shim_report(d, GM_RULE_FAULT_SILENT, &c->at, "a fault was named that was never announced");
}

struct gm_shim_call *gm_shim_caller(struct gm_shim_dev *d, uintptr_t stack)
{
	struct gm_shim_call *c, *best = NULL;

	/* The newest is first, which decides where two lie on one level. */
	LIST_FOREACH(c, &d->calls, link)
		if (pthread_equal(c->thread, pthread_self()) && stack < c->stack &&
		    c->stack - stack < GM_SHIM_STACK_BYTES && (!best || c->stack < best->stack))
			best = c;
	return best;
}

void gm_shim_look_begin(struct gm_shim_dev *d, struct gm_shim_call *c)
{
	*c = (struct gm_shim_call){ .dev = d, .op = GM_SHIM_OP_ACCESS, .look = true, .thread = pthread_self(),
				    .stack = (uintptr_t)__builtin_frame_address(0) + 512 };
	gm_shim_lock(d);
	LIST_INSERT_HEAD(&d->calls, c, link);
	gm_shim_unlock(d);
}

void gm_shim_look_end(struct gm_shim_call *c)
{
	gm_shim_lock(c->dev);
	LIST_REMOVE(c, link);
	gm_shim_unlock(c->dev);
}

void gm_shim_returned(struct gm_shim_call *c)
{
	c->returned_ns = gm_shim_now(c->dev);
}

/* Not in flight any more; what every operation must keep. */
static void end(struct gm_shim_call *c, bool has_ret, gm_ret_t ret)
{
	struct gm_shim_dev *d = c->dev;
	uint64_t now_ns = gm_shim_now(d);
	uint64_t took_ns = (c->returned_ns ? c->returned_ns : now_ns) - c->start_ns;
	bool kept;

	gm_shim_lock(d);
	LIST_REMOVE(c, link);
	kept = gm_shim_held(d) != NULL;
	if (c->op != GM_SHIM_OP_FAULT_NEXT || ret != GM_RET_AGAIN)
		gm_shim_note(d, &c->at, now_ns, false, ret);
	if (has_ret && ret == GM_RET_NODEV)
		d->lost = true;
	gm_shim_unlock(d);
	if (kept)
		gm_shim_report(d, GM_RULE_LOCK_KEPT, &c->at, "%s", "");
	if (ops[c->op].bounded && took_ns > d->bound_ns)
		gm_shim_report(d, GM_RULE_SLOW, &c->at, "it took %llu ns", (unsigned long long)took_ns);
}

/* The results that an operation may have, by name. */
static void list_results(enum gm_shim_op op, char *text, size_t bytes)
{
	static const gm_ret_t all[] = {
#define VALUE(name, value, what) GM_RET_##name,
		GM_RET_LIST(VALUE)
#undef VALUE
	};
	size_t at = 0;

	text[0] = '\0';
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]) && at < bytes; i++)
		if (gm_shim_listed(op, all[i]))
			at += (size_t)snprintf(text + at, bytes - at, "%s%s", at ? ", " : "",
					       gm_ret_name(all[i]) + sizeof("GM_RET_") - 1);
}

void gm_shim_end(struct gm_shim_call *c, gm_ret_t ret)
{
	char may[200];

	end(c, true, ret);
	if (!gm_shim_listed(c->op, ret)) {
		list_results(c->op, may, sizeof(may));
		gm_shim_report(c->dev, GM_RULE_RESULT, &c->at, "it returned %s (%d), which is not one of %s",
			       gm_ret_name(ret), (int)ret, may);
		return;
	}
	if (c->was_lost && ret != GM_RET_NODEV)
		gm_shim_report(c->dev, GM_RULE_LOST_ALIVE, &c->at, "it returned %s", gm_ret_name(ret));
}

void gm_shim_end_void(struct gm_shim_call *c)
{
	end(c, false, GM_RET_SUCCESS);
}

static bool range_ok(uint64_t begin, uint64_t bytes, uint64_t granule, uint32_t bits)
{
	uint64_t last = begin + bytes - 1;

	return bytes && begin % granule == 0 && bytes % granule == 0 && last >= begin && (bits >= 64 || !(last >> bits));
}

bool gm_shim_range_ok(struct gm_shim_dev *d, const struct gm_shim_at *at)
{
	/* A host VA is as wide as the CPU makes it. */
	bool ok = range_ok(at->va, at->bytes, d->granule_bytes, d->caps.va_bits) &&
		  range_ok(at->pa, at->bytes, at->pte & GM_PTE_HOST ? GM_PAGE_BYTES : d->granule_bytes, 64);

	if (!ok)
		gm_shim_report(d, GM_RULE_RANGE, at, "the granule has 0x%llx bytes, addresses %u bits",
			       (unsigned long long)d->granule_bytes, (unsigned)d->caps.va_bits);
	return ok;
}

bool gm_shim_pte_ok(struct gm_shim_dev *d, const struct gm_shim_at *at, uint32_t may)
{
	if (!(at->pte & ~may) && (!(at->pte & GM_PTE_HOST) || gm_shim_has(d, GM_CAP_HOST_MAP)))
		return true;
	gm_shim_report(d, GM_RULE_PTE, at, "%s", "");
	return false;
}

bool gm_shim_alive(struct gm_shim_pmap *p, const struct gm_shim_at *at)
{
	bool dead;

	gm_shim_lock(p->dev);
	dead = p->dead;
	gm_shim_unlock(p->dev);
	if (dead)
		gm_shim_report(p->dev, GM_RULE_DEAD_PMAP, at, "it was destroyed");
	return !dead;
}

bool gm_shim_cap_ok(struct gm_shim_dev *d, uint32_t cap, const struct gm_shim_at *at)
{
	if (gm_shim_has(d, cap))
		return true;
	gm_shim_report(d, GM_RULE_NO_CAP, at, "the backend does not announce 0x%x", (unsigned)cap);
	return false;
}
