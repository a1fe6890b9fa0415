/* SPDX-License-Identifier: MIT */
/*
 * Which rung is chosen, and why no better one: by features that are masked, by rights given up, by a filter of system
 * calls. Then what is particular to the lower hosts, from inside.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

#include <gmem/mock.h>

#include "hal/host/gm_host_internal.h"
#include "tests/unit/rung_fixture.h"

TestSuite(rung, .timeout = 120);
TestSuite(rung_host, .timeout = 120);

static gm_ret_t choose(enum gm_rung lowest, enum gm_rung highest, uint64_t allow, struct gm_rung_info *info)
{
	const struct gm_mmu *mmu;

	memset(info, 0, sizeof(*info));
	return gm_host_choose_with(lowest, highest, allow, info, &mmu);
}

static void need_full(void)
{
	if (gm_host_probe(UINT64_MAX))
		cr_skip_test("NOT TESTED: %s", gm_last_error());
}

Test(rung, masked_features_lead_down)
{
	static const struct {
		uint64_t missing;
		enum gm_rung rung;
		const char *why;
	} rows[] = {
		{ 0, GM_RUNG_FULL, "" },
		{ GM_UFFD_FEATURE_MOVE, GM_RUNG_NO_MOVE, "UFFDIO_MOVE" },
		{ GM_UFFD_FEATURE_POISON, GM_RUNG_NO_MOVE, "UFFDIO_POISON" },
		{ GM_UFFD_FEATURE_MOVE | GM_UFFD_FEATURE_POISON, GM_RUNG_NO_MOVE, "Linux 6.8" },
		{ GM_UFFD_FEATURE_EVENT_REMAP, GM_RUNG_EXPLICIT, "UFFD_EVENT_REMAP" },
		{ GM_UFFD_FEATURE_EVENT_REMOVE, GM_RUNG_EXPLICIT, "UFFD_EVENT_REMOVE" },
		{ GM_UFFD_FEATURE_EVENT_UNMAP, GM_RUNG_EXPLICIT, "UFFD_EVENT_UNMAP" },
	};
	struct gm_rung_info info;

	need_full();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		OK(choose(GM_RUNG_EXPLICIT, GM_RUNG_FULL, ~rows[i].missing, &info));
		cr_assert_eq(info.rung, rows[i].rung, "row %zu: %s", i, gm_rung_name(info.rung));
		cr_assert_not_null(strstr(info.why, rows[i].why), "row %zu: %s", i, info.why);
		cr_assert_eq(info.rung == GM_RUNG_FULL, info.cannot == 0);
		cr_assert_eq(info.rung == GM_RUNG_FULL, info.why[0] == '\0');
	}
}

Test(rung, below_the_lowest_it_fails_with_the_fix)
{
	struct gm_rung_info info;

	need_full();
	cr_assert_eq(choose(GM_RUNG_DEVICE, GM_RUNG_FULL, ~GM_UFFD_FEATURE_MOVE, &info), GM_RET_NOTSUP);
	cr_assert_not_null(strstr(gm_last_error(), "Linux 6.8"), "%s", gm_last_error());
	cr_assert_not_null(strstr(gm_last_error(), "lowest_rung"), "%s", gm_last_error());
	cr_assert_eq(choose(GM_RUNG_FULL, GM_RUNG_FULL, ~GM_UFFD_FEATURE_POISON, &info), GM_RET_NOTSUP);
	cr_assert_eq(choose(GM_RUNG_USER, GM_RUNG_NO_MOVE, ~GM_UFFD_FEATURE_EVENT_UNMAP, &info), GM_RET_NOTSUP);
	cr_assert_not_null(strstr(gm_last_error(), "UFFD_EVENT_UNMAP"), "%s", gm_last_error());
}

Test(rung, user_mode_only_without_move_is_both)
{
	struct gm_rung_info info;

	need_full();
	OK(choose(GM_RUNG_USER, GM_RUNG_USER, UINT64_MAX, &info));
	cr_assert_eq(info.cannot, GM_RUNG_NO_KERNEL_ACCESS);
	OK(choose(GM_RUNG_USER, GM_RUNG_USER, ~GM_UFFD_FEATURE_MOVE, &info));
	cr_assert(info.cannot & GM_RUNG_NO_KERNEL_ACCESS && info.cannot & GM_RUNG_NO_UNMAP_GUARD);
}

/* ---------------------------------------------------- rights given up, in children */

/* A filter that answers userfaultfd(2) with `err`. */
static int filter_userfaultfd(int err)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

/* What somebody without rights is: 0; or 1: it cannot be done here. */
static int be_nobody(void)
{
	if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534) || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
		return 1;
	return access("/dev/userfaultfd", R_OK | W_OK) == 0;
}

static bool everybody_may(void)
{
	char c = '1';
	int fd = open("/proc/sys/vm/unprivileged_userfaultfd", O_RDONLY);

	if (fd >= 0) {
		if (read(fd, &c, 1) != 1)
			c = '1';
		close(fd);
	}
	return c != '0';
}

#define MUST(condition)                  \
	do {                             \
		if (!(condition))        \
			return __LINE__; \
	} while (0)

/* Pages to a device and back, in a child that must not assert: 0, or the line of the mistake. */
static int short_run(const struct gm_lib_config *lc, enum gm_rung rung)
{
	struct gm_as_config ac = { .size = sizeof(ac) };
	struct gm_rung_info info;
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_ctx *ctx;
	struct gm_as *as;
	char *at;
	void *p;

	MUST(gm_lib_create(lc, &lib) == GM_RET_SUCCESS);
	MUST(gm_lib_rung(lib, &info) == GM_RET_SUCCESS && info.rung == rung);
	MUST(gm_as_create(lib, 0, 0, &ac, &as) == GM_RET_SUCCESS);
	MUST(gm_dev_open(lib, "mock:vram=8M", &dev) == GM_RET_SUCCESS);
	MUST(gm_as_attach(as, dev, GM_ATTACH_IDENTITY, NULL, &ctx) == GM_RET_SUCCESS);
	MUST(gm_alloc(as, 64 * PAGE, 0, &p) == GM_RET_SUCCESS);
	at = p;
	put_marks(at, 0, 64);
	MUST(gm_migrate(as, GM_VA(at), 64 * PAGE, dev, NULL) == GM_RET_SUCCESS);
	MUST(kernel_reads(at) == (info.cannot & GM_RUNG_NO_KERNEL_ACCESS ? EFAULT : 0));
	if (info.cannot & GM_RUNG_NO_CPU_FAULTS)
		MUST(gm_migrate(as, GM_VA(at), 64 * PAGE, NULL, NULL) == GM_RET_SUCCESS);
	MUST(wrong_marks(at, 0, 64) == 0);
	MUST(gm_free(as, p) == GM_RET_SUCCESS && gm_as_detach(ctx) == GM_RET_SUCCESS);
	MUST(gm_as_destroy(as) == GM_RET_SUCCESS && gm_dev_destroy(dev) == GM_RET_SUCCESS);
	MUST(gm_lib_destroy(lib) == GM_RET_SUCCESS);
	return 0;
}

static int as_nobody(void)
{
	struct gm_lib_config lc = { .size = sizeof(lc) };
	struct gm_lib *lib;

	MUST(gm_lib_create(&lc, &lib) == GM_RET_PERM);
	MUST(strstr(gm_last_error(), "CAP_SYS_PTRACE") && strstr(gm_last_error(), "lowest_rung"));
	lc.lowest_rung = GM_RUNG_NO_MOVE;
	MUST(gm_lib_create(&lc, &lib) == GM_RET_PERM);
	lc.lowest_rung = GM_RUNG_EXPLICIT;
	return short_run(&lc, GM_RUNG_USER);
}

static int nobody_behind_a_filter(int err)
{
	struct gm_lib_config lc = { .size = sizeof(lc), .lowest_rung = GM_RUNG_USER };
	struct gm_lib *lib;

	MUST(filter_userfaultfd(err) == 0);
	MUST(gm_lib_create(&lc, &lib) == GM_RET_PERM);
	MUST(strstr(gm_last_error(), "seccomp"));
	lc.lowest_rung = GM_RUNG_EXPLICIT;
	return short_run(&lc, GM_RUNG_EXPLICIT);
}

static int behind_a_filter(int err)
{
	struct gm_lib_config lc = { .size = sizeof(lc) };
	struct gm_lib *lib;
	int line;

	MUST(filter_userfaultfd(err) == 0);
	line = short_run(&lc, GM_RUNG_DEVICE); /* no different to the caller */
	if (line)
		return line;
	lc.lowest_rung = GM_RUNG_FULL;
	MUST(gm_lib_create(&lc, &lib) == GM_RET_PERM);
	MUST(strstr(gm_last_error(), "seccomp"));
	lc.lowest_rung = lc.highest_rung = GM_RUNG_NO_MOVE;
	return short_run(&lc, GM_RUNG_NO_MOVE);
}

/* fn(arg) in a child, as nobody if asked. Its line, or 0. */
static void in_child(bool nobody, int (*fn)(int arg), int arg, const char *what)
{
	int status, line, end[2];
	pid_t pid;

	need_full();
	if (nobody && everybody_may())
		cr_skip_test("NOT TESTED: everybody has the right here");
	cr_assert_eq(pipe(end), 0);
	pid = fork();
	if (pid == 0) {
		line = nobody && be_nobody() ? -1 : fn(arg);
		if (write(end[1], &line, sizeof(line)) != (ssize_t)sizeof(line))
			_exit(1);
		_exit(0);
	}
	close(end[1]);
	cr_assert_eq(read(end[0], &line, sizeof(line)), (ssize_t)sizeof(line), "%s: the child died", what);
	close(end[0]);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	if (line == -1)
		cr_skip_test("NOT TESTED: this user cannot give up rights, or everybody has /dev/userfaultfd");
	cr_assert_eq(line, 0, "%s: line %d", what, line);
}

static int run_as_nobody(int arg)
{
	(void)arg;
	return as_nobody();
}

Test(rung, without_rights_it_is_user_mode_only)
{
	in_child(true, run_as_nobody, 0, "nobody");
}

Test(rung, a_filter_without_rights_leaves_explicit_calls)
{
	in_child(true, nobody_behind_a_filter, EPERM, "EPERM");
	in_child(true, nobody_behind_a_filter, ENOSYS, "ENOSYS");
}

Test(rung, behind_a_filter_there_is_the_device)
{
	if (access("/dev/userfaultfd", R_OK | W_OK))
		cr_skip_test("NOT TESTED: no /dev/userfaultfd for this user");
	in_child(false, behind_a_filter, EPERM, "EPERM");
	in_child(false, behind_a_filter, ENOSYS, "ENOSYS");
}

/* ------------------------------------------------------- the hosts, from inside */

static void host_begin_on(struct host *h, enum gm_rung rung)
{
	struct gm_lib_config config = { .size = sizeof(config), .log = host_log, .log_arg = h, .log_level = GM_LOG_WARN };
	struct gm_rung_info info;
	gm_ret_t ret;

	memset(h, 0, sizeof(*h));
	pthread_mutex_init(&h->log_lock, NULL);
	OK(gm_env_threads_create(&config, &h->env));
	ret = gm_host_choose(rung, rung, &info, &h->mmu);
	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	h->ops = h->mmu->host;
	OK(h->mmu->dev_init(h->env, NULL, &h->caps, &h->dev));
	OK(h->mmu->pmap_create(h->dev, &h->pmap));
}

static struct gm_host_steal steal(struct host *h, const char *at, struct gm_mask want, uint64_t slot, gm_ret_t expect)
{
	struct gm_host_steal out;

	cr_assert_eq(h->ops->steal(h->pmap, GM_VA(at), &want, slot, &out), expect, "%s", gm_last_error());
	return out;
}

/* Memory that was mapped where the library's was a moment ago, of which no event tells yet: it goes back to its owner. */
Test(rung_host, what_is_not_watched_is_given_back)
{
	struct host h;
	struct gm_host_steal out;
	uint64_t slot;
	char *at;

	host_begin_on(&h, GM_RUNG_NO_MOVE);
	at = map_app(BLOCK, false);
	put_marks(at, 0, 64);
	OK(h.ops->slot_alloc(h.pmap, &slot));
	out = steal(&h, at, gm_mask_span(0, 64), slot, GM_RET_FAULT);
	cr_assert(gm_mask_empty(&out.moved));
	cr_assert_eq(wrong_marks(at, 0, 64), 0, "the owner's bytes are gone");
	cr_assert(strstr(h.log, "gm_release()") && strstr(h.log, "but for 0 bytes"), "%s", h.log);
	/* and the library goes on */
	OK(h.ops->watch(h.pmap, GM_VA(at), BLOCK));
	out = steal(&h, at, gm_mask_span(0, 64), slot, GM_RET_SUCCESS);
	cr_assert_eq(gm_mask_count(&out.moved), 64);
	cr_assert_eq(wrong_marks((char *)slot, 0, 64), 0);
	OK(h.ops->unwatch(h.pmap, GM_VA(at), BLOCK));
	host_end(&h);
}

/* Core asks of no table whether it has an operation. */
Test(rung_host, tables_are_complete)
{
	const struct gm_host_ops *tables[] = { &gm_host_ops_full, &gm_host_ops_nomove, &gm_host_ops_explicit };

	for (size_t t = 0; t < 3; t++)
		for (size_t i = 0; i < sizeof(*tables[t]) / sizeof(void (*)(void)); i++)
			cr_assert_not_null(((void *const *)(const void *)tables[t])[i], "table %zu, slot %zu", t, i);
}

static void unmap_part(void *arg)
{
	munmap((char *)arg + 32 * PAGE, 32 * PAGE);
}

/* Neither is taken nor given while an event is unread, or read and not handed out. */
Test(rung_host, no_move_waits_for_events)
{
	struct host h;
	struct worker w;
	struct gm_host_steal out;
	struct gm_host_msg m[2];
	uint64_t slot, done;
	char *at;

	host_begin_on(&h, GM_RUNG_NO_MOVE);
	at = map_app(BLOCK, false);
	put_marks(at, 0, 64);
	OK(h.ops->watch(h.pmap, GM_VA(at), BLOCK));
	OK(h.ops->slot_alloc(h.pmap, &slot));
	(void)steal(&h, at, gm_mask_span(0, 8), slot, GM_RET_SUCCESS);
	worker_start(&w, unmap_part, at);
	WAIT_FOR(h.ops->settled(h.pmap) == GM_RET_AGAIN);
	out = steal(&h, at, gm_mask_span(8, 16), slot, GM_RET_AGAIN);
	cr_assert(gm_mask_empty(&out.moved));
	cr_assert_eq(h.ops->restore(h.pmap, GM_VA(at), slot, 8 * PAGE, &done), GM_RET_AGAIN);
	cr_assert(!atomic_load(&w.done), "an event was read by somebody who must not");
	OK(gm_host_msg_pull(h.pmap)); /* as the pump does, beside the reader */
	worker_join(&w);
	cr_assert_eq(h.ops->settled(h.pmap), GM_RET_AGAIN);
	(void)steal(&h, at, gm_mask_span(8, 16), slot, GM_RET_AGAIN);
	cr_assert_eq(h.ops->restore(h.pmap, GM_VA(at), slot, 8 * PAGE, &done), GM_RET_AGAIN);
	cr_assert_eq(h.ops->fill(h.pmap, GM_VA(at), at + 16 * PAGE, 8 * PAGE, &done), GM_RET_AGAIN);
	cr_assert_eq(h.ops->zero(h.pmap, GM_VA(at), PAGE, &done), GM_RET_AGAIN);
	cr_assert_eq(h.ops->poison(h.pmap, GM_VA(at), PAGE, &done), GM_RET_AGAIN);
	cr_assert_eq(h.ops->msg_wait(h.pmap, 0), GM_RET_SUCCESS, "nobody learns of what the pump has read");
	cr_assert_eq(h.ops->msg_read(h.pmap, m, 2), 1);
	cr_assert_eq(m[0].kind, GM_HOST_UNMAP);
	OK(h.ops->restore(h.pmap, GM_VA(at), slot, 8 * PAGE, &done));
	(void)steal(&h, at, gm_mask_span(8, 16), slot, GM_RET_SUCCESS);
	OK(h.ops->restore(h.pmap, GM_VA(at) + 8 * PAGE, slot + 8 * PAGE, 8 * PAGE, &done));
	cr_assert_eq(wrong_marks(at, 0, 32), 0);
	OK(h.ops->unwatch(h.pmap, GM_VA(at), 32 * PAGE));
	host_end(&h);
}

/* An access that was made to fail works again once there is content: the page is accessible, with its right to write. */
Test(rung_host, no_move_opens_what_it_closed)
{
	struct host h;
	uint64_t done, word;
	char *at, *src;

	host_begin_on(&h, GM_RUNG_NO_MOVE);
	at = map_app(BLOCK, false);
	src = map_app(BLOCK, false);
	put_marks(src, 0, 8);
	OK(h.ops->watch(h.pmap, GM_VA(at), BLOCK));
	OK(h.ops->poison(h.pmap, GM_VA(at), 6 * PAGE, &done));
	cr_assert_eq(fate(at + 2 * PAGE, false, &word), SIGSEGV);
	cr_assert_eq(h.ops->zero(h.pmap, GM_VA(at), PAGE, &done), GM_RET_EXIST, "zeros took the place of the mark");
	OK(h.ops->fill(h.pmap, GM_VA(at), src, 4 * PAGE, &done));
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(fate(at + i * PAGE, true, &word), 0);
	cr_assert_eq(wrong_marks(at, 0, 4), 0);
	OK(h.ops->unmark(h.pmap, GM_VA(at) + 4 * PAGE, PAGE, &done));
	cr_assert_eq(fate(at + 4 * PAGE, true, &word), 0);
	cr_assert_eq(word, 0);
	cr_assert_eq(fate(at + 5 * PAGE, true, &word), SIGSEGV);
	cr_assert_eq(h.ops->poison(h.pmap, GM_VA(at), PAGE, &done), GM_RET_EXIST, "content was made inaccessible");
	OK(h.ops->unwatch(h.pmap, GM_VA(at), BLOCK));
	host_end(&h);
}

/* The contract of gm_host.h, of pages that are closed. */
Test(rung_host, explicit_opens_only_with_content)
{
	struct host h;
	struct gm_host_steal out;
	struct gm_host_vma vma;
	struct gm_mask present;
	uint64_t slot, done, word;
	char *at;

	host_begin_on(&h, GM_RUNG_EXPLICIT);
	at = map_app(BLOCK, false);
	put_marks(at, 0, 8);
	OK(h.ops->slot_alloc(h.pmap, &slot));
	out = steal(&h, at, gm_mask_span(0, 16), slot, GM_RET_SUCCESS);
	cr_assert(gm_mask_count(&out.moved) == 16 && gm_mask_empty(&out.hole));
	cr_assert_eq(h.ops->zero(h.pmap, GM_VA(at), PAGE, &done), GM_RET_EXIST);
	OK(h.ops->poison(h.pmap, GM_VA(at), PAGE, &done));
	cr_assert_eq(fate(at, false, &word), SIGSEGV);
	cr_assert_eq(h.ops->bus_access(h.dev, GM_VA(at), &word, 8, false), GM_RET_FAULT);
	OK(h.ops->mem_rights(h.pmap, GM_VA(at), &vma));
	cr_assert(vma.access == (GM_READ | GM_WRITE) && vma.bytes == 16 * PAGE, "what the library did is seen as the program's");
	OK(h.ops->mem_present(h.pmap, GM_VA(at), &present));
	cr_assert_eq(gm_mask_count(&present), 16);
	(void)steal(&h, at, gm_mask_span(0, 1), slot, GM_RET_SUCCESS); /* fixed: as it is */
	OK(h.ops->restore(h.pmap, GM_VA(at), slot, 12 * PAGE, &done));
	cr_assert_eq(wrong_marks(at, 0, 8), 0);
	cr_assert_eq(at[8 * PAGE], 0);
	cr_assert_eq(h.ops->restore(h.pmap, GM_VA(at), slot, PAGE, &done), GM_RET_EXIST);
	OK(h.ops->unmark(h.pmap, GM_VA(at) + 12 * PAGE, 4 * PAGE, &done));
	cr_assert_eq(fate(at + 13 * PAGE, true, &word), 0);
	cr_assert_eq(h.ops->unmark(h.pmap, GM_VA(at), PAGE, &done), GM_RET_EXIST);
	cr_assert_eq(wrong_marks(at, 0, 8), 0);
	h.ops->slot_free(h.pmap, slot);
	host_end(&h);
}

/* Two answers to the same question. A page that was only read has content for entries, which cannot tell. */
Test(rung_host, page_map_by_entries_and_by_scan)
{
	struct gm_mask some[2], zero;
	struct gm_host_pmap *p;
	struct host h;
	bool huge;
	char *at;

	host_begin_on(&h, GM_RUNG_NO_MOVE);
	p = h.pmap;
	if (p->by_entries)
		cr_skip_test("NOT TESTED: this kernel has no PAGEMAP_SCAN");
	at = map_app(BLOCK, false);
	for (unsigned i = 0; i < GM_BLOCK_PAGES; i += 1 + i % 5)
		put_marks(at, i, i + 1);
	cr_assert_eq(*(volatile char *)(at + 12 * PAGE), 0);
	OK(gm_host_content(p, GM_VA(at), &some[0], &zero, &huge));
	p->by_entries = true;
	OK(gm_host_content(p, GM_VA(at), &some[1], &zero, &huge));
	cr_assert(gm_mask_equal(&some[0], &some[1]));
	cr_assert(gm_mask_empty(&zero));
	cr_assert_eq(gm_host_has_content(p, GM_VA(at)), 1);
	cr_assert_eq(gm_host_has_content(p, GM_VA(at) + PAGE), gm_mask_test(&some[0], 1));
	host_end(&h);
}

/* As on a kernel before 6.7: pages go and come, and a page that was only read reads as zeros. */
Test(rung_host, no_move_by_entries)
{
	struct gm_host_steal out;
	struct gm_host_pmap *p;
	struct host h;
	uint64_t slot, done;
	char *at;

	host_begin_on(&h, GM_RUNG_NO_MOVE);
	p = h.pmap;
	p->by_entries = true;
	at = map_app(BLOCK, false);
	put_marks(at, 0, 16);
	cr_assert_eq(*(volatile char *)(at + 16 * PAGE), 0);
	OK(h.ops->watch(h.pmap, GM_VA(at), BLOCK));
	OK(h.ops->slot_alloc(h.pmap, &slot));
	out = steal(&h, at, gm_mask_span(0, 20), slot, GM_RET_SUCCESS);
	cr_assert_eq(gm_mask_count(&out.moved), 20);
	cr_assert_eq(gm_mask_count(&out.hole), 3);
	OK(h.ops->restore(h.pmap, GM_VA(at), slot, 17 * PAGE, &done));
	cr_assert_eq(wrong_marks(at, 0, 16), 0);
	cr_assert_eq(at[16 * PAGE], 0);
	OK(h.ops->unwatch(h.pmap, GM_VA(at), BLOCK));
	host_end(&h);
}

Test(rung_host, lower_hosts_refuse_what_cannot_move)
{
	static const enum gm_rung rungs[] = { GM_RUNG_NO_MOVE, GM_RUNG_EXPLICIT };

	for (unsigned i = 0; i < 2; i++) {
		struct host h;
		char *shared = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		char *at = map_app(BLOCK, false);

		host_begin_on(&h, rungs[i]);
		cr_assert_eq(h.ops->watch(h.pmap, GM_VA(shared), BLOCK), GM_RET_NOTSUP);
		cr_assert_eq(munmap(at + 4 * PAGE, PAGE), 0);
		cr_assert_eq(h.ops->watch(h.pmap, GM_VA(at), BLOCK), GM_RET_FAULT);
		host_end(&h);
	}
}

/* Memory that was unmapped without gm_release(), where nobody tells: nothing is written to who has the address now. */
Test(rung_host, explicit_writes_to_no_stranger)
{
	struct rung r;
	char *at = map_app(BLOCK, false);

	rung_begin(&r, GM_RUNG_EXPLICIT, 0, NULL);
	OK(gm_adopt(r.as, at, 64 * PAGE, 0));
	put_marks(at, 0, 64);
	to_dev(&r, at, 64);
	OK(dev_add(&r, at, 64, 1, NULL));
	cr_assert_eq(munmap(at, 16 * PAGE), 0);
	cr_assert_eq(munmap(at + 16 * PAGE, 16 * PAGE), 0);
	cr_assert_eq(mmap(at + 16 * PAGE, 16 * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), at + 16 * PAGE);
	at[16 * PAGE] = 77;
	(void)gm_migrate(r.as, GM_VA(at), 64 * PAGE, NULL, NULL);
	cr_assert_eq(at[16 * PAGE], 77);
	cr_assert_eq(*(volatile uint64_t *)(at + 17 * PAGE + 8), 0, "old bytes came to new memory");
	cr_assert_eq(wrong_words(at, 32, 64, 1), 0);
	rung_end(&r);
	cr_assert_eq(at[16 * PAGE], 77);
	cr_assert_eq(wrong_words(at, 32, 64, 1), 0);
}
