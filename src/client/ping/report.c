/* SPDX-License-Identifier: ISC */
/* report.c - see report.h */
#include <config.h>

#include "client/ping/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/plural.h"
#include "client/json.h"
#include "client/nsec.h"
#include "client/output.h"
#include "client/ping/metrics.h"

static double milliseconds(double nsec)
{
	return nsec / 1e6;
}

/* Whether a line, or a JSON object, is printed for each probe. */
static bool prints_lines(const struct ping *ping)
{
	return !ping->options->quiet && !ping->options->json;
}

/* --- for each probe ----------------------------------------------------------------------------------- */

/* Begin the JSON object for a probe; seq 0: unknown. */
static void probe_json(struct json *json, const struct ping *ping, const struct ping_flow *flow, uint64_t seq,
		       const char *status)
{
	json_open(json, stdout, JSON_LINE);
	json_text(json, "type", "probe");
	json_number(json, "time", output_time(), 6);
	if (seq != 0)
		json_count(json, "seq", seq);
	else
		json_null(json, "seq");
	json_count(json, "flow", (uint64_t) (flow - ping->flows) + 1);
	json_count(json, "source_port", flow->port);
	json_text(json, "status", status);
}

static void answer_json(const struct ping *ping, const struct ping_flow *flow,
			const struct probe_match *match, size_t length, const struct packet_info *info)
{
	static const char *const names[] = { "answer", "duplicate", "differs", "stray" };
	bool intact = match->verdict == VERDICT_ANSWER || match->verdict == VERDICT_DUPLICATE;
	struct json json;

	probe_json(&json, ping, flow, match->seq, names[match->verdict]);
	json_count(&json, "size", length);
	if (intact)
		json_number(&json, "rtt_us", (double) match->rtt / 1e3, 3);
	else
		json_null(&json, "rtt_us");
	json_bool(&json, "late", match->late);
	json_bool(&json, "reordered", match->reordered);
	if (info->ttl >= 0)
		json_count(&json, "ttl", (uint64_t) info->ttl);
	if (info->tos >= 0)
		json_count(&json, "dscp", (uint64_t) info->tos >> 2);
	json_close(&json);
}

/* "seq=7", with the flow if there are several. */
static void line_begin(const struct ping *ping, const struct ping_flow *flow, uint64_t seq)
{
	printf("seq=%llu", (unsigned long long) seq);
	if (ping->probes.flow_count > 1)
		printf(" flow=%u", (unsigned) (flow - ping->flows) + 1);
}

static void answer_line(const struct ping *ping, const struct ping_flow *flow,
			const struct probe_match *match, size_t length, const struct packet_info *info)
{
	output_line_begin(ping->options->timestamps);
	printf("%zu byte%s from %s: ", length, plural(length), target_text(ping->address));
	if (match->verdict == VERDICT_STRAY) {
		puts("not an answer to any of our probes");
		return;
	}
	line_begin(ping, flow, match->seq);
	if (match->verdict == VERDICT_DIFFERS) {
		if (match->wanted < 0 || match->got < 0)
			printf(" WRONG LENGTH: sent %zu byte%s\n", ping->probes.size,
			       plural(ping->probes.size));
		else
			printf(" WRONG BYTE at offset %zu: sent 0x%02x, came back 0x%02x\n", match->at,
			       (unsigned) match->wanted, (unsigned) match->got);
		return;
	}
	if (ping->options->reconnect)
		printf(" connect=%.3f ms", milliseconds((double) ping->to.connect_time));
	if (info->ttl >= 0)
		printf(" ttl=%d", info->ttl);
	printf(" time=%.3f ms%s%s%s", milliseconds((double) match->rtt),
	       match->verdict == VERDICT_DUPLICATE ? " (duplicate)" : "", match->late ? " (late)" : "",
	       match->reordered ? " (reordered)" : "");
	if (ping->options->sockopts.tos >= 0 && info->tos >= 0
	    && info->tos >> 2 != ping->options->sockopts.tos >> 2)
		printf(" (dscp=%d)", info->tos >> 2);
	putchar('\n');
}

void ping_report_answer(const struct ping *ping, const struct ping_flow *flow,
			const struct probe_match *match, size_t length, const struct packet_info *info)
{
	if (ping->options->json_stream)
		answer_json(ping, flow, match, length, info);
	else if (prints_lines(ping))
		answer_line(ping, flow, match, length, info);
}

void ping_report_failure(const struct ping *ping, uint64_t seq, const char *what)
{
	const struct ping_flow *flow = ping_flow_of(ping, seq);
	bool late = probes_get(&ping->probes, seq)->state == PROBE_OVERDUE;
	struct json json;

	if (ping->options->json_stream) {
		probe_json(&json, ping, flow, seq, late ? "timeout" : "failed");
		json_text(&json, "error", what);
		json_close(&json);
	} else if (prints_lines(ping)) {
		output_line_begin(ping->options->timestamps);
		printf("%s: ", target_text(ping->address));
		line_begin(ping, flow, seq);
		printf(" %s\n", what);
	}
}

void ping_report_error(const struct ping *ping, uint64_t seq, const struct packet_error *error)
{
	const struct ping_flow *flow = seq != 0 ? ping_flow_of(ping, seq) : &ping->flows[0];
	struct json json;

	if (ping->options->json_stream) {
		probe_json(&json, ping, flow, seq, "error");
		json_text(&json, "from", error->from[0] != '\0' ? error->from : NULL);
		if (error->mtu != 0)
			json_count(&json, "mtu", error->mtu);
		json_text(&json, "error", error->text);
		json_close(&json);
	} else if (prints_lines(ping)) {
		output_line_begin(ping->options->timestamps);
		printf("From %s: ", error->from[0] != '\0' ? error->from : "this host");
		if (seq != 0) {
			line_begin(ping, flow, seq);
			putchar(' ');
		}
		puts(error->text);
	}
}

void ping_report_start(const struct ping *ping)
{
	int family = ping->to.addr.sa.sa_family;

	if (ping->options->json)
		return;
	printf("PING %s", target_text(ping->target->name));
	if (strcmp(ping->target->name, ping->address) != 0)
		printf(" (%s)", target_text(ping->address));
	printf(" over %s: %zu byte%s",
	       ping->options->udp  ? "UDP"
	       : family == AF_UNIX ? "a unix socket"
				   : "TCP",
	       ping->probes.size, plural(ping->probes.size));
	if (ping->probes.flow_count > 1)
		printf(", %u flows", ping->probes.flow_count);
	if (ping_is_stream(ping) && !ping->options->reconnect)
		printf(", connected in %.3f ms", milliseconds((double) ping->to.connect_time));
	putchar('\n');
}

/* --- summary as text ---------------------------------------------------------------------------------- */

static struct ping_loss loss_make(uint64_t sent, uint64_t received, uint64_t corrupted, uint64_t underway)
{
	struct ping_loss loss = { .underway = underway };
	uint64_t judged = sent - underway;

	if (received + corrupted < judged)
		loss.lost = judged - received - corrupted;
	loss.percent = judged > 0 ? 100.0 * (double) loss.lost / (double) judged : 0;
	return loss;
}

static struct ping_loss ping_loss(struct ping *ping)
{
	const struct probes *probes = &ping->probes;

	return loss_make(probes->sent, probes->received, probes->corrupted,
			 probes_underway(&ping->probes, -1));
}

/* The loss of each flow; must be freed. NULL: out of memory. */
static struct ping_loss *flows_loss(struct ping *ping)
{
	struct ping_loss *losses = calloc(ping->probes.flow_count, sizeof *losses);

	for (unsigned i = 0; losses && i < ping->probes.flow_count; i++) {
		const struct probes_flow *flow = &ping->probes.flows[i];

		losses[i] = loss_make(flow->sent, flow->received, flow->corrupted,
				      probes_underway(&ping->probes, (int) i));
	}
	return losses;
}

/* The flow with the highest loss, and among these that with the highest mean round-trip time. */
static unsigned worst_flow(const struct ping *ping, const struct ping_loss *losses)
{
	const struct probes_flow *flows = ping->probes.flows;
	unsigned worst = 0;

	for (unsigned i = 1; i < ping->probes.flow_count; i++)
		if (losses[i].percent > losses[worst].percent
		    || (losses[i].percent == losses[worst].percent
			&& histogram_mean(&flows[i].rtt) > histogram_mean(&flows[worst].rtt)))
			worst = i;
	return worst;
}

static void flows_text(const struct ping *ping, const struct ping_loss *losses)
{
	const struct probes *probes = &ping->probes;
	unsigned losing = 0, worst = worst_flow(ping, losses);

	puts("flow  source port      sent  received    loss     rtt min/avg/max/p99");
	for (unsigned i = 0; i < probes->flow_count; i++) {
		const struct probes_flow *flow = &probes->flows[i];
		const struct histogram *rtt = &flow->rtt;

		losing += losses[i].lost > 0;
		printf("%4u  %11u  %8llu  %8llu  %5.3g%%", i + 1, ping->flows[i].port,
		       (unsigned long long) flow->sent, (unsigned long long) flow->received,
		       losses[i].percent);
		if (rtt->count > 0)
			printf("    %.3f/%.3f/%.3f/%.3f ms", milliseconds((double) rtt->min),
			       milliseconds(histogram_mean(rtt)), milliseconds((double) rtt->max),
			       milliseconds((double) histogram_quantile(rtt, 0.99)));
		putchar('\n');
	}
	printf("%u of %u flows had losses; worst: flow %u (source port %u), %.3g%% loss", losing,
	       probes->flow_count, worst + 1, ping->flows[worst].port, losses[worst].percent);
	if (probes->flows[worst].rtt.count > 0)
		printf(", rtt avg %.3f ms", milliseconds(histogram_mean(&probes->flows[worst].rtt)));
	putchar('\n');
}

static void count_print(FILE *out, uint64_t count, const char *what)
{
	if (count > 0)
		fprintf(out, ", %llu %s", (unsigned long long) count, what);
}

/* min/avg/max/mdev */
static void times_print(FILE *out, const char *name, const struct histogram *times)
{
	fprintf(out, "%s min/avg/max/mdev = %.3f/%.3f/%.3f/%.3f ms", name, milliseconds((double) times->min),
		milliseconds(histogram_mean(times)), milliseconds((double) times->max),
		milliseconds(histogram_deviation(times)));
}

static double quantile(const struct histogram *times, double share)
{
	return milliseconds((double) histogram_quantile(times, share));
}

/* All but the flows. */
static void summary_text(FILE *out, const struct ping *ping, const struct ping_loss *loss)
{
	const struct probes *probes = &ping->probes;
	const struct histogram *rtt = &probes->rtt, *jitter = &probes->jitter;

	fprintf(out, "\n--- %s echo statistics ---\n", target_text(ping->target->name));
	fprintf(out, "%llu sent, %llu received, %.3g%% loss, time %.0f ms", (unsigned long long) probes->sent,
		(unsigned long long) probes->received, loss->percent,
		milliseconds((double) (ping->ended - ping->begun)));
	count_print(out, probes->differing, "differing");
	count_print(out, probes->duplicates, "duplicates");
	count_print(out, probes->reordered, "reordered");
	count_print(out, probes->late, "late");
	count_print(out, probes->strays, "strays");
	count_print(out, ping->errors, "errors");
	count_print(out, loss->underway, "still under way");
	fputc('\n', out);
	if (ping->connects.count > 0) {
		times_print(out, "connect", &ping->connects);
		fprintf(out, " (%llu made)\n", (unsigned long long) ping->connects.count);
	}
	if (rtt->count > 0) {
		times_print(out, "rtt", rtt);
		fprintf(out, "\nrtt p50/p90/p99/p99.9 = %.3f/%.3f/%.3f/%.3f ms\n", quantile(rtt, 0.5),
			quantile(rtt, 0.9), quantile(rtt, 0.99), quantile(rtt, 0.999));
	}
	if (jitter->count > 0)
		fprintf(out, "jitter mean/p50/p90/p99/max = %.3f/%.3f/%.3f/%.3f/%.3f ms\n",
			milliseconds(histogram_mean(jitter)), quantile(jitter, 0.5), quantile(jitter, 0.9),
			quantile(jitter, 0.99), milliseconds((double) jitter->max));
	if (ping->ttl_min >= 0 && ping->ttl_min != ping->ttl_max)
		fprintf(out, "ttl of the replies: %d to %d\n", ping->ttl_min, ping->ttl_max);
	if (ping->dscp_kept + ping->dscp_changed > 0)
		fprintf(out, "dscp %d: %llu of %llu replies had it\n", ping->options->sockopts.tos >> 2,
			(unsigned long long) ping->dscp_kept,
			(unsigned long long) (ping->dscp_kept + ping->dscp_changed));
}

void ping_report_interim(struct ping *ping)
{
	struct ping_loss loss = ping_loss(ping);

	ping->ended = nsec_now();
	/* Standard output has nothing but JSON. */
	summary_text(ping->options->json ? stderr : stdout, ping, &loss);
}

/* --- summary as JSON ---------------------------------------------------------------------------------- */

static void flows_json(struct json *json, const struct ping *ping, const struct ping_loss *losses)
{
	json_array(json, "flows");
	for (unsigned i = 0; i < ping->probes.flow_count; i++) {
		const struct probes_flow *flow = &ping->probes.flows[i];

		json_object(json, NULL);
		json_count(json, "flow", i + 1);
		json_count(json, "source_port", ping->flows[i].port);
		json_count(json, "sent", flow->sent);
		json_count(json, "received", flow->received);
		json_count(json, "lost", losses[i].lost);
		json_number(json, "loss_percent", losses[i].percent, 4);
		json_times(json, "rtt_us", &flow->rtt);
		json_object_end(json);
	}
	json_array_end(json);
	json_count(json, "worst_flow", worst_flow(ping, losses) + 1);
}

static void replies_json(struct json *json, const struct ping *ping)
{
	if (ping->ttl_min >= 0) {
		json_count(json, "ttl_min", (uint64_t) ping->ttl_min);
		json_count(json, "ttl_max", (uint64_t) ping->ttl_max);
	}
	if (ping->options->sockopts.tos >= 0) {
		json_count(json, "dscp", (uint64_t) ping->options->sockopts.tos >> 2);
		json_count(json, "dscp_kept", ping->dscp_kept);
		json_count(json, "dscp_changed", ping->dscp_changed);
	}
}

static void summary_json(const struct ping *ping, const struct ping_loss *loss,
			 const struct ping_loss *losses, const char *error)
{
	const struct client_options *options = ping->options;
	const struct probes *probes = &ping->probes;
	struct json json;

	json_open_summary(&json, options->json_stream, options->timestamps);
	json_text(&json, "target", ping->target->name);
	json_text(&json, "address", ping->address);
	json_text(&json, "transport",
		  options->udp                            ? "udp"
		  : ping->to.addr.sa.sa_family == AF_UNIX ? "unix"
							  : "tcp");
	json_count(&json, "size", probes->size);
	json_number(&json, "interval_seconds", nsec_to_seconds(options->interval), 6);
	json_number(&json, "seconds", nsec_to_seconds(ping->ended - ping->begun), 6);
	json_count(&json, "sent", probes->sent);
	json_count(&json, "received", probes->received);
	json_count(&json, "lost", loss->lost);
	json_number(&json, "loss_percent", loss->percent, 4);
	json_count(&json, "differing", probes->differing);
	json_count(&json, "duplicates", probes->duplicates);
	json_count(&json, "reordered", probes->reordered);
	json_count(&json, "late", probes->late);
	json_count(&json, "strays", probes->strays);
	json_count(&json, "errors", ping->errors);
	json_count(&json, "underway", loss->underway);
	json_times(&json, "rtt_us", &probes->rtt);
	json_times(&json, "jitter_us", &probes->jitter);
	if (ping_is_stream(ping))
		json_times(&json, "connect_us", &ping->connects);
	replies_json(&json, ping);
	if (probes->flow_count > 1)
		flows_json(&json, ping, losses);
	json_text(&json, "error", error);
	json_close(&json);
}

/* --- end ---------------------------------------------------------------------------------------------- */

/* The outcome; for others than OUTCOME_OK the reason is in `*error`. */
static enum outcome ping_outcome(const struct ping *ping, const struct ping_loss *loss, const char **error)
{
	const struct probes *probes = &ping->probes;

	if (probes->received == 0 && ping->refused > 0) {
		*error = "no service on that port (port unreachable)";
		return OUTCOME_UNREACHABLE;
	}
	/* Outstanding probes are not lost. But as with ping(8), no answer at all is a failure, and so is
	 * a count that was not reached before the deadline. */
	if (probes->sent > 0 && probes->received == 0)
		*error = "no probe was answered";
	else if (ping->end != NSEC_NEVER && probes->received < ping->options->count)
		*error = "fewer answers than requested before the deadline";
	else if (probes->differing > 0)
		*error = "an answer differs from its probe";
	else if (loss->lost > 0)
		*error = "not all probes were answered";
	else if (ping_is_stream(ping) && probes->strays > 0)
		*error = "the server sent data that it was not sent";
	return *error ? OUTCOME_DIFFERS : OUTCOME_OK;
}

static enum outcome metrics_write(const struct ping *ping, const struct ping_loss *loss,
				  const struct ping_loss *losses, enum outcome outcome)
{
	const char *path = ping->options->metrics;
	int r = path ? ping_metrics_write(ping, loss, losses, outcome == OUTCOME_OK, path) : 0;

	if (r == 0)
		return outcome;
	client_error(OUTCOME_USAGE, "--metrics: cannot write %s: %s", path, strerror(-r));
	return outcome == OUTCOME_OK ? OUTCOME_USAGE : outcome;
}

enum outcome ping_report_end(struct ping *ping)
{
	struct ping_loss loss = ping_loss(ping), *losses = flows_loss(ping);
	const char *error = NULL;
	enum outcome outcome;

	if (!losses)
		return client_error(OUTCOME_USAGE, "out of memory");
	ping->ended = nsec_now();
	outcome = ping_outcome(ping, &loss, &error);
	/* Otherwise the lines of the probes have reported it. */
	if (outcome == OUTCOME_UNREACHABLE && !prints_lines(ping))
		client_error(outcome, "no UDP service at %s: %s", ping->target->name, strerror(ECONNREFUSED));
	outcome = metrics_write(ping, &loss, losses, outcome);
	if (outcome != OUTCOME_OK && !error)
		error = client_error_first();
	if (ping->options->json) {
		summary_json(ping, &loss, losses, error);
	} else {
		summary_text(stdout, ping, &loss);
		if (ping->probes.flow_count > 1)
			flows_text(ping, losses);
	}
	free(losses);
	return outcome;
}

enum outcome ping_report_unreachable(struct ping *ping, const char *why)
{
	struct ping_loss none = { 0 }, *losses = flows_loss(ping);

	client_error(OUTCOME_UNREACHABLE, "%s", why);
	if (losses)
		metrics_write(ping, &none, losses, OUTCOME_UNREACHABLE);
	free(losses);
	return OUTCOME_UNREACHABLE;
}
