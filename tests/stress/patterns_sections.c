/* SPDX-License-Identifier: MIT */
/* What the memory of a job is, and what happens to it between two passes of the device: see patterns.h. */
#include "patterns.h"

#define RW (PROT_READ | PROT_WRITE)

static bool adopt(struct run *r)
{
	return gm_adopt(r->w->as, r->at, r->bytes, 0) == GM_RET_SUCCESS;
}

static void release(struct run *r, char *at, uint64_t bytes)
{
	gm_ret_t ret = gm_release(r->w->as, at, bytes);

	if (ret)
		pattern_fail(r, "gm_release: %s: %s", gm_ret_name(ret), gm_last_error());
}

/* ------------------------------------------------------- kinds of memory */

/* With the allocator's own bytes around it. */
static bool get_malloc(struct run *r)
{
	r->raw = r->at = malloc(r->bytes);
	return r->raw && adopt(r);
}

static void put_malloc(struct run *r)
{
	release(r, r->at, r->bytes);
	free(r->raw);
}

static bool get_alloc(struct run *r)
{
	void *at = NULL;

	if (gm_alloc(r->w->as, r->bytes, 0, &at))
		return false;
	r->at = at;
	return true;
}

static void put_alloc(struct run *r)
{
	gm_ret_t ret = gm_free(r->w->as, r->at);

	if (ret)
		pattern_fail(r, "gm_free: %s: %s", gm_ret_name(ret), gm_last_error());
}

static bool map(struct run *r, int flags, int fd)
{
	r->raw_bytes = (r->bytes + PAGE - 1) / PAGE * PAGE;
	r->raw = mmap(NULL, r->raw_bytes, RW, flags, fd, 0);
	r->at = r->raw;
	return r->raw != MAP_FAILED;
}

static bool get_mmap(struct run *r)
{
	return map(r, MAP_PRIVATE | MAP_ANONYMOUS, -1) && madvise(r->at, r->raw_bytes, MADV_NOHUGEPAGE) == 0 && adopt(r);
}

/* Whole pages: the kernel moves no range that begins or ends in a page that is watched otherwise. */
static bool get_pages(struct run *r)
{
	r->bytes = (r->bytes + PAGE - 1) / PAGE * PAGE;
	return get_mmap(r);
}

static void put_mmap(struct run *r)
{
	if (r->bytes)
		release(r, r->at, r->bytes);
	if (r->raw_bytes && munmap(r->raw, r->raw_bytes))
		pattern_fail(r, "munmap: error %d", errno);
}

/* What devices have of it goes with the mapping, unsaid. */
static void put_unsaid(struct run *r)
{
	if (munmap(r->raw, r->raw_bytes))
		pattern_fail(r, "munmap: error %d", errno);
	if (r->fd >= 0)
		close(r->fd);
}

/* Blocks of 2 MiB, whatever the pattern asked for. */
static bool get_huge(struct run *r)
{
	r->bytes = (r->bytes + BLOCK - 1) / BLOCK * BLOCK;
	r->raw_bytes = r->bytes + BLOCK;
	r->raw = mmap(NULL, r->raw_bytes, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (r->raw == MAP_FAILED)
		return false;
	r->at = (char *)r->raw + (BLOCK - GM_VA(r->raw) % BLOCK) % BLOCK;
	return madvise(r->at, r->bytes, MADV_HUGEPAGE) == 0 && adopt(r);
}

static bool get_file(struct run *r, int flags)
{
	r->fd = memfd_create("gm-pattern", MFD_CLOEXEC);
	return r->fd >= 0 && ftruncate(r->fd, (off_t)((r->bytes + PAGE - 1) / PAGE * PAGE)) == 0 && map(r, flags, r->fd);
}

static bool get_shared(struct run *r)
{
	return get_file(r, MAP_SHARED);
}

static bool get_file_disk(struct run *r, int flags)
{
	char path[] = "./gm_pattern_XXXXXX";

	r->fd = mkostemp(path, O_CLOEXEC);
	(void)unlink(path);
	return r->fd >= 0 && ftruncate(r->fd, (off_t)((r->bytes + PAGE - 1) / PAGE * PAGE)) == 0 && map(r, flags, r->fd);
}

static bool get_file_private(struct run *r)
{
	return get_file_disk(r, MAP_PRIVATE);
}

static bool get_file_shared(struct run *r)
{
	return get_file_disk(r, MAP_SHARED);
}

/* What the device stored is in the file. */
static void twist_file(struct run *r, unsigned pass)
{
	char *saved = r->at, *copy = malloc(r->bytes);
	uint64_t wrong;

	(void)pass;
	if (!copy || pread(r->fd, copy, r->bytes, 0) != (ssize_t)r->bytes) {
		pattern_fail(r, "the file cannot be read: error %d", errno);
	} else {
		r->at = copy;
		wrong = pattern_wrong_cpu(r, r->bytes);
		r->at = saved;
		if (wrong)
			pattern_fail(r, "%" PRIu64 " bytes of the file are wrong", wrong);
	}
	free(copy);
}

/* ------------------------------------------------------ what happens to it */

/* Block by block, as gm_adopt() says: of some a device may have had nothing. */
static bool remap(struct run *r)
{
	char *to = mmap(NULL, r->raw_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool ok = to != MAP_FAILED;

	for (uint64_t off = 0, n; ok && off < r->raw_bytes; off += n) {
		char *from = r->at + off;

		n = BLOCK - GM_VA(from) % BLOCK;
		n = n < r->raw_bytes - off ? n : r->raw_bytes - off;
		ok = mremap(from, n, n, MREMAP_MAYMOVE | MREMAP_FIXED, to + off) == to + off;
	}
	if (!ok)
		pattern_fail(r, "mremap: error %d", errno);
	else
		r->raw = r->at = to;
	return ok;
}

static void twist_remap(struct run *r, unsigned pass)
{
	gm_ret_t ret;

	(void)pass;
	if (!remap(r))
		return;
	/* What a device had is known at the new place. A stride may have left blocks that none had: adopted anew. */
	ret = gm_adopt(r->w->as, r->at, r->bytes, 0);
	if (ret && ret != GM_RET_EXIST)
		pattern_fail(r, "gm_adopt: %s: %s", gm_ret_name(ret), gm_last_error());
}

static void twist_remap_ro(struct run *r, unsigned pass)
{
	gm_ret_t ret;

	twist_remap(r, pass);
	if (mprotect(r->raw, r->raw_bytes, PROT_READ))
		pattern_fail(r, "mprotect: error %d", errno);
	ret = gm_migrate(r->w->as, GM_VA(r->at), r->bytes, NULL, NULL); /* no mapping with the old rights is left */
	if (ret)
		pattern_fail(r, "gm_migrate: %s: %s", gm_ret_name(ret), gm_last_error());
	ret = pattern_touch(r, PAGE, true);
	if (ret != GM_RET_PERM)
		pattern_fail(r, "a store to read-only memory: %s", gm_ret_name(ret));
	if (pattern_wrong_dev(r, r->bytes) || pattern_wrong_cpu(r, r->bytes))
		pattern_fail(r, "bytes of the read-only memory are wrong");
	if (mprotect(r->raw, r->raw_bytes, RW))
		pattern_fail(r, "mprotect: error %d", errno);
}

/* A child reads all of it, and stores to its own copy. */
static void child_reads(struct run *r)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		uint64_t wrong = pattern_wrong_cpu(r, r->bytes);

		memset(r->at, 0x77, r->bytes);
		_exit(wrong ? 1 : 0);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pid < 0 || status)
		pattern_fail(r, "the child: status 0x%x", (unsigned)status);
}

/* The child comes after the device has written... */
static void twist_fork_after(struct run *r, unsigned pass)
{
	(void)pass;
	child_reads(r);
}

/* ... or when the CPU has looked, and the device writes once more afterwards. */
static void twist_fork_before(struct run *r, unsigned pass)
{
	gm_ret_t ret;

	(void)pass;
	if (pattern_wrong_cpu(r, r->bytes))
		pattern_fail(r, "bytes are wrong before the fork");
	child_reads(r);
	ret = pattern_pass(r, NULL);
	if (ret)
		pattern_fail(r, "a pass after the fork: %s", gm_ret_name(ret));
}

static void twist_mlock(struct run *r, unsigned pass)
{
	gm_ret_t ret;

	(void)pass;
	if (syscall(SYS_mlock, r->raw, r->raw_bytes)) {
		pattern_fail(r, "mlock: error %d", errno);
		return;
	}
	ret = pattern_pass(r, NULL); /* in place */
	if (ret)
		pattern_fail(r, "a pass over locked memory: %s", gm_ret_name(ret));
	ret = gm_migrate(r->w->as, GM_VA(r->at), r->bytes, r->w->dev, NULL);
	if (ret != GM_RET_BUSY && ret != GM_RET_NOSPC)
		pattern_fail(r, "locked memory moves: %s", gm_ret_name(ret));
	if (syscall(SYS_munlock, r->raw, r->raw_bytes))
		pattern_fail(r, "munlock: error %d", errno);
}

struct race {
	struct run *r;
	_Atomic uint64_t done;
	gm_ret_t ret;
};

static void *race_pass(void *arg)
{
	struct race *race = arg;

	race->ret = pattern_pass(race->r, &race->done);
	return NULL;
}

/* The upper half goes while the device works its way up. */
static void twist_race(struct run *r, unsigned pass)
{
	uint64_t half = r->bytes / 2 / PAGE * PAGE, want = half * (pass % 4) / 4 / PAGE;
	struct race race = { .r = r };
	pthread_t id;

	if (r->bytes < 4 * PAGE)
		return;
	if (pthread_create(&id, NULL, race_pass, &race)) {
		pattern_fail(r, "no thread");
		return;
	}
	while (atomic_load(&race.done) < want)
		;
	if (munmap(r->at + half, r->raw_bytes - half))
		pattern_fail(r, "munmap: error %d", errno);
	pthread_join(id, NULL);
	if (race.ret && race.ret != GM_RET_FAULT)
		pattern_fail(r, "the race: %s", gm_ret_name(race.ret));
	/* alone nobody else can have got the address */
	if (r->pattern->threads == 1 && pattern_touch(r, half, false) != GM_RET_FAULT)
		pattern_fail(r, "the device still has what was unmapped");
	r->bytes = r->raw_bytes = half;
}

/* ---------------------------------------------------------------- table */

const struct section pattern_sections[] = {
	{ "malloc", false, get_malloc, NULL, put_malloc },
	{ "alloc", false, get_alloc, NULL, put_alloc },
	{ "mmap", false, get_mmap, NULL, put_mmap },
	{ "mmap-unsaid", false, get_mmap, NULL, put_unsaid },
	{ "huge", false, get_huge, NULL, put_unsaid },
	{ "shared", true, get_shared, twist_file, put_unsaid },
	{ "file-private", true, get_file_private, NULL, put_unsaid },
	{ "file-shared", true, get_file_shared, twist_file, put_unsaid },
	{ "remap", false, get_pages, twist_remap, put_mmap },
	{ "remap-ro", false, get_pages, twist_remap_ro, put_mmap },
	{ "fork-read-before", false, get_mmap, twist_fork_before, put_mmap },
	{ "fork-read-after", false, get_mmap, twist_fork_after, put_mmap },
	{ "mlock", false, get_mmap, twist_mlock, put_mmap },
	{ "race-munmap", false, get_mmap, twist_race, put_mmap },
};

const unsigned pattern_section_count = sizeof(pattern_sections) / sizeof(pattern_sections[0]);
