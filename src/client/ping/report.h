/* SPDX-License-Identifier: ISC */
/* report.h - output of a ping: lines, summary, JSON, metrics
 *
 * Main thread. Nothing is printed where the options say so.
 */
#ifndef ECHOD_CLIENT_PING_REPORT_H
#define ECHOD_CLIENT_PING_REPORT_H

#include "client/error.h"
#include "client/ping/session.h"

void ping_report_start(const struct ping *ping);

/* An answer of `length` bytes. `info` is what is known of its packet (UDP). */
void ping_report_answer(const struct ping *ping, const struct ping_flow *flow,
			const struct probe_match *match, size_t length, const struct packet_info *info);

/* Probe `seq` has failed, or is not answered in time. */
void ping_report_failure(const struct ping *ping, uint64_t seq, const char *what);

/* An error was reported for probe `seq` (0: unknown). */
void ping_report_error(const struct ping *ping, uint64_t seq, const struct packet_error *error);

/* The summary so far, after Ctrl-\. */
void ping_report_interim(struct ping *ping);

/* Print the summary, write the metrics, and return the outcome. */
enum outcome ping_report_end(struct ping *ping);

/* The server could not be reached: print the reason and write the metrics. Returns OUTCOME_UNREACHABLE. */
enum outcome ping_report_unreachable(struct ping *ping, const char *why);

#endif
