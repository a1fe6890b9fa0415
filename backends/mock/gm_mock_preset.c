/* SPDX-License-Identifier: MIT */
/*
 * Presets: shapes of devices that exist, or that break assumptions, in words of the configuration. What a preset does
 * not say is at its default; words behind it change it further ("preset=async,vram=8M").
 */
#include "config.h"

#include <gmem/mock.h>

static const struct {
	const char *name, *words, *text;
} presets[] = {
	{ "default", "", "Every page size, faults, host memory in place, all memory visible; copies are done at once." },
	{ "nofault", "faults=no", "A device without page faults: memory must be declared before a launch." },
	{ "smallbar", "visible=4M", "The CPU sees only the first 4 MiB of device memory, as through a small PCI window." },
	{ "blind", "visible=no,hostmap=no", "No side sees the memory of the other: all goes through the copy engine." },
	{ "bigpage", "pages=2M", "Maps 2 MiB or nothing: one page of the host cannot move alone." },
	{ "page64k", "pages=64K+2M", "The smallest page is sixteen pages of the host." },
	{ "minimal", "faults=no,hostmap=no,visible=no,submit=no,protect=no,access=no,fastinvl=no,sync=no",
	  "The required operations and nothing else: what the shortest backend announces." },
	{ "async", "copy=async,copyns=2000", "One copy engine that works beside the host and takes its time." },
	{ "chaos", "engines=4,reorder=1,visible=8M,tlb=4,dirty=yes",
	  "Four engines that do independent work in any order, memory seen in part, a TLB of four." },
	{ "single", "contexts=1", "One page table at a time: a second address space must wait its turn." },
	{ "narrow", "vabits=40", "Addresses of 40 bits: a pointer of the process is reached through a window." },
	{ "pcie", "copy=async,todev=24G,tohost=24G,zero=800G,latency=1500,opns=500,stepns=100,faultns=20000,missns=400",
	  "The figures of a discrete device on a fast bus: copies cost bandwidth, faults cost dearly." },
};

gm_ret_t gm_mock_preset(unsigned index, const char **name, const char **words, const char **text)
{
	if (index >= sizeof(presets) / sizeof(presets[0]))
		return GM_RET_NOENT;
	if (name)
		*name = presets[index].name;
	if (words)
		*words = presets[index].words;
	if (text)
		*text = presets[index].text;
	return GM_RET_SUCCESS;
}
