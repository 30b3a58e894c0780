#include <config.h>

#include "echo/state.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* FNV-1a: it tells damage and foreign data, not malice. */
static uint32_t state_check(const struct state *state)
{
	const uint8_t *p = (const uint8_t *) state;
	uint32_t sum = UINT32_C(2166136261);

	for (size_t i = 0; i < offsetof(struct state, check); i++)
		sum = (sum ^ p[i]) * UINT32_C(16777619);
	return sum;
}

void state_encode(struct state *state, const struct conn *conn, const struct peer *peer, int64_t active)
{
	memset(state, 0, sizeof *state);
	state->magic = STATE_MAGIC;
	state->version = STATE_VERSION;
	state->size = sizeof *state;
	state->flags = conn->eof ? STATE_EOF : 0;
	state->owed = (uint32_t) conn_owed_total(conn);
	state->echoed = conn->echoed;
	state->since = conn->since;
	/* drivers count activity in ticks rounded down */
	state->active = active < conn->since ? conn->since : active;
	memcpy(state->address, peer->address, sizeof state->address);
	state->scope = peer->scope;
	state->port = peer->port;
	state->family = peer->family;
	state->check = state_check(state);
}

static int state_validate(const struct state *state, int64_t now)
{
	if (state->flags & ~STATE_EOF || state->reserved != 0 || state->owed > CONN_LIMIT_MAX)
		return -EINVAL;
	if (state->family != AF_INET && state->family != AF_INET6 && state->family != AF_UNIX)
		return -EINVAL;
	if (state->since < 0 || state->since > now || state->active < state->since || state->active > now)
		return -EINVAL;
	return 0;
}

int state_decode(const void *message, size_t size, int64_t now, struct conn *conn, struct peer *peer,
                 int64_t *active, uint32_t *owed)
{
	struct state state;
	int r;

	if (size < offsetof(struct state, flags))
		return -EINVAL;
	memset(&state, 0, sizeof state);
	memcpy(&state, message, size < sizeof state ? size : sizeof state);
	if (state.magic != STATE_MAGIC)
		return -EINVAL;
	if (state.version != STATE_VERSION)
		return -ENOTSUP;
	if (size != sizeof state || state.size != sizeof state || state.check != state_check(&state))
		return -EINVAL;
	r = state_validate(&state, now);
	if (r < 0)
		return r;
	conn_init(conn, state.since);
	conn->eof = state.flags & STATE_EOF;
	conn->echoed = state.echoed;
	memcpy(peer->address, state.address, sizeof peer->address);
	peer->scope = state.scope;
	peer->port = state.port;
	peer->family = state.family;
	*active = state.active;
	*owed = state.owed;
	return 0;
}
