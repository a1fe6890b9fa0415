/* SPDX-License-Identifier: MIT */
/* Words for results, the last error of a thread, the log, memory through the environment. */
#include "config.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "hal/gm_env.h"
#include "failing_alloc.h"

Test(err, every_result_has_its_own_name_and_text)
{
	static const struct {
		gm_ret_t ret;
		const char *name, *text;
	} all[] = {
#define ROW(name, value, text) { GM_RET_##name, "GM_RET_" #name, text },
		GM_RET_LIST(ROW)
#undef ROW
	};
	size_t n = sizeof(all) / sizeof(all[0]);

	cr_assert_eq(n, 16u);
	for (size_t i = 0; i < n; i++) {
		cr_assert_str_eq(gm_ret_name(all[i].ret), all[i].name);
		cr_assert_str_eq(gm_ret_text(all[i].ret), all[i].text);
		for (size_t k = 0; k < i; k++)
			cr_assert_neq(all[i].ret, all[k].ret);
	}
	cr_assert_str_eq(gm_ret_name(GM_RET_BUSY), "GM_RET_BUSY");
}

Test(err, unknown_result)
{
	cr_assert_str_eq(gm_ret_name((gm_ret_t)1), "GM_RET_?");
	cr_assert_str_eq(gm_ret_name((gm_ret_t)-4095), "GM_RET_?");
	cr_assert(strlen(gm_ret_text((gm_ret_t)1)) > 0);
	cr_assert_str_neq(gm_ret_text((gm_ret_t)1), gm_ret_text(GM_RET_SUCCESS));
}

Test(err, version)
{
	char want[32];

	snprintf(want, sizeof(want), "%d.%d.%d", GM_VERSION_MAJOR, GM_VERSION_MINOR, GM_VERSION_PATCH);
	cr_assert_str_eq(gm_version(), want);
}

Test(err, fail_remembers_and_returns)
{
	cr_assert_str_eq(gm_last_error(), "");
	cr_assert_eq(gm_fail(GM_RET_BUSY, "page %d of %s", 7, "block"), GM_RET_BUSY);
	cr_assert_str_eq(gm_last_error(), "page 7 of block");
	cr_assert_eq(gm_fail(GM_RET_IO, "short"), GM_RET_IO);
	cr_assert_str_eq(gm_last_error(), "short");
}

Test(err, fail_may_quote_the_last_message)
{
	cr_assert_eq(gm_fail(GM_RET_IO, "copy failed"), GM_RET_IO);
	cr_assert_eq(gm_fail(GM_RET_IO, "migration: %s", gm_last_error()), GM_RET_IO);
	cr_assert_str_eq(gm_last_error(), "migration: copy failed");
}

Test(err, long_message_is_cut_and_terminated)
{
	char big[4096];

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	cr_assert_eq(gm_fail(GM_RET_INVAL, "%s", big), GM_RET_INVAL);
	cr_assert_gt(strlen(gm_last_error()), 100u);
	cr_assert_lt(strlen(gm_last_error()), sizeof(big) - 1);
	cr_assert_eq(strspn(gm_last_error(), "x"), strlen(gm_last_error()));
}

static void *other_thread(void *arg)
{
	bool *ok = arg;

	*ok = gm_last_error()[0] == '\0';
	*ok = gm_fail(GM_RET_NOMEM, "the other's") == GM_RET_NOMEM && *ok;
	*ok = strcmp(gm_last_error(), "the other's") == 0 && *ok;
	return NULL;
}

Test(err, texts_are_joined_quoted_and_cut)
{
	char longer[600];

	cr_assert_eq(gm_fail_join(GM_RET_IO, "device ", "x", ": ", ""), GM_RET_IO);
	cr_assert_str_eq(gm_last_error(), "device x: ");
	(void)gm_fail_join(GM_RET_IO, "again ", gm_last_error());
	cr_assert_str_eq(gm_last_error(), "again device x: ");
	memset(longer, 'y', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	(void)gm_fail_join(GM_RET_IO, "z", longer, longer);
	cr_assert_eq(strlen(gm_last_error()), 511u);
	cr_assert_eq(gm_last_error()[0], 'z');
}

Test(err, each_thread_has_its_own)
{
	bool ok = false;
	pthread_t t;

	cr_assert_eq(gm_fail(GM_RET_BUSY, "mine"), GM_RET_BUSY);
	cr_assert_eq(pthread_create(&t, NULL, other_thread, &ok), 0);
	cr_assert_eq(pthread_join(t, NULL), 0);
	cr_assert(ok);
	cr_assert_str_eq(gm_last_error(), "mine");
}

struct heard {
	unsigned n;
	enum gm_log_level level;
	char text[1024];
};

static void listen(void *arg, enum gm_log_level level, const char *message)
{
	struct heard *heard = arg;

	heard->n++;
	heard->level = level;
	snprintf(heard->text, sizeof(heard->text), "%s", message);
}

static struct gm_env *env_for(struct failing_alloc *fa, struct heard *heard, enum gm_log_level level)
{
	struct gm_lib_config config = { .size = sizeof(config), .log_level = level };
	struct gm_env *env = NULL;

	failing_alloc_init(fa);
	config.allocator = &fa->table;
	if (heard) {
		config.log = listen;
		config.log_arg = heard;
	}
	cr_assert_eq(gm_env_threads_create(&config, &env), GM_RET_SUCCESS);
	return env;
}

Test(err, log_honours_the_level)
{
	static const enum gm_log_level levels[] = { GM_LOG_ERROR, GM_LOG_WARN, GM_LOG_INFO, GM_LOG_DEBUG };

	for (unsigned want = 0; want < 4; want++) {
		for (unsigned said = 0; said < 4; said++) {
			struct failing_alloc fa;
			struct heard heard = { 0 };
			struct gm_env *env = env_for(&fa, &heard, levels[want]);

			gm_log(env, levels[said], "%d bytes", 42);
			cr_assert_eq(heard.n, said <= want ? 1u : 0u, "%u at %u", said, want);
			if (heard.n) {
				cr_assert_str_eq(heard.text, "42 bytes");
				cr_assert_eq(heard.level, levels[said]);
			}
			gm_env_threads_destroy(env);
		}
	}
}

Test(err, log_without_a_listener_is_silent)
{
	struct failing_alloc fa;
	struct gm_env *env = env_for(&fa, NULL, GM_LOG_DEBUG);

	gm_log(env, GM_LOG_ERROR, "nobody %s", "listens");
	gm_env_threads_destroy(env);
	cr_assert_eq(fa.live, 0u);
}

Test(err, memory_goes_through_the_environment)
{
	struct failing_alloc fa;
	struct gm_env *env = env_for(&fa, NULL, GM_LOG_ERROR);
	size_t before = fa.live_bytes;
	char *ptr = gm_mem_alloc(env, 100);
	void *empty = gm_mem_alloc(env, 0);

	cr_assert_not_null(ptr);
	cr_assert_not_null(empty);
	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(ptr[i], 0);
	cr_assert_geq(fa.live_bytes, before + 100);
	failing_alloc_arm(&fa, 1);
	cr_assert_null(gm_mem_alloc(env, 100));
	cr_assert(failing_alloc_fired(&fa));
	gm_mem_free(env, ptr, 100);
	gm_mem_free(env, empty, 0);
	gm_mem_free(env, NULL, 100);
	cr_assert_eq(fa.live_bytes, before);
	gm_env_threads_destroy(env);
	cr_assert_eq(fa.live, 0u);
	cr_assert_eq(fa.bad_frees, 0u);
}
