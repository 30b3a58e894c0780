/* SPDX-License-Identifier: ISC */
/* conn.h - one echo: a pure state machine
 *
 * It makes no system call and does not depend on a model. The driver of a connection asks what the connection
 * wants (conn_want()), where to receive (conn_recv_buf()) and which bytes to send (conn_pending()), does the
 * I/O, and reports the result. Order, back-pressure, half-close, the bound on memory and the reason of the
 * end are decided here.
 *
 * Owed bytes are in one of three places, never in two at a time:
 *   - in borrowed memory (the driver's scratch buffer), until conn_own_data() or until all are sent;
 *   - in memory owned by the connection, allocated by conn_own_data() and conn_recv_buf();
 *   - in a pipe of the driver (splice(2)); the connection has only their number.
 * A connection that owes nothing has no memory.
 *
 * One thread at a time; no locking. Sizes are bytes; `limit` is always the configured buffer-size, at most
 * CONN_LIMIT_MAX.
 */
#ifndef ECHOD_ECHO_CONN_H
#define ECHOD_ECHO_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONN_LIMIT_MAX (1U << 30)

/* Why a connection ended; the names are those of conn_reason_name(). */
enum conn_reason {
	CONN_OPEN,
	CONN_EOF,    /* the peer finished sending and everything was sent back */
	CONN_RESET,  /* reset by the peer, or the peer disappeared while bytes were owed */
	CONN_IDLE,   /* no byte moved for idle-timeout */
	CONN_LIMIT,  /* refused: max-per-source */
	CONN_DENIED, /* refused: allow, deny */
	CONN_PROXY,  /* no valid PROXY protocol header came first */
	CONN_DRAIN,  /* the service stopped */
	CONN_ERROR,  /* an error of this host */
	CONN_REASONS
};

/* Actions that a connection wants; several may be set. */
enum conn_want {
	CONN_RECV = 1,   /* receive into conn_recv_buf() */
	CONN_SEND = 2,   /* send conn_pending(), or the content of the pipe */
	CONN_LINGER = 4, /* draining, everything sent: send FIN, discard input, close when the peer has
	                  * acknowledged all */
	CONN_CLOSE = 8,  /* close(2) */
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
	struct conn_memory *memory; /* owned memory; NULL: nothing is owed, or `data` is borrowed */
	uint8_t *data;              /* first owed byte, in owned or borrowed memory */
	uint32_t owed;              /* bytes owed at `data` */
	uint32_t piped;             /* bytes owed in the driver's pipe */
	uint32_t quota;             /* draining: number of bytes that may still be received */
	uint8_t reason;             /* enum conn_reason; CONN_OPEN until it ends */
	bool eof : 1;                   /* the peer has finished sending */
	bool draining : 1;
	bool header : 1; /* the owed bytes are the begin of a PROXY protocol header, and not sent */
	uint8_t error;              /* errno of CONN_ERROR; every errno of Linux fits */
	uint64_t echoed;            /* bytes sent back so far */
	int64_t since;              /* time of accept(2), clock_usec() */
};

/* Initialize: nothing received, nothing owed. `since` is clock_usec(). */
void conn_init(struct conn *conn, int64_t since);

/* Free the memory; owed bytes are dropped. */
void conn_clear(struct conn *conn);

/* The actions that the connection wants next: bits of enum conn_want. */
unsigned conn_want(const struct conn *conn, size_t limit);

/* Maximum number of bytes to receive now; 0: the connection must not receive. */
size_t conn_recv_window(const struct conn *conn, size_t limit);

/* Where to receive next: `scratch` while nothing is owed, else the space behind the owed bytes in owned
 * memory, which grows as far as `limit` and the allocator allow. Returns an empty span where nothing may be
 * received now: `limit` reached, borrowed memory not yet copied, bytes in the pipe, connection ended, or
 * draining with its quota used up. */
struct span conn_recv_buf(struct conn *conn, struct span scratch, size_t limit);

/* Report `n` > 0 received bytes at `at`: in the span of conn_recv_buf(), or, only while nothing is owed, in
 * other memory that the connection borrows. */
void conn_received(struct conn *conn, uint8_t *at, size_t n);

/* Report end of file (recv(2) returned 0). */
void conn_eof(struct conn *conn);

/* Report an I/O error (`error`: an errno): the connection ends and owed bytes are dropped. */
void conn_error(struct conn *conn, int error);

/* End the connection for `reason` (idle time-out, drain time-out); owed bytes are dropped. */
void conn_end(struct conn *conn, enum conn_reason reason);

/* Start draining. `unread` is the number of bytes in the socket's receive buffer (FIONREAD): they and the
 * owed bytes are still echoed; bytes that arrive later are not. */
void conn_drain(struct conn *conn, size_t unread);

/* The bytes owed in memory: returns their number and sets `*data` to the first. */
size_t conn_pending(const struct conn *conn, const uint8_t **data);

/* Number of all owed bytes, in memory and in the pipe. */
size_t conn_owed_total(const struct conn *conn);

/* Report that `n` bytes of conn_pending() were sent. Frees owned memory after the last one. */
void conn_sent(struct conn *conn, size_t n);

/* Report that `n` bytes moved from the peer into the driver's pipe; only while no bytes are owed in
 * memory. */
void conn_pipe_received(struct conn *conn, size_t n);

/* Report that `n` bytes moved from the pipe to the peer. */
void conn_pipe_sent(struct conn *conn, size_t n);

/* Before the content of the pipe is read back: allocate owned memory for it. The caller must write conn.piped
 * bytes at the returned address at once. Returns NULL where there is no memory. */
uint8_t *conn_restore_piped(struct conn *conn);

/* Copy owed bytes from borrowed into owned memory, after which the caller may use the borrowed memory again.
 * Returns 0, or -ENOMEM with the connection ended. */
int conn_own_data(struct conn *conn);

/* Allocate owned memory for the `n` > 0 owed bytes of a connection that was handed over. The caller must
 * write them at the returned address at once. Returns NULL where there is no memory. Only for a connection
 * that owes nothing. */
uint8_t *conn_restore(struct conn *conn, size_t n);

/* Drop the first `n` owed bytes in memory: they are part of the header. */
void conn_drop(struct conn *conn, size_t n);

/* The header has been received whole and was dropped: what is owed now is to be sent. */
void conn_header_done(struct conn *conn);

/* "eof", "reset", "idle", "limit", "denied", "proxy", "drain", "error"; "open" before the end. */
const char *conn_reason_name(enum conn_reason reason);

#endif
