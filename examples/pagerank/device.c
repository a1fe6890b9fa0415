/* SPDX-License-Identifier: MIT */
/*
 * The job on a mock device with libgmem in between.
 *
 *     malloc -> gm_adopt -> per iteration: [host: rank_between] -> launches -> swap
 *                        -> compare -> gm_release -> free
 *
 * With device faults a launch is nothing but a launch. On a device without
 * faults it is: gm_ws_acquire() of everything it touches, launch,
 * gm_ws_release() behind the launch's fence. The host never asks for
 * anything: it reads the ranks through its own pointers, whoever has them.
 *
 * The arguments of a kernel lie in memory that was not adopted, like a real
 * device's constants.
 */
#include "device.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EDGE_BATCH 256u
#define LAUNCH_TIMEOUT_NS (120u * UINT64_C(1000000000))

/* What a kernel is told. */
struct launch {
	const struct job *job;
	const struct step *step;
	const uint32_t *split;
	uint64_t rank; /* addresses on the device, the same as on the host */
	uint64_t next;
	const double *lost;
};

/* One run, and what has to be undone after it. */
struct device {
	const struct job *job;
	enum run_mode mode;
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_as *as;
	struct gm_ctx *ctx;
	double *rank[2];
	unsigned adopted; /* how many of the arrays */
	struct picture *picture;
	run_progress progress;
	void *progress_arg;
	uint64_t all_launches;
	struct run *run;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int failed(const char *what, gm_ret_t ret)
{
	const char *why = gm_last_error();

	fprintf(stderr, "pagerank: %s: %s (%s)%s%s\n", what, gm_ret_name(ret), gm_ret_text(ret),
		why && *why ? ": " : "", why ? why : "");
	return 1;
}

/* ------------------------------------------------------------------- kernel */

/* A thread's edges, fetched a batch at a time. */
struct cursor {
	uint64_t va;
	uint32_t next; /* to fetch */
	uint32_t end;
	uint32_t have; /* in batch */
	uint32_t at;
	struct edge batch[EDGE_BATCH];
};

/* *edge is the next edge, or NULL if there is none left. */
static gm_ret_t cursor_peek(struct gm_mock_thread *thread, struct cursor *cursor, const struct edge **edge)
{
	gm_ret_t ret;

	*edge = NULL;
	if (cursor->at == cursor->have && cursor->next < cursor->end) {
		uint32_t left = cursor->end - cursor->next;

		cursor->have = left < EDGE_BATCH ? left : EDGE_BATCH;
		cursor->at = 0;
		ret = gm_mock_load(thread, cursor->va + cursor->next * sizeof(struct edge), cursor->batch,
				   cursor->have * sizeof(struct edge));
		if (ret != GM_RET_SUCCESS)
			return ret;
		cursor->next += cursor->have;
	}
	if (cursor->at < cursor->have)
		*edge = &cursor->batch[cursor->at];
	return GM_RET_SUCCESS;
}

/* Adds the rows of all sources of `v` that the step has. */
static gm_ret_t add_sources(struct gm_mock_thread *thread, const struct launch *l, struct cursor *cursor, uint32_t v,
			    double *acc)
{
	const struct job *job = l->job;
	double row[MAX_COLUMNS];
	const struct edge *edge;
	struct node node;
	gm_ret_t ret;

	for (;;) {
		ret = cursor_peek(thread, cursor, &edge);
		if (ret != GM_RET_SUCCESS || !edge || edge->dst != v)
			return ret;
		ret = gm_mock_load(thread, GM_VA(job->nodes + edge->src), &node, sizeof(node));
		if (ret != GM_RET_SUCCESS)
			return ret;
		ret = gm_mock_load(thread, l->rank + edge->src * job_row_bytes(job), row, job_row_bytes(job));
		if (ret != GM_RET_SUCCESS)
			return ret;
		rank_add(acc, row, 1.0 / node.outdeg, job->columns);
		cursor->at++;
	}
}

static gm_ret_t one_row(struct gm_mock_thread *thread, const struct launch *l, struct cursor *cursor, uint32_t v)
{
	const struct job *job = l->job;
	uint64_t va = l->next + v * job_row_bytes(job);
	double acc[MAX_COLUMNS];
	struct node node;
	gm_ret_t ret = GM_RET_SUCCESS;

	if (l->step->flags & STEP_FIRST)
		memset(acc, 0, sizeof(acc));
	else
		ret = gm_mock_load(thread, va, acc, job_row_bytes(job));
	if (ret == GM_RET_SUCCESS)
		ret = add_sources(thread, l, cursor, v, acc);
	if (ret == GM_RET_SUCCESS && l->step->flags & STEP_LAST) {
		ret = gm_mock_load(thread, GM_VA(job->nodes + v), &node, sizeof(node));
		if (ret == GM_RET_SUCCESS)
			rank_finish(acc, node.section, job->teleport, l->lost, job->columns);
	}
	if (ret == GM_RET_SUCCESS)
		ret = gm_mock_store(thread, va, acc, job_row_bytes(job));
	return ret;
}

/* Each thread has rows of its own, so no two of them write one element. */
static gm_ret_t kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	const struct launch *l = arg;
	struct cursor cursor = { .va = GM_VA(l->job->edges), .next = l->split[index], .end = l->split[index + 1] };
	uint32_t v = step_part(l->step, index, l->job->threads);
	uint32_t end = step_part(l->step, index + 1, l->job->threads);
	const struct edge *edge;
	gm_ret_t ret;

	for (; v < end; v++) {
		/* In the middle of a sum, rows without edges in this step are passed over. */
		if (!(l->step->flags & (STEP_FIRST | STEP_LAST))) {
			ret = cursor_peek(thread, &cursor, &edge);
			if (ret != GM_RET_SUCCESS || !edge)
				return ret;
			v = edge->dst;
		}
		ret = one_row(thread, l, &cursor, v);
		if (ret != GM_RET_SUCCESS)
			return ret;
	}
	return GM_RET_SUCCESS;
}

/* ------------------------------------------------------------ declared ranges */

static size_t add_range(struct gm_ws_range *ranges, size_t n, uint64_t va, uint64_t bytes, uint32_t access)
{
	if (!bytes)
		return n;
	ranges[n] = (struct gm_ws_range){ .va = va, .bytes = bytes, .access = access };
	return n + 1;
}

/*
 * Rows that a first step overwrites: what is in their pages does not matter,
 * except in the two at the edges, which hold a neighbour's rows too.
 */
static size_t add_fresh_rows(struct gm_ws_range *ranges, size_t n, uint64_t va, uint64_t bytes)
{
	uint64_t page = GM_PAGE_BYTES;
	uint64_t begin = (va + page - 1) / page * page;
	uint64_t end = (va + bytes) / page * page;

	if (begin >= end)
		return add_range(ranges, n, va, bytes, GM_WRITE);
	n = add_range(ranges, n, va, begin - va, GM_WRITE);
	n = add_range(ranges, n, begin, end - begin, GM_WRITE | GM_WS_DISCARD);
	return add_range(ranges, n, end, va + bytes - end, GM_WRITE);
}

static size_t declare(const struct launch *l, struct gm_ws_range *ranges)
{
	const struct job *job = l->job;
	const struct step *step = l->step;
	uint64_t row = job_row_bytes(job);
	uint32_t dst_rows = step->dst_end - step->dst_begin;
	uint32_t src_rows = step->src_end - step->src_begin;
	size_t n = 0;

	if (step->flags & STEP_FIRST)
		n = add_fresh_rows(ranges, n, l->next + step->dst_begin * row, dst_rows * row);
	else
		n = add_range(ranges, n, l->next + step->dst_begin * row, dst_rows * row, GM_WRITE);
	n = add_range(ranges, n, l->rank + step->src_begin * row, src_rows * row, GM_READ);
	n = add_range(ranges, n, GM_VA(job->nodes + step->src_begin), src_rows * sizeof(struct node), GM_READ);
	if (step->flags & STEP_LAST)
		n = add_range(ranges, n, GM_VA(job->nodes + step->dst_begin), dst_rows * sizeof(struct node), GM_READ);
	return add_range(ranges, n, GM_VA(job->edges + step->edge_begin),
			 (step->edge_end - step->edge_begin) * sizeof(struct edge), GM_READ);
}

/* -------------------------------------------------------------------- launch */

static int launch(struct device *d, struct launch *l)
{
	struct gm_ws_range ranges[8];
	struct gm_fence *fence = NULL;
	struct gm_ws *ws = NULL;
	gm_ret_t released = GM_RET_SUCCESS;
	gm_ret_t ret;

	if (d->mode == RUN_SETS) {
		ret = gm_ws_acquire(d->ctx, ranges, declare(l, ranges), LAUNCH_TIMEOUT_NS, &ws);
		if (ret != GM_RET_SUCCESS)
			return failed("a launch's working set", ret);
	}
	ret = gm_mock_launch(d->ctx, kernel, l, d->job->threads, &fence);
	if (ret != GM_RET_SUCCESS) {
		gm_ws_release(ws, NULL);
		return failed("starting a kernel", ret);
	}
	if (ws)
		released = gm_ws_release(ws, fence);
	ret = gm_fence_wait(fence, LAUNCH_TIMEOUT_NS);
	if (ret == GM_RET_TIMEDOUT) {
		/* It still uses our memory: nothing can be undone. */
		failed("a kernel does not end", ret);
		exit(1);
	}
	gm_fence_put(fence);
	if (ret != GM_RET_SUCCESS)
		return failed("a kernel", ret);
	if (released != GM_RET_SUCCESS)
		return failed("releasing a working set", released);
	return 0;
}

static int one_iteration(struct device *d, unsigned iteration, const double *lost)
{
	const struct job *job = d->job;
	struct launch l = { .job = job, .lost = lost };
	size_t i;
	int ret;

	l.rank = GM_VA(d->rank[iteration & 1]);
	l.next = GM_VA(d->rank[~iteration & 1]);
	for (i = 0; i < job->step_count; i++) {
		l.step = &job->steps[i];
		l.split = &job->split[i * (job->threads + 1u)];
		ret = launch(d, &l);
		if (ret)
			return ret;
		d->run->launches++;
		if (d->progress)
			d->progress(d->progress_arg, d->mode, d->run->launches, d->all_launches);
		if (picture_after_launch(d->picture, d->as, iteration, i + 1, job->step_count))
			return 1;
	}
	return 0;
}

static int compute(struct device *d, unsigned iterations)
{
	double *lost = calloc(d->job->columns, sizeof(*lost));
	int ret = 0;
	unsigned i;

	if (!lost) {
		fprintf(stderr, "pagerank: out of memory\n");
		return 1;
	}
	rank_between(d->job, d->rank[0], NULL, lost);
	for (i = 0; i < iterations && !ret; i++) {
		ret = one_iteration(d, i, lost);
		if (ret)
			break;
		d->run->change = rank_between(d->job, d->rank[~i & 1], d->rank[i & 1], lost);
		if (picture_after_host(d->picture, d->as, i))
			ret = 1;
	}
	free(lost);
	return ret;
}

/* ------------------------------------------------------------- setting up, end */

static void array_of(const struct device *d, unsigned which, void **ptr, uint64_t *bytes, const char **name)
{
	const struct job *job = d->job;

	switch (which) {
	case 0:
	case 1:
		*ptr = d->rank[which];
		*bytes = job->rank_bytes;
		*name = which ? "ranks B" : "ranks A";
		break;
	case 2:
		*ptr = job->edges;
		*bytes = job->edges_bytes;
		*name = "edges";
		break;
	default:
		*ptr = job->nodes;
		*bytes = job->nodes_bytes;
		*name = "nodes";
		break;
	}
}

static int adopt_arrays(struct device *d)
{
	const char *name;
	uint64_t bytes;
	void *ptr;
	gm_ret_t ret;

	while (d->adopted < PICTURE_ARRAYS) {
		array_of(d, d->adopted, &ptr, &bytes, &name);
		ret = gm_adopt(d->as, ptr, bytes, 0);
		if (ret != GM_RET_SUCCESS)
			return failed(name, ret);
		if (picture_array(d->picture, d->adopted++, name, GM_VA(ptr), bytes))
			return 1;
	}
	return 0;
}

static int make_device(struct device *d)
{
	gm_ret_t ret = gm_lib_create(NULL, &d->lib);
	char spec[96];

	if (ret == GM_RET_SUCCESS)
		ret = gm_as_create(d->lib, 0, 0, NULL, &d->as);
	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP) {
		failed("libgmem cannot work on this machine", ret);
		return 3;
	}
	if (ret != GM_RET_SUCCESS)
		return failed("starting libgmem", ret);
	snprintf(spec, sizeof(spec), "mock:vram=%" PRIu64 "K%s", d->job->vram_bytes / 1024,
		 d->mode == RUN_SETS ? ",faults=no" : "");
	ret = gm_dev_open(d->lib, spec, &d->dev);
	if (ret != GM_RET_SUCCESS)
		return failed(spec, ret);
	ret = gm_as_attach(d->as, d->dev, GM_ATTACH_IDENTITY, NULL, &d->ctx);
	if (ret != GM_RET_SUCCESS)
		return failed("attaching the device", ret);
	d->rank[0] = malloc(d->job->rank_bytes);
	d->rank[1] = malloc(d->job->rank_bytes);
	if (!d->rank[0] || !d->rank[1]) {
		fprintf(stderr, "pagerank: out of memory for the ranks\n");
		return 1;
	}
	rank_start(d->job, d->rank[0]);
	memset(d->rank[1], 0, d->job->rank_bytes);
	return adopt_arrays(d);
}

/* Bytes come home before memory is freed; memory that could not be brought home is not freed. */
static int unmake_device(struct device *d)
{
	const char *name;
	uint64_t bytes;
	void *ptr;
	gm_ret_t ret = GM_RET_SUCCESS;
	gm_ret_t end;

	while (d->adopted && ret == GM_RET_SUCCESS) {
		array_of(d, --d->adopted, &ptr, &bytes, &name);
		ret = gm_release(d->as, ptr, bytes);
		if (ret != GM_RET_SUCCESS)
			return failed(name, ret);
	}
	free(d->rank[0]);
	free(d->rank[1]);
	ret = gm_as_detach(d->ctx);
	end = gm_as_destroy(d->as);
	ret = ret == GM_RET_SUCCESS ? end : ret;
	end = gm_dev_destroy(d->dev);
	ret = ret == GM_RET_SUCCESS ? end : ret;
	end = gm_lib_destroy(d->lib);
	ret = ret == GM_RET_SUCCESS ? end : ret;
	return ret == GM_RET_SUCCESS ? 0 : failed("ending libgmem", ret);
}

static bool compare(const struct job *job, const double *rank, const double *expect)
{
	size_t i;

	if (!memcmp(rank, expect, job->rank_bytes))
		return true;
	for (i = 0; i < job->rank_bytes / sizeof(*rank); i++) {
		if (memcmp(&rank[i], &expect[i], sizeof(*rank)))
			break;
	}
	fprintf(stderr, "pagerank: the ranks differ, first at node %zu (%s), column %zu: device %a, host %a\n",
		i / job->columns, graph_name(job->graph, (uint32_t)(i / job->columns)), i % job->columns, rank[i],
		expect[i]);
	return false;
}

int device_run(const struct job *job, const struct options *options, enum run_mode mode, const double *expect,
	       struct picture *picture, run_progress progress, void *progress_arg, struct run *run)
{
	struct device d = { .job = job, .mode = mode, .picture = picture, .progress = progress,
			    .progress_arg = progress_arg, .run = run };
	uint64_t begin;
	int ended;
	int ret;

	memset(run, 0, sizeof(*run));
	run->mode = mode;
	d.all_launches = (uint64_t)job->step_count * options->iterations;
	ret = make_device(&d);
	if (!ret) {
		begin = now_ns();
		ret = compute(&d, options->iterations);
		run->total_ns = now_ns() - begin;
	}
	if (!ret) {
		gm_ret_t got = gm_as_stats(d.as, &run->stats);

		if (got == GM_RET_SUCCESS)
			got = gm_mock_stats(d.dev, &run->mock);
		if (got != GM_RET_SUCCESS)
			ret = failed("statistics", got);
		run->same = compare(job, d.rank[options->iterations & 1], expect);
	}
	ended = unmake_device(&d); // NOLINT(clang-analyzer-unix.Malloc): it frees what make_device() took
	return ret ? ret : ended;
}
