/* SPDX-License-Identifier: MIT */
/*
 * The host as a device: what it has beyond the ops table of any device.
 * Implemented over userfaultfd by hal/host/ and in simulation by
 * hal/sim/gm_sim_host.c. The host's pmap is one address space's view of the
 * process; its "frames" belong to the kernel, except those parked in a
 * staging slot (2 MiB of library memory per block, same offset as the block).
 *
 * States of a page as the host sees it:
 *
 *     unwatched --watch--> watched, present --steal--> absent, frame in slot
 *     watched, absent --restore/fill/zero--> present      (an access to it waits, a message says so)
 *     watched, absent --fill_protected--> present, protected  (a load sees it; a store waits, a message says so)
 *     protected --unprotect--> present                         --steal, the process drops it--> absent
 *     watched, all present --unwatch--> unwatched
 *
 * Only core decides; a host never changes a page by itself. With
 * GM_RUNG_NO_CPU_FAULTS nobody is told of an access to an absent page, it fails: so what has no content must be made
 * present (unmark), steal() leaves no holes, and no message but what the host finds out itself comes. Every call is
 * bounded and none waits for a message to be read: where the kernel would
 * (events unread), the call returns GM_RET_AGAIN and the caller lets the
 * reader run. What restore(), fill() and zero() make present can be used at
 * once: they wake the accesses that wait for it; wake() is for all the others.
 *
 * A question has three answers: yes, no, and "cannot tell now": the host could not ask (it was robbed of what it asks
 * with, and has no descriptor or memory for another). That is GM_RET_NOMEM from mem_*(), watch(), steal() and the other ops
 * that say so, and from bus_*(); gm_last_error() names what to do. It passes, and it says nothing of the memory: nobody
 * may take it for "not there", "not locked" or "lost". Who asked changes nothing, and asks again or passes it on.
 */
#ifndef GM_HAL_HOST_H
#define GM_HAL_HOST_H

#include <gmem/hal.h>

#include "hal/gm_mask.h"

/* Whose memory it is, as far as that can be told: only ANON may be taken without being asked for (mem_kind()). */
enum gm_host_kind { /* in this order */
	GM_HOST_ANON,    /* private, anonymous, 2 MiB and more, readable and writable, and none of the following */
	GM_HOST_SMALL,   /* the same, but less than 2 MiB, perhaps as what was next to it is watched by now */
	GM_HOST_HEAP,    /* the break */
	GM_HOST_STACK,   /* of a thread, with its thread-local storage; or what has a guard page below it */
	GM_HOST_ARENA,   /* an allocator's, or it is not known how to tell */
	GM_HOST_DATA,    /* of the program and its libraries */
	GM_HOST_LIBRARY, /* this library's own */
	GM_HOST_NAMED,   /* somebody has given it a name: a runtime's, an allocator's */
	GM_HOST_RIGHTS,  /* the process may not read and write it now */
	GM_HOST_LOCKED,  /* mlock()ed */
	GM_HOST_SHARED,  /* shared with others, or a file's (hugetlb too) */
	GM_HOST_SPECIAL, /* the kernel's */
};

/* What the process has mapped somewhere. */
struct gm_host_vma {
	uint64_t va, bytes;   /* the whole mapping; mem_kind(): the part of va's block of which all here is true */
	uint32_t access;      /* GM_READ, GM_WRITE */
	bool private_anon;    /* the kind that can be managed: private and anonymous, or shared memory of the library */
	bool locked;          /* mlock()ed: cannot be moved */
	enum gm_host_kind kind; /* mem_kind() only */
};

/* Result of a steal, bit i = page i of the block. */
struct gm_host_steal {
	struct gm_mask moved;  /* now in the slot */
	struct gm_mask hole;   /* of those: never had content, the slot has nothing there either */
	struct gm_mask pinned; /* refused: in use by DMA or shared with a child; may work later */
	struct gm_mask fixed;  /* refused: locked, read-only, or of a kind that cannot be moved */
	bool huge;             /* the whole block moved as one huge page */
};

/* What the kernel has at a block, bit i = page i. */
struct gm_host_content {
	struct gm_mask some; /* any content, be it the mark of poison() */
	struct gm_mask zero; /* of those, only the shared page of zeros */
	bool huge;           /* all of it is one huge page */
};

enum gm_host_msg_kind {
	GM_HOST_FAULT,  /* somebody waits at va */
	GM_HOST_REMOVE, /* [va, va + bytes): content dropped (madvise) */
	GM_HOST_UNMAP,  /* [va, va + bytes): gone */
	GM_HOST_REMAP,  /* [va, va + bytes) is now at `to` */
	GM_HOST_FORK,   /* there is a child; only after serve_forks() */
};

struct gm_host_msg {
	uint64_t va, bytes, to;
	enum gm_host_msg_kind kind;
	uint32_t thread_id; /* FAULT: who (gettid); 0 unknown */
	int child;          /* FORK: for child_fill() and the like; whoever reads the message closes it */
	bool write;         /* FAULT */
	bool wp;            /* FAULT: a store to a page that is protected; else to one that is absent */
	bool inthread;      /* UNMAP: of memory whose faults are served in their threads */
};

struct gm_host_ops {
	/* Owned memory: reserve and unmap address space, private, anonymous, not inherited by a child.
	 * Of 64 KiB and more it is aligned to 64 KiB, of 2 MiB and more to 2 MiB: devices with large pages can map it.
	 * Unmapping happens only while unwatched. mem_map: SUCCESS, NOMEM. */
	gm_ret_t (*mem_map)(void *pmap, uint64_t bytes, bool huge, uint64_t *va);
	void (*mem_unmap)(void *pmap, uint64_t va, uint64_t bytes);
	/* Does a child inherit the range? (fork) */
	void (*mem_inherit)(void *pmap, uint64_t va, uint64_t bytes, bool inherit);
	/* mprotect(): `access` is 0, GM_READ or GM_READ | GM_WRITE. SUCCESS, FAULT (not all of it mapped; nothing changed),
	 * PERM (sealed); NOMEM (too many mappings: part may have changed; or it cannot be told what is mapped). */
	gm_ret_t (*mem_protect)(void *pmap, uint64_t va, uint64_t bytes, uint32_t access);
	/* What is mapped at va. SUCCESS, FAULT (nothing), NOMEM (it cannot be told now; so for all mem_*()). */
	gm_ret_t (*mem_probe)(void *pmap, uint64_t va, struct gm_host_vma *vma);
	/* The same for every fault: cheap, and `locked` is not looked at. */
	gm_ret_t (*mem_rights)(void *pmap, uint64_t va, struct gm_host_vma *vma);
	/* The same with `kind`, for spaces that mirror the process: not cheap. Neither waits nor calls an allocator. */
	gm_ret_t (*mem_kind)(void *pmap, uint64_t va, struct gm_host_vma *vma);
	/* Is one huge page mapped over the 2 MiB block at va? False also if it cannot be told: nothing depends on it. */
	bool (*mem_huge)(void *pmap, uint64_t va);
	/* What is at the block at va, mapped or not, for who wants to know all. SUCCESS, NOMEM. */
	gm_ret_t (*mem_content)(void *pmap, uint64_t va, struct gm_host_content *out);
	/* Which pages of the block at va have content now, be it the mark of poison(). SUCCESS, FAULT (nothing is mapped in
	 * the block), NOMEM. */
	gm_ret_t (*mem_present)(void *pmap, uint64_t va, struct gm_mask *present);

	/* Start, stop receiving faults and events for a range; repeated is fine.
	 * SUCCESS, FAULT (not all mapped), BUSY (another userfaultfd), NOTSUP, NOMEM, AGAIN. */
	gm_ret_t (*watch)(void *pmap, uint64_t va, uint64_t bytes);
	gm_ret_t (*unwatch)(void *pmap, uint64_t va, uint64_t bytes);
	/* More for a range that is watched: pages of it may be protected, until unwatch(). As watch(); NOTSUP also where
	 * the kernel protects no pages. */
	gm_ret_t (*watch_stores)(void *pmap, uint64_t va, uint64_t bytes);

	/* A staging slot of GM_BLOCK_BYTES, empty. SUCCESS, NOMEM. */
	gm_ret_t (*slot_alloc)(void *pmap, uint64_t *slot);
	void (*slot_free)(void *pmap, uint64_t slot); /* gives all its frames back */
	/* Give the frames of part of a slot back to the kernel. */
	void (*slot_drop)(void *pmap, uint64_t addr, uint64_t bytes);

	/* Take pages `want` of the block at va (watched) into its slot, atomically against every
	 * access of the process, and only while no event is unread: so what is taken belongs to the
	 * mapping that was watched, never to a later one at the same address. Fills `out`. SUCCESS
	 * (look at out), AGAIN (events unread; out says what moved so far), FAULT (mapping gone; ditto), NOMEM (too many
	 * mappings, or it cannot be told what is there; ditto). Rungs that cannot see what is unread take by address: GM_RUNG_NO_UNMAP_GUARD. */
	gm_ret_t (*steal)(void *pmap, uint64_t va, const struct gm_mask *want, uint64_t slot, struct gm_host_steal *out);
	/* Put frames from a slot back at va. *done: bytes that are back. SUCCESS, AGAIN, EXIST (something
	 * is present at va + *done), FAULT (no mapping at va + *done), NOMEM (of frames; or it cannot be told what is there). */
	gm_ret_t (*restore)(void *pmap, uint64_t va, uint64_t addr, uint64_t bytes, uint64_t *done);
	/* Make new frames at va with a copy of `src` (ordinary library or device memory). As restore. */
	gm_ret_t (*fill)(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done);
	/* The same, and stores to these pages wait until unprotect(). They are watched by watch_stores(), else FAULT. */
	gm_ret_t (*fill_protected)(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done);
	/* Stores go on, and who waits for that too. SUCCESS (also where nothing was protected), AGAIN, FAULT (part of it is
	 * not mapped, or not watched by watch_stores(); the rest is done). */
	gm_ret_t (*unprotect)(void *pmap, uint64_t va, uint64_t bytes);
	/* The same as fill() with zeros, for holes: a page with the mark of poison() is present (EXIST) and keeps it. */
	gm_ret_t (*zero)(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done);
	/* Make accesses to absent pages fail (SIGBUS) from now on; restore() and fill() replace the mark. As restore. */
	gm_ret_t (*poison)(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done);
	/* Zeros in place of that mark, as the content is given up. As zero; another's mark (a guard page) stays: EXIST. */
	gm_ret_t (*unmark)(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done);
	/* Let every access that waits in the range try again. */
	gm_ret_t (*wake)(void *pmap, uint64_t va, uint64_t bytes);

	/* One access over the bus, for devices (the host's device object, not a pmap): present pages, or
	 * pages of memory that nobody watches, with the rights that the process has there now. Never waits.
	 * SUCCESS, FAULT, NOTSUP, NOMEM (it cannot be told now whether that is allowed). */
	gm_ret_t (*bus_access)(void *dev, uint64_t va, void *buf, size_t bytes, bool write);
	/* Would a store over the bus succeed? (Not where a file has no room, for example.) Changes no byte. As bus_access(). */
	gm_ret_t (*bus_touch)(void *dev, uint64_t va);
	/* As if the process touched the page at va, which somebody else in the process may have to fill, or to let a
	 * store go on: waits for him until the deadline. For pages that are not this library's to give. SUCCESS (it could
	 * be touched just now), FAULT, TIMEDOUT, NOTSUP, NOMEM. */
	gm_ret_t (*bus_bring)(void *dev, uint64_t va, bool write, uint64_t deadline_ns);

	/* Library memory that can be given away by restore(): `bytes` of scratch whose frames exist;
	 * huge where possible. Belongs to the pmap, one at a time per `index` (0 handler, 1 worker...).
	 * NULL: none, use fill(). */
	void *(*bounce)(void *pmap, unsigned index, uint64_t bytes);

	/* Read up to n messages, never blocks. Returns how many. Events before faults. */
	size_t (*msg_read)(void *pmap, struct gm_host_msg *msgs, size_t n);
	/* Wait until msg_read() would return something, msg_kick() was called, or the deadline. */
	gm_ret_t (*msg_wait)(void *pmap, uint64_t deadline_ns);
	void (*msg_kick)(void *pmap);
	/* SUCCESS when no event is posted or about to be posted that msg_read() has not returned; else
	 * AGAIN. Before a range may be managed anew, the events of its former life must be through. */
	gm_ret_t (*settled)(void *pmap);
	/* Pollable descriptor, -1 if there is none (simulation). */
	int (*msg_fd)(void *pmap);

	/* Fork: freeze is called before it, thaw after it in the parent. freeze NULL: no more of it. */
	void (*at_fork)(void *pmap, gm_ret_t (*freeze)(void *arg), void (*thaw)(void *arg), void *arg);

	/* Survive it when the program closes all descriptors, with a thread that does nothing else. SUCCESS, or what the
	 * making of a thread says. */
	gm_ret_t (*keep)(void *pmap);

	/* Its descriptors are lost (NODEV), and with them what was watched: new ones, with which nothing is watched
	 * but the slots. SUCCESS, EXIST (they are not lost), NOMEM, AGAIN (not now), or why never. */
	gm_ret_t (*reopen)(void *pmap);

	/*
	 * Children that are served: from now on a child has a descriptor of its own, which the message FORK brings, and
	 * fork() returns in it when thaw has ended. An access of it to an absent page waits until that is given, or
	 * child_close(). Before anything is watched, and only where somebody reads messages while a thread forks.
	 * SUCCESS, PERM, NOTSUP, NOMEM.
	 */
	gm_ret_t (*serve_forks)(void *pmap);
	/* As fill(), in the child; src NULL: as poison(). Also NODEV: the child is gone; IO: its descriptor is. */
	gm_ret_t (*child_fill)(void *pmap, int child, uint64_t va, const void *src, uint64_t bytes, uint64_t *done);
	/* What the child does to its own memory, as msg_read(), without faults. Until it is read the child waits, and
	 * child_fill() says AGAIN. */
	size_t (*child_read)(void *pmap, int child, struct gm_host_msg *msgs, size_t n);
	/* What is still absent is a hole of the child from now on. */
	void (*child_close)(void *pmap, int child);
	/* In thaw: the child of this fork lacks bytes that no mark stands for. It ends, by SIGBUS, before it could see. */
	void (*child_fail)(void *pmap);

	/*
	 * Shared memory; NULL where there is none. Its pages are stolen, restored and so on as those of owned memory;
	 * the slot of a block is a second mapping of it, which share_slot() tells. It ends by mem_unmap().
	 */
	/* Map new memory (fd < 0), which a child does not inherit; or what a descriptor of share_fd() leads to, of which
	 * nothing can be stolen. Aligned to, and alone in, whole blocks. SUCCESS, NOMEM, INVAL, NOTSUP, PERM. */
	gm_ret_t (*share_map)(void *pmap, int fd, uint64_t offset, uint64_t bytes, uint64_t *va);
	/* SUCCESS, NOENT: no shared memory there that can be stolen, or could be before share_fd(). */
	gm_ret_t (*share_slot)(void *pmap, uint64_t va, uint64_t *slot);
	/* A descriptor for others of what begins at va; nothing of it is away, or will be. A child inherits it from now on.
	 * SUCCESS, NOENT, NOMEM, NODEV. */
	gm_ret_t (*share_fd)(void *pmap, uint64_t va, int *fd);

	/*
	 * Memory whose faults their own threads serve. An access to a page that is away, or a
	 * store to one that is protected, raises SIGBUS in its thread in place of a message, and one of the kernel fails;
	 * all else is as of other memory. Nothing of the range is watched when that begins or ends; it follows mremap().
	 * `on`: SUCCESS, NOTSUP, PERM, NOMEM; else always SUCCESS, unless it were two pieces and there is no room: NOMEM.
	 */
	gm_ret_t (*mem_inthread)(void *pmap, uint64_t va, uint64_t bytes, bool on);
	/* Is any of it such memory? */
	bool (*inthread_has)(void *pmap, uint64_t va, uint64_t bytes);
};

/* The host of this machine over full userfaultfd; dev_data is its struct gm_env. */
const struct gm_mmu *gm_host_mmu(void);

/*
 * The best rung of the ladder (gmem/rung.h) that this process has on this machine, from `highest` down to
 * `lowest`, and the host's table for it, of which dev_data is the struct gm_env as well. SUCCESS; else, with the
 * fix in words, NOTSUP (the kernel has none of them), PERM (no right), NOMEM (no descriptors).
 */
gm_ret_t gm_host_choose(enum gm_rung lowest, enum gm_rung highest, struct gm_rung_info *info, const struct gm_mmu **mmu);

#endif
