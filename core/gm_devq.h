/* SPDX-License-Identifier: MIT */
/* Queues of device faults; see gm_devq.c. */
#ifndef GM_CORE_DEVQ_H
#define GM_CORE_DEVQ_H

#include "core/gm_as.h"

/* The HAL's hook: the device has faults. */
void gm_devq_ready(void *dev);
/* Serve what the device reports now, in the calling thread. True if there was something. */
bool gm_devq_once(struct gm_dev *dev);
/* The device's fault thread comes with the first space that has threads, and goes with the device. */
gm_ret_t gm_devq_start(struct gm_dev *dev);
void gm_devq_stop(struct gm_dev *dev);

#endif
