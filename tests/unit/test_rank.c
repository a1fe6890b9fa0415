/* SPDX-License-Identifier: MIT */
/* The lock rank checker on stacks of its own; how the environment uses it: test_env.c. */
#include "config.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "hal/gm_rank.h"

struct failures {
	unsigned n;
	char text[256];
};

static void note(void *arg, const char *message)
{
	struct failures *f = arg;

	f->n++;
	snprintf(f->text, sizeof(f->text), "%s", message);
}

Test(rank, rising_order_is_legal_and_unlock_order_free)
{
	struct gm_mutex m[7] = { { { 0 } } };
	struct failures f = { 0 };
	struct gm_rank_stack stack = { .fail = note, .fail_arg = &f };

	gm_rank_assert_none(&stack, "begin");
	for (unsigned i = 0; i < 7; i++)
		gm_rank_push(&stack, &m[i], (enum gm_rank)(GM_RANK_LIB + i));
	gm_rank_pop(&stack, &m[3]);
	gm_rank_pop(&stack, &m[6]);
	gm_rank_pop(&stack, &m[0]);
	gm_rank_push(&stack, &m[6], GM_RANK_LEAF);
	gm_rank_pop(&stack, &m[1]);
	gm_rank_pop(&stack, &m[6]);
	gm_rank_pop(&stack, &m[2]);
	gm_rank_pop(&stack, &m[4]);
	gm_rank_assert_only(&stack, &m[5]);
	gm_rank_pop(&stack, &m[5]);
	gm_rank_assert_none(&stack, "end");
	cr_assert_eq(f.n, 0u, "%s", f.text);
}

Test(rank, every_pair_of_ranks)
{
	for (unsigned a = GM_RANK_LIB; a <= GM_RANK_LEAF; a++) {
		for (unsigned b = GM_RANK_LIB; b <= GM_RANK_LEAF; b++) {
			struct gm_mutex ma = { { 0 } }, mb = ma;
			struct failures f = { 0 };
			struct gm_rank_stack stack = { .fail = note, .fail_arg = &f };

			gm_rank_push(&stack, &ma, (enum gm_rank)a);
			gm_rank_push(&stack, &mb, (enum gm_rank)b);
			cr_assert_eq(f.n, b <= a ? 1u : 0u, "rank %u then %u", a, b);
			if (f.n) {
				cr_assert_not_null(strstr(f.text, gm_rank_name((enum gm_rank)a)));
				cr_assert_not_null(strstr(f.text, gm_rank_name((enum gm_rank)b)));
			}
		}
	}
	cr_assert_str_eq(gm_rank_name(GM_RANK_BLOCK), "BLOCK");
	cr_assert_str_eq(gm_rank_name((enum gm_rank)99), "?");
}

/* What is below the top counts too once the top is gone. */
Test(rank, order_after_pop)
{
	struct gm_mutex a = { { 0 } }, b = a, c = a;
	struct failures f = { 0 };
	struct gm_rank_stack stack = { .fail = note, .fail_arg = &f };

	gm_rank_push(&stack, &a, GM_RANK_BLOCK);
	gm_rank_push(&stack, &b, GM_RANK_LEAF);
	gm_rank_pop(&stack, &a);
	gm_rank_push(&stack, &c, GM_RANK_NODE);
	cr_assert_eq(f.n, 1u, "LEAF is still held");
	cr_assert_not_null(strstr(f.text, "LEAF"));
}

Test(rank, wait_and_unlock_rules)
{
	struct gm_mutex a = { { 0 } }, b = a;
	struct failures f = { 0 };
	struct gm_rank_stack stack = { .fail = note, .fail_arg = &f };

	gm_rank_pop(&stack, &a);
	cr_assert_eq(f.n, 1u, "nothing is held");
	gm_rank_assert_only(&stack, &a);
	cr_assert_eq(f.n, 2u, "waiting without the lock");
	gm_rank_push(&stack, &a, GM_RANK_BLOCK);
	gm_rank_assert_only(&stack, &a);
	cr_assert_eq(f.n, 2u);
	gm_rank_assert_only(&stack, &b);
	cr_assert_eq(f.n, 3u, "waiting with another lock");
	gm_rank_push(&stack, &b, GM_RANK_LEAF);
	gm_rank_assert_only(&stack, &b);
	cr_assert_eq(f.n, 4u, "waiting with two locks");
	cr_assert_not_null(strstr(f.text, "BLOCK"));
	gm_rank_assert_none(&stack, "an operation");
	cr_assert_eq(f.n, 5u);
	cr_assert_not_null(strstr(f.text, "an operation"));
}

Test(rank, without_a_hook_it_aborts, .signal = SIGABRT)
{
	struct gm_rank_stack stack = { 0 };
	struct gm_mutex m = { { 0 } };

	gm_rank_pop(&stack, &m);
}
