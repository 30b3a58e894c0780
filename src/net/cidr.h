/* SPDX-License-Identifier: ISC */
/* cidr.h - IP networks, and sets of networks with fast look-up
 *
 * Addresses and networks are compared as 128-bit numbers, IPv4 as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2), so
 * that one order is valid for both. A set is a sorted array of disjoint ranges: a look-up among n networks
 * needs log2(n) comparisons and no allocation.
 */
#ifndef ECHOD_NET_CIDR_H
#define ECHOD_NET_CIDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct addr;

/* A network as the closed range of its addresses, in network byte order. */
struct cidr {
	uint8_t first[16];
	uint8_t last[16];
};

/* Read "192.0.2.1", "192.0.2.0/24", "2001:db8::/32" or "::1" from `text`. Bits set beyond the prefix are an
 * error ("192.0.2.1/24"). An IPv4-mapped IPv6 network is read as the IPv4 network. Returns 0, or -EINVAL with
 * `*why` set to a constant sentence that says what would be right. */
int cidr_parse(struct cidr *network, const char *text, const char **why);

struct cidr_set {
	struct cidr *ranges; /* sorted, disjoint; NULL when empty */
	size_t count;
};

/* Make a set of `count` networks in any order, which may overlap. Returns 0 or -ENOMEM. The set must be freed
 * with cidr_set_clear(). */
int cidr_set_make(struct cidr_set *set, const struct cidr *networks, size_t count);

/* Whether `addr` (IPv4 or IPv6, not a unix address) is in the set. Any thread. */
bool cidr_set_match(const struct cidr_set *set, const struct addr *addr);

/* Free the memory of the set and make it empty; a zeroed set is allowed. */
void cidr_set_clear(struct cidr_set *set);

#endif
