/* SPDX-License-Identifier: MIT */
/* The mock as a plugin: options, hooks, reasons; and a lost device. */
#include "config.h"

#include <gmem/plugin.h>

#include "mock_fixture.h"

#define VA UINT64_C(0x200000)

struct toucher {
	struct mock_fixture *fx;
	_Atomic long done;
	gm_ret_t ret;
	uint64_t word;
	bool write;
};

static void *touch_main(void *arg)
{
	struct toucher *t = arg;
	const struct gm_plugin_hooks *hooks = gm_mock_plugin()->hooks;

	t->ret = hooks->touch(t->fx->m, t->fx->pmap, VA, &t->word, sizeof(t->word), t->write);
	atomic_store(&t->done, 1);
	return NULL;
}

static gm_ret_t next_fault(struct mock_fixture *fx, struct gm_dev_fault *fault)
{
	gm_ret_t ret = GM_RET_AGAIN;

	for (unsigned i = 0; i < LONG_MS && ret == GM_RET_AGAIN; i++) {
		ret = fx->mmu->fault_next(fx->m, fault);
		if (ret == GM_RET_AGAIN)
			mock_sleep_ms(1);
	}
	return ret;
}

Test(mock_plugin, structure)
{
	const struct gm_plugin *p = gm_mock_plugin();

	cr_assert_eq(p->abi, GM_PLUGIN_ABI);
	cr_assert_eq(p->size, sizeof(*p));
	cr_assert_str_eq(p->name, "mock");
	cr_assert_eq(p->mmu, gm_mock_mmu());
	cr_assert_eq(p->hooks->size, sizeof(*p->hooks));
	for (const struct gm_plugin_skip *s = p->skips; s->test; s++)
		cr_assert(strlen(s->reason) > 10);
}

Test(mock_plugin, options)
{
	const struct gm_plugin *p = gm_mock_plugin();
	struct gm_mock_config *config;
	void *data = NULL;

	cr_assert_eq(p->open("vram=1M,bug=skip_copy", &data), GM_RET_SUCCESS);
	config = data;
	cr_assert_eq(config->vram_bytes, MIB);
	cr_assert_eq(config->bug, GM_MOCK_BUG_SKIP_COPY);
	p->close(data);
	data = &config;
	cr_assert_eq(p->open("bug=no_such", &data), GM_RET_INVAL);
	cr_assert_eq(p->open("nonsense", &data), GM_RET_INVAL);
	cr_assert_eq(data, &config);
}

Test(mock_plugin, touch_faults_and_tries_again)
{
	struct mock_fixture fx;
	struct gm_dev_fault fault;
	struct toucher t = { .fx = &fx, .write = true, .word = 77 };
	pthread_t thread;

	fx_open(&fx, "vram=1M");
	cr_assert_eq(pthread_create(&thread, NULL, touch_main, &t), 0);
	cr_assert_eq(next_fault(&fx, &fault), GM_RET_SUCCESS);
	cr_assert_eq(fault.pmap, fx.pmap);
	cr_assert_eq(fault.va, VA);
	cr_assert_eq(fault.access, GM_WRITE);
	cr_assert_eq(atomic_load(&t.done), 0);
	fx_enter(&fx, VA, PA, PAGE, GM_PTE_WRITE);
	cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA, PAGE, GM_RET_SUCCESS), GM_RET_SUCCESS);
	pthread_join(thread, NULL);
	cr_assert_eq(t.ret, GM_RET_SUCCESS);
	cr_assert_eq(*fx_word(&fx, PA), 77);
	/* It has a TLB that remembers. */
	fx_remove(&fx, VA, PAGE);
	t.write = false;
	t.word = 0;
	(void)touch_main(&t);
	cr_assert_eq(t.ret, GM_RET_SUCCESS);
	cr_assert_eq(t.word, 77);
	fx_close(&fx);
}

/* pmap_destroy() cancels the fault, and waits for the one that touches. */
Test(mock_plugin, destroy_ends_touch)
{
	struct mock_fixture fx;
	struct gm_dev_fault fault;
	struct toucher t = { .fx = &fx };
	pthread_t thread;

	fx_open(&fx, "vram=1M");
	cr_assert_eq(pthread_create(&thread, NULL, touch_main, &t), 0);
	cr_assert_eq(next_fault(&fx, &fault), GM_RET_SUCCESS);
	fx.mmu->pmap_destroy(fx.pmap);
	pthread_join(thread, NULL);
	cr_assert_eq(t.ret, GM_RET_CANCELED);
	cr_assert_eq(fx.mmu->pmap_create(fx.m, &fx.pmap), GM_RET_SUCCESS);
	fx_close(&fx);
}

Test(mock_plugin, fail)
{
	const struct gm_plugin_hooks *hooks = gm_mock_plugin()->hooks;
	struct mock_fixture fx;
	uint8_t bits;

	fx_open(&fx, "vram=1M,dirty=yes");
	cr_assert_eq(hooks->fail(fx.m, "pmap_harvest", 1), GM_RET_SUCCESS);
	cr_assert_eq(fx.mmu->pmap_harvest(fx.pmap, VA, PAGE, &bits), GM_RET_NOMEM);
	cr_assert_eq(fx.mmu->pmap_harvest(fx.pmap, VA, PAGE, &bits), GM_RET_SUCCESS);
	cr_assert_eq(hooks->fail(fx.m, "pmap_enter", 2), GM_RET_SUCCESS);
	fx_enter(&fx, VA, PA, PAGE, 0);
	cr_assert_eq(fx.mmu->pmap_enter(fx.pmap, VA + PAGE, PA, PAGE, 0), GM_RET_NOMEM);
	fx_enter(&fx, VA + PAGE, PA, PAGE, 0);
	cr_assert_eq(hooks->fail(fx.m, "pmap_enter", 1), GM_RET_SUCCESS);
	cr_assert_eq(hooks->fail(fx.m, "pmap_enter", 0), GM_RET_SUCCESS);
	fx_enter(&fx, VA, PA, PAGE, 0);
	cr_assert_eq(hooks->fail(fx.m, "tlb_invl", 1), GM_RET_NOTSUP);
	fx_close(&fx);
}

/* Everything says NODEV from then on, also to whoever waits. */
Test(mock_plugin, lose)
{
	struct mock_fixture fx;
	struct gm_dev_fault fault;
	struct toucher t = { .fx = &fx };
	struct gm_copy copy = { .kind = GM_COPY_ZERO, .pa = PA, .bytes = PAGE };
	struct gm_step step = { .op = GM_STEP_COPY, .after = GM_STEP_FREE, .copy = copy };
	struct gm_fence *fence;
	void *pmap = NULL;
	pthread_t thread;
	uint64_t word;

	fx_open(&fx, "vram=1M");
	fence = mock_svc_fence_create(&fx.s);
	fx_enter(&fx, VA + PAGE, PA, PAGE, 0);
	cr_assert_eq(pthread_create(&thread, NULL, touch_main, &t), 0);
	cr_assert_eq(next_fault(&fx, &fault), GM_RET_SUCCESS);
	gm_mock_plugin()->hooks->lose(fx.m);
	pthread_join(thread, NULL);
	cr_assert_eq(t.ret, GM_RET_NODEV);
	cr_assert_eq(fx.mmu->pmap_create(fx.m, &pmap), GM_RET_NODEV);
	cr_assert_null(pmap);
	cr_assert_eq(fx.mmu->pmap_enter(fx.pmap, VA, PA, PAGE, 0), GM_RET_NODEV);
	cr_assert_eq(fx.mmu->pmap_remove(fx.pmap, VA, PAGE), GM_RET_NODEV);
	cr_assert_eq(fx.mmu->pmap_protect(fx.pmap, VA, PAGE, 0), GM_RET_NODEV);
	cr_assert_eq(fx.mmu->tlb_invl(fx.pmap, VA, PAGE), GM_RET_NODEV);
	cr_assert_eq(fx.mmu->copy(fx.m, &copy, 1, fence), GM_RET_NODEV);
	cr_assert_eq(fx.mmu->submit(fx.m, &step, 1, fence), GM_RET_NODEV);
	cr_assert_eq(fx.mmu->access(fx.pmap, VA + PAGE, &word, 8, false), GM_RET_NODEV);
	cr_assert_eq(fx.mmu->fault_next(fx.m, &fault), GM_RET_NODEV);
	cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA, PAGE, GM_RET_SUCCESS), GM_RET_NODEV);
	cr_assert_eq(fence->signals, 0);
	mock_svc_fence_put(&fx.s, fence);
	fx.mmu->pmap_destroy(fx.pmap);
	fx.mmu->dev_fini(fx.m);
	cr_assert_eq(atomic_load(&fx.s.live_bytes), 0);
	cr_assert_eq(atomic_load(&fx.s.live_fences), 0);
}

/* A copy on its way ends with NODEV and transfers nothing. */
Test(mock_plugin, lose_during_copy)
{
	struct gm_copy copy = { .kind = GM_COPY_ZERO, .pa = PA, .bytes = PAGE };
	struct mock_fixture fx;
	struct gm_fence *fence;
	uint64_t *word;

	fx_open(&fx, "vram=1M,copy=async,copyns=50000000");
	word = fx_word(&fx, PA);
	*word = 5;
	fence = mock_svc_fence_create(&fx.s);
	cr_assert_eq(fx.mmu->copy(fx.m, &copy, 1, fence), GM_RET_SUCCESS);
	gm_mock_plugin()->hooks->lose(fx.m);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_NODEV);
	cr_assert_eq(*word, 5);
	cr_assert_null(fx_word(&fx, PA), "the CPU reads what is gone");
	fx.mmu->pmap_destroy(fx.pmap);
	fx.mmu->dev_fini(fx.m);
	cr_assert_eq(atomic_load(&fx.s.live_bytes), 0);
}
