/* SPDX-License-Identifier: ISC */
/* datagram.h - the reader of a datagram socket: one worker in its own process
 *
 * Each datagram socket has one reader at a time, in every model, so the datagrams of a flow are answered in
 * the order of arrival, and a flood of them delays no connection. The socket outlives its readers: after a
 * reload or a crash, the next reader starts when its predecessors have ended.
 *
 * A struct datagram belongs to one process with one thread. It shares with other processes only its counters
 * and, with the readers before and after it, the table of udp-rate (echo/udp_ratelimit.h).
 */
#ifndef ECHOD_MODELS_DATAGRAM_H
#define ECHOD_MODELS_DATAGRAM_H

#include "base/ratelimit.h"
#include "echo/dgram.h"
#include "models/worker.h"

/* Number of hash values of sources in the limit of log lines. */
#define DATAGRAM_LINES 16

struct datagram_batch;
struct udp_ratelimit;

struct datagram {
	struct worker *worker;
	const struct listener *listener;
	struct addr *own; /* addresses of all datagram sockets of the daemon */
	struct dgram_rules rules;
	struct udp_ratelimit *udp_ratelimit;
	bool wildcard;       /* the socket is not bound to one address: each answer needs a source address */
	int hops;            /* present IP_TTL and IPV6_UNICAST_HOPS of the socket; 0: unknown */
	int mtu;             /* present IPV6_MTU of the socket; 0: that of the interface */
	bool blocking;       /* recvmmsg(2) can wait on the socket */
	int64_t received_at; /* clock_coarse_usec() when the last datagram was received; 0: none was */
	struct datagram_batch *batch; /* about 2 MiB, of which only used pages cost memory */
	struct ratelimit lines[STATS_COUNT][DATAGRAM_LINES];
};

/* Prepare to read `listener`. The worker's listeners are all datagram sockets of the daemon. `udp_ratelimit`
 * is a file of udp_ratelimit_make(), which the caller keeps. Returns 0 or -errno; datagram_close() is needed
 * in both cases. */
int datagram_open(struct datagram *datagram, struct worker *worker, const struct listener *listener,
                  int udp_ratelimit);
void datagram_close(struct datagram *datagram);

/* Set the socket options that reading needs. Call it before the first datagram_read(), when no other process
 * reads the socket. */
void datagram_start(struct datagram *datagram);

/* Read some batches from the readable socket and answer the datagrams that may be answered. Never blocks; an
 * answer that cannot be sent at once is dropped and counted. The socket may still be readable afterwards. */
void datagram_read(struct datagram *datagram);

/* While datagrams arrive at short intervals, wait for them and answer them, without poll(2) in between; for
 * at most 50 ms. Returns at once where the socket does not block (listener->blocking). */
void datagram_read_stream(struct datagram *datagram);

/* Run a reader: report ready, wait until all predecessors have ended, read until worker->stop_fd is readable.
 * `predecessors`: descriptors that are at end of file when their process has ended. Returns 0 or -errno. */
int datagram_run(struct worker *worker, const struct listener *listener, int udp_ratelimit,
                 const int *predecessors, size_t predecessor_count);

#endif
