/* SPDX-License-Identifier: ISC */
/* test_session_io.c - I/O steps on real sockets: bounds, urgent data, wake-ups without effect */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/idle.h"
#include "models/session_io.h"
#include "net/sockopt.h"

/* Two ends of a TCP connection on the loopback, non-blocking, with buffers of `size` bytes. */
static void connection(int ends[2], int size)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof in;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(sockopt_set(listener, SOL_SOCKET, SO_RCVBUF, size), 0);
	assert_int_equal(bind(listener, (struct sockaddr *) &in, length), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *) &in, &length), 0);
	ends[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(sockopt_set(ends[1], SOL_SOCKET, SO_SNDBUF, size), 0);
	assert_int_equal(connect(ends[1], (struct sockaddr *) &in, length), 0);
	ends[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(ends[0] >= 0);
	close(listener);
}

static void session_make(struct session *session, int fd)
{
	memset(session, 0, sizeof *session);
	session->watch.fd = fd;
	session->peer.family = AF_INET;
	conn_init(&session->conn, 1);
}

static int unread(int fd)
{
	int n = 0;

	assert_int_equal(ioctl(fd, FIONREAD, &n), 0);
	return n;
}

/* Send until the socket has had no space for 50 ms. Returns the number of unread bytes at the other end. */
static int fill(int from, int to)
{
	static char data[1 << 16];
	struct pollfd room = { .fd = from, .events = POLLOUT };

	while (poll(&room, 1, 50) == 1)
		assert_true(send(from, data, sizeof data, MSG_DONTWAIT) > 0);
	return unread(to);
}

/* Bytes taken from the socket so far. */
static uint64_t taken(int fd)
{
	struct tcp_info info;
	socklen_t size = sizeof info;

	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
	return (uint64_t) info.tcpi_bytes_received - (uint64_t) unread(fd);
}

/* A client that keeps sending must not keep the worker in one call. */
static void test_linger_is_bounded(void **state)
{
	struct session session;
	struct session_io io = { 0 };
	int ends[2], calls = 0;
	uint64_t before, n;

	(void) state;
	connection(ends, 1 << 20);
	session_make(&session, ends[0]);
	session_io_drain(&session);
	/* the client does not read: the connection stays open because bytes are not acknowledged */
	fill(ends[0], ends[1]);
	do {
		assert_true(fill(ends[1], ends[0]) > (int) LINGER_DISCARD_MAX);
		before = taken(ends[0]);
		assert_false(session_io_linger(&io, &session));
		n = taken(ends[0]) - before;
		assert_true(n > 0 && n <= LINGER_DISCARD_MAX);
	} while (++calls < 20);
	assert_int_equal(session.conn.reason, CONN_OPEN);
	close(ends[0]);
	close(ends[1]);
}

/* A connection on which all is acknowledged ends with FIN even if the client sends more than a call
 * discards. */
static void test_linger_ends(void **state)
{
	struct session session;
	struct session_io io = { 0 };
	int ends[2], calls = 0;
	char byte;

	(void) state;
	connection(ends, 1 << 20);
	session_make(&session, ends[0]);
	session_io_drain(&session);
	assert_true(fill(ends[1], ends[0]) > (int) LINGER_DISCARD_MAX);
	while (!session_io_linger(&io, &session)) {
		fill(ends[1], ends[0]);
		assert_true(++calls < 1000);
	}
	assert_int_equal(session.conn.reason, CONN_DRAIN);
	assert_int_equal(recv(ends[1], &byte, 1, 0), 0);
	close(ends[0]);
	close(ends[1]);
}

/* While flushing, a session that waits for nothing ends when its connection is broken: otherwise the error
 * would wake the worker until the session is handed over. */
static void test_flush_ends_broken(void **state)
{
	const struct linger at_once = { .l_onoff = 1 };
	struct session_io io = { .flush = true };
	struct session session;
	struct pollfd broken;
	int ends[2];

	(void) state;
	connection(ends, 1 << 18);
	session_make(&session, ends[0]);
	session_io_drain(&session);
	assert_false(session_io_linger(&io, &session));
	assert_int_equal(setsockopt(ends[1], SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
	close(ends[1]);
	broken = (struct pollfd) { .fd = ends[0] };
	assert_int_equal(poll(&broken, 1, 10000), 1);
	assert_true(session_io_linger(&io, &session));
	assert_int_equal(session.conn.reason, CONN_RESET);
	close(ends[0]);
}

static void test_urgent_byte_in_place(void **state)
{
	struct local_stats local_stats = { 0 };
	struct session session;
	struct session_io io;
	char back[16];
	int ends[2];

	(void) state;
	assert_int_equal(session_io_open(&io, 65536, 4, &local_stats), 0);
	connection(ends, 1 << 18);
	sockopt_prepare(ends[0]);
	session_make(&session, ends[0]);
	session_io_note_size(&io, &session, 65536, 65536); /* makes it use splice(2) */
	assert_int_equal(send(ends[1], "abU", 3, MSG_OOB), 3);
	assert_int_equal(send(ends[1], "cd", 2, 0), 2);
	for (int i = 0; i < 5; i++)
		session_io_step(&io, &session, true, 1);
	assert_int_equal(recv(ends[1], back, sizeof back, MSG_DONTWAIT), 5);
	assert_memory_equal(back, "abUcd", 5);
	assert_int_equal(local_stats.received, 5);
	session_io_drop_pipe(&io, &session);
	session_io_close(&io);
	close(ends[0]);
	close(ends[1]);
}

static void test_idle_wakeups(void **state)
{
	struct idle idle = { 0 };
	unsigned counted = 0;
	int ends[2];

	(void) state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	for (int i = 0; i < 1000; i++) /* not ready: another worker was faster */
		counted += idle_check(&idle, ends[0], POLLIN, 1);
	assert_int_equal(counted, 0);
	assert_int_equal(send(ends[1], "x", 1, 0), 1);
	for (unsigned i = 0; i < 1000; i++) /* ready, but something is done in between */
		counted += idle_check(&idle, ends[0], POLLIN, i);
	assert_int_equal(counted, 0);
	for (int i = 0; i < 1000; i++)
		counted += idle_check(&idle, ends[0], POLLIN, 1000);
	assert_int_equal(counted, 1000 - 64);
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linger_is_bounded),
		cmocka_unit_test(test_linger_ends),
		cmocka_unit_test(test_flush_ends_broken),
		cmocka_unit_test(test_urgent_byte_in_place),
		cmocka_unit_test(test_idle_wakeups),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
