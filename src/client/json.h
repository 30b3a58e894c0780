/* SPDX-License-Identifier: ISC */
/* json.h - write a JSON object (RFC 8259)
 *
 * Members are written in the order of the calls, also of nested objects. In text that is not UTF-8, as a
 * path may be, invalid bytes are replaced by U+FFFD. Main thread.
 */
#ifndef ECHOD_CLIENT_JSON_H
#define ECHOD_CLIENT_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "client/histogram.h"

struct json {
	FILE *file;
	unsigned depth;
	bool first;
	bool compact;
};

enum json_layout { JSON_INDENTED, JSON_LINE };

/* Begin an object, on one line or indented. */
void json_open(struct json *json, FILE *file, enum json_layout layout);

/* Begin the object of a summary on standard output: the last line of a stream, or the only object; `timed`:
 * with the time. */
void json_open_summary(struct json *json, bool stream, bool timed);

void json_object(struct json *json, const char *name); /* NULL: an element of a list */
void json_object_end(struct json *json);
/* A list of objects, which have no names. */
void json_array(struct json *json, const char *name);
void json_array_end(struct json *json);
void json_text(struct json *json, const char *name, const char *value); /* NULL is null */
void json_count(struct json *json, const char *name, uint64_t value);
void json_number(struct json *json, const char *name, double value, int digits); /* after the decimal point */
void json_null(struct json *json, const char *name);
void json_bool(struct json *json, const char *name, bool value);
/* An object with the count, minimum, mean, maximum, standard deviation and percentiles of durations in
 * nanoseconds, written in microseconds. All but the count are null if there are none. */
void json_times(struct json *json, const char *name, const struct histogram *times);

/* End and flush the object. */
void json_close(struct json *json);

/* Whether an object has been written since the start of the program. */
bool json_written(void);

#endif
