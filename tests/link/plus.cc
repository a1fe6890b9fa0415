/* SPDX-License-Identifier: MIT */
/* The same from C++, with the header of driver vendors. */
#include <cstring>

#include <gmem/gmem.h>
#include <gmem/hal.h>

int main()
{
	gm_lib *untouched = nullptr;

	if (std::strcmp(gm_ret_name(GM_RET_NOSPC), "GM_RET_NOSPC") != 0)
		return 1;
	if (gm_lib_create(nullptr, nullptr) != GM_RET_INVAL || gm_lib_destroy(untouched) != GM_RET_SUCCESS)
		return 1;
	return gm_mock_mmu()->abi == GM_HAL_ABI ? 0 : 1;
}
