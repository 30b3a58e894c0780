/* SPDX-License-Identifier: ISC */
/* peer.h - the far end of a connection in 24 bytes
 *
 * What a struct addr says of an IPv4 or IPv6 peer, without the room a unix path needs, since
 * every open connection carries one. Pure; any thread.
 */
#ifndef ECHOD_NET_PEER_H
#define ECHOD_NET_PEER_H

#include <stdint.h>

#include "net/addr.h"

struct peer {
	uint8_t address[16]; /* IPv4 in the first four bytes, network byte order */
	uint32_t scope;      /* IPv6 scope identifier */
	uint16_t port;       /* host byte order */
	uint16_t family;     /* AF_INET, AF_INET6, AF_UNIX (which has no more to tell) */
};

/* Take what accept4(2) reported; an IPv4-mapped address becomes IPv4. */
void peer_from_addr(struct peer *peer, const struct addr *addr);

/* The socket address it stands for. */
void peer_to_addr(const struct peer *peer, struct addr *addr);

#endif
