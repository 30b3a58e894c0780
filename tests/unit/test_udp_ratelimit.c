/* SPDX-License-Identifier: ISC */
/* test_udp_ratelimit.c - the table of udp-rate: its file, its key, and the arithmetic of one bucket */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "echo/udp_ratelimit.h"
#include "failing.h"

#define SECOND INT64_C(1000000)
#define MFD_NOEXEC_SEAL_BIT 8U

static struct udp_ratelimit *table_open(void)
{
	struct udp_ratelimit *table;
	int fd = udp_ratelimit_make();

	assert_true(fd >= 0);
	assert_int_equal(udp_ratelimit_map(&table, fd), 0);
	close(fd);
	return table;
}

/* --- the file -------------------------------------------------------------------------- */

static void file_has_a_fixed_size(void **state)
{
	int fd = udp_ratelimit_make();

	(void) state;
	assert_int_equal(lseek(fd, 0, SEEK_END), sizeof(struct udp_ratelimit));
	assert_int_equal(ftruncate(fd, sizeof(struct udp_ratelimit) + 1), -1);
	assert_int_equal(ftruncate(fd, sizeof(struct udp_ratelimit) - 1), -1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
}

static int make_without_noexec(void)
{
	struct udp_ratelimit *table;
	int fd;

	if (!call_fails(SYS_memfd_create, 1, MFD_NOEXEC_SEAL_BIT, MFD_NOEXEC_SEAL_BIT, EINVAL))
		return 77;
	fd = udp_ratelimit_make();
	if (fd < 0 || udp_ratelimit_map(&table, fd) < 0)
		return 1;
	return udp_ratelimit_take(table, 5, 0, SECOND, 9) == 5 ? 0 : 2;
}

static int make_without_descriptors(void)
{
	return call_fails(SYS_memfd_create, 0, 0, 0, EMFILE) ? udp_ratelimit_make() != -EMFILE : 77;
}

static int make_without_space(void)
{
	return call_fails(CALL_FTRUNCATE, 0, 0, 0, EFBIG) ? udp_ratelimit_make() != -EFBIG : 77;
}

static int make_without_seals(void)
{
	int next = dup(0), fd;

	close(next);
	if (!call_fails(CALL_FCNTL, 1, UINT32_MAX, F_ADD_SEALS, EPERM))
		return 77;
	if (udp_ratelimit_make() != -EPERM)
		return 1;
	fd = dup(0);
	return fd == next ? 0 : 2; /* the file was closed */
}

static int map_without_random_numbers(void)
{
	int fd = udp_ratelimit_make();
	struct udp_ratelimit *table = NULL;

	if (!call_fails(SYS_getrandom, 0, 0, 0, ENOSYS))
		return 77;
	return udp_ratelimit_map(&table, fd) == -ENOSYS && !table ? 0 : 1;
}

/* As in a daemon that was started without standard input. An old value of errno does not matter. */
static int make_as_descriptor_0(void)
{
	int open = count_descriptors();

	close(0);
	errno = EINVAL;
	if (udp_ratelimit_make() != 0 || lseek(0, 0, SEEK_END) != sizeof(struct udp_ratelimit))
		return 1;
	return count_descriptors() == open ? 0 : 2;
}

static int map_without_random_numbers_leaves_nothing(void)
{
	int r = map_without_random_numbers();

	return r == 0 && count_mappings("udp-rate") > 0 ? 1 : r;
}

static void expect_of_child(int (*check)(void))
{
	int r = in_child(check);

	if (r == 77) {
		print_message("no system call filters\n");
		skip();
	}
	assert_int_equal(r, 0);
}

static void kernels_before_6_3_lack_a_flag_of_memfd_create(void **state)
{
	(void) state;
	expect_of_child(make_without_noexec);
}

static void errors_are_returned(void **state)
{
	struct udp_ratelimit *table = NULL;

	(void) state;
	expect_of_child(make_without_descriptors);
	expect_of_child(make_without_space);
	expect_of_child(make_without_seals);
	expect_of_child(map_without_random_numbers_leaves_nothing);
	expect_of_child(make_as_descriptor_0);
	assert_int_equal(udp_ratelimit_map(&table, -1), -EBADF);
	assert_null(table);
	udp_ratelimit_unmap(NULL);
}

/* --- the key --------------------------------------------------------------------------- */

/* A key of which one half is zero is valid (one random key in 2^63). */
static void only_a_key_of_zeros_is_replaced(void **state)
{
	static const struct siphash_key keys[] = { { 0, 7 }, { 7, 0 }, { 7, 7 } };
	struct udp_ratelimit *table, *again;
	int fd = udp_ratelimit_make();

	(void) state;
	assert_int_equal(udp_ratelimit_map(&table, fd), 0);
	assert_true(table->key.low != 0 || table->key.high != 0);
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		table->key = keys[i];
		assert_int_equal(udp_ratelimit_map(&again, fd), 0);
		assert_memory_equal(&again->key, &keys[i], sizeof keys[i]);
		udp_ratelimit_unmap(again);
	}
	assert_int_equal(count_mappings("udp-rate"), 1);
	udp_ratelimit_unmap(table);
	assert_int_equal(count_mappings("udp-rate"), 0);
	close(fd);
}

static uint64_t hash_of(const struct udp_ratelimit *table, const char *text)
{
	struct addr addr;
	const char *why;

	assert_int_equal(addr_parse(&addr, text, 7, &why), 0);
	return udp_ratelimit_hash(table, &addr);
}

static void networks_are_ipv4_24_and_ipv6_48(void **state)
{
	struct addr unnamed = { .sa.sa_family = AF_UNIX, .len = sizeof(sa_family_t) }, named = unnamed;
	struct udp_ratelimit *table = table_open();

	(void) state;
	strcpy(named.un.sun_path, "/socket");
	named.len += 8;
	assert_true(udp_ratelimit_hash(table, &unnamed) == udp_ratelimit_hash(table, &named));
	assert_true(hash_of(table, "192.0.2.1") == hash_of(table, "192.0.2.255"));
	assert_true(hash_of(table, "192.0.2.1") != hash_of(table, "192.0.3.1"));
	assert_true(hash_of(table, "192.0.2.1") != hash_of(table, "193.0.2.1"));
	assert_true(hash_of(table, "[2001:db8:1::1]") == hash_of(table, "[2001:db8:1:ffff::2]"));
	assert_true(hash_of(table, "[2001:db8:1::1]") != hash_of(table, "[2001:db8:2::1]"));
	/* networks with the same first bytes, but of different families */
	assert_true(hash_of(table, "32.1.13.1") != hash_of(table, "[2001:d00::1]"));
	assert_true(hash_of(table, "0.0.0.1") != udp_ratelimit_hash(table, &named));
	assert_true(hash_of(table, "[::1]") != udp_ratelimit_hash(table, &named));
	udp_ratelimit_unmap(table);
}

/* --- a bucket -------------------------------------------------------------------------- */

static void a_bucket_holds_one_second_and_fills_evenly(void **state)
{
	struct udp_ratelimit *table = table_open();

	(void) state;
	assert_int_equal(udp_ratelimit_take(table, 0, 1, SECOND, 4000000000U), 4000000000U);
	assert_int_equal(udp_ratelimit_take(table, 4, 1, SECOND, 3), 3);
	assert_int_equal(udp_ratelimit_take(table, 4, 1, SECOND, 3), 1);
	assert_int_equal(udp_ratelimit_take(table, 4, 1, SECOND, 1), 0);
	/* one token in each quarter of a second */
	assert_int_equal(udp_ratelimit_take(table, 4, 1, SECOND + SECOND / 4 - 1, 1), 0);
	assert_int_equal(udp_ratelimit_take(table, 4, 1, SECOND + SECOND / 4, 2), 1);
	assert_int_equal(udp_ratelimit_take(table, 4, 1, SECOND + SECOND, 9), 3);
	/* other cells are not affected; the table ends at its last cell */
	assert_int_equal(udp_ratelimit_take(table, 4, UDP_RATELIMIT_CELLS - 1, SECOND, 9), 4);
	assert_int_equal(udp_ratelimit_take(table, 4, UDP_RATELIMIT_CELLS, SECOND, 9), 4);
	assert_int_equal(udp_ratelimit_take(table, 4, 1 + UDP_RATELIMIT_CELLS, SECOND + SECOND, 9), 0);
	udp_ratelimit_unmap(table);
}

/* Where a second is no multiple of the interval, the interval is rounded up. */
static void the_rate_is_never_exceeded(void **state)
{
	static const unsigned rates[] = { 1, 3, 7, 999, 1000003, 999999999 };
	struct udp_ratelimit *table = table_open();

	(void) state;
	for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
		uint64_t taken = 0;

		for (int64_t now = SECOND; now <= 11 * SECOND; now += 1000)
			taken += udp_ratelimit_take(table, rates[i], i, now, UINT32_MAX);
		/* a full bucket, and the tokens of ten seconds */
		assert_true(taken <= UINT64_C(11) * rates[i]);
		assert_true(taken >= UINT64_C(5) * rates[i]);
	}
	udp_ratelimit_unmap(table);
}

static void a_cell_limits_for_at_most_one_second(void **state)
{
	struct udp_ratelimit *table = table_open();

	(void) state;
	table->cells[3] = INT64_MAX;
	assert_int_equal(udp_ratelimit_take(table, 10, 3, SECOND, 5), 0);
	assert_int_equal(udp_ratelimit_take(table, 10, 3, SECOND + SECOND / 10, 5), 1);
	assert_int_equal(udp_ratelimit_take(table, 10, 3, 3 * SECOND, 50), 10);
	table->cells[3] = INT64_MIN;
	assert_int_equal(udp_ratelimit_take(table, 10, 3, SECOND, 50), 10);
	udp_ratelimit_unmap(table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(file_has_a_fixed_size),
		cmocka_unit_test(kernels_before_6_3_lack_a_flag_of_memfd_create),
		cmocka_unit_test(errors_are_returned),
		cmocka_unit_test(only_a_key_of_zeros_is_replaced),
		cmocka_unit_test(networks_are_ipv4_24_and_ipv6_48),
		cmocka_unit_test(a_bucket_holds_one_second_and_fills_evenly),
		cmocka_unit_test(the_rate_is_never_exceeded),
		cmocka_unit_test(a_cell_limits_for_at_most_one_second),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
