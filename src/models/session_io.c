/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/session_io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"

/* Maximum size of the scratch buffer: longer receives go through a pipe. */
#define SCRATCH_MAX (256U << 10)

/* A session starts to use a pipe after a receive that filled the buffer or had at least this size: a fast
 * worker finds one segment of the loopback interface at a time, a little less than 64 KiB. */
#define BULK_MIN (32U << 10)

/* A session stops to use a pipe after a receive of less than 1/BULK_SHARE of the possible size. */
#define BULK_SHARE 8

/* Interval at which the unacknowledged bytes are summed up. */
#define UNSENT_INTERVAL (USEC_PER_SEC / 2)

int session_io_open(struct session_io *io, size_t limit, unsigned pipes_max, struct local_stats *local_stats)
{
	*io = (struct session_io) { .limit = limit, .pipes_max = pipes_max, .local_stats = local_stats };
	list_init(&io->spare);
	io->scratch.size = limit < SCRATCH_MAX ? limit : SCRATCH_MAX;
	io->scratch.data = malloc(io->scratch.size);
	return io->scratch.data ? 0 : -ENOMEM;
}

/* --- pipes ----------------------------------------------------------------------------- */

static void pipe_free(struct session_io *io, struct splice_pipe *pipe)
{
	close(pipe->in);
	close(pipe->out);
	free(pipe);
	io->pipes--;
}

static struct splice_pipe *pipe_make(struct session_io *io)
{
	struct splice_pipe *pipe;
	int ends[2];

	if (io->pipes >= io->pipes_max)
		return NULL;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return NULL;
	/* beyond the user's limit of pipe memory the pipe keeps its default size: pipe(7) */
	(void) fcntl(ends[0], F_SETPIPE_SZ, (int) (io->limit < (1U << 20) ? io->limit : 1U << 20));
	pipe = malloc(sizeof *pipe);
	if (!pipe) {
		close(ends[0]);
		close(ends[1]);
		return NULL;
	}
	list_init(&pipe->link);
	pipe->out = ends[0];
	pipe->in = ends[1];
	io->pipes++;
	return pipe;
}

static struct splice_pipe *pipe_take(struct session_io *io)
{
	struct splice_pipe *pipe;

	if (list_empty(&io->spare))
		return pipe_make(io);
	pipe = LIST_ENTRY(io->spare.prev, struct splice_pipe, link);
	list_remove(&pipe->link);
	return pipe;
}

static void pipe_give_back(struct session_io *io, struct session *session)
{
	list_append(&io->spare, &session->pipe->link);
	session->pipe = NULL;
}

/* Set whether the session moves bulk data. */
static void set_bulk(struct session_io *io, struct session *session, bool bulk)
{
	io->bulk += (unsigned) bulk - (unsigned) session->bulk;
	session->bulk = bulk;
}

void session_io_note_size(struct session_io *io, struct session *session, size_t n, size_t max)
{
	set_bulk(io, session, n == max || n >= BULK_MIN);
}

static void pipes_free_spare(struct session_io *io)
{
	while (!list_empty(&io->spare)) {
		struct splice_pipe *pipe = LIST_ENTRY(io->spare.next, struct splice_pipe, link);

		list_remove(&pipe->link);
		pipe_free(io, pipe);
	}
}

void session_io_drop_pipe(struct session_io *io, struct session *session)
{
	set_bulk(io, session, false);
	if (session->pipe && session->conn.piped == 0) {
		pipe_give_back(io, session);
	} else if (session->pipe) {
		pipe_free(io, session->pipe);
		session->pipe = NULL;
	}
	if (io->bulk == 0)
		pipes_free_spare(io);
}

void session_io_close(struct session_io *io)
{
	pipes_free_spare(io);
	free(io->scratch.data);
	io->scratch.data = NULL;
}

/* Move the content of the pipe to own memory. */
int session_io_empty_pipe(struct session_io *io, struct session *session)
{
	struct conn *conn = &session->conn;
	size_t n = conn->piped, got = 0;
	uint8_t *data;

	if (n == 0) {
		session_io_drop_pipe(io, session);
		return 0;
	}
	data = conn_restore_piped(conn);
	if (!data) {
		conn_error(conn, ENOMEM);
		return -ENOMEM;
	}
	while (got < n) {
		ssize_t r = read(session->pipe->out, data + got, n - got);

		if (r <= 0) {
			conn_error(conn, r < 0 ? errno : EIO);
			return r < 0 ? -errno : -EIO;
		}
		got += (size_t) r;
	}
	pipe_give_back(io, session);
	return 0;
}

/* --- one step -------------------------------------------------------------------------- */

static bool is_again(int error)
{
	return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

/* Report an end of file or an error to the connection; EAGAIN is neither. */
static void receive_ended(struct session *session, ssize_t n)
{
	if (n == 0 && session->conn.header && session->proxied.header_left > 0)
		conn_end(&session->conn, CONN_PROXY);
	if (n == 0)
		conn_eof(&session->conn);
	else if (!is_again(errno))
		conn_error(&session->conn, errno);
}

static bool receive_to_memory(struct session_io *io, struct session *session)
{
	struct span span = conn_recv_buf(&session->conn, io->scratch, io->limit);
	ssize_t n;

	if (span.size == 0) {
		/* out of memory: try again after something was sent */
		session->choked = conn_owed_total(&session->conn) > 0;
		return false;
	}
	n = recv(session->watch.fd, span.data, span.size, MSG_DONTWAIT);
	if (n <= 0) {
		receive_ended(session, n);
		return false;
	}
	conn_received(&session->conn, span.data, (size_t) n);
	io->local_stats->received += (uint64_t) n;
	/* only a receive into the scratch buffer shows bulk data: own memory may be nearly full */
	if (span.data == io->scratch.data)
		session_io_note_size(io, session, (size_t) n, io->scratch.size);
	return true;
}

/* Returns 1 if it moved bytes; 0: none to move; -EAGAIN: none that splice(2) can move, which stops at urgent
 * data permanently, and reports the end of file there if the peer has sent its FIN; -EINVAL: no pipe
 * available, or the socket does not support splice(2). */
static int receive_to_pipe(struct session_io *io, struct session *session)
{
	size_t room = conn_recv_window(&session->conn, io->limit);
	ssize_t n;

	if (room == 0)
		return 0;
	if (!session->pipe)
		session->pipe = pipe_take(io);
	if (!session->pipe)
		return -EINVAL;
	n = splice(session->watch.fd, NULL, session->pipe->in, NULL, room, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (n > 0) {
		conn_pipe_received(&session->conn, (size_t) n);
		io->local_stats->received += (uint64_t) n;
		set_bulk(io, session, (size_t) n >= room / BULK_SHARE);
		return 1;
	}
	if (session->conn.piped > 0 && (n == 0 || is_again(errno))) {
		/* a pipe counts buffers, not bytes, and may be full before the limit is reached */
		session->choked = true;
		return 0;
	}
	if (n == 0 || errno == EINVAL || is_again(errno))
		return n < 0 && errno == EINVAL ? -EINVAL : -EAGAIN;
	receive_ended(session, n);
	return 0;
}

static bool receive(struct session_io *io, struct session *session)
{
	int r;

	if (session->choked)
		return false;
	if (session->conn.piped > 0 || (session->bulk && session->conn.owed == 0 && !session->conn.header)) {
		r = receive_to_pipe(io, session);
		if (r >= 0)
			return r > 0;
		if (r == -EINVAL)
			set_bulk(io, session, false);
	}
	return receive_to_memory(io, session);
}

static bool send_owed(struct session_io *io, struct session *session)
{
	struct conn *conn = &session->conn;
	const uint8_t *data;
	ssize_t n;

	if (conn->piped > 0) {
		n = splice(session->pipe->out, NULL, session->watch.fd, NULL, conn->piped,
		           SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
		if (n > 0)
			conn_pipe_sent(conn, (size_t) n);
	} else {
		size_t owed = conn_pending(conn, &data);

		n = send(session->watch.fd, data, owed, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0)
			conn_sent(conn, (size_t) n);
	}
	if (n > 0) {
		io->local_stats->echoed += (uint64_t) n;
		session->choked = false;
		return true;
	}
	if (n < 0 && !is_again(errno))
		conn_error(conn, errno);
	return false;
}

unsigned session_io_step(struct session_io *io, struct session *session, bool readable, int64_t now)
{
	struct conn *conn = &session->conn;
	bool moved = false, eof = conn->eof, choked = session->choked;

	if (readable && !(session->readmit && conn->header))
		moved = receive(io, session);
	if (moved && conn->header)
		session_header(session, io->worker);
	if (conn_owed_total(conn) > 0 && conn->reason == CONN_OPEN && !conn->header)
		moved |= send_owed(io, session);
	if (session->pipe && conn->piped == 0)
		pipe_give_back(io, session);
	if (moved)
		session_touch(session, now);
	if (moved || conn->eof != eof || session->choked != choked || conn->reason != CONN_OPEN)
		io->local_stats->work++;
	(void) conn_own_data(conn);
	return conn_want(conn, io->limit) & ~(session->choked ? (unsigned) CONN_RECV : 0);
}

/* --- the end of the service ------------------------------------------------------------ */

void session_io_drain(struct session *session)
{
	int unread = 0;

	if (ioctl(session->watch.fd, FIONREAD, &unread) < 0 || unread < 0)
		unread = 0;
	conn_drain(&session->conn, (size_t) unread);
}

/* Number of sent bytes that the peer's kernel has not acknowledged, including the FIN. */
static unsigned unacknowledged(const struct session *session)
{
	int unsent = 0;

	return ioctl(session->watch.fd, SIOCOUTQ, &unsent) < 0 || unsent < 0 ? 0 : (unsigned) unsent;
}

void session_io_unsent_add(struct session_io *io, const struct session *session)
{
	if (io->summing)
		io->unsent += unacknowledged(session);
}

void session_io_unsent_publish(struct session_io *io, struct stats_slot *slot, int64_t now)
{
	if (io->summing)
		atomic_store(&slot->unsent, io->unsent);
	io->unsent = 0;
	io->summing = now >= io->unsent_at;
	if (io->summing)
		io->unsent_at = now + UNSENT_INTERVAL;
}

bool session_io_flushed(const struct session_io *io, const struct session *session)
{
	/* bytes sent to a unix socket are in the peer's queue already */
	return conn_want(&session->conn, io->limit) == CONN_LINGER &&
	       (session->peer.family == AF_UNIX || unacknowledged(session) == 0);
}

/* End a session whose connection is broken: epoll(7) and poll(2) report that again and again, although the
 * session waits for nothing, and no receive takes the error. Returns whether it has ended. */
static bool is_broken(struct session *session)
{
	int error = 0;
	socklen_t size = sizeof error;

	if (getsockopt(session->watch.fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error == 0)
		return false;
	conn_error(&session->conn, error);
	return true;
}

bool session_io_linger(const struct session_io *io, struct session *session)
{
	char unread[16 << 10]; /* not written to: see MSG_TRUNC in tcp(7) */
	ssize_t n = 1;

	if (io->flush)
		return is_broken(session);
	/* bytes sent to a unix socket are in the peer's queue already, which closing does not affect */
	if (session->peer.family == AF_UNIX) {
		conn_end(&session->conn, CONN_DRAIN);
		return true;
	}
	/* closing a socket with unread input resets it, and the reset may overtake sent data (RFC 1122,
	 * 4.2.2.13): so wait until all is acknowledged */
	if (unacknowledged(session) > 0 && !session->lingering) {
		shutdown(session->watch.fd, SHUT_WR);
		session->lingering = true;
	}
	for (size_t got = 0; n > 0 && got < LINGER_DISCARD_MAX; got += sizeof unread)
		n = recv(session->watch.fd, unread, sizeof unread, MSG_TRUNC | MSG_DONTWAIT);
	/* a client that goes on sending must get a FIN, not a reset */
	if (n > 0 && !session->lingering) {
		shutdown(session->watch.fd, SHUT_WR);
		session->lingering = true;
		return false;
	}
	if (n == 0 || (n < 0 && !is_again(errno)) || unacknowledged(session) == 0) {
		conn_end(&session->conn, CONN_DRAIN);
		return true;
	}
	return false;
}
