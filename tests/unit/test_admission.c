/* test_admission.c - places and sources, over several owners, and what a lost owner held */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(places_are_counted_over_all_owners, setup, teardown),
		cmocka_unit_test_setup_teardown(a_source_is_an_ipv4_address_or_an_ipv6_64, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lost_owner_gives_its_sources_back, setup, teardown),
		cmocka_unit_test_setup_teardown(the_table_agrees_with_counters, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
