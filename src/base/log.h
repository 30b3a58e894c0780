/* SPDX-License-Identifier: ISC */
/* log.h - the only user of the journal, syslog(3) and standard error
 *
 * The supervisor writes to the target. Worker processes never do: after log_relay_to() their
 * records travel as datagrams over a socket, without blocking, to the supervisor, which
 * writes them (log_relay_receive()). So a slow or blocked log target delays no echo.
 * A record is a list of "FIELD=value" strings as sd_journal_sendv(3) takes them, in whose values control
 * characters are escaped (escape.h), so that a message is one line everywhere; syslog and
 * standard error get MESSAGE alone. A log that cannot be written never stops the service, and never blocks
 * it: a record that its target does not take within 20 ms is lost and counted, and so are those of the next
 * second. The flags of standard error, which other processes share, are never changed. No function fails.
 * Never called from a signal handler. Payload is never logged.
 */
#ifndef ECHOD_BASE_LOG_H
#define ECHOD_BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <syslog.h>

#include "base/event.h"

/* Largest record; a longer MESSAGE is cut. */
#define LOG_RECORD_MAX 2048

struct log_record {
	int priority;
	size_t length;
	char text[LOG_RECORD_MAX]; /* NUL-terminated strings, one after the other */
};

enum log_sink { LOG_SINK_STDERR, LOG_SINK_JOURNAL, LOG_SINK_SYSLOG };

/* Write messages that are at least as urgent as `level` (LOG_ERR to LOG_DEBUG) to `sink` from now on. */
void log_open(enum log_sink sink, int level);

/* Whether journald listens on its socket. */
bool log_journal_listens(void);

/* Whether standard error is a stream to journald (JOURNAL_STREAM, systemd.exec(5)). */
bool log_stderr_is_journal(void);

/* While set, messages of LOG_WARNING and worse also go to standard error, whatever the sink: during the
 * start, when a user may wait at the terminal for its result. */
void log_also_stderr(bool on);

/* Whether a message of `priority` would be written: to save the work of making it. */
bool log_wants(int priority);

/* Log one message without fields of its own. */
void log_event(int priority, enum event event, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The same with fields: log_begin(), log_add() for each, log_end() writes it. */
void log_begin(struct log_record *record, int priority, enum event event);
void log_add(struct log_record *record, const char *field, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void log_end(struct log_record *record, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* ECHOD_MODEL= and ECHOD_WORKER= of every record of this thread from now on; `model` must
 * stay valid; a negative `worker` leaves the field out. */
void log_identify(const char *model, int worker);

/* In the supervisor: the last message of LOG_WARNING or worse, of its own or of a worker, since the last
 * call, cut to `size`. Returns whether there was one; if not, `text` is left as it is. */
bool log_take_last_error(char *text, size_t size);

/* Count records that the sink does not take at once in `*lost`. */
void log_count_lost(_Atomic uint64_t *lost);

/* In a worker process: send records at least as urgent as `level` to `fd` (a SOCK_DGRAM or SOCK_SEQPACKET
 * socket) from now on. Records that do not fit are counted in `*lost`. */
void log_relay_to(int fd, int level, _Atomic uint64_t *lost);

/* In the supervisor: write what workers sent to the other end, which has SO_PASSCRED set, at most `limit`
 * records. Workers are not trusted: a record that log_record_read() rejects is counted as lost, and records
 * beyond the share of their process or of the source that they are about (log_budget.h) are suppressed and
 * counted in `*suppressed`. Returns the number received. */
int log_relay_receive(int fd, int limit, uint64_t *suppressed);

/* Check the `size` bytes that a worker sent, and make a record of them with control characters escaped. They
 * must be NUL-terminated fields: PRIORITY and MESSAGE, and possibly MESSAGE_ID and SYSLOG_IDENTIFIER, once
 * each with a value that echod writes, and ECHOD_ fields. `*message` is the text of MESSAGE in the record.
 * Returns 0 or -EBADMSG. */
int log_record_read(struct log_record *record, const char *bytes, size_t size, const char **message);

#endif
