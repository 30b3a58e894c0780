/* fuzz_state.c - connections read back from messages that may say anything
 *
 * The input is tried as it is, and once more with its frame (magic, version, size, check)
 * put right, so that the fields behind the check are reached. What is accepted must be within
 * bounds and, described again, give the same message.
 */
#include <config.h>

#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "echo/state.h"

#define NOW (INT64_C(1) << 50)

static uint32_t message_check(const uint8_t *message)
{
	uint32_t sum = UINT32_C(2166136261);

	for (size_t i = 0; i < offsetof(struct state, check); i++)
		sum = (sum ^ message[i]) * UINT32_C(16777619);
	return sum;
}

static void claim_same(const uint8_t *message, const struct conn *conn, const struct peer *peer, int64_t active,
                       uint32_t owed)
{
	struct conn owing = *conn;
	struct state again;

	owing.owed = owed;
	state_encode(&again, &owing, peer, active);
	FUZZ_CLAIM(memcmp(&again, message, sizeof again) == 0);
}

static int try_message(const uint8_t *message, size_t size)
{
	struct conn conn, untouched;
	struct peer peer;
	int64_t active;
	uint32_t owed;
	int r;

	memset(&conn, 0xee, sizeof conn);
	untouched = conn;
	r = state_decode(message, size, NOW, &conn, &peer, &active, &owed);
	if (r < 0) {
		FUZZ_CLAIM(r == -EINVAL || r == -ENOTSUP);
		FUZZ_CLAIM(memcmp(&conn, &untouched, sizeof conn) == 0);
		return r;
	}
	FUZZ_CLAIM(r == 0 && size == sizeof(struct state));
	FUZZ_CLAIM(owed <= CONN_LIMIT_MAX);
	FUZZ_CLAIM(conn.since >= 0 && conn.since <= active && active <= NOW);
	FUZZ_CLAIM(!conn.memory && conn_owed_total(&conn) == 0 && conn.reason == CONN_OPEN);
	claim_same(message, &conn, &peer, active, owed);
	conn_clear(&conn);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t framed_size = sizeof(struct state);
	uint8_t *copy = malloc(size ? size : 1);
	struct state framed = { 0 };

	if (!copy)
		abort();
	if (size > 0)
		memcpy(copy, data, size);
	try_message(copy, size); /* a copy of exactly that size: reading beyond it is noticed */
	free(copy);

	memcpy((uint8_t *) &framed, data, size < framed_size ? size : framed_size);
	framed.magic = STATE_MAGIC;
	framed.version = STATE_VERSION;
	framed.size = sizeof framed;
	framed.check = message_check((const uint8_t *) &framed);
	FUZZ_CLAIM(try_message((const uint8_t *) &framed, framed_size) != -ENOTSUP);
	return 0;
}
