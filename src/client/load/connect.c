/* SPDX-License-Identifier: ISC */
/* connect.c - see connect.h */
#include <config.h>

#include "client/load/connect.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/interrupt.h"
#include "client/nsec.h"
#include "client/target.h"

#define PENDING_MAX 128

/* Connections being established: the first `used` entries. The entry after them in `fds` is the cancel
 * descriptor. */
struct pending {
	struct pollfd fds[PENDING_MAX + 1];
	unsigned which[PENDING_MAX];
	unsigned used;
};

/* Start a connection. Returns 0 or -errno. `*fd` is set also when connect(2) failed; `*done` if it is
 * established. */
static int connect_start(int *fd, const struct socket_options *sockopts, const struct addr *to, int cancel,
			 bool *done, const char **what)
{
	bool local = to->sa.sa_family == AF_UNIX;
	int r = local ? target_connect_unix(sockopts, to, cancel) : target_socket(sockopts, to, what);

	*done = true;
	if (r < 0)
		return r;
	*fd = r;
	if (local || connect(*fd, &to->sa, to->len) == 0)
		return 0;
	*done = false;
	return errno == EINPROGRESS ? 0 : -errno;
}

/* Remove the connections that poll(2) reported. Returns 0, or -errno of one that failed. */
static int pending_reap(struct pending *pending)
{
	int error = 0;

	for (unsigned i = 0; i < pending->used;) {
		socklen_t length = sizeof error;

		if (pending->fds[i].revents == 0) {
			i++;
			continue;
		}
		if (getsockopt(pending->fds[i].fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
			error = errno;
		if (error != 0)
			return -error;
		pending->used--;
		pending->fds[i] = pending->fds[pending->used];
		pending->which[i] = pending->which[pending->used];
	}
	return 0;
}

/* Wait until a connection is established. Returns 0 or -errno. */
static int pending_wait(struct pending *pending, uint64_t timeout, int cancel)
{
	struct pollfd *last = &pending->fds[pending->used];
	struct timespec wait;
	int r;

	*last = (struct pollfd) { .fd = cancel, .events = POLLIN };
	r = ppoll(pending->fds, pending->used + 1, nsec_timespec(&wait, 0, timeout),
		  cancel < 0 ? interrupt_mask() : NULL);
	if (r < 0 && errno != EINTR)
		return -errno;
	if (last->revents != 0 || (cancel < 0 && interrupt_seen()))
		return -ECANCELED;
	return r == 0 ? -ETIMEDOUT : r < 0 ? 0 : pending_reap(pending);
}

unsigned connect_many(int *fds, unsigned count, const struct socket_options *sockopts, const struct addr *to,
		      int cancel, int *error, const char **what)
{
	struct pending pending = { .used = 0 };
	unsigned next = 0, open = 0;
	int r = 0;

	*what = NULL;
	while (r == 0 && (next < count || pending.used > 0)) {
		for (; r == 0 && next < count && pending.used < PENDING_MAX; next++) {
			bool done;

			if (fds[next] >= 0)
				continue;
			r = connect_start(&fds[next], sockopts, to, cancel, &done, what);
			if (done)
				continue;
			/* Also if it failed: then it is closed below. */
			pending.fds[pending.used] = (struct pollfd) { .fd = fds[next], .events = POLLOUT };
			pending.which[pending.used++] = next;
		}
		if (r == 0 && pending.used > 0)
			r = pending_wait(&pending, sockopts->timeout, cancel);
	}
	*error = -r;
	for (unsigned i = 0; i < pending.used; i++) {
		close(pending.fds[i].fd);
		fds[pending.which[i]] = -1;
	}
	for (unsigned i = 0; i < count; i++)
		open += fds[i] >= 0;
	return open;
}
