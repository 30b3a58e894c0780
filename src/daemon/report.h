/* SPDX-License-Identifier: ISC */
/* report.h - statistics for the service manager, the log and the metrics file
 *
 * Supervisor only. All figures come from scoreboard_total().
 */
#ifndef ECHOD_DAEMON_REPORT_H
#define ECHOD_DAEMON_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/conf.h"
#include "echo/scoreboard.h"

struct report {
	struct stats_total last;  /* totals that were reported last */
	char last_error[256];        /* last warning or error, or "" */
	bool metrics_failed;      /* the error was logged */
	uint64_t suppressed;      /* number reported so far */
	uint64_t log_lost;        /* number reported so far */
	uint64_t progress, unsent; /* at the last report_progress() */
	uint64_t cut_off;         /* number reported so far */
	uint64_t drained;         /* at the last report_drained() */
};

enum report_kind {
	REPORT_CHANGES, /* only if a counter has changed since the last call */
	REPORT_READY,   /* always, with READY=1 */
};

/* Send STATUS=; write the metrics file; log the statistics line. */
void report_refresh(struct report *report, struct scoreboard *scoreboard, const struct conf *conf,
                    unsigned workers, enum report_kind kind);

/* Log the statistics line now. */
void report_log(struct report *report, struct scoreboard *scoreboard);

/* Write the last metrics file and statistics line of this process. */
void report_final(struct report *report, struct scoreboard *scoreboard, const struct conf *conf);

/* Send STATUS= at once if a message of LOG_WARNING or worse was logged since it was sent last. Returns
 * whether it was sent. */
bool report_last_error(struct report *report, struct scoreboard *scoreboard, const struct conf *conf,
                       unsigned workers);

/* Clear the last error from STATUS=. */
void report_clear_last_error(struct report *report);

/* Log the number of log lines suppressed since the last call, if any. */
void report_suppressed(struct report *report, struct scoreboard *scoreboard);

/* Whether a byte was sent or acknowledged, or a connection ended, since the last call. */
bool report_progress(struct report *report, struct scoreboard *scoreboard);

/* Log the number of connections cut off at the end of drain-timeout since the last call, if any. */
void report_cut_off(struct report *report, struct scoreboard *scoreboard);

/* Number of connections that a stopping crew drained instead of handing them over, since the last call. */
uint64_t report_drained(struct report *report, struct scoreboard *scoreboard);

void report_clear(struct report *report);

#endif
