/* SPDX-License-Identifier: MIT */
/*
 * What `gmem exec` and the preload library in the program tell each other: one piece of shared memory. The tool makes
 * it (a memfd), fills in what it asks for, and hands its descriptor over in the environment; the library maps it
 * before main(), fills in what it does, and closes the descriptor. It outlives the program, however that ends.
 *
 *     ABSENT --library loaded--> LOADED --memory managed--> SERVING
 *                                   '--cannot be--> REFUSED, and the program ends before its main()
 */
#ifndef GM_TOOLS_PRELOAD_SHARED_H
#define GM_TOOLS_PRELOAD_SHARED_H

#include <stdatomic.h>
#include <stdint.h>

/* Name of the variable with the number of the descriptor. */
#define GM_EXEC_FD_ENV "GMEM_EXEC_FD"
#define GM_EXEC_MAGIC UINT32_C(0x676d6534)

enum gm_exec_state { GM_EXEC_ABSENT, GM_EXEC_LOADED, GM_EXEC_SERVING, GM_EXEC_REFUSED };

/* Counters that the library publishes: name, and what it is. One list for the library, the table and the JSON. */
#define GM_EXEC_COUNTERS(X) \
	X(peak_host_bytes, "anonymous memory of the program that is not the device's, at its highest") \
	X(host_bytes, "... at the end") \
	X(peak_managed_bytes, "of the managed memory, on the host at its highest") \
	X(managed_bytes, "... at the end") \
	X(peak_rest_bytes, "of the host's, not managed: the program's data and stacks, libgmem's own; at its highest") \
	X(peak_device_bytes, "memory of the device that is in use, at its highest") \
	X(device_bytes, "... at the end") \
	X(bytes_to_device, "moved to the device") \
	X(bytes_to_host, "moved home") \
	X(faults, "accesses of the program that waited for a page") \
	X(fault_ns, "time that serving these took") \
	X(passes, "times room was made on the host") \
	X(pass_ns, "time that this took") \
	X(refused_pages, "pages that the kernel would not give up") \
	X(full, "times the device was full") \
	X(samples, "measurements of the host's memory")

struct gm_exec_shared {
	uint32_t magic;
	_Atomic uint32_t state;      /* enum gm_exec_state */
	uint64_t limit_bytes;        /* of what the host may have */
	char device[256];            /* specification, as of gm_dev_open() */
	char preload[4096];          /* LD_PRELOAD as it was; empty: there was none */
	char why[512];               /* REFUSED: the reason */
	char said[256];              /* what libgmem had to say at last: errors and warnings */
#define GM_EXEC_COUNTER_(name, text) _Atomic uint64_t name;
	GM_EXEC_COUNTERS(GM_EXEC_COUNTER_)
#undef GM_EXEC_COUNTER_
};

#endif
