/* SPDX-License-Identifier: MIT */
/*
 * mprotect() while pages are away. There is no event for it: a device that was given a right keeps it until its mapping
 * goes; at each new mapping the rights are read again. The CPU has what the kernel says, at once. No byte is lost by it.
 */
#include "config.h"

#include "tests/process/process.h"

TestSuite(rights, .timeout = 290);

/* What a system call finds there: 0 or EFAULT, where a load or store would be a signal. */
static int cpu_reads(const char *at)
{
	static int fd = -1;
	ssize_t n;

	if (fd < 0)
		fd = memfd_create("gm-test", MFD_CLOEXEC);
	n = pwrite(fd, at, 8, 0);
	return n == 8 ? 0 : errno;
}

static int cpu_writes(char *at)
{
	static int fd = -1;
	ssize_t n;

	if (fd < 0)
		fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	n = read(fd, at, 8);
	return n == 8 ? 0 : errno;
}

/* So that a device has no mapping of it any more. */
static void come_home(struct proc *p, uint64_t first, uint64_t end)
{
	OK(gm_migrate(p->as, GM_VA(p->at) + first * PAGE, (end - first) * PAGE, NULL, NULL));
	MUST(pages_away(p, p->at, first, end) == 0, "home");
}

static const struct part {
	uint64_t first, end;
} parts[] = { { 0, PAGES }, { 3, 21 }, { BLOCK_PAGES - 100, BLOCK_PAGES + 100 } };

static void each_part(struct proc *p, void (*fn)(struct proc *p, const struct part *c))
{
	for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		if (i) {
			proc_put(p);
			proc_get(p);
		}
		fn(p, &parts[i]);
	}
}

static void no_access(struct proc *p, const struct part *c)
{
	char *at = p->at + c->first * PAGE, *last = p->at + (c->end - 1) * PAGE;
	uint64_t bytes = (c->end - c->first) * PAGE;

	SYS(mprotect(at, bytes, PROT_NONE));
	MUST(cpu_reads(at) == EFAULT && cpu_writes(last) == EFAULT, "no access");
	if (p->dev_first)
		come_home(p, c->first, c->end);
	if (p->place == HOST || p->dev_first) {
		IS(gm_dev_fault(p->ctx, GM_VA(at), GM_READ), GM_RET_FAULT);
		IS(gm_dev_fault(p->ctx, GM_VA(last), GM_WRITE), GM_RET_FAULT);
		IS(dev_touch(p, last, false), GM_RET_FAULT);
	}
	MUST(cpu_reads(at) == EFAULT, "no access, after a device asked");
	SYS(mprotect(at, bytes, RW));
	assert_same(p, p->at, 0, PAGES);
}

PLACE_TEST(rights, none_and_back)
{
	each_part(p, no_access);
}

static void read_only(struct proc *p, const struct part *c)
{
	char *at = p->at + c->first * PAGE, *last = p->at + (c->end - 1) * PAGE;
	uint64_t bytes = (c->end - c->first) * PAGE;

	SYS(mprotect(at, bytes, PROT_READ));
	MUST(cpu_writes(last) == EFAULT, "no store");
	if (p->dev_first)
		come_home(p, c->first, c->end);
	if (p->place == HOST || p->dev_first) {
		IS(gm_dev_fault(p->ctx, GM_VA(last), GM_WRITE), GM_RET_PERM);
		IS(dev_touch(p, last, true), GM_RET_PERM);
	}
	MUST(dev_wrong(p, p->at, c->first, c->end) == 0, "the device reads");
	MUST(cpu_wrong(p, p->at, 0, PAGES) == 0, "the CPU reads");
	MUST(cpu_writes(at) == EFAULT, "no store, after a device asked");
	SYS(mprotect(at, bytes, RW));
	assert_same(p, p->at, 0, PAGES);
}

PLACE_TEST(rights, read_only_and_back)
{
	each_part(p, read_only);
}

/* A device that has read gets no write either, as that is a new mapping. */
PLACE_TEST(rights, a_right_that_grows_is_asked_again)
{
	OK(gm_migrate(p->as, GM_VA(p->at), BYTES, NULL, NULL));
	MUST(dev_wrong(p, p->at, 0, PAGES) == 0, "the device reads");
	MUST(pages_away(p, p->at, 0, PAGES) == PAGES, "all of it");
	SYS(mprotect(p->at, BYTES, PROT_READ));
	IS(gm_dev_fault(p->ctx, GM_VA(p->at), GM_WRITE), GM_RET_PERM);
	IS(dev_touch(p, p->at + BLOCK, true), GM_RET_PERM);
	MUST(dev_wrong(p, p->at, 0, PAGES) == 0, "the device reads");
	SYS(mprotect(p->at, BYTES, RW));
	assert_same(p, p->at, 0, PAGES);
}

/* Every page its own mapping: what is restored, stolen or filled crosses as many mappings as there are pages. */
PLACE_TEST(rights, every_other_page)
{
	uint64_t odd = 0;

	for (uint64_t i = 0; i < 200; i += 2)
		SYS(mprotect(p->at + i * PAGE, PAGE, PROT_READ));
	MUST(cpu_wrong(p, p->at, 0, PAGES) == 0, "the CPU reads");
	for (uint64_t i = 0; i < 200; i++)
		odd += dev_touch(p, p->at + i * PAGE, false) != GM_RET_SUCCESS;
	MUST(odd == 0, "the device reads");
	for (uint64_t i = 0; i < 200; i += 2)
		SYS(mprotect(p->at + i * PAGE, PAGE, RW));
	assert_same(p, p->at, 0, PAGES);
}

/* Without rights, and then gone. */
PLACE_TEST(rights, none_and_unmapped)
{
	SYS(mprotect(p->at, BLOCK, PROT_NONE));
	SYS(munmap(p->at + BLOCK / 2, BLOCK));
	assert_outside(p, p->at, BLOCK_PAGES / 2, BLOCK_PAGES / 2 * 3);
	SYS(mprotect(p->at, BLOCK / 2, RW));
	assert_same(p, p->at, 0, BLOCK_PAGES / 2);
	assert_same(p, p->at, BLOCK_PAGES / 2 * 3, PAGES);
}
