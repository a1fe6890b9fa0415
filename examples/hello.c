/* SPDX-License-Identifier: MIT */
/* A malloc()ed array on a device with half its memory: cc hello.c $(pkg-config --cflags --libs gmem) && ./a.out */
#include <gmem/gmem.h>
#include <stdio.h>
#include <stdlib.h>

#define N (1u << 17) /* 1 MiB of 64-bit numbers; the device has 512 KiB */
#define TRY(call) do { if ((call) != GM_RET_SUCCESS) { puts(gm_last_error()); return 1; } } while (0)

/* Runs on the device: every access goes through its own page table, and may fault. */
static gm_ret_t add_one(struct gm_mock_thread *thread, unsigned index, void *array)
{
	gm_ret_t ret = GM_RET_SUCCESS;
	uint64_t value;

	for (uint64_t va = GM_VA(array); ret == GM_RET_SUCCESS && va < GM_VA(array) + N * 8; va += 8) {
		ret = gm_mock_load(thread, va, &value, 8);
		value += index + 1; /* a single thread: index is 0 */
		if (ret == GM_RET_SUCCESS)
			ret = gm_mock_store(thread, va, &value, 8);
	}
	return ret;
}

int main(void)
{
	uint64_t *array = malloc(N * 8), i;
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_as *as;
	struct gm_ctx *ctx;
	struct gm_fence *fence;

	if (!array)
		return 1;
	for (i = 0; i < N; i++)
		array[i] = i;
	TRY(gm_lib_create(NULL, &lib));
	TRY(gm_dev_open(lib, "mock:vram=512K", &dev));
	TRY(gm_as_create(lib, 0, 0, NULL, &as));
	TRY(gm_as_attach(as, dev, GM_ATTACH_IDENTITY, NULL, &ctx));
	TRY(gm_adopt(as, array, N * 8, 0));
	TRY(gm_mock_launch(ctx, add_one, array, 1, &fence));
	TRY(gm_fence_wait(fence, GM_FOREVER_NS));
	for (i = 0; i < N && array[i] == i + 1; i++) /* plain reads: pages come home by themselves */
		;
	printf("%s: %llu of %u elements are right\n", i == N ? "good" : "BAD", (unsigned long long)i, N);
	gm_fence_put(fence);
	TRY(gm_release(as, array, N * 8));
	TRY(gm_as_detach(ctx));
	TRY(gm_as_destroy(as));
	TRY(gm_dev_destroy(dev));
	TRY(gm_lib_destroy(lib));
	free(array);
	return i != N;
}
