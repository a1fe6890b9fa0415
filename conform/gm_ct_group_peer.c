/* SPDX-License-Identifier: MIT */
/* Group peer: copies from the memory of another device. */
#include "config.h"

#include <string.h>

#include "conform/gm_ct.h"

static gm_ret_t reach(struct gm_ct_dev *from, struct gm_ct_dev *to)
{
	gm_ret_t ret;

	gm_ct_note(from->t, "peer_reach", 0, 0, 0, 0);
	ret = from->mmu->peer_reach(from->dev, to->dev);
	if (ret != GM_RET_SUCCESS && ret != GM_RET_NOTSUP)
		gm_ct_fail(from->t, "result", "peer_reach returned %s, expected GM_RET_SUCCESS or GM_RET_NOTSUP",
			   gm_ret_name(ret));
	return ret;
}

static void peer_copy(struct gm_ct *t)
{
	struct gm_ct_dev *d[2] = { gm_ct_open(t), gm_ct_open(t) };
	struct gm_ct_mem m[2];
	struct gm_copy copy = { .kind = GM_COPY_FROM_PEER };

	if (reach(d[0], d[1]))
		gm_ct_need(t, "a second device, opened with the same options, in reach");
	gm_ct_ok(t, reach(d[0], d[1]));
	for (unsigned i = 0; i < 2; i++)
		gm_ct_mem_init(&m[i], d[i], GM_CT_SMALL, t->seed + i);
	for (uint64_t n = 1; n <= m[0].bytes / GM_CT_PAGE / 2; n *= 4) {
		copy.bytes = n * GM_CT_PAGE;
		copy.pa = m[0].pa + copy.bytes;
		copy.host = m[1].pa + m[1].bytes - copy.bytes;
		copy.peer = d[1]->dev;
		gm_ct_ok(t, gm_ct_copy(d[0], &copy, 1));
		memcpy(m[0].is + copy.bytes, m[1].is + m[1].bytes - copy.bytes, copy.bytes);
		gm_ct_mem_check(&m[0]);
	}
	gm_ct_mem_check(&m[1]);
	for (unsigned i = 0; i < 2; i++) {
		gm_ct_mem_fini(&m[i]);
		gm_ct_close(d[i]);
	}
}

const struct gm_ct_test gm_ct_peer_tests[] = {
	{ "copy", GM_CAP_PEER, 0, peer_copy },
	{ NULL, 0, 0, NULL },
};
