/* SPDX-License-Identifier: MIT */
/*
 * Latency mode (gmem/inthread.h): the program's own handler of SIGBUS has pages brought home, in the thread that
 * touches them. cc inthread.c $(pkg-config --cflags --libs gmem) && ./a.out
 */
#define _GNU_SOURCE
#include <gmem/gmem.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define N (1u << 17) /* 1 MiB of 64-bit numbers */

static struct gm_as *the_as;
static struct sigaction before;
static volatile sig_atomic_t served;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	if (!gm_inthread_serve(the_as, GM_VA(info->si_addr)))
		served = served + 1; /* the access is made again */
	else
		sigaction(SIGBUS, &before, NULL); /* not ours, or lost: as if there were no handler here */
}

static void must(gm_ret_t ret, const char *what)
{
	if (!ret)
		return;
	printf("%s: %s\n", what, gm_last_error()); /* what failed, and what to do */
	exit(ret == GM_RET_PERM || ret == GM_RET_NOTSUP ? 77 : 1);
}

int main(void)
{
	/* An alternate stack: needed only where a thread's own stack may be such memory. */
	static char stack[256 << 10];
	const stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction on = { .sa_flags = SA_SIGINFO | SA_ONSTACK };
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_ctx *ctx;
	uint64_t *array, sum = 0;
	void *memory;
	int fd[2];

	must(gm_lib_create(NULL, &lib), "an instance");
	must(gm_dev_open(lib, "mock:vram=4M", &dev), "a device");
	must(gm_as_create(lib, 0, 0, NULL, &the_as), "a space");
	must(gm_as_attach(the_as, dev, GM_ATTACH_IDENTITY, NULL, &ctx), "the device in it");
	on.sa_sigaction = on_sigbus;
	(void)sigfillset(&on.sa_mask);
	if (sigaltstack(&alternate, NULL) || sigaction(SIGBUS, &on, &before) || pipe(fd))
		return 1;

	must(gm_alloc(the_as, N * 8, GM_MEM_INTHREAD, &memory), "memory");
	array = memory;
	for (unsigned i = 0; i < N; i++)
		array[i] = 1;
	must(gm_migrate(the_as, GM_VA(array), N * 8, dev, NULL), "to the device");
	for (unsigned i = 0; i < N; i++)
		sum += array[i];

	/* The kernel does not wait for such memory: before a system call it is brought home. */
	must(gm_migrate(the_as, GM_VA(array), N * 8, dev, NULL), "to the device again");
	must(gm_prefault(the_as, GM_VA(array), 4096), "home, for the kernel");
	if (write(fd[1], array, 4096) != 4096)
		return 1;

	printf("%s: %llu of %u elements are right, %d faults were served here\n", sum == N && served ? "good" : "BAD",
	       (unsigned long long)sum, N, (int)served);
	must(gm_as_destroy(the_as), "the end of the space");
	must(gm_dev_destroy(dev), "the end of the device");
	must(gm_lib_destroy(lib), "the end");
	return sum != N || !served;
}
