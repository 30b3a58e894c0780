/* SPDX-License-Identifier: ISC */
/* mistakes.h - what is wrong with a configuration file, collected while it is read
 *
 * Mistakes are found in whatever order the checks run and told in that of the file. Owned by the
 * one reader that fills it; main thread only.
 */
#ifndef ECHOD_CONF_MISTAKES_H
#define ECHOD_CONF_MISTAKES_H

#include <stdbool.h>
#include <stddef.h>

struct mistake {
	unsigned line; /* 0: the file as a whole */
	size_t number; /* how many were found before */
	char *text;
};

/* Zeroed before its first use. */
struct mistakes {
	struct mistake *items;
	size_t count, room;
	bool lost; /* memory ran out, so that a mistake could not be kept */
};

struct conf_errors;

void mistakes_add(struct mistakes *mistakes, unsigned line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Move all to `errors`, in the order of their lines, each as "NAME:LINE: text"; past the first thousand,
 * only how many more there are. Returns 0 if there
 * were none, -EINVAL if there were, -ENOMEM if any was lost. */
int mistakes_tell(struct mistakes *mistakes, const char *name, struct conf_errors *errors);

#endif
