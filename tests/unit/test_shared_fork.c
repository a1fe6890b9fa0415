/* SPDX-License-Identifier: MIT */
/*
 * Shared memory and children. While it moves no child has it, whatever is said of the space: an access there is
 * SIGSEGV, never zeros. When it is exported a child has it as any shared memory, unless it is excluded.
 */
#include "config.h"

#include <inttypes.h>

#include "shared_fixture.h"

TestSuite(shared_fork, .timeout = 300);

/* A child that no fork handler sees. */
static int raw_child_reads(char *at, uint64_t salt)
{
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (pid == 0) {
		child_signals();
		_exit(wrong(at, 0, 1, salt) ? 1 : 0);
	}
	return ended(pid);
}

static int child_writes(char *at)
{
	pid_t pid = fork();

	if (pid == 0) {
		child_signals();
		*(volatile char *)at = 1;
		_exit(0);
	}
	return ended(pid);
}

/* `salt` is what devices wrote last. */
static void check_excluded(struct forker *f, uint64_t salt)
{
	cr_assert(killed(child_reads(f->at, 0, 1, salt), SIGSEGV));
	cr_assert(killed(child_reads(f->at, PAGES - 1, PAGES, salt), SIGSEGV));
	dev_fill(f->ctx, GM_VA(f->at), PAGES, salt);
	cr_assert(killed(child_writes(f->at), SIGSEGV));
	dev_fill(f->ctx, GM_VA(f->at), PAGES, salt);
	cr_assert(killed(raw_child_reads(f->at, salt), SIGSEGV));
}

static void moving(enum gm_fork policy, uint32_t flags)
{
	struct gm_as_config config = { .size = sizeof(config), .fork = policy, .flags = flags };
	struct gm_ws_range range;
	struct gm_ws *ws = NULL;
	struct sharer s;
	struct forker *f = &s.f;
	void *owned = NULL;

	begin_with(&s, &config);
	OK(gm_alloc(f->as, BYTES, 0, &owned));
	dev_fill(f->ctx, GM_VA(owned), PAGES, 4);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	check_excluded(f, 2);
	/* What else there is is as the policy says. */
	if (policy == GM_FORK_HOME || policy == GM_FORK_SERVE)
		cr_assert(exited(child_reads(owned, 0, PAGES, 4), 0));
	else
		cr_assert(killed(child_reads(owned, 0, 1, 4), SIGSEGV));
	/* What cannot come home is kept from that child, and given back to the next: but not this. */
	range = (struct gm_ws_range){ .va = GM_VA(f->at), .bytes = BLOCK, .access = RW };
	OK(gm_ws_acquire(f->ctx, &range, 1, GM_FOREVER_NS, &ws));
	cr_assert(killed(child_reads(f->at, 0, 1, 2), SIGSEGV));
	cr_assert(killed(child_reads(f->at, 0, 1, 2), SIGSEGV));
	OK(gm_ws_release(ws, NULL));
	check_excluded(f, 2);
	IS(gm_fork_policy(f->as, GM_VA(f->at), BYTES, GM_FORK_HOME), GM_RET_NOTSUP);
	IS(gm_fork_policy(f->as, GM_VA(f->at), PAGE, GM_FORK_DEFAULT), GM_RET_NOTSUP);
	IS(gm_fork_policy(f->as, GM_VA(f->at), PAGE, GM_FORK_SERVE), GM_RET_NOTSUP);
	check_excluded(f, 2);
	cr_assert_eq(wrong(f->at, 0, PAGES, 2), 0);
	cr_assert_eq(wrong(owned, 0, PAGES, 4), 0);
	end(&s);
}

Test(shared_fork, moving)
{
	moving(GM_FORK_DEFAULT, 0);
}

Test(shared_fork, moving_home)
{
	moving(GM_FORK_HOME, GM_AS_EXCLUSIVE);
}

Test(shared_fork, moving_served)
{
	moving(GM_FORK_SERVE, 0);
}

Test(shared_fork, moving_served_exclusively)
{
	moving(GM_FORK_SERVE, GM_AS_EXCLUSIVE);
}

Test(shared_fork, moving_excluded)
{
	moving(GM_FORK_EXCLUDE, 0);
}

/* A child that lives on and its parent's devices see each other. */
static void check_inherited(struct sharer *s, char *at)
{
	struct forker *f = &s->f;
	struct turns t;
	pid_t pid;

	turns_init(&t);
	dev_fill(f->ctx, GM_VA(at), PAGES, 2);
	pid = fork();
	if (pid == 0) {
		child_signals();
		if (wrong(at, 0, PAGES, 2))
			_exit(1);
		turn_give(t.up[1]);
		turn_await(t.down[0]);
		if (wrong(at, 0, PAGES, 3))
			_exit(2);
		fill(at, 0, PAGES, 5);
		_exit(0);
	}
	turn_await(t.up[0]);
	dev_fill(f->ctx, GM_VA(at), PAGES, 3);
	turn_give(t.down[1]);
	cr_assert(exited(ended(pid), 0));
	cr_assert_eq(dev_wrong(f->ctx, GM_VA(at), PAGES, 5), 0);
	cr_assert_eq(wrong(at, 0, PAGES, 5), 0);
}

static void exported(enum gm_fork policy, uint32_t flags)
{
	struct gm_as_config config = { .size = sizeof(config), .fork = policy, .flags = flags };
	struct sharer s;
	struct forker *f = &s.f;
	void *there = NULL;
	int fd = -1;

	begin_with(&s, &config);
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 2);
	OK(gm_shared_fd(f->as, f->at, &fd));
	OK(gm_map_shared(f->as, fd, 0, BYTES, 0, &there));
	close(fd);
	if (policy == GM_FORK_EXCLUDE) {
		cr_assert(killed(child_reads(f->at, 0, 1, 2), SIGSEGV));
		cr_assert(killed(child_reads(there, 0, 1, 2), SIGSEGV));
		OK(gm_fork_policy(f->as, GM_VA(f->at), BYTES, GM_FORK_HOME));
		OK(gm_fork_policy(f->as, GM_VA(there), BYTES, GM_FORK_HOME));
	}
	check_inherited(&s, f->at);
	check_inherited(&s, there);
	OK(gm_fork_policy(f->as, GM_VA(f->at), BLOCK, GM_FORK_EXCLUDE));
	cr_assert(killed(child_reads(f->at, 0, 1, 5), SIGSEGV));
	dev_fill(f->ctx, GM_VA(f->at), PAGES, 6);
	cr_assert(killed(child_reads(f->at, 0, 1, 6), SIGSEGV), "the thaw gave it back");
	cr_assert(exited(child_reads(there, 0, PAGES, 6), 0));
	OK(gm_fork_policy(f->as, GM_VA(f->at), BYTES, config.fork == GM_FORK_SERVE ? GM_FORK_SERVE : GM_FORK_HOME));
	check_inherited(&s, f->at);
	OK(gm_free(f->as, there));
	end(&s);
}

Test(shared_fork, exported)
{
	exported(GM_FORK_DEFAULT, 0);
}

Test(shared_fork, exported_home)
{
	exported(GM_FORK_HOME, 0);
}

Test(shared_fork, exported_served)
{
	exported(GM_FORK_SERVE, GM_AS_EXCLUSIVE);
}

Test(shared_fork, exported_excluded)
{
	exported(GM_FORK_EXCLUDE, 0);
}

/* ------------------------------------------------- forks at any moment */

/* In a child: what it has of shared memory that it may access is whole, and is exported. Else the line. */
static int judge_maps(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512], perms[8];
	uint64_t begin, end;

	if (!maps)
		return 1;
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s", &begin, &end, perms) != 3)
			return 2;
		if (!strstr(line, "memfd:gmem") || !strncmp(perms, "---", 3))
			continue;
		if (end - begin != BYTES)
			return 3;
		if (wrong(ptr(begin), 0, PAGES, 2))
			return 4;
	}
	fclose(maps);
	return 0;
}

struct maker {
	struct sharer *s;
	atomic_bool stop;
	atomic_uint rounds;
};

static void *make(void *arg)
{
	struct maker *m = arg;
	struct forker *f = &m->s->f;

	while (!atomic_load(&m->stop)) {
		void *p = NULL;
		int fd = -1;

		if (gm_alloc_shared(f->as, BYTES, 0, &p))
			abort();
		if (atomic_load(&m->rounds) % 3 == 0) {
			dev_fill(f->ctx, GM_VA(p), PAGES, 2);
			if (gm_shared_fd(f->as, p, &fd))
				abort();
			close(fd);
		}
		if (gm_free(f->as, p))
			abort();
		atomic_fetch_add(&m->rounds, 1);
	}
	return NULL;
}

static void forks_meanwhile(pid_t (*new_child)(void))
{
	struct sharer s;
	struct maker m = { .s = &s };
	pthread_t id;

	begin(&s, GM_AS_EXCLUSIVE);
	dev_fill(s.f.ctx, GM_VA(s.f.at), PAGES, 3); /* no child has it */
	cr_assert_eq(pthread_create(&id, NULL, make, &m), 0);
	for (unsigned i = 0; i < 100 || atomic_load(&m.rounds) < 30; i++) {
		pid_t pid = new_child();
		int status;

		if (pid == 0) {
			child_signals();
			_exit(judge_maps());
		}
		status = ended(pid);
		cr_assert(exited(status, 0), "status 0x%x", (unsigned)status);
	}
	atomic_store(&m.stop, true);
	pthread_join(id, NULL);
	cr_assert_eq(wrong(s.f.at, 0, PAGES, 3), 0);
	end(&s);
}

static pid_t by_fork(void)
{
	return fork();
}

Test(shared_fork, while_it_is_made_and_exported)
{
	forks_meanwhile(by_fork);
}
