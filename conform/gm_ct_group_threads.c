/* SPDX-License-Identifier: MIT */
/*
 * Group threads: operations on different ranges at once, in one page table and in two. The windows lie side by side,
 * so that both threads work in the same table of the last level, and perhaps on either side of one large page.
 */
#include "config.h"

#include <string.h>

#include "conform/gm_ct.h"

#define STEPS 600u

static void *steps(void *arg)
{
	struct gm_ct_map *o = arg;

	for (unsigned i = 0; i < STEPS; i++) {
		struct gm_ct_step step;

		gm_ct_map_choose(o, &step);
		gm_ct_map_do(o, &step);
		if (i % 100 == 99)
			gm_ct_map_check(o);
	}
	return NULL;
}

/* The last quarter of the memory is copied to and fro meanwhile. */
struct copier {
	struct gm_ct_mem *m;
	uint64_t at, bytes;
	atomic_bool stop;
};

static void *copies(void *arg)
{
	struct copier *c = arg;
	struct gm_ct *t = c->m->d->t;
	unsigned char *host = gm_ct_pages(t, c->bytes);

	while (!atomic_load(&c->stop)) {
		struct gm_copy copy = { .kind = GM_COPY_TO_HOST, .pa = c->m->pa + c->at, .host = GM_VA(host),
					.bytes = c->bytes };

		gm_ct_ok(t, gm_ct_copy(c->m->d, &copy, 1));
		if (memcmp(host, c->m->is + c->at, c->bytes) != 0)
			gm_ct_fail(t, "bytes", "memory that nobody maps changed while others mapped and unmapped");
		copy.kind = GM_COPY_TO_DEV;
		gm_ct_ok(t, gm_ct_copy(c->m->d, &copy, 1));
	}
	gm_ct_pages_free(host, c->bytes);
	return NULL;
}

static void race(struct gm_ct *t, bool one_table)
{
	struct gm_ct_thread thread[3];
	struct copier c = { .stop = false };
	struct gm_ct_stage s;
	struct gm_ct_map other;
	uint32_t third;

	gm_ct_begin(&s, t, GM_CT_WINDOW / 2);
	if (!one_table && s.d->caps.max_contexts < 2)
		gm_ct_need(t, "max_contexts of at least 2");
	if (one_table)
		gm_ct_map_share(&other, &s.o, s.o.va + s.m.bytes, t->seed + 1);
	else
		gm_ct_map_init(&other, &s.m, GM_CT_VA, t->seed + 1);
	third = s.m.pages / 3;
	s.o.last = third;
	other.first = third;
	other.last = 2 * third;
	c.m = &s.m;
	c.at = UINT64_C(2) * third * s.d->granule;
	c.bytes = s.d->granule;
	gm_ct_thread_start(t, &thread[0], steps, &s.o);
	gm_ct_thread_start(t, &thread[1], steps, &other);
	gm_ct_thread_start(t, &thread[2], copies, &c);
	gm_ct_thread_join(&thread[0]);
	gm_ct_thread_join(&thread[1]);
	atomic_store(&c.stop, true);
	gm_ct_thread_join(&thread[2]);
	gm_ct_map_fini(&other);
	gm_ct_finish(&s);
}

static void one_table(struct gm_ct *t)
{
	race(t, true);
}

static void two_tables(struct gm_ct *t)
{
	race(t, false);
}

const struct gm_ct_test gm_ct_threads_tests[] = {
	{ "one_table", GM_CAP_ACCESS, 0, one_table },
	{ "two_tables", GM_CAP_ACCESS, 0, two_tables },
	{ NULL, 0, 0, NULL },
};
