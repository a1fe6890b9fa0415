# SPDX-License-Identifier: MIT
# tools: programs of the project, and what ./check and ./demo share.

bin_PROGRAMS = gmem
gmem_SOURCES = \
	tools/gmem.c \
	tools/gmem.h \
	tools/gmem_check.c
gmem_CPPFLAGS = $(GM_CPPFLAGS)
gmem_LDADD = libgmem-conform.a libgmem.a -ldl
LINT_FILES += $(gmem_SOURCES)

EXTRA_DIST += \
	tools/packages.txt \
	tools/setup.sh
