/* SPDX-License-Identifier: MIT */
/*
 * The same from C++, with the header of driver vendors; then a whole life: instance, mock device, space, memory, a
 * kernel on it. Exit: 0 good, 77 good as far as it goes without the right to userfaultfd.
 */
#include <cstring>
#include <iostream>

#include <gmem/gmem.h>
#include <gmem/hal.h>

namespace {

gm_ret_t add_one(gm_mock_thread *thread, unsigned, void *array)
{
	std::uint64_t value = 0;
	gm_ret_t ret = gm_mock_load(thread, GM_VA(array), &value, sizeof(value));

	value++;
	return ret ? ret : gm_mock_store(thread, GM_VA(array), &value, sizeof(value));
}

bool failed(gm_ret_t ret)
{
	if (ret)
		std::cerr << gm_ret_name(ret) << ": " << gm_last_error() << '\n';
	return ret != GM_RET_SUCCESS;
}

int run_kernel(gm_as *as, gm_ctx *ctx)
{
	gm_fence *fence = nullptr;
	void *memory = nullptr;
	std::uint64_t value = 41;

	if (failed(gm_alloc(as, sizeof(value), 0, &memory)))
		return 1;
	std::memcpy(memory, &value, sizeof(value));
	if (failed(gm_mock_launch(ctx, add_one, memory, 1, &fence)) || failed(gm_fence_wait(fence, GM_FOREVER_NS)))
		return 1;
	gm_fence_put(fence);
	std::memcpy(&value, memory, sizeof(value));
	if (failed(gm_free(as, memory)))
		return 1;
	return value == 42 ? 0 : 1;
}

int whole_life()
{
	gm_lib_config config = {};
	gm_as_config space = {};
	gm_lib *lib = nullptr;
	gm_dev *dev = nullptr;
	gm_as *as = nullptr;
	gm_ctx *ctx = nullptr;

	config.size = sizeof(config);
	space.size = sizeof(space);
	gm_ret_t ret = gm_lib_create(&config, &lib);
	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP) {
		std::cerr << "no instance can be made here: " << gm_last_error() << '\n';
		return 77;
	}
	if (failed(ret) || failed(gm_dev_open(lib, "mock:vram=1M", &dev)) || failed(gm_as_create(lib, 0, 0, &space, &as)) ||
	    failed(gm_as_attach(as, dev, GM_ATTACH_IDENTITY, nullptr, &ctx)) || run_kernel(as, ctx))
		return 1;
	if (failed(gm_as_destroy(as)) || failed(gm_dev_destroy(dev)) || failed(gm_lib_destroy(lib)))
		return 1;
	return gm_lib_destroy(lib) == GM_RET_INVAL ? 0 : 1;
}

} // namespace

int main()
{
	gm_lib *untouched = nullptr;

	if (std::strcmp(gm_ret_name(GM_RET_NOSPC), "GM_RET_NOSPC") != 0)
		return 1;
	if (gm_lib_create(nullptr, nullptr) != GM_RET_INVAL || gm_lib_destroy(untouched) != GM_RET_SUCCESS)
		return 1;
	return gm_mock_mmu()->abi == GM_HAL_ABI ? whole_life() : 1;
}
