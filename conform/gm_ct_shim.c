/* SPDX-License-Identifier: MIT */
/*
 * The validation shim around the backend. Each of its reports is a failure: of the backend, or of a step of the
 * suite that the contract does not allow, which would be an error of the suite.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include <gmem/validate.h>

#include "conform/gm_ct.h"

/* The message names backend and rule, and then says the rule: of a backend that is known, what comes after. */
static void broken(void *arg, const struct gm_violation *v)
{
	const char *name = strstr(v->message, v->name), *text = name ? name + strlen(v->name) : v->message;

	text += strspn(text, ": ");
	gm_ct_fail(arg, v->name, "%s%s", v->by_backend ? "" : "(an error of the suite) ", text);
}

const struct gm_mmu *gm_ct_wrap(struct gm_ct_dev *d, const struct gm_mmu *mmu)
{
	struct gm_validate_config *config = gm_ct_alloc(d->t, sizeof(*config));

	*config = (struct gm_validate_config){
		.size = sizeof(*config),
		.mmu = mmu,
		.dev_data = d->dev_data,
		.report = broken,
		.arg = d->t,
		.bound_ns = d->t->bound_ns,
	};
	d->wrap = config;
	return gm_validate_mmu();
}

void gm_ct_unwrap(struct gm_ct_dev *d)
{
	free(d->wrap);
}

void *gm_ct_inner_dev(struct gm_ct_dev *d)
{
	return gm_validate_dev(d->dev);
}

void *gm_ct_inner_pmap(void *pmap)
{
	return gm_validate_pmap(pmap);
}
