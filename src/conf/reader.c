/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "conf/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/escape.h"
#include "base/quote.h"
#include "conf/schema.h"

#define HINT_MAX (SYNTAX_VARIABLE_MAX + 64)

/* A clause that names the empty environment variable in the value of a key, which may be the reason of the
 * error; or "". */
static const char *empty_variable_hint(const struct reader *reader, enum conf_key key,
                                       char hint[static HINT_MAX])
{
	const char *variable = reader->keys[key].empty_variable;

	*hint = '\0';
	if (*variable)
		snprintf(hint, HINT_MAX, " (the environment variable %s is set, but empty)", variable);
	return hint;
}

void reader_error(struct reader *reader, enum conf_key key, const char *why)
{
	char hint[HINT_MAX];

	reader->keys[key].invalid = true;
	diag_add_at(reader->diag, reader->name, reader->keys[key].line, "%s: %s%s", schema[key].name, why,
	            empty_variable_hint(reader, key, hint));
}

void reader_error_text(struct reader *reader, enum conf_key key, const char *text, const char *why)
{
	char shown[QUOTE_MAX], hint[HINT_MAX];

	reader->keys[key].invalid = true;
	diag_add_at(reader->diag, reader->name, reader->keys[key].line, "%s: %s: %s%s", schema[key].name,
	            quote_string(shown, text), why, empty_variable_hint(reader, key, hint));
}

bool reader_find_control(struct reader *reader, enum conf_key key, const char *text)
{
	const char *control = escape_find_control(text);
	char why[96];

	if (!control)
		return false;
	/* C1 in UTF-8 has two bytes */
	snprintf(why, sizeof why, "has the control character \\x%02X; write printable characters only",
	         (unsigned char) control[*control == '\xc2']);
	reader_error_text(reader, key, text, why);
	return true;
}

void reader_copy_list(struct reader *reader, enum conf_key key)
{
	struct conf_strings *strings = &reader->conf->text[key];
	unsigned count = cfg_size(reader->cfg, schema[key].name);

	strings->items = calloc(count + 1, sizeof *strings->items);
	if (!strings->items) {
		reader->diag->oom = true;
		return;
	}
	for (unsigned i = 0; i < count; i++) {
		char *copy = strdup(cfg_getnstr(reader->cfg, schema[key].name, i));

		if (!copy) {
			reader->diag->oom = true;
			return;
		}
		strings->items[strings->count++] = copy;
	}
}
