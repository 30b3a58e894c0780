/* SPDX-License-Identifier: ISC */
/* quote.h - text from outside, made fit for a message
 *
 * Pure; any thread.
 */
#ifndef ECHOD_BASE_QUOTE_H
#define ECHOD_BASE_QUOTE_H

#include <stddef.h>

/* Enough for what quote() makes, its NUL included. */
#define QUOTE_MAX 96

/* Write the `length` bytes at `text` between double quotes, everything but printable ASCII as an
 * escape, so that nothing can act on a terminal or fake a line of a log; what is too long ends
 * in "...". Returns `out`. */
char *quote(char out[static QUOTE_MAX], const char *text, size_t length);

/* The same for a string. */
char *quote_string(char out[static QUOTE_MAX], const char *text);

#endif
