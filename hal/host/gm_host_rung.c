/* SPDX-License-Identifier: MIT */
/*
 * The ladder: which way this process on this machine sees the CPU's accesses.
 *
 *     full, device --no right, or an old kernel--> no move --no right--> user mode only --refused--> explicit calls
 *
 * A rung is a table of the host's operations and the way to its userfaultfd, so
 * that the highest has no branch for the others:
 *
 *     full      call or /dev      gm_host.c, gm_host_move.c
 *     device    /dev              the same
 *     no move   call or /dev      gm_host_nomove.c
 *     user      user mode only    as full, or as no move where the kernel has no MOVE
 *     explicit  none              gm_host_explicit.c
 *
 * Each is tried, from the highest admitted to the lowest, by doing once what it
 * needs; why it was refused is kept in words. Nothing is left of a trial.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#define BOTH (GM_HOST_DOOR_CALL | GM_HOST_DOOR_DEVICE)
#define NO_MOVE                                                                                                 \
	(GM_RUNG_NO_UNMAP_GUARD | GM_RUNG_NO_POISON | GM_RUNG_NO_PIN_CHECK | GM_RUNG_NO_DUPLICATION |            \
	 GM_RUNG_NO_HUGE | GM_RUNG_NO_SHARED | GM_RUNG_NO_INTHREAD)
#define EXPLICIT (NO_MOVE | GM_RUNG_NO_KERNEL_ACCESS | GM_RUNG_NO_CPU_FAULTS | GM_RUNG_NO_EVENTS)

/* --------------------------------------------------------------- tables */

/* `closes`: the rung closes pages (gm_host_closed.c). */
static gm_ret_t open_dev(void *dev_data, const struct gm_host_way *way, bool closes, struct gm_dev_caps *caps, void **dev)
{
	struct gm_env *env = dev_data;
	struct gm_host_dev *d;
	gm_ret_t ret = gm_host_dev_open(env, way, caps, dev);

	if (ret || !closes)
		return ret;
	d = *dev;
	d->closed = gm_host_closed_new(env);
	if (d->closed)
		return GM_RET_SUCCESS;
	gm_host_dev_fini(d);
	return gm_fail(GM_RET_NOMEM, "no memory for the host");
}

#define DEV_INIT(name, doors, features, closes)                                                                 \
	static gm_ret_t name(void *dev_data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev) \
	{                                                                                                       \
		static const struct gm_host_way way = { doors, features };                                      \
                                                                                                                \
		(void)svc;                                                                                      \
		return open_dev(dev_data, &way, closes, caps, dev);                                             \
	}

DEV_INIT(device_init, GM_HOST_DOOR_DEVICE, GM_HOST_FEATURES_APP, false)
DEV_INIT(no_move_init, BOTH, GM_HOST_FEATURES_NO_MOVE, true)
DEV_INIT(user_init, GM_HOST_DOOR_USER, GM_HOST_FEATURES_APP, false)
DEV_INIT(user_no_move_init, GM_HOST_DOOR_USER, GM_HOST_FEATURES_NO_MOVE, true)
DEV_INIT(explicit_init, 0, 0, true)

#define TABLE(init, create, destroy, ops)                                                                               \
	{                                                                                                               \
		.abi = GM_HAL_ABI, .size = sizeof(struct gm_mmu), .name = "host", .dev_init = init,                     \
		.dev_fini = gm_host_dev_fini, .pmap_create = create, .pmap_destroy = destroy, .access = gm_host_access, \
		.host = &(ops),                                                                                         \
	}

static const struct gm_mmu device_mmu = TABLE(device_init, gm_host_pmap_create, gm_host_pmap_destroy, gm_host_ops_full);
static const struct gm_mmu user_mmu = TABLE(user_init, gm_host_pmap_create, gm_host_pmap_destroy, gm_host_ops_full);
static const struct gm_mmu no_move_mmu =
	TABLE(no_move_init, gm_host_nomove_create, gm_host_pumped_destroy, gm_host_ops_nomove);
static const struct gm_mmu user_no_move_mmu =
	TABLE(user_no_move_init, gm_host_nomove_create, gm_host_pumped_destroy, gm_host_ops_nomove);
static const struct gm_mmu explicit_mmu =
	TABLE(explicit_init, gm_host_explicit_create, gm_host_pumped_destroy, gm_host_ops_explicit);

/* --------------------------------------------------------------- trials */

static gm_ret_t lacks(const char *what, const char *since)
{
	struct utsname un;

	if (uname(&un))
		un.release[0] = '\0';
	return gm_fail(GM_RET_NOTSUP, "this kernel (%s) has no %s; %s or newer is needed", un.release, what, since);
}

/* The features of the highest rung through these doors. */
static gm_ret_t try_full(uint32_t doors, uint64_t allow, uint32_t *door)
{
	uint64_t features;
	const char *missing;
	bool scans;
	gm_ret_t ret = gm_host_look(doors, &features, door);

	if (!ret)
		ret = gm_host_scans(&scans);
	if (ret)
		return ret;
	missing = gm_host_first_missing(features & allow, GM_HOST_FEATURES_APP);
	if (!missing && !scans)
		missing = "PAGEMAP_SCAN on /proc/self/pagemap";
	return missing ? lacks(missing, "Linux 6.8") : GM_RET_SUCCESS;
}

/* Does mremap() take a page and leave its mapping? And, if asked, does /proc/self/mem write where nobody may? */
static gm_ret_t try_pages(bool closed)
{
	char *at = mmap(NULL, (size_t)2 * GM_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	gm_ret_t ret = GM_RET_SUCCESS;

	if (at == MAP_FAILED) {
		ret = gm_fail(GM_RET_NOMEM, "no address space for two pages");
	} else {
		at[0] = 1;
		if (mremap(at, GM_PAGE_BYTES, GM_PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
			   at + GM_PAGE_BYTES) == MAP_FAILED || at[GM_PAGE_BYTES] != 1)
			ret = lacks("MREMAP_DONTUNMAP", "Linux 5.7");
		else if (closed && (mprotect(at, GM_PAGE_BYTES, PROT_NONE) || mem < 0 ||
				    pwrite(mem, at + GM_PAGE_BYTES, GM_PAGE_BYTES, (off_t)GM_VA(at)) != (ssize_t)GM_PAGE_BYTES))
			ret = gm_fail(GM_RET_PERM, "/proc/self/mem cannot write to memory that is protected: is it restricted "
				      "(proc_mem.force_override), or the process not dumpable (prctl PR_SET_DUMPABLE)?");
		munmap(at, (size_t)2 * GM_PAGE_BYTES);
	}
	if (mem >= 0)
		close(mem);
	return ret;
}

static gm_ret_t try_no_move(uint32_t doors, uint64_t allow)
{
	uint64_t features;
	const char *missing;
	uint32_t door;
	bool scans;
	gm_ret_t ret = gm_host_look(doors, &features, &door);

	if (!ret)
		ret = gm_host_scans(&scans);
	if (ret)
		return ret;
	missing = gm_host_first_missing(features & allow, GM_HOST_FEATURES_NO_MOVE);
	return missing ? lacks(missing, "Linux 5.7") : try_pages(false);
}

static gm_ret_t try_explicit(void)
{
	struct gm_host_fd f;
	gm_ret_t ret = gm_host_open_pagemap(&f);

	if (ret)
		return ret;
	gm_host_fd_fini(&f);
	return try_pages(true);
}

static gm_ret_t try_rung(enum gm_rung rung, uint64_t allow, struct gm_rung_info *info, const struct gm_mmu **mmu)
{
	uint32_t door = 0;
	gm_ret_t ret;

	info->rung = rung;
	info->cannot = 0;
	switch (rung) {
	case GM_RUNG_FULL:
		*mmu = gm_host_mmu();
		return try_full(GM_HOST_DOOR_CALL, allow, &door);
	case GM_RUNG_DEVICE:
		*mmu = &device_mmu;
		return try_full(GM_HOST_DOOR_DEVICE, allow, &door);
	case GM_RUNG_NO_MOVE:
		*mmu = &no_move_mmu;
		info->cannot = NO_MOVE;
		return try_no_move(BOTH, allow);
	case GM_RUNG_USER:
		*mmu = &user_mmu;
		info->cannot = GM_RUNG_NO_KERNEL_ACCESS;
		ret = try_full(GM_HOST_DOOR_USER, allow, &door);
		if (ret != GM_RET_NOTSUP)
			return ret;
		*mmu = &user_no_move_mmu;
		info->cannot |= NO_MOVE;
		return try_no_move(GM_HOST_DOOR_USER, allow);
	default:
		*mmu = &explicit_mmu;
		info->cannot = EXPLICIT;
		return try_explicit();
	}
}

static void note(struct gm_rung_info *info, enum gm_rung rung)
{
	size_t have = strlen(info->why);

	snprintf(info->why + have, sizeof(info->why) - have, "%s%s: %s", have ? "; " : "", gm_rung_name(rung), gm_last_error());
}

/* Both doors at once, where both are admitted: the words for a refusal are about both. */
static gm_ret_t try_both(uint64_t allow, struct gm_rung_info *info, const struct gm_mmu **mmu)
{
	uint32_t door = 0;
	gm_ret_t ret = try_full(BOTH, allow, &door);

	info->rung = door == GM_HOST_DOOR_DEVICE ? GM_RUNG_DEVICE : GM_RUNG_FULL;
	info->cannot = 0;
	*mmu = gm_host_mmu();
	return ret;
}

gm_ret_t gm_host_choose_with(enum gm_rung lowest, enum gm_rung highest, uint64_t allow, struct gm_rung_info *info,
			     const struct gm_mmu **mmu)
{
	gm_ret_t first = GM_RET_SUCCESS, ret = GM_RET_NOTSUP;
	char why[sizeof(info->why)];

	info->why[0] = '\0';
	for (enum gm_rung r = highest; r <= lowest && ret; r++) {
		if (r == GM_RUNG_FULL && lowest >= GM_RUNG_DEVICE) {
			ret = try_both(allow, info, mmu);
			if (ret)
				r = GM_RUNG_DEVICE;
		} else {
			ret = try_rung(r, allow, info, mmu);
		}
		if (ret)
			note(info, r == GM_RUNG_DEVICE && highest == GM_RUNG_FULL ? GM_RUNG_FULL : r);
		first = first ? first : ret;
	}
	if (!ret)
		return ret;
	memcpy(why, info->why, sizeof(why));
	return gm_fail(first, "%s%s", why, lowest < GM_RUNG_EXPLICIT ? "; or admit a lower rung (gm_lib_config.lowest_rung)" : "");
}

gm_ret_t gm_host_choose(enum gm_rung lowest, enum gm_rung highest, struct gm_rung_info *info, const struct gm_mmu **mmu)
{
	return gm_host_choose_with(lowest, highest, UINT64_MAX, info, mmu);
}

const char *gm_rung_name(enum gm_rung rung)
{
	static const char *const names[] = { "default", "full", "device", "no move", "user mode only", "explicit" };

	return (unsigned)rung < sizeof(names) / sizeof(names[0]) ? names[rung] : "?";
}
