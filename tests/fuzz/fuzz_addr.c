/* SPDX-License-Identifier: ISC */
/* fuzz_addr.c - addresses and networks from any text
 *
 * The input is text, which is parsed as one address, and line by line as addresses and networks. An
 * accepted address is printed as text that is parsed as the same address. The set of the networks
 * gives the same results as a linear search.
 */
#include <config.h>

#include "fuzz.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "net/addr.h"
#include "net/cidr.h"

#define PORT 7007
#define NETWORKS_MAX 64

static void try_addr(const char *text)
{
	const char *why = NULL;
	char printed[ADDR_TEXT_MAX], again_printed[ADDR_TEXT_MAX];
	struct addr addr, again;
	int r = addr_parse(&addr, text, PORT, &why);

	if (r < 0) {
		FUZZ_CLAIM((r == -EINVAL || r == -ENODEV) && why && *why);
		if (r == -ENODEV)
			FUZZ_CLAIM(addr.len == sizeof addr.in6 && addr_port(&addr) != 0 &&
			           addr.in6.sin6_scope_id == 0);
		return;
	}
	FUZZ_CLAIM(r == 0);
	FUZZ_CLAIM(addr.len > 0 && addr.len <= sizeof(struct sockaddr_un));
	FUZZ_CLAIM((addr_port(&addr) == 0) == (addr.sa.sa_family == AF_UNIX));
	FUZZ_CLAIM(addr_equal(&addr, &addr));
	addr_print(&addr, printed);
	FUZZ_CLAIM(strlen(printed) < ADDR_TEXT_MAX);
	FUZZ_CLAIM(addr_parse(&again, printed, 1, &why) == 0);
	FUZZ_CLAIM(strcmp(addr_print(&again, again_printed), printed) == 0);
	addr_unmap(&addr);
	addr_unmap(&again);
	FUZZ_CLAIM(addr_equal(&addr, &again));
}

static bool in_ipv4(const uint8_t bits[static 16])
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	return memcmp(bits, mapped, sizeof mapped) == 0;
}

static void addr_from_bits(struct addr *addr, const uint8_t bits[static 16])
{
	memset(addr, 0, sizeof *addr);
	if (in_ipv4(bits)) {
		addr->in.sin_family = AF_INET;
		memcpy(&addr->in.sin_addr, bits + 12, 4);
		addr->len = sizeof addr->in;
	} else {
		addr->in6.sin6_family = AF_INET6;
		memcpy(&addr->in6.sin6_addr, bits, 16);
		addr->len = sizeof addr->in6;
	}
}

/* A linear search. An IPv6 network that contains the IPv4 block does not match IPv4 addresses. */
static bool search(const struct cidr *networks, size_t count, const uint8_t bits[static 16])
{
	for (size_t i = 0; i < count; i++) {
		if (in_ipv4(bits) && !(in_ipv4(networks[i].first) && in_ipv4(networks[i].last)))
			continue;
		if (memcmp(networks[i].first, bits, 16) <= 0 && memcmp(bits, networks[i].last, 16) <= 0)
			return true;
	}
	return false;
}

/* Look up `bits` and the addresses before and after it in the set. */
static void try_match(const struct cidr_set *set, const struct cidr *networks, size_t count,
                      const uint8_t bits[static 16])
{
	for (int step = -1; step <= 1; step++) {
		uint8_t near[16];
		int carry = step;
		struct addr addr;

		memcpy(near, bits, 16);
		for (int i = 15; i >= 0 && carry; i--) {
			int sum = near[i] + carry;

			near[i] = (uint8_t) sum;
			carry = sum < 0 ? -1 : sum > 255;
		}
		addr_from_bits(&addr, near);
		FUZZ_CLAIM(cidr_set_match(set, &addr) == search(networks, count, near));
	}
}

static void try_set(const struct cidr *networks, size_t count)
{
	static const uint8_t edge_of_ipv4[16] = { [10] = 0xff, [11] = 0xff };
	struct cidr_set set = { 0 };

	FUZZ_CLAIM(cidr_set_make(&set, networks, count) == 0);
	FUZZ_CLAIM(set.count <= 2 * count && (set.count > 0) == (count > 0));
	for (size_t i = 1; i < set.count; i++)
		FUZZ_CLAIM(memcmp(set.ranges[i - 1].last, set.ranges[i].first, 16) < 0);
	for (size_t i = 0; i < count; i++) {
		try_match(&set, networks, count, networks[i].first);
		try_match(&set, networks, count, networks[i].last);
		try_match(&set, networks, count, edge_of_ipv4);
	}
	cidr_set_clear(&set);
	FUZZ_CLAIM(set.count == 0 && !set.ranges);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cidr networks[NETWORKS_MAX];
	char *text = malloc(size + 1), *rest = text, *line;
	const char *why;
	size_t count = 0;

	if (!text)
		abort();
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	try_addr(text);
	while ((line = strsep(&rest, "\n"))) {
		int r;

		try_addr(line);
		why = NULL;
		r = cidr_parse(&networks[count], line, &why);
		FUZZ_CLAIM(r == 0 || (r == -EINVAL && why && *why));
		if (r == 0) {
			FUZZ_CLAIM(memcmp(networks[count].first, networks[count].last, 16) <= 0);
			if (count < NETWORKS_MAX - 1)
				count++;
		}
	}
	try_set(networks, count);
	free(text);
	return 0;
}
