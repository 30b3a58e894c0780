/* SPDX-License-Identifier: ISC */
/* test_preserve.c - number of messages that the supervisor takes from the queue in one call */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include "daemon/preserve.h"
#include "models/handover/handover.h"

/* A sender that keeps the queue filled with damaged messages must not keep the caller. */
static void test_take_is_bounded(void **state)
{
	static struct stats_slot slot;
	static const char rubbish[7];
	struct preserve preserve;
	struct new_conn rest;
	unsigned sent = 0;
	int inbox, outbox;

	(void) state;
	assert_int_equal(handover_pair(&inbox, &outbox), 0);
	preserve_init(&preserve, 0, 1, &slot);
	while (sent < 150 && send(outbox, rubbish, sizeof rubbish, MSG_DONTWAIT) >= 0)
		sent++;
	assert_int_equal(sent, 150);
	assert_int_equal(preserve_take(&preserve, inbox, 100, &rest), 1);
	assert_int_equal(atomic_load(&slot.counters[STAT_DAMAGED]), 100);
	assert_int_equal(rest.fd, -1);
	assert_int_equal(preserve_take(&preserve, inbox, 100, &rest), 0);
	assert_int_equal(atomic_load(&slot.counters[STAT_DAMAGED]), 150);
	preserve_clear(&preserve);
	close(inbox);
	close(outbox);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_take_is_bounded) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
