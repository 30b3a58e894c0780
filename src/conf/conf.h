/* SPDX-License-Identifier: ISC */
/* conf.h - the configuration: echod.conf and the command line, checked
 *
 * A struct conf is complete and valid when conf_read() returns it, and never changes; a reload reads a new
 * one. Any thread and any process forked later may read it. The caller of conf_read() frees it with
 * conf_free(), when no thread uses it any more. Units are in the names or beside the fields.
 */
#ifndef ECHOD_CONF_CONF_H
#define ECHOD_CONF_CONF_H

#include <stdio.h>

#include "conf/diag.h"
#include "conf/types.h"

/* Check of combinations of settings that conf/ cannot judge by itself, such as the model and its limits. Adds
 * errors with conf_error_at() and returns 0 or -EINVAL. */
typedef int conf_check(const struct conf *conf, struct diagnostics *diag);

/* Read and check the file at `path`, apply `overrides` (which options_parse() has checked), and return a new
 * struct conf in
 * `*conf`. `models` is the NULL-terminated list of model names; `check` is called, if not NULL, when the keys
 * that it needs are valid. No other file is opened. Main thread only: libconfuse keeps state in static
 * variables. Returns 0; -EINVAL if the file has errors, all of them added to `diag`; or another -errno if the
 * file cannot be read, with one line added to `diag`. `*conf` is NULL unless 0 is returned. */
int conf_read(struct conf **conf, const char *path, const struct conf_overrides *overrides,
              const char *const models[], conf_check *check, struct diagnostics *diag);

/* As conf_read(), with the `length` bytes at `text` as the content of a file; `name` is its path in messages
 * and in the struct conf. */
int conf_read_text(struct conf **conf, const char *name, const char *text, size_t length,
                   const struct conf_overrides *overrides, const char *const models[], conf_check *check,
                   struct diagnostics *diag);

/* Add an error about the value of `key`, found after the file was read. Its prefix says where the value comes
 * from: FILE:LINE, FILE for a default, or "command line". */
void conf_error_at(const struct conf *conf, enum conf_key key, struct diagnostics *diag, const char *format,
                   ...) __attribute__((format(printf, 4, 5)));

/* Whether `key` has another value in `new` than in `old`, and only a restart can apply it. */
bool conf_needs_restart(const struct conf *old, const struct conf *new, enum conf_key key);

/* Print every key in the syntax of echod.conf. Reading the output gives an equal configuration. */
void conf_dump(const struct conf *conf, FILE *out);

/* Free the configuration; `conf` may be NULL. */
void conf_free(struct conf *conf);

#endif
