/* SPDX-License-Identifier: MIT */
/*
 * History and reports. Every operation, step and signal is an event in a ring; a report shows the last of those that
 * touch the page it is about. The text is built on the stack, so a report needs no memory.
 */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "hal/gm_shim.h"

struct rule {
	const char *name, *text;
	bool by_backend;
};

enum who {
	BACKEND,
	CALLER,
};

static const struct rule rules[GM_RULES] = {
#define RULE(name, who, text) [GM_RULE_##name] = { "GM_RULE_" #name, text, who == BACKEND },
	GM_RULE_LIST(RULE)
#undef RULE
};

const char *gm_rule_name(enum gm_rule rule)
{
	return (unsigned)rule < GM_RULES ? rules[rule].name : "GM_RULE_?";
}

void gm_shim_note(struct gm_shim_dev *d, const struct gm_shim_at *at, uint64_t now_ns, bool pending, gm_ret_t ret)
{
	d->event[d->events++ % GM_SHIM_EVENTS] =
		(struct gm_shim_event){ .at = *at, .ret = ret, .pending = pending, .ns = now_ns };
}

/* A text that grows, and is cut where it becomes too long. */
struct text {
	size_t at;
	char buf[3000];
};

static void __attribute__((format(printf, 2, 3))) add(struct text *t, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(t->buf + t->at, sizeof(t->buf) - t->at, fmt, args);
	va_end(args);
	if (n > 0)
		t->at += (size_t)n;
	if (t->at >= sizeof(t->buf))
		t->at = sizeof(t->buf) - 1;
}

static void add_at(struct text *t, const struct gm_shim_at *at)
{
	add(t, "%s", at->op);
	if (at->step != GM_STEP_FREE)
		add(t, " (step %u)", (unsigned)at->step);
	if (at->pmap)
		add(t, ", page table %p", at->pmap->pmap);
	if (at->va)
		add(t, ", va 0x%llx", (unsigned long long)at->va);
	if (at->pa)
		add(t, ", pa 0x%llx", (unsigned long long)at->pa);
	if (at->bytes)
		add(t, ", 0x%llx bytes", (unsigned long long)at->bytes);
	if (at->pte)
		add(t, ", pte 0x%x", (unsigned)at->pte);
}

static bool covers(uint64_t begin, uint64_t bytes, uint64_t address)
{
	return begin && address && address - begin < (bytes ? bytes : 1);
}

static bool touches(const struct gm_shim_event *e, const struct gm_shim_at *at)
{
	if (at->pmap && e->at.pmap && e->at.pmap != at->pmap)
		return false;
	return covers(e->at.va, e->at.bytes, at->va) || covers(e->at.pa, e->at.bytes, at->pa);
}

/* Copy the last events that touch the page, oldest first. Returns how many. */
static unsigned recall(struct gm_shim_dev *d, const struct gm_shim_at *at, struct gm_shim_event *out)
{
	uint64_t first = d->events > GM_SHIM_EVENTS ? d->events - GM_SHIM_EVENTS : 0;
	unsigned n = 0;

	gm_shim_lock(d);
	for (uint64_t i = d->events; i > first && n < GM_SHIM_SHOWN; i--) {
		const struct gm_shim_event *e = &d->event[(i - 1) % GM_SHIM_EVENTS];

		if (touches(e, at))
			out[n++] = *e;
	}
	gm_shim_unlock(d);
	for (unsigned i = 0; i < n / 2; i++) {
		struct gm_shim_event swap = out[i];

		out[i] = out[n - 1 - i];
		out[n - 1 - i] = swap;
	}
	return n;
}

static void add_history(struct text *t, struct gm_shim_dev *d, const struct gm_shim_at *at)
{
	struct gm_shim_event shown[GM_SHIM_SHOWN];
	unsigned n = recall(d, at, shown);

	if (n)
		add(t, "\n  before:");
	for (unsigned i = 0; i < n; i++) {
		add(t, "\n    %llu.%09llu ", (unsigned long long)(shown[i].ns / 1000000000u),
		    (unsigned long long)(shown[i].ns % 1000000000u));
		add_at(t, &shown[i].at);
		if (shown[i].pending)
			add(t, " begins");
		else
			add(t, ": %s", gm_ret_name(shown[i].ret));
	}
}

/* What was found by looking at some 4 KiB of a page is told of the page that the device has there. */
static struct gm_shim_at whole_page(struct gm_shim_dev *d, enum gm_rule rule, const struct gm_shim_at *at)
{
	struct gm_shim_at whole = *at;
	uint64_t off = at->va % d->granule_bytes;

	switch (rule) {
	case GM_RULE_ENTER_LOST:
	case GM_RULE_ENTER_ELSEWHERE:
	case GM_RULE_WRITE_ALLOWED:
	case GM_RULE_STALE:
	case GM_RULE_FAILED_EFFECT:
	case GM_RULE_CUT:
	case GM_RULE_PROTECT_HOLE:
	case GM_RULE_PROTECT_FILLED:
		whole.va -= off;
		whole.pa -= whole.pa % d->granule_bytes;
		whole.bytes = (whole.bytes + off + d->granule_bytes - 1) / d->granule_bytes * d->granule_bytes;
		break;
	default:
		break;
	}
	return whole;
}

void gm_shim_report(struct gm_shim_dev *d, enum gm_rule rule, const struct gm_shim_at *where, const char *fmt, ...)
{
	const struct gm_shim_at page = whole_page(d, rule, where), *at = &page;
	struct gm_violation v = { .rule = rule, .name = rules[rule].name, .text = rules[rule].text,
				  .by_backend = rules[rule].by_backend, .backend = d->mmu.name, .op = at->op,
				  .step = at->step, .va = at->va, .pa = at->pa, .bytes = at->bytes };
	struct text t;
	char detail[300];
	va_list args;
	bool shown;

	gm_shim_lock(d);
	shown = d->reports[rule]++ < GM_SHIM_REPORTS;
	gm_shim_unlock(d);
	if (!shown)
		return;
	va_start(args, fmt);
	vsnprintf(detail, sizeof(detail), fmt, args);
	va_end(args);
	t.at = 0;
	add(&t, "%s %s broke %s: %s\n  in ", v.by_backend ? "backend" : "caller of backend", v.backend, v.name, v.text);
	add_at(&t, at);
	if (detail[0])
		add(&t, ": %s", detail);
	add_history(&t, d, at);
	v.message = t.buf;
	if (d->config.report)
		d->config.report(d->config.arg, &v);
	else
		d->out->log(d->out->self, GM_LOG_ERROR, v.message);
}
