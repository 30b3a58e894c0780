/* SPDX-License-Identifier: ISC */
/* test_cidr.c - networks, and sets of networks */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>

#include "net/addr.h"
#include "net/cidr.h"

static struct addr addr_of(const char *text)
{
	struct addr addr;
	const char *why;

	assert_int_equal(addr_parse(&addr, text, 7, &why), 0);
	return addr;
}

static struct cidr cidr_of(const char *text)
{
	struct cidr network;
	const char *why;

	if (cidr_parse(&network, text, &why) < 0)
		fail_msg("%s: %s", text, why);
	return network;
}

static bool covers(const char *cidr_text, const char *addr_text)
{
	struct cidr network = cidr_of(cidr_text);
	struct addr addr = addr_of(addr_text);
	struct cidr_set set;
	bool matched;

	assert_int_equal(cidr_set_make(&set, &network, 1), 0);
	matched = cidr_set_match(&set, &addr);
	cidr_set_clear(&set);
	assert_null(set.ranges);
	return matched;
}

static void reads_networks(void **state)
{
	(void) state;
	assert_true(covers("192.0.2.1", "192.0.2.1"));
	assert_false(covers("192.0.2.1", "192.0.2.2"));
	assert_false(covers("192.0.2.1", "192.0.2.0"));
	assert_true(covers("192.0.2.0/24", "192.0.2.0"));
	assert_true(covers("192.0.2.0/24", "192.0.2.255"));
	assert_false(covers("192.0.2.0/24", "192.0.3.0"));
	assert_false(covers("192.0.2.0/24", "192.0.1.255"));
	assert_true(covers("192.0.2.128/25", "192.0.2.128"));
	assert_false(covers("192.0.2.128/25", "192.0.2.127"));
	assert_true(covers("0.0.0.0/0", "255.255.255.255"));
	assert_true(covers("0.0.0.0/0", "0.0.0.0"));
	assert_true(covers("128.0.0.0/1", "128.0.0.0"));
	assert_true(covers("2001:db8::/32", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"));
	assert_false(covers("2001:db8::/32", "2001:db9::"));
	assert_true(covers("::1", "::1"));
	assert_true(covers("::1/128", "::1"));
	assert_true(
		covers("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
	assert_true(covers("fe80::/10", "fe80::1%1"));
	/* the longest text of an address */
	assert_true(covers("1111:2222:3333:4444:5555:6666:255.255.255.255",
	                   "1111:2222:3333:4444:5555:6666:ffff:ffff"));
}

/* IPv4 addresses are stored as IPv6 addresses, but a network contains only addresses of its own family. */
static void keeps_the_families_apart(void **state)
{
	static const char *const wide[] = { "::/0", "::/1", "::/64", "::/79", "::/80", "::fffe:0:0/95" };

	(void) state;
	for (size_t i = 0; i < sizeof(wide) / sizeof(wide[0]); i++) {
		assert_false(covers(wide[i], "0.0.0.0"));
		assert_false(covers(wide[i], "192.0.2.1"));
		assert_false(covers(wide[i], "255.255.255.255"));
		assert_true(covers(wide[i], "::fffe:ffff:ffff"));
	}
	assert_true(covers("::/0", "2001:db8::1"));
	assert_true(covers("::/79", "::1:0:0:0"));
	assert_false(covers("::/80", "::1:0:0:0"));
	assert_false(covers("0.0.0.0/0", "::1"));
	assert_false(covers("0.0.0.0/0", "::"));

	/* IPv4-mapped notation means IPv4, in networks and in addresses. */
	assert_true(covers("::ffff:0:0/96", "192.0.2.1"));
	assert_true(covers("::ffff:192.0.2.0/120", "192.0.2.255"));
	assert_true(covers("192.0.2.0/24", "::ffff:192.0.2.9"));
}

/* An IPv6 network that ends with the block of IPv4 addresses gives one range, also beside other networks. */
static void matches_each_of_several_networks(void **state)
{
	struct cidr networks[] = { cidr_of("::fffe:0:0/95"), cidr_of("2001:db8::/32"),
		                   cidr_of("192.0.2.0/24") };
	static const struct {
		const char *text;
		bool matched;
	} cases[] = { { "::fffe:0:1", true }, { "2001:db8::1", true }, { "192.0.2.1", true },
		      { "192.0.3.0", false }, { "0.0.0.0", false },    { "2001:db9::", false } };
	struct cidr_set set;

	(void) state;
	assert_int_equal(cidr_set_make(&set, networks, 3), 0);
	assert_int_equal(set.count, 3);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct addr addr = addr_of(cases[i].text);

		if (cidr_set_match(&set, &addr) != cases[i].matched)
			fail_msg("%s", cases[i].text);
	}
	cidr_set_clear(&set);
}

static void matches_mapped_addresses_unchanged(void **state)
{
	struct addr mapped = { .in6 = { .sin6_family = AF_INET6 }, .len = sizeof(mapped.in6) };
	struct cidr network = cidr_of("192.0.2.0/24");
	struct cidr_set set;

	(void) state;
	assert_int_equal(cidr_set_make(&set, &network, 1), 0);
	assert_int_equal(inet_pton(AF_INET6, "::ffff:192.0.2.7", &mapped.in6.sin6_addr), 1);
	assert_true(cidr_set_match(&set, &mapped));
	assert_int_equal(inet_pton(AF_INET6, "::ffff:192.0.3.7", &mapped.in6.sin6_addr), 1);
	assert_false(cidr_set_match(&set, &mapped));
	cidr_set_clear(&set);
}

static void refuses_other_forms(void **state)
{
	static const char form[] = "a network is written", prefix[] = "the number after",
			  bits[] = "bits are set";
	static const struct {
		const char *text, *why;
	} wrong[] = {
		{ "", form },
		{ "/", form },
		{ "/8", form },
		{ "10", form },
		{ "10.0.0", form },
		{ "10.0.0.0/", prefix },
		{ "10.0.0.0/33", prefix },
		{ "10.0.0.0/08", prefix },
		{ "10.0.0.0/-1", prefix },
		{ "10.0.0.0/+8", prefix },
		{ "10.0.0.0/8 ", prefix },
		{ " 10.0.0.0/8", form },
		{ "10.0.0.0/8/8", prefix },
		{ "10.0.0.0/99999999999999999999", prefix },
		{ "10.0.0.0/255.0.0.0", prefix },
		{ "010.0.0.0/8", form },
		{ "10.0.0.0:7", form },
		{ "*", form },
		{ "localhost", form },
		{ "2001:db8::/129", prefix },
		{ "2001:db8::/x", prefix },
		{ "[::1]", form },
		{ "fe80::1%1", form },
		{ "192.0.2.1/24", bits },
		{ "192.0.2.128/24", bits },
		{ "2001:db8::1/32", bits },
		{ "128.0.0.0/0", bits },
		{ "8000::/0", bits },
		{ "::1/127", bits },
		{ "unix:/x", form },
		{ "1111:2222:3333:4444:5555:6666:777:255.255.255.255", form },
		/* one byte longer than any address */
		{ "1111:2222:3333:4444:5555:6666:7255.255.255.255", form },
	};

	(void) state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct cidr network;
		const char *why = NULL;

		if (cidr_parse(&network, wrong[i].text, &why) != -EINVAL)
			fail_msg("\"%s\" is accepted as a network", wrong[i].text);
		if (!why || strncmp(why, wrong[i].why, strlen(wrong[i].why)) != 0)
			fail_msg("\"%s\": %s", wrong[i].text, why);
	}
}

static void matches_nothing_when_empty(void **state)
{
	struct cidr_set set, zeroed = { 0 };
	struct addr addr = addr_of("192.0.2.1");

	(void) state;
	assert_int_equal(cidr_set_make(&set, NULL, 0), 0);
	assert_false(cidr_set_match(&set, &addr));
	assert_false(cidr_set_match(&zeroed, &addr));
	cidr_set_clear(&set);
	cidr_set_clear(&zeroed);
}

/* ---- random sets, compared with a check of each network ---- */

/* A network of the reference: family, address, length of the prefix. */
struct plain {
	int family;
	uint8_t bytes[16];
	unsigned prefix;
};

static uint32_t seed;

/* xorshift: the same numbers on every machine, so that a failure can be repeated. */
static uint32_t draw(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed % below;
}

/* Few different values, so that networks overlap, contain each other or adjoin, and addresses match. */
static void draw_bytes(uint8_t bytes[16], size_t length)
{
	static const uint8_t few[] = { 0, 0, 0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, 0xff };

	memset(bytes, 0, 16);
	for (size_t i = 0; i < length; i++)
		bytes[i] = few[draw(sizeof(few))];
}

static bool plain_match(const struct plain *network, int family, const uint8_t *bytes)
{
	if (network->family != family)
		return false;
	for (unsigned bit = 0; bit < network->prefix; bit++) {
		unsigned mask = 0x80U >> bit % 8;

		if ((network->bytes[bit / 8] & mask) != (bytes[bit / 8] & mask))
			return false;
	}
	return true;
}

/* A random address as sockets report it, but no IPv4-mapped one, which echod treats as IPv4. */
static int draw_address(uint8_t bytes[16], struct addr *addr)
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	memset(addr, 0, sizeof(*addr));
	if (draw(2) == 0) {
		draw_bytes(bytes, 4);
		addr->in.sin_family = AF_INET;
		memcpy(&addr->in.sin_addr, bytes, 4);
		return AF_INET;
	}
	do
		draw_bytes(bytes, 16);
	while (memcmp(bytes, mapped, sizeof(mapped)) == 0);
	addr->in6.sin6_family = AF_INET6;
	memcpy(&addr->in6.sin6_addr, bytes, 16);
	return AF_INET6;
}

static void draw_network(struct plain *plain, struct cidr *network)
{
	char text[INET6_ADDRSTRLEN + 5], host[INET6_ADDRSTRLEN];
	struct addr addr;
	unsigned width;

	plain->family = draw_address(plain->bytes, &addr);
	width = plain->family == AF_INET ? 32 : 128;
	plain->prefix = draw(4) == 0 ? width : draw(width + 1);
	for (unsigned bit = plain->prefix; bit < width; bit++)
		plain->bytes[bit / 8] &= (uint8_t) ~(0x80U >> bit % 8);
	assert_non_null(inet_ntop(plain->family, plain->bytes, host, sizeof(host)));
	snprintf(text, sizeof(text), "%s/%u", host, plain->prefix);
	*network = cidr_of(text);
}

static void agrees_with_a_check_of_each_network(void **state)
{
	enum { ROUNDS = 400, NETWORKS = 40, ADDRESSES = 200 };
	unsigned hits = 0, misses = 0;

	(void) state;
	for (uint32_t round = 1; round <= ROUNDS; round++) {
		struct plain plain[NETWORKS];
		struct cidr networks[NETWORKS];
		struct cidr_set set;
		size_t count;

		seed = round * 2654435761U;
		count = draw(NETWORKS + 1);
		for (size_t i = 0; i < count; i++)
			draw_network(&plain[i], &networks[i]);
		assert_int_equal(cidr_set_make(&set, networks, count), 0);
		for (size_t i = 1; i < set.count; i++)
			assert_true(memcmp(set.ranges[i - 1].last, set.ranges[i].first, 16) < 0);

		for (unsigned i = 0; i < ADDRESSES; i++) {
			uint8_t bytes[16];
			struct addr addr;
			int family = draw_address(bytes, &addr);
			bool expected = false;

			for (size_t j = 0; j < count; j++)
				expected |= plain_match(&plain[j], family, bytes);
			if (cidr_set_match(&set, &addr) != expected)
				fail_msg("round %u, address %u: expected %d", round, i, expected);
			*(expected ? &hits : &misses) += 1;
		}
		cidr_set_clear(&set);
	}
	/* Both results must have occurred often enough. */
	assert_in_range(hits, ROUNDS * ADDRESSES / 10, ROUNDS * ADDRESSES);
	assert_in_range(misses, ROUNDS * ADDRESSES / 10, ROUNDS * ADDRESSES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_networks),
		cmocka_unit_test(keeps_the_families_apart),
		cmocka_unit_test(matches_each_of_several_networks),
		cmocka_unit_test(matches_mapped_addresses_unchanged),
		cmocka_unit_test(refuses_other_forms),
		cmocka_unit_test(matches_nothing_when_empty),
		cmocka_unit_test(agrees_with_a_check_of_each_network),
	};

	return cmocka_run_group_tests_name("network", tests, NULL, NULL);
}
