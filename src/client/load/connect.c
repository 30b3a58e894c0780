/* opener.c - see opener.h */
#include <config.h>

#include "client/load/connect.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/interrupt.h"
#include "client/load/worker.h"

#define AT_ONCE 128

/* Connections in the making: the first `used` of both; behind them in `fds` is what cancels. */
struct opening {
	struct pollfd fds[AT_ONCE + 1];
	unsigned which[AT_ONCE];
	unsigned used;
};

/* Begin a connection. Returns 0 or -errno; `*fd` is set when it is made or in the making. */
static int connect_begin(int *fd, const struct socket_options *sockopts, const struct addr *to, int cancel,
			 bool *made, const char **what)
{
	int r;

	*made = true;
	r = to->sa.sa_family == AF_UNIX ? target_connect_unix(sockopts, to, cancel)
					: target_socket(sockopts, to, what);
	if (r < 0)
		return r;
	*fd = r;
	if (to->sa.sa_family == AF_UNIX || connect(*fd, &to->sa, to->len) == 0)
		return 0;
	*made = false;
	return errno == EINPROGRESS ? 0 : -errno;
}

/* Take the finished ones out. Returns 0 or -errno of one that failed. */
static int opening_reap(struct opening *opening)
{
	int error = 0;

	for (unsigned i = 0; i < opening->used;) {
		socklen_t length = sizeof error;

		if (opening->fds[i].revents == 0) {
			i++;
			continue;
		}
		if (getsockopt(opening->fds[i].fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
			error = errno;
		if (error != 0)
			return -error;
		opening->used--;
		opening->fds[i] = opening->fds[opening->used];
		opening->which[i] = opening->which[opening->used];
	}
	return 0;
}

/* Wait for news of those in the making. Returns 0 or -errno. */
static int opening_wait(struct opening *opening, uint64_t timeout, int cancel)
{
	struct pollfd *last = &opening->fds[opening->used];
	struct timespec wait;
	int r;

	*last = (struct pollfd){ .fd = cancel, .events = POLLIN };
	r = ppoll(opening->fds, opening->used + 1,
		  timeout == NSEC_NEVER ? NULL : nsec_timespec(&wait, 0, timeout),
		  cancel < 0 ? interrupt_mask() : NULL);
	if (r < 0 && errno != EINTR)
		return -errno;
	if (last->revents != 0 || (cancel < 0 && interrupt_seen()))
		return -ECANCELED;
	return r == 0 ? -ETIMEDOUT : r < 0 ? 0 : opening_reap(opening);
}

unsigned connect_many(int *fds, unsigned count, const struct socket_options *sockopts, const struct addr *to,
		      int cancel, int *error, const char **what)
{
	struct opening opening = { .used = 0 };
	unsigned next = 0, open = 0;
	bool made;
	int r = 0;

	*what = NULL;
	while (r == 0 && (next < count || opening.used > 0)) {
		while (r == 0 && next < count && opening.used < AT_ONCE) {
			if (fds[next] < 0) {
				r = connect_begin(&fds[next], sockopts, to, cancel, &made, what);
				if (r == 0 && !made) {
					opening.fds[opening.used] = (struct pollfd){ .fd = fds[next],
										     .events = POLLOUT };
					opening.which[opening.used++] = next;
				}
			}
			next++;
		}
		if (r == 0 && opening.used > 0)
			r = opening_wait(&opening, sockopts->timeout, cancel);
	}
	*error = -r;
	for (unsigned i = 0; i < opening.used; i++) {
		close(opening.fds[i].fd);
		fds[opening.which[i]] = -1;
	}
	for (unsigned i = 0; i < count; i++)
		open += fds[i] >= 0;
	return open;
}

int load_worker_connect(struct load_worker *worker)
{
	const struct load_run *run = worker->run;
	const char *what;
	char text[128];
	int error = 0, *fds;
	unsigned open;

	if (run->options->mode == LOAD_CONNECT)
		return 0;
	fds = malloc(worker->count * sizeof *fds);
	if (!fds)
		return -ENOMEM;
	for (unsigned i = 0; i < worker->count; i++)
		fds[i] = worker->conns[i].fd;
	open = connect_many(fds, worker->count, &run->options->sockopts, &run->to, worker->wake, &error,
			    &what);
	for (unsigned i = 0; i < worker->count; i++) {
		worker->conns[i].fd = fds[i];
		worker->conns[i].state = fds[i] >= 0 ? LOAD_CONN_OPEN : LOAD_CONN_CLOSED;
	}
	free(fds);
	counter_add(&worker->counters.connections, open);
	if (error == 0)
		return 0;
	snprintf(text, sizeof text, "only %u of %u connections could be made: %s%s", open, worker->count,
		 what ? "cannot " : "", what ? what : "connect");
	load_worker_fault(worker, NULL, text, error);
	return -error;
}
