/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/idle.h"

#include <poll.h>
#include <sys/socket.h>

/* Wake-ups without effect that are tolerated in a row: between the handler and the check another connection
 * or message may have arrived, which another worker takes. */
#define TOLERATED 64

/* Messages discarded from an error queue at once. */
#define ERRORS_MAX 64

/* Time stamps of sent data (SO_TIMESTAMPING) and ICMP errors (IP_RECVERR) end here if the socket's creator
 * asked for them. */
static unsigned errors_discard(int fd)
{
	struct msghdr message = { .msg_iovlen = 0 };
	unsigned count = 0;

	while (count < ERRORS_MAX && recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0)
		count++;
	return count;
}

unsigned idle_check(struct idle *idle, int fd, short events, uint64_t work)
{
	struct pollfd now = { .fd = fd, .events = events };

	if (poll(&now, 1, 0) <= 0)
		return 0;
	if (now.revents & POLLERR && errors_discard(fd) > 0)
		return 0;
	if (idle->fd != fd || idle->work != work)
		*idle = (struct idle) { .fd = fd, .work = work };
	if (idle->count < TOLERATED) {
		idle->count++;
		return 0;
	}
	return 1;
}
