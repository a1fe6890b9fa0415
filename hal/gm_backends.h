/* SPDX-License-Identifier: MIT */
/* The table of compiled-in backends; adding one is one line in gm_backends.c. */
#ifndef GM_HAL_BACKENDS_H
#define GM_HAL_BACKENDS_H

#include <gmem/hal.h>
#include <gmem/mock.h>

/* Room for every backend's dev_data. */
union gm_backend_data {
	struct gm_mock_config mock;
	uint64_t room[64];
};

struct gm_backend {
	const char *name;
	const struct gm_mmu *(*mmu)(void);
	/* Options after the colon into dev_data. SUCCESS, INVAL. */
	gm_ret_t (*parse)(const char *options, void *dev_data, size_t bytes);
};

/* "name" or "name:options". SUCCESS, NOENT, INVAL. */
gm_ret_t gm_backend_parse(const char *spec, const struct gm_backend **backend, union gm_backend_data *data);

#endif
