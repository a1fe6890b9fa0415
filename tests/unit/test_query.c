/* SPDX-License-Identifier: MIT */
/*
 * gm_query_host(): what the kernel has of each page, told along with where the library has it: on the simulated host,
 * and on this machine, where there are pages of zeros, huge pages, and mappings with rights.
 */
#include "config.h"

#include "pack_fixture.h"

#include <sys/mman.h>

static struct gm_page_info look(struct gm_as *as, uint64_t va)
{
	struct gm_page_info info;

	OK(gm_query_host(as, va, 1, &info));
	return info;
}

CORE_TEST(query, rights_and_absent_pages)
{
	uint64_t va = app_map_blocks(w, 1);
	struct gm_page_info info;

	app_fill(w, va, 8, 1);
	OK(gm_adopt(w->as, ptr(va + PAGE), BLOCK - PAGE, 0));
	OK(gm_protect(w->as, va + 2 * PAGE, PAGE, GM_READ));
	OK(gm_protect(w->as, va + 3 * PAGE, PAGE, 0));
	info = look(w->as, va);
	cr_assert_eq(info.place, GM_PLACE_OUTSIDE);
	cr_assert_eq(info.access, RW);
	cr_assert_eq(info.map_bytes, PAGE);
	cr_assert_eq(info.flags, 0);
	cr_assert_eq(look(w->as, va + PAGE).access, RW);
	cr_assert_eq(look(w->as, va + 2 * PAGE).access, GM_READ);
	cr_assert_eq(look(w->as, va + 3 * PAGE).access, 0);
	info = look(w->as, va + 100 * PAGE);
	cr_assert_eq(info.place, GM_PLACE_HOST);
	cr_assert_eq(info.flags, GM_PAGE_ABSENT);
	cr_assert_eq(info.map_bytes, 0);
	info = look(w->as, va - PAGE); /* nothing is mapped */
	cr_assert_eq(info.access, 0);
	cr_assert_eq(info.place, GM_PLACE_OUTSIDE);
	OK(gm_query(w->as, va + PAGE, 1, &info));
	cr_assert_eq(info.access, 0, "only who asks for it pays for it");
	OK(gm_protect(w->as, va, BLOCK, RW));
}

CORE_TEST(query, on_a_device, .dev = { "mock:vram=8M" })
{
	uint64_t va = app_adopted(w, 2, 1);
	struct gm_page_info info;

	OK(gm_migrate(w->as, va, BLOCK, w->dev[0], NULL));
	OK(gm_dev_fault(w->ctx[0], va + BLOCK, GM_WRITE));
	info = look(w->as, va + 7 * PAGE);
	cr_assert_eq(info.place, GM_PLACE_DEVICE);
	cr_assert_eq(info.map_bytes, BLOCK);
	cr_assert_eq(info.access, RW);
	cr_assert_eq(info.flags & (GM_PAGE_ABSENT | GM_PAGE_ZERO), 0);
	info = look(w->as, va + BLOCK);
	cr_assert_eq(info.map_bytes, UNIT);
	cr_assert_eq(info.mapped_write, 1);
	rest(w); /* the same when packed */
	cr_assert_geq(packed(w), 1);
	cr_assert_eq(look(w->as, va + 7 * PAGE).map_bytes, BLOCK);
	OK(gm_discard(w->as, va, BLOCK));
	info = look(w->as, va);
	cr_assert_eq(info.place, GM_PLACE_NONE);
	cr_assert_eq(info.flags, GM_PAGE_ABSENT);
}

/* In the slot and nowhere else: the kernel has nothing, but it is not absent. */
CORE_TEST(query, parked, .as = { .wait_ns = 5 * MS })
{
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_sim_fail(w->sim, "restore", 1, UINT64_MAX / 2));
	OK(gm_mock_fail(w->dev[0], GM_MOCK_COPY, 1, 1));
	cr_assert_neq(gm_migrate(w->as, va, PAGE, w->dev[0], NULL), GM_RET_SUCCESS);
	cr_assert_eq(look(w->as, va).place, GM_PLACE_HOST);
	cr_assert_eq(look(w->as, va).flags & (GM_PAGE_ABSENT | GM_PAGE_BACKED), GM_PAGE_BACKED);
	OK(gm_sim_fail(w->sim, "restore", 0, 0));
	cr_assert_eq(app_wrong(w, va, 1, 1), 0);
}

/* Somebody moves it between the two looks. */
static struct {
	struct world *w;
	uint64_t va;
	gm_ret_t (*mem_content)(void *pmap, uint64_t va, struct gm_host_content *out);
} moving;

static gm_ret_t move_meanwhile(void *pmap, uint64_t va, struct gm_host_content *out)
{
	OK(gm_migrate(moving.w->as, moving.va, PAGE, moving.w->dev[0], NULL));
	return moving.mem_content(pmap, va, out);
}

CORE_TEST(query, a_page_that_moves_meanwhile)
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_page_info info;

	moving.w = w;
	moving.va = va;
	moving.mem_content = w->as->host->host.mem_content;
	w->as->host->host.mem_content = move_meanwhile;
	info = look(w->as, va);
	w->as->host->host.mem_content = moving.mem_content;
	cr_assert_eq(info.place, GM_PLACE_DEVICE);
	cr_assert_eq(info.flags & (GM_PAGE_BUSY | GM_PAGE_ABSENT), GM_PAGE_BUSY);
	cr_assert_eq(look(w->as, va).flags & GM_PAGE_BUSY, 0);
}

/* ----------------------------------------------------------- this machine */

static char *map(uint64_t bytes)
{
	char *raw = mmap(NULL, bytes + BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(raw, MAP_FAILED);
	return (char *)(((uintptr_t)raw + BLOCK - 1) & ~(uintptr_t)(BLOCK - 1));
}

Test(query_real, zero_huge_and_rights)
{
	volatile char sink;
	struct gm_lib *lib;
	struct gm_as *as;
	char *at = map(2 * BLOCK);
	gm_ret_t ret = gm_lib_create(NULL, &lib);
	struct gm_page_info info;

	if (ret)
		cr_skip_test("no userfaultfd: %s", gm_last_error());
	OK(gm_as_create(lib, 0, 0, NULL, &as));
	madvise(at, BLOCK, MADV_NOHUGEPAGE);
	madvise(at + BLOCK, BLOCK, MADV_HUGEPAGE);
	OK(gm_adopt(as, at, BLOCK, 0));
	sink = at[PAGE];
	at[2 * PAGE] = 1;
	at[3 * PAGE] = sink;
	cr_assert_eq(mprotect(at + 3 * PAGE, PAGE, PROT_READ), 0);
	info = look(as, GM_VA(at));
	cr_assert_eq(info.flags, GM_PAGE_ABSENT);
	cr_assert_eq(info.access, RW);
	info = look(as, GM_VA(at) + PAGE);
	cr_assert_eq(info.flags, GM_PAGE_ZERO);
	cr_assert_eq(info.map_bytes, PAGE);
	info = look(as, GM_VA(at) + 2 * PAGE);
	cr_assert_eq(info.flags, 0);
	cr_assert_eq(info.map_bytes, PAGE);
	cr_assert_eq(look(as, GM_VA(at) + 3 * PAGE).access, GM_READ);
	memset(at + BLOCK, 1, BLOCK);
	info = look(as, GM_VA(at) + BLOCK + 5 * PAGE); /* not managed, and described all the same */
	cr_assert_eq(info.place, GM_PLACE_OUTSIDE);
	cr_assert(info.map_bytes == BLOCK || info.map_bytes == PAGE, "the kernel may have no huge page left");
	if (info.map_bytes == BLOCK) {
		cr_assert_eq(mprotect(at + BLOCK, BLOCK, PROT_READ), 0);
		info = look(as, GM_VA(at) + BLOCK);
		cr_assert_eq(info.map_bytes, BLOCK, "rights of all of it do not split it");
		cr_assert_eq(info.access, GM_READ);
	}
	OK(gm_release(as, at, BLOCK));
	OK(gm_as_destroy(as));
	OK(gm_lib_destroy(lib));
}
