/* SPDX-License-Identifier: MIT */
/**
 * @file plugin.h
 * @brief A backend outside of the library: what it says of itself to tools and tests.
 *
 * A shared object exports one symbol, `gm_plugin`, of type `const struct gm_plugin`; a program that links the
 * backend statically hands the same structure to gm_conform_main().
 */
#ifndef GMEM_PLUGIN_H
#define GMEM_PLUGIN_H

#include <gmem/hal.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Version of struct gm_plugin. */
#define GM_PLUGIN_ABI 1u

/**
 * What tests may need of a device beyond its ops table. Any of them may be NULL; what needs it is then skipped, and
 * gm_plugin.skips must say why. `dev` and `pmap` are what the backend's own dev_init() and pmap_create() handed out.
 */
struct gm_plugin_hooks {
	uint32_t size; /**< sizeof(struct gm_plugin_hooks) */
	/**
	 * One access of a job, which faults where it must, waits until the fault is served and tries again: SUCCESS,
	 * or what the fault was answered with. May be called from several threads.
	 */
	gm_ret_t (*touch)(void *dev, void *pmap, uint64_t va, void *buf, size_t bytes, bool write);
	/**
	 * Make the n-th call from now (1: the next) of the operation called `op` ("pmap_enter", "copy", ...) fail as
	 * its block in gmem/hal.h allows; 0 clears. A step of submit() is a call of its operation, too. SUCCESS, or
	 * NOTSUP where this operation cannot be made to fail, or `op` is none that the backend knows.
	 */
	gm_ret_t (*fail)(void *dev, const char *op, uint64_t nth);
	/** The device is gone from now on, as if unplugged. */
	void (*lose)(void *dev);
	/**
	 * The engine hangs: copy() and submit() are accepted from now on, but no byte is moved and their fences stay pending,
	 * until dev_halt(). SUCCESS, or NOMEM.
	 */
	gm_ret_t (*hang)(void *dev);
};

/**
 * Why a group of the conformance suite, or one of its tests, is not run.
 *
 * A reason counts only where the capability or the hook that the test needs is missing; where it is there the test
 * runs, so that no line can hide a failure, and fails afterwards, because the line is out of date; unless the line
 * says that devices differ, so that one list serves a backend whose capabilities depend on its options. A line about a
 * group is out of date when every test of the group has what it needs.
 */
struct gm_plugin_skip {
	const char *test;   /**< "group" or "group/test" */
	const char *reason; /**< one sentence */
	bool varies;        /**< devices or options differ: no error where what the test needs is there */
};

/** A backend for tools and tests. */
struct gm_plugin {
	uint32_t abi;             /**< GM_PLUGIN_ABI */
	uint32_t size;            /**< sizeof(struct gm_plugin) */
	const char *name;         /**< for people; not empty */
	const struct gm_mmu *mmu; /**< the ops table */
	/**
	 * Make dev_data, which is never NULL, of option text ("" for none, never NULL); NULL where the backend takes none.
	 * Called once per device, before its dev_init(), so there are no services yet: memory comes from malloc(). Why it
	 * refuses it may say on standard error. SUCCESS, INVAL, NOMEM.
	 */
	gm_ret_t (*open)(const char *options, void **dev_data);
	/** Undo open(), after dev_fini(), or where dev_init() failed. NULL where there is nothing to undo, or no open(). */
	void (*close)(void *dev_data);
	const struct gm_plugin_hooks *hooks; /**< NULL: none */
	const struct gm_plugin_skip *skips;  /**< ends with a NULL test; NULL: none */
};

/** Name of the symbol that a shared object exports. */
#define GM_PLUGIN_SYMBOL "gm_plugin"

#ifdef __cplusplus
}
#endif
#endif
