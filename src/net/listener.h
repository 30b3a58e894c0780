/* SPDX-License-Identifier: ISC */
/* listener.h - listening sockets: bound here or passed by the service manager
 *
 * Supervisor only, before it forks the crew that inherits them. A listener belongs to the
 * supervisor's list and is closed there; workers only use the descriptor.
 */
#ifndef ECHOD_NET_LISTENER_H
#define ECHOD_NET_LISTENER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "net/addr.h"

enum listener_kind { LISTENER_STREAM, LISTENER_DATAGRAM };

/* Whether the host had the address when it was bound. */
enum listener_presence {
	LISTENER_PRESENT,
	LISTENER_TENTATIVE, /* duplicate address detection was not finished */
	LISTENER_ABSENT,
};

/* What listener_open() needs to know besides the address. */
struct listener_options {
	int backlog;
	unsigned buffer; /* socket-buffer, see listener_set_buffers(); set before listen(2), so that the window scale of the first
	                  * connection fits it, too (tcp(7)) */
	unsigned keepalive; /* tcp-keepalive, seconds */
	uid_t uid; /* owner and group of the file of a unix socket, for root; -1: the process's own */
	gid_t gid;
	bool freebind; /* bind an address that the host does not have (yet) */
	bool shared;   /* beside another listener on the same port that agreed by listener_share_port() */
};

struct listener {
	int fd;
	enum listener_kind kind;
	struct addr addr;   /* what it is bound to */
	enum listener_presence presence;
	bool adopted;       /* passed by the service manager: never unlinked */
	dev_t device;       /* of the socket file of a unix listener opened here */
	ino_t inode;
	bool keep;          /* scratch of the supervisor while two lists are compared */
	uint32_t dropped;   /* the kernel's counter at the last listener_count_dropped() */
	char name[64];      /* FDNAME of an adopted one, or "" */
};

/* Bind `addr` and listen; a unix path is made with mode 0660, a
 * stale socket file (nobody listens) replaced, a live one refused with -EADDRINUSE, and any other
 * file there with -EEXIST. TCP sockets get SO_REUSEADDR, IPV6_V6ONLY, and TCP_NODELAY, which
 * accepted connections inherit (tcp(7)). Datagram sockets get IP_PKTINFO, IPV6_RECVPKTINFO and the largest receive
 * buffer that the host allows. Non-blocking, close-on-exec. An address that the host does not have is bound with
 * IP_FREEBIND (ip(7)) if `options`
 * permit it, or if it is an IPv6 address of the host in duplicate address detection: it is served once the host has it.
 * Returns 0 with `*listener` filled in; -EADDRNOTAVAIL where the host does not have the address; -ENODEV where the
 * interface of a link-local address does not exist; another -errno. */
int listener_open(struct listener *listener, enum listener_kind kind, const struct addr *addr,
                  const struct listener_options *options);

/* Set the socket buffers that TCP connections inherit from a stream listener, as sockopt_set_buffers() does. */
void listener_set_buffers(const struct listener *listener, unsigned bytes);

/* Set what TCP connections inherit from a stream listener: sockopt_set_keepalive(). */
void listener_set_keepalive(const struct listener *listener, unsigned seconds);

/* The number of datagrams that the kernel has dropped since the last call, or since the listener was opened or adopted,
 * because the queue of the socket was full (SO_MEMINFO, sock_diag(7)); also those with a wrong checksum. Of datagrams that
 * the kernel has merged (UDP_GRO in udp(7)) it counts one. The counter is the socket's: a socket that was kept over a
 * restart, or passed by the service manager, has a history. */
uint32_t listener_count_dropped(struct listener *listener);

/* Agree, or no longer, to another socket of this user's on an overlapping address and the same
 * port (SO_REUSEPORT, socket(7)): for the moment in which a reload goes from one to the other. 0 or -errno. */
int listener_share_port(const struct listener *listener, bool on);

/* Take over `fd`, a listening or datagram socket made by somebody else, under `name` ("" or FDNAME), and set what
 * listener_open() sets where that is still possible. Returns 0; -ENOTSOCK where it is no socket; -EINVAL where
 * it is of an unusable type or does not listen; another -errno. The fd stays the caller's on failure. */
int listener_adopt(struct listener *listener, int fd, const char *name);

/* Set the backlog of a stream listener anew (listen(2) may be called again). Returns 0 or -errno. */
int listener_set_backlog(const struct listener *listener, int backlog);

/* Before a stream listener is shut: accept no new clients, but let handshakes complete that have begun, and keep the backlog. A SYN
 * gets no answer, so that its sender repeats it and is refused then; the file of a unix socket is removed, if it is this
 * listener's. */
void listener_refuse_new(struct listener *listener);

/* Refuse new clients from now on, in every process that has the descriptor; clients in the backlog
 * are reset. Not for adopted ones, whose owner decides. */
void listener_shut(const struct listener *listener);

/* Whether clients can find the listener: false for a unix socket whose file has been removed or replaced. */
bool listener_is_reachable(const struct listener *listener);

/* Whether `wildcard` is the wildcard address of the family, kind and port of `listener`, so that it would take its clients. */
bool listener_is_covered(const struct listener *listener, const struct listener *wildcard);

/* Remember which file a unix listener stands for, so that listener_close() removes no other. */
void listener_note_file(struct listener *listener);

/* Close it, and remove the socket file of a unix listener opened here, if it is still this
 * listener's. */
void listener_close(struct listener *listener);

/* Whether the host can make IPv6 sockets. */
bool listener_ipv6_available(void);

#endif
