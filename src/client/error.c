/* SPDX-License-Identifier: ISC */
/* error.c - see error.h */
#include <config.h>

#include "client/error.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/escape.h"

static char first[4096]; /* "" : none */
static bool silent;

/* Print one line, whatever a server or the command line has brought into `message`. */
static void print_line(const char *prefix, const char *message)
{
	char text[4 * sizeof first];

	if (silent)
		return;
	escape_controls(text, sizeof text, message, strlen(message));
	fprintf(stderr, "echoc: %s%s\n", prefix, text);
}

enum outcome client_verror(enum outcome outcome, const char *format, va_list args)
{
	char message[sizeof first];

	vsnprintf(message, sizeof message, format, args);
	if (first[0] == '\0')
		snprintf(first, sizeof first, "%s", message);
	print_line("", message);
	return outcome;
}

enum outcome client_error(enum outcome outcome, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	client_verror(outcome, format, args);
	va_end(args);
	return outcome;
}

void client_note(const char *format, ...)
{
	char message[sizeof first];
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof message, format, args);
	va_end(args);
	print_line("note: ", message);
}

const char *client_error_first(void)
{
	return first[0] != '\0' ? first : NULL;
}

void client_error_silence(void)
{
	silent = true;
}
