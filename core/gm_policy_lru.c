/* SPDX-License-Identifier: MIT */
/*
 * The default policy: evict what was used least recently; bring the smallest
 * unit, and double it while faults continue where the one before ended, so
 * that a scan soon moves blocks and a random walk moves little.
 */
#include "config.h"

#include <string.h>

#include "core/gm_policy_lru.h"
#include "hal/gm_env.h"

static uint32_t lru_unit(void *state, const struct gm_policy_fault *f)
{
	uint32_t bytes = f->min_bytes;

	(void)state;
	if (f->adjacent && f->last_bytes >= f->min_bytes)
		bytes = f->last_bytes < f->max_bytes ? f->last_bytes * 2 : f->max_bytes;
	return bytes < f->max_bytes ? bytes : f->max_bytes;
}

static size_t lru_victim(void *state, const struct gm_policy_victim *candidates, size_t n)
{
	(void)state, (void)candidates, (void)n;
	return 0;
}

gm_ret_t gm_policy_complete(struct gm_policy *out, const struct gm_policy *in)
{
	memset(out, 0, sizeof(*out));
	if (in) {
		if (in->size < offsetof(struct gm_policy, unit) || in->size % sizeof(void *))
			return gm_fail(GM_RET_INVAL, "gm_policy.size is %zu, not %zu", in->size, sizeof(*in));
		memcpy(out, in, in->size < sizeof(*out) ? in->size : sizeof(*out));
	}
	out->size = sizeof(*out);
	if (!out->name)
		out->name = "lru";
	if (!out->unit)
		out->unit = lru_unit;
	if (!out->victim)
		out->victim = lru_victim;
	return GM_RET_SUCCESS;
}
