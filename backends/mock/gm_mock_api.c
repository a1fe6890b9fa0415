/* SPDX-License-Identifier: MIT */
/*
 * The public functions on the mock: what a driver's runtime offers beside the ops table. They look at what they are
 * given, as every public function does, and hand it to the device.
 *
 * This is the one file of the backend that knows the registry of the library's handles (hal/gm_handle.h): a device,
 * a kernel's thread or hardware that is none is told from one without being followed. What they are is entered here:
 *
 *     device:    dev_init() --> admitted --> dev_fini()
 *     thread:    launched   --> admitted --> its kernel has returned
 *     hardware:  opened     --> admitted --> closed
 *
 * Functions on scripts are in gm_mock_script.c, those on hardware in gm_mock_hw.c.
 */
#include "config.h"

#include <stdio.h>

#include <gmem/dev.h>

#include "backends/mock/gm_mock_internal.h"
#include "hal/gm_handle.h"

/* ------------------------------------------------------ what is accepted */

gm_ret_t gm_mock_admit_dev(struct gm_mock *m)
{
	return gm_handle_add(m, GM_HANDLE_MOCK);
}

void gm_mock_dismiss_dev(struct gm_mock *m)
{
	gm_handle_del(m, GM_HANDLE_MOCK);
}

bool gm_mock_is_admitted(const void *dev)
{
	return gm_handle_live(dev, GM_HANDLE_MOCK);
}

gm_ret_t gm_mock_admit_thread(struct gm_mock_thread *thread)
{
	return gm_handle_add(thread, GM_HANDLE_MOCK_THREAD);
}

void gm_mock_dismiss_thread(struct gm_mock_thread *thread)
{
	gm_handle_del(thread, GM_HANDLE_MOCK_THREAD);
}

gm_ret_t gm_mock_admit_hw(struct gm_mock_hw *hw)
{
	return gm_handle_add(hw, GM_HANDLE_MOCK_HW);
}

void gm_mock_dismiss_hw(struct gm_mock_hw *hw)
{
	gm_handle_del(hw, GM_HANDLE_MOCK_HW);
}

bool gm_mock_is_hw(const struct gm_mock_hw *hw)
{
	return gm_handle_live(hw, GM_HANDLE_MOCK_HW);
}

gm_ret_t gm_mock_check_hw(const char *function, const struct gm_mock_hw *hw)
{
	return gm_mock_is_hw(hw) ? GM_RET_SUCCESS : gm_handle_refuse(function, "hw", hw, GM_HANDLE_MOCK_HW);
}

gm_ret_t gm_mock_refuse(const char *function, const char *why)
{
	return gm_refuse(function, why);
}

struct gm_mock *gm_mock_of(const char *function, struct gm_dev *dev)
{
	struct gm_mock *m;

	if (!gm_handle_live(dev, GM_HANDLE_DEV)) {
		(void)gm_handle_refuse(function, "dev", dev, GM_HANDLE_DEV);
		return NULL;
	}
	m = gm_dev_backend(dev);
	if (gm_mock_is_admitted(m))
		return m;
	(void)gm_refuse(function, "dev is a device of another backend: pass a mock device");
	return NULL;
}

/* ----------------------------------------------------------------- devices */

gm_ret_t gm_mock_launch(struct gm_ctx *ctx, gm_mock_kernel kernel, void *arg, unsigned threads,
			struct gm_fence **out)
{
	gm_ret_t ret = gm_handle_check(ctx, GM_HANDLE_CTX);
	struct gm_fence *fence;
	struct gm_mock *m;

	if (ret)
		return ret;
	m = gm_mock_of(__func__, gm_ctx_dev(ctx));
	if (!m)
		return GM_RET_INVAL;
	if (!kernel || !out)
		return gm_refuse(__func__, "kernel and fence must not be NULL");
	if (threads == 0 || threads > GM_MOCK_MAX_THREADS)
		return gm_refuse(__func__, "threads must be 1 to 64");
	fence = m->svc->fence_create(m->svc->self);
	if (!fence)
		return GM_RET_NOMEM;
	/* One reference for the launch, one for the caller, before anybody can give one back. */
	(void)gm_fence_get(fence);
	ret = gm_mock_launch_start(gm_ctx_pmap(ctx), kernel, arg, threads, fence);
	if (ret != GM_RET_SUCCESS) {
		gm_fence_put(fence);
		gm_fence_put(fence);
		return ret;
	}
	*out = fence;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_plant(struct gm_dev *dev, enum gm_mock_bug bug)
{
	struct gm_mock *m = gm_mock_of(__func__, dev);

	if (!m)
		return GM_RET_INVAL;
	return gm_mock_dev_plant(m, bug) ? gm_refuse(__func__, "bug is none of enum gm_mock_bug") : GM_RET_SUCCESS;
}

gm_ret_t gm_mock_stats(struct gm_dev *dev, struct gm_mock_stats *stats)
{
	struct gm_mock *m = gm_mock_of(__func__, dev);

	if (!m)
		return GM_RET_INVAL;
	if (!stats)
		return gm_refuse(__func__, "stats must not be NULL");
	gm_mock_dev_stats(m, stats);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_memory(struct gm_dev *dev, void **ptr, uint64_t *bytes)
{
	struct gm_mock *m = gm_mock_of(__func__, dev);

	if (!m)
		return GM_RET_INVAL;
	if (!ptr || !bytes)
		return gm_refuse(__func__, "ptr and bytes must not be NULL");
	*ptr = gm_mock_vram(m, GM_MOCK_PA_BASE, m->config.vram_bytes);
	*bytes = m->config.vram_bytes;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_parse(const char *text, struct gm_mock_config *config)
{
	char word[64] = "", why[160];

	if (!config)
		return gm_refuse(__func__, "config must not be NULL");
	if (gm_mock_config_parse(text, config, word, sizeof(word)) == GM_RET_SUCCESS)
		return GM_RET_SUCCESS;
	(void)snprintf(why, sizeof(why), "\"%s\" is not understood, or makes no sense with the rest: see gmem/mock.h", word);
	return gm_refuse(__func__, why);
}

/* ----------------------------------------------------------------- kernels */

gm_ret_t gm_mock_load(struct gm_mock_thread *thread, uint64_t va, void *buf, size_t bytes)
{
	gm_ret_t ret = gm_handle_check(thread, GM_HANDLE_MOCK_THREAD);

	if (ret)
		return ret;
	if (!buf && bytes > 0)
		return gm_refuse(__func__, "buf must not be NULL");
	return gm_mock_access_range(thread, va, buf, bytes, GM_MOCK_LOAD);
}

gm_ret_t gm_mock_store(struct gm_mock_thread *thread, uint64_t va, const void *buf, size_t bytes)
{
	gm_ret_t ret = gm_handle_check(thread, GM_HANDLE_MOCK_THREAD);

	if (ret)
		return ret;
	if (!buf && bytes > 0)
		return gm_refuse(__func__, "buf must not be NULL");
	/* One path for both directions; a store does not write to `buf`. */
	return gm_mock_access_range(thread, va, (void *)(uintptr_t)buf, bytes, GM_MOCK_STORE);
}

gm_ret_t gm_mock_fetch_add(struct gm_mock_thread *thread, uint64_t va, uint64_t add, uint64_t *old)
{
	uint64_t word = add;
	gm_ret_t ret = gm_handle_check(thread, GM_HANDLE_MOCK_THREAD);

	if (ret)
		return ret;
	if (va % sizeof(word))
		return gm_refuse(__func__, "va must be a multiple of 8");
	ret = gm_mock_access_range(thread, va, &word, sizeof(word), GM_MOCK_ADD);
	if (ret == GM_RET_SUCCESS && old)
		*old = word;
	return ret;
}

gm_ret_t gm_mock_compare_swap(struct gm_mock_thread *thread, uint64_t va, uint64_t expected, uint64_t desired,
			      uint64_t *old)
{
	uint64_t word[2] = { expected, desired };
	gm_ret_t ret = gm_handle_check(thread, GM_HANDLE_MOCK_THREAD);

	if (ret)
		return ret;
	if (va % sizeof(word[0]))
		return gm_refuse(__func__, "va must be a multiple of 8");
	ret = gm_mock_access_range(thread, va, word, sizeof(word[0]), GM_MOCK_SWAP);
	if (ret == GM_RET_SUCCESS && old)
		*old = word[0];
	return ret;
}

void gm_mock_yield(struct gm_mock_thread *thread)
{
	if (!gm_handle_check(thread, GM_HANDLE_MOCK_THREAD))
		gm_mock_thread_yield(thread);
}
