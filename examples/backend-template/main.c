/* SPDX-License-Identifier: MIT */
/* The conformance suite with the backend linked in; toy.so with "gmem check" is the other way. */
#include <gmem/conform.h>

extern const struct gm_plugin gm_plugin;

int main(int argc, char **argv)
{
	return gm_conform_main(argc, argv, &gm_plugin);
}
