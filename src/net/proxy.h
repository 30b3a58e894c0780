/* SPDX-License-Identifier: ISC */
/* proxy.h - the header that a proxy sends first, which names the client: PROXY protocol, versions 1 and 2
 *
 * As in "The PROXY protocol" of HAProxy (proxy-protocol.txt). Pure; any thread; no allocation.
 */
#ifndef ECHOD_NET_PROXY_H
#define ECHOD_NET_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/peer.h"

/* Bytes after which proxy_parse() always has an answer: the longest header of version 1, with CR and LF. */
#define PROXY_NEEDED_MAX 107

struct proxy_header {
	size_t length;   /* bytes of the whole header; more than were parsed where a header of version 2 has
	                    extensions (TLVs) */
	bool names_peer; /* `peer` is set; otherwise the proxy itself is the peer (LOCAL, UNKNOWN, an address
	                    family other than IP) */
	struct peer peer;
};

/* A connection through a proxy. All zeros: there is no proxy. */
struct proxied {
	struct peer proxy;    /* the proxy; its family is 0 where there is none */
	uint32_t header_left; /* bytes of the header that are still to come and are ignored: extensions (TLVs)
	                       */
};

/* Read the header at the start of `data`, of which `size` bytes have arrived so far. Returns 1 with `*header`
 * set, once its addresses have arrived; 0: more bytes are needed; -EBADMSG: it is no header of either
 * version. Decides as early as possible. */
int proxy_parse(const uint8_t *data, size_t size, struct proxy_header *header);

#endif
