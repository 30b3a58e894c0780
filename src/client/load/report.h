/* report.h - what a load run came to, for people and for scripts
 *
 * Main thread.
 */
#ifndef ECHOD_CLIENT_REPORT_H
#define ECHOD_CLIENT_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "client/histogram.h"
#include "client/options.h"

struct load_report {
	const struct client_options *options;
	const char *engine;
	const char *engine_note; /* why it is not the one that would be taken first; NULL */
	const char *transport;   /* "tcp", "udp", "unix" */
	const char *address;
	double measured_from; /* the second of CLOCK_MONOTONIC at which measuring began */
	double seconds;       /* measured */
	double echoes;
	uint64_t bytes;                      /* echoed while measuring */
	uint64_t bytes_sent, bytes_received; /* over the whole run */
	uint64_t connections_made;
	uint64_t errors, lost, mismatches, duplicates;
	uint64_t idle_lost; /* idle connections that did not last */
	uint64_t unsent;
	double cpu_seconds;        /* of all threads while measuring */
	double cpu_share_highest;  /* of the busiest thread: 1 is one processor */
	double wait_share_highest; /* of the same: share of the time it waited for a processor */
	bool limited;              /* the client was the limit */
	bool interrupted;
	const char *fault; /* the first thing that went wrong; NULL */
	struct histogram latency;
};

void load_report_text(const struct load_report *report);
void load_report_json(const struct load_report *report);

#endif
