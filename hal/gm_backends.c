/* SPDX-License-Identifier: MIT */
/*
 * Compiled-in backends. A table and not constructors: the linker drops an
 * object of an archive that nobody names.
 */
#include "config.h"

#include <string.h>

#include "backends/mock/gm_mock_spec.h"
#include "hal/gm_backends.h"
#include "hal/gm_env.h"

static const struct gm_backend backends[] = {
	{ "mock", gm_mock_mmu, gm_mock_open_spec },
};

gm_ret_t gm_backend_parse(const char *spec, const struct gm_backend **backend, union gm_backend_data *data)
{
	size_t name = strcspn(spec, ":");
	const char *options = spec[name] ? spec + name + 1 : "";

	for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
		gm_ret_t ret;

		if (strlen(backends[i].name) != name || strncmp(backends[i].name, spec, name) != 0)
			continue;
		ret = backends[i].parse(options, data, sizeof(*data));
		if (ret)
			return gm_fail(ret, "backend %s does not understand \"%s\"", backends[i].name, options);
		*backend = &backends[i];
		return GM_RET_SUCCESS;
	}
	return gm_fail(GM_RET_NOENT, "there is no backend \"%.*s\"; there is: mock", (int)name, spec);
}
