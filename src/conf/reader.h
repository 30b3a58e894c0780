/* SPDX-License-Identifier: ISC */
/* reader.h - one reading of a configuration file, shared by conf.c, listen.c and value.c
 *
 * Main thread.
 */
#ifndef ECHOD_CONF_READER_H
#define ECHOD_CONF_READER_H

#include <confuse.h>
#include <stdbool.h>

#include "conf/syntax.h"

struct reader {
	struct conf *conf;
	const char *name; /* of the file, for messages */
	const char *const *models;
	struct syntax_key keys[CONF_KEYS];
	struct diagnostics *diag;
	size_t first; /* index of the first message of this reading */
	cfg_t *cfg;
};

/* Add an error about the value of `key`: "NAME:LINE: KEY: WHY". */
void reader_error(struct reader *reader, enum conf_key key, const char *why);

/* Add an error about the part `text` of the value of `key`: "NAME:LINE: KEY: "TEXT": WHY". */
void reader_error_text(struct reader *reader, enum conf_key key, const char *text, const char *why);

/* Whether the part `text` of the value of `key` has a control character; if so, an error is added. Values are
 * printed, and no key needs one. */
bool reader_find_control(struct reader *reader, enum conf_key key, const char *text);

/* Copy the list that is the value of `key` to conf->text[key]. */
void reader_copy_list(struct reader *reader, enum conf_key key);

/* Read `listen`; `port` has been read. */
void listen_read(struct reader *reader);

#endif
