/* json.c - see json.h */
#include <config.h>

#include "client/json.h"

static void string_print(FILE *file, const char *text)
{
	fputc('"', file);
	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char) *text;

		if (c == '"' || c == '\\')
			fprintf(file, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			fprintf(file, "\\u%04x", c);
		else
			fputc(c, file);
	}
	fputc('"', file);
}

static void member_begin(struct json *json, const char *name)
{
	fputs(json->first ? "\n" : ",\n", json->file);
	json->first = false;
	for (unsigned i = 0; i < json->depth; i++)
		fputs("  ", json->file);
	if (name != NULL) {
		string_print(json->file, name);
		fputs(": ", json->file);
	}
}

void json_open(struct json *json, FILE *file)
{
	*json = (struct json) { .file = file, .depth = 1, .first = true };
	fputc('{', file);
}

void json_object(struct json *json, const char *name)
{
	member_begin(json, name);
	fputc('{', json->file);
	json->depth++;
	json->first = true;
}

void json_object_end(struct json *json)
{
	json->depth--;
	json->first = true;
	member_begin(json, NULL);
	json->first = false;
	fputc('}', json->file);
}

void json_text(struct json *json, const char *name, const char *value)
{
	member_begin(json, name);
	if (value != NULL)
		string_print(json->file, value);
	else
		fputs("null", json->file);
}

void json_count(struct json *json, const char *name, uint64_t value)
{
	member_begin(json, name);
	fprintf(json->file, "%llu", (unsigned long long) value);
}

void json_number(struct json *json, const char *name, double value, int digits)
{
	member_begin(json, name);
	fprintf(json->file, "%.*f", digits, value);
}

void json_bool(struct json *json, const char *name, bool value)
{
	member_begin(json, name);
	fputs(value ? "true" : "false", json->file);
}

void json_close(struct json *json)
{
	fputs("\n}\n", json->file);
}
