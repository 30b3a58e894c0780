/* SPDX-License-Identifier: ISC */
/* decimal.h - decimal numbers without sign
 *
 * Pure; any thread. The locale and errno have no influence.
 */
#ifndef ECHOD_BASE_DECIMAL_H
#define ECHOD_BASE_DECIMAL_H

#include <stdint.h>

/* Read the digits at `*text` into `*value` and advance `*text` past all of them. Returns 0; -EINVAL if there
 * is no digit; -ERANGE, with `*value` UINT64_MAX, if the number has more than 64 bits. */
int decimal_prefix(const char **text, uint64_t *value);

/* Read `text`, which must consist of digits without leading zeros, into `*value`. Returns 0; -EINVAL if the
 * text has another form; -ERANGE if the number is greater than `max` (`*value` is it, or UINT64_MAX). */
int decimal_parse(const char *text, uint64_t max, uint64_t *value);

#endif
