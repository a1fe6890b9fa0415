/* SPDX-License-Identifier: MIT */
/*
 * A world: from one seed, two devices with random abilities, one or two address
 * spaces, regions of both kinds, and actors that do operations until enough
 * have been done. Then failures end, kernels end, every byte is compared, the
 * spaces are destroyed, and what was adopted is compared once more.
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/stress/random_world.h"

/* ------------------------------------------------------------ operations */

static const struct rnd_op {
	bool (*fn)(struct rnd_world *w);
	unsigned weight;
} ops[] = {
	{ rnd_cpu_load, 14 },	 { rnd_cpu_store, 16 },	   { rnd_cpu_touch, 3 },  { rnd_cpu_add, 4 },
	{ rnd_app_dontneed, 4 }, { rnd_app_replace, 4 },   { rnd_app_protect, 4 }, { rnd_app_move, 3 },
	{ rnd_app_pin, 4 },	 { rnd_app_lock, 2 },	   { rnd_app_fork, 2 },	  { rnd_lib_to_dev, 9 },
	{ rnd_lib_to_host, 5 },	 { rnd_lib_fault, 8 },	   { rnd_lib_discard, 4 }, { rnd_lib_release, 3 },
	{ rnd_lib_adopt, 6 },	 { rnd_lib_edge, 1 },	   { rnd_lib_renew, 2 },  { rnd_lib_detach, 2 },
	{ rnd_lib_attach, 4 },	 { rnd_lib_query, 3 },	   { rnd_dev_access, 8 }, { rnd_dev_kernel, 9 },
	{ rnd_dev_set, 7 },	 { rnd_inject, 1 },	   { rnd_lib_sum, 2 },	  { rnd_lib_query_host, 1 },
	{ rnd_lib_duplicate, 6 }, { rnd_lib_exclusive, 4 }, { rnd_lib_protect, 4 }, { rnd_lib_pin, 4 },
	{ rnd_lib_home, 1 },
	{ rnd_app_child, 3 },	 { rnd_lib_fork_policy, 1 }, { rnd_app_move_onto, 3 }, { rnd_app_resize, 2 },
	{ rnd_app_hole, 1 },	 { rnd_app_free, 3 },	   { rnd_app_populate, 2 }, { rnd_app_dontfork, 1 },
	{ rnd_dev_mirror, 6 },
};

#define OPS (sizeof(ops) / sizeof(ops[0]))

static const struct rnd_op *choose_op(struct rnd_world *w)
{
	unsigned sum = 0;
	uint64_t at;
	size_t i;

	for (i = 0; i < OPS; i++)
		sum += ops[i].weight;
	at = rnd(w, sum);
	for (i = 0; at >= ops[i].weight; i++)
		at -= ops[i].weight;
	return &ops[i];
}

static void actor_main(void *arg)
{
	struct rnd_actor *a = arg;
	struct rnd_world *w = a->w;
	struct gm_env *env = gm_sim_env(w->sim);

	while (w->steps < w->opt->steps) {
		if (gm_now_ns(env) < w->rest_until_ns)
			gm_sim_sleep_ns(w->sim, w->rest_until_ns - gm_now_ns(env));
		else if (rnd_one_in(w, 400)) /* long enough for what is idle to be forgotten */
			w->rest_until_ns = gm_deadline_ns(env, UINT64_C(300) * 1000 * 1000);
		else if (rnd_one_in(w, 12))
			gm_sim_sleep_ns(w->sim, rnd(w, 200000));
		else if (!choose_op(w)->fn(w))
			gm_sim_sleep_ns(w->sim, 100 + rnd(w, 1000));
	}
}

/* ---------------------------------------------------------------- memory */

static void *world_alloc(void *arg, size_t bytes)
{
	struct rnd_world *w = arg;
	void *ptr;

	if (w->fail_alloc_in && --w->fail_alloc_in == 0)
		return NULL;
	ptr = calloc(1, bytes ? bytes : 1);
	w->live += ptr != NULL;
	return ptr;
}

static void world_free(void *arg, void *ptr, size_t bytes)
{
	struct rnd_world *w = arg;

	(void)bytes;
	w->live--;
	free(ptr);
}

static void world_log(void *arg, enum gm_log_level level, const char *message)
{
	struct rnd_world *w = arg;

	if (strstr(message, "fork: the child does not get"))
		w->fork_failures++;
	if (strstr(message, "fork: no memory to remember"))
		w->fork_forgot = true;
	if (w->opt->verbose)
		fprintf(stderr, "%8" PRIu64 " log %d: %s\n", w->steps, (int)level, message);
}

static void must(struct rnd_world *w, gm_ret_t ret, const char *what)
{
	if (ret)
		rnd_fail(w, "%s: %s (%s)", what, gm_ret_name(ret), gm_last_error());
}

/* ---------------------------------------------------------------- making */

static const char *pick(struct rnd_world *w, const char *const *words, size_t n)
{
	return words[rnd(w, n)];
}

/* Words that only say in which order, how fast, or how much of it the CPU sees. */
static void add_order(struct rnd_world *w, struct rnd_dev *d)
{
	static const char *const engines[] = { "", ",engines=2", ",engines=4" };
	static const char *const visible[] = { "", "", ",visible=64K", ",visible=100K", ",visible=192K" };
	static const char *const cost[] = { "", "", ",timing=wait,todev=4G,tohost=4G,latency=300,opns=50,stepns=30,faultns=500" };
	size_t used = strlen(d->spec), room = sizeof(d->spec) - used;
	int n;

	n = snprintf(d->spec + used, room, "%s%s%s%s", pick(w, engines, 3), pick(w, cost, 3),
		     rnd_one_in(w, 3) ? ",dirty=yes" : "", rnd_one_in(w, 6) ? ",fastinvl=no" : "");
	if (n >= 0 && (size_t)n < room && rnd_one_in(w, 2))
		n += snprintf(d->spec + used + n, room - (size_t)n, ",reorder=%" PRIu64, 1 + rnd(w, 1000000));
	if (n >= 0 && (size_t)n < room && !strstr(d->spec, "visible=no"))
		n += snprintf(d->spec + used + n, room - (size_t)n, "%s", pick(w, visible, 5));
	if (n < 0 || (size_t)n >= room)
		rnd_fail(w, "the text of a device is too long");
}

static void make_spec(struct rnd_world *w, struct rnd_dev *d, bool big)
{
	static const char *const vram[] = { "256K", "512K", "1M", "2M" };
	static const char *const small[] = { "4K+64K+2M", "4K+64K", "4K", "4K+64K+2M" };
	static const char *const large[] = { "64K", "64K+2M" };
	static const char *const copy[] = { "", ",copy=async", ",copy=async,copyns=500", ",copy=async,copyns=8000" };
	static const char *const tlb[] = { "4", "16", "64" };
	const char *pages = pick(w, small, 4);
	int n;

	if (d == &w->dev[1] && rnd_one_in(w, 3))
		pages = pick(w, large, 2);
	if (d == &w->dev[1] && big && rnd_one_in(w, 2))
		pages = "2M";
	n = snprintf(d->spec, sizeof(d->spec), "mock:vram=%s,pages=%s,tlb=%s%s%s%s%s%s",
		     strcmp(pages, "2M") == 0 || big ? "4M" : pick(w, vram, 4), pages, pick(w, tlb, 3),
		     rnd_one_in(w, 3) ? ",faults=no" : "", rnd_one_in(w, 3) ? ",hostmap=no" : "",
		     rnd_one_in(w, 3) ? ",visible=no" : "", rnd_one_in(w, 2) ? ",submit=no" : "", pick(w, copy, 4));
	if (n < 0 || (size_t)n >= sizeof(d->spec))
		rnd_fail(w, "the text of a device is too long");
	add_order(w, d);
}

static void make_dev(struct rnd_world *w, struct rnd_dev *d, bool big)
{
	struct gm_dev_info info;

	make_spec(w, d, big);
	must(w, gm_dev_open(w->lib, d->spec, &d->dev), d->spec);
	must(w, gm_dev_query(d->dev, &info), "gm_dev_query");
	d->mock = gm_dev_backend(d->dev);
	d->faults = info.caps & GM_CAP_FAULTS;
	d->hostmap = info.caps & GM_CAP_HOST_MAP;
	d->granule_bytes = info.granule_bytes;
	d->vram_bytes = info.mem_bytes;
	must(w, gm_mock_plant(d->dev, w->opt->bug), "gm_mock_plant");
	if (w->opt->verbose)
		fprintf(stderr, "device %s\n", d->spec);
}

static void server_main(void *arg)
{
	struct rnd_space *s = arg;
	gm_ret_t ret;

	while (!s->w->stop) {
		ret = gm_as_serve(s->as, 1000000);
		if (ret && ret != GM_RET_TIMEDOUT)
			rnd_fail(s->w, "gm_as_serve: %s", gm_ret_name(ret));
	}
}

static uint32_t unit(struct rnd_world *w)
{
	return GM_PAGE_BYTES << rnd(w, 6);
}

static void make_space(struct rnd_world *w, struct rnd_space *s)
{
	struct gm_as_config config = { .size = sizeof(config), .wait_ns = RND_WAIT_NS };
	static const uint64_t slices_ns[] = { 1000, 20000, 100000 };
	static const uint64_t packs_after_ns[] = { 10000, 200000, GM_PACK_IDLE_NS };

	s->w = w;
	config.flags = (rnd_one_in(w, 3) ? GM_AS_EXCLUSIVE : 0) | (rnd_one_in(w, 6) ? GM_AS_NO_THREADS : 0) |
		       (rnd_one_in(w, 5) ? GM_AS_WATCH : 0);
	s->serves = !(config.flags & GM_AS_NO_THREADS) && rnd_one_in(w, 2);
	s->mirrors = rnd_one_in(w, 3);
	config.flags |= (s->serves ? GM_AS_FORK_SERVE : 0) | (s->mirrors ? GM_AS_MIRROR : 0);
	if (s->serves && !rnd_one_in(w, 3)) {
		config.fork = GM_FORK_SERVE;
		s->fork = RND_FORK_SERVE;
	}
	config.slice_ns = slices_ns[rnd(w, 3)];
	config.cpu_unit_bytes = unit(w);
	config.cpu_around_bytes = config.cpu_unit_bytes << rnd(w, 4);
	config.dev_unit_bytes = unit(w);
	config.dev_around_bytes = config.dev_unit_bytes << rnd(w, 4);
	must(w, gm_as_create(w->lib, 0, 0, &config, &s->as), "gm_as_create");
	s->as->pack.idle_ns = packs_after_ns[rnd(w, 3)];
#ifdef GM_ENABLE_CHECKS
	s->as->plant = w->opt->plant;
#endif
	for (unsigned i = 0; i < RND_DEVS; i++)
		if (!rnd_one_in(w, 8))
			must(w, gm_as_attach(s->as, w->dev[i].dev, GM_ATTACH_IDENTITY, NULL, &s->ctx[i].ctx), "gm_as_attach");
	if (config.flags & GM_AS_NO_THREADS)
		must(w, gm_sim_env(w->sim)->ops->thread_start(gm_sim_env(w->sim), "server", 0, server_main, s, &s->server),
		     "thread_start");
}

static unsigned choose_pages(struct rnd_world *w, bool owned, bool big)
{
	unsigned pages = rnd_one_in(w, 4) ? 41 + (unsigned)rnd(w, 110) : 4 + (unsigned)rnd(w, 37);

	if (big)
		pages = 520 + (unsigned)rnd(w, 300);
	if (owned) /* whole units, as the library rounds them */
		pages = big ? 512 : (pages + GM_UNIT_PAGES - 1) / GM_UNIT_PAGES * GM_UNIT_PAGES;
	return pages;
}

static void fill_region(struct rnd_world *w, struct rnd_region *r)
{
	for (unsigned i = 0; i < r->pages; i++) {
		if (rnd_one_in(w, 2))
			continue;
		rnd_random_bytes(w, r->page[i].want, GM_PAGE_BYTES);
		must(w, gm_sim_store(w->sim, r->page[i].va, r->page[i].want, GM_PAGE_BYTES), "the first CPU store");
	}
}

/* Adopted, perhaps from the middle of its first page to the middle of the last. */
static void adopt_region(struct rnd_world *w, struct rnd_region *r)
{
	uint64_t va = r->page->va, bytes = (uint64_t)r->pages * GM_PAGE_BYTES;
	struct rnd_page *first = r->page, *last = &r->page[r->pages - 1];

	if (r != w->region && rnd_one_in(w, 3)) {
		first->edge = last->edge = true;
		first->edge_head = 1 + (uint32_t)rnd(w, GM_PAGE_BYTES - 1);
		first->edge_bytes = GM_PAGE_BYTES - first->edge_head;
		last->edge_bytes = 1 + (uint32_t)rnd(w, GM_PAGE_BYTES - 1);
		va += first->edge_head;
		bytes = bytes - GM_PAGE_BYTES + last->edge_bytes - first->edge_head;
	}
	must(w, gm_adopt(r->space->as, (void *)(uintptr_t)va, bytes, 0), "the first gm_adopt");
}

static void make_region(struct rnd_world *w, struct rnd_region *r, bool big)
{
	void *ptr;
	uint64_t va;
	bool mirrored;

	r->owned = r != w->region && rnd_one_in(w, 3);
	r->space = &w->space[rnd(w, w->spaces)];
	mirrored = r != w->region && !r->owned && r->space->mirrors && rnd_one_in(w, 2);
	r->pages = choose_pages(w, r->owned, big || (mirrored && !rnd_one_in(w, 4)));
	r->page = calloc(r->pages, sizeof(*r->page));
	r->bytes = calloc(r->pages, GM_PAGE_BYTES);
	if (!r->page || !r->bytes)
		rnd_fail(w, "out of memory");
	if (rnd_one_in(w, 2)) /* so that blocks are cut in many ways */
		(void)gm_sim_mmap(w->sim, (1 + rnd(w, 400)) * GM_PAGE_BYTES, GM_READ);
	if (r->owned) {
		must(w, gm_alloc(r->space->as, (uint64_t)r->pages * GM_PAGE_BYTES, 0, &ptr), "the first gm_alloc");
		va = GM_VA(ptr);
	} else {
		va = gm_sim_mmap(w->sim, (uint64_t)r->pages * GM_PAGE_BYTES, GM_READ | GM_WRITE);
	}
	for (unsigned i = 0; i < r->pages; i++)
		r->page[i] = (struct rnd_page){ .region = r,
						.space = r->space,
						.va = va + (uint64_t)i * GM_PAGE_BYTES,
						.want = r->bytes + (size_t)i * GM_PAGE_BYTES,
						.managed = mirrored ? RND_UNMANAGED : RND_MANAGED };
	fill_region(w, r);
	if (!r->owned && !mirrored)
		adopt_region(w, r);
}

static void make_counters(struct rnd_world *w)
{
	struct rnd_region *r = w->region;
	uint64_t zero = 0;

	for (unsigned i = 0; i < 2; i++) {
		struct rnd_counter *c = &w->counter[i];

		c->page = &r->page[i * (r->pages / 2)];
		c->offset = 8 * (unsigned)rnd(w, RND_CELL_BYTES / 8);
		c->page->counter = true;
		must(w, gm_sim_store(w->sim, c->page->va + c->offset, &zero, sizeof(zero)), "the counter's CPU store");
	}
}

static void make_world(struct rnd_world *w)
{
	bool big = rnd_one_in(w, 12);

	must(w, gm_lib_create_on(gm_sim_env(w->sim), gm_sim_host_mmu(), gm_sim_host_data(w->sim), &w->lib), "gm_lib_create_on");
	for (unsigned i = 0; i < RND_DEVS; i++)
		make_dev(w, &w->dev[i], big);
	w->spaces = 1 + rnd_one_in(w, 3);
	for (unsigned i = 0; i < w->spaces; i++)
		make_space(w, &w->space[i]);
	w->regions = 3 + (unsigned)rnd(w, RND_REGIONS - 2);
	for (unsigned i = 0; i < w->regions; i++)
		make_region(w, &w->region[i], big && i < 2);
	make_counters(w);
}

/* -------------------------------------------------------------- unmaking */

static void compare_all(struct rnd_world *w, bool only_adopted)
{
	uint8_t buf[GM_PAGE_BYTES];

	for (unsigned i = 0; i < w->regions; i++) {
		const struct rnd_region *r = &w->region[i];

		for (unsigned k = 0; !r->lost && !(only_adopted && r->owned) && k < r->pages; k++) {
			const struct rnd_page *p = &r->page[k];
			unsigned skip = p->counter ? RND_CELL_BYTES : 0;

			must(w, gm_sim_load(w->sim, p->va, buf, sizeof(buf)), "the last CPU load");
			rnd_compare(w, p, skip, buf + skip, sizeof(buf) - skip, "the CPU, at the end,");
		}
	}
}

static void compare_counters(struct rnd_world *w)
{
	for (unsigned i = 0; i < 2; i++) {
		const struct rnd_counter *c = &w->counter[i];
		uint64_t sum;

		must(w, gm_sim_load(w->sim, c->page->va + c->offset, &sum, sizeof(sum)), "the last load of a counter");
		if (sum != c->done || c->done != c->started)
			rnd_fail(w, "a counter has %" PRIu64 " at the end, not %" PRIu64, sum, c->done);
	}
}

static void count(struct rnd_world *w)
{
	struct rnd_result *result = w->result;

	for (unsigned i = 0; i < w->spaces; i++) {
		struct gm_stats stats;

		must(w, gm_as_stats(w->space[i].as, &stats), "gm_as_stats");
		result->migrations += stats.migrations_to_dev + stats.migrations_to_host;
		result->evictions += stats.evictions;
		result->faults += stats.cpu_faults + stats.dev_faults;
		result->packs += stats.blocks_packed;
	}
}

static void unmake_world(struct rnd_world *w)
{
	struct gm_env *env = gm_sim_env(w->sim);
	bool detach = rnd_one_in(w, 2);

	w->last_op = "the end";
	rnd_quiet(w);
	rnd_dev_reap(w, true);
	rnd_app_reap(w);
	rnd_app_restore(w);
	rnd_look_at_all(w);
	compare_all(w, false);
	compare_counters(w);
	count(w);
	w->stop = true;
	for (unsigned i = 0; i < w->spaces; i++) {
		struct rnd_space *s = &w->space[i];
		struct gm_as *as = s->as;

		if (s->server)
			env->ops->thread_join(env, s->server);
		for (unsigned k = 0; detach && k < RND_DEVS; k++)
			must(w, gm_as_detach(s->ctx[k].ctx), "the last gm_as_detach");
		s->as = NULL;
		must(w, gm_as_destroy(as), "gm_as_destroy");
	}
	compare_all(w, true);
	for (unsigned i = 0; i < RND_DEVS; i++)
		must(w, gm_dev_destroy(w->dev[i].dev), "gm_dev_destroy");
	must(w, gm_lib_destroy(w->lib), "gm_lib_destroy");
}

/* --------------------------------------------------------------- running */

static void world_main(void *arg)
{
	struct rnd_world *w = arg;
	struct gm_env *env = gm_sim_env(w->sim);
	struct rnd_watch watch;

	make_world(w);
	watch = rnd_watch(w);
	rnd_step(w, "start", &watch);
	w->actors = 2 + (unsigned)rnd(w, RND_ACTORS - 1);
	for (unsigned i = 0; i < w->actors; i++) {
		w->actor[i] = (struct rnd_actor){ .w = w };
		must(w, env->ops->thread_start(env, "actor", 0, actor_main, &w->actor[i], &w->actor[i].thread), "thread_start");
	}
	for (unsigned i = 0; i < w->actors; i++)
		env->ops->thread_join(env, w->actor[i].thread);
	unmake_world(w);
}

static uint64_t hash_bytes(uint64_t hash, const struct rnd_region *r)
{
	for (size_t i = 0; i < (size_t)r->pages * GM_PAGE_BYTES; i += 8) {
		uint64_t word;

		memcpy(&word, r->bytes + i, 8);
		hash = (hash ^ word) * UINT64_C(0x100000001b3);
	}
	return hash;
}

void rnd_world_run(const struct rnd_options *opt, struct rnd_result *result)
{
	struct rnd_world *w = calloc(1, sizeof(*w));
	char text[2048];

	if (!w) {
		fprintf(stderr, "random_sim: out of memory\n");
		exit(1);
	}
	w->opt = opt;
	w->result = result;
	w->rng = opt->seed * UINT64_C(0xd1342543de82ef95) + 1;
	w->allocator = (struct gm_allocator){ world_alloc, world_free, w };
	w->config = (struct gm_lib_config){ .size = sizeof(w->config), .allocator = &w->allocator, .log = world_log,
					    .log_arg = w, .log_level = opt->verbose ? GM_LOG_DEBUG : GM_LOG_WARN };
	/* What is planted must be noticed by the test itself. */
	if (opt->plant != GM_PLANT_NONE || opt->bug != GM_MOCK_BUG_NONE)
		w->config.validate = GM_VALIDATE_OFF;
	w->sim = gm_sim_create(opt->seed, &w->config);
	if (!w->sim)
		rnd_fail(w, "out of memory");
	if (!gm_sim_run(w->sim, world_main, w)) {
		gm_sim_report(w->sim, text, sizeof(text));
		rnd_fail(w, "deadlock, or no operation ends:\n%s", text);
	}
	result->steps += w->steps;
	result->hash = (result->hash ^ w->hash ^ gm_sim_hash(w->sim)) * UINT64_C(0x100000001b3);
	for (unsigned i = 0; i < w->regions; i++) {
		result->hash = hash_bytes(result->hash, &w->region[i]);
		free(w->region[i].page);
		free(w->region[i].bytes);
	}
	gm_sim_destroy(w->sim);
	if (w->live)
		rnd_fail(w, "%" PRIu64 " pieces of memory were not given back", w->live);
	free(w);
}
