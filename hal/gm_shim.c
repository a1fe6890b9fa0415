/* SPDX-License-Identifier: MIT */
/*
 * The validation shim: life of a device and its page tables, and the table itself. See gm_shim.h for the parts.
 *
 *     dev_init: shim made, backend opened with the shim's services --> open --dev_fini--> what is left is reported
 *
 * Page tables that were destroyed are remembered for a while, so that a late use is a report and not a crash. What a
 * device announced is judged when it is first used: a caller that refuses such a device has seen for itself.
 */
#include "config.h"

#include <string.h>

#include "hal/gm_shim.h"

static bool config_ok(const struct gm_validate_config *config)
{
	return config && config->size == sizeof(*config) && config->mmu && config->mmu->abi == GM_HAL_ABI &&
	       config->mmu->size >= offsetof(struct gm_mmu, pmap_protect) && config->mmu->name && config->mmu->dev_init &&
	       config->mmu->dev_fini && config->mmu->pmap_create && config->mmu->pmap_destroy &&
	       config->mmu->pmap_enter && config->mmu->pmap_remove && config->mmu->tlb_invl && config->mmu->copy;
}

static void dev_setup(struct gm_shim_dev *d, const struct gm_validate_config *config, const struct gm_services *svc)
{
	size_t size = config->mmu->size < sizeof(d->mmu) ? config->mmu->size : sizeof(d->mmu);

	atomic_flag_clear(&d->spin);
	d->out = svc;
	d->config = *config;
	d->bound_ns = config->bound_ns ? config->bound_ns : GM_SHIM_BOUND_NS;
	d->random = UINT64_C(0x9e3779b97f4a7c15);
	d->born_ns = gm_shim_now(d);
	d->granule_bytes = GM_PAGE_BYTES;
	memcpy(&d->mmu, config->mmu, size);
	LIST_INIT(&d->calls);
	LIST_INIT(&d->held);
	TAILQ_INIT(&d->pmaps);
	TAILQ_INIT(&d->dead);
	TAILQ_INIT(&d->fences);
	RB_INIT(&d->things);
	RB_INIT(&d->frames);
	RB_INIT(&d->hosts);
	gm_shim_services(d);
}

static void take_caps(struct gm_shim_dev *d, const struct gm_dev_caps *caps)
{
	gm_shim_lock(d); /* threads of the backend may use services already */
	d->caps = *caps;
	gm_shim_unlock(d);
	if (caps->page_sizes >> 12)
		d->granule_bytes = caps->page_sizes & (~caps->page_sizes + 1);
	if (d->granule_bytes < GM_PAGE_BYTES)
		d->granule_bytes = GM_PAGE_BYTES;
}

static gm_ret_t shim_dev_init(void *dev_data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev)
{
	const struct gm_validate_config *config = dev_data;
	struct gm_shim_at at = { .op = "dev_init", .step = GM_STEP_FREE };
	struct gm_shim_dev *d;
	struct gm_shim_call c;
	gm_ret_t ret;

	if (!config_ok(config))
		return GM_RET_INVAL;
	d = svc->alloc(svc->self, sizeof(*d));
	if (!d || gm_handle_add(d, GM_HANDLE_SHIM)) {
		svc->free(svc->self, d, sizeof(*d));
		return GM_RET_NOMEM;
	}
	dev_setup(d, config, svc);
	gm_shim_begin(d, &c, GM_SHIM_OP_DEV_INIT, &at);
	ret = d->mmu.dev_init(config->dev_data, &d->svc, caps, &d->dev);
	gm_shim_end(&c, ret);
	if (ret == GM_RET_SUCCESS) {
		take_caps(d, caps);
		*dev = d;
		return ret;
	}
	if (d->dev)
		gm_shim_report(d, GM_RULE_OUT_TOUCHED, &at, "it returned %s", gm_ret_name(ret));
	gm_handle_del(d, GM_HANDLE_SHIM);
	if (gm_shim_things_left(d, "dev_init"))
		return ret; /* its threads still run, with the services that are in here */
	gm_shim_fences_free(d);
	svc->free(svc->self, d, sizeof(*d));
	return ret;
}

/* Each optional slot and the capability that promises it. */
static void judge_slots(struct gm_shim_dev *d, const struct gm_shim_at *at)
{
	const struct gm_mmu *m = &d->mmu;
	const struct {
		uint32_t cap;
		bool filled;
	} slot[] = {
		{ GM_CAP_FAULTS, m->fault_next && m->fault_done },
		{ GM_CAP_CPU_VISIBLE, m->cpu_ptr != NULL },
		{ GM_CAP_SUBMIT, m->submit != NULL },
		{ GM_CAP_ACCESS, m->access != NULL },
		{ GM_CAP_PROTECT, m->pmap_protect != NULL },
		{ GM_CAP_DIRTY, m->pmap_harvest != NULL },
		{ GM_CAP_SYNC, m->sync_create && m->sync_signal && m->sync_import },
		{ GM_CAP_PEER, m->peer_reach != NULL },
	};

	for (size_t i = 0; i < sizeof(slot) / sizeof(slot[0]); i++)
		if (gm_shim_has(d, slot[i].cap) && !slot[i].filled)
			gm_shim_report(d, GM_RULE_CAP_SLOT, at, "capability 0x%x", (unsigned)slot[i].cap);
}

static bool slabs_ok(const struct gm_dev_caps *c, uint64_t granule_bytes)
{
	uint64_t unit = granule_bytes > GM_UNIT_BYTES ? granule_bytes : GM_UNIT_BYTES;

	if (c->slabs > GM_MAX_SLABS)
		return false;
	for (uint32_t i = 0; i < c->slabs; i++) {
		const struct gm_slab *s = &c->slab[i];

		if (s->begin >= s->end || s->begin % unit || s->end % unit)
			return false;
		for (uint32_t k = 0; k < i; k++)
			if (s->begin < c->slab[k].end && c->slab[k].begin < s->end)
				return false;
	}
	return true;
}

/* The device is used for the first time: is it one? */
static void judge_device(struct gm_shim_dev *d)
{
	struct gm_shim_at at = { .op = "dev_init", .step = GM_STEP_FREE };
	const struct gm_dev_caps *c = &d->caps;
	uint64_t g = d->granule_bytes;
	bool ok;

	if (atomic_exchange(&d->used, true))
		return;
	ok = c->page_sizes && !(c->page_sizes & (GM_PAGE_BYTES - 1)) && c->va_bits >= 32 && c->va_bits <= 64 &&
	     c->max_contexts && (g == GM_PAGE_BYTES || g == GM_UNIT_BYTES || g == GM_BLOCK_BYTES) && slabs_ok(c, g);
	if (!d->dev)
		gm_shim_report(d, GM_RULE_DEV_NULL, &at, "%s", "");
	if (!ok)
		gm_shim_report(d, GM_RULE_CAPS, &at, "page sizes 0x%llx, %u address bits, %u contexts, %u slabs",
			       (unsigned long long)c->page_sizes, (unsigned)c->va_bits, (unsigned)c->max_contexts,
			       (unsigned)c->slabs);
	judge_slots(d, &at);
}

static void free_pmaps(struct gm_shim_dev *d, struct gm_shim_pmaps *pmaps)
{
	struct gm_shim_pmap *p;

	while ((p = TAILQ_FIRST(pmaps))) {
		TAILQ_REMOVE(pmaps, p, link);
		gm_handle_del(p, GM_HANDLE_SHIM_PMAP);
		gm_shim_forget(p);
		d->out->free(d->out->self, p, sizeof(*p));
	}
}

static void shim_dev_fini(void *dev)
{
	struct gm_shim_dev *d = dev;
	const struct gm_services *out = d->out;
	struct gm_shim_at at = { .op = "dev_fini", .step = GM_STEP_FREE };
	struct gm_shim_call c;
	bool silent;

	if (!TAILQ_EMPTY(&d->pmaps))
		gm_shim_report(d, GM_RULE_FINI_BUSY, &at, "%u page tables are left", d->n_pmaps);
	gm_shim_begin(d, &c, GM_SHIM_OP_DEV_FINI, &at);
	d->mmu.dev_fini(d->dev);
	gm_shim_end_void(&c);
	gm_handle_del(d, GM_HANDLE_SHIM);
	gm_shim_fences_late(d, c.start_ns, true);
	gm_shim_lock(d);
	silent = d->silent_ns != 0;
	gm_shim_unlock(d);
	if (silent)
		gm_shim_report(d, GM_RULE_FAULT_SILENT, &at, "%s", "a fault was named that was never announced");
	if (gm_shim_things_left(d, "dev_fini"))
		return; /* its threads still run, with the services that are in here */
	free_pmaps(d, &d->pmaps);
	free_pmaps(d, &d->dead);
	gm_shim_fences_free(d);
	gm_shim_forget_memory(d, &d->frames);
	gm_shim_forget_memory(d, &d->hosts);
	out->free(out->self, d, sizeof(*d));
}

void gm_shim_lose(void *dev)
{
	struct gm_shim_dev *d = dev;

	gm_shim_lock(d);
	if (!d->given_up)
		d->giver = pthread_self();
	d->given_up = true;
	gm_shim_unlock(d);
}

/* Not counted as a call: what it waits for may be one. A slot that is missing has nothing that could be stopped. */
static void shim_dev_halt(void *dev)
{
	struct gm_shim_dev *d = dev;
	struct gm_shim_at at = { .op = "dev_halt", .step = GM_STEP_FREE };
	unsigned pending;

	if (d->mmu.dev_halt)
		d->mmu.dev_halt(d->dev);
	pending = gm_shim_fences_left(d);
	if (pending)
		gm_shim_report(d, GM_RULE_HALT_PENDING, &at, "%u are pending", pending);
}

struct gm_shim_pmap *gm_shim_pmap_of(struct gm_shim_dev *d, const void *inner)
{
	struct gm_shim_pmap *p, *going = NULL;

	TAILQ_FOREACH(p, &d->pmaps, link) {
		if (p->pmap != inner)
			continue;
		if (!p->going)
			return p;
		going = p;
	}
	return going;
}

/* (S) The rule that a page table just made breaks; GM_RULES: none. One that goes may be gone in the backend. */
static enum gm_rule judge_made(struct gm_shim_dev *d, const void *inner)
{
	const struct gm_shim_pmap *p = gm_shim_pmap_of(d, inner);

	if (!inner)
		return GM_RULE_PMAP_NULL;
	if (p && !p->going)
		return GM_RULE_PMAP_TWICE;
	return d->n_pmaps >= d->caps.max_contexts ? GM_RULE_CONTEXTS_MORE : GM_RULES;
}

/* (S) How many page tables the backend may have had at some time of the call. */
static unsigned most_since(struct gm_shim_dev *d, uint64_t seq)
{
	unsigned n = d->n_pmaps + d->n_making + d->n_going;
	struct gm_shim_pmap *p;

	TAILQ_FOREACH(p, &d->dead, link)
		n += p->died >= seq;
	return n;
}

static gm_ret_t shim_pmap_create(void *dev, void **pmap)
{
	struct gm_shim_dev *d = dev;
	struct gm_shim_at at = { .op = "pmap_create", .step = GM_STEP_FREE };
	struct gm_shim_pmap *p;
	enum gm_rule rule = GM_RULES;
	struct gm_shim_call c;
	void *inner = NULL;
	gm_ret_t ret;

	judge_device(d);
	p = d->out->alloc(d->out->self, sizeof(*p));
	if (!p || gm_handle_add(p, GM_HANDLE_SHIM_PMAP)) {
		d->out->free(d->out->self, p, sizeof(*p));
		return GM_RET_NOMEM;
	}
	gm_shim_begin(d, &c, GM_SHIM_OP_PMAP_CREATE, &at);
	gm_shim_lock(d);
	d->n_making++;
	gm_shim_unlock(d);
	ret = d->mmu.pmap_create(d->dev, &inner);
	gm_shim_lock(d);
	if (ret == GM_RET_SUCCESS)
		rule = judge_made(d, inner);
	else if (inner)
		rule = GM_RULE_OUT_TOUCHED;
	else if (ret == GM_RET_NOSPC && most_since(d, c.seq) <= d->caps.max_contexts)
		rule = GM_RULE_CONTEXTS_FEWER;
	d->n_making--;
	if (ret == GM_RET_SUCCESS) {
		*p = (struct gm_shim_pmap){ .dev = d, .pmap = inner };
		RB_INIT(&p->chunks);
		TAILQ_INSERT_TAIL(&d->pmaps, p, link);
		d->n_pmaps++;
	}
	gm_shim_unlock(d);
	if (rule != GM_RULES)
		gm_shim_report(d, rule, &at, "%u page tables are there", d->n_pmaps);
	gm_shim_end(&c, ret);
	if (ret) {
		gm_handle_del(p, GM_HANDLE_SHIM_PMAP);
		d->out->free(d->out->self, p, sizeof(*p));
		return ret;
	}
	*pmap = p;
	return ret;
}

/* (S) Remember a page table that is gone; returns one that is forgotten for it. */
static struct gm_shim_pmap *bury(struct gm_shim_dev *d, struct gm_shim_pmap *p)
{
	struct gm_shim_pmap *oldest;

	gm_handle_del(p, GM_HANDLE_SHIM_PMAP);
	p->dead = true;
	p->died = d->ops;
	TAILQ_REMOVE(&d->pmaps, p, link);
	TAILQ_INSERT_TAIL(&d->dead, p, link);
	d->n_going--;
	if (++d->n_dead <= GM_SHIM_DEAD_PMAPS)
		return NULL;
	oldest = TAILQ_FIRST(&d->dead);
	TAILQ_REMOVE(&d->dead, oldest, link);
	d->n_dead--;
	return oldest;
}

static void shim_pmap_destroy(void *pmap)
{
	struct gm_shim_pmap *p = pmap, *drop;
	struct gm_shim_dev *d = p->dev;
	struct gm_shim_at at = { .op = "pmap_destroy", .step = GM_STEP_FREE, .pmap = p };
	struct gm_shim_call c;
	bool mapped, going;

	if (!gm_shim_alive(p, &at))
		return;
	gm_shim_lock(d);
	going = p->going;
	p->going = true; /* faults may still name it */
	d->n_pmaps -= !going;
	d->n_going += !going;
	gm_shim_unlock(d);
	if (going) {
		gm_shim_report(d, GM_RULE_DEAD_PMAP, &at, "it is being destroyed");
		return;
	}
	gm_shim_begin(d, &c, GM_SHIM_OP_PMAP_DESTROY, &at);
	gm_shim_lock(d);
	mapped = gm_shim_mapped_any(p) && !d->lost && !d->given_up && !atomic_load(&d->blind);
	gm_shim_unlock(d);
	if (mapped)
		gm_shim_report(d, GM_RULE_DESTROY_MAPPED, &at, "%s", "");
	d->mmu.pmap_destroy(p->pmap);
	gm_shim_forget(p);
	gm_shim_lock(d);
	drop = bury(d, p);
	gm_shim_unlock(d);
	gm_shim_end_void(&c);
	if (drop)
		d->out->free(d->out->self, drop, sizeof(*drop));
}

static const struct gm_mmu shim_mmu = {
	.abi = GM_HAL_ABI,
	.size = sizeof(struct gm_mmu),
	.name = "validate",
	.dev_init = shim_dev_init,
	.dev_fini = shim_dev_fini,
	.pmap_create = shim_pmap_create,
	.pmap_destroy = shim_pmap_destroy,
	.pmap_enter = gm_shim_pmap_enter,
	.pmap_remove = gm_shim_pmap_remove,
	.tlb_invl = gm_shim_tlb_invl,
	.copy = gm_shim_copy,
	.pmap_protect = gm_shim_pmap_protect,
	.submit = gm_shim_submit,
	.access = gm_shim_access,
	.fault_next = gm_shim_fault_next,
	.fault_done = gm_shim_fault_done,
	.cpu_ptr = gm_shim_cpu_ptr,
	.pmap_harvest = gm_shim_harvest,
	.sync_create = gm_shim_sync_create,
	.sync_signal = gm_shim_sync_signal,
	.sync_import = gm_shim_sync_import,
	.peer_reach = gm_shim_peer_reach,
	.dev_halt = shim_dev_halt,
};

const struct gm_mmu *gm_validate_mmu(void)
{
	return &shim_mmu;
}

/* A peer may be a device of another table. */
void *gm_validate_dev(void *dev)
{
	struct gm_shim_dev *d = dev;

	return gm_handle_live(d, GM_HANDLE_SHIM) ? d->dev : dev;
}

void *gm_validate_pmap(void *pmap)
{
	struct gm_shim_pmap *p = pmap;

	return gm_handle_live(p, GM_HANDLE_SHIM_PMAP) ? p->pmap : pmap;
}
