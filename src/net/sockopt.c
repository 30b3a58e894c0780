/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "net/sockopt.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72 /* Linux 5.14 */
#endif

#define KEEPALIVE_PROBES 3

int sockopt_set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof value) < 0 ? -errno : 0;
}

/* Set the buffer of `fd` to the size of that of `like`. SO_RCVBUF and SO_SNDBUF double the value that is
 * set. */
static void buffer_copy(int fd, int option, int like)
{
	int size = 0;
	socklen_t length = sizeof size;

	if (getsockopt(like, SOL_SOCKET, option, &size, &length) == 0 && size > 0)
		(void) sockopt_set(fd, SOL_SOCKET, option, size / 2);
}

static int socket_like(int fd)
{
	int family = AF_UNIX;
	socklen_t length = sizeof family;

	(void) getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length);
	return socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

/* Undo earlier SO_RCVBUF and SO_SNDBUF. Otherwise connections would inherit the fixed size from their
 * listener. */
static void buffers_release(int fd, int like)
{
	int locked = 0, fresh = -1;
	socklen_t length = sizeof locked;

	if (getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &locked, &length) < 0 || locked == 0)
		return;
	if (like < 0)
		like = fresh = socket_like(fd);
	if (like >= 0) {
		buffer_copy(fd, SO_RCVBUF, like);
		buffer_copy(fd, SO_SNDBUF, like);
	}
	if (fresh >= 0)
		close(fresh);
	(void) sockopt_set(fd, SOL_SOCKET, SO_BUF_LOCK, 0);
}

void sockopt_set_buffers(int fd, unsigned bytes, int like)
{
	if (bytes == 0) {
		buffers_release(fd, like);
		return;
	}
	(void) sockopt_set(fd, SOL_SOCKET, SO_RCVBUF, (int) bytes);
	(void) sockopt_set(fd, SOL_SOCKET, SO_SNDBUF, (int) bytes);
}

unsigned sockopt_buffer_max(int option)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), size = 0;
	socklen_t length = sizeof size;

	if (fd < 0)
		return UINT_MAX;
	/* a value that is too large is reduced to the sysctl, then doubled */
	if (sockopt_set(fd, SOL_SOCKET, option, INT_MAX / 2) < 0 ||
	    getsockopt(fd, SOL_SOCKET, option, &size, &length) < 0)
		size = 0;
	close(fd);
	/* INT_MAX / 2 is the kernel's own limit, one byte less than the maximum of the key */
	return size <= 0 || size >= INT_MAX - 1 ? UINT_MAX : (unsigned) size / 2;
}

/* TCP_USER_TIMEOUT in milliseconds for tcp-keepalive. For keepalive probes the kernel checks it when the
 * next probe is due: it ends the connection instead of sending the fourth probe, because the time-out
 * expired half an interval before. Below three seconds three probes do not fit, because the kernel counts
 * whole seconds. */
static unsigned user_timeout(unsigned seconds, unsigned interval)
{
	unsigned limit = 1000 * seconds + 2500 * interval, max = 2000 * seconds - 500;

	if (seconds == 0)
		return 0;
	return limit < max ? limit : max;
}

void sockopt_set_keepalive(int fd, unsigned seconds)
{
	unsigned interval = seconds > 4 ? (seconds - 1) / 3 : 1, now = 0,
		 limit = user_timeout(seconds, interval);
	socklen_t size = sizeof now;

	/* every value of `seconds` has a different limit, so this comparison shows whether anything
	 * changes */
	if (getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &now, &size) == 0 ? now == limit
	                                                                    : errno != EOPNOTSUPP)
		return; /* EOPNOTSUPP: Multipath TCP, which has the others */
	if (seconds > 0) {
		(void) sockopt_set(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int) seconds);
		(void) sockopt_set(fd, IPPROTO_TCP, TCP_KEEPINTVL, (int) interval);
		(void) sockopt_set(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
	}
	(void) sockopt_set(fd, SOL_SOCKET, SO_KEEPALIVE, seconds > 0);
	(void) sockopt_set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int) limit);
}

void sockopt_prepare(int fd)
{
	const struct linger linger = { .l_onoff = 0 };

	(void) sockopt_set(fd, SOL_SOCKET, SO_OOBINLINE, 1);
	(void) sockopt_set(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
	(void) sockopt_set(fd, SOL_SOCKET, SO_TIMESTAMPING, 0);
	(void) setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}
