/* conn.h - one echo: a pure state machine
 *
 * It makes no system call and knows no model. Its driver asks what the connection wants
 * (conn_want()), where bytes may land (conn_recv_buf()) and which are owed (conn_pending()), does
 * the I/O in whatever way its model does, and tells what happened. Order, back-pressure,
 * half-close, the bound on what is held and the reason of the end are decided here, once.
 *
 * Owed bytes lie in one of three places, never in two at a time:
 *   - in memory that the driver lent (its scratch buffer), until conn_keep() or all is sent;
 *   - in memory of the connection's own, allocated by conn_keep() and conn_recv_buf();
 *   - in a pipe of the driver's (splice(2)), of which only the count is known here.
 * A connection that owes nothing holds no memory.
 *
 * One driver at a time; no locking. Sizes are bytes; `limit` is always the configured
 * buffer-size, at most CONN_LIMIT_MAX.
 */
#ifndef ECHOD_ECHO_CONN_H
#define ECHOD_ECHO_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONN_LIMIT_MAX (1U << 30)

/* Why a connection ended. The order is that of conn_reason_name(). */
enum conn_reason {
	CONN_OPEN,
	CONN_EOF,    /* the peer had finished and got everything */
	CONN_RESET,  /* the peer reset it, or went away with bytes owed */
	CONN_IDLE,   /* nothing moved for idle-timeout */
	CONN_LIMIT,  /* refused: max-per-source */
	CONN_DENIED, /* refused: allow, deny */
	CONN_DRAIN,  /* the service stopped */
	CONN_ERROR,  /* an error of this host's */
	CONN_REASONS
};

/* What a connection wants; several may be set together. */
enum conn_want {
	CONN_RECV = 1,   /* receive into conn_recv_buf() */
	CONN_SEND = 2,   /* send conn_pending(), or what lies in the pipe */
	CONN_LINGER = 4, /* draining, all sent: say FIN, discard input, close when the peer has it all */
	CONN_CLOSE = 8,  /* nothing more: close(2) */
};

struct span {
	uint8_t *data;
	size_t size;
};

struct conn_memory {
	uint32_t size;
	uint8_t bytes[];
};

struct conn {
	struct conn_memory *memory; /* own memory, or NULL */
	uint8_t *data;              /* the first owed byte, in own or lent memory */
	uint32_t owed;              /* bytes owed at `data` */
	uint32_t piped;             /* bytes owed in the driver's pipe */
	uint32_t quota;             /* draining: how many bytes may still be received */
	uint8_t reason;             /* enum conn_reason; CONN_OPEN until it ends */
	bool eof;                   /* the peer has finished sending */
	bool draining;
	uint8_t error;              /* errno that ended it with CONN_ERROR; all of Linux's fit */
	uint64_t echoed;            /* bytes sent back so far */
	int64_t since;              /* when it was accepted, clock_usec() */
};

/* Begin with nothing received and nothing owed. */
void conn_init(struct conn *conn, int64_t since);

/* Free what it holds; what is still owed is gone. */
void conn_clear(struct conn *conn);

/* The set of enum conn_want. */
unsigned conn_want(const struct conn *conn, size_t limit);

/* Most bytes that may be received now: 0 where the connection must not receive. */
size_t conn_recv_window(const struct conn *conn, size_t limit);

/* Where the next received bytes may land: in `scratch` while nothing is owed, else behind
 * what is owed in own memory, which grows as far as `limit` and the allocator allow. An empty
 * span: nothing may be received now (all held that may be, lent memory not yet kept, bytes in
 * the pipe, at the end, draining with its quota used up). */
struct span conn_recv_buf(struct conn *conn, struct span scratch, size_t limit);

/* `n` > 0 bytes were received and lie at `at`: where conn_recv_buf() said, or in other memory
 * that the driver lends, allowed only while nothing is owed. */
void conn_received(struct conn *conn, uint8_t *at, size_t n);

/* The peer has finished sending (recv(2) returned 0). */
void conn_eof(struct conn *conn);

/* An I/O error: the connection ends, what is owed is dropped. `error` is an errno. */
void conn_error(struct conn *conn, int error);

/* It ends for `reason`, with what is owed dropped (idle time-out, drain time-out). */
void conn_end(struct conn *conn, enum conn_reason reason);

/* The service stops: of what the peer has sent, `unread` bytes have not been received yet
 * (FIONREAD). They and what is owed are still echoed, nothing that comes later. */
void conn_drain(struct conn *conn, size_t unread);

/* The bytes owed in memory: their number, and in `*data` where they are. */
size_t conn_pending(const struct conn *conn, const uint8_t **data);

/* All bytes owed, in memory and in the pipe. */
size_t conn_owed_total(const struct conn *conn);

/* `n` bytes of conn_pending() were sent. Own memory is freed with the last of them. */
void conn_sent(struct conn *conn, size_t n);

/* `n` bytes went from the peer into the driver's pipe; only while nothing is owed in memory. */
void conn_pipe_received(struct conn *conn, size_t n);

/* `n` bytes went from the pipe to the peer. */
void conn_pipe_sent(struct conn *conn, size_t n);

/* The pipe's content is about to be read back: from now on it is owed from own memory. Returns
 * where conn.piped bytes must be written at once, or NULL where there is no memory. */
uint8_t *conn_restore_piped(struct conn *conn);

/* Take owed bytes in lent memory into own memory; afterwards the lent memory is free for
 * other use. Returns 0, or -ENOMEM with the connection ended. */
int conn_keep(struct conn *conn);

/* A connection taken over owes `n` > 0 bytes: make own memory for them. Returns where they must be
 * written at once, or NULL where there is no memory. Only on a connection that owes nothing. */
uint8_t *conn_restore(struct conn *conn, size_t n);

/* "eof", "reset", "idle", "limit", "denied", "drain", "error"; "open" before the end. */
const char *conn_reason_name(enum conn_reason reason);

#endif
