/* SPDX-License-Identifier: MIT */
/*
 * The cost model: what the work would have taken on the device that the
 * configuration describes. It reads no clock.
 *
 * There is one modelled time for the host, `now`, and a timeline for each thing that works: every engine, the page
 * table unit (mmu), the fault unit; each is free again at a time of its own.
 *
 *     piece       latency_ns + bytes * 1e9 / bytes per second of its direction (0: nothing)
 *     step        step_ns                                      (remove, invl, enter in a plan)
 *     operation   op_ns + step_ns                              (called alone)
 *     call        op_ns                                        (copy, submit)
 *
 *     operation:  end = max(now, mmu free) + cost; mmu free = now = end         the host waits for it
 *     call:       now += op_ns; its work arrives at `now`
 *     unit i:     begin = max(arrival, end of all it depends on, free of its timeline); end = begin + cost
 *                 copies: the engine that is free first, the lowest number among equals; steps: the mmu
 *     done:       now = max(now, latest end of the call's units)                when the fence is signalled
 *     fault:      fault free = max(now, fault free) + fault_ns; now = that      the host learns of it
 *     stall:      from the raise of a fault to its answer, per thread; and miss_ns per walk of the page table
 *     delay       of a script adds to the operation, or to the arrival
 *
 *     modelled_ns = the latest of now and all timelines
 *
 * A call is modelled when it is made, in the order of the calls. The same calls and completions in the same order
 * give the same figures: always so in a simulation, and on threads whenever each call is waited for before the next.
 * What it leaves out: the time kernels compute, contention of engines for a bus, caches.
 */
#include "config.h"

#include <string.h>

#include "backends/mock/gm_mock_internal.h"

#define NS_PER_S UINT64_C(1000000000)
/* Units of a call whose ends are remembered one by one; a later one waits for all before it. */
#define MAX_ENDS 256

__extension__ typedef unsigned __int128 wide;

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t add_sat(uint64_t a, uint64_t b)
{
	return b > UINT64_MAX - a ? UINT64_MAX : a + b;
}

static uint64_t piece_ns(const struct gm_mock *m, const struct gm_copy *c)
{
	const struct gm_mock_config *config = &m->config;
	uint64_t bps = 0;
	wide ns;

	switch (c->kind) {
	case GM_COPY_TO_DEV:
		bps = config->to_dev_bps;
		break;
	case GM_COPY_TO_HOST:
		bps = config->to_host_bps;
		break;
	case GM_COPY_ZERO:
		bps = config->zero_bps;
		break;
	case GM_COPY_FROM_PEER:
		bps = config->peer_bps;
		break;
	}
	if (bps == 0)
		return config->latency_ns;
	ns = ((wide)c->bytes * NS_PER_S + bps - 1) / bps;
	return add_sat(config->latency_ns, ns > UINT64_MAX ? UINT64_MAX : (uint64_t)ns);
}

uint64_t gm_mock_cost_of(const struct gm_mock *m, const struct gm_step *step, const struct gm_copy *copy)
{
	if (step && step->op != GM_STEP_COPY)
		return m->config.step_ns;
	return piece_ns(m, copy);
}

/* Nothing costs anything: no need to add it up. */
static bool is_free(const struct gm_mock_config *c)
{
	return !(c->to_dev_bps | c->to_host_bps | c->peer_bps | c->zero_bps | c->latency_ns | c->op_ns | c->step_ns);
}

/* (L) Work of `cost` that cannot begin before `at` on one timeline; when it ends. */
static uint64_t occupy(uint64_t *free_ns, uint64_t *busy_ns, uint64_t at, uint64_t cost)
{
	*free_ns = add_sat(max_u64(at, *free_ns), cost);
	*busy_ns = add_sat(*busy_ns, cost);
	return *free_ns;
}

void gm_mock_cost_op(struct gm_mock *m, bool may_sleep)
{
	uint64_t cost = add_sat(m->config.op_ns, m->config.step_ns);
	struct gm_mock_clock *c = &m->clock;

	if (cost == 0)
		return;
	m->svc->lock(m->svc->self, &m->lock);
	c->now_ns = occupy(&c->mmu_free_ns, &c->mmu_ns, c->now_ns, cost);
	m->svc->unlock(m->svc->self, &m->lock);
	if (may_sleep && m->config.timing_wait)
		gm_mock_sleep(m, cost);
}

void gm_mock_cost_delay(struct gm_mock *m, uint64_t ns)
{
	m->svc->lock(m->svc->self, &m->lock);
	m->clock.now_ns = add_sat(m->clock.now_ns, ns);
	m->svc->unlock(m->svc->self, &m->lock);
}

/* (L) */
static uint64_t on_engine(struct gm_mock *m, uint64_t at, uint64_t cost)
{
	struct gm_mock_clock *c = &m->clock;
	unsigned best = 0;

	for (unsigned i = 1; i < m->config.engines; i++) {
		if (c->engine_free_ns[i] < c->engine_free_ns[best])
			best = i;
	}
	return occupy(&c->engine_free_ns[best], &c->busy_ns[best], at, cost);
}

uint64_t gm_mock_cost_job(struct gm_mock *m, const struct gm_step *steps, const struct gm_copy *copies, size_t n,
			  uint64_t first_ns)
{
	struct gm_mock_clock *c = &m->clock;
	uint64_t until[MAX_ENDS]; /* of the units 0 .. i: the latest end */
	uint64_t arrival, latest;

	if (first_ns == 0 && is_free(&m->config))
		return 0;
	m->svc->lock(m->svc->self, &m->lock);
	c->now_ns = add_sat(c->now_ns, m->config.op_ns);
	arrival = latest = add_sat(c->now_ns, first_ns);
	for (size_t i = 0; i < n; i++) {
		const struct gm_step *s = steps ? &steps[i] : NULL;
		uint64_t cost = gm_mock_cost_of(m, s, s ? &s->copy : &copies[i]), at = arrival, end;

		if (s && s->after != GM_STEP_FREE)
			at = s->after < MAX_ENDS ? until[s->after] : latest;
		if (s && s->op != GM_STEP_COPY)
			end = occupy(&c->mmu_free_ns, &c->mmu_ns, at, cost);
		else
			end = on_engine(m, at, cost);
		latest = max_u64(latest, end);
		if (i < MAX_ENDS)
			until[i] = latest;
	}
	m->svc->unlock(m->svc->self, &m->lock);
	return latest;
}

void gm_mock_cost_done(struct gm_mock *m, uint64_t end_ns)
{
	if (end_ns == 0)
		return;
	m->svc->lock(m->svc->self, &m->lock);
	m->clock.now_ns = max_u64(m->clock.now_ns, end_ns);
	m->svc->unlock(m->svc->self, &m->lock);
}

uint64_t gm_mock_cost_fault(struct gm_mock *m)
{
	struct gm_mock_clock *c = &m->clock;
	uint64_t raised_ns;

	m->svc->lock(m->svc->self, &m->lock);
	raised_ns = c->now_ns;
	c->now_ns = occupy(&c->fault_free_ns, &c->fault_ns, raised_ns, m->config.fault_ns);
	m->svc->unlock(m->svc->self, &m->lock);
	if (m->config.timing_wait && m->config.fault_ns > 0)
		gm_mock_sleep(m, m->config.fault_ns);
	return raised_ns;
}

void gm_mock_cost_answer(struct gm_mock *m, uint64_t raised_ns)
{
	struct gm_mock_clock *c = &m->clock;

	m->svc->lock(m->svc->self, &m->lock);
	c->stall_ns = add_sat(c->stall_ns, c->now_ns - raised_ns);
	m->svc->unlock(m->svc->self, &m->lock);
}

void gm_mock_cost_stats(struct gm_mock *m, struct gm_mock_stats *stats)
{
	const struct gm_mock_clock *c = &m->clock;
	wide walks = (wide)stats->tlb_misses * m->config.miss_ns;

	m->svc->lock(m->svc->self, &m->lock);
	stats->modelled_ns = max_u64(c->now_ns, max_u64(c->mmu_free_ns, c->fault_free_ns));
	for (unsigned i = 0; i < GM_MOCK_MAX_ENGINES; i++)
		stats->modelled_ns = max_u64(stats->modelled_ns, c->engine_free_ns[i]);
	stats->stall_ns = add_sat(c->stall_ns, walks > UINT64_MAX ? UINT64_MAX : (uint64_t)walks);
	stats->mmu_ns = c->mmu_ns;
	stats->fault_ns = c->fault_ns;
	memcpy(stats->busy_ns, c->busy_ns, sizeof(stats->busy_ns));
	m->svc->unlock(m->svc->self, &m->lock);
}
