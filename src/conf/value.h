/* SPDX-License-Identifier: ISC */
/* value.h - read, print and free the value of one key, as its row of the table says (keys.h)
 *
 * Main thread.
 */
#ifndef ECHOD_CONF_VALUE_H
#define ECHOD_CONF_VALUE_H

#include <stdio.h>

#include "conf/reader.h"

/* Take the value of `key` from libconfuse, check it, and set its field of reader->conf. Errors are added to
 * reader->diag, and the value is marked as invalid. */
void value_read(struct reader *reader, enum conf_key key);

/* Print the value in the syntax of the file. */
void value_dump(const struct conf *conf, enum conf_key key, FILE *out);

/* Free what the field refers to. */
void value_clear(struct conf *conf, enum conf_key key);

#endif
