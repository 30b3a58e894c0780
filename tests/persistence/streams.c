/* SPDX-License-Identifier: ISC */
/* streams - keeps many verified streams to an echo service going, and counts errors
 *
 *   streams [-n COUNT] [-s SEED] [-t MSEC] [-k KINDS] HOST PORT
 *
 * Each stream has a kind, a letter of KINDS (assigned in turn; default "rrrribmhhc"):
 *   r  request and response, of random sizes, with pauses of up to MSEC between them
 *   i  idle: sends once, and again at each "settle"
 *   b  bulk: sends without waiting for the echo
 *   m  mute: sends, often until the path is full, does not read for a while, then reads everything
 *   h  half-closed: sends, then FIN, does not read for a while, then reads to the end; connects again
 *   c  connects, exchanges some messages and closes; connects again
 * Every byte that comes back is compared with what was sent.
 *
 * Commands are lines on standard input; each is answered with one line of JSON, the counts:
 *   report     answered at once
 *   mark       reset the longest pause
 *   pass       answered when every stream that waited for bytes has received some
 *   settle N   all streams send; answered when N streams (0: all) have received a byte that was sent
 *              after this; the others are "stalled" if none of them receives a byte for STALL seconds
 *   owe        answered when all streams have sent data that the service cannot echo yet: none reads
 *   end        all streams read until the service ends the connection; "ended" counts the streams
 *              that had received all of their data then
 *   finish     no stream sends more; answered when all was received and both sides have closed
 * Counts: "refused" connects, "reset" connections, "cut" before all was received, "corrupt" ones, "stalled".
 * "pause_ms": the longest time for which a stream that waited for bytes received none. Exit status 0 at
 * the end of the input.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MSEC INT64_C(1000)
#define SEC INT64_C(1000000)
#define TICK (5 * MSEC)
#define STALL (20 * SEC)
#define HOLD (2 * SEC)
#define CHUNK 65536
#define BULK_WINDOW (256 << 10)
#define EVENTS_MAX 512

enum order { ORDER_GO, ORDER_OWE, ORDER_END, ORDER_FINISH };

struct stream {
	int fd;                  /* -1: not connected */
	char kind;
	bool connecting, fin, dead, owing, settled, passed, filled;
	unsigned interest;
	uint64_t key;            /* of the pattern; different for each connection */
	uint64_t sent, got;
	uint64_t quota;          /* bytes to be sent so far */
	uint64_t settle_at;      /* settled when more bytes than this were received */
	int64_t hold_until;      /* does not read before */
	int64_t next;            /* does nothing new before */
	int64_t since;           /* start of the wait for bytes; 0: does not wait */
};

static struct {
	uint64_t made, bytes, refused, reset, cut, corrupt, stalled, ended;
	int64_t pause;
	char pause_kind;
} counts;

static struct stream *streams;
static size_t stream_count = 50, wanted;
static int64_t think = 50 * MSEC, now, settle_last;
static uint64_t seed, random_state, keys;
static enum order order;
static char waiting;             /* first letter of the command that is not answered yet */
static int epoll;
static struct sockaddr_storage address;
static socklen_t address_size;

/* --- helpers --------------------------------------------------------------------------- */

static void die(const char *what)
{
	fprintf(stderr, "streams: %s: %s\n", what, strerror(errno));
	exit(2);
}

static int64_t clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * SEC + ts.tv_nsec / 1000;
}

/* splitmix64 */
static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static uint64_t random_below(uint64_t limit)
{
	random_state += UINT64_C(0x9e3779b97f4a7c15);
	return limit == 0 ? 0 : mix(random_state) % limit;
}

/* Many small sizes, some large ones. */
static uint64_t random_size(void)
{
	return 1 + random_below(UINT64_C(1) << (1 + random_below(15)));
}

/* Bytes `offset` and on of the pattern `key`. */
static void fill(uint8_t *to, uint64_t key, uint64_t offset, size_t size)
{
	for (size_t i = 0; i < size;) {
		uint64_t word = mix(key + (offset + i) / 8);
		size_t at = (offset + i) % 8, n = 8 - at < size - i ? 8 - at : size - i;

		memcpy(to + i, (const uint8_t *) &word + at, n);
		i += n;
	}
}

/* --- one stream ------------------------------------------------------------------------ */

static void watch(struct stream *stream, unsigned interest)
{
	struct epoll_event event = { .events = interest, .data.ptr = stream };

	if (stream->fd < 0 || stream->interest == interest)
		return;
	stream->interest = interest;
	if (epoll_ctl(epoll, EPOLL_CTL_MOD, stream->fd, &event) < 0)
		die("epoll_ctl");
}

static void stream_close(struct stream *stream)
{
	close(stream->fd);
	stream->fd = -1;
	stream->since = 0;
}

static void stream_lost(struct stream *stream, uint64_t *count)
{
	(*count)++;
	stream->dead = true;
	stream_close(stream);
}

static void connected(struct stream *stream, int error)
{
	stream->connecting = false;
	if (error == 0) {
		counts.made++;
		return;
	}
	counts.refused++;
	stream_close(stream);
	stream->next = now + 10 * MSEC;
}

static void stream_connect(struct stream *stream)
{
	struct epoll_event event = { .events = EPOLLOUT, .data.ptr = stream };
	int one = 1, small = 16384;

	stream->fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (stream->fd < 0)
		die("socket");
	(void) setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (stream->kind == 'm' || stream->kind == 'h') {
		/* so that the path is full soon */
		(void) setsockopt(stream->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
		(void) setsockopt(stream->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
	}
	stream->key = mix(seed + ++keys * UINT64_C(0x9e3779b97f4a7c15));
	stream->sent = stream->got = stream->quota = stream->settle_at = 0;
	stream->fin = stream->owing = stream->filled = false;
	stream->hold_until = 0;
	stream->interest = EPOLLOUT;
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, stream->fd, &event) < 0)
		die("epoll_ctl");
	stream->connecting = true;
	if (connect(stream->fd, (struct sockaddr *) &address, address_size) == 0)
		connected(stream, 0);
	else if (errno != EINPROGRESS)
		connected(stream, errno);
}

/* Decide what to send next. */
static void stream_plan(struct stream *stream)
{
	bool fresh = stream->sent == 0 || (waiting == 's' && !stream->settled);

	switch (stream->kind) {
	case 'b':
		stream->quota += 4 * random_size();
		stream->next = now + (int64_t) random_below((uint64_t) think / 4 + 1);
		break;
	case 'm':
		/* as much as the path takes, or little */
		stream->quota += random_below(2) ? 64 << 20 : random_size();
		stream->filled = false;
		break;
	case 'h':
		stream->quota += random_below(4) ? random_size() : 64 << 20;
		stream->filled = false;
		break;
	case 'i':
		if (fresh)
			stream->quota += 1 + random_below(100);
		break;
	default:
		stream->quota += random_size();
		stream->next = now + (int64_t) random_below((uint64_t) think + 1);
	}
}

/* All data was sent, or the path takes no more: do not read for a while. */
static void stream_full(struct stream *stream)
{
	if (stream->kind != 'm' && stream->kind != 'h')
		return;
	if (stream->filled)
		return;
	stream->filled = true;
	stream->quota = stream->sent;
	if (waiting != 's' || stream->settled)
		stream->hold_until = now + (int64_t) random_below(HOLD);
	if (stream->kind == 'h') {
		shutdown(stream->fd, SHUT_WR);
		stream->fin = true;
	}
}

static void stream_send(struct stream *stream)
{
	static uint8_t data[CHUNK];

	while (stream->sent < stream->quota) {
		uint64_t left = stream->quota - stream->sent;
		size_t size = left < CHUNK ? (size_t) left : CHUNK;
		ssize_t n;

		if (stream->kind == 'b' && order == ORDER_GO && stream->sent - stream->got >= BULK_WINDOW)
			return;
		fill(data, stream->key, stream->sent, size);
		n = send(stream->fd, data, size, MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			stream_lost(stream, &counts.reset);
			return;
		}
		if (stream->since == 0)
			stream->since = now;
		stream->sent += (uint64_t) n;
	}
	if (order == ORDER_GO && stream->sent > 0)
		stream_full(stream);
}

static void note_pause(struct stream *stream)
{
	if (stream->since != 0 && now - stream->since > counts.pause) {
		counts.pause = now - stream->since;
		counts.pause_kind = stream->kind;
	}
	stream->since = stream->got < stream->sent ? now : 0;
}

static void note_settled(struct stream *stream)
{
	if (!stream->settled)
		settle_last = now; /* a slow stream is not stalled */
	if (waiting == 's' && !stream->settled && stream->got > stream->settle_at) {
		stream->settled = true;
	}
}

/* The service has ended the connection. */
static void stream_eof(struct stream *stream)
{
	if (stream->got < stream->sent) {
		stream_lost(stream, &counts.cut);
	} else if (order == ORDER_END) {
		counts.ended++;
		stream->dead = true;
		stream_close(stream);
	} else if (stream->fin) {
		stream_close(stream);
		stream->dead = order == ORDER_FINISH;
	} else {
		stream_lost(stream, &counts.cut);
	}
}

static void stream_receive(struct stream *stream)
{
	static uint8_t data[4 * CHUNK], expected[4 * CHUNK];

	for (int i = 0; i < 4; i++) {
		ssize_t n = recv(stream->fd, data, sizeof data, 0);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			stream_lost(stream, &counts.reset);
			return;
		}
		if (n == 0) {
			stream_eof(stream);
			return;
		}
		fill(expected, stream->key, stream->got, (size_t) n);
		if ((uint64_t) n > stream->sent - stream->got || memcmp(data, expected, (size_t) n) != 0) {
			stream_lost(stream, &counts.corrupt);
			return;
		}
		stream->got += (uint64_t) n;
		stream->passed = true;
		counts.bytes += (uint64_t) n;
		note_pause(stream);
		note_settled(stream);
		if ((size_t) n < sizeof data)
			return;
	}
}

/* The remaining actions of a stream under the commands owe, end and finish. */
static void stream_wind_up(struct stream *stream)
{
	stream->hold_until = order == ORDER_OWE && stream->owing ? INT64_MAX : 0;
	if (order == ORDER_OWE && !stream->owing && !stream->fin && stream->got == stream->sent) {
		/* a connection with an echo is no longer in the backlog */
		stream->owing = stream->got > 0;
		stream->quota = stream->sent + 1 + (stream->owing ? random_below(32768) : 0);
	}
	if (order == ORDER_FINISH && !stream->fin && stream->sent == stream->quota) {
		shutdown(stream->fd, SHUT_WR);
		stream->fin = true;
	}
}

/* Decide what a stream does at `now`. */
static void stream_tend(struct stream *stream)
{
	bool quiet, reading;

	if (stream->dead)
		return;
	if (stream->fd < 0 && now >= stream->next) {
		if (order == ORDER_FINISH) {
			stream->dead = true;
			return;
		}
		stream_connect(stream);
	}
	if (stream->fd < 0 || stream->connecting)
		return;
	quiet = stream->sent == stream->quota;
	if (order != ORDER_GO) {
		stream_wind_up(stream);
	} else if (quiet && !stream->fin && now >= stream->next && now >= stream->hold_until &&
	           (stream->kind == 'b' || stream->got == stream->sent)) {
		if (stream->kind == 'c' && stream->sent > 0 && random_below(4) == 0) {
			shutdown(stream->fd, SHUT_WR);
			stream->fin = true;
		} else {
			stream_plan(stream);
		}
	}
	if (stream->sent < stream->quota)
		stream_send(stream);
	if (stream->fd < 0)
		return;
	reading = now >= stream->hold_until;
	if (!reading)
		stream->since = 0;
	else if (stream->since == 0 && stream->got < stream->sent)
		stream->since = now;
	watch(stream, (reading ? EPOLLIN : 0) |
	      (stream->sent < stream->quota &&
	       !(stream->kind == 'b' && stream->sent - stream->got >= BULK_WINDOW) ? EPOLLOUT : 0));
}

static void stream_event(struct stream *stream, unsigned events)
{
	int error = 0;
	socklen_t size = sizeof error;

	if (stream->fd < 0)
		return;
	if (stream->connecting) {
		if (getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
			die("SO_ERROR");
		connected(stream, error);
	} else if (now >= stream->hold_until && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		stream_receive(stream);
	} else if (events & EPOLLERR) {
		stream_lost(stream, &counts.reset);
	}
	stream_tend(stream);
}

/* --- commands -------------------------------------------------------------------------- */

static void answer(void)
{
	size_t live = 0;

	for (size_t i = 0; i < stream_count; i++)
		live += streams[i].fd >= 0;
	printf("{\"live\": %zu, \"made\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"refused\": %" PRIu64
	       ", \"reset\": %" PRIu64 ", \"cut\": %" PRIu64 ", \"corrupt\": %" PRIu64
	       ", \"stalled\": %" PRIu64 ", \"ended\": %" PRIu64
	       ", \"pause_ms\": %.1f, \"pause_kind\": \"%c\", \"seed\": %" PRIu64 "}\n",
	       live, counts.made, counts.bytes, counts.refused, counts.reset, counts.cut, counts.corrupt,
	       counts.stalled, counts.ended, (double) counts.pause / 1000,
	       counts.pause_kind ? counts.pause_kind : '-', seed);
	fflush(stdout);
	waiting = 0;
}

static void settle_begin(void)
{
	for (size_t i = 0; i < stream_count; i++) {
		struct stream *stream = &streams[i];

		stream->settled = stream->dead;
		stream->settle_at = stream->sent;
		stream->hold_until = 0;
		stream->next = 0;
	}
}

static void wind_up(enum order new_order)
{
	order = new_order;
	for (size_t i = 0; i < stream_count; i++)
		if (!streams[i].owing)
			streams[i].quota = streams[i].sent;
}

static void command(const char *line)
{
	waiting = line[0];
	if (!strncmp(line, "settle", 6)) {
		wanted = strtoul(line + 6, NULL, 10);
		settle_begin();
	} else if (!strcmp(line, "mark")) {
		counts.pause = 0;
		counts.pause_kind = 0;
		answer();
	} else if (!strcmp(line, "report")) {
		answer();
	} else if (!strcmp(line, "pass")) {
		for (size_t i = 0; i < stream_count; i++)
			streams[i].passed = streams[i].dead || streams[i].since == 0;
	} else if (!strcmp(line, "owe")) {
		wind_up(ORDER_OWE);
	} else if (!strcmp(line, "end")) {
		wind_up(ORDER_END);
		waiting = 'e';
	} else if (!strcmp(line, "finish")) {
		wind_up(ORDER_FINISH);
	} else {
		fprintf(stderr, "streams: unknown command %s\n", line);
		exit(2);
	}
	settle_last = now;
}

static bool stream_done(const struct stream *stream);

/* Print the state of stalled streams, to find the reason. */
static void tell_stalled(void)
{
	for (size_t i = 0; i < stream_count; i++) {
		const struct stream *stream = &streams[i];

		if (!stream_done(stream))
			fprintf(stderr,
			        "streams: stalled: number %zu, kind %c, fd %d%s%s, quota %" PRIu64
			        ", sent %" PRIu64 ", got %" PRIu64 ", last progress %" PRId64 " ms ago\n",
			        i, stream->kind, stream->fd, stream->connecting ? ", connecting" : "",
			        stream->fin ? ", half-closed" : "", stream->quota, stream->sent, stream->got,
			        stream->since ? (now - stream->since) / MSEC : -1);
	}
}

/* Whether a stream has done what the command asks of all streams. */
static bool stream_done(const struct stream *stream)
{
	if (stream->dead)
		return true;
	switch (waiting) {
	case 's': return stream->settled;
	case 'p': return stream->passed;
	case 'o': return stream->owing && stream->sent == stream->quota;
	default: return false;
	}
}

static void tend_command(void)
{
	static size_t done_before;
	static uint64_t bytes_before;
	size_t done = 0;

	if (!waiting)
		return;
	for (size_t i = 0; i < stream_count; i++)
		done += stream_done(&streams[i]);
	if (done != done_before || (waiting != 's' && counts.bytes != bytes_before))
		settle_last = now;
	done_before = done;
	bytes_before = counts.bytes;
	if (done >= (waiting == 's' && wanted > 0 && wanted < stream_count ? wanted : stream_count)) {
		answer();
	} else if (now - settle_last >= STALL) {
		counts.stalled += stream_count - done;
		tell_stalled();
		answer();
	}
}

/* Returns false at the end of the input. */
static bool read_commands(void)
{
	static char text[256];
	static size_t size;
	ssize_t n = read(STDIN_FILENO, text + size, sizeof text - 1 - size);
	char *end;

	if (n <= 0)
		return false;
	size += (size_t) n;
	text[size] = '\0';
	while ((end = strchr(text, '\n'))) {
		*end = '\0';
		command(text);
		size -= (size_t) (end + 1 - text);
		memmove(text, end + 1, size + 1);
	}
	return true;
}

/* --- the program ----------------------------------------------------------------------- */

static void run(void)
{
	struct epoll_event events[EVENTS_MAX], input = { .events = EPOLLIN };
	int64_t tick = 0;

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input) < 0)
		die("standard input");
	for (;;) {
		int n = epoll_wait(epoll, events, EVENTS_MAX, (int) (TICK / MSEC));

		now = clock_now();
		for (int i = 0; i < n; i++) {
			if (!events[i].data.ptr) {
				if (!read_commands())
					return;
			} else {
				stream_event(events[i].data.ptr, events[i].events);
			}
		}
		if (now < tick)
			continue;
		for (size_t i = 0; i < stream_count; i++)
			stream_tend(&streams[i]);
		tend_command();
		tick = now + TICK;
	}
}

static void resolve(const char *host, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV },
			*found;
	int r = getaddrinfo(host, port, &hints, &found);

	if (r != 0) {
		fprintf(stderr, "streams: %s %s: %s\n", host, port, gai_strerror(r));
		exit(2);
	}
	memcpy(&address, found->ai_addr, found->ai_addrlen);
	address_size = found->ai_addrlen;
	freeaddrinfo(found);
}

int main(int argc, char **argv)
{
	const char *kinds = "rrrribmhhc";
	struct rlimit limit;
	int option;

	seed = (uint64_t) clock_now();
	while ((option = getopt(argc, argv, "n:s:t:k:")) != -1) {
		switch (option) {
		case 'n': stream_count = strtoul(optarg, NULL, 10); break;
		case 's': seed = strtoull(optarg, NULL, 10); break;
		case 't': think = strtol(optarg, NULL, 10) * MSEC; break;
		case 'k': kinds = optarg; break;
		default: return 2;
		}
	}
	if (argc - optind != 2 || stream_count == 0 || !*kinds || kinds[strspn(kinds, "ribmhc")]) {
		fprintf(stderr, "usage: streams [-n COUNT] [-s SEED] [-t MSEC] [-k KINDS] HOST PORT\n");
		return 2;
	}
	resolve(argv[optind], argv[optind + 1]);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void) setrlimit(RLIMIT_NOFILE, &limit);
	}
	random_state = seed;
	streams = calloc(stream_count, sizeof *streams);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!streams || epoll < 0)
		die("start");
	for (size_t i = 0; i < stream_count; i++) {
		streams[i].fd = -1;
		streams[i].kind = kinds[i % strlen(kinds)];
	}
	run();
	return 0;
}
