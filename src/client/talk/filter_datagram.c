/* SPDX-License-Identifier: ISC */
/* filter_datagram.c - see filter.h; datagrams */
#include <config.h>

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/plural.h"
#include "client/interrupt.h"
#include "client/options.h"
#include "client/talk/exchange.h"
#include "client/talk/filter.h"
#include "client/talk/progress.h"

/* Wait until `fd` is ready or an interrupt comes. Returns whether `fd` is ready. */
static bool ready_wait(int fd, short events)
{
	struct pollfd wait = { .fd = fd, .events = events };

	return !interrupt_seen() && (ppoll(&wait, 1, NULL, interrupt_mask()) > 0 || !interrupt_seen());
}

static enum outcome interrupted(struct progress *progress, const struct exchange *exchange,
				enum outcome outcome)
{
	progress_end(progress);
	return client_error(outcome, "interrupted: %llu byte%s sent, %llu came back and matched",
			    (unsigned long long) exchange->done.sent, plural(exchange->done.sent),
			    (unsigned long long) exchange->done.matched);
}

static enum outcome io_failed(struct progress *progress, const char *what, int error)
{
	progress_end(progress);
	return client_error(OUTCOME_DIFFERS, "%s: %s", what, strerror(error));
}

/* Returns 0, -EINTR after an interrupt, or another -errno. */
static int output_write(const uint8_t *bytes, size_t size)
{
	while (size > 0) {
		ssize_t n;

		if (!ready_wait(STDOUT_FILENO, POLLOUT))
			return -EINTR;
		/* A pipe that is ready takes PIPE_BUF bytes without blocking. */
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

static enum outcome filter_run(struct exchange *exchange, struct progress *progress, uint8_t *piece)
{
	for (;;) {
		enum outcome outcome;
		ssize_t n;
		int r;

		/* At this point everything that was read has come back and is written. */
		if (!ready_wait(STDIN_FILENO, POLLIN))
			return interrupted(progress, exchange, OUTCOME_OK);
		n = read(STDIN_FILENO, piece, (size_t) exchange->options->size);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return io_failed(progress, "standard input", errno);
		if (n == 0)
			return OUTCOME_OK;
		outcome = exchange_piece(exchange, piece, (size_t) n);
		if (outcome != OUTCOME_OK)
			return outcome;
		r = output_write(exchange->back, (size_t) n);
		if (r == -EINTR)
			return interrupted(progress, exchange, OUTCOME_DIFFERS);
		if (r < 0)
			return io_failed(progress, "standard output", -r);
		progress_show(progress, exchange->done.sent, exchange->done.matched);
	}
}

enum outcome filter_datagram(const struct client_options *options, const struct target *target, int net,
			     struct transfer *done)
{
	uint8_t *piece = malloc((size_t) options->size);
	struct progress progress;
	struct exchange exchange;
	enum outcome outcome;

	progress_begin(&progress, options->quiet);
	exchange_init(&exchange, options, target, net);
	outcome = piece ? filter_run(&exchange, &progress, piece)
			: client_error(OUTCOME_DIFFERS, "out of memory");
	progress_end(&progress);
	exchange_finish(&exchange);
	if (exchange.done.lost > 0 && !options->quiet)
		client_note("%llu datagram%s lost and sent again", (unsigned long long) exchange.done.lost,
			    plural(exchange.done.lost));
	*done = exchange.done;
	exchange_clear(&exchange);
	free(piece);
	return outcome;
}
