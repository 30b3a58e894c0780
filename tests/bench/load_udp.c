/* SPDX-License-Identifier: ISC */
/* load_udp.c - the client of "make bench-datagrams"
 *
 *   load_udp PORT SIZE WINDOW SEGMENTS WARMUP SECONDS
 *
 * Sends datagrams of SIZE bytes to 127.0.0.1, at most WINDOW of them without an answer, and counts the
 * answers. If SEGMENTS is greater than 1, each message that it sends has that number of datagrams, with
 * UDP_SEGMENT (udp(7)). Prints "begin" after WARMUP seconds, and then "end", the number of answers in
 * SECONDS, and the number of datagrams that were not answered within LOST_AFTER. Does not check the content
 * of the answers, because tests do.
 */
#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH 64
#define PAYLOAD 65536
#define LOST_AFTER 100 /* ms */

static struct mmsghdr in[BATCH], out[BATCH];
static struct iovec in_pieces[BATCH], out_piece;
static unsigned char payloads[BATCH][PAYLOAD + 192], payload[PAYLOAD];
static union {
	struct cmsghdr align;
	unsigned char bytes[CMSG_SPACE(sizeof(uint16_t))];
} control;

static struct {
	size_t size;
	unsigned window, segments;
	uint64_t sent, answered, lost;
} load;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double) time.tv_sec + (double) time.tv_nsec / 1e9;
}

static int fail(const char *what)
{
	perror(what);
	exit(1);
}

static int socket_open(int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), on = 1, size = 4 << 20;

	at.sin_port = htons((in_port_t) port);
	if (fd < 0 || (load.segments > 1 && setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on) < 0) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) < 0 ||
	    connect(fd, (struct sockaddr *) &at, sizeof at) < 0)
		fail("load_udp");
	return fd;
}

static void prepare(void)
{
	uint16_t segment = (uint16_t) load.size;

	control.align = (struct cmsghdr) { .cmsg_level = IPPROTO_UDP,
		                           .cmsg_type = UDP_SEGMENT,
		                           .cmsg_len = CMSG_LEN(sizeof segment) };
	memcpy(CMSG_DATA(&control.align), &segment, sizeof segment);
	out_piece = (struct iovec) { payload, load.size * load.segments };
	for (unsigned i = 0; i < BATCH; i++) {
		in_pieces[i] = (struct iovec) { payloads[i], PAYLOAD };
		in[i].msg_hdr = (struct msghdr) { .msg_iov = &in_pieces[i], .msg_iovlen = 1 };
		out[i].msg_hdr = (struct msghdr) { .msg_iov = &out_piece, .msg_iovlen = 1 };
		if (load.segments > 1) {
			out[i].msg_hdr.msg_control = &control;
			out[i].msg_hdr.msg_controllen = sizeof control;
		}
	}
}

/* Send as many datagrams as the window allows. */
static void fill(int fd)
{
	for (;;) {
		uint64_t room = (load.window - (load.sent - load.answered - load.lost)) / load.segments;
		int n = room > 0 ? sendmmsg(fd, out, room < BATCH ? (unsigned) room : BATCH, MSG_DONTWAIT)
		                 : 0;

		if (n < 0 && errno != EAGAIN)
			fail("sendmmsg");
		if (n <= 0)
			return;
		load.sent += (uint64_t) n * load.segments;
	}
}

static void receive(int fd)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	int n = poll(&ready, 1, LOST_AFTER);

	if (n == 0) {
		load.lost = load.sent - load.answered;
		return;
	}
	n = recvmmsg(fd, in, BATCH, MSG_DONTWAIT, NULL);
	if (n < 0 && errno != EAGAIN)
		fail("recvmmsg");
	for (int i = 0; i < n; i++)
		load.answered += (in[i].msg_len + load.size - 1) / load.size;
	/* some of the datagrams that count as lost were only late */
	if (load.answered + load.lost > load.sent)
		load.lost = load.sent - load.answered;
}

static void run(int fd, double seconds)
{
	for (double until = now() + seconds; now() < until;) {
		fill(fd);
		receive(fd);
	}
}

int main(int argc, char *argv[])
{
	int port = argc == 7 ? atoi(argv[1]) : 0, fd;
	uint64_t answered, lost;

	load.size = argc == 7 ? strtoul(argv[2], NULL, 10) : 0;
	load.window = argc == 7 ? (unsigned) atoi(argv[3]) : 0;
	load.segments = argc == 7 ? (unsigned) atoi(argv[4]) : 0;
	if (port < 1 || port > 65535 || load.segments < 1 || load.window < load.segments || load.size < 1 ||
	    load.size * load.segments > 65507) {
		fprintf(stderr, "Usage: load_udp PORT SIZE WINDOW SEGMENTS WARMUP SECONDS\n");
		return 64;
	}
	prepare();
	fd = socket_open(port);
	run(fd, atof(argv[5]));
	answered = load.answered;
	lost = load.lost;
	puts("begin");
	fflush(stdout);
	run(fd, atof(argv[6]));
	printf("end %llu %llu\n", (unsigned long long) (load.answered - answered),
	       (unsigned long long) (load.lost > lost ? load.lost - lost : 0));
	return 0;
}
