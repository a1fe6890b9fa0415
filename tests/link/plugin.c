/* SPDX-License-Identifier: MIT */
/* A shared library with its own copy of libgmem.a inside. Compiled twice, as PLUGIN one and two. */
#include <gmem/gmem.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

const char *JOIN(PLUGIN, _version)(void);
const char *JOIN(PLUGIN, _error)(void);
int JOIN(PLUGIN, _fail)(void);
int JOIN(PLUGIN, _open)(struct gm_lib **lib, struct gm_dev **dev);
int JOIN(PLUGIN, _close)(struct gm_lib *lib, struct gm_dev *dev);
int JOIN(PLUGIN, _query)(struct gm_dev *dev);
int JOIN(PLUGIN, _space)(struct gm_lib *lib);

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

int JOIN(PLUGIN, _open)(struct gm_lib **lib, struct gm_dev **dev)
{
	gm_ret_t ret = gm_lib_create(NULL, lib);

	if (ret)
		return ret;
	ret = gm_dev_open(*lib, "mock:vram=1M", dev);
	if (ret)
		(void)gm_lib_destroy(*lib);
	return ret;
}

int JOIN(PLUGIN, _close)(struct gm_lib *lib, struct gm_dev *dev)
{
	gm_ret_t ret = gm_dev_destroy(dev);

	return ret ? ret : gm_lib_destroy(lib);
}

int JOIN(PLUGIN, _query)(struct gm_dev *dev)
{
	struct gm_dev_info info;

	return gm_dev_query(dev, &info);
}

/* A space on an instance, of whichever copy it is. */
int JOIN(PLUGIN, _space)(struct gm_lib *lib)
{
	struct gm_as *as;
	gm_ret_t ret = gm_as_create(lib, 0, 0, NULL, &as);

	return ret ? ret : gm_as_destroy(as);
}
