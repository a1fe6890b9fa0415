/* SPDX-License-Identifier: MIT */
/* Devices: created from a table or by name, given memory, queried, destroyed. */
#include "config.h"

#include <string.h>

#include "core/gm_as.h"
#include "core/gm_devq.h"
#include "hal/gm_backends.h"
#include "hal/gm_handle.h"

static gm_ret_t publish(struct gm_dev *dev)
{
	struct gm_lib *lib = dev->lib;
	gm_ret_t ret = GM_RET_NOSPC;

	gm_lock(lib->env, &lib->lock);
	for (unsigned i = 0; i < GM_MAX_DEVS && ret; i++) {
		if (lib->devs[i])
			continue;
		dev->index = i;
		lib->devs[i] = dev;
		ret = GM_RET_SUCCESS;
	}
	gm_unlock(lib->env, &lib->lock);
	return ret ? gm_fail(ret, "an instance has at most %u devices", GM_MAX_DEVS) : ret;
}

static void unpublish(struct gm_dev *dev)
{
	gm_lock(dev->lib->env, &dev->lib->lock);
	dev->lib->devs[dev->index] = NULL;
	gm_unlock(dev->lib->env, &dev->lib->lock);
}

static void fini(struct gm_dev *dev)
{
	struct gm_env *env = dev->lib->env;

	gm_handle_del(dev, GM_HANDLE_DEV);
	gm_node_fini(&dev->node);
	gm_waitq_fini(env, &dev->waitq);
	gm_mutex_fini(env, &dev->lock);
	gm_hal_close(dev->hal);
	gm_mem_free(env, dev, sizeof(*dev));
}

/* A device whose backend is open, and nothing else. */
static gm_ret_t make(struct gm_lib *lib, const struct gm_mmu *mmu, void *dev_data, struct gm_dev **out)
{
	struct gm_dev *dev = gm_mem_alloc(lib->env, sizeof(*dev));
	gm_ret_t ret = GM_RET_NOMEM;

	if (!dev || gm_handle_add(dev, GM_HANDLE_DEV)) {
		gm_mem_free(lib->env, dev, sizeof(*dev));
		return gm_fail(ret, "no memory for a device");
	}
	dev->lib = lib;
	ret = gm_hal_open(lib->env, mmu, dev_data, lib->host, &dev->hal);
	if (ret) {
		gm_handle_del(dev, GM_HANDLE_DEV);
		gm_mem_free(lib->env, dev, sizeof(*dev));
		return ret;
	}
	*out = dev;
	return ret;
}

gm_ret_t gm_dev_create(struct gm_lib *lib, const struct gm_mmu *mmu, void *dev_data, struct gm_dev **out)
{
	struct gm_dev *dev;
	gm_ret_t ret = gm_handle_check(lib, GM_HANDLE_LIB);

	if (ret)
		return ret;
	if (!mmu || !out)
		return gm_fail(GM_RET_INVAL, "gm_dev_create: mmu and dev must not be NULL");
	ret = make(lib, mmu, dev_data, &dev);
	if (ret)
		return ret;
	gm_node_init(&dev->node, lib->env, dev->hal->granule_bytes);
	dev->node.hal = dev->hal;
	gm_mutex_init(lib->env, &dev->lock, GM_RANK_QUEUE);
	gm_waitq_init(lib->env, &dev->waitq);
	TAILQ_INIT(&dev->ctxs);
	dev->hal->fault_arg = dev;
	dev->hal->fault_ready = gm_devq_ready;
	for (uint32_t i = 0; i < dev->hal->caps.slabs && !ret; i++)
		ret = gm_node_add_slab(&dev->node, dev->hal->caps.slab[i].begin, dev->hal->caps.slab[i].end);
	if (!ret)
		ret = publish(dev);
	if (ret) {
		fini(dev);
		return ret;
	}
	*out = dev;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_dev_open(struct gm_lib *lib, const char *spec, struct gm_dev **out)
{
	const struct gm_backend *backend;
	union gm_backend_data data;
	gm_ret_t ret = gm_handle_check(lib, GM_HANDLE_LIB);

	if (ret)
		return ret;
	if (!spec || !out)
		return gm_fail(GM_RET_INVAL, "gm_dev_open: spec and dev must not be NULL");
	ret = gm_backend_parse(spec, &backend, &data);
	return ret ? ret : gm_dev_create(lib, backend->mmu(), &data, out);
}

/* Who moved the last pages away gives their frames back a moment after they have left. */
static void wait_frames(struct gm_dev *dev)
{
	uint64_t total, avail, reserved;

	gm_node_room(&dev->node, &total, &avail, &reserved);
	while (avail < total) {
		gm_yield(dev->lib->env);
		gm_node_room(&dev->node, &total, &avail, &reserved);
	}
}

gm_ret_t gm_dev_destroy(struct gm_dev *dev)
{
	unsigned contexts, exports;
	gm_ret_t ret;

	if (!dev)
		return GM_RET_SUCCESS;
	ret = gm_handle_check(dev, GM_HANDLE_DEV);
	if (ret)
		return ret;
	gm_lock(dev->lib->env, &dev->lock);
	contexts = dev->contexts;
	exports = dev->exports;
	gm_unlock(dev->lib->env, &dev->lock);
	if (contexts)
		return gm_fail(GM_RET_BUSY, "device %s is attached to %u address spaces: detach it first",
			       dev->hal->caps.name, contexts);
	if (exports)
		return gm_fail(GM_RET_BUSY, "device %s has %u exported fences that are pending: signal or cancel them first",
			       dev->hal->caps.name, exports);
	gm_devq_stop(dev);
	wait_frames(dev);
	unpublish(dev);
	fini(dev);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_dev_register_physmem(struct gm_dev *dev, uint64_t begin, uint64_t end)
{
	uint64_t unit = GM_UNIT_BYTES;
	gm_ret_t ret = gm_handle_check(dev, GM_HANDLE_DEV);

	if (ret)
		return ret;
	if (dev->hal->granule_bytes > unit)
		unit = dev->hal->granule_bytes;
	if (begin >= end || begin % unit || end % unit)
		return gm_fail(GM_RET_INVAL, "gm_dev_register_physmem: [0x%llx, 0x%llx) is empty or no multiple of %llu bytes",
			       (unsigned long long)begin, (unsigned long long)end, (unsigned long long)unit);
	if (dev->hal->caps.va_bits < 64 && end > UINT64_C(1) << dev->hal->caps.va_bits)
		return gm_fail(GM_RET_INVAL, "gm_dev_register_physmem: [0x%llx, 0x%llx) is beyond the device's %u address bits",
			       (unsigned long long)begin, (unsigned long long)end, (unsigned)dev->hal->caps.va_bits);
	return gm_node_add_slab(&dev->node, begin, end);
}

gm_ret_t gm_dev_query(struct gm_dev *dev, struct gm_dev_info *info)
{
	uint64_t total, avail, reserved;
	gm_ret_t ret = gm_handle_check(dev, GM_HANDLE_DEV);

	if (ret)
		return ret;
	if (!info)
		return gm_fail(GM_RET_INVAL, "gm_dev_query: info must not be NULL");
	gm_node_room(&dev->node, &total, &avail, &reserved);
	*info = (struct gm_dev_info){
		.caps = dev->hal->caps.caps,
		.va_bits = dev->hal->caps.va_bits,
		.page_sizes = dev->hal->caps.page_sizes,
		.granule_bytes = dev->hal->granule_bytes,
		.max_contexts = dev->hal->caps.max_contexts,
		.mem_bytes = total * GM_UNIT_BYTES,
		.mem_free_bytes = avail * GM_UNIT_BYTES,
		.index = dev->index,
	};
	memcpy(info->name, dev->hal->caps.name, sizeof(info->name));
	return GM_RET_SUCCESS;
}

void *gm_dev_backend(struct gm_dev *dev)
{
	return gm_handle_check(dev, GM_HANDLE_DEV) ? NULL : gm_hal_backend_dev(dev->hal);
}
