/* SPDX-License-Identifier: ISC */
/* plural.h - grammar of messages with a count
 *
 * Pure; any thread.
 */
#ifndef ECHOD_BASE_PLURAL_H
#define ECHOD_BASE_PLURAL_H

#include <stdint.h>

/* The ending of a noun after `count`: "1 worker", "2 workers". */
static inline const char *plural(uint64_t count)
{
	return count == 1 ? "" : "s";
}

#endif
