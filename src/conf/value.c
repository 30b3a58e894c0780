/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "conf/value.h"

#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "base/quote.h"
#include "conf/schema.h"

static const char *const protocol_names[] = { "tcp", "udp", NULL };

static void *field_of(const struct conf *conf, enum conf_key key)
{
	return (char *) (uintptr_t) conf + schema[key].offset;
}

/* ---- numbers ---- */

static void number_store(struct conf *conf, enum conf_key key, int64_t value)
{
	void *field = field_of(conf, key);

	switch (schema[key].size) {
	case sizeof(uint16_t): *(uint16_t *) field = (uint16_t) value; break;
	case sizeof(uint32_t): *(uint32_t *) field = (uint32_t) value; break;
	default: *(uint64_t *) field = (uint64_t) value; break;
	}
}

static int64_t number_load(const struct conf *conf, enum conf_key key)
{
	const void *field = field_of(conf, key);

	switch (schema[key].size) {
	case sizeof(uint16_t): return *(const uint16_t *) field;
	case sizeof(uint32_t): return *(const uint32_t *) field;
	default: return (int64_t) *(const uint64_t *) field;
	}
}

static void read_number(struct reader *reader, enum conf_key key, const char *text)
{
	char why[SCHEMA_WHY_MAX];
	int64_t value;

	if (schema_number(key, text, &value, why) < 0) {
		reader_error(reader, key, why);
		value = schema[key].min;
	}
	number_store(reader->conf, key, value);
}

static void read_choice(struct reader *reader, enum conf_key key, const char *text)
{
	char why[SCHEMA_WHY_MAX];
	int index = schema_choice(text, schema[key].names, schema[key].noun, why);

	if (index < 0)
		reader_error(reader, key, why);
	else
		number_store(reader->conf, key, schema[key].min + index);
}

static void read_bool(struct reader *reader, enum conf_key key, const char *text)
{
	int value = cfg_parse_boolean(text);

	if (value < 0)
		reader_error_text(reader, key, text, "must be true or false (yes, no, on, off)");
	*(bool *) field_of(reader->conf, key) = value > 0;
}

/* Three octal digits, with or without a leading zero. */
static void read_mode(struct reader *reader, enum conf_key key, const char *text)
{
	const char *digits = strlen(text) == 4 && text[0] == '0' ? text + 1 : text;

	if (strlen(digits) == 3 && strspn(digits, "01234567") == 3)
		number_store(reader->conf, key, (int64_t) strtoul(digits, NULL, 8));
	else
		reader_error_text(reader, key, text,
		                  "must be the permissions of a file as chmod(1) takes them in octal, "
		                  "\"0000\" to \"0777\"");
}

/* ---- strings ---- */

static void check_string(struct reader *reader, enum conf_key key, const char *text)
{
	char why[SCHEMA_WHY_MAX];

	if (reader_find_control(reader, key, text))
		return;
	switch (schema[key].type) {
	case SCHEMA_MODEL:
		if (schema_choice(text, reader->models, "model", why) < 0)
			reader_error(reader, key, why);
		break;
	case SCHEMA_USER:
		if (*text && !getpwnam(text))
			reader_error_text(reader, key, text,
			                  "no such user here; name one that exists (by name, not by number), "
			                  "or \"\" for no change");
		break;
	case SCHEMA_GROUP:
		if (*text && !getgrnam(text))
			reader_error_text(reader, key, text,
			                  "no such group here; name one that exists (by name, not by "
			                  "number), or \"\" for the user's own");
		break;
	default: /* SCHEMA_PATH */
		if (*text && *text != '/')
			reader_error_text(reader, key, text,
			                  "must be an absolute path, beginning with /, or \"\" for none");
		else if (strlen(text) >= PATH_MAX)
			reader_error_text(reader, key, text, "is longer than a path can be");
		else if (*text && text[strlen(text) - 1] == '/')
			reader_error_text(reader, key, text,
			                  "names a directory; it must name a file, or be \"\" for none");
		break;
	}
}

static void read_string(struct reader *reader, enum conf_key key, const char *text)
{
	char *copy = strdup(text);

	check_string(reader, key, text);
	if (!copy)
		reader->diag->oom = true;
	*(char **) field_of(reader->conf, key) = copy;
}

/* ---- lists ---- */

static void read_networks(struct reader *reader, enum conf_key key)
{
	const struct conf_strings *strings = &reader->conf->text[key];
	struct cidr *networks;
	const char *why;
	size_t count = 0;

	reader_copy_list(reader, key);
	networks = calloc(strings->count + 1, sizeof *networks);
	if (!networks) {
		reader->diag->oom = true;
		return;
	}
	for (size_t i = 0; i < strings->count; i++) {
		if (reader_find_control(reader, key, strings->items[i]))
			continue;
		if (cidr_parse(&networks[count], strings->items[i], &why) == 0)
			count++;
		else
			reader_error_text(reader, key, strings->items[i], why);
	}
	if (cidr_set_make(field_of(reader->conf, key), networks, count) < 0)
		reader->diag->oom = true;
	free(networks);
}

static void read_protocols(struct reader *reader)
{
	const struct conf_strings *strings = &reader->conf->text[CONF_PROTOCOLS];
	char why[SCHEMA_WHY_MAX];

	reader_copy_list(reader, CONF_PROTOCOLS);
	if (strings->count == 0)
		reader_error(reader, CONF_PROTOCOLS,
		             "the list is empty; it must hold \"tcp\", \"udp\" or both");
	for (size_t i = 0; i < strings->count; i++) {
		int index = schema_choice(strings->items[i], protocol_names, "protocol", why);
		bool *protocol = index == 0 ? &reader->conf->tcp : &reader->conf->udp;

		if (index < 0)
			reader_error(reader, CONF_PROTOCOLS, why);
		else if (*protocol)
			reader_error_text(reader, CONF_PROTOCOLS, strings->items[i],
			                  "listed twice; once is enough");
		else
			*protocol = true;
	}
}

/* ---- all types ---- */

void value_read(struct reader *reader, enum conf_key key)
{
	const char *text = schema_is_list(key) ? "" : cfg_getstr(reader->cfg, schema[key].name);

	switch (schema[key].type) {
	case SCHEMA_NUMBER: read_number(reader, key, text); break;
	case SCHEMA_BOOL: read_bool(reader, key, text); break;
	case SCHEMA_CHOICE: read_choice(reader, key, text); break;
	case SCHEMA_MODE: read_mode(reader, key, text); break;
	case SCHEMA_NETWORKS: read_networks(reader, key); break;
	case SCHEMA_PROTOCOLS: read_protocols(reader); break;
	case SCHEMA_LISTEN: listen_read(reader); break;
	default: read_string(reader, key, text); break;
	}
}

/* Print a string, which has no control characters (reader_find_control()), in double quotes so that
 * libconfuse reads the same back. */
static void dump_string(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\' || *text == '$')
			fputc('\\', out);
		fputc(*text, out);
	}
	fputc('"', out);
}

static void dump_list(FILE *out, const char *const items[], size_t count)
{
	fputc('{', out);
	for (size_t i = 0; i < count; i++) {
		fputs(i > 0 ? ", " : "", out);
		dump_string(out, items[i]);
	}
	fputc('}', out);
}

static void dump_protocols(FILE *out, const struct conf *conf)
{
	const char *names[2];
	size_t count = 0;

	if (conf->tcp)
		names[count++] = "tcp";
	if (conf->udp)
		names[count++] = "udp";
	dump_list(out, names, count);
}

void value_dump(const struct conf *conf, enum conf_key key, FILE *out)
{
	const struct schema *row = &schema[key];

	switch (row->type) {
	case SCHEMA_NUMBER: fprintf(out, "%lld", (long long) number_load(conf, key)); break;
	case SCHEMA_BOOL: fputs(*(const bool *) field_of(conf, key) ? "true" : "false", out); break;
	case SCHEMA_CHOICE: dump_string(out, row->names[number_load(conf, key) - row->min]); break;
	case SCHEMA_MODE: fprintf(out, "\"%04o\"", (unsigned) number_load(conf, key)); break;
	case SCHEMA_PROTOCOLS: dump_protocols(out, conf); break;
	case SCHEMA_NETWORKS:
	case SCHEMA_LISTEN:
		dump_list(out, (const char *const *) conf->text[key].items, conf->text[key].count);
		break;
	default: dump_string(out, *(char *const *) field_of(conf, key)); break;
	}
}

void value_clear(struct conf *conf, enum conf_key key)
{
	struct conf_strings *strings = &conf->text[key];

	switch (schema[key].type) {
	case SCHEMA_MODEL:
	case SCHEMA_USER:
	case SCHEMA_GROUP:
	case SCHEMA_PATH:
		free(*(char **) field_of(conf, key));
		break;
	case SCHEMA_NETWORKS: cidr_set_clear(field_of(conf, key)); break;
	case SCHEMA_LISTEN: free(conf->listen); break;
	default: break;
	}
	for (size_t i = 0; i < strings->count; i++)
		free(strings->items[i]);
	free(strings->items);
	*strings = (struct conf_strings) { 0 };
}
