# SPDX-License-Identifier: MIT
# hal: the contract, and the real host. One file per line, sorted.

noinst_LIBRARIES += libgm_hal.a
libgm_hal_a_SOURCES = \
	hal/gm_arena.c \
	hal/gm_arena.h \
	hal/gm_backends.c \
	hal/gm_backends.h \
	hal/gm_call.c \
	hal/gm_call.h \
	hal/gm_call_host.c \
	hal/gm_env.h \
	hal/gm_env_threads.c \
	hal/gm_err.c \
	hal/gm_fence.c \
	hal/gm_fence.h \
	hal/gm_handle.c \
	hal/gm_handle.h \
	hal/gm_host.h \
	hal/gm_mask.c \
	hal/gm_mask.h \
	hal/gm_rank.c \
	hal/gm_rank.h \
	hal/gm_readers.h \
	hal/gm_services.c \
	hal/gm_services.h \
	hal/gm_shim.c \
	hal/gm_shim.h \
	hal/gm_shim_copy.c \
	hal/gm_shim_fence.c \
	hal/gm_shim_frame.c \
	hal/gm_shim_map.c \
	hal/gm_shim_misc.c \
	hal/gm_shim_op.c \
	hal/gm_shim_plan.c \
	hal/gm_shim_probe.c \
	hal/gm_shim_report.c \
	hal/gm_shim_shadow.c \
	hal/gm_shim_svc.c \
	hal/host/gm_host.c \
	hal/host/gm_host_bring.c \
	hal/host/gm_host_bus.c \
	hal/host/gm_host_child.c \
	hal/host/gm_host_closed.c \
	hal/host/gm_host_explicit.c \
	hal/host/gm_host_fd.c \
	hal/host/gm_host_fd.h \
	hal/host/gm_host_fork.c \
	hal/host/gm_host_internal.h \
	hal/host/gm_host_inthread.c \
	hal/host/gm_host_inthread.h \
	hal/host/gm_host_keep.c \
	hal/host/gm_host_kind.c \
	hal/host/gm_host_move.c \
	hal/host/gm_host_msg.c \
	hal/host/gm_host_nomove.c \
	hal/host/gm_host_open.c \
	hal/host/gm_host_pump.c \
	hal/host/gm_host_rung.c \
	hal/host/gm_host_shared.c \
	hal/host/gm_host_shared.h \
	hal/host/gm_host_shared_move.c \
	hal/host/gm_host_slot.c \
	hal/host/gm_host_uffd.c \
	hal/host/gm_host_uffd.h \
	hal/host/gm_host_vma.c
libgm_hal_a_CPPFLAGS = $(GM_CPPFLAGS)
LINT_FILES += $(libgm_hal_a_SOURCES)

# hal/sim: the simulated machine, for tests only. Not in libgmem.a.
check_LIBRARIES += libgm_sim.a
libgm_sim_a_SOURCES = \
	hal/sim/gm_sim.h \
	hal/sim/gm_sim_app.c \
	hal/sim/gm_sim_ask.c \
	hal/sim/gm_sim_child.c \
	hal/sim/gm_sim_ctx.c \
	hal/sim/gm_sim_ctx.h \
	hal/sim/gm_sim_env.c \
	hal/sim/gm_sim_host.c \
	hal/sim/gm_sim_internal.h \
	hal/sim/gm_sim_madvise.c \
	hal/sim/gm_sim_mem.c \
	hal/sim/gm_sim_move.c \
	hal/sim/gm_sim_msg.c \
	hal/sim/gm_sim_remap.c \
	hal/sim/gm_sim_sched.c \
	hal/sim/gm_sim_serve.c \
	hal/sim/gm_sim_slot.c
libgm_sim_a_CPPFLAGS = $(GM_CPPFLAGS)
LINT_FILES += $(libgm_sim_a_SOURCES)
