/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "conf/diag.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/escape.h"

/* Maximum number of messages about one file. A file with more errors is not an echod.conf. */
#define MESSAGES_MAX 1000

static bool reserve(struct diagnostics *diag)
{
	size_t capacity = diag->capacity ? 2 * diag->capacity : 16;
	struct diagnostic *items;

	if (diag->count < diag->capacity)
		return true;
	items = reallocarray(diag->items, capacity, sizeof *items);
	if (!items)
		return false;
	diag->items = items;
	diag->capacity = capacity;
	return true;
}

/* A message is one line on a terminal, whatever the name of the file is. Frees `raw`; returns NULL without
 * memory. */
static char *escaped(char *raw)
{
	size_t size = raw ? 4 * strlen(raw) + 1 : 0;
	char *text = raw ? malloc(size) : NULL;

	if (text)
		escape_controls(text, size, raw, strlen(raw));
	free(raw);
	return text;
}

/* Add `raw`, which is freed; NULL: there was no memory for it. */
static void append(struct diagnostics *diag, unsigned line, char *raw)
{
	char *text = escaped(raw);

	if (!text || !reserve(diag)) {
		diag->oom = true;
		free(text);
		return;
	}
	diag->items[diag->count] = (struct diagnostic) { .text = text, .line = line, .number = diag->count };
	diag->count++;
}

void diag_add(struct diagnostics *diag, const char *format, ...)
{
	va_list args;
	char *text;
	int n;

	va_start(args, format);
	n = vasprintf(&text, format, args);
	va_end(args);
	append(diag, 0, n < 0 ? NULL : text);
}

void diag_vadd_at(struct diagnostics *diag, const char *name, unsigned line, const char *format, va_list args)
{
	char *message, *text = NULL;
	int n = vasprintf(&message, format, args);

	if (n >= 0) {
		n = line > 0 ? asprintf(&text, "%s:%u: %s", name, line, message)
		             : asprintf(&text, "%s: %s", name, message);
		free(message);
	}
	append(diag, line, n < 0 ? NULL : text);
}

void diag_add_at(struct diagnostics *diag, const char *name, unsigned line, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	diag_vadd_at(diag, name, line, format, args);
	va_end(args);
}

/* qsort(3) is not stable. */
static int compare(const void *a, const void *b)
{
	const struct diagnostic *left = a, *right = b;

	/* both are far below INT_MAX: the size of a file is limited */
	return left->line != right->line ? (int) left->line - (int) right->line
	                                 : (int) left->number - (int) right->number;
}

void diag_sort(struct diagnostics *diag, size_t first, const char *name)
{
	size_t count = diag->count - first;

	if (count > 1)
		qsort(diag->items + first, count, sizeof *diag->items, compare);
	if (count <= MESSAGES_MAX)
		return;
	while (diag->count > first + MESSAGES_MAX)
		free(diag->items[--diag->count].text);
	diag_add(diag, "%s: and %zu more; is it an echod.conf?", name, count - MESSAGES_MAX);
}

void diag_clear(struct diagnostics *diag)
{
	for (size_t i = 0; i < diag->count; i++)
		free(diag->items[i].text);
	free(diag->items);
	*diag = (struct diagnostics) { 0 };
}
