/* SPDX-License-Identifier: ISC */
/* sockopt.h - options of stream sockets, listening and connected
 *
 * Pure but for the socket; any thread and process. socket(7), tcp(7), unix(7).
 */
#ifndef ECHOD_NET_SOCKOPT_H
#define ECHOD_NET_SOCKOPT_H

#include <stdbool.h>

/* Set the receive and send buffers of the stream socket `fd` to `bytes` (SO_RCVBUF, SO_SNDBUF), which must not be more than
 * sockopt_buffer_max() allows. 0: let the kernel tune them, again if they were set before (Linux 5.14); then they begin with the sizes of the socket `like`, or, if that is -1, of a
 * new one. */
void sockopt_set_buffers(int fd, unsigned bytes, int like);

/* The greatest value that SO_RCVBUF and SO_SNDBUF (`option`) accept uncut: net.core.rmem_max and net.core.wmem_max. Asks a
 * socket, since /proc may be hidden. UINT_MAX where no socket can be made. */
unsigned sockopt_buffer_max(int option);

/* Have TCP find out when the peer of `fd` is dead, within twice `seconds` (0 to 32767; 0: never): by three keepalive probes after
 * `seconds` without a packet from it, or by data that it does not acknowledge (SO_KEEPALIVE, TCP_USER_TIMEOUT: tcp(7), RFC 5482).
 * Connections inherit this from their listener. Not for unix sockets. */
void sockopt_set_keepalive(int fd, unsigned seconds);

/* Set one integer option. Returns 0 or -errno. */
int sockopt_set(int fd, int level, int option, int value);

/* Set what an echo needs of the stream socket `fd`, whoever made it: urgent data in line (SO_OOBINLINE), so that the urgent byte
 * is echoed in its place (RFC 6093); no low-water mark, no lingering close(2), and no time stamps, whose copies would
 * fill the error queue. A TCP connection inherits all of it from its listener; a unix connection inherits nothing, and a
 * connection that waited in the backlog of an adopted listener has the options which the listener had before. Failures
 * are ignored: a kernel without an option cannot have it set either. */
void sockopt_prepare(int fd);

#endif
