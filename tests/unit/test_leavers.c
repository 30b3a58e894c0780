/* test_leavers.c - connections that wait in the handover queue when no successor will come: what one call takes */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "models/handover.h"
#include "models/leavers.h"

/* A sender that keeps the queue filled with damaged messages must not keep the caller. */
static void test_take_is_bounded(void **state)
{
	static struct stats_slot slot;
	struct leavers leavers;
	unsigned count = 0, sent = 0;
	int inbox, outbox;

	(void) state;
	assert_int_equal(handover_pair(&inbox, &outbox), 0);
	assert_int_equal(leavers_open(&leavers, 65536, &slot), 0);
	for (;;) {
		static const char rubbish[7];
		ssize_t n = send(outbox, rubbish, sizeof rubbish, MSG_DONTWAIT);

		if (n < 0)
			break;
		sent++;
		if (sent > 3 * LEAVERS_BATCH)
			break;
	}
	if (sent <= LEAVERS_BATCH)
		fail_msg("the queue takes %u messages only", sent);
	for (unsigned left = sent; left > LEAVERS_BATCH; left -= LEAVERS_BATCH)
		assert_true(leavers_take(&leavers, inbox, &count));
	while (leavers_take(&leavers, inbox, &count))
		;
	assert_int_equal(count, 0);
	assert_int_equal(atomic_load(&slot.counters[STAT_DAMAGED]), sent);
	assert_false(leavers_serve(&leavers));
	assert_int_equal(leavers_cut(&leavers), 0);
	close(inbox);
	close(outbox);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_take_is_bounded) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
