/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/handover/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "base/memfile.h"
#include "base/plural.h"
#include "base/ratelimit.h"
#include "echo/state.h"
#include "models/fault.h"
#include "net/sockopt.h"

/* Descriptors of a message: the connection and, where it owes bytes, a file with them. */
#define FDS_MAX 2

/* Maximum number of lines about damaged messages in an interval, for each process. */
#define DAMAGED_LINES 100
#define DAMAGED_INTERVAL (10 * USEC_PER_SEC)

/* Interval, in ms, at which a worker that waits for space in the queue checks its stop request. */
#define STOP_CHECK_MSEC 50

int handover_pair(int *inbox, int *outbox)
{
	int ends[2], size = (int) fault_number("ECHOD_FAULT_QUEUE", 1 << 30);

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
		return -errno;
	*inbox = ends[0];
	*outbox = ends[1];
	/* the outbox is never read: descriptors sent there would be lost, and count as in flight */
	(void) shutdown(*outbox, SHUT_RD);
	/* with CAP_NET_ADMIN any size, else at most net.core.wmem_max */
	if (setsockopt(*outbox, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
		(void) setsockopt(*outbox, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	return 0;
}

/* Make a file with the bytes that the connection owes. Returns the descriptor or -errno. */
static int owed_to_file(const struct conn *conn)
{
	int file = (int) fault_number("ECHOD_FAULT_MEMFILE", 0), r;
	const uint8_t *data;
	size_t owed = conn_pending(conn, &data);

	file = file ? -file : memfile_create("echod-owed");
	if (file < 0)
		return file;
	r = memfile_write(file, data, owed, 0);
	if (r < 0) {
		close(file);
		return r;
	}
	return file;
}

int handover_pass(int outbox, const struct new_conn *new_conn)
{
	int fds[FDS_MAX] = { new_conn->fd, -1 }, r;
	struct state state;

	state_encode(&state, &new_conn->conn, &new_conn->peer, &new_conn->proxied, new_conn->active,
	             new_conn->unadmitted ? STATE_UNADMITTED : 0);
	if (state.owed > 0) {
		fds[1] = owed_to_file(&new_conn->conn);
		if (fds[1] < 0)
			return fds[1];
	}
	r = fdpass_send(outbox, &state, sizeof state, fds, fds[1] >= 0 ? 2 : 1);
	if (fds[1] >= 0)
		close(fds[1]);
	return r;
}

/* Whether a stopping worker may wait for space in the queue, according to its stop request, which may
 * change. */
static bool may_wait(struct worker *worker)
{
	int64_t now = clock_usec();

	worker_heartbeat(worker, now);
	return worker_stop_requested(worker) != STOP_DRAIN &&
	       now < atomic_load(&worker->stop_request->hand_until);
}

static int send_when_writable(struct worker *worker, const struct new_conn *new_conn)
{
	struct pollfd queue = { .fd = worker->outbox_fd, .events = POLLOUT };

	while (worker->outbox_fd >= 0 && worker_stop_requested(worker) != STOP_DRAIN) {
		int r = handover_pass(worker->outbox_fd, new_conn);

		if (r != -EAGAIN && r != -ETOOMANYREFS)
			return r;
		/* not -EAGAIN, which tells body_hand_over() that an operation is in flight */
		if (!may_wait(worker))
			return -ETIMEDOUT;
		/* no event reports that descriptors in flight were received: try again soon */
		if (r == -ETOOMANYREFS)
			poll(NULL, 0, 1);
		else
			poll(&queue, 1, STOP_CHECK_MSEC);
	}
	return -ECANCELED;
}

int handover_send(struct worker *worker, struct session_io *io, struct session *session)
{
	int r = session_io_empty_pipe(io, session);
	struct new_conn new_conn;

	if (r < 0)
		return r;
	new_conn_from_session(&new_conn, session);
	/* slot and source move with the session, and come back if it cannot be sent */
	admission_enqueue(&worker->admission, session->conn.header ? NULL : &session->peer);
	r = send_when_writable(worker, &new_conn);
	if (r < 0)
		admission_enqueue_undo(&worker->admission, session->conn.header ? NULL : &session->peer);
	return r;
}

/* --- the other end --------------------------------------------------------------------- */

/* Whether `fd` is a stream socket that does not listen. Other descriptors would never become ready, or, as
 * the queue itself, lose their content to an echo. */
static bool is_connection(int fd)
{
	int type = 0, listens = 0, domain = 0;
	socklen_t size = sizeof type;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM)
		return false;
	size = sizeof listens;
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 || listens)
		return false;
	size = sizeof domain;
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0)
		return false;
	return domain == AF_INET || domain == AF_INET6 || domain == AF_UNIX || domain == AF_VSOCK;
}

static int read_owed(struct conn *conn, int file, int64_t at, uint32_t owed)
{
	uint8_t *data = conn_restore(conn, owed);
	int r = data ? memfile_read(file, data, owed, at) : -ENOMEM;

	if (r < 0)
		conn_clear(conn);
	return r;
}

int handover_read(const void *record, size_t size, int fd, int file, int64_t at, struct new_conn *new_conn)
{
	uint32_t owed;
	int flags, r;

	r = state_decode(record, size, clock_usec(), &new_conn->conn, &new_conn->peer, &new_conn->proxied,
	                 &new_conn->active, &owed);
	if (r < 0)
		return r;
	if (!is_connection(fd) || (owed > 0 && file < 0))
		return -EBADMSG;
	sockopt_prepare(fd); /* the predecessor may be an older version */
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	if (owed > 0)
		r = read_owed(&new_conn->conn, file, at, owed);
	if (r < 0)
		return r;
	new_conn->fd = fd;
	new_conn->shared_ofd = true;
	new_conn->unadmitted = state_is_unadmitted(record);
	return (int) owed;
}

/* Make a new_conn of a message and its descriptors, which the caller keeps on failure. */
static int message_read(const void *message, size_t size, const int fds[], unsigned count,
                        struct new_conn *new_conn)
{
	int64_t owed = 0;
	int r;

	if (count < 1)
		return -EBADMSG;
	if (count > 1)
		owed = memfile_size(fds[1]);
	r = owed < 0 ? (int) owed
	             : handover_read(message, size, fds[0], count > 1 ? fds[1] : -1, 0, new_conn);
	if (r < 0)
		return r;
	if (r == owed && (count == 1 || owed > 0))
		return 0;
	conn_clear(&new_conn->conn);
	return -EBADMSG;
}

static const char *damage_name(int error)
{
	switch (error) {
	case -ENOTSUP:
		return "another version of echod wrote the state";
	case -EMFILE:
		return "no descriptors are left";
	case -EINVAL:
	case -EBADMSG:
		return "the message is damaged";
	default:
		return strerror(-error);
	}
}

void handover_log_damaged(unsigned count, int error)
{
	static struct ratelimit lines;
	char before[64] = "";
	uint64_t more;

	if (!ratelimit_allow(&lines, clock_usec(), DAMAGED_INTERVAL, DAMAGED_LINES))
		return;
	more = ratelimit_take_suppressed(&lines);
	if (more > 0)
		snprintf(before, sizeof before, " (%" PRIu64 " lines like this one were suppressed)", more);
	log_event(LOG_WARNING, EVENT_STATE_DAMAGED,
	          "Closed %u handed-over connection%s that could not be received: %s%s", count, plural(count),
	          damage_name(error), before);
}

int handover_take(int inbox, struct new_conn *new_conn)
{
	uint8_t message[STATE_SIZE_MAX];
	int fds[FDS_MAX], r;
	unsigned count;
	ssize_t n = fdpass_receive(inbox, message, sizeof message, fds, FDS_MAX, &count);

	if (n == 0 && count == 0)
		return -EAGAIN; /* the other end is closed: no message will follow */
	if (n < 0 && n != -EBADMSG && n != -EMFILE)
		return -EAGAIN;
	r = n < 0 ? (int) n : message_read(message, (size_t) n, fds, count, new_conn);
	if (r < 0 && count > 0)
		close(fds[0]);
	if (count > 1)
		close(fds[1]);
	if (r == 0)
		return 0;
	handover_log_damaged(1, r);
	return -EBADMSG;
}

/* A listener of the family of `peer`, whose buffers have the sizes of a new socket. Workers may not make
 * sockets. */
static int listener_like(const struct worker *worker, const struct peer *peer)
{
	for (size_t i = 0; i < worker->listener_count; i++)
		if ((worker->listeners[i].addr.sa.sa_family == AF_UNIX) == (peer->family == AF_UNIX))
			return worker->listeners[i].fd;
	return worker->inbox_fd;
}

int handover_receive(int inbox, struct worker *worker, struct new_conn *new_conn)
{
	int r = handover_take(inbox, new_conn);

	worker->local_stats.work += r != -EAGAIN;
	if (r == -EBADMSG) {
		stats_add(worker->slot, STAT_DAMAGED, 1);
		admission_dequeue(&worker->admission, NULL);
	}
	if (r < 0)
		return r;
	admission_dequeue(&worker->admission,
	                  new_conn->unadmitted || new_conn->conn.header ? NULL : &new_conn->peer);
	/* keep sizes that the creator of an adopted listener chose */
	if (worker->conf->socket_buffer > 0 || worker->listener_count == 0 || !worker->listeners[0].adopted)
		sockopt_set_buffers(new_conn->fd, worker->conf->socket_buffer,
		                    listener_like(worker, &new_conn->peer));
	if (new_conn->peer.family != AF_UNIX)
		sockopt_set_keepalive(new_conn->fd, worker->conf->tcp_keepalive);
	return 0;
}

bool handover_has_space(int outbox)
{
	struct pollfd queue = { .fd = outbox, .events = POLLOUT };

	return poll(&queue, 1, 0) == 1;
}

unsigned handover_waiting(int inbox)
{
	char first;
	ssize_t one = recv(inbox, &first, sizeof first, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
	int all = 0;

	if (one <= 0 || ioctl(inbox, FIONREAD, &all) < 0)
		return 0;
	/* one predecessor wrote all messages, so they have one size */
	return (unsigned) (all / one);
}

/* --- backlogs -------------------------------------------------------------------------- */

int handover_accept(const struct listener *listener, const struct worker *sender, struct new_conn *new_conn)
{
	struct addr addr = { .len = sizeof addr.un };
	int fd = accept4(listener->fd, &addr.sa, &addr.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	enum admission_verdict verdict;

	if (fd < 0)
		return -errno;
	new_conn_init(new_conn, fd);
	peer_from_addr(&new_conn->peer, &addr);
	/* a worker checks max-per-source: until it takes the connection, that waits as in a backlog */
	new_conn->unadmitted = true;
	verdict = new_conn_expect_header(new_conn, sender->conf)
	                ? ADMISSION_OK
	                : admission_admit(&sender->admission, &new_conn->peer);
	if (verdict != ADMISSION_OK) {
		session_refused(sender, new_conn, verdict);
		close(fd);
		return 0;
	}
	admission_slot_force(&sender->admission);
	admission_enqueue(&sender->admission, NULL);
	return 1;
}
