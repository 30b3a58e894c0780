/* SPDX-License-Identifier: ISC */
/* test_state.c - the record of a connection: preserved values, invalid records */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "echo/state.h"

static void a_record_preserves_a_connection(void **state)
{
	struct peer peer = { .family = AF_INET6, .port = 4711, .scope = 2, .address = { 0xfe, 0x80, 1 } },
		    back_peer;
	struct proxied proxied = { .proxy = { .family = AF_INET, .port = 9, .address = { 192, 0, 2, 9 } },
		                   .header_left = 65535 },
		       back_proxied;
	struct conn conn, back;
	struct state message;
	int64_t active;
	uint32_t owed;

	(void) state;
	conn_init(&conn, 1000);
	conn.echoed = 77;
	conn.eof = true;
	conn.header = true;
	assert_non_null(conn_restore(&conn, 5));
	state_encode(&message, &conn, &peer, &proxied, 500, 0); /* a tick rounded down to before the start */
	assert_int_equal(state_decode(&message, sizeof message, 2000, &back, &back_peer, &back_proxied,
	                              &active, &owed),
	                 0);
	assert_int_equal(back.since, 1000);
	assert_int_equal(active, 1000);
	assert_int_equal(back.echoed, 77);
	assert_true(back.eof);
	assert_true(back.header);
	assert_memory_equal(&proxied, &back_proxied, sizeof proxied);
	assert_int_equal(owed, 5);
	assert_memory_equal(&peer, &back_peer, sizeof peer);
	conn_clear(&conn);
}

static void damaged_records_are_refused(void **state)
{
	struct peer peer = { .family = AF_INET }, back_peer;
	struct proxied proxied = { .header_left = 0 }, back_proxied;
	struct conn conn, back;
	struct state message;
	int64_t active;
	uint32_t owed;

	(void) state;
	conn_init(&conn, 1000);
	for (size_t i = 0; i < sizeof message * 8; i++) {
		state_encode(&message, &conn, &peer, &proxied, 1000, 0);
		((unsigned char *) &message)[i / 8] ^= (unsigned char) (1 << i % 8);
		assert_true(state_decode(&message, sizeof message, 2000, &back, &back_peer, &back_proxied,
		                         &active, &owed) < 0);
	}
	state_encode(&message, &conn, &peer, &proxied, 1000, 0);
	for (size_t size = 0; size < sizeof message; size++)
		assert_true(state_decode(&message, size, 2000, &back, &back_peer, &back_proxied, &active,
		                         &owed) < 0);
	assert_true(state_decode(&message, sizeof message, 999, &back, &back_peer, &back_proxied, &active,
	                         &owed) < 0);
}

/* --- values ---------------------------------------------------------------------------- */

#define SINCE 1000
#define ACTIVE 1500
#define NOW 2000

/* A valid record. */
static struct state record_make(void)
{
	struct peer peer = { .family = AF_INET6 };
	struct proxied proxied = { .header_left = 0 };
	struct state record;
	struct conn conn;

	conn_init(&conn, SINCE);
	state_encode(&record, &conn, &peer, &proxied, ACTIVE, 0);
	return record;
}

/* Set the checksum as a writer of such a record would: FNV-1a over all other bytes. */
static void set_check(uint8_t *record, size_t size)
{
	size_t at = offsetof(struct state, check);
	uint32_t sum = UINT32_C(2166136261);

	for (size_t i = 0; i < size; i++)
		if (i < at || i >= at + sizeof sum)
			sum = (sum ^ record[i]) * UINT32_C(16777619);
	memcpy(record + at, &sum, sizeof sum);
}

static int decode(struct state record)
{
	struct proxied proxied;
	struct peer peer;
	struct conn conn;
	int64_t active;
	uint32_t owed;

	set_check((uint8_t *) &record, sizeof record);
	return state_decode(&record, sizeof record, NOW, &conn, &peer, &proxied, &active, &owed);
}

/* Decode a valid record in which some fields were set. */
#define DECODE_WITH(...) \
	({ \
		struct state with = record_make(); \
		__VA_ARGS__; \
		decode(with); \
	})

static void unknown_flags_are_another_version(void **state)
{
	(void) state;
	assert_int_equal(record_make().flags, 0);
	assert_int_equal(decode(record_make()), 0);
	assert_int_equal(DECODE_WITH(with.flags = STATE_EOF), 0);
	assert_int_equal(DECODE_WITH(with.flags = STATE_UNADMITTED), 0);
	assert_int_equal(DECODE_WITH(with.flags = STATE_HEADER, with.proxy_family = AF_INET), 0);
	for (uint32_t flag = STATE_HEADER << 1; flag; flag <<= 1)
		assert_int_equal(DECODE_WITH(with.flags = flag), -ENOTSUP);
}

static void values_outside_their_range_are_refused(void **state)
{
	(void) state;
	assert_int_equal(DECODE_WITH(with.reserved = 1), -EINVAL);
	assert_int_equal(DECODE_WITH(with.reserved_too = 1), -EINVAL);
	assert_int_equal(DECODE_WITH(with.owed = STATE_OWED_MAX), 0);
	assert_int_equal(DECODE_WITH(with.owed = STATE_OWED_MAX + 1), -EINVAL);
	assert_int_equal(DECODE_WITH(with.header_left = UINT16_MAX), 0);
	assert_int_equal(DECODE_WITH(with.header_left = UINT16_MAX + 1), -EINVAL);
	/* a header is expected from proxies only */
	assert_int_equal(DECODE_WITH(with.flags = STATE_HEADER), -EINVAL);
}

static void families_are_those_of_clients_and_proxies(void **state)
{
	(void) state;
	for (unsigned family = 0; family <= UINT16_MAX; family++) {
		bool internet = family == AF_INET || family == AF_INET6;
		bool client = internet || family == AF_UNIX || family == AF_VSOCK;

		assert_int_equal(DECODE_WITH(with.family = (uint16_t) family), client ? 0 : -EINVAL);
		assert_int_equal(DECODE_WITH(with.proxy_family = (uint16_t) family),
		                 internet || family == 0 ? 0 : -EINVAL);
	}
}

static void times_are_in_order(void **state)
{
	(void) state;
	assert_int_equal(DECODE_WITH(with.since = 0), 0);
	assert_int_equal(DECODE_WITH(with.since = -1), -EINVAL);
	assert_int_equal(DECODE_WITH(with.since = ACTIVE), 0);
	assert_int_equal(DECODE_WITH(with.since = ACTIVE + 1), -EINVAL);
	assert_int_equal(DECODE_WITH(with.active = NOW), 0);
	assert_int_equal(DECODE_WITH(with.active = NOW + 1), -EINVAL);
	assert_int_equal(DECODE_WITH(with.since = NOW, with.active = NOW), 0);
	assert_int_equal(DECODE_WITH(with.since = NOW + 1, with.active = NOW + 1), -EINVAL);
	assert_int_equal(DECODE_WITH(with.since = NOW + 1), -EINVAL);
}

static void sizes_are_checked_before_the_record_is_read(void **state)
{
	struct state record = record_make();

	(void) state;
	assert_int_equal(state_size(&record, sizeof record), sizeof record);
	assert_int_equal(state_size(&record, sizeof record + 1), sizeof record);
	assert_int_equal(state_size(&record, sizeof record - 1), -EINVAL);
	assert_int_equal(state_size(&record, STATE_SIZE_MIN - 1), -EINVAL);
	record.size = STATE_SIZE_MIN;
	assert_int_equal(state_size(&record, STATE_SIZE_MIN), STATE_SIZE_MIN);
	record.size = STATE_SIZE_MIN - 1;
	assert_int_equal(state_size(&record, STATE_SIZE_MIN), -EINVAL);
	record.size = STATE_SIZE_MAX;
	assert_int_equal(state_size(&record, STATE_SIZE_MAX), STATE_SIZE_MAX);
	record.size = STATE_SIZE_MAX + 1;
	assert_int_equal(state_size(&record, STATE_SIZE_MAX + 1), -EINVAL);
	record.version++;
	assert_int_equal(state_size(&record, sizeof record), -ENOTSUP);
	record.magic++;
	assert_int_equal(state_size(&record, sizeof record), -EINVAL);
}

/* A later version may have appended fields, which are ignored; an earlier one may lack the last fields. */
static void longer_and_shorter_records_are_read(void **state)
{
	uint8_t bytes[STATE_SIZE_MAX];
	struct state record = record_make();
	struct proxied proxied;
	struct peer peer;
	struct conn conn;
	int64_t active;
	uint32_t owed;

	(void) state;
	for (size_t size = STATE_SIZE_MIN; size <= STATE_SIZE_MAX; size++) {
		memset(bytes, 0xee, sizeof bytes);
		record.size = (uint16_t) size;
		record.owed = 5;
		memcpy(bytes, &record, size < sizeof record ? size : sizeof record);
		set_check(bytes, size);
		assert_int_equal(state_decode(bytes, size, NOW, &conn, &peer, &proxied, &active, &owed), 0);
		assert_int_equal(owed, 5);
		assert_int_equal(proxied.header_left, 0);
		/* no bytes may follow the record */
		assert_int_equal(state_decode(bytes, size + 1, NOW, &conn, &peer, &proxied, &active, &owed),
		                 -EINVAL);
	}
}

static void records_say_whether_the_source_was_admitted(void **state)
{
	struct peer peer = { .family = AF_INET };
	struct proxied proxied = { .header_left = 0 };
	struct state record = record_make();
	struct conn conn;

	(void) state;
	assert_false(state_is_unadmitted(&record));
	conn_init(&conn, SINCE);
	conn.eof = true;
	state_encode(&record, &conn, &peer, &proxied, ACTIVE, 0);
	assert_false(state_is_unadmitted(&record));
	state_encode(&record, &conn, &peer, &proxied, ACTIVE, STATE_UNADMITTED);
	assert_true(state_is_unadmitted(&record));
	assert_int_equal(record.flags, STATE_EOF | STATE_UNADMITTED);
	assert_int_equal(record.active, ACTIVE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_record_preserves_a_connection),
		cmocka_unit_test(damaged_records_are_refused),
		cmocka_unit_test(unknown_flags_are_another_version),
		cmocka_unit_test(values_outside_their_range_are_refused),
		cmocka_unit_test(families_are_those_of_clients_and_proxies),
		cmocka_unit_test(times_are_in_order),
		cmocka_unit_test(sizes_are_checked_before_the_record_is_read),
		cmocka_unit_test(longer_and_shorter_records_are_read),
		cmocka_unit_test(records_say_whether_the_source_was_admitted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
