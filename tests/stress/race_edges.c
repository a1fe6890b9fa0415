/* SPDX-License-Identifier: MIT */
/*
 * Device faults on pages that stay on the host (core/gm_fault_edge.c: no reference of the block) while the block they
 * are in comes and goes:
 *
 *  - threads of two devices fault on random pages, for reading and for writing. Each page is a partial one of an
 *    adopted buffer, so it is mapped in place; where it is not adopted at that moment, the fault says so;
 *  - another thread releases all buffers of a block, which takes the mappings away and lets the block go, and adopts
 *    them again, --rounds times.
 *
 * At the end what was served is what was counted, and after the last release no device has a mapping left: the mock's
 * page tables are empty when contexts end, or it says so.
 */
#include "tests/stress/race.h"

#define BLOCKS	    4u
#define PER_BLOCK   32u
#define PAGES	    (BLOCKS * PER_BLOCK)
#define BLOCK_BYTES (UINT64_C(2) << 20)
#define FAULTERS    4u
#define PART	    256u /* bytes of each page that are adopted */

static struct edges {
	struct race r;
	uint64_t va;
	pthread_t thread[FAULTERS];
	struct player {
		struct race_beat *beat;
		unsigned id;
		uint64_t served, refused;
	} player[FAULTERS];
} e;

static void *part_of(unsigned page)
{
	return (void *)(uintptr_t)(e.va + page / PER_BLOCK * BLOCK_BYTES + page % PER_BLOCK * RACE_PAGE + 128);
}

static void *faulter(void *arg)
{
	struct player *p = arg;
	uint64_t seed = e.r.opt.seed * FAULTERS + p->id + 1;

	while (!atomic_load(&e.r.stop)) {
		uint64_t dice = race_rand(&seed);
		uint32_t access = dice & 1 ? GM_WRITE : GM_READ;
		gm_ret_t ret = gm_dev_fault(e.r.ctx[p->id % RACE_DEVS], GM_VA(part_of((unsigned)(dice >> 8) % PAGES)), access);

		p->served += !ret;
		p->refused += ret == GM_RET_FAULT;
		if (ret && ret != GM_RET_FAULT)
			race_must(&e.r, ret, "gm_dev_fault");
		race_tick(p->beat);
	}
	return NULL;
}

static void set_up(void)
{
	void *map = mmap(NULL, (BLOCKS + 1) * BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		race_must(&e.r, GM_RET_NOMEM, "mmap");
	e.va = (GM_VA(map) + BLOCK_BYTES - 1) & ~(BLOCK_BYTES - 1);
	race_open(&e.r, 0);
	for (unsigned page = 0; page < PAGES; page++)
		RACE_MUST(&e.r, gm_adopt(e.r.as, part_of(page), PART, 0));
}

/* All buffers of a block go, and come back. */
static void change(unsigned block)
{
	for (unsigned i = 0; i < PER_BLOCK; i++)
		RACE_MUST(&e.r, gm_release(e.r.as, part_of(block * PER_BLOCK + i), PART));
	if (block & 1)
		(void)sched_yield();
	for (unsigned i = 0; i < PER_BLOCK; i++)
		RACE_MUST(&e.r, gm_adopt(e.r.as, part_of(block * PER_BLOCK + i), PART, 0));
}

static void verify(void)
{
	struct gm_stats s;
	uint64_t served = 0, refused = 0;

	for (unsigned i = 0; i < FAULTERS; i++) {
		served += e.player[i].served;
		refused += e.player[i].refused;
	}
	RACE_MUST(&e.r, gm_as_stats(e.r.as, &s));
	printf("%s: %" PRIu64 " served, %" PRIu64 " mapped, %" PRIu64 " refused\n", e.r.program, served, s.pages_in_place,
	       refused);
	if (served != s.dev_faults + s.dev_faults_spurious)
		race_fail(&e.r, "%" PRIu64 " faults were served, %" PRIu64 " counted", served,
			  s.dev_faults + s.dev_faults_spurious);
	if (!s.pages_in_place || !refused)
		race_fail(&e.r, "nothing was mapped, or nothing was away: the run proves nothing");
}

int main(int argc, char **argv)
{
	struct race_beat *beat;
	uint64_t seed;

	race_begin(&e.r, "race_edges", argc, argv);
	set_up();
	seed = e.r.opt.seed;
	beat = race_beat(&e.r, "changer");
	for (unsigned i = 0; i < FAULTERS; i++) {
		e.player[i] = (struct player){ .beat = race_beat(&e.r, "faulter"), .id = i };
		race_start(&e.r, &e.thread[i], faulter, &e.player[i]);
	}
	for (uint64_t n = 0; n < e.r.opt.rounds; n++) {
		change((unsigned)(race_rand(&seed) % BLOCKS));
		race_tick(beat);
	}
	atomic_store(&beat->idle, true);
	atomic_store(&e.r.stop, true);
	for (unsigned i = 0; i < FAULTERS; i++) {
		atomic_store(&e.player[i].beat->idle, true);
		pthread_join(e.thread[i], NULL);
	}
	verify();
	for (unsigned page = 0; page < PAGES; page++)
		RACE_MUST(&e.r, gm_release(e.r.as, part_of(page), PART));
	race_close(&e.r);
	return race_end(&e.r);
}
