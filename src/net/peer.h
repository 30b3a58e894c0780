/* SPDX-License-Identifier: ISC */
/* peer.h - the address of a peer in 24 bytes
 *
 * Smaller than a struct addr, which has space for a unix path, because every open connection has one. Pure;
 * any thread.
 */
#ifndef ECHOD_NET_PEER_H
#define ECHOD_NET_PEER_H

#include <stdint.h>

#include "net/addr.h"

struct peer {
	uint8_t address[16]; /* IPv4 in the first four bytes, network byte order */
	uint32_t scope;      /* IPv6 scope identifier */
	uint16_t port;       /* host byte order */
	uint16_t family;     /* AF_INET, AF_INET6, AF_UNIX without further data, or AF_VSOCK with the context
	                      * identifier in `address` and the port in `scope` */
};

/* Convert the address from accept4(2); an IPv4-mapped address becomes IPv4. */
void peer_from_addr(struct peer *peer, const struct addr *addr);

/* Convert to a socket address. */
void peer_to_addr(const struct peer *peer, struct addr *addr);

#endif
