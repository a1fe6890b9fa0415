/* SPDX-License-Identifier: MIT */
/* Dispatch: a device that does not answer is stopped before its caller's memory is given up. */
#include "config.h"

#include <stdatomic.h>
#include <string.h>

#include <criterion/criterion.h>

#include <gmem/mock.h>

#include "hal/gm_call.h"
#include "hal/gm_fence.h"

#include "failing_alloc.h"

#define MS UINT64_C(1000000)
#define MAX_PENDING 8

/* The mock, but its engine keeps what it is given. One device, so that the operations find it. */
static struct {
	const struct gm_services *svc;
	_Atomic unsigned pending, halts;
	struct gm_fence *fence[MAX_PENDING];
	struct gm_step *steps;
} hung;

static gm_ret_t hung_init(void *dev_data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev)
{
	hung.svc = svc;
	return gm_mock_mmu()->dev_init(dev_data, svc, caps, dev);
}

static gm_ret_t hung_copy(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done)
{
	(void)dev, (void)copies, (void)n;
	hung.fence[atomic_fetch_add(&hung.pending, 1)] = done;
	return GM_RET_SUCCESS;
}

static gm_ret_t hung_submit(void *dev, struct gm_step *steps, size_t n, struct gm_fence *done)
{
	hung.steps = steps;
	return hung_copy(dev, NULL, n, done);
}

static void hung_halt(void *dev)
{
	(void)dev;
	atomic_fetch_add(&hung.halts, 1);
	if (hung.steps)
		hung.steps[0].ret = GM_RET_NODEV; /* they are the caller's still */
	for (unsigned n = atomic_exchange(&hung.pending, 0); n > 0; n--)
		hung.svc->fence_signal(hung.svc->self, hung.fence[n - 1], GM_RET_NODEV);
}

struct fixture {
	struct failing_alloc fa;
	struct gm_env *env;
	struct gm_hal_dev *d;
	struct gm_mmu table;
	struct gm_step steps[2];
};

static void open_hung(struct fixture *fx, void (*halt)(void *dev))
{
	struct gm_lib_config config = { .size = sizeof(config) };

	memset(&hung, 0, sizeof(hung));
	failing_alloc_init(&fx->fa);
	config.allocator = &fx->fa.table;
	fx->table = *gm_mock_mmu();
	fx->table.dev_init = hung_init;
	fx->table.copy = hung_copy;
	fx->table.submit = hung_submit;
	fx->table.dev_halt = halt;
	cr_assert_eq(gm_env_threads_create(&config, &fx->env), GM_RET_SUCCESS);
	cr_assert_eq(gm_hal_open(fx->env, &fx->table, NULL, NULL, &fx->d), GM_RET_SUCCESS);
	for (unsigned i = 0; i < 2; i++)
		fx->steps[i] = (struct gm_step){
			.op = GM_STEP_COPY,
			.after = GM_STEP_FREE,
			.copy = { .kind = GM_COPY_ZERO,
				  .pa = fx->d->caps.slab[0].begin + i * GM_UNIT_BYTES,
				  .bytes = GM_PAGE_BYTES },
		};
}

static void close_hung(struct fixture *fx)
{
	gm_hal_close(fx->d);
	gm_env_threads_destroy(fx->env);
	cr_assert_eq(atomic_load(&fx->fa.live), 0u, "something was not given back");
}

static gm_ret_t run(struct fixture *fx, size_t n)
{
	return gm_hal_run(fx->d, fx->steps, n, gm_deadline_ns(fx->env, 20 * MS));
}

Test(call, a_device_that_does_not_answer_is_stopped)
{
	for (size_t n = 1; n <= 2; n++) { /* one: copy(); two: submit() */
		struct fixture fx;

		open_hung(&fx, hung_halt);
		cr_assert_eq(run(&fx, n), GM_RET_TIMEDOUT);
		cr_assert_eq(atomic_load(&hung.halts), 1u);
		cr_assert_eq(atomic_load(&hung.pending), 0u);
		if (n == 2)
			cr_assert_eq(fx.steps[0].ret, GM_RET_NODEV, "the steps were written to when it was stopped");
		cr_assert_eq(run(&fx, n), GM_RET_NODEV, "it stays lost");
		cr_assert_eq(atomic_load(&hung.pending), 0u, "and is not called");
		close_hung(&fx);
	}
}

Test(call, one_that_cannot_be_stopped_keeps_its_fence)
{
	struct gm_fence *late;
	struct fixture fx;

	open_hung(&fx, NULL);
	cr_assert_eq(run(&fx, 1), GM_RET_TIMEDOUT);
	late = hung.fence[0];
	cr_assert_not(gm_fence_done(late));
	hung.svc->fence_signal(hung.svc->self, late, GM_RET_SUCCESS); /* years later */
	cr_assert(gm_fence_done(late));
	cr_assert_eq(run(&fx, 1), GM_RET_NODEV);
	gm_fence_unref(late);
	close_hung(&fx);
}

Test(call, an_answer_in_time_stops_nothing)
{
	struct fixture fx;

	open_hung(&fx, hung_halt);
	fx.d->mmu.copy = gm_mock_mmu()->copy;
	cr_assert_eq(run(&fx, 1), GM_RET_SUCCESS);
	cr_assert_eq(atomic_load(&hung.halts), 0u);
	close_hung(&fx);
}
