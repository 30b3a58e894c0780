/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "conf/errors.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void errors_vadd(struct conf_errors *errors, const char *format, va_list args)
	__attribute__((format(printf, 2, 0)));

static void errors_vadd(struct conf_errors *errors, const char *format, va_list args)
{
	char **lines = errors->lines, *line;

	/* The room doubles whenever the count is a power of two. */
	if ((errors->count & (errors->count - 1)) == 0)
		lines = reallocarray(lines, errors->count ? 2 * errors->count : 1, sizeof(*lines));
	if (!lines)
		return;
	errors->lines = lines;
	if (vasprintf(&line, format, args) >= 0)
		lines[errors->count++] = line;
}

void conf_errors_add(struct conf_errors *errors, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	errors_vadd(errors, format, args);
	va_end(args);
}

void conf_errors_clear(struct conf_errors *errors)
{
	for (size_t i = 0; i < errors->count; i++)
		free(errors->lines[i]);
	free(errors->lines);
	*errors = (struct conf_errors) { 0 };
}
