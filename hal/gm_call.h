/* SPDX-License-Identifier: MIT */
/*
 * Dispatch: the only place that calls an operation of an ops table. Each
 * wrapper asserts that no lock is held, lets the simulation switch, calls, and
 * notes when a device is lost. What an operation is asked and answers is not
 * looked at here: that is the validation shim's (gmem/validate.h).
 *
 *     table given --gm_hal_open: check abi, size, required slots, caps <=> slots;
 *                   fill the missing ones with "unimplemented"--> open --gm_hal_close--> gone
 *     open --any op returns NODEV, or a transfer is late--> lost (sticky: nothing is called any more
 *           but pmap_destroy, dev_halt, dev_fini)
 */
#ifndef GM_HAL_CALL_H
#define GM_HAL_CALL_H

#include <stdatomic.h>

#include <gmem/hal.h>

#include "hal/gm_env.h"
#include "hal/gm_host.h"

struct gm_hal_dev {
	struct gm_env *env;
	struct gm_mmu mmu;         /* complete: no slot is NULL, except host */
	struct gm_host_ops host;   /* for GM_CAP_HOST */
	struct gm_services svc;    /* what the backend was given; svc.self == this */
	struct gm_dev_caps caps;
	void *dev;
	struct gm_hal_dev *host_dev;     /* where host_access goes; NULL for the host itself */
	void (*fault_ready)(void *arg);  /* set by core before the first attach */
	void *fault_arg;
	bool shim;                 /* dev and all pmaps are those of the validation shim */
	atomic_bool lost;
	atomic_uint untold;        /* of the host: how often it could not tell (gm_host.h) */
	uint32_t granule_bytes;    /* max(GM_PAGE_BYTES, smallest device page) */
};

/* As gm_dev_create(). `host_dev` is NULL for the host itself. */
gm_ret_t gm_hal_open(struct gm_env *env, const struct gm_mmu *mmu, void *dev_data, struct gm_hal_dev *host_dev,
		     struct gm_hal_dev **out);
void gm_hal_close(struct gm_hal_dev *d);

static inline bool gm_hal_has(const struct gm_hal_dev *d, uint32_t caps)
{
	return (d->caps.caps & caps) == caps;
}

/* The backend's own pointers, whether or not the shim is in between. */
void *gm_hal_backend_dev(struct gm_hal_dev *d);
void *gm_hal_backend_pmap(struct gm_hal_dev *d, void *pmap);
/* Device memory begins to belong to somebody, or ends to: for the shim only. `d` NULL: nothing happens. */
void gm_hal_frames(struct gm_hal_dev *d, uint64_t pa, uint64_t bytes, bool used);

gm_ret_t gm_hal_pmap_create(struct gm_hal_dev *d, void **pmap);
void gm_hal_pmap_destroy(struct gm_hal_dev *d, void *pmap);
/* One step alone, that of a fault. */
gm_ret_t gm_hal_pmap_enter(struct gm_hal_dev *d, void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte);
gm_ret_t gm_hal_sync_create(struct gm_hal_dev *d, void **sync, int *fd);
/* Once per gm_hal_sync_create(). */
void gm_hal_sync_signal(struct gm_hal_dev *d, void *sync, gm_ret_t result);
/* The descriptor of gm_hal_sync_create(), where nobody gets it. */
void gm_hal_sync_drop(int fd);
gm_ret_t gm_hal_sync_import(struct gm_hal_dev *d, int fd, struct gm_fence *done);
gm_ret_t gm_hal_access(struct gm_hal_dev *d, void *pmap, uint64_t va, void *buf, size_t bytes, bool write);
gm_ret_t gm_hal_fault_next(struct gm_hal_dev *d, struct gm_dev_fault *fault);
void gm_hal_fault_done(struct gm_hal_dev *d, void *pmap, uint64_t va, uint64_t bytes, gm_ret_t result);
void *gm_hal_cpu_ptr(struct gm_hal_dev *d, uint64_t pa, uint64_t bytes);

/* What a backend's host_access service does: no switch, no check of locks, the device may hold its own. */
/* `host` is the host itself. */
gm_ret_t gm_hal_bus_access(struct gm_hal_dev *host, uint64_t host_va, void *buf, size_t bytes, bool write);
gm_ret_t gm_hal_bus_touch(struct gm_hal_dev *host, uint64_t host_va);
gm_ret_t gm_hal_bus_bring(struct gm_hal_dev *host, uint64_t host_va, bool write, uint64_t deadline_ns);
gm_ret_t gm_hal_host_access(struct gm_hal_dev *d, uint64_t host_va, void *buf, size_t bytes, bool write);

/*
 * Run the steps of one device, in order, and wait for them. With GM_CAP_SUBMIT
 * they go down in one call; else they are walked, copies of neighbouring steps
 * in one copy(). Returns the first failure; every step's `ret` is set. After
 * TIMEDOUT the device did not answer: it is treated as lost.
 */
gm_ret_t gm_hal_run(struct gm_hal_dev *d, struct gm_step *steps, size_t n, uint64_t deadline_ns);

/* The same one by one, for steps that do not wait (no copies): allocates nothing. */
gm_ret_t gm_hal_run_now(struct gm_hal_dev *d, struct gm_step *steps, size_t n);

/* The host's own operations, see gm_host.h. */
gm_ret_t gm_hal_mem_map(struct gm_hal_dev *h, void *pmap, uint64_t bytes, bool huge, uint64_t *va);
void gm_hal_mem_unmap(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes);
void gm_hal_mem_inherit(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes, bool inherit);
gm_ret_t gm_hal_mem_protect(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes, uint32_t access);
gm_ret_t gm_hal_mem_probe(struct gm_hal_dev *h, void *pmap, uint64_t va, struct gm_host_vma *vma);
gm_ret_t gm_hal_mem_rights(struct gm_hal_dev *h, void *pmap, uint64_t va, struct gm_host_vma *vma);
gm_ret_t gm_hal_mem_kind(struct gm_hal_dev *h, void *pmap, uint64_t va, struct gm_host_vma *vma);
bool gm_hal_mem_huge(struct gm_hal_dev *h, void *pmap, uint64_t va);
gm_ret_t gm_hal_mem_content(struct gm_hal_dev *h, void *pmap, uint64_t va, struct gm_host_content *out);
gm_ret_t gm_hal_mem_present(struct gm_hal_dev *h, void *pmap, uint64_t va, struct gm_mask *present);
gm_ret_t gm_hal_watch(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_hal_unwatch(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_hal_watch_stores(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_hal_slot_alloc(struct gm_hal_dev *h, void *pmap, uint64_t *slot);
void gm_hal_slot_free(struct gm_hal_dev *h, void *pmap, uint64_t slot);
void gm_hal_slot_drop(struct gm_hal_dev *h, void *pmap, uint64_t addr, uint64_t bytes);
gm_ret_t gm_hal_steal(struct gm_hal_dev *h, void *pmap, uint64_t va, const struct gm_mask *want, uint64_t slot,
		      struct gm_host_steal *out);
gm_ret_t gm_hal_restore(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t addr, uint64_t bytes, uint64_t *done);
gm_ret_t gm_hal_fill(struct gm_hal_dev *h, void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done);
gm_ret_t gm_hal_fill_protected(struct gm_hal_dev *h, void *pmap, uint64_t va, const void *src, uint64_t bytes,
			       uint64_t *done);
gm_ret_t gm_hal_unprotect(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes);
gm_ret_t gm_hal_zero(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes, uint64_t *done);
gm_ret_t gm_hal_poison(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes, uint64_t *done);
gm_ret_t gm_hal_unmark(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes, uint64_t *done);
void gm_hal_wake(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes);
void *gm_hal_bounce(struct gm_hal_dev *h, void *pmap, unsigned index, uint64_t bytes);
size_t gm_hal_msg_read(struct gm_hal_dev *h, void *pmap, struct gm_host_msg *msgs, size_t n);
gm_ret_t gm_hal_msg_wait(struct gm_hal_dev *h, void *pmap, uint64_t deadline_ns);
void gm_hal_msg_kick(struct gm_hal_dev *h, void *pmap);
gm_ret_t gm_hal_settled(struct gm_hal_dev *h, void *pmap);
int gm_hal_msg_fd(struct gm_hal_dev *h, void *pmap);
void gm_hal_at_fork(struct gm_hal_dev *h, void *pmap, gm_ret_t (*freeze)(void *), void (*thaw)(void *), void *arg);
gm_ret_t gm_hal_keep(struct gm_hal_dev *h, void *pmap);
gm_ret_t gm_hal_reopen(struct gm_hal_dev *h, void *pmap);
gm_ret_t gm_hal_serve_forks(struct gm_hal_dev *h, void *pmap);
gm_ret_t gm_hal_child_fill(struct gm_hal_dev *h, void *pmap, int child, uint64_t va, const void *src, uint64_t bytes,
			   uint64_t *done);
size_t gm_hal_child_read(struct gm_hal_dev *h, void *pmap, int child, struct gm_host_msg *msgs, size_t n);
void gm_hal_child_close(struct gm_hal_dev *h, void *pmap, int child);
void gm_hal_child_fail(struct gm_hal_dev *h, void *pmap);
gm_ret_t gm_hal_share_map(struct gm_hal_dev *h, void *pmap, int fd, uint64_t offset, uint64_t bytes, uint64_t *va);
gm_ret_t gm_hal_share_slot(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t *slot);
gm_ret_t gm_hal_share_fd(struct gm_hal_dev *h, void *pmap, uint64_t va, int *fd);
gm_ret_t gm_hal_mem_inthread(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes, bool on);
bool gm_hal_inthread_has(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes);

#endif
