/* SPDX-License-Identifier: ISC */
/* filter.c - see filter.h; streams */
#include <config.h>

#include "client/talk/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/plural.h"
#include "client/interrupt.h"
#include "client/nsec.h"
#include "client/options.h"
#include "client/pattern.h"
#include "client/talk/exchange.h"
#include "client/talk/progress.h"
#include "client/target.h"

#define PIECE_MAX (256u * 1024u)   /* bytes of one system call */
#define RING_SIZE_FIRST (1u << 20) /* sizes of the ring are powers of two: a position is found with a mask */
#define RING_SIZE_MAX (1u << 30)
#define GROW_DELAY (NSEC_PER_SEC / 10)
#define SHUTDOWN_DELAY (NSEC_PER_SEC / 5)
#define CLOSE_TIMEOUT (2 * NSEC_PER_SEC)

struct filter {
	const struct client_options *options;
	const struct target *target;
	struct progress progress;
	int in, out, net;
	uint8_t *ring; /* bytes [matched, taken) of the input; byte n is at n modulo ring_size */
	size_t ring_size;
	uint64_t taken;   /* bytes read from the input */
	uint64_t sent;    /* bytes of these passed to the kernel */
	uint64_t matched; /* bytes of these that came back equal */
	uint64_t written; /* bytes of these written to the output */
	uint8_t *back;    /* bytes [written, matched), from back_start to back_end */
	size_t back_start, back_end;
	size_t write_max; /* bytes that a write to the output takes without blocking */
	bool in_eof, net_eof;
	bool shutdown; /* the sending side of the connection is closed */
	bool send_failed;
	int error;           /* errno that ended the connection */
	uint64_t last_moved; /* when a byte was last transferred */
	enum outcome outcome;
};

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* End with OUTCOME_DIFFERS and an error message. */
static enum step filter_fail(struct filter *filter, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static enum step filter_fail(struct filter *filter, const char *format, ...)
{
	va_list args;

	progress_end(&filter->progress);
	va_start(args, format);
	filter->outcome = client_verror(OUTCOME_DIFFERS, format, args);
	va_end(args);
	return STEP_DONE;
}

/* Open a pipe a second time with O_NONBLOCK, because setting the flag on descriptor 1 would affect every
 * process that shares it. Where that is impossible, limit each write to what poll(2) guarantees. */
static void output_open(struct filter *filter)
{
	struct stat about;

	filter->out = STDOUT_FILENO;
	filter->write_max = PIECE_MAX;
	if (fstat(STDOUT_FILENO, &about) < 0 || S_ISREG(about.st_mode))
		return;
	if (S_ISFIFO(about.st_mode)) {
		int fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC);

		if (fd >= 0) {
			filter->out = fd;
			return;
		}
	}
	filter->write_max = PIPE_BUF;
}

/* --- the ring ----------------------------------------------------------------------------------------- */

static bool ring_full(const struct filter *filter)
{
	return filter->taken - filter->matched == filter->ring_size;
}

/* The contiguous part of the ring that begins at `from`, at most `max` bytes; its length in `*length`. */
static uint8_t *ring_piece(struct filter *filter, uint64_t from, uint64_t max, size_t *length)
{
	size_t at = (size_t) (from & (filter->ring_size - 1));

	*length = min_size(min_size((size_t) max, filter->ring_size - at), PIECE_MAX);
	return filter->ring + at;
}

/* Double the ring, for a server that keeps everything it was sent and waits for more. */
static void ring_grow(struct filter *filter)
{
	size_t size = filter->ring_size * 2;
	uint8_t *ring = filter->ring_size < RING_SIZE_MAX ? malloc(size) : NULL;

	if (!ring)
		return;
	for (uint64_t at = filter->matched; at < filter->taken;) {
		size_t length;
		const uint8_t *piece = ring_piece(filter, at, filter->taken - at, &length);

		length = min_size(length, size - (size_t) (at & (size - 1)));
		memcpy(ring + (at & (size - 1)), piece, length);
		at += length;
	}
	free(filter->ring);
	filter->ring = ring;
	filter->ring_size = size;
}

/* --- moving one piece --------------------------------------------------------------------------------- */

static enum step filter_read(struct filter *filter)
{
	size_t length;
	uint8_t *piece = ring_piece(filter, filter->taken,
				    filter->ring_size - (filter->taken - filter->matched), &length);
	ssize_t n = read(filter->in, piece, length);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return STEP_CONTINUE;
	if (n < 0)
		return filter_fail(filter, "standard input: %s", strerror(errno));
	filter->in_eof = n == 0;
	filter->last_moved = nsec_now();
	filter->taken += (uint64_t) n;
	return STEP_CONTINUE;
}

static enum step filter_send(struct filter *filter)
{
	size_t length;
	const uint8_t *piece = ring_piece(filter, filter->sent, filter->taken - filter->sent, &length);
	ssize_t n = send(filter->net, piece, length, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n >= 0) {
		filter->sent += (uint64_t) n;
		filter->last_moved = nsec_now();
	} else if (errno != EAGAIN && errno != EINTR) {
		/* Do not end yet: there may be data to receive. */
		filter->send_failed = true;
		filter->error = errno;
	}
	return STEP_CONTINUE;
}

static int write_all(int fd, const uint8_t *bytes, size_t size)
{
	while (size > 0) {
		ssize_t n = write(fd, bytes, size);

		if (n < 0) {
			struct pollfd wait = { .fd = fd, .events = POLLOUT };

			if (errno == EAGAIN)
				ppoll(&wait, 1, NULL, interrupt_mask());
			else if (errno != EINTR)
				return -errno;
			if (interrupt_seen())
				return -EINTR;
			continue;
		}
		bytes += n;
		size -= (size_t) n;
	}
	return 0;
}

/* Byte `at` after the matched ones is wrong. Write the bytes before it, so that the copy ends there. */
static enum step filter_differs(struct filter *filter, size_t at, uint8_t sent)
{
	progress_end(&filter->progress);
	write_all(filter->out, filter->back + filter->back_start, filter->back_end + at - filter->back_start);
	filter->outcome = exchange_error_differs(filter->target, filter->matched + at, sent,
						 filter->back[filter->back_end + at]);
	return STEP_DONE;
}

static enum step filter_surplus(struct filter *filter, size_t surplus)
{
	write_all(filter->out, filter->back + filter->back_start, filter->back_end - filter->back_start);
	return filter_fail(
		filter, "%s sent back more than it was sent: %zu bytes or more after the %llu that matched",
		filter->target->name, surplus, (unsigned long long) filter->matched);
}

/* Compare the `length` bytes received last with those that were sent. */
static enum step filter_compare(struct filter *filter, size_t left)
{
	while (left > 0) {
		size_t length, same;
		const uint8_t *piece = ring_piece(filter, filter->matched, filter->sent - filter->matched,
						  &length);

		if (length == 0)
			return filter_surplus(filter, left);
		length = min_size(length, left);
		same = bytes_compare(piece, filter->back + filter->back_end, length);
		if (same < length)
			return filter_differs(filter, same, piece[same]);
		filter->matched += length;
		filter->back_end += length;
		left -= length;
	}
	filter->last_moved = nsec_now();
	return STEP_CONTINUE;
}

static enum step filter_receive(struct filter *filter)
{
	ssize_t n = recv(filter->net, filter->back + filter->back_end, PIECE_MAX - filter->back_end,
			 MSG_DONTWAIT);

	if (n > 0)
		return filter_compare(filter, (size_t) n);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return STEP_CONTINUE;
	if (n < 0)
		filter->error = errno;
	filter->net_eof = true;
	return STEP_CONTINUE;
}

static enum step filter_write(struct filter *filter)
{
	size_t length = min_size(filter->back_end - filter->back_start, filter->write_max);
	ssize_t n = write(filter->out, filter->back + filter->back_start, length);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return STEP_CONTINUE;
	if (n < 0)
		return filter_fail(filter, "standard output: %s", strerror(errno));
	filter->back_start += (size_t) n;
	filter->written += (uint64_t) n;
	if (filter->back_start == filter->back_end)
		filter->back_start = filter->back_end = 0;
	filter->last_moved = nsec_now();
	return STEP_CONTINUE;
}

/* --- ends --------------------------------------------------------------------------------------------- */

static bool all_matched(const struct filter *filter)
{
	return filter->in_eof && filter->matched == filter->taken;
}

/* The connection is closed and everything received has been written. */
static enum outcome filter_closed(struct filter *filter)
{
	char detail[128];

	progress_end(&filter->progress);
	if (all_matched(filter))
		return OUTCOME_OK;
	snprintf(detail, sizeof detail,
		 filter->taken > filter->matched
			 ? "; %llu bytes came back of %llu read"
			 : " before the end of the input; all %llu bytes so far came back",
		 (unsigned long long) filter->matched, (unsigned long long) filter->taken);
	return exchange_error_closed(filter->target, filter->error, detail);
}

static enum step filter_interrupted(struct filter *filter)
{
	filter_fail(filter, "interrupted: %llu byte%s read, %llu sent, %llu came back and matched",
	            (unsigned long long) filter->taken, plural(filter->taken),
	            (unsigned long long) filter->sent, (unsigned long long) filter->matched);
	/* Bytes that matched but are not written are missing from the copy as well. */
	if (filter->taken == filter->written)
		filter->outcome = OUTCOME_OK;
	return STEP_DONE;
}

static enum step filter_timeout(struct filter *filter)
{
	if (!all_matched(filter))
		return filter_fail(filter, "nothing from %s for %.3g s: %llu byte%s sent, %llu came back",
		                   filter->target->name, nsec_to_seconds(filter->options->timeout),
		                   (unsigned long long) filter->sent, plural(filter->sent),
		                   (unsigned long long) filter->matched);
	progress_end(&filter->progress);
	client_note("all bytes matched, but %s did not close the connection", filter->target->name);
	filter->outcome = OUTCOME_OK;
	return STEP_DONE;
}

/* --- the loop ----------------------------------------------------------------------------------------- */

/* Close the sending side when it is time. Some servers (e.g. ncat --exec) drop pending output on end of
 * file, so wait until everything has come back; or for SHUTDOWN_DELAY without data, because others answer
 * only at end of file. */
static void filter_shutdown(struct filter *filter, uint64_t now)
{
	if (filter->shutdown || !filter->in_eof || filter->sent < filter->taken)
		return;
	if (filter->matched < filter->taken && !filter->send_failed
	    && now < filter->last_moved + SHUTDOWN_DELAY)
		return;
	shutdown(filter->net, SHUT_WR);
	filter->shutdown = true;
	filter->last_moved = now;
}

/* When to act if no byte is transferred until then; NSEC_NEVER: not at all. */
static uint64_t filter_deadline(const struct filter *filter)
{
	if (filter->back_end > 0)
		return NSEC_NEVER; /* waiting for the output */
	if (all_matched(filter))
		return filter->last_moved + CLOSE_TIMEOUT;
	if (filter->in_eof && filter->sent == filter->taken && !filter->shutdown)
		return filter->last_moved + SHUTDOWN_DELAY;
	/* There is no limit for the input while no answer is outstanding. */
	if (filter->options->timeout == NSEC_NEVER || filter->matched == filter->taken)
		return NSEC_NEVER;
	return filter->last_moved + filter->options->timeout;
}

/* When to enlarge the ring: it is full, and the server has not sent anything for GROW_DELAY. */
static uint64_t grow_time(const struct filter *filter)
{
	if (!ring_full(filter) || filter->sent < filter->taken || filter->back_end > 0
	    || filter->ring_size >= RING_SIZE_MAX)
		return NSEC_NEVER;
	return filter->last_moved + GROW_DELAY;
}

enum { FD_IN, FD_NET, FD_OUT, FD_COUNT };

static void filter_prepare(const struct filter *filter, struct pollfd fds[static FD_COUNT])
{
	bool can_read = !filter->in_eof && !ring_full(filter) && !filter->send_failed;
	bool can_receive = filter->back_end < PIECE_MAX && !filter->net_eof;
	bool can_send = filter->sent < filter->taken && !filter->send_failed;

	fds[FD_IN] = (struct pollfd) { .fd = can_read ? filter->in : -1, .events = POLLIN };
	fds[FD_NET] = (struct pollfd) {
		.fd = can_receive || can_send ? filter->net : -1,
		.events = (short) ((can_receive ? POLLIN : 0) | (can_send ? POLLOUT : 0)),
	};
	fds[FD_OUT] = (struct pollfd) { .fd = filter->back_end > 0 ? filter->out : -1, .events = POLLOUT };
}

static enum step filter_dispatch(struct filter *filter, const struct pollfd fds[static FD_COUNT])
{
	const struct pollfd *net = &fds[FD_NET];
	enum step step = STEP_CONTINUE;

	if (net->events & POLLIN && net->revents & (POLLIN | POLLHUP | POLLERR))
		step = filter_receive(filter);
	if (step == STEP_CONTINUE && fds[FD_OUT].revents != 0)
		step = filter_write(filter);
	if (step == STEP_CONTINUE && fds[FD_IN].revents != 0)
		step = filter_read(filter);
	if (step == STEP_CONTINUE && net->events & POLLOUT && net->revents & (POLLOUT | POLLERR | POLLHUP))
		step = filter_send(filter);
	return step;
}

static enum step filter_turn(struct filter *filter)
{
	uint64_t now = nsec_now(), deadline, wake;
	struct pollfd fds[FD_COUNT];
	struct timespec wait;
	enum step step = STEP_CONTINUE;
	int ready;

	filter_shutdown(filter, now);
	deadline = filter_deadline(filter);
	if (now >= deadline)
		return filter_timeout(filter);
	if (now >= grow_time(filter))
		ring_grow(filter);
	filter_prepare(filter, fds);
	wake = nsec_earlier(nsec_earlier(grow_time(filter), deadline), progress_due(&filter->progress));
	ready = ppoll(fds, FD_COUNT, nsec_timespec(&wait, now, wake), interrupt_mask());
	if (ready < 0 && errno != EINTR)
		return filter_fail(filter, "poll: %s", strerror(errno));
	if (ready > 0)
		step = filter_dispatch(filter, fds);
	if (interrupt_summary())
		client_note("%llu byte%s sent, %llu came back and matched", (unsigned long long) filter->sent,
			    plural(filter->sent),
			    (unsigned long long) filter->matched);
	return interrupt_seen() ? filter_interrupted(filter) : step;
}

static enum outcome filter_run(struct filter *filter)
{
	filter->last_moved = nsec_now();
	while (!filter->net_eof || filter->back_end > 0) {
		progress_show(&filter->progress, filter->sent, filter->matched);
		if (filter_turn(filter) == STEP_DONE)
			return filter->outcome;
	}
	return filter_closed(filter);
}

enum outcome filter_stream(const struct client_options *options, const struct target *target, int net,
			   struct transfer *done)
{
	struct filter filter = {
		.options = options,
		.target = target,
		.in = STDIN_FILENO,
		.net = net,
		.ring_size = RING_SIZE_FIRST,
	};
	enum outcome outcome;

	output_open(&filter);
	progress_begin(&filter.progress, options->quiet);
	filter.ring = malloc(RING_SIZE_FIRST);
	filter.back = malloc(PIECE_MAX);
	if (filter.ring && filter.back)
		outcome = filter_run(&filter);
	else
		outcome = client_error(OUTCOME_DIFFERS, "out of memory");
	*done = (struct transfer) { .sent = filter.sent, .matched = filter.matched };
	free(filter.ring);
	free(filter.back);
	if (filter.out != STDOUT_FILENO)
		close(filter.out);
	return outcome;
}
