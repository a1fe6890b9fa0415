/* SPDX-License-Identifier: MIT */
/*
 * tinyrt: a runtime that does not exist, as small as one can be that is worth testing. It runs one kernel (v[i] *= by)
 * over arrays that CPU and device share, on any device: with page faults or without.
 *
 * Its promises, which test_tinyrt.c proves on mock devices:
 *   - what it says is done is done, and each element once;
 *   - a device that is short of something, or fails a transfer, is asked again; nothing is run twice for that;
 *   - without its device it goes on with the CPU, if no data went with the device; else it says so.
 */
#ifndef TINYRT_H
#define TINYRT_H

#include <gmem/gmem.h>

struct tinyrt;

/* `device` as gm_dev_open() takes it. The results are gmem's. */
gm_ret_t tinyrt_open(const char *device, struct tinyrt **rt);
void tinyrt_close(struct tinyrt *rt);

gm_ret_t tinyrt_alloc(struct tinyrt *rt, size_t n, uint64_t **v);
void tinyrt_free(struct tinyrt *rt, uint64_t *v);
/* v[i] *= by, for all of them. NODEV: the device is lost, and part of `v` with it. */
gm_ret_t tinyrt_scale(struct tinyrt *rt, uint64_t *v, size_t n, uint64_t by);

/* How often it asked again, and whether it still has its device. */
unsigned tinyrt_retries(const struct tinyrt *rt);
bool tinyrt_on_device(const struct tinyrt *rt);
/* For its own tests: where a mock can be told to fail. */
struct gm_dev *tinyrt_dev(struct tinyrt *rt);

#endif
