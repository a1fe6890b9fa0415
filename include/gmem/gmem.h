/* SPDX-License-Identifier: MIT */
/**
 * @file gmem.h
 * @brief Everything a runtime needs, in one include.
 */
#ifndef GMEM_GMEM_H
#define GMEM_GMEM_H

#include <gmem/as.h>
#include <gmem/coherence.h>
#include <gmem/dev.h>
#include <gmem/fence.h>
#include <gmem/inthread.h>
#include <gmem/lib.h>
#include <gmem/mem.h>
#include <gmem/mock.h>
#include <gmem/mockhw.h>
#include <gmem/policy.h>
#include <gmem/query.h>
#include <gmem/rung.h>
#include <gmem/shared.h>
#include <gmem/stats.h>
#include <gmem/types.h>
#include <gmem/ws.h>

#endif
