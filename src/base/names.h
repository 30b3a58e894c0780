/* SPDX-License-Identifier: ISC */
/* names.h - help with misspelt names */
#ifndef ECHOD_BASE_NAMES_H
#define ECHOD_BASE_NAMES_H

#include <stddef.h>

/* The name of the NULL-terminated list `known` that is nearest to `given` by edit distance
 * (insert, delete, replace, swap of neighbours; case ignored), or NULL where none is near
 * enough to be what was meant. Pure; any thread. */
const char *names_nearest(const char *given, const char *const known[]);

/* Write the list as "a, b, c or d" into `text` (`size` bytes, always terminated). Returns `text`. */
char *names_join(char *text, size_t size, const char *const known[]);

#endif
