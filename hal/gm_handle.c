/* SPDX-License-Identifier: MIT */
/*
 * The registry of public objects: the set of the pointers that may be handed in, with their kinds. It belongs to
 * the process (to this copy of the library in it), as a pointer that may be garbage names no instance that could be
 * asked; docs/decisions/0008-handles.md says what follows from that.
 *
 *     level 0   256 lines                 in the data of the library
 *     level n   256 * 8^n lines           mapped when an object found no room in those before
 *
 * A line is one cache line of 8 words, 0 or object | kind. The hash of a pointer names one line per level; the
 * object is in one of them. Entries never move, so nothing locks:
 *
 *     add:  compare-and-swap into a free word of the first line that has one; map the next level if none has
 *     live: look through the lines, level by level
 *     del:  the word becomes 0
 *
 * A caller has its pointer from whoever made the object, so it sees what was stored before. Levels stay as long as
 * the process: their memory follows the largest number of objects that lived at once. They are mapped rather than
 * malloc()ed, like all that the library needs while a page may be away.
 *
 * Without locks a fork finds nothing half done. The child has no use for any object of its parent (no threads, no
 * descriptors, perhaps not even the memory): there the set is emptied, and every handle from before is refused.
 *
 * Failure: an add that finds no room and no memory for another level changes nothing.
 */
#include "config.h"

#include "hal/gm_handle.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "hal/gm_env.h"

#define LEVEL_BITS 3 /* each level has 2^3 times as many lines */
#define LEVELS     9

struct gm_handle_line gm_handle_first[1 << GM_HANDLE_FIRST_BITS];
static _Atomic(struct gm_handle_line *) further[LEVELS]; /* [0] is not used */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int once_error;

_Static_assert(GM_HANDLE_KINDS <= GM_HANDLE_ALIGN, "kinds fit into the bits that alignment leaves free");

static size_t lines_of(unsigned level)
{
	return (size_t)1 << (GM_HANDLE_FIRST_BITS + LEVEL_BITS * level);
}

/* NULL: this level is not there (yet). */
static struct gm_handle_line *line_of(unsigned level, uintptr_t entry)
{
	struct gm_handle_line *lines = gm_handle_first;

	if (level)
		lines = atomic_load_explicit(&further[level], memory_order_acquire);
	return lines ? &lines[gm_handle_hash(entry) >> (64 - GM_HANDLE_FIRST_BITS - LEVEL_BITS * level)] : NULL;
}

static bool add_to(struct gm_handle_line *line, uintptr_t entry)
{
	for (unsigned i = 0; i < GM_HANDLE_WORDS; i++) {
		uintptr_t none = 0;

		if (!atomic_load_explicit(&line->word[i], memory_order_relaxed) &&
		    atomic_compare_exchange_strong(&line->word[i], &none, entry))
			return true;
	}
	return false;
}

/* The word of an entry; NULL: it is not there. */
static _Atomic uintptr_t *find(uintptr_t entry)
{
	for (unsigned level = 0; level < LEVELS; level++) {
		struct gm_handle_line *line = line_of(level, entry);

		if (!line)
			break;
		for (unsigned i = 0; i < GM_HANDLE_WORDS; i++)
			if (atomic_load_explicit(&line->word[i], memory_order_acquire) == entry)
				return &line->word[i];
	}
	return NULL;
}

/* False: no memory. Somebody else may have been faster. */
static bool add_level(unsigned level)
{
	size_t bytes = lines_of(level) * sizeof(struct gm_handle_line);
	struct gm_handle_line *none = NULL;
	/* Below it a page that nobody may access: it says whose it is (gm_host_kind.c). */
	char *guard = mmap(NULL, GM_PAGE_BYTES + bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	bool ok = guard != MAP_FAILED;

	if (ok && !mprotect(guard + GM_PAGE_BYTES, bytes, PROT_READ | PROT_WRITE) &&
	    atomic_compare_exchange_strong(&further[level], &none, (struct gm_handle_line *)(void *)(guard + GM_PAGE_BYTES)))
		return true;
	if (ok)
		(void)munmap(guard, GM_PAGE_BYTES + bytes);
	return ok && none; /* else there is no memory */
}

/* One thread is left, this one. */
static void in_child(void)
{
	for (unsigned level = 0; level < LEVELS; level++) {
		struct gm_handle_line *lines = line_of(level, 0);

		for (size_t i = 0; lines && i < lines_of(level); i++)
			for (unsigned w = 0; w < GM_HANDLE_WORDS; w++)
				if (atomic_load_explicit(&lines[i].word[w], memory_order_relaxed))
					atomic_store_explicit(&lines[i].word[w], 0, memory_order_relaxed);
	}
}

static void install(void)
{
	once_error = pthread_atfork(NULL, NULL, in_child);
}

gm_ret_t gm_handle_add(const void *object, enum gm_handle_kind kind)
{
	uintptr_t entry = (uintptr_t)object | kind;

	assert(object && (uintptr_t)object % GM_HANDLE_ALIGN == 0);
	pthread_once(&once, install);
	if (once_error)
		return GM_RET_NOMEM;
	for (unsigned level = 0; level < LEVELS; level++) {
		if (!line_of(level, entry) && !add_level(level))
			return GM_RET_NOMEM;
		if (add_to(line_of(level, entry), entry))
			return GM_RET_SUCCESS;
	}
	return GM_RET_NOMEM;
}

void gm_handle_del(const void *object, enum gm_handle_kind kind)
{
	_Atomic uintptr_t *word = find((uintptr_t)object | kind);

	if (word) /* not where it was made before a fork */
		atomic_store_explicit(word, 0, memory_order_release);
}

bool gm_handle_find(uintptr_t entry)
{
	return find(entry);
}

gm_ret_t gm_handle_refuse(const char *function, const char *argument, const void *object, enum gm_handle_kind kind)
{
	static const char *const name[GM_HANDLE_KINDS] = {
		[GM_HANDLE_LIB] = "an instance",	 [GM_HANDLE_DEV] = "a device",
		[GM_HANDLE_AS] = "an address space",	 [GM_HANDLE_CTX] = "a context",
		[GM_HANDLE_WS] = "a working set",	 [GM_HANDLE_FENCE] = "a fence",
		[GM_HANDLE_MOCK] = "a mock",		 [GM_HANDLE_MOCK_THREAD] = "a thread of a running kernel",
		[GM_HANDLE_MOCK_HW] = "mock hardware",	 [GM_HANDLE_SHIM] = "a device of the validation shim",
		[GM_HANDLE_SHIM_PMAP] = "a page table of the validation shim",
	};

	if (!object)
		return gm_fail(GM_RET_INVAL, "%s: %s must not be NULL, but %s", function, argument, name[kind]);
	for (unsigned other = 1; other < GM_HANDLE_KINDS; other++)
		if (gm_handle_live(object, (enum gm_handle_kind)other))
			return gm_fail(GM_RET_INVAL, "%s: %s is %s: pass %s", function, argument, name[other], name[kind]);
	return gm_fail(GM_RET_INVAL, "%s: %s %p is not %s that lives: it is over already, was made before a fork(), "
		       "or by another copy of the library; use it only between its making and its end", function, argument,
		       object, name[kind]);
}

gm_ret_t gm_refuse(const char *function, const char *why)
{
	return gm_fail(GM_RET_INVAL, "%s: %s", function, why);
}
