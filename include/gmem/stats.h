/* SPDX-License-Identifier: MIT */
/**
 * @file stats.h
 * @brief Counters of an address space.
 */
#ifndef GMEM_STATS_H
#define GMEM_STATS_H

#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Every counter: name, what it counts. */
#define GM_STAT_LIST(X) \
	X(cpu_faults, "CPU accesses that found their page away or absent") \
	X(cpu_faults_inline, "of those, served by the handler itself") \
	X(cpu_faults_inthread, "of those, served in the thread that faulted (GM_MEM_INTHREAD)") \
	X(dev_faults, "device faults served") \
	X(dev_faults_spurious, "device faults that somebody else had served already") \
	X(migrations_to_dev, "moves of one or more pages of a block to a device") \
	X(migrations_to_host, "moves of one or more pages of a block to the host") \
	X(pages_to_dev, "pages that became device resident") \
	X(pages_to_host, "pages that came home") \
	X(bytes_to_dev, "bytes copied to device memory") \
	X(bytes_to_host, "bytes copied from device memory") \
	X(pages_zeroed, "pages zero-filled instead of copied") \
	X(pages_clean, "pages that came home without a copy, their frame was kept") \
	X(evictions, "migrations to the host to make room") \
	X(pages_evicted, "pages that came home to make room") \
	X(pages_refused, "pages that the host would not give up (pinned, shared, locked)") \
	X(pages_in_place, "host pages mapped in place") \
	X(pages_duplicated, "pages of which a device got a duplicate") \
	X(dups_ended, "pages whose duplicates ended, as the process stored to them") \
	X(pages_dropped, "pages whose content the application gave up (unmapped, discarded)") \
	X(aborts, "migrations undone before their point of no return") \
	X(slice_waits, "times a page was left with its accessor a moment longer") \
	X(ws_acquires, "working sets acquired") \
	X(blocks_packed, "2 MiB blocks whose page state was packed, as nothing happened to them for a second") \
	X(blocks_opened, "of those, opened again, as something does") \
	X(ns_cpu_fault, "time serving CPU faults") \
	X(ns_dev_fault, "time serving device faults (of those that move nothing one in 16 is timed, for all)") \
	X(ns_ws, "time acquiring working sets") \
	X(ns_evict, "time evicting") \
	X(ns_revoke, "time revoking device mappings") \
	X(ns_steal, "time taking pages from the host") \
	X(ns_copy, "time copying") \
	X(ns_map, "time mapping on devices") \
	X(ns_restore, "time giving pages back to the host")

/** A snapshot of the counters; `_ns` counters may overlap (a fault contains its copy). */
struct gm_stats {
#define GM_STAT_FIELD_(name, text) uint64_t name; /**< see GM_STAT_LIST */
	GM_STAT_LIST(GM_STAT_FIELD_)
#undef GM_STAT_FIELD_
};

/**
 * @brief Read the counters of an address space.
 * @param[in]  as     the address space
 * @param[out] stats  filled in
 * @retval GM_RET_SUCCESS  filled in
 * @retval GM_RET_INVAL    @p as is no address space that lives, or @p stats is NULL
 * @threads any; each counter is exact, the set is not one instant
 */
GM_API gm_ret_t gm_as_stats(struct gm_as *as, struct gm_stats *stats);

/**
 * @brief Check every invariant of an address space (see docs/design.md).
 *
 * Slow; for tests and for programs that suspect something.
 *
 * @param[in]  as     the address space
 * @param[out] text   receives the first broken invariant in words; may be NULL
 * @param[in]  bytes  room in @p text
 * @retval GM_RET_SUCCESS  all hold
 * @retval GM_RET_INVAL    @p as is no address space that lives
 * @retval GM_RET_IO       one is broken; @p text says which
 * @threads any
 */
GM_API gm_ret_t gm_as_check(struct gm_as *as, char *text, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
