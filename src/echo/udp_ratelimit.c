/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "echo/udp_ratelimit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Linux 6.3; glibc 2.38 */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define NSEC_PER_SEC INT64_C(1000000000)
#define NSEC_PER_USEC 1000

static int file_make(void)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd = memfd_create("udp-rate", flags | MFD_NOEXEC_SEAL);

	/* a kernel without this flag refuses it */
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("udp-rate", flags);
	return fd < 0 ? -errno : fd;
}

int udp_ratelimit_make(void)
{
	int fd = file_make(), r;

	if (fd < 0)
		return fd;
	if (ftruncate(fd, sizeof(struct udp_ratelimit)) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

int udp_ratelimit_map(struct udp_ratelimit **result, int fd)
{
	struct udp_ratelimit *udp_ratelimit =
		mmap(NULL, sizeof *udp_ratelimit, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int r;

	if (udp_ratelimit == MAP_FAILED)
		return -errno;
	if (udp_ratelimit->key.low == 0 && udp_ratelimit->key.high == 0) {
		r = siphash_key_make(&udp_ratelimit->key);
		if (r < 0) {
			udp_ratelimit_unmap(udp_ratelimit);
			return r;
		}
	}
	*result = udp_ratelimit;
	return 0;
}

void udp_ratelimit_unmap(struct udp_ratelimit *udp_ratelimit)
{
	if (udp_ratelimit)
		munmap(udp_ratelimit, sizeof *udp_ratelimit);
}

uint64_t udp_ratelimit_hash(const struct udp_ratelimit *udp_ratelimit, const struct addr *source)
{
	/* the address family, then the bytes of the network prefix */
	unsigned char network[8] = { 0 };

	if (source->sa.sa_family == AF_INET) {
		network[0] = 4;
		memcpy(&network[1], &source->in.sin_addr, 3);
	} else if (source->sa.sa_family == AF_INET6) {
		network[0] = 6;
		memcpy(&network[1], &source->in6.sin6_addr, 6);
	}
	return siphash(&udp_ratelimit->key, network, sizeof network);
}

unsigned udp_ratelimit_take(struct udp_ratelimit *udp_ratelimit, unsigned rate, uint64_t hash, int64_t now,
                            unsigned count)
{
	int64_t *cell = &udp_ratelimit->cells[hash & (UDP_RATELIMIT_CELLS - 1)];
	int64_t interval, full, begin, left;

	if (rate == 0)
		return count;
	/* rounded up: never more than the rate */
	interval = (NSEC_PER_SEC + rate - 1) / rate;
	now *= NSEC_PER_USEC;
	full = now + interval * rate;
	begin = *cell > now ? *cell : now;
	/* a later time was not written by this function */
	if (begin > full)
		begin = full;
	left = (full - begin) / interval;
	if (left < count)
		count = (unsigned) left;
	*cell = begin + interval * count;
	return count;
}
