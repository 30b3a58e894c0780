/* SPDX-License-Identifier: ISC */
/* target.c - see target.h */
#include <config.h>

#include "client/target.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/decimal.h"
#include "base/escape.h"
#include "client/interrupt.h"
#include "client/nsec.h"

#define ATTEMPT_DELAY (NSEC_PER_SEC / 4)
#define UNIX_SLICE (NSEC_PER_SEC / 10) /* an interrupt is noticed after at most that time */
#define PORT_DEFAULT "7"

/* --- finding ------------------------------------------------------------------------------------------ */

static int why_set(char *why, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int why_set(char *why, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, TARGET_WHY_MAX, format, args);
	va_end(args);
	return error;
}

/* A number from 1 to 65535 without leading zeros, or 0. */
static uint16_t port_number(const char *text)
{
	uint64_t port;

	return decimal_parse(text, 65535, &port) == 0 ? (uint16_t) port : 0;
}

static int target_set(struct target *target, const struct addr *addrs, size_t count, char *name, char *why)
{
	target->addrs = calloc(count, sizeof *target->addrs);
	target->name = name;
	if (!target->addrs || !name) {
		target_clear(target);
		return why_set(why, -ENOMEM, "out of memory");
	}
	memcpy(target->addrs, addrs, count * sizeof *addrs);
	target->count = count;
	return 0;
}

static int find_unix(struct target *target, const struct socket_options *sockopts, const char *host,
		     const char *port, char *why)
{
	const char *reason = "";
	struct addr addr;

	if (sockopts->type == SOCK_DGRAM)
		return why_set(why, -EINVAL, "%s cannot be asked over UDP: name a host", host);
	if (sockopts->family != AF_UNSPEC || sockopts->source.len != 0
	    || sockopts->interface || sockopts->tos >= 0 || sockopts->mtu_discovery >= 0
	    || sockopts->ttl != 0)
		return why_set(why, -EINVAL,
			       "%s is no IP address: it has no family, source, interface, DSCP, TTL or MTU",
			       host);
	if (port)
		return why_set(why, -EINVAL, "%s has no port, but \"%s\" was given", host, port);
	if (addr_parse(&addr, host, 7, &reason) < 0)
		return why_set(why, -EINVAL, "%s: %s", host, reason);
	return target_set(target, &addr, 1, strdup(host), why);
}

/* `host` is an address and needs no looking up. Returns -ENOENT where it is not one. */
static int find_literal(struct target *target, const struct socket_options *sockopts, const char *host,
			const char *port, char *why)
{
	uint16_t given = port ? port_number(port) : 7;
	struct addr addr, other;
	const char *reason;
	char text[ADDR_TEXT_MAX];

	if (given == 0 || addr_parse(&addr, host, given, &reason) < 0)
		return -ENOENT;
	/* Parsing with another default port shows whether the address has a port of its own. */
	if (addr_parse(&other, host, given == 1 ? 2 : 1, &reason) == 0
	    && addr_port(&other) == addr_port(&addr) && port)
		return why_set(why, -EINVAL, "%s names a port already, but \"%s\" was given too", host, port);
	if (sockopts->family != AF_UNSPEC && sockopts->family != addr.sa.sa_family)
		return why_set(why, -EINVAL, "%s is not an %s address", host,
			       sockopts->family == AF_INET ? "IPv4" : "IPv6");
	return target_set(target, &addr, 1, strdup(addr_print(&addr, text)), why);
}

/* Copy the list with alternating families, beginning with that of the first address. */
static size_t addrs_interleave(struct addr *out, const struct addrinfo *list)
{
	const struct addrinfo *same = list, *other = list;
	int first = list ? list->ai_family : AF_UNSPEC;
	size_t count = 0;

	while (same || other) {
		while (same && same->ai_family != first)
			same = same->ai_next;
		while (other && other->ai_family == first)
			other = other->ai_next;
		for (const struct addrinfo **next = &same;; next = &other) {
			if (*next && (*next)->ai_addrlen <= sizeof out->in6) {
				memset(&out[count], 0, sizeof *out);
				memcpy(&out[count].sa, (*next)->ai_addr, (*next)->ai_addrlen);
				out[count++].len = (*next)->ai_addrlen;
			}
			if (*next)
				*next = (*next)->ai_next;
			if (next == &other)
				break;
		}
	}
	return count;
}

static int find_name(struct target *target, const struct socket_options *sockopts, const char *host,
		     const char *port, char *why)
{
	struct addrinfo hints = { .ai_family = sockopts->family, .ai_socktype = sockopts->type };
	struct addrinfo *list = NULL;
	struct addr *addrs;
	size_t count = 0;
	char *name = NULL;
	int r;

	r = getaddrinfo(host, port, &hints, &list);
	if (r == EAI_SERVICE)
		return why_set(why, -EINVAL,
			       "\"%s\" is neither a port (1 to 65535) nor the name of a %s service", port,
			       sockopts->type == SOCK_DGRAM ? "UDP" : "TCP");
	if (r != 0)
		return why_set(why, -ENOENT, "cannot look up %s%s: %s", host,
			       sockopts->family == AF_INET    ? " (IPv4)"
			       : sockopts->family == AF_INET6 ? " (IPv6)"
							      : "",
			       r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
	for (const struct addrinfo *one = list; one; one = one->ai_next)
		count++;
	addrs = calloc(count, sizeof *addrs);
	if (addrs && asprintf(&name, "%s port %s", host, port) >= 0) {
		count = addrs_interleave(addrs, list);
		r = target_set(target, addrs, count, name, why);
	} else {
		r = why_set(why, -ENOMEM, "out of memory");
	}
	free(addrs);
	freeaddrinfo(list);
	return r;
}

int target_split(const char *host, char **name, const char **port)
{
	const char *colon = strchr(host, ':');

	if (!colon || strchr(colon + 1, ':'))
		return -ENOENT;
	if (colon == host || colon[1] == '\0')
		return -EINVAL;
	*name = strndup(host, (size_t) (colon - host));
	*port = colon + 1;
	return *name ? 0 : -ENOMEM;
}

static bool port_invalid(const char *port)
{
	return port[strspn(port, "0123456789")] == '\0' && port_number(port) == 0;
}

int target_find(struct target *target, const struct socket_options *sockopts, const char *host,
		const char *port, char why[static TARGET_WHY_MAX])
{
	const char *own_port;
	char *name;
	int r;

	*target = (struct target) { 0 };
	if (strncmp(host, "unix:", 5) == 0)
		return find_unix(target, sockopts, host, port, why);
	if (port && port_invalid(port))
		return why_set(why, -EINVAL, "\"%s\" is not a port: a port is a number from 1 to 65535",
			       port);
	r = find_literal(target, sockopts, host, port, why);
	if (r != -ENOENT)
		return r;
	r = target_split(host, &name, &own_port);
	if (r == -EINVAL)
		return why_set(why, -EINVAL, "\"%s\" has no name before, or no port after the colon", host);
	if (r == -ENOMEM)
		return why_set(why, -ENOMEM, "out of memory");
	if (r < 0)
		return find_name(target, sockopts, host, port ? port : PORT_DEFAULT, why);
	if (port)
		r = why_set(why, -EINVAL, "%s names a port already, but \"%s\" was given too", host, port);
	else if (port_invalid(own_port))
		r = why_set(why, -EINVAL, "\"%s\" is not a port: a port is a number from 1 to 65535",
			    own_port);
	else
		r = find_name(target, sockopts, name, own_port, why);
	free(name);
	return r;
}

const char *target_text(const char *name)
{
	static char text[TARGET_WHY_MAX];

	escape_controls(text, sizeof text, name, strlen(name));
	return text;
}

void target_clear(struct target *target)
{
	free(target->addrs);
	free(target->name);
	*target = (struct target) { 0 };
}

/* --- connecting --------------------------------------------------------------------------------------- */

static int option_set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof value);
}

static int interface_bind(int fd, const char *name)
{
	return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, (socklen_t) strlen(name));
}

/* Set the options of IP packets. Returns 0, or -1 with errno and `*step` set. */
static int packets_configure(int fd, int family, const struct socket_options *sockopts, const char **step)
{
	bool v6 = family == AF_INET6;
	int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;

	*step = "set the traffic class";
	if (sockopts->tos >= 0 && option_set(fd, level, v6 ? IPV6_TCLASS : IP_TOS, sockopts->tos) < 0)
		return -1;
	*step = v6 ? "set the hop limit" : "set the TTL";
	if (sockopts->ttl != 0
	    && option_set(fd, level, v6 ? IPV6_UNICAST_HOPS : IP_TTL, (int) sockopts->ttl) < 0)
		return -1;
	/* IPV6_PMTUDISC_* have the same values. */
	*step = "set the don't-fragment flag";
	if (sockopts->mtu_discovery >= 0
	    && option_set(fd, level, v6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER, sockopts->mtu_discovery) < 0)
		return -1;
	return 0;
}

int target_socket(const struct socket_options *sockopts, const struct addr *to, const char **what)
{
	int family = to->sa.sa_family, fd, error;
	const char *step = "create a socket";

	fd = socket(family, sockopts->type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		goto fail;
	if (family != AF_UNIX) {
		step = "disable Nagle's algorithm";
		if (sockopts->type == SOCK_STREAM && option_set(fd, IPPROTO_TCP, TCP_NODELAY, 1) < 0)
			goto fail;
		if (packets_configure(fd, family, sockopts, &step) < 0)
			goto fail;
		step = "bind to the interface";
		if (sockopts->interface && interface_bind(fd, sockopts->interface) < 0)
			goto fail;
		/* Choose the port in connect(2): then one port can serve connections to several peers. */
		if (sockopts->source.len != 0)
			option_set(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
		step = "bind to the source address";
		if (sockopts->source.len != 0 && bind(fd, &sockopts->source.sa, sockopts->source.len) < 0)
			goto fail;
	}
	return fd;
fail:
	error = errno;
	if (fd >= 0)
		close(fd);
	if (what)
		*what = step;
	return -error;
}

/* Attempt to connect to one address. */
struct attempt {
	const struct addr *to;
	int fd;           /* -1: not started, or failed */
	uint64_t start;   /* nanoseconds; 0: not started */
	int error;        /* 0: none */
	const char *step; /* operation that failed; NULL: connect(2) */
};

static bool attempt_begin(struct attempt *attempt, const struct socket_options *sockopts)
{
	attempt->step = NULL;
	attempt->start = nsec_now();
	attempt->fd = target_socket(sockopts, attempt->to, &attempt->step);
	if (attempt->fd < 0) {
		attempt->error = -attempt->fd;
		attempt->fd = -1;
		return false;
	}
	if (connect(attempt->fd, &attempt->to->sa, attempt->to->len) == 0)
		return true;
	if (errno == EINPROGRESS)
		return false;
	attempt->error = errno;
	close(attempt->fd);
	attempt->fd = -1;
	return false;
}

/* Called when poll(2) reports an event. Returns whether the connection is established. */
static bool attempt_finish(struct attempt *attempt)
{
	socklen_t length = sizeof attempt->error;

	if (getsockopt(attempt->fd, SOL_SOCKET, SO_ERROR, &attempt->error, &length) < 0)
		attempt->error = errno;
	if (attempt->error == 0)
		return true;
	close(attempt->fd);
	attempt->fd = -1;
	return false;
}

int target_path_mtu(int fd)
{
	int mtu = 0;
	socklen_t length = sizeof mtu;

	if (getsockopt(fd, IPPROTO_IP, IP_MTU, &mtu, &length) == 0
	    || getsockopt(fd, IPPROTO_IPV6, IPV6_MTU, &mtu, &length) == 0)
		return mtu;
	return 0;
}

const char *target_connect_error(int error)
{
	if (error == EADDRNOTAVAIL)
		return "no local port is free: a closed connection keeps its port for a minute; "
		       "sysctl net.ipv4.ip_local_port_range gives more ports, --source another address";
	return strerror(error);
}

/* Write into `why` which addresses were tried and how they failed. */
static void attempts_describe(const struct attempt *attempts, size_t count, const struct target *target,
			      const struct socket_options *sockopts, char *why)
{
	FILE *out = fmemopen(why, TARGET_WHY_MAX - 1, "w");
	const char *transport = sockopts->type == SOCK_DGRAM ? " over UDP" : " over TCP";
	char text[ADDR_TEXT_MAX];
	size_t untried = 0;

	why[0] = why[TARGET_WHY_MAX - 1] = '\0';
	if (!out)
		return;
	fprintf(out, "cannot connect to %s%s", target->name,
		attempts[0].to->sa.sa_family == AF_UNIX ? "" : transport);
	for (size_t i = 0; i < count; i++) {
		const struct attempt *one = &attempts[i];

		if (one->start == 0) {
			untried++;
			continue;
		}
		fputs(i == 0 ? ": " : "; ", out);
		/* Do not repeat a single address that is the name of the target. */
		if (count > 1 || strcmp(addr_print(one->to, text), target->name) != 0)
			fprintf(out, "%s: ", addr_print(one->to, text));
		if (one->step)
			fprintf(out, "cannot %s: %s", one->step, strerror(one->error));
		else if (one->error != 0)
			fputs(target_connect_error(one->error), out);
		else
			fprintf(out, "no answer within %.3g s",
				nsec_to_seconds(sockopts->timeout - (one->start - attempts[0].start)));
	}
	if (untried > 0)
		fprintf(out, "; %zu further address%s not tried within that time", untried,
			untried == 1 ? " was" : "es were");
	fclose(out);
}

/* Wait in connect(2) for `slice`. Returns 0, -EAGAIN if the backlog was full all the time, or another
 * -errno. */
static int unix_wait(int fd, const struct addr *to, uint64_t slice)
{
	struct timeval limit = { .tv_usec = (suseconds_t) (slice / 1000) + 1 }; /* 0 would mean no limit */

	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0)
		return -errno;
	if (connect(fd, &to->sa, to->len) == 0)
		return 0;
	/* Signals are blocked; EINTR comes from the exit of an io_uring of this thread. */
	return errno == EINTR ? -EAGAIN : -errno;
}

/* Whether the caller gave up. See target_connect_unix(). */
static bool connect_cancelled(int cancel)
{
	struct pollfd fd = { .fd = cancel, .events = POLLIN };

	return cancel < 0 ? interrupt_seen() : poll(&fd, 1, 0) > 0;
}

int target_connect_unix(const struct socket_options *sockopts, const struct addr *to, int cancel)
{
	uint64_t now = nsec_now(),
		 limit = sockopts->timeout == NSEC_NEVER ? NSEC_NEVER : now + sockopts->timeout;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r = -EAGAIN;
	struct timeval none = { 0 };

	if (fd < 0)
		return -errno;
	for (; r == -EAGAIN; now = nsec_now()) {
		if (connect_cancelled(cancel))
			r = -ECANCELED;
		else if (now >= limit)
			r = -ETIMEDOUT;
		else
			r = unix_wait(fd, to, limit - now < UNIX_SLICE ? limit - now : UNIX_SLICE);
	}
	if (r == 0
	    && (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none) < 0
		|| fcntl(fd, F_SETFL, O_NONBLOCK) < 0))
		r = -errno;
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

static int connect_unix(const struct target *target, const struct socket_options *sockopts, uint64_t *start,
			char *why)
{
	struct attempt attempt = { .to = &target->addrs[0], .start = nsec_now() };
	int fd = target_connect_unix(sockopts, attempt.to, -1);

	*start = attempt.start;
	if (fd == -ECANCELED)
		return why_set(why, -EINTR, "interrupted while connecting to %s", target->name);
	if (fd < 0) {
		attempt.error = fd == -ETIMEDOUT ? 0 : -fd;
		attempts_describe(&attempt, 1, target, sockopts, why);
	}
	return fd;
}

/* Returns the index of the attempt that succeeded first, `count` if all failed, or -EINTR. */
static ssize_t attempts_run(struct attempt *attempts, struct pollfd *fds, size_t count,
			    const struct socket_options *sockopts)
{
	uint64_t now = nsec_now(), next = now;
	uint64_t limit = sockopts->timeout == NSEC_NEVER ? NSEC_NEVER : now + sockopts->timeout;
	size_t begun = 0;

	for (;;) {
		size_t open = 0;
		struct timespec wait;
		int r;

		while (begun < count && (now >= next)) {
			if (attempt_begin(&attempts[begun], sockopts))
				return (ssize_t) begun;
			/* After an immediate failure try the next address without delay. */
			if (attempts[begun].fd >= 0)
				next = now + ATTEMPT_DELAY;
			begun++;
		}
		for (size_t i = 0; i < begun; i++) {
			fds[i] = (struct pollfd) { .fd = attempts[i].fd, .events = POLLOUT };
			open += attempts[i].fd >= 0;
		}
		if ((open == 0 && begun == count) || now >= limit)
			return (ssize_t) count;
		r = ppoll(fds, begun, nsec_timespec(&wait, now, begun < count && next < limit ? next : limit),
			  interrupt_mask());
		if (r < 0 && (errno != EINTR || interrupt_seen()))
			return -EINTR;
		for (size_t i = 0; r > 0 && i < begun; i++) {
			if (fds[i].revents == 0)
				continue;
			if (attempt_finish(&attempts[i]))
				return (ssize_t) i;
			next = 0;
		}
		now = nsec_now();
	}
}

/* Connect to one of the IP addresses. Returns as target_connect(). */
static int connect_ip(const struct target *target, const struct socket_options *sockopts, struct addr *to,
		      uint64_t *start, char *why)
{
	size_t count = target->count;
	struct attempt *attempts = calloc(count, sizeof *attempts);
	struct pollfd *fds = calloc(count, sizeof *fds);
	ssize_t winner;
	int r;

	if (!attempts || !fds) {
		r = why_set(why, -ENOMEM, "out of memory");
		goto done;
	}
	for (size_t i = 0; i < count; i++)
		attempts[i] = (struct attempt) { .to = &target->addrs[i], .fd = -1 };
	winner = attempts_run(attempts, fds, count, sockopts);
	if (winner == -EINTR) {
		r = why_set(why, -EINTR, "interrupted while connecting to %s", target->name);
	} else if (winner == (ssize_t) count) {
		attempts_describe(attempts, count, target, sockopts, why);
		r = attempts[0].error != 0 ? -attempts[0].error : -ETIMEDOUT;
	} else {
		r = attempts[winner].fd;
		*to = *attempts[winner].to;
		*start = attempts[winner].start;
	}
	for (size_t i = 0; i < count; i++)
		if (attempts[i].fd >= 0 && attempts[i].fd != r)
			close(attempts[i].fd);
done:
	free(attempts);
	free(fds);
	return r;
}

int target_connect(const struct target *target, const struct socket_options *sockopts,
		   struct target_choice *choice, char why[static TARGET_WHY_MAX])
{
	uint64_t start = 0;
	int fd;

	choice->addr = target->addrs[0];
	if (choice->addr.sa.sa_family == AF_UNIX)
		fd = connect_unix(target, sockopts, &start, why);
	else
		fd = connect_ip(target, sockopts, &choice->addr, &start, why);
	choice->connect_time = nsec_now() - start;
	return fd;
}
