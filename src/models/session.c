/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/session.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/log_budget.h"
#include "base/probe.h"

/* Maximum number of lines in each interval about connections of one source, and of all sources; suppressed
 * lines are counted and reported. */
#define LINES_SHARE 250
#define LINES_ALL 1000
#define LINES_INTERVAL (10 * USEC_PER_SEC)

/* Tolerated difference, in ticks, between the clock that stamped an activity and the clock it is compared
 * with. */
#define CLOCKS_APART 1000

static const enum stats_counter end_counters[CONN_REASONS] = {
	[CONN_OPEN] = STAT_ENDED_ERROR,    [CONN_EOF] = STAT_ENDED_EOF,     [CONN_RESET] = STAT_ENDED_RESET,
	[CONN_IDLE] = STAT_ENDED_IDLE,     [CONN_LIMIT] = STAT_ENDED_LIMIT, [CONN_DENIED] = STAT_ENDED_DENIED,
	[CONN_PROXY] = STAT_ENDED_PROXY,
	[CONN_DRAIN] = STAT_ENDED_DRAIN,   [CONN_ERROR] = STAT_ENDED_ERROR,
};

void new_conn_init(struct new_conn *new_conn, int fd)
{
	new_conn->fd = fd;
	new_conn->shared_ofd = new_conn->unadmitted = false;
	new_conn->active = clock_usec();
	new_conn->proxied = (struct proxied) { .header_left = 0 };
	conn_init(&new_conn->conn, new_conn->active);
}

bool new_conn_expect_header(struct new_conn *new_conn, const struct conf *conf)
{
	struct addr addr;

	if (conf->proxy_protocol.count == 0 ||
	    (new_conn->peer.family != AF_INET && new_conn->peer.family != AF_INET6))
		return false;
	peer_to_addr(&new_conn->peer, &addr);
	if (!cidr_set_match(&conf->proxy_protocol, &addr))
		return false;
	new_conn->proxied.proxy = new_conn->peer;
	new_conn->conn.header = true;
	return true;
}

void new_conn_from_session(struct new_conn *new_conn, const struct session *session)
{
	*new_conn = (struct new_conn) {
		.fd = session->watch.fd,
		.conn = session->conn,
		.peer = session->peer,
		.proxied = session->proxied,
		.active = session_active_usec(session, clock_usec()),
		.unadmitted = session->readmit,
	};
	if (session->readmit)
		new_conn->conn.header = false;
}

void session_open(struct session *session, const struct new_conn *new_conn)
{
	memset(session, 0, sizeof *session);
	session->conn = new_conn->conn;
	session->peer = new_conn->peer;
	session->proxied = new_conn->proxied;
	session->watch = (struct watch) { .fd = new_conn->fd,
		                          .kind = WATCH_SESSION,
		                          .shared_ofd = new_conn->shared_ofd };
	list_init(&session->link);
	session_touch(session, new_conn->active);
}

/* The budget of this process; the supervisor has one for all processes (log.h). */
static struct log_budget lines = { .share = LINES_SHARE, .all = LINES_ALL, .interval = LINES_INTERVAL };
static pthread_mutex_t lines_lock = PTHREAD_MUTEX_INITIALIZER;

/* Take one line about a connection of `peer` from the budget. Returns false where there is none left. */
static bool line_take(const struct peer *peer)
{
	size_t size = 0;
	bool allowed;

	if (peer->family == AF_INET || peer->family == AF_VSOCK)
		size = 4;
	else if (peer->family == AF_INET6)
		size = 8; /* an IPv6 host has a /64 */
	pthread_mutex_lock(&lines_lock);
	allowed = log_budget_take(&lines, peer->address, size, clock_coarse_usec());
	pthread_mutex_unlock(&lines_lock);
	return allowed;
}

void session_charge_line(const struct peer *peer)
{
	(void) line_take(peer);
}

/* Whether a line of `level` about a connection of `peer` may be written; suppressed ones are counted. */
static bool line_allowed(const struct worker *worker, const struct peer *peer, int level)
{
	if (!worker->conf->log_connections || !log_wants(level))
		return false;
	if (line_take(peer))
		return true;
	stats_add(worker->slot, STAT_LOG_SUPPRESSED, 1);
	return false;
}

/* The address of the peer of a unix socket, which most peers have not (unnamed, unix(7)). */
static void unix_peer(int fd, struct addr *addr)
{
	addr->len = sizeof addr->un;
	if (getpeername(fd, &addr->sa, &addr->len) < 0)
		addr->len = sizeof addr->un.sun_family;
}

/* Begin a record with the fields that every line about a connection has, and print its addresses. */
static void describe(struct log_record *record, int level, int fd, const struct peer *peer,
                     const struct proxied *proxied, enum event event, char peer_text[static ADDR_TEXT_MAX],
                     char local_text[static ADDR_TEXT_MAX])
{
	char proxy[ADDR_TEXT_MAX];
	struct addr addr;

	log_begin(record, level, event);
	if (proxied->proxy.family != 0) {
		peer_to_addr(&proxied->proxy, &addr);
		log_add(record, "ECHOD_PROXY", "%s", addr_print(&addr, proxy));
	}
	peer_to_addr(peer, &addr);
	if (peer->family == AF_UNIX)
		unix_peer(fd, &addr);
	addr_print(&addr, peer_text);
	memset(&addr, 0, sizeof addr);
	addr.len = sizeof addr.un;
	if (getsockname(fd, &addr.sa, &addr.len) < 0)
		addr.len = 0;
	addr_print(&addr, local_text);
	log_add(record, "ECHOD_PEER", "%s", peer_text);
	log_add(record, "ECHOD_LOCAL", "%s", local_text);
	log_add(record, "ECHOD_TRANSPORT", "%s",
	        peer->family == AF_UNIX ? "unix" : peer->family == AF_VSOCK ? "vsock" : "tcp");
}

/* Log an event of a connection that is open, at level debug. */
static void trace(const struct worker *worker, int fd, const struct peer *peer, const struct proxied *proxied,
                  const struct conn *conn, enum event event, const char *what)
{
	char peer_text[ADDR_TEXT_MAX], local[ADDR_TEXT_MAX];
	struct log_record record;

	if (!line_allowed(worker, peer, LOG_DEBUG))
		return;
	describe(&record, LOG_DEBUG, fd, peer, proxied, event, peer_text, local);
	log_add(&record, "ECHOD_BYTES", "%" PRIu64, conn->echoed);
	log_end(&record, "%s to %s %s", peer_text, local, what);
}

void session_trace_accept(const struct worker *worker, const struct new_conn *new_conn)
{
	PROBE2(accept, worker->index, new_conn->fd);
	trace(worker, new_conn->fd, &new_conn->peer, &new_conn->proxied, &new_conn->conn,
	      EVENT_CONNECTION_ACCEPTED, "accepted");
}

void session_trace_receive(const struct worker *worker, const struct new_conn *new_conn)
{
	PROBE2(handover_receive, worker->index, new_conn->fd);
	trace(worker, new_conn->fd, &new_conn->peer, &new_conn->proxied, &new_conn->conn,
	      EVENT_CONNECTION_RECEIVED, "taken over");
}

/* Level of the line about the end of a connection: LOG_DEBUG where no byte was received, as from a health
 * check. */
static int level_of_end(const struct conn *conn)
{
	return conn->echoed == 0 && conn_owed_total(conn) == 0 && conn->reason != CONN_PROXY ? LOG_DEBUG
	                                                                                     : LOG_INFO;
}

static void log_end_of(const struct session *session)
{
	char peer[ADDR_TEXT_MAX], local[ADDR_TEXT_MAX];
	const struct conn *conn = &session->conn;
	int64_t usec = clock_usec() - conn->since;
	struct log_record record;
	char error[128] = "";

	if (conn->reason == CONN_ERROR)
		snprintf(error, sizeof error, " (%s)", strerror(conn->error));
	describe(&record, level_of_end(conn), session->watch.fd, &session->peer, &session->proxied,
	         EVENT_CONNECTION_ENDED, peer,
	         local);
	log_add(&record, "ECHOD_REASON", "%s", conn_reason_name((enum conn_reason) conn->reason));
	log_add(&record, "ECHOD_BYTES", "%" PRIu64, conn->echoed);
	log_add(&record, "ECHOD_DURATION_USEC", "%" PRId64, usec);
	log_end(&record, "%s to %s ended: %s%s, %" PRIu64 " bytes echoed in %" PRId64 ".%03d s", peer, local,
	        conn_reason_name((enum conn_reason) conn->reason), error, conn->echoed, usec / USEC_PER_SEC,
	        (int) (usec % USEC_PER_SEC / 1000));
}

/* Log and count a refusal for `reason`. */
static void refused(const struct worker *worker, int fd, const struct peer *peer,
                    const struct proxied *proxied, enum conn_reason reason)
{
	char peer_text[ADDR_TEXT_MAX], local[ADDR_TEXT_MAX];
	struct log_record record;

	stats_add(worker->slot, end_counters[reason], 1);
	if (!line_allowed(worker, peer, LOG_INFO))
		return;
	describe(&record, LOG_INFO, fd, peer, proxied, EVENT_CONNECTION_REFUSED, peer_text, local);
	log_add(&record, "ECHOD_REASON", "%s", conn_reason_name(reason));
	log_end(&record, "%s to %s refused: %s", peer_text, local,
	        reason == CONN_DENIED ? "denied by allow and deny"
	                              : "its source has max-per-source connections");
}

static enum conn_reason refusal_reason(enum admission_verdict verdict)
{
	return verdict == ADMISSION_DENIED ? CONN_DENIED : CONN_LIMIT;
}

void session_refused(const struct worker *worker, const struct new_conn *new_conn,
                     enum admission_verdict verdict)
{
	refused(worker, new_conn->fd, &new_conn->peer, &new_conn->proxied, refusal_reason(verdict));
}

/* --- PROXY protocol -------------------------------------------------------------------- */

/* Drop what has arrived of the header. Returns whether it is complete. */
static bool header_receive(struct session *session)
{
	struct proxy_header header;
	const uint8_t *data;
	size_t size = conn_pending(&session->conn, &data), n;
	int r;

	if (session->proxied.header_left == 0) {
		r = proxy_parse(data, size, &header);
		if (r < 0)
			conn_end(&session->conn, CONN_PROXY);
		if (r <= 0)
			return false;
		if (header.names_peer)
			session->peer = header.peer;
		n = size < header.length ? size : header.length;
		session->proxied.header_left = (uint32_t) (header.length - n);
	} else {
		n = size < session->proxied.header_left ? size : session->proxied.header_left;
		session->proxied.header_left -= (uint32_t) n;
	}
	conn_drop(&session->conn, n);
	return session->proxied.header_left == 0;
}

void session_admit(struct session *session, const struct worker *worker)
{
	enum admission_verdict verdict = admission_admit(&worker->admission, &session->peer);

	session->readmit = false;
	if (verdict != ADMISSION_OK) {
		conn_end(&session->conn, refusal_reason(verdict));
		return;
	}
	stats_add(worker->slot, STAT_ACCEPTED, 1);
	conn_header_done(&session->conn);
}

void session_header(struct session *session, const struct worker *worker)
{
	if (!header_receive(session))
		return;
	if (!worker || (!worker->admission.own && worker->admission.max_per_source > 0 &&
	                !session->conn.draining))
		session->readmit = true;
	else
		session_admit(session, worker);
}

/* --- end ------------------------------------------------------------------------------- */

static void session_release(struct session *session, struct worker *worker)
{
	/* before the peer sees the end: the parent of a child process then waits for the child (spawn.c) */
	atomic_fetch_sub_explicit(&worker->slot->live, 1, memory_order_release);
	close(session->watch.fd);
	session->watch.fd = -1;
	conn_clear(&session->conn);
	worker->local_stats.work++;
}

void session_close(struct session *session, struct worker *worker)
{
	PROBE4(connection_end, worker->index, session->watch.fd, (int) session->conn.reason,
	       session->conn.echoed);
	if (session->conn.reason == CONN_DENIED || session->conn.reason == CONN_LIMIT) {
		refused(worker, session->watch.fd, &session->peer, &session->proxied,
		        (enum conn_reason) session->conn.reason);
	} else {
		if (line_allowed(worker, &session->peer, level_of_end(&session->conn)))
			log_end_of(session);
		stats_add(worker->slot, end_counters[session->conn.reason], 1);
		if (session->conn.header)
			stats_add(worker->slot, STAT_ACCEPTED, 1);
	}
	/* before the peer sees the end: it may connect again at once */
	if (!session->conn.header)
		admission_leave(&worker->admission, &session->peer);
	session_release(session, worker);
	admission_slot_release(&worker->admission);
}

void session_cut(struct session *session, const struct worker *worker)
{
	conn_end(&session->conn, CONN_DRAIN);
	stats_add(worker->slot, STAT_CUT_OFF, 1);
}

void session_forget(struct session *session, struct worker *worker)
{
	PROBE2(handover_send, worker->index, session->watch.fd);
	trace(worker, session->watch.fd, &session->peer, &session->proxied, &session->conn,
	      EVENT_CONNECTION_SENT, "handed over");
	if (!session->conn.header)
		stats_add(worker->slot, STAT_HANDED_OVER, 1);
	session_release(session, worker);
}

/* Number of ticks since the last activity. */
static uint32_t idle_ticks(const struct session *session, int64_t now)
{
	const uint32_t mask = (1U << SESSION_TICK_BITS) - 1;
	uint32_t age = ((uint32_t) (now >> SESSION_TICK_SHIFT) - session->active) & mask;

	/* the stamp may be newer than the caller's cached clock: an age of 0, not a wrap-around */
	return age > mask - CLOCKS_APART ? 0 : age;
}

int64_t session_active_usec(const struct session *session, int64_t now)
{
	return ((now >> SESSION_TICK_SHIFT) - idle_ticks(session, now)) * (INT64_C(1) << SESSION_TICK_SHIFT);
}

int64_t session_idle_deadline(const struct session *session, const struct conf *conf, int64_t now)
{
	if (conf->idle_timeout == 0)
		return INT64_MAX;
	return session_active_usec(session, now) + (INT64_C(1) << SESSION_TICK_SHIFT) +
	       (int64_t) conf->idle_timeout * USEC_PER_SEC;
}

/* --- order by last activity ------------------------------------------------------------ */

static const struct session *of_link(const struct list *link)
{
	return LIST_ENTRY(link, const struct session, link);
}

void session_enlist(struct list *sessions, struct session *session, int64_t now, int64_t *sort_at)
{
	if (*sort_at == INT64_MAX && !list_empty(sessions) &&
	    idle_ticks(session, now) > idle_ticks(of_link(sessions->prev), now))
		*sort_at = now + (INT64_C(1) << SESSION_TICK_SHIFT);
	list_append(sessions, &session->link);
}

/* Merge two sorted chains, linked by `next` and ended by NULL. */
static struct list *chains_merge(struct list *a, struct list *b, int64_t now)
{
	struct list *first = NULL, **end = &first;

	while (a && b) {
		struct list **from = idle_ticks(of_link(a), now) >= idle_ticks(of_link(b), now) ? &a : &b;

		*end = *from;
		end = &(*from)->next;
		*from = (*from)->next;
	}
	*end = a ? a : b;
	return first;
}

/* Merge sort, because a reload may hand over thousands of sessions in any order. */
void sessions_sort(struct list *sessions, int64_t now, int64_t *sort_at)
{
	struct list *runs[32] = { NULL }; /* sorted chains; runs[i] has 2^i entries */
	struct list *at = sessions->next, *all = NULL;

	if (now < *sort_at)
		return;
	*sort_at = INT64_MAX;
	sessions->prev->next = NULL;
	while (at && at != sessions) {
		struct list *chain = at;
		size_t i = 0;

		at = at->next;
		chain->next = NULL;
		for (; runs[i]; runs[i++] = NULL)
			chain = chains_merge(runs[i], chain, now);
		runs[i] = chain;
	}
	for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++)
		all = chains_merge(runs[i], all, now);
	list_init(sessions);
	while (all) {
		struct list *next = all->next;

		list_append(sessions, all);
		all = next;
	}
}
