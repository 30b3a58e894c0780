/* SPDX-License-Identifier: ISC */
/* datagram.h - the reader of a datagram socket: a worker of its own, in a process of its own
 *
 * Each datagram socket has one reader at a time, in every model: so the datagrams of a flow are answered in
 * the order in which they came, and a flood of them delays no connection. The socket outlives its readers:
 * over a reload, or after a crash, the next reader starts when its predecessors have ended.
 *
 * A struct datagram belongs to one process with one thread. It shares nothing with other processes
 * but its counters and, with the readers before and after it, the table of udp-rate (echo/udp_ratelimit.h).
 */
#ifndef ECHOD_MODELS_DATAGRAM_H
#define ECHOD_MODELS_DATAGRAM_H

#include "base/ratelimit.h"
#include "echo/dgram.h"
#include "models/worker.h"

/* Sources are told apart by so many hashes where log lines are limited. */
#define DATAGRAM_LINES 16

struct datagram_batch;
struct udp_ratelimit;

struct datagram {
	struct worker *worker;
	const struct listener *listener;
	struct addr *own;             /* the addresses of all datagram sockets of the daemon */
	struct dgram_rules rules;
	struct udp_ratelimit *udp_ratelimit;
	bool wildcard;                /* the socket has no address of its own: each answer names its source address */
	int hops;                     /* IP_TTL and IPV6_UNICAST_HOPS of the socket; 0: unknown */
	int mtu;                      /* IPV6_MTU of the socket; 0: that of the interface */
	struct datagram_batch *batch; /* about 2 MiB, of which only what is used costs memory */
	struct ratelimit lines[STATS_COUNT][DATAGRAM_LINES];
};

/* Prepare to read `listener`. The worker's listeners are all datagram sockets of the daemon. `meter`: a file of
 * udp_ratelimit_make(), which stays the caller's. 0 or -errno, after which datagram_close() is still right. */
int datagram_open(struct datagram *datagram, struct worker *worker, const struct listener *listener, int udp_ratelimit);
void datagram_close(struct datagram *datagram);

/* Set the options of the socket that reading needs. Before the first datagram_turn(), when no other process reads it. */
void datagram_start(struct datagram *datagram);

/* The socket is readable: take some batches, answer the datagrams that may be answered. Never blocks; an answer that
 * cannot be sent at once is dropped and counted. More datagrams may be waiting afterwards. */
void datagram_turn(struct datagram *datagram);

/* Take what is in the socket's queue now, as datagram_turn() does, for the end. */
void datagram_finish(struct datagram *datagram);

/* The life of a reader: report ready, wait until all predecessors have ended, read until worker->stop_fd is readable.
 * `predecessors`: descriptors that are at end of file when their process has ended. 0 or -errno. */
int datagram_run(struct worker *worker, const struct listener *listener, int udp_ratelimit, const int *predecessors,
                 size_t predecessor_count);

#endif
