/* SPDX-License-Identifier: MIT */
/* Short reads of what rarely changes. */
#include "config.h"

#include <criterion/criterion.h>
#include <pthread.h>

#include "hal/gm_readers.h"

static struct gm_env *env;
static struct gm_readers readers;

static void setup(void)
{
	cr_assert_eq(gm_env_threads_create(NULL, &env), GM_RET_SUCCESS);
}

static void teardown(void)
{
	for (unsigned i = 0; i < GM_READERS_PLACES; i++)
		cr_assert_not(atomic_load(&readers.place[i].taken), "place %u", i);
	gm_env_threads_destroy(env);
}

TestSuite(readers, .init = setup, .fini = teardown);

Test(readers, each_has_a_place_of_its_own)
{
	atomic_bool *place[GM_READERS_PLACES];

	for (unsigned i = 0; i < GM_READERS_PLACES; i++) {
		place[i] = gm_readers_enter(env, &readers);
		cr_assert_not_null(place[i]);
		for (unsigned k = 0; k < i; k++)
			cr_assert_neq(place[i], place[k]);
	}
	cr_assert_null(gm_readers_enter(env, &readers), "there is none left");
	gm_readers_leave(place[3]);
	cr_assert_eq(gm_readers_enter(env, &readers), place[3], "the only one that is free");
	for (unsigned i = 0; i < GM_READERS_PLACES; i++)
		gm_readers_leave(place[i]);
}

Test(readers, refused_while_somebody_changes)
{
	gm_readers_keep_out(&readers);
	cr_assert_null(gm_readers_enter(env, &readers));
	gm_readers_let_in(&readers);
	gm_readers_leave(gm_readers_enter(env, &readers));
}

/* What is read, and what changes it: two words that are equal whenever nobody changes. Not atomic: nothing else orders them. */
static struct {
	struct gm_mutex lock;
	uint64_t one, other;
	atomic_uint wrong, read;
	atomic_bool stop;
} s;

static void *read_many(void *arg)
{
	(void)arg;
	while (!atomic_load(&s.stop)) {
		atomic_bool *place = gm_readers_enter(env, &readers);

		if (!place) {
			gm_lock(env, &s.lock);
			atomic_fetch_add(&s.wrong, s.one != s.other);
			gm_unlock(env, &s.lock);
			continue;
		}
		atomic_fetch_add(&s.wrong, s.one != s.other);
		atomic_fetch_add(&s.read, 1);
		gm_readers_leave(place);
	}
	return NULL;
}

/* More readers than places. */
Test(readers, who_changes_is_alone, .timeout = 60)
{
	pthread_t thread[GM_READERS_PLACES + 2];

	gm_mutex_init(env, &s.lock, GM_RANK_AS);
	for (unsigned i = 0; i < GM_READERS_PLACES + 2; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, read_many, NULL), 0);
	for (unsigned i = 0; i < 2000 || atomic_load(&s.read) < 1000; i++) {
		gm_lock(env, &s.lock);
		gm_readers_keep_out(&readers);
		s.one++;
		s.other++;
		gm_readers_let_in(&readers);
		gm_unlock(env, &s.lock);
		if (i % 16 == 0)
			(void)sched_yield();
	}
	atomic_store(&s.stop, true);
	for (unsigned i = 0; i < GM_READERS_PLACES + 2; i++)
		cr_assert_eq(pthread_join(thread[i], NULL), 0);
	cr_assert_eq(atomic_load(&s.wrong), 0);
	gm_mutex_fini(env, &s.lock);
}
