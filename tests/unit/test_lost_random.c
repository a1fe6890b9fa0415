/* SPDX-License-Identifier: MIT */
/*
 * A random program on memory of which devices are lost, again and again. Of each page the books know:
 *
 *     GOOD   reads as it was written last
 *     DOUBT  its device is lost: so, or it is LOST; the next access tells
 *     LOST   every access fails, of whoever and wherever mremap() takes it, until the content is given up: zeros, GOOD
 *
 * What no page ever does is read as something else. Beside the program a thread touches pages, without a look at what it
 * gets, so that the handler is busy at any moment.
 */
#include "config.h"

#include "losing_mock.h"

#define PAGES 96u
#define RUN 24u
#define STEPS 4000u

enum fate { GOOD, DOUBT, LOST };

struct page {
	uint64_t va, value;
	enum fate fate;
};

struct model {
	struct world *w;
	struct page page[PAGES];
	struct gm_dev *dev; /* the one that is lost now and then */
	struct gm_ctx *ctx;
	uint64_t values, step;
	unsigned lost, moved; /* pages */
	bool stop;
};

static uint64_t rnd(struct model *m, uint64_t n)
{
	return gm_sim_random(m->w->sim, n);
}

/* Pages side by side, in address too. */
static struct page *run_of(struct model *m, unsigned *n)
{
	unsigned first = (unsigned)rnd(m, PAGES), limit = 1 + (unsigned)rnd(m, RUN);
	struct page *p = &m->page[first];

	for (*n = 1; *n < limit && first + *n < PAGES && p[*n].va == p->va + *n * PAGE;)
		(*n)++;
	return p;
}

static bool all_good(const struct page *p, unsigned n)
{
	while (n && p[n - 1].fate == GOOD)
		n--;
	return n == 0;
}

static void given_up(struct page *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		p[i].fate = GOOD, p[i].value = 0;
}

/* Managed wherever it is; EXIST: it is already. */
static void adopt(struct model *m, struct page *p, unsigned n)
{
	gm_ret_t ret = gm_adopt(m->w->as, ptr(p->va), n * PAGE, 0);

	for (unsigned i = 0; ret == GM_RET_EXIST && i < n && n > 1; i++) /* some of it */
		adopt(m, &p[i], 1);
	cr_assert(!ret || ret == GM_RET_EXIST, "step %u: %s", (unsigned)m->step, gm_last_error());
}

/* An access told what became of the page. */
static void learn(struct model *m, struct page *p, gm_ret_t ret, const char *what)
{
	cr_assert(ret == GM_RET_SUCCESS || ret == GM_RET_IO, "step %u, %s: %s", (unsigned)m->step, what, gm_ret_name(ret));
	cr_assert(ret || p->fate != LOST, "step %u, %s: a lost page can be accessed", (unsigned)m->step, what);
	cr_assert(!ret || p->fate != GOOD, "step %u, %s: a good page fails", (unsigned)m->step, what);
	m->lost += p->fate == DOUBT && ret;
	p->fate = ret ? LOST : GOOD;
}

static void cpu_load(struct model *m, struct page *p, const char *what)
{
	uint64_t value = 0;
	gm_ret_t ret = gm_sim_load(m->w->sim, p->va + 8, &value, sizeof(value));

	learn(m, p, ret, what);
	cr_assert(ret || value == p->value, "step %u, %s: 0x%llx instead of 0x%llx", (unsigned)m->step, what,
		  (unsigned long long)value, (unsigned long long)p->value);
}

static void cpu_store(struct model *m, struct page *p)
{
	uint64_t value = ++m->values;
	gm_ret_t ret = gm_sim_store(m->w->sim, p->va + 8, &value, sizeof(value));

	learn(m, p, ret, "a store");
	p->value = ret ? p->value : value;
}

static void child_load(struct model *m, const struct page *p)
{
	uint64_t value = 0;
	gm_ret_t ret = gm_sim_fork_snapshot(m->w->sim, p->va + 8, &value, sizeof(value));

	if (p->fate == GOOD)
		IS(ret, GM_RET_SUCCESS);
	if (p->fate == LOST)
		IS(ret, GM_RET_IO);
	cr_assert(ret || value == p->value, "step %u: a child sees 0x%llx", (unsigned)m->step, (unsigned long long)value);
}

/* ------------------------------------------------------------- devices */

struct job {
	struct model *m;
	struct page *p;
	unsigned n;
	bool write;
};

static gm_ret_t job_kernel(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct job *job = arg;
	gm_ret_t ret = GM_RET_SUCCESS;

	(void)index;
	for (unsigned i = 0; i < job->n && !ret; i++) {
		struct page *p = &job->p[i];
		uint64_t value = ++job->m->values;

		if (!job->write) {
			ret = gm_mock_load(t, p->va + 8, &value, sizeof(value));
			cr_assert(ret || value == p->value, "step %u: a device sees 0x%llx", (unsigned)job->m->step,
				  (unsigned long long)value);
		} else {
			ret = gm_mock_store(t, p->va + 8, &value, sizeof(value));
			p->value = ret ? p->value : value;
		}
	}
	return ret;
}

static void dev_access(struct model *m, struct gm_ctx *ctx, struct page *p, unsigned n, bool write)
{
	struct job job = { m, p, n, write };
	struct gm_fence *fence;

	if (p->fate == LOST)
		cr_assert_neq(dev_touch(ctx, p->va, false), GM_RET_SUCCESS, "step %u: a device reads what is lost",
			      (unsigned)m->step);
	if (!all_good(p, n))
		return;
	adopt(m, p, n);
	OK(gm_mock_launch(ctx, job_kernel, &job, 1, &fence));
	OK(gm_fence_wait(fence, 10 * SECOND));
	gm_fence_put(fence);
}

/* What the device has, or may have: nobody knows until it is asked for. */
static void lose_device(struct model *m)
{
	for (unsigned i = 0; i < PAGES; i++) {
		struct page *p = &m->page[i];
		struct gm_page_info info = page_info(m->w, p->va);

		if (p->fate == GOOD && (info.dev == m->dev || (info.flags & GM_PAGE_BUSY) || info.place == GM_PLACE_OUTSIDE))
			p->fate = DOUBT;
	}
	losing.lost = true;
}

static void move(struct model *m, struct page *p, unsigned n);

/* ... and before everybody knows, what it had goes to and fro. */
static void lose_and_move(struct model *m)
{
	lose_device(m);
	for (uint64_t k = rnd(m, 12); k; k--) {
		unsigned n;
		struct page *p = run_of(m, &n);

		while (rnd(m, 4) && all_good(p, n))
			p = run_of(m, &n);
		if (rnd(m, 4))
			move(m, p, n);
		else
			cpu_load(m, p, "a load after the loss");
	}
}

static void renew_device(struct model *m)
{
	close_losing(m->dev, m->ctx);
	m->dev = open_losing(m->w->lib, m->w->as, rnd(m, 2) ? "vram=1M" : "vram=1M,visible=no,copy=async,copyns=3000", &m->ctx);
}

/* ------------------------------------------------------------- the program */

static void move(struct model *m, struct page *p, unsigned n)
{
	uint64_t to = gm_sim_mremap(m->w->sim, p->va, n * PAGE);

	for (unsigned i = 0; to && i < n; i++) {
		p[i].va = to + i * PAGE;
		m->moved += p[i].fate != GOOD;
	}
	if (rnd(m, 2) == 0)
		cpu_load(m, &p[rnd(m, n)], "a load after mremap");
	if (rnd(m, 2) == 0)
		adopt(m, p, n);
}

static void replace(struct model *m, struct page *p, unsigned n)
{
	cr_assert_eq(gm_sim_mmap_at(m->w->sim, p->va, n * PAGE, RW), p->va);
	given_up(p, n);
	cpu_load(m, p, "a load of new memory");
	adopt(m, p, n);
}

static void release(struct model *m, struct page *p, unsigned n)
{
	gm_ret_t ret = gm_release(m->w->as, ptr(p->va), n * PAGE);

	cr_assert(!ret || ret == GM_RET_NOENT, "step %u: %s", (unsigned)m->step, gm_last_error());
	if (rnd(m, 2) == 0)
		cpu_load(m, &p[rnd(m, n)], "a load after gm_release()");
	adopt(m, p, n);
}

static void discard(struct model *m, struct page *p, unsigned n)
{
	adopt(m, p, n);
	OK(gm_discard(m->w->as, p->va, n * PAGE));
	given_up(p, n);
}

/* What moved must be home; what is lost is not, and that is said where it is known. */
static void migrate(struct model *m, struct page *p, unsigned n, struct gm_dev *dev)
{
	gm_ret_t ret = gm_migrate(m->w->as, p->va, n * PAGE, dev, NULL);

	cr_assert(!ret || ret == GM_RET_NODEV || ret == GM_RET_FAULT || ret == GM_RET_BUSY, "step %u: %s", (unsigned)m->step,
		  gm_last_error());
	cr_assert(dev || ret != GM_RET_NODEV || !all_good(p, n), "step %u: %s", (unsigned)m->step, gm_last_error());
}

static void step(struct model *m)
{
	struct world *w = m->w;
	unsigned n;
	struct page *p = run_of(m, &n);

	switch (rnd(m, 29)) {
	case 0:
		if (losing.lost)
			renew_device(m);
		else
			lose_and_move(m);
		break;
	case 1: case 2: case 3: case 4: case 24: case 25: case 26: case 27: case 28:
		if (!losing.lost)
			dev_access(m, m->ctx, p, n, rnd(m, 3) > 0);
		break;
	case 5: case 6:
		dev_access(m, w->ctx[0], p, n, rnd(m, 2) > 0);
		break;
	case 7: case 8: case 9: case 10:
		move(m, p, n);
		break;
	case 11: case 12: case 13:
		cpu_load(m, p, "a load");
		break;
	case 14: case 15:
		cpu_store(m, p);
		break;
	case 16:
		OK(gm_sim_dontneed(w->sim, p->va, n * PAGE));
		given_up(p, n);
		break;
	case 17:
		discard(m, p, n);
		break;
	case 18:
		release(m, p, n);
		break;
	case 19:
		replace(m, p, n);
		break;
	case 20:
		child_load(m, p);
		break;
	case 21: case 22:
		migrate(m, p, n, rnd(m, 2) ? w->dev[0] : rnd(m, 2) && !losing.lost ? m->dev : NULL);
		break;
	default:
		gm_sim_sleep_ns(w->sim, rnd(m, 20) ? rnd(m, 100000) : 300 * MS);
		break;
	}
}

static void toucher(void *arg)
{
	struct model *m = arg;
	uint8_t byte;

	while (!m->stop) {
		(void)gm_sim_load(m->w->sim, m->page[rnd(m, PAGES)].va, &byte, 1);
		gm_sim_sleep_ns(m->w->sim, rnd(m, 5000));
	}
}

static void random_program(struct world *w)
{
	struct model m = { .w = w };
	uint64_t va = app_map(w, PAGES * PAGE);
	struct gm_thread *t;

	m.dev = open_losing(w->lib, w->as, "vram=1M", &m.ctx);
	for (unsigned i = 0; i < PAGES; i++)
		m.page[i].va = va + i * PAGE;
	adopt(&m, m.page, PAGES);
	t = spawn(w, toucher, &m);
	for (m.step = 0; m.step < STEPS; m.step++) {
		step(&m);
		world_check(w);
	}
	m.stop = true;
	join(w, t);
	for (unsigned i = 0; i < PAGES; i++)
		cpu_load(&m, &m.page[i], "a load at the end");
	cr_assert(m.lost > 20 && m.moved > 20, "%u pages were lost, %u of such moved", m.lost, m.moved);
	close_losing(m.dev, m.ctx);
}

CORE_TEST(lost_random, seed_1, .spurious = true, .seed = 1)
{
	random_program(w);
}

CORE_TEST(lost_random, seed_2, .spurious = true, .seed = 2)
{
	random_program(w);
}

CORE_TEST(lost_random, exclusive, .spurious = true, .seed = 3, .as = { .flags = GM_AS_EXCLUSIVE })
{
	random_program(w);
}
