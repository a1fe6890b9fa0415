/* SPDX-License-Identifier: MIT */
/* A shared library with its own copy of libgmem.a inside. Compiled twice, as PLUGIN one and two. */
#include <gmem/gmem.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

const char *JOIN(PLUGIN, _version)(void);
const char *JOIN(PLUGIN, _error)(void);
int JOIN(PLUGIN, _fail)(void);

const char *JOIN(PLUGIN, _version)(void)
{
	return gm_version();
}

const char *JOIN(PLUGIN, _error)(void)
{
	return gm_last_error();
}

int JOIN(PLUGIN, _fail)(void)
{
	return gm_lib_create(NULL, NULL);
}
