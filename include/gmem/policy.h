/* SPDX-License-Identifier: MIT */
/**
 * @file policy.h
 * @brief Decisions, apart from mechanism.
 *
 * A policy only advises. The core checks every answer, keeps the books, and
 * falls back to its own choice where an answer is not usable. Callbacks must
 * not block, allocate or call back: victim() runs with a lock of the library
 * held, unit() with none, but perhaps in the handler of CPU faults.
 */
#ifndef GMEM_POLICY_H
#define GMEM_POLICY_H

#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What the core asks about a fault. */
struct gm_policy_fault {
	uint64_t va;           /**< page touched */
	uint32_t access;       /**< GM_READ, GM_WRITE, GM_ATOMIC */
	bool from_cpu;         /**< CPU fault (the page comes home), else a device fault */
	uint32_t min_bytes;    /**< smallest unit that may be answered */
	uint32_t max_bytes;    /**< largest */
	bool adjacent;         /**< the fault continues where the one before ended */
	uint32_t last_bytes;   /**< unit of the one before */
};

/** A piece of device memory that may be evicted. */
struct gm_policy_victim {
	uint64_t va;        /**< first page of it */
	uint32_t bytes;     /**< device memory it occupies */
	uint64_t served_ns; /**< when the device last asked for it */
};

/** The table; a NULL slot means the default. */
struct gm_policy {
	size_t size;      /**< sizeof(struct gm_policy) */
	const char *name; /**< for people */
	void *state;      /**< handed to every callback */
	/**
	 * How much to bring for this fault: a power of two between min_bytes and
	 * max_bytes; the aligned piece of that size around the page is meant.
	 * Default: start at min_bytes, double while faults are adjacent.
	 */
	uint32_t (*unit)(void *state, const struct gm_policy_fault *fault);
	/**
	 * Which of `n` candidates to evict, least recently used first: an index.
	 * Default: 0.
	 */
	size_t (*victim)(void *state, const struct gm_policy_victim *candidates, size_t n);
};

#ifdef __cplusplus
}
#endif
#endif
