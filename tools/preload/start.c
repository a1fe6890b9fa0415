/* SPDX-License-Identifier: MIT */
/*
 * Before main(): from the environment to a managed program, or to its end.
 *
 *     nobody asked --> idle: every function passes through
 *     asked --> environment as it was --> libgmem, device, space --> server --> the break's memory adopted --> main()
 *                                              '--one of these fails: say why in the shared memory, _exit(126)
 *
 * The server runs before the break's memory is adopted, as from then on nobody else brings its pages.
 *
 * A program that was asked for and cannot be served must not run: it would take memory that it was not to have.
 */
#include "config.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/preload/preload.h"
#include "tools/preload/raw.h"

#define STATUS_NOT_STARTED 126

struct gm_exec gm_exec;

static struct gm_exec_shared *map_shared(void)
{
	const char *text = getenv(GM_EXEC_FD_ENV);
	struct gm_exec_shared *x;
	int fd = text ? atoi(text) : -1;

	if (fd < 0)
		return NULL;
	x = gm_raw_mmap(NULL, sizeof(*x), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (x == MAP_FAILED)
		return NULL;
	if (x->magic != GM_EXEC_MAGIC) {
		(void)gm_raw_munmap(x, sizeof(*x));
		return NULL;
	}
	(void)gm_raw_close(fd);
	return x;
}

/* As if nobody had been here; what the program executes is not managed. */
static void restore_environment(const struct gm_exec_shared *x)
{
	(void)unsetenv(GM_EXEC_FD_ENV);
	if (x->preload[0])
		(void)setenv("LD_PRELOAD", x->preload, 1);
	else
		(void)unsetenv("LD_PRELOAD");
}

/* The unit that comes home around a fault: a small part of what the host may have. */
static uint32_t around_bytes(uint64_t limit_bytes)
{
	uint32_t bytes = GM_UNIT_BYTES;

	while (bytes < GM_BLOCK_BYTES && (uint64_t)bytes * 2 <= limit_bytes / 64)
		bytes *= 2;
	return bytes;
}

/* Anywhere, also in the server: what it says goes nowhere but into the shared memory. */
static void note(void *arg, enum gm_log_level level, const char *message)
{
	size_t i = 0;

	(void)arg;
	(void)level;
	for (; message[i] && i + 1 < sizeof(gm_exec.shared->said); i++)
		gm_exec.shared->said[i] = message[i];
	gm_exec.shared->said[i] = 0;
}

static gm_ret_t open_library(void)
{
	struct gm_lib_config lib_config = { .size = sizeof(lib_config), .log = note, .log_level = GM_LOG_WARN };
	struct gm_as_config config = {
		.size = sizeof(config),
		.flags = GM_AS_EXCLUSIVE | GM_AS_NO_THREADS | GM_AS_WATCH,
		.policy = &gm_exec_policy,
		.cpu_unit_bytes = GM_PAGE_BYTES,
		.cpu_around_bytes = around_bytes(gm_exec.shared->limit_bytes),
	};
	void *vram;
	gm_ret_t ret = gm_lib_create(&lib_config, &gm_exec.lib);

	if (!ret)
		ret = gm_dev_open(gm_exec.lib, gm_exec.shared->device, &gm_exec.dev);
	if (!ret)
		ret = gm_as_create(gm_exec.lib, 0, 0, &config, &gm_exec.as);
	if (!ret)
		ret = gm_as_attach(gm_exec.as, gm_exec.dev, GM_ATTACH_IDENTITY, NULL, &gm_exec.ctx);
	if (!ret && !gm_mock_memory(gm_exec.dev, &vram, &gm_exec.vram_bytes))
		gm_exec.vram_va = GM_VA(vram);
	return ret;
}

static void child(void)
{
	atomic_store(&gm_exec.live, false);
}

static void refuse(const char *what, const char *why)
{
	(void)snprintf(gm_exec.shared->why, sizeof(gm_exec.shared->why), "%s: %s", what, why);
	gm_exec.shared->state = GM_EXEC_REFUSED;
	_exit(STATUS_NOT_STARTED);
}

__attribute__((constructor)) static void start(void)
{
	gm_exec.shared = map_shared();
	if (!gm_exec.shared)
		return;
	restore_environment(gm_exec.shared);
	gm_exec.shared->state = GM_EXEC_LOADED;
	gm_exec_fds_before();
	if (open_library())
		refuse("its memory cannot be managed", gm_last_error());
	gm_exec.pid = (int)syscall(SYS_getpid);
	if (!gm_exec_window_init() || !gm_exec_limit_init() || pthread_atfork(NULL, NULL, child))
		refuse("its memory cannot be managed", "not enough memory or address space (ulimit -v?)");
	if (gm_exec_server_start())
		refuse("its memory cannot be managed", "no thread could be started");
	gm_exec_fds_after();
	gm_exec_heap_init();
	atomic_store(&gm_exec.live, true);
	if (!gm_exec_ask(GM_EXEC_HEAP, 0, 0, 0))
		refuse("its memory cannot be managed", "the heap cannot be watched");
	gm_exec.shared->state = GM_EXEC_SERVING;
}

/* The last figures; who ends otherwise leaves those of a moment ago. */
__attribute__((destructor)) static void finish(void)
{
	if (gm_exec.shared && gm_exec_is_live())
		(void)gm_exec_ask(GM_EXEC_PUBLISH, 0, 0, 0);
}
