/* SPDX-License-Identifier: ISC */
/* test_admission.c - connection slots and sources over several processes, also where processes are killed */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "failing.h"
#include "net/admission.h"

#define PROCESSES 8
#define CAPACITY 1000
#define SOURCES 2048

static const struct cidr_set nobody = { NULL, 0 };

#define GROUPS 2

/* The linker (--wrap) sends sched_yield(2) of the program to this function, which first calls another one. */
static void (*before_yield)(void);

int __real_sched_yield(void);
int __wrap_sched_yield(void);

int __wrap_sched_yield(void)
{
	if (before_yield)
		before_yield();
	return __real_sched_yield();
}

/* Memory that the supervisor and the processes of all groups share; each test has its own. The memory of each
 * process begins at a page. */
struct shared {
	struct admission_shared admission;
	struct admission_group behind; /* follows the array of groups; must not be read as a group */
	size_t stride;
	struct {
		_Atomic uint32_t generations[PROCESSES];
		char *memory;
	} groups[GROUPS];
};

static struct admission_process *process_in(struct shared *shared, uint32_t group, uint32_t index)
{
	return (struct admission_process *) (void *) (shared->groups[group].memory + index * shared->stride);
}

static struct admission_process *process_of(struct shared *shared, uint32_t index)
{
	return process_in(shared, 0, index);
}

static void process_start(struct shared *shared, uint32_t index)
{
	admission_process_start(&shared->admission, 0, process_of(shared, index),
	                        &shared->groups[0].generations[index]);
}

static void process_end(struct shared *shared, uint32_t index)
{
	admission_process_end(&shared->admission, 0, process_of(shared, index),
	                      &shared->groups[0].generations[index]);
}

/* Open a group and start its processes 1 to 7. */
static void group_open_limited(struct shared *shared, uint32_t index, uint32_t capacity, uint32_t sources,
                               uint32_t max_connections)
{
	size_t page = (size_t) sysconf(_SC_PAGESIZE);
	struct admission_group group;

	shared->stride = sizeof(struct admission_process) + SOURCES * sizeof(struct admission_source);
	shared->stride = (shared->stride + page - 1) / page * page;
	shared->groups[index].memory = mmap(NULL, PROCESSES * shared->stride, PROT_READ | PROT_WRITE,
	                                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(shared->groups[index].memory != MAP_FAILED);
	atomic_init(&group.processes, PROCESSES);
	group.capacity = capacity;
	group.max_connections = max_connections;
	group.sources = sources;
	group.stride = shared->stride;
	group.first = shared->groups[index].memory;
	group.generations = shared->groups[index].generations;
	admission_group_open(&shared->admission, index, &group);
	for (uint32_t i = 1; i < PROCESSES; i++)
		admission_process_start(&shared->admission, index, process_in(shared, index, i),
		                        &shared->groups[index].generations[i]);
}

static void group_open(struct shared *shared, uint32_t index, uint32_t capacity, uint32_t sources)
{
	group_open_limited(shared, index, capacity, sources, 0);
}

/* Make shared memory with one group. */
static struct shared *shared_make(uint32_t capacity)
{
	struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
	                             -1, 0);

	assert_true(shared != MAP_FAILED);
	assert_int_equal(admission_open(&shared->admission), 0);
	group_open(shared, 0, capacity, SOURCES);
	return shared;
}

static void shared_free(struct shared *shared)
{
	admission_close(&shared->admission);
	for (unsigned i = 0; i < GROUPS; i++)
		if (shared->groups[i].memory)
			munmap(shared->groups[i].memory, PROCESSES * shared->stride);
	munmap(shared, sizeof *shared);
}

static struct admission make(struct shared *shared, uint32_t index, uint32_t slots, uint32_t per_source)
{
	return (struct admission) {
		.shared = &shared->admission, .own = process_of(shared, index), .group = 0, .index = index,
		.allow = &nobody, .deny = &nobody, .max_connections = slots, .max_per_source = per_source,
	};
}

static struct peer peer_of(const char *text)
{
	const char *why;
	struct addr addr;
	struct peer peer;

	assert_int_equal(addr_parse(&addr, text, 7, &why), 0);
	peer_from_addr(&peer, &addr);
	return peer;
}

static int setup(void **state)
{
	*state = shared_make(CAPACITY);
	return 0;
}

static int teardown(void **state)
{
	shared_free(*state);
	return 0;
}

static uint32_t taken(struct shared *shared)
{
	return admission_slots_taken(&shared->admission);
}

static void slots_are_counted_over_all_processes(void **state)
{
	struct admission one = make(*state, 1, 3, 0), two = make(*state, 2, 3, 0);

	assert_true(admission_slot_acquire(&one));
	assert_true(admission_slot_acquire(&two));
	assert_true(admission_slot_acquire(&two));
	assert_false(admission_slot_acquire(&one));
	assert_int_equal(taken(*state), 3);
	process_end(*state, 2);
	assert_int_equal(taken(*state), 1);
	assert_true(admission_slot_acquire(&one));
	admission_slot_release(&one);
	admission_slot_release(&one);
	assert_int_equal(taken(*state), 0);
}

/* The limit is above the sum of all capacities. A single process must not exceed it either. */
static void a_single_process_does_not_exceed_the_limit(void **state)
{
	struct shared *shared = *state;
	struct admission one = make(shared, 1, PROCESSES * CAPACITY + 1, 0);

	for (unsigned i = 0; i < one.max_connections; i++)
		assert_true(admission_slot_acquire(&one));
	assert_false(admission_slot_acquire(&one));
	for (uint32_t i = 2; i < PROCESSES; i++)
		process_end(shared, i);
	assert_false(admission_slot_acquire(&one));
	admission_slot_release(&one);
	assert_true(admission_slot_acquire(&one));
	assert_false(admission_slot_acquire(&one));
}

static void a_source_is_an_ipv4_address_or_an_ipv6_64(void **state)
{
	struct admission admission = make(*state, 1, 100, 2);
	struct peer v4 = peer_of("192.0.2.1:1"), other = peer_of("192.0.2.2:1");
	struct peer v6 = peer_of("[2001:db8::1]:1"), same = peer_of("[2001:db8::ffff:1]:2"),
		    next = peer_of("[2001:db8:0:1::1]:1");

	assert_int_equal(admission_admit(&admission, &v4), ADMISSION_OK);
	assert_int_equal(admission_admit(&admission, &v4), ADMISSION_OK);
	assert_int_equal(admission_admit(&admission, &v4), ADMISSION_SOURCE);
	assert_int_equal(admission_admit(&admission, &other), ADMISSION_OK);
	assert_int_equal(admission_admit(&admission, &v6), ADMISSION_OK);
	assert_int_equal(admission_admit(&admission, &same), ADMISSION_OK);
	assert_int_equal(admission_admit(&admission, &same), ADMISSION_SOURCE);
	assert_int_equal(admission_admit(&admission, &next), ADMISSION_OK);
	admission_leave(&admission, &v4);
	assert_int_equal(admission_admit(&admission, &v4), ADMISSION_OK);
	assert_int_equal(admission_source_count(&admission, &v4), 2);
}

/* The source of a vsock peer is its context identifier, whatever the port. */
static void counts_vsock_by_machine(void **state)
{
	struct peer vm = { .family = AF_VSOCK, .address = { 3 }, .scope = 1 },
	            vm_same = { .family = AF_VSOCK, .address = { 3 }, .scope = 2 },
	            vm_other = { .family = AF_VSOCK, .address = { 4 }, .scope = 1 };

	assert_true(admission_same_source(&vm, &vm_same));
	assert_false(admission_same_source(&vm, &vm_other));
	(void) state;
}

static void a_lost_process_gives_its_sources_back(void **state)
{
	struct admission one = make(*state, 1, 100, 3), two = make(*state, 2, 100, 3);
	struct peer peer = peer_of("192.0.2.1:1");

	assert_int_equal(admission_admit(&one, &peer), ADMISSION_OK);
	assert_int_equal(admission_admit(&two, &peer), ADMISSION_OK);
	assert_int_equal(admission_admit(&two, &peer), ADMISSION_OK);
	assert_int_equal(admission_admit(&one, &peer), ADMISSION_SOURCE);
	process_end(*state, 2);
	assert_int_equal(admission_source_count(&one, &peer), 1);
	assert_int_equal(admission_admit(&one, &peer), ADMISSION_OK);
	/* its successor does not have them either */
	process_start(*state, 2);
	assert_int_equal(admission_source_count(&one, &peer), 2);
	assert_int_equal(admission_admit(&two, &peer), ADMISSION_OK);
	assert_int_equal(admission_source_count(&one, &peer), 3);
}

/* Random traffic of many sources and processes, compared with plain counters. */
static void the_tables_agree_with_counters(void **state)
{
	static unsigned counts[64][PROCESSES];
	uint32_t random = 12345;

	memset(counts, 0, sizeof counts);
	for (int i = 0; i < 200000; i++) {
		char text[32];
		unsigned source, process, total = 0;
		struct admission admission;
		struct peer peer;

		random = random * 1664525 + 1013904223;
		source = random >> 26;
		process = 1 + (random >> 20) % (PROCESSES - 1);
		snprintf(text, sizeof text, "10.0.%u.1:9", source);
		peer = peer_of(text);
		admission = make(*state, process, 100, 40);
		for (unsigned p = 0; p < PROCESSES; p++)
			total += counts[source][p];
		assert_int_equal(admission_source_count(&admission, &peer), total);
		if (random >> 16 & 1) {
			bool ok = admission_admit(&admission, &peer) == ADMISSION_OK;

			assert_int_equal(ok, total < 40);
			counts[source][process] += ok;
		} else if (counts[source][process] > 0) {
			admission_leave(&admission, &peer);
			counts[source][process]--;
		}
		if (i % 5000 == 4999) {
			process_end(*state, process);
			process_start(*state, process);
			for (unsigned s = 0; s < 64; s++)
				counts[s][process] = 0;
		}
	}
}

static void queued_connections_count(void **state)
{
	struct shared *shared = *state;
	struct admission old = make(shared, 1, 3, 3), new = make(shared, 2, 3, 3);
	struct peer peer = peer_of("192.0.2.1:1");

	admission_group_stopping(&shared->admission, 0);
	for (int i = 0; i < 3; i++) {
		assert_true(admission_slot_acquire(&old));
		assert_int_equal(admission_admit(&old, &peer), ADMISSION_OK);
	}
	for (int i = 0; i < 2; i++)
		admission_enqueue(&old, &peer);
	assert_false(admission_slot_acquire(&new));
	assert_true(admission_queue_pending(&new));
	assert_int_equal(taken(shared), 3);
	assert_int_equal(admission_source_count(&new, &peer), 1);
	/* the old process has only the third connection now */
	process_end(shared, 1);
	assert_int_equal(taken(shared), 2);
	assert_int_equal(admission_source_count(&new, &peer), 0);

	assert_true(admission_slot_acquire_capped(&new, 9));
	admission_dequeue(&new, &peer);
	assert_int_equal(taken(shared), 2);
	assert_int_equal(admission_source_count(&new, &peer), 1);
	/* the new process has one of these two, the other one is lost */
	admission_queue_settle(&shared->admission, 0);
	assert_int_equal(taken(shared), 1);
	assert_false(admission_queue_pending(&new));
	admission_leave(&new, &peer);
	admission_slot_release(&new);
	assert_int_equal(taken(shared), 0);
	assert_int_equal(admission_source_count(&new, &peer), 0);
}

static void connections_queued_by_an_earlier_daemon_count(void **state)
{
	struct shared *shared = *state;
	struct admission admission = make(shared, 1, 3, 0);
	struct peer peer = peer_of("192.0.2.1:1");

	admission_queue_settle(&shared->admission, 2);
	assert_true(admission_slot_acquire(&admission));
	assert_false(admission_slot_acquire(&admission));
	for (int i = 0; i < 2; i++) {
		assert_true(admission_slot_acquire_capped(&admission, 9));
		admission_dequeue(&admission, &peer);
	}
	assert_int_equal(taken(shared), 3);
	admission_queue_settle(&shared->admission, 0);
	assert_int_equal(taken(shared), 3);
	for (int i = 0; i < 3; i++)
		admission_slot_release(&admission);
	assert_int_equal(taken(shared), 0);
}

static void a_full_process_takes_no_more_from_the_queue(void **state)
{
	struct admission admission = make(*state, 1, 100, 0);

	assert_true(admission_slot_acquire_capped(&admission, 2));
	assert_true(admission_slot_acquire_capped(&admission, 2));
	assert_false(admission_slot_acquire_capped(&admission, 2));
	assert_int_equal(taken(*state), 2);
}

static void a_connection_that_cannot_be_sent_stays(void **state)
{
	struct shared *shared = *state;
	struct admission admission = make(shared, 1, 3, 3);
	struct peer peer = peer_of("192.0.2.1:1");

	admission_group_stopping(&shared->admission, 0);
	assert_true(admission_slot_acquire(&admission));
	assert_int_equal(admission_admit(&admission, &peer), ADMISSION_OK);
	admission_enqueue(&admission, &peer);
	admission_enqueue_undo(&admission, &peer);
	assert_int_equal(taken(shared), 1);
	assert_int_equal(admission_source_count(&admission, &peer), 1);
	process_end(shared, 1);
	assert_int_equal(taken(shared), 0);
	assert_int_equal(admission_source_count(&admission, &peer), 0);
}

/* A process without max-per-source takes a connection out of the queue that a process with it has put there,
 * and puts it back. */
static void the_limit_may_change_while_a_connection_is_queued(void **state)
{
	struct admission with = make(*state, 1, 3, 3), without = make(*state, 2, 3, 0);
	struct peer peer = peer_of("192.0.2.1:1");

	assert_int_equal(admission_admit(&with, &peer), ADMISSION_OK);
	admission_enqueue(&with, &peer);
	admission_dequeue(&without, &peer);
	assert_int_equal(admission_source_count(&with, &peer), 0);
	admission_enqueue(&without, &peer);
	admission_dequeue(&with, &peer);
	assert_int_equal(admission_source_count(&with, &peer), 1);
}

static void the_first_process_counts_too(void **state)
{
	struct admission first = make(*state, 0, 1, 0), second = make(*state, 1, 1, 0);

	process_start(*state, 0);
	assert_true(admission_slot_acquire(&first));
	assert_false(admission_slot_acquire(&second));
	/* accepted before a slot could be taken */
	admission_slot_force(&second);
	assert_int_equal(taken(*state), 2);
	assert_false(admission_queue_pending(&first));
}

/* A child of model `process` sends its connection to its parent, for which the same counts are used. */
static void connections_sent_to_the_own_process_do_not_count(void **state)
{
	struct shared *shared = *state;
	struct admission_process *one = process_of(shared, 1);

	admission_queue_begin(&shared->admission);
	atomic_store(&shared->admission.supervisor.sent, 1);
	atomic_store(&one->sent, 3);
	atomic_store(&one->received, 3);
	assert_int_equal(taken(shared), 1);
	/* it received one more, which the supervisor sent */
	atomic_store(&one->received, 4);
	assert_int_equal(taken(shared), 0);
	process_end(shared, 1);
	assert_int_equal(taken(shared), 0);
}

static void families_are_different_sources(void **state)
{
	struct peer v4 = peer_of("192.0.2.1:1"), v6 = peer_of("[c000:201::1]:1");
	struct peer vm = { .family = AF_VSOCK, .address = { 192, 0, 2, 1 } };

	(void) state;
	assert_false(admission_same_source(&v4, &v6));
	assert_false(admission_same_source(&v4, &vm));
	assert_false(admission_same_source(&v6, &vm));
}

/* The entries of an earlier process in the same memory are free, whatever they contain. */
static void new_entries_begin_with_zero_counts(void **state)
{
	struct admission one = make(*state, 1, 100, 3);
	struct admission_process *process = process_of(*state, 1);
	struct admission_source *sources = (struct admission_source *) (void *) (process + 1);
	struct peer peer = peer_of("192.0.2.1:1");
	unsigned found = 0;

	memset((void *) sources, 0x5a, SOURCES * sizeof *sources);
	assert_int_equal(admission_admit(&one, &peer), ADMISSION_OK);
	for (unsigned i = 0; i < SOURCES; i++) {
		if (atomic_load(&sources[i].count) == UINT32_C(0x5a5a5a5a))
			continue;
		found++;
		assert_int_equal(atomic_load(&sources[i].count), 1);
		assert_int_equal(atomic_load(&sources[i].trying), 0);
	}
	assert_int_equal(found, 1);
}

/* The entry of the only source in the table of process 1. */
static struct admission_source *only_source(struct shared *shared)
{
	struct admission_source *sources = (struct admission_source *) (void *) (process_of(shared, 1) + 1);
	struct admission_source *found = NULL;

	for (unsigned i = 0; i < SOURCES; i++) {
		if (atomic_load(&sources[i].count) > 0) {
			assert_null(found);
			found = &sources[i];
		}
	}
	assert_non_null(found);
	return found;
}

/* A limit of 1 works as other limits. Without a limit or own counts no connection is added or removed. */
static void max_per_source_may_be_1(void **state)
{
	struct admission one = make(*state, 1, 100, 1), unlimited = make(*state, 1, 100, 0), none = one;
	struct peer peer = peer_of("192.0.2.1:1");

	none.own = NULL;
	admission_add_source(&none, &peer);
	admission_add_source(&one, &peer);
	admission_add_source(&one, &peer);
	assert_int_equal(admission_source_count(&one, &peer), 2);
	assert_int_equal(atomic_load(&only_source(*state)->trying), 0);
	assert_int_equal(admission_admit(&one, &peer), ADMISSION_SOURCE);
	admission_leave(&unlimited, &peer);
	assert_int_equal(admission_source_count(&one, &peer), 2);
	admission_leave(&one, &peer);
	assert_int_equal(admission_source_count(&one, &peer), 1);
	assert_int_equal(atomic_load(&only_source(*state)->trying), 0);
	admission_leave(&one, &peer);
	assert_int_equal(admission_admit(&one, &peer), ADMISSION_OK);
	assert_int_equal(atomic_load(&only_source(*state)->trying), 0);
}

/* --- the supervisor -------------------------------------------------------------------------- */

/* The number of changes is incremented at the beginning and at the end of each change. */
static void each_change_of_the_supervisor_is_announced(void **state)
{
	struct shared *shared = *state;
	uint32_t changes = atomic_load(&shared->admission.changes);

	assert_int_equal(changes % 2, 0);
	process_end(shared, 1);
	assert_int_equal(atomic_load(&shared->admission.changes), changes + 2);
	process_start(shared, 1);
	assert_int_equal(atomic_load(&shared->admission.changes), changes + 4);
	admission_queue_settle(&shared->admission, 0);
	assert_int_equal(atomic_load(&shared->admission.changes), changes + 6);
	admission_group_close(&shared->admission, 0);
	assert_int_equal(atomic_load(&shared->admission.changes), changes + 8);
	group_open(shared, 1, CAPACITY, SOURCES);
	assert_int_equal(atomic_load(&shared->admission.changes), changes + 8 + 2 + 2 * (PROCESSES - 1));
}

static void running_processes_are_counted(void **state)
{
	struct shared *shared = *state;

	assert_int_equal(atomic_load(&shared->admission.processes), PROCESSES - 1);
	assert_int_equal(atomic_load(&shared->admission.capacity), (PROCESSES - 1) * CAPACITY);
	process_end(shared, 1);
	assert_int_equal(atomic_load(&shared->admission.processes), PROCESSES - 2);
	assert_int_equal(atomic_load(&shared->admission.capacity), (PROCESSES - 2) * CAPACITY);
}

/* Connections that a process has sent to itself are not in the queue after its end. */
static void connections_sent_by_an_ended_process_stay_queued(void **state)
{
	struct shared *shared = *state;
	struct admission_process *one = process_of(shared, 1), *two = process_of(shared, 2);

	admission_queue_begin(&shared->admission);
	atomic_store(&shared->admission.supervisor.sent, 10);
	atomic_store(&one->sent, 3);
	atomic_store(&one->received, 4);
	assert_int_equal(taken(shared), 9);
	process_end(shared, 1);
	assert_int_equal(taken(shared), 9);
	admission_group_stopping(&shared->admission, 0);
	atomic_store(&two->sent, 5);
	atomic_store(&two->received, 3);
	assert_int_equal(taken(shared), 11);
	process_end(shared, 2);
	assert_int_equal(taken(shared), 11);
}

/* After admission_queue_settle() the counts add up to the given number of connections. */
static void the_queue_is_corrected(void **state)
{
	struct shared *shared = *state;
	struct admission_process *supervisor = &shared->admission.supervisor;

	memset(&shared->behind, 1, sizeof shared->behind);
	for (int i = 0; i < 2; i++) {
		admission_queue_settle(&shared->admission, 1);
		assert_int_equal(atomic_load(&supervisor->sent), 1);
		assert_int_equal(atomic_load(&supervisor->received), 0);
		assert_int_equal(taken(shared), 1);
	}
	admission_queue_settle(&shared->admission, 0);
	assert_int_equal(atomic_load(&supervisor->sent), 0);
	assert_false(atomic_load(&shared->admission.queue_in_use));
	/* two of three are lost */
	admission_group_stopping(&shared->admission, 0);
	atomic_store(&process_of(shared, 1)->sent, 3);
	for (int i = 0; i < 2; i++) {
		admission_queue_settle(&shared->admission, 1);
		assert_int_equal(atomic_load(&supervisor->sent), 0);
		assert_int_equal(atomic_load(&supervisor->received), 2);
		assert_int_equal(taken(shared), 1);
	}
	/* some were received before: three of four are lost; then the queue has three more than were sent */
	atomic_store(&process_of(shared, 2)->received, 5);
	atomic_store(&process_of(shared, 1)->sent, 9);
	admission_queue_settle(&shared->admission, 1);
	assert_int_equal(atomic_load(&supervisor->sent), 0);
	assert_int_equal(atomic_load(&supervisor->received), 3);
	assert_int_equal(taken(shared), 1);
	atomic_store(&process_of(shared, 1)->sent, 3);
	admission_queue_settle(&shared->admission, 1);
	assert_int_equal(atomic_load(&supervisor->sent), 3);
	assert_int_equal(atomic_load(&supervisor->received), 0);
	assert_int_equal(taken(shared), 1);
	/* the queue is in use while a group stops */
	admission_queue_settle(&shared->admission, 0);
	assert_true(atomic_load(&shared->admission.queue_in_use));
	assert_int_equal(taken(shared), 0);
}

/* A group of one process limits connections and uses the queue as each other group. */
static void a_group_may_have_one_process(void **state)
{
	struct shared *shared = *state;
	struct admission_group group = { .capacity = CAPACITY, .max_connections = 1 };

	admission_group_close(&shared->admission, 0);
	group.stride = shared->stride;
	group.first = shared->groups[0].memory;
	group.generations = shared->groups[0].generations;
	atomic_init(&group.processes, 1);
	admission_group_open(&shared->admission, 0, &group);
	assert_int_equal(atomic_load(&shared->admission.max_connections), 1);
	admission_group_stopping(&shared->admission, 0);
	assert_int_equal(atomic_load(&shared->admission.max_connections), UINT32_MAX);
	admission_queue_settle(&shared->admission, 0);
	assert_true(atomic_load(&shared->admission.queue_in_use));
}

static struct admission_shared fresh;

static int opens_as_descriptor_0(void)
{
	int open = count_descriptors();

	close(0);
	if (admission_open(&fresh) != 0 || fresh.slot_fd != 0)
		return 1;
	if (atomic_load(&fresh.max_connections) != UINT32_MAX)
		return 2;
	admission_close(&fresh);
	return fresh.slot_fd == -1 && count_descriptors() == open - 1 ? 0 : 3;
}

static int opens_without_events(void)
{
	if (!call_fails(SYS_eventfd2, 0, 0, 0, EMFILE))
		return 77;
	return admission_open(&fresh) == -EMFILE && fresh.slot_fd < 0 ? 0 : 1;
}

static int opens_without_random_numbers(void)
{
	int open = count_descriptors();

	if (!call_fails(SYS_getrandom, 0, 0, 0, ENOSYS))
		return 77;
	if (admission_open(&fresh) != -ENOSYS)
		return 1;
	admission_close(&fresh);
	return count_descriptors() == open ? 0 : 2;
}

static void errors_of_opening_are_returned(void **state)
{
	static int (*const checks[])(void) = { opens_as_descriptor_0, opens_without_events,
		                               opens_without_random_numbers };

	(void) state;
	for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
		int r = in_child(checks[i]);

		if (r == 77) {
			print_message("no system call filters\n");
			skip();
		}
		assert_int_equal(r, 0);
	}
}

/* Whatever a process writes into its own counts, others lose no more slots than it can have connections. */
static void a_process_cannot_claim_more_than_it_can_hold(void **state)
{
	struct shared *shared = shared_make(1);
	struct admission one = make(shared, 1, 4, 2);
	struct peer peer = peer_of("192.0.2.1:1");
	uint32_t random = 99;

	(void) state;
	for (int round = 0; round < 200; round++) {
		for (size_t i = 0; i < shared->stride / 4; i++) {
			random = random * 1664525 + 1013904223;
			memcpy((char *) process_of(shared, 2) + 4 * i, &random, 4);
		}
		assert_true(taken(shared) <= 1);
		assert_true(admission_source_count(&one, &peer) <= 1);
		for (int i = 0; i < 3; i++)
			assert_true(admission_slot_acquire(&one));
		for (int i = 0; i < 3; i++)
			admission_slot_release(&one);
		assert_int_equal(admission_admit(&one, &peer), ADMISSION_OK);
		admission_leave(&one, &peer);
		process_end(shared, 2);
		admission_queue_settle(&shared->admission, 0);
		assert_int_equal(taken(shared), 0);
		process_start(shared, 2);
	}
	shared_free(shared);
}

/* --- interleavings ------------------------------------------------------------------------ */

/* To interleave processes without a race, the test acts for all of them: the first access to the counts of
 * one process causes SIGSEGV, whose handler performs a step of another process. */
static struct {
	struct shared *shared;
	void *page;
	void (*step)(struct shared *shared);
	unsigned steps;
} interleaved;

static void on_fault(int signal_number, siginfo_t *info, void *context)
{
	(void) context;
	if ((char *) info->si_addr < (char *) interleaved.page ||
	    (char *) info->si_addr >= (char *) interleaved.page + interleaved.shared->stride) {
		signal(signal_number, SIG_DFL);
		return;
	}
	mprotect(interleaved.page, interleaved.shared->stride, PROT_READ | PROT_WRITE);
	interleaved.steps++;
	interleaved.step(interleaved.shared);
}

/* `step` runs when the counts of process `index` are accessed for the first time from now on. */
static void on_access(struct shared *shared, uint32_t index, void (*step)(struct shared *shared))
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

	interleaved.shared = shared;
	interleaved.page = process_of(shared, index);
	interleaved.step = step;
	interleaved.steps = 0;
	sigaction(SIGSEGV, &action, NULL);
	assert_int_equal(mprotect(interleaved.page, shared->stride, PROT_NONE), 0);
}

static void assert_interleaved(void)
{
	assert_int_equal(interleaved.steps, 1);
	signal(SIGSEGV, SIG_DFL);
}

static void set_slots(struct shared *shared, uint32_t index, uint32_t connections, uint32_t trying)
{
	atomic_store(&process_of(shared, index)->connections, connections);
	atomic_store(&process_of(shared, index)->trying, trying);
}

static void first_withdraws(struct shared *shared)
{
	set_slots(shared, 1, 0, 0);
}

static void second_withdraws(struct shared *shared)
{
	set_slots(shared, 2, 0, 0);
}

static void second_is_admitted(struct shared *shared)
{
	set_slots(shared, 2, 1, 0);
}

/* Two processes try for the last slot: the first in order waits for the other one to withdraw. */
static void the_first_in_order_waits_for_others(void **state)
{
	struct shared *shared = *state;
	struct admission one = make(shared, 1, 1, 0);

	set_slots(shared, 2, 1, 1);
	on_access(shared, 3, second_withdraws); /* after the counts of process 2 were read */
	assert_true(admission_slot_acquire(&one));
	assert_interleaved();
	assert_int_equal(atomic_load(&process_of(shared, 1)->trying), 0);
	admission_slot_release(&one);

	/* it is refused where the other process is admitted, or stops before it withdraws */
	set_slots(shared, 2, 1, 1);
	on_access(shared, 3, second_is_admitted);
	assert_false(admission_slot_acquire(&one));
	assert_interleaved();
	set_slots(shared, 2, 1, 1);
	assert_false(admission_slot_acquire(&one));
	assert_int_equal(atomic_load(&process_of(shared, 1)->connections), 0);
	assert_int_equal(atomic_load(&process_of(shared, 1)->trying), 0);
}

static void the_others_withdraw_and_try_again(void **state)
{
	struct shared *shared = *state;
	struct admission two = make(shared, 2, 1, 0);

	set_slots(shared, 1, 1, 1);
	on_access(shared, 3, first_withdraws);
	assert_true(admission_slot_acquire(&two));
	assert_interleaved();
	assert_int_equal(atomic_load(&process_of(shared, 2)->trying), 0);
	admission_slot_release(&two);

	set_slots(shared, 1, 1, 1);
	assert_false(admission_slot_acquire(&two));
	assert_int_equal(atomic_load(&process_of(shared, 2)->connections), 0);
	assert_int_equal(atomic_load(&process_of(shared, 2)->trying), 0);
}

static void no_process_waits_where_the_limit_is_reached(void **state)
{
	struct shared *shared = *state;
	struct admission one = make(shared, 1, 2, 0);

	/* two connections admitted, one trying: whether that one withdraws makes no difference */
	set_slots(shared, 2, 3, 1);
	on_access(shared, 3, second_withdraws);
	assert_false(admission_slot_acquire(&one));
	assert_interleaved();
	/* one connection admitted, one trying */
	set_slots(shared, 2, 2, 1);
	on_access(shared, 3, second_is_admitted);
	assert_true(admission_slot_acquire(&one));
	assert_interleaved();
}

static void second_starts_again(struct shared *shared)
{
	process_end(shared, 2);
	process_start(shared, 2);
}

/* Called when the counts of process 2 were read: the supervisor changes them. */
static void second_ends(struct shared *shared)
{
	process_end(shared, 2);
}

static void counts_are_read_again_where_the_supervisor_changes_them(void **state)
{
	struct shared *shared = *state;

	set_slots(shared, 2, 5, 0);
	on_access(shared, 3, second_ends);
	assert_int_equal(taken(shared), 0);
	assert_interleaved();
	process_start(shared, 2);
	set_slots(shared, 2, 5, 0);
	on_access(shared, 3, second_starts_again);
	assert_int_equal(taken(shared), 0);
	assert_interleaved();
	/* a supervisor that was killed in the middle of a change */
	set_slots(shared, 2, 5, 0);
	atomic_fetch_add(&shared->admission.changes, 1);
	assert_int_equal(taken(shared), 5);
}

/* Another thread of process 4 takes the connection from the queue. */
static void fourth_receives(struct shared *shared)
{
	struct admission four = make(shared, 4, 2, 0);

	assert_true(admission_slot_acquire_capped(&four, CAPACITY));
	admission_dequeue(&four, NULL);
}

/* Process 4 reads its own count before it receives the connection, and the count of the queue afterwards. */
static void connections_received_by_another_thread_count(void **state)
{
	struct shared *shared = *state;
	struct admission four = make(shared, 4, 2, 0);

	assert_true(admission_slot_acquire(&four));
	admission_queue_begin(&shared->admission);
	atomic_store(&shared->admission.supervisor.sent, 1);
	on_access(shared, 1, fourth_receives);
	assert_false(admission_slot_acquire(&four));
	assert_interleaved();
	assert_int_equal(taken(shared), 2);
}

static void first_hands_over(struct shared *shared)
{
	struct admission one = make(shared, 1, 5, 0);

	for (int i = 0; i < 5; i++)
		admission_enqueue(&one, NULL);
}

/* Process 1 sends connections that it received in an earlier reload, when its `received` was read already. */
static void connections_handed_over_again_count(void **state)
{
	struct shared *shared = *state;
	struct admission one = make(shared, 1, 5, 0), four = make(shared, 4, 5, 0);

	admission_queue_begin(&shared->admission);
	atomic_store(&shared->admission.supervisor.sent, 5);
	for (int i = 0; i < 5; i++) {
		assert_true(admission_slot_acquire_capped(&one, CAPACITY));
		admission_dequeue(&one, NULL);
	}
	assert_int_equal(taken(shared), 5);
	admission_group_stopping(&shared->admission, 0);
	on_access(shared, 2, first_hands_over);
	assert_false(admission_slot_acquire(&four));
	assert_interleaved();
	assert_int_equal(taken(shared), 5);
	/* a process that claims to have sent more counts for no more than it can have sent */
	atomic_store(&process_of(shared, 1)->sent, UINT64_MAX);
	assert_int_equal(taken(shared), 5 + CAPACITY);
}

static struct peer interleaved_peer;

static void second_admits_once_more(struct shared *shared)
{
	struct admission two = make(shared, 2, 100, 10);

	(void) admission_admit(&two, &interleaved_peer);
}

static void a_table_is_read_again_where_its_process_changes_it(void **state)
{
	struct shared *shared = *state;
	struct admission one = make(shared, 1, 100, 10), two = make(shared, 2, 100, 10);

	interleaved_peer = peer_of("192.0.2.1:1");
	assert_int_equal(admission_admit(&two, &interleaved_peer), ADMISSION_OK);
	on_access(shared, 2, second_admits_once_more);
	assert_int_equal(admission_source_count(&one, &interleaved_peer), 2);
	assert_interleaved();
	/* a process that was stopped in the middle of a change is not counted, and is waited for only once */
	atomic_fetch_add(&process_of(shared, 2)->changes, 1);
	assert_int_equal(admission_source_count(&one, &interleaved_peer), 0);
	assert_int_equal(admission_source_count(&one, &interleaved_peer), 0);
	/* it completes the change, and is stopped in another one */
	atomic_fetch_add(&process_of(shared, 2)->changes, 1);
	assert_int_equal(admission_source_count(&one, &interleaved_peer), 2);
	atomic_fetch_add(&process_of(shared, 2)->changes, 1);
	assert_int_equal(admission_source_count(&one, &interleaved_peer), 0);
}

/* --- several groups ----------------------------------------------------------------------- */

static void groups_have_an_order(void **state)
{
	struct shared *shared = *state;
	struct admission old = make(shared, 2, 1, 0), new = old;

	group_open(shared, 1, CAPACITY, SOURCES);
	new.group = 1;
	new.index = 1;
	new.own = process_in(shared, 1, 1);
	/* process 2 of group 0 comes before process 1 of group 1 */
	set_slots(shared, 2, 1, 1);
	on_access(shared, 3, second_withdraws);
	assert_true(admission_slot_acquire(&new));
	assert_interleaved();
	assert_false(admission_slot_acquire(&old));
	admission_slot_release(&new);
	atomic_store(&new.own->connections, 1);
	atomic_store(&new.own->trying, 1);
	assert_false(admission_slot_acquire(&old)); /* refused after a wait */
	assert_int_equal(taken(shared), 1);
}

static void a_source_is_counted_over_all_groups(void **state)
{
	struct shared *shared = *state;
	struct admission old = make(shared, 1, 100, 2), new = old;
	struct peer peer = peer_of("192.0.2.1:1");

	group_open(shared, 1, CAPACITY, SOURCES);
	new.group = 1;
	new.own = process_in(shared, 1, 1);
	assert_int_equal(admission_admit(&old, &peer), ADMISSION_OK);
	assert_int_equal(admission_admit(&new, &peer), ADMISSION_OK);
	assert_int_equal(admission_admit(&old, &peer), ADMISSION_SOURCE);
	assert_int_equal(admission_admit(&new, &peer), ADMISSION_SOURCE);
	for (uint32_t i = 1; i < PROCESSES; i++)
		admission_process_end(&shared->admission, 0, process_of(shared, i),
		                      &shared->groups[0].generations[i]);
	admission_group_close(&shared->admission, 0);
	assert_int_equal(admission_source_count(&new, &peer), 1);
	assert_int_equal(admission_admit(&new, &peer), ADMISSION_OK);
}

static void a_group_without_a_table_counts_no_sources(void **state)
{
	struct shared *shared = *state;
	struct admission with = make(shared, 1, 100, 1), without = with;
	struct peer peer = peer_of("192.0.2.1:1");

	group_open(shared, 1, CAPACITY, 0);
	without.group = 1;
	without.own = process_in(shared, 1, 1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(admission_admit(&without, &peer), ADMISSION_OK);
	assert_int_equal(admission_source_count(&with, &peer), 0);
	assert_int_equal(admission_admit(&with, &peer), ADMISSION_OK);
	admission_leave(&without, &peer);
	assert_int_equal(admission_source_count(&with, &peer), 1);
}

/* --- connections that are not counted ------------------------------------------------------- */

/* A child process, whose connection its parent counts. */
static void nothing_is_counted_without_own_counts(void **state)
{
	struct shared *shared = *state;
	struct admission child = make(shared, 1, 1, 1);
	struct peer peer = peer_of("192.0.2.1:1");

	child.own = NULL;
	for (int i = 0; i < 3; i++) {
		assert_true(admission_slot_acquire(&child));
		assert_true(admission_slot_acquire_capped(&child, 0));
		admission_slot_force(&child);
		assert_int_equal(admission_admit(&child, &peer), ADMISSION_OK);
		admission_enqueue(&child, &peer);
		admission_enqueue_undo(&child, &peer);
		admission_dequeue(&child, &peer);
	}
	admission_leave(&child, &peer);
	admission_slot_release(&child);
	admission_wait(&child);
	admission_wait_done(&child);
	assert_int_equal(taken(shared), 0);
	assert_int_equal(admission_source_count(&child, &peer), 0);
}

static void the_supervisor_counts_no_sources(void **state)
{
	struct shared *shared = *state;
	struct admission supervisor = make(shared, 0, 100, 1);
	struct peer peer = peer_of("192.0.2.1:1");

	supervisor.own = &shared->admission.supervisor;
	supervisor.group = ADMISSION_GROUPS;
	assert_int_equal(admission_admit(&supervisor, &peer), ADMISSION_OK);
	assert_int_equal(admission_admit(&supervisor, &peer), ADMISSION_OK);
	admission_leave(&supervisor, &peer);
	assert_int_equal(admission_source_count(&supervisor, &peer), 0);
}

static void queue_messages_without_a_peer_count_no_source(void **state)
{
	struct shared *shared = *state;
	struct admission admission = make(shared, 1, 3, 3);
	struct peer peer = peer_of("192.0.2.1:1"), local = { .family = AF_UNIX };

	admission_group_stopping(&shared->admission, 0);
	assert_true(admission_slot_acquire(&admission));
	assert_int_equal(admission_admit(&admission, &peer), ADMISSION_OK);
	admission_enqueue(&admission, NULL);
	assert_int_equal(admission_source_count(&admission, &peer), 1);
	admission_enqueue_undo(&admission, NULL);
	assert_int_equal(admission_source_count(&admission, &peer), 1);
	admission_dequeue(&admission, NULL);
	admission_dequeue(&admission, &local);
	admission_leave(&admission, &local);
	assert_int_equal(admission_source_count(&admission, &peer), 1);
	assert_int_equal(admission_source_count(&admission, &local), 0);
}

/* --- a full table --------------------------------------------------------------------------- */

static void sources_beyond_the_table_are_refused(void **state)
{
	struct shared *shared = *state;
	struct admission admission = make(shared, 1, 100, 2);
	struct peer peers[5];

	group_open(shared, 1, CAPACITY, 4);
	admission.group = 1;
	admission.own = process_in(shared, 1, 1);
	for (unsigned i = 0; i < 5; i++)
		peers[i] = (struct peer) { .family = AF_INET, .address = { 10, 0, 0, (uint8_t) i } };
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(admission_admit(&admission, &peers[i]), ADMISSION_OK);
	assert_int_equal(admission_admit(&admission, &peers[4]), ADMISSION_SOURCE);
	admission_leave(&admission, &peers[4]); /* is not in the table: no effect */
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(admission_source_count(&admission, &peers[i]), 1);
	assert_int_equal(admission_source_count(&admission, &peers[4]), 0);
	admission_leave(&admission, &peers[0]);
	admission_leave(&admission, &peers[0]);
	assert_int_equal(admission_source_count(&admission, &peers[0]), 0);
	assert_int_equal(admission_admit(&admission, &peers[4]), ADMISSION_OK);
	assert_int_equal(admission_admit(&admission, &peers[0]), ADMISSION_SOURCE);
}

/* Each source can leave a full table, whatever the positions of the sources are. */
static void each_source_can_leave_a_full_table(void **state)
{
	struct shared *shared = *state;
	struct admission admission = make(shared, 1, 100, 2);

	group_open(shared, 1, CAPACITY, 4);
	admission.group = 1;
	admission.own = process_in(shared, 1, 1);
	for (uint64_t key = 0; key < 500; key++) {
		shared->admission.hash_key = (struct siphash_key) { key, 1 };
		for (uint8_t i = 0; i < 4; i++) {
			struct peer peer = { .family = AF_INET, .address = { 10, 0, 0, i } };

			assert_int_equal(admission_admit(&admission, &peer), ADMISSION_OK);
		}
		for (uint8_t i = 0; i < 4; i++) {
			struct peer peer = { .family = AF_INET, .address = { 10, 0, 0, (key + i) % 4 } };

			admission_leave(&admission, &peer);
			for (uint8_t other = 0; other < 4; other++) {
				peer.address[3] = (key + other) % 4;
				assert_int_equal(admission_source_count(&admission, &peer), other > i);
			}
		}
	}
}

/* --- limits that cannot be reached ----------------------------------------------------------- */

/* A process that runs alone reads the counts of others only if there are orphans or queued connections. */
static void a_process_alone_counts_orphans_and_the_queue(void **state)
{
	struct shared *shared = *state;
	struct admission one = make(shared, 1, 3, 0);

	for (uint32_t i = 2; i < PROCESSES; i++)
		process_end(shared, i);
	admission_add_orphans(&shared->admission, 1);
	assert_true(admission_slot_acquire(&one));
	assert_true(admission_slot_acquire(&one));
	assert_false(admission_slot_acquire(&one));
	admission_add_orphans(&shared->admission, -1);
	admission_queue_settle(&shared->admission, 1);
	assert_false(admission_slot_acquire(&one));
	admission_queue_settle(&shared->admission, 0);
	assert_true(admission_slot_acquire(&one));
	assert_false(admission_slot_acquire(&one));
}

/* All processes together cannot exceed the limit, but with orphans and the queue they can. */
static void the_sum_of_capacities_does_not_bound_orphans_and_the_queue(void **state)
{
	struct shared *shared = shared_make(2);
	struct admission one = make(shared, 1, 14, 0);

	(void) state;
	for (uint32_t i = 2; i < PROCESSES; i++)
		set_slots(shared, i, 2, 0);
	admission_add_orphans(&shared->admission, 1);
	assert_true(admission_slot_acquire(&one));
	assert_false(admission_slot_acquire(&one));
	admission_add_orphans(&shared->admission, -1);
	admission_queue_settle(&shared->admission, 1);
	assert_false(admission_slot_acquire(&one));
	admission_queue_settle(&shared->admission, 0);
	assert_true(admission_slot_acquire(&one));
	/* beyond the capacity of the process, the counts of all are compared with the limit */
	assert_false(admission_slot_acquire(&one));
	assert_int_equal(taken(shared), 14);
	shared_free(shared);
}

/* --- waiting for a slot ------------------------------------------------------------------------ */

static bool wakes(const struct shared *shared)
{
	struct pollfd ready = { .fd = admission_slot_fd(&shared->admission), .events = POLLIN };

	return poll(&ready, 1, 0) == 1;
}

static void a_free_slot_wakes_a_waiting_worker(void **state)
{
	struct shared *shared = *state;
	struct admission one = make(shared, 1, 1, 0), two = make(shared, 2, 1, 0);
	uint64_t full = UINT64_MAX - 1;

	assert_true(admission_slot_acquire(&one));
	admission_slot_release(&one);
	assert_false(wakes(shared)); /* no worker waits */
	assert_true(admission_slot_acquire(&one));
	admission_wait(&two);
	assert_false(wakes(shared));
	admission_slot_release(&one);
	assert_true(wakes(shared));
	admission_wait(&two); /* an earlier event does not wake it */
	assert_false(wakes(shared));
	/* an eventfd with the maximum value stays readable, which is enough */
	assert_int_equal(write(admission_slot_fd(&shared->admission), &full, sizeof full), sizeof full);
	assert_true(admission_slot_acquire(&one));
	admission_slot_release(&one);
	assert_true(wakes(shared));
}

static void a_woken_worker_wakes_the_next_one(void **state)
{
	struct shared *shared = *state;
	struct admission one = make(shared, 1, 1, 0), two = make(shared, 2, 1, 0);

	group_open_limited(shared, 1, CAPACITY, SOURCES, 1);
	admission_wait(&one);
	admission_wait(&two);
	admission_wait_done(&one); /* the slot is still free */
	assert_true(wakes(shared));
	admission_wait(&one);
	assert_true(admission_slot_acquire(&one));
	admission_wait_done(&one);
	assert_false(wakes(shared));
	admission_wait_done(&two);
	assert_int_equal(atomic_load(&process_of(shared, 1)->waiting), 0);
	assert_int_equal(atomic_load(&process_of(shared, 2)->waiting), 0);
}

/* Without a limit, workers wait for a slot of their own process. */
static void a_process_wakes_its_own_workers(void **state)
{
	struct shared *shared = *state;
	struct admission one = make(shared, 1, UINT32_MAX, 0), two = make(shared, 2, UINT32_MAX, 0);

	assert_true(admission_slot_acquire(&one));
	assert_true(admission_slot_acquire(&two));
	admission_wait(&one);
	admission_slot_release(&two);
	assert_false(wakes(shared));
	admission_slot_release(&one);
	assert_true(wakes(shared));
}

/* Another process tries to get a slot, and withdraws at call number `yields_left` of sched_yield(2). */
static struct admission_process *other_try;
static unsigned yields, yields_left;

static void count_yields(void)
{
	if (++yields == yields_left) {
		atomic_store(&other_try->connections, 0);
		atomic_store(&other_try->trying, 0);
	}
}

/* Two workers that try at once may refuse each other: the last one to withdraw wakes a waiting worker. */
static void refused_claims_wake_a_waiting_worker(void **state)
{
	struct shared *shared = *state;
	struct admission last = make(shared, 2, 1, 0), waiting = make(shared, 3, 1, 0);

	other_try = process_of(shared, 1);
	before_yield = count_yields;
	for (unsigned round = 0; round < 2; round++) {
		atomic_store(&other_try->connections, 1);
		atomic_store(&other_try->trying, 1);
		admission_wait(&waiting);
		yields_left = yields; /* those of the first round */
		yields = 0;
		assert_false(admission_slot_acquire(&last));
		assert_in_range(yields, 1, 1000000);
		assert_int_equal(taken(shared), 1 - round);
		assert_int_equal(wakes(shared), round);
	}
	before_yield = NULL;
}

/* The number of changes grows by 2 with each change, so that other processes read the counts again. */
static void changes_of_queue_and_groups_are_announced(void **state)
{
	struct shared *shared = *state;
	const _Atomic uint32_t *changes = &shared->admission.changes;
	uint32_t before = atomic_load(changes);

	assert_int_equal(before % 2, 0);
	process_end(shared, 1);
	assert_int_equal(atomic_load(changes), before + 2);
	process_start(shared, 1);
	assert_int_equal(atomic_load(changes), before + 4);
	admission_queue_begin(&shared->admission);
	assert_int_equal(atomic_load(changes), before + 6);
	admission_group_stopping(&shared->admission, 0);
	assert_int_equal(atomic_load(changes), before + 8);
	admission_group_close(&shared->admission, 0);
	assert_int_equal(atomic_load(changes), before + 10);
}

static void the_supervisor_wakes_waiting_workers(void **state)
{
	struct shared *shared = *state;
	struct admission one = make(shared, 1, 1, 0);

	admission_wait(&one);
	admission_add_orphans(&shared->admission, 1);
	assert_false(wakes(shared));
	admission_add_orphans(&shared->admission, -1);
	assert_true(wakes(shared));
	admission_wait(&one);
	process_end(shared, 2);
	assert_true(wakes(shared));
	admission_wait(&one);
	process_end(shared, 2); /* has ended already */
	assert_false(wakes(shared));
	admission_queue_settle(&shared->admission, 0);
	assert_true(wakes(shared));
}

static struct admission in_second_group(struct shared *shared, uint32_t index, uint32_t slots)
{
	struct admission admission = make(shared, index, slots, 0);

	admission.group = 1;
	admission.own = process_in(shared, 1, index);
	return admission;
}

/* Both crews of a reload accept for a moment. */
static void the_lowest_limit_holds_until_its_group_stops(void **state)
{
	struct shared *shared = *state;
	struct admission old, new;

	shared->admission.groups[0].max_connections = 1;
	group_open_limited(shared, 1, CAPACITY, SOURCES, 2);
	old = make(shared, 1, 1, 0);
	new = in_second_group(shared, 1, 2);
	assert_int_equal(admission_limit(&new), 1);
	assert_true(admission_slot_acquire(&old));
	assert_false(admission_slot_acquire(&new));
	admission_wait(&new);
	assert_false(wakes(shared));
	admission_group_stopping(&shared->admission, 0);
	assert_true(wakes(shared));
	assert_int_equal(admission_limit(&new), 2);
	/* a worker that stops does not exceed its own limit */
	assert_int_equal(admission_limit(&old), 1);
	assert_true(admission_slot_acquire(&new));
	assert_false(admission_slot_acquire(&new));
	admission_wait(&new);
	assert_false(wakes(shared));
	admission_group_close(&shared->admission, 1);
	assert_int_equal(atomic_load(&shared->admission.max_connections), UINT32_MAX);
}

/* A reload that fails. */
static void a_closed_group_limits_no_other(void **state)
{
	struct shared *shared = *state;
	struct admission old = make(shared, 1, 2, 0);

	shared->admission.groups[0].max_connections = 2;
	group_open_limited(shared, 1, CAPACITY, SOURCES, 1);
	assert_true(admission_slot_acquire(&old));
	assert_false(admission_slot_acquire(&old));
	admission_wait(&old);
	admission_group_close(&shared->admission, 1);
	assert_true(wakes(shared));
	assert_true(admission_slot_acquire(&old));
	assert_false(admission_slot_acquire(&old));
}

/* A worker that stops cannot use the free slot, because its own limit is lower. */
static void a_worker_that_stops_passes_the_event_on(void **state)
{
	struct shared *shared = *state;
	struct admission old = make(shared, 1, 1, 0), new;

	shared->admission.groups[0].max_connections = 1;
	group_open_limited(shared, 1, CAPACITY, SOURCES, 2);
	new = in_second_group(shared, 1, 2);
	assert_true(admission_slot_acquire(&old));
	admission_wait(&new);
	admission_group_stopping(&shared->admission, 0);
	assert_true(wakes(shared));
	admission_wait(&old); /* it has not seen its stop request yet */
	assert_false(admission_slot_acquire(&old));
	assert_false(wakes(shared));
	admission_wait_done(&old);
	assert_true(wakes(shared));
}

/* A connection that moves counts twice for a moment, in which a worker may be refused a slot. */
static void a_moved_connection_wakes_a_waiting_worker(void **state)
{
	struct shared *shared = *state;
	struct admission old = make(shared, 1, 2, 0), new, third;

	shared->admission.groups[0].max_connections = 2;
	group_open_limited(shared, 1, CAPACITY, SOURCES, 2);
	new = in_second_group(shared, 1, 2);
	third = in_second_group(shared, 2, 2);
	assert_true(admission_slot_acquire(&old));
	admission_group_stopping(&shared->admission, 0);
	admission_wait(&third);
	assert_false(wakes(shared));
	admission_enqueue(&old, NULL);
	assert_true(wakes(shared));
	assert_true(admission_slot_acquire_capped(&new, CAPACITY));
	assert_false(admission_slot_acquire(&third));
	admission_wait(&third);
	assert_false(wakes(shared));
	admission_dequeue(&new, NULL);
	assert_true(wakes(shared));
	assert_true(admission_slot_acquire(&third));
	/* also where it cannot be sent */
	admission_slot_release(&third);
	admission_enqueue(&new, NULL);
	admission_wait(&third);
	assert_false(wakes(shared));
	admission_enqueue_undo(&new, NULL);
	assert_true(wakes(shared));
	assert_true(admission_slot_acquire(&third));
	/* no slot is free */
	admission_wait(&third);
	admission_enqueue(&new, NULL);
	admission_enqueue_undo(&new, NULL);
	assert_false(wakes(shared));
}

/* --- lists ------------------------------------------------------------------------------------- */

static void lists_apply_to_ip_addresses_only(void **state)
{
	struct admission admission = make(*state, 1, 100, 1);
	struct peer v4 = peer_of("192.0.2.1:1"), other = peer_of("198.51.100.1:1");
	struct peer local = { .family = AF_UNIX }, vm = { .family = AF_VSOCK, .address = { 3 } };
	struct cidr network;
	struct cidr_set set;
	const char *why;

	assert_int_equal(cidr_parse(&network, "192.0.2.0/24", &why), 0);
	assert_int_equal(cidr_set_make(&set, &network, 1), 0);
	admission.deny = &set;
	assert_int_equal(admission_admit(&admission, &v4), ADMISSION_DENIED);
	assert_int_equal(admission_admit(&admission, &other), ADMISSION_OK);
	admission_leave(&admission, &other);
	admission.deny = &nobody;
	admission.allow = &set;
	assert_int_equal(admission_admit(&admission, &v4), ADMISSION_OK);
	assert_int_equal(admission_admit(&admission, &other), ADMISSION_DENIED);
	assert_int_equal(admission_admit(&admission, &vm), ADMISSION_OK);
	assert_int_equal(admission_admit(&admission, &vm), ADMISSION_SOURCE);
	for (int i = 0; i < 3; i++)
		assert_int_equal(admission_admit(&admission, &local), ADMISSION_OK);
	assert_int_equal(admission_source_count(&admission, &v4), 1);
	/* without max-per-source no source is counted */
	admission.max_per_source = 0;
	assert_int_equal(admission_admit(&admission, &v4), ADMISSION_OK);
	assert_int_equal(admission_source_count(&admission, &v4), 1);
	cidr_set_clear(&set);
}

/* --- concurrency -------------------------------------------------------------------------- */

#define ROUNDS 20000 /* of two contenders; more of them have fewer: they wait for each other */

struct contest {
	struct shared *shared;
	_Atomic int inside, most, refused;
	int rounds;
	bool by_source;
};

struct contender {
	struct contest *contest;
	uint32_t index;
	pthread_t thread;
};

/* Take a slot, or a connection of the source, and give it back, as a process does. */
static void *contend(void *argument)
{
	struct contender *contender = argument;
	struct contest *contest = contender->contest;
	struct admission admission = make(contest->shared, contender->index, contest->by_source ? 100 : 2, 2);
	struct peer peer = { .family = AF_INET, .address = { 192, 0, 2, 1 } };

	for (int i = 0; i < contest->rounds; i++) {
		bool ok = contest->by_source ? admission_admit(&admission, &peer) == ADMISSION_OK
		                             : admission_slot_acquire(&admission);
		int inside, most;

		if (!ok) {
			atomic_fetch_add(&contest->refused, 1);
			continue;
		}
		inside = atomic_fetch_add(&contest->inside, 1) + 1;
		most = atomic_load(&contest->most);
		while (inside > most && !atomic_compare_exchange_weak(&contest->most, &most, inside))
			;
		atomic_fetch_sub(&contest->inside, 1);
		if (contest->by_source)
			admission_leave(&admission, &peer);
		else
			admission_slot_release(&admission);
	}
	return NULL;
}

/* Run `contenders` threads at once, each with the counts of its own process, or (`threads`) all with those of
 * one process. Never more than two are inside; two contenders are never refused. */
static void contest(bool by_source, uint32_t contenders, bool threads)
{
	struct contest contest = { .shared = shared_make(CAPACITY), .by_source = by_source,
	                           .rounds = contenders > 2 ? ROUNDS / 40 : ROUNDS };
	struct contender all[PROCESSES];

	for (uint32_t i = 0; i < contenders; i++) {
		all[i] = (struct contender) { .contest = &contest, .index = threads ? 1 : 1 + i };
		assert_int_equal(pthread_create(&all[i].thread, NULL, contend, &all[i]), 0);
	}
	for (uint32_t i = 0; i < contenders; i++)
		pthread_join(all[i].thread, NULL);
	assert_in_range(atomic_load(&contest.most), 1, 2);
	if (contenders <= 2)
		assert_int_equal(atomic_load(&contest.refused), 0);
	assert_int_equal(taken(contest.shared), 0);
	shared_free(contest.shared);
}

static void limits_hold_among_processes(void **state)
{
	(void) state;
	contest(false, 2, false);
	contest(true, 2, false);
	contest(false, 5, false);
	contest(true, 5, false);
}

static void limits_hold_among_threads(void **state)
{
	(void) state;
	contest(false, 2, true);
	contest(true, 2, true);
	contest(true, 5, true);
}

/* A process that is killed while it changes its table does not damage the counts of other processes. */
#define KILLED 300
#define STEADY 5

static void __attribute__((noreturn))
come_and_go(const struct admission *admission, const struct peer peers[], _Atomic unsigned *done)
{
	for (;;) {
		for (unsigned i = 0; i < 2 * STEADY; i++)
			(void) admission_admit(admission, &peers[i * 7 % (2 * STEADY)]);
		for (unsigned i = 0; i < 2 * STEADY; i++)
			admission_leave(admission, &peers[i * 3 % (2 * STEADY)]);
		atomic_fetch_add(done, 1);
	}
}

static void a_killed_process_leaves_no_counts(void **state)
{
	struct admission steady = make(*state, 1, 100, 100), killed = make(*state, 2, 100, 100);
	_Atomic unsigned *done = mmap(NULL, sizeof *done, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
	                              -1, 0);
	const struct timespec moment = { .tv_nsec = 20000 };
	struct peer peers[2 * STEADY];

	assert_true(done != MAP_FAILED);
	for (unsigned i = 0; i < 2 * STEADY; i++) {
		char text[32];

		snprintf(text, sizeof text, "10.0.0.%u:9", i + 1);
		peers[i] = peer_of(text);
	}
	for (unsigned i = 0; i < STEADY; i++)
		assert_int_equal(admission_admit(&steady, &peers[i]), ADMISSION_OK);
	for (unsigned round = 0; round < KILLED; round++) {
		unsigned before = atomic_load(done);
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0)
			come_and_go(&killed, peers, done);
		while (atomic_load(done) - before < 1 + round % 7)
			/* sched_yield(2) could take a time slice of each busy process */
			nanosleep(&moment, NULL);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		process_end(*state, 2);
		for (unsigned i = 0; i < 2 * STEADY; i++)
			assert_int_equal(admission_source_count(&steady, &peers[i]), i < STEADY);
		process_start(*state, 2);
		for (unsigned i = 0; i < 2 * STEADY; i++)
			assert_int_equal(admission_source_count(&steady, &peers[i]), i < STEADY);
	}
	munmap(done, sizeof *done);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(slots_are_counted_over_all_processes, setup, teardown),
		cmocka_unit_test_setup_teardown(a_single_process_does_not_exceed_the_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(a_source_is_an_ipv4_address_or_an_ipv6_64, setup, teardown),
		cmocka_unit_test(counts_vsock_by_machine),
		cmocka_unit_test_setup_teardown(a_lost_process_gives_its_sources_back, setup, teardown),
		cmocka_unit_test_setup_teardown(the_tables_agree_with_counters, setup, teardown),
		cmocka_unit_test_setup_teardown(queued_connections_count, setup, teardown),
		cmocka_unit_test_setup_teardown(connections_queued_by_an_earlier_daemon_count, setup,
		                                teardown),
		cmocka_unit_test_setup_teardown(a_full_process_takes_no_more_from_the_queue, setup, teardown),
		cmocka_unit_test_setup_teardown(a_connection_that_cannot_be_sent_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(the_limit_may_change_while_a_connection_is_queued, setup,
		                                teardown),
		cmocka_unit_test_setup_teardown(the_first_process_counts_too, setup, teardown),
		cmocka_unit_test_setup_teardown(connections_sent_to_the_own_process_do_not_count, setup,
		                                teardown),
		cmocka_unit_test(families_are_different_sources),
		cmocka_unit_test_setup_teardown(new_entries_begin_with_zero_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(max_per_source_may_be_1, setup, teardown),
		cmocka_unit_test_setup_teardown(each_change_of_the_supervisor_is_announced, setup, teardown),
		cmocka_unit_test_setup_teardown(running_processes_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(connections_sent_by_an_ended_process_stay_queued, setup,
		                                teardown),
		cmocka_unit_test_setup_teardown(the_queue_is_corrected, setup, teardown),
		cmocka_unit_test_setup_teardown(a_group_may_have_one_process, setup, teardown),
		cmocka_unit_test(errors_of_opening_are_returned),
		cmocka_unit_test(a_process_cannot_claim_more_than_it_can_hold),
		cmocka_unit_test_setup_teardown(the_first_in_order_waits_for_others, setup, teardown),
		cmocka_unit_test_setup_teardown(the_others_withdraw_and_try_again, setup, teardown),
		cmocka_unit_test_setup_teardown(no_process_waits_where_the_limit_is_reached, setup,
		                                teardown),
		cmocka_unit_test_setup_teardown(counts_are_read_again_where_the_supervisor_changes_them,
		                                setup, teardown),
		cmocka_unit_test_setup_teardown(connections_received_by_another_thread_count, setup,
		                                teardown),
		cmocka_unit_test_setup_teardown(connections_handed_over_again_count, setup, teardown),
		cmocka_unit_test_setup_teardown(a_table_is_read_again_where_its_process_changes_it, setup,
		                                teardown),
		cmocka_unit_test_setup_teardown(groups_have_an_order, setup, teardown),
		cmocka_unit_test_setup_teardown(a_source_is_counted_over_all_groups, setup, teardown),
		cmocka_unit_test_setup_teardown(a_group_without_a_table_counts_no_sources, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_is_counted_without_own_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(the_supervisor_counts_no_sources, setup, teardown),
		cmocka_unit_test_setup_teardown(queue_messages_without_a_peer_count_no_source, setup,
		                                teardown),
		cmocka_unit_test_setup_teardown(sources_beyond_the_table_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(each_source_can_leave_a_full_table, setup, teardown),
		cmocka_unit_test_setup_teardown(a_process_alone_counts_orphans_and_the_queue, setup,
		                                teardown),
		cmocka_unit_test(the_sum_of_capacities_does_not_bound_orphans_and_the_queue),
		cmocka_unit_test_setup_teardown(a_free_slot_wakes_a_waiting_worker, setup, teardown),
		cmocka_unit_test_setup_teardown(a_woken_worker_wakes_the_next_one, setup, teardown),
		cmocka_unit_test_setup_teardown(a_process_wakes_its_own_workers, setup, teardown),
		cmocka_unit_test_setup_teardown(refused_claims_wake_a_waiting_worker, setup, teardown),
		cmocka_unit_test_setup_teardown(changes_of_queue_and_groups_are_announced, setup, teardown),
		cmocka_unit_test_setup_teardown(the_supervisor_wakes_waiting_workers, setup, teardown),
		cmocka_unit_test_setup_teardown(the_lowest_limit_holds_until_its_group_stops, setup,
		                                teardown),
		cmocka_unit_test_setup_teardown(a_closed_group_limits_no_other, setup, teardown),
		cmocka_unit_test_setup_teardown(a_worker_that_stops_passes_the_event_on, setup, teardown),
		cmocka_unit_test_setup_teardown(a_moved_connection_wakes_a_waiting_worker, setup, teardown),
		cmocka_unit_test_setup_teardown(lists_apply_to_ip_addresses_only, setup, teardown),
		cmocka_unit_test(limits_hold_among_processes),
		cmocka_unit_test(limits_hold_among_threads),
		cmocka_unit_test_setup_teardown(a_killed_process_leaves_no_counts, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
