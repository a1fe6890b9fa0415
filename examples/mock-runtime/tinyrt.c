/* SPDX-License-Identifier: MIT */
/*
 * tinyrt. One launch:
 *
 *     acquire the array as a working set --short, failed, late--> again, at most TRIES times: nothing has run yet
 *     launch, wait, release
 *     device lost: bring home what there is, and let the CPU do it; lost data is never computed with
 */
#include <stdlib.h>

#include "tinyrt.h"

#define TRIES 4
#define SECOND UINT64_C(1000000000)
#define THREADS 2

struct tinyrt {
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_as *as;
	struct gm_ctx *ctx;
	unsigned retries;
	bool lost;
	size_t granule; /* bytes of the device's smallest page: arrays do not share one */
};

struct scale {
	uint64_t va, n, by;
};

gm_ret_t tinyrt_open(const char *device, struct tinyrt **out)
{
	struct tinyrt *rt = calloc(1, sizeof(*rt));
	struct gm_dev_info info;
	gm_ret_t ret = rt ? gm_lib_create(NULL, &rt->lib) : GM_RET_NOMEM;

	if (!ret)
		ret = gm_dev_open(rt->lib, device, &rt->dev);
	if (!ret)
		ret = gm_dev_query(rt->dev, &info);
	if (!ret)
		ret = gm_as_create(rt->lib, 0, 0, NULL, &rt->as);
	if (!ret)
		ret = gm_as_attach(rt->as, rt->dev, GM_ATTACH_IDENTITY, NULL, &rt->ctx);
	if (!ret) {
		rt->granule = info.granule_bytes;
		*out = rt;
	} else {
		tinyrt_close(rt);
	}
	return ret;
}

void tinyrt_close(struct tinyrt *rt)
{
	if (!rt)
		return;
	/* Each of them takes NULL; what cannot be brought home was freed before. */
	if (gm_as_destroy(rt->as) || gm_dev_destroy(rt->dev) || gm_lib_destroy(rt->lib))
		abort();
	free(rt);
}

gm_ret_t tinyrt_alloc(struct tinyrt *rt, size_t n, uint64_t **v)
{
	size_t bytes = (n * sizeof(**v) + rt->granule - 1) / rt->granule * rt->granule;
	void *ptr;
	gm_ret_t ret = gm_alloc(rt->as, bytes, 0, &ptr);

	if (!ret)
		*v = ptr;
	return ret;
}

void tinyrt_free(struct tinyrt *rt, uint64_t *v)
{
	if (v && gm_free(rt->as, v))
		abort();
}

static gm_ret_t scale_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	const struct scale *s = arg;
	gm_ret_t ret = GM_RET_SUCCESS;

	for (uint64_t i = index; i < s->n && !ret; i += THREADS) {
		uint64_t value;

		ret = gm_mock_load(thread, s->va + i * 8, &value, 8);
		value *= s->by;
		if (!ret)
			ret = gm_mock_store(thread, s->va + i * 8, &value, 8);
	}
	return ret;
}

/* Nothing has run when this fails, so trying again is safe. */
static gm_ret_t acquire(struct tinyrt *rt, const struct scale *s, struct gm_ws **ws)
{
	struct gm_ws_range range = { .va = s->va, .bytes = s->n * 8, .access = GM_WRITE };
	gm_ret_t ret = gm_ws_acquire(rt->ctx, &range, 1, SECOND, ws);

	for (unsigned i = 1; i < TRIES && (ret == GM_RET_IO || ret == GM_RET_NOMEM || ret == GM_RET_TIMEDOUT); i++) {
		rt->retries++;
		ret = gm_ws_acquire(rt->ctx, &range, 1, SECOND, ws);
	}
	return ret;
}

static gm_ret_t scale_on_device(struct tinyrt *rt, struct scale *s)
{
	struct gm_fence *fence;
	struct gm_ws *ws;
	gm_ret_t ret = acquire(rt, s, &ws);

	if (ret)
		return ret;
	ret = gm_mock_launch(rt->ctx, scale_kernel, s, THREADS, &fence);
	if (!ret) {
		ret = gm_fence_wait(fence, GM_FOREVER_NS);
		gm_fence_put(fence);
	}
	(void)gm_ws_release(ws, NULL);
	return ret;
}

/* Where it is now decides, not what moving it said: what came home is good, whatever did not. */
static gm_ret_t bring_home(struct tinyrt *rt, const uint64_t *v, size_t n)
{
	uint64_t end = GM_VA(v + n);
	gm_ret_t ret = GM_RET_SUCCESS;

	(void)gm_migrate(rt->as, GM_VA(v), n * sizeof(*v), NULL, NULL);
	for (uint64_t va = GM_VA(v) & ~(uint64_t)(GM_PAGE_BYTES - 1); !ret && va < end; va += GM_PAGE_BYTES) {
		struct gm_page_info info;

		ret = gm_query(rt->as, va, 1, &info);
		if (!ret && info.place != GM_PLACE_HOST && info.place != GM_PLACE_NONE)
			ret = GM_RET_NODEV;
	}
	return ret;
}

static gm_ret_t scale_on_cpu(struct tinyrt *rt, uint64_t *v, size_t n, uint64_t by)
{
	gm_ret_t ret = bring_home(rt, v, n);

	for (size_t i = 0; !ret && i < n; i++)
		v[i] *= by;
	return ret;
}

gm_ret_t tinyrt_scale(struct tinyrt *rt, uint64_t *v, size_t n, uint64_t by)
{
	struct scale s = { .va = GM_VA(v), .n = n, .by = by };
	gm_ret_t ret = rt->lost ? GM_RET_NODEV : scale_on_device(rt, &s);

	if (ret != GM_RET_NODEV)
		return ret;
	rt->lost = true;
	return scale_on_cpu(rt, v, n, by);
}

unsigned tinyrt_retries(const struct tinyrt *rt)
{
	return rt->retries;
}

bool tinyrt_on_device(const struct tinyrt *rt)
{
	return !rt->lost;
}

struct gm_dev *tinyrt_dev(struct tinyrt *rt)
{
	return rt->dev;
}
