/* SPDX-License-Identifier: ISC */
/* udp_ratelimit.h - the limit of udp-rate: datagrams per second answered to each network
 *
 * A network is an IPv4 /24 or an IPv6 /48; all unix senders count as one. Each cell of the table is the token
 * bucket of the networks whose keyed hash selects it, stored as in the generic cell rate algorithm (ITU-T
 * I.371): as the time at which the bucket will be full again. A bucket holds the datagrams of one second.
 *
 * Entries are never evicted, so a network cannot get more than its rate by adding other networks. Networks
 * that share a cell (1 pair in UDP_RATELIMIT_CELLS) share one rate. The key is random and secret, so a client
 * cannot choose networks that share the cell of another client.
 *
 * The table is in a memory file, so that the limit persists over a reload. Written and trusted by the process
 * that reads the datagram socket, and later by its successor for the same socket; no other process maps it.
 * Whatever value the predecessor left, a cell limits its networks for at most one second. One process at a
 * time, one thread.
 */
#ifndef ECHOD_ECHO_UDP_RATELIMIT_H
#define ECHOD_ECHO_UDP_RATELIMIT_H

#include <stdint.h>

#include "base/siphash.h"
#include "net/addr.h"

#define UDP_RATELIMIT_CELLS (1U << 18)

struct udp_ratelimit {
	struct siphash_key key;
	int64_t cells[UDP_RATELIMIT_CELLS]; /* nanoseconds of CLOCK_MONOTONIC */
};

/* Make the file of an empty table of 2 MiB, of which only used pages cost memory. Its size is sealed. Returns
 * the descriptor (close-on-exec) or -errno. */
int udp_ratelimit_make(void);

/* Map the file of udp_ratelimit_make(); `fd` may be closed afterwards. The first process to map it chooses
 * the key. Returns 0 or -errno. */
int udp_ratelimit_map(struct udp_ratelimit **udp_ratelimit, int fd);

/* Unmap; NULL is allowed. */
void udp_ratelimit_unmap(struct udp_ratelimit *udp_ratelimit);

/* The keyed hash of the network of `source`, whose address must not be IPv4-mapped. */
uint64_t udp_ratelimit_hash(const struct udp_ratelimit *udp_ratelimit, const struct addr *source);

/* Take up to `count` tokens from the bucket of `hash` at time `now` (clock_usec()), at `rate` datagrams per
 * second (0: no limit). Returns the number taken, which is the number of datagrams that may be answered. */
unsigned udp_ratelimit_take(struct udp_ratelimit *udp_ratelimit, unsigned rate, uint64_t hash, int64_t now,
                            unsigned count);

#endif
