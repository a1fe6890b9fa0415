# SPDX-License-Identifier: MIT
# core: machine-independent. One file per line, sorted.

noinst_LIBRARIES += libgm_core.a
libgm_core_a_SOURCES = \
	core/gm_adopt.c \
	core/gm_as.c \
	core/gm_as.h \
	core/gm_block.c \
	core/gm_block.h \
	core/gm_check.c \
	core/gm_coherence.c \
	core/gm_ctx.c \
	core/gm_dev.c \
	core/gm_dev.h \
	core/gm_devq.c \
	core/gm_devq.h \
	core/gm_discard.c \
	core/gm_dup.c \
	core/gm_dup.h \
	core/gm_dup_end.c \
	core/gm_events.c \
	core/gm_events.h \
	core/gm_evict.c \
	core/gm_evict.h \
	core/gm_fault.h \
	core/gm_fault_block.c \
	core/gm_fault_cpu.c \
	core/gm_fault_dev.c \
	core/gm_fault_edge.c \
	core/gm_fault_few.c \
	core/gm_fork.c \
	core/gm_fork.h \
	core/gm_fork_policy.c \
	core/gm_fork_serve.c \
	core/gm_fork_serve.h \
	core/gm_frames.c \
	core/gm_frames.h \
	core/gm_lib.c \
	core/gm_lib.h \
	core/gm_lost.c \
	core/gm_lost.h \
	core/gm_mem.c \
	core/gm_mem.h \
	core/gm_migrate.c \
	core/gm_mirror.c \
	core/gm_mirror.h \
	core/gm_mirror_ws.c \
	core/gm_node.c \
	core/gm_node.h \
	core/gm_pack.c \
	core/gm_pack.h \
	core/gm_pack_work.c \
	core/gm_pin.c \
	core/gm_pin.h \
	core/gm_plan.c \
	core/gm_plan.h \
	core/gm_plant.h \
	core/gm_policy_lru.c \
	core/gm_policy_lru.h \
	core/gm_protect.c \
	core/gm_protect.h \
	core/gm_query.c \
	core/gm_radix.c \
	core/gm_radix.h \
	core/gm_region.c \
	core/gm_region.h \
	core/gm_region_leaf.c \
	core/gm_region_leaf.h \
	core/gm_region_stock.c \
	core/gm_remap.c \
	core/gm_remap.h \
	core/gm_remap_deliver.c \
	core/gm_residency.c \
	core/gm_sync.c \
	core/gm_txn.c \
	core/gm_txn.h \
	core/gm_txn_to_dev.c \
	core/gm_txn_to_host.c \
	core/gm_work.c \
	core/gm_work.h \
	core/gm_ws.c \
	core/gm_ws.h \
	core/gm_ws_hold.c \
	core/gm_ws_pieces.c
libgm_core_a_CPPFLAGS = $(GM_CPPFLAGS)
LINT_FILES += $(libgm_core_a_SOURCES)
