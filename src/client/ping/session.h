/* SPDX-License-Identifier: ISC */
/* session.h - state of a ping run, shared by its parts
 *
 * Main thread. Times are nanoseconds of nsec.h.
 */
#ifndef ECHOD_CLIENT_PING_SESSION_H
#define ECHOD_CLIENT_PING_SESSION_H

#include "client/options.h"
#include "client/ping/packet.h"
#include "client/ping/probes.h"
#include "client/target.h"

/* A socket with a source port of its own. */
struct ping_flow {
	int fd;        /* -1: not connected */
	uint16_t port; /* source port; 0: none */

	/* Streams: the probe being sent and the answer being received. */
	uint8_t *out, *in; /* probes->size bytes each */
	size_t out_done, in_done;
	bool sending;
	uint64_t answer;     /* number of the probe whose answer is in `in` */
	uint64_t last_probe; /* number of the probe sent last; 0: none */
};

struct ping {
	const struct client_options *options;
	const struct target *target;
	struct target_choice to;
	char address[ADDR_TEXT_MAX];
	struct probes probes;
	struct ping_flow *flows; /* options->flows of them */
	uint64_t begun, ended;
	uint64_t end;     /* the deadline; NSEC_NEVER: none */
	uint64_t next;    /* when the next probe is due */
	uint64_t refused; /* UDP: errors ECONNREFUSED */
	uint64_t errors;  /* UDP: errors reported by ICMP or this host */
	struct histogram connects;
	bool port_reported; /* that no local port was free */

	/* UDP: of the replies */
	int ttl_min, ttl_max;             /* -1: unknown */
	uint64_t dscp_kept, dscp_changed; /* replies with the DSCP of the probe, and with another one */
};

static inline bool ping_is_stream(const struct ping *ping)
{
	return !ping->options->udp;
}

/* The flow of probe `seq`. */
static inline struct ping_flow *ping_flow_of(const struct ping *ping, uint64_t seq)
{
	return &ping->flows[probes_flow_of(&ping->probes, seq)];
}

struct ping_loss {
	uint64_t lost, underway;
	double percent; /* of the probes that are not under way */
};

#endif
