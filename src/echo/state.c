/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "echo/state.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define CHECK_END (offsetof(struct state, check) + sizeof(uint32_t))

/* FNV-1a */
static uint32_t sum_add(uint32_t sum, const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		sum = (sum ^ bytes[i]) * UINT32_C(16777619);
	return sum;
}

/* The checksum of a record of `size` bytes. */
static uint32_t state_check(const void *record, size_t size)
{
	const uint8_t *bytes = record;
	uint32_t sum = sum_add(UINT32_C(2166136261), bytes, offsetof(struct state, check));

	return sum_add(sum, bytes + CHECK_END, size - CHECK_END);
}

void state_encode(struct state *state, const struct conn *conn, const struct peer *peer,
                  const struct proxied *proxied, int64_t active, uint32_t flags)
{
	memset(state, 0, sizeof *state);
	state->magic = STATE_MAGIC;
	state->version = STATE_VERSION;
	state->size = sizeof *state;
	state->flags = flags | (conn->eof ? STATE_EOF : 0) | (conn->header ? STATE_HEADER : 0);
	state->owed = (uint32_t) conn_owed_total(conn);
	state->echoed = conn->echoed;
	state->since = conn->since;
	/* drivers round activity down to ticks */
	state->active = active < conn->since ? conn->since : active;
	memcpy(state->address, peer->address, sizeof state->address);
	state->scope = peer->scope;
	state->port = peer->port;
	state->family = peer->family;
	memcpy(state->proxy_address, proxied->proxy.address, sizeof state->proxy_address);
	state->proxy_scope = proxied->proxy.scope;
	state->proxy_port = proxied->proxy.port;
	state->proxy_family = proxied->proxy.family;
	state->header_left = proxied->header_left;
	state->check = state_check(state, sizeof *state);
}

static int state_validate(const struct state *state, int64_t now)
{
	if (state->flags & ~(STATE_EOF | STATE_UNADMITTED | STATE_HEADER))
		return -ENOTSUP;
	if (state->reserved != 0 || state->reserved_too != 0 || state->owed > STATE_OWED_MAX)
		return -EINVAL;
	if (state->family != AF_INET && state->family != AF_INET6 && state->family != AF_UNIX &&
	    state->family != AF_VSOCK)
		return -EINVAL;
	if (state->proxy_family != 0 && state->proxy_family != AF_INET && state->proxy_family != AF_INET6)
		return -EINVAL;
	if (state->header_left > UINT16_MAX || (state->flags & STATE_HEADER && state->proxy_family == 0))
		return -EINVAL;
	if (state->since < 0 || state->since > now || state->active < state->since || state->active > now)
		return -EINVAL;
	return 0;
}

int state_size(const void *bytes, size_t size)
{
	struct state state;

	if (size < STATE_SIZE_MIN)
		return -EINVAL;
	memcpy(&state, bytes, STATE_SIZE_MIN);
	if (state.magic != STATE_MAGIC)
		return -EINVAL;
	if (state.version != STATE_VERSION)
		return -ENOTSUP;
	if (state.size < STATE_SIZE_MIN || state.size > STATE_SIZE_MAX || state.size > size)
		return -EINVAL;
	return state.size;
}

bool state_is_unadmitted(const void *bytes)
{
	struct state state;

	memcpy(&state, bytes, STATE_SIZE_MIN);
	return state.flags & STATE_UNADMITTED;
}

int state_decode(const void *bytes, size_t size, int64_t now, struct conn *conn, struct peer *peer,
                 struct proxied *proxied, int64_t *active, uint32_t *owed)
{
	struct state state = { 0 };
	int r = state_size(bytes, size);

	if (r < 0)
		return r;
	memcpy(&state, bytes, size < sizeof state ? size : sizeof state);
	if ((size_t) r != size || state.check != state_check(bytes, size))
		return -EINVAL;
	r = state_validate(&state, now);
	if (r < 0)
		return r;
	conn_init(conn, state.since);
	conn->eof = state.flags & STATE_EOF;
	conn->header = state.flags & STATE_HEADER;
	conn->echoed = state.echoed;
	memcpy(peer->address, state.address, sizeof peer->address);
	peer->scope = state.scope;
	peer->port = state.port;
	peer->family = state.family;
	memcpy(proxied->proxy.address, state.proxy_address, sizeof proxied->proxy.address);
	proxied->proxy.scope = state.proxy_scope;
	proxied->proxy.port = state.proxy_port;
	proxied->proxy.family = state.proxy_family;
	proxied->header_left = state.header_left;
	*active = state.active;
	*owed = state.owed;
	return 0;
}
