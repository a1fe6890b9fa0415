/* SPDX-License-Identifier: MIT */
/* A runtime hands its own device to libgmem, and waits for it with a descriptor:
 * cc own-device.c $(pkg-config --cflags --libs gmem) && ./a.out */
#include <gmem/gmem.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define N 4096u
#define WEIGHTS (UINT64_C(1) << 47) /* the runtime's own addresses: no process has memory there */

static void must(gm_ret_t ret, const char *what)
{
	if (ret)
		exit((fprintf(stderr, "%s: %s: %s\n", what, gm_ret_text(ret), gm_last_error()), 1));
}

/* Runs on the device: x[i] *= weight[i], the one in managed memory, the other in the runtime's buffer. */
static gm_ret_t scale(struct gm_mock_thread *thread, unsigned index, void *x)
{
	uint64_t a = 0, b = 0;
	gm_ret_t ret = GM_RET_SUCCESS;

	(void)index;
	for (uint64_t at = 0; !ret && at < N * 8; at += 8) {
		ret = gm_mock_load(thread, GM_VA(x) + at, &a, 8);
		if (!ret)
			ret = gm_mock_load(thread, WEIGHTS + at, &b, 8);
		a *= b;
		if (!ret)
			ret = gm_mock_store(thread, GM_VA(x) + at, &a, 8);
	}
	return ret;
}

int main(void)
{
	uint64_t weight[N], *x = calloc(N, 8), pa, good = 0;
	struct gm_mock_config config = { .size = sizeof(config) };
	struct gm_lib *lib, *other_lib; struct gm_dev *dev, *other; struct gm_as *as; struct gm_ctx *ctx;
	struct gm_fence *fence, *theirs; int fd;

	must(x ? GM_RET_SUCCESS : GM_RET_NOMEM, "calloc");
	for (uint64_t i = 0; i < N; i++)
		weight[i] = i + 1, x[i] = 3;
	/* What the runtime did before it knew of libgmem: open the device, fill a buffer, map it. */
	must(gm_mock_hw_create(NULL, &config.hw), "open the device");
	must(gm_mock_hw_alloc(config.hw, GM_UNIT_BYTES, &pa), "a buffer");
	must(gm_mock_hw_write(config.hw, pa, weight, sizeof(weight)), "fill it");
	must(gm_mock_hw_map(config.hw, WEIGHTS, pa, GM_UNIT_BYTES, GM_READ), "map it");
	/* Now libgmem manages the rest of the device's memory, in the same page table. */
	if (gm_lib_create(NULL, &lib))
		return puts(gm_last_error()), 77; /* no userfaultfd for us here */
	must(gm_dev_create(lib, gm_mock_mmu(), &config, &dev), "gm_dev_create");
	must(gm_as_create(lib, 0, 0, NULL, &as), "gm_as_create");
	must(gm_as_attach(as, dev, GM_ATTACH_IDENTITY, NULL, &ctx), "gm_as_attach");
	must(gm_adopt(as, x, N * 8, 0), "gm_adopt");
	must(gm_mock_launch(ctx, scale, x, 1, &fence), "launch");
	must(gm_fence_export(fence, dev, &fd), "gm_fence_export");
	gm_fence_put(fence);
	/* Somebody else, who has the descriptor only: another instance, perhaps another process. */
	must(gm_lib_create(NULL, &other_lib), "gm_lib_create");
	must(gm_dev_open(other_lib, "mock:vram=1M", &other), "gm_dev_open");
	must(gm_fence_import(other, fd, &theirs), "gm_fence_import");
	close(fd);
	must(gm_fence_wait(theirs, GM_FOREVER_NS), "the launch");
	gm_fence_put(theirs);
	for (uint64_t i = 0; i < N; i++)
		good += x[i] == 3 * (i + 1);
	if (gm_dev_destroy(other) || gm_lib_destroy(other_lib) || gm_as_destroy(as) || gm_dev_destroy(dev) ||
	    gm_lib_destroy(lib))
		must(GM_RET_BUSY, "the end");
	/* The device and its buffer are the runtime's as before. */
	must(gm_mock_hw_read(config.hw, pa, weight, 8), "read the buffer");
	must(gm_mock_hw_destroy(config.hw), "close the device");
	printf("%s: %u products, %u are right\n", good == N && weight[0] == 1 ? "good" : "BAD", N, (unsigned)good);
	free(x);
	return good != N;
}
