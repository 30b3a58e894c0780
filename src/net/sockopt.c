#include <config.h>

#include "net/sockopt.h"

#include <errno.h>
#include <sys/socket.h>

int sockopt_set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof value) < 0 ? -errno : 0;
}

void sockopt_prepare(int fd)
{
	const struct linger linger = { .l_onoff = 0 };

	(void) sockopt_set(fd, SOL_SOCKET, SO_OOBINLINE, 1);
	(void) sockopt_set(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
	(void) sockopt_set(fd, SOL_SOCKET, SO_TIMESTAMPING, 0);
	(void) setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}
