/* SPDX-License-Identifier: ISC */
/* scan.h - the look at echod.conf that comes before libconfuse's
 *
 * libconfuse stops at the first mistake, keeps no line for a key, takes the last of two values in
 * silence and drops what it does not understand: an unclosed comment with all that follows, a "*"
 * without quotes, a variable that is not set. This scan knows the same tokens (lexer.l of
 * libconfuse 3.3), finds every statement "KEY = VALUE" and tells all mistakes of form; libconfuse
 * then reads the values from a text that has none left.
 */
#ifndef ECHOD_CONF_SCAN_H
#define ECHOD_CONF_SCAN_H

#include <stdbool.h>
#include <stddef.h>

#include "conf/conf.h"
#include "conf/mistakes.h"

#define SCAN_VARIABLE_MAX 64

struct scan_key {
	unsigned line; /* where the file gives it; 0: nowhere */
	bool broken;   /* a mistake was told; the value is unknown */
	char empty_variable[SCAN_VARIABLE_MAX]; /* an environment variable in the value that is set, but empty, maybe cut; "" */
};

/* Look through the `length` bytes at `text`, which has a NUL behind them and none among them. Tell every
 * mistake of form. Comments and mistaken statements are overwritten with blanks, lines kept, so that
 * what remains is for libconfuse to read. `keys` is filled in. */
void scan_text(char *text, size_t length, struct scan_key keys[static CONF_KEYS], struct mistakes *mistakes);

#endif
