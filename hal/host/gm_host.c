/* SPDX-License-Identifier: MIT */
/*
 * The host of this machine, over userfaultfd: ops table and life of a pmap.
 *
 *     dev_init: probe --pmap_create: descriptors, bounce, queues--> pmap
 *     pmap --the program closes our descriptors, and nobody kept them--> lost --reopen--> pmap, nothing watched
 *     pmap --pmap_destroy--> gone (nothing watched, nothing in slots)
 *
 * The dispatch layer calls these with valid arguments (gm_host.h); assertions
 * only. What the fault handler needs is allocated when a pmap is made, except
 * address space of the staging arena: it must not depend on malloc().
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#define HOST_PAGE_SIZES ((UINT64_C(1) << 12) | (UINT64_C(1) << 21))

gm_ret_t gm_host_dev_open(struct gm_env *env, const struct gm_host_way *way, struct gm_dev_caps *caps, void **dev)
{
	struct gm_host_dev *d;
	struct utsname un;

	d = gm_mem_alloc(env, sizeof(*d));
	if (!d)
		return gm_fail(GM_RET_NOMEM, "no memory for the host");
	d->env = env;
	d->way = *way;
	gm_host_bus_init(d);
	gm_mutex_init(env, &d->lock, GM_RANK_LEAF);
	LIST_INIT(&d->pmaps);
	*caps = (struct gm_dev_caps){
		.caps = GM_CAP_HOST | GM_CAP_ACCESS,
		.va_bits = GM_HOST_VA_BITS,
		.page_sizes = HOST_PAGE_SIZES,
		.max_contexts = UINT32_MAX,
	};
	if (uname(&un))
		un.release[0] = '\0';
	snprintf(caps->name, sizeof(caps->name), "host, Linux %.50s", un.release);
	*dev = d;
	return GM_RET_SUCCESS;
}

static gm_ret_t dev_init(void *dev_data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev)
{
	static const struct gm_host_way full = { GM_HOST_DOOR_CALL | GM_HOST_DOOR_DEVICE, GM_HOST_FEATURES_APP };
	gm_ret_t ret = gm_host_probe(UINT64_MAX);

	(void)svc;
	return ret ? ret : gm_host_dev_open(dev_data, &full, caps, dev);
}

void gm_host_dev_fini(void *dev)
{
	struct gm_host_dev *d = dev;

	gm_host_closed_free(d->closed);
	gm_host_bus_fini(d);
	gm_mutex_fini(d->env, &d->lock);
	gm_mem_free(d->env, d, sizeof(*d));
}

gm_ret_t gm_host_open_app(const struct gm_host_pmap *p, uint64_t more, int *fd, bool *protects)
{
	struct gm_host_way way = p->dev->way;
	uint64_t protect = way.features & GM_UFFD_FEATURE_MOVE ? GM_HOST_FEATURES_PROTECT : 0;
	gm_ret_t ret;

	way.features |= protect | more;
	ret = gm_host_open(&way, fd);
	*protects = protect && !ret;
	way.features &= ~protect;
	return ret == GM_RET_NOTSUP && protect ? gm_host_open(&way, fd) : ret;
}

gm_ret_t gm_host_pmap_create(void *dev, void **pmap)
{
	struct gm_host_dev *d = dev;
	struct gm_host_pmap *p;
	gm_ret_t ret;
	int fd = -1;

	p = gm_mem_alloc(d->env, sizeof(*p));
	if (!p)
		return gm_fail(GM_RET_NOMEM, "no memory for a view of the process");
	p->env = d->env;
	p->dev = d;
	atomic_init(&p->lost, false);
	p->knows_malloc = gm_host_knows_malloc(d);
	ret = d->way.features ? gm_host_open_app(p, 0, &fd, &p->protects) : GM_RET_SUCCESS;
	if (ret)
		goto err_free;
	p->fd_app = -1;
	gm_host_set_app(p, fd);
	ret = gm_host_open_pagemap(&p->pagemap);
	if (ret)
		goto err_app;
	ret = gm_host_msg_init(p);
	if (ret)
		goto err_pagemap;
	ret = gm_host_slots_init(p);
	if (ret)
		goto err_msg;
	gm_host_keep_init(p);
	gm_host_shared_init(p);
	gm_host_inthread_init(p);
	gm_lock(p->env, &d->lock);
	LIST_INSERT_HEAD(&d->pmaps, p, in_dev);
	gm_unlock(p->env, &d->lock);
	*pmap = p;
	return GM_RET_SUCCESS;
err_msg:
	gm_host_msg_fini(p);
err_pagemap:
	gm_host_fd_fini(&p->pagemap);
err_app:
	if (p->fd_app >= 0) {
		close(p->fd_app);
		gm_host_number_give(p->fd_app);
	}
err_free:
	gm_mem_free(d->env, p, sizeof(*p));
	return ret;
}

void gm_host_pmap_destroy(void *pmap)
{
	struct gm_host_pmap *p = pmap;

	gm_lock(p->env, &p->dev->lock);
	LIST_REMOVE(p, in_dev);
	gm_unlock(p->env, &p->dev->lock);
	gm_host_fork_forget(p);
	gm_host_shared_fini(p);
	gm_host_slots_fini(p);
	gm_host_close_ours(p);
	if (p->fd_app >= 0)
		gm_host_number_give(p->fd_app);
	gm_host_inthread_fini(p);
	gm_host_keep_fini(p);
	gm_mem_free(p->env, p, sizeof(*p));
}

/* One access as the program itself would make it, with errors instead of signals. Waits for absent pages. */
gm_ret_t gm_host_access(void *pmap, uint64_t va, void *buf, size_t bytes, bool write)
{
	struct iovec here = { buf, bytes };
	struct iovec there = { (void *)(uintptr_t)va, bytes };
	ssize_t n;

	(void)pmap;
	n = write ? process_vm_writev(getpid(), &here, 1, &there, 1, 0) :
		    process_vm_readv(getpid(), &here, 1, &there, 1, 0);
	if (n == (ssize_t)bytes)
		return GM_RET_SUCCESS;
	if (n < 0 && errno != EFAULT)
		return gm_fail(GM_RET_PERM, "process_vm_readv or process_vm_writev is refused: error %d", errno);
	return GM_RET_FAULT;
}

/*
 * What happens to accesses that wait, or that come later to pages that are
 * away, where nobody kept fd_app: the kernel serves them zeros. Nothing prevents that;
 * here it is only made loud.
 */
gm_ret_t gm_host_lost(struct gm_host_pmap *p)
{
	if (gm_host_revive(p))
		return GM_RET_AGAIN;
	if (!atomic_exchange(&p->lost, true) && p->dev->way.features)
		gm_log(p->env, GM_LOG_ERROR,
		       "the program closed the library's descriptors: memory that is away is lost");
	return GM_RET_NODEV;
}

const struct gm_host_ops gm_host_ops_full = {
	.mem_map = gm_host_mem_map,
	.mem_unmap = gm_host_any_unmap,
	.mem_inherit = gm_host_mem_inherit,
	.mem_protect = gm_host_mem_protect,
	.mem_probe = gm_host_any_probe,
	.mem_rights = gm_host_any_rights,
	.mem_kind = gm_host_mem_kind,
	.mem_huge = gm_host_mem_huge,
	.mem_content = gm_host_mem_content,
	.mem_present = gm_host_mem_present,
	.watch = gm_host_any_watch,
	.unwatch = gm_host_any_unwatch,
	.watch_stores = gm_host_any_watch_stores,
	.slot_alloc = gm_host_slot_alloc,
	.slot_free = gm_host_any_slot_free,
	.slot_drop = gm_host_any_slot_drop,
	.steal = gm_host_any_steal,
	.restore = gm_host_any_restore,
	.fill = gm_host_any_fill,
	.fill_protected = gm_host_fill_protected,
	.unprotect = gm_host_any_unprotect,
	.zero = gm_host_any_zero,
	.poison = gm_host_any_poison,
	.unmark = gm_host_any_unmark,
	.wake = gm_host_any_wake,
	.bounce = gm_host_bounce,
	.msg_read = gm_host_any_msg_read,
	.msg_wait = gm_host_msg_wait,
	.msg_kick = gm_host_msg_kick,
	.settled = gm_host_settled,
	.bus_access = gm_host_bus_access,
	.bus_touch = gm_host_bus_touch,
	.bus_bring = gm_host_bus_bring,
	.msg_fd = gm_host_msg_fd,
	.at_fork = gm_host_at_fork,
	.keep = gm_host_keep,
	.reopen = gm_host_reopen,
	.serve_forks = gm_host_serve_forks,
	.child_fill = gm_host_child_fill,
	.child_read = gm_host_child_read,
	.child_close = gm_host_child_close,
	.child_fail = gm_host_child_fail,
	.share_map = gm_host_share_map,
	.share_slot = gm_host_share_slot,
	.share_fd = gm_host_share_fd,
	.mem_inthread = gm_host_mem_inthread,
	.inthread_has = gm_host_inthread_has,
};

const struct gm_mmu *gm_host_mmu(void)
{
	static const struct gm_mmu mmu = {
		.abi = GM_HAL_ABI,
		.size = sizeof(struct gm_mmu),
		.name = "host",
		.dev_init = dev_init,
		.dev_fini = gm_host_dev_fini,
		.pmap_create = gm_host_pmap_create,
		.pmap_destroy = gm_host_pmap_destroy,
		.access = gm_host_access,
		.host = &gm_host_ops_full,
	};

	return &mmu;
}
