/* SPDX-License-Identifier: ISC */
/* datagram.c - batches of datagrams: received, checked, sent back from the same memory
 *
 * A message is one entry of recvmmsg(2): one datagram, or with UDP_GRO several of one size from one source,
 * which UDP_SEGMENT sends back as they came (udp(7)). A message is checked once, but each of its datagrams is
 * counted. An error of one message drops that message only.
 */
#include <config.h>

#include "models/datagram.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/clock.h"
#include "base/log.h"
#include "echo/conn.h"
#include "echo/udp_ratelimit.h"
#include "net/sockopt.h"
#include "models/poller.h"

#define BATCH 32
#define BATCHES_MAX 4

/* Size of the longest message: 65,535 bytes with its headers. */
#define PAYLOAD_MAX 65536

/* RFC 8200, section 5 */
#define IPV6_MTU_MINIMUM 1280

/* linux/in6.h, which cannot be included together with netinet/in.h */
#ifndef IPV6_RECVFRAGSIZE
#define IPV6_RECVFRAGSIZE 77
#endif

/* Offset between payloads, not a multiple of a large power of two, because their beginnings would compete for
 * the same processor cache lines. */
#define PAYLOAD_STRIDE (PAYLOAD_MAX + 3 * 64)

/* The control data that this module requests take 200 bytes; the creator of an adopted socket may have
 * requested more. */
#define CONTROL_MAX 512

/* Minimum memory that the kernel counts for a datagram in the queue of a socket: struct sk_buff alone is
 * larger. */
#define QUEUED_MIN 200

/* While datagrams arrive at shorter intervals than this, the reader waits for them in recvmmsg(2), without
 * poll(2), in periods of this length; so a stop request waits at most twice as long. */
#define RECEIVE_TIMEOUT (25 * USEC_PER_MSEC)

/* Minimum interval between two log lines for the same reason and the same hash of the source. */
#define LINES_INTERVAL (60 * USEC_PER_SEC)

union control {
	struct cmsghdr align;
	unsigned char bytes[CONTROL_MAX];
};

/* A message that was received. */
struct message {
	struct dgram dgram;
	unsigned count; /* number of datagrams */
	size_t size;    /* of each datagram; the last may be shorter */
	int fragment;   /* size of the IPv6 fragments that it arrived in; 0: not fragmented */
};

/* What an entry of out[] sends, `size` and `fragment` as in the message that it answers. */
struct answer {
	unsigned from;  /* index of that message */
	unsigned count; /* number of datagrams */
	size_t size;
	size_t plain;   /* length of the control data without UDP_SEGMENT */
	int fragment;
};

struct datagram_batch {
	struct mmsghdr in[BATCH], out[BATCH];
	unsigned used; /* number of entries of in[] that recvmmsg(2) has written to since they were
	                * prepared */
	struct iovec in_piece[BATCH], out_piece[BATCH];
	union control in_control[BATCH], out_control[BATCH];
	struct addr source[BATCH]; /* as received; destination of the answer */
	struct answer answer[BATCH];
	uint64_t counts[STATS_COUNT]; /* of datagrams (STAT_UDP_*) */
	unsigned char payload[BATCH][PAYLOAD_STRIDE];
};

/* Set an option, ignoring kernels and address families that do not have it. */
static void set_option(int fd, int level, int option, int value)
{
	(void) sockopt_set(fd, level, option, value);
}

/* --- receiving ------------------------------------------------------------------------- */

/* Prepare entry `i` of in[] for the next recvmmsg(2). */
static void entry_prepare(struct datagram_batch *batch, unsigned i, bool is_unix)
{
	/* an unnamed unix socket writes no address */
	batch->source[i].sa.sa_family = AF_UNSPEC;
	batch->in[i].msg_hdr = (struct msghdr) {
		.msg_name = &batch->source[i],
		.msg_namelen = sizeof batch->source[i].un,
		.msg_iov = &batch->in_piece[i],
		.msg_iovlen = 1,
		/* without space for control data a unix socket cannot pass descriptors */
		.msg_control = is_unix ? NULL : &batch->in_control[i],
		.msg_controllen = is_unix ? 0 : sizeof batch->in_control[i],
	};
}

/* `wait`: MSG_DONTWAIT, or MSG_WAITFORONE to wait for the first message up to RECEIVE_TIMEOUT. Returns the
 * number of messages, or -1 with errno set. */
static int batch_receive(struct datagram_batch *batch, int fd, bool is_unix, int wait)
{
	int n;

	for (; batch->used > 0; batch->used--)
		entry_prepare(batch, batch->used - 1, is_unix);
	do
		n = recvmmsg(fd, batch->in, BATCH, wait, NULL);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		batch->used = (unsigned) n;
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
	/* datagrams that arrived before IP_PKTINFO was set, as those that start an activated service, have no
	 * address here */
	dgram->local = info.ipi_spec_dst.s_addr == INADDR_ANY ? dgram->to : mapped(info.ipi_spec_dst);
	dgram->interface = (unsigned) info.ipi_ifindex;
}

static void read_pktinfo6(struct dgram *dgram, const struct cmsghdr *item)
{
	struct in6_pktinfo info;

	memcpy(&info, CMSG_DATA(item), sizeof info);
	/* an IPv4 datagram on a dual-stack socket has both items; IP_PKTINFO contains more */
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

/* Set `*source` to the source of in[`from`], an IPv4-mapped address as IPv4. */
static void source_read(struct addr *source, const struct datagram_batch *batch, unsigned from)
{
	*source = batch->source[from];
	source->len = batch->in[from].msg_hdr.msg_namelen;
	addr_unmap(source);
}

/* Fill `*message` from in[`from`]. Returns false where it was truncated. */
static bool message_read(struct message *message, struct datagram_batch *batch, unsigned from)
{
	struct dgram *dgram = &message->dgram;
	struct mmsghdr *in = &batch->in[from];
	struct msghdr *header = &in->msg_hdr;
	int size = 0;

	*message = (struct message) { .dgram = { .hops = -1 } };
	source_read(&dgram->source, batch, from);
	for (struct cmsghdr *item = CMSG_FIRSTHDR(header); item; item = CMSG_NXTHDR(header, item)) {
		if (is_item(item, IPPROTO_IP, IP_PKTINFO, sizeof(struct in_pktinfo)))
			read_pktinfo(dgram, item);
		else if (is_item(item, IPPROTO_IPV6, IPV6_PKTINFO, sizeof(struct in6_pktinfo)))
			read_pktinfo6(dgram, item);
		else if (is_item(item, IPPROTO_IP, IP_TTL, sizeof(int)) ||
		         is_item(item, IPPROTO_IPV6, IPV6_HOPLIMIT, sizeof(int)))
			dgram->hops = read_int(item);
		else if (is_item(item, IPPROTO_IP, IP_TOS, sizeof(uint8_t)))
			dgram->traffic_class = *CMSG_DATA(item);
		else if (is_item(item, IPPROTO_IPV6, IPV6_TCLASS, sizeof(int)))
			dgram->traffic_class = read_int(item) & 0xff;
		else if (is_item(item, IPPROTO_IPV6, IPV6_RECVFRAGSIZE, sizeof(int)))
			message->fragment = read_int(item);
		else if (is_item(item, IPPROTO_UDP, UDP_GRO, sizeof(int)))
			size = read_int(item);
	}
	message->size = size > 0 && (unsigned) size < in->msg_len ? (size_t) size : in->msg_len;
	message->count =
		message->size > 0 ? (unsigned) ((in->msg_len + message->size - 1) / message->size) : 1;
	/* control data of a unix socket are always truncated, on purpose */
	return !(header->msg_flags & MSG_TRUNC) && !(header->msg_flags & MSG_CTRUNC && header->msg_control);
}

/* --- checking -------------------------------------------------------------------------- */

static const struct {
	enum conn_reason reason;
	const char *text;
} dropped[STATS_COUNT] = {
	[STAT_UDP_LOW_PORT] = { CONN_DENIED, "its source port is below 1024 or 2049, and udp-trusted does "
	                                     "not contain its source" },
	[STAT_UDP_OWN_PORT] = { CONN_DENIED, "its source port is one of this service, probably another echo "
	                                     "service" },
	[STAT_UDP_OWN_ADDRESS] = { CONN_DENIED, "its source is the address of this service" },
	[STAT_UDP_NOT_UNICAST] = { CONN_DENIED, "its source or destination is not a unicast address" },
	[STAT_UDP_DENIED] = { CONN_DENIED, "denied by allow and deny" },
	[STAT_UDP_LOOP] = { CONN_DENIED, "its TTL or hop limit is too low, possible loop" },
	[STAT_UDP_RATE] = { CONN_LIMIT, "its network exceeds udp-rate" },
	[STAT_UDP_SEND_FAILED] = { CONN_ERROR, "it was truncated, or the answer could not be sent" },
};

/* Log that a datagram from `source`, whose network has this hash, is not answered, and the reason; at most
 * one line in LINES_INTERVAL for each reason and hash, so that a flood from one source does not suppress
 * lines about others. */
static void log_dropped(struct datagram *datagram, enum stats_counter why, const struct addr *source,
                        uint64_t hash, int64_t now)
{
	struct ratelimit *limit = &datagram->lines[why][hash >> 32 & (DATAGRAM_LINES - 1)];
	bool is_unix = datagram->listener->addr.sa.sa_family == AF_UNIX;
	struct log_record record;
	char peer[ADDR_TEXT_MAX];

	if (!log_wants(LOG_INFO) || !ratelimit_allow(limit, now, LINES_INTERVAL, 1))
		return;
	addr_print(source, peer);
	log_begin(&record, LOG_INFO, EVENT_DATAGRAM);
	log_add(&record, "ECHOD_PEER", "%s", peer);
	log_add(&record, "ECHOD_TRANSPORT", "%s", is_unix ? "unix" : "udp");
	log_add(&record, "ECHOD_REASON", "%s", conn_reason_name(dropped[why].reason));
	log_end(&record, "Dropped datagram from %s: %s; more are counted, and logged once a minute", peer,
	        dropped[why].text);
}

/* Count `count` datagrams from `source` that are not answered, and log the reason. */
static void datagrams_dropped(struct datagram *datagram, const struct addr *source, enum stats_counter why,
                              unsigned count, int64_t now)
{
	datagram->batch->counts[why] += count;
	log_dropped(datagram, why, source, udp_ratelimit_hash(datagram->udp_ratelimit, source), now);
}

/* Returns the number of the message's datagrams to answer; counts the others. */
static unsigned message_check(struct datagram *datagram, const struct message *message, int64_t now)
{
	const struct addr *source = &message->dgram.source;
	enum stats_counter verdict = dgram_filter(&datagram->rules, &message->dgram);
	unsigned rate = datagram->worker->conf->udp_rate, count = message->count;

	if (verdict != DGRAM_ANSWER) {
		datagrams_dropped(datagram, source, verdict, message->count, now);
		return 0;
	}
	if (rate > 0)
		count = udp_ratelimit_take(datagram->udp_ratelimit, rate,
		                           udp_ratelimit_hash(datagram->udp_ratelimit, source), now, count);
	if (count < message->count)
		datagrams_dropped(datagram, source, STAT_UDP_RATE, message->count - count, now);
	return count;
}

/* --- answering ------------------------------------------------------------------------- */

static void control_add(struct msghdr *header, int level, int type, const void *data, size_t size)
{
	struct cmsghdr *item =
		(struct cmsghdr *) (void *) ((unsigned char *) header->msg_control + header->msg_controllen);

	item->cmsg_level = level;
	item->cmsg_type = type;
	item->cmsg_len = CMSG_LEN(size);
	memcpy(CMSG_DATA(item), data, size);
	header->msg_controllen += CMSG_SPACE(size);
}

/* Set source address, hop limit and, with reflect-dscp, DSCP of an answer. */
static void control_fill(struct msghdr *header, const struct datagram *datagram, const struct dgram *dgram)
{
	unsigned interface = dgram_answer_interface(dgram);
	int hops = dgram_answer_hops(dgram->hops), traffic_class = dgram->traffic_class & DGRAM_DSCP;
	bool ipv4 = dgram->source.sa.sa_family == AF_INET;

	/* a socket bound to one address sends from it anyway */
	if (!datagram->wildcard && interface == 0) {
	} else if (IN6_IS_ADDR_V4MAPPED(&dgram->local)) {
		struct in_pktinfo info = { .ipi_ifindex = (int) interface };

		memcpy(&info.ipi_spec_dst, &dgram->local.s6_addr[12], sizeof info.ipi_spec_dst);
		control_add(header, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
	} else if (!IN6_IS_ADDR_UNSPECIFIED(&dgram->local)) {
		struct in6_pktinfo info = { .ipi6_addr = dgram->local, .ipi6_ifindex = interface };

		control_add(header, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
	}
	if (hops != datagram->hops && ipv4)
		control_add(header, IPPROTO_IP, IP_TTL, &hops, sizeof hops);
	if (hops != datagram->hops && !ipv4)
		control_add(header, IPPROTO_IPV6, IPV6_HOPLIMIT, &hops, sizeof hops);
	if (!datagram->worker->conf->reflect_dscp || traffic_class == 0)
		return;
	if (ipv4)
		control_add(header, IPPROTO_IP, IP_TOS, &traffic_class, sizeof traffic_class);
	else
		control_add(header, IPPROTO_IPV6, IPV6_TCLASS, &traffic_class, sizeof traffic_class);
}

/* Make out[`at`] answer the first `count` datagrams of in[`from`], which is `message`. */
static void answer_make(const struct datagram *datagram, unsigned at, unsigned from,
                        const struct message *message, unsigned count)
{
	struct datagram_batch *batch = datagram->batch;
	struct answer *answer = &batch->answer[at];
	struct msghdr *header = &batch->out[at].msg_hdr;
	size_t length = batch->in[from].msg_len;

	if (count < message->count)
		length = count * message->size;
	*answer = (struct answer) {
		.from = from, .count = count, .size = message->size, .fragment = message->fragment
	};
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
	control_fill(header, datagram, &message->dgram);
	answer->plain = header->msg_controllen;
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

static void answer_failed(struct datagram *datagram, unsigned at, unsigned datagrams)
{
	/* the kernel asks for SO_BROADCAST, which is never set, if the destination is a broadcast address,
	 * also one that dgram_filter() cannot recognize */
	enum stats_counter why = errno == EACCES ? STAT_UDP_NOT_UNICAST : STAT_UDP_SEND_FAILED;
	struct addr source;

	source_read(&source, datagram->batch, datagram->batch->answer[at].from);
	datagrams_dropped(datagram, &source, why, datagrams, clock_coarse_usec());
}

static bool is_refused_for_now(int error)
{
	return error == EAGAIN || error == ENOBUFS || error == ENOMEM;
}

/* Send the datagrams one by one, because the kernel or the route does not support segments (udp(7)). */
static void answer_in_pieces(struct datagram *datagram, int fd, unsigned at)
{
	struct datagram_batch *batch = datagram->batch;
	const struct answer *answer = &batch->answer[at];
	struct iovec piece = batch->out_piece[at];
	struct msghdr header = batch->out[at].msg_hdr;
	size_t left = piece.iov_len;

	header.msg_iov = &piece;
	header.msg_controllen = answer->plain;
	for (; left > 0; left -= piece.iov_len) {
		ssize_t n;

		piece.iov_len = left < answer->size ? left : answer->size;
		n = sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n >= 0)
			count_sent(batch, 1, (size_t) n);
		else
			answer_failed(datagram, at, 1);
		piece.iov_base = (unsigned char *) piece.iov_base + piece.iov_len;
	}
}

/* Routers do not fragment IPv6, and this socket does not use path MTUs, so a datagram that arrived in
 * fragments is answered in fragments of the same size. Sets IPV6_MTU for answer `at`. Returns the number of
 * consecutive answers, at most `count`, that need the same value. */
static unsigned mtu_update(struct datagram *datagram, int fd, unsigned at, unsigned count)
{
	const struct answer *answer = &datagram->batch->answer[at];
	int mtu = answer->fragment;
	unsigned same = 1;

	while (same < count && answer[same].fragment == mtu)
		same++;
	if (mtu == datagram->mtu)
		return same;
	datagram->mtu = mtu;
	if (mtu > 0 && mtu < IPV6_MTU_MINIMUM)
		mtu = IPV6_MTU_MINIMUM;
	set_option(fd, IPPROTO_IPV6, IPV6_MTU, mtu);
	return same;
}

static void batch_send(struct datagram *datagram, int fd, unsigned count)
{
	struct datagram_batch *batch = datagram->batch;
	unsigned done = 0;

	while (done < count) {
		unsigned some = mtu_update(datagram, fd, done, count - done);
		int n = sendmmsg(fd, &batch->out[done], some, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			/* the error is that of the first answer; try the others */
			if (batch->answer[done].count > 1 && !is_refused_for_now(errno))
				answer_in_pieces(datagram, fd, done);
			else
				answer_failed(datagram, done, batch->answer[done].count);
			done++;
		}
		for (int i = 0; i < n; i++, done++)
			count_sent(batch, batch->answer[done].count, batch->out[done].msg_len);
	}
}

/* --- a step --------------------------------------------------------------------------- */

static void batch_publish(struct datagram_batch *batch, struct stats_slot *slot)
{
	for (unsigned i = STAT_UDP_RECEIVED; i <= STAT_UDP_SEND_FAILED; i++) {
		if (batch->counts[i] == 0)
			continue;
		stats_add(slot, (enum stats_counter) i, batch->counts[i]);
		batch->counts[i] = 0;
	}
}

/* Receive one batch and answer it; `wait` as for batch_receive(). Returns the number of messages, or -1 with
 * errno set. */
static int batch_step(struct datagram *datagram, int wait)
{
	struct datagram_batch *batch = datagram->batch;
	bool is_unix = datagram->listener->addr.sa.sa_family == AF_UNIX;
	int n = batch_receive(batch, datagram->listener->fd, is_unix, wait), error = errno;
	int64_t now = clock_coarse_usec();
	unsigned answers = 0;

	datagram->worker->local_stats.work += n >= 0 || (error != EAGAIN && error != EWOULDBLOCK);
	if (n > 0)
		datagram->received_at = now;
	for (unsigned from = 0; n > 0 && from < (unsigned) n; from++) {
		struct message message;
		unsigned count = 0;
		bool whole;

		if (!is_unix && batch->in[from].msg_hdr.msg_namelen == 0) {
			/* no datagram: a process that has the socket, too, has called shutdown(2), after
			 * which receiving does not wait any more */
			datagram->blocking = false;
			continue;
		}
		whole = message_read(&message, batch, from);
		batch->counts[STAT_UDP_RECEIVED] += message.count;
		if (whole)
			count = message_check(datagram, &message, now);
		else
			datagrams_dropped(datagram, &message.dgram.source, STAT_UDP_SEND_FAILED,
			                  message.count, now);
		if (count > 0)
			answer_make(datagram, answers++, from, &message, count);
	}
	/* publish before sending: a client that has an answer may read the counters at once */
	batch_publish(batch, datagram->worker->slot);
	batch_send(datagram, datagram->listener->fd, answers);
	batch_publish(batch, datagram->worker->slot);
	return n;
}

/* Discard the error queue: while it is not empty, the socket is always readable. The creator of an adopted
 * socket may have requested time stamps of sent datagrams, which arrive there. */
static void errors_discard(int fd)
{
	char byte;

	for (int i = 0; i < BATCH; i++)
		if (recv(fd, &byte, sizeof byte, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			return;
}

void datagram_read(struct datagram *datagram)
{
	int n = batch_step(datagram, MSG_DONTWAIT);

	if (n <= 0)
		errors_discard(datagram->listener->fd);
	for (int i = 1; i < BATCHES_MAX && n == BATCH; i++)
		n = batch_step(datagram, MSG_DONTWAIT);
}

void datagram_read_stream(struct datagram *datagram)
{
	int64_t until = datagram->received_at + RECEIVE_TIMEOUT;

	while (datagram->blocking && datagram->received_at < until &&
	       batch_step(datagram, MSG_WAITFORONE) > 0)
		;
}

/* Read and answer the datagrams that are in the socket's queue now, before the reader ends. */
static void datagram_read_rest(struct datagram *datagram)
{
	uint32_t memory[SK_MEMINFO_VARS] = { 0 };
	socklen_t size = sizeof memory;
	int64_t left;
	int n;

	/* at most as many as can have been there at first, so that a flood does not delay the end */
	(void) getsockopt(datagram->listener->fd, SOL_SOCKET, SO_MEMINFO, memory, &size);
	left = (int64_t) memory[SK_MEMINFO_RMEM_ALLOC] / QUEUED_MIN + BATCH;
	do {
		n = batch_step(datagram, MSG_DONTWAIT);
		left -= n;
	} while (n > 0 && left > 0);
}

/* --- opening --------------------------------------------------------------------------- */

/* Whether recvmmsg(2) can wait for a datagram, at most RECEIVE_TIMEOUT. Not on a unix socket, where an empty
 * message from an unnamed socket is not distinct from the result after shutdown(2). */
static bool can_block(const struct listener *listener)
{
	const struct timeval timeout = { .tv_usec = RECEIVE_TIMEOUT };

	return listener->blocking && listener->addr.sa.sa_family != AF_UNIX &&
	       setsockopt(listener->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0;
}

void datagram_start(struct datagram *datagram)
{
	bool reflect_dscp = datagram->worker->conf->reflect_dscp;
	int fd = datagram->listener->fd, hops = dgram_answer_hops(DGRAM_HOPS_MAX);
	bool ipv6 = datagram->listener->addr.sa.sa_family == AF_INET6;

	set_option(fd, IPPROTO_IP, IP_RECVTTL, 1);
	set_option(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
	set_option(fd, IPPROTO_IP, IP_RECVTOS, reflect_dscp);
	set_option(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, reflect_dscp);
	set_option(fd, IPPROTO_UDP, UDP_GRO, 1);
	/* fragment answers by the interface's MTU; path MTUs, which can be forged, have no effect */
	set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT);
	set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_OMIT);
	set_option(fd, IPPROTO_IPV6, IPV6_MTU, 0);
	/* the value of most answers, which then need no control data */
	if (sockopt_set(fd, IPPROTO_IP, IP_TTL, hops) == 0 &&
	    (!ipv6 || sockopt_set(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, hops) == 0))
		datagram->hops = hops;
	set_option(fd, IPPROTO_IPV6, IPV6_RECVFRAGSIZE, 1);
	/* for adopted sockets: nothing is to be queued as an error, and broadcasts are never sent */
	set_option(fd, IPPROTO_IP, IP_RECVERR, 0);
	set_option(fd, IPPROTO_IPV6, IPV6_RECVERR, 0);
	set_option(fd, SOL_SOCKET, SO_TIMESTAMPING, 0);
	set_option(fd, SOL_SOCKET, SO_BROADCAST, 0);
	datagram->blocking = can_block(datagram->listener);
}

static bool is_wildcard(const struct addr *addr)
{
	if (addr->sa.sa_family == AF_INET)
		return addr->in.sin_addr.s_addr == INADDR_ANY;
	return addr->sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&addr->in6.sin6_addr);
}

static int batch_make(struct datagram_batch **result)
{
	struct datagram_batch *batch = mmap(NULL, sizeof *batch, PROT_READ | PROT_WRITE,
	                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (batch == MAP_FAILED)
		return -errno;
	for (unsigned i = 0; i < BATCH; i++)
		batch->in_piece[i] = (struct iovec) { batch->payload[i], PAYLOAD_MAX };
	batch->used = BATCH;
	*result = batch;
	return 0;
}

int datagram_open(struct datagram *datagram, struct worker *worker, const struct listener *listener,
                  int udp_ratelimit)
{
	int r;

	*datagram = (struct datagram) { .worker = worker,
		                        .listener = listener,
		                        .wildcard = is_wildcard(&listener->addr) };
	datagram->own = calloc(worker->listener_count, sizeof *datagram->own);
	if (!datagram->own)
		return -ENOMEM;
	for (size_t i = 0; i < worker->listener_count; i++)
		datagram->own[i] = worker->listeners[i].addr;
	datagram->rules = (struct dgram_rules) {
		.allow = &worker->conf->allow,
		.deny = &worker->conf->deny,
		.trusted = &worker->conf->udp_trusted,
		.own = datagram->own,
		.own_count = worker->listener_count,
	};
	r = udp_ratelimit_map(&datagram->udp_ratelimit, udp_ratelimit);
	if (r == 0)
		r = batch_make(&datagram->batch);
	return r;
}

void datagram_close(struct datagram *datagram)
{
	if (datagram->batch)
		munmap(datagram->batch, sizeof *datagram->batch);
	udp_ratelimit_unmap(datagram->udp_ratelimit);
	free(datagram->own);
	*datagram = (struct datagram) { .worker = datagram->worker };
}

/* --- the life of a reader -------------------------------------------------------------- */

/* Wait for events on `fds`, of which the first is worker->stop_fd, and increase the heartbeat. Returns 1; 0
 * when the worker must stop; or -errno. */
static int wait_for(struct worker *worker, struct pollfd *fds, size_t count)
{
	int n = poll(fds, count, clock_poll_timeout(worker->next_heartbeat, clock_coarse_usec()));

	worker_heartbeat(worker, clock_coarse_usec());
	if (n < 0)
		return clock_poll_retry(errno) ? 1 : -errno;
	if (!fds[0].revents)
		return 1;
	worker_trace_stop(worker);
	return 0;
}

/* Wait until all predecessors have ended. Returns as wait_for(). */
static int wait_for_predecessors(struct worker *worker, const int *predecessors, size_t count)
{
	struct pollfd *fds = calloc(count + 1, sizeof *fds);
	size_t left = count;
	int r = 1;

	if (!fds)
		return -ENOMEM;
	fds[0] = (struct pollfd) { .fd = worker->stop_fd, .events = POLLIN };
	for (size_t i = 0; i < count; i++)
		fds[i + 1].fd = predecessors[i];
	while (left > 0 && r > 0) {
		r = wait_for(worker, fds, count + 1);
		for (size_t i = 1; r > 0 && i <= count; i++) {
			if (!fds[i].revents)
				continue;
			fds[i].fd = -1;
			fds[i].revents = 0;
			left--;
		}
	}
	free(fds);
	return r;
}

static int read_until_stop(struct datagram *datagram)
{
	struct worker *worker = datagram->worker;
	struct pollfd fds[] = {
		{ .fd = worker->stop_fd, .events = POLLIN },
		{ .fd = datagram->listener->fd, .events = POLLIN },
	};
	int64_t previous;
	uint64_t before;
	int r;

	datagram_start(datagram);
	while ((r = wait_for(worker, fds, 2)) > 0) {
		if (!fds[1].revents)
			continue;
		before = worker->local_stats.work;
		previous = datagram->received_at;
		datagram_read(datagram);
		worker_check_work(worker, before, fds[1].fd, WATCH_READ);
		if (fds[1].revents & POLLERR)
			errors_discard(fds[1].fd);
		else if (worker->local_stats.work != before &&
		         datagram->received_at - previous < RECEIVE_TIMEOUT)
			datagram_read_stream(datagram);
	}
	if (r == 0)
		datagram_read_rest(datagram);
	return r;
}

int datagram_run(struct worker *worker, const struct listener *listener, int udp_ratelimit,
                 const int *predecessors, size_t predecessor_count)
{
	struct datagram datagram;
	int r = datagram_open(&datagram, worker, listener, udp_ratelimit);

	if (r == 0) {
		worker_ready(worker);
		r = wait_for_predecessors(worker, predecessors, predecessor_count);
	}
	if (r > 0)
		r = read_until_stop(&datagram);
	datagram_close(&datagram);
	return r;
}
