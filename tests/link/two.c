/* SPDX-License-Identifier: MIT */
/*
 * Two shared libraries in one program, both with libgmem.a inside. Linked as
 * usual, the loader merges the public functions; with --exclude-libs
 * (-DAPART) each keeps its own, and what goes wrong in one is not seen in the
 * other. Both ways must work. What one copy made, the other refuses; where
 * they are merged, there is only one.
 *
 * Exit: 0 good, 77 good as far as it goes without the right to userfaultfd.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct gm_lib;
struct gm_dev;

#define PLUGIN(name)                                              \
	const char *name##_version(void);                         \
	const char *name##_error(void);                           \
	int name##_fail(void);                                    \
	int name##_open(struct gm_lib **lib, struct gm_dev **dev); \
	int name##_close(struct gm_lib *lib, struct gm_dev *dev); \
	int name##_query(struct gm_dev *dev);                     \
	int name##_space(struct gm_lib *lib);
PLUGIN(one)
PLUGIN(two)

#ifdef APART
#define OF_THE_OTHER (-EINVAL)
#else
#define OF_THE_OTHER 0
#endif

static int check(int ok, const char *what)
{
	if (!ok)
		fprintf(stderr, "wrong: %s\n", what);
	return !ok;
}

static int texts(void)
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

static int handles(struct gm_lib *lib1, struct gm_dev *dev1, struct gm_lib *lib2, struct gm_dev *dev2)
{
	int bad = 0;

	bad |= check(one_query(dev1) == 0 && two_query(dev2) == 0, "each knows its own device");
	bad |= check(one_space(lib1) == 0 && two_space(lib2) == 0, "each makes address spaces");
	bad |= check(one_query(dev2) == OF_THE_OTHER, "the first library and a device of the second");
	bad |= check(two_query(dev1) == OF_THE_OTHER, "the second library and a device of the first");
	bad |= check(two_space(lib1) == OF_THE_OTHER, "the second library and an instance of the first");
#ifdef APART
	bad |= check(one_close(lib2, dev2) == -EINVAL && two_query(dev2) == 0, "the first ends nothing of the second");
	bad |= check(strstr(one_error(), "another copy") != NULL, "and says why");
#endif
	bad |= check(one_close(lib1, dev1) == 0, "the first library ends");
	bad |= check(one_query(dev1) == -EINVAL, "what has ended is refused");
	bad |= check(two_query(dev2) == 0, "the second library goes on");
	bad |= check(two_close(lib2, dev2) == 0, "the second library ends");
	return bad;
}

int main(void)
{
	struct gm_lib *lib1, *lib2;
	struct gm_dev *dev1, *dev2;
	int bad = texts();
	int ret = one_open(&lib1, &dev1);

	if (ret == -EPERM || ret == -EOPNOTSUPP) {
		fprintf(stderr, "no instance can be made here: %s\n", one_error());
		return bad ? bad : 77;
	}
	if (check(ret == 0, one_error()))
		return 1;
	if (check(two_open(&lib2, &dev2) == 0, two_error()))
		return 1;
	return bad | handles(lib1, dev1, lib2, dev2);
}
