/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "net/proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

/* --- version 1: a line ----------------------------------------------------------------- */

static const char v1_start[] = "PROXY ";

/* Take the next field of a line, which ends at a space or at the end of the line. Returns its length, 0 if
 * there is none. */
static size_t field_take(const char **at, const char *end, char field[static INET6_ADDRSTRLEN])
{
	const char *start = *at, *space = memchr(start, ' ', (size_t) (end - start));
	size_t length = (size_t) ((space ? space : end) - start);

	if (length == 0 || length >= INET6_ADDRSTRLEN || memchr(start, '\0', length))
		return 0;
	memcpy(field, start, length);
	field[length] = '\0';
	*at = space ? space + 1 : end;
	return length;
}

/* Read a port: decimal digits without leading zeros, 0 to 65535. Returns -1 where it is none. */
static int32_t port_parse(const char *text)
{
	int32_t port = 0;

	if (text[0] == '0' && text[1] != '\0')
		return -1;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -1;
		port = port * 10 + (*text - '0');
		if (port > UINT16_MAX)
			return -1;
	}
	return port;
}

static int addresses_parse(const char *at, const char *end, int family, struct peer *peer)
{
	char source[INET6_ADDRSTRLEN], field[INET6_ADDRSTRLEN];
	struct addr addr = { .len = family == AF_INET ? sizeof addr.in : sizeof addr.in6 };
	void *to = family == AF_INET ? (void *) &addr.in.sin_addr : (void *) &addr.in6.sin6_addr;
	struct in6_addr destination;
	int32_t port;

	if (field_take(&at, end, source) == 0 || inet_pton(family, source, to) != 1)
		return -EBADMSG;
	if (field_take(&at, end, field) == 0 || inet_pton(family, field, &destination) != 1)
		return -EBADMSG;
	if (field_take(&at, end, field) == 0 || (port = port_parse(field)) < 0)
		return -EBADMSG;
	if (field_take(&at, end, field) == 0 || port_parse(field) < 0 || at != end || end[-1] == ' ')
		return -EBADMSG;
	addr.sa.sa_family = (sa_family_t) family;
	if (family == AF_INET)
		addr.in.sin_port = htons((uint16_t) port);
	else
		addr.in6.sin6_port = htons((uint16_t) port);
	peer_from_addr(peer, &addr);
	return 1;
}

static int v1_parse(const char *line, size_t size, struct proxy_header *header)
{
	size_t compare = size < sizeof v1_start - 1 ? size : sizeof v1_start - 1;
	const char *end, *at = line + sizeof v1_start - 1;

	if (memcmp(line, v1_start, compare) != 0)
		return -EBADMSG;
	end = memchr(line, '\n', size < PROXY_NEEDED_MAX ? size : PROXY_NEEDED_MAX);
	if (!end)
		return size < PROXY_NEEDED_MAX ? 0 : -EBADMSG;
	header->length = (size_t) (end - line) + 1;
	if (end[-1] != '\r')
		return -EBADMSG;
	end--;
	if (end - at >= 7 && memcmp(at, "UNKNOWN", 7) == 0 && (at + 7 == end || at[7] == ' '))
		return 1; /* the rest of the line is to be ignored */
	if (end - at < 5 || (memcmp(at, "TCP4 ", 5) != 0 && memcmp(at, "TCP6 ", 5) != 0))
		return -EBADMSG;
	header->names_peer = true;
	return addresses_parse(at + 5, end, at[3] == '4' ? AF_INET : AF_INET6, &header->peer);
}

/* --- version 2: binary ----------------------------------------------------------------- */

static const uint8_t v2_signature[12] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
	                                  0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a };

enum { V2_FIXED = 16, V2_ADDRESSES_IN = 12, V2_ADDRESSES_IN6 = 36, V2_ADDRESSES_UNIX = 216 };
enum { V2_LOCAL = 0x20, V2_PROXY = 0x21 };
enum { V2_UNSPEC, V2_INET, V2_INET6, V2_UNIX };
enum { V2_STREAM = 1, V2_PROTOCOL_MAX = 2 };

static void v2_peer(const uint8_t *addresses, unsigned family, struct peer *peer)
{
	struct addr addr = { .len = sizeof addr.in6 };

	if (family == V2_INET) {
		addr.in.sin_family = AF_INET;
		memcpy(&addr.in.sin_addr, addresses, 4);
		memcpy(&addr.in.sin_port, addresses + 8, 2);
		addr.len = sizeof addr.in;
	} else {
		addr.in6.sin6_family = AF_INET6;
		memcpy(&addr.in6.sin6_addr, addresses, 16);
		memcpy(&addr.in6.sin6_port, addresses + 32, 2);
	}
	peer_from_addr(peer, &addr);
}

static int v2_parse(const uint8_t *data, size_t size, struct proxy_header *header)
{
	static const size_t needed[] = { 0, V2_ADDRESSES_IN, V2_ADDRESSES_IN6, V2_ADDRESSES_UNIX };
	size_t compare = size < sizeof v2_signature ? size : sizeof v2_signature, length;
	unsigned family, protocol;

	if (memcmp(data, v2_signature, compare) != 0)
		return -EBADMSG;
	if (size > 12 && data[12] != V2_LOCAL && data[12] != V2_PROXY)
		return -EBADMSG;
	if (size < V2_FIXED)
		return 0;
	length = (size_t) data[14] << 8 | data[15];
	header->length = V2_FIXED + length;
	if (data[12] == V2_LOCAL)
		return 1; /* family, protocol and addresses are to be ignored */
	family = data[13] >> 4;
	protocol = data[13] & 0x0f;
	if (family > V2_UNIX || protocol > V2_PROTOCOL_MAX || length < needed[family])
		return -EBADMSG;
	if (protocol != V2_STREAM || family == V2_UNSPEC || family == V2_UNIX)
		return 1;
	if (size < V2_FIXED + needed[family])
		return 0;
	header->names_peer = true;
	v2_peer(data + V2_FIXED, family, &header->peer);
	return 1;
}

int proxy_parse(const uint8_t *data, size_t size, struct proxy_header *header)
{
	memset(header, 0, sizeof *header);
	if (size == 0)
		return 0;
	return data[0] == v2_signature[0] ? v2_parse(data, size, header)
	                                  : v1_parse((const char *) data, size, header);
}
