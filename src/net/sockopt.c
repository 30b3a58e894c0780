#include <config.h>

#include "net/sockopt.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72 /* Linux 5.14 */
#endif

int sockopt_set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof value) < 0 ? -errno : 0;
}

/* The size that the kernel gives a new socket of the family of `fd`; SO_RCVBUF and SO_SNDBUF double what they are given. */
static int initial_buffer(int fd, int option)
{
	int family = AF_UNIX, size = 0, fresh;
	socklen_t length = sizeof family;

	(void) getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length);
	fresh = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fresh < 0)
		return 0;
	length = sizeof size;
	(void) getsockopt(fresh, SOL_SOCKET, option, &size, &length);
	close(fresh);
	return size / 2;
}

/* Undo SO_RCVBUF and SO_SNDBUF, if there were any: a listener would pass on its size, and that it is fixed. */
static void buffers_release(int fd)
{
	int locked = 0, size;
	socklen_t length = sizeof locked;

	if (getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &locked, &length) < 0 || locked == 0)
		return;
	size = initial_buffer(fd, SO_RCVBUF);
	if (size > 0)
		(void) sockopt_set(fd, SOL_SOCKET, SO_RCVBUF, size);
	size = initial_buffer(fd, SO_SNDBUF);
	if (size > 0)
		(void) sockopt_set(fd, SOL_SOCKET, SO_SNDBUF, size);
	(void) sockopt_set(fd, SOL_SOCKET, SO_BUF_LOCK, 0);
}

void sockopt_set_buffers(int fd, unsigned bytes)
{
	if (bytes == 0) {
		buffers_release(fd);
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
	/* what is too large is cut to the sysctl, then doubled */
	if (sockopt_set(fd, SOL_SOCKET, option, INT_MAX / 2) < 0 || getsockopt(fd, SOL_SOCKET, option, &size, &length) < 0)
		size = 0;
	close(fd);
	/* INT_MAX / 2 is the kernel's own bound, one byte less than the largest value of the key */
	return size <= 0 ? UINT_MAX : size >= INT_MAX - 1 ? UINT_MAX : (unsigned) size / 2;
}

void sockopt_prepare(int fd)
{
	const struct linger linger = { .l_onoff = 0 };

	(void) sockopt_set(fd, SOL_SOCKET, SO_OOBINLINE, 1);
	(void) sockopt_set(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
	(void) sockopt_set(fd, SOL_SOCKET, SO_TIMESTAMPING, 0);
	(void) setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}
