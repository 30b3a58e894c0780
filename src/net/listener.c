/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_addr.h>
#include <linux/securebits.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/sockopt.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262 /* glibc before 2.32 */
#endif

static int set_flag(int fd, int level, int option)
{
	return sockopt_set(fd, level, option, 1);
}

/* Receive buffer of a datagram socket where privileges allow more than net.core.rmem_max, in bytes: 20,000
 * short datagrams, or about 30 ms of a fast sender. */
#define RECEIVE_BUFFER (8 << 20)

static int receive_buffer(int fd)
{
	int size = 0;
	socklen_t length = sizeof size;

	return getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, &length) < 0 ? 0 : size;
}

/* Make the receive buffer of a datagram socket as large as the host allows, never smaller than before.
 * getsockopt(2) returns twice the size that was set: socket(7). */
static void grow_receive_buffer(int fd)
{
	int probe = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), present = receive_buffer(fd), allowed;

	if (probe < 0)
		return;
	/* the kernel reduces this to net.core.rmem_max, which cannot be read in other network namespaces */
	(void) sockopt_set(probe, SOL_SOCKET, SO_RCVBUF, INT_MAX / 2);
	allowed = receive_buffer(probe);
	close(probe);
	if (allowed > present)
		(void) sockopt_set(fd, SOL_SOCKET, SO_RCVBUF, INT_MAX / 2);
	/* needs CAP_NET_ADMIN */
	if (receive_buffer(fd) < 2 * RECEIVE_BUFFER)
		(void) sockopt_set(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER);
}

static uint32_t kernel_dropped(int fd)
{
	uint32_t memory[SK_MEMINFO_VARS] = { 0 };
	socklen_t size = sizeof memory;

	(void) getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size);
	return memory[SK_MEMINFO_DROPS];
}

uint32_t listener_count_dropped(struct listener *listener)
{
	uint32_t before = listener->dropped;

	if (listener->kind != LISTENER_DATAGRAM)
		return 0;
	listener->dropped = kernel_dropped(listener->fd);
	return listener->dropped - before;
}

/* Set the options of own and adopted sockets. Errors of optional ones are ignored: a unix socket has no
 * TCP_NODELAY, an IPv4 socket no IPV6_RECVPKTINFO. */
static void set_options(const struct listener *listener)
{
	int fd = listener->fd, family = listener->addr.sa.sa_family;

	if (listener->kind == LISTENER_STREAM)
		sockopt_prepare(fd);
	if (family == AF_UNIX)
		return;
	if (listener->kind == LISTENER_STREAM) {
		(void) set_flag(fd, IPPROTO_TCP, TCP_NODELAY);
		return;
	}
	(void) set_flag(fd, IPPROTO_IP, IP_PKTINFO);
	if (family == AF_INET6)
		(void) set_flag(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO);
	grow_receive_buffer(fd);
}

/* Remove the socket file if no process listens on it. */
static int unix_remove_stale(const struct addr *addr, int type)
{
	struct stat st;
	int fd, r;

	if (addr_is_abstract(addr))
		return 0;
	if (lstat(addr->un.sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	r = connect(fd, &addr->sa, addr->len) < 0 ? -errno : 0;
	close(fd);
	if (r != -ECONNREFUSED)
		return r == 0 || r == -EAGAIN || r == -EPROTOTYPE ? -EADDRINUSE : r;
	return unlink(addr->un.sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

int listener_share_port(const struct listener *listener)
{
	return sockopt_set(listener->fd, SOL_SOCKET, SO_REUSEPORT, 1);
}

int listener_unshare_port(const struct listener *listener)
{
	return sockopt_set(listener->fd, SOL_SOCKET, SO_REUSEPORT, 0);
}

void listener_take_clients(const struct listener *listener, const struct listener *other)
{
	/* socket(7), SO_ATTACH_REUSEPORT_CBPF: the index of the socket in the group, in the order of
	 * listen(2). It cannot be set on a socket of Multipath TCP, but is that of the whole group. */
	static struct sock_filter code[] = { BPF_STMT(BPF_RET | BPF_K, 1) };
	const struct sock_fprog program = { .len = 1, .filter = code };

	(void) listener_share_port(listener);
	(void) listener_share_port(other);
	(void) setsockopt(listener->mptcp ? other->fd : listener->fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF,
	                  &program, sizeof program);
}

/* Whether the host has the IPv6 address, but has not finished duplicate address detection: RFC 4862,
 * proc_net_if_inet6(5). */
static bool is_tentative(const struct addr *addr)
{
	char line[128], hex[33], file_hex[33];
	unsigned index, flags;
	bool found = false;
	FILE *file;

	if (addr->sa.sa_family != AF_INET6)
		return false;
	file = fopen("/proc/self/net/if_inet6", "re");
	if (!file)
		return false;
	for (int i = 0; i < 16; i++)
		snprintf(hex + 2 * i, 3, "%02x", addr->in6.sin6_addr.s6_addr[i]);
	while (!found && fgets(line, sizeof line, file))
		found = sscanf(line, "%32s %x %*x %*x %x", file_hex, &index, &flags) == 3 &&
		        strcmp(hex, file_hex) == 0 &&
		        (addr->in6.sin6_scope_id == 0 || addr->in6.sin6_scope_id == index) &&
		        (flags & IFA_F_TENTATIVE);
	fclose(file);
	return found;
}

/* Bits of a mode that umask(2) and `unix-mode` have. */
#define ACCESS_BITS 0777U

/* bind(2), with IP_FREEBIND where it is needed and permitted. */
static int bind_internet(struct listener *listener, const struct listener_options *options)
{
	const struct addr *addr = &listener->addr;
	int level = addr->sa.sa_family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;
	int option = addr->sa.sa_family == AF_INET6 ? IPV6_FREEBIND : IP_FREEBIND, r;

	if (bind(listener->fd, &addr->sa, addr->len) == 0)
		return 0;
	if (errno != EADDRNOTAVAIL)
		return -errno;
	listener->presence = is_tentative(addr) ? LISTENER_TENTATIVE : LISTENER_ABSENT;
	if (listener->presence == LISTENER_ABSENT && !options->freebind)
		return -EADDRNOTAVAIL;
	r = set_flag(listener->fd, level, option);
	if (r < 0)
		return r;
	return bind(listener->fd, &addr->sa, addr->len) < 0 ? -errno : 0;
}

/* Create the file of a unix socket as its owner. Creating it as root and changing the owner is unsafe: in a
 * directory of another user, that user could replace it in between. The capabilities of root stay, so that
 * the owner needs no write permission in the directory: capabilities(7), "Effect of user ID changes on
 * capabilities". */
static int bind_as(const struct listener *listener, uid_t uid, gid_t gid)
{
	int bits = prctl(PR_GET_SECUREBITS), r = -EPERM;

	(void) prctl(PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP);
	if (gid != (gid_t) -1)
		setfsgid(gid);
	if (uid != (uid_t) -1)
		setfsuid(uid);
	/* these calls do not report errors, but return the previous id */
	if ((gid == (gid_t) -1 || (gid_t) setfsgid((gid_t) -1) == gid) &&
	    (uid == (uid_t) -1 || (uid_t) setfsuid((uid_t) -1) == uid))
		r = bind(listener->fd, &listener->addr.sa, listener->addr.len) < 0 ? -errno : 0;
	setfsuid(geteuid());
	setfsgid(getegid());
	(void) prctl(PR_SET_SECUREBITS, bits);
	return r;
}

/* Set mode and group of the file behind `file`, opened with O_PATH, where they differ. chmod(2) by way of
 * /proc, since fchmod(2) refuses such a descriptor. */
static int set_file(int file, mode_t mode, gid_t gid)
{
	char path[sizeof "/proc/self/fd/" + 10];
	struct stat st;

	if (fstat(file, &st) < 0)
		return -errno;
	if (gid != (gid_t) -1 && st.st_gid != gid && fchownat(file, "", (uid_t) -1, gid, AT_EMPTY_PATH) < 0)
		return -errno;
	if ((st.st_mode & ACCESS_BITS) == mode)
		return 0;
	snprintf(path, sizeof path, "/proc/self/fd/%d", file);
	return chmod(path, mode) < 0 ? -errno : 0;
}

int listener_set_file(const struct listener *listener, mode_t mode, gid_t gid)
{
	int file, r = -ENOENT;
	struct stat st;

	if (listener->addr.sa.sa_family != AF_UNIX || listener->adopted || listener->inode == 0)
		return 0;
	/* another process may have replaced it; nothing of another user's is changed */
	file = open(listener->addr.un.sun_path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (file < 0)
		return -errno;
	if (fstat(file, &st) == 0 && st.st_dev == listener->device && st.st_ino == listener->inode)
		r = set_file(file, mode, gid);
	close(file);
	return r;
}

/* The file has its mode and group from the start, unless its directory says otherwise (set-group-ID, a
 * default ACL); then they are changed before the socket listens: until then connect(2) is refused. */
static int bind_unix(struct listener *listener, const struct listener_options *options)
{
	const struct addr *addr = &listener->addr;
	int r = unix_remove_stale(addr, listener->kind == LISTENER_STREAM ? SOCK_STREAM : SOCK_DGRAM);
	mode_t mask;

	if (r < 0)
		return r;
	/* the supervisor, which binds, has one thread */
	mask = umask(ACCESS_BITS & ~options->mode);
	r = bind_as(listener, options->uid, geteuid() == 0 ? options->gid : (gid_t) -1);
	umask(mask);
	if (r < 0 || addr_is_abstract(addr))
		return r;
	listener_note_file(listener);
	r = listener_set_file(listener, options->mode, options->group_named ? options->gid : (gid_t) -1);
	listener->group_refused = r == -EPERM;
	if (r < 0)
		(void) unlink(addr->un.sun_path);
	return r;
}

void listener_set_buffers(const struct listener *listener, unsigned bytes)
{
	if (listener->kind == LISTENER_STREAM)
		sockopt_set_buffers(listener->fd, bytes, -1);
}

void listener_set_keepalive(const struct listener *listener, unsigned seconds)
{
	if (listener->kind == LISTENER_STREAM && listener->addr.sa.sa_family != AF_UNIX)
		sockopt_set_keepalive(listener->fd, seconds);
}

static int bind_and_listen(struct listener *listener, const struct listener_options *options)
{
	int family = listener->addr.sa.sa_family, r = 0;

	if (family == AF_INET6)
		r = set_flag(listener->fd, IPPROTO_IPV6, IPV6_V6ONLY);
	if (r == 0 && listener->kind == LISTENER_STREAM && family != AF_UNIX)
		r = set_flag(listener->fd, SOL_SOCKET, SO_REUSEADDR);
	if (r == 0 && options->shared)
		r = listener_share_port(listener);
	if (r == 0)
		r = family == AF_UNIX ? bind_unix(listener, options) : bind_internet(listener, options);
	if (r < 0)
		return r;
	if (listener->kind == LISTENER_STREAM && listen(listener->fd, options->backlog) < 0)
		return -errno;
	return options->shared ? listener_unshare_port(listener) : 0;
}

int listener_open(struct listener *listener, enum listener_kind kind, const struct addr *addr,
                  const struct listener_options *options)
{
	int type = kind == LISTENER_STREAM ? SOCK_STREAM | SOCK_NONBLOCK : SOCK_DGRAM, r;

	*listener = (struct listener) { .fd = -1, .kind = kind, .addr = *addr };
	listener->mptcp = options->mptcp && kind == LISTENER_STREAM && addr->sa.sa_family != AF_UNIX;
	listener->blocking = kind == LISTENER_DATAGRAM;
	listener->fd = socket(addr->sa.sa_family, type | SOCK_CLOEXEC, listener->mptcp ? IPPROTO_MPTCP : 0);
	if (listener->fd < 0)
		return -errno;
	set_options(listener);
	listener_set_keepalive(listener, options->keepalive);
	if (options->buffer > 0)
		listener_set_buffers(listener, options->buffer);
	r = bind_and_listen(listener, options);
	if (r < 0) {
		close(listener->fd);
		listener->fd = -1;
		return r;
	}
	listener_note_file(listener);
	return 0;
}

int listener_adopt(struct listener *listener, int fd, const char *name)
{
	int type, listens = 0, flags, protocol = 0;
	socklen_t size = sizeof type;

	*listener = (struct listener) { .fd = fd, .adopted = true };
	snprintf(listener->name, sizeof listener->name, "%s", name);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
		return -errno;
	listener->addr.len = sizeof listener->addr.un;
	if (getsockname(fd, &listener->addr.sa, &listener->addr.len) < 0)
		return -errno;
	size = sizeof protocol;
	listener->mptcp =
		getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 && protocol == IPPROTO_MPTCP;
	size = sizeof listens;
	switch (type) {
	case SOCK_STREAM:
		listener->kind = LISTENER_STREAM;
		if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0)
			return -errno;
		if (!listens)
			return -EINVAL;
		break;
	case SOCK_DGRAM:
		listener->kind = LISTENER_DATAGRAM;
		break;
	default:
		return -EINVAL;
	}
	listener->dropped = kernel_dropped(fd);
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
	    (listener->kind == LISTENER_STREAM && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0))
		return -errno;
	listener->blocking = listener->kind == LISTENER_DATAGRAM && !(flags & O_NONBLOCK);
	set_options(listener);
	return 0;
}

int listener_set_backlog(const struct listener *listener, int backlog)
{
	if (listener->kind != LISTENER_STREAM)
		return 0;
	return listen(listener->fd, backlog) < 0 ? -errno : 0;
}

void listener_shut(const struct listener *listener)
{
	if (!listener->adopted && listener->kind == LISTENER_STREAM)
		shutdown(listener->fd, SHUT_RDWR);
}

/* Whether the file at the path of a unix listener is the one that its bind(2) created. */
static bool has_own_file(const struct listener *listener)
{
	struct stat st;

	return listener->inode != 0 && lstat(listener->addr.un.sun_path, &st) == 0 &&
	       st.st_dev == listener->device && st.st_ino == listener->inode;
}

bool listener_is_reachable(const struct listener *listener)
{
	return listener->addr.sa.sa_family != AF_UNIX || addr_is_abstract(&listener->addr) ||
	       has_own_file(listener);
}

bool listener_is_covered(const struct listener *listener, const struct listener *wildcard)
{
	if (listener->kind != wildcard->kind || listener->addr.sa.sa_family != wildcard->addr.sa.sa_family ||
	    addr_port(&listener->addr) != addr_port(&wildcard->addr))
		return false;
	switch (wildcard->addr.sa.sa_family) {
	case AF_INET:
		return wildcard->addr.in.sin_addr.s_addr == htonl(INADDR_ANY);
	case AF_INET6:
		return IN6_IS_ADDR_UNSPECIFIED(&wildcard->addr.in6.sin6_addr);
	default:
		return false;
	}
}

void listener_refuse_new(struct listener *listener)
{
	/* tcp(7): the filter sees the TCP header. Drop packets with SYN and without ACK. */
	static struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, TH_SYN | TH_ACK),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TH_SYN, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	const struct sock_fprog program = { .len = sizeof code / sizeof code[0], .filter = code };

	if (listener->addr.sa.sa_family != AF_UNIX) {
		(void) setsockopt(listener->fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
	} else if (has_own_file(listener)) {
		unlink(listener->addr.un.sun_path);
		listener->inode = 0;
	}
}

void listener_refuse_abstract(const struct listener *listener)
{
	if (addr_is_abstract(&listener->addr))
		(void) shutdown(listener->fd, SHUT_RD);
}

void listener_note_file(struct listener *listener)
{
	struct stat st;

	if (listener->addr.sa.sa_family != AF_UNIX || addr_is_abstract(&listener->addr) ||
	    lstat(listener->addr.un.sun_path, &st) < 0)
		return;
	listener->device = st.st_dev;
	listener->inode = st.st_ino;
}

void listener_close(struct listener *listener)
{
	if (listener->fd < 0)
		return;
	close(listener->fd);
	listener->fd = -1;
	if (listener->addr.sa.sa_family == AF_UNIX && !listener->adopted && has_own_file(listener))
		unlink(listener->addr.un.sun_path);
}

bool listener_ipv6_available(void)
{
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}
