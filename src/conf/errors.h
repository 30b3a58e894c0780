/* SPDX-License-Identifier: ISC */
/* errors.h - what is wrong, in whole sentences for people, collected until somebody tells them
 *
 * Owned by whoever zeroed it; one thread.
 */
#ifndef ECHOD_CONF_ERRORS_H
#define ECHOD_CONF_ERRORS_H

#include <stddef.h>

/* Every mistake found, each one complete line without a newline: "FILE:LINE: what is wrong,
 * what would be right". Zeroed before its first use; freed with conf_errors_clear(). */
struct conf_errors {
	char **lines;
	size_t count;
};

void conf_errors_add(struct conf_errors *errors, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void conf_errors_clear(struct conf_errors *errors);

#endif
