/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "base/clock.h"
#include "base/escape.h"
#include "base/log_budget.h"
#include "base/ratelimit.h"
#include "base/timeout.h"

#define FIELDS_MAX 24

/* Maximum time for writing one record, and how long a target that needed more gets no further records. So a
 * target that blocks costs the supervisor at most one fiftieth of its time. */
#define WRITE_TIMEOUT (20 * USEC_PER_MSEC)
#define WRITE_PAUSE (1 * USEC_PER_SEC)
#define JOURNAL_SOCKET "/run/systemd/journal/socket"
#define SYSLOG_SOCKET "/dev/log"

static const char *const event_ids[] = {
#define X(name, id) [name] = id,
	EVENTS(X)
#undef X
};

/* Maximum length of the last error in STATUS=. */
#define LAST_ERROR_MAX 256

/* A target of records. */
struct log_target {
	int fd;               /* is writable while the target accepts records; -1: unknown */
	int64_t paused_until; /* no records before, because it has blocked; clock_usec() */
};

static struct {
	enum log_sink sink;
	int level;
	bool also_stderr;
	bool stderr_is_journal;
	int relay; /* -1 in the supervisor */
	struct log_target service; /* the journal or syslog */
	struct log_target standard_error;
	bool line_cut; /* the last line on standard error has no newline */
	_Atomic uint64_t *lost;
	uint64_t lost_early; /* before there was a counter */
	char last_error[LAST_ERROR_MAX]; /* the last message of LOG_WARNING or worse that was not taken yet,
	                                    or "" */
} state = {
	.sink = LOG_SINK_STDERR,
	.level = LOG_INFO,
	.relay = -1,
	.service = { .fd = -1 },
	.standard_error = { .fd = STDERR_FILENO },
};

static _Thread_local const char *own_model;
static _Thread_local int own_worker = -1;

/* A socket connected to where libc or libsystemd send records: it is writable while the
 * receiver's queue has space (unix_dgram). -1 if no process listens: then sending fails at once. */
static int probe_open(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
	if (connect(fd, (const struct sockaddr *) &addr, sizeof addr) == 0)
		return fd;
	close(fd);
	return -1;
}

void log_open(enum log_sink sink, int level)
{
	if (state.service.fd >= 0)
		close(state.service.fd);
	state.service = (struct log_target) { .fd = -1 };
	if (sink != LOG_SINK_STDERR)
		state.service.fd = probe_open(sink == LOG_SINK_JOURNAL ? JOURNAL_SOCKET : SYSLOG_SOCKET);
	if (sink == LOG_SINK_SYSLOG && state.sink != sink)
		openlog("echod", LOG_PID | LOG_NDELAY, LOG_DAEMON);
	state.sink = sink;
	state.level = level;
	state.stderr_is_journal = log_stderr_is_journal();
}

bool log_journal_listens(void)
{
	int fd = probe_open(JOURNAL_SOCKET);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

bool log_stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	char own[64];
	struct stat st;

	if (!stream || fstat(STDERR_FILENO, &st) < 0)
		return false;
	snprintf(own, sizeof own, "%ju:%ju", (uintmax_t) st.st_dev, (uintmax_t) st.st_ino);
	return strcmp(stream, own) == 0;
}

void log_also_stderr(bool on)
{
	state.also_stderr = on;
}

bool log_wants(int priority)
{
	return priority <= state.level;
}

void log_identify(const char *model, int worker)
{
	own_model = model;
	own_worker = worker;
}

bool log_take_last_error(char *text, size_t size)
{
	if (!*state.last_error)
		return false;
	snprintf(text, size, "%s", state.last_error);
	*state.last_error = '\0';
	return true;
}

void log_count_lost(_Atomic uint64_t *lost)
{
	state.lost = lost;
	if (!lost)
		return;
	atomic_fetch_add_explicit(lost, state.lost_early, memory_order_relaxed);
	state.lost_early = 0;
}

void log_relay_to(int fd, int level, _Atomic uint64_t *lost)
{
	state.level = level;
	state.relay = fd;
	state.lost = lost;
}

static void count_lost(void)
{
	if (state.lost)
		atomic_fetch_add_explicit(state.lost, 1, memory_order_relaxed);
	else
		state.lost_early++;
}

/* Begin to write a record to `target`. Returns false, and counts the record as lost, where that would block.
 * Even if there is room now, the write may block: a terminal that has room for a part of the line is
 * writable, other processes write as well. So the time of the write is limited. */
static bool target_begin(struct log_target *target, struct timeout *timeout)
{
	struct pollfd room = { .fd = target->fd, .events = POLLOUT };

	if (clock_usec() < target->paused_until || (target->fd >= 0 && poll(&room, 1, 0) == 0)) {
		count_lost();
		return false;
	}
	timeout_start(timeout, WRITE_TIMEOUT);
	return true;
}

/* End it. `complete` says whether the whole record was written: then the target did not block, even if the
 * time has passed, as it may where other processes use the processor. Otherwise the record is counted as
 * lost. */
static void target_end(struct log_target *target, struct timeout *timeout, bool complete)
{
	bool expired = timeout_stop(timeout);

	if (complete)
		return;
	if (expired)
		target->paused_until = clock_usec() + WRITE_PAUSE;
	count_lost();
}

static void write_stderr(int priority, const char *message)
{
	static const char *const prefixes[] = {
		[LOG_ERR] = "error: ", [LOG_WARNING] = "warning: ", [LOG_NOTICE] = "",
		[LOG_INFO] = "",       [LOG_DEBUG] = "debug: ",
	};
	char line[LOG_RECORD_MAX + 32];
	struct timeout timeout;
	char level[8] = "";
	ssize_t written;
	int n;

	/* the journal takes each line for information unless it begins so: sd-daemon(3) */
	if (state.stderr_is_journal)
		snprintf(level, sizeof level, "<%d>", priority & LOG_PRIMASK);
	n = snprintf(line, sizeof line, "%s%sechod: %s%s\n", state.line_cut ? "\n" : "", level,
	             priority >= LOG_ERR && priority <= LOG_DEBUG ? prefixes[priority] : "error: ", message);

	if (!target_begin(&state.standard_error, &timeout))
		return;
	/* one write, so that lines of several processes do not mix */
	written = write(STDERR_FILENO, line, (size_t) n);
	if (written > 0)
		state.line_cut = written < n;
	target_end(&state.standard_error, &timeout, written == n);
}

static void write_syslog(int priority, const char *message)
{
	struct timeout timeout;

	if (!target_begin(&state.service, &timeout))
		return;
	errno = 0;
	syslog(priority, "%s", message);
	target_end(&state.service, &timeout,
	           errno != EINTR); /* syslog(3) returns nothing, but leaves errno */
}

static void write_journal(const struct log_record *record)
{
	struct iovec fields[FIELDS_MAX];
	struct timeout timeout;
	int count = 0, r;

	for (size_t at = 0; at < record->length && count < FIELDS_MAX; count++) {
		size_t length = strlen(record->text + at);

		fields[count] = (struct iovec) { .iov_base = (char *) (record->text + at),
			                         .iov_len = length };
		at += length + 1;
	}
	if (!target_begin(&state.service, &timeout))
		return;
	r = sd_journal_sendv(fields, count);
	target_end(&state.service, &timeout, r >= 0);
}

/* Write a finished record to where this process's log goes. */
static void record_write(const struct log_record *record, const char *message)
{
	if (record->priority <= LOG_WARNING)
		snprintf(state.last_error, sizeof state.last_error, "%s", message);
	if (state.sink == LOG_SINK_STDERR || (state.also_stderr && record->priority <= LOG_WARNING))
		write_stderr(record->priority, message);
	if (state.sink == LOG_SINK_SYSLOG)
		write_syslog(record->priority, message);
	else if (state.sink == LOG_SINK_JOURNAL)
		write_journal(record);
}

static void record_relay(const struct log_record *record)
{
	if (send(state.relay, record->text, record->length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		count_lost();
}

/* Add "FIELD=value" with control characters escaped, cut to what fits. */
static void record_add(struct log_record *record, const char *field, const char *value, size_t length)
{
	size_t room = sizeof record->text - record->length;
	int head;

	if (room < 64)
		return;
	head = snprintf(record->text + record->length, room, "%s=", field);
	record->length += (size_t) head;
	record->length += escape_controls(record->text + record->length, room - (size_t) head, value,
	                                  length) +
	                  1;
}

__attribute__((format(printf, 3, 0)))
static void record_vadd(struct log_record *record, const char *field, const char *format, va_list ap)
{
	char value[LOG_RECORD_MAX];
	int n = vsnprintf(value, sizeof value, format, ap);

	if (n >= 0)
		record_add(record, field, value, strlen(value));
}

void log_add(struct log_record *record, const char *field, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	record_vadd(record, field, format, ap);
	va_end(ap);
}

void log_begin(struct log_record *record, int priority, enum event event)
{
	record->priority = priority;
	record->length = 0;
	log_add(record, "PRIORITY", "%d", priority);
	log_add(record, "MESSAGE_ID", "%s", event_ids[event]);
	log_add(record, "SYSLOG_IDENTIFIER", "echod");
	if (own_model)
		log_add(record, "ECHOD_MODEL", "%s", own_model);
	if (own_worker >= 0)
		log_add(record, "ECHOD_WORKER", "%d", own_worker);
}

__attribute__((format(printf, 2, 0)))
static void record_end(struct log_record *record, const char *format, va_list ap)
{
	size_t message = record->length;

	if (!log_wants(record->priority))
		return;
	record_vadd(record, "MESSAGE", format, ap);
	if (record->length == message)
		return;
	if (state.relay >= 0)
		record_relay(record);
	else
		record_write(record, record->text + message + strlen("MESSAGE="));
}

void log_end(struct log_record *record, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	record_end(record, format, ap);
	va_end(ap);
}

void log_event(int priority, enum event event, const char *format, ...)
{
	struct log_record record;
	va_list ap;

	if (!log_wants(priority))
		return;
	log_begin(&record, priority, event);
	va_start(ap, format);
	record_end(&record, format, ap);
	va_end(ap);
}

/* --- records of workers ---------------------------------------------------------------- */

/* Fields that may occur once; the names of others are ECHOD_ and capitals. */
enum { SEEN_PRIORITY = 1, SEEN_ID = 2, SEEN_IDENTIFIER = 4, SEEN_MESSAGE = 8 };

static bool is_own_name(const char *name, size_t length)
{
	return length > strlen("ECHOD_") && length < 40 && strncmp(name, "ECHOD_", 6) == 0 &&
	       strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") == length;
}

static bool is_event_id(const char *value)
{
	for (size_t i = 0; i < sizeof event_ids / sizeof event_ids[0]; i++)
		if (strcmp(value, event_ids[i]) == 0)
			return true;
	return false;
}

/* Check one field of a record. Returns its SEEN_ bit, 0 for one that has none, -1 where it may not be
 * there. */
static int field_check(const char *name, size_t length, const char *value, int *priority)
{
	if (length == 8 && strncmp(name, "PRIORITY", length) == 0) {
		if (value[0] < '0' + LOG_ERR || value[0] > '0' + LOG_DEBUG || value[1] != '\0')
			return -1;
		*priority = value[0] - '0';
		return SEEN_PRIORITY;
	}
	if (length == 10 && strncmp(name, "MESSAGE_ID", length) == 0)
		return is_event_id(value) ? SEEN_ID : -1;
	if (length == 17 && strncmp(name, "SYSLOG_IDENTIFIER", length) == 0)
		return strcmp(value, "echod") == 0 ? SEEN_IDENTIFIER : -1;
	if (length == 7 && strncmp(name, "MESSAGE", length) == 0)
		return SEEN_MESSAGE;
	return is_own_name(name, length) ? 0 : -1;
}

int log_record_read(struct log_record *record, const char *bytes, size_t size, const char **message)
{
	int seen = 0, fields = 0;

	record->length = 0;
	*message = NULL;
	if (size == 0 || bytes[size - 1] != '\0')
		return -EBADMSG;
	for (size_t at = 0; at < size; at += strlen(bytes + at) + 1) {
		const char *equals = strchr(bytes + at, '=');
		size_t length = equals ? (size_t) (equals - (bytes + at)) : 0, before = record->length;
		char name[40];
		int bit;

		if (length == 0 || length >= sizeof name || ++fields > FIELDS_MAX)
			return -EBADMSG;
		bit = field_check(bytes + at, length, equals + 1, &record->priority);
		if (bit < 0 || bit & seen)
			return -EBADMSG;
		seen |= bit;
		snprintf(name, sizeof name, "%.*s", (int) length, bytes + at);
		record_add(record, name, equals + 1, strlen(equals + 1));
		if (record->length == before)
			return -EBADMSG;
		if (bit == SEEN_MESSAGE)
			*message = record->text + before + strlen("MESSAGE=");
	}
	return (seen & SEEN_PRIORITY) && (seen & SEEN_MESSAGE) ? 0 : -EBADMSG;
}

/* Lines of one worker process, and of all; and of them, about the connections of one source, and of all
 * sources. Workers have budgets of their own, but a pool has many workers, and one that is compromised keeps
 * to none. */
static struct log_budget process_lines = { .share = 1000, .all = 4000, .interval = 10 * USEC_PER_SEC };
static struct log_budget source_lines = { .share = 250, .all = 1000, .interval = 10 * USEC_PER_SEC };

/* The value of a field, or NULL. */
static const char *record_find(const struct log_record *record, const char *field)
{
	size_t length = strlen(field);

	for (size_t at = 0; at < record->length; at += strlen(record->text + at) + 1)
		if (strncmp(record->text + at, field, length) == 0 && record->text[at + length] == '=')
			return record->text + at + length + 1;
	return NULL;
}

/* Reduce "192.0.2.1:7" and "[2001:db8::1%eth0]:7" to what a host can choose least: the address, of IPv6 the
 * /64. Other text is a source by itself. Returns the number of bytes. */
static size_t source_key(const char *peer, unsigned char key[static 256])
{
	bool bracket = *peer == '[';
	char text[256];
	size_t length;

	snprintf(text, sizeof text, "%s", peer + bracket);
	text[bracket ? strcspn(text, "%]") : strcspn(text, ":")] = '\0';
	if (inet_pton(bracket ? AF_INET6 : AF_INET, text, key) == 1)
		return bracket ? 8 : 4;
	length = strnlen(peer, 255);
	memcpy(key, peer, length);
	return length;
}

/* Whether the record repeats what another worker process has reported in the last ten seconds: each limits
 * such lines by itself, but all of them are in the same situation at once. */
static bool is_repetition(const struct log_record *record)
{
	static const enum event events[] = { EVENT_EXHAUSTED, EVENT_LIMIT_REACHED };
	static struct ratelimit limits[sizeof events / sizeof events[0]];
	const char *id = record_find(record, "MESSAGE_ID");

	for (size_t i = 0; id && i < sizeof events / sizeof events[0]; i++)
		if (strcmp(id, event_ids[events[i]]) == 0)
			return !ratelimit_allow(&limits[i], clock_coarse_usec(), 10 * USEC_PER_SEC, 1);
	return false;
}

static bool relay_allows(const struct log_record *record, pid_t sender)
{
	const char *peer = record_find(record, "ECHOD_PEER");
	unsigned char key[256];
	int64_t now = clock_coarse_usec();

	return log_budget_take(&process_lines, &sender, sizeof sender, now) &&
	       (!peer || log_budget_take(&source_lines, key, source_key(peer, key), now));
}

/* Receive one record. `*sender` is the process that sent it, as the kernel says (SO_PASSCRED, unix(7)). There
 * is no room for descriptors: the kernel closes those that come along. */
static ssize_t relay_receive(int fd, char *bytes, size_t size, pid_t *sender)
{
	union {
		char bytes[CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = bytes, .iov_len = size };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
		                  .msg_controllen = sizeof control.bytes };
	/* a record that is too long comes cut, and so without the NUL at its end */
	ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	const struct cmsghdr *header = n < 0 ? NULL : CMSG_FIRSTHDR(&message);
	struct ucred credentials;

	*sender = 0;
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_CREDENTIALS) {
		memcpy(&credentials, CMSG_DATA(header), sizeof credentials);
		*sender = credentials.pid;
	}
	return n;
}

int log_relay_receive(int fd, int limit, uint64_t *suppressed)
{
	char bytes[LOG_RECORD_MAX];
	struct log_record record;
	const char *message;
	pid_t sender;
	int count = 0;

	*suppressed = 0;
	while (count < limit) {
		ssize_t n = relay_receive(fd, bytes, sizeof bytes, &sender);

		if (n < 0)
			break;
		count++;
		if (log_record_read(&record, bytes, (size_t) n, &message) < 0)
			count_lost();
		else if (!log_wants(record.priority) || is_repetition(&record))
			continue;
		else if (relay_allows(&record, sender))
			record_write(&record, message);
		else
			++*suppressed;
	}
	return count;
}
