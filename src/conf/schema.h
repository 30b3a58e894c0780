/* SPDX-License-Identifier: ISC */
/* schema.h - the keys of echod.conf at run time: names, types, ranges, defaults
 *
 * Generated from keys.h. The file, the command line and the dump use this table. Pure; any thread.
 */
#ifndef ECHOD_CONF_SCHEMA_H
#define ECHOD_CONF_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/types.h"

enum schema_type {
	SCHEMA_NUMBER,    /* unsigned integer field of any size */
	SCHEMA_BOOL,      /* bool */
	SCHEMA_CHOICE,    /* int or enum: `min` + the index in `names` */
	SCHEMA_MODE,      /* unsigned: permissions, in octal */
	SCHEMA_MODEL,     /* char *, as the following: one of the names given to conf_read() */
	SCHEMA_USER,      /* name of a user, or "" */
	SCHEMA_GROUP,     /* name of a group, or "" */
	SCHEMA_PATH,      /* absolute path of a file, or "" */
	SCHEMA_LISTS,     /* the types after this one are lists in the file */
	SCHEMA_NETWORKS,  /* struct cidr_set */
	SCHEMA_PROTOCOLS, /* conf->tcp, conf->udp */
	SCHEMA_LISTEN,    /* conf->listen */
};

struct schema {
	const char *name;
	size_t offset, size;      /* of the field in struct conf */
	const char *initial;      /* the default in the syntax of the file, a string without its quotes */
	int64_t min, max;         /* of a number */
	const char *unit;         /* of a number, after a space; NULL: none */
	const char *const *names; /* of a choice, NULL-terminated */
	const char *noun;         /* what the names of a choice are, for messages */
	enum schema_type type;
	bool zero;                /* the number may be 0 although `min` is greater */
	bool restart;             /* a change is not applied by a reload */
};

extern const struct schema schema[CONF_KEYS];

/* The names of all keys in order, NULL-terminated. */
extern const char *const schema_names[CONF_KEYS + 1];

/* Size of the buffer for an explanation. */
#define SCHEMA_WHY_MAX 512

static inline bool schema_is_list(enum conf_key key)
{
	return schema[key].type > SCHEMA_LISTS;
}

/* Read a number for `key`: decimal digits alone, no leading zero, within the range. Returns 0, or -EINVAL
 * with a sentence in `why`. */
int schema_number(enum conf_key key, const char *text, int64_t *value, char why[static SCHEMA_WHY_MAX]);

/* Find `text` in the NULL-terminated `names`; `noun` says what they are names of. Returns the index, or
 * -EINVAL with a sentence in `why` that lists all names, and the most similar one if there is one. */
int schema_choice(const char *text, const char *const names[], const char *noun,
                  char why[static SCHEMA_WHY_MAX]);

#endif
