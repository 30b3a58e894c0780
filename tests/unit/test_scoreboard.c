/* SPDX-License-Identifier: ISC */
/* test_scoreboard.c - slots, totals, orphans, layouts, and the memory that a process can write */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "echo/scoreboard.h"
#include "failing.h"

#define NR_MSEAL 462 /* the same on every architecture; Linux 6.10 */

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

/* The segments of processes are larger than those of readers. */
static const struct scoreboard_layout tables = { .processes = 3,
	                                         .threads = 1,
	                                         .readers = 2,
	                                         .capacity = 200,
	                                         .worker_capacity = 200,
	                                         .sources = true };
/* All kinds of workers in one crew, which no model has. */
static const struct scoreboard_layout mixed = { .processes = 2,
	                                        .threads = 2,
	                                        .readers = 2,
	                                        .children = 3,
	                                        .capacity = 100,
	                                        .worker_capacity = 100 };
static const struct scoreboard_layout mixed_forks = { .processes = 1,
	                                              .threads = 1,
	                                              .readers = 2,
	                                              .children = 3,
	                                              .child_processes = true,
	                                              .capacity = 4,
	                                              .worker_capacity = 4 };

/* The linker (--wrap) sends the allocation of the scoreboard to this function. */
static bool no_memory;

void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
	return no_memory ? NULL : __real_aligned_alloc(alignment, size);
}

/* The linker also sends mmap(2) to a function below. This number of calls succeeds, then all fail. */
static unsigned mappings_left = UINT_MAX;

#define WRAPPED_MMAP(name) \
	void *__real_##name(void *address, size_t size, int protection, int flags, int fd, off_t offset); \
	void *__wrap_##name(void *address, size_t size, int protection, int flags, int fd, off_t offset); \
	void *__wrap_##name(void *address, size_t size, int protection, int flags, int fd, off_t offset) \
	{ \
		if (mappings_left == 0) { \
			errno = ENOMEM; \
			return MAP_FAILED; \
		} \
		mappings_left--; \
		return __real_##name(address, size, protection, flags, fd, offset); \
	}

WRAPPED_MMAP(mmap)
WRAPPED_MMAP(mmap64) /* the name on 32-bit hosts */

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

	/* another crew in the same memory adds no counters of the first one */
	assert_int_equal(scoreboard_crew_open(scoreboard, &pool), 0);
	for (unsigned i = 0; i < 5; i++)
		scoreboard_process_start(scoreboard, 0, i);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.counters[STAT_ECHOED], 100);
}

static void all_workers_must_be_ready_and_alive(void **state)
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
	/* a worker that has ended needs no heartbeat */
	(void) scoreboard_process_end(scoreboard, 0, 4);
	for (unsigned j = 0; j < 4; j++)
		stats_heartbeat(scoreboard_slot(scoreboard, 0, j));
	assert_true(scoreboard_crew_alive(scoreboard, 0));
	assert_false(scoreboard_crew_ready(scoreboard, 0));
	/* without heartbeats; then without the first worker */
	for (unsigned j = 1; j < 5; j++)
		stats_slot_ready(scoreboard_slot(scoreboard, 0, j));
	assert_false(scoreboard_crew_alive(scoreboard, 0));
	assert_true(scoreboard_crew_ready(scoreboard, 0));
	(void) scoreboard_process_end(scoreboard, 0, 0);
	assert_false(scoreboard_crew_ready(scoreboard, 0));
}

/* Random values in the slot of a worker are not added to the totals. */
static void impossible_counters_are_ignored(void **state)
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
	/* an impossible number of children is ignored */
	atomic_store(&scoreboard_slot(scoreboard, 0, 0)->children, 11);
	scoreboard_total(scoreboard, &total);
	child = 0;
	assert_int_equal(scoreboard_find_orphans(scoreboard, 0, only_4711, &child), 2);
	assert_int_equal(child, 2);
	(void) scoreboard_process_end(scoreboard, 0, 0);
	/* the slot of the third child, whose pid is not known, is free */
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

static void connections_of_a_worker_are_added_over_crews(void **state)
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

static void the_number_of_crews_is_limited(void **state)
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

/* --- memory that a process can write --------------------------------------------------------- */

/* Whether a copy of this process can write there, also by calling mprotect(2) first. */
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

/* Called in a process of crew 0. Returns 0 if the process can write only its own segment. */
static int check_process(const struct scoreboard *scoreboard, unsigned process, unsigned workers)
{
	int wrong = 0;

	wrong |= can_write(scoreboard_view(scoreboard)) ? 1 : 0;
	wrong |= can_write(scoreboard_shared((struct scoreboard *) (uintptr_t) scoreboard)) ? 1 : 0;
	wrong |= can_write(&scoreboard_view(scoreboard)->stop_request[0]) ? 1 : 0;
	wrong |= can_write(scoreboard_view(scoreboard)->admission.groups[0].first) ? 2 : 0;
	for (unsigned i = 0; i < workers; i++)
		wrong |= can_write(scoreboard_slot(scoreboard, 0, i)) == (i == process) ? 0 : 4;
	wrong |= can_write(scoreboard_slot(scoreboard, 1, 0)) ? 8 : 0;
	if (process < tables.processes)
		wrong |= can_write(scoreboard_admission(scoreboard, 0, process)) ? 0 : 16;
	/* the segment cannot be unmapped: mseal(2), Linux 6.10 */
	if (syscall(NR_MSEAL, NULL, 0UL, 0UL) == 0)
		wrong |= munmap((void *) ((uintptr_t) scoreboard_slot(scoreboard, 0, process) &
		                          ~((uintptr_t) sysconf(_SC_PAGESIZE) - 1)),
		                1) == 0
		               ? 32
		               : 0;
	return wrong;
}

static void a_process_writes_its_own_segment_only(void **state)
{
	struct scoreboard *scoreboard = *state;

	assert_int_equal(scoreboard_crew_open(scoreboard, &tables), 0);
	assert_int_equal(scoreboard_crew_open(scoreboard, &loops), 1);
	for (unsigned i = 0; i < tables.processes + tables.readers; i++) {
		pid_t pid;
		int status;

		scoreboard_process_start(scoreboard, 0, i);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			scoreboard_enter(scoreboard, 0, i);
			_exit(check_process(scoreboard, i, tables.processes + tables.readers));
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
	}
}

static void a_process_of_another_crew_writes_its_own_segment_only(void **state)
{
	struct scoreboard *scoreboard = *state;
	pid_t pid;
	int status;

	assert_int_equal(scoreboard_crew_open(scoreboard, &pool), 0);
	assert_int_equal(scoreboard_crew_open(scoreboard, &loops), 1);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		scoreboard_enter(scoreboard, 1, 0);
		_exit((can_write(scoreboard_slot(scoreboard, 0, 0)) ? 1 : 0) |
		      (can_write(scoreboard_slot(scoreboard, 1, 2)) ? 0 : 2));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* The parent writes neither the slots of readers nor the memory after the slot of the last child. */
static void a_parent_writes_its_own_slot_and_those_of_children_only(void **state)
{
	struct scoreboard *scoreboard = *state;
	unsigned last = 3 + mixed_forks.children - 1;
	pid_t pid;
	int status;

	assert_int_equal(scoreboard_crew_open(scoreboard, &mixed_forks), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int wrong = 0;

		scoreboard_enter(scoreboard, 0, 0);
		for (unsigned i = 0; i <= last + 1; i++)
			wrong |= can_write(scoreboard_slot(scoreboard, 0, i)) ==
			                         (i == 0 || (i >= 3 && i <= last))
			               ? 0
			               : 1;
		scoreboard_enter_child(scoreboard, 0, 1);
		for (unsigned i = 0; i <= last + 1; i++)
			wrong |= can_write(scoreboard_slot(scoreboard, 0, i)) == (i == 4) ? 0 : 2;
		if (syscall(NR_MSEAL, NULL, 0UL, 0UL) == 0)
			wrong |= munmap(scoreboard_slot(scoreboard, 0, 4), 1) == 0 ? 4 : 0;
		_exit(wrong);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
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

/* Where RLIMIT_FSIZE is smaller than the files, anonymous memory is used. */
static void a_limit_of_file_sizes_does_not_matter(void **state)
{
	struct rlimit before, small = { 4096, 4096 };
	struct scoreboard *scoreboard;
	int open = count_descriptors();

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
	assert_int_equal(count_descriptors(), open);
}

/* --- orphans and children --------------------------------------------------------------- */

static bool is_any_child(void *context, unsigned child, pid_t pid)
{
	(void) child;
	(*(unsigned *) context)++;
	return pid > 0;
}

static void only_child_processes_become_orphans(void **state)
{
	struct scoreboard_layout children_are_threads = forks;
	struct scoreboard *scoreboard = *state;
	unsigned asked = 0;

	children_are_threads.child_processes = false;
	assert_int_equal(scoreboard_crew_open(scoreboard, &children_are_threads), 0);
	assert_int_equal(scoreboard_crew_open(scoreboard, &forks), 1);
	for (unsigned crew = 0; crew < 2; crew++) {
		scoreboard_process_start(scoreboard, crew, 0);
		for (unsigned i = 0; i < 3; i++) {
			struct stats_slot *slot = scoreboard_slot(scoreboard, crew, 1 + i);

			/* the second child has not been forked yet */
			atomic_store(&slot->pid, i == 1 ? 0 : 4711);
			atomic_store(&slot->live, 1);
			atomic_store(&slot->state, SLOT_READY);
		}
		atomic_store(&scoreboard_slot(scoreboard, crew, 0)->children, 3);
		/* threads end with their process, child processes do not */
		assert_int_equal(scoreboard_process_end(scoreboard, crew, 0), crew == 0 ? 3 : 0);
		scoreboard_find_orphans(scoreboard, crew, is_any_child, &asked);
		assert_int_equal(asked, crew == 0 ? 0 : 2);
	}
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(scoreboard_view(scoreboard)->orphans[0][i], 0);
		assert_int_equal(scoreboard_view(scoreboard)->orphans[1][i], i != 1);
	}
	assert_int_equal(admission_slots_taken(&scoreboard_view(scoreboard)->admission), 2);
	/* the function is not called again for a known orphan */
	scoreboard_find_orphans(scoreboard, 1, is_any_child, &asked);
	assert_int_equal(asked, 2);
	assert_int_equal(scoreboard_orphan_end(scoreboard, 1, 2, SCOREBOARD_CLOSED), 1);
	assert_int_equal(atomic_load(&scoreboard_slot(scoreboard, 1, 3)->live), 0);
	assert_int_equal(atomic_load(&scoreboard_slot(scoreboard, 1, 1)->live), 1);
}

static void a_connection_that_an_orphan_handed_over_is_in_the_queue(void **state)
{
	struct scoreboard *scoreboard = *state;
	struct admission_shared *admission = &scoreboard_shared(scoreboard)->admission;
	unsigned asked = 0;

	admission_queue_begin(admission);
	assert_int_equal(scoreboard_crew_open(scoreboard, &forks), 0);
	scoreboard_process_start(scoreboard, 0, 0);
	atomic_store(&scoreboard_slot(scoreboard, 0, 1)->pid, 4711);
	atomic_store(&scoreboard_slot(scoreboard, 0, 0)->children, 1);
	scoreboard_find_orphans(scoreboard, 0, is_any_child, &asked);
	(void) scoreboard_process_end(scoreboard, 0, 0);
	assert_int_equal(admission_slots_taken(admission), 1);
	assert_int_equal(scoreboard_orphan_end(scoreboard, 0, 0, SCOREBOARD_HANDED_OVER), 0);
	assert_int_equal(admission_slots_taken(admission), 1);
	admission_queue_settle(admission, 0);
	assert_int_equal(admission_slots_taken(admission), 0);
}

static void children_continue_after_their_parent_was_replaced(void **state)
{
	struct scoreboard *scoreboard = *state;
	struct stats_total total;
	uint64_t connections;
	unsigned end;

	assert_int_equal(scoreboard_crew_open(scoreboard, &forks), 0);
	scoreboard_process_start(scoreboard, 0, 0);
	assert_false(scoreboard_worker_connections(scoreboard, 1, &connections, &end));
	assert_int_equal(end, 1);
	atomic_store(&scoreboard_slot(scoreboard, 0, 0)->children, 10);
	stats_add(scoreboard_slot(scoreboard, 0, 10), STAT_ECHOED, 7);
	assert_int_equal(scoreboard_sample(scoreboard), 11);
	assert_false(scoreboard_worker_connections(scoreboard, 10, &connections, &end));
	assert_int_equal(end, 11);
	atomic_store(&scoreboard_slot(scoreboard, 0, 10)->state, SLOT_STARTING);
	atomic_store(&scoreboard_slot(scoreboard, 0, 10)->live, 1);
	assert_true(scoreboard_worker_connections(scoreboard, 10, &connections, &end));
	assert_int_equal(connections, 1);
	assert_false(scoreboard_worker_connections(scoreboard, 11, &connections, &end));
	/* the next process has the same number of child slots */
	(void) scoreboard_process_end(scoreboard, 0, 0);
	/* also where the first one wrote a smaller number after that */
	atomic_store(&scoreboard_slot(scoreboard, 0, 0)->children, 1);
	scoreboard_process_start(scoreboard, 0, 0);
	assert_int_equal(atomic_load(&scoreboard_slot(scoreboard, 0, 0)->children), 10);
	assert_int_equal(atomic_load(&scoreboard_slot(scoreboard, 0, 10)->live), 1);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.counters[STAT_ECHOED], 7);
	assert_int_equal(total.live, 1);
}

/* --- slots in use ------------------------------------------------------------------------- */

/* Fill a slot after the last one in use with values that must not be read. */
static void fill_unused(struct stats_slot *slot)
{
	stats_add(slot, STAT_ACCEPTED, 50);
	atomic_store(&slot->live, 1);
	atomic_store(&slot->unsent, 9);
	atomic_store(&slot->pid, 4711);
	atomic_store(&slot->state, SLOT_READY);
}

static void unused_slots_do_not_count(void **state)
{
	static const struct scoreboard_layout *const layouts[] = { &mixed, &mixed_forks };
	struct scoreboard *scoreboard = *state;
	struct stats_total total;
	uint64_t connections;
	unsigned end;

	assert_false(scoreboard_worker_connections(scoreboard, 0, &connections, &end));
	assert_int_equal(end, 0);
	assert_int_equal(connections, 0);
	for (unsigned i = 0; i < 2; i++) {
		unsigned workers = layouts[i]->processes * layouts[i]->threads + layouts[i]->readers,
			 asked = 0;
		unsigned processes = layouts[i]->processes + layouts[i]->readers;
		struct stats_slot *parent;

		assert_int_equal(scoreboard_crew_open(scoreboard, layouts[i]), 0);
		for (unsigned process = 0; process < processes; process++)
			scoreboard_process_start(scoreboard, 0, process);
		parent = scoreboard_slot(scoreboard, 0, 0);
		/* two children, of which the first has a connection */
		atomic_store(&parent->children, 2);
		atomic_store(&scoreboard_slot(scoreboard, 0, workers)->live, 1);
		atomic_store(&scoreboard_slot(scoreboard, 0, workers)->pid, 1);
		atomic_store(&scoreboard_slot(scoreboard, 0, workers)->state, SLOT_READY);
		fill_unused(scoreboard_slot(scoreboard, 0, workers + 2));
		scoreboard_total(scoreboard, &total);
		assert_int_equal(total.live, 1);
		assert_int_equal(total.unsent, 0);
		assert_int_equal(total.counters[STAT_ACCEPTED], 0);
		assert_int_equal(scoreboard_sample(scoreboard), workers + 2);
		assert_true(scoreboard_worker_connections(scoreboard, workers, &connections, &end));
		assert_int_equal(connections, 1);
		assert_int_equal(end, workers + 2);
		assert_false(scoreboard_worker_connections(scoreboard, workers + 2, &connections, &end));
		/* readers have no connections */
		assert_false(scoreboard_worker_connections(scoreboard, workers - 1, &connections, &end));
		/* the number of children never becomes smaller */
		atomic_store(&parent->children, 1);
		assert_int_equal(scoreboard_sample(scoreboard), workers + 2);
		assert_int_equal(scoreboard_process_end(scoreboard, 0, 0), i == 0 ? 1 : 0);
		assert_int_equal(scoreboard_find_orphans(scoreboard, 0, is_any_child, &asked), 0);
		assert_int_equal(asked, i == 0 ? 0 : 1);
		if (i == 1)
			assert_int_equal(scoreboard_orphan_end(scoreboard, 0, 0, SCOREBOARD_CLOSED), 1);
		for (unsigned process = 1; process < processes; process++)
			assert_int_equal(scoreboard_process_end(scoreboard, 0, process), 0);
		scoreboard_crew_close(scoreboard, 0);
		scoreboard_total(scoreboard, &total);
		assert_int_equal(total.counters[STAT_ACCEPTED], 0);
		assert_int_equal(scoreboard_sample(scoreboard), 0);
		assert_false(scoreboard_worker_connections(scoreboard, 0, &connections, &end));
		assert_int_equal(end, 0);
	}
}

/* The start and the end of a process change only the slots of its own workers. Readers do not count in
 * admission. */
static void processes_start_and_end_their_own_workers(void **state)
{
	struct scoreboard *scoreboard = *state;
	const struct admission_shared *admission = &scoreboard_view(scoreboard)->admission;

	assert_int_equal(scoreboard_crew_open(scoreboard, &mixed), 0);
	for (unsigned process = 0; process < 4; process++) {
		unsigned workers = process < 2 ? 2 * (process + 1) : process + 3;

		scoreboard_process_start(scoreboard, 0, process);
		for (unsigned i = 0; i < 9; i++)
			assert_int_equal(atomic_load(&scoreboard_slot(scoreboard, 0, i)->state),
			                 i < workers ? SLOT_STARTING : SLOT_FREE);
		assert_int_equal(atomic_load(&admission->processes), process < 2 ? process + 1 : 2);
	}
	for (unsigned i = 0; i < 6; i++) {
		atomic_store(&scoreboard_slot(scoreboard, 0, i)->pid, 5);
		atomic_store(&scoreboard_slot(scoreboard, 0, i)->unsent, 6);
	}
	(void) scoreboard_process_end(scoreboard, 0, 2);
	assert_int_equal(atomic_load(&admission->processes), 2);
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(atomic_load(&scoreboard_slot(scoreboard, 0, i)->state),
		                 i == 4 ? SLOT_FREE : SLOT_STARTING);
		assert_int_equal(atomic_load(&scoreboard_slot(scoreboard, 0, i)->pid), i == 4 ? 0 : 5);
		assert_int_equal(atomic_load(&scoreboard_slot(scoreboard, 0, i)->unsent), i == 4 ? 0 : 6);
	}
	(void) scoreboard_process_end(scoreboard, 0, 0);
	(void) scoreboard_process_end(scoreboard, 0, 1);
	assert_int_equal(atomic_load(&admission->processes), 0);
	assert_int_equal(atomic_load(&admission->groups[0].processes), 2);
	scoreboard_crew_close(scoreboard, 0);
	assert_int_equal(atomic_load(&admission->groups[0].processes), 0);
}

/* A crew with a child that has no heartbeat is not alive. */
static void children_must_have_heartbeats(void **state)
{
	struct scoreboard *scoreboard = *state;

	assert_int_equal(scoreboard_crew_open(scoreboard, &forks), 0);
	scoreboard_process_start(scoreboard, 0, 0);
	atomic_store(&scoreboard_slot(scoreboard, 0, 0)->children, 1);
	stats_slot_ready(scoreboard_slot(scoreboard, 0, 1));
	fill_unused(scoreboard_slot(scoreboard, 0, 2));
	(void) scoreboard_crew_alive(scoreboard, 0);
	assert_false(scoreboard_crew_alive(scoreboard, 0));
	stats_heartbeat(scoreboard_slot(scoreboard, 0, 1));
	assert_true(scoreboard_crew_alive(scoreboard, 0));
}

/* Counters that were never read are added to the total when the crew is closed. Its memory is cleared. */
static void closed_crews_keep_their_counters_only(void **state)
{
	struct scoreboard *scoreboard = *state;
	struct stats_total total;

	assert_int_equal(scoreboard_crew_open(scoreboard, &forks), 0);
	scoreboard_process_start(scoreboard, 0, 0);
	atomic_store(&scoreboard_shared(scoreboard)->stop_request[0].stop, STOP_DRAIN);
	stats_add(scoreboard_slot(scoreboard, 0, 0), STAT_ACCEPTED, 7);
	atomic_store(&scoreboard_slot(scoreboard, 0, 0)->children, 1);
	stats_add(scoreboard_slot(scoreboard, 0, 1), STAT_ACCEPTED, 3);
	scoreboard_crew_close(scoreboard, 0);
	assert_int_equal(atomic_load(&scoreboard_slot(scoreboard, 0, 0)->counters[STAT_ACCEPTED]), 0);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.counters[STAT_ACCEPTED], 10);
	assert_int_equal(scoreboard_crew_open(scoreboard, &forks), 0);
	assert_int_equal(atomic_load(&scoreboard_view(scoreboard)->stop_request[0].stop), STOP_NONE);
	/* a total never becomes smaller */
	stats_add(scoreboard_own_slot(scoreboard), STAT_ACCEPTED, 5);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.counters[STAT_ACCEPTED], 15);
	atomic_store(&scoreboard_own_slot(scoreboard)->counters[STAT_ACCEPTED], 1);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.counters[STAT_ACCEPTED], 15);
}

/* Size of the address space in pages. */
static unsigned long address_space(void)
{
	FILE *file = fopen("/proc/self/statm", "re");
	unsigned long pages = 0;

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%lu", &pages), 1);
	fclose(file);
	return pages;
}

static void closed_crews_return_their_memory(void **state)
{
	struct scoreboard *scoreboard = *state;
	struct scoreboard_layout layout = forks;
	unsigned long before = address_space(), one;

	layout.children = SCOREBOARD_WORKERS_MAX;
	assert_int_equal(scoreboard_crew_open(scoreboard, &layout), 0);
	one = address_space() - before;
	/* a private copy of the counters for each worker */
	assert_in_range(one * (unsigned long) sysconf(_SC_PAGESIZE),
	                layout.children * STATS_COUNT * sizeof(uint64_t),
	                2 * layout.children * STATS_COUNT * sizeof(uint64_t));
	scoreboard_crew_close(scoreboard, 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(scoreboard_crew_open(scoreboard, &layout), 0);
		scoreboard_crew_close(scoreboard, 0);
	}
	assert_true(address_space() < before + 5 * one);
	/* also where the scoreboard is freed with an open crew */
	for (int i = 0; i < 20; i++) {
		assert_int_equal(scoreboard_make(&scoreboard, 1000), 0);
		assert_int_equal(scoreboard_crew_open(scoreboard, &layout), 0);
		scoreboard_free(scoreboard);
	}
	assert_true(address_space() < before + 5 * one);
}

/* --- plausible values --------------------------------------------------------------------- */

/* Values of a slot other than counters are not checked. */
static void only_counters_are_checked(void **state)
{
	struct stats_slot slot;

	(void) state;
	memset(&slot, 0xff, sizeof slot);
	memset(slot.counters, 0, sizeof slot.counters);
	assert_true(scoreboard_is_plausible(&slot, 0, 0));
}

/* 10 million events and 1 TB in each second that has begun. */
static void counters_have_a_maximum_rate(void **state)
{
	static const uint64_t events = UINT64_C(10000000), bytes = UINT64_C(1000000000000);
	const int64_t start = 5 * USEC_PER_SEC;
	struct stats_slot slot;

	(void) state;
	for (enum stats_counter i = 0; i < STATS_COUNT; i++) {
		bool is_bytes = i == STAT_RECEIVED || i == STAT_ECHOED || i == STAT_UDP_BYTES;
		uint64_t most = is_bytes ? bytes : events;

		memset(&slot, 0, sizeof slot);
		assert_true(scoreboard_is_plausible(&slot, start, start));
		atomic_store(&slot.counters[i], most);
		assert_true(scoreboard_is_plausible(&slot, start, start));
		assert_true(scoreboard_is_plausible(&slot, start, start - USEC_PER_SEC)); /* clock set back */
		atomic_store(&slot.counters[i], most + 1);
		assert_false(scoreboard_is_plausible(&slot, start, start));
		assert_false(scoreboard_is_plausible(&slot, start, start - USEC_PER_SEC));
		assert_false(scoreboard_is_plausible(&slot, start, start + USEC_PER_SEC - 1));
		atomic_store(&slot.counters[i], 2 * most);
		assert_true(scoreboard_is_plausible(&slot, start, start + USEC_PER_SEC));
		atomic_store(&slot.counters[i], 2 * most + 1);
		assert_false(scoreboard_is_plausible(&slot, start, start + USEC_PER_SEC));
		/* the last time at which the maximum fits into 64 bits */
		if (is_bytes) {
			int64_t last = (int64_t) (UINT64_MAX / bytes - 1) * USEC_PER_SEC;

			atomic_store(&slot.counters[i], UINT64_MAX / bytes * bytes + 1);
			assert_false(scoreboard_is_plausible(&slot, 0, last));
			assert_true(scoreboard_is_plausible(&slot, 0, last + USEC_PER_SEC));
		}
		/* after the longest time every value is possible */
		atomic_store(&slot.counters[i], UINT64_MAX);
		assert_int_equal(scoreboard_is_plausible(&slot, 0, INT64_MAX), true);
	}
}

/* Where the counters of a worker are impossible, its connections are computed from the last possible ones. */
static void connections_of_a_worker_with_impossible_counters_are_estimated(void **state)
{
	static const enum stats_counter ends[] = { STAT_HANDED_OVER, STAT_ENDED_EOF,   STAT_ENDED_RESET,
		                                   STAT_ENDED_IDLE,  STAT_ENDED_PROXY, STAT_ENDED_DRAIN,
		                                   STAT_ENDED_ERROR };
	struct scoreboard *scoreboard = *state;
	struct stats_total total;
	struct stats_slot *slot;

	assert_int_equal(scoreboard_crew_open(scoreboard, &loops), 0);
	scoreboard_process_start(scoreboard, 0, 0);
	slot = scoreboard_slot(scoreboard, 0, 1);
	stats_add(slot, STAT_ACCEPTED, 20);
	stats_add(slot, STAT_TAKEN_OVER, 10);
	for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
		stats_add(slot, ends[i], i + 1);
	atomic_store(&slot->live, 99);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.live, 99);
	atomic_store(&slot->live, 101); /* more than its capacity */
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.live, 100);
	atomic_store(&slot->counters[STAT_LIMITED], UINT64_MAX);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.live, 30 - (1 + 2 + 3 + 4 + 5 + 6 + 7));
	/* more ends than begins */
	atomic_store(&slot->counters[STAT_LIMITED], 0);
	stats_add(slot, STAT_ENDED_EOF, 3);
	(void) scoreboard_sample(scoreboard);
	atomic_store(&slot->counters[STAT_LIMITED], UINT64_MAX);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.live, 0);
}

/* A child has one connection, also where its counters are impossible. The highest possible counter is
 * accepted, and stays in the total when the counter becomes impossible. */
static void impossible_counters_of_a_child_mean_one_connection(void **state)
{
	struct scoreboard *scoreboard = *state;
	struct stats_total total;
	struct stats_slot *slot;

	assert_int_equal(scoreboard_crew_open(scoreboard, &mixed_forks), 0);
	scoreboard_process_start(scoreboard, 0, 0);
	slot = scoreboard_slot(scoreboard, 0, 0);
	atomic_store(&slot->children, 1);
	atomic_store(&slot->counters[STAT_LIMITED], UINT64_C(10000000));
	(void) scoreboard_sample(scoreboard);
	atomic_store(&slot->counters[STAT_LIMITED], UINT64_MAX);
	slot = scoreboard_slot(scoreboard, 0, 3);
	atomic_store(&slot->live, 3);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.live, 1);
	assert_int_equal(total.counters[STAT_LIMITED], 10000000);
	atomic_store(&slot->counters[STAT_LIMITED], UINT64_MAX);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.live, 1);
}

static void unsent_bytes_are_added_up(void **state)
{
	struct scoreboard *scoreboard = *state;
	struct stats_total total;

	assert_int_equal(scoreboard_crew_open(scoreboard, &loops), 0);
	scoreboard_process_start(scoreboard, 0, 0);
	for (unsigned i = 0; i < 3; i++)
		atomic_store(&scoreboard_slot(scoreboard, 0, i)->unsent, 100 + i);
	stats_add(scoreboard_own_slot(scoreboard), STAT_ACCEPTED, 5);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.unsent, 303);
	assert_int_equal(total.counters[STAT_ACCEPTED], 5);
	(void) scoreboard_process_end(scoreboard, 0, 0);
	scoreboard_total(scoreboard, &total);
	assert_int_equal(total.unsent, 0);
}

/* --- layouts ---------------------------------------------------------------------------- */

static void a_table_of_sources_that_is_too_large_is_made_smaller(void **state)
{
	struct scoreboard *scoreboard = *state;
	const struct admission_group *groups = scoreboard_view(scoreboard)->admission.groups;
	struct scoreboard_layout layout = pool;

	assert_int_equal(scoreboard_crew_open(scoreboard, &layout), 0);
	assert_int_equal(groups[0].sources, 4);
	layout.capacity = 5;
	assert_int_equal(scoreboard_crew_open(scoreboard, &layout), 1);
	assert_int_equal(groups[1].sources, 16);
	layout.capacity = 8;
	assert_int_equal(scoreboard_crew_open(scoreboard, &layout), 2);
	assert_int_equal(groups[2].sources, 16);
	layout.sources = false;
	scoreboard_crew_close(scoreboard, 0);
	assert_int_equal(scoreboard_crew_open(scoreboard, &layout), 0);
	assert_int_equal(groups[0].sources, 0);
	layout.sources = true;
	layout.capacity = UINT32_MAX;
	scoreboard_crew_close(scoreboard, 0);
	assert_int_equal(scoreboard_crew_open(scoreboard, &layout), 0);
	assert_true(groups[0].sources >= 1024 && (groups[0].sources & (groups[0].sources - 1)) == 0);
	/* the whole table is mapped: write the last byte of that of the last process */
	scoreboard_process_start(scoreboard, 0, 3);
	((volatile char *)
	         scoreboard_admission(scoreboard, 0,
	                              3))[sizeof(struct admission_process) +
	                                  groups[0].sources * sizeof(struct admission_source) - 1] = 1;
}

static size_t page_size(void)
{
	return (size_t) sysconf(_SC_PAGESIZE);
}

static size_t distance(struct scoreboard *scoreboard, unsigned a, unsigned b)
{
	return (size_t) ((char *) scoreboard_slot(scoreboard, 0, b) -
	                 (char *) scoreboard_slot(scoreboard, 0, a));
}

/* Each process and reader begins at a page, the slots of threads are adjacent. */
static void slots_are_where_their_process_can_write(void **state)
{
	struct scoreboard *scoreboard = *state;
	const struct admission_group *group = &scoreboard_view(scoreboard)->admission.groups[0];
	size_t slot = sizeof(struct stats_slot), page = page_size(), reader = (slot + page - 1) / page * page;

	/* two processes of two threads, two readers, three threads that the first process creates */
	assert_int_equal(scoreboard_crew_open(scoreboard, &mixed), 0);
	assert_int_equal((char *) scoreboard_admission(scoreboard, 0, 0) -
	                         (char *) scoreboard_slot(scoreboard, 0, 0),
	                 5 * slot);
	assert_int_equal(group->stride % page, 0);
	assert_in_range(group->stride, 5 * slot + sizeof(struct admission_process),
	                5 * slot + sizeof(struct admission_process) + page - 1);
	assert_int_equal(distance(scoreboard, 0, 1), slot);
	assert_int_equal(distance(scoreboard, 0, 2), group->stride);
	assert_int_equal(distance(scoreboard, 2, 3), slot);
	assert_int_equal(distance(scoreboard, 0, 4), 2 * group->stride);
	assert_int_equal(distance(scoreboard, 4, 5), reader);
	for (unsigned child = 0; child < 3; child++)
		assert_int_equal(distance(scoreboard, 0, 6 + child), (2 + child) * slot);
	scoreboard_crew_close(scoreboard, 0);

	/* one process, two readers, three child processes */
	assert_int_equal(scoreboard_crew_open(scoreboard, &mixed_forks), 0);
	assert_int_equal((char *) scoreboard_admission(scoreboard, 0, 0) -
	                         (char *) scoreboard_slot(scoreboard, 0, 0),
	                 slot);
	for (unsigned i = 1; i < 6; i++)
		assert_int_equal(distance(scoreboard, 0, i), group->stride + (i - 1) * reader);
}

/* Number of pages of the file of a crew: of the mapping that has slot 0. */
static size_t file_pages(struct scoreboard *scoreboard)
{
	uintptr_t slot = (uintptr_t) scoreboard_slot(scoreboard, 0, 0);
	FILE *file = fopen("/proc/self/maps", "re");
	unsigned long from = 0, to = 0;
	char line[512];

	assert_non_null(file);
	while (fgets(line, sizeof line, file) && sscanf(line, "%lx-%lx", &from, &to) == 2 && to <= slot)
		;
	fclose(file);
	assert_in_range(slot, from, to - 1);
	return (to - slot) / page_size();
}

/* The largest layouts that fit are accepted, and no larger ones. */
static void layouts_may_fill_the_file(void **state)
{
	struct scoreboard *scoreboard = *state;
	const struct admission_group *group = &scoreboard_view(scoreboard)->admission.groups[0];
	struct scoreboard_layout layout = { .processes = 1, .threads = 1, .capacity = 1 };
	size_t pages, stride, slot_pages = (sizeof(struct stats_slot) + page_size() - 1) / page_size();

	assert_int_equal(scoreboard_crew_open(scoreboard, &layout), 0);
	pages = file_pages(scoreboard);
	stride = group->stride / page_size();
	scoreboard_crew_close(scoreboard, 0);
	/* a file full of processes; then one process and readers; then one process and children */
	for (unsigned rest = 0; rest < 3; rest++) {
		layout = (struct scoreboard_layout) { .processes = 1, .threads = 1, .capacity = 1 };
		layout.child_processes = rest == 2;
		if (rest == 0)
			layout.processes = (unsigned) (pages / stride);
		else
			*(rest == 1 ? &layout.readers
			            : &layout.children) = (unsigned) ((pages - stride) / slot_pages);
		assert_int_equal(scoreboard_crew_open(scoreboard, &layout), 0);
		assert_int_equal(group->stride, stride * page_size());
		scoreboard_crew_close(scoreboard, 0);
		*(rest == 0 ? &layout.processes : rest == 1 ? &layout.readers : &layout.children) += 1;
		assert_int_equal(scoreboard_crew_open(scoreboard, &layout), -ENOSPC);
	}
	/* a table of sources has 1024 entries or more, or as many as the connections need */
	layout = pool;
	layout.readers = 0;
	layout.capacity = 4096;
	stride = (sizeof(struct stats_slot) + sizeof(struct admission_process) +
	          1024 * sizeof(struct admission_source) + page_size() - 1) /
	         page_size();
	layout.processes = (unsigned) (pages / stride);
	assert_int_equal(scoreboard_crew_open(scoreboard, &layout), 0);
	assert_int_equal(group->sources, 1024);
	scoreboard_crew_close(scoreboard, 0);
	layout.processes = (unsigned) (pages / (stride - 1));
	assert_int_equal(scoreboard_crew_open(scoreboard, &layout), -ENOSPC);
	/* a table may fill the rest of the file; with one more slot it is made smaller */
	layout.processes = 1;
	layout.capacity = 1024;
	layout.threads = (unsigned) ((pages * page_size() - sizeof(struct admission_process) -
	                              2048 * sizeof(struct admission_source)) /
	                             sizeof(struct stats_slot));
	assert_int_equal(scoreboard_crew_open(scoreboard, &layout), 0);
	assert_int_equal(group->sources, 2048);
	scoreboard_crew_close(scoreboard, 0);
	layout.threads++;
	assert_int_equal(scoreboard_crew_open(scoreboard, &layout), 0);
	assert_int_equal(group->sources, 1024);
}

static void a_layout_that_does_not_fit_is_refused(void **state)
{
	struct scoreboard *scoreboard = *state;
	struct scoreboard_layout layout = pool;

	layout.processes = 1000000;
	assert_int_equal(scoreboard_crew_open(scoreboard, &layout), -ENOSPC);
	layout = pool;
	layout.readers = 1000000;
	assert_int_equal(scoreboard_crew_open(scoreboard, &layout), -ENOSPC);
	/* the largest number of children that fits: all of them have memory */
	layout = forks;
	layout.children = SCOREBOARD_WORKERS_MAX;
	assert_int_equal(scoreboard_crew_open(scoreboard, &layout), 0);
	scoreboard_process_start(scoreboard, 0, 0);
	stats_add(scoreboard_slot(scoreboard, 0, SCOREBOARD_WORKERS_MAX), STAT_ACCEPTED, 1);
	scoreboard_crew_close(scoreboard, 0);
}

/* --- hosts on which system calls fail ----------------------------------------------------- */

#define FILE_MAPPING (MAP_SHARED | MAP_NORESERVE)
#define NO_FILTERS 77

/* Open, use and close a crew twice in the same memory. */
static int crews_work(struct scoreboard *scoreboard)
{
	uint64_t one = 1;

	for (unsigned i = 0; i < 2; i++) {
		struct stats_total total;

		if (scoreboard_crew_open(scoreboard, &loops) != 0)
			return 1;
		scoreboard_process_start(scoreboard, 0, 0);
		if (scoreboard_view(scoreboard)->generations[0][0] == 0)
			return 2;
		stats_add(scoreboard_slot(scoreboard, 0, 0), STAT_ACCEPTED, 1);
		(void) scoreboard_process_end(scoreboard, 0, 0);
		scoreboard_crew_close(scoreboard, 0);
		scoreboard_total(scoreboard, &total);
		if (total.counters[STAT_ACCEPTED] != i + 1)
			return 3;
	}
	return write(admission_slot_fd(&scoreboard_view(scoreboard)->admission), &one, sizeof one) ==
	                       sizeof one
	             ? 0
	             : 4;
}

/* Returns 0 if a scoreboard can be made, its two mappings show the same memory, crews can be opened, and
 * everything is freed; ENOMEM where there is not enough memory. */
static int scoreboard_works(void)
{
	struct scoreboard *scoreboard = NULL;
	int open = count_descriptors(), r = scoreboard_make(&scoreboard, 1000), wrong = 0;

	if (r == 0)
		wrong = crews_work(scoreboard);
	scoreboard_free(scoreboard);
	if (count_mappings("echod-scoreboard") + count_mappings("/dev/zero") > 0)
		wrong = 5;
	if (count_descriptors() != open)
		wrong = 6;
	return wrong != 0 ? wrong : r == 0 ? 0 : r == -ENOMEM ? ENOMEM : 7;
}

/* As in a daemon that was started without standard input. */
static int works_with_descriptor_0(void)
{
	struct scoreboard *scoreboard;

	close(0);
	if (scoreboard_works() != 0 || scoreboard_make(&scoreboard, 1000) < 0 ||
	    scoreboard_crew_open(scoreboard, &loops) != 0)
		return 1;
	if (count_mappings("echod-scoreboard") < 2 * 3)
		return 2;
	stats_add(scoreboard_slot(scoreboard, 0, 0), STAT_ACCEPTED, 1);
	scoreboard_crew_close(scoreboard, 0);
	return atomic_load(&scoreboard_slot(scoreboard, 0, 0)->counters[STAT_ACCEPTED]) == 0 ? 0 : 3;
}

static int works_with_descriptor_0_and_a_limit_of_file_sizes(void)
{
	return call_fails(CALL_FTRUNCATE, 0, 0, 0, EFBIG) ? works_with_descriptor_0() : NO_FILTERS;
}

static int works_without_the_scoreboard_itself(void)
{
	no_memory = true;
	return scoreboard_works();
}

/* There is memory that all crews share, but none for the crews. */
static int works_without_memory_of_crews(void)
{
	struct scoreboard *scoreboard;
	size_t size;

	if (scoreboard_make(&scoreboard, 1000) < 0 || scoreboard_crew_open(scoreboard, &loops) != 0)
		return 1;
	size = file_pages(scoreboard) * page_size();
	scoreboard_free(scoreboard);
	return call_fails(CALL_MMAP, 1, UINT32_MAX, (uint32_t) size, ENOMEM) ? scoreboard_works()
	                                                                     : NO_FILTERS;
}

static int works_without_memory_files(void)
{
	return call_fails(SYS_memfd_create, 0, 0, 0, ENOSYS) ? scoreboard_works() : NO_FILTERS;
}

static int works_without_memory_files_and_anonymous_memory(void)
{
	return call_fails(CALL_MMAP, 3, MAP_SHARED | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS, ENOMEM)
	             ? works_without_memory_files()
	             : NO_FILTERS;
}

static int works_without_memory_files_and_second_mapping(void)
{
	return call_fails(SYS_mremap, 1, UINT32_MAX, 0, ENOMEM) ? works_without_memory_files() : NO_FILTERS;
}

static int works_without_memory_files_and_protection(void)
{
	return call_fails(SYS_mprotect, 2, UINT32_MAX, PROT_READ, ENOMEM) ? works_without_memory_files()
	                                                                  : NO_FILTERS;
}

static int works_without_mappings(void)
{
	return call_fails(CALL_MMAP, 3, UINT32_MAX, FILE_MAPPING, ENOMEM) ? scoreboard_works() : NO_FILTERS;
}

static int works_without_read_only_mappings(void)
{
	return call_fails(CALL_MMAP, 2, UINT32_MAX, PROT_READ, ENOMEM) ? scoreboard_works() : NO_FILTERS;
}

/* As on Linux before 5.1. The whole value is compared, because the argument may be a pointer, as that of
 * F_SETLKW, with which a profile is written. */
static int works_without_the_seal_of_writes(void)
{
	const unsigned seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;

	return call_fails(CALL_FCNTL, 2, UINT32_MAX, seals, EINVAL) ? scoreboard_works() : NO_FILTERS;
}

static int works_without_memory_for_copies(void)
{
	return call_fails(CALL_MMAP, 3, UINT32_MAX, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, ENOMEM)
	             ? scoreboard_works() == 1 ? 0 : 9
	             : NO_FILTERS;
}

/* As where /proc is not mounted: the seal then protects the readable mapping. */
static int works_without_proc(void)
{
	struct scoreboard *scoreboard;

	if (!call_fails(SYS_openat, 2, UINT32_MAX, O_RDONLY | O_CLOEXEC, ENOENT))
		return NO_FILTERS;
	if (scoreboard_works() != 0 || scoreboard_make(&scoreboard, 1000) < 0 ||
	    scoreboard_crew_open(scoreboard, &loops) != 0)
		return 1;
	return can_write(scoreboard_view(scoreboard)->admission.groups[0].first) ? 2 : 0;
}

static void expect_of_child(int (*check)(void), int expected)
{
	int r = in_child(check);

	if (r == NO_FILTERS) {
		print_message("no system call filters\n");
		skip();
	}
	assert_int_equal(r, expected);
}

static void missing_kernel_features_are_replaced(void **state)
{
	(void) state;
	expect_of_child(scoreboard_works, 0);
	expect_of_child(works_without_memory_files, 0);
	expect_of_child(works_without_the_seal_of_writes, 0);
	expect_of_child(works_without_proc, 0);
	expect_of_child(works_with_descriptor_0, 0);
	expect_of_child(works_with_descriptor_0_and_a_limit_of_file_sizes, 2);
}

/* There must be memory for three crews: two mappings for each, and two that all share. */
static void memory_for_three_crews_is_enough(void **state)
{
	struct scoreboard *scoreboard;

	(void) state;
	for (unsigned crews = 2; crews <= 4; crews++) {
		int descriptors = count_descriptors(), r;

		mappings_left = 2 + 2 * crews;
		r = scoreboard_make(&scoreboard, 1000);
		mappings_left = UINT_MAX;
		assert_int_equal(r, crews < 3 ? -ENOMEM : 0);
		for (unsigned crew = 0; r == 0 && crew < crews; crew++)
			assert_int_equal(scoreboard_crew_open(scoreboard, &loops), crew);
		if (r == 0)
			assert_int_equal(scoreboard_crew_open(scoreboard, &loops), -EBUSY);
		scoreboard_free(scoreboard);
		assert_int_equal(count_descriptors(), descriptors);
	}
}

static void missing_memory_is_an_error(void **state)
{
	(void) state;
	expect_of_child(works_without_memory_files_and_anonymous_memory, ENOMEM);
	expect_of_child(works_without_memory_files_and_second_mapping, ENOMEM);
	expect_of_child(works_without_memory_files_and_protection, ENOMEM);
	expect_of_child(works_without_mappings, ENOMEM);
	expect_of_child(works_without_read_only_mappings, ENOMEM);
	expect_of_child(works_without_memory_for_copies, 0);
	expect_of_child(works_without_the_scoreboard_itself, ENOMEM);
	expect_of_child(works_without_memory_of_crews, ENOMEM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(totals_survive_workers_and_crews, setup, teardown),
		cmocka_unit_test_setup_teardown(all_workers_must_be_ready_and_alive, setup, teardown),
		cmocka_unit_test_setup_teardown(impossible_counters_are_ignored, setup, teardown),
		cmocka_unit_test_setup_teardown(orphans_keep_their_slots, setup, teardown),
		cmocka_unit_test_setup_teardown(connections_of_a_worker_are_added_over_crews, setup,
		                                teardown),
		cmocka_unit_test_setup_teardown(the_number_of_crews_is_limited, setup, teardown),
		cmocka_unit_test_setup_teardown(a_process_writes_its_own_segment_only, setup, teardown),
		cmocka_unit_test_setup_teardown(a_child_writes_its_own_slot_only, setup, teardown),
		cmocka_unit_test(a_limit_of_file_sizes_does_not_matter),
		cmocka_unit_test_setup_teardown(only_child_processes_become_orphans, setup, teardown),
		cmocka_unit_test_setup_teardown(a_connection_that_an_orphan_handed_over_is_in_the_queue,
		                                setup, teardown),
		cmocka_unit_test_setup_teardown(children_continue_after_their_parent_was_replaced, setup,
		                                teardown),
		cmocka_unit_test(counters_have_a_maximum_rate),
		cmocka_unit_test_setup_teardown(
			connections_of_a_worker_with_impossible_counters_are_estimated, setup, teardown),
		cmocka_unit_test_setup_teardown(unsent_bytes_are_added_up, setup, teardown),
		cmocka_unit_test_setup_teardown(a_table_of_sources_that_is_too_large_is_made_smaller, setup,
		                                teardown),
		cmocka_unit_test_setup_teardown(a_layout_that_does_not_fit_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(a_process_of_another_crew_writes_its_own_segment_only, setup,
		                                teardown),
		cmocka_unit_test_setup_teardown(a_parent_writes_its_own_slot_and_those_of_children_only,
		                                setup, teardown),
		cmocka_unit_test_setup_teardown(unused_slots_do_not_count, setup, teardown),
		cmocka_unit_test_setup_teardown(processes_start_and_end_their_own_workers, setup, teardown),
		cmocka_unit_test_setup_teardown(children_must_have_heartbeats, setup, teardown),
		cmocka_unit_test_setup_teardown(closed_crews_keep_their_counters_only, setup, teardown),
		cmocka_unit_test_setup_teardown(closed_crews_return_their_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(impossible_counters_of_a_child_mean_one_connection, setup,
		                                teardown),
		cmocka_unit_test_setup_teardown(slots_are_where_their_process_can_write, setup, teardown),
		cmocka_unit_test_setup_teardown(layouts_may_fill_the_file, setup, teardown),
		cmocka_unit_test(missing_kernel_features_are_replaced),
		cmocka_unit_test(memory_for_three_crews_is_enough),
		cmocka_unit_test(only_counters_are_checked),
		cmocka_unit_test(missing_memory_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
