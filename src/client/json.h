/* json.h - one flat JSON object (RFC 8259), written as it goes
 *
 * Members are written in the order of the calls; an object may hold objects. Text that is no UTF-8, as a path may be, is
 * written with U+FFFD for what is wrong in it. Main thread.
 */
#ifndef ECHOD_CLIENT_JSON_H
#define ECHOD_CLIENT_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json {
	FILE *file;
	unsigned depth;
	bool first;
};

void json_open(struct json *json, FILE *file);
void json_object(struct json *json, const char *name);
void json_object_end(struct json *json);
void json_text(struct json *json, const char *name, const char *value); /* NULL is null */
void json_count(struct json *json, const char *name, uint64_t value);
void json_number(struct json *json, const char *name, double value, int digits); /* after the point */
void json_bool(struct json *json, const char *name, bool value);
void json_close(struct json *json);

#endif
