/* udp_ratelimit.h - the limit of udp-rate: datagrams per second answered to each network
 *
 * A network is an IPv4 /24 or an IPv6 /48; all unix senders count as one. Each cell of the table is the
 * token bucket of the networks whose keyed hash selects it, stored as the one number by which the
 * generic cell rate algorithm does it (ITU-T I.371): the time at which the bucket will be full again. A
 * bucket holds the datagrams of one second.
 *
 * Nothing is ever evicted, so no network gets more than its rate by making others known. Networks that
 * share a cell, one pair in UDP_RATELIMIT_CELLS, share one rate and get less. The key is random and secret, so
 * no client can choose networks that share the cell of another client's.
 *
 * The table lies in a memory file, so that the limit also holds over a reload. Written and trusted by
 * the process that reads the datagram socket, and after it by its successor for the same socket; no other
 * process maps it. Whatever a predecessor has written there, a cell limits its networks for at most one
 * second. One process at a time, one thread.
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

/* Make the file of an empty table, 2 MiB of which only used pages cost memory. Its size cannot be changed.
 * Returns the descriptor (close-on-exec) or -errno. */
int udp_ratelimit_make(void);

/* Map the file of udp_ratelimit_make(), which may be closed afterwards. The first to do so chooses the key. 0 or -errno. */
int udp_ratelimit_map(struct udp_ratelimit **udp_ratelimit, int fd);

/* NULL is fine. */
void udp_ratelimit_unmap(struct udp_ratelimit *udp_ratelimit);

/* The keyed hash of the network of `source`; an IPv4-mapped address must be unmapped before. */
uint64_t udp_ratelimit_hash(const struct udp_ratelimit *udp_ratelimit, const struct addr *source);

/* The number of datagrams, of `count` from the network with this hash, that may be answered at time `now`
 * (clock_usec()), where `rate` datagrams per second may be; 0: no limit. They are used up. */
unsigned udp_ratelimit_take(struct udp_ratelimit *udp_ratelimit, unsigned rate, uint64_t hash, int64_t now, unsigned count);

#endif
