/* SPDX-License-Identifier: ISC */
/* plain_udp.c - the yardsticks of "make bench-datagrams": minimal UDP echo servers
 *
 *   plain_udp PORT            on 127.0.0.1: recvmmsg(2) and sendmmsg(2), up to 32 datagrams at a time
 *   plain_udp PORT segments   the same with UDP_GRO and UDP_SEGMENT (udp(7)): datagrams of one size are
 *                             received and sent together
 *
 * One thread, which blocks in recvmmsg(2). There are no checks, limits, counters or log: a datagram with the
 * forged address of another echo server makes an endless loop, so it is not for general use.
 */
#include <config.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BATCH 32
#define PAYLOAD 65536

union control {
	struct cmsghdr align;
	unsigned char bytes[CMSG_SPACE(sizeof(int))];
};

static struct mmsghdr headers[BATCH];
static struct iovec pieces[BATCH];
static struct sockaddr_in sources[BATCH];
static union control controls[BATCH];
/* 192 more bytes, so that the payloads do not compete for the same lines of the processor's caches */
static unsigned char payloads[BATCH][PAYLOAD + 192];

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int socket_open(int port, bool segments)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), on = 1, size = 4 << 20;

	at.sin_port = htons((in_port_t) port);
	if (fd < 0 || (segments && setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on) < 0) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) < 0 ||
	    bind(fd, (struct sockaddr *) &at, sizeof at) < 0)
		return -1;
	return fd;
}

static void prepare(unsigned i, bool segments)
{
	pieces[i] = (struct iovec) { payloads[i], PAYLOAD };
	headers[i].msg_hdr = (struct msghdr) {
		.msg_name = &sources[i],
		.msg_namelen = sizeof sources[i],
		.msg_iov = &pieces[i],
		.msg_iovlen = 1,
		.msg_control = segments ? &controls[i] : NULL,
		.msg_controllen = segments ? sizeof controls[i] : 0,
	};
}

/* Prepare the received message `i` for sending: the same bytes and segment size. */
static void answer(unsigned i)
{
	struct msghdr *header = &headers[i].msg_hdr;
	struct cmsghdr *item = CMSG_FIRSTHDR(header);
	uint16_t segment;
	int size;

	pieces[i].iov_len = headers[i].msg_len;
	if (!item) {
		header->msg_control = NULL;
		return;
	}
	memcpy(&size, CMSG_DATA(item), sizeof size);
	segment = (uint16_t) size;
	item->cmsg_type = UDP_SEGMENT;
	item->cmsg_len = CMSG_LEN(sizeof segment);
	memcpy(CMSG_DATA(item), &segment, sizeof segment);
	header->msg_controllen = CMSG_SPACE(sizeof segment);
}

static int serve(int fd, bool segments)
{
	for (;;) {
		int count, done;

		for (unsigned i = 0; i < BATCH; i++)
			prepare(i, segments);
		count = recvmmsg(fd, headers, BATCH, MSG_WAITFORONE, NULL);
		if (count < 0)
			return fail("recvmmsg");
		for (int i = 0; i < count; i++)
			answer((unsigned) i);
		for (done = 0; done < count;) {
			int n = sendmmsg(fd, headers + done, (unsigned) (count - done), 0);

			done += n > 0 ? n : 1;
		}
	}
}

int main(int argc, char *argv[])
{
	int port = argc > 1 ? atoi(argv[1]) : 0, fd;
	bool segments = argc == 3 && !strcmp(argv[2], "segments");

	if (port < 1 || port > 65535 || argc > 3 || (argc == 3 && !segments)) {
		fprintf(stderr, "Usage: plain_udp PORT [segments]\n");
		return 64;
	}
	fd = socket_open(port, segments);
	return fd < 0 ? fail("plain_udp") : serve(fd, segments);
}
