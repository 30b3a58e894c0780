#include <config.h>

#include "models/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "echo/state.h"
#include "models/fault.h"
#include "net/sockopt.h"

#define FDS_MAX 2

/* Most connections that wait in the backlog of a listener: the maximum of `backlog`. */
#define BACKLOG_MAX 65535

/* How often, in ms, one who waits for room looks whether the orders have changed. */
#define ORDERS_TICK 50

int handover_pair(int *inbox, int *outbox)
{
	int ends[2], size = (int) fault_number("ECHOD_FAULT_QUEUE", 1 << 30);

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
		return -errno;
	*inbox = ends[0];
	*outbox = ends[1];
	/* the kernel gives what net.core.wmem_max allows, root what it asks for */
	if (setsockopt(*outbox, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
		(void) setsockopt(*outbox, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	return 0;
}

/* A file with the bytes owed. */
static int owed_to_file(const struct conn *conn)
{
	const uint8_t *data;
	size_t owed = conn_owed(conn, &data), done = 0;
	int fd = memfd_create("echod-owed", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	while (done < owed) {
		ssize_t n = write(fd, data + done, owed - done);

		if (n < 0) {
			int error = errno;

			close(fd);
			return -error;
		}
		done += (size_t) n;
	}
	return fd;
}

static int message_send(int outbox, struct state *state, const int fds[], size_t count)
{
	union {
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = state, .iov_len = sizeof *state };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
		                  .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(header), fds, count * sizeof(int));
	return sendmsg(outbox, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

int handover_send(int outbox, const struct session *session)
{
	int fds[FDS_MAX] = { session->watch.fd, -1 }, r;
	struct state state;
	size_t count = 1;

	state_encode(&state, &session->conn, &session->peer, session_active_usec(session, clock_usec()));
	if (state.owed > 0) {
		fds[1] = owed_to_file(&session->conn);
		if (fds[1] < 0)
			return fds[1];
		count = 2;
	}
	r = message_send(outbox, &state, fds, count);
	if (fds[1] >= 0)
		close(fds[1]);
	return r;
}

/* Whether a stopping worker may wait for room: as long as its orders, which may change, say. */
static bool may_wait(struct worker *worker)
{
	int64_t now = clock_usec();

	worker_beat(worker, now);
	return worker_stop_order(worker) == STOP_HAND_OVER && now < atomic_load(&worker->orders->hand_until);
}

static int send_when_room(struct worker *worker, const struct session *session)
{
	struct pollfd room = { .fd = worker->outbox_fd, .events = POLLOUT };

	while (worker->outbox_fd >= 0 && worker_stop_order(worker) == STOP_HAND_OVER) {
		int r = handover_send(worker->outbox_fd, session);

		if ((r != -EAGAIN && r != -ETOOMANYREFS) || !may_wait(worker))
			return r;
		/* nothing tells when descriptors in flight have landed: look again soon */
		if (r == -ETOOMANYREFS)
			poll(NULL, 0, 1);
		else
			poll(&room, 1, ORDERS_TICK);
	}
	return -ECANCELED;
}

/* Its place and source go along, and come back where it cannot be sent. */
static int send_counted(struct worker *worker, const struct admission *admission, const struct session *session)
{
	int r;

	admission_enqueue(admission, &session->peer);
	r = send_when_room(worker, session);
	if (r < 0)
		admission_take_back(admission, &session->peer);
	return r;
}

int handover_send_wait(struct worker *worker, const struct session *session)
{
	return send_counted(worker, &worker->admission, session);
}

/* --- the other end --------------------------------------------------------------------- */

/* Take the descriptors out of a received message; those beyond FDS_MAX are closed by the kernel. */
static size_t message_fds(struct msghdr *message, int fds[static FDS_MAX])
{
	size_t count = 0;

	for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(header), count * sizeof(int));
	}
	return count;
}

static int read_owed(struct conn *conn, int fd, uint32_t owed)
{
	struct stat st;
	uint8_t *data;
	size_t got = 0;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != (off_t) owed)
		return -EBADMSG;
	data = conn_restore(conn, owed);
	if (!data)
		return -ENOMEM;
	while (got < owed) {
		ssize_t n = pread(fd, data + got, owed - got, (off_t) got);

		if (n <= 0)
			return -EBADMSG;
		got += (size_t) n;
	}
	return 0;
}

/* Anything else would never be ready, or, as the queue itself, be eaten by an echo. */
static bool is_connection(int fd)
{
	int type = 0, listens = 0;
	socklen_t size = sizeof type;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM)
		return false;
	size = sizeof listens;
	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && !listens;
}

/* Make an arrival of a message and its descriptors; which remain the caller's on failure. */
static int message_read(const void *message, size_t size, const int fds[], size_t count, struct arrival *arrival)
{
	uint32_t owed;
	int flags, r;

	r = state_decode(message, size, clock_usec(), &arrival->conn, &arrival->peer, &arrival->active, &owed);
	if (r < 0)
		return r;
	if (count != (owed > 0 ? 2U : 1U))
		return -EBADMSG;
	if (!is_connection(fds[0]))
		return -EBADMSG;
	sockopt_prepare(fds[0]); /* the predecessor may be an older version */
	flags = fcntl(fds[0], F_GETFL);
	if (flags < 0 || fcntl(fds[0], F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	if (owed > 0)
		r = read_owed(&arrival->conn, fds[1], owed);
	if (r < 0)
		conn_clear(&arrival->conn);
	arrival->fd = fds[0];
	arrival->foreign = true;
	return r;
}

int handover_take(int inbox, struct arrival *arrival)
{
	union {
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	char text[sizeof(struct state) + 1];
	struct iovec iov = { .iov_base = text, .iov_len = sizeof text };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
		                  .msg_controllen = sizeof control.bytes };
	int fds[FDS_MAX] = { -1, -1 }, r;
	ssize_t n = recvmsg(inbox, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	size_t count;

	if (n <= 0)
		return -EAGAIN; /* also when the other end is gone: nothing will come */
	count = message_fds(&message, fds);
	r = message_read(text, (size_t) n, fds, count, arrival);
	if (r < 0 && count > 0)
		close(fds[0]);
	if (count > 1)
		close(fds[1]);
	if (r == 0)
		return 0;
	log_event(LOG_WARNING, EVENT_STATE_DAMAGED, "A connection that was handed over could not be taken up and is closed: %s",
	          r == -ENOTSUP ? "another version of echod wrote its state" : strerror(-r));
	return -EBADMSG;
}

int handover_receive(int inbox, struct worker *worker, struct arrival *arrival)
{
	int r = handover_take(inbox, arrival);

	worker->tally.work += r != -EAGAIN;
	if (r == -EBADMSG) {
		stats_add(worker->slot, STAT_DAMAGED, 1);
		admission_dequeue(&worker->admission, NULL);
	}
	if (r < 0)
		return r;
	admission_dequeue(&worker->admission, &arrival->peer);
	/* sizes that the creator of an adopted listener chose are left alone */
	if (worker->conf->socket_buffer > 0 || worker->listener_count == 0 || !worker->listeners[0].adopted)
		sockopt_set_buffers(arrival->fd, worker->conf->socket_buffer);
	stats_add(worker->slot, STAT_TAKEN_OVER, 1);
	atomic_fetch_add_explicit(&worker->slot->live, 1, memory_order_relaxed);
	return 0;
}

unsigned handover_waiting(int inbox)
{
	char first;
	ssize_t one = recv(inbox, &first, sizeof first, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
	int all = 0;

	if (one <= 0 || ioctl(inbox, FIONREAD, &all) < 0)
		return 0;
	/* one predecessor wrote them all, so they are of one size */
	return (unsigned) (all / one);
}

/* --- backlogs -------------------------------------------------------------------------- */

/* Whether the queue takes more, now or within the time that the stop request allows. */
static bool has_room(struct worker *sender)
{
	struct pollfd room = { .fd = sender->outbox_fd, .events = POLLOUT };

	while (poll(&room, 1, ORDERS_TICK) != 1)
		if (!may_wait(sender))
			return false;
	return true;
}

/* Put an accepted and admitted connection into the queue. If that fails the connection is lost. */
static void enqueue(struct worker *sender, const struct admission *admission, int fd, struct session *session)
{
	session->watch.fd = fd;
	conn_init(&session->conn, clock_usec());
	session_touch(session, session->conn.since);
	stats_add(sender->slot, STAT_ACCEPTED, 1);
	if (send_counted(sender, admission, session) == 0)
		return;
	stats_add(sender->slot, STAT_ENDED_ERROR, 1);
	admission_give_place(admission);
}

void handover_backlog(const struct listener *listener, struct worker *sender)
{
	struct admission admission = sender->admission;
	enum admission_verdict verdict;
	struct addr addr;
	int fd;

	/* max-per-source is applied by the worker that takes the connection out of the queue */
	admission.max_per_source = 0;
	/* clients that go on connecting must not keep the caller here: not more than can wait in the backlog at a time */
	for (unsigned i = 0; i <= BACKLOG_MAX && has_room(sender); i++) {
		struct session session = { .watch = { .fd = -1 } };

		addr.len = sizeof addr.un;
		fd = accept4(listener->fd, &addr.sa, &addr.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			return;
		admission_force_place(&admission);
		peer_from_addr(&session.peer, &addr);
		verdict = admission_admit(&admission, &session.peer);
		if (verdict == ADMISSION_OK) {
			enqueue(sender, &admission, fd, &session);
		} else {
			session_refused(sender, fd, &session.peer, verdict);
			admission_give_place(&admission);
		}
		close(fd);
	}
}
