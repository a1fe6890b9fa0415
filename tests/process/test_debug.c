/* SPDX-License-Identifier: MIT */
/*
 * Who looks from outside: /proc/self/mem, ptrace(), a core dump. What docs/debugging.md says is what happens: an error
 * for what is away, holes in a dump, within a bound; and after gm_as_home() all of it.
 */
#include "config.h"

#include <dirent.h>
#include <elf.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/process/process.h"

TestSuite(debug, .timeout = 290);

/* ------------------------------------------------------------ gm_as_home */

PLACE_TEST(debug, everything_home)
{
	uint64_t left = 1;

	OK(gm_as_home(p->as, UINT64_C(60000000000), &left));
	MUST(left == 0, "%llu bytes left", (unsigned long long)left);
	MUST(pages_away(p, p->at, 0, PAGES) == 0, "home");
	for (uint64_t i = 0; i < PAGES; i += 7)
		MUST(pagemap_of(p->at + i * PAGE) == 2, "page %u is present", (unsigned)i);
	assert_same(p, p->at, 0, PAGES);
	OK(gm_as_home(p->as, UINT64_C(60000000000), NULL));
	OK(gm_as_home(p->as, UINT64_C(60000000000), &left));
	assert_same(p, p->at, 0, PAGES);
}

/* What a working set holds stays where it is, and is counted; the rest comes, also of the same block. */
PLACE_TEST(debug, home_but_for_what_is_held)
{
	struct gm_ws_range range = { .va = GM_VA(p->at) + 64 * PAGE, .bytes = 32 * PAGE, .access = GM_WRITE };
	uint64_t left = 0;
	struct gm_ws *ws = NULL;

	OK(gm_ws_acquire(p->ctx, &range, 1, UINT64_C(60000000000), &ws));
	IS(gm_as_home(p->as, UINT64_C(60000000000), &left), GM_RET_BUSY);
	MUST(left == 32 * PAGE, "%llu bytes left", (unsigned long long)left);
	MUST(pages_away(p, p->at, 0, 64) == 0 && pages_away(p, p->at, 96, PAGES) == 0, "the rest");
	MUST(pages_away(p, p->at, 64, 96) == 32, "what is held");
	OK(gm_ws_release(ws, NULL));
	OK(gm_as_home(p->as, UINT64_C(60000000000), &left));
	assert_same(p, p->at, 0, PAGES);
}

/* Lost is lost, and said; what the host kept is there. Who looks from outside finds an error, not zeros. */
Test(debug, home_from_a_lost_device)
{
	static struct proc p = { .place = DIRTY };
	uint64_t left = 1, value;
	int fd;

	proc_open(&p);
	proc_get(&p);
	OK(gm_mock_lose(p.dev));
	IS(gm_as_home(p.as, UINT64_C(60000000000), &left), GM_RET_NODEV);
	MUST(left == 0, "%llu bytes left", (unsigned long long)left);
	MUST(info_of(&p, p.at).place == GM_PLACE_POISONED, "lost");
	fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	MUST(pread(fd, &value, 8, (off_t)GM_VA(p.at)) == -1, "an error");
	close(fd);
	SYS(munmap(p.at, BYTES));
	proc_close(&p);
}

/* ------------------------------------------------------ from inside, outside */

/* By the kernel's file of the process's memory: the words that are there are right, for the others EIO. */
PLACE_TEST(debug, proc_self_mem)
{
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	uint64_t value;

	for (uint64_t i = 0; i < PAGES; i += 3) {
		off_t at = (off_t)GM_VA(word_at(p->at, i));
		ssize_t n = pread(fd, &value, sizeof(value), at);

		MUST(p->away[i] ? n == -1 && errno == EIO : n == 8 && value == p->want[i], "page %u: %zd", (unsigned)i, n);
		n = p->away[i] ? pwrite(fd, &value, sizeof(value), at) : -1;
		MUST(n == -1, "page %u: %zd", (unsigned)i, n);
	}
	assert_placed(p);
	OK(gm_as_home(p->as, UINT64_C(60000000000), NULL));
	for (uint64_t i = 0; i < PAGES; i++)
		MUST(pread(fd, &value, sizeof(value), (off_t)GM_VA(word_at(p->at, i))) == 8 && value == p->want[i], "page %u",
		     (unsigned)i);
	close(fd);
	assert_same(p, p->at, 0, PAGES);
}

/* A debugger's look; the process goes on under it. */
static int debugger(struct proc *p, pid_t parent)
{
	int status, bad = 0;

	if (ptrace(PTRACE_SEIZE, parent, NULL, NULL) || ptrace(PTRACE_INTERRUPT, parent, NULL, NULL))
		return errno == EPERM ? 77 : 2;
	if (waitpid(parent, &status, __WALL) != parent)
		return 3;
	for (uint64_t i = 0; i < PAGES; i += 5) {
		long got;

		errno = 0;
		got = ptrace(PTRACE_PEEKDATA, parent, (void *)(uintptr_t)word_at(p->at, i), NULL);
		bad += p->away[i] ? !(got == -1 && errno == EIO) : (uint64_t)got != p->want[i];
	}
	(void)ptrace(PTRACE_DETACH, parent, NULL, NULL);
	return bad ? 1 : 0;
}

PLACE_TEST(debug, ptrace)
{
	int go[2], status = 0;
	pid_t pid, parent = getpid();
	char c = 'g';

	SYS(pipe(go));
	pid = fork(); /* which brings everything home */
	MUST(pid >= 0, "fork");
	if (pid == 0) {
		(void)alarm(120);
		_exit(read(go[0], p->want, sizeof(p->want)) == sizeof(p->want) && read(go[0], &c, 1) == 1 ?
			      debugger(p, parent) : 4);
	}
	move_there(p);
	assert_placed(p);
	MUST(write(go[1], p->want, sizeof(p->want)) == sizeof(p->want) && write(go[1], &c, 1) == 1, "go");
	while (waitpid(pid, &status, 0) != pid)
		MUST(errno == EINTR, "waitpid");
	close(go[0]);
	close(go[1]);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		cr_skip_test("NOT TESTED: no right to ptrace()");
	MUST(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the debugger: status 0x%x", (unsigned)status);
	assert_same(p, p->at, 0, PAGES);
}

/* ------------------------------------------------------------- core dump */

static bool dumps_into_the_directory(void)
{
	char text[200] = "|";
	FILE *f = fopen("/proc/sys/kernel/core_pattern", "r");

	if (f && !fgets(text, sizeof(text), f))
		text[0] = '|';
	if (f)
		(void)fclose(f);
	return text[0] != '|' && text[0] != '/';
}

/* What ends as a core dump: the memory as a table has it, then the signal. */
static void crash(struct proc *p, const char *dir, bool home, enum place place, uint32_t flags)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };

	(void)signal(SIGABRT, SIG_DFL);
	p->place = place;
	p->flags = flags;
	if (chdir(dir) || setrlimit(RLIMIT_CORE, &all))
		_exit(77);
	proc_open(p);
	proc_get(p);
	if (home && gm_as_home(p->as, UINT64_C(60000000000), NULL))
		_exit(3);
	abort();
}

/* The word of each page in the dump; false: there is no such memory in it. */
static bool read_dump(const char *dir, uint64_t va, uint64_t *words)
{
	static char path[600], base[BYTES];
	DIR *d = opendir(dir);
	struct dirent *e;
	Elf64_Ehdr head;
	Elf64_Phdr part;
	bool found = false;
	int fd = -1;

	while (d && (e = readdir(d)) != NULL)
		if (e->d_name[0] != '.') {
			(void)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
			fd = open(path, O_RDONLY | O_CLOEXEC);
			(void)unlink(path);
		}
	if (d)
		(void)closedir(d);
	if (fd < 0 || read(fd, &head, sizeof(head)) != (ssize_t)sizeof(head))
		return false;
	for (unsigned i = 0; i < head.e_phnum && !found; i++) {
		off_t at = (off_t)(head.e_phoff + (uint64_t)i * head.e_phentsize);

		if (pread(fd, &part, sizeof(part), at) != (ssize_t)sizeof(part))
			break;
		found = part.p_type == PT_LOAD && part.p_vaddr <= va && va + BYTES <= part.p_vaddr + part.p_filesz;
	}
	found = found && pread(fd, base, BYTES, (off_t)(part.p_offset + va - part.p_vaddr)) == (ssize_t)BYTES;
	for (uint64_t i = 0; found && i < PAGES; i++)
		words[i] = *word_at(base, i);
	close(fd);
	return found;
}

static void dump_of(enum place place, uint32_t flags, bool home)
{
	static struct proc p;
	static uint64_t words[PAGES];
	char dir[] = "./gm_test_core_XXXXXX";
	uint64_t wrong = 0;
	int status;
	pid_t pid;

	MUST(mkdtemp(dir), "mkdtemp");
	pid = fork();
	if (pid == 0)
		crash(&p, dir, home, place, flags);
	MUST(pid > 0 && waitpid(pid, &status, 0) == pid, "waitpid"); /* the bound is the suite's */
	if (!WIFSIGNALED(status) || !WCOREDUMP(status)) {
		(void)rmdir(dir);
		cr_skip_test("NOT TESTED: no core dump, status 0x%x", (unsigned)status);
	}
	MUST(read_dump(dir, ARENA_VA + BLOCK, words), "the dump has no such memory");
	(void)rmdir(dir);
	p.place = place;
	for (uint64_t i = 0; i < PAGES; i++) {
		bool away = !home && place != HOST && (place != HALF || is_half(&p, i));
		uint64_t want = place == DIRTY || (place == HALF && is_half(&p, i)) ? word(i, 2) : word(i, 1);

		wrong += words[i] != (away ? 0 : want);
	}
	MUST(wrong == 0, "%llu pages of the dump (place %d, flags %u, %s)", (unsigned long long)wrong, (int)place, flags,
	     home ? "after gm_as_home()" : "as it was");
}

Test(debug, core_dump)
{
	struct gm_lib *lib;

	if (!dumps_into_the_directory())
		cr_skip_test("NOT TESTED: core dumps go elsewhere (core_pattern)");
	if (gm_lib_create(NULL, &lib))
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	OK(gm_lib_destroy(lib));
	for (unsigned i = 0; i < 2; i++) {
		dump_of(HALF, 0, i);
		dump_of(DIRTY, 0, i);
		dump_of(CLEAN, GM_AS_EXCLUSIVE, i);
	}
}
