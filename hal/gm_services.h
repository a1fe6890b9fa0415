/* SPDX-License-Identifier: MIT */
/* The services a backend gets: the environment behind a table of functions. */
#ifndef GM_HAL_SERVICES_H
#define GM_HAL_SERVICES_H

#include "hal/gm_call.h"

/* Fill d->svc; d->env and d->host_dev are set. */
void gm_services_init(struct gm_hal_dev *d);

#endif
