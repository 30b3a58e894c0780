/* SPDX-License-Identifier: ISC */
/* test_scoreboard.c - slots, totals and orphans, and what a process may write */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "echo/scoreboard.h"

static const struct scoreboard_layout pool = { .processes = 4,
	                                       .threads = 1,
	                                       .readers = 1,
	                                       .capacity = 1,
	                                       .worker_capacity = 1,
	                                       .sources = true };
static const struct scoreboard_layout loops = { .processes = 1,
	                                        .threads = 3,
	                                        .capacity = 100,
	                                        .worker_capacity = 100 };
static const struct scoreboard_layout forks = { .processes = 1,
	                                        .threads = 1,
	                                        .children = 10,
	                                        .child_processes = true,
	                                        .capacity = 11,
	                                        .worker_capacity = 1 };

static int setup(void **state)
{
	struct scoreboard *scoreboard;

	if (scoreboard_make(&scoreboard, 1000) < 0)
		return -1;
	*state = scoreboard;
	return 0;
}

static int teardown(void **state)
{
	scoreboard_free(*state);
	return 0;
}

static void totals_survive_workers_and_crews(void **state)
{
	struct scoreboard *scoreboard = *state;
	int crew = scoreboard_crew_open(scoreboard, &loops);
	struct local_stats local_stats = { .received = 100, .echoed = 90 };
	struct stats_total total;

	assert_int_equal(crew, 0);
	scoreboard_process_start(scoreboard, 0, 0);
	atomic_store(&scoreboard_slot(scoreboard, 0, 2)->live, 2);
	stats_publish(scoreboard_slot(scoreboard, 0, 2), &local_stats);
	assert_int_equal(local_stats.received + local_stats.echoed, 0);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.counters[STAT_ECHOED], 90);
	assert_int_equal(total.live, 2);
	assert_int_equal(scoreboard_process_end(scoreboard, 0, 0), 2);
	scoreboard_process_start(scoreboard, 0, 0);
	stats_add(scoreboard_slot(scoreboard, 0, 2), STAT_ECHOED, 10);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.counters[STAT_ECHOED], 100);
	assert_int_equal(total.live, 0);
	(void) scoreboard_process_end(scoreboard, 0, 0);
	scoreboard_crew_close(scoreboard, 0);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.counters[STAT_ECHOED], 100);

	/* another crew in the same memory begins with nothing */
	assert_int_equal(scoreboard_crew_open(scoreboard, &pool), 0);
	for (unsigned i = 0; i < 5; i++)
		scoreboard_process_start(scoreboard, 0, i);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.counters[STAT_ECHOED], 100);
}

static void readiness_is_that_of_every_worker(void **state)
{
	struct scoreboard *scoreboard = *state;

	assert_int_equal(scoreboard_crew_open(scoreboard, &pool), 0);
	for (unsigned i = 0; i < 5; i++)
		scoreboard_process_start(scoreboard, 0, i);
	for (unsigned i = 0; i < 5; i++) {
		assert_false(scoreboard_crew_ready(scoreboard, 0));
		stats_slot_ready(scoreboard_slot(scoreboard, 0, i));
	}
	assert_true(scoreboard_crew_ready(scoreboard, 0));
	assert_true(scoreboard_crew_alive(scoreboard, 0));
	for (unsigned i = 0; i < 5; i++) {
		assert_false(scoreboard_crew_alive(scoreboard, 0));
		for (unsigned j = 0; j <= i; j++)
			stats_heartbeat(scoreboard_slot(scoreboard, 0, j));
	}
	assert_true(scoreboard_crew_alive(scoreboard, 0));
	/* a worker that has ended need not */
	(void) scoreboard_process_end(scoreboard, 0, 4);
	for (unsigned j = 0; j < 4; j++)
		stats_heartbeat(scoreboard_slot(scoreboard, 0, j));
	assert_true(scoreboard_crew_alive(scoreboard, 0));
	assert_false(scoreboard_crew_ready(scoreboard, 0));
}

/* A worker that writes anything to its slot harms its own counters only. */
static void impossible_counters_are_not_believed(void **state)
{
	struct scoreboard *scoreboard = *state;
	struct stats_slot *good, *bad;
	struct stats_total total;
	uint32_t random = 7;

	assert_int_equal(scoreboard_crew_open(scoreboard, &pool), 0);
	for (unsigned i = 0; i < 5; i++)
		scoreboard_process_start(scoreboard, 0, i);
	good = scoreboard_slot(scoreboard, 0, 0);
	bad = scoreboard_slot(scoreboard, 0, 1);
	for (unsigned round = 1; round <= 100; round++) {
		uint32_t words[sizeof *bad / 4];

		stats_add(good, STAT_ACCEPTED, 1);
		stats_add(bad, STAT_ACCEPTED, 1);
		scoreboard_total(scoreboard, &total);
		assert_int_equal(total.counters[STAT_ACCEPTED], 2 * round);
		for (size_t i = 0; i < sizeof words / 4; i++)
			words[i] = random = random * 1664525 + 1013904223;
		memcpy((void *) bad, words, sizeof words);
		scoreboard_total(scoreboard, &total);
		assert_int_equal(total.counters[STAT_ACCEPTED], 2 * round);
		assert_true(total.live <= 1);
		(void) scoreboard_crew_alive(scoreboard, 0);
		assert_true(scoreboard_process_end(scoreboard, 0, 1) <= 1);
		scoreboard_process_start(scoreboard, 0, 1);
		scoreboard_total(scoreboard, &total);
		assert_int_equal(total.counters[STAT_ACCEPTED], 2 * round);
		assert_int_equal(total.live, 0);
	}
}

static bool only_4711(void *context, unsigned child, pid_t pid)
{
	assert_int_equal(child, (*(unsigned *) context)++);
	return pid == 4711;
}

static void orphans_keep_their_slots(void **state)
{
	struct scoreboard *scoreboard = *state;
	struct admission_shared *admission = &scoreboard_shared(scoreboard)->admission;
	unsigned child = 0;
	struct stats_total total;

	assert_int_equal(scoreboard_crew_open(scoreboard, &forks), 0);
	scoreboard_process_start(scoreboard, 0, 0);
	for (unsigned i = 0; i < 3; i++) {
		struct stats_slot *slot = scoreboard_slot(scoreboard, 0, 1 + i);

		atomic_store(&slot->pid, i < 2 ? 4711 + (int) i : STATS_PID_UNKNOWN);
		atomic_store(&slot->live, 77);
		atomic_store(&slot->state, SLOT_READY);
		atomic_store(&scoreboard_slot(scoreboard, 0, 0)->children, i + 1);
		scoreboard_total(scoreboard, &total);
		assert_int_equal(total.live, i + 1);
	}
	/* more than there can be is not believed */
	atomic_store(&scoreboard_slot(scoreboard, 0, 0)->children, 11);
	scoreboard_total(scoreboard, &total);
	(void) scoreboard_process_end(scoreboard, 0, 0);
	child = 0;
	assert_int_equal(scoreboard_find_orphans(scoreboard, 0, only_4711, &child), 2);
	assert_int_equal(child, 2);
	/* the third child has lost its slot */
	assert_int_equal(atomic_load(&scoreboard_slot(scoreboard, 0, 3)->pid), 0);
	assert_int_equal(scoreboard_view(scoreboard)->orphans[0][0], 1);
	assert_int_equal(scoreboard_view(scoreboard)->orphans[0][1], 0);
	assert_int_equal(admission_slots_taken(admission), 1);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.live, 1);
	assert_int_equal(scoreboard_orphan_end(scoreboard, 0, 0, SCOREBOARD_CLOSED), 1);
	assert_int_equal(admission_slots_taken(admission), 0);
	assert_int_equal(scoreboard_view(scoreboard)->orphans[0][0], 0);
}

static void connections_are_those_of_a_worker(void **state)
{
	struct scoreboard *scoreboard = *state;
	uint64_t connections;
	unsigned end;

	assert_int_equal(scoreboard_crew_open(scoreboard, &loops), 0);
	assert_int_equal(scoreboard_crew_open(scoreboard, &pool), 1);
	scoreboard_process_start(scoreboard, 0, 0);
	for (unsigned i = 0; i < 5; i++)
		scoreboard_process_start(scoreboard, 1, i);
	atomic_store(&scoreboard_slot(scoreboard, 0, 1)->live, 30);
	atomic_store(&scoreboard_slot(scoreboard, 1, 1)->live, 1);
	assert_true(scoreboard_worker_connections(scoreboard, 1, &connections, &end));
	assert_int_equal(connections, 31);
	assert_int_equal(end, 5);
	assert_true(scoreboard_worker_connections(scoreboard, 3, &connections, &end));
	assert_int_equal(connections, 0);
	assert_false(scoreboard_worker_connections(scoreboard, 4, &connections, &end)); /* a reader */
	assert_false(scoreboard_worker_connections(scoreboard, 5, &connections, &end));
}

static void there_is_room_for_some_crews_only(void **state)
{
	struct scoreboard *scoreboard = *state;
	struct scoreboard_layout large = forks;
	int crews = 0, r;

	while ((r = scoreboard_crew_open(scoreboard, &pool)) >= 0)
		assert_int_equal(r, crews++);
	assert_int_equal(r, -EBUSY);
	assert_in_range(crews, 3, SCOREBOARD_CREWS);
	scoreboard_crew_close(scoreboard, 1);
	large.children = 1000000000;
	assert_int_equal(scoreboard_crew_open(scoreboard, &large), -ENOSPC);
	assert_int_equal(scoreboard_crew_open(scoreboard, &loops), 1);
}

/* --- what a process may write --------------------------------------------------------------- */

/* Whether a write there, if need be after mprotect(2), ends a process like this one. */
static bool can_write(const void *address)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		long page = sysconf(_SC_PAGESIZE);
		struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGSEGV, SIG_DFL);
		signal(SIGBUS, SIG_DFL);
		(void) mprotect((void *) ((uintptr_t) address & ~((uintptr_t) page - 1)), (size_t) page,
		                PROT_READ | PROT_WRITE);
		*(volatile char *) (uintptr_t) address = 1;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* In a process of crew 0: 0 if it can write its own segment and nothing else. */
static int check_process(const struct scoreboard *scoreboard, unsigned process, unsigned workers)
{
	int wrong = 0;

	wrong |= can_write(scoreboard_view(scoreboard)) ? 1 : 0;
	wrong |= can_write(&scoreboard_view(scoreboard)->stop_request[0]) ? 1 : 0;
	wrong |= can_write(scoreboard_view(scoreboard)->admission.groups[0].first) ? 2 : 0;
	for (unsigned i = 0; i < workers; i++)
		wrong |= can_write(scoreboard_slot(scoreboard, 0, i)) == (i == process) ? 0 : 4;
	wrong |= can_write(scoreboard_slot(scoreboard, 1, 0)) ? 8 : 0;
	wrong |= can_write(scoreboard_admission(scoreboard, 0, process)) ? 0 : 16;
	return wrong;
}

static void a_process_writes_its_own_segment_only(void **state)
{
	struct scoreboard *scoreboard = *state;

	assert_int_equal(scoreboard_crew_open(scoreboard, &pool), 0);
	assert_int_equal(scoreboard_crew_open(scoreboard, &loops), 1);
	for (unsigned i = 0; i < pool.processes; i++) {
		pid_t pid;
		int status;

		scoreboard_process_start(scoreboard, 0, i);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			scoreboard_enter(scoreboard, 0, i);
			_exit(check_process(scoreboard, i, pool.processes + pool.readers));
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
	}
}

static void a_child_writes_its_own_slot_only(void **state)
{
	struct scoreboard *scoreboard = *state;
	pid_t pid;
	int status;

	assert_int_equal(scoreboard_crew_open(scoreboard, &forks), 0);
	scoreboard_process_start(scoreboard, 0, 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int wrong = 0;

		scoreboard_enter(scoreboard, 0, 0);
		for (unsigned i = 0; i < 1 + forks.children; i++)
			wrong |= can_write(scoreboard_slot(scoreboard, 0, i)) ? 0 : 1;
		scoreboard_enter_child(scoreboard, 0, 3);
		for (unsigned i = 0; i < 1 + forks.children; i++)
			wrong |= can_write(scoreboard_slot(scoreboard, 0, i)) == (i == 4) ? 0 : 2;
		wrong |= can_write(scoreboard_view(scoreboard)) ? 4 : 0;
		_exit(wrong);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* Where a file may not have that size there is memory without a name. */
static void a_limit_of_file_sizes_does_not_matter(void **state)
{
	struct rlimit before, small = { 4096, 4096 };
	struct scoreboard *scoreboard;

	(void) state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small.rlim_max = before.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(scoreboard_make(&scoreboard, 1000), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(scoreboard_crew_open(scoreboard, &loops), 0);
	scoreboard_process_start(scoreboard, 0, 0);
	assert_int_equal(scoreboard_view(scoreboard)->generations[0][0],
	                 scoreboard_shared(scoreboard)->generations[0][0]);
	scoreboard_free(scoreboard);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(totals_survive_workers_and_crews, setup, teardown),
		cmocka_unit_test_setup_teardown(readiness_is_that_of_every_worker, setup, teardown),
		cmocka_unit_test_setup_teardown(impossible_counters_are_not_believed, setup, teardown),
		cmocka_unit_test_setup_teardown(orphans_keep_their_slots, setup, teardown),
		cmocka_unit_test_setup_teardown(connections_are_those_of_a_worker, setup, teardown),
		cmocka_unit_test_setup_teardown(there_is_room_for_some_crews_only, setup, teardown),
		cmocka_unit_test_setup_teardown(a_process_writes_its_own_segment_only, setup, teardown),
		cmocka_unit_test_setup_teardown(a_child_writes_its_own_slot_only, setup, teardown),
		cmocka_unit_test(a_limit_of_file_sizes_does_not_matter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
