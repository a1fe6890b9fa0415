/* SPDX-License-Identifier: MIT */
/*
 * Copy engines.
 *
 * Work comes as jobs: the pieces of a copy() or the steps of a submit() are its units. Without async_copy the caller
 * does them, and the fence is signalled before the call returns. With it there are `engines` threads and one queue.
 *
 *     job:  made --(copy_ns, delay: somebody sleeps for it)--> warm --every unit done or cancelled--> signalled, gone
 *           made --scripted to hang--> hung --rules cleared, device lost or closed--> signalled, gone
 *           warm --one of its steps is scripted to hang--> hung
 *     unit: WAITING --all units it depends on DONE--> taken --> DONE
 *           WAITING --another one of the job failed--> DONE, CANCELED
 *
 * An engine takes the first unit that may run, of the first job that has one. With reorder_seed it takes any that may
 * run, of any job, drawn from the seed: whatever hal.h does not order happens in every order. What the result of a plan
 * is does not depend on it: the first failure by index.
 *
 * Nothing of a copy that hangs is done, nor what of its plan had not begun; its memory is not looked at again.
 */
#include "config.h"

#include <assert.h>
#include <string.h>

#include "backends/mock/gm_mock_internal.h"

/* How often dev_halt() looks whether all is quiet. */
#define HALT_POLL_NS 10000u

enum unit {
	WAITING,
	TAKEN,
	DONE,
};

struct gm_mock_job {
	TAILQ_ENTRY(gm_mock_job) link; /* (L) */
	struct gm_fence *done;
	struct gm_step *steps;    /* submit(): the caller's; NULL: copies */
	size_t n;
	struct gm_mock_verdict v; /* what the script says of the call */
	uint64_t sleep_ns;        /* before the first unit */
	uint64_t end_ns;          /* on the modelled clock */
	bool early;               /* planted: signalled before it is done */
	bool silent;              /* (L) planted: its fence is signalled already, or never */
	bool warming, warm;       /* (L) somebody sleeps; slept */
	bool hangs;               /* (L) one of its steps does not end: nothing more of it begins */
	size_t prefix;            /* (L) units 0 .. prefix - 1 are DONE */
	size_t taken;             /* (L) */
	size_t failed;            /* (L) lowest index of a unit that failed; n: none */
	gm_ret_t ret;             /* (L) of that one */
	struct gm_mock_late late; /* (L) */
	size_t bytes;             /* of this allocation */
	uint8_t *state;           /* (L) enum unit, n times, behind the copies */
	struct gm_copy copies[];
};

void gm_mock_sleep(struct gm_mock *m, uint64_t ns)
{
	const struct gm_services *svc = m->svc;
	uint64_t now = svc->now_ns(svc->self);
	uint64_t deadline = ns > UINT64_MAX - 1 - now ? UINT64_MAX - 1 : now + ns;

	svc->lock(svc->self, &m->lock);
	/* New work wakes it too early, so look at the clock. */
	while (svc->now_ns(svc->self) < deadline && (!gm_mock_is_lost(m) || gm_mock_has_bug(m, GM_MOCK_BUG_HALT_LATE)))
		(void)svc->wait(svc->self, &m->engine_waitq, &m->lock, deadline);
	svc->unlock(svc->self, &m->lock);
}

/* ------------------------------------------------------------------ jobs */

static bool has_copy(const struct gm_step *steps, size_t n)
{
	if (!steps)
		return true;
	for (size_t i = 0; i < n; i++) {
		if (steps[i].op == GM_STEP_COPY)
			return true;
	}
	return false;
}

static struct gm_mock_job *job_make(struct gm_mock *m, struct gm_step *steps, const struct gm_copy *copies, size_t n,
				    struct gm_fence *done, const struct gm_mock_verdict *v)
{
	size_t head = sizeof(struct gm_mock_job) + (steps ? 0 : n * sizeof(*copies));
	struct gm_mock_job *job = m->svc->alloc(m->svc->self, head + n);

	if (!job)
		return NULL;
	job->done = done;
	job->steps = steps;
	job->n = n;
	job->v = *v;
	job->failed = n;
	job->bytes = head + n;
	job->state = (uint8_t *)job + head; /* all WAITING */
	STAILQ_INIT(&job->late);
	if (!steps)
		memcpy(job->copies, copies, n * sizeof(*copies));
	return job;
}

static void job_finish(struct gm_mock *m, struct gm_mock_job *job)
{
	const struct gm_services *svc = m->svc;
	struct gm_mock_late late = STAILQ_HEAD_INITIALIZER(late);

	STAILQ_CONCAT(&late, &job->late);
	gm_mock_cost_done(m, job->end_ns);
	if (!job->silent && !(gm_mock_has_bug(m, GM_MOCK_BUG_LOST_FENCE) && gm_mock_is_lost(m)))
		gm_mock_bug_signal(m, job->done, job->ret);
	if (job->early) {
		if (job->sleep_ns > 0)
			gm_mock_sleep(m, job->sleep_ns);
		svc->yield(svc->self);
		gm_mock_run_late(m, &late);
	}
	svc->free(svc->self, job, job->bytes);
	atomic_fetch_sub(&m->working, 1);
}

static void enqueue(struct gm_mock *m, struct gm_mock_job *job, struct gm_mock_jobs *queue)
{
	m->svc->lock(m->svc->self, &m->lock);
	TAILQ_INSERT_TAIL(queue, job, link);
	m->svc->unlock(m->svc->self, &m->lock);
	m->svc->wake(m->svc->self, &m->engine_waitq);
}

static void job_hang(struct gm_mock *m, struct gm_mock_job *job)
{
	enqueue(m, job, &m->hung);
	if (gm_mock_is_lost(m)) /* it came too late for those that ended then */
		gm_mock_hung_end(m, GM_RET_NODEV);
}

/* ----------------------------------------------------------------- units */

static bool may_run(struct gm_mock *m, const struct gm_mock_job *job, size_t i)
{
	if (!job->warm || job->hangs || job->state[i] != WAITING)
		return false;
	if (job->steps && gm_mock_has_bug(m, GM_MOCK_BUG_PLAN_REVERSED))
		return i == job->n - 1 || job->state[i + 1] == DONE;
	return !job->steps || job->steps[i].after == GM_STEP_FREE || job->steps[i].after < job->prefix;
}

/* A number below n, drawn from the seed. */
static uint64_t draw(struct gm_mock *m, uint64_t n)
{
	m->reorder ^= m->reorder << 13;
	m->reorder ^= m->reorder >> 7;
	m->reorder ^= m->reorder << 17;
	return m->reorder % n;
}

/*
 * (L) Look through the units of a job. True: it is `*out`. Else each of the `seen` candidates so far, of other jobs
 * too, has had the same chance; `*out` changes if it is one of this job's.
 */
static bool choose_in(struct gm_mock *m, const struct gm_mock_job *job, uint64_t *seen, size_t *out)
{
	for (size_t i = job->prefix; i < job->n; i++) {
		if (!may_run(m, job, i))
			continue;
		++*seen;
		if (m->config.reorder_seed == 0) {
			*out = i;
			return true;
		}
		if (draw(m, *seen) == 0)
			*out = i;
	}
	return false;
}

/* (L) A unit that may run, or a job that needs somebody to sleep for it (*unit == job->n). NULL: nothing to do now. */
static struct gm_mock_job *choose(struct gm_mock *m, size_t *unit)
{
	struct gm_mock_job *job, *chosen = NULL;
	uint64_t seen = 0;

	TAILQ_FOREACH(job, &m->jobs, link) {
		size_t at = SIZE_MAX;

		if (!job->warm && !job->warming) {
			*unit = job->n;
			return job;
		}
		if (choose_in(m, job, &seen, &at)) {
			*unit = at;
			return job;
		}
		if (at != SIZE_MAX) { /* one of this job took the place of what was chosen before */
			chosen = job;
			*unit = at;
		}
	}
	return chosen;
}

static gm_ret_t unit_run(struct gm_mock *m, struct gm_mock_job *job, size_t i, bool *hang)
{
	struct gm_mock_late *late = job->early ? &job->late : NULL;
	struct gm_copy piece;

	if (m->config.timing_wait) {
		const struct gm_step *step = job->steps ? &job->steps[i] : NULL;
		uint64_t ns = gm_mock_cost_of(m, step, step ? &step->copy : &job->copies[i]);

		if (ns > 0)
			gm_mock_sleep(m, ns);
	}
	if (job->steps)
		return gm_mock_bug_skips_step(m, i, job->n) ? GM_RET_SUCCESS :
							      gm_mock_run_step(m, &job->steps[i], late, hang);
	if (!gm_mock_bug_piece(m, job->copies, job->n, i, &piece))
		return GM_RET_SUCCESS;
	return gm_mock_run_piece(m, &piece, job->v.ret != GM_RET_SUCCESS, job->v.garbage, late);
}

/* (L) What has not begun when a unit failed does not begin. */
static void cancel_rest(struct gm_mock *m, struct gm_mock_job *job)
{
	for (size_t i = job->prefix; i < job->n; i++) {
		if (job->state[i] != WAITING)
			continue;
		job->state[i] = DONE;
		if (job->steps)
			gm_mock_bug_step_ret(m, &job->steps[i], GM_RET_CANCELED);
	}
}

/* (L) True: it was the last one. */
static bool unit_done(struct gm_mock *m, struct gm_mock_job *job, size_t i, gm_ret_t ret)
{
	job->state[i] = DONE;
	job->taken--;
	if (job->steps)
		gm_mock_bug_step_ret(m, &job->steps[i], ret);
	if (ret != GM_RET_SUCCESS && i < job->failed) {
		job->failed = i;
		job->ret = ret;
	}
	if (ret != GM_RET_SUCCESS && !gm_mock_has_bug(m, GM_MOCK_BUG_PLAN_GOES_ON))
		cancel_rest(m, job);
	while (job->prefix < job->n && job->state[job->prefix] == DONE)
		job->prefix++;
	return job->prefix == job->n;
}

/* (L, given back meanwhile) One unit, or the sleep before the first. True: the job is over, or hangs. */
static bool work(struct gm_mock *m, struct gm_mock_job *job, size_t i)
{
	const struct gm_services *svc = m->svc;
	bool hang = false;
	gm_ret_t ret;

	if (i == job->n) {
		job->warming = true;
		svc->unlock(svc->self, &m->lock);
		gm_mock_sleep(m, job->sleep_ns);
		svc->lock(svc->self, &m->lock);
		job->warm = true;
		return false;
	}
	job->state[i] = TAKEN;
	job->taken++;
	svc->unlock(svc->self, &m->lock);
	ret = unit_run(m, job, i, &hang);
	svc->lock(svc->self, &m->lock);
	if (hang) {
		job->hangs = true;
		job->taken--;
	} else if (unit_done(m, job, i, ret)) {
		return true;
	}
	return job->hangs && job->taken == 0;
}

/* (unlocked) What is over is signalled, what hangs is put away. */
static void job_leave(struct gm_mock *m, struct gm_mock_job *job)
{
	if (job->hangs)
		job_hang(m, job);
	else
		job_finish(m, job);
}

static void engine_main(void *arg)
{
	struct gm_mock *m = arg;
	const struct gm_services *svc = m->svc;

	svc->lock(svc->self, &m->lock);
	for (;;) {
		struct gm_mock_job *job;
		size_t unit = 0;

		while (!(job = choose(m, &unit)) && !(m->engine_stop && TAILQ_EMPTY(&m->jobs)))
			(void)svc->wait(svc->self, &m->engine_waitq, &m->lock, GM_FOREVER_NS);
		if (!job)
			break;
		if (work(m, job, unit)) {
			TAILQ_REMOVE(&m->jobs, job, link);
			svc->unlock(svc->self, &m->lock);
			svc->wake(svc->self, &m->engine_waitq);
			job_leave(m, job);
			svc->lock(svc->self, &m->lock);
		} else if (m->config.engines > 1) { /* more may run now */
			svc->unlock(svc->self, &m->lock);
			svc->wake(svc->self, &m->engine_waitq);
			svc->lock(svc->self, &m->lock);
		}
	}
	svc->unlock(svc->self, &m->lock);
}

gm_ret_t gm_mock_engine_start(struct gm_mock *m)
{
	const struct gm_services *svc = m->svc;
	gm_ret_t ret = GM_RET_SUCCESS;

	m->reorder = m->config.reorder_seed;
	for (unsigned i = 0; m->config.async_copy && i < m->config.engines && ret == GM_RET_SUCCESS; i++)
		ret = svc->thread_start(svc->self, "gm-mock-copy", GM_THREAD_DEVICE, engine_main, m, &m->engine[i]);
	if (ret == GM_RET_SUCCESS)
		return ret;
	gm_mock_engine_stop(m);
	/* What is short is memory or processes; dev_init() knows only the one word. */
	return GM_RET_NOMEM;
}

void gm_mock_engine_stop(struct gm_mock *m)
{
	const struct gm_services *svc = m->svc;

	svc->lock(svc->self, &m->lock);
	m->engine_stop = true;
	svc->unlock(svc->self, &m->lock);
	svc->wake(svc->self, &m->engine_waitq);
	for (unsigned i = 0; i < GM_MOCK_MAX_ENGINES; i++) {
		if (m->engine[i])
			svc->thread_join(svc->self, m->engine[i]);
		m->engine[i] = NULL;
	}
	gm_mock_hung_end(m, GM_RET_NODEV);
}

/* -------------------------------------------------------------- starting */

/* The caller is the engine. */
static void run_here(struct gm_mock *m, struct gm_mock_job *job)
{
	const struct gm_services *svc = m->svc;
	size_t unit = 0;
	bool over;

	if (!job->warm)
		gm_mock_sleep(m, job->sleep_ns);
	job->warm = true;
	svc->lock(svc->self, &m->lock);
	do {
		uint64_t seen = 0;

		(void)choose_in(m, job, &seen, &unit);
		assert(seen > 0);
		over = work(m, job, unit);
	} while (!over);
	svc->unlock(svc->self, &m->lock);
	job_leave(m, job);
}

gm_ret_t gm_mock_job_start(struct gm_mock *m, struct gm_step *steps, const struct gm_copy *copies, size_t n,
			   struct gm_fence *done, const struct gm_mock_verdict *v)
{
	struct gm_mock_job *job = job_make(m, steps, copies, n, done, v);
	bool async = m->config.async_copy;

	if (!job)
		return gm_mock_bug_refuse(m, done, GM_RET_NOMEM);
	atomic_fetch_add(&m->working, 1);
	if (v->hang) {
		job_hang(m, job);
		return GM_RET_SUCCESS;
	}
	if (async && has_copy(steps, n))
		job->sleep_ns = m->config.copy_ns;
	job->sleep_ns = v->delay_ns > UINT64_MAX - job->sleep_ns ? UINT64_MAX : v->delay_ns + job->sleep_ns;
	job->end_ns = gm_mock_cost_job(m, steps, copies, n, job->sleep_ns);
	job->early = async && gm_mock_has_bug(m, GM_MOCK_BUG_EARLY_FENCE);
	job->warm = job->early || job->sleep_ns == 0;
	if (async)
		enqueue(m, job, &m->jobs);
	else
		run_here(m, job);
	return GM_RET_SUCCESS;
}

/*
 * What hung ends with `ret`, and what had not begun is CANCELED; of a call that hung as a whole the first step counts
 * as begun. The first failure by index, which the fence says.
 */
static gm_ret_t hung_result(struct gm_mock *m, struct gm_mock_job *job, gm_ret_t ret)
{
	bool whole = job->v.hang;

	for (size_t i = 0; job->steps && i < job->n; i++) {
		if (job->state[i] == DONE)
			continue;
		if (job->state[i] == TAKEN || (whole && i == 0)) {
			gm_mock_bug_step_ret(m, &job->steps[i], ret);
			if (i < job->failed) {
				job->failed = i;
				job->ret = ret;
			}
		} else {
			gm_mock_bug_step_ret(m, &job->steps[i], GM_RET_CANCELED);
		}
	}
	return job->steps ? job->ret : ret;
}

void gm_mock_hung_end(struct gm_mock *m, gm_ret_t ret)
{
	const struct gm_services *svc = m->svc;
	struct gm_mock_job *job;

	do {
		svc->lock(svc->self, &m->lock);
		job = TAILQ_FIRST(&m->hung);
		if (job)
			TAILQ_REMOVE(&m->hung, job, link);
		svc->unlock(svc->self, &m->lock);
		if (job) {
			svc->fence_signal(svc->self, job->done, hung_result(m, job, ret));
			gm_mock_run_late(m, &job->late);
			svc->free(svc->self, job, job->bytes);
			atomic_fetch_sub(&m->working, 1);
		}
	} while (job);
}

/* Planted: what is pending is signalled, and goes on. */
static void halt_late(struct gm_mock *m)
{
	const struct gm_services *svc = m->svc;
	struct gm_mock_job *job;
	struct gm_fence *done;

	gm_mock_dev_lose(m);
	do {
		done = NULL;
		svc->lock(svc->self, &m->lock);
		TAILQ_FOREACH(job, &m->jobs, link) {
			if (job->silent)
				continue;
			job->silent = true;
			done = job->done;
			break;
		}
		svc->unlock(svc->self, &m->lock);
		if (done)
			svc->fence_signal(svc->self, done, GM_RET_NODEV);
	} while (done);
}

void gm_mock_halt(void *dev)
{
	struct gm_mock *m = dev;
	const struct gm_services *svc = m->svc;

	if (gm_mock_has_bug(m, GM_MOCK_BUG_HALT_IGNORED))
		return;
	if (gm_mock_has_bug(m, GM_MOCK_BUG_HALT_LATE)) {
		halt_late(m);
		return;
	}
	/* Whoever sleeps wakes up; what has not begun ends with NODEV; what copies finishes that. */
	gm_mock_dev_lose(m);
	svc->lock(svc->self, &m->lock);
	while (atomic_load(&m->working) > 0 || atomic_load(&m->importing) > 0)
		(void)svc->wait(svc->self, &m->engine_waitq, &m->lock, svc->now_ns(svc->self) + HALT_POLL_NS);
	svc->unlock(svc->self, &m->lock);
}
