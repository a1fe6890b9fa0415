/* SPDX-License-Identifier: MIT */
/*
 * A second device of the world, by script: a mock whose fault queue the test fills, and whose answers and mappings
 * the test writes down.
 */
#ifndef DEVQ_SCRIPT_H
#define DEVQ_SCRIPT_H

#include "core_fixture.h"

#include "core/gm_devq.h"

#define MAX 256u

static struct script {
	struct gm_mmu mmu;
	struct gm_mock_config mock;
	struct gm_dev_fault fault[MAX];
	unsigned faults, next;
	struct answer {
		void *pmap;
		uint64_t va, bytes;
		gm_ret_t ret;
	} answer[MAX];
	unsigned answers;
	unsigned enters; /* calls of pmap_enter */
	unsigned invls;  /* calls of tlb_invl before the first of them */
} s;

static inline gm_ret_t script_next(void *dev, struct gm_dev_fault *fault)
{
	(void)dev;
	if (s.next == s.faults)
		return GM_RET_AGAIN;
	*fault = s.fault[s.next++];
	return GM_RET_SUCCESS;
}

static inline gm_ret_t script_done(void *pmap, uint64_t va, uint64_t bytes, gm_ret_t result)
{
	cr_assert_lt(s.answers, MAX);
	s.answer[s.answers++] = (struct answer){ pmap, va, bytes, result };
	return GM_RET_SUCCESS;
}

static inline gm_ret_t script_enter(void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	s.enters++;
	return gm_mock_mmu()->pmap_enter(pmap, va, pa, bytes, pte);
}

static inline gm_ret_t script_invl(void *pmap, uint64_t va, uint64_t bytes)
{
	s.invls += !s.enters;
	return gm_mock_mmu()->tlb_invl(pmap, va, bytes);
}

/* What is scripted announces nothing and waits for no answer: no device that the shim would let pass. */
#define SCRIPTED .validate = GM_VALIDATE_OFF

/* The second device of the world. */
static inline void script_open(struct world *w, const char *spec)
{
	memset(&s, 0, sizeof(s));
	OK(gm_mock_parse(spec, &s.mock));
	s.mmu = *gm_mock_mmu();
	s.mmu.fault_next = script_next;
	s.mmu.fault_done = script_done;
	s.mmu.pmap_enter = script_enter;
	s.mmu.tlb_invl = script_invl;
	OK(gm_dev_create(w->lib, &s.mmu, &s.mock, &w->dev[1]));
	OK(gm_as_attach(w->as, w->dev[1], GM_ATTACH_IDENTITY, NULL, &w->ctx[1]));
}

static inline void raise_in(struct gm_ctx *ctx, uint64_t va, uint32_t access)
{
	cr_assert_lt(s.faults, MAX);
	s.fault[s.faults++] = (struct gm_dev_fault){ .pmap = gm_ctx_pmap(ctx), .va = va, .access = access };
}

static inline void shuffle(struct world *w)
{
	for (unsigned i = s.faults; i > s.next + 1; i--) {
		unsigned k = s.next + (unsigned)gm_sim_random(w->sim, i - s.next);
		struct gm_dev_fault f = s.fault[i - 1];

		s.fault[i - 1] = s.fault[k];
		s.fault[k] = f;
	}
}

/* One round; when to come back. */
static inline uint64_t serve_round(struct world *w)
{
	uint64_t again_ns = UINT64_MAX;

	s.answers = s.enters = s.invls = 0;
	(void)gm_devq_round(w->dev[1], &again_ns);
	world_check(w);
	return again_ns;
}

/* The answer for a page, which is one. */
static inline gm_ret_t answer_of(const struct gm_ctx *ctx, uint64_t va)
{
	gm_ret_t ret = GM_RET_UNIMPLEMENTED;
	unsigned found = 0;

	for (unsigned i = 0; i < s.answers; i++) {
		const struct answer *a = &s.answer[i];

		if (a->pmap != ctx->pmap || va < a->va || va >= a->va + a->bytes)
			continue;
		ret = a->ret;
		found++;
	}
	cr_assert_eq(found, 1, "0x%llx was answered %u times", (unsigned long long)va, found);
	return ret;
}

static inline gm_ret_t access_of(const struct gm_ctx *ctx, uint64_t va, bool write)
{
	uint64_t value = 0;
	gm_ret_t ret = gm_mock_mmu()->access(ctx->pmap, va, &value, sizeof(value), false);

	return ret || !write ? ret : gm_mock_mmu()->access(ctx->pmap, va, &value, sizeof(value), true);
}

/* Memory of the application whose pages each hold a buffer of their own: all of them are edges. */
static inline uint64_t app_edges(struct world *w, unsigned blocks, unsigned pages)
{
	uint64_t va = app_map_blocks(w, blocks);

	for (unsigned b = 0; b < blocks; b++)
		for (unsigned p = 0; p < pages; p++)
			OK(gm_adopt(w->as, ptr(va + b * BLOCK + p * PAGE + 64), 128, 0));
	return va;
}

#endif
