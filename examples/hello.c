/* SPDX-License-Identifier: MIT */
/* A malloc()ed array on a device with half its memory: cc hello.c $(pkg-config --cflags --libs gmem) && ./a.out */
#include <gmem/gmem.h>
#include <stdio.h>
#include <stdlib.h>
#define N (1u << 17) /* 1 MiB of 64-bit numbers; the device has 512 KiB */
static gm_ret_t add_one(struct gm_mock_thread *thread, unsigned index, void *array)
{ /* runs on the device: every access goes through its own page table, and may fault */
	gm_ret_t ret = GM_RET_SUCCESS;
	for (uint64_t va = GM_VA(array), value = index; !ret && va < GM_VA(array) + N * 8; va += 8)
		if (!(ret = gm_mock_load(thread, va, &value, 8)))
			ret = gm_mock_store(thread, va, &(uint64_t){ value + 1 }, 8);
	return ret;
}
int main(void)
{
	uint64_t *array = calloc(N, 8), good = 0;
	struct gm_lib *lib; struct gm_dev *dev; struct gm_as *as; struct gm_ctx *ctx; struct gm_fence *fence;
	if (gm_lib_create(NULL, &lib) || gm_dev_open(lib, "mock:vram=512K", &dev) || gm_as_create(lib, 0, 0, NULL, &as) ||
	    gm_as_attach(as, dev, GM_ATTACH_IDENTITY, NULL, &ctx) || gm_adopt(as, array, N * 8, 0) ||
	    gm_mock_launch(ctx, add_one, array, 1, &fence) || gm_fence_wait(fence, GM_FOREVER_NS))
		exit((puts(gm_last_error()), 1)); /* says what failed, and what to do */
	for (unsigned i = 0; i < N; good += array[i++] == 1); /* plain reads: pages come home by themselves */
	printf("%s: %llu of %u elements are right\n", good == N ? "good" : "BAD", (unsigned long long)good, N);
	gm_fence_put(fence);
	if (gm_as_destroy(as) || gm_dev_destroy(dev) || gm_lib_destroy(lib))
		exit((puts(gm_last_error()), 1));
	free(array);
	return good != N;
}
