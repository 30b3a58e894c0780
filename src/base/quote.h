/* SPDX-License-Identifier: ISC */
/* quote.h - quote untrusted text for messages
 *
 * Pure; any thread.
 */
#ifndef ECHOD_BASE_QUOTE_H
#define ECHOD_BASE_QUOTE_H

#include <stddef.h>

/* Maximum size of the result of quote(), including the NUL. */
#define QUOTE_MAX 96

/* Write the `length` bytes at `text` to `out` between double quotes. Other characters than printable ASCII
 * are escaped, so that the text cannot control a terminal or add a log line. A text that is too long is cut
 * and ends in "...". Returns `out`. */
char *quote(char out[static QUOTE_MAX], const char *text, size_t length);

/* As quote(), for a NUL-terminated string. */
char *quote_string(char out[static QUOTE_MAX], const char *text);

#endif
