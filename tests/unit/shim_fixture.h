/* SPDX-License-Identifier: MIT */
/* The toy with the shim around it and one page table, and what the shim reported. */
#ifndef SHIM_FIXTURE_H
#define SHIM_FIXTURE_H

#include "shim_toy.h"

#define MAX_SEEN 64u
#define RW_PTE (GM_PTE_WRITE | GM_PTE_ATOMIC)

struct rig {
	struct mock_services s;
	const struct gm_mmu *mmu; /* the shim's */
	struct gm_mmu toy;
	struct gm_validate_config config;
	struct gm_dev_caps caps;
	void *dev, *pmap;
	uint8_t *host; /* 8 pages of library memory */
	bool blind;    /* the shim may have got no memory */
	unsigned n;    /* reports */
	enum gm_rule rule[MAX_SEEN];
	struct gm_violation first; /* its message is in text */
	char text[4000];
};

/* Static, so that what a broken backend leaks stays reachable. */
static struct rig rig;
static void (*rig_patch)(struct gm_mmu *toy); /* changes the toy's table before it is opened */

static inline uint64_t rig_now_ns(void *self)
{
	(void)self;
	return ++toy_clock_ns;
}

static inline void rig_report(void *arg, const struct gm_violation *v)
{
	struct rig *r = arg;

	if (r->n == 0) {
		r->first = *v;
		snprintf(r->text, sizeof(r->text), "%s", v->message);
	}
	if (r->n < MAX_SEEN)
		r->rule[r->n] = v->rule;
	r->n++;
}

static inline gm_ret_t rig_init(int how)
{
	struct rig *r = &rig;

	*r = (struct rig){ .mmu = gm_validate_mmu(), .toy = toy_mmu };
	mock_services_init(&r->s);
	r->s.svc.now_ns = rig_now_ns;
	toy_breaks = how;
	toy_twice = NULL;
	if (how == GM_RULE_CAP_SLOT)
		r->toy.pmap_protect = NULL;
	if (rig_patch)
		rig_patch(&r->toy);
	r->config = (struct gm_validate_config){ .size = sizeof(r->config), .mmu = &r->toy, .report = rig_report, .arg = r };
	r->s.host_bytes = 16 * PAGE;
	r->s.host = aligned_alloc(PAGE, r->s.host_bytes);
	r->host = aligned_alloc(PAGE, 8 * PAGE);
	memset(r->s.host, 1, r->s.host_bytes);
	for (unsigned i = 0; i < 8; i++)
		memset(r->host + i * PAGE, 0x50 + (int)i, PAGE);
	return r->mmu->dev_init(&r->config, &r->s.svc, &r->caps, &r->dev);
}

static inline void rig_open(int how)
{
	cr_assert_eq(rig_init(how), GM_RET_SUCCESS);
	cr_assert_not_null(rig.dev);
}

static inline void rig_empty(void)
{
	(void)rig.mmu->pmap_remove(rig.pmap, TOY_VA, TOY_PAGES * PAGE);
	(void)rig.mmu->tlb_invl(rig.pmap, TOY_VA, TOY_PAGES * PAGE);
}

/* Whatever is mapped goes first. */
static inline void rig_close(void)
{
	struct rig *r = &rig;

	if (gm_validate_pmap(r->pmap))
		rig_empty();
	if (r->pmap)
		r->mmu->pmap_destroy(r->pmap);
	r->mmu->dev_fini(r->dev);
	free(r->s.host);
	free(r->host);
}

static inline gm_ret_t rig_enter(uint64_t page, uint64_t frame, uint64_t n, uint32_t pte)
{
	return rig.mmu->pmap_enter(rig.pmap, TOY_VA + page * PAGE, TOY_PA + frame * PAGE, n * PAGE, pte);
}

static inline gm_ret_t rig_remove(uint64_t page, uint64_t n)
{
	return rig.mmu->pmap_remove(rig.pmap, TOY_VA + page * PAGE, n * PAGE);
}

static inline gm_ret_t rig_invl(uint64_t page, uint64_t n)
{
	return rig.mmu->tlb_invl(rig.pmap, TOY_VA + page * PAGE, n * PAGE);
}

static inline gm_ret_t rig_touch(uint64_t page, bool write)
{
	uint64_t word = page;

	return rig.mmu->access(rig.pmap, TOY_VA + page * PAGE + 16, &word, sizeof(word), write);
}

static inline struct gm_copy rig_piece(enum gm_copy_kind kind, uint64_t frame, uint64_t host, uint64_t n)
{
	return (struct gm_copy){ .kind = kind, .pa = TOY_PA + frame * PAGE, .bytes = n * PAGE,
				 .host = kind == GM_COPY_ZERO ? 0 : GM_VA(rig.host) + host * PAGE };
}

static inline gm_ret_t rig_copy(const struct gm_copy *copies, size_t n)
{
	struct gm_fence *fence = mock_svc_fence_create(&rig.s);
	gm_ret_t ret = fence ? rig.mmu->copy(rig.dev, copies, n, fence) : GM_RET_NOMEM;

	if (!fence)
		return ret;
	mock_svc_fence_put(&rig.s, fence);
	return ret;
}

static inline gm_ret_t rig_submit(struct gm_step *steps, size_t n)
{
	struct gm_fence *fence = mock_svc_fence_create(&rig.s);
	gm_ret_t ret = fence ? rig.mmu->submit(rig.dev, steps, n, fence) : GM_RET_NOMEM;

	if (!fence)
		return ret;
	mock_svc_fence_put(&rig.s, fence);
	return ret;
}

static inline struct gm_step rig_step(enum gm_step_op op, uint32_t after, uint64_t page, uint64_t frame, uint64_t n)
{
	return (struct gm_step){ .op = op, .after = after, .pmap = rig.pmap, .va = TOY_VA + page * PAGE,
				 .pa = TOY_PA + frame * PAGE, .bytes = n * PAGE, .pte = RW_PTE,
				 .ret = GM_RET_CANCELED };
}

static inline struct gm_step rig_copy_step(uint32_t after, struct gm_copy copy)
{
	return (struct gm_step){ .op = GM_STEP_COPY, .after = after, .copy = copy, .ret = GM_RET_CANCELED };
}

/* Exactly this rule was reported, perhaps several times; GM_RULES: nothing was. */
static inline void rig_expect(enum gm_rule rule, const char *row)
{
	if (rule == GM_RULES) {
		cr_assert_eq(rig.n, 0, "%s: nothing is wrong, but:\n%s", row, rig.text);
		return;
	}
	cr_assert_neq(rig.n, 0, "%s: %s was not reported", row, gm_rule_name(rule));
	for (unsigned i = 0; i < rig.n && i < MAX_SEEN; i++)
		cr_assert_eq(rig.rule[i], rule, "%s: %s was reported, not %s; first:\n%s", row, gm_rule_name(rig.rule[i]),
			     gm_rule_name(rule), rig.text);
	cr_assert(strstr(rig.text, gm_rule_name(rule)) && strstr(rig.text, rig.first.text), "%s", rig.text);
	cr_assert(strstr(rig.text, rig.first.op), "%s", rig.text);
	cr_assert_eq(strcmp(rig.first.backend, "toy"), 0);
}

#endif
