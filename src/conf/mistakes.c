#include <config.h>

#include "conf/mistakes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "conf/conf.h"

void mistakes_vadd(struct mistakes *mistakes, unsigned line, const char *format, va_list args)
{
	char *text;

	if (mistakes->count == mistakes->room) {
		size_t room = mistakes->room ? 2 * mistakes->room : 16;
		struct mistake *items = reallocarray(mistakes->items, room, sizeof(*items));

		if (!items) {
			mistakes->lost = true;
			return;
		}
		mistakes->items = items;
		mistakes->room = room;
	}
	if (vasprintf(&text, format, args) < 0) {
		mistakes->lost = true;
		return;
	}
	mistakes->items[mistakes->count++] = (struct mistake) { .line = line, .text = text };
}

void mistakes_add(struct mistakes *mistakes, unsigned line, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	mistakes_vadd(mistakes, line, format, args);
	va_end(args);
}

/* glibc's qsort() need not be stable; mistakes of one line go by their text, so the order is fixed. */
static int by_line(const void *a, const void *b)
{
	const struct mistake *left = a, *right = b;

	return (left->line > right->line) - (left->line < right->line);
}

int mistakes_tell(struct mistakes *mistakes, const char *name, struct conf_errors *errors)
{
	int r = mistakes->lost ? -ENOMEM : mistakes->count > 0 ? -EINVAL : 0;

	if (mistakes->count > 1)
		qsort(mistakes->items, mistakes->count, sizeof(*mistakes->items), by_line);
	for (size_t i = 0; i < mistakes->count; i++) {
		struct mistake *m = &mistakes->items[i];

		if (m->line > 0)
			conf_errors_add(errors, "%s:%u: %s", name, m->line, m->text);
		else
			conf_errors_add(errors, "%s: %s", name, m->text);
		free(m->text);
	}
	free(mistakes->items);
	*mistakes = (struct mistakes) { 0 };
	return r;
}
