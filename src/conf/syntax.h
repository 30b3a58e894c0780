/* SPDX-License-Identifier: ISC */
/* syntax.h - the syntax check of echod.conf before libconfuse reads it
 *
 * libconfuse stops at the first error, does not keep the line of a key, ignores the first of two values
 * without an error, and drops some input silently: the text after an unclosed comment, a "*" without quotes,
 * a variable that is not set. This check has the same tokens (lexer.l of libconfuse 3.3), finds every
 * statement "KEY = VALUE" and reports all syntax errors. libconfuse then reads the values from the text
 * without the invalid statements.
 */
#ifndef ECHOD_CONF_SYNTAX_H
#define ECHOD_CONF_SYNTAX_H

#include <stdbool.h>
#include <stddef.h>

#include "conf/diag.h"
#include "conf/types.h"

#define SYNTAX_VARIABLE_MAX 64

struct syntax_key {
	unsigned line; /* of the statement; 0: none */
	bool invalid;  /* an error was reported; the value is unknown */
	char empty_variable[SYNTAX_VARIABLE_MAX]; /* name of a variable in the value that is set but empty,
	                                             possibly cut; or "" */
};

/* Check the `length` bytes at `text`, which contain no NUL and are followed by one. Every syntax error is
 * added to `diag`, with `name` as the name of the file. Comments and invalid statements are overwritten with
 * spaces; line numbers stay the same. `keys` is filled in. Pure. */
void syntax_check(char *text, size_t length, struct syntax_key keys[static CONF_KEYS], const char *name,
                  struct diagnostics *diag);

#endif
