/* SPDX-License-Identifier: ISC */
/* exchange.c - see exchange.h */
#include <config.h>

#include "client/talk/exchange.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "client/interrupt.h"
#include "client/nsec.h"
#include "client/options.h"
#include "client/pattern.h"
#include "client/target.h"

#define RETRANSMIT_FIRST \
	(NSEC_PER_SEC / 5) /* wait before the first retransmission; doubled for each further one */
#define DATAGRAM_MAX 65536

void exchange_init(struct exchange *exchange, const struct client_options *options,
		   const struct target *target, int net)
{
	*exchange = (struct exchange) { .options = options, .target = target, .net = net };
}

void exchange_clear(struct exchange *exchange)
{
	for (size_t i = 0; i < EXCHANGE_RECENT; i++)
		free(exchange->recent[i]);
	free(exchange->back);
	*exchange = (struct exchange) { .net = -1 };
}

/* --- errors ------------------------------------------------------------------------------------------- */

enum outcome exchange_error_differs(const struct target *target, uint64_t offset, uint8_t sent,
				    uint8_t received)
{
	return client_error(
		OUTCOME_DIFFERS,
		"the echo of %s differs at byte %llu (offset %llu, %#llx): sent 0x%02x, came back 0x%02x",
		target->name, (unsigned long long) offset + 1, (unsigned long long) offset,
		(unsigned long long) offset, sent, received);
}

enum outcome exchange_error_closed(const struct target *target, int error, const char *detail)
{
	if (error == 0)
		return client_error(OUTCOME_DIFFERS, "%s closed the connection%s", target->name, detail);
	return client_error(OUTCOME_DIFFERS, "the connection to %s broke: %s%s", target->name,
			    strerror(error), detail);
}

static enum outcome error_timeout(const struct exchange *exchange, size_t received, size_t size)
{
	return client_error(OUTCOME_DIFFERS, "no answer from %s within %.3g s: %zu of %zu bytes came back",
			    exchange->target->name, nsec_to_seconds(exchange->options->timeout), received,
			    size);
}

/* --- waiting ------------------------------------------------------------------------------------------ */

static enum step step_done(struct exchange *exchange, enum outcome outcome)
{
	exchange->outcome = outcome;
	return STEP_DONE;
}

/* Wait for `events` or an error on the socket until `limit`. Returns STEP_CONTINUE when one of them is
 * there. */
static enum step socket_wait(struct exchange *exchange, short events, uint64_t limit)
{
	for (;;) {
		struct pollfd fd = { .fd = exchange->net, .events = events };
		struct timespec wait;
		uint64_t now = nsec_now();

		if (interrupt_seen())
			return step_done(exchange, client_error(OUTCOME_DIFFERS,
								"interrupted while waiting for %s: %llu "
								"bytes sent, %llu came back and matched",
								exchange->target->name,
								(unsigned long long) exchange->done.sent,
								(unsigned long long) exchange->done.matched));
		if (now >= limit)
			return STEP_TIMEOUT;
		if (ppoll(&fd, 1, nsec_timespec(&wait, now, limit), interrupt_mask()) > 0)
			return STEP_CONTINUE;
	}
}

static uint64_t limit_from(const struct exchange *exchange, uint64_t now)
{
	return exchange->options->timeout == NSEC_NEVER ? NSEC_NEVER : now + exchange->options->timeout;
}

/* --- streams ------------------------------------------------------------------------------------------ */

static enum outcome stream_exchange(struct exchange *exchange, const uint8_t *bytes, size_t size)
{
	uint64_t limit = limit_from(exchange, nsec_now());
	size_t sent = 0, received = 0;

	while (received < size) {
		enum step step = socket_wait(exchange, (short) (POLLIN | (sent < size ? POLLOUT : 0)), limit);
		ssize_t n;
		size_t same;

		if (step == STEP_TIMEOUT)
			return error_timeout(exchange, received, size);
		if (step == STEP_DONE)
			return exchange->outcome;
		n = sent < size ? send(exchange->net, bytes + sent, size - sent, MSG_NOSIGNAL) : 0;
		/* After EPIPE and ECONNRESET there may still be data to receive. */
		if (n < 0 && errno != EAGAIN && errno != EINTR && errno != EPIPE && errno != ECONNRESET)
			return exchange_error_closed(exchange->target, errno, "");
		if (n > 0) {
			sent += (size_t) n;
			exchange->done.sent += (uint64_t) n;
		}
		n = recv(exchange->net, exchange->back + received, size - received, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			return exchange_error_closed(exchange->target, n < 0 ? errno : 0, "");
		same = bytes_compare(bytes + received, exchange->back + received, (size_t) n);
		if (same < (size_t) n)
			return exchange_error_differs(exchange->target, exchange->done.matched + same,
						      bytes[received + same],
						      exchange->back[received + same]);
		received += (size_t) n;
		exchange->done.matched += (uint64_t) n;
		limit = limit_from(exchange, nsec_now());
	}
	return OUTCOME_OK;
}

/* --- datagrams ---------------------------------------------------------------------------------------- */

/* Whether the datagram is a duplicate answer. If the datagram had been sent again, then not because it was
 * lost. */
static bool duplicate_check(struct exchange *exchange, const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < EXCHANGE_RECENT; i++) {
		if (!exchange->recent[i] || exchange->recent_length[i] != size
		    || memcmp(exchange->recent[i], bytes, size) != 0)
			continue;
		if (exchange->recent_copies[i] > 0) {
			exchange->recent_copies[i]--;
			exchange->done.lost--;
		}
		return true;
	}
	return false;
}

/* Remember a datagram that was answered. */
static void recent_add(struct exchange *exchange, const uint8_t *bytes, size_t size, unsigned copies)
{
	unsigned slot = exchange->recent_next++ % EXCHANGE_RECENT;

	free(exchange->recent[slot]);
	exchange->recent[slot] = malloc(size);
	exchange->recent_length[slot] = size;
	exchange->recent_copies[slot] = copies;
	if (exchange->recent[slot])
		memcpy(exchange->recent[slot], bytes, size);
}

/* Receive one datagram. Returns STEP_DONE when it is the answer or an error, STEP_TIMEOUT when the datagram
 * must be sent again at once, and STEP_CONTINUE to wait on. */
static enum step datagram_receive(struct exchange *exchange, const uint8_t *bytes, size_t size)
{
	ssize_t n = recv(exchange->net, exchange->back, exchange->back_size, MSG_DONTWAIT | MSG_TRUNC);
	size_t received, same;

	if (n < 0) {
		if (errno == EAGAIN || errno == EINTR)
			return STEP_CONTINUE;
		/* An ICMP message. The network may recover: continue until the timeout. */
		exchange->error = errno;
		/* The datagram was larger than the path MTU, which the kernel knows now: it will be
		 * fragmented. */
		return errno == EMSGSIZE ? STEP_TIMEOUT : STEP_CONTINUE;
	}
	received = (size_t) n;
	same = bytes_compare(bytes, exchange->back, received < size ? received : size);
	if (received == size && same == size) {
		exchange->done.matched += size;
		return step_done(exchange, OUTCOME_OK);
	}
	if (received <= exchange->back_size && duplicate_check(exchange, exchange->back, received))
		return STEP_CONTINUE;
	if (same < size && same < received)
		return step_done(exchange,
				 exchange_error_differs(exchange->target, exchange->done.matched + same,
							bytes[same], exchange->back[same]));
	return step_done(
		exchange,
		client_error(OUTCOME_DIFFERS,
			     "the datagram at offset %llu came back from %s with %zu bytes instead of %zu",
			     (unsigned long long) exchange->done.matched, exchange->target->name, received,
			     size));
}

/* Send the datagram. Returns OUTCOME_OK also if it failed for a reason that may pass. */
static enum outcome datagram_send(struct exchange *exchange, const uint8_t *bytes, size_t size)
{
	/* An error of an earlier datagram may be reported instead of sending: then the second attempt
	 * succeeds. */
	for (int i = 0; i < 2; i++) {
		if (send(exchange->net, bytes, size, MSG_NOSIGNAL) >= 0 || errno == EAGAIN)
			return OUTCOME_OK;
		exchange->error = errno;
	}
	if (exchange->error != EMSGSIZE)
		return OUTCOME_OK;
	return client_error(OUTCOME_USAGE,
			    "a datagram of %zu bytes is too large for the path (MTU %d): use a smaller -s",
			    size, target_path_mtu(exchange->net));
}

static enum outcome datagram_failed(const struct exchange *exchange, size_t size)
{
	if (exchange->error == 0)
		return error_timeout(exchange, 0, size);
	return client_error(OUTCOME_DIFFERS, "no answer from %s within %.3g s: %s", exchange->target->name,
			    nsec_to_seconds(exchange->options->timeout), strerror(exchange->error));
}

static enum outcome datagram_exchange(struct exchange *exchange, const uint8_t *bytes, size_t size)
{
	uint64_t start = nsec_now(), now = start, limit = limit_from(exchange, now), sent_at = now,
		 next = now;
	uint64_t patience = RETRANSMIT_FIRST;
	unsigned tries = 0;

	/* Do not send each datagram twice to a server that takes longer (RFC 8085, 3.1.1). */
	if (patience < 2 * exchange->answer_time)
		patience = 2 * exchange->answer_time;
	exchange->error = 0;
	exchange->done.sent += size;
	for (; now < limit; now = nsec_now()) {
		enum step step;

		if (now >= next) {
			enum outcome outcome = datagram_send(exchange, bytes, size);

			if (outcome != OUTCOME_OK)
				return outcome;
			exchange->done.retransmits += tries > 0;
			exchange->done.lost += tries++ > 0;
			sent_at = now;
			next = now + patience;
			patience *= 2;
		}
		step = socket_wait(exchange, POLLIN, nsec_earlier(next, limit));
		if (step == STEP_CONTINUE)
			step = datagram_receive(exchange, bytes, size);
		if (step == STEP_DONE) {
			exchange->answer_time = nsec_now() - start;
			recent_add(exchange, bytes, size, tries - 1);
			if (tries > 1)
				exchange->duplicates_until = sent_at + 2 * exchange->answer_time;
			return exchange->outcome;
		}
		if (step == STEP_TIMEOUT)
			next = 0;
		/* No service on that port, also not before: further retransmissions are useless. */
		if (exchange->error == ECONNREFUSED && exchange->done.matched == 0 && tries > 1)
			return client_error(OUTCOME_UNREACHABLE, "no UDP service at %s: %s",
					    exchange->target->name, strerror(ECONNREFUSED));
	}
	return datagram_failed(exchange, size);
}

void exchange_finish(struct exchange *exchange)
{
	uint64_t now = nsec_now();

	for (; exchange->done.lost > 0 && now < exchange->duplicates_until && !interrupt_seen();
	     now = nsec_now()) {
		struct pollfd fd = { .fd = exchange->net, .events = POLLIN };
		struct timespec wait;
		ssize_t n;

		if (ppoll(&fd, 1, nsec_timespec(&wait, now, exchange->duplicates_until), interrupt_mask())
		    <= 0)
			continue;
		n = recv(exchange->net, exchange->back, exchange->back_size, MSG_DONTWAIT | MSG_TRUNC);
		if (n > 0 && (size_t) n <= exchange->back_size)
			duplicate_check(exchange, exchange->back, (size_t) n);
	}
}

/* --- both --------------------------------------------------------------------------------------------- */

static enum outcome buffer_reserve(struct exchange *exchange, size_t size)
{
	uint8_t *back;

	if (size <= exchange->back_size)
		return OUTCOME_OK;
	back = realloc(exchange->back, size);
	if (!back)
		return client_error(OUTCOME_USAGE, "out of memory for a buffer of %zu bytes", size);
	exchange->back = back;
	exchange->back_size = size;
	return OUTCOME_OK;
}

enum outcome exchange_piece(struct exchange *exchange, const uint8_t *bytes, size_t size)
{
	enum outcome outcome = buffer_reserve(exchange, exchange->options->udp ? DATAGRAM_MAX : size);

	if (outcome != OUTCOME_OK)
		return outcome;
	return exchange->options->udp ? datagram_exchange(exchange, bytes, size)
				      : stream_exchange(exchange, bytes, size);
}
