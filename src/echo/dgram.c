/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "echo/dgram.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <string.h>

#define LOW_PORTS 1024
#define NFS_PORT 2049

static struct in6_addr addr_bits(const struct addr *addr)
{
	struct in6_addr bits = IN6ADDR_ANY_INIT;

	if (addr->sa.sa_family == AF_INET6)
		return addr->in6.sin6_addr;
	bits.s6_addr[10] = bits.s6_addr[11] = 0xff;
	memcpy(&bits.s6_addr[12], &addr->in.sin_addr, 4);
	return bits;
}

/* --- addresses ------------------------------------------------------------------------- */

/* Whether the address is none of: multicast, limited broadcast, "this host" (RFC 1122, 3.2.1.3), "::".
 * Directed broadcasts cannot be recognized by their bits; struct dgram's `local` shows them. */
static bool is_unicast(const struct in6_addr *bits)
{
	const uint8_t *in = &bits->s6_addr[12];

	if (!IN6_IS_ADDR_V4MAPPED(bits))
		return !IN6_IS_ADDR_MULTICAST(bits) && !IN6_IS_ADDR_UNSPECIFIED(bits);
	return in[0] != 0 && (in[0] & 0xf0) != 0xe0 && (in[0] & in[1] & in[2] & in[3]) != 0xff;
}

static bool is_loopback(const struct in6_addr *bits)
{
	return IN6_IS_ADDR_V4MAPPED(bits) ? bits->s6_addr[12] == 127 : IN6_IS_ADDR_LOOPBACK(bits);
}

static bool from_one_to_one(const struct dgram *dgram, const struct in6_addr *source)
{
	bool outside = dgram->interface != 0 && dgram->interface != DGRAM_LOOPBACK;

	if (!is_unicast(source) || (outside && is_loopback(source)))
		return false;
	if (IN6_IS_ADDR_UNSPECIFIED(&dgram->to))
		return true;
	return is_unicast(&dgram->to) && IN6_ARE_ADDR_EQUAL(&dgram->to, &dgram->local) &&
	       !(outside && is_loopback(&dgram->to));
}

/* --- rules ----------------------------------------------------------------------------- */

static bool is_denied(const struct dgram_rules *rules, const struct addr *source)
{
	if (cidr_set_match(rules->deny, source))
		return true;
	return rules->allow->count > 0 && !cidr_set_match(rules->allow, source);
}

/* Whether the source may be one of this daemon's own sockets. A port of this daemon at another host counts as
 * well, because the same service is likely to listen there. */
static enum stats_counter filter_own(const struct dgram_rules *rules, const struct dgram *dgram,
                                    const struct in6_addr *source)
{
	enum stats_counter verdict = DGRAM_ANSWER;

	for (size_t i = 0; i < rules->own_count; i++) {
		const struct addr *own = &rules->own[i];
		struct in6_addr bits;

		if (own->sa.sa_family == AF_UNIX || addr_port(own) != addr_port(&dgram->source))
			continue;
		bits = addr_bits(own);
		if (IN6_ARE_ADDR_EQUAL(&bits, source) || IN6_ARE_ADDR_EQUAL(&dgram->local, source))
			return STAT_UDP_OWN_ADDRESS;
		verdict = STAT_UDP_OWN_PORT;
	}
	return verdict;
}

static bool is_low(uint16_t port)
{
	return port < LOW_PORTS || port == NFS_PORT;
}

static enum stats_counter filter_unix(const struct dgram_rules *rules, const struct addr *source)
{
	if (source->len <= offsetof(struct sockaddr_un, sun_path))
		return STAT_UDP_NOT_UNICAST;
	for (size_t i = 0; i < rules->own_count; i++)
		if (addr_equal(&rules->own[i], source))
			return STAT_UDP_OWN_ADDRESS;
	return DGRAM_ANSWER;
}

enum stats_counter dgram_filter(const struct dgram_rules *rules, const struct dgram *dgram)
{
	uint16_t port = addr_port(&dgram->source);
	enum stats_counter verdict;
	struct in6_addr source;

	if (dgram->source.len == 0 || dgram->source.sa.sa_family == AF_UNIX)
		return filter_unix(rules, &dgram->source);
	source = addr_bits(&dgram->source);
	if (!from_one_to_one(dgram, &source))
		return STAT_UDP_NOT_UNICAST;
	if (is_denied(rules, &dgram->source))
		return STAT_UDP_DENIED;
	verdict = filter_own(rules, dgram, &source);
	if (verdict != DGRAM_ANSWER)
		return verdict;
	/* port 0 cannot be a destination */
	if (is_low(port) && (port == 0 || !cidr_set_match(rules->trusted, &dgram->source)))
		return STAT_UDP_LOW_PORT;
	if (dgram->hops >= 0 && dgram->hops <= DGRAM_HOPS_STEP)
		return STAT_UDP_LOOP;
	return DGRAM_ANSWER;
}

/* An IPv4 source that is link-local, or an IPv6 source or destination that is. */
static bool is_link_local(const struct dgram *dgram)
{
	if (dgram->source.sa.sa_family == AF_INET)
		return ntohl(dgram->source.in.sin_addr.s_addr) >> 16 == 0xa9fe;
	return dgram->source.sa.sa_family == AF_INET6 &&
	       (IN6_IS_ADDR_LINKLOCAL(&dgram->source.in6.sin6_addr) || IN6_IS_ADDR_LINKLOCAL(&dgram->local));
}

unsigned dgram_answer_interface(const struct dgram *dgram)
{
	return dgram->interface != DGRAM_LOOPBACK && is_link_local(dgram) ? dgram->interface : 0;
}

int dgram_answer_hops(int hops)
{
	return (hops < 0 || hops > DGRAM_HOPS_MAX ? DGRAM_HOPS_MAX : hops) - DGRAM_HOPS_STEP;
}
