/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/fdpass.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SCM_PIDFD
#define SCM_PIDFD 4
#endif

/* Space for other control messages, which another owner of the socket may have requested (SO_PASSCRED,
 * SO_PASSPIDFD, SO_PASSSEC): without it the kernel would cut off the descriptors. */
#define OTHERS_SIZE 1024

union fdpass_control {
	char bytes[CMSG_SPACE(FDPASS_MAX * sizeof(int)) + OTHERS_SIZE];
	struct cmsghdr align;
};

int fdpass_send(int socket, const void *data, size_t size, const int fds[], unsigned count)
{
	union fdpass_control control;
	struct iovec iov = { .iov_base = (void *) (uintptr_t) data, .iov_len = size };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (count > 0) {
		struct cmsghdr *header;

		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		memset(control.bytes, 0, message.msg_controllen);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(header), fds, count * sizeof(int));
	}
	return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* Get the descriptors of one control message. Returns whether there were more than `max`; those are
 * closed. */
static bool take(struct cmsghdr *header, int fds[], unsigned max, unsigned *count)
{
	size_t n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	bool rights = header->cmsg_type == SCM_RIGHTS, surplus = false;

	if (header->cmsg_level != SOL_SOCKET || (!rights && header->cmsg_type != SCM_PIDFD))
		return false;
	for (size_t i = 0; i < n; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
		if (rights && *count < max) {
			fds[(*count)++] = fd;
		} else if (fd >= 0) {
			close(fd);
			surplus |= rights;
		}
	}
	return surplus;
}

ssize_t fdpass_receive(int socket, void *data, size_t size, int fds[], unsigned max, unsigned *count)
{
	union fdpass_control control;
	struct iovec iov = { .iov_base = data, .iov_len = size };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
		                  .msg_controllen = sizeof control.bytes };
	bool surplus = false;
	ssize_t n;

	*count = 0;
	n = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return -errno;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header))
		surplus |= take(header, fds, max, count);
	if (!surplus && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return n;
	while (*count > 0)
		close(fds[--*count]);
	return message.msg_flags & MSG_CTRUNC ? -EMFILE : -EBADMSG;
}
