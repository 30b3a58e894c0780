/* error.c - see error.h */
#include <config.h>

#include "client/error.h"

#include <stdio.h>

enum outcome client_verror(enum outcome outcome, const char *format, va_list args)
{
	fputs("echoc: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
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
