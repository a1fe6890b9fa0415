/* SPDX-License-Identifier: MIT */
/*
 * Errors planted in the core, for tests of tests: the randomised test must
 * notice each of them, test_dup_events.c those of duplicates. Only in builds
 * with --enable-checks; elsewhere GM_PLANTED() is false and costs nothing.
 */
#ifndef GM_CORE_PLANT_H
#define GM_CORE_PLANT_H

enum gm_plant {
	GM_PLANT_NONE,
	GM_PLANT_SKIP_INVL,    /* mappings are removed but TLBs not invalidated */
	GM_PLANT_COPY_EARLY,   /* bytes are copied home before the device is revoked */
	GM_PLANT_DROP_DIRTY,   /* a page the device wrote comes home as if it were clean */
	GM_PLANT_SKIP_ZERO,    /* fresh device frames keep what was in them */
	GM_PLANT_MISS_REMOVE,  /* madvise(DONTNEED) is not noticed */
	GM_PLANT_MISS_UNMAP,   /* munmap is not noticed */
	GM_PLANT_SKIP_HOLD,    /* working sets do not hold their pages */
	GM_PLANT_LOSE_WAKE,    /* who waits for a busy page is not woken */
	GM_PLANT_WRITE_CLEAN,  /* a write mapping does not make the page dirty */
	GM_PLANT_PACK_CLEAN,   /* a block comes back from its packed form without its dirty pages */
	GM_PLANT_PACK_UNMAP,   /* ... without its mappings */
	GM_PLANT_DUP_OPEN,     /* duplicates are made, and stores of the process do not wait */
	GM_PLANT_DUP_KEEP,     /* a store of the process does not end the device's duplicate */
	GM_PLANT_PROTECT_KEEP, /* gm_protect() leaves devices their mappings */
	GM_PLANT_PIN_MOVE,     /* what is pinned to the host goes to a device all the same */
	GM_PLANT_FORK_OPEN,    /* a child inherits also what could not be brought home before */
	GM_PLANT_EXCLUSIVE_KEEP, /* what is one device's alone comes home, and the device goes on using it */
	GM_PLANT_REMAP_KEEP,   /* mremap() leaves devices their translations of the old place */
	GM_PLANT_FREED_LOST,   /* a page that was written after MADV_FREE counts as one without content */
	GM_PLANT_ZAP_EARLY,    /* what the kernel has yet to drop counts as alive */
	GM_PLANT_SERVE_OPEN,   /* devices go on writing to what was copied aside for a child */
	GM_PLANT_SERVE_LOSE,   /* a child that is served does not get what was copied aside */
	GM_PLANT_MIRROR_PIN,   /* memory pinned to the host is not kept there once it is adopted on demand */
	GM_PLANTS,
};

struct gm_as;

#ifdef GM_ENABLE_CHECKS
#define GM_PLANTED(as, what) ((as)->plant == (what))
#else
#define GM_PLANTED(as, what) false
#endif

#endif
