/* SPDX-License-Identifier: MIT */
/*
 * Results in words, the last error of each thread, the log, and memory through
 * the environment. None of it allocates or takes a lock, so that any of it may
 * be used while a fault is served. A message that is too long is cut.
 */
#include "config.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "hal/gm_env.h"

/* gm_last_error() has no argument to hang this off: it belongs to the thread, as errno does. */
static _Thread_local char last_error[GM_MESSAGE_BYTES];

const char *gm_ret_name(gm_ret_t ret)
{
	switch (ret) {
#define RET_NAME(name, value, text) \
	case GM_RET_##name:         \
		return "GM_RET_" #name;
		GM_RET_LIST(RET_NAME)
#undef RET_NAME
	}
	return "GM_RET_?";
}

const char *gm_ret_text(gm_ret_t ret)
{
	switch (ret) {
#define RET_TEXT(name, value, text) \
	case GM_RET_##name:         \
		return text;
		GM_RET_LIST(RET_TEXT)
#undef RET_TEXT
	}
	return "not a result of this library";
}

bool gm_ret_known(gm_ret_t ret)
{
	return strcmp(gm_ret_name(ret), "GM_RET_?") != 0;
}

const char *gm_last_error(void)
{
	return last_error;
}

void gm_fail_note(const char *fmt, ...)
{
	char message[GM_MESSAGE_BYTES];
	va_list args;

	/* By way of a copy: an argument may be the last message itself. */
	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	memcpy(last_error, message, strlen(message) + 1);
}

void gm_fail_texts(const char *const *texts)
{
	char message[GM_MESSAGE_BYTES];
	size_t at = 0;

	for (; *texts; texts++) {
		size_t bytes = strlen(*texts), room = sizeof(message) - 1 - at;

		bytes = bytes < room ? bytes : room;
		memcpy(message + at, *texts, bytes);
		at += bytes;
	}
	message[at] = '\0';
	memcpy(last_error, message, at + 1);
}

#define VERSION_TEXT_(major, minor, patch) #major "." #minor "." #patch
#define VERSION_TEXT(major, minor, patch)  VERSION_TEXT_(major, minor, patch)

const char *gm_version(void)
{
	return VERSION_TEXT(GM_VERSION_MAJOR, GM_VERSION_MINOR, GM_VERSION_PATCH);
}

void gm_log(struct gm_env *env, enum gm_log_level level, const char *fmt, ...)
{
	char message[GM_MESSAGE_BYTES];
	va_list args;

	/* Also where nobody listens: a lock held here is a bug that only some callers would see. */
	gm_env_assert_unlocked(env, "gm_log");
	if (!env->log || level > env->log_level)
		return;
	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	env->log(env->log_arg, level, message);
}

void *gm_mem_alloc(struct gm_env *env, size_t bytes)
{
	/* Zeroed and aligned by the contract of the table; 0 may be the size of an empty array. */
	void *ptr = env->mem.alloc(env->mem.arg, bytes ? bytes : 1);

	assert((uintptr_t)ptr % 16 == 0);
	return ptr;
}

void gm_mem_free(struct gm_env *env, void *ptr, size_t bytes)
{
	if (ptr)
		env->mem.free(env->mem.arg, ptr, bytes ? bytes : 1);
}
