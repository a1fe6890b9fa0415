/* SPDX-License-Identifier: MIT */
/* Adopted memory; see gm_adopt.c, gm_release.c. */
#ifndef GM_CORE_ADOPT_H
#define GM_CORE_ADOPT_H

#include "core/gm_as.h"

/* Whole pages in the middle, partial ones at the edges. */
struct gm_span {
	uint64_t va, end; /* whole pages; empty if va == end */
	uint64_t edge[2]; /* pages; 0: none */
};

/* What of a buffer is adopted, with flags of gm_adopt(). */
struct gm_span gm_span_of(uint64_t va, uint64_t bytes, uint32_t flags);
/* Everything of the span that is adopted, until a piece has to stay. *some: there was something. As gm_release(). */
gm_ret_t gm_release_span(struct gm_as *as, const struct gm_span *s, uint64_t deadline_ns, bool *some);

#endif
