/* SPDX-License-Identifier: MIT */
/*
 * gmem exec: run an unmodified program with its large memory managed by libgmem.
 *
 *     arguments --> can it be served? (gmem_exec_target.c; may this user, on this kernel, with this device? tried here)
 *         --> shared memory, LD_PRELOAD --fork--> the program, with tools/preload inside
 *         --> wait, hand signals on --> table, JSON --> its exit status, or its signal
 *
 * What is wrong is found here, where it can be said, before the program starts; what only the program's process can
 * find out the preload library says through the shared memory, and ends it before its main(). Standard output is the
 * program's alone.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <gmem/gmem.h>

#include "tools/gmem.h"
#include "tools/gmem_exec.h"

#define PRELOAD_NAME "gmem-exec.so"
#define PRELOAD_ENV "GMEM_EXEC_PRELOAD"
/* Of the build; elsewhere the place beside this program counts. */
#ifndef GM_EXEC_LIBDIR
#define GM_EXEC_LIBDIR "/usr/local/lib/gmem"
#endif
#define LEAST_LIMIT (UINT64_C(1) << 20)

struct options {
	const char *device;
	const char *json;
	FILE *json_out; /* open from before the program starts: a report that cannot be written is known then */
	uint64_t limit_bytes;
	char **argv;
	bool quiet;
};

static volatile sig_atomic_t child_pid;

static uint64_t memory_bytes(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void help(FILE *out)
{
	fprintf(out,
		"usage: gmem exec [OPTION...] [--] PROGRAM [ARGUMENT...]\n\n"
		"Runs PROGRAM with its large allocations managed by libgmem: what is cold goes to the device's memory.\n\n"
		"  --device SPEC       the device, such as mock:vram=8G (default: a mock with the machine's memory)\n"
		"  --host-limit BYTES  of its own memory the program has so much on the host; K, M, G (default: half of the\n"
		"                      machine's)\n"
		"  --json FILE         write what moved to FILE\n"
		"  --quiet             no table at the end\n");
}

static int wrong(const char *format, const char *what)
{
	fprintf(stderr, "gmem exec: ");
	fprintf(stderr, format, what); /* NOLINT(clang-diagnostic-format-nonliteral): all are below */
	fprintf(stderr, "\n");
	return GM_EXEC_NOT_STARTED;
}

/* A number with K, M or G; false: it is none. */
static bool parse_bytes(const char *text, uint64_t *bytes)
{
	unsigned shift = 0;
	char *end;

	errno = 0;
	*bytes = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || errno)
		return false;
	if (*end == 'K' || *end == 'k')
		shift = 10;
	else if (*end == 'M' || *end == 'm')
		shift = 20;
	else if (*end == 'G' || *end == 'g')
		shift = 30;
	if (end[shift != 0] || *bytes > UINT64_MAX >> shift)
		return false;
	*bytes <<= shift;
	return true;
}

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
	int i = 1;

	for (; i < argc && argv[i][0] == '-'; i++) {
		const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(name, "--") == 0) {
			i++;
			break;
		}
		if (strcmp(name, "--help") == 0) {
			help(stdout);
			return gm_cmd_written();
		}
		if (strcmp(name, "--quiet") == 0) {
			o->quiet = true;
			continue;
		}
		if (strcmp(name, "--device") && strcmp(name, "--host-limit") && strcmp(name, "--json"))
			return wrong("there is no option %s; gmem exec --help lists them", name);
		if (!value)
			return wrong("%s needs a value", name);
		if (strcmp(name, "--device") == 0)
			o->device = value;
		else if (strcmp(name, "--json") == 0)
			o->json = value;
		else if (!parse_bytes(value, &o->limit_bytes) || o->limit_bytes < LEAST_LIMIT)
			return wrong("--host-limit %s: a number of bytes from 1M on, with K, M or G", value);
		i++;
	}
	if (strlen(o->device) >= sizeof(((struct gm_exec_shared *)NULL)->device))
		return wrong("--device %s: that is too long", o->device);
	if (i >= argc)
		return wrong("%s", "which program? gmem exec --help says more");
	o->argv = argv + i;
	return -1;
}

/* ------------------------------------------------------- what must be there */

static bool is_usable(const char *path)
{
	return access(path, R_OK) == 0 && !strpbrk(path, ": \t\n");
}

/* By the environment; beside this program (not installed); where it is installed, moved or not. */
static bool find_preload(char *path, size_t bytes)
{
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	const char *named = getenv(PRELOAD_ENV);

	if (named && *named) {
		(void)snprintf(path, bytes, "%s", named);
		return is_usable(path);
	}
	exe[n > 0 ? n : 0] = 0;
	*(strrchr(exe, '/') ? strrchr(exe, '/') : exe) = 0;
	(void)snprintf(path, bytes, "%s/" PRELOAD_NAME, exe);
	if (is_usable(path))
		return true;
	(void)snprintf(path, bytes, "%s/../lib/gmem/" PRELOAD_NAME, exe);
	if (is_usable(path))
		return true;
	(void)snprintf(path, bytes, "%s/" PRELOAD_NAME, GM_EXEC_LIBDIR);
	return is_usable(path);
}

/* The same as the preload library will do in the program: whoever may not do it here may not there. */
static int try_device(const char *spec)
{
	struct gm_as *as = NULL;
	struct gm_lib *lib = NULL;
	struct gm_dev *dev = NULL;
	gm_ret_t ret = gm_lib_create(NULL, &lib);
	int status = 0;

	if (!ret)
		ret = gm_as_create(lib, 0, 0, NULL, &as);
	if (ret)
		status = wrong("this process may not manage memory: %s", gm_last_error());
	else if (gm_dev_open(lib, spec, &dev))
		status = wrong("--device: %s", gm_last_error());
	(void)gm_as_destroy(as);
	(void)gm_dev_destroy(dev);
	(void)gm_lib_destroy(lib);
	return status;
}

static struct gm_exec_shared *make_shared(const struct options *o, int *fd)
{
	const char *preload = getenv("LD_PRELOAD");
	struct gm_exec_shared *x;

	*fd = memfd_create("gmem-exec", 0);
	if (*fd < 0 || ftruncate(*fd, sizeof(*x)))
		return NULL;
	x = mmap(NULL, sizeof(*x), PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (x == MAP_FAILED)
		return NULL;
	x->magic = GM_EXEC_MAGIC;
	x->limit_bytes = o->limit_bytes;
	(void)snprintf(x->device, sizeof(x->device), "%s", o->device);
	(void)snprintf(x->preload, sizeof(x->preload), "%s", preload ? preload : "");
	return x;
}

/* ------------------------------------------------------------------ running */

/* A terminal sends its signals to the program as well. */
static void hand_on(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (child_pid > 0 && info->si_code != SI_KERNEL)
		(void)kill((pid_t)child_pid, sig);
}

static const int handed_on[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH };

static void catch_signals(struct sigaction *old)
{
	for (size_t i = 0; i < sizeof(handed_on) / sizeof(handed_on[0]); i++) {
		struct sigaction sa = { .sa_sigaction = hand_on, .sa_flags = SA_SIGINFO | SA_RESTART };

		(void)sigaction(handed_on[i], &sa, &old[i]);
	}
}

/* In the child. Does not return. */
static void become(struct gm_exec_target *t, const char *preload, const struct gm_exec_shared *x, int fd, int error_fd)
{
	char number[16], list[PATH_MAX + 64 + sizeof(x->preload) + 2];
	int err;

	(void)snprintf(number, sizeof(number), "%d", fd);
	(void)snprintf(list, sizeof(list), "%s%s%s", preload, x->preload[0] ? ":" : "", x->preload);
	(void)setenv("LD_PRELOAD", list, 1);
	(void)setenv(GM_EXEC_FD_ENV, number, 1);
	(void)unsetenv(PRELOAD_ENV);
	(void)execv(t->path, t->argv);
	err = errno;
	(void)!write(error_fd, &err, sizeof(err));
	_exit(GM_EXEC_NOT_STARTED);
}

/* 0: it ran; else the exit status. */
static int run(struct gm_exec_target *t, const char *preload, const struct gm_exec_shared *x, int fd, struct gm_exec_outcome *out)
{
	struct sigaction old[sizeof(handed_on) / sizeof(handed_on[0])];
	struct timespec start, end;
	sigset_t all, mask;
	int error[2], err = 0;
	pid_t child;

	if (pipe2(error, O_CLOEXEC))
		return wrong("no pipe: %s", strerror(errno));
	(void)sigfillset(&all);
	(void)clock_gettime(CLOCK_MONOTONIC, &start);
	(void)sigprocmask(SIG_BLOCK, &all, &mask);
	child = fork();
	if (child == 0) {
		(void)sigprocmask(SIG_SETMASK, &mask, NULL);
		become(t, preload, x, fd, error[1]);
	}
	child_pid = child;
	catch_signals(old);
	(void)sigprocmask(SIG_SETMASK, &mask, NULL);
	(void)close(error[1]);
	(void)close(fd);
	if (child < 0)
		return wrong("no process: %s", strerror(errno));
	if (read(error[0], &err, sizeof(err)) != sizeof(err))
		err = 0;
	(void)close(error[0]);
	while (wait4(child, &out->status, 0, &out->usage) < 0 && errno == EINTR)
		;
	child_pid = 0;
	(void)clock_gettime(CLOCK_MONOTONIC, &end);
	out->wall_ns = (uint64_t)(end.tv_sec - start.tv_sec) * 1000000000 + (uint64_t)end.tv_nsec - (uint64_t)start.tv_nsec;
	return err ? wrong("it cannot be executed: %s", strerror(err)) : 0;
}

/* As the program ended, so does this. */
static int end_like(int status)
{
	const struct rlimit no_core = { 0, 0 };
	sigset_t set;
	int sig;

	if (!WIFSIGNALED(status))
		return WEXITSTATUS(status);
	sig = WTERMSIG(status);
	(void)fflush(NULL);
	(void)setrlimit(RLIMIT_CORE, &no_core);
	(void)signal(sig, SIG_DFL);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, sig);
	(void)sigprocmask(SIG_UNBLOCK, &set, NULL);
	(void)raise(sig);
	return 128 + sig;
}

static int report(const struct options *o, const struct gm_exec_shared *x, const struct gm_exec_outcome *out)
{
	if (x->state == GM_EXEC_REFUSED)
		return wrong("not started: %s", x->why);
	if (x->state != GM_EXEC_SERVING)
		fprintf(stderr, "gmem exec: %s ran without libgmem: its loader did not take the preload library\n", o->argv[0]);
	else if (!o->quiet)
		gm_exec_table(stderr, o->argv, x, out);
	if (o->json && !gm_exec_json(o->json_out, o->argv, x, out))
		fprintf(stderr, "gmem exec: %s could not be written\n", o->json);
	return end_like(out->status);
}

int gm_cmd_exec(int argc, char **argv)
{
	static struct gm_exec_target target;
	struct options o = { .limit_bytes = memory_bytes() / 2 };
	struct gm_exec_outcome out = { .status = 0 };
	char spec[64], preload[PATH_MAX + 64], why[PATH_MAX + 256];
	struct gm_exec_shared *x;
	int fd, status;

	(void)snprintf(spec, sizeof(spec), "mock:vram=%lluM,faults=no", (unsigned long long)(memory_bytes() >> 20));
	o.device = spec;
	status = parse(argc, argv, &o);
	if (status >= 0 || !o.argv)
		return status;
	status = gm_exec_find(&target, o.argv, why, sizeof(why));
	if (status) {
		fprintf(stderr, "gmem exec: %s\n", why);
		return status;
	}
	if (!find_preload(preload, sizeof(preload)))
		return wrong("the preload library is not there, or its path has blanks or colons: %s; " PRELOAD_ENV
			     " may name it", preload);
	status = try_device(o.device);
	if (status)
		return status;
	o.json_out = o.json ? fopen(o.json, "we") : NULL;
	if (o.json && !o.json_out)
		return wrong("the file of --json cannot be written: %s", o.json);
	x = make_shared(&o, &fd);
	if (!x)
		return wrong("no shared memory: %s", strerror(errno));
	status = run(&target, preload, x, fd, &out);
	return status ? status : report(&o, x, &out);
}
