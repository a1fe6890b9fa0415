/* SPDX-License-Identifier: MIT */
/*
 * One test, one process.
 *
 *     fork --> RUNS --run() returned--> PASSED            exit 0, else FAILED after all
 *                \--gm_ct_fail()--> FAILED                exit 1
 *                \--gm_ct_need()--> NEEDS                 exit 1
 *                \--signal, exit of the backend--> FAILED, with the operation that ran
 *                \--no operation began or ended for longer than the bound--> killed, FAILED, the same
 *
 * The parent sleeps on a pipe that the child holds open: its end is seen at once, whatever ended it. A child that has
 * closed the pipe, or left it to a process that it forked, is found by waiting for it.
 *
 * Standard output is the parent's, for results: in the child it is standard error. The child leads a process group, and
 * what the backend forked goes with it (but for who left the group).
 */
#include "config.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "conform/gm_ct.h"

#define TICK_MS 100
/* A single wait of a test is bounded; the parent gives it this much longer to say so itself. */
#define GRACE_NS UINT64_C(3000000000)

/* Of the operation that this thread called last. */
static _Thread_local struct gm_ct_note last_note;

uint64_t gm_ct_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void gm_ct_sleep_ns(uint64_t ns)
{
	struct timespec ts = { .tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u) };

	(void)nanosleep(&ts, NULL);
}

static void note_text(const struct gm_ct_note *note, char *buf, size_t bytes)
{
	int n = snprintf(buf, bytes, "%s(", note->op ? note->op : "nothing");
	const struct {
		const char *name;
		uint64_t value;
	} field[] = { { "va", note->va }, { "pa", note->pa }, { "bytes", note->bytes }, { "pte", note->pte } };
	const char *sep = "";

	for (size_t i = 0; i < sizeof(field) / sizeof(field[0]); i++) {
		if (!field[i].value || n < 0 || (size_t)n >= bytes)
			continue;
		n += snprintf(buf + n, bytes - (size_t)n, "%s%s 0x%llx", sep, field[i].name,
			      (unsigned long long)field[i].value);
		sep = ", ";
	}
	if (n > 0 && (size_t)n < bytes)
		(void)snprintf(buf + n, bytes - (size_t)n, ")");
}

void gm_ct_note(struct gm_ct *t, const char *op, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	last_note = (struct gm_ct_note){ .op = op, .va = va, .pa = pa, .bytes = bytes, .pte = pte };
	atomic_store_explicit(&t->shared->op, op, memory_order_relaxed);
	atomic_store_explicit(&t->shared->va, va, memory_order_relaxed);
	atomic_store_explicit(&t->shared->pa, pa, memory_order_relaxed);
	atomic_store_explicit(&t->shared->bytes, bytes, memory_order_relaxed);
	atomic_store_explicit(&t->shared->pte, pte, memory_order_relaxed);
	atomic_fetch_add(&t->shared->progress, 1);
}

/* The first one wins; the others end here. */
static _Noreturn void end(struct gm_ct *t, enum gm_ct_state state, const char *text)
{
	int runs = GM_CT_RUNS;

	if (!atomic_compare_exchange_strong(&t->shared->state, &runs, (int)state)) {
		for (;;)
			(void)pause();
	}
	(void)snprintf(t->shared->reason, sizeof(t->shared->reason), "%s", text);
	_exit(state == GM_CT_PASSED ? 0 : 1);
}

/* What was made to fail before, in the first line, which is the one that everybody reads. */
static void say_service(struct gm_ct *t, char *text, size_t bytes)
{
	char rest[GM_CT_REASON_BYTES];
	size_t first = strcspn(text, "\n");

	(void)snprintf(rest, sizeof(rest), "%s", text + first);
	(void)snprintf(text + first, bytes - first, "; service %s (call %u) was made to fail%s",
		       atomic_load(&t->failed_name), atomic_load(&t->failed_call), rest);
}

void gm_ct_fail(struct gm_ct *t, const char *what, const char *format, ...)
{
	char text[GM_CT_REASON_BYTES];
	va_list args;
	int n = snprintf(text, sizeof(text), "%s: ", what);

	va_start(args, format);
	(void)vsnprintf(text + n, sizeof(text) - (size_t)n, format, args);
	va_end(args);
	if (atomic_load(&t->failed_service))
		say_service(t, text, sizeof(text));
	end(t, GM_CT_FAILED, text);
}

void gm_ct_need(struct gm_ct *t, const char *what)
{
	end(t, GM_CT_NEEDS, what);
}

void gm_ct_want(struct gm_ct *t, gm_ret_t ret, gm_ret_t want)
{
	char op[256];

	atomic_fetch_add(&t->shared->progress, 1);
	if (ret == want)
		return;
	note_text(&last_note, op, sizeof(op));
	gm_ct_fail(t, "result", "%s returned %s (%d), expected %s", op, gm_ret_name(ret), (int)ret, gm_ret_name(want));
}

/* LeakSanitizer's, where the program has it. */
extern int gm_lsan_check(void) __asm__("__lsan_do_recoverable_leak_check") __attribute__((weak));

/* Where standard error is closed nobody reads what is printed. */
static void redirect_output(void)
{
	int fd;

	if (dup2(STDERR_FILENO, STDOUT_FILENO) >= 0)
		return;
	fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)dup2(fd, STDOUT_FILENO);
}

static _Noreturn void child(const struct gm_conform_config *config, const struct gm_ct_test *test,
			    struct gm_ct_shared *shared)
{
	struct gm_ct t = {
		.plugin = config->plugin,
		.options = config->options ? config->options : "",
		.seed = config->seed,
		.bound_ns = config->bound_ns,
		.shared = shared,
	};

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)setpgid(0, 0);
	redirect_output();
	t.services = gm_ct_services_create(&t);
	test->run(&t);
	gm_ct_services_check(t.services);
	if (gm_lsan_check && gm_lsan_check())
		gm_ct_fail(&t, "leak", "memory that came from malloc() is lost, see standard error");
	end(&t, GM_CT_PASSED, "");
}

/* Its process is still there to be waited for, so that its number is nobody else's. */
static bool has_ended(pid_t pid)
{
	siginfo_t info = { .si_pid = 0 };

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == pid;
}

/* Until the child has ended, or does nothing any more. False: it hangs. */
static bool watch(const struct gm_ct_shared *shared, pid_t pid, int fd, uint64_t bound_ns)
{
	struct pollfd p = { .fd = fd }; /* the end is told without being asked for; what is written is not looked at */
	uint64_t seen = 0, since = gm_ct_now_ns();
	int tick_ms = TICK_MS;

	while (!has_ended(pid)) {
		uint64_t progress = atomic_load(&shared->progress);

		if (poll(&p, 1, tick_ms) > 0) {
			p.fd = -1; /* it ends, in a moment; or has closed its side */
			tick_ms = 1;
		}
		if (progress != seen) {
			seen = progress;
			since = gm_ct_now_ns();
		} else if (gm_ct_now_ns() - since > bound_ns + GRACE_NS) {
			return false;
		}
	}
	return true;
}

static void say_end(const struct gm_ct_shared *shared, bool hangs, int status, char *reason, size_t bytes)
{
	struct gm_ct_note note = { .op = atomic_load(&shared->op), .va = atomic_load(&shared->va),
				   .pa = atomic_load(&shared->pa), .bytes = atomic_load(&shared->bytes),
				   .pte = atomic_load(&shared->pte) };
	const char *who = atomic_load(&shared->threads) ? ", but it may have been a thread of the backend" : "";
	char op[256];

	note_text(&note, op, sizeof(op));
	if (hangs)
		(void)snprintf(reason, bytes, "hang: nothing happened any more; the last operation was %s", op);
	else if (WIFSIGNALED(status))
		(void)snprintf(reason, bytes, "crash: signal %d (%s); the last operation was %s%s", WTERMSIG(status),
			       strsignal(WTERMSIG(status)), op, who);
	else
		(void)snprintf(reason, bytes, "exit: the process ended itself with status %d; the last operation was %s%s",
			       WEXITSTATUS(status), op, who);
}

static enum gm_ct_state outcome(const struct gm_ct_shared *shared, pid_t pid, bool hangs, char *reason, size_t bytes)
{
	enum gm_ct_state state;
	int status = 0;

	if (hangs)
		(void)kill(pid, SIGKILL);
	(void)kill(-pid, SIGKILL); /* before the wait: the number of the group is the child's */
	(void)waitpid(pid, &status, 0);
	state = (enum gm_ct_state)atomic_load(&shared->state);
	/* what ends a test that passed is an exit handler, a sanitizer's for example */
	if (state == GM_CT_RUNS || (state == GM_CT_PASSED && status != 0)) {
		say_end(shared, hangs, status, reason, bytes);
		return GM_CT_FAILED;
	}
	(void)snprintf(reason, bytes, "%s", shared->reason);
	return state;
}

/* A pipe that is none of the three standard descriptors, also where one of those is closed. */
static bool pipe_above(int *fds)
{
	int low[2];

	if (pipe(low) != 0)
		return false;
	for (unsigned i = 0; i < 2; i++) {
		fds[i] = fcntl(low[i], F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
		(void)close(low[i]);
	}
	if (fds[0] >= 0 && fds[1] >= 0)
		return true;
	for (unsigned i = 0; i < 2; i++) {
		if (fds[i] >= 0)
			(void)close(fds[i]);
	}
	return false;
}

enum gm_ct_state gm_ct_run(const struct gm_conform_config *config, const struct gm_ct_test *test, char *reason,
			   size_t bytes, uint32_t *caps)
{
	enum gm_ct_state state = GM_CT_FAILED;
	struct gm_ct_shared *shared;
	int fds[2];
	pid_t pid;

	(void)snprintf(reason, bytes, "process: no child process could be started");
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return state;
	if (!pipe_above(fds))
		goto out_unmap;
	(void)fflush(NULL);
	pid = fork();
	if (pid == 0) {
		(void)close(fds[0]);
		child(config, test, shared);
	}
	(void)close(fds[1]);
	if (pid > 0) {
		(void)setpgid(pid, pid); /* whoever comes first */
		state = outcome(shared, pid, !watch(shared, pid, fds[0], config->bound_ns), reason, bytes);
	}
	(void)close(fds[0]);
	*caps = shared->caps;
out_unmap:
	(void)munmap(shared, sizeof(*shared));
	return state;
}
