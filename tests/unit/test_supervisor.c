/* SPDX-License-Identifier: ISC */
/* test_supervisor.c - the supervisor corrects the count of connections in the queue */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/list.h"
#include "daemon/supervisor_state.h"
#include "models/handover/handover.h"

#define BEGIN (1000 * USEC_PER_SEC) /* the time of the first call */

struct fixture {
	struct supervisor supervisor;
	struct admission_shared *shared;
};

static int setup(void **state)
{
	static struct fixture fixture;
	struct crew_context *context = &fixture.supervisor.context;

	fixture = (struct fixture) { .supervisor = { .settle_at = INT64_MAX, .unsettled = true } };
	if (scoreboard_make(&context->scoreboard, 1000) < 0 ||
	    handover_pair(&context->inbox, &context->outbox) < 0)
		return -1;
	list_init(&fixture.supervisor.crews);
	list_init(&fixture.supervisor.restore.overflow.packs);
	fixture.shared = &scoreboard_shared(context->scoreboard)->admission;
	admission_queue_begin(fixture.shared);
	*state = &fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	close(fixture->supervisor.context.inbox);
	close(fixture->supervisor.context.outbox);
	scoreboard_free(fixture->supervisor.context.scoreboard);
	return 0;
}

static void test_worker_that_has_not_counted_yet(void **state)
{
	struct fixture *fixture = *state;
	struct supervisor *supervisor = &fixture->supervisor;

	/* a worker has taken the only connection out of the queue, and will count it next */
	fixture->shared->supervisor.sent = 1;
	supervisor_settle_queue(supervisor, BEGIN);
	assert_int_equal(admission_slots_taken(fixture->shared), 1);
	assert_true(supervisor->unsettled);
	fixture->shared->supervisor.received++;
	/* an old crew sends one more */
	fixture->shared->supervisor.sent++;
	assert_int_equal(admission_slots_taken(fixture->shared), 1);
}

static void test_counts_that_agree(void **state)
{
	struct fixture *fixture = *state;

	fixture->shared->supervisor.sent = fixture->shared->supervisor.received = 1;
	supervisor_settle_queue(&fixture->supervisor, BEGIN);
	assert_false(fixture->supervisor.unsettled);
	assert_false(fixture->shared->queue_in_use);
}

static void test_connection_lost_with_a_process(void **state)
{
	struct fixture *fixture = *state;
	struct supervisor *supervisor = &fixture->supervisor;

	fixture->shared->supervisor.sent = 1;
	supervisor_settle_queue(supervisor, BEGIN);
	supervisor_settle_queue(supervisor, BEGIN + SETTLE_INTERVAL - 1);
	assert_int_equal(admission_slots_taken(fixture->shared), 1);
	supervisor_settle_queue(supervisor, BEGIN + SETTLE_INTERVAL);
	assert_int_equal(admission_slots_taken(fixture->shared), 0);
	assert_false(supervisor->unsettled);
	assert_int_equal(supervisor->settle_at, INT64_MAX);
}

/* The interval begins again when the queue has contained a connection. */
static void test_queue_is_used_again(void **state)
{
	struct fixture *fixture = *state;
	struct supervisor *supervisor = &fixture->supervisor;
	char byte;

	fixture->shared->supervisor.sent = 1;
	supervisor_settle_queue(supervisor, BEGIN);
	fixture->shared->supervisor.sent = 2;
	assert_int_equal(write(supervisor->context.outbox, "", 1), 1);
	supervisor_settle_queue(supervisor, BEGIN + SETTLE_INTERVAL);
	assert_int_equal(read(supervisor->context.inbox, &byte, 1), 1);
	supervisor_settle_queue(supervisor, BEGIN + 2 * SETTLE_INTERVAL);
	assert_int_equal(admission_slots_taken(fixture->shared), 2);
	supervisor_settle_queue(supervisor, BEGIN + 3 * SETTLE_INTERVAL);
	assert_int_equal(admission_slots_taken(fixture->shared), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_worker_that_has_not_counted_yet, setup, teardown),
		cmocka_unit_test_setup_teardown(test_counts_that_agree, setup, teardown),
		cmocka_unit_test_setup_teardown(test_connection_lost_with_a_process, setup, teardown),
		cmocka_unit_test_setup_teardown(test_queue_is_used_again, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
