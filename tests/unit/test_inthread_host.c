/* SPDX-License-Identifier: MIT */
/* Which memory is served in the thread that faults, as the real host knows it: by what is asked for, and by events. */
#include "config.h"

#include "host_fixture.h"

#include "hal/host/gm_host_internal.h"

TestSuite(inthread_host, .timeout = 100);

static struct host h;
static char *at, *to;

static void begin(void)
{
	host_begin(&h);
	at = mmap(NULL, 8 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(at, MAP_FAILED);
	to = at + 4 * BLOCK;
	cr_assert_eq(h.ops->mem_inthread(h.pmap, GM_VA(at), 8 * PAGE, true), GM_RET_SUCCESS);
}

static void end(void)
{
	munmap(at, 8 * BLOCK);
	host_end(&h);
}

static bool has(const char *p)
{
	return h.ops->inthread_has(h.pmap, GM_VA(p), PAGE);
}

static void event(enum gm_host_msg_kind kind, const char *va, uint64_t pages, bool own)
{
	struct gm_host_msg m = { .kind = kind, .va = GM_VA(va), .bytes = pages * PAGE, .to = GM_VA(to) };

	gm_host_inthread_event(h.pmap, &m, own);
}

Test(inthread_host, follows_events)
{
	begin();
	event(GM_HOST_UNMAP, at + 2 * PAGE, 2, true);
	cr_assert(has(at) && has(at + PAGE) && !has(at + 2 * PAGE) && !has(at + 3 * PAGE) && has(at + 4 * PAGE));
	event(GM_HOST_UNMAP, at, 1, false);
	cr_assert(has(at), "what other memory is told of");
	event(GM_HOST_REMOVE, at, 1, true);
	cr_assert(has(at));
	event(GM_HOST_REMAP, at, 6, true);
	cr_assert(has(to + PAGE) && !has(to + 2 * PAGE) && !has(to + 3 * PAGE) && has(to + 5 * PAGE) && !has(to + 6 * PAGE));
	cr_assert(has(at), "it may be mapped still");
	event(GM_HOST_UNMAP, at, 8, true);
	cr_assert(!has(at) && !has(at + 7 * PAGE) && has(to));
	event(GM_HOST_REMAP, at, 6, false);
	cr_assert(!has(to), "other memory came there");
	end();
}

/* The end of what was there before another thread's mremap() comes after it. */
Test(inthread_host, late_unmap)
{
	begin();
	event(GM_HOST_REMAP, at, 8, true);
	event(GM_HOST_UNMAP, to - PAGE, 10, true);
	cr_assert(has(to) && has(to + 7 * PAGE));
	/* It is unmapped indeed. */
	cr_assert_eq(munmap(to, 2 * PAGE), 0);
	event(GM_HOST_UNMAP, to, 2, true);
	cr_assert(!has(to) && !has(to + PAGE) && has(to + 2 * PAGE));
	/* What was under way is over: it is of now. */
	gm_host_inthread_quiet(h.pmap);
	event(GM_HOST_UNMAP, to + 2 * PAGE, 6, true);
	cr_assert(!has(to + 2 * PAGE) && !has(to + 7 * PAGE));
	end();
}

/* Of more moves at once than are remembered the latest are. */
Test(inthread_host, many_moves)
{
	begin();
	for (unsigned i = 0; i < GM_HOST_INTHREAD_MOVED + 5; i++, to += 16 * PAGE)
		event(GM_HOST_REMAP, at, 8, true);
	to -= 16 * PAGE;
	event(GM_HOST_UNMAP, to, 8, true);
	cr_assert(has(to));
	event(GM_HOST_UNMAP, at + 4 * BLOCK, 8, true);
	cr_assert(!has(at + 4 * BLOCK));
	end();
}
