/* SPDX-License-Identifier: ISC */
/* numbers.h - parse and print numbers with units
 *
 * Pure; any thread. Invalid text is rejected: nothing is clamped or ignored.
 */
#ifndef ECHOD_CLIENT_NUMBERS_H
#define ECHOD_CLIENT_NUMBERS_H

#include <stdint.h>

/* Decimal digits within [min, max]. Returns 0 or -EINVAL (-ERANGE if only the range is wrong). */
int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *value);

/* Bytes: digits, then nothing, "K", "M" or "G" (powers of 1024). Returns as number_parse(). */
int number_parse_size(const char *text, uint64_t min, uint64_t max, uint64_t *value);

/* A time in seconds ("2", "0.25") or with a unit ("us", "ms", "s", "m", "h"), within [min, max] seconds,
 * in nanoseconds. Returns as number_parse(). */
int number_parse_time(const char *text, double min, double max, uint64_t *nsec);

/* The traffic class byte (DSCP and ECN): "0x00" to "0xff", or its DSCP alone: 0 to 63, or a name of RFC
 * 2474, 2597, 3246, 5865 or 8622 ("CS5", "AF41", "EF", "VA", "LE"). Returns as number_parse(). */
int number_parse_tos(const char *text, int *tos);

#define NUMBER_TEXT_MAX 32

/* "1,234,567". Returns `text`. */
char *number_group(char text[static NUMBER_TEXT_MAX], uint64_t value);

/* Nanoseconds with a suitable unit: "870 ns", "98.2 us", "1.25 ms", "2.10 s". Returns `text`. */
char *number_duration(char text[static NUMBER_TEXT_MAX], double nsec);

/* Bytes with a binary unit: "512 B", "1.5 KiB", "3.2 GiB". Returns `text`. */
char *number_bytes(char text[static NUMBER_TEXT_MAX], double bytes);

#endif
