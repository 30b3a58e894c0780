/* SPDX-License-Identifier: ISC */
/* test_admission_order.c - a connection that moves between processes is counted at every moment
 *
 * One process adds up the connections of all, while a connection moves from the process of an old crew to the
 * queue and to a process of the new crew. The sum must include the connection, whichever steps of its move
 * happen between the accesses of the process to shared memory.
 */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void access_begins(void);

#define BEFORE_ACCESS() access_begins()
#include "atomics.h"

/* This code replaces the object of libechod.a. */
#include "../../src/net/admission.c"

#define OLD 0 /* groups */
#define NEW 1
#define CAPACITY 10

static const struct cidr_set none = { NULL, 0 };

static struct {
	struct admission_shared shared;
	/* process 1 of the new crew is the reader */
	struct admission_process process[2][2];
	_Atomic uint32_t generations[2][2];
} all;

static struct admission of(uint32_t group, uint32_t index)
{
	return (struct admission) {
		.shared = &all.shared,
		.own = &all.process[group][index],
		.group = group,
		.index = index,
		.allow = &none,
		.deny = &none,
		.max_connections = 1,
	};
}

static void crew_begins(uint32_t group)
{
	struct admission_group layout = { .capacity = CAPACITY,
		                          .max_connections = 1,
		                          .stride = sizeof all.process[0][0],
		                          .first = (const char *) all.process[group],
		                          .generations = all.generations[group] };

	atomic_init(&layout.processes, 2);
	admission_group_open(&all.shared, group, &layout);
	for (unsigned i = 0; i < 2; i++)
		admission_process_start(&all.shared, group, &all.process[group][i],
		                        &all.generations[group][i]);
}

/* --- the steps of a connection ---------------------------------------------------------- */

static void old_crew_is_stopped(void)
{
	admission_group_stopping(&all.shared, OLD);
}

static void old_process_sends(void)
{
	const struct admission old = of(OLD, 0);

	admission_enqueue(&old, NULL);
}

static void it_cannot_be_sent(void)
{
	const struct admission old = of(OLD, 0);

	admission_enqueue_undo(&old, NULL);
}

static void old_process_ends(void)
{
	admission_process_end(&all.shared, OLD, &all.process[OLD][0], &all.generations[OLD][0]);
}

static void old_crew_ends(void)
{
	admission_process_end(&all.shared, OLD, &all.process[OLD][1], &all.generations[OLD][1]);
	admission_group_close(&all.shared, OLD);
}

static void queue_is_counted(void)
{
	admission_queue_settle(&all.shared, 1);
}

static void new_process_takes_slot(void)
{
	const struct admission new = of(NEW, 0);

	(void) admission_slot_acquire_capped(&new, CAPACITY);
}

static void new_process_receives(void)
{
	const struct admission new = of(NEW, 0);

	admission_dequeue(&new, NULL);
}

static void empty_queue_is_counted(void)
{
	admission_queue_settle(&all.shared, 0);
}

static void new_crew_is_stopped(void)
{
	admission_group_stopping(&all.shared, NEW);
}

static void new_process_sends(void)
{
	const struct admission new = of(NEW, 0);

	admission_enqueue(&new, NULL);
}

static void (*const steps[])(void) = {
	old_crew_is_stopped,  old_process_sends,      it_cannot_be_sent,   old_process_sends,
	old_process_ends,     old_crew_ends,          queue_is_counted,    new_process_takes_slot,
	new_process_receives, empty_queue_is_counted, new_crew_is_stopped, new_process_sends,
};

/* Maximum number of steps that pass while the reader reads. */
#define SPAN 3

#define STEPS (sizeof steps / sizeof steps[0])

/* --- the reader ------------------------------------------------------------------------- */

/* The other processes continue before access `at[i]` of the reader, up to step `until[i]`. */
static struct {
	bool reading;
	unsigned accesses, at[2], until[2], done;
} order;

static void go_on(unsigned until)
{
	bool before = order.reading;

	order.reading = false;
	while (order.done < until)
		steps[order.done++]();
	order.reading = before;
}

/* Number of times that the reader has added 1 to its count. */
static struct {
	bool counting;
	uint32_t last;
	unsigned additions;
} seen;

static void reader_count_seen(void)
{
	uint32_t now = atomic_load_explicit(&all.process[NEW][1].connections, memory_order_relaxed);

	seen.additions += now > seen.last;
	seen.last = now;
}

static void access_begins(void)
{
	if (seen.counting)
		reader_count_seen();
	if (!order.reading)
		return;
	for (unsigned i = 0; i < 2; i++)
		if (order.accesses == order.at[i])
			go_on(order.until[i]);
	order.accesses++;
}

/* Begin with a connection of the old crew, of which `step` steps have passed. */
static void begin(unsigned step)
{
	const struct admission old = of(OLD, 0);

	memset(&all, 0, sizeof all);
	all.shared.slot_fd = -1;
	crew_begins(OLD);
	assert_true(admission_slot_acquire(&old));
	crew_begins(NEW);
	order.done = order.accesses = 0;
	go_on(step);
	order.reading = true;
}

static bool sees_connection(void)
{
	return admission_slots_taken(&all.shared) > 0;
}

static bool is_refused(void)
{
	const struct admission reader = of(NEW, 1);

	return !admission_slot_acquire(&reader);
}

/* Returns the number of accesses of the reader. */
static unsigned check_order(unsigned step, bool (*holds)(void))
{
	begin(step);
	if (!holds())
		fail_msg("missed: after step %u; before access %u up to step %u, before access %u up to step "
		         "%u",
		         step, order.at[0], order.until[0], order.at[1], order.until[1]);
	order.reading = false;
	return order.accesses;
}

static void check_all_orders(bool (*holds)(void))
{
	for (unsigned step = 0; step <= STEPS; step++) {
		unsigned end = (unsigned) lesser(step + SPAN, STEPS);

		for (order.until[0] = step; order.until[0] <= end; order.until[0]++)
			for (order.until[1] = order.until[0]; order.until[1] <= end; order.until[1]++)
				for (unsigned n = order.at[0] = 0; order.at[0] <= n; order.at[0]++)
					for (order.at[1] = order.at[0]; order.at[1] <= n; order.at[1]++)
						n = check_order(step, holds);
	}
}

static void the_sum_includes_the_connection(void **state)
{
	(void) state;
	check_all_orders(sees_connection);
}

static void the_slot_of_the_connection_is_not_free(void **state)
{
	(void) state;
	check_all_orders(is_refused);
}

/* A later process withdraws, and waits without adding itself again: an earlier one, which would see each
 * addition, could not take the slot. */
static void a_process_waits_for_earlier_processes(void **state)
{
	(void) state;
	begin(0);
	order.reading = false;
	atomic_store_explicit(&all.process[OLD][0].trying, 1, memory_order_seq_cst);
	seen.counting = true;
	assert_true(is_refused());
	seen.counting = false;
	/* one decision without the counts of others, and one with them */
	assert_int_equal(seen.additions, 2);
	assert_int_equal(atomic_load_explicit(&all.process[NEW][1].connections, memory_order_relaxed), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_sum_includes_the_connection),
		cmocka_unit_test(the_slot_of_the_connection_is_not_free),
		cmocka_unit_test(a_process_waits_for_earlier_processes),
	};

	return cmocka_run_group_tests_name("admission_order", tests, NULL, NULL);
}
