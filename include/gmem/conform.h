/* SPDX-License-Identifier: MIT */
/**
 * @file conform.h
 * @brief The conformance suite: does a backend keep the contract of gmem/hal.h?
 *
 * In a library of its own, libgmem-conform.a, which needs libgmem.a. It drives the ops table through the validation
 * shim, with services of its own: no core, no userfaultfd, no application memory. Each test opens the device anew,
 * in a child process: a crash, a failed assertion or a hang of the backend is a failed test, and the next one starts
 * clean. Groups, in the order in which one implements a backend:
 *
 * | group | what | needs |
 * | --- | --- | --- |
 * | table | slots and capabilities agree | |
 * | lifecycle | open, close, page tables, limits, nothing left behind | |
 * | memory | copies of all kinds and sizes | |
 * | map | enter and remove against an array oracle | GM_CAP_ACCESS |
 * | protect | rights | GM_CAP_ACCESS; GM_CAP_PROTECT for a part |
 * | invalidate | no stale translation, no access in flight | GM_CAP_ACCESS |
 * | fence | copies and plans complete in order, once | |
 * | plan | submit() does what the single operations do | GM_CAP_SUBMIT |
 * | fault | faults are named, served, replayed, cancelled | GM_CAP_FAULTS, hook touch |
 * | workset | whole plans of many ranges, held while others move | GM_CAP_ACCESS |
 * | dirty, sync, peer, visible, host | the optional operations | their capability |
 * | nth | the first, second, third ... service that an operation asks for fails: state as before; hook fail for a part | |
 * | threads | two threads on different ranges | |
 * | trace | the same random trace here and on the mock made like the device | GM_CAP_ACCESS |
 * | lost | the device is lost, or given up (dev_halt), in the middle | hooks lose, hang for a part |
 *
 * nth: every operation with a result, but fault_next() which may ask for nothing that fails. An operation without a
 * failure in hal.h (tlb_invl, access, fault_done), or whose answer holds (peer_reach), must do without the service.
 * More than 2000 services in one call are a failure.
 *
 * trace: the mock has the same capabilities (GM_CAP_HOST aside), granule, memory as large as the window used, and, as
 * far as the mock can, page sizes (4 KiB, 64 KiB, 2 MiB), address bits (48) and page tables at once (8). What the mock
 * lacks of them no trace of one page table can see.
 *
 * lost: every operation with a result says GM_RET_NODEV; after dev_halt() every fence is signalled and host memory is
 * not touched again.
 */
#ifndef GMEM_CONFORM_H
#define GMEM_CONFORM_H

#include <gmem/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

/** How a test ended. */
enum gm_conform_outcome {
	GM_CONFORM_PASS, /**< the contract held */
	GM_CONFORM_FAIL, /**< it did not; gm_conform_result.reason says where */
	GM_CONFORM_SKIP, /**< a capability or hook is missing, and the reason is written down */
};

/** One test. */
struct gm_conform_result {
	const char *group;               /**< see the table above */
	const char *test;                /**< name in the group */
	enum gm_conform_outcome outcome; /**< how it ended */
	const char *reason;              /**< of a failure or a skip; "" else. For a failure begins with the name of what broke:
					  *   a rule of the shim ("GM_RULE_...") or an expectation of the test */
	uint64_t ns;                     /**< how long it took */
};

/** What to run. */
struct gm_conform_config {
	size_t size;                    /**< sizeof(struct gm_conform_config) */
	const struct gm_plugin *plugin; /**< the backend */
	const char *options;            /**< handed to its open(); NULL: "" */
	const char *only;               /**< "group" or "group/test", several with commas; NULL: all */
	uint64_t seed;                  /**< of the random tests; 0: a fixed one */
	uint64_t bound_ns;              /**< longest wait for anything; 0: 10 s */
	bool list;                      /**< run nothing: report each test as SKIP with what it needs as reason */
	void (*report)(void *arg, const struct gm_conform_result *result); /**< after each test; NULL: none */
	void *arg;                      /**< handed to report */
};

/** How many tests ended how. */
struct gm_conform_summary {
	unsigned passed;  /**< PASS */
	unsigned failed;  /**< FAIL */
	unsigned skipped; /**< SKIP, with a reason */
};

/**
 * @brief Run the suite.
 *
 * Each test is a fork(): standard output is flushed before, and the backend's code is the same in the child, its
 * state not. The child's standard output is standard error. It is a process group of its own, and what is left of that
 * after the test is killed. Call it before the program starts threads.
 *
 * @param[in]  config   what to run
 * @param[out] summary  filled in; NULL if not wanted
 * @retval GM_RET_SUCCESS  every test passed or was skipped with a written reason, and at least one passed
 * @retval GM_RET_INVAL    @p config is NULL, of another size, without a plugin, or its plugin has another abi or size,
 *                         or lacks its name or its ops table; `only` names nothing
 * @retval GM_RET_FAULT    a test failed, or none passed
 * @threads any; one run per plugin at a time; blocks
 */
GM_API GM_MUST_CHECK gm_ret_t gm_conform_run(const struct gm_conform_config *config, struct gm_conform_summary *summary);

/**
 * @brief A main() for a program that links a backend and libgmem-conform.a.
 *
 * Options: `--options TEXT`, `--only GROUP[/TEST][,...]`, `--seed N`, `--bound SECONDS`, and one of `--tap`, `--json`,
 * `--list`; without, a table for people. Standard output has nothing else: what the backend prints in a test goes to
 * standard error.
 *
 * @param[in] argc    as main() got it
 * @param[in] argv    as main() got it
 * @param[in] plugin  the backend
 * @return 0 passed, 1 a test failed, 2 wrong use, or the results could not be written
 * @threads main
 */
GM_API int gm_conform_main(int argc, char **argv, const struct gm_plugin *plugin);

#ifdef __cplusplus
}
#endif
#endif
