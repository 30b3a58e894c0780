/* test_admission.c - places and sources, over several owners, and what a lost owner held */
#include <config.h>

#include <sched.h>
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
#include <unistd.h>

#include <cmocka.h>

#include "net/admission.h"

#define OWNERS 8
#define SOURCES 1024

static const struct network_set nobody = { NULL, 0 };

static struct admission make(struct admission_shared *shared, uint32_t owner, uint32_t places, uint32_t per_source)
{
	return (struct admission) {
		.shared = shared, .allow = &nobody, .deny = &nobody,
		.max_connections = places, .max_per_source = per_source, .owner = owner,
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
	*state = admission_make(OWNERS, SOURCES);
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	admission_free(*state);
	return 0;
}

static void places_are_counted_over_all_owners(void **state)
{
	struct admission one = make(*state, 1, 3, 0), two = make(*state, 2, 3, 0);

	assert_true(admission_take_place(&one));
	assert_true(admission_take_place(&two));
	assert_true(admission_take_place(&two));
	assert_false(admission_take_place(&one));
	assert_int_equal(admission_places_taken(*state), 3);
	admission_forget_owner(*state, 2);
	assert_int_equal(admission_places_taken(*state), 1);
	assert_true(admission_take_place(&one));
	admission_give_place(&one);
	admission_give_place(&one);
	assert_int_equal(admission_places_taken(*state), 0);
}

static void a_source_is_an_ipv4_address_or_an_ipv6_64(void **state)
{
	struct admission admission = make(*state, 1, 100, 2);
	struct peer v4 = peer_of("192.0.2.1:1"), other = peer_of("192.0.2.2:1");
	struct peer v6 = peer_of("[2001:db8::1]:1"), same = peer_of("[2001:db8::ffff:1]:2"), next = peer_of("[2001:db8:0:1::1]:1");

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

static void a_lost_owner_gives_its_sources_back(void **state)
{
	struct admission one = make(*state, 1, 100, 3), two = make(*state, 2, 100, 3);
	struct peer peer = peer_of("192.0.2.1:1");

	assert_int_equal(admission_admit(&one, &peer), ADMISSION_OK);
	assert_int_equal(admission_admit(&two, &peer), ADMISSION_OK);
	assert_int_equal(admission_admit(&two, &peer), ADMISSION_OK);
	assert_int_equal(admission_admit(&one, &peer), ADMISSION_SOURCE);
	admission_forget_owner(*state, 2);
	assert_int_equal(admission_source_count(&one, &peer), 1);
	assert_int_equal(admission_admit(&one, &peer), ADMISSION_OK);
}

/* Random traffic of many sources and owners, against plain counters. */
static void the_table_agrees_with_counters(void **state)
{
	static unsigned counts[64][OWNERS];
	uint32_t random = 12345;

	memset(counts, 0, sizeof counts);
	for (int i = 0; i < 200000; i++) {
		char text[32];
		unsigned source, owner, total = 0;
		struct admission admission;
		struct peer peer;

		random = random * 1664525 + 1013904223;
		source = random >> 26;
		owner = random >> 20 & (OWNERS - 1);
		snprintf(text, sizeof text, "10.0.%u.1:9", source);
		peer = peer_of(text);
		admission = make(*state, owner, 100, 40);
		for (unsigned o = 0; o < OWNERS; o++)
			total += counts[source][o];
		assert_int_equal(admission_source_count(&admission, &peer), total);
		if (random >> 16 & 1) {
			bool ok = admission_admit(&admission, &peer) == ADMISSION_OK;

			assert_int_equal(ok, total < 40);
			counts[source][owner] += ok;
		} else if (counts[source][owner] > 0) {
			admission_leave(&admission, &peer);
			counts[source][owner]--;
		}
		if (i % 5000 == 4999) {
			admission_forget_owner(*state, owner);
			for (unsigned s = 0; s < 64; s++)
				counts[s][owner] = 0;
		}
	}
}

static void what_is_in_the_queue_counts(void **state)
{
	struct admission old = make(*state, 1, 3, 3), new = make(*state, 2, 3, 3);
	struct peer peer = peer_of("192.0.2.1:1");

	for (int i = 0; i < 3; i++) {
		assert_true(admission_take_place(&old));
		assert_int_equal(admission_admit(&old, &peer), ADMISSION_OK);
	}
	for (int i = 0; i < 2; i++)
		admission_enqueue(&old, &peer);
	assert_false(admission_take_place(&new));
	assert_int_equal(admission_admit(&new, &peer), ADMISSION_SOURCE);
	/* the old one has only the third now */
	admission_forget_owner(*state, 1);
	assert_int_equal(admission_places_taken(*state), 2);
	assert_int_equal(admission_source_count(&new, &peer), 2);

	assert_true(admission_hold_place(&new, 9));
	admission_dequeue(&new, &peer);
	assert_int_equal(admission_places_taken(*state), 2);
	assert_int_equal(admission_source_count(&new, &peer), 2);
	/* the new one has one of them, the queue the other */
	admission_forget_queue(*state);
	assert_int_equal(admission_places_taken(*state), 1);
	assert_int_equal(admission_source_count(&new, &peer), 1);
	admission_leave(&new, &peer);
	admission_give_place(&new);
	assert_int_equal(admission_places_taken(*state), 0);
	assert_int_equal(admission_source_count(&new, &peer), 0);
}

static void what_cannot_be_sent_is_its_owners_again(void **state)
{
	struct admission admission = make(*state, 1, 3, 3);
	struct peer peer = peer_of("192.0.2.1:1");

	assert_true(admission_take_place(&admission));
	assert_int_equal(admission_admit(&admission, &peer), ADMISSION_OK);
	admission_enqueue(&admission, &peer);
	admission_take_back(&admission, &peer);
	admission_enqueue(&admission, &peer);
	admission_forget_queue(*state); /* in the wrong moment: it is not lost for ever */
	admission_take_back(&admission, &peer);
	admission_forget_queue(*state);
	assert_int_equal(admission_places_taken(*state), 1);
	assert_int_equal(admission_source_count(&admission, &peer), 1);
	admission_forget_owner(*state, 1);
	assert_int_equal(admission_places_taken(*state), 0);
	assert_int_equal(admission_source_count(&admission, &peer), 0);
}

/* Who counts no sources takes one out of the queue that another, who does, has put there; and the other way round. */
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

#define KILLED 300
#define SMALL_TABLE 32
#define STEADY 5

static void numbered_peer(struct peer *peer, unsigned number)
{
	char text[32];

	snprintf(text, sizeof text, "10.0.0.%u:9", number);
	*peer = peer_of(text);
}

/* Come and go as fast as can be, until killed. */
static void __attribute__((noreturn)) come_and_go(const struct admission *admission, const struct peer peers[], _Atomic unsigned *done)
{
	for (;;) {
		for (unsigned i = 0; i < 2 * STEADY; i++)
			(void) admission_admit(admission, &peers[i * 7 % (2 * STEADY)]);
		for (unsigned i = 0; i < 2 * STEADY; i++)
			admission_leave(admission, &peers[i * 3 % (2 * STEADY)]);
		atomic_fetch_add(done, 1);
	}
}

/* One that is killed in the middle, with the lock in hand, breaks nobody else's counts. */
static void whoever_is_killed_leaves_the_table_right(void **state)
{
	struct admission_shared *shared = admission_make(OWNERS, SMALL_TABLE);
	struct admission steady = make(shared, 1, 100, 100), killed = make(shared, 2, 100, 100);
	_Atomic unsigned *done = mmap(NULL, sizeof *done, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct peer peers[SMALL_TABLE];
	unsigned fit = 0;

	(void) state;
	assert_non_null(shared);
	assert_true(done != MAP_FAILED);
	for (unsigned i = 0; i < SMALL_TABLE; i++)
		numbered_peer(&peers[i], i + 1);
	for (unsigned i = 0; i < STEADY; i++)
		assert_int_equal(admission_admit(&steady, &peers[i]), ADMISSION_OK);
	for (unsigned round = 0; round < KILLED; round++) {
		unsigned before = atomic_load(done);
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0)
			come_and_go(&killed, peers, done);
		while (atomic_load(done) - before < 1 + round % 7)
			sched_yield();
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		admission_forget_owner(shared, killed.owner);
		for (unsigned i = 0; i < 2 * STEADY; i++)
			assert_int_equal(admission_source_count(&steady, &peers[i]), i < STEADY);
	}
	for (unsigned i = 0; i < STEADY; i++)
		admission_leave(&steady, &peers[i]);
	/* and none of it is lost */
	while (admission_admit(&steady, &peers[fit]) == ADMISSION_OK)
		fit++;
	assert_int_equal(fit, (SMALL_TABLE - 1) / 4 * 3);
	munmap(done, sizeof *done);
	admission_free(shared);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(places_are_counted_over_all_owners, setup, teardown),
		cmocka_unit_test_setup_teardown(a_source_is_an_ipv4_address_or_an_ipv6_64, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lost_owner_gives_its_sources_back, setup, teardown),
		cmocka_unit_test_setup_teardown(the_table_agrees_with_counters, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_in_the_queue_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_sent_is_its_owners_again, setup, teardown),
		cmocka_unit_test_setup_teardown(the_limit_may_change_while_one_is_in_the_queue, setup, teardown),
		cmocka_unit_test(whoever_is_killed_leaves_the_table_right),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
