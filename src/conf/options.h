/* SPDX-License-Identifier: ISC */
/* options.h - echod's command line
 *
 * Main thread, once, at the start. Prints only usage errors and the help.
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

/* Parse `argv`. Values have the same ranges as in the file; `models` is the NULL-terminated list of model
 * names. Returns 0, or -EINVAL after a message on `err` that names the option, the error and what would be
 * right; the caller exits with EX_USAGE (sysexits.h). */
int options_parse(struct options *options, int argc, char *argv[], const char *const models[], FILE *err);

/* Print the output of `echod -h`, at most 24 lines. */
void options_help(FILE *out);

#endif
