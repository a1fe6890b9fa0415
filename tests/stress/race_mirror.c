/* SPDX-License-Identifier: MIT */
/*
 * Devices that reach all memory of the process, while it goes on as any process does:
 *
 *  - threads of the program allocate and free, map and unmap, move, protect, and write words that they know; after each
 *    step one of two devices loads or stores such a word, and what it sees, or what is there afterwards, is compared;
 *  - other threads take every mapping that /proc/self/maps lists, stacks, arenas, libraries and the memory of libgmem
 *    among them, and have a device read from all over it, or fault for writing. Whether that is allowed is the
 *    library's business; that it ends, and breaks nothing, is what is tested.
 *
 * --rounds N: so many steps of each thread of the program.
 */
#include "tests/stress/race.h"

#define OWNERS	3u
#define READERS 2u
#define SLOTS	6u
#define WORDS	8u
#define BATCH	16u

enum kind { NOTHING, HEAP, ANON, SHARED };

/* Memory of one owner; word i of `word` is at `at + i * step`. */
struct slot {
	enum kind kind;
	char *at;
	uint64_t bytes, step, word[WORDS];
};

struct owner {
	struct race_beat *beat;
	unsigned id;
	uint64_t seed, steps, moved;
	struct slot slot[SLOTS];
};

struct reader {
	struct race_beat *beat;
	unsigned id;
	uint64_t seed, faults, refused, loads;
};

/* Under a sanitizer malloc() is not one whose arenas are known, and nothing is adopted on demand. */
static bool race_sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
	return true;
#else
	return false;
#endif
#else
	return false;
#endif
}

static struct race race;
static struct owner owner[OWNERS];
static struct reader reader[READERS];
static pthread_t thread[OWNERS + READERS];

/* ------------------------------------------------------------ the device */

struct job {
	unsigned n;
	bool write;
	uint64_t va[BATCH], value[BATCH];
};

static gm_ret_t kernel(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct job *job = arg;
	gm_ret_t ret = GM_RET_SUCCESS;

	(void)index;
	for (unsigned i = 0; i < job->n && !ret; i++)
		ret = job->write ? gm_mock_store(t, job->va[i], &job->value[i], 8) :
				   gm_mock_load(t, job->va[i], &job->value[i], 8);
	return ret;
}

static gm_ret_t run(unsigned dev, struct job *job)
{
	struct gm_fence *fence;
	gm_ret_t ret = gm_mock_launch(race.ctx[dev % RACE_DEVS], kernel, job, 1, &fence);

	if (ret)
		return ret;
	ret = gm_fence_wait(fence, GM_FOREVER_NS);
	gm_fence_put(fence);
	return ret;
}

/* ------------------------------------------------------------- the program */

static volatile uint64_t *word_of(const struct slot *s, unsigned i)
{
	return (volatile uint64_t *)(void *)(s->at + i * s->step);
}

static void fill(struct owner *o, struct slot *s)
{
	s->step = s->bytes / WORDS & ~UINT64_C(7);
	for (unsigned i = 0; i < WORDS; i++)
		*word_of(s, i) = s->word[i] = race_rand(&o->seed);
}

static void compare(struct owner *o, const struct slot *s, const char *after)
{
	for (unsigned i = 0; i < WORDS; i++)
		if (*word_of(s, i) != s->word[i])
			race_fail(&race, "owner %u: word %u of %p (kind %u, %" PRIu64 " bytes) is 0x%" PRIx64
				  ", not 0x%" PRIx64 " after %s", o->id, i, (void *)s->at, s->kind, s->bytes,
				  (uint64_t)*word_of(s, i), s->word[i], after);
}

static void get_some(struct owner *o, struct slot *s)
{
	uint64_t dice = race_rand(&o->seed);
	unsigned shift = 10 + (unsigned)(dice >> 8) % 14; /* 1 KiB to 8 MiB, and up to twice that */

	s->bytes = ((UINT64_C(1) << shift) + (dice >> 20) % (UINT64_C(1) << shift)) & ~UINT64_C(7);
	s->kind = (enum kind)(HEAP + dice % 3);
	if (s->kind == HEAP)
		s->at = malloc(s->bytes);
	else
		s->at = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE,
			     (s->kind == ANON ? MAP_PRIVATE : MAP_SHARED) | MAP_ANONYMOUS, -1, 0);
	if (!s->at || s->at == MAP_FAILED)
		race_must(&race, GM_RET_NOMEM, "memory of an owner");
	fill(o, s);
}

static void give_back(struct slot *s)
{
	if (s->kind == HEAP)
		free(s->at);
	else
		munmap(s->at, s->bytes);
	s->kind = NOTHING;
}

static void move(struct owner *o, struct slot *s)
{
	void *to;

	/* Of several blocks some may be watched: several mappings for the kernel, which moves only the first. */
	if (s->kind == HEAP || GM_VA(s->at) / GM_BLOCK_BYTES != (GM_VA(s->at) + s->bytes - 1) / GM_BLOCK_BYTES)
		return;
	/* Elsewhere for certain: to an address that the kernel has just found free. What it refuses stays. */
	to = mmap(NULL, s->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (to == MAP_FAILED)
		return;
	if (mremap(s->at, s->bytes, s->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to)
		s->at = to;
	else
		munmap(to, s->bytes);
	compare(o, s, "mremap");
}

/* Both ways of one word. */
static void by_device(struct owner *o, struct slot *s)
{
	uint64_t dice = race_rand(&o->seed);
	unsigned i = (unsigned)(dice >> 8) % WORDS;
	struct job job = { .n = 1, .write = dice & 1, .va = { GM_VA(s->at + i * s->step) } };
	struct gm_page_info info;
	gm_ret_t ret;

	if (job.write)
		job.value[0] = s->word[i] = race_rand(&o->seed);
	ret = run((unsigned)(dice >> 16), &job);
	if (ret)
		race_fail(&race, "owner %u: device cannot %s %p (kind %u, %" PRIu64 " bytes): %s: %s", o->id,
			  job.write ? "store to" : "load from", (void *)s->at, s->kind, s->bytes, gm_ret_name(ret),
			  gm_last_error());
	else if (job.value[0] != s->word[i])
		race_fail(&race, "owner %u: the device reads 0x%" PRIx64 " at 0x%" PRIx64 ", not 0x%" PRIx64, o->id,
			  job.value[0], job.va[0], s->word[i]);
	RACE_MUST(&race, gm_query(race.as, job.va[0] & ~(RACE_PAGE - 1), 1, &info));
	o->moved += info.place == GM_PLACE_DEVICE;
	compare(o, s, "an access of a device");
}

/* A store to memory that is read-only now is refused, wherever the device had it mapped. */
static void protect(struct owner *o, struct slot *s)
{
	struct job job = { .n = 1, .write = true, .va = { GM_VA(s->at) }, .value = { ~s->word[0] } };
	struct gm_page_info info;

	if (s->kind == HEAP)
		return;
	mprotect(s->at, s->bytes, PROT_READ);
	RACE_MUST(&race, gm_query(race.as, GM_VA(s->at), 1, &info));
	/* What has moved keeps the right that it was mapped with until it comes home: see the design, limits. */
	if (info.place == GM_PLACE_OUTSIDE && !run((unsigned)o->seed, &job))
		race_fail(&race, "owner %u: a device stored to read-only memory at %p", o->id, (void *)s->at);
	compare(o, s, "mprotect");
	mprotect(s->at, s->bytes, PROT_READ | PROT_WRITE);
}

static void step(struct owner *o)
{
	uint64_t dice = race_rand(&o->seed);
	struct slot *s = &o->slot[dice % SLOTS];

	if (s->kind == NOTHING)
		get_some(o, s);
	switch ((dice >> 8) % 8) {
	case 0:
		compare(o, s, "nothing");
		give_back(s);
		break;
	case 1:
		move(o, s);
		break;
	case 2:
		protect(o, s);
		break;
	case 3:
		fill(o, s);
		break;
	default:
		by_device(o, s);
	}
	o->steps++;
}

static void *owner_main(void *arg)
{
	struct owner *o = arg;

	for (uint64_t n = 0; n < race.opt.rounds && !atomic_load(&race.stop); n++) {
		step(o);
		race_tick(o->beat);
	}
	atomic_store(&o->beat->idle, true);
	for (unsigned i = 0; i < SLOTS; i++)
		if (o->slot[i].kind != NOTHING)
			give_back(&o->slot[i]);
	return NULL;
}

/* --------------------------------------------------------------- all of it */

/* Some pages of one mapping; those that a fault maps are loaded from, all at once. */
static void look_into(struct reader *r, uint64_t begin, uint64_t end)
{
	struct job job = { .n = 0 };

	for (unsigned i = 0; i < BATCH / 2 && !atomic_load(&race.stop); i++) {
		uint64_t dice = race_rand(&r->seed), va = begin + (dice >> 8) % ((end - begin) / RACE_PAGE) * RACE_PAGE;
		gm_ret_t ret = gm_dev_fault(race.ctx[r->id % RACE_DEVS], va, dice % 4 ? GM_READ : GM_WRITE);

		r->faults++;
		r->refused += ret != GM_RET_SUCCESS;
		if (ret && ret != GM_RET_FAULT && ret != GM_RET_PERM && ret != GM_RET_NOSPC && ret != GM_RET_BUSY)
			race_fail(&race, "fault at 0x%" PRIx64 ": %s: %s", va, gm_ret_name(ret), gm_last_error());
		if (!ret)
			job.va[job.n++] = va + dice % 512 * 8;
		race_tick(r->beat);
	}
	/* It may be gone by now. */
	if (job.n && !run(r->id, &job))
		r->loads += job.n;
}

static void *reader_main(void *arg)
{
	struct reader *r = arg;
	char line[512];

	while (!atomic_load(&race.stop)) {
		FILE *maps = fopen("/proc/self/maps", "r");

		while (maps && !atomic_load(&race.stop) && fgets(line, sizeof(line), maps)) {
			uint64_t begin, end;

			if (sscanf(line, "%" SCNx64 "-%" SCNx64, &begin, &end) == 2 && end <= UINT64_C(1) << 47)
				look_into(r, begin, end);
		}
		if (maps)
			fclose(maps);
		race_tick(r->beat);
	}
	atomic_store(&r->beat->idle, true);
	return NULL;
}

static void start(void)
{
	for (unsigned i = 0; i < OWNERS; i++) {
		owner[i].beat = race_beat(&race, "owner");
		owner[i].id = i;
		owner[i].seed = race.opt.seed * 31 + i + 1;
		race_start(&race, &thread[i], owner_main, &owner[i]);
	}
	for (unsigned i = 0; i < READERS; i++) {
		reader[i].beat = race_beat(&race, "reader");
		reader[i].id = i;
		reader[i].seed = race.opt.seed * 17 + i + 1;
		race_start(&race, &thread[OWNERS + i], reader_main, &reader[i]);
	}
}

static void finish(void)
{
	uint64_t steps = 0, moved = 0, faults = 0, refused = 0, loads = 0;

	for (unsigned i = 0; i < OWNERS; i++)
		pthread_join(thread[i], NULL);
	atomic_store(&race.stop, true);
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(thread[OWNERS + i], NULL);
	for (unsigned i = 0; i < OWNERS; i++) {
		steps += owner[i].steps;
		moved += owner[i].moved;
	}
	for (unsigned i = 0; i < READERS; i++) {
		faults += reader[i].faults;
		refused += reader[i].refused;
		loads += reader[i].loads;
	}
	printf("%s: %" PRIu64 " steps, %" PRIu64 " accesses of memory on a device; %" PRIu64 " faults all over, "
	       "%" PRIu64 " refused, %" PRIu64 " loads\n", race.program, steps, moved, faults, refused, loads);
	if (!race_sanitized() && !moved)
		race_fail(&race, "nothing has moved: the run proves nothing");
	if (!loads || !refused)
		race_fail(&race, "nothing was read, or nothing refused: the run proves nothing");
}

int main(int argc, char **argv)
{
	race_begin(&race, "race_mirror", argc, argv);
	race_open(&race, GM_AS_MIRROR);
	start();
	finish();
	race_check(&race);
	race_close(&race);
	return race_end(&race);
}
