/* SPDX-License-Identifier: MIT */
/*
 * Signals and threads that end while an access waits for its page. A working set that holds the page makes the wait as
 * long as the test needs: a handler runs in the middle of the access, which is then raised again; leaves it for good with
 * siglongjmp(); touches memory that is away itself. A thread is cancelled there, a process exits, is killed.
 */
#include "config.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "tests/process/process.h"

#define LONG_NS UINT64_C(60000000000)

TestSuite(signals, .timeout = 290);

static struct proc sig;

static void open_dirty(void)
{
	memset(&sig, 0, sizeof(sig));
	sig.place = DIRTY;
	proc_open(&sig);
	proc_get(&sig);
}

static void close_it(void)
{
	proc_put(&sig);
	proc_close(&sig);
}

/* Pages [first, end) cannot come home until it is released. */
static struct gm_ws *hold(uint64_t first, uint64_t end)
{
	struct gm_ws_range range = { .va = GM_VA(sig.at) + first * PAGE, .bytes = (end - first) * PAGE, .access = GM_WRITE };
	struct gm_ws *ws = NULL;

	OK(gm_ws_acquire(sig.ctx, &range, 1, LONG_NS, &ws));
	return ws;
}

struct toucher {
	pthread_t id;
	atomic_int tid;
	atomic_bool done;
	volatile uint64_t *at;
	uint64_t got;
};

static void *touch(void *arg)
{
	struct toucher *t = arg;

	atomic_store(&t->tid, (int)gettid());
	t->got = *t->at;
	atomic_store(&t->done, true);
	return NULL;
}

/* Does the thread wait for a page? */
static bool waits(int tid)
{
	char path[64], text[64] = "";
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/wchan", tid);
	f = fopen(path, "r");
	if (f && !fgets(text, sizeof(text), f))
		text[0] = 0;
	if (f)
		(void)fclose(f);
	return !strcmp(text, "handle_userfault");
}

static void start(struct toucher *t, void *(*fn)(void *), uint64_t page)
{
	memset(t, 0, sizeof(*t));
	t->at = word_at(sig.at, page);
	MUST(pthread_create(&t->id, NULL, fn, t) == 0, "pthread_create");
	WAIT_FOR(atomic_load(&t->tid) && waits(atomic_load(&t->tid)));
	MUST(waits(atomic_load(&t->tid)), "the access does not wait");
}

static void join(struct toucher *t, uint64_t page)
{
	pthread_join(t->id, NULL);
	MUST(t->got == sig.want[page], "page %u: %llx", (unsigned)page, (unsigned long long)t->got);
}

/* ------------------------------------------------------------- handlers */

static atomic_uint handled;

static void count(int signo)
{
	(void)signo;
	atomic_fetch_add(&handled, 1);
}

static void set_handler(int signo, void (*fn)(int), int flags)
{
	struct sigaction sa = { .sa_handler = fn, .sa_flags = flags };

	SYS(sigaction(signo, &sa, NULL));
}

/* Again and again, with and without SA_RESTART (an access is no system call: it is raised again either way). */
Test(signals, handler_during_a_fault)
{
	open_dirty();
	for (unsigned restart = 0; restart < 2; restart++) {
		struct gm_ws *ws;
		struct toucher t;

		dev_fill(&sig, sig.at, 0, PAGES, 3);
		ws = hold(10, 20);
		set_handler(SIGUSR1, count, restart ? SA_RESTART : 0);
		start(&t, touch, 12);
		for (unsigned i = 0; i < 50; i++) {
			unsigned before = atomic_load(&handled);

			pthread_kill(t.id, SIGUSR1);
			WAIT_FOR(atomic_load(&handled) > before);
			MUST(atomic_load(&handled) > before, "the handler ran");
			MUST(!atomic_load(&t.done), "nothing came");
		}
		WAIT_FOR(waits(atomic_load(&t.tid)));
		MUST(waits(atomic_load(&t.tid)), "raised again");
		OK(gm_ws_release(ws, NULL));
		join(&t, 12);
	}
	assert_same(&sig, sig.at, 0, PAGES);
	close_it();
}

static sigjmp_buf out;

static void jump(int signo)
{
	(void)signo;
	siglongjmp(out, 1);
}

static void *touch_or_jump(void *arg)
{
	struct toucher *t = arg;

	if (sigsetjmp(out, 1) == 0)
		return touch(arg);
	atomic_fetch_add(&handled, 1);
	t->got = *t->at; /* a later touch of the same page */
	return NULL;
}

/* The access is given up for good, and the page with its waiter forgotten; then it is touched once more. */
Test(signals, jump_out_of_a_fault)
{
	open_dirty();
	set_handler(SIGUSR1, jump, 0);
	for (unsigned i = 0; i < 20; i++) {
		struct gm_ws *ws = hold(10, 20);
		struct toucher t;

		start(&t, touch_or_jump, 12);
		pthread_kill(t.id, SIGUSR1);
		WAIT_FOR(atomic_load(&handled) > i);
		MUST(atomic_load(&handled) == i + 1, "jumped");
		if (i % 2)
			nap();
		OK(gm_ws_release(ws, NULL));
		join(&t, 12);
		dev_fill(&sig, sig.at, 0, PAGES, 30 + i);
	}
	assert_same(&sig, sig.at, 0, PAGES);
	close_it();
}

static void touch_in_handler(int signo)
{
	uint64_t page = signo == SIGUSR1 ? 40 : 80;

	if (*word_at(sig.at, page) == sig.want[page])
		atomic_fetch_add(&handled, 1);
}

/* Faults in handlers, while the interrupted access waits for another page, and one handler in another. */
Test(signals, fault_in_a_handler)
{
	open_dirty();
	set_handler(SIGUSR1, touch_in_handler, 0);
	set_handler(SIGUSR2, touch_in_handler, 0);
	for (unsigned i = 0; i < 20; i++) {
		struct gm_ws *ws;
		struct toucher t;
		unsigned before = atomic_load(&handled);

		dev_fill(&sig, sig.at, 0, PAGES, 5 + i);
		ws = hold(10, 20);
		start(&t, touch, 12);
		pthread_kill(t.id, SIGUSR1);
		pthread_kill(t.id, SIGUSR2);
		WAIT_FOR(atomic_load(&handled) == before + 2);
		MUST(atomic_load(&handled) == before + 2, "both found the bytes");
		MUST(!atomic_load(&t.done), "the first access waits still");
		OK(gm_ws_release(ws, NULL));
		join(&t, 12);
	}
	close_it();
}

/* The kernel writes the frame of a handler to a signal stack that is on a device; stacks of setjmp(), too. */
Test(signals, signal_stack_that_is_away)
{
	stack_t stack = { .ss_size = 64 * PAGE }, old;
	jmp_buf back;

	open_dirty();
	stack.ss_sp = sig.at + 100 * PAGE;
	SYS(sigaltstack(&stack, &old));
	set_handler(SIGUSR1, touch_in_handler, SA_ONSTACK);
	for (unsigned i = 0; i < 20; i++) {
		OK(gm_migrate(sig.as, GM_VA(sig.at), BYTES, sig.dev, NULL));
		MUST(info_of(&sig, sig.at + 163 * PAGE).place == GM_PLACE_DEVICE, "the stack is away");
		SYS(raise(SIGUSR1));
		MUST(atomic_load(&handled) == i + 1, "handled");
	}
	SYS(sigaltstack(&old, NULL));
	/* a jump buffer there: what setjmp() wrote is what longjmp() reads */
	for (volatile unsigned i = 0; i < 5; i++) {
		jmp_buf *there = (jmp_buf *)(sig.at + 200 * PAGE + 16);

		if (setjmp(*there) == 0) {
			OK(gm_migrate(sig.as, GM_VA(there), PAGE, sig.dev, NULL));
			longjmp(*there, 1);
		}
		MUST(setjmp(back) == 0, "setjmp");
	}
	close_it();
}

/* A signal that comes while the kernel copies: the call is cut short or restarted, no byte is wrong. */
static void *read_into(void *arg)
{
	struct toucher *t = arg;
	static char from[PAGE * 4];
	int fd[2];

	SYS(pipe(fd));
	memset(from, 0x5a, sizeof(from));
	MUST(write(fd[1], from, sizeof(from)) == (ssize_t)sizeof(from), "write");
	atomic_store(&t->tid, (int)gettid());
	t->got = (uint64_t)read(fd[0], sig.at + 11 * PAGE, sizeof(from));
	close(fd[0]);
	close(fd[1]);
	return NULL;
}

Test(signals, handler_during_a_system_call)
{
	struct gm_ws *ws;
	struct toucher t;

	open_dirty();
	set_handler(SIGUSR1, count, SA_RESTART);
	ws = hold(10, 20);
	start(&t, read_into, 12);
	for (unsigned i = 0; i < 20; i++) {
		pthread_kill(t.id, SIGUSR1);
		nap();
	}
	OK(gm_ws_release(ws, NULL));
	pthread_join(t.id, NULL);
	MUST(t.got == 4 * PAGE && atomic_load(&handled) > 0, "%lld read, %u handled", (long long)t.got,
	     atomic_load(&handled));
	for (uint64_t i = 0; i < 4 * PAGE; i++)
		MUST(sig.at[11 * PAGE + i] == 0x5a, "byte %u", (unsigned)i);
	for (uint64_t i = 11; i < 15; i++)
		sig.want[i] = *word_at(sig.at, i);
	assert_same(&sig, sig.at, 0, PAGES);
	close_it();
}

/* -------------------------------------------------------- threads that end */

static void *touch_cancellable(void *arg)
{
	/* A page that is waited for is no cancellation point. (Nothing here whose address the sanitizer would guard.) */
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL); /* NOLINT(cert-pos47-c) */
	return touch(arg);
}

/* Cancelled in the middle of an access; the page is nobody's problem afterwards. */
Test(signals, thread_cancelled_during_a_fault)
{
	open_dirty();
	for (unsigned i = 0; i < 10; i++) {
		struct gm_ws *ws = hold(10, 20);
		struct toucher t;
		void *result = NULL;

		start(&t, touch_cancellable, 12);
		MUST(pthread_cancel(t.id) == 0, "pthread_cancel");
		pthread_join(t.id, &result);
		MUST(result == PTHREAD_CANCELED, "cancelled");
		OK(gm_ws_release(ws, NULL));
		MUST(cpu_wrong(&sig, sig.at, 0, PAGES) == 0, "after a cancelled access");
		dev_fill(&sig, sig.at, 0, PAGES, 40 + i);
	}
	assert_same(&sig, sig.at, 0, PAGES);
	close_it();
}

/* A thread on a stack of its own that devices have; its control block, at the end of the stack, is not among it. */
#define STACK_PAGES 64u
#define CONTROL_PAGES 16u

static uint64_t deep(unsigned n)
{
	volatile char here[1000];

	memset((char *)here, (int)n, sizeof(here));
	if (n == 0)
		return 0;
	if (n % 20 == 0)
		nap(); /* so that it goes meanwhile */
	return deep(n - 1) + (here[n] == (char)n);
}

static void *use_stack(void *arg)
{
	struct toucher *t = arg;

	t->got = deep(100);
	atomic_store(&t->done, true);
	return NULL;
}

/*
 * Others move it while the thread runs. (A thread that calls the library itself must stand elsewhere: it would wait for a
 * page that it is moving. docs/design.md, "Limits".)
 */
Test(signals, stack_that_is_away)
{
	uint64_t bytes = (STACK_PAGES - CONTROL_PAGES) * PAGE;
	struct toucher t = { .tid = 0 };
	unsigned moved = 0;
	pthread_attr_t attr;

	open_dirty();
	OK(gm_release(sig.as, sig.at + bytes, CONTROL_PAGES * PAGE));
	for (unsigned i = 0; i < 10; i++) {
		atomic_store(&t.done, false);
		OK(gm_migrate(sig.as, GM_VA(sig.at), bytes, sig.dev, NULL));
		pthread_attr_init(&attr);
		MUST(pthread_attr_setstack(&attr, sig.at, STACK_PAGES * PAGE) == 0, "pthread_attr_setstack");
		MUST(pthread_create(&t.id, &attr, use_stack, &t) == 0, "pthread_create");
		while (!atomic_load(&t.done))
			moved += gm_migrate(sig.as, GM_VA(sig.at), bytes, sig.dev, NULL) == GM_RET_SUCCESS;
		pthread_join(t.id, NULL);
		pthread_attr_destroy(&attr);
		MUST(t.got == 100, "%llu frames are right", (unsigned long long)t.got);
	}
	MUST(moved > 10, "%u times under it", moved);
	close_it();
}

/* -------------------------------------------------------- processes that end */

/* A child makes a library of its own, its threads wait for pages, and it ends as `how` says. */
static void end_while_waiting(int how)
{
	struct toucher t[4];

	open_dirty();
	(void)hold(0, 64);
	for (unsigned i = 0; i < 4; i++)
		start(&t[i], touch, 8 + i * 10);
	if (how == 1)
		exit(42);
	if (how == 2)
		_exit(42);
	if (how == 3)
		(void)kill(getpid(), SIGKILL);
	if (how == 4)
		execl("/bin/sh", "sh", "-c", "exit 42", (char *)NULL);
	_exit(1);
}

Test(signals, process_ends_during_faults)
{
	struct gm_lib *lib;

	if (gm_lib_create(NULL, &lib))
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	OK(gm_lib_destroy(lib));
	for (int how = 1; how <= 4; how++) {
		int status = 0;
		pid_t pid = fork();

		if (pid == 0)
			end_while_waiting(how);
		MUST(pid > 0 && waitpid(pid, &status, 0) == pid, "waitpid"); /* the suite has a bound */
		MUST(how == 3 ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : WIFEXITED(status) && WEXITSTATUS(status) == 42,
		     "way %d: status 0x%x", how, (unsigned)status);
	}
}

/*
 * docs/debugging.md: a word that the kernel clears when a thread ends (set_tid_address) is not cleared if its page is away,
 * and is not lost either.
 */
static void *end_with_a_word(void *arg)
{
	struct toucher *t = arg;

	*t->at = 77;
	OK(gm_migrate(sig.as, GM_VA(t->at), PAGE, sig.dev, NULL));
	syscall(SYS_set_tid_address, t->at);
	atomic_store(&t->tid, (int)gettid());
	syscall(SYS_exit, 0); /* this thread alone, past the C library */
	return NULL;
}

static bool is_gone(int tid)
{
	return tid && syscall(SYS_tgkill, getpid(), tid, 0) == -1 && errno == ESRCH;
}

Test(signals, word_cleared_at_the_end_of_a_thread)
{
	struct toucher t = { .tid = 0 };

	open_dirty();
	t.at = (volatile uint64_t *)(uintptr_t)(sig.at + 30 * PAGE);
	MUST(pthread_create(&t.id, NULL, end_with_a_word, &t) == 0, "pthread_create");
	WAIT_FOR(is_gone(atomic_load(&t.tid)));
	MUST(is_gone(atomic_load(&t.tid)), "the thread ends");
	MUST(info_of(&sig, sig.at + 30 * PAGE).place == GM_PLACE_DEVICE, "its word is away");
	MUST((uint32_t)*t.at == 77, "%llu", (unsigned long long)*t.at);
	sig.want[30] = *word_at(sig.at, 30);
	assert_same(&sig, sig.at, 0, PAGES);
	close_it();
}
