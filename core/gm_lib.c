/* SPDX-License-Identifier: MIT */
/* Instances: an environment, a host, and what is made on them. */
#include "config.h"

#include "core/gm_as.h"
#include "core/gm_lib.h"
#include "hal/gm_fence.h"
#include "hal/gm_handle.h"

gm_ret_t gm_lib_create_on(struct gm_env *env, const struct gm_mmu *host_mmu, void *host_data, struct gm_lib **out)
{
	struct gm_lib *lib = gm_mem_alloc(env, sizeof(*lib));
	gm_ret_t ret;

	if (!lib)
		return gm_fail(GM_RET_NOMEM, "no memory for an instance");
	lib->env = env;
	lib->rung.rung = GM_RUNG_FULL;
	if (gm_handle_add(lib, GM_HANDLE_LIB)) {
		ret = gm_fail(GM_RET_NOMEM, "no memory for an instance");
		goto err_free;
	}
	ret = gm_hal_open(env, host_mmu, host_data, NULL, &lib->host);
	if (ret)
		goto err_handle;
	gm_mutex_init(env, &lib->lock, GM_RANK_LIB);
	TAILQ_INIT(&lib->as);
	*out = lib;
	return GM_RET_SUCCESS;
err_handle:
	gm_handle_del(lib, GM_HANDLE_LIB);
err_free:
	gm_mem_free(env, lib, sizeof(*lib));
	return ret;
}

/* Which rungs are admitted. INVAL: that makes no sense. */
static gm_ret_t admitted(const struct gm_lib_config *config, enum gm_rung *lowest, enum gm_rung *highest)
{
	*lowest = config && config->lowest_rung ? config->lowest_rung : GM_RUNG_DEVICE;
	*highest = config && config->highest_rung ? config->highest_rung : GM_RUNG_FULL;
	if ((unsigned)*lowest > GM_RUNG_EXPLICIT || (unsigned)*highest > GM_RUNG_EXPLICIT)
		return gm_fail(GM_RET_INVAL, "gm_lib_config: unknown rung");
	if (*lowest < *highest)
		return gm_fail(GM_RET_INVAL, "gm_lib_config: lowest_rung (%s) is better than highest_rung (%s)",
			       gm_rung_name(*lowest), gm_rung_name(*highest));
	return GM_RET_SUCCESS;
}

gm_ret_t gm_lib_create(const struct gm_lib_config *config, struct gm_lib **out)
{
	enum gm_rung lowest, highest;
	const struct gm_mmu *mmu;
	struct gm_rung_info rung;
	struct gm_env *env;
	gm_ret_t ret;

	if (!out)
		return gm_fail(GM_RET_INVAL, "gm_lib_create: lib must not be NULL");
	if (config && config->size != sizeof(*config))
		return gm_fail(GM_RET_INVAL, "gm_lib_config.size is %zu, not %zu", config->size, sizeof(*config));
	ret = admitted(config, &lowest, &highest);
	if (!ret)
		ret = gm_env_threads_create(config, &env);
	if (ret)
		return ret;
	ret = gm_host_choose(lowest, highest, &rung, &mmu);
	if (!ret)
		ret = gm_lib_create_on(env, mmu, env, out);
	if (ret) {
		gm_env_threads_destroy(env);
		return ret;
	}
	(*out)->own_env = true;
	(*out)->rung = rung;
	if (rung.cannot)
		gm_log(env, GM_LOG_WARN, "the library runs on the rung \"%s\" (%s): see gm_lib_rung() for what it cannot do",
		       gm_rung_name(rung.rung), rung.why[0] ? rung.why : "asked for");
	return ret;
}

gm_ret_t gm_lib_rung(const struct gm_lib *lib, struct gm_rung_info *info)
{
	gm_ret_t ret = gm_handle_check(lib, GM_HANDLE_LIB);

	if (ret)
		return ret;
	if (!info)
		return gm_fail(GM_RET_INVAL, "gm_lib_rung: info must not be NULL");
	*info = lib->rung;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_lib_destroy(struct gm_lib *lib)
{
	struct gm_env *env;
	unsigned devs = 0, spaces, fences;
	bool own;
	gm_ret_t ret;

	if (!lib)
		return GM_RET_SUCCESS;
	ret = gm_handle_check(lib, GM_HANDLE_LIB);
	if (ret)
		return ret;
	env = lib->env;
	own = lib->own_env;
	gm_lock(env, &lib->lock);
	spaces = lib->spaces;
	for (unsigned i = 0; i < GM_MAX_DEVS; i++)
		devs += lib->devs[i] != NULL;
	gm_unlock(env, &lib->lock);
	fences = own ? atomic_load(&env->fences_held) : 0; /* an environment that others use has theirs too */
	if (devs || spaces || fences)
		return gm_fail(GM_RET_BUSY, "the instance still has %u devices, %u address spaces and %u fences: end them first",
			       devs, spaces, fences);
	while (own && atomic_load(&env->fences)) /* somebody is about to leave gm_fence_signal() */
		gm_yield(env);
	gm_handle_del(lib, GM_HANDLE_LIB);
	gm_hal_close(lib->host);
	gm_mutex_fini(env, &lib->lock);
	gm_mem_free(env, lib, sizeof(*lib));
	if (own)
		gm_env_threads_destroy(env);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_fence_create(struct gm_lib *lib, struct gm_fence **fence)
{
	gm_ret_t ret = gm_handle_check(lib, GM_HANDLE_LIB);
	struct gm_fence *f;

	if (ret)
		return ret;
	if (!fence)
		return gm_fail(GM_RET_INVAL, "gm_fence_create: fence must not be NULL");
	f = gm_fence_new(lib->env);
	if (!f)
		return gm_fail(GM_RET_NOMEM, "no memory for a fence");
	if (gm_fence_publish(f)) {
		gm_fence_unref(f);
		return gm_fail(GM_RET_NOMEM, "no memory for a fence");
	}
	*fence = f;
	return GM_RET_SUCCESS;
}
