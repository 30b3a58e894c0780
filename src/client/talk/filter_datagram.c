/* filter_datagram.c - see filter.h; the datagram half */
#include <config.h>

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/talk/exchange.h"
#include "client/talk/filter.h"
#include "client/interrupt.h"
#include "client/options.h"
#include "client/talk/progress.h"

static int error_print(struct progress *progress, const char *what, int error)
{
	progress_end(progress);
	fprintf(stderr, "echoc: %s: %s\n", what, strerror(error));
	return OUTCOME_DIFFERS;
}

/* Wait until `fd` is ready, so that Ctrl-C can come between. Returns whether it is. */
static bool ready_wait(int fd, short events)
{
	struct pollfd wait = { .fd = fd, .events = events };

	return !interrupt_seen() && (ppoll(&wait, 1, NULL, interrupt_mask()) > 0 || !interrupt_seen());
}

static int interrupted(struct progress *progress, const struct exchange *exchange, int outcome)
{
	progress_end(progress);
	fprintf(stderr, "echoc: interrupted: %llu bytes sent, %llu came back and matched\n",
		(unsigned long long) exchange->sent, (unsigned long long) exchange->matched);
	return outcome;
}

/* Returns 0, -EINTR after Ctrl-C, or another -errno. */
static int output_write(const uint8_t *bytes, size_t size)
{
	while (size > 0) {
		ssize_t n;

		if (!ready_wait(STDOUT_FILENO, POLLOUT))
			return -EINTR;
		/* So much a pipe that is ready takes without blocking. */
		n = write(STDOUT_FILENO, bytes, size < PIPE_BUF ? size : PIPE_BUF);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		if (n > 0) {
			bytes += n;
			size -= (size_t) n;
		}
	}
	return 0;
}

static int filter_run(struct exchange *exchange, struct progress *progress, uint8_t *piece)
{
	for (;;) {
		ssize_t n;
		int r;

		/* Whatever was read before has come back, and is written. */
		if (!ready_wait(STDIN_FILENO, POLLIN))
			return interrupted(progress, exchange, OUTCOME_OK);
		n = read(STDIN_FILENO, piece, (size_t) exchange->options->size);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return error_print(progress, "standard input", errno);
		if (n == 0)
			return OUTCOME_OK;
		r = exchange_piece(exchange, piece, (size_t) n);
		if (r >= 0)
			return r;
		r = output_write(exchange->back, (size_t) n);
		if (r == -EINTR)
			return interrupted(progress, exchange, OUTCOME_DIFFERS);
		if (r < 0)
			return error_print(progress, "standard output", -r);
		progress_show(progress, exchange->sent, exchange->matched);
	}
}

int filter_datagram(const struct client_options *options, const struct target *target, int net)
{
	uint8_t *piece = malloc((size_t) options->size);
	struct progress progress;
	struct exchange exchange;
	int r;

	progress_begin(&progress, options->quiet);
	exchange_init(&exchange, options, target, net);
	r = piece ? filter_run(&exchange, &progress, piece) : error_print(&progress, "a buffer", ENOMEM);
	progress_end(&progress);
	if (exchange.again > 0 && !options->quiet)
		fprintf(stderr, "echoc: note: %llu datagrams were lost and sent again\n",
			(unsigned long long) exchange.again);
	exchange_clear(&exchange);
	free(piece);
	return r;
}
