/* SPDX-License-Identifier: MIT */
/*
 * Memory whose faults are served in the threads that fault, against migration and against what the process does
 * to it, until --migrations moves were counted and --rounds rounds of it were done, in an inclusive and in an exclusive space.
 *
 *   players   CPU threads and threads of two devices, each with a word of its own in every page of a range that is half
 *             such memory, half not, in the same block: loads it, compares with what it wrote last, stores plus one
 *   movers    pieces of it go to either device and home; the devices have less memory than it needs
 *   one thread, on memory of its own: writes, lets a device add, and then drops a piece of it (madvise), moves it
 *             elsewhere (mremap), off the boundary of a block too, or maps it anew, as such memory or as other; or has the
 *             kernel read it, after gm_prefault(). What CPU and device see is known each time.
 *
 * A word that is not what its owner wrote, or a signal that is not served, is a failure; so is malloc() in the signal
 * handler: this program has its own (but with a sanitizer, which has one), which counts.
 */
#include "tests/stress/race_hand.h"

#include <errno.h>

#define PAGES	 (GM_BLOCK_PAGES + 128u)
#define BYTES	 (PAGES * RACE_PAGE)
#define PLAYERS	 16u
#define OWN	 64u /* pages of the one thread's memory */
#define OWN_ROOM (2 * (uint64_t)GM_BLOCK_BYTES)

static struct inthread {
	struct race r;
	uint64_t va;
	struct player {
		struct race_beat *beat;
		uint64_t seed, ops;
		unsigned id, dev;
		uint64_t wrote[PAGES];
	} player[PLAYERS];
	unsigned players;
	pthread_t cpu[8];
	struct gm_fence *kernel[RACE_DEVS];
	uint64_t room, own, seed; /* of the one thread: where its memory may be, is */
	uint64_t drops, moves, renewals, reads;
	_Atomic uint64_t served;
} t;

/* ------------------------------------------------------- malloc() in handlers */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define COUNTS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define COUNTS 0
#endif
#endif
#ifndef COUNTS
#define COUNTS 1
#endif

static _Thread_local volatile bool in_handler; /* as compilers know malloc() to read nothing */
static atomic_uint mallocs;

#if COUNTS
#define INSTEAD __attribute__((visibility("default"))) /* of the C library's, there too */

void *gm_libc_malloc(size_t bytes) __asm__("__libc_malloc");
void *gm_libc_calloc(size_t n, size_t bytes) __asm__("__libc_calloc");
void *gm_libc_realloc(void *old, size_t bytes) __asm__("__libc_realloc");
void gm_libc_free(void *old) __asm__("__libc_free");

static void count_malloc(void)
{
	if (in_handler)
		atomic_fetch_add(&mallocs, 1);
}

INSTEAD void *malloc(size_t bytes)
{
	count_malloc();
	return gm_libc_malloc(bytes);
}

INSTEAD void *calloc(size_t n, size_t bytes)
{
	count_malloc();
	return gm_libc_calloc(n, bytes);
}

INSTEAD void *realloc(void *old, size_t bytes)
{
	count_malloc();
	return gm_libc_realloc(old, bytes);
}

INSTEAD void free(void *old)
{
	count_malloc();
	gm_libc_free(old);
}
#endif

/* They are counted, where they are. */
static void check_counting(void)
{
	char *volatile text;
	unsigned n;

	in_handler = true;
	text = strdup("seen");
	free(text);
	in_handler = false;
	n = atomic_exchange(&mallocs, 0);
	if (n != 2 * COUNTS)
		race_fail(&t.r, "malloc() is not counted: %u", n);
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	in_handler = true;
	if (!t.r.as || gm_inthread_serve(t.r.as, GM_VA(info->si_addr)))
		race_on_sigbus(sig, info, context);
	in_handler = false;
	atomic_fetch_add_explicit(&t.served, 1, memory_order_relaxed);
}

/* -------------------------------------------------------------- players */

static uint64_t word_of(const struct player *p, unsigned page)
{
	return t.va + page * RACE_PAGE + p->id * UINT64_C(15) * 8;
}

static bool check(const struct player *p, unsigned page, uint64_t seen)
{
	if (seen == p->wrote[page])
		return true;
	race_fail(&t.r, "player %u, page %u: sees %" PRIu64 ", wrote %" PRIu64, p->id, page, seen, p->wrote[page]);
	return false;
}

static void *cpu_player(void *arg)
{
	struct player *p = arg;

	race_pin_self(&t.r);
	while (!atomic_load(&t.r.stop)) {
		unsigned page = (unsigned)(race_rand(&p->seed) % PAGES);
		volatile uint64_t *word = race_word(word_of(p, page));

		for (uint64_t n = race_rand(&p->seed) % 8 + 1; n && check(p, page, *word); n--, p->ops++)
			*word = ++p->wrote[page];
		race_tick(p->beat);
	}
	atomic_store(&p->beat->idle, true);
	return NULL;
}

static gm_ret_t dev_player(struct gm_mock_thread *mt, unsigned index, void *arg)
{
	struct player *p = (struct player *)arg + index;
	gm_ret_t ret = GM_RET_SUCCESS;

	while (!atomic_load(&t.r.stop) && !ret) {
		unsigned page = (unsigned)(race_rand(&p->seed) % PAGES);
		uint64_t seen = 0, next;

		ret = gm_mock_load(mt, word_of(p, page), &seen, 8);
		if (ret || !check(p, page, seen))
			break;
		next = seen + 1;
		ret = gm_mock_store(mt, word_of(p, page), &next, 8);
		p->wrote[page] += !ret;
		p->ops++;
		race_tick(p->beat);
		gm_mock_yield(mt);
	}
	if (ret)
		race_fail(&t.r, "device player %u: %s", p->id, gm_ret_name(ret));
	atomic_store(&p->beat->idle, true);
	return ret;
}

static struct player *add_player(const char *name, unsigned dev)
{
	struct player *p = &t.player[t.players];

	memset(p, 0, sizeof(*p));
	p->beat = race_beat(&t.r, name);
	p->id = t.players++;
	p->dev = dev;
	p->seed = t.r.opt.seed * 104729 + p->id + 1;
	return p;
}

static void start_players(void)
{
	t.players = 0;
	for (unsigned i = 0; i < t.r.opt.cpus; i++)
		race_start(&t.r, &t.cpu[i], cpu_player, add_player("CPU", 0));
	for (unsigned d = 0; d < RACE_DEVS; d++) {
		struct player *first = add_player("device", d);

		for (unsigned i = 1; i < t.r.opt.kernels && t.players < PLAYERS; i++)
			(void)add_player("device", d);
		RACE_MUST(&t.r, gm_mock_launch(t.r.ctx[d], dev_player, first, (unsigned)(&t.player[t.players] - first), &t.kernel[d]));
	}
}

static void stop_players(void)
{
	for (unsigned i = 0; i < t.r.opt.cpus; i++)
		pthread_join(t.cpu[i], NULL);
	for (unsigned d = 0; d < RACE_DEVS; d++) {
		RACE_MUST(&t.r, gm_fence_wait(t.kernel[d], 60 * RACE_SEC));
		gm_fence_put(t.kernel[d]);
	}
	for (unsigned i = 0; i < t.players; i++)
		for (unsigned page = 0; page < PAGES; page++)
			(void)check(&t.player[i], page, *race_word(word_of(&t.player[i], page)));
}

/* ------------------------------------------- what the process does to its memory */

static void adopt_own(uint32_t flags)
{
	gm_ret_t ret = gm_adopt(t.r.as, (void *)(uintptr_t)t.own, OWN * RACE_PAGE, flags);

	if (ret == GM_RET_EXIST) { /* it was unmapped while nobody watched */
		RACE_MUST(&t.r, gm_release(t.r.as, (void *)(uintptr_t)t.own, OWN * RACE_PAGE));
		ret = gm_adopt(t.r.as, (void *)(uintptr_t)t.own, OWN * RACE_PAGE, flags);
	}
	race_must(&t.r, ret, "gm_adopt");
}

static void drop_piece(struct race_hand *hand, uint64_t sum)
{
	uint64_t first = race_rand(&t.seed) % OWN, n = race_rand(&t.seed) % (OWN - first) + 1;
	uint64_t va = t.own + first * RACE_PAGE;

	if (madvise((void *)(uintptr_t)va, n * RACE_PAGE, MADV_DONTNEED))
		race_fail(&t.r, "madvise: error %d", errno);
	race_cpu_sees(&t.r, "dropped", va, n * RACE_PAGE, 0);
	race_dev_sees(hand, "dropped", va, n * RACE_PAGE, 0);
	race_cpu_sees(&t.r, "before what was dropped", t.own, first * RACE_PAGE, sum);
	race_dev_sees(hand, "behind what was dropped", va + n * RACE_PAGE, (OWN - first - n) * RACE_PAGE, sum);
	t.drops++;
}

/* Where it was stays reserved. */
static void move_own(struct race_hand *hand, uint64_t sum)
{
	uint64_t block = t.own - t.room < GM_BLOCK_BYTES ? t.room + GM_BLOCK_BYTES : t.room, from = t.own;
	uint64_t to = block + race_rand(&t.seed) % (GM_BLOCK_PAGES - OWN) * RACE_PAGE;
	void *now = mremap((void *)(uintptr_t)from, OWN * RACE_PAGE, OWN * RACE_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			   (void *)(uintptr_t)to);

	if (now == MAP_FAILED ||
	    mmap((void *)(uintptr_t)from, OWN * RACE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
		race_fail(&t.r, "mremap: error %d", errno);
		return;
	}
	t.own = to;
	race_cpu_sees(&t.r, "moved", t.own, OWN * RACE_PAGE, sum);
	if (gm_dev_fault(t.r.ctx[0], t.own, GM_READ)) { /* nobody watched it: it is to be adopted again */
		adopt_own(GM_MEM_INTHREAD);
	}
	race_dev_sees(hand, "moved", t.own, OWN * RACE_PAGE, sum);
	t.moves++;
}

static void renew_own(struct race_hand *hand, uint64_t sum)
{
	uint32_t flags = race_rand(&t.seed) & 1 ? GM_MEM_INTHREAD : 0;

	if (race_rand(&t.seed) & 1)
		RACE_MUST(&t.r, gm_release(t.r.as, (void *)(uintptr_t)t.own, OWN * RACE_PAGE));
	if (mmap((void *)(uintptr_t)t.own, OWN * RACE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) == MAP_FAILED)
		race_fail(&t.r, "mmap: error %d", errno);
	race_cpu_sees(&t.r, "new memory", t.own, OWN * RACE_PAGE, 0);
	adopt_own(flags);
	race_cpu_write(t.own, OWN * RACE_PAGE, sum);
	race_dev_sees(hand, "new memory", t.own, OWN * RACE_PAGE, sum);
	race_dev_add(hand, "new memory", t.own, OWN * RACE_PAGE);
	race_cpu_sees(&t.r, "new memory, added to", t.own, OWN * RACE_PAGE, sum + 1);
	t.renewals++;
}

static void kernel_reads(uint64_t sum)
{
	uint64_t seen[2] = { 0 }, va = t.own + race_rand(&t.seed) % OWN * RACE_PAGE;
	int fd[2];

	if (pipe(fd))
		race_must(&t.r, GM_RET_NOMEM, "pipe");
	RACE_MUST(&t.r, gm_prefault(t.r.as, va, RACE_PAGE));
	if (write(fd[1], (void *)(uintptr_t)va, 8) != 8 || read(fd[0], seen, 8) != 8 || seen[0] != sum)
		race_fail(&t.r, "the kernel sees %" PRIu64 ", not %" PRIu64 ", error %d", seen[0], sum, errno);
	close(fd[0]);
	close(fd[1]);
	t.reads++;
}

static void play_round(struct race_hand *hand, uint64_t round)
{
	uint64_t sum = 2 * round + 1;

	race_cpu_write(t.own, OWN * RACE_PAGE, 2 * round);
	race_dev_add(hand, "own", t.own, OWN * RACE_PAGE);
	switch (race_rand(&t.seed) % 4) {
	case 0:
		drop_piece(hand, sum);
		break;
	case 1:
		move_own(hand, sum);
		break;
	case 2:
		renew_own(hand, sum);
		break;
	default:
		kernel_reads(sum);
		race_cpu_sees(&t.r, "own", t.own, OWN * RACE_PAGE, sum);
		break;
	}
}

static void set_up(uint32_t flags)
{
	gm_ret_t ret;

	t.va = race_place(&t.r, BYTES);
	memset((void *)(uintptr_t)t.va, 0, BYTES);
	t.room = race_place(&t.r, OWN_ROOM);
	t.own = t.room;
	race_open(&t.r, flags);
	t.seed = t.r.opt.seed * 31 + 7;
	t.drops = t.moves = t.renewals = t.reads = 0;
	atomic_store(&t.served, 0);
	ret = gm_adopt(t.r.as, (void *)(uintptr_t)t.va, BYTES / 2, GM_MEM_INTHREAD);
	if (ret == GM_RET_NOTSUP) {
		printf("%s: SKIPPED, NOTHING WAS TESTED: %s\n", t.r.program, gm_last_error());
		exit(RACE_SKIP);
	}
	race_must(&t.r, ret, "gm_adopt");
	RACE_MUST(&t.r, gm_adopt(t.r.as, (void *)(uintptr_t)(t.va + BYTES / 2), BYTES / 2, 0));
	race_add_target(&t.r, t.va, BYTES, false, NULL);
	adopt_own(GM_MEM_INTHREAD);
	start_players();
}

static void tear_down(const char *space)
{
	uint64_t ops = 0;

	for (unsigned i = 0; i < t.players; i++)
		ops += t.player[i].ops;
	printf("%s: %s space, handler %s: %" PRIu64 " migrations, %" PRIu64 " faults served in their threads, %" PRIu64 " counted, %"
	       PRIu64 " drops, %" PRIu64 " moves, %" PRIu64 " renewals, %" PRIu64 " system calls, %u wrong\n", t.r.program, space,
	       t.r.opt.handler, race_migrations(&t.r), atomic_load(&t.served), ops, t.drops, t.moves, t.renewals, t.reads,
	       atomic_load(&t.r.failures));
	if (!atomic_load(&t.served) || !t.drops || !t.moves || !t.renewals || !t.reads)
		race_fail(&t.r, "not everything was done: the run proves nothing");
	if (atomic_load(&mallocs))
		race_fail(&t.r, "%u calls of malloc() and its like in signal handlers", atomic_load(&mallocs));
	race_check(&t.r);
	RACE_MUST(&t.r, gm_release(t.r.as, (void *)(uintptr_t)t.va, BYTES));
	RACE_MUST(&t.r, gm_release(t.r.as, (void *)(uintptr_t)t.own, OWN * RACE_PAGE));
	munmap((void *)(uintptr_t)t.va, BYTES);
	munmap((void *)(uintptr_t)t.room, OWN_ROOM);
	race_close(&t.r);
}

static void run(const char *space, uint32_t flags)
{
	struct race_beat *beat;
	struct race_hand hand;
	pthread_t mover[4] = { 0 };

	set_up(flags);
	beat = race_beat(&t.r, "process");
	race_hand_start(&hand, &t.r, 1);
	race_pin_self(&t.r);
	for (unsigned i = 0; i < t.r.opt.movers; i++)
		race_start(&t.r, &mover[i], race_mover, &t.r);
	for (uint64_t round = 0; !atomic_load(&t.r.stop); round++) {
		play_round(&hand, round);
		race_tick(beat);
		if (round >= t.r.opt.rounds && race_migrations(&t.r) >= t.r.opt.migrations)
			atomic_store(&t.r.stop, true);
	}
	atomic_store(&beat->idle, true);
	for (unsigned i = 0; i < t.r.opt.movers; i++)
		pthread_join(mover[i], NULL);
	race_hand_stop(&hand);
	stop_players();
	tear_down(space);
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_flags = SA_SIGINFO };

	race_begin(&t.r, "race_inthread", argc, argv);
	sa.sa_sigaction = on_sigbus;
	sigfillset(&sa.sa_mask);
	sigaction(SIGBUS, &sa, NULL);
	check_counting();
	if (strcmp(t.r.opt.space, "exclusive"))
		run("inclusive", 0);
	if (strcmp(t.r.opt.space, "inclusive") && !atomic_load(&t.r.failures))
		run("exclusive", GM_AS_EXCLUSIVE);
	return race_end(&t.r);
}
