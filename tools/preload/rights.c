/* SPDX-License-Identifier: MIT */
/*
 * mprotect(). The server does it by gm_protect(): when it returns no device has more rights than the program, and what
 * is managed stays managed, be its bytes away or not.
 *
 *     mprotect(va, bytes, prot) --of managed memory--> asked --server: gm_protect()--> the kernel's, with the program's prot
 *             '--other memory, or no server--> the kernel's
 *
 * gm_protect() knows reading and writing. The program may ask for more (PROT_EXEC), and may not be without it for a moment:
 * another thread may run there. So what libgmem says to the kernel of exactly this range is said with the program's
 * own word (__wrap_mprotect).
 *
 * What is away comes home only when it is touched, with the rights it has then; under PROT_NONE never. What is on the host
 * without the right to read and write stays there, as the kernel moves pages only between mappings of equal rights; it
 * goes again when it has them.
 */
#include "config.h"

#include <errno.h>

#include "tools/preload/preload.h"
#include "tools/preload/raw.h"

#define PAGE_MASK ((uint64_t)GM_PAGE_BYTES - 1)

/* What libgmem's own calls in this object are bound to (-Wl,--wrap). */
int gm_own_mprotect(void *at, size_t bytes, int prot) __asm__("__wrap_mprotect");

/* The server's: what the program has asked for, and what the kernel said to it. */
static struct {
	uint64_t va, bytes;
	int prot, err;
} asked;

int gm_own_mprotect(void *at, size_t bytes, int prot)
{
	bool his = bytes && GM_VA(at) == asked.va && bytes == asked.bytes;
	int ret = (int)syscall(SYS_mprotect, at, bytes, his ? asked.prot : prot);

	if (his)
		asked.err = ret ? errno : 0;
	return ret;
}

static int error_of(gm_ret_t ret)
{
	switch (ret) {
	case GM_RET_SUCCESS:
		return 0;
	case GM_RET_PERM:
		return EACCES;
	case GM_RET_INVAL:
		return EINVAL;
	default:
		return ENOMEM;
	}
}

int gm_exec_protect(uint64_t va, uint64_t bytes, int prot)
{
	uint32_t access = (prot & PROT_READ ? GM_READ : 0) | (prot & PROT_WRITE ? GM_READ | GM_WRITE : 0);
	gm_ret_t ret;

	asked.va = va;
	asked.bytes = bytes;
	asked.prot = prot;
	asked.err = 0;
	ret = gm_protect(gm_exec.as, va, bytes, access);
	asked.bytes = 0;
	return asked.err ? asked.err : error_of(ret);
}

GM_EXEC_EXPORT int mprotect(void *at, size_t bytes, int prot)
{
	uint64_t va = GM_VA(at), all = (bytes + PAGE_MASK) & ~PAGE_MASK, answer = 0;

	if (all && !(va & PAGE_MASK) && va + all > va && gm_exec_is_managed(va, all))
		answer = gm_exec_ask(GM_EXEC_PROTECT, va, all, (uint64_t)(unsigned)prot);
	if (!answer)
		return (int)syscall(SYS_mprotect, at, bytes, prot);
	if (gm_exec_window_has(va))
		gm_exec_window_set_odd(va, all);
	errno = answer == 1 ? errno : (int)(answer - 1);
	return answer == 1 ? 0 : -1;
}
