/* SPDX-License-Identifier: MIT */
/*
 * Services: each judges how the backend uses it, and forwards to the one the shim got.
 *
 *     memory: allocated --free with its size--> gone         lock: made --lock--> held --unlock--> made --> unmade
 *     thread: started --join--> gone                         queue: made --> unmade
 *
 * Who holds a lock is told by the pthread. In a simulation all coroutines are one pthread, but none of them is
 * switched away from while it holds a lock, so there as well whatever is held is held by the one that runs.
 *
 * A lock is forwarded before it counts as held, and counts no more before it is given back.
 */
#include "config.h"

#include "hal/gm_shim.h"

/* In front of each allocation of the backend: its record; what follows keeps the alignment. */
#define HEAD ((sizeof(struct gm_shim_thing) + 15u) & ~(size_t)15u)

static int thing_compare(const struct gm_shim_thing *a, const struct gm_shim_thing *b)
{
	return ((uintptr_t)a->key > (uintptr_t)b->key) - ((uintptr_t)a->key < (uintptr_t)b->key);
}

RB_GENERATE_INTERNAL(gm_shim_things, gm_shim_thing, link, thing_compare, static __attribute__((unused)))

/* (S) */
static struct gm_shim_thing *find(struct gm_shim_dev *d, const void *key)
{
	struct gm_shim_thing probe = { .key = key };

	return RB_FIND(gm_shim_things, &d->things, &probe);
}

struct gm_shim_thing *gm_shim_held(struct gm_shim_dev *d)
{
	struct gm_shim_thing *t;

	LIST_FOREACH(t, &d->held, in_held)
		if (pthread_equal(t->holder, pthread_self()))
			return t;
	return NULL;
}

static struct gm_shim_at at_service(const char *name)
{
	return (struct gm_shim_at){ .op = name, .step = GM_STEP_FREE };
}

/* The service may sleep (or, as seen from fault_next(), do anything at all). */
static void judge_caller(struct gm_shim_dev *d, const char *name, bool sleeps, uintptr_t stack)
{
	struct gm_shim_at at = at_service(name);
	struct gm_shim_call *c;
	enum gm_rule rule = GM_RULES;

	gm_shim_lock(d);
	c = gm_shim_caller(d, stack);
	if (c && !c->blocked && c->op == GM_SHIM_OP_FAULT_NEXT)
		rule = GM_RULE_FAULT_BLOCKS;
	if (c && !c->blocked && c->op == GM_SHIM_OP_TLB_INVL && sleeps && gm_shim_has(d, GM_CAP_FAST_INVL))
		rule = GM_RULE_INVL_BLOCKS;
	if (rule != GM_RULES) {
		c->blocked = true;
		at.pmap = c->at.pmap;
		at.va = c->at.va;
		at.bytes = c->at.bytes;
	}
	gm_shim_unlock(d);
	if (rule != GM_RULES)
		gm_shim_report(d, rule, &at, "service %s", name);
}

/* One of the ways to wait for something; host_access() is none for looks, which never go to the host. */
static void note_wait(struct gm_shim_dev *d, uintptr_t stack)
{
	const struct gm_shim_call *c;

	gm_shim_lock(d);
	c = gm_shim_caller(d, stack);
	if (c && c->op == GM_SHIM_OP_ACCESS)
		atomic_store(&d->access_waits, true);
	gm_shim_unlock(d);
}

#define HERE ((uintptr_t)__builtin_frame_address(0))

/* No lock may be held where others are told something. */
static void judge_unlocked(struct gm_shim_dev *d, const char *name)
{
	struct gm_shim_at at = at_service(name);
	bool held;

	gm_shim_lock(d);
	held = gm_shim_held(d) != NULL;
	gm_shim_unlock(d);
	if (held)
		gm_shim_report(d, GM_RULE_CALL_LOCKED, &at, "%s", "");
}

/* ------------------------------------------------------------------ memory */

static void *svc_alloc(void *self, size_t bytes)
{
	struct gm_shim_dev *d = self;
	struct gm_shim_thing *t;

	judge_caller(d, "alloc", false, HERE);
	if (bytes > SIZE_MAX - HEAD)
		return NULL;
	t = d->out->alloc(d->out->self, HEAD + bytes);
	if (!t)
		return NULL;
	t->key = (char *)t + HEAD;
	t->kind = GM_SHIM_ALLOCATION;
	t->bytes = bytes;
	gm_shim_lock(d);
	RB_INSERT(gm_shim_things, &d->things, t);
	gm_shim_unlock(d);
	return (char *)t + HEAD;
}

static void svc_free(void *self, void *ptr, size_t bytes)
{
	struct gm_shim_dev *d = self;
	struct gm_shim_at at = at_service("free");
	struct gm_shim_thing *t;

	judge_caller(d, "free", false, HERE);
	if (!ptr)
		return;
	gm_shim_lock(d);
	t = find(d, ptr);
	if (t && t->kind == GM_SHIM_ALLOCATION)
		RB_REMOVE(gm_shim_things, &d->things, t);
	else
		t = NULL;
	gm_shim_unlock(d);
	if (!t) {
		gm_shim_report(d, GM_RULE_FREE_UNKNOWN, &at, "address %p, %zu bytes", ptr, bytes);
		return;
	}
	if (t->bytes != bytes)
		gm_shim_report(d, GM_RULE_FREE_BYTES, &at, "address %p, %zu bytes, allocated with %zu", ptr, bytes, t->bytes);
	d->out->free(d->out->self, t, HEAD + t->bytes);
}

/* A record of a lock, queue or thread. Without memory for one nothing is said of such things any more. */
static void add_thing(struct gm_shim_dev *d, const void *key, int kind)
{
	struct gm_shim_thing *t = d->out->alloc(d->out->self, sizeof(*t)), *before;

	if (t) {
		t->key = key;
		t->kind = kind;
	}
	gm_shim_lock(d);
	if (!t)
		d->blind_things = true;
	before = t ? RB_INSERT(gm_shim_things, &d->things, t) : NULL;
	gm_shim_unlock(d);
	if (before) /* made twice: the record is there */
		d->out->free(d->out->self, t, sizeof(*t));
}

/* False, and reported: it is not made. */
static bool drop_thing(struct gm_shim_dev *d, const char *op, const void *key, int kind)
{
	struct gm_shim_at at = at_service(op);
	struct gm_shim_thing *t;
	bool blind;

	gm_shim_lock(d);
	blind = d->blind_things;
	t = find(d, key);
	if (t && (int)t->kind != kind)
		t = NULL;
	if (t && t->held)
		LIST_REMOVE(t, in_held);
	if (t)
		RB_REMOVE(gm_shim_things, &d->things, t);
	gm_shim_unlock(d);
	if (t)
		d->out->free(d->out->self, t, sizeof(*t));
	else if (!blind)
		gm_shim_report(d, GM_RULE_LOCK_UNMADE, &at, "%p", key);
	return t || blind;
}

/* ---------------------------------------------------------- locks and queues */

static void svc_mutex_init(void *self, struct gm_mutex *mutex)
{
	struct gm_shim_dev *d = self;

	judge_caller(d, "mutex_init", false, HERE);
	add_thing(d, mutex, GM_SHIM_LOCK);
	d->out->mutex_init(d->out->self, mutex);
}

static void svc_mutex_fini(void *self, struct gm_mutex *mutex)
{
	struct gm_shim_dev *d = self;

	judge_caller(d, "mutex_fini", false, HERE);
	if (drop_thing(d, "mutex_fini", mutex, GM_SHIM_LOCK))
		d->out->mutex_fini(d->out->self, mutex);
}

static void hold(struct gm_shim_dev *d, const struct gm_mutex *mutex)
{
	struct gm_shim_thing *t;

	gm_shim_lock(d);
	t = find(d, mutex);
	if (t && !t->held) {
		t->held = true;
		t->holder = pthread_self();
		LIST_INSERT_HEAD(&d->held, t, in_held);
	}
	gm_shim_unlock(d);
}

/* GM_RULES: it was held by this thread, and is not any more. */
static enum gm_rule unhold(struct gm_shim_dev *d, const struct gm_mutex *mutex, enum gm_rule not_held)
{
	enum gm_rule rule = GM_RULES;
	struct gm_shim_thing *t;

	gm_shim_lock(d);
	t = find(d, mutex);
	if (t && t->held && pthread_equal(t->holder, pthread_self())) {
		t->held = false;
		LIST_REMOVE(t, in_held);
	} else if (!d->blind_things) {
		rule = t ? not_held : GM_RULE_LOCK_UNMADE;
	}
	gm_shim_unlock(d);
	return rule;
}

static void svc_lock(void *self, struct gm_mutex *mutex)
{
	struct gm_shim_dev *d = self;
	struct gm_shim_at at = at_service("lock");
	bool unmade, two;

	gm_shim_lock(d);
	unmade = !find(d, mutex) && !d->blind_things;
	two = gm_shim_held(d) != NULL;
	gm_shim_unlock(d);
	if (unmade)
		gm_shim_report(d, GM_RULE_LOCK_UNMADE, &at, "lock %p", (void *)mutex);
	if (two)
		gm_shim_report(d, GM_RULE_LOCK_TWO, &at, "lock %p", (void *)mutex);
	d->out->lock(d->out->self, mutex);
	hold(d, mutex);
}

static void svc_unlock(void *self, struct gm_mutex *mutex)
{
	struct gm_shim_dev *d = self;
	struct gm_shim_at at = at_service("unlock");
	enum gm_rule rule = unhold(d, mutex, GM_RULE_UNLOCK_FREE);

	if (rule == GM_RULES)
		d->out->unlock(d->out->self, mutex);
	else
		gm_shim_report(d, rule, &at, "lock %p", (void *)mutex);
}

static void svc_waitq_init(void *self, struct gm_waitq *queue)
{
	struct gm_shim_dev *d = self;

	judge_caller(d, "waitq_init", false, HERE);
	add_thing(d, queue, GM_SHIM_QUEUE);
	d->out->waitq_init(d->out->self, queue);
}

static void svc_waitq_fini(void *self, struct gm_waitq *queue)
{
	struct gm_shim_dev *d = self;

	judge_caller(d, "waitq_fini", false, HERE);
	if (drop_thing(d, "waitq_fini", queue, GM_SHIM_QUEUE))
		d->out->waitq_fini(d->out->self, queue);
}

static bool queue_made(struct gm_shim_dev *d, const char *name, const struct gm_waitq *queue)
{
	struct gm_shim_at at = at_service(name);
	bool made;

	gm_shim_lock(d);
	made = d->blind_things || find(d, queue) != NULL;
	gm_shim_unlock(d);
	if (!made)
		gm_shim_report(d, GM_RULE_LOCK_UNMADE, &at, "queue %p", (const void *)queue);
	return made;
}

static gm_ret_t svc_wait(void *self, struct gm_waitq *queue, struct gm_mutex *mutex, uint64_t deadline_ns)
{
	struct gm_shim_dev *d = self;
	struct gm_shim_at at = at_service("wait");
	enum gm_rule rule;
	gm_ret_t ret;

	judge_caller(d, "wait", true, HERE);
	note_wait(d, HERE);
	if (!queue_made(d, "wait", queue))
		return GM_RET_TIMEDOUT;
	rule = unhold(d, mutex, GM_RULE_WAIT_UNLOCKED);
	if (rule != GM_RULES) { /* nothing to give back, so nothing to wait with: look again */
		gm_shim_report(d, rule, &at, "lock %p", (void *)mutex);
		d->out->yield(d->out->self);
		return GM_RET_SUCCESS;
	}
	ret = d->out->wait(d->out->self, queue, mutex, deadline_ns);
	hold(d, mutex);
	return ret;
}

static void svc_wake(void *self, struct gm_waitq *queue)
{
	struct gm_shim_dev *d = self;

	judge_caller(d, "wake", false, HERE);
	if (queue_made(d, "wake", queue))
		d->out->wake(d->out->self, queue);
}

/* ---------------------------------------------------------- threads and time */

static uint64_t svc_now_ns(void *self)
{
	return gm_shim_now(self);
}

static gm_ret_t svc_thread_start(void *self, const char *name, uint32_t flags, void (*fn)(void *arg), void *arg,
				 struct gm_thread **thread)
{
	struct gm_shim_dev *d = self;
	gm_ret_t ret;

	judge_caller(d, "thread_start", false, HERE);
	ret = d->out->thread_start(d->out->self, name, flags, fn, arg, thread);
	if (ret == GM_RET_SUCCESS)
		add_thing(d, *thread, GM_SHIM_THREAD);
	return ret;
}

static void svc_thread_join(void *self, struct gm_thread *thread)
{
	struct gm_shim_dev *d = self;

	judge_caller(d, "thread_join", true, HERE);
	note_wait(d, HERE);
	judge_unlocked(d, "thread_join");
	if (drop_thing(d, "thread_join", thread, GM_SHIM_THREAD))
		d->out->thread_join(d->out->self, thread);
}

static void svc_yield(void *self)
{
	struct gm_shim_dev *d = self;

	judge_caller(d, "yield", false, HERE);
	note_wait(d, HERE);
	d->out->yield(d->out->self);
}

/* ------------------------------------------------------------------- fences */

static void svc_fence_signal(void *self, struct gm_fence *fence, gm_ret_t result)
{
	struct gm_shim_dev *d = self;

	judge_caller(d, "fence_signal", false, HERE);
	judge_unlocked(d, "fence_signal");
	gm_shim_signal(d, fence, result);
}

static struct gm_fence *svc_fence_create(void *self)
{
	struct gm_shim_dev *d = self;
	struct gm_shim_fence *f;
	struct gm_fence *fence;

	judge_caller(d, "fence_create", false, HERE);
	fence = d->out->fence_create(d->out->self);
	if (!fence)
		return NULL;
	f = gm_shim_fence_new(d, fence, GM_SHIM_FENCE_OWN, 0);
	if (!f) {
		d->out->fence_put(d->out->self, fence);
		return NULL;
	}
	gm_shim_fence_given(d, f);
	return fence;
}

static void svc_fence_put(void *self, struct gm_fence *fence)
{
	struct gm_shim_dev *d = self;

	judge_caller(d, "fence_put", false, HERE);
	gm_shim_fence_put(d, fence); /* before its address can be another's */
	d->out->fence_put(d->out->self, fence);
}

static void svc_fault_ready(void *self)
{
	struct gm_shim_dev *d = self;

	judge_caller(d, "fault_ready", false, HERE);
	judge_unlocked(d, "fault_ready");
	gm_shim_lock(d);
	d->ready++;
	d->silent_ns = 0;
	gm_shim_unlock(d);
	d->out->fault_ready(d->out->self);
}

/* ---------------------------------------------------------------- host, log */

/* (S) The rule that an access to [va, va + bytes) of the host breaks; GM_RULES: none. */
static enum gm_rule judge_host(struct gm_shim_dev *d, uint64_t va, size_t bytes, bool write, uint64_t *where)
{
	for (uint64_t at = va & ~(uint64_t)(GM_PAGE_BYTES - 1); at < va + bytes; at += GM_PAGE_BYTES) {
		const struct gm_shim_frame *f = gm_shim_frame_of(&d->hosts, at);

		*where = at;
		if (!f || !(f->maps || f->old_maps))
			return GM_RULE_HOST_UNMAPPED;
		if (write && !(f->writers || f->old_writers))
			return GM_RULE_HOST_WRITE;
	}
	return GM_RULES;
}

static gm_ret_t svc_host_access(void *self, uint64_t host_va, void *buf, size_t bytes, bool write)
{
	struct gm_shim_dev *d = self;
	struct gm_shim_at at = at_service("host_access");
	enum gm_rule rule;

	judge_caller(d, "host_access", true, HERE);
	at.bytes = bytes;
	gm_shim_lock(d);
	rule = judge_host(d, host_va, bytes, write, &at.pa);
	/* Where a plan is in flight, or on its way (pinned), the books are ahead of the device. */
	if (atomic_load(&d->blind) || d->pins || gm_shim_planning(d) || d->lost || d->unsure_hosts)
		rule = GM_RULES;
	gm_shim_unlock(d);
	if (rule != GM_RULES)
		gm_shim_report(d, rule, &at, "%s", write ? "a store" : "a load");
	return d->out->host_access(d->out->self, host_va, buf, bytes, write);
}

static void svc_log(void *self, enum gm_log_level level, const char *message)
{
	struct gm_shim_dev *d = self;

	judge_caller(d, "log", false, HERE);
	d->out->log(d->out->self, level, message);
}

void gm_shim_services(struct gm_shim_dev *d)
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

/* (S) What is left of a kind: how many, and their memory. */
static size_t count_left(struct gm_shim_dev *d, enum gm_rule rule, size_t *bytes)
{
	struct gm_shim_thing *t;
	size_t n = 0;

	*bytes = 0;
	RB_FOREACH(t, gm_shim_things, &d->things) {
		bool is = rule == GM_RULE_LEAK		? t->kind == GM_SHIM_ALLOCATION
			  : rule == GM_RULE_THREAD_LEFT ? t->kind == GM_SHIM_THREAD
							: t->kind == GM_SHIM_LOCK || t->kind == GM_SHIM_QUEUE;

		n += is;
		*bytes += is ? t->bytes : 0;
	}
	return n;
}

bool gm_shim_things_left(struct gm_shim_dev *d, const char *op)
{
	static const enum gm_rule rule[] = { GM_RULE_THREAD_LEFT, GM_RULE_LOCK_LEFT, GM_RULE_LEAK };
	struct gm_shim_at at = at_service(op);
	struct gm_shim_thing *t, *next;
	bool threads = false;

	for (size_t i = 0; i < sizeof(rule) / sizeof(rule[0]); i++) {
		size_t n, bytes;

		gm_shim_lock(d);
		n = count_left(d, rule[i], &bytes);
		gm_shim_unlock(d);
		threads |= rule[i] == GM_RULE_THREAD_LEFT && n;
		if (n && rule[i] == GM_RULE_LEAK)
			gm_shim_report(d, rule[i], &at, "%zu left, %zu bytes", n, bytes);
		else if (n)
			gm_shim_report(d, rule[i], &at, "%zu %s left", n,
				       rule[i] == GM_RULE_LOCK_LEFT ? "locks and queues" : "threads");
	}
	if (threads) /* they may use their records */
		return true;
	/* Memory stays where it is: it is the backend's. */
	RB_FOREACH_SAFE(t, gm_shim_things, &d->things, next) {
		RB_REMOVE(gm_shim_things, &d->things, t);
		if (t->kind != GM_SHIM_ALLOCATION)
			d->out->free(d->out->self, t, sizeof(*t));
	}
	return false;
}
