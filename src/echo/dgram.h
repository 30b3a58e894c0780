/* dgram.h - which datagrams are answered, and how far the answer may travel
 *
 * Anybody can forge the source of a datagram, and two services that answer each other never
 * stop by themselves (CVE-1999-0103, CVE-2024-2169). The guard says of each datagram whether
 * it is answered, and if not, why not, as the counter to count it in. What ports cannot tell,
 * two echo services on high ports of different hosts, ends as loops of packets do everywhere:
 * an answer has fewer hops left to live (TTL, hop limit) than the datagram it answers, as if
 * that had been forwarded, so a datagram that goes round dies. See dgram_answer_hops().
 *
 * No system calls; pure; any thread.
 */
#ifndef ECHOD_ECHO_DGRAM_H
#define ECHOD_ECHO_DGRAM_H

#include <netinet/in.h>
#include <stddef.h>

#include "echo/stats.h"
#include "net/addr.h"
#include "net/cidr.h"

/* An answer has this many hops less than what it answers, and never more than this many in
 * all. With these, what goes round between two services is answered at most 7 times, and a
 * client whose datagrams start with 64 hops (Linux, the BSDs, macOS; others use 128 or 255)
 * is reached up to 28 routers away. */
#define DGRAM_HOPS_STEP 8
#define DGRAM_HOPS_MAX 64

/* The DSCP in a TOS octet or traffic class (RFC 2474). The other two bits are ECN (RFC 3168), which an answer does not copy:
 * they speak of the transport that sent them. */
#define DGRAM_DSCP 0xfc

/* The loopback interface has this index in every network namespace. */
#define DGRAM_LOOPBACK 1

/* A datagram, or several of one origin that the kernel delivered together. */
struct dgram {
	struct addr source;       /* an IPv4-mapped address unmapped; len 0 or no path: an unnamed unix socket */
	struct in6_addr to;       /* destination in its header, IPv4 as IPv4-mapped; "::" where unknown */
	struct in6_addr local;    /* this host's address that is meant by it, likewise: another one for a broadcast */
	unsigned interface;       /* where it arrived; 0: unknown */
	int hops;                 /* TTL or hop limit on arrival; -1: unknown */
	int traffic_class;        /* TOS (IPv4) or traffic class (IPv6) on arrival; 0: unknown */
};

struct dgram_rules {
	const struct cidr_set *allow, *deny, *trusted;
	const struct addr *own;   /* what the datagram sockets of this daemon are bound to */
	size_t own_count;
};

/* dgram_guard(): nothing speaks against an answer. */
#define DGRAM_ANSWER STATS_COUNT

/* The counter of why `dgram` is not answered, one of STAT_UDP_*, or DGRAM_ANSWER. */
enum stats_counter dgram_guard(const struct dgram_rules *rules, const struct dgram *dgram);

/* The interface that the answer to `dgram` must leave by; 0: the one that the routing table says. Only addresses
 * that have a meaning on one link only (RFC 3927, RFC 4007) name the interface: elsewhere the way back may be another
 * than the way here. */
unsigned dgram_answer_interface(const struct dgram *dgram);

/* TTL or hop limit of the answer to what arrived with `hops` (-1: unknown) and passed the guard. */
int dgram_answer_hops(int hops);

#endif
