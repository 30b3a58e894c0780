/* SPDX-License-Identifier: ISC */
/* output.h - lines on standard output
 *
 * Main thread.
 */
#ifndef ECHOD_CLIENT_OUTPUT_H
#define ECHOD_CLIENT_OUTPUT_H

#include <stdbool.h>

/* Seconds since the epoch. */
double output_time(void);

/* Flush standard output. Returns false if output is lost; the reason is kept. */
bool output_flush(void);

/* Why output is lost; NULL: it is not. Flushes. */
const char *output_error(void);

/* Begin a line: with `timestamps` (-D) print the time as ping(8) does. */
void output_line_begin(bool timestamps);

#endif
