/* SPDX-License-Identifier: MIT */
/*
 * gmem check: the conformance suite on a backend that is named, or loaded from a shared object.
 *
 *     --backend mock[:OPTIONS] | PATH/FILE.so[:OPTIONS]
 *
 * The object needs no symbol of this program: everything reaches a backend in a table. The other options are those
 * of gm_conform_main(), and are handed on.
 */
#include "config.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gmem/conform.h>
#include <gmem/mock.h>
#include <gmem/plugin.h>

#include "tools/gmem.h"

/* Backends that are linked in. */
static const struct {
	const char *name;
	const struct gm_plugin *(*plugin)(void);
} built_in[] = {
	{ "mock", gm_mock_plugin },
};

static int usage(FILE *out)
{
	fprintf(out, "usage: gmem check --backend NAME[:OPTIONS] [--only GROUP[/TEST][,...]] [--seed N] [--bound SECONDS]\n"
		"                  [--tap | --json | --list]\n"
		"       gmem check --list\n\n"
		"NAME is one of:");
	for (size_t i = 0; i < sizeof(built_in) / sizeof(built_in[0]); i++)
		fprintf(out, " %s,", built_in[i].name);
	fprintf(out, " or the path of a shared object that exports %s.\n", GM_PLUGIN_SYMBOL);
	return out == stdout ? gm_cmd_written() : GM_CMD_USAGE;
}

/* Standard output is for results: what the object's constructors print goes to standard error. */
static void *open_object(const char *path)
{
	int kept = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	void *object;

	if (kept >= 0)
		(void)dup2(STDERR_FILENO, STDOUT_FILENO);
	object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (kept >= 0) {
		(void)fflush(stdout);
		(void)dup2(kept, STDOUT_FILENO);
		(void)close(kept);
	}
	return object;
}

static const struct gm_plugin *load(const char *path)
{
	const struct gm_plugin *plugin;
	/* without a slash dlopen() would look in the system's directories */
	char here[4096];
	void *object;

	(void)snprintf(here, sizeof(here), "%s%s", strchr(path, '/') ? "" : "./", path);
	object = open_object(here);
	if (!object) {
		fprintf(stderr, "gmem check: %s\n", dlerror());
		return NULL;
	}
	plugin = dlsym(object, GM_PLUGIN_SYMBOL);
	if (!plugin)
		fprintf(stderr, "gmem check: %s exports no symbol %s of type const struct gm_plugin\n", here, GM_PLUGIN_SYMBOL);
	/* the object stays: the plugin lies in it */
	return plugin;
}

/* "NAME:OPTIONS" is cut at the first colon. */
static const struct gm_plugin *find(char *text, char **options)
{
	char *colon = strchr(text, ':');

	*options = colon ? colon + 1 : text + strlen(text);
	if (colon)
		*colon = '\0';
	for (size_t i = 0; i < sizeof(built_in) / sizeof(built_in[0]); i++) {
		if (strcmp(text, built_in[i].name) == 0)
			return built_in[i].plugin();
	}
	if (!strchr(text, '/') && !strstr(text, ".so")) {
		fprintf(stderr, "gmem check: there is no backend %s\n", text);
		return NULL;
	}
	return load(text);
}

int gm_cmd_check(int argc, char **argv)
{
	static char name[] = "gmem check", with[] = "--options";
	char **rest = calloc((size_t)argc + 3, sizeof(*rest));
	const struct gm_plugin *plugin = NULL;
	char *options = NULL;
	int n = 0, status = GM_CMD_USAGE;
	bool list = false;

	if (!rest)
		return 1;
	rest[n++] = name;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0) {
			free(rest);
			return usage(stdout);
		}
		list = list || strcmp(argv[i], "--list") == 0;
		if (strcmp(argv[i], "--backend") != 0 || i + 1 == argc) {
			rest[n++] = argv[i];
			continue;
		}
		plugin = find(argv[++i], &options);
		if (!plugin)
			goto out;
	}
	if (!plugin && list) /* the list is the same for all */
		plugin = built_in[0].plugin();
	if (!plugin) {
		usage(stderr);
		goto out;
	}
	if (options && *options) {
		rest[n++] = with;
		rest[n++] = options;
	}
	status = gm_conform_main(n, rest, plugin);
out:
	free(rest);
	return status;
}
