/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "net/cidr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/decimal.h"
#include "net/addr.h"

/* ::ffff:0:0/96, the block of IPv4-mapped addresses. */
static const struct cidr ipv4_block = {
	.first = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0 },
	.last = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
};

static const char *const why_form =
	"a network is written \"192.0.2.1\", \"192.0.2.0/24\", \"2001:db8::7\" or \"2001:db8::/32\"";
static const char *const why_prefix =
	"the number after \"/\" is 0 to 32 for IPv4 and 0 to 128 for IPv6, in decimal without leading zeros";
static const char *const why_bits =
	"bits are set beyond the prefix; write the first address of the network, or a longer prefix";

static int refuse(const char **why, const char *sentence)
{
	*why = sentence;
	return -EINVAL;
}

/* Read a prefix length of at most `max` bits; -1 for any other text. */
static int parse_prefix(const char *text, unsigned max)
{
	uint64_t bits;

	return decimal_parse(text, max, &bits) == 0 ? (int) bits : -1;
}

/* Read an address into `bytes` as IPv6. Returns the width of its family, 32 or 128, or 0 for any other
 * text. */
static int parse_address(uint8_t bytes[16], const char *text)
{
	memcpy(bytes, ipv4_block.first, 16);
	if (inet_pton(AF_INET, text, bytes + 12) == 1)
		return 32;
	return inet_pton(AF_INET6, text, bytes) == 1 ? 128 : 0;
}

int cidr_parse(struct cidr *network, const char *text, const char **why)
{
	char host[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/');
	size_t length = slash ? (size_t) (slash - text) : strlen(text);
	int width, prefix;

	*why = NULL;
	if (length >= sizeof(host))
		return refuse(why, why_form);
	memcpy(host, text, length);
	host[length] = '\0';

	width = parse_address(network->first, host);
	if (width == 0)
		return refuse(why, why_form);
	prefix = slash ? parse_prefix(slash + 1, (unsigned) width) : width;
	if (prefix < 0)
		return refuse(why, why_prefix);
	prefix += 128 - width;

	memcpy(network->last, network->first, 16);
	for (int bit = prefix; bit < 128; bit++) {
		uint8_t mask = (uint8_t) (0x80 >> bit % 8);

		if (network->first[bit / 8] & mask)
			return refuse(why, why_bits);
		network->last[bit / 8] |= mask;
	}
	return 0;
}

static int by_first(const void *a, const void *b)
{
	const struct cidr *left = a, *right = b;

	return memcmp(left->first, right->first, 16);
}

/* Add one to a 128-bit number, which must not be the largest. */
static void increment(uint8_t bytes[16])
{
	for (int i = 15; ++bytes[i] == 0; i--)
		;
}

/* Subtract one; the number must not be 0. */
static void decrement(uint8_t bytes[16])
{
	for (int i = 15; bytes[i]-- == 0; i--)
		;
}

/* Write `network` to `ranges`, without the IPv4 block if it is a larger IPv6 network: "::/0", for example,
 * must not match IPv4 addresses. Returns the number of ranges, 1 or 2. */
static size_t without_ipv4(struct cidr *ranges, const struct cidr *network)
{
	int below = memcmp(network->first, ipv4_block.first, 16);
	int above = memcmp(network->last, ipv4_block.last, 16);

	ranges[0] = *network;
	/* networks are aligned: none that is larger than the block begins where the block does */
	if (below >= 0 || above < 0)
		return 1;
	memcpy(ranges[0].last, ipv4_block.first, 16);
	decrement(ranges[0].last);
	if (above == 0)
		return 1;
	ranges[1] = *network;
	memcpy(ranges[1].first, ipv4_block.last, 16);
	increment(ranges[1].first);
	return 2;
}

int cidr_set_make(struct cidr_set *set, const struct cidr *networks, size_t count)
{
	struct cidr *ranges;
	size_t n = 0, kept = 0;

	*set = (struct cidr_set) { 0 };
	if (count == 0)
		return 0;
	ranges = calloc(count, 2 * sizeof(*ranges));
	if (!ranges)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		n += without_ipv4(ranges + n, &networks[i]);
	qsort(ranges, n, sizeof(*ranges), by_first);

	/* Merge overlapping ranges; adjacent ones may stay apart. */
	for (size_t i = 1; i < n; i++) {
		if (memcmp(ranges[i].first, ranges[kept].last, 16) > 0)
			ranges[++kept] = ranges[i];
		else if (memcmp(ranges[i].last, ranges[kept].last, 16) > 0)
			memcpy(ranges[kept].last, ranges[i].last, 16);
	}
	set->ranges = ranges;
	set->count = kept + 1;
	return 0;
}

bool cidr_set_match(const struct cidr_set *set, const struct addr *addr)
{
	uint8_t bytes[16];
	size_t low = 0, high = set->count;

	if (high == 0)
		return false;
	if (addr->sa.sa_family == AF_INET) {
		memcpy(bytes, ipv4_block.first, 12);
		memcpy(bytes + 12, &addr->in.sin_addr, 4);
	} else {
		memcpy(bytes, &addr->in6.sin6_addr, 16);
	}
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (memcmp(bytes, set->ranges[middle].last, 16) > 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low < set->count && memcmp(bytes, set->ranges[low].first, 16) >= 0;
}

void cidr_set_clear(struct cidr_set *set)
{
	free(set->ranges);
	*set = (struct cidr_set) { 0 };
}
