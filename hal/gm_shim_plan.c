/* SPDX-License-Identifier: MIT */
/*
 * Plans. The backend gets a copy of the steps, with its own page tables in them.
 *
 * Before: each step is judged as if exactly those it depends on were complete; the others may be, or not, so it is
 * judged again with each REMOVE and INVL that may come before it, and paired with those that it must not meet. What
 * is legal only with steps that it does not depend on is PLAN_ORDER. The books then have the whole plan done.
 *
 *     given --signal--> every step SUCCESS: the books are right, the device is looked at
 *                   \-> some not: the ranges of those that are not SUCCESS are UNSURE
 *     refused --------> all ranges are UNSURE
 *
 * Which steps are done while the plan runs only the backend knows: nothing is concluded from the books meanwhile.
 */
#include "config.h"

#include "hal/gm_shim.h"

/* A result that a step has not got. */
#define UNSET ((gm_ret_t)1)

static struct gm_shim_at step_at(const struct gm_step *s, uint32_t i)
{
	if (s->op == GM_STEP_COPY)
		return gm_shim_copy_at("submit, copy", &s->copy, i);
	return (struct gm_shim_at){ .op = s->op == GM_STEP_ENTER    ? "submit, pmap_enter"
					  : s->op == GM_STEP_REMOVE ? "submit, pmap_remove"
								    : "submit, tlb_invl",
				    .step = i, .pmap = s->pmap, .va = s->va,
				    .pa = s->op == GM_STEP_ENTER ? s->pa : 0, .bytes = s->bytes,
				    .pte = s->op == GM_STEP_ENTER ? s->pte : 0 };
}

static bool depends(const struct gm_step *s, size_t on)
{
	return s->after != GM_STEP_FREE && s->after >= on;
}

static bool same_range(const struct gm_step *a, const struct gm_step *b)
{
	return a->pmap == b->pmap && a->va < b->va + b->bytes && b->va < a->va + a->bytes;
}

static bool same_memory(const struct gm_step *enter, const struct gm_copy *c)
{
	return !(enter->pte & GM_PTE_HOST) && enter->pa < c->pa + c->bytes && c->pa < enter->pa + enter->bytes;
}

/* Does the later of two steps need the earlier one to be complete, or the other way round? */
static bool conflict(const struct gm_step *early, const struct gm_step *late)
{
	if (early->op == GM_STEP_COPY && late->op == GM_STEP_COPY)
		return gm_shim_copies_meet(&early->copy, &late->copy);
	if (early->op == GM_STEP_COPY)
		return late->op == GM_STEP_ENTER && same_memory(late, &early->copy);
	if (late->op == GM_STEP_COPY)
		return early->op == GM_STEP_ENTER && same_memory(early, &late->copy);
	if (early->op == GM_STEP_INVL && late->op == GM_STEP_INVL)
		return false;
	return same_range(early, late);
}

/* (S) The books as if the step were complete. */
static void apply(struct gm_shim_fence *f, size_t i)
{
	const struct gm_step *s = &f->outer[i];
	struct gm_shim_at at = step_at(s, (uint32_t)i);

	if (s->op == GM_STEP_REMOVE || s->op == GM_STEP_INVL)
		f->steps[i].hosts = gm_shim_hosts_any(s->pmap, &at);
	switch (s->op) {
	case GM_STEP_REMOVE:
		gm_shim_removed(s->pmap, &at);
		break;
	case GM_STEP_INVL:
		gm_shim_choose_gone(s->pmap, &at, &f->steps[i].gone);
		gm_shim_invalidated(s->pmap, &at);
		break;
	case GM_STEP_ENTER:
		gm_shim_enter(s->pmap, &at);
		gm_shim_entered(s->pmap, &at, false);
		break;
	case GM_STEP_COPY:
		break;
	}
}

/* (S) Is a step legal as the books are now? */
static void check(struct gm_shim_dev *d, const struct gm_shim_fence *f, size_t i, struct gm_shim_found *found)
{
	const struct gm_step *s = &f->outer[i];
	struct gm_shim_at at = step_at(s, (uint32_t)i);

	if (s->op == GM_STEP_ENTER)
		gm_shim_check_enter(s->pmap, &at, found);
	if (s->op == GM_STEP_COPY)
		gm_shim_check_copy(d, &s->copy, &at, found);
}

/* How many steps must be complete for it to start. */
static size_t needed(const struct gm_step *s)
{
	return s->after == GM_STEP_FREE ? 0 : s->after + (size_t)1;
}

/*
 * (S) The steps before `i` are complete, no other: may those start that may start now? All are asked for which just
 * what they depend on is complete, and all again when frames have changed hands.
 */
static void check_startable(struct gm_shim_dev *d, struct gm_shim_fence *f, size_t i)
{
	bool moved = i && (f->outer[i - 1].op == GM_STEP_REMOVE || f->outer[i - 1].op == GM_STEP_INVL);

	for (size_t k = i; k < f->n; k++) {
		size_t first = needed(&f->outer[k]);

		if (first == i || (first < i && moved && f->steps[k].found.rule == GM_RULES))
			check(d, f, k, &f->steps[k].found);
	}
}

/* (S) All before it is complete. What is legal now, and was not as soon as it might have started, lacks an order. */
static void conclude(struct gm_shim_dev *d, struct gm_shim_fence *f, size_t i)
{
	const struct gm_step *s = &f->outer[i];
	struct gm_shim_found *found = &f->steps[i].found, last = { .rule = GM_RULES };
	struct gm_shim_at at = step_at(s, (uint32_t)i);

	if (found->rule != GM_RULES && needed(s) < i) {
		check(d, f, i, &last);
		found->rule = last.rule == GM_RULES ? GM_RULE_PLAN_ORDER : last.rule;
	}
	for (size_t k = needed(s); k < i; k++)
		if (conflict(&f->outer[k], s))
			gm_shim_found_at(found, GM_RULE_PLAN_ORDER, &at, s->va, at.pa);
}

/* Walk through the plan, from the books as they are to those with all of it done. */
static void check_plan(struct gm_shim_dev *d, struct gm_shim_fence *f)
{
	for (size_t i = 0; i < f->n; i++)
		f->steps[i].found.rule = GM_RULES;
	for (size_t i = 0; i < f->n; i++) {
		gm_shim_lock(d);
		check_startable(d, f, i);
		conclude(d, f, i);
		apply(f, i);
		gm_shim_unlock(d);
	}
	for (size_t i = 0; i < f->n; i++) {
		const struct gm_shim_found *found = &f->steps[i].found;

		if (found->rule == GM_RULES)
			continue;
		gm_shim_report(d, found->rule, &found->at, "%s", "");
		f->blamed = true;
	}
}

/* Is the step one that the law allows? DEAD: it cannot be passed on. */
static bool step_ok(struct gm_shim_dev *d, const struct gm_step *s, uint32_t i, bool *dead)
{
	struct gm_shim_at at = step_at(s, i);

	if (s->after != GM_STEP_FREE && s->after >= i) {
		gm_shim_report(d, GM_RULE_PLAN_AFTER, &at, "after is %u", (unsigned)s->after);
		return false;
	}
	if (s->op == GM_STEP_COPY)
		return gm_shim_copy_range_ok(d, &s->copy, &at);
	if (!gm_shim_alive(s->pmap, &at)) {
		*dead = true;
		return false;
	}
	if (!gm_shim_range_ok(d, &at))
		return false;
	return s->op != GM_STEP_ENTER || gm_shim_pte_ok(d, &at, GM_PTE_WRITE | GM_PTE_ATOMIC | GM_PTE_HOST);
}

/* False: steps that the law does not allow; then the books are left alone. */
static bool steps_ok(struct gm_shim_dev *d, const struct gm_step *steps, size_t n, bool *dead)
{
	bool sound = true;

	for (size_t i = 0; i < n; i++) {
		const struct gm_step *s = &steps[i];

		if (!step_ok(d, s, (uint32_t)i, dead)) {
			sound = false;
			continue;
		}
		if (s->op == GM_STEP_ENTER)
			gm_shim_need(s->pmap, s->va, s->pa, s->bytes, s->pte & GM_PTE_HOST);
	}
	return sound;
}

static void take_steps(struct gm_shim_dev *d, struct gm_shim_fence *f, const struct gm_step *steps)
{
	uint64_t now_ns = gm_shim_now(d);

	for (size_t i = 0; i < f->n; i++) {
		struct gm_step *s = &f->inner[i];
		struct gm_shim_at at = step_at(&steps[i], (uint32_t)i);

		*s = steps[i];
		s->ret = UNSET;
		if (s->op != GM_STEP_COPY)
			s->pmap = ((struct gm_shim_pmap *)s->pmap)->pmap; /* perhaps dead: reported */
		else if (s->copy.kind == GM_COPY_FROM_PEER)
			s->copy.peer = gm_validate_dev(s->copy.peer);
		gm_shim_lock(d);
		gm_shim_note(d, &at, now_ns, true, GM_RET_SUCCESS);
		gm_shim_unlock(d);
	}
}

/* (S) What the books say of the range of a step is not known any more. */
static void doubt_step(const struct gm_shim_fence *f, size_t i)
{
	const struct gm_step *s = &f->outer[i];
	struct gm_shim_at at = step_at(s, (uint32_t)i);

	if (s->op != GM_STEP_COPY)
		gm_shim_doubt(s->pmap, &at, f->steps[i].hosts || at.pte & GM_PTE_HOST);
}

gm_ret_t gm_shim_submit(void *dev, struct gm_step *steps, size_t n, struct gm_fence *done)
{
	struct gm_shim_dev *d = dev;
	struct gm_shim_at at = { .op = "submit", .step = GM_STEP_FREE };
	struct gm_shim_fence *f;
	struct gm_shim_call c;
	bool sound, dead = false;
	gm_ret_t ret;

	if (!gm_shim_cap_ok(d, GM_CAP_SUBMIT, &at) || !d->mmu.submit)
		return GM_RET_UNIMPLEMENTED;
	gm_shim_pin(d, 1);
	sound = steps_ok(d, steps, n, &dead) && !atomic_load(&d->blind);
	f = dead ? NULL : gm_shim_fence_new(d, done, GM_SHIM_FENCE_PLAN, n);
	if (!f) {
		gm_shim_pin(d, -1);
		return dead ? GM_RET_FAULT : GM_RET_NOMEM;
	}
	f->outer = steps;
	f->sound = sound;
	take_steps(d, f, steps);
	gm_shim_begin(d, &c, GM_SHIM_OP_SUBMIT, &at);
	if (sound)
		check_plan(d, f);
	gm_shim_fence_given(d, f);
	gm_shim_pin(d, -1);
	ret = d->mmu.submit(d->dev, f->inner, n, done);
	if (ret && sound) {
		gm_shim_lock(d);
		for (size_t i = 0; i < n; i++)
			doubt_step(f, i);
		gm_shim_unlock(d);
	}
	gm_shim_fence_sent(d, f, &at, ret);
	gm_shim_end(&c, ret);
	return ret;
}

/* ------------------------------------------------------------------- after */

static enum gm_shim_op op_of(const struct gm_step *s)
{
	switch (s->op) {
	case GM_STEP_REMOVE:
		return GM_SHIM_OP_PMAP_REMOVE;
	case GM_STEP_INVL:
		return GM_SHIM_OP_TLB_INVL;
	case GM_STEP_ENTER:
		return GM_SHIM_OP_PMAP_ENTER;
	case GM_STEP_COPY:
		break;
	}
	return GM_SHIM_OP_COPY;
}

/* The results of the steps, each alone and together. Returns whether all are SUCCESS. */
static bool judge_results(struct gm_shim_dev *d, const struct gm_shim_fence *f, gm_ret_t result)
{
	gm_ret_t first = GM_RET_SUCCESS;
	size_t bad = f->n; /* the first that is not SUCCESS */
	bool all = true;

	for (size_t i = 0; i < f->n; i++) {
		gm_ret_t ret = f->inner[i].ret;

		all = all && !ret;
		if (ret && ret != UNSET && bad == f->n)
			bad = i;
		if (ret && ret != GM_RET_CANCELED && !first)
			first = ret;
	}
	for (size_t i = 0; i < f->n; i++) {
		const struct gm_step *s = &f->inner[i];
		struct gm_shim_at at = step_at(&f->outer[i], (uint32_t)i);
		bool canceled = s->ret == GM_RET_CANCELED;

		if (s->ret == UNSET)
			gm_shim_report(d, GM_RULE_STEP_RET, &at, "%s", "it got no result");
		else if (canceled ? !first : !gm_shim_listed(op_of(s), s->ret))
			gm_shim_report(d, GM_RULE_STEP_RET, &at, "it got %s (%d)", gm_ret_name(s->ret), (int)s->ret);
		else if (first && bad < i && depends(s, bad) && !canceled)
			gm_shim_report(d, GM_RULE_STEP_AFTER_FAILURE, &at, "it got %s, step %zu before it %s",
				       gm_ret_name(s->ret), bad, gm_ret_name(f->inner[bad].ret));
	}
	if (first != UNSET && result != first) {
		struct gm_shim_at at = { .op = "submit", .step = GM_STEP_FREE };

		gm_shim_report(d, GM_RULE_PLAN_RESULT, &at, "it was signalled with %s, its first failure is %s",
			       gm_ret_name(result), gm_ret_name(first));
	}
	return all;
}

/* A later step may have let others write to what step i copied. */
static bool settled(const struct gm_shim_fence *f, size_t i)
{
	for (size_t k = i + 1; k < f->n; k++)
		if (conflict(&f->outer[i], &f->outer[k]))
			return false;
	return true;
}

static void look(struct gm_shim_dev *d, const struct gm_shim_fence *f, size_t i)
{
	const struct gm_step *s = &f->outer[i];
	struct gm_shim_at at = step_at(s, (uint32_t)i);

	if (s->op == GM_STEP_ENTER && settled(f, i))
		gm_shim_probe_entered(s->pmap, &at);
	if (s->op == GM_STEP_INVL) {
		gm_shim_probe_gone(s->pmap, &at, &f->steps[i].gone);
		gm_shim_sweep(s->pmap, &at);
	}
	if (s->op == GM_STEP_COPY && settled(f, i))
		gm_shim_verify_copy(d, &s->copy, (uint32_t)i);
}

void gm_shim_plan_done(struct gm_shim_dev *d, struct gm_shim_fence *f, gm_ret_t result)
{
	uint64_t now_ns = gm_shim_now(d);
	bool all = judge_results(d, f, result);

	gm_shim_lock(d);
	for (size_t i = 0; i < f->n; i++) {
		struct gm_shim_at at = step_at(&f->outer[i], (uint32_t)i);

		f->outer[i].ret = f->inner[i].ret == UNSET ? GM_RET_CANCELED : f->inner[i].ret;
		gm_shim_note(d, &at, now_ns, false, f->outer[i].ret);
		if (f->sound && (f->inner[i].ret || f->blamed))
			doubt_step(f, i);
		d->lost |= f->inner[i].ret == GM_RET_NODEV;
	}
	gm_shim_unlock(d);
	for (size_t i = 0; f->sound && all && !f->blamed && i < f->n; i++)
		look(d, f, i);
}
