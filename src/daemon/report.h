/* SPDX-License-Identifier: ISC */
/* report.h - the statistics as the manager, the log and the metrics file get them
 *
 * Supervisor only. Everything comes from one scoreboard_total().
 */
#ifndef ECHOD_DAEMON_REPORT_H
#define ECHOD_DAEMON_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/conf.h"
#include "echo/scoreboard.h"

struct report {
	struct stats_total last;  /* what was told last */
	char trouble[256];        /* the last one, or "" */
	bool metrics_failed;      /* and was told */
	uint64_t suppressed;      /* told so far */
	uint64_t log_lost;        /* told so far */
	uint64_t progress, unsent; /* at the last report_progress() */
	uint64_t cut_off;         /* told so far */
	uint64_t drained;         /* at the last report_drained() */
};

/* Send STATUS=, with READY=1 if `ready`; write the metrics file; log the statistics line. Unless
 * `ready`, only where something has changed since the last time. */
void report_refresh(struct report *report, struct scoreboard *scoreboard, const struct conf *conf,
                    unsigned workers, bool ready);

/* Log the statistics line now. */
void report_log(struct report *report, struct scoreboard *scoreboard);

/* The last metrics file and statistics line of this process. */
void report_final(struct report *report, struct scoreboard *scoreboard, const struct conf *conf);

/* Send STATUS= at once if something was logged as LOG_WARNING or worse since it was sent last. Returns whether it was. */
bool report_trouble(struct report *report, struct scoreboard *scoreboard, const struct conf *conf, unsigned workers);

/* What went wrong is history: STATUS= shall not speak of it any more. */
void report_forget_trouble(struct report *report);

/* Tell how many lines were left out since the last call, if any. */
void report_left_out(struct report *report, struct scoreboard *scoreboard);

/* Whether any byte was sent, or taken by a client, or any connection ended since the last call. */
bool report_progress(struct report *report, struct scoreboard *scoreboard);

/* Tell how many connections were cut off at the end of drain-timeout since the last call, if any. */
void report_cut_off(struct report *report, struct scoreboard *scoreboard);

/* Connections that a stopping crew had to end instead of handing them over, since the last call. */
uint64_t report_drained(struct report *report, struct scoreboard *scoreboard);

void report_clear(struct report *report);

#endif
