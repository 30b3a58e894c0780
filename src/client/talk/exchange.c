/* exchange.c - see exchange.h */
#include <config.h>

#include "client/talk/exchange.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "client/interrupt.h"
#include "client/options.h"
#include "client/pattern.h"
#include "client/target.h"
#include "client/nsec.h"

#define AGAIN_FIRST (NSEC_PER_SEC / 5) /* a datagram not answered by then is sent again */
#define DATAGRAM_MOST 65536

void exchange_init(struct exchange *exchange, const struct client_options *options,
		   const struct target *target, int net)
{
	*exchange = (struct exchange){ .options = options, .target = target, .net = net };
}

void exchange_clear(struct exchange *exchange)
{
	for (size_t i = 0; i < EXCHANGE_RECENT; i++)
		free(exchange->recent[i]);
	free(exchange->back);
	*exchange = (struct exchange){ .net = -1 };
}

static int room_make(struct exchange *exchange, size_t size)
{
	uint8_t *back;

	if (size <= exchange->back_size)
		return -1;
	back = realloc(exchange->back, size);
	if (!back) {
		fprintf(stderr, "echoc: %zu bytes at once: out of memory\n", size);
		return OUTCOME_USAGE;
	}
	exchange->back = back;
	exchange->back_size = size;
	return -1;
}

static int error_differs(const struct exchange *exchange, size_t at, uint8_t wanted, uint8_t got)
{
	uint64_t offset = exchange->matched + at;

	fprintf(stderr,
		"echoc: the echo of %s differs at byte %llu (offset %llu, %#llx): sent 0x%02x, came back "
		"0x%02x\n",
		exchange->target->name, (unsigned long long) offset + 1, (unsigned long long) offset,
		(unsigned long long) offset, wanted, got);
	return OUTCOME_DIFFERS;
}

static int error_timeout(const struct exchange *exchange, size_t came, size_t size)
{
	fprintf(stderr, "echoc: no answer from %s within %.3g s: %zu of %zu bytes came back\n",
		exchange->target->name, nsec_to_seconds(exchange->options->timeout), came, size);
	return OUTCOME_DIFFERS;
}

static int error_broken(const struct exchange *exchange, int error)
{
	if (error == 0)
		fprintf(stderr, "echoc: %s closed the connection\n", exchange->target->name);
	else
		fprintf(stderr, "echoc: the connection to %s broke: %s\n", exchange->target->name,
			strerror(error));
	return OUTCOME_DIFFERS;
}

/* Wait for `events` until `limit`. Returns -1 where they (or an error) are there, else the outcome or, at the limit, -2. */
static int socket_wait(const struct exchange *exchange, short events, uint64_t limit)
{
	for (;;) {
		struct pollfd fd = { .fd = exchange->net, .events = events };
		struct timespec wait;
		uint64_t now = nsec_now();
		int r;

		if (interrupt_seen()) {
			fprintf(stderr,
				"echoc: interrupted while waiting for %s: %llu bytes sent, %llu came back "
				"and matched\n",
				exchange->target->name, (unsigned long long) exchange->sent,
				(unsigned long long) exchange->matched);
			return OUTCOME_DIFFERS;
		}
		if (now >= limit)
			return -2;
		r = ppoll(&fd, 1, nsec_timespec(&wait, now, limit), interrupt_mask());
		if (r > 0)
			return -1;
	}
}

static uint64_t limit_from(const struct exchange *exchange, uint64_t now)
{
	return exchange->options->timeout == NSEC_NEVER ? NSEC_NEVER : now + exchange->options->timeout;
}

/* --- streams ------------------------------------------------------------------------------------------------ */

static int piece_stream(struct exchange *exchange, const uint8_t *bytes, size_t size)
{
	uint64_t limit = limit_from(exchange, nsec_now());
	size_t sent = 0, came = 0;

	while (came < size) {
		short events = (short) (POLLIN | (sent < size ? POLLOUT : 0));
		int r = socket_wait(exchange, events, limit);
		ssize_t n;
		size_t same;

		if (r != -1)
			return r == -2 ? error_timeout(exchange, came, size) : r;
		n = sent < size ? send(exchange->net, bytes + sent, size - sent, MSG_NOSIGNAL) : 0;
		if (n < 0 && errno != EAGAIN && errno != EINTR && errno != EPIPE && errno != ECONNRESET)
			return error_broken(exchange, errno);
		if (n > 0) {
			sent += (size_t) n;
			exchange->sent += (uint64_t) n;
		}
		n = recv(exchange->net, exchange->back + came, size - came, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			return error_broken(exchange, n < 0 ? errno : 0);
		same = bytes_compare(bytes + came, exchange->back + came, (size_t) n);
		if (same < (size_t) n)
			return error_differs(exchange, same, bytes[came + same], exchange->back[came + same]);
		came += (size_t) n;
		exchange->matched += (uint64_t) n;
		limit = limit_from(exchange, nsec_now());
	}
	return -1;
}

/* --- datagrams ---------------------------------------------------------------------------------------------- */

static bool is_recent(const struct exchange *exchange, const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < EXCHANGE_RECENT; i++)
		if (exchange->recent[i] && exchange->recent_length[i] == size
		    && memcmp(exchange->recent[i], bytes, size) == 0)
			return true;
	return false;
}

static void recent_note(struct exchange *exchange, const uint8_t *bytes, size_t size)
{
	unsigned slot = exchange->recent_next++ % EXCHANGE_RECENT;

	free(exchange->recent[slot]);
	exchange->recent[slot] = malloc(size);
	exchange->recent_length[slot] = size;
	if (exchange->recent[slot])
		memcpy(exchange->recent[slot], bytes, size);
}

/* Look at what arrived. Returns -1 where it was the answer, -2 where one is still awaited, or the outcome. */
static int datagram_take(struct exchange *exchange, const uint8_t *bytes, size_t size, bool *refused)
{
	ssize_t n = recv(exchange->net, exchange->back, exchange->back_size, MSG_DONTWAIT | MSG_TRUNC);
	size_t came, same;

	if (n < 0) {
		*refused |= errno == ECONNREFUSED;
		if (errno == EAGAIN || errno == EINTR || errno == ECONNREFUSED)
			return -2;
		return error_broken(exchange, errno);
	}
	came = (size_t) n;
	same = bytes_compare(bytes, exchange->back, came < size ? came : size);
	if (came == size && same == size) {
		exchange->matched += size;
		recent_note(exchange, bytes, size);
		return -1;
	}
	if (came <= exchange->back_size && is_recent(exchange, exchange->back, came))
		return -2;
	if (same < size && same < came)
		return error_differs(exchange, same, bytes[same], exchange->back[same]);
	fprintf(stderr,
		"echoc: the datagram at offset %llu came back from %s with %zu bytes instead of %zu\n",
		(unsigned long long) exchange->matched, exchange->target->name, came, size);
	return OUTCOME_DIFFERS;
}

static int piece_datagram(struct exchange *exchange, const uint8_t *bytes, size_t size)
{
	uint64_t now = nsec_now(), limit = limit_from(exchange, now), patience = AGAIN_FIRST, again = now;
	bool refused = false;
	int r;

	exchange->sent += size;
	for (unsigned tries = 0;; now = nsec_now()) {
		if (now >= limit)
			break;
		if (now >= again) {
			if (send(exchange->net, bytes, size, MSG_NOSIGNAL) < 0 && errno != EAGAIN
			    && errno != ECONNREFUSED)
				return error_broken(exchange, errno);
			exchange->again += tries++ > 0;
			again = now + patience;
			patience *= 2;
		}
		r = socket_wait(exchange, POLLIN, again < limit ? again : limit);
		if (r == -1)
			r = datagram_take(exchange, bytes, size, &refused);
		if (r != -2)
			return r;
		/* Nobody there, and never was: no use to go on asking. */
		if (refused && exchange->matched == 0 && tries > 1) {
			fprintf(stderr, "echoc: nobody answers at %s over UDP: %s\n", exchange->target->name,
				strerror(ECONNREFUSED));
			return OUTCOME_UNREACHED;
		}
	}
	return error_timeout(exchange, 0, size);
}

int exchange_piece(struct exchange *exchange, const uint8_t *bytes, size_t size)
{
	int r = room_make(exchange, exchange->options->udp ? DATAGRAM_MOST : size);

	if (r >= 0)
		return r;
	return exchange->options->udp ? piece_datagram(exchange, bytes, size)
				      : piece_stream(exchange, bytes, size);
}
