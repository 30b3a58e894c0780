/* SPDX-License-Identifier: ISC */
/* error.c - see error.h */
#include <config.h>

#include "client/error.h"

#include <stdbool.h>
#include <stdio.h>

static char first[4096]; /* "" : none */
static bool silent;

enum outcome client_verror(enum outcome outcome, const char *format, va_list args)
{
	char text[sizeof first];

	vsnprintf(text, sizeof text, format, args);
	if (first[0] == '\0')
		snprintf(first, sizeof first, "%s", text);
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
	va_list args;

	if (silent)
		return;
	fputs("echoc: note: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

const char *client_error_first(void)
{
	return first[0] != '\0' ? first : NULL;
}

void client_error_silence(void)
{
	silent = true;
}
