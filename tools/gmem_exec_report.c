/* SPDX-License-Identifier: MIT */
/* What `gmem exec` says at the end: a table for people, JSON for programs. */
#include "config.h"

#include <inttypes.h>
#include <string.h>
#include <sys/wait.h>

#include "tools/gmem_exec.h"

#define MiB (1024.0 * 1024.0)

static void row(FILE *out, const char *what, uint64_t bytes)
{
	fprintf(out, "  %-34s %10.1f MiB\n", what, (double)bytes / MiB);
}

static double seconds(const struct timeval *tv)
{
	return (double)tv->tv_sec + (double)tv->tv_usec / 1e6;
}

/* What the kernel saw of the process at its highest, without what the device had then at the most: never above the peak. */
static uint64_t least_peak(const struct gm_exec_shared *x, const struct gm_exec_outcome *o)
{
	uint64_t all = (uint64_t)o->usage.ru_maxrss * 1024;

	return all > x->peak_device_bytes ? all - x->peak_device_bytes : 0;
}

void gm_exec_table(FILE *out, char **argv, const struct gm_exec_shared *x, const struct gm_exec_outcome *o)
{
	fprintf(out, "gmem exec: %s: ", argv[0]);
	if (WIFSIGNALED(o->status))
		fprintf(out, "killed by signal %d (%s)", WTERMSIG(o->status), strsignal(WTERMSIG(o->status)));
	else
		fprintf(out, "exit status %d", WEXITSTATUS(o->status));
	fprintf(out, ", %.2f s (user %.2f, system %.2f)\n", (double)o->wall_ns / 1e9, seconds(&o->usage.ru_utime),
		seconds(&o->usage.ru_stime));
	row(out, "limit of the host", x->limit_bytes);
	row(out, "the host had at most", x->peak_host_bytes);
	row(out, "  of that managed, at most", x->peak_managed_bytes);
	row(out, "  and not managed, at most", x->peak_rest_bytes);
	row(out, "the device had at most", x->peak_device_bytes);
	row(out, "moved to the device", x->bytes_to_device);
	row(out, "moved home", x->bytes_to_host);
	fprintf(out, "  %-34s %10" PRIu64 "     in %.2f s\n", "accesses that waited", x->faults, (double)x->fault_ns / 1e9);
	fprintf(out, "  %-34s %10" PRIu64 "     in %.2f s\n", "times room was made", x->passes, (double)x->pass_ns / 1e9);
	if (x->refused_pages)
		fprintf(out, "  %-34s %10" PRIu64 "     pinned, locked, read-only\n", "pages that did not go", x->refused_pages);
	if (x->full)
		fprintf(out, "  the device was full %" PRIu64 " times: give it more memory (--device)\n", x->full);
	if (x->peak_host_bytes > x->limit_bytes)
		fprintf(out, "  above the limit by %.1f MiB\n", (double)(x->peak_host_bytes - x->limit_bytes) / MiB);
	if (x->said[0])
		fprintf(out, "  libgmem: %s\n", x->said);
}

static void json_text(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fprintf(out, "\\%c", *text);
		else if ((unsigned char)*text < 0x20)
			fprintf(out, "\\u%04x", (unsigned)(unsigned char)*text);
		else
			fputc(*text, out);
	}
	fputc('"', out);
}

bool gm_exec_json(FILE *out, char **argv, const struct gm_exec_shared *x, const struct gm_exec_outcome *o)
{
	bool ok;

	fprintf(out, "{\n  \"program\": ");
	json_text(out, argv[0]);
	fprintf(out, ",\n  \"device\": ");
	json_text(out, x->device);
	if (WIFSIGNALED(o->status))
		fprintf(out, ",\n  \"signal\": %d", WTERMSIG(o->status));
	else
		fprintf(out, ",\n  \"exit_status\": %d", WEXITSTATUS(o->status));
	fprintf(out, ",\n  \"wall_ns\": %" PRIu64 ",\n  \"user_s\": %.6f,\n  \"system_s\": %.6f", o->wall_ns,
		seconds(&o->usage.ru_utime), seconds(&o->usage.ru_stime));
	fprintf(out, ",\n  \"max_rss_bytes\": %" PRIu64 ",\n  \"max_rss_less_device_bytes\": %" PRIu64,
		(uint64_t)o->usage.ru_maxrss * 1024, least_peak(x, o));
	fprintf(out, ",\n  \"limit_bytes\": %" PRIu64, x->limit_bytes);
#define COUNTER_(name, text) fprintf(out, ",\n  \"" #name "\": %" PRIu64, x->name);
	GM_EXEC_COUNTERS(COUNTER_)
#undef COUNTER_
	fprintf(out, ",\n  \"said\": ");
	json_text(out, x->said);
	fprintf(out, "\n}\n");
	ok = !ferror(out);
	return fclose(out) == 0 && ok;
}
