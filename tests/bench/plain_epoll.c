/* SPDX-License-Identifier: ISC */
/* plain_epoll.c - the yardstick of "make bench": a minimal echo server on epoll(7)
 *
 *   plain_epoll PORT [BUFFER]      on 127.0.0.1, with BUFFER bytes (16384) for all connections together
 *
 * One thread, level-triggered. It calls recv(2) and send(2) once for a ready connection, and accepts at most
 * one connection after each epoll_wait(2). There are no limits, time-outs, counters or log. The sockets are
 * blocking, so that send(2) sends all bytes and connections need no state; a client that never reads stops
 * the server, so it is not for general use. Connections inherit TCP_NODELAY from the listening socket.
 */
#include <config.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 512

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int listener_open(int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	at.sin_port = htons((in_port_t) port);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0
	    || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0
	    || bind(fd, (struct sockaddr *) &at, sizeof(at)) < 0 || listen(fd, 4096) < 0)
		return -1;
	return fd;
}

static void accept_connection(int epoll, int listener)
{
	struct epoll_event event = { .events = EPOLLIN };

	event.data.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (event.data.fd >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event) < 0)
		close(event.data.fd);
}

static _Noreturn void serve(int epoll, int listener, char *buffer, size_t size)
{
	struct epoll_event events[EVENTS];

	for (;;) {
		int count = epoll_wait(epoll, events, EVENTS, -1);

		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;
			ssize_t n;

			if (fd == listener) {
				accept_connection(epoll, listener);
				continue;
			}
			n = recv(fd, buffer, size, 0);
			if (n <= 0 || send(fd, buffer, (size_t) n, 0) != n)
				close(fd);
		}
	}
}

int main(int argc, char *argv[])
{
	struct epoll_event event = { .events = EPOLLIN };
	int port = argc > 1 ? atoi(argv[1]) : 0, size = argc > 2 ? atoi(argv[2]) : 16384, epoll;
	struct rlimit limit;
	char *buffer;

	if (port < 1 || port > 65535 || size < 1 || argc > 3) {
		fprintf(stderr, "Usage: plain_epoll PORT [BUFFER]\n");
		return 64;
	}
	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	buffer = malloc((size_t) size);
	event.data.fd = listener_open(port);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (buffer == NULL || event.data.fd < 0 || epoll < 0 ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event) < 0)
		return fail("plain_epoll");
	serve(epoll, event.data.fd, buffer, (size_t) size);
}
