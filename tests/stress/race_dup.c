/* SPDX-License-Identifier: MIT */
/*
 * Pages that the process and two devices read at once, while they are stored to:
 *
 *  - writers of the CPU, one by plain stores, one through the kernel (read(2) into the page), each with a word of its
 *    own in every page: it is what the writer wrote last, and one more is written;
 *  - kernels of both devices look at these words: never less than what was written when the look began (the store was
 *    done), nor less than the last time; in some pages one adds to a third word, which takes the page to its device;
 *  - others duplicate the pages again and again, for one device or the other, take them home, to a device, and exclusively;
 *  - now and then the process forks; the child looks, and writes what the parent must not see.
 *
 * Ends when 20 * --rounds pages were duplicated when they were stored to. 0 stores lost, 0 old words seen.
 */
#include "tests/stress/race.h"

#include <sys/wait.h>

#define PAGES	32u
#define WRITERS 2u
#define HEADER	8u /* words before the writers' */

static struct dup {
	struct race r;
	uint64_t va, done_target;
	pthread_t writer[WRITERS], maker[2], forker;
	struct gm_fence *fence[RACE_DEVS];
	int pipe[2];
	_Atomic uint64_t done[WRITERS][PAGES]; /* the value whose store has returned */
	_Atomic uint64_t added[PAGES];         /* by devices */
	_Atomic uint64_t looks, stores, forks;
} d;

static uint64_t word_va(unsigned page, unsigned writer)
{
	return d.va + page * RACE_PAGE + 8 * (HEADER + writer * UINT64_C(100));
}

static uint64_t sum_va(unsigned page)
{
	return d.va + page * RACE_PAGE + 8 * UINT64_C(400);
}

/* -------------------------------------------------------------- the CPU */

static void store_through_kernel(uint64_t va, uint64_t value)
{
	if (write(d.pipe[1], &value, 8) != 8 || read(d.pipe[0], (void *)(uintptr_t)va, 8) != 8)
		race_fail(&d.r, "read(2) into 0x%" PRIx64 " failed", va);
}

static void *writer(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg;
	struct race_beat *beat = race_beat(&d.r, id ? "kernel writer" : "writer");
	uint64_t seed = d.r.opt.seed * 77 + id + 1;

	while (!atomic_load(&d.r.stop)) {
		unsigned page = (unsigned)(race_rand(&seed) % PAGES);
		uint64_t va = word_va(page, id), last = atomic_load(&d.done[id][page]), seen = *race_word(va);

		if (seen != last)
			race_fail(&d.r, "writer %u, page %u: sees %" PRIu64 ", wrote %" PRIu64, id, page, seen, last);
		if (id)
			store_through_kernel(va, last + 1);
		else
			*race_word(va) = last + 1;
		atomic_store(&d.done[id][page], last + 1);
		atomic_fetch_add_explicit(&d.stores, 1, memory_order_relaxed);
		race_tick(beat);
		if (race_rand(&seed) % 4 == 0)
			race_sleep_ns(race_rand(&seed) % 200000);
	}
	atomic_store(&beat->idle, true);
	return NULL;
}

static void *forker(void *arg)
{
	uint64_t seed = d.r.opt.seed * 13 + 5;

	(void)arg;
	while (!atomic_load(&d.r.stop)) {
		unsigned page = (unsigned)(race_rand(&seed) % PAGES);
		uint64_t before = atomic_load(&d.done[0][page]);
		int status = -1;
		pid_t pid = fork();

		if (!pid) {
			uint64_t seen = *race_word(word_va(page, 0));

			*race_word(word_va(page, 0)) = UINT64_MAX; /* its own page from here on */
			_exit(seen < before || *race_word(word_va(page, 0)) != UINT64_MAX);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
			race_fail(&d.r, "fork: the child does not see page %u as it was (status 0x%x)", page, (unsigned)status);
		atomic_fetch_add(&d.forks, 1);
		race_sleep_ns(20000000);
	}
	return NULL;
}

/* ---------------------------------------------------------- the devices */

static gm_ret_t look(struct gm_mock_thread *t, unsigned page, uint64_t *last)
{
	for (unsigned id = 0; id < WRITERS; id++) {
		uint64_t done = atomic_load(&d.done[id][page]), seen = 0;
		gm_ret_t ret = gm_mock_load(t, word_va(page, id), &seen, 8);

		if (ret)
			return ret;
		if (seen < done || seen < last[id * PAGES + page])
			race_fail(&d.r, "device, page %u: sees %" PRIu64 " of writer %u, after %" PRIu64 " and %" PRIu64, page,
				  seen, id, done, last[id * PAGES + page]);
		last[id * PAGES + page] = seen;
	}
	atomic_fetch_add_explicit(&d.looks, 1, memory_order_relaxed);
	return GM_RET_SUCCESS;
}

static gm_ret_t kernel(struct gm_mock_thread *t, unsigned index, void *arg)
{
	unsigned dev = (unsigned)(uintptr_t)arg;
	struct race_beat *beat = race_beat(&d.r, "device");
	uint64_t seed = d.r.opt.seed * 991 + dev + 1, last[WRITERS * PAGES] = { 0 };
	gm_ret_t ret = GM_RET_SUCCESS;

	(void)index;
	while (!atomic_load(&d.r.stop) && !ret) {
		unsigned page = (unsigned)(race_rand(&seed) % PAGES);

		ret = look(t, page, last);
		if (!ret && page % 8 == 7 && race_rand(&seed) % 16 == 0) {
			ret = gm_mock_fetch_add(t, sum_va(page), 1, NULL);
			atomic_fetch_add(&d.added[page], !ret);
		}
		race_tick(beat);
		gm_mock_yield(t);
	}
	if (ret)
		race_fail(&d.r, "device %u: %s", dev, gm_ret_name(ret));
	atomic_store(&beat->idle, true);
	return ret;
}

/* ------------------------------------------------------ who asks for it */

static uint64_t ended(void)
{
	struct gm_stats s = { .cpu_faults = 0 };

	(void)gm_as_stats(d.r.as, &s);
	return s.dups_ended;
}

static void *maker(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg;
	struct race_beat *beat = race_beat(&d.r, "maker");
	uint64_t seed = d.r.opt.seed * 5 + id + 1;

	while (!atomic_load(&d.r.stop)) {
		uint64_t dice = race_rand(&seed), first = dice % PAGES, n = (dice >> 8) % (PAGES - first) + 1, bytes;
		uint64_t va = d.va + first * RACE_PAGE, len = n * RACE_PAGE;
		struct gm_dev *dev = d.r.dev[dice >> 20 & 1];
		gm_ret_t ret;

		if ((dice >> 24) % 16 == 0)
			ret = gm_migrate(d.r.as, va, len, dice >> 32 & 1 ? dev : NULL, NULL);
		else if ((dice >> 24) % 16 == 1)
			ret = gm_exclusive(d.r.ctx[dice >> 20 & 1], va, len, &bytes);
		else
			ret = gm_duplicate(d.r.as, va, len, dev, &bytes);
		if (ret && ret != GM_RET_BUSY && ret != GM_RET_TIMEDOUT)
			race_fail(&d.r, "maker: %s: %s", gm_ret_name(ret), gm_last_error());
		race_tick(beat);
		if (!id && ended() >= d.done_target)
			atomic_store(&d.r.stop, true);
		race_sleep_ns(100000);
	}
	atomic_store(&beat->idle, true);
	return NULL;
}

/* ------------------------------------------------------------------ run */

/* All of a block that is one huge page: as small ones it has the same bytes, for both, and it can be one again. */
static void duplicate_huge(void)
{
	uint64_t bytes = 0;

	(void)madvise((void *)(uintptr_t)d.va, GM_BLOCK_BYTES, MADV_HUGEPAGE); /* where the kernel has them */
	for (uint64_t at = d.va; at < d.va + GM_BLOCK_BYTES; at += RACE_PAGE)
		*race_word(at + 16) = at;
	RACE_MUST(&d.r, gm_duplicate(d.r.as, d.va, GM_BLOCK_BYTES, d.r.dev[0], &bytes));
	for (uint64_t at = d.va; at < d.va + GM_BLOCK_BYTES; at += RACE_PAGE)
		if (*race_word(at + 16) != at)
			race_fail(&d.r, "0x%" PRIx64 " has %" PRIx64 " after it was duplicated", at, *race_word(at + 16));
	RACE_MUST(&d.r, gm_migrate(d.r.as, d.va, GM_BLOCK_BYTES, d.r.dev[0], &bytes));
	for (uint64_t at = d.va; at < d.va + GM_BLOCK_BYTES; at += RACE_PAGE)
		if (*race_word(at + 16) != at)
			race_fail(&d.r, "0x%" PRIx64 " has %" PRIx64 " after it came home", at, *race_word(at + 16));
	RACE_MUST(&d.r, gm_migrate(d.r.as, d.va, GM_BLOCK_BYTES, NULL, &bytes)); /* the last fault is served to its end */
}

/* Where the bytes are, before anything races: at home, and in the device's memory. */
static void look_once(void)
{
	struct gm_page_info info[PAGES];
	struct gm_dev_info before, after;
	unsigned char here[PAGES];
	uint64_t bytes = 0;

	RACE_MUST(&d.r, gm_dev_query(d.r.dev[0], &before));
	RACE_MUST(&d.r, gm_duplicate(d.r.as, d.va, PAGES * RACE_PAGE, d.r.dev[0], &bytes));
	RACE_MUST(&d.r, gm_query(d.r.as, d.va, PAGES, info));
	RACE_MUST(&d.r, gm_dev_query(d.r.dev[0], &after));
	if (mincore((void *)(uintptr_t)d.va, PAGES * RACE_PAGE, here))
		race_fail(&d.r, "mincore");
	for (unsigned i = 0; i < PAGES; i++)
		if (info[i].place != GM_PLACE_HOST || !(info[i].flags & GM_PAGE_DUPLICATED) || info[i].mapped_read != 1 ||
		    info[i].mapped_write || !(here[i] & 1))
			race_fail(&d.r, "page %u is not duplicated: place %d, flags 0x%x", i, (int)info[i].place, info[i].flags);
	if (bytes != PAGES * RACE_PAGE || before.mem_free_bytes - after.mem_free_bytes != PAGES * RACE_PAGE)
		race_fail(&d.r, "the device has %" PRIu64 " bytes more", before.mem_free_bytes - after.mem_free_bytes);
	*race_word(d.va) = 1;
	RACE_MUST(&d.r, gm_query(d.r.as, d.va, PAGES, info));
	if (info[0].flags & GM_PAGE_DUPLICATED || info[0].mapped_read)
		race_fail(&d.r, "a store did not end it");
}

static void verify(void)
{
	uint64_t lost = 0;

	for (unsigned page = 0; page < PAGES; page++) {
		for (unsigned id = 0; id < WRITERS; id++)
			lost += atomic_load(&d.done[id][page]) != *race_word(word_va(page, id));
		lost += atomic_load(&d.added[page]) != *race_word(sum_va(page));
	}
	if (lost)
		race_fail(&d.r, "%" PRIu64 " words are wrong", lost);
	printf("%s: %" PRIu64 " stores, %" PRIu64 " looks of devices, %" PRIu64 " forks; %" PRIu64
	       " pages were duplicated when stored to; %" PRIu64 " words are wrong\n", d.r.program, atomic_load(&d.stores),
	       atomic_load(&d.looks), atomic_load(&d.forks), ended(), lost);
	if (ended() < d.done_target)
		race_fail(&d.r, "too little was duplicated: the run proves nothing");
	race_check(&d.r);
}

static void run(uint32_t flags)
{
	race_open(&d.r, flags);
	d.va = race_place(&d.r, GM_BLOCK_BYTES);
	RACE_MUST(&d.r, gm_adopt(d.r.as, (void *)(uintptr_t)d.va, GM_BLOCK_BYTES, 0));
	memset(d.done, 0, sizeof(d.done));
	memset(d.added, 0, sizeof(d.added));
	duplicate_huge();
	look_once();
	for (unsigned i = 0; i < WRITERS; i++)
		race_start(&d.r, &d.writer[i], writer, (void *)(uintptr_t)i);
	for (unsigned i = 0; i < 2; i++)
		race_start(&d.r, &d.maker[i], maker, (void *)(uintptr_t)i);
	race_start(&d.r, &d.forker, forker, NULL);
	for (unsigned i = 0; i < RACE_DEVS; i++)
		RACE_MUST(&d.r, gm_mock_launch(d.r.ctx[i], kernel, (void *)(uintptr_t)i, 1, &d.fence[i]));
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(d.writer[i], NULL);
		pthread_join(d.maker[i], NULL);
	}
	pthread_join(d.forker, NULL);
	for (unsigned i = 0; i < RACE_DEVS; i++) {
		(void)gm_fence_wait(d.fence[i], 60 * RACE_SEC);
		gm_fence_put(d.fence[i]);
	}
	verify();
	RACE_MUST(&d.r, gm_release(d.r.as, (void *)(uintptr_t)d.va, GM_BLOCK_BYTES));
	munmap((void *)(uintptr_t)d.va, GM_BLOCK_BYTES);
	race_close(&d.r);
}

int main(int argc, char **argv)
{
	race_begin(&d.r, "race_dup", argc, argv);
	d.done_target = 20 * d.r.opt.rounds;
	if (pipe(d.pipe))
		race_must(&d.r, GM_RET_NOMEM, "pipe");
	run(0);
	if (!atomic_load(&d.r.failures))
		run(GM_AS_EXCLUSIVE);
	return race_end(&d.r);
}
