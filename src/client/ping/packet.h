/* SPDX-License-Identifier: ISC */
/* packet.h - information of the IP layer on datagrams: TTL and traffic class of replies, ICMP errors
 *
 * For connected UDP sockets, see ip(7) and ipv6(7). Any thread.
 */
#ifndef ECHOD_CLIENT_PACKET_H
#define ECHOD_CLIENT_PACKET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PACKET_ERROR_MAX 128

struct packet_info {
	int ttl; /* hop limit with IPv6; -1: unknown */
	int tos; /* traffic class byte; -1: unknown */
};

/* An error that a router, the peer, or this host has reported for a datagram. */
struct packet_error {
	int error;                   /* errno */
	char from[PACKET_ERROR_MAX]; /* address of the sender of the ICMP message; "": this host */
	char text[PACKET_ERROR_MAX]; /* what happened, as "Fragmentation needed (MTU 1280)" */
	unsigned mtu;                /* MTU of the path behind the sender; 0: not reported */
};

/* Request all this from the socket. Returns 0 or -errno. */
int packet_enable(int fd, int family);

/* Receive a datagram without blocking. Returns its length, or -errno. */
ssize_t packet_receive(int fd, void *bytes, size_t size, struct packet_info *info);

/* Receive the next error without blocking. `bytes` receives the beginning of the payload that was sent.
 * Returns its length; -EAGAIN if there is no error; or another -errno. */
ssize_t packet_receive_error(int fd, void *bytes, size_t size, struct packet_error *error);

#endif
