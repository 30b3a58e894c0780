/* SPDX-License-Identifier: ISC */
/* fuzz_dgram.c - the filter and the rate limit of datagrams, compared with a second version of their rules
 *
 * The input is read as the address lists of a daemon, its own addresses and rate, and datagrams with
 * their times. A datagram that is answered must break no rule; one that is not answered must break the
 * rule that is returned. No source may get more answers than the rate permits.
 */
#include <config.h>

#include "fuzz.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <string.h>

#include "echo/dgram.h"
#include "echo/udp_ratelimit.h"
#include "net/addr.h"
#include "net/cidr.h"

#define OWN_MAX 4
#define DATAGRAMS_MAX 64
#define USEC 1000000

static struct udp_ratelimit limiter;

/* --- decoding of the input ------------------------------------------------------------- */

/* A byte selects one of a few special addresses, or an address whose 4 or 16 bytes follow. So addresses for
 * which there are rules occur often. */
static struct in6_addr take_bits(struct fuzz_input *input)
{
	static const char *const common[] = {
		"::",
		"::1",
		"ff02::1",
		"2001:db8::7",
		"fe80::1",
		"::ffff:0.0.0.0",
		"::ffff:127.0.0.1",
		"::ffff:192.0.2.7",
		"::ffff:192.0.2.255",
		"::ffff:224.0.0.1",
		"::ffff:255.255.255.255",
		"::ffff:198.51.100.1",
	};
	const size_t count = sizeof common / sizeof common[0];
	unsigned choice = fuzz_take(input), from = 0;
	struct in6_addr bits = IN6ADDR_ANY_INIT;

	if (choice % 16 < count) {
		inet_pton(AF_INET6, common[choice % 16], &bits);
		return bits;
	}
	if (choice % 2) {
		from = 12;
		bits.s6_addr[10] = bits.s6_addr[11] = 0xff;
	}
	for (unsigned i = from; i < 16; i++)
		bits.s6_addr[i] = (uint8_t) fuzz_take(input);
	return bits;
}

static uint16_t take_port(struct fuzz_input *input)
{
	static const uint16_t common[] = { 0, 1, 7, 1023, 1024, 2048, 2049, 2050, 7007, 65535 };
	unsigned choice = fuzz_take(input);

	if (choice % 16 < sizeof common / sizeof common[0])
		return common[choice % 16];
	return (uint16_t) (fuzz_take(input) << 8 | fuzz_take(input));
}

static struct addr take_addr(struct fuzz_input *input)
{
	struct addr addr = { .len = 0 };

	if (fuzz_take(input) % 16 == 15) {
		addr.sa.sa_family = AF_UNIX;
		addr.un.sun_path[0] = (char) fuzz_take(input);
		addr.len = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + fuzz_take(input) % 3);
		return addr;
	}
	addr.in6.sin6_family = AF_INET6;
	addr.in6.sin6_addr = take_bits(input);
	addr.in6.sin6_port = htons(take_port(input));
	addr.len = sizeof addr.in6;
	addr_unmap(&addr);
	return addr;
}

static struct cidr_set take_set(struct fuzz_input *input)
{
	struct cidr_set set = { 0 };
	struct cidr network;

	if (fuzz_take(input) % 2 == 0)
		return set;
	memcpy(network.first, take_bits(input).s6_addr, 16);
	memcpy(network.last, network.first, 16);
	network.last[15] |= (uint8_t) fuzz_take(input);
	if (cidr_set_make(&set, &network, 1) < 0)
		abort();
	return set;
}

/* --- second version of the rules ------------------------------------------------------- */

static bool matches(const struct cidr_set *set, const struct in6_addr *bits)
{
	return set->count > 0 && memcmp(set->ranges[0].first, bits, 16) <= 0 &&
	       memcmp(bits, set->ranges[0].last, 16) <= 0;
}

static struct in6_addr bits_of(const struct addr *addr)
{
	struct in6_addr bits = IN6ADDR_ANY_INIT;

	if (addr->sa.sa_family == AF_INET6)
		return addr->in6.sin6_addr;
	bits.s6_addr32[2] = htonl(0xffff);
	bits.s6_addr32[3] = addr->in.sin_addr.s_addr;
	return bits;
}

static bool unicast(const struct in6_addr *bits)
{
	uint32_t four = ntohl(bits->s6_addr32[3]);

	if (IN6_IS_ADDR_V4MAPPED(bits))
		return four >> 24 != 0 && four >> 28 != 14 && four != 0xffffffff;
	return bits->s6_addr[0] != 0xff && !IN6_IS_ADDR_UNSPECIFIED(bits);
}

static bool loopback(const struct in6_addr *bits)
{
	return IN6_IS_ADDR_V4MAPPED(bits) ? ntohl(bits->s6_addr32[3]) >> 24 == 127
	                                  : IN6_IS_ADDR_LOOPBACK(bits);
}

/* The rules that the datagram breaks, as a set of bits. */
static unsigned reasons(const struct dgram_rules *rules, const struct dgram *dgram)
{
	struct in6_addr source = bits_of(&dgram->source), own;
	uint16_t port = addr_port(&dgram->source);
	bool known = !IN6_IS_ADDR_UNSPECIFIED(&dgram->to), outside = dgram->interface > 1;
	unsigned found = 0;

#define BIT(counter) (1U << ((counter) - STAT_UDP_LOW_PORT))
	if (!unicast(&source) || (known && !unicast(&dgram->to)) || (outside && loopback(&source)) ||
	    (known && outside && loopback(&dgram->to)) ||
	    (known && memcmp(&dgram->to, &dgram->local, 16) != 0))
		found |= BIT(STAT_UDP_NOT_UNICAST);
	if (matches(rules->deny, &source) || (rules->allow->count > 0 && !matches(rules->allow, &source)))
		found |= BIT(STAT_UDP_DENIED);
	for (size_t i = 0; i < rules->own_count; i++) {
		if (rules->own[i].sa.sa_family == AF_UNIX || addr_port(&rules->own[i]) != port)
			continue;
		own = bits_of(&rules->own[i]);
		found |= memcmp(&own, &source, 16) == 0 || memcmp(&dgram->local, &source, 16) == 0
		         ? BIT(STAT_UDP_OWN_ADDRESS) : BIT(STAT_UDP_OWN_PORT);
	}
	if (port == 0 || ((port < 1024 || port == 2049) && !matches(rules->trusted, &source)))
		found |= BIT(STAT_UDP_LOW_PORT);
	if (dgram->hops >= 0 && dgram->hops <= 8)
		found |= BIT(STAT_UDP_LOOP);
	return found;
}

static unsigned unix_reasons(const struct dgram_rules *rules, const struct addr *source)
{
	if (source->len <= sizeof(sa_family_t))
		return BIT(STAT_UDP_NOT_UNICAST);
	for (size_t i = 0; i < rules->own_count; i++)
		if (rules->own[i].sa.sa_family == AF_UNIX && rules->own[i].len == source->len &&
		    memcmp(&rules->own[i].un, &source->un, source->len) == 0)
			return BIT(STAT_UDP_OWN_ADDRESS);
	return 0;
}

/* --- the target ------------------------------------------------------------------------ */

/* The datagrams of one source that passed the rate limit. */
struct usage {
	struct addr source;
	uint64_t passed;
	int64_t since;
};

/* At most the datagrams of one second pass at once, and after that the rate for the elapsed time. */
static void try_limiter(struct usage *usage, unsigned rate, const struct addr *source, int64_t now,
                        unsigned count)
{
	unsigned passed =
		udp_ratelimit_take(&limiter, rate, udp_ratelimit_hash(&limiter, source), now, count);

	FUZZ_CLAIM(passed <= count);
	if (rate == 0) {
		FUZZ_CLAIM(passed == count);
		return;
	}
	if (usage->passed == 0 || !addr_equal(&usage->source, source)) {
		*usage = (struct usage) { .source = *source, .since = now };
	}
	usage->passed += passed;
	FUZZ_CLAIM(usage->passed <= rate + (uint64_t) (now - usage->since) * rate / USEC + 1);
}

static void try_dgram(struct fuzz_input *input, const struct dgram_rules *rules)
{
	struct dgram dgram = { .source = take_addr(input) };
	enum stats_counter verdict;
	unsigned against;

	dgram.to = take_bits(input);
	dgram.local = fuzz_take(input) % 4 == 3 ? take_bits(input) : dgram.to;
	dgram.interface = fuzz_take(input) % 4;
	dgram.hops = (int) fuzz_take(input) - 1;
	FUZZ_CLAIM(dgram_answer_interface(&dgram) == 0 || dgram_answer_interface(&dgram) == dgram.interface);
	verdict = dgram_filter(rules, &dgram);
	against = dgram.source.sa.sa_family == AF_UNIX ? unix_reasons(rules, &dgram.source)
	                                               : reasons(rules, &dgram);
	if (verdict == DGRAM_ANSWER) {
		FUZZ_CLAIM(against == 0);
		FUZZ_CLAIM(dgram.source.sa.sa_family == AF_UNIX || dgram.hops < 0 ||
		           dgram_answer_hops(dgram.hops) < dgram.hops);
		FUZZ_CLAIM(dgram.source.sa.sa_family == AF_UNIX || dgram_answer_hops(dgram.hops) > 0);
		return;
	}
	FUZZ_CLAIM(verdict >= STAT_UDP_LOW_PORT && verdict < STAT_UDP_RATE);
	FUZZ_CLAIM(against & BIT(verdict));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int64_t epoch = USEC;
	struct fuzz_input input = { data, size };
	struct cidr_set allow = take_set(&input), deny = take_set(&input), trusted = take_set(&input);
	struct addr own[OWN_MAX];
	struct dgram_rules rules = { &allow, &deny, &trusted, own, fuzz_take(&input) % (OWN_MAX + 1) };
	unsigned rate = fuzz_take(&input) * fuzz_take(&input);
	struct usage usage = { .passed = 0 };

	for (size_t i = 0; i < rules.own_count; i++)
		own[i] = take_addr(&input);
	/* after a thousand seconds earlier inputs have no effect on the rate limit */
	epoch += (int64_t) 1000 * USEC;
	for (int i = 0, later = 0; i < DATAGRAMS_MAX && input.size > 0; i++) {
		struct addr source;

		try_dgram(&input, &rules);
		source = take_addr(&input);
		later += (int) fuzz_take_size(&input) * 16;
		try_limiter(&usage, rate, &source, epoch + later, (unsigned) fuzz_take_size(&input));
	}
	cidr_set_clear(&allow);
	cidr_set_clear(&deny);
	cidr_set_clear(&trusted);
	return 0;
}
