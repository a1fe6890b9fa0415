/* SPDX-License-Identifier: MIT */
/*
 * Scripted failures: rules by place and count, the lost device, broken pages.
 *
 *     added, waiting --nth match--> its turn, for `count` matches --> spent
 *
 * A rule counts every call that it matches, also while another one decides the
 * result. The first rule whose turn it is and that has a result decides; delays
 * add up; one that hangs, hangs. A spent rule stays until the rules are cleared.
 * gm_mock_fail() is a rule for every place.
 *
 * What hal.h does not list for an operation is refused when the rule is added,
 * so that a script cannot make the device break the contract: that is what the
 * planted errors are for.
 *
 * A lost device stays lost. What runs when it happens finishes; everything that
 * begins afterwards ends with NODEV before it changed anything.
 */
#include "config.h"

#include <stddef.h>

#include "backends/mock/gm_mock_internal.h"

struct gm_mock_scripted {
	TAILQ_ENTRY(gm_mock_scripted) link;
	struct gm_mock_rule rule;
	uint64_t seen; /* matches so far */
	bool plain;    /* of gm_mock_fail() */
};

/* What an operation may be told, besides SUCCESS and NODEV. */
static const struct {
	gm_ret_t fails;    /* what gm_mock_fail() makes of it; SUCCESS: it cannot fail */
	gm_ret_t also;     /* or */
	bool has_va, has_pa, hangs;
} ops[GM_MOCK_OPS] = {
	[GM_MOCK_PMAP_CREATE] = { GM_RET_NOMEM, GM_RET_NOMEM, false, false, false },
	[GM_MOCK_PMAP_ENTER] = { GM_RET_NOMEM, GM_RET_NOMEM, true, true, false },
	[GM_MOCK_PMAP_REMOVE] = { GM_RET_NOMEM, GM_RET_NOMEM, true, false, false },
	[GM_MOCK_COPY] = { GM_RET_IO, GM_RET_NOMEM, false, true, true },
	[GM_MOCK_COPY_LATE] = { GM_RET_IO, GM_RET_IO, false, true, true },
	[GM_MOCK_PROTECT] = { GM_RET_NOMEM, GM_RET_NOMEM, true, false, false },
	[GM_MOCK_SUBMIT] = { GM_RET_NOMEM, GM_RET_NOMEM, false, false, true },
	[GM_MOCK_INVL] = { GM_RET_SUCCESS, GM_RET_SUCCESS, true, false, false },
	[GM_MOCK_HARVEST] = { GM_RET_NOMEM, GM_RET_NOMEM, true, false, false },
	[GM_MOCK_PEER_REACH] = { GM_RET_NOTSUP, GM_RET_NOTSUP, false, false, false },
};

static bool meets(uint64_t begin, uint64_t end, uint64_t at, uint64_t bytes)
{
	return bytes > 0 && at < end && begin < at + bytes;
}

static bool matches(const struct gm_mock_rule *rule, const struct gm_mock_call *call)
{
	if (rule->op != call->op)
		return false;
	if (rule->where == GM_MOCK_AT_VA)
		return meets(rule->begin, rule->end, call->va, call->bytes);
	if (rule->where == GM_MOCK_ANYWHERE)
		return true;
	for (size_t i = 0; i < call->n; i++) {
		if (meets(rule->begin, rule->end, call->copies[i].pa, call->copies[i].bytes))
			return true;
	}
	return call->pa && meets(rule->begin, rule->end, call->pa, call->bytes);
}

static void apply(struct gm_mock_scripted *s, struct gm_mock_verdict *v)
{
	const struct gm_mock_rule *rule = &s->rule;

	if (++s->seen < rule->nth || s->seen - rule->nth >= rule->count)
		return;
	v->delay_ns = rule->delay_ns > UINT64_MAX - v->delay_ns ? UINT64_MAX : v->delay_ns + rule->delay_ns;
	v->hang |= rule->hang;
	if (v->ret == GM_RET_SUCCESS && rule->result != GM_RET_SUCCESS) {
		v->ret = rule->result;
		v->garbage = rule->garbage;
	}
}

struct gm_mock_verdict gm_mock_judge(struct gm_mock *m, const struct gm_mock_call *call)
{
	struct gm_mock_verdict v = { .ret = GM_RET_SUCCESS };
	struct gm_mock_scripted *s;

	/* Also where a simulation may let others run. */
	m->svc->lock(m->svc->self, &m->lock);
	v.scripted = !TAILQ_EMPTY(&m->rules);
	TAILQ_FOREACH(s, &m->rules, link) {
		if (matches(&s->rule, call))
			apply(s, &v);
	}
	m->svc->unlock(m->svc->self, &m->lock);
	if (v.ret == GM_RET_NODEV)
		gm_mock_dev_lose(m);
	return v;
}

gm_ret_t gm_mock_begin(struct gm_mock *m, const struct gm_mock_call *call)
{
	struct gm_mock_verdict v;

	if (gm_mock_is_lost(m))
		return GM_RET_NODEV;
	v = gm_mock_judge(m, call);
	if (v.delay_ns > 0) {
		gm_mock_cost_delay(m, v.delay_ns);
		gm_mock_sleep(m, v.delay_ns);
	}
	return gm_mock_is_lost(m) ? GM_RET_NODEV : v.ret;
}

static bool is_legal(const struct gm_mock *m, const struct gm_mock_rule *rule)
{
	unsigned op = (unsigned)rule->op;

	if (rule->size != sizeof(*rule) || op >= GM_MOCK_OPS || rule->nth == 0 || rule->count == 0)
		return false;
	if ((unsigned)rule->where > GM_MOCK_AT_PA || (rule->where == GM_MOCK_AT_VA && !ops[op].has_va) ||
	    (rule->where == GM_MOCK_AT_PA && !ops[op].has_pa))
		return false;
	if (rule->where != GM_MOCK_ANYWHERE && rule->begin >= rule->end)
		return false;
	if (rule->result != GM_RET_SUCCESS && rule->result != GM_RET_NODEV && rule->result != ops[op].fails &&
	    rule->result != ops[op].also)
		return false;
	if ((rule->hang && !ops[op].hangs) || (rule->garbage && rule->op != GM_MOCK_COPY_LATE))
		return false;
	if (rule->delay_ns && rule->op == GM_MOCK_INVL && !m->config.no_fast_invl)
		return false;
	return rule->result != GM_RET_SUCCESS || rule->delay_ns || rule->hang;
}

static gm_ret_t add(struct gm_mock *m, const struct gm_mock_rule *rule, bool plain)
{
	struct gm_mock_scripted *s = m->svc->alloc(m->svc->self, sizeof(*s));

	if (!s)
		return GM_RET_NOMEM;
	*s = (struct gm_mock_scripted){ .rule = *rule, .plain = plain };
	m->svc->lock(m->svc->self, &m->lock);
	TAILQ_INSERT_TAIL(&m->rules, s, link);
	m->svc->unlock(m->svc->self, &m->lock);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_dev_rule_add(struct gm_mock *m, const struct gm_mock_rule *rule)
{
	return is_legal(m, rule) ? add(m, rule, false) : GM_RET_INVAL;
}

/* Forget the plain rule of one operation, or with GM_MOCK_OPS every rule. */
static void forget(struct gm_mock *m, enum gm_mock_op op)
{
	struct gm_mock_rules gone = TAILQ_HEAD_INITIALIZER(gone);
	struct gm_mock_scripted *s, *next;

	m->svc->lock(m->svc->self, &m->lock);
	TAILQ_FOREACH_SAFE(s, &m->rules, link, next) {
		if (op != GM_MOCK_OPS && !(s->plain && s->rule.op == op))
			continue;
		TAILQ_REMOVE(&m->rules, s, link);
		TAILQ_INSERT_TAIL(&gone, s, link);
	}
	m->svc->unlock(m->svc->self, &m->lock);
	while ((s = TAILQ_FIRST(&gone))) {
		TAILQ_REMOVE(&gone, s, link);
		m->svc->free(m->svc->self, s, sizeof(*s));
	}
}

void gm_mock_dev_rule_clear(struct gm_mock *m)
{
	forget(m, GM_MOCK_OPS);
	gm_mock_hung_end(m, GM_RET_IO);
}

gm_ret_t gm_mock_dev_fail(struct gm_mock *m, enum gm_mock_op op, uint64_t nth, uint64_t count)
{
	struct gm_mock_rule rule = { .size = sizeof(rule), .op = op, .nth = nth, .count = count };

	if ((unsigned)op >= GM_MOCK_OPS || ops[op].fails == GM_RET_SUCCESS)
		return GM_RET_INVAL;
	forget(m, op);
	if (nth == 0 || count == 0)
		return GM_RET_SUCCESS;
	rule.result = ops[op].fails;
	rule.garbage = op == GM_MOCK_COPY_LATE;
	return add(m, &rule, true);
}

uint64_t gm_mock_dev_fail_seen(struct gm_mock *m, enum gm_mock_op op)
{
	struct gm_mock_scripted *s;
	uint64_t seen = 0;

	m->svc->lock(m->svc->self, &m->lock);
	TAILQ_FOREACH(s, &m->rules, link) {
		if (s->plain && s->rule.op == op)
			seen = s->seen;
	}
	m->svc->unlock(m->svc->self, &m->lock);
	return seen;
}

void gm_mock_dev_lose(struct gm_mock *m)
{
	if (atomic_exchange(&m->lost, true))
		return;
	if (!gm_mock_has_bug(m, GM_MOCK_BUG_LOST_WAITS))
		gm_mock_fault_answer_all(m, GM_RET_NODEV);
	m->svc->wake(m->svc->self, &m->engine_waitq);
	gm_mock_hung_end(m, GM_RET_NODEV);
	gm_mock_sync_end(m, GM_RET_NODEV);
}

bool gm_mock_is_bad(struct gm_mock *m, uint64_t pa, uint64_t bytes)
{
	unsigned n = atomic_load_explicit(&m->bad_pages, memory_order_acquire);

	for (unsigned i = 0; i < n; i++) {
		if (meets(pa, pa + bytes, atomic_load_explicit(&m->bad_page[i], memory_order_relaxed), GM_PAGE_BYTES))
			return true;
	}
	return false;
}

gm_ret_t gm_mock_dev_bad_page(struct gm_mock *m, uint64_t pa)
{
	gm_ret_t ret = GM_RET_SUCCESS;
	unsigned n;

	if (pa < GM_MOCK_PA_BASE || pa - GM_MOCK_PA_BASE >= m->config.vram_bytes)
		return GM_RET_INVAL;
	pa -= pa % GM_PAGE_BYTES;
	m->svc->lock(m->svc->self, &m->lock);
	n = atomic_load(&m->bad_pages);
	if (gm_mock_is_bad(m, pa, GM_PAGE_BYTES)) {
		/* it is broken already */
	} else if (n == GM_MOCK_MAX_BAD_PAGES) {
		ret = GM_RET_NOSPC;
	} else {
		atomic_store(&m->bad_page[n], pa);
		atomic_store_explicit(&m->bad_pages, n + 1, memory_order_release);
	}
	m->svc->unlock(m->svc->self, &m->lock);
	return ret;
}
