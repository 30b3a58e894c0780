/* SPDX-License-Identifier: ISC */
/* fuzz_proxy.c - headers of the PROXY protocol: the result is the same if they arrive byte by byte */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "net/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy_header whole, part;
	uint8_t *copy;
	int r = proxy_parse(data, size, &whole), found = 0;

	/* in a copy, so that a sanitizer detects reads beyond its end */
	for (size_t n = 0; n <= size && n <= 300 && found == 0; n++) {
		copy = malloc(n ? n : 1);
		if (!copy)
			return 0;
		memcpy(copy, data, n);
		found = proxy_parse(copy, n, &part);
		free(copy);
	}
	if (size <= 300 && found != r)
		abort();
	if (found == 1 && (part.length == 0 || part.length > 16 + UINT16_MAX))
		abort();
	if (found == 1 && r == 1 &&
	    (part.length != whole.length || memcmp(&part.peer, &whole.peer, sizeof part.peer) != 0))
		abort();
	if (size >= 300 && r == 0)
		abort();
	return 0;
}
