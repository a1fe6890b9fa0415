/* SPDX-License-Identifier: MIT */
/*
 * What an application does to its own memory while devices have it: munmap,
 * madvise, mremap, fork, system calls that read and write it; on this machine's
 * real host. Skipped, loudly, where there is no right to userfaultfd. What
 * needs an exact order of things is tested on the simulated host, below.
 */
#include "config.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core_fixture.h"

#define BYTES (3 * BLOCK)
#define PAGES (3 * (uint64_t)GM_BLOCK_PAGES)

struct real {
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_as *as;
	struct gm_ctx *ctx;
	char *raw, *at; /* BYTES, on a block boundary, filled, adopted, all on the device */
};

static void fill(char *at, uint64_t pages, uint64_t salt)
{
	for (uint64_t i = 0; i < pages; i++)
		*(volatile uint64_t *)ptr(word_va(GM_VA(at), i)) = word(i, salt);
}

static uint64_t wrong(const char *at, uint64_t first, uint64_t end, uint64_t salt)
{
	uint64_t n = 0;

	for (uint64_t i = first; i < end; i++)
		n += *(const volatile uint64_t *)ptr(word_va(GM_VA(at), i)) != word(i, salt);
	return n;
}

static uint64_t nonzero(const char *at, uint64_t first, uint64_t end)
{
	uint64_t n = 0;

	for (uint64_t i = first; i < end; i++)
		n += *(const volatile uint64_t *)ptr(word_va(GM_VA(at), i)) != 0;
	return n;
}

static void nap_ms(long ms)
{
	struct timespec ts = { 0, ms * 1000000 };

	nanosleep(&ts, NULL);
}

static struct gm_page_info info_of(struct real *r, const char *at)
{
	struct gm_page_info info;

	OK(gm_query(r->as, GM_VA(at), 1, &info));
	return info;
}

static void to_device(struct real *r)
{
	fill(r->at, PAGES, 1);
	dev_fill(r->ctx, GM_VA(r->at), PAGES, 2);
	OK(gm_migrate(r->as, GM_VA(r->at), BYTES, r->dev, NULL));
	cr_assert_eq(info_of(r, r->at + BLOCK).place, GM_PLACE_DEVICE);
}

static struct real real;

static void begin(void)
{
	struct real *r = &real;
	gm_ret_t ret = gm_lib_create(NULL, &r->lib);

	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	OK(ret);
	alarm(200); /* an access that nobody serves waits for ever */
	OK(gm_dev_open(r->lib, "mock:vram=16M", &r->dev));
	OK(gm_as_create(r->lib, 0, 0, NULL, &r->as));
	OK(gm_as_attach(r->as, r->dev, GM_ATTACH_IDENTITY, NULL, &r->ctx));
	r->raw = mmap(NULL, BYTES + BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(r->raw, MAP_FAILED);
	r->at = (char *)((GM_VA(r->raw) + BLOCK - 1) & ~(BLOCK - 1));
	OK(gm_adopt(r->as, r->at, BYTES, 0));
	to_device(r);
}

static void end(void)
{
	struct real *r = &real;
	char text[200] = "";

	if (!r->as)
		return;
	cr_assert_eq(gm_as_check(r->as, text, sizeof(text)), GM_RET_SUCCESS, "%s", text);
	OK(gm_as_destroy(r->as));
	OK(gm_dev_destroy(r->dev));
	OK(gm_lib_destroy(r->lib));
}

TestSuite(events, .init = begin, .fini = end);

Test(events, munmap_whole)
{
	struct real *r = &real;

	cr_assert_eq(munmap(r->at, BYTES), 0);
	IS(gm_dev_fault(r->ctx, GM_VA(r->at) + BLOCK, GM_READ), GM_RET_FAULT);
	for (unsigned i = 0; i < 1000 && !dev_all_free(r->dev); i++)
		nap_ms(1);
	cr_assert(dev_all_free(r->dev), "device memory of what is gone");
	cr_assert_eq(info_of(r, r->at).place, GM_PLACE_OUTSIDE);
}

Test(events, munmap_of_a_part)
{
	struct real *r = &real;
	uint64_t first = GM_BLOCK_PAGES - 5, last = 2 * GM_BLOCK_PAGES + 7;

	cr_assert_eq(munmap(r->at + first * PAGE, (last - first) * PAGE), 0);
	IS(gm_dev_fault(r->ctx, GM_VA(r->at) + first * PAGE, GM_READ), GM_RET_FAULT);
	IS(gm_dev_fault(r->ctx, GM_VA(r->at) + (last - 1) * PAGE, GM_READ), GM_RET_FAULT);
	OK(gm_dev_fault(r->ctx, GM_VA(r->at) + (first - 1) * PAGE, GM_READ));
	OK(gm_dev_fault(r->ctx, GM_VA(r->at) + last * PAGE, GM_READ));
	cr_assert_eq(wrong(r->at, 0, first, 2), 0);
	cr_assert_eq(wrong(r->at, last, PAGES, 2), 0);
}

Test(events, the_next_owner_of_an_address_sees_nothing)
{
	struct real *r = &real;

	for (unsigned round = 0; round < 5; round++) {
		struct dev_job job = { .va = GM_VA(r->at), .pages = 1 };

		cr_assert_eq(munmap(r->at, BYTES), 0);
		cr_assert_eq(mmap(r->at, BYTES, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
			     r->at);
		cr_assert_eq(nonzero(r->at, 0, 5), 0, "before it is adopted");
		*(volatile uint64_t *)(r->at + 5 * PAGE + 8) = 42;
		OK(gm_adopt(r->as, r->at, BYTES, 0));
		OK(dev_run(r->ctx, &job));
		cr_assert_eq(job.wrong, 1, "word() is never zero");
		cr_assert_eq(nonzero(r->at, 6, PAGES), 0);
		cr_assert_eq(*(volatile uint64_t *)(r->at + 5 * PAGE + 8), 42);
		to_device(r);
	}
}

/* In one step: the new mapping is there before the event of the old one is read. */
Test(events, mapped_over)
{
	struct real *r = &real;

	for (unsigned round = 0; round < 5; round++) {
		cr_assert_eq(mmap(r->at + BLOCK, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
				  -1, 0),
			     r->at + BLOCK);
		fill(r->at + BLOCK, 20, 9);
		cr_assert_eq(wrong(r->at, 0, GM_BLOCK_PAGES, 2), 0);
		cr_assert_eq(wrong(r->at + BLOCK, 0, 20, 9), 0);
		cr_assert_eq(nonzero(r->at + BLOCK, 20, GM_BLOCK_PAGES), 0);
		OK(gm_adopt(r->as, r->at + BLOCK, BLOCK, 0));
		cr_assert_eq(dev_wrong(r->ctx, GM_VA(r->at) + BLOCK, 20, 9), 0);
		to_device(r);
	}
}

Test(events, madvise_dontneed)
{
	struct real *r = &real;

	cr_assert_eq(madvise(r->at + 3 * PAGE, BYTES - 6 * PAGE, MADV_DONTNEED), 0);
	cr_assert_eq(wrong(r->at, 0, 3, 2), 0);
	cr_assert_eq(wrong(r->at, PAGES - 3, PAGES, 2), 0);
	cr_assert_eq(nonzero(r->at, 3, PAGES - 3), 0);
	to_device(r); /* still managed */
	cr_assert_eq(wrong(r->at, 0, PAGES, 2), 0);
}

/* Old bytes or zeros until it is written to; what is written afterwards stays. */
Test(events, madvise_free)
{
	struct real *r = &real;
	uint64_t odd = 0;

	cr_assert_eq(madvise(r->at, BYTES, MADV_FREE), 0);
	for (uint64_t i = 0; i < PAGES; i += 3) {
		uint64_t value = *(volatile uint64_t *)ptr(word_va(GM_VA(r->at), i));

		odd += value != 0 && value != word(i, 2) && value != word(i, 1);
	}
	cr_assert_eq(odd, 0);
	fill(r->at, PAGES, 5);
	cr_assert_eq(dev_wrong(r->ctx, GM_VA(r->at), PAGES, 5), 0);
	cr_assert_eq(wrong(r->at, 0, PAGES, 5), 0);
}

Test(events, mremap_takes_device_pages_along)
{
	struct real *r = &real;

	for (uint64_t round = 0; round < 6; round++) {
		char *to = mmap(NULL, BYTES + BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		char *old = r->at;

		to += (round % 2) * 5 * PAGE; /* another offset in its block */
		cr_assert_eq(mremap(r->at, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to), to);
		r->at = to;
		cr_assert_eq(wrong(to, 0, PAGES, 2), 0, "round %u", (unsigned)round);
		IS(gm_dev_fault(r->ctx, GM_VA(old), GM_READ), GM_RET_FAULT);
		cr_assert_eq(dev_wrong(r->ctx, GM_VA(to), PAGES, 2), 0);
		cr_assert_eq(info_of(r, to).place, GM_PLACE_DEVICE);
		to_device(r);
	}
}

/* Growing in place or elsewhere: what is new is not managed, what was there is. */
Test(events, mremap_grows)
{
	struct real *r = &real;
	char *to = mremap(r->at, BYTES, BYTES + 64 * BLOCK, MREMAP_MAYMOVE);

	cr_assert_neq(to, MAP_FAILED);
	r->at = to;
	cr_assert_eq(wrong(to, 0, PAGES, 2), 0);
	fill(to + BYTES, 100, 3);
	cr_assert_eq(dev_wrong(r->ctx, GM_VA(to), PAGES, 2), 0);
	IS(gm_dev_fault(r->ctx, GM_VA(to) + BYTES, GM_READ), GM_RET_FAULT);
	OK(gm_adopt(r->as, to + BYTES, BLOCK, 0));
	cr_assert_eq(dev_wrong(r->ctx, GM_VA(to) + BYTES, 100, 3), 0);
}

/* How a child ends that reads all of a range. */
static int child_reads(char *at, uint64_t salt)
{
	int status = 0;
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (pid == 0) {
		(void)signal(SIGSEGV, SIG_DFL);
		(void)signal(SIGBUS, SIG_DFL);
		_exit(wrong(at, 0, PAGES, salt) ? 1 : 0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return status;
}

Test(events, fork_child_has_adopted_memory)
{
	struct real *r = &real;

	for (unsigned round = 0; round < 3; round++) {
		int status = child_reads(r->at, 2);

		cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0,
			  "the child's memory is not complete: status %d", status);
		cr_assert_eq(dev_wrong(r->ctx, GM_VA(r->at), PAGES, 2), 0, "the parent goes on");
		to_device(r);
	}
	cr_assert_eq(wrong(r->at, 0, PAGES, 2), 0);
}

Test(events, fork_child_has_no_owned_memory)
{
	struct real *r = &real;
	int status;
	void *p;

	OK(gm_alloc(r->as, BYTES, 0, &p));
	dev_fill(r->ctx, GM_VA(p), PAGES, 4);
	status = child_reads(p, 4);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %d", status);
	cr_assert_eq(dev_wrong(r->ctx, GM_VA(p), PAGES, 4), 0);
	cr_assert_eq(wrong(p, 0, PAGES, 4), 0);
	OK(gm_free(r->as, p));
}

/* The kernel itself reads and writes memory that is on a device. */
Test(events, system_calls)
{
	struct real *r = &real;
	uint64_t got[8], put[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	int fd[2];

	cr_assert_eq(pipe(fd), 0);
	cr_assert_eq(write(fd[1], ptr(word_va(GM_VA(r->at), 700)), 8), 8);
	cr_assert_eq(read(fd[0], got, 8), 8);
	cr_assert_eq(got[0], word(700, 2));
	cr_assert_eq(write(fd[1], put, sizeof(put)), (ssize_t)sizeof(put));
	cr_assert_eq(read(fd[0], r->at + 900 * PAGE - 16, sizeof(put)), (ssize_t)sizeof(put)); /* over two pages */
	cr_assert_eq(memcmp(r->at + 900 * PAGE - 16, put, sizeof(put)), 0);
	close(fd[0]);
	close(fd[1]);
	cr_assert_eq(wrong(r->at, 0, 898, 2), 0);
}

Test(events, mprotect_is_respected)
{
	struct real *r = &real;

	cr_assert_eq(mprotect(r->at, BLOCK, PROT_READ), 0);
	OK(gm_migrate(r->as, GM_VA(r->at), BLOCK, NULL, NULL));
	IS(gm_dev_fault(r->ctx, GM_VA(r->at), GM_WRITE), GM_RET_PERM);
	cr_assert_eq(mprotect(r->at, BLOCK, PROT_NONE), 0);
	IS(gm_dev_fault(r->ctx, GM_VA(r->at), GM_READ), GM_RET_FAULT);
	cr_assert_eq(mprotect(r->at, BLOCK, PROT_READ | PROT_WRITE), 0);
	OK(gm_dev_fault(r->ctx, GM_VA(r->at), GM_WRITE));
	cr_assert_eq(wrong(r->at, 0, PAGES, 2), 0);
}

/* --------------------------------------------------------- simulated host */

/* A buffer with edges: the kernel moves no range that is only partly registered, so the edges stay behind. */
CORE_TEST(events_sim, moved_without_its_edges)
{
	uint64_t va = app_map_blocks(w, 1), to, pages = GM_BLOCK_PAGES - 2;

	app_fill(w, va + PAGE, pages, 1);
	OK(gm_adopt(w->as, ptr(va + 16), BLOCK - 32, 0));
	dev_fill(w->ctx[0], va + PAGE, pages, 2);
	cr_assert_eq(gm_sim_mremap(w->sim, va, BLOCK), 0);
	to = gm_sim_mremap(w->sim, va + PAGE, pages * PAGE);
	cr_assert_neq(to, 0);
	cr_assert_eq(dev_wrong(w->ctx[0], to, pages, 2), 0);
	cr_assert_eq(page_info(w, to).place, GM_PLACE_DEVICE);
	cr_assert_eq(pages_in(w, va + PAGE, pages, GM_PLACE_OUTSIDE), pages);
	cr_assert_eq(page_info(w, va).place, GM_PLACE_IN_PLACE);
	world_check(w);
	OK(gm_release(w->as, ptr(to), pages * PAGE));
	OK(gm_release(w->as, ptr(va + 16), BLOCK - 32));
	cr_assert_eq(page_info(w, va).place, GM_PLACE_OUTSIDE);
	cr_assert_eq(app_wrong(w, to, pages, 2), 0);
}

/* The new place lies in a block that the library knows already. */
CORE_TEST(events_sim, moved_into_a_known_block)
{
	uint64_t a = app_map(w, 8 * PAGE), b = app_map(w, 8 * PAGE), to;

	app_fill(w, a, 8, 1);
	app_fill(w, b, 8, 2);
	OK(gm_adopt(w->as, ptr(a), 8 * PAGE, 0));
	OK(gm_adopt(w->as, ptr(b), 8 * PAGE, 0));
	dev_fill(w->ctx[0], b, 8, 3);
	dev_fill(w->ctx[0], a, 8, 4);
	to = gm_sim_mremap(w->sim, a, 8 * PAGE);
	cr_assert_eq(to / BLOCK, b / BLOCK, "the test needs the same block");
	cr_assert_eq(dev_wrong(w->ctx[0], to, 8, 4), 0);
	cr_assert_eq(page_info(w, to).place, GM_PLACE_DEVICE);
	dev_fill(w->ctx[0], to, 8, 5);
	cr_assert_eq(app_wrong(w, to, 8, 5), 0);
	cr_assert_eq(app_wrong(w, b, 8, 3), 0);
	world_check(w);
}

/* Part of a range moves away; the rest stays what and where it is. */
CORE_TEST(events_sim, a_part_moves)
{
	uint64_t va = app_adopted(w, 2, 1), to;

	dev_fill(w->ctx[0], va, 2 * GM_BLOCK_PAGES, 2);
	to = gm_sim_mremap(w->sim, va + BLOCK / 2, BLOCK);
	cr_assert_neq(to, 0);
	OK(gm_dev_fault(w->ctx[0], to, GM_READ)); /* what happened before is known from here on */
	cr_assert_eq(pages_in(w, va + BLOCK / 2, GM_BLOCK_PAGES, GM_PLACE_OUTSIDE), GM_BLOCK_PAGES);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES / 2, 2), 0);
	for (uint64_t i = 0; i < GM_BLOCK_PAGES; i++)
		cr_assert_eq(app_get(w, word_va(va, i + GM_BLOCK_PAGES / 2) - va + to - BLOCK / 2),
			     word(i + GM_BLOCK_PAGES / 2, 2));
	OK(gm_dev_fault(w->ctx[0], to, GM_WRITE));
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	IS(gm_dev_fault(w->ctx[0], va + BLOCK, GM_WRITE), GM_RET_FAULT);
	world_check(w);
}

/*
 * More moves than the library has notes for, one after the other. A range that no device
 * has used since it was moved last is not watched: when it moves again nobody is told, and
 * it has to be adopted anew. Its bytes are right in any case.
 */
CORE_TEST(events_sim, moved_many_times, .spurious = true)
{
	uint64_t va = app_adopted(w, 1, 1);
	unsigned known = 0;

	for (unsigned i = 0; i < 3 * GM_REMAP_SPARES; i++) {
		gm_ret_t ret = i % 3 ? GM_RET_SUCCESS : gm_dev_fault(w->ctx[0], va, GM_WRITE);

		known += i % 3 == 0 && !ret;
		if (ret == GM_RET_FAULT)
			OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
		if (i % 3 == 0)
			dev_fill(w->ctx[0], va, 16, 1);
		va = gm_sim_mremap(w->sim, va, BLOCK);
		cr_assert_neq(va, 0);
	}
	cr_assert_gt(known, 1, "no move was noticed");
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
	world_check(w);
}

/* A range that a device uses goes along each time, there and back again. */
CORE_TEST(events_sim, moved_to_and_fro, .spurious = true)
{
	uint64_t va = app_adopted(w, 1, 1);

	for (unsigned i = 0; i < 2 * GM_REMAP_SPARES; i++) {
		dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, i);
		va = gm_sim_mremap(w->sim, va, BLOCK);
		cr_assert_neq(va, 0);
		cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, i), 0);
	}
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 2 * GM_REMAP_SPARES - 1), 0);
}

/* Fork in simulation: what a child reads of memory that devices have. */
CORE_TEST(events_sim, fork_with_pages_away, .dev = { "mock:vram=4M,visible=no,copy=async,copyns=5000" })
{
	uint64_t va = app_adopted(w, 1, 1), value;
	void *p;

	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 2);
	OK(gm_alloc(w->as, UNIT, 0, &p));
	dev_fill(w->ctx[0], GM_VA(p), 4, 3);
	for (uint64_t i = 0; i < GM_BLOCK_PAGES; i += 50) {
		OK(gm_sim_fork_snapshot(w->sim, word_va(va, i), &value, sizeof(value)));
		cr_assert_eq(value, word(i, 2));
		dev_fill(w->ctx[0], va, 16, 2);
	}
	IS(gm_sim_fork_snapshot(w->sim, GM_VA(p), &value, sizeof(value)), GM_RET_FAULT);
	cr_assert_eq(dev_wrong(w->ctx[0], GM_VA(p), 4, 3), 0);
	OK(gm_free(w->as, p));
}

struct late_release {
	struct gm_as *as;
	uint64_t va;
};

static void release_late(void *arg)
{
	struct late_release *late = arg;

	OK(gm_release(late->as, ptr(late->va), 16 * PAGE));
}

/*
 * A working set holds a part of a block, gm_release() takes another part home: a child
 * sees the bytes there or has no such memory, at whatever moment the fork comes.
 */
CORE_TEST(events_sim, fork_during_a_release, .dev = { "mock:vram=4M,visible=no,copy=async,copyns=100000" })
{
	uint64_t va = app_adopted(w, 1, 1), value;
	struct late_release late = { .as = w->as, .va = va + 32 * PAGE };
	struct gm_ws_range held = { .va = va, .bytes = 16 * PAGE, .access = GM_WRITE };
	unsigned not_there = 0;

	for (unsigned i = 0; i < 20; i++) {
		struct gm_thread *other;
		struct gm_ws *ws = NULL;

		dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, i + 2); /* so that all of it has to be copied */
		OK(gm_ws_acquire(w->ctx[0], &held, 1, SECOND, &ws));
		other = spawn(w, release_late, &late);
		gm_sim_sleep_ns(w->sim, i * 10000);
		for (unsigned k = 32; k < 48; k++)
			if (gm_sim_fork_snapshot(w->sim, word_va(va, k), &value, sizeof(value)))
				not_there++;
			else
				cr_assert_eq(value, word(k, i + 2), "page %u, round %u", k, i);
		join(w, other);
		OK(gm_ws_release(ws, NULL));
		OK(gm_release(w->as, ptr(va), BLOCK));
		OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
	}
	cr_assert_gt(not_there, 0, "no fork met a release");
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 21), 0);
}

static struct {
	struct gm_hal_dev *host;
	gm_ret_t (*mem_rights)(void *pmap, uint64_t va, struct gm_host_vma *vma);
	struct gm_as *as;
	gm_ret_t (*settled)(void *pmap);
	unsigned queries, most;
} holding;

/* While the reader is held: how many, until the last call of a stretch. */
static gm_ret_t count_query(void *pmap, uint64_t va, struct gm_host_vma *vma)
{
	holding.queries = holding.as->reader_held ? holding.queries + 1 : 0;
	if (holding.queries > holding.most)
		holding.most = holding.queries;
	return holding.mem_rights(pmap, va, vma);
}

static gm_ret_t end_of_stretch(void *pmap)
{
	holding.queries = 0;
	return holding.settled(pmap);
}

/* Memory that was unmapped while nobody watched it: who finds that out page by page lets others read in between. */
CORE_TEST(events_sim, unmapped_unseen)
{
	uint64_t va = app_map_blocks(w, 1);

	OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
	OK(gm_sim_munmap(w->sim, va, 400 * PAGE));
	holding.host = w->lib->host;
	holding.as = w->as;
	holding.mem_rights = holding.host->host.mem_rights;
	holding.settled = holding.host->host.settled;
	holding.host->host.mem_rights = count_query;
	holding.host->host.settled = end_of_stretch;
	OK(gm_dev_fault(w->ctx[0], va + 450 * PAGE, GM_WRITE));
	cr_assert_eq(pages_in(w, va, 400, GM_PLACE_OUTSIDE), 400);
	cr_assert(holding.most > 0 && holding.most <= 20, "%u queries while nobody could read events", holding.most);
	holding.host->host.mem_rights = holding.mem_rights;
	holding.host->host.settled = holding.settled;
}

struct late_move {
	struct world *w;
	uint64_t va, to, delay_ns;
};

static void move_late(void *arg)
{
	struct late_move *late = arg;

	gm_sim_sleep_ns(late->w->sim, late->delay_ns);
	late->to = gm_sim_mremap(late->w->sim, late->va, 16 * PAGE);
}

/*
 * Another thread moves memory that a device has, at whatever moment of a fork: the child sees the bytes at the
 * new place, or the move was after the fork. As no working set holds anything, nothing is kept from it.
 */
CORE_TEST(events_sim, fork_during_a_move, .dev = { "mock:vram=4M,visible=no,copy=async,copyns=20000" })
{
	unsigned moved = 0;

	for (unsigned i = 0; i < 200; i++) {
		uint64_t va = app_map(w, 64 * PAGE), to, value, k = i % 16;
		struct late_move late = { .w = w, .va = va + 8 * PAGE, .delay_ns = (uint64_t)i * 200 };
		struct gm_thread *other;

		OK(gm_adopt(w->as, ptr(va), 64 * PAGE, 0));
		dev_fill(w->ctx[0], va, 64, i);
		to = app_map(w, 16 * PAGE);
		OK(gm_sim_munmap(w->sim, to, 16 * PAGE)); /* where mremap() goes next */
		other = spawn(w, move_late, &late);
		if (!gm_sim_fork_snapshot(w->sim, word_va(va, 8 + k) - late.va + to, &value, sizeof(value))) {
			cr_assert_eq(value, word(8 + k, i), "round %u: %llx", i, (unsigned long long)value);
			moved++;
		}
		join(w, other);
		cr_assert_eq(late.to, to);
		cr_assert_eq(app_get(w, word_va(va, 8 + k) - late.va + to), word(8 + k, i));
		OK(gm_sim_munmap(w->sim, va, 64 * PAGE));
		OK(gm_sim_munmap(w->sim, to, 16 * PAGE));
	}
	cr_assert_eq(w->warnings, 0, "kept from the child for no reason");
	cr_assert(moved > 0 && moved < 200, "%u forks met a move", moved);
}
