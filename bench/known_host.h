/* SPDX-License-Identifier: MIT */
/*
 * The host, asked or not: for figures of the library without the kernel. With
 * known answers no event is ever unread, the process may read and write all of
 * one range, nothing is mapped elsewhere, and an absent page that nobody watches
 * is the kernel's affair. All else is the real host.
 */
#ifndef GM_KNOWN_HOST_H
#define GM_KNOWN_HOST_H

#include "bench/bench.h"

#include "hal/gm_host.h"

struct known_host {
	struct gm_mmu mmu;
	struct gm_host_ops ops; /* what the table above points to */
};

/* Known answers for [mem, mem + bytes); `ask`: the kernel's instead. One at a time. */
void known_host_init(struct known_host *k, const void *mem, uint64_t bytes, bool ask);

#endif
