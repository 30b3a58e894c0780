/* SPDX-License-Identifier: ISC */
/* options.h - echod's command line
 *
 * Main thread, once, at the start. Prints nothing but a usage error or the help itself.
 */
#ifndef ECHOD_CONF_OPTIONS_H
#define ECHOD_CONF_OPTIONS_H

#include <stdbool.h>
#include <stdio.h>

#include "conf/conf.h"

enum options_action {
	OPTIONS_RUN,
	OPTIONS_TEST,        /* -t */
	OPTIONS_DUMP,        /* -T */
	OPTIONS_LIST_MODELS, /* --list-models */
	OPTIONS_VERSION,     /* -V */
	OPTIONS_HELP,        /* -h */
};

struct options {
	enum options_action action;
	bool foreground;  /* -n */
	const char *path; /* -c, or the built-in default; points into argv or is constant */
	struct conf_overrides overrides;
};

/* Parse `argv`, checking every value against the same ranges as the file's (`models`: legal
 * model names, NULL-terminated). Returns 0, or -EINVAL after a message on `err` that names the
 * option, what is wrong and what would be right; the caller exits with EX_USAGE (64). */
int options_parse(struct options *options, int argc, char *argv[], const char *const models[], FILE *err);

/* Print what `echod -h` prints; it fits a screen. */
void options_help(FILE *out);

#endif
