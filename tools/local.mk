# SPDX-License-Identifier: MIT
# tools: programs of the project, and what ./check and ./demo share.

bin_PROGRAMS = gmem
gmem_SOURCES = \
	tools/gmem.c \
	tools/gmem.h \
	tools/gmem_check.c \
	tools/gmem_exec.c \
	tools/gmem_exec.h \
	tools/gmem_exec_report.c \
	tools/gmem_exec_target.c \
	tools/preload/shared.h
gmemdir = $(libdir)/gmem
gmem_CPPFLAGS = $(GM_CPPFLAGS) -DGM_EXEC_LIBDIR='"$(gmemdir)"'
gmem_LDADD = libgmem-conform.a libgmem.a -ldl
LINT_FILES += $(gmem_SOURCES)

# gmem-exec.so, which `gmem exec` puts into a program: its own sources, and the layers of the library, of which the two
# files with variables of threads are compiled anew: there they must lie in the static block (tools/preload/preload.h).
noinst_LIBRARIES += libgm_exec.a libgm_exec_tls.a
libgm_exec_a_SOURCES = \
	tools/preload/ask.c \
	tools/preload/calls.c \
	tools/preload/fds.c \
	tools/preload/heap.c \
	tools/preload/limit.c \
	tools/preload/policy.c \
	tools/preload/preload.h \
	tools/preload/raw.h \
	tools/preload/remap.c \
	tools/preload/rights.c \
	tools/preload/server.c \
	tools/preload/shared.h \
	tools/preload/start.c \
	tools/preload/window.c
libgm_exec_a_CPPFLAGS = $(GM_CPPFLAGS)
libgm_exec_a_CFLAGS = $(AM_CFLAGS) -ftls-model=initial-exec -fno-builtin-malloc
LINT_FILES += $(libgm_exec_a_SOURCES)
libgm_exec_tls_a_SOURCES = \
	hal/gm_env_threads.c \
	hal/gm_err.c
libgm_exec_tls_a_CFLAGS = $(AM_CFLAGS) -ftls-model=initial-exec

# What libgmem calls there is the kernel's, not what the object interposes; nothing is bound later.
PRELOAD_FLAGS = -shared -pthread -Wl,-z,now -Wl,-z,defs -Wl,-z,nodelete \
	-Wl,--wrap=mmap -Wl,--wrap=munmap -Wl,--wrap=mprotect -Wl,--wrap=close \
	-Wl,--version-script=$(srcdir)/tools/preload/exports.map

PRELOAD_PARTS = libgm_exec.a libgm_exec_tls.a $(PARTS)
gmem-exec.so: $(PRELOAD_PARTS) tools/preload/exports.map
	$(AM_V_CCLD)$(CC) $(CFLAGS) $(LDFLAGS) $(PRELOAD_FLAGS) -o $@ -Wl,--whole-archive libgm_exec.a libgm_exec_tls.a \
	-Wl,--no-whole-archive -Wl,--start-group $(PARTS) -Wl,--end-group -ldl

# A sanitizer's run-time must be the first thing in a process: it cannot come with a preload library.
if !SANITIZERS
gmem_DATA = gmem-exec.so
endif
CLEANFILES += gmem-exec.so

EXTRA_DIST += \
	tools/packages.txt \
	tools/preload/exports.map \
	tools/setup.sh
