/* SPDX-License-Identifier: MIT */
/* A C program that knows the installed library only through pkg-config. */
#include <stdio.h>
#include <string.h>

#include <gmem/gmem.h>

int main(void)
{
	char version[32];

	snprintf(version, sizeof(version), "%d.%d.%d", GM_VERSION_MAJOR, GM_VERSION_MINOR, GM_VERSION_PATCH);
	if (strcmp(gm_version(), version) != 0) {
		fprintf(stderr, "headers are %s, the library is %s\n", version, gm_version());
		return 1;
	}
	if (strcmp(gm_ret_name(GM_RET_BUSY), "GM_RET_BUSY") != 0) {
		fprintf(stderr, "GM_RET_BUSY is called %s\n", gm_ret_name(GM_RET_BUSY));
		return 1;
	}
	return 0;
}
