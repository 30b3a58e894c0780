/* SPDX-License-Identifier: ISC */
/* error.h - error messages of echoc
 *
 * Main thread, until the program ends.
 */
#ifndef ECHOD_CLIENT_ERROR_H
#define ECHOD_CLIENT_ERROR_H

#include <stdarg.h>

/* Exit status of echoc. */
enum outcome {
	OUTCOME_OK = 0,
	OUTCOME_DIFFERS = 1,     /* bytes were lost or came back different */
	OUTCOME_UNREACHABLE = 2, /* no connection */
	OUTCOME_USAGE = 64,      /* invalid command line, or a resource of this host is missing */
};

/* Print "echoc: ", the formatted message and a newline on standard error. Returns `outcome`.
 * The first message is kept for the member "error" of JSON objects. */
enum outcome client_error(enum outcome outcome, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
enum outcome client_verror(enum outcome outcome, const char *format, va_list args)
	__attribute__((format(printf, 2, 0)));

/* Print "echoc: note: " and the formatted text. This is not an error. */
void client_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The first message, without "echoc: "; NULL: there was none. */
const char *client_error_first(void);

/* Do not print messages any more, because standard error receives a JSON object. */
void client_error_silence(void);

#endif
