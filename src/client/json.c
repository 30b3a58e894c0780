/* SPDX-License-Identifier: ISC */
/* json.c - see json.h */
#include <config.h>

#include "client/json.h"

#include "client/output.h"

static bool written;

/* Length of the UTF-8 character at `text` (RFC 3629); 0 if it is invalid. */
static size_t character_length(const char *text)
{
	static const uint32_t min[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned char first = (unsigned char) *text;
	size_t length = first < 0x80
			      ? 1
			      : (size_t) __builtin_clz(~((unsigned) first << 24)); /* leading one bits */
	uint32_t code = length < 2 ? first : first & (0x7fu >> length);

	if ((first >= 0x80 && length < 2) || length > 4)
		return 0;
	for (size_t i = 1; i < length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (text[i] & 0x3f);
	}
	return code < min[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ? 0 : length;
}

static void string_print(FILE *file, const char *text)
{
	size_t length;

	fputc('"', file);
	for (; *text != '\0'; text += length > 0 ? length : 1) {
		unsigned char c = (unsigned char) *text;

		length = character_length(text);
		if (length == 0)
			fputs("\\ufffd", file);
		else if (c == '"' || c == '\\')
			fprintf(file, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			fprintf(file, "\\u%04x", c);
		else
			fwrite(text, 1, length, file);
	}
	fputc('"', file);
}

static void member_begin(struct json *json, const char *name)
{
	fputs(json->first ? "" : ",", json->file);
	fputc(json->compact ? ' ' : '\n', json->file);
	json->first = false;
	for (unsigned i = 0; i < json->depth && !json->compact; i++)
		fputs("  ", json->file);
	if (name) {
		string_print(json->file, name);
		fputs(": ", json->file);
	}
}

void json_open(struct json *json, FILE *file, enum json_layout layout)
{
	*json = (struct json) { .file = file, .depth = 1, .first = true, .compact = layout == JSON_LINE };
	fputc('{', file);
}

void json_open_summary(struct json *json, bool stream, bool timed)
{
	json_open(json, stdout, stream ? JSON_LINE : JSON_INDENTED);
	if (stream)
		json_text(json, "type", "summary");
	if (stream || timed)
		json_number(json, "time", output_time(), 6);
}

static void level_begin(struct json *json, const char *name, char bracket)
{
	member_begin(json, name);
	fputc(bracket, json->file);
	json->depth++;
	json->first = true;
}

static void level_end(struct json *json, char bracket)
{
	json->depth--;
	json->first = true;
	member_begin(json, NULL);
	json->first = false;
	fputc(bracket, json->file);
}

void json_object(struct json *json, const char *name)
{
	level_begin(json, name, '{');
}

void json_object_end(struct json *json)
{
	level_end(json, '}');
}

void json_array(struct json *json, const char *name)
{
	level_begin(json, name, '[');
}

void json_array_end(struct json *json)
{
	level_end(json, ']');
}

void json_null(struct json *json, const char *name)
{
	member_begin(json, name);
	fputs("null", json->file);
}

void json_text(struct json *json, const char *name, const char *value)
{
	if (!value) {
		json_null(json, name);
		return;
	}
	member_begin(json, name);
	string_print(json->file, value);
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

void json_times(struct json *json, const char *name, const struct histogram *times)
{
	const struct {
		const char *name;
		double nsec;
	} members[] = {
		{ "min", (double) times->min },
		{ "mean", histogram_mean(times) },
		{ "max", (double) times->max },
		{ "mdev", histogram_deviation(times) },
		{ "p50", (double) histogram_quantile(times, 0.5) },
		{ "p90", (double) histogram_quantile(times, 0.9) },
		{ "p99", (double) histogram_quantile(times, 0.99) },
		{ "p999", (double) histogram_quantile(times, 0.999) },
	};

	json_object(json, name);
	json_count(json, "count", times->count);
	for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
		if (times->count > 0)
			json_number(json, members[i].name, members[i].nsec / 1e3, 3);
		else
			json_null(json, members[i].name);
	}
	json_object_end(json);
}

void json_close(struct json *json)
{
	fputs(json->compact ? " }\n" : "\n}\n", json->file);
	if (json->file == stdout)
		output_flush();
	written = true;
}

bool json_written(void)
{
	return written;
}
