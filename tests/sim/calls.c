/* SPDX-License-Identifier: ISC */
/* calls.c - the functions that replace system calls, see sim.h and --wrap in ld(1)
 *
 * Outside an episode they call the real functions.
 */
#include <config.h>

#include "sim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/event.h"
#include "net/addr.h"

#define REPLACE(type, name, ...) \
	type __real_##name(__VA_ARGS__); \
	type __wrap_##name(__VA_ARGS__); \
	type __wrap_##name(__VA_ARGS__)

/* Another name of a replaced function: with buffers whose size is checked, or with 64-bit offsets. */
#define SAME(type, name, as, ...) type __wrap_##name(__VA_ARGS__) __attribute__((alias("__wrap_" #as)));

static int fail(int error)
{
	errno = error;
	return -1;
}

static int result(int r)
{
	return r < 0 ? fail(-r) : r;
}

static struct file *file_of(int fd)
{
	struct file *file = process_file(fiber_self()->process, fd);

	if (!file)
		sim_fail("call with descriptor %d, which is not open", fd);
	return file;
}

static struct file *file_of_kind(int fd, enum file_kind kind)
{
	struct file *file = file_of(fd);

	if (file->kind != kind)
		sim_fail("descriptor %d is of kind %d, not %d", fd, (int) file->kind, (int) kind);
	return file;
}

/* Give the new file a descriptor. */
static int open_file(struct file *file)
{
	int fd = process_open(fiber_self()->process, file);

	if (fd >= 0)
		return fd;
	sim.failed_at = sim.now;
	file_unref(file);
	return fail(EMFILE);
}

static bool is_full(const struct process *process)
{
	return process->used >= process->limit - 3;
}

/* --- time ------------------------------------------------------------------------------- */

REPLACE(int, clock_gettime, clockid_t id, struct timespec *time)
{
	int64_t now = sim.now;

	if (now == 0)
		return __real_clock_gettime(id, time);
	if (id == CLOCK_MONOTONIC_COARSE)
		now -= now % sim.tick;
	time->tv_sec = (time_t) (now / SEC);
	time->tv_nsec = (long) (now % SEC * 1000);
	return 0;
}

REPLACE(int, nanosleep, const struct timespec *time, struct timespec *left)
{
	if (!sim.running)
		return __real_nanosleep(time, left);
	(void) fiber_wait(sim.now + time->tv_sec * SEC + time->tv_nsec / 1000);
	fiber_progress(fiber_self());
	return 0;
}

/* --- memory ----------------------------------------------------------------------------- */

/* The macros of sim.h would name the real functions. */
#undef malloc
#undef calloc
#undef realloc

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);

static bool no_memory(void)
{
	if (!sim_fault(FAULT_MEMORY))
		return false;
	errno = ENOMEM;
	return true;
}

void *__wrap_malloc(size_t size)
{
	return no_memory() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return no_memory() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
	return no_memory() ? NULL : __real_realloc(memory, size);
}

#define calloc __real_calloc
#define realloc __real_realloc

REPLACE(void *, mmap, void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
	return no_memory() ? MAP_FAILED : __real_mmap(at, size, protection, flags, fd, offset);
}

/* --- waiting ---------------------------------------------------------------------------- */

static int64_t deadline_after(int timeout)
{
	return timeout < 0 ? INT64_MAX : sim.now + timeout * MSEC;
}

/* A waiting call has begun. Returns an error that it fails with, or 0. */
static int wait_begin(bool may_lack_memory)
{
	sim_call();
	fiber_self()->accepted = 0;
	if (sim_fault(FAULT_INTERRUPTED))
		return EINTR;
	return may_lack_memory && sim_fault(FAULT_WAIT_MEMORY) ? ENOMEM : 0;
}

static void wait_end(bool waited)
{
	if (waited)
		fiber_progress(fiber_self());
	fiber_check_spin();
}

static int poll_once(struct pollfd fds[], nfds_t count)
{
	int n = 0;

	for (nfds_t i = 0; i < count; i++) {
		fds[i].revents = (short) (file_ready(file_of(fds[i].fd)) &
		                          ((unsigned) fds[i].events | POLLERR | POLLHUP));
		n += fds[i].revents != 0;
	}
	return n;
}

REPLACE(int, poll, struct pollfd fds[], nfds_t count, int timeout)
{
	int64_t deadline = deadline_after(timeout);
	int n, error;

	if (!sim.running)
		return __real_poll(fds, count, timeout);
	/* a check of readiness, not a wait */
	if (count == 1 && timeout == 0) {
		sim_call();
		return poll_once(fds, count);
	}
	error = wait_begin(true);
	if (error)
		return fail(error);
	n = poll_once(fds, count);
	for (bool more = timeout != 0; n == 0 && more; n = poll_once(fds, count)) {
		for (nfds_t i = 0; i < count; i++)
			file_watch(file_of(fds[i].fd));
		more = fiber_wait(deadline);
		fiber_progress(fiber_self());
	}
	sim_note("poll", n, timeout);
	wait_end(false);
	return n;
}
int __wrap___poll_chk(struct pollfd fds[], nfds_t count, int timeout, size_t size);
int __wrap___poll_chk(struct pollfd fds[], nfds_t count, int timeout, size_t size)
{
	(void) size;
	return __wrap_poll(fds, count, timeout);
}

static int select_once(int count, const fd_set want[2], fd_set *got[2])
{
	int n = 0;

	FD_ZERO(got[0]);
	FD_ZERO(got[1]);
	for (int fd = 0; fd < count; fd++) {
		bool reads = FD_ISSET(fd, &want[0]), writes = FD_ISSET(fd, &want[1]);
		unsigned ready;

		if (!reads && !writes)
			continue;
		ready = file_ready(file_of(fd));
		if (reads && ready & (POLLIN | POLLHUP | POLLERR)) {
			FD_SET(fd, got[0]);
			n++;
		}
		if (writes && ready & (POLLOUT | POLLERR)) {
			FD_SET(fd, got[1]);
			n++;
		}
	}
	return n;
}

REPLACE(int, select, int count, fd_set *read_set, fd_set *write_set, fd_set *other, struct timeval *timeout)
{
	fd_set want[2], *got[2] = { read_set, write_set };
	int64_t deadline = INT64_MAX;
	int n, error;

	if (!sim.running)
		return __real_select(count, read_set, write_set, other, timeout);
	error = wait_begin(true);
	if (error)
		return fail(error);
	if (timeout)
		deadline = sim.now + timeout->tv_sec * SEC + timeout->tv_usec;
	want[0] = *read_set;
	want[1] = *write_set;
	n = select_once(count, want, got);
	for (bool more = deadline > sim.now; n == 0 && more; n = select_once(count, want, got)) {
		for (int fd = 0; fd < count; fd++)
			if (FD_ISSET(fd, &want[0]) || FD_ISSET(fd, &want[1]))
				file_watch(file_of(fd));
		more = fiber_wait(deadline);
		fiber_progress(fiber_self());
	}
	sim_note("select", n, deadline - sim.now);
	wait_end(false);
	return n;
}

REPLACE(int, epoll_create1, int flags)
{
	if (!sim.running)
		return __real_epoll_create1(flags);
	sim_call();
	return open_file(file_make(FILE_EPOLL));
}

REPLACE(int, epoll_ctl, int set, int operation, int fd, struct epoll_event *event)
{
	static const int errors[] = { ENOMEM, ENOSPC };

	if (!sim.running)
		return __real_epoll_ctl(set, operation, fd, event);
	sim_call();
	sim_note(operation == EPOLL_CTL_ADD   ? "epoll_ctl adds"
	         : operation == EPOLL_CTL_DEL ? "epoll_ctl removes"
	                                      : "epoll_ctl changes",
	         fd, event->events);
	if (operation == EPOLL_CTL_ADD && sim_fault(FAULT_EPOLL))
		return fail(errors[sim_below(2)]);
	return result(epoll_change(file_of_kind(set, FILE_EPOLL), operation, fd, file_of(fd), event->events,
	                           event->data.ptr));
}

REPLACE(int, epoll_wait, int fd, struct epoll_event *events, int max, int timeout)
{
	int64_t deadline = deadline_after(timeout);
	struct file *set;
	int n, error;

	if (!sim.running)
		return __real_epoll_wait(fd, events, max, timeout);
	error = wait_begin(false);
	if (error)
		return fail(error);
	set = file_of_kind(fd, FILE_EPOLL);
	n = epoll_take(set, events, max);
	for (bool more = timeout != 0; n == 0 && more; n = epoll_take(set, events, max)) {
		set->epoll.fiber = fiber_self();
		set->epoll.wait = fiber_self()->wait + 1;
		more = fiber_wait(deadline);
		set->epoll.fiber = NULL;
		fiber_progress(fiber_self());
	}
	sim_note("epoll_wait", n, timeout);
	wait_end(false);
	return n;
}

/* --- sockets ---------------------------------------------------------------------------- */

REPLACE(int, accept4, int fd, struct sockaddr *address, socklen_t *size, int flags)
{
	static const int exhausted[] = { EMFILE, ENFILE, ENOMEM, ENOBUFS };
	static const int gone[] = { ECONNABORTED, EPROTO, EPERM, EHOSTUNREACH, ENETDOWN, EINTR };
	struct file *listener, *file;
	struct stream *stream;
	union {
		struct sockaddr *sa;
		struct sockaddr_in *in;
	} to = { address };

	if (!sim.running)
		return __real_accept4(fd, address, size, flags);
	sim_call();
	listener = file_of_kind(fd, FILE_LISTENER);
	if (sim.now < fiber_self()->paused_until)
		sim_fail("accept4(2) is called although accepting pauses for %d ms after a failure",
		         (int) (PAUSE / MSEC));
	if (is_full(fiber_self()->process) || sim_fault(FAULT_ACCEPT)) {
		sim.failed_at = sim.now;
		sim_note("accept4 fails", fd, 0);
		fiber_self()->paused_until = sim.now + PAUSE;
		return fail(is_full(fiber_self()->process) ? EMFILE : exhausted[sim_below(4)]);
	}
	if (list_empty(&listener->listener.backlog))
		return fail(EAGAIN);
	if (sim_fault(FAULT_ACCEPT_CLIENT))
		return fail(gone[sim_below(6)]);
	file = stream_accept(listener);
	stream = file->stream;
	crew_serves(fiber_self()->process->crew, stream);
	check_limit(fiber_self()->process->crew);
	fiber_progress(fiber_self());
	check_batch(fiber_self()->process->crew, ++fiber_self()->accepted);
	if (stream->family == AF_UNIX) {
		address->sa_family = AF_UNIX;
		*size = sizeof address->sa_family;
	} else {
		*to.in = (struct sockaddr_in) { .sin_family = AF_INET,
			                        .sin_port = htons((uint16_t) (1024 + stream->id % 60000)),
			                        .sin_addr.s_addr = htonl(0x0a000001 + stream->proxy) };
		*size = sizeof *to.in;
	}
	fd = open_file(file);
	sim_note("accept4", stream->id, fd);
	return fd;
}

/* Whether a call fails with an error that ends the connection. Sets errno. */
static bool stream_fails(struct stream *stream)
{
	static const int errors[] = { ECONNRESET, EPIPE, ETIMEDOUT, ENOBUFS, EHOSTUNREACH, EIO };

	if (!sim_fault(FAULT_STREAM))
		return false;
	stream_break(stream);
	errno = errors[sim_below(6)];
	fiber_progress(fiber_self());
	return true;
}

/* Whether a call on a socket fails, although it could succeed. Sets errno. */
static bool passing_failure(void)
{
	if (sim_fault(FAULT_INTERRUPTED))
		errno = EINTR;
	else if (sim_fault(FAULT_AGAIN))
		errno = EAGAIN;
	else
		return false;
	return true;
}

/* The size of the first message of a queue. */
static ssize_t peek(const struct file *file)
{
	if (list_empty(&file->queue.messages))
		return file->queue.peer ? fail(EAGAIN) : 0;
	return (ssize_t) LIST_ENTRY(file->queue.messages.next, struct message, link)->size;
}

REPLACE(ssize_t, recv, int fd, void *data, size_t size, int flags)
{
	struct file *file;
	ssize_t n;

	if (!sim.running)
		return __real_recv(fd, data, size, flags);
	sim_call();
	if (flags & MSG_PEEK)
		return peek(file_of_kind(fd, FILE_QUEUE));
	file = file_of_kind(fd, FILE_STREAM);
	if (passing_failure() || stream_fails(file->stream))
		return -1;
	n = stream_receive(file->stream, data, size, flags & MSG_TRUNC);
	sim_note("recv", file->stream->id, n);
	return n;
}
ssize_t __wrap___recv_chk(int fd, void *data, size_t size, size_t room, int flags);
ssize_t __wrap___recv_chk(int fd, void *data, size_t size, size_t room, int flags)
{
	(void) room;
	return __wrap_recv(fd, data, size, flags);
}

REPLACE(ssize_t, send, int fd, const void *data, size_t size, int flags)
{
	struct file *file;
	ssize_t n;

	if (!sim.running)
		return __real_send(fd, data, size, flags);
	sim_call();
	file = file_of_kind(fd, FILE_STREAM);
	if (!(flags & MSG_NOSIGNAL))
		sim_fail("send without MSG_NOSIGNAL");
	if (passing_failure() || stream_fails(file->stream))
		return -1;
	n = stream_send(file->stream, data, size);
	sim_note("send", file->stream->id, n);
	return n;
}

REPLACE(ssize_t, splice, int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags)
{
	struct file *from, *to;
	struct stream *stream;
	ssize_t n;

	if (!sim.running)
		return __real_splice(in, in_at, out, out_at, size, flags);
	sim_call();
	from = file_of(in);
	to = file_of(out);
	stream = from->kind == FILE_STREAM ? from->stream : to->stream;
	if (passing_failure() || stream_fails(stream))
		return -1;
	if (from->kind == FILE_STREAM && sim_fault(FAULT_SPLICE))
		return fail(EINVAL);
	n = from->kind == FILE_STREAM ? stream_to_pipe(stream, to, size)
	                              : stream_from_pipe(stream, from, size);
	sim_note(from->kind == FILE_STREAM ? "splice in" : "splice out", stream->id, n);
	return n;
}

REPLACE(int, shutdown, int fd, int how)
{
	if (!sim.running)
		return __real_shutdown(fd, how);
	sim_call();
	if (how != SHUT_WR)
		sim_fail("shutdown(2) in direction %d", how);
	stream_shutdown(file_of_kind(fd, FILE_STREAM)->stream);
	return 0;
}

REPLACE(int, getsockopt, int fd, int level, int option, void *value, socklen_t *size)
{
	struct file *file;
	int *number = value;

	if (!sim.running)
		return __real_getsockopt(fd, level, option, value, size);
	sim_call();
	file = file_of(fd);
	if (level != SOL_SOCKET || file->kind != FILE_STREAM || *size < sizeof *number)
		return fail(ENOPROTOOPT);
	switch (option) {
	case SO_TYPE: *number = SOCK_STREAM; return 0;
	case SO_ACCEPTCONN: *number = 0; return 0;
	case SO_ERROR: *number = stream_take_error(file->stream); return 0;
	case SO_DOMAIN: *number = (int) file->stream->family; return 0;
	default: return fail(ENOPROTOOPT);
	}
}

REPLACE(int, setsockopt, int fd, int level, int option, const void *value, socklen_t size)
{
	if (!sim.running)
		return __real_setsockopt(fd, level, option, value, size);
	sim_call();
	(void) file_of(fd);
	return 0;
}

REPLACE(int, ioctl, int fd, unsigned long request, ...)
{
	struct file *file;
	int *number;
	va_list ap;

	va_start(ap, request);
	number = va_arg(ap, int *);
	va_end(ap);
	if (!sim.running)
		return __real_ioctl(fd, request, number);
	sim_call();
	file = file_of(fd);
	if (request == FIONREAD && file->kind == FILE_QUEUE)
		*number = (int) (file->queue.count * (size_t) peek(file));
	else if (file->kind != FILE_STREAM)
		sim_fail("ioctl of a file of kind %d", (int) file->kind);
	else if (request == FIONREAD)
		*number = (int) stream_unread(file->stream);
	else if (request == SIOCOUTQ)
		*number = (int) stream_unacknowledged(file->stream);
	else
		sim_fail("ioctl request %lu is not simulated", request);
	return 0;
}

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
#ifndef SIM_TIME64_NAMES
int __wrap_fcntl64(int fd, int command, ...) __attribute__((alias("__wrap_fcntl")));
#endif
int __wrap_fcntl(int fd, int command, ...)
{
	struct file *file;
	long argument;
	va_list ap;

	va_start(ap, command);
	argument = va_arg(ap, long);
	va_end(ap);
	if (!sim.running)
		return __real_fcntl(fd, command, argument);
	sim_call();
	file = file_of(fd);
	if (command != F_SETPIPE_SZ)
		return 0;
	/* beyond a user's limit a pipe keeps its size */
	if (sim_below(4) == 0)
		return fail(EPERM);
	file->pipe.slots = 1;
	while (file->pipe.slots < PIPE_SLOTS && file->pipe.slots * 4096 < (unsigned) (argument & INT_MAX))
		file->pipe.slots *= 2;
	return (int) file->pipe.slots * 4096;
}

/* --- messages with descriptors ---------------------------------------------------------- */

REPLACE(ssize_t, sendmsg, int fd, const struct msghdr *from, int flags)
{
	static const int errors[] = { EAGAIN, ETOOMANYREFS, ENOMEM, ENOBUFS };
	struct cmsghdr *header;
	struct message *message;
	struct file *peer;

	if (!sim.running)
		return __real_sendmsg(fd, from, flags);
	sim_call();
	peer = file_of_kind(fd, FILE_QUEUE)->queue.peer;
	if (!peer)
		return fail(EPIPE);
	if (sim_fault(FAULT_SEND_FD)) {
		sim.queue_full_at = sim.now;
		return fail(errors[sim_below(4)]);
	}
	if (peer->queue.count >= peer->queue.limit) {
		sim.queue_full_at = sim.now;
		return fail(EAGAIN);
	}
	header = CMSG_FIRSTHDR(from);
	message = calloc(1, sizeof *message);
	if (!message || !header || from->msg_iovlen != 1 || from->msg_iov->iov_len > sizeof message->data)
		sim_fail("this message is not simulated");
	message->size = from->msg_iov->iov_len;
	memcpy(message->data, from->msg_iov->iov_base, message->size);
	message->count = (unsigned) ((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
	for (unsigned i = 0; i < message->count; i++) {
		int passed;

		memcpy(&passed, CMSG_DATA(header) + i * sizeof passed, sizeof passed);
		message->files[i] = file_of(passed);
		file_ref(message->files[i]);
		if (message->files[i]->kind == FILE_STREAM)
			crew_serves(NULL, message->files[i]->stream);
	}
	list_append(&peer->queue.messages, &message->link);
	peer->queue.count++;
	fiber_progress(fiber_self());
	sim_note("sendmsg", message->files[0]->stream->id, peer->queue.count);
	file_wake(peer, POLLIN);
	return (ssize_t) message->size;
}

/* Open the files of the message in the receiver. Returns false where there were too few descriptors. */
static bool install(struct message *message, struct msghdr *to)
{
	struct cmsghdr *header = to->msg_control;
	bool all = true;

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(0);
	for (unsigned i = 0; i < message->count; i++) {
		int fd = -1;

		if (all && !is_full(fiber_self()->process))
			fd = process_open(fiber_self()->process, message->files[i]);
		if (fd < 0) {
			if (message->files[i]->kind == FILE_STREAM)
				sim.excuses++;
			sim.failed_at = sim.now;
			file_unref(message->files[i]);
			all = false;
			continue;
		}
		if (message->files[i]->kind == FILE_STREAM)
			crew_serves(fiber_self()->process->crew, message->files[i]->stream);
		memcpy(CMSG_DATA(header) + i * sizeof fd, &fd, sizeof fd);
		header->cmsg_len += sizeof fd;
	}
	to->msg_controllen = header->cmsg_len > CMSG_LEN(0) ? CMSG_SPACE(header->cmsg_len - CMSG_LEN(0)) : 0;
	return all;
}

REPLACE(ssize_t, recvmsg, int fd, struct msghdr *to, int flags)
{
	struct message *message;
	struct file *file;
	ssize_t size;

	if (!sim.running)
		return __real_recvmsg(fd, to, flags);
	sim_call();
	file = file_of(fd);
	if (flags & MSG_ERRQUEUE || sim_fault(FAULT_AGAIN))
		return fail(EAGAIN);
	if (file->kind != FILE_QUEUE)
		sim_fail("recvmsg from a file of kind %d", (int) file->kind);
	if (list_empty(&file->queue.messages))
		return file->queue.peer ? fail(EAGAIN) : 0;
	message = LIST_ENTRY(file->queue.messages.next, struct message, link);
	list_remove(&message->link);
	file->queue.count--;
	sim_note("recvmsg", message->files[0]->stream->id, file->queue.count);
	to->msg_flags = install(message, to) ? 0 : MSG_CTRUNC;
	size = (ssize_t) message->size;
	memcpy(to->msg_iov->iov_base, message->data, message->size);
	free(message);
	fiber_progress(fiber_self());
	if (file->queue.peer)
		file_wake(file->queue.peer, POLLOUT);
	return size;
}

/* --- other files ------------------------------------------------------------------------ */

REPLACE(int, close, int fd)
{
	struct file *file;

	if (!sim.running)
		return __real_close(fd);
	sim_call();
	file = file_of(fd);
	fiber_progress(fiber_self());
	/* the process that handed it over may not have closed it yet */
	if (file->kind == FILE_STREAM && file->stream->crew &&
	    file->stream->crew == fiber_self()->process->crew)
		stream_ended(file->stream);
	return result(process_close(fiber_self()->process, fd));
}

REPLACE(int, eventfd, unsigned value, int flags)
{
	if (!sim.running)
		return __real_eventfd(value, flags);
	sim_call();
	return open_file(file_make(FILE_EVENT));
}

static ssize_t event_read(struct file *file, void *data)
{
	if (file->eventfd.counter == 0)
		return fail(EAGAIN);
	memcpy(data, &file->eventfd.counter, sizeof file->eventfd.counter);
	file->eventfd.counter = 0;
	/* a worker that wakes itself makes no progress */
	if (file->eventfd.writer != fiber_self())
		fiber_progress(fiber_self());
	return sizeof file->eventfd.counter;
}

REPLACE(ssize_t, read, int fd, void *data, size_t size)
{
	struct file *file;

	if (!sim.running)
		return __real_read(fd, data, size);
	sim_call();
	file = file_of(fd);
	if (file->kind == FILE_EVENT) {
		sim_note("read of eventfd", fd, (int64_t) file->eventfd.counter);
		return event_read(file, data);
	}
	if (file->kind != FILE_PIPE)
		sim_fail("read from a file of kind %d", (int) file->kind);
	return pipe_read(file, data, size);
}
ssize_t __wrap___read_chk(int fd, void *data, size_t size, size_t room);
ssize_t __wrap___read_chk(int fd, void *data, size_t size, size_t room)
{
	(void) room;
	return __wrap_read(fd, data, size);
}

REPLACE(ssize_t, write, int fd, const void *data, size_t size)
{
	struct file *file;
	uint64_t number;

	if (!sim.running)
		return __real_write(fd, data, size);
	sim_call();
	file = file_of(fd);
	if (file->kind == FILE_READY) {
		fiber_self()->steady = true;
		ready_written(file->crew);
		return (ssize_t) size;
	}
	if (file->kind != FILE_EVENT)
		sim_fail("write to a file of kind %d", (int) file->kind);
	memcpy(&number, data, sizeof number);
	file->eventfd.counter += number;
	file->eventfd.writer = fiber_self();
	sim_note("write to eventfd", fd, (int64_t) file->eventfd.counter);
	file_wake(file, POLLIN);
	return (ssize_t) size;
}

REPLACE(int, pipe2, int ends[2], int flags)
{
	struct file *file;

	if (!sim.running)
		return __real_pipe2(ends, flags);
	sim_call();
	if (fiber_self()->process->used + 2 > fiber_self()->process->limit - 3 || sim_fault(FAULT_PIPE))
		return fail(EMFILE);
	file = file_make(FILE_PIPE);
	file->pipe.slots = 16;
	file_ref(file);
	ends[0] = open_file(file);
	ends[1] = open_file(file);
	return 0;
}

REPLACE(int, memfd_create, const char *name, unsigned flags)
{
	if (!sim.running)
		return __real_memfd_create(name, flags);
	sim_call();
	if (sim_fault(FAULT_MEMFILE))
		return fail(EMFILE);
	return open_file(file_make(FILE_MEMORY));
}

REPLACE(ssize_t, pwrite, int fd, const void *data, size_t size, off_t at)
{
	struct file *file;
	size_t end = (size_t) at + size;

	if (!sim.running)
		return __real_pwrite(fd, data, size, at);
	sim_call();
	file = file_of_kind(fd, FILE_MEMORY);
	if (end > file->memory.size) {
		file->memory.data = realloc(file->memory.data, end);
		file->memory.size = end;
	}
	memcpy(file->memory.data + at, data, size);
	return (ssize_t) size;
}
#ifndef SIM_TIME64_NAMES
SAME(ssize_t, pwrite64, pwrite, int fd, const void *data, size_t size, off_t at)
#endif

REPLACE(ssize_t, pread, int fd, void *data, size_t size, off_t at)
{
	struct file *file;

	if (!sim.running)
		return __real_pread(fd, data, size, at);
	sim_call();
	file = file_of_kind(fd, FILE_MEMORY);
	if ((size_t) at >= file->memory.size)
		return 0;
	if (size > file->memory.size - (size_t) at)
		size = file->memory.size - (size_t) at;
	memcpy(data, file->memory.data + at, size);
	return (ssize_t) size;
}
#ifndef SIM_TIME64_NAMES
SAME(ssize_t, pread64, pread, int fd, void *data, size_t size, off_t at)
#endif

/* base/memfile.h; fstat(2) has other names in older C libraries. */
REPLACE(int64_t, memfile_size, int fd)
{
	if (!sim.running)
		return __real_memfile_size(fd);
	return (int64_t) file_of_kind(fd, FILE_MEMORY)->memory.size;
}

/* --- threads and processes -------------------------------------------------------------- */

struct thread {
	void *(*main)(void *);
	void *argument;
};

static void thread_main(struct fiber *fiber)
{
	struct thread thread = *(struct thread *) fiber->argument;

	free(fiber->argument);
	fiber->steady = true;
	(void) thread.main(thread.argument);
	thread_ended(fiber->process->crew);
}

REPLACE(int, pthread_create, pthread_t *id, const pthread_attr_t *attr, void *(*run)(void *), void *argument)
{
	struct thread *thread;

	if (!sim.running)
		return __real_pthread_create(id, attr, run, argument);
	sim_call();
	if (sim_fault(FAULT_THREAD))
		return EAGAIN;
	thread = calloc(1, sizeof *thread);
	if (!thread)
		abort();
	*thread = (struct thread) { run, argument };
	(void) fiber_start(fiber_self()->process, thread_main, thread);
	thread_began(fiber_self()->process->crew);
	fiber_progress(fiber_self());
	return 0;
}

void __wrap__exit(int status);
void __wrap__exit(int status)
{
	sim_fail("a worker calls _exit(%d)", status);
}

/* --- base/log.h ------------------------------------------------------------------------- */

bool __wrap_log_wants(int priority);
bool __wrap_log_wants(int priority)
{
	(void) priority;
	return false;
}

void __wrap_log_event(int priority, enum event event, const char *format, ...);
void __wrap_log_event(int priority, enum event event, const char *format, ...)
{
	if (event == EVENT_INTERNAL)
		sim_fail("logged at level %d: %s", priority, format);
}
