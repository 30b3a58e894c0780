/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "net/peer.h"

#include <arpa/inet.h>
#include <string.h>

void peer_from_addr(struct peer *peer, const struct addr *addr)
{
	struct addr plain = *addr;

	addr_unmap(&plain);
	memset(peer, 0, sizeof *peer);
	peer->family = plain.len == 0 ? AF_UNIX : plain.sa.sa_family;
	switch (peer->family) {
	case AF_INET:
		memcpy(peer->address, &plain.in.sin_addr, 4);
		peer->port = ntohs(plain.in.sin_port);
		break;
	case AF_INET6:
		memcpy(peer->address, &plain.in6.sin6_addr, 16);
		peer->port = ntohs(plain.in6.sin6_port);
		peer->scope = plain.in6.sin6_scope_id;
		break;
	case AF_VSOCK:
		memcpy(peer->address, &plain.vm.svm_cid, sizeof plain.vm.svm_cid);
		peer->scope = plain.vm.svm_port; /* 32 bits */
		break;
	default:
		peer->family = AF_UNIX;
	}
}

void peer_to_addr(const struct peer *peer, struct addr *addr)
{
	memset(addr, 0, sizeof *addr);
	addr->sa.sa_family = peer->family;
	switch (peer->family) {
	case AF_INET:
		memcpy(&addr->in.sin_addr, peer->address, 4);
		addr->in.sin_port = htons(peer->port);
		addr->len = sizeof addr->in;
		break;
	case AF_INET6:
		memcpy(&addr->in6.sin6_addr, peer->address, 16);
		addr->in6.sin6_port = htons(peer->port);
		addr->in6.sin6_scope_id = peer->scope;
		addr->len = sizeof addr->in6;
		break;
	case AF_VSOCK:
		memcpy(&addr->vm.svm_cid, peer->address, sizeof addr->vm.svm_cid);
		addr->vm.svm_port = peer->scope;
		addr->len = sizeof addr->vm;
		break;
	default:
		addr->len = sizeof addr->un.sun_family;
	}
}
