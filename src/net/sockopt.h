/* SPDX-License-Identifier: ISC */
/* sockopt.h - options of stream sockets, listening and connected
 *
 * The functions only change the socket; any thread and process. socket(7), tcp(7), unix(7).
 */
#ifndef ECHOD_NET_SOCKOPT_H
#define ECHOD_NET_SOCKOPT_H

#include <stdbool.h>

/* Set the receive and send buffers of the stream socket `fd` to `bytes` (SO_RCVBUF, SO_SNDBUF), at most
 * sockopt_buffer_max(). 0: let the kernel tune them, also if they were set before (Linux 5.14); they then
 * start with the sizes of the socket `like`, or, if that is -1, of a new socket. */
void sockopt_set_buffers(int fd, unsigned bytes, int like);

/* The largest value that SO_RCVBUF and SO_SNDBUF (`option`) accept without reduction: net.core.rmem_max and
 * net.core.wmem_max. Measured on a socket, because /proc may be hidden. Returns UINT_MAX where no socket can
 * be made. */
unsigned sockopt_buffer_max(int option);

/* Make TCP detect within twice `seconds` (0 to 32767; 0: never) that the peer of `fd` is dead: by three
 * keepalive probes after `seconds` without a packet, or by data that it does not acknowledge (SO_KEEPALIVE,
 * TCP_USER_TIMEOUT: tcp(7), RFC 5482). Connections inherit this from their listener. Not for unix sockets. */
void sockopt_set_keepalive(int fd, unsigned seconds);

/* Set one integer option. Returns 0 or -errno. */
int sockopt_set(int fd, int level, int option, int value);

/* Set the options that an echo needs on the stream socket `fd`, which another process may have made: urgent
 * data in line (SO_OOBINLINE), so that the urgent byte is echoed in its place (RFC 6093); no low-water mark,
 * no lingering close(2), and no time stamps, whose copies would fill the error queue. A TCP connection
 * inherits these from its listener. A unix connection inherits nothing; a connection from the backlog of an
 * adopted listener has the options that the listener had before. Errors are ignored: a kernel without an
 * option cannot have it set. */
void sockopt_prepare(int fd);

#endif
