/* SPDX-License-Identifier: ISC */
/* suggest.h - suggestions for misspelt names */
#ifndef ECHOD_BASE_SUGGEST_H
#define ECHOD_BASE_SUGGEST_H

#include <stddef.h>

/* The name in the NULL-terminated list `known` with the smallest edit distance to `given` (insert, delete,
 * replace, swap of neighbours; case ignored); NULL if none is similar. Pure; any thread. */
const char *suggest_nearest(const char *given, const char *const known[]);

/* Write the list as "a, b, c or d" into `text` (`size` bytes, cut to fit). Returns `text`. */
char *suggest_join(char *text, size_t size, const char *const known[]);

#endif
