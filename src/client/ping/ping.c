/* ping.c - see ping.h */
#include <config.h>

#include "client/ping/ping.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/interrupt.h"
#include "client/json.h"
#include "client/options.h"
#include "client/pattern.h"
#include "client/ping/probes.h"
#include "client/nsec.h"

#define DATAGRAM_MAX 65536

struct ping {
	const struct client_options *options;
	const struct target *target;
	struct target_choice to;
	char address[ADDR_TEXT_MAX];
	struct probes probes;
	int fd;                /* -1: not connected */
	uint64_t begun, ended; /* nanoseconds, as all times here */
	uint64_t end;          /* the deadline; NSEC_NEVER: none */
	uint64_t next;         /* when the next probe is due */
	uint64_t refused;      /* UDP: errors ECONNREFUSED */

	/* Streams: the probe being sent and the answer being received. */
	uint8_t *out, *in;
	size_t out_done, in_done;
	bool sending;
	uint64_t answer; /* number of the probe whose answer is in `in` */
	struct histogram connects;
};

static bool is_stream(const struct ping *ping)
{
	return !ping->options->udp;
}

static double milliseconds(double nsec)
{
	return nsec / 1e6;
}

/* Whether a line is printed for each probe. */
static bool prints_probes(const struct ping *ping)
{
	return !ping->options->quiet && !ping->options->json;
}

/* --- lines -------------------------------------------------------------------------------------------- */

static void line_failed(const struct ping *ping, uint64_t seq, const char *what, int error)
{
	if (prints_probes(ping))
		printf("%s: seq=%llu %s%s%s\n", ping->address, (unsigned long long) seq, what,
		       error != 0 ? ": " : "", error != 0 ? strerror(error) : "");
}

static void line_differs(const struct ping *ping, const struct probe_match *match, size_t length)
{
	if (match->wanted < 0 || match->got < 0)
		printf("%zu bytes from %s: seq=%llu WRONG LENGTH: %zu bytes were sent\n", length,
		       ping->address, (unsigned long long) match->seq, ping->probes.size);
	else
		printf("%zu bytes from %s: seq=%llu WRONG BYTE at offset %zu: sent 0x%02x, came back "
		       "0x%02x\n",
		       length, ping->address, (unsigned long long) match->seq, match->at,
		       (unsigned) match->wanted, (unsigned) match->got);
}

static void line_answer(const struct ping *ping, const struct probe_match *match, size_t length)
{
	if (!prints_probes(ping))
		return;
	switch (match->verdict) {
	case VERDICT_STRAY:
		printf("%zu bytes from %s: not an answer to any of our probes\n", length, ping->address);
		return;
	case VERDICT_DIFFERS:
		line_differs(ping, match, length);
		return;
	case VERDICT_ANSWER:
	case VERDICT_DUPLICATE:
		break;
	}
	printf("%zu bytes from %s: seq=%llu", length, ping->address, (unsigned long long) match->seq);
	if (ping->options->reconnect)
		printf(" connect=%.3f ms", milliseconds((double) ping->to.connect_time));
	printf(" time=%.3f ms%s%s%s\n", milliseconds((double) match->rtt),
	       match->verdict == VERDICT_DUPLICATE ? " (duplicate)" : "", match->late ? " (late)" : "",
	       match->reordered ? " (reordered)" : "");
}

static void header_print(const struct ping *ping)
{
	if (ping->options->json)
		return;
	printf("PING %s", ping->target->name);
	if (strcmp(ping->target->name, ping->address) != 0)
		printf(" (%s)", ping->address);
	printf(" over %s: %zu bytes",
	       ping->options->udp                      ? "UDP"
	       : ping->to.addr.sa.sa_family == AF_UNIX ? "a unix socket"
						       : "TCP",
	       ping->probes.size);
	if (is_stream(ping) && !ping->options->reconnect)
		printf(", connected in %.3f ms", milliseconds((double) ping->to.connect_time));
	putchar('\n');
}

/* --- the connection ----------------------------------------------------------------------------------- */

/* Returns 0 or -errno with `why`. */
static int ping_connect(struct ping *ping, char *why)
{
	struct socket_options sockopts = ping->options->sockopts;
	uint64_t before = nsec_now(), left = ping->end > before ? ping->end - before : 0;

	/* The deadline limits connecting, too. */
	if (ping->end != NSEC_NEVER && left < sockopts.timeout)
		sockopts.timeout = left;
	ping->fd = target_connect(ping->target, &sockopts, &ping->to, why);
	if (ping->fd < 0) {
		int r = ping->fd;

		ping->fd = -1;
		return r;
	}
	addr_print(&ping->to.addr, ping->address);
	ping->in_done = ping->out_done = 0;
	ping->sending = false;
	ping->answer = ping->probes.sent + 1;
	if (is_stream(ping))
		histogram_add(&ping->connects, ping->to.connect_time);
	return 0;
}

static void ping_disconnect(struct ping *ping)
{
	if (ping->fd >= 0)
		close(ping->fd);
	ping->fd = -1;
	ping->sending = false;
}

/* The connection broke: the outstanding probes will not be answered. */
static void stream_lost(struct ping *ping, const char *what, int error)
{
	uint64_t seq;

	ping_disconnect(ping);
	while ((seq = probes_oldest(&ping->probes)) != 0) {
		probes_give_up(&ping->probes, seq, PROBE_FAILED);
		line_failed(ping, seq, what, error);
	}
}

/* --- sending ------------------------------------------------------------------------------------------ */

static void stream_send(struct ping *ping)
{
	ssize_t n = send(ping->fd, ping->out + ping->out_done, ping->probes.size - ping->out_done,
			 MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		stream_lost(ping, "the connection broke", errno);
		return;
	}
	if (n > 0)
		ping->out_done += (size_t) n;
	ping->sending = ping->out_done < ping->probes.size;
}

static void datagram_send(struct ping *ping, uint64_t seq)
{
	/* send(2) may report an error of the previous datagram; then this one has not been sent. */
	for (int tries = 0; tries < 2; tries++) {
		if (send(ping->fd, ping->out, ping->probes.size, MSG_NOSIGNAL) >= 0)
			return;
		if (errno != ECONNREFUSED)
			break;
		ping->refused++;
	}
	probes_give_up(&ping->probes, seq, PROBE_FAILED);
	line_failed(ping, seq, "could not be sent", errno);
}

static void probe_send(struct ping *ping)
{
	char why[TARGET_WHY_MAX];
	uint64_t seq;
	int r = 0;

	if (ping->options->reconnect)
		ping_disconnect(ping);
	if (ping->fd < 0)
		r = ping_connect(ping, why);
	if (r < 0) {
		/* Interrupted by Ctrl-C or the deadline: not a failure of the server. */
		if (r == -EINTR || nsec_now() >= ping->end)
			return;
		seq = probes_send(&ping->probes, nsec_now());
		probes_give_up(&ping->probes, seq, PROBE_FAILED);
		line_failed(ping, seq, why, 0);
		return;
	}
	seq = probes_send(&ping->probes, nsec_now());
	probes_fill(&ping->probes, seq, ping->out);
	if (is_stream(ping)) {
		ping->out_done = 0;
		stream_send(ping);
	} else {
		datagram_send(ping, seq);
	}
}

/* Whether the next probe may be sent when it is due. */
static bool may_send(struct ping *ping)
{
	const struct client_options *options = ping->options;

	if (options->count != 0 && ping->probes.sent >= options->count)
		return false;
	if (ping->sending)
		return false;
	/* Without interval, and with a connection for each probe, wait for the previous answer. */
	if (options->interval == 0 || options->reconnect)
		return probes_oldest(&ping->probes) == 0;
	return true;
}

/* --- receiving ---------------------------------------------------------------------------------------- */

static void datagrams_receive(struct ping *ping)
{
	static uint8_t bytes[DATAGRAM_MAX];
	struct probe_match match;

	for (;;) {
		ssize_t n = recv(ping->fd, bytes, sizeof bytes, MSG_DONTWAIT);

		if (n < 0) {
			uint64_t seq = ping->probes.sent;

			if (errno == EAGAIN || errno == EINTR)
				return;
			ping->refused += errno == ECONNREFUSED;
			if (seq > 0 && probes_get(&ping->probes, seq)->state == PROBE_UNDERWAY) {
				probes_give_up(&ping->probes, seq, PROBE_FAILED);
				line_failed(ping, seq,
					    errno == ECONNREFUSED
						    ? "no service on that port (port unreachable)"
						    : "error",
					    errno == ECONNREFUSED ? 0 : errno);
			}
			continue;
		}
		probes_match(&ping->probes, bytes, (size_t) n, nsec_now(), &match);
		line_answer(ping, &match, (size_t) n);
	}
}

static void stream_receive(struct ping *ping)
{
	struct probe_match match;
	ssize_t n = recv(ping->fd, ping->in + ping->in_done, ping->probes.size - ping->in_done, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		stream_lost(ping, n == 0 ? "the server closed the connection" : "the connection broke",
			    n < 0 ? errno : 0);
		return;
	}
	ping->in_done += (size_t) n;
	if (ping->in_done < ping->probes.size)
		return;
	ping->in_done = 0;
	/* Data that was not sent by us. */
	if (ping->answer > ping->probes.sent) {
		ping->probes.strays++;
		match = (struct probe_match) { .verdict = VERDICT_STRAY };
	} else {
		probes_match_stream(&ping->probes, ping->answer++, ping->in, nsec_now(), &match);
	}
	line_answer(ping, &match, ping->probes.size);
}

/* --- the loop ----------------------------------------------------------------------------------------- */

/* Report the probes that were not answered in time. Returns when the next one expires. */
static uint64_t overdue_report(struct ping *ping, uint64_t now)
{
	uint64_t timeout = ping->options->timeout, seq;

	if (timeout == NSEC_NEVER)
		return NSEC_NEVER;
	while ((seq = probes_oldest(&ping->probes)) != 0) {
		uint64_t limit = probes_get(&ping->probes, seq)->sent_at + timeout;
		char text[64];

		if (now < limit)
			return limit;
		probes_give_up(&ping->probes, seq, PROBE_OVERDUE);
		snprintf(text, sizeof text, "no answer within %.4g s", nsec_to_seconds(timeout));
		line_failed(ping, seq, text, 0);
	}
	return NSEC_NEVER;
}

static bool is_done(struct ping *ping)
{
	return ping->options->count != 0 && ping->probes.sent >= ping->options->count
	    && probes_oldest(&ping->probes) == 0;
}

static void ping_run(struct ping *ping)
{
	uint64_t interval = ping->options->interval;

	ping->next = ping->begun;
	for (;;) {
		uint64_t now = nsec_now(), wake;
		struct pollfd fd;
		struct timespec wait;

		wake = overdue_report(ping, now);
		if (now >= ping->end || is_done(ping) || interrupt_seen())
			return;
		if (now >= ping->next && may_send(ping)) {
			probe_send(ping);
			/* Keep the rhythm, but do not send missed probes after a long stop. */
			ping->next += interval;
			if (ping->next + interval < now)
				ping->next = now + interval;
			continue;
		}
		if (may_send(ping) && ping->next < wake)
			wake = ping->next;
		/* Standard output is closed, as by "| head": main() reports it. */
		if (fflush(stdout) != 0)
			return;
		fd = (struct pollfd) { .fd = ping->fd,
				       .events = (short) (POLLIN | (ping->sending ? POLLOUT : 0)) };
		if (ppoll(&fd, 1, nsec_timespec(&wait, now, wake < ping->end ? wake : ping->end),
			  interrupt_mask())
		    <= 0)
			continue;
		if (fd.revents & ~POLLOUT)
			is_stream(ping) ? stream_receive(ping) : datagrams_receive(ping);
		if (ping->fd >= 0 && fd.revents & POLLOUT && ping->sending)
			stream_send(ping);
	}
}

/* --- the summary -------------------------------------------------------------------------------------- */

struct summary {
	uint64_t lost, underway;
	double loss; /* per cent */
};

static struct summary summary_make(struct ping *ping)
{
	const struct probes *probes = &ping->probes;
	struct summary summary = { .underway = probes_underway(&ping->probes) };
	uint64_t judged = probes->sent - summary.underway;

	if (probes->received + probes->corrupted < judged)
		summary.lost = judged - probes->received - probes->corrupted;
	summary.loss = judged > 0 ? 100.0 * (double) summary.lost / (double) judged : 0;
	return summary;
}

static void count_print(uint64_t count, const char *what)
{
	if (count > 0)
		printf(", %llu %s", (unsigned long long) count, what);
}

static void summary_text(const struct ping *ping, const struct summary *summary)
{
	const struct probes *probes = &ping->probes;
	const struct histogram *rtt = &probes->rtt, *connects = &ping->connects;

	printf("\n--- %s echo statistics ---\n", ping->target->name);
	printf("%llu sent, %llu received, %.3g%% loss, time %.0f ms", (unsigned long long) probes->sent,
	       (unsigned long long) probes->received, summary->loss,
	       milliseconds((double) (ping->ended - ping->begun)));
	count_print(probes->differing, "differing");
	count_print(probes->duplicates, "duplicates");
	count_print(probes->reordered, "reordered");
	count_print(probes->late, "late");
	count_print(probes->strays, "strays");
	count_print(summary->underway, "still under way");
	putchar('\n');
	if (connects->count > 0)
		printf("connect min/avg/max/mdev = %.3f/%.3f/%.3f/%.3f ms (%llu made)\n",
		       milliseconds((double) connects->min), milliseconds(histogram_mean(connects)),
		       milliseconds((double) connects->max), milliseconds(histogram_deviation(connects)),
		       (unsigned long long) connects->count);
	if (rtt->count > 0) {
		printf("rtt min/avg/max/mdev = %.3f/%.3f/%.3f/%.3f ms\n", milliseconds((double) rtt->min),
		       milliseconds(histogram_mean(rtt)), milliseconds((double) rtt->max),
		       milliseconds(histogram_deviation(rtt)));
		printf("rtt p50/p90/p99/p99.9 = %.3f/%.3f/%.3f/%.3f ms\n",
		       milliseconds((double) histogram_quantile(rtt, 0.5)),
		       milliseconds((double) histogram_quantile(rtt, 0.9)),
		       milliseconds((double) histogram_quantile(rtt, 0.99)),
		       milliseconds((double) histogram_quantile(rtt, 0.999)));
	}
}

static void summary_json(const struct ping *ping, const struct summary *summary, const char *error)
{
	const struct probes *probes = &ping->probes;
	struct json json;

	json_open(&json, stdout);
	json_text(&json, "target", ping->target->name);
	json_text(&json, "address", ping->address);
	json_text(&json, "transport",
		  ping->options->udp                      ? "udp"
		  : ping->to.addr.sa.sa_family == AF_UNIX ? "unix"
							  : "tcp");
	json_count(&json, "size", probes->size);
	json_number(&json, "interval_seconds", nsec_to_seconds(ping->options->interval), 6);
	json_number(&json, "seconds", nsec_to_seconds(ping->ended - ping->begun), 6);
	json_count(&json, "sent", probes->sent);
	json_count(&json, "received", probes->received);
	json_count(&json, "lost", summary->lost);
	json_number(&json, "loss_percent", summary->loss, 4);
	json_count(&json, "differing", probes->differing);
	json_count(&json, "duplicates", probes->duplicates);
	json_count(&json, "reordered", probes->reordered);
	json_count(&json, "late", probes->late);
	json_count(&json, "strays", probes->strays);
	json_count(&json, "underway", summary->underway);
	json_times(&json, "rtt_us", &probes->rtt);
	if (is_stream(ping))
		json_times(&json, "connect_us", &ping->connects);
	json_text(&json, "error", error);
	json_close(&json);
}

/* The outcome; for others than OUTCOME_OK the reason is in `*error`. */
static enum outcome ping_outcome(const struct ping *ping, const struct summary *summary, const char **error)
{
	const struct probes *probes = &ping->probes;

	if (probes->received == 0 && ping->refused > 0) {
		*error = "no service on that port (port unreachable)";
		return OUTCOME_UNREACHABLE;
	}
	/* Outstanding probes are not lost. But as with ping(8), no answer at all is a failure, and so is a
	 * count that was not reached before the deadline. */
	if (probes->sent > 0 && probes->received == 0)
		*error = "no probe was answered";
	else if (ping->end != NSEC_NEVER && probes->received < ping->options->count)
		*error = "fewer answers than requested before the deadline";
	else if (probes->differing > 0)
		*error = "an answer differs from its probe";
	else if (summary->lost > 0)
		*error = "not all probes were answered";
	else if (is_stream(ping) && probes->strays > 0)
		*error = "the server sent data that it was not sent";
	return *error ? OUTCOME_DIFFERS : OUTCOME_OK;
}

static enum outcome ping_report(struct ping *ping)
{
	struct summary summary;
	const char *error = NULL;
	enum outcome outcome;

	ping->ended = nsec_now();
	summary = summary_make(ping);
	outcome = ping_outcome(ping, &summary, &error);
	/* Otherwise the lines of the probes have reported it. */
	if (outcome == OUTCOME_UNREACHABLE && !prints_probes(ping))
		client_error(outcome, "no UDP service at %s: %s", ping->target->name, strerror(ECONNREFUSED));
	if (ping->options->json)
		summary_json(ping, &summary, error);
	else
		summary_text(ping, &summary);
	return outcome;
}

static enum outcome ping_all(struct ping *ping)
{
	char why[TARGET_WHY_MAX];

	ping->end = ping->options->deadline == NSEC_NEVER ? NSEC_NEVER : nsec_now() + ping->options->deadline;
	/* With a connection for each probe, the first one only shows that the server can be reached. */
	if (ping_connect(ping, why) < 0)
		return client_error(OUTCOME_UNREACHABLE, "%s", why);
	if (ping->options->reconnect) {
		ping_disconnect(ping);
		histogram_clear(&ping->connects);
	}
	header_print(ping);
	ping->begun = nsec_now();
	ping_run(ping);
	return ping_report(ping);
}

enum outcome ping(const struct client_options *options, const struct target *target)
{
	struct ping *ping = calloc(1, sizeof *ping);
	uint32_t key = 0;
	enum outcome outcome;

	if (!ping)
		return client_error(OUTCOME_USAGE, "out of memory");
	if (getrandom(&key, sizeof key, 0) < 0)
		key = (uint32_t) nsec_now();
	pattern_make();
	ping->options = options;
	ping->target = target;
	ping->fd = -1;
	histogram_clear(&ping->connects);
	ping->out = malloc((size_t) options->size);
	ping->in = malloc((size_t) options->size);
	if (!ping->out || !ping->in || probes_init(&ping->probes, (size_t) options->size, key) < 0)
		outcome = client_error(OUTCOME_USAGE, "out of memory");
	else
		outcome = ping_all(ping);
	ping_disconnect(ping);
	probes_clear(&ping->probes);
	free(ping->out);
	free(ping->in);
	free(ping);
	return outcome;
}
