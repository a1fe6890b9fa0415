/* SPDX-License-Identifier: MIT */
/*
 * System calls that look at a word or a string of the process while its page is away; other processes that look at its
 * memory; futexes. Each is right as if the page were there, but for those that the kernel makes fail, and never shows
 * zeros: see docs/debugging.md.
 */
#include "config.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "tests/process/process.h"

TestSuite(calls, .timeout = 290);

/* The page of `at` goes to the device, with what it has now. */
static void send_away(struct proc *p, const void *at)
{
	OK(gm_migrate(p->as, GM_VA(at) & ~(PAGE - 1), PAGE, p->dev, NULL));
	MUST(info_of(p, at).place == GM_PLACE_DEVICE, "away");
}

static void time_and_random(struct proc *p)
{
	struct timespec *ts = (struct timespec *)(p->at + PAGE - 8), before; /* over two pages */
	struct timeval *tv = (struct timeval *)(p->at + 2 * PAGE);
	unsigned char *noise = (unsigned char *)p->at + 3 * PAGE;
	uint64_t sum = 0;

	SYS(clock_gettime(CLOCK_MONOTONIC, &before));
	send_away(p, ts);
	send_away(p, p->at + PAGE);
	SYS(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, ts));
	MUST(ts->tv_sec >= before.tv_sec && ts->tv_sec < before.tv_sec + 1000, "clock_gettime");
	send_away(p, tv);
	SYS(syscall(SYS_gettimeofday, tv, NULL));
	MUST(tv->tv_sec > 1000000000, "gettimeofday");
	memset(noise, 0, 2 * PAGE);
	send_away(p, noise);
	send_away(p, noise + PAGE);
	MUST(getrandom(noise, 2 * PAGE, 0) == (ssize_t)(2 * PAGE), "getrandom");
	for (uint64_t i = 0; i < 2 * PAGE; i++)
		sum += noise[i] != 0;
	MUST(sum > PAGE, "%llu bytes are not zero", (unsigned long long)sum);
}

static void paths_and_structures(struct proc *p)
{
	char *path = p->at + 10 * PAGE - 3; /* over two pages */
	struct stat *st = (struct stat *)(p->at + 12 * PAGE);
	struct epoll_event *ev = (struct epoll_event *)(p->at + 14 * PAGE);
	struct rlimit *lim = (struct rlimit *)(p->at + 16 * PAGE);
	struct timespec *ts = (struct timespec *)(p->at + 18 * PAGE);
	int fd, ep = epoll_create1(EPOLL_CLOEXEC);

	memcpy(path, "/proc/self/status", 18);
	send_away(p, path);
	send_away(p, path + 8);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	MUST(fd >= 0, "open");
	send_away(p, st);
	SYS(fstat(fd, st));
	MUST(S_ISREG(st->st_mode), "fstat");
	close(fd);
	fd = memfd_create("gm-test", MFD_CLOEXEC);
	close(fd);
	MUST(pipe2((int *)(p->at + 20 * PAGE), O_CLOEXEC) == 0, "pipe");
	*ev = (struct epoll_event){ .events = EPOLLOUT, .data.u64 = 77 };
	send_away(p, ev);
	send_away(p, p->at + 20 * PAGE);
	SYS(epoll_ctl(ep, EPOLL_CTL_ADD, ((int *)(p->at + 20 * PAGE))[1], ev));
	send_away(p, ev);
	MUST(epoll_wait(ep, ev, 4, 1000) == 1 && ev->data.u64 == 77, "epoll_wait");
	close(ep);
	close(((int *)(p->at + 20 * PAGE))[0]);
	close(((int *)(p->at + 20 * PAGE))[1]);
	send_away(p, lim);
	SYS(getrlimit(RLIMIT_NOFILE, lim));
	MUST(lim->rlim_cur > 0, "getrlimit");
	*ts = (struct timespec){ 0, 1000 };
	send_away(p, ts);
	SYS(nanosleep(ts, NULL));
}

PLACE_TEST(calls, words_strings_structures)
{
	time_and_random(p);
	paths_and_structures(p);
	/* what they wrote there is everybody's */
	for (uint64_t i = 0; i < 25; i++)
		p->want[i] = *word_at(p->at, i);
	assert_same(p, p->at, 0, PAGES);
}

/* What is away is not in the process's memory, as if it were swapped out; asking does not bring it. */
PLACE_TEST(calls, mincore)
{
	unsigned char *vec = (unsigned char *)p->at + 3 * PAGE;
	uint64_t wrong = 0;
	static unsigned char got[PAGES];

	SYS(mincore(p->at, BYTES, got));
	for (uint64_t i = 0; i < PAGES; i++)
		wrong += (got[i] & 1) != !p->away[i];
	MUST(wrong == 0, "%llu pages", (unsigned long long)wrong);
	assert_placed(p);
	SYS(mincore(p->at, BYTES, vec)); /* into itself */
	for (uint64_t i = 0; i < 4; i++)
		p->want[i] = *word_at(p->at, i);
	assert_same(p, p->at, 0, PAGES);
}

PLACE_TEST(calls, process_vm_of_the_process_itself)
{
	static char got[BYTES];
	struct iovec mine = { got, BYTES }, theirs = { p->at, BYTES };

	MUST(process_vm_readv(getpid(), &mine, 1, &theirs, 1, 0) == (ssize_t)BYTES, "read");
	for (uint64_t i = 0; i < PAGES; i++)
		MUST(*word_at(got, i) == p->want[i], "page %u", (unsigned)i);
	dev_fill(p, p->at, 0, PAGES, 8);
	for (uint64_t i = 0; i < PAGES; i++)
		*word_at(got, i) = p->want[i] = word(i, 9);
	MUST(process_vm_writev(getpid(), &mine, 1, &theirs, 1, 0) == (ssize_t)BYTES, "write");
	assert_same(p, p->at, 0, PAGES);
}

struct other {
	pid_t pid;
	int go, done;
};

/* Another process, there before the pages go away: a fork would bring them home. */
static struct other other_start(struct proc *p, uint64_t *got)
{
	struct iovec mine = { got, BYTES }, theirs = { p->at, BYTES };
	struct other o = { .pid = -1 };
	pid_t parent = getpid();
	int go[2], done[2];

	SYS(pipe(go));
	SYS(pipe(done));
	o.pid = fork();
	MUST(o.pid >= 0, "fork");
	if (o.pid == 0) {
		char c;

		(void)alarm(120);
		c = read(go[0], &c, 1) == 1 && process_vm_readv(parent, &mine, 1, &theirs, 1, 0) == (ssize_t)BYTES;
		for (uint64_t i = 0; c && i < PAGES; i++)
			*word_at((char *)got, i) += 1;
		c = c && process_vm_writev(parent, &mine, 1, &theirs, 1, 0) == (ssize_t)BYTES;
		_exit(write(done[1], &c, 1) == 1 ? 0 : 1);
	}
	o.go = go[1];
	o.done = done[0];
	close(go[0]);
	close(done[1]);
	return o;
}

PLACE_TEST(calls, process_vm_of_another_process)
{
	static uint64_t got[BYTES / 8];
	struct other o = other_start(p, got);
	char c = 0;

	move_there(p);
	assert_placed(p);
	MUST(write(o.go, "g", 1) == 1 && read(o.done, &c, 1) == 1 && c == 1, "the other process");
	MUST(waitpid(o.pid, NULL, 0) == o.pid, "waitpid");
	close(o.go);
	close(o.done);
	for (uint64_t i = 0; i < PAGES; i++)
		p->want[i] += 1;
	assert_same(p, p->at, 0, PAGES);
}

/* --------------------------------------------------------------- futexes */

static long futex(void *at, int op, uint32_t value, const struct timespec *timeout)
{
	return syscall(SYS_futex, at, op, value, timeout, NULL, 0);
}

struct sleeper {
	uint32_t *at;
	int flag;
	atomic_int tid;
	atomic_long ret;
};

static void *sleep_on(void *arg)
{
	static const struct timespec long_enough = { 100, 0 };
	struct sleeper *s = arg;

	atomic_store(&s->tid, (int)gettid());
	atomic_store(&s->ret, futex(s->at, FUTEX_WAIT | s->flag, 5, &long_enough) ? -errno : 0);
	return NULL;
}

/* Does the thread sleep in a futex? */
static bool sleeps(int tid)
{
	char path[64], text[32] = "";
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", tid);
	f = fopen(path, "r");
	if (f && !fgets(text, sizeof(text), f))
		text[0] = 0;
	if (f)
		(void)fclose(f);
	return atoi(text) == SYS_futex;
}

/* Who waits is found by the address, wherever the page has gone meanwhile. */
static void wait_and_wake(struct proc *p, int flag)
{
	struct sleeper s = { .at = (uint32_t *)(p->at + 40 * PAGE), .flag = flag };
	pthread_t id;

	*s.at = 4;
	send_away(p, s.at);
	MUST(futex(s.at, FUTEX_WAIT | flag, 5, NULL) == -1 && errno == EAGAIN, "another value");
	*s.at = 5;
	send_away(p, s.at);
	MUST(pthread_create(&id, NULL, sleep_on, &s) == 0, "pthread_create");
	WAIT_FOR(atomic_load(&s.tid) && sleeps(atomic_load(&s.tid)));
	(void)gm_migrate(p->as, GM_VA(s.at), PAGE, p->dev, NULL);
	WAIT_FOR(futex(s.at, FUTEX_WAKE | flag, 1, NULL) == 1);
	pthread_join(id, NULL);
	MUST(atomic_load(&s.ret) == 0, "%ld", atomic_load(&s.ret));
	p->want[40] = *word_at(p->at, 40);
}

PLACE_TEST(calls, futex)
{
	wait_and_wake(p, FUTEX_PRIVATE_FLAG);
	wait_and_wake(p, 0);
	assert_same(p, p->at, 0, PAGES);
}

/* A lock that is used while its page comes and goes; the count is exact. */
struct counting {
	pthread_mutex_t lock;
	pthread_cond_t more;
	uint64_t n;
};

static void *count_up(void *arg)
{
	struct counting *c = arg;

	for (unsigned i = 0; i < 2000; i++) {
		pthread_mutex_lock(&c->lock);
		c->n++;
		pthread_cond_signal(&c->more);
		pthread_mutex_unlock(&c->lock);
	}
	return NULL;
}

PLACE_TEST(calls, mutex_and_condition)
{
	struct counting *c = (struct counting *)(p->at + 50 * PAGE);
	pthread_t id[2];

	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->more, NULL);
	c->n = 0;
	for (unsigned i = 0; i < 2; i++)
		MUST(pthread_create(&id[i], NULL, count_up, c) == 0, "pthread_create");
	pthread_mutex_lock(&c->lock);
	while (c->n < 4000) {
		(void)gm_migrate(p->as, GM_VA(c), PAGE, p->dev, NULL);
		pthread_cond_wait(&c->more, &c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(id[i], NULL);
	MUST(c->n == 4000, "%llu", (unsigned long long)c->n);
	p->want[50] = *word_at(p->at, 50);
	assert_same(p, p->at, 0, PAGES);
}

/*
 * Futexes that the kernel itself writes to (FUTEX_WAKE_OP; priority inheritance) it does not wait for a page with: they
 * fail with EFAULT while it is away, and change nothing. An access before brings it.
 */
PLACE_TEST(calls, futex_that_the_kernel_writes)
{
	uint32_t *at = (uint32_t *)(p->at + 60 * PAGE), value, nobody = 0;
	const int add_one = FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_LT, 0x800);

	*at = 5;
	send_away(p, at);
	MUST(syscall(SYS_futex, &nobody, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0L, at, add_one) == -1 && errno == EFAULT,
	     "while it is away");
	MUST(info_of(p, (char *)at).place == GM_PLACE_DEVICE, "it is away still");
	value = *at;
	MUST(value == 5, "%u", value);
	MUST(syscall(SYS_futex, &nobody, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0L, at, add_one) >= 0, "when it is home");
	MUST(*at == 6, "%u", *at);
	p->want[60] = *word_at(p->at, 60);
	assert_same(p, p->at, 0, PAGES);
}
