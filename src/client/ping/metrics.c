/* SPDX-License-Identifier: ISC */
/* metrics.c - see metrics.h */
#include <config.h>

#include "client/ping/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/nsec.h"
#include "client/outfile.h"
#include "client/output.h"

#define PREFIX "echoc_ping_"

/* Where samples are written. `labels` are those of all samples, without the braces. */
struct writer {
	FILE *out;
	char *labels;
};

static void family(const struct writer *writer, const char *name, const char *type, const char *unit,
		   const char *help)
{
	fprintf(writer->out, "# TYPE " PREFIX "%s %s\n", name, type);
	if (unit)
		fprintf(writer->out, "# UNIT " PREFIX "%s %s\n", name, unit);
	fprintf(writer->out, "# HELP " PREFIX "%s %s\n", name, help);
}

/* `more` are further labels, beginning with a comma. */
static void sample(const struct writer *writer, const char *name, const char *more, double value)
{
	fprintf(writer->out, PREFIX "%s{%s%s} %.15g\n", name, writer->labels, more, value);
}

static void gauge(const struct writer *writer, const char *name, const char *unit, const char *help,
		  double value)
{
	family(writer, name, "gauge", unit, help);
	sample(writer, name, "", value);
}

/* The samples of a summary, in seconds. */
static void summary(const struct writer *writer, const char *name, const char *more,
		    const struct histogram *times)
{
	static const double shares[] = { 0.5, 0.9, 0.99, 0.999 };
	char text[64];

	for (size_t i = 0; times->count > 0 && i < sizeof shares / sizeof shares[0]; i++) {
		snprintf(text, sizeof text, "%s,quantile=\"%g\"", more, shares[i]);
		sample(writer, name, text, (double) histogram_quantile(times, shares[i]) / 1e9);
	}
	snprintf(text, sizeof text, "%s_count", name);
	sample(writer, text, more, (double) times->count);
	snprintf(text, sizeof text, "%s_sum", name);
	sample(writer, text, more, times->sum / 1e9);
}

static void probes_write(const struct writer *writer, const struct ping *ping, const struct ping_loss *loss)
{
	const struct probes *probes = &ping->probes;
	const struct {
		const char *labels;
		uint64_t count;
	} counts[] = {
		{ ",result=\"sent\"", probes->sent },
		{ ",result=\"received\"", probes->received },
		{ ",result=\"lost\"", loss->lost },
		{ ",result=\"differing\"", probes->differing },
		{ ",result=\"duplicate\"", probes->duplicates },
		{ ",result=\"reordered\"", probes->reordered },
		{ ",result=\"late\"", probes->late },
		{ ",result=\"stray\"", probes->strays },
		{ ",result=\"error\"", ping->errors },
		{ ",result=\"dscp_changed\"", ping->dscp_changed },
	};

	family(writer, "probes", "gauge", NULL, "Probes of the last run by result.");
	for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
		sample(writer, "probes", counts[i].labels, (double) counts[i].count);
	gauge(writer, "loss_ratio", "ratio", "Share of the probes that were lost.", loss->percent / 100);
}

static void flows_write(const struct writer *writer, const struct ping *ping,
			const struct ping_loss *flow_loss)
{
	char text[32];

	family(writer, "flow_loss_ratio", "gauge", "ratio", "Share of the probes of a flow that were lost.");
	for (unsigned i = 0; i < ping->probes.flow_count; i++) {
		snprintf(text, sizeof text, ",flow=\"%u\"", i + 1);
		sample(writer, "flow_loss_ratio", text, flow_loss[i].percent / 100);
	}
	family(writer, "flow_rtt_seconds", "summary", "seconds", "Round-trip times of a flow.");
	for (unsigned i = 0; i < ping->probes.flow_count; i++) {
		snprintf(text, sizeof text, ",flow=\"%u\"", i + 1);
		summary(writer, "flow_rtt_seconds", text, &ping->probes.flows[i].rtt);
	}
}

static void metrics_write(const struct writer *writer, const struct ping *ping, const struct ping_loss *loss,
			  const struct ping_loss *flow_loss, bool success)
{
	gauge(writer, "success", NULL, "Whether every probe was answered with the right bytes.", success);
	gauge(writer, "timestamp_seconds", "seconds", "When the run ended.",
	      (double) (uint64_t) output_time());
	probes_write(writer, ping, loss);
	family(writer, "rtt_seconds", "summary", "seconds", "Round-trip times.");
	summary(writer, "rtt_seconds", "", &ping->probes.rtt);
	family(writer, "jitter_seconds", "summary", "seconds",
	       "Differences of consecutive round-trip times (RFC 3393).");
	summary(writer, "jitter_seconds", "", &ping->probes.jitter);
	if (ping_is_stream(ping)) {
		family(writer, "connect_seconds", "summary", "seconds", "Times to connect.");
		summary(writer, "connect_seconds", "", &ping->connects);
	}
	if (ping->probes.flow_count > 1)
		flows_write(writer, ping, flow_loss);
	fputs("# EOF\n", writer->out);
}

/* The labels of all samples; must be freed. NULL: out of memory. */
static char *labels_make(const struct ping *ping)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	fprintf(out, "transport=\"%s\",target=\"",
		ping->options->udp                               ? "udp"
		: ping->target->addrs[0].sa.sa_family == AF_UNIX ? "unix"
								 : "tcp");
	for (const char *c = ping->target->name; *c; c++) {
		if (*c == '\n') {
			fputs("\\n", out);
			continue;
		}
		if (*c == '"' || *c == '\\')
			fputc('\\', out);
		fputc(*c, out);
	}
	fputc('"', out);
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}

int ping_metrics_write(const struct ping *ping, const struct ping_loss *loss,
		       const struct ping_loss *flow_loss, bool success, const char *path)
{
	struct outfile file;
	struct writer writer = { .labels = labels_make(ping) };
	int r = writer.labels ? outfile_open(&file, path) : -ENOMEM;

	if (r < 0)
		goto done;
	writer.out = fdopen(dup(file.fd), "w");
	if (writer.out) {
		metrics_write(&writer, ping, loss, flow_loss, success);
		r = ferror(writer.out) ? -EIO : 0;
		if (fclose(writer.out) != 0 && r == 0)
			r = -errno;
	} else {
		r = -errno;
	}
	r = outfile_close(&file, r);
done:
	free(writer.labels);
	return r;
}
