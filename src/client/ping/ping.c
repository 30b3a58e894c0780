/* SPDX-License-Identifier: ISC */
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
#include "client/nsec.h"
#include "client/outfile.h"
#include "client/output.h"
#include "client/pattern.h"
#include "client/ping/report.h"

#define DATAGRAM_MAX 65536
#define PORT_DELAY (NSEC_PER_SEC / 10) /* before the next attempt if no local port is free */

/* --- connections -------------------------------------------------------------------------------------- */

static uint16_t source_port(int fd)
{
	struct addr local = { .len = sizeof local.in6 };

	return getsockname(fd, &local.sa, &local.len) == 0 ? addr_port(&local) : 0;
}

/* `to` is where to connect: the target, or its address that has answered. Returns 0, or -errno with `why`. */
static int flow_connect(struct ping *ping, struct ping_flow *flow, const struct target *to, char *why)
{
	struct socket_options sockopts = ping->options->sockopts;
	uint64_t now = nsec_now(), left = ping->end > now ? ping->end - now : 0;
	int r;

	/* The deadline limits connecting, too. */
	if (ping->end != NSEC_NEVER && left < sockopts.timeout)
		sockopts.timeout = left;
	r = target_connect(to, &sockopts, &ping->to, why);
	if (r < 0)
		return r;
	addr_print(&ping->to.addr, ping->address);
	flow->fd = r;
	flow->port = source_port(r);
	flow->in_done = flow->out_done = 0;
	flow->sending = false;
	flow->answer = 0;
	if (ping_is_stream(ping))
		histogram_add(&ping->connects, ping->to.connect_time);
	else
		packet_enable(r, ping->to.addr.sa.sa_family); /* without it, less is reported */
	return 0;
}

static void flow_disconnect(struct ping_flow *flow)
{
	if (flow->fd >= 0)
		close(flow->fd);
	flow->fd = -1;
	flow->sending = false;
}

/* Connect all flows to the address that answers the first one. Returns 0, or -errno with `why`. */
static int flows_connect(struct ping *ping, char *why)
{
	struct target chosen = { .name = ping->target->name, .addrs = &ping->to.addr, .count = 1 };
	int r = flow_connect(ping, &ping->flows[0], ping->target, why);

	for (unsigned i = 1; r == 0 && i < ping->options->flows; i++)
		r = flow_connect(ping, &ping->flows[i], &chosen, why);
	return r;
}

/* The connection broke: the outstanding probes of the flow will not be answered. */
static void stream_lost(struct ping *ping, struct ping_flow *flow, const char *what, int error)
{
	struct probes *probes = &ping->probes;
	char text[160];

	flow_disconnect(flow);
	snprintf(text, sizeof text, "%s%s%s", what, error != 0 ? ": " : "",
		 error != 0 ? strerror(error) : "");
	if (probes_oldest(probes) == 0)
		return;
	for (uint64_t seq = probes->resolved + 1; seq <= probes->sent; seq++) {
		if (ping_flow_of(ping, seq) != flow || probes_get(probes, seq)->state != PROBE_UNDERWAY)
			continue;
		probes_give_up(probes, seq, PROBE_FAILED);
		ping_report_failure(ping, seq, text);
	}
}

/* --- receiving ---------------------------------------------------------------------------------------- */

/* `sending` is the number of the probe being sent, to which errors of this host belong; 0: none. */
static void errors_receive(struct ping *ping, struct ping_flow *flow, uint64_t sending)
{
	static uint8_t bytes[DATAGRAM_MAX];
	struct packet_error error;
	ssize_t n;

	while ((n = packet_receive_error(flow->fd, bytes, sizeof bytes, &error)) >= 0) {
		uint64_t seq = error.from[0] == '\0' ? sending
						     : probes_identify(&ping->probes, bytes, (size_t) n);

		ping->errors++;
		ping->refused += error.error == ECONNREFUSED;
		if (seq != 0 && probes_get(&ping->probes, seq)->state == PROBE_UNDERWAY)
			probes_give_up(&ping->probes, seq, PROBE_FAILED);
		ping_report_error(ping, seq, &error);
	}
}

static void info_count(struct ping *ping, const struct packet_info *info)
{
	if (info->ttl >= 0) {
		if (ping->ttl_min < 0 || info->ttl < ping->ttl_min)
			ping->ttl_min = info->ttl;
		if (info->ttl > ping->ttl_max)
			ping->ttl_max = info->ttl;
	}
	if (ping->options->sockopts.tos >= 0 && info->tos >= 0) {
		if (info->tos >> 2 == ping->options->sockopts.tos >> 2)
			ping->dscp_kept++;
		else
			ping->dscp_changed++;
	}
}

static void datagrams_receive(struct ping *ping, struct ping_flow *flow)
{
	static uint8_t bytes[DATAGRAM_MAX];
	struct packet_info info;
	struct probe_match match;
	ssize_t n;

	for (;;) {
		/* Reading the queue of errors also clears the pending error of the socket. */
		errors_receive(ping, flow, 0);
		n = packet_receive(flow->fd, bytes, sizeof bytes, &info);
		if (n == -EAGAIN || n == -EINTR)
			return;
		if (n < 0)
			continue;
		probes_match(&ping->probes, bytes, (size_t) n, nsec_now(), &match);
		if (match.verdict != VERDICT_STRAY)
			info_count(ping, &info);
		ping_report_answer(ping, flow, &match, (size_t) n, &info);
	}
}

static void stream_receive(struct ping *ping, struct ping_flow *flow)
{
	static const struct packet_info unknown = { -1, -1 };
	struct probes *probes = &ping->probes;
	struct probe_match match;
	ssize_t n = recv(flow->fd, flow->in + flow->in_done, probes->size - flow->in_done, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		stream_lost(ping, flow, n == 0 ? "the server closed the connection" : "the connection broke",
			    n < 0 ? errno : 0);
		return;
	}
	flow->in_done += (size_t) n;
	if (flow->in_done < probes->size)
		return;
	flow->in_done = 0;
	if (flow->answer == 0 || flow->answer > flow->last_probe) {
		/* Data that was not sent by us. */
		probes->strays++;
		match = (struct probe_match) { .verdict = VERDICT_STRAY };
	} else {
		probes_match_stream(probes, flow->answer, flow->in, nsec_now(), &match);
		flow->answer += probes->flow_count;
	}
	ping_report_answer(ping, flow, &match, probes->size, &unknown);
}

/* --- sending ------------------------------------------------------------------------------------------ */

static void stream_send(struct ping *ping, struct ping_flow *flow)
{
	size_t size = ping->probes.size;
	ssize_t n = send(flow->fd, flow->out + flow->out_done, size - flow->out_done, MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		stream_lost(ping, flow, "the connection broke", errno);
		return;
	}
	if (n > 0)
		flow->out_done += (size_t) n;
	flow->sending = flow->out_done < size;
}

static void datagram_send(struct ping *ping, struct ping_flow *flow, uint64_t seq)
{
	char text[80];

	/* send(2) may report the error of an earlier datagram; then this one has not been sent. */
	for (int tries = 0; tries < 3; tries++) {
		if (send(flow->fd, flow->out, ping->probes.size, MSG_NOSIGNAL) >= 0)
			return;
		snprintf(text, sizeof text, "could not be sent: %s", strerror(errno));
		errors_receive(ping, flow, seq);
		/* An error of this host for this datagram has been reported, as one that is larger than
		 * the MTU. */
		if (probes_get(&ping->probes, seq)->state != PROBE_UNDERWAY)
			return;
	}
	probes_give_up(&ping->probes, seq, PROBE_FAILED);
	ping_report_failure(ping, seq, text);
}

/* Connect the flow of the next probe if it is not connected. Returns whether the probe can be sent. */
static bool flow_prepare(struct ping *ping, struct ping_flow *flow)
{
	char why[TARGET_WHY_MAX];
	uint64_t seq;
	int r;

	if (ping->options->reconnect)
		flow_disconnect(flow);
	if (flow->fd >= 0)
		return true;
	r = flow_connect(ping, flow, ping->target, why);
	if (r == 0)
		return true;
	/* Interrupted by Ctrl-C or the deadline: not a failure of the server. */
	if (r == -EINTR || nsec_now() >= ping->end)
		return false;
	/* Nor is this. Wait until a port is free. */
	if (r == -EADDRNOTAVAIL) {
		if (!ping->options->json && !ping->options->quiet && !ping->port_reported)
			printf("%s\n", why);
		ping->port_reported = true;
		ping->next = nsec_now() + PORT_DELAY;
		return false;
	}
	seq = probes_send(&ping->probes, nsec_now());
	probes_give_up(&ping->probes, seq, PROBE_FAILED);
	ping_report_failure(ping, seq, why);
	return false;
}

static void probe_send(struct ping *ping)
{
	struct ping_flow *flow = ping_flow_of(ping, ping->probes.sent + 1);
	uint64_t seq;

	if (!flow_prepare(ping, flow))
		return;
	seq = probes_send(&ping->probes, nsec_now());
	flow->last_probe = seq;
	if (flow->answer == 0)
		flow->answer = seq;
	probes_fill(&ping->probes, seq, flow->out);
	flow->out_done = 0;
	if (ping_is_stream(ping))
		stream_send(ping, flow);
	else
		datagram_send(ping, flow, seq);
}

/* Whether the next probe may be sent when it is due. */
static bool may_send(struct ping *ping)
{
	const struct client_options *options = ping->options;

	if (options->count != 0 && ping->probes.sent >= options->count)
		return false;
	if (ping_flow_of(ping, ping->probes.sent + 1)->sending)
		return false;
	/* Without interval, and with a connection for each probe, wait for the previous answer. */
	if (options->interval == 0 || options->reconnect)
		return probes_oldest(&ping->probes) == 0;
	return true;
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
		ping_report_failure(ping, seq, text);
	}
	return NSEC_NEVER;
}

static bool is_done(struct ping *ping)
{
	return ping->options->count != 0 && ping->probes.sent >= ping->options->count
	    && probes_oldest(&ping->probes) == 0;
}

/* Wait for events of the flows until `until`, and handle them. */
static void flows_poll(struct ping *ping, struct pollfd *fds, uint64_t now, uint64_t until)
{
	struct timespec wait;

	for (unsigned i = 0; i < ping->options->flows; i++)
		fds[i] = (struct pollfd) {
			.fd = ping->flows[i].fd,
			.events = (short) (POLLIN | (ping->flows[i].sending ? POLLOUT : 0)),
		};
	if (ppoll(fds, ping->options->flows, nsec_timespec(&wait, now, until), interrupt_mask()) <= 0)
		return;
	for (unsigned i = 0; i < ping->options->flows; i++) {
		struct ping_flow *flow = &ping->flows[i];

		if (fds[i].revents & ~POLLOUT) {
			if (ping_is_stream(ping))
				stream_receive(ping, flow);
			else
				datagrams_receive(ping, flow);
		}
		if (flow->fd >= 0 && fds[i].revents & POLLOUT && flow->sending)
			stream_send(ping, flow);
	}
}

static void ping_run(struct ping *ping, struct pollfd *fds)
{
	uint64_t interval = ping->options->interval;

	ping->next = ping->begun;
	for (;;) {
		uint64_t now = nsec_now(), wake = overdue_report(ping, now);

		if (interrupt_summary())
			ping_report_interim(ping);
		if (now >= ping->end || is_done(ping) || interrupt_seen())
			return;
		if (now >= ping->next && may_send(ping)) {
			uint64_t next = ping->next + interval;

			/* Keep the rhythm, but do not send missed probes after a long stop. */
			ping->next = next + interval < now ? now + interval : next;
			probe_send(ping);
			continue;
		}
		if (may_send(ping))
			wake = nsec_earlier(wake, ping->next);
		/* Standard output is closed, as by "| head": main() reports it. */
		if (!output_flush())
			return;
		flows_poll(ping, fds, now, nsec_earlier(wake, ping->end));
	}
}

static enum outcome ping_all(struct ping *ping, struct pollfd *fds)
{
	char why[TARGET_WHY_MAX];

	ping->end = ping->options->deadline == NSEC_NEVER ? NSEC_NEVER : nsec_now() + ping->options->deadline;
	/* With a connection for each probe, the first one only shows that the server can be reached. */
	if (flows_connect(ping, why) < 0)
		return ping_report_unreachable(ping, why);
	if (ping->options->reconnect) {
		flow_disconnect(&ping->flows[0]);
		histogram_clear(&ping->connects);
	}
	ping_report_start(ping);
	ping->begun = nsec_now();
	ping_run(ping, fds);
	return ping_report_end(ping);
}

static int flows_allocate(struct ping *ping)
{
	size_t size = (size_t) ping->options->size;

	ping->flows = calloc(ping->options->flows, sizeof *ping->flows);
	if (!ping->flows)
		return -ENOMEM;
	for (unsigned i = 0; i < ping->options->flows; i++)
		ping->flows[i].fd = -1;
	for (unsigned i = 0; i < ping->options->flows; i++) {
		ping->flows[i].out = malloc(size);
		ping->flows[i].in = malloc(size);
		if (!ping->flows[i].out || !ping->flows[i].in)
			return -ENOMEM;
	}
	return 0;
}

static void ping_clear(struct ping *ping)
{
	for (unsigned i = 0; ping->flows && i < ping->options->flows; i++) {
		flow_disconnect(&ping->flows[i]);
		free(ping->flows[i].out);
		free(ping->flows[i].in);
	}
	free(ping->flows);
	probes_clear(&ping->probes);
	free(ping);
}

/* Check what cannot work before the run. */
static enum outcome ping_check(const struct client_options *options, const struct target *target)
{
	int r = options->metrics ? outfile_check(options->metrics) : 0;

	if (r < 0)
		return client_error(OUTCOME_USAGE, "--metrics: cannot write %s: %s", options->metrics,
				    strerror(-r));
	if (options->flows > 1 && target->addrs[0].sa.sa_family == AF_UNIX)
		return client_error(OUTCOME_USAGE, "--flows: a unix socket has no source ports and no paths");
	return OUTCOME_OK;
}

enum outcome ping(const struct client_options *options, const struct target *target)
{
	enum outcome outcome = ping_check(options, target);
	struct ping *ping;
	struct pollfd *fds;
	uint32_t key = 0;

	if (outcome != OUTCOME_OK)
		return outcome;
	ping = calloc(1, sizeof *ping);
	fds = calloc(options->flows, sizeof *fds);
	if (!ping || !fds) {
		free(ping);
		free(fds);
		return client_error(OUTCOME_USAGE, "out of memory");
	}
	if (getrandom(&key, sizeof key, 0) < 0)
		key = (uint32_t) nsec_now();
	pattern_make();
	ping->options = options;
	ping->target = target;
	ping->ttl_min = ping->ttl_max = -1;
	histogram_clear(&ping->connects);
	if (probes_init(&ping->probes, (size_t) options->size, key, options->flows) < 0
	    || flows_allocate(ping) < 0)
		outcome = client_error(OUTCOME_USAGE, "out of memory");
	else
		outcome = ping_all(ping, fds);
	ping_clear(ping);
	free(fds);
	return outcome;
}
