/* SPDX-License-Identifier: MIT */
/*
 * How gm_dev_open("mock:...") reaches the mock: the table of backends calls
 * this with the words after the colon and hands `dev_data` to dev_init().
 */
#ifndef GM_MOCK_SPEC_H
#define GM_MOCK_SPEC_H

#include <gmem/types.h>

/*
 * Turn option text (NULL or "" for the defaults) into a struct
 * gm_mock_config at `dev_data`, which has room for `bytes`. SUCCESS, INVAL
 * (bad text, or no room); `dev_data` is untouched on failure.
 */
gm_ret_t gm_mock_open_spec(const char *options, void *dev_data, size_t bytes);

#endif
