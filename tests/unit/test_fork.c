/* SPDX-License-Identifier: MIT */
/*
 * fork(), posix_spawn(), vfork(), exec with memory on a device: what a child
 * gets under every policy, and that the parent loses nothing. On this machine's
 * real host. The rows anon_write_child and hmm_cow_in_device of the kernel's own tests of
 * device memory are here, with their names.
 */
#include "config.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <spawn.h>
#include <sys/stat.h>

#include "fork_fixture.h"

extern char **environ;

static const struct gm_as_config served = { .size = sizeof(served), .fork = GM_FORK_SERVE };
static const struct gm_as_config servable = { .size = sizeof(servable), .flags = GM_AS_FORK_SERVE };

TestSuite(fork, .timeout = 300);

/* One range under one policy: what the child is like, and where the parent's pages are then. */
static void check_policy(struct forker *f, char *at, enum gm_fork policy)
{
	int status = child_reads(at, 0, PAGES, 2);

	if (policy == GM_FORK_EXCLUDE)
		cr_assert(killed(status, SIGSEGV), "status 0x%x", (unsigned)status);
	else
		cr_assert(exited(status, 0), "policy %u: status 0x%x", (unsigned)policy, (unsigned)status);
	if (policy == GM_FORK_SERVE)
		cr_assert_eq(on_device(f, at, PAGES), PAGES, "%u pages left the device", (unsigned)(PAGES - on_device(f, at, PAGES)));
	if (policy == GM_FORK_HOME)
		cr_assert_eq(on_device(f, at, PAGES), 0);
	cr_assert_eq(dev_wrong(f->ctx, GM_VA(at), PAGES, 2), 0, "the parent goes on");
	cr_assert_eq(wrong(at, 0, PAGES, 2), 0);
	to_device(f, at, 2);
}

Test(fork, every_policy_of_adopted_memory)
{
	struct forker f;

	forker_begin(&f, &servable);
	check_policy(&f, f.at, GM_FORK_HOME);
	for (unsigned round = 0; round < 3; round++) {
		OK(gm_fork_policy(f.as, GM_VA(f.at), BYTES, GM_FORK_EXCLUDE));
		check_policy(&f, f.at, GM_FORK_EXCLUDE);
		OK(gm_fork_policy(f.as, GM_VA(f.at), BYTES, GM_FORK_SERVE));
		check_policy(&f, f.at, GM_FORK_SERVE);
		check_policy(&f, f.at, GM_FORK_SERVE);
		OK(gm_fork_policy(f.as, GM_VA(f.at), BYTES, GM_FORK_DEFAULT));
		check_policy(&f, f.at, GM_FORK_HOME);
	}
	/* The application's alone again: inherited, whatever was said. */
	OK(gm_fork_policy(f.as, GM_VA(f.at), BYTES, GM_FORK_EXCLUDE));
	OK(gm_release(f.as, f.at, BYTES));
	cr_assert(exited(child_reads(f.at, 0, PAGES, 2), 0));
	forker_end(&f);
}

Test(fork, every_policy_of_owned_memory)
{
	struct forker f;
	void *p;

	forker_begin(&f, &servable);
	OK(gm_alloc(f.as, BYTES, 0, &p));
	to_device(&f, p, 2);
	check_policy(&f, p, GM_FORK_EXCLUDE);
	OK(gm_fork_policy(f.as, GM_VA(p), BYTES, GM_FORK_SERVE));
	check_policy(&f, p, GM_FORK_SERVE);
	OK(gm_fork_policy(f.as, GM_VA(p), BYTES, GM_FORK_HOME));
	check_policy(&f, p, GM_FORK_HOME);
	OK(gm_fork_policy(f.as, GM_VA(p), BYTES, GM_FORK_DEFAULT));
	check_policy(&f, p, GM_FORK_EXCLUDE);
	OK(gm_free(f.as, p));
	forker_end(&f);
}

/* The default of a space holds for both kinds; what the program says of a range for that range. */
Test(fork, default_of_a_space)
{
	struct gm_as_config config = { .size = sizeof(config) };
	void *p;

	for (config.fork = GM_FORK_EXCLUDE; config.fork <= GM_FORK_SERVE; config.fork++) {
		struct forker f;

		forker_begin(&f, &config);
		OK(gm_alloc(f.as, BYTES, 0, &p));
		to_device(&f, p, 2);
		check_policy(&f, f.at, (enum gm_fork)config.fork);
		check_policy(&f, p, (enum gm_fork)config.fork);
		OK(gm_free(f.as, p));
		forker_end(&f);
		cr_assert(exited(child_reads(f.at, 0, PAGES, 2), 0), "inherited after the space");
	}
}

/* Pages of one block under three policies. */
Test(fork, policies_side_by_side)
{
	struct forker f;
	char *a;

	forker_begin(&f, &served);
	a = f.at;
	OK(gm_fork_policy(f.as, GM_VA(a) + 100 * PAGE, 10 * PAGE, GM_FORK_EXCLUDE));
	OK(gm_fork_policy(f.as, GM_VA(a) + 300 * PAGE + 1, 10 * PAGE, GM_FORK_HOME)); /* 301 to 309: whole pages inside */
	cr_assert(killed(child_reads(a, 100, 101, 2), SIGSEGV));
	cr_assert(killed(child_reads(a, 109, 110, 2), SIGSEGV));
	cr_assert(exited(child_reads(a, 0, 100, 2), 0));
	cr_assert(exited(child_reads(a, 110, PAGES, 2), 0));
	cr_assert_eq(on_device(&f, a + 301 * PAGE, 9), 0);
	cr_assert_eq(on_device(&f, a + 110 * PAGE, 191), 191);
	cr_assert_eq(on_device(&f, a + 310 * PAGE, PAGES - 310), PAGES - 310);
	OK(gm_fork_policy(f.as, GM_VA(a) + 105 * PAGE, 1 * PAGE, GM_FORK_SERVE)); /* cuts an entry in two */
	to_device(&f, a, 2);
	cr_assert(exited(child_reads(a, 105, 106, 2), 0));
	cr_assert(killed(child_reads(a, 104, 105, 2), SIGSEGV));
	cr_assert(killed(child_reads(a, 106, 107, 2), SIGSEGV));
	OK(gm_fork_policy(f.as, GM_VA(a), BYTES, GM_FORK_DEFAULT));
	cr_assert(exited(child_reads(a, 0, PAGES, 2), 0));
	cr_assert_eq(f.as->forks.n, 0);
	forker_end(&f);
}

/* An address whose memory went: what was said of it does not hold for the next. */
Test(fork, policy_ends_with_the_memory)
{
	struct forker f;

	forker_begin(&f, &servable);
	OK(gm_fork_policy(f.as, GM_VA(f.at), BYTES, GM_FORK_EXCLUDE));
	cr_assert_eq(mmap(f.at, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), f.at);
	OK(gm_adopt(f.as, f.at, BYTES, 0));
	to_device(&f, f.at, 2);
	check_policy(&f, f.at, GM_FORK_HOME);
	forker_end(&f);
}

/* As of the fork: what either side or the device writes afterwards stays theirs. */
static void check_snapshot(enum gm_fork policy)
{
	struct gm_as_config config = { .size = sizeof(config), .fork = policy };
	struct forker f;
	struct turns t;
	pid_t pid;
	int status;

	forker_begin(&f, &config);
	turns_init(&t);
	pid = fork();
	if (pid == 0) {
		uint64_t bad;

		child_signals();
		turn_await(t.down[0]);
		bad = wrong(f.at, 0, PAGES, 2);
		fill(f.at, 0, PAGES, 7);
		turn_give(t.up[1]);
		turn_await(t.down[0]);
		_exit(bad || wrong(f.at, 0, PAGES, 7) ? 1 : 0);
	}
	dev_fill(f.ctx, GM_VA(f.at), PAGES / 2, 5);
	fill(f.at, PAGES / 2, PAGES, 5);
	turn_give(t.down[1]);
	turn_await(t.up[0]);
	cr_assert_eq(dev_wrong(f.ctx, GM_VA(f.at), PAGES, 5), 0);
	cr_assert_eq(wrong(f.at, 0, PAGES, 5), 0);
	to_device(&f, f.at, 6);
	turn_give(t.down[1]);
	status = ended(pid);
	cr_assert(exited(status, 0), "status 0x%x", (unsigned)status);
	cr_assert_eq(wrong(f.at, 0, PAGES, 6), 0);
	forker_end(&f);
}

Test(fork, snapshot_served)
{
	check_snapshot(GM_FORK_SERVE);
}

Test(fork, hmm_cow_in_device)
{
	check_snapshot(GM_FORK_HOME);
}

/*
 * A child makes a library of its own over what it inherited, and its device writes: copied on write, the parent's is
 * as before. With and without huge pages, migrated first or not, under both policies.
 */
static void anon_write_child(bool huge, bool migrated, enum gm_fork policy)
{
	struct gm_as_config config = { .size = sizeof(config), .fork = policy };
	struct forker f, c = { .at = NULL };
	pid_t pid;
	int status;

	forker_begin(&f, &config);
	OK(gm_migrate(f.as, GM_VA(f.at), BYTES, NULL, NULL));
	cr_assert_eq(madvise(f.at, BYTES, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE), 0);
	if (migrated)
		to_device(&f, f.at, 2);
	pid = fork();
	if (pid == 0) {
		child_signals();
		if (wrong(f.at, 0, PAGES, 2) || gm_lib_create(NULL, &c.lib) || gm_dev_open(c.lib, "mock:vram=8M", &c.dev) ||
		    gm_as_create(c.lib, 0, 0, NULL, &c.as) || gm_as_attach(c.as, c.dev, GM_ATTACH_IDENTITY, NULL, &c.ctx) ||
		    gm_adopt(c.as, f.at, BYTES, 0))
			_exit(1);
		if (dev_wrong(c.ctx, GM_VA(f.at), PAGES, 2))
			_exit(2);
		dev_fill(c.ctx, GM_VA(f.at), PAGES, 9);
		if (wrong(f.at, 0, PAGES, 9) || gm_as_destroy(c.as) || gm_dev_destroy(c.dev) || gm_lib_destroy(c.lib))
			_exit(3);
		_exit(wrong(f.at, 0, PAGES, 9) ? 4 : 0);
	}
	status = ended(pid);
	cr_assert(exited(status, 0), "huge %d migrated %d policy %u: status 0x%x", huge, migrated, (unsigned)policy,
		  (unsigned)status);
	cr_assert_eq(dev_wrong(f.ctx, GM_VA(f.at), PAGES, 2), 0);
	cr_assert_eq(wrong(f.at, 0, PAGES, 2), 0);
	forker_end(&f);
}

Test(fork, anon_write_child)
{
	for (unsigned i = 0; i < 8; i++)
		anon_write_child(i & 1, i & 2, i & 4 ? GM_FORK_SERVE : GM_FORK_HOME);
}

/* Handles are the process's that made them. */
Test(fork, a_child_must_not_use_what_its_parent_made)
{
	struct forker f;
	void *p, *q;
	pid_t pid;

	forker_begin(&f, &served);
	OK(gm_alloc(f.as, BYTES, 0, &p));
	pid = fork();
	if (pid == 0) {
		bool refused = gm_free(f.as, p) == GM_RET_INVAL && gm_as_destroy(f.as) == GM_RET_INVAL &&
			       gm_release(f.as, f.at, BYTES) == GM_RET_INVAL && gm_alloc(f.as, PAGE, 0, &q) == GM_RET_INVAL &&
			       gm_as_detach(f.ctx) == GM_RET_INVAL && gm_dev_destroy(f.dev) == GM_RET_INVAL &&
			       gm_fork_policy(f.as, GM_VA(f.at), PAGE, GM_FORK_HOME) == GM_RET_INVAL &&
			       gm_lib_destroy(f.lib) == GM_RET_INVAL;

		_exit(refused && !wrong(f.at, 0, PAGES, 2) ? 0 : 1);
	}
	cr_assert(exited(ended(pid), 0));
	cr_assert_eq(on_device(&f, f.at, PAGES), PAGES);
	OK(gm_free(f.as, p));
	forker_end(&f);
}

Test(fork, spawn_and_exec_lose_nothing)
{
	char *argv[] = { (char *)"true", NULL };
	struct forker f;
	pid_t pid;

	forker_begin(&f, &served);
	for (unsigned i = 0; i < 20; i++) {
		cr_assert_eq(posix_spawnp(&pid, "true", NULL, NULL, argv, environ), 0);
		cr_assert(exited(ended(pid), 0));
		cr_assert_eq(on_device(&f, f.at, PAGES), PAGES, "nobody inherits anything: nothing moves");
		pid = vfork(); // NOLINT(clang-analyzer-security.insecureAPI.vfork)
		if (pid == 0) {
			execvp("true", argv);
			_exit(1);
		}
		cr_assert(exited(ended(pid), 0));
		cr_assert_eq(on_device(&f, f.at, PAGES), PAGES);
		pid = fork();
		if (pid == 0) {
			execvp("true", argv);
			_exit(1);
		}
		cr_assert(exited(ended(pid), 0));
	}
	cr_assert_eq(system("true"), 0);
	cr_assert_eq(dev_wrong(f.ctx, GM_VA(f.at), PAGES, 2), 0);
	cr_assert_eq(wrong(f.at, 0, PAGES, 2), 0);
	forker_end(&f);
}

/* A child of vfork() has its parent's memory, also what is on a device. */
Test(fork, vfork_child_reads_what_is_away)
{
	struct forker f;
	volatile uint64_t bad = 1;
	pid_t pid;

	forker_begin(&f, NULL);
	pid = vfork(); // NOLINT(clang-analyzer-security.insecureAPI.vfork)
	if (pid == 0) {
		bad = wrong(f.at, 0, PAGES, 2); // NOLINT(clang-analyzer-unix.Vfork)
		_exit(0);
	}
	cr_assert(exited(ended(pid), 0));
	cr_assert_eq(bad, 0);
	forker_end(&f);
}

Test(fork, serving_needs_threads)
{
	struct gm_as_config config = { .size = sizeof(config), .flags = GM_AS_NO_THREADS, .fork = GM_FORK_SERVE };
	struct forker f;
	struct gm_as *as = NULL;

	forker_begin(&f, NULL);
	IS(gm_as_create(f.lib, 0, 0, &config, &as), GM_RET_NOTSUP);
	IS(gm_fork_policy(f.as, GM_VA(f.at), BYTES, GM_FORK_SERVE), GM_RET_NOTSUP);
	cr_assert_not_null(strstr(gm_last_error(), "GM_AS_FORK_SERVE"));
	config = (struct gm_as_config){ .size = sizeof(config), .fork = GM_FORK_SERVE + 1 };
	IS(gm_as_create(f.lib, 0, 0, &config, &as), GM_RET_INVAL);
	cr_assert_null(as);
	forker_end(&f);
}

/* CAP_SYS_PTRACE goes; /dev/userfaultfd gives a full one all the same, but no children. */
static void drop_ptrace(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];

	cr_assert_eq(syscall(SYS_capget, &head, data), 0);
	data[0].effective &= ~(1u << CAP_SYS_PTRACE);
	cr_assert_eq(syscall(SYS_capset, &head, data), 0);
}

Test(fork, serving_needs_a_right)
{
	struct gm_lib *lib = NULL;
	struct gm_as *as = NULL;
	gm_ret_t ret;

	drop_ptrace();
	ret = gm_lib_create(NULL, &lib);
	if (ret)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	IS(gm_as_create(lib, 0, 0, &served, &as), GM_RET_PERM);
	cr_assert_not_null(strstr(gm_last_error(), "CAP_SYS_PTRACE"), "%s", gm_last_error());
	cr_assert_null(as);
	OK(gm_as_create(lib, 0, 0, NULL, &as));
	OK(gm_as_destroy(as));
	OK(gm_lib_destroy(lib));
}
