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

enum outcome client_verror(enum outcome outcome, const char *format, va_list args)
{
	char raw[sizeof first], text[4 * sizeof first];

	vsnprintf(raw, sizeof raw, format, args);
	/* an error is one line, whatever a server or the command line has brought into it */
	escape_controls(text, sizeof text, raw, strlen(raw));
	if (first[0] == '\0')
		snprintf(first, sizeof first, "%s", raw);
	if (!silent)
		fprintf(stderr, "echoc: %s\n", text);
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
	char raw[1024], text[4 * sizeof raw];
	va_list args;

	if (silent)
		return;
	va_start(args, format);
	vsnprintf(raw, sizeof raw, format, args);
	va_end(args);
	escape_controls(text, sizeof text, raw, strlen(raw));
	fprintf(stderr, "echoc: note: %s\n", text);
}

const char *client_error_first(void)
{
	return first[0] != '\0' ? first : NULL;
}

void client_error_silence(void)
{
	silent = true;
}
