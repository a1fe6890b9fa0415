/* SPDX-License-Identifier: MIT */
/*
 * Rows of the HMM table: fork. As the kernel's test opens the device anew in the child, a child here makes a library
 * of its own: an instance belongs to the process that made it.
 */
#include "config.h"

#include <unistd.h>

#include "hmm.h"

struct family {
	struct hmm_buf b;
	struct hmm *h;    /* the parent's, which a child must not use */
	char *theirs;     /* what the child writes, and expects before */
	char *before;
};

/* In the child: reads what was inherited, also with its device, then writes with it. */
static void child_writes(void *arg)
{
	struct family *f = arg;
	struct hmm h = hmm_open(1);
	char *got = hmm_private(f->b.bytes);

	HMM_TRUE(hmm_pages(f->b.at, f->b.bytes, HMM_PRESENT, 0) == f->b.bytes / PAGE, "not all of it was inherited");
	hmm_adopt(&h, &f->b);
	HMM_OK(hmm_dev_read(&h, 0, f->b.at, f->b.bytes, got));
	HMM_TRUE(!memcmp(got, f->before, f->b.bytes), "the child's device reads other bytes");
	HMM_OK(hmm_dev_write(&h, 0, f->b.at, f->b.bytes, f->theirs));
	hmm_on_device(h.as, h.dev[0], f->b.at, f->b.bytes, f->theirs);
	HMM_TRUE(!memcmp(f->b.at, f->theirs, f->b.bytes), "the child reads other bytes");
	hmm_on_host(h.as, f->b.at, f->b.bytes);
	hmm_close(&h);
	free(got);
}

/* Variants of the row: huge pages or not, on the parent's device at the fork or not. */
static void write_in_child(enum hmm_pages pages, bool migrated)
{
	struct hmm h = hmm_open(1);
	struct family f = { .b = hmm_buffer(&h, HMM_BYTES, pages), .h = &h };

	f.before = hmm_pattern(f.b.bytes, 1);
	f.theirs = hmm_pattern(f.b.bytes, 2);
	hmm_fill(f.b.at, f.b.bytes, 1);
	if (pages == HMM_THP)
		hmm_need_huge(f.b.at, f.b.bytes);
	if (migrated)
		hmm_away_all(&h, 0, &f.b, f.before);
	cr_assert_eq(hmm_child(child_writes, &f), 0);
	cr_assert_eq(hmm_wrong(f.b.at, f.b.bytes, 1), 0, "the parent's bytes have changed");
	hmm_on_host(h.as, f.b.at, f.b.bytes);
	hmm_away_all(&h, 0, &f.b, f.before);
	free(f.before);
	free(f.theirs);
	hmm_unmap(&f.b);
	hmm_close(&h);
}

HMM_TEST(anon_write_child)
{
	write_in_child(HMM_NO_THP, false);
}

HMM_MORE(anon_write_child, thp)
{
	write_in_child(HMM_THP, false);
}

HMM_MORE(anon_write_child, migrated)
{
	write_in_child(HMM_NO_THP, true);
}

HMM_MORE(anon_write_child, thp_migrated)
{
	write_in_child(HMM_THP, true);
}

/* The child waits until the parent has written, and must not see it; then tells the parent, which must not see it. */
struct cow {
	struct hmm_buf b;
	int to_child[2];
};

static void child_of_cow(void *arg)
{
	struct cow *c = arg;
	struct hmm h = hmm_open(1);
	char *want = hmm_pattern(c->b.bytes, 1), word;

	HMM_TRUE(read(c->to_child[0], &word, 1) == 1, "no word of the parent");
	hmm_adopt(&h, &c->b);
	HMM_OK(hmm_to_dev(&h, 0, c->b.at, c->b.bytes));
	hmm_on_device(h.as, h.dev[0], c->b.at, c->b.bytes, want);
	HMM_TRUE(!hmm_wrong(c->b.at, c->b.bytes, 1), "the child sees what the parent wrote after the fork");
	hmm_close(&h);
	free(want);
}

/* Memory is on the device at a fork; the parent's writes go into pages of its own, on the host. */
static void cow_in_device(enum hmm_pages pages)
{
	struct hmm h = hmm_open(1);
	struct cow c = { .b = hmm_buffer(&h, HMM_BYTES, pages) };
	char *want = hmm_pattern(c.b.bytes, 1);
	int status = -1;
	pid_t pid;

	cr_assert_eq(pipe(c.to_child), 0);
	hmm_fill(c.b.at, c.b.bytes, 1);
	hmm_away_all(&h, 0, &c.b, want);
	pid = fork();
	if (pid == 0) {
		hmm_in_child = true;
		child_of_cow(&c);
		_exit(0);
	}
	cr_assert_gt(pid, 0);
	cr_assert_eq(hmm_away(h.as, c.b.at, c.b.bytes), 0, "brought home before the fork");
	hmm_on_host(h.as, c.b.at, c.b.bytes);
	hmm_fill(c.b.at, c.b.bytes, 3);
	cr_assert_eq(write(c.to_child[1], "x", 1), 1);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	cr_assert_eq(hmm_wrong(c.b.at, c.b.bytes, 3), 0);
	hmm_fill(want, c.b.bytes, 3);
	hmm_away_all(&h, 0, &c.b, want);
	close(c.to_child[0]);
	close(c.to_child[1]);
	free(want);
	hmm_unmap(&c.b);
	hmm_close(&h);
}

HMM_TEST(hmm_cow_in_device)
{
	cow_in_device(HMM_NO_THP);
}

HMM_MORE(hmm_cow_in_device, thp)
{
	cow_in_device(HMM_THP);
}
