/* SPDX-License-Identifier: ISC */
/* fdpass.h - messages with descriptors over a unix socket (SCM_RIGHTS, see unix(7))
 *
 * The sender is not trusted: no received descriptor is leaked, whatever the number and the control messages.
 * Any thread.
 */
#ifndef ECHOD_BASE_FDPASS_H
#define ECHOD_BASE_FDPASS_H

#include <stddef.h>
#include <sys/types.h>

/* The kernel takes no more descriptors in one message (SCM_MAX_FD). */
#define FDPASS_MAX 253

/* Send `size` > 0 bytes with `count` <= FDPASS_MAX descriptors as one message, without waiting. The caller
 * keeps the descriptors. Returns 0; -EAGAIN where the socket has no room; -ETOOMANYREFS where the user has
 * more descriptors in flight than RLIMIT_NOFILE; or another -errno. */
int fdpass_send(int socket, const void *data, size_t size, const int fds[], unsigned count);

/* Receive one message without waiting: at most `size` bytes, and at most `max` descriptors, which are
 * close-on-exec and belong to the caller. Returns the number of bytes, with `*count` descriptors in `fds`
 * (both 0: the message was empty, or the other end has gone); -EAGAIN where none waits; -EBADMSG where the
 * message had more bytes or descriptors, and -EMFILE where the process can hold no more descriptors: then the
 * message is discarded, and what it carried is closed; or another -errno. */
ssize_t fdpass_receive(int socket, void *data, size_t size, int fds[], unsigned max, unsigned *count);

#endif
