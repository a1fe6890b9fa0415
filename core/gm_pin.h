/* SPDX-License-Identifier: MIT */
/* Pins, see gm_pin.c; the public calls are in gmem/mem.h. */
#ifndef GM_CORE_PIN_H
#define GM_CORE_PIN_H

#include "core/gm_as.h"

/* The end of a space, of which no working set is held: what is pinned to the host. */
void gm_pin_forget(struct gm_as *as);
/* (A) What is pinned to the host is on no device; NULL, or what is wrong. */
const char *gm_pin_check(struct gm_as *as);

#endif
