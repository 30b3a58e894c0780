/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/report.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/notify.h"
#include "base/plural.h"

/* Write `bytes` to `text`, as in "34.5 MiB". Returns `text`. */
static char *bytes_print(uint64_t bytes, char text[static 32])
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double) bytes / 1024;
	size_t unit = 0;

	if (bytes < 1024) {
		snprintf(text, 32, "%" PRIu64 " bytes", bytes);
		return text;
	}
	while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
		value /= 1024;
		unit++;
	}
	snprintf(text, 32, "%.1f %s", value, units[unit]);
	return text;
}

/* --- the statistics line --------------------------------------------------------------- */

/* Log every counter that is not 0, in the order of the table: "accepted 12, ended eof 11, …". */
static void log_line(const struct stats_total *total)
{
	struct log_record record;
	char text[1400];
	size_t at = 0;

	if (!log_wants(LOG_INFO))
		return;
	for (enum stats_counter i = 0; i < STATS_COUNT && at < sizeof text; i++) {
		const char *labels = stats_labels(i), *value = strchr(labels, '"');

		if (total->counters[i] == 0)
			continue;
		at += (size_t) snprintf(text + at, sizeof text - at, ", %s%s%.*s %" PRIu64, stats_name(i),
		                        value ? " " : "", value ? (int) strcspn(value + 1, "\"") : 0,
		                        value ? value + 1 : "", total->counters[i]);
	}
	log_begin(&record, LOG_INFO, EVENT_STATISTICS);
	log_add(&record, "ECHOD_BYTES", "%" PRIu64, total->counters[STAT_ECHOED]);
	log_end(&record, "Statistics: connections %" PRIu64 "%s", total->live,
	        at > 0 ? text : ", nothing happened yet");
}

void report_log(struct report *report, struct scoreboard *scoreboard)
{
	struct stats_total total;

	(void) report;
	scoreboard_total(scoreboard, &total);
	log_line(&total);
}

/* --- the metrics file ------------------------------------------------------------------ */

/* Write echod_worker_connections, a row for each running worker. */
static void write_workers(const struct scoreboard *scoreboard, FILE *out)
{
	unsigned end = 1;

	fputs("# TYPE echod_worker_connections gauge\n# HELP echod_worker_connections Connections being "
	      "served by each worker\n",
	      out);
	for (unsigned i = 0; i < end; i++) {
		uint64_t connections;

		if (scoreboard_worker_connections(scoreboard, i, &connections, &end))
			fprintf(out, "echod_worker_connections{worker=\"%u\"} %" PRIu64 "\n", i, connections);
	}
}

static int metrics_write(const struct stats_total *total, const struct scoreboard *scoreboard,
                         const char *path)
{
	char temporary[PATH_MAX];
	int fd, error;
	FILE *out;

	if (snprintf(temporary, sizeof temporary, "%s.XXXXXX", path) >= (int) sizeof temporary)
		return -ENAMETOOLONG;
	fd = mkstemp(temporary);
	if (fd < 0)
		return -errno;
	out = fdopen(fd, "w");
	if (!out) {
		error = errno;
		close(fd);
		unlink(temporary);
		return -error;
	}
	stats_write_openmetrics(total, out);
	write_workers(scoreboard, out);
	fputs("# EOF\n", out);
	errno = 0;
	if (ferror(out) || fchmod(fd, 0644) < 0 || fflush(out) != 0 || rename(temporary, path) < 0) {
		error = errno ? errno : EIO;
		fclose(out);
		unlink(temporary);
		return -error;
	}
	fclose(out);
	return 0;
}

static void metrics_refresh(struct report *report, const struct stats_total *total,
                            const struct scoreboard *scoreboard, const struct conf *conf)
{
	int r = *conf->metrics_file ? metrics_write(total, scoreboard, conf->metrics_file) : 0;

	if (r < 0 && !report->metrics_failed)
		log_event(LOG_WARNING, EVENT_METRICS_FAILED, "Cannot write metrics-file %s: %s",
		          conf->metrics_file, strerror(-r));
	report->metrics_failed = r < 0;
}

/* --- STATUS= --------------------------------------------------------------------------- */

static void status_send(const struct report *report, const struct stats_total *total, const struct conf *conf,
                        unsigned workers, bool ready)
{
	char bytes[32];

	notify_status(ready ? "READY=1" : "",
	              "Serving %" PRIu64 " connection%s with %s, %u worker%s; %s echoed%s%s", total->live,
	              plural(total->live), conf->model, workers, plural(workers),
	              bytes_print(total->counters[STAT_ECHOED] + total->counters[STAT_UDP_BYTES], bytes),
	              *report->last_error ? "; last error: " : "", report->last_error);
}

void report_refresh(struct report *report, struct scoreboard *scoreboard, const struct conf *conf,
                    unsigned workers, enum report_kind kind)
{
	struct stats_total total;
	bool changed;

	scoreboard_total(scoreboard, &total);
	changed = memcmp(&total, &report->last, sizeof total) != 0;
	if (!changed && kind == REPORT_CHANGES)
		return;
	metrics_refresh(report, &total, scoreboard, conf);
	(void) log_take_last_error(report->last_error, sizeof report->last_error);
	status_send(report, &total, conf, workers, kind == REPORT_READY);
	if (changed && kind == REPORT_CHANGES)
		log_line(&total);
	report->last = total;
}

void report_final(struct report *report, struct scoreboard *scoreboard, const struct conf *conf)
{
	struct stats_total total;

	scoreboard_total(scoreboard, &total);
	metrics_refresh(report, &total, scoreboard, conf);
	log_line(&total);
}

/* --- the rest -------------------------------------------------------------------------- */

bool report_last_error(struct report *report, struct scoreboard *scoreboard, const struct conf *conf,
                       unsigned workers)
{
	struct stats_total total;

	if (!log_take_last_error(report->last_error, sizeof report->last_error))
		return false;
	scoreboard_total(scoreboard, &total);
	status_send(report, &total, conf, workers, false);
	return true;
}

void report_clear_last_error(struct report *report)
{
	(void) log_take_last_error(report->last_error, sizeof report->last_error);
	*report->last_error = '\0';
}

/* Returns the growth of a counter since `*reported`, and updates `*reported`. */
static uint64_t count_since(struct scoreboard *scoreboard, enum stats_counter counter, uint64_t *reported)
{
	struct stats_total total;
	uint64_t before = *reported;

	scoreboard_total(scoreboard, &total);
	*reported = total.counters[counter];
	return *reported - before;
}

void report_suppressed(struct report *report, struct scoreboard *scoreboard)
{
	uint64_t suppressed = count_since(scoreboard, STAT_LOG_SUPPRESSED, &report->suppressed);
	uint64_t lost = count_since(scoreboard, STAT_LOG_LOST, &report->log_lost);

	if (suppressed > 0)
		log_event(LOG_INFO, EVENT_LINES_SUPPRESSED,
		          "Suppressed %" PRIu64 " log lines: too many from their source or in total",
		          suppressed);
	if (lost > 0)
		log_event(LOG_INFO, EVENT_LINES_SUPPRESSED,
		          "Suppressed %" PRIu64 " log lines: their target or the supervisor was "
		          "too slow",
		          lost);
}

bool report_progress(struct report *report, struct scoreboard *scoreboard)
{
	struct stats_total total;
	uint64_t now = 0;
	bool moved;

	scoreboard_total(scoreboard, &total);
	for (enum stats_counter i = 0; i < STATS_COUNT; i++)
		now += total.counters[i];
	moved = now != report->progress || total.unsent < report->unsent;
	report->progress = now;
	report->unsent = total.unsent;
	return moved;
}

void report_cut_off(struct report *report, struct scoreboard *scoreboard)
{
	uint64_t count = count_since(scoreboard, STAT_CUT_OFF, &report->cut_off);

	if (count > 0)
		log_event(LOG_NOTICE, EVENT_DRAIN_CUT,
		          "Cut off %" PRIu64 " connection%s at the end of drain-timeout before all data were "
		                             "received",
		          count, plural(count));
}

uint64_t report_drained(struct report *report, struct scoreboard *scoreboard)
{
	return count_since(scoreboard, STAT_ENDED_DRAIN, &report->drained);
}

void report_clear(struct report *report)
{
	*report = (struct report) { 0 };
}
