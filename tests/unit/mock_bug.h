/* SPDX-License-Identifier: MIT */
/*
 * What the parts of test_mock_bug share: an error, the device on which it is
 * planted, and a probe that looks for it through the ops table.
 */
#ifndef MOCK_BUG_H
#define MOCK_BUG_H

#include "mock_fixture.h"

#define VA UINT64_C(0x200000)

struct bug_case {
	enum gm_mock_bug bug;
	const char *options;
	/* True: the error shows. Fails the test where the device does something else that is wrong. */
	bool (*probe)(struct mock_fixture *fx);
};

/* Of devices that are gone afterwards. */
struct lost_case {
	enum gm_mock_bug bug;
	bool (*probe)(enum gm_mock_bug bug); /* opens the device, with this error or NONE, and closes it */
};

/* mock_bug_pt.c: page tables and TLBs; mock_bug_dev.c: devices as a whole; mock_bug_io.c: the rest. End with NONE. */
extern const struct bug_case bug_cases_pt[];
extern const struct bug_case bug_cases_io[];
extern const struct bug_case bug_cases_dev[];
extern const struct lost_case lost_cases[];

/* One access through the page table: its result, and what was read. */
static inline gm_ret_t bug_read(struct mock_fixture *fx, uint64_t va, uint64_t *word)
{
	*word = UINT64_MAX;
	return fx->mmu->access(fx->pmap, va, word, sizeof(*word), false);
}

static inline bool bug_mapped(struct mock_fixture *fx, uint64_t va)
{
	uint64_t word;

	return bug_read(fx, va, &word) == GM_RET_SUCCESS;
}

static inline bool bug_writable(struct mock_fixture *fx, uint64_t va)
{
	uint64_t word = 1;

	return fx->mmu->access(fx->pmap, va, &word, sizeof(word), true) == GM_RET_SUCCESS;
}

#endif
