/* SPDX-License-Identifier: MIT */
/* An instance: environment, host, devices. */
#ifndef GM_CORE_LIB_H
#define GM_CORE_LIB_H

#include <gmem/gmem.h>

#include <bsd/sys/queue.h>

#include "hal/gm_call.h"

struct gm_as;

struct gm_lib {
	struct gm_env *env;
	struct gm_hal_dev *host;
	struct gm_rung_info rung; /* constant */
	bool own_env;
	atomic_uint mirror_sets;          /* working sets of all spaces that mirror the process */
	struct gm_mutex lock;             /* GM_RANK_LIB: the fields below */
	struct gm_dev *devs[GM_MAX_DEVS];
	unsigned spaces;
	TAILQ_HEAD(, gm_as) as;           /* those that are not ending */
};

/* An instance on a given environment and host (the simulation's); gm_lib_create() makes both. */
gm_ret_t gm_lib_create_on(struct gm_env *env, const struct gm_mmu *host_mmu, void *host_data, struct gm_lib **lib);

#endif
