/* SPDX-License-Identifier: MIT */
/* Group table: what the backend says of itself agrees with itself. */
#include "config.h"

#include <string.h>

#include "conform/gm_ct.h"

static void slots(struct gm_ct *t)
{
	const struct gm_mmu *m = t->plugin->mmu;

	if (m->abi != GM_HAL_ABI)
		gm_ct_fail(t, "abi", "the table has abi %u, this suite speaks %u", (unsigned)m->abi, GM_HAL_ABI);
	if (m->size < offsetof(struct gm_mmu, pmap_protect))
		gm_ct_fail(t, "size", "the table has %u bytes and ends before its required slots: size must be "
			   "sizeof(struct gm_mmu)", (unsigned)m->size);
	if (!m->name || !m->name[0])
		gm_ct_fail(t, "slots", "name is missing");
	if (!m->dev_init || !m->dev_fini || !m->pmap_create || !m->pmap_destroy || !m->pmap_enter || !m->pmap_remove ||
	    !m->tlb_invl || !m->copy)
		gm_ct_fail(t, "slots", "dev_init, dev_fini, pmap_create, pmap_destroy, pmap_enter, pmap_remove, tlb_invl "
			   "and copy are required");
}

/* The table as the library sees it: slots behind its end are missing. */
static struct gm_mmu whole_table(const struct gm_mmu *m)
{
	struct gm_mmu whole = { .abi = 0 };

	memcpy(&whole, m, m->size < sizeof(whole) ? m->size : sizeof(whole));
	return whole;
}

static void caps(struct gm_ct *t)
{
	const struct gm_mmu m = whole_table(t->plugin->mmu);
	const struct {
		uint32_t cap;
		bool filled;
		const char *slots;
	} rules[] = {
		{ GM_CAP_FAULTS, m.fault_next && m.fault_done, "fault_next, fault_done" },
		{ GM_CAP_CPU_VISIBLE, m.cpu_ptr != NULL, "cpu_ptr" },
		{ GM_CAP_SUBMIT, m.submit != NULL, "submit" },
		{ GM_CAP_ACCESS, m.access != NULL, "access" },
		{ GM_CAP_PROTECT, m.pmap_protect != NULL, "pmap_protect" },
		{ GM_CAP_DIRTY, m.pmap_harvest != NULL, "pmap_harvest" },
		{ GM_CAP_SYNC, m.sync_create && m.sync_signal && m.sync_import, "sync_create, sync_signal, sync_import" },
		{ GM_CAP_PEER, m.peer_reach != NULL, "peer_reach" },
	};
	struct gm_ct_dev *d = gm_ct_open(t);

	if (gm_ct_has(d, GM_CAP_HOST))
		gm_ct_fail(t, "caps", "GM_CAP_HOST is not for vendors");
	if (m.host)
		gm_ct_fail(t, "caps", "the slot host is not for vendors: it must be NULL");
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		if (gm_ct_has(d, rules[i].cap) && !rules[i].filled)
			gm_ct_fail(t, "caps", "capability 0x%x is announced, but not all its slots are filled: %s",
				   (unsigned)rules[i].cap, rules[i].slots);
	}
	gm_ct_close(d);
}

static void check_slabs(struct gm_ct *t, const struct gm_ct_dev *d)
{
	uint64_t unit = d->granule > GM_UNIT_BYTES ? d->granule : GM_UNIT_BYTES;
	const struct gm_slab *s = d->caps.slab;

	if (d->caps.slabs == 0 || d->caps.slabs > GM_MAX_SLABS)
		gm_ct_fail(t, "slabs", "%u pieces of memory; 1 to %u are possible", (unsigned)d->caps.slabs, GM_MAX_SLABS);
	for (uint32_t i = 0; i < d->caps.slabs; i++) {
		if (s[i].begin >= s[i].end || s[i].begin % unit || s[i].end % unit)
			gm_ct_fail(t, "slabs", "[0x%llx, 0x%llx) is empty or no multiple of %llu bytes",
				   (unsigned long long)s[i].begin, (unsigned long long)s[i].end, (unsigned long long)unit);
		for (uint32_t k = 0; k < i; k++) {
			if (s[i].begin < s[k].end && s[k].begin < s[i].end)
				gm_ct_fail(t, "slabs", "pieces %u and %u overlap", (unsigned)k, (unsigned)i);
		}
	}
}

static void limits(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_open(t);
	const struct gm_dev_caps *c = &d->caps;

	if (!c->name[0] || !memchr(c->name, '\0', sizeof(c->name)))
		gm_ct_fail(t, "name", "empty, or not terminated");
	if (c->va_bits < 32 || c->va_bits > 64)
		gm_ct_fail(t, "va_bits", "%u; 32 to 64 are possible", (unsigned)c->va_bits);
	if (c->max_contexts == 0)
		gm_ct_fail(t, "max_contexts", "0: no page table could be made");
	if (d->granule != GM_PAGE_BYTES && d->granule != GM_UNIT_BYTES && d->granule != GM_BLOCK_BYTES)
		gm_ct_fail(t, "page_sizes", "the smallest page has %llu bytes; 4 KiB, 64 KiB or 2 MiB are possible",
			   (unsigned long long)d->granule);
	check_slabs(t, d);
	gm_ct_close(d);
}

static bool exists(const char *name)
{
	const char *slash = strchr(name, '/');
	size_t len = slash ? (size_t)(slash - name) : strlen(name);

	for (const struct gm_ct_group *g = gm_ct_groups; g->name; g++) {
		if (strlen(g->name) != len || memcmp(g->name, name, len) != 0)
			continue;
		for (const struct gm_ct_test *test = g->tests; slash && test->name; test++) {
			if (strcmp(test->name, slash + 1) == 0)
				return true;
		}
		return !slash;
	}
	return false;
}

static void skips(struct gm_ct *t)
{
	for (const struct gm_plugin_skip *s = t->plugin->skips; s && s->test; s++) {
		if (!exists(s->test))
			gm_ct_fail(t, "skips", "'%s' names no group and no test", s->test);
		if (!s->reason || !s->reason[0])
			gm_ct_fail(t, "skips", "'%s' gives no reason", s->test);
	}
}

/* What becomes of options, without a device. */
static void open_close(struct gm_ct *t)
{
	const struct gm_plugin *p = t->plugin;

	if (!p->open && p->close)
		gm_ct_fail(t, "open", "gm_plugin has close, but no open");
	for (unsigned i = 0; p->open && i < 2; i++) {
		void *dev_data = NULL;

		gm_ct_note(t, "gm_plugin.open", 0, 0, 0, 0);
		gm_ct_ok(t, p->open(t->options, &dev_data));
		if (!dev_data)
			gm_ct_fail(t, "open", "gm_plugin.open(\"%s\") succeeded, but dev_data is NULL", t->options);
		gm_ct_note(t, "gm_plugin.close", 0, 0, 0, 0);
		if (p->close)
			p->close(dev_data);
	}
}

const struct gm_ct_test gm_ct_table_tests[] = {
	{ "slots", 0, 0, slots },
	{ "caps", 0, 0, caps },
	{ "limits", 0, 0, limits },
	{ "skips", 0, 0, skips },
	{ "open", 0, 0, open_close },
	{ NULL, 0, 0, NULL },
};
