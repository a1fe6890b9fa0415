/* SPDX-License-Identifier: MIT */
/* The work of patterns.h: worlds, jobs of the device, comparing every byte. */
#include "patterns.h"

static uint8_t byte_of(const struct run *r, uint64_t off)
{
	return (uint8_t)(off * 37 + (off / PAGE) * 11 + r->seed + r->passes[off / PAGE]);
}

void pattern_fail(struct run *r, const char *format, ...)
{
	va_list args;

	if (r->failures++ < 5) {
		va_start(args, format);
		printf("# %s: ", r->pattern->name);
		vprintf(format, args);
		printf("\n");
		va_end(args);
	}
}

/* ---------------------------------------------------------------- worlds */

gm_ret_t pattern_open_space(struct world *w, uint32_t flags)
{
	struct gm_as_config config = { .size = sizeof(config), .flags = flags };
	gm_ret_t ret = gm_as_create(w->lib, 0, 0, &config, &w->as);

	return ret ? ret : gm_as_attach(w->as, w->dev, GM_ATTACH_IDENTITY, NULL, &w->ctx);
}

gm_ret_t pattern_open(struct world *w, uint32_t flags)
{
	gm_ret_t ret = gm_lib_create(NULL, &w->lib);

	if (!ret)
		ret = gm_dev_open(w->lib, pattern_options.dev, &w->dev);
	return ret ? ret : pattern_open_space(w, flags);
}

void pattern_close_space(struct run *r, struct world *w)
{
	gm_ret_t ret = gm_as_destroy(w->as);

	if (ret)
		pattern_fail(r, "gm_as_destroy: %s: %s", gm_ret_name(ret), gm_last_error());
}

void pattern_close(struct run *r, struct world *w)
{
	struct gm_dev_info info = { .mem_bytes = 1 };
	gm_ret_t ret;

	pattern_close_space(r, w);
	ret = gm_dev_query(w->dev, &info);
	if (ret || info.mem_free_bytes != info.mem_bytes)
		pattern_fail(r, "device memory is left: %s", gm_ret_name(ret));
	ret = gm_dev_destroy(w->dev);
	if (!ret)
		ret = gm_lib_destroy(w->lib);
	if (ret)
		pattern_fail(r, "the end: %s: %s", gm_ret_name(ret), gm_last_error());
}

/* ----------------------------------------------------------------- bytes */

/* How many of `n` bytes from `off` on are wrong. */
static uint64_t count_wrong(const struct run *r, const volatile uint8_t *got, uint64_t off, uint64_t n)
{
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < n; i++)
		wrong += got[i] != byte_of(r, off + i);
	return wrong;
}

uint64_t pattern_wrong_cpu(const struct run *r, uint64_t bytes)
{
	return count_wrong(r, (const volatile uint8_t *)r->at, 0, bytes);
}

struct job {
	struct run *r;
	uint64_t bytes, wrong;
	bool add; /* else only compare */
	unsigned stride;
	_Atomic uint64_t *done;
};

static gm_ret_t kernel(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct job *job = arg;
	struct run *r = job->r;
	uint8_t page[GM_PAGE_BYTES];
	gm_ret_t ret = GM_RET_SUCCESS;

	(void)index;
	for (uint64_t off = 0; off < job->bytes && !ret; off += (uint64_t)job->stride * PAGE) {
		uint64_t n = job->bytes - off < PAGE ? job->bytes - off : PAGE;

		ret = gm_mock_load(t, GM_VA(r->at) + off, page, n);
		if (ret)
			break;
		job->wrong += count_wrong(r, page, off, n);
		if (!job->add)
			continue;
		for (uint64_t i = 0; i < n; i++)
			page[i]++;
		ret = gm_mock_store(t, GM_VA(r->at) + off, page, n);
		if (ret)
			break;
		r->passes[off / PAGE]++;
		if (job->done)
			atomic_store(job->done, off / PAGE + 1);
	}
	return ret;
}

static gm_ret_t launch(struct job *job)
{
	struct gm_fence *fence = NULL;
	gm_ret_t ret = gm_mock_launch(job->r->w->ctx, kernel, job, 1, &fence);

	if (ret)
		return ret;
	ret = gm_fence_wait(fence, GM_FOREVER_NS);
	gm_fence_put(fence);
	return ret;
}

gm_ret_t pattern_pass(struct run *r, _Atomic uint64_t *done)
{
	struct job job = { .r = r, .bytes = r->bytes, .add = true, .stride = r->pattern->stride, .done = done };
	gm_ret_t ret = launch(&job);

	if (job.wrong)
		pattern_fail(r, "%" PRIu64 " bytes are wrong for the device, at work", job.wrong);
	return ret;
}

uint64_t pattern_wrong_dev(struct run *r, uint64_t bytes)
{
	struct job job = { .r = r, .bytes = bytes, .stride = 1 };
	gm_ret_t ret = launch(&job);

	if (ret)
		pattern_fail(r, "the device cannot read: %s", gm_ret_name(ret));
	return job.wrong;
}

static gm_ret_t touch_kernel(struct gm_mock_thread *t, unsigned write, void *arg)
{
	uint64_t *va = arg;
	uint8_t byte = 0;
	gm_ret_t ret = gm_mock_load(t, va[0], &byte, 1);

	(void)write;
	return ret || !va[1] ? ret : gm_mock_store(t, va[0], &byte, 1);
}

gm_ret_t pattern_touch(struct run *r, uint64_t off, bool write)
{
	uint64_t arg[2] = { GM_VA(r->at) + off, write };
	struct gm_fence *fence = NULL;
	gm_ret_t ret = gm_mock_launch(r->w->ctx, touch_kernel, arg, 1, &fence);

	if (ret)
		return ret;
	ret = gm_fence_wait(fence, GM_FOREVER_NS);
	gm_fence_put(fence);
	return ret;
}

/* ------------------------------------------------------------------ jobs */

static void compare(struct run *r, const char *when)
{
	uint64_t cpu, dev;

	if (!r->bytes)
		return;
	dev = pattern_wrong_dev(r, r->bytes);
	cpu = pattern_wrong_cpu(r, r->bytes);
	if (cpu || dev)
		pattern_fail(r, "%s: %" PRIu64 " bytes are wrong for the CPU, %" PRIu64 " for the device", when, cpu, dev);
}

static void one_job(struct run *r, const struct section *s)
{
	for (uint64_t i = 0; i < r->bytes; i++)
		r->at[i] = (char)byte_of(r, i);
	for (unsigned pass = 0; pass < r->pattern->passes && !r->failures; pass++) {
		gm_ret_t ret = pattern_pass(r, NULL);

		if (ret)
			pattern_fail(r, "pass %u: %s", pass, gm_ret_name(ret));
		if (s->twist)
			s->twist(r, pass);
		compare(r, s->name);
	}
}

unsigned pattern_jobs(const struct pattern *p, const struct section *s, struct world *w, uint8_t seed)
{
	unsigned failures = 0;

	for (unsigned i = 0; i < p->jobs * pattern_options.rounds && !failures; i++) {
		struct run r = { .pattern = p, .w = w, .bytes = p->bytes, .fd = -1, .seed = (uint8_t)(seed + i * 3) };

		r.passes = calloc(p->bytes / PAGE + GM_BLOCK_PAGES + 2, 1);
		if (!r.passes || !s->get(&r)) {
			pattern_fail(&r, "no memory for %s: error %d: %s", s->name, errno, gm_last_error());
		} else {
			one_job(&r, s);
			s->put(&r);
		}
		failures += r.failures;
		free(r.passes);
	}
	return failures;
}
