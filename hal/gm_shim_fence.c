/* SPDX-License-Identifier: MIT */
/*
 * Fences that the backend has to signal, by their address.
 *
 *     given --signal--> done           its copies or steps are judged before the waiter hears of it
 *     given --its operation fails--> failed
 *     created by the backend --signal--> done
 *                            \-put, never signalled--> forgotten
 *
 * The last ones that are done or failed are remembered, so that a second signal is known for what it is; an address
 * that is given anew is a new fence. What is signalled wrongly goes no further: the fence may be gone.
 */
#include "config.h"

#include <string.h>

#include "hal/gm_shim.h"

static void fence_free(struct gm_shim_dev *d, struct gm_shim_fence *f)
{
	const struct gm_services *out = d->out;

	if (f->copies)
		out->free(out->self, f->copies, f->n * sizeof(*f->copies));
	if (f->inner)
		out->free(out->self, f->inner, f->n * sizeof(*f->inner));
	if (f->steps)
		out->free(out->self, f->steps, f->n * sizeof(*f->steps));
	out->free(out->self, f, sizeof(*f));
}

struct gm_shim_fence *gm_shim_fence_new(struct gm_shim_dev *d, struct gm_fence *fence, enum gm_shim_fence_kind kind,
					size_t n)
{
	const struct gm_services *out = d->out;
	struct gm_shim_fence *f = out->alloc(out->self, sizeof(*f));
	bool ok = f != NULL;

	if (!ok)
		return NULL;
	f->fence = fence;
	f->kind = kind;
	f->n = n;
	if (kind == GM_SHIM_FENCE_COPY)
		ok = (f->copies = out->alloc(out->self, n * sizeof(*f->copies))) != NULL;
	if (kind == GM_SHIM_FENCE_PLAN) {
		f->inner = out->alloc(out->self, n * sizeof(*f->inner));
		f->steps = out->alloc(out->self, n * sizeof(*f->steps));
		ok = f->inner && f->steps;
	}
	if (ok)
		return f;
	fence_free(d, f);
	return NULL;
}

/* (S) Give a reference back. True: it was the last, the caller frees it. */
static bool drop_ref(struct gm_shim_fence *f)
{
	return --f->refs == 0;
}

/* (S) The pending record of a fence that the backend made; taken off the list. NULL: none, or it is being signalled. */
static struct gm_shim_fence *take_own(struct gm_shim_dev *d, const struct gm_fence *fence)
{
	struct gm_shim_fence *f;

	TAILQ_FOREACH(f, &d->fences, link)
		if (f->fence == fence && f->kind == GM_SHIM_FENCE_OWN && !f->done)
			break;
	if (f)
		TAILQ_REMOVE(&d->fences, f, link);
	return f && drop_ref(f) ? f : NULL;
}

/* (S) A fence of this address is a new one. Returns the record of one that went unseen, to be freed. */
static struct gm_shim_fence *forget_address(struct gm_shim_dev *d, const struct gm_fence *fence)
{
	for (unsigned i = 0; i < GM_SHIM_DONE_FENCES; i++)
		if (d->done[i].fence == fence)
			d->done[i].fence = NULL;
	return take_own(d, fence);
}

void gm_shim_fence_put(struct gm_shim_dev *d, const struct gm_fence *fence)
{
	struct gm_shim_fence *f;

	gm_shim_lock(d);
	f = take_own(d, fence);
	gm_shim_unlock(d);
	if (f)
		fence_free(d, f);
}

/* (S) It waits for no signal any more; remember its address. */
static void retire(struct gm_shim_dev *d, struct gm_shim_fence *f)
{
	unsigned i = d->n_done++ % GM_SHIM_DONE_FENCES;

	TAILQ_REMOVE(&d->fences, f, link);
	f->refs--;
	d->done[i].fence = f->fence;
	d->done[i].failed = f->failed;
}

/* Give a reference back. */
static void put(struct gm_shim_dev *d, struct gm_shim_fence *f)
{
	bool last;

	gm_shim_lock(d);
	last = drop_ref(f);
	gm_shim_unlock(d);
	if (last)
		fence_free(d, f);
}

void gm_shim_fence_given(struct gm_shim_dev *d, struct gm_shim_fence *f)
{
	uint64_t now_ns = gm_shim_now(d);
	struct gm_shim_fence *before;

	gm_shim_lock(d);
	before = forget_address(d, f->fence);
	f->since_ns = now_ns;
	f->refs = f->kind == GM_SHIM_FENCE_OWN ? 1 : 2;
	TAILQ_INSERT_TAIL(&d->fences, f, link);
	gm_shim_unlock(d);
	if (before)
		fence_free(d, before);
}

void gm_shim_fence_sent(struct gm_shim_dev *d, struct gm_shim_fence *f, const struct gm_shim_at *at, gm_ret_t ret)
{
	bool wrong = false;

	if (ret) {
		gm_shim_lock(d);
		wrong = f->done;
		f->failed = true;
		if (!f->done)
			retire(d, f);
		gm_shim_unlock(d);
	}
	put(d, f);
	if (wrong)
		gm_shim_report(d, GM_RULE_SIGNAL_FAILED, at, "it was signalled before the call returned %s",
			       gm_ret_name(ret));
}

static bool result_ok(const struct gm_shim_fence *f, gm_ret_t result)
{
	switch (f->kind) {
	case GM_SHIM_FENCE_COPY:
		return result == GM_RET_SUCCESS || result == GM_RET_IO || result == GM_RET_NODEV;
	case GM_SHIM_FENCE_PLAN: /* its steps say what it must be */
		return true;
	case GM_SHIM_FENCE_IMPORT:
	case GM_SHIM_FENCE_OWN:
		break;
	}
	return strcmp(gm_ret_name(result), "GM_RET_?") != 0; /* any result there is */
}

static const char *op_name(const struct gm_shim_fence *f)
{
	switch (f->kind) {
	case GM_SHIM_FENCE_COPY:
		return "copy";
	case GM_SHIM_FENCE_PLAN:
		return "submit";
	case GM_SHIM_FENCE_IMPORT:
		return "sync_import";
	case GM_SHIM_FENCE_OWN:
		break;
	}
	return "fence_create";
}

/* Judge what is complete, while nobody else knows that it is. */
static void complete(struct gm_shim_dev *d, struct gm_shim_fence *f, gm_ret_t result)
{
	struct gm_shim_at at = { .op = "fence_signal", .step = GM_STEP_FREE };

	if (!result_ok(f, result))
		gm_shim_report(d, GM_RULE_SIGNAL_RESULT, &at, "%s was signalled with %s (%d)", op_name(f),
			       gm_ret_name(result), (int)result);
	if (f->kind == GM_SHIM_FENCE_PLAN)
		gm_shim_plan_done(d, f, result);
	for (size_t i = 0; f->kind == GM_SHIM_FENCE_COPY && f->sound && i < f->n && !result; i++)
		gm_shim_verify_copy(d, &f->copies[i], GM_STEP_FREE);
}

/* (S) */
static struct gm_shim_fence *find(struct gm_shim_dev *d, const struct gm_fence *fence)
{
	struct gm_shim_fence *f;

	TAILQ_FOREACH(f, &d->fences, link)
		if (f->fence == fence)
			return f;
	return NULL;
}

/* (S) The rule that a signal breaks which no pending fence is there for. */
static enum gm_rule wrong_signal(struct gm_shim_dev *d, const struct gm_shim_fence *f, const struct gm_fence *fence)
{
	if (f)
		return GM_RULE_SIGNAL_TWICE;
	for (unsigned i = 0; i < GM_SHIM_DONE_FENCES; i++)
		if (d->done[i].fence == fence && fence)
			return d->done[i].failed ? GM_RULE_SIGNAL_FAILED : GM_RULE_SIGNAL_TWICE;
	return GM_RULE_SIGNAL_UNKNOWN;
}

void gm_shim_signal(void *self, struct gm_fence *fence, gm_ret_t result)
{
	struct gm_shim_dev *d = self;
	struct gm_shim_at at = { .op = "fence_signal", .step = GM_STEP_FREE };
	enum gm_rule wrong = GM_RULES;
	struct gm_shim_fence *f;
	uint64_t now_ns;

	gm_shim_lock(d);
	f = fence ? find(d, fence) : NULL;
	if (f && !f->done) {
		f->done = true;
		f->refs++;
	} else {
		wrong = wrong_signal(d, f, fence);
		f = NULL;
	}
	gm_shim_unlock(d);
	if (!f) {
		gm_shim_report(d, wrong, &at, "fence %p", (void *)fence);
		return;
	}
	complete(d, f, result);
	now_ns = gm_shim_now(d);
	gm_shim_lock(d);
	d->lost |= f->kind == GM_SHIM_FENCE_COPY && result == GM_RET_NODEV; /* of a plan the steps have said it */
	for (size_t i = 0; f->kind == GM_SHIM_FENCE_COPY && i < f->n; i++) {
		struct gm_shim_at piece = gm_shim_copy_at("copy signalled", &f->copies[i], GM_STEP_FREE);

		gm_shim_note(d, &piece, now_ns, false, result);
	}
	retire(d, f);
	gm_shim_unlock(d);
	put(d, f);
	d->out->fence_signal(d->out->self, fence, result);
}

static bool is_late(const struct gm_shim_dev *d, const struct gm_shim_fence *f, uint64_t now_ns, bool all)
{
	if (f->done || f->late || f->kind == GM_SHIM_FENCE_OWN || d->lost || d->given_up)
		return false;
	return all || (f->kind != GM_SHIM_FENCE_IMPORT && now_ns > f->since_ns && now_ns - f->since_ns > d->bound_ns);
}

void gm_shim_fences_late(struct gm_shim_dev *d, uint64_t now_ns, bool all)
{
	struct gm_shim_at at = { .step = GM_STEP_FREE };
	struct gm_shim_fence *f;
	uint64_t since_ns = 0;

	do {
		gm_shim_lock(d);
		TAILQ_FOREACH(f, &d->fences, link)
			if (is_late(d, f, now_ns, all))
				break;
		if (f) {
			f->late = true;
			since_ns = f->since_ns;
			at.op = op_name(f);
			if (f->copies)
				at = gm_shim_copy_at(at.op, f->copies, GM_STEP_FREE);
		}
		gm_shim_unlock(d);
		if (f)
			gm_shim_report(d, GM_RULE_SIGNAL_NEVER, &at, "given at %llu ns, pending at %llu ns",
				       (unsigned long long)since_ns, (unsigned long long)now_ns);
	} while (f);
}

unsigned gm_shim_fences_left(struct gm_shim_dev *d)
{
	struct gm_shim_fence *f;
	unsigned n = 0;

	gm_shim_lock(d);
	TAILQ_FOREACH(f, &d->fences, link) {
		if (f->done || f->late || f->kind == GM_SHIM_FENCE_OWN || f->kind == GM_SHIM_FENCE_IMPORT)
			continue;
		f->late = true;
		n++;
	}
	gm_shim_unlock(d);
	return n;
}

void gm_shim_fences_free(struct gm_shim_dev *d)
{
	struct gm_shim_fence *f;

	while ((f = TAILQ_FIRST(&d->fences))) {
		TAILQ_REMOVE(&d->fences, f, link);
		fence_free(d, f);
	}
}

bool gm_shim_planning(struct gm_shim_dev *d)
{
	struct gm_shim_fence *f;

	TAILQ_FOREACH(f, &d->fences, link)
		if (f->kind == GM_SHIM_FENCE_PLAN)
			return true;
	return false;
}
