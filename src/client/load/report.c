/* SPDX-License-Identifier: ISC */
/* report.c - see report.h */
#include <config.h>

#include "client/load/report.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/plural.h"
#include "client/json.h"
#include "client/nsec.h"
#include "client/numbers.h"
#include "client/output.h"

#define BAR_WIDTH 40

static const struct {
	const char *name;
	double share;
} quantiles[] = { { "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "p99.9", 0.999 }, { "max", 1 } };

#define QUANTILES (sizeof quantiles / sizeof quantiles[0])

static double per_second(const struct load_report *report, double amount)
{
	return report->seconds > 0 ? amount / report->seconds : 0;
}

/* --- text --------------------------------------------------------------------------------------------- */

/* The limits of the rows of the diagram are 0, 1, 2, 5, 10, 20, 50, ... */
static uint64_t edge_next(uint64_t edge)
{
	uint64_t power = 1;

	if (edge == 0)
		return 1;
	while (edge / power >= 10)
		power *= 10;
	return edge / power == 2 ? power * 5 : edge * 2;
}

static void latency_row(const struct histogram *latency, uint64_t low, uint64_t high)
{
	char from[NUMBER_TEXT_MAX], to[NUMBER_TEXT_MAX];
	double share = (double) histogram_between(latency, low, high) / (double) latency->count;
	int width = (int) (share * BAR_WIDTH + 0.5);
	char bar[BAR_WIDTH + 1];

	memset(bar, '#', sizeof bar);
	bar[width] = '\0';
	/* A share too small for a "#" is still shown. */
	if (width == 0 && share > 0)
		strcpy(bar, ".");
	printf("  %7s - %-7s %8.3f %%  %s\n", number_duration(from, (double) low),
	       number_duration(to, (double) high), share * 100, bar);
}

static void latency_diagram(const struct histogram *latency)
{
	uint64_t low = 0;

	if (latency->count == 0)
		return;
	while (edge_next(low) <= latency->min)
		low = edge_next(low);
	putchar('\n');
	for (; low <= latency->max; low = edge_next(low))
		latency_row(latency, low, edge_next(low));
}

static void counts_print(const struct load_report *report)
{
	char count[NUMBER_TEXT_MAX], rate[NUMBER_TEXT_MAX];

	if (report->options->mode == LOAD_STREAM)
		printf("  stream     %.1f MB/s each way, %.0f messages of %llu byte%s\n",
		       per_second(report, (double) report->bytes) / 1e6, report->echoes,
		       (unsigned long long) report->options->size, plural(report->options->size));
	else
		printf("  echoes     %s, that is %s/s and %.2f MB/s each way\n",
		       number_group(count, (uint64_t) report->echoes),
		       number_group(rate, (uint64_t) (per_second(report, report->echoes) + 0.5)),
		       per_second(report, (double) report->bytes) / 1e6);
	if (report->options->rate > 0)
		printf("  rate       %s/s requested: %s messages were due",
		       number_group(rate, report->options->rate), number_group(count, report->due));
	if (report->unserved > 0)
		printf(", %s of them NOT SERVED", number_group(count, report->unserved));
	if (report->options->rate > 0)
		putchar('\n');
	printf("  bytes      %s sent, ", number_group(count, report->bytes_sent));
	printf("%s came back%s\n", number_group(count, report->bytes_received),
	       report->bytes_sent == report->bytes_received ? ", all as sent" : "");
}

static void latency_print(const struct load_report *report)
{
	char text[NUMBER_TEXT_MAX];

	if (report->latency.count == 0) {
		puts("  latency    unknown: nothing came back in that time");
		return;
	}
	printf("  latency   ");
	for (size_t i = 0; i < QUANTILES; i++)
		printf(" %s %s,", quantiles[i].name,
		       number_duration(text,
				       (double) histogram_quantile(&report->latency, quantiles[i].share)));
	printf(" mean %s\n", number_duration(text, histogram_mean(&report->latency)));
	if (report->options->rate > 0)
		printf("             of %s messages, from the time when each was due\n",
		       number_group(text, report->latency.count));
}

static void errors_print(const struct load_report *report)
{
	if (report->mismatches + report->errors + report->lost + report->idle_lost + report->duplicates > 0)
		printf("  wrong      %llu differing, %llu connections failed, %llu messages lost, %llu idle "
		       "connections lost, "
		       "%llu duplicates\n",
		       (unsigned long long) report->mismatches, (unsigned long long) report->errors,
		       (unsigned long long) report->lost, (unsigned long long) report->idle_lost,
		       (unsigned long long) report->duplicates);
	if (report->fault)
		printf("  first      %s\n", report->fault);
}

void load_report_text(const struct load_report *report)
{
	const struct client_options *options = report->options;
	char text[NUMBER_TEXT_MAX];

	printf("%s over %s: %s, %u connection%s", target_text(report->address), report->transport,
	       options_mode_name(options->mode), options->connections, plural(options->connections));
	if (options->idle > 0)
		printf(" and %u idle", options->idle);
	printf(", %llu byte%s", (unsigned long long) options->size, plural(options->size));
	if (options->depth > 1)
		printf(", %u in flight", options->depth);
	printf(", %u thread%s on %s, %.2f s after %.3g s of warm-up%s\n", options->threads,
	       plural(options->threads), report->engine, report->seconds,
	       nsec_to_seconds(options->warmup),
	       !report->interrupted  ? ""
	       : report->seconds > 0 ? " (interrupted)"
				     : " (interrupted before that was over)");
	if (report->engine_note)
		printf("  note       %s\n", report->engine_note);
	counts_print(report);
	latency_print(report);
	printf("  client     %.2f s of processor time, its busiest thread at %.0f %% of one processor\n",
	       report->cpu_seconds, report->cpu_share_highest * 100);
	if (report->limited && report->wait_share_highest > 0.05)
		printf("  LIMIT      the client was the limit: its busiest thread wanted more, and waited "
		       "%.0f %% of the time for a processor\n",
		       report->wait_share_highest * 100);
	else if (report->limited)
		puts("  LIMIT      the client was the limit, not the server: give it more threads (-j) or an "
		     "engine that costs less");
	if (report->port_waits > 0)
		printf("  LIMIT      %s times: %s\n", number_group(text, report->port_waits),
		       target_connect_error(EADDRNOTAVAIL));
	errors_print(report);
	latency_diagram(&report->latency);
}

static void interval_text(const struct client_options *options, const struct load_interval *interval)
{
	double seconds = interval->end - interval->start;
	char rate[NUMBER_TEXT_MAX], p50[NUMBER_TEXT_MAX], p99[NUMBER_TEXT_MAX], max[NUMBER_TEXT_MAX];

	output_line_begin(options->timestamps);
	printf("%6.2f - %.2f s  %10s echoes/s  %8.2f MB/s", interval->start, interval->end,
	       number_group(rate, (uint64_t) ((double) interval->echoes / seconds + 0.5)),
	       (double) interval->bytes / seconds / 1e6);
	if (interval->latency->count > 0)
		printf("  p50 %s  p99 %s  max %s",
		       number_duration(p50, (double) histogram_quantile(interval->latency, 0.5)),
		       number_duration(p99, (double) histogram_quantile(interval->latency, 0.99)),
		       number_duration(max, (double) interval->latency->max));
	if (interval->errors + interval->lost + interval->mismatches > 0)
		printf("  WRONG: %llu failed, %llu lost, %llu differing",
		       (unsigned long long) interval->errors, (unsigned long long) interval->lost,
		       (unsigned long long) interval->mismatches);
	putchar('\n');
	output_flush();
}

/* --- JSON --------------------------------------------------------------------------------------------- */

static void interval_json(const struct load_interval *interval)
{
	double seconds = interval->end - interval->start;
	struct json json;

	json_open(&json, stdout, JSON_LINE);
	json_text(&json, "type", "interval");
	json_number(&json, "time", output_time(), 6);
	json_number(&json, "start", interval->start, 6);
	json_number(&json, "end", interval->end, 6);
	json_count(&json, "echoes", interval->echoes);
	json_number(&json, "echoes_per_second", (double) interval->echoes / seconds, 1);
	json_count(&json, "bytes", interval->bytes);
	json_number(&json, "mb_per_second", (double) interval->bytes / seconds / 1e6, 3);
	json_count(&json, "connections_made", interval->connections);
	json_times(&json, "latency_us", interval->latency);
	json_count(&json, "errors", interval->errors);
	json_count(&json, "lost", interval->lost);
	json_count(&json, "mismatches", interval->mismatches);
	json_close(&json);
}

void load_report_interval(const struct client_options *options, const struct load_interval *interval)
{
	if (options->json_stream)
		interval_json(interval);
	else
		interval_text(options, interval);
}

void load_report_json(const struct load_report *report)
{
	const struct client_options *options = report->options;
	struct json json;

	json_open_summary(&json, options->json_stream, options->timestamps);
	json_text(&json, "address", report->address);
	json_text(&json, "transport", report->transport);
	json_text(&json, "mode", options_mode_name(options->mode));
	json_text(&json, "engine", report->engine);
	json_text(&json, "engine_note", report->engine_note);
	json_count(&json, "connections", options->connections);
	json_count(&json, "idle", options->idle);
	json_count(&json, "size", options->size);
	json_count(&json, "depth", options->depth);
	json_count(&json, "threads", options->threads);
	json_count(&json, "rate", options->rate);
	json_number(&json, "warmup_seconds", nsec_to_seconds(options->warmup), 3);
	json_number(&json, "measured_from", report->measured_from, 6);
	json_number(&json, "seconds", report->seconds, 6);
	json_count(&json, "echoes", (uint64_t) report->echoes);
	json_number(&json, "echoes_per_second", per_second(report, report->echoes), 1);
	json_count(&json, "bytes", report->bytes);
	json_number(&json, "mb_per_second", per_second(report, (double) report->bytes) / 1e6, 3);
	json_count(&json, "bytes_sent", report->bytes_sent);
	json_count(&json, "bytes_received", report->bytes_received);
	json_count(&json, "connections_made", report->connections_made);
	json_times(&json, "latency_us", &report->latency);
	json_count(&json, "errors", report->errors);
	json_count(&json, "lost", report->lost);
	json_count(&json, "mismatches", report->mismatches);
	json_count(&json, "duplicates", report->duplicates);
	json_count(&json, "idle_lost", report->idle_lost);
	json_count(&json, "port_waits", report->port_waits);
	json_count(&json, "due", report->due);
	json_count(&json, "unserved", report->unserved);
	json_number(&json, "client_cpu_seconds", report->cpu_seconds, 6);
	json_number(&json, "client_cpu_share", report->cpu_share_highest, 4);
	json_number(&json, "client_wait_share", report->wait_share_highest, 4);
	json_bool(&json, "client_limited", report->limited || report->port_waits > 0);
	json_bool(&json, "interrupted", report->interrupted);
	json_text(&json, "first_error", report->fault);
	json_text(&json, "error", report->error);
	json_close(&json);
}
