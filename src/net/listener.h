/* SPDX-License-Identifier: ISC */
/* listener.h - listening sockets: bound here or passed by the service manager
 *
 * For the supervisor, before it forks the crew that inherits them. The supervisor owns listeners and closes
 * them; workers only use the descriptor.
 */
#ifndef ECHOD_NET_LISTENER_H
#define ECHOD_NET_LISTENER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "net/addr.h"

enum listener_kind { LISTENER_STREAM, LISTENER_DATAGRAM };

/* Whether the host had the address when the listener was bound. */
enum listener_presence {
	LISTENER_PRESENT,
	LISTENER_TENTATIVE, /* duplicate address detection was not finished */
	LISTENER_ABSENT,
};

/* Options of listener_open(). */
struct listener_options {
	int backlog;
	unsigned buffer;    /* socket-buffer, see listener_set_buffers(); set before listen(2), so that it
	                     * also determines the window scale of the first connection (tcp(7)) */
	unsigned keepalive; /* tcp-keepalive, seconds */
	uid_t uid;          /* owner of the file of a unix socket, for root; -1: that of the process */
	gid_t gid;          /* its group; -1: that of the process or of its set-group-ID directory */
	mode_t mode;        /* its permissions */
	bool group_named;   /* `gid` was asked for by name: the file must have it */
	bool mptcp;         /* Multipath TCP (RFC 8684), for stream sockets of IPv4 and IPv6 */
	bool freebind;      /* bind an address that the host does not have (yet) */
	bool shared;        /* beside another listener on the same port, after listener_share_port() on it */
};

struct listener {
	int fd;
	enum listener_kind kind;
	struct addr addr; /* address of bind(2) */
	enum listener_presence presence;
	bool mptcp;    /* of IPPROTO_MPTCP */
	bool blocking; /* the socket had no O_NONBLOCK when it was opened or adopted */
	bool adopted;  /* passed by the service manager: its file is never removed */
	dev_t device;  /* of the socket file of a unix listener that was bound here */
	ino_t inode;
	bool group_refused; /* listener_open() failed since this process may not give the file its group */
	bool keep;          /* used by the supervisor while it compares two lists */
	uint32_t dropped;   /* counter of the kernel at the last listener_count_dropped() */
	char name[64];      /* FDNAME of an adopted listener, or "" */
};

/* Bind `addr` and listen. Close-on-exec; stream sockets are non-blocking (O_NONBLOCK), datagram sockets are
 * not. A unix path is created with `options->mode`; a stale
 * socket file (no process listens) is replaced, a live one refused with -EADDRINUSE, any other file with
 * -EEXIST. TCP sockets get SO_REUSEADDR, IPV6_V6ONLY, and TCP_NODELAY, which accepted connections inherit
 * (tcp(7)). Datagram sockets get IP_PKTINFO, IPV6_RECVPKTINFO and the largest receive buffer that the host
 * allows. An address that the host does not have is bound with IP_FREEBIND (ip(7)) if `options` permit it, or
 * if it is an IPv6 address of the host in duplicate address detection; it is served once the host has it.
 * Returns 0 with `*listener` filled in; -EADDRNOTAVAIL where the host does not have the address; -ENODEV
 * where the interface of a link-local address does not exist; another -errno. */
int listener_open(struct listener *listener, enum listener_kind kind, const struct addr *addr,
                  const struct listener_options *options);

/* Set the socket buffers that TCP connections inherit from a stream listener; see sockopt_set_buffers(). */
void listener_set_buffers(const struct listener *listener, unsigned bytes);

/* Set the keepalive options that TCP connections inherit from a stream listener; see
 * sockopt_set_keepalive(). */
void listener_set_keepalive(const struct listener *listener, unsigned seconds);

/* Returns the number of datagrams that the kernel has dropped since the last call, or since the listener was
 * opened or adopted, because the queue of the socket was full (SO_MEMINFO, sock_diag(7)); includes datagrams
 * with a wrong checksum. Datagrams that the kernel has merged (UDP_GRO in udp(7)) count as one. The counter
 * belongs to the socket: a socket kept over a restart, or passed by the service manager, does not start at
 * 0. */
uint32_t listener_count_dropped(struct listener *listener);

/* Both listeners are bound to the same address, one with Multipath TCP and one without, and share the port:
 * have all new clients go to `listener`, which was opened last. `other` keeps the clients that have begun to
 * connect. */
void listener_take_clients(const struct listener *listener, const struct listener *other);

/* Allow, or stop allowing, another socket of this user on an overlapping address and the same port
 * (SO_REUSEPORT, socket(7)), while a reload replaces one listener by another. Returns 0 or -errno. */
int listener_share_port(const struct listener *listener);
int listener_unshare_port(const struct listener *listener);

/* Adopt `fd`, a listening or datagram socket made by another process, under `name` (FDNAME or ""), and set
 * the options of listener_open() where that is still possible; a datagram socket keeps O_NONBLOCK, which
 * other processes that have it may rely on. Returns 0; -ENOTSOCK where it is not a socket; -EINVAL where its
 * type is not supported or it does not listen; another -errno. On failure the caller keeps `fd`. */
int listener_adopt(struct listener *listener, int fd, const char *name);

/* Change the backlog of a stream listener; listen(2) may be called again. Returns 0 or -errno. */
int listener_set_backlog(const struct listener *listener, int backlog);

/* Before a stream listener is shut: accept no new clients, but let handshakes in progress complete, and keep
 * the backlog. A SYN gets no answer, so its sender repeats it and is refused later. The file of a unix socket
 * is removed if it belongs to this listener. */
void listener_refuse_new(struct listener *listener);

/* Refuse new clients of an abstract unix listener, which listener_refuse_new() cannot do; accept(2) still
 * returns the clients in the backlog, and then fails with EINVAL. No worker may watch the listener any more,
 * since it becomes readable for ever. */
void listener_refuse_abstract(const struct listener *listener);

/* Refuse new clients in every process that has the descriptor; clients in the backlog are reset. Does nothing
 * for an adopted listener, which belongs to the service manager. */
void listener_shut(const struct listener *listener);

/* Give the file of a unix listener that was bound here the permissions `mode`, and the group `gid` (-1: leave
 * it). Does nothing where it has them, and for other listeners. Returns 0 or -errno: -EPERM where this
 * process may not. */
int listener_set_file(const struct listener *listener, mode_t mode, gid_t gid);

/* Whether clients can reach the listener: false for a unix socket whose file has been removed or replaced. */
bool listener_is_reachable(const struct listener *listener);

/* Whether `wildcard` is bound to the wildcard address of the family, kind and port of `listener`, and so
 * receives its clients. */
bool listener_is_covered(const struct listener *listener, const struct listener *wildcard);

/* Record which file belongs to a unix listener, so that listener_close() does not remove another one. */
void listener_note_file(struct listener *listener);

/* Close the descriptor, and remove the socket file of a unix listener bound here, if the file is still its
 * own. */
void listener_close(struct listener *listener);

/* Whether the host can make IPv6 sockets. */
bool listener_ipv6_available(void);

#endif
