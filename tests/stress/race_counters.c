/* SPDX-License-Identifier: MIT */
/*
 * CPU threads and device kernels count in the same pages while these migrate
 * both ways:
 *
 *  - each participant has a word of its own in every page, which it loads,
 *    compares with what it wrote last, and stores plus one: an old or a foreign
 *    page shows at once, and false sharing is the rule;
 *  - all add to two shared words of every page, which must be the sum at the end;
 *  - the two devices have less memory than the buffers, so that pages are evicted;
 *    threads move random pieces to a device or home besides.
 *
 * With that go, each on memory of its own in the same address space:
 *
 *   dontneed  write, device adds, madvise(MADV_DONTNEED): zero for both from then on
 *   reuse     munmap() or free() without gm_release(), new content at the same
 *             address, adopted again: the device never sees an old byte, and
 *             neighbours in the same 2 MiB block keep theirs
 *   mprotect  read-only for the process means read-only for the device
 *
 * Ends when the library counted --migrations moves and each variant had --rounds
 * rounds, in an inclusive and in an exclusive space each.
 */
#include "tests/stress/race_hand.h"

#include <malloc.h>

#define MIB	  (UINT64_C(1) << 20)
#define PLAYERS	  32u
#define HOT_PAGES 16u

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FREE_UNMAPS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FREE_UNMAPS 0
#endif
#endif
#ifndef FREE_UNMAPS
#define FREE_UNMAPS 1 /* free() of a large block is munmap() */
#endif

struct player {
	struct counters *c;
	struct race_beat *beat;
	unsigned id, dev;
	uint32_t *own, *shared; /* per page: what it wrote last; how often it added */
	uint64_t ops;
};

struct counters {
	struct race r;
	uint64_t *page; /* VAs */
	unsigned pages, players;
	struct player player[PLAYERS];
	pthread_t cpu[8];
	struct gm_fence *kernel[RACE_DEVS];
	void *owned[2], *heap;
	uint64_t placed;
	pthread_rwlock_t gate;
	_Atomic uint64_t dontneeds, reuses, frees, mprotects, late_stores;
};

/* -------------------------------------------------------------- players */

static uint64_t own_va(const struct player *p, unsigned page)
{
	return p->c->page[page] + (p->id * UINT64_C(15) + 2) * 8;
}

static uint64_t shared_va(const struct counters *c, unsigned page, uint32_t which)
{
	return c->page[page] + (which & 1 ? UINT64_C(511) : 256) * 8;
}

static void cpu_count(struct player *p, unsigned page)
{
	volatile uint64_t *own = race_word(own_va(p, page));
	uint64_t seen = *own;

	if (seen != p->own[page])
		race_fail(&p->c->r, "CPU player %u, page 0x%" PRIx64 ": sees %" PRIu64 ", wrote %u", p->id,
			  p->c->page[page], seen, p->own[page]);
	*own = ++p->own[page];
	__atomic_fetch_add(race_word(shared_va(p->c, page, p->shared[page])), 1, __ATOMIC_RELAXED);
	p->shared[page]++;
}

static gm_ret_t dev_count(struct player *p, unsigned page, struct gm_mock_thread *t)
{
	uint64_t seen = 0, next;
	gm_ret_t ret = gm_mock_load(t, own_va(p, page), &seen, 8);

	if (ret)
		return ret;
	if (seen != p->own[page])
		race_fail(&p->c->r, "device player %u, page 0x%" PRIx64 ": sees %" PRIu64 ", wrote %u", p->id,
			  p->c->page[page], seen, p->own[page]);
	next = p->own[page] + 1;
	ret = gm_mock_store(t, own_va(p, page), &next, 8);
	if (ret)
		return ret;
	p->own[page]++;
	ret = gm_mock_fetch_add(t, shared_va(p->c, page, p->shared[page]), 1, NULL);
	if (!ret)
		p->shared[page]++;
	return ret;
}

/* Now and then anywhere, else a few pages that all want. */
static unsigned choose_page(const struct player *p, uint64_t *seed)
{
	uint64_t x = race_rand(seed);

	return (unsigned)(x & 3 ? (x >> 8) % HOT_PAGES * (p->c->pages / HOT_PAGES) : (x >> 8) % p->c->pages);
}

static void *cpu_player(void *arg)
{
	struct player *p = arg;
	struct counters *c = p->c;
	uint64_t seed = c->r.opt.seed * 104729 + p->id + 1;

	race_pin_self(&c->r);
	while (!atomic_load(&c->r.stop)) {
		unsigned page = choose_page(p, &seed);

		for (uint64_t n = race_rand(&seed) % 8 + 1; n > 0; n--, p->ops++)
			cpu_count(p, page);
		race_tick(p->beat);
	}
	atomic_store(&p->beat->idle, true);
	return NULL;
}

static gm_ret_t dev_player(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct player *p = (struct player *)arg + index;
	struct counters *c = p->c;
	uint64_t seed = c->r.opt.seed * 1299709 + p->id + 1;
	gm_ret_t ret = GM_RET_SUCCESS;

	while (!atomic_load(&c->r.stop) && !ret) {
		unsigned page = choose_page(p, &seed);

		for (uint64_t n = race_rand(&seed) % 8 + 1; n > 0 && !ret; n--, p->ops++)
			ret = dev_count(p, page, t);
		race_tick(p->beat);
		gm_mock_yield(t);
	}
	if (ret)
		race_fail(&c->r, "device player %u: %s", p->id, gm_ret_name(ret));
	atomic_store(&p->beat->idle, true);
	return ret;
}

static struct player *add_player(struct counters *c, const char *name, unsigned dev)
{
	struct player *p = &c->player[c->players];

	*p = (struct player){ .c = c, .beat = race_beat(&c->r, name), .id = c->players++, .dev = dev };
	p->own = calloc(c->pages, sizeof(*p->own));
	p->shared = calloc(c->pages, sizeof(*p->shared));
	if (!p->own || !p->shared)
		abort();
	return p;
}

/* ------------------------------------------------------------- dontneed */

struct variant {
	struct counters *c;
	struct race_beat *beat;
	uint64_t seed;
	uint64_t va, bytes;
	void (*play)(struct variant *v, struct race_hand *hand, uint64_t round);
};

/* A piece of it, whole pages. */
static uint64_t choose_piece(struct variant *v, uint64_t max_pages, uint64_t *bytes)
{
	uint64_t pages = v->bytes / RACE_PAGE, first = race_rand(&v->seed) % pages;
	uint64_t n = race_rand(&v->seed) % max_pages + 1;

	*bytes = (first + n > pages ? pages - first : n) * RACE_PAGE;
	return v->va + first * RACE_PAGE;
}

static void dontneed_round(struct variant *v, struct race_hand *hand, uint64_t round)
{
	struct race *r = &v->c->r;
	uint64_t bytes, va = choose_piece(v, 40, &bytes), sum = 2 * round + 1;
	gm_ret_t ret;

	race_cpu_write(v->va, v->bytes, 2 * round);
	race_dev_add(hand, "dontneed", v->va, v->bytes);
	if (madvise((void *)(uintptr_t)va, bytes, MADV_DONTNEED))
		race_fail(r, "madvise");
	/* The process is bound by nothing but its own order... */
	if (race_rand(&v->seed) & 1)
		race_cpu_sees(r, "after madvise", va, bytes, 0);
	/* ...a device sees it once a call of the library settled it. */
	ret = gm_dev_fault(v->c->r.ctx[0], va, GM_READ);
	if (ret)
		race_fail(r, "gm_dev_fault: %s: %s", gm_ret_name(ret), gm_last_error());
	race_dev_sees(hand, "dontneed", va, bytes, 0);
	race_cpu_sees(r, "dontneed", va, bytes, 0);
	race_cpu_sees(r, "before the dontneed piece", v->va, va - v->va, sum);
	race_dev_sees(hand, "behind the dontneed piece", va + bytes, v->va + v->bytes - va - bytes, sum);
	atomic_fetch_add(&v->c->dontneeds, 1);
}

/* ---------------------------------------------------------------- reuse */

/* The middle of the block is the victim: [left | victim | right]. */
#define VICTIM_BYTES (128u << 10)
#define SIDE_BYTES   (256u << 10)

static bool is_read_back(struct variant *v, struct race_hand *hand, uint64_t va, uint64_t value)
{
	struct race *r = &v->c->r;

	race_cpu_write(va, VICTIM_BYTES, value);
	race_adopt_again(r, va, VICTIM_BYTES);
	if (!race_dev_sees(hand, "reuse: new content", va, VICTIM_BYTES, value))
		return false;
	race_dev_add(hand, "reuse", va, VICTIM_BYTES);
	if (race_rand(&v->seed) & 1)
		return race_cpu_sees(r, "reuse: sum", va, VICTIM_BYTES, value + 1);
	return true;
}

/* Gone, and there again by two ways; new memory is zero. */
static void renew(struct variant *v, uint64_t va)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
	void *p = (void *)(uintptr_t)va;

	if (race_rand(&v->seed) & 1) {
		if (munmap(p, VICTIM_BYTES))
			race_fail(&v->c->r, "munmap");
		flags ^= MAP_FIXED ^ MAP_FIXED_NOREPLACE;
	}
	if (mmap(p, VICTIM_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0) != p)
		race_fail(&v->c->r, "reuse: somebody else took 0x%" PRIx64, va);
	else
		race_cpu_sees(&v->c->r, "reuse: new memory", va, VICTIM_BYTES, 0);
}

/* The same by malloc() and free(); the new owner of the address got it by mmap(). */
static void reuse_heap(struct variant *v, struct race_hand *hand, uint64_t round)
{
	char *old = malloc(VICTIM_BYTES + 2 * RACE_PAGE);
	uint64_t va = (GM_VA(old) + RACE_PAGE - 1) & ~(RACE_PAGE - 1);
	void *p;

	if (!old || !is_read_back(v, hand, va, round))
		return;
	free(old);
	p = mmap((void *)(uintptr_t)va, VICTIM_BYTES, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (p == MAP_FAILED) /* another thread was faster: the library may map at any time */
		return;
	(void)is_read_back(v, hand, va, round + 2);
	munmap(p, VICTIM_BYTES);
	atomic_fetch_add(&v->c->frees, 1);
}

static void reuse_round(struct variant *v, struct race_hand *hand, uint64_t round)
{
	uint64_t left = v->va, victim = left + SIDE_BYTES, right = victim + VICTIM_BYTES;

	race_cpu_write(left, SIDE_BYTES, 4 * round);
	race_cpu_write(right, SIDE_BYTES, 4 * round);
	renew(v, victim);
	(void)is_read_back(v, hand, victim, 4 * round);
	race_dev_add(hand, "neighbour", left, SIDE_BYTES);
	race_cpu_sees(&v->c->r, "left neighbour", left, SIDE_BYTES, 4 * round + 1);
	race_dev_sees(hand, "right neighbour", right, SIDE_BYTES, 4 * round);
	if (FREE_UNMAPS)
		reuse_heap(v, hand, 4 * round);
	atomic_fetch_add(&v->c->reuses, 1);
}

/* ------------------------------------------------------------- mprotect */

static void protect(struct variant *v, uint64_t va, uint64_t bytes, int prot)
{
	if (mprotect((void *)(uintptr_t)va, bytes, prot))
		race_fail(&v->c->r, "mprotect");
}

/* Read-only while on the host: no device gets to write, whatever moves meanwhile. */
static void protect_home(struct variant *v, struct race_hand *hand, uint64_t va, uint64_t bytes, uint64_t value)
{
	struct race *r = &v->c->r;
	gm_ret_t ret;

	pthread_rwlock_wrlock(&v->c->gate);
	do {
		ret = gm_migrate(r->as, va, bytes, NULL, NULL);
	} while (ret == GM_RET_BUSY);
	if (ret)
		race_fail(r, "mprotect: gm_migrate: %s: %s", gm_ret_name(ret), gm_last_error());
	protect(v, va, bytes, PROT_READ);
	pthread_rwlock_unlock(&v->c->gate);
	race_dev_sees(hand, "read-only", va, bytes, value);
	ret = race_hand_do(hand, RACE_STORE, va + race_rand(&v->seed) % (bytes / RACE_PAGE) * RACE_PAGE, RACE_PAGE, 1);
	if (ret != GM_RET_PERM)
		race_fail(r, "mprotect: device store to read-only memory: %s", gm_ret_name(ret));
	race_cpu_sees(r, "read-only", va, bytes, value);
}

/* Read-only while a device has it: the kernel tells nobody, so a store that was allowed before may still pass. */
static void protect_away(struct variant *v, struct race_hand *hand, uint64_t va, uint64_t bytes, uint64_t value)
{
	struct race *r = &v->c->r;
	gm_ret_t ret;

	protect(v, va, bytes, PROT_READ);
	race_dev_sees(hand, "read-only, away", va, bytes, value);
	ret = race_hand_do(hand, RACE_STORE, va, RACE_PAGE, value + 1);
	if (ret && ret != GM_RET_PERM)
		race_fail(r, "mprotect: device store: %s", gm_ret_name(ret));
	atomic_fetch_add(&v->c->late_stores, !ret);
	race_cpu_sees(r, "read-only, away, first", va, RACE_PAGE, value + !ret);
	race_cpu_sees(r, "read-only, away", va + RACE_PAGE, bytes - RACE_PAGE, value);
}

static void mprotect_round(struct variant *v, struct race_hand *hand, uint64_t round)
{
	uint64_t bytes, va = choose_piece(v, 16, &bytes), value = 4 * round;

	race_cpu_write(va, bytes, value++);
	race_dev_add(hand, "mprotect", va, bytes);
	if (round & 1)
		protect_home(v, hand, va, bytes, value);
	else
		protect_away(v, hand, va, bytes, value);
	protect(v, va, bytes, PROT_READ | PROT_WRITE);
	race_cpu_write(va, bytes, value + 2);
	race_dev_sees(hand, "writable again", va, bytes, value + 2);
	race_dev_add(hand, "writable again", va, bytes);
	atomic_fetch_add(&v->c->mprotects, 1);
}

/* ------------------------------------------------------------- variants */

static void *run_variant(void *arg)
{
	struct variant *v = arg;
	struct race *r = &v->c->r;
	struct race_hand hand;

	race_pin_self(r);
	race_hand_start(&hand, r, 0);
	for (uint64_t round = 1; !atomic_load(&r->stop); round++) {
		v->play(v, &hand, round);
		race_tick(v->beat);
	}
	atomic_store(&v->beat->idle, true);
	race_hand_stop(&hand);
	return NULL;
}

static unsigned start_variants(struct counters *c, struct variant *v, pthread_t *id)
{
	struct race *r = &c->r;
	const struct {
		const char *name;
		void (*play)(struct variant *v, struct race_hand *hand, uint64_t round);
		uint64_t bytes;
		bool holes;
		pthread_rwlock_t *gate;
	} all[] = {
		{ "dontneed", dontneed_round, 64 * RACE_PAGE, false, NULL },
		{ "reuse", reuse_round, 2 * SIDE_BYTES + VICTIM_BYTES, true, NULL },
		{ "mprotect", mprotect_round, 64 * RACE_PAGE, false, &c->gate },
	};
	unsigned n = 0;

	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (!race_wants(r, all[i].name))
			continue;
		v[n] = (struct variant){ .c = c,
					 .beat = race_beat(r, all[i].name),
					 .seed = r->opt.seed * 31 + i + 1,
					 .va = race_place(r, all[i].bytes),
					 .bytes = all[i].bytes,
					 .play = all[i].play };
		RACE_MUST(r, gm_adopt(r->as, (void *)(uintptr_t)v[n].va, v[n].bytes, 0));
		race_add_target(r, v[n].va, v[n].bytes, all[i].holes, all[i].gate);
		race_start(r, &id[n], run_variant, &v[n]);
		n++;
	}
	return n;
}

/* ------------------------------------------------------------------ run */

static void add_pages(struct counters *c, uint64_t va, uint64_t bytes)
{
	va = (va + RACE_PAGE - 1) & ~(RACE_PAGE - 1);
	bytes &= ~(RACE_PAGE - 1);
	race_add_target(&c->r, va, bytes, false, NULL);
	for (uint64_t at = va; at < va + bytes; at += RACE_PAGE)
		c->page[c->pages++] = at;
}

/* Owned, with huge pages and without; adopted: a mapping, and a heap block with partial pages at both ends. */
static void make_buffers(struct counters *c)
{
	struct race *r = &c->r;

	c->pages = c->players = 0;
	c->page = calloc(16 * MIB / RACE_PAGE, sizeof(*c->page));
	c->heap = calloc(1, 2 * MIB + 12345);
	c->placed = race_place(r, 2 * MIB);
	if (!c->page || !c->heap)
		abort();
	RACE_MUST(r, gm_alloc(r->as, 2 * MIB, 0, &c->owned[0]));
	RACE_MUST(r, gm_alloc(r->as, MIB, GM_MEM_NO_HUGE, &c->owned[1]));
	RACE_MUST(r, gm_adopt(r->as, (void *)(uintptr_t)c->placed, 2 * MIB, 0));
	RACE_MUST(r, gm_adopt(r->as, c->heap, 2 * MIB + 12345, 0));
	/* Huge pages from the start, where the kernel has them: pieces of these move while others are split. */
	(void)madvise((void *)(uintptr_t)c->placed, 2 * MIB, MADV_HUGEPAGE);
	*race_word(c->placed) = *race_word(GM_VA(c->owned[0])) = 0;
	add_pages(c, GM_VA(c->owned[0]), 2 * MIB);
	add_pages(c, GM_VA(c->owned[1]), MIB);
	add_pages(c, c->placed, 2 * MIB);
	add_pages(c, GM_VA(c->heap), 2 * MIB);
}

static void start_players(struct counters *c)
{
	for (unsigned i = 0; i < c->r.opt.cpus; i++)
		race_start(&c->r, &c->cpu[i], cpu_player, add_player(c, "cpu", 0));
	for (unsigned d = 0; d < RACE_DEVS; d++) {
		struct player *first = &c->player[c->players];

		for (unsigned i = 0; i < c->r.opt.kernels; i++)
			(void)add_player(c, d ? "device 1" : "device 0", d);
		RACE_MUST(&c->r, gm_mock_launch(c->r.ctx[d], dev_player, first, c->r.opt.kernels, &c->kernel[d]));
	}
}

static void stop_players(struct counters *c)
{
	for (unsigned i = 0; i < c->r.opt.cpus; i++)
		pthread_join(c->cpu[i], NULL);
	for (unsigned d = 0; d < RACE_DEVS; d++) {
		gm_ret_t ret = gm_fence_wait(c->kernel[d], 60 * RACE_SEC);

		if (ret)
			race_fail(&c->r, "kernels of device %u: %s", d, gm_ret_name(ret));
		gm_fence_put(c->kernel[d]);
	}
}

/* Every word of every page. */
static uint64_t verify(struct counters *c)
{
	uint64_t lost = 0;

	for (unsigned page = 0; page < c->pages; page++) {
		uint64_t sum[2] = { 0, 0 };

		for (unsigned i = 0; i < c->players; i++) {
			struct player *p = &c->player[i];
			uint64_t seen = *race_word(own_va(p, page));

			lost += seen != p->own[page];
			sum[0] += (p->shared[page] + 1) / 2;
			sum[1] += p->shared[page] / 2;
		}
		lost += sum[0] - *race_word(shared_va(c, page, 0)) + sum[1] - *race_word(shared_va(c, page, 1));
	}
	if (lost)
		race_fail(&c->r, "%" PRId64 " updates are wrong", (int64_t)lost);
	return lost;
}

/* Each variant shall have had its share. */
static bool few_rounds(struct counters *c)
{
	uint64_t n = c->r.opt.rounds;

	return (race_wants(&c->r, "dontneed") && atomic_load(&c->dontneeds) < n) ||
	       (race_wants(&c->r, "reuse") && atomic_load(&c->reuses) < n) ||
	       (race_wants(&c->r, "mprotect") && atomic_load(&c->mprotects) < n);
}

/* Until the library has counted enough. */
static void wait_for_migrations(struct counters *c, const char *space)
{
	uint64_t next = race_now_ns() + 10 * RACE_SEC;

	while (!atomic_load(&c->r.stop) && (race_migrations(&c->r) < c->r.opt.migrations || few_rounds(c))) {
		race_sleep_ns(RACE_SEC / 50);
		if (race_now_ns() < next)
			continue;
		next += 10 * RACE_SEC;
		printf("%s: %s: %" PRIu64 " of %" PRIu64 " migrations\n", c->r.program, space, race_migrations(&c->r),
		       c->r.opt.migrations);
	}
	atomic_store(&c->r.stop, true);
}

static void print_table(struct counters *c, const char *space, uint64_t ns, uint64_t lost)
{
	struct gm_stats s = { .cpu_faults = 0 };
	uint64_t cpu = 0, dev = 0, all;

	(void)gm_as_stats(c->r.as, &s);
	for (unsigned i = 0; i < c->players; i++)
		*(i < c->r.opt.cpus ? &cpu : &dev) += c->player[i].ops;
	all = s.migrations_to_dev + s.migrations_to_host;
	printf("%s: %s space, handler %s, with %s\n", c->r.program, space, c->r.opt.handler, c->r.opt.with);
	printf("  migrations %" PRIu64 " to devices, %" PRIu64 " to the host; %" PRIu64 " evictions, %" PRIu64
	       " undone; %" PRIu64 " blocks packed\n",
	       s.migrations_to_dev, s.migrations_to_host, s.evictions, s.aborts, s.blocks_packed);
	printf("  faults     %" PRIu64 " CPU (%" PRIu64 " served by the handler), %" PRIu64 " device\n", s.cpu_faults,
	       s.cpu_faults_inline, s.dev_faults);
	printf("  gm_migrate %" PRIu64 " calls, %" PRIu64 " refused in part\n", atomic_load(&c->r.moves),
	       atomic_load(&c->r.refused));
	printf("  counted    %" PRIu64 " by CPUs, %" PRIu64 " by devices, in %u pages\n", cpu, dev, c->pages);
	printf("  variants   %" PRIu64 " dontneed, %" PRIu64 " reuse (%" PRIu64 " by free, %" PRIu64
	       " claimed), %" PRIu64 " mprotect (%" PRIu64 " stores by a right of before)\n",
	       atomic_load(&c->dontneeds), atomic_load(&c->reuses), atomic_load(&c->frees), atomic_load(&c->r.claimed),
	       atomic_load(&c->mprotects), atomic_load(&c->late_stores));
	printf("  lost       %" PRIu64 "\n", lost);
	printf("  %.1f s, %.0f migrations/s\n", (double)ns / 1e9, (double)all * 1e9 / (double)ns);
	if (!cpu || !dev)
		race_fail(&c->r, "somebody did nothing at all: the run proves nothing");
}

static void free_buffers(struct counters *c, const struct variant *v, unsigned variants)
{
	struct race *r = &c->r;

	RACE_MUST(r, gm_release(r->as, c->heap, 2 * MIB + 12345));
	RACE_MUST(r, gm_release(r->as, (void *)(uintptr_t)c->placed, 2 * MIB));
	for (unsigned i = 0; i < 2; i++)
		RACE_MUST(r, gm_free(r->as, c->owned[i]));
	for (unsigned i = 0; i < variants; i++) {
		RACE_MUST(r, gm_release(r->as, (void *)(uintptr_t)v[i].va, v[i].bytes));
		munmap((void *)(uintptr_t)v[i].va, v[i].bytes);
	}
	munmap((void *)(uintptr_t)c->placed, 2 * MIB);
	free(c->heap);
	free(c->page);
	for (unsigned i = 0; i < c->players; i++) {
		free(c->player[i].own);
		free(c->player[i].shared);
	}
}

static void run(struct counters *c, const char *space, uint32_t flags)
{
	pthread_t mover[4] = { 0 }, variant_id[3] = { 0 };
	struct variant variant[3];
	uint64_t start, ns, lost;
	unsigned variants;

	race_open(&c->r, flags);
	make_buffers(c);
	c->dontneeds = c->reuses = c->frees = c->mprotects = c->late_stores = 0;
	start = race_now_ns();
	variants = start_variants(c, variant, variant_id);
	start_players(c);
	for (unsigned i = 0; i < c->r.opt.movers; i++)
		race_start(&c->r, &mover[i], race_mover, &c->r);
	wait_for_migrations(c, space);
	for (unsigned i = 0; i < c->r.opt.movers; i++)
		pthread_join(mover[i], NULL);
	for (unsigned i = 0; i < variants; i++)
		pthread_join(variant_id[i], NULL);
	stop_players(c);
	ns = race_now_ns() - start;
	race_check(&c->r);
	lost = verify(c);
	print_table(c, space, ns, lost);
	free_buffers(c, variant, variants);
	race_close(&c->r);
}

int main(int argc, char **argv)
{
	static struct counters c;

	mallopt(M_MMAP_THRESHOLD, VICTIM_BYTES);
	race_begin(&c.r, "race_counters", argc, argv);
	pthread_rwlock_init(&c.gate, NULL);
	if (strcmp(c.r.opt.space, "exclusive"))
		run(&c, "inclusive", 0);
	if (strcmp(c.r.opt.space, "inclusive") && !atomic_load(&c.r.failures))
		run(&c, "exclusive", GM_AS_EXCLUSIVE);
	return race_end(&c.r);
}
