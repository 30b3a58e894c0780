/* SPDX-License-Identifier: ISC */
/* target.h - find the addresses of a server and connect to the first that answers
 *
 * Functions that can fail write the reason into `why` (TARGET_WHY_MAX bytes): a sentence without full stop
 * and newline that names every address tried. Main thread, except target_socket() and
 * target_connect_unix().
 */
#ifndef ECHOD_CLIENT_TARGET_H
#define ECHOD_CLIENT_TARGET_H

#include <stddef.h>
#include <stdint.h>

#include "net/addr.h"

#define TARGET_WHY_MAX 2048

/* Settings of every socket. */
struct socket_options {
	int type;              /* SOCK_STREAM or SOCK_DGRAM */
	int family;            /* AF_UNSPEC, AF_INET or AF_INET6 */
	struct addr source;    /* .len 0: any */
	const char *interface; /* NULL: any */
	int tos;               /* traffic class byte; -1: default of the system */
	int mtu_discovery;     /* IP_PMTUDISC_DONT, _WANT or _DO of ip(7); -1: default of the system */
	unsigned ttl;          /* time to live or hop limit; 0: default of the system */
	uint64_t timeout;      /* to connect, in nanoseconds; NSEC_NEVER: limit of the kernel */
};

struct target {
	char *name; /* as given by the user, with the port: for messages */
	struct addr *addrs;
	size_t count;
};

/* Split "name:port". Returns 0, and `*name` must be freed; -ENOENT if `host` has no colon, or several as
 * an IPv6 address; -EINVAL if the name or the port is empty; or -ENOMEM. Pure. */
int target_split(const char *host, char **name, const char **port);

/* Find the addresses of `host` ("localhost", "localhost:7007", "192.0.2.1", "[::1]:7007", "unix:/path")
 * and `port` (a number, a service name, or NULL for 7), in the order of RFC 6724, then with alternating
 * families as in RFC 8305 section 4. Returns 0, -EINVAL if an argument is invalid, -ENOENT if the name
 * has no address, or -ENOMEM. */
int target_find(struct target *target, const struct socket_options *sockopts, const char *host,
		const char *port, char why[static TARGET_WHY_MAX]);

/* The address that answered. */
struct target_choice {
	struct addr addr;
	uint64_t connect_time; /* nanoseconds to connect to that address */
};

/* Connect to the first address that answers. The next one is tried when one failed or has not answered for
 * 250 ms (RFC 8305 section 5). `*choice` is the address that answered. Returns a non-blocking
 * descriptor owned by the caller, -EINTR after an interrupt, or another -errno. */
int target_connect(const struct target *target, const struct socket_options *sockopts,
		   struct target_choice *choice, char why[static TARGET_WHY_MAX]);

/* A non-blocking socket for the address `to` with all settings, not yet connected. Any thread.
 * Returns the descriptor, or -errno with `*what` (may be NULL) set to the operation that failed. */
int target_socket(const struct socket_options *sockopts, const struct addr *to, const char **what);

/* Connect to the unix socket `to`. It blocks while the backlog is full, because there is no event to wait
 * for; it ends when the descriptor `cancel` is readable, or after an interrupt if `cancel` is -1 (main
 * thread only). Any thread. Returns a non-blocking descriptor, -ETIMEDOUT, -ECANCELED, or another -errno. */
int target_connect_unix(const struct socket_options *sockopts, const struct addr *to, int cancel);

/* The MTU of the path to the peer of a connected socket, as the kernel knows it; 0: unknown. Any thread. */
int target_path_mtu(int fd);

/* As strerror(3) for an error of connect(2), with advice if no local port is free (EADDRNOTAVAIL). */
const char *target_connect_error(int error);

/* A name or address for a text report: control characters and invalid UTF-8 are escaped (escape.h). Returns a
 * static buffer that the next call overwrites. Main thread. */
const char *target_text(const char *name);

void target_clear(struct target *target);

#endif
