/* SPDX-License-Identifier: ISC */
/* packet.c - see packet.h */
#include <config.h>

#include "client/ping/packet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define CONTROL_MAX 512

int packet_enable(int fd, int family)
{
	static const int options_v4[] = { IP_RECVTTL, IP_RECVTOS, IP_RECVERR };
	static const int options_v6[] = { IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS, IPV6_RECVERR };
	int one = 1, level = family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;

	for (size_t i = 0; i < sizeof options_v4 / sizeof options_v4[0]; i++)
		if (setsockopt(fd, level, family == AF_INET6 ? options_v6[i] : options_v4[i], &one,
			       sizeof one)
		    < 0)
			return -errno;
	return 0;
}

/* The integer in a control message; the kernel passes IP_TOS as one byte. */
static int control_value(const struct cmsghdr *control)
{
	int value = 0;

	if (control->cmsg_len < CMSG_LEN(sizeof value))
		return *CMSG_DATA(control);
	memcpy(&value, CMSG_DATA(control), sizeof value);
	return value;
}

ssize_t packet_receive(int fd, void *bytes, size_t size, struct packet_info *info)
{
	_Alignas(struct cmsghdr) char buffer[CONTROL_MAX];
	struct iovec piece = { bytes, size };
	struct msghdr message = {
		.msg_iov = &piece,
		.msg_iovlen = 1,
		.msg_control = buffer,
		.msg_controllen = sizeof buffer,
	};
	ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT);

	*info = (struct packet_info) { -1, -1 };
	if (n < 0)
		return -errno;
	for (struct cmsghdr *control = CMSG_FIRSTHDR(&message); control;
	     control = CMSG_NXTHDR(&message, control)) {
		int level = control->cmsg_level, type = control->cmsg_type;

		if ((level == IPPROTO_IP && type == IP_TTL)
		    || (level == IPPROTO_IPV6 && type == IPV6_HOPLIMIT))
			info->ttl = control_value(control);
		else if ((level == IPPROTO_IP && type == IP_TOS)
			 || (level == IPPROTO_IPV6 && type == IPV6_TCLASS))
			info->tos = control_value(control);
	}
	return n;
}

/* --- errors ------------------------------------------------------------------------------------------- */

/* A description of an ICMP message; NULL: none. */
static const char *icmp_text(unsigned type, unsigned code)
{
	static const char *const unreachable[] = {
		[ICMP_NET_UNREACH] = "Network unreachable",
		[ICMP_HOST_UNREACH] = "Host unreachable",
		[ICMP_PROT_UNREACH] = "Protocol unreachable",
		[ICMP_PORT_UNREACH] = "Port unreachable: no service on that port",
		[ICMP_FRAG_NEEDED] = "Fragmentation needed",
		[ICMP_SR_FAILED] = "Source route failed",
		[ICMP_NET_UNKNOWN] = "Network unknown",
		[ICMP_HOST_UNKNOWN] = "Host unknown",
		[ICMP_NET_ANO] = "Network administratively prohibited",
		[ICMP_HOST_ANO] = "Host administratively prohibited",
		[ICMP_PKT_FILTERED] = "Communication administratively prohibited",
	};

	if (type == ICMP_DEST_UNREACH && code < sizeof unreachable / sizeof unreachable[0])
		return unreachable[code];
	if (type == ICMP_TIME_EXCEEDED)
		return code == ICMP_EXC_TTL ? "Time to live exceeded" : "Fragment reassembly time exceeded";
	return type == ICMP_PARAMETERPROB ? "Parameter problem" : NULL;
}

static const char *icmp6_text(unsigned type, unsigned code)
{
	static const char *const unreachable[] = {
		[ICMP6_DST_UNREACH_NOROUTE] = "Network unreachable: no route",
		[ICMP6_DST_UNREACH_ADMIN] = "Communication administratively prohibited",
		[ICMP6_DST_UNREACH_BEYONDSCOPE] = "Address beyond scope",
		[ICMP6_DST_UNREACH_ADDR] = "Address unreachable",
		[ICMP6_DST_UNREACH_NOPORT] = "Port unreachable: no service on that port",
	};

	if (type == ICMP6_DST_UNREACH && code < sizeof unreachable / sizeof unreachable[0])
		return unreachable[code];
	if (type == ICMP6_PACKET_TOO_BIG)
		return "Packet too big";
	if (type == ICMP6_TIME_EXCEEDED)
		return code == ICMP6_TIME_EXCEED_TRANSIT ? "Hop limit exceeded"
							 : "Fragment reassembly time exceeded";
	return type == ICMP6_PARAM_PROB ? "Parameter problem" : NULL;
}

static void error_describe(const struct sock_extended_err *report, struct packet_error *error)
{
	const void *address = SO_EE_OFFENDER(report); /* aligned as `report` is */
	const struct sockaddr *from = address;
	const struct sockaddr_in *from4 = address;
	const struct sockaddr_in6 *from6 = address;
	const char *text = NULL;
	int used;

	*error = (struct packet_error) { .error = (int) report->ee_errno };
	if (report->ee_errno == EMSGSIZE)
		error->mtu = report->ee_info;
	if (report->ee_origin == SO_EE_ORIGIN_ICMP)
		text = icmp_text(report->ee_type, report->ee_code);
	else if (report->ee_origin == SO_EE_ORIGIN_ICMP6)
		text = icmp6_text(report->ee_type, report->ee_code);
	if (from->sa_family == AF_INET)
		inet_ntop(AF_INET, &from4->sin_addr, error->from, sizeof error->from);
	else if (from->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &from6->sin6_addr, error->from, sizeof error->from);
	used = snprintf(error->text, sizeof error->text, "%s", text ? text : strerror(error->error));
	if (error->mtu != 0)
		snprintf(error->text + used, sizeof error->text - (size_t) used, " (MTU %u)", error->mtu);
}

ssize_t packet_receive_error(int fd, void *bytes, size_t size, struct packet_error *error)
{
	_Alignas(struct cmsghdr) char buffer[CONTROL_MAX];
	struct iovec piece = { bytes, size };
	struct msghdr message = {
		.msg_iov = &piece,
		.msg_iovlen = 1,
		.msg_control = buffer,
		.msg_controllen = sizeof buffer,
	};
	ssize_t n = recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT);

	if (n < 0)
		return -errno;
	*error = (struct packet_error) { .text = "unknown error" };
	for (struct cmsghdr *control = CMSG_FIRSTHDR(&message); control;
	     control = CMSG_NXTHDR(&message, control))
		if ((control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_RECVERR)
		    || (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_RECVERR))
			error_describe((const struct sock_extended_err *) (const void *) CMSG_DATA(control),
				       error);
	return n;
}
