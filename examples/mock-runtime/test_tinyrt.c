/* SPDX-License-Identifier: MIT */
/*
 * The tests of a runtime on mock devices, as its CI would run them: every shape of device, failures by place and
 * count, a device that goes away, which steps a launch may take, and what it would cost.
 *
 * Without the right to userfaultfd nothing can be tested: then each test is skipped, and says so.
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "tinyrt.h"

#define N ((size_t)64 * GM_PAGE_BYTES / 8)

static struct tinyrt *rt;
static uint64_t *v;

static void begin(const char *device)
{
	gm_ret_t ret = tinyrt_open(device, &rt);

	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("%s", gm_last_error());
	cr_assert_eq(ret, GM_RET_SUCCESS, "%s: %s", device, gm_last_error());
	cr_assert_eq(tinyrt_alloc(rt, N, &v), GM_RET_SUCCESS);
	for (size_t i = 0; i < N; i++)
		v[i] = i;
}

static void end(void)
{
	tinyrt_free(rt, v);
	tinyrt_close(rt);
}

static void scale(uint64_t by)
{
	cr_assert_eq(tinyrt_scale(rt, v, N, by), GM_RET_SUCCESS, "%s", gm_last_error());
}

static size_t wrong(uint64_t by)
{
	size_t n = 0;

	for (size_t i = 0; i < N; i++)
		n += v[i] != i * by;
	return n;
}

Test(tinyrt, on_every_shape_of_device)
{
	const char *name;

	for (unsigned i = 0; gm_mock_preset(i, &name, NULL, NULL) == GM_RET_SUCCESS; i++) {
		char device[64];

		(void)snprintf(device, sizeof(device), "mock:preset=%s,vram=4M", name);
		begin(device);
		if (strcmp(name, "narrow") == 0) { /* its pointers do not fit: refused, not computed wrongly */
			cr_assert_neq(tinyrt_scale(rt, v, N, 3), GM_RET_SUCCESS);
			cr_assert_eq(wrong(1), 0, "%s", name);
		} else {
			scale(3);
			scale(5);
			cr_assert_eq(wrong(15), 0, "%s", name);
			cr_assert(tinyrt_on_device(rt));
		}
		end();
	}
}

/* Each operation fails at each of its first calls, once: nobody notices, and nothing is done twice. */
Test(tinyrt, asks_again)
{
	static const enum gm_mock_op ops[] = { GM_MOCK_PMAP_ENTER, GM_MOCK_COPY, GM_MOCK_COPY_LATE, GM_MOCK_SUBMIT };
	unsigned retries = 0;

	for (unsigned k = 0; k < sizeof(ops) / sizeof(ops[0]); k++) {
		for (uint64_t nth = 1; nth < 4; nth++) {
			begin("mock:preset=nofault,vram=4M");
			cr_assert_eq(gm_mock_fail(tinyrt_dev(rt), ops[k], nth, 1), GM_RET_SUCCESS);
			scale(7);
			cr_assert_eq(wrong(7), 0, "operation %d, call %d", (int)ops[k], (int)nth);
			retries += tinyrt_retries(rt);
			end();
		}
	}
	cr_assert_gt(retries, 0, "no failure was ever met");
}

/* But not for ever. */
Test(tinyrt, gives_up)
{
	struct gm_mock_rule rule = { .size = sizeof(rule), .op = GM_MOCK_COPY, .nth = 1, .count = UINT64_MAX,
				     .result = GM_RET_IO };

	begin("mock:vram=4M");
	cr_assert_eq(gm_mock_rule_add(tinyrt_dev(rt), &rule), GM_RET_SUCCESS);
	cr_assert_eq(tinyrt_scale(rt, v, N, 3), GM_RET_IO);
	cr_assert_eq(tinyrt_retries(rt), 3);
	cr_assert_eq(wrong(1), 0, "the data is not as it was");
	cr_assert_eq(gm_mock_rule_clear(tinyrt_dev(rt)), GM_RET_SUCCESS);
	scale(3);
	cr_assert_eq(wrong(3), 0);
	end();
}

/* The device goes before it has anything of ours: the CPU does it. */
Test(tinyrt, goes_on_without_its_device)
{
	begin("mock:vram=4M");
	cr_assert_eq(gm_mock_lose(tinyrt_dev(rt)), GM_RET_SUCCESS);
	scale(3);
	cr_assert_not(tinyrt_on_device(rt));
	cr_assert_eq(wrong(3), 0);
	end();
}

/* It goes with our data: that is said, and nothing is made up. */
Test(tinyrt, says_what_is_lost)
{
	gm_ret_t ret;

	begin("mock:vram=4M");
	scale(3); /* the only copy is there now */
	cr_assert_eq(gm_mock_lose(tinyrt_dev(rt)), GM_RET_SUCCESS);
	ret = tinyrt_scale(rt, v, N, 5);
	cr_assert_eq(ret, GM_RET_NODEV, "%s", gm_ret_name(ret));
	end();
}

/* For what is there already the device is not asked for anything; and memory with content is copied, not zeroed. */
Test(tinyrt, copies_nothing_in_vain)
{
	char why[400] = "";
	gm_ret_t ret;

	begin("mock:vram=4M");
	scale(3);
	cr_assert_eq(gm_mock_expect(tinyrt_dev(rt), ""), GM_RET_SUCCESS);
	scale(5);
	ret = gm_mock_expect_end(tinyrt_dev(rt), why, sizeof(why));
	cr_assert_eq(ret, GM_RET_SUCCESS, "the second launch: %s", why);
	end();

	begin("mock:preset=blind,vram=4M");
	cr_assert_eq(gm_mock_expect(tinyrt_dev(rt), "copy zero =*; ..."), GM_RET_SUCCESS);
	scale(3);
	ret = gm_mock_expect_end(tinyrt_dev(rt), why, sizeof(why));
	cr_assert_eq(ret, GM_RET_FAULT, "memory with content was zeroed");
	cr_assert_not_null(strstr(why, "seen \"copy to-dev"), "%s", why);
	end();
}

/* A declared working set costs a copy; faults would cost as many stalls as pages. In modelled time, so it always holds. */
Test(tinyrt, is_worth_its_working_sets)
{
	struct gm_mock_stats s;

	begin("mock:preset=pcie,vram=4M");
	scale(3);
	cr_assert_eq(gm_mock_stats(tinyrt_dev(rt), &s), GM_RET_SUCCESS);
	cr_assert_eq(s.faults, 0);
	cr_assert_eq(s.bytes_to_dev, N * 8);
	/* 256 KiB at 24 GiB/s are 10 us; 20 us would be one fault. */
	cr_assert_leq(s.modelled_ns, 20000, "%llu ns", (unsigned long long)s.modelled_ns);
	cr_assert_eq(wrong(3), 0);
	end();
}
