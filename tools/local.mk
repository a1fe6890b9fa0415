# SPDX-License-Identifier: MIT
# tools: programs of the project, and what ./check and ./demo share.

EXTRA_DIST += \
	tools/packages.txt \
	tools/setup.sh
