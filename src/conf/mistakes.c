/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "conf/mistakes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "conf/errors.h"

/* Make room for one more. */
static bool grow(struct mistakes *mistakes)
{
	size_t room = mistakes->room ? 2 * mistakes->room : 16;
	struct mistake *items;

	if (mistakes->count < mistakes->room)
		return true;
	items = reallocarray(mistakes->items, room, sizeof(*items));
	if (!items)
		return false;
	mistakes->items = items;
	mistakes->room = room;
	return true;
}

void mistakes_add(struct mistakes *mistakes, unsigned line, const char *format, ...)
{
	va_list args;
	char *text;
	int n;

	va_start(args, format);
	n = vasprintf(&text, format, args);
	va_end(args);
	if (n < 0) {
		mistakes->lost = true;
	} else if (!grow(mistakes)) {
		mistakes->lost = true;
		free(text);
	} else {
		mistakes->items[mistakes->count] =
			(struct mistake) { .line = line, .number = mistakes->count, .text = text };
		mistakes->count++;
	}
}

/* By line, and as they were found within a line: qsort() alone need not keep that order. */
static int by_line(const void *a, const void *b)
{
	const struct mistake *left = a, *right = b;

	if (left->line != right->line)
		return left->line > right->line ? 1 : -1;
	return left->number > right->number ? 1 : -1;
}

/* Nobody reads more; what has as many is some other kind of file. */
#define TOLD_MAX 1000

int mistakes_tell(struct mistakes *mistakes, const char *name, struct conf_errors *errors)
{
	int r = mistakes->lost ? -ENOMEM : mistakes->count > 0 ? -EINVAL : 0;

	if (mistakes->count > 1)
		qsort(mistakes->items, mistakes->count, sizeof(*mistakes->items), by_line);
	for (size_t i = 0; i < mistakes->count; i++) {
		struct mistake *m = &mistakes->items[i];

		if (i == TOLD_MAX)
			conf_errors_add(errors, "%s: and %zu more; is it an echod.conf?", name, mistakes->count - i);
		else if (i > TOLD_MAX)
			; /* counted above */
		else if (m->line > 0)
			conf_errors_add(errors, "%s:%u: %s", name, m->line, m->text);
		else
			conf_errors_add(errors, "%s: %s", name, m->text);
		free(m->text);
	}
	free(mistakes->items);
	*mistakes = (struct mistakes) { 0 };
	return r;
}
