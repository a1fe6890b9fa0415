/* SPDX-License-Identifier: MIT */
/* Random numbers: splitmix64, the same everywhere for a seed. */
#include "config.h"

#include "conform/gm_ct.h"

uint64_t gm_ct_random(struct gm_ct_random *r)
{
	uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

uint64_t gm_ct_below(struct gm_ct_random *r, uint64_t n)
{
	return gm_ct_random(r) % n;
}
