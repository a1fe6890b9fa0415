/* SPDX-License-Identifier: MIT */
/*
 * Services: each forwards to the environment of the device it was made for.
 * They are a table, and not functions, so that a backend in a shared object
 * needs no symbol of the program that loads it.
 */
#include "config.h"

#include "hal/gm_services.h"

#include "hal/gm_fence.h"

static struct gm_hal_dev *dev_of(void *self)
{
	return self;
}

static struct gm_env *env_of(void *self)
{
	return dev_of(self)->env;
}

static void *svc_alloc(void *self, size_t bytes)
{
	return gm_mem_alloc(env_of(self), bytes);
}

static void svc_free(void *self, void *ptr, size_t bytes)
{
	if (ptr)
		gm_mem_free(env_of(self), ptr, bytes);
}

static uint64_t svc_now_ns(void *self)
{
	return gm_now_ns(env_of(self));
}

static void svc_mutex_init(void *self, struct gm_mutex *mutex)
{
	gm_mutex_init(env_of(self), mutex, GM_RANK_LEAF);
}

static void svc_mutex_fini(void *self, struct gm_mutex *mutex)
{
	gm_mutex_fini(env_of(self), mutex);
}

static void svc_lock(void *self, struct gm_mutex *mutex)
{
	gm_lock(env_of(self), mutex);
}

static void svc_unlock(void *self, struct gm_mutex *mutex)
{
	gm_unlock(env_of(self), mutex);
}

static void svc_waitq_init(void *self, struct gm_waitq *queue)
{
	gm_waitq_init(env_of(self), queue);
}

static void svc_waitq_fini(void *self, struct gm_waitq *queue)
{
	gm_waitq_fini(env_of(self), queue);
}

static gm_ret_t svc_wait(void *self, struct gm_waitq *queue, struct gm_mutex *mutex, uint64_t deadline_ns)
{
	return gm_wait(env_of(self), queue, mutex, deadline_ns);
}

static void svc_wake(void *self, struct gm_waitq *queue)
{
	gm_wake(env_of(self), queue);
}

static gm_ret_t svc_thread_start(void *self, const char *name, uint32_t flags, void (*fn)(void *), void *arg,
				 struct gm_thread **thread)
{
	struct gm_env *env = env_of(self);

	return env->ops->thread_start(env, name, flags, fn, arg, thread);
}

static void svc_thread_join(void *self, struct gm_thread *thread)
{
	struct gm_env *env = env_of(self);

	env->ops->thread_join(env, thread);
}

static void svc_yield(void *self)
{
	gm_yield(env_of(self));
}

/* The waiter may drop the last reference as soon as it sees the result: hold one of our own. */
static void svc_fence_signal(void *self, struct gm_fence *fence, gm_ret_t result)
{
	(void)self;
	(void)gm_fence_ref(fence);
	if (result <= 0) /* a backend that makes results up is told so by the shim; its fence stays pending */
		(void)gm_fence_finish(fence, result);
	gm_fence_unref(fence);
}

static struct gm_fence *svc_fence_create(void *self)
{
	struct gm_fence *fence = gm_fence_new(env_of(self));

	if (fence && gm_fence_publish(fence)) {
		gm_fence_unref(fence);
		fence = NULL;
	}
	return fence;
}

static void svc_fence_put(void *self, struct gm_fence *fence)
{
	(void)self;
	gm_fence_unref(fence);
}

static void svc_fault_ready(void *self)
{
	struct gm_hal_dev *d = dev_of(self);

	if (d->fault_ready)
		d->fault_ready(d->fault_arg);
}

static gm_ret_t svc_host_access(void *self, uint64_t host_va, void *buf, size_t bytes, bool write)
{
	gm_ret_t ret = gm_hal_host_access(dev_of(self), host_va, buf, bytes, write);

	/* The host cannot tell now: the fault that follows is kept until it can (gm_devq.c). */
	return ret == GM_RET_NOMEM ? GM_RET_FAULT : ret;
}

static void svc_log(void *self, enum gm_log_level level, const char *message)
{
	gm_log(env_of(self), level, "%s: %s", dev_of(self)->caps.name, message);
}

void gm_services_init(struct gm_hal_dev *d)
{
	d->svc = (struct gm_services){
		.abi = GM_HAL_ABI,
		.size = sizeof(struct gm_services),
		.self = d,
		.alloc = svc_alloc,
		.free = svc_free,
		.now_ns = svc_now_ns,
		.mutex_init = svc_mutex_init,
		.mutex_fini = svc_mutex_fini,
		.lock = svc_lock,
		.unlock = svc_unlock,
		.waitq_init = svc_waitq_init,
		.waitq_fini = svc_waitq_fini,
		.wait = svc_wait,
		.wake = svc_wake,
		.thread_start = svc_thread_start,
		.thread_join = svc_thread_join,
		.yield = svc_yield,
		.fence_signal = svc_fence_signal,
		.fence_create = svc_fence_create,
		.fence_put = svc_fence_put,
		.fault_ready = svc_fault_ready,
		.host_access = svc_host_access,
		.log = svc_log,
	};
}
