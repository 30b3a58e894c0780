/* SPDX-License-Identifier: ISC */
/* dgram.h - which datagrams are answered, and the hop limit of the answer
 *
 * The source of a datagram can be forged, and two services that answer each other never stop by themselves
 * (CVE-1999-0103, CVE-2024-2169). dgram_filter() decides whether a datagram is answered; if not, it returns
 * the counter of the reason. Ports do not reveal two echo services on high ports of different hosts; such
 * loops end by the hop limit: an answer has a lower TTL or hop limit than the datagram it answers, as if it
 * had been forwarded. See dgram_answer_hops().
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

/* An answer has DGRAM_HOPS_STEP hops less than its datagram, and at most DGRAM_HOPS_MAX. So a datagram that
 * circulates between two services is answered at most 7 times, and a client that sends with 64 hops (Linux,
 * the BSDs, macOS; others use 128 or 255) is reached at a distance of up to 28 routers. */
#define DGRAM_HOPS_STEP 8
#define DGRAM_HOPS_MAX 64

/* The DSCP bits of a TOS octet or traffic class (RFC 2474). The other two bits are ECN (RFC 3168); an answer
 * does not copy them, because they belong to the sender's transport. */
#define DGRAM_DSCP 0xfc

/* The loopback interface has this index in every network namespace. */
#define DGRAM_LOOPBACK 1

/* A datagram, or several of one sender that the kernel delivered together (UDP GRO). */
struct dgram {
	struct addr source; /* IPv4-mapped addresses unmapped; len 0 or no path: an unnamed unix socket */
	struct in6_addr to;       /* destination in the header, IPv4 as IPv4-mapped; "::" where unknown */
	struct in6_addr local;    /* address of this host that received it, in the same form; differs from
	                           * `to` for a broadcast */
	unsigned interface;       /* index of the interface it arrived on; 0: unknown */
	int hops;                 /* TTL or hop limit on arrival; -1: unknown */
	int traffic_class;        /* TOS (IPv4) or traffic class (IPv6) on arrival; 0: unknown */
};

struct dgram_rules {
	const struct cidr_set *allow, *deny, *trusted;
	const struct addr *own;   /* addresses of this daemon's datagram sockets */
	size_t own_count;
};

/* Result of dgram_filter(): answer the datagram. */
#define DGRAM_ANSWER STATS_COUNT

/* Returns DGRAM_ANSWER, or the counter (STAT_UDP_*) of the reason not to answer `dgram`. */
enum stats_counter dgram_filter(const struct dgram_rules *rules, const struct dgram *dgram);

/* The index of the interface that the answer to `dgram` must be sent from; 0: leave it to the routing table.
 * Only link-local addresses (RFC 3927, RFC 4007) need an interface; other answers may take another route than
 * the datagram. */
unsigned dgram_answer_interface(const struct dgram *dgram);

/* TTL or hop limit of the answer to a datagram that arrived with `hops` (-1: unknown) and passed
 * dgram_filter(). */
int dgram_answer_hops(int hops);

#endif
