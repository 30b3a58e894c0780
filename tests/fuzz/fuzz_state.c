/* SPDX-License-Identifier: ISC */
/* fuzz_state.c - connections decoded from messages with any contents
 *
 * The input is tried as it is, and once more with a valid frame (magic, version, size, check), so that
 * the other fields are decoded, too. The values of an accepted message must be within bounds and, encoded
 * again, give the same message. Longer messages of a later version are accepted, too.
 */
#include <config.h>

#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "echo/state.h"

#define NOW (INT64_C(1) << 50)

static uint32_t message_check(const uint8_t *message, size_t size)
{
	size_t check = offsetof(struct state, check);
	uint32_t sum = UINT32_C(2166136261);

	for (size_t i = 0; i < size; i++)
		if (i < check || i >= check + sizeof(uint32_t))
			sum = (sum ^ message[i]) * UINT32_C(16777619);
	return sum;
}

static void claim_same(const uint8_t *message, const struct conn *conn, const struct peer *peer,
                       const struct proxied *proxied, int64_t active, uint32_t owed)
{
	struct conn owing = *conn;
	struct state again;

	owing.owed = owed;
	state_encode(&again, &owing, peer, proxied, active,
	             state_is_unadmitted(message) ? STATE_UNADMITTED : 0);
	FUZZ_CLAIM(memcmp(&again, message, sizeof again) == 0);
}

static int try_message(const uint8_t *message, size_t size)
{
	struct conn conn, untouched;
	struct proxied proxied;
	struct peer peer;
	int64_t active;
	uint32_t owed;
	int r;

	memset(&conn, 0xee, sizeof conn);
	untouched = conn;
	r = state_decode(message, size, NOW, &conn, &peer, &proxied, &active, &owed);
	if (r < 0) {
		FUZZ_CLAIM(r == -EINVAL || r == -ENOTSUP);
		FUZZ_CLAIM(memcmp(&conn, &untouched, sizeof conn) == 0);
		return r;
	}
	FUZZ_CLAIM(r == 0 && size >= STATE_SIZE_MIN && size <= STATE_SIZE_MAX);
	FUZZ_CLAIM(state_size(message, size) == (int) size);
	FUZZ_CLAIM(owed <= STATE_OWED_MAX);
	FUZZ_CLAIM(conn.since >= 0 && conn.since <= active && active <= NOW);
	FUZZ_CLAIM(!conn.memory && conn_owed_total(&conn) == 0 && conn.reason == CONN_OPEN);
	if (size == sizeof(struct state))
		claim_same(message, &conn, &peer, &proxied, active, owed);
	conn_clear(&conn);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t framed_size = size < STATE_SIZE_MIN ? STATE_SIZE_MIN
	                   : size > STATE_SIZE_MAX ? STATE_SIZE_MAX
	                                           : size;
	_Alignas(struct state) uint8_t framed[STATE_SIZE_MAX] = { 0 };
	uint8_t *copy = calloc(1, size ? size : 1);
	struct state *state = (struct state *) (void *) framed;

	if (!copy)
		abort();
	if (size > 0)
		memcpy(copy, data, size);
	try_message(copy, size); /* a copy of this size, so that a sanitizer detects reads beyond its end */
	free(copy);

	if (size > 0)
		memcpy(framed, data, size < framed_size ? size : framed_size);
	state->magic = STATE_MAGIC;
	state->version = STATE_VERSION;
	state->size = (uint16_t) framed_size;
	state->check = message_check(framed, framed_size);
	if (!(state->flags & ~(STATE_EOF | STATE_UNADMITTED | STATE_HEADER)))
		FUZZ_CLAIM(try_message(framed, framed_size) != -ENOTSUP);
	else
		FUZZ_CLAIM(try_message(framed, framed_size) == -ENOTSUP);
	return 0;
}
