/* target.h - whom to talk to: find the addresses, connect to the one that answers
 *
 * Functions that can fail write a whole sentence into `why` (TARGET_WHY_MAX bytes, no full stop, no newline) that
 * names every address tried and why it failed. Main thread, target_socket() and target_connect_unix() apart.
 */
#ifndef ECHOD_CLIENT_TARGET_H
#define ECHOD_CLIENT_TARGET_H

#include <stddef.h>
#include <stdint.h>

#include "net/addr.h"

#define TARGET_WHY_MAX 2048

/* What every socket is to be like. */
struct socket_options {
	int type;              /* SOCK_STREAM or SOCK_DGRAM */
	int family;            /* AF_UNSPEC, AF_INET or AF_INET6 */
	struct addr source;    /* .len 0: any */
	const char *interface; /* NULL: any */
	int dscp;              /* -1: the system's default */
	uint64_t timeout; /* ticks a connection may take to be made; NSEC_NEVER: what the kernel thinks */
};

struct target {
	char *name; /* as the user wrote it, with the port: for messages */
	struct addr *addrs;
	size_t count;
};

/* Find the addresses of `host` ("localhost", "192.0.2.1", "[::1]:7007", "unix:/path") and `port` (a number, a service
 * name, or NULL for 7), in the order in which they are to be tried (RFC 6724, then
 * families in turn as RFC 8305 section 4 says).
 * Returns 0, -EINVAL where what was given is wrong in itself, or -ENOENT where the name has no address. */
int target_find(struct target *target, const struct socket_options *sockopts, const char *host,
		const char *port, char why[static TARGET_WHY_MAX]);

/* Connect to the first of the addresses that answers: the next is tried when one failed or has not
 * answered for 250 ms (RFC 8305 section 5). `*chosen` says which it was (may be NULL).
 * Returns a non-blocking descriptor that is the caller's, -EINTR after Ctrl-C, or another -errno. */
int target_connect(const struct target *target, const struct socket_options *sockopts, struct addr *chosen,
		   char why[static TARGET_WHY_MAX]);

/* A non-blocking socket for `to` with all that is wished done to it, not yet connected. Any thread.
 * Returns the descriptor, or -errno with `*what` (may be NULL) set to what could not be done. */
int target_socket(const struct socket_options *sockopts, const struct addr *to, const char **what);

/* A connection to the unix socket `to`, which has no event to wait for while the backlog is full. It is given up when
 * `cancel` becomes readable; in the main thread, where that is -1, on Ctrl-C. Any thread.
 * Returns a non-blocking descriptor, -ETIMEDOUT, -ECANCELED, or another -errno. */
int target_connect_unix(const struct socket_options *sockopts, const struct addr *to, int cancel);

void target_clear(struct target *target);

#endif
