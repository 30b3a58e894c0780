/* filter.c - see filter.h; the stream half */
#include <config.h>

#include "client/talk/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/interrupt.h"
#include "client/options.h"
#include "client/pattern.h"
#include "client/talk/progress.h"
#include "client/target.h"
#include "client/nsec.h"

#define PIECE (256u * 1024u)  /* most moved by one system call */
#define RING_FIRST (1u << 20) /* both powers of two: a place in the ring is a mask away */
#define RING_MOST (1u << 30)
#define GROW_AFTER (NSEC_PER_SEC / 10)
#define SHUT_AFTER (NSEC_PER_SEC / 5)
#define CLOSE_WAIT (2 * NSEC_PER_SEC)

struct filter {
	const struct client_options *options;
	const struct target *target;
	struct progress progress;
	int in, out, net;
	uint8_t *ring; /* [matched, taken) of the input, at its offset modulo the size */
	size_t ring_size;
	uint64_t taken;   /* bytes read from the input */
	uint64_t sent;    /* of those, handed to the kernel */
	uint64_t matched; /* of those, come back and equal */
	uint64_t written; /* of those, passed on to the output */
	uint8_t *back;    /* [written, matched): from back_start to back_end */
	size_t back_start, back_end;
	size_t out_piece; /* most a write to the output may hold without blocking */
	bool in_over, shut, net_over, send_broken;
	int broken;     /* the errno that ended the connection */
	uint64_t moved; /* when a byte last moved */
};

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static int filter_fail(struct filter *filter, const char *what, int error)
{
	progress_end(&filter->progress);
	fprintf(stderr, "echoc: %s: %s\n", what, strerror(error));
	return OUTCOME_DIFFERS;
}

/* A pipe is opened once more to be written without blocking: O_NONBLOCK on the one we were given would
 * act on whoever shares it. Where that cannot be, only as much is written as poll(2) vouches for. */
static void output_prepare(struct filter *filter)
{
	struct stat about;

	filter->out = STDOUT_FILENO;
	filter->out_piece = PIECE;
	if (fstat(STDOUT_FILENO, &about) < 0 || S_ISREG(about.st_mode))
		return;
	if (S_ISFIFO(about.st_mode)) {
		int fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC);

		if (fd >= 0) {
			filter->out = fd;
			return;
		}
	}
	filter->out_piece = 4096; /* PIPE_BUF */
}

static bool ring_full(const struct filter *filter)
{
	return filter->taken - filter->matched == filter->ring_size;
}

/* The piece of the ring that begins at `from`, not longer than `most`; its length in `*length`. */
static uint8_t *ring_piece(struct filter *filter, uint64_t from, uint64_t most, size_t *length)
{
	size_t at = (size_t) (from & (filter->ring_size - 1));

	*length = min_size(min_size((size_t) most, filter->ring_size - at), PIECE);
	return filter->ring + at;
}

/* The server keeps all that was sent and waits for more: give it more. */
static void ring_grow(struct filter *filter)
{
	size_t size = filter->ring_size * 2;
	uint8_t *ring = filter->ring_size < RING_MOST ? malloc(size) : NULL;

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

/* Each of the four steps moves one piece and returns -1 to go on, or the outcome. */

static int filter_read(struct filter *filter)
{
	size_t length;
	uint8_t *piece = ring_piece(filter, filter->taken,
				    filter->ring_size - (filter->taken - filter->matched), &length);
	ssize_t n = read(filter->in, piece, length);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? -1 : filter_fail(filter, "standard input", errno);
	if (n == 0)
		filter->in_over = true;
	filter->moved = nsec_now();
	filter->taken += (uint64_t) n;
	return -1;
}

static int filter_send(struct filter *filter)
{
	size_t length;
	const uint8_t *piece = ring_piece(filter, filter->sent, filter->taken - filter->sent, &length);
	ssize_t n = send(filter->net, piece, length, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0) {
		if (errno == EAGAIN || errno == EINTR)
			return -1;
		/* What came back before is still to be read. */
		filter->send_broken = true;
		filter->broken = errno;
		return -1;
	}
	filter->sent += (uint64_t) n;
	filter->moved = nsec_now();
	return -1;
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

/* A byte came back that was not sent. All before it is passed on, so that the copy ends where the fault is. */
static int filter_differs(struct filter *filter, size_t at, uint8_t wanted)
{
	uint64_t offset = filter->matched + at;
	uint8_t got = filter->back[filter->back_end + at];

	progress_end(&filter->progress);
	write_all(filter->out, filter->back + filter->back_start, filter->back_end + at - filter->back_start);
	fprintf(stderr,
		"echoc: the echo of %s differs at byte %llu (offset %llu, %#llx): sent 0x%02x, came back "
		"0x%02x\n",
		filter->target->name, (unsigned long long) offset + 1, (unsigned long long) offset,
		(unsigned long long) offset, wanted, got);
	return OUTCOME_DIFFERS;
}

static int filter_surplus(struct filter *filter, size_t surplus)
{
	progress_end(&filter->progress);
	write_all(filter->out, filter->back + filter->back_start, filter->back_end - filter->back_start);
	fprintf(stderr,
		"echoc: %s sent back more than it was sent: %zu bytes or more after the %llu that matched\n",
		filter->target->name, surplus, (unsigned long long) filter->matched);
	return OUTCOME_DIFFERS;
}

static int filter_receive(struct filter *filter)
{
	ssize_t n = recv(filter->net, filter->back + filter->back_end, PIECE - filter->back_end,
			 MSG_DONTWAIT);
	size_t left;

	if (n < 0) {
		if (errno == EAGAIN || errno == EINTR)
			return -1;
		filter->broken = errno;
		n = 0;
	}
	if (n == 0) {
		filter->net_over = true;
		return -1;
	}
	for (left = (size_t) n; left > 0;) {
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
	filter->moved = nsec_now();
	return -1;
}

static int filter_write(struct filter *filter)
{
	size_t length = min_size(filter->back_end - filter->back_start, filter->out_piece);
	ssize_t n = write(filter->out, filter->back + filter->back_start, length);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? -1 : filter_fail(filter, "standard output", errno);
	filter->back_start += (size_t) n;
	filter->written += (uint64_t) n;
	if (filter->back_start == filter->back_end)
		filter->back_start = filter->back_end = 0;
	filter->moved = nsec_now();
	return -1;
}

/* The connection is over and all that came is written: was it enough? */
static int filter_judge(struct filter *filter)
{
	progress_end(&filter->progress);
	if (filter->in_over && filter->matched == filter->taken)
		return OUTCOME_OK;
	if (filter->broken != 0)
		fprintf(stderr, "echoc: the connection to %s broke: %s", filter->target->name,
			strerror(filter->broken));
	else
		fprintf(stderr, "echoc: %s closed the connection", filter->target->name);
	if (filter->taken > filter->matched)
		fprintf(stderr, "; %llu bytes came back of %llu read\n", (unsigned long long) filter->matched,
			(unsigned long long) filter->taken);
	else
		fprintf(stderr, " before the input was at its end; all %llu bytes so far came back\n",
			(unsigned long long) filter->matched);
	return OUTCOME_DIFFERS;
}

static int filter_interrupted(struct filter *filter)
{
	/* What matched and is not passed on yet is missing from the copy as well. */
	uint64_t owed = filter->taken - filter->written;

	progress_end(&filter->progress);
	fprintf(stderr, "echoc: interrupted: %llu bytes read, %llu sent, %llu came back and matched\n",
		(unsigned long long) filter->taken, (unsigned long long) filter->sent,
		(unsigned long long) filter->matched);
	return owed == 0 ? OUTCOME_OK : OUTCOME_DIFFERS;
}

static int filter_stalled(struct filter *filter)
{
	progress_end(&filter->progress);
	if (filter->in_over && filter->matched == filter->taken) {
		fprintf(stderr, "echoc: note: all bytes matched, but %s did not close the connection\n",
			filter->target->name);
		return OUTCOME_OK;
	}
	fprintf(stderr, "echoc: nothing from %s for %.3g s: %llu bytes sent, %llu came back\n",
		filter->target->name, nsec_to_seconds(filter->options->timeout),
		(unsigned long long) filter->sent, (unsigned long long) filter->matched);
	return OUTCOME_DIFFERS;
}

/* Some servers (ncat --exec is one) drop what they owe when they learn that no more will come. So that is said when all
 * is back; or when nothing more comes back, as from a server that waits for the end before it answers. */
static void filter_shut(struct filter *filter, uint64_t now)
{
	if (filter->shut || !filter->in_over || filter->sent < filter->taken)
		return;
	if (filter->matched < filter->taken && !filter->send_broken && now < filter->moved + SHUT_AFTER)
		return;
	shutdown(filter->net, SHUT_WR);
	filter->shut = true;
	filter->moved = now;
}

/* The time at which something must happen though nothing moves, or NSEC_NEVER. */
static uint64_t filter_alarm(const struct filter *filter)
{
	if (filter->back_end > 0)
		return NSEC_NEVER; /* the output is what is slow */
	if (filter->in_over && filter->matched == filter->taken)
		return filter->moved + CLOSE_WAIT;
	if (filter->in_over && filter->sent == filter->taken && !filter->shut)
		return filter->moved + SHUT_AFTER;
	/* With nothing owed the input may take its time. */
	if (filter->options->timeout == NSEC_NEVER || filter->matched == filter->taken)
		return NSEC_NEVER;
	return filter->moved + filter->options->timeout;
}

static int filter_turn(struct filter *filter)
{
	uint64_t now = nsec_now(), alarm, wake, grow = NSEC_NEVER;
	struct pollfd fds[3] = { { .fd = -1 }, { .fd = -1 }, { .fd = -1 } };
	struct timespec wait;
	int r = -1;

	filter_shut(filter, now);
	alarm = filter_alarm(filter);
	if (ring_full(filter) && filter->sent == filter->taken && filter->back_end == 0
	    && filter->ring_size < RING_MOST)
		grow = filter->moved + GROW_AFTER;
	if (now >= alarm)
		return filter_stalled(filter);
	if (now >= grow) {
		ring_grow(filter);
		grow = NSEC_NEVER;
	}
	if (!filter->in_over && !ring_full(filter) && !filter->send_broken)
		fds[0] = (struct pollfd){ .fd = filter->in, .events = POLLIN };
	fds[1].events = (short) ((filter->back_end < PIECE && !filter->net_over ? POLLIN : 0)
				 | (filter->sent < filter->taken && !filter->send_broken ? POLLOUT : 0));
	fds[1].fd = fds[1].events != 0 ? filter->net : -1;
	if (filter->back_end > 0)
		fds[2] = (struct pollfd){ .fd = filter->out, .events = POLLOUT };
	wake = grow < alarm ? grow : alarm;
	wake = progress_due(&filter->progress) < wake ? progress_due(&filter->progress) : wake;
	if (ppoll(fds, 3, nsec_timespec(&wait, now, wake), interrupt_mask()) < 0) {
		if (errno != EINTR)
			return filter_fail(filter, "poll", errno);
		return interrupt_seen() ? filter_interrupted(filter) : -1;
	}
	if (fds[1].events & POLLIN && fds[1].revents & (POLLIN | POLLHUP | POLLERR))
		r = filter_receive(filter);
	if (r < 0 && fds[2].revents != 0)
		r = filter_write(filter);
	if (r < 0 && fds[0].revents != 0)
		r = filter_read(filter);
	if (r < 0 && fds[1].events & POLLOUT && fds[1].revents & (POLLOUT | POLLERR | POLLHUP))
		r = filter_send(filter);
	if (interrupt_seen())
		return filter_interrupted(filter);
	return r;
}

static int filter_run(struct filter *filter)
{
	int r;

	filter->moved = nsec_now();
	for (;;) {
		if (filter->net_over && filter->back_end == 0)
			return filter_judge(filter);
		progress_show(&filter->progress, filter->sent, filter->matched);
		r = filter_turn(filter);
		if (r >= 0)
			return r;
	}
}

int filter_stream(const struct client_options *options, const struct target *target, int net)
{
	struct filter filter = {
		.options = options,
		.target = target,
		.in = STDIN_FILENO,
		.net = net,
		.ring_size = RING_FIRST,
	};
	int r;

	output_prepare(&filter);
	progress_begin(&filter.progress, options->quiet);
	filter.ring = malloc(RING_FIRST);
	filter.back = malloc(PIECE);
	if (!filter.ring || !filter.back)
		r = filter_fail(&filter, "a buffer", ENOMEM);
	else
		r = filter_run(&filter);
	free(filter.ring);
	free(filter.back);
	if (filter.out != STDOUT_FILENO)
		close(filter.out);
	return r;
}
