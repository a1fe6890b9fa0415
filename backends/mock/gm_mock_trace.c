/* SPDX-License-Identifier: MIT */
/*
 * What the device does, told one event at a time: to a function of the user, and to what is expected
 * (gm_mock_expect.c). Both are asked under the device's lock, so there is one order of events, and nobody is called any
 * more when gm_mock_trace(NULL) has returned. While nobody listens an event costs one load.
 *
 * The text of an event is an expectation that it meets.
 */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>

#include "backends/mock/gm_mock_internal.h"

static const char *const kinds[] = {
	[GM_MOCK_EV_REMOVE] = "remove",   [GM_MOCK_EV_INVL] = "invl",       [GM_MOCK_EV_COPY] = "copy",
	[GM_MOCK_EV_ENTER] = "enter",     [GM_MOCK_EV_PROTECT] = "protect", [GM_MOCK_EV_HARVEST] = "harvest",
	[GM_MOCK_EV_CREATE] = "create",   [GM_MOCK_EV_DESTROY] = "destroy", [GM_MOCK_EV_FAULT] = "fault",
	[GM_MOCK_EV_DONE] = "fault-done",
};

static const char *const copies[] = {
	[GM_COPY_TO_DEV] = "to-dev",
	[GM_COPY_TO_HOST] = "to-host",
	[GM_COPY_ZERO] = "zero",
	[GM_COPY_FROM_PEER] = "from-peer",
};

void gm_mock_note(struct gm_mock *m, const struct gm_mock_event *event)
{
	if (!atomic_load_explicit(&m->watched, memory_order_acquire))
		return;
	m->svc->lock(m->svc->self, &m->lock);
	if (m->trace)
		m->trace(m->trace_arg, event);
	if (m->expected && event->kind <= GM_MOCK_EV_HARVEST)
		gm_mock_expect_note(m->expected, event);
	m->svc->unlock(m->svc->self, &m->lock);
}

void gm_mock_dev_trace(struct gm_mock *m, gm_mock_trace_fn fn, void *arg)
{
	m->svc->lock(m->svc->self, &m->lock);
	m->trace = fn;
	m->trace_arg = arg;
	atomic_store_explicit(&m->watched, m->trace || m->expected, memory_order_release);
	m->svc->unlock(m->svc->self, &m->lock);
}

/* Text that is being put together. */
struct text {
	char *at;
	size_t room;
	bool cut;
};

static void put(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void put(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->at, t->room, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= t->room) {
		t->cut = true;
		n = (int)t->room - 1;
	}
	t->at += n;
	t->room -= (size_t)n;
}

static void put_range(struct text *t, uint64_t at, uint64_t bytes)
{
	static const char units[] = { 0, 'K', 'M', 'G' };
	unsigned unit = 0;

	while (unit < 3 && bytes > 0 && bytes % 1024 == 0) {
		bytes /= 1024;
		unit++;
	}
	put(t, " 0x%llx+%llu", (unsigned long long)at, (unsigned long long)bytes);
	if (unit)
		put(t, "%c", units[unit]);
}

static const char *ret_word(gm_ret_t ret)
{
	switch (ret) {
#define WORD_(name, value, text) case GM_RET_##name: return #name;
		GM_RET_LIST(WORD_)
#undef WORD_
	}
	return "?";
}

gm_ret_t gm_mock_event_text(const struct gm_mock_event *event, char *buf, size_t bytes)
{
	struct text t = { .at = buf, .room = bytes };

	if (!event || !buf || bytes == 0)
		return gm_mock_refuse(__func__, "event and buf must not be NULL, nor bytes 0");
	if ((unsigned)event->kind >= sizeof(kinds) / sizeof(kinds[0]) ||
	    (event->kind == GM_MOCK_EV_COPY && (unsigned)event->copy >= sizeof(copies) / sizeof(copies[0])))
		return gm_mock_refuse(__func__, "the event is of an unknown kind");
	put(&t, "%s", kinds[event->kind]);
	if (event->kind == GM_MOCK_EV_COPY)
		put(&t, " %s", copies[event->copy]);
	if (event->kind == GM_MOCK_EV_CREATE || event->kind == GM_MOCK_EV_DESTROY)
		goto out;
	put_range(&t, event->kind == GM_MOCK_EV_COPY ? event->pa : event->va, event->bytes);
	if (event->kind == GM_MOCK_EV_ENTER || event->kind == GM_MOCK_EV_PROTECT)
		put(&t, event->pte & (GM_PTE_WRITE | GM_PTE_ATOMIC) ? " rw" : " ro");
	if (event->kind == GM_MOCK_EV_ENTER)
		put(&t, event->pte & GM_PTE_HOST ? " host" : " local");
	if (event->kind == GM_MOCK_EV_FAULT)
		put(&t, event->pte == GM_READ ? " ro" : " rw");
out:
	if (event->ret != GM_RET_SUCCESS)
		put(&t, " =%s", ret_word(event->ret));
	return t.cut ? GM_RET_NOSPC : GM_RET_SUCCESS;
}
