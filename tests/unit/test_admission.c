/* SPDX-License-Identifier: ISC */
/* test_admission.c - connection slots and sources, over several processes, and what a lost process held */
#include <config.h>

#include <setjmp.h>
#include <pthread.h>
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

#include "net/admission.h"

#define PROCESSES 8
#define CAPACITY 1000
#define SOURCES 2048

static const struct cidr_set nobody = { NULL, 0 };

/* What the supervisor and the processes of one group share; each test has its own. */
struct shared {
	struct admission_shared admission;
	_Atomic uint32_t generations[PROCESSES];
	char memory[PROCESSES][sizeof(struct admission_process) + SOURCES * sizeof(struct admission_source)];
};

static struct admission_process *process_of(struct shared *shared, uint32_t index)
{
	return (struct admission_process *) (void *) shared->memory[index];
}

static void process_start(struct shared *shared, uint32_t index)
{
	admission_process_start(&shared->admission, 0, process_of(shared, index),
	                        &shared->generations[index]);
}

static void process_end(struct shared *shared, uint32_t index)
{
	admission_process_end(&shared->admission, 0, process_of(shared, index), &shared->generations[index]);
}

/* Processes 1 to 7 run. */
static struct shared *shared_make(uint32_t capacity)
{
	struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
	                             -1, 0);
	struct admission_group group;

	assert_true(shared != MAP_FAILED);
	assert_int_equal(admission_open(&shared->admission), 0);
	atomic_init(&group.processes, PROCESSES);
	group.capacity = capacity;
	group.sources = SOURCES;
	group.stride = sizeof shared->memory[0];
	group.first = shared->memory[0];
	group.generations = shared->generations;
	admission_group_open(&shared->admission, 0, &group);
	for (uint32_t i = 1; i < PROCESSES; i++)
		process_start(shared, i);
	return shared;
}

static void shared_free(struct shared *shared)
{
	admission_close(&shared->admission);
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

/* The sum of all capacities is below the limit: but one process alone must not exceed it either. */
static void a_process_alone_has_the_limit_too(void **state)
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
	/* nor does its successor have them */
	process_start(*state, 2);
	assert_int_equal(admission_source_count(&one, &peer), 2);
	assert_int_equal(admission_admit(&two, &peer), ADMISSION_OK);
	assert_int_equal(admission_source_count(&one, &peer), 3);
}

/* Random traffic of many sources and processes, against plain counters. */
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

static void what_is_in_the_queue_counts(void **state)
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
	/* the old one has only the third now */
	process_end(shared, 1);
	assert_int_equal(taken(shared), 2);
	assert_int_equal(admission_source_count(&new, &peer), 0);

	assert_true(admission_slot_acquire_capped(&new, 9));
	admission_dequeue(&new, &peer);
	assert_int_equal(taken(shared), 2);
	assert_int_equal(admission_source_count(&new, &peer), 1);
	/* the new one has one of them, the other is lost */
	admission_queue_settle(&shared->admission, 0);
	assert_int_equal(taken(shared), 1);
	assert_false(admission_queue_pending(&new));
	admission_leave(&new, &peer);
	admission_slot_release(&new);
	assert_int_equal(taken(shared), 0);
	assert_int_equal(admission_source_count(&new, &peer), 0);
}

static void what_an_earlier_daemon_left_in_the_queue_counts(void **state)
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

static void what_cannot_be_sent_stays(void **state)
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

/* A process without the limit takes a connection out of the queue that another one has put there with it, and
 * back. */
static void the_limit_may_change_while_one_is_in_the_queue(void **state)
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

/* Whatever a process writes into its own counts, others lose no more than what it can hold. */
static void a_process_cannot_claim_more_than_it_can_hold(void **state)
{
	struct shared *shared = shared_make(1);
	struct admission one = make(shared, 1, 4, 2);
	struct peer peer = peer_of("192.0.2.1:1");
	uint32_t random = 99;

	(void) state;
	for (int round = 0; round < 200; round++) {
		for (size_t i = 0; i < sizeof shared->memory[2] / 4; i++) {
			random = random * 1664525 + 1013904223;
			memcpy(&shared->memory[2][4 * i], &random, 4);
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

/* --- several at once ---------------------------------------------------------------------- */

#define ROUNDS 20000 /* of two; several that stand in each other's way all the time have fewer */

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

/* As a process would: take the last slot, or the last connection of the source, and give it back. */
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

/* `contenders` processes at once; never more than two are inside, and two are never refused. */
static void contest(bool by_source, uint32_t contenders)
{
	struct contest contest = { .shared = shared_make(CAPACITY), .by_source = by_source,
	                           .rounds = contenders > 2 ? ROUNDS / 40 : ROUNDS };
	struct contender all[PROCESSES];

	for (uint32_t i = 0; i < contenders; i++) {
		all[i] = (struct contender) { .contest = &contest, .index = 1 + i };
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
	contest(false, 2);
	contest(true, 2);
	contest(false, 5);
	contest(true, 5);
}

/* A process that is killed in the middle, with its table half changed, breaks nobody else's counts. */
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

static void a_killed_process_leaves_nothing(void **state)
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
			nanosleep(&moment, NULL); /* with sched_yield(2), for longer than a time slice of each busy process */
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
		cmocka_unit_test_setup_teardown(a_process_alone_has_the_limit_too, setup, teardown),
		cmocka_unit_test_setup_teardown(a_source_is_an_ipv4_address_or_an_ipv6_64, setup, teardown),
		cmocka_unit_test(counts_vsock_by_machine),
		cmocka_unit_test_setup_teardown(a_lost_process_gives_its_sources_back, setup, teardown),
		cmocka_unit_test_setup_teardown(the_tables_agree_with_counters, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_in_the_queue_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(what_an_earlier_daemon_left_in_the_queue_counts, setup,
		                                teardown),
		cmocka_unit_test_setup_teardown(a_full_process_takes_no_more_from_the_queue, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_sent_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(the_limit_may_change_while_one_is_in_the_queue, setup,
		                                teardown),
		cmocka_unit_test(a_process_cannot_claim_more_than_it_can_hold),
		cmocka_unit_test(limits_hold_among_processes),
		cmocka_unit_test_setup_teardown(a_killed_process_leaves_nothing, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
