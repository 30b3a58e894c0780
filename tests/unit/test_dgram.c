/* SPDX-License-Identifier: ISC */
/* test_dgram.c - filter of datagrams, hops and interface of answers, udp-rate */
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
#include <unistd.h>

#include "echo/dgram.h"
#include "echo/udp_ratelimit.h"
#include "net/addr.h"
#include "net/cidr.h"

#define OUTSIDE 2 /* an interface that is not the loopback */

static struct addr addr_of(const char *text)
{
	struct addr addr;
	const char *why;

	if (addr_parse(&addr, text, 40000, &why) < 0)
		fail_msg("%s: %s", text, why);
	return addr;
}

static struct in6_addr bits_of(const char *text)
{
	struct in6_addr bits;

	assert_int_equal(inet_pton(AF_INET6, text, &bits), 1);
	return bits;
}

static struct cidr_set set_of(const char *text)
{
	struct cidr_set set = { 0 };
	struct cidr network;
	const char *why;

	if (*text) {
		assert_int_equal(cidr_parse(&network, text, &why), 0);
		assert_int_equal(cidr_set_make(&set, &network, 1), 0);
	}
	return set;
}

/* A datagram and the expected decision. try() replaces values of 0 by those of an ordinary datagram. */
struct trial {
	const char *source, *to, *local;
	unsigned interface;
	int hops;
	const char *allow, *deny, *trusted;
	enum stats_counter expected;
};

#define TO4 "::ffff:192.0.2.7"
#define TO6 "2001:db8::7"
#define OK DGRAM_ANSWER

static void try(const struct trial *trial)
{
	const struct addr own[] = { addr_of("192.0.2.7:7007"), addr_of("[::]:8008"),
		                    addr_of("unix:/run/echod.dgram") };
	struct cidr_set allow = set_of(trial->allow ? trial->allow : ""),
			deny = set_of(trial->deny ? trial->deny : "");
	struct cidr_set trusted = set_of(trial->trusted ? trial->trusted : "");
	struct dgram_rules rules = { &allow, &deny, &trusted, own, sizeof own / sizeof own[0] };
	const char *to = trial->to ? trial->to : strchr(trial->source, '[') ? TO6 : TO4;
	struct dgram dgram = {
		.source = addr_of(trial->source),
		.to = bits_of(to),
		.local = bits_of(trial->local ? trial->local : to),
		.interface = trial->interface ? trial->interface : OUTSIDE,
		.hops = trial->hops ? trial->hops : 64,
	};
	enum stats_counter verdict = dgram_filter(&rules, &dgram);

	if (verdict != trial->expected)
		fail_msg("%s to %s: %s instead of %s", trial->source, to,
		         verdict == OK ? "answered" : stats_labels(verdict),
		         trial->expected == OK ? "answered" : stats_labels(trial->expected));
	cidr_set_clear(&allow);
	cidr_set_clear(&deny);
	cidr_set_clear(&trusted);
}

static void try_all(const struct trial *trials, size_t count)
{
	for (size_t i = 0; i < count; i++)
		try(&trials[i]);
}

#define TRY_ALL(...) \
	do { \
		const struct trial trials[] = { __VA_ARGS__ }; \
		try_all(trials, sizeof trials / sizeof trials[0]); \
	} while (0)

static void answers_ordinary_datagrams(void **state)
{
	(void) state;
	TRY_ALL({ .source = "198.51.100.1:40000", .expected = OK },
	        { .source = "198.51.100.1:1024", .expected = OK },
	        { .source = "198.51.100.1:65535", .expected = OK },
	        { .source = "198.51.100.1:2048", .expected = OK },
	        { .source = "198.51.100.1:2050", .expected = OK },
	        { .source = "[2001:db8:1::1]:40000", .expected = OK },
	        { .source = "127.0.0.1:40000",
	          .to = "::ffff:127.0.0.2",
	          .interface = DGRAM_LOOPBACK,
	          .expected = OK },
	        { .source = "[::1]:40000", .to = "::1", .interface = DGRAM_LOOPBACK, .expected = OK },
	        /* received before the socket reported destination addresses */
	        { .source = "198.51.100.1:40000", .to = "::", .expected = OK },
	        { .source = "239.1.1.1:40000", .to = "::", .expected = STAT_UDP_NOT_UNICAST });
}

static void does_not_answer_low_ports(void **state)
{
	(void) state;
	TRY_ALL({ .source = "198.51.100.1:1", .expected = STAT_UDP_LOW_PORT },
	        { .source = "198.51.100.1:7", .expected = STAT_UDP_LOW_PORT },
	        { .source = "198.51.100.1:19", .expected = STAT_UDP_LOW_PORT },
	        { .source = "198.51.100.1:1023", .expected = STAT_UDP_LOW_PORT },
	        { .source = "198.51.100.1:2049", .expected = STAT_UDP_LOW_PORT },
	        { .source = "[2001:db8:1::1]:53", .expected = STAT_UDP_LOW_PORT },
	        { .source = "[2001:db8:1::1]:2049", .expected = STAT_UDP_LOW_PORT });
}

static void udp_trusted_permits_low_ports(void **state)
{
	(void) state;
	TRY_ALL({ .source = "198.51.100.1:7", .trusted = "198.51.100.0/24", .expected = OK },
	        { .source = "198.51.100.1:2049", .trusted = "198.51.100.0/24", .expected = OK },
	        { .source = "[2001:db8:1::1]:53", .trusted = "2001:db8::/32", .expected = OK },
	        { .source = "198.51.101.1:7", .trusted = "198.51.100.0/24", .expected = STAT_UDP_LOW_PORT },
	        /* the other rules still apply */
	        { .source = "198.51.100.1:7007",
	          .trusted = "198.51.100.0/24",
	          .expected = STAT_UDP_OWN_PORT },
	        { .source = "198.51.100.1:53",
	          .trusted = "198.51.100.0/24",
	          .deny = "198.51.100.1",
	          .expected = STAT_UDP_DENIED },
	        { .source = "198.51.100.1:53",
	          .trusted = "198.51.100.0/24",
	          .hops = 8,
	          .expected = STAT_UDP_LOOP },
	        { .source = "198.51.100.1:53",
	          .trusted = "198.51.100.0/24",
	          .to = "::ffff:224.0.0.1",
	          .expected = STAT_UDP_NOT_UNICAST });
}

static void never_answers_port_0(void **state)
{
	struct cidr_set none = { 0 }, all = set_of("0.0.0.0/0");
	struct dgram_rules rules = { &none, &none, &all, NULL, 0 };
	struct dgram dgram = {
		.source = addr_of("198.51.100.1:1"), .to = bits_of(TO4), .local = bits_of(TO4), .hops = 64
	};

	(void) state;
	assert_int_equal(dgram_filter(&rules, &dgram), DGRAM_ANSWER);
	dgram.source.in.sin_port = 0;
	assert_int_equal(dgram_filter(&rules, &dgram), STAT_UDP_LOW_PORT);
	cidr_set_clear(&all);
}

static void does_not_answer_its_own_sockets(void **state)
{
	(void) state;
	TRY_ALL({ .source = "198.51.100.1:7007", .expected = STAT_UDP_OWN_PORT },
	        { .source = "198.51.100.1:8008", .expected = STAT_UDP_OWN_PORT },
	        { .source = "[2001:db8:1::1]:7007", .expected = STAT_UDP_OWN_PORT },
	        /* the address of a socket, and the contacted address with the port of any socket */
	        { .source = "192.0.2.7:7007", .to = "::ffff:192.0.2.9", .expected = STAT_UDP_OWN_ADDRESS },
	        { .source = "192.0.2.7:8008", .expected = STAT_UDP_OWN_ADDRESS },
	        { .source = "[2001:db8::7]:8008", .expected = STAT_UDP_OWN_ADDRESS },
	        /* a client on this host */
	        { .source = "192.0.2.7:40000", .interface = DGRAM_LOOPBACK, .expected = OK },
	        { .source = "unix:/run/echod.dgram", .expected = STAT_UDP_OWN_ADDRESS },
	        { .source = "unix:/run/client", .expected = OK });
}

static void answers_no_unnamed_unix_socket(void **state)
{
	struct cidr_set none = { 0 };
	struct dgram_rules rules = { &none, &none, &none, NULL, 0 };
	struct dgram dgram = { .hops = -1 };

	(void) state;
	assert_int_equal(dgram_filter(&rules, &dgram), STAT_UDP_NOT_UNICAST);
	/* recvmsg(2) leaves an earlier address in place where there is none */
	dgram.source = addr_of("198.51.100.1");
	dgram.source.len = 0;
	assert_int_equal(dgram_filter(&rules, &dgram), STAT_UDP_NOT_UNICAST);
	dgram.source = (struct addr) { 0 };
	dgram.source.sa.sa_family = AF_UNIX;
	dgram.source.len = sizeof(sa_family_t);
	assert_int_equal(dgram_filter(&rules, &dgram), STAT_UDP_NOT_UNICAST);
	/* an abstract name is a name */
	dgram.source.un.sun_path[1] = 'x';
	dgram.source.len = sizeof(sa_family_t) + 2;
	assert_int_equal(dgram_filter(&rules, &dgram), DGRAM_ANSWER);
}

static void answers_unicast_only(void **state)
{
	(void) state;
	TRY_ALL({ .source = "198.51.100.1", .to = "::ffff:224.0.0.1", .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "198.51.100.1",
	          .to = "::ffff:239.255.255.250",
	          .local = TO4,
	          .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "198.51.100.1",
	          .to = "::ffff:255.255.255.255",
	          .expected = STAT_UDP_NOT_UNICAST },
	        /* another local address means that 192.0.2.255 is a broadcast address */
	        { .source = "198.51.100.1",
	          .to = "::ffff:192.0.2.255",
	          .local = TO4,
	          .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "198.51.100.1", .to = "::ffff:192.0.2.255", .expected = OK },
	        { .source = "198.51.100.1", .to = "::ffff:0.0.0.0", .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "[2001:db8:1::1]", .to = "ff02::1", .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "[2001:db8:1::1]",
	          .to = "ff05::7",
	          .local = TO6,
	          .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "224.0.0.1", .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "239.1.2.3", .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "223.255.255.255", .expected = OK }, { .source = "240.0.0.1", .expected = OK },
	        { .source = "255.255.255.255", .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "255.255.255.254", .expected = OK },
	        { .source = "255.255.254.255", .expected = OK },
	        { .source = "255.254.255.255", .expected = OK },
	        { .source = "254.255.255.255", .expected = OK },
	        { .source = "0.0.0.0", .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "0.1.2.3", .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "1.0.0.0", .expected = OK },
	        { .source = "[ff02::1]", .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "[::]", .expected = STAT_UDP_NOT_UNICAST });
}

static void loopback_addresses_need_the_loopback_interface(void **state)
{
	(void) state;
	TRY_ALL({ .source = "127.0.0.1", .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "127.255.255.254", .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "127.0.0.1", .interface = DGRAM_LOOPBACK, .expected = OK },
	        { .source = "[::1]", .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "[::1]", .interface = DGRAM_LOOPBACK, .expected = OK },
	        { .source = "198.51.100.1", .to = "::ffff:127.0.0.1", .expected = STAT_UDP_NOT_UNICAST },
	        { .source = "[2001:db8:1::1]", .to = "::1", .expected = STAT_UDP_NOT_UNICAST });
}

static void applies_allow_and_deny(void **state)
{
	(void) state;
	TRY_ALL({ .source = "198.51.100.1", .deny = "198.51.100.0/24", .expected = STAT_UDP_DENIED },
	        { .source = "198.51.101.1", .deny = "198.51.100.0/24", .expected = OK },
	        { .source = "198.51.100.1", .allow = "198.51.100.0/24", .expected = OK },
	        { .source = "198.51.101.1", .allow = "198.51.100.0/24", .expected = STAT_UDP_DENIED },
	        { .source = "198.51.100.1",
	          .allow = "198.51.100.0/24",
	          .deny = "198.51.100.1",
	          .expected = STAT_UDP_DENIED },
	        { .source = "[2001:db8:1::1]", .deny = "2001:db8:1::/48", .expected = STAT_UDP_DENIED },
	        { .source = "unix:/run/client", .allow = "198.51.100.0/24", .expected = OK });
}

/* A datagram that two servers answer to each other is dropped after a few answers, whatever its first TTL
 * was. */
static void ends_loops(void **state)
{
	(void) state;
	for (int forged = 1; forged <= 255; forged++) {
		for (int routers = 0; routers < 4; routers++) {
			int hops = forged - routers, answers = 0;
			struct trial last = { .source = "198.51.100.1",
				              .hops = hops,
				              .expected = STAT_UDP_LOOP };

			if (hops < 1)
				continue;
			for (; hops > DGRAM_HOPS_STEP; hops = dgram_answer_hops(hops) - routers) {
				try(&(struct trial) {
					.source = "198.51.100.1", .hops = hops, .expected = OK });
				assert_in_range(dgram_answer_hops(hops), 1, DGRAM_HOPS_MAX - DGRAM_HOPS_STEP);
				answers++;
			}
			assert_in_range(answers, 0, 7);
			last.hops = hops;
			if (hops > 0)
				try(&last);
		}
	}
}

static void drops_datagrams_without_hops_left(void **state)
{
	struct cidr_set none = { 0 };
	struct dgram_rules rules = { &none, &none, &none, NULL, 0 };
	struct dgram dgram = { .source = addr_of("198.51.100.1") };

	(void) state;
	for (dgram.hops = 0; dgram.hops <= DGRAM_HOPS_STEP; dgram.hops++)
		assert_int_equal(dgram_filter(&rules, &dgram), STAT_UDP_LOOP);
	assert_int_equal(dgram_filter(&rules, &dgram), DGRAM_ANSWER);
}

/* Clients behind up to 28 routers get answers, if they send with 64, 128 or 255 hops as common systems do. */
static void answers_distant_clients(void **state)
{
	const int starts[] = { 64, 128, 255 };

	(void) state;
	for (size_t i = 0; i < 3; i++)
		for (int routers = 0; routers <= 28; routers++) {
			try(&(struct trial) {
				.source = "198.51.100.1", .hops = starts[i] - routers, .expected = OK });
			assert_true(dgram_answer_hops(starts[i] - routers) >= routers);
		}
	assert_true(dgram_answer_hops(-1) >= 28);
}

/* Other answers may leave by another interface than the one at which the datagram arrived. */
static void names_an_interface_for_link_local_addresses_only(void **state)
{
	static const struct {
		const char *source, *local;
		bool link_local;
	} cases[] = {
		{ "192.0.2.1", "::ffff:192.0.2.7", false },
		{ "192.0.2.1", "::ffff:169.254.0.7", false },
		{ "169.254.0.0", "::ffff:169.254.0.7", true },
		{ "169.254.255.255", "::ffff:192.0.2.7", true },
		{ "169.253.255.255", "::ffff:192.0.2.7", false },
		{ "169.255.0.0", "::ffff:192.0.2.7", false },
		{ "[2001:db8::1]", "2001:db8::7", false },
		{ "[fd00::1]", "fd00::7", false },
		{ "[fec0::1]", "fec0::7", false },
		{ "[fe7f::1]", "fe7f::7", false },
		{ "[fe80::1%lo]", "fe80::7", true },
		{ "[febf::1%lo]", "2001:db8::7", true },
		{ "[2001:db8::1]", "fe80::7", true },
		{ "unix:/a", "::", false },
	};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct dgram dgram = { .source = addr_of(cases[i].source),
			               .local = bits_of(cases[i].local),
			               .interface = OUTSIDE };

		assert_int_equal(dgram_answer_interface(&dgram), cases[i].link_local ? OUTSIDE : 0);
		dgram.interface = DGRAM_LOOPBACK;
		assert_int_equal(dgram_answer_interface(&dgram), 0);
		dgram.interface = 0;
		assert_int_equal(dgram_answer_interface(&dgram), 0);
	}
}

/* --- the rate limit -------------------------------------------------------------------- */

#define SECOND INT64_C(1000000)

static struct udp_ratelimit *udp_ratelimit_open(void)
{
	int fd = udp_ratelimit_make();
	struct udp_ratelimit *udp_ratelimit;

	assert_true(fd >= 0);
	assert_int_equal(udp_ratelimit_map(&udp_ratelimit, fd), 0);
	close(fd);
	return udp_ratelimit;
}

static int make_table(void **state)
{
	*state = udp_ratelimit_open();
	return 0;
}

static int free_table(void **state)
{
	udp_ratelimit_unmap(*state);
	return 0;
}

static unsigned take(struct udp_ratelimit *udp_ratelimit, unsigned rate, const char *source, int64_t now,
                     unsigned count)
{
	struct addr addr = addr_of(source);

	return udp_ratelimit_take(udp_ratelimit, rate, udp_ratelimit_hash(udp_ratelimit, &addr), now, count);
}

static void each_network_gets_the_rate(void **state)
{
	int64_t now = 1000 * SECOND;

	assert_int_equal(take(*state, 100, "192.0.2.1", now, 1000), 100);
	assert_int_equal(take(*state, 100, "192.0.2.1", now, 1), 0);
	/* all addresses of a /24 or /48 share one limit, and so do all unix sockets */
	assert_int_equal(take(*state, 100, "192.0.2.255", now, 1), 0);
	assert_int_equal(take(*state, 100, "192.0.3.1", now, 60), 60);
	assert_int_equal(take(*state, 100, "192.0.3.2", now, 60), 40);
	assert_int_equal(take(*state, 100, "[2001:db8:1:2::3]", now, 100), 100);
	assert_int_equal(take(*state, 100, "[2001:db8:1:ffff::]", now, 1), 0);
	assert_int_equal(take(*state, 100, "[2001:db8:2::3]", now, 1), 1);
	assert_int_equal(take(*state, 100, "unix:/a", now, 99), 99);
	assert_int_equal(take(*state, 100, "unix:/b", now, 99), 1);
	/* one datagram in each hundredth of a second */
	assert_int_equal(take(*state, 100, "192.0.2.1", now + SECOND / 100 - 1, 1), 0);
	assert_int_equal(take(*state, 100, "192.0.2.1", now + SECOND / 100, 2), 1);
	assert_int_equal(take(*state, 100, "192.0.2.1", now + SECOND / 2 + SECOND / 100, 1000), 50);
	/* at most one second's worth is saved */
	assert_int_equal(take(*state, 100, "192.0.2.1", now + 3600 * SECOND, 1000), 100);
}

static void a_rate_of_0_is_no_limit(void **state)
{
	assert_int_equal(take(*state, 0, "192.0.2.1", SECOND, 4000000000U), 4000000000U);
	assert_int_equal(take(*state, 1, "192.0.2.1", SECOND, 2), 1);
}

static void keeps_every_rate(void **state)
{
	const unsigned rates[] = { 1, 2, 3, 7, 99, 1000, 65537, 100000, 999999, 30000001, 1000000000 };
	int64_t now = SECOND;

	for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
		uint64_t passed = 0;

		now += 10 * SECOND;
		for (int tick = 0; tick <= 1000; tick++)
			passed += take(*state, rates[i], "192.0.2.1", now + tick * SECOND / 100, UINT32_MAX);
		/* one second's worth at once and ten seconds of the rate */
		assert_true(passed <= UINT64_C(11) * rates[i]);
		assert_true(passed >= UINT64_C(11) * rates[i] * (rates[i] > 10000000 ? 9 : 100) /
		                              (rates[i] > 10000000 ? 10 : 101));
		now += 10 * SECOND;
	}
}

/* A network gets no more than the rate, however many other networks send. */
static void other_networks_do_not_raise_the_rate(void **state)
{
	unsigned passed = 0, others = 0;
	char text[32];

	for (unsigned i = 0; i < 400000; i++) {
		snprintf(text, sizeof text, "%u.%u.%u.1", 1 + i % 200, i / 200 % 256, i / 51200);
		others += take(*state, 10, text, SECOND, 1);
		passed += take(*state, 10, "223.0.2.1", SECOND, 1);
	}
	assert_true(passed <= 10);
	/* almost all others are answered, although there are 1.5 networks for each cell */
	assert_in_range(others, 399900, 400000);
}

/* A reload may change the rate. */
static void the_rate_may_change(void **state)
{
	assert_int_equal(take(*state, 1, "192.0.2.1", SECOND, 5), 1);
	assert_int_equal(take(*state, 1000, "192.0.2.1", SECOND, 5000), 0);
	assert_int_equal(take(*state, 1000, "192.0.2.1", 2 * SECOND, 5000), 1000);
	assert_int_equal(take(*state, 1, "192.0.2.1", 4 * SECOND, 5), 1);
}

/* The hash without a key that echod 1.0 had, as an attacker could compute it. */
static unsigned cell_without_key(uint64_t network)
{
	uint64_t key = UINT64_C(2) << 48 | network;

	key = (key ^ key >> 32) * UINT64_C(0x9e3779b97f4a7c15);
	key = (key ^ key >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
	return key >> 32 & (UDP_RATELIMIT_CELLS - 1);
}

static struct addr addr_in(uint64_t network)
{
	struct addr addr = addr_of("[::1]");

	for (int i = 0; i < 6; i++)
		addr.in6.sin6_addr.s6_addr[i] = (uint8_t) (network >> (40 - 8 * i));
	return addr;
}

/* Where the hash has no key, the owner of an IPv6 /32 can compute which of its 65,536 networks shares a cell
 * with a victim; for one victim in five there is such a network. With a key, such a pair shares a cell only
 * by chance. */
static void no_network_can_choose_its_cell(void **state)
{
	static uint16_t attackers[UDP_RATELIMIT_CELLS];
	struct udp_ratelimit *udp_ratelimit = *state;
	unsigned pairs = 0, shared = 0;

	for (unsigned i = 1; i < 65536; i++)
		attackers[cell_without_key(UINT64_C(0x2a0a0bad0000) | i)] = (uint16_t) i;
	for (uint64_t victim = UINT64_C(0x20010db80000); victim < UINT64_C(0x20010db84000); victim++) {
		struct addr one = addr_in(victim),
			    other = addr_in(UINT64_C(0x2a0a0bad0000) | attackers[cell_without_key(victim)]);

		if (attackers[cell_without_key(victim)] == 0)
			continue;
		pairs++;
		shared += ((udp_ratelimit_hash(udp_ratelimit, &one) ^
		            udp_ratelimit_hash(udp_ratelimit, &other)) &
		           (UDP_RATELIMIT_CELLS - 1)) == 0;
	}
	assert_in_range(pairs, 1000, 16384);
	/* one pair in UDP_RATELIMIT_CELLS shares a cell by chance: less than one of all these is expected */
	assert_in_range(shared, 0, 3);
}

static void each_table_has_its_own_key(void **state)
{
	struct udp_ratelimit *udp_ratelimit = *state, *other = udp_ratelimit_open();
	struct addr addr = addr_of("192.0.2.1");

	assert_true(udp_ratelimit_hash(udp_ratelimit, &addr) != udp_ratelimit_hash(other, &addr));
	udp_ratelimit_unmap(other);
}

/* The next reader of the socket maps the same file. */
static void a_successor_has_the_same_cells(void **state)
{
	int fd = udp_ratelimit_make();
	struct udp_ratelimit *udp_ratelimit, *next;

	(void) state;
	assert_int_equal(udp_ratelimit_map(&udp_ratelimit, fd), 0);
	assert_int_equal(take(udp_ratelimit, 10, "192.0.2.1", SECOND, 100), 10);
	assert_int_equal(udp_ratelimit_map(&next, fd), 0);
	udp_ratelimit_unmap(udp_ratelimit);
	assert_int_equal(take(next, 10, "192.0.2.1", SECOND, 100), 0);
	assert_int_equal(take(next, 10, "192.0.2.1", 2 * SECOND, 100), 10);
	udp_ratelimit_unmap(next);
	/* a compromised reader cannot truncate the file of its successor */
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(errno, EPERM);
	close(fd);
}

/* Any value of a cell limits for at most one second. */
static void any_value_limits_for_one_second_at_most(void **state)
{
	const int64_t values[] = { INT64_MIN, INT64_MIN + 1, -1, 0, 1, INT64_MAX - 1, INT64_MAX };
	struct addr addr = addr_of("192.0.2.1");
	struct udp_ratelimit *udp_ratelimit = *state;
	int64_t now = SECOND;

	for (size_t i = 0; i < sizeof values / sizeof values[0]; i++, now += 10 * SECOND) {
		udp_ratelimit->cells[udp_ratelimit_hash(udp_ratelimit, &addr) & (UDP_RATELIMIT_CELLS - 1)] =
			values[i];
		assert_in_range(take(udp_ratelimit, 50, "192.0.2.1", now, 100), 0, 50);
		assert_int_equal(take(udp_ratelimit, 50, "192.0.2.1", now + SECOND, 100), 50);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_ordinary_datagrams),
		cmocka_unit_test(does_not_answer_low_ports),
		cmocka_unit_test(udp_trusted_permits_low_ports),
		cmocka_unit_test(never_answers_port_0),
		cmocka_unit_test(does_not_answer_its_own_sockets),
		cmocka_unit_test(answers_no_unnamed_unix_socket),
		cmocka_unit_test(drops_datagrams_without_hops_left),
		cmocka_unit_test(answers_unicast_only),
		cmocka_unit_test(loopback_addresses_need_the_loopback_interface),
		cmocka_unit_test(applies_allow_and_deny),
		cmocka_unit_test(ends_loops),
		cmocka_unit_test(answers_distant_clients),
		cmocka_unit_test(names_an_interface_for_link_local_addresses_only),
		cmocka_unit_test_setup_teardown(each_network_gets_the_rate, make_table, free_table),
		cmocka_unit_test_setup_teardown(a_rate_of_0_is_no_limit, make_table, free_table),
		cmocka_unit_test_setup_teardown(keeps_every_rate, make_table, free_table),
		cmocka_unit_test_setup_teardown(other_networks_do_not_raise_the_rate, make_table, free_table),
		cmocka_unit_test_setup_teardown(the_rate_may_change, make_table, free_table),
		cmocka_unit_test_setup_teardown(no_network_can_choose_its_cell, make_table, free_table),
		cmocka_unit_test_setup_teardown(each_table_has_its_own_key, make_table, free_table),
		cmocka_unit_test(a_successor_has_the_same_cells),
		cmocka_unit_test_setup_teardown(any_value_limits_for_one_second_at_most, make_table,
		                                free_table),
	};

	return cmocka_run_group_tests_name("dgram", tests, NULL, NULL);
}
