/* SPDX-License-Identifier: ISC */
/* test_datagram.c - datagrams over real sockets on the loopback: answers and counters */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/net_tstamp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "echo/udp_ratelimit.h"
#include "models/datagram.h"

struct stage {
	struct conf conf;
	struct worker worker;
	struct stats_slot slot;
	struct listener listener;
	struct datagram datagram;
	struct addr addr; /* to reach the listener */
};

/* --- sockets --------------------------------------------------------------------------- */

static struct addr addr_of(const char *text)
{
	struct addr addr;
	const char *why;

	if (addr_parse(&addr, text, 1, &why) < 0)
		fail_msg("%s: %s", text, why);
	return addr;
}

/* A datagram socket bound to `text` and `port`; 0: a port that the kernel chooses. */
static int socket_at(const char *text, uint16_t port)
{
	struct addr addr = addr_of(text);
	int fd = socket(addr.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), off = 0;

	assert_true(fd >= 0);
	if (addr.sa.sa_family == AF_INET)
		addr.in.sin_port = htons(port);
	if (addr.sa.sa_family == AF_INET6) {
		addr.in6.sin6_port = htons(port);
		assert_int_equal(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off), 0);
	}
	if (bind(fd, &addr.sa, addr.len) < 0)
		fail_msg("bind %s: %s", text, strerror(errno));
	return fd;
}

static void set_int(int fd, int level, int option, int value)
{
	assert_int_equal(setsockopt(fd, level, option, &value, sizeof value), 0);
}

static uint64_t counted(const struct stage *stage, enum stats_counter counter)
{
	return atomic_load(&stage->worker.slot->counters[counter]);
}

static struct stage *stage_open(int fd)
{
	struct stage *stage = aligned_alloc(64, (sizeof *stage + 63) / 64 * 64);
	int udp_ratelimit;

	assert_non_null(stage);
	memset(stage, 0, sizeof *stage);
	assert_int_equal(listener_adopt(&stage->listener, fd, "test"), 0);
	stage->addr = stage->listener.addr;
	stage->worker = (struct worker) {
		.conf = &stage->conf,
		.workers = 1,
		.listeners = &stage->listener,
		.listener_count = 1,
	};
	stage->worker.slot = &stage->slot;
	udp_ratelimit = udp_ratelimit_make();
	assert_true(udp_ratelimit >= 0);
	assert_int_equal(datagram_open(&stage->datagram, &stage->worker, &stage->listener, udp_ratelimit), 0);
	close(udp_ratelimit);
	datagram_start(&stage->datagram);
	return stage;
}

static void stage_close(struct stage *stage)
{
	datagram_close(&stage->datagram);
	cidr_set_clear(&stage->conf.deny);
	listener_close(&stage->listener);
	free(stage);
}

static void turn(struct stage *stage)
{
	datagram_read(&stage->datagram);
}

static void deny(struct stage *stage, const char *text)
{
	struct cidr network;
	const char *why;

	assert_int_equal(cidr_parse(&network, text, &why), 0);
	assert_int_equal(cidr_set_make(&stage->conf.deny, &network, 1), 0);
}

static void send_to(const struct stage *stage, int fd, const void *data, size_t size)
{
	if (sendto(fd, data, size, 0, &stage->addr.sa, stage->addr.len) != (ssize_t) size)
		fail_msg("send %zu: %s", size, strerror(errno));
}

/* Receive the next datagram, at most `most` bytes of it. Returns -1 where there is none: over the loopback,
 * datagrams arrive before the sending call returns. */
static ssize_t take(int fd, void *data, size_t most)
{
	return recv(fd, data, most, MSG_DONTWAIT);
}

static void expect(int fd, const void *data, size_t size)
{
	unsigned char *back = malloc(size + 1);
	ssize_t n = take(fd, back, size + 1);

	if (n != (ssize_t) size)
		fail_msg("%zd bytes came back for %zu: %s", n, size, n < 0 ? strerror(errno) : "");
	assert_int_equal(size > 0 ? memcmp(back, data, size) : 0, 0);
	free(back);
}

static void expect_nothing(int fd)
{
	char byte;

	assert_int_equal(take(fd, &byte, 1), -1);
	assert_int_equal(errno, EAGAIN);
}

/* Pseudo-random bytes, so that bytes at a wrong position differ. */
static unsigned char *bytes_of(size_t size)
{
	unsigned char *data = malloc(size + 1);
	uint32_t x = 1;

	assert_non_null(data);
	for (size_t i = 0; i < size; i++) {
		x = x * 1664525 + 1013904223;
		data[i] = (unsigned char) (x >> 24);
	}
	return data;
}

/* --- tests ----------------------------------------------------------------------------- */

static void echoes_every_size(void **state)
{
	const size_t sizes[] = { 0, 1, 2, 511, 1472, 1473, 8192, 9000, 65506, 65507 };
	const char *const places[] = { "127.0.0.1", "[::1]" };
	unsigned char *data = bytes_of(65507);

	(void) state;
	for (size_t p = 0; p < 2; p++) {
		struct stage *stage = stage_open(socket_at(places[p], 0));
		int client = socket_at(places[p], 0);
		uint64_t bytes = 0;

		for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
			send_to(stage, client, data, sizes[i]);
			turn(stage);
			expect(client, data, sizes[i]);
			bytes += sizes[i];
		}
		expect_nothing(client);
		assert_int_equal(counted(stage, STAT_UDP_RECEIVED), 10);
		assert_int_equal(counted(stage, STAT_UDP_ECHOED), 10);
		assert_int_equal(counted(stage, STAT_UDP_BYTES), bytes);
		close(client);
		stage_close(stage);
	}
	free(data);
}

static void filters_each_datagram_of_a_batch(void **state)
{
	struct stage *stage = stage_open(socket_at("0.0.0.0", 0));
	uint16_t port = addr_port(&stage->addr);
	int good = socket_at("127.0.0.2", 0), bad = socket_at("127.0.0.3", 0);
	int other = socket_at("127.0.0.4", 0), tired = socket_at("127.0.0.6", 0);

	(void) state;
	stage->addr = addr_of("127.0.0.9");
	stage->addr.in.sin_port = htons(port);
	deny(stage, "127.0.0.3");
	set_int(tired, IPPROTO_IP, IP_TTL, DGRAM_HOPS_STEP);
	for (int i = 0; i < 40; i++) {
		char text[8];
		size_t size = (size_t) snprintf(text, sizeof text, "%d", i);

		send_to(stage, bad, text, size);
		send_to(stage, good, text, size);
		send_to(stage, tired, text, size);
		send_to(stage, other, text, size);
	}
	turn(stage);
	turn(stage);
	for (int i = 0; i < 40; i++) {
		char text[8];
		size_t size = (size_t) snprintf(text, sizeof text, "%d", i);

		expect(good, text, size);
		expect(other, text, size);
	}
	expect_nothing(good);
	expect_nothing(other);
	expect_nothing(bad);
	expect_nothing(tired);
	assert_int_equal(counted(stage, STAT_UDP_RECEIVED), 160);
	assert_int_equal(counted(stage, STAT_UDP_ECHOED), 80);
	assert_int_equal(counted(stage, STAT_UDP_DENIED), 40);
	assert_int_equal(counted(stage, STAT_UDP_LOOP), 40);
	close(good);
	close(bad);
	close(other);
	close(tired);
	stage_close(stage);
}

static void does_not_answer_its_own_port(void **state)
{
	struct stage *stage = stage_open(socket_at("127.0.0.1", 0));
	int twin = socket_at("127.0.0.2", addr_port(&stage->addr));

	(void) state;
	send_to(stage, twin, "x", 1);
	/* a datagram from the listening socket itself */
	send_to(stage, stage->listener.fd, "y", 1);
	turn(stage);
	expect_nothing(twin);
	assert_int_equal(counted(stage, STAT_UDP_OWN_PORT), 1);
	assert_int_equal(counted(stage, STAT_UDP_OWN_ADDRESS), 1);
	assert_int_equal(counted(stage, STAT_UDP_ECHOED), 0);
	close(twin);
	stage_close(stage);
}

/* The client's socket is connected: it receives only datagrams from the address to which it sends. */
static void answers_from_the_contacted_address(void **state)
{
	const char *const places[] = { "127.0.0.1", "127.0.0.2", "127.9.8.7", "[::1]" };
	struct stage *stage = stage_open(socket_at("[::]", 0));
	uint16_t port = addr_port(&stage->addr);

	(void) state;
	for (size_t i = 0; i < 4; i++) {
		int client = socket_at(i < 3 ? "127.0.0.5" : "[::1]", 0);

		stage->addr = addr_of(places[i]);
		*(i < 3 ? &stage->addr.in.sin_port : &stage->addr.in6.sin6_port) = htons(port);
		assert_int_equal(connect(client, &stage->addr.sa, stage->addr.len), 0);
		assert_int_equal(send(client, places[i], strlen(places[i]), 0), strlen(places[i]));
		turn(stage);
		expect(client, places[i], strlen(places[i]));
		close(client);
	}
	assert_int_equal(counted(stage, STAT_UDP_ECHOED), 4);
	stage_close(stage);
}

static int hops_of_next(int fd, int level, int type)
{
	union {
		struct cmsghdr align;
		char bytes[128];
	} control;
	char byte;
	struct iovec piece = { &byte, 1 };
	struct msghdr header = {
		.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control
	};
	int hops = -1;

	assert_int_equal(recvmsg(fd, &header, MSG_DONTWAIT), 1);
	for (struct cmsghdr *item = CMSG_FIRSTHDR(&header); item; item = CMSG_NXTHDR(&header, item))
		if (item->cmsg_level == level && item->cmsg_type == type)
			memcpy(&hops, CMSG_DATA(item), sizeof hops);
	return hops;
}

static void answers_with_fewer_hops(void **state)
{
	struct stage *stage = stage_open(socket_at("[::]", 0));
	uint16_t port = addr_port(&stage->addr);
	int four = socket_at("127.0.0.5", 0), six = socket_at("[::1]", 0);
	const int sent[] = { 255, 128, 64, 63, 9 }, back[] = { 56, 56, 56, 55, 1 };

	(void) state;
	set_int(four, IPPROTO_IP, IP_RECVTTL, 1);
	set_int(six, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
	for (size_t i = 0; i < sizeof sent / sizeof sent[0]; i++) {
		set_int(four, IPPROTO_IP, IP_TTL, sent[i]);
		stage->addr = addr_of("127.0.0.1");
		stage->addr.in.sin_port = htons(port);
		send_to(stage, four, "x", 1);
		turn(stage);
		assert_int_equal(hops_of_next(four, IPPROTO_IP, IP_TTL), back[i]);
		set_int(six, IPPROTO_IPV6, IPV6_UNICAST_HOPS, sent[i]);
		stage->addr = addr_of("[::1]");
		stage->addr.in6.sin6_port = htons(port);
		send_to(stage, six, "x", 1);
		turn(stage);
		assert_int_equal(hops_of_next(six, IPPROTO_IPV6, IPV6_HOPLIMIT), back[i]);
	}
	set_int(six, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 8);
	send_to(stage, six, "x", 1);
	turn(stage);
	expect_nothing(six);
	assert_int_equal(counted(stage, STAT_UDP_LOOP), 1);
	close(four);
	close(six);
	stage_close(stage);
}

/* Send `size` bytes in one call, which the kernel splits into datagrams of `segment` bytes. Returns false
 * where the kernel does not support this. */
static bool send_segments(const struct stage *stage, int fd, unsigned char *data, size_t size,
                          uint16_t segment)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(uint16_t))];
	} control = { .align = { .cmsg_level = IPPROTO_UDP,
		                 .cmsg_type = UDP_SEGMENT,
		                 .cmsg_len = CMSG_LEN(sizeof segment) } };
	struct iovec piece = { data, size };
	struct addr to = stage->addr;
	struct msghdr header = { .msg_name = &to.sa,
		                 .msg_namelen = to.len,
		                 .msg_iov = &piece,
		                 .msg_iovlen = 1,
		                 .msg_control = &control,
		                 .msg_controllen = sizeof control };

	memcpy(CMSG_DATA(&control.align), &segment, sizeof segment);
	return sendmsg(fd, &header, 0) == (ssize_t) size;
}

#define SEGMENT 1000
#define SEGMENTS 40
#define REST 300

static void expect_segments(int fd, const unsigned char *data, size_t count, size_t rest)
{
	for (size_t i = 0; i < count; i++)
		expect(fd, data + i * SEGMENT, SEGMENT);
	if (rest > 0)
		expect(fd, data + count * SEGMENT, rest);
	expect_nothing(fd);
}

static void answers_segments_with_segments(void **state)
{
	struct stage *stage = stage_open(socket_at("127.0.0.1", 0));
	unsigned char *data = bytes_of(SEGMENTS * SEGMENT + REST), back[65536];
	int client = socket_at("127.0.0.1", 0);

	(void) state;
	if (!send_segments(stage, client, data, SEGMENTS * SEGMENT + REST, SEGMENT)) {
		print_message("UDP_SEGMENT: %s\n", strerror(errno));
		skip();
	}
	turn(stage);
	expect_segments(client, data, SEGMENTS, REST);
	assert_int_equal(counted(stage, STAT_UDP_RECEIVED), SEGMENTS + 1);
	assert_int_equal(counted(stage, STAT_UDP_ECHOED), SEGMENTS + 1);
	assert_int_equal(counted(stage, STAT_UDP_BYTES), SEGMENTS * SEGMENT + REST);
	/* a receiver with UDP_GRO gets the segments in one message */
	set_int(client, IPPROTO_UDP, UDP_GRO, 1);
	assert_true(send_segments(stage, client, data, SEGMENTS * SEGMENT, SEGMENT));
	turn(stage);
	assert_int_equal(take(client, back, sizeof back), SEGMENTS * SEGMENT);
	assert_memory_equal(back, data, SEGMENTS * SEGMENT);
	expect_nothing(client);
	/* a message of a single segment */
	assert_true(send_segments(stage, client, data, SEGMENT, SEGMENT));
	turn(stage);
	expect(client, data, SEGMENT);
	free(data);
	close(client);
	stage_close(stage);
}

static void answers_part_of_the_segments(void **state)
{
	struct stage *stage = stage_open(socket_at("127.0.0.1", 0));
	unsigned char *data = bytes_of(SEGMENTS * SEGMENT);
	int client = socket_at("127.0.0.1", 0);

	(void) state;
	stage->conf.udp_rate = 25;
	if (!send_segments(stage, client, data, SEGMENTS * SEGMENT, SEGMENT)) {
		print_message("UDP_SEGMENT: %s\n", strerror(errno));
		skip();
	}
	turn(stage);
	expect_segments(client, data, 25, 0);
	assert_int_equal(counted(stage, STAT_UDP_RECEIVED), SEGMENTS);
	assert_int_equal(counted(stage, STAT_UDP_ECHOED), 25);
	assert_int_equal(counted(stage, STAT_UDP_RATE), SEGMENTS - 25);
	free(data);
	close(client);
	stage_close(stage);
}

/* A socket without checksums cannot send segments: the kernel refuses with EINVAL. */
static void sends_single_datagrams_where_segments_are_refused(void **state)
{
	struct stage *stage = stage_open(socket_at("127.0.0.1", 0));
	unsigned char *data = bytes_of(SEGMENTS * SEGMENT + REST);
	int client = socket_at("127.0.0.1", 0);

	(void) state;
	if (!send_segments(stage, client, data, SEGMENTS * SEGMENT + REST, SEGMENT)) {
		print_message("UDP_SEGMENT: %s\n", strerror(errno));
		skip();
	}
	set_int(stage->listener.fd, SOL_SOCKET, SO_NO_CHECK, 1);
	assert_false(send_segments(stage, stage->listener.fd, data, 2 * SEGMENT, SEGMENT));
	turn(stage);
	expect_segments(client, data, SEGMENTS, REST);
	assert_int_equal(counted(stage, STAT_UDP_ECHOED), SEGMENTS + 1);
	assert_int_equal(counted(stage, STAT_UDP_BYTES), SEGMENTS * SEGMENT + REST);
	assert_int_equal(counted(stage, STAT_UDP_SEND_FAILED), 0);
	free(data);
	close(client);
	stage_close(stage);
}

static void one_call_reads_a_bounded_number(void **state)
{
	struct stage *stage = stage_open(socket_at("127.0.0.1", 0));
	int client = socket_at("127.0.0.1", 0);
	uint64_t first;

	(void) state;
	for (int i = 0; i < 200; i++)
		send_to(stage, client, "x", 1);
	turn(stage);
	first = counted(stage, STAT_UDP_RECEIVED);
	assert_in_range(first, 32, 128);
	turn(stage);
	assert_int_equal(counted(stage, STAT_UDP_RECEIVED), 200);
	for (int i = 0; i < 200; i++)
		expect(client, "x", 1);
	/* without a datagram it returns at once */
	turn(stage);
	assert_int_equal(counted(stage, STAT_UDP_RECEIVED), 200);
	close(client);
	stage_close(stage);
}

static void waits_for_the_next_datagram_of_a_stream(void **state)
{
	struct stage *stage = stage_open(socket_at("127.0.0.1", 0));
	int client = socket_at("127.0.0.1", 0);

	(void) state;
	send_to(stage, client, "x", 1);
	turn(stage);
	for (int i = 0; i < 20; i++)
		send_to(stage, client, "y", 1);
	datagram_read_stream(&stage->datagram);
	expect(client, "x", 1);
	for (int i = 0; i < 20; i++)
		expect(client, "y", 1);
	assert_int_equal(counted(stage, STAT_UDP_RECEIVED), 21);
	/* without a datagram it returns after its time limit */
	datagram_read_stream(&stage->datagram);
	assert_int_equal(counted(stage, STAT_UDP_RECEIVED), 21);
	assert_true(stage->datagram.blocking);
	close(client);
	stage_close(stage);
}

/* All processes that have the socket share O_NONBLOCK, so it is not changed. */
static void does_not_change_the_flags_of_an_adopted_socket(void **state)
{
	(void) state;
	for (int nonblocking = 0; nonblocking <= 1; nonblocking++) {
		int fd = socket_at("127.0.0.1", 0), client = socket_at("127.0.0.1", 0), flags;
		struct stage *stage;

		flags = fcntl(fd, F_GETFL) | (nonblocking ? O_NONBLOCK : 0);
		assert_int_equal(fcntl(fd, F_SETFL, flags), 0);
		stage = stage_open(fd);
		assert_int_equal(fcntl(fd, F_GETFL), flags);
		assert_int_equal(stage->datagram.blocking, !nonblocking);
		send_to(stage, client, "x", 1);
		/* a socket that does not block is not read here */
		datagram_read_stream(&stage->datagram);
		assert_int_equal(counted(stage, STAT_UDP_RECEIVED), !nonblocking);
		turn(stage);
		expect(client, "x", 1);
		assert_int_equal(counted(stage, STAT_UDP_RECEIVED), 1);
		close(client);
		stage_close(stage);
	}
}

/* After shutdown(2) by another process that has the socket, the kernel still queues datagrams, but a call
 * that would wait returns an empty message at once. This message must not be taken for a datagram. */
static void survives_shutdown(void **state)
{
	const char *const places[] = { "127.0.0.1", "[::1]" };

	(void) state;
	for (size_t i = 0; i < 2; i++) {
		struct stage *stage = stage_open(socket_at(places[i], 0));
		int client = socket_at(places[i], 0);

		/* fails with ENOTCONN, but takes effect */
		(void) shutdown(stage->listener.fd, SHUT_RD);
		send_to(stage, client, "x", 1);
		turn(stage);
		expect(client, "x", 1);
		datagram_read_stream(&stage->datagram);
		assert_false(stage->datagram.blocking);
		send_to(stage, client, "", 0);
		turn(stage);
		expect(client, "", 0);
		assert_int_equal(counted(stage, STAT_UDP_RECEIVED), 2);
		assert_int_equal(counted(stage, STAT_UDP_ECHOED), 2);
		assert_int_equal(counted(stage, STAT_UDP_NOT_UNICAST), 0);
		close(client);
		stage_close(stage);
	}
}

static void limits_the_rate(void **state)
{
	struct stage *stage = stage_open(socket_at("127.0.0.1", 0));
	int client = socket_at("127.0.0.1", 0);
	unsigned back = 0;
	char byte;

	(void) state;
	stage->conf.udp_rate = 3;
	for (int i = 0; i < 50; i++)
		send_to(stage, client, "x", 1);
	turn(stage);
	while (take(client, &byte, 1) == 1)
		back++;
	assert_int_equal(back, 3);
	assert_int_equal(counted(stage, STAT_UDP_RATE), 47);
	close(client);
	stage_close(stage);
}

static void disables_broadcast_of_an_adopted_socket(void **state)
{
	int fd = socket_at("127.0.0.1", 0), on = 1;
	socklen_t size = sizeof on;
	struct stage *stage;

	(void) state;
	set_int(fd, SOL_SOCKET, SO_BROADCAST, 1);
	stage = stage_open(fd);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, &size), 0);
	assert_int_equal(on, 0);
	stage_close(stage);
}

/* An ICMP error about an earlier answer affects no other client, and does not keep the socket readable. */
static void ignores_icmp_errors(void **state)
{
	int fd = socket_at("127.0.0.1", 0), gone = socket_at("127.0.0.1", 0),
	    client = socket_at("127.0.0.1", 0);
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	struct stage *stage;

	(void) state;
	set_int(fd, IPPROTO_IP, IP_RECVERR, 1);
	stage = stage_open(fd);
	send_to(stage, gone, "x", 1);
	close(gone);
	turn(stage);
	assert_int_equal(counted(stage, STAT_UDP_ECHOED), 1);
	assert_int_equal(poll(&ready, 1, 0), 0);
	for (int i = 0; i < 5; i++)
		send_to(stage, client, "y", 1);
	turn(stage);
	for (int i = 0; i < 5; i++)
		expect(client, "y", 1);
	close(client);
	stage_close(stage);
}

/* --- unix ------------------------------------------------------------------------------ */

static char directory[] = "/tmp/test_datagram.XXXXXX";

static int make_directory(void **state)
{
	(void) state;
	return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
	char command[sizeof directory + 16];

	(void) state;
	snprintf(command, sizeof command, "rm -r '%s'", directory);
	return system(command); /* NOLINT(cert-env33-c): a name of our own */
}

static int unix_socket(const char *name)
{
	char text[sizeof directory + 64];

	snprintf(text, sizeof text, "unix:%s/%s", directory, name);
	return socket_at(text, 0);
}

static unsigned open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static void answers_unix_sockets_with_names(void **state)
{
	struct stage *stage = stage_open(unix_socket("echo"));
	int named = unix_socket("named"), unnamed = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	unsigned char *data = bytes_of(60000);

	(void) state;
	send_to(stage, named, data, 60000);
	send_to(stage, unnamed, "x", 1);
	send_to(stage, named, "", 0);
	send_to(stage, stage->listener.fd, "x", 1);
	turn(stage);
	expect(named, data, 60000);
	expect(named, "", 0);
	expect_nothing(named);
	expect_nothing(unnamed);
	assert_false(stage->datagram.blocking);
	assert_int_equal(counted(stage, STAT_UDP_RECEIVED), 4);
	assert_int_equal(counted(stage, STAT_UDP_ECHOED), 2);
	assert_int_equal(counted(stage, STAT_UDP_NOT_UNICAST), 1);
	assert_int_equal(counted(stage, STAT_UDP_OWN_ADDRESS), 1);
	free(data);
	close(named);
	close(unnamed);
	stage_close(stage);
}

/* A datagram longer than the receive buffer is not answered in part. */
static void drops_truncated_datagrams(void **state)
{
	struct stage *stage = stage_open(unix_socket("echo-whole"));
	int named = unix_socket("named-whole");
	unsigned char *data = bytes_of(100000);

	(void) state;
	send_to(stage, named, data, 100000);
	send_to(stage, named, data, 65536);
	turn(stage);
	expect(named, data, 65536);
	expect_nothing(named);
	assert_int_equal(counted(stage, STAT_UDP_RECEIVED), 2);
	assert_int_equal(counted(stage, STAT_UDP_SEND_FAILED), 1);
	free(data);
	close(named);
	stage_close(stage);
}

static void keeps_no_descriptors_of_messages(void **state)
{
	struct stage *stage = stage_open(unix_socket("echo-fd"));
	int named = unix_socket("named-fd"), passed = dup(0);
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { .align = { .cmsg_level = SOL_SOCKET,
		                 .cmsg_type = SCM_RIGHTS,
		                 .cmsg_len = CMSG_LEN(sizeof passed) } };
	struct iovec piece = { (char[]) { "x" }, 1 };
	struct msghdr header = { .msg_name = &stage->addr.sa,
		                 .msg_namelen = stage->addr.len,
		                 .msg_iov = &piece,
		                 .msg_iovlen = 1,
		                 .msg_control = &control,
		                 .msg_controllen = sizeof control };
	unsigned before;

	(void) state;
	memcpy(CMSG_DATA(&control.align), &passed, sizeof passed);
	before = open_descriptors();
	for (int i = 0; i < 5; i++)
		assert_int_equal(sendmsg(named, &header, 0), 1);
	turn(stage);
	assert_int_equal(open_descriptors(), before);
	for (int i = 0; i < 5; i++)
		expect(named, "x", 1);
	close(passed);
	close(named);
	stage_close(stage);
}

/* Answers to a client that does not read are dropped; other clients get theirs. */
static void does_not_wait_for_clients_that_do_not_read(void **state)
{
	struct stage *stage = stage_open(unix_socket("echo-full"));
	int deaf = unix_socket("deaf"), named = unix_socket("named-full");
	unsigned sent = 0, back = 0;
	char byte;

	(void) state;
	for (int i = 0; i < 1000; i++, sent++) {
		send_to(stage, deaf, "x", 1);
		turn(stage);
	}
	send_to(stage, named, "y", 1);
	turn(stage);
	expect(named, "y", 1);
	while (take(deaf, &byte, 1) == 1)
		back++;
	assert_in_range(back, 1, 999);
	assert_int_equal(counted(stage, STAT_UDP_ECHOED), back + 1);
	assert_int_equal(counted(stage, STAT_UDP_SEND_FAILED), sent - back);
	close(deaf);
	close(named);
	stage_close(stage);
}

/* The process that made an adopted socket may have enabled time stamps of sent datagrams. They arrive in the
 * error queue, and cause POLLERR until they are read. */
static void empties_the_error_queue(void **state)
{
	struct stage *stage = stage_open(socket_at("127.0.0.1", 0));
	int client = socket_at("127.0.0.1", 0);
	struct pollfd ready = { .fd = stage->listener.fd, .events = POLLIN };

	(void) state;
	set_int(stage->listener.fd, SOL_SOCKET, SO_TIMESTAMPING,
	        SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_SOFTWARE);
	for (int i = 0; i < 20; i++)
		send_to(stage, client, "x", 1);
	turn(stage);
	for (int i = 0; i < 20; i++)
		expect(client, "x", 1);
	assert_int_equal(poll(&ready, 1, 0), 1);
	assert_true(ready.revents & POLLERR);
	for (int i = 0; i < 4 && poll(&ready, 1, 0) > 0; i++)
		turn(stage);
	assert_int_equal(poll(&ready, 1, 0), 0);
	close(client);
	stage_close(stage);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(echoes_every_size),
		cmocka_unit_test(filters_each_datagram_of_a_batch),
		cmocka_unit_test(does_not_answer_its_own_port),
		cmocka_unit_test(answers_from_the_contacted_address),
		cmocka_unit_test(answers_with_fewer_hops),
		cmocka_unit_test(answers_segments_with_segments),
		cmocka_unit_test(answers_part_of_the_segments),
		cmocka_unit_test(sends_single_datagrams_where_segments_are_refused),
		cmocka_unit_test(one_call_reads_a_bounded_number),
		cmocka_unit_test(waits_for_the_next_datagram_of_a_stream),
		cmocka_unit_test(does_not_change_the_flags_of_an_adopted_socket),
		cmocka_unit_test(survives_shutdown),
		cmocka_unit_test(limits_the_rate),
		cmocka_unit_test(disables_broadcast_of_an_adopted_socket),
		cmocka_unit_test(ignores_icmp_errors),
		cmocka_unit_test(answers_unix_sockets_with_names),
		cmocka_unit_test(drops_truncated_datagrams),
		cmocka_unit_test(keeps_no_descriptors_of_messages),
		cmocka_unit_test(does_not_wait_for_clients_that_do_not_read),
		cmocka_unit_test(empties_the_error_queue),
	};

	return cmocka_run_group_tests_name("datagram", tests, make_directory, remove_directory);
}
