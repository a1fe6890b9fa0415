/* SPDX-License-Identifier: MIT */
/* Pins, see gm_pin.c; the public calls are in gmem/mem.h. */
#ifndef GM_CORE_PIN_H
#define GM_CORE_PIN_H

#include "core/gm_as.h"

/* The end of a space, of which no working set is held: what is pinned to the host. */
void gm_pin_forget(struct gm_as *as);
/* (A, block) These pages become managed, and are on no device: a pin of their addresses keeps them, if the space mirrors. */
void gm_pin_keep_new(struct gm_block *b, const struct gm_mask *pages);
/* (A) What is pinned to the host is on no device; NULL, or what is wrong. */
const char *gm_pin_check(struct gm_as *as);

#endif
