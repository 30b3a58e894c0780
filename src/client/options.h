/* SPDX-License-Identifier: ISC */
/* options.h - command line of echoc
 *
 * Main thread; parsed once.
 */
#ifndef ECHOD_CLIENT_OPTIONS_H
#define ECHOD_CLIENT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "client/error.h"
#include "client/target.h"

enum activity { ACTIVITY_TALK, ACTIVITY_PING, ACTIVITY_LOAD };

enum load_mode { LOAD_RR, LOAD_STREAM, LOAD_CONNECT };

enum load_engine_choice { ENGINE_AUTO, ENGINE_EPOLL, ENGINE_URING };

/* All times are in nanoseconds. */
struct client_options {
	enum activity activity;
	struct socket_options sockopts;
	const char *host;
	const char *port; /* NULL: not given */
	bool udp;
	bool json;
	bool json_stream; /* implies json */
	bool timestamps;
	bool quiet;
	uint64_t timeout; /* for an answer; NSEC_NEVER: no limit */
	uint64_t size;    /* bytes of a message */

	/* ping */
	uint64_t count;    /* 0: until interrupted */
	uint64_t interval; /* 0: the next probe is sent when the previous one was answered */
	uint64_t deadline; /* NSEC_NEVER: none */
	bool reconnect;
	unsigned flows;
	const char *metrics; /* path; NULL: none */

	/* load */
	enum load_mode mode;
	enum load_engine_choice engine;
	unsigned connections;
	unsigned idle;
	unsigned threads;
	unsigned depth; /* 0: unlimited (streams; datagrams with a rate) */
	uint64_t duration;
	uint64_t warmup;
	uint64_t ramp;
	uint64_t rate;   /* messages per second over all connections; 0: closed loop */
	uint64_t report; /* 0: no interval reports */
	const char *plot;
};

/* Parse and check the command line. Returns true if there is work to do. Otherwise echoc ends with
 * `*outcome`: help or version has been printed on standard output, or an error on standard error. */
bool client_options_parse(struct client_options *options, int argc, char *argv[], enum outcome *outcome);

/* "rr", "stream" or "connect". */
const char *options_mode_name(enum load_mode mode);

#endif
