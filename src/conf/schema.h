/* SPDX-License-Identifier: ISC */
/* schema.h - the keys of echod.conf: names, types, ranges, defaults
 *
 * The one table from which the file, the command line and the dump know what is legal. Pure; any
 * thread.
 */
#ifndef ECHOD_CONF_SCHEMA_H
#define ECHOD_CONF_SCHEMA_H

#include <stddef.h>
#include <stdint.h>

#include "conf/conf.h"

enum schema_type { SCHEMA_NUMBER, SCHEMA_BOOL, SCHEMA_STRING, SCHEMA_LIST };

struct schema {
	const char *name;
	enum schema_type type;
	const char *initial; /* the default as the file would spell it, a string without its quotes */
	int64_t min, max;    /* of a number */
	const char *unit;    /* of a number, with a blank before it, or "" */
};

extern const struct schema schema[CONF_KEYS];

/* The names of all keys in order, NULL-terminated. */
extern const char *const schema_names[CONF_KEYS + 1];

/* Room for the sentence that says what is wrong. */
#define SCHEMA_WHY_MAX 512

/* Read a number for `key`: decimal digits alone, no leading zero, within the range. Returns 0, or
 * -EINVAL with a sentence in `why`. */
int schema_number(enum conf_key key, const char *text, int64_t *value, char why[static SCHEMA_WHY_MAX]);

/* Find `text` in the NULL-terminated `names`; `noun` says what they are names of. Returns the index,
 * or -EINVAL with a sentence in `why`: the nearest name, if any, and all legal ones. */
int schema_choice(const char *text, const char *const names[], const char *noun,
                  char why[static SCHEMA_WHY_MAX]);

#endif
