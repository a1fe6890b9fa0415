/* SPDX-License-Identifier: MIT */
/*
 * Fences that leave the library as descriptors, and come in as such.
 *
 *     export: fence --(on_done)--> the backend is told the result --> whoever waits for the descriptor
 *     import: descriptor --> backend signals `inner` --(on_done)--> the caller's fence
 *
 * An export that is pending counts in its device, which cannot be destroyed
 * then: the backend's object must be signalled once, and only the fence knows
 * when. The fence lives until then by the reference of its callback.
 *
 * An import has two fences, because the backend signals its own however often
 * the caller cancels and forgets the other: `inner` lives by the reference of
 * its callback until the backend is done with it: at dev_halt() (NODEV) or
 * dev_fini() (CANCELED) at the latest.
 *
 * On failure: what was made is taken apart in reverse; an import whose
 * callback is in place is ended by signalling `inner` with the failure.
 */
#include "config.h"

#include "core/gm_dev.h"
#include "hal/gm_fence.h"
#include "hal/gm_handle.h"

struct gm_export {
	struct gm_dev *dev;
	void *sync; /* the backend's */
};

struct gm_import {
	struct gm_env *env;
	struct gm_fence *fence; /* the caller's, one reference */
};

static void count_export(struct gm_dev *dev, int by)
{
	gm_lock(dev->lib->env, &dev->lock);
	dev->exports += (unsigned)by;
	gm_unlock(dev->lib->env, &dev->lock);
}

/* The last line is the end of what the device waits for: nothing of it is used after. */
static void export_end(struct gm_export *export, gm_ret_t result)
{
	struct gm_dev *dev = export->dev;

	gm_hal_sync_signal(dev->hal, export->sync, result);
	gm_mem_free(dev->lib->env, export, sizeof(*export));
	count_export(dev, -1);
}

static void exported(void *arg, gm_ret_t result)
{
	export_end(arg, result);
}

static gm_ret_t check_dev(struct gm_dev *dev, const char *who)
{
	if (!gm_hal_has(dev->hal, GM_CAP_SYNC))
		return gm_fail(GM_RET_NOTSUP, "%s: device %s has no descriptors of completion", who, dev->hal->caps.name);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_fence_export(struct gm_fence *fence, struct gm_dev *dev, int *fd)
{
	struct gm_export *export;
	struct gm_env *env;
	int made = -1;
	gm_ret_t ret = gm_handle_check(fence, GM_HANDLE_FENCE);

	if (!ret)
		ret = gm_handle_check(dev, GM_HANDLE_DEV);
	if (ret)
		return ret;
	if (!fd)
		return gm_fail(GM_RET_INVAL, "gm_fence_export: fd must not be NULL");
	env = dev->lib->env;
	if (!gm_fence_is_on(fence, env))
		return gm_fail(GM_RET_INVAL, "gm_fence_export: the fence is another instance's than the device");
	ret = check_dev(dev, "gm_fence_export");
	if (ret)
		return ret;
	export = gm_mem_alloc(env, sizeof(*export));
	if (!export)
		return gm_fail(GM_RET_NOMEM, "no memory for an export");
	export->dev = dev;
	ret = gm_hal_sync_create(dev->hal, &export->sync, &made);
	if (ret) {
		gm_mem_free(env, export, sizeof(*export));
		return gm_fail(ret, "gm_fence_export: device %s: %s", dev->hal->caps.name,
			       ret == GM_RET_NOSPC ? "no descriptors are left: close some" : gm_ret_text(ret));
	}
	count_export(dev, 1);
	ret = gm_fence_on_done(fence, exported, export);
	if (ret) {
		gm_hal_sync_drop(made);
		export_end(export, GM_RET_CANCELED);
		return gm_fail(ret, "no memory for an export");
	}
	*fd = made;
	return GM_RET_SUCCESS;
}

/* Also where the caller has cancelled its fence: then the result stays what it is. */
static void imported(void *arg, gm_ret_t result)
{
	struct gm_import *import = arg;

	(void)gm_fence_finish(import->fence, result);
	gm_fence_unref(import->fence);
	gm_mem_free(import->env, import, sizeof(*import));
}

/* The two fences, tied; SUCCESS: `inner` has one reference besides its callback's, and so has the caller's fence. */
static gm_ret_t import_new(struct gm_env *env, struct gm_fence **inner, struct gm_fence **fence)
{
	struct gm_import *import = gm_mem_alloc(env, sizeof(*import));
	struct gm_fence *in = gm_fence_new(env), *out = gm_fence_new(env);

	if (!import || !in || !out)
		goto err;
	import->env = env;
	import->fence = gm_fence_ref(out);
	if (gm_fence_publish(out) != GM_RET_SUCCESS || gm_fence_on_done(in, imported, import) != GM_RET_SUCCESS) {
		gm_fence_unref(out);
		goto err;
	}
	*inner = in;
	*fence = out;
	return GM_RET_SUCCESS;
err:
	gm_fence_unref(out);
	gm_fence_unref(in);
	gm_mem_free(env, import, sizeof(*import));
	return gm_fail(GM_RET_NOMEM, "no memory for an import");
}

gm_ret_t gm_fence_import(struct gm_dev *dev, int fd, struct gm_fence **out)
{
	struct gm_fence *inner, *fence;
	gm_ret_t ret = gm_handle_check(dev, GM_HANDLE_DEV);

	if (ret)
		return ret;
	if (!out || fd < 0)
		return gm_fail(GM_RET_INVAL, "gm_fence_import: fence must not be NULL, fd not negative");
	ret = check_dev(dev, "gm_fence_import");
	if (!ret)
		ret = import_new(dev->lib->env, &inner, &fence);
	if (ret)
		return ret;
	ret = gm_hal_sync_import(dev->hal, fd, inner);
	if (ret)
		(void)gm_fence_finish(inner, ret);
	gm_fence_unref(inner);
	if (ret) {
		gm_fence_unref(fence);
		return gm_fail(ret, "gm_fence_import: device %s, descriptor %d: %s", dev->hal->caps.name, fd,
			       gm_ret_text(ret));
	}
	*out = fence;
	return GM_RET_SUCCESS;
}
