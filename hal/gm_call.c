/* SPDX-License-Identifier: MIT */
/*
 * Dispatch of device operations; see gm_call.h. A table is checked once, in
 * gm_hal_open(), and completed with slots that answer UNIMPLEMENTED, so that
 * no caller ever tests for NULL.
 */
#include "config.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hal/gm_call.h"
#include "hal/gm_fence.h"
#include "hal/gm_services.h"
#include "hal/gm_shim.h"

static gm_ret_t no_protect(void *pmap, uint64_t va, uint64_t bytes, uint32_t pte)
{
	(void)pmap, (void)va, (void)bytes, (void)pte;
	return GM_RET_UNIMPLEMENTED;
}

static gm_ret_t no_submit(void *dev, struct gm_step *steps, size_t n, struct gm_fence *done)
{
	(void)dev, (void)steps, (void)n, (void)done;
	return GM_RET_UNIMPLEMENTED;
}

static gm_ret_t no_access(void *pmap, uint64_t va, void *buf, size_t bytes, bool write)
{
	(void)pmap, (void)va, (void)buf, (void)bytes, (void)write;
	return GM_RET_UNIMPLEMENTED;
}

static gm_ret_t no_fault_next(void *dev, struct gm_dev_fault *fault)
{
	(void)dev, (void)fault;
	return GM_RET_AGAIN;
}

static gm_ret_t no_fault_done(void *pmap, uint64_t va, uint64_t bytes, gm_ret_t result)
{
	(void)pmap, (void)va, (void)bytes, (void)result;
	return GM_RET_UNIMPLEMENTED;
}

static void *no_cpu_ptr(void *dev, uint64_t pa, uint64_t bytes)
{
	(void)dev, (void)pa, (void)bytes;
	return NULL;
}

static gm_ret_t no_harvest(void *pmap, uint64_t va, uint64_t bytes, uint8_t *bits)
{
	(void)pmap, (void)va, (void)bytes, (void)bits;
	return GM_RET_UNIMPLEMENTED;
}

static gm_ret_t no_sync_create(void *dev, void **sync, int *fd)
{
	(void)dev, (void)sync, (void)fd;
	return GM_RET_UNIMPLEMENTED;
}

static void no_sync_signal(void *dev, void *sync, gm_ret_t result)
{
	(void)dev, (void)sync, (void)result;
}

static gm_ret_t no_sync_import(void *dev, int fd, struct gm_fence *done)
{
	(void)dev, (void)fd, (void)done;
	return GM_RET_UNIMPLEMENTED;
}

static gm_ret_t no_peer_reach(void *dev, void *other)
{
	(void)dev, (void)other;
	return GM_RET_NOTSUP;
}

static void no_halt(void *dev)
{
	(void)dev;
}

static bool aborts(const struct gm_env *env)
{
#ifdef GM_ENABLE_CHECKS
	return env->validate == GM_VALIDATE_ABORT || env->validate == GM_VALIDATE_DEFAULT;
#else
	return env->validate == GM_VALIDATE_ABORT;
#endif
}

static bool validates(const struct gm_env *env)
{
	return aborts(env) || env->validate == GM_VALIDATE_LOG;
}

/* Each optional slot and the capability that promises it. */
static gm_ret_t check_optional(const struct gm_mmu *m, uint32_t caps)
{
	const struct {
		uint32_t cap;
		bool filled;
		const char *slots;
	} rule[] = {
		{ GM_CAP_FAULTS, m->fault_next && m->fault_done, "fault_next, fault_done" },
		{ GM_CAP_CPU_VISIBLE, m->cpu_ptr != NULL, "cpu_ptr" },
		{ GM_CAP_SUBMIT, m->submit != NULL, "submit" },
		{ GM_CAP_ACCESS, m->access != NULL, "access" },
		{ GM_CAP_PROTECT, m->pmap_protect != NULL, "pmap_protect" },
		{ GM_CAP_DIRTY, m->pmap_harvest != NULL, "pmap_harvest" },
		{ GM_CAP_SYNC, m->sync_create && m->sync_signal && m->sync_import,
		  "sync_create, sync_signal, sync_import" },
		{ GM_CAP_PEER, m->peer_reach != NULL, "peer_reach" },
	};

	for (size_t i = 0; i < sizeof(rule) / sizeof(rule[0]); i++)
		if ((caps & rule[i].cap) && !rule[i].filled)
			return gm_fail(GM_RET_INVAL, "backend %s announces capability 0x%x but leaves %s empty", m->name,
				       (unsigned)rule[i].cap, rule[i].slots);
	return GM_RET_SUCCESS;
}

static void fill_defaults(struct gm_mmu *m)
{
	if (!m->pmap_protect)
		m->pmap_protect = no_protect;
	if (!m->submit)
		m->submit = no_submit;
	if (!m->access)
		m->access = no_access;
	if (!m->fault_next)
		m->fault_next = no_fault_next;
	if (!m->fault_done)
		m->fault_done = no_fault_done;
	if (!m->cpu_ptr)
		m->cpu_ptr = no_cpu_ptr;
	if (!m->pmap_harvest)
		m->pmap_harvest = no_harvest;
	if (!m->sync_create)
		m->sync_create = no_sync_create;
	if (!m->sync_signal)
		m->sync_signal = no_sync_signal;
	if (!m->sync_import)
		m->sync_import = no_sync_import;
	if (!m->peer_reach)
		m->peer_reach = no_peer_reach;
	if (!m->dev_halt)
		m->dev_halt = no_halt;
}

/* Copy the table as far as it goes: slots of a younger header stay NULL. */
static gm_ret_t take_table(struct gm_mmu *m, const struct gm_mmu *table)
{
	size_t size = table->size < sizeof(*m) ? table->size : sizeof(*m);

	if (table->abi != GM_HAL_ABI)
		return gm_fail(GM_RET_INVAL, "ops table has abi %u, this library speaks %u: rebuild the backend",
			       (unsigned)table->abi, GM_HAL_ABI);
	if (table->size < offsetof(struct gm_mmu, pmap_protect))
		return gm_fail(GM_RET_INVAL, "ops table of %u bytes ends before its required slots",
			       (unsigned)table->size);
	if (table->size % sizeof(void *))
		return gm_fail(GM_RET_INVAL, "ops table of %u bytes ends inside a slot: size is sizeof(struct gm_mmu)",
			       (unsigned)table->size);
	memset(m, 0, sizeof(*m));
	memcpy(m, table, size);
	if (!m->name || !m->dev_init || !m->dev_fini || !m->pmap_create || !m->pmap_destroy)
		return gm_fail(GM_RET_INVAL, "ops table: name, dev_init, dev_fini, pmap_create and pmap_destroy are required");
	return GM_RET_SUCCESS;
}

static gm_ret_t check_slabs(const struct gm_dev_caps *c, uint32_t granule_bytes)
{
	if (c->slabs > GM_MAX_SLABS)
		return gm_fail(GM_RET_INVAL, "device announces %u pieces of memory, %u are possible", (unsigned)c->slabs,
			       GM_MAX_SLABS);
	for (uint32_t i = 0; i < c->slabs; i++) {
		uint64_t unit = granule_bytes > GM_UNIT_BYTES ? granule_bytes : GM_UNIT_BYTES;

		if (c->slab[i].begin >= c->slab[i].end || c->slab[i].begin % unit || c->slab[i].end % unit)
			return gm_fail(GM_RET_INVAL, "device memory [0x%llx, 0x%llx) is empty or no multiple of %llu bytes",
				       (unsigned long long)c->slab[i].begin, (unsigned long long)c->slab[i].end,
				       (unsigned long long)unit);
	}
	return GM_RET_SUCCESS;
}

/* What the device said of itself must make sense and fit its table. */
static gm_ret_t check_device(struct gm_hal_dev *d)
{
	const struct gm_mmu *m = &d->mmu;
	const struct gm_dev_caps *c = &d->caps;
	const uint64_t legal = (UINT64_C(1) << 22) - (UINT64_C(1) << 12); /* 4 KiB .. 2 MiB may be the smallest */

	if (d->host_dev && (m->host || gm_hal_has(d, GM_CAP_HOST)))
		return gm_fail(GM_RET_INVAL, "backend %s: slot host and capability GM_CAP_HOST are not for devices", m->name);
	if (gm_hal_has(d, GM_CAP_HOST))
		return m->host ? GM_RET_SUCCESS : gm_fail(GM_RET_INVAL, "a host without a host table");
	if (!m->pmap_enter || !m->pmap_remove || !m->tlb_invl || !m->copy)
		return gm_fail(GM_RET_INVAL, "backend %s: pmap_enter, pmap_remove, tlb_invl and copy are required", m->name);
	if (!(c->page_sizes & legal) || (c->page_sizes & ((UINT64_C(1) << 12) - 1)))
		return gm_fail(GM_RET_INVAL, "backend %s: page sizes 0x%llx have no page between 4 KiB and 2 MiB", m->name,
			       (unsigned long long)c->page_sizes);
	if (c->va_bits < 32 || c->va_bits > 64 || !c->max_contexts)
		return gm_fail(GM_RET_INVAL, "backend %s: %u address bits, %u contexts", m->name, (unsigned)c->va_bits,
			       (unsigned)c->max_contexts);
	d->granule_bytes = 1u << __builtin_ctzll(c->page_sizes);
	if (d->granule_bytes != GM_PAGE_BYTES && d->granule_bytes != GM_UNIT_BYTES && d->granule_bytes != GM_BLOCK_BYTES)
		return gm_fail(GM_RET_NOTSUP, "backend %s: its smallest page has %u bytes; 4 KiB, 64 KiB or 2 MiB are possible",
			       m->name, (unsigned)d->granule_bytes);
	if (check_slabs(c, d->granule_bytes))
		return GM_RET_INVAL;
	return check_optional(m, c->caps);
}

/* A broken rule: to the log, whatever its level, and in builds with checks to stderr, as an assertion would. */
static void report_rule(void *arg, const struct gm_violation *v)
{
	struct gm_env *env = arg;

	if (env->log)
		env->log(env->log_arg, GM_LOG_ERROR, v->message);
	if (!aborts(env))
		return;
#ifdef GM_ENABLE_CHECKS
	dprintf(STDERR_FILENO, "gmem: %s\n", v->message);
#endif
	abort();
}

/* Open the device, with the shim around it where that is wanted. The host is ours and needs none. */
static gm_ret_t open_device(struct gm_hal_dev *d, const struct gm_mmu *mmu, void *dev_data)
{
	struct gm_validate_config config = { .size = sizeof(config), .mmu = mmu, .dev_data = dev_data,
					     .report = report_rule, .arg = d->env };

	/* Who made the device with the shim in the first place reads its reports too. */
	d->shim = mmu->dev_init == gm_validate_mmu()->dev_init;
	if (d->shim || !d->host_dev || !validates(d->env))
		return d->mmu.dev_init(dev_data, &d->svc, &d->caps, &d->dev);
	/* The shim holds its callers to the contract by what these slots are. */
	if (!d->mmu.pmap_enter || !d->mmu.pmap_remove || !d->mmu.tlb_invl || !d->mmu.copy)
		return d->mmu.dev_init(dev_data, &d->svc, &d->caps, &d->dev);
	d->shim = true;
	return gm_validate_mmu()->dev_init(&config, &d->svc, &d->caps, &d->dev);
}

gm_ret_t gm_hal_open(struct gm_env *env, const struct gm_mmu *mmu, void *dev_data, struct gm_hal_dev *host_dev,
		     struct gm_hal_dev **out)
{
	struct gm_hal_dev *d;
	gm_ret_t ret;

	d = gm_mem_alloc(env, sizeof(*d));
	if (!d)
		return gm_fail(GM_RET_NOMEM, "no memory for a device");
	d->env = env;
	d->host_dev = host_dev;
	ret = take_table(&d->mmu, mmu);
	if (ret)
		goto err_free;
	gm_services_init(d);
	ret = open_device(d, mmu, dev_data);
	if (ret) {
		/* a host says itself why, in better words */
		if (host_dev)
			ret = gm_fail(ret, "backend %s could not open the device: %s", d->mmu.name, gm_ret_text(ret));
		goto err_free;
	}
	d->caps.name[sizeof(d->caps.name) - 1] = '\0';
	ret = check_device(d);
	if (ret)
		goto err_fini;
	if (d->mmu.host)
		d->host = *d->mmu.host;
	if (d->shim)
		d->mmu = *gm_validate_mmu();
	fill_defaults(&d->mmu);
	*out = d;
	return GM_RET_SUCCESS;
err_fini:
	(d->shim ? gm_validate_mmu() : &d->mmu)->dev_fini(d->dev);
err_free:
	gm_mem_free(env, d, sizeof(*d));
	return ret;
}

void gm_hal_close(struct gm_hal_dev *d)
{
	if (!d)
		return;
	d->mmu.dev_fini(d->dev);
	gm_mem_free(d->env, d, sizeof(*d));
}

void *gm_hal_backend_dev(struct gm_hal_dev *d)
{
	return d->shim ? gm_validate_dev(d->dev) : d->dev;
}

void *gm_hal_backend_pmap(struct gm_hal_dev *d, void *pmap)
{
	return d->shim ? gm_validate_pmap(pmap) : pmap;
}

void gm_hal_frames(struct gm_hal_dev *d, uint64_t pa, uint64_t bytes, bool used)
{
	if (d && d->shim)
		gm_shim_frames(d->dev, pa, bytes, used);
}

/* It is lost from now on; true: it was not before. */
static bool lose(struct gm_hal_dev *d)
{
	if (d->shim)
		gm_shim_lose(d->dev);
	return !atomic_exchange(&d->lost, true);
}

/* A device that is lost is not called any more. */
static bool is_lost(struct gm_hal_dev *d)
{
	return atomic_load_explicit(&d->lost, memory_order_acquire);
}

/* Before every call: the simulation may switch, and no lock may be held. */
static gm_ret_t enter(struct gm_hal_dev *d, const char *op)
{
	gm_env_assert_unlocked(d->env, op);
	gm_may_switch(d->env);
	return is_lost(d) ? GM_RET_NODEV : GM_RET_SUCCESS;
}

/* After it: a lost device stays lost. */
static gm_ret_t leave(struct gm_hal_dev *d, const char *op, gm_ret_t ret)
{
	if (ret == GM_RET_NODEV && lose(d))
		gm_log(d->env, GM_LOG_ERROR, "device %s is lost (in %s)", d->caps.name, op);
	return ret;
}

gm_ret_t gm_hal_pmap_create(struct gm_hal_dev *d, void **pmap)
{
	gm_ret_t ret = enter(d, "pmap_create");

	return ret ? ret : leave(d, "pmap_create", d->mmu.pmap_create(d->dev, pmap));
}

void gm_hal_pmap_destroy(struct gm_hal_dev *d, void *pmap)
{
	(void)enter(d, "pmap_destroy");
	d->mmu.pmap_destroy(pmap);
}

gm_ret_t gm_hal_pmap_enter(struct gm_hal_dev *d, void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	gm_ret_t ret = enter(d, "pmap_enter");

	return ret ? ret : leave(d, "pmap_enter", d->mmu.pmap_enter(pmap, va, pa, bytes, pte));
}

gm_ret_t gm_hal_access(struct gm_hal_dev *d, void *pmap, uint64_t va, void *buf, size_t bytes, bool write)
{
	gm_ret_t ret = enter(d, "access");

	return ret ? ret : leave(d, "access", d->mmu.access(pmap, va, buf, bytes, write));
}

gm_ret_t gm_hal_host_access(struct gm_hal_dev *d, uint64_t host_va, void *buf, size_t bytes, bool write)
{
	struct gm_hal_dev *host = d->host_dev;

	return host ? gm_hal_bus_access(host, host_va, buf, bytes, write) : GM_RET_NOTSUP;
}

gm_ret_t gm_hal_fault_next(struct gm_hal_dev *d, struct gm_dev_fault *fault)
{
	return is_lost(d) ? GM_RET_NODEV : leave(d, "fault_next", d->mmu.fault_next(d->dev, fault));
}

void gm_hal_fault_done(struct gm_hal_dev *d, void *pmap, uint64_t va, uint64_t bytes, gm_ret_t result)
{
	if (enter(d, "fault_done"))
		return; /* who waits there was told when it was lost */
	(void)leave(d, "fault_done", d->mmu.fault_done(pmap, va, bytes, result));
}

void *gm_hal_cpu_ptr(struct gm_hal_dev *d, uint64_t pa, uint64_t bytes)
{
	return is_lost(d) ? NULL : d->mmu.cpu_ptr(d->dev, pa, bytes);
}

gm_ret_t gm_hal_sync_create(struct gm_hal_dev *d, void **sync, int *fd)
{
	gm_ret_t ret = enter(d, "sync_create");

	return ret ? ret : leave(d, "sync_create", d->mmu.sync_create(d->dev, sync, fd));
}

void gm_hal_sync_signal(struct gm_hal_dev *d, void *sync, gm_ret_t result)
{
	/* Of a lost device too: who waits does not know that it is lost. */
	(void)enter(d, "sync_signal");
	d->mmu.sync_signal(d->dev, sync, result);
}

void gm_hal_sync_drop(int fd)
{
	(void)close(fd);
}

gm_ret_t gm_hal_sync_import(struct gm_hal_dev *d, int fd, struct gm_fence *done)
{
	gm_ret_t ret = enter(d, "sync_import");

	return ret ? ret : leave(d, "sync_import", d->mmu.sync_import(d->dev, fd, done));
}

/* ------------------------------------------------------------------ steps */

#define COPY_BATCH 64

/*
 * Wait for the engine and drop the fence. A device that does not answer within
 * the bound is lost, and stopped before anything of the caller's is given up
 * that it might still touch: steps on a stack, staging memory, frames.
 */
static gm_ret_t await(struct gm_hal_dev *d, struct gm_fence *done, uint64_t deadline_ns)
{
	gm_ret_t ret = gm_fence_wait_until(done, deadline_ns);

	if (ret == GM_RET_TIMEDOUT && !gm_fence_done(done)) {
		gm_log(d->env, GM_LOG_ERROR, "device %s did not finish a transfer in time: given up as lost", d->caps.name);
		(void)lose(d);
		d->mmu.dev_halt(d->dev);
		if (!gm_fence_done(done)) {
			gm_log(d->env, GM_LOG_ERROR, "device %s could not be stopped: what it has of the host's memory is unsafe",
			       d->caps.name);
			return ret; /* the fence is left to it */
		}
	}
	gm_fence_unref(done);
	return ret;
}

static gm_ret_t copy_and_wait(struct gm_hal_dev *d, const struct gm_copy *copies, size_t n, uint64_t deadline_ns)
{
	struct gm_fence *done = gm_fence_new(d->env);
	gm_ret_t ret;

	if (!done)
		return GM_RET_NOMEM;
	ret = d->mmu.copy(d->dev, copies, n, done);
	if (!ret)
		return await(d, done, deadline_ns);
	gm_fence_unref(done);
	return ret;
}

/* The run of COPY steps at `i`, in one call; returns how many it was. */
static size_t walk_copies(struct gm_hal_dev *d, struct gm_step *steps, size_t i, size_t n, uint64_t deadline_ns)
{
	struct gm_copy batch[COPY_BATCH];
	size_t count = 0;
	gm_ret_t ret;

	while (i + count < n && count < COPY_BATCH && steps[i + count].op == GM_STEP_COPY) {
		batch[count] = steps[i + count].copy;
		count++;
	}
	ret = copy_and_wait(d, batch, count, deadline_ns);
	for (size_t k = 0; k < count; k++)
		steps[i + k].ret = ret;
	return count;
}

static void walk_one(struct gm_hal_dev *d, struct gm_step *s)
{
	switch (s->op) {
	case GM_STEP_REMOVE:
		s->ret = d->mmu.pmap_remove(s->pmap, s->va, s->bytes);
		break;
	case GM_STEP_INVL:
		s->ret = d->mmu.tlb_invl(s->pmap, s->va, s->bytes);
		break;
	case GM_STEP_ENTER:
		s->ret = d->mmu.pmap_enter(s->pmap, s->va, s->pa, s->bytes, s->pte);
		break;
	case GM_STEP_COPY:
		assert(!"copies are walked in batches");
		break;
	}
}

static gm_ret_t walk(struct gm_hal_dev *d, struct gm_step *steps, size_t n, uint64_t deadline_ns)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	for (size_t i = 0; i < n && !ret;) {
		size_t count = 1;

		gm_may_switch(d->env);
		if (is_lost(d))
			return GM_RET_NODEV;
		if (steps[i].op == GM_STEP_COPY)
			count = walk_copies(d, steps, i, n, deadline_ns);
		else
			walk_one(d, &steps[i]);
		ret = steps[i].ret;
		i += count;
	}
	return ret;
}

static gm_ret_t submit(struct gm_hal_dev *d, struct gm_step *steps, size_t n, uint64_t deadline_ns)
{
	struct gm_fence *done = gm_fence_new(d->env);
	gm_ret_t ret;

	if (!done)
		return GM_RET_NOMEM;
	ret = d->mmu.submit(d->dev, steps, n, done);
	if (!ret)
		return await(d, done, deadline_ns);
	gm_fence_unref(done);
	return ret;
}

gm_ret_t gm_hal_run_now(struct gm_hal_dev *d, struct gm_step *steps, size_t n)
{
	gm_ret_t ret = enter(d, "steps");

	for (size_t i = 0; i < n && !ret; i++) {
		if (is_lost(d))
			return GM_RET_NODEV;
		walk_one(d, &steps[i]);
		ret = steps[i].ret;
	}
	return leave(d, "steps", ret);
}

gm_ret_t gm_hal_run(struct gm_hal_dev *d, struct gm_step *steps, size_t n, uint64_t deadline_ns)
{
	gm_ret_t ret;

	for (size_t i = 0; i < n; i++)
		steps[i].ret = GM_RET_CANCELED;
	if (!n)
		return GM_RET_SUCCESS;
	ret = enter(d, "steps");
	if (ret)
		return ret;
	/* A single step gains nothing from a message of its own. */
	if (n > 1 && gm_hal_has(d, GM_CAP_SUBMIT))
		ret = submit(d, steps, n, deadline_ns);
	else
		ret = walk(d, steps, n, deadline_ns);
	return leave(d, "steps", ret);
}
