/* SPDX-License-Identifier: ISC */
/* addr.h - socket addresses: parse, print, compare
 *
 * A struct addr holds one IPv4, IPv6 or unix address as the socket calls take it. The functions may be called
 * from any thread, allocate nothing and keep no reference to their arguments.
 */
#ifndef ECHOD_NET_ADDR_H
#define ECHOD_NET_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <linux/vm_sockets.h>

/* Size of the longest text of addr_print(), including NUL: "unix:" and a path. */
#define ADDR_TEXT_MAX (sizeof(((struct sockaddr_un *) 0)->sun_path) + 8)

struct addr {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
		struct sockaddr_vm vm; /* only of sockets that the service manager passes */
	};
	socklen_t len;
};

/* Read "192.0.2.1", "192.0.2.1:7007", "2001:db8::7", "fe80::1%eth0", "[::1]:7007", "unix:/absolute/path" or
 * "unix:@name" (abstract, unix(7)) from `text`. `port` is used where the text has none. Ports are decimal, 1
 * to 65535, without leading zeros; host names are not looked up. Returns 0; -ENODEV where the interface after
 * "%" does not exist, with all of `*addr` set but the scope; or -EINVAL. On failure `*why` is a constant
 * sentence that says what would be right. */
int addr_parse(struct addr *addr, const char *text, uint16_t port, const char **why);

/* Write `addr` in the form that addr_parse() reads, always with the port: "192.0.2.1:7", "[::1]:7",
 * "unix:/path", "unix:@name" ("unix:" for an unnamed peer; NUL bytes of an abstract name print as "@"). A
 * vsock address, which addr_parse() does not read, prints as "vsock:CID:PORT", an IPv4-mapped IPv6 address as
 * IPv4. `text` must have ADDR_TEXT_MAX bytes. Returns `text`. */
char *addr_print(const struct addr *addr, char text[static ADDR_TEXT_MAX]);

/* Look up names of interfaces with ioctl(2) on the socket `fd`, of any kind, instead of making a socket each
 * time: for processes that must not make sockets. Call it once, before threads are created. */
void addr_use_socket(int fd);

/* Turn an IPv4-mapped IPv6 address (::ffff:192.0.2.1) into the IPv4 address. */
void addr_unmap(struct addr *addr);

/* Whether it is an abstract unix address (unix(7)), which has no file. */
bool addr_is_abstract(const struct addr *addr);

/* Whether both are the same address and port (or path). */
bool addr_equal(const struct addr *a, const struct addr *b);

/* The port in host order; 0 for a unix address. */
uint16_t addr_port(const struct addr *addr);

#endif
