/* options.h - the command line of echoc
 *
 * Main thread; called once. Messages go to standard error (help and version to standard output).
 */
#ifndef ECHOD_CLIENT_OPTIONS_H
#define ECHOD_CLIENT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "client/target.h"

/* What echoc ends with, whatever it did. */
enum outcome {
	OUTCOME_OK = 0,
	OUTCOME_DIFFERS = 1, /* something was lost or came back different */
	OUTCOME_UNREACHED = 2,
	OUTCOME_USAGE = 64, /* asked for something that makes no sense or cannot be had here */
};

enum activity { ACTIVITY_TALK, ACTIVITY_PING, ACTIVITY_LOAD };

enum load_mode { LOAD_RR, LOAD_STREAM, LOAD_CONNECT };

enum load_engine_choice { ENGINE_AUTO, ENGINE_EPOLL, ENGINE_URING };

struct client_options {
	enum activity activity;
	struct socket_options sockopts;
	const char *host;
	const char *port; /* NULL: not given */
	bool udp;
	bool json;
	bool quiet;
	uint64_t
		timeout; /* ticks to wait for an answer; NSEC_NEVER: for ever; 0: the activity's own default */
	uint64_t size;   /* bytes a message; 0: the activity's own default */

	/* ping */
	uint64_t count;    /* 0: until interrupted */
	uint64_t interval; /* ticks; 0: as soon as the one before was answered */
	uint64_t deadline; /* ticks; NSEC_NEVER: none */
	bool reconnect;

	/* load */
	enum load_mode mode;
	enum load_engine_choice engine;
	unsigned connections;
	unsigned idle;
	unsigned threads;
	unsigned depth; /* 0: as much as the path takes (stream only) */
	uint64_t duration;
	uint64_t warmup;
	uint64_t ramp;
	uint64_t rate; /* messages a second over all; 0: as fast as they are answered */
	const char *plot;
};

/* Read the command line. Returns -1 where there is work to do, or the exit status. */
int client_options_parse(struct client_options *options, int argc, char *argv[]);

/* "rr", "stream" or "connect". */
const char *options_mode_name(enum load_mode mode);

#endif
