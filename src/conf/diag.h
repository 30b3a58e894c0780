/* SPDX-License-Identifier: ISC */
/* diag.h - error messages that are collected, and printed or logged later
 *
 * All errors of a configuration are reported together. Each message is one complete line without a newline:
 * what is wrong, and what would be right. One thread for each struct diagnostics.
 */
#ifndef ECHOD_CONF_DIAG_H
#define ECHOD_CONF_DIAG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct diagnostic {
	char *text;
	unsigned line; /* of the file; 0: no certain one */
	size_t number; /* order of addition */
};

/* Zeroed before its first use; cleared with diag_clear(). */
struct diagnostics {
	struct diagnostic *items;
	size_t count, capacity;
	bool oom; /* a message was lost because memory ran out */
};

/* Add a message that says itself what it is about. */
void diag_add(struct diagnostics *diag, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Add a message about a line of a file: "NAME:LINE: message", or "NAME: message" if `line` is 0. */
void diag_add_at(struct diagnostics *diag, const char *name, unsigned line, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
void diag_vadd_at(struct diagnostics *diag, const char *name, unsigned line, const char *format, va_list args)
	__attribute__((format(printf, 4, 0)));

/* Sort the messages from index `first` on by line, those of one line in the order of their addition. Past the
 * first thousand, replace them by one message "NAME: and N more". */
void diag_sort(struct diagnostics *diag, size_t first, const char *name);

/* Free all messages. */
void diag_clear(struct diagnostics *diag);

#endif
