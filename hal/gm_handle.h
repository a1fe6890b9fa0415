/* SPDX-License-Identifier: MIT */
/*
 * Which public objects live: so that a public function can tell a pointer that is none, without following it.
 * Whoever makes a public object adds it, whoever ends it takes it out; public functions check once, at the boundary.
 */
#ifndef GM_HAL_HANDLE_H
#define GM_HAL_HANDLE_H

#include <stdatomic.h>

#include <gmem/types.h>

enum gm_handle_kind {
	GM_HANDLE_LIB = 1,
	GM_HANDLE_DEV,
	GM_HANDLE_AS,
	GM_HANDLE_CTX,
	GM_HANDLE_WS,
	GM_HANDLE_FENCE,
	GM_HANDLE_MOCK,        /* what a mock device's dev_init() returned */
	GM_HANDLE_MOCK_THREAD,
	GM_HANDLE_MOCK_HW,
	GM_HANDLE_SHIM,        /* what the validation shim's dev_init() returned */
	GM_HANDLE_SHIM_PMAP,
	GM_HANDLE_KINDS,       /* at most 16: the kind is kept in bits that alignment leaves free */
};

/* Objects are aligned to this. */
#define GM_HANDLE_ALIGN 16u

/* From now on `object` lives. SUCCESS, NOMEM. */
gm_ret_t gm_handle_add(const void *object, enum gm_handle_kind kind);
/* It lives no more: before its memory is given back. */
void gm_handle_del(const void *object, enum gm_handle_kind kind);
/* The whole set; see gm_handle_live(). */
bool gm_handle_find(uintptr_t entry);

#define GM_HANDLE_WORDS      8 /* of a line: a cache line */
#define GM_HANDLE_FIRST_BITS 8 /* level 0 has 2^8 lines */

struct gm_handle_line {
	_Alignas(64) _Atomic uintptr_t word[GM_HANDLE_WORDS];
};

extern struct gm_handle_line gm_handle_first[1 << GM_HANDLE_FIRST_BITS];

/* Its upper bits name a line on every level: those of a product with the golden ratio depend on all of the pointer. */
static inline uint64_t gm_handle_hash(uintptr_t entry)
{
	return (uint64_t)entry / GM_HANDLE_ALIGN * UINT64_C(0x9e3779b97f4a7c15);
}

/*
 * Any pointer may be asked for; it is never followed. Nearly always the answer is in the first word, and costs
 * less than the call of a function.
 */
static inline bool gm_handle_live(const void *object, enum gm_handle_kind kind)
{
	uintptr_t entry = (uintptr_t)object | kind;
	struct gm_handle_line *line = &gm_handle_first[gm_handle_hash(entry) >> (64 - GM_HANDLE_FIRST_BITS)];

	if ((uintptr_t)object % GM_HANDLE_ALIGN || !object)
		return false;
	return atomic_load_explicit(&line->word[0], memory_order_acquire) == entry || gm_handle_find(entry);
}

/* Remember why `object` is refused; INVAL. */
gm_ret_t gm_handle_refuse(const char *function, const char *argument, const void *object, enum gm_handle_kind kind);

/* Remember why another argument is refused: "function: why"; INVAL. */
gm_ret_t gm_refuse(const char *function, const char *why);

/* In a public function, for its parameter `object`: SUCCESS, INVAL. */
#define gm_handle_check(object, kind) \
	(gm_handle_live(object, kind) ? GM_RET_SUCCESS : gm_handle_refuse(__func__, #object, object, kind))

#endif
