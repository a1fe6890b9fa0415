/* SPDX-License-Identifier: MIT */
/* A malloc()ed array on a device with half its memory: cc hello.c $(pkg-config --cflags --libs gmem) && ./a.out */
#include <gmem/gmem.h>
#include <stdio.h>
#include <stdlib.h>
#define N (1u << 17) /* 1 MiB of 64-bit numbers; the device has 512 KiB */
#define TRY(call) do { if ((call) != GM_RET_SUCCESS) { puts(gm_last_error()); exit(1); } } while (0)

/* Runs on the device: every access goes through its own page table, and may fault. */
static gm_ret_t add_one(struct gm_mock_thread *thread, unsigned index, void *array)
{
	for (uint64_t va = GM_VA(array), value; va < GM_VA(array) + N * 8; va += 8) {
		gm_ret_t ret = gm_mock_load(thread, va, &value, 8);
		value += index + 1; /* a single thread: index is 0 */
		if (ret != GM_RET_SUCCESS || (ret = gm_mock_store(thread, va, &value, 8)) != GM_RET_SUCCESS)
			return ret;
	}
	return GM_RET_SUCCESS;
}

int main(void)
{
	uint64_t *array = calloc(N, 8), good = 0;
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_as *as;
	struct gm_ctx *ctx;
	struct gm_fence *fence;
	TRY(gm_lib_create(NULL, &lib));
	TRY(gm_dev_open(lib, "mock:vram=512K", &dev));
	TRY(gm_as_create(lib, 0, 0, NULL, &as));
	TRY(gm_as_attach(as, dev, GM_ATTACH_IDENTITY, NULL, &ctx));
	TRY(gm_adopt(as, array, N * 8, 0));
	TRY(gm_mock_launch(ctx, add_one, array, 1, &fence));
	TRY(gm_fence_wait(fence, GM_FOREVER_NS));
	for (unsigned i = 0; i < N; i++)
		good += array[i] == 1; /* plain reads: pages come home by themselves */
	printf("%s: %llu of %u elements are right\n", good == N ? "good" : "BAD", (unsigned long long)good, N);
	gm_fence_put(fence);
	TRY(gm_as_destroy(as)); /* everything comes home, the array is free()able again */
	TRY(gm_dev_destroy(dev));
	TRY(gm_lib_destroy(lib));
	free(array);
	return good != N;
}
