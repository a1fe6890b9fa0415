/* SPDX-License-Identifier: MIT */
/*
 * All rows of the table of bad calls, as a list of macros: included where HANDLE and ROW mean something. Rows are
 * told apart by their line, so each file has a base of its own.
 *
 *   HANDLE(function, parameter, KIND, call, answer to NULL, answer)
 *       `call` with H as the parameter, which is then everything but a live object of this kind: NULL, live objects
 *       of all other kinds, one of the same kind that was destroyed, addresses that cannot be followed
 *   ROW(function, kind, "case", call, answer)
 *       kind says what is bad (check-api-table.sh demands some of each function, by its prototype): null, flag,
 *       value (of an enum, or out of bounds), size, empty, overflow, unaligned, state; none: takes nothing
 *
 * A call sees the world as `e` (struct bad). Its out-parameters are OUT(type): after the call they must be untouched.
 */
#define API_ROWS_BASE 0
#include "api_rows_core.h"
#undef API_ROWS_BASE
#define API_ROWS_BASE 1000
#include "api_rows_mem.h"
#undef API_ROWS_BASE
#define API_ROWS_BASE 2000
#include "api_rows_mock.h"
#undef API_ROWS_BASE
#define API_ROWS_BASE 3000
#include "api_rows_validate.h"
#undef API_ROWS_BASE
#define API_ROWS_BASE 4000
#include "api_rows_shared.h"
#undef API_ROWS_BASE
