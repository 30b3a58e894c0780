/* SPDX-License-Identifier: ISC */
/* fuzz_conn.c - partial I/O and errors on a connection, compared with a simple reference
 *
 * The input is a sequence of operations that a driver may do with a connection. Byte i of the peer's
 * stream is a function of i, so the reference is two counters, of received and of sent bytes. After every
 * sequence the bytes to send must continue the stream, not more than the limit may be pending, and
 * conn_want() must agree with the counters. If it wants input, there must be memory for it.
 *
 * Some operations let allocations fail; for this conn.c is included here.
 */
#include <config.h>

#include "fuzz.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static bool allocation_fails;

static void *fuzz_malloc(size_t size)
{
	return allocation_fails ? NULL : malloc(size);
}

static void *fuzz_realloc(void *memory, size_t size)
{
	return allocation_fails ? NULL : realloc(memory, size);
}

#define malloc fuzz_malloc
#define realloc fuzz_realloc
#include "echo/conn.c"
#undef malloc
#undef realloc

#define SCRATCH_MAX 70000

/* The driver of the connection, and the reference. */
struct driver {
	struct conn conn;
	size_t limit;
	size_t limit_was;  /* the largest limit so far */
	struct span scratch;
	uint8_t *provided; /* a provided buffer, which the kernel chose; NULL: none is borrowed */
	bool borrowed;     /* pending bytes are in scratch or in the provided buffer */
	uint64_t received; /* counters of the stream */
	uint64_t sent;
	size_t piped;
	size_t quota;
	bool eof, draining;
	enum conn_reason reason;
};

static uint8_t stream_byte(uint64_t position)
{
	return (uint8_t) (position * 131 ^ position >> 7);
}

static void stream_fill(uint8_t *at, uint64_t position, size_t n)
{
	for (size_t i = 0; i < n; i++)
		at[i] = stream_byte(position + i);
}

static void stream_check(const uint8_t *at, uint64_t position, size_t n)
{
	for (size_t i = 0; i < n; i++)
		FUZZ_CLAIM(at[i] == stream_byte(position + i));
}

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static size_t driver_pending(const struct driver *d)
{
	return (size_t) (d->received - d->sent);
}

/* The number of bytes that may be received, by the reference. */
static size_t driver_room(const struct driver *d)
{
	size_t pending = driver_pending(d), room = pending < d->limit ? d->limit - pending : 0;

	if (d->eof || d->reason != CONN_OPEN)
		return 0;
	/* the window may be 0 while more than half of the owned memory is in use */
	if (d->conn.memory && pending * 2 > d->conn.memory->size && conn_recv_window(&d->conn, d->limit) == 0)
		return 0;
	return d->draining ? min_size(room, d->quota) : room;
}

static void driver_finish(struct driver *d)
{
	if (d->reason == CONN_OPEN && d->eof && driver_pending(d) == 0)
		d->reason = CONN_EOF;
}

/* The connection no longer borrows memory: overwrite and free it. */
static void driver_reuse_borrowed(struct driver *d)
{
	d->borrowed = false;
	memset(d->scratch.data, 0xee, d->scratch.size);
	free(d->provided);
	d->provided = NULL;
}

static void driver_got(struct driver *d, size_t n)
{
	d->received += n;
	if (d->draining)
		d->quota -= n;
}

static void driver_receive(struct driver *d, size_t amount, bool elsewhere)
{
	size_t room = driver_room(d), in_memory = driver_pending(d) - d->piped;
	struct span span = conn_recv_buf(&d->conn, d->scratch, d->limit);

	FUZZ_CLAIM(span.size <= room);
	if (d->piped > 0 || d->borrowed)
		FUZZ_CLAIM(span.size == 0);
	else if (in_memory == 0)
		FUZZ_CLAIM(span.size == min_size(room, d->scratch.size));
	else
		FUZZ_CLAIM(span.size > 0 || room == 0 || allocation_fails);
	if (span.size == 0)
		return;
	if (elsewhere && in_memory == 0) {
		/* as with a ring of provided buffers: the kernel chose the memory */
		d->provided = malloc(span.size);
		if (!d->provided)
			abort();
		span.data = d->provided;
	}
	amount = 1 + amount % span.size;
	stream_fill(span.data, d->received, amount);
	conn_received(&d->conn, span.data, amount);
	driver_got(d, amount);
	if (in_memory == 0)
		d->borrowed = true;
}

static void driver_sent(struct driver *d, size_t n)
{
	d->sent += n;
	driver_finish(d);
}

static void driver_send(struct driver *d, size_t amount)
{
	const uint8_t *data;
	size_t owed;

	if (!(conn_want(&d->conn, d->limit) & CONN_SEND) || d->piped > 0)
		return;
	owed = conn_pending(&d->conn, &data);
	FUZZ_CLAIM(owed == driver_pending(d));
	stream_check(data, d->sent, owed);
	amount = 1 + amount % owed;
	conn_sent(&d->conn, amount);
	driver_sent(d, amount);
	if (driver_pending(d) == 0)
		driver_reuse_borrowed(d);
}

static void driver_own_data(struct driver *d)
{
	int r;

	if (d->reason != CONN_OPEN)
		return;
	r = conn_own_data(&d->conn);
	FUZZ_CLAIM(r == 0 || (r == -ENOMEM && allocation_fails && d->borrowed));
	if (r < 0)
		d->reason = CONN_ERROR;
	driver_reuse_borrowed(d);
}

static void driver_splice_in(struct driver *d, size_t amount)
{
	size_t room = driver_room(d);

	if (room == 0 || driver_pending(d) > d->piped)
		return;
	amount = 1 + amount % room;
	conn_pipe_received(&d->conn, amount);
	d->piped += amount;
	driver_got(d, amount);
}

static void driver_splice_out(struct driver *d, size_t amount)
{
	if (d->piped == 0 || d->reason != CONN_OPEN)
		return;
	amount = 1 + amount % d->piped;
	conn_pipe_sent(&d->conn, amount);
	d->piped -= amount;
	driver_sent(d, amount);
}

static void driver_empty_pipe(struct driver *d)
{
	uint8_t *data;

	if (d->piped == 0 || d->reason != CONN_OPEN)
		return;
	data = conn_restore_piped(&d->conn);
	FUZZ_CLAIM(!data == allocation_fails);
	if (!data)
		return;
	stream_fill(data, d->sent, d->piped);
	d->piped = 0;
}

/* Another worker has handed over the connection, with `n` pending bytes. */
static void driver_take_over(struct driver *d, size_t n)
{
	uint8_t *data = conn_restore(&d->conn, n);

	FUZZ_CLAIM(data);
	stream_fill(data, 0, n);
	d->received = n;
}

static void driver_drain(struct driver *d, size_t unread)
{
	if (d->draining)
		return;
	conn_drain(&d->conn, unread);
	d->draining = true;
	d->quota = unread;
}

static void driver_end(struct driver *d, unsigned choice)
{
	static const enum conn_reason reasons[] = { CONN_IDLE, CONN_DRAIN, CONN_LIMIT, CONN_DENIED };

	conn_end(&d->conn, reasons[choice % 4]);
	if (d->reason == CONN_OPEN)
		d->reason = reasons[choice % 4];
}

static void driver_fail(struct driver *d, unsigned choice)
{
	static const int errors[] = { ECONNRESET, EPIPE, ETIMEDOUT, EHOSTUNREACH, ENOMEM, EIO };
	int error = errors[choice % 6];

	conn_error(&d->conn, error);
	if (d->reason == CONN_OPEN)
		d->reason = error == ENOMEM || error == EIO ? CONN_ERROR : CONN_RESET;
}

static void driver_eof(struct driver *d)
{
	if (d->eof || d->reason != CONN_OPEN)
		return;
	conn_eof(&d->conn);
	d->eof = true;
	driver_finish(d);
}

/* Check the conditions that must be true before and after every step. */
static void driver_check(const struct driver *d)
{
	unsigned want = 0;

	FUZZ_CLAIM(d->conn.reason == d->reason);
	FUZZ_CLAIM(d->conn.echoed == d->sent);
	FUZZ_CLAIM(conn_owed_total(&d->conn) == driver_pending(d));
	FUZZ_CLAIM(conn_recv_window(&d->conn, d->limit) == driver_room(d));
	FUZZ_CLAIM(driver_pending(d) <= d->limit_was);
	FUZZ_CLAIM(!d->conn.memory || d->conn.memory->size <= d->limit_was);
	FUZZ_CLAIM(d->reason != CONN_OPEN || driver_pending(d) > d->piped || !d->conn.memory);
	if (d->reason != CONN_OPEN) {
		want = CONN_CLOSE;
	} else {
		want |= driver_pending(d) > 0 ? CONN_SEND : 0;
		want |= driver_room(d) > 0 ? CONN_RECV : 0;
		if (want == 0)
			want = CONN_LINGER;
	}
	FUZZ_CLAIM(conn_want(&d->conn, d->limit) == want);
}

static void driver_step(struct driver *d, struct fuzz_input *input)
{
	unsigned step = fuzz_take(input), choice = step >> 4;
	static const size_t limits[] = { 512, 700, 4096, 65536 };

	allocation_fails = false;
	switch (step & 15) {
	case 0: case 1: case 2:
		driver_receive(d, fuzz_take_size(input), choice & 1);
		break;
	case 3: case 4: case 5:
		driver_send(d, fuzz_take_size(input));
		break;
	case 6:
		driver_own_data(d);
		break;
	case 7:
		allocation_fails = true;
		driver_receive(d, fuzz_take_size(input), false);
		break;
	case 8:
		driver_splice_in(d, fuzz_take_size(input));
		break;
	case 9:
		driver_splice_out(d, fuzz_take_size(input));
		break;
	case 10:
		allocation_fails = choice == 1;
		driver_empty_pipe(d);
		break;
	case 11:
		driver_eof(d);
		break;
	case 12:
		driver_drain(d, fuzz_take_size(input));
		break;
	case 13: /* a reload with another buffer-size */
		d->limit = limits[choice % 4];
		d->limit_was = d->limit > d->limit_was ? d->limit : d->limit_was;
		break;
	case 14:
		if (choice == 0)
			driver_end(d, fuzz_take(input));
		else if (choice == 1)
			driver_fail(d, fuzz_take(input));
		break;
	default:
		allocation_fails = choice == 1;
		driver_own_data(d);
	}
}

/* At the end all received bytes must be sent, and the connection must have a reason for its end. */
static void driver_flush(struct driver *d)
{
	driver_splice_out(d, d->piped - 1);
	if (d->reason == CONN_OPEN && driver_pending(d) > 0)
		driver_send(d, driver_pending(d) - 1);
	FUZZ_CLAIM(d->reason != CONN_OPEN || driver_pending(d) == 0);
	driver_eof(d);
	FUZZ_CLAIM(d->reason != CONN_OPEN);
	driver_check(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };
	unsigned first = fuzz_take(&input);
	struct driver d = { .limit = (512U << first % 8) + (first & 8 ? 37 : 0) };

	allocation_fails = false;
	d.limit_was = d.limit;
	d.scratch.size = 1 + fuzz_take_size(&input) % SCRATCH_MAX;
	d.scratch.data = malloc(d.scratch.size);
	if (!d.scratch.data)
		abort();
	conn_init(&d.conn, 1);
	if (first & 16)
		driver_take_over(&d, 1 + fuzz_take_size(&input) % d.limit);
	driver_check(&d);
	while (input.size > 0) {
		driver_step(&d, &input);
		driver_check(&d);
	}
	driver_flush(&d);
	conn_clear(&d.conn);
	free(d.provided);
	free(d.scratch.data);
	return 0;
}
