/* SPDX-License-Identifier: MIT */
/* The shim around the backend. */
#include "config.h"

#include "conform/gm_ct.h"

const struct gm_mmu *gm_ct_wrap(struct gm_ct_dev *d, const struct gm_mmu *mmu)
{
	d->wrap = d->dev_data;
	return mmu;
}

void gm_ct_unwrap(struct gm_ct_dev *d)
{
	(void)d;
}

void *gm_ct_inner_dev(struct gm_ct_dev *d)
{
	return d->dev;
}

void *gm_ct_inner_pmap(void *pmap)
{
	return pmap;
}
