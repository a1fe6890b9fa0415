/* SPDX-License-Identifier: MIT */
/*
 * Every public function and what it must refuse: one table (api_rows*.h), run row by row in a world in which
 * everything that may be is: a working set is held, a kernel runs, fences are pending and done. After each call the
 * answer is the documented one, gm_last_error() names the function, out-parameters are untouched, and nothing that
 * can be asked for has changed. tests/lint/check-api-table.sh demands rows of each function that a header declares.
 */
#include "config.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <gmem/conform.h>
#include <gmem/mockhw.h>
#include <gmem/plugin.h>
#include <gmem/validate.h>

#include "backends/mock/gm_mock_internal.h"
#include "core/gm_as.h"
#include "core_fixture.h"
#include "fake_backend.h"
#include "hal/gm_handle.h"

#define OUT_BYTES  1024
#define OUT_FILL   0xa5
#define PAGES      16 /* of each piece of memory, looked at */
#define OWN_VA     (UINT64_C(1) << 47) /* where no process has memory */

struct bad {
	struct world *w;
	struct gm_lib *lib, *far_lib;
	struct gm_dev *dev, *idle, *plain, *abroad; /* attached; not attached; no mock; of another instance */
	struct gm_dev *watched, *on_hw; /* by the validation shim, attached; made on hardware of a runtime */
	struct gm_as *as;
	struct gm_ctx *ctx, *plain_ctx, *watched_ctx;
	struct gm_mock_hw *hw, *used_hw; /* with memory and a mapping; with a device */
	uint64_t pa; /* in hw, of the runtime */
	int file; /* open, and no completion */
	char *args[3]; /* of a program */
	struct gm_ws *ws;
	struct gm_fence *fence, *done, *kernel; /* pending, done, of the kernel that runs */
	struct gm_mock_thread *thread;
	atomic_bool leave; /* to the kernel */
	uint64_t va, owned, fresh, unmapped, freed; /* adopted, gm_alloc()ed, the application's, nothing, gm_free()d */
	struct gm_ws_range range; /* a good one */
	struct gm_allocator no_allocator;
	struct gm_mmu cut; /* an ops table that is too short for its last slot */
	void *live[GM_HANDLE_KINDS], *stale[GM_HANDLE_KINDS];
	void *nothing; /* memory that may not be touched */
	void *zeros;   /* memory that nobody made an object of */
	void *h;       /* the handle of this call */
	_Alignas(16) unsigned char out[OUT_BYTES];
};

/* ------------------------------------------------------------- the table */

#define H            (e->h)
#define OUT(type)    ((type *)(void *)e->out)
#define HERE         (API_ROWS_BASE + __LINE__)

#define bad_space(e, ...) \
	gm_as_create((e)->lib, 0, 0, &(struct gm_as_config){ .size = sizeof(struct gm_as_config), __VA_ARGS__ }, \
		     OUT(struct gm_as *))
#define space_of_size(e, bytes) \
	gm_as_create((e)->lib, 0, 0, &(struct gm_as_config){ .size = (bytes) }, OUT(struct gm_as *))
#define bad_window(e, host, bytes, device) \
	gm_as_attach((e)->as, (e)->idle, GM_ATTACH_WINDOW, &(struct gm_window){ host, bytes, device }, \
		     OUT(struct gm_ctx *))
#define bad_room(e, va, bytes, access) \
	gm_ws_room((e)->ctx, &(struct gm_ws_range){ va, bytes, access }, 1, OUT(struct gm_ws_room))
#define bad_set(e, va, bytes, access) \
	gm_ws_acquire((e)->ctx, &(struct gm_ws_range){ va, bytes, access }, 1, SECOND, OUT(struct gm_ws *))
#define bad_lib(e, ...) \
	gm_lib_create(&(struct gm_lib_config){ .size = sizeof(struct gm_lib_config), __VA_ARGS__ }, OUT(struct gm_lib *))
#define bad_mock(e, ...) \
	gm_dev_create((e)->lib, gm_mock_mmu(), \
		      &(struct gm_mock_config){ .size = sizeof(struct gm_mock_config), __VA_ARGS__ }, OUT(struct gm_dev *))
#define bad_hw(e, ...) \
	gm_mock_hw_create(&(struct gm_mock_config){ .size = sizeof(struct gm_mock_config), __VA_ARGS__ }, \
			  OUT(struct gm_mock_hw *))
#define watched_by(e, ...) \
	gm_dev_create((e)->lib, gm_validate_mmu(), &(struct gm_validate_config){ __VA_ARGS__ }, OUT(struct gm_dev *))
#define rule_of(size_, op_, where_, nth_, result_) \
	((struct gm_mock_rule){ .size = (size_), .op = (op_), .where = (where_), .nth = (nth_), .count = 1, \
				.result = (result_) })
#define bad_rule(e, ...) gm_mock_rule_add((e)->dev, &rule_of(__VA_ARGS__))
#define RULE_BYTES	 sizeof(struct gm_mock_rule)
#define GOOD_RULE	 rule_of(RULE_BYTES, GM_MOCK_COPY, GM_MOCK_ANYWHERE, 1, GM_RET_IO)
#define bad_suite(e, bytes, ...) \
	gm_conform_run(&(struct gm_conform_config){ .size = (bytes), __VA_ARGS__ }, OUT(struct gm_conform_summary))
#define SUITE_BYTES sizeof(struct gm_conform_config)

static void never_told(void *arg, const struct gm_mock_event *event)
{
	(void)arg, (void)event;
	cr_assert_fail("an event, from a device that was refused");
}

static gm_ret_t no_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	(void)thread, (void)index, (void)arg;
	return GM_RET_SUCCESS;
}

struct row {
	const char *function, *what, *file;
	int line; /* in the file, and the file's base */
	enum gm_handle_kind handle; /* 0: a ROW */
	intmax_t null_answer, answer;
};

static const struct row table[] = {
#define HANDLE(function, parameter, KIND, call, null_answer, answer) \
	{ #function, #parameter, __FILE__, HERE, GM_HANDLE_##KIND, (intmax_t)(null_answer), (intmax_t)(answer) },
#define ROW(function, kind, what, call, answer) \
	{ #function, #kind ": " what, __FILE__, HERE, (enum gm_handle_kind)0, 0, (intmax_t)(answer) },
#include "api_rows.h"
#undef HANDLE
#undef ROW
};

/* The call of a row. */
static intmax_t call(struct bad *e, int line)
{
	switch (line) {
#define HANDLE(function, parameter, KIND, call, null_answer, answer) \
	case HERE:                                                   \
		return (intmax_t)(call);
#define ROW(function, kind, what, call, answer) \
	case HERE:                              \
		return (intmax_t)(call);
#include "api_rows.h"
#undef HANDLE
#undef ROW
	default:
		cr_assert_fail("no such row");
		return 0;
	}
}

/* ------------------------------------------------------ what must not change */

struct snap {
	struct gm_page_info page[3][PAGES];
	struct gm_dev_info dev[4];
	struct gm_stats stats;
	uint64_t words;
	gm_ret_t fence[3];
	char hw[64];
};

static void look(struct bad *e, struct snap *s)
{
	struct gm_dev *const dev[] = { e->dev, e->idle, e->plain, e->abroad };
	const uint64_t va[] = { e->va, e->owned, e->fresh };

	memset(s, 0, sizeof(*s));
	for (unsigned i = 0; i < 3; i++)
		OK(gm_query(e->as, va[i], PAGES, s->page[i]));
	for (unsigned i = 0; i < 4; i++)
		OK(gm_dev_query(dev[i], &s->dev[i]));
	OK(gm_as_stats(e->as, &s->stats));
	s->stats.ns_ws = 0; /* also of a set that was refused */
	s->words = app_wrong(e->w, e->fresh, PAGES, 3) + app_wrong(e->w, e->va + 8 * PAGE, PAGES, 8);
	s->fence[0] = gm_fence_wait(e->fence, 0);
	s->fence[1] = gm_fence_wait(e->done, 0);
	s->fence[2] = gm_fence_wait(e->kernel, 0);
	OK(gm_mock_hw_read(e->hw, e->pa, s->hw, sizeof(s->hw)));
	world_check(e->w);
}

static void compare(const struct snap *old, const struct snap *new, const char *where)
{
	for (unsigned i = 0; i < 3; i++)
		for (unsigned p = 0; p < PAGES; p++)
			cr_assert_arr_eq(&new->page[i][p], &old->page[i][p], sizeof(old->page[i][p]),
					 "%s: page %u of memory %u changed", where, p, i);
	cr_assert_arr_eq(new->dev, old->dev, sizeof(old->dev), "%s: a device changed", where);
	cr_assert_arr_eq(&new->stats, &old->stats, sizeof(old->stats), "%s: the counters changed", where);
	cr_assert_eq(new->words, old->words, "%s: bytes changed", where);
	cr_assert_arr_eq(new->fence, old->fence, sizeof(old->fence), "%s: a fence changed", where);
	cr_assert_arr_eq(new->hw, old->hw, sizeof(old->hw), "%s: memory of a runtime changed", where);
}

/* ------------------------------------------------------------- the world */

static gm_ret_t stay(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	struct bad *e = arg;

	(void)index;
	e->thread = thread;
	while (!atomic_load(&e->leave))
		gm_mock_yield(thread);
	return GM_RET_SUCCESS;
}

static gm_ret_t remember_thread(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	(void)index;
	((struct bad *)arg)->stale[GM_HANDLE_MOCK_THREAD] = thread;
	return GM_RET_SUCCESS;
}

static void open_devices(struct bad *e)
{
	static struct gm_mmu plain;
	struct world *w = e->w;

	plain = fake_mmu();
	e->cut = *gm_mock_mmu();
	e->cut.size = offsetof(struct gm_mmu, pmap_protect) + 4;
	fake.dev = e->nothing; /* a handle of the vendor's need not be an address that can be read */
	OK(gm_dev_open(e->lib, "mock:vram=4M", &w->dev[0]));
	OK(gm_dev_open(e->lib, "mock:vram=1M", &w->dev[1]));
	OK(gm_dev_create(e->lib, &plain, &fake, &e->plain));
	OK(gm_dev_open(e->far_lib, "mock:vram=64K", &e->abroad));
	e->dev = w->dev[0];
	e->idle = w->dev[1];
	OK(gm_as_create(e->lib, 0, 0, NULL, &w->as));
	e->as = w->as;
	OK(gm_as_attach(e->as, e->dev, GM_ATTACH_IDENTITY, NULL, &e->ctx));
	OK(gm_as_attach(e->as, e->plain, GM_ATTACH_IDENTITY, NULL, &e->plain_ctx));
}

/* A device around which the shim is, also where the build has none by default. */
static struct gm_dev *open_watched(struct bad *e)
{
	struct gm_validate_config config = { .size = sizeof(config), .mmu = gm_mock_mmu() };
	struct gm_dev *dev;

	OK(gm_dev_create(e->lib, gm_validate_mmu(), &config, &dev));
	return dev;
}

static void open_others(struct bad *e)
{
	struct gm_mock_config config = { .size = sizeof(config), .vram_bytes = 4 * UNIT };
	static char name[] = "suite", option[] = "--what";
	const char text[] = "of the runtime";

	e->watched = open_watched(e);
	OK(gm_as_attach(e->as, e->watched, GM_ATTACH_IDENTITY, NULL, &e->watched_ctx));
	OK(gm_mock_hw_create(&config, &e->hw));
	OK(gm_mock_hw_alloc(e->hw, UNIT, &e->pa));
	OK(gm_mock_hw_write(e->hw, e->pa, text, sizeof(text)));
	OK(gm_mock_hw_map(e->hw, OWN_VA, e->pa, UNIT, GM_WRITE));
	OK(gm_mock_hw_create(&config, &e->used_hw));
	config = (struct gm_mock_config){ .size = sizeof(config), .hw = e->used_hw };
	OK(gm_dev_create(e->lib, gm_mock_mmu(), &config, &e->on_hw));
	OK(gm_mock_expect(e->on_hw, "")); /* nothing comes, and that is so at the end */
	e->file = open("/dev/null", O_RDONLY);
	cr_assert_geq(e->file, 0);
	e->args[0] = name;
	e->args[1] = option;
}

static void fill_memory(struct bad *e)
{
	struct gm_ws_range set[2];
	void *p;

	e->va = app_adopted(e->w, 1, 1);
	app_fill(e->w, e->va + 8 * PAGE, PAGES, 8);
	e->fresh = app_map_blocks(e->w, 1);
	app_fill(e->w, e->fresh, PAGES, 3);
	OK(gm_alloc(e->as, BLOCK, 0, &p));
	e->owned = GM_VA(p);
	e->range = (struct gm_ws_range){ .va = e->va, .bytes = 4 * PAGE, .access = GM_READ };
	set[0] = e->range;
	set[1] = (struct gm_ws_range){ .va = e->owned, .bytes = 4 * PAGE, .access = GM_WRITE };
	OK(gm_ws_acquire(e->ctx, set, 2, SECOND, &e->ws));
	OK(gm_alloc(e->as, PAGE, 0, &p));
	e->unmapped = app_map_blocks(e->w, 1);
	e->freed = GM_VA(p);
	OK(gm_free(e->as, p));
	OK(gm_sim_munmap(e->w->sim, e->unmapped, BLOCK));
}

static void make_fences(struct bad *e)
{
	OK(gm_fence_create(e->lib, &e->fence));
	OK(gm_fence_create(e->lib, &e->done));
	OK(gm_fence_signal(e->done, GM_RET_IO));
	OK(gm_mock_launch(e->ctx, stay, e, 1, &e->kernel));
	while (!e->thread)
		gm_yield(e->w->env);
}

/* One of each kind, after all that live, so that none of these has its address. */
static void make_stale(struct bad *e)
{
	struct gm_fence *fence;
	struct gm_mock_hw *hw;
	struct gm_ctx *ctx;
	struct gm_dev *dev;
	struct gm_as *as;
	struct gm_ws *ws;

	OK(gm_mock_hw_create(NULL, &hw));
	OK(gm_mock_hw_destroy(hw));
	e->stale[GM_HANDLE_MOCK_HW] = hw;
	dev = open_watched(e);
	OK(gm_as_attach(e->as, dev, GM_ATTACH_IDENTITY, NULL, &ctx));
	e->stale[GM_HANDLE_SHIM] = dev->hal->dev;
	e->stale[GM_HANDLE_SHIM_PMAP] = ctx->pmap;
	OK(gm_as_detach(ctx));
	OK(gm_dev_destroy(dev));
	OK(gm_mock_launch(e->ctx, remember_thread, e, 1, &fence));
	OK(gm_fence_wait(fence, GM_FOREVER_NS));
	gm_fence_put(fence);
	OK(gm_dev_open(e->lib, "mock:vram=64K", &dev));
	OK(gm_as_create(e->lib, 0, 0, NULL, &as));
	OK(gm_as_attach(e->as, e->idle, GM_ATTACH_IDENTITY, NULL, &ctx));
	OK(gm_ws_acquire(e->ctx, &e->range, 1, SECOND, &ws));
	OK(gm_fence_create(e->lib, &fence));
	gm_fence_put(fence);
	OK(gm_ws_release(ws, NULL));
	OK(gm_as_detach(ctx));
	OK(gm_as_destroy(as));
	OK(gm_dev_destroy(dev));
	e->stale[GM_HANDLE_FENCE] = fence;
	e->stale[GM_HANDLE_WS] = ws;
	e->stale[GM_HANDLE_CTX] = ctx;
	e->stale[GM_HANDLE_AS] = as;
	e->stale[GM_HANDLE_DEV] = dev;
}

static void open_world(struct bad *e, struct world *w)
{
	struct gm_lib *gone;

	e->w = w;
	e->lib = w->lib;
	e->nothing = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	e->zeros = calloc(1, PAGE);
	cr_assert(e->nothing != MAP_FAILED && e->zeros);
	OK(gm_lib_create_on(w->env, gm_sim_host_mmu(), gm_sim_host_data(w->sim), &e->far_lib));
	OK(gm_lib_create_on(w->env, gm_sim_host_mmu(), gm_sim_host_data(w->sim), &gone));
	OK(gm_lib_destroy(gone));
	e->stale[GM_HANDLE_LIB] = gone;
	open_devices(e);
	open_others(e);
	fill_memory(e);
	make_fences(e);
	make_stale(e);
	e->live[GM_HANDLE_LIB] = e->lib;
	e->live[GM_HANDLE_DEV] = e->dev;
	e->live[GM_HANDLE_AS] = e->as;
	e->live[GM_HANDLE_CTX] = e->ctx;
	e->live[GM_HANDLE_WS] = e->ws;
	e->live[GM_HANDLE_FENCE] = e->fence;
	e->live[GM_HANDLE_MOCK] = gm_dev_backend(e->dev);
	e->live[GM_HANDLE_MOCK_THREAD] = e->thread;
	e->live[GM_HANDLE_MOCK_HW] = e->hw;
	e->live[GM_HANDLE_SHIM] = e->watched->hal->dev;
	e->live[GM_HANDLE_SHIM_PMAP] = e->watched_ctx->pmap;
	for (unsigned kind = 1; kind < GM_HANDLE_KINDS; kind++) {
		cr_assert(gm_handle_live(e->live[kind], (enum gm_handle_kind)kind), "kind %u", kind);
		if (kind != GM_HANDLE_MOCK)
			cr_assert(e->stale[kind] && !gm_handle_live(e->stale[kind], (enum gm_handle_kind)kind), "kind %u",
				  kind);
	}
}

/* All is as good as before: what was refused took nothing away. */
static void close_world(struct bad *e)
{
	OK(gm_fence_signal(e->fence, GM_RET_SUCCESS));
	gm_fence_put(e->fence);
	gm_fence_put(e->done);
	atomic_store(&e->leave, true);
	OK(gm_fence_wait(e->kernel, GM_FOREVER_NS));
	gm_fence_put(e->kernel);
	OK(gm_ws_release(e->ws, NULL));
	OK(gm_free(e->as, ptr(e->owned)));
	OK(gm_release(e->as, ptr(e->va), BLOCK));
	cr_assert_eq(app_wrong(e->w, e->va + 8 * PAGE, PAGES, 8), 0);
	OK(gm_as_destroy(e->as));
	e->w->as = NULL;
	OK(gm_dev_destroy(e->plain));
	OK(gm_dev_destroy(e->watched));
	OK(gm_mock_expect_end(e->on_hw, NULL, 0));
	OK(gm_dev_destroy(e->on_hw));
	close(e->file);
	OK(gm_mock_hw_destroy(e->used_hw));
	OK(gm_mock_hw_destroy(e->hw));
	OK(gm_dev_destroy(e->abroad));
	OK(gm_lib_destroy(e->far_lib));
	(void)munmap(e->nothing, PAGE);
	free(e->zeros);
}

/* ------------------------------------------------------------ the checks */

/* One call; what it answers, what it says, and that it did nothing. */
static void try_call(struct bad *e, const struct row *row, const char *form, intmax_t answer)
{
	struct snap old, new;
	char where[200];
	intmax_t is;

	(void)snprintf(where, sizeof(where), "%s:%d: %s(%s%s%s)", row->file, row->line % 1000, row->function, row->what,
		       form ? " = " : "", form ? form : "");
	memset(e->out, OUT_FILL, sizeof(e->out));
	look(e, &old);
	gm_fail_note("-");
	is = call(e, row->line);
	cr_assert_eq(is, answer, "%s: %jd instead of %jd: %s", where, is, answer, gm_last_error());
	/* The suite is another archive, which has the public functions only. */
	if (answer == GM_RET_INVAL && strncmp(row->function, "gm_conform_", strlen("gm_conform_")) != 0)
		cr_assert(strcmp(gm_last_error(), "-") != 0, "%s gives no reason", where);
	if (row->handle && e->h)
		cr_assert(strncmp(gm_last_error(), row->function, strlen(row->function)) == 0,
			  "%s is not named in \"%s\"", where, gm_last_error());
	for (unsigned i = 0; i < OUT_BYTES; i++)
		cr_assert_eq(e->out[i], OUT_FILL, "%s: byte %u of an out-parameter changed", where, i);
	look(e, &new);
	compare(&old, &new, where);
}

/* Everything that is no live object of this kind. */
static void try_handle(struct bad *e, const struct row *row)
{
	const struct {
		const char *form;
		void *h;
	} forms[] = {
		{ "NULL", NULL },
		{ "destroyed", e->stale[row->handle] },
		{ "an instance", e->live[GM_HANDLE_LIB] },
		{ "a device", e->live[GM_HANDLE_DEV] },
		{ "a space", e->live[GM_HANDLE_AS] },
		{ "a context", e->live[GM_HANDLE_CTX] },
		{ "a working set", e->live[GM_HANDLE_WS] },
		{ "a fence", e->live[GM_HANDLE_FENCE] },
		{ "a mock", e->live[GM_HANDLE_MOCK] },
		{ "a kernel's thread", e->live[GM_HANDLE_MOCK_THREAD] },
		{ "hardware", e->live[GM_HANDLE_MOCK_HW] },
		{ "a shim", e->live[GM_HANDLE_SHIM] },
		{ "a shim's page table", e->live[GM_HANDLE_SHIM_PMAP] },
		{ "inside an object", (char *)e->live[row->handle] + 16 },
		{ "beside an object", (char *)e->live[row->handle] + 1 },
		{ "no memory", e->nothing },
		{ "zeros", e->zeros },
		{ "1", (void *)(uintptr_t)1 },
		{ "16", (void *)(uintptr_t)16 },
		{ "no address", (void *)(uintptr_t)0xdeadbeefdeadbee0 },
		{ "the last address", (void *)UINTPTR_MAX },
	};

	for (unsigned i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		e->h = forms[i].h;
		if (e->h == e->live[row->handle])
			continue;
		try_call(e, row, forms[i].form, e->h ? row->answer : row->null_answer);
	}
	e->h = NULL;
}

CORE_TEST(api_bad, table, .bare = true)
{
	static struct bad bad;

	open_world(&bad, w);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (table[i].handle)
			try_handle(&bad, &table[i]);
		else
			try_call(&bad, &table[i], NULL, table[i].answer);
	}
	close_world(&bad);
}

/* ---------------------------------------------------- on the real machine */

static struct gm_lib *real_lib(void)
{
	struct gm_lib *lib = NULL;
	gm_ret_t ret = gm_lib_create(NULL, &lib);

	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("no userfaultfd here: %s", gm_last_error());
	OK(ret);
	return lib;
}

static void *signal_it(void *fence)
{
	(void)gm_fence_signal(fence, GM_RET_SUCCESS);
	gm_fence_put(fence);
	return NULL;
}

/* Whoever is in gm_fence_signal() when the last reference goes is waited for; whoever has one is not. */
Test(api_bad, fences_keep_their_instance)
{
	struct gm_lib *lib = real_lib();
	struct gm_fence *fence;
	pthread_t thread;

	OK(gm_fence_create(lib, &fence));
	IS(gm_lib_destroy(lib), GM_RET_BUSY);
	cr_assert_not_null(strstr(gm_last_error(), "1 fences"), "%s", gm_last_error());
	gm_fence_put(fence);
	OK(gm_lib_destroy(lib));
	IS(gm_lib_destroy(lib), GM_RET_INVAL);
	for (unsigned i = 0; i < 200; i++) {
		lib = real_lib();
		OK(gm_fence_create(lib, &fence));
		cr_assert_eq(pthread_create(&thread, NULL, signal_it, gm_fence_get(fence)), 0);
		OK(gm_fence_wait(fence, GM_FOREVER_NS));
		gm_fence_put(fence);
		while (gm_lib_destroy(lib) == GM_RET_BUSY) /* until the other thread has given its own back */
			;
		cr_assert_eq(pthread_join(thread, NULL), 0);
	}
}

/* What a child may ask for: nothing of its parent's, everything of its own. */
static int in_child(struct gm_lib *lib, struct gm_as *as, struct gm_fence *fence)
{
	struct gm_lib *own;
	struct gm_stats stats;

	if (gm_as_stats(as, &stats) != GM_RET_INVAL || gm_as_destroy(as) != GM_RET_INVAL)
		return 1;
	if (gm_fence_wait(fence, GM_FOREVER_NS) != GM_RET_INVAL || gm_lib_destroy(lib) != GM_RET_INVAL)
		return 2;
	gm_fence_put(fence);
	if (gm_lib_create(NULL, &own) || gm_as_create(own, 0, 0, NULL, &as))
		return 3;
	return gm_as_destroy(as) || gm_lib_destroy(own) ? 4 : 0;
}

Test(api_bad, a_child_is_refused)
{
	struct gm_lib *lib = real_lib();
	struct gm_fence *fence;
	struct gm_as *as;
	int status;
	pid_t pid;

	OK(gm_as_create(lib, 0, 0, NULL, &as));
	OK(gm_fence_create(lib, &fence));
	pid = fork();
	if (pid == 0)
		_exit(in_child(lib, as, fence));
	cr_assert_gt(pid, 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", (unsigned)status);
	IS(gm_fence_wait(fence, 0), GM_RET_TIMEDOUT);
	gm_fence_put(fence);
	OK(gm_as_destroy(as));
	OK(gm_lib_destroy(lib));
}
