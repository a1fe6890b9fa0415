/* SPDX-License-Identifier: MIT */
/* One run of the job on a mock device, and what it cost. */
#ifndef DEVICE_H
#define DEVICE_H

#include "options.h"
#include "picture.h"
#include "rank.h"

enum run_mode {
	RUN_FAULTS, /* the device raises faults; nothing is declared */
	RUN_SETS,   /* the device cannot fault; every launch declares its working set */
};

struct run {
	enum run_mode mode;
	struct gm_stats stats;
	struct gm_mock_stats mock;
	uint64_t total_ns;
	uint64_t launches;
	double change; /* of the last iteration, all sections together */
	bool same;     /* bit by bit as on the host */
};

/* Told after every launch; may be NULL. */
typedef void (*run_progress)(void *arg, enum run_mode mode, uint64_t done, uint64_t all);

/*
 * Returns 0, or the exit status after having said what went wrong: 1, or 3
 * where this machine does not allow userfaultfd. Different ranks are not a
 * failure here: they are described, and run->same is false.
 */
int device_run(const struct job *job, const struct options *options, enum run_mode mode, const double *expect,
	       struct picture *picture, run_progress progress, void *progress_arg, struct run *run);

#endif
