/* SPDX-License-Identifier: ISC */
/* report.h - result of a load run, as text and as JSON
 *
 * Main thread.
 */
#ifndef ECHOD_CLIENT_LOAD_REPORT_H
#define ECHOD_CLIENT_LOAD_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "client/histogram.h"
#include "client/options.h"

struct load_report {
	const struct client_options *options;
	const char *engine;
	const char *engine_note; /* why the preferred engine is not used; NULL: it is */
	const char *transport;   /* "tcp", "udp", "unix" */
	const char *address;
	double measured_from; /* start of the measurement, in seconds of CLOCK_MONOTONIC */
	double seconds;       /* duration of the measurement */
	double echoes;
	uint64_t bytes;                      /* that came back during measurement */
	uint64_t bytes_sent, bytes_received; /* during the whole run */
	uint64_t connections_made;
	uint64_t errors, lost, mismatches, duplicates;
	uint64_t idle_lost;        /* idle connections that were closed */
	uint64_t port_waits;       /* times that no local port was free */
	uint64_t due, unserved;    /* open loop: messages due during measurement; never started */
	double cpu_seconds;        /* of all threads during measurement */
	double cpu_share_highest;  /* of the busiest thread: 1 is one processor */
	double wait_share_highest; /* share of the time that this thread waited for a processor */
	bool limited;              /* the client was the limit */
	bool interrupted;
	const char *fault; /* first error; NULL: none */
	const char *error; /* reason for an exit status other than 0; NULL: it is 0 */
	struct histogram latency;
};

/* An interval of the measurement (--report). Times are seconds since its start. */
struct load_interval {
	double start, end;
	uint64_t echoes, bytes, errors, lost, mismatches, connections;
	const struct histogram *latency; /* of the messages that were answered in it */
};

void load_report_interval(const struct client_options *options, const struct load_interval *interval);

void load_report_text(const struct load_report *report);
void load_report_json(const struct load_report *report);

#endif
