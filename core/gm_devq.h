/* SPDX-License-Identifier: MIT */
/* Queues of device faults; see gm_devq.c. */
#ifndef GM_CORE_DEVQ_H
#define GM_CORE_DEVQ_H

#include "core/gm_as.h"

/* The HAL's hook: the device has faults. */
void gm_devq_ready(void *dev);
/*
 * One attempt at each fault the device has reported, in the calling thread. True if
 * there was something and may be more; *again_ns: lowered to when what could not be served is to be
 * tried again.
 */
bool gm_devq_round(struct gm_dev *dev, uint64_t *again_ns);
/* Destroy a context's view: nothing the device reported of it is in anybody's hands any more. */
void gm_devq_destroy_pmap(struct gm_dev *dev, void *pmap);
/* The device's fault thread comes with the first space that has threads, and goes with the device. */
gm_ret_t gm_devq_start(struct gm_dev *dev);
void gm_devq_stop(struct gm_dev *dev);

#endif
