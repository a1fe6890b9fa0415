/* SPDX-License-Identifier: MIT */
/*
 * Planted errors of devices as a whole: what page tables, devices and operations have to do with each other that
 * should have nothing. Without an error planted nothing here does anything.
 *
 *     devices_share: the first device that is asked for its memory owns it --dev_fini()--> nobody does
 */
#include "config.h"

#include <string.h>

#include "backends/mock/gm_mock_internal.h"

static _Atomic(struct gm_mock *) owner;

char *gm_mock_bug_vram(struct gm_mock *m)
{
	struct gm_mock *first = NULL;

	if (!gm_mock_has_bug(m, GM_MOCK_BUG_DEVICES_SHARE))
		return m->vram;
	if (atomic_compare_exchange_strong(&owner, &first, m))
		first = m;
	return first->config.vram_bytes == m->config.vram_bytes ? first->vram : m->vram;
}

void gm_mock_bug_fini(struct gm_mock *m)
{
	struct gm_mock *mine = m;

	(void)atomic_compare_exchange_strong(&owner, &mine, NULL);
}

bool gm_mock_bug_short(struct gm_mock *m, enum gm_mock_bug bug)
{
	void *ptr;

	if (!gm_mock_has_bug(m, bug))
		return false;
	ptr = m->svc->alloc(m->svc->self, 16);
	m->svc->free(m->svc->self, ptr, 16);
	return !ptr;
}

void gm_mock_bug_entered(struct gm_mock_pmap *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	struct gm_mock *m = pmap->dev;
	struct gm_mock_pmap *other;

	if (!gm_mock_has_bug(m, GM_MOCK_BUG_ENTER_ALL))
		return;
	gm_mock_spin_lock(m->svc, &m->pmaps_lock);
	LIST_FOREACH(other, &m->pmaps, link) {
		if (other != pmap)
			(void)gm_mock_pt_enter(m, other->vm, va, pa, bytes, pte);
	}
	gm_mock_spin_unlock(&m->pmaps_lock);
}

/* (P) */
void gm_mock_bug_destroyed(struct gm_mock *m)
{
	struct gm_mock_pmap *other;

	if (!gm_mock_has_bug(m, GM_MOCK_BUG_DESTROY_OTHER))
		return;
	LIST_FOREACH(other, &m->pmaps, link) {
		gm_mock_pt_drop(m, other->vm);
		atomic_store(&other->own.flush, true);
	}
}
