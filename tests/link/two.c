/* SPDX-License-Identifier: MIT */
/*
 * Two shared libraries in one program, both with libgmem.a inside. Linked as
 * usual, the loader merges the public functions; with --exclude-libs
 * (-DAPART) each keeps its own, and what goes wrong in one is not seen in the
 * other. Both ways must work.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *one_version(void);
const char *one_error(void);
int one_fail(void);
const char *two_version(void);
const char *two_error(void);
int two_fail(void);

static int check(int ok, const char *what)
{
	if (!ok)
		fprintf(stderr, "wrong: %s\n", what);
	return !ok;
}

int main(void)
{
	char before[256];
	int bad = 0;

	bad |= check(strcmp(one_version(), two_version()) == 0, "the versions agree");
	snprintf(before, sizeof(before), "%s", two_error());
	bad |= check(one_fail() == -EINVAL, "the call of the first library fails");
	bad |= check(one_error()[0] != '\0', "the first library knows its failure");
#ifdef APART
	bad |= check(one_version() != two_version(), "each library has its own copy");
	bad |= check(strcmp(before, two_error()) == 0, "the second library saw nothing of it");
#endif
	bad |= check(two_fail() == -EINVAL, "the call of the second library fails");
	bad |= check(two_error()[0] != '\0', "the second library knows its failure");
	return bad;
}
