/* datagram.c - batches of datagrams: received, judged, sent back out of the same memory
 *
 * A message is what one entry of recvmmsg(2) delivers: one datagram, or with UDP_GRO several
 * of one size from one origin, which UDP_SEGMENT sends back as they came (udp(7)). All cost
 * one judgement, each is counted. Whatever goes wrong with one message drops that message.
 */
#include <config.h>

#include "models/datagram.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "echo/conn.h"

#define BATCH 32
#define BATCHES_A_TURN 4

/* Room for the longest message, 65,535 bytes with its headers, and then some. */
#define PAYLOAD_MAX 65536

/* What we ask for takes 150 bytes; whoever made an adopted socket may have asked for more. */
#define CONTROL_MAX 512

#define EVENTS_MAX 16

union control {
	struct cmsghdr align;
	unsigned char bytes[CONTROL_MAX];
};

struct message {
	struct dgram dgram;
	unsigned count;    /* datagrams in it */
	size_t size;       /* of each; the last may be shorter */
	size_t plain;      /* length of the answer's control data without UDP_SEGMENT */
};

struct datagram_batch {
	struct mmsghdr in[BATCH], out[BATCH];
	struct iovec in_piece[BATCH], out_piece[BATCH];
	union control in_control[BATCH], out_control[BATCH];
	struct addr source[BATCH];     /* as received, for the way back */
	struct message message[BATCH]; /* of out[] */
	uint64_t counts[STATS_COUNT];
	unsigned char payload[BATCH][PAYLOAD_MAX];
};

/* --- receiving ------------------------------------------------------------------------- */

static int batch_receive(struct datagram_batch *batch, int fd, bool is_unix)
{
	int n;

	for (unsigned i = 0; i < BATCH; i++) {
		/* an unnamed unix socket writes nothing here */
		batch->source[i].sa.sa_family = AF_UNSPEC;
		batch->in_piece[i] = (struct iovec) { batch->payload[i], PAYLOAD_MAX };
		batch->in[i].msg_hdr = (struct msghdr) {
			.msg_name = &batch->source[i],
			.msg_namelen = sizeof batch->source[i].un,
			.msg_iov = &batch->in_piece[i],
			.msg_iovlen = 1,
			/* without room for control data a unix socket cannot pass us descriptors */
			.msg_control = is_unix ? NULL : &batch->in_control[i],
			.msg_controllen = is_unix ? 0 : sizeof batch->in_control[i],
		};
	}
	do {
		n = recvmmsg(fd, batch->in, BATCH, MSG_DONTWAIT, NULL);
	} while (n < 0 && errno == EINTR);
	return n;
}

static struct in6_addr mapped(struct in_addr in)
{
	struct in6_addr bits = IN6ADDR_ANY_INIT;

	bits.s6_addr[10] = bits.s6_addr[11] = 0xff;
	memcpy(&bits.s6_addr[12], &in, sizeof in);
	return bits;
}

static void read_pktinfo(struct dgram *dgram, const struct cmsghdr *item)
{
	struct in_pktinfo info;

	memcpy(&info, CMSG_DATA(item), sizeof info);
	dgram->to = mapped(info.ipi_addr);
	/* what came before IP_PKTINFO was set on the socket, to start an activated service, has none */
	dgram->local = info.ipi_spec_dst.s_addr == INADDR_ANY ? dgram->to : mapped(info.ipi_spec_dst);
	dgram->interface = (unsigned) info.ipi_ifindex;
}

static void read_pktinfo6(struct dgram *dgram, const struct cmsghdr *item)
{
	struct in6_pktinfo info;

	memcpy(&info, CMSG_DATA(item), sizeof info);
	/* an IPv4 datagram on a socket for both comes with both kinds, of which the other knows more */
	if (IN6_IS_ADDR_V4MAPPED(&info.ipi6_addr))
		return;
	dgram->to = dgram->local = info.ipi6_addr;
	dgram->interface = info.ipi6_ifindex;
}

static int read_int(const struct cmsghdr *item)
{
	int value;

	memcpy(&value, CMSG_DATA(item), sizeof value);
	return value;
}

static bool is_item(const struct cmsghdr *item, int level, int type, size_t size)
{
	return item->cmsg_level == level && item->cmsg_type == type && item->cmsg_len >= CMSG_LEN(size);
}

/* Make `message` of what was received as `in`. False where it did not come whole. */
static bool message_read(struct message *message, struct mmsghdr *in, const struct addr *source)
{
	struct dgram *dgram = &message->dgram;
	struct msghdr *header = &in->msg_hdr;
	int size = 0;

	*message = (struct message) { .dgram = { .source = *source, .hops = -1 } };
	dgram->source.len = header->msg_namelen;
	addr_unmap(&dgram->source);
	for (struct cmsghdr *item = CMSG_FIRSTHDR(header); item; item = CMSG_NXTHDR(header, item)) {
		if (is_item(item, IPPROTO_IP, IP_PKTINFO, sizeof(struct in_pktinfo)))
			read_pktinfo(dgram, item);
		else if (is_item(item, IPPROTO_IPV6, IPV6_PKTINFO, sizeof(struct in6_pktinfo)))
			read_pktinfo6(dgram, item);
		else if (is_item(item, IPPROTO_IP, IP_TTL, sizeof(int)) ||
		         is_item(item, IPPROTO_IPV6, IPV6_HOPLIMIT, sizeof(int)))
			dgram->hops = read_int(item);
		else if (is_item(item, IPPROTO_UDP, UDP_GRO, sizeof(int)))
			size = read_int(item);
	}
	message->size = size > 0 && (unsigned) size < in->msg_len ? (size_t) size : in->msg_len;
	message->count = message->size > 0 ? (unsigned) ((in->msg_len + message->size - 1) / message->size) : 1;
	/* of a unix socket control data is always cut, on purpose */
	return !(header->msg_flags & MSG_TRUNC) && !(header->msg_flags & MSG_CTRUNC && header->msg_control);
}

/* --- judging --------------------------------------------------------------------------- */

/* One line in so long for each reason. */
#define LINES_INTERVAL (60 * USEC_PER_SEC)

static const struct {
	enum conn_reason reason;
	const char *text;
} dropped[STATS_COUNT] = {
	[STAT_UDP_LOW_PORT] = { CONN_DENIED, "its source port is below 1024 or is 2049, and udp-trusted does not list it" },
	[STAT_UDP_OWN_PORT] = { CONN_DENIED, "it came from a port on which this daemon listens, likely another echo service" },
	[STAT_UDP_OWN_ADDRESS] = { CONN_DENIED, "it claims to come from this service itself" },
	[STAT_UDP_NOT_UNICAST] = { CONN_DENIED, "it came from or to an address that is not that of one host" },
	[STAT_UDP_DENIED] = { CONN_DENIED, "denied by allow and deny" },
	[STAT_UDP_LOOP] = { CONN_DENIED, "it has been passed on so often that it may be in a loop" },
	[STAT_UDP_RATE] = { CONN_LIMIT, "its network sends more than udp-rate" },
	[STAT_UDP_SEND_FAILED] = { CONN_ERROR, "it, or the answer, could not be passed on whole" },
};

/* Tell, seldom, that a datagram from `source` is not answered, and why. */
static void tell_dropped(const struct worker *worker, enum stats_counter why, const struct addr *source, int64_t now)
{
	struct log_record record;
	char peer[ADDR_TEXT_MAX];

	if (!log_wants(LOG_INFO) || !ratelimit_allow(&worker->board->datagram_lines[why], now, LINES_INTERVAL, 1))
		return;
	addr_print(source, peer);
	log_begin(&record, LOG_INFO, EVENT_DATAGRAM);
	log_add(&record, "ECHOD_PEER", "%s", peer);
	log_add(&record, "ECHOD_TRANSPORT", "%s", source->sa.sa_family == AF_INET || source->sa.sa_family == AF_INET6 ? "udp" : "unix");
	log_add(&record, "ECHOD_REASON", "%s", conn_reason_name(dropped[why].reason));
	log_end(&record, "A datagram from %s is not answered: %s; others like it are counted, and told once a minute", peer,
	        dropped[why].text);
}

/* How many of the message's datagrams are answered; what is not is counted. */
static unsigned message_judge(const struct datagram *datagram, const struct message *message, int64_t now)
{
	const struct worker *worker = datagram->worker;
	enum stats_counter verdict = dgram_guard(&datagram->rules, &message->dgram);
	uint64_t *counts = datagram->batch->counts;
	unsigned count;

	if (verdict != DGRAM_ANSWER) {
		counts[verdict] += message->count;
		tell_dropped(worker, verdict, &message->dgram.source, now);
		return 0;
	}
	count = meter_take(&worker->board->datagrams, worker->conf->udp_rate, &message->dgram.source, now, message->count);
	counts[STAT_UDP_RATE] += message->count - count;
	if (count < message->count)
		tell_dropped(worker, STAT_UDP_RATE, &message->dgram.source, now);
	return count;
}

/* --- answering ------------------------------------------------------------------------- */

static void control_add(struct msghdr *header, int level, int type, const void *data, size_t size)
{
	struct cmsghdr *item = (struct cmsghdr *) (void *) ((unsigned char *) header->msg_control + header->msg_controllen);

	item->cmsg_level = level;
	item->cmsg_type = type;
	item->cmsg_len = CMSG_LEN(size);
	memcpy(CMSG_DATA(item), data, size);
	header->msg_controllen += CMSG_SPACE(size);
}

/* From the address contacted, out of the interface contacted, with fewer hops. */
static void control_fill(struct msghdr *header, const struct dgram *dgram)
{
	unsigned interface = dgram->interface == DGRAM_LOOPBACK ? 0 : dgram->interface;
	int hops = dgram_answer_hops(dgram->hops);

	if (IN6_IS_ADDR_V4MAPPED(&dgram->local)) {
		struct in_pktinfo info = { .ipi_ifindex = (int) interface };

		memcpy(&info.ipi_spec_dst, &dgram->local.s6_addr[12], sizeof info.ipi_spec_dst);
		control_add(header, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
	} else if (!IN6_IS_ADDR_UNSPECIFIED(&dgram->local)) {
		struct in6_pktinfo info = { .ipi6_addr = dgram->local, .ipi6_ifindex = interface };

		control_add(header, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
	}
	if (dgram->source.sa.sa_family == AF_INET)
		control_add(header, IPPROTO_IP, IP_TTL, &hops, sizeof hops);
	else
		control_add(header, IPPROTO_IPV6, IPV6_HOPLIMIT, &hops, sizeof hops);
}

/* Let out[`at`] answer the first `count` datagrams of in[`from`], whose message is message[`at`]. */
static void answer_make(struct datagram_batch *batch, unsigned at, unsigned from, unsigned count)
{
	struct message *message = &batch->message[at];
	struct msghdr *header = &batch->out[at].msg_hdr;
	size_t length = batch->in[from].msg_len;

	if (count < message->count)
		length = count * message->size;
	message->count = count;
	batch->out_piece[at] = (struct iovec) { batch->payload[from], length };
	*header = (struct msghdr) {
		.msg_name = &batch->source[from],
		.msg_namelen = batch->in[from].msg_hdr.msg_namelen,
		.msg_iov = &batch->out_piece[at],
		.msg_iovlen = 1,
		.msg_control = &batch->out_control[at],
	};
	if (message->dgram.source.sa.sa_family == AF_UNIX)
		return;
	control_fill(header, &message->dgram);
	message->plain = header->msg_controllen;
	if (count > 1) {
		uint16_t size = (uint16_t) message->size;

		control_add(header, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size);
	}
}

static void count_sent(struct datagram_batch *batch, unsigned datagrams, size_t bytes)
{
	batch->counts[STAT_UDP_ECHOED] += datagrams;
	batch->counts[STAT_UDP_BYTES] += bytes;
}

static void answer_failed(const struct datagram *datagram, unsigned at, unsigned datagrams)
{
	/* the kernel knows a broadcast address where we cannot, and asks for SO_BROADCAST, which is never set */
	enum stats_counter why = errno == EACCES ? STAT_UDP_NOT_UNICAST : STAT_UDP_SEND_FAILED;

	datagram->batch->counts[why] += datagrams;
	tell_dropped(datagram->worker, why, &datagram->batch->message[at].dgram.source, clock_coarse_usec());
}

static bool is_refused_for_now(int error)
{
	return error == EAGAIN || error == ENOBUFS || error == ENOMEM;
}

/* The kernel or the route cannot do segments (udp(7)): send the datagrams one by one. */
static void answer_in_pieces(const struct datagram *datagram, int fd, unsigned at)
{
	struct datagram_batch *batch = datagram->batch;
	const struct message *message = &batch->message[at];
	struct iovec piece = batch->out_piece[at];
	struct msghdr header = batch->out[at].msg_hdr;
	size_t left = piece.iov_len;

	header.msg_iov = &piece;
	header.msg_controllen = message->plain;
	for (; left > 0; left -= piece.iov_len) {
		ssize_t n;

		piece.iov_len = left < message->size ? left : message->size;
		n = sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n >= 0)
			count_sent(batch, 1, (size_t) n);
		else
			answer_failed(datagram, at, 1);
		piece.iov_base = (unsigned char *) piece.iov_base + piece.iov_len;
	}
}

static void batch_send(const struct datagram *datagram, int fd, unsigned count)
{
	struct datagram_batch *batch = datagram->batch;
	unsigned done = 0;

	while (done < count) {
		int n = sendmmsg(fd, &batch->out[done], count - done, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			/* the error is that of the first one; the others may fare better */
			if (batch->message[done].count > 1 && !is_refused_for_now(errno))
				answer_in_pieces(datagram, fd, done);
			else
				answer_failed(datagram, done, batch->message[done].count);
			done++;
		}
		for (int i = 0; i < n; i++, done++)
			count_sent(batch, batch->message[done].count, batch->out[done].msg_len);
	}
}

/* --- a turn ---------------------------------------------------------------------------- */

static void batch_publish(struct datagram_batch *batch, struct stats_slot *slot)
{
	for (unsigned i = 0; i < STATS_COUNT; i++) {
		if (batch->counts[i] == 0)
			continue;
		stats_add(slot, (enum stats_counter) i, batch->counts[i]);
		batch->counts[i] = 0;
	}
}

/* Returns whether more may be waiting. */
static bool batch_turn(struct datagram *datagram, int fd, bool is_unix)
{
	struct datagram_batch *batch = datagram->batch;
	int n = batch_receive(batch, fd, is_unix), error = errno;
	int64_t now = clock_usec();
	unsigned answers = 0;

	datagram->worker->tally.work += n >= 0 || (error != EAGAIN && error != EWOULDBLOCK);
	/* nothing there, or an ICMP message about an earlier answer, which is of no interest */
	for (int i = 0; i < n; i++) {
		struct message *message = &batch->message[answers];
		unsigned from = (unsigned) i, count;

		if (!message_read(message, &batch->in[from], &batch->source[from])) {
			batch->counts[STAT_UDP_RECEIVED]++;
			batch->counts[STAT_UDP_SEND_FAILED]++;
			tell_dropped(datagram->worker, STAT_UDP_SEND_FAILED, &message->dgram.source, now);
			continue;
		}
		batch->counts[STAT_UDP_RECEIVED] += message->count;
		count = message_judge(datagram, message, now);
		if (count > 0)
			answer_make(batch, answers++, from, count);
	}
	/* who has an answer may look up that its question was counted */
	batch_publish(batch, datagram->worker->slot);
	batch_send(datagram, fd, answers);
	batch_publish(batch, datagram->worker->slot);
	return n == BATCH;
}

void datagram_turn(struct datagram *datagram, int fd)
{
	bool is_unix = false, more = datagram->batch != NULL;

	for (size_t i = 0; i < datagram->count; i++)
		if (datagram->watches[i].fd == fd)
			is_unix = datagram->own[i].sa.sa_family == AF_UNIX;
	for (int i = 0; i < BATCHES_A_TURN && more; i++)
		more = batch_turn(datagram, fd, is_unix);
}

/* --- opening, watching ----------------------------------------------------------------- */

/* What judging and answering need of a socket beside what it was bound with; what the kernel has
 * not got or a family does not know is done without. */
static void set_options(int fd)
{
	const int on = 1, off = 0;

	(void) setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &on, sizeof on);
	(void) setsockopt(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &on, sizeof on);
	(void) setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on);
	/* of an adopted socket: nobody would take the errors from their queue, nor is a broadcast ever sent */
	(void) setsockopt(fd, IPPROTO_IP, IP_RECVERR, &off, sizeof off);
	(void) setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &off, sizeof off);
	(void) setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &off, sizeof off);
}

int datagram_open(struct datagram *datagram, struct worker *worker)
{
	size_t count = 0;

	*datagram = (struct datagram) { .worker = worker };
	for (size_t i = 0; i < worker->listener_count; i++)
		count += worker->listeners[i].kind == LISTENER_DATAGRAM;
	if (count == 0)
		return 0;
	datagram->watches = calloc(count, sizeof *datagram->watches);
	datagram->own = calloc(count, sizeof *datagram->own);
	if (!datagram->watches || !datagram->own)
		return -ENOMEM;
	datagram->batch = mmap(NULL, sizeof *datagram->batch, PROT_READ | PROT_WRITE,
	                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (datagram->batch == MAP_FAILED) {
		datagram->batch = NULL;
		return -ENOMEM;
	}
	for (size_t i = 0; i < worker->listener_count; i++) {
		const struct listener *listener = &worker->listeners[i];

		if (listener->kind != LISTENER_DATAGRAM)
			continue;
		set_options(listener->fd);
		datagram->own[datagram->count] = listener->addr;
		datagram->watches[datagram->count++] =
			(struct watch) { .fd = listener->fd, .kind = WATCH_OTHER, .interest = WATCH_READ };
	}
	datagram->rules = (struct dgram_rules) {
		.allow = &worker->conf->allow,
		.deny = &worker->conf->deny,
		.trusted = &worker->conf->udp_trusted,
		.own = datagram->own,
		.own_count = datagram->count,
	};
	return 0;
}

void datagram_close(struct datagram *datagram)
{
	if (datagram->batch)
		munmap(datagram->batch, sizeof *datagram->batch);
	free(datagram->watches);
	free(datagram->own);
	*datagram = (struct datagram) { .worker = datagram->worker };
}

int datagram_watch(struct datagram *datagram, const struct ready_ops *ops, struct ready *ready)
{
	int r = 0;

	datagram->ops = ops;
	datagram->ready = ready;
	for (size_t i = 0; i < datagram->count && r == 0; i++)
		r = ops->add(ready, &datagram->watches[i], datagram->worker->workers > 1);
	return r;
}

void datagram_unwatch(struct datagram *datagram)
{
	for (size_t i = 0; i < datagram->count; i++)
		datagram->ops->remove(datagram->ready, &datagram->watches[i], false);
}

void datagram_finish(struct datagram *datagram)
{
	for (size_t i = 0; i < datagram->count; i++)
		datagram_turn(datagram, datagram->watches[i].fd);
}

/* --- a worker of its own --------------------------------------------------------------- */

/* Returns whether to go on: 1, 0 after the order to stop, or -errno. */
static int run_turn(struct datagram *datagram, const struct watch *stop)
{
	struct worker *worker = datagram->worker;
	struct watch_event events[EVENTS_MAX];
	uint64_t before;
	int n = datagram->ops->wait(datagram->ready, events, EVENTS_MAX,
	                            clock_poll_timeout(worker->next_beat, clock_coarse_usec()));

	worker_beat(worker, clock_coarse_usec());
	for (int i = 0; i < n; i++) {
		if (events[i].watch == stop) {
			(void) worker_stop_order(worker);
			return 0;
		}
		before = worker->tally.work;
		datagram_turn(datagram, events[i].watch->fd);
		worker_check_work(worker, before, events[i].watch->fd, WATCH_READ);
	}
	return n < 0 ? n : 1;
}

int datagram_run(struct worker *worker)
{
	struct watch stop = { .fd = worker->stop_fd, .kind = WATCH_STOP, .interest = WATCH_READ };
	struct ready *ready = NULL;
	struct datagram datagram;
	int r = datagram_open(&datagram, worker);

	if (r == 0)
		r = ready_epoll.open(&ready, datagram.count + 1);
	if (r == 0)
		r = ready_epoll.add(ready, &stop, false);
	if (r == 0)
		r = datagram_watch(&datagram, &ready_epoll, ready);
	if (r == 0) {
		worker_ready(worker);
		do {
			r = run_turn(&datagram, &stop);
		} while (r > 0);
		datagram_unwatch(&datagram);
		datagram_finish(&datagram);
	}
	ready_epoll.close(ready);
	datagram_close(&datagram);
	return r;
}
